"""One fit of the members of a canvas, whatever the model, and what comes out for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.blends.canvas import Canvas
from balrogutils.fitting.composite import FRACDEV_RANGE, RATIO_RANGE, FracdevPrior, fit_composite
from balrogutils.fitting.composites import fit_composites
from balrogutils.fitting.fit import Fit
from balrogutils.fitting.flags import MofFlag
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.models import Model, composite, model
from balrogutils.fitting.parts import keep_sources
from balrogutils.fitting.priors import Within
from balrogutils.fitting.rendering import model_pixels
from balrogutils.fitting.scene import Scene
from balrogutils.fitting.shares import marginalised
from balrogutils.fitting.solver import LMOptions
from balrogutils.fitting.sweeps import fit_together

__all__ = ["GroupFit", "MemberFit", "Mix", "Recipe", "Starts", "mof_flags", "pixels_of", "solve"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Starts = Sequence[F64]
"""First guesses of all members, [nmember, npar] each, tried in order; never empty."""


@dataclass(frozen=True)
class Recipe:
    """How every member is fit.

    Parameters
    ----------
    model : str
        A name of `balrogutils.fitting.models`, or ``cm`` for its procedure.
    prior : JointPrior or None
        Prior of each member.
    options : LMOptions
        Limits of each try.
    fracdev : FracdevPrior, optional
        Prior of fracdev, for ``cm``.
    fracdev_range, ratio_range : (float, float)
        To which ``cm`` clips fracdev and T_d / T_e.
    marginalise : bool
        Whether errors of ``cm`` hold what those of fracdev add.
    largest : tuple of float
        Largest T of each member of a group, arcsec^2, in the order of its canvas; none where it is empty.
    """

    model: str
    prior: JointPrior | None
    options: LMOptions
    fracdev: FracdevPrior | None = None
    fracdev_range: tuple[float, float] = FRACDEV_RANGE
    ratio_range: tuple[float, float] = RATIO_RANGE
    marginalise: bool = True
    largest: tuple[float, ...] = ()

    def prior_of(self, member: int) -> JointPrior | None:
        """Return the prior of one member of a group."""
        if self.prior is None or not self.largest:
            return self.prior
        return replace(self.prior, size=Within(self.prior.size, -math.inf, self.largest[member]))

    @property
    def nshape(self) -> int:
        """Number of parameters but the fluxes."""
        return 5 if self.model == "cm" else len(model(self.model).names)


class Mix(NamedTuple):
    """fracdev of a cm fit within its range, as found, and its error; T_d / T_e within its range, and as found."""

    fracdev: float
    fracdev_noclip: float
    fracdev_err: float
    ratio: float
    ratio_noclip: float


class MemberFit(NamedTuple):
    """Fit of one member, covariances marginalised over the others; its model, None where the fit is flagged."""

    fit: Fit
    model: Model | None
    mix: Mix | None = None


class GroupFit(NamedTuple):
    """Fits of all members.

    converged : bool [nmember], whether nothing changed any more; rounds : how many there were; changes : float64
    [nmember, 3, npar], of the last round: absolute, as a part of the parameter, in standard errors.
    """

    members: list[MemberFit]
    converged: NDArray[np.bool_]
    rounds: int
    changes: F64


def _split(fit: Fit, size: int, count: int) -> list[Fit]:
    out = []
    for k in range(count):
        part = slice(k * size, (k + 1) * size)
        s2n = fit.s2n_each[k] if fit.s2n_each else math.nan
        out.append(
            fit._replace(
                pars=fit.pars[part],
                cov0=fit.cov0[part, part],
                cov=fit.cov[part, part],
                s2n=s2n,
                s2n_each=(s2n,),
                moving=fit.moving[k : k + 1],
            )
        )
    return out


def solve(canvas: Canvas, recipe: Recipe, starts: Starts) -> list[MemberFit]:
    """Fit all members of a canvas together.

    Parameters
    ----------
    canvas : Canvas
        Pixels and members.
    recipe : Recipe
        Model and priors.
    starts : sequence of ndarray, shape (nmember, npar)
        First guesses.

    Returns
    -------
    list of MemberFit
        In the order of the canvas. Where the fit of all together failed, all carry its flags.
    """
    count = canvas.member.size
    firsts = [np.ascontiguousarray(start, np.float64).ravel() for start in starts]
    priors = [recipe.prior_of(int(member)) for member in canvas.member]
    size = recipe.nshape + canvas.data.nband
    if recipe.model != "cm":
        profile = model(recipe.model)
        fit = fit_together(canvas.data, canvas.links, [profile] * count, priors, firsts, recipe.options)
        parts = _split(fit, size, count)
        return [MemberFit(one, None if one.flags else profile) for one in parts]
    about = (recipe.options, recipe.fracdev, recipe.fracdev_range, recipe.ratio_range)
    if count == 1 and canvas.links.source.size == canvas.data.start.size:
        data = canvas.data._replace(wcs=canvas.links.wcs)
        alone = fit_composite(data, canvas.links.psf, priors[0], firsts, *about)
        if recipe.marginalise:
            alone = marginalised(data, canvas.links, alone, recipe.fracdev, recipe.fracdev_range)
        mix = Mix(*alone[3:])
        return [MemberFit(alone.fit, None if alone.fit.flags else composite(mix.fracdev, mix.ratio), mix)]
    found = fit_composites(canvas.data, canvas.links, priors, firsts, *about, marginalise=recipe.marginalise)
    out = []
    for k, one in enumerate(_split(found.fit, size, count)):
        mix = Mix(*(float(values[k]) for values in found[4:]))
        out.append(MemberFit(one, None if one.flags else found.models[k], mix))
    return out


def pixels_of(canvas: Canvas, fits: Sequence[MemberFit | None]) -> F64:
    """Return the image of all members that have a model, flat in the order of the canvas.

    Parameters
    ----------
    canvas : Canvas
        Where.
    fits : sequence of MemberFit or None
        One for each source of the canvas; those without a model are left out.
    """
    there = [k for k, one in enumerate(fits) if one is not None and one.model is not None]
    if not there:
        return np.zeros(canvas.data.image.size)
    some = keep_sources(canvas.data, canvas.links, np.array(there))
    good = [one for one in fits if one is not None and one.model is not None]
    pars = np.concatenate([one.fit.pars for one in good])
    models = [one.model for one in good if one.model is not None]
    return model_pixels(Scene(canvas.data, models, some, free=np.zeros(pars.size, bool)), pars)


_ABOUT = {
    "not converged": (MofFlag.NBR_NOT_CONVERGED, MofFlag.FOFMEM_NOT_CONVERGED),
    "bad fit": (MofFlag.NBR_BAD_FIT, MofFlag.FOFMEM_BAD_FIT),
    "not fit": (MofFlag.NBR_NOT_FIT, MofFlag.FOFMEM_NOT_FIT),
    "skipped": (MofFlag.NBR_SKIPPED, MofFlag.FOFMEM_SKIPPED),
}


def mof_flags(states: Sequence[str], pairs: I64) -> I64:
    """Return the flags of each member of a group.

    Parameters
    ----------
    states : sequence of str
        Of each member: ``good``, ``not converged``, ``bad fit`` (flagged), ``not fit`` (no usable data) or
        ``skipped`` (never looked at).
    pairs : ndarray of int, shape (npair, 2)
        Members that are neighbours.
    """
    count = len(states)
    flags = np.zeros(count, np.int64)
    near = np.zeros((count, count), bool)
    near[pairs[:, 0], pairs[:, 1]] = near[pairs[:, 1], pairs[:, 0]] = True
    for k, state in enumerate(states):
        if state == "not converged":
            flags[k] |= MofFlag.NOT_CONVERGED
        elif state == "skipped":
            flags[k] |= MofFlag.SKIPPED
        if state in _ABOUT:
            others = np.arange(count) != k
            flags[others & near[k]] |= _ABOUT[state][0]
            flags[others & ~near[k]] |= _ABOUT[state][1]
    return flags
