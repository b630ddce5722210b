"""MEDS files written in bounded memory: one plane of one source image at a time."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError
from balrogutils.fitsfile import checksum, column_units, pack
from balrogutils.masks import MaskBit
from balrogutils.meds.cutouts import Layout
from balrogutils.meds.tables import UNITS, Tables
from balrogutils.progress import track
from balrogutils.tools import TIMEOUT

__all__ = ["OFF_IMAGE", "CutoutSource", "Packing", "write_meds"]

OFF_IMAGE: dict[str, int] = {
    "image": 0,
    "weight": 0,
    "seg": 0,
    "bmask": MaskBit.OFF_IMAGE.value,
    "ormask": MaskBit.OFF_IMAGE.value,
    "noise": 0,
}
"""What a stamp holds where it lies outside its source image."""

_PSF_CHUNK = 256
_EMPTY_PIXELS = 2


class CutoutSource(Protocol):
    """What the writer asks of a source image."""

    def planes(self, kinds: Sequence[str] = ...) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield (kind, pixels) of the planes asked for."""
        ...

    def psf_stamps(self, rows: NDArray[np.float64], cols: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return PSF stamps at zero-offset positions, shape (n, side, side)."""
        ...


@dataclass(frozen=True)
class Packing:
    """How fpack is to work.

    Attributes
    ----------
    names : tuple of str or int
        Keys of the dither seed.
    cards : mapping
        Header cards FZ... of every image HDU.
    psf_quantum : float
        Quantisation step of the PSF stamps. They have no noise to measure a step by; with 1e-7 a stamp of sum 1 keeps
        its sum within 1e-5, where a step of a quarter of the "noise" would change it by up to 1e-3. Not used when the
        other HDUs are packed without loss.
    """

    names: tuple[str | int, ...]
    cards: Mapping[str, int | float | str] = field(
        default_factory=lambda: {
            "FZALGOR": "RICE_1",
            "FZTILE": "(10240,1)",
            "FZQMETHD": "SUBTRACTIVE_DITHER_2",
            "FZQVALUE": 4,
        }
    )
    psf_quantum: float = 1e-7

    def of(self, name: str) -> dict[str, int | float | str]:
        """Return the cards of one HDU; a negative FZQVALUE is an absolute step."""
        if name == "psf" and self.cards.get("FZQVALUE", 4):
            return {**self.cards, "FZQVALUE": -self.psf_quantum}
        return dict(self.cards)


def write_meds(
    path: str | os.PathLike[str],
    tables: Tables,
    layout: Layout,
    sources: Sequence[CutoutSource],
    packing: Packing,
    *,
    dtypes: Mapping[str, str],
    scratch: str | os.PathLike[str] | None = None,
    keep_plain: str | os.PathLike[str] | None = None,
    label: str = "cutting",
    timeout: float = TIMEOUT,
) -> None:
    """Write a packed MEDS file.

    Parameters
    ----------
    path : path-like
        Final name, ending in ``.fits.fz``; appears only when whole.
    tables : Tables
        The tables, already laid out.
    layout : Layout
        Where each cut-out comes from and goes to.
    sources : sequence of CutoutSource
        Source images in the order of ``file_id``; each is opened once and let go before the next.
    packing : Packing
        Parameters of fpack.
    dtypes : mapping of str to str
        Planes to write and their numpy types, in the order of their HDUs.
    scratch : path-like, optional
        Directory of the uncompressed file; that of `path` when not given.
    keep_plain : path-like, optional
        Keep the uncompressed file under this name.
    label : str
        What the progress bar says.
    timeout : float
        Seconds after which fpack counts as hanging.

    Notes
    -----
    The cut-out HDUs are created at their full length first, without pixels, and every stamp is then written at its
    offset. Peak memory is that of one plane of one source image while it is scaled, and one stamp, whatever the number
    of exposures or cut-outs.
    """
    final = Path(path)
    directory = final.parent if scratch is None else Path(scratch)
    for needed in (directory, final.parent):
        needed.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-meds-", dir=directory) as room:
        plain = Path(room) / final.name.removesuffix(".fz")
        offsets = _create(plain, tables, layout, packing, dtypes)
        descriptor = os.open(plain, os.O_RDWR)
        try:
            for file_id, source in enumerate(track(sources, label, unit="images")):
                _fill(descriptor, offsets, layout, tables.object_data, file_id, source, dtypes)
        finally:
            os.close(descriptor)
        tile = str(packing.cards.get("FZTILE", "(10240,1)")).strip("() ")
        # The cards in the headers take precedence over the arguments of fpack.
        pack(plain, final, *packing.names, tile=tile, sums=False, timeout=timeout)
        if keep_plain is not None:
            shutil.move(plain, keep_plain)


def _create(
    plain: Path, tables: Tables, layout: Layout, packing: Packing, dtypes: Mapping[str, str]
) -> dict[str, tuple[int, np.dtype[Any]]]:
    """Write tables and empty image HDUs; return the byte offset and on-disk type of the pixels of each."""
    images = {f"{kind}_cutouts": (layout.pixels, dtype) for kind, dtype in dtypes.items()}
    if tables.psf_info is not None:
        images["psf"] = (layout.psf_pixels, "f4")
    with fitsio.FITS(str(plain), "rw", clobber=True) as fits:
        fits.write(None)
        for name in ("object_data", "image_info", "metadata"):
            _write_table(fits, name, getattr(tables, name))
        for name, (pixels, dtype) in images.items():
            # An image HDU cannot be empty; readers of the format expect two elements then.
            fits.create_image_hdu(dims=[max(pixels, _EMPTY_PIXELS)], dtype=dtype, extname=name)
            for key, value in packing.of(name).items():
                fits[-1].write_key(key, value, "for fpack")
        if tables.psf_info is not None:
            _write_table(fits, "psf_info", tables.psf_info)
    with fitsio.FITS(str(plain)) as fits:
        return {
            name.removesuffix("_cutouts"): (fits[name].get_offsets()["data_start"], np.dtype(dtype).newbyteorder(">"))
            for name, (_, dtype) in images.items()
        }


def _write_table(fits: fitsio.FITS, name: str, rows: NDArray[Any]) -> None:
    fits.write_table(rows, extname=name, units=column_units(rows, UNITS))
    checksum(fits[-1])


def _put(descriptor: int, data: bytes, offset: int) -> None:
    # A write may stop early at any size; the file system says ENOSPC only on the next one.
    while True:
        done = os.pwrite(descriptor, data, offset)
        if done == len(data):
            return
        data, offset = data[done:], offset + done


def _fill(
    descriptor: int,
    offsets: Mapping[str, tuple[int, np.dtype[Any]]],
    layout: Layout,
    objects: NDArray[Any],
    file_id: int,
    source: CutoutSource,
    dtypes: Mapping[str, str],
) -> None:
    """Write the stamps of every object on one source image."""
    at = layout.members(file_id)
    if at[0].size == 0:
        return
    table = layout.per_object
    corner = np.stack([table[name][at] for name in ("start_row", "orig_start_row", "orig_start_col")], axis=1)
    place: NDArray[np.int64] = np.column_stack([corner, objects["box_size"][at[0]]]).astype(np.int64)
    written = set()
    for kind, pixels in source.planes(tuple(dtypes)):
        offset, dtype = offsets[kind]
        _write_stamps(descriptor, offset, np.ascontiguousarray(pixels, dtype=dtype), OFF_IMAGE[kind], place)
        written.add(kind)
    if written != set(dtypes):
        raise ProductError(f"a source image has no {' or '.join(sorted(set(dtypes) - written))} plane")
    if "psf" in offsets:
        _write_psfs(descriptor, offsets["psf"], layout, at, source)


def _write_stamps(descriptor: int, offset: int, pixels: NDArray[Any], fill: int, place: NDArray[np.int64]) -> None:
    rows, cols = pixels.shape
    size = pixels.dtype.itemsize
    for start, top, left, side in place.tolist():
        bottom, right = top + side, left + side
        if top >= 0 and left >= 0 and bottom <= rows and right <= cols:
            stamp = pixels[top:bottom, left:right]
        else:
            stamp = np.full((side, side), fill, dtype=pixels.dtype)
            row0, col0, row1, col1 = max(top, 0), max(left, 0), min(bottom, rows), min(right, cols)
            if row1 > row0 and col1 > col0:
                stamp[row0 - top : row1 - top, col0 - left : col1 - left] = pixels[row0:row1, col0:col1]
        _put(descriptor, stamp.tobytes(), offset + start * size)


def _write_psfs(
    descriptor: int,
    target: tuple[int, np.dtype[Any]],
    layout: Layout,
    at: tuple[NDArray[np.int64], NDArray[np.int64]],
    source: CutoutSource,
) -> None:
    offset, dtype = target
    table = layout.per_object
    rows, cols, starts = (table[name][at] for name in ("orig_row", "orig_col", "psf_start_row"))
    for first in range(0, len(rows), _PSF_CHUNK):
        part = slice(first, first + _PSF_CHUNK)
        stamps = source.psf_stamps(rows[part], cols[part]).astype(dtype)
        for stamp, start in zip(stamps, starts[part].tolist(), strict=True):
            _put(descriptor, stamp.tobytes(), offset + start * dtype.itemsize)
