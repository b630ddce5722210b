"""Galaxies of the COSMOS samples of GalSim."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from balrogutils.errors import InputError
from balrogutils.injection.catalogs import Catalog, sane_rows
from balrogutils.injection.sources.columns import Columns
from balrogutils.settings.sources import CosmosCatalog

if TYPE_CHECKING:
    import galsim

__all__ = ["open_catalog", "read"]

_KEY = "input.cosmos_catalog.file_name"
_PIXEL = 0.03
"""Arcsec a pixel of the images the fits were made to."""


def open_catalog(section: CosmosCatalog, base: Path, tile: str) -> galsim.COSMOSCatalog:
    """Return GalSim's catalogue.

    Raises
    ------
    InputError
        When it or a file beside it is missing or unfit.
    """
    import galsim

    file = section.path(base, tile)
    if not file.is_file():
        raise InputError("the COSMOS catalogue is not there", file=file, key=_KEY, remedy="see inputs/README.md")
    try:
        return galsim.COSMOSCatalog(str(file), use_real=section.use_real, exclusion_level=section.exclusion_level)
    except (galsim.GalSimError, OSError, KeyError) as error:
        raise InputError(
            f"GalSim cannot use the COSMOS catalogue: {error}",
            file=file,
            key=_KEY,
            remedy="put the files of the sample beside it, choose use_real or exclusion_level; see inputs/README.md",
        ) from error


def read(section: CosmosCatalog, base: Path, tile: str, bands: Sequence[str]) -> Catalog:
    """Read a COSMOS sample; galaxies without magnitudes are counted.

    Raises
    ------
    InputError
        When a file or column is missing.
    """
    catalog = open_catalog(section, base, tile)
    file = section.path(base, tile)
    original = np.array([catalog.getOrigIndex(number) for number in range(len(catalog))], dtype=np.int64)
    fits = file.with_name(f"{file.stem}_fits{file.suffix}")
    tables = [Columns(one, _KEY) for one in (fits, file) if one.is_file()]

    def column(name: str) -> Any:
        table = next((one for one in tables if name in one), tables[0])
        return table[name][original]

    columns = dict(section.mag_columns or {})
    lacking = [band for band in bands if columns and band not in columns]
    if lacking:
        raise InputError(
            f"mag_columns names no column for the bands {', '.join(lacking)}",
            file=file,
            key="input.cosmos_catalog.mag_columns",
            remedy="add them, or remove mag_columns to use F814W in every band",
        )
    flat = next((name for name in ("mag_auto", "MAG") if any(name in one for one in tables)), "MAG")
    flux = {band: 10.0 ** (0.4 * (30.0 - column(columns.get(band, flat)))) for band in bands}
    shape = {"cosmos_index": np.arange(len(catalog), dtype=float), "g1": np.zeros(len(catalog))}
    shape["g2"] = shape["g1"]
    radius = "flux_radius" if any("flux_radius" in one for one in tables) else None
    # The radius that holds half of the light of the HST image, its PSF included.
    shape["r50_arcsec"] = np.full(len(catalog), np.nan) if radius is None else _PIXEL * column(radius)
    whole = Catalog(
        "COSMOSGalaxy",
        "cosmos",
        file,
        original,
        shape,
        flux,
        column("IDENT").astype(np.int64) if any("IDENT" in one for one in tables) else None,
        weight=column(section.weight) if section.weight else None,
    )
    return whole.chosen(sane_rows({}, flux), "magnitudes that are no numbers")
