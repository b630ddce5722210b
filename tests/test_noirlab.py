"""Community Pipeline images: the archive built from them and their conversion, on real exposures."""

import dataclasses
import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import fitsio
import galsim
import numpy as np
import pytest

from balrogutils.archive import noirlab as archive
from balrogutils.archive.geometry import Geometry
from balrogutils.archive.queries import Database
from balrogutils.errors import ArchiveError, InputError, ProductError
from balrogutils.exposures.cpmodels import read_sky
from balrogutils.exposures.noirlab import MASK_BITS, bits_of_codes, read_exposure, refill_weight
from balrogutils.exposures.nullweights import null_weights
from balrogutils.masks import MaskBit
from balrogutils.wcs import ImageWCS

HERE = Path(__file__).parent
GRZ = HERE.parent / "inputs" / "decam_grz_9exp"
STARS = HERE / "data" / "decam_satstars_z_1exp"
TILE = "DES1226+2527"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("decam")
    return archive.build_archive(GRZ, directory), directory


@pytest.fixture
def copy(tmp_path):
    """A source directory that a test may damage."""
    return Path(shutil.copytree(STARS, tmp_path / "source"))


def database(directory):
    return Database(f"sqlite:///{directory}/archive.db", "none")


def convert(source, row, **changes):
    row = {"image_hdu": 1, "ccdraoff": 0.0, "ccddecoff": 0.0} | row | changes
    image = source / row["image_filename"]
    weight, mask = (image.with_name(image.name.replace("_ooi_", f"_oo{letter}_")) for letter in "wd")
    sky = read_sky(source / row["sky_filename"], row["expnum"], row["ccdname"])
    return read_exposure(image, weight, mask, sky, row, {"TILENAME": "T", "TILEID": 1})


def rows_of(directory, band, geometry):
    with database(directory) as asked:
        return [chip.row for chip in archive.tile_ccds(asked, geometry, band).chips]


@pytest.mark.parametrize("directory", [GRZ, STARS], ids=["grz", "satstars"])
def test_the_bundled_files_are_unchanged(directory):
    listed = dict(reversed(line.split()) for line in (directory / "SHA256SUMS").read_text().splitlines())
    found = {path.relative_to(directory).as_posix() for path in directory.rglob("*.fits*")}
    assert set(listed) == found
    for name, checksum in listed.items():
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == checksum


def test_codes_become_bits_once():
    codes = np.arange(9).reshape(3, 3)
    bits = bits_of_codes(codes)
    names = [0, "BPM", "EDGE", "SATURATE", "TRAIL", "CRAY", "SUSPECT", "CRAY", "STREAK"]
    assert bits.ravel().tolist() == [MaskBit[name].value if name else 0 for name in names]
    assert bits.dtype == np.int16
    assert set(MASK_BITS) == set(range(9))
    assert bits_of_codes(np.zeros((0, 4), int)).shape == (0, 4)


@pytest.mark.parametrize("code", [-1, 9, 16, 1024])
def test_what_is_no_code_is_refused(code):
    with pytest.raises(ProductError, match="codes"):
        bits_of_codes(np.array([[0, code]]), "x_ood_z.fits")


def test_refilling_takes_the_median_around_and_never_invents_weight():
    weight = np.full((130, 200), 4.0, "f4")
    weight[:, 128:] = 9.0
    where = np.zeros(weight.shape, bool)
    where[10:20, 10:20] = where[:64, 64:128] = where[100, 199] = True
    weight[where] = 0
    weight[60, 3] = 0
    filled, count = refill_weight(weight, where)
    assert count == where.sum()
    assert (filled[10:20, 10:20] == 4).all()
    # A cell without any good pixel takes a neighbour's value.
    assert np.isin(filled[:64, 64:128], [4, 9]).all()
    assert filled[100, 199] == 9
    assert filled[60, 3] == 0
    np.testing.assert_array_equal(filled[~where], weight[~where])
    dead, count = refill_weight(np.zeros((5, 5), "f4"), np.ones((5, 5), bool))
    assert count == 0
    assert not dead.any()
    same, count = refill_weight(weight, np.zeros(weight.shape, bool))
    assert count == 0
    np.testing.assert_array_equal(same, weight)


def test_the_archive_holds_every_exposure_and_one_tile(built):
    geometry, directory = built
    assert geometry.tilename == TILE
    # The union of the exposures is 252 x 252 pixels to the middles of the outer pixels.
    assert (geometry.naxis1, geometry.naxis2) == (253, 253)
    with database(directory) as asked:
        assert dataclasses.replace(asked.geometry(TILE), tileid=0) == geometry
        counts = {band: len(archive.tile_ccds(asked, geometry, band).chips) for band in "grz"}
        assert counts == {"g": 2, "r": 3, "z": 4}
        files = [file for band in "grz" for file in archive.tile_ccds(asked, geometry, band).files]
    assert len(files) == 45
    for file in files:
        data = (directory / file.path).read_bytes()
        assert (len(data), hashlib.md5(data).hexdigest()) == (file.size, file.md5)


