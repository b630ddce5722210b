"""Metacal images and fits on them: oracles C1 to C5, C9, C10, and GalSim as the reference of the operation."""

import galsim
import numpy as np
import pytest
from metacal_stamps import FINE, by_galsim, drawn, sampled, tilted_wcs
from simulated_stamps import galsim_wcs

from balrogutils.errors import ConfigError, FitError
from balrogutils.fitting import mixture
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.observation import LocalWCS, Observation, PSFStamp
from balrogutils.metacal.holes import FillRules, fill_holes, symmetric
from balrogutils.metacal.images import MetacalOptions, metacal_images
from balrogutils.metacal.measure import MeasureOptions, measure
from balrogutils.metacal.shears import TYPES, shear_matrix, shears_of
from balrogutils.metacal.target import TARGETS, gaussian_sigma, measured_center

CLEAN = MetacalOptions(fixnoise=False)
ALL = (*TYPES, "1p_psf", "1m_psf", "2p_psf", "2m_psf")


def images(bands, options=CLEAN, seed=1):
    return metacal_images(bands, options, np.random.default_rng(seed))


def measured(bands, seed=1, **options):
    made = MetacalOptions(**{"fixnoise": False, **options.pop("images", {})})
    return measure(bands, MeasureOptions(images=made, **options), np.random.default_rng(seed))[0]


def flat_wcs(side):
    return LocalWCS((side - 1) / 2, (side - 1) / 2, 0.263, 0.0, 0.0, 0.263)


def test_c1_gaussians_convolved_again():
    """All shears of a Gaussian through a Gaussian are known, on a tilted map, off the middle of the stamp."""
    pars, psf, wcs = [0.0, 0.0, 0.1, 0.2, 0.5, 100.0], (0.03, -0.02, 0.4), tilted_wcs(48)
    made = images([[sampled(wcs, pars, psf)]], MetacalOptions(types=ALL, fixnoise=False))
    for shear in shears_of(ALL):
        sheared = made[shear.name]
        irr, irc, icc = mixture.covariance(*pars[2:5])
        matrix = shear_matrix(*shear.galaxy)
        sky = matrix @ np.array([[irr, irc], [irc, icc]]) @ matrix.T
        table = [[100.0, 0, 0, *(sheared.mixtures[0, 0, 3:] + [sky[0, 0], sky[0, 1], sky[1, 1]])]]
        truth = mixture.render(table, *wcs.sky(*np.mgrid[:48, :48]), wcs.area)
        assert np.abs(sheared.bands[0][0].image - truth).max() < 1e-4 * truth.max()


@pytest.mark.parametrize("psf_off", [(0.0, 0.0), (0.4, -0.3)])
def test_galsim_gives_the_same_images(psf_off):
    """An exponential through a Moffat PSF: the same to 2e-6 of the peak as GalSim with lanczos15."""
    galaxy = galsim.Exponential(half_light_radius=0.5, flux=100.0).shear(g1=0.2, g2=0.1)
    psf = galsim.Moffat(3.0, fwhm=0.9).shear(g1=0.02, g2=-0.01)
    one = drawn(galaxy, psf, tilted_wcs(48), psf_off=psf_off)
    made = images([[one]], MetacalOptions(types=ALL, fixnoise=False, measure_center=False))
    sigma = np.sqrt(made["noshear"].mixtures[0, 0, 3])
    for shear in shears_of(ALL):
        target = galsim.Gaussian(sigma=sigma, gsparams=FINE).shear(g1=shear.psf[0], g2=shear.psf[1])
        truth = by_galsim(one, target, shear.galaxy)
        assert np.abs(made[shear.name].bands[0][0].image - truth).max() < 2e-6 * truth.max()


