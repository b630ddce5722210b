"""Photon noise of injected images of real exposures: its variance, and that no two of it are alike."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import yaml
from conftest import REAL_TILE as TILE

from balrogutils.blocks.inject import inject, plan
from balrogutils.blocks.recipe import recipe_of, settings_of
from balrogutils.context import Installation
from balrogutils.fitsfile import read_image
from balrogutils.injection import listing
from balrogutils.injection.imagefile import inject_chip
from balrogutils.injection.planning import read_plan

pytestmark = pytest.mark.long

KEYS = 200
# A galaxy whose light is above 50 counts on some thousand pixels, in the middle of the tile of 253.
CONFIG = {
    "gal": {"type": "Exponential", "name": "galaxy", "half_light_radius": 1.5, "flux": 3.0e5},
    "psf": {"type": "DES_PSFEx"},
    "stamp": {"draw_method": "no_pixel"},
    "image": {
        "type": "Balrog",
        "pos_sampling": {"galaxy": {"type": "Table", "file_name": "middle.csv"}},
        "noise": {"type": "Poisson"},
    },
}


@pytest.fixture
def context(archive, base, command):
    """The real tile after block 1, and a configuration with one galaxy at the same place in every realization."""
    done = command("snakemake", "--cores", "2", f"tile={TILE}", "--config", "mode=1")
    assert done.returncode == 0, done.stderr
    (base / "middle.csv").write_text("x,y\n127.3,126.8\n")
    (base / "one.yaml").write_text(yaml.safe_dump(CONFIG))
    names = {"galsim_config": str(base / "one.yaml"), "realizations": "0,1"}
    return Installation.load(names, {"BALROG_BASE": str(base), "TMPDIR": str(base.parent)}).context(TILE, "0")


def gained(chip, path):
    """What injection added; not a number where the base image is none."""
    base, new = (read_image(file, "SCI").astype(float) for file in (chip.base, path))
    return new - base


def quiet(context, chip):
    """The light without its noise."""
    recipe, shapes = recipe_of(context, *settings_of(context))
    rows = read_plan(context.tree.plan)
    reach = np.array([shapes.reach(row) for row in rows])
    target = chip.target.with_name("quiet.fits")
    table = inject_chip(replace(chip, target=target), rows, reach, replace(recipe, poisson=False), shapes)
    return gained(chip, target), table[0]


def test_variance_over_200_keys_is_the_light_over_the_gain(context):
    plan(context)
    chip = listing.base_chips(context.base_tree, context.tree, "r")[0]
    model, _ = quiet(context, chip)
    recipe, shapes = recipe_of(context, *settings_of(context))
    rows = read_plan(context.tree.plan)
    reach = np.array([shapes.reach(row) for row in rows])
    bright = np.nan_to_num(model) > 50.0
    assert bright.sum() >= 200
    total, square = np.zeros(bright.sum()), np.zeros(bright.sum())
    for key in range(KEYS):
        inject_chip(chip, rows, reach, replace(recipe, seed=key), shapes)
        noise = (gained(chip, chip.target) - model)[bright]
        total += noise
        square += noise**2
    expected = (model / chip.gains)[bright]
    variance = (square - total**2 / KEYS) / (KEYS - 1)
    ratio = variance / expected
    # The mean of so many pixels is known to half a per cent.
    assert ratio.mean() == pytest.approx(1.0, abs=0.05)
    # No pixel is left out, and none has twice the noise: 6 sigma of chi^2 with 199 degrees of freedom.
    assert np.abs(ratio - 1.0).max() < 6.0 * np.sqrt(2.0 / KEYS)
    assert np.abs(total / KEYS / np.sqrt(expected / KEYS)).max() < 5.5


def test_noise_of_exposures_bands_and_realizations_is_uncorrelated(context):
    fields = {}
    for name in ("0", "1"):
        here = context.at(name)
        plan(here)
        for band in ("g", "r"):
            inject(here, band)
            for chip in listing.base_chips(here.base_tree, here.tree, band):
                model, row = quiet(here, chip)
                noise = gained(chip, chip.target) - model
                # The same 31 x 31 pixels about the centre, in units of the expected noise.
                y, x = round(row["y"]) - 1, round(row["x"]) - 1
                box = slice(y - 15, y + 16), slice(x - 15, x + 16)
                expected = (model / chip.gains)[box]
                assert (expected > 0).all()
                fields[name, band, chip.name] = (noise[box] / np.sqrt(expected)).ravel()
    # Two exposures in g and three in r, twice.
    assert len(fields) == 10
    for (one, first), (other, second) in combinations(fields.items(), 2):
        # 45 pairs: 4.5 sigma is 3e-4 by chance in all of them.
        assert abs(np.mean(first * second)) < 4.5 / np.sqrt(first.size), (one, other)
    everything = np.concatenate(list(fields.values()))
    assert everything.var() == pytest.approx(1.0, abs=0.05)
