"""Blocks 4 and 32 on a small tile."""

import json
import shutil

import fitsio
import numpy as np
import pytest
from astropy.io import fits
from meds_frames import BAND, COADD_SHAPE, FRAMES, TILE, catalogue, context, positions, psf_model, write_tile

from balrogutils.blocks.meds import meds
from balrogutils.errors import ConfigError, ProductError
from balrogutils.fitsfile import Plane, Table, read_header, read_image, read_table, write_images, write_tables
from balrogutils.meds import MEDS
from balrogutils.meds.boxes import BoxRule
from balrogutils.products import read_manifest, writing_text
from balrogutils.wcs import ImageWCS

OFF = 2**30


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    """The context of a made tile and its uncompressed MEDS file."""
    base = tmp_path_factory.mktemp("tile with space")
    made = write_tile(base)
    meds(made, BAND, keep_plain=base / "plain.fits")
    return made, base / "plain.fits"


@pytest.fixture
def fresh(tile, tmp_path):
    """A copy of the tile whose files a test may spoil; lists point into the copy."""
    old, new = tile[0].site.meds_data, tmp_path / "meds"
    shutil.copytree(old, new)
    made = context(tmp_path)
    for path in [*made.tree.lists.glob("*.dat"), made.tree.psfmap(BAND)]:
        path.write_text(path.read_text().replace(str(old), str(new)))
    return made


def planes_of(tree, file_id):
    """Source pixels of an image, scaled as the format says, from the files themselves."""
    if file_id == 0:
        image, seg, scale, bkg = tree.image(BAND), tree.segmap(BAND), 1.0, 0.0
    else:
        line = tree.flist("nullwt", BAND).read_text().splitlines()[file_id - 1]
        image, _, magzp = line.rpartition(" ")
        seg = tree.flist("seg", BAND).read_text().splitlines()[file_id - 1]
        bkg = read_image(tree.flist("bkg", BAND).read_text().splitlines()[file_id - 1], "SCI").astype(float)
        scale = 10 ** (0.4 * (30.0 - float(magzp)))
    return {
        "image": ((read_image(image, "SCI") - bkg) * scale).astype(np.float32),
        "weight": (read_image(image, "WGT").astype(float) / scale**2).astype(np.float32),
        "seg": read_image(seg, "SCI").astype(np.int32),
        "bmask": read_image(image, "MSK").astype(np.int32),
    }


def compare(meds_file, tree, check):
    """Call `check` with every stamp's on-image part, the source pixels of it, and what lies off the image."""
    count = 0
    for file_id in range(len(FRAMES) + 1):
        planes = planes_of(tree, file_id)
        for i, k in zip(*np.nonzero(meds_file["file_id"] == file_id), strict=True):
            box = int(meds_file["box_size"][i])
            top, left = (int(meds_file[f"orig_start_{axis}"][i, k]) for axis in ("row", "col"))
            for kind, pixels in planes.items():
                stamp = meds_file.get_cutout(i, k, kind)
                inside = np.zeros((box, box), bool)
                r0, c0 = max(top, 0), max(left, 0)
                r1, c1 = min(top + box, pixels.shape[0]), min(left + box, pixels.shape[1])
                inside[r0 - top : r1 - top, c0 - left : c1 - left] = True
                check(kind, stamp[inside], pixels[r0:r1, c0:c1].ravel(), stamp[~inside])
                count += 1
    return count


def test_stamps_equal_scaled_source_pixels_exactly_before_packing(tile):
    made, plain = tile
    edge = dict.fromkeys(("image", "weight", "seg", "bmask"), 0)

    def check(kind, stamp, source, outside):
        np.testing.assert_array_equal(stamp, source)
        assert (outside == (OFF if kind == "bmask" else 0)).all()
        edge[kind] += outside.size

    with MEDS(plain) as file:
        assert compare(file, made.tree, check) == 4 * int(file["ncutout"].sum())
    assert min(edge.values()) > 1000


def test_packed_stamps_are_within_half_a_quantum(tile):
    """The quantum of each compression tile is what fpack wrote down itself, in the column ZSCALE."""
    made, plain = tile
    packed = made.tree.meds(BAND)
    with fits.open(packed, disable_image_compression=True) as raw:
        for kind in ("image", "weight"):
            name = f"{kind}_cutouts"
            before, after = fitsio.read(str(plain), ext=name), fitsio.read(str(packed), ext=name)
            header = raw[name].header
            assert (header["ZCMPTYPE"], header["ZTILE1"], header["ZQUANTIZ"]) == (
                "RICE_ONE",
                10240,
                "SUBTRACTIVE_DITHER_2",
            )
            quantum = np.repeat(raw[name].data["ZSCALE"], 10240)[: before.size]
            assert np.isfinite(quantum).all()
            # Half a quantum, and the rounding of a float32.
            limit = 0.5 * quantum + 4e-7 * np.abs(before)
            assert (np.abs(after.astype(float) - before) <= limit).all()
            assert (after[before == 0] == 0).all()
            assert (after != before).any()
    for kind in ("seg", "bmask"):
        name = f"{kind}_cutouts"
        np.testing.assert_array_equal(fitsio.read(str(packed), ext=name), fitsio.read(str(plain), ext=name))


