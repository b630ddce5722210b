"""NOIRLab Community Pipeline images made into what the DES archive would have given: one CCD at a time.

The pixel values stay ADU. The image loses a constant, the median of the sky model, kept as SKYBRITE; the rest of
the sky model becomes the background file, as the residual background of a DES Finalcut image is.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from balrogutils.errors import ProductError
from balrogutils.exposures.cpmodels import SplineSky
from balrogutils.exposures.scamphead import REQUIRED_KEYS, WCS_KEYS
from balrogutils.fitsfile import Header, read_header, read_image
from balrogutils.masks import MaskBit
from balrogutils.wcs import ImageWCS

__all__ = [
    "MASK_BITS",
    "REFILLED_CODES",
    "Exposure",
    "bits_of_codes",
    "read_exposure",
    "refill_weight",
    "require_wcs",
]

MASK_BITS = {
    0: 0,
    1: MaskBit.BPM.value,
    2: MaskBit.EDGE.value,
    3: MaskBit.SATURATE.value,
    4: MaskBit.TRAIL.value,
    5: MaskBit.CRAY.value,
    6: MaskBit.SUSPECT.value,
    7: MaskBit.CRAY.value,
    8: MaskBit.STREAK.value,
}
"""DES mask bit of each Community Pipeline code (version 3.5 and later).

1 bad pixel, 2 no value, 3 saturated, 4 bleed trail, 5 cosmic ray, 6 low weight, 7 transient against the other
exposures, 8 long streak.
"""

REFILLED_CODES = (3, 4)
"""Codes whose pixels have weight zero but need one in the null-weight recipe: saturation and bleed trails."""

_CELL = 64  # pixels; side of the cells whose median weight refills
_CODES_SINCE = (3, 5)
_CCD_CARDS = (
    "CCDNUM",
    "DETPOS",
    "DETSEC",
    "GAINA",
    "GAINB",
    "RDNOISEA",
    "RDNOISEB",
    "SATURATE",
    "SATURATA",
    "SATURATB",
    "FWHM",
    "ELLIPTIC",
    "AVSKY",
)
_EXPOSURE_CARDS = (
    "EXPNUM",
    "EXPTIME",
    "MJD-OBS",
    "DATE-OBS",
    "FILTER",
    "OBJECT",
    "PROPID",
    "TELESCOP",
    "INSTRUME",
    "AIRMASS",
    "PLVER",
)


@dataclass(frozen=True)
class Exposure:
    """One CCD in DES terms, before the null-weight recipe.

    Attributes
    ----------
    sci, wgt : ndarray of float32, shape (ny, nx)
        Image minus a constant sky, ADU; inverse variance, ADU^-2.
    msk : ndarray of int16, shape (ny, nx)
        DES mask bits.
    bkg : ndarray of float32, shape (ny, nx)
        Sky left in `sci`, ADU.
    header : Header
        Refined WCS and what later steps ask for.
    refilled : int
        Pixels whose weight was filled from the local median.
    """

    sci: NDArray[np.float32]
    wgt: NDArray[np.float32]
    msk: NDArray[np.int16]
    bkg: NDArray[np.float32]
    header: Header
    refilled: int


def bits_of_codes(codes: NDArray[np.integer], file: str | os.PathLike[str] | None = None) -> NDArray[np.int16]:
    """Return the DES mask bits of a Community Pipeline mask.

    Raises
    ------
    ProductError
        For a value that is not a code, for example in a mask of bits as older versions wrote.
    """
    if codes.size and (codes.min() < 0 or codes.max() > max(MASK_BITS)):
        raise ProductError(
            f"a mask holds {int(codes.min())}...{int(codes.max())}, not the codes 0...{max(MASK_BITS)}",
            file=file,
            remedy="use images of Community Pipeline version 3.5 or later, whose masks are codes, not bits",
        )
    table = np.array([MASK_BITS[code] for code in range(max(MASK_BITS) + 1)], dtype=np.int16)
    return table[codes]


def refill_weight(
    weight: NDArray[np.float32], where: NDArray[np.bool_], cell: int = _CELL
) -> tuple[NDArray[np.float32], int]:
    """Give pixels without weight the median weight around them.

    Parameters
    ----------
    weight : ndarray of float32, shape (ny, nx)
        Inverse variance.
    where : ndarray of bool, shape (ny, nx)
        Pixels to fill.
    cell : int
        Side of the square cells; the median is over the positive weights of a cell, and a cell that has none takes the
        value of the nearest cell that has.

    Returns
    -------
    weight : ndarray of float32
        A filled copy.
    refilled : int
        Pixels filled; 0 when no pixel of the image has weight.
    """
    filled = weight.copy()
    if not where.any():
        return filled, 0
    ny, nx = weight.shape
    medians = np.full((math.ceil(ny / cell), math.ceil(nx / cell)), np.nan, dtype=np.float32)
    good = (weight > 0) & np.isfinite(weight) & ~where
    for i, j in np.ndindex(medians.shape):
        window = np.s_[i * cell : (i + 1) * cell, j * cell : (j + 1) * cell]
        values = weight[window][good[window]]
        if values.size:
            medians[i, j] = np.median(values)
    empty = np.isnan(medians)
    if empty.all():
        return filled, 0
    nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    medians = medians[tuple(nearest)]
    rows, cols = np.nonzero(where)
    filled[rows, cols] = medians[rows // cell, cols // cell]
    return filled, len(rows)


def _check_version(header: Header, file: Path) -> None:
    """Refuse masks that are bits."""
    match = re.match(r"V?(\d+)\.(\d+)", str(header.get("PLVER", "")).strip())
    if match and (int(match[1]), int(match[2])) < _CODES_SINCE:
        raise ProductError(
            f"Community Pipeline version {header['PLVER']} has masks of bits, not codes",
            file=file,
            key="PLVER",
            remedy="use images reprocessed with 3.5 or later",
        )


def _header(primary: Header, ccd: Header, row: dict[str, Any], cards: dict[str, Any]) -> Header:
    """Return the header of the converted image: the CCD's WCS with the astrometric offsets of the table added."""
    header = fitsio.FITSHDR()

    def put(key: str, value: Any) -> None:
        header.add_record({"name": key, "value": value, "comment": ""})

    found = {key: ccd[key] for key in WCS_KEYS if ccd.get(key) is not None}
    # The equatorial frame of these images is that of the Gaia or Pan-STARRS reference, whatever RADESYS was left over.
    found |= {"RADESYS": "ICRS", "EQUINOX": 2000.0}
    # A shift of the reference point moves every position alike over one CCD (the Legacy Surveys define the offsets so).
    declination = float(found.get("CRVAL2", math.nan))
    found["CRVAL1"] = float(found.get("CRVAL1", math.nan)) + (row["ccdraoff"] or 0.0) / 3600.0 / math.cos(
        math.radians(declination)
    )
    found["CRVAL2"] = declination + (row["ccddecoff"] or 0.0) / 3600.0
    for key in WCS_KEYS:
        if key in found:
            put(key, found[key])
    for source, keys in ((primary, _EXPOSURE_CARDS), (ccd, _CCD_CARDS)):
        for key in keys:
            if source.get(key) is not None:
                put(key, source[key])
    for key, value in cards.items():
        put(key, value)
    return header


