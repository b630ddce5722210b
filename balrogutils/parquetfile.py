"""Tables as Parquet: columns, units and cards as in the FITS table beside, whole under their final name."""

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

__all__ = ["about", "arrow_table", "cards_of", "read_parquet", "structured_rows", "write_parquet"]

_CARDS, _NAME = b"cards", b"name"


def arrow_table(table: Table) -> pa.Table:
    """Return a table as Arrow has it.

    Parameters
    ----------
    table : Table
        Structured rows; a column of vectors or matrices becomes one of lists of fixed length, row-major.

    Returns
    -------
    pyarrow.Table
        The unit of a column is in its field's metadata ``unit``, the shape of its elements in ``shape``; the cards are
        JSON in the schema's metadata ``cards``, the name of the table is ``name``.
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
        fields.append(pa.field(name, array.type, nullable=False, metadata=metadata or None))
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=about(table.name, table.cards or {})))


def about(name: str, cards: Mapping[str, Any]) -> dict[bytes | str, bytes | str]:
    """Return the name of a table and its cards as the metadata of a schema."""
    return {_NAME: name, _CARDS: json.dumps(dict(cards), default=str)}


def cards_of(schema: pa.Schema) -> dict[str, Any]:
    """Return the cards in the metadata of a schema; none where there are none."""
    return dict(json.loads((schema.metadata or {}).get(_CARDS, b"{}")))


def _text(value: Any) -> str:
    return value.decode("utf-8").rstrip() if isinstance(value, bytes) else str(value)


def structured_rows(arrow: pa.Table) -> NDArray[Any]:
    """Return the rows of an Arrow table as a structured array, vectors and matrices with their shapes.

    Nulls become what the catalogues hold where nothing was measured: NaN, -9999, empty text.
    """
    columns = {field.name: _values(arrow[field.name].combine_chunks(), field) for field in arrow.schema}
    dtype = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    rows = np.zeros(arrow.num_rows, dtype=dtype)
    for name, values in columns.items():
        rows[name] = values
    return rows


def _values(column: Any, field: pa.Field) -> NDArray[Any]:
    """Return one column, of one chunk."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(field.type):
        size, shape = field.type.list_size, (field.metadata or {})[b"shape"].decode().split(",")
        # Unlike `flatten`, this keeps the places of rows that are null.
        inner = column.values.slice(column.offset * size, len(column) * size)
        values = _plain(inner, field.type.value_type).reshape(len(column), *map(int, shape))
        if column.null_count:
            values = values.copy()
            values[column.is_null().to_numpy(zero_copy_only=False)] = _fill(field.type.value_type)
        return values
    return _plain(column, field.type)


def _plain(column: Any, kind: pa.DataType) -> NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_string(kind):
        values = np.array(column.fill_null("").to_pylist(), dtype=np.str_)
        return values if values.dtype.itemsize else values.astype("U1")
    return np.asarray((column.fill_null(_fill(kind)) if column.null_count else column).to_numpy(zero_copy_only=False))


def _fill(kind: pa.DataType) -> float | int | bool:
    import pyarrow as pa

    if pa.types.is_floating(kind):
        return float("nan")
    return -9999 if pa.types.is_signed_integer(kind) else False if pa.types.is_boolean(kind) else 0


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
    name = (arrow.schema.metadata or {}).get(_NAME, b"").decode()
    return Table(name, structured_rows(arrow), units, cards_of(arrow.schema))
