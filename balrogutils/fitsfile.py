"""FITS files with checksums, without clocks, whole under their final name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError, ToolError
from balrogutils.products import temporary_name, writing
from balrogutils.randomness import dither_seed
from balrogutils.tools import TIMEOUT, run_tool

__all__ = [
    "Header",
    "Plane",
    "Table",
    "checksum",
    "column_units",
    "pack",
    "read_header",
    "read_image",
    "read_table",
    "table_names",
    "write_images",
    "write_tables",
]

Header: TypeAlias = fitsio.FITSHDR

# Cards that describe one file's layout or its making; never carried from one file to another.
_STRUCTURAL_WORDS = """
SIMPLE XTENSION BITPIX NAXIS NAXIS1 NAXIS2 NAXIS3 PCOUNT GCOUNT EXTEND EXTNAME EXTVER BSCALE BZERO CHECKSUM DATASUM DATE
INHERIT TFIELDS ZIMAGE ZTENSION ZSIMPLE ZBITPIX ZNAXIS ZNAXIS1 ZNAXIS2 ZTILE1 ZTILE2 ZCMPTYPE ZQUANTIZ ZDITHER0 ZNAME1
ZVAL1 ZNAME2 ZVAL2 ZHECKSUM ZDATASUM ZPCOUNT ZGCOUNT ZEXTEND ZBLANK FZALGOR FZTILE FZQVALUE FZQMETHD FZDTHRSD
TTYPE1 TFORM1 TTYPE2 TFORM2 TTYPE3 TFORM3
"""
_STRUCTURAL = frozenset(_STRUCTURAL_WORDS.split())
_REMEDY = "restore it, or have it made again"


class Plane(NamedTuple):
    """One image HDU: name, pixels ``[row, col]`` and the cards to carry."""

    name: str
    pixels: NDArray[Any]
    header: Header | None = None


class Table(NamedTuple):
    """One table HDU: name, structured rows, units by column and extra cards (a mapping of key to value)."""

    name: str
    rows: NDArray[Any]
    units: Mapping[str, str] | None = None
    cards: Mapping[str, Any] | None = None


def portable_cards(header: Header | None) -> list[dict[str, Any]]:
    """Return the cards that speak of the sky, not of the file they came from."""
    if header is None:
        return []
    return [
        {"name": card["name"], "value": card["value"], "comment": card.get("comment", "")}
        for card in header.records()
        if card.get("name") and card["name"].upper() not in _STRUCTURAL | {"HISTORY", "COMMENT", "CONTINUE"}
    ]


def checksum(hdu: Any) -> None:
    """Write CHECKSUM and DATASUM to an open HDU, DATASUM without the clock cfitsio puts into its comment."""
    hdu.write_checksum()
    hdu.write_key("DATASUM", hdu.read_header()["DATASUM"], comment="data unit checksum")
    # cfitsio leaves a right DATASUM alone and brings CHECKSUM up to date with the new comment.
    hdu.write_checksum()


def write_images(path: str | os.PathLike[str], planes: Sequence[Plane]) -> None:
    """Write image planes to one uncompressed FITS file, the first as primary HDU.

    Parameters
    ----------
    path : path-like
        Final name; appears only when whole.
    planes : sequence of Plane
        Written in order, each with EXTNAME, CHECKSUM and DATASUM.
    """
    with writing(path) as part, fitsio.FITS(str(part), "rw", clobber=True) as fits:
        for plane in planes:
            fits.write(np.ascontiguousarray(plane.pixels), header=portable_cards(plane.header), extname=plane.name)
            checksum(fits[-1])


def column_units(rows: NDArray[Any], units: Mapping[str, str] | None) -> list[str] | None:
    """Return the units in column order as fitsio takes them; unknown columns have none."""
    if units is None:
        return None
    return [units.get(name, "") for name in rows.dtype.names or ()]


def write_tables(path: str | os.PathLike[str], tables: Sequence[Table]) -> None:
    """Write binary tables to one FITS file after an empty primary HDU, each with CHECKSUM and DATASUM."""
    with writing(path) as part, fitsio.FITS(str(part), "rw", clobber=True) as fits:
        for table in tables:
            cards = [{"name": key, "value": value} for key, value in (table.cards or {}).items()]
            fits.write_table(table.rows, units=column_units(table.rows, table.units), extname=table.name, header=cards)
            checksum(fits[-1])


def _plainly(error: OSError) -> str:
    """Return the first line of what cfitsio says; the rest breaks the file's name at some column."""
    return str(error).strip().partition("\n")[0]


