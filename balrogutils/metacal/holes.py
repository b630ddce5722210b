"""Stamps made fit for metacal: neighbours taken away and holes filled (M 2.5).

A deconvolution sees every pixel, whatever its weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import FitError
from balrogutils.fitting.observation import Observation

__all__ = ["FillRules", "Filled", "fill_holes", "symmetric"]

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class FillRules:
    """What is filled.

    Parameters
    ----------
    bad_bits : int
        Pixels with one of these mask bits are filled; 2 | 4 | 2048 in DES Y3.
    symmetrize : bool
        Whether a pixel is filled, and its weight 0, where one of its three images under rotation by 90 degrees is:
        so that the mask has no direction. Stamps must be square.
    """

    bad_bits: int = 2 | 4 | 2048
    symmetrize: bool = True


class Filled(NamedTuple):
    """A stamp without holes, and which part of its pixels was filled."""

    observation: Observation
    fraction: float


def symmetric(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask made the same under rotations by 90 degrees about the middle of the stamp.

    Raises
    ------
    FitError
        When the stamp is not square.
    """
    if mask.shape[0] != mask.shape[1]:
        raise FitError(f"a mask of {mask.shape} pixels cannot be turned by 90 degrees", remedy="use square stamps")
    twice = mask | np.rot90(mask, 2)
    return np.asarray(twice | np.rot90(twice))


def fill_holes(
    epoch: Observation,
    random: np.random.Generator,
    *,
    model: F64 | None = None,
    neighbours: F64 | None = None,
    neighbour_mask: NDArray[np.bool_] | None = None,
    rules: FillRules | None = None,
) -> Filled:
    """Take neighbours away and fill what cannot be used with the model of the object and noise.

    Parameters
    ----------
    epoch : Observation
        Stamp with its final weight.
    random : numpy.random.Generator
        Where the noise comes from.
    model : ndarray, shape (nrow, ncol), optional
        The object's own model in this stamp; nothing but noise without one.
    neighbours : ndarray, shape (nrow, ncol), optional
        Sum of the models of its neighbours; taken away where the weight is not 0.
    neighbour_mask : ndarray of bool, shape (nrow, ncol), optional
        Pixels of neighbours that have no model: they are holes.
    rules : FillRules, optional
        What is a hole besides pixels of weight 0 and those that are not finite.

    Returns
    -------
    Filled
        Weight and region are 0 in holes. Noise has the median variance of the pixels that are left.

    Raises
    ------
    FitError
        When no pixel is left.
    """
    how = rules or FillRules()
    image, weight = np.array(epoch.image, float), np.array(epoch.weight, float)
    holes = ~(np.isfinite(image) & (weight > 0.0) & np.isfinite(weight))
    if neighbours is not None:
        image[~holes] -= neighbours[~holes]
    if neighbour_mask is not None:
        holes |= neighbour_mask
    if epoch.bmask is not None and how.bad_bits:
        holes |= (np.asarray(epoch.bmask) & how.bad_bits) != 0
    if how.symmetrize:
        holes = symmetric(holes)
    if holes.all():
        raise FitError("no pixel of a stamp is left for metacal")
    weight[holes] = 0.0
    region = None if epoch.region is None else np.where(holes, 0.0, np.asarray(epoch.region, float))
    count = int(np.count_nonzero(holes))
    if count:
        noise = random.standard_normal(count) / np.sqrt(np.median(weight[~holes]))
        image[holes] = noise + (0.0 if model is None else np.asarray(model)[holes])
    return Filled(replace(epoch, image=image, weight=weight, region=region), count / holes.size)
