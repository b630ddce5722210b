"""Catalogues of many tiles and realizations as one: a Parquet data set of each kind, and metacal as HDF5."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InputError, ProductError
from balrogutils.matching.metacal_file import MetacalFile, needed_columns
from balrogutils.matching.sources import KINDS, Lacking, Source, Survey, kept_rows, look
from balrogutils.parquetfile import structured_rows
from balrogutils.products import Step, temporary_name, writing
from balrogutils.progress import track

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["FILE_ROWS", "GROUP_BYTES", "HDF5_NAME", "REPORT_NAME", "Merged", "merge"]

REPORT_NAME = "merge.json"
HDF5_NAME = "metacal.h5"
FILE_ROWS = 1_000_000
"""Rows of a file of a data set, at most by one group more."""
GROUP_BYTES = 128 * 2**20
"""Rows are collected until they are so many bytes, and then written together."""

_NAMES = frozenset((*KINDS, REPORT_NAME, HDF5_NAME))
_SHOWN = 20


@dataclass(frozen=True)
class Merged:
    """What was merged.

    Attributes
    ----------
    out : Path
        The directory.
    rows : dict of str to int
        By data set, ``metacal`` among them where the file was made.
    sources : int
        Tiles and realizations in it.
    lacking : tuple of Lacking
        Those that are not, and why.
    without_metacal : tuple of Source
        Those in it that have no metacal.
    duplicates : ndarray of int64
        Identifiers met more than once; the first row of each is kept, and no other.
    """

    out: Path
    rows: dict[str, int]
    sources: int
    lacking: tuple[Lacking, ...]
    without_metacal: tuple[Source, ...]
    duplicates: NDArray[np.int64]

    @property
    def whole(self) -> bool:
        """Whether all that was asked for is in, and nothing came twice."""
        return not self.lacking and not self.duplicates.size

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.rows.items())
        lines = [f"Merged {self.sources} of {self.sources + len(self.lacking)} realizations of tiles into {self.out}"]
        lines.append(f"Rows: {counts}")
        lines += [f"Left out: {one.source}: {one.why}" for one in self.lacking[:_SHOWN]]
        if len(self.lacking) > _SHOWN:
            lines.append(f"and {len(self.lacking) - _SHOWN} more, see {REPORT_NAME}")
        if self.without_metacal and "metacal" in self.rows:
            lines.append(f"Without metacal, so not in {HDF5_NAME}: {len(self.without_metacal)}")
        if self.duplicates.size:
            shown = " ".join(map(str, self.duplicates[:5]))
            lines.append(f"Came more than once, the first row kept: {self.duplicates.size} identifiers ({shown} ...)")
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        """Return what the report holds."""
        return {
            "rows": self.rows,
            "sources": self.sources,
            "lacking": [
                {"tile": one.source.tile, "realization": one.source.realization, "why": one.why} for one in self.lacking
            ],
            "without_metacal": [str(one) for one in self.without_metacal],
            "duplicates": self.duplicates.tolist(),
        }


class _DataSet:
    """Parquet files of one data set, written in groups of rows."""

    def __init__(self, directory: Path, schema: pa.Schema, file_rows: int, group_bytes: int) -> None:
        self._directory, self._schema = directory, schema
        self._file_rows, self._group_bytes = file_rows, group_bytes
        self._waiting: list[pa.Table] = []
        self._bytes = self._in_file = self._files = self.rows = 0
        self._open: ExitStack | None = None
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _DataSet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
            if not self._files:
                # A data set without rows has its columns all the same.
                self._start()
        if self._open is not None:
            self._open.__exit__(kind, value, trace)

    def append(self, table: pa.Table) -> None:
        """Add rows."""
        self._waiting.append(table)
        self._bytes += table.nbytes
        self.rows += table.num_rows
        if self._bytes >= self._group_bytes:
            self._flush()

    def _start(self) -> pq.ParquetWriter:
        import pyarrow.parquet as pq

        self._open = ExitStack()
        part = self._open.enter_context(writing(self._directory / f"part-{self._files:05d}.parquet"))
        self._writer = self._open.enter_context(pq.ParquetWriter(part, self._schema, compression="zstd"))
        self._files += 1
        self._in_file = 0
        return self._writer

    def _flush(self) -> None:
        import pyarrow as pa

        count = sum(table.num_rows for table in self._waiting)
        if not count:
            return
        writer = self._writer or self._start()
        writer.write_table(pa.concat_tables(self._waiting), row_group_size=count)
        self._waiting, self._bytes = [], 0
        self._in_file += count
        if self._in_file >= self._file_rows and self._open is not None:
            self._open.close()
            self._open = self._writer = None


@contextmanager
def _fresh(out: Path) -> Iterator[Path]:
    """Hand out a new directory that takes the place of `out` when the block ends without an error."""
    new = temporary_name(out)
    try:
        new.mkdir(parents=True)
        yield new
        if out.is_dir():
            old = temporary_name(out)
            out.replace(old)
            new.replace(out)
            shutil.rmtree(old)
        else:
            new.replace(out)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def merge(
    sources: Iterable[Source],
    out: str | os.PathLike[str],
    *,
    hdf5: bool = True,
    file_rows: int = FILE_ROWS,
    group_bytes: int = GROUP_BYTES,
) -> Merged:
    """Merge the catalogues of tiles and realizations.

    Parameters
    ----------
    sources : iterable of Source
        Each of them once, in the order of the rows.
    out : path-like
        Directory; one that was merged into before is replaced when the new one is whole.
    hdf5 : bool
        Make the file of metacal too, where any source has metacal.
    file_rows : int
        Rows after which a new file of a data set begins.
    group_bytes : int
        Rows are written in groups of about so many bytes: what is held in memory.

    Returns
    -------
    Merged
        ``<out>/matched`` and ``<out>/detection`` hold Parquet files, ``<out>/metacal.h5`` the layout of P 7.4,
        ``<out>/merge.json`` what was read and what was left out.

    Raises
    ------
    InputError
        When `out` holds other things, or sources do not go together.
    ProductError
        When there is nothing to merge.

    Notes
    -----
    Memory: a few times `group_bytes`, the catalogue of one source, and 25 bytes a row for the search for duplicates.
    """
    target = Path(out).absolute()
    if target.exists() and not target.is_dir():
        raise InputError("the directory to merge into is a file", file=target, remedy="give another name")
    if target.is_dir() and not {path.name for path in target.iterdir()} <= _NAMES:
        raise InputError("the directory to merge into holds other things", file=target, remedy="give another one")
    with Step(target / REPORT_NAME, "merge", config={"hdf5": hdf5, "file_rows": file_rows}) as step:
        with _fresh(target) as new:
            survey = look(track(list(sources), "looking", unit="realizations"), step)
            if not survey.sources:
                why = survey.lacking[0].why if survey.lacking else "no tile is named"
                raise ProductError(f"there is nothing to merge: {why}", file=target, remedy="make block 1024 first")
            keep, duplicates = survey.kept()
            rows = _write(survey, keep, new, hdf5, file_rows, group_bytes)
        without = (one for one, there in zip(survey.sources, survey.with_metacal, strict=True) if not there)
        done = Merged(target, rows, len(survey.sources), tuple(survey.lacking), tuple(without), duplicates)
        step.wrote(*sorted(path for path in target.rglob("*") if path.is_file()))
        step.count(**rows, sources=done.sources, lacking=len(done.lacking), duplicates=int(duplicates.size))
        step.extra.update(json.loads(json.dumps(done.document())))
    return done


def _write(
    survey: Survey, keep: list[NDArray[np.bool_]], new: Path, hdf5: bool, file_rows: int, group_bytes: int
) -> dict[str, int]:
    """Write every data set; return its number of rows."""
    total = sum(int(one.sum()) for one, there in zip(keep, survey.with_metacal, strict=True) if there)
    counts: dict[str, int] = {}
    for kind in KINDS:
        schema = survey.schema(kind)
        with ExitStack() as stack:
            data = stack.enter_context(_DataSet(new / kind, schema, file_rows, group_bytes))
            shapes: MetacalFile | None = None
            if kind == "matched" and hdf5 and total:
                part = stack.enter_context(writing(new / HDF5_NAME))
                bands = str(survey.cards[kind]["BANDMCAL"]).split(",")
                shapes = stack.enter_context(MetacalFile(part, total, bands))
                wanted = [name for name in needed_columns(bands) if name in schema.names]
            both = list(zip(survey.sources, keep, survey.with_metacal, strict=True))
            for source, rows, metacal in track(both, f"merging {kind}", unit="realizations"):
                table = kept_rows(source, kind, rows, schema)
                if not table.num_rows:
                    continue
                data.append(table)
                if shapes is not None and metacal:
                    shapes.append(structured_rows(table.select(wanted)))
            counts[kind] = data.rows
            if shapes is not None:
                counts["metacal"] = shapes.rows
    return counts
