"""Compiled mixtures on pixels: oracles G4, G8, F5."""

import numpy as np
import pytest
from simulated_stamps import local_wcs

from balrogutils.errors import FitError
from balrogutils.fitting import kernels, mixture, mixturekernels
from balrogutils.fitting.gaussians import EXACT, STRIDE, WINDOW
from balrogutils.fitting.models import model
from balrogutils.fitting.observation import LocalWCS, Observation, stack
from balrogutils.fitting.scene import Accuracy, Scene, single_links

PSF = np.array([[0.2756, 0, 0, 0.06, 0.003, 0.07], [0.5582, 0, 0, 0.16, 0.003, 0.15], [0.1662, 0, 0, 0.47, 0.01, 0.5]])
PSF[:, 0] /= PSF[:, 0].sum()
# Values of the parameters of a profile away from any special one.
EXTRAS = {"bdf": [0.37], "bd": [0.3, 0.37], "bdf_true": [0.37], "sersic": [2.3]}
NAMES = ["gauss", "turb", "exp", "dev", "bdf", "bd", "point", "sersic", "exp_true", "dev_true", "bdf_true"]


def exact(table, wcs, shape):
    """The same mixture and window, by exp of every pixel."""
    row, col = np.mgrid[: shape[0], : shape[1]]
    v, u = wcs.sky(row, col)
    image = np.zeros(shape)
    for p, cv, cu, irr, irc, icc in table:
        det = irr * icc - irc * irc
        chi2 = (icc * (v - cv) ** 2 + irr * (u - cu) ** 2 - 2 * irc * (v - cv) * (u - cu)) / det
        w = np.clip((25.0 - chi2) / 5.0, 0.0, 1.0)
        image += p / (2 * np.pi * np.sqrt(det)) * np.exp(-0.5 * chi2) * w**3 * (10 - 15 * w + 6 * w * w)
    return image * wcs.area


@pytest.mark.parametrize(("cut", "lost"), [(WINDOW, 1.452e-5), (EXACT, 0.0)])
def test_g4_total_flux_loses_what_the_window_takes(cut, lost):
    # One round Gaussian, T = 0.72, 0.1 arcsec pixels, a centre off the pixels.
    wcs = LocalWCS(100.3, 99.8, 0.1, 0.0, 0.0, 0.1)
    image = mixturekernels.render_table(np.array([[1.0, 0, 0, 0.36, 0, 0.36]]), 201, 201, np.array(wcs), cut)
    assert 1.0 - image.sum() == pytest.approx(lost, rel=2e-3, abs=1e-13)


@pytest.mark.parametrize("center", [(0.0, 0.0), (2.0, -3.0), (-40.0, 0.0), (5.4, 5.4)])
@pytest.mark.parametrize("shape", [(0.1, -0.05), (0.6, 0.6), (0.9, 0.3), (-0.7, 0.0), (0.22, 0.97)])
def test_recurrence_equals_exp_of_every_pixel(center, shape):
    wcs = LocalWCS(23.6, 24.2, 0.263, 0.012, -0.02, 0.27)
    galaxy = mixture.convolve([*center, *shape, 0.9, 1.0], mixture.profile("dev"), PSF)
    image = mixturekernels.render_table(galaxy, 48, 48, np.array(wcs), WINDOW)
    want = exact(galaxy, wcs, (48, 48))
    assert np.abs(image - want).max() <= 1e-13 * max(want.max(), 1e-3)


@pytest.mark.parametrize("name", ["exp", "dev"])
def test_g8_sheared_wcs_samples_the_same_sky(name):
    scale, g1, g2 = 0.263, 0.1, -0.05
    matrix = scale / np.sqrt(1 - g1 * g1 - g2 * g2) * np.array([[1 - g1, g2], [g2, 1 + g1]])
    wcs = LocalWCS(31.2, 30.7, *matrix.ravel())
    galaxy = mixture.convolve([0.3, -0.2, 0.2, 0.3, 1.1, 5.0], mixture.profile(name), PSF)
    image = mixturekernels.render_table(galaxy, 63, 61, np.array(wcs), EXACT)
    v, u = wcs.sky(*np.mgrid[:63, :61])
    want = mixture.render(galaxy, v, u, wcs.area)
    assert np.abs(image - want).max() < 1e-12 * want.max()


def test_impossible_covariance_is_nan_and_not_a_picture():
    wcs = np.array([5.0, 5.0, 0.263, 0, 0, 0.263])
    for table in ([[1.0, 0, 0, -1.0, 0, 1.0]], [[1.0, 0, 0, 1.0, 2.0, 1.0]], [[1.0, 0, 0, np.nan, 0, 1.0]]):
        assert np.isnan(mixturekernels.render_table(np.array(table), 11, 11, wcs, WINDOW)).all()


def noisy_scene(rng, name, accuracy, free=None):
    def noise():
        image, weight = rng.normal(0, 1, (40, 36)), rng.uniform(0.5, 1.5, (40, 36))
        return Observation(image, weight, local_wcs(rng, 38, 0.05), None)

    data = stack([[noise(), noise()], [noise(), noise()]])
    links = single_links(data, np.repeat(PSF[None], 4, 0))
    return Scene(data, [model(name)], links, free=free, accuracy=accuracy)