def test_galsim_gives_the_same_dilated_target():
    galaxy = galsim.Exponential(half_light_radius=0.5, flux=100.0).shear(g1=0.2, g2=0.1)
    psf = galsim.Moffat(3.5, fwhm=1.1).shear(g1=0.05, g2=-0.02)
    types = ("noshear", "1p", "2m_psf")
    one = drawn(galaxy, psf, tilted_wcs(48))
    made = images([[one]], MetacalOptions("dilate", types, fixnoise=False, measure_center=False))
    sky = galsim_wcs(one.wcs)
    pixel = sky.toWorld(galsim.Pixel(1.0))
    stamp = galsim.Image(one.psf.image / one.psf.image.sum(), wcs=sky)
    kernel = galsim.InterpolatedImage(stamp, x_interpolant="lanczos15", gsparams=FINE)
    for shear in shears_of(types):
        bare = galsim.Convolve(kernel, galsim.Deconvolve(pixel)).shear(g1=shear.psf[0], g2=shear.psf[1])
        target = galsim.Convolve(bare.dilate(1.02), pixel)
        truth = by_galsim(one, target, shear.galaxy)
        found = made[shear.name].bands[0][0]
        assert np.abs(found.image - truth).max() < 1e-4 * truth.max()
        drawn_target = target.drawImage(nx=41, ny=41, wcs=sky, method="no_pixel").array
        assert np.abs(found.psf.image - drawn_target).max() < 1e-4 * drawn_target.max()


@pytest.mark.parametrize(("g1", "g2"), [(0.0, 0.0), (0.2, 0.0), (-0.1, 0.15)])
def test_c2_response_of_a_gaussian(g1, g2):
    row = measured([[sampled(tilted_wcs(48), [0, 0, g1, g2, 0.5, 100.0], (0.02, 0.01, 0.4))]])
    assert row["mcal_flags"] == 0
    assert row["mcal_g"] == pytest.approx([g1, g2], abs=1e-5)
    expected = [[1 - g1**2 + g2**2, -2 * g1 * g2], [-2 * g1 * g2, 1 + g1**2 - g2**2]]
    assert np.abs(row["mcal_R"] - expected).max() < 1e-4


def test_c2_ring_average():
    rows = [
        measured([[sampled(tilted_wcs(48), [0, 0, 0.2 * np.cos(a), 0.2 * np.sin(a), 0.5, 100.0], (0.0, 0.0, 0.4))]])
        for a in np.arange(4) * np.pi / 2
    ]
    assert np.mean([row["mcal_R"] for row in rows], axis=0) == pytest.approx(np.eye(2), abs=1e-4)


def test_c3_response_of_weighted_moments():
    """R = 2 S_g w / (S (S + w)) per axis, for any target."""
    variance, weight = 0.3, 0.26
    row = measured(
        [[sampled(tilted_wcs(64), [0, 0, 0, 0, 2 * variance, 100.0], (0.0, 0.0, 0.4), side=64)]],
        estimators=("wmom",),
        fwhm={"wmom": 2.354820045030949 * np.sqrt(weight)},
    )
    total = variance + 0.5 * row["mcal_Tpsf"]
    expected = 2 * variance * weight / (total * (total + weight))
    # The step of 0.01 leaves its square.
    assert row["mcal_wmom_R"] == pytest.approx(expected * np.eye(2), abs=2e-4)


def test_c4_a_fit_knows_the_sheared_target():
    one = sampled(tilted_wcs(48), [0, 0, 0.1, 0.2, 0.5, 100.0], (0.0, 0.02, 0.4))
    made = images([[one]], MetacalOptions(types=ALL))
    assert not np.allclose(made["1p_psf"].bands[0][0].image, made["noshear"].bands[0][0].image, rtol=1e-4)
    row = measured([[one]], images={"types": ALL})
    for axis in "12":
        response = (row[f"mcal_g_{axis}p_psf"] - row[f"mcal_g_{axis}m_psf"]) / 0.02
        assert np.abs(response).max() < 1e-3


def _anisotropy(image):
    power = np.abs(np.fft.fft2(image)) ** 2
    k = np.fft.fftfreq(image.shape[0])
    row, col = k[:, None] ** 2, k[None, :] ** 2
    return (power * (col - row)).sum() / (power * (col + row)).sum()


def test_c5_fixnoise_takes_the_direction_from_sheared_noise():
    rng = np.random.default_rng(5)
    psf = galsim.Moffat(3.0, fwhm=0.9)
    wcs = flat_wcs(48)
    stamp = psf.drawImage(nx=41, ny=41, wcs=galsim_wcs(wcs), dtype=float).array
    flat = [
        Observation(rng.normal(0, 2.0, (48, 48)), np.full((48, 48), 0.25), wcs, PSFStamp(stamp, 20.0, 20.0))
        for _ in range(150)
    ]
    difference, variance = {}, {}
    for fixnoise in (False, True):
        made = images([flat], MetacalOptions(types=("1p", "1m"), fixnoise=fixnoise))
        pairs = zip(made["1p"].bands[0], made["1m"].bands[0], strict=True)
        values = np.array([_anisotropy(p.image) - _anisotropy(m.image) for p, m in pairs])
        difference[fixnoise] = values.mean() / (values.std() / np.sqrt(values.size))
        variance[fixnoise] = np.mean([one.image[12:-12, 12:-12].var() for one in made["1p"].bands[0]])
        weights = made["1p"].bands[0][0].weight
        assert weights == pytest.approx(np.full((48, 48), 0.125 if fixnoise else 0.25))
    assert abs(difference[False]) > 10
    assert abs(difference[True]) < 3.5
    # 150 stamps of some 40 independent patches each: 2.6 per cent for each variance.
    assert variance[True] / variance[False] == pytest.approx(2.0, rel=0.1)


