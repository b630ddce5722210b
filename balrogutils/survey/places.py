"""Names and directories of the files of a DES-style archive, relative to its root."""

from __future__ import annotations

from pathlib import PurePosixPath

from balrogutils.survey.telescope import Chip

__all__ = ["COADD_RUN", "chip_files", "coadd_files", "ohead"]

COADD_RUN = "r2577p01"
"""Request and attempt of the coadds of all tiles."""


def chip_files(chip: Chip) -> dict[str, PurePosixPath]:
    """Return the paths of a CCD's image, background map, segmentation map and PSF model."""
    exposure = chip.exposure
    root = PurePosixPath(f"OPS/finalcut/Y2A1v3/{exposure.night:%Y%m%d}-{exposure.request}/{exposure.unit}/p01")
    return {
        "immask": root / "red" / "immask" / f"{chip.name}_immasked.fits.fz",
        "bkg": root / "red" / "bkg" / f"{chip.name}_bkg.fits.fz",
        "seg": root / "seg" / f"{chip.name}_segmap.fits.fz",
        "psf": root / "psf" / f"{chip.name}_psfexcat.psf",
    }


def _tile_root(tile: str) -> PurePosixPath:
    request, attempt = COADD_RUN[:-3], COADD_RUN[-3:]
    return PurePosixPath(f"OPS/multiepoch/Y3A1/{request}/{tile}/{attempt}")


def ohead(tile: str, chip: Chip) -> PurePosixPath:
    """Return the path of a CCD's SCAMP head in the coadd directory of a tile."""
    return (
        _tile_root(tile) / "aux" / f"{tile}_{COADD_RUN}_{chip.exposure.unit}_{chip.band}_c{chip.number:02d}_scamp.ohead"
    )


def coadd_files(tile: str, band: str) -> dict[str, PurePosixPath]:
    """Return the paths of a tile's coadd, catalogue, segmentation map and PSF model in one band."""
    stem = f"{tile}_{COADD_RUN}_{band}"
    root = _tile_root(tile)
    return {
        "coadd": root / "coadd" / f"{stem}.fits.fz",
        "cat": root / "cat" / f"{stem}_cat.fits",
        "seg": root / "seg" / f"{stem}_segmap.fits",
        "psf": root / "psf" / f"{stem}_psfcat.psf",
    }
