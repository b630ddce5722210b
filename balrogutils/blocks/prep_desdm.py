"""Block 1 for tiles of the DES archive."""

from __future__ import annotations

from balrogutils import products
from balrogutils.archive.desdm import tile_files
from balrogutils.archive.geometry import Geometry
from balrogutils.archive.queries import Database
from balrogutils.archive.transfer import Transfer
from balrogutils.blocks.prepared import Prepared, fetch, reason
from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.exposures.chip import PreparedChip
from balrogutils.exposures.desdm import make_nullwt
from balrogutils.exposures.scamphead import read_ohead
from balrogutils.progress import track
from balrogutils.psf import PSFEx
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
        CCDs whose zero point, PSF model or WCS is missing or unusable are in `left_out`.

    Raises
    ------
    ArchiveError
        The archive lacks a file, or a file is damaged.
    """
    tree, tile = context.tree, context.tile
    found = tile_files(database, context.campaign.proctag, context.campaign.se_proctag, tile, band)
    local = fetch(context, band, transfer, found.files)
    made = Prepared(tree.psfs / found.coadd_psf.name, left_out=dict(found.left_out), sources=list(local.values()))
    made.coadd = {kind: local[file] for kind, file in found.coadd.items()}
    PSFEx.read(local[found.coadd_psf])
    products.link_or_copy(local[found.coadd_psf], made.coadd_psf)
    extra = {"TILENAME": tile, "TILEID": geometry.tileid}
    for files in track(found.chips, f"{tile} {band}: null-weight images", unit="CCDs"):
        try:
            PSFEx.read(local[files.psf])
            wcs = read_ohead(local[files.head])
            ImageWCS(wcs)
        except ProductError as error:
            made.left_out[files.chip] = reason(error)
            continue
        target = tree.nullwt(band, files.chip)
        planes = make_nullwt(local[files.image], target, wcs, extra)
        # Under the archive's own name: files of some surveys do not follow the pattern of the chip.
        psf = tree.psfs / files.psf.name
        products.link_or_copy(local[files.psf], psf)
        made.chips.append(
            PreparedChip.of(
                files.chip, files.magzp, planes, nullwt=target, seg=local[files.seg], bkg=local[files.bkg], psf=psf
            )
        )
    return made
