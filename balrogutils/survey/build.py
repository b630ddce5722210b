"""Build the embedded archive of the synthetic survey, whole or not at all."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from balrogutils.errors import ArchiveError, ToolError
from balrogutils.fitsfile import Table, write_tables
from balrogutils.products import writing_text
from balrogutils.progress import track
from balrogutils.runlock import die_with_parent
from balrogutils.survey.ccd import ChipReport, make_chip
from balrogutils.survey.coadds import TileReport, make_band_coadd, make_catalogs
from balrogutils.survey.database import write_database
from balrogutils.survey.parameters import SurveyParameters
from balrogutils.survey.sky import UNITS, draw_sky
from balrogutils.survey.telescope import chips, geometry_of
from balrogutils.tools import TIMEOUT, version

__all__ = ["ARCHIVE", "DATABASE", "REPORT", "TRUTH", "build_archive"]

DATABASE = "archive.db"
"""SQLite database, below the archive's directory."""

ARCHIVE = "desarchive"
"""Root of the file tree, below the archive's directory."""

TRUTH = "truth/truth.fits"
"""Truth catalogue, below the archive's directory."""

REPORT = "survey.json"
"""Parameters the archive was built from and what came of it; written last."""

T = TypeVar("T")
_log = logging.getLogger(__name__)
# Asked for their versions before anything is drawn.
_TOOLS = ("sextractor", "swarp", "psfex", "fpack")
# One thread each in the workers: numerical libraries would otherwise start as many as there are cores.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def build_archive(
    parameters: SurveyParameters, directory: Path, workers: int | None = None, timeout: float = TIMEOUT
) -> None:
    """Draw the synthetic survey and write it as an archive.

    Parameters
    ----------
    parameters : SurveyParameters
        The survey.
    directory : pathlib.Path
        Gets ``archive.db``, ``desarchive/OPS/...``, ``truth/truth.fits`` and ``survey.json``. A complete archive of the
        same parameters is left alone.
    workers : int, optional
        Processes; all cores when not given.
    timeout : float
        Seconds after which a program counts as hanging.

    Raises
    ------
    ArchiveError
        When the directory holds something else, or an archive of other parameters.
    ToolError
        When an external program fails, or a CCD gives too few PSF stars.
    """
    directory = Path(directory).absolute()
    if _is_complete(directory, parameters):
        _log.info("The archive in %s is complete: nothing to do.", directory)
        return
    for tool in _TOOLS:
        version(tool)
    workers = workers or os.cpu_count() or 1
    started = time.monotonic()
    directory.parent.mkdir(parents=True, exist_ok=True)
    _sweep(directory)
    room = directory.with_name(f".part-{os.getpid()}-{secrets.token_hex(4)}-{directory.name}")
    room.mkdir()
    try:
        report = _build(parameters, room, workers, timeout)
        text = json.dumps({"parameters": parameters.model_dump(mode="json"), **report}, indent=1) + "\n"
        writing_text(room / REPORT, text)
        room.rename(directory)
    except ToolError as error:
        # The log goes with the unfinished archive; its end is in the error.
        log = Path(error.where.get("file", ""))
        if log.is_relative_to(room):
            error.where = {}
            error.locate(chip=log.name.split(".")[0], file=directory)
        raise
    finally:
        shutil.rmtree(room, ignore_errors=True)
    _log.info("Built the archive in %s in %.0f s: %s.", directory, time.monotonic() - started, report["summary"])


def _is_complete(directory: Path, parameters: SurveyParameters) -> bool:
    if not directory.exists():
        return False
    remedy = f"remove {directory} to have it built anew"
    try:
        found = json.loads((directory / REPORT).read_text(encoding="utf-8"))["parameters"]
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ArchiveError("this is not an archive of the synthetic survey", file=directory, remedy=remedy) from error
    if found != parameters.model_dump(mode="json"):
        raise ArchiveError("the archive was built from other survey parameters", file=directory, remedy=remedy)
    missing = [name for name in (DATABASE, ARCHIVE, TRUTH) if not (directory / name).exists()]
    if missing:
        raise ArchiveError(f"the archive lacks {', '.join(missing)}", file=directory, remedy=remedy)
    return True


def _sweep(directory: Path) -> None:
    """Remove what killed builds have left."""
    for stale in directory.parent.glob(f".part-*-{directory.name}"):
        owner = stale.name.split("-")[1]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _log.info("Removing the unfinished archive %s.", stale)
            shutil.rmtree(stale, ignore_errors=True)


def _build(parameters: SurveyParameters, room: Path, workers: int, timeout: float) -> dict[str, Any]:
    root, scratch = room / ARCHIVE, room / "scratch"
    root.mkdir()
    scratch.mkdir()
    ccds = chips(parameters)
    sky = draw_sky(parameters, ccds)
    write_tables(room / TRUTH, [Table("TRUTH", sky, UNITS)])
    _log.info("Drawing %d stars and galaxies on %d CCDs with %d processes.", len(sky), len(ccds), workers)
    tiles = [geometry_of(tile, parameters) for tile in parameters.tiles]
    with _pool(workers) as run:
        chip_reports: list[ChipReport] = run(
            make_chip, [(chip, sky, parameters, root, scratch, timeout) for chip in ccds], "CCDs", "CCD"
        )
        jobs = [(tile, band, ccds, parameters, root, scratch, timeout) for tile in tiles for band in parameters.bands]
        coadd_reports: list[TileReport] = run(make_band_coadd, jobs, "archive coadds", "coadd")
        catalogs: list[TileReport] = run(
            make_catalogs,
            [(tile, parameters, root, scratch, timeout) for tile in tiles],
            "archive catalogues",
            "tile",
        )
    shutil.rmtree(scratch)
    written = [report.files for report in chip_reports] + [report.files for report in (*coadd_reports, *catalogs)]
    files = [name for names in written for name in names]
    write_database(room / DATABASE, root, ccds, files, parameters)
    detections = {tile.tilename: report.detections for tile, report in zip(tiles, catalogs, strict=True)}
    stars = [report.stars for report in chip_reports]
    counts = ", ".join(f"{count} detections in {name}" for name, count in detections.items())
    return {
        "summary": f"{len(ccds)} CCDs, {len(files)} files, {counts}, {min(stars)} to {max(stars)} PSF stars a CCD",
        "ccds": len(ccds),
        "files": len(files),
        "sources": len(sky),
        "detections": detections,
        "psf_stars": {report.name: report.stars for report in chip_reports},
    }


@contextmanager
def _pool(workers: int) -> Iterator[Callable[[Callable[..., T], Sequence[tuple[Any, ...]], str, str], list[T]]]:
    """Hand out a function that runs a job on many argument tuples and returns the results in order."""
    if workers == 1:
        yield lambda job, arguments, label, unit: [job(*each) for each in track(arguments, label, unit=unit)]
        return
    kept = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    # Fresh interpreters: a fork would copy whatever threads and locks the caller has.
    executor = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=die_with_parent,
        initargs=(os.getpid(),),
    )

    def run(job: Callable[..., T], arguments: Sequence[tuple[Any, ...]], label: str, unit: str) -> list[T]:
        futures = {executor.submit(job, *each): index for index, each in enumerate(arguments)}
        results: dict[int, T] = {}
        for future in track(as_completed(futures), label, total=len(futures), unit=unit):
            results[futures[future]] = future.result()
        return [results[index] for index in range(len(arguments))]

    try:
        yield run
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
