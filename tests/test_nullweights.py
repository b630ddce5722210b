"""The null-weight recipe: degenerate CCDs, bit by bit, and row interpolation against a plain loop."""

import numpy as np
import pytest

from balrogutils.exposures.nullweights import NULL_MASK, interpolate_rows, null_weights, write_nullwt
from balrogutils.fitsfile import Header, read_image
from balrogutils.masks import MaskBit


def ccd(shape=(40, 50), seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(5, 10, shape).astype("f4"), np.full(shape, 0.25, "f4"), np.zeros(shape, "i2")


def loop(sci, msk, block=5, longest=50):
    """The rule of `interpolate_rows`, one pixel at a time."""
    out, mask = sci.copy(), msk.copy()
    ny, nx = sci.shape
    bad = (msk & 65) != 0
    for row in range(ny):
        col = 0
        while col < nx:
            if not bad[row, col]:
                col += 1
                continue
            end = col
            while end < nx and bad[row, end]:
                end += 1
            values = [
                sci[r, c]
                for c in (col - 1, end)
                for r in range(max(0, row - block + 1), min(ny, row + block))
                if col > 0 and end < nx and not bad[r, c] and not msk[r, c] & 512 and np.isfinite(sci[r, c])
            ]
            if values and end - col <= longest:
                out[row, col:end] = np.median(np.array(values, dtype="f8"))
                mask[row, col:end] |= 4
            col = end
    return out, mask


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (0, 5)])
@pytest.mark.parametrize("bits", [0, 1, 64, 512, 1 | 32])
def test_tiny_images(shape, bits):
    sci, wgt, msk = ccd(shape)
    planes = null_weights(sci, wgt, msk + np.int16(bits))
    assert planes.sci.shape == shape
    assert planes.interpolated == 0
    np.testing.assert_array_equal(planes.sci, sci)
    assert (planes.wgt == (0.0 if bits & NULL_MASK else 0.25)).all()


def test_a_fully_masked_ccd_has_no_weight_and_no_value_changes():
    sci, wgt, msk = ccd()
    planes = null_weights(sci, wgt, msk + np.int16(1))
    assert planes.dead
    assert not planes.wgt_me.any()
    np.testing.assert_array_equal(planes.sci, sci)
    assert not (planes.msk & MaskBit.INTERP).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_lose_their_weight_and_are_filled(value):
    sci, wgt, msk = ccd()
    sci[3, 4] = value
    wgt[20, 30] = value
    wgt[21, 30] = -1.0
    planes = null_weights(sci, wgt, msk)
    assert planes.not_finite == 3
    for plane in (planes.sci, planes.wgt, planes.wgt_me):
        assert np.isfinite(plane).all()
    for place in ((3, 4), (20, 30), (21, 30)):
        assert planes.wgt[place] == planes.wgt_me[place] == 0
        assert planes.msk[place] == MaskBit.BPM | MaskBit.INTERP
    assert (planes.wgt > 0).sum() == sci.size - 3


def test_a_ccd_of_nan_is_zero_everywhere():
    sci, wgt, msk = ccd()
    planes = null_weights(np.full_like(sci, np.nan), wgt, msk)
    assert planes.dead
    assert not planes.sci.any()
    assert planes.not_finite == sci.size


def test_a_ccd_without_weight_stays_without():
    sci, wgt, msk = ccd()
    planes = null_weights(sci, np.zeros_like(wgt), msk)
    assert planes.dead
    np.testing.assert_array_equal(planes.sci, sci)


@pytest.mark.parametrize("bit", [bit for bit in MaskBit if bit < MaskBit.OFF_IMAGE])
@pytest.mark.parametrize("star", [False, True])
def test_each_bit_nulls_what_the_recipe_says(bit, star):
    sci, wgt, msk = ccd()
    msk[10, 10] = bit | (MaskBit.STAR if star else 0)
    planes = null_weights(sci, wgt, msk)
    null = bit.name in ["BPM", "BADAMP", "EDGEBLEED", "EDGE", "CRAY", "SSXTALK", "STREAK", "TRAIL"]
    assert (planes.wgt[10, 10] == 0) == null
    # Inside a star mask a trail keeps its weight in WGT_ME; nothing else does.
    assert (planes.wgt_me[10, 10] == 0) == (null and not (star and bit is MaskBit.TRAIL))
    others = np.ones(sci.shape, bool)
    others[10, 10] = False
    assert (planes.wgt[others] == 0.25).all()
    assert (planes.wgt_me[others] == 0.25).all()


