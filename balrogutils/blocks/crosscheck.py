"""Some objects of a tile fit by both engines; nothing is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from balrogutils.blocks.fits import meds_files
from balrogutils.blocks.mcal import neighbour_models
from balrogutils.context import Context
from balrogutils.errors import InputError
from balrogutils.measurement.crosscheck import Crosscheck, Measured, compare, mcal_reader, sof_reader
from balrogutils.measurement.lightmodels import LightModels
from balrogutils.measurement.mcal import REGIONS, McalFitter
from balrogutils.measurement.medsource import MedsSource
from balrogutils.measurement.sof import Fitter
from balrogutils.measurement.target import Target
from balrogutils.peers.installed import load_ngmix
from balrogutils.progress import track
from balrogutils.settings.fits import FitRun
from balrogutils.settings.mcal import Mcal
from balrogutils.settings.sof import Sof
from balrogutils.settings.yamlfile import parse

__all__ = ["crosscheck"]

F = TypeVar("F", bound=FitRun)

# Both engines go to the minimum: how far from it each stops is not what is compared.
_TIGHT = {"maxfev": 4000, "ftol": 1e-9, "xtol": 1e-9}


def crosscheck(context: Context, kind: str, objects: str, limit: float) -> Crosscheck:
    """Fit objects of a tile with this package and with ngmix.

    Parameters
    ----------
    context : Context
        Tile, base run or realization.
    kind : str
        ``sof`` or ``mcal``; the configuration is that of the block, with tolerances of 1e-9, and for mcal without
        fixnoise, whose random field each engine places in its own way.
    objects : str
        How many objects, spread evenly over the MEDS files, or ``FIRST-LAST``, places there from 0 on.
    limit : float
        Largest difference allowed, in standard errors.

    Raises
    ------
    InputError
        When there are no such objects.
    ConfigError
        When ngmix cannot be used, or has not what the configuration asks for.
    ProductError
        When a MEDS file, or for mcal the models of neighbours, are not there.
    """
    version = load_ngmix().version
    file = context.fit_file(kind)
    if kind == "sof":
        sof = _both(Sof.load(file, context.campaign), file, {})
        meds = meds_files(context, sof[0].bands(context.bands))
        names, read = sof_reader(sof[0].model, tuple(meds))
        fitters = (Fitter(sof[0], tuple(meds)), Fitter(sof[1], tuple(meds)))
        found = _compared(context, meds, sof[0].region, objects, lambda targets: compare(fitters, targets, read))
        what = f"{context.tile} sof, model {sof[0].model}"
        return Crosscheck(what, version, names, tuple(found), limit)
    settings = Mcal.load(file, context.campaign)
    plain = settings.metacal_pars.model_dump(mode="json") | {"fixnoise": False, "estimators": []}
    mcal = _both(settings, file, {"metacal_pars": plain})
    meds = meds_files(context, settings.bands(context.bands))
    catalogue = neighbour_models(context, settings)
    models = None if catalogue is None else LightModels(catalogue)
    names, read = mcal_reader(settings.metacal_pars.types, tuple(meds))
    shearers = (McalFitter(mcal[0], tuple(meds), models), McalFitter(mcal[1], tuple(meds), models))
    region = REGIONS[settings.region]
    found = _compared(context, meds, region, objects, lambda targets: compare(shearers, targets, read))
    return Crosscheck(f"{context.tile} mcal without fixnoise", version, names, tuple(found), limit)


def _both(settings: F, file: Path, changes: Mapping[str, Any]) -> tuple[F, F]:
    """Return the settings of each engine."""
    data = settings.model_dump(mode="json")
    for part in ("max_pars", "psf_pars"):
        data[part]["lm_pars"] = _TIGHT
    data |= changes
    ours, theirs = (parse(type(settings), data | {"engine": name}, file) for name in ("balrogutils", "ngmix"))
    return ours, theirs


def _compared(
    context: Context, meds: Mapping[str, Path], region: str, objects: str, compared: Any
) -> Sequence[Measured]:
    with MedsSource(meds, region=region) as source:
        places = _places(objects, source.size)

        def targets() -> Iterator[Target]:
            for place in track(places, f"{context.tile}: crosscheck", unit="objects"):
                yield from source.targets(place, place)

        found: Sequence[Measured] = compared(targets())
        return found


def _places(objects: str, size: int) -> list[int]:
    """Return the places of the objects to compare, of `size` in the files."""
    given = re.fullmatch(r"(\d+)(?:-(\d+))?", objects.strip())
    if given is None or (given[2] is None and int(given[1]) == 0):
        text = f"{objects!r} names no objects"
        raise InputError(text, key="objects", remedy="give how many, as 20, or places as 100-119")
    first = int(given[1])
    if given[2] is None:
        return [int(place) for place in np.unique(np.linspace(0, size - 1, min(first, size)).astype(int))]
    last = int(given[2])
    if not first <= last < size:
        text = f"there are no objects {objects}: the MEDS files hold {size}, from 0 on"
        raise InputError(text, key="objects", remedy=f"give places up to {size - 1}")
    return list(range(first, last + 1))
