"""Stars and galaxies of tables that anybody can write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from balrogutils.injection.catalogs import Catalog, sane_rows
from balrogutils.injection.profiles import bulge_disk_radius
from balrogutils.injection.sources.columns import Columns
from balrogutils.settings.sources import GalaxyTable, StarTable

__all__ = ["quantised", "read_galaxies", "read_stars"]

_UNDRAWABLE = "a size, shape, flux or weight that is no number, or out of range"
# What GalSim can draw.
_SERSIC_RANGE = (0.3, 6.2)


def quantised(index: NDArray[np.float64], step: float | None) -> NDArray[np.float64]:
    """Return Sersic indices rounded to whole steps, within what GalSim can draw; NaN stays."""
    return index if step is None else np.clip(np.round(index / step) * step, *_SERSIC_RANGE)


def read_stars(section: StarTable, base: Path, tile: str, bands: Sequence[str]) -> Catalog:
    """Read a table of stars; rows that cannot be drawn are counted.

    Raises
    ------
    InputError
        When the table or a column is missing.
    """
    table = Columns(section.path(base, tile), "input.star_table.file_name")
    return _catalog("tableStar", "star", section, table, {}, bands, ())


def read_galaxies(section: GalaxyTable, base: Path, tile: str, bands: Sequence[str]) -> Catalog:
    """Read a table of galaxies; rows that cannot be drawn are counted.

    Raises
    ------
    InputError
        When the table or a column is missing.
    """
    table = Columns(section.path(base, tile), "input.galaxy_table.file_name")
    if "q" in table:
        q = table["q"]
        with np.errstate(invalid="ignore", divide="ignore"):
            # An axis ratio above 1 is a slip; so is one at or below 0.
            g = np.where((q > 0) & (q <= 1), (1.0 - q) / (1.0 + q), np.nan) * np.exp(2j * np.radians(table["beta_deg"]))
        shape = {"g1": g.real, "g2": g.imag}
    else:
        shape = {"g1": table["g1"], "g2": table["g2"]}
    positive: tuple[str, ...] = ("r50_arcsec",)
    if section.model == "bulge_disk":
        share = table["bulge_fraction"]
        shape["bulge_fraction"] = np.where((share >= 0) & (share <= 1), share, np.nan)
        for name in ("bulge_r50_arcsec", "disk_r50_arcsec"):
            shape[name] = table[name]
        shape["bulge_n"] = _index(table["bulge_n"] if "bulge_n" in table else np.full(len(table), 4.0), section)
        positive = ("bulge_r50_arcsec", "disk_r50_arcsec")
        shape["r50_arcsec"] = bulge_disk_radius(
            shape["bulge_fraction"], shape["bulge_r50_arcsec"], shape["bulge_n"], shape["disk_r50_arcsec"]
        )
    else:
        shape["r50_arcsec"] = table["r50_arcsec"]
        if section.model == "sersic":
            shape["sersic_n"] = _index(table["sersic_n"], section)
        else:
            knots = table["knots"]
            shape["knots"] = np.where((knots >= 1) & (knots == np.floor(knots)), knots, np.nan)
    if section.model != "knots":
        shape["truncation"] = np.full(len(table), section.truncation or 0.0)
    return _catalog("tableGalaxy", section.model, section, table, shape, bands, positive)


def _index(values: NDArray[np.float64], section: GalaxyTable) -> NDArray[np.float64]:
    inside = (values >= _SERSIC_RANGE[0]) & (values <= _SERSIC_RANGE[1])
    return quantised(np.where(inside, values, np.nan), section.n_step)


def _catalog(
    inj_type: str,
    model: str,
    section: StarTable,
    table: Columns,
    shape: dict[str, NDArray[np.float64]],
    bands: Sequence[str],
    positive: tuple[str, ...],
) -> Catalog:
    flux = table.fluxes(bands)
    weight = table[section.weight] if section.weight else None
    whole = Catalog(inj_type, model, table.file, np.arange(len(table)), shape, flux, table.ids(), table.sky(), weight)
    sane = sane_rows(shape, flux, positive) if shape or flux else np.ones(len(table), dtype=bool)
    if weight is not None:
        sane &= np.isfinite(weight) & (weight >= 0)
    return whole.chosen(sane, _UNDRAWABLE)
