"""The WCS wrapper: conventions, degenerate input, the Jacobian against differences."""

import numpy as np
import pytest

from balrogutils.errors import ProductError
from balrogutils.wcs import ImageWCS

TAN = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 39.75, "CRVAL2": 2.27, "CRPIX1": 500.5, "CRPIX2": 500.5,
    "CD1_1": -0.263 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.263 / 3600, "CUNIT1": "deg", "CUNIT2": "deg",
}  # fmt: skip
TPV = {
    **TAN, "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "CD1_2": 2e-7, "CD2_1": -3e-7,
    "PV1_0": 1e-5, "PV1_1": 1.001, "PV1_2": 2e-4, "PV1_4": 1e-3, "PV1_5": -2e-3, "PV1_6": 3e-3, "PV1_7": 0.01,
    "PV2_0": -1e-5, "PV2_1": 0.999, "PV2_2": -2e-4, "PV2_4": 2e-3, "PV2_5": 1e-3, "PV2_6": -1e-3, "PV2_7": 0.02,
}  # fmt: skip


def test_a_header_without_wcs_is_refused():
    with pytest.raises(ProductError, match="WCS"):
        ImageWCS({"NAXIS": 2})


def test_a_singular_header_is_refused():
    with pytest.raises(ProductError, match="singular"):
        ImageWCS({**TAN, "CD1_1": 0.0, "CD2_2": 0.0})


def test_the_offset_of_two_wcss_is_the_largest_over_the_image():
    wcs = ImageWCS(TAN)
    assert wcs.offset(wcs, (1000, 1000)) < 1e-9
    assert ImageWCS(TPV).offset(ImageWCS(TPV), (1000, 1000)) < 1e-4
    # A shift of CRPIX moves every pixel alike; a scale moves the corners most: 499.5 sqrt(2) pixels by 1e-4.
    assert ImageWCS({**TAN, "CRPIX1": 500.8, "CRPIX2": 500.9}).offset(wcs, (1000, 1000)) == pytest.approx(0.5, abs=1e-6)
    larger = {**TAN, "CD1_1": TAN["CD1_1"] / 1.0001, "CD2_2": TAN["CD2_2"] / 1.0001}
    assert ImageWCS(larger).offset(wcs, (1000, 1000)) == pytest.approx(499.5 * np.sqrt(2) * 1e-4, rel=1e-4)


def test_no_positions_give_no_positions():
    wcs = ImageWCS(TAN)
    assert wcs.sky_to_pixel([], [])[0].shape == (0,)
    assert wcs.pixel_to_sky([], [])[0].shape == (0,)


def test_pixels_are_zero_offset_rows_and_columns():
    wcs = ImageWCS(TAN)
    row, col = wcs.sky_to_pixel(39.75, 2.27)
    # CRPIX is one-offset, so the reference pixel is 499.5 here.
    assert row[0] == pytest.approx(499.5, abs=1e-6)
    assert col[0] == pytest.approx(499.5, abs=1e-6)
    north = wcs.sky_to_pixel(39.75, 2.27 + 1 / 3600)
    assert north[0][0] - row[0] == pytest.approx(1 / 0.263, rel=1e-5)


@pytest.mark.parametrize("header", [TAN, TPV])
def test_positions_go_round(header):
    wcs = ImageWCS(header)
    rows, cols = np.meshgrid(np.linspace(-5, 1100, 7), np.linspace(-5, 1100, 7))
    ra, dec = wcs.pixel_to_sky(rows.ravel(), cols.ravel())
    back = wcs.sky_to_pixel(ra, dec)
    assert np.abs(back[0] - rows.ravel()).max() < 1e-5
    assert np.abs(back[1] - cols.ravel()).max() < 1e-5


@pytest.mark.parametrize("header", [TAN, TPV])
def test_the_jacobian_is_the_derivative_on_the_tangent_plane(header):
    wcs = ImageWCS(header)
    row, col = 321.0, 777.0
    jac = wcs.jacobian(row, col)
    ra0, dec0 = (np.radians(value[0]) for value in wcs.pixel_to_sky(row, col))

    def plane(r, c):
        ra, dec = (np.radians(value[0]) for value in wcs.pixel_to_sky(r, c))
        cosine = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra - ra0)
        u = -np.cos(dec) * np.sin(ra - ra0) / cosine  # west
        v = (np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(ra - ra0)) / cosine
        return np.degrees(u) * 3600, np.degrees(v) * 3600

    h = 0.5
    (u_up, v_up), (u_down, v_down) = plane(row + h, col), plane(row - h, col)
    (u_right, v_right), (u_left, v_left) = plane(row, col + h), plane(row, col - h)
    differences = (u_up - u_down, u_right - u_left, v_up - v_down, v_right - v_left)
    # Central differences of half a pixel are good to 1e-7 arcsec for these distortions.
    for element, expected in zip(jac, differences, strict=True):
        assert np.ravel(element)[0] == pytest.approx(expected, abs=2.63e-7)
    assert np.ravel(jac.dudcol)[0] > 0  # column runs west when RA runs east to the left
