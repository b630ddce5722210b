"""Block 512: BFD moments of a tile, base run or realization."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from balrogutils.blocks.fits import Work, fit_catalogue, neighbour_models, one_by_one
from balrogutils.context import Context
from balrogutils.measurement.bfd import BfdRun
from balrogutils.products import Step
from balrogutils.settings.bfd import Bfd

__all__ = ["bfd"]

KIND = "bfd"


def bfd(context: Context, workers: int) -> None:
    """Measure BFD moments of every object of the tile's MEDS files, of each band and of all together.

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
        when the models of the neighbours, which block 128 makes, are not there.
    """
    settings = Bfd.load(context.fit_file(KIND), context.campaign)

    def work(step: Step, meds: Mapping[str, Path]) -> Work:
        return one_by_one(BfdRun(settings, meds, neighbour_models(context, step, settings)))

    fit_catalogue(context, KIND, settings, work, workers)
