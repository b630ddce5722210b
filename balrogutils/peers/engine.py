"""ngmix as the engine of fits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from balrogutils.fitting.observation import LocalWCS, PSFStamp
from balrogutils.fitting.psffit import PSFFit, PSFOptions
from balrogutils.peers.composites import fit_composite
from balrogutils.peers.fits import fit_galaxy, fit_psf
from balrogutils.peers.images import metacal_images
from balrogutils.peers.installed import load_ngmix

__all__ = ["NgmixEngine"]


class NgmixEngine:
    """Fits and metacal images by ngmix, as `balrogutils.measurement.engine.Engine` says.

    Raises
    ------
    ConfigError
        When ngmix cannot be used.
    """

    fit_galaxy = staticmethod(fit_galaxy)
    fit_composite = staticmethod(fit_composite)
    metacal_images = staticmethod(metacal_images)

    def __init__(self) -> None:
        load_ngmix()

    @staticmethod
    def fit_psf(psf: PSFStamp, wcs: LocalWCS, options: PSFOptions, random: Callable[[], np.random.Generator]) -> PSFFit:
        """Fit a mixture, from random starts."""
        return fit_psf(psf, wcs, options, random())
