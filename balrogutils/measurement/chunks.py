"""Fits of a whole catalogue in chunks over processes; a finished chunk is a checkpoint."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from balrogutils import __version__
from balrogutils.compiled import compiling
from balrogutils.errors import FitError, ProductError
from balrogutils.fitsfile import Table, read_table, table_names, write_tables
from balrogutils.measurement.catalogue import MAGZP, Rows, epoch_units, model_units, with_band_axis
from balrogutils.products import Step, read_manifest, sha256
from balrogutils.progress import track
from balrogutils.runlock import die_with_parent
from balrogutils.settings.fits import FitRun

__all__ = ["Chunk", "Done", "Run", "collate", "is_done", "partition", "run_chunk", "run_chunks"]

_log = logging.getLogger(__name__)

# Seconds of compiling from which on a process is said to have compiled its kernels, and not a part of them.
_COMPILED = 1.0


class Run(Protocol):
    """Fits of one kind of the objects of one tile, which processes share in chunks of consecutive units.

    A unit is an object, or a group of them; what a unit gives depends on nothing but itself and the settings.
    """

    @property
    def kind(self) -> str:
        """Name of the step."""
        ...

    @property
    def settings(self) -> FitRun:
        """The run file."""
        ...

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands, in order."""
        ...

    def fit(self, first: int, last: int) -> dict[str, Rows]:
        """Return the rows of each table of units `first` to `last`, both included, ``model_fits`` first."""
        ...

    def rows(self, first: int, last: int) -> int:
        """Return how many rows of ``model_fits`` these units have."""
        ...


@dataclass(frozen=True)
class Chunk:
    """Units `first` to `last` (both included) of one fit run, and everything a process needs to fit them.

    `inputs` names what the values depend on (digests of the files read); a chunk made of other inputs is not reused.
    """

    first: int
    last: int
    product: Path
    manifest: Path
    run: Run
    about: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def config(self) -> dict[str, Any]:
        """What the chunk's manifest keeps, and is compared with."""
        settings = self.run.settings.model_dump(mode="json")
        # How the objects are shared out changes no value.
        settings.pop("jobs")
        return {
            self.run.kind: settings,
            "bands": list(self.run.bands),
            "inputs": dict(self.inputs),
            "rows": [self.first, self.last],
        }


class Done(NamedTuple):
    """What became of chunks: how many were there already; CPU seconds of each that had to compile its kernels."""

    reused: int
    compile_seconds: tuple[float, ...]


def partition(count: int, size: int) -> list[tuple[int, int]]:
    """Return the first and last row of each chunk of at most `size` of `count` objects."""
    return [(first, min(first + size, count) - 1) for first in range(0, count, size)]


