"""A smooth model of the fraction found, fitted to single injections by maximum likelihood."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray

from balrogutils.analysis.likelihood import CURVES, OPEN, Bounds, Estimate, Likelihood, grouped, interval_end, minimum
from balrogutils.analysis.tables import Field, counted, flags_of, numbers, result_table
from balrogutils.errors import InputError

__all__ = ["DetectionModel", "Estimate", "fit_detection"]

F64 = NDArray[np.float64]

FEWEST = 5
"""Least number found, and least number missed, for a fit."""
_MOST_PROFILED = 20_000


class DetectionModel:
    """Fraction found as asymptote times a falling curve of a linear form of the variables.

    Attributes
    ----------
    names : tuple of str
        Variables; the first is the one that `crossing` gives values of.
    theta : ndarray, shape (variables + 2,)
        Constant, coefficients of the scaled variables, asymptote; NaN where there was no fit.
    covariance : ndarray, shape (variables + 2, variables + 2)
        From the expected information.
    note : str
        What the fit says, or why there is none.
    injected, detected : int
        Injections in the fit, and those found.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        units: tuple[str, ...],
        centres: F64,
        scales: F64,
        curve: str,
        problem: Likelihood | None,
        counts: tuple[int, int],
        why: str,
    ) -> None:
        self.names, self.units, self.curve = names, units, curve
        self._centres, self._scales, self._problem = centres, scales, problem
        self.injected, self.detected = counts
        size = len(names) + 2
        self.theta, self.covariance = np.full(size, np.nan), np.full((size, size), np.nan)
        self._cost = np.nan
        self._crossings: dict[tuple[object, ...], Estimate] = {}
        if problem is not None:
            self._fit(problem)
        self.note = why or self._sentence()

    @property
    def fitted(self) -> bool:
        """Whether there is a fit."""
        return self._problem is not None

    @property
    def falls(self) -> bool:
        """Whether there is a fit in which the fraction falls with the first variable."""
        return bool(self.theta[1] < 0.0)

    @property
    def _many(self) -> bool:
        """Whether there are so many distinct rows that profiles would take minutes, and are parabolas anyway."""
        return self._problem is not None and self._problem.found.size > _MOST_PROFILED

    def _fit(self, problem: Likelihood) -> None:
        start = np.zeros(self.theta.size)
        start[-1] = 1.0
        fixed = [*problem.bounds[:-1], (1.0, 1.0)]
        # The problem is convex without the asymptote: a good place to begin from.
        start, _ = minimum(problem.cost, start, fixed)
        start[-1] = 0.97
        self.theta, self._cost = minimum(problem.cost, start, problem.bounds)
        self.covariance = problem.covariance(self.theta)

    def _scaled(self, values: Mapping[str, ArrayLike]) -> F64:
        missing = [name for name in self.names if name not in values]
        if missing:
            raise InputError(f"no values of {', '.join(missing)}")
        columns = [np.asarray(values[name], float) for name in self.names]
        if not self.fitted:
            return np.full((*np.broadcast_shapes(*(column.shape for column in columns)), len(columns)), np.nan)
        return (np.stack(np.broadcast_arrays(*columns), axis=-1) - self._centres) / self._scales

    def predict(self, values: Mapping[str, ArrayLike]) -> tuple[F64, F64]:
        """Return the fraction found and its standard error at values of the variables.

        Parameters
        ----------
        values : mapping of str to array_like
            By variable; all others than the first may be left to `typical`.

        Returns
        -------
        (ndarray, ndarray)
            NaN where there is no fit. The error is that of the curve to first order.
        """
        z = self._scaled({**self.typical, **values})
        design = np.concatenate([np.ones((*z.shape[:-1], 1)), z], axis=-1)
        curve, top = CURVES[self.curve], self.theta[-1]
        eta = design @ self.theta[:-1]
        value = curve.value(eta)
        slopes = np.concatenate([design * (top * curve.slope(eta))[..., None], value[..., None]], axis=-1)
        variance = np.einsum("...i,ij,...j->...", slopes, self.covariance, slopes)
        return np.asarray(top * value), np.sqrt(np.maximum(variance, 0.0))

    @property
    def typical(self) -> dict[str, float]:
        """Medians of the variables of the injections in the fit."""
        return dict(zip(self.names, self._centres.tolist(), strict=True))

    def crossing(self, level: float, **others: float) -> Estimate:
        """Return where the fraction found falls through a level.

        Parameters
        ----------
        level : float
            Of the fraction itself, not of the asymptote: 0.5 for m50, 0.9 for m90.
        **others : float
            Values of the other variables, their medians when not given.

        Returns
        -------
        Estimate
            Of the first variable, with the interval in which twice the log likelihood is within 1 of its maximum,
            all other parameters fitted anew at each point (profile likelihood). NaN where the asymptote is below
            the level, the fraction does not fall, or falls through the level beyond all injections: no data tell of
            it there. An open end of the interval is NaN.
        """
        if not 0.0 < level < 1.0:
            raise InputError(f"a level lies between 0 and 1, not {level}")
        key = (level, *sorted(others.items()))
        if key in self._crossings:
            return self._crossings[key]
        z = self._scaled({**self.typical, **others})
        if not self.falls or self.theta[-1] <= level * (1.0 + 1e-6):
            return OPEN
        problem, inverse, slope = self._problem, CURVES[self.curve].inverse, CURVES[self.curve].slope
        assert problem is not None

        def place(theta: F64) -> float:
            return float((inverse(level / theta[-1]) - theta[0] - theta[2:-1] @ z[1:]) / theta[1])

        best = place(self.theta)
        if not problem.design[:, 1].min() <= best <= problem.design[:, 1].max():
            self._crossings[key] = OPEN
            return OPEN

        last = self.theta[1:].copy()

        def profile(x: float) -> float:
            nonlocal last

            def full(free: F64) -> tuple[F64, float]:
                top = free[-1]
                target = inverse(level / top)
                return np.concatenate([[target - free[0] * x - free[1:-1] @ z[1:]], free]), target

            def cost(free: F64) -> tuple[float, F64]:
                theta, target = full(free)
                value, gradient = problem.cost(theta)
                out = gradient[1:].copy()
                out[:-1] -= gradient[0] * np.append(x, z[1:])
                out[-1] -= gradient[0] * level / free[-1] ** 2 / float(slope(np.array(target)))
                return value, out

            bounds: Bounds = [*problem.bounds[1:-1], (level + 1e-4 * (1.0 - level), 1.0)]
            start = last
            start[-1] = max(start[-1], level + 1e-4 * (1.0 - level))
            last, least = minimum(cost, start, bounds)
            return self._rise(least)

        slopes = np.append(
            np.concatenate([[-1.0, -best], -z[1:]]) / self.theta[1],
            -level / self.theta[-1] ** 2 / float(slope(np.array(inverse(level / self.theta[-1])))) / self.theta[1],
        )
        guess = float(np.sqrt(max(slopes @ self.covariance @ slopes, 0.0)))
        if self._many:
            low, high = best - guess, best + guess
        else:
            low, high = (interval_end(profile, best, sign * max(guess, 1e-6)) for sign in (-1.0, 1.0))
        centre, scale = self._centres[0], self._scales[0]
        self._crossings[key] = Estimate(*(float(centre + scale * value) for value in (best, low, high)))
        return self._crossings[key]

    def _parameter(self, index: int) -> Estimate:
        """Return one of theta with its profile interval."""
        problem = self._problem
        if problem is None:
            return OPEN
        best = float(self.theta[index])
        limits = problem.bounds[index]
        last = self.theta.copy()

        def profile(value: float) -> float:
            bounds: Bounds = list(problem.bounds)
            bounds[index] = (value, value)
            nonlocal last
            last[index] = value
            last, least = minimum(problem.cost, last, bounds)
            return self._rise(least)

        guess = float(np.sqrt(self.covariance[index, index])) or 0.01
        if self._many:
            return Estimate(best, best - guess, min(best + guess, limits[1] or np.inf))
        low = interval_end(profile, best, -guess, limits[0])
        high = interval_end(profile, best, guess, limits[1])
        return Estimate(best, low, high)

    def _rise(self, cost: float) -> float:
        assert self._problem is not None
        return 2.0 * float(self._problem.total) * (cost - self._cost) - 1.0

    @property
    def asymptote(self) -> Estimate:
        """Fraction found far above the limit, with its profile interval (1 bounds it)."""
        return self._parameter(self.theta.size - 1)

    def slope(self, number: int = 0) -> Estimate:
        """Return the coefficient of a variable, per its unit, with its profile interval."""
        if not self.fitted:
            return OPEN
        return Estimate(*(value / float(self._scales[number]) for value in self._parameter(number + 1)))

    def goodness(self, groups: int = 10) -> tuple[float, int]:
        """Return chi^2 of found against predicted in groups of equal counts by prediction, and the groups.

        Notes
        -----
        Hosmer and Lemeshow 1980: distributed about as chi^2 with two degrees fewer than groups when the model is
        right. NaN and 0 where there is no fit.
        """
        if self._problem is None:
            return np.nan, 0
        part = self._problem
        tried = part.found + part.missed
        p = self.theta[-1] * CURVES[self.curve].value(part.design @ self.theta[:-1])
        order = np.argsort(p, kind="stable")
        rank = np.minimum((np.cumsum(tried[order]) - 0.5 * tried[order]) / part.total * groups, groups - 1).astype(int)
        expected = np.bincount(rank, (tried * p)[order], groups)
        variance = np.bincount(rank, (tried * p * (1.0 - p))[order], groups)
        found = np.bincount(rank, part.found[order], groups)
        # A group in which less than one miss or find is expected says nothing.
        use = variance > 0.5
        return float((((found - expected) ** 2)[use] / variance[use]).sum()), int(use.sum())

    def _sentence(self) -> str:
        counts = f"{self.detected} of {self.injected} injections detected"
        within = self._in_the_fall()
        end = (
            "." if within >= FEWEST else f"; the fall is steeper than these data tell ({within} injections within it)."
        )
        if not self.falls:
            return f"{counts}; the fraction does not fall with {self.names[0]}."
        half, most = self.crossing(0.5), self.crossing(0.9)
        unit = f" {self.units[0]}" if self.units[0] else ""
        if not np.isfinite(half.value):
            return f"{counts}; the fraction stays {self._side(0.5)}, its asymptote is {self.theta[-1]:.2f}."
        text = f"{counts}; 50 % at {self.names[0]} = {half}{unit}"
        if not np.isfinite(most.value):
            return f"{text}; 90 % is not reached, the asymptote is {self.theta[-1]:.2f}{end}"
        return f"{text}, 90 % at {most}{unit}{end}"

    def _side(self, level: float) -> str:
        """Return on which side of a level, that it does not fall through, the fraction stays."""
        part, unit = self._problem, f" {self.units[0]}" if self.units[0] else ""
        last = np.nan if part is None else self._centres[0] + self._scales[0] * part.design[:, 1].max()
        if self.predict({self.names[0]: last})[0] > level:
            return f"above {100 * level:.0f} % down to {self.names[0]} = {last:.2f}{unit}"
        return f"below {100 * level:.0f} %"

    def _in_the_fall(self) -> int:
        """Return how many injections lie where the fraction is between 5 and 95 % of its asymptote."""
        part = self._problem
        if part is None:
            return 0
        part_of = CURVES[self.curve].value(part.design @ self.theta[:-1])
        return int((part.found + part.missed)[(part_of > 0.05) & (part_of < 0.95)].sum())

    def table(self) -> Table:
        """Return the parameters, one row each, with their 68.3 % profile intervals."""
        rows: list[tuple[str, Estimate, str, str]] = []
        first, unit = self.names[0], self.units[0]
        for level in (0.5, 0.9):
            rows.append((f"{first} at {100 * level:.0f} %", self.crossing(level), unit, "fraction found is this there"))
        rows.append(("asymptote", self.asymptote, "", "fraction found far from the limit"))
        for number, (name, its) in enumerate(zip(self.names, self.units, strict=True)):
            text = "coefficient in the exponent" if self.curve == "logistic" else "coefficient in the normal integral"
            rows.append((f"slope with {name}", self.slope(number), f"1 / {its}" if its else "", text))
        chi2, groups = self.goodness()
        return result_table(
            [
                Field("parameter", [row[0] for row in rows], "what"),
                Field("value", [row[1].value for row in rows], "maximum of the likelihood"),
                Field("low", [row[1].low for row in rows], "lower end of the 68.3 % interval; NaN: open"),
                Field("high", [row[1].high for row in rows], "upper end of the 68.3 % interval; NaN: open"),
                Field("unit", [row[2] for row in rows], "unit of the row"),
                Field("description", [row[3] for row in rows], "meaning"),
            ],
            self.note,
            curve=self.curve,
            chi2=chi2,
            groups=groups,
            injected=self.injected,
            detected=self.detected,
        )


