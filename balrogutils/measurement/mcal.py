"""Metacal of a tile: one object from stamps to a catalogue row, and a run of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from balrogutils.fitting.flags import FitFlag, ObjectFlag
from balrogutils.fitting.models import model
from balrogutils.fitting.solver import LMOptions
from balrogutils.measurement.catalogue import Rows, common_dtype, copy_filled, unmeasured
from balrogutils.measurement.corrected import CorrectedStamps
from balrogutils.measurement.lightmodels import LightModels
from balrogutils.measurement.modelprior import joint_prior
from balrogutils.measurement.objectfitter import ObjectFitter, ObjectRun
from balrogutils.measurement.target import Target
from balrogutils.metacal.columns import metacal_dtype
from balrogutils.metacal.images import MetacalOptions
from balrogutils.metacal.measure import MeasureOptions, measure
from balrogutils.randomness import stream
from balrogutils.settings.mcal import Mcal

__all__ = ["McalFitter", "McalRun"]

_GAUSS = model("gauss")
_REGION = {"uberseg": "cweight-nearest", "seg_and_sky": "seg_and_sky", "weight": "weight"}


class McalFitter(ObjectFitter):
    """Metacal of objects, each by itself, with the models of its neighbours; regions limit what is fit, not sheared.

    Parameters
    ----------
    settings : Mcal
        The run.
    bands : tuple of str
        Bands of every object, in order.
    models : LightModels or None
        Models of all objects of the tile.
    """

    def __init__(self, settings: Mcal, bands: tuple[str, ...], models: LightModels | None) -> None:
        self.settings = settings
        self.bands = bands
        self.stamps = CorrectedStamps(
            settings,
            bands,
            models,
            purpose="metacal",
            most_filled=settings.max_zero_weight_frac,
            min_psf_s2n=settings.min_psf_model_s2n,
        )
        self.psfs = self.stamps.psfs
        pars, lm = settings.metacal_pars, settings.max_pars.lm_pars
        self.options = MeasureOptions(
            MetacalOptions(pars.psf, pars.types, pars.step, pars.fixnoise),
            joint_prior(settings.priors, _GAUSS, len(bands)),
            LMOptions(lm.maxfev, lm.ftol, lm.xtol),
            pars.estimators,
            {**MeasureOptions().fwhm, **{str(name): value for name, value in pars.fwhm.items()}},
        )

    def _unmeasured(self) -> Rows:
        pars = self.settings.metacal_pars
        columns = common_dtype(len(self.bands)) + metacal_dtype(len(self.bands), pars.types, pars.estimators)
        row = unmeasured(np.zeros(1, dtype=columns))
        row["mcal_flags"] = FitFlag.NO_ATTEMPT
        return row

    def _fit(self, target: Target, row: Rows) -> Rows:
        bands, epochs = self.stamps(target, row)
        if row["flags"][0]:
            return epochs
        if not all(bands):
            row["flags"] = row["obj_flags"] = ObjectFlag.IMAGE_FLAGS
            return epochs
        random = stream(self.settings.global_seed, "metacal noise", target.id)
        found = measure(bands, self.options, random)
        copy_filled(row, found)
        row["flags"] = ObjectFlag.METACAL_FAILURE if found["mcal_flags"][0] else 0
        return epochs


@dataclass(frozen=True)
class McalRun(ObjectRun):
    """Metacal of the objects of one tile.

    `models` is the catalogue of fits that gives models of the object and its neighbours.
    """

    settings: Mcal
    models: Path | None = None

    @property
    def region(self) -> str:
        """The weights of the run file."""
        return _REGION[self.settings.region]

    @property
    def kind(self) -> str:
        """Name of the step."""
        return "mcal"

    def _fitter(self) -> McalFitter:
        return McalFitter(self.settings, self.bands, None if self.models is None else LightModels(self.models))
