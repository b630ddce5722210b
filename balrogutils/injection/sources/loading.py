"""The catalogue of one kind of object, whatever its source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from balrogutils.archive.geometry import Geometry
from balrogutils.errors import InputError
from balrogutils.injection.catalogs import Catalog
from balrogutils.injection.placing import object_count
from balrogutils.injection.sources import cosmos, desstars, ngmix, tables
from balrogutils.settings.injection import Injection
from balrogutils.settings.sources import INJ_TYPES, RULES_TYPE, MedsCatalog

__all__ = ["READERS", "load", "load_all"]


def _read_meds(section: MedsCatalog, base: Path, tile: str, bands: Sequence[str]) -> Catalog:
    # The kernels of MEDS files take a second to import: only who has such objects waits for them.
    from balrogutils.injection.sources import meds

    return meds.read(section, base, tile, bands)


READERS: dict[str, Callable[[Any, Path, str, Sequence[str]], Catalog]] = {
    "ngmixGalaxy": ngmix.read,
    "desStar": desstars.read,
    "tableGalaxy": tables.read_galaxies,
    "tableStar": tables.read_stars,
    "COSMOSGalaxy": cosmos.read,
    "MEDSGalaxy": _read_meds,
}


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
    return _usable(READERS[inj_type](settings.section(INJ_TYPES[inj_type]), base, tile, bands), tile)


def load_all(
    settings: Injection, geometry: Geometry, base: Path, bands: Sequence[str], seed: int, realization: str
) -> dict[str, Catalog]:
    """Read the catalogues of all types of objects, and have a rules file draw its own.

    Parameters
    ----------
    settings : Injection
        The injection configuration.
    geometry : Geometry
        The tile.
    base : pathlib.Path
        As in `load`.
    bands : sequence of str
        Bands to have fluxes in.
    seed : int
        Seed of the run.
    realization : str
        The realization; rules draw anew in each.

    Returns
    -------
    dict of str to Catalog
        By type.

    Raises
    ------
    InputError, ConfigError
        As `load`, and when a rules file is wrong.
    """
    tile, found = geometry.tilename, {}
    for inj_type in (item.type for item in settings.gal.items if not item.native):
        if inj_type != RULES_TYPE:
            found[inj_type] = load(inj_type, settings, base, tile, bands)
            continue
        from balrogutils.injection.sources import rules

        name = INJ_TYPES[RULES_TYPE]
        count = object_count(settings, name, inj_type, geometry)
        twin = settings.twin(realization)
        one = rules.read(settings.section(name), geometry, base, bands, count, seed, twin)
        found[inj_type] = _usable(one, tile)
    return found


def _usable(catalog: Catalog, tile: str) -> Catalog:
    """Return a catalogue that objects can be drawn from."""
    inj_type = catalog.inj_type
    if not len(catalog):
        raise InputError(
            f"no {inj_type} is left after the cuts",
            tile=tile,
            file=catalog.file,
            key="input",
            remedy="widen the cuts of the configuration",
        )
    if catalog.weight is not None and not catalog.weight.sum() > 0:
        raise InputError(
            f"the weights of {inj_type} sum to nothing",
            tile=tile,
            file=catalog.file,
            key=f"input.{INJ_TYPES[inj_type]}.weight",
            remedy="name a column with weights above 0",
        )
    return catalog
