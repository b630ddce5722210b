"""What a fit looks at: stamps with weights, local WCS and PSF, from wherever they come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.compiled import njit
from balrogutils.errors import FitError

__all__ = ["LocalWCS", "Observation", "PSFStamp", "Stack", "stack"]

F64 = NDArray[np.float64]


class LocalWCS(NamedTuple):
    """Affine map of one stamp: zero-offset (row, col) to (v, u) in arcsec around (row0, col0)."""

    row0: float
    col0: float
    dvdrow: float
    dvdcol: float
    dudrow: float
    dudcol: float

    @classmethod
    def from_meds(cls, jacobian: Mapping[str, float]) -> LocalWCS:
        """Take the dictionary that a MEDS reader gives for one cut-out."""
        return cls(*(float(jacobian[name]) for name in cls._fields))

    @property
    def determinant(self) -> float:
        """Signed pixel area, arcsec^2."""
        return self.dvdrow * self.dudcol - self.dvdcol * self.dudrow

    @property
    def area(self) -> float:
        """Pixel area, arcsec^2."""
        return abs(self.determinant)

    @property
    def scale(self) -> float:
        """Side of the equal-area square pixel, arcsec."""
        return float(np.sqrt(self.area))

    @property
    def usable(self) -> bool:
        """Whether the map can be inverted."""
        return bool(np.all(np.isfinite(self))) and self.area > 0.0

    def sky(self, row: Any, col: Any) -> tuple[Any, Any]:
        """Return (v, u) in arcsec of zero-offset pixel positions."""
        dr, dc = row - self.row0, col - self.col0
        return self.dvdrow * dr + self.dvdcol * dc, self.dudrow * dr + self.dudcol * dc

    def at(self, row0: float, col0: float) -> LocalWCS:
        """Return the same derivatives around another pixel."""
        return self._replace(row0=row0, col0=col0)


@dataclass(frozen=True)
class PSFStamp:
    """A pixel-integrated PSF on the pixel grid of its image: pixels ``[row, col]``, any unit, and the centre."""

    image: NDArray[Any]
    row: float
    col: float


@dataclass(frozen=True)
class Observation:
    """One object in one image.

    Parameters
    ----------
    image : ndarray, shape (nrow, ncol)
        Background-subtracted pixels, flux units.
    weight : ndarray, shape (nrow, ncol)
        Inverse variance; 0 where the pixel must not be used.
    wcs : LocalWCS
        Map of this stamp.
    psf : PSFStamp or None
        PSF at the object.
    bmask : ndarray of int, optional
        Mask bits.
    region : ndarray, optional
        Weight map limited to the pixels that belong to the object (uberseg); `weight` itself when not given.
    flags : int
        Flags of the image.
    seg : ndarray of int, optional
        Labels of the objects found in this image; 0 is sky.
    """

    image: NDArray[Any]
    weight: NDArray[Any]
    wcs: LocalWCS
    psf: PSFStamp | None
    bmask: NDArray[Any] | None = None
    region: NDArray[Any] | None = None
    flags: int = 0
    seg: NDArray[Any] | None = None


class Stack(NamedTuple):
    """Observations of all bands, packed for the kernels; pixels with weight 0 hold 0.

    image, weight : float64, flat; start, nrow, ncol, band : int64, per stamp; wcs : float64 [n, 6] in `LocalWCS`
    order.
    """

    image: F64
    weight: F64
    start: NDArray[np.int64]
    nrow: NDArray[np.int64]
    ncol: NDArray[np.int64]
    band: NDArray[np.int64]
    wcs: F64
    npix: int
    nband: int


@njit(cache=True)
def _check(image, weight):
    """Set pixels of weight 0 to 0 and return how many are used; -1 where one of them cannot be."""
    used = 0
    for j in range(image.shape[0]):
        if weight[j] == 0.0:
            image[j] = 0.0
            continue
        if not (0.0 < weight[j] < math.inf and math.isfinite(image[j])):
            return -1
        used += 1
    return used


def stack(bands: Sequence[Sequence[Observation]]) -> Stack:
    """Pack observations, band by band, for the kernels.

    Parameters
    ----------
    bands : sequence of sequences of Observation
        Epochs of each band.

    Raises
    ------
    FitError
        When there is nothing, a shape disagrees, or a weight is negative or not finite.
    """
    flat = [(number, epoch) for number, epochs in enumerate(bands) for epoch in epochs]
    if not flat:
        raise FitError("there is no stamp to fit")
    for _, epoch in flat:
        if epoch.image.ndim != 2 or epoch.image.shape != epoch.weight.shape or epoch.image.size == 0:
            raise FitError(f"image {epoch.image.shape} and weight {epoch.weight.shape} are not one stamp")
        if not epoch.wcs.usable:
            raise FitError("the WCS derivatives of a stamp are singular")
    image = np.concatenate([np.asarray(epoch.image, np.float64).ravel() for _, epoch in flat])
    weight = np.concatenate([np.asarray(epoch.weight, np.float64).ravel() for _, epoch in flat])
    used = _check(image, weight)
    if used < 0:
        raise FitError("a weight is negative or not finite, or a used pixel is not finite")
    shapes = np.array([epoch.image.shape for _, epoch in flat], np.int64)
    sizes = shapes.prod(axis=1)
    return Stack(
        image,
        weight,
        np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
        np.ascontiguousarray(shapes[:, 0]),
        np.ascontiguousarray(shapes[:, 1]),
        np.array([number for number, _ in flat], np.int64),
        np.array([epoch.wcs for _, epoch in flat], np.float64),
        int(used),
        len(bands),
    )
