"""Galaxy fits: closed-form errors of M 8.3, oracles F1, F3, F7, F8, F13, F14, F15."""

import galsim
import numpy as np
import pytest
from simulated_stamps import local_wcs, observe

from balrogutils.errors import FitError
from balrogutils.fitting import mixture, mixturekernels
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.galaxy import fit_galaxy, round_statistics
from balrogutils.fitting.gaussians import WINDOW
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.models import model
from balrogutils.fitting.observation import LocalWCS, Observation, stack
from balrogutils.fitting.priors import CenPrior, CosmosSersic, Flat, TwoSidedErf
from balrogutils.fitting.psffit import PSFOptions, fit_psf
from balrogutils.fitting.scene import Scene, single_links
from balrogutils.fitting.solver import LMOptions

ROUND = np.array([[1.0, 0, 0, 0.25, 0, 0.25]])


def render(pars, name, psf, wcs, size=48):
    table = mixture.convolve(pars, model(name).profile(), psf)
    return mixturekernels.render_table(table, size, size, np.array(wcs), WINDOW)


def y3_prior(nband):
    flux = TwoSidedErf(-1e4, 1.0, 1e9, 0.25e8)
    return JointPrior(CenPrior(0.27), CosmosSersic(), TwoSidedErf(-10, 0.03, 1e6, 1e5), [flux] * nband)


def one_stamp(image, weight=None):
    weight = np.ones(image.shape) if weight is None else weight
    return stack([[Observation(image, weight, LocalWCS(23.5, 23.5, 0.263, 0, 0, 0.263), None)]])


START = np.array([0.0, 0, 0, 0, 0.5, 100.0])


def test_nothing_to_fit_is_refused():
    with pytest.raises(FitError, match="no stamp"):
        stack([])
    with pytest.raises(FitError, match="not one stamp"):
        stack([[Observation(np.zeros((0, 0)), np.zeros((0, 0)), LocalWCS(0, 0, 1, 0, 0, 1), None)]])
    with pytest.raises(FitError, match="singular"):
        stack([[Observation(np.zeros((3, 3)), np.ones((3, 3)), LocalWCS(1, 1, 0, 0, 0, 0), None)]])
    with pytest.raises(FitError, match="not finite"):
        one_stamp(np.full((3, 3), np.nan))


@pytest.mark.parametrize("used", [0, 1, 6])
def test_f13_too_few_pixels_are_flagged(used):
    weight = np.zeros(48 * 48)
    weight[:used] = 1.0
    fit = fit_galaxy(one_stamp(np.ones((48, 48)), weight.reshape(48, 48)), ROUND[None], model("exp"),
                     y3_prior(1), [START], LMOptions())  # fmt: skip
    assert fit.flags == FitFlag.ZERO_DOF
    assert np.isnan(fit.pars).all()


def test_f13_limits_and_bad_starts_are_flagged():
    rng = np.random.default_rng(1)
    data = one_stamp(render([0, 0, 0.1, 0, 0.5, 500.0], "exp", ROUND, LocalWCS(23.5, 23.5, 0.263, 0, 0, 0.263))
                     + rng.normal(0, 0.1, (48, 48)))  # fmt: skip
    shape = model("exp")
    assert fit_galaxy(data, ROUND[None], shape, None, [START], LMOptions(maxfev=1)).flags == FitFlag.MAXITER
    negative = START.copy()
    negative[4] = -9.0
    assert fit_galaxy(data, ROUND[None], shape, None, [negative], LMOptions()).flags == FitFlag.GMIX_RANGE_ERROR
    assert fit_galaxy(data, ROUND[None], shape, None, [negative, START], LMOptions()).flags == 0
    assert fit_galaxy(data, ROUND[None], shape, None, [], LMOptions()).flags == FitFlag.NO_ATTEMPT


