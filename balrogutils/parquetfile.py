"""Tables as Parquet: columns, units and cards as in the FITS table beside, whole under their final name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from balrogutils.products import writing

if TYPE_CHECKING:
    from balrogutils.fitsfile import Table

__all__ = ["write_parquet"]


def write_parquet(path: str | os.PathLike[str], table: Table) -> None:
    """Write a table to one Parquet file; the same table gives the same bytes.

    Parameters
    ----------
    path : path-like
        Final name; appears only when whole.
    table : Table
        Columns of numbers and texts, one value a row. The unit of a column is in its field's metadata ``unit``, the
        cards are JSON in the schema's metadata ``cards``, the name of the table is ``name``.
    """
    # A third of a second to import, for the one job that writes such files.
    import pyarrow
    from pyarrow import parquet

    rows, units = table.rows, table.units or {}
    fields, columns = [], []
    for name in rows.dtype.names or ():
        texts = rows[name].dtype.kind in "SU"
        # Columns of a FITS table may be of the other byte order, which Arrow does not have.
        native = np.ascontiguousarray(rows[name], dtype=str if texts else rows[name].dtype.newbyteorder("="))
        values = pyarrow.array(native)
        about = {"unit": units[name]} if name in units else None
        fields.append(pyarrow.field(name, values.type, nullable=False, metadata=about))
        columns.append(values)
    schema = pyarrow.schema(fields, metadata={"name": table.name, "cards": json.dumps(dict(table.cards or {}))})
    with writing(path) as part:
        parquet.write_table(pyarrow.Table.from_arrays(columns, schema=schema), Path(part), compression="zstd")
