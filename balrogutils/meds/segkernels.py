"""Compiled loops over segmentation maps: the coadd's map seen by another epoch, and the nearest labelled pixel."""

from __future__ import annotations

from typing import Any

import numpy as np

from balrogutils.compiled import njit

__all__ = ["label_nearest", "map_seg", "uberseg_stack"]

_NONE = -(1 << 20)
"""Row of the nearest label in a column that has none: far above every stamp."""


@njit(cache=True)
def map_seg(seg: Any, matrix: Any, row0: float, col0: float, row: float, col: float, out: Any) -> None:
    """Fill `out` with the pixel of `seg` nearest to each of its own pixels (M 1.8).

    `matrix` takes offsets from (row, col) in `out` to offsets from (row0, col0) in `seg`. Positions are rounded half to
    even and moved into the stamp. All numbers must be finite.
    """
    rows, cols = out.shape
    width = seg.shape[1]
    # Clipping before rounding gives the same pixel and keeps far positions inside the integer range.
    last_row, last_col = float(seg.shape[0] - 1), float(width - 1)
    flat = seg.ravel()
    index = np.empty(cols, np.int32)
    for i in range(rows):
        base_r = row0 + matrix[0, 0] * (i - row)
        base_c = col0 + matrix[1, 0] * (i - row)
        for j in range(cols):
            r = np.rint(min(max(base_r + matrix[0, 1] * (j - col), 0.0), last_row))
            c = np.rint(min(max(base_c + matrix[1, 1] * (j - col), 0.0), last_col))
            index[j] = np.int32(r * width + c)
        line = out[i]
        for j in range(cols):
            line[j] = flat[index[j]]


@njit(cache=True)
def _distinct(mapped: Any) -> int:
    """Return how many values a map holds, 3 for more than two; 0 for a map of sky alone."""
    flat = mapped.ravel()
    first, second, count = flat[0], flat[0], 1
    for value in flat:
        if value != first:
            if count == 1:
                second, count = value, 2
            elif value != second:
                return 3
    return 0 if count == 1 and first == 0 else count


@njit(cache=True)
def _nearest_in_column(seg: Any, above: Any) -> None:
    """Fill `above` with the row of the nearest label in the same column; of two at one distance the smaller row."""
    rows, cols = seg.shape
    for i in range(rows):
        line, out = seg[i], above[i]
        before = above[max(i - 1, 0)]
        for j in range(cols):
            out[j] = np.int32(i) if line[j] != 0 else (before[j] if i > 0 else np.int32(_NONE))
    for i in range(rows - 2, -1, -1):
        out, after = above[i], above[i + 1]
        for j in range(cols):
            if after[j] > i and after[j] - i < i - out[j]:
                out[j] = after[j]


@njit(cache=True)
def _envelope(i: int, near: Any, at: Any, height: Any) -> int:
    """Stack the columns whose labels can be nearest to a pixel of row i; return their number.

    The distance to the label of column k, (j - k)^2 + (i - row)^2, less j^2, is a line in j: what is kept is the lower
    envelope of these lines (Felzenszwalb & Huttenlocher 2012). Columns that only touch it are kept too, for ties.
    """
    count = 0
    for k in range(near.size):
        if near[k] >= 0:
            h = (near[k] - i) * (near[k] - i) + k * k
            while count > 1 and (h - height[count - 1]) * (at[count - 1] - at[count - 2]) < (
                height[count - 1] - height[count - 2]
            ) * (k - at[count - 1]):
                count -= 1
            at[count], height[count] = k, h
            count += 1
    return count


@njit(cache=True)
def label_nearest(seg: Any, out: Any) -> None:
    """Fill `out` with the label of the nearest labelled pixel, the first in row-major order where several tie."""
    rows, cols = seg.shape
    above = np.empty((rows, cols), np.int32)
    _nearest_in_column(seg, above)
    at, height = np.empty(cols, np.int64), np.empty(cols, np.int64)
    for i in range(rows):
        near = above[i]
        count = _envelope(i, near, at, height)
        if count == 0:
            out[i] = 0
            continue
        q = 0
        for j in range(cols):
            here = height[q] - 2 * j * at[q]
            while q + 1 < count and height[q + 1] - 2 * j * at[q + 1] < here:
                q += 1
                here = height[q] - 2 * j * at[q]
            best = at[q]
            # Columns come in order, so of equal rows the smaller column stays.
            p = q + 1
            while p < count and height[p] - 2 * j * at[p] == here:
                if near[at[p]] < near[best]:
                    best = at[p]
                p += 1
            out[i, j] = seg[near[best], best]


@njit(cache=True)
def uberseg_stack(
    weight: Any, seg: Any, matrices: Any, row0: float, col0: float, centres: Any, own: int, number: int, out: Any
) -> None:
    """Fill `out`, shape (n, box, box), with the uberseg weights of n stamps of one object (M 1.8).

    `matrices` (n, 2, 2) and `centres` (n, 2) as in `map_seg`; `own` is the label at the object's pixel of the coadd.
    A stamp whose matrix or centre is not finite gets weight 0.
    """
    count, rows, cols = weight.shape
    mapped, nearest = np.empty((rows, cols), np.int32), np.empty((rows, cols), np.int32)
    for s in range(count):
        if not (np.isfinite(matrices[s]).all() and np.isfinite(centres[s]).all()):
            out[s] = 0
            continue
        map_seg(seg, matrices[s], row0, col0, centres[s, 0], centres[s, 1], mapped)
        distinct = _distinct(mapped)
        # Two values are sky and one object: nothing to share out. The original reader does not look which object.
        alone = distinct == 0 or distinct == 2
        if not alone:
            label_nearest(mapped, nearest)
        for i in range(rows):
            labels, close, before, after = mapped[i], nearest[i], weight[s, i], out[s, i]
            for j in range(cols):
                other = (labels[j] != own) & (labels[j] != 0)
                after[j] = 0 if other | ((not alone) & (close[j] != number)) else before[j]
