"""Block 1 on a whole tile: a small DES archive and the real DECam fields."""

import json
import logging
from pathlib import Path

import fitsio
import galsim
import galsim.des
import numpy as np
import pytest
import yaml
from small_archive import HEAD, SHAPE, TILE, SmallArchive, context

from balrogutils.archive import noirlab as noirlab_archive
from balrogutils.archive.geometry import Geometry
from balrogutils.archive.transfer import md5
from balrogutils.blocks.prep import prep
from balrogutils.context import Context
from balrogutils.errors import ArchiveError, ConfigError, InputError, ToolError
from balrogutils.exposures.lists import read_flist, read_psfmap, read_zero_points
from balrogutils.exposures.nullweights import NULL_MASK
from balrogutils.exposures.scamphead import read_ohead
from balrogutils.fitsfile import read_header, read_image
from balrogutils.masks import MaskBit
from balrogutils.products import read_manifest
from balrogutils.psf import PSFEx
from balrogutils.wcs import ImageWCS

HERE = Path(__file__).parent


def products_of(tree):
    """Return DATASUM and cards of every FITS HDU and the text of every list, by file name."""
    found = {}
    for path in sorted(tree.dir.rglob("*")):
        if path.suffix in (".fits", ".psf", ".fz"):
            with fitsio.FITS(str(path)) as fits:
                headers = [hdu.read_header() for hdu in fits]
            found[path] = [
                {
                    card["name"]: card["value"]
                    for card in header.records()
                    if card["name"] not in ("DATE", "CHECKSUM", "HISTORY", "COMMENT")
                }
                for header in headers
            ]
        elif path.suffix in (".dat", ".yaml", ".json") and path.parent.name != "manifests":
            found[path] = path.read_text()
    return found


@pytest.fixture
def archive(tmp_path):
    return SmallArchive(tmp_path).write()


def counts(run, band="g"):
    return read_manifest(run.tree.manifest("prep", band))["counts"]


def test_the_lists_the_map_and_the_database_agree(archive, tmp_path):
    run = context(tmp_path)
    prep(run, "g")
    tree = run.tree
    images, psfs = read_zero_points(tree.flist("nullwt", "g")), read_psfmap(tree.psfmap("g"))
    segs, bkgs = read_flist(tree.flist("seg", "g")), read_flist(tree.flist("bkg", "g"))
    chips = sorted(archive.chips["g"])
    assert [path for path, _ in images] == [tree.nullwt("g", chip) for chip in chips]
    assert len(images) == len(segs) == len(bkgs) == len(psfs) - 1 == 4
    assert [zero for _, zero in images] == pytest.approx([31.201, 31.262, 31.301, 31.362], abs=1e-12)
    assert [line.path.name for line in psfs] == [
        f"{TILE}_r2577p01_g_psfcat.psf",
        *(f"{chip}_psfexcat.psf" for chip in chips),
    ]
    assert [line[:2] for line in psfs] == [("-9999", "-9999"), *((chip[1:9], chip[13:15]) for chip in chips)]
    for path in (*segs, *bkgs, *(line.path for line in psfs)):
        assert path.is_file()
        assert path.is_relative_to(tree.dir)
    assert all(line.path.parent == tree.psfs for line in psfs)
    conf = yaml.safe_load(tree.fileconf("g").read_text())
    assert conf["coadd_image_url"].endswith(
        f"sources-g/OPS/multiepoch/Y3A1/r2577/{TILE}/p01/coadd/{TILE}_r2577p01_g.fits.fz"
    )
    geometry = Geometry.read(tree.geometry)
    assert (geometry.tilename, geometry.tileid) == (TILE, 77)
    assert counts(run)["chips"] == 4
    assert counts(run)["exposures"] == 2


