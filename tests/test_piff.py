"""Piff models: real ones of DES against the stamps of the Piff library, and what goes wrong with them."""

from pathlib import Path

import fitsio
import galsim
import numpy as np
import pytest
from piff_models import SIZE, moffat, write_piff

from balrogutils.errors import ProductError
from balrogutils.exposures.scamphead import read_ohead
from balrogutils.piff import Piff
from balrogutils.psf import PSFEx
from balrogutils.wcs import ImageWCS

DES = Path(__file__).parent / "data" / "des"
Y6 = DES / "D00572501_z_c01_r5473p01_piff-model.fits"
Y3 = DES / "D00240560_r_c01_r2362p01_piff.fits"
STAMPS = DES / "piff_stamps.npz"
SHAPE = (4096, 2048)
SIDE = 19


def wcs_of(file):
    """The WCS the reference stamps were drawn with: the refined one of the Y6 CCD, a plain one for Y3."""
    if file == Y6:
        return ImageWCS(read_ohead(DES / "DES2041-5248_r4575p02_D00572501_z_c01_scamp.ohead"))
    step = 0.263 / 3600
    return ImageWCS(
        {
            **{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg"},
            **{"CRVAL1": 37.495, "CRVAL2": -5.125, "CRPIX1": 1249.0, "CRPIX2": 84.0},
            **{"CD1_1": 0.0, "CD1_2": step, "CD2_1": -step, "CD2_2": 0.0},
        }
    )


def copy(tmp_path, **changes):
    """The Y6 model with other values in some tables: extension to {column: value}, or None to leave it out."""
    out = tmp_path / "model.fits"
    with fitsio.FITS(str(Y6)) as fits, fitsio.FITS(str(out), "rw", clobber=True) as new:
        for hdu in fits[1:]:
            name = hdu.get_extname()
            change = changes.get(name, {})
            if change is None:
                continue
            rows = hdu.read()
            columns = {column: rows[column] for column in rows.dtype.names} | {
                column: np.array(value)[np.newaxis] for column, value in change.items()
            }
            new.write({column: value for column, value in columns.items() if value.size}, extname=name)
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"psf_interp_solution": None}, "not a Piff model"),
        ({"psf_model": None}, "not a Piff model"),
        ({"psf_model": {"type": b"Moffat"}}, "psf_model is Moffat, and only PixelGrid"),
        ({"psf_interp": {"type": b"GPInterp"}}, "psf_interp is GPInterp, and only BasisPolynomial and Mean"),
        ({"psf": {"type": b"SingleChip"}}, "psf is SingleChip, and only Simple"),
        ({"psf_interp": {"keys": np.array([b"u", b"A_COLOR", b"GI_COLOR"])}}, "only one colour"),
        ({"psf_interp_solution": {"q": np.full((289, 16), np.nan)}}, "damaged Piff model"),
        ({"psf_interp_solution": {"q": np.ones((289, 15))}}, "damaged Piff model"),
        ({"psf_model": {"size": 16}}, "damaged Piff model"),
        ({"psf_model": {"size": -17}}, "damaged Piff model"),
        ({"psf_model": {"scale": 0.0}}, "damaged Piff model"),
        ({"psf_model": {"scale": np.inf}}, "damaged Piff model"),
        ({"psf_wcs": {"dec": 1e9}}, "damaged Piff model"),
        ({"psf_model": {"interp": b"galsim.Foo()"}}, r"interpolant is galsim.Foo\(\)"),
        ({"psf_model": {"interp": b"Lanczos(0)"}}, "interpolant is Lanczos"),
        ({"psf_model": {"interp": b"Lanczos(1000000)"}}, "interpolant is Lanczos"),
        ({"psf_interp": {"order": 10**6}}, "polynomial is of order 1000000"),
    ],
)
def test_a_damaged_model_or_one_of_another_kind_is_refused(tmp_path, change, message):
    with pytest.raises(ProductError, match=message):
        Piff.read(copy(tmp_path, **change))


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ProductError, match="not there"):
        Piff.read(tmp_path / "absent.fits")
    (tmp_path / "text.fits").write_text("no FITS")
    with pytest.raises(ProductError, match="not a Piff model"):
        Piff.read(tmp_path / "text.fits")
    with pytest.raises(ProductError, match="not a Piff model"):
        Piff.read(DES / "D00572501_z_c01_r3624p01_psfexcat.psf")


def test_a_colour_is_asked_for():
    model = Piff.read(Y6)
    assert (model.color_key, Piff.read(Y3).color_key) == ("GI_COLOR", None)
    with pytest.raises(ValueError, match="depends on GI_COLOR"):
        model.on(wcs_of(Y6), SHAPE).profile(100.0, 100.0)