def random_pars(rng, name):
    if name == "point":
        return np.array([*rng.normal(0, 0.2, 2), 900.0, 400.0])
    shape = [*rng.normal(0, 0.2, 2), *rng.uniform(-0.4, 0.4, 2), rng.uniform(0.2, 2.0)]
    return np.array([*shape, *EXTRAS.get(name, []), 900.0, 400.0])


def tables(scene, name, pars):
    """The mixture on each stamp, by the slow way."""
    extra = pars[5:-2]
    for k, band in enumerate(scene.data.band):
        flux = pars[pars.size - 2 + band]
        if name == "point":
            table = PSF * [flux, 1, 1, 1, 1, 1]
            table[:, 1:3] += pars[:2]
            yield k, table
        else:
            yield k, mixture.convolve([*pars[:5], flux], scene.models[0].profile(extra), PSF)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", range(3))
def test_f5_normal_equations_are_derivatives(name, case):
    """Normal matrix and gradient against central differences of images by exp of every pixel, window included."""
    rng = np.random.default_rng([5, case])
    scene = noisy_scene(rng, name, Accuracy(merge=0.0))
    pars = random_pars(rng, name)
    npar = scene.npar
    normal, gradient = np.empty((npar, npar)), np.empty(npar)
    chi2 = scene.chi2(pars, normal, gradient)

    def images(x):
        return np.array([exact(table, LocalWCS(*scene.data.wcs[k]), (40, 36)) for k, table in tables(scene, name, x)])

    weights = scene.data.weight.reshape(4, 40, 36)
    columns = []
    for k in range(npar):
        h = 1e-2 if k >= npar - 2 else 1e-4 if k < 2 else 1e-5
        step = np.zeros(npar)
        step[k] = h
        columns.append((images(pars + step) - images(pars - step)) / (2 * h))
    jacobian = np.array(columns)
    residual = images(pars) - scene.data.image.reshape(4, 40, 36)
    want = np.einsum("aeij,beij,eij->ab", jacobian, jacobian, weights)
    scale = np.sqrt(np.outer(np.diag(want), np.diag(want)))
    # Central differences of this step leave 1e-7; a wrong term would show at 1e-3 and above.
    assert (np.abs(normal - want) / scale).max() < 1e-6
    assert chi2 == pytest.approx(np.sum(weights * residual**2), rel=1e-11)
    size = np.sqrt(np.diag(want) * chi2)
    assert (np.abs(gradient - np.einsum("aeij,eij->a", jacobian, weights * residual)) / size).max() < 1e-7


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", range(4))
def test_f5_derivative_images(name, case):
    """Each derivative image against central differences: 1e-7 of the column's largest value."""
    rng = np.random.default_rng([15, case])
    scene = noisy_scene(rng, name, Accuracy(merge=0.0))
    pars = random_pars(rng, name)
    got = scene.images(pars, 1)
    for k in range(scene.npar - 2):
        step = np.zeros(scene.npar)
        step[k] = 2e-5
        want = (scene.images(pars + step, 1)[0] - scene.images(pars - step, 1)[0]) / 4e-5
        assert np.abs(got[1 + k] - want).max() < 1e-7 * np.abs(want).max()


@pytest.mark.parametrize("name", ["exp", "dev", "bdf", "bd"])
@pytest.mark.parametrize("size", [0.02, 0.5, 4.0, 40.0])
def test_alike_components_are_added_up_within_the_promise(name, size):
    rng = np.random.default_rng(4)
    pars = random_pars(rng, name)
    pars[4] = size
    full, merged = (
        noisy_scene(np.random.default_rng(4), name, Accuracy(merge=merge)).images(pars, 0)
        for merge in (0.0, kernels.MERGE)
    )
    star = noisy_scene(np.random.default_rng(4), "point", None).images(np.zeros(4), 0)[0].max()
    change = np.abs(full[0] - merged[0]).max()
    assert change < kernels.MERGE * star
    # A bulge has Gaussians that no PSF shows apart.
    assert change > 0 or name == "exp"
    for a, b in zip(full[1:6], merged[1:6], strict=True):
        assert np.abs(a - b).max() < 1e-4 * np.abs(a).max()


