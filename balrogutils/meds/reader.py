"""Reading MEDS files: ours, those of the original maker, and those GalSim writes; plain or packed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError
from balrogutils.meds import weights

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
_JACOBIAN = ("dudrow", "dudcol", "dvdrow", "dvdcol")
_REQUIRED_INFO = ("image_path", "image_ext", "image_id", "image_flags", "magzp", "scale")

Array = NDArray[Any]


class ObjectBlock:
    """Cut-outs of consecutive objects, read with one slice per plane.

    Attributes
    ----------
    start, stop : int
        Objects ``start <= i < stop``.
    pixels : dict of str to (int, ndarray)
        For each plane the flat offset of its first pixel in the file, and the pixels.
    """

    def __init__(self, meds: MEDS, start: int, stop: int, pixels: dict[str, tuple[int, Array]]) -> None:
        self._meds, self.start, self.stop, self.pixels = meds, start, stop, pixels

    def stamp(self, iobj: int, icutout: int, type: str = "image") -> Array:
        """Return a view of one cut-out, shape (box, box); for ``psf`` of its own shape."""
        if not self.start <= iobj < self.stop:
            raise IndexError(f"object {iobj} is not in the block {self.start} to {self.stop - 1}")
        if type not in self.pixels:
            raise ProductError(f"the block was read without {type}", file=self._meds.path, key=type)
        first, shape = self._meds._extent(iobj, icutout, type)
        base, flat = self.pixels[type]
        return flat[first - base : first - base + shape[0] * shape[1]].reshape(shape)


class MEDS:
    """A MEDS file.

    Parameters
    ----------
    path : path-like
        The file, plain or packed.

    Raises
    ------
    ProductError
        When it is missing, or lacks a table or column that every MEDS file has.

    Notes
    -----
    The methods have the names and arguments users know from the original reader. HDUs are found by name.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        if not Path(self.path).exists():
            raise ProductError("a MEDS file is not there", file=self.path)
        try:
            self._fits = fitsio.FITS(self.path)
        except OSError as error:
            raise ProductError(f"a MEDS file cannot be opened: {error}", file=self.path) from error
        self._names = {hdu.get_extname().lower() for hdu in self._fits}
        try:
            self._cat = self._table("object_data")
            self._info = self._table("image_info")
            self._meta = self._table("metadata")
            self._check()
        except BaseException:
            self._fits.close()
            raise

    def _table(self, name: str) -> Array:
        if name not in self._names:
            raise ProductError(f"not a MEDS file: there is no {name}", file=self.path, key=name)
        rows: Array = self._fits[name].read(lower=True)
        return rows.astype(rows.dtype.newbyteorder("="))

    def _check(self) -> None:
        if "image_cutouts" not in self._names:
            raise ProductError("not a MEDS file: there is no image_cutouts", file=self.path, key="image_cutouts")
        for column in ("id", "box_size", "ncutout", "file_id", "start_row", "cutout_row", "cutout_col", *_JACOBIAN):
            if column not in (self._cat.dtype.names or ()):
                raise ProductError(f"object_data lacks {column}", file=self.path, key=column)
        for column in _REQUIRED_INFO:
            if column not in (self._info.dtype.names or ()):
                raise ProductError(f"image_info lacks {column}", file=self.path, key=column)

    def __enter__(self) -> MEDS:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._fits.close()

    def __getitem__(self, name: str) -> Array:
        """Return a column of ``object_data``."""
        column: Array = self._cat[name]
        return column

    def __repr__(self) -> str:
        return f"MEDS({self.path!r}): {self.size} objects, {len(self._info)} images"

    @property
    def size(self) -> int:
        """Number of objects."""
        return len(self._cat)

    @property
    def types(self) -> tuple[str, ...]:
        """Cut-out types the file holds."""
        return tuple(kind for kind, hdu in HDUS.items() if hdu in self._names)

    def has_psf(self) -> bool:
        """Return whether PSF stamps are stored."""
        return "psf" in self._names and "psf_start_row" in (self._cat.dtype.names or ())

    # tables

    def get_cat(self) -> Array:
        """Return ``object_data``."""
        return self._cat

    def get_image_info(self) -> Array:
        """Return ``image_info``."""
        return self._info

    def get_meta(self) -> Array:
        """Return ``metadata``."""
        return self._meta

    def get_psf_info(self) -> Array | None:
        """Return ``psf_info``, or None where there is none."""
        return self._table("psf_info") if "psf_info" in self._names else None

    def get_number(self, iobj: int) -> int:
        """Return the object's label in the coadd segmentation; the row number + 1 in files without a number column."""
        self._check_object(iobj)
        return int(self._cat["number"][iobj]) if "number" in (self._cat.dtype.names or ()) else iobj + 1

    def get_source_info(self, iobj: int, icutout: int) -> Any:
        """Return the ``image_info`` row of a cut-out."""
        self._check_cutout(iobj, icutout)
        file_id = int(self._cat["file_id"][iobj, icutout])
        # GalSim's writer numbers its only image 1.
        return self._info[file_id if file_id < len(self._info) else len(self._info) - 1]

    def get_source_path(self, iobj: int, icutout: int) -> str:
        """Return the path of the image a cut-out comes from."""
        return _text(self.get_source_info(iobj, icutout)["image_path"])

    def get_wcs_cards(self, iobj: int, icutout: int) -> dict[str, Any] | None:
        """Return the header of a cut-out's image with lower-case keys, or None in files without a wcs column."""
        if "wcs" not in (self._info.dtype.names or ()):
            return None
        text = _text(self.get_source_info(iobj, icutout)["wcs"]).strip()
        cards: dict[str, Any] | None = json.loads(text) if text else None
        return cards

    # pixels

    def _check_object(self, iobj: int) -> None:
        if not 0 <= iobj < self.size:
            raise IndexError(f"there is no object {iobj}: {self.path} has {self.size}")

    def _check_cutout(self, iobj: int, icutout: int) -> None:
        self._check_object(iobj)
        if not 0 <= icutout < self._cat["ncutout"][iobj]:
            raise IndexError(
                f"object {iobj} of {self.path} has {self._cat['ncutout'][iobj]} cut-outs, there is no {icutout}"
            )

    def _hdu(self, kind: str) -> Any:
        if kind not in HDUS:
            raise ValueError(f"unknown cut-out type {kind!r}; known: {' '.join(HDUS)}")
        if HDUS[kind] not in self._names:
            raise ProductError(f"the file has no {kind} cut-outs", file=self.path, key=kind)
        return self._fits[HDUS[kind]]

    def _psf_shape(self, iobj: int, icutout: int) -> tuple[int, int]:
        columns = self._cat.dtype.names or ()
        if "psf_row_size" in columns:
            return int(self._cat["psf_row_size"][iobj, icutout]), int(self._cat["psf_col_size"][iobj, icutout])
        side = self._cat["psf_box_size"][iobj]
        side = int(side[icutout] if np.ndim(side) else side)
        return side, side

    def _extent(self, iobj: int, icutout: int, kind: str) -> tuple[int, tuple[int, int]]:
        """Return flat offset and shape of one cut-out."""
        self._check_cutout(iobj, icutout)
        if kind == "psf":
            if not self.has_psf():
                raise ProductError("the file has no PSF stamps", file=self.path, key="psf")
            return int(self._cat["psf_start_row"][iobj, icutout]), self._psf_shape(iobj, icutout)
        box = int(self._cat["box_size"][iobj])
        return int(self._cat["start_row"][iobj, icutout]), (box, box)

    def _slice(self, kind: str, first: int, last: int) -> Array:
        flat: Array = self._hdu(kind)[first:last]
        return flat

    def get_cutout(self, iobj: int, icutout: int, type: str = "image") -> Array:
        """Return one stamp.

        Parameters
        ----------
        iobj, icutout : int
            Row of the object and slot; slot 0 is the coadd.
        type : str
            ``image weight seg bmask ormask noise psf``.

        Returns
        -------
        ndarray, shape (box, box)
        """
        first, shape = self._extent(iobj, icutout, type)
        return self._slice(type, first, first + shape[0] * shape[1]).reshape(shape)

    def get_mosaic(self, iobj: int, type: str = "image") -> Array:
        """Return all stamps of an object below each other, shape (ncutout box, box)."""
        self._check_object(iobj)
        count = int(self._cat["ncutout"][iobj])
        if count == 0:
            return np.zeros((0, int(self._cat["box_size"][iobj])), dtype=np.float32)
        first, (rows, cols) = self._extent(iobj, 0, type)
        return self._slice(type, first, first + count * rows * cols).reshape(count * rows, cols)

    def get_cutout_list(self, iobj: int, type: str = "image") -> list[Array]:
        """Return the stamps of an object, read at once."""
        if type == "psf":
            return self.get_psf_list(iobj)
        count = int(self._cat["ncutout"][iobj])
        return list(np.split(self.get_mosaic(iobj, type), count)) if count else []

    def get_psf(self, iobj: int, icutout: int) -> Array:
        """Return the PSF stamp of a cut-out."""
        return self.get_cutout(iobj, icutout, "psf")

    def get_psf_list(self, iobj: int) -> list[Array]:
        """Return the PSF stamps of an object."""
        self._check_object(iobj)
        return [self.get_psf(iobj, icutout) for icutout in range(int(self._cat["ncutout"][iobj]))]

    def get_psf_rowcol(self, iobj: int, icutout: int) -> tuple[float, float]:
        """Return the PSF's centre in its stamp; the middle pixel in files that do not say."""
        rows, cols = self._psf_shape(iobj, icutout)
        if "psf_cutout_row" in (self._cat.dtype.names or ()):
            return float(self._cat["psf_cutout_row"][iobj, icutout]), float(self._cat["psf_cutout_col"][iobj, icutout])
        return (rows - 1) / 2, (cols - 1) / 2

    def read_objects(
        self, start: int, stop: int, planes: Sequence[str] = ("image", "weight", "seg", "bmask")
    ) -> ObjectBlock:
        """Read the cut-outs of objects ``start <= i < stop``, one slice per plane.

        Parameters
        ----------
        start, stop : int
            Range of objects.
        planes : sequence of str
            Cut-out types, ``psf`` among them when wanted.

        Returns
        -------
        ObjectBlock
            Its `stamp` gives views without reading again.
        """
        self._check_object(start)
        if not start < stop <= self.size:
            raise IndexError(f"objects {start} to {stop - 1} are not all in {self.path}, which has {self.size}")
        used = [i for i in range(start, stop) if self._cat["ncutout"][i] > 0]
        pixels: dict[str, tuple[int, Array]] = {}
        for kind in planes:
            if not used:
                pixels[kind] = (0, np.empty(0))
                continue
            first, _ = self._extent(used[0], 0, kind)
            last, shape = self._extent(used[-1], int(self._cat["ncutout"][used[-1]]) - 1, kind)
            pixels[kind] = (first, self._slice(kind, first, last + shape[0] * shape[1]))
        return ObjectBlock(self, start, stop, pixels)

    # geometry

    def get_cutout_rowcol(self, iobj: int, icutout: int) -> tuple[float, float]:
        """Return the object's position in a stamp, zero-offset."""
        self._check_cutout(iobj, icutout)
        return float(self._cat["cutout_row"][iobj, icutout]), float(self._cat["cutout_col"][iobj, icutout])

    def get_jacobian(self, iobj: int, icutout: int) -> dict[str, float]:
        """Return ``row0 col0 dudrow dudcol dvdrow dvdcol`` of a cut-out, the derivatives in arcsec per pixel."""
        row, col = self.get_cutout_rowcol(iobj, icutout)
        return {"row0": row, "col0": col, **{name: float(self._cat[name][iobj, icutout]) for name in _JACOBIAN}}

    def get_jacobian_matrix(self, iobj: int, icutout: int) -> NDArray[np.float64]:
        """Return ``[[dudrow, dudcol], [dvdrow, dvdcol]]``."""
        self._check_cutout(iobj, icutout)
        return np.array([float(self._cat[name][iobj, icutout]) for name in _JACOBIAN]).reshape(2, 2)

    def get_jacobian_list(self, iobj: int) -> list[dict[str, float]]:
        """Return the Jacobians of an object."""
        self._check_object(iobj)
        return [self.get_jacobian(iobj, icutout) for icutout in range(int(self._cat["ncutout"][iobj]))]

    # derived weights

    def _map(self, iobj: int, icutout: int) -> weights.Map:
        return (self.get_jacobian_matrix(iobj, icutout), *self.get_cutout_rowcol(iobj, icutout))

    def _maps(self, iobj: int, icutout: int) -> tuple[Array, weights.Map, weights.Map]:
        return self.get_cutout(iobj, 0, "seg"), self._map(iobj, 0), self._map(iobj, icutout)

    def interpolate_coadd_seg(self, iobj: int, icutout: int) -> Array:
        """Return the coadd's segmentation as a cut-out's pixels see it; zero where the coadd's Jacobian is singular."""
        box = int(self._cat["box_size"][iobj])
        mapped = weights.map_coadd_seg(*self._maps(iobj, icutout), (box, box))
        return np.zeros((box, box), np.int32) if mapped is None else mapped

    def get_cweight_cutout(self, iobj: int, icutout: int, restrict_to_seg: bool = False) -> Array:
        """Return the weight with pixels of other objects of the coadd segmentation zeroed."""
        weight = self.get_cutout(iobj, icutout, "weight")
        return weights.coadd_weight(weight, *self._maps(iobj, icutout), restrict_to_seg=restrict_to_seg)

    def get_cweight_cutout_list(self, iobj: int, restrict_to_seg: bool = False) -> list[Array]:
        """Return `get_cweight_cutout` of every cut-out."""
        return [self.get_cweight_cutout(iobj, k, restrict_to_seg) for k in range(int(self._cat["ncutout"][iobj]))]

    def get_uberseg(self, iobj: int, icutout: int) -> Array:
        """Return the weight with every pixel zeroed that is nearer to another object."""
        weight = self.get_cutout(iobj, icutout, "weight")
        return weights.uberseg(weight, *self._maps(iobj, icutout), self.get_number(iobj))

    def get_uberseg_list(self, iobj: int) -> list[Array]:
        """Return `get_uberseg` of every cut-out."""
        self._check_object(iobj)
        return [self.get_uberseg(iobj, icutout) for icutout in range(int(self._cat["ncutout"][iobj]))]

    # The original reader has these names too; the three maps are the same.
    get_cweight_cutout_nearest = get_uberseg
    get_uberseg_cutout = get_uberseg

    def get_cseg_cutout(self, iobj: int, icutout: int, restrict_to_seg: bool = False) -> Array:
        """Return the object's number where the cweight rule keeps the weight, 0 elsewhere."""
        box = int(self._cat["box_size"][iobj])
        number = self.get_number(iobj)
        return weights.composite_seg((box, box), number, *self._maps(iobj, icutout), restrict_to_seg=restrict_to_seg)

    def get_cseg_weight(self, iobj: int, icutout: int, use_canonical_cen: bool = False) -> Array:
        """Return the weight inside the largest circle that no other object of the cut-out's own seg enters."""
        weight, seg = (self.get_cutout(iobj, icutout, kind) for kind in ("weight", "seg"))
        return weights.own_weight(weight, seg, *self.get_cutout_rowcol(iobj, icutout), canonical=use_canonical_cen)


def _text(value: bytes | str) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