def test_c9_response_does_not_depend_on_the_step():
    """Of estimators that know the PSF: the target grows with the step, and with it what weighted moments see."""
    galaxy = galsim.Exponential(half_light_radius=0.5, flux=100.0).shear(g1=0.1, g2=-0.2)
    one = drawn(galaxy, galsim.Moffat(3.0, fwhm=0.9), tilted_wcs(48))
    found = [measured([[one]], images={"step": step}, estimators=("pgauss",)) for step in (0.005, 0.01, 0.02)]
    for name in ("mcal_R", "mcal_pgauss_R"):
        for row in found[1:]:
            assert np.abs(row[name] - found[0][name]).max() < 1e-3


def test_c10_everything_turned_by_90_degrees():
    galaxy = galsim.Exponential(half_light_radius=0.5, flux=100.0).shear(g1=0.1, g2=-0.2)
    one = drawn(galaxy, galsim.Moffat(3.0, fwhm=0.9).shear(g1=0.03, g2=0.02), flat_wcs(48))
    turned = Observation(
        np.rot90(one.image).copy(), one.weight, one.wcs, PSFStamp(np.rot90(one.psf.image).copy(), 20.0, 20.0)
    )
    first, second = (measured([[each]], estimators=("wmom", "pgauss")) for each in (one, turned))
    assert second["mcal_g"] == pytest.approx(-first["mcal_g"], abs=1e-6)
    for name in ("mcal_R", "mcal_wmom_R", "mcal_pgauss_R"):
        assert second[name] == pytest.approx(first[name], abs=1e-6)


def test_a_psf_stamp_off_its_centre_changes_nothing():
    """Half a pixel off, told or not: shapes and responses as with the stamp in the middle."""
    galaxy = galsim.Exponential(half_light_radius=0.5, flux=100.0).shear(g1=0.1, g2=-0.2)
    psf = galsim.Moffat(3.0, fwhm=0.9).shear(g1=0.03, g2=0.02)
    centred = measured([[drawn(galaxy, psf, tilted_wcs(48))]], estimators=("wmom",))
    for said in (True, False):
        off = drawn(galaxy, psf, tilted_wcs(48), psf_off=(0.5, -0.5), psf_said=said)
        row = measured([[off]], estimators=("wmom",))
        assert row["mcal_g"] == pytest.approx(centred["mcal_g"], abs=2e-4)
        assert row["mcal_R"] == pytest.approx(centred["mcal_R"], abs=2e-4)
        assert row["mcal_wmom_R"] == pytest.approx(centred["mcal_wmom_R"], abs=2e-4)
        assert row["mcal_pars"][:2] == pytest.approx([0, 0], abs=2e-4)


@pytest.mark.parametrize("name", TARGETS[:3])
def test_targets_are_a_little_larger_than_the_psf(name):
    one = drawn(galsim.Gaussian(fwhm=0.5), galsim.Moffat(3.0, fwhm=0.9).shear(g1=0.05), tilted_wcs(48))
    fitted = gaussian_sigma(one.psf, one.wcs, "fitgauss", 0.01)
    sigma = gaussian_sigma(one.psf, one.wcs, name, 0.01)
    assert 0.9 / 2.355 < sigma < 1.6 * 0.9 / 2.355
    assert gaussian_sigma(one.psf, one.wcs, name, 0.02) == pytest.approx(sigma * 1.04 / 1.02)
    row = measured([[one]], images={"psf": name})
    assert row["mcal_flags"] == 0
    assert row["mcal_Tpsf"] == pytest.approx(2 * sigma**2)
    assert row["mcal_gpsf"] == pytest.approx([0, 0])
    # Of a Gaussian PSF the fit is the PSF, made round and larger.
    assert fitted > 0.9 / 2.355 * 1.02


