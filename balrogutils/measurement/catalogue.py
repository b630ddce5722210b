"""The tables of a fit run: columns, units and fills of the DES catalogues."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.fitting.flags import FitFlag, ObjectFlag
from balrogutils.fitting.models import model as profile

__all__ = [
    "MAGZP",
    "common_dtype",
    "copy_filled",
    "epoch_rows",
    "epoch_units",
    "fill_of",
    "magnitude",
    "model_rows",
    "model_units",
    "unmeasured",
    "with_band_axis",
]

MAGZP = 30.0
FILL = -9999.0
FILL_ERROR = 9999.0
IMAGE_ID = "S49"
_PER_BAND = ("_flux", "_flux_err", "_flux_s2n", "_mag", "_logsb")

_CM = ("fracdev", "fracdev_noclip", "fracdev_err", "TdByTe", "TdByTe_noclip")

Rows = NDArray[Any]


def magnitude(flux: Any) -> NDArray[np.float64]:
    """Return AB magnitudes of fluxes at zero point 30; fluxes below 0.001 count as 0.001."""
    return MAGZP - 2.5 * np.log10(np.maximum(flux, 0.001))


def common_dtype(nband: int) -> list[tuple[Any, ...]]:
    """Return the columns that every fit has (M 7.1)."""
    return [
        ("id", "i8"),
        ("number", "i4"),
        ("ra", "f8"),
        ("dec", "f8"),
        ("nimage_tot", "i4", (nband,)),
        ("nimage_use", "i4", (nband,)),
        ("fofid", "i8"),
        ("flags", "i4"),
        ("obj_flags", "i4"),
        ("psf_flags", "i4", (nband,)),
        ("time_last_fit", "f8"),
        ("box_size", "i2"),
        ("psf_flux", "f8", (nband,)),
        ("psf_flux_err", "f8", (nband,)),
        ("psf_flux_s2n", "f8", (nband,)),
        ("psf_mag", "f8", (nband,)),
        ("mask_frac", "f8"),
        ("psfrec_T", "f8"),
        ("psfrec_g", "f8", (2,)),
    ]


def _model_dtype(model: str, nband: int) -> list[tuple[Any, ...]]:
    extras = () if model == "cm" else tuple(one.name for one in profile(model).extras)
    npar = 5 + len(extras) + nband
    block: list[tuple[Any, ...]] = [
        ("flags", "i4"),
        ("pars", "f8", (npar,)),
        ("pars_cov", "f8", (npar, npar)),
        ("g", "f8", (2,)),
        ("g_cov", "f8", (2, 2)),
        ("T", "f8"),
        ("T_err", "f8"),
        ("T_s2n", "f8"),
        ("flux", "f8", (nband,)),
        ("flux_cov", "f8", (nband, nband)),
        ("flux_s2n", "f8", (nband,)),
        ("mag", "f8", (nband,)),
        ("logsb", "f8", (nband,)),
        ("s2n_w", "f8"),
        ("chi2per", "f8"),
        ("dof", "f8"),
        ("flags_r", "i4"),
        ("s2n_r", "f8"),
        ("T_r", "f8"),
        ("psf_T_r", "f8"),
        ("max_flags", "i4"),
        ("max_pars", "f8", (npar,)),
        ("max_pars_cov", "f8", (npar, npar)),
        ("weight", "f8"),
        *((name, "f8") for extra in extras for name in (extra, f"{extra}_err")),
    ]
    if model == "cm":
        block += [(name, "f4") for name in _CM]
    return common_dtype(nband) + [(f"{model}_{column[0]}", *column[1:]) for column in block]


def model_rows(model: str, nband: int, count: int) -> Rows:
    """Return `count` rows of ``model_fits``, filled as not attempted.

    Values that are undefined hold -9999, errors and covariances +9999; ``time_last_fit`` is 0 because no column
    holds a clock.
    """
    rows = unmeasured(np.zeros(count, dtype=_model_dtype(model, nband)))
    rows[f"{model}_weight"] = 0.0
    for name in ("flags", "flags_r", "max_flags"):
        rows[f"{model}_{name}"] = FitFlag.NO_ATTEMPT
    return rows


def with_band_axis(rows: Rows, nband: int) -> Rows:
    """Return rows of fits with the axis of bands, which FITS does not keep for one band: a vector of one is a number.

    Parameters
    ----------
    rows : structured ndarray, shape (n,)
        ``model_fits``, as read.
    nband : int
        Bands of the fit; with more than one the rows come back as they are.
    """
    if nband != 1:
        return rows
    per_band = [column[0] for column in common_dtype(1) if len(column) > 2 and column[2] == (1,)]
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(per_band, (1,))
    for name in rows.dtype.names or ():
        if name.endswith(_PER_BAND):
            shapes[name] = (1,)
        elif name.endswith("_flux_cov"):
            shapes[name] = (1, 1)
    old = rows.dtype
    out = np.empty(len(rows), [(name, old[name].base, shapes.get(name, old[name].shape)) for name in old.names or ()])
    for name in old.names or ():
        out[name] = rows[name].reshape(out[name].shape)
    return out


def unmeasured(rows: Rows) -> Rows:
    """Fill rows that begin with the columns of `common_dtype` as those of objects that were not attempted."""
    for name in rows.dtype.names or ():
        if rows[name].dtype.kind == "f":
            rows[name] = fill_of(name)
    rows["fofid"] = -9999
    rows["time_last_fit"] = 0.0
    rows["flags"] = rows["obj_flags"] = ObjectFlag.NO_ATTEMPT
    rows["psf_flags"] = ObjectFlag.NO_ATTEMPT
    return rows


def fill_of(name: str) -> float:
    """Return what a floating-point column holds where nothing was measured."""
    return FILL_ERROR if re.search(r"_(cov|err)(_|$)", name) else FILL


def copy_filled(rows: Rows, measured: Rows) -> None:
    """Copy the columns of other rows, as many, with fills for what is not finite."""
    for name in measured.dtype.names or ():
        values = measured[name]
        if values.dtype.kind == "f":
            values = np.where(np.isfinite(values), values, fill_of(name))
        rows[name] = values


def epoch_rows(npsf: int, count: int) -> Rows:
    """Return `count` rows of ``epoch_data`` with fills; `npsf` Gaussians in each PSF mixture."""
    dtype: list[tuple[Any, ...]] = [
        ("id", "i8"),
        ("number", "i4"),
        ("band", "S8"),
        ("band_num", "i2"),
        ("cutout_index", "i4"),
        ("orig_row", "f8"),
        ("orig_col", "f8"),
        ("file_id", "i4"),
        ("pixel_scale", "f8"),
        ("image_id", IMAGE_ID),
        ("npix", "i4"),
        ("wsum", "f8"),
        ("wmax", "f8"),
        ("psf_fit_flags", "i4"),
        ("psf_model_s2n", "f8"),
        ("psf_counts", "f8"),
        ("psf_fit_g", "f8", (2,)),
        ("psf_fit_T", "f8"),
        ("psf_fit_pars", "f8", (6 * npsf,)),
    ]
    rows = np.zeros(count, dtype=dtype)
    for name in ("orig_row", "orig_col", "pixel_scale", "psf_model_s2n", "psf_counts", "psf_fit_g", "psf_fit_T"):
        rows[name] = FILL
    rows["psf_fit_pars"] = FILL
    rows["psf_fit_flags"] = FitFlag.NO_ATTEMPT
    return rows


def model_units(rows: Rows) -> dict[str, str]:
    """Return the units of ``model_fits`` columns; fluxes are counts at zero point 30."""
    ends = {
        "ra": "deg",
        "dec": "deg",
        "box_size": "pixel",
        "_T": "arcsec2",
        "_T_err": "arcsec2",
        "_T_r": "arcsec2",
        "_flux": "count",
        "_flux_err": "count",
        "_flux_cov": "count2",
        "_mag": "mag",
    }
    names: Sequence[str] = rows.dtype.names or ()
    return {
        name: unit
        for name in names
        for end, unit in ends.items()
        if (name.endswith(end) if end[0] == "_" else name == end)
    }


def epoch_units() -> dict[str, str]:
    """Return the units of ``epoch_data`` columns."""
    return {"orig_row": "pixel", "orig_col": "pixel", "pixel_scale": "arcsec", "psf_fit_T": "arcsec2"}
