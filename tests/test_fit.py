"""Fits of every model: oracles F1, F2, F4, F6, F8, F13, and scenes of several sources (O3, O6)."""

import galsim
import numpy as np
import pytest
from simulated_stamps import local_wcs, observe

from balrogutils.errors import FitError
from balrogutils.fitting import mixture, mixturekernels, sersicbank
from balrogutils.fitting.composite import fit_composite, mix_models
from balrogutils.fitting.fit import fit_scene
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.galaxy import fit_galaxy
from balrogutils.fitting.gaussians import WINDOW
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.kernels import Links
from balrogutils.fitting.models import composite, model, model_names
from balrogutils.fitting.observation import LocalWCS, Observation, stack
from balrogutils.fitting.pixelpsf import PSFResiduals, fit_pixelised
from balrogutils.fitting.priors import FRACDEV_Y3, CenPrior, Flat, GPriorBA, Normal
from balrogutils.fitting.psffit import PSFOptions, fit_psf, psf_family
from balrogutils.fitting.scene import Scene, single_links
from balrogutils.fitting.solver import LMOptions

TIGHT = LMOptions(2000, 1e-12, 1e-12)
PSF = np.array([[0.7, 0, 0, 0.2, 0.01, 0.22], [0.3, 0, 0, 0.5, -0.02, 0.45]])
EXTRAS = {"bdf": [0.4], "bd": [0.25, 0.4], "bdf_true": [0.4], "sersic": [1.8]}


def picture(name, pars, psf, wcs, size=48):
    """One stamp of a model with one flux, by the slow sum."""
    one = model(name) if isinstance(name, str) else name
    if one.point:
        table = psf * [pars[-1], 1, 1, 1, 1, 1]
        table[:, 1:3] += pars[:2]
    else:
        table = mixture.convolve([*pars[:5], pars[-1]], one.profile(pars[5:-1]), psf)
    return mixturekernels.render_table(table, size, size, np.array(wcs), WINDOW)


def two_bands(rng, name, pars, fluxes, noise=0.0):
    """Three epochs of two bands with their own PSFs and maps."""
    bands, psfs = [], []
    for flux in fluxes:
        epochs = []
        for _ in range(3):
            wcs = local_wcs(rng, 48, 0.05)
            psf = np.array([[0.7, 0, 0, *mixture.covariance(*rng.uniform(-0.05, 0.05, 2), rng.uniform(0.3, 0.5))],
                            [0.3, 0, 0, *mixture.covariance(0, 0, 0.9)]])  # fmt: skip
            image = picture(name, [*pars, flux], psf, wcs)
            weight = np.full(image.shape, noise**-2 if noise else 1.0)
            epochs.append(Observation(image + rng.normal(0, noise, image.shape), weight, wcs, None))
            psfs.append(psf)
        bands.append(epochs)
    return stack(bands), np.array(psfs)


def test_models_are_known_by_name():
    assert {"gauss", "turb", "exp", "dev", "bdf", "bd", "point", "sersic", "dev_true", "bdf_true"} <= set(model_names())
    with pytest.raises(FitError, match="did you mean 'sersic'"):
        model("sersik")


