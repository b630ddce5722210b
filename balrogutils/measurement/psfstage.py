"""What every fit begins with: usable pixels, PSF fits of all epochs, PSF fluxes."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.fitting.emfit import EMOptions
from balrogutils.fitting.flags import ImageFlag, ObjectFlag
from balrogutils.fitting.galaxy import template_flux
from balrogutils.fitting.mixture import make_round, moments
from balrogutils.fitting.observation import Observation
from balrogutils.fitting.psffit import PSFFit, PSFOptions, psf_family
from balrogutils.masks import mask_of
from balrogutils.measurement.catalogue import Rows, epoch_rows, magnitude
from balrogutils.measurement.engine import engine_of
from balrogutils.measurement.starflags import StarRule, propagate
from balrogutils.measurement.target import Target
from balrogutils.measurement.weights import Usable, WeightRules, prepare
from balrogutils.randomness import stream
from balrogutils.settings.fits import FitRun, PSFPars

__all__ = ["PSFStage", "Seen", "psf_fluxes", "psf_options", "round_sizes"]

F64 = NDArray[np.float64]


class Seen(NamedTuple):
    """An epoch that can be fit: its place among the epochs of its band, its pixels, its PSF."""

    place: int
    observation: Observation
    psf: PSFFit


def psf_options(pars: PSFPars) -> PSFOptions:
    """Return the options of PSF fits that a run file asks for."""
    lm, em = pars.lm_pars, pars.em_pars
    return PSFOptions(*psf_family(pars.model), pars.ntry, lm.maxfev, lm.ftol, lm.xtol, EMOptions(em.maxiter, em.tol))


class PSFStage:
    """Takes an object from stamps to epochs with weights and PSF mixtures, and fills what a row says of them.

    Parameters
    ----------
    settings : FitRun
        The run.
    bands : tuple of str
        Bands of every object, in order.
    use_region : bool
        Whether weights are limited to the pixels that belong to the object.
    """

    def __init__(self, settings: FitRun, bands: tuple[str, ...], *, use_region: bool) -> None:
        self.settings = settings
        self.bands = bands
        self.options = psf_options(settings.psf_pars)
        self.engine = engine_of(settings.engine)
        self.rules = WeightRules(
            image_flags=settings.image_flags2check,
            mask_bits=mask_of(settings.extra_mask_flag_list),
            max_zero_weight_frac=settings.max_zero_weight_frac,
            max_bmask_frac=settings.max_bmask_frac,
            outliers=settings.reject_outliers,
            ignore_zero_images=settings.ignore_zero_weights_images,
            use_region=use_region,
        )
        stars = settings.propagate_star_flags
        self.stars = StarRule(mask_of(stars.ignore_when_set)) if stars.propagate else None

    def __call__(self, target: Target, row: Rows) -> tuple[list[list[Seen]], Rows]:
        """Prepare one object.

        Parameters
        ----------
        target : Target
            The object.
        row : structured ndarray, one row
            Its row of ``model_fits``; flags, PSF columns and image counts are filled.

        Returns
        -------
        (list of lists of Seen, ndarray)
            The epochs of each band that can be fit, and their rows of ``epoch_data``. ``flags`` of the row is not 0
            where the object cannot be fit.
        """
        flags = ObjectFlag(0)
        if target.box_size > self.settings.max_box_size:
            flags |= ObjectFlag.BOX_SIZE_TOO_BIG
        if any(not epochs for epochs in target.bands):
            flags |= ObjectFlag.NO_CUTOUTS
        if flags:
            row["flags"] = row["obj_flags"] = flags
            return [[] for _ in self.bands], epoch_rows(self.options.ncomp, 0)
        usable = self._usable(target)
        row["psf_flags"] = 0
        kept: list[list[Seen]] = []
        for number, epochs in enumerate(usable):
            fits = [
                Seen(k, one, self._psf(target, number, k, one))
                for k, one in zip(epochs.indices, epochs.epochs, strict=True)
            ]
            kept.append([fit for fit in fits if fit.psf.flags == 0])
            if not kept[-1]:
                # Bad PSFs, or bad pixels: which of them decides the flag.
                dropped = [flag for flag in epochs.flags if flag]
                bad_psf = bool(fits) or ImageFlag.PSF_FILE_READ_ERROR in dropped
                flags |= ObjectFlag.PSF_FIT_FAILURE if bad_psf else ObjectFlag.IMAGE_FLAGS
                row["psf_flags"][number] = ObjectFlag.PSF_FIT_FAILURE if bad_psf else ObjectFlag.NO_ATTEMPT
        row["nimage_use"] = [len(epochs) for epochs in kept]
        row["flags"] = row["obj_flags"] = flags
        if not flags:
            _averages(kept, row)
            if not psf_fluxes(kept, row):
                row["flags"] = ObjectFlag.PSF_FLUX_FIT_FAILURE
        return kept, self._epoch_rows(target, kept)

    def _usable(self, target: Target) -> list[Usable]:
        usable = [prepare([epoch.observation for epoch in epochs], self.rules) for epochs in target.bands]
        if self.stars is None or not target.coadds:
            return usable
        cleaned = propagate([one.epochs for one in usable], target.coadds, self.stars)
        return [one.cleaned(epochs) for one, epochs in zip(usable, cleaned, strict=True)]

    def _psf(self, target: Target, band: int, index: int, observation: Observation) -> PSFFit:
        assert observation.psf is not None
        names = (self.bands[band], target.id, target.bands[band][index].cutout_index)
        random = partial(stream, self.settings.global_seed, "psf fit", *names)
        return self.engine.fit_psf(observation.psf, observation.wcs, self.options, random)

    def _epoch_rows(self, target: Target, kept: list[list[Seen]]) -> Rows:
        rows = epoch_rows(self.options.ncomp, sum(len(epochs) for epochs in kept))
        at = 0
        for number, epochs in enumerate(kept):
            for place, observation, fit in epochs:
                epoch = target.bands[number][place]
                row = rows[at]
                row["id"], row["number"] = target.id, target.number
                row["band"], row["band_num"] = self.bands[number].encode(), number
                for name in ("cutout_index", "orig_row", "orig_col", "file_id"):
                    row[name] = getattr(epoch, name)
                row["image_id"] = epoch.image_id.encode()
                row["pixel_scale"] = observation.wcs.scale
                row["npix"] = np.count_nonzero(observation.weight)
                row["wsum"], row["wmax"] = observation.weight.sum(), observation.weight.max()
                row["psf_fit_flags"] = fit.flags
                row["psf_model_s2n"], row["psf_counts"] = fit.s2n, fit.counts
                row["psf_fit_g"], row["psf_fit_T"] = (fit.g1, fit.g2), fit.size
                mixture = fit.mixture.copy()
                mixture[:, 0] *= fit.counts / mixture[:, 0].sum()
                row["psf_fit_pars"] = mixture.ravel()
                at += 1
        return rows


def round_sizes(mixtures: F64) -> F64:
    """Return T of PSF mixtures made round, arcsec^2; [nstamp]."""
    return np.array([moments(make_round(mixture))[5] for mixture in mixtures])


def _averages(kept: list[list[Seen]], row: Rows) -> None:
    flat = [seen for epochs in kept for seen in epochs]
    sums = np.array([seen.observation.weight.sum() for seen in flat])
    tops = np.array([seen.observation.weight.max() for seen in flat])
    pixels = sum(seen.observation.weight.size for seen in flat)
    shapes = np.array([(seen.psf.size, seen.psf.g1, seen.psf.g2) for seen in flat])
    mean = sums @ shapes / sums.sum()
    row["psfrec_T"], row["psfrec_g"] = mean[0], mean[1:]
    row["mask_frac"] = 1.0 - float((sums / tops).sum()) / pixels


def psf_fluxes(kept: list[list[Seen]], row: Rows) -> bool:
    """Fill the columns of PSF fluxes of a row from its epochs; returns whether all bands have one."""
    good = True
    for number, epochs in enumerate(kept):
        result = template_flux([seen.observation for seen in epochs])
        if result.flags or not math.isfinite(result.flux + result.error):
            row["psf_flags"][number] = ObjectFlag.PSF_FLUX_FIT_FAILURE
            good = False
            continue
        row["psf_flux"][number], row["psf_flux_err"][number] = result.flux, result.error
        row["psf_flux_s2n"][number] = result.s2n
        row["psf_mag"][number] = magnitude(result.flux)
    return good
