"""The strategy of the DES Y3 runs: each member fit alone, the others' models taken off, again and again (M 5.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from balrogutils.blends.canvas import Canvas, part_of
from balrogutils.blends.joint import changes_of
from balrogutils.blends.solve import GroupFit, MemberFit, Recipe, Starts, pixels_of, solve

__all__ = ["Convergence", "View", "fit_iteratively"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Convergence:
    """When the rounds end.

    Parameters
    ----------
    maxabs, maxfrac : tuple of float
        Largest change of v, u, g1, g2, T and the flux in each band, absolute and as a part of the parameter. Bands
        beyond the last value have that one, parameters of the profile those of T.
    maxerr : float
        Largest change in standard errors. A parameter has converged where one of the three is kept.
    min_itr, max_itr : int
        Rounds at least and at most, after the first fits.
    min_useg_itr : int
        The round from which on all pixels of the stamps count, and not only those nearest to the member.
    """

    maxabs: tuple[float, ...] = (1e-3, 1e-3, *(1e-6,) * 7)
    maxfrac: tuple[float, ...] = (*(1e-6,) * 5, *(1e-3,) * 4)
    maxerr: float = 0.5
    min_itr: int = 10
    max_itr: int = 15
    min_useg_itr: int = 1

    def reached(self, changes: F64, nband: int) -> bool:
        """Return whether the changes of one member, as in `GroupFit`, are small."""
        npar = changes.shape[1]
        limits = []
        for values in (self.maxabs, self.maxfrac):
            fluxes = [values[min(5 + band, len(values) - 1)] for band in range(nband)]
            limits.append(np.array([*values[:5], *[values[4]] * (npar - 5 - nband), *fluxes]))
        small = (changes[0] <= limits[0]) | (changes[1] <= limits[1]) | (changes[2] <= self.maxerr)
        return bool(small.all())


@dataclass(frozen=True)
class View:
    """The stamps of one member.

    Parameters
    ----------
    joined : Canvas
        With all pixels, and all members linked.
    owner : ndarray of int, shape (npix,)
        The member whose pixel it is, -1 for none.
    alone : Canvas, optional
        The same stamps with weights limited to the pixels nearest to the member; `joined` when not given.
    box : int
        Side of the stamps, pixels; members with larger ones are fit first.
    """

    joined: Canvas
    owner: I64
    alone: Canvas | None = None
    box: int = 0


def fit_iteratively(
    views: Sequence[View],
    recipe: Recipe,
    starts: Starts,
    rules: Convergence,
    random: Callable[[int], np.random.Generator],
) -> GroupFit:
    """Fit the members of a group in turns.

    Parameters
    ----------
    views : sequence of View
        Stamps of each member.
    recipe : Recipe
        Model and priors.
    starts : sequence of ndarray, shape (nmember, npar)
        First guesses.
    rules : Convergence
        When to end.
    random : callable
        Random stream of a round; it gives the order of the members, and guesses around the last parameters.

    Returns
    -------
    GroupFit
        Errors are those of each member with the others' models fixed. Pixels of members without a fit have weight 0.
    """
    count, npar = starts[0].shape
    nband = npar - recipe.nshape
    fits: list[MemberFit | None] = [None] * count
    for k in sorted(range(count), key=lambda k: -views[k].box):
        view = views[k]
        canvas = view.joined if count == 1 or view.alone is None else view.alone
        fits[k] = solve(part_of(canvas, np.array([k]))[0], recipe, [start[k : k + 1] for start in starts])[0]
    converged = np.zeros(count, bool)
    changes = np.zeros((count, 3, npar))
    rounds = 0
    while count > 1 and rounds < rules.max_itr and not (converged.all() and rounds >= rules.min_itr):
        rounds += 1
        stream = random(rounds)
        for k in stream.permutation(count):
            jitter: F64 = np.asarray(stream.uniform(-0.5, 0.5, npar))
            before = fits[k]
            fits[k] = _refit(int(k), views[k], fits, recipe, starts, jitter, joined=rounds >= rules.min_useg_itr)
            changes[k] = changes_of(before, fits[k], npar)
            converged[k] = rules.reached(changes[k], nband)
    if count == 1:
        converged[:] = True
    changes[~np.isfinite(changes)] = 0.0
    return GroupFit([one for one in fits if one is not None], converged, rounds, changes)


def _refit(
    k: int,
    view: View,
    fits: Sequence[MemberFit | None],
    recipe: Recipe,
    starts: Starts,
    jitter: F64,
    *,
    joined: bool,
) -> MemberFit:
    """Fit one member once more, the models of the others taken off."""
    canvas = view.joined if joined or view.alone is None else view.alone
    others = [None if number == k else one for number, one in enumerate(fits)]
    unknown = [number for number, one in enumerate(others) if number != k and (one is None or one.model is None)]
    weight = np.where(np.isin(view.owner, unknown), 0.0, canvas.data.weight)
    image = np.where(weight > 0.0, canvas.data.image - pixels_of(canvas, others), 0.0)
    data = canvas.data._replace(image=image, weight=weight, npix=int(np.count_nonzero(weight)))
    guesses = [start[k : k + 1] for start in starts]
    last = fits[k]
    if last is not None and last.model is not None:
        errors = np.sqrt(np.maximum(np.diag(last.fit.cov), 0.0))
        near = last.fit.pars + jitter * errors
        if near[2] ** 2 + near[3] ** 2 > 0.64:
            near[2:4] = last.fit.pars[2:4]
        guesses = [near[None], last.fit.pars[None], *guesses]
    return solve(part_of(canvas._replace(data=data), np.array([k]))[0], recipe, guesses)[0]
