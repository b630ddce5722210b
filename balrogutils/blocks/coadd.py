"""Blocks 2 and 16, first part: band coadds and the detection image."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.archive.geometry import Geometry
from balrogutils.coadd.assembly import Coadd, Zipper, fill_columns, read_coadd, undo_filling, write_coadd
from balrogutils.coadd.swarp import Grid, coadd_band, coadd_chi_mean, read_frames, write_lists
from balrogutils.context import Context
from balrogutils.errors import InputError, ProductError, ToolError
from balrogutils.fitsfile import Header
from balrogutils.graph import Job
from balrogutils.products import sha256
from balrogutils.scratch import scratch
from balrogutils.wcs import ImageWCS

__all__ = ["coadd", "detection"]

_log = logging.getLogger(__name__)

SWARP_CONFIG = "Y3A1_v1_swarp.config"
# Pixels by which SWarp's grid may differ from the tile's: far below what photometry or astrometry can see.
_GRID_TOLERANCE = 0.01
_WCS = (
    *("EQUINOX", "RADESYS", "CTYPE1", "CTYPE2", "CUNIT1", "CUNIT2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2"),
    *("CD1_1", "CD1_2", "CD2_1", "CD2_2"),
)


# A tangent plane is given by these alone; when they agree there is no need to project anything.
_LINEAR_WCS = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")


def _grid(geometry: Geometry) -> Grid:
    return Grid(geometry.ra_cent, geometry.dec_cent, (geometry.naxis2, geometry.naxis1), geometry.pixelscale)


def _check_grid(header: Header, geometry: Geometry, log: Path, *, tile: str, band: str) -> None:
    wanted = geometry.header()
    if all(np.isclose(header.get(key, np.nan), wanted[key], rtol=1e-9, atol=1e-12) for key in _LINEAR_WCS):
        return
    off = ImageWCS(header).offset(geometry.wcs(), (geometry.naxis2, geometry.naxis1))
    if not off < _GRID_TOLERANCE:
        remedy = (
            "the tile's geometry must be a north-up tangent plane about its centre; check the archive's geometry table"
        )
        raise ToolError(
            f"the coadd's WCS is {off:.3g} pixels off the tile's", tile=tile, band=band, file=log, remedy=remedy
        )


def _cards(context: Context, band: str, geometry: Geometry, images: int) -> dict[str, Any]:
    corners = {f"{axis}C{i}": getattr(geometry, f"{axis.lower()}c{i}") for i in range(1, 5) for axis in ("RA", "DEC")}
    return {
        "BAND": band,
        "MAGZERO": context.campaign.magzp_ref,
        "TILENAME": context.tile,
        "RA_CENT": geometry.ra_cent,
        "DEC_CENT": geometry.dec_cent,
        **corners,
        "NCOMBINE": images,
    }


def _config(context: Context) -> tuple[Path, dict[str, Any]]:
    path = context.site.base / "etc" / SWARP_CONFIG
    if not path.is_file():
        raise InputError("the SWarp configuration is not there", file=path, remedy="restore it from the repository")
    zipper = Zipper()
    return path, {SWARP_CONFIG: sha256(path), "magzp_ref": context.campaign.magzp_ref, "zipper": vars(zipper)}


def coadd(context: Context, band: str) -> None:
    """Make the coadd of one band: SWarp twice, mask, interpolation along columns.

    Parameters
    ----------
    context : Context
        Tile, base run or realization.
    band : str
        Band.

    Raises
    ------
    BalrogError
        When an image is missing or damaged, none covers the tile, or SWarp fails.
    """
    tree, tile = context.tree, context.tile
    config, settings = _config(context)
    with Job("coadd", context, band).open(settings) as step:
        # What is not there is told, with who makes it, by those who read it.
        step.read(config, *filter(Path.is_file, (tree.geometry, tree.flist("nullwt", band))))
        geometry = Geometry.read(tree.geometry)
        frames = read_frames(tree.flist("nullwt", band), tile=tile, band=band)
        step.read(*(frame.path for frame in frames))
        lists = {kind: tree.swarp_list(kind, band) for kind in ("im", "wt", "msk", "fsc")}
        reference = context.campaign.magzp_ref
        write_lists(lists, frames, reference)
        logs = tree.tool_log("swarp", band), tree.tool_log("swarp_mask", band)
        with scratch(context.site.tmp, f"{tile}_{context.realization or 'base'}_{band}_coadd") as directory:
            planes = coadd_band(
                *(frames, _grid(geometry), directory),
                config=config,
                reference=reference,
                logs=logs,
                tile=tile,
                band=band,
                timeout=context.pipeline.tool_timeout,
            )
        _check_grid(planes.header, geometry, logs[0], tile=tile, band=band)
        msk = (planes.mask_weight == 0).astype(np.int16)
        filled = fill_columns(planes.sci, msk)
        result = Coadd(planes.sci, msk, planes.wgt, planes.header, filled)
        write_coadd(tree.image(band), result, _cards(context, band, geometry, len(frames)))
        step.wrote(tree.image(band), *lists.values())
        bad = int(np.count_nonzero(msk))
        step.count(images=len(frames), pixels=msk.size, masked=bad, interpolated=len(filled))
        text = "%s %s: coadded %d images; %d of %d pixels masked, %d of them interpolated"
        _log.info(text, tile, band, len(frames), bad, msk.size, len(filled))


def detection(context: Context) -> None:
    """Make the CHI-MEAN detection image of the campaign's detection bands.

    Parameters
    ----------
    context : Context
        Tile, base run or realization.

    Raises
    ------
    BalrogError
        When a band's coadd is missing, nothing of the tile is covered, or SWarp fails.

    Notes
    -----
    The bands enter as they were before interpolation along columns. A pixel is masked when it is masked in every
    detection band, which is what a second SWarp pass with the mask weights gives: its weight is 0 exactly there.
    """
    tree, tile = context.tree, context.tile
    config, settings = _config(context)
    with Job("coadd", context, "det").open({**settings, "det": context.det_bands}) as step:
        step.read(config, *filter(Path.is_file, [tree.geometry]))
        geometry = Geometry.read(tree.geometry)
        grid = _grid(geometry)
        step.read(*(tree.image(band) for band in context.det_bands))
        masked = np.ones(grid.shape, dtype=bool)
        log = tree.tool_log("swarp", "det")
        with scratch(context.site.tmp, f"{tile}_{context.realization or 'base'}_det_coadd") as directory:
            for band in context.det_bands:
                masked &= _unpack(tree.image(band), directory / band, grid.shape, tile=tile, band=band)
            timeout = context.pipeline.tool_timeout
            planes = coadd_chi_mean(context.det_bands, grid, directory, config=config, log=log, timeout=timeout)
        _check_grid(planes.header, geometry, log, tile=tile, band="det")
        if not (planes.wgt > 0).any() or masked.all():
            remedy = "look at the masks of the band coadds"
            raise InputError("no pixel of the tile is good in any detection band", tile=tile, band="det", remedy=remedy)
        msk = masked.astype(np.int16)
        filled = fill_columns(planes.sci, msk)
        det = Coadd(planes.sci, msk, planes.wgt, planes.header, filled)
        write_coadd(tree.image("det"), det, _cards(context, "det", geometry, len(context.det_bands)))
        step.wrote(tree.image("det"))
        bad = int(np.count_nonzero(msk))
        step.count(images=len(context.det_bands), pixels=msk.size, masked=bad, interpolated=len(filled))
        _log.info("%s det: combined %s; %d of %d pixels masked", tile, " ".join(context.det_bands), bad, msk.size)


def _unpack(path: Path, stem: Path, shape: tuple[int, int], *, tile: str, band: str) -> NDArray[np.bool_]:
    """Write a band's pixels before interpolation, and its weights, as SWarp wants them; return what was masked."""
    image = read_coadd(path)
    if image.sci.shape != shape:
        remedy = "make the coadd again (mode 2, or 16 for a realization)"
        text = f"the coadd has shape {image.sci.shape}, the tile {shape}"
        raise ProductError(text, tile=tile, band=band, file=path, remedy=remedy)
    masked = undo_filling(image)
    cards = [{"name": key, "value": image.header[key]} for key in _WCS if key in image.header]
    fitsio.write(f"{stem}_sci.fits", image.sci, header=cards)
    fitsio.write(f"{stem}_wgt.fits", image.wgt, header=cards)
    return masked