@pytest.mark.parametrize(
    "name", ["gauss", "turb", "exp", "dev", "bdf", "bd", "sersic", "dev_true", "bdf_true", "point"]
)
@pytest.mark.parametrize("case", range(3))
def test_f1_f2_f8_every_model_is_found_exactly(name, case):
    rng = np.random.default_rng([2, case])
    pars = [*rng.uniform(-0.1, 0.1, 2), *rng.uniform(-0.3, 0.3, 2), rng.uniform(0.5, 1.5), *EXTRAS.get(name, [])]
    start = np.array([0, 0, 0, 0, 0.4, *(extra.start for extra in model(name).extras), 1.0, 1.0])
    if name == "point":
        pars, start = pars[:2], np.array([0.0, 0.0, 1.0, 1.0])
    data, psf = two_bands(rng, name, pars, (5000.0, 1000.0))
    # Without the mergers of components, as the images were drawn.
    scene = Scene(data, [model(name)], single_links(data, psf))
    fit = fit_scene(scene, [start], TIGHT)
    assert fit.flags == 0
    # The upstream gate is 1e-5, and 2e-3 for bd, whose parameters nearly stand for each other.
    worst = 2e-3 if name == "bd" else 1e-5
    assert fit.pars[: len(pars)] == pytest.approx(pars, abs=worst)
    assert fit.pars[-2:] == pytest.approx([5000, 1000], rel=worst)
    assert fit.pars[-2] / fit.pars[-1] == pytest.approx(5.0, rel=1e-7)


def noisy(name, seed=5):
    rng = np.random.default_rng(seed)
    pars = [0.03, -0.02, 0.15, -0.1, 0.8, *EXTRAS.get(name, [])]
    data, psf = two_bands(rng, name, pars, (5000.0, 2500.0), noise=4.0)
    start = np.array([0, 0, 0, 0, 0.4, *(extra.start for extra in model(name).extras), 4000.0, 3000.0])
    return data, psf, start


@pytest.mark.parametrize("name", ["gauss", "exp", "dev", "bdf", "sersic"])
def test_f6_projected_fluxes_end_where_all_parameters_end(name):
    data, psf, start = noisy(name)
    scene = Scene(data, [model(name)], single_links(data, psf))
    fits = [fit_scene(scene, [start], TIGHT, project=project) for project in (True, False)]
    assert fits[0].flags == fits[1].flags == 0
    errors = np.sqrt(np.diag(fits[0].cov))
    assert (np.abs(fits[0].pars - fits[1].pars) / errors).max() < 1e-3
    # Errors are those of the last point that was evaluated, up to a short step before the end.
    assert np.abs((fits[0].cov - fits[1].cov) / np.outer(errors, errors)).max() < 2e-3
    assert fits[0].nfev <= fits[1].nfev


