"""Parts of MEDS files: some of the objects as a MEDS file of its own."""

from __future__ import annotations

import os

import fitsio
import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.errors import ProductError
from balrogutils.fitsfile import checksum
from balrogutils.meds.cutouts import FILL
from balrogutils.meds.objects import NoSuchCutout
from balrogutils.meds.reader import HDUS, MEDS
from balrogutils.products import writing

__all__ = ["extract_numbers", "extract_range"]

_PIXELS = 1 << 22
_EMPTY_PIXELS = 2


def extract_range(source: str | os.PathLike[str], start: int, end: int, target: str | os.PathLike[str]) -> None:
    """Write objects `start` to `end`, both included, to an uncompressed MEDS file.

    Parameters
    ----------
    source : path-like
        A MEDS file, plain or packed.
    start, end : int
        First and last row, zero-based.
    target : path-like
        Final name; appears only when whole.

    Raises
    ------
    NoSuchCutout
        When the rows are not in the file.
    ProductError
        When `source` is no MEDS file, or is `target`.

    Notes
    -----
    Memory is bounded: a few million pixels of one plane are held at a time.
    """
    with MEDS(source) as meds:
        if not 0 <= start <= end < meds.size:
            raise NoSuchCutout(
                f"objects {start} to {end} are not all in the file, which has {meds.size}", file=meds.path
            )
        _extract(meds, np.arange(start, end + 1), target)


def extract_numbers(source: str | os.PathLike[str], numbers: ArrayLike, target: str | os.PathLike[str]) -> None:
    """Write the objects of the given numbers, in the order of the file, to an uncompressed MEDS file.

    Parameters
    ----------
    source, target : path-like
        As in `extract_range`.
    numbers : array_like of int
        Values of the number column; a file without it counts its rows from 1.

    Raises
    ------
    NoSuchCutout
        When a number is not in the file.
    ProductError
        As in `extract_range`.
    """
    wanted = np.unique(np.asarray(numbers, np.int64))
    with MEDS(source) as meds:
        own = meds["number"] if "number" in meds.objects.names else np.arange(1, meds.size + 1)
        absent = np.setdiff1d(wanted, own)
        if absent.size:
            raise NoSuchCutout(f"no object has number {absent[0]}", file=meds.path, key="number")
        _extract(meds, np.flatnonzero(np.isin(own, wanted)), target)


def _extract(meds: MEDS, which: NDArray[np.int64], target: str | os.PathLike[str]) -> None:
    if os.path.realpath(target) == os.path.realpath(meds.path):
        raise ProductError("a MEDS file cannot be extracted onto itself", file=meds.path, remedy="name another target")
    rows = meds.get_cat()[which].copy()
    if "number" not in meds.objects.names:
        # Without the column the label is the row, which changes.
        numbered = np.zeros(len(rows), [*rows.dtype.descr, ("number", "i8")])
        for name in meds.objects.names:
            numbered[name] = rows[name]
        numbered["number"] = which + 1
        rows = numbered
    lengths = {}
    for kind in meds.types:
        places = meds.objects.places(which, kind)
        ends = np.cumsum(places.size.ravel()).reshape(places.size.shape)
        lengths[kind] = int(ends[-1, -1]) if ends.size else 0
        if kind in ("image", "psf"):
            column = "start_row" if kind == "image" else "psf_start_row"
            rows[column] = np.where(places.used, ends - places.size, FILL).reshape(rows[column].shape)
    with writing(target) as part, fitsio.FITS(str(part), "rw", clobber=True) as fits:
        fits.write(None)
        fits.write_table(rows, extname="object_data")
        fits.write_table(meds.get_image_info(), extname="image_info")
        fits.write_table(meds.get_meta(), extname="metadata")
        for kind, length in lengths.items():
            # An image HDU cannot be empty; readers of the format expect two elements then.
            fits.create_image_hdu(
                dims=[max(length, _EMPTY_PIXELS)], dtype=meds.dtype_of(kind).str[1:], extname=HDUS[kind]
            )
            _copy(meds, which, kind, fits[-1])
        info = meds.get_psf_info()
        if info is not None:
            fits.write_table(info, extname="psf_info")
        for hdu in fits:
            checksum(hdu)


def _copy(meds: MEDS, which: NDArray[np.int64], kind: str, hdu: fitsio.hdu.ImageHDU) -> None:
    """Write the pixels of one plane, part after part."""
    total = np.cumsum(meds.objects.places(which, kind).size.sum(axis=1))
    done = first = 0
    while first < len(which):
        last = max(first + 1, int(np.searchsorted(total, done + _PIXELS, side="right")))
        pixels = meds.read_rows(which[first:last], [kind]).flat(kind)
        if pixels.size:
            hdu.write(pixels, start=done)
        done, first = int(total[last - 1]), last
