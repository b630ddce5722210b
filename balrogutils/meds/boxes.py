"""Sides of the square cut-outs, one per object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["BoxRule"]

_FWHM_PER_SIGMA = 2.35482


@dataclass(frozen=True)
class BoxRule:
    """How large a cut-out has to be.

    Attributes
    ----------
    sigma_fac : float
        Half-width of the box in units of sigma.
    smallest, largest : int
        Limits in pixels; larger objects are truncated, not dropped.
    allowed : sequence of int
        Sides that may be used; an odd one counts as the next even number.
    """

    sigma_fac: float = 5.0
    smallest: int = 32
    largest: int = 256
    allowed: Sequence[int] = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)

    def sides(
        self,
        flux_radius: ArrayLike,
        a: ArrayLike,
        b: ArrayLike,
        xmin: ArrayLike,
        xmax: ArrayLike,
        ymin: ArrayLike,
        ymax: ArrayLike,
    ) -> NDArray[np.int64]:
        """Return the box side of every object.

        Parameters
        ----------
        flux_radius : array_like of float, shape (n,)
            Half-light radius in pixels (FLUX_RADIUS); values that are not finite or not positive count as 0.
        a, b : array_like of float, shape (n,)
            Semi-axes in any common unit (A_WORLD, B_WORLD); where they give no ellipticity, it counts as 0.
        xmin, xmax, ymin, ymax : array_like of int, shape (n,)
            Extent of the isophote in pixels, inclusive.

        Returns
        -------
        ndarray of int64, shape (n,)
            Even sides in pixels.

        Notes
        -----
        The rule of the DES MEDS maker: the largest of the isophote's two extents and of
        ``2 ceil(sigma_fac sigma (1 + e))`` with ``sigma = 2 FLUX_RADIUS / 2.35482`` and ``e = 1 - b / a``, clipped,
        then rounded up to an allowed side.
        """
        radius = np.asarray(flux_radius, dtype=np.float64)
        radius = np.where(np.isfinite(radius) & (radius > 0), radius, 0.0)
        major, minor = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
        usable = np.isfinite(major) & np.isfinite(minor) & (major > 0) & (minor >= 0) & (minor <= major)
        ellipticity = np.where(usable, 1.0 - np.divide(minor, major, out=np.ones_like(major), where=usable), 0.0)
        # Clipping before the ceiling keeps absurd radii inside the integer range; the result is the same.
        reach = np.minimum(self.sigma_fac * (2.0 * radius / _FWHM_PER_SIGMA) * (1.0 + ellipticity), float(self.largest))
        wide = np.asarray(xmax, np.int64) - np.asarray(xmin, np.int64) + 1
        high = np.asarray(ymax, np.int64) - np.asarray(ymin, np.int64) + 1
        box = np.maximum(np.maximum(wide, high), 2 * np.ceil(reach).astype(np.int64))
        box = np.clip(box, self.smallest, self.largest)
        sides = np.unique(np.asarray(self.allowed, np.int64))
        chosen = sides[np.searchsorted(sides, box)]
        return chosen + chosen % 2
