"""Block 64: single-object fits of a tile, base run or realization."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.graph import Job
from balrogutils.measurement.chunks import Chunk, collate, partition, run_chunks
from balrogutils.measurement.medsource import MedsSource
from balrogutils.measurement.sof import SofRun
from balrogutils.settings.sof import Sof

__all__ = ["sof"]

KIND = "sof"
_log = logging.getLogger(__name__)


def _settings(context: Context) -> tuple[Path, Sof]:
    return context.sof_file, Sof.load(context.sof_file, context.campaign)


def sof(context: Context, workers: int) -> None:
    """Fit every object of the tile's MEDS files, all bands together.

    Parameters
    ----------
    context : Context
        Tile, base run or realization.
    workers : int
        Processes. Changes no value and no product.

    Raises
    ------
    ConfigError
        The fit configuration is wrong, or wants a band that the tile does not have.
    ProductError
        A MEDS file is missing or damaged, or the bands hold different objects.
    FitError
        A fitting process died; what is finished is reused by the next run.
    """
    tree = context.tree
    path, settings = _settings(context)
    bands = settings.bands(context.bands)
    meds = {band: tree.meds(band) for band in bands}
    for band, file in meds.items():
        if not file.is_file():
            raise ProductError(
                "a MEDS file is not there",
                tile=context.tile,
                band=band,
                file=file,
                remedy="run block 32 first" if context.realization is not None else "run block 4 first",
            )
    config = {"sof": settings.model_dump(mode="json"), "bands": list(bands)}
    seeds = {"global_seed": settings.global_seed}
    with Job(KIND, context).open(config, seeds) as step:
        step.read(path, *meds.values())
        inputs = {band: step.digest(file) for band, file in meds.items()}
        run = SofRun(settings, meds)
        with MedsSource(meds) as source:
            count = source.size
        if count == 0:
            raise ProductError("the MEDS files hold no object", tile=context.tile, file=next(iter(meds.values())))
        chunks = [
            Chunk(
                first=first,
                last=last,
                product=tree.fit_chunk(KIND, first, last),
                manifest=tree.manifest(f"{KIND}-chunk{first:06d}-{last:06d}"),
                run=run,
                about=context.about(),
                inputs=inputs,
            )
            for first, last in partition(count, settings.jobs.chunksize)
        ]
        reused = run_chunks(chunks, workers)
        rows = collate(chunks, tree.fit(KIND))
        step.wrote(tree.fit(KIND), *(chunk.product for chunk in chunks))
        good = int(np.count_nonzero(rows["flags"] == 0))
        step.count(objects=len(rows), good=good, flagged=len(rows) - good, chunks=len(chunks), chunks_reused=reused)
        _log.info("%s: %d objects in %s fit, %d flagged", context.tile, good, "".join(bands), len(rows) - good)
