"""What was found in a tile that was made elsewhere: whole steps, damage, what is not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.context import Context
from balrogutils.errors import BalrogError, ProductError
from balrogutils.fitsfile import Header
from balrogutils.layout import TileTree
from balrogutils.upkeep.moved import Moved

__all__ = ["GRID_TOLERANCE", "RESTORE", "Findings", "Hdu", "Whole", "read_hdus", "shape_of"]

GRID_TOLERANCE = 0.01
"""Pixels by which two WCSs of one image may differ."""
RESTORE = "restore it from where the tile was made, or leave the band out (--band)"


class Whole(NamedTuple):
    """A step that is whole: what it left, and what a summary says of it."""

    step: str
    band: str
    outputs: tuple[Path, ...]
    counts: dict[str, int]


class Hdu(NamedTuple):
    """An image HDU: its file, header, and shape in rows and columns."""

    file: Path
    header: Header
    shape: tuple[int, int]


@dataclass
class Findings:
    """The base tree of a tile as far as it has been looked at; nothing is written.

    Attributes
    ----------
    context : Context
        The tile, in the base run.
    moved : Moved
        Directories that the lists know under an old name.
    problems : list of ProductError
        What is damaged, everything that was found.
    absent : list of str
        What is not there or cannot be taken over as it is, a line each.
    texts : dict
        Lists as they are to be rewritten.
    coadds : dict
        Image plane of each coadd, by band or ``det``.
    rows : dict
        Rows of each catalogue, by band.
    ids : dict
        Identifiers in each MEDS file, by band.
    """

    context: Context
    moved: Moved
    problems: list[ProductError] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    texts: dict[Path, str] = field(default_factory=dict)
    coadds: dict[str, Hdu] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    ids: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def tree(self) -> TileTree:
        """Paths of the base tree."""
        return self.context.base_tree

    def note(
        self,
        message: str,
        *,
        band: str | None = None,
        chip: str | None = None,
        file: str | PathLike[str] | None = None,
        key: str | None = None,
        remedy: str | None = RESTORE,
    ) -> None:
        """Add a problem."""
        tile = self.tree.tile
        self.problems.append(ProductError(message, tile=tile, band=band, chip=chip, file=file, key=key, remedy=remedy))

    @contextmanager
    def noting(
        self, band: str | None, file: Path, chip: str | None = None, remedy: str | None = RESTORE
    ) -> Iterator[None]:
        """Make what is raised inside a problem of one file, unless the error itself names another."""
        try:
            yield
        except BalrogError as error:
            where = error.where
            # What cfitsio says after the first line is the path once more, broken into pieces.
            self.note(
                error.message.splitlines()[0],
                band=where.get("band", band),
                chip=where.get("chip", chip),
                file=where.get("file", file),
                key=where.get("key"),
                remedy=remedy,
            )
        except OSError as error:
            text = str(error).splitlines()[0]
            self.note(f"a file cannot be read: {text}", band=band, chip=chip, file=file, remedy=remedy)

    def there(self, step: str, band: str, main: Path, *others: Path) -> bool:
        """Say whether the files of a step are there; the step is absent without `main`, damaged without the others."""
        if not main.is_file():
            self.absent.append(f"{step} {band}: {main} is not there")
            return False
        gone = [path for path in others if not path.is_file()]
        for path in gone:
            self.note(f"a file of step {step} is not there", band=band, file=path)
        return not gone


def read_hdus(path: Path, names: Sequence[str], finite: Sequence[str] = ()) -> list[Hdu]:
    """Read the first image HDUs of a file, which must have these names, one shape, and all their rows.

    Parameters
    ----------
    path : Path
        The file.
    names : sequence of str
        EXTNAMEs in order, from the primary HDU on.
    finite : sequence of str
        HDUs whose every pixel must be a finite number.

    Raises
    ------
    ProductError
        When something is otherwise.
    OSError
        When the file cannot be opened.
    """
    with fitsio.FITS(str(path)) as fits:
        found = [hdu.get_extname().strip().upper() for hdu in fits]
        if len(found) < len(names) and found == list(names[: len(found)]):
            lacking = " ".join(names[len(found) :])
            raise ProductError(f"the file lacks {lacking}; it ends after {' '.join(found)}", key=lacking)
        if found[: len(names)] != list(names):
            raise ProductError(f"the HDUs are {' '.join(found)}, not {' '.join(names)}")
        hdus = [Hdu(path, hdu.read_header(), _whole_shape(hdu)) for hdu, _ in zip(fits, names, strict=False)]
        if len({hdu.shape for hdu in hdus}) > 1:
            shapes = ", ".join(f"{name} {hdu.shape}" for name, hdu in zip(names, hdus, strict=True))
            raise ProductError(f"the planes have different shapes: {shapes}")
        for name in finite:
            bad = int(np.count_nonzero(~np.isfinite(fits[name].read())))
            if bad:
                raise ProductError(f"{bad} pixels of {name} are no finite numbers", key=name)
    return hdus


def shape_of(path: Path, ext: str | int) -> tuple[int, int]:
    """Return the rows and columns of an image HDU, whose last row must be there.

    Raises
    ------
    ProductError
        When there is no such image, or it is cut short.
    OSError
        When the file cannot be opened.
    """
    with fitsio.FITS(str(path)) as fits:
        try:
            hdu = fits[ext]
        except (OSError, IndexError) as error:
            raise ProductError(f"there is no HDU {ext}", key=str(ext)) from error
        return _whole_shape(hdu)


def _whole_shape(hdu: Any) -> tuple[int, int]:
    info, name = hdu.get_info(), hdu.get_extname()
    if info.get("ndims") != 2:
        raise ProductError("an HDU is not an image of rows and columns", key=name)
    rows, cols = map(int, info["dims"])
    try:
        hdu[rows - 1 : rows, 0:cols]
    except OSError as error:
        raise ProductError("the file ends before the image does", key=name) from error
    return rows, cols
