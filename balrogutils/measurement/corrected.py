"""Stamps whose every pixel counts: neighbours taken away and holes filled, with the models of a catalogue (M 2.5)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import FitError, ProductError
from balrogutils.fitting.observation import Observation
from balrogutils.fitting.psffit import PSFOptions, fit_psf
from balrogutils.measurement.catalogue import Rows
from balrogutils.measurement.lightmodels import LightModels
from balrogutils.measurement.psfstage import PSFStage, Seen
from balrogutils.measurement.target import Target
from balrogutils.metacal.holes import FillRules, fill_holes
from balrogutils.randomness import stream
from balrogutils.settings.corrected import CorrectedRun

__all__ = ["CorrectedStamps"]

F64 = NDArray[np.float64]

# Models are drawn with this PSF mixture; that of the run is for the columns about the PSF.
_DRAWN = PSFOptions("coellip", 3)


class CorrectedStamps:
    """Takes an object from stamps to epochs without neighbours and holes, and fills what a row says of them.

    Parameters
    ----------
    settings : CorrectedRun
        The run.
    bands : tuple of str
        Bands of every object, in order.
    models : LightModels or None
        Models of all objects of the tile.
    purpose : str
        What the noise in holes is for: the first name of its streams.
    most_filled : float
        Epochs of which a larger part is filled are not used.
    min_psf_s2n : float
        Nor are those whose PSF is fit with a smaller S/N.

    Raises
    ------
    ProductError
        When the models lack a band.
    """

    def __init__(
        self,
        settings: CorrectedRun,
        bands: tuple[str, ...],
        models: LightModels | None,
        *,
        purpose: str,
        most_filled: float,
        min_psf_s2n: float = 0.0,
    ) -> None:
        if models is not None:
            for band in bands:
                if band not in models.bands:
                    raise ProductError(
                        f"the models of neighbours are of the bands {' '.join(models.bands)} alone",
                        band=band,
                        file=models.path,
                        remedy="fit all bands in block 128 (mof_config)",
                    )
        self.settings = settings
        self.bands = bands
        self.models = models
        self.purpose = purpose
        self.most_filled = most_filled
        self.min_psf_s2n = min_psf_s2n
        # The corrector of such a run does what the weights of other fits do before.
        outliers = settings.reject_outliers or settings.correct_meds.reject_outliers
        self.psfs = PSFStage(settings.model_copy(update={"reject_outliers": outliers}), bands, use_region=False)
        bits = 0
        for one in settings.correct_meds.bad_flags:
            bits |= one
        self.rules = FillRules(bits, settings.correct_meds.symmetrize_mask)

    def __call__(self, target: Target, row: Rows) -> tuple[list[list[Observation]], Rows]:
        """Correct the stamps of one object.

        Parameters
        ----------
        target : Target
            The object.
        row : structured ndarray, shape (1,)
            Its row of ``model_fits``; flags, PSF columns and image counts are filled.

        Returns
        -------
        (list of lists of Observation, ndarray)
            The epochs of each band that can be used, their regions those of the target, and their rows of
            ``epoch_data``. ``flags`` of the row is not 0 where the object cannot be measured.
        """
        seen, epochs = self.psfs(target, row[0])
        if row["flags"][0]:
            return [[] for _ in self.bands], epochs
        corrected = [
            [done for one in seens if (done := self._corrected(target, band, one)) is not None]
            for band, seens in enumerate(seen)
        ]
        kept = {(band, place) for band, some in enumerate(corrected) for place, _ in some}
        places = [one.place for seens in seen for one in seens]
        epochs = epochs[[(one["band_num"], k) in kept for one, k in zip(epochs, places, strict=True)]]
        row["nimage_use"][0] = [len(some) for some in corrected]
        return [[one for _, one in some] for some in corrected], epochs

    def _corrected(self, target: Target, band: int, seen: Seen) -> tuple[int, Observation] | None:
        """Return the epoch without neighbours and holes; None where too much of it is filled."""
        if seen.psf.s2n < self.min_psf_s2n:
            return None
        epoch = target.bands[band][seen.place].observation
        own = others = mask = None
        if self.models is not None:
            own, others, mask = self._light(self.models, target, band, seen.observation)
        random = stream(self.settings.global_seed, f"{self.purpose} holes", self.bands[band], target.id, seen.place)
        # A region limits what is fit; pixels beyond it are corrected like all others.
        whole = replace(seen.observation, region=epoch.region)
        try:
            filled = fill_holes(whole, random, model=own, neighbours=others, neighbour_mask=mask, rules=self.rules)
        except FitError:
            return None
        done = filled.observation
        counts = done.weight if done.region is None else np.where(np.asarray(done.region) > 0.0, done.weight, 0.0)
        if filled.fraction > self.most_filled or not counts.any():
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


def _label_at(seg: NDArray[np.integer], seen: Observation, at: tuple[float, float]) -> NDArray[np.bool_]:
    """Return the pixels that have the label found at an offset (v, u) from the object; none beyond the stamp."""
    wcs = seen.wcs
    det = wcs.determinant
    row = round(wcs.row0 + (wcs.dudcol * at[0] - wcs.dvdcol * at[1]) / det)
    col = round(wcs.col0 + (-wcs.dudrow * at[0] + wcs.dvdrow * at[1]) / det)
    if not (0 <= row < seg.shape[0] and 0 <= col < seg.shape[1]) or seg[row, col] == 0:
        return np.zeros(seg.shape, bool)
    return np.asarray(seg == seg[row, col])
