"""The composite model cm of all sources of a scene at once (M 4.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import FitError
from balrogutils.fitting.composite import FRACDEV_RANGE, RATIO_RANGE, FracdevPrior, best_share
from balrogutils.fitting.fit import Fit
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.kernels import Links
from balrogutils.fitting.models import Composite, composite, model
from balrogutils.fitting.observation import Stack
from balrogutils.fitting.scene import Scene
from balrogutils.fitting.shares import FreeShare, beyond, share_errors, share_prior, valley_of, widen
from balrogutils.fitting.solver import LMOptions
from balrogutils.fitting.sweeps import MANY, fit_together

__all__ = ["CompositeScene", "fit_composites", "mix_sources"]

F64 = NDArray[np.float64]

# Shares of several sources are looked for among these, in rounds.
_SHARES = np.linspace(-1.0, 2.0, 151)
_SWEEPS = 50
# Fall of chi^2 below which a fit of many sources that another one begins with has converged.
_ROUGH = 1.0
# T of dev over T of exp with the same r50 (M 3.4).
_LARGER = 3.0245


class CompositeScene(NamedTuple):
    """cm fits of all sources of a scene, [nsource] each; fits are of all together, `models` are those of the last."""

    fit: Fit
    exp: Fit
    dev: Fit
    models: tuple[Composite, ...]
    fracdev: F64
    fracdev_noclip: F64
    fracdev_err: F64
    ratio: F64
    ratio_noclip: F64


def _share(cross: float, power: float, prior: FracdevPrior | None) -> float:
    """Return the share of the best mix."""

    def loss(share: float) -> float:
        value = 0.5 * power * share * share - cross * share
        return value if prior is None else value - prior.lnp(share)

    return best_share(loss)


def _shares(cross: F64, power: F64, prior: FracdevPrior | None) -> F64:
    """Return the shares of the best mix of several sources, to 0.01."""
    table = np.zeros(_SHARES.size) if prior is None else np.array([prior.lnp(float(x)) for x in _SHARES])
    shares = np.full(cross.size, 0.5)
    for _ in range(_SWEEPS):
        before = shares.copy()
        for k in range(cross.size):
            alone = cross[k] - float(power[k] @ shares) + power[k, k] * shares[k]
            shares[k] = _SHARES[np.argmin((0.5 * power[k, k] * _SHARES - alone) * _SHARES - table)]
        if np.array_equal(shares, before):
            break
    return shares


def _curvature(share: float, prior: FracdevPrior | None) -> float:
    """Return -d^2 ln p / d share^2."""
    h = 1e-3
    return 0.0 if prior is None else -(prior.lnp(share + h) - 2.0 * prior.lnp(share) + prior.lnp(share - h)) / (h * h)


def mix_sources(
    data: Stack, links: Links, exp: F64, dev: F64, prior: FracdevPrior | None = None
) -> tuple[F64, F64] | None:
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
    (shares, errors) or None
        [nsource] each; where the mix is best beyond -1 or 2, these ends. Errors are marginalised over the other shares,
        NaN where the probability is not curved downwards. None where a model has no image.

    Notes
    -----
    chi^2 is a quadratic function of the shares, whose coefficients are inner products of the models and the data: one
    pass over the pixels serves all shares. Of several sources one share after the other is set to the best value of a
    grid of 0.02 until none moves: a fit of all of them begins there.
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
    if count == 1:
        shares = np.array([_share(float(cross[0]), float(power[0, 0]), prior)])
    else:
        shares = _shares(cross, power, prior)
    hessian = power + np.diag([_curvature(float(share), prior) for share in shares])
    errors = np.full(count, math.nan)
    try:
        inverse = np.diag(np.linalg.inv(hessian))
    except np.linalg.LinAlgError:
        return shares, errors
    np.sqrt(inverse, out=errors, where=inverse > 0.0)
    return shares, errors


def fit_composites(
    data: Stack,
    links: Links,
    priors: Sequence[JointPrior | None],
    starts: Sequence[F64],
    options: LMOptions,
    fracdev_prior: FracdevPrior | None = None,
    fracdev_range: tuple[float, float] = FRACDEV_RANGE,
    ratio_range: tuple[float, float] = RATIO_RANGE,
    *,
    marginalise: bool = True,
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
    fracdev_range, ratio_range : (float, float)
        To which fracdev and T_d / T_e are clipped.
    marginalise : bool
        Whether errors hold what those of fracdev add (`widen`).

    Returns
    -------
    CompositeScene
        Its fit carries the flags of the step that failed: of exp or dev, GMIX_RANGE_ERROR where no mix is possible, or
        its own.

    Notes
    -----
    Beside a neighbour of the other kind the fits of all as exp, or of all as dev, are not what this source would have,
    and their best mix has a wrong share. All fracdev of several sources are therefore parameters of one more fit, with
    T_d / T_e fixed, before the last one; where that fails the shares of the mix stay. Of four sources and more the
    fits of exp and dev, which give that fit its start and T_d / T_e, end some standard errors before their optimum, and
    a last step nearer to it.
    """
    count = len(priors)
    shape = (count, 5 + data.nband)

    rough = options if count < MANY else replace(options, enough=_ROUGH)
    exp = fit_together(data, links, [model("exp")] * count, priors, starts, rough)
    guesses = list(starts)
    if not exp.flags:
        larger = exp.pars.reshape(shape).copy()
        larger[:, 4] *= _LARGER
        guesses.insert(0, larger.ravel())
    dev = fit_together(data, links, [model("dev")] * count, priors, guesses, rough)
    unknown = np.full(count, math.nan)

    def failed(flags: int) -> CompositeScene:
        nothing = exp._replace(
            flags=flags, pars=np.full_like(exp.pars, math.nan), cov0=np.full_like(exp.cov0, math.nan),
            cov=np.full_like(exp.cov, math.nan), chi2per=math.nan, s2n=math.nan, s2n_each=(),
        )  # fmt: skip
        return CompositeScene(nothing, exp, dev, (), *[unknown] * 5)

    if exp.flags or dev.flags:
        return failed(exp.flags | dev.flags)
    by_exp, by_dev = exp.pars.reshape(shape), dev.pars.reshape(shape)
    mixed = mix_sources(data, links, by_exp, by_dev, fracdev_prior)
    if mixed is None:
        return failed(int(FitFlag.GMIX_RANGE_ERROR))
    found, errors = mixed
    shares = np.clip(found, *fracdev_range)
    sizes = np.divide(by_dev[:, 4], by_exp[:, 4], out=np.full(count, ratio_range[1]), where=by_exp[:, 4] != 0.0)
    ratios = np.clip(sizes, *ratio_range)
    try:
        profiles = [composite(float(share), float(ratio)) for share, ratio in zip(shares, ratios, strict=True)]
    except FitError:
        return failed(int(FitFlag.GMIX_RANGE_ERROR))
    first = (1.0 - shares[:, None]) * by_exp + shares[:, None] * by_dev
    opened, before = None, [exp, dev]
    if count > 1:
        opened = _fit_shares(data, links, priors, profiles, first, options, fracdev_prior, fracdev_range)
    if opened is not None:
        # Who was held in the fits that this one began with does not matter: it went on from there.
        first, shares, profiles, before = opened[0], opened[1], opened[2], [opened[3]]
    fit = fit_together(data, links, profiles, priors, [first.ravel(), *starts], options)
    held = [one.moving for one in (*before, fit) if one.moving]
    fit = fit._replace(moving=tuple(any(some) for some in zip(*held, strict=True)))
    valley = None if fit.flags or (opened is None and not marginalise) else valley_of(data, links, fit, profiles)
    if valley is not None:
        if opened is not None:
            found = beyond(valley, shares, fracdev_prior, fracdev_range)
        spread = share_errors(valley, found, fracdev_prior)
        if opened is not None:
            errors = np.sqrt(np.diag(spread))
        if marginalise:
            fit = widen(fit, valley, shares, spread, fracdev_range)
    return CompositeScene(fit, exp, dev, tuple(profiles), shares, found, errors, ratios, sizes)


def _fit_shares(
    data: Stack,
    links: Links,
    priors: Sequence[JointPrior | None],
    profiles: Sequence[Composite],
    start: F64,
    options: LMOptions,
    fracdev_prior: FracdevPrior | None,
    fracdev_range: tuple[float, float],
) -> tuple[F64, F64, list[Composite], Fit] | None:
    """Fit all sources with their shares free; returns parameters without the shares, the shares, the models with
    these, and the fit; None where there is no such fit."""
    free = [FreeShare(one) for one in profiles]
    shares = np.array([one.fracdev for one in profiles])
    wide = [share_prior(one, fracdev_prior, fracdev_range, data.nband) for one in priors]
    guess = np.insert(start, 5, shares, axis=1)
    fit = fit_together(data, links, free, wide, [guess.ravel()], options)
    if fit.flags:
        return None
    pars = fit.pars.reshape(guess.shape)
    shares, rest = pars[:, 5].copy(), np.delete(pars, 5, axis=1)
    rest[:, 4] *= [one.growth(float(share)) for one, share in zip(free, shares, strict=True)]
    try:
        made = [composite(float(x), one.ratio) for x, one in zip(shares, profiles, strict=True)]
    except FitError:
        return None
    return rest, shares, made, fit
