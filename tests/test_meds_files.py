"""MEDS files: written, packed, read back; files of other makers."""

import fitsio
import galsim
import galsim.des
import numpy as np
import pytest
from meds_frames import STAMPS, Frame, info, layout_at, tables_of
from numpy.lib.recfunctions import repack_fields

from balrogutils.errors import ProductError
from balrogutils.meds import MEDS
from balrogutils.meds.cutouts import FILL
from balrogutils.meds.extract import extract_range
from balrogutils.meds.tables import Tables, metadata, object_data, record
from balrogutils.meds.writer import OFF_IMAGE, Packing, write_meds
from balrogutils.randomness import stream

NOISE = 7.0
SIDES = (9, 11, 13, 9)


def frame(name, shape=(120, 110), side=9):
    rng = stream(7, "meds file", name)
    weight = np.full(shape, NOISE**-2)
    weight[rng.random(shape) < 0.1] = 0
    image = rng.normal(0, NOISE, shape)
    seg = rng.integers(0, 5000, shape)
    return Frame({"image": image, "weight": weight, "seg": seg, "bmask": rng.integers(0, 2**15, shape)}, side)


def random_layout(counts, boxes, images, shape=(120, 110)):
    """Objects with the given numbers of cut-outs and boxes at random places of random images, some over the edge."""
    rng = stream(8, "layout")
    found = [
        [
            (int(file_id), rng.uniform(0, shape[0] - 1), rng.uniform(0, shape[1] - 1))
            for file_id in sorted(rng.choice(images, cutouts, replace=False))
        ]
        for cutouts in counts
    ]
    return layout_at(found, boxes, SIDES)[0]