def test_a_null_weight_image_is_the_recipe_with_the_heads_wcs(archive, tmp_path):
    run = context(tmp_path)
    prep(run, "g")
    cards = read_ohead(HEAD)
    for path, _ in read_zero_points(run.tree.flist("nullwt", "g")):
        source = next(run.tree.sources("g").rglob(path.name.replace("_nullwt", "") + ".fz"))
        with fitsio.FITS(str(path)) as fits:
            assert [hdu.get_extname() for hdu in fits] == ["SCI", "WGT", "WGT_ME", "MSK"]
            sci, wgt, wgt_me, msk = (hdu.read() for hdu in fits)
            headers = [fits[0].read_header(), fits[3].read_header()]
        old = read_image(source, "MSK")
        assert sci.shape == SHAPE
        assert [plane.dtype.kind + str(plane.dtype.itemsize) for plane in (sci, wgt, wgt_me, msk)] == [
            "f4",
            "f4",
            "f4",
            "i2",
        ]
        null = (old & NULL_MASK) != 0
        np.testing.assert_array_equal(wgt == 0, null)
        np.testing.assert_array_equal(wgt[~null], read_image(source, "WGT")[~null])
        np.testing.assert_array_equal(wgt, wgt_me)
        np.testing.assert_array_equal(msk & ~4, old)
        np.testing.assert_array_equal(
            sci[(msk & MaskBit.INTERP) == 0], read_image(source, "SCI")[(msk & MaskBit.INTERP) == 0]
        )
        assert ((msk & MaskBit.INTERP) != 0).sum() == (old & 65 != 0).sum()
        for header in headers:
            for key, value in cards.items():
                # FITS text is padded with blanks that mean nothing.
                assert header[key] == (value.strip() if isinstance(value, str) else pytest.approx(value, rel=1e-13)), (
                    key
                )
            assert "PV1_3" not in header
            assert (header["TILENAME"], header["TILEID"], header["BAND"]) == (TILE, 77, "g")
            assert [header[key] for key in ("SKYBRITE", "SKYSIGMA", "GAINA", "GAINB", "SATURATE")] == [
                100.5,
                10.25,
                1.01,
                0.99,
                160000.0,
            ]
        ra, dec = ImageWCS(headers[0]).pixel_to_sky(30, 25)
        assert Geometry.read(run.tree.geometry).contains(ra[0], dec[0])


def test_a_second_run_fetches_nothing_and_gives_the_same(archive, tmp_path, caplog):
    run = context(tmp_path)
    prep(run, "g")
    before = products_of(run.tree)
    stamps = {path: path.stat().st_mtime_ns for path in run.tree.sources("g").rglob("*") if path.is_file()}
    geometry = run.tree.geometry.stat().st_ino
    with caplog.at_level(logging.INFO):
        prep(run, "g")
    assert products_of(run.tree) == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert run.tree.geometry.stat().st_ino == geometry
    assert "fetched 0 files" in caplog.text
    assert f"{len(stamps)} were there" in caplog.text


def test_a_half_written_file_of_a_killed_run_is_replaced(archive, tmp_path):
    run = context(tmp_path)
    prep(run, "g")
    before = products_of(run.tree)
    path = run.tree.nullwt("g", archive.chips["g"][0])
    path.write_bytes(path.read_bytes()[:5000])
    source = next(run.tree.sources("g").rglob("*_bkg.fits.fz"))
    source.write_bytes(b"")
    prep(run, "g")
    assert products_of(run.tree) == before


def test_bands_run_apart_and_share_the_geometry(tmp_path):
    SmallArchive(tmp_path, "gz").write()
    run = context(tmp_path, "gz")
    prep(run, "z")
    geometry = run.tree.geometry.read_text()
    prep(run, "g")
    assert run.tree.geometry.read_text() == geometry
    assert len(list(run.tree.psfs.iterdir())) == 2 * 5
    for band in "gz":
        assert read_manifest(run.tree.manifest("prep", band))["band"] == band


def test_ccds_that_cannot_be_used_are_listed_and_counted(tmp_path):
    archive = SmallArchive(tmp_path, ccds=(1, 2, 3))
    chips = sorted(archive.chips["g"])
    archive.drop("y3a2_zeropoint", imagename=f"{chips[0]}_immasked.fits")
    archive.drop("y3a2_desfile", filename=f"{chips[1]}_psfexcat.psf")
    # A head and a model that are there but say nothing: as the archive has them, checksum and all.
    for pattern, name in ((f"*{chips[2][:15]}*.ohead", "head"), (f"{chips[3]}_psfexcat.psf", "psf")):
        file = archive.file(pattern)
        file.write_text("END\n" if name == "head" else "no model")
        change_record(archive, file)
    archive.write()
    run = context(tmp_path)
    prep(run, "g")
    assert counts(run)["chips"] == 2
    assert counts(run)["left_out"] == 4
    assert counts(run)["without_zero_point"] == 1
    listed = counts(run)["left_out_list"]
    for chip, reason in zip(
        chips, ("no zero point", "no PSF model", "SCAMP head lacks", "not a PSFEx model"), strict=False
    ):
        assert any(part.startswith(chip) and reason in part for part in listed.split("; "))
    assert len(read_zero_points(run.tree.flist("nullwt", "g"))) == 2


def change_record(archive, file):
    for row in archive.rows["y3a2_desfile"]:
        if row["filename"] == file.name.removesuffix(".fz"):
            row |= {"filesize": file.stat().st_size, "md5sum": md5(file)}


