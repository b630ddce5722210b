"""Metacal of a tile: one object from stamps to a catalogue row, and a run of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import FitError
from balrogutils.fitting.flags import FitFlag, ObjectFlag
from balrogutils.fitting.models import model
from balrogutils.fitting.observation import Observation
from balrogutils.fitting.psffit import PSFOptions, fit_psf
from balrogutils.fitting.solver import LMOptions
from balrogutils.measurement.catalogue import Rows, common_dtype, fill_of, unmeasured
from balrogutils.measurement.lightmodels import LightModels
from balrogutils.measurement.modelprior import joint_prior
from balrogutils.measurement.objectfitter import ObjectFitter, fit_objects
from balrogutils.measurement.psfstage import PSFStage, Seen
from balrogutils.measurement.target import Target
from balrogutils.metacal.columns import metacal_dtype
from balrogutils.metacal.holes import FillRules, fill_holes
from balrogutils.metacal.images import MetacalOptions
from balrogutils.metacal.measure import MeasureOptions, measure
from balrogutils.randomness import stream
from balrogutils.settings.mcal import Mcal

__all__ = ["REGIONS", "McalFitter", "McalRun"]

F64 = NDArray[np.float64]

# Models are drawn with this PSF mixture; the gauss of the run is for the columns about the PSF.
_DRAWN = PSFOptions("coellip", 3)
REGIONS = {"uberseg": "cweight-nearest", "seg_and_sky": "seg_and_sky", "weight": "weight"}


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
        self.models = models
        # The corrector of a metacal run does what the weights of other fits do before.
        outliers = settings.reject_outliers or settings.correct_meds.reject_outliers
        self.psfs = PSFStage(settings.model_copy(update={"reject_outliers": outliers}), bands, use_region=False)
        pars, lm = settings.metacal_pars, settings.max_pars.lm_pars
        self.options = MeasureOptions(
            MetacalOptions(pars.psf, pars.types, pars.step, pars.fixnoise),
            joint_prior(settings.priors, _GAUSS, len(bands)),
            LMOptions(lm.maxfev, lm.ftol, lm.xtol),
            pars.estimators,
            {**MeasureOptions().fwhm, **{str(name): value for name, value in pars.fwhm.items()}},
        )
        bits = 0
        for one in settings.correct_meds.bad_flags:
            bits |= one
        self.rules = FillRules(bits, settings.correct_meds.symmetrize_mask)

    def _unmeasured(self) -> Rows:
        pars = self.settings.metacal_pars
        columns = common_dtype(len(self.bands)) + metacal_dtype(len(self.bands), pars.types, pars.estimators)
        row = unmeasured(np.zeros(1, dtype=columns))
        row["mcal_flags"] = FitFlag.NO_ATTEMPT
        return row

    def _fit(self, target: Target, row: Rows) -> Rows:
        seen, epochs = self.psfs(target, row[0])
        if row["flags"][0]:
            return epochs
        corrected = [
            [done for one in seens if (done := self._corrected(target, band, one)) is not None]
            for band, seens in enumerate(seen)
        ]
        places = {(band, place) for band, some in enumerate(corrected) for place, _ in some}
        epochs = epochs[[(one["band_num"], k) in places for one, k in zip(epochs, _places(seen), strict=True)]]
        row["nimage_use"][0] = [len(some) for some in corrected]
        if not all(corrected):
            row["flags"] = row["obj_flags"] = ObjectFlag.IMAGE_FLAGS
            return epochs
        random = stream(self.settings.global_seed, "metacal noise", target.id)
        engine, stamps = self.psfs.engine, [[one for _, one in some] for some in corrected]
        found = measure(stamps, self.options, random, engine.metacal_images, engine.fit_galaxy)
        for name in found.dtype.names or ():
            values = found[name]
            if values.dtype.kind == "f":
                values = np.where(np.isfinite(values), values, fill_of(name))
            row[name] = values
        row["flags"] = ObjectFlag.METACAL_FAILURE if found["mcal_flags"][0] else 0
        return epochs

    def _corrected(self, target: Target, band: int, seen: Seen) -> tuple[int, Observation] | None:
        """Return the epoch without neighbours and holes; None where too much of it is filled."""
        if seen.psf.s2n < self.settings.min_psf_model_s2n:
            return None
        epoch = target.bands[band][seen.place].observation
        own = others = mask = None
        if self.models is not None:
            own, others, mask = self._light(self.models, target, band, seen.observation)
        random = stream(self.settings.global_seed, "metacal holes", self.bands[band], target.id, seen.place)
        # The region limits the fits; pixels beyond it are sheared like all others.
        whole = replace(seen.observation, region=epoch.region)
        try:
            filled = fill_holes(whole, random, model=own, neighbours=others, neighbour_mask=mask, rules=self.rules)
        except FitError:
            return None
        done = filled.observation
        counts = done.weight if done.region is None else np.where(np.asarray(done.region) > 0.0, done.weight, 0.0)
        if filled.fraction > self.settings.max_zero_weight_frac or not counts.any():
            return None
        return seen.place, done

    def _light(
        self, models: LightModels, target: Target, band: int, seen: Observation
    ) -> tuple[F64 | None, F64, NDArray[np.bool_] | None]:
        """Return images of the object and of its neighbours, and the pixels of neighbours without a model."""
        assert seen.psf is not None
        psf = fit_psf(seen.psf, seen.wcs, _DRAWN).mixture
        shape = (int(seen.image.shape[0]), int(seen.image.shape[1]))
        row, name = models.index(target.id), self.bands[band]
        own = models.image(row, name, seen.wcs, psf, shape) if models.good[row] else None
        others, mask = np.zeros(shape), None
        reach = seen.wcs.scale * (math.hypot(*shape) / 2.0 + 0.5 * float(np.max(models.rows["box_size"])))
        for other in models.near(row, reach):
            at = models.offset(row, int(other))
            if models.good[other]:
                others += models.image(int(other), name, seen.wcs, psf, shape, at)
            elif seen.seg is not None:
                # The neighbour's own pixels, where this epoch has labels at its place.
                pixels = _label_at(np.asarray(seen.seg), seen, at)
                mask = pixels if mask is None else mask | pixels
        return own, others, mask


_GAUSS = model("gauss")


def _places(seen: list[list[Seen]]) -> list[int]:
    return [one.place for seens in seen for one in seens]


def _label_at(seg: NDArray[np.integer], seen: Observation, at: tuple[float, float]) -> NDArray[np.bool_]:
    """Return the pixels that have the label found at an offset (v, u) from the object; none beyond the stamp."""
    wcs = seen.wcs
    det = wcs.determinant
    row = round(wcs.row0 + (wcs.dudcol * at[0] - wcs.dvdcol * at[1]) / det)
    col = round(wcs.col0 + (-wcs.dudrow * at[0] + wcs.dvdrow * at[1]) / det)
    if not (0 <= row < seg.shape[0] and 0 <= col < seg.shape[1]) or seg[row, col] == 0:
        return np.zeros(seg.shape, bool)
    return np.asarray(seg == seg[row, col])


@dataclass(frozen=True)
class McalRun:
    """Metacal of the objects of one tile, as `balrogutils.measurement.chunks` shares them out.

    `models` is the catalogue of fits that gives models of the object and its neighbours.
    """

    settings: Mcal
    meds: Mapping[str, Path]
    models: Path | None = None
    kind: str = "mcal"

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands, in order."""
        return tuple(self.meds)

    def fit(self, first: int, last: int) -> dict[str, Rows]:
        """Measure objects `first` to `last`, both included; return rows of ``model_fits`` and ``epoch_data``."""
        models = None if self.models is None else LightModels(self.models)
        fitter = McalFitter(self.settings, self.bands, models)
        return fit_objects(fitter, self.meds, REGIONS[self.settings.region], first, last)

    def rows(self, first: int, last: int) -> int:
        """Number of catalogue rows of a chunk."""
        return last - first + 1