COUNTS, BOXES = [1, 4, 2, 3, 0, 4, 1], [32, 48, 64, 32, 32, 96, 48]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A packed file, its uncompressed twin, the layout and the source images."""
    place = tmp_path_factory.mktemp("meds")
    layout = random_layout(COUNTS, BOXES, 4)
    frames = [frame(i, side=side) for i, side in enumerate(SIDES)]
    box = np.array(BOXES)
    tables = tables_of(layout, box, 4, psf=True)
    packed, plain = place / "a+b_meds.fits.fz", place / "plain.fits"
    write_meds(packed, tables, layout, frames, Packing(("test",)), dtypes=STAMPS, keep_plain=plain)
    return packed, plain, layout, frames, tables


def expected(layout, frames, kind, i, k):
    """The stamp by definition, pixel by pixel."""
    table, box = layout.per_object, BOXES[i]
    pixels = frames[table["file_id"][i, k]].pixels[kind].astype(STAMPS[kind])
    out = np.full((box, box), OFF_IMAGE[kind], STAMPS[kind])
    for r in range(box):
        for c in range(box):
            row, col = table["orig_start_row"][i, k] + r, table["orig_start_col"][i, k] + c
            if 0 <= row < pixels.shape[0] and 0 <= col < pixels.shape[1]:
                out[r, c] = pixels[row, col]
    return out


def slots():
    return [(i, k) for i, count in enumerate(COUNTS) for k in range(count)]


def test_uncompressed_stamps_are_the_source_pixels(made):
    _, plain, layout, frames, _ = made
    with MEDS(plain) as meds:
        for i, k in slots():
            for kind in STAMPS:
                np.testing.assert_array_equal(meds.get_cutout(i, k, kind), expected(layout, frames, kind, i, k))


def test_mosaics_lists_and_blocks_are_the_stamps(made):
    for path in made[:2]:
        with MEDS(path) as meds:
            block = meds.read_objects(0, meds.size, [*STAMPS, "psf"])
            part = meds.read_objects(2, 6, ["weight"])
            for i in range(meds.size):
                for kind in STAMPS:
                    stamps = [meds.get_cutout(i, k, kind) for k in range(COUNTS[i])]
                    mosaic = meds.get_mosaic(i, kind)
                    np.testing.assert_array_equal(mosaic, np.vstack(stamps) if stamps else mosaic[:0])
                    assert len(meds.get_cutout_list(i, kind)) == COUNTS[i]
                    for k, stamp in enumerate(stamps):
                        np.testing.assert_array_equal(block.stamp(i, k, kind), stamp)
                for k in range(COUNTS[i]):
                    np.testing.assert_array_equal(block.stamp(i, k, "psf"), meds.get_psf(i, k))
                    if 2 <= i < 6:
                        np.testing.assert_array_equal(part.stamp(i, k, "weight"), meds.get_cutout(i, k, "weight"))
            with pytest.raises(IndexError, match="6 is not among the 4 objects of this block"):
                part.stamp(6, 0, "weight")
            with pytest.raises(ProductError, match="read without image"):
                part.stamp(3, 0, "image")


def test_hdus_have_the_length_of_all_stamps(made):
    _, plain, layout, _, _ = made
    total = sum(count * box**2 for count, box in zip(COUNTS, BOXES, strict=True))
    assert layout.pixels == total
    with fitsio.FITS(str(plain)) as fits:
        names = [hdu.get_extname() for hdu in fits][1:]
        assert names[:3] == ["object_data", "image_info", "metadata"]
        assert names[3:] == [*(f"{kind}_cutouts" for kind in STAMPS), "psf", "psf_info"]
        for kind, dtype in STAMPS.items():
            assert fits[f"{kind}_cutouts"].get_dims() == [total]
            assert fits[f"{kind}_cutouts"][0:5].dtype == np.dtype(dtype)


def test_psf_stamps_follow_the_position(made):
    packed, plain, layout, _, _ = made
    for path in (packed, plain):
        with MEDS(path) as meds:
            for i, k in slots():
                stamp = meds.get_psf(i, k)
                assert stamp.shape == (layout.per_object["psf_row_size"][i, k],) * 2
                at = [layout.per_object[f"orig_{axis}"][i, k] / 1e4 for axis in ("row", "col")]
                # PSF stamps are packed with a step of 1e-7.
                np.testing.assert_allclose(stamp[0, :2], at, atol=1e-7)
                assert meds.get_psf_rowcol(i, k) == ((stamp.shape[0] - 1) / 2,) * 2
            assert len(meds.get_psf_list(1)) == 4


def test_packing_keeps_zeros_and_integers_and_loses_half_a_step(made):
    packed, plain, *_ = made
    with fitsio.FITS(str(plain)) as before, fitsio.FITS(str(packed)) as after:
        for kind in ("seg", "bmask"):
            np.testing.assert_array_equal(before[f"{kind}_cutouts"].read(), after[f"{kind}_cutouts"].read())
        weight = before["weight_cutouts"].read()
        assert (after["weight_cutouts"].read()[weight == 0] == 0).all()
        image, packed_image = before["image_cutouts"].read(), after["image_cutouts"].read()
        assert (packed_image[image == 0] == 0).all()
        # The step is a quarter of the noise cfitsio measures in a tile; off-image zeros lower it in some.
        change = np.abs(packed_image - image)
        assert change.max() <= 0.5 * NOISE / 4 * 1.1
        header = after["image_cutouts"].read_header()
        assert (header["ZCMPTYPE"], header["ZTILE1"], header["ZQUANTIZ"]) == ("RICE_ONE", 10240, "SUBTRACTIVE_DITHER_2")
        assert header["ZDITHER0"] == before["image_cutouts"].read_header()["FZDTHRSD"]


def test_quantisation_noise_of_pure_noise(tmp_path):
    """A step of sigma / 4 makes an rms of sigma x 0.25 / sqrt(12) = 0.0722 sigma."""
    layout = random_layout([1], [256], 1, shape=(900, 900))
    for axis in ("row", "col"):
        layout.per_object[f"orig_start_{axis}"][:] = 300
    objects = object_data(np.array([1]), np.zeros(1), np.zeros(1), np.array([256]), layout)
    tables = Tables(objects, info(1), metadata({}))
    noise = {kind: stream(9, "noise").normal(0, NOISE, (900, 900)) for kind in STAMPS}
    plain = tmp_path / "plain.fits"
    write_meds(
        tmp_path / "m.fits.fz", tables, layout, [Frame(noise, 9)], Packing(("n",)), dtypes=STAMPS, keep_plain=plain
    )
    with MEDS(tmp_path / "m.fits.fz") as packed, MEDS(plain) as before:
        change = packed.get_cutout(0, 0) - before.get_cutout(0, 0)
        assert not packed.has_psf()
    assert change.std() / NOISE == pytest.approx(0.0722, rel=0.1)


def test_the_same_names_give_the_same_bits(made, tmp_path):
    packed, _, layout, frames, tables = made

    def sums(path):
        with fitsio.FITS(str(path)) as fits:
            return [hdu.read_header()["DATASUM"] for hdu in fits if hdu.get_extname()]

    for name in ("again", "other"):
        key = "test" if name == "again" else "other"
        write_meds(tmp_path / f"{name}.fits.fz", tables, layout, frames, Packing((key,)), dtypes=STAMPS)
    assert sums(tmp_path / "again.fits.fz") == sums(packed)
    assert sums(tmp_path / "other.fits.fz") != sums(packed)


def test_lossless_packing(made, tmp_path):
    _, plain, layout, frames, tables = made
    cards = {"FZALGOR": "GZIP_2", "FZTILE": "(10240,1)", "FZQMETHD": "SUBTRACTIVE_DITHER_2", "FZQVALUE": 0}
    write_meds(tmp_path / "m.fits.fz", tables, layout, frames, Packing(("t",), cards), dtypes=STAMPS)
    with fitsio.FITS(str(plain)) as before, fitsio.FITS(str(tmp_path / "m.fits.fz")) as after:
        for name in ("image_cutouts", "weight_cutouts", "psf"):
            np.testing.assert_array_equal(before[name].read(), after[name].read())


def test_a_failing_source_leaves_nothing(made, tmp_path):
    _, _, layout, frames, tables = made

    class Broken(Frame):
        def strips(self, kinds):
            yield next(super().strips(kinds))
            raise ProductError("a plane is damaged")

    broken = [*frames[:3], Broken(frames[3].pixels, 9)]
    with pytest.raises(ProductError, match="damaged"):
        write_meds(tmp_path / "m.fits.fz", tables, layout, broken, Packing(("t",)), dtypes=STAMPS)
    missing = [*frames[:3], Frame({"image": frames[3].pixels["image"]}, 9)]
    with pytest.raises(ProductError, match="no bmask or seg or weight plane"):
        write_meds(tmp_path / "m.fits.fz", tables, layout, missing, Packing(("t",)), dtypes=STAMPS)
    assert not list(tmp_path.iterdir())


def test_extracted_range_equals_its_parent(made, tmp_path):
    packed, *_ = made
    extract_range(packed, 1, 5, tmp_path / "part.fits")
    with MEDS(packed) as parent, MEDS(tmp_path / "part.fits") as part:
        assert part.size == 5
        assert part["start_row"][0, 0] == 0
        assert part["psf_start_row"][0, 0] == 0
        assert (part["start_row"][0, COUNTS[1] :] == FILL).all()
        for i in range(5):
            for k in range(COUNTS[i + 1]):
                for kind in (*STAMPS, "psf"):
                    np.testing.assert_array_equal(part.get_cutout(i, k, kind), parent.get_cutout(i + 1, k, kind))
    extract_range(packed, 4, 4, tmp_path / "empty.fits")
    with MEDS(tmp_path / "empty.fits") as part:
        assert part.get_cutout_list(0) == []
    with pytest.raises(IndexError):
        extract_range(packed, 3, 99, tmp_path / "none.fits")
    assert not (tmp_path / "none.fits").exists()


def test_reader_refuses_what_is_not_there(made, tmp_path):
    packed, *_ = made
    with MEDS(packed) as meds:
        with pytest.raises(IndexError, match="no object 7"):
            meds.get_cutout(7, 0)
        with pytest.raises(IndexError, match="has 4 cut-outs, there is no 4"):
            meds.get_cutout(1, 4)
        with pytest.raises(IndexError):
            meds.get_cutout(-1, 0)
        with pytest.raises(IndexError, match="has 0 cut-outs"):
            meds.get_cutout(4, 0)
        with pytest.raises(ProductError, match="no noise cut-outs"):
            meds.get_cutout(0, 0, "noise")
        with pytest.raises(ValueError, match="unknown cut-out type 'picture'"):
            meds.get_cutout(0, 0, "picture")
        with pytest.raises(IndexError, match="not all in"):
            meds.read_objects(3, 99)
        assert meds.get_mosaic(4).shape == (0, 32)
    with pytest.raises(ProductError, match="not there"):
        MEDS(tmp_path / "nothing.fits")
    (tmp_path / "text.fits").write_text("no FITS at all")
    with pytest.raises(ProductError, match="cannot be opened"):
        MEDS(tmp_path / "text.fits")
    with fitsio.FITS(str(tmp_path / "half.fits"), "rw") as fits:
        fits.write(np.zeros(3), extname="image_cutouts")
    with pytest.raises(ProductError, match="there is no object_data"):
        MEDS(tmp_path / "half.fits")


def test_tables_and_source_of_a_cutout(made):
    packed, _, layout, _, _ = made
    with MEDS(packed) as meds:
        assert meds.size == len(COUNTS)
        assert meds["id"][3] == 103
        assert len(meds.get_cat()) == meds.size
        assert meds.get_meta()["meds_fmt_version"][0] == b"0.9.1" or meds.get_meta()["meds_fmt_version"][0] == "0.9.1"
        file_id = layout.per_object["file_id"][1, 2]
        assert meds.get_source_path(1, 2) == f"/sky/image-{file_id}.fits"
        assert meds.get_source_info(1, 2)["magzp"] == 30
        assert meds.get_wcs_cards(1, 2) == {"naxis1": 110, "naxis2": 120}
        assert meds.get_jacobian(1, 2) == {
            "row0": layout.per_object["cutout_row"][1, 2],
            "col0": layout.per_object["cutout_col"][1, 2],
            "dudrow": 0.0,
            "dudcol": 0.263,
            "dvdrow": 0.263,
            "dvdcol": 0.0,
        }
        np.testing.assert_array_equal(meds.get_jacobian_matrix(1, 2), [[0, 0.263], [0.263, 0]])
        assert len(meds.get_jacobian_list(1)) == 4


def galsim_objects(psf):
    rng = stream(10, "galsim")
    made = []
    for number in (1, 2):
        images = [galsim.Image(rng.normal(0, 1, (32, 32)), scale=0.27) for _ in range(number + 1)]
        segs = [galsim.ImageI(np.full((32, 32), number, np.int32)) for _ in images]
        psfs = [galsim.Image(rng.random((32, 32))) for _ in images] if psf else None
        wcs = [galsim.PixelScale(0.27).affine(image_pos=galsim.PositionD(15.5, 15.5)) for _ in images]
        made.append(
            galsim.des.MultiExposureObject(
                images=images,
                seg=segs,
                psf=psfs,
                wcs=wcs,
                id=number,
                cutout_row=[15.5] * len(images),
                cutout_col=[15.5] * len(images),
            )
        )
    return made


def test_a_file_galsim_wrote(tmp_path):
    """Square PSF stamps, one psf_box_size per object, no wcs column, file_id 1 for an image_info of one row."""
    objects = galsim_objects(psf=True)
    galsim.des.WriteMEDS(objects, str(tmp_path / "galsim.fits"))
    with MEDS(tmp_path / "galsim.fits") as meds:
        assert meds.size == 2
        assert meds["ncutout"].tolist() == [2, 3]
        for i, one in enumerate(objects):
            for k in range(i + 2):
                np.testing.assert_array_equal(meds.get_cutout(i, k), one.images[k].array)
                np.testing.assert_array_equal(meds.get_psf(i, k), one.psf[k].array)
        block = meds.read_objects(0, 2, ["image", "psf"])
        np.testing.assert_array_equal(block.stamp(1, 2, "psf"), objects[1].psf[2].array)
        assert meds.get_psf_rowcol(0, 0) == (15.5, 15.5)
        assert meds.get_jacobian(1, 1)["dudcol"] == 0.27
        assert meds.get_number(1) == 2
        assert meds.get_wcs_cards(1, 1) is None
        assert meds.get_source_path(0, 0) == "generated_by_galsim"
        assert meds.get_uberseg(0, 1).all()
        assert (meds.get_cseg_cutout(1, 0) == 2).all()
        assert "bmask" not in meds.types


def test_a_file_without_psf_wcs_or_number(tmp_path):
    galsim.des.WriteMEDS(galsim_objects(psf=False), str(tmp_path / "galsim.fits"))
    with fitsio.FITS(str(tmp_path / "galsim.fits")) as fits, fitsio.FITS(str(tmp_path / "bare.fits"), "rw") as bare:
        rows = fits["object_data"].read()
        keep = [name for name in rows.dtype.names if name not in ("number", "psf_box_size", "psf_start_row")]
        bare.write(None)
        bare.write_table(repack_fields(rows[keep]), extname="object_data")
        for name in ("image_info", "metadata"):
            bare.write_table(fits[name].read(), extname=name)
        bare.write(fits["image_cutouts"].read(), extname="image_cutouts")
    with MEDS(tmp_path / "bare.fits") as meds:
        assert meds.get_number(1) == 2
        assert not meds.has_psf()
        assert meds.get_cutout(1, 2).shape == (32, 32)
        with pytest.raises(ProductError, match="no PSF stamps"):
            meds.get_psf(0, 0)
        with pytest.raises(ProductError, match="no weight cut-outs"):
            meds.get_uberseg(0, 0)


def test_psf_box_size_may_be_one_per_cutout(tmp_path):
    galsim.des.WriteMEDS(galsim_objects(psf=True), str(tmp_path / "galsim.fits"))
    with fitsio.FITS(str(tmp_path / "galsim.fits")) as fits, fitsio.FITS(str(tmp_path / "per.fits"), "rw") as per:
        rows = fits["object_data"].read()
        columns = {name: rows[name] for name in rows.dtype.names}
        columns["psf_box_size"] = np.repeat(rows["psf_box_size"][:, np.newaxis], rows["start_row"].shape[1], axis=1)
        per.write(None)
        per.write_table(record(columns), extname="object_data")
        for name in ("image_info", "metadata"):
            per.write_table(fits[name].read(), extname=name)
        for name in ("image_cutouts", "psf"):
            per.write(fits[name].read(), extname=name)
    with MEDS(tmp_path / "per.fits") as meds, MEDS(tmp_path / "galsim.fits") as before:
        np.testing.assert_array_equal(meds.get_psf(1, 2), before.get_psf(1, 2))
