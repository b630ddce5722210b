"""What block 1 has made of one band, whichever archive it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from balrogutils.archive.shared import SharedFiles
from balrogutils.archive.transfer import ArchiveFile, Transfer
from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.exposures.chip import PreparedChip

__all__ = ["Prepared", "fetch", "reason"]


@dataclass
class Prepared:
    """The products of one band before the lists are written.

    Attributes
    ----------
    coadd_psf : pathlib.Path
        PSF model of the coadd.
    chips : list of PreparedChip
        The CCDs in the order of the lists.
    left_out : dict
        Chip name to the reason it is not among `chips`.
    coadd : dict
        ``image``, ``cat`` and ``seg`` of the survey's own coadd, where there is one.
    sources : list of pathlib.Path
        Files as fetched.
    refilled : int
        Pixels whose weight was filled from around them.
    """

    coadd_psf: Path
    chips: list[PreparedChip] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    coadd: dict[str, Path] = field(default_factory=dict)
    sources: list[Path] = field(default_factory=list)
    refilled: int = 0


def fetch(context: Context, band: str, transfer: Transfer, files: list[ArchiveFile]) -> dict[ArchiveFile, Path]:
    """Fetch files of a band, but for those that another tile has fetched; return where each lies."""
    shared = SharedFiles(context.site.shared)
    paths = transfer.fetch(files, context.tree.sources(band), tile=context.tile, band=band, shared=shared)
    return dict(zip(files, paths, strict=True))


def reason(error: ProductError) -> str:
    """Return in one line why a CCD's model cannot be used."""
    return f"{error.message} ({Path(error.where['file']).name})" if "file" in error.where else error.message
