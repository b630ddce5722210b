"""Single-epoch images of the DES archive, made into null-weight images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from balrogutils.errors import ProductError
from balrogutils.exposures.nullweights import NullWeights, null_weights, write_nullwt
from balrogutils.exposures.scamphead import replace_wcs
from balrogutils.fitsfile import Header, read_header, read_image
from balrogutils.wcs import ImageWCS

__all__ = ["make_nullwt", "nullwt_header"]


def nullwt_header(original: Header, wcs: dict[str, Any], extra: dict[str, Any]) -> Header:
    """Return the header of a null-weight image: the image's own, its WCS replaced, tile and chip named.

    Parameters
    ----------
    original : Header
        Header of the single-epoch image.
    wcs : dict
        Cards of the SCAMP head.
    extra : dict
        Cards to set, for example TILENAME.

    Raises
    ------
    ProductError
        When the result is no usable WCS.
    """
    header = replace_wcs(original, wcs)
    for key, value in extra.items():
        header.add_record({"name": key, "value": value, "comment": ""})
    ImageWCS(header)
    return header


def make_nullwt(
    image: str | os.PathLike[str], target: str | os.PathLike[str], wcs: dict[str, Any], extra: dict[str, Any]
) -> NullWeights:
    """Read SCI, MSK and WGT of one CCD, apply the recipe and write the null-weight image.

    Parameters
    ----------
    image : path-like
        The ``immasked`` file.
    target : path-like
        The null-weight file; an old one is replaced.
    wcs, extra : dict
        See `nullwt_header`.

    Returns
    -------
    NullWeights
        What was written.

    Raises
    ------
    ProductError
        When a plane is missing, or the planes differ in shape.
    """
    file = Path(image)
    sci, wgt, msk = (read_image(file, name) for name in ("SCI", "WGT", "MSK"))
    if not sci.shape == wgt.shape == msk.shape or sci.ndim != 2:
        raise ProductError(f"image, weight and mask differ in shape: {sci.shape}, {wgt.shape}, {msk.shape}", file=file)
    header = nullwt_header(read_header(file, "SCI"), wcs, extra)
    planes = null_weights(sci, wgt, msk)
    # The inputs are not needed while the four planes are written.
    del sci, wgt, msk
    write_nullwt(target, planes, header)
    return planes
