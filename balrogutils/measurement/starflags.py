"""Saturated pixels of bright stars, carried from every epoch to all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from balrogutils.compiled import njit
from balrogutils.fitting.observation import LocalWCS, Observation
from balrogutils.masks import MaskBit
from balrogutils.measurement.target import Coadd

__all__ = ["StarRule", "propagate"]

_GROWTH = 2
_SQUARE = np.ones((3, 3), bool)


@dataclass(frozen=True)
class StarRule:
    """Which pixels are those of a bright star: saturated or interpolated, marked as a star's, and none of `ignore`."""

    ignore: int = 0

    def pixels(self, bmask: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return where a star saturated the pixels of a mask."""
        saturated = (bmask & (MaskBit.SATURATE | MaskBit.INTERP)) != 0
        return saturated & ((bmask & MaskBit.STAR) != 0) & ((bmask & self.ignore) == 0)


@njit(cache=True)
def _carry(source, wcs_from, wcs_to, target):
    """Set the pixels of `target` whose nearest pixel of `source` is set."""
    nrow, ncol = source.shape
    det = wcs_from[2] * wcs_from[5] - wcs_from[3] * wcs_from[4]
    for i in range(target.shape[0]):
        for j in range(target.shape[1]):
            dr, dc = i - wcs_to[0], j - wcs_to[1]
            v = wcs_to[2] * dr + wcs_to[3] * dc
            u = wcs_to[4] * dr + wcs_to[5] * dc
            row = int(np.rint(wcs_from[0] + (wcs_from[5] * v - wcs_from[3] * u) / det))
            col = int(np.rint(wcs_from[1] + (-wcs_from[4] * v + wcs_from[2] * u) / det))
            if 0 <= row < nrow and 0 <= col < ncol and source[row, col]:
                target[i, j] = True


def _carried(source: NDArray[np.bool_], from_: LocalWCS, to: LocalWCS, shape: tuple[int, int]) -> NDArray[np.bool_]:
    target = np.zeros(shape, bool)
    _carry(source, np.array(from_), np.array(to), target)
    return target


def propagate(
    bands: Sequence[Sequence[Observation]], coadds: Sequence[Coadd], rule: StarRule
) -> list[list[Observation]]:
    """Give pixels that a bright star saturated in any epoch of any band weight 0 in all of them.

    Parameters
    ----------
    bands : sequence of sequences of Observation
        Epochs of each band with their mask bits and, where there is one, their segmentation.
    coadds : sequence of Coadd
        The coadd stamp of each band; the star's pixels meet on its grid.
    rule : StarRule
        Which pixels are a star's.

    Returns
    -------
    list of lists of Observation
        The same epochs; those with a star nearby have new weights.

    Notes
    -----
    As the DES Y3 driver does it (M 2.4, P 6.2): star pixels go to the nearest pixel of the coadd grid, from there to
    every epoch, grow by two pixels, and zero the weight where the epoch's own segmentation has no object; without a
    segmentation everywhere. The mask of the coadd itself, which there counts whatever its bits, is not used.
    """
    found = [
        (epoch, stars)
        for epochs in bands
        for epoch in epochs
        if epoch.bmask is not None and (stars := rule.pixels(np.asarray(epoch.bmask))).any()
    ]
    if not found:
        return [list(epochs) for epochs in bands]
    out = []
    for epochs, coadd in zip(bands, coadds, strict=True):
        together = np.zeros(coadd.shape, bool)
        for epoch, stars in found:
            together |= _carried(stars, epoch.wcs, coadd.wcs, coadd.shape)
        out.append([_without(epoch, together, coadd) for epoch in epochs])
    return out


def _without(epoch: Observation, stars: NDArray[np.bool_], coadd: Coadd) -> Observation:
    here = _carried(stars, coadd.wcs, epoch.wcs, epoch.weight.shape)
    if not here.any():
        return epoch
    here = binary_dilation(here, _SQUARE, iterations=_GROWTH)
    if epoch.seg is not None:
        here &= np.asarray(epoch.seg) == 0
    return replace(epoch, weight=np.where(here, 0.0, epoch.weight))
