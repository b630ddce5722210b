"""What the blocks of fits share: a run of chunks over the MEDS files of a tile, base run or realization."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.graph import Job
from balrogutils.measurement.catalogue import Rows
from balrogutils.measurement.chunks import Chunk, Run, collate, partition, run_chunks
from balrogutils.measurement.medsource import MedsSource
from balrogutils.measurement.objectfitter import ObjectRun
from balrogutils.peers.installed import engine_versions
from balrogutils.products import Step
from balrogutils.settings.corrected import CorrectedRun
from balrogutils.settings.fits import FitRun

__all__ = ["Work", "fit_catalogue", "meds_files", "model_catalogue", "neighbour_models", "one_by_one"]

_log = logging.getLogger(__name__)


class Work(NamedTuple):
    """A run and how many units (objects, or groups of them) it has to share out; the numbers of the objects in the
    order of the catalogue, where units are not in that order; what is made of the catalogue in the same step; a
    catalogue of models that the values depend on."""

    run: Run
    units: int
    number: NDArray[Any] | None = None
    finish: Callable[[Rows], list[Path]] | None = None
    models: Path | None = None


def meds_files(context: Context, bands: Sequence[str]) -> dict[str, Path]:
    """Return the MEDS file of each band.

    Raises
    ------
    ProductError
        When one is not there.
    """
    files = {band: context.tree.meds(band) for band in bands}
    for band, file in files.items():
        if not file.is_file():
            raise ProductError(
                "a MEDS file is not there",
                tile=context.tile,
                band=band,
                file=file,
                remedy="run block 32 first" if context.realization is not None else "run block 4 first",
            )
    return files


def neighbour_models(context: Context, step: Step, settings: CorrectedRun) -> Path | None:
    """Return the catalogue of `model_catalogue`, which the step reads."""
    models = model_catalogue(context, settings)
    if models is not None:
        step.read(models)
    return models


def model_catalogue(context: Context, settings: CorrectedRun) -> Path | None:
    """Return the catalogue of models of all objects; None where the run wants none.

    Raises
    ------
    ProductError
        When it is not there.
    """
    if settings.correct_meds.mof_run is None:
        return None
    models = Job("mof", context)
    if not models.product.is_file():
        raise ProductError(
            "the models of neighbours are not there",
            tile=context.tile,
            file=models.product,
            remedy=f"run block {models.bit} first",
        )
    return models.product


def one_by_one(run: ObjectRun, models: Path | None = None) -> Work:
    """Return the work of a run that takes each object of the MEDS files by itself, with the models it depends on."""
    with MedsSource(run.meds) as source:
        return Work(run, source.size, models=models)


def fit_catalogue(
    context: Context,
    kind: str,
    settings: FitRun,
    work: Callable[[Step, Mapping[str, Path]], Work],
    workers: int,
) -> None:
    """Fit every object of the tile's MEDS files, all bands together.

    Parameters
    ----------
    context : Context
        Tile, base run or realization.
    kind : str
        Name of the fit, as ``sof``.
    settings : FitRun
        The configuration, from ``context.fit_file(kind)``.
    work : callable
        Given the step, whose manifest it may add inputs and outputs to, and the MEDS file of each band, returns what
        is to be done.
    workers : int
        Processes. Changes no value and no product.

    Raises
    ------
    ConfigError
        The configuration wants a band that the tile does not have, or an engine that cannot be used.
    ProductError
        A MEDS file is missing or damaged, or the bands hold different objects.
    FitError
        A fitting process died; what is finished is reused by the next run.
    """
    job, tree = Job(kind, context), context.tree
    versions = engine_versions(settings.engine, context.fit_file(kind))
    bands = settings.bands(context.bands)
    meds = meds_files(context, bands)
    config = {kind: settings.model_dump(mode="json"), "bands": list(bands), **versions}
    seeds = {"global_seed": settings.global_seed}
    with job.open(config, seeds) as step:
        step.read(context.fit_file(kind), *meds.values())
        for name, version in versions.items():
            step.used(name, version)
        inputs = {band: step.digest(file) for band, file in meds.items()} | versions
        run, units, number, finish, models = work(step, meds)
        if models is not None:
            inputs["models"] = step.digest(models)
        if units == 0:
            raise ProductError("the MEDS files hold no object", tile=context.tile, file=next(iter(meds.values())))
        chunks = [
            Chunk(
                first=first,
                last=last,
                product=tree.fit_chunk(kind, first, last),
                manifest=tree.manifest(f"{kind}-chunk{first:06d}-{last:06d}"),
                run=run,
                about=context.about(),
                inputs=inputs,
            )
            for first, last in partition(units, settings.jobs.chunksize)
        ]
        done = run_chunks(chunks, workers)
        step.extra["compile_seconds"] = done.compile_seconds
        rows = collate(chunks, job.product, number)
        made = [] if finish is None else finish(rows)
        step.wrote(job.product, *(chunk.product for chunk in chunks), *made)
        good = int(np.count_nonzero(rows["flags"] == 0))
        step.count(objects=len(rows), good=good, flagged=len(rows) - good)
        step.count(chunks=len(chunks), chunks_reused=done.reused)
        _log.info("%s: %d objects in %s fit, %d flagged", context.tile, len(rows), "".join(bands), len(rows) - good)
