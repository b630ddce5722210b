"""Null-weight images: the weight planes and row interpolation that coadds and MEDS are made from."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from balrogutils.fitsfile import Header, Plane, write_images
from balrogutils.masks import MaskBit, mask_of

__all__ = [
    "INTERP_MASK",
    "INVALID_MASK",
    "KEEP_IN_STAR",
    "NULL_MASK",
    "NullWeights",
    "interpolate_rows",
    "null_weights",
    "write_nullwt",
]

NULL_MASK = mask_of(("BPM", "BADAMP", "EDGEBLEED", "EDGE", "CRAY", "SSXTALK", "STREAK", "TRAIL"))
"""Bits under which WGT is zero."""

INTERP_MASK = mask_of(("TRAIL", "BPM"))
"""Bits whose pixels are interpolated along rows."""

INVALID_MASK = mask_of(("EDGE",))
"""Bits whose pixels are never a source of interpolation."""

KEEP_IN_STAR = mask_of(("TRAIL",))
"""Bits that do not null WGT_ME inside a STAR mask."""

_CHUNK = 16384  # runs filled at once: the samples of one chunk stay below a few MiB
_BAND_ROWS = 256


@dataclass(frozen=True)
class NullWeights:
    """The four planes of one CCD and what happened to them.

    Attributes
    ----------
    sci, wgt, wgt_me : ndarray of float32, shape (ny, nx)
        Image, weight, and weight that survives bleed trails inside star masks.
    msk : ndarray of int16, shape (ny, nx)
        Mask bits, INTERP added.
    interpolated, not_finite : int
        Pixels filled along rows, and pixels whose image or weight was not a finite number.
    """

    sci: NDArray[np.float32]
    wgt: NDArray[np.float32]
    wgt_me: NDArray[np.float32]
    msk: NDArray[np.int16]
    interpolated: int
    not_finite: int

    @property
    def dead(self) -> bool:
        """Whether no pixel has any weight."""
        return not self.wgt.any()


def _runs(bad: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return (row, first column, one past the last column) of every run of True along the rows."""
    rows, nx = bad.shape
    parts: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]] = []
    for top in range(0, rows, _BAND_ROWS):
        block = bad[top : top + _BAND_ROWS]
        padded = np.zeros((len(block), nx + 2), dtype=np.int8)
        padded[:, 1:-1] = block
        steps = np.diff(padded, axis=1)
        # Starts and ends come out in the same (row-major) order, one end for each start.
        row, first = np.nonzero(steps == 1)
        last = np.nonzero(steps == -1)[1]
        parts.append((row + top, first, last))
    return tuple(np.concatenate([part[i] for part in parts]) for i in range(3))  # type: ignore[return-value]


