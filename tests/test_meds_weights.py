"""Derived weights: cweight, uberseg, cseg, outlier rejection."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from balrogutils.meds.weights import (
    coadd_weight,
    composite_seg,
    map_coadd_seg,
    nearest_object,
    own_weight,
    reject_outliers,
    uberseg,
)
from balrogutils.randomness import stream

IDENTITY = 0.263 * np.eye(2)


def brute_force(seg):
    """Nearest labelled pixel by looking at all of them; the first in row-major order of those at the same distance."""
    rows, cols = np.nonzero(seg)
    out = np.zeros_like(seg)
    if rows.size:
        r, c = np.indices(seg.shape)
        squared = (r[..., None] - rows) ** 2 + (c[..., None] - cols) ** 2
        out = seg[rows, cols][np.argmin(squared, axis=-1)]
    return out


@settings(deadline=None, max_examples=60)
@given(
    arrays(
        np.int32,
        st.tuples(st.integers(1, 14), st.integers(1, 14)),
        elements=st.sampled_from([0, 0, 0, 0, 0, 1, 2, 7]),
    )
)
def test_nearest_object_is_the_brute_force_one_ties_included(seg):
    np.testing.assert_array_equal(nearest_object(seg), brute_force(seg))


def test_nearest_object_on_a_sparse_large_stamp():
    seg = np.zeros((64, 64), np.int32)
    rng = stream(5, "sparse")
    seg[rng.integers(0, 64, 9), rng.integers(0, 64, 9)] = np.arange(1, 10)
    np.testing.assert_array_equal(nearest_object(seg), brute_force(seg))


def two_objects():
    seg = np.zeros((32, 32), np.int32)
    seg[16, 10], seg[16, 22] = 1, 2
    return seg


def test_uberseg_splits_between_two_objects_and_the_tie_goes_to_the_first():
    weight = np.full((32, 32), 2.0, np.float32)
    here = (IDENTITY, 16.0, 10.0)
    out = uberseg(weight, two_objects(), here, here, 1)
    expected = np.where(np.arange(32)[np.newaxis, :] <= 16, weight, 0)
    np.testing.assert_array_equal(out, expected)
    assert out.dtype == np.float32
    assert (weight == 2).all()
    there = (IDENTITY, 16.0, 22.0)
    np.testing.assert_array_equal(uberseg(weight, two_objects(), there, there, 2), weight - expected)


def test_uberseg_of_one_label_is_cweight():
    seg = np.zeros((16, 16), np.int32)
    seg[4:8, 4:8] = 3
    weight = np.ones((16, 16))
    here = (IDENTITY, 5.0, 5.0)
    # The upstream short-cut holds even where the only label is not this object's.
    for number in (3, 4):
        np.testing.assert_array_equal(uberseg(weight, seg, here, here, number), weight)
    np.testing.assert_array_equal(uberseg(weight, np.zeros_like(seg), here, here, 3), weight)


def test_cweight_is_the_mask_of_the_segmentation():
    seg = two_objects()
    seg[14:19, 8:13], seg[14:19, 20:25] = 1, 2
    weight = np.ones((32, 32))
    here = (IDENTITY, 16.0, 10.0)
    np.testing.assert_array_equal(coadd_weight(weight, seg, here, here), seg != 2)
    np.testing.assert_array_equal(coadd_weight(weight, seg, here, here, restrict_to_seg=True), seg == 1)
    np.testing.assert_array_equal(composite_seg((32, 32), 9, seg, here, here), np.where(seg != 2, 9, 0))


def test_a_shifted_centre_shifts_the_mask():
    seg = two_objects()
    seg[14:19, 8:13], seg[14:19, 20:25] = 1, 2
    weight = np.ones((32, 32))
    shifted = coadd_weight(weight, seg, (IDENTITY, 16.0, 10.0), (IDENTITY, 18.0, 10.0))
    np.testing.assert_array_equal(shifted[2:], (seg != 2)[:-2])


def test_a_rotated_epoch_sees_the_rotated_segmentation():
    seg = np.zeros((31, 31), np.int32)
    seg[15, 15], seg[5:9, 20:24] = 1, 2
    quarter = 0.263 * np.array([[0.0, 1.0], [-1.0, 0.0]])
    mapped = map_coadd_seg(seg, (IDENTITY, 15.0, 15.0), (quarter, 15.0, 15.0), (31, 31))
    # Epoch pixel (r, c) lies at coadd row c and coadd column 30 - r.
    np.testing.assert_array_equal(mapped, seg.T[::-1])


def test_mapping_rounds_half_to_even_and_clips():
    seg = np.arange(16, dtype=np.int32).reshape(4, 4)
    mapped = map_coadd_seg(seg, (IDENTITY, 0.5, 0.0), (IDENTITY, 0.0, 0.0), (4, 4))
    # rows 0.5, 1.5, 2.5, 3.5 become 0, 2, 2, 4 (clipped to 3)
    np.testing.assert_array_equal(mapped[:, 0], [0, 8, 8, 12])
    far = map_coadd_seg(seg, (IDENTITY, 0.0, 0.0), (1000 * IDENTITY, 0.0, 0.0), (2, 2))
    np.testing.assert_array_equal(far, [[0, 3], [12, 15]])


@pytest.mark.parametrize("singular", [np.zeros((2, 2)), np.ones((2, 2)), np.full((2, 2), np.nan)])
def test_singular_coadd_jacobian_gives_no_weight(singular):
    seg, weight = np.ones((4, 4), np.int32), np.ones((4, 4))
    assert map_coadd_seg(seg, (singular, 1.0, 1.0), (IDENTITY, 1.0, 1.0), (4, 4)) is None
    assert not coadd_weight(weight, seg, (singular, 1.0, 1.0), (IDENTITY, 1.0, 1.0)).any()
    assert not uberseg(weight, seg, (singular, 1.0, 1.0), (IDENTITY, 1.0, 1.0), 1).any()


def test_sky_at_the_centre_makes_every_label_another_object():
    seg = two_objects()
    seg[16, 10] = 0
    here = (IDENTITY, 16.0, 10.0)
    np.testing.assert_array_equal(coadd_weight(np.ones((32, 32)), seg, here, here), seg == 0)


def test_own_weight_is_a_circle_up_to_the_nearest_other_object():
    seg = np.zeros((21, 21), np.int32)
    seg[10, 10], seg[10, 15] = 4, 9
    weight = np.ones((21, 21))
    r, c = np.indices(seg.shape)
    np.testing.assert_array_equal(own_weight(weight, seg, 10.0, 10.0), (r - 10) ** 2 + (c - 10) ** 2 < 25)
    np.testing.assert_array_equal(
        own_weight(weight, seg, 10.4, 10.0, canonical=True), (r - 10) ** 2 + (c - 10) ** 2 < 25
    )
    np.testing.assert_array_equal(own_weight(weight, np.where(seg == 9, 0, seg), 10.0, 10.0), weight)


def test_an_outlier_gets_no_weight():
    rng = stream(6, "outlier")
    images = [rng.normal(0, 1, (12, 12)) for _ in range(4)]
    weights = [np.ones((12, 12)) for _ in range(4)]
    images[2][3, 5] = 1e9
    assert reject_outliers(images, weights) == 1
    assert weights[2][3, 5] == 0
    assert sum(int((weight == 0).sum()) for weight in weights) == 1


def test_two_images_have_no_outliers():
    weights = [np.ones((2, 2)), np.ones((2, 2))]
    assert reject_outliers([np.zeros((2, 2)), np.full((2, 2), 1e9)], weights) == 0
    assert all(weight.all() for weight in weights)
