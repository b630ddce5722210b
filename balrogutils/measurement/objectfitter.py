"""The frame of fits that take one object at a time: rows, failures as flags, a run of objects in chunks."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from balrogutils.errors import FitError
from balrogutils.fitting.flags import ObjectFlag
from balrogutils.measurement.catalogue import Rows, epoch_rows
from balrogutils.measurement.medsource import MedsSource
from balrogutils.measurement.psfstage import PSFStage
from balrogutils.measurement.target import Target
from balrogutils.settings.fits import FitRun

__all__ = ["ObjectFitter", "ObjectRun"]

_log = logging.getLogger(__name__)


class ObjectFitter(ABC):
    """Measures objects one at a time; what comes out depends on the object and the settings, never on the order."""

    bands: tuple[str, ...]
    psfs: PSFStage

    @abstractmethod
    def _unmeasured(self) -> Rows:
        """Return one row of ``model_fits`` of an object that was not attempted."""

    @abstractmethod
    def _fit(self, target: Target, row: Rows) -> Rows:
        """Fill the row, of which there is one; return rows of ``epoch_data``."""

    def __call__(self, target: Target) -> tuple[Rows, Rows]:
        """Measure one object.

        Parameters
        ----------
        target : Target
            What to measure.

        Returns
        -------
        (ndarray, ndarray)
            One row of ``model_fits``, and one row of ``epoch_data`` for each epoch used. A failure is a flag, never
            an exception.
        """
        row = self._row(target)
        try:
            epochs = self._fit(target, row)
        except (FitError, ArithmeticError, np.linalg.LinAlgError) as error:
            _log.warning("object %d could not be measured: %s", target.id, error)
            row = self._row(target)
            row["flags"] = row["obj_flags"] = ObjectFlag.UTTER_FAILURE
            epochs = epoch_rows(self.psfs.options.ncomp, 0)
        return row, epochs

    def _row(self, target: Target) -> Rows:
        row = self._unmeasured()
        for name in ("id", "number", "ra", "dec", "box_size"):
            row[name] = getattr(target, name)
        row["nimage_tot"][0] = [len(epochs) for epochs in target.bands]
        return row


@dataclass(frozen=True)
class ObjectRun(ABC):
    """A run over the objects of one tile, each by itself, as `balrogutils.measurement.chunks` shares them out.

    `meds` is the MEDS file of each band, in order; a run names its `kind`, the step.
    """

    settings: FitRun
    meds: Mapping[str, Path]

    @property
    @abstractmethod
    def kind(self) -> str:
        """Name of the step."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands, in order."""
        return tuple(self.meds)

    @property
    def region(self) -> str:
        """The weights that `MedsSource` is to make beside the plain ones."""
        return "weight"

    @abstractmethod
    def _fitter(self) -> ObjectFitter:
        """Return what measures the objects of a chunk."""

    def fit(self, first: int, last: int) -> dict[str, Rows]:
        """Measure objects `first` to `last`, both included; return rows of ``model_fits`` and ``epoch_data``."""
        fitter = self._fitter()
        rows, epochs = [], []
        with MedsSource(self.meds, region=self.region) as source:
            for target in source.targets(first, last):
                row, used = fitter(target)
                rows.append(row)
                epochs.append(used)
        return {"model_fits": np.concatenate(rows), "epoch_data": np.concatenate(epochs)}

    def rows(self, first: int, last: int) -> int:
        """Number of catalogue rows of a chunk."""
        return last - first + 1
