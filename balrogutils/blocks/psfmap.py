"""Blocks 2 and 16, beside the coadds: the PSF maps of all bands in one file."""

from __future__ import annotations

import logging

from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.graph import Job
from balrogutils.products import writing_text

__all__ = ["join"]

_log = logging.getLogger(__name__)


def join(context: Context) -> None:
    """Put the PSF maps of all bands into one file, band after band (P 2.1).

    A step of its own: it alone of block 2 reads every band, and a band that is added must not have the detection
    image made again, and everything after it, when it is none of the detection bands.

    Parameters
    ----------
    context : Context
        Tile, base run or realization.

    Raises
    ------
    ProductError
        When a band's PSF map is missing, or is not as it was left.
    """
    tree = context.tree
    with Job("coadd", context, "all").open({"bands": context.bands}) as step:
        texts = []
        for band in context.bands:
            path = tree.psfmap(band)
            if not path.is_file():
                remedy = "run prep (mode 1), or injection (mode 8) for a realization"
                raise ProductError("there is no PSF map", tile=context.tile, band=band, file=path, remedy=remedy)
            step.read(path)
            text = path.read_text(encoding="utf-8")
            texts.append(text if text.endswith("\n") or not text else text + "\n")
        writing_text(tree.all_psfmap, "".join(texts))
        step.wrote(tree.all_psfmap)
        _log.info("%s: joined the PSF maps of %s", context.tile, " ".join(context.bands))
