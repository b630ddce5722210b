"""Block 1 for tiles of NOIRLab Community Pipeline images."""

from __future__ import annotations

import numpy as np

from balrogutils.archive.geometry import Geometry
from balrogutils.archive.noirlab import tile_ccds
from balrogutils.archive.queries import Database
from balrogutils.archive.transfer import Transfer
from balrogutils.blocks.prepared import Prepared, fetch, reason
from balrogutils.context import Context
from balrogutils.errors import ArchiveError, ProductError
from balrogutils.exposures.chip import PreparedChip
from balrogutils.exposures.cpmodels import PlacedPSF, mean_psf, read_psf, read_sky
from balrogutils.exposures.noirlab import read_exposure, require_wcs
from balrogutils.exposures.nullweights import NullWeights, null_weights, write_nullwt
from balrogutils.exposures.segmentation import segment
from balrogutils.fitsfile import Plane, write_images
from balrogutils.progress import track
from balrogutils.wcs import ImageWCS

__all__ = ["make"]


def make(context: Context, band: str, database: Database, transfer: Transfer, geometry: Geometry) -> Prepared:
    """Query, fetch and make the products of one band.

    Parameters
    ----------
    context : Context
        The tile, in the base run.
    band : str
        Band.
    database : Database
        The archive's database.
    transfer : Transfer
        The archive's files.
    geometry : Geometry
        The tile.

    Returns
    -------
    Prepared
        CCDs whose zero point, PSF model, sky model or WCS is missing or unusable are in `left_out`.

    Raises
    ------
    ArchiveError
        The archive lacks a file, or a file is damaged.
    """
    tree, tile = context.tree, context.tile
    found = tile_ccds(database, geometry, band)
    local = fetch(context, band, transfer, found.files)
    made = Prepared(tree.coadd_psf(band), left_out=dict(found.left_out), sources=list(local.values()))
    extra = {"TILENAME": tile, "TILEID": geometry.tileid}
    placed: list[PlacedPSF] = []
    for files in track(found.chips, f"{tile} {band}: null-weight images", unit="CCDs"):
        try:
            psf = read_psf(local[files.psf], files.row["expnum"], files.row["ccdname"])
            sky = read_sky(local[files.sky], files.row["expnum"], files.row["ccdname"])
            require_wcs(local[files.image], int(files.row["image_hdu"]))
        except ProductError as error:
            made.left_out[files.chip] = reason(error)
            continue
        exposure = read_exposure(local[files.image], local[files.weight], local[files.mask], sky, files.row, extra)
        planes = null_weights(exposure.sci, exposure.wgt, exposure.msk)
        paths = {
            "nullwt": tree.nullwt(band, files.chip),
            "seg": tree.chip_segmap(band, files.chip),
            "bkg": tree.chip_bkg(band, files.chip),
            "psf": tree.psf(files.chip),
        }
        write_nullwt(paths["nullwt"], planes, exposure.header)
        write_images(paths["bkg"], [Plane("SCI", exposure.bkg, exposure.header)])
        segment(
            planes.sci - exposure.bkg,
            planes.wgt,
            paths["seg"],
            exposure.header,
            log=tree.tool_log(f"{files.chip}_sextractor", band),
            tmp=context.site.tmp,
            label=f"{tile}_base_{files.chip}_segment",
            timeout=context.pipeline.tool_timeout,
        )
        psf.write(paths["psf"])
        made.chips.append(PreparedChip.of(files.chip, files.magzp, planes, **paths))
        made.refilled += exposure.refilled
        placed.append(
            PlacedPSF(
                psf,
                ImageWCS(exposure.header),
                planes.sci.shape,
                _coadd_weight(planes, files.magzp, context.campaign.magzp_ref),
            )
        )
    if any(one.weight > 0 for one in placed):
        mean_psf(placed, geometry.ra_cent, geometry.dec_cent, geometry.wcs()).write(made.coadd_psf)
    elif placed:
        raise ArchiveError("no CCD of this tile and band has a pixel with weight", tile=tile, band=band)
    return made


def _coadd_weight(planes: NullWeights, magzp: float, magzp_ref: float) -> float:
    """Return the weight of an image in the coadd: its median inverse variance at the coadd's zero point."""
    positive = planes.wgt[planes.wgt > 0]
    return float(np.median(positive)) * 10.0 ** (-0.8 * (magzp_ref - magzp)) if positive.size else 0.0
