"""World coordinates of one image: zero-offset (row, col) to degrees, and the local Jacobian."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.errors import ProductError

__all__ = ["ImageWCS", "Jacobian"]

_ARCSEC_PER_RADIAN = 648000.0 / np.pi


class Jacobian(NamedTuple):
    """Derivatives of tangent-plane (u west, v north) with respect to (row, col), arcsec per pixel."""

    dudrow: NDArray[np.float64]
    dudcol: NDArray[np.float64]
    dvdrow: NDArray[np.float64]
    dvdcol: NDArray[np.float64]


class ImageWCS:
    """The celestial WCS of an image header (TAN, TPV).

    Parameters
    ----------
    header : mapping
        FITS cards with the WCS; a ``fitsio.FITSHDR`` or a dict.

    Raises
    ------
    ProductError
        When the header has no celestial WCS.
    """

    def __init__(self, header: Mapping[str, Any]) -> None:
        # GalSim takes most of a second to import; a job that asks for no position does without it.
        import galsim

        cards = {str(key).upper(): header[key] for key in header.keys() if key}  # noqa: SIM118 (FITSHDR iterates over records)
        try:
            self.galsim = galsim.GSFitsWCS(header=galsim.FitsHeader(header=cards))
            self._degrees, self._radians = galsim.degrees, galsim.radians
        except (OSError, KeyError, galsim.GalSimError) as error:
            raise ProductError(f"a header has no usable celestial WCS: {error}") from error
        if not abs(np.linalg.det(self.galsim.cd)) > 0:
            raise ProductError("a header has no usable celestial WCS: its CD matrix is singular")
        self._no_position = galsim.GalSimError

    def sky_to_pixel(self, ra: ArrayLike, dec: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return zero-offset (row, col) of sky positions in degrees."""
        ra_array, dec_array = np.broadcast_arrays(
            np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
        )
        if ra_array.size == 0:
            return np.empty(0), np.empty(0)
        x, y = self.galsim.radecToxy(ra_array.copy(), dec_array.copy(), self._degrees)
        return np.asarray(y) - 1.0, np.asarray(x) - 1.0

    def pixel_to_sky(self, row: ArrayLike, col: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (ra, dec) in degrees, ra in [0, 360), of zero-offset pixel positions."""
        rows, cols = np.broadcast_arrays(np.atleast_1d(np.asarray(row, float)), np.atleast_1d(np.asarray(col, float)))
        if rows.size == 0:
            return np.empty(0), np.empty(0)
        ra, dec = self.galsim.xyToradec(cols + 1.0, rows + 1.0, self._degrees)
        return np.asarray(ra) % 360.0, np.asarray(dec)

    def offset(self, other: ImageWCS, shape: tuple[int, int]) -> float:
        """Return how far apart, in pixels, two WCSs put the sky of the corners and the middle of an image.

        Parameters
        ----------
        other : ImageWCS
            The WCS to compare with, which says where on the sky these pixels are.
        shape : tuple of int
            Rows and columns of the image.

        Returns
        -------
        float
            The largest of the five distances; NaN where one of the two has no position.
        """
        last_row, last_col = shape[0] - 1.0, shape[1] - 1.0
        rows = np.array([0.0, 0.0, last_row, last_row, last_row / 2])
        cols = np.array([0.0, last_col, 0.0, last_col, last_col / 2])
        try:
            own_rows, own_cols = self.sky_to_pixel(*other.pixel_to_sky(rows, cols))
        except self._no_position:
            return float("nan")
        return float(np.hypot(own_rows - rows, own_cols - cols).max())

    def jacobian(self, row: ArrayLike, col: ArrayLike) -> Jacobian:
        """Return the local Jacobian at zero-offset pixel positions, each element shaped like the positions.

        Notes
        -----
        Central difference over one pixel of the direction on the sphere, projected on the west and north unit vectors
        at the position. Against the analytic derivative the error is below 1e-8 relative: curvature enters at the
        square of the pixel size in radians (1e-12), rounding at 1e-16 / 1e-6.
        """
        rows, cols = np.broadcast_arrays(np.atleast_1d(np.asarray(row, float)), np.atleast_1d(np.asarray(col, float)))
        if rows.size == 0:
            return Jacobian(*(np.empty(rows.shape) for _ in range(4)))
        shape, flat_rows, flat_cols = rows.shape, rows.ravel(), cols.ravel()
        half = 0.5
        steps = ((0.0, 0.0), (half, 0.0), (-half, 0.0), (0.0, half), (0.0, -half))
        ra, dec = self.galsim.xyToradec(
            np.concatenate([flat_cols + 1.0 + step[1] for step in steps]),
            np.concatenate([flat_rows + 1.0 + step[0] for step in steps]),
            self._radians,
        )
        ra, dec = np.reshape(ra, (5, -1)), np.reshape(dec, (5, -1))
        sky = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
        west = np.stack([np.sin(ra[0]), -np.cos(ra[0]), np.zeros(ra.shape[1])])
        north = np.stack([-np.sin(dec[0]) * np.cos(ra[0]), -np.sin(dec[0]) * np.sin(ra[0]), np.cos(dec[0])])
        per_row, per_col = ((sky[:, i] - sky[:, i + 1]) * (_ARCSEC_PER_RADIAN / (2 * half)) for i in (1, 3))
        elements = (axis * step for step in (per_row, per_col) for axis in (west, north))
        dudrow, dvdrow, dudcol, dvdcol = (element.sum(axis=0).reshape(shape) for element in elements)
        return Jacobian(dudrow, dudcol, dvdrow, dvdcol)
