"""Every numbered example configuration, injected into the small tile: truth, pixels, audit."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from injection_tile import MAGZP, chip_name, make_tile

from balrogutils.blocks.inject import inject, plan, truth
from balrogutils.fitsfile import read_image, read_table
from balrogutils.injection.audit import check_pixels, check_truth
from balrogutils.settings.injection import Injection

INPUTS = Path(__file__).resolve().parents[1] / "inputs"
EXAMPLES = sorted((INPUTS / "examples").glob("*.yaml"))
NGMIX = {"T", "g1", "g2", "fracdev", "TdByTe"}
COLUMNS = {
    "04": {"sersic_n", "r50_arcsec", "truncation"},
    "05": {"bulge_fraction", "bulge_n", "bulge_r50_arcsec", "disk_r50_arcsec"},
    "06": {"knots"},
    "07": {"cosmos_index"},
    "08": {"cosmos_index"},
    "16": {"stamp_reach", "stamp_snr", "stamp_masked", "stamp_slot_g", "stamp_error_g"},
}
ALWAYS = {"bal_id", "inj_type", "number", "cat_row", "cat_id", "ra", "dec", "rotation", "shear_g1", "shear_g2"}
ALWAYS |= {"magnification", "light_scale", "noise_key", "outcome", "r50_arcsec", "flux_g", "mag_g", "extinction_g"}


def small(path, root):
    """The example as it is, with grids and positions that fit into a tile of 68 arcsec."""
    config = yaml.safe_load(path.read_text())
    image = config["image"]
    sampling = image["pos_sampling"]
    if path.name.startswith("10"):
        (root / "positions.csv").write_text("x,y\n60,70.5\n130,131\n200,190\n500,20\n")
        sampling["file_name"] = "positions.csv"
    if path.name.startswith("15"):
        for one in sampling.values():
            one["grid_spacing"] = 12
    if path.name.startswith("03"):
        image["object_density"] = 10
    return config


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_injected_as_its_truth_says(path, tmp_path):
    Injection.load(path)
    context = make_tile(tmp_path, INPUTS, small(path, tmp_path), bands=("g",))
    plan(context)
    inject(context, "g")
    truth(context)
    tree = context.tree
    table, chips = read_table(tree.truth, "TRUTH"), read_table(tree.truth_chips, "CHIPS")
    assert set(table.dtype.names) >= ALWAYS | COLUMNS.get(path.name[:2], NGMIX)
    assert len(np.unique(table["bal_id"])) == len(table) > 0
    assert not check_truth(table, chips)
    kinds = [read_table(tree.truth_of(kind), "TRUTH") for kind in dict.fromkeys(table["inj_type"])]
    np.testing.assert_array_equal(np.concatenate(kinds), table)
    # Every object lies in the tile, and chip 1 holds the tile.
    first = chips[chips["ccdnum"] == 1]
    assert set(first["bal_id"]) == set(table["bal_id"])
    blank = path.name.startswith("13")
    for chip in MAGZP:
        name = chip_name("g", chip)
        rows = chips[chips["chip"] == name]
        if not blank:
            base, new = (read_image(at.nullwt("g", name), "SCI") for at in (context.base_tree, tree))
            found = check_pixels(base, new, rows)
            assert not found.problems
            whole = rows[rows["flags"] & 4 == 0]
            np.testing.assert_allclose(whole["flux_on_chip"], whole["flux_expected"], rtol=1e-4)
