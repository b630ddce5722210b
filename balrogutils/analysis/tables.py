"""Tables of results: units and descriptions of every column, and one sentence that says what the table holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from astropy.table import Column, Table
from numpy.typing import ArrayLike, NDArray

from balrogutils.errors import InputError

__all__ = ["Field", "counted", "flags_of", "numbers", "result_table"]


class Field(NamedTuple):
    """One column: name, values [n], description, and unit as astropy writes it (empty for a pure number)."""

    name: str
    values: ArrayLike
    description: str
    unit: str = ""


def result_table(fields: Sequence[Field], note: str, **meta: Any) -> Table:
    """Return an astropy Table.

    Parameters
    ----------
    fields : sequence of Field
        Columns, all of one length; none may be left out for an empty result.
    note : str
        What the table says or why it is empty; goes to ``meta["note"]``.
    **meta
        More entries of ``meta``.

    Returns
    -------
    astropy.table.Table
        Also for no rows: the columns keep their types, units and descriptions.
    """
    columns = [
        Column(np.asarray(field.values), name=field.name, unit=field.unit or None, description=field.description)
        for field in fields
    ]
    return Table(columns, meta={"note": note, **meta})


def numbers(values: ArrayLike, name: str, size: int | None = None) -> NDArray[np.float64]:
    """Return values as a list of floating-point numbers in native byte order; masked entries become NaN.

    Parameters
    ----------
    values : array_like, shape (n,)
        A list, array, astropy column or pandas series.
    name : str
        For the message.
    size : int, optional
        Length it must have.

    Raises
    ------
    InputError
        When it is not one list of numbers, or has another length.
    """
    try:
        if isinstance(values, np.ma.MaskedArray):
            masked = np.ma.getmaskarray(values)
            values = np.where(masked, np.nan, np.asarray(values.data, np.float64))
        out = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not a list of numbers") from error
    if out.ndim != 1:
        raise InputError(f"{name} is not one list but has the shape {out.shape}")
    if size is not None and out.size != size:
        raise InputError(f"{name} has {out.size} rows, the others have {size}", remedy="give columns of one table")
    return out


def flags_of(values: ArrayLike, name: str, size: int | None = None) -> NDArray[np.bool_]:
    """Return values as a list of true and false; raises as `numbers`."""
    out = numbers(values, name, size)
    if not np.all((out == 0.0) | (out == 1.0)):
        raise InputError(f"{name} holds other values than true and false")
    return np.asarray(out == 1.0)


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, with an s where it is not one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
