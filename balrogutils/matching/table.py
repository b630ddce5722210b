"""The table of truth and measurement, one row an injection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.matching.positions import Matches

__all__ = ["PER_BAND", "SHARED", "match_table", "take_rows"]

Rows = NDArray[Any]

PER_BAND = ("MAG_AUTO", "MAGERR_AUTO", "FLUX_AUTO", "FLUXERR_AUTO", "FLAGS", "IMAFLAGS_ISO", "FLUX_RADIUS")
"""What is kept of each band's SExtractor catalogue, under meas_<name>_<band>."""
SHARED = ("NUMBER", "X_IMAGE", "Y_IMAGE", "ISOAREA_IMAGE")
"""What is the same in all bands, because it is measured on the detection image."""

_FILLS = {"f": np.nan, "i": -9999, "u": 0, "S": b"", "U": "", "b": False}


def take_rows(rows: Rows, index: NDArray[np.int64], prefix: str) -> dict[str, Rows]:
    """Return the columns of `rows` at `index` under lower-case names with a prefix.

    Parameters
    ----------
    rows : structured ndarray
        Measurements.
    index : ndarray of int
        Row of each output row; -1 gives NaN in floating-point columns, -9999 in whole numbers, empty text.
    prefix : str
        Put before each name.
    """
    found = index >= 0
    columns = {}
    for name in rows.dtype.names or ():
        source = rows[name]
        # A native byte order: tables read from FITS can be big-endian.
        out = np.full((index.size, *source.shape[1:]), _FILLS[source.dtype.kind], dtype=source.dtype.newbyteorder("="))
        out[found] = source[index[found]]
        columns[f"{prefix}{name.lower()}"] = out
    return columns


def match_table(
    truth: Rows,
    matches: Matches,
    measured: Sequence[tuple[str, Rows]],
    base_number: NDArray[np.int64],
    base_distance: NDArray[np.float64],
    radius: float,
) -> Rows:
    """Put truth, match and measurement side by side.

    Parameters
    ----------
    truth : structured ndarray
        One row an injection; columns get the prefix ``true_``.
    matches : Matches
        Of the truth to the measurements.
    measured : sequence of (str, structured ndarray)
        Tables with the same rows; their columns get the prefix ``meas_`` and the text as a suffix (``_g``; empty
        for none).
    base_number, base_distance : ndarray
        Nearest detection of the base run, and its distance in arcsec (NaN for none).
    radius : float
        Match radius, arcsec.

    Returns
    -------
    structured ndarray
        As many rows as `truth`, in its order. Besides: ``match_reason`` (`Reason`), ``match_distance`` (arcsec from
        truth to detection), ``base_distance`` and ``base_number`` (of the nearest detection of the base run), and
        ``ambiguous``, whether that one lies within the match radius.
    """
    columns = take_rows(truth, np.arange(len(truth)), "true_")
    columns["match_reason"] = matches.reason
    columns["match_distance"] = matches.distance
    columns["base_distance"] = base_distance
    columns["base_number"] = base_number
    columns["ambiguous"] = base_distance <= radius
    for suffix, rows in measured:
        taken = take_rows(rows, matches.row, "meas_")
        columns.update({f"{name}{suffix}": values for name, values in taken.items()})
    dtype = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    table = np.zeros(len(truth), dtype=dtype)
    for name, values in columns.items():
        table[name] = values
    return table
