"""Parts of MEDS files: a range of objects as a MEDS file of its own."""

from __future__ import annotations

import os

import fitsio
import numpy as np

from balrogutils.fitsfile import checksum
from balrogutils.meds.cutouts import FILL
from balrogutils.meds.reader import HDUS, MEDS
from balrogutils.products import writing

__all__ = ["extract_range"]


def extract_range(source: str | os.PathLike[str], target: str | os.PathLike[str], start: int, end: int) -> None:
    """Write objects `start` to `end`, both included, to an uncompressed MEDS file.

    Parameters
    ----------
    source : path-like
        A MEDS file, plain or packed.
    target : path-like
        Final name; appears only when whole.
    start, end : int
        First and last row, zero-based.

    Raises
    ------
    IndexError
        When the rows are not in the file.
    ProductError
        When `source` is no MEDS file.
    """
    with MEDS(source) as meds:
        planes = [kind for kind in meds.types if kind != "psf" or meds.has_psf()]
        block = meds.read_objects(start, end + 1, planes)
        rows = meds.get_cat()[start : end + 1].copy()
        for column, kind in (("start_row", "image"), ("psf_start_row", "psf")):
            if kind in block.pixels and column in (rows.dtype.names or ()):
                used = np.arange(rows[column].shape[1]) < rows["ncutout"][:, np.newaxis]
                rows[column] = np.where(used, rows[column] - block.pixels[kind][0], FILL)
        with writing(target) as part, fitsio.FITS(str(part), "rw", clobber=True) as fits:
            fits.write(None)
            fits.write_table(rows, extname="object_data")
            fits.write_table(meds.get_image_info(), extname="image_info")
            fits.write_table(meds.get_meta(), extname="metadata")
            for kind, (_, pixels) in block.pixels.items():
                # An image HDU cannot be empty.
                fits.write(pixels if pixels.size else np.zeros(2, np.float32), extname=HDUS[kind])
            info = meds.get_psf_info()
            if info is not None:
                fits.write_table(info, extname="psf_info")
            for hdu in fits:
                checksum(hdu)
