"""The catalogue of one kind of object, whatever its source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from balrogutils.errors import InputError
from balrogutils.injection.catalogs import Catalog
from balrogutils.injection.sources import cosmos, desstars, meds, ngmix, tables
from balrogutils.settings.injection import Injection
from balrogutils.settings.sources import INJ_TYPES

__all__ = ["READERS", "load"]

READERS: dict[str, Callable[[Any, Path, str, Sequence[str]], Catalog]] = {
    "ngmixGalaxy": ngmix.read,
    "desStar": desstars.read,
    "tableGalaxy": tables.read_galaxies,
    "tableStar": tables.read_stars,
    "COSMOSGalaxy": cosmos.read,
    "MEDSGalaxy": meds.read,
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
    catalog = READERS[inj_type](getattr(settings.input, INJ_TYPES[inj_type]), base, tile, bands)
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
