"""PSF and galaxy fits by ngmix, with the arguments and results of ours."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import FitError
from balrogutils.fitting.fit import Fit, unfitted
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.models import Model
from balrogutils.fitting.observation import LocalWCS, PSFStamp, Stack
from balrogutils.fitting.psffit import PSFFit, PSFOptions, psf_result, psf_weight
from balrogutils.fitting.solver import LMOptions
from balrogutils.peers.installed import load_ngmix
from balrogutils.peers.priors import joint_prior

__all__ = ["fit_galaxy", "fit_psf", "fit_with", "flags_of", "observations", "psf_observation", "quiet"]

F64 = NDArray[np.float64]

# MINPACK's codes for evaluations used up, and for tolerances that cannot be reached: the parameters are thrown away.
_NOT_CONVERGED = range(5, 9)


@contextmanager
def quiet() -> Iterator[None]:
    """Let ngmix compute with infinities, which stand for zero probability, without a warning for each."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def flags_of(result: Any) -> int:
    """Return our flags for those of an ngmix result, whose bits are the same but for codes of MINPACK among them."""
    if result.get("ier") in _NOT_CONVERGED:
        return int(FitFlag.MAXITER)
    return int(result["flags"])


def _jacobian(wcs: LocalWCS) -> Any:
    slopes = {name: getattr(wcs, name) for name in ("dvdrow", "dvdcol", "dudrow", "dudcol")}
    return load_ngmix().module.Jacobian(row=wcs.row0, col=wcs.col0, **slopes)


def psf_observation(psf: PSFStamp, wcs: LocalWCS) -> Any:
    """Return a PSF stamp as ngmix takes it."""
    image = np.ascontiguousarray(psf.image, np.float64)
    return load_ngmix().module.Observation(
        image, weight=psf_weight(image), jacobian=_jacobian(wcs.at(float(psf.row), float(psf.col)))
    )


def observations(data: Stack, psf: F64) -> Any:
    """Return stamps of all bands with their PSF mixtures as ngmix takes them.

    ngmix makes the flux of every PSF mixture 1. Ours have the flux that makes the core right; an image divided by it
    and a weight times its square are the same fit. Stamps without weight are left out.

    Raises
    ------
    FitError
        When a band has no stamp with a weight.
    """
    ngmix = load_ngmix().module
    bands = [ngmix.ObsList() for _ in range(data.nband)]
    for k, start in enumerate(data.start):
        shape = (int(data.nrow[k]), int(data.ncol[k]))
        part = slice(int(start), int(start) + shape[0] * shape[1])
        weight, amount = data.weight[part].reshape(shape), float(psf[k, :, 0].sum())
        if not weight.any():
            continue
        # Where a mixture belongs to: no fit looks at the pixels of the PSF.
        inner = ngmix.Observation(np.zeros((1, 1)), gmix=ngmix.GMix(pars=psf[k].ravel()))
        outer = _jacobian(LocalWCS(*(float(one) for one in data.wcs[k])))
        image = data.image[part].reshape(shape) / amount
        one = ngmix.Observation(image, weight=weight * amount**2, jacobian=outer, psf=inner, ignore_zero_weight=True)
        bands[int(data.band[k])].append(one)
    if not all(len(band) for band in bands):
        raise FitError("a band has no stamp with a weight")
    seen = ngmix.MultiBandObsList()
    for band in bands:
        seen.append(band)
    return seen


