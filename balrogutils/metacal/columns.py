"""The columns of metacal measurements (M 7.5)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.fitting.flags import FitFlag
from balrogutils.metacal.shears import TYPES, suffix

__all__ = ["ESTIMATORS", "Rows", "metacal_dtype", "metacal_rows", "metacal_units"]

Rows = NDArray[Any]

ESTIMATORS = ("wmom", "admom", "ksigma", "pgauss")


def metacal_dtype(nband: int, types: tuple[str, ...], estimators: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the columns of `types`: those of noshear have no suffix, the others that of their type.

    Parameters
    ----------
    nband : int
        Number of bands.
    types : tuple of str
        Metacal types.
    estimators : tuple of str
        Those beside the Gaussian fit.
    """
    npar = 5 + nband
    out: list[tuple[Any, ...]] = [("mcal_flags", "i8")]
    if "noshear" in types:
        out += [("mcal_gpsf", "f8", (2,)), ("mcal_Tpsf", "f8")]
    whole = set(TYPES[1:]) <= set(types)
    if whole:
        out.append(("mcal_R", "f8", (2, 2)))
        out += [(f"mcal_{name}_R", "f8", (2, 2)) for name in estimators]
    for one in types:
        block: list[tuple[Any, ...]] = [
            ("g", "f8", (2,)),
            ("g_cov", "f8", (2, 2)),
            ("pars", "f8", (npar,)),
            ("pars_cov", "f8", (npar, npar)),
            ("T", "f8"),
            ("T_err", "f8"),
            ("T_r", "f8"),
            ("s2n_r", "f8"),
        ]
        for name in estimators:
            block += [
                (f"{name}_flags", "i4"),
                (f"{name}_e", "f8", (2,)),
                (f"{name}_e_cov", "f8", (2, 2)),
                (f"{name}_T", "f8"),
                (f"{name}_T_err", "f8"),
                (f"{name}_flux", "f8", (nband,)),
                (f"{name}_flux_err", "f8", (nband,)),
                (f"{name}_s2n", "f8"),
            ]
        out += [(f"mcal_{column[0]}{suffix(one)}", *column[1:]) for column in block]
    return out


def metacal_units(name: str) -> str:
    """Return the unit of a column: arcsec^2, or none."""
    head = name.removeprefix("mcal_").split("_")
    return "arcsec^2" if "T" in head or "Tpsf" in head else ""


def metacal_rows(nband: int, types: tuple[str, ...], estimators: tuple[str, ...] = (), count: int = 1) -> Rows:
    """Return rows that nothing was measured for: not-a-number, flags NO_ATTEMPT."""
    rows = np.zeros(count, dtype=metacal_dtype(nband, types, estimators))
    for name in rows.dtype.names or ():
        rows[name] = np.nan if rows[name].dtype.kind == "f" else FitFlag.NO_ATTEMPT
    return rows
