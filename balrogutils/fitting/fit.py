"""Fits of scenes: the solver, its flags, and what a fit reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.scene import Scene
from balrogutils.fitting.solver import Evaluate, LMOptions, Solution, Status, invert, minimise

__all__ = ["Fit", "descend", "fit_scene", "unfitted"]

F64 = NDArray[np.float64]

# Steps of all sources together after which each is looked at by itself; how often before those that still move are
# held; what is to move, in standard errors at fixed other parameters.
_STEPS, _ROUNDS, _MOVING = 10, 3, 1.0

_REASONS = {
    Status.MAXFEV: FitFlag.MAXITER,
    Status.BAD_START: FitFlag.GMIX_RANGE_ERROR,
    Status.NOT_FINITE: FitFlag.LM_FUNC_NOTFINITE,
}


class Fit(NamedTuple):
    """Result of one fit.

    flags : `FitFlag` bits; pars, [npar] : in the order of `Scene`; cov0 : inverse normal matrix with prior rows,
    marginalised over all free parameters, 0 for fixed ones; cov : cov0 scaled by the residual variance; chi2per :
    (chi^2 + prior rows) / dof; dof : pixels - free parameters; s2n : of the model, sum d m w / sqrt(sum m^2 w);
    nfev : evaluations of all tries; s2n_each : s2n of each source with the others taken off; moving : whether each
    source was held before its shape converged, empty where none was. Everything but flags, dof and nfev is not a number
    where flags are set.
    """

    flags: int
    pars: F64
    cov0: F64
    cov: F64
    chi2per: float
    dof: int
    s2n: float
    nfev: int
    s2n_each: tuple[float, ...] = ()
    moving: tuple[bool, ...] = ()


def _s2n(power: float, cross: float) -> float:
    return cross / math.sqrt(power) if power > 0.0 else 0.0


def unfitted(flags: int, npar: int, dof: int, nfev: int) -> Fit:
    """Return a fit that failed: flags, and no numbers."""
    bad = np.full((npar, npar), math.nan)
    return Fit(int(flags), np.full(npar, math.nan), bad, bad, math.nan, dof, math.nan, nfev)


def fit_scene(
    scene: Scene,
    starts: Sequence[F64],
    options: LMOptions | None = None,
    *,
    project: bool = True,
    nearer: Callable[[F64], F64] | None = None,
) -> Fit:
    """Fit the free parameters of a scene.

    Parameters
    ----------
    scene : Scene
        What to fit.
    starts : sequence of ndarray, shape (npar,)
        First guesses, tried in order until one converges; never empty. Their free fluxes do not matter with
        `project`.
    options : LMOptions, optional
        Limits of each try.
    project : bool
        Whether fluxes are solved for at every step (variable projection) and not stepped with the others. The result
        is the same.
    nearer : callable, optional
        What to do with parameters from which a fit of all sources together takes many steps: it returns better ones.
        Sources that move without end, those that run along the trail of a star say, are then held in the end, their
        fluxes free: the others converge, and the cost is bounded.

    Returns
    -------
    Fit
        With flags, and nothing that looks like a number, when nothing converged.

    Notes
    -----
    Errors follow the convention of the DES catalogues: the inverse normal matrix, prior rows included, times
    s^2 = chi^2_pixels / (npix - npar), so that they account for weights that are wrong by a common factor. `cov0`
    is without s^2.
    """
    limits = options or LMOptions()
    few = replace(limits, maxfev=min(limits.maxfev, _STEPS))
    npar, nfree = scene.npar, int(scene.free.sum())
    dof = scene.data.npix - nfree
    if dof <= 0:
        return unfitted(FitFlag.ZERO_DOF, npar, max(dof, 0), 0)
    if not math.isfinite(float(scene.power.sum())):
        return unfitted(FitFlag.LM_FUNC_NOTFINITE, npar, dof, 0)

    flags, nfev = int(FitFlag.NO_ATTEMPT), 0
    for start in starts:
        solution = descend(scene, start, limits if nearer is None else few, project=project)
        used, rounds = solution.nfev, 0
        held = np.zeros(len(scene.models), bool)
        while nearer is not None and solution.status is Status.MAXFEV and used < limits.maxfev:
            if rounds < _ROUNDS:
                before = nearer(solution.pars)
                solution = descend(scene, before, few, project=project)
            else:
                before = solution.pars
                solution = _hold(scene, held, before, few, project=project)
            used, rounds = used + solution.nfev, rounds + 1
            if rounds >= _ROUNDS and solution.status is Status.MAXFEV:
                # Later every round holds the one that moves most, if not more.
                held |= _moved(scene, before, solution, _MOVING if rounds == _ROUNDS else 0.0)
        nfev += used
        if solution.status is not Status.CONVERGED:
            flags = int(_REASONS[solution.status])
            continue
        result = _result(scene, solution, dof, nfev)
        if not result.flags:
            return result._replace(moving=tuple(held.tolist())) if held.any() else result
        flags = result.flags
    return unfitted(flags, npar, dof, nfev)


def descend(scene: Scene, start: F64, limits: LMOptions, *, project: bool = True) -> Solution:
    """Minimise chi^2 and prior rows from one start; arguments as in `fit_scene`."""

    def evaluate(pars: F64, normal: F64, gradient: F64) -> float:
        chi2 = scene.chi2(pars, normal, gradient, solve=project)
        return chi2 if math.isnan(chi2) else chi2 + scene.prior(pars, normal, gradient, stepping=True)

    solved = scene.solved if project else None
    if not scene.straight:
        return _straight(scene, evaluate, start, limits, solved)
    low, high = scene.bounds
    return minimise(evaluate, start, limits, low=low, high=high, solved=solved, noise=scene.noise, cusps=scene.cusps)


def _moved(scene: Scene, before: F64, solution: Solution, least: float) -> NDArray[np.bool_]:
    """Return which sources have a shape that moved by `least`, but for those that moved little beside others."""
    change = np.abs(solution.pars - before) * np.sqrt(np.maximum(np.diag(solution.normal), 0.0))
    most = np.array([change[part.start : part.stop - scene.data.nband].max() for part in scene.slices])
    return np.asarray(most >= max(least, 0.1 * float(most.max())))


def _hold(scene: Scene, held: NDArray[np.bool_], start: F64, limits: LMOptions, *, project: bool) -> Solution:
    """Minimise with the shapes of some sources held; normal matrix and gradient are those of all parameters."""
    free = scene.free.copy()
    for part in np.array(scene.slices)[held]:
        free[part.start : part.stop - scene.data.nband] = False
    others = Scene(scene.data, scene.models, scene.links, scene.priors, free, scene.accuracy)
    found = descend(others, start, limits, project=project)
    if found.status is not Status.CONVERGED:
        return found
    pars = found.pars.copy()
    normal, gradient = np.empty((scene.npar, scene.npar)), np.empty(scene.npar)
    chi2 = scene.chi2(pars, normal, gradient)
    chi2 += scene.prior(pars, normal, gradient, stepping=True)
    if not math.isfinite(chi2):
        return found._replace(status=Status.NOT_FINITE)
    return Solution(Status.CONVERGED, pars, chi2, normal, gradient, found.nfev + 1, pars)


def _straight(
    scene: Scene, evaluate: Evaluate, start: F64, limits: LMOptions, solved: NDArray[np.bool_] | None
) -> Solution:
    """Minimise in the coordinates of `Scene.straighten`."""
    low, high = scene.bounds
    first = np.minimum(np.maximum(start, low), high)
    for part, one in zip(scene.slices, scene.models, strict=True):
        if not one.straight:
            # The bounds of T are not those of its coordinate: outside them the prior is impossible, and no step goes.
            low[part.start + 4], high[part.start + 4] = -np.inf, np.inf

    def stepping(coordinates: F64, normal: F64, gradient: F64) -> float:
        pars = scene.bend(coordinates)
        chi2 = evaluate(pars, normal, gradient)
        coordinates[:], slopes = scene.straighten(pars)
        normal[:], gradient[:] = slopes.T @ normal @ slopes, slopes.T @ gradient
        return chi2

    begin = scene.straighten(first)[0]
    found = minimise(stepping, begin, limits, low=low, high=high, solved=solved, noise=scene.noise, cusps=scene.cusps)
    at = scene.bend(found.at)
    back = np.linalg.inv(scene.straighten(at)[1])
    return found._replace(
        pars=scene.bend(found.pars), at=at, normal=back.T @ found.normal @ back, gradient=back.T @ found.gradient
    )


def _result(scene: Scene, solution: Solution, dof: int, nfev: int) -> Fit:
    """Return parameters, errors and statistics at a solution, with the prior rows that are for errors."""
    npar, pars, free = scene.npar, solution.pars, scene.free
    normal, gradient = solution.normal.copy(), solution.gradient.copy()
    rows, slopes = np.zeros((npar, npar)), np.zeros(npar)
    penalty = scene.prior(solution.at, rows, slopes, stepping=True)
    normal -= rows
    gradient -= slopes
    chi2 = max(solution.chi2 - penalty, 0.0)
    fluxes = scene.flux.ravel()
    if not free[fluxes].all():
        scene.chi2(solution.at, normal, gradient, masked=False)
    amounts = solution.at[fluxes]
    power = float(amounts @ normal[np.ix_(fluxes, fluxes)] @ amounts)
    # The flux rows of the gradient are sum t w (m - d), so this is sum d m w.
    cross = power - float(amounts @ gradient[fluxes])
    each = []
    for part in scene.flux:
        alone = float(solution.at[part] @ normal[np.ix_(part, part)] @ solution.at[part])
        each.append(_s2n(alone, alone - float(solution.at[part] @ gradient[part])))
    scene.prior(solution.at, normal, gradient)
    if not np.all(np.isfinite(normal)):
        return unfitted(FitFlag.EIG_NOTFINITE, npar, dof, nfev)
    inverse = invert(normal[np.ix_(free, free)])
    if inverse is None:
        return unfitted(FitFlag.LM_SINGULAR_MATRIX, npar, dof, nfev)
    # Without noise chi^2 is its own rounding.
    variance = max(chi2, scene.noise) / dof
    if not variance > 0.0:
        return unfitted(FitFlag.NONPOS_VAR, npar, dof, nfev)
    cov0 = np.zeros((npar, npar))
    cov0[np.ix_(free, free)] = inverse
    return Fit(0, pars, cov0, cov0 * variance, (chi2 + penalty) / dof, dof, _s2n(power, cross), nfev, tuple(each))
