"""Which objects are neighbours, and the groups that neighbours of neighbours make (M 5.1, P 6.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from balrogutils.errors import FitError, InputError

__all__ = [
    "BoxRule",
    "RadiusRule",
    "fof_table",
    "group_numbers",
    "join_pairs",
    "nbr_table",
    "pairs_of_table",
    "seg_pairs",
]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
NONE = -9999
"""What MEDS files hold where an object has no cut-out."""

_NBR = np.dtype([("number", "i8"), ("nbr_number", "i8")])
_FOF = np.dtype([("fofid", "i8"), ("number", "i8")])


def _empty() -> I64:
    return np.empty((0, 2), np.int64)


def _candidates(centres: F64, reach: float, *, square: bool) -> I64:
    """Return the pairs of indices that are at most `reach` apart, the smaller index first."""
    if len(centres) < 2:
        return _empty()
    pairs = cKDTree(centres).query_pairs(reach, p=np.inf if square else 2.0, output_type="ndarray")
    return np.sort(np.asarray(pairs, np.int64).reshape(-1, 2), axis=1)


@dataclass(frozen=True)
class BoxRule:
    """Objects are neighbours where the boxes of their coadd stamps overlap in both directions by a margin.

    Parameters
    ----------
    buff_type : {"tot", "min", "max"}
        Whether the margin is a part of the sum, the smaller or the larger of both sides.
    buff_frac : float
        That part.
    maxsize_to_replace, new_maxsize : int
        Boxes of the first side, which the maker of the file may have cut, count as boxes of the second side with the
        same centre.
    """

    buff_type: Literal["tot", "min", "max"] = "tot"
    buff_frac: float = 0.25
    maxsize_to_replace: int = 256
    new_maxsize: int = 384

    def pairs(self, start_row: NDArray[Any], start_col: NDArray[Any], box_size: NDArray[Any]) -> I64:
        """Return the pairs of neighbours in one band.

        Parameters
        ----------
        start_row, start_col : ndarray of int, shape (n,)
            First pixel of each box in the coadd, ``orig_start_row[:, 0]`` and ``orig_start_col[:, 0]``; -9999 for
            objects that are not there, which have no neighbours.
        box_size : ndarray of int, shape (n,)
            Sides, pixels.

        Returns
        -------
        ndarray of int64, shape (npair, 2)
            Indices, the smaller one first.
        """
        side = np.asarray(box_size, np.float64)
        starts = np.column_stack([start_row, start_col]).astype(np.float64)
        replaced = side == self.maxsize_to_replace
        starts[replaced] -= 0.5 * (self.new_maxsize - self.maxsize_to_replace)
        side = np.where(replaced, float(self.new_maxsize), side)
        there = np.flatnonzero((np.asarray(start_row) != NONE) & (np.asarray(start_col) != NONE) & (side > 0))
        if there.size < 2:
            return _empty()
        # No margin is below 0, so boxes that overlap have centres closer than the largest side.
        found = _candidates(starts[there] + 0.5 * side[there, None], float(side[there].max()), square=True)
        found = there[found]
        i, j = found[:, 0], found[:, 1]
        combine = {"tot": np.add, "min": np.minimum, "max": np.maximum}[self.buff_type]
        margin = self.buff_frac * combine(side[i], side[j])[:, None]
        overlap = (starts[i] <= starts[j] + side[j, None] - margin) & (starts[i] + side[i, None] >= starts[j] + margin)
        return found[overlap.all(axis=1)]


@dataclass(frozen=True)
class RadiusRule:
    """Objects are neighbours where they are closer than the sum of their radii.

    Parameters
    ----------
    multiple : float
        Times the radius of the catalogue.
    low, high : float
        Least and largest radius, pixels.
    padding : float
        Added to each radius, pixels.
    """

    multiple: float = 1.0
    low: float = 0.0
    high: float = np.inf
    padding: float = 0.0

    def pairs(self, row: NDArray[Any], col: NDArray[Any], radius: NDArray[Any]) -> I64:
        """Return the pairs of neighbours.

        Parameters
        ----------
        row, col : ndarray of float, shape (n,)
            Positions in the coadd, pixels; -9999 for objects that are not there, which have no neighbours.
        radius : ndarray of float, shape (n,)
            Radius of each object, pixels; one that is not finite counts as the least.

        Returns
        -------
        ndarray of int64, shape (npair, 2)
            Indices, the smaller one first.
        """
        size = np.asarray(radius, np.float64) * self.multiple
        size = np.clip(np.where(np.isfinite(size), size, self.low), self.low, self.high) + self.padding
        places = np.column_stack([row, col]).astype(np.float64)
        there = np.flatnonzero((places != NONE).all(axis=1) & np.isfinite(places).all(axis=1))
        if there.size < 2:
            return _empty()
        found = there[_candidates(places[there], 2.0 * float(size[there].max()), square=False)]
        i, j = found[:, 0], found[:, 1]
        return found[np.hypot(*(places[i] - places[j]).T) < size[i] + size[j]]


def seg_pairs(number: NDArray[Any], stamps: Iterable[tuple[int, NDArray[np.integer[Any]]]]) -> tuple[I64, int]:
    """Return the pairs of objects of which one's label is in the other's coadd segmentation stamp.

    Parameters
    ----------
    number : ndarray of int, shape (n,)
        Label of each object.
    stamps : iterable of (int, ndarray of int)
        Index of an object and its segmentation stamp.

    Returns
    -------
    pairs : ndarray of int64, shape (npair, 2)
        Indices, the smaller one first.
    unknown : int
        Labels in stamps that are no object's: those of a file that holds a part of a tile.
    """
    labels = np.asarray(number, np.int64)
    order = np.argsort(labels, kind="stable")
    sorted_labels = labels[order]
    owners, seen = [], []
    for index, stamp in stamps:
        found = np.unique(np.asarray(stamp)[np.asarray(stamp) > 0]).astype(np.int64)
        found = found[found != labels[index]]
        owners.append(np.full(found.size, index, np.int64))
        seen.append(found)
    if not owners:
        return _empty(), 0
    owner, label = np.concatenate(owners), np.concatenate(seen)
    at = np.minimum(np.searchsorted(sorted_labels, label), max(labels.size - 1, 0))
    known = sorted_labels[at] == label if labels.size else np.zeros(label.size, bool)
    pairs = np.column_stack([owner[known], order[at[known]]])
    return np.sort(pairs, axis=1).reshape(-1, 2), int(np.count_nonzero(~known))


def join_pairs(*parts: I64) -> I64:
    """Return each pair of several lists once, sorted: the union over bands and rules."""
    together = np.concatenate([_empty(), *(np.sort(part, axis=1) for part in parts)])
    return np.unique(together[together[:, 0] != together[:, 1]], axis=0)


def group_numbers(count: int, pairs: I64) -> I64:
    """Return the group of each of `count` objects: connected components, counted from 0 by their first member.

    Raises
    ------
    FitError
        When a pair names an object that is not there.
    """
    if len(pairs) and (pairs.min() < 0 or pairs.max() >= count):
        raise FitError(f"a pair of neighbours names an object beyond the {count} there are")
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels = connected_components(graph, directed=False)[1] if count else np.empty(0, np.int64)
    _, first, group = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(first.size, np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    return rank[group]


def nbr_table(number: NDArray[Any], pairs: I64) -> NDArray[Any]:
    """Return the neighbour list (``number``, ``nbr_number``), both directions; one row with -1 for an object alone."""
    labels = np.asarray(number, np.int64)
    alone = np.setdiff1d(np.arange(labels.size), pairs)
    first = np.concatenate([pairs[:, 0], pairs[:, 1], alone]).astype(np.int64)
    second = np.concatenate([labels[pairs[:, 1]], labels[pairs[:, 0]], np.full(alone.size, -1, np.int64)])
    order = np.lexsort((second, first))
    rows = np.zeros(first.size, _NBR)
    rows["number"], rows["nbr_number"] = labels[first[order]], second[order]
    return rows


def fof_table(number: NDArray[Any], group: I64) -> NDArray[Any]:
    """Return the table of groups (``fofid``, ``number``), group by group, members in the order of the file."""
    order = np.argsort(group, kind="stable")
    rows = np.zeros(group.size, _FOF)
    rows["fofid"], rows["number"] = group[order], np.asarray(number, np.int64)[order]
    return rows


def pairs_of_table(number: NDArray[Any], rows: NDArray[Any]) -> I64:
    """Return the pairs of a neighbour list, rows with -1 left out.

    Raises
    ------
    InputError
        When a row names an object that is not there.
    """
    real = rows[rows["nbr_number"] != -1]
    place = {int(label): index for index, label in enumerate(number)}
    both = np.column_stack([real["number"], real["nbr_number"]]).astype(np.int64)
    missing = sorted({int(label) for label in both.ravel()} - set(place))
    if missing:
        raise InputError(
            f"the list of neighbours names object {missing[0]}, which is not there", remedy="make the list anew"
        )
    return join_pairs(np.array([[place[int(a)], place[int(b)]] for a, b in both], np.int64).reshape(-1, 2))