def test_more_unusable_ccds_than_allowed_is_an_error(tmp_path):
    archive = SmallArchive(tmp_path)
    for chip in archive.chips["g"][:2]:
        archive.drop("y3a2_desfile", filename=f"{chip}_psfexcat.psf")
    archive.write()
    run = context(tmp_path, max_missing_ccds=1)
    with pytest.raises(ArchiveError, match="2 CCDs cannot be used, the campaign allows 1"):
        prep(run, "g")
    assert not run.tree.manifest("prep", "g").exists()
    prep(context(tmp_path, max_missing_ccds=2), "g")


def test_no_usable_ccd_is_an_error(tmp_path):
    archive = SmallArchive(tmp_path)
    archive.drop("y3a2_zeropoint", source="FGCM")
    archive.write()
    with pytest.raises(ArchiveError, match="no CCD of this tile"):
        prep(context(tmp_path), "g")


@pytest.mark.parametrize("damage", ["nan image", "nan weight", "no weight"])
def test_a_dead_ccd_stays_in_the_lists_without_weight(tmp_path, damage):
    archive = SmallArchive(tmp_path)
    chip = archive.chips["g"][1]
    file = archive.file(f"{chip}_immasked.fits.fz")
    with fitsio.FITS(str(file)) as fits:
        planes = {name: (fits[name].read(), fits[name].read_header()) for name in ("SCI", "MSK", "WGT")}
    planes["SCI" if damage == "nan image" else "WGT"][0][:] = 0 if damage == "no weight" else np.nan
    with fitsio.FITS(str(file), "rw", clobber=True) as fits:
        for name, (pixels, header) in planes.items():
            fits.write(pixels, header=header, extname=name)
    change_record(archive, file)
    archive.write()
    run = context(tmp_path)
    prep(run, "g")
    assert counts(run)["chips"] == 4
    assert (counts(run)["dead"], counts(run)["dead_list"]) == (1, chip)
    assert counts(run)["not_finite_pixels"] == (0 if damage == "no weight" else SHAPE[0] * SHAPE[1])
    path = run.tree.nullwt("g", chip)
    for name in ("SCI", "WGT", "WGT_ME"):
        assert np.isfinite(read_image(path, name)).all()
    assert not read_image(path, "WGT").any()


@pytest.mark.parametrize("damage", ["missing", "truncated", "checksum"])
def test_a_damaged_file_of_the_archive_stops_the_band(archive, tmp_path, damage):
    run = context(tmp_path)
    file = archive.file(f"{archive.chips['g'][2]}_segmap.fits.fz")
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(data[:-100] if damage == "truncated" else data[:-1] + b"\x01")
    with pytest.raises(ArchiveError) as caught:
        prep(run, "g")
    assert file.name in caught.value.where["file"]
    assert (caught.value.where["tile"], caught.value.where["band"]) == (TILE, "g")
    assert not run.tree.manifest("prep", "g").exists()
    assert not run.tree.flist("nullwt", "g").exists()
    file.write_bytes(data)
    prep(run, "g")


def test_images_no_list_names_are_removed(archive, tmp_path):
    run = context(tmp_path)
    prep(run, "g")
    gone = archive.chips["g"][0]
    archive.drop("y3a2_zeropoint", imagename=f"{gone}_immasked.fits")
    archive.write()
    prep(run, "g")
    assert not run.tree.nullwt("g", gone).exists()
    assert len(list(run.tree.nullwt_dir("g").iterdir())) == 3


def test_tile_band_and_realization_are_checked(archive, tmp_path):
    run = context(tmp_path)
    with pytest.raises(InputError, match=r"no such tile.*DES2044-5300"):
        prep(Context(run.site, run.pipeline, run.campaign, "DES2044-5301"), "g")
    with pytest.raises(InputError, match="no such band"):
        prep(run, "Y")
    with pytest.raises(InputError, match="realization"):
        prep(Context(run.site, run.pipeline, run.campaign, TILE, "0"), "g")


def test_no_password_in_manifest_or_error(archive, tmp_path):
    run = context(tmp_path, database="postgresql+pg8000://me:the-password@host/dessci")
    with pytest.raises(ConfigError) as caught:
        prep(run, "g")
    assert "the-password" not in str(caught.value)
    # SQLite takes no login; the URL of the manifest is the one without its password in every case.
    prep(context(tmp_path), "g")
    assert "archive.db" in json.dumps(read_manifest(run.tree.manifest("prep", "g"))["config"])


def decam(tmp_path, source):
    geometry = noirlab_archive.build_archive(source, tmp_path / "decam")
    bands = tuple("grz" if geometry.tilename == "DES1226+2527" else "z")
    here = tmp_path / "decam"
    plain = context(tmp_path, bands, kind="noirlab", database=f"sqlite:///{here}/archive.db", archive=f"file://{here}/")
    return geometry, Context(plain.site, plain.pipeline, plain.campaign, geometry.tilename)


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    directory = tmp_path_factory.mktemp("field")
    geometry, run = decam(directory, HERE.parent / "inputs" / "decam_grz_9exp")
    for band in run.bands:
        prep(run, band)
    return geometry, run


