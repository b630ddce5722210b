"""The audit of a realization, and objects drawn again."""

import re
import shutil
from pathlib import Path

import fitsio
import numpy as np
import pytest
from injection_tile import chip_name, configuration, make_tile

from balrogutils.blocks.audit import audit
from balrogutils.blocks.inject import inject, plan, truth
from balrogutils.blocks.replay import replay
from balrogutils.errors import InjectionError, InputError, ProductError
from balrogutils.fitsfile import Table, read_header, read_image, read_table, write_tables
from balrogutils.injection.audit import HEADER_KEY, check_pixels
from balrogutils.injection.flags import OUTCOME_DTYPE, ChipFlag

INPUTS = Path(__file__).resolve().parents[1] / "inputs"
CHIP = chip_name("g", 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One realization with Poisson noise."""
    config = configuration(noise={"type": "Poisson"})
    # Some stamps are alone, some share pixels.
    config["image"]["pos_sampling"]["ngmix_catalog"]["grid_spacing"] = 12.0
    context = make_tile(tmp_path_factory.mktemp("audit"), INPUTS, config, ("g",))
    plan(context)
    inject(context, "g")
    truth(context)
    return context


@pytest.fixture
def files(made):
    """The realization, whose products are put back afterwards."""
    tree = made.tree
    kept = {path: path.read_bytes() for path in (tree.nullwt("g", CHIP), tree.truth, tree.truth_chips)}
    kept[made.base_tree.nullwt("g", CHIP)] = made.base_tree.nullwt("g", CHIP).read_bytes()
    yield tree
    for path, content in kept.items():
        # The image has a second name, which must stay the same file.
        path.write_bytes(content)


def wrong(context, redraw=False):
    found = audit(context, redraw)
    assert not found.sound
    assert "WRONG" in str(found)
    return " ".join([*found.problems, *(text for band in found.bands for text in band.problems)])


def rewrite(path, name, change):
    """Change the rows of a table, keeping its header."""
    rows, header = read_table(path, name), read_header(path, name)
    cards = {key: header[key] for key in ("NOBJECTS", "MAGZERO")}
    write_tables(path, [Table(name, change(rows.copy()), None, cards)])


def test_stamps_are_one_group_when_they_share_pixels_directly_or_by_others():
    image = np.zeros((40, 60), "f4")
    rows = np.zeros(5, OUTCOME_DTYPE)
    # A chain of three in an order that joins its ends last, one that only touches it, one far away.
    boxes = [(1, 10, 1, 10), (17, 26, 1, 10), (9, 18, 8, 17), (27, 30, 1, 10), (50, 60, 30, 40)]
    for row, box in zip(rows, boxes, strict=True):
        row["xmin"], row["xmax"], row["ymin"], row["ymax"] = box
    assert check_pixels(image, image, rows).groups == 3
    assert check_pixels(image, image, rows[:0]).groups == 0
    # What one of the chain gains and another loses is within one group; the neighbour that touches it is another.
    injected = image.copy()
    injected[5, 2], injected[5, 20] = 3.0, -3.0
    assert not check_pixels(image, injected, rows).problems
    injected[5, 20], injected[5, 28] = 0.0, -3.0
    assert len(check_pixels(image, injected, rows).problems) == 2


def test_an_honest_realization_passes_and_every_pixel_is_drawn_again_alike(made):
    found = audit(made, redraw=True)
    assert found.sound, str(found)
    (band,) = found.bands
    assert (band.chips, band.lit) == (4, 3)
    assert band.rows == len(read_table(made.tree.truth_chips, "CHIPS"))
    assert 0 < band.worst < 1
    assert "as the truth says" in str(found)


def test_a_chip_replaced_by_its_original(made, files):
    files.nullwt("g", CHIP).write_bytes(made.base_tree.nullwt("g", CHIP).read_bytes())
    text = wrong(made)
    assert "was not injected into" in text
    assert f"{CHIP}: the image gained 0 where" in text


def brightest_alone(tree):
    """A row of the chip whose stamp is whole, and shares no pixels if there is such a one."""
    rows = read_table(tree.truth_chips, "CHIPS")
    rows = rows[(rows["chip"] == CHIP) & ((rows["flags"] & ChipFlag.CLIPPED_BY_EDGE) == 0)]
    return rows[np.argsort(rows["flags"] & ChipFlag.OVERLAPS_ANOTHER, kind="stable")][0]


def test_the_flux_of_one_object_halved_in_the_pixels(made, files):
    row = brightest_alone(files)
    one, _ = replay(made, int(row["bal_id"]), CHIP)
    with fitsio.FITS(str(files.nullwt("g", CHIP)), "rw") as image:
        pixels = image["SCI"].read()
        box = slice(row["ymin"] - 1, row["ymax"]), slice(row["xmin"] - 1, row["xmax"])
        pixels[box] -= (0.5 * read_image(one, "MODEL")).astype("f4")
        image["SCI"].write(pixels)
    text = wrong(made)
    gained = float(re.search(r"the image gained (\S+) where", text)[1])
    assert gained == pytest.approx(0.5 * row["flux_on_chip"] + row["noise_drawn"], rel=1e-4)
    assert f"objects {row['bal_id']})" in text


@pytest.mark.parametrize("table", ["truth", "truth_chips"])
def test_the_flux_of_one_object_halved_in_a_table(made, files, table):
    row = brightest_alone(files)

    def halve(rows):
        mine = rows["bal_id"] == row["bal_id"]
        for name in ("flux_g", "flux_expected", "flux_drawn", "flux_on_chip"):
            if name in rows.dtype.names:
                rows[name][mine] *= 0.5
        return rows

    rewrite(getattr(files, table), {"truth": "TRUTH", "truth_chips": "CHIPS"}[table], halve)
    assert str(row["bal_id"]) in wrong(made)


@pytest.mark.parametrize("place", [0, 5, -1])
def test_a_truth_row_deleted(made, files, place):
    gone = read_table(files.truth, "TRUTH")["bal_id"][place]
    rewrite(files.truth, "TRUTH", lambda rows: rows[rows["bal_id"] != gone])
    assert str(gone) in wrong(made)


def test_a_row_by_chip_deleted(made, files):
    row = brightest_alone(files)
    same = ("bal_id", "chip")
    rewrite(files.truth_chips, "CHIPS", lambda rows: rows[~np.all([rows[name] == row[name] for name in same], axis=0)])
    text = wrong(made)
    assert f"were not injected: {row['bal_id']}" in text


def test_a_double_injection(made, files):
    base = made.base_tree.nullwt("g", CHIP)
    light = read_image(files.nullwt("g", CHIP), "SCI") - read_image(base, "SCI")
    with fitsio.FITS(str(files.nullwt("g", CHIP)), "rw") as image:
        image["SCI"].write(image["SCI"].read() + light)
    assert "the image gained" in wrong(made)


def test_a_base_image_that_was_injected_into_is_refused(made, files):
    base = made.base_tree.nullwt("g", CHIP)
    shutil.copyfile(files.nullwt("g", CHIP), base)
    assert "the base image was injected into" in wrong(made)
    again = made.at("0")
    with pytest.raises(InjectionError, match=f"injected into before: its header has {HEADER_KEY}") as caught:
        inject(again, "g")
    assert caught.value.where["chip"] == CHIP


def test_an_image_of_another_realization_or_none(made, files):
    path = files.nullwt("g", CHIP)
    with fitsio.FITS(str(path), "rw") as image:
        image["SCI"].write_key(HEADER_KEY, "7")
    assert "injected for realization 7" in wrong(made)
    path.unlink()
    assert "the injected image is not there" in wrong(made)
    # `files` writes it again.


def test_another_plane_changed(made, files):
    with fitsio.FITS(str(files.nullwt("g", CHIP)), "rw") as image:
        weight = image["WGT"].read()
        weight[3, 4] *= 2
        image["WGT"].write(weight)
    assert "the plane WGT differs" in wrong(made)


def test_one_pixel_moved_within_a_stamp_is_seen_when_drawn_again(made, files):
    row = brightest_alone(files)
    with fitsio.FITS(str(files.nullwt("g", CHIP)), "rw") as image:
        pixels = image["SCI"].read()
        y, x = row["ymin"], row["xmin"]
        pixels[y, x], pixels[y, x + 1] = pixels[y, x + 1], pixels[y, x]
        image["SCI"].write(pixels)
    assert audit(made).sound
    assert "2 pixels are not as the truth draws them" in wrong(made, redraw=True)


def test_no_truth_is_an_error(made, files):
    content = files.truth.read_bytes()
    files.truth.unlink()
    with pytest.raises(ProductError, match="no truth to audit"):
        audit(made)
    files.truth.write_bytes(content)


def test_an_object_drawn_again_is_the_object_in_the_image(made):
    tree = made.tree
    rows = read_table(tree.truth_chips, "CHIPS")
    alone = rows[(rows["flags"] & ChipFlag.OVERLAPS_ANOTHER) == 0]
    assert 0 < len(alone) < len(rows)
    for row in alone[:3]:
        file, picture = replay(made, int(row["bal_id"]), row["chip"].strip())
        box = slice(row["ymin"] - 1, row["ymax"]), slice(row["xmin"] - 1, row["xmax"])
        total = read_image(file, "TOTAL")
        assert total.shape == (row["ymax"] - row["ymin"] + 1, row["xmax"] - row["xmin"] + 1)
        assert read_image(file, "MODEL").sum() == pytest.approx(row["flux_on_chip"], rel=1e-12)
        assert read_image(file, "NOISE").sum() == pytest.approx(row["noise_drawn"], rel=1e-9)
        base, new = (read_image(at.nullwt("g", row["chip"].strip()), "SCI") for at in (made.base_tree, tree))
        np.testing.assert_array_equal((base[box].astype("f8") + total).astype("f4"), new[box])
        assert picture.read_bytes()[:4] == b"\x89PNG"


def test_replay_refuses_what_is_not_there(made):
    bal_id = int(read_table(made.tree.truth, "TRUTH")["bal_id"][0])
    with pytest.raises(InputError, match="has no object 5"):
        replay(made, 5, CHIP)
    with pytest.raises(InputError, match="did you mean"):
        replay(made, bal_id, CHIP.replace("r0001", "r0002"))
    with pytest.raises(InputError, match="does not reach"):
        replay(made, bal_id, chip_name("g", 3))
