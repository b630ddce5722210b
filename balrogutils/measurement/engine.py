"""The code that fits: ours, or another one that is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from balrogutils.fitting.composite import CompositeFit, FracdevPrior, fit_composite
from balrogutils.fitting.fit import Fit
from balrogutils.fitting.galaxy import fit_galaxy
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.models import Model
from balrogutils.fitting.observation import LocalWCS, Observation, PSFStamp, Stack
from balrogutils.fitting.psffit import PSFFit, PSFOptions, fit_psf
from balrogutils.fitting.solver import LMOptions
from balrogutils.metacal.images import MetacalOptions, Sheared, metacal_images

__all__ = ["Engine", "Named", "engine_of"]

F64 = NDArray[np.float64]
Named = Callable[[], np.random.Generator]
"""Makes the named stream of random numbers of one fit, each time from its beginning."""


class Engine(Protocol):
    """What fits and shears; everything else, pixels, starts, columns, is the same whoever does."""

    def fit_psf(self, psf: PSFStamp, wcs: LocalWCS, options: PSFOptions, random: Named) -> PSFFit:
        """Fit a mixture to a PSF stamp, as `balrogutils.fitting.psffit.fit_psf`."""
        ...

    def fit_galaxy(
        self, data: Stack, psf: F64, model: Model, prior: JointPrior | None, starts: Sequence[F64], options: LMOptions
    ) -> Fit:
        """Fit one source, as `balrogutils.fitting.galaxy.fit_galaxy`."""
        ...

    def fit_composite(
        self,
        data: Stack,
        psf: F64,
        prior: JointPrior | None,
        starts: Sequence[F64],
        options: LMOptions,
        fracdev_prior: FracdevPrior | None,
        fracdev_range: tuple[float, float],
        ratio_range: tuple[float, float],
    ) -> CompositeFit:
        """Fit cm, as `balrogutils.fitting.composite.fit_composite`."""
        ...

    def metacal_images(
        self, bands: Sequence[Sequence[Observation]], options: MetacalOptions, random: np.random.Generator
    ) -> dict[str, Sheared]:
        """Make metacal images, as `balrogutils.metacal.images.metacal_images`."""
        ...


class _Own:
    """The engine of this package."""

    fit_galaxy = staticmethod(fit_galaxy)
    fit_composite = staticmethod(fit_composite)
    metacal_images = staticmethod(metacal_images)

    @staticmethod
    def fit_psf(psf: PSFStamp, wcs: LocalWCS, options: PSFOptions, random: Named) -> PSFFit:
        """Fit a mixture; from random starts where the first one fails."""
        fit = fit_psf(psf, wcs, options)
        return fit_psf(psf, wcs, options, random()) if fit.flags and options.ntry > 1 else fit


def engine_of(name: str) -> Engine:
    """Return an engine by its name in a run file.

    Raises
    ------
    ConfigError
        When it is not installed, or a version of it that cannot be used is.
    """
    if name == "balrogutils":
        return _Own()
    # Nothing but this needs it.
    from balrogutils.peers.engine import NgmixEngine

    return NgmixEngine()
