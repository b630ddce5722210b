import numpy as np
import pytest

from balrogutils.masks import MaskBit
from balrogutils.survey.detector import background_map, bleed, expose, gain_map, sky_level
from balrogutils.survey.telescope import chips
from balrogutils.survey.tiny import tiny_survey

NO_STARS = np.empty((0, 3))


@pytest.fixture(scope="module")
def survey():
    parameters = tiny_survey(
        "r", defects={"bad_columns": 0, "cosmic_rays": 0, "background": 4.0, "star_mask_magnitude": 15, "streak": False}
    )
    return parameters, chips(parameters)[0]


def test_nothing_to_bleed_changes_nothing():
    charge, mask = np.full((5, 4), 10.0), np.zeros((5, 4), np.int16)
    bleed(charge, mask, 100.0)
    np.testing.assert_array_equal(charge, 10.0)
    assert not mask.any()


def test_bleeding_keeps_the_charge_in_its_column():
    charge, mask = np.zeros((101, 21)), np.zeros((101, 21), np.int16)
    charge[50, 10] = 1000.0
    bleed(charge, mask, 100.0)
    assert charge[:, 10].sum() == pytest.approx(1000.0)
    assert charge.max() == 100.0
    assert not charge[:, :10].any()
    assert mask[50, 10] & MaskBit.SATURATE
    assert np.all(mask[46:50, 10] & MaskBit.TRAIL)
    assert np.all(mask[51:55, 10] & MaskBit.TRAIL)
    assert not np.any(mask & MaskBit.EDGEBLEED)


def test_a_trail_that_reaches_the_edge_is_marked_and_its_charge_lost():
    charge, mask = np.zeros((30, 40)), np.zeros((30, 40), np.int16)
    charge[3, 20] = 1000.0
    bleed(charge, mask, 100.0)
    assert mask[0, 20] & MaskBit.EDGEBLEED
    assert not mask[29, 20] & MaskBit.EDGEBLEED
    assert charge.sum() < 1000.0
    assert charge.max() == 100.0


def test_a_wholly_saturated_ccd_stays_finite():
    charge, mask = np.full((8, 8), 1e9), np.zeros((8, 8), np.int16)
    bleed(charge, mask, 100.0)
    np.testing.assert_array_equal(charge, 100.0)
    assert np.all(mask & MaskBit.SATURATE)


def test_noise_is_what_the_weight_says(survey):
    parameters, chip = survey
    readout = expose(np.zeros(chip.shape), chip, parameters, NO_STARS)
    good = (readout.msk & ~(MaskBit.NEAREDGE.value | MaskBit.EDGE.value)) == 0
    pull = ((readout.sci - readout.background) * np.sqrt(readout.wgt))[good]
    # 7e4 pixels: the mean is known to 0.004, the scatter to 0.003; five sigma.
    assert abs(pull.mean()) < 0.02
    assert pull.std() == pytest.approx(1.0, abs=0.015)
    level, noise = sky_level(chip)
    assert level == pytest.approx(chip.exposure.sky, rel=0.05)
    assert noise == pytest.approx(np.median(readout.wgt) ** -0.5, rel=0.05)


def test_light_adds_its_own_photon_noise_and_nothing_else(survey):
    parameters, chip = survey
    readout = expose(np.full(chip.shape, 9000.0), chip, parameters, NO_STARS)
    good = readout.msk == 0
    gain = np.broadcast_to(gain_map(chip), chip.shape)
    variance = 9000.0 / gain + 1.0 / readout.wgt
    pull = ((readout.sci - readout.background - 9000.0) / np.sqrt(variance))[good]
    assert abs(pull.mean()) < 0.02
    assert pull.std() == pytest.approx(1.0, abs=0.015)


def test_planes_are_finite_and_of_the_right_kind(survey):
    parameters, chip = survey
    readout = expose(np.full(chip.shape, 1e7), chip, parameters, NO_STARS)
    assert (readout.sci.dtype, readout.wgt.dtype, readout.msk.dtype, readout.background.dtype) == (
        "f4",
        "f4",
        "i2",
        "f4",
    )
    assert np.isfinite(readout.sci).all()
    assert readout.wgt.min() > 0
    assert np.all(readout.msk & MaskBit.SATURATE)
    assert readout.sci.max() <= chip.saturation / min(chip.gain)


def test_edges_and_star_regions_are_marked(survey):
    parameters, chip = survey
    readout = expose(np.zeros(chip.shape), chip, parameters, np.array([[100.0, 50.0, 10.0], [-500.0, 0.0, 5.0]]))
    edge = parameters.camera.edge
    assert np.all(readout.msk[:edge] & MaskBit.EDGE)
    assert not np.any(readout.msk[edge:-edge, edge:-edge] & MaskBit.EDGE)
    star = (readout.msk & MaskBit.STAR) != 0
    assert star.sum() == pytest.approx(np.pi * 100, rel=0.05)
    assert star[100, 50]
    assert star[100, 60]
    assert not star[100, 61]


def test_defects_are_in_the_image_and_in_the_mask():
    parameters = tiny_survey("r")
    streaked = next(chip for chip in chips(parameters) if chip.exposure.streak)
    readout = expose(np.zeros(streaked.shape), streaked, parameters, NO_STARS)
    noise = np.median(readout.wgt) ** -0.5
    for bit in (MaskBit.BPM, MaskBit.CRAY, MaskBit.STREAK):
        inside = (readout.msk & bit) != 0
        assert inside.any(), bit
        assert np.sqrt(np.mean(readout.sci[inside] ** 2)) > 1.3 * noise, bit
    clean = (readout.msk & ~np.int16(MaskBit.NEAREDGE.value | MaskBit.EDGE.value)) == 0
    assert np.abs(readout.sci[clean]).max() < 6 * noise


def test_the_background_is_smooth_and_exact_in_float32(survey):
    _, chip = survey
    background = background_map(chip, 4.0, 1)
    assert np.abs(background).max() == pytest.approx(4.0, abs=1 / 64)
    assert np.abs(np.diff(background, axis=0)).max() < 0.3
    np.testing.assert_array_equal(background * 64, np.round(background * 64))
    assert not background_map(chip, 0.0, 1).any()


def test_bad_columns_belong_to_the_ccd_and_noise_to_the_exposure():
    parameters = tiny_survey("r")
    first, second = (expose(np.zeros(c.shape), c, parameters, NO_STARS) for c in chips(parameters)[:2])
    np.testing.assert_array_equal(first.msk & MaskBit.BPM, second.msk & MaskBit.BPM)
    clean = (first.msk == 0) & (second.msk == 0)
    noise = (first.sci - first.background)[clean], (second.sci - second.background)[clean]
    assert abs(np.corrcoef(noise)[0, 1]) < 0.03
