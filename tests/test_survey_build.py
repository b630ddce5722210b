import json
import sqlite3

import fitsio
import galsim
import numpy as np
import pytest
from astropy.io import fits
from identical import differences

from balrogutils.archive.geometry import Geometry
from balrogutils.archive.queries import Database
from balrogutils.archive.transfer import md5
from balrogutils.errors import ArchiveError, ToolError
from balrogutils.exposures.scamphead import read_ohead
from balrogutils.fitsfile import read_header, read_image, read_table
from balrogutils.psf import PSFEx
from balrogutils.survey import places
from balrogutils.survey.build import build_archive
from balrogutils.survey.database import geometry_row
from balrogutils.survey.detector import sky_level
from balrogutils.survey.drawing import point_spread
from balrogutils.survey.telescope import chips
from balrogutils.survey.tiny import tiny_survey
from balrogutils.wcs import ImageWCS

TILE = "DES0239+0216"


@pytest.fixture(scope="module")
def survey():
    return tiny_survey("r")


@pytest.fixture(scope="module")
def archive(survey, tmp_path_factory):
    directory = tmp_path_factory.mktemp("survey") / "tiny survey"
    build_archive(survey, directory, workers=1)
    return directory


def test_nothing_but_the_archive_is_left(archive):
    assert sorted(path.name for path in archive.iterdir()) == ["archive.db", "desarchive", "survey.json", "truth"]
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]


def test_a_complete_archive_is_left_alone(archive, survey, caplog):
    before = (archive / "archive.db").stat().st_mtime_ns
    with caplog.at_level("INFO"):
        build_archive(survey, archive, workers=1)
    assert "nothing to do" in caplog.text
    assert (archive / "archive.db").stat().st_mtime_ns == before


def test_an_archive_of_other_parameters_is_refused(archive, survey):
    with pytest.raises(ArchiveError, match="other survey parameters"):
        build_archive(survey.model_copy(update={"seed": survey.seed + 1}), archive, workers=1)


def test_a_directory_of_something_else_is_refused(tmp_path, survey):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "data").touch()
    with pytest.raises(ArchiveError, match="not an archive"):
        build_archive(survey, tmp_path / "precious", workers=1)
    assert (tmp_path / "precious" / "data").exists()


def test_a_failed_build_leaves_nothing(tmp_path, survey):
    hungry = survey.model_copy(update={"psf_model": survey.psf_model.model_copy(update={"min_stars": 10000})})
    (tmp_path / ".part-999999999-ab-target").mkdir()
    with pytest.raises(ToolError, match=r"fewer than 10000[\s\S]*population.stars"):
        build_archive(hungry, tmp_path / "target", workers=1)
    assert list(tmp_path.iterdir()) == []


def test_the_queries_of_block_1_find_every_ccd(archive, survey):
    with Database(f"sqlite:///{archive}/archive.db", archive / "none.ini") as database:
        rows = database.exposures("Y3A2_COADD", "Y3A1_FINALCUT", TILE, "r")
        geometry = database.geometry(TILE)
        coadd = database.coadd("Y3A2_COADD", TILE, "r")
    found = {chip.name: chip for chip in chips(survey)}
    assert [row.filename for row in rows] == [f"{name}_immasked.fits" for name in sorted(found)]
    for row in rows:
        chip = found[row.filename.removesuffix("_immasked.fits")]
        assert row.magzp == chip.zero_point
        assert (archive / "desarchive" / row.path / (row.filename + row.compression)).is_file()
    assert coadd.filename == f"{TILE}_r2577p01_r.fits"
    assert geometry.naxis1 == survey.tile_pixels
    assert geometry.extmag["r"] == 0.1


def test_size_and_checksum_of_every_file_are_known(archive):
    with sqlite3.connect(archive / "archive.db") as database:
        rows = database.execute(
            "select a.path, d.filename, d.compression, d.filesize, d.md5sum from y3a2_desfile d "
            "join y3a2_file_archive_info a on a.filename = d.filename"
        ).fetchall()
    database.close()
    root = archive / "desarchive"
    known = set()
    for path, name, compression, size, checksum in rows:
        file = root / path / (name + (compression or ""))
        known.add(file)
        assert file.stat().st_size == size
        assert md5(file) == checksum
    assert known == {path for path in root.rglob("*") if path.is_file()}


def _variances(files):
    header = read_header(files["immask"], "SCI")
    return header["SKYVARA"], header["SKYVARB"]


def test_the_ccd_files_are_as_the_survey_delivers_them(archive, survey):
    truth = read_table(archive / "truth" / "truth.fits")
    for chip in chips(survey):
        files = {kind: archive / "desarchive" / path for kind, path in places.chip_files(chip).items()}
        image, mask, weight = (read_image(files["immask"], name) for name in ("SCI", "MSK", "WGT"))
        assert image.shape == mask.shape == weight.shape == chip.shape
        assert np.isfinite(image).all()
        # The weight is one value per amplifier, stored to a few parts in 1e4.
        level = np.where(
            np.arange(chip.shape[1]) >= chip.shape[1] // 2,
            *(1 / header_variance for header_variance in _variances(files)),
        )
        np.testing.assert_allclose(weight, np.broadcast_to(level, chip.shape), rtol=2e-3)
        header = read_header(files["immask"], "SCI")
        wanted = (
            "BAND FILTER EXPNUM CCDNUM EXPTIME MJD-OBS SKYBRITE SKYSIGMA GAINA GAINB RDNOISEA RDNOISEB SATURATE FWHM"
        )
        for key in wanted.split():
            assert header[key] is not None, key
        assert ImageWCS(header).pixel_to_sky(9, 9) != chip.wcs.pixel_to_sky(9, 9)
        background = read_image(files["bkg"], "SCI")
        residual = (image - background)[mask == 0]
        # Most pixels are sky: the median is that of the faint light, well below the noise.
        assert abs(np.median(residual)) < 0.35 * header["SKYSIGMA"]
        segmentation = read_image(files["seg"], "SCI")
        stars = truth[(truth["is_star"] == 1) & (truth["mag_r"] < 20)]
        row, col = chip.wcs.sky_to_pixel(stars["ra"], stars["dec"])
        row, col = np.round(row).astype(int), np.round(col).astype(int)
        inside = (row > 15) & (row < chip.shape[0] - 15) & (col > 15) & (col < chip.shape[1] - 15)
        clean = inside & (mask[np.clip(row, 0, 271), np.clip(col, 0, 255)] == 0)
        assert clean.sum() >= 5
        assert np.all(segmentation[row[clean], col[clean]] > 0)


