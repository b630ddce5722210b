"""Galaxies of the COSMOS samples of GalSim."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from balrogutils.errors import InputError
from balrogutils.injection.catalogs import Catalog, sane_rows
from balrogutils.injection.sources.columns import Columns
from balrogutils.injection.spectra import mean_wavelength, passband, through
from balrogutils.settings.sources import CosmosCatalog

if TYPE_CHECKING:
    import galsim

__all__ = ["light_in", "open_catalog", "read"]

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
    shape = {"cosmos_index": np.arange(len(catalog), dtype=float), "g1": np.zeros(len(catalog))}
    if section.chromatic:
        flux, wavelengths = _seen(section, catalog, base, bands)
        shape |= wavelengths
    else:
        flat = next((name for name in ("mag_auto", "MAG") if any(name in one for one in tables)), "MAG")
        flux = {band: 10.0 ** (0.4 * (30.0 - column(columns.get(band, flat)))) for band in bands}
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


def light_in(catalog: galsim.COSMOSCatalog, index: int, section: CosmosCatalog) -> galsim.ChromaticObject:
    """Return a galaxy of the fits with the spectra that GalSim gives its bulge and disk, AB magnitudes right.

    Notes
    -----
    GalSim's spectra have the magnitude of the catalogue through F814W with the zero point of the HST images; here it is
    the AB magnitude, as the catalogue means it.
    """
    whole = catalog.makeGalaxy(index, gal_type="parametric", sersic_prec=section.n_step, chromatic=True)
    hst = catalog.getBandpass()
    return whole * float(10.0 ** (0.4 * (hst.withZeropoint("AB").zeropoint - hst.zeropoint)))


def _seen(
    section: CosmosCatalog, catalog: galsim.COSMOSCatalog, base: Path, bands: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return fluxes (zero point 30) and mean wavelengths (nm) of every galaxy; NaN where its spectrum ends."""
    import galsim

    assert section.bandpass is not None  # checked when the settings were read
    passes = {band: passband(section.bandpass, base, band) for band in bands}
    flux, wavelength = ({band: np.full(len(catalog), np.nan) for band in bands} for _ in range(2))
    for index in range(len(catalog)):
        whole = light_in(catalog, index, section)
        for band, one in passes.items():
            try:
                flux[band][index] = through(whole, one).flux
                wavelength[band][index] = mean_wavelength(whole.sed, one)
            except galsim.GalSimError:
                continue
    return flux, {f"wavelength_{band}": values for band, values in wavelength.items()}
