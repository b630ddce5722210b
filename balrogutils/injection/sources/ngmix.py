"""Galaxies of an ngmix catalogue: gauss, cm and bdf models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InputError, did_you_mean
from balrogutils.fitsfile import read_table
from balrogutils.injection.catalogs import Catalog, sane_rows
from balrogutils.injection.sources.columns import band_index
from balrogutils.settings.sources import NgmixCatalog

__all__ = ["read"]

log = logging.getLogger(__name__)


def read(section: NgmixCatalog, base: Path, tile: str, bands: Sequence[str]) -> Catalog:
    """Read an ngmix catalogue; rows that are cut or cannot be drawn are counted.

    Raises
    ------
    InputError
        When the file or a column is missing.
    """
    file = section.path(base, tile)
    if not file.is_file():
        raise InputError(
            "the galaxy catalogue is not there",
            file=file,
            key="input.ngmix_catalog.file_name",
            remedy="see inputs/README.md",
        )
    rows = read_table(file)
    kind = section.catalog_type or next(
        (name for name in ("bdf", "gauss", "cm") if name in Path(section.file_name).name.lower()), None
    )
    if kind is None:
        raise InputError(
            "the type of the galaxy catalogue cannot be told from its name",
            file=file,
            key="input.ngmix_catalog.catalog_type",
            remedy="write catalog_type: gauss, cm or bdf",
        )
    names = {name.lower(): name for name in rows.dtype.names or ()}

    def column(name: str) -> NDArray[np.float64]:
        if name.lower() not in names:
            raise InputError(
                f"the galaxy catalogue has no column {name}: {did_you_mean(name, names.values())}",
                file=file,
                key="input.ngmix_catalog.catalog_type",
                remedy="choose the catalog_type that the file has",
            )
        return np.asarray(rows[names[name.lower()]], dtype=np.float64)

    flux = column(f"{kind}_flux_deredden" if section.de_redden else f"{kind}_flux")
    g = column(f"{kind}_g")
    indices = {band: band_index(band, "ngmix catalogues") for band in bands}
    if flux.ndim != 2 or g.shape != (len(rows), 2) or max(indices.values(), default=0) >= flux.shape[1]:
        raise InputError(
            f"the flux and g columns have shapes {flux.shape} and {g.shape}, not (n, 4) and (n, 2)",
            file=file,
            key="input.ngmix_catalog.file_name",
        )
    ones = np.ones(len(rows))
    shape = {
        "T": column(f"{kind}_T"),
        "g1": g[:, 0],
        "g2": g[:, 1],
        "fracdev": column(f"{kind}_fracdev") if kind != "gauss" else 0.0 * ones,
        "TdByTe": column(f"{kind}_TdByTe") if f"{kind}_tdbyte" in names else section.TdByTe * ones,
    }
    if kind == "cm" and "cm_tdbyte" not in names:
        column("cm_TdByTe")  # a cm model is not defined without it
    fluxes = {band: flux[:, index] for band, index in indices.items()}
    keep = _cuts(section, kind, column, shape["T"]) & (column("flags") == 0)
    sane = sane_rows(shape, fluxes, ("T", "TdByTe")) & (shape["fracdev"] >= 0) & (shape["fracdev"] <= 1)
    used = np.flatnonzero(keep & sane)
    log.info(
        "galaxies: %d of %d rows of %s used, %d outside the cuts, %d with a size, shape or flux that cannot be drawn",
        *(len(used), len(rows), file.name, np.sum(~keep), np.sum(keep & ~sane)),
    )
    return Catalog(
        "ngmixGalaxy",
        kind,
        file,
        used,
        {name: values[used] for name, values in shape.items()},
        {band: values[used] for band, values in fluxes.items()},
        np.asarray(rows[names["id"]][used], dtype=np.int64) if _has_ids(rows, names) else None,
        np.column_stack([column("ra"), column("dec")])[used] if {"ra", "dec"} <= names.keys() else None,
        column(section.weight)[used] if section.weight else None,
    )


def _has_ids(rows: NDArray[Any], names: dict[str, str]) -> bool:
    return "id" in names and rows.dtype[names["id"]].kind in "iu"


def _cuts(
    section: NgmixCatalog, kind: str, column: Callable[[str], NDArray[np.float64]], t: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return the rows within the configured cuts; a NaN is outside."""
    keep = np.ones(len(t), dtype=bool)
    if section.snr_min is not None:
        keep &= column(f"{kind}_s2n_r") > section.snr_min
    if section.snr_max is not None:
        keep &= column(f"{kind}_s2n_r") < section.snr_max
    if section.t_frac is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            keep &= np.abs(t / column(f"{kind}_T_err")) >= section.t_frac
    if section.t_min is not None:
        keep &= t > section.t_min
    if section.t_max is not None:
        keep &= t < section.t_max
    return keep
