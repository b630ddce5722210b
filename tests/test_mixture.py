"""Profile tables, shapes, convolution: oracles G1, G2, G3, G5."""

import numpy as np
import pytest
from scipy.optimize import brentq

from balrogutils.errors import FitError
from balrogutils.fitting import mixture


def test_unknown_model_names_the_near_one():
    with pytest.raises(FitError, match="did you mean 'exp'"):
        mixture.profile("expo")


def test_a_gaussian_without_determinant_is_refused():
    with pytest.raises(FitError, match="determinant"):
        mixture.render([[1.0, 0, 0, 1.0, 1.0, 1.0]], np.zeros(1), np.zeros(1))


@pytest.mark.parametrize("name", sorted(mixture.PROFILES))
def test_g1_tables_have_unit_flux_and_size(name):
    profile = mixture.profile(name)
    assert profile.p.sum() == pytest.approx(1.0, abs=1e-15)
    assert (profile.p * profile.f).sum() == pytest.approx(1.0, abs=1e-15)


# r50, FWHM and the integral of I^2, in units of sqrt(T) and 1/T, to the digits they are known to.
@pytest.mark.parametrize(
    ("name", "r50", "fwhm", "power"),
    [
        ("gauss", 0.83255461, 1.66510922, 0.15915494),
        ("exp", 0.69151145, 0.59736940, 0.23439641),
        ("dev", 0.39762417, 0.00254116, 2.11522576),
        ("turb", 0.76321856, 1.37833615, 0.18333297),
    ],
)
def test_g2_sizes_of_profiles(name, r50, fwhm, power):
    p, f = mixture.profile(name).p, mixture.profile(name).f

    def inside(r):
        return p @ (1.0 - np.exp(-(r**2) / f)) - 0.5

    def peak(r):
        return (p / f) @ (np.exp(-(r**2) / f) - 0.5)

    assert brentq(inside, 1e-6, 5) == pytest.approx(r50, rel=1e-6)
    assert 2 * brentq(peak, 1e-9, 5, xtol=1e-15) == pytest.approx(fwhm, rel=3e-6)
    pairs = p[:, None] * p / (np.pi * (f[:, None] + f))
    assert pairs.sum() == pytest.approx(power, rel=1e-6)


def test_g5_shapes_there_and_back_and_shear_addition():
    g = np.array([[0.2, 0.1], [-0.6, 0.3], [0.0, 0.0], [0.05, -0.9]])
    assert np.allclose(np.transpose(mixture.e_to_g(*mixture.g_to_e(*g.T))), g, atol=1e-14)
    assert mixture.add_shear(0.2, 0.1, 0.02, -0.01) == pytest.approx((0.2196963296, 0.0888546507), abs=1e-10)
    # A rotation by 45 degrees turns a shape by 90: (g1, g2) -> (g2, -g1) as the axes turn.
    turned = complex(0.2, 0.1) * np.exp(-2j * np.pi / 4)
    assert (turned.real, turned.imag) == pytest.approx((0.1, -0.2), abs=1e-15)


def test_g3_convolution_adds_moments_and_divides_the_psf_out():
    psf = np.array([[0.5, 0.3, -0.2, 0.1, 0.01, 0.12], [1.5, 0.3, -0.2, 0.3, -0.02, 0.25]])
    galaxy = [0.1, -0.05, 0.2, -0.1, 0.7, 250.0]
    table = mixture.convolve(galaxy, mixture.profile("exp"), psf)
    assert len(table) == 12
    flux, v, u, e1, e2, size = mixture.moments(table)
    _, _, _, p1, p2, psf_size = mixture.moments(psf)
    o1, o2 = mixture.g_to_e(0.2, -0.1)
    assert (flux, v, u, size) == pytest.approx((250.0, 0.1, -0.05, 0.7 + psf_size), rel=1e-12)
    assert size * e1 == pytest.approx(0.7 * o1 + psf_size * p1, rel=1e-12)
    assert size * e2 == pytest.approx(0.7 * o2 + psf_size * p2, rel=1e-12)


def test_round_keeps_the_determinant_of_one_gaussian():
    table = np.array([[1.0, 0, 0, *mixture.covariance(0.3, -0.2, 0.8)]])
    rounded = mixture.make_round(table)[0]
    assert rounded[4] == 0.0
    assert rounded[3] * rounded[5] == pytest.approx(table[0, 3] * table[0, 5] - table[0, 4] ** 2, rel=1e-12)
