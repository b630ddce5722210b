"""Stars and galaxies of tables that anybody can write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.injection.catalogs import Catalog, sane_rows
from balrogutils.injection.profiles import bulge_disk_radius
from balrogutils.injection.sources.columns import Columns
from balrogutils.settings.sources import GalaxyTable, StarTable

__all__ = ["SERSIC_RANGE", "quantised", "read_galaxies", "read_stars"]

_UNDRAWABLE = "a size, shape, flux or weight that is no number, or out of range"
SERSIC_RANGE = (0.3, 6.2)
"""Sersic indices that GalSim can draw."""


def quantised(index: NDArray[np.float64], step: float | None) -> NDArray[np.float64]:
    """Return Sersic indices rounded to whole steps, within what GalSim can draw; NaN stays."""
    return index if step is None else np.clip(np.round(index / step) * step, *SERSIC_RANGE)


def read_stars(section: StarTable, base: Path, tile: str, bands: Sequence[str]) -> Catalog:
    """Read a table of stars; rows that cannot be drawn are counted.

    Raises
    ------
    InputError
        When the table or a column is missing.
    """
    table = Columns(section.path(base, tile), "input.star_table.file_name")
    light = _light(section, base, table, bands, {})
    return _catalog("tableStar", "star", section, table, light, ())


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
    return _catalog("tableGalaxy", section.model, section, table, _light(section, base, table, bands, shape), positive)


def _index(values: NDArray[np.float64], section: GalaxyTable) -> NDArray[np.float64]:
    inside = (values >= SERSIC_RANGE[0]) & (values <= SERSIC_RANGE[1])
    return quantised(np.where(inside, values, np.nan), section.n_step)


class _Light(NamedTuple):
    """Shapes, and fluxes by band."""

    shape: dict[str, NDArray[np.float64]]
    flux: dict[str, NDArray[np.float64]]


def _light(
    section: StarTable, base: Path, table: Columns, bands: Sequence[str], shape: dict[str, NDArray[np.float64]]
) -> _Light:
    """Return the fluxes of the table, or those of the spectra it names, and what these add to the shapes."""
    if section.seds is None:
        return _Light(shape, table.fluxes(bands))
    # GalSim takes most of a second to import: only who has spectra waits for it.
    from balrogutils.injection.spectra import colours

    seds, bandpass = section.seds, section.bandpass
    assert bandpass is not None  # checked when the settings were read
    given = table.fluxes((seds.mag_band,))[seds.mag_band]
    redshift = table["redshift"] if "redshift" in table else np.zeros(len(table))
    added = {**shape, "redshift": redshift}
    parts = {"sed": np.ones(len(table))}
    if "bulge_fraction" in shape and "bulge_sed" in table:
        parts = {"bulge_sed": shape["bulge_fraction"], "disk_sed": 1.0 - shape["bulge_fraction"]}
    seen = {name: colours(seds, bandpass, base, bands, table[name], redshift) for name in parts}
    flux = {}
    for band in bands:
        light = {name: share * seen[name].ratio[band] for name, share in parts.items()}
        whole = np.sum(list(light.values()), axis=0)
        flux[band] = given * whole
        with np.errstate(invalid="ignore", divide="ignore"):
            added[f"wavelength_{band}"] = (
                np.sum([light[name] * seen[name].wavelength[band] for name in parts], axis=0) / whole
            )
            if "bulge_sed" in light:
                added[f"bulge_fraction_{band}"] = light["bulge_sed"] / whole
    return _Light({**added, **{name: table[name] for name in parts}}, flux)


def _catalog(
    inj_type: str,
    model: str,
    section: StarTable,
    table: Columns,
    light: _Light,
    positive: tuple[str, ...],
) -> Catalog:
    shape, flux = light
    weight = table[section.weight] if section.weight else None
    whole = Catalog(inj_type, model, table.file, np.arange(len(table)), shape, flux, table.ids(), table.sky(), weight)
    sane = sane_rows(shape, flux, positive) if shape or flux else np.ones(len(table), dtype=bool)
    if weight is not None:
        sane &= np.isfinite(weight) & (weight >= 0)
    return whole.chosen(sane, _UNDRAWABLE)
