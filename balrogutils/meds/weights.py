"""Weight maps derived from a stamp's weight and the coadd segmentation: cweight, uberseg, and their kin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.meds.segkernels import label_nearest, map_seg, uberseg_stack

__all__ = [
    "coadd_weight",
    "composite_seg",
    "map_coadd_seg",
    "nearest_object",
    "own_weight",
    "reject_outliers",
    "uberseg",
    "uberseg_list",
]

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
Map = tuple[F64, float, float]
"""Jacobian of a stamp, ``[[dudrow, dudcol], [dvdrow, dvdcol]]``, and the object's (row, col) in it."""


Maps = tuple[F64, F64, F64]
"""The same of n stamps: shapes (n, 2, 2), (n,) and (n,)."""


def _matrices(coadd: F64, stamps: F64) -> F64 | None:
    """Return the matrices from offsets in stamps to offsets in the coadd; None where the coadd's has no inverse."""
    (a, b), (c, d) = coadd.tolist()
    det = a * d - b * c
    if det == 0 or not math.isfinite(det):
        return None
    out: F64 = np.array([[d, -b], [-c, a]]) / det @ stamps
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
        None when the coadd's Jacobian cannot be inverted or a number is not finite. Positions outside the coadd stamp
        take its nearest pixel; positions are rounded half to even.
    """
    (jacobian0, row0, col0), (jacobian, row, col) = coadd, stamp
    matrix = _matrices(jacobian0, jacobian)
    if matrix is None or not np.isfinite([*matrix.ravel(), row0, col0, row, col]).all():
        return None
    out: I32 = np.empty(shape, np.int32)
    map_seg(np.ascontiguousarray(seg, np.int32), matrix, float(row0), float(col0), float(row), float(col), out)
    return out


def _central_label(seg: NDArray[np.integer[Any]], row: float, col: float) -> int | None:
    if not (math.isfinite(row) and math.isfinite(col)):
        return None
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


def nearest_object(seg: NDArray[np.integer[Any]]) -> I32:
    """Return the label of the nearest labelled pixel (Euclidean), the first in row-major order where several tie.

    A map without labels stays zero. Exact, in time proportional to the number of pixels.
    """
    labels = np.ascontiguousarray(seg, np.int32)
    out: I32 = np.empty_like(labels)
    label_nearest(labels, out)
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
        A copy. Starts from `coadd_weight`. A map of exactly two values, or of sky alone, gives just that, as in the
        original implementation.
    """
    jacobian, row, col = stamp
    one = (jacobian[np.newaxis], np.array([row]), np.array([col]))
    return uberseg_list(weight[np.newaxis], seg, coadd, one, number)[0]


def uberseg_list(
    weight: NDArray[Any], seg: NDArray[np.integer[Any]], coadd: Map, stamps: Maps, number: int
) -> NDArray[Any]:
    """Return `uberseg` of all stamps of an object at once.

    Parameters
    ----------
    weight : ndarray, shape (n, box, box)
        Weights of the stamps.
    seg, coadd, number :
        As in `uberseg`.
    stamps : Maps
        Jacobians and centres of the stamps.

    Returns
    -------
    ndarray, shape (n, box, box)
        A copy.
    """
    (jacobian0, row0, col0), (jacobians, rows, cols) = coadd, stamps
    stack = np.ascontiguousarray(weight)
    own, matrices = _central_label(seg, row0, col0), _matrices(jacobian0, jacobians)
    if own is None or matrices is None:
        return np.zeros_like(stack)
    out = np.empty_like(stack)
    labels, centres = np.ascontiguousarray(seg, np.int32), np.column_stack([rows, cols])
    uberseg_stack(stack, labels, matrices, float(row0), float(col0), centres, own, number, out)
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
        Registered stamps of equal shape and their weights; a negative weight becomes 0 too.
    nsigma, a : float
        A pixel goes where ``w (im - med)^2 > (nsigma + a |med| sqrt(w))^2``.

    Returns
    -------
    int
        Pixels rejected; 0 for fewer than three images, where nothing is done.
    """
    if len(images) < 3:
        return 0
    for one in weights:
        np.maximum(one, 0, out=one)
    cube, weight = np.stack(images).astype(float), np.stack(weights).astype(float)
    median = np.median(cube, axis=0)
    lose = weight * (cube - median) ** 2 > (nsigma + a * np.abs(median) * np.sqrt(weight)) ** 2
    for one, mask in zip(weights, lose, strict=True):
        one[mask] = 0
    return int(lose.sum())
