"""Every numbered example configuration, injected into the small tile: truth, pixels, audit."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from injection_tile import MAGZP, chip_name, make_tile
from piff_models import moffat, write_piff

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
    "17": {"bulge_sed", "disk_sed", "redshift", "wavelength_g", "bulge_fraction", "bulge_fraction_g"},
    "18": {"cosmos_index", "wavelength_g"},
    "20": {"sersic_n", "r50_arcsec", "truncation"},
    "21": {"sersic_n_0", "r50_arcsec_1", "g2_1", "share_0_g", "own_REDSHIFT"},
    "16": {"stamp_reach", "stamp_snr", "stamp_masked", "stamp_slot_g", "stamp_error_g"},
}
ALWAYS = {"bal_id", "inj_type", "number", "cat_row", "cat_id", "ra", "dec", "rotation", "shear_g1", "shear_g2"}
ALWAYS |= {"magnification", "light_scale", "noise_key", "outcome", "r50_arcsec", "flux_g", "mag_g", "extinction_g"}


def small(path, root):
    """The example as it is, with grids and positions that fit into a tile of 68 arcsec."""
    config = yaml.safe_load(path.read_text())
    image = config["image"]
    sampling = image.get("pos_sampling")
    if path.name.startswith("10"):
        (root / "positions.csv").write_text("x,y\n60,70.5\n130,131\n200,190\n500,20\n")
        sampling["file_name"] = "positions.csv"
    if path.name.startswith("20"):
        for chip in MAGZP:
            name = f"{chip_name('g', chip)}_piff-model.fits"
            write_piff(root / "run/piff" / name, [moffat(1.0), 1e-4 * moffat(1.3)], ["x", "y"], [0, 1])
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


def kinds(name):
    """First cells of a table of the documentation."""
    text = (INPUTS.parent / "docs" / "injection.md").read_text()
    section = text.split(f"## {name}\n")[1].split("\n## ")[0]
    return [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]


def test_there_is_an_example_of_every_kind_of_source_and_position():
    loaded = [Injection.load(path) for path in EXAMPLES]
    types = {item.type for one in loaded for item in one.gal.items}
    schemes = {one.positions(name).type for one in loaded for name in one.inputs}
    schemes |= {one.positions(name).grid_type for one in loaded for name in one.inputs} - {None}
    assert len(kinds("Sources")) >= 6
    assert set(kinds("Sources")) <= types | {"gal"}
    assert len(kinds("Positions")) == 8
    assert set(kinds("Positions")) <= schemes
    galsims = types - set(kinds("Sources"))
    assert {"Sersic", "Sum"} <= galsims
    models = {one.input.galaxy_table.model for one in loaded if one.input.galaxy_table}
    assert models == {"sersic", "bulge_disk", "knots"}
    assert {one.psf.type for one in loaded} == {"DES_PSFEx", "Piff"}
    assert [path.name[:2] for path in EXAMPLES] == [f"{number:02d}" for number in range(1, len(EXAMPLES) + 1)]
