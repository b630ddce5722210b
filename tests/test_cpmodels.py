"""PSF and sky models of the Community Pipeline, both layouts, on real files; the mean PSF of a coadd."""

from pathlib import Path

import fitsio
import galsim
import galsim.des
import numpy as np
import pytest
from scipy.interpolate import RectBivariateSpline

from balrogutils.errors import ProductError
from balrogutils.exposures.cpmodels import PlacedPSF, mean_psf, read_psf, read_sky, unit_sum
from balrogutils.psf import PSFEx
from balrogutils.wcs import ImageWCS

HERE = Path(__file__).parent
GRZ = HERE.parent / "inputs" / "decam_grz_9exp" / "calib"
STARS = HERE / "data" / "decam_satstars_z_1exp" / "calib"
ALONE = sorted(GRZ.rglob("*-N2-psfex.fits"))[0]
(MERGED,) = STARS.rglob("*psfex.fits")
SKIES = sorted(GRZ.rglob("*splinesky.fits"))
MODELS = [(ALONE, 630780, "N2"), (MERGED, 396388, "S11")]


def header_wcs(rotation=0.0, scale=0.263, flip=False, size=100):
    c, s = np.cos(np.deg2rad(rotation)) * scale / 3600, np.sin(np.deg2rad(rotation)) * scale / 3600
    sign = 1 if flip else -1
    return ImageWCS(
        {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CRVAL1": 30.0,
            "CRVAL2": -40.0,
            "CRPIX1": size / 2,
            "CRPIX2": size / 2,
        }
        | {"CD1_1": sign * c, "CD1_2": -sign * s, "CD2_1": s, "CD2_2": c}
    )


def elongated(e1=0.3, size=31, fwhm=4.0):
    psf = galsim.Moffat(beta=3, fwhm=fwhm).shear(e1=e1)
    stamp = psf.drawImage(nx=size, ny=size, scale=1.0, dtype=float).array
    return PSFEx(stamp[np.newaxis] / stamp.sum(), 0, (0.0, 0.0), (1.0, 1.0), 1.0, fwhm)


def shape(stamp):
    moments = galsim.hsm.FindAdaptiveMom(galsim.Image(stamp))
    return moments.observed_shape.e1, moments.observed_shape.e2, moments.moments_sigma


@pytest.mark.parametrize(("path", "expnum", "ccd"), MODELS)
def test_both_layouts_become_models_that_galsim_opens(tmp_path, path, expnum, ccd):
    model = read_psf(path, expnum, ccd)
    target = tmp_path / "x_psfexcat.psf"
    model.write(target)
    reader = galsim.des.DES_PSFEx(str(target))
    raw = fitsio.read(path, ext=1)
    masks = raw["psf_mask"][0].astype("f8")
    for x, y in ((1.0, 1.0), (125.0, 60.0), (250.0, 250.0)):
        array = reader.getPSFArray(galsim.PositionD(x, y))
        # Sum 1 at every position, where the raw model's is 0.5 to 4 % more and varies.
        assert array.sum() == pytest.approx(1.0, abs=1e-5)
        p, q = (x - model.zero[0]) / model.scale[0], (y - model.zero[1]) / model.scale[1]
        original = np.tensordot([1, p, p * p, q, p * q, q * q], masks, axes=1)
        # Renormalising to first order changes the shape in second order only: below 1e-4 of the peak.
        np.testing.assert_allclose(array, original / original.sum(), atol=1e-4 * array.max())


@pytest.mark.parametrize(("path", "expnum", "ccd"), MODELS)
def test_the_raw_models_sum_to_more_than_one(path, expnum, ccd):
    masks = fitsio.read(path, ext=1)["psf_mask"][0]
    assert 1.003 < masks[0].sum() < 1.04
    np.testing.assert_allclose(read_psf(path, expnum, ccd).masks.sum(axis=(1, 2)), [1, 0, 0, 0, 0, 0], atol=1e-12)


