"""Blocks 4 and 32: the MEDS file of one band."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np

from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.graph import Job
from balrogutils.meds.tile import plan_meds, read_catalog, single_epoch_sources, source_of_coadd
from balrogutils.meds.writer import Packing, write_meds
from balrogutils.scratch import scratch

__all__ = ["meds"]

_log = logging.getLogger(__name__)


def meds(context: Context, band: str, keep_plain: str | os.PathLike[str] | None = None) -> None:
    """Cut every object of a band's catalogue out of the coadd and of every exposure that holds its centre.

    Parameters
    ----------
    context : Context
        Tile, base run or realization.
    band : str
        Band.
    keep_plain : path-like, optional
        Keep the uncompressed file under this name too.

    Raises
    ------
    ConfigError
        A band the MEDS configuration does not have.
    ProductError
        A missing or damaged product of the prep or coadd block, lists that disagree, objects that cannot be placed.
    """
    settings, tree = context.desmeds, context.tree
    settings.check_band(band, context.tile)
    config = settings.model_dump(mode="json")
    with Job("meds", context, band).open(config) as step:
        lists = [tree.flist(kind, band) for kind in ("nullwt", "seg", "bkg")]
        lists.append(tree.psfmap(band))
        for path in (tree.image(band), tree.segmap(band), tree.catalog(band), tree.objmap(band), *lists):
            if not path.is_file():
                bit = "prep block (mode 1)" if path in lists else "coadd block (mode 2, or 16 for a realization)"
                raise ProductError(
                    "a product is not there", tile=context.tile, band=band, file=path, remedy=f"run the {bit}"
                )
        step.read(context.desmeds_file, tree.catalog(band), tree.objmap(band), *lists)
        epochs, coadd_psf = single_epoch_sources(tree, band, settings)
        sources = [source_of_coadd(tree, band, settings, coadd_psf), *epochs]
        step.read(*(file.path for source in sources for file in source.files.values()))
        step.read(*(Path(source.psf) for source in sources if source.psf is not None))
        catalog = read_catalog(tree.catalog(band), tree.objmap(band))
        about = {
            "magzp_ref": settings.magzp_ref,
            "DESDATA": str(context.site.desdata),
            "medsconf": settings.medsconf,
            "config": json.dumps(config),
            "band": band,
            "tilename": context.tile,
        }
        plan = plan_meds(catalog, sources, settings, about)
        packing = Packing(("meds", context.tile, context.realization or "base", band), settings.fpack_pars)
        with scratch(context.site.tmp, f"{context.tile}_{context.realization or 'base'}_{band}_meds") as directory:
            write_meds(
                *(tree.meds(band), plan.tables, plan.layout, sources, packing),
                dtypes={kind: settings.dtype(kind) for kind in settings.cutout_types},
                scratch=directory,
                keep_plain=keep_plain,
                label=f"{context.tile} {band}: cutting",
                timeout=context.pipeline.tool_timeout,
            )
        step.wrote(tree.meds(band))
        ncutout = plan.layout.ncutout
        step.count(
            objects=len(ncutout),
            cutouts=int(ncutout.sum()),
            images=len(sources),
            largest_ncutout=int(ncutout.max(initial=0)),
            without_exposure=int(np.count_nonzero(ncutout <= 1)),
            outside_coadd=plan.outside,
            unusable_pixels=sum(source.unusable_pixels for source in sources),
            weightless_images=sum(source.weightless for source in sources),
        )
        _log.info(
            "%s %s: %d cut-outs of %d objects from %d images, %d objects are on no exposure",
            context.tile,
            band,
            ncutout.sum(),
            len(ncutout),
            len(sources),
            np.count_nonzero(ncutout <= 1),
        )
