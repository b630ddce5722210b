"""What killed jobs leave behind: unfinished files and scratch directories."""

from __future__ import annotations

import logging
from pathlib import Path

from balrogutils.context import Context
from balrogutils.layout import TileTree
from balrogutils.products import PART_PREFIX
from balrogutils.scratch import remove_abandoned

__all__ = ["remove_leftovers", "trees", "unfinished"]

_log = logging.getLogger(__name__)


def trees(context: Context) -> list[TileTree]:
    """Return the trees of a tile on disk: the base run's, then every realization's, in the order of their numbers."""
    site, tile = context.site, context.tile
    found = {
        path.parents[1].name for path in site.root().glob(f"balrog_images/*/{site.medsconf}/{tile}") if path.is_dir()
    }
    names = sorted((name for name in found if name.isdecimal()), key=int)
    return [site.tree(tile), *(site.tree(tile, name) for name in names)]


def unfinished(context: Context) -> list[Path]:
    """Return the unfinished files of a tile, base run, realizations and fits."""
    found: set[Path] = set()
    for tree in trees(context):
        found.update(tree.dir.rglob(f"{PART_PREFIX}*"))
        # Fits of all tiles share a directory: there the name tells.
        for run in tree.fits_root.glob(f"{tree.medsconf}-*"):
            found.update((run / tree.tile).rglob(f"{PART_PREFIX}*"))
            found.update((run / "output").glob(f"{PART_PREFIX}*-{tree.tile}[-_]*"))
    return sorted(path for path in found if path.is_file())


def remove_leftovers(context: Context) -> int:
    """Remove what killed jobs of a tile left; the caller holds the tile's lock, so that no job is alive.

    Returns
    -------
    int
        Files and directories removed.
    """
    files = unfinished(context)
    for path in files:
        path.unlink(missing_ok=True)
    directories = remove_abandoned(context.site.tmp, context.tile)
    count = len(files) + len(directories)
    if count:
        _log.info("%s: removed %d unfinished files and directories of a run that was killed", context.tile, count)
    return count
