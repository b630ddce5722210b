"""CHECKSUM and DATASUM of FITS files, computed from the bytes (FITS Standard 4.0, section 4.4.2.7 and appendix J)."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import fitsio
import numpy as np

__all__ = ["is_fits", "wrong_sums"]

_SUFFIXES = (".fits", ".fits.fz", ".psf")
_BLOCK = 2880 * 2048
_ALL_ONES = 0xFFFFFFFF


def is_fits(path: Path) -> bool:
    """Return whether a product of this name is a FITS file."""
    return path.name.endswith(_SUFFIXES)


def _add(stream: BinaryIO, first: int, last: int, total: int = 0) -> int:
    """Add the bytes `first` to `last` (excluded) of a file to a ones' complement sum of 32-bit words.

    Raises
    ------
    EOFError
        When the file ends before `last`.
    """
    stream.seek(first)
    while first < last:
        block = stream.read(min(_BLOCK, last - first))
        if not block or len(block) % 4:
            raise EOFError
        first += len(block)
        total += int(np.frombuffer(block, dtype=">u4").sum(dtype=np.uint64))
        while total > _ALL_ONES:
            total = (total & _ALL_ONES) + (total >> 32)
    return total


def wrong_sums(path: Path) -> str:
    """Return what is wrong with the checksums of a FITS file.

    Parameters
    ----------
    path : Path
        A FITS file, packed or not.

    Returns
    -------
    str
        HDUs whose CHECKSUM or DATASUM disagrees with their bytes, or why the file cannot be read as FITS; empty when
        all is well. HDUs without these cards, or with empty ones, have nothing to disagree with.
    """
    wrong = []
    try:
        with fitsio.FITS(str(path)) as fits, path.open("rb") as stream:
            for number, hdu in enumerate(fits):
                header, place = hdu.read_header(), hdu.get_offsets()
                sums = {key: str(header.get(key) or "").strip() for key in ("CHECKSUM", "DATASUM")}
                if not any(sums.values()):
                    continue
                data = _add(stream, place["data_start"], place["data_end"])
                # Zero is written either way: as no bit, or as all of them.
                if sums["DATASUM"] and int(sums["DATASUM"]) % _ALL_ONES != data % _ALL_ONES:
                    wrong.append(f"HDU {number} {hdu.get_extname()}: DATASUM".replace(" :", ":"))
                elif sums["CHECKSUM"] and _add(stream, place["header_start"], place["data_start"], data) % _ALL_ONES:
                    wrong.append(f"HDU {number} {hdu.get_extname()}: CHECKSUM".replace(" :", ":"))
    except (OSError, ValueError, EOFError) as error:
        wrong.append(f"it cannot be read as FITS: {error}" if str(error) else "it ends early")
    return "; ".join(wrong)