def test_the_real_field_has_the_products_of_a_des_tile(field):
    geometry, run = field
    tree = run.tree
    for band, count in {"g": 2, "r": 3, "z": 4}.items():
        images, psfs = read_zero_points(tree.flist("nullwt", band)), read_psfmap(tree.psfmap(band))
        segs, bkgs = read_flist(tree.flist("seg", band)), read_flist(tree.flist("bkg", band))
        assert len(images) == len(segs) == len(bkgs) == len(psfs) - 1 == count == counts(run, band)["chips"]
        assert psfs[0].path == tree.coadd_psf(band)
        for (image, _), seg, bkg, psf in zip(images, segs, bkgs, psfs[1:], strict=True):
            header = read_header(image, "SCI")
            shape = read_image(image, "SCI").shape
            assert read_image(seg, "SCI").shape == read_image(bkg, "SCI").shape == shape
            assert read_image(seg, "SCI").dtype == np.int32
            assert f"{header['EXPNUM']:08d}" == psf.expnum
            assert f"{header['CCDNUM']:02d}" == psf.ccdnum
            galsim.des.DES_PSFEx(str(psf.path))
            ImageWCS(header)
    assert Geometry.read(tree.geometry) == Geometry.from_row({**vars(geometry), "id": 1})


def test_a_star_has_the_same_magnitude_in_every_exposure(field):
    # The brightest star (Gaia G = 18.0), 8 pixel radius: stated scatter 0.01 to 0.07 mag in a band.
    _, run = field
    for band, limit in {"g": 0.07, "r": 0.07, "z": 0.07}.items():
        mags = []
        images = read_zero_points(run.tree.flist("nullwt", band))
        for (image, magzp), bkg in zip(images, read_flist(run.tree.flist("bkg", band)), strict=True):
            pixels = read_image(image, "SCI") - read_image(bkg, "SCI")
            row, col = (float(x[0]) for x in ImageWCS(read_header(image, "SCI")).sky_to_pixel(186.73547, 25.46478))
            y, x = np.indices(pixels.shape)
            mags.append(magzp - 2.5 * np.log10(pixels[np.hypot(y - row, x - col) < 8].sum()))
        assert np.std(mags) < limit
        assert 16.5 < np.mean(mags) < 20


def test_the_star_lies_in_a_segment_and_the_sky_does_not(field):
    _, run = field
    for band in run.bands:
        for path in read_flist(run.tree.flist("seg", band)):
            segmap = read_image(path, "SCI")
            row, col = (
                round(float(x[0])) for x in ImageWCS(read_header(path, "SCI")).sky_to_pixel(186.73547, 25.46478)
            )
            assert segmap[row, col] > 0
            assert 0.002 < (segmap > 0).mean() < 0.1


def test_the_coadd_psf_is_as_broad_as_its_exposures(field):
    _, run = field
    for band in run.bands:
        lines = read_psfmap(run.tree.psfmap(band))
        coadd = PSFEx.read(lines[0].path)
        assert coadd.degree == 0
        assert coadd.masks.sum() == pytest.approx(1, abs=1e-6)
        sizes = []
        for line in lines[1:]:
            stamp = galsim.Image(PSFEx.read(line.path).stamp(120, 120, 41))
            sizes.append(galsim.hsm.FindAdaptiveMom(stamp).moments_sigma)
        mean = galsim.hsm.FindAdaptiveMom(galsim.Image(coadd.stamp(0, 0, 41))).moments_sigma
        assert 0.99 * min(sizes) < mean < 1.01 * max(sizes)


def test_saturated_stars_of_a_merged_layout(tmp_path):
    _, run = decam(tmp_path, HERE / "data" / "decam_satstars_z_1exp")
    prep(run, "z")
    ((image, magzp),) = read_zero_points(run.tree.flist("nullwt", "z"))
    assert magzp == pytest.approx(30.367, abs=1e-3)
    assert counts(run, "z")["refilled_weights"] == 1294
    msk, wgt = read_image(image, "MSK"), read_image(image, "WGT")
    assert (wgt[(msk & (MaskBit.SATURATE | MaskBit.TRAIL)) == MaskBit.SATURATE] > 0).all()
    assert not wgt[(msk & MaskBit.TRAIL) != 0].any()


def test_the_same_field_gives_the_same_products(field, tmp_path):
    _, run = field
    before = products_of(run.tree)
    prep(run, "r")
    assert products_of(run.tree) == before


def test_a_segmentation_program_that_is_missing_is_said(tmp_path, monkeypatch):
    _, run = decam(tmp_path, HERE / "data" / "decam_satstars_z_1exp")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="sextractor is not installed"):
        prep(run, "z")
