"""One object from stamps to a catalogue row: weights, PSF fits, PSF fluxes, model fit, statistics."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import FitError
from balrogutils.fitting.flags import FitFlag, ImageFlag, ObjectFlag
from balrogutils.fitting.galaxy import fit_galaxy, round_statistics, template_flux
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.mixture import make_round, moments
from balrogutils.fitting.models import model
from balrogutils.fitting.observation import Observation, Stack, stack
from balrogutils.fitting.priors import CenPrior, CosmosSersic, Flat, GPriorBA, Normal, Prior, TwoSidedErf
from balrogutils.fitting.psffit import PSFFit, PSFOptions, fit_psf, psf_family
from balrogutils.fitting.solver import LMOptions
from balrogutils.masks import mask_of
from balrogutils.measurement.catalogue import Rows, epoch_rows, magnitude, model_rows
from balrogutils.measurement.weights import WeightRules, prepare
from balrogutils.randomness import stream
from balrogutils.settings.sof import BAPrior, ErfPrior, FlatPrior, NormalPrior, Sof

__all__ = ["Epoch", "Fitter", "Target"]

F64 = NDArray[np.float64]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Epoch:
    """One single-epoch stamp of an object and where it came from; positions are zero-offset pixels there."""

    observation: Observation
    cutout_index: int
    file_id: int
    orig_row: float
    orig_col: float
    image_id: str = ""


@dataclass(frozen=True)
class Target:
    """One object to fit: catalogue identity and its single epochs, band by band."""

    id: int
    number: int
    ra: float
    dec: float
    box_size: int
    bands: tuple[tuple[Epoch, ...], ...]


def _number_prior(pars: ErfPrior | FlatPrior | NormalPrior) -> Prior:
    if isinstance(pars, ErfPrior):
        low, width_low, high, width_high = pars.pars
        return TwoSidedErf(low, width_low, high, width_high)
    return Flat(*pars.pars) if isinstance(pars, FlatPrior) else Normal(*pars.pars)


def _joint_prior(settings: Sof, nband: int) -> JointPrior:
    pars = settings.priors
    shape = None if pars.g is None else GPriorBA(pars.g.sigma) if isinstance(pars.g, BAPrior) else CosmosSersic()
    return JointPrior(
        None if pars.cen is None else CenPrior(pars.cen.width),
        shape,
        _number_prior(pars.T),
        [_number_prior(pars.counts)] * nband,
    )


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
        self.settings = settings
        self.bands = bands
        self.model = settings.model
        self.profile = model(settings.model)
        self.prior = _joint_prior(settings, len(bands))
        lm = settings.max_pars.lm_pars
        self.options = LMOptions(lm.maxfev, lm.ftol, lm.xtol)
        psf = settings.psf_pars
        self.psf_options = PSFOptions(
            *psf_family(psf.model), psf.ntry, psf.lm_pars.maxfev, psf.lm_pars.ftol, psf.lm_pars.xtol
        )
        self.rules = WeightRules(
            image_flags=settings.image_flags2check,
            mask_bits=mask_of(settings.extra_mask_flag_list),
            max_zero_weight_frac=settings.max_zero_weight_frac,
            max_bmask_frac=settings.max_bmask_frac,
            outliers=settings.reject_outliers,
            ignore_zero_images=settings.ignore_zero_weights_images,
            use_region=settings.region != "weight",
        )

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
            epochs = epoch_rows(self.psf_options.ncomp, 0)
        return row, epochs

    def _row(self, target: Target) -> Rows:
        row = model_rows(self.model, len(self.bands), 1)
        for name in ("id", "number", "ra", "dec", "box_size"):
            row[name] = getattr(target, name)
        row["nimage_tot"][0] = [len(epochs) for epochs in target.bands]
        return row

    def _fit(self, target: Target, row: Rows) -> Rows:
        nothing = epoch_rows(self.psf_options.ncomp, 0)
        flags = ObjectFlag(0)
        if target.box_size > self.settings.max_box_size:
            flags |= ObjectFlag.BOX_SIZE_TOO_BIG
        if any(not epochs for epochs in target.bands):
            flags |= ObjectFlag.NO_CUTOUTS
        if flags:
            row["flags"] = row["obj_flags"] = flags
            return nothing
        usable = [prepare([epoch.observation for epoch in epochs], self.rules) for epochs in target.bands]
        row["psf_flags"] = 0
        kept: list[list[tuple[int, Observation, PSFFit]]] = []
        for number, epochs in enumerate(usable):
            fits = [(k, o, self._psf(target, number, k, o)) for k, o in zip(epochs.indices, epochs.epochs, strict=True)]
            kept.append([fit for fit in fits if fit[2].flags == 0])
            if not kept[-1]:
                # Bad PSFs, or bad pixels: which of them decides the flag.
                dropped = [flag for flag in epochs.flags if flag]
                bad_psf = bool(fits) or ImageFlag.PSF_FILE_READ_ERROR in dropped
                flags |= ObjectFlag.PSF_FIT_FAILURE if bad_psf else ObjectFlag.IMAGE_FLAGS
                row["psf_flags"][number] = ObjectFlag.PSF_FIT_FAILURE if bad_psf else ObjectFlag.NO_ATTEMPT
        row["nimage_use"] = [len(epochs) for epochs in kept]
        table = self._epoch_rows(target, kept)
        if flags:
            row["flags"] = row["obj_flags"] = flags
            return table
        row["obj_flags"] = 0
        self._psf_averages(kept, row)
        if not self._psf_fluxes(kept, row):
            row["flags"] = ObjectFlag.PSF_FLUX_FIT_FAILURE
            return table
        data = stack([[observation for _, observation, _ in epochs] for epochs in kept])
        mixtures = np.array([fit.mixture for epochs in kept for _, _, fit in epochs])
        row["flags"] = self._model(target, data, mixtures, row)
        return table

    def _psf(self, target: Target, band: int, index: int, observation: Observation) -> PSFFit:
        assert observation.psf is not None
        fit = fit_psf(observation.psf, observation.wcs, self.psf_options)
        if fit.flags and self.psf_options.ntry > 1:
            names = (self.bands[band], target.id, target.bands[band][index].cutout_index)
            jitter = stream(self.settings.global_seed, "psf fit", *names)
            fit = fit_psf(observation.psf, observation.wcs, self.psf_options, jitter)
        return fit

    def _epoch_rows(self, target: Target, kept: list[list[tuple[int, Observation, PSFFit]]]) -> Rows:
        rows = epoch_rows(self.psf_options.ncomp, sum(len(epochs) for epochs in kept))
        at = 0
        for number, epochs in enumerate(kept):
            for index, observation, fit in epochs:
                epoch = target.bands[number][index]
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

    @staticmethod
    def _psf_averages(kept: list[list[tuple[int, Observation, PSFFit]]], row: Rows) -> None:
        flat = [(observation, fit) for epochs in kept for _, observation, fit in epochs]
        sums = np.array([observation.weight.sum() for observation, _ in flat])
        tops = np.array([observation.weight.max() for observation, _ in flat])
        pixels = sum(observation.weight.size for observation, _ in flat)
        shapes = np.array([(fit.size, fit.g1, fit.g2) for _, fit in flat])
        mean = sums @ shapes / sums.sum()
        row["psfrec_T"], row["psfrec_g"] = mean[0], mean[1:]
        row["mask_frac"] = 1.0 - float((sums / tops).sum()) / pixels

    @staticmethod
    def _psf_fluxes(kept: list[list[tuple[int, Observation, PSFFit]]], row: Rows) -> bool:
        good = True
        for number, epochs in enumerate(kept):
            result = template_flux([observation for _, observation, _ in epochs])
            if result.flags or not math.isfinite(result.flux + result.error):
                row["psf_flags"][number] = ObjectFlag.PSF_FLUX_FIT_FAILURE
                good = False
                continue
            row["psf_flux"][number], row["psf_flux_err"][number] = result.flux, result.error
            row["psf_flux_s2n"][number] = result.s2n
            row["psf_mag"][number] = magnitude(result.flux)
        return good

    def _starts(self, target: Target, row: Rows) -> list[F64]:
        # A start at flux 0 would have no slope by shape, size or centre.
        flux = np.maximum(np.maximum(row["psf_flux"], row["psf_flux_err"]), 1e-3)
        first = np.concatenate([[0.0, 0.0, 0.0, 0.0, row["psfrec_T"]], flux])
        starts = [first]
        ntry = self.settings.max_pars.ntry
        if ntry > 1:
            random = stream(self.settings.global_seed, "model fit", self.model, target.id)
            for _ in range(ntry - 1):
                start = first.copy()
                start[:2] += random.uniform(-0.02, 0.02, 2)
                start[2:4] += random.uniform(-0.1, 0.1, 2)
                start[4] *= math.exp(random.uniform(-1.5, 1.5))
                start[5:] *= random.uniform(0.9, 1.1, flux.size)
                starts.append(start)
        return starts

    def _model(self, target: Target, data: Stack, mixtures: F64, row: Rows) -> int:
        name = self.model
        fit = fit_galaxy(data, mixtures, self.profile, self.prior, self._starts(target, row), self.options)
        flags = FitFlag(fit.flags)
        if not flags and not (np.all(np.isfinite(fit.pars)) and np.all(np.isfinite(fit.cov))):
            flags |= FitFlag.LM_FUNC_NOTFINITE
        row[f"{name}_flags"] = row[f"{name}_max_flags"] = flags
        if flags:
            return int(ObjectFlag.GAL_FIT_FAILURE)
        pars, cov = fit.pars, fit.cov
        flux, errors = pars[5:], np.sqrt(np.diag(cov))
        values = {
            "pars": pars,
            "pars_cov": cov,
            "max_pars": pars,
            "max_pars_cov": cov,
            "g": pars[2:4],
            "g_cov": cov[2:4, 2:4],
            "T": pars[4],
            "T_err": errors[4],
            "T_s2n": pars[4] / errors[4],
            "flux": flux,
            "flux_cov": cov[5:, 5:],
            "flux_s2n": flux / errors[5:],
            "mag": magnitude(flux),
            "s2n_w": fit.s2n,
            "chi2per": fit.chi2per,
            "dof": fit.dof,
        }
        if pars[4] != 0.0 and np.all(flux != 0.0):
            values["logsb"] = np.log10(np.abs(flux / pars[4]))
        sums = np.add.reduceat(data.weight, data.start)
        sizes = np.array([moments(make_round(mixture))[5] for mixture in mixtures])
        rounded = round_statistics(data, mixtures, self.profile, pars, np.column_stack([sums, sizes]))
        values["flags_r"], values["psf_T_r"], values["T_r"] = rounded.flags, rounded.psf_size, rounded.size
        if not rounded.flags:
            values["s2n_r"] = rounded.s2n
        for column, value in values.items():
            row[f"{name}_{column}"] = value
        return 0
