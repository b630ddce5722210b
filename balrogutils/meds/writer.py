"""MEDS files written in bounded memory: one strip of one plane of one source image at a time."""

from __future__ import annotations

import errno
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
from balrogutils.meds.sources import Strip
from balrogutils.meds.tables import UNITS, Tables
from balrogutils.products import writing
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
_FITS_BLOCK = 2880

Cards = Mapping[str, int | float | str]


class CutoutSource(Protocol):
    """What the writer asks of a source image."""

    def strips(self, kinds: Sequence[str] = ...) -> Iterator[Strip]:
        """Yield the planes asked for, each as strips of full rows in their order."""
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
    cards: Cards = field(
        default_factory=lambda: {
            "FZALGOR": "RICE_1",
            "FZTILE": "(10240,1)",
            "FZQMETHD": "SUBTRACTIVE_DITHER_2",
            "FZQVALUE": 4,
        }
    )
    psf_quantum: float = 1e-7

    def of(self, name: str) -> Cards:
        """Return the cards of one HDU; a negative FZQVALUE is an absolute step."""
        if name == "psf" and self.cards.get("FZQVALUE", 4):
            return {**self.cards, "FZQVALUE": -self.psf_quantum}
        return dict(self.cards)


def write_meds(
    path: str | os.PathLike[str],
    tables: Tables,
    layout: Layout,
    sources: Sequence[CutoutSource],
    packing: Packing | None,
    *,
    dtypes: Mapping[str, str],
    scratch: str | os.PathLike[str] | None = None,
    keep_plain: str | os.PathLike[str] | None = None,
    label: str = "cutting",
    timeout: float = TIMEOUT,
) -> None:
    """Write a MEDS file.

    Parameters
    ----------
    path : path-like
        Final name, ending in ``.fits.fz`` when the file is packed; appears only when whole.
    tables : Tables
        The tables, already laid out.
    layout : Layout
        Where each cut-out comes from and goes to.
    sources : sequence of CutoutSource
        Source images in the order of ``file_id``; each is opened once and let go before the next.
    packing : Packing or None
        Parameters of fpack; None leaves the file uncompressed.
    dtypes : mapping of str to str
        Planes to write and their numpy types, in the order of their HDUs.
    scratch : path-like, optional
        Directory of the uncompressed file while a packed one is made; that of `path` when not given.
    keep_plain : path-like, optional
        Keep the uncompressed file of a packed one under this name.
    label : str
        What the progress bar says.
    timeout : float
        Seconds after which fpack counts as hanging.

    Raises
    ------
    ProductError
        A source image that lacks a plane, or a plane nobody knows what to hold off the image.

    Notes
    -----
    The cut-out HDUs get their full length first, without pixels, and every stamp is then written at its offset (M 1.6).
    Peak memory is that of a strip of a source image while it is scaled, and one stamp, whatever the size of the images
    or the number of exposures and cut-outs.
    """
    unknown = sorted(set(dtypes) - set(OFF_IMAGE))
    if unknown:
        raise ProductError(f"no plane is called {unknown[0]}; known: {' '.join(OFF_IMAGE)}", file=path, key=unknown[0])
    final = Path(path)
    if packing is None:
        with writing(final) as part:
            _write_plain(part, tables, layout, sources, {}, dtypes, label)
        return
    directory = final.parent if scratch is None else Path(scratch)
    for needed in (directory, final.parent):
        needed.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-meds-", dir=directory) as room:
        plain = Path(room) / final.name.removesuffix(".fz")
        cards = {kind: packing.of(kind) for kind in (*dtypes, "psf")}
        _write_plain(plain, tables, layout, sources, cards, dtypes, label)
        tile = str(packing.cards.get("FZTILE", "(10240,1)")).strip("() ")
        # The cards in the headers take precedence over the arguments of fpack.
        pack(plain, final, *packing.names, tile=tile, sums=False, timeout=timeout)
        if keep_plain is not None:
            shutil.move(plain, keep_plain)


def _write_plain(
    plain: Path,
    tables: Tables,
    layout: Layout,
    sources: Sequence[CutoutSource],
    cards: Mapping[str, Cards],
    dtypes: Mapping[str, str],
    label: str,
) -> None:
    """Write the uncompressed file; `cards` go into the headers of the image HDUs."""
    with fitsio.FITS(str(plain), "rw", clobber=True) as fits:
        fits.write(None)
        for name in ("object_data", "image_info", "metadata"):
            _write_table(fits, name, getattr(tables, name))
    images = {kind: (layout.pixels, dtype) for kind, dtype in dtypes.items()}
    if tables.psf_info is not None:
        images["psf"] = (layout.psf_pixels, "f4")
    descriptor = os.open(plain, os.O_RDWR)
    try:
        offsets = {}
        for kind, (pixels, dtype) in images.items():
            name = kind if kind == "psf" else f"{kind}_cutouts"
            offsets[kind] = (
                _append_image(descriptor, name, pixels, np.dtype(dtype), cards.get(kind, {})),
                np.dtype(dtype).newbyteorder(">"),
            )
        for file_id, source in enumerate(track(sources, label, unit="images")):
            _fill(descriptor, offsets, layout, tables.object_data, file_id, source, dtypes)
    finally:
        os.close(descriptor)
    if tables.psf_info is not None:
        with fitsio.FITS(str(plain), "rw") as fits:
            _write_table(fits, "psf_info", tables.psf_info)


