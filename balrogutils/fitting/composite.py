"""The composite model cm: an exponential and a de Vaucouleurs fit, their mix, and a fit of the mix (M 4.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from balrogutils.fitting.scene import Scene, single_links
from balrogutils.fitting.solver import LMOptions

__all__ = [
    "CompositeFit",
    "CompositeScene",
    "FracdevPrior",
    "fit_composite",
    "fit_composites",
    "mix_models",
    "mix_sources",
]

F64 = NDArray[np.float64]

# Where fracdev is looked for first, and what is accepted (M 4.5).
_GRID = np.linspace(-1.0, 1.5, 26)
_RANGE = (-1.0, 2.0)
_RATIO_MAX = 1e12
_SWEEPS = 50
# T of dev over T of exp with the same r50 (M 3.4).
_LARGER = 3.0245


class FracdevPrior(Protocol):
    """Prior of the share of the bulge."""

    def lnp(self, x: float) -> float:
        """Return ln p."""
        ...


class CompositeFit(NamedTuple):
    """A cm fit and what went before: both single fits, fracdev within [0, 1], as found, and its error, T_d / T_e."""

    fit: Fit
    exp: Fit
    dev: Fit
    fracdev: float
    fracdev_noclip: float
    fracdev_err: float
    ratio: float


class CompositeScene(NamedTuple):
    """The same of all sources of a scene, [nsource] each; the fits are of all together, `models` are those of the last,
    `mixed` is whether fracdev has a maximum in (-1, 2), without which it is that end of [0, 1] that is likelier."""

    fit: Fit
    exp: Fit
    dev: Fit
    models: tuple[Model, ...]
    fracdev: F64
    fracdev_noclip: F64
    fracdev_err: F64
    ratio: F64
    mixed: NDArray[np.bool_]


def _share(cross: float, power: float, prior: FracdevPrior | None) -> tuple[float, bool]:
    """Return the share of the best mix, and whether it is a maximum in (-1, 2); the better end of [0, 1] if not."""

    def loss(share: float) -> float:
        value = 0.5 * power * share * share - cross * share
        return value if prior is None else value - prior.lnp(share)

    values = [loss(share) for share in _GRID]
    best = int(np.argmin(values))
    low = _GRID[best - 1] if best else _RANGE[0]
    high = _GRID[best + 1] if best + 1 < _GRID.size else _RANGE[1]
    share = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)
    if _RANGE[0] + 1e-5 < share < _RANGE[1] - 1e-5:
        return share, True
    return (0.0 if loss(0.0) <= loss(1.0) else 1.0), False


def _curvature(share: float, prior: FracdevPrior | None) -> float:
    """Return -d^2 ln p / d share^2."""
    h = 1e-3
    return 0.0 if prior is None else -(prior.lnp(share + h) - 2.0 * prior.lnp(share) + prior.lnp(share - h)) / (h * h)


def mix_sources(
    data: Stack, links: Links, exp: F64, dev: F64, prior: FracdevPrior | None = None
) -> tuple[F64, F64, NDArray[np.bool_]] | None:
    """Return the shares of the second model in the best mix of two fits of all sources of a scene.

    Parameters
    ----------
    data, links
        Stamps and links.
    exp, dev : ndarray, shape (nsource, 5 + nband)
        Best fits of the exponential and the de Vaucouleurs profile, taken with their full fluxes.
    prior : FracdevPrior, optional
        Prior of each share.

    Returns
    -------
    (shares, errors, mixed) or None
        [nsource] each. Errors are marginalised over the other shares, NaN where the probability is not curved
        downwards; `mixed` is False where there is no maximum in (-1, 2). None where a model has no image.

    Notes
    -----
    chi^2 is a quadratic function of the shares, whose coefficients are inner products of the models and the data: one
    pass over the pixels serves all shares. One share after the other is set to its best value until none moves.
    """
    count, nband = len(exp), data.nband
    both = links._replace(
        first=2 * links.first,
        source=(2 * links.source[:, None] + np.arange(2)).ravel(),
        wcs=np.repeat(links.wcs, 2, axis=0),
        psf=np.repeat(links.psf, 2, axis=0),
        offset=np.repeat(links.offset, 2),
    )
    scene = Scene(data, [model("exp"), model("dev")] * count, both, free=np.zeros(2 * exp.size, bool))
    matrix = scene.gram(np.hstack([exp, dev]).ravel())
    if matrix is None:
        return None
    power, cross = np.zeros((count, count)), np.zeros(count)
    for band in range(nband):
        # The change of the image by each share is M_dev - M_exp.
        among, pixels = matrix[band, :-1, :-1], matrix[band, :-1, -1]
        start, change = np.zeros(2 * count), np.zeros((count, 2 * count))
        start[::2] = exp[:, 5 + band]
        change[np.arange(count), 2 * np.arange(count)] = -exp[:, 5 + band]
        change[np.arange(count), 2 * np.arange(count) + 1] = dev[:, 5 + band]
        power += change @ among @ change.T
        cross += change @ (pixels - among @ start)
    if not (np.all(np.isfinite(cross)) and np.all(np.diag(power) >= 0.0)):
        return None
    shares, mixed = np.full(count, 0.5), np.zeros(count, bool)
    for _ in range(_SWEEPS):
        before = shares.copy()
        for k in range(count):
            alone = cross[k] - float(power[k] @ shares) + power[k, k] * shares[k]
            shares[k], mixed[k] = _share(float(alone), float(power[k, k]), prior)
        if count == 1 or np.abs(shares - before).max() < 1e-5:
            break
    hessian = power + np.diag([_curvature(float(share), prior) for share in shares])
    errors = np.full(count, math.nan)
    try:
        inverse = np.diag(np.linalg.inv(hessian))
    except np.linalg.LinAlgError:
        return shares, errors, mixed
    np.sqrt(inverse, out=errors, where=mixed & (inverse > 0.0))
    return shares, errors, mixed


def mix_models(
    data: Stack, links: Links, exp: F64, dev: F64, prior: FracdevPrior | None = None
) -> tuple[float, float] | None:
    """Return the share of the second model in the best mix of two fits of one source, and its error.

    Parameters
    ----------
    data, links, prior
        As in `mix_sources`.
    exp, dev : ndarray, shape (5 + nband,)
        Best fits.

    Returns
    -------
    (float, float) or None
        None where the mix has no maximum in (-1, 2). The error is NaN where the probability is not curved downwards.
    """
    found = mix_sources(data, links, exp[None], dev[None], prior)
    if found is None or not found[2][0]:
        return None
    return float(found[0][0]), float(found[1][0])


def _nothing(fit: Fit, flags: int) -> Fit:
    return fit._replace(
        flags=flags, pars=np.full_like(fit.pars, math.nan), cov0=np.full_like(fit.cov0, math.nan),
        cov=np.full_like(fit.cov, math.nan), chi2per=math.nan, s2n=math.nan, s2n_each=(),
    )  # fmt: skip


def fit_composites(
    data: Stack,
    links: Links,
    priors: Sequence[JointPrior | None],
    starts: Sequence[F64],
    options: LMOptions,
    fracdev_prior: FracdevPrior | None = None,
) -> CompositeScene:
    """Fit exp to all sources of a scene, dev, find fracdev and T_d / T_e, and fit cm with these fixed.

    Parameters
    ----------
    data, links, options
        As in `fit_scene`.
    priors : sequence of JointPrior or None, length nsource
        Prior of each source.
    starts : sequence of ndarray, shape (nsource * (5 + nband),)
        First guesses of all sources together.
    fracdev_prior : FracdevPrior, optional
        Prior of fracdev.

    Returns
    -------
    CompositeScene
        Its fit carries the flags of the step that failed: of exp or dev, GMIX_RANGE_ERROR where no mix is possible, or
        its own.
    """
    count = len(priors)
    shape = (count, 5 + data.nband)
    exp = fit_scene(Scene(data, [model("exp")] * count, links, priors), starts, options)
    guesses = list(starts)
    if not exp.flags:
        larger = exp.pars.reshape(shape).copy()
        larger[:, 4] *= _LARGER
        guesses.insert(0, larger.ravel())
    dev = fit_scene(Scene(data, [model("dev")] * count, links, priors), guesses, options)
    unknown = np.full(count, math.nan)

    def failed(flags: int) -> CompositeScene:
        nowhere = np.zeros(count, bool)
        return CompositeScene(_nothing(exp, flags), exp, dev, (), unknown, unknown, unknown, unknown, nowhere)

    if exp.flags or dev.flags:
        return failed(exp.flags | dev.flags)
    by_exp, by_dev = exp.pars.reshape(shape), dev.pars.reshape(shape)
    mixed = mix_sources(data, links, by_exp, by_dev, fracdev_prior)
    if mixed is None:
        return failed(int(FitFlag.GMIX_RANGE_ERROR))
    found, errors, good = mixed
    shares = np.clip(found, 0.0, 1.0)
    ratios = np.divide(by_dev[:, 4], by_exp[:, 4], out=np.full(count, _RATIO_MAX), where=by_exp[:, 4] != 0.0)
    ratios = np.clip(ratios, 0.0, _RATIO_MAX)
    try:
        together = [composite(float(share), float(ratio)) for share, ratio in zip(shares, ratios, strict=True)]
    except FitError:
        return failed(int(FitFlag.GMIX_RANGE_ERROR))
    first = ((1.0 - shares[:, None]) * by_exp + shares[:, None] * by_dev).ravel()
    fit = fit_scene(Scene(data, together, links, priors), [first, *starts], options)
    return CompositeScene(fit, exp, dev, tuple(together), shares, found, errors, ratios, good)


def fit_composite(
    data: Stack,
    psf: F64,
    prior: JointPrior | None,
    starts: Sequence[F64],
    options: LMOptions,
    fracdev_prior: FracdevPrior | None = None,
) -> CompositeFit:
    """Fit exp and dev, find fracdev and T_d / T_e, and fit cm with these fixed.

    Parameters
    ----------
    data, psf, prior, starts, options
        As in `fit_galaxy`, for a model without parameters of its own.
    fracdev_prior : FracdevPrior, optional
        Prior of fracdev.

    Returns
    -------
    CompositeFit
        Its fit carries the flags of the step that failed: of exp or dev, GMIX_RANGE_ERROR where no mix is possible, or
        its own.
    """
    found = fit_composites(data, single_links(data, psf), [prior], starts, options, fracdev_prior)
    if not (found.mixed[0] or found.fit.flags):
        nothing = _nothing(found.fit, int(FitFlag.GMIX_RANGE_ERROR))
        return CompositeFit(nothing, found.exp, found.dev, math.nan, math.nan, math.nan, math.nan)
    numbers = (found.fracdev, found.fracdev_noclip, found.fracdev_err, found.ratio)
    return CompositeFit(found.fit, found.exp, found.dev, *(float(values[0]) for values in numbers))
