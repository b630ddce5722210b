"""Some objects of a tile fit by both engines; nothing is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from balrogutils.blocks.fits import meds_files, model_catalogue
from balrogutils.context import Context
from balrogutils.errors import InputError
from balrogutils.measurement.crosscheck import Crosscheck, compare, mcal_reader, sof_reader
from balrogutils.measurement.mcal import McalRun
from balrogutils.measurement.medsource import MedsSource
from balrogutils.measurement.objectfitter import ObjectRun
from balrogutils.measurement.sof import SofRun
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
    runs: tuple[ObjectRun, ObjectRun]
    if kind == "sof":
        # The errors that each engine gives itself.
        sof = _both(Sof.load(file, context.campaign), file, {"cov_pars": {"fracdev": "fixed"}})
        meds = meds_files(context, sof[0].bands(context.bands))
        runs = SofRun(sof[0], meds), SofRun(sof[1], meds)
        names, read = sof_reader(sof[0].model, tuple(meds))
        what = f"{context.tile} sof, model {sof[0].model}"
    else:
        given = Mcal.load(file, context.campaign)
        plain = given.metacal_pars.model_dump(mode="json") | {"fixnoise": False, "estimators": []}
        mcal = _both(given, file, {"metacal_pars": plain})
        meds = meds_files(context, given.bands(context.bands))
        models = model_catalogue(context, given)
        runs = McalRun(mcal[0], meds, models), McalRun(mcal[1], meds, models)
        names, read = mcal_reader(given.metacal_pars.types, tuple(meds))
        what = f"{context.tile} mcal without fixnoise"
    with MedsSource(meds, region=runs[0].region) as source:
        places = track(_places(objects, source.size), f"{context.tile}: crosscheck", unit="objects")
        targets = (target for place in places for target in source.targets(place, place))
        found = compare((runs[0].fitter(), runs[1].fitter()), targets, read)
    return Crosscheck(what, version, names, tuple(found), limit)


def _both(settings: F, file: Path, changes: Mapping[str, Any]) -> tuple[F, F]:
    """Return the settings of each engine."""
    data = settings.model_dump(mode="json")
    for part in ("max_pars", "psf_pars"):
        data[part]["lm_pars"] = _TIGHT
    data |= changes
    ours, theirs = (parse(type(settings), data | {"engine": name}, file) for name in ("balrogutils", "ngmix"))
    return ours, theirs


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
