"""Seeing, depth and bright objects where injections were put, found or not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.analysis.tables import numbers
from balrogutils.archive.geometry import Geometry
from balrogutils.errors import ProductError
from balrogutils.fitsfile import read_image, read_table
from balrogutils.injection.flags import ChipFlag
from balrogutils.layout import TileTree
from balrogutils.matching.positions import nearest
from balrogutils.psf import PSFEx

__all__ = ["BRIGHT", "aperture_depth", "injection_conditions", "mean_seeing"]

F64 = NDArray[np.float64]

BRIGHT = 18.0
"""MAG_AUTO of the base run below which an object is bright."""
APERTURE = 1.95
"""Diameter in arcsec of the aperture of the depth, as in the depths that DES quotes."""
_SIGMAS = 10.0


def aperture_depth(weight: ArrayLike, row: ArrayLike, col: ArrayLike, zero_point: float, scale: float) -> F64:
    """Return the magnitude at S/N 10 in an aperture of 1.95 arcsec at places of an image.

    Parameters
    ----------
    weight : array_like, shape (nrow, ncol)
        Inverse variances.
    row, col : array_like, shape (n,)
        Zero-offset pixels.
    zero_point : float
        Of the image.
    scale : float
        Pixel scale, arcsec.

    Returns
    -------
    ndarray
        zp - 2.5 log10(10 sqrt(N) / sqrt(w)), N the pixels of the aperture and w the median of the weights in the
        square around it; NaN where that is not positive, or the place is off the image. Neighbouring pixels of a
        coadd are correlated, so the depth reached is less by a constant of some 0.1 to 0.2 mag.
    """
    plane = np.asarray(weight)
    y, x = numbers(row, "row"), numbers(col, "col", np.size(row))
    half = max(round(0.5 * APERTURE / scale), 1)
    pixels = np.pi * (0.5 * APERTURE / scale) ** 2
    out = np.full(y.size, np.nan)
    for number in np.flatnonzero(np.isfinite(y) & np.isfinite(x)):
        r, c = round(y[number]), round(x[number])
        if not (0 <= r < plane.shape[0] and 0 <= c < plane.shape[1]):
            continue
        box = plane[max(r - half, 0) : r + half + 1, max(c - half, 0) : c + half + 1]
        typical = float(np.median(box))
        if typical > 0.0:
            out[number] = zero_point - 2.5 * np.log10(_SIGMAS * np.sqrt(pixels / typical))
    return out


def mean_seeing(bal_id: ArrayLike, of_chip: ArrayLike, fwhm: ArrayLike) -> F64:
    """Return the mean FWHM of the chips that hold each injection.

    Parameters
    ----------
    bal_id : array_like of int, shape (n,)
        Injections.
    of_chip : array_like of int, shape (m,)
        Injection of each row of the table by chip.
    fwhm : array_like, shape (m,)
        FWHM of that chip's PSF; what is not finite is left out.

    Returns
    -------
    ndarray
        NaN for an injection on no chip.
    """
    ids, rows = np.asarray(bal_id), np.asarray(of_chip)
    values = numbers(fwhm, "fwhm", rows.size)
    order = np.argsort(ids, kind="stable")
    place = np.minimum(np.searchsorted(ids, rows, sorter=order), max(ids.size - 1, 0))
    use = np.isfinite(values)
    if not ids.size or not use.any():
        return np.full(ids.size, np.nan)
    index = order[place]
    use &= ids[index] == rows
    number = np.bincount(index[use], minlength=ids.size)
    out = np.full(ids.size, np.nan)
    np.divide(np.bincount(index[use], values[use], ids.size), number, out=out, where=number > 0)
    return out


def injection_conditions(
    base: TileTree, tree: TileTree, band: str, zero_point: float = 30.0
) -> Mapping[str, tuple[F64, str]]:
    """Return seeing, depth and distance to a bright object of every row of a realization's truth.

    Parameters
    ----------
    base, tree : TileTree
        The base run of the tile, and the realization.
    band : str
        Band of all three.
    zero_point : float
        Of the coadds.

    Returns
    -------
    mapping of str to (ndarray, str)
        Values and unit by name, as `read_matched` takes them: seeing is the mean FWHM of the PSF models of the chips
        that hold the centre; depth is `aperture_depth` on the base coadd; bright is MAG_AUTO < 18 in the base
        catalogue, stars or not.

    Raises
    ------
    ProductError
        When a product is missing or damaged.
    """
    truth, chips = read_table(tree.truth), read_table(tree.truth_chips)
    wcs = Geometry.read(base.geometry).wcs()
    row, col = wcs.sky_to_pixel(truth["ra"], truth["dec"])
    if not len(truth):
        raise ProductError("the truth catalogue is empty", tile=base.tile, file=tree.truth)
    scale = float(np.sqrt(abs(np.linalg.det(np.ravel(wcs.jacobian(row[0], col[0])).reshape(2, 2)))))
    depth = aperture_depth(read_image(base.image(band), "WGT"), row, col, zero_point, scale)
    here = chips[(chips["band"] == band) & ((chips["flags"] & ChipFlag.CENTRE_ON_CHIP) != 0)]
    widths = {chip: PSFEx.read(base.psf(str(chip).strip())).fwhm for chip in np.unique(here["chip"])}
    fwhm = mean_seeing(truth["bal_id"], here["bal_id"], [scale * widths[chip] for chip in here["chip"]])
    objects = read_table(base.catalog(band))
    bright = objects[objects["MAG_AUTO"] < BRIGHT]
    places = wcs.pixel_to_sky(bright["Y_IMAGE"].astype(float) - 1.0, bright["X_IMAGE"].astype(float) - 1.0)
    _, distance = nearest(truth["ra"], truth["dec"], *places)
    return {
        f"seeing in {band}": (fwhm, "arcsec"),
        f"depth in {band}": (depth, "mag"),
        f"distance to the nearest original with {band} < {BRIGHT:g}": (distance, "arcsec"),
    }
