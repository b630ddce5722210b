"""BFD moments of a tile: one object from stamps to a catalogue row, and a run of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from balrogutils.bfd.columns import bfd_dtype, bfd_rows, store_bfd
from balrogutils.bfd.moments import BFDOptions, bfd_moments
from balrogutils.fitting.flags import FitFlag, ObjectFlag
from balrogutils.measurement.catalogue import Rows, common_dtype, copy_filled, unmeasured
from balrogutils.measurement.corrected import CorrectedStamps
from balrogutils.measurement.lightmodels import LightModels
from balrogutils.measurement.objectfitter import ObjectFitter, ObjectRun
from balrogutils.measurement.target import Target
from balrogutils.settings.bfd import Bfd

__all__ = ["BfdFitter", "BfdRun"]


class BfdFitter(ObjectFitter):
    """BFD moments of objects, each by itself, without the models of its neighbours.

    Parameters
    ----------
    settings : Bfd
        The run.
    bands : tuple of str
        Bands of every object, in order.
    models : LightModels or None
        Models of all objects of the tile.
    """

    def __init__(self, settings: Bfd, bands: tuple[str, ...], models: LightModels | None) -> None:
        self.bands = bands
        self.stamps = CorrectedStamps(settings, bands, models, purpose="bfd", most_filled=settings.bad_pixel_threshold)
        self.psfs = self.stamps.psfs
        self.separately = settings.save_bands_separately
        self.options = BFDOptions(
            settings.wt_n,
            settings.wt_sigma,
            settings.pad_factor,
            settings.bad_pixel_threshold,
            settings.weights(bands),
        )

    def _unmeasured(self) -> Rows:
        columns = common_dtype(len(self.bands)) + bfd_dtype(len(self.bands), separately=self.separately)
        row = unmeasured(np.zeros(1, dtype=columns))
        row["bfd_flags"] = FitFlag.NO_ATTEMPT
        return row

    def _fit(self, target: Target, row: Rows) -> Rows:
        bands, epochs = self.stamps(target, row)
        if row["flags"][0]:
            return epochs
        moments = bfd_moments(bands, self.options)
        found = bfd_rows(len(bands), separately=self.separately)
        store_bfd(found[0], moments)
        copy_filled(row, found)
        if moments.flags & FitFlag.ZERO_DOF:
            row["flags"] = row["obj_flags"] = ObjectFlag.IMAGE_FLAGS
        else:
            row["flags"] = ObjectFlag.GAL_FIT_FAILURE if moments.flags else 0
        return epochs


@dataclass(frozen=True)
class BfdRun(ObjectRun):
    """BFD moments of the objects of one tile.

    `models` is the catalogue of fits that gives models of the object and its neighbours.
    """

    settings: Bfd
    models: Path | None = None

    @property
    def kind(self) -> str:
        """Name of the step."""
        return "bfd"

    def _fitter(self) -> BfdFitter:
        return BfdFitter(self.settings, self.bands, None if self.models is None else LightModels(self.models))