def test_every_pixel_of_every_exposure_is_on_the_tile(built):
    geometry, directory = built
    for band in "grz":
        for row in rows_of(directory, band, geometry):
            header = fitsio.read_header(directory / row["image_filename"], 1)
            ny, nx = row["height"], row["width"]
            ra, dec = ImageWCS(header).pixel_to_sky([0, 0, ny - 1, ny - 1], [0, nx - 1, nx - 1, 0])
            assert all(geometry.contains(*place) for place in zip(ra, dec, strict=True))


def test_chip_names_and_zero_points(built):
    geometry, directory = built
    with database(directory) as asked:
        chips = archive.tile_ccds(asked, geometry, "g").chips
    assert [chip.chip for chip in chips] == ["D00634850_g_c34_r0001p01", "D00725257_g_c25_r0001p01"]
    # 24.9108 + 2.5 log10(131) and 24.8281 + 2.5 log10(122)
    assert [chip.magzp for chip in chips] == pytest.approx([30.204, 30.044], abs=1e-3)


def test_a_band_or_tile_without_exposures_is_an_error(built):
    geometry, directory = built
    with database(directory) as asked:
        with pytest.raises(ArchiveError, match="g r z"):
            archive.tile_ccds(asked, geometry, "i")
        with pytest.raises(ArchiveError, match="no CCD"):
            archive.tile_ccds(asked, Geometry.tangent("far", 10.0, 25.46, 250, 250, 0.263), "g")
        with pytest.raises(ArchiveError, match="no CCD"):
            archive.tile_ccds(asked, Geometry.tangent("near", 186.8, 25.46, 250, 250, 0.263), "g")
        with pytest.raises(InputError, match=TILE[:7]):
            asked.geometry("DES1226-2527")


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("ccdzpt", np.nan, "no zero point"),
        ("ccdzpt", 0, "no zero point"),
        ("exptime", 0, "no zero point"),
        ("ccd_cuts", 8, "ccd_cuts 8"),
    ],
)
def test_an_exposure_with_a_fault_is_listed(copy, tmp_path, column, value, reason):
    table = copy / "survey-ccds-1.fits.gz"
    rows = fitsio.read(table)
    rows[column] = value
    table.unlink()
    fitsio.write(table, rows)
    geometry = archive.build_archive(copy, tmp_path / "built")
    with database(tmp_path / "built") as asked:
        assert list(archive.tile_ccds(asked, geometry, "z").left_out.values()) == [reason]


@pytest.mark.parametrize(("column", "value"), [("ccdzpt", "'abc'"), ("ccdzpt", "1e9"), ("exptime", "'abc'")])
def test_what_a_damaged_database_holds_is_no_zero_point(copy, tmp_path, column, value):
    geometry = archive.build_archive(copy, tmp_path / "built")
    with closing(sqlite3.connect(tmp_path / "built" / "archive.db")) as damaged, damaged:
        damaged.execute(f"update ccds set {column} = {value}")
    with database(tmp_path / "built") as asked:
        assert set(archive.tile_ccds(asked, geometry, "z").left_out.values()) == {"no zero point"}


@pytest.mark.parametrize("what", ["psfex", "splinesky"])
def test_an_exposure_without_a_model_is_listed(copy, tmp_path, what):
    for path in copy.rglob(f"*{what}.fits"):
        path.unlink()
    geometry = archive.build_archive(copy, tmp_path / "built")
    with database(tmp_path / "built") as asked:
        (reason,) = archive.tile_ccds(asked, geometry, "z").left_out.values()
    assert reason == ("no PSF model" if what == "psfex" else "no sky model")


def test_a_source_without_its_files_is_refused(copy, tmp_path):
    next(copy.rglob("*_oow_*")).unlink()
    with pytest.raises(InputError, match="weight file"):
        archive.build_archive(copy, tmp_path / "built")
    (copy / "survey-ccds-1.fits.gz").unlink()
    with pytest.raises(InputError, match="survey-ccds"):
        archive.build_archive(copy, tmp_path / "built")
    assert not (tmp_path / "built" / "archive.db").exists()


@pytest.mark.parametrize(
    ("ra", "dec", "name"),
    [
        (186.744, 25.462, TILE),
        (0.0, 0.0, "DES0000+0000"),
        (359.9, -0.5, "DES2359-0030"),
        (39.96, 2.28, "DES0239+0216"),
        (310.5, -53.2, "DES2042-5312"),
    ],
)
def test_tile_names(ra, dec, name):
    assert archive.tile_name(ra, dec) == name


