"""Fits of one galaxy, all bands and epochs together, and template fluxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.kernels import evaluate_galaxy
from balrogutils.fitting.mixture import Profile, make_round
from balrogutils.fitting.observation import Observation, Stack
from balrogutils.fitting.priors import JointPrior
from balrogutils.fitting.psffit import template_sums
from balrogutils.fitting.solver import LMOptions, Status, invert, minimise

__all__ = ["GalaxyFit", "Round", "TemplateFlux", "fit_galaxy", "round_statistics", "template_flux"]

F64 = NDArray[np.float64]


class GalaxyFit(NamedTuple):
    """Result of one model fit.

    flags : `FitFlag` bits; pars, [5 + nband] : v, u (arcsec), g1, g2, T (arcsec^2), fluxes; cov0 : inverse normal
    matrix with prior rows; cov : cov0 scaled by the residual variance; chi2per : (chi^2 + prior rows) / dof; dof :
    pixels - parameters; s2n : of the model, sum d m w / sqrt(sum m^2 w); nfev : evaluations of all tries.
    """

    flags: int
    pars: F64
    cov0: F64
    cov: F64
    chi2per: float
    dof: int
    s2n: float
    nfev: int


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


def _unfitted(flags: int, npar: int, nfev: int) -> GalaxyFit:
    bad = np.full((npar, npar), math.nan)
    return GalaxyFit(int(flags), np.full(npar, math.nan), bad, bad, math.nan, 0, math.nan, nfev)


def fit_galaxy(
    data: Stack, psf: F64, shape: Profile, prior: JointPrior | None, starts: Sequence[F64], options: LMOptions
) -> GalaxyFit:
    """Fit v, u, g1, g2, T and a flux per band to all stamps.

    Parameters
    ----------
    data : Stack
        Stamps of all bands.
    psf : ndarray, shape (nstamp, npsf, 6)
        PSF mixture of each stamp, as a star of flux 1 looks there.
    shape : Profile
        Radial profile.
    prior : JointPrior or None
        None fits the pixels alone.
    starts : sequence of ndarray
        First guesses, tried in order until one converges; never empty.
    options : LMOptions
        Limits of each try.

    Returns
    -------
    GalaxyFit
        Not-a-number results with flags when nothing converged.

    Notes
    -----
    Errors follow the convention of the DES catalogues: the inverse normal matrix, prior rows included, times
    s^2 = chi^2_pixels / (npix - npar), so that they account for weights that are wrong by a common factor. `cov0`
    is without s^2.
    """
    npar = 5 + data.nband
    dof = data.npix - npar
    if dof <= 0:
        return _unfitted(FitFlag.ZERO_DOF, npar, 0)

    def on_pixels(pars: F64, normal: F64, gradient: F64) -> float:
        chi2 = evaluate_galaxy(
            pars,
            shape.p,
            shape.f,
            data.image,
            data.weight,
            data.start,
            data.nrow,
            data.ncol,
            data.band,
            data.wcs,
            psf,
            normal,
            gradient,
        )
        return float(chi2) if chi2 >= 0.0 else math.nan

    def evaluate(pars: F64, normal: F64, gradient: F64) -> float:
        chi2 = on_pixels(pars, normal, gradient)
        return chi2 if prior is None or math.isnan(chi2) else chi2 + prior.add(pars, normal, gradient, stepping=True)

    reasons = {
        Status.MAXFEV: FitFlag.MAXITER,
        Status.BAD_START: FitFlag.GMIX_RANGE_ERROR,
        Status.NOT_FINITE: FitFlag.LM_FUNC_NOTFINITE,
    }
    flags, nfev = int(FitFlag.NO_ATTEMPT), 0
    for start in starts:
        solution = minimise(evaluate, start, options)
        nfev += solution.nfev
        if solution.status is not Status.CONVERGED:
            flags = int(reasons[solution.status])
            continue
        pars = solution.pars
        normal, gradient = np.empty((npar, npar)), np.empty(npar)
        variance = on_pixels(pars, normal, gradient) / dof
        fluxes = pars[5:]
        power = float(fluxes @ normal[5:, 5:] @ fluxes)
        # The flux rows of the gradient are sum t w (m - d), so this is sum d m w.
        cross = power - float(fluxes @ gradient[5:])
        s2n = cross / math.sqrt(power) if power > 0.0 else 0.0
        chi2 = variance * dof + (0.0 if prior is None else prior.add(pars, normal, gradient))
        cov0 = invert(normal)
        if cov0 is None:
            flags = int(FitFlag.LM_SINGULAR_MATRIX)
            continue
        if not variance > 0.0:
            flags = int(FitFlag.NONPOS_VAR)
            continue
        return GalaxyFit(0, pars, cov0, cov0 * variance, chi2 / dof, dof, s2n, nfev)
    return _unfitted(flags, npar, nfev)


def round_statistics(data: Stack, psf: F64, shape: Profile, pars: F64, psf_shapes: F64) -> Round:
    """Return s/n and sizes of the fit made round, comparable between sheared and unsheared objects.

    Parameters
    ----------
    data, psf, shape
        As in `fit_galaxy`.
    pars : ndarray, shape (5 + nband,)
        Best fit.
    psf_shapes : ndarray, shape (nstamp, 2)
        Sum of the weights and round T of the PSF of each stamp.
    """
    rounded = pars.copy()
    gg = float(pars[2] ** 2 + pars[3] ** 2)
    rounded[2:4] = 0.0
    rounded[4] = pars[4] * (1.0 - gg) / (1.0 + gg)
    npar = pars.size
    normal, gradient = np.empty((npar, npar)), np.empty(npar)
    chi2 = evaluate_galaxy(
        rounded,
        shape.p,
        shape.f,
        data.image,
        data.weight,
        data.start,
        data.nrow,
        data.ncol,
        data.band,
        data.wcs,
        np.array([make_round(mixture) for mixture in psf]),
        normal,
        gradient,
    )
    psf_size = float(psf_shapes[:, 0] @ psf_shapes[:, 1] / psf_shapes[:, 0].sum())
    if not chi2 >= 0.0:
        return Round(int(FitFlag.GMIX_RANGE_ERROR), math.nan, float(rounded[4]), psf_size)
    s2n = math.sqrt(max(float(pars[5:] @ normal[5:, 5:] @ pars[5:]), 0.0))
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
