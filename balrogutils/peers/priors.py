"""The priors of a fit as ngmix takes them: its own where it has them, ours behind its interface where not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.priors import CenPrior, Flat, GPriorBA, Normal, Prior, ShapePrior, TwoSidedErf
from balrogutils.peers.installed import load_ngmix
from balrogutils.randomness import stream

__all__ = ["joint_prior"]


class _Number:
    """A prior of one number that ngmix does not have or cannot use, or none at all."""

    bounds = None

    def __init__(self, prior: Prior | None) -> None:
        self._prior = prior

    def has_bounds(self) -> bool:
        """Return False."""
        return False

    def get_fdiff(self, x: float) -> float:
        """Return the residual; refuse where the probability is zero."""
        return _possible(0.0 if self._prior is None else self._prior.row(float(x))[0])

    def get_lnprob_scalar(self, x: float) -> float:
        """Return ln p."""
        return -0.5 * self.get_fdiff(x) ** 2


class _Shape:
    """A prior of the shape that ngmix does not have, or none at all."""

    def __init__(self, prior: ShapePrior | None) -> None:
        self._prior = prior

    def get_fdiff(self, g1: float, g2: float) -> float:
        """Return the size of the residual; refuse where the probability is zero."""
        rows = [] if self._prior is None else self._prior.rows(float(g1), float(g2))
        return _possible(math.hypot(*(row[0] for row in rows)))

    def get_lnprob_scalar2d(self, g1: float, g2: float) -> float:
        """Return ln p."""
        return -0.5 * self.get_fdiff(g1, g2) ** 2


class _Anywhere:
    """No prior of the centre."""

    def get_fdiff(self, v: float, u: float) -> tuple[float, float]:
        """Return no residual."""
        return 0.0, 0.0

    get_lnprob_scalar_sep = get_fdiff

    def get_lnprob_scalar(self, v: float, u: float) -> float:
        """Return 0."""
        return 0.0


def _possible(residual: float) -> float:
    if math.isnan(residual):
        raise load_ngmix().module.GMixRangeError("outside the prior")
    return residual


def _number(prior: Prior | None, rng: np.random.RandomState) -> Any:
    priors = load_ngmix().module.priors
    if isinstance(prior, Flat):
        return priors.FlatPrior(prior.low, prior.high, rng=rng)
    if isinstance(prior, TwoSidedErf):
        return priors.TwoSidedErf(prior.low, prior.width_low, prior.high, prior.width_high, rng=rng)
    if isinstance(prior, Normal) and not np.any(np.isfinite(prior.support)):
        return priors.Normal(prior.mean, prior.sigma, rng=rng)
    # One with ends too: the bounded fits of ngmix 2.4 count the columns that SciPy's MINPACK sorts from 1, and SciPy
    # from 0, so that their covariances are those of other parameters. An impossible value is refused either way.
    return _Number(prior)


def _shape(prior: ShapePrior | None, rng: np.random.RandomState) -> Any:
    return load_ngmix().module.priors.GPriorBA(prior.sigma, rng=rng) if isinstance(prior, GPriorBA) else _Shape(prior)


def _centre(prior: CenPrior | None, rng: np.random.RandomState) -> Any:
    if prior is None:
        return _Anywhere()
    return load_ngmix().module.priors.CenPrior(0.0, 0.0, prior.sigma, prior.sigma, rng=rng)


def joint_prior(prior: JointPrior, extras: tuple[str, ...]) -> Any:
    """Return the priors of all parameters of one source for ngmix's fitters.

    Parameters
    ----------
    prior : JointPrior
        The priors.
    extras : tuple of str
        Names of the parameters of the profile: none, ``fracdev``, or ``logTratio`` and ``fracdev``.
    """
    makers = load_ngmix().module.joint_prior
    # Priors of ngmix hold generators for samples, which a fit does not take.
    rng = np.random.RandomState(stream(0, "ngmix priors").bit_generator)
    parts = {
        "cen_prior": _centre(prior.cen, rng),
        "g_prior": _shape(prior.shape, rng),
        "T_prior": _number(prior.size, rng),
        "F_prior": [_number(one, rng) for one in prior.flux],
    }
    parts |= {f"{name}_prior": _number(one, rng) for name, one in zip(extras, prior.extra, strict=True)}
    maker = {0: makers.PriorSimpleSep, 1: makers.PriorBDFSep, 2: makers.PriorBDSep}[len(extras)]
    return maker(**parts)