def test_the_model_fits_a_real_star():
    # A star of the field, 18.7 mag: the best-fitting scaled model must leave few per cent of the flux.
    (image,) = (GRZ.parent / "images").rglob("c4d_180128*ooi*.fits")
    pixels, header = fitsio.read(image, ext=1, header=True)
    row, col = (float(x[0]) for x in ImageWCS(header).sky_to_pixel(186.73606, 25.457405))
    model = read_psf(next(GRZ.rglob("c4d_180128*psfex.fits")), 716705, "N3")
    r, c = round(row), round(col)
    stamp = pixels[r - 12 : r + 13, c - 12 : c + 13] - np.median(pixels)
    psf = galsim.Image(
        model.profile(row, col).shift(col - c, row - r).drawImage(nx=25, ny=25, scale=1, method="no_pixel").array
    )
    flux = (psf.array * stamp).sum() / (psf.array**2).sum()
    left = stamp - flux * psf.array
    assert flux > 1000
    assert np.abs(left).sum() < 3.0 * np.sqrt(2 / np.pi) * 6.83 * left.size
    assert abs(left.sum()) < 0.05 * flux


@pytest.mark.parametrize("damage", ["nan", "degree", "column", "zero", "empty"])
def test_damaged_models_are_refused(tmp_path, damage):
    rows = fitsio.read(MERGED, ext=1)
    path = tmp_path / "psf.fits"
    if damage == "nan":
        rows["psf_mask"][0, 0, 3, 3] = np.nan
    elif damage == "degree":
        rows["poldeg1"] = 3
    elif damage == "zero":
        rows["psf_mask"] = 0
    elif damage == "column":
        rows = rows[[name for name in rows.dtype.names if name != "polzero2"]].copy()
    elif damage == "empty":
        rows = rows[:0]
    fitsio.write(path, rows)
    with pytest.raises(ProductError):
        read_psf(path, 396388, "S11")


def test_a_merged_table_gives_the_row_of_the_ccd(tmp_path):
    one = fitsio.read(MERGED, ext=1)
    rows = np.concatenate([one, one, one])
    rows["ccdname"] = ["N1", "S11", "S2"]
    rows["psf_mask"][1] *= 2
    rows["psf_fwhm"] = [1, 2, 3]
    path = tmp_path / "psf.fits"
    fitsio.write(path, rows)
    assert read_psf(path, 396388, "S11").fwhm == 2
    with pytest.raises(ProductError, match="no row of this CCD"):
        read_psf(path, 396388, "S9")
    with pytest.raises(ProductError, match="no row of this CCD"):
        read_psf(path, 1, "S11")


def test_unit_sum_leaves_a_unit_model_alone():
    model = read_psf(ALONE, 630780, "N2")
    np.testing.assert_allclose(unit_sum(model).masks, model.masks, atol=1e-15)


@pytest.mark.parametrize("path", SKIES, ids=lambda path: path.name[4:17])
def test_the_sky_is_that_of_the_image(path):
    name = path.name.replace("-splinesky.fits", "").replace("_ls9-", "_ls9.")
    (image,) = (GRZ.parent / "images").rglob(name + ".fits")
    pixels = fitsio.read(image, ext=1)
    good = fitsio.read(str(image).replace("_ooi_", "_ood_"), ext=1) == 0
    sky = read_sky(path, 0, "").image(pixels.shape)
    assert sky.shape == pixels.shape
    noise = 1.4826 * np.median(np.abs(pixels - sky)[good])
    # Stated for these fields: median and sky model agree to 0.1 sigma.
    assert abs(np.median((pixels - sky)[good])) < 0.11 * noise


def test_the_spline_is_evaluated_at_the_offset_pixel():
    sky = read_sky(SKIES[0], 0, "")
    spline = RectBivariateSpline(sky.x, sky.y, sky.values.T)
    image = sky.image((3, 4))
    assert image[2, 1] == np.float32(spline(1 + sky.x0, 2 + sky.y0)[0, 0])
    assert sky.x0 != sky.y0


@pytest.mark.parametrize("damage", ["nan", "order", "grid", "column"])
def test_damaged_skies_are_refused(tmp_path, damage):
    rows = fitsio.read(SKIES[0], ext=1)
    if damage == "nan":
        rows["gridvals"][0, 2, 2] = np.nan
    elif damage == "order":
        rows["order"] = 20
    elif damage == "grid":
        rows["xgrid"][0, 3] = 0
    else:
        rows = rows[[name for name in rows.dtype.names if name != "x0"]].copy()
    fitsio.write(tmp_path / "sky.fits", rows)
    with pytest.raises(ProductError):
        read_sky(tmp_path / "sky.fits", 0, "")


