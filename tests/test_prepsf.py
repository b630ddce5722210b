"""Moments before the PSF, and moments of several epochs and bands: oracle F12, and closed forms."""

import galsim
import numpy as np
import pytest
from simulated_stamps import galsim_wcs, local_wcs

from balrogutils.errors import FitError
from balrogutils.fitting import mixture
from balrogutils.fitting.adaptive import adaptive_moments
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.moments import gauss_moments, linear_moments
from balrogutils.fitting.observation import LocalWCS, Observation, PSFStamp
from balrogutils.fitting.prepsf import prepsf_kernels, prepsf_moments

FWHM = 2.0
SIGMA2 = (FWHM / 2.354820045030949) ** 2


def gaussian(wcs, flux, shape, psf, center=(0.0, 0.0), side=65):
    """A Gaussian galaxy and PSF of g1, g2, T; sampled, without the pixel."""
    table = [[1.0, 0, 0, *mixture.covariance(*psf)]]
    v, u = wcs.sky(*np.mgrid[:side, :side])
    image = mixture.render(
        mixture.convolve([*center, *shape, flux], mixture.profile("gauss"), table), v, u, area=wcs.area
    )
    at = wcs.at(24.3, 23.8)
    stamp = mixture.render(table, *at.sky(*np.mgrid[:49, :49]), at.area)
    return Observation(image, np.ones(image.shape), wcs, PSFStamp(stamp, 24.3, 23.8))


def epochs(rng, count, flux, shape, center=(0.0, 0.0)):
    """Epochs of one galaxy, each with its own WCS and PSF."""
    return [
        gaussian(local_wcs(rng, 65), flux, shape, (*rng.normal(0, 0.05, 2), rng.uniform(0.35, 0.55)), center)
        for _ in range(count)
    ]


def noisy(rng, observed, sigma):
    weight = np.full(observed.image.shape, sigma**-2)
    return Observation(observed.image + rng.normal(0, sigma, weight.shape), weight, observed.wcs, observed.psf)


def test_pgauss_is_the_closed_form_of_a_gaussian():
    """Flux F sqrt(det), and covariances add inversely: object and kernel multiplied."""
    rng = np.random.default_rng(1)
    shape = (0.2, -0.1, 0.7)
    bands = [epochs(rng, 3, 100.0, shape), epochs(rng, 2, 40.0, shape)]
    got = prepsf_moments(bands, "pgauss", FWHM)
    irr, irc, icc = mixture.covariance(*shape)
    own = np.array([[irr, irc], [irc, icc]])
    inside = np.linalg.inv(np.linalg.inv(own) + np.eye(2) / SIGMA2)
    share = np.sqrt(np.linalg.det(inside) / np.linalg.det(own))
    trace = np.trace(inside)
    assert got.flags == 0
    assert got.flux == pytest.approx(np.array([100.0, 40.0]) * share, rel=1e-6)
    assert got.size == pytest.approx(trace, rel=1e-6)
    assert (got.e1, got.e2) == pytest.approx(
        ((inside[1, 1] - inside[0, 0]) / trace, 2 * inside[0, 1] / trace), abs=1e-6
    )
    assert (got.v, got.u) == pytest.approx((0, 0), abs=1e-6)


@pytest.mark.parametrize("name", ["ksigma", "pgauss"])
def test_centroid_and_centre(name):
    rng = np.random.default_rng(2)
    place = (0.11, -0.07)
    bands = [epochs(rng, 2, 100.0, (0.0, 0.0, 0.5), place)]
    off = prepsf_moments(bands, name, FWHM)
    assert off.v > 0.5 * place[0]
    assert off.u < 0.5 * place[1]
    at = prepsf_moments(bands, name, FWHM, center=place)
    assert (at.v, at.u, at.e1, at.e2) == pytest.approx((0, 0, 0, 0), abs=1e-6)