def test_scale_is_applied_and_recorded(tile):
    _, plain = tile
    with MEDS(plain) as file:
        info = file.get_image_info()
        expected = [1.0, *(10 ** (0.4 * (30 - frame[-1])) for frame in FRAMES)]
        np.testing.assert_allclose(info["scale"], expected, rtol=1e-6)
        # magzp 31.5: image x 0.2511886, weight x 15.848932
        assert info["scale"][3] == pytest.approx(0.2511886, rel=1e-6)
        i = int(np.flatnonzero((file["file_id"] == 1).any(axis=1))[0])
        k = int(np.flatnonzero(file["file_id"][i] == 1)[0])
        weight = file.get_cutout(i, k, "weight")
        assert weight.max() == pytest.approx(8.0**-2 * expected[1] ** -2, rel=1e-6)
        np.testing.assert_allclose(info["magzp"], [30.0, *(frame[-1] for frame in FRAMES)], rtol=1e-6)


def test_every_exposure_that_holds_a_centre_has_its_cutout(tile):
    made, plain = tile
    row, col = positions()
    ra, dec = ImageWCS(read_header(made.tree.image(BAND), "SCI")).pixel_to_sky(row, col)
    with MEDS(plain) as file:
        held = np.zeros((len(row), len(FRAMES) + 1), bool)
        held[:, 0] = True
        for file_id, line in enumerate(made.tree.flist("nullwt", BAND).read_text().splitlines(), start=1):
            header = read_header(line.rpartition(" ")[0], "SCI")
            r, c = ImageWCS(header).sky_to_pixel(ra, dec)
            held[:, file_id] = (r >= 0) & (r <= header["NAXIS2"] - 1) & (c >= 0) & (c <= header["NAXIS1"] - 1)
        np.testing.assert_array_equal(file["ncutout"], held.sum(axis=1))
        for i in range(file.size):
            slots = file["file_id"][i, : file["ncutout"][i]]
            np.testing.assert_array_equal(slots, np.flatnonzero(held[i]))
        # one object misses an image, one is on every image: the test has both kinds
        assert file["ncutout"].min() < len(FRAMES) + 1 == file["ncutout"].max()


def test_positions_and_jacobians(tile):
    _, plain = tile
    with MEDS(plain) as file:
        for i in range(file.size):
            for k in range(file["ncutout"][i]):
                wcs = ImageWCS(file.get_wcs_cards(i, k))
                row, col = file["orig_row"][i, k], file["orig_col"][i, k]
                for axis in ("row", "col"):
                    total = file[f"orig_start_{axis}"][i, k] + file[f"cutout_{axis}"][i, k]
                    assert total == pytest.approx(file[f"orig_{axis}"][i, k], abs=1e-12)
                ra, dec = wcs.pixel_to_sky(row, col)
                assert abs(ra[0] - file["ra"][i]) * 3600 < 1e-3
                assert abs(dec[0] - file["dec"][i]) * 3600 < 1e-3
                analytic = wcs.galsim.local(image_pos=_position(row, col)).jacobian()
                got = file.get_jacobian_matrix(i, k)
                expected = [[analytic.dudy, analytic.dudx], [analytic.dvdy, analytic.dvdx]]
                np.testing.assert_allclose(got, expected, atol=0.263e-6)
        half = file["box_size"] / 2
        on = file["ncutout"] > 0
        assert ((file["cutout_row"][on, 0] >= half[on] - 1) & (file["cutout_row"][on, 0] < half[on])).all()


def _position(row, col):
    import galsim

    return galsim.PositionD(col + 1, row + 1)


