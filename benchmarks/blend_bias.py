"""Fluxes of blends: `PYTHONPATH=tests python benchmarks/blend_bias.py [GROUPS] [MODEL ...]`.

Pairs and triples drawn from the models that are fit, cells of separation; S/N of each member 30 to 200, flux ratios 1
to 10, random sizes, shapes and types (`bdf`: fracdev from its prior; `cm`: exp or dev). 2 bands of 3 epochs. Joint
fits, and beside them fits of each member alone with uberseg weights (SOF) on the same pixels.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
from blend_scenes import Blend, draw

from balrogutils.blends.joint import fit_jointly
from balrogutils.blends.solve import MemberFit, Recipe, solve
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.models import Model, model
from balrogutils.fitting.priors import FRACDEV_Y3, CenPrior, Flat, GPriorBA, Normal
from balrogutils.fitting.solver import LMOptions

_log = logging.getLogger("benchmark")

NBAND, NEPOCH, SIGMA = 2, 3, 2.0
CELLS = ((1.0, 2.0), (2.0, 3.0), (3.0, 4.0))


def recipe_of(name: str) -> Recipe:
    """Return a recipe with the priors that the galaxies are drawn from."""
    extra = [Normal(0.5, 0.1, 0.0, 1.0)] if name == "bdf" else []
    prior = JointPrior(CenPrior(0.263), GPriorBA(0.2), Flat(-0.1, 1e5), [Flat(-1000.0, 1e9)] * NBAND, extra)
    return Recipe(name, prior, LMOptions(2000, 5e-5, 5e-5), FRACDEV_Y3)


def shape_of(rng: np.random.Generator) -> np.ndarray:
    """Return a shape drawn from the prior."""
    while True:
        g = rng.uniform(-0.9, 0.9, 2)
        gg = float(g @ g)
        if gg < 0.8 and rng.uniform() < (1 - gg) ** 2 * np.exp(-gg / 0.08):
            return g


def galaxy(rng: np.random.Generator, name: str) -> tuple[Model, np.ndarray, float]:
    """Return a model, its parameters with flux 1 in each band, and the size of its image that rules S/N."""
    kind = name if name == "bdf" else str(rng.choice(["exp", "dev"]))
    size = float(np.exp(rng.normal(np.log(0.5), 0.5))) * (3.0 if kind == "dev" else 1.0)
    extra = [float(np.clip(rng.normal(0.5, 0.1), 0.0, 1.0))] if kind == "bdf" else []
    colour = np.exp(rng.normal(0, 0.3, NBAND))
    pars = np.array([*rng.normal(0, 0.05, 2), *shape_of(rng), size, *extra, *colour])
    return model(kind), pars, size


def group(rng: np.random.Generator, name: str, count: int, near: float, far: float) -> Blend:
    """Draw a group whose members are `near` to `far` arcsec apart."""
    separation = rng.uniform(near, far)
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(count) / count
    radius = 0.5 * separation / np.sin(np.pi / count)
    offsets = radius * np.column_stack([np.sin(angles), np.cos(angles)])
    members = [galaxy(rng, name) for _ in range(count)]
    # S/N of a Gaussian of the galaxy's and the PSF's size; near enough to draw from.
    per_flux = [0.263 / SIGMA * np.sqrt(NBAND * NEPOCH / (2 * np.pi * (0.5 * size + 0.35))) for _, _, size in members]
    while True:
        fluxes = np.exp(rng.uniform(np.log(30), np.log(200), count)) / per_flux
        if fluxes.max() <= 10.0 * fluxes.min():
            break
    truth = [pars * np.array([1.0] * (pars.size - NBAND) + [flux] * NBAND)
             for (_, pars, _), flux in zip(members, fluxes, strict=True)]  # fmt: skip
    return draw(rng, [one for one, _, _ in members], truth, offsets, np.full(NBAND, SIGMA), nepoch=NEPOCH)


def figures(truth: np.ndarray, flux: np.ndarray, error: np.ndarray, good: np.ndarray) -> tuple[Any, ...]:
    """Return median bias, its standard error, median and width of the pulls, and the bias of group totals.

    truth, flux, error : ndarray, shape (ngroup, nmember, nband); good : bool, (ngroup, nmember).
    """

    def width(x: np.ndarray) -> float:
        low, high = np.percentile(x, [15.865, 84.135])
        return 0.5 * float(high - low)

    bias = (flux / truth - 1.0)[good].ravel()
    pull = ((flux - truth) / error)[good].ravel()
    whole = good.all(axis=1)
    total = (flux[whole].sum(axis=1) / truth[whole].sum(axis=1) - 1.0).ravel()
    # Bands of one object share its shape: their errors go together.
    independent = bias.size / NBAND
    return (
        np.median(bias),
        1.2533 * width(bias) / np.sqrt(independent),
        np.median(pull),
        width(pull),
        np.median(total),
        1.2533 * width(total) / np.sqrt(total.size / NBAND),
        int(np.count_nonzero(~good)),
    )


def fluxes_of(fits: list[MemberFit]) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Return fluxes, errors, and whether the fits are good."""
    flux = np.array([one.fit.pars[-NBAND:] for one in fits])
    error = np.array([np.sqrt(np.diag(one.fit.cov))[-NBAND:] for one in fits])
    return flux, error, [one.fit.flags == 0 for one in fits]


def main() -> None:
    """Print one line for each cell and method."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    names = sys.argv[2:] or ["bdf", "cm"]
    head = ("model", "n", "arcsec", "fit", "bias %", "+-", "pull", "width", "total %", "+-", "flagged")
    _log.info("%-5s %2s %-8s %-6s %8s %6s %7s %6s %8s %6s %8s", *head)
    for name in names:
        recipe = recipe_of(name)
        for members in (2, 3):
            for near, far in CELLS:
                truth, found = [], {"joint": [], "SOF": []}  # type: ignore[var-annotated]
                for seed in range(count):
                    rng = np.random.default_rng([17, seed, members, int(near)])
                    blend = group(rng, name, members, near, far)
                    starts = blend.starts(recipe.nshape)
                    truth.append([pars[-NBAND:] for pars in blend.truth])
                    joint = fit_jointly(blend.canvas, recipe, [starts], blend.offsets, blend.pairs)
                    alone = [solve(blend.single(k), recipe, [starts[k : k + 1]])[0] for k in range(members)]
                    found["joint"].append(fluxes_of(joint.members))
                    found["SOF"].append(fluxes_of(alone))
                for method, values in found.items():
                    flux, error, good = (np.array([one[k] for one in values]) for k in range(3))
                    bias, se, pull, spread, total, total_se, flagged = figures(np.array(truth), flux, error, good)
                    _log.info("%-5s %2d %3.0f-%-4.0f %-6s %8.2f %6.2f %7.2f %6.2f %8.2f %6.2f %8d", name, members, near,
                              far, method, 100 * bias, 100 * se, pull, spread, 100 * total, 100 * total_se,
                              flagged)  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