def test_several_bands_and_shapes_of_stamps():
    """Stamps of different sizes go through together; the fluxes are those of the bands."""
    psf = (0.02, 0.01, 0.4)
    bands = [
        [
            sampled(tilted_wcs(48), [0, 0, 0.1, 0.0, 0.5, 100.0], psf),
            sampled(tilted_wcs(56), [0, 0, 0.1, 0.0, 0.5, 100.0], psf, 56),
        ],
        [sampled(tilted_wcs(48, (0.5, 0.5)), [0, 0, 0.1, 0.0, 0.5, 300.0], psf)],
    ]
    row = measured(bands)
    assert row["mcal_pars"][5:] == pytest.approx([100.0, 300.0], rel=1e-5)
    assert row["mcal_T"] == pytest.approx(0.5, rel=1e-5)
    assert row["mcal_T_r"] == pytest.approx(0.5 * 0.99 / 1.01, rel=1e-4)


def test_stamps_need_not_be_square():
    pars, psf = [0, 0, 0.1, 0.0, 0.5, 100.0], (0.02, 0.01, 0.4)
    one = sampled(tilted_wcs(56), pars, psf, 56)
    cut = Observation(one.image[5:50].copy(), one.weight[5:50], one.wcs.at(one.wcs.row0 - 5, one.wcs.col0), one.psf)
    for fixnoise in (False, True):
        row = measured([[cut]], images={"fixnoise": fixnoise})
        assert row["mcal_g"] == pytest.approx([0.1, 0.0], abs=1e-5)
        assert np.diag(row["mcal_R"]) == pytest.approx([0.99, 1.01], abs=1e-4)


def test_a_region_limits_the_fit_and_not_the_images():
    """A neighbour outside the region is sheared with the rest, and does to the fit what leaks into the region."""
    pars, psf, wcs = [0, 0, 0.1, 0.0, 0.5, 100.0], (0.02, 0.01, 0.4), tilted_wcs(64)
    alone = sampled(wcs, pars, psf, 64)
    neighbour = sampled(wcs.at(wcs.row0, wcs.col0 + 14), pars, psf, 64).image
    region = np.where(np.arange(64) < 38, alone.weight, 0.0)
    both = Observation(alone.image + neighbour, alone.weight, wcs, alone.psf, region=region)
    plain, limited = measured([[alone]]), measured([[both]])
    without = measured([[Observation(both.image, both.weight, wcs, both.psf)]])
    shift = np.abs(without["mcal_g"] - plain["mcal_g"]).max()
    assert shift > 0.02
    assert np.abs(limited["mcal_g"] - plain["mcal_g"]).max() < 0.25 * shift
    made = images([[both]], MetacalOptions(fixnoise=True))["noshear"].bands[0][0]
    assert made.region == pytest.approx(0.5 * region)
    assert made.weight == pytest.approx(0.5 * both.weight)
    assert made.image[:, 40:].max() > 0.5 * neighbour.max()
    assert fill_holes(both, np.random.default_rng(1)).observation.region == pytest.approx(region)


def test_the_same_object_and_stream_give_the_same_row():
    bands = [[sampled(tilted_wcs(48), [0, 0, 0.1, 0.0, 0.5, 100.0], (0.0, 0.0, 0.4))]]
    rows = [measured(bands, seed, images={"fixnoise": True}) for seed in (3, 3, 4)]
    assert rows[0].tobytes() == rows[1].tobytes()
    assert rows[0].tobytes() != rows[2].tobytes()


