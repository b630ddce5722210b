"""Image HDUs read in parts, straight from the file where they are not packed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError

__all__ = ["PixelHDU", "is_plain", "open_image"]

Array = NDArray[Any]

# FITS type codes of images whose pixels are their bytes.
_TYPES = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}
# Pixels of a part of an image: their doubles fit into a cache.
_CHUNK = 1 << 16
_REMEDY = "make the file anew"


class PixelHDU:
    """The pixels of one image HDU.

    Parameters
    ----------
    hdu : fitsio HDU
        The HDU.
    path : str
        The file.
    descriptor : int, optional
        File descriptor of a file that may be read without cfitsio.

    Attributes
    ----------
    shape : tuple of int
        Shape of the image, last axis fastest.
    dtype : numpy dtype
        What reading gives.

    Notes
    -----
    cfitsio goes through blocks of 2880 bytes; of an HDU that is not packed a range is one read and one swap of bytes.
    """

    def __init__(self, hdu: Any, path: str, descriptor: int | None) -> None:
        self._hdu, self._path = hdu, path
        self.name: str = hdu.get_extname()
        info = hdu.get_info()
        self.shape = tuple(int(side) for side in info.get("dims", ()))
        self.dtype: np.dtype[Any] = np.dtype(_TYPES.get(info.get("img_equiv_type"), "f4"))
        header = hdu.read_header()
        plain = not info.get("is_compressed_image") and info.get("img_type") == info.get("img_equiv_type")
        unscaled = header.get("BSCALE", 1) == 1 and header.get("BZERO", 0) == 0
        if descriptor is not None and plain and unscaled and info.get("img_type") in _TYPES:
            self._offset: int | None = hdu.get_offsets()["data_start"]
            self._descriptor = descriptor
        else:
            self._offset = None

    def _damaged(self, what: str) -> ProductError:
        return ProductError(f"{self.name} {what}", file=self._path, key=self.name, remedy=_REMEDY)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(np.prod(self.shape, dtype=np.int64)) if self.shape else 0

    def read(self, first: int, last: int) -> Array:
        """Return pixels ``first <= i < last`` of an image of one axis in native byte order.

        Raises
        ------
        ProductError
            When the HDU does not have them, or they cannot be read.
        """
        if not 0 <= first <= last <= self.size:
            raise self._damaged(f"has {self.size} pixels, the table speaks of {first} to {last - 1}")
        if first == last:
            return np.empty(0, self.dtype)
        return self._range(slice(first, last), first, last - first)

    def read_rows(self, first: int, last: int, *, native: bool = True) -> Array:
        """Return rows ``first <= i < last`` of an image of two axes; if not `native`, in the byte order of the file."""
        cols = self.shape[1]
        part = (slice(first, last), slice(0, cols))
        return self._range(part, first * cols, (last - first) * cols, native).reshape(last - first, cols)

    def chunks(self, first: int, last: int) -> Iterator[Array]:
        """Yield rows ``first <= i < last`` of an image of two axes in parts that fit into a processor's cache.

        The pixels come in any byte order: numpy converts to another type as fast as it swaps.
        """
        rows = max(1, _CHUNK // self.shape[1])
        # A packed image is unpacked at once: its tiles may span more rows.
        whole = None if self._offset is not None else self.read_rows(first, last)
        for row in range(first, last, rows):
            end = min(row + rows, last)
            yield self.read_rows(row, end, native=False) if whole is None else whole[row - first : end - first]

    def _range(self, part: slice | tuple[slice, slice], first: int, count: int, native: bool = True) -> Array:
        if self._offset is not None:
            return self._read_bytes(self._offset + first * self.dtype.itemsize, count, native)
        try:
            pixels: Array = self._hdu[part]
        except (OSError, ValueError) as error:
            raise self._damaged(f"cannot be read: {error}") from error
        return pixels

    def _read_bytes(self, offset: int, count: int, native: bool) -> Array:
        pixels = np.empty(count, self.dtype)
        room = pixels.data.cast("B")
        while room:
            # One read gives at most 2 GiB.
            done = os.preadv(self._descriptor, [room], offset)
            if done == 0:
                raise self._damaged("cannot be read: the file is cut short")
            room, offset = room[done:], offset + done
        if not native:
            return pixels.view(self.dtype.newbyteorder(">"))
        if sys.byteorder == "little":
            pixels.byteswap(inplace=True)
        return pixels


@contextmanager
def open_image(path: str | os.PathLike[str], ext: str | int) -> Iterator[PixelHDU]:
    """Open one image HDU of a file for reading in parts.

    Raises
    ------
    ProductError
        When the file or HDU is missing, damaged or not an image.
    """
    name = os.fspath(path)
    try:
        fits = fitsio.FITS(name)
    except (OSError, ValueError) as error:
        what = "cannot be opened: " + str(error) if Path(name).exists() else "is not there"
        raise ProductError(f"a FITS file {what}", file=name) from error
    with fits:
        try:
            hdu = fits[ext]
        except (OSError, IndexError, KeyError) as error:
            raise ProductError(f"a FITS file has no HDU {ext!r}", file=name, key=str(ext)) from error
        if hdu.get_exttype() != "IMAGE_HDU":
            raise ProductError(f"HDU {ext!r} is a table, not an image", file=name, key=str(ext))
        descriptor = os.open(name, os.O_RDONLY)
        try:
            yield PixelHDU(hdu, name, descriptor if is_plain(descriptor) else None)
        finally:
            os.close(descriptor)


def is_plain(descriptor: int) -> bool:
    """Return whether an open file holds FITS as it is, and not, for example, gzipped FITS that cfitsio unpacks."""
    return os.pread(descriptor, 6, 0) == b"SIMPLE"