def test_psf_stamps_are_the_models_at_the_objects(tile):
    from balrogutils.psf import PSFEx

    made, plain = tile
    with MEDS(plain) as file, MEDS(made.tree.meds(BAND)) as packed:
        info = file.get_psf_info()
        models = [PSFEx.read(path if isinstance(path, str) else path.decode()) for path in info["psf_path"]]
        for i in range(0, file.size, 3):
            for k in range(file["ncutout"][i]):
                model = models[file["file_id"][i, k]]
                stamp = file.get_psf(i, k)
                assert stamp.shape[0] % 2 == 1
                assert stamp.shape[0] == model.native_size
                assert file.get_psf_rowcol(i, k) == ((stamp.shape[0] - 1) / 2,) * 2
                assert stamp.sum(dtype=float) == pytest.approx(1.0, abs=1e-6)
                expected = model.stamp(file["orig_row"][i, k], file["orig_col"][i, k])
                np.testing.assert_allclose(stamp, expected, atol=1e-7 * expected.max())
                # 169 pixels with a step of 1e-7
                assert packed.get_psf(i, k).sum(dtype=float) == pytest.approx(1.0, abs=1e-5)
                assert file["psf_sigma"][i, k] == pytest.approx(model.fwhm / 2.3548, rel=1e-6)


def test_object_data_carries_the_catalogue(tile):
    made, plain = tile
    rows = read_table(made.tree.catalog(BAND), "OBJECTS")
    with MEDS(plain) as file:
        np.testing.assert_array_equal(file["number"], rows["NUMBER"])
        np.testing.assert_array_equal(file["id"], read_table(made.tree.objmap(BAND), "OBJECTS")["id"])
        np.testing.assert_allclose(file["input_row"], rows["Y_IMAGE"] - 1)
        np.testing.assert_allclose(file["input_col"], rows["X_IMAGE"] - 1)
        np.testing.assert_allclose(file["flux"], rows["FLUX_AUTO"], rtol=1e-6)
        np.testing.assert_allclose(file["y2_err"], rows["ERRY2_IMAGE"], rtol=1e-6)
        np.testing.assert_allclose(file["iso_radius"], np.sqrt(70 / np.pi), rtol=1e-6)
        names = ("FLUX_RADIUS", "A_WORLD", "B_WORLD", "XMIN_IMAGE", "XMAX_IMAGE", "YMIN_IMAGE", "YMAX_IMAGE")
        np.testing.assert_array_equal(file["box_size"], BoxRule().sides(*(rows[name] for name in names)))
        assert set(file["box_size"]) >= {32, 96}
        # the segmentation of slot 0 holds the object's number at its centre
        for i in range(file.size):
            row, col = file.get_cutout_rowcol(i, 0)
            assert file.get_cutout(i, 0, "seg")[int(row), int(col)] == file.get_number(i)


def test_metadata_and_manifest(tile):
    made, plain = tile
    with MEDS(plain) as file:
        meta = {name: file.get_meta()[name][0] for name in file.get_meta().dtype.names}
        texts = {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in meta.items()}
        assert (texts["medsconf"], texts["band"], texts["tilename"]) == ("y3v02", BAND, TILE)
        assert json.loads(texts["config"])["sigma_fac"] == 5.0
        assert {"magzp_ref", "DESDATA".lower(), "meds_fmt_version", "numpy_version", "fitsio_version"} <= set(meta)
        assert not any("date" in name or "time" in name for name in meta)
        cutouts, objects = int(file["ncutout"].sum()), file.size
    document = read_manifest(made.tree.manifest("meds", BAND))
    counts = document["counts"]
    assert (counts["objects"], counts["cutouts"], counts["images"]) == (objects, cutouts, 5)
    assert counts["weightless_images"] == 1
    assert [entry["path"] for entry in document["outputs"]] == [str(made.tree.meds(BAND))]
    assert len(document["inputs"]) == 1 + 6 + 2 + 4 * 3 + 5
    assert not list(made.site.tmp.iterdir())


def test_a_ccd_without_weight_keeps_its_cutouts(tile):
    _, plain = tile
    with MEDS(plain) as file:
        which = np.argwhere(file["file_id"] == 3)
        assert len(which) > 5
        for i, k in which:
            assert not file.get_cutout(i, k, "weight").any()
            assert file.get_cutout(i, k, "image").any()


def test_an_object_on_no_exposure_has_the_coadd_alone(fresh):
    """Keep one exposure, shifted to one side of the tile."""
    for kind in ("nullwt", "seg", "bkg"):
        lines = fresh.tree.flist(kind, BAND).read_text().splitlines()
        writing_text(fresh.tree.flist(kind, BAND), lines[2] + "\n")
    lines = fresh.tree.psfmap(BAND).read_text().splitlines()
    writing_text(fresh.tree.psfmap(BAND), f"{lines[0]}\n{lines[3]}\n")
    meds(fresh, BAND)
    with MEDS(fresh.tree.meds(BAND)) as file:
        alone = file["ncutout"] == 1
        assert 0 < alone.sum() < file.size
        assert (file["file_id"][alone] == [0, -9999]).all()
    assert read_manifest(fresh.tree.manifest("meds", BAND))["counts"]["without_exposure"] == alone.sum()