def _open(path: str | os.PathLike[str]) -> fitsio.FITS:
    try:
        return fitsio.FITS(str(path))
    except OSError as error:
        if not Path(path).exists():
            raise ProductError("a FITS file is not there", file=path, remedy=_REMEDY) from error
        raise ProductError(f"a FITS file cannot be opened: {_plainly(error)}", file=path, remedy=_REMEDY) from error


def _hdu(fits: fitsio.FITS, ext: str | int, path: str | os.PathLike[str]) -> Any:
    try:
        return fits[ext]
    except (OSError, IndexError, KeyError) as error:
        raise ProductError(f"a FITS file has no HDU {ext!r}", file=path, remedy=_REMEDY) from error


def read_image(path: str | os.PathLike[str], ext: str | int) -> NDArray[Any]:
    """Return the pixels of one image HDU, ``[row, col]``, in native byte order.

    Raises
    ------
    ProductError
        When the file or HDU is missing or damaged.
    """
    with _open(path) as fits:
        hdu = _hdu(fits, ext, path)
        try:
            return hdu.read()
        except OSError as error:
            raise ProductError(f"HDU {ext!r} cannot be read: {_plainly(error)}", file=path, remedy=_REMEDY) from error


def read_header(path: str | os.PathLike[str], ext: str | int) -> Header:
    """Return the header of one HDU."""
    with _open(path) as fits:
        return _hdu(fits, ext, path).read_header()


def read_table(path: str | os.PathLike[str], ext: str | int = 1) -> NDArray[Any]:
    """Return the rows of one table HDU as a structured array (upper- or lower-case names as in the file)."""
    with _open(path) as fits:
        hdu = _hdu(fits, ext, path)
        try:
            return hdu.read()
        except OSError as error:
            raise ProductError(f"table {ext!r} cannot be read: {_plainly(error)}", file=path, remedy=_REMEDY) from error


def table_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the table HDUs of a file, in order."""
    with _open(path) as fits:
        return [hdu.get_extname() for hdu in fits if hdu.get_exttype() != "IMAGE_HDU"]


def pack(
    plain: str | os.PathLike[str],
    packed: str | os.PathLike[str],
    *names: str | int,
    qvalue: float = 4.0,
    tile: str | None = None,
    sums: bool = True,
    timeout: float = TIMEOUT,
) -> None:
    """Pack a FITS file with fpack: Rice, subtractive dither 2 (zeros stay zero), a dither seed keyed by name.

    Parameters
    ----------
    plain : path-like
        Uncompressed input; left in place.
    packed : path-like
        Final name, ending in ``.fz``; appears only when whole.
    *names : str or int
        Keys of the dither seed.
    qvalue : float
        Quantisation step is noise sigma / qvalue.
    tile : str, optional
        Compression tile for ``fpack -t``, for example ``"10240,1"``; rows when not given.
    sums : bool
        Give the images of `plain` CHECKSUM and DATASUM first, so that they can be verified after unpacking. The packed
        HDUs have their own in any case; for images of gigabytes that nobody unpacks, the pass over `plain` is wasted.
    timeout : float
        Seconds after which fpack counts as hanging.

    Notes
    -----
    cfitsio reads the dither seed from the header card FZDTHRSD, which is written to each image of `plain`.
    """
    with fitsio.FITS(str(plain), "rw") as fits:
        for hdu in fits:
            if hdu.get_exttype() == "IMAGE_HDU" and hdu.get_info().get("ndims", 0) > 0:
                hdu.write_key("FZDTHRSD", dither_seed(*names, hdu.get_extname()), "dither seed, keyed by name")
                if sums:
                    checksum(hdu)
    arguments = ["-r", "-qz", str(qvalue), *(["-t", tile] if tile else [])]
    with writing(packed) as part:
        log = temporary_name(Path(packed)).with_suffix(".log")
        try:
            run_tool("fpack", [*arguments, "-O", part, plain], log=log, outputs=[part], timeout=timeout)
        except ToolError as error:
            # The log goes with the unfinished file: its end is in the error.
            message = error.message.replace(part.name, Path(packed).name)
            raise ToolError(message, file=packed, remedy=error.remedy, detail=error.detail) from error
        finally:
            log.unlink(missing_ok=True)
