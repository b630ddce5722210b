"""Weight maps derived from a stamp's weight and the coadd segmentation: cweight, uberseg, and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "coadd_weight",
    "composite_seg",
    "map_coadd_seg",
    "nearest_object",
    "own_weight",
    "reject_outliers",
    "uberseg",
]

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
Map = tuple[F64, float, float]
"""Jacobian of a stamp, ``[[dudrow, dudcol], [dvdrow, dvdcol]]``, and the object's (row, col) in it."""


@njit(cache=True)
def _map_seg(seg: Any, matrix: Any, row0: float, col0: float, row: float, col: float, shape: tuple[int, int]) -> Any:
    out = np.empty(shape, np.int32)
    for i in range(shape[0]):
        for j in range(shape[1]):
            r = row0 + matrix[0, 0] * (i - row) + matrix[0, 1] * (j - col)
            c = col0 + matrix[1, 0] * (i - row) + matrix[1, 1] * (j - col)
            ir = min(max(int(np.rint(r)), 0), seg.shape[0] - 1)
            ic = min(max(int(np.rint(c)), 0), seg.shape[1] - 1)
            out[i, j] = seg[ir, ic]
    return out


def map_coadd_seg(seg: NDArray[np.integer[Any]], coadd: Map, stamp: Map, shape: tuple[int, int]) -> I32 | None:
    """Return the coadd segmentation as a stamp of another epoch sees it (nearest pixel).

    Parameters
    ----------
    seg : ndarray of int, shape (box, box)
        Segmentation stamp of the coadd.
    coadd, stamp : Map
        Jacobian (arcsec per pixel) and centre of the coadd stamp and of the other stamp.
    shape : tuple of int
        Shape of the other stamp.

    Returns
    -------
    ndarray of int32, or None
        None when the coadd's Jacobian cannot be inverted. Positions outside the coadd stamp take its nearest pixel;
        positions are rounded half to even.
    """
    (jacobian0, row0, col0), (jacobian, row, col) = coadd, stamp
    det = jacobian0[0, 0] * jacobian0[1, 1] - jacobian0[0, 1] * jacobian0[1, 0]
    if det == 0 or not np.isfinite(det):
        return None
    inverse = np.array([[jacobian0[1, 1], -jacobian0[0, 1]], [-jacobian0[1, 0], jacobian0[0, 0]]]) / det
    matrix = np.ascontiguousarray(inverse @ jacobian)
    out: I32 = _map_seg(
        np.ascontiguousarray(seg, np.int32), matrix, float(row0), float(col0), float(row), float(col), shape
    )
    return out


def _central_label(seg: NDArray[np.integer[Any]], row: float, col: float) -> int:
    r = min(max(int(row), 0), seg.shape[0] - 1)
    c = min(max(int(col), 0), seg.shape[1] - 1)
    return int(seg[r, c])


def coadd_weight(
    weight: NDArray[Any], seg: NDArray[np.integer[Any]], coadd: Map, stamp: Map, *, restrict_to_seg: bool = False
) -> NDArray[Any]:
    """Return the weight with pixels of other objects zeroed (``cweight``).

    Parameters
    ----------
    weight : ndarray, shape (box, box)
        Weight of the stamp.
    seg, coadd, stamp :
        As in `map_coadd_seg`.
    restrict_to_seg : bool
        Zero sky pixels too.

    Returns
    -------
    ndarray
        A copy. The own label is the segmentation at the object's pixel of the coadd stamp; where that is sky, every
        labelled pixel counts as another object. All zero when the coadd's Jacobian is singular.
    """
    mapped = map_coadd_seg(seg, coadd, stamp, (weight.shape[0], weight.shape[1]))
    if mapped is None:
        return np.zeros_like(weight)
    own = _central_label(seg, coadd[1], coadd[2])
    lose = (mapped != own) & ((mapped != 0) | restrict_to_seg)
    return np.where(lose, weight.dtype.type(0), weight)


