"""The lists of one tile and band: which CCDs, with which zero points, PSF models and side files."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from balrogutils.errors import ProductError
from balrogutils.exposures.chip import PreparedChip, numbers_of
from balrogutils.layout import TileTree
from balrogutils.products import writing_text

__all__ = ["COADD_NUMBER", "PsfLine", "fileconf", "read_flist", "read_psfmap", "read_zero_points", "write_lists"]

COADD_NUMBER = "-9999"
_NUMBER = re.compile(r"-?[0-9]+")
_REMEDY = "run the prep block (mode bit 1) for this tile"


class PsfLine(NamedTuple):
    """One line of a PSF map: exposure and CCD number as text (leading zeros kept), and the model."""

    expnum: str
    ccdnum: str
    path: Path


def fileconf(tree: TileTree, band: str, coadd: Mapping[str, Path], magzp: float = 30.0) -> dict[str, Any]:
    """Return the fileconf of a band as block 1 leaves it (P 2.4).

    Parameters
    ----------
    tree : TileTree
        Paths of the tile.
    band : str
        Band.
    coadd : mapping
        ``image``, ``cat``, ``seg`` of the survey's own coadd; where it has none, the tile's own stands in.
    magzp : float
        Zero point of the coadd.
    """
    own = {"image": tree.image(band), "cat": tree.catalog(band), "seg": tree.segmap(band)}
    return {
        "band": band,
        "tilename": tree.tile,
        **{f"coadd_{kind}_url": str(coadd.get(kind, path)) for kind, path in own.items()},
        "coadd_magzp": int(magzp) if float(magzp).is_integer() else float(magzp),
        "nwgint_flist": str(tree.flist("nullwt", band)),
        "seg_flist": str(tree.flist("seg", band)),
        "bkg_flist": str(tree.flist("bkg", band)),
        "meds_url": str(tree.meds(band)),
    }


def write_lists(
    tree: TileTree,
    band: str,
    chips: Sequence[PreparedChip],
    coadd_psf: Path,
    coadd: Mapping[str, Path],
    magzp: float = 30.0,
) -> list[Path]:
    """Write the null-weight, segmentation and background lists, the PSF map and the fileconf of a band (P 2.1).

    Parameters
    ----------
    tree : TileTree
        Paths of the tile.
    band : str
        Band.
    chips : sequence of PreparedChip
        In the order the lists are to have.
    coadd_psf : pathlib.Path
        First line of the PSF map.
    coadd, magzp
        See `fileconf`.

    Returns
    -------
    list of pathlib.Path
        The files written.
    """
    texts = {
        tree.flist("nullwt", band): [f"{chip.nullwt} {chip.magzp:.16g}" for chip in chips],
        tree.flist("seg", band): [str(chip.seg) for chip in chips],
        tree.flist("bkg", band): [str(chip.bkg) for chip in chips],
        tree.psfmap(band): [
            f"{COADD_NUMBER} {COADD_NUMBER} {coadd_psf}",
            *(f"{' '.join(numbers_of(chip.chip))} {chip.psf}" for chip in chips),
        ],
    }
    for path, lines in texts.items():
        writing_text(path, "".join(line + "\n" for line in lines))
    conf = yaml.safe_dump(fileconf(tree, band, coadd, magzp), sort_keys=False, width=1_000_000)
    writing_text(tree.fileconf(band), conf)
    return [*texts, tree.fileconf(band)]


def _lines(path: str | os.PathLike[str]) -> list[str]:
    file = Path(path)
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise ProductError("a list is not there", file=file, remedy=_REMEDY) from error
    except UnicodeDecodeError as error:
        raise ProductError("a list is not text", file=file, remedy=_REMEDY) from error


def _path(text: str) -> Path:
    # Lists of the survey name MEDS_DIR instead of the directory itself.
    return Path(os.path.expandvars(text))


def read_flist(path: str | os.PathLike[str], path_of: Callable[[str], Path] = _path) -> list[Path]:
    """Return the paths of a segmentation or background list; `path_of` makes a path of its text."""
    return [path_of(line.strip()) for line in _lines(path)]


def read_zero_points(path: str | os.PathLike[str], path_of: Callable[[str], Path] = _path) -> list[tuple[Path, float]]:
    """Return (path, zero point) of each line of a null-weight list.

    Parameters
    ----------
    path : path-like
        The list.
    path_of : callable
        Makes a path of its text; environment variables are filled in when not given.

    Raises
    ------
    ProductError
        When the list is missing, or a line is not a path and a finite number.
    """
    found = []
    for number, line in enumerate(_lines(path), start=1):
        name, _, text = line.strip().rpartition(" ")
        try:
            magzp = float(text)
        except ValueError:
            magzp = math.nan
        if not name or not math.isfinite(magzp):
            raise ProductError(f"line {number} is not a path and a zero point", file=path, remedy=_REMEDY)
        found.append((path_of(name.strip()), magzp))
    return found


def read_psfmap(path: str | os.PathLike[str], path_of: Callable[[str], Path] = _path) -> list[PsfLine]:
    """Return the lines of a PSF map, the coadd's (-9999 -9999) first.

    Parameters
    ----------
    path, path_of
        See `read_zero_points`.

    Raises
    ------
    ProductError
        When the map is missing, a line is not two numbers and a path, or the coadd does not come first and once.
    """
    found = []
    for number, line in enumerate(_lines(path), start=1):
        parts = line.split(maxsplit=2)
        if len(parts) != 3 or not all(_NUMBER.fullmatch(text) for text in parts[:2]):
            raise ProductError(
                f"line {number} is not an exposure number, a CCD number and a path", file=path, remedy=_REMEDY
            )
        found.append(PsfLine(parts[0], parts[1], path_of(parts[2].strip())))
    coadds = [i for i, line in enumerate(found) if line.expnum == COADD_NUMBER]
    if coadds != [0]:
        raise ProductError("a PSF map begins with one coadd line, -9999 -9999", file=path, remedy=_REMEDY)
    return found
