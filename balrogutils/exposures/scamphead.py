"""SCAMP header files (``.ohead``): the refined WCS of one CCD."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import fitsio

from balrogutils.errors import ProductError

__all__ = ["REQUIRED_KEYS", "WCS_KEYS", "read_ohead", "replace_wcs"]

WCS_KEYS = (
    "EQUINOX",
    "RADESYS",
    "CTYPE1",
    "CTYPE2",
    "CUNIT1",
    "CUNIT2",
    "CRVAL1",
    "CRVAL2",
    "CRPIX1",
    "CRPIX2",
    "CD1_1",
    "CD1_2",
    "CD2_1",
    "CD2_2",
    *(f"PV{axis}_{term}" for axis in (1, 2) for term in range(11)),
)
"""Cards copied from the SCAMP head to the image and mask headers (P 3.1, the hdupcfg list)."""

REQUIRED_KEYS = ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
"""Those without which there is no WCS."""

_TEXT = ("RADESYS", "CTYPE1", "CTYPE2", "CUNIT1", "CUNIT2")
_OTHER_WCS_PREFIXES = (
    "PV1_",
    "PV2_",
    "WAT",
    "LTM",
    "LTV",
    "CDELT",
    "CROTA",
    "PC1_",
    "PC2_",
    "LONPOLE",
    "LATPOLE",
    "RADECSYS",
)


def read_ohead(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the WCS cards of a SCAMP head.

    Parameters
    ----------
    path : path-like
        Text file with one FITS card a line, up to END.

    Returns
    -------
    dict
        The cards of `WCS_KEYS` that are there, in that order.

    Raises
    ------
    ProductError
        When the file is missing, or a card the WCS needs is.
    """
    file = Path(path)
    try:
        # SCAMP writes a UTF-8 name in its COMMENT; WCS cards are ASCII in any case.
        lines = file.read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise ProductError(f"a SCAMP head cannot be read: {error.strerror}", file=file) from error
    found: dict[str, Any] = {}
    for line in lines:
        key = line[:8].strip()
        if key == "END":
            break
        if key in WCS_KEYS:
            value = fitsio.FITSRecord(line[:80])["value"]
            value = value.strip() if isinstance(value, str) else value
            number = isinstance(value, (int, float)) and math.isfinite(value)
            if number == (key in _TEXT):
                raise ProductError(f"card {key} of a SCAMP head cannot be: {value!r}", file=file, key=key)
            found[key] = value
    missing = [key for key in REQUIRED_KEYS if key not in found]
    if missing:
        raise ProductError(f"a SCAMP head lacks {', '.join(missing)}", file=file, key=missing[0])
    return {key: found[key] for key in WCS_KEYS if key in found}


def replace_wcs(header: fitsio.FITSHDR, cards: dict[str, Any]) -> fitsio.FITSHDR:
    """Return a copy of `header` whose WCS is that of `cards` alone.

    Old distortion terms, and the cards of other WCS conventions, are removed first: a term the new solution does not
    have must not survive from the old one.
    """
    dropped = set(WCS_KEYS)
    kept = fitsio.FITSHDR()
    for record in header.records():
        name = (record.get("name") or "").upper()
        if name and name not in dropped and not name.startswith(_OTHER_WCS_PREFIXES):
            kept.add_record({"name": name, "value": record["value"], "comment": record.get("comment", "")})
    for key, value in cards.items():
        kept.add_record({"name": key, "value": value, "comment": ""})
    return kept
