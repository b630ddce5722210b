"""Fluxes of pairs and triples drawn from the models that are fit: bias and errors of groups fit together.

The groups are those of `benchmarks/blend_bias.py`, which has single fits beside them.
"""

import numpy as np
import pytest
from blend_scenes import CELLS, NBAND, figures, fluxes_of, random_group, recipe_of

from balrogutils.blends.joint import fit_jointly

pytestmark = pytest.mark.science

# What the issue demands: 1000 groups a cell, medians below a per cent or three standard errors, half a per cent for the
# light of groups, widths of pulls.
GROUPS = 1000
BIAS, SIGMAS = 0.01, 3.0
TOTAL = 0.005
PULL = (0.9, 1.2)


@pytest.mark.parametrize(("near", "far"), CELLS)
@pytest.mark.parametrize("members", [2, 3])
@pytest.mark.parametrize("name", ["bdf", "cm"])
def test_fluxes_of_groups(name, members, near, far):
    recipe = recipe_of(name)
    truth, found = [], []
    for seed in range(GROUPS):
        blend = random_group(np.random.default_rng([17, seed, members, int(near)]), name, members, near, far)
        starts = blend.starts(recipe.nshape)
        truth.append([pars[-NBAND:] for pars in blend.truth])
        found.append(fluxes_of(fit_jointly(blend.canvas, recipe, [starts], blend.offsets, blend.pairs).members))
    flux, error, good = (np.array(values) for values in zip(*found, strict=True))
    bias, bias_se, _, width, total, _, flagged = figures(np.array(truth), flux, error, good)
    assert flagged == 0
    assert abs(bias) < max(BIAS, SIGMAS * bias_se)
    assert abs(total) < TOTAL
    assert PULL[0] < width < PULL[1]
