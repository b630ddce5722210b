"""Bins of a quantity."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.analysis.tables import Field, numbers
from balrogutils.errors import InputError

__all__ = ["Bins", "bins_of", "equal_count_edges", "even_edges"]

F64 = NDArray[np.float64]

LEAST = 20
"""Objects a bin of equal counts has at least."""
MOST = 12
"""Bins of equal counts at most."""


class Bins(NamedTuple):
    """Edges [k + 1] (none for k = 0), the bin ``place`` [n] of each value (-1: in none), and the values [n]."""

    edges: F64
    place: NDArray[np.int64]
    values: F64

    @property
    def number(self) -> int:
        """How many bins."""
        return max(self.edges.size - 1, 0)

    def rows(self, bin_number: int) -> NDArray[np.int64]:
        """Return the rows in a bin."""
        return np.flatnonzero(self.place == bin_number)

    def fields(self, name: str, unit: str) -> list[Field]:
        """Return the columns that every binned table begins with: both edges and the median of the values."""
        centres = np.array(
            [np.median(self.values[self.rows(k)]) if (self.place == k).any() else np.nan for k in range(self.number)]
        )
        return [
            Field("low", self.edges[: self.number], f"lower edge of the bin of {name}", unit),
            Field("high", self.edges[1:], f"upper edge, not in the bin but in the last one, of {name}", unit),
            Field("centre", centres, f"median of {name} in the bin", unit),
        ]


def equal_count_edges(values: ArrayLike, least: int = LEAST, most: int = MOST) -> F64:
    """Return edges of bins that hold equal numbers.

    Parameters
    ----------
    values : array_like, shape (n,)
        What is not finite is left out.
    least : int
        Values a bin has at least, as far as there are that many.
    most : int
        Bins at most.

    Returns
    -------
    ndarray
        From the least to the greatest value; fewer bins where many values are equal, none for no value.
    """
    x = numbers(values, "what is binned")
    x = x[np.isfinite(x)]
    if not x.size:
        return np.empty(0)
    count = int(np.clip(x.size // least, 1, most))
    edges = np.unique(np.quantile(x, np.linspace(0.0, 1.0, count + 1)))
    return edges if edges.size > 1 else np.repeat(edges, 2)


def even_edges(values: ArrayLike, width: float) -> F64:
    """Return multiples of a width that enclose the finite values; none for no value.

    Raises
    ------
    InputError
        When the width is not positive, or would give more than 10 000 bins.
    """
    x = numbers(values, "what is binned")
    x = x[np.isfinite(x)]
    if not width > 0.0:
        raise InputError(f"a bin is wider than 0, not {width}")
    if not x.size:
        return np.empty(0)
    first, last = np.floor(x.min() / width), np.floor(x.max() / width) + 1.0
    if last - first > 10_000:
        raise InputError(f"bins of {width} from {x.min():g} to {x.max():g} are too many", remedy="use wider bins")
    return np.asarray(np.arange(first, last + 0.5) * width)


def bins_of(values: ArrayLike, edges: ArrayLike | None = None) -> Bins:
    """Put values in bins.

    Parameters
    ----------
    values : array_like, shape (n,)
        What is not finite, or beyond the edges, is in no bin.
    edges : array_like, shape (k + 1,), optional
        Rising; bins of equal counts when not given. A bin holds its lower edge; the last holds both.

    Raises
    ------
    InputError
        When edges do not rise.
    """
    x = numbers(values, "what is binned")
    bounds = equal_count_edges(x) if edges is None else numbers(edges, "edges of bins")
    if edges is not None and bounds.size and (bounds.size < 2 or not np.all(np.diff(bounds) > 0.0)):
        raise InputError("the edges of bins do not rise", remedy="give at least two, each larger than the one before")
    index = np.full(x.size, -1, np.int64)
    if bounds.size:
        inside = np.isfinite(x) & (x >= bounds[0]) & (x <= bounds[-1])
        found = np.searchsorted(bounds, x[inside], side="right") - 1
        index[inside] = np.minimum(found, bounds.size - 2)
    return Bins(bounds, index, x)
