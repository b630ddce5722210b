"""The priors of a run file as the priors of a fit."""

from __future__ import annotations

from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.models import Model
from balrogutils.fitting.priors import (
    FRACDEV_Y3,
    CenPrior,
    CosmosSersic,
    Disk,
    Flat,
    GaussianMixture,
    GPriorBA,
    Normal,
    Prior,
    ShapePrior,
    TwoSidedErf,
)
from balrogutils.settings.priors import (
    BAPrior,
    DiskPrior,
    ErfPrior,
    FlatPrior,
    MixturePrior,
    NormalPrior,
    Priors,
    ShapePriorPars,
)

__all__ = ["fracdev_prior", "joint_prior"]

_DEFAULTS: dict[str, Prior] = {"fracdev": Normal(0.5, 0.1, 0.0, 1.0), "logTratio": Normal(0.0, 1.0)}


def _number(pars: ErfPrior | FlatPrior | NormalPrior | MixturePrior) -> Prior:
    if isinstance(pars, ErfPrior):
        low, width_low, high, width_high = pars.pars
        return TwoSidedErf(low, width_low, high, width_high)
    if isinstance(pars, MixturePrior):
        return GaussianMixture(pars.weights, pars.means, pars.covars)
    if isinstance(pars, FlatPrior):
        return Flat(*pars.pars)
    return Normal(*pars.pars, *(pars.bounds or ()))


def _shape(pars: ShapePriorPars | None) -> ShapePrior | None:
    if pars is None:
        return None
    if isinstance(pars, BAPrior):
        return GPriorBA(pars.sigma)
    return Disk(pars.radius) if isinstance(pars, DiskPrior) else CosmosSersic()


def joint_prior(pars: Priors, model: Model, nband: int) -> JointPrior:
    """Return the priors of all parameters of one source of a model without parameters fixed beforehand."""
    extra = []
    for one in model.extras:
        given = getattr(pars, one.name)
        extra.append(_DEFAULTS.get(one.name, Flat(one.low, one.high)) if given is None else _number(given))
    return JointPrior(
        None if pars.cen is None else CenPrior(pars.cen.width),
        _shape(pars.g),
        _number(pars.T),
        [_number(pars.counts)] * nband,
        extra,
    )


def fracdev_prior(pars: Priors) -> GaussianMixture | Normal:
    """Return the prior of the share of the bulge that cm finds before its fit."""
    if pars.fracdev is None:
        return FRACDEV_Y3
    prior = _number(pars.fracdev)
    assert isinstance(prior, (GaussianMixture, Normal))
    return prior
