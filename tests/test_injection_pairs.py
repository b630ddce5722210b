"""Streams by name: shear pairs, realizations, bands and processes; photon noise."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import galsim
import numpy as np
import pytest
import yaml
from identical import same
from injection_tile import MAGZP, chip_name, configuration, make_tile

from balrogutils.blocks.inject import inject, plan, truth
from balrogutils.context import Context
from balrogutils.fitsfile import read_image, read_table
from balrogutils.graph import Job
from balrogutils.injection import drawing
from balrogutils.injection.flags import ChipFlag
from balrogutils.injection.planning import _dtype, plan_digest
from balrogutils.randomness import stream

INPUTS = Path(__file__).resolve().parents[1] / "inputs"


def at(context, realization):
    return Context(context.site, context.pipeline, context.campaign, context.tile, realization)


def run(context, bands=None):
    plan(context)
    for band in bands or context.bands:
        inject(context, band)
    truth(context)
    return read_table(context.tree.truth, "TRUTH"), read_table(context.tree.truth_chips, "CHIPS")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    config = yaml.safe_load((INPUTS / "examples" / "12_shear_pairs.yaml").read_text())
    config["gal"]["shear"] = {"type": "G1G2", "g1": 0.02, "g2": {"type": "Random", "min": -0.05, "max": 0.05}}
    context = make_tile(tmp_path_factory.mktemp("pairs"), INPUTS, config, ("g",))
    return context, {name: run(at(context, name)) for name in ("0", "1", "2")}


def test_pairs_are_equal_but_for_the_sign_of_the_shear(pairs):
    _, made = pairs
    (plus, plus_chips), (minus, minus_chips), (other, _) = made.values()
    for name in plus.dtype.names:
        if name in ("shear_g1", "shear_g2"):
            np.testing.assert_array_equal(plus[name], -minus[name])
        elif name == "bal_id":
            assert not set(plus[name]) & set(minus[name])
        else:
            np.testing.assert_array_equal(plus[name], minus[name], err_msg=name)
    assert plus["shear_g1"] == pytest.approx(0.02)
    assert len(np.unique(plus["shear_g2"])) == len(plus)
    assert not np.array_equal(other["ra"], plus["ra"])
    np.testing.assert_array_equal(plus_chips["noise_key"], minus_chips["noise_key"])


def test_pairs_differ_by_the_shear_alone(pairs):
    """The noise is the same numbers: the difference of the images is that of the light, without noise."""
    context, made = pairs
    (table, plus), (_, minus), _ = made.values()
    np.testing.assert_array_equal(plus["noise_drawn"], minus["noise_drawn"])
    assert (plus["noise_drawn"] != 0).all()
    np.testing.assert_array_equal(plus["poisson_variance"], minus["poisson_variance"])
    name = chip_name("g", 1)
    one, two = (read_image(at(context, number).tree.nullwt("g", name), "SCI").astype(float) for number in "01")
    for row in table:
        here = plus[(plus["bal_id"] == row["bal_id"]) & (plus["chip"] == name)][0]
        if here["flags"] & (ChipFlag.CLIPPED_BY_EDGE | ChipFlag.OVERLAPS_ANOTHER):
            continue
        box = slice(here["ymin"] - 1, here["ymax"]), slice(here["xmin"] - 1, here["xmax"])
        difference = (one - two)[box]
        # No photon noise: the rms is a hundredth of the peak, and the sum is nothing.
        assert abs(difference.sum()) < 2e-4 * here["flux_on_chip"]
        assert difference[:4].std() < 1e-4 * here["flux_on_chip"]
        assert np.abs(difference).max() > 1e-5 * here["flux_on_chip"]


def test_realizations_bands_and_order_change_nothing_of_what_was_there(tmp_path):
    config = configuration(noise={"type": "Poisson"})
    config["image"]["pos_sampling"]["ngmix_catalog"]["grid_spacing"] = 14.0
    first = make_tile(tmp_path / "one", INPUTS, config)
    run(first)
    # Another order of bands and chips, another realization in between, and a band appended at last.
    second = make_tile(tmp_path / "two", INPUTS, config)
    for band in second.bands:
        file = second.base_tree.flist("nullwt", band)
        others = [second.base_tree.flist(kind, band) for kind in ("seg", "bkg")]
        for path in (file, *others):
            path.write_text("\n".join(reversed(path.read_text().split("\n")[:-1])) + "\n")
    run(at(second, "2"), ("r", "g"))
    run(second, ("r", "g"))
    for band in "gr":
        for chip in MAGZP:
            name = chip_name(band, chip)
            assert same(first.tree.nullwt(band, name), second.tree.nullwt(band, name))
    assert same(first.tree.truth, second.tree.truth)
    assert same(first.tree.truth_chips, second.tree.truth_chips)
    before = dict.fromkeys(MAGZP, (tmp_path / "two" / "x").name)
    assert before
    alone = make_tile(tmp_path / "three", INPUTS, {**config, "image": {**config["image"], "bands": "g"}})
    run(alone)
    for chip in MAGZP:
        name = chip_name("g", chip)
        assert same(first.tree.nullwt("g", name), alone.tree.nullwt("g", name))


def test_a_digest_of_a_plan_is_of_one_band():
    rows = np.zeros(3, _dtype("gr", model_width=8))
    rows["model"], rows["flux_g"], rows["flux_r"] = "exp", 5.0, 7.0
    alone = np.zeros(3, _dtype("g"))
    for name in alone.dtype.names:
        alone[name] = rows[name]
    digest = plan_digest(rows, "g")
    assert digest == plan_digest(alone, "g") != plan_digest(rows, "r")
    for name, same_for in (("flux_r", "g"), ("extinction_g", "r"), ("ra", ""), ("noise_key", ""), ("inj_type", "")):
        changed = rows.copy()
        changed[name][1] = "x" if name == "inj_type" else 1
        assert [band for band in "gr" if plan_digest(changed, band) == plan_digest(rows, band)] == list(same_for)


@pytest.mark.parametrize("avoid", [{}, {"masked": True}])
def test_an_injection_outlives_a_plan_made_again_unless_it_goes_by_all_masks(tmp_path, avoid):
    context = make_tile(tmp_path, INPUTS, configuration(avoid=avoid), ("g",))
    job, before = Job("inject", context, "g"), Job("plan", context)
    assert job.outlives(before) is not bool(avoid)
    assert not Job("truth", context).outlives(before)
    assert not job.outlives(Job("prep", context.at(None), "g"))


def test_noise_of_exposures_bands_and_realizations_is_uncorrelated():
    light = np.full((60, 60), 200.0)
    names = [("poisson", "T", r, b, c, 7) for r in ("0", "1") for b in "gr" for c in ("D1_g_c01", "D2_g_c01")]
    noise = np.array([drawing.poisson_noise(light, 1.1, stream(3, *name)).ravel() for name in names])
    correlation = np.corrcoef(noise)[np.triu_indices(len(names), 1)]
    # 28 pairs: 4.5 / sqrt(n) is 7e-6 by chance.
    assert np.abs(correlation).max() < 4.5 / np.sqrt(light.size)


@pytest.mark.parametrize("gain", [1.0, 3.3])
def test_variance_of_the_noise_over_200_keys_is_the_light_over_the_gain(gain):
    image = galsim.Exponential(half_light_radius=3.0, flux=2e5).drawImage(nx=41, ny=41, scale=1.0, dtype=float).array
    bright = image > 50
    assert bright.sum() >= 200
    noise = np.array([drawing.poisson_noise(image, gain, stream(1, "key", key)) for key in range(200)])
    ratio = noise.var(axis=0, ddof=1)[bright] / (image[bright] / gain)
    assert ratio.mean() == pytest.approx(1.0, abs=0.05)
    assert np.abs(noise.mean(axis=0)[bright] / np.sqrt(image[bright] / gain)).max() < 5.5 / np.sqrt(200)


def test_each_amplifier_has_its_own_gain(tmp_path):
    import fitsio

    context = make_tile(tmp_path, INPUTS, configuration(noise={"type": "Poisson"}), ("g",))
    path = context.base_tree.nullwt("g", chip_name("g", 1))
    with fitsio.FITS(str(path), "rw") as fits:
        for key, value in (
            ("GAINA", 40.0),
            ("GAINB", 0.5),
            ("DATASECA", "[131:260,1:260]"),
            ("DATASECB", "[1:130,1:260]"),
        ):
            fits["SCI"].write_key(key, value)
    context.base_tree.manifest("prep", "g").unlink(missing_ok=True)
    _, chips = run(context)
    mine = chips[chips["ccdnum"] == 1]
    per_light = mine["poisson_variance"] / mine["flux_on_chip"]
    left, right = mine["xmax"] < 128, mine["xmin"] > 133
    # The lobes of the PSF models are below zero and make no noise: 2 per cent.
    np.testing.assert_allclose(per_light[left], 1 / 0.5, rtol=0.02)
    np.testing.assert_allclose(per_light[right], 1 / 40.0, rtol=0.02)
    assert left.any()
    assert right.any()


def test_weights_know_the_light(tmp_path):
    config = configuration(noise={"type": "Poisson", "update_weights": True}, mask_bit=12)
    context = make_tile(tmp_path, INPUTS, config, ("g",))
    _, chips = run(context)
    name = chip_name("g", 1)
    base, new = (
        {plane: read_image(tree.nullwt("g", name), plane) for plane in ("SCI", "WGT", "WGT_ME", "MSK")}
        for tree in (context.base_tree, context.tree)
    )
    stamps = np.zeros(base["SCI"].shape, bool)
    for row in chips[chips["chip"] == name]:
        stamps[row["ymin"] - 1 : row["ymax"], row["xmin"] - 1 : row["xmax"]] = True
    np.testing.assert_array_equal(new["MSK"], np.where(stamps, base["MSK"] | 4096, base["MSK"]))
    for plane in ("WGT", "WGT_ME"):
        variance = 1 / new[plane].astype(float) - 1 / base[plane].astype(float)
        np.testing.assert_array_equal(new[plane][~stamps], base[plane][~stamps])
        total = chips["poisson_variance"][chips["chip"] == name].sum()
        # Single precision of 1 / 17^2 over some 20000 pixels.
        assert variance.sum() == pytest.approx(total, rel=1e-3)
    masked = read_image(context.tree.nullwt("g", chip_name("g", 4)), "WGT")
    assert (masked == 0).all()


KILLED = """
import sys
import signal
import subprocess
import sys
import time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import yaml
from injection_tile import make_tile
from balrogutils.blocks.inject import inject, plan
root = Path(sys.argv[2])
context = make_tile(root, Path(sys.argv[3]), yaml.safe_load((root / "galsim.yaml").read_text()), ("g",))
plan(context)
print("planned", flush=True)
inject(context, "g")
"""


def test_killed_and_done_again_it_is_the_same(tmp_path):
    config = configuration(noise={"type": "Poisson"})
    whole = make_tile(tmp_path / "whole", INPUTS, config, ("g",))
    run(whole)
    broken = make_tile(tmp_path / "broken", INPUTS, config, ("g",))
    words = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "broken"), str(INPUTS)]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    first = broken.tree.nullwt("g", chip_name("g", 1))
    deadline = time.monotonic() + 120
    while not first.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    # Some images are there and the list, which comes last, is not.
    assert first.exists()
    assert not broken.tree.manifest("inject", "g").exists()
    inject(broken, "g")
    truth(broken)
    for chip in MAGZP:
        name = chip_name("g", chip)
        assert same(whole.tree.nullwt("g", name), broken.tree.nullwt("g", name))
    for file in ("truth", "truth_chips"):
        assert same(getattr(whole.tree, file), getattr(broken.tree, file))
