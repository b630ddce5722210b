"""Block 64: single-object fits of a tile, base run or realization."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from balrogutils.blocks.fits import Work, fit_catalogue, one_by_one
from balrogutils.context import Context
from balrogutils.measurement.sof import SofRun
from balrogutils.products import Step
from balrogutils.settings.sof import Sof

__all__ = ["sof"]

KIND = "sof"


def sof(context: Context, workers: int) -> None:
    """Fit every object of the tile's MEDS files by itself, all bands together.

    Parameters
    ----------
    context : Context
        Tile, base run or realization.
    workers : int
        Processes. Changes no value and no product.

    Raises
    ------
    BalrogError
        As `balrogutils.blocks.fits.fit_catalogue`; ConfigError also when the configuration is wrong.
    """
    settings = Sof.load(context.fit_file(KIND), context.campaign)

    def work(_: Step, meds: Mapping[str, Path]) -> Work:
        return one_by_one(SofRun(settings, meds))

    fit_catalogue(context, KIND, settings, work, workers)