def test_saturated_stars_keep_their_weight(copy, tmp_path):
    geometry = archive.build_archive(copy, tmp_path / "built")
    (row,) = rows_of(tmp_path / "built", "z", geometry)
    exposure = convert(copy, row)
    codes = fitsio.read(next(copy.rglob("*_ood_*")), ext=1)
    weight = fitsio.read(next(copy.rglob("*_oow_*")), ext=1)
    assert exposure.refilled == (612 + 682)
    np.testing.assert_array_equal((exposure.msk & 2) != 0, codes == 3)
    np.testing.assert_array_equal((exposure.msk & 64) != 0, codes == 4)
    assert not weight[codes > 0].any()
    refilled = exposure.wgt[np.isin(codes, (3, 4))]
    np.testing.assert_allclose(refilled, np.median(weight[codes == 0]), rtol=0.2)
    planes = null_weights(exposure.sci, exposure.wgt, exposure.msk)
    # Bleed trails are null, saturated pixels are not: as in DES.
    assert not planes.wgt[codes == 4].any()
    assert (planes.wgt[codes == 3] > 0).all()
    assert not planes.wgt_me[codes == 4].any()


def test_image_plus_constant_minus_sky_model(built):
    geometry, directory = built
    for band in "grz":
        for row in rows_of(directory, band, geometry):
            exposure = convert(directory, row)
            original = fitsio.read(directory / row["image_filename"], ext=1)
            level = exposure.header["SKYBRITE"]
            np.testing.assert_allclose(exposure.sci + np.float32(level), original, atol=2e-3)
            assert abs(np.median(exposure.bkg)) < 1e-3
            assert np.ptp(exposure.bkg) < 0.01 * level
            good = exposure.wgt > 0
            left = (exposure.sci - exposure.bkg)[good]
            robust = 1.4826 * np.median(np.abs(left - np.median(left)))
            # Stated for these fields: pixel noise times root weight is 0.99 to 1.06.
            assert 0.98 < robust / exposure.header["SKYSIGMA"] < 1.07
            assert exposure.header["BAND"] == band
            for key in ("GAINA", "GAINB", "RDNOISEA", "RDNOISEB", "SATURATE", "FWHM"):
                assert exposure.header[key] > 0


# The three stars of the field that all nine exposures show: Gaia DR2 position at 2015.5 and proper motion (mas/yr).
STARS_OF_GAIA = (
    (186.7354855788, 25.4647831668, -47.82, -2.90),
    (186.7361350157, 25.4611814966, -18.19, -7.57),
    (186.7360583611, 25.4574051047, -0.19, 1.21),
)


def test_positions_agree_better_with_gaia_with_the_offsets(built):
    geometry, directory = built
    off = {True: [], False: []}
    for row in (row for band in "grz" for row in rows_of(directory, band, geometry)):
        years = (row["mjd_obs"] - 57205.9) / 365.25
        for used in off:
            exposure = convert(directory, row, **({} if used else {"ccdraoff": 0.0, "ccddecoff": 0.0}))
            wcs = ImageWCS(exposure.header)
            for ra0, dec0, pmra, pmdec in STARS_OF_GAIA:
                cos = np.cos(np.deg2rad(dec0))
                true_ra, true_dec = ra0 + years * pmra / cos / 3.6e6, dec0 + years * pmdec / 3.6e6
                r, c = (round(float(x[0])) for x in wcs.sky_to_pixel(true_ra, true_dec))
                stamp = galsim.Image((exposure.sci - exposure.bkg)[r - 10 : r + 11, c - 10 : c + 11].astype(float))
                centre = galsim.hsm.FindAdaptiveMom(stamp).moments_centroid
                ra, dec = wcs.pixel_to_sky(r + centre.y - 11, c + centre.x - 11)
                off[used].append(((ra[0] - true_ra) * cos * 3.6e6, (dec[0] - true_dec) * 3.6e6))
    rms = {used: np.sqrt(np.mean(np.square(values))) for used, values in off.items()}
    assert len(off[True]) == 27
    # Measured 32 mas without and 23 mas with the offsets; exposures are good to some 25 mas.
    assert rms[True] < 0.85 * rms[False]
    assert rms[True] < 30.0


def test_masks_of_bits_are_refused_by_version(copy, tmp_path):
    geometry = archive.build_archive(copy, tmp_path / "built")
    (row,) = rows_of(tmp_path / "built", "z", geometry)
    with fitsio.FITS(str(copy / row["image_filename"]), "rw") as fits:
        fits[0].write_key("PLVER", "V2.3")
    with pytest.raises(ProductError, match="bits, not codes"):
        convert(copy, row)


def test_planes_of_different_shape_are_refused(copy, tmp_path):
    geometry = archive.build_archive(copy, tmp_path / "built")
    (row,) = rows_of(tmp_path / "built", "z", geometry)
    path = next(copy.rglob("*_oow_*"))
    weight, header = fitsio.read(path, ext=1, header=True)
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        fits.write(None)
        fits.write(weight[:-1], extname=header["EXTNAME"])
    with pytest.raises(ProductError, match="shape"):
        convert(copy, row)
