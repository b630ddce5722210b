"""Block 128: fits of groups of neighbours of a tile, base run or realization, and the fitted scene."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from balrogutils.blends.measure import MofRun
from balrogutils.blends.neighbours import fof_table, group_numbers, nbr_table
from balrogutils.blends.rendering import draw_catalogue
from balrogutils.blends.source import GroupSource, find_pairs
from balrogutils.blocks.fits import Work, fit_catalogue
from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.fitsfile import Plane, Table, read_header, read_image, write_images, write_tables
from balrogutils.measurement.catalogue import Rows
from balrogutils.meds import MEDS
from balrogutils.products import Step
from balrogutils.report.picture import fit_and_rest
from balrogutils.settings.mof import Mof

__all__ = ["mof"]

KIND = "mof"
_log = logging.getLogger(__name__)


def mof(context: Context, workers: int) -> None:
    """Fit every object of the tile's MEDS files together with its neighbours, and draw what was fit.

    Parameters
    ----------
    context : Context
        Tile, base run or realization.
    workers : int
        Processes. Changes no value and no product.

    Raises
    ------
    BalrogError
        As `balrogutils.blocks.fits.fit_catalogue`; ConfigError also when the configuration is wrong, ProductError also
        when a coadd or the segmentation is missing.
    """
    settings = Mof.load(context.fit_file(KIND), context.campaign)
    tree = context.tree

    def work(step: Step, meds: Mapping[str, Path]) -> Work:
        coadds = {band: tree.image(band) for band in meds}
        for band, file in coadds.items():
            if not file.is_file():
                remedy = "run block 16 first" if context.realization is not None else "run block 2 first"
                raise ProductError("a coadd is not there", tile=context.tile, band=band, file=file, remedy=remedy)
        step.read(*coadds.values())
        nbrs, fofs = tree.groups(KIND, "nbrslist"), tree.groups(KIND, "nbrsfofs")
        with GroupSource(meds) as source:
            number = source.numbers()
            pairs, unknown = find_pairs(source, settings.nbrs)
        group = group_numbers(number.size, pairs)
        sizes = np.bincount(group) if group.size else np.zeros(0, int)
        write_tables(nbrs, [Table("nbrs_data", nbr_table(number, pairs))])
        write_tables(fofs, [Table("fofs", fof_table(number, group))])
        largest = int(sizes.max(initial=0))
        _log.info(
            "%s: %d objects in %d groups, %d of one, the largest of %d; %d labels of objects that are not in the files",
            context.tile, number.size, sizes.size, int(np.count_nonzero(sizes == 1)), largest, unknown,
        )  # fmt: skip
        step.count(groups=int(sizes.size), largest_group=largest)

        def finish(rows: Rows) -> list[Path]:
            drawn = [path for band in meds for path in _draw(context, settings, list(meds), band, meds[band], rows)]
            return [nbrs, fofs, *drawn]

        return Work(MofRun(settings, meds, nbrs, fofs), int(sizes.size), number, finish)

    fit_catalogue(context, KIND, settings, work, workers)


def _draw(context: Context, settings: Mof, bands: list[str], band: str, path: Path, rows: Rows) -> tuple[Path, Path]:
    """Draw the fitted scene of one band; returns the image and the picture."""
    tree = context.tree
    coadd, weight = read_image(tree.image(band), "SCI"), read_image(tree.image(band), "WGT")
    with MEDS(path) as meds:
        shape = (coadd.shape[0], coadd.shape[1])
        light, drawn = draw_catalogue(shape, rows, settings.model, bands.index(band), meds)
        place = {int(label): index for index, label in enumerate(meds["id"])}
        failed = [place[int(row["id"])] for row in rows[rows["flags"] != 0]]
        positions = np.column_stack([meds["orig_row"][failed, 0], meds["orig_col"][failed, 0]])
    model = light.astype(np.float32)
    # Where the coadd has no data, or holds what interpolation put over a star that saturated, nothing can be left.
    weight = np.where(read_image(tree.image(band), "MSK") == 0, weight, 0).astype(np.float32)
    rest = np.where(weight > 0, coadd - model, 0).astype(np.float32)
    header = read_header(tree.image(band), "SCI")
    image, picture = tree.scene(KIND, band), tree.scene(KIND, band, "png")
    write_images(image, [Plane("MODEL", model, header), Plane("RESIDUAL", rest, header)])
    where = "" if context.realization is None else f", realization {context.realization}"
    fit_and_rest(
        coadd, weight, model, picture,
        title=f"{context.tile}, {band} band{where}: {drawn} fits of {settings.model}; rings: objects without a fit",
        positions=positions,
    )  # fmt: skip
    return image, picture
