"""The joint fit of a group: all members in one system, or in overlapping blocks where there are many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from balrogutils.blends.canvas import Canvas, part_of
from balrogutils.blends.solve import GroupFit, MemberFit, Recipe, Starts, pixels_of, solve

__all__ = ["LARGEST", "changes_of", "fit_jointly"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Members of one system at most; those that a block of a larger group answers for, and neighbours fit with them.
LARGEST, CORE, HALO = 50, 6, 8
_ROUNDS = 20
# In standard errors: what the last round may still change.
_ENOUGH = 0.02


def fit_jointly(
    canvas: Canvas, recipe: Recipe, starts: Starts, offsets: F64, pairs: I64, largest: int = LARGEST
) -> GroupFit:
    """Fit all members of a group; parameters of all are free, and every pixel counts once.

    Parameters
    ----------
    canvas : Canvas
        Pixels and members.
    recipe : Recipe
        Model and priors.
    starts : sequence of ndarray, shape (nmember, npar)
        First guesses.
    offsets : ndarray, shape (nmember, 2)
        Positions of the members, arcsec from any point.
    pairs : ndarray of int, shape (npair, 2)
        Members that are neighbours.
    largest : int
        Members of one system at most.

    Returns
    -------
    GroupFit
        Errors are marginalised over the other members; in a larger group over those of its block.

    Notes
    -----
    More than `largest` members are fit block by block: some members that are near each other, and the nearest of their
    neighbours, while the models of all others are taken off the image; the first are kept. Rounds over the blocks go on
    until nothing moves by 0.02 standard errors. The cost grows as the number of members. Where the members of one
    system cannot be told apart, each is a block of its own.
    """
    count = canvas.member.size
    if count <= largest:
        found = solve(canvas, recipe, starts)
        if count == 1 or not any(one.model is None for one in found):
            settled = np.array([not any(one.fit.moving) for one in found])
            return GroupFit(found, settled, 1, np.zeros((count, 3, starts[0].shape[1])))
        order = np.argsort(-starts[0][:, recipe.nshape :].sum(axis=1), kind="stable")
        blocks = [(np.array([k]), np.array([k])) for k in order]
    else:
        blocks = _blocks(offsets, pairs)
    return _sweep(canvas, recipe, starts, blocks)


def _bisect(members: I64, offsets: F64) -> list[I64]:
    """Return compact sets of at most `CORE` members."""
    if members.size <= CORE:
        return [members]
    places = np.nan_to_num(offsets[members])
    axis = int(np.argmax(np.ptp(places, axis=0)))
    order = members[np.argsort(places[:, axis], kind="stable")]
    half = members.size // 2
    return [*_bisect(order[:half], offsets), *_bisect(order[half:], offsets)]


def _blocks(offsets: F64, pairs: I64) -> list[tuple[I64, I64]]:
    """Return the blocks: members that are kept, and these with the nearest of their neighbours."""
    near = np.eye(len(offsets), dtype=bool)
    near[pairs[:, 0], pairs[:, 1]] = near[pairs[:, 1], pairs[:, 0]] = True
    places = np.nan_to_num(offsets)
    out = []
    for core in _bisect(np.arange(len(offsets)), offsets):
        around = np.setdiff1d(np.flatnonzero(near[core].any(axis=0)), core)
        apart = np.hypot(*(places[around, None] - places[core]).transpose(2, 0, 1)).min(axis=1)
        out.append((core, np.concatenate([core, around[np.argsort(apart, kind="stable")][:HALO]])))
    return out


def changes_of(before: MemberFit | None, after: MemberFit, npar: int) -> F64:
    """Return the change of each parameter, [3, npar]: absolute, as a part of it, in standard errors; infinite where
    one of both fits is no fit."""
    if before is None or before.model is None or after.model is None:
        return np.full((3, npar), np.inf)
    change = np.abs(after.fit.pars - before.fit.pars)
    errors = np.sqrt(np.maximum(np.diag(after.fit.cov), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(change == 0.0, 0.0, change / size) for size in (np.abs(after.fit.pars), errors)]
    return np.array([change, *parts])


def _sweep(canvas: Canvas, recipe: Recipe, starts: Starts, blocks: list[tuple[I64, I64]]) -> GroupFit:
    """Fit block after block, the models of all other members taken off, until nothing moves."""
    count, npar = starts[0].shape
    fits: list[MemberFit | None] = [None] * count
    changes = np.full((count, 3, npar), np.inf)
    total = np.zeros(canvas.data.image.size)
    parts = [part_of(canvas, block) for _, block in blocks]
    used = canvas.data.weight > 0.0
    rounds = 0
    converged = np.zeros(count, bool)
    while rounds < _ROUNDS and not converged.all():
        rounds += 1
        for (core, block), (part, pixels) in zip(blocks, parts, strict=True):
            own = pixels_of(part, [fits[k] for k in block])
            others = np.where(used[pixels], total[pixels] - own, 0.0)
            less = part._replace(data=part.data._replace(image=part.data.image - others))
            guesses = [np.array([_guess(fits[k], start[k]) for k in block]) for start in starts]
            found = solve(less, recipe, guesses)
            if block.size > 1 and any(one.model is None for one in found):
                found = _one_by_one(less, recipe, guesses)
            for k, one in zip(block[: core.size], found, strict=False):
                changes[k] = changes_of(fits[k], one, npar)
                fits[k] = one
            total[pixels] += pixels_of(part, [fits[k] for k in block]) - own
        failed = np.array([one is None or one.model is None for one in fits])
        converged = failed & (rounds > 1) | (changes[:, 2].max(axis=1) <= _ENOUGH)
    changes[~np.isfinite(changes)] = 0.0
    return GroupFit([one for one in fits if one is not None], converged, rounds, changes)


def _guess(fit: MemberFit | None, start: F64) -> F64:
    return start if fit is None or fit.model is None else fit.fit.pars


def _one_by_one(canvas: Canvas, recipe: Recipe, starts: Starts) -> list[MemberFit]:
    """Fit the members of a block that have no common solution each alone, the models of those before taken off."""
    fits: list[MemberFit | None] = [None] * canvas.member.size
    used = canvas.data.weight > 0.0
    for k in range(canvas.member.size):
        others = np.where(used, pixels_of(canvas, fits), 0.0)
        part, pixels = part_of(canvas, np.array([k]))
        less = part._replace(data=part.data._replace(image=part.data.image - others[pixels]))
        fits[k] = solve(less, recipe, [start[k : k + 1] for start in starts])[0]
    return [one for one in fits if one is not None]
