"""Objects of MEDS files, to be injected as they were seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InputError, ProductError, did_you_mean
from balrogutils.injection.catalogs import Catalog, sane_rows
from balrogutils.injection.medsstamps import (
    best_slot,
    cleaned,
    half_light_radius,
    light_reach,
    open_meds,
    zero_factor,
)
from balrogutils.injection.sources.columns import Columns
from balrogutils.meds import MEDS
from balrogutils.meds.stamps import Stamps
from balrogutils.settings.sources import MedsCatalog

__all__ = ["read"]

_KEY = "input.meds_catalog"
_MEASURES = ("flux", "error", "radius", "reach", "masked", "slot")

F64 = NDArray[np.float64]


def read(section: MedsCatalog, base: Path, tile: str, bands: Sequence[str]) -> Catalog:
    """Read the objects of MEDS files, one file a band; objects that are cut or cannot be drawn are counted.

    Raises
    ------
    InputError
        When a file or column is missing, or the files hold different objects.
    """
    with ExitStack() as stack:
        files = {}
        for band in bands:
            files[band] = open_meds(section, base, tile, band)
            stack.callback(files[band].close)
        _require_same(files)
        try:
            found = {band: _measured(section, meds) for band, meds in files.items()}
        except ProductError as error:
            raise InputError(
                error.message, file=error.where.get("file"), key=f"{_KEY}.file_name", remedy="name a whole MEDS file"
            ) from error
        first = next(iter(files.values()))
        ids, sky = first["id"].astype(np.int64), np.column_stack([first["ra"], first["dec"]]).astype(np.float64)
        columns = first.get_cat()
    file = section.path(base, tile)
    flux = {band: one["flux"] for band, one in found.items()}
    table = section.table(base, tile)
    params = None if table is None else Columns(table, f"{_KEY}.param_catalog")
    given = np.ones(len(ids), dtype=bool)
    if params is not None:
        given, where = _matched(params, ids)
        flux = {band: values[where] for band, values in params.fluxes(bands).items()}
    weight = None if section.weight is None else _weight(section.weight, columns, file)
    shape = {
        **{name: np.zeros(len(ids)) for name in ("g1", "g2")},
        "r50_arcsec": found[bands[0]]["radius"],
        "stamp_reach": np.max([one["reach"] for one in found.values()], axis=0),
        "stamp_masked": np.max([one["masked"] for one in found.values()], axis=0),
        "stamp_snr": np.sqrt(np.sum([(one["flux"] / one["error"]) ** 2 for one in found.values()], axis=0)),
        **{f"stamp_slot_{band}": one["slot"] for band, one in found.items()},
        **{f"stamp_error_{band}": one["error"] for band, one in found.items()},
    }
    whole = Catalog("MEDSGalaxy", "meds", file, np.arange(len(ids)), shape, flux, ids=ids, sky=sky, weight=weight)
    lit = np.all([one["flux"] > 0 for one in found.values()], axis=0)
    whole = whole.chosen(lit, "no stamp, no pixel or no light of their own in some band")
    whole = whole.chosen(given[lit], "not in param_catalog")
    whole = whole.chosen(whole.shape["stamp_masked"] <= section.masked_max, "too many bad pixels or neighbours")
    needed = {name: values for name, values in whole.shape.items() if name != "r50_arcsec"}
    whole = whole.chosen(sane_rows(needed, whole.flux), "fluxes that are no numbers above 0")
    return whole.chosen(_cuts(section, whole), "outside the cuts")


def _require_same(files: Mapping[str, MEDS]) -> None:
    first: MEDS | None = None
    for band, meds in files.items():
        first = first or meds
        if not np.array_equal(meds["id"], first["id"]):
            raise InputError(
                f"the ids are not those of {first.path}",
                band=band,
                file=meds.path,
                key=f"{_KEY}.file_name",
                remedy="name MEDS files of the same objects",
            )


def _measured(section: MedsCatalog, meds: MEDS) -> dict[str, F64]:
    """Return flux, error (zero point 30), half-light radius, reach, masked share and slot of every object."""
    out = {name: np.full(meds.size, np.nan) for name in _MEASURES}
    if section.epoch == "coadd":
        # One stamp of many: each is read by itself.
        found = ((iobj, _measure(section, meds, iobj, 0)) for iobj in np.flatnonzero(meds["ncutout"] > 0).tolist())
    else:
        found = (
            (iobj, _measure(section, block, iobj, slot))
            for block in meds.blocks(("image", "weight", "seg", "psf"))
            for iobj in block.rows.tolist()
            if (slot := best_slot(block, _flags(meds, iobj), iobj))
        )
    for iobj, one in found:
        for name, value in zip(_MEASURES, one or (), strict=False):
            out[name][iobj] = value
    for name in ("flux", "error"):
        out[name] *= zero_factor(meds)
    return out


def _flags(meds: MEDS, iobj: int) -> NDArray[np.int64]:
    slots = range(meds.objects.cutouts(iobj))
    return np.array([int(meds.get_source_info(iobj, slot)["image_flags"]) for slot in slots], dtype=np.int64)


def _measure(section: MedsCatalog, stamps: Stamps, iobj: int, slot: int) -> tuple[float, ...] | None:
    light = cleaned(stamps, iobj, slot, section.margin)
    if light is None:
        return None
    scale = float(np.sqrt(abs(np.linalg.det(stamps.get_jacobian_matrix(iobj, slot)))))
    psf = stamps.get_psf(iobj, slot).astype(np.float64)
    row, col = stamps.get_psf_rowcol(iobj, slot)
    distance = scale * np.hypot(*np.meshgrid(np.arange(len(psf)) - row, np.arange(psf.shape[1]) - col, indexing="ij"))
    seen, blur = half_light_radius(light.pixels, light.radius, scale), half_light_radius(psf, distance, scale)
    # Radii of convolved profiles add up roughly in quadrature; a point source may come out a little below its PSF.
    radius = float(np.hypot(np.sqrt(max(seen**2 - blur**2, 0.0)), 0.5 * section.resolution)) if seen > 0 else np.nan
    return float(light.pixels.sum()), light.error, radius, light_reach(light, scale), light.masked, float(slot)


def _matched(params: Columns, ids: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which ids the table has, and in which of its rows."""
    named = params["id"]
    order = np.argsort(named, kind="stable")
    if not len(named):
        return np.zeros(len(ids), dtype=bool), np.zeros(len(ids), dtype=np.int64)
    where = order[np.minimum(np.searchsorted(named, ids, sorter=order), len(named) - 1)]
    return named[where] == ids, where


def _weight(name: str, rows: NDArray[Any], file: Path) -> F64:
    if name not in (rows.dtype.names or ()) or rows[name].ndim != 1:
        raise InputError(
            f"object_data has no column {name} of one number an object: {did_you_mean(name, rows.dtype.names or ())}",
            file=file,
            key=f"{_KEY}.weight",
            remedy="name a column that it has",
        )
    return np.asarray(rows[name], dtype=np.float64)


def _cuts(section: MedsCatalog, catalog: Catalog) -> NDArray[np.bool_]:
    """Return the objects within the configured cuts; a NaN is outside."""
    keep = np.ones(len(catalog), dtype=bool)
    limits = (("stamp_snr", section.snr_min, section.snr_max), ("r50_arcsec", section.size_min, section.size_max))
    for name, low, high in limits:
        if low is not None:
            keep &= catalog.shape[name] > low
        if high is not None:
            keep &= catalog.shape[name] < high
    if catalog.weight is not None:
        keep &= np.isfinite(catalog.weight) & (catalog.weight >= 0)
    return keep