@pytest.mark.parametrize("name", ["ksigma", "pgauss"])
def test_f12_nothing_depends_on_the_psf(name):
    """Flux and moments of an exponential through two Moffat PSFs, drawn by GalSim."""
    fine = {"gsparams": galsim.GSParams(folding_threshold=1e-4, maxk_threshold=1e-5, kvalue_accuracy=1e-7)}
    galaxy = galsim.Exponential(half_light_radius=0.5, flux=1000.0, **fine).shear(g1=0.2, g2=0.1)
    psfs = [galsim.Moffat(3.5, fwhm=0.8, **fine), galsim.Moffat(3.0, fwhm=1.0, **fine).shear(g1=0.05)]
    side, middle = 151, 75
    wcs = LocalWCS(middle, middle, 0.263, 0.001, -0.002, 0.262)
    found = []
    for psf in psfs:
        sky = galsim_wcs(wcs)
        image = galsim.Convolve(galaxy, psf).drawImage(nx=side, ny=side, wcs=sky, dtype=float).array
        stamp = psf.drawImage(nx=side, ny=side, wcs=sky, dtype=float).array
        # PSF and image both lack what lies outside: the stamps are as they were drawn, not divided by their sums.
        observed = Observation(image / stamp.sum(), np.ones(image.shape), wcs, PSFStamp(stamp, middle, middle))
        found.append(prepsf_moments([[observed]], name, FWHM))
    for got in found[1:]:
        assert got.flux[0] == pytest.approx(found[0].flux[0], rel=1e-5)
        assert got.size == pytest.approx(found[0].size, rel=1e-5)
        assert (got.e1, got.e2) == pytest.approx((found[0].e1, found[0].e2), abs=1e-5)


def test_without_a_psf_the_pixel_is_taken_out():
    galaxy = galsim.Gaussian(fwhm=1.1, flux=100.0)
    wcs = LocalWCS(32.3, 31.8, 0.263, 0.001, -0.002, 0.262)
    image = galaxy.drawImage(nx=65, ny=65, wcs=galsim_wcs(wcs), offset=(-0.2, 0.3), dtype=float).array
    got = prepsf_moments([[Observation(image, np.ones(image.shape), wcs, None)]], "pgauss", FWHM)
    variance = galaxy.sigma**2
    assert got.flux[0] == pytest.approx(100.0 * SIGMA2 / (SIGMA2 + variance), rel=1e-5)
    assert got.size == pytest.approx(2.0 * variance * SIGMA2 / (SIGMA2 + variance), rel=1e-4)


@pytest.mark.parametrize("fwhm", [0.2, 30.0])
def test_f12_a_transform_that_does_not_hold_the_kernel_is_refused(fwhm):
    observed = epochs(np.random.default_rng(3), 1, 1.0, (0.0, 0.0, 0.5))
    with pytest.raises(FitError, match="does not hold the kernel"):
        prepsf_kernels([observed], "ksigma", fwhm)


def test_kernels_of_no_name_or_width_are_refused():
    observed = epochs(np.random.default_rng(3), 1, 1.0, (0.0, 0.0, 0.5))
    with pytest.raises(FitError, match="there is no kernel"):
        prepsf_kernels([observed], "ksigm", 2.0)
    with pytest.raises(FitError, match="no width"):
        prepsf_kernels([observed], "ksigma", 0.0)


