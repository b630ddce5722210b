"""Levenberg-Marquardt on normal equations, never on a stored Jacobian."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.compiled import njit
from balrogutils.fitting.gaussians import dot

__all__ = ["Evaluate", "LMOptions", "Solution", "Status", "invert", "judge", "minimise", "propose"]

F64 = NDArray[np.float64]
Evaluate = Callable[[F64, F64, F64], float]

DAMPING_START = 1e-3
DAMPING_REFUSED = 0.1
DAMPING_MAX = 1e14
# Lengths of vectors near a cusp: at which a step begins to look, and the least; looks at most; change of chi^2 that is
# none.
CUSP_START, CUSP_LEAST = 1e-3, 1e-7
CUSP_STEPS, CUSP_ENOUGH = 60, 1e-5
NO_CUSPS = (np.zeros(0, np.int64), np.zeros(0))
# `LMOptions.last` at most where nothing else is said.
_LAST = 1e-2


class Status(enum.IntEnum):
    """How a minimisation ended."""

    CONVERGED = 0
    MAXFEV = 1
    BAD_START = 2
    """The function cannot be evaluated at the start."""
    NOT_FINITE = 3
    """chi^2 or its gradient is not finite at the start."""


@dataclass(frozen=True)
class LMOptions:
    """Limits of a minimisation.

    Parameters
    ----------
    maxfev : int
        Evaluations at most.
    ftol : float
        Converged when a step lowered chi^2, and was predicted to, by less than ``ftol * min(chi^2, 1)``. chi^2 is in
        units of the noise, so this bounds the distance to the optimum in standard errors however many pixels there
        are.
    xtol : float
        Converged when an accepted step is shorter than `xtol` times the parameters, both scaled by their own
        curvature, and predicted to lower chi^2 by less than 1e-2.
    enough : float, optional
        Converged when the undamped step is predicted to lower chi^2 by less; that step is taken and not evaluated. Not
        given, ``sqrt(ftol)``, 1e-2 at most. Fits that another one begins with need no more than some standard errors.
    """

    maxfev: int = 2000
    ftol: float = 5e-5
    xtol: float = 5e-5
    enough: float | None = None

    @property
    def last(self) -> float:
        """Fall of chi^2 below which a step needs no evaluation."""
        return min(math.sqrt(self.ftol), _LAST) if self.enough is None else self.enough


class Solution(NamedTuple):
    """Where a minimisation ended: parameters and chi^2; normal matrix and half gradient at the last point that was
    evaluated, `at`, a short step before."""

    status: Status
    pars: F64
    chi2: float
    normal: F64
    gradient: F64
    nfev: int
    at: F64


@njit(cache=True)
def propose(normal, gradient, scale, damping, step):
    """Solve (A + damping diag(scale)) step = -g by Cholesky; returns the predicted fall of chi^2, negative if not
    positive definite.

    `scale` holds the largest diagonal seen so far; 0 keeps a parameter undamped, and a negative value where it is.
    """
    n = gradient.shape[0]
    lower = np.empty((n, n))
    size = np.empty(n)
    for i in range(n):
        held = scale[i] < 0.0 or (normal[i, i] <= 0.0 and scale[i] == 0.0)
        size[i] = 0.0 if held else 1.0 / math.sqrt(max(scale[i], normal[i, i]))
    for i in range(n):
        for j in range(i + 1):
            total = normal[i, j] * size[i] * size[j]
            if i == j:
                if size[i] == 0.0:
                    total = 1.0
                elif scale[i] > 0.0:
                    total += damping * scale[i] * size[i] * size[i]
            # Nearly all the time of large systems, those of groups, goes here.
            total -= dot(lower[i, :j], lower[j, :j])
            if i == j:
                if not total > 1e-15:
                    return -1.0
                lower[i, i] = math.sqrt(total)
            else:
                lower[i, j] = total / lower[j, j]
    for i in range(n):
        total = -gradient[i] * size[i]
        for k in range(i):
            total -= lower[i, k] * step[k]
        step[i] = total / lower[i, i]
    for i in range(n - 1, -1, -1):
        total = step[i]
        for k in range(i + 1, n):
            total -= lower[k, i] * step[k]
        step[i] = total / lower[i, i]
    for i in range(n):
        step[i] *= size[i]
    return _predicted(normal, gradient, step)


@njit(cache=True)
def _predicted(normal, gradient, step):
    """Return the fall of chi^2 that a step makes in a quadratic function."""
    predicted = 0.0
    for i in range(step.shape[0]):
        total = 2.0 * gradient[i]
        for k in range(step.shape[0]):
            total += normal[i, k] * step[k]
        predicted -= step[i] * total
    return predicted


@njit(cache=True)
def propose_cusps(normal, gradient, scale, damping, pars, places, slopes, step):
    """As `propose`, for chi^2 with 2 slopes |g| added that `normal` and `gradient` do not hold; g are the pairs of
    parameters that begin at `places`.

    The parabola that touches the cusp from above at the last length of g takes its place again and again until the
    lengths stay: no pass over the pixels is needed for that, and a g that belongs at the cusp comes to lie on it.
    """
    count = places.shape[0]
    if count == 0:
        return propose(normal, gradient, scale, damping, step)
    total, slope = normal.copy(), gradient.copy()
    before, length = np.empty(count), np.empty(count)
    for k in range(count):
        before[k] = math.hypot(pars[places[k]], pars[places[k] + 1])
        length[k] = max(before[k], CUSP_START)
    for _ in range(CUSP_STEPS):
        for k in range(count):
            curvature = slopes[k] / length[k]
            for i in range(places[k], places[k] + 2):
                total[i, i] = normal[i, i] + curvature
                slope[i] = gradient[i] + curvature * pars[i]
        if propose(total, slope, scale, damping, step) < 0.0:
            return -1.0
        moved = 0.0
        for k in range(count):
            i = places[k]
            now = math.hypot(pars[i] + step[i], pars[i + 1] + step[i + 1])
            moved = max(moved, slopes[k] * abs(now - length[k]))
            length[k] = max(now, CUSP_LEAST)
        if moved < CUSP_ENOUGH:
            break
    for k in range(count):
        if slopes[k] * length[k] <= 10.0 * CUSP_ENOUGH:
            for i in range(places[k], places[k] + 2):
                step[i] = -pars[i]
    return predicted_cusps(normal, gradient, pars, places, slopes, step)


@njit(cache=True)
def predicted_cusps(normal, gradient, pars, places, slopes, step):
    """Return the fall of chi^2 that a step makes in a quadratic function with cusps."""
    predicted = _predicted(normal, gradient, step)
    for k in range(places.shape[0]):
        i = places[k]
        now = math.hypot(pars[i] + step[i], pars[i + 1] + step[i + 1])
        predicted -= 2.0 * slopes[k] * (now - math.hypot(pars[i], pars[i + 1]))
    return predicted


@njit(cache=True)
def judge(actual, predicted, damping, growth):
    """Return (damping, growth) after a step, by the ratio of actual to predicted fall of chi^2 (Nielsen 1999)."""
    if not actual > 0.0:
        return damping * growth, growth * 2.0
    ratio = actual / predicted if predicted > 0.0 else 1.0
    return damping * max(0.1, 1.0 - (2.0 * min(ratio, 2.0) - 1.0) ** 3), 2.0


@njit(cache=True)
def scaled_norm(vector, scale):
    """Return sqrt(sum of scale * vector^2)."""
    total = 0.0
    for i in range(vector.shape[0]):
        total += scale[i] * vector[i] * vector[i]
    return math.sqrt(total)


def minimise(
    evaluate: Evaluate,
    start: F64,
    options: LMOptions,
    *,
    low: F64 | None = None,
    high: F64 | None = None,
    solved: NDArray[np.bool_] | None = None,
    noise: float = 0.0,
    cusps: tuple[NDArray[np.int64], F64] = NO_CUSPS,
) -> Solution:
    """Minimise chi^2 from `start`.

    Parameters
    ----------
    evaluate : callable
        ``evaluate(pars, normal, gradient) -> chi2`` fills A and half the gradient of chi^2; NaN where it cannot be
        evaluated. It may move the parameters that it solves for exactly.
    start : ndarray, shape (npar,)
        First guess; moved inside the bounds.
    options : LMOptions
        Limits; the number of evaluations never exceeds ``maxfev``.
    low, high : ndarray, shape (npar,), optional
        Bounds. A step ends at them, and a parameter that stands at one and wants to leave is held.
    solved : ndarray of bool, shape (npar,), optional
        Parameters that `evaluate` solves for exactly: they are not damped.
    noise : float
        Rounding of chi^2; a fall below it is none.
    cusps : (ndarray of int, ndarray), shapes (n,), optional
        First of two neighbouring parameters g and slope: 2 slope |g| is in chi^2, and not in A and the gradient.

    Returns
    -------
    Solution
        With the best parameters seen, whatever the status.

    Notes
    -----
    The last step is taken and not evaluated: where it is short, what it leaves is of its square. That is so when the
    undamped step lowers chi^2 by less than sqrt(ftol) and 0.01, that is when the optimum is less than a tenth of a
    standard error away. It has also converged when a step lowered chi^2, and was predicted to, by less than `ftol`.
    """
    pars = np.array(start, float)
    n = pars.size
    bottom = np.full(n, -np.inf) if low is None else low
    top = np.full(n, np.inf) if high is None else high
    pars = np.minimum(np.maximum(pars, bottom), top)
    damped = np.ones(n) if solved is None else np.where(solved, 0.0, 1.0)
    normal, gradient, trial_normal, trial_gradient = np.empty((n, n)), np.empty(n), np.empty((n, n)), np.empty(n)
    step = np.empty(n)
    chi2 = evaluate(pars, normal, gradient)
    nfev = 1
    if math.isnan(chi2):
        return Solution(Status.BAD_START, pars, math.nan, normal, gradient, nfev, pars)
    if not (math.isfinite(chi2) and np.all(np.isfinite(gradient)) and np.all(np.isfinite(normal))):
        return Solution(Status.NOT_FINITE, pars, math.nan, normal, gradient, nfev, pars)
    largest = np.diag(normal).copy()
    damping, growth = DAMPING_START, 2.0
    status = Status.MAXFEV
    fresh = True
    while True:
        held = ((pars <= bottom) & (gradient > 0.0)) | ((pars >= top) & (gradient < 0.0))
        scale = np.where(held, -1.0, largest * damped)
        small = max(options.ftol * min(chi2, 1.0), noise)
        if fresh:
            predicted = propose_cusps(normal, gradient, scale, 0.0, pars, *cusps, step)
            if 0.0 <= predicted <= max(options.last, small) and np.all(np.isfinite(step)):
                last = np.minimum(np.maximum(pars + step, bottom), top)
                return Solution(Status.CONVERGED, last, chi2 - predicted, normal, gradient, nfev, pars)
        fresh = False
        if nfev >= options.maxfev:
            break
        predicted = propose_cusps(normal, gradient, scale, damping, pars, *cusps, step)
        if predicted < 0.0 or not np.all(np.isfinite(step)):
            damping, growth = judge(-1.0, predicted, damping, growth)
            if damping > DAMPING_MAX:
                break
            continue
        trial = np.minimum(np.maximum(pars + step, bottom), top)
        step[:] = trial - pars
        predicted = predicted_cusps(normal, gradient, pars, *cusps, step)
        trial_chi2 = evaluate(trial, trial_normal, trial_gradient)
        nfev += 1
        finite = math.isfinite(trial_chi2) and bool(np.all(np.isfinite(trial_gradient)))
        actual = chi2 - trial_chi2 if finite else -1.0
        if finite and actual >= 0.0:
            weights = np.maximum(scale, 0.0)
            short = scaled_norm(step, weights) <= options.xtol * scaled_norm(trial, weights) and predicted <= 1e-2
            pars, chi2 = trial, trial_chi2
            normal, trial_normal = trial_normal, normal
            gradient, trial_gradient = trial_gradient, gradient
            largest = np.maximum(largest, np.diag(normal))
            fresh = True
            if (actual <= small and predicted <= small) or (short and damping < 1.0):
                status = Status.CONVERGED
                break
        elif finite and predicted <= small and -actual <= small:
            # Rounding, or the cusp of a prior: nothing left to gain.
            status = Status.CONVERGED
            break
        damping, growth = judge(actual, predicted, damping, growth)
        if not actual >= 0.0:
            # Less than this does not shorten a step.
            damping = max(damping, DAMPING_REFUSED)
        if damping > DAMPING_MAX:
            # No step, however short, lowers chi^2: a minimum as far as the arithmetic can tell, if the slope agrees.
            status = Status.CONVERGED if predicted <= 1e-6 * max(chi2, 1.0) else Status.MAXFEV
            break
    return Solution(status, pars, chi2, normal, gradient, nfev, pars)


def invert(normal: F64) -> F64 | None:
    """Return the inverse of a normal matrix; None when it is singular, not positive, or so near it that a parameter
    has no error of its own beside the others to 6 digits."""
    diagonal = np.diag(normal)
    if not (np.all(np.isfinite(normal)) and np.all(diagonal > 0.0)):
        return None
    size = 1.0 / np.sqrt(diagonal)
    try:
        lower = np.linalg.cholesky(normal * np.outer(size, size))
    except np.linalg.LinAlgError:
        return None
    if not np.diag(lower).min() > 1e-6:
        return None
    half = np.linalg.solve(lower, np.eye(size.size))
    inverse = (half.T @ half) * np.outer(size, size)
    return inverse if np.all(np.isfinite(inverse)) else None
