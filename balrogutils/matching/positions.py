"""One-to-one matches of two lists of sky positions."""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from balrogutils.errors import InputError

__all__ = ["Matches", "Reason", "match_positions", "nearest"]

F64 = NDArray[np.float64]


class Reason(enum.IntEnum):
    """What became of a row of the first list."""

    MATCHED = 0
    NOT_FOUND = 1
    """Nothing within the radius."""
    TAKEN = 2
    """What lies within the radius is nearer to other rows, and matched to them."""
    BAD_POSITION = 3
    """The position is not finite, or no position on the sky."""


class Matches(NamedTuple):
    """Matches of a first list to a second.

    row : of the second list, -1 where unmatched; distance : arcsec, NaN where unmatched; reason : `Reason`.
    """

    row: NDArray[np.int64]
    distance: F64
    reason: NDArray[np.int16]


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
    if not 0.0 < radius < 3600.0:
        raise InputError(f"a match radius is between 0 and 3600 arcsec, not {radius}")
    first, good1 = _unit(ra1, dec1)
    second, good2 = _unit(ra2, dec2)
    index = np.full(good1.size, -1, np.int64)
    distance = np.full(good1.size, np.nan)
    reason = np.where(good1, Reason.NOT_FOUND, Reason.BAD_POSITION).astype(np.int16)
    rows1, rows2 = np.flatnonzero(good1), np.flatnonzero(good2)
    if rows1.size and rows2.size:
        tree = cKDTree(first)
        pairs = tree.sparse_distance_matrix(cKDTree(second), _chord(radius), output_type="ndarray")
        if pairs.size:
            i, j = pairs["i"], pairs["j"]
            apart = _arcsec(np.linalg.norm(first[i] - second[j], axis=1))
            reason[rows1[np.unique(i)]] = Reason.TAKEN
            used = np.zeros(rows2.size, bool)
            for k in np.lexsort((j, i, apart)):
                a, b = rows1[i[k]], rows2[j[k]]
                if index[a] < 0 and not used[j[k]]:
                    index[a], distance[a], reason[a], used[j[k]] = b, apart[k], Reason.MATCHED, True
    return Matches(index, distance, reason)


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
