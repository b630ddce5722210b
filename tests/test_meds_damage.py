"""MEDS files that are cut short, incomplete, of wrong types or empty: a clear refusal, or a value on record."""

import gzip
import shutil

import fitsio
import numpy as np
import pytest
from meds_frames import STAMPS, Frame, layout_at, tables_of, write_stamps
from numpy.lib.recfunctions import drop_fields

from balrogutils.errors import BalrogError, ProductError
from balrogutils.meds import MEDS
from balrogutils.meds.cutouts import FILL
from balrogutils.meds.extract import extract_numbers, extract_range
from balrogutils.meds.objects import NoSuchCutout
from balrogutils.meds.writer import Packing, write_meds
from balrogutils.randomness import stream

CUTOUTS = [[(0, 30.0, 20.0), (1, 31.0, 22.0)], [], [(0, 40.0, 50.0)], [(0, 10.0, 12.0), (1, 11.0, 60.0)]]
BOXES = [16, 16, 8, 32]


def frames():
    """Two images of random planes, in which object k + 1 owns the pixels around its position."""
    rng = stream(31, "damage")
    made = [Frame({kind: rng.integers(1, 900, (80, 70)).astype(STAMPS[kind]) for kind in STAMPS}) for _ in range(2)]
    for file_id, frame in enumerate(made):
        frame.pixels["seg"][:] = 0
        for number, cutouts in enumerate(CUTOUTS, 1):
            for at, row, col in cutouts:
                if at == file_id:
                    frame.pixels["seg"][int(row) - 2 : int(row) + 3, int(col) - 2 : int(col) + 3] = number
    return made


@pytest.fixture(params=["m.fits", "m.fits.fz"])
def path(request, tmp_path):
    layout, box = layout_at(CUTOUTS, BOXES)
    packing = Packing(("damage",)) if request.param.endswith(".fz") else None
    return write_stamps(tmp_path / request.param, layout, box, frames(), packing=packing)


def remake(source, target, change=lambda name, data: data):
    """Copy a file HDU by HDU, each passed through `change`, which may drop one by returning None."""
    with fitsio.FITS(str(source)) as old, fitsio.FITS(str(target), "rw", clobber=True) as new:
        new.write(None)
        for hdu in list(old)[1:]:
            data = change(hdu.get_extname(), hdu.read())
            if data is not None:
                new.write(data, extname=hdu.get_extname())
    return target


def table(change):
    return lambda name, data: change(data) if name == "object_data" else data


def with_column(name, values):
    """Return a change of the table: a column with other values, of their type."""

    def change(rows):
        columns = {column: rows[column] for column in rows.dtype.names} | {name: values(rows[name])}
        new = np.zeros(len(rows), [(column, data.dtype, data.shape[1:]) for column, data in columns.items()])
        for column, data in columns.items():
            new[column] = data
        return new

    return table(change)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
def test_a_file_cut_short_is_refused(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ProductError) as caught, MEDS(path) as meds:
        for kind in STAMPS:
            meds.read_objects(0, meds.size, [kind])
    assert caught.value.where["file"] == str(path)


def test_a_file_cut_short_while_it_is_open(path):
    with MEDS(path) as meds:
        whole = path.read_bytes()
        end = meds._fits["bmask_cutouts"].get_offsets()["data_start"]
        path.write_bytes(whole[: end + 10])
        with pytest.raises(ProductError, match="bmask_cutouts cannot be read"):
            meds.read_objects(0, meds.size, ["bmask"])


@pytest.mark.parametrize("name", ["object_data", "image_info", "metadata", "image_cutouts"])
def test_an_hdu_every_file_has(path, tmp_path, name):
    remake(path, tmp_path / "x.fits", lambda own, data: None if own == name else data)
    with pytest.raises(ProductError, match=f"no {name}"):
        MEDS(tmp_path / "x.fits")


