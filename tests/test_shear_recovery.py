"""Shear recovery by metacal: oracles C6, C7 and C8; figures are in docs/measurement.md."""

from functools import cache

import numpy as np
import pytest
from shear_recovery import KNOWN, biases, report, selected_bias, simulate

# Estimators differ in the known term by a few parts in 10^5 (M 6.5 asks for 1e-4).
GATE = 1e-4


@pytest.mark.parametrize("off_centre", [False, True])
@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.long)])
def test_c6_without_noise(count, off_centre):
    rows = simulate(count, s2n=None, off_centre=off_centre)
    assert (rows["mcal_flags"] == 0).all()
    for estimator in ("gauss", "wmom"):
        found, other = biases(rows, estimator)
        report(f"noise-free, off centre {off_centre}, {count} quartets, {estimator}: {found}, c2 {other:.2e}")
        assert abs(found.m - KNOWN) < GATE
        assert abs(found.c) < 1e-5
        assert abs(other) < 1e-5


@pytest.mark.long
@pytest.mark.parametrize("target", ["azgauss", "fitgauss", "dilate"])
def test_c6_with_other_targets(target):
    """Two epochs each, off centre. A dilated PSF keeps its ellipticity, and shapes that do not undo it all of it."""
    rows = simulate(20, s2n=None, off_centre=True, epochs=2, psf_target=target)
    for estimator in ("gauss", "wmom"):
        found, _ = biases(rows, estimator)
        report(f"noise-free, target {target}, {estimator}: {found}")
        assert abs(found.m - KNOWN) < GATE
        assert abs(found.c) < (0.05 if target == "dilate" else 1e-5)


@cache
def _holed(count, how):
    return simulate(count, s2n=None, off_centre=True, epochs=3, holes=how)


@pytest.mark.parametrize(
    "count", [pytest.param(40, marks=pytest.mark.long), pytest.param(400, marks=pytest.mark.science)]
)
def test_c6_through_filled_holes(count):
    """Three epochs with bad columns, trails and cosmic rays, filled with fits to what they leave.

    Moments lack the pixels of holes and scatter by that, more than without noise they do otherwise.
    """
    rows = _holed(count, "model")
    assert (rows["mcal_flags"] == 0).all()
    for estimator in ("gauss", "wmom"):
        found, other = biases(rows, estimator)
        report(f"noise-free, filled holes, {count} quartets, {estimator}: {found}, c2 {other:.2e}")
        assert abs(found.m - KNOWN) < max(GATE, 3 * found.m_err)
        assert abs(found.c) < max(1e-5, 3 * found.c_err)
        if estimator == "gauss":
            assert found.m_err < GATE
            assert found.c_err < 5e-5


@pytest.mark.science
def test_holes_filled_with_noise_alone_are_worse():
    """Why there are models: the same holes with noise alone."""
    scatter = {}
    for how in ("model", "noise"):
        found, _ = biases(_holed(100, how), "gauss")
        report(f"noise-free, holes filled with {how}, 100 quartets: {found}")
        scatter[how] = found.m_err
    assert scatter["noise"] > 3 * scatter["model"]


@cache
def _noisy(count, s2n, off_centre, holes=None):
    return simulate(count, s2n=s2n, off_centre=off_centre, epochs=3 if holes else 1, holes=holes)


def _recovered(rows, worst, what):
    assert (rows["mcal_flags"] == 0).mean() > 0.99
    for estimator in ("gauss", "wmom"):
        found, _ = biases(rows, estimator)
        report(f"{what}, {len(rows)} quartets, {estimator}: {found}")
        assert found.m_err < worst
        assert abs(found.m - KNOWN) < 3 * found.m_err
        assert abs(found.c) < 3 * found.c_err


@pytest.mark.long
@pytest.mark.parametrize("off_centre", [False, True])
def test_c7_with_little_noise(off_centre):
    _recovered(_noisy(200, 300.0, off_centre), 3e-3, f"S/N 300, off centre {off_centre}")


@pytest.mark.science
@pytest.mark.parametrize(
    ("count", "s2n", "off_centre", "worst"), [(2500, 200.0, False, 1e-3), (1500, 120.0, True, 2e-3)]
)
def test_c7_with_noise(count, s2n, off_centre, worst):
    _recovered(_noisy(count, s2n, off_centre), worst, f"S/N {s2n}, off centre {off_centre}")


@pytest.mark.science
def test_c7_through_filled_holes():
    _recovered(_noisy(300, 200.0, True, "model"), 5e-3, "S/N 200, filled holes")


@pytest.mark.science
def test_c8_the_response_of_a_selection():
    """A cut on the size along the shear: m of many per cent without R_S, none with it."""
    rows = _noisy(2500, 200.0, False)
    cut = float(np.median(rows["mcal_T"] / rows["mcal_Tpsf"]))
    for estimator in ("gauss", "wmom"):
        plain, _ = selected_bias(rows, estimator, cut, corrected=False)
        corrected, error = selected_bias(rows, estimator, cut, corrected=True)
        report(f"size cut, {estimator}: m {plain:.4f} without, {corrected:.4f} +- {error:.4f} with R_S")
        assert abs(plain) > 0.01
        assert abs(corrected - KNOWN) < 3 * error
        assert error < 0.3 * abs(plain)
