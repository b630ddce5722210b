"""Maps of the fraction found on the sky."""

from __future__ import annotations

import os

import healsparse
import hpgeom
import numpy as np
from numpy.typing import ArrayLike

from balrogutils.analysis.tables import flags_of, numbers
from balrogutils.errors import InputError
from balrogutils.products import writing

__all__ = ["NSIDE", "efficiency_map", "write_map"]

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
    if nside < _COVERAGE or nside & (nside - 1):
        raise InputError(f"a map has an nside of {_COVERAGE}, or a larger power of two, not {nside}")
    found = flags_of(detected, "detected")
    lon, lat = numbers(ra, "ra", found.size), numbers(dec, "dec", found.size)
    good = np.isfinite(lon) & np.isfinite(lat)
    good[good] &= (np.abs(lat[good]) <= 90.0) & (np.abs(lon[good]) <= 720.0)
    out = healsparse.HealSparseMap.make_empty(_COVERAGE, nside, dtype=_DTYPE, primary="efficiency")
    if not good.any():
        return out
    pixels = hpgeom.angle_to_pixel(nside, lon[good] % 360.0, lat[good], nest=True)
    own, place = np.unique(pixels, return_inverse=True)
    values = np.zeros(own.size, dtype=_DTYPE)
    values["injected"] = np.bincount(place, minlength=own.size)
    values["detected"] = np.bincount(place[found[good]], minlength=own.size)
    values["efficiency"] = values["detected"] / values["injected"]
    out.update_values_pix(own, values)
    return out


def write_map(path: str | os.PathLike[str], the_map: healsparse.HealSparseMap) -> None:
    """Write a map in healsparse's FITS format; the file appears only when whole."""
    with writing(path) as part:
        the_map.write(str(part))
