"""Interpolation along columns against a plain loop, and the coadd file."""

from __future__ import annotations

from pathlib import Path

import fitsio
import numpy as np
import pytest
from numpy.typing import NDArray

from balrogutils.coadd.assembly import Coadd, Zipper, read_coadd, undo_filling, write_coadd
from balrogutils.coadd.assembly import fill_columns as fill_in_place
from balrogutils.errors import ProductError
from balrogutils.randomness import stream


def fill_columns(sci: NDArray, msk: NDArray, *args: object, **kwargs: object) -> tuple[NDArray, NDArray, NDArray]:
    """Fill copies."""
    new_sci, new_msk = sci.copy(), msk.copy()
    return new_sci, new_msk, fill_in_place(new_sci, new_msk, *args, **kwargs)


def plain_loop(sci: NDArray, msk: NDArray, zipper: Zipper) -> tuple[NDArray, NDArray]:
    """The same rule, one column and one run at a time."""
    bad = (msk != 0) | (sci == 0)
    out, out_mask = sci.copy(), msk.copy()
    nrow, ncol = sci.shape
    for col in range(ncol):
        row = 0
        while row < nrow:
            if not bad[row, col]:
                row += 1
                continue
            first = row
            while row < nrow and bad[row, col]:
                row += 1
            last = row - 1
            if first == 0 or last == nrow - 1 or not zipper.mincols <= last - first + 1 <= zipper.maxcols:
                continue
            left, right = max(col - zipper.xblock + 1, 0), min(col + zipper.xblock, ncol)
            values = []
            for low, high in ((max(first - zipper.yblock, 0), first), (last + 1, last + 1 + zipper.yblock)):
                block = sci[low:high, left:right].astype(float)
                values.extend(block[~bad[low:high, left:right]])
            reach = slice(max(first - zipper.ydilate, 0), last + max(zipper.ydilate - 1, 0) + 1)
            out[reach, col] = np.float32(np.median(values))
            out_mask[reach, col] = 1
    return out, out_mask


def noise(shape: tuple[int, int], *names: str | int) -> NDArray[np.float32]:
    return stream(1, "test", *names).normal(10.0, 1.0, shape).astype(np.float32)


def mask(shape: tuple[int, int]) -> NDArray[np.int16]:
    return np.zeros(shape, np.int16)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2)])
@pytest.mark.parametrize("value", [0, 1])
def test_tiny_images_all_good_or_all_bad_are_left_alone(shape: tuple[int, int], value: int) -> None:
    sci, msk = noise(shape, "tiny"), np.full(shape, value, np.int16)
    new_sci, new_msk, filled = fill_columns(sci, msk)
    assert np.array_equal(new_sci, sci)
    assert np.array_equal(new_msk, msk)
    assert len(filled) == 0


def test_blank_image_stays_blank() -> None:
    new_sci, new_msk, filled = fill_columns(np.zeros((50, 40), np.float32), np.ones((50, 40), np.int16))
    assert not new_sci.any()
    assert new_msk.all()
    assert len(filled) == 0


@pytest.mark.parametrize("share", [0.002, 0.05, 0.4, 0.9])
@pytest.mark.parametrize("zipper", [Zipper(), Zipper(4, 2, 2, 5, 0), Zipper(1, 1, 1, 3, 1)])
def test_agrees_with_the_plain_loop(share: float, zipper: Zipper) -> None:
    sci, msk = noise((83, 61), "loop"), mask((83, 61))
    msk[stream(2, "test", str(share)).random(sci.shape) < share] = 1
    msk[20:40, 30:45] = 1
    sci[60:63, 5:50] = 0
    expected, expected_mask = plain_loop(sci, msk, zipper)
    new_sci, new_msk, filled = fill_columns(sci, msk, zipper, chunk=37)
    assert np.array_equal(new_sci, expected)
    assert np.array_equal(new_msk, expected_mask)
    assert np.isfinite(new_sci).all()
    assert len(filled) == len({(row, col) for row, col in zip(filled["row"], filled["col"], strict=True)})


def test_the_last_bad_row_is_no_source() -> None:
    """Saturated masked pixels must not leak into the fill: with the run's own last row in the sample they would."""
    sci, msk = np.full((40, 1), 10.0, np.float32), mask((40, 1))
    sci[20:23], msk[20:23] = 1e6, 1
    # One good row above and below: with the last bad row counted the median would be of 10, 10 and 1e6 values.
    filled = fill_columns(sci, msk, Zipper(xblock=1, yblock=1))[0]
    assert (filled == 10).all()


def test_masked_neighbours_are_no_sources() -> None:
    sci, msk = np.full((30, 21), 10.0, np.float32), mask((30, 21))
    msk[10:15, 10] = 1
    sci[7:10, :10], msk[7:10, :10] = 1e5, 1
    sci[15:18, 11:], msk[15:18, 11:] = 1e5, 1
    filled = fill_columns(sci, msk)[0]
    assert (filled[7:17, 10] == 10).all()


def test_fill_reaches_three_rows_below_and_two_above() -> None:
    sci, msk = noise((60, 30), "reach"), mask((60, 30))
    msk[30:34, 12] = 1
    new_sci, new_msk, filled = fill_columns(sci, msk)
    assert np.flatnonzero(new_msk[:, 12]).tolist() == list(range(27, 36))
    assert len(np.unique(new_sci[27:36, 12])) == 1
    assert np.flatnonzero((new_sci != sci).any(axis=0)).tolist() == [12]
    assert filled["masked"].tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0]


def test_runs_at_the_edges_or_too_long_are_not_filled() -> None:
    sci, msk = noise((150, 9), "edge"), mask((150, 9))
    msk[:4, 1] = msk[-4:, 3] = msk[20:121, 5] = msk[20:120, 7] = 1
    new_sci, new_msk, _ = fill_columns(sci, msk)
    assert np.array_equal(new_sci[:, [1, 3, 5]], sci[:, [1, 3, 5]])
    assert np.array_equal(new_msk[:, [1, 3, 5]], msk[:, [1, 3, 5]])
    assert (new_sci[20:120, 7] != sci[20:120, 7]).all()


def test_file_gives_back_what_it_was_given(tmp_path: Path) -> None:
    sci, msk = noise((80, 70), "file"), mask((80, 70))
    msk[30:34, 12:15] = 1
    sci[50, 20] = 0
    new_sci, new_msk, filled = fill_columns(sci, msk)
    header = fitsio.FITSHDR([{"name": "CRVAL1", "value": 1.5}, {"name": "BAND", "value": "x"}])
    write_coadd(tmp_path / "c.fits", Coadd(new_sci, new_msk, np.abs(sci), header, filled), {"BAND": "r"})
    coadd = read_coadd(tmp_path / "c.fits")
    assert np.array_equal(coadd.sci, new_sci)
    assert np.array_equal(coadd.msk, new_msk)
    assert (coadd.header["BAND"], coadd.header["CRVAL1"]) == ("r", 1.5)
    masked = undo_filling(coadd)
    assert np.array_equal(coadd.sci, sci)
    assert np.array_equal(coadd.msk, msk)
    assert np.array_equal(masked, msk != 0)


def test_missing_plane_is_refused(tmp_path: Path) -> None:
    with fitsio.FITS(str(tmp_path / "c.fits"), "rw") as fits:
        fits.write(noise((3, 3), "one"), extname="SCI")
    with pytest.raises(ProductError, match="no HDU 'MSK'"):
        read_coadd(tmp_path / "c.fits")
    with pytest.raises(ProductError, match="not there"):
        read_coadd(tmp_path / "d.fits")
