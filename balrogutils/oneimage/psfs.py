"""The PSF of one image: a PSFEx model, or a stamp that stands for the whole image."""

from __future__ import annotations

from pathlib import Path

import fitsio
import numpy as np

from balrogutils.errors import ProductError
from balrogutils.psf import PSFEx

__all__ = ["is_stamp", "read_psf"]

_DIMENSIONS = 2
_SMALLEST = 5
# Steps in pixels of the image that a stamp can have.
_STEPS = (0.01, 100.0)


def _image_hdu(fits: fitsio.FITS) -> int | None:
    """Return the HDU of the one image of a file; None where there is a table, as a PSFEx model is."""
    if any(hdu.get_exttype() != "IMAGE_HDU" for hdu in fits if not _packed(hdu)):
        return None
    return next((number for number, hdu in enumerate(fits) if _packed(hdu) or hdu.has_data()), None)


def _packed(hdu: object) -> bool:
    return bool(getattr(hdu, "is_compressed", lambda: False)())


def is_stamp(file: Path) -> bool:
    """Return whether a FITS file holds an image instead of a PSFEx model."""
    with fitsio.FITS(str(file)) as fits:
        return _image_hdu(fits) is not None


def read_psf(file: Path) -> PSFEx:
    """Read a PSF.

    Parameters
    ----------
    file : Path
        A PSFEx model, or an image of a point source: square with odd sides, centred on the middle pixel, without
        background, each value that of a whole pixel. The card PSF_SAMP gives its step in pixels of the image, from
        0.01 to 100; 1 without.

    Returns
    -------
    PSFEx
        Of a stamp the constant model of sum 1.

    Raises
    ------
    ProductError
        When it is neither, or is damaged.
    """
    try:
        if not is_stamp(file):
            return PSFEx.read(file)
        with fitsio.FITS(str(file)) as fits:
            hdu = fits[_image_hdu(fits)]
            pixels, header = np.asarray(hdu.read(), dtype=np.float64), hdu.read_header()
    except OSError as error:
        text = f"a PSF that cannot be read: {str(error).strip().partition(chr(10))[0]}"
        raise ProductError(text, file=file) from error
    sampling = header.get("PSF_SAMP", 1.0)
    side = pixels.shape[0] if pixels.ndim == _DIMENSIONS else 0
    if pixels.shape != (side, side) or side % 2 == 0 or side < _SMALLEST:
        text = f"an image of shape {pixels.shape}, no PSF stamp: that is square, with odd sides from {_SMALLEST} on"
        raise ProductError(text, file=file)
    if not (np.isfinite(pixels).all() and pixels.sum() > 0 and pixels.max() > 0):
        raise ProductError("a PSF stamp with values that are no light", file=file)
    is_number = isinstance(sampling, (int, float)) and not isinstance(sampling, bool)
    if not is_number or not _STEPS[0] <= sampling <= _STEPS[1]:
        raise ProductError(f"a PSF stamp whose PSF_SAMP is {sampling!r}", file=file)
    # Of the circle that has as many pixels as lie above half of the maximum.
    fwhm = 2.0 * np.sqrt(np.count_nonzero(pixels > 0.5 * pixels.max()) / np.pi) * float(sampling)
    return PSFEx((pixels / pixels.sum())[np.newaxis], 0, (0.0, 0.0), (1.0, 1.0), float(sampling), float(fwhm))