@njit(cache=True)
def _nearest(seg: Any) -> Any:
    rows, cols = seg.shape
    far = rows + cols + 1
    # Nearest labelled row in each column; of two at the same distance the smaller row, first in row-major order.
    above = np.empty((rows, cols), np.int64)
    for j in range(cols):
        last = -far
        for i in range(rows):
            if seg[i, j] != 0:
                last = i
            above[i, j] = last
        last = rows + far
        for i in range(rows - 1, -1, -1):
            if seg[i, j] != 0:
                last = i
            if last - i < i - above[i, j]:
                above[i, j] = last
    out = np.zeros((rows, cols), np.int32)
    limit = far * far
    for i in range(rows):
        for j in range(cols):
            best = limit
            first = rows * cols
            # Columns outward from j: once the column alone is farther than the best, no later one can win or tie.
            for step in range(cols):
                if step * step > best:
                    break
                for side in range(2):
                    if step == 0 and side == 1:
                        continue
                    k = j - step if side == 0 else j + step
                    if k < 0 or k >= cols:
                        continue
                    down = above[i, k] - i
                    if above[i, k] < 0 or above[i, k] >= rows:
                        continue
                    distance = down * down + step * step
                    index = above[i, k] * cols + k
                    if distance < best or (distance == best and index < first):
                        best = distance
                        first = index
            if best < limit:
                out[i, j] = seg[first // cols, first % cols]
    return out


def nearest_object(seg: NDArray[np.integer[Any]]) -> I32:
    """Return the label of the nearest labelled pixel (Euclidean), the first in row-major order where several tie.

    A map without labels stays zero. Exact, in time proportional to box^2 times the distance to the nearest object.
    """
    out: I32 = _nearest(np.ascontiguousarray(seg, np.int32))
    return out


def uberseg(weight: NDArray[Any], seg: NDArray[np.integer[Any]], coadd: Map, stamp: Map, number: int) -> NDArray[Any]:
    """Return the weight with every pixel zeroed that is nearer to another object than to this one (``uberseg``).

    Parameters
    ----------
    weight, seg, coadd, stamp :
        As in `coadd_weight`.
    number : int
        Label of this object in `seg`.

    Returns
    -------
    ndarray
        A copy. Starts from `coadd_weight`. A map of one label and sky, or of one value alone, gives just that, as the
        original implementation does.
    """
    out = coadd_weight(weight, seg, coadd, stamp)
    mapped = map_coadd_seg(seg, coadd, stamp, (weight.shape[0], weight.shape[1]))
    if mapped is None:
        return out
    labels = np.unique(mapped)
    if len(labels) == 1 or (len(labels) == 2 and labels[0] == 0):
        return out
    out[nearest_object(mapped) != number] = 0
    return out


def composite_seg(
    shape: tuple[int, int],
    number: int,
    seg: NDArray[np.integer[Any]],
    coadd: Map,
    stamp: Map,
    *,
    restrict_to_seg: bool = False,
) -> I32:
    """Return a map that holds `number` where `coadd_weight` keeps the weight and 0 elsewhere (``cseg``)."""
    return coadd_weight(np.full(shape, number, np.int32), seg, coadd, stamp, restrict_to_seg=restrict_to_seg)


def own_weight(
    weight: NDArray[Any], seg: NDArray[np.integer[Any]], row: float, col: float, *, canonical: bool = False
) -> NDArray[Any]:
    """Return the weight inside the largest circle that no other object's pixel enters (``cseg weight``).

    Parameters
    ----------
    weight, seg : ndarray, shape (box, box)
        Weight and the stamp's own segmentation.
    row, col : float
        Position of the object in the stamp.
    canonical : bool
        Measure distances from the stamp's centre (n - 1) / 2 instead.
    """
    own = _central_label(seg, row, col)
    if canonical:
        row, col = (seg.shape[0] - 1) / 2, (seg.shape[1] - 1) / 2
    squared = np.add.outer((np.arange(seg.shape[0]) - row) ** 2, (np.arange(seg.shape[1]) - col) ** 2)
    others = (seg != 0) & (seg != own)
    if not others.any():
        return weight.copy()
    return np.where(squared >= squared[others].min(), weight.dtype.type(0), weight)


def reject_outliers(
    images: Sequence[NDArray[Any]], weights: Sequence[NDArray[Any]], nsigma: float = 5.0, a: float = 0.3
) -> int:
    """Zero, in place, the weight of pixels that differ from the median of the epochs.

    Parameters
    ----------
    images, weights : sequence of ndarray
        Registered stamps of equal shape and their weights.
    nsigma, a : float
        A pixel goes where ``w (im - med)^2 > (nsigma + a |med| sqrt(w))^2``.

    Returns
    -------
    int
        Pixels rejected; 0 for fewer than three images, where nothing is done.
    """
    if len(images) < 3:
        return 0
    cube, weight = np.stack(images).astype(float), np.stack(weights).astype(float)
    median = np.median(cube, axis=0)
    lose = weight * (cube - median) ** 2 > (nsigma + a * np.abs(median) * np.sqrt(weight)) ** 2
    for one, mask in zip(weights, lose, strict=True):
        one[mask] = 0
    return int(lose.sum())
