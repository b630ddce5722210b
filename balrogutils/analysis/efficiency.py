"""What fraction is found, in bins of anything."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike

from balrogutils.analysis.binning import bins_of
from balrogutils.analysis.intervals import binomial_interval
from balrogutils.analysis.tables import Field, counted, flags_of, numbers, result_table

__all__ = ["detection_efficiency"]


def detection_efficiency(
    detected: ArrayLike, values: ArrayLike, *, name: str, unit: str = "", edges: ArrayLike | None = None
) -> Table:
    """Return the fraction found in bins of a quantity.

    Parameters
    ----------
    detected : array_like of bool, shape (n,)
        Whether each injection was found.
    values : array_like, shape (n,)
        A quantity that is known for every injection, found or not: magnitude, colour, size, seeing, depth, distance
        to a neighbour or to a bright star. Injections without it are in no bin, and counted in the note.
    name, unit : str
        Of the quantity.
    edges : array_like, optional
        Of the bins; bins of equal counts when not given.

    Returns
    -------
    astropy.table.Table
        ``low``, ``high``, ``centre``, ``injected``, ``detected``, ``efficiency``, ``efficiency_low`` and
        ``efficiency_high`` (Jeffreys, 68.3 %). No rows when there is nothing to bin.

    Raises
    ------
    InputError
        When the lists have different lengths, or edges do not rise.
    """
    found = flags_of(detected, "detected")
    bins = bins_of(numbers(values, name, found.size), edges)
    rows = [bins.rows(k) for k in range(bins.number)]
    injected = np.array([part.size for part in rows], np.int64)
    seen = np.array([np.count_nonzero(found[part]) for part in rows], np.int64)
    low, high = binomial_interval(seen, injected)
    fraction = np.full(injected.size, np.nan)
    np.divide(seen, injected, out=fraction, where=injected > 0)
    return result_table(
        [
            *bins.fields(name, unit),
            Field("injected", injected, "injections in the bin"),
            Field("detected", seen, "of these found"),
            Field("efficiency", fraction, "fraction found"),
            Field("efficiency_low", low, "lower end of the 68.3 % interval (Jeffreys)"),
            Field("efficiency_high", high, "upper end of the 68.3 % interval (Jeffreys)"),
        ],
        _note(found.size, int(injected.sum()), int(seen.sum()), name),
        name=name,
        unit=unit,
    )


def _note(total: int, binned: int, seen: int, name: str) -> str:
    if not total:
        return "There is no injection."
    if not binned:
        return f"None of {counted(total, 'injection')} has a {name} within the bins."
    rest = f" {total - binned} more have no {name} within the bins." if total > binned else ""
    return f"{seen} of {counted(binned, 'injection')} detected.{rest}"
