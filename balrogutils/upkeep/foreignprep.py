"""What block 1 leaves, in a tile that was made elsewhere: lists, and the CCDs they name (layout: P 2.1)."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from balrogutils.errors import ArchiveError, ProductError
from balrogutils.exposures.chip import numbers_of
from balrogutils.exposures.lists import read_flist, read_psfmap, read_zero_points
from balrogutils.layout import chip_of
from balrogutils.progress import track
from balrogutils.psf import PSFEx
from balrogutils.settings.yamlfile import load_yaml
from balrogutils.upkeep.findings import GRID_TOLERANCE, Findings, Whole, read_hdus, shape_of
from balrogutils.wcs import ImageWCS

__all__ = ["look_at_prep", "rename"]

_PLANES = ("SCI", "WGT", "WGT_ME", "MSK")
_VARIABLE = re.compile(r"\$\{?\w")
_IF_MOVED = "restore it; if the tile was moved, say so: --moved OLD=NEW"
_ORDER = "put the lists into one order, or restore them from where the tile was made"
# Where the path stands in a line of each list.
_PLACES: dict[str, Callable[[str], str]] = {
    "nullwt": lambda line: line.strip().rpartition(" ")[0].strip(),
    "seg": str.strip,
    "bkg": str.strip,
    "psfmap": lambda line: (*line.split(maxsplit=2), "", "", "")[2].strip(),
}


class _Ccd(NamedTuple):
    name: str
    image: Path
    seg: Path
    bkg: Path
    psf: Path | None


def look_at_prep(found: Findings, band: str) -> Whole | None:
    """Return the prep step of a band where it is whole; otherwise what is wrong with it is in `found`."""
    tree, before = found.tree, len(found.problems)
    files = {kind: tree.flist(kind, band) for kind in ("nullwt", "seg", "bkg")} | {"psfmap": tree.psfmap(band)}
    conf = tree.fileconf(band)
    if not files["nullwt"].is_file() and any(tree.nullwt_dir(band).glob("*.fits")):
        found.note("null-weight images have no list", band=band, file=files["nullwt"])
        return None
    if not found.there("prep", band, *files.values(), conf):
        return None
    images = _read(found, read_zero_points, "nullwt", files["nullwt"], band)
    segs, bkgs = (_read(found, read_flist, kind, files[kind], band) for kind in ("seg", "bkg"))
    psfs = _read(found, read_psfmap, "psfmap", files["psfmap"], band)
    if len(found.problems) > before:
        return None
    lengths = {"nullwt": len(images), "seg": len(segs), "bkg": len(bkgs), "psfmap": len(psfs) - 1}
    if len(set(lengths.values())) > 1 or not images:
        counts = ", ".join(f"{kind} {count}" for kind, count in lengths.items())
        text = f"the lists have different lengths: {counts}" if images else "the null-weight list is empty"
        found.note(text, band=band, file=files["nullwt"])
        return None
    _look_at_fileconf(found, conf, band)
    coadd_psf = psfs[0].path
    models = {(int(line.expnum), int(line.ccdnum)): line.path for line in psfs}
    ccds = _ccds(found, [path for path, _ in images], segs, bkgs, models, files, band)
    _note_missing(found, ccds, coadd_psf, files, band)
    _look_at_psf(found, coadd_psf, band)
    for ccd in track(ccds, f"{tree.tile} {band}: looking at CCDs", unit="CCDs"):
        _look_at_ccd(found, ccd, band)
    if len(found.problems) > before:
        return None
    side = (path for ccd in ccds for path in (ccd.image, ccd.seg, ccd.bkg, ccd.psf) if path is not None)
    outputs = (*side, coadd_psf, *files.values(), conf)
    count = {"chips": len(ccds), "exposures": len({ccd.name.split("_")[0] for ccd in ccds})}
    return Whole("prep", band, outputs, count)


# lists


def _read(found: Findings, read: Callable[..., list[Any]], kind: str, file: Path, band: str) -> list[Any]:
    strange: list[str] = []

    def path_of(text: str) -> Path:
        now = found.moved(text)
        if not now.startswith("/") or _VARIABLE.search(now):
            strange.append(now)
        return Path(now)

    rows: list[Any] = []
    with found.noting(band, file):
        rows = read(file, path_of)
        rename(found, kind, file)
    if strange:
        first = strange[0].split("/")[0]
        full = os.path.expandvars(os.path.expanduser(first))  # noqa: PTH111 (the text of a path)
        place = full if full.startswith("/") else f"{found.tree.dir}/{first}"
        remedy = f"say what their beginning stands for, for example --moved {shlex.quote(f'{first}={place}')}"
        text = f"{len(strange)} paths are not whole, the first: {strange[0]}"
        found.note(text, band=band, file=file, remedy=remedy)
    return rows


def rename(found: Findings, kind: str, file: Path) -> None:
    """Keep the text of a list with the paths of moved directories renamed, where that changes it.

    Parameters
    ----------
    found : Findings
        Takes the text.
    kind : str
        ``nullwt seg bkg psfmap``: what a line looks like.
    file : Path
        The list.
    """
    old = file.read_text(encoding="utf-8")
    new = found.moved.lines(old, _PLACES[kind])
    if new != old:
        found.texts[file] = new


def _look_at_fileconf(found: Findings, file: Path, band: str) -> None:
    with found.noting(band, file):
        old = load_yaml(file)
        new = {key: found.moved(value) if isinstance(value, str) else value for key, value in old.items()}
        if new != old:
            found.texts[file] = yaml.safe_dump(new, sort_keys=False, width=1_000_000)
        wanted = {"band": band, "tilename": found.tree.tile}
        for key, kind in (("nwgint_flist", "nullwt"), ("seg_flist", "seg"), ("bkg_flist", "bkg")):
            wanted[key] = str(found.tree.flist(kind, band))
        wrong = [key for key, value in wanted.items() if str(new.get(key)) != value]
        if wrong:
            text = "; ".join(f"{key} is {new.get(key)}, not {wanted[key]}" for key in wrong)
            remedy = _renaming(found, Path(str(new.get(wrong[-1])))) or "write what this tile has"
            found.note(text, band=band, file=file, key=" ".join(wrong), remedy=remedy)


def _numbers(path: Path) -> tuple[int, int] | None:
    try:
        exposure, ccd = numbers_of(chip_of(path))
    except ArchiveError:
        return None
    return int(exposure), int(ccd)


def _ccds(
    found: Findings,
    images: Sequence[Path],
    segs: Sequence[Path],
    bkgs: Sequence[Path],
    models: dict[tuple[int, int], Path],
    files: dict[str, Path],
    band: str,
) -> list[_Ccd]:
    """Return the CCDs of the lists, each once, and note where the lists do not go together."""
    ccds: dict[tuple[int, int], _Ccd] = {}
    for number, (image, seg, bkg) in enumerate(zip(images, segs, bkgs, strict=True), start=1):
        name, key = chip_of(image), _numbers(image)
        if key is None or name.split("_")[1] != band:
            text = f"line {number} names no image D<exposure>_{band}_c<CCD>_...: {image.name}"
            found.note(text, band=band, file=files["nullwt"], remedy="mend the line, and the name of the image")
            continue
        for kind, path in (("seg", seg), ("bkg", bkg)):
            if _numbers(path) != key:
                text = f"line {number} is of another CCD than that of the null-weight list: {path.name}"
                found.note(text, band=band, chip=name, file=files[kind], remedy=_ORDER)
        if key in ccds:
            text = "the null-weight list names a CCD twice"
            found.note(text, band=band, chip=name, file=files["nullwt"], remedy="take one of the two out of all lists")
        if key not in models:
            found.note("the PSF map has no model of a CCD", band=band, chip=name, file=files["psfmap"], remedy=_ORDER)
        ccds[key] = _Ccd(name, image, seg, bkg, models.get(key))
    return list(ccds.values())


def _note_missing(found: Findings, ccds: Sequence[_Ccd], coadd_psf: Path, files: dict[str, Path], band: str) -> None:
    """Note the files of lists that are not there or not in this tree; where a whole list is at fault, once."""
    kinds: dict[str, list[tuple[str | None, Path]]] = {
        "nullwt": [(ccd.name, ccd.image) for ccd in ccds],
        "seg": [(ccd.name, ccd.seg) for ccd in ccds],
        "bkg": [(ccd.name, ccd.bkg) for ccd in ccds],
        "psfmap": [(None, coadd_psf), *((ccd.name, ccd.psf) for ccd in ccds if ccd.psf is not None)],
    }
    for kind, named in kinds.items():
        gone = [(name, path) for name, path in named if not path.is_file()]
        if len(gone) == len(named) > 1:
            text = f"none of the {len(named)} files of a list is there, the first: {gone[0][1]}"
            found.note(text, band=band, file=files[kind], remedy=_renaming(found, gone[0][1]) or _IF_MOVED)
            continue
        for name, path in gone:
            text = f"a file of {files[kind].name} is not there"
            found.note(text, band=band, chip=name, file=path, remedy=_renaming(found, path) or _IF_MOVED)
    own = found.tree.nullwt_dir(band)
    away = [ccd for ccd in ccds if ccd.image.is_file() and not (own.is_dir() and ccd.image.parent.samefile(own))]
    if away:
        text = f"{len(away)} of {len(ccds)} null-weight images are not in {own}, the first: {away[0].image}"
        remedy = _renaming(found, away[0].image) or f"bring them to {own}, and their new paths into the list"
        found.note(text, band=band, chip=away[0].name, file=files["nullwt"], remedy=remedy)


def _renaming(found: Findings, path: Path) -> str | None:
    """Return the remedy for a path of the tile's old place that leads to a file when the place is renamed."""
    for at, part in enumerate(path.parts):
        here = found.tree.dir.joinpath(*path.parts[at + 1 :])
        if part != found.tree.tile or here == path or not here.is_file():
            continue
        old, new = list(path.parts), list(here.parts)
        while old and new and old[-1] == new[-1]:
            old.pop()
            new.pop()
        if old and new:
            pair = shlex.quote(f"{Path(*old)}={Path(*new)}")
            return f"the tile was moved: balrog adopt {found.tree.tile} --moved {pair}"
    return None


