"""Single-object fits: one object from stamps to a catalogue row, and a run of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from balrogutils.fitting.flags import ObjectFlag
from balrogutils.measurement.catalogue import Rows, model_rows
from balrogutils.measurement.modelstage import ModelStage, fill_model
from balrogutils.measurement.objectfitter import ObjectFitter, fit_objects
from balrogutils.measurement.psfstage import PSFStage
from balrogutils.measurement.target import Target
from balrogutils.settings.sof import Sof

__all__ = ["Fitter", "SofRun"]


class Fitter(ObjectFitter):
    """Fits one model to objects, each by itself.

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

    def _unmeasured(self) -> Rows:
        return model_rows(self.model, len(self.bands), 1)

    def _fit(self, target: Target, row: Rows) -> Rows:
        seen, epochs = self.psfs(target, row[0])
        if not row["flags"][0]:
            fitted = self.models.fit(seen, self.models.starts(target.id, row[0]))
            row["flags"] = 0 if fill_model(row[0], self.model, fitted) else ObjectFlag.GAL_FIT_FAILURE
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
        return fit_objects(Fitter(self.settings, self.bands), self.meds, self.settings.region, first, last)

    def rows(self, first: int, last: int) -> int:
        """Number of catalogue rows of a chunk."""
        return last - first + 1