@pytest.mark.parametrize("trials", [500, pytest.param(10_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["ksigma", "pgauss"])
def test_f12_pulls(name, trials):
    """Two epochs in each of two bands: widths of pulls."""
    rng = np.random.default_rng(4)
    shape = (0.1, 0.05, 0.6)
    clean = [epochs(rng, 2, 100.0, shape), epochs(rng, 2, 60.0, shape)]
    kernels = prepsf_kernels(clean, name, FWHM)
    truth = linear_moments(clean, kernels)
    sigmas = [[0.02, 0.03], [0.02, 0.02]]
    pulls = []
    for _ in range(trials):
        drawn = [[noisy(rng, one, s) for one, s in zip(*pair, strict=True)] for pair in zip(clean, sigmas, strict=True)]
        got = linear_moments(drawn, kernels)
        assert got.flags == 0
        errors = [*got.flux_err, got.size_err, *np.sqrt(np.diag(got.e_cov))]
        value = np.array([*got.flux, got.size, got.e1, got.e2])
        pulls.append((value - [*truth.flux, truth.size, truth.e1, truth.e2]) / errors)
    # 10^4 draws give a width to 0.7 per cent, 500 to 3.2 per cent.
    assert np.std(pulls, axis=0) == pytest.approx(np.ones(5), abs=0.02 if trials == 10_000 else 0.1)


def test_bands_and_epochs_of_weighted_moments():
    """A galaxy seen twice has errors less by sqrt(2), and moments that are means; fluxes are those of each band."""
    rng = np.random.default_rng(5)
    one = gaussian(local_wcs(rng, 65), 100.0, (0.1, 0.0, 0.6), (0.0, 0.0, 0.4))
    single, double = gauss_moments([[one]], 1.2), gauss_moments([[one, one]], 1.2)
    assert double.flux == pytest.approx(single.flux)
    assert double.flux_err == pytest.approx(single.flux_err / np.sqrt(2))
    assert double.e_cov == pytest.approx(single.e_cov / 2)
    bright = Observation(3 * one.image, one.weight, one.wcs, one.psf)
    both = gauss_moments([[one], [bright]], 1.2)
    assert both.flux == pytest.approx([single.flux[0], 3 * single.flux[0]])
    assert (both.e1, both.size) == pytest.approx((single.e1, single.size))
    adaptive = adaptive_moments([[one], [bright, bright]], 0.9)
    assert adaptive.flux == pytest.approx([100.0, 300.0], rel=1e-5)
    assert adaptive.size == pytest.approx(1.0, rel=1e-5)


def test_pulls_of_weighted_and_adaptive_moments():
    rng = np.random.default_rng(6)
    clean = [gaussian(local_wcs(rng, 49), 100.0, (0.1, 0.05, 0.6), (0.0, 0.02, 0.4), side=49) for _ in range(2)]
    for measure in (lambda bands: gauss_moments(bands, 1.2), lambda bands: adaptive_moments(bands, 1.0)):
        truth, pulls = measure([clean]), []
        for _ in range(400):
            got = measure([[noisy(rng, one, 0.04) for one in clean]])
            assert got.flags == 0
            errors = [got.flux_err[0], got.size_err, *np.sqrt(np.diag(got.e_cov))]
            value = np.array([got.flux[0], got.size, got.e1, got.e2])
            pulls.append((value - [truth.flux[0], truth.size, truth.e1, truth.e2]) / errors)
        # 400 draws give a width to 3.5 per cent.
        assert np.std(pulls, axis=0) == pytest.approx(np.ones(4), abs=0.12)


def test_masked_and_bad_pixels():
    rng = np.random.default_rng(7)
    one = epochs(rng, 1, 100.0, (0.0, 0.0, 0.6))[0]
    hole = one.weight.copy()
    hole[28:36, 28:36] = 0.0
    poisoned = np.where(hole > 0, one.image, 1e6)
    corner = one.weight.copy()
    corner[:6, :6] = 0.0
    nothing = Observation(one.image, 0 * one.weight, one.wcs, one.psf)
    bad = Observation(one.image * np.nan, one.weight, one.wcs, one.psf)
    assert prepsf_moments([[Observation(poisoned, hole, one.wcs, one.psf)]], "ksigma", FWHM).flags == FitFlag.ZERO_DOF
    edge = prepsf_moments([[Observation(one.image, corner, one.wcs, one.psf)]], "ksigma", FWHM)
    assert edge.flags == 0
    assert edge.flux == pytest.approx(prepsf_moments([[one]], "ksigma", FWHM).flux, rel=1e-5)
    assert prepsf_moments([[nothing]], "ksigma", FWHM).flags == FitFlag.ZERO_DOF
    assert prepsf_moments([[bad]], "ksigma", FWHM).flags == FitFlag.LM_FUNC_NOTFINITE
    assert prepsf_moments([[one], []], "ksigma", FWHM).flags == FitFlag.ZERO_DOF
    assert prepsf_moments([], "ksigma", FWHM).flags == FitFlag.ZERO_DOF
    pixel = Observation(np.ones((1, 1)), np.ones((1, 1)), one.wcs.at(0, 0), None)
    with pytest.raises(FitError, match="does not hold the kernel"):
        prepsf_moments([[pixel]], "ksigma", FWHM)
    dark = prepsf_moments([[Observation(-one.image, one.weight, one.wcs, one.psf)]], "pgauss", FWHM)
    assert dark.flags == FitFlag.NONPOS_FLUX
    assert np.isnan(dark.size)
    assert dark.flux[0] < 0
