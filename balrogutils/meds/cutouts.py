"""Which image holds which object, and where its stamp begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError
from balrogutils.wcs import ImageWCS

__all__ = ["FILL", "Found", "Grid", "Layout", "find", "lay_out", "stamp_origin"]

FILL = -9999
_ARCSEC_PER_RADIAN = 648000.0 / np.pi
_OUTLINE = 5

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


class Grid(NamedTuple):
    """Pixel grid of one source image: WCS and (rows, columns)."""

    wcs: ImageWCS
    shape: tuple[int, int]


class Found(NamedTuple):
    """Objects on one image: row of the catalogue, and zero-offset position in the image."""

    objects: I64
    row: F64
    col: F64


def _tangent(ra: F64, dec: F64, ra0: float, dec0: float) -> tuple[F64, F64, F64]:
    """Return (u, v) in arcsec on the plane tangent at (ra0, dec0), and the cosine of the distance to that point."""
    along, d, d0 = np.radians(ra - ra0), np.radians(dec), np.radians(dec0)
    cosine = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(along)
    safe = np.where(cosine > 0, cosine, np.nan)
    u = -np.cos(d) * np.sin(along) / safe
    v = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(along)) / safe
    return u * _ARCSEC_PER_RADIAN, v * _ARCSEC_PER_RADIAN, cosine


def _near(grid: Grid, ra: F64, dec: F64, buffer: float) -> I64:
    """Return the objects inside the image's bounding box on its tangent plane, widened by `buffer` arcsec."""
    rows, cols = grid.shape
    edge_r, edge_c = np.meshgrid(np.linspace(0, rows - 1, _OUTLINE), np.linspace(0, cols - 1, _OUTLINE), indexing="ij")
    edge_ra, edge_dec = grid.wcs.pixel_to_sky(edge_r.ravel(), edge_c.ravel())
    middle_ra, middle_dec = grid.wcs.pixel_to_sky((rows - 1) / 2, (cols - 1) / 2)
    u_edge, v_edge, _ = _tangent(edge_ra, edge_dec, middle_ra[0], middle_dec[0])
    u, v, cosine = _tangent(ra, dec, middle_ra[0], middle_dec[0])
    with np.errstate(invalid="ignore"):
        inside = (u >= u_edge.min() - buffer) & (u <= u_edge.max() + buffer)
        inside &= (v >= v_edge.min() - buffer) & (v <= v_edge.max() + buffer) & (cosine > 0)
    return np.flatnonzero(inside)


def find(grid: Grid, ra: F64, dec: F64, *, buffer: float = 16.0, slack: float = 0.0, force: bool = False) -> Found:
    """Return the objects whose centre lies on an image.

    Parameters
    ----------
    grid : Grid
        The image.
    ra, dec : ndarray of float, shape (n,)
        Positions in degrees.
    buffer : float
        Arcsec of slack of the coarse cut that comes first; it keeps the WCS inverse away from where it diverges.
    slack : float
        Pixels by which a centre may lie outside.
    force : bool
        Move positions in the slack onto the image.

    Returns
    -------
    Found
        ``0 - slack <= row <= rows - 1 + slack``, the same for columns. Only the centre counts; the stamp may stick out.
    """
    near = _near(grid, ra, dec, buffer)
    row, col = grid.wcs.sky_to_pixel(ra[near], dec[near])
    last_row, last_col = grid.shape[0] - 1, grid.shape[1] - 1
    held = (row >= -slack) & (row <= last_row + slack) & (col >= -slack) & (col <= last_col + slack)
    row, col = row[held], col[held]
    if force:
        row, col = np.clip(row, 0, last_row), np.clip(col, 0, last_col)
    return Found(near[held], row, col)


def stamp_origin(position: F64, box: I64) -> I64:
    """Return the source pixel that becomes stamp pixel 0 along one axis: ``trunc(position) - box / 2 + 1``.

    The object then lies within half a pixel of the stamp's centre (box - 1) / 2.
    """
    return np.trunc(position).astype(np.int64) - box // 2 + 1