def test_the_psf_is_that_of_the_stars(archive, survey):
    for chip in chips(survey):
        model = PSFEx.read(archive / "desarchive" / places.chip_files(chip)["psf"])
        fwhm, g1, g2 = (float(value) for value in chip.psf_at(135.0, 127.0))
        local = chip.wcs.galsim.local(image_pos=galsim.PositionD(128.0, 136.0))
        exact = point_spread(fwhm, g1, g2, chip.exposure.psf.beta).drawImage(nx=31, ny=31, wcs=local)
        stamp = galsim.Image(model.stamp(135.0, 127.0, 31))
        sizes = [galsim.hsm.FindAdaptiveMom(image).moments_sigma for image in (stamp, exact)]
        # A dozen stars, some blended, and a model without variation over the CCD.
        assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_the_scamp_head_is_the_right_wcs(archive, survey):
    for chip in chips(survey):
        cards = read_ohead(archive / "desarchive" / places.ohead(TILE, chip))
        right = chip.wcs.pixel_to_sky([0.0, 200.0], [0.0, 100.0])
        np.testing.assert_allclose(ImageWCS(cards).pixel_to_sky([0.0, 200.0], [0.0, 100.0]), right, atol=1e-9)


def test_the_coadd_is_deep_and_on_zero_point_30(archive, survey):
    files = {kind: archive / "desarchive" / path for kind, path in places.coadd_files(TILE, "r").items()}
    image, weight = read_image(files["coadd"], "SCI"), read_image(files["coadd"], "WGT")
    assert image.shape == (survey.tile_pixels,) * 2
    assert np.mean(weight > 0) > 0.95
    catalog = read_table(files["cat"])
    truth = read_table(archive / "truth" / "truth.fits")
    geometry = Geometry.tangent(TILE, survey.tiles[0].ra, survey.tiles[0].dec, 200, 200, 0.263)
    row, col = geometry.wcs().sky_to_pixel(truth["ra"], truth["dec"])
    stars = (truth["is_star"] == 1) & (truth["mag_r"] < 20.5) & (truth["mag_r"] > 15.5)
    stars &= (row > 15) & (row < 185) & (col > 15) & (col < 185)
    offsets, shifts = [], []
    for index in np.flatnonzero(stars):
        others = np.hypot(row - row[index], col - col[index]) * 0.263
        if np.sort(others)[1] < 5.0:
            continue
        distance = np.hypot(catalog["YWIN_IMAGE"] - 1 - row[index], catalog["XWIN_IMAGE"] - 1 - col[index])
        nearest = int(np.argmin(distance))
        assert distance[nearest] < 2.0
        offsets.append(catalog["MAG_AUTO"][nearest] - truth["mag_r"][index])
        shifts.append(distance[nearest] * 0.263)
    assert len(offsets) >= 3
    # MAG_AUTO misses a few per cent of a star's light; a wrong zero point would be a tenth and more.
    assert -0.03 < np.median(offsets) < 0.09
    assert np.median(shifts) < 0.05


def test_no_file_names_its_scratch_directory(archive):
    for path in (archive / "desarchive").rglob("*"):
        if path.is_file() and path.suffix != ".fz":
            assert b".part-" not in path.read_bytes(), path


def test_one_and_two_processes_make_the_same_files(archive, survey, tmp_path):
    build_archive(survey, tmp_path / "two", workers=2)
    ours, theirs = tmp_path / "two", archive
    assert differences(ours / "desarchive", theirs / "desarchive") == []
    assert differences(ours / "truth", theirs / "truth") == []
    assert json.loads((ours / "survey.json").read_text()) == json.loads((theirs / "survey.json").read_text())


def test_geometry_around_ra_zero():
    row = geometry_row(Geometry.tangent("DES0000+0000", 0.0, 0.0, 100, 100, 0.263), 5)
    assert row["crossra0"] == "Y"
    assert row["racmin"] > row["racmax"]
    assert row["extmag_g"] is None
    assert geometry_row(Geometry.tangent("DES0100+0000", 15.0, 0.0, 100, 100, 0.263), 5)["crossra0"] == "N"


def test_the_image_is_packed_in_steps_far_below_its_noise(archive, survey):
    chip = chips(survey)[0]
    with fitsio.FITS(str(archive / "desarchive" / places.chip_files(chip)["immask"])) as packed:
        assert packed["SCI"].get_info()["is_compressed_image"]
        image = packed["SCI"].read()
    with fits.open(archive / "desarchive" / places.chip_files(chip)["immask"], disable_image_compression=True) as hdus:
        scales = hdus["SCI"].data["ZSCALE"]
        assert hdus["SCI"].header["ZQUANTIZ"] == "SUBTRACTIVE_DITHER_2"
    # Sixteen steps in one sigma, as cfitsio measures the noise of each row.
    assert np.median(scales) == pytest.approx(sky_level(chip)[1] / 16, rel=0.1)
    assert image.dtype == np.float32