def fit_detection(
    detected: ArrayLike,
    values: Mapping[str, ArrayLike],
    *,
    units: Mapping[str, str] | None = None,
    curve: str = "logistic",
) -> DetectionModel:
    """Fit the fraction found as a smooth function of one or more variables.

    Parameters
    ----------
    detected : array_like of bool, shape (n,)
        Whether each injection was found.
    values : mapping of str to array_like, shape (n,)
        Variables by name, the one that m50 is wanted of first. Injections that lack one are left out.
    units : mapping of str to str, optional
        Units of the variables.
    curve : {"logistic", "erf"}
        ``A / (1 + exp(-eta))`` or ``A (1 + erf(eta / sqrt 2)) / 2`` with eta linear in the variables.

    Returns
    -------
    DetectionModel
        Without a fit, and with a note that says why, for fewer than five found or missed, for a variable that is
        constant, and when a value of one variable parts the found from the missed: the likelihood has no maximum then.

    Raises
    ------
    InputError
        When lists differ in length, there is no variable, or the curve is unknown.

    Notes
    -----
    Each injection is a trial with its own probability: log L = sum of log p over the found and log(1 - p) over the
    missed. No binning enters. The asymptote A is bounded by 1; intervals come from the profile of the likelihood, which
    stays right at that bound, where a covariance matrix would not. For more than 20 000 injections variables are
    rounded to 1/1000 of their width, so that equal ones count together; where more than 20 000 distinct ones remain,
    intervals come from the covariance.
    """
    if curve not in CURVES:
        raise InputError(f"there is no curve {curve!r}", remedy=f"write one of {', '.join(CURVES)}")
    if not values:
        raise InputError("a detection model needs a variable")
    found = flags_of(detected, "detected")
    names = tuple(values)
    columns = np.column_stack([numbers(values[name], name, found.size) for name in names])
    good = np.all(np.isfinite(columns), axis=1)
    x, seen = columns[good], found[good].astype(float)
    counts = (int(seen.size), int(seen.sum()))
    its_units = tuple((units or {}).get(name, "") for name in names)
    centres = np.median(x, axis=0) if seen.size else np.full(len(names), np.nan)
    scales = x.std(axis=0) if seen.size else np.full(len(names), np.nan)
    why = _why_not(x, seen, scales, names)
    problem = None
    if not why:
        design = np.column_stack([np.ones(seen.size), (x - centres) / scales])
        problem = Likelihood(*grouped(design, seen, _MOST_PROFILED), CURVES[curve])
    return DetectionModel(names, its_units, centres, scales, curve, problem, counts, why)


def _why_not(x: F64, seen: F64, scales: F64, names: tuple[str, ...]) -> str:
    total, number = seen.size, int(seen.sum())
    if not total:
        return "No model: there is no injection with " + " and ".join(names) + "."
    if number == total:
        return f"No model: none of {counted(total, 'injection')} was missed, so there is no limit to find."
    if not number:
        return f"No model: none of {counted(total, 'injection')} was detected."
    if min(number, total - number) < FEWEST:
        return f"No model: {number} found and {total - number} missed are too few (at least {FEWEST} of each)."
    for k, name in enumerate(names):
        if not scales[k] > 0.0:
            return f"No model: {name} is the same for all injections."
        for one, other in ((1.0, 0.0), (0.0, 1.0)):
            top, bottom = x[seen == one, k].max(), x[seen == other, k].min()
            if top <= bottom:
                return f"No model: {name} parts found and missed between {top:.6g} and {bottom:.6g}."
    return ""
