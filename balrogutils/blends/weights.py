"""Which pixels of a stamp count for a group, and for one member alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.meds.weights import nearest_object

__all__ = ["alone_weight", "joined_weight"]

F64 = NDArray[np.float64]


def joined_weight(weight: NDArray[Any], labels: NDArray[np.integer[Any]], numbers: NDArray[Any], region: str) -> F64:
    """Return the weight without the pixels of objects that are not in the group.

    Parameters
    ----------
    weight : ndarray, shape (nrow, ncol)
        Weight of the stamp.
    labels : ndarray of int, shape (nrow, ncol)
        Segmentation of the coadd as the stamp sees it; 0 is sky.
    numbers : ndarray of int
        Labels of the members.
    region : {"mof", "cweight-nearest", "weight"}
        Whether pixels of other objects are lost, pixels nearer to another object than to a member too, or none.
    """
    out = np.array(weight, np.float64)
    if region == "weight" or not labels.any():
        return out
    whose = nearest_object(labels) if region == "cweight-nearest" else labels
    out[(whose != 0) & ~np.isin(whose, numbers)] = 0.0
    return out


def alone_weight(weight: NDArray[Any], labels: NDArray[np.integer[Any]], number: int) -> F64:
    """Return the weight of the pixels that are nearer to one object than to any other (uberseg); `labels` as in
    `joined_weight`."""
    out = np.array(weight, np.float64)
    if labels.any():
        out[nearest_object(labels) != number] = 0.0
    return out
