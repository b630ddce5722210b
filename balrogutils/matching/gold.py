"""Quality flags and star-galaxy classes in the terms of the DES Gold catalogues (P 7.1)."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["NOT_CLASSIFIED", "GoldFlag", "extended_class", "gold_flags"]

Rows = NDArray[Any]

NOT_CLASSIFIED = -9
"""The class of what has no size."""

_ORDER = "ugrizY"
_NO_MAGNITUDE = 90.0
"""SExtractor writes 99 where the flux is not positive."""


class GoldFlag(enum.IntFlag):
    """FLAGS_GOLD, bit by bit."""

    MOF = 1
    """The fit of the group is flagged."""
    SOF = 2
    """The single fit is flagged."""
    SOF_FIT = 4
    """The single fit failed otherwise than in the galaxy fit alone: its flags are 1 or above 2."""
    SEXTRACTOR = 8
    """FLAGS are above 3 in a band."""
    IMAFLAGS = 16
    """IMAFLAGS_ISO are not zero in a band."""
    BLUE_ARTEFACT = 32
    """No epoch in g, yet a g magnitude of 5 per cent, and MAG_DETMODEL - MAG_AUTO < -0.4 in i."""
    STREAK = 64
    """In a band MAGERR_AUTO < 0.01 and MAG_AUTO - model magnitude < -0.5, and a colour below -1 or above 4."""


def extended_class(size: ArrayLike, error: ArrayLike) -> NDArray[np.int16]:
    """Return EXTENDED_CLASS: 0 for what looks like a star to 3 for what is surely extended.

    Parameters
    ----------
    size, error : array_like, shape (n,)
        T before the PSF and its error, arcsec^2.

    Returns
    -------
    ndarray of int16
        (T + 5 s > 0.1) + (T + s > 0.05) + (T - s > 0.02), s the error of T (P 7.1); -9 where T is below -9000 (not
        measured), or T or s is not finite.
    """
    t, s = np.asarray(size, float), np.asarray(error, float)
    known = np.isfinite(t) & np.isfinite(s) & (t > -9000.0)
    t, s = np.where(known, t, 0.0), np.where(known, s, 0.0)
    total = (t + 5.0 * s > 0.1).astype(np.int16) + (t + s > 0.05) + (t - s > 0.02)
    return np.where(known, total, NOT_CLASSIFIED).astype(np.int16)


def gold_flags(
    catalogs: Mapping[str, Rows],
    sof: Rows | None = None,
    mof: Rows | None = None,
    model: str = "cm",
    fit_bands: Sequence[str] = (),
) -> tuple[NDArray[np.int32], GoldFlag]:
    """Return FLAGS_GOLD of every detection, and which of its bits could be found out.

    Parameters
    ----------
    catalogs : mapping of str to structured ndarray, shape (n,)
        SExtractor rows by band.
    sof, mof : structured ndarray, shape (n,), optional
        ``model_fits`` of the single fits and of those of groups.
    model : str
        Model of the single fits, with which their columns begin.
    fit_bands : sequence of str
        Bands of the vectors of `sof`, in order.

    Returns
    -------
    (ndarray of int32, GoldFlag)
        Bits of `GoldFlag`, ORed; a bit whose columns are not there is not set, and not in the second value.
    """
    found: dict[GoldFlag, NDArray[np.bool_]] = {}
    if mof is not None:
        found[GoldFlag.MOF] = mof["flags"] != 0
    if sof is not None:
        found[GoldFlag.SOF] = sof["flags"] != 0
        found[GoldFlag.SOF_FIT] = (sof["flags"] == 1) | (sof["flags"] > 2)
        found[GoldFlag.STREAK] = _streak(catalogs, sof, model, fit_bands)
    found[GoldFlag.SEXTRACTOR] = np.any([rows["FLAGS"] > 3 for rows in catalogs.values()], axis=0)
    found[GoldFlag.IMAFLAGS] = np.any([rows["IMAFLAGS_ISO"] != 0 for rows in catalogs.values()], axis=0)
    in_i = catalogs["i"].dtype.names or () if "i" in catalogs else ()
    if sof is not None and "g" in catalogs and "g" in fit_bands and "MAG_DETMODEL" in in_i:
        epochs = sof["nimage_use"][:, list(fit_bands).index("g")]
        step = catalogs["i"]["MAG_DETMODEL"] - catalogs["i"]["MAG_AUTO"]
        found[GoldFlag.BLUE_ARTEFACT] = (epochs == 0) & (catalogs["g"]["MAGERR_AUTO"] < 0.05) & (step < -0.4)
    flags = np.zeros(len(next(iter(catalogs.values()))), np.int32)
    for bit, rows in found.items():
        flags[rows] |= bit
    return flags, GoldFlag(sum(found))


def _streak(catalogs: Mapping[str, Rows], sof: Rows, model: str, fit_bands: Sequence[str]) -> NDArray[np.bool_]:
    bands = sorted((band for band in catalogs if band in fit_bands), key=_place)
    bright = np.zeros(len(sof), bool)
    odd = np.zeros(len(sof), bool)
    mags = {}
    for band in bands:
        rows = catalogs[band]
        auto = np.asarray(rows["MAG_AUTO"], float)
        mags[band] = np.where(auto < _NO_MAGNITUDE, auto, np.nan)
        fitted = sof[f"{model}_mag"][:, list(fit_bands).index(band)]
        bright |= (rows["MAGERR_AUTO"] < 0.01) & (mags[band] - fitted < -0.5)
    for blue, red in pairwise(bands):
        colour = mags[blue] - mags[red]
        odd |= (colour < -1.0) | (colour > 4.0)
    return bright & odd


def _place(band: str) -> int:
    # Bands of another survey come last, in the order of the catalogues.
    return _ORDER.index(band) if band in _ORDER else len(_ORDER)
