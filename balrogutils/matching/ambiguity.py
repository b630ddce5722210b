"""Which matches may be of something else: original objects near an injection, and other injections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.matching.positions import Pairs, pairs_within

__all__ = ["FLAG_RADII", "brightness", "flag_name", "near_flags", "original_flags", "other_flags"]

F64 = NDArray[np.float64]

FLAG_RADII = tuple(0.5 + 0.25 * step for step in range(7))
"""Radii of the match flags, arcsec (P 7.3)."""


def flag_name(radius: float) -> str:
    """Return the column of the match flag of a radius, for example ``match_flag_0.75_asec``."""
    return f"match_flag_{radius:g}_asec" if radius % 1 else f"match_flag_{radius:.1f}_asec"


def brightness(fluxes: Mapping[str, ArrayLike], bands: Sequence[str]) -> F64:
    """Return the mean flux over some bands, NaN where one of them has none.

    Parameters
    ----------
    fluxes : mapping of str to array_like, shape (n,)
        Fluxes by band, all at one zero point.
    bands : sequence of str
        Bands of the mean.
    """
    return np.mean([np.asarray(fluxes[band], float) for band in bands], axis=0)


def near_flags(pairs: Pairs, mine: F64, theirs: F64, radius: float) -> NDArray[np.int16]:
    """Return whether something lies near, and something brighter.

    Parameters
    ----------
    pairs : Pairs
        Of a list to what may lie near, at least to `radius`.
    mine, theirs : ndarray
        Brightness of the rows of either list.
    radius : float
        Arcsec; a pair at just this distance counts.

    Returns
    -------
    ndarray of int16
        For each row of the first list 0: nothing within the radius; 1: something; 2: something brighter (any of what
        is there, not the nearest alone). A brightness that is no number is brighter than nothing.
    """
    near = pairs.distance <= radius
    i, j = pairs.first[near], pairs.second[near]
    flags = np.zeros(mine.size, np.int16)
    flags[i] = 1
    flags[i[theirs[j] > mine[i]]] = 2
    return flags


def original_flags(truth: Any, bright: F64, originals: Any, original_bright: F64) -> dict[str, NDArray[np.int16]]:
    """Return the match flags of injections at every radius of `FLAG_RADII` (P 7.3), by column.

    Parameters
    ----------
    truth, originals : mapping or structured ndarray
        Have ``ra`` and ``dec`` in degrees: injections, and the detections of the base run.
    bright, original_bright : ndarray
        Brightness of either, see `brightness`.
    """
    pairs = pairs_within(truth["ra"], truth["dec"], originals["ra"], originals["dec"], max(FLAG_RADII))
    return {flag_name(radius): near_flags(pairs, bright, original_bright, radius) for radius in FLAG_RADII}


def other_flags(truth: Any, bright: F64) -> NDArray[np.int16]:
    """Return whether another injection lies within the largest of `FLAG_RADII`: see `near_flags`."""
    radius = max(FLAG_RADII)
    pairs = pairs_within(truth["ra"], truth["dec"], truth["ra"], truth["dec"], radius)
    others = pairs.first != pairs.second
    return near_flags(Pairs(*(values[others] for values in pairs)), bright, bright, radius)
