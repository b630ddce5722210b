"""The tables of truth and measurement, one row an injection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.matching.positions import Matches, Reason

__all__ = [
    "MORE_PER_BAND",
    "MORE_SHARED",
    "PER_BAND",
    "SHARED",
    "as_table",
    "detection_table",
    "match_table",
    "prefixed",
    "take_rows",
]

Rows = NDArray[Any]

PER_BAND = ("MAG_AUTO", "MAGERR_AUTO", "FLUX_AUTO", "FLUXERR_AUTO", "FLAGS", "IMAFLAGS_ISO", "FLUX_RADIUS")
"""What is kept of each band's SExtractor catalogue, under meas_<name>_<band>."""
SHARED = ("NUMBER", "X_IMAGE", "Y_IMAGE", "ISOAREA_IMAGE")
"""What is the same in all bands, because it is measured on the detection image."""
MORE_PER_BAND = (
    *("FLUX_APER", "FLUXERR_APER", "MAG_APER", "MAGERR_APER", "MAG_DETMODEL", "MAGERR_DETMODEL", "BACKGROUND"),
    *("FWHM_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE", "SPREAD_MODEL", "SPREADERR_MODEL", "CLASS_STAR"),
)
"""Kept of each band where the catalogues have it."""
MORE_SHARED = ("A_IMAGE", "B_IMAGE", "A_WORLD", "B_WORLD", "THETA_J2000", "KRON_RADIUS")
"""Kept of the detection image where the catalogues have it."""

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


def prefixed(rows: Rows, kind: str) -> Rows:
    """Return the columns of a kind of fits under names that begin with it.

    Parameters
    ----------
    rows : structured ndarray
        ``model_fits`` of one kind.
    kind : str
        ``mof``, ``mcal`` ...

    Returns
    -------
    structured ndarray
        ``<kind>_<name>``. What begins with the kind already keeps its name; where both are there (``flags`` and
        ``mcal_flags``) the column of the object as a whole is ``<kind>_<name>_object``.
    """
    names = rows.dtype.names or ()
    new = [name if name.startswith(f"{kind}_") else f"{kind}_{name}" for name in names]
    twice = {name for name in new if new.count(name) > 1}
    new = [f"{b}_object" if b in twice and a != b else b for a, b in zip(names, new, strict=True)]
    return as_table({b: rows[a] for a, b in zip(names, new, strict=True)}, len(rows))


def as_table(columns: Mapping[str, Rows], count: int) -> Rows:
    """Return columns side by side as a structured array of `count` rows."""
    dtype = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    table = np.zeros(count, dtype=dtype)
    for name, values in columns.items():
        table[name] = values
    return table


def match_table(
    truth: Rows,
    matches: Matches,
    measured: Sequence[tuple[str, Rows]],
    base_number: NDArray[np.int64],
    base_distance: NDArray[np.float64],
    radius: float,
    more: Mapping[str, Rows] | None = None,
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
    more : mapping of str to ndarray, optional
        More columns about the injections, put between match and measurement.

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
    columns.update(more or {})
    for suffix, rows in measured:
        taken = take_rows(rows, matches.row, "meas_")
        columns.update({f"{name}{suffix}": values for name, values in taken.items()})
    return as_table(columns, len(truth))


def detection_table(matched: Rows, bands: Sequence[str], flagged: NDArray[np.bool_]) -> Rows:
    """Return the detection catalogue (P 7.2): every injection, and what became of it.

    Parameters
    ----------
    matched : structured ndarray
        The matched table.
    bands : sequence of str
        Bands of the tile.
    flagged : ndarray of bool, shape (n,)
        Whether the measurement of a row is flagged; of no matter where it is unmatched.

    Returns
    -------
    structured ndarray
        ``bal_id``; ``detected``: 1, 0, or -1 where a detection was matched whose measurement is flagged; ``meas_id``,
        -1 where unmatched; the truth's ``true_*`` that selections need, among them ``true_id`` (the input catalogue's)
        and ``true_mag_deredden_<band>``; everything about match and ambiguity; FLAGS_GOLD and classes.
    """
    names = matched.dtype.names or ()
    seen = matched["match_reason"] == Reason.MATCHED
    columns: dict[str, Rows] = {
        "bal_id": matched["true_bal_id"],
        "detected": np.where(seen, np.where(flagged, -1, 1), 0).astype(np.int16),
        "meas_id": np.where(seen, matched["meas_id"], -1),
    }
    head = ("tilename", "realization", "true_inj_type", "true_cat_row", "true_ra", "true_dec")
    columns |= {name: matched[name] for name in head if name in names}
    columns["true_id"] = matched["true_cat_id" if "true_cat_id" in names else "true_cat_row"]
    for band in (band for band in bands if f"true_mag_{band}" in names):
        mag = matched[f"true_mag_{band}"]
        columns[f"true_mag_{band}"] = mag
        if f"true_extinction_{band}" in names:
            columns[f"true_mag_deredden_{band}"] = mag + 2.5 * np.log10(matched[f"true_extinction_{band}"])
    kept = (
        *("true_outcome", "true_r50_arcsec", "match_", "base_", "ambiguous", "other_", "bright"),
        *("meas_flags_gold", "meas_extended_class_"),
    )
    columns |= {name: matched[name] for name in names if name.startswith(kept)}
    return as_table(columns, len(matched))