def test_star_and_trail_with_another_null_bit_is_null():
    sci, wgt, msk = ccd()
    msk[10, 10] = MaskBit.STAR | MaskBit.TRAIL | MaskBit.CRAY
    assert null_weights(sci, wgt, msk).wgt_me[10, 10] == 0


def test_inputs_are_not_changed():
    sci, wgt, msk = ccd()
    msk[5, 5:8] = 65
    before = [array.copy() for array in (sci, wgt, msk)]
    null_weights(sci, wgt, msk)
    for array, old in zip((sci, wgt, msk), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_filled_as_the_plain_loop_fills_them(seed):
    rng = np.random.default_rng(seed)
    sci, _, msk = ccd((70, 90), seed)
    msk |= (rng.random(sci.shape) < 0.1).astype("i2")
    msk |= 64 * (rng.random(sci.shape) < 0.05).astype("i2")
    msk[:, 40:42] |= 1
    msk[10:20, 20:75] |= 64
    msk[:3] |= 512
    msk[30:40, 60] |= 512
    sci[35, 5] = np.nan
    expected, mask = loop(sci, msk)
    filled = interpolate_rows(sci, msk)
    np.testing.assert_array_equal(sci, expected)
    np.testing.assert_array_equal(msk, mask)
    assert filled == ((mask & 4) != 0).sum() > 500


def test_a_run_longer_than_max_cols_stays():
    sci, _, msk = ccd((20, 120))
    msk[5, 10:60] = 1
    msk[9, 10:61] = 1
    before = sci.copy()
    assert interpolate_rows(sci, msk) == 50
    assert (sci[5, 10:60] == sci[5, 10]).all()
    np.testing.assert_array_equal(sci[9], before[9])
    assert not (msk[9] & MaskBit.INTERP).any()


def test_a_run_at_the_side_of_the_image_stays():
    sci, _, msk = ccd()
    msk[:, 0] = 1
    msk[:, -2:] = 64
    before = sci.copy()
    assert interpolate_rows(sci, msk) == 0
    np.testing.assert_array_equal(sci, before)


def test_edge_pixels_are_never_a_source():
    sci, _, msk = ccd()
    msk[:, 10] = 1
    msk[:, 9] = 512
    sci[:, 9] = 1e6
    interpolate_rows(sci, msk)
    assert abs(sci[:, 10]).max() < 100
    expected = [np.median(sci[max(0, row - 4) : row + 5, 11].astype("f8")) for row in range(len(sci))]
    np.testing.assert_allclose(sci[:, 10], expected, rtol=1e-6)


def test_a_column_through_a_smooth_sky_is_restored():
    # On a plane the median of 18 neighbours is the mean of both sides; its noise is about 1.25 sigma / sqrt(18).
    rows, cols = np.mgrid[:200, :200]
    truth = (0.05 * rows + 0.1 * cols).astype("f4")
    rng = np.random.default_rng(3)
    sci = (truth + rng.normal(0, 1, truth.shape)).astype("f4")
    sci[:, 80] = 1e5
    msk = np.zeros(truth.shape, "i2")
    msk[:, 80] = 1
    interpolate_rows(sci, msk)
    off = (sci - truth)[5:-5, 80]
    assert abs(off.mean()) < 0.1
    assert off.std() < 0.4


def test_planes_are_written_in_order(tmp_path):
    sci, wgt, msk = ccd()
    msk[5, 5] = 64 | 32
    planes = null_weights(sci, wgt, msk)
    header = Header()
    header.add_record({"name": "BAND", "value": "g"})
    path = tmp_path / "nullwt.fits"
    write_nullwt(path, planes, header)
    for name, ext in (("sci", 0), ("wgt", 1), ("wgt_me", 2), ("msk", 3)):
        plane = getattr(planes, name)
        read = read_image(path, name.upper())
        np.testing.assert_array_equal(read, plane)
        np.testing.assert_array_equal(read_image(path, ext), plane)
        assert read.dtype == plane.dtype
