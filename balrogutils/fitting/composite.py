"""The composite model cm: an exponential and a de Vaucouleurs fit, their mix, and a fit of the mix (M 4.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from balrogutils.errors import FitError
from balrogutils.fitting.fit import Fit, fit_scene
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.kernels import Links
from balrogutils.fitting.models import Model, composite, model
from balrogutils.fitting.observation import Stack
from balrogutils.fitting.pixelpsf import PSFResiduals, fit_pixelised
from balrogutils.fitting.scene import Scene, single_links
from balrogutils.fitting.solver import LMOptions

__all__ = [
    "FRACDEV_RANGE",
    "RATIO_RANGE",
    "CompositeFit",
    "FracdevPrior",
    "best_share",
    "compose",
    "fit_composite",
    "mix_models",
    "share_of_mix",
]

F64 = NDArray[np.float64]

# Where fracdev is looked for first, what is accepted, and what becomes of it and of T_d / T_e (M 4.5).
_GRID = np.linspace(-1.0, 1.5, 26)
_RANGE = (-1.0, 2.0)
FRACDEV_RANGE = (0.0, 1.0)
RATIO_RANGE = (0.0, 1e12)


class FracdevPrior(Protocol):
    """Prior of the share of the bulge."""

    def lnp(self, x: float) -> float:
        """Return ln p but for a constant."""
        ...

    def row(self, x: float) -> tuple[float, float]:
        """Return a residual whose square is -2 ln p but for a constant, and its slope."""
        ...


class CompositeFit(NamedTuple):
    """A cm fit and what went before: both single fits; fracdev within its range, as found, and its error; T_d / T_e
    within its range, and as found.
    """

    fit: Fit
    exp: Fit
    dev: Fit
    fracdev: float
    fracdev_noclip: float
    fracdev_err: float
    ratio: float
    ratio_noclip: float


def best_share(loss: Callable[[float], float]) -> float:
    """Return where in (-1, 2) a function of the share is least, from its lowest point of a grid of 26."""
    values = [loss(share) for share in _GRID]
    best = int(np.argmin(values))
    low = _GRID[best - 1] if best else _RANGE[0]
    high = _GRID[best + 1] if best + 1 < _GRID.size else _RANGE[1]
    return float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)


def share_of_mix(cross: float, power: float, prior: FracdevPrior | None) -> tuple[float, float]:
    """Return the best share of the second of two models and its error.

    Parameters
    ----------
    cross, power : float
        chi^2 by the share f is a constant - 2 cross f + power f^2.
    prior : FracdevPrior or None
        Prior of the share.

    Returns
    -------
    (float, float)
        The error is NaN where the probability is not curved downwards.
    """

    def loss(share: float) -> float:
        value = 0.5 * power * share * share - cross * share
        return value if prior is None else value - prior.lnp(share)

    share = best_share(loss)
    h = 1e-3
    curvature = (loss(share + h) - 2.0 * loss(share) + loss(share - h)) / (h * h)
    return share, 1.0 / math.sqrt(curvature) if curvature > 0.0 else math.nan


def mix_models(
    data: Stack,
    links: Links,
    exp: F64,
    dev: F64,
    prior: FracdevPrior | None = None,
    residuals: PSFResiduals | None = None,
) -> tuple[float, float] | None:
    """Return the share of the second model in the best mix of two fits of one source, and its error.

    Parameters
    ----------
    data, links
        Stamps and the links of the source.
    exp, dev : ndarray, shape (5 + nband,)
        Best fits of the exponential and the de Vaucouleurs profile, taken with their full fluxes.
    prior : FracdevPrior, optional
        Prior of the share.
    residuals : PSFResiduals, optional
        What the mixtures leave of the PSF stamps.

    Returns
    -------
    (float, float) or None
        None where the models cannot be evaluated. Where the mix is best beyond -1 or 2, as it is for bright stars, of
        which neither model is true, these ends. The error is NaN where the probability is not curved downwards.

    Notes
    -----
    chi^2 is a parabola of the share, whose coefficients are inner products of the two models and the data: one pass
    over the pixels serves all shares.
    """
    both = links._replace(
        first=2 * links.first,
        source=np.tile([0, 1], links.source.size),
        wcs=np.repeat(links.wcs, 2, axis=0),
        psf=np.repeat(links.psf, 2, axis=0),
        offset=np.repeat(links.offset, 2),
    )
    if residuals is not None:
        alone = [Scene(data, [model(name)], links).sources(pars) for name, pars in (("exp", exp), ("dev", dev))]
        left = np.concatenate([residuals.template(sources) for sources in alone])
        starts = np.column_stack([data.start, data.start + data.image.size]).ravel()
        both = both._replace(residual=left, offset=starts)
    scene = Scene(data, [model("exp"), model("dev")], both, free=np.zeros(exp.size + dev.size, bool))
    matrix = scene.gram(np.concatenate([exp, dev]))
    if matrix is None:
        return None
    # chi^2 = a - 2 b f + c f^2 but for a constant, with D = M_dev - M_exp the change by the share.
    e, d = exp[5:], dev[5:]
    cross = float(np.sum(d * matrix[:, 1, 2] - e * matrix[:, 0, 2] - e * d * matrix[:, 0, 1] + e * e * matrix[:, 0, 0]))
    power = float(np.sum(e * e * matrix[:, 0, 0] - 2.0 * e * d * matrix[:, 0, 1] + d * d * matrix[:, 1, 1]))
    if not (math.isfinite(cross) and power >= 0.0):
        return None
    return share_of_mix(cross, power, prior)


def fit_composite(
    data: Stack,
    psf: F64,
    prior: JointPrior | None,
    starts: Sequence[F64],
    options: LMOptions,
    fracdev_prior: FracdevPrior | None = None,
    fracdev_range: tuple[float, float] = FRACDEV_RANGE,
    ratio_range: tuple[float, float] = RATIO_RANGE,
    residuals: PSFResiduals | None = None,
) -> CompositeFit:
    """Fit exp and dev, find fracdev and T_d / T_e, and fit cm with these fixed.

    Parameters
    ----------
    data, psf, prior, starts, options
        As in `fit_galaxy`, for a model without parameters of its own.
    fracdev_prior : FracdevPrior, optional
        Prior of fracdev.
    fracdev_range, ratio_range : (float, float)
        To which fracdev and T_d / T_e are clipped.
    residuals : PSFResiduals, optional
        What the mixtures leave of the PSF stamps, when that is to be fit too.

    Returns
    -------
    CompositeFit
        Its fit carries the flags of the step that failed: of exp or dev, GMIX_RANGE_ERROR where no mix is possible, or
        its own.
    """
    links = single_links(data, psf)

    def single(profile: Model, guesses: Sequence[F64]) -> Fit:
        if residuals is not None:
            return fit_pixelised(data, residuals, psf, profile, prior, guesses, options)
        return fit_scene(Scene(data, [profile], links, [prior]), guesses, options)

    def mix(exp: F64, dev: F64) -> tuple[float, float] | None:
        return mix_models(data, links, exp, dev, fracdev_prior, residuals)

    return compose(single, mix, starts, fracdev_range, ratio_range)


def compose(
    single: Callable[[Model, Sequence[F64]], Fit],
    mix: Callable[[F64, F64], tuple[float, float] | None],
    starts: Sequence[F64],
    fracdev_range: tuple[float, float],
    ratio_range: tuple[float, float],
) -> CompositeFit:
    """Go through the steps of a cm fit, whoever fits and mixes.

    Parameters
    ----------
    single : callable
        Fits one model from first guesses.
    mix : callable
        Given the parameters of exp and dev, returns the share of dev in their best mix and its error, or None.
    starts, fracdev_range, ratio_range
        As in `fit_composite`.

    Returns
    -------
    CompositeFit
        As of `fit_composite`.
    """
    exp, dev = (single(model(name), starts) for name in ("exp", "dev"))

    def failed(flags: int) -> CompositeFit:
        nothing = exp._replace(
            flags=flags, pars=np.full_like(exp.pars, math.nan), cov0=np.full_like(exp.cov0, math.nan),
            cov=np.full_like(exp.cov, math.nan), chi2per=math.nan, s2n=math.nan,
        )  # fmt: skip
        return CompositeFit(nothing, exp, dev, *[math.nan] * 5)

    if exp.flags or dev.flags:
        return failed(exp.flags | dev.flags)
    mixed = mix(exp.pars, dev.pars)
    if mixed is None:
        return failed(int(FitFlag.GMIX_RANGE_ERROR))
    found, error = mixed
    share = min(max(found, fracdev_range[0]), fracdev_range[1])
    sizes = dev.pars[4] / exp.pars[4] if exp.pars[4] != 0.0 else ratio_range[1]
    ratio = float(min(max(sizes, ratio_range[0]), ratio_range[1]))
    try:
        together = composite(share, ratio)
    except FitError:
        return failed(int(FitFlag.GMIX_RANGE_ERROR))
    first = (1.0 - share) * exp.pars + share * dev.pars
    fit = single(together, [first, *starts])
    return CompositeFit(fit, exp, dev, share, found, error, ratio, float(sizes))