def test_a_flux_below_what_the_prior_allows_stays_at_its_edge():
    # A hole in the sky: the best flux without the prior is where it has no number.
    hole = render([0, 0, 0.1, 0, 2.0, -3e4], "exp", ROUND, LocalWCS(23.5, 23.5, 0.263, 0, 0, 0.263))
    fit = fit_galaxy(one_stamp(hole), ROUND[None], model("exp"), y3_prior(1), [START], LMOptions())
    assert fit.flags == 0
    assert fit.pars[5] == pytest.approx(-1e4, abs=6.0)


def test_start_at_no_size_ends_at_the_galaxy():
    wcs = LocalWCS(23.5, 23.5, 0.263, 0, 0, 0.263)
    data = one_stamp(render([0, 0, 0.1, 0, 0.5, 500.0], "exp", ROUND, wcs))
    start = START.copy()
    start[4] = 0.0
    fit = fit_galaxy(data, ROUND[None], model("exp"), None, [start], LMOptions(ftol=1e-9, xtol=1e-9))
    assert fit.pars[[2, 4, 5]] == pytest.approx([0.1, 0.5, 500.0], rel=1e-5)


@pytest.mark.parametrize("name", ["gauss", "turb", "exp", "dev"])
@pytest.mark.parametrize("case", range(3))
def test_f1_f8_noise_free_galaxies_are_found_exactly(name, case):
    rng = np.random.default_rng([2, case])
    truth = np.array([*rng.uniform(-0.1, 0.1, 2), *rng.uniform(-0.3, 0.3, 2), rng.uniform(0.3, 1.5), 800.0, 300.0])
    bands, psfs = [], []
    for band in range(2):
        epochs = []
        for _ in range(3):
            wcs = local_wcs(rng, 48, 0.05)
            psf = np.array([[0.7, 0, 0, *mixture.covariance(*rng.uniform(-0.05, 0.05, 2), rng.uniform(0.3, 0.5))],
                            [0.3, 0, 0, *mixture.covariance(0, 0, 0.9)]])  # fmt: skip
            image = render([*truth[:5], truth[5 + band]], name, psf, wcs)
            epochs.append(Observation(image, np.ones((48, 48)), wcs, None))
            psfs.append(psf)
        bands.append(epochs)
    start = np.array([0, 0, 0, 0, 0.4, 500.0, 500.0])
    fit = fit_galaxy(stack(bands), np.array(psfs), model(name), None, [start], LMOptions(ftol=1e-10, xtol=1e-9))
    assert fit.flags == 0
    assert fit.pars[:4] == pytest.approx(truth[:4], abs=1e-6)
    assert fit.pars[4:] == pytest.approx(truth[4:], rel=1e-5)
    assert fit.pars[5] / fit.pars[6] == pytest.approx(800 / 300, rel=1e-7)


def closed_form(nu, t_o, t_p, flux):
    """1-sigma errors of centre, g, T and flux of a round Gaussian galaxy in white noise, all parameters free."""
    t_c = t_o + t_p
    return np.array([np.sqrt(t_c) / nu] * 2 + [t_c / t_o / nu] * 2 + [2 / nu * t_c, np.sqrt(2) / nu * flux])


