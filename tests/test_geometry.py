"""Tile geometry: the pixel grid, the JSON every later step reads, and rows the archive may give."""

import json

import numpy as np
import pytest

from balrogutils.archive.geometry import Geometry
from balrogutils.errors import ArchiveError, ProductError


def tile(**changes):
    settings = {
        "tilename": "DES0239+0216",
        "ra_cent": 39.9,
        "dec_cent": 2.28,
        "naxis1": 1100,
        "naxis2": 1000,
        "pixelscale": 0.263,
    }
    return Geometry.tangent(**(settings | changes))


def test_what_is_no_geometry_is_refused(tmp_path):
    path = tmp_path / "geometry.json"
    with pytest.raises(ProductError, match="not there"):
        Geometry.read(path)
    for text in ("", "{", "[]", '{"tilename": "x"}', '{"unknown": 1}'):
        path.write_text(text)
        with pytest.raises(ProductError, match="cannot be read"):
            Geometry.read(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("naxis1", None), ("ra_cent", "x"), ("pixelscale", 0.0), ("naxis2", 0), ("naxis1", 10**8), ("dec_cent", np.nan)],
)
def test_a_row_without_what_it_takes_is_refused(key, value):
    row = {"tilename": "T", "ra_cent": 1.0, "dec_cent": 2.0, "naxis1": 10, "naxis2": 10, "pixelscale": 0.263}
    with pytest.raises(ArchiveError, match="geometry"):
        Geometry.from_row(row | {key: value})
    del row[key]
    with pytest.raises(ArchiveError, match=key):
        Geometry.from_row(row)


def test_written_and_read_again_it_is_the_same(tmp_path):
    geometry = tile(extmag={"g": 0.1, "Y": 0.03})
    path = tmp_path / "lists" / "geometry.json"
    geometry.write(path)
    assert Geometry.read(path) == geometry
    assert json.loads(path.read_text())["extfact"]["g"] == pytest.approx(10**-0.04)


def test_the_same_geometry_is_not_written_again(tmp_path):
    path = tmp_path / "geometry.json"
    tile().write(path)
    before = path.stat().st_mtime_ns, path.stat().st_ino
    tile().write(path)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    tile(naxis1=900).write(path)
    assert Geometry.read(path).naxis1 == 900


@pytest.mark.parametrize("ra", [0.0, 0.01, 39.9, 359.99])
@pytest.mark.parametrize("dec", [-89.5, -60.0, 0.0, 2.28])
def test_the_centre_is_the_middle_pixel_and_the_corners_are_the_corner_pixels(ra, dec):
    geometry = tile(ra_cent=ra, dec_cent=dec)
    row, col = geometry.wcs().sky_to_pixel(ra, dec)
    np.testing.assert_allclose([row[0], col[0]], [499.5, 549.5], atol=1e-6)
    corners = [(getattr(geometry, f"rac{i}"), getattr(geometry, f"decc{i}")) for i in range(1, 5)]
    rows, cols = geometry.wcs().sky_to_pixel(*np.transpose(corners))
    np.testing.assert_allclose(rows, [0, 0, 999, 999], atol=1e-5)
    np.testing.assert_allclose(cols, [0, 1099, 1099, 0], atol=1e-5)
    assert geometry.contains(ra, dec)
    assert not geometry.contains((ra + 180) % 360, -dec)
    # Half a diagonal of 1100 x 1000 pixels of 0.263 arcsec, corner pixels counted to their middle.
    assert geometry.radius == pytest.approx(np.hypot(1099, 999) / 2 * 0.263 / 3600, rel=1e-5)


def test_the_unique_area_crosses_zero_as_the_survey_writes_it():
    geometry = tile(ra_cent=0.0)
    assert geometry.uramin > 359.9
    assert geometry.uramax < 0.1
    width = (geometry.uramax - geometry.uramin) % 360 * np.cos(np.deg2rad(geometry.dec_cent)) * 3600 / 0.263
    assert width == pytest.approx(1100, rel=1e-5)


def test_numbers_of_the_row_are_kept_and_missing_ones_filled():
    whole = tile()
    row = {
        "tilename": "T",
        "ra_cent": 39.9,
        "dec_cent": 2.28,
        "naxis1": 1100,
        "naxis2": 1000,
        "pixelscale": 0.263,
        "id": 5,
    }
    filled = Geometry.from_row(row | {"uramin": 39.87, "crpix1": None}, extmag={"g": 0.2})
    assert filled.uramin == 39.87
    assert filled.uramax == whole.uramax
    assert filled.crpix1 == whole.crpix1 == 550.5
    assert filled.tileid == 5
    assert filled.extfact == {"g": pytest.approx(10**-0.08)}
    assert Geometry.from_row(row, extfact={"g": 0.5}, extmag={"g": 0.2}).extfact == {"g": 0.5}