@dataclass(frozen=True)
class Layout:
    """Where every cut-out comes from and goes to.

    Attributes
    ----------
    ncutout : ndarray of int64, shape (n,)
        Cut-outs of each object.
    per_object : dict of str to ndarray, shape (n, nmax)
        ``file_id``, ``start_row``, ``orig_row``, ``orig_col``, ``orig_start_row``, ``orig_start_col``, ``cutout_row``,
        ``cutout_col``, the four Jacobian elements (arcsec per pixel), and the PSF columns where PSF sides were given;
        unused slots hold -9999.
    pixels, psf_pixels : int
        Length of every cut-out HDU, and of the PSF HDU.
    """

    ncutout: I64
    per_object: dict[str, NDArray[Any]]
    pixels: int
    psf_pixels: int

    def members(self, file_id: int) -> tuple[I64, I64]:
        """Return (object, slot) of every cut-out of one image."""
        which, slot = np.nonzero(self.per_object["file_id"] == file_id)
        return which, slot


_REAL = ("orig_row", "orig_col", "cutout_row", "cutout_col", "dudrow", "dudcol", "dvdrow", "dvdcol")
_WHOLE = ("file_id", "start_row", "orig_start_row", "orig_start_col")


def _starts(sizes: I64, used: NDArray[np.bool_]) -> tuple[I64, int]:
    """Return the flat offset of every used slot, stamps in object and slot order, and the total."""
    flat = np.where(used, sizes, 0).ravel()
    ends = np.cumsum(flat)
    starts = (ends - flat).reshape(used.shape)
    return np.where(used, starts, FILL), int(ends[-1]) if flat.size else 0


def lay_out(
    found: Sequence[Found],
    grids: Sequence[Grid],
    box: I64,
    *,
    psf_sides: Sequence[int] | None = None,
    ncutout_max: int | None = None,
) -> Layout:
    """Give every object one slot on each image that holds it, in the order of the images.

    Parameters
    ----------
    found : sequence of Found
        What `find` returned for each image, the coadd first.
    grids : sequence of Grid
        The images.
    box : ndarray of int64, shape (n,)
        Box side of each object.
    psf_sides : sequence of int, optional
        Side of the PSF stamps of each image.
    ncutout_max : int, optional
        More cut-outs of one object are an error.

    Returns
    -------
    Layout

    Raises
    ------
    ProductError
        When an object has more than `ncutout_max` cut-outs.
    """
    count = len(box)
    ncutout = np.zeros(count, np.int64)
    for one in found:
        ncutout[one.objects] += 1
    if ncutout_max is not None and count and ncutout.max() > ncutout_max:
        raise ProductError(
            f"an object has {ncutout.max()} cut-outs, more than ncutout_max = {ncutout_max}",
            key="ncutout_max",
            remedy="raise ncutout_max in the MEDS configuration, or take it out",
        )
    nmax = max(2, int(ncutout.max(initial=0)))
    table: dict[str, NDArray[Any]] = {
        **{name: np.full((count, nmax), float(FILL)) for name in _REAL},
        **{name: np.full((count, nmax), FILL, np.int64) for name in _WHOLE},
    }
    psf_side = np.full((count, nmax), FILL, np.int32)
    free = np.zeros(count, np.int64)
    for file_id, (one, grid) in enumerate(zip(found, grids, strict=True)):
        at = (one.objects, free[one.objects])
        jacobian = grid.wcs.jacobian(one.row, one.col)
        table["file_id"][at] = file_id
        table["orig_row"][at], table["orig_col"][at] = one.row, one.col
        for axis, position in (("row", one.row), ("col", one.col)):
            origin = stamp_origin(position, box[one.objects])
            table[f"orig_start_{axis}"][at] = origin
            table[f"cutout_{axis}"][at] = position - origin
        for name, values in jacobian._asdict().items():
            table[name][at] = values
        if psf_sides is not None:
            psf_side[at] = psf_sides[file_id]
        free[one.objects] += 1
    used = table["file_id"] != FILL
    table["start_row"], pixels = _starts(np.broadcast_to(box[:, np.newaxis] ** 2, used.shape), used)
    psf_pixels = 0
    if psf_sides is not None:
        centre = np.where(used, (psf_side - 1) / 2, float(FILL))
        start, psf_pixels = _starts(psf_side.astype(np.int64) ** 2, used)
        table |= {"psf_row_size": psf_side, "psf_col_size": psf_side.copy(), "psf_start_row": start}
        table |= {"psf_cutout_row": centre, "psf_cutout_col": centre.copy()}
    return Layout(ncutout, table, pixels, psf_pixels)
