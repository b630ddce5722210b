"""Which epochs and pixels are used."""

from dataclasses import replace

import numpy as np
import pytest
from simulated_stamps import observe

from balrogutils.fitting.flags import ImageFlag
from balrogutils.fitting.observation import PSFStamp
from balrogutils.measurement.weights import WeightRules, prepare, reject_outliers

RULES = WeightRules(mask_bits=4)


@pytest.fixture
def epochs():
    rng = np.random.default_rng(4)
    return [observe(rng, None, 300.0, 1.0, 32) for _ in range(4)]


def test_no_epoch_is_no_epoch():
    assert prepare([], RULES) == ([], [], [], 0)


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"flags": 1}, ImageFlag.IMAGE_FLAGS_SET),
        ({"psf": None}, ImageFlag.PSF_FILE_READ_ERROR),
        ({"psf": PSFStamp(np.zeros((41, 41)), 20, 20)}, ImageFlag.PSF_FILE_READ_ERROR),
        ({"image": np.zeros((32, 32))}, ImageFlag.ZERO_IMAGE),
        ({"image": np.full((32, 32), np.nan)}, ImageFlag.ZERO_IMAGE),
        ({"weight": np.zeros((32, 32))}, ImageFlag.MASKED),
        ({"weight": np.full((32, 32), np.nan)}, ImageFlag.MASKED),
        ({"weight": np.full((32, 32), -1.0)}, ImageFlag.MASKED),
        ({"bmask": np.full((32, 32), 1)}, ImageFlag.MASKED),
        ({"region": np.zeros((32, 32))}, ImageFlag.MASKED),
    ],
)
def test_useless_epochs_are_dropped_with_a_reason(epochs, change, flag):
    epochs[1] = replace(epochs[1], **change)
    usable = prepare(epochs, RULES)
    assert usable.flags == [0, flag, 0, 0]
    assert usable.indices == [0, 2, 3]


def test_singular_jacobian_is_dropped(epochs):
    epochs[0] = replace(epochs[0], wcs=epochs[0].wcs._replace(dvdrow=0.0, dvdcol=0.0))
    epochs[1] = replace(epochs[1], wcs=epochs[1].wcs._replace(dvdrow=np.nan))
    assert prepare(epochs, RULES).flags[:2] == [ImageFlag.BAD_JACOBIAN] * 2


def test_nan_pixel_loses_its_weight(epochs):
    image = epochs[0].image.copy()
    image[3, 4] = np.nan
    epochs[0] = replace(epochs[0], image=image)
    first = prepare(epochs, RULES).epochs[0]
    assert (first.image[3, 4], first.weight[3, 4]) == (0.0, 0.0)
    assert np.all(np.isfinite(first.image))


def test_mask_bits_and_region_limit_the_weight(epochs):
    bmask = np.zeros((32, 32), int)
    bmask[5, 5], bmask[6, 6] = 4, 2
    region = np.zeros((32, 32))
    region[4:20, 4:20] = epochs[0].weight[4:20, 4:20]
    epochs[0] = replace(epochs[0], bmask=bmask, region=region)
    weight = prepare(epochs, replace(RULES, outliers=False)).epochs[0].weight
    want = np.zeros((32, 32))
    want[4:20, 4:20] = 1.0
    want[5, 5] = 0.0
    assert np.array_equal(weight, want)
    free = prepare(epochs, replace(RULES, outliers=False, use_region=False)).epochs[0].weight
    assert np.count_nonzero(free) == 32 * 32 - 1


def test_outliers_lose_their_weight(epochs):
    image = epochs[2].image.copy()
    image[10, 20] = 1e9
    epochs[2] = replace(epochs[2], image=image)
    usable = prepare(epochs, RULES)
    assert usable.epochs[2].weight[10, 20] == 0.0
    assert usable.rejected >= 1
    assert prepare(epochs[1:3], RULES).rejected == 0


def test_outlier_rule_is_the_formula():
    rng = np.random.default_rng(6)
    for n in (3, 4, 5, 8):
        images, weights = rng.normal(5, 6, (n, 400)), rng.uniform(0.0, 2.0, (n, 400))
        median = np.median(images, axis=0)
        lose = weights * (images - median) ** 2 > (5 + 0.3 * np.abs(median) * np.sqrt(weights)) ** 2
        got = weights.copy()
        assert reject_outliers(images, got, 5.0, 0.3) == lose.sum() > 0
        assert np.array_equal(got, np.where(lose, 0.0, weights))