def test_a_mean_without_weight_is_refused():
    with pytest.raises(ValueError, match="weight"):
        mean_psf([], 30, -40, header_wcs())
    with pytest.raises(ValueError, match="weight"):
        mean_psf([PlacedPSF(elongated(), header_wcs(), (100, 100), 0.0)], 30, -40, header_wcs())


@pytest.mark.parametrize(
    ("rotation", "flip", "expected"),
    [(0, False, (1, 0)), (90, False, (-1, 0)), (45, False, (0, 1)), (45, True, (0, 1))],
)
def test_the_mean_turns_models_into_the_coadds_frame(rotation, flip, expected):
    # Without a turn nothing changes; a quarter turn changes the sign of e1; an eighth turn makes e1 into e2.
    one = elongated()
    e1, _, sigma = shape(one.grid(50, 50))
    mean = mean_psf(
        [PlacedPSF(one, header_wcs(rotation, flip=flip), (100, 100), 2.0)], 30.0, -40.0, header_wcs(), size=31
    )
    m1, m2, mean_sigma = shape(mean.grid(0, 0))
    assert mean.masks.sum() == pytest.approx(1, abs=1e-12)
    assert mean_sigma == pytest.approx(sigma, rel=0.01)
    size = np.hypot(m1, m2)
    assert size == pytest.approx(abs(e1), rel=0.02)
    assert abs(abs(m1) - abs(expected[0]) * size) < 0.01
    assert abs(abs(m2) - abs(expected[1]) * size) < 0.01
    if expected[0]:
        assert np.sign(m1) == expected[0] * np.sign(e1)


def test_the_turn_agrees_with_drawing_on_the_sky():
    # The sign of e2 after a turn, from a picture: the same sky seen by both frames.
    sky = galsim.Moffat(beta=3, fwhm=1.1).shear(g1=0.1, g2=0.2)
    source, target = header_wcs(33.0, flip=True), header_wcs()
    local = source.galsim.local(image_pos=galsim.PositionD(50, 50))
    stamp = sky.drawImage(nx=31, ny=31, wcs=local, dtype=float).array
    model = PSFEx(stamp[np.newaxis] / stamp.sum(), 0, (0.0, 0.0), (1.0, 1.0), 1.0, 4.2)
    mean = mean_psf([PlacedPSF(model, source, (100, 100), 1.0)], 30.0, -40.0, target, size=31)
    want = sky.drawImage(nx=31, ny=31, wcs=target.galsim.local(image_pos=galsim.PositionD(50, 50)), dtype=float).array
    # Both carry a square pixel, turned by 33 degrees against each other: a difference of second order in the pixel.
    np.testing.assert_allclose(mean.masks[0], want / want.sum(), atol=0.01 * want.max() / want.sum())


def test_weights_and_images_beside_the_position_count_as_they_should():
    sharp, broad = elongated(0, fwhm=3.0), elongated(0, fwhm=5.0)
    here = header_wcs()
    away = ImageWCS(
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 30.0, "CRVAL2": -40.0, "CRPIX1": -50.0, "CRPIX2": 50.0}
        | {"CD1_1": -0.263 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.263 / 3600}
    )
    placed = [
        PlacedPSF(sharp, here, (100, 100), 3.0),
        PlacedPSF(broad, here, (100, 100), 1.0),
        PlacedPSF(broad, away, (100, 100), 50.0),
    ]
    mean = mean_psf(placed, 30.0, -40.0, here, size=31)
    assert mean.fwhm == pytest.approx(0.75 * 3 + 0.25 * 5, rel=1e-6)
    expected = 0.75 * sharp.masks[0] + 0.25 * broad.masks[0]
    np.testing.assert_allclose(mean.masks[0], expected, atol=0.02 * expected.max())
    assert mean_psf(placed[2:], 30.0, -40.0, here, size=31).fwhm == pytest.approx(5, rel=1e-6)
