"""Bulk reads of MEDS files, blocks of objects, and derived weights against their plain definitions."""

import os

import fitsio
import numpy as np
import pytest
from meds_frames import STAMPS, Frame, layout_at, tables_of, write_stamps

from balrogutils.meds import MEDS, pixels
from balrogutils.meds.cutouts import FILL
from balrogutils.meds.extract import extract_numbers
from balrogutils.meds.reader import ObjectBlock
from balrogutils.meds.stamps import Stamps, split_mosaic
from balrogutils.meds.tables import record
from balrogutils.meds.weights import reject_outliers
from balrogutils.meds.writer import Packing, write_meds
from balrogutils.randomness import stream

IMAGES, SHAPE, COUNT = 5, (160, 150), 30
SIDES = (9, 11, 13, 9, 7)
KINDS = (*STAMPS, "psf")


def frames():
    """Images of random planes and a segmentation of discs whose labels are the numbers of the objects."""
    rng = stream(41, "bulk")
    made = []
    for side in SIDES:
        planes = {"image": rng.normal(0, 5, SHAPE), "weight": rng.uniform(1, 2, SHAPE)}
        planes |= {"seg": np.zeros(SHAPE), "bmask": rng.integers(0, 2**15, SHAPE)}
        made.append(Frame({kind: planes[kind].astype(STAMPS[kind]) for kind in STAMPS}, side))
    return made


def layout_of(sources):
    """Objects at much the same place of all images, each with its disc in the segmentation, turned Jacobians."""
    rng = stream(42, "objects")
    found = []
    y, x = np.indices(SHAPE)
    for number in range(1, COUNT + 1):
        row, col = rng.uniform(0, SHAPE[0] - 1), rng.uniform(0, SHAPE[1] - 1)
        ids = [0, *sorted(rng.choice(np.arange(1, IMAGES), rng.integers(0, IMAGES), replace=False))]
        found.append([(int(k), row + rng.uniform(0, 0.5), col + rng.uniform(0, 0.5)) for k in ids])
        for source in sources:
            source.pixels["seg"][(y - row) ** 2 + (x - col) ** 2 < rng.uniform(2, 5) ** 2] = number
    found[7] = []
    layout, box = layout_at(found, rng.choice([16, 32, 48], COUNT), SIDES)
    used = layout.per_object["file_id"] != FILL
    angle = rng.uniform(0, 2 * np.pi, used.shape)
    for name, value in (
        ("dudrow", 0.26 * np.cos(angle)),
        ("dudcol", 0.27 * np.sin(angle)),
        ("dvdrow", -0.26 * np.sin(angle)),
        ("dvdcol", 0.27 * np.cos(angle)),
    ):
        layout.per_object[name] = np.where(used, value, float(FILL))
    return layout, box