def test_no_exposure_at_all(fresh):
    for kind in ("nullwt", "seg", "bkg"):
        writing_text(fresh.tree.flist(kind, BAND), "")
    writing_text(fresh.tree.psfmap(BAND), fresh.tree.psfmap(BAND).read_text().splitlines()[0] + "\n")
    meds(fresh, BAND)
    with MEDS(fresh.tree.meds(BAND)) as file:
        assert (file["ncutout"] == 1).all()
        assert file["file_id"].shape[1] == 2


def test_made_again_it_is_the_same(fresh):
    def sums():
        with fitsio.FITS(str(fresh.tree.meds(BAND))) as file:
            headers = [hdu.read_header() for hdu in file]
        drop = ("CHECKSUM", "DATE", "HISTORY", "ZHECKSUM")
        return [[(c["name"], c["value"]) for c in h.records() if c["name"] not in drop] for h in headers]

    meds(fresh, BAND)
    first = sums()
    fresh.tree.meds(BAND).unlink()
    meds(fresh, BAND)
    assert sums() == first
    assert any(name == "ZDITHER0" for cards in first for name, _ in cards)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: writing_text(t.flist("seg", BAND), "one\n"), "different lengths: nullwt 4, seg 1, bkg 4, psf map 4"),
        (lambda t: t.flist("bkg", BAND).unlink(), "product is not there"),
        (lambda t: t.image(BAND).unlink(), "product is not there"),
        (lambda t: t.objmap(BAND).unlink(), "product is not there"),
        (lambda t: next(t.nullwt_dir(BAND).glob("*")).unlink(), "file of a list is not there"),
        (lambda t: next(t.sources(BAND).glob("*bkg*")).unlink(), "file of a list is not there"),
        (
            lambda t: next(t.psfs.glob("D00229344*")).unlink(),
            "a file is not there.*D00229344_r_c12_r2356p01_psfexcat.psf",
        ),
        (lambda t: replace_text(t.psfmap(BAND), "00229343 11", "00229343 12"), "no line for exposure 229343, CCD 11"),
        (lambda t: replace_text(t.flist("nullwt", BAND), " 31.2", " high"), "line 1 is not a path and a zero point"),
        (lambda t: write_images(t.segmap(BAND), [Plane("SCI", np.zeros((3, 3), np.int32))]), "seg plane has shape"),
        (lambda t: strip_wcs(first_chip(t)), "no usable celestial WCS"),
        (lambda t: edit_catalog(t, lambda rows: rows[:0]), "no objects"),
        (lambda t: edit_catalog(t, lambda rows: rows[1:]), "NUMBER does not run from 1 to 23"),
        (lambda t: edit_catalog(t, lambda rows: rows[:-1]), r"different objects \(24 and 23\)"),
        (lambda t: edit_catalog(t, move_off), "1 objects are not on the coadd, the first is NUMBER 5"),
        (lambda t: edit_catalog(t, without_radius), "lacks a column"),
        (lambda t: edit_ids(t), "gives an id twice"),
    ],
)
def test_bad_input_is_named(fresh, spoil, message):
    fresh.tree.meds(BAND).unlink()
    spoil(fresh.tree)
    with pytest.raises(ProductError, match=message) as caught:
        meds(fresh, BAND)
    assert "file" in caught.value.where
    assert not fresh.tree.meds(BAND).exists()
    assert not fresh.tree.manifest("meds", BAND).exists()
    assert not fresh.site.tmp.exists() or not list(fresh.site.tmp.iterdir())


