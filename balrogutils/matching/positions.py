"""One-to-one matches of two lists of sky positions."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from balrogutils.errors import InputError

__all__ = ["Matches", "Pairs", "Reason", "match_positions", "nearest", "nearest_other", "pairs_within"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


class Reason(enum.IntEnum):
    """What became of a row of the first list."""

    MATCHED = 0
    NOT_FOUND = 1
    """Nothing within the radius."""
    TAKEN = 2
    """What lies within the radius is nearer to other rows, and matched to them."""
    BAD_POSITION = 3
    """The position is not finite, or no position on the sky."""
    OFF_CHIPS = 4
    """Unmatched, and no chip of a detection band holds its centre."""
    NOT_DRAWN = 5
    """Unmatched, and its light was put into no detection band."""
    MASKED = 6
    """Unmatched, and every chip of the detection bands that holds its centre has weight zero there."""


class Matches(NamedTuple):
    """Matches of a first list to a second.

    row : of the second list, -1 where unmatched; distance : arcsec, NaN where unmatched; reason : `Reason`.
    """

    row: I64
    distance: F64
    reason: NDArray[np.int16]


class Pairs(NamedTuple):
    """Every pair of rows of two lists within a radius: first, second : rows; distance : arcsec."""

    first: I64
    second: I64
    distance: F64


def _unit(ra: ArrayLike, dec: ArrayLike) -> tuple[F64, NDArray[np.bool_]]:
    a, d = np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
    if a.shape != d.shape or a.ndim != 1:
        raise InputError(f"right ascensions {a.shape} and declinations {d.shape} are not lists of one length")
    good = np.isfinite(a) & np.isfinite(d)
    # A fill such as -9999 is finite and no place on the sky.
    good[good] &= (np.abs(d[good]) <= 90.0) & (np.abs(a[good]) <= 720.0)
    lon, lat = np.radians(a[good]), np.radians(d[good])
    return np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]), good


def _arcsec(chord: ArrayLike) -> F64:
    # Exact for any separation, and without the loss of digits that arccos of a dot product has.
    return np.degrees(2.0 * np.arcsin(np.minimum(np.asarray(chord, float) / 2.0, 1.0))) * 3600.0


def _chord(arcsec: float) -> float:
    return float(2.0 * np.sin(np.radians(arcsec / 3600.0) / 2.0))


def match_positions(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike, radius: float) -> Matches:
    """Match two lists one to one, nearest pairs first.

    Parameters
    ----------
    ra1, dec1, ra2, dec2 : array_like
        Positions in degrees; rows that are not finite match nothing.
    radius : float
        Largest distance, arcsec.

    Returns
    -------
    Matches
        One row for each of the first list. Pairs are taken in the order of their distance (ties: of the first list,
        then of the second), each row of either list at most once, so the result does not depend on the order of the
        lists.

    Raises
    ------
    InputError
        When coordinates of one list have different lengths, or the radius is not positive.
    """
    found = pairs_within(ra1, dec1, ra2, dec2, radius)
    good1, count2 = _unit(ra1, dec1)[1], np.atleast_1d(np.asarray(ra2)).size
    index = np.full(good1.size, -1, np.int64)
    distance = np.full(good1.size, np.nan)
    reason = np.where(good1, Reason.NOT_FOUND, Reason.BAD_POSITION).astype(np.int16)
    reason[found.first] = Reason.TAKEN
    i, j, apart = found
    order = np.lexsort((j, i, apart))
    i, j, apart = i[order], j[order], apart[order]
    while i.size:
        # Of what is left, a pair that is the nearest of both its rows is one that the order of distances takes too.
        rank = np.arange(i.size)
        best1, best2 = np.empty(good1.size, np.int64), np.empty(count2, np.int64)
        best1[i[::-1]], best2[j[::-1]] = rank[::-1], rank[::-1]
        taken = (best1[i] == rank) & (best2[j] == rank)
        index[i[taken]], distance[i[taken]], reason[i[taken]] = j[taken], apart[taken], Reason.MATCHED
        used1, used2 = np.zeros(good1.size, bool), np.zeros(count2, bool)
        used1[i[taken]], used2[j[taken]] = True, True
        left = ~(used1[i] | used2[j])
        i, j, apart = i[left], j[left], apart[left]
    return Matches(index, distance, reason)


def pairs_within(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike, radius: float) -> Pairs:
    """Return every pair of two lists within a radius, by rows of the first list, then of the second.

    Parameters
    ----------
    ra1, dec1, ra2, dec2 : array_like
        Positions in degrees; rows that are not finite, or no positions on the sky, are in no pair.
    radius : float
        Largest distance, arcsec.

    Raises
    ------
    InputError
        When coordinates of one list have different lengths, or the radius is not positive.
    """
    if not 0.0 < radius < 3600.0:
        raise InputError(f"a match radius is between 0 and 3600 arcsec, not {radius}")
    first, good1 = _unit(ra1, dec1)
    second, good2 = _unit(ra2, dec2)
    if not (len(first) and len(second)):
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    found = cKDTree(first).sparse_distance_matrix(cKDTree(second), _chord(radius), output_type="ndarray")
    i, j = found["i"].astype(np.int64), found["j"].astype(np.int64)
    apart = _arcsec(np.linalg.norm(first[i] - second[j], axis=1))
    i, j = np.flatnonzero(good1)[i], np.flatnonzero(good2)[j]
    order = np.lexsort((j, i))
    return Pairs(i[order], j[order], apart[order])


def nearest(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> tuple[NDArray[np.int64], F64]:
    """Return for each position of the first list the nearest row of the second, and its distance in arcsec.

    Returns
    -------
    (ndarray, ndarray)
        Row -1 and distance NaN where either side has no usable position.
    """
    first, good1 = _unit(ra1, dec1)
    second, good2 = _unit(ra2, dec2)
    index, distance = np.full(good1.size, -1, np.int64), np.full(good1.size, np.nan)
    if len(first) and len(second):
        chord, found = cKDTree(second).query(first)
        index[good1], distance[good1] = np.flatnonzero(good2)[found], _arcsec(chord)
    return index, distance


def nearest_other(ra: ArrayLike, dec: ArrayLike) -> tuple[NDArray[np.int64], F64]:
    """Return for each position of a list the nearest other row of it, and its distance in arcsec.

    Returns
    -------
    (ndarray, ndarray)
        Row -1 and distance NaN where the position is none, or no other is one.
    """
    places, good = _unit(ra, dec)
    index, distance = np.full(good.size, -1, np.int64), np.full(good.size, np.nan)
    if len(places) > 1:
        nearby: tuple[Any, Any] = cKDTree(places).query(places, k=2)
        chord, found = nearby
        # Of two rows at one place either may come first.
        column = np.where(found[:, 0] == np.arange(len(places)), 1, 0)
        rows = np.arange(len(places))
        index[good] = np.flatnonzero(good)[found[rows, column]]
        distance[good] = _arcsec(chord[rows, column])
    return index, distance
