"""cm by ngmix, which has its mixture and no procedure for it: the steps are ours, fits and images are ngmix's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.fitting.composite import CompositeFit, FracdevPrior, compose, share_of_mix
from balrogutils.fitting.fit import Fit
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.models import Composite, Model
from balrogutils.fitting.observation import Stack
from balrogutils.fitting.solver import LMOptions
from balrogutils.peers.fits import fit_with, observations
from balrogutils.peers.installed import load_ngmix
from balrogutils.peers.priors import joint_prior

__all__ = ["fit_composite"]

F64 = NDArray[np.float64]


def _together(model: Composite, **options: Any) -> Any:
    """Return a fitter of bulge and disk with fixed fracdev and T_d / T_e, made as ngmix makes that of its coelliptical
    mixtures."""
    ngmix = load_ngmix().module
    fit_model: Any = ngmix.fitting.FitModel
    fitter: Any = ngmix.fitting.Fitter

    class Mixed(fit_model):
        def _make_model(self, band_pars: F64) -> Any:
            return ngmix.gmix.GMixCM(model.fracdev, model.ratio, band_pars)

    class Together(fitter):
        def _make_fit_model(self, obs: Any, guess: F64) -> Any:
            # exp has the same parameters, and they mean the same.
            return Mixed(obs=obs, model="exp", guess=guess, prior=self.prior)

    return Together(model="exp", **options)


def fit_composite(
    data: Stack,
    psf: F64,
    prior: JointPrior | None,
    starts: Sequence[F64],
    options: LMOptions,
    fracdev_prior: FracdevPrior | None,
    fracdev_range: tuple[float, float],
    ratio_range: tuple[float, float],
) -> CompositeFit:
    """Fit exp and dev, find fracdev and T_d / T_e, and fit cm with these fixed.

    Parameters
    ----------
    data, psf, prior, starts, options, fracdev_prior, fracdev_range, ratio_range
        As of `balrogutils.fitting.composite.fit_composite`.

    Returns
    -------
    CompositeFit
        As there.
    """
    ngmix, seen, dof = load_ngmix().module, observations(data, psf), data.npix - starts[0].size
    limits = {"maxfev": options.maxfev, "ftol": options.ftol, "xtol": options.xtol}
    given = {"prior": None if prior is None else joint_prior(prior, ()), "fit_pars": limits}
    results: dict[str, Any] = {}

    def single(model: Model, guesses: Sequence[F64]) -> Fit:
        fitter = _together(model, **given) if isinstance(model, Composite) else None
        fit, results[model.name] = fit_with(
            fitter or ngmix.fitting.Fitter(model=model.name, **given), seen, guesses, dof
        )
        return fit

    def mix(exp: F64, dev: F64) -> tuple[float, float]:
        cross = power = 0.0
        for band, listed in enumerate(seen):
            for number, one in enumerate(listed):
                disk, bulge = (results[name].make_image(band=band, obsnum=number) for name in ("exp", "dev"))
                change = bulge - disk
                cross += float((one.weight * change * (one.image - disk)).sum())
                power += float((one.weight * change * change).sum())
        return share_of_mix(cross, power, fracdev_prior)

    return compose(single, mix, starts, fracdev_range, ratio_range)
