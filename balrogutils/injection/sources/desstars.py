"""Stars of the DES star simulations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from balrogutils.errors import InputError, did_you_mean
from balrogutils.injection.catalogs import SHAPE_COLUMNS, ZERO_POINT, Catalog
from balrogutils.injection.sources.columns import band_index
from balrogutils.settings.sources import DesStarCatalog

__all__ = ["read"]

log = logging.getLogger(__name__)


def read(section: DesStarCatalog, base: Path, tile: str, bands: Sequence[str]) -> Catalog:
    """Read the simulated stars of a tile; rows without magnitudes are counted.

    Raises
    ------
    InputError
        When the file or a column is missing.
    """
    name = section.tile or tile
    file = section.path(base, tile)
    if not file.is_file():
        raise InputError(
            "the tile has no star catalogue",
            tile=tile,
            file=file,
            key="input.des_star_catalog",
            remedy=f"python inputs/make_catalogs.py stars {name} RA DEC makes one; see inputs/README.md",
        )
    try:
        rows: Any = np.atleast_1d(
            np.genfromtxt(file, delimiter=",", names=True, dtype=np.float64, encoding="utf-8", deletechars="")
        )
    except (ValueError, IndexError) as error:
        text = f"the star catalogue is not a table of numbers: {error}"
        raise InputError(text, file=file, remedy="see inputs/README.md") from error
    wanted = ("RA_new", "DEC_new", "g_Corr", "gr_Corr", "ri_Corr", "iz_Corr")
    found = rows.dtype.names or ()
    lacking = [column for column in wanted if column not in found]
    if lacking:
        raise InputError(
            f"the star catalogue lacks the columns {', '.join(lacking)}; it has {', '.join(found)}",
            file=file,
            remedy="see inputs/README.md",
        )
    g = rows["g_Corr"]
    r = g - rows["gr_Corr"]
    i = r - rows["ri_Corr"]
    mags = {"g": g, "r": r, "i": i, "z": i - rows["iz_Corr"]}
    for band in bands:
        band_index(band, "star catalogues")
    sane = np.all([np.isfinite(mags[band]) for band in bands], axis=0) & np.ones(len(rows), dtype=bool)
    used = np.flatnonzero(sane)
    log.info("stars: %d of %d rows of %s used, %d without magnitudes", len(used), len(rows), file.name, np.sum(~sane))
    nothing = np.zeros(len(used))
    if section.weight and section.weight not in found:
        raise InputError(
            f"the star catalogue has no column {section.weight}: {did_you_mean(section.weight, found)}",
            file=file,
            key="input.des_star_catalog.weight",
            remedy="name a column that it has",
        )
    return Catalog(
        "desStar",
        "star",
        file,
        used,
        dict.fromkeys(SHAPE_COLUMNS, nothing),
        {band: 10.0 ** (0.4 * (ZERO_POINT - mags[band][used])) for band in bands},
        sky=np.column_stack([rows["RA_new"], rows["DEC_new"]])[used],
        weight=np.asarray(rows[section.weight][used]) if section.weight else None,
    )