def replace_text(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def first_chip(tree):
    return tree.flist("nullwt", BAND).read_text().splitlines()[0].rpartition(" ")[0]


def strip_wcs(path):
    planes = [Plane(name, read_image(path, name)) for name in ("SCI", "WGT", "WGT_ME", "MSK")]
    write_images(path, planes)


def edit_catalog(tree, change):
    write_tables(tree.catalog(BAND), [Table("OBJECTS", change(read_table(tree.catalog(BAND), "OBJECTS")))])


def move_off(rows):
    rows["X_IMAGE"][4] = COADD_SHAPE[1] + 5
    return rows


def without_radius(rows):
    from numpy.lib.recfunctions import drop_fields

    return drop_fields(rows, "FLUX_RADIUS")


def edit_ids(tree):
    rows = read_table(tree.objmap(BAND), "OBJECTS")
    rows["id"][3] = rows["id"][7]
    write_tables(tree.objmap(BAND), [Table("OBJECTS", rows)])


def test_pixels_that_are_not_finite_lose_their_weight(fresh):
    path = first_chip(fresh.tree)
    planes = {name: read_image(path, name) for name in ("SCI", "WGT", "WGT_ME", "MSK")}
    planes["SCI"][120:130, 120:160] = np.nan
    planes["WGT"][5, :] = -1
    header = read_header(path, "SCI")
    write_images(path, [Plane(name, pixels, header) for name, pixels in planes.items()])
    meds(fresh, BAND)
    assert read_manifest(fresh.tree.manifest("meds", BAND))["counts"]["unusable_pixels"] == 400
    with MEDS(fresh.tree.meds(BAND)) as file:
        block = file.read_objects(0, file.size, ["image", "weight"])
        for pixels in block.pixels.values():
            assert np.isfinite(pixels).all()
        assert block.pixels["weight"][1].min() >= 0


def configured(fresh, tmp_path, text):
    (tmp_path / "meds-y3v02.yaml").write_text(f"medsconf: y3v02\n{text}\n")
    return context(tmp_path, desmeds=tmp_path / "meds-y3v02.yaml")


def test_settings_change_what_is_written(fresh, tmp_path):
    text = "unusable_bmask: [INTERP]\npsf: {coadd: {stamp_size: 21}, se: {stamp_size: 25}}\nmin_box_size: 48\n"
    text += "cutout_types: [image, weight, bmask]\nse_bkg_ext: none\n"
    text += "extra_obj_data_fields: [{name: MAG_AUTO, type: f4}]"
    made = configured(fresh, tmp_path, text)
    meds(made, BAND, keep_plain=tmp_path / "plain.fits")
    with MEDS(tmp_path / "plain.fits") as file:
        assert file.types == ("image", "weight", "bmask", "psf")
        assert file["box_size"].min() == 48
        assert file.get_psf(0, 0).shape == (21, 21)
        assert file.get_psf(5, 1).shape == (25, 25)
        np.testing.assert_allclose(file["mag_auto"], catalogue(*positions())["MAG_AUTO"], rtol=1e-6)
        seen = 0
        for i, k in np.argwhere(file["file_id"] == 1):
            interpolated = (file.get_cutout(i, k, "bmask") & 4) > 0
            assert not file.get_cutout(i, k, "weight")[interpolated].any()
            seen += int((interpolated & (file.get_cutout(i, k, "bmask") < OFF)).sum())
        assert seen > 100
        assert (file.get_image_info()["bkg_path"] == "").all() or (file.get_image_info()["bkg_path"] == b"").all()


def test_objects_outside_the_coadd_can_be_dropped_or_kept(fresh, tmp_path):
    edit_catalog(fresh.tree, move_off)
    meds(configured(fresh, tmp_path, "trim_to_coadd: true"), BAND)
    with MEDS(fresh.tree.meds(BAND)) as file:
        assert file.size == 23
        assert 5 not in file["number"]
    assert read_manifest(fresh.tree.manifest("meds", BAND))["counts"]["outside_coadd"] == 1
    meds(configured(fresh, tmp_path, "check_in_coadd: false"), BAND)
    with MEDS(fresh.tree.meds(BAND)) as file:
        assert file.size == 24
        assert 0 not in file["file_id"][4]


def test_a_band_the_configuration_lacks(tile):
    with pytest.raises(ConfigError, match="no band Y, only r"):
        meds(tile[0], "Y")


def test_environment_variables_in_lists_are_understood(fresh, monkeypatch):
    monkeypatch.setenv("MEDS_DIR", str(fresh.site.meds_data))
    for path in [*fresh.tree.lists.glob("*.dat"), fresh.tree.psfmap(BAND)]:
        path.write_text(path.read_text().replace(str(fresh.site.meds_data), "$MEDS_DIR"))
    meds(fresh, BAND)
    with MEDS(fresh.tree.meds(BAND)) as file:
        assert file.get_source_path(0, 1).startswith(str(fresh.site.meds_data))


def test_many_psf_stamps_equal_single_ones():
    model = psf_model(3.7)
    rows, cols = np.array([0.0, 130.25, 255.0]), np.array([299.0, 10.5, 0.0])
    for size in (None, 9, 41):
        stamps = model.stamps(rows, cols, size)
        for row, col, stamp in zip(rows, cols, stamps, strict=True):
            np.testing.assert_allclose(stamp, model.stamp(row, col, size), atol=1e-14)
    with pytest.raises(ValueError, match="odd side"):
        model.stamps(rows, cols, 10)
    assert model.stamps([], []).shape == (0, model.native_size, model.native_size)