@pytest.mark.parametrize("kind", ["weight", "seg", "bmask"])
def test_an_hdu_some_files_have(path, tmp_path, kind):
    remake(path, tmp_path / "x.fits", lambda own, data: None if own == f"{kind}_cutouts" else data)
    with MEDS(tmp_path / "x.fits") as meds:
        assert kind not in meds.types
        assert meds.get_cutout(0, 0).shape == (16, 16)
        with pytest.raises(ProductError, match=f"no {kind} cut-outs"):
            meds.get_cutout(0, 0, kind)
        with pytest.raises(ValueError, match=f"no {kind} cut-outs"):
            meds.read_objects(0, 2, [kind])


def test_a_table_where_an_image_should_be_and_the_reverse(path, tmp_path):
    rows = np.zeros(3, [("x", "f4")])
    remake(path, tmp_path / "x.fits", lambda name, data: rows if name == "seg_cutouts" else data)
    with MEDS(tmp_path / "x.fits") as meds, pytest.raises(ProductError, match="no image of one axis"):
        meds.get_cutout(0, 0, "seg")
    remake(path, tmp_path / "y.fits", lambda name, data: np.zeros(3) if name == "image_info" else data)
    with pytest.raises(ProductError, match="image_info is an image"):
        MEDS(tmp_path / "y.fits")
    remake(path, tmp_path / "z.fits", lambda name, data: data[:4].reshape(2, 2) if name == "seg_cutouts" else data)
    with MEDS(tmp_path / "z.fits") as meds, pytest.raises(ProductError, match="no image of one axis"):
        meds.get_cutout(0, 0, "seg")


def test_labels_must_be_whole_numbers(path, tmp_path):
    remake(path, tmp_path / "x.fits", lambda name, data: data.astype("f4") if name == "seg_cutouts" else data)
    with MEDS(tmp_path / "x.fits") as meds, pytest.raises(ProductError, match="float32, not whole numbers"):
        meds.get_uberseg(0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_column("ncutout", lambda v: v.astype("f8")), "ncutout of object_data holds float64, not whole numbers"),
        (with_column("box_size", lambda v: v.astype("S4")), "box_size of object_data holds"),
        (with_column("dudrow", lambda v: np.full(v.shape, "a", "S1")), "dudrow of object_data holds"),
        (with_column("ncutout", lambda v: v + 7), "object 0 has ncutout 9, the table has 2 slots"),
        (with_column("ncutout", lambda v: v - 1), "object 1 has ncutout -1"),
        (table(lambda rows: drop_fields(rows, "cutout_row")), "lacks cutout_row"),
    ],
)
def test_tables_of_wrong_columns(path, tmp_path, change, message):
    remake(path, tmp_path / "x.fits", change)
    with pytest.raises(ProductError, match=message) as caught:
        MEDS(tmp_path / "x.fits")
    assert caught.value.remedy


def test_tables_of_other_pixels(path, tmp_path):
    """A start far beyond the pixels, an unused slot counted as used, a box of no pixels."""
    cases = [
        (with_column("start_row", lambda v: v + 10**6), "has 2624 pixels, the table speaks of 1000000 to"),
        (with_column("start_row", lambda v: np.full_like(v, FILL)), "cut-out 0 of object 0 is counted by ncutout, but"),
        (with_column("box_size", lambda v: v * 0), "cut-out 0 of object 0 is counted by ncutout, but"),
    ]
    for change, message in cases:
        remake(path, tmp_path / "x.fits", change)
        with MEDS(tmp_path / "x.fits") as meds:
            for read in (
                lambda meds=meds: meds.get_cutout(0, 0),
                lambda meds=meds: meds.get_mosaic(0),
                lambda meds=meds: meds.read_objects(0, 2, ["image"]),
            ):
                with pytest.raises(ProductError, match=message):
                    read()


def test_a_file_id_of_no_image(path, tmp_path):
    remake(path, tmp_path / "x.fits", with_column("file_id", lambda v: v + 5))
    with MEDS(tmp_path / "x.fits") as meds, pytest.raises(ProductError, match="has file_id 5, image_info has 2 rows"):
        meds.get_source_info(0, 0)


