"""One HDU of concatenated stamps: ranges of its pixels, straight from the file where it is not packed."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError

__all__ = ["PixelHDU"]

Array = NDArray[Any]

# FITS type codes of images whose pixels are their bytes.
_TYPES = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}
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

    Raises
    ------
    ProductError
        When the HDU is no image of one axis.

    Notes
    -----
    cfitsio goes through blocks of 2880 bytes; of an HDU that is not packed a range is one read and one swap of bytes.
    """

    def __init__(self, hdu: Any, path: str, descriptor: int | None) -> None:
        self._hdu, self._path = hdu, path
        self.name: str = hdu.get_extname()
        info = hdu.get_info()
        if info.get("ndims") != 1:
            raise self._damaged("is not an image of one axis")
        self.size = int(info["dims"][0])
        self.dtype: np.dtype[Any] = np.dtype(_TYPES.get(info["img_equiv_type"], "f4"))
        header = hdu.read_header()
        plain = not info["is_compressed_image"] and info["img_type"] == info["img_equiv_type"]
        unscaled = header.get("BSCALE", 1) == 1 and header.get("BZERO", 0) == 0
        if descriptor is not None and plain and unscaled and info["img_type"] in _TYPES:
            self._offset: int | None = hdu.get_offsets()["data_start"]
            self._descriptor = descriptor
        else:
            self._offset = None

    def _damaged(self, what: str) -> ProductError:
        return ProductError(f"{self.name} {what}", file=self._path, key=self.name, remedy=_REMEDY)

    def read(self, first: int, last: int) -> Array:
        """Return pixels ``first <= i < last`` in native byte order, an array of the caller's own.

        Raises
        ------
        ProductError
            When the HDU does not have them, or they cannot be read.
        """
        if not 0 <= first <= last <= self.size:
            raise self._damaged(f"has {self.size} pixels, the table speaks of {first} to {last - 1}")
        if first == last:
            return np.empty(0, self.dtype)
        if self._offset is not None:
            return self._read_bytes(self._offset + first * self.dtype.itemsize, last - first)
        try:
            pixels: Array = self._hdu[first:last]
        except (OSError, ValueError) as error:
            raise self._damaged(f"cannot be read: {error}") from error
        return pixels

    def _read_bytes(self, offset: int, count: int) -> Array:
        pixels = np.empty(count, self.dtype)
        room = pixels.data.cast("B")
        while room:
            # One read gives at most 2 GiB.
            done = os.preadv(self._descriptor, [room], offset)
            if done == 0:
                raise self._damaged("cannot be read: the file is cut short")
            room, offset = room[done:], offset + done
        if sys.byteorder == "little":
            pixels.byteswap(inplace=True)
        return pixels
