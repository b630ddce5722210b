"""The tables that fits of groups have beside those of single objects (M 5.2, M 7.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.measurement.catalogue import FILL, IMAGE_ID, Rows, model_rows

__all__ = ["NO_PSF", "group_rows", "nbr_rows"]

NO_PSF = 1 << 30
"""Flag of a neighbour that has no PSF on an image."""

_JACOBIAN = ("row0", "col0", "dudrow", "dudcol", "dvdrow", "dvdcol")


def group_rows(model: str, nband: int, count: int) -> Rows:
    """Return `count` rows of ``model_fits`` with the columns of groups, filled as not attempted."""
    plain = model_rows(model, nband, count)
    npar = plain.dtype[f"{model}_pars"].shape[0]
    extra: list[tuple[Any, ...]] = [
        ("fofind", "i8"),
        (f"{model}_mof_flags", "i4"),
        (f"{model}_mof_num_itr", "i4"),
        *((f"{model}_mof_{kind}_diff", "f8", (npar,)) for kind in ("abs", "frac", "err")),
    ]
    rows: NDArray[Any] = np.zeros(count, dtype=np.dtype([*_fields(plain), *extra]))
    for name in plain.dtype.names or ():
        rows[name] = plain[name]
    rows["fofind"] = -9999
    for kind in ("abs", "frac", "err"):
        rows[f"{model}_mof_{kind}_diff"] = FILL
    return rows


def _fields(rows: Rows) -> list[tuple[Any, ...]]:
    return [(name, rows.dtype[name].base, rows.dtype[name].shape) for name in rows.dtype.names or ()]


def nbr_rows(npsf: int, count: int) -> Rows:
    """Return `count` rows of ``nbrs_data``; `npsf` Gaussians in each PSF mixture.

    Each is one neighbour of one object in one of its stamps: with the fit of the neighbour its image can be made anew.
    """
    dtype: list[tuple[Any, ...]] = [
        ("id", "i8"),
        ("number", "i4"),
        ("nbr_id", "i8"),
        ("nbr_number", "i4"),
        ("nbr_flags", "i4"),
        ("band", "S8"),
        ("band_num", "i2"),
        ("cutout_index", "i4"),
        ("file_id", "i4"),
        ("image_id", IMAGE_ID),
        *((f"nbr_jac_{name}", "f8") for name in _JACOBIAN),
        ("nbr_psf_fit_pars", "f8", (6 * npsf,)),
    ]
    rows = np.zeros(count, dtype=dtype)
    for name in _JACOBIAN:
        rows[f"nbr_jac_{name}"] = FILL
    rows["nbr_psf_fit_pars"] = FILL
    rows["nbr_flags"] = NO_PSF
    return rows
