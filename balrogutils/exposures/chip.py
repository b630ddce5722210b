"""One prepared CCD: what the lists of a tile say about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from balrogutils.errors import ArchiveError
from balrogutils.exposures.nullweights import NullWeights

__all__ = ["PreparedChip", "numbers_of"]

_NAME = re.compile(r"^D(?P<exposure>\d+)_[^_]+_c(?P<ccd>\d+)(?:_|$)")


def numbers_of(chip: str) -> tuple[str, str]:
    """Return the exposure and CCD numbers of a chip name as text, leading zeros kept.

    Raises
    ------
    ArchiveError
        When the name does not begin with ``D<E>_<b>_c<N>``.
    """
    match = _NAME.match(chip)
    if match is None:
        raise ArchiveError(
            "not the name of a single-epoch image", file=chip, remedy="names begin with D<exposure>_<band>_c<ccd>"
        )
    return match["exposure"], match["ccd"]


@dataclass(frozen=True)
class PreparedChip:
    """The products of one CCD.

    Attributes
    ----------
    chip : str
        ``D<E>_<b>_c<N>_r<NNNN>p<NN>``.
    magzp : float
        AB magnitude of one unit of the image.
    nullwt, seg, bkg, psf : pathlib.Path
        Null-weight image, segmentation map, residual background, PSFEx model.
    interpolated, not_finite : int
        Pixels filled along rows; pixels whose image or weight was no finite number.
    dead : bool
        Whether no pixel has weight.
    """

    chip: str
    magzp: float
    nullwt: Path
    seg: Path
    bkg: Path
    psf: Path
    interpolated: int
    not_finite: int
    dead: bool

    @classmethod
    def of(
        cls, chip: str, magzp: float, planes: NullWeights, *, nullwt: Path, seg: Path, bkg: Path, psf: Path
    ) -> PreparedChip:
        """Return the record of a CCD whose planes have been written to `nullwt`."""
        return cls(chip, magzp, nullwt, seg, bkg, psf, planes.interpolated, planes.not_finite, planes.dead)
