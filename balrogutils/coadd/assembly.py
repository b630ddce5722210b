"""Assembly of a coadd file: mask, interpolation along columns, headers, HDUs SCI, MSK, WGT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError
from balrogutils.fitsfile import Header, checksum, portable_cards, read_header, read_image, read_table
from balrogutils.products import writing

__all__ = ["Coadd", "Zipper", "fill_columns", "read_coadd", "undo_filling", "write_coadd"]

FILLED = np.dtype([("row", "i4"), ("col", "i4"), ("sci", "f4"), ("masked", "i2")])
"""Pixels that interpolation overwrote: zero-offset position, value before, and whether the pixel was masked before."""


@dataclass(frozen=True)
class Zipper:
    """Parameters of the interpolation along columns.

    Parameters
    ----------
    xblock : int
        Source pixels come from this many columns minus one to the left and right of the column.
    yblock : int
        Source pixels come from this many rows below and above the run.
    mincols, maxcols : int
        Runs of this many pixels are filled.
    ydilate : int
        The fill reaches this many rows below the run and one less above it.
    """

    xblock: int = 10
    yblock: int = 3
    mincols: int = 1
    maxcols: int = 100
    ydilate: int = 3


class Coadd(NamedTuple):
    """A coadd: pixels f4, mask 0 or 1 (i2), inverse variance f4, all ``[row, col]``; WCS cards; what was filled."""

    sci: NDArray[np.float32]
    msk: NDArray[np.int16]
    wgt: NDArray[np.float32]
    header: Header
    filled: NDArray[Any]


def _runs(bad: NDArray[np.bool_], zipper: Zipper) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return column, first and last row of the vertical runs of bad pixels to be filled, column by column upwards."""
    starts, ends = bad.copy(), bad.copy()
    starts[1:] &= ~bad[:-1]
    ends[:-1] &= ~bad[1:]
    # Both come out column by column and upwards, so the n-th start and the n-th end are of one run.
    cols, first = np.nonzero(starts.T)
    last = np.nonzero(ends.T)[1]
    length = last - first + 1
    wanted = (first > 0) & (last < bad.shape[0] - 1) & (length >= zipper.mincols) & (length <= zipper.maxcols)
    return cols[wanted], first[wanted], last[wanted]


def _source_medians(
    sci: NDArray[np.float32],
    bad: NDArray[np.bool_],
    cols: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    zipper: Zipper,
) -> NDArray[np.float32]:
    steps = np.arange(1, zipper.yblock + 1)
    rows = np.concatenate([first[:, None] - steps, last[:, None] + steps], axis=1)[:, :, None]
    across = (cols[:, None] + np.arange(-(zipper.xblock - 1), zipper.xblock))[:, None, :]
    inside = (rows >= 0) & (rows < sci.shape[0]) & (across >= 0) & (across < sci.shape[1])
    rows, across = np.clip(rows, 0, sci.shape[0] - 1), np.clip(across, 0, sci.shape[1] - 1)
    values = np.where(inside & ~bad[rows, across], sci[rows, across].astype(np.float64), np.nan).reshape(len(cols), -1)
    # The pixels that bound a run are good, so every row holds at least two numbers.
    return np.nanmedian(values, axis=1).astype(np.float32)


