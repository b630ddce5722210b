"""Transfer functions: how what is measured relates to the truth, and whether the quoted errors are right."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray

from balrogutils.analysis.binning import Bins, bins_of
from balrogutils.analysis.intervals import Robust, binomial_interval, robust
from balrogutils.analysis.tables import Field, counted, numbers, result_table

__all__ = ["OUTLIER", "pull_statistics", "transfer_function"]

F64 = NDArray[np.float64]

OUTLIER = 5.0
"""Robust widths of its bin from the median of its bin beyond which a value is an outlier."""


def transfer_function(
    difference: ArrayLike,
    against: ArrayLike,
    *,
    quantity: str,
    unit: str = "",
    name: str,
    name_unit: str = "",
    edges: ArrayLike | None = None,
) -> Table:
    """Return median, robust width and outliers of measured minus true in bins of a true quantity.

    Parameters
    ----------
    difference : array_like, shape (n,)
        Measured minus true, of matched objects; NaN where it could not be measured.
    against : array_like, shape (n,)
        What it is binned by. Bin by a true value: bins of a measured one mix the objects that scattered into them.
    quantity, unit : str
        Of the difference.
    name, name_unit : str
        Of what it is binned by.
    edges : array_like, optional
        Of the bins; bins of equal counts of measured objects when not given.

    Returns
    -------
    astropy.table.Table
        ``low``, ``high``, ``centre``, ``objects`` and ``not_measured`` (NaN) in the bin, ``median`` and ``width``
        with their errors, ``outliers``, ``outlier_fraction`` with its 68.3 % interval. No rows when there is nothing.

    Raises
    ------
    InputError
        When the lists have different lengths, or edges do not rise.

    Notes
    -----
    The width is 1.4826 times the median absolute deviation: it is the standard deviation of a normal distribution, and
    half of the values may be anything without moving it far. An outlier lies more than 5 of its bin's widths from
    its bin's median. Errors are those of `robust`, NaN for fewer than four objects.
    """
    y = numbers(difference, quantity)
    x = numbers(against, name, y.size)
    measured = np.isfinite(y)
    bins = _bins(x, measured, edges)
    groups = [y[rows] for rows in map(bins.rows, range(bins.number))]
    kept = [group[np.isfinite(group)] for group in groups]
    parts = [robust(group) for group in kept]
    objects = np.array([group.size for group in kept], np.int64)
    outliers = np.array([_outliers(*pair) for pair in zip(kept, parts, strict=True)], np.int64)
    low, high = binomial_interval(outliers, objects)
    fraction = np.full(objects.size, np.nan)
    np.divide(outliers, objects, out=fraction, where=objects > 0)
    fields = [
        *bins.fields(name, name_unit),
        Field("objects", objects, f"objects in the bin with {quantity}"),
        Field("not_measured", [g.size - k.size for g, k in zip(groups, kept, strict=True)], "matched, no value"),
        *_robust_fields(parts, quantity, unit),
        Field("outliers", outliers, f"more than {OUTLIER:g} widths from the median"),
        Field("outlier_fraction", fraction, "their part"),
        Field("outlier_fraction_low", low, "lower end of its 68.3 % interval (Jeffreys)"),
        Field("outlier_fraction_high", high, "upper end of its 68.3 % interval (Jeffreys)"),
    ]
    note = _note(y.size, int(objects.sum()), quantity, name)
    return result_table(fields, note, quantity=quantity, unit=unit, name=name, name_unit=name_unit)


def pull_statistics(
    measured: ArrayLike,
    true: ArrayLike,
    error: ArrayLike,
    against: ArrayLike,
    *,
    quantity: str,
    name: str,
    name_unit: str = "",
    edges: ArrayLike | None = None,
) -> Table:
    """Return how (measured - true) / error is distributed: with right errors its median is 0 and its width 1.

    Parameters
    ----------
    measured, true, error : array_like, shape (n,)
        Values and quoted errors; what is not finite, or has no positive error, is left out.
    against : array_like, shape (n,)
        What it is binned by, as a rule true S/N: true flux over quoted error.
    quantity, name, name_unit, edges
        As in `transfer_function`.

    Returns
    -------
    astropy.table.Table
        ``low``, ``high``, ``centre``, ``objects``, ``not_measured``, ``median`` and ``width`` with errors, ``chi2``,
        the mean of the squares, with ``chi2_err`` from their scatter, and ``outliers`` beyond 5 quoted errors.

    Notes
    -----
    Width and chi2 differ in what outliers do: the width ignores them, a mean of squares can hang on one object. Both
    above 1 mean errors quoted too small, chi2 alone above 1 means tails. Bins of measured S/N would be biased:
    an object with its flux scattered up has both a positive pull and a larger S/N.
    """
    value = numbers(measured, quantity)
    truth, sigma = numbers(true, f"true {quantity}", value.size), numbers(error, f"error of {quantity}", value.size)
    x = numbers(against, name, value.size)
    good = np.isfinite(value) & np.isfinite(truth) & np.isfinite(sigma)
    good[good] &= sigma[good] > 0.0
    pull = np.full(value.size, np.nan)
    pull[good] = (value[good] - truth[good]) / sigma[good]
    bins = _bins(x, good, edges)
    groups = [pull[bins.rows(k)] for k in range(bins.number)]
    kept = [group[np.isfinite(group)] for group in groups]
    parts = [robust(group) for group in kept]
    chi2 = [float(np.mean(group**2)) if group.size else np.nan for group in kept]
    scatter = [float(np.std(group**2, ddof=1) / np.sqrt(group.size)) if group.size > 1 else np.nan for group in kept]
    objects = np.array([group.size for group in kept], np.int64)
    fields = [
        *bins.fields(name, name_unit),
        Field("objects", objects, f"objects in the bin with {quantity} and its error"),
        Field("not_measured", [g.size - k.size for g, k in zip(groups, kept, strict=True)], "without one of them"),
        *_robust_fields(parts, f"pull of {quantity}", ""),
        Field("chi2", np.array(chi2, float), "mean square of the pulls; 1 for right errors"),
        Field("chi2_err", np.array(scatter, float), "standard error of chi2, from the scatter of the squares"),
        Field("outliers", [int(np.count_nonzero(np.abs(group) > OUTLIER)) for group in kept], "beyond 5 errors"),
    ]
    note = _note(value.size, int(objects.sum()), quantity, name)
    return result_table(fields, note, quantity=f"pull of {quantity}", unit="", name=name, name_unit=name_unit)


def _bins(x: F64, measured: NDArray[np.bool_], edges: ArrayLike | None) -> Bins:
    """Return bins of all rows; those of equal counts are of the measured."""
    if edges is not None:
        return bins_of(x, edges)
    own = bins_of(x[measured]).edges
    if own.size == 0:
        return bins_of(np.full(x.size, np.nan))
    if own[0] < own[-1]:
        return bins_of(x, own)
    # One value: a bin of no width, which edges that someone gives may not have.
    return Bins(own, np.where(x == own[0], 0, -1).astype(np.int64), x)


def _robust_fields(parts: list[Robust], quantity: str, unit: str) -> list[Field]:
    values = np.array(parts, float).reshape(-1, 4)
    return [
        Field("median", values[:, 0], f"median of {quantity}", unit),
        Field("median_err", values[:, 1], "its standard error, from order statistics", unit),
        Field("width", values[:, 2], f"1.4826 MAD of {quantity}", unit),
        Field("width_err", values[:, 3], "its standard error, from order statistics", unit),
    ]


def _outliers(values: F64, its: Robust) -> int:
    if values.size < 4:
        return 0
    return int(np.count_nonzero(np.abs(values - its.median) > OUTLIER * its.width))


def _note(total: int, used: int, quantity: str, name: str) -> str:
    if not total:
        return "There is no matched object."
    if not used:
        return f"None of {counted(total, 'matched object')} has both {quantity} and {name}."
    rest = f" {total - used} have no value of one of them, or lie outside the bins." if used < total else ""
    return f"{used} of {counted(total, 'matched object')} are in the bins.{rest}"
