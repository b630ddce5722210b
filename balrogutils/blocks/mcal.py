"""Block 256: metacal of a tile, base run or realization."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from balrogutils.blocks.fits import Work, fit_catalogue
from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.measurement.mcal import McalRun
from balrogutils.measurement.medsource import MedsSource
from balrogutils.products import Step
from balrogutils.settings.mcal import Mcal

__all__ = ["mcal", "neighbour_models"]

KIND = "mcal"
_MODELS = "mof"


def neighbour_models(context: Context, settings: Mcal) -> Path | None:
    """Return the catalogue that gives models of neighbours; None where the run wants none.

    Raises
    ------
    ProductError
        When it is not there; block 128 makes it.
    """
    if settings.correct_meds.mof_run is None:
        return None
    models = context.tree.fit(_MODELS)
    if not models.is_file():
        raise ProductError(
            "the models of neighbours are not there", tile=context.tile, file=models, remedy="run block 128 first"
        )
    return models


def mcal(context: Context, workers: int) -> None:
    """Shear the stamps of every object of the tile's MEDS files and measure what that does to its shape.

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
    settings = Mcal.load(context.fit_file(KIND), context.campaign)

    def work(step: Step, meds: Mapping[str, Path]) -> Work:
        models = neighbour_models(context, settings)
        if models is not None:
            step.read(models)
        with MedsSource(meds) as source:
            return Work(McalRun(settings, meds, models), source.size)

    fit_catalogue(context, KIND, settings, work, workers)
