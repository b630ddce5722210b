"""Compiled mixtures on pixels: oracles G4, G8, F5."""

import numpy as np
import pytest
from simulated_stamps import local_wcs

from balrogutils.fitting import kernels, mixture
from balrogutils.fitting.observation import LocalWCS, Observation, stack

PSF = np.array([[0.2756, 0, 0, 0.06, 0.003, 0.07], [0.5582, 0, 0, 0.16, 0.003, 0.15], [0.1662, 0, 0, 0.47, 0.01, 0.5]])
PSF[:, 0] /= PSF[:, 0].sum()


def exact(table, wcs, size):
    """The same mixture and window, by exp of every pixel."""
    row, col = np.mgrid[:size, :size]
    v, u = wcs.sky(row, col)
    image = np.zeros((size, size))
    for p, cv, cu, irr, irc, icc in table:
        det = irr * icc - irc * irc
        chi2 = (icc * (v - cv) ** 2 + irr * (u - cu) ** 2 - 2 * irc * (v - cv) * (u - cu)) / det
        w = np.clip((25.0 - chi2) / 5.0, 0.0, 1.0)
        image += p / (2 * np.pi * np.sqrt(det)) * np.exp(-0.5 * chi2) * w**3 * (10 - 15 * w + 6 * w * w)
    return image * wcs.area


def test_total_flux_loses_what_the_window_takes():
    # One round Gaussian, T = 0.72, 0.1 arcsec pixels: the window loses 1.452e-5.
    wcs = LocalWCS(100.3, 99.8, 0.1, 0.0, 0.0, 0.1)
    image = kernels.render_table(np.array([[1.0, 0, 0, 0.36, 0, 0.36]]), 201, 201, np.array(wcs))
    assert 1.0 - image.sum() == pytest.approx(1.452e-5, rel=2e-3)


@pytest.mark.parametrize("center", [(0.0, 0.0), (2.0, -3.0), (-40.0, 0.0), (5.4, 5.4)])
def test_recurrence_equals_exp_of_every_pixel(center):
    wcs = LocalWCS(23.6, 24.2, 0.263, 0.012, -0.02, 0.27)
    galaxy = mixture.convolve([*center, 0.1, -0.05, 0.9, 1.0], mixture.profile("dev"), PSF)
    image = kernels.render_table(galaxy, 48, 48, np.array(wcs))
    want = exact(galaxy, wcs, 48)
    assert np.abs(image - want).max() <= 1e-13 * max(want.max(), 1e-3)


def test_impossible_covariance_is_nan_and_not_a_picture():
    wcs = np.array([5.0, 5.0, 0.263, 0, 0, 0.263])
    for table in ([[1.0, 0, 0, -1.0, 0, 1.0]], [[1.0, 0, 0, 1.0, 2.0, 1.0]], [[1.0, 0, 0, np.nan, 0, 1.0]]):
        assert np.isnan(kernels.render_table(np.array(table), 11, 11, wcs)).all()


@pytest.mark.parametrize("model", ["gauss", "turb", "exp", "dev"])
@pytest.mark.parametrize("case", range(3))
def test_gradient_and_normal_matrix_are_derivatives(model, case):
    rng = np.random.default_rng([5, case])
    shape = mixture.profile(model)

    def noise():
        image, weight = rng.normal(0, 1, (40, 36)), rng.uniform(0.5, 1.5, (40, 36))
        return Observation(image, weight, local_wcs(rng, 38, 0.05), None)

    data = stack([[noise(), noise()], [noise(), noise()]])
    psf = np.repeat(PSF[None], 4, 0)
    pars = np.array([*rng.normal(0, 0.2, 2), *rng.uniform(-0.4, 0.4, 2), rng.uniform(0.2, 2.0), 900.0, 400.0])
    normal, gradient = np.empty((7, 7)), np.empty(7)

    def chi2(x):
        return kernels.evaluate_galaxy(x, shape.p, shape.f, *data[:7], psf, normal, gradient)

    def images(x):
        epochs = range(4)
        tables = [mixture.convolve([*x[:5], x[5 + k // 2]], shape, PSF) for k in epochs]
        return [exact(tables[k], LocalWCS(*data.wcs[k]), 40)[:, :36] for k in epochs]

    assert chi2(pars) >= 0
    got_normal, got_gradient = normal.copy(), gradient.copy()
    weights = data.weight.reshape(4, 40, 36)
    columns = []
    for k, h in enumerate((1e-4, 1e-4, 1e-5, 1e-5, 1e-5, 1e-2, 1e-2)):
        step = np.zeros(7)
        step[k] = h
        columns.append((np.array(images(pars + step)) - np.array(images(pars - step))) / (2 * h))
    jacobian = np.array(columns)
    residual = np.array(images(pars)) - data.image.reshape(4, 40, 36)
    want = np.einsum("aeij,beij,eij->ab", jacobian, jacobian, weights)
    scale = np.sqrt(np.outer(np.diag(want), np.diag(want)))
    # Central differences of this step leave 1e-7; a wrong term would show at 1e-3 and above.
    assert np.abs(got_normal - want).max() <= 1e-6 * scale.max()
    assert (np.abs(got_normal - want) / scale).max() < 1e-6
    size = np.sqrt(np.diag(want) * chi2(pars))
    assert (np.abs(got_gradient - np.einsum("aeij,eij->a", jacobian, weights * residual)) / size).max() < 1e-7


@pytest.mark.parametrize("ncomp", [1, 3, 5])
def test_psf_gradient_is_the_derivative(ncomp):
    rng = np.random.default_rng([6, ncomp])
    image = rng.normal(0, 1, 31 * 31)
    weight = np.ones(31 * 31)
    wcs = np.array(LocalWCS(15, 15, 0.26, 0.01, -0.02, 0.27))
    pars = np.array([0.02, -0.03, 0.1, -0.05, *np.linspace(-2, 0, ncomp), *rng.uniform(0.5, 1.5, ncomp)])
    normal, gradient = np.empty((pars.size, pars.size)), np.empty(pars.size)

    def chi2(x):
        return kernels.evaluate_psf(x, ncomp, image, weight, 31, 31, wcs, normal, gradient)

    chi2(pars)
    got, width = gradient.copy(), np.sqrt(np.diag(normal) * chi2(pars))
    for k in range(pars.size):
        step = np.zeros(pars.size)
        step[k] = 1e-5
        slope = (chi2(pars + step) - chi2(pars - step)) / 4e-5
        assert got[k] == pytest.approx(slope, abs=1e-7 * width[k])


def test_out_of_range_is_said():
    normal, gradient = np.empty((6, 6)), np.empty(6)
    data = stack([[Observation(np.zeros((9, 9)), np.ones((9, 9)), LocalWCS(4, 4, 0.263, 0, 0, 0.263), None)]])
    shape = mixture.profile("exp")
    for bad in (
        [0, 0, 0.9, 0.5, 0.5, 1.0],
        [0, 0, 0, 0, -5.0, 1.0],
        [0, 0, np.nan, 0, 0.5, 1.0],
        [0, 0, 0, 0, np.nan, 1.0],
    ):
        pars = np.array(bad)
        assert kernels.evaluate_galaxy(pars, shape.p, shape.f, *data[:7], PSF[None], normal, gradient) == -1.0