def fit_with(fitter: Any, seen: Any, starts: Sequence[F64], dof: int) -> tuple[Fit, Any]:
    """Fit from one start after the other until a fit converges.

    Parameters
    ----------
    fitter : ngmix fitter
        With the limits of each try.
    seen : ngmix observations
        As of `observations`.
    starts : sequence of ndarray
        First guesses; never empty.
    dof : int
        Pixels less parameters.

    Returns
    -------
    (Fit, ngmix result or None)
        As of `balrogutils.fitting.galaxy.fit_galaxy`, and what ngmix returned where there is a fit.
    """
    flags, nfev, npar = int(FitFlag.NO_ATTEMPT), 0, starts[0].size
    if dof <= 0:
        return unfitted(FitFlag.ZERO_DOF, npar, max(dof, 0), 0), None
    for start in starts:
        try:
            with quiet():
                result = fitter.go(obs=seen, guess=start.copy())
        except load_ngmix().module.GMixRangeError:
            flags = int(FitFlag.GMIX_RANGE_ERROR)
            continue
        nfev += max(int(result["nfev"]), 0) if "nfev" in result else 0
        flags = flags_of(result)
        if not flags:
            cov0, cov = (np.array(result[name], float) for name in ("pars_cov0", "pars_cov"))
            pars = np.array(result["pars"], float)
            if not (np.all(np.isfinite(pars)) and np.all(np.isfinite(cov)) and math.isfinite(result["chi2per"])):
                flags = int(FitFlag.LM_FUNC_NOTFINITE)
                continue
            return Fit(0, pars, cov0, cov, float(result["chi2per"]), dof, float(result["s2n"]), nfev), result
    return unfitted(flags, npar, dof, nfev), None


def fit_galaxy(
    data: Stack, psf: F64, model: Model, prior: JointPrior | None, starts: Sequence[F64], options: LMOptions
) -> Fit:
    """Fit one source at the centre of every stamp.

    Parameters
    ----------
    data, psf, model, prior, starts, options
        As of `balrogutils.fitting.galaxy.fit_galaxy`; the limits are those of MINPACK.

    Returns
    -------
    Fit
        As there.
    """
    extras = tuple(one.name for one in model.extras)
    fitter = load_ngmix().module.fitting.Fitter(
        model=model.name,
        prior=None if prior is None else joint_prior(prior, extras),
        fit_pars={"maxfev": options.maxfev, "ftol": options.ftol, "xtol": options.xtol},
    )
    return fit_with(fitter, observations(data, psf), starts, data.npix - starts[0].size)[0]


def _psf_fitter(options: PSFOptions, rng: np.random.RandomState) -> tuple[Any, Any]:
    """Return fitter and guesser of a family of PSF mixtures."""
    ngmix = load_ngmix().module
    limits = {"maxfev": options.maxfev, "ftol": options.ftol, "xtol": options.xtol}
    count = options.ncomp
    if options.family == "em":
        fitter = ngmix.em.EMFitter(maxiter=options.em.maxiter, tol=options.em.tol)
        return fitter, ngmix.guessers.GMixPSFGuesser(rng=rng, ngauss=count)
    if options.family == "turb":
        return ngmix.fitting.Fitter(model="turb", fit_pars=limits), ngmix.guessers.SimplePSFGuesser(rng=rng)
    fitter = ngmix.fitting.CoellipFitter(ngauss=count, fit_pars=limits)
    return fitter, ngmix.guessers.CoellipPSFGuesser(rng=rng, ngauss=count)


def fit_psf(psf: PSFStamp, wcs: LocalWCS, options: PSFOptions, random: np.random.Generator) -> PSFFit:
    """Fit a mixture to a PSF stamp.

    Parameters
    ----------
    psf, wcs, options
        As of `balrogutils.fitting.psffit.fit_psf`.
    random : numpy.random.Generator
        Where the starts come from, which in ngmix are random.

    Returns
    -------
    PSFFit
        Normalised and judged as ours.
    """
    ngmix = load_ngmix().module
    seen = psf_observation(psf, wcs)
    fitter, guesser = _psf_fitter(options, np.random.RandomState(random.bit_generator))
    nothing = np.zeros((options.ncomp, 6))
    found = psf_result(FitFlag.NO_ATTEMPT, nothing, psf, wcs)
    for _ in range(options.ntry):
        try:
            with quiet():
                result = fitter.go(obs=seen, guess=guesser(obs=seen))
        except ngmix.GMixRangeError:
            found = psf_result(FitFlag.GMIX_RANGE_ERROR, nothing, psf, wcs)
            continue
        flags = flags_of(result)
        mixture = nothing if flags else np.array(result.get_gmix().get_full_pars(), float).reshape(-1, 6)
        found = psf_result(flags, mixture, psf, wcs)
        if not found.flags:
            break
    return found