def test_many_sources_have_the_products_of_their_pairs():
    """From four sources on a stamp on, products are made together; they are those of each pair by itself."""
    rng = np.random.default_rng(8)
    scene = noisy_scene(rng, "exp", Accuracy())
    # One reaches a corner alone, and one nothing at all.
    places = [(0.0, 0.0), (1.5, -1.0), (-2.0, 2.0), (6.0, 6.0), (500.0, 0.0)]
    pars = [np.array([v, u, *rng.normal(0, 0.1, 2), 0.6, 100.0, 80.0]) for v, u in places]

    def several(which):
        count = len(which)
        links = scene.links._replace(
            first=np.arange(5) * count,
            source=np.tile(np.arange(count), 4),
            wcs=np.repeat(scene.links.wcs, count, axis=0),
            psf=np.repeat(scene.links.psf, count, axis=0),
            offset=np.full(4 * count, -1),
        )
        found = Scene(scene.data, [model("exp")] * count, links)
        return found.gram(np.concatenate([pars[k] for k in which])).copy()

    whole = several(range(5))
    size = np.sqrt(np.abs(whole[:, range(31), range(31)]).max(axis=0))
    size[-1] = np.sqrt(scene.power.sum())
    for a, b in [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4)]:
        at = np.r_[6 * a : 6 * a + 6, 6 * b : 6 * b + 6, 30]
        error = np.abs(whole[:, at][:, :, at] - several([a, b]))
        assert np.all(error <= 1e-13 * np.outer(size[at], size[at]))
    assert np.any(whole[:, :6, 6:12] != 0.0)
    assert np.all(whole[:, 24:30] == 0.0)


def test_fixed_parameters_have_no_rows():
    rng = np.random.default_rng(8)
    pars = random_pars(rng, "exp")
    whole = noisy_scene(np.random.default_rng(8), "exp", None)
    some = np.array([True, True, False, True, False, True, False])
    part = noisy_scene(np.random.default_rng(8), "exp", None, some)
    both = []
    for scene in (whole, part):
        normal, gradient = np.empty((7, 7)), np.empty(7)
        both.append((scene.chi2(pars, normal, gradient), normal, gradient))
    assert both[0][0] == pytest.approx(both[1][0], rel=1e-13)
    assert both[1][1][np.ix_(some, some)] == pytest.approx(both[0][1][np.ix_(some, some)], rel=1e-12)
    assert both[1][2][some] == pytest.approx(both[0][2][some], rel=1e-9)
    assert not both[1][1][~some].any()
    assert not both[1][2][~some].any()


@pytest.mark.parametrize("ncomp", [1, 3, 5])
def test_f5_psf_gradient_is_the_derivative(ncomp):
    rng = np.random.default_rng([6, ncomp])
    image = rng.normal(0, 1, 31 * 33)
    weight = rng.uniform(0.5, 1.5, 31 * 33)
    wcs = np.array(LocalWCS(15, 15, 0.26, 0.01, -0.02, 0.27))
    pars = np.array([0.02, -0.03, 0.1, -0.05, *np.linspace(-2, 0, ncomp), *rng.uniform(0.5, 1.5, ncomp)])
    normal, gradient = np.empty((pars.size, pars.size)), np.empty(pars.size)

    def chi2(x):
        return mixturekernels.evaluate_psf(x, ncomp, image, weight, 31, 33, wcs, normal, gradient)

    chi2(pars)
    got, matrix = gradient.copy(), normal.copy()
    width = np.sqrt(np.diag(matrix) * chi2(pars))
    for k in range(pars.size):
        step = np.zeros(pars.size)
        step[k] = 1e-5
        slope = (chi2(pars + step) - chi2(pars - step)) / 4e-5
        assert got[k] == pytest.approx(slope, abs=1e-7 * width[k])
    # The normal matrix is the change of the gradient where there is no residual.
    table = [[p, *pars[:2], *mixture.covariance(*pars[2:4], np.exp(s))]
             for s, p in zip(pars[4 : 4 + ncomp], pars[4 + ncomp :], strict=True)]  # fmt: skip
    image = exact(table, LocalWCS(*wcs), (31, 33)).ravel()
    for k in range(pars.size):
        step = np.zeros(pars.size)
        step[k] = 1e-5
        ends = []
        for sign in (1, -1):
            chi2(pars + sign * step)
            ends.append(gradient.copy())
        scale = np.sqrt(np.diag(matrix) * matrix[k, k])
        assert (np.abs((ends[0] - ends[1]) / 2e-5 - matrix[k]) / scale).max() < 1e-6


def test_out_of_range_is_said():
    data = stack([[Observation(np.zeros((9, 9)), np.ones((9, 9)), LocalWCS(4, 4, 0.263, 0, 0, 0.263), None)]])
    scene = Scene(data, [model("exp")], single_links(data, PSF[None]))
    normal, gradient = np.empty((6, 6)), np.empty(6)
    for bad in (
        [0, 0, 0.9, 0.5, 0.5, 1.0],
        [0, 0, 0, 0, -5.0, 1.0],
        [0, 0, np.nan, 0, 0.5, 1.0],
        [0, 0, 0, 0, np.nan, 1.0],
        [1e30, 0, 0, 0, 0.5, 1.0],
    ):
        assert np.isnan(scene.chi2(np.array(bad), normal, gradient))


def test_stamp_too_wide_is_refused():
    wide = Observation(np.zeros((3, STRIDE + 1)), np.ones((3, STRIDE + 1)), LocalWCS(1, 4, 0.263, 0, 0, 0.263), None)
    data = stack([[wide]])
    with pytest.raises(FitError, match="tiles"):
        Scene(data, [model("exp")], single_links(data, PSF[None]))
