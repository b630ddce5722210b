"""What is injected: galaxy and star catalogues, checked, cut and brought to one form."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InputError, did_you_mean
from balrogutils.fitsfile import read_table
from balrogutils.settings.injection import Injection
from balrogutils.settings.sources import DesStarCatalog, NgmixCatalog

__all__ = ["SHAPE_COLUMNS", "ZERO_POINT", "Catalog", "load"]

log = logging.getLogger(__name__)

ZERO_POINT = 30.0
"""Zero point of the fluxes of every catalogue."""

SHAPE_COLUMNS = ("T", "g1", "g2", "fracdev", "TdByTe")
"""Shape of the profile: ngmix T in arcsec^2, reduced shear, share of the de Vaucouleurs part, T_dev / T_exp."""

_FLUX_BANDS = "griz"


@dataclass(frozen=True)
class Catalog:
    """Objects that can be injected.

    Attributes
    ----------
    inj_type : str
        Name in the `gal` section, for example ``ngmixGalaxy``.
    model : str
        Profile, one of `balrogutils.injection.profiles.MODELS`.
    file : pathlib.Path
        Where they come from.
    row : ndarray of int64, shape (n,)
        Row of each object in the file, from 0.
    shape : dict of ndarray of float64, shape (n,)
        The columns of `SHAPE_COLUMNS`.
    flux : dict of ndarray of float64, shape (n,)
        Flux by band at zero point 30.
    """

    inj_type: str
    model: str
    file: Path
    row: NDArray[np.int64]
    shape: dict[str, NDArray[np.float64]]
    flux: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.row)


def load(inj_type: str, settings: Injection, base: Path, tile: str, bands: Sequence[str]) -> Catalog:
    """Read the catalogue of one type of object.

    Parameters
    ----------
    inj_type : str
        Name in the `gal` section.
    settings : Injection
        The injection configuration.
    base : pathlib.Path
        Directory that relative paths start from, and that a leading ``BALROG-BASE`` stands for.
    tile : str
        Tile name; star catalogues differ by tile.
    bands : sequence of str
        Bands to have fluxes in.

    Returns
    -------
    Catalog
        What is left after cuts and after dropping rows with values that cannot be drawn; counts are logged.

    Raises
    ------
    InputError
        When the file or a column is missing, or nothing is left.
    """
    catalog = _LOADERS[inj_type](settings, base, tile, bands)
    if not len(catalog):
        raise InputError(
            f"no {inj_type} is left after the cuts",
            tile=tile,
            file=catalog.file,
            key="input",
            remedy="widen the cuts of the configuration",
        )
    return catalog


def _band_index(band: str, what: str) -> int:
    if band not in _FLUX_BANDS:
        raise InputError(
            f"{what} have the bands g, r, i, z only",
            band=band,
            key="image.bands",
            remedy="list the bands to inject into in image.bands",
        )
    return _FLUX_BANDS.index(band)


def _ngmix(settings: Injection, base: Path, tile: str, bands: Sequence[str]) -> Catalog:
    section = settings.input.ngmix_catalog
    assert section is not None  # checked when the settings were read
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
    indices = {band: _band_index(band, "ngmix catalogues") for band in bands}
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
    sane = (
        np.isfinite(np.array([*shape.values(), *fluxes.values()])).all(axis=0)
        & (shape["T"] > 0)
        & (np.hypot(shape["g1"], shape["g2"]) < 0.99)
        & (shape["fracdev"] >= 0)
        & (shape["fracdev"] <= 1)
        & (shape["TdByTe"] > 0)
        & np.all([values > 0 for values in fluxes.values()], axis=0)
    )
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
    )


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


def _stars(settings: Injection, base: Path, tile: str, bands: Sequence[str]) -> Catalog:
    section = settings.input.des_star_catalog
    assert isinstance(section, DesStarCatalog)  # checked when the settings were read
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
        _band_index(band, "star catalogues")
    sane = np.all([np.isfinite(mags[band]) for band in bands], axis=0) & np.ones(len(rows), dtype=bool)
    used = np.flatnonzero(sane)
    log.info("stars: %d of %d rows of %s used, %d without magnitudes", len(used), len(rows), file.name, np.sum(~sane))
    nothing = np.zeros(len(used))
    return Catalog(
        "desStar",
        "star",
        file,
        used,
        dict.fromkeys(SHAPE_COLUMNS, nothing),
        {band: 10.0 ** (0.4 * (ZERO_POINT - mags[band][used])) for band in bands},
    )


_LOADERS: dict[str, Callable[[Injection, Path, str, Sequence[str]], Catalog]] = {
    "ngmixGalaxy": _ngmix,
    "desStar": _stars,
}
