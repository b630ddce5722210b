"""Tables as Parquet files: units and shapes kept beside the columns, whole under their final name, without clocks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError
from balrogutils.fitsfile import Table
from balrogutils.products import writing

# Imported when used, so that every job that writes no Parquet starts faster.
if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["arrow_table", "read_parquet", "structured_rows", "write_parquet"]

_CARDS = b"balrog_cards"


def arrow_table(table: Table) -> pa.Table:
    """Return a table as Arrow has it.

    Parameters
    ----------
    table : Table
        Structured rows; a column of vectors or matrices becomes one of lists of fixed length, row-major.

    Returns
    -------
    pyarrow.Table
        The unit of a column is in its metadata under ``unit``, the shape of its elements under ``shape``; the cards
        are in that of the table, as JSON.
    """
    import pyarrow as pa

    fields, arrays = [], []
    units = table.units or {}
    for name in table.rows.dtype.names or ():
        values = np.asarray(table.rows[name])
        shape = values.shape[1:]
        flat = np.ascontiguousarray(values).reshape(-1)
        if flat.dtype.kind in "SU":
            array = pa.array([_text(value) for value in flat.tolist()], pa.string())
        else:
            array = pa.array(flat.astype(flat.dtype.newbyteorder("="), copy=False))
        metadata = {"unit": units[name]} if units.get(name) else {}
        if shape:
            array = pa.FixedSizeListArray.from_arrays(array, int(np.prod(shape)))
            metadata["shape"] = ",".join(map(str, shape))
        fields.append(pa.field(name, array.type, metadata=metadata or None))
        arrays.append(array)
    cards = json.dumps(dict(table.cards or {}), default=str)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata={_CARDS: cards}))


def _text(value: Any) -> str:
    return value.decode("utf-8").rstrip() if isinstance(value, bytes) else str(value)


def structured_rows(arrow: pa.Table) -> NDArray[Any]:
    """Return the rows of an Arrow table as a structured array, vectors and matrices with their shapes."""
    import pyarrow as pa

    columns: dict[str, NDArray[Any]] = {}
    for field in arrow.schema:
        column = arrow[field.name].combine_chunks()
        if pa.types.is_fixed_size_list(field.type):
            # `values` would ignore that the column is a piece of a longer one.
            shape = tuple(int(word) for word in (field.metadata or {})[b"shape"].decode().split(","))
            values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), *shape)
        elif pa.types.is_string(field.type):
            values = np.array(column.to_pylist(), dtype=np.str_)
            values = values if values.dtype.itemsize else values.astype("U1")
        else:
            values = column.to_numpy(zero_copy_only=False)
        columns[field.name] = values
    dtype = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    rows = np.zeros(arrow.num_rows, dtype=dtype)
    for name, values in columns.items():
        rows[name] = values
    return rows


def write_parquet(path: str | os.PathLike[str], table: Table) -> None:
    """Write one table as a Parquet file; the same rows give the same bytes."""
    import pyarrow.parquet as pq

    with writing(path) as part:
        pq.write_table(arrow_table(table), part, compression="zstd")


def read_parquet(path: str | os.PathLike[str]) -> Table:
    """Return the table of a Parquet file that `write_parquet` wrote: rows, units and cards.

    Raises
    ------
    ProductError
        When the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        arrow = pq.read_table(Path(path))
    except (OSError, pa.ArrowInvalid) as error:
        raise ProductError(
            f"a Parquet file cannot be read: {str(error).splitlines()[0]}",
            file=path,
            remedy="restore it, or have it made again",
        ) from error
    units = {
        field.name: field.metadata[b"unit"].decode()
        for field in arrow.schema
        if field.metadata and b"unit" in field.metadata
    }
    cards: Mapping[str, Any] = json.loads((arrow.schema.metadata or {}).get(_CARDS, b"{}"))
    return Table(Path(path).stem, structured_rows(arrow), units, cards)
