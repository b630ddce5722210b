import dataclasses

import galsim
import numpy as np
import pytest

from balrogutils.survey.drawing import draw_chip, galaxy, point_spread, stamp_radius
from balrogutils.survey.sky import draw_sky, truth_dtype
from balrogutils.survey.telescope import chips
from balrogutils.survey.tiny import tiny_survey


@pytest.fixture(scope="module")
def survey():
    parameters = tiny_survey("gri")
    found = chips(parameters)
    return parameters, found, draw_sky(parameters, found)


def test_an_empty_sky_is_dark(survey):
    parameters, found, _ = survey
    dark = {"stars": 0, "galaxies": 0, "bright_stars": 0}
    empty = parameters.model_copy(update={"population": parameters.population.model_copy(update=dark)})
    sky = draw_sky(empty, found)
    assert len(sky) == 0
    assert not draw_chip(sky, found[0], 30.0).any()


def test_truth_is_complete_and_finite(survey):
    sky = survey[2]
    assert sky.dtype == truth_dtype("gri")
    np.testing.assert_array_equal(sky["id"], np.arange(1, len(sky) + 1))
    for name in sky.dtype.names:
        assert np.all(np.isfinite(sky[name])), name
    for band in "gri":
        np.testing.assert_allclose(sky[f"flux_{band}"], 10 ** (0.4 * (30 - sky[f"mag_{band}"])), rtol=1e-12)
    stars, galaxies = sky[sky["is_star"] == 1], sky[sky["is_star"] == 0]
    assert not stars["hlr"].any()
    assert galaxies["hlr"].min() >= 0.12
    assert np.hypot(galaxies["g1"], galaxies["g2"]).max() <= 0.7 + 1e-12
    assert np.median(stars["mag_g"] - stars["mag_i"]) > 0.3


def test_the_same_sky_whatever_the_order_of_the_ccds(survey):
    parameters, found, sky = survey
    np.testing.assert_array_equal(draw_sky(parameters, found[::-1]), sky)


def _row(sky, **values):
    row = np.zeros(1, sky.dtype)
    for key, value in values.items():
        row[key] = value
    return row


@pytest.mark.parametrize(
    "shape",
    [
        {"is_star": 1},
        {"hlr": 0.3},
        {"hlr": 0.7, "g1": 0.5, "g2": -0.3},
        {"hlr": 1.2, "bulge_hlr": 1.0, "bulge_fraction": 0.7, "g2": 0.2},
        {"hlr": 0.12, "bulge_hlr": 0.06, "bulge_fraction": 1.0},
    ],
)
def test_less_than_a_thousandth_of_the_light_is_lost(survey, shape):
    _, found, sky = survey
    chip = found[0]
    ra, dec = chip.wcs.pixel_to_sky(135.3, 127.6)
    source = _row(sky, ra=ra, dec=dec, flux_g=1e4, **shape)
    expected = 1e4 * 10 ** (0.4 * (chip.zero_point - 30))
    total = draw_chip(source, chip, 1e9).sum()
    # 3e-4 may fall outside the stamp of a circular source; GalSim's own accuracy is 1e-4 of the flux.
    assert total == pytest.approx(expected, rel=1e-3)


def test_a_star_is_where_and_as_galsim_draws_it(survey):
    _, found, sky = survey
    chip = found[0]
    ra, dec = chip.wcs.pixel_to_sky(135.3, 127.6)
    image = draw_chip(_row(sky, ra=ra, dec=dec, flux_g=1e5, is_star=1), chip, 1.0)
    rows, cols = np.indices(image.shape)
    assert np.sum(rows * image) / image.sum() == pytest.approx(135.3, abs=2e-3)
    assert np.sum(cols * image) / image.sum() == pytest.approx(127.6, abs=2e-3)
    fwhm, g1, g2 = (float(value) for value in chip.psf_at(135.3, 127.6))
    tight = galsim.Moffat(beta=3.5, fwhm=fwhm, gsparams=galsim.GSParams(folding_threshold=1e-4, kvalue_accuracy=1e-7))
    exact = tight.shear(g1=g1, g2=g2).withFlux(image.sum())
    reference = exact.drawImage(
        nx=256,
        ny=272,
        center=galsim.PositionD(128.6, 136.3),
        wcs=chip.wcs.galsim.local(galsim.PositionD(128.6, 136.3)),
        dtype=float,
    )
    np.testing.assert_allclose(image, reference.array, atol=3e-4 * image.max())


def test_light_from_beyond_the_edge_arrives(survey):
    _, found, sky = survey
    chip = found[0]
    ra, dec = chip.wcs.pixel_to_sky(-4.0, 100.0)
    image = draw_chip(_row(sky, ra=ra, dec=dec, flux_g=1e6, is_star=1), chip, 10.0)
    assert image[0].sum() > 0
    assert np.argmax(image) // image.shape[1] == 0
    far_ra, far_dec = chip.wcs.pixel_to_sky(-3000.0, 100.0)
    assert not draw_chip(_row(sky, ra=far_ra, dec=far_dec, flux_g=1e6, is_star=1), chip, 10.0).any()


def test_profiles_have_unit_flux_and_the_shear_asked_for():
    assert galaxy(0.5, 0.3, 0.4, 0.1, 0.2).flux == pytest.approx(1.0)
    assert point_spread(1.0, 0.0, 0.0, 3.5).flux == pytest.approx(1.0)
    moments = galsim.hsm.FindAdaptiveMom(galaxy(1.0, 0.5, 0.0, 0.2, 0.0).drawImage(nx=200, ny=200, scale=0.1))
    # Adaptive moments of an elliptical profile give its distortion, g1 = 0.2 here.
    assert moments.observed_shape.g1 == pytest.approx(0.2, abs=0.01)


def test_bright_stars_get_larger_stamps():
    faint = stamp_radius(1.0, 3.5, 0.0, 1e3, 30.0, 0.263)
    assert stamp_radius(1.0, 3.5, 0.0, 1e8, 30.0, 0.263) > 1.3 * faint
    assert stamp_radius(1.0, 3.5, 0.5, 1e3, 30.0, 0.263) > faint


def test_chips_are_immutable(survey):
    with pytest.raises(dataclasses.FrozenInstanceError):
        survey[1][0].zero_point = 0.0