def _card(key: str, value: int | float | str, comment: str = "") -> bytes:
    """Return one header card in the fixed format of the FITS standard."""
    quoted = str(value).replace("'", "''") if isinstance(value, str) else ""
    text = f"'{quoted:<8}'" if isinstance(value, str) else f"{value!r:>20}".upper()
    return f"{key:<8}= {text:<20}{' / ' + comment if comment else ''}".encode("ascii").ljust(80)


def _append_image(descriptor: int, name: str, pixels: int, dtype: np.dtype[Any], cards: Cards) -> int:
    """Append an image HDU without pixels to a file and return the offset of its pixels.

    cfitsio would write zeros for all of them, only for the stamps to be written over them.
    """
    bits = dtype.itemsize * (-8 if dtype.kind == "f" else 8)
    # An image HDU cannot be empty; readers of the format expect two elements then.
    length = max(pixels, _EMPTY_PIXELS)
    head = [_card("XTENSION", "IMAGE", "image extension"), _card("BITPIX", bits), _card("NAXIS", 1)]
    head += [_card("NAXIS1", length), _card("PCOUNT", 0), _card("GCOUNT", 1), _card("EXTNAME", name)]
    head += [_card(key, value, "for fpack") for key, value in cards.items()]
    text = b"".join([*head, b"END".ljust(80)])
    begin = os.fstat(descriptor).st_size
    data = begin + _padded(len(text))
    _put(descriptor, text.ljust(_padded(len(text))), begin)
    _reserve(descriptor, data + _padded(length * dtype.itemsize))
    return data


def _reserve(descriptor: int, size: int) -> None:
    """Give a file its size, and its room on the disk where the file system can: a full disk is told of at once."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        os.ftruncate(descriptor, size)


def _padded(size: int) -> int:
    return -(-size // _FITS_BLOCK) * _FITS_BLOCK


def _write_table(fits: fitsio.FITS, name: str, rows: NDArray[Any]) -> None:
    fits.write_table(rows, extname=name, units=column_units(rows, UNITS))
    checksum(fits[-1])


def _put(descriptor: int, data: bytes, offset: int) -> None:
    # A write may stop early at any size; the file system says ENOSPC only on the next one.
    while (done := os.pwrite(descriptor, data, offset)) < len(data):
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
    for strip in source.strips(tuple(dtypes)):
        offset, dtype = offsets[strip.kind]
        _write_stamps(descriptor, offset, dtype, strip, place)
        written.add(strip.kind)
    if written != set(dtypes):
        raise ProductError(f"a source image has no {' or '.join(sorted(set(dtypes) - written))} plane")
    if "psf" in offsets:
        _write_psfs(descriptor, offsets["psf"], layout, at, source)


def _write_stamps(descriptor: int, offset: int, dtype: np.dtype[Any], strip: Strip, place: NDArray[np.int64]) -> None:
    """Write the rows of stamps that a strip holds, its first and last strip those above and below the image too."""
    pixels, fill = strip.pixels, OFF_IMAGE[strip.kind]
    begin, end = strip.first, strip.first + len(pixels)
    cols = pixels.shape[1]
    start, top, left, side = place.T
    low = np.maximum(top, begin) if begin > 0 else top
    high = np.minimum(top + side, end) if end < strip.height else top + side
    at = offset + (start + (low - top) * side) * dtype.itemsize
    inside = (low < high) & (low >= begin) & (high <= end) & (left >= 0) & (left + side <= cols)
    part = np.column_stack([low - begin, high - begin, left, left + side, at])
    cast = pixels.dtype != dtype
    for row0, row1, col0, col1, where in part[inside].tolist():
        stamp = pixels[row0:row1, col0:col1]
        _put(descriptor, (stamp.astype(dtype) if cast else stamp).tobytes(), where)
    for row0, row1, col0, col1, where in part[(low < high) & ~inside].tolist():
        stamp = np.full((row1 - row0, col1 - col0), fill, dtype)
        rows, columns = slice(max(row0, 0), min(row1, end - begin)), slice(max(col0, 0), min(col1, cols))
        if rows.start < rows.stop and columns.start < columns.stop:
            stamp[rows.start - row0 : rows.stop - row0, columns.start - col0 : columns.stop - col0] = pixels[
                rows, columns
            ]
        _put(descriptor, stamp.tobytes(), where)


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