def test_a_wcs_that_is_no_json(path, tmp_path):
    def change(name, data):
        if name == "image_info":
            data["wcs"] = "{not json"
        return data

    remake(path, tmp_path / "x.fits", change)
    with MEDS(tmp_path / "x.fits") as meds, pytest.raises(ProductError, match="is not JSON"):
        meds.get_wcs_cards(0, 0)


def test_numbers_out_of_range(path, tmp_path):
    """Each is a BalrogError, a ValueError as in the original reader, and an IndexError."""
    with MEDS(path) as meds:
        calls = [
            lambda: meds.get_cutout(4, 0),
            lambda: meds.get_cutout(-1, 0),
            lambda: meds.get_cutout(0, 2),
            lambda: meds.get_cutout(0, -1),
            lambda: meds.get_mosaic(4),
            lambda: meds.get_cutout_list(4),
            lambda: meds.get_jacobian(0, 2),
            lambda: meds.get_jacobian_list(9),
            lambda: meds.get_number(4),
            lambda: meds.get_uberseg_list(4),
            lambda: meds.get_source_info(0, 2),
            lambda: meds.get_cutout(0, 0, "picture"),
            lambda: meds.get_psf(0, 0),
            lambda: meds.read_objects(0, 5),
            lambda: meds.read_objects(2, 2),
            lambda: meds.read_rows([0, 4]),
            lambda: list(meds.blocks(stop=5)),
            lambda: meds.read_objects(0, 1).get_cutout(2, 0),
            lambda: meds.read_rows([]).get_cutout(0, 0),
        ]
        for call in calls:
            for kind in (BalrogError, ValueError, IndexError):
                with pytest.raises(kind):
                    call()
    for call in (
        lambda: extract_range(path, 3, 2, tmp_path / "x.fits"),
        lambda: extract_range(path, -1, 2, tmp_path / "x.fits"),
        lambda: extract_numbers(path, [1, 99], tmp_path / "x.fits"),
    ):
        with pytest.raises(NoSuchCutout):
            call()
    assert not (tmp_path / "x.fits").exists()
    with pytest.raises(ProductError, match="onto itself"):
        extract_range(path, 0, 1, path)


def test_an_object_without_cutouts(path):
    """Empty lists, mosaics of no rows; every slot of its row is -9999; a single cut-out is refused."""
    with MEDS(path) as meds:
        assert meds["ncutout"][1] == 0
        for name in ("file_id", "start_row", "orig_row", "cutout_col", "dvdrow"):
            assert (meds[name][1] == FILL).all()
        for owner in (meds, meds.read_objects(0, 4), meds.read_rows([1])):
            for kind in STAMPS:
                assert owner.get_cutout_list(1, kind) == []
                assert owner.get_mosaic(1, kind).shape == (0, 16)
                assert owner.get_mosaic(1, kind).dtype == np.dtype(STAMPS[kind])
            for name in ("get_uberseg_list", "get_cweight_cutout_list", "get_cseg_cutout_list", "get_jacobian_list"):
                assert getattr(owner, name)(1) == []
            for name in ("get_cweight_mosaic", "get_cseg_mosaic", "interpolate_coadd_seg_mosaic"):
                assert getattr(owner, name)(1).shape == (0, 16)
            with pytest.raises(NoSuchCutout, match="has 0 cut-outs"):
                owner.get_cutout(1, 0)


@pytest.mark.parametrize("name", ["m.fits", "m.fits.fz"])
def test_an_empty_catalogue(tmp_path, name):
    layout, box = layout_at([], np.empty(0, np.int64))
    packing = Packing(("empty",)) if name.endswith(".fz") else None
    path = write_stamps(tmp_path / name, layout, box, frames(), packing=packing)
    with MEDS(path) as meds:
        assert meds.size == 0
        assert list(meds.blocks()) == []
        assert meds.get_cat().size == 0
        with pytest.raises(NoSuchCutout, match="the file has 0"):
            meds.get_cutout(0, 0)