def gaussian_scene(nu=100.0, flux=1000.0, t_o=0.6, t_p=0.5, scale=0.15, size=81):
    psf = np.array([[1.0, 0, 0, t_p / 2, 0, t_p / 2]])
    wcs = LocalWCS(size // 2, size // 2, scale, 0, 0, scale)
    sigma = flux * scale / (nu * np.sqrt(2 * np.pi * (t_o + t_p)))
    truth = np.array([0, 0, 0, 0, t_o, flux])
    image = render(truth, "gauss", psf, wcs, size)
    return psf, wcs, sigma, truth, image


def test_errors_are_the_closed_form():
    psf, wcs, sigma, truth, image = gaussian_scene()
    data = stack([[Observation(image, np.full(image.shape, sigma**-2), wcs, None)]])
    # A whole-number of residual variance 1 needs noise; the normal matrix does not.
    normal, gradient = np.empty((6, 6)), np.empty(6)
    Scene(data, [model("gauss")], single_links(data, psf[None])).chi2(truth, normal, gradient)
    cov = np.linalg.inv(normal)
    want = closed_form(100.0, 0.6, 0.5, 1000.0)
    # The window beyond chi^2 = 20 and the pixel sums leave parts in 1e4.
    assert np.sqrt(np.diag(cov)) == pytest.approx(want, rel=5e-4)
    assert cov[4, 5] / np.sqrt(cov[4, 4] * cov[5, 5]) == pytest.approx(np.sqrt(0.5), abs=1e-3)


def test_f3_pulls_of_gaussians():
    psf, wcs, sigma, truth, image = gaussian_scene(scale=0.263, size=49)
    rng = np.random.default_rng(3)
    gauss, trials = model("gauss"), 150
    pulls, chi2, s2n = [], [], []
    for _ in range(trials):
        data = stack(
            [[Observation(image + rng.normal(0, sigma, image.shape), np.full(image.shape, sigma**-2), wcs, None)]]
        )
        fit = fit_galaxy(data, psf[None], gauss, None, [np.array([0, 0, 0, 0, 0.5, 900.0])], LMOptions())
        assert fit.flags == 0
        pulls.append((fit.pars - truth) / np.sqrt(np.diag(fit.cov)))
        chi2.append(fit.chi2per)
        s2n.append(fit.s2n)
    pulls = np.array(pulls)
    # Three and a half standard errors of a mean and of a width; T has a skewness of order 1 / nu.
    assert np.abs(pulls.mean(0)).max() < 3.5 / np.sqrt(trials) + 0.05
    assert np.abs(pulls.std(0) - 1).max() < 3.5 / np.sqrt(2 * trials)
    assert np.mean(chi2) == pytest.approx(1.0, abs=4 * np.sqrt(2 / 2401 / trials))
    assert np.mean(s2n) == pytest.approx(100.0, abs=4 / np.sqrt(trials) + 0.1)


def test_weights_wrong_by_a_factor_change_no_error():
    psf, wcs, sigma, _, image = gaussian_scene(scale=0.263, size=49)
    noisy = image + np.random.default_rng(4).normal(0, sigma, image.shape)
    fits = []
    for factor in (1.0, 9.0):
        data = stack([[Observation(noisy, np.full(image.shape, factor / sigma**2), wcs, None)]])
        fits.append(fit_galaxy(data, psf[None], model("gauss"), None, [START], LMOptions()))
    assert np.diag(fits[1].cov) == pytest.approx(np.diag(fits[0].cov), rel=1e-3)
    assert np.diag(fits[1].cov0) == pytest.approx(np.diag(fits[0].cov0) / 9, rel=1e-3)


def test_f7_garbage_under_zero_weight_changes_nothing():
    rng = np.random.default_rng(5)
    wcs = LocalWCS(23.5, 23.5, 0.263, 0, 0, 0.263)
    clean = render([0.02, 0, 0.1, 0, 0.5, 500.0], "exp", ROUND, wcs) + rng.normal(0, 0.5, (48, 48))
    weight = np.full((48, 48), 4.0)
    weight[:15] = 0.0
    fits = []
    for garbage in (0.0, 1e6, np.nan):
        image = clean.copy()
        image[:15] = garbage
        fits.append(fit_galaxy(one_stamp(image, weight), ROUND[None], model("exp"), y3_prior(1), [START], LMOptions()))
    for fit in fits[1:]:
        assert np.array_equal(fit.pars, fits[0].pars)
        assert np.array_equal(fit.cov, fits[0].cov)


def test_f15_start_does_not_matter():
    rng = np.random.default_rng(6)
    wcs = LocalWCS(23.5, 23.5, 0.263, 0, 0, 0.263)
    data = one_stamp(render([0.02, 0.05, 0.1, -0.2, 0.6, 800.0], "exp", ROUND, wcs) + rng.normal(0, 1.0, (48, 48)))
    ends, errors = [], []
    for _ in range(20):
        start = np.array(
            [*rng.uniform(-0.1, 0.1, 2), *rng.uniform(-0.3, 0.3, 2), rng.uniform(0.1, 3), rng.uniform(300, 2000)]
        )
        fit = fit_galaxy(data, ROUND[None], model("exp"), y3_prior(1), [start], LMOptions())
        assert fit.flags == 0
        ends.append(fit.pars)
        errors.append(np.sqrt(np.diag(fit.cov)))
    # All ends within a hundredth of a standard error of each other, and their errors within one per cent.
    assert (np.ptp(ends, axis=0) / errors[0]).max() < 0.01
    assert (np.ptp(errors, axis=0) / errors[0]).max() < 0.01


def test_flat_priors_change_nothing():
    psf, wcs, sigma, _, image = gaussian_scene(scale=0.263, size=49)
    data = stack([[Observation(image + np.random.default_rng(8).normal(0, sigma, image.shape),
                               np.full(image.shape, sigma**-2), wcs, None)]])  # fmt: skip
    flat = JointPrior(None, None, Flat(-1, 1e5), [Flat(-1e3, 1e9)])
    fits = [fit_galaxy(data, psf[None], model("gauss"), p, [START], LMOptions()) for p in (None, flat)]
    assert fits[0].pars == pytest.approx(fits[1].pars, rel=1e-12)


def drawn(rng, profile, flux, noise, epochs=4):
    seen = [observe(rng, profile, flux, noise) for _ in range(epochs)]
    psfs = [fit_psf(one.psf, one.wcs, PSFOptions()) for one in seen]
    return seen, psfs


def test_f14_star_has_no_size():
    rng = np.random.default_rng(10)
    for _ in range(5):
        seen, psfs = drawn(rng, None, 2000.0, 2.0)
        mixtures = np.array([psf.mixture for psf in psfs])
        start = np.array([0, 0, 0, 0, psfs[0].size, 1500.0])
        fit = fit_galaxy(stack([seen]), mixtures, model("exp"), y3_prior(1), [start], LMOptions())
        assert fit.flags == 0
        assert abs(fit.pars[4]) < 4 * np.sqrt(fit.cov[4, 4]) + 2e-3
        assert fit.pars[5] == pytest.approx(2000.0, rel=0.01 + 4 * np.sqrt(fit.cov[5, 5]) / 2000)


def test_round_statistics_of_a_round_galaxy_are_its_own():
    psf, wcs, sigma, truth, image = gaussian_scene(scale=0.263, size=49)
    data = stack([[Observation(image, np.full(image.shape, sigma**-2), wcs, None)]])
    result = round_statistics(data, psf[None], model("gauss"), truth, np.array([[1.0, 0.5]]))
    assert (result.flags, result.size, result.psf_size) == (0, truth[4], 0.5)
    assert result.s2n == pytest.approx(100.0, rel=1e-3)


@pytest.mark.long
def test_isolated_galaxies_drawn_by_galsim():
    """400 exponential galaxies of S/N above 30: median flux within 2 per cent, robust pull width 0.8 to 1.2."""
    rng = np.random.default_rng(20)
    ratio, pulls = [], []
    for _ in range(400):
        g = rng.uniform(-0.25, 0.25, 2)
        profile = galsim.Exponential(half_light_radius=rng.uniform(0.25, 0.7)).shear(g1=g[0], g2=g[1])
        flux = rng.uniform(300, 3000)
        seen, psfs = drawn(rng, profile, flux, 2.0, 5)
        start = np.array([0, 0, 0, 0, psfs[0].size, flux * rng.uniform(0.6, 1.4)])
        mixtures = np.array([p.mixture for p in psfs])
        fit = fit_galaxy(stack([seen]), mixtures, model("exp"), y3_prior(1), [start],
                         LMOptions())  # fmt: skip
        assert fit.flags == 0
        if fit.s2n > 30:
            ratio.append(fit.pars[5] / flux - 1)
            pulls.append((fit.pars[5] - flux) / np.sqrt(fit.cov[5, 5]))
    pulls = np.array(pulls)
    assert len(pulls) > 300
    assert abs(np.median(ratio)) < 0.02
    assert 0.8 < 1.4826 * np.median(np.abs(pulls - np.median(pulls))) < 1.2
