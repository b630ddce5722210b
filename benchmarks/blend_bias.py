"""Fluxes of blends: `PYTHONPATH=tests python benchmarks/blend_bias.py [GROUPS] [MODEL ...]`.

Pairs and triples drawn from the models that are fit, cells of separation; S/N of each member 30 to 200, flux ratios 1
to 10, random sizes, shapes and types (`bdf`: fracdev from its prior; `cm`: exp or dev). 2 bands of 3 epochs. Joint
fits, and beside them fits of each member alone with uberseg weights (SOF) on the same pixels.
"""

from __future__ import annotations

import logging
import sys

import numpy as np
from blend_scenes import CELLS, NBAND, figures, fluxes_of, random_group, recipe_of

from balrogutils.blends.joint import fit_jointly
from balrogutils.blends.solve import solve

_log = logging.getLogger("benchmark")


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
                    blend = random_group(rng, name, members, near, far)
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
