"""The catalogues of tiles and realizations that are to become one, looked at before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import BalrogError, InputError, ProductError
from balrogutils.identity import are_of
from balrogutils.parquetfile import about, cards_of
from balrogutils.products import Step, records

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["KINDS", "Lacking", "Source", "Survey", "kept_rows", "look"]

KINDS = {"matched": "true_bal_id", "detection": "bal_id"}
"""The catalogues of a realization, with the column of the identifier of the injection."""

# What rows of one data set must have been made with alike; other cards are of each file.
_OWN = frozenset(("TILENAME", "REALIZ", "FITS", "LACKING", "GOLDBITS"))


@dataclass(frozen=True)
class Source:
    """What block 1024 left of one tile and realization: files by kind (`KINDS`), and the manifest about them."""

    tile: str
    realization: str
    files: dict[str, Path]
    manifest: Path

    def __str__(self) -> str:
        return f"{self.tile} realization {self.realization}"


@dataclass(frozen=True)
class Lacking:
    """A tile and realization that is not in the merged data sets, and why."""

    source: Source
    why: str


@dataclass
class Survey:
    """What there is to merge.

    Attributes
    ----------
    sources : list of Source
        Those that are whole, in order.
    lacking : list of Lacking
        Those that are not.
    ids : list of ndarray of int64
        Identifiers of the rows of each source.
    fields : dict
        By kind: every column of any source, by name.
    cards : dict
        By kind: what all sources have in common.
    with_metacal : list of bool
        Whether each source has metacal.
    """

    sources: list[Source] = field(default_factory=list)
    lacking: list[Lacking] = field(default_factory=list)
    ids: list[NDArray[np.int64]] = field(default_factory=list)
    fields: dict[str, dict[str, pa.Field]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    cards: dict[str, dict[str, Any]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    with_metacal: list[bool] = field(default_factory=list)

    def schema(self, kind: str) -> pa.Schema:
        """Return the columns of a merged data set: those of the first source, then what others have besides."""
        import pyarrow as pa

        # A column that one source lacks is null there.
        fields = [one.with_nullable(True) for one in self.fields[kind].values()]
        return pa.schema(fields, metadata=about(kind, self.cards[kind]))

    def kept(self) -> tuple[list[NDArray[np.bool_]], NDArray[np.int64]]:
        """Return which rows of each source stay, and the identifiers that were met more than once.

        Of rows with one identifier the first stays. Memory: 25 bytes a row of all sources.
        """
        if not self.ids:
            return [], np.empty(0, np.int64)
        every = np.concatenate(self.ids)
        order = np.argsort(every, kind="stable")
        again = np.zeros(every.size, bool)
        again[order[1:]] = every[order[1:]] == every[order[:-1]]
        ends = np.cumsum([one.size for one in self.ids])[:-1]
        return np.split(~again, ends), np.unique(every[again])


def look(sources: Iterable[Source], step: Step) -> Survey:
    """Look at every source: that it is there, whole, of its tile and realization, and fits the others.

    Parameters
    ----------
    sources : iterable of Source
        In the order of the merged rows.
    step : Step
        What is read is recorded in it.

    Raises
    ------
    InputError
        When two sources were made in ways that do not go together: other bands, models, radii.
    """
    survey = Survey()
    for source in sources:
        try:
            seen = {kind: _look(source, kind, step) for kind in KINDS}
            first, second = (ids for ids, _ in seen.values())
            if not np.array_equal(first, second):
                raise ProductError("its two catalogues are not of the same injections")
        except BalrogError as error:
            survey.lacking.append(Lacking(source, error.message))
            continue
        for kind, (_, schema) in seen.items():
            _join(survey, kind, schema, source)
        survey.sources.append(source)
        survey.ids.append(first)
        survey.with_metacal.append("meas_mcal_g_1p" in seen["matched"][1].names)
    return survey


def _look(source: Source, kind: str, step: Step) -> tuple[NDArray[np.int64], pa.Schema]:
    """Return the identifiers and the columns of a catalogue, after all checks."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not source.manifest.is_file():
        raise ProductError("it has not been made")
    path, column = source.files[kind], KINDS[kind]
    said = records([source.manifest]).get(os.path.realpath(path))
    if said is None or not path.is_file():
        raise ProductError("it has not been made by this version" if said is None else f"{path.name} is gone")
    step.read(path)
    if step.digest(path) != said.get("sha256"):
        raise ProductError(f"{path.name} is not as block 1024 left it")
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            ids = file.read([column])[column].to_numpy().astype(np.int64)
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise ProductError(f"{path.name} cannot be read: {str(error).splitlines()[0]}") from error
    if not are_of(ids, source.tile, source.realization).all():
        raise ProductError(f"{path.name} is of another tile or realization")
    return ids, schema


def _join(survey: Survey, kind: str, schema: pa.Schema, source: Source) -> None:
    """Add the columns of a source to those of the others."""
    cards = {key: value for key, value in cards_of(schema).items() if key not in _OWN}
    for key, value in cards.items():
        known = survey.cards[kind].setdefault(key, value)
        if known != value:
            raise InputError(
                f"{source} has {key} {value}, others have {known}",
                file=source.files[kind],
                key=key,
                remedy="merge tiles of one campaign and one configuration at a time",
            )
    fields = survey.fields[kind]
    for one in schema:
        known_field = fields.setdefault(one.name, one)
        if known_field.type != one.type:
            raise InputError(
                f"the column {one.name} is of type {known_field.type} elsewhere, of type {one.type} in {source}",
                file=source.files[kind],
                key=one.name,
                remedy="merge tiles of one campaign and one configuration at a time",
            )


def kept_rows(source: Source, kind: str, keep: NDArray[np.bool_], schema: pa.Schema) -> pa.Table:
    """Return the rows of a source that stay, with all columns of a data set, null where the source has none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(source.files[kind])
    if not keep.all():
        table = table.filter(pa.array(keep))
    there = set(table.column_names)
    columns = [table[one.name] if one.name in there else pa.nulls(table.num_rows, one.type) for one in schema]
    return pa.Table.from_arrays(columns, schema=schema)