def require_wcs(image: str | os.PathLike[str], hdu: int) -> None:
    """Check that an image has a WCS.

    Parameters
    ----------
    image : path-like
        The ``ooi`` file.
    hdu : int
        The CCD's.

    Raises
    ------
    ProductError
        When a card is missing, or the cards are no celestial WCS.
    """
    cards = read_header(image, hdu)
    missing = [key for key in REQUIRED_KEYS if cards.get(key) is None]
    if missing:
        raise ProductError(f"an image header lacks {', '.join(missing)}", file=image, key=missing[0])
    try:
        ImageWCS({key: cards[key] for key in WCS_KEYS if cards.get(key) is not None})
    except ProductError as error:
        raise ProductError(error.message, file=image) from error


def read_exposure(
    image: str | os.PathLike[str],
    weight: str | os.PathLike[str],
    mask: str | os.PathLike[str],
    sky: SplineSky,
    row: dict[str, Any],
    extra: dict[str, Any],
) -> Exposure:
    """Read one CCD of the Community Pipeline and convert it.

    Parameters
    ----------
    image, weight, mask : path-like
        The ``ooi``, ``oow`` and ``ood`` files.
    sky : SplineSky
        Its sky model.
    row : dict
        Its row of the `ccds` table: image_hdu, band, expnum, ccdnum, ccdraoff, ccddecoff.
    extra : dict
        Cards to set, for example TILENAME.

    Returns
    -------
    Exposure
        SKYBRITE is the constant that was subtracted, SKYSIGMA the noise of a pixel of median weight, both in ADU.

    Raises
    ------
    ProductError
        When a plane is missing or differs in shape, the mask is not codes, or there is no WCS.
    """
    hdu = int(row["image_hdu"])
    files = [Path(image), Path(weight), Path(mask)]
    primary, ccd = read_header(files[0], 0), read_header(files[0], hdu)
    _check_version(primary, files[0])
    pixels, inverse_variance, codes = (read_image(file, hdu) for file in files)
    if not pixels.shape == inverse_variance.shape == codes.shape or pixels.ndim != 2:
        raise ProductError(
            f"image, weight and mask differ in shape: {pixels.shape}, {inverse_variance.shape}, {codes.shape}",
            file=files[0],
        )
    msk = bits_of_codes(codes, files[2])
    inverse_variance = np.asarray(inverse_variance, dtype=np.float32)
    wgt, refilled = refill_weight(inverse_variance, np.isin(codes, REFILLED_CODES))
    bkg = sky.image(pixels.shape)
    # The mean of two middle values can fall between float32 values; card and subtraction use the same number.
    level = float(np.float32(np.median(bkg)))
    bkg -= np.float32(level)
    sci = np.asarray(pixels, dtype=np.float32) - np.float32(level)
    positive = wgt[np.isfinite(wgt) & (wgt > 0)]
    cards = {
        "BAND": row["band"],
        "EXPNUM": int(row["expnum"]),
        "CCDNUM": int(row["ccdnum"]),
        "BUNIT": "adu",
        "SKYBRITE": level,
        "SKYSIGMA": float(1.0 / np.sqrt(np.median(positive))) if positive.size else 0.0,
        **extra,
    }
    header = _header(primary, ccd, row, cards)
    ImageWCS(header)
    return Exposure(sci, wgt, msk, bkg, header, refilled)
