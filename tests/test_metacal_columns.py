"""The columns of metacal measurements: names, types and shapes are those of the DES catalogues (M 7.5)."""

import numpy as np

from balrogutils.fitting.flags import FitFlag
from balrogutils.metacal.columns import metacal_dtype, metacal_rows, metacal_units
from balrogutils.metacal.shears import TYPES


def test_names_types_and_shapes():
    dtype = np.dtype(metacal_dtype(3, TYPES))
    block = {"g": (2,), "g_cov": (2, 2), "pars": (8,), "pars_cov": (8, 8), "T": (), "T_err": (), "T_r": (), "s2n_r": ()}
    expected = {f"mcal_{name}{end}": shape for end in ("", "_1p", "_1m", "_2p", "_2m") for name, shape in block.items()}
    expected |= {"mcal_flags": (), "mcal_gpsf": (2,), "mcal_Tpsf": (), "mcal_R": (2, 2)}
    assert {name: dtype[name].shape for name in dtype.names} == expected
    assert dtype["mcal_flags"] == np.dtype("i8")
    assert all(dtype[name].base == np.dtype("f8") for name in dtype.names if name != "mcal_flags")


def test_columns_follow_types_and_estimators():
    names = np.dtype(metacal_dtype(1, ("noshear", "1p"), ("wmom",))).names
    assert "mcal_wmom_e_1p" in names
    assert "mcal_R" not in names
    assert "mcal_gpsf" not in np.dtype(metacal_dtype(1, ("1p",))).names
    assert "mcal_g_2m_psf" in np.dtype(metacal_dtype(1, (*TYPES, "2m_psf"))).names


def test_rows_that_nothing_was_measured_for():
    rows = metacal_rows(2, TYPES, ("admom",), 3)
    assert rows.shape == (3,)
    assert (rows["mcal_flags"] == FitFlag.NO_ATTEMPT).all()
    assert np.isnan(rows["mcal_admom_flux_2p"]).all()


def test_units():
    names = np.dtype(metacal_dtype(1, TYPES, ("wmom",))).names
    found = {name for name in names if metacal_units(name) == "arcsec^2"}
    assert {"mcal_T", "mcal_T_err_1p", "mcal_T_r_2m", "mcal_Tpsf", "mcal_wmom_T_1m"} <= found
    assert not {"mcal_g", "mcal_R", "mcal_s2n_r", "mcal_wmom_flux"} & found