def test_what_cannot_be_measured_is_flagged():
    good = sampled(tilted_wcs(48), [0, 0, 0.1, 0.0, 0.5, 100.0], (0.0, 0.0, 0.4))
    point = np.zeros((41, 41))
    point[20, 20] = 1.0
    bad = {
        "nothing": [],
        "no psf": [Observation(good.image, good.weight, good.wcs, None)],
        "nan": [Observation(good.image * np.nan, good.weight, good.wcs, good.psf)],
        "a weight below 0": [
            Observation(good.image, good.weight - 2 * good.weight * (good.image > 1), good.wcs, good.psf)
        ],
        "no weight": [Observation(good.image, 0 * good.weight, good.wcs, good.psf)],
        "psf of one pixel": [Observation(good.image, good.weight, good.wcs, PSFStamp(np.ones((1, 1)), 0.0, 0.0))],
        "singular": [Observation(good.image, good.weight, good.wcs._replace(dvdrow=0.0, dvdcol=0.0), good.psf)],
        "psf without structure": [Observation(good.image, good.weight, good.wcs, PSFStamp(point, 20.0, 20.0))],
    }
    for epochs in bad.values():
        with pytest.raises(FitError):
            images([epochs], MetacalOptions())
        row = measured([epochs], estimators=("wmom",), images={"fixnoise": True})
        assert row["mcal_flags"] == FitFlag.NO_ATTEMPT
        assert np.isnan(row["mcal_g"]).all()
        assert np.isnan(row["mcal_wmom_R"]).all()
    with pytest.raises(FitError, match="none in a band"):
        images([[good], []], MetacalOptions())
    noise = Observation(np.random.default_rng(3).normal(0, 1, (48, 48)) - 3, np.ones((48, 48)), good.wcs, good.psf)
    row = measured([[noise]], estimators=("wmom", "admom", "ksigma", "pgauss"))
    assert row["mcal_flags"] != 0 or row["mcal_pars"][5] < 0
    assert row["mcal_pgauss_flags"] == FitFlag.NONPOS_FLUX


@pytest.mark.parametrize(
    "options",
    [{"psf": "gaus"}, {"types": ("noshear", "3p")}, {"types": ("1p", "1p")}, {"step": 0.0}, {"step": 0.5}],
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(ConfigError):
        MetacalOptions(**options)
    with pytest.raises(ConfigError):
        MeasureOptions(estimators=("wmon",))
    with pytest.raises(ConfigError, match="FWHM"):
        MeasureOptions(estimators=("ksigma",), fwhm={"wmom": 1.2})


def test_holes_are_filled_and_neighbours_gone():
    rng = np.random.default_rng(1)
    wcs = tilted_wcs(48)
    clean = sampled(wcs, [0, 0, 0.1, 0.0, 0.5, 100.0], (0.0, 0.0, 0.4))
    neighbour = sampled(wcs.at(40.0, 10.0), [0, 0, 0.0, 0.0, 0.5, 400.0], (0.0, 0.0, 0.4)).image
    weight = np.full((48, 48), 25.0)
    bmask = np.zeros((48, 48), int)
    image = clean.image + neighbour
    weight[10:14, 30:33] = 0.0
    image[10:14, 30:33] = 1e6
    bmask[24, 20] = 2048
    image[5, 5] = np.nan
    dirty = Observation(image, weight, wcs, clean.psf, bmask)
    filled = fill_holes(dirty, rng, model=clean.image, neighbours=neighbour)
    holes = filled.observation.weight == 0
    assert holes[10:14, 30:33].all()
    assert holes[24, 20]
    assert holes[5, 5]
    assert (holes == symmetric(holes)).all()
    assert filled.fraction == pytest.approx(holes.mean())
    # Noise of the median variance around the model, and the object itself elsewhere.
    assert (filled.observation.image - clean.image)[holes].std() == pytest.approx(0.2, rel=0.4)
    assert filled.observation.image[~holes] == pytest.approx(clean.image[~holes], abs=1e-9)
    one_sided = fill_holes(dirty, rng, model=clean.image, neighbours=neighbour, rules=FillRules(0, symmetrize=False))
    assert np.count_nonzero(one_sided.observation.weight == 0) == 13
    masked = fill_holes(dirty, rng, neighbour_mask=neighbour > 0.1 * neighbour.max())
    assert (masked.observation.weight[neighbour > 0.1 * neighbour.max()] == 0).all()
    with pytest.raises(FitError, match="no pixel"):
        fill_holes(Observation(image, 0 * weight, wcs, clean.psf), rng)
    with pytest.raises(FitError, match="square"):
        fill_holes(Observation(image[:20], weight[:20], wcs, clean.psf), rng)


def test_the_centre_of_a_psf_stamp_is_measured():
    psf = galsim.Moffat(3.0, fwhm=0.9).drawImage(nx=41, ny=41, scale=0.263, offset=(0.37, -0.21), dtype=float).array
    found = measured_center(PSFStamp(psf, 20.0, 20.0))
    assert (found.row, found.col) == pytest.approx((19.79, 20.37), abs=1e-3)
    dark = measured_center(PSFStamp(-psf, 20.0, 20.0))
    assert (dark.row, dark.col) == (20.0, 20.0)
