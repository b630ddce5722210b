"""Maps of the fraction found on the sky."""

from __future__ import annotations

import os

import healsparse
import hpgeom
import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.analysis.tables import flags_of, numbers
from balrogutils.errors import InputError
from balrogutils.products import writing

__all__ = ["NSIDE", "add_counts", "count_pixels", "efficiency_map", "map_of_counts", "write_map"]

I64 = NDArray[np.int64]

NSIDE = 1024
"""Of the map: pixels of 3.4 arcmin, some 160 on a DES tile."""
_COVERAGE = 32
_DTYPE = np.dtype([("efficiency", "f8"), ("injected", "i4"), ("detected", "i4")])


def efficiency_map(ra: ArrayLike, dec: ArrayLike, detected: ArrayLike, nside: int = NSIDE) -> healsparse.HealSparseMap:
    """Return injections, those found and their fraction in HEALPix pixels.

    Parameters
    ----------
    ra, dec : array_like, shape (n,)
        True positions, degrees; what is no position is left out.
    detected : array_like of bool, shape (n,)
        Whether each was found.
    nside : int
        A power of two, 32 or more; nested order.

    Returns
    -------
    healsparse.HealSparseMap
        Record map with ``efficiency`` (primary), ``injected`` and ``detected``; valid where something was injected.

    Raises
    ------
    InputError
        When the lists have different lengths, or nside is no power of two from 32 on.
    """
    pixels, injected, seen = count_pixels(ra, dec, detected, nside)
    return map_of_counts(pixels, injected, seen, nside)


def count_pixels(ra: ArrayLike, dec: ArrayLike, detected: ArrayLike, nside: int = NSIDE) -> tuple[I64, I64, I64]:
    """Return the nested pixels in which something was injected, in order, and how many injections and detections.

    Parameters and errors are those of `efficiency_map`.
    """
    if nside < _COVERAGE or nside & (nside - 1):
        raise InputError(f"a map has an nside of {_COVERAGE}, or a larger power of two, not {nside}")
    found = flags_of(detected, "detected")
    lon, lat = numbers(ra, "ra", found.size), numbers(dec, "dec", found.size)
    good = np.isfinite(lon) & np.isfinite(lat)
    good[good] &= (np.abs(lat[good]) <= 90.0) & (np.abs(lon[good]) <= 720.0)
    if not good.any():
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
    pixels = hpgeom.angle_to_pixel(nside, lon[good] % 360.0, lat[good], nest=True)
    return add_counts(pixels, np.ones(pixels.size, np.int64), found[good].astype(np.int64))


def add_counts(pixels: I64, injected: I64, detected: I64) -> tuple[I64, I64, I64]:
    """Return each pixel once, in order, with the sums of its counts."""
    own, place = np.unique(np.asarray(pixels, np.int64), return_inverse=True)
    sums = [np.zeros(own.size, np.int64) for _ in range(2)]
    for total, counts in zip(sums, (injected, detected), strict=True):
        np.add.at(total, place, counts)
    return own, sums[0], sums[1]


def map_of_counts(pixels: I64, injected: I64, detected: I64, nside: int = NSIDE) -> healsparse.HealSparseMap:
    """Return the map of `efficiency_map` of pixels that each come once."""
    out = healsparse.HealSparseMap.make_empty(_COVERAGE, nside, dtype=_DTYPE, primary="efficiency")
    if not pixels.size:
        return out
    values = np.zeros(pixels.size, dtype=_DTYPE)
    values["injected"], values["detected"] = injected, detected
    values["efficiency"] = values["detected"] / values["injected"]
    out.update_values_pix(pixels, values)
    return out


def write_map(path: str | os.PathLike[str], the_map: healsparse.HealSparseMap) -> None:
    """Write a map in healsparse's FITS format; the file appears only when whole."""
    with writing(path) as part:
        the_map.write(str(part))
