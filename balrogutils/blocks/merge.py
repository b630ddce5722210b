"""Merging: the catalogues of block 1024 of many tiles, realizations and runs as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from balrogutils.context import Context, Installation
from balrogutils.errors import InputError
from balrogutils.graph import Job
from balrogutils.matching import merging
from balrogutils.matching.sources import Source

__all__ = ["merge", "source_of"]


def source_of(context: Context) -> Source:
    """Return what block 1024 leaves of a tile and realization."""
    tree = context.tree
    files = {"matched": tree.match.with_suffix(".parquet"), "detection": tree.detection.with_suffix(".parquet")}
    return Source(context.tile, context.realization or "", files, Job("match", context).manifest)


def merge(
    output: Path,
    tiles: Sequence[str],
    settings: Mapping[str, Any] | None = None,
    places: Sequence[Path] = (),
    *,
    hdf5: bool = True,
) -> merging.Merged:
    """Merge the catalogues of tiles into a directory.

    Parameters
    ----------
    output : Path
        The directory.
    tiles : sequence of str
        Their names; one that is named twice counts once.
    settings : mapping, optional
        Keys over those of ``etc/pipeline.yaml``.
    places : sequence of Path
        MEDS_DATA of one or more runs; that of the environment when there is none.
    hdf5 : bool
        Make the file of metacal too.

    Raises
    ------
    InputError
        When no tile is named, a tile is unknown, a place is no directory, or tiles do not go together.
    ProductError
        When there is nothing to merge.
    """
    if not tiles:
        raise InputError("no tile is named", remedy="name tiles, or a file of them with --list")
    installation = Installation.load(settings)
    for place in places:
        if not place.is_dir():
            raise InputError("the directory of a run is not there", file=place, key="--from", remedy="name a MEDS_DATA")
    sites = [dataclasses.replace(installation.site, meds_data=place.absolute()) for place in places]
    runs = [dataclasses.replace(installation, site=site) for site in sites] or [installation]
    # A configuration of injections is read once, not for each of thousands of tiles.
    names: dict[Path | None, tuple[str, ...]] = {}
    sources = []
    for run in runs:
        for tile in dict.fromkeys(tiles):
            context = run.context(tile)
            file = None if context.pipeline.realizations is not None else context.galsim_file
            if file not in names:
                names[file] = context.realizations
            sources += [source_of(context.at(name)) for name in names[file]]
    return merging.merge(sources, output, hdf5=hdf5)
