"""Fits of one galaxy, all bands and epochs together, and template fluxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.fitting.fit import Fit, fit_scene
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.mixture import make_round
from balrogutils.fitting.models import Model
from balrogutils.fitting.observation import Observation, Stack
from balrogutils.fitting.scene import Scene, single_links
from balrogutils.fitting.solver import LMOptions
from balrogutils.fitting.template import template_sums

__all__ = ["Round", "TemplateFlux", "fit_galaxy", "round_statistics", "template_flux"]

F64 = NDArray[np.float64]


class TemplateFlux(NamedTuple):
    """Flux, error and s/n of a fixed template; flags are `FitFlag` bits."""

    flags: int
    flux: float
    error: float
    s2n: float


class Round(NamedTuple):
    """s/n and size of the round version of a fit, and the size of the round PSF."""

    flags: int
    s2n: float
    size: float
    psf_size: float


def fit_galaxy(
    data: Stack, psf: F64, model: Model, prior: JointPrior | None, starts: Sequence[F64], options: LMOptions
) -> Fit:
    """Fit one source at the centre of every stamp.

    Parameters
    ----------
    data : Stack
        Stamps of all bands.
    psf : ndarray, shape (nstamp, npsf, 6)
        PSF mixture of each stamp, as a star of flux 1 looks there.
    model : Model
        Its profile.
    prior : JointPrior or None
        None fits the pixels alone.
    starts : sequence of ndarray
        First guesses, tried in order until one converges; never empty.
    options : LMOptions
        Limits of each try.

    Returns
    -------
    Fit
        Parameters v, u, g1, g2, T, those of the profile, and fluxes; not-a-number with flags when nothing converged.
    """
    scene = Scene(data, [model], single_links(data, psf), [prior])
    return fit_scene(scene, starts, options)


def round_statistics(data: Stack, psf: F64, model: Model, pars: F64, psf_shapes: F64) -> Round:
    """Return s/n and sizes of the fit made round, comparable between sheared and unsheared objects.

    Parameters
    ----------
    data, psf, model
        As in `fit_galaxy`; not a point source.
    pars : ndarray, shape (npar,)
        Best fit.
    psf_shapes : ndarray, shape (nstamp, 2)
        Sum of the weights and round T of the PSF of each stamp.
    """
    rounded = pars.copy()
    gg = float(pars[2] ** 2 + pars[3] ** 2)
    rounded[2:4] = 0.0
    rounded[4] = pars[4] * (1.0 - gg) / (1.0 + gg)
    scene = Scene(data, [model], single_links(data, np.array([make_round(mixture) for mixture in psf])))
    normal, gradient = np.empty((pars.size, pars.size)), np.empty(pars.size)
    chi2 = scene.chi2(rounded, normal, gradient)
    psf_size = float(psf_shapes[:, 0] @ psf_shapes[:, 1] / psf_shapes[:, 0].sum())
    if not chi2 >= 0.0:
        return Round(int(FitFlag.GMIX_RANGE_ERROR), math.nan, float(rounded[4]), psf_size)
    fluxes = scene.flux[0]
    s2n = math.sqrt(max(float(pars[fluxes] @ normal[np.ix_(fluxes, fluxes)] @ pars[fluxes]), 0.0))
    return Round(0, s2n, float(rounded[4]), psf_size)


def template_flux(epochs: Sequence[Observation], offset: tuple[float, float] = (0.0, 0.0)) -> TemplateFlux:
    """Return the flux of a point source by the pixelised PSF of each epoch.

    Parameters
    ----------
    epochs : sequence of Observation
        Stamps of one band with final weights and usable PSFs.
    offset : (float, float)
        Position (v, u) in arcsec relative to the centre of each stamp's WCS.

    Notes
    -----
    F = sum t d w / sum t^2 w over all epochs; the error is scaled by the residuals, sqrt(chi^2 / sum t^2 w / (npix
    - 1)), as in the DES catalogues.
    """
    cross = power = total = 0.0
    npix = 0
    for epoch in epochs:
        assert epoch.psf is not None
        wcs, (v, u) = epoch.wcs, offset
        det = wcs.determinant
        row = wcs.row0 + (wcs.dudcol * v - wcs.dvdcol * u) / det
        col = wcs.col0 + (-wcs.dudrow * v + wcs.dvdrow * u) / det
        nrow, ncol = epoch.image.shape
        sums = template_sums(
            np.ascontiguousarray(epoch.image, np.float64).ravel(),
            np.ascontiguousarray(epoch.weight, np.float64).ravel(),
            nrow,
            ncol,
            row,
            col,
            np.ascontiguousarray(epoch.psf.image, np.float64),
            epoch.psf.row,
            epoch.psf.col,
        )
        cross, power, total = cross + sums[0], power + sums[1], total + sums[2]
        npix += int(np.count_nonzero(epoch.weight))
    if npix < 2:
        return TemplateFlux(int(FitFlag.ZERO_DOF), math.nan, math.nan, math.nan)
    if not power > 0.0:
        return TemplateFlux(int(FitFlag.DIV_ZERO), math.nan, math.nan, math.nan)
    flux = cross / power
    error = math.sqrt(max(total - flux * cross, 0.0) / power / (npix - 1))
    return TemplateFlux(0, flux, error, flux / error if error > 0.0 else 0.0)
