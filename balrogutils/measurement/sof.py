"""Single-object fits: one object from stamps to a catalogue row, and a run of them."""

from __future__ import annotations

from dataclasses import dataclass

from balrogutils.fitting.flags import ObjectFlag
from balrogutils.measurement.catalogue import Rows, model_rows
from balrogutils.measurement.modelstage import ModelStage, fill_model
from balrogutils.measurement.objectfitter import ObjectFitter, ObjectRun
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
class SofRun(ObjectRun):
    """Single-object fits of the objects of one tile."""

    settings: Sof

    @property
    def region(self) -> str:
        """The weights of the run file."""
        return self.settings.region

    @property
    def kind(self) -> str:
        """Name of the step."""
        return "sof"

    def _fitter(self) -> Fitter:
        return Fitter(self.settings, self.bands)
