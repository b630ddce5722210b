"""Likelihood of found and missed injections under a smooth curve with an asymptote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit, log_expit, log_ndtr, logit, ndtr, ndtri

__all__ = ["CURVES", "OPEN", "Curve", "Estimate", "Likelihood", "grouped", "interval_end", "minimum"]

F64 = NDArray[np.float64]
Cost = Callable[[F64], tuple[float, F64]]
Bounds = list[tuple[float | None, float | None]]

_LEAST_ASYMPTOTE = 0.01
_TINY = 1e-300
# Of the mean log likelihood: a hundredth of an interval's end for 10^7 injections.
_STOP: Any = {"ftol": 1e-12, "gtol": 1e-8}


class Curve(NamedTuple):
    """A rising curve from 0 to 1: itself, its logarithm, its slope and its inverse."""

    value: Callable[[F64], F64]
    log: Callable[[F64], F64]
    slope: Callable[[F64], F64]
    inverse: Callable[[float], float]


def _logistic_slope(eta: F64) -> F64:
    return np.asarray(expit(eta) * expit(-eta))


def _normal_slope(eta: F64) -> F64:
    return np.asarray(np.exp(-0.5 * eta**2) / np.sqrt(2.0 * np.pi))


CURVES = {
    "logistic": Curve(expit, log_expit, _logistic_slope, lambda p: float(logit(p))),
    "erf": Curve(ndtr, log_ndtr, _normal_slope, lambda p: float(ndtri(p))),
}


class Estimate(NamedTuple):
    """A value and the ends of its 68.3 % interval; NaN where the data set none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if not np.isfinite(self.value):
            return "not reached"
        up, down = self.high - self.value, self.value - self.low
        if not np.isfinite(up) or not np.isfinite(down):
            return f"{self.value:.2f} (one side open)"
        return f"{self.value:.2f} +{up:.2f} -{down:.2f}"


OPEN = Estimate(np.nan, np.nan, np.nan)


class Likelihood:
    """Likelihood of the coefficients and asymptote; variables scaled to a median of 0 and a width of 1."""

    def __init__(self, design: F64, found: F64, tried: F64, curve: Curve) -> None:
        self.design, self.found, self.missed, self.curve = design, found, tried - found, curve
        self.total = tried.sum()
        self.bounds: Bounds = [(None, None)] * design.shape[1] + [(_LEAST_ASYMPTOTE, 1.0)]

    def cost(self, theta: F64) -> tuple[float, F64]:
        """Return minus the mean log likelihood, and its gradient."""
        eta, top = self.design @ theta[:-1], theta[-1]
        value, slope = self.curve.value(eta), self.curve.slope(eta)
        # 1 - A F without a difference of nearly equal numbers.
        miss = np.maximum((1.0 - top) + top * self.curve.value(-eta), _TINY)
        cost = -(self.found @ (np.log(top) + self.curve.log(eta)) + self.missed @ np.log(miss))
        by_p = self.missed / miss - self.found / np.maximum(top * value, _TINY)
        gradient = np.append(self.design.T @ (by_p * top * slope), by_p @ value)
        return float(cost / self.total), np.asarray(gradient / self.total)

    def covariance(self, theta: F64) -> F64:
        """Return the inverse of the expected information; zero for an asymptote at its bound of 1."""
        eta, top = self.design @ theta[:-1], theta[-1]
        value = top * self.curve.value(eta)
        miss = np.maximum((1.0 - top) + top * self.curve.value(-eta), _TINY)
        slopes = np.column_stack([self.design * (top * self.curve.slope(eta))[:, None], value / top])
        weight = (self.found + self.missed) / np.maximum(value * miss, _TINY)
        free = slice(None) if top < 1.0 - 1e-6 else slice(0, -1)
        information = (slopes[:, free] * weight[:, None]).T @ slopes[:, free]
        out = np.zeros((theta.size, theta.size))
        out[free, free] = np.linalg.pinv(information)
        return out


def grouped(design: F64, found: F64, most: int) -> tuple[F64, F64, F64]:
    """Return distinct rows with successes and trials; values are rounded to 1/1000 of a width for more than `most`."""
    if found.size <= most:
        return design, found, np.ones(found.size)
    rows, inverse = np.unique(np.round(design, 3), axis=0, return_inverse=True)
    place = inverse.ravel()
    successes = np.bincount(place, found, len(rows)).astype(np.float64)
    return rows, successes, np.bincount(place, minlength=len(rows)).astype(np.float64)


def minimum(cost: Cost, start: F64, bounds: Bounds) -> tuple[F64, float]:
    """Return where a cost with a gradient is least within bounds, and the cost there."""
    done: Any = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options=_STOP)
    return np.asarray(done.x), float(done.fun)


def interval_end(profile: Callable[[float], float], best: float, step: float, limit: float | None = None) -> float:
    """Return where a profile, -1 at the best value, passes zero on one side of it.

    Parameters
    ----------
    profile : callable
        Twice the loss of log likelihood, less 1.
    best, step : float
        Where to begin, and the first guess of how far to go, with its sign.
    limit : float, optional
        No value lies beyond; returned where the profile does not pass zero before it.

    Returns
    -------
    float
        NaN where the profile stays below zero for 2^11 steps: that side is open.
    """
    near, far = best, best + step
    known = {best: -1.0}

    def value(place: float) -> float:
        # Each value costs a fit, and the ends of a bracket are asked for twice.
        if place not in known:
            known[place] = profile(place)
        return known[place]

    for _ in range(12):
        if limit is not None and (far - limit) * step >= 0.0:
            far = limit
        if far == near:
            return far
        if value(far) > 0.0:
            return float(brentq(value, near, far, xtol=abs(step) * 1e-2))
        if far == limit:
            return far
        near, far = far, best + 2.0 * (far - best)
    return float("nan")