@pytest.fixture(scope="module", params=["plain", "packed"])
def path(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("bulk")
    sources = frames()
    layout, box = layout_of(sources)
    target = place / ("m.fits" if request.param == "plain" else "m.fits.fz")
    packing = None if request.param == "plain" else Packing(("bulk",))
    write_meds(target, tables_of(layout, box, IMAGES, psf=True), layout, sources, packing, dtypes=STAMPS)
    return target


def same(block, meds, rows):
    for i in rows:
        for kind in KINDS:
            for k in range(meds["ncutout"][i]):
                np.testing.assert_array_equal(block.get_cutout(i, k, kind), meds.get_cutout(i, k, kind))
            if kind != "psf":
                np.testing.assert_array_equal(block.get_mosaic(i, kind), meds.get_mosaic(i, kind))


def test_blocks_hold_what_single_reads_give(path):
    with MEDS(path) as meds:
        same(meds.read_objects(0, meds.size, KINDS), meds, range(meds.size))
        same(meds.read_objects(6, 9, KINDS), meds, range(6, 9))
        scattered = [20, 3, 4, 29, 7]
        same(meds.read_rows(scattered, KINDS), meds, scattered)
        assert meds.read_rows([], ["image"]).pixels["image"].size == 0


def test_blocks_cover_the_file_within_their_bound(path):
    with MEDS(path) as meds:
        sizes = meds["ncutout"] * meds["box_size"] ** 2
        seen = []
        for block in meds.blocks(KINDS, pixels=20000):
            assert block.pixels["image"].size <= 20000 or len(block.rows) == 1
            assert block.pixels["image"].size == sizes[block.rows].sum()
            seen += block.rows.tolist()
            same(block, meds, block.rows)
        assert seen == list(range(meds.size))
        assert [block.rows.tolist() for block in meds.blocks(["seg"], 3, 7)] == [[3, 4, 5, 6]]
        assert [block.rows.tolist() for block in meds.blocks(["seg"], 3, 5, pixels=1)] == [[3], [4]]


def test_a_block_is_one_read_a_plane(tmp_path, monkeypatch):
    sources = frames()
    layout, box = layout_of(sources)
    path = write_stamps(tmp_path / "m.fits", layout, box, sources)
    counted = []
    real = os.preadv
    monkeypatch.setattr(pixels.os, "preadv", lambda *words: counted.append(words) or real(*words))
    with MEDS(path) as meds:
        meds.read_objects(0, meds.size)
        assert len(counted) == 4
        # Two separate ranges.
        meds.read_rows([2, 3, 4, 20], ["image"])
        assert len(counted) == 6


def test_short_reads_are_carried_on(tmp_path, monkeypatch):
    sources = frames()
    layout, box = layout_of(sources)
    path = write_stamps(tmp_path / "m.fits", layout, box, sources)
    real = os.preadv
    with MEDS(path) as meds:
        whole = meds.read_objects(0, meds.size, ["image"]).pixels["image"]
        monkeypatch.setattr(pixels.os, "preadv", lambda fd, rooms, at: real(fd, [rooms[0][:1001]], at))
        np.testing.assert_array_equal(meds.read_objects(0, meds.size, ["image"]).pixels["image"], whole)


def test_objects_in_any_order_in_the_file(tmp_path, path):
    """Pixels written backwards: the same stamps, if not one slice; what is extracted is in order again."""
    with MEDS(path) as meds:
        planes = {
            kind: np.empty(meds.read_objects(0, meds.size, [kind]).pixels[kind].size, STAMPS[kind]) for kind in STAMPS
        }
        rows = meds.get_cat().copy()
        end = len(planes["image"])
        for i in range(meds.size):
            for k in range(rows["ncutout"][i]):
                n = int(rows["box_size"][i]) ** 2
                rows["start_row"][i, k] = end - n
                for kind, flat in planes.items():
                    flat[end - n : end] = meds.get_cutout(i, k, kind).ravel()
                end -= n
        with fitsio.FITS(str(tmp_path / "back.fits"), "rw") as fits:
            fits.write(None)
            for name, table in (
                ("object_data", rows),
                ("image_info", meds.get_image_info()),
                ("metadata", meds.get_meta()),
            ):
                fits.write_table(table, extname=name)
            for kind, flat in planes.items():
                fits.write(flat, extname=f"{kind}_cutouts")
        extract_numbers(tmp_path / "back.fits", [5, 2, 9, 2], tmp_path / "part.fits")
        with MEDS(tmp_path / "back.fits") as back, MEDS(tmp_path / "part.fits") as part:
            block = back.read_objects(0, back.size)
            for i in range(meds.size):
                for kind in STAMPS:
                    np.testing.assert_array_equal(back.get_mosaic(i, kind), meds.get_mosaic(i, kind))
                    np.testing.assert_array_equal(block.get_mosaic(i, kind), meds.get_mosaic(i, kind))
            assert part["number"].tolist() == [2, 5, 9]
            assert (np.diff(part["start_row"][0, : part["ncutout"][0]]) == part["box_size"][0] ** 2).all()
            for at, number in enumerate(part["number"]):
                for kind in STAMPS:
                    np.testing.assert_array_equal(part.get_mosaic(at, kind), meds.get_mosaic(number - 1, kind))


def test_sizes_of_psf_stamps_may_be_one_an_object(tmp_path):
    sources = frames()[:1]
    layout, box = layout_at([[(0, 40.0, 40.0)], [(0, 60.0, 60.0)]], [16, 16], SIDES)
    tables = tables_of(layout, box, 1, psf=True)
    columns = {name: tables.object_data[name] for name in tables.object_data.dtype.names}
    for name in ("psf_row_size", "psf_col_size"):
        columns[name] = columns[name][:, 0]
    one = tables_of(layout, box, 1, psf=True).__class__(
        record(columns), tables.image_info, tables.metadata, tables.psf_info
    )
    for name, both in (("per_cutout", tables), ("per_object", one)):
        write_meds(tmp_path / f"{name}.fits", both, layout, sources, None, dtypes=STAMPS)
    with MEDS(tmp_path / "per_object.fits") as meds, MEDS(tmp_path / "per_cutout.fits") as before:
        assert meds["psf_row_size"].shape == (2,)
        for i in range(2):
            np.testing.assert_array_equal(meds.get_psf(i, 0), before.get_psf(i, 0))
            np.testing.assert_array_equal(meds.read_objects(0, 2, ["psf"]).get_psf_list(i)[0], before.get_psf(i, 0))
            assert meds.get_psf_rowcol(i, 0) == (4.0, 4.0)


# plain definitions of what is derived, pixel by pixel


def mapped(meds, i, k):
    """The coadd's labels under the pixels of cut-out k: by the two Jacobians, rounded half to even, clipped."""
    seg, box = meds.get_cutout(i, 0, "seg"), meds["box_size"][i]
    offset = np.indices((box, box)).reshape(2, -1) - np.reshape(meds.get_cutout_rowcol(i, k), (2, 1))
    at = np.linalg.solve(meds.get_jacobian_matrix(i, 0), meds.get_jacobian_matrix(i, k) @ offset)
    row, col = np.clip(np.round(at + np.reshape(meds.get_cutout_rowcol(i, 0), (2, 1))), 0, box - 1).astype(int)
    return seg[row, col].reshape(box, box)


def uberseg_by_definition(weight, labels, number):
    rows, cols = np.nonzero(labels)
    if len(np.unique(labels)) == 2 or rows.size == 0:
        return weight
    r, c = np.indices(labels.shape)
    squared = (r[..., None] - rows) ** 2 + (c[..., None] - cols) ** 2
    first = np.argmin(squared, axis=-1)
    return np.where(labels[rows, cols][first] == number, weight, 0)


def test_derived_weights_are_their_definitions(path):
    """The label at the centre is sky for some objects and another object's for others."""
    crowded = 0
    with MEDS(path) as meds:
        for i in range(0, meds.size, 3):
            box, number = meds["box_size"][i], meds.get_number(i)
            block = meds.read_objects(i, i + 1)
            for owner in (meds, block):
                every = owner.get_uberseg_list(i)
                assert len(every) == meds["ncutout"][i]
            for k in range(meds["ncutout"][i]):
                labels, weight = mapped(meds, i, k), meds.get_cutout(i, k, "weight")
                row, col = (int(x) for x in meds.get_cutout_rowcol(i, 0))
                own = meds.get_cutout(i, 0, "seg")[row, col]
                other = (labels != own) & (labels != 0)
                cweight = np.where(other, 0, weight)
                strict = np.where(labels != own, 0, weight)
                uberseg = uberseg_by_definition(cweight, labels, number)
                crowded += int((uberseg != cweight).sum())
                for owner in (meds, block):
                    np.testing.assert_array_equal(owner.interpolate_coadd_seg(i, k), labels)
                    np.testing.assert_array_equal(owner.get_cweight_cutout(i, k), cweight)
                    np.testing.assert_array_equal(owner.get_cweight_cutout(i, k, restrict_to_seg=True), strict)
                    np.testing.assert_array_equal(owner.get_uberseg(i, k), uberseg)
                    np.testing.assert_array_equal(owner.get_cweight_cutout_nearest(i, k, fast=False), uberseg)
                    np.testing.assert_array_equal(owner.get_uberseg_list(i)[k], uberseg)
                    np.testing.assert_array_equal(owner.get_cseg_cutout(i, k), np.where(other, 0, number))
                    part = slice(k * box, (k + 1) * box)
                    np.testing.assert_array_equal(owner.get_cweight_mosaic(i)[part], cweight)
                    np.testing.assert_array_equal(owner.get_cseg_mosaic(i)[part], np.where(other, 0, number))
                    np.testing.assert_array_equal(owner.interpolate_coadd_seg_mosaic(i)[part], labels)
                    np.testing.assert_array_equal(
                        owner.get_cseg_weight(i, k), circle(owner, i, k, meds.get_cutout_rowcol(i, k))
                    )
                    np.testing.assert_array_equal(
                        owner.get_cseg_weight(i, k, use_canonical_cen=True), circle(owner, i, k, ((box - 1) / 2,) * 2)
                    )
    assert crowded > 1000


def circle(meds, i, k, centre):
    """The weight nearer to `centre` than any pixel of another object in the cut-out's own map."""
    weight, seg = meds.get_cutout(i, k, "weight"), meds.get_cutout(i, k, "seg")
    row, col = (int(x) for x in meds.get_cutout_rowcol(i, k))
    r, c = np.indices(weight.shape)
    squared = (r - centre[0]) ** 2 + (c - centre[1]) ** 2
    others = squared[(seg != 0) & (seg != seg[row, col])]
    return np.where(squared < others.min(initial=np.inf), weight, 0)


def test_outliers_by_their_definition():
    rng = stream(43, "outliers")
    images = [rng.normal(10, 1, (9, 9)) for _ in range(5)]
    weights = [rng.uniform(0, 2, (9, 9)) for _ in range(5)]
    images[1][2, 3], images[4][7, 7], weights[4][7, 7] = 60, -40, 1
    weights[0][0, 0] = -1
    before = [weight.copy() for weight in weights]
    count = 0
    median = np.median(images, axis=0)
    expected = []
    for image, weight in zip(images, before, strict=True):
        out = np.maximum(weight, 0)
        for at in np.ndindex(9, 9):
            w, m = out[at], median[at]
            if w * (image[at] - m) ** 2 > (5 + 0.3 * abs(m) * np.sqrt(w)) ** 2:
                out[at] = 0
                count += 1
        expected.append(out)
    assert reject_outliers(images, weights) == count >= 2
    np.testing.assert_array_equal(weights, expected)


def test_the_names_of_the_original_reader():
    names = """get_cutout get_mosaic get_cutout_list get_psf get_psf_list has_psf get_jacobian get_jacobian_matrix
    get_jacobian_list get_cweight_cutout get_cweight_mosaic get_cweight_cutout_list get_uberseg get_uberseg_list
    get_cweight_cutout_nearest get_cweight_cutout_nearest_list get_cseg_cutout get_cseg_mosaic get_cseg_cutout_list
    get_cseg_weight interpolate_coadd_seg interpolate_coadd_seg_mosaic get_source_info get_source_path get_cat
    get_image_info get_meta get_number get_cutout_rowcol size close"""
    assert not [name for name in names.split() if not hasattr(MEDS, name)]
    assert issubclass(ObjectBlock, Stamps)
    mosaic = np.arange(8).reshape(4, 2)
    assert [stamp.tolist() for stamp in split_mosaic(mosaic)] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
