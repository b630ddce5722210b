"""PSF stamps: coelliptical Gaussian mixtures, and the stamp itself as a template."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from balrogutils.errors import ConfigError
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.mixture import COELLIP
from balrogutils.fitting.mixturekernels import evaluate_psf
from balrogutils.fitting.observation import LocalWCS, PSFStamp
from balrogutils.fitting.solver import DAMPING_START, judge, propose, scaled_norm

__all__ = ["PSFFit", "PSFOptions", "fit_psf", "psf_components", "psf_is_usable", "template_sums"]

F64 = NDArray[np.float64]
# A mixture whose centre is farther from the centre of its stamp, in pixels, is not one of this PSF.
_MAX_SHIFT = 2.0


class PSFOptions(NamedTuple):
    """How PSF mixtures are fit: components, tries, evaluations a try, relative fall of chi^2 and step that end it."""

    ncomp: int = 3
    ntry: int = 4
    maxfev: int = 300
    ftol: float = 1e-6
    xtol: float = 1e-6


class PSFFit(NamedTuple):
    """A PSF mixture.

    flags : 0, or `FitFlag` bits; mixture : float64 [ncomp, 6], centred, its flux that of the fit over the sum of
    the stamp (1 less what lies in wings that Gaussians do not have); counts : flux of the fit;
    g1, g2 : shape; size : T in arcsec^2; s2n : of the model against the nominal error of the stamp (its peak / 1000).
    """

    flags: int
    mixture: F64
    counts: float
    g1: float
    g2: float
    size: float
    s2n: float


def psf_components(model: str) -> int:
    """Return the number of Gaussians of ``gauss`` or ``coellip<N>``.

    Raises
    ------
    ConfigError
        For any other PSF model.
    """
    names = {"gauss": 1, **{f"coellip{n}": n for n in COELLIP}}
    if model not in names:
        raise ConfigError(
            f"the PSF model {model!r} is not available", key="psf_pars.model", remedy="use one of " + ", ".join(names)
        )
    return names[model]


@njit(cache=True)
def _fit_coellip(image, weight, nrow, ncol, wcs, pars, ncomp, maxfev, ftol, xtol):
    """Minimise chi^2 in place of `pars`; returns (converged, evaluations, chi^2). Damping as in `solver.minimise`."""
    n = pars.shape[0]
    normal, gradient = np.empty((n, n)), np.empty(n)
    trial_normal, trial_gradient = np.empty((n, n)), np.empty(n)
    step, trial, scale = np.empty(n), np.empty(n), np.empty(n)
    chi2 = evaluate_psf(pars, ncomp, image, weight, nrow, ncol, wcs, normal, gradient)
    if not (chi2 >= 0.0 and chi2 < np.inf):
        return False, 1, np.nan
    for i in range(n):
        scale[i] = normal[i, i]
    damping, growth = DAMPING_START, 2.0
    nfev = 1
    while nfev < maxfev and damping < 1e14:
        predicted = propose(normal, gradient, scale, damping, step)
        if not predicted >= 0.0:
            damping, growth = judge(-1.0, predicted, damping, growth)
            continue
        trial[:] = pars + step
        trial_chi2 = evaluate_psf(trial, ncomp, image, weight, nrow, ncol, wcs, trial_normal, trial_gradient)
        nfev += 1
        actual = chi2 - trial_chi2 if trial_chi2 >= 0.0 else -1.0
        small = ftol * chi2
        if actual >= 0.0:
            short = damping < 1.0 and scaled_norm(step, scale) <= xtol * scaled_norm(trial, scale)
            pars[:] = trial
            chi2 = trial_chi2
            normal[:, :] = trial_normal
            gradient[:] = trial_gradient
            for i in range(n):
                scale[i] = max(scale[i], normal[i, i])
            if (actual <= small and predicted <= small) or short:
                return True, nfev, chi2
        elif predicted <= small and trial_chi2 >= 0.0 and -actual <= small:
            return True, nfev, chi2
        damping, growth = judge(actual, predicted, damping, growth)
    return damping >= 1e14, nfev, chi2


def psf_is_usable(psf: PSFStamp | None) -> bool:
    """Whether a PSF stamp is there, finite, and has positive flux and a centre inside."""
    if psf is None or psf.image.ndim != 2 or min(psf.image.shape) < 3:
        return False
    inside = 0.0 <= psf.row <= psf.image.shape[0] - 1 and 0.0 <= psf.col <= psf.image.shape[1] - 1
    return bool(inside and np.all(np.isfinite(psf.image)) and psf.image.sum() > 0.0 and psf.image.max() > 0.0)


def fit_psf(psf: PSFStamp, wcs: LocalWCS, options: PSFOptions, jitter: np.random.Generator | None = None) -> PSFFit:
    """Fit a coelliptical mixture to a PSF stamp.

    Parameters
    ----------
    psf : PSFStamp
        Stamp; must be usable.
    wcs : LocalWCS
        Derivatives at the object; the centre is taken from the stamp.
    options : PSFOptions
        Number of Gaussians and limits.
    jitter : numpy.random.Generator, optional
        Where second and later tries get their starts from; without it there is one try.

    Returns
    -------
    PSFFit
        ``flags`` is not 0 when no try converged to a mixture of positive flux.
    """
    image = np.ascontiguousarray(psf.image, np.float64)
    nrow, ncol = image.shape
    n = options.ncomp
    peak, total = float(image.max()), float(image.sum())
    # psf stamps carry no errors; only the relative scale of chi^2 depends on this.
    weight = np.full(image.size, (1000.0 / peak) ** 2)
    local = np.array(wcs.at(psf.row, psf.col))
    # T of the Gaussian with the area above half maximum, enlarged by what Moffat wings add.
    start_size = 1.2 * float(np.count_nonzero(image > 0.5 * peak)) * wcs.area / (math.pi * math.log(2.0))
    p, f = COELLIP[n]
    flags = 0
    for attempt in range(options.ntry if jitter is not None else 1):
        pars = np.concatenate([[0.0, 0.0, 0.0, 0.0], np.log(f * start_size), p * total / p.sum()])
        if attempt and jitter is not None:
            pars[:2] += jitter.uniform(-0.1, 0.1, 2) * wcs.scale
            pars[2:4] += jitter.uniform(-0.05, 0.05, 2)
            pars[4 : 4 + n] += jitter.uniform(-0.3, 0.3, n)
            pars[4 + n :] *= jitter.uniform(0.8, 1.2, n)
        converged, _, chi2 = _fit_coellip(
            image.ravel(), weight, nrow, ncol, local, pars, n, options.maxfev, options.ftol, options.xtol
        )
        counts = float(pars[4 + n :].sum())
        sizes = np.exp(pars[4 : 4 + n])
        shares = pars[4 + n :] / counts if counts > 0.0 else np.zeros(n)
        size = float(shares @ sizes)
        if not math.isfinite(chi2):
            flags = FitFlag.LM_FUNC_NOTFINITE
        elif not converged:
            flags = FitFlag.MAXITER
        elif not counts > 0.0:
            flags = FitFlag.NONPOS_FLUX
        elif not size > 0.0:
            flags = FitFlag.NONPOS_SIZE
        elif not math.hypot(pars[0], pars[1]) < _MAX_SHIFT * wcs.scale:
            flags = FitFlag.CEN_SHIFT
        elif not size < nrow * ncol * wcs.area:
            # Wider than its stamp: a pedestal, not a PSF.
            flags = FitFlag.GMIX_RANGE_ERROR
        else:
            flags = 0
            break
    g1, g2 = float(pars[2]), float(pars[3])
    gg = g1 * g1 + g2 * g2
    e1, e2 = 2.0 * g1 / (1.0 + gg), 2.0 * g2 / (1.0 + gg)
    mixture = np.zeros((n, 6))
    # The core decides the fit; Gaussians cannot follow the outer wings of a Moffat. Kept at the fitted flux and not
    # made 1, the mixture has the right core for a star of flux 1, and fluxes are not low by what the wings hold.
    mixture[:, 0] = shares * counts / total
    mixture[:, 3] = 0.5 * sizes * (1.0 - e1)
    mixture[:, 4] = 0.5 * sizes * e2
    mixture[:, 5] = 0.5 * sizes * (1.0 + e1)
    power = float(weight[0] * (image**2).sum())
    s2n = math.sqrt(max(power - chi2, 0.0)) if math.isfinite(chi2) else 0.0
    return PSFFit(int(flags), mixture, counts, g1, g2, size, s2n)


@njit(cache=True)
def _sinc_weights(shift, count, n):
    """Return W [n, count]: sample j of n periodic, band-limited samples moved to j + shift is sum_k W[k, j] x[k].

    This is the shift theorem of the discrete Fourier transform written out; zero where j + shift lies outside the
    samples.
    """
    weights = np.zeros((n, count))
    fraction = shift - math.floor(shift + 0.5)
    whole = math.floor(shift + 0.5)
    sine = math.sin(math.pi * fraction)
    for j in range(count):
        at = j + whole
        if at < 0 or at > n - 1:
            continue
        if abs(fraction) < 1e-9:
            weights[at, j] = 1.0
            continue
        for k in range(n):
            angle = math.pi * (at - k + fraction) / n
            sign = -1.0 if (at - k) % 2 else 1.0
            weights[k, j] = sign * sine / (n * (math.sin(angle) if n % 2 else math.tan(angle)))
    return weights


@njit(cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def _axpy(scale, x, y):
    for j in range(x.shape[0]):
        y[j] += scale * x[j]


@njit(cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def template_sums(image, weight, nrow, ncol, row0, col0, psf, psf_row, psf_col):
    """Return (sum t d w, sum t^2 w, sum d^2 w) with t the unit-flux PSF stamp moved to (row0, col0).

    Parameters
    ----------
    image, weight : float64, flat
        Stamp of nrow x ncol pixels.
    row0, col0 : float
        Where the object is in the stamp, zero-offset pixels.
    psf : float64 [nrow, ncol]
        PSF stamp; divided by its sum.
    psf_row, psf_col : float
        Its centre.

    Notes
    -----
    The pixel-integrated PSF is band-limited to what the pixel grid carries if the FWHM is above some 2.5 pixels, so
    the Fourier shift moves it by any fraction of a pixel with errors below 1e-4 of the flux (1e-5 from 3 pixels
    on); a Lanczos kernel of 5 lobes leaves 2e-3 at half a pixel.
    """
    prow, pcol = psf.shape
    flux = 0.0
    for i in range(prow):
        for j in range(pcol):
            flux += psf[i, j]
    # Sample k of the moved stamp stands at image row k + first: psf row = image row - row0 + psf_row.
    shift_r, shift_c = psf_row - row0, psf_col - col0
    across, along = _sinc_weights(shift_c, ncol, pcol), _sinc_weights(shift_r, nrow, prow)
    moved = np.zeros((prow, ncol))
    for i in range(prow):
        for k in range(pcol):
            _axpy(psf[i, k] / flux, across[k], moved[i])
    cross, power, data = 0.0, 0.0, 0.0
    template = np.empty(ncol)
    for i in range(nrow):
        template[:] = 0.0
        for k in range(prow):
            if along[k, i] != 0.0:
                _axpy(along[k, i], moved[k], template)
        for j in range(ncol):
            w = weight[i * ncol + j]
            d = image[i * ncol + j]
            wt = w * template[j]
            data += w * d * d
            cross += wt * d
            power += wt * template[j]
    return cross, power, data
