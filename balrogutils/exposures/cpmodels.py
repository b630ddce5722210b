"""PSF and sky models that accompany NOIRLab Community Pipeline images (Legacy Surveys calibration files)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass

import galsim
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from balrogutils.errors import ProductError
from balrogutils.fitsfile import read_header, read_table
from balrogutils.psf import PSFEx
from balrogutils.wcs import ImageWCS

__all__ = ["PlacedPSF", "SplineSky", "mean_psf", "read_psf", "read_sky", "unit_sum"]


def _row(path: str | os.PathLike[str], expnum: int, ccdname: str) -> dict[str, NDArray]:
    """Return the row of one CCD, lower-case names; a table of one row needs no expnum and ccdname."""
    table = read_table(path, 1)
    names = {name.lower(): name for name in table.dtype.names or ()}
    if len(table) == 0:
        raise ProductError("a calibration table is empty", file=path)
    at = 0
    if len(table) > 1 or {"expnum", "ccdname"} <= set(names):
        if not {"expnum", "ccdname"} <= set(names):
            raise ProductError(
                "a calibration table of several rows does not say which CCD a row is of",
                file=path,
                chip=f"{expnum} {ccdname}",
            )
        ccds = np.char.strip(table[names["ccdname"]].astype(str))
        same = np.flatnonzero((table[names["expnum"]] == expnum) & (ccds == ccdname))
        if len(same) == 0:
            raise ProductError("a calibration table has no row of this CCD", file=path, chip=f"{expnum} {ccdname}")
        at = int(same[0])
    return {name: table[column][at] for name, column in names.items()}


def unit_sum(model: PSFEx) -> PSFEx:
    """Return the model scaled so that it sums to 1 at every position.

    Notes
    -----
    The sum of a PSFEx model is a polynomial in position, S(x, y) = sum_k S_k P_k(x, y). To first order in S_k / S_0 the
    normalised model is f_0 / S_0 + sum_k P_k (f_k - f_0 S_k / S_0) / S_0, whose sum is exactly 1 everywhere. The shape
    changes in second order only.
    """
    sums = model.masks.sum(axis=(1, 2))
    masks = model.masks / sums[0]
    masks[1:] -= (sums[1:] / sums[0])[:, np.newaxis, np.newaxis] * masks[0]
    return dataclasses.replace(model, masks=masks)


def read_psf(path: str | os.PathLike[str], expnum: int, ccdname: str) -> PSFEx:
    """Read the PSFEx model of one CCD in either Legacy Surveys layout, scaled to sum 1.

    Parameters
    ----------
    path : path-like
        Layout (a): HDU 1 holds the column ``psf_mask`` alone and the polynomial in its header. Layout (b), "merged":
        everything is a lower-case column.
    expnum : int
        Exposure number, to find the row of a merged table.
    ccdname : str
        CCD name, for example ``N3``.

    Returns
    -------
    PSFEx
        POLZERO in the pixel frame of the image it came with.

    Raises
    ------
    ProductError
        When the file is neither layout, or holds values that are no PSF.
    """
    row = _row(path, expnum, ccdname)
    if "psf_mask" not in row:
        raise ProductError("a PSF file has no psf_mask column", file=path, key="psf_mask")
    if "polzero1" in row:
        values = row
    else:
        header = read_header(path, 1)
        values = {key.lower(): header[key] for key in header.keys() if key}  # noqa: SIM118 (FITSHDR iterates over records)
    try:
        masks = np.array(row["psf_mask"], dtype=np.float64)
        degree = int(values["poldeg1"])
        zero = (float(values["polzero1"]), float(values["polzero2"]))
        scale = (float(values["polscal1"]), float(values["polscal2"]))
        sampling, fwhm = float(values["psf_samp"]), float(values["psf_fwhm"])
    except KeyError as error:
        raise ProductError(f"a PSF file lacks {error}", file=path, key=str(error).strip("'")) from error
    terms = (degree + 1) * (degree + 2) // 2
    if masks.ndim != 3 or len(masks) != terms or masks.shape[1] != masks.shape[2]:
        raise ProductError(f"psf_mask has shape {masks.shape} for a polynomial of degree {degree}", file=path)
    if not np.isfinite(masks).all() or masks[0].sum() <= 0 or not sampling > 0 or 0.0 in scale:
        raise ProductError("a PSF file holds values that are no PSF", file=path)
    return unit_sum(PSFEx(masks, degree, zero, scale, sampling, fwhm))


@dataclass(frozen=True)
class SplineSky:
    """The sky of one CCD: a bicubic spline through a grid of values.

    Attributes
    ----------
    x, y : ndarray of float64
        Grid positions, pixels of the whole CCD.
    values : ndarray of float64, shape (len(y), len(x))
        Sky, in the units of the image.
    x0, y0 : int
        Offset of the image's first pixel on the whole CCD.
    order : int
        Spline order.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    values: NDArray[np.float64]
    x0: int
    y0: int
    order: int

    def image(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Return the sky of an image of `shape` (ny, nx): the spline at (x + x0, y + y0), zero-offset."""
        spline = RectBivariateSpline(self.x, self.y, self.values.T, kx=self.order, ky=self.order)
        ny, nx = shape
        return spline(np.arange(nx) + self.x0, np.arange(ny) + self.y0, grid=True).T.astype(np.float32)


def read_sky(path: str | os.PathLike[str], expnum: int, ccdname: str) -> SplineSky:
    """Read a ``splinesky`` file.

    Raises
    ------
    ProductError
        When a column is missing or the grid is not one.
    """
    row = _row(path, expnum, ccdname)
    try:
        x, y = (np.atleast_1d(np.asarray(row[key], dtype=np.float64)) for key in ("xgrid", "ygrid"))
        values = np.atleast_2d(np.asarray(row["gridvals"], dtype=np.float64))
        x0, y0, order = (int(row[key]) for key in ("x0", "y0", "order"))
        # Merged tables pad the grid of smaller CCDs.
        nx, ny = (int(row[key]) if key in row else size for key, size in (("gridw", len(x)), ("gridh", len(y))))
    except KeyError as error:
        raise ProductError(f"a sky model lacks {error}", file=path, key=str(error).strip("'")) from error
    sky = SplineSky(x[:nx], y[:ny], values[:ny, :nx], x0, y0, order)
    grows = all((np.diff(axis) > 0).all() and len(axis) > order for axis in (sky.x, sky.y))
    if sky.values.shape != (len(sky.y), len(sky.x)) or not grows or not np.isfinite(sky.values).all():
        raise ProductError(
            f"a sky model's grid is damaged: values {values.shape}, x {x.shape}, y {y.shape}, order {order}", file=path
        )
    return sky


@dataclass(frozen=True)
class PlacedPSF:
    """A PSF model on the sky: the model, the WCS and shape of its image, and its weight in a mean."""

    model: PSFEx
    wcs: ImageWCS
    shape: tuple[int, int]
    weight: float


def mean_psf(placed: Sequence[PlacedPSF], ra: float, dec: float, target: ImageWCS, size: int = 63) -> PSFEx:
    """Return the weighted mean of several PSFs at one sky position, in the pixels of `target`.

    Parameters
    ----------
    placed : sequence of PlacedPSF
        Models with a positive weight; those whose image does not hold the position count only when none does, and are
        then evaluated at their nearest pixel.
    ra, dec : float
        Position in degrees.
    target : ImageWCS
        The coadd; its local Jacobian at the position turns and scales the single-epoch models.
    size : int
        Odd side of the model in pixels.

    Returns
    -------
    PSFEx
        Constant (degree 0), sampling 1, sum 1.

    Raises
    ------
    ValueError
        When no model has weight.
    """
    near: list[tuple[PlacedPSF, float, float]] = []
    beside: list[tuple[PlacedPSF, float, float]] = []
    for one in placed:
        if one.weight > 0:
            rows, cols = one.wcs.sky_to_pixel(ra, dec)
            row, col = float(rows[0]), float(cols[0])
            held = float(np.clip(row, 0, one.shape[0] - 1)), float(np.clip(col, 0, one.shape[1] - 1))
            (near if held == (row, col) else beside).append((one, *held))
    used = near or beside
    if not used:
        raise ValueError("no PSF model has weight")
    rows, cols = target.sky_to_pixel(ra, dec)
    local = target.galsim.local(image_pos=galsim.PositionD(cols[0] + 1.0, rows[0] + 1.0))
    total = sum(one.weight for one, _, _ in used)
    stamp = np.zeros((size, size))
    fwhm = 0.0
    for one, row, col in used:
        source = one.wcs.galsim.local(image_pos=galsim.PositionD(col + 1.0, row + 1.0))
        profile = source.toWorld(one.model.profile(row, col))
        drawn = profile.drawImage(nx=size, ny=size, wcs=local, method="no_pixel", dtype=float).array
        stamp += one.weight / total * drawn / drawn.sum()
        fwhm += one.weight / total * one.model.fwhm * float(np.sqrt(source.pixelArea() / local.pixelArea()))
    return PSFEx((stamp / stamp.sum())[np.newaxis], 0, (0.0, 0.0), (1.0, 1.0), 1.0, fwhm)
