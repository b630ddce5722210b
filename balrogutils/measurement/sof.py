"""Single-object fits: one object from stamps to a catalogue row, and a run of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from balrogutils.errors import FitError
from balrogutils.fitting.flags import ObjectFlag
from balrogutils.measurement.catalogue import Rows, epoch_rows, model_rows
from balrogutils.measurement.medsource import MedsSource
from balrogutils.measurement.modelstage import ModelStage, fill_model
from balrogutils.measurement.psfstage import PSFStage
from balrogutils.measurement.target import Target
from balrogutils.settings.sof import Sof

__all__ = ["Fitter", "SofRun"]

_log = logging.getLogger(__name__)


class Fitter:
    """Fits objects one at a time; what comes out depends on the object and the settings, never on the order.

    Parameters
    ----------
    settings : Sof
        The run.
    bands : tuple of str
        Bands of every object, in order.
    """

    def __init__(self, settings: Sof, bands: tuple[str, ...]) -> None:
        self.bands = bands
        self.model = settings.model
        self.psfs = PSFStage(settings, bands, use_region=settings.region != "weight")
        self.models = ModelStage(settings, len(bands))

    def __call__(self, target: Target) -> tuple[Rows, Rows]:
        """Fit one object.

        Parameters
        ----------
        target : Target
            What to fit.

        Returns
        -------
        (ndarray, ndarray)
            One row of ``model_fits``, and one row of ``epoch_data`` for each epoch used. A failure is a flag, never
            an exception.
        """
        row = self._row(target)
        try:
            epochs = self._fit(target, row[0])
        except (FitError, ArithmeticError, np.linalg.LinAlgError) as error:
            _log.warning("object %d could not be fit: %s", target.id, error)
            row = self._row(target)
            row["flags"] = row["obj_flags"] = ObjectFlag.UTTER_FAILURE
            epochs = epoch_rows(self.psfs.options.ncomp, 0)
        return row, epochs

    def _row(self, target: Target) -> Rows:
        row = model_rows(self.model, len(self.bands), 1)
        for name in ("id", "number", "ra", "dec", "box_size"):
            row[name] = getattr(target, name)
        row["nimage_tot"][0] = [len(epochs) for epochs in target.bands]
        return row

    def _fit(self, target: Target, row: Rows) -> Rows:
        seen, epochs = self.psfs(target, row)
        if not row["flags"]:
            fitted = self.models.fit(seen, self.models.starts(target.id, row))
            row["flags"] = 0 if fill_model(row, self.model, fitted) else ObjectFlag.GAL_FIT_FAILURE
        return epochs


@dataclass(frozen=True)
class SofRun:
    """Single-object fits of the objects of one tile, as `balrogutils.measurement.chunks` shares them out."""

    settings: Sof
    meds: Mapping[str, Path]
    kind: str = "sof"

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands, in order."""
        return tuple(self.meds)

    def fit(self, first: int, last: int) -> dict[str, Rows]:
        """Fit objects `first` to `last`, both included; return rows of ``model_fits`` and ``epoch_data``."""
        fitter = Fitter(self.settings, self.bands)
        models, epochs = [], []
        with MedsSource(self.meds, region=self.settings.region) as source:
            for target in source.targets(first, last):
                row, used = fitter(target)
                models.append(row)
                epochs.append(used)
        return {"model_fits": np.concatenate(models), "epoch_data": np.concatenate(epochs)}

    def rows(self, first: int, last: int) -> int:
        """Number of catalogue rows of a chunk."""
        return last - first + 1
