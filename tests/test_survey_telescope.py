import re

import numpy as np
import pytest
from test_survey_parameters import DEFAULT

from balrogutils.errors import ConfigError
from balrogutils.survey import places
from balrogutils.survey.parameters import SurveyParameters
from balrogutils.survey.telescope import chips, exposures, geometry_of
from balrogutils.survey.tiny import tiny_survey


@pytest.fixture(scope="module")
def default():
    survey = SurveyParameters.load(DEFAULT)
    return survey, chips(survey)


def test_pointings_that_miss_a_tile_are_refused():
    with pytest.raises(ConfigError, match="no CCD"):
        chips(tiny_survey(dithers=[(3600.0, 0.0)]))


def test_only_ccds_that_overlap_a_tile_are_kept(default):
    survey, found = default
    assert len(found) <= 80
    per_exposure = len(survey.bands) * len(survey.dithers) * 4
    assert len(found) < per_exposure
    for chip in found:
        assert chip.tiles


def test_every_point_of_a_tile_is_seen_often_and_gaps_cross_it(default):
    survey, found = default
    edge = survey.camera.edge
    for tile in survey.tiles:
        geometry = geometry_of(tile, survey)
        row, col = (grid.ravel() for grid in np.mgrid[0 : geometry.naxis2 : 10, 0 : geometry.naxis1 : 10])
        ra, dec = geometry.wcs().pixel_to_sky(row, col)
        for band in survey.bands:
            count = np.zeros(len(ra))
            for chip in found:
                if chip.band == band and tile.name in chip.tiles:
                    r, c = chip.wcs.sky_to_pixel(ra, dec)
                    rows, cols = chip.shape
                    count += (r > edge) & (r < rows - 1 - edge) & (c > edge) & (c < cols - 1 - edge)
            # Five exposures; where two gaps cross the CCD edge a few pixels keep two.
            assert count.min() >= 2
            assert np.mean(count < 3) < 0.002
            assert np.mean(count == 5) > 0.6
            assert np.mean(count < 5) > 0.1


def test_neighbours_share_exposures(default):
    assert any(len(chip.tiles) == 2 for chip in default[1])


def test_the_wcs_is_as_decam_and_distorted(default):
    for chip in default[1][::13]:
        jacobian = chip.wcs.jacobian(500, 500)
        scale = default[0].camera.pixel_scale
        # x runs south and y runs east: v falls with the column, u (west) with the row.
        np.testing.assert_allclose([jacobian.dudrow[0], jacobian.dvdcol[0]], -scale, rtol=5e-3)
        assert abs(jacobian.dudcol[0]) < 0.01 * scale
        corner = chip.wcs.jacobian(0, 0)
        assert abs(corner.dudrow[0] - jacobian.dudrow[0]) > 1e-6 * scale
        assert chip.true_wcs["CTYPE1"] == "RA---TPV"
        row, col = chip.wcs.sky_to_pixel(*chip.wcs.pixel_to_sky([3.0, 700.0], [900.0, 20.0]))
        np.testing.assert_allclose([row, col], [[3.0, 700.0], [900.0, 20.0]], atol=1e-5)


def test_the_header_wcs_is_off_by_a_tenth_of_an_arcsec(default):
    from balrogutils.wcs import ImageWCS

    offsets = []
    for chip in default[1][::5]:
        ra, dec = chip.wcs.pixel_to_sky(500, 500)
        header_ra, header_dec = ImageWCS(chip.header_wcs).pixel_to_sky(500, 500)
        offsets.append(3600 * np.hypot((ra - header_ra) * np.cos(np.radians(dec)), dec - header_dec)[0])
    assert 0.05 < np.median(offsets) < 0.15


def test_seeing_spans_its_range_and_varies_over_the_field(default):
    survey, found = default
    for band, filter_ in survey.bands.items():
        fwhm = [exposure.psf.fwhm for exposure in exposures(survey) if exposure.band == band]
        assert 0.85 <= min(fwhm) < max(fwhm) <= 1.25
        assert max(fwhm) - min(fwhm) > 0.15 * filter_.seeing_factor
    size, g1, g2 = found[0].psf_at([0.0, 1059.0], [0.0, 1023.0])
    assert abs(size[0] - size[1]) > 1e-4
    assert np.all(np.hypot(g1, g2) < 0.1)


def test_one_exposure_has_a_satellite(default):
    assert len({chip.exposure.number for chip in default[1] if chip.exposure.streak}) == 1


def test_names_are_those_of_the_survey(default):
    chip = default[1][0]
    files = places.chip_files(chip)
    pattern = r"OPS/finalcut/Y2A1v3/\d{8}-r\d{4}/D\d{8}/p01/red/immask/D\d{8}_g_c\d{2}_r\d{4}p01_immasked\.fits\.fz"
    assert re.fullmatch(pattern, files["immask"].as_posix())
    assert files["psf"].parent.name == "psf"
    head = places.ohead("DES0239+0216", chip)
    assert head.name == f"DES0239+0216_r2577p01_{chip.name[:15]}_scamp.ohead"
    assert head.parent.as_posix() == "OPS/multiepoch/Y3A1/r2577/DES0239+0216/p01/aux"
    assert places.coadd_files("DES0239+0216", "g")["coadd"].name == "DES0239+0216_r2577p01_g.fits.fz"


def test_another_band_or_dither_changes_nothing_of_the_first():
    one = {chip.name: chip.true_wcs for chip in chips(tiny_survey("r"))}
    two = {chip.name: chip.true_wcs for chip in chips(tiny_survey("rz"))}
    assert one.items() <= two.items()
