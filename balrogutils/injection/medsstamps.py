"""Objects of MEDS files as profiles: cleaned of their neighbours, deconvolved by their PSF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from balrogutils.errors import InputError, ProductError
from balrogutils.injection.catalogs import ZERO_POINT
from balrogutils.meds import MEDS
from balrogutils.meds.stamps import Stamps
from balrogutils.settings.sources import MedsCatalog

if TYPE_CHECKING:
    import galsim

__all__ = [
    "Cleaned",
    "MedsStamps",
    "best_slot",
    "cleaned",
    "half_light_radius",
    "light_reach",
    "open_meds",
    "zero_factor",
]

_KEY = "input.meds_catalog.file_name"
# Taps that the interpolation adds to an image on every side (quintic).
_TAPS = 3.0
# Radii of a curve of growth, pixels.
_STEP = 0.5

F64 = NDArray[np.float64]


class Cleaned(NamedTuple):
    """The light of one object in one stamp.

    Attributes
    ----------
    pixels : ndarray of float64, shape (n, n)
        In the units of the file.
    radius : ndarray of float64, shape (n, n)
        Distance of each pixel from the object's position, arcsec.
    error : float
        Error of the sum of the pixels, from the weights, as if pixels were independent.
    masked : float
        Share of the pixels in use that are bad, or a neighbour's, and were filled.
    """

    pixels: F64
    radius: F64
    error: float
    masked: float


def open_meds(section: MedsCatalog, base: Path, tile: str, band: str) -> MEDS:
    """Open the file of a band.

    Raises
    ------
    InputError
        When it is missing, no MEDS file, or without weights, segmentation or PSF stamps.
    """
    file = section.of_band(base, tile, band)
    if not file.is_file():
        raise InputError("a MEDS file is not there", band=band, file=file, key=_KEY, remedy="check its name")
    try:
        meds = MEDS(file)
    except ProductError as error:
        raise InputError(error.message, band=band, file=file, key=_KEY, remedy="name a whole MEDS file") from error
    lacking = [kind for kind in ("weight", "seg", "psf") if kind not in meds.types]
    if lacking:
        meds.close()
        raise InputError(
            f"the MEDS file has no {', '.join(lacking)} stamps",
            band=band,
            file=file,
            key=_KEY,
            remedy="name a file that has image, weight, seg and psf stamps",
        )
    return meds


def cleaned(stamps: Stamps, iobj: int, slot: int, margin: float | None) -> Cleaned | None:
    """Return the light of an object alone.

    Parameters
    ----------
    stamps : Stamps
        The file, or a block of it.
    iobj, slot : int
        Row and cut-out.
    margin : float or None
        arcsec about the object's own pixels of the coadd segmentation that count as its; None for the whole stamp.

    Returns
    -------
    Cleaned or None
        None when no pixel of the segmentation is the object's own.

    Notes
    -----
    Pixels that are not finite, have no weight or are a neighbour's take the value of the pixel opposite of the object's
    position, where that one is good, else 0.
    """
    image, weight = (stamps.get_cutout(iobj, slot, kind).astype(np.float64) for kind in ("image", "weight"))
    seg = stamps.get_cutout(iobj, 0, "seg") if slot == 0 else stamps.interpolate_coadd_seg(iobj, slot)
    number = stamps.get_number(iobj)
    own = seg == number
    if not own.any():
        return None
    row, col = stamps.get_cutout_rowcol(iobj, slot)
    jacobian = stamps.get_jacobian_matrix(iobj, slot)
    grid = np.indices(image.shape)
    radius = np.hypot(*np.tensordot(jacobian, np.array([grid[0] - row, grid[1] - col]), axes=1))
    good = np.isfinite(image) & np.isfinite(weight) & (weight > 0) & (own | (seg == 0))
    used = np.ones(image.shape, dtype=bool)
    if margin is not None:
        used = distance_transform_edt(~own) * np.sqrt(abs(np.linalg.det(jacobian))) <= margin
    # How often the light of each pixel counts: mirrored pixels count twice.
    times = (good & used).astype(np.float64)
    pixels = np.where(good & used, image, 0.0)
    rows, cols = np.nonzero(used & ~good)
    opposite = np.rint(2.0 * row - rows).astype(np.int64), np.rint(2.0 * col - cols).astype(np.int64)
    there = np.all([(one >= 0) & (one < size) for one, size in zip(opposite, image.shape, strict=True)], axis=0)
    there[there] = good[opposite[0][there], opposite[1][there]]
    source = opposite[0][there], opposite[1][there]
    pixels[rows[there], cols[there]] = image[source]
    np.add.at(times, source, 1.0)
    error = float(np.sqrt(np.sum(times[times > 0] ** 2 / weight[times > 0])))
    return Cleaned(pixels, radius, error, len(rows) / np.count_nonzero(used))


def half_light_radius(pixels: F64, radius: F64, scale: float) -> float:
    """Return the radius of the circle that holds half of the light of an image, NaN when none does.

    Parameters
    ----------
    pixels, radius : ndarray of float64, shape (n, n)
        Light and distance from the centre, in the unit of the result.
    scale : float
        Size of a pixel, in the same unit.

    Notes
    -----
    From the curve of growth in circles whose edge takes one pixel to fall from 1 to 0.
    """
    circles = np.arange(0.0, float(radius.max()) / scale + _STEP, _STEP)
    inside = np.clip(circles[:, np.newaxis] - radius.ravel() / scale + 0.5, 0.0, 1.0) @ pixels.ravel()
    beyond = np.flatnonzero(inside >= 0.5 * pixels.sum())
    if not (pixels.sum() > 0 and len(beyond)) or beyond[0] == 0:
        return float("nan")
    last = int(beyond[0])
    part = (0.5 * pixels.sum() - inside[last - 1]) / (inside[last] - inside[last - 1])
    return float(scale * (circles[last - 1] + part * _STEP))


def best_slot(stamps: Stamps, flags: NDArray[np.integer], iobj: int) -> int:
    """Return the exposure in which a point source would be measured best; 0 when there is none to choose.

    Parameters
    ----------
    stamps : Stamps
        The file, or a block of it.
    flags : ndarray of int, shape (ncutout,)
        ``image_flags`` of the object's cut-outs; those with flags are not taken.
    iobj : int
        Row.

    Notes
    -----
    The variance of the flux of a point source in noise of constant weight w is 1 / (w sum(P^2)), P the PSF stamp; w is
    the mean over the stamp, pixels without weight counted as 0.
    """
    merit = np.zeros(len(flags))
    for slot in range(1, len(flags)):
        if flags[slot]:
            continue
        psf = stamps.get_psf(iobj, slot).astype(np.float64)
        weight = stamps.get_cutout(iobj, slot, "weight").astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            merit[slot] = np.nan_to_num(np.maximum(weight, 0.0).mean() * np.sum((psf / psf.sum()) ** 2), posinf=0.0)
    return int(np.argmax(merit)) if merit.any() else 0


class MedsStamps:
    """Makes profiles of the objects of MEDS files; every file is opened when it is first needed.

    Parameters
    ----------
    section : MedsCatalog
        Which files, and what of their stamps is used.
    base : pathlib.Path
        The checkout.
    tile : str
        Tile that ``TILE`` stands for.
    """

    def __init__(self, section: MedsCatalog, base: Path, tile: str) -> None:
        self._section, self._base, self._tile = section, base, tile
        self._files: dict[str, MEDS] = {}

    def file(self, band: str) -> MEDS:
        """Return the file of a band."""
        if band not in self._files:
            self._files[band] = open_meds(self._section, self._base, self._tile, band)
        return self._files[band]

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.popitem()[1].close()

    def profile(self, iobj: int, band: str, slot: int) -> galsim.GSObject:
        """Return an object as it is before its PSF (u west, v north, arcsec), but for the resolution that is asked for.

        Its flux is the sum of its pixels.

        Raises
        ------
        InputError
            When the object has no light.

        Notes
        -----
        Image and PSF stamp are interpolated alike, so that the interpolant falls out of their quotient.
        """
        import galsim

        meds = self.file(band)
        light = cleaned(meds, iobj, slot, self._section.margin)
        if light is None or not light.pixels.any():
            raise InputError(
                f"object {iobj} has no light of its own",
                band=band,
                file=meds.path,
                key=_KEY,
                remedy="run the injection block (mode bit 8) again: the file has changed",
            )
        # Only what is not 0: a small image makes a small Fourier transform.
        rows, cols = (np.flatnonzero(light.pixels.any(axis=axis)) for axis in (1, 0))
        first = int(rows[0]), int(cols[0])
        pixels = light.pixels[first[0] : rows[-1] + 1, first[1] : cols[-1] + 1]
        row, col = meds.get_cutout_rowcol(iobj, slot)
        j = meds.get_jacobian(iobj, slot)
        wcs = galsim.JacobianWCS(j["dudcol"], j["dudrow"], j["dvdcol"], j["dvdrow"])
        psf = meds.get_psf(iobj, slot).astype(np.float64)
        model = _interpolated(psf / psf.sum(), meds.get_psf_rowcol(iobj, slot), wcs)
        image = _interpolated(pixels, (row - first[0], col - first[1]), wcs)
        blur = [galsim.Gaussian(fwhm=self._section.resolution)] if self._section.resolution else []
        return galsim.Convolve(image, galsim.Deconvolve(model), *blur)


def _interpolated(pixels: F64, centre: tuple[float, float], wcs: galsim.JacobianWCS) -> galsim.GSObject:
    """Return an image as a profile about a zero-offset (row, col)."""
    import galsim

    middle = galsim.PositionD(centre[1] - 0.5 * (pixels.shape[1] - 1), centre[0] - 0.5 * (pixels.shape[0] - 1))
    return galsim.InterpolatedImage(galsim.Image(np.ascontiguousarray(pixels), wcs=wcs), offset=middle)


def light_reach(light: Cleaned, scale: float) -> float:
    """Return the radius in arcsec outside which a stamp's interpolated image is 0."""
    return float(light.radius[light.pixels != 0].max(initial=0.0)) + _TAPS * scale


def zero_factor(meds: MEDS) -> float:
    """Return what brings the file's units to zero point 30."""
    meta = meds.get_meta()
    reference = float(meta["magzp_ref"][0]) if "magzp_ref" in (meta.dtype.names or ()) else ZERO_POINT
    return float(10.0 ** (0.4 * (ZERO_POINT - reference)))
