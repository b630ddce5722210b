"""Metacal of matched injections in the HDF5 layout of the DES Y3 catalogues (P 7.4)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.matching.positions import Reason
from balrogutils.metacal.shears import STEP

# Imported when used: no other job needs it.
if TYPE_CHECKING:
    import h5py

__all__ = ["CHUNK_ROWS", "MetacalFile", "metacal_columns", "needed_columns"]

Rows = NDArray[Any]
Columns = dict[str, Rows]

CHUNK_ROWS = 1_000_000
"""Rows of a chunk, or of the whole file if it has fewer."""

_CACHE_BYTES = 2**20
# Rows written together: some 250 columns are written at each turn.
_TOGETHER = 20_000

_SHEARED = ("1p", "1m", "2p", "2m")
_MCAL = ("g", "g_cov", "pars", "pars_cov", "T_err", "T_r", "s2n_r")
_FILL = -9999.0
_INTEGERS = {
    "coadd_object_id": "meas_id",
    "flags": "meas_mcal_flags_object",
    "mcal_flags": "meas_mcal_flags",
    "flags_gold": "meas_flags_gold",
    "extended_class_sof": "meas_extended_class_sof",
    "extended_class_mof": "meas_extended_class_mof",
}
_NUMBERS = {
    "ra": "meas_ra",
    "dec": "meas_dec",
    "mask_frac": "meas_mcal_mask_frac",
    "psf_T": "meas_mcal_psfrec_t",
    "mcal_psf_T": "meas_mcal_tpsf",
}
_PAIRS = {"psf_e": "meas_mcal_psfrec_g", "mcal_psf_e": "meas_mcal_gpsf"}


def needed_columns(bands: Sequence[str]) -> list[str]:
    """Return the columns of the matched table that the layout is made of; some may be missing."""
    ends = ("", *(f"_{name}" for name in _SHEARED))
    own = [f"meas_mcal_{name.lower()}{end}" for end in ends for name in _MCAL]
    own += ["meas_mcal_nimage_tot", "meas_mcal_nimage_use", *(f"true_extinction_{band}" for band in bands)]
    head = ["true_bal_id", "match_reason", "tilename"]
    return [*head, *_INTEGERS.values(), *_NUMBERS.values(), *_PAIRS.values(), *own]


def _known(values: Rows) -> NDArray[np.float64]:
    """Return numbers, NaN where the catalogues hold their fill."""
    numbers = np.asarray(values, float)
    return np.where(numbers == _FILL, np.nan, numbers)


def metacal_columns(rows: Rows, bands: Sequence[str]) -> dict[str, Columns]:
    """Return rows of the matched table in the layout of P 7.4.

    Parameters
    ----------
    rows : structured ndarray
        Rows of the matched table with metacal; columns of `needed_columns`.
    bands : sequence of str
        Bands of metacal, in the order of its vectors.

    Returns
    -------
    dict of str to dict of str to ndarray
        Columns of the groups ``unsheared``, ``sheared_1p`` ...: ``bal_id`` is -1 where the injection was not detected
        (``injection_id`` always is its identifier); numbers are NaN where nothing was measured. ``T`` is of the fit
        made round, ``size_ratio`` T / ``psf_T``; fluxes and their errors, the square roots of the variances, are
        divided by ``ext_fact_<band>``; R_ij = (e_i of +j less e_i of -j) / 0.02, with the steps of `STEP`.
    """
    names = set(rows.dtype.names or ())
    seen = rows["match_reason"] == Reason.MATCHED
    factors = {
        band: np.asarray(rows[f"true_extinction_{band}"], float)
        if f"true_extinction_{band}" in names
        else np.ones(len(rows))
        for band in bands
    }
    main: Columns = {
        "bal_id": np.where(seen, rows["true_bal_id"], -1),
        "injection_id": rows["true_bal_id"],
        "tilename": np.char.encode(rows["tilename"], "ascii").astype("S12"),
    }
    main |= {new: rows[old].astype(np.int64) for new, old in _INTEGERS.items() if old in names}
    main |= {new: _known(rows[old]) for new, old in _NUMBERS.items() if old in names}
    for new, old in _PAIRS.items():
        main |= {f"{new}{k + 1}": _known(rows[old][:, k]) for k in (0, 1)}
    for kind in ("tot", "use"):
        main |= {f"nimage_{kind}_{band}": rows[f"meas_mcal_nimage_{kind}"][:, k] for k, band in enumerate(bands)}
    main |= {f"ext_fact_{band}": factor for band, factor in factors.items()}
    psf = main["psf_T"]
    groups = {"unsheared": main | _measured(rows, "", "e_", psf, factors)}
    for name in _SHEARED:
        groups[f"sheared_{name}"] = _measured(rows, f"_{name}", "e", psf, factors)
    for i in (1, 2):
        for j in (1, 2):
            plus, minus = (groups[f"sheared_{j}{sign}"][f"e{i}"] for sign in "pm")
            groups["unsheared"][f"R{i}{j}"] = (plus - minus) / (2.0 * STEP)
    return groups


def _measured(rows: Rows, end: str, shape: str, psf: Rows, factors: Mapping[str, Rows]) -> Columns:
    """Return what is measured on one kind of image."""

    def of(name: str) -> NDArray[np.float64]:
        return _known(rows[f"meas_mcal_{name}{end}"])

    g, cov, size = of("g"), of("g_cov"), of("t_r")
    flux, variance = of("pars")[:, 5:], of("pars_cov")[:, 5:, 5:]
    # A variance of unmeasured objects is a fill; one below zero is none.
    good = np.isfinite(flux)
    known = np.isfinite(size) & (psf > 0)
    columns: Columns = {f"{shape}{k + 1}": g[:, k] for k in (0, 1)}
    measured = np.isfinite(g[:, 0])
    for first, second in ((1, 1), (2, 2), (0, 1)):
        i, j = (first - 1, second - 1) if first == second else (0, 1)
        columns[f"covmat_{first}_{second}"] = np.where(measured, cov[:, i, j], np.nan)
    columns |= {"T": size, "T_err": np.where(np.isfinite(size), of("t_err"), np.nan), "snr": of("s2n_r")}
    columns["size_ratio"] = np.divide(size, psf, out=np.full(len(rows), np.nan), where=known)
    for k, (band, factor) in enumerate(factors.items()):
        columns[f"flux_{band}"] = flux[:, k] / factor
        right = good[:, k] & (variance[:, k, k] > 0)
        error = np.sqrt(variance[:, k, k], out=np.full(len(rows), np.nan), where=right)
        columns[f"flux_err_{band}"] = error / factor
    return columns


class MetacalFile:
    """An HDF5 file of a known number of rows, filled piece by piece.

    Parameters
    ----------
    path : path-like
        The file; made anew.
    total : int
        Rows it will have.
    bands : sequence of str
        Bands of metacal.
    """

    def __init__(self, path: str | os.PathLike[str], total: int, bands: Sequence[str]) -> None:
        import h5py

        # A cache smaller than a chunk of a long file: else each piece would read and write its whole chunk.
        self._file: h5py.File = h5py.File(path, "w", rdcc_nbytes=_CACHE_BYTES)
        self._total, self._bands = total, tuple(bands)
        self._written = self.rows = 0
        self._waiting: list[Rows] = []
        self._file.attrs["bands"] = ",".join(bands)

    def __enter__(self) -> MetacalFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._file.close()

    def append(self, rows: Rows) -> None:
        """Add rows of the matched table; all pieces must have the same columns."""
        self._waiting.append(rows)
        self.rows += len(rows)
        if sum(map(len, self._waiting)) >= _TOGETHER:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting)
        self._waiting = []
        end = self._written + len(rows)
        for group, columns in metacal_columns(rows, self._bands).items():
            for name, values in columns.items():
                place = f"catalog/{group}/{name}"
                if place not in self._file:
                    chunks = (min(CHUNK_ROWS, self._total),)
                    self._file.create_dataset(place, shape=(self._total,), dtype=values.dtype, chunks=chunks)
                self._file[place][self._written : end] = values
        self._written = end