# CCDs


def _look_at_psf(found: Findings, path: Path | None, band: str, chip: str | None = None) -> None:
    if path is not None and path.is_file():
        with found.noting(band, path, chip):
            PSFEx.read(path)


def _look_at_ccd(found: Findings, ccd: _Ccd, band: str) -> None:
    settings = found.context.desmeds
    shape: tuple[int, int] | None = None
    if ccd.image.is_file():
        with found.noting(band, ccd.image, ccd.name):
            # Not even at weight 0 may a pixel be no number: it would shift SWarp's background of the whole image.
            sci = read_hdus(ccd.image, _PLANES, finite=_PLANES[:3])[0]
            shape = sci.shape
            wcs = ImageWCS(sci.header)
            if not wcs.offset(wcs, shape) < GRID_TOLERANCE:
                raise ProductError("the WCS does not lead from pixels to the sky and back", key="SCI")
    side = {ccd.seg: settings.se_seg_ext}
    if settings.se_has_bkg:
        side[ccd.bkg] = settings.se_bkg_ext
    for path, ext in side.items():
        if path.is_file():
            with found.noting(band, path, ccd.name):
                its = shape_of(path, ext)
                if shape is not None and its != shape:
                    raise ProductError(f"the shape is {its}, that of the null-weight image {shape}", key=str(ext))
    _look_at_psf(found, ccd.psf, band, ccd.name)
