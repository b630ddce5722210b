"""Moments, apertures and correlated noise: oracles G11, F4, F10, F11."""

import numpy as np
import pytest

from balrogutils.fitting import mixture
from balrogutils.fitting.adaptive import adaptive_moments
from balrogutils.fitting.fit import fit_scene
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.models import model
from balrogutils.fitting.moments import aperture_flux, gauss_moments
from balrogutils.fitting.noise import correlated_covariance
from balrogutils.fitting.observation import LocalWCS, Observation, stack
from balrogutils.fitting.scene import Scene, single_links
from balrogutils.fitting.solver import LMOptions

WCS = LocalWCS(60.3, 59.6, 0.2, 0.004, -0.006, 0.21)


def gaussian(g1=0.0, g2=0.0, size=0.8, flux=100.0, center=(0.0, 0.0), shape=(121, 121)):
    v, u = WCS.sky(*np.mgrid[: shape[0], : shape[1]])
    image = mixture.render([[flux, *center, *mixture.covariance(g1, g2, size)]], v, u, WCS.area)
    return Observation(image, np.ones(shape), WCS, None)


def test_g11_aperture_flux_is_the_integral():
    table = [[3.0, 0.1, -0.2, *mixture.covariance(0.2, 0.1, 0.8)], [2.0, 0, 0, *mixture.covariance(-0.1, 0.3, 2.5)]]
    v, u = np.mgrid[-15:15:601j, -15:15:601j]
    variance = (2.5 / 2.354820045030949) ** 2
    numeric = (mixture.render(table, v, u) * np.exp(-0.5 * (v * v + u * u) / variance)).sum() * 0.05**2
    assert aperture_flux(table, 2.5) == pytest.approx(numeric, rel=1e-8)


def test_f10_weighted_moments_of_a_gaussian():
    got = gauss_moments([[gaussian(size=0.8)]], 1.2)
    weight = 2 * (1.2 / 2.354820045030949) ** 2
    assert got.flags == 0
    assert 1 / got.size == pytest.approx(1 / 0.8 + 1 / weight, rel=1e-9)
    assert (got.e1, got.e2, got.v, got.u) == pytest.approx((0, 0, 0, 0), abs=1e-9)


@pytest.mark.parametrize("shape", [(0.0, 0.0), (0.3, -0.2), (-0.05, 0.5)])
def test_f11_adaptive_moments_of_a_gaussian(shape):
    got = adaptive_moments([[gaussian(*shape, size=0.9, center=(0.11, -0.07))]], 0.5)
    g1, g2 = mixture.e_to_g(got.e1, got.e2)
    assert got.flags == 0
    assert (g1, g2) == pytest.approx(shape, abs=1.5e-6)
    assert got.size == pytest.approx(0.9, rel=1e-6)
    assert got.rho4 == pytest.approx(2.0, abs=1e-5)
    assert (got.v, got.u) == pytest.approx((0.11, -0.07), abs=1e-6)
    # The matched filter of a Gaussian is its flux.
    assert got.flux[0] == pytest.approx(100.0, rel=1e-5)


def test_f11_noisy_objects_are_nearly_always_found():
    rng, failures = np.random.default_rng(2), 0
    for _ in range(300):
        clean = gaussian(*rng.uniform(-0.3, 0.3, 2), size=0.9, flux=400.0, shape=(121, 121))
        noisy = Observation(clean.image + rng.normal(0, 1.0, clean.image.shape), clean.weight, WCS, None)
        failures += adaptive_moments([[noisy]], 0.9).flags != 0
    assert failures <= 1


def test_moments_of_nothing_are_flagged():
    dark = gaussian()
    for epoch, flag in (
        (Observation(dark.image, np.zeros_like(dark.weight), WCS, None), FitFlag.ZERO_DOF),
        (Observation(-dark.image, dark.weight, WCS, None), FitFlag.NONPOS_FLUX),
        (Observation(dark.image * np.nan, dark.weight, WCS, None), FitFlag.LM_FUNC_NOTFINITE),
    ):
        for got in (gauss_moments([[epoch]], 1.2), adaptive_moments([[epoch]], 0.8)):
            assert got.flags == flag
            assert np.isnan(got.size)


@pytest.mark.long
def test_f4_errors_in_correlated_noise():
    """Pulls are too wide with the errors of white noise, and right with the sandwich."""
    rng = np.random.default_rng(5)
    clean = gaussian(0.1, 0.05, 1.2, 3000.0, shape=(61, 61))
    wcs = WCS.at(30.0, 30.0)
    v, u = wcs.sky(*np.mgrid[:61, :61])
    psf = np.array([[[1.0, 0, 0, 0.2, 0, 0.2]]])
    truth = np.array([0, 0, 0.1, 0.05, 0.8, 3000.0])
    image = mixture.render(mixture.convolve(truth, mixture.profile("gauss"), psf[0]), v, u, wcs.area)
    kernel = np.zeros((61, 61))
    kernel[:3, :3] = 1.0
    transform = np.fft.fft2(kernel)
    power = np.abs(transform) ** 2 * 61 * 61
    plain, sandwich = [], []
    for _ in range(200):
        noise = np.fft.ifft2(np.fft.fft2(rng.normal(0, 1, clean.image.shape)) * transform).real
        data = stack([[Observation(image + noise, np.full(image.shape, 1 / 9), wcs, None)]])
        scene = Scene(data, [model("gauss")], single_links(data, psf))
        fit = fit_scene(scene, [truth], LMOptions())
        assert fit.flags == 0
        plain.append((fit.pars - truth) / np.sqrt(np.diag(fit.cov0)))
        sandwich.append((fit.pars - truth) / np.sqrt(np.diag(correlated_covariance(scene, fit.pars, power))))
    assert np.std(plain, axis=0).min() > 1.5
    assert np.abs(np.std(sandwich, axis=0) - 1).max() < 0.2
