"""Cut-outs of many objects in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError
from balrogutils.meds.objects import NoSuchCutout, Objects, Places
from balrogutils.meds.pixels import PixelHDU
from balrogutils.meds.stamps import Stamps

__all__ = ["ObjectBlock"]

Array = NDArray[Any]
I64 = NDArray[np.int64]


def _runs(places: Places) -> tuple[list[tuple[int, int]], I64]:
    """Return the ranges of pixels that hold cut-outs, and where in their concatenation each cut-out is."""
    start, end = places.start[places.used], (places.start + places.size)[places.used]
    address = np.full(places.start.shape, -1, np.int64)
    if start.size == 0:
        return [], address
    order = np.argsort(start, kind="stable")
    first, last = start[order], np.maximum.accumulate(end[order])
    new = np.append(True, first[1:] > last[:-1])
    begins, ends = first[new], last[np.append(new[1:], True)]
    base = np.cumsum(ends - begins) - (ends - begins)
    flat = np.empty(start.size, np.int64)
    run = np.cumsum(new) - 1
    flat[order] = first - begins[run] + base[run]
    address[places.used] = flat
    return list(zip(begins.tolist(), ends.tolist(), strict=True)), address


class ObjectBlock(Stamps):
    """Cut-outs of some objects of a file, read at once.

    It answers to the names of `MEDS` for the objects it holds, which keep their numbers. Stamps and mosaics are views:
    who changes one changes the block.

    Attributes
    ----------
    rows : ndarray of int64
        The objects.
    pixels : dict of str to ndarray
        The pixels of each plane.
    """

    def __init__(self, objects: Objects, rows: I64, planes: Sequence[str], hdu: Callable[[str], PixelHDU]) -> None:
        self.objects, self.rows = objects, rows
        self._index = {row: index for index, row in enumerate(rows.tolist())}
        self.pixels: dict[str, Array] = {}
        self._address: dict[str, I64] = {}
        # Stamps lie at the same places in all planes but that of the PSF.
        shared: dict[bool, tuple[list[tuple[int, int]], I64]] = {}
        for kind in planes:
            if (kind == "psf") not in shared:
                shared[kind == "psf"] = _runs(objects.places(rows, kind))
            runs, self._address[kind] = shared[kind == "psf"]
            plane = hdu(kind)
            parts = [plane.read(first, last) for first, last in runs]
            self.pixels[kind] = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, plane.dtype), *parts])

    def _at(self, iobj: int, type: str) -> I64:
        if iobj not in self._index:
            raise NoSuchCutout(
                f"object {iobj} is not among the {len(self.rows)} objects of this block", file=self.objects.path
            )
        if type not in self.pixels:
            raise ProductError(f"the block was read without {type}", file=self.objects.path, key=type)
        addresses: I64 = self._address[type][self._index[iobj]]
        return addresses

    def get_cutout(self, iobj: int, icutout: int, type: str = "image") -> Array:
        """Return a view of one cut-out, shape (box, box); for ``psf`` of its own shape."""
        addresses = self._at(iobj, type)
        self.objects.check(iobj, icutout)
        rows, cols = self.objects.shape(iobj, icutout, type)
        start = int(addresses[icutout])
        return self.pixels[type][start : start + rows * cols].reshape(rows, cols)

    stamp = get_cutout

    def get_mosaic(self, iobj: int, type: str = "image") -> Array:
        """Return all stamps of an object below each other, shape (ncutout box, box)."""
        if type == "psf":
            raise NoSuchCutout("PSF stamps may differ in size and have no mosaic", file=self.objects.path, key=type)
        addresses = self._at(iobj, type)
        count = self.objects.cutouts(iobj)
        if count == 0:
            return np.empty((0, self.objects.box(iobj)), self.pixels[type].dtype)
        rows, cols = self.objects.shape(iobj, 0, type)
        first = int(addresses[0])
        # What is one run in the file is one run here.
        if self.objects.contiguous[iobj]:
            return self.pixels[type][first : first + count * rows * cols].reshape(count * rows, cols)
        return np.vstack([self.get_cutout(iobj, icutout, type) for icutout in range(count)])

    def flat(self, type: str) -> Array:
        """Return the pixels of a plane, stamp after stamp in the order of rows and slots; a view where it can be."""
        addresses = self._address[type]
        used = addresses >= 0
        sizes = self.objects.places(self.rows, type).size[used]
        starts = np.cumsum(sizes) - sizes
        if np.array_equal(addresses[used], starts) and len(self.pixels[type]) == sizes.sum():
            return self.pixels[type]
        parts = [self.pixels[type][a : a + n] for a, n in zip(addresses[used].tolist(), sizes.tolist(), strict=True)]
        return np.concatenate([self.pixels[type][:0], *parts])
