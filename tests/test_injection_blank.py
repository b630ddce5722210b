"""Injection on blank images: the noise models, their weights, and the audit of what has no base image."""

from pathlib import Path

import fitsio
import numpy as np
import pytest
import yaml
from injection_tile import MAGZP, SIDE, chip_name, make_tile

from balrogutils.blocks.audit import audit
from balrogutils.blocks.inject import inject, plan, truth
from balrogutils.errors import InputError, ProductError
from balrogutils.fitsfile import Plane, read_image, read_table, write_images
from balrogutils.injection.canvas import BLANKS

INPUTS = Path(__file__).resolve().parents[1] / "inputs"
# SKYSIGMA 17, RDNOISE 6, mean gain 2.
VARIANCES = {"CCD": 17**2 / 2 + 9, "BKG": 0, "BKG+CCD": 17**2 / 2 + 9, "BKG+RN": 9, "BKG+SKY": 17**2, "None": 0}


def blank_tile(root, noise, background=True):
    config = yaml.safe_load((INPUTS / "examples" / "13_blank_images.yaml").read_text())
    config["image"] |= {"inj_objs_only": noise, "noise": {}}
    context = make_tile(root, INPUTS, config, ("g",))
    tree, lines = context.base_tree, []
    for chip in MAGZP:
        path = root / f"{chip_name('g', chip)}_bkg.fits"
        if background:
            level = 100.0 + np.add.outer(np.zeros(SIDE), 0.1 * np.arange(SIDE))
            write_images(path, [Plane("SCI", level.astype("f4"))])
        lines.append(f"{path}\n")
    tree.flist("bkg", "g").write_text("".join(lines))
    return context


def run(context):
    plan(context)
    inject(context, "g")
    truth(context)


@pytest.mark.parametrize("noise", BLANKS)
def test_a_blank_image_has_the_noise_it_says(noise, tmp_path):
    context = blank_tile(tmp_path, {"value": True, "noise": noise})
    run(context)
    chips = read_table(context.tree.truth_chips, "CHIPS")
    seen = []
    for chip in MAGZP:
        name = chip_name("g", chip)
        file = context.tree.nullwt("g", name)
        image = read_image(file, "SCI").astype(float)
        empty = np.ones(image.shape, bool)
        for row in chips[chips["chip"] == name]:
            empty[row["ymin"] - 1 : row["ymax"], row["xmin"] - 1 : row["xmax"]] = False
        if "BKG" in noise:
            image -= 100.0 + 0.1 * np.arange(SIDE)
        values = image[empty]
        expected = VARIANCES[noise]
        # Five sigma of a sample variance and mean; single precision of a background of 100.
        assert values.var() == pytest.approx(expected, abs=5 * expected * np.sqrt(2 / values.size) + 1e-9)
        assert abs(values.mean()) < 5 * np.sqrt(expected / values.size) + 1e-5
        for plane in ("WGT", "WGT_ME"):
            np.testing.assert_allclose(read_image(file, plane), 1 / (expected or 36.0), rtol=1e-6)
        mask = read_image(file, "MSK")
        np.testing.assert_array_equal(mask, np.where(empty, 0, 1 << 12))
        seen.append(values[:500])
    if VARIANCES[noise]:
        assert np.abs(np.corrcoef(seen)[np.triu_indices(4, 1)]).max() < 5 / np.sqrt(500)
    found = audit(context, redraw=True)
    assert found.sound, str(found)


def test_true_is_the_noise_of_the_ccd_and_false_the_image_itself(tmp_path):
    assert blank_tile(tmp_path / "a", True).injection.blank == "CCD"
    assert blank_tile(tmp_path / "b", False).injection.blank is None
    assert blank_tile(tmp_path / "c", {"value": False, "noise": "CCD"}).injection.blank is None
    assert blank_tile(tmp_path / "d", {"value": True}).injection.blank == "None"


def test_no_background_is_an_error(tmp_path):
    context = blank_tile(tmp_path, {"noise": "BKG"}, background=False)
    plan(context)
    with pytest.raises(ProductError, match="not there") as caught:
        inject(context, "g")
    assert "_bkg.fits" in str(caught.value)


def test_a_header_without_what_the_noise_needs_is_an_error(tmp_path):
    context = blank_tile(tmp_path, {"noise": "BKG+SKY"})
    plan(context)
    with fitsio.FITS(str(context.base_tree.nullwt("g", chip_name("g", 1))), "rw") as fits:
        fits["SCI"].write_key("SKYSIGMA", -1.0)
    with pytest.raises(InputError, match="needs SKYSIGMA") as caught:
        inject(context, "g")
    assert caught.value.where["chip"] == chip_name("g", 1)
