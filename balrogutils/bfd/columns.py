"""The columns of BFD moments: those of all bands together, and of each band."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.bfd.moments import EVEN, ODD, BFDMoments
from balrogutils.fitting.flags import FitFlag

__all__ = ["bfd_dtype", "bfd_rows", "store_bfd"]

Rows = NDArray[Any]


def bfd_dtype(nband: int, *, separately: bool = True) -> list[tuple[Any, ...]]:
    """Return the columns of objects in `nband` bands; moments in the orders of `moments.EVEN` and `moments.ODD`.

    `separately` says whether those of each band are among them.
    """
    even, odd = len(EVEN), len(ODD)
    columns: list[tuple[Any, ...]] = [
        ("bfd_flags", "i4"),
        ("bfd_nimage", "i4", (nband,)),
        ("bfd_offset", "f8", (2,)),
        ("bfd_even", "f8", (even,)),
        ("bfd_even_cov", "f8", (even, even)),
        ("bfd_odd", "f8", (odd,)),
        ("bfd_odd_cov", "f8", (odd, odd)),
    ]
    if separately:
        columns += [
            ("bfd_band_even", "f8", (nband, even)),
            ("bfd_band_even_cov", "f8", (nband, even, even)),
            ("bfd_band_odd", "f8", (nband, odd)),
            ("bfd_band_odd_cov", "f8", (nband, odd, odd)),
        ]
    return columns


def bfd_rows(nband: int, count: int = 1, *, separately: bool = True) -> Rows:
    """Return rows that nothing was measured for: not-a-number, flags NO_ATTEMPT."""
    rows = np.zeros(count, dtype=bfd_dtype(nband, separately=separately))
    for name in rows.dtype.names or ():
        if rows[name].dtype.kind == "f":
            rows[name] = np.nan
    rows["bfd_flags"] = FitFlag.NO_ATTEMPT
    return rows


def store_bfd(row: Rows, found: BFDMoments) -> None:
    """Fill one row; moments of each band where it has columns for them."""
    row["bfd_flags"], row["bfd_nimage"] = found.flags, found.nimage
    row["bfd_offset"] = found.v, found.u
    row["bfd_even"], row["bfd_even_cov"] = found.all_even, found.all_even_cov
    row["bfd_odd"], row["bfd_odd_cov"] = found.all_odd, found.all_odd_cov
    if "bfd_band_even" in (row.dtype.names or ()):
        row["bfd_band_even"], row["bfd_band_even_cov"] = found.even, found.even_cov
        row["bfd_band_odd"], row["bfd_band_odd_cov"] = found.odd, found.odd_cov