def is_done(chunk: Chunk) -> bool:
    """Whether the chunk's product is whole and was made from these inputs, settings and this version."""
    if not (chunk.manifest.is_file() and chunk.product.is_file()):
        return False
    try:
        made = read_manifest(chunk.manifest)
    except ProductError:
        return False
    text = json.dumps(chunk.config, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    outputs = {entry["path"]: entry["sha256"] for entry in made["outputs"]}
    return (
        made.get("config_sha256") == digest
        and made.get("version") == __version__
        and outputs.get(str(chunk.product)) == sha256(chunk.product)
    )


def _meta(chunk: Chunk) -> Rows:
    settings = chunk.run.settings
    text = json.dumps(chunk.config[chunk.run.kind], sort_keys=True)
    values = {
        "run": settings.run,
        "bands": ",".join(chunk.run.bands),
        "model": settings.model,
        "psf_model": settings.psf_pars.model,
        "version": __version__,
        "config": text,
    }
    # fitsio has no zero-length strings.
    dtype: list[tuple[str, str]] = [(name, f"S{max(len(value), 1)}") for name, value in values.items()]
    rows = np.zeros(1, dtype=[*dtype, ("global_seed", "i8"), ("magzp_ref", "f8")])
    for name, value in values.items():
        rows[name] = value.encode()
    rows["global_seed"], rows["magzp_ref"] = settings.global_seed, MAGZP
    return rows


def _tables(rows: Mapping[str, Rows], meta: Rows) -> list[Table]:
    units = {"model_fits": model_units(rows["model_fits"]), "epoch_data": epoch_units()}
    return [*(Table(name, one, units.get(name)) for name, one in rows.items()), Table("meta_data", meta)]


def run_chunk(chunk: Chunk) -> tuple[int, int, float]:
    """Fit one chunk and write its product and manifest.

    Returns
    -------
    (int, int, float)
        Objects, how many of them are flagged, and the CPU seconds that went into compiling kernels.
    """
    seeds = {"global_seed": chunk.run.settings.global_seed}
    with Step(chunk.manifest, f"{chunk.run.kind} chunk", about=chunk.about, config=chunk.config, seeds=seeds) as step:
        with compiling() as watch:
            rows = chunk.run.fit(chunk.first, chunk.last)
        step.extra["compile_seconds"] = watch.seconds
        model = rows["model_fits"]
        write_tables(chunk.product, _tables(rows, _meta(chunk)))
        step.wrote(chunk.product)
        flagged = int(np.count_nonzero(model["flags"]))
        step.count(objects=len(model), flagged=flagged)
    return len(model), flagged, watch.seconds


def run_chunks(chunks: Sequence[Chunk], workers: int) -> Done:
    """Fit every chunk that is not done already.

    Parameters
    ----------
    chunks : sequence of Chunk
        All chunks of the run.
    workers : int
        Processes; 1 fits in this one. Changes no value.

    Returns
    -------
    Done
        How many chunks were reused, and what compiling took.

    Raises
    ------
    BalrogError
        From any chunk; the chunks that finished stay and are reused next time.
    FitError
        When a process died.
    """
    todo = [chunk for chunk in chunks if not is_done(chunk)]
    reused = len(chunks) - len(todo)
    if reused:
        _log.info("%d of %d chunks are already there", reused, len(chunks))
    objects = flagged = 0
    compiled = []
    for count, bad, seconds in track(_results(todo, workers), "fitting chunks", total=len(todo), unit="chunk"):
        objects, flagged = objects + count, flagged + bad
        compiled += [seconds] if seconds > _COMPILED else []
    _log.info("fitted %d objects, %d flagged", objects, flagged)
    return Done(reused, tuple(compiled))


def _results(chunks: Sequence[Chunk], workers: int) -> Iterator[tuple[int, int, float]]:
    if workers <= 1 or len(chunks) <= 1:
        yield from map(run_chunk, chunks)
        return
    # spawn: a forked child of a process with threads can hang.
    count = min(workers, len(chunks))
    with ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=die_with_parent, initargs=(os.getpid(),)
    ) as pool:
        futures: list[Future[tuple[int, int, float]]] = []
        try:
            # A process can die before the last chunk is handed out, too.
            futures.extend(pool.submit(run_chunk, chunk) for chunk in chunks)
            for future in as_completed(futures):
                yield future.result()
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            # Told to end, here or where the results go: a chunk can take minutes.
            for process in active_children():
                process.kill()
            raise
        except BrokenProcessPool as error:
            raise FitError(
                "a fitting process died",
                tile=str(chunks[0].about.get("tile")),
                remedy="check memory; run again to go on",
            ) from error
        finally:
            for future in futures:
                future.cancel()


def _read(product: Path) -> dict[str, Rows]:
    return {name: read_table(product, name) for name in table_names(product) if name != "meta_data"}


def collate(chunks: Sequence[Chunk], path: Path, number: NDArray[Any] | None = None) -> Rows:
    """Put the chunks together, in order, and write the catalogue.

    Parameters
    ----------
    chunks : sequence of Chunk
        All chunks, in order; at least one.
    path : Path
        Final name of the catalogue: the tables of the chunks, ``model_fits`` in the order of `number`, and
        ``meta_data``.
    number : ndarray of int, optional
        Numbers of the objects in the order of the MEDS files; the order of the chunks when not given.

    Returns
    -------
    ndarray
        The rows of ``model_fits``.

    Raises
    ------
    ProductError
        When a chunk has other rows than it should.
    """
    parts: dict[str, list[Rows]] = {}
    for chunk in chunks:
        rows = _read(chunk.product)
        rows["model_fits"] = with_band_axis(rows["model_fits"], len(chunk.run.bands))
        wanted = chunk.run.rows(chunk.first, chunk.last)
        if len(rows["model_fits"]) != wanted:
            raise ProductError(
                f"a chunk has {len(rows['model_fits'])} rows and not {wanted}",
                file=chunk.product,
                remedy=f"remove it and run {chunk.run.kind} again",
            )
        for name, one in rows.items():
            parts.setdefault(name, []).append(one)
    tables = {name: np.concatenate(some) for name, some in parts.items()}
    if number is not None:
        place = {int(label): index for index, label in enumerate(number)}
        for name, one in tables.items():
            tables[name] = one[np.argsort([place[int(label)] for label in one["number"]], kind="stable")]
    write_tables(path, _tables(tables, _meta(chunks[0])))
    return tables["model_fits"]
