"""Blocks 2 and 16, second part: the catalogue, segmentation and object map of one band."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from balrogutils.coadd.sextractor import Recipe, extract, write_catalog, write_object_map, write_segmap
from balrogutils.context import Context
from balrogutils.errors import InputError, ProductError
from balrogutils.graph import Job
from balrogutils.products import sha256
from balrogutils.scratch import scratch

__all__ = ["catalog"]

_log = logging.getLogger(__name__)

CONFIG, PARAMETERS, KERNEL = "Y3A2_v2_sex.config", "balrog_sex.param", "gauss_3.0_7x7.conv"


def _recipe(context: Context) -> tuple[Recipe, dict[str, Any]]:
    etc = context.site.base / "etc"
    recipe = Recipe(etc / CONFIG, etc / PARAMETERS, etc / KERNEL, zero_point=context.campaign.magzp_ref)
    files = (recipe.config, recipe.parameters, recipe.kernel)
    for file in files:
        if not file.is_file():
            raise InputError(
                "a SExtractor configuration file is not there", file=file, remedy="restore it from the repository"
            )
    settings = {file.name: sha256(file) for file in files}
    return recipe, {
        **settings,
        "zero_point": recipe.zero_point,
        "threshold": recipe.threshold,
        "contrast": recipe.contrast,
    }


def _coadd(path: Path, *, tile: str, band: str) -> Path:
    if not path.is_file():
        raise ProductError(
            "a coadd is not there", tile=tile, band=band, file=path, remedy="make it (mode 2, or 16 for a realization)"
        )
    return path


def catalog(context: Context, band: str) -> None:
    """Detect on the detection image and measure on one band's coadd.

    Parameters
    ----------
    context : Context
        Tile, base run or realization.
    band : str
        Band to measure.

    Raises
    ------
    BalrogError
        When a coadd is missing, SExtractor fails or drops detections, or nothing is detected.
    """
    tree, tile = context.tree, context.tile
    recipe, settings = _recipe(context)
    with Job("catalog", context, band).open(settings) as step:
        seen = _coadd(tree.image("det"), tile=tile, band="det")
        measured = _coadd(tree.image(band), tile=tile, band=band)
        step.read(recipe.config, recipe.parameters, recipe.kernel, seen, measured)
        with scratch(context.site.tmp, f"{tile}_{context.realization or 'base'}_{band}_catalog") as directory:
            found = extract(
                *(seen, measured, directory, recipe),
                log=tree.tool_log("sextractor", band),
                tile=tile,
                band=band,
                timeout=context.pipeline.tool_timeout,
            )
            cards = {"TILENAME": tile, "BAND": band, "MAGZERO": recipe.zero_point}
            write_catalog(tree.catalog(band), found, cards)
            # The same detection in every band: no card that would tell the bands' segmentations apart.
            write_segmap(tree.segmap(band), found, seen)
            write_object_map(tree.objmap(band), tile, context.realization, found.rows["NUMBER"])
        step.wrote(tree.catalog(band), tree.segmap(band), tree.objmap(band))
        flagged = int(np.count_nonzero(found.rows["FLAGS"]))
        step.count(detections=len(found.rows), sextractor_flags=flagged)
        _log.info("%s %s: catalogued %d detections, %d with SExtractor flags", tile, band, len(found.rows), flagged)