@pytest.mark.parametrize("name", ["exp", "bdf"])
def test_f6_the_optimum_is_that_of_finite_differences(name):
    from scipy.optimize import least_squares

    data, psf, start = noisy(name)
    fit = fit_galaxy(data, psf, model(name), None, [start], TIGHT)
    calls = 0

    def residuals(pars):
        nonlocal calls
        calls += 1
        out = []
        for k in range(6):
            table = [*pars[:-2], pars[-2 + k // 3]]
            image = picture(name, np.array(table), psf[k], LocalWCS(*data.wcs[k]))
            out.append((image.ravel() - data.image[data.start[k] :][: image.size]) / 4.0)
        return np.concatenate(out)

    peer = least_squares(residuals, start, x_scale=np.sqrt(np.diag(fit.cov)), xtol=1e-12, ftol=1e-12)
    assert (np.abs(peer.x - fit.pars) / np.sqrt(np.diag(fit.cov))).max() < 1e-3
    assert fit.nfev < 0.6 * calls


def test_f8_joint_flux_errors_are_the_inverse_sums():
    data, psf, _ = noisy("exp")
    free = np.array([False] * 5 + [True] * 2)
    pars = np.array([0.03, -0.02, 0.15, -0.1, 0.8, 1.0, 1.0])
    fit = fit_scene(Scene(data, [model("exp")], single_links(data, psf), free=free), [pars], TIGHT)
    assert np.array_equal(fit.pars[:5], pars[:5])
    for band in range(2):
        power = sum(
            (picture("exp", [*pars[:5], 1.0], psf[k], LocalWCS(*data.wcs[k])) ** 2).sum() / 16.0
            for k in range(3 * band, 3 * band + 3)
        )
        assert fit.cov0[5 + band, 5 + band] == pytest.approx(1.0 / power, rel=1e-6)
    assert not fit.cov0[:5].any()


def test_priors_and_bounds_hold_where_fluxes_are_projected():
    data, psf, start = noisy("bdf")
    flux = [Normal(5200.0, 30.0), Flat(0.0, 2400.0)]
    prior = JointPrior(CenPrior(0.2), GPriorBA(0.2), Flat(-0.1, 1e5), flux, [Normal(0.5, 0.1, 0.0, 1.0)])
    scene = Scene(data, [model("bdf")], single_links(data, psf), [prior])
    fits = [fit_scene(scene, [start], TIGHT, project=project) for project in (True, False)]
    for fit in fits:
        assert fit.flags == 0
        assert fit.pars[-1] == 2400.0
        assert 5000 < fit.pars[-2] < 5200
    assert (np.abs(fits[0].pars - fits[1].pars) / np.sqrt(np.diag(fits[0].cov))).max() < 1e-3


def test_fracdev_stays_in_its_range():
    rng = np.random.default_rng(8)
    data, psf = two_bands(rng, "exp", [0, 0, 0.1, 0, 0.8], (5000.0, 2500.0), noise=4.0)
    prior = JointPrior(None, None, None, [Flat(-1e3, 1e9)] * 2, [Flat(0.0, 1.0)])
    start = np.array([0, 0, 0, 0, 0.4, 0.5, 4000.0, 3000.0])
    fit = fit_galaxy(data, psf, model("bdf"), prior, [start], LMOptions())
    assert fit.flags == 0
    assert 0.0 <= fit.pars[5] < 0.2


def test_g7_composite_is_its_parts_at_the_ends():
    for share, ratio, name in ((0.0, 0.5, "exp"), (1.0, 1.0, "dev")):
        got, want = composite(share, ratio).profile(), model(name).profile()
        used = got.p != 0
        assert got.p[used] == pytest.approx(want.p, rel=1e-14)
        assert got.f[used] == pytest.approx(want.f, rel=1e-12)
    for share in (0.0, 0.3, 0.8, 1.0):
        for ratio in (0.01, 0.5, 1.0, 4.0):
            one = composite(share, ratio).profile()
            assert one.p @ one.f == pytest.approx(1.0, rel=1e-12)
            assert model("bd").profile([np.log10(ratio), share]).f == pytest.approx(one.f, rel=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_f2_composite_finds_a_composite(share):
    rng = np.random.default_rng(11)
    truth = composite(share, 1.0)
    pars = [0.02, 0.03, 0.1, -0.2, 0.8]
    bands, psf = two_bands(rng, truth, pars, (5000.0, 2500.0))
    start = np.array([0, 0, 0, 0, 0.4, 1.0, 1.0])
    found = fit_composite(bands, psf, None, [start], TIGHT)
    assert found.fit.flags == 0
    # The share is that of the two best single fits, not of the model: only at the ends are they the same.
    if share in (0.0, 1.0):
        assert found.fracdev_noclip == pytest.approx(share, abs=1e-4)
        assert found.fit.pars[:5] == pytest.approx(pars, abs=1e-4)
        assert found.fit.pars[5:] == pytest.approx([5000, 2500], rel=1e-4)
    else:
        assert 0.1 < found.fracdev < 0.6
        assert found.fit.pars[5:] == pytest.approx([5000, 2500], rel=0.02)


def test_fracdev_is_the_maximum_of_the_likelihood():
    data, psf, _ = noisy("bdf")
    start = np.array([0, 0, 0, 0, 0.4, 4000.0, 3000.0])
    exp, dev = (fit_galaxy(data, psf, model(name), None, [start], TIGHT).pars for name in ("exp", "dev"))
    share, error = mix_models(data, single_links(data, psf), exp, dev, FRACDEV_Y3)

    def loss(f):
        total = 0.0
        for k in range(6):
            images = [picture(n, [*p[:5], p[5 + k // 3]], psf[k], LocalWCS(*data.wcs[k]))
                      for n, p in (("exp", exp), ("dev", dev))]  # fmt: skip
            pixels = data.image[data.start[k] :][:2304].reshape(48, 48)
            total += (((1 - f) * images[0] + f * images[1] - pixels) ** 2).sum() / 32.0
        return total - FRACDEV_Y3.lnp(f)

    assert loss(share) < min(loss(share - 0.01), loss(share + 0.01))
    h = 0.01
    assert error == pytest.approx(((loss(share + h) - 2 * loss(share) + loss(share - h)) / h**2) ** -0.5, rel=1e-2)


def shared_scene(separation, noise=0.0, seed=3):
    """Two galaxies on one image in one band."""
    wcs = LocalWCS(31.5, 31.5, 0.263, 0.003, -0.002, 0.26)
    truth = np.array([0, -separation / 2, 0.1, 0, 0.6, 900.0, 0, separation / 2, -0.2, 0.1, 0.6, 900.0])
    image = sum(picture("gauss", truth[k : k + 6], PSF, wcs, 64) for k in (0, 6))
    sigma = noise or 1.0
    image = image + np.random.default_rng(seed).normal(0, noise, image.shape)
    data = stack([[Observation(image, np.full(image.shape, sigma**-2), wcs, None)]])
    links = Links(
        np.array([0, 2]), np.array([0, 1]), np.array([wcs, wcs]), np.array([PSF, PSF]), np.zeros(1), np.full(2, -1)
    )
    return data, links, truth


def test_o3_two_sources_that_share_pixels_are_fit_together():
    data, links, truth = shared_scene(1.5)
    models = [model("gauss")] * 2
    start = truth * np.array([1, 0.9, 0, 1, 0.7, 0.5] * 2)
    fit = fit_scene(Scene(data, models, links), [start], TIGHT)
    assert fit.flags == 0
    assert fit.pars == pytest.approx(truth, rel=1e-5, abs=1e-6)
    # With shapes fixed the flux covariance is that of linear least squares, each pixel counted once.
    free = np.array([False] * 5 + [True] + [False] * 5 + [True])
    part = fit_scene(Scene(data, models, links, free=free), [truth], TIGHT)
    wcs = LocalWCS(*links.wcs[0])
    a = np.array([picture("gauss", [*truth[k : k + 5], 1.0], PSF, wcs, 64).ravel() for k in (0, 6)])
    assert part.cov0[np.ix_([5, 11], [5, 11])] == pytest.approx(np.linalg.inv(a @ a.T), rel=1e-6)


def test_o6_a_source_without_neighbours_is_the_single_fit():
    data, psf, start = noisy("exp")
    one = fit_galaxy(data, psf, model("exp"), None, [start], LMOptions())
    links = single_links(data, psf)
    far = links._replace(
        first=2 * links.first,
        source=np.tile([0, 1], 6),
        wcs=np.repeat(links.wcs, 2, axis=0),
        psf=np.repeat(links.psf, 2, axis=0),
        offset=np.full(12, -1),
    )
    free = np.array([True] * 7 + [False] * 7)
    away = np.array([500.0, 500.0, 0, 0, 0.5, 100.0, 100.0])
    both = fit_scene(Scene(data, [model("exp")] * 2, far, free=free), [np.concatenate([start, away])], LMOptions())
    assert np.array_equal(both.pars[:7], one.pars)


@pytest.mark.parametrize("name", model_names())
@pytest.mark.parametrize("what", ["zero weight", "one pixel", "zero image", "negative", "constant", "spike"])
def test_f13_degenerate_stamps_give_a_flag_or_a_number(name, what):
    """No exception, no good-looking number without information, no not-a-number without a flag."""
    rng = np.random.default_rng(1)
    image, weight = rng.normal(0, 1, (48, 48)), np.ones((48, 48))
    if what == "zero weight":
        weight[:] = 0.0
    elif what == "one pixel":
        weight[:] = 0.0
        weight[24, 24] = 1.0
    elif what == "zero image":
        image[:] = 0.0
    elif what == "negative":
        image -= 500.0 * mixture.render([[1, 0, 0, 3, 0, 3]], *np.mgrid[-24:24, -24:24])
    elif what == "constant":
        image[:] = 7.0
    else:
        image[20, 20] = 1e9
    data = stack([[Observation(image, weight, LocalWCS(23.5, 23.5, 0.263, 0, 0, 0.263), None)]])
    one = model(name)
    start = np.array([0, 0, 0, 0, 0.5, *(extra.start for extra in one.extras), 100.0])
    start = np.array([0, 0, 100.0]) if one.point else start
    prior = JointPrior(CenPrior(0.27), GPriorBA(0.3), Flat(-0.1, 1e5), [Flat(-1e9, 1e9)], [Flat(-1, 2)] * 0)
    fit = fit_galaxy(data, PSF[None], one, prior, [start], LMOptions(200, 5e-5, 5e-5))
    if what in ("zero weight", "one pixel"):
        assert fit.flags == FitFlag.ZERO_DOF
    if what == "zero image":
        assert fit.flags
    if fit.flags:
        assert np.isnan(fit.pars).all()
        assert np.isnan(fit.cov).all()
        assert np.isnan(fit.s2n)
    else:
        assert np.isfinite(fit.pars).all()
        assert (np.diag(fit.cov) > 0).all()
        assert np.linalg.eigvalsh(fit.cov / np.sqrt(np.outer(np.diag(fit.cov), np.diag(fit.cov)))).min() > 0


@pytest.mark.parametrize("psf", [np.zeros((1, 6)), np.full((1, 6), np.nan), np.array([[1.0, 0, 0, -1, 0, -1]])])
def test_f13_impossible_psf_is_flagged(psf):
    data = stack([[Observation(np.ones((9, 9)), np.ones((9, 9)), LocalWCS(4, 4, 0.263, 0, 0, 0.263), None)]])
    fit = fit_galaxy(data, psf[None], model("exp"), None, [np.array([0, 0, 0, 0, 0.5, 1.0])], LMOptions())
    assert fit.flags
    assert np.isnan(fit.pars).all()


def test_two_sources_at_one_place_are_singular():
    data, links, truth = shared_scene(0.0)
    start = np.tile(truth[:6], 2)
    fit = fit_scene(Scene(data, [model("gauss")] * 2, links), [start], LMOptions(50))
    assert fit.flags
    assert np.isnan(fit.pars).all()


@pytest.mark.parametrize("radius", [0.3, 0.6, 1.0])
@pytest.mark.parametrize(
    ("name", "size", "index", "worst", "lost"),
    [
        # Largest residual, as a part of the peak, and flux, measured and frozen: the tables end their wings early.
        ("gauss", 1.442695, 0.5, 2e-3, 5e-4),
        ("exp", 2.09122736, 1.0, 2e-3, 5e-4),
        ("dev", 6.32491128, 4.0, 2.5e-2, 2.5e-2),
        ("exp_true", 2.09122736, 1.0, 1.5e-3, 5e-4),
        ("dev_true", 6.32491128, 4.0, 2e-3, 1e-3),
        ("sersic", 1.442695, 0.63, 2.5e-3, 1e-3),
        ("sersic", 1.442695, 1.17, 2.5e-3, 1e-3),
        ("sersic", 1.442695, 2.6, 2.5e-3, 1e-3),
        ("sersic", 1.442695, 5.1, 2.5e-3, 2e-3),
    ],
)
def test_g10_profiles_against_galsim(name, size, index, worst, lost, radius):
    """Sersic profiles of the same r50 through a Moffat, drawn by GalSim, and our mixtures through its stamp."""
    rng = np.random.default_rng(31)
    seen = observe(rng, galsim.Sersic(index, half_light_radius=radius).shear(g1=0.1, g2=0.05), 1.0, 0.0, 96)
    psf = fit_psf(seen.psf, seen.wcs, PSFOptions()).mixture[None]
    data = stack([[seen]])
    scene = Scene(data, [model(name)], single_links(data, psf))
    # GalSim shears at constant area, and T is that of the sheared ellipse.
    total = size * radius**2 * (1 + 0.0125) / (1 - 0.0125)
    pars = np.array([0, 0, 0.1, 0.05, total, *([index] if name == "sersic" else []), 1.0])
    image = scene.images(pars, 0)[0] + PSFResiduals(data, [seen.psf], psf).template(scene.sources(pars)).reshape(96, 96)
    assert np.abs(image - seen.image).max() < worst * seen.image.max()
    assert abs(image.sum() - seen.image.sum()) < lost


@pytest.mark.parametrize("family", ["coellip3", "em3", "gauss"])
@pytest.mark.parametrize("name", ["point", "exp_true", "dev_true"])
def test_pixelised_psf_leaves_no_bias(name, family):
    """Noise-free stars and galaxies drawn by GalSim: what a PSF mixture gets wrong does not matter any more."""
    shapes = {"point": None, "exp_true": galsim.Exponential(0.5), "dev_true": galsim.DeVaucouleurs(0.5)}
    rng = np.random.default_rng(41)
    profile = shapes[name] if name == "point" else shapes[name].shear(g1=0.2, g2=-0.1)
    seen = [observe(rng, profile, 1000.0, 0.0) for _ in range(4)]
    mixtures = np.array([fit_psf(one.psf, one.wcs, PSFOptions(*psf_family(family))).mixture for one in seen])
    start = np.array([0, 0, 900.0] if name == "point" else [0, 0, 0, 0, 0.5, 900.0])
    stamps = [one.psf for one in seen]
    data = stack([seen])
    residuals = PSFResiduals(data, stamps, mixtures)
    fit = fit_pixelised(data, residuals, mixtures, model(name), None, [start], LMOptions(2000, 1e-8, 1e-8))
    assert fit.flags == 0
    # 41-pixel stamps of Moffats end early: 3e-4 of a star, more of a galaxy whose wings the PSF spreads.
    assert fit.pars[-1] == pytest.approx(1000.0, rel=1e-3 if name == "point" else 5e-3)
    assert np.abs(fit.pars[:2]).max() < 1e-4
    if name != "point":
        assert fit.pars[2:4] == pytest.approx([0.2, -0.1], abs=1e-3)


def test_what_a_mixture_misses_of_a_star_is_put_back():
    """The image of mixture and rest is the stamp itself for a star on the centre of a pixel."""
    rng = np.random.default_rng(42)
    seen = observe(rng, None, 1.0, 0.0, 41)
    centred = Observation(seen.psf.image, seen.weight, seen.wcs.at(20.0, 20.0), seen.psf)
    psf = fit_psf(centred.psf, centred.wcs, PSFOptions()).mixture[None]
    data = stack([[centred]])
    scene = Scene(data, [model("point")], single_links(data, psf))
    pars = np.array([0.0, 0.0, 1.0])
    rest = PSFResiduals(data, [centred.psf], psf).template(scene.sources(pars)).reshape(41, 41)
    image = scene.images(pars, 0)[0] + rest
    assert np.abs(image - seen.psf.image / seen.psf.image.sum()).max() < 1e-14


def test_bank_is_what_its_maker_writes(tmp_path):
    sersicbank.write_bank(tmp_path / "bank.txt")
    for got, want in zip(sersicbank.read_bank(tmp_path / "bank.txt"), sersicbank.read_bank(), strict=True):
        assert got == pytest.approx(want, rel=1e-5, abs=1e-6)