@pytest.mark.parametrize("file", [Y6, Y3], ids=["Y6", "Y3"])
def test_stamps_equal_those_of_the_piff_library(file):
    # Drawn by Piff 1.7.0 from the whole files with the same WCS. The Y3 model is of a version that leaves three grid
    # values out; they come back from sums of 286 others.
    reference = np.load(STAMPS)
    psf = Piff.read(file).on(wcs_of(file), SHAPE)
    names = [name for name in reference if name.startswith("y6" if file == Y6 else "y3")]
    assert len(names) == (9 if file == Y6 else 3)
    for name in names:
        _, x, y, color = name.split("_")
        one = psf if color == "None" else psf.seen(float(color))
        offset = float(x) - round(float(x)), float(y) - round(float(y))
        stamp = galsim.ImageD(SIDE, SIDE, scale=1.0)
        one.profile(float(y) - 1, float(x) - 1).drawImage(stamp, offset=offset, method="no_pixel")
        want = reference[name]
        np.testing.assert_allclose(stamp.array, want, rtol=0, atol=1e-10 * want.max(), err_msg=name)


def test_a_colour_beyond_the_stars_of_the_model_is_taken_at_their_edge():
    psf = Piff.read(Y6).on(wcs_of(Y6), SHAPE)
    edge = psf.model.color_range[1]
    assert 3.2 < edge < 3.3
    assert psf.seen(9.0).profile(50.0, 60.0) == psf.seen(edge).profile(50.0, 60.0)
    assert psf.seen(edge - 0.1).profile(50.0, 60.0) != psf.seen(edge).profile(50.0, 60.0)


def test_piff_and_psfex_models_of_one_ccd_are_of_one_size():
    # Of the same stars; the two programs agree to 1 % in the widths of DES (Jarvis et al. 2021, 0.6 % on this CCD).
    piff = Piff.read(Y6).on(wcs_of(Y6), SHAPE).seen(1.5)
    psfex = PSFEx.read(DES / "D00572501_z_c01_r3624p01_psfexcat.psf")
    for row, col in [(300.0, 200.0), (2000.0, 1000.0), (3900.0, 1900.0)]:
        widths = [
            psf.profile(row, col).drawImage(nx=51, ny=51, scale=1.0, method="no_pixel").FindAdaptiveMom().moments_sigma
            for psf in (piff, psfex)
        ]
        assert widths[0] == pytest.approx(widths[1], rel=0.01)


def test_reach_holds_the_model_wherever_its_image_turns():
    model = Piff.read(Y3)
    whole = (0.5 * 17 + 3) * 0.3 / 0.263
    assert model.on(wcs_of(Y3), SHAPE).reach == pytest.approx(whole, rel=1e-3)
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg", "CRPIX1": 1.0, "CRPIX2": 1.0}
    step = 0.263 / 3600 / np.sqrt(2)
    turned = ImageWCS(
        cards | {"CRVAL1": 37.5, "CRVAL2": -5.1, "CD1_1": -step, "CD1_2": step, "CD2_1": step, "CD2_2": step}
    )
    assert model.on(turned, (100, 100)).reach == pytest.approx(np.sqrt(2) * whole, rel=1e-3)


def width(psf, at, color=None):
    one = psf if color is None else psf.seen(color)
    return one.profile(*at).drawImage(nx=41, ny=41, scale=1.0, method="no_pixel").FindAdaptiveMom().moments_sigma


def test_a_constant_model(tmp_path):
    write_piff(tmp_path / "mean.fits", [moffat(1.0)], None, 0)
    model = Piff.read(tmp_path / "mean.fits")
    assert (model.solution.shape, model.color_key, model.interpolant) == ((SIZE**2, 1), None, "Lanczos(3)")
    psf = model.on(wcs_of(Y3), SHAPE)
    assert width(psf, (10.0, 10.0)) == pytest.approx(width(psf, (4000.0, 2000.0)), rel=1e-3)


def test_a_polynomial_of_pixels_and_colour(tmp_path):
    # Terms 1, c, x: along x the width grows from 1 to 1.4 arcsec, whatever the colour.
    wide, narrow = moffat(1.4), moffat(1.0)
    file = tmp_path / "xc.fits"
    write_piff(file, [narrow, 0 * wide, (wide - narrow) / 2048], ["x", "ri_color"], [1, 1], (0.0, 2.0))
    psf = Piff.read(file).on(wcs_of(Y3), SHAPE)
    assert psf.model.color_key == "ri_color"
    np.testing.assert_array_equal(psf.model.powers, [[0, 0], [0, 1], [1, 0]])
    assert width(psf, (10.0, 2047.0), 1.0) == pytest.approx(1.4 * width(psf, (10.0, 0.0), 1.0), rel=0.02)
    assert width(psf, (3000.0, 2047.0), 0.3) == pytest.approx(width(psf, (10.0, 2047.0), 1.9), rel=1e-3)
