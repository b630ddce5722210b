"""Reading MEDS files: ours, those of the original maker, and those GalSim writes; plain or packed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import fitsio
import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.errors import ProductError
from balrogutils.meds.block import ObjectBlock
from balrogutils.meds.objects import NoSuchCutout, Objects
from balrogutils.meds.pixels import PixelHDU, is_plain
from balrogutils.meds.stamps import Stamps

__all__ = ["HDUS", "MEDS", "ObjectBlock"]

HDUS = {
    "image": "image_cutouts",
    "weight": "weight_cutouts",
    "seg": "seg_cutouts",
    "bmask": "bmask_cutouts",
    "ormask": "ormask_cutouts",
    "noise": "noise_cutouts",
    "mfrac": "mfrac_cutouts",
    "psf": "psf",
}
_WHOLE = ("seg", "bmask", "ormask")
_REQUIRED_INFO = ("image_path", "image_ext", "image_id", "image_flags", "magzp", "scale")
_REMEDY = "make the file anew"
_PLANES = ("image", "weight", "seg", "bmask")

Array = NDArray[Any]


class MEDS(Stamps):
    """A MEDS file.

    Parameters
    ----------
    path : path-like
        The file, plain or packed.

    Raises
    ------
    ProductError
        When it is missing or cut short, or lacks a table or column that every MEDS file has.

    Notes
    -----
    The methods have the names and arguments users know from the original reader (M 1.9). HDUs are found by name. Open
    the file in each process that reads it: cfitsio's place in a file is shared by the children of a process.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        if not Path(self.path).is_file():
            raise ProductError("a MEDS file is not there", file=self.path)
        try:
            self._fits = fitsio.FITS(self.path)
        except (OSError, ValueError) as error:
            said = str(error).strip().partition("\n")[0]
            raise ProductError(f"a MEDS file cannot be opened: {said}", file=self.path) from error
        self._descriptor: int | None = None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY)
        self._descriptor = descriptor
        self._names = {hdu.get_extname().lower() for hdu in self._fits}
        self._pixels: dict[str, PixelHDU] = {}
        self._raw = is_plain(descriptor)
        ends = [(hdu.get_offsets()["data_end"], hdu.get_extname() or "the first HDU") for hdu in self._fits]
        end, name = max(ends)
        if self._raw and os.fstat(descriptor).st_size < end:
            raise ProductError(
                f"a MEDS file is cut short: {name} ends at byte {end}, the file at {os.fstat(descriptor).st_size}",
                file=self.path,
                key=name,
                remedy=_REMEDY,
            )
        self.objects = Objects(self._table("object_data"), self.path)
        self._info = self._table("image_info")
        self._meta = self._table("metadata")
        if "image_cutouts" not in self._names:
            raise self._not_meds("image_cutouts")
        for column in _REQUIRED_INFO:
            if column not in (self._info.dtype.names or ()):
                raise ProductError(f"image_info lacks {column}", file=self.path, key=column, remedy=_REMEDY)

    def _not_meds(self, name: str) -> ProductError:
        return ProductError(f"not a MEDS file: there is no {name}", file=self.path, key=name, remedy=_REMEDY)

    def _table(self, name: str) -> Array:
        if name not in self._names:
            raise self._not_meds(name)
        hdu = self._fits[name]
        if hdu.get_exttype() == "IMAGE_HDU":
            raise ProductError(f"{name} is an image, not a table", file=self.path, key=name, remedy=_REMEDY)
        try:
            rows: Array = hdu.read(lower=True)
        except (OSError, ValueError) as error:
            raise ProductError(f"{name} cannot be read: {error}", file=self.path, key=name, remedy=_REMEDY) from error
        return rows.astype(rows.dtype.newbyteorder("="), copy=False)

    def __enter__(self) -> MEDS:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._fits.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __getitem__(self, name: str) -> Array:
        """Return a column of ``object_data``."""
        column: Array = self.objects.rows[name]
        return column

    def __repr__(self) -> str:
        return f"MEDS({self.path!r}): {self.size} objects, {len(self._info)} images"

    @property
    def types(self) -> tuple[str, ...]:
        """Cut-out types the file holds."""
        return tuple(kind for kind, hdu in HDUS.items() if hdu in self._names and (kind != "psf" or self.has_psf()))

    def has_psf(self) -> bool:
        """Return whether PSF stamps are stored."""
        return "psf" in self._names and self.objects.has_psf

    # tables

    def get_cat(self) -> Array:
        """Return ``object_data``."""
        return self.objects.rows

    def get_image_info(self) -> Array:
        """Return ``image_info``."""
        return self._info

    def get_meta(self) -> Array:
        """Return ``metadata``."""
        return self._meta

    def get_psf_info(self) -> Array | None:
        """Return ``psf_info``, or None where there is none."""
        return self._table("psf_info") if "psf_info" in self._names else None

    def get_source_info(self, iobj: int, icutout: int) -> Any:
        """Return the ``image_info`` row of a cut-out.

        Raises
        ------
        ProductError
            When ``file_id`` names no row.
        """
        self.objects.check(iobj, icutout)
        file_id = int(self.objects.column("file_id")[iobj, icutout])
        if len(self._info) == 1:
            # GalSim's writer numbers its only image 1.
            return self._info[0]
        if not 0 <= file_id < len(self._info):
            raise ProductError(
                f"cut-out {icutout} of object {iobj} has file_id {file_id}, image_info has {len(self._info)} rows",
                file=self.path,
                key="file_id",
                remedy=_REMEDY,
            )
        return self._info[file_id]

    def get_source_path(self, iobj: int, icutout: int) -> str:
        """Return the path of the image a cut-out comes from."""
        return _text(self.get_source_info(iobj, icutout)["image_path"])

    def get_wcs_cards(self, iobj: int, icutout: int) -> dict[str, Any] | None:
        """Return the header of a cut-out's image with lower-case keys, or None in files without a wcs column."""
        if "wcs" not in (self._info.dtype.names or ()):
            return None
        text = _text(self.get_source_info(iobj, icutout)["wcs"]).strip()
        try:
            cards: dict[str, Any] | None = json.loads(text) if text else None
        except json.JSONDecodeError as error:
            raise ProductError(
                f"the wcs of cut-out {icutout} of object {iobj} is not JSON: {error}", file=self.path, key="wcs"
            ) from error
        return cards

    # pixels

    def _plane(self, kind: str) -> PixelHDU:
        if kind in self._pixels:
            return self._pixels[kind]
        if kind not in HDUS:
            raise NoSuchCutout(f"unknown cut-out type {kind!r}; known: {' '.join(HDUS)}", file=self.path, key=kind)
        if kind not in self.types:
            what = "PSF stamps" if kind == "psf" else f"{kind} cut-outs"
            raise NoSuchCutout(f"the file has no {what}", file=self.path, key=kind)
        plane = PixelHDU(self._fits[HDUS[kind]], self.path, self._descriptor if self._raw else None)
        if len(plane.shape) != 1:
            raise ProductError(f"{HDUS[kind]} is no image of one axis", file=self.path, key=kind, remedy=_REMEDY)
        if kind in _WHOLE and plane.dtype.kind not in "iu":
            raise ProductError(
                f"{HDUS[kind]} holds {plane.dtype.name}, not whole numbers", file=self.path, key=kind, remedy=_REMEDY
            )
        self._pixels[kind] = plane
        return plane

    def dtype_of(self, type: str) -> np.dtype[Any]:
        """Return the numpy type of the pixels of a cut-out type."""
        return self._plane(type).dtype

    def get_cutout(self, iobj: int, icutout: int, type: str = "image") -> Array:
        """Return one stamp.

        Parameters
        ----------
        iobj, icutout : int
            Row of the object and slot; slot 0 is the coadd.
        type : str
            ``image weight seg bmask ormask noise mfrac psf``.

        Returns
        -------
        ndarray, shape (box, box)
        """
        plane = self._plane(type)
        first, shape = self.objects.extent(iobj, icutout, type)
        return plane.read(first, first + shape[0] * shape[1]).reshape(shape)

    def get_mosaic(self, iobj: int, type: str = "image") -> Array:
        """Return all stamps of an object below each other, shape (ncutout box, box)."""
        if type == "psf":
            raise NoSuchCutout("PSF stamps may differ in size and have no mosaic", file=self.path, key=type)
        plane, count = self._plane(type), self.objects.cutouts(iobj)
        if count == 0:
            return np.empty((0, self.objects.box(iobj)), plane.dtype)
        first, (rows, cols) = self.objects.extent(iobj, 0, type)
        if self.objects.contiguous[iobj]:
            return plane.read(first, first + count * rows * cols).reshape(count * rows, cols)
        return np.vstack([self.get_cutout(iobj, icutout, type) for icutout in range(count)])

    def read_objects(self, start: int, stop: int, planes: Sequence[str] = _PLANES) -> ObjectBlock:
        """Read the cut-outs of objects ``start <= i < stop``, of most files with one read per plane.

        Parameters
        ----------
        start, stop : int
            Range of objects.
        planes : sequence of str
            Cut-out types, ``psf`` among them when wanted.

        Returns
        -------
        ObjectBlock
            Its `get_cutout` gives views without reading again.

        Raises
        ------
        NoSuchCutout
            When the objects are not all in the file.
        """
        if not 0 <= start < stop <= self.size:
            raise NoSuchCutout(
                f"objects {start} to {stop - 1} are not all in the file, which has {self.size}", file=self.path
            )
        return self.read_rows(np.arange(start, stop), planes)

    def read_rows(self, rows: ArrayLike, planes: Sequence[str] = _PLANES) -> ObjectBlock:
        """Read the cut-outs of the objects named; stamps that touch in the file are read at once.

        Parameters
        ----------
        rows : array_like of int, shape (n,)
            The objects, in any order.
        planes : sequence of str
            As in `read_objects`.
        """
        which = np.atleast_1d(np.asarray(rows, np.int64))
        bad = which[(which < 0) | (which >= self.size)]
        if bad.size:
            raise NoSuchCutout(f"there is no object {bad[0]}: the file has {self.size}", file=self.path)
        return ObjectBlock(self.objects, which, planes, self._plane)

    def blocks(
        self, planes: Sequence[str] = _PLANES, start: int = 0, stop: int | None = None, pixels: int = 1 << 22
    ) -> Iterator[ObjectBlock]:
        """Yield consecutive objects in blocks of bounded size.

        Parameters
        ----------
        planes : sequence of str
            As in `read_objects`.
        start, stop : int
            Range of objects; `stop` is the end of the file when not given.
        pixels : int
            Pixels of a plane in one block; an object with more comes alone.
        """
        last = self.size if stop is None else stop
        if not 0 <= start <= last <= self.size:
            raise NoSuchCutout(
                f"objects {start} to {last - 1} are not all in the file, which has {self.size}", file=self.path
            )
        side = self.objects.rows["box_size"].astype(np.int64)
        total = np.cumsum(self.objects.rows["ncutout"] * side**2)
        while start < last:
            before = int(total[start - 1]) if start else 0
            end = min(max(start + 1, int(np.searchsorted(total, before + pixels, side="right"))), last)
            yield self.read_objects(start, end, planes)
            start = end


def _text(value: bytes | str) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