def _median_of_good(values: NDArray[np.float32], good: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the median of the good values of each row; the caller sees to it that there is one."""
    ordered = np.sort(np.where(good, values, np.float32(np.inf)), axis=1)
    count = good.sum(axis=1)
    rows = np.arange(len(values))
    low, high = ordered[rows, (count - 1) // 2], ordered[rows, count // 2]
    return (0.5 * (low.astype(np.float64) + high)).astype(np.float32)


def interpolate_rows(
    sci: NDArray[np.float32],
    msk: NDArray[np.integer],
    *,
    interp_mask: int = INTERP_MASK,
    invalid_mask: int = INVALID_MASK,
    block_size: int = 5,
    min_cols: int = 1,
    max_cols: int = 50,
) -> int:
    """Fill runs of bad pixels along rows, in place, and set INTERP in the mask.

    Parameters
    ----------
    sci : ndarray of float32, shape (ny, nx)
        Image; changed in place.
    msk : ndarray of int, shape (ny, nx)
        Mask bits; changed in place.
    interp_mask : int
        Pixels with any of these bits are filled.
    invalid_mask : int
        Pixels with any of these bits are never a source.
    block_size : int
        The source is the column left and the column right of the run, from row - (block_size - 1) to
        row + (block_size - 1).
    min_cols, max_cols : int
        Lengths of run that are filled; longer ones stay as they are.

    Returns
    -------
    int
        Number of pixels filled.

    Notes
    -----
    The value of a run is the median of the good source pixels of both sides together (P 3.1, step 5). A run that
    touches the first or last column, or has no good source pixel, is left alone; so is its mask.
    """
    ny, nx = sci.shape
    bad = (msk & interp_mask) != 0
    if not bad.any():
        return 0
    source = ~bad
    source &= (msk & invalid_mask) == 0
    source &= np.isfinite(sci)
    row, first, last = _runs(bad)
    length = last - first
    use = (length >= min_cols) & (length <= max_cols) & (first > 0) & (last < nx)
    row, first, last = row[use], first[use], last[use]
    reach = np.arange(-(block_size - 1), block_size)
    interp = msk.dtype.type(MaskBit.INTERP.value)
    filled = 0
    for start in range(0, len(row), _CHUNK):
        r, c0, c1 = (array[start : start + _CHUNK] for array in (row, first, last))
        rows = r[:, np.newaxis] + reach
        inside = (rows >= 0) & (rows < ny)
        rows = np.clip(rows, 0, ny - 1)
        columns = ((c0 - 1)[:, np.newaxis], c1[:, np.newaxis])
        values = np.concatenate([sci[rows, column] for column in columns], axis=1)
        good = np.concatenate([source[rows, column] & inside for column in columns], axis=1)
        some = good.any(axis=1)
        if not some.any():
            continue
        r, c0, c1 = r[some], c0[some], c1[some]
        fill = _median_of_good(values[some], good[some])
        n = c1 - c0
        # The pixels of all runs, one after the other: run k starts at offset[k].
        offset = np.concatenate(([0], np.cumsum(n)))
        which = np.repeat(np.arange(len(n)), n)
        column = np.arange(offset[-1]) - offset[:-1][which] + c0[which]
        sci[r[which], column] = fill[which]
        msk[r[which], column] |= interp
        filled += int(offset[-1])
    return filled


def null_weights(
    sci: NDArray[np.floating],
    wgt: NDArray[np.floating],
    msk: NDArray[np.integer],
    *,
    block_size: int = 5,
    max_cols: int = 50,
) -> NullWeights:
    """Apply the null-weight recipe to one CCD (P 3.1, steps 3 to 5).

    Parameters
    ----------
    sci, wgt : ndarray of float, shape (ny, nx)
        Image and inverse variance.
    msk : ndarray of int, shape (ny, nx)
        DES mask bits.
    block_size, max_cols : int
        See `interpolate_rows`.

    Returns
    -------
    NullWeights
        New arrays; the inputs are not changed.

    Notes
    -----
    Order: WGT_ME from the untouched weight (TRAIL nulls, but not inside STAR; then the other null bits), WGT (any null
    bit nulls), interpolation of TRAIL and BPM along rows. A pixel whose image or weight is not a finite number, or
    whose weight is negative, gets weight zero in both planes and the BPM bit, so that it is interpolated where it can
    be; where it cannot, its image value becomes 0.
    """
    image = np.array(sci, dtype=np.float32, order="C")
    weight = np.array(wgt, dtype=np.float32, order="C")
    mask = np.array(msk, dtype=np.int16, order="C")
    broken = ~(np.isfinite(image) & np.isfinite(weight) & (weight >= 0))
    not_finite = int(np.count_nonzero(broken))
    if not_finite:
        weight[broken] = 0.0
        mask[broken] |= np.int16(MaskBit.BPM.value)
    weight_me = weight.copy()
    weight_me[(mask & KEEP_IN_STAR) != 0] = 0.0
    star = (mask & MaskBit.STAR.value) != 0
    weight_me[star] = weight[star]
    del star
    weight_me[(mask & (NULL_MASK & ~KEEP_IN_STAR)) != 0] = 0.0
    weight[(mask & NULL_MASK) != 0] = 0.0
    interpolated = interpolate_rows(image, mask, block_size=block_size, max_cols=max_cols)
    if not_finite:
        image[~np.isfinite(image)] = 0.0
    return NullWeights(image, weight, weight_me, mask, interpolated, not_finite)


def write_nullwt(path: str | os.PathLike[str], planes: NullWeights, header: Header) -> None:
    """Write SCI, WGT, WGT_ME and MSK; `header` goes to SCI and MSK (P 3.1, step 7)."""
    write_images(
        path,
        [
            Plane("SCI", planes.sci, header),
            Plane("WGT", planes.wgt),
            Plane("WGT_ME", planes.wgt_me),
            Plane("MSK", planes.msk, header),
        ],
    )