def fill_columns(
    sci: NDArray[np.float32], msk: NDArray[np.int16], zipper: Zipper | None = None, chunk: int = 20000
) -> NDArray[Any]:
    """Interpolate masked pixels, and pixels that are exactly 0, along columns, in place.

    A vertical run of bad pixels that touches neither edge and is not longer than `maxcols` gets one value, the median
    of the good pixels in a block of rows just below and just above it, and MSK = 1 over all that is overwritten.

    Parameters
    ----------
    sci : ndarray of float32, shape (nrow, ncol)
        Pixels; changed.
    msk : ndarray of int16, shape (nrow, ncol)
        1 for bad pixels, else 0; changed.
    zipper : Zipper, optional
        Parameters.
    chunk : int
        Runs worked on at a time; bounds memory.

    Returns
    -------
    ndarray of `FILLED`
        What was overwritten, once per pixel, with the value it had.

    Notes
    -----
    Source pixels are taken from the image as it came in, never from filled pixels, so the result does not depend on
    the order of the columns. Rows ``first - ydilate`` to ``last + ydilate - 1`` are overwritten. Where two fills
    overlap the upper one stands.
    """
    zipper = zipper or Zipper()
    bad = (msk != 0) | (sci == 0)
    cols, first, last = _runs(bad, zipper)
    pieces = [slice(at, at + chunk) for at in range(0, len(cols), chunk)]
    medians = [_source_medians(sci, bad, cols[piece], first[piece], last[piece], zipper) for piece in pieces]
    del bad
    value = np.concatenate([np.empty(0, np.float32), *medians])
    low = np.maximum(first - zipper.ydilate, 0)
    high = np.minimum(last + max(zipper.ydilate - 1, 0), sci.shape[0] - 1)
    length = high - low + 1
    rows = np.repeat(low, length) + np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    columns = np.repeat(cols, length)
    once = np.unique(rows * sci.shape[1] + columns)
    filled = np.zeros(len(once), dtype=FILLED)
    filled["row"], filled["col"] = np.divmod(once, sci.shape[1])
    filled["sci"] = sci[filled["row"], filled["col"]]
    filled["masked"] = msk[filled["row"], filled["col"]] != 0
    # Of repeated indices numpy keeps the last value, which is the upper run's.
    sci[rows, columns] = np.repeat(value, length)
    msk[rows, columns] = 1
    return filled


def write_coadd(path: str | PathLike[str], coadd: Coadd, cards: Mapping[str, Any]) -> None:
    """Write a coadd file: HDUs SCI, MSK and WGT, and the table FILLED of what interpolation overwrote.

    Parameters
    ----------
    path : path-like
        Final name; appears only when whole.
    coadd : Coadd
        Planes.
    cards : mapping
        Cards for all three images, over those of ``coadd.header``.
    """
    header = fitsio.FITSHDR(portable_cards(coadd.header))
    for key, value in cards.items():
        header.add_record({"name": key, "value": value})
    common = portable_cards(header)
    with writing(path) as part, fitsio.FITS(str(part), "rw", clobber=True) as fits:
        for name, plane in (("SCI", coadd.sci), ("MSK", coadd.msk), ("WGT", coadd.wgt)):
            fits.write(np.ascontiguousarray(plane), header=common, extname=name)
            checksum(fits[-1])
        fits.write_table(coadd.filled, extname="FILLED")
        checksum(fits[-1])


def _filled(path: str | PathLike[str]) -> NDArray[Any]:
    with fitsio.FITS(str(path)) as fits:
        there = any(hdu.get_extname() == "FILLED" for hdu in fits)
    return read_table(path, "FILLED") if there else np.zeros(0, dtype=FILLED)


def read_coadd(path: str | PathLike[str]) -> Coadd:
    """Read a coadd file as `write_coadd` leaves it, or one of another maker.

    A coadd without the table FILLED does not tell what interpolation overwrote; its pixels are taken as they are. Its
    mask may be of any type of integer.

    Raises
    ------
    ProductError
        When the file or one of its HDUs is missing or damaged, or the planes differ in shape.
    """
    coadd = Coadd(
        read_image(path, "SCI"),
        (read_image(path, "MSK") != 0).astype(np.int16),
        read_image(path, "WGT"),
        read_header(path, "SCI"),
        _filled(path),
    )
    if not coadd.sci.shape == coadd.msk.shape == coadd.wgt.shape:
        raise ProductError("the planes of a coadd differ in shape", file=path, remedy="make the coadd again (mode 2)")
    return coadd


def undo_filling(coadd: Coadd) -> NDArray[np.bool_]:
    """Give `coadd` back, in place, the pixels it had before interpolation along columns.

    Returns
    -------
    ndarray of bool, shape (nrow, ncol)
        Which pixels were masked then. The detection image combines these: a filled pixel is no measurement.
    """
    masked = coadd.msk != 0
    rows, cols = coadd.filled["row"], coadd.filled["col"]
    coadd.sci[rows, cols] = coadd.filled["sci"]
    masked[rows, cols] = coadd.filled["masked"] != 0
    coadd.msk[...] = masked
    return masked
