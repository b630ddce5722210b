"""One object to measure: its catalogue identity, its single epochs, and where they lie beside the coadd."""

from __future__ import annotations

from dataclasses import dataclass

from balrogutils.fitting.observation import LocalWCS, Observation

__all__ = ["Coadd", "Epoch", "Target"]


@dataclass(frozen=True)
class Epoch:
    """One single-epoch stamp of an object and where it came from; positions are zero-offset pixels there."""

    observation: Observation
    cutout_index: int
    file_id: int
    orig_row: float
    orig_col: float
    image_id: str = ""


@dataclass(frozen=True)
class Coadd:
    """The stamp of the coadd in one band: its map and its shape."""

    wcs: LocalWCS
    shape: tuple[int, int]


@dataclass(frozen=True)
class Target:
    """One object to fit: catalogue identity and its single epochs, band by band; `coadds` may be unknown."""

    id: int
    number: int
    ra: float
    dec: float
    box_size: int
    bands: tuple[tuple[Epoch, ...], ...]
    coadds: tuple[Coadd, ...] = ()
