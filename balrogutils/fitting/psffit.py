"""PSF stamps as Gaussian mixtures: coelliptical ones, turbulence, and free ones by expectation maximisation."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.compiled import njit
from balrogutils.errors import ConfigError
from balrogutils.fitting.emfit import EMOptions, em_mixture
from balrogutils.fitting.fit import fit_scene
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.gaussians import WINDOW
from balrogutils.fitting.mixture import COELLIP, convolve, covariance, e_to_g, moments
from balrogutils.fitting.mixturekernels import evaluate_psf, render_table
from balrogutils.fitting.models import model
from balrogutils.fitting.observation import LocalWCS, Observation, PSFStamp, stack
from balrogutils.fitting.scene import Scene, single_links
from balrogutils.fitting.solver import DAMPING_START, LMOptions, judge, propose, scaled_norm

__all__ = [
    "PSFFit",
    "PSFOptions",
    "fit_psf",
    "psf_family",
    "psf_is_usable",
    "psf_result",
    "psf_weight",
]

F64 = NDArray[np.float64]
# A mixture whose centre is farther from the centre of its stamp, in pixels, is not one of this PSF.
_MAX_SHIFT = 2.0
# Nor is one with so small or so many times a part of the flux of its stamp; wings beyond Gaussians are a tenth.
_LEAST_FLUX = 0.5


class PSFOptions(NamedTuple):
    """How PSF mixtures are fit: family and number of Gaussians, tries, evaluations a try, relative fall of chi^2 and
    step that end it; and the limits of expectation maximisation.
    """

    family: str = "coellip"
    ncomp: int = 3
    ntry: int = 4
    maxfev: int = 300
    ftol: float = 1e-6
    xtol: float = 1e-6
    em: EMOptions = EMOptions()


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


def psf_family(model: str) -> tuple[str, int]:
    """Return family and number of Gaussians of ``gauss``, ``turb``, ``coellip<N>`` or ``em<N>``.

    Raises
    ------
    ConfigError
        For any other PSF model.
    """
    names = {"gauss": ("coellip", 1), "turb": ("turb", 3)}
    names |= {f"{family}{n}": (family, n) for family in ("coellip", "em") for n in COELLIP}
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
        small = ftol * chi2
        if predicted <= small and damping <= DAMPING_START:
            # So short a step needs no evaluation.
            pars[:] = pars + step
            return True, nfev, chi2 - predicted
        trial[:] = pars + step
        trial_chi2 = evaluate_psf(trial, ncomp, image, weight, nrow, ncol, wcs, trial_normal, trial_gradient)
        nfev += 1
        actual = chi2 - trial_chi2 if trial_chi2 >= 0.0 else -1.0
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


def _start_size(image: F64, wcs: LocalWCS) -> float:
    """Return T of the Gaussian with the area above half maximum, enlarged by what Moffat wings add."""
    return 1.2 * float(np.count_nonzero(image > 0.5 * image.max())) * wcs.area / (math.pi * math.log(2.0))


def _coellip(
    image: F64, weight: F64, wcs: LocalWCS, options: PSFOptions, jitter: np.random.Generator | None
) -> tuple[int, F64]:
    """Return flags and the coelliptical mixture around the centre of `wcs`."""
    n, total = options.ncomp, float(image.sum())
    p, f = COELLIP[n]
    pars = np.concatenate([np.zeros(4), np.log(f * _start_size(image, wcs)), p * total / p.sum()])
    if jitter is not None:
        pars[:2] += jitter.uniform(-0.1, 0.1, 2) * wcs.scale
        pars[2:4] += jitter.uniform(-0.05, 0.05, 2)
        pars[4 : 4 + n] += jitter.uniform(-0.3, 0.3, n)
        pars[4 + n :] *= jitter.uniform(0.8, 1.2, n)
    nrow, ncol = image.shape
    converged, _, chi2 = _fit_coellip(
        image.ravel(), weight.ravel(), nrow, ncol, np.array(wcs), pars, n, options.maxfev, options.ftol, options.xtol
    )
    flags = 0 if converged else FitFlag.MAXITER if math.isfinite(chi2) else FitFlag.LM_FUNC_NOTFINITE
    rows = [
        (amount, pars[0], pars[1], *covariance(pars[2], pars[3], math.exp(size)))
        for size, amount in zip(pars[4 : 4 + n], pars[4 + n :], strict=True)
    ]
    return int(flags), np.array(rows)


def _turbulence(
    image: F64, weight: F64, wcs: LocalWCS, options: PSFOptions, jitter: np.random.Generator | None
) -> tuple[int, F64]:
    """Return flags and the mixture of a turbulent atmosphere around the centre of `wcs`."""
    data = stack([[Observation(image, weight, wcs, None)]])
    scene = Scene(data, [model("turb")], single_links(data, np.array([[[1.0, 0, 0, 0, 0, 0]]])))
    start = np.array([0.0, 0.0, 0.0, 0.0, _start_size(image, wcs), float(image.sum())])
    if jitter is not None:
        start[:4] += jitter.uniform(-0.05, 0.05, 4)
        start[4] *= jitter.uniform(0.8, 1.2)
    fit = fit_scene(scene, [start], LMOptions(options.maxfev, options.ftol, options.xtol))
    return fit.flags, convolve(start if fit.flags else fit.pars, model("turb").profile())


def _maximised(
    image: F64, weight: F64, wcs: LocalWCS, options: PSFOptions, jitter: np.random.Generator | None
) -> tuple[int, F64]:
    """Return flags and the mixture of expectation maximisation around the centre of `wcs`."""
    variance = 0.5 * _start_size(image, wcs) / wcs.area
    row, col = wcs.row0, wcs.col0
    if jitter is not None:
        variance *= jitter.uniform(0.8, 1.2)
        row, col = row + jitter.uniform(-0.2, 0.2), col + jitter.uniform(-0.2, 0.2)
    table, converged = em_mixture(image, row, col, variance, options.ncomp, options.em)
    flags = 0 if converged else FitFlag.MAXITER
    jacobian = np.array([[wcs.dvdrow, wcs.dvdcol], [wcs.dudrow, wcs.dudcol]])
    out = table.copy()
    out[:, 1], out[:, 2] = wcs.sky(table[:, 1], table[:, 2])
    for one, sky in zip(table, out, strict=True):
        matrix = jacobian @ np.array([[one[3], one[4]], [one[4], one[5]]]) @ jacobian.T
        sky[3:] = matrix[0, 0], matrix[0, 1], matrix[1, 1]
    return int(flags), out


_FAMILIES = {"coellip": _coellip, "turb": _turbulence, "em": _maximised}


def fit_psf(psf: PSFStamp, wcs: LocalWCS, options: PSFOptions, jitter: np.random.Generator | None = None) -> PSFFit:
    """Fit a mixture to a PSF stamp.

    Parameters
    ----------
    psf : PSFStamp
        Stamp; must be usable.
    wcs : LocalWCS
        Derivatives at the object; the centre is taken from the stamp.
    options : PSFOptions
        Family, number of Gaussians and limits.
    jitter : numpy.random.Generator, optional
        Where second and later tries get their starts from; without it there is one try, which is always the same.

    Returns
    -------
    PSFFit
        ``flags`` is not 0 when no try converged to a mixture of positive flux.
    """
    image = np.ascontiguousarray(psf.image, np.float64)
    weight, local = psf_weight(image), wcs.at(psf.row, psf.col)
    fit = _FAMILIES[options.family]
    found, mixture = fit(image, weight, local, options, None)
    result = psf_result(found, mixture, psf, wcs)
    for _ in range(options.ntry - 1 if jitter is not None and result.flags else 0):
        found, mixture = fit(image, weight, local, options, jitter)
        result = psf_result(found, mixture, psf, wcs)
        if not result.flags:
            break
    return result


def psf_weight(image: F64) -> F64:
    """Return weights for a PSF stamp, which carries no errors: the same everywhere, peak / 1000 for the error.

    Only the relative scale of chi^2 depends on it.
    """
    return np.full(image.shape, (1000.0 / float(image.max())) ** 2)


def psf_result(flags: int, mixture: F64, psf: PSFStamp, wcs: LocalWCS) -> PSFFit:
    """Return a mixture that was fit to a PSF stamp as a fit, flagged where it is no PSF.

    Parameters
    ----------
    flags : int
        `FitFlag` bits of the fit itself.
    mixture : ndarray, shape (ncomp, 6)
        Flux, v, u and covariance of each Gaussian, arcsec from the centre of the stamp.
    psf, wcs
        As in `fit_psf`.
    """
    image = np.ascontiguousarray(psf.image, np.float64)
    nrow, ncol = image.shape
    total, weight = float(image.sum()), psf_weight(image)
    local = wcs.at(psf.row, psf.col)
    counts, g1, g2, size = float(mixture[:, 0].sum()), 0.0, 0.0, 0.0
    why = FitFlag(flags)
    if not why and not counts > 0.0:
        why = FitFlag.NONPOS_FLUX
    if not why:
        _, v, u, e1, e2, size = moments(mixture)
        if not size > 0.0:
            why = FitFlag.NONPOS_SIZE
        elif not math.hypot(v, u) < _MAX_SHIFT * wcs.scale:
            why = FitFlag.CEN_SHIFT
        elif not size < nrow * ncol * wcs.area or not math.hypot(e1, e2) < 1.0:
            # Wider than its stamp: a pedestal, not a PSF.
            why = FitFlag.GMIX_RANGE_ERROR
        elif not _LEAST_FLUX < counts / total < 1.0 / _LEAST_FLUX:
            # A single pixel, say, of which no Gaussian has the flux.
            why = FitFlag.GMIX_RANGE_ERROR
        else:
            g1, g2 = (float(value) for value in e_to_g(e1, e2))
    chi2 = float((weight * (render_table(mixture, nrow, ncol, np.array(local), WINDOW) - image) ** 2).sum())
    s2n = math.sqrt(max(float((weight * image**2).sum()) - chi2, 0.0)) if math.isfinite(chi2) else 0.0
    mixture = mixture.copy()
    if counts > 0.0:
        mixture[:, 1:3] -= mixture[:, 0] @ mixture[:, 1:3] / counts
    # The core decides the fit; Gaussians cannot follow the outer wings of a Moffat. Kept at the fitted flux and not
    # made 1, the mixture has the right core for a star of flux 1, and fluxes are not low by what the wings hold.
    mixture[:, 0] /= total
    return PSFFit(int(why), mixture, counts, g1, g2, size, s2n)
