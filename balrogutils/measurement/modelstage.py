"""Fits of one model to one object, and the columns that say what came out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from balrogutils.fitting.composite import CompositeFit, fit_composite
from balrogutils.fitting.fit import Fit
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.galaxy import round_statistics
from balrogutils.fitting.models import Model, composite, model
from balrogutils.fitting.observation import Stack, stack
from balrogutils.fitting.pixelpsf import PSFResiduals, fit_pixelised
from balrogutils.fitting.scene import single_links
from balrogutils.fitting.shares import marginalised
from balrogutils.fitting.solver import LMOptions
from balrogutils.measurement.catalogue import Rows, magnitude
from balrogutils.measurement.engine import engine_of
from balrogutils.measurement.modelprior import fracdev_prior, joint_prior
from balrogutils.measurement.psfstage import Seen, round_sizes
from balrogutils.randomness import stream
from balrogutils.settings.sof import ModelRun

__all__ = ["Fitted", "ModelStage", "fill_model"]

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """A fit of one object with what it was made from; `composite` is what went before a cm fit."""

    fit: Fit
    profile: Model
    data: Stack
    mixtures: F64
    composite: CompositeFit | None = None


class ModelStage:
    """Fits the model of a run to objects that `PSFStage` prepared.

    Parameters
    ----------
    settings : ModelRun
        The run.
    nband : int
        Number of bands.
    """

    def __init__(self, settings: ModelRun, nband: int) -> None:
        self.settings = settings
        self.name = settings.model
        # exp stands for cm where only its parameters matter, which are the same.
        self.profile = model("exp" if self.name == "cm" else self.name)
        self.prior = joint_prior(settings.priors, self.profile, nband)
        lm = settings.max_pars.lm_pars
        self.options = LMOptions(lm.maxfev, lm.ftol, lm.xtol)
        self.engine = engine_of(settings.engine)

    def starts(self, number: int, row: Rows) -> list[F64]:
        """Return first guesses for an object whose PSF columns are filled: size of the PSF, fluxes of a star.

        Parameters
        ----------
        number : int
            Names the stream of the second and later guesses.
        row : structured ndarray, one row
            Row of ``model_fits``.
        """
        # A start at flux 0 would have no slope by shape, size or centre.
        flux = np.maximum(np.maximum(row["psf_flux"], row["psf_flux_err"]), 1e-3)
        extra = [one.start for one in self.profile.extras]
        first = np.concatenate([[0.0, 0.0, 0.0, 0.0, row["psfrec_T"]], extra, flux])
        starts = [first]
        ntry = self.settings.max_pars.ntry
        if ntry > 1:
            random = stream(self.settings.global_seed, "model fit", self.name, number)
            for _ in range(ntry - 1):
                start = first.copy()
                start[:2] += random.uniform(-0.02, 0.02, 2)
                start[2:4] += random.uniform(-0.1, 0.1, 2)
                start[4] *= math.exp(random.uniform(-1.5, 1.5))
                start[-flux.size :] *= random.uniform(0.9, 1.1, flux.size)
                starts.append(start)
        return starts

    def fit(self, epochs: Sequence[Sequence[Seen]], starts: list[F64]) -> Fitted:
        """Fit one object alone.

        Parameters
        ----------
        epochs : sequence of sequences of Seen
            Its epochs, band by band; none empty.
        starts : list of ndarray
            First guesses.
        """
        data = stack([[seen.observation for seen in seens] for seens in epochs])
        mixtures = np.array([seen.psf.mixture for seens in epochs for seen in seens])
        residuals = None
        if self.settings.psf_pars.pixelised:
            stamps = [seen.observation.psf for seens in epochs for seen in seens]
            residuals = PSFResiduals(data, [one for one in stamps if one is not None], mixtures)
        if self.name == "cm":
            pars = self.settings.max_pars
            share = (fracdev_prior(self.settings.priors), pars.fracdev_range, pars.TdByTe_range)
            if residuals is not None:
                made = fit_composite(data, mixtures, self.prior, starts, self.options, *share, residuals)
            else:
                made = self.engine.fit_composite(data, mixtures, self.prior, starts, self.options, *share)
            if self.settings.cov_pars.fracdev == "free":
                # Of whatever engine, and with mixtures alone: what they leave of the PSF changes no error.
                made = marginalised(data, single_links(data, mixtures), made, *share[:2])
            profile = self.profile if made.fit.flags else composite(made.fracdev, made.ratio)
            return Fitted(made.fit, profile, data, mixtures, made)
        if residuals is not None:
            fit = fit_pixelised(data, residuals, mixtures, self.profile, self.prior, starts, self.options)
        else:
            fit = self.engine.fit_galaxy(data, mixtures, self.profile, self.prior, starts, self.options)
        return Fitted(fit, self.profile, data, mixtures)


def fill_model(row: Rows, name: str, fitted: Fitted) -> bool:
    """Fill the columns of a model from its fit.

    Parameters
    ----------
    row : structured ndarray, one row
        Row of ``model_fits``; columns of what failed keep their fills.
    name : str
        Model, which begins the names of its columns.
    fitted : Fitted
        The fit.

    Returns
    -------
    bool
        Whether there is a result.
    """
    fit, data, mixtures = fitted.fit, fitted.data, fitted.mixtures
    flags = FitFlag(fit.flags)
    if not flags and not (np.all(np.isfinite(fit.pars)) and np.all(np.isfinite(fit.cov))):
        flags |= FitFlag.LM_FUNC_NOTFINITE
    row[f"{name}_flags"] = row[f"{name}_max_flags"] = flags
    if flags:
        return False
    pars, cov = fit.pars, fit.cov
    first = 5 + len(fitted.profile.extras)
    flux, errors = pars[first:], np.sqrt(np.diag(cov))
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
        "flux_cov": cov[first:, first:],
        "flux_s2n": flux / errors[first:],
        "mag": magnitude(flux),
        "s2n_w": fit.s2n,
        "chi2per": fit.chi2per,
        "dof": fit.dof,
    }
    if pars[4] != 0.0 and np.all(flux != 0.0):
        values["logsb"] = np.log10(np.abs(flux / pars[4]))
    for k, one in enumerate(fitted.profile.extras, 5):
        values[one.name], values[f"{one.name}_err"] = pars[k], errors[k]
    if fitted.composite is not None:
        made = fitted.composite
        values |= {"fracdev": made.fracdev, "fracdev_noclip": made.fracdev_noclip}
        values |= {"TdByTe": made.ratio, "TdByTe_noclip": made.ratio_noclip}
        if math.isfinite(made.fracdev_err):
            values["fracdev_err"] = made.fracdev_err
    sums = np.add.reduceat(data.weight, data.start)
    rounded = round_statistics(data, mixtures, fitted.profile, pars, np.column_stack([sums, round_sizes(mixtures)]))
    values["flags_r"], values["psf_T_r"], values["T_r"] = rounded.flags, rounded.psf_size, rounded.size
    if not rounded.flags:
        values["s2n_r"] = rounded.s2n
    for column, value in values.items():
        row[f"{name}_{column}"] = value
    return True
