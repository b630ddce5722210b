"""Intervals of fractions, and robust centres and widths with their errors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from balrogutils.errors import InputError

__all__ = ["LEVEL", "MAD_TO_SIGMA", "Robust", "binomial_interval", "robust"]

F64 = NDArray[np.float64]

LEVEL = 0.6826894921370859
"""Probability of one standard deviation either side of a normal distribution's mean."""
MAD_TO_SIGMA = 1.4826022185056018
"""Standard deviation of a normal distribution over its median absolute deviation."""
_FEWEST = 4
# Standard errors in rank between which the density is taken: at 1 the few values between them make it too noisy.
_RANKS = 2.0


class Robust(NamedTuple):
    """Median and 1.4826 MAD of values, with the error of each (NaN for fewer than four values)."""

    median: float
    median_err: float
    width: float
    width_err: float


def binomial_interval(found: ArrayLike, tried: ArrayLike, level: float = LEVEL) -> tuple[F64, F64]:
    """Return Jeffreys' interval of a fraction.

    Parameters
    ----------
    found, tried : array_like of int
        Successes and trials; NaN comes back where there was no trial.
    level : float
        Probability.

    Returns
    -------
    (ndarray, ndarray)
        Quantiles (1 -+ level) / 2 of the beta distribution with found + 1/2 and tried - found + 1/2; 0 below no
        success and 1 above nothing but successes.

    Raises
    ------
    InputError
        When there are more successes than trials, or fewer than none.

    Notes
    -----
    Brown, Cai and DasGupta 2001 (Stat. Sci. 16, 101) recommend it, or Wilson's, for few trials: its coverage is near
    the level on the average and it stays inside [0, 1], where the usual sqrt(p (1 - p) / n) has width zero for a bin
    with all or nothing found. Of the two Jeffreys' is the better near 0 and 1, where bright and faint bins are.
    """
    k, n = np.asarray(found, float), np.asarray(tried, float)
    if not np.all((k >= 0.0) & (k <= n)):
        raise InputError("more found than tried")
    if not 0.0 < level < 1.0:
        raise InputError(f"a probability lies between 0 and 1, not {level}")
    low, high = np.full(k.shape, np.nan), np.full(k.shape, np.nan)
    some = n > 0.0
    a, b = k[some] + 0.5, n[some] - k[some] + 0.5
    low[some] = np.where(k[some] > 0.0, betaincinv(a, b, 0.5 - 0.5 * level), 0.0)
    high[some] = np.where(k[some] < n[some], betaincinv(a, b, 0.5 + 0.5 * level), 1.0)
    return low, high


def _median(values: F64) -> tuple[float, float]:
    if values.size == 0:
        return np.nan, np.nan
    middle = float(np.median(values))
    if values.size < _FEWEST:
        return middle, np.nan
    error = 0.5 / np.sqrt(values.size)
    half = min(_RANKS * error, 0.5 - 0.5 / values.size)
    low, high = np.quantile(values, [0.5 - half, 0.5 + half], method="hazen")
    return middle, float(high - low) / 2.0 * error / half


def robust(values: ArrayLike) -> Robust:
    """Return median and robust width of values, with errors that assume no distribution.

    Parameters
    ----------
    values : array_like, shape (n,)
        What is not finite is left out.

    Returns
    -------
    Robust
        All NaN for no value.

    Notes
    -----
    The number of values below the true median is binomial, n / 2 +- sqrt(n) / 2, so the error of the median is that
    of its rank over the density (David and Nagaraja 2003, section 7.1); the density comes from the order statistics
    two such errors either side. The width is the median
    of another list, |x - median|, and is treated likewise: for a symmetric distribution the error of the median
    that went into it does not matter to first order.
    """
    x = np.asarray(values, float)
    x = x[np.isfinite(x)]
    middle, error = _median(x)
    width, width_error = _median(np.abs(x - middle))
    return Robust(middle, error, MAD_TO_SIGMA * width, MAD_TO_SIGMA * width_error)
