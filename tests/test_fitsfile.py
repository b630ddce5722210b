"""FITS files: checksums, no clocks, whole or absent, packed with a named dither seed."""

import fitsio
import numpy as np
import pytest
from astropy.io import fits as astropy_fits

from balrogutils.errors import ProductError, ToolError
from balrogutils.fitsfile import Plane, Table, pack, read_header, read_image, read_table, write_images, write_tables


def cards(path):
    """Every header card but DATE, CHECKSUM (and ZHECKSUM, of the clock in its comment) and HISTORY; the data sum."""
    with astropy_fits.open(path, disable_image_compression=True) as hdus:
        return [
            [(k, v) for k, v in hdu.header.items() if k not in ("DATE", "CHECKSUM", "ZHECKSUM", "HISTORY", "COMMENT")]
            for hdu in hdus
        ]


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(ProductError, match=r"absent\.fits"):
        read_image(tmp_path / "absent.fits", 0)
    (tmp_path / "text.fits").write_text("no FITS")
    with pytest.raises(ProductError, match=r"text\.fits"):
        read_header(tmp_path / "text.fits", 0)
    write_images(tmp_path / "a.fits", [Plane("SCI", np.zeros((100, 100), "f4"))])
    with pytest.raises(ProductError, match="no HDU 'WGT'"):
        read_image(tmp_path / "a.fits", "WGT")
    (tmp_path / "short.fits").write_bytes((tmp_path / "a.fits").read_bytes()[:9000])
    with pytest.raises(ProductError):
        read_image(tmp_path / "short.fits", "SCI")


def test_one_pixel_and_nan_survive(tmp_path):
    write_images(tmp_path / "a.fits", [Plane("SCI", np.full((1, 1), np.nan, "f4"))])
    assert np.isnan(read_image(tmp_path / "a.fits", "SCI"))


def test_planes_keep_names_order_types_and_cards(tmp_path):
    header = fitsio.FITSHDR(
        [
            {"name": "EXPNUM", "value": 7, "comment": "exposure"},
            {"name": "EXTNAME", "value": "OLD"},
            {"name": "CD1_1", "value": -7.3e-5},
        ]
    )
    planes = [
        Plane("SCI", np.arange(6, dtype="f4").reshape(2, 3), header),
        Plane("MSK", np.arange(6, dtype="i2").reshape(2, 3)),
    ]
    write_images(tmp_path / "a.fits", planes)
    with astropy_fits.open(tmp_path / "a.fits", checksum=True) as hdus:
        assert [hdu.name for hdu in hdus] == ["SCI", "MSK"]
        assert hdus["SCI"].data.dtype == np.dtype(">f4")
        assert hdus["MSK"].data.dtype == np.dtype(">i2")
        assert hdus[0].header["EXPNUM"] == 7
        assert hdus[0].header["CD1_1"] == -7.3e-5
        for hdu in hdus:
            assert "CHECKSUM" in hdu.header
            assert "DATE" not in hdu.header
    assert np.array_equal(read_image(tmp_path / "a.fits", "MSK"), planes[1].pixels)


def test_tables_keep_units_and_vectors(tmp_path):
    rows = np.zeros(2, dtype=[("id", "i8"), ("ra", "f8"), ("flux", "f8", (4,))])
    write_tables(tmp_path / "t.fits", [Table("CAT", rows, {"ra": "deg"}, {"TILENAME": "DES0239+0216"})])
    with astropy_fits.open(tmp_path / "t.fits", checksum=True) as hdus:
        assert hdus["CAT"].columns["ra"].unit == "deg"
        assert hdus["CAT"].header["TILENAME"] == "DES0239+0216"
    assert read_table(tmp_path / "t.fits", "CAT")["flux"].shape == (2, 4)


def test_packing_is_repeatable_and_keeps_zeros_and_integers(tmp_path):
    noise = np.random.default_rng(1).normal(0, 10, (64, 200)).astype("f4")
    noise[10:20] = 0
    labels = np.arange(64 * 200, dtype="i4").reshape(64, 200)
    for name in ("a", "b"):
        write_images(tmp_path / f"{name}.fits", [Plane("SCI", noise), Plane("SEG", labels)])
        pack(tmp_path / f"{name}.fits", tmp_path / f"{name}.fits.fz", "DES0239+0216", "g")
    assert cards(tmp_path / "a.fits.fz") == cards(tmp_path / "b.fits.fz")
    unpacked = read_image(tmp_path / "a.fits.fz", "SCI")
    assert np.all(unpacked[10:20] == 0)
    assert np.array_equal(read_image(tmp_path / "a.fits.fz", "SEG"), labels)
    # A quantum is the noise over 4, so no value moves by more than half of that.
    assert np.abs(unpacked - noise).max() < 10 / 4 / 2 * 1.3
    pack(tmp_path / "a.fits", tmp_path / "c.fits.fz", "DES0239+0216", "r")
    assert not np.array_equal(read_image(tmp_path / "c.fits.fz", "SCI"), unpacked)


def test_a_file_that_cannot_be_packed(tmp_path):
    (tmp_path / "empty.fits").write_text("")
    with pytest.raises((ToolError, OSError)):
        pack(tmp_path / "empty.fits", tmp_path / "empty.fits.fz", "x")
    assert not (tmp_path / "empty.fits.fz").exists()
