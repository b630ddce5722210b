"""The table of objects of a MEDS file: which cut-outs there are, where their pixels are, how they lie on the sky."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.errors import ProductError

__all__ = ["JACOBIAN", "NoSuchCutout", "Objects", "Places"]

JACOBIAN = ("dudrow", "dudcol", "dvdrow", "dvdcol")
_WHOLE = ("id", "box_size", "ncutout", "file_id", "start_row")
_REAL = ("cutout_row", "cutout_col", *JACOBIAN)
_OPTIONAL_WHOLE = ("psf_start_row", "psf_box_size", "psf_row_size", "psf_col_size", "number")
_OPTIONAL_REAL = ("psf_cutout_row", "psf_cutout_col")
_REMEDY = "make the file anew"

Array = NDArray[Any]
I64 = NDArray[np.int64]


class NoSuchCutout(ProductError, IndexError, ValueError):
    """An object, cut-out or cut-out type that a file does not hold.

    It is a ValueError, which users of the original reader catch, and an IndexError, which it says.
    """


class Places(NamedTuple):
    """Pixel ranges of many cut-outs in one HDU.

    Attributes
    ----------
    start : ndarray of int64, shape (n, nmax)
        Flat offset of each cut-out.
    size : ndarray of int64, shape (n, nmax)
        Pixels of each cut-out.
    used : ndarray of bool, shape (n, nmax)
        Which slots hold a cut-out.
    """

    start: I64
    size: I64
    used: NDArray[np.bool_]


class Objects:
    """The rows of ``object_data``, checked.

    Parameters
    ----------
    rows : structured ndarray
        The table as it was read.
    path : str
        The file, for messages.

    Raises
    ------
    ProductError
        When a column that every MEDS file has is missing or of a wrong type, or an object has more cut-outs than slots.
    """

    def __init__(self, rows: Array, path: str) -> None:
        self.rows, self.path = rows, path
        self._columns: dict[str, Array] = {}
        self._check()
        # Looking a column up in a structured array takes longer than reading a stamp.
        self._ncutout, self._side, self._start = rows["ncutout"], rows["box_size"], self.column("start_row")

    def _check(self) -> None:
        names = self.rows.dtype.names or ()
        for column in (*_WHOLE, *_REAL):
            if column not in names:
                raise ProductError(f"object_data lacks {column}", file=self.path, key=column, remedy=_REMEDY)
        for group, kinds in (((*_WHOLE, *_OPTIONAL_WHOLE), "iu"), ((*_REAL, *_OPTIONAL_REAL), "fiu")):
            for column in group:
                if column in names and self.rows[column].dtype.kind not in kinds:
                    raise ProductError(
                        f"column {column} of object_data holds {self.rows[column].dtype.name}, not "
                        f"{'whole numbers' if kinds == 'iu' else 'numbers'}",
                        file=self.path,
                        key=column,
                        remedy=_REMEDY,
                    )
        ncutout, slots = self.rows["ncutout"], self.column("file_id").shape[1]
        bad = np.flatnonzero((ncutout < 0) | (ncutout > slots))
        if bad.size:
            raise ProductError(
                f"object {bad[0]} has ncutout {ncutout[bad[0]]}, the table has {slots} slots",
                file=self.path,
                key="ncutout",
                remedy=_REMEDY,
            )

    @property
    def size(self) -> int:
        """Number of objects."""
        return len(self.rows)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.rows.dtype.names or ()

    @property
    def has_psf(self) -> bool:
        """Whether the table says where PSF stamps are."""
        return "psf_start_row" in self.names and bool({"psf_row_size", "psf_box_size"} & set(self.names))

    def column(self, name: str) -> Array:
        """Return a column of one value a slot, shape (n, nmax); one value an object serves all its slots."""
        if name not in self._columns:
            values = self.rows[name]
            self._columns[name] = values if values.ndim > 1 else values[:, np.newaxis]
        return self._columns[name]

    def _slot(self, name: str, iobj: int, icutout: int) -> Any:
        values = self.column(name)[iobj]
        return values[icutout if len(values) > 1 else 0]

    def cutouts(self, iobj: int) -> int:
        """Return the number of cut-outs of an object, which must be in the file."""
        if not 0 <= iobj < self.size:
            raise NoSuchCutout(f"there is no object {iobj}: the file has {self.size}", file=self.path)
        return int(self._ncutout[iobj])

    def check(self, iobj: int, icutout: int) -> None:
        """Refuse a cut-out that is not in the file."""
        count = self.cutouts(iobj)
        if not 0 <= icutout < count:
            raise NoSuchCutout(f"object {iobj} has {count} cut-outs, there is no {icutout}", file=self.path)

    def box(self, iobj: int) -> int:
        """Return the side of an object's stamps."""
        return int(self._side[iobj])

    def shape(self, iobj: int, icutout: int, kind: str) -> tuple[int, int]:
        """Return rows and columns of one cut-out."""
        if kind != "psf":
            side = self.box(iobj)
            return side, side
        if "psf_row_size" in self.names:
            return int(self._slot("psf_row_size", iobj, icutout)), int(self._slot("psf_col_size", iobj, icutout))
        side = int(self._slot("psf_box_size", iobj, icutout))
        return side, side

    def extent(self, iobj: int, icutout: int, kind: str) -> tuple[int, tuple[int, int]]:
        """Return flat offset and shape of one cut-out.

        Raises
        ------
        NoSuchCutout
            When the file does not hold it.
        ProductError
            When the table gives no place for it, as rows of -9999 do.
        """
        self.check(iobj, icutout)
        shape = self.shape(iobj, icutout, kind)
        start = int(self._slot("psf_start_row", iobj, icutout) if kind == "psf" else self._start[iobj, icutout])
        if start < 0 or min(shape) < 1:
            raise self._nowhere("psf_start_row" if kind == "psf" else "start_row", iobj, icutout)
        return start, shape

    def _nowhere(self, name: str, iobj: int, icutout: int) -> ProductError:
        return ProductError(
            f"cut-out {icutout} of object {iobj} is counted by ncutout, but the table gives no place or size for it",
            file=self.path,
            key=name,
            remedy=_REMEDY,
        )

    def places(self, rows: ArrayLike, kind: str) -> Places:
        """Return where the pixels of the cut-outs of many objects are.

        Parameters
        ----------
        rows : array_like of int, shape (n,)
            Rows of the table.
        kind : str
            Cut-out type.

        Raises
        ------
        ProductError
            When the table gives no place for one of them.
        """
        which = np.asarray(rows, np.int64)
        name = "psf_start_row" if kind == "psf" else "start_row"
        start = self.column(name)[which].astype(np.int64)
        if kind != "psf":
            sides = self.rows["box_size"][which].astype(np.int64)[:, np.newaxis]
            high = wide = np.broadcast_to(sides, start.shape)
        else:
            columns = ("psf_row_size", "psf_col_size") if "psf_row_size" in self.names else ("psf_box_size",) * 2
            high, wide = (np.broadcast_to(self.column(one)[which].astype(np.int64), start.shape) for one in columns)
        used = np.arange(start.shape[1]) < self.rows["ncutout"][which].astype(np.int64)[:, np.newaxis]
        bad = np.argwhere(used & ((start < 0) | (high < 1) | (wide < 1)))
        if len(bad):
            raise self._nowhere(name, int(which[bad[0, 0]]), int(bad[0, 1]))
        return Places(start, np.where(used, high * wide, 0), used)

    @cached_property
    def contiguous(self) -> NDArray[np.bool_]:
        """Whether the stamps of each object lie one after another, as the format wants them, shape (n,)."""
        side = self._side.astype(np.int64)[:, np.newaxis]
        pairs = np.arange(1, self._start.shape[1]) < self._ncutout.astype(np.int64)[:, np.newaxis]
        touching: NDArray[np.bool_] = (np.diff(self._start.astype(np.int64), axis=1) == side**2) | ~pairs
        return np.all(touching, axis=1)

    def number(self, iobj: int) -> int:
        """Return the object's label in the coadd segmentation; the row number + 1 in files without a number column."""
        self.cutouts(iobj)
        return int(self.rows["number"][iobj]) if "number" in self.names else iobj + 1

    def rowcol(self, iobj: int, icutout: int) -> tuple[float, float]:
        """Return the object's position in a stamp, zero-offset."""
        self.check(iobj, icutout)
        return float(self._slot("cutout_row", iobj, icutout)), float(self._slot("cutout_col", iobj, icutout))

    def psf_rowcol(self, iobj: int, icutout: int) -> tuple[float, float]:
        """Return the PSF's centre in its stamp; the middle of the stamp in files that do not say."""
        self.check(iobj, icutout)
        if "psf_cutout_row" in self.names:
            row, col = (self._slot(f"psf_cutout_{axis}", iobj, icutout) for axis in ("row", "col"))
            return float(row), float(col)
        rows, cols = self.shape(iobj, icutout, "psf")
        return (rows - 1) / 2, (cols - 1) / 2

    def jacobian(self, iobj: int, icutout: int) -> NDArray[np.float64]:
        """Return ``[[dudrow, dudcol], [dvdrow, dvdcol]]`` of a cut-out in arcsec per pixel."""
        self.check(iobj, icutout)
        return np.array([float(self._slot(name, iobj, icutout)) for name in JACOBIAN]).reshape(2, 2)

    def jacobians(self, iobj: int) -> NDArray[np.float64]:
        """Return the Jacobians of all cut-outs of an object, shape (ncutout, 2, 2)."""
        count = self.cutouts(iobj)
        out = np.empty((count, 4))
        for axis, name in enumerate(JACOBIAN):
            out[:, axis] = self.column(name)[iobj, :count]
        return out.reshape(count, 2, 2)

    def centres(self, iobj: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return row and column of an object in all its stamps, each of shape (ncutout,)."""
        count = self.cutouts(iobj)
        row, col = (self.column(f"cutout_{axis}")[iobj, :count].astype(np.float64) for axis in ("row", "col"))
        return row, col
