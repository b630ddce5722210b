"""The DES archive's file names: from the rows of the database to the files of one tile and band."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from balrogutils.archive.names import path_parts
from balrogutils.archive.queries import CoaddRow, Database, ExposureRow, FileRow
from balrogutils.archive.transfer import ArchiveFile
from balrogutils.errors import ArchiveError
from balrogutils.layout import chip_of

__all__ = ["ChipFiles", "TileFiles", "tile_files"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChipFiles:
    """The archive's files of one CCD."""

    chip: str
    magzp: float
    image: ArchiveFile
    bkg: ArchiveFile
    seg: ArchiveFile
    psf: ArchiveFile
    head: ArchiveFile

    @property
    def files(self) -> tuple[ArchiveFile, ...]:
        """All of them, the image first."""
        return (self.image, self.bkg, self.seg, self.psf, self.head)


@dataclass(frozen=True)
class TileFiles:
    """The archive's files of one tile and band.

    Attributes
    ----------
    coadd_psf : ArchiveFile
        PSF model of the survey's coadd.
    coadd : dict
        ``image``, ``cat`` and ``seg`` of the survey's coadd, where the archive has them.
    chips : list of ChipFiles
        CCDs in the order of their names.
    left_out : dict
        Chip name to the reason it is not among `chips`.
    """

    coadd_psf: ArchiveFile
    coadd: dict[str, ArchiveFile] = field(default_factory=dict)
    chips: list[ChipFiles] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> list[ArchiveFile]:
        """Everything to fetch."""
        return [*self.coadd.values(), self.coadd_psf, *(file for chip in self.chips for file in chip.files)]


def _sibling(path: str, last: tuple[str, ...], replacement: tuple[str, ...], *, file: str) -> str:
    """Return `path` with its last components replaced; they must be `last` (P 3.1)."""
    parts = PurePosixPath(path).parts
    if parts[-len(last) :] != last:
        raise ArchiveError(
            f"the archive's path {path} does not end in {'/'.join(last)}",
            file=file,
            remedy="repair the archive's database",
        )
    return "/".join((*parts[: -len(last)], *replacement))


def _coadd_names(row: CoaddRow, band: str) -> dict[str, tuple[str, str]]:
    """Return kind to (directory, file name) of what belongs to a coadd."""
    stem = row.filename.removesuffix(".fits")
    kinds = {
        "image": ("coadd", ""),
        "cat": ("cat", "_cat.fits"),
        "seg": ("seg", "_segmap.fits"),
        "psf": ("psf", "_psfcat.psf"),
    }
    return {
        kind: (
            _sibling(row.path, ("coadd",), (directory,), file=row.filename),
            stem + suffix if suffix else row.filename,
        )
        for kind, (directory, suffix) in kinds.items()
    }


def _chip_names(row: ExposureRow, coadd: CoaddRow, band: str) -> dict[str, tuple[str, str]]:
    """Return kind to (directory, file name) of what belongs to a CCD."""
    chip = chip_of(row.filename)
    stem = coadd.filename.removesuffix(f"_{band}.fits")
    exposure = "_".join(chip.split("_")[:3])
    immask = ("red", "immask")
    return {
        "image": (row.path, row.filename),
        "bkg": (_sibling(row.path, immask, ("red", "bkg"), file=row.filename), f"{chip}_bkg.fits"),
        "seg": (_sibling(row.path, immask, ("seg",), file=row.filename), f"{chip}_segmap.fits"),
        "psf": (_sibling(row.path, immask, ("psf",), file=row.filename), f"{chip}_psfexcat.psf"),
        "head": (_sibling(coadd.path, ("coadd",), ("aux",), file=coadd.filename), f"{stem}_{exposure}_scamp.ohead"),
    }


def _file(place: tuple[str, str], known: dict[str, FileRow]) -> ArchiveFile | None:
    directory, name = place
    row = known.get(name)
    return (
        None
        if row is None
        else ArchiveFile.recorded(f"{directory.strip('/')}/{name}{row.compression}", row.filesize, row.md5sum)
    )


def tile_files(database: Database, tag: str, se_tag: str, tile: str, band: str) -> TileFiles:
    """Ask the database for every file of one tile and band.

    Parameters
    ----------
    database : Database
        The archive.
    tag, se_tag : str
        Processing tags of the coadd and single-epoch campaigns.
    tile, band : str
        What to look for.

    Returns
    -------
    TileFiles
        A CCD without zero point, PSF model or SCAMP head is left out and listed.

    Raises
    ------
    ArchiveError
        When there is no coadd, no CCD at all, or the archive has no record of a file that every CCD has.
    """
    coadd = database.coadd(tag, tile, band)
    exposures = database.exposures(tag, se_tag, tile, band)
    # Before any of them is part of a message.
    rows: list[CoaddRow | ExposureRow] = [coadd, *exposures]
    for found_row in rows:
        path_parts(f"{found_row.path.strip('/')}/{found_row.filename}{found_row.compression}", tile=tile, band=band)
    coadd_names = _coadd_names(coadd, band)
    places = {row.filename: _chip_names(row, coadd, band) for row in exposures}
    known = database.files(name for names in (coadd_names, *places.values()) for _, name in names.values())
    coadd_files = {kind: _file(place, known) for kind, place in coadd_names.items()}
    psf = coadd_files.pop("psf")
    if psf is None:
        raise ArchiveError(
            "the archive has no PSF model of the coadd",
            tile=tile,
            band=band,
            file=coadd_names["psf"][1],
            remedy="repair the archive, or take the band out of the campaign",
        )
    found = TileFiles(psf, {kind: file for kind, file in coadd_files.items() if file is not None})
    for row in exposures:
        chip = chip_of(row.filename)
        if row.magzp is None:
            found.left_out[chip] = "no zero point"
            continue
        files = {kind: _file(place, known) for kind, place in places[row.filename].items()}
        for kind in ("image", "bkg", "seg"):
            if files[kind] is None:
                raise ArchiveError(
                    f"the archive has no record of the {kind} file",
                    tile=tile,
                    band=band,
                    chip=chip,
                    file=places[row.filename][kind][1],
                    remedy="repair the archive's database",
                )
        if files["psf"] is None:
            found.left_out[chip] = "no PSF model"
        elif files["head"] is None:
            found.left_out[chip] = "no SCAMP head"
        else:
            found.chips.append(ChipFiles(chip, row.magzp, **files))  # type: ignore[arg-type]
    without = sum(reason == "no zero point" for reason in found.left_out.values())
    _log.info(
        "%s %s: %d CCDs, %d left out (%d for want of a zero point)",
        tile,
        band,
        len(found.chips),
        len(found.left_out),
        without,
    )
    return found