def test_only_objects_without_cutouts(tmp_path):
    layout, box = layout_at([[], []], [16, 16])
    path = write_stamps(tmp_path / "m.fits", layout, box, frames())
    with MEDS(path) as meds:
        (block,) = meds.blocks()
        assert block.get_cutout_list(0) == []
    extract_range(path, 0, 1, tmp_path / "part.fits")
    with MEDS(tmp_path / "part.fits") as part:
        assert part["ncutout"].tolist() == [0, 0]


def test_stamps_of_one_pixel(tmp_path):
    layout, box = layout_at([[(0, 30.4, 20.2), (1, 31.0, 22.0)], [(1, 5.0, 6.0)]], [1, 1])
    sources = frames()
    assert sources[0].pixels["seg"][31, 21] == 1
    path = write_stamps(tmp_path / "m.fits", layout, box, sources)
    with MEDS(path) as meds:
        assert meds.get_cutout(0, 0).tolist() == [[sources[0].pixels["image"][31, 21]]]
        assert meds.get_mosaic(0).shape == (2, 1)
        for k in range(2):
            np.testing.assert_array_equal(meds.get_uberseg(0, k), meds.get_cutout(0, k, "weight"))
            np.testing.assert_array_equal(meds.get_cseg_weight(0, k), meds.get_cutout(0, k, "weight"))
        assert meds.get_cseg_cutout(1, 0).tolist() == [[2]]


def test_a_stamp_without_weight(tmp_path):
    sources = frames()
    sources[1].pixels["weight"][:] = 0
    layout, box = layout_at(CUTOUTS, BOXES)
    with MEDS(write_stamps(tmp_path / "m.fits", layout, box, sources)) as meds:
        for derived in (meds.get_uberseg, meds.get_cweight_cutout, meds.get_cseg_weight):
            assert not derived(0, 1).any()
        assert meds.get_cweight_cutout(0, 0).any()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_jacobian_of_no_use(tmp_path, value):
    """A coadd that cannot be inverted gives no weight at all, an epoch that is not finite none of its own."""
    layout, box = layout_at(CUTOUTS, BOXES)
    layout.per_object["dudcol"][0, 0] = value
    with MEDS(write_stamps(tmp_path / "m.fits", layout, box, frames())) as meds:
        for k in range(2):
            assert not meds.get_uberseg(0, k).any()
            assert not meds.get_cweight_cutout(0, k).any()
            assert not meds.interpolate_coadd_seg(0, k).any()
    if not np.isfinite(value):
        layout, box = layout_at(CUTOUTS, BOXES)
        layout.per_object["cutout_row"][0, 1] = value
        with MEDS(write_stamps(tmp_path / "n.fits", layout, box, frames())) as meds:
            assert meds.get_uberseg_list(0)[0].any()
            assert not meds.get_uberseg_list(0)[1].any()
            assert not meds.get_cweight_cutout(0, 1).any()


def test_a_gzipped_file(tmp_path):
    layout, box = layout_at(CUTOUTS, BOXES)
    path = write_stamps(tmp_path / "m.fits", layout, box, frames())
    with path.open("rb") as plain, gzip.open(tmp_path / "m.fits.gz", "wb") as small:
        shutil.copyfileobj(plain, small)
    with MEDS(path) as meds, MEDS(tmp_path / "m.fits.gz") as other:
        for kind in STAMPS:
            np.testing.assert_array_equal(meds.get_mosaic(3, kind), other.get_mosaic(3, kind))


def test_a_plane_nobody_knows(tmp_path):
    layout, box = layout_at(CUTOUTS, BOXES)
    with pytest.raises(ProductError, match="no plane is called colour"):
        write_meds(tmp_path / "m.fits", tables_of(layout, box, 2), layout, frames(), None, dtypes={"colour": "f4"})


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(ProductError, match="not there"):
        MEDS(tmp_path)
