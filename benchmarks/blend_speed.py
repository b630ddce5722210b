"""Time fits of groups: `PYTHONPATH=tests python benchmarks/blend_speed.py [GROUPS [MODEL ...]]`.

CPU ms in one process: 4 bands of 6 epochs, stamps of 48 x 48 pixels, PSF mixtures of three Gaussians, PSF fits not
counted. Groups of two and three beside the sum of the fits of their members alone with uberseg weights (SOF); then the
cost of one group against the number of its members, lattices of 5 and 3 arcsec, in which each shares pixels with many.
The last lines are the table of docs/measurement.md; what is above what is asked for is marked: 1.5 times SOF for a
triple, a twentieth of the original `mof` package, N^1.5 up to 50 members 5 arcsec apart.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable

# One thread, as `balrog mof` has it: those of a matrix product that wait for each other are counted as work.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
from blend_scenes import Blend, draw  # noqa: E402

from balrogutils.blends.canvas import build_canvas  # noqa: E402
from balrogutils.blends.joint import fit_jointly  # noqa: E402
from balrogutils.blends.solve import Recipe, solve  # noqa: E402
from balrogutils.fitting.jointprior import JointPrior  # noqa: E402
from balrogutils.fitting.models import model  # noqa: E402
from balrogutils.fitting.priors import FRACDEV_Y3, CenPrior, Flat, GPriorBA, Normal  # noqa: E402
from balrogutils.fitting.solver import LMOptions  # noqa: E402

_log = logging.getLogger("benchmark")

NBAND = 4
MODELS = ("exp", "bdf", "cm")
SIZES = (1, 2, 3, 5, 8, 12, 18, 25, 35, 50)
# Seconds of the original `mof` package: bdf, 4 bands of 6 epochs.
ORIGINAL = {2: 3.3, 3: 17.5}
# What is asked, and how the table marks what is not kept.
RATIO, FASTER, GROWTH, MISSED = 1.5, 20.0, 1.5, " MISSED"


def recipe_of(name: str) -> Recipe:
    """Return a recipe with the priors of the DES Y6 fits."""
    extra = {"bdf": [Normal(0.5, 0.1, 0.0, 1.0)]}.get(name, [])
    prior = JointPrior(CenPrior(0.263), GPriorBA(0.2), Flat(-0.1, 1e5), [Flat(-1000.0, 1e9)] * NBAND, extra)
    return Recipe(name, prior, LMOptions(2000, 5e-5, 5e-5), FRACDEV_Y3)


def group(seed: int, offsets: np.ndarray, name: str) -> Blend:
    """Draw a group; S/N of its members some 100 in all."""
    rng = np.random.default_rng([5, seed])
    truth, models = [], []
    for _ in offsets:
        profile = model("bdf" if name == "bdf" else rng.choice(["exp", "dev"]) if name == "cm" else "exp")
        extra = [rng.uniform(0.3, 0.7)] if name == "bdf" else []
        size = np.exp(rng.normal(np.log(0.5), 0.4)) * (3.0 if profile.name == "dev" else 1.0)
        flux = 900.0 * rng.uniform(0.5, 2.0, NBAND)
        truth.append(np.array([*rng.normal(0, 0.03, 2), *rng.normal(0, 0.1, 2), size, *extra, *flux]))
        models.append(profile)
    return draw(rng, models, truth, offsets, np.full(NBAND, 6.0))


def clock(what: Callable[[], object]) -> float:
    """Return CPU ms."""
    started = time.process_time()
    what()
    return 1e3 * (time.process_time() - started)


def together(blend: Blend, recipe: Recipe) -> float:
    """Return the time of the joint fit, canvas included."""

    def fit() -> None:
        canvas = build_canvas(blend.pieces, blend.count, NBAND)
        found = fit_jointly(canvas, recipe, [blend.starts(recipe.nshape)], blend.offsets, blend.pairs)
        if not found.converged.all():
            _log.info("a group of %d did not converge", blend.count)

    return clock(fit)


def one_by_one(blend: Blend, recipe: Recipe) -> float:
    """Return the time of the fits of all members alone, stamps included."""

    def fit() -> None:
        for k in range(blend.count):
            solve(blend.single(k), recipe, [blend.starts(recipe.nshape)[k : k + 1]])

    return clock(fit)


def polygon(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return positions on a circle, 1.5 to 4 arcsec from each other."""
    radius = 0.5 * rng.uniform(1.5, 4.0) / np.sin(np.pi / count)
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(count) / count
    return radius * np.column_stack([np.sin(angles), np.cos(angles)])


def lattice(rng: np.random.Generator, count: int, pitch: float) -> np.ndarray:
    """Return positions on a jittered lattice, as round as the number allows."""
    side = int(np.ceil(np.sqrt(count))) + 2
    grid = pitch * (np.argwhere(np.ones((side, side))) - (side - 1) / 2)
    near = np.argsort((grid**2).sum(axis=1), kind="stable")[:count]
    return grid[near] + rng.normal(0, 0.1 * pitch, (count, 2))


def main() -> None:
    """Print figures as they come, and the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    rng = np.random.default_rng(9)
    _log.info("%-6s %8s %12s %12s %8s %10s", "model", "members", "SOF sum, ms", "joint, ms", "ratio", "original")
    table = []
    for name in sys.argv[2:] or MODELS:
        cells = [_small(rng, name, members, count) for members in (2, 3)]
        table.append(f"| {name} | {' | '.join([*cells, *(_growth(rng, name, pitch) for pitch in (5.0, 3.0))])} |")
    for line in table:
        _log.info("%s", line)


def _small(rng: np.random.Generator, name: str, members: int, count: int) -> str:
    """Print the cost of pairs or triples; returns their cell of the table."""
    recipe = recipe_of(name)
    warm = group(0, polygon(rng, members), name)
    together(warm, recipe)
    one_by_one(warm, recipe)
    groups = [group(seed, polygon(rng, members), name) for seed in range(1, count + 1)]
    joint = sum(together(one, recipe) for one in groups) / count
    alone = sum(one_by_one(one, recipe) for one in groups) / count
    faster = 1e3 * ORIGINAL[members] / joint
    times = f"x {faster:.0f}" if name == "bdf" else ""
    _log.info("%-6s %8d %12.1f %12.1f %8.2f %10s", name, members, alone, joint, joint / alone, times)
    slow = (members == 3 and joint > RATIO * alone) or (name == "bdf" and faster < FASTER)
    return f"{alone:.0f}, {joint:.0f} ({joint / alone:.2f}){MISSED * slow}"


def _growth(rng: np.random.Generator, name: str, pitch: float) -> str:
    """Print the cost against the number of members of a lattice; returns its cell of the table."""
    recipe = recipe_of(name)
    cost = []
    for members in SIZES:
        repeats = 3 if members < 10 else 1
        groups = [group(100 + k, lattice(rng, members, pitch), name) for k in range(repeats)]
        cost.append(sum(together(one, recipe) for one in groups) / repeats)
    line = " ".join(f"{members}: {ms:.0f}" for members, ms in zip(SIZES, cost, strict=True))
    slope = float(np.polyfit(np.log(SIZES), np.log(cost), 1)[0])
    _log.info("%-4s %.0f arcsec, ms by members: %s; N^%.2f", name, pitch, line, slope)
    return f"{cost[-1]:.0f}, N^{slope:.2f}{MISSED * (pitch == 5.0 and slope > GROWTH)}"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
