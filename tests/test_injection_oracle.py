"""What is drawn against what GalSim draws by itself, on blank double-precision canvases."""

from types import SimpleNamespace

import galsim
import galsim.des
import numpy as np
import pytest
from injection_tile import header, psf_model

from balrogutils.injection import drawing
from balrogutils.injection.planning import _dtype
from balrogutils.injection.profiles import bulge_disk_radius
from balrogutils.injection.shapes import Shapes
from balrogutils.settings.injection import Injection
from balrogutils.wcs import ImageWCS

SHAPE = (260, 260)
GS = galsim.GSParams()
EXTRA = ("sersic_n", "truncation", "bulge_fraction", "bulge_n", "bulge_r50_arcsec", "disk_r50_arcsec", "knots")


@pytest.fixture(scope="module")
def telescope(tmp_path_factory):
    """A chip: its WCS and PSF as we read them, and as GalSim reads the same files."""
    file = tmp_path_factory.mktemp("psf") / "chip.psf"
    psf = psf_model()
    psf.write(file)
    cards = header(SHAPE, (0, 0), "r", 1)
    theirs = galsim.GSFitsWCS(
        header=galsim.FitsHeader(header={card["name"]: card["value"] for card in cards.records()})
    )
    return SimpleNamespace(
        psf=type(psf).read(file), wcs=ImageWCS(cards), their_psf=galsim.des.DES_PSFEx(str(file)), their_wcs=theirs
    )


def planned(model, **values):
    row = np.zeros(1, _dtype("r", EXTRA, model_width=10))
    row["model"], row["magnification"] = model, 1.0
    for name, value in values.items():
        row[name] = value
    return row[0]


def shapes():
    settings = Injection.model_validate(
        {
            "input": {"des_star_catalog": {"base_dir": "x"}},
            "gal": {"type": "desStar"},
            "psf": {"type": "DES_PSFEx"},
            "stamp": {"draw_method": "no_pixel"},
            "image": {"type": "Balrog", "n_objects": 1},
        }
    )
    return Shapes(settings, None, "T", "0", 1)


def ours(telescope, row, at, flux=1000.0):
    """The object on a canvas of the chip's size."""
    maker = shapes()
    local = telescope.wcs.galsim.local(image_pos=galsim.PositionD(at[1] + 1, at[0] + 1))
    half = drawing.stamp_half(maker.reach(row), telescope.psf, local)
    stamp = drawing.draw(row, maker.profile(row), at, half, telescope.psf, telescope.wcs, flux, GS)
    canvas = np.zeros(SHAPE)
    on, own = stamp.overlap(SHAPE)
    canvas[on] = stamp.pixels[own]
    return canvas


def theirs(telescope, profile, at, bounds, flux=1000.0):
    """The object as GalSim draws it by itself from the same files: its own PSF, WCS and image, of given bounds."""
    position = galsim.PositionD(at[1] + 1, at[0] + 1)
    psf = telescope.their_psf.getPSF(position)
    local = telescope.their_wcs.local(image_pos=position)
    image = galsim.ImageD(bounds, scale=1.0)
    final = galsim.Convolve(local.profileToImage(profile.withFlux(flux)), psf)
    final.drawImage(image=image, center=position, method="no_pixel")
    canvas = np.zeros(SHAPE)
    canvas[bounds.ymin - 1 : bounds.ymax, bounds.xmin - 1 : bounds.xmax] = image.array
    return canvas


def moments(canvas):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    flux = canvas.sum()
    cx, cy = (canvas * x).sum() / flux, (canvas * y).sum() / flux
    second = [
        (canvas * one * two).sum() / flux
        for one, two in (((x - cx), (x - cx)), ((y - cy), (y - cy)), ((x - cx), (y - cy)))
    ]
    return flux, np.array([cx, cy]), np.array(second)


G = {"g1": 0.2, "g2": -0.1}
CASES = {
    "gauss": (
        planned("gauss", T=0.6, **G),
        galsim.Gaussian(half_light_radius=np.sqrt(np.log(2) * 0.6 * 0.95 / 1.05)).shear(**G),
    ),
    "sersic": (
        planned("sersic", sersic_n=1.3, r50_arcsec=0.5, truncation=6.0, **G),
        galsim.Sersic(n=1.3, half_light_radius=0.5, trunc=3.0).shear(**G),
    ),
    "bulge_disk": (
        planned(
            "bulge_disk",
            bulge_fraction=0.3,
            bulge_n=2.5,
            bulge_r50_arcsec=0.2,
            disk_r50_arcsec=0.6,
            truncation=8.0,
            **G,
        ),
        (
            galsim.Sersic(n=2.5, half_light_radius=0.2, trunc=1.6, flux=0.3)
            + galsim.Exponential(half_light_radius=0.6, flux=0.7)
        ).shear(**G),
    ),
    "lensed": (
        planned(
            "sersic", sersic_n=1.0, r50_arcsec=0.4, truncation=8.0, shear_g1=0.05, shear_g2=0.1, magnification=1.3, **G
        ),
        galsim.Sersic(n=1.0, half_light_radius=0.4, trunc=3.2).shear(**G).lens(0.05, 0.1, 1.3),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("at", [(130.0, 129.0), (101.37, 155.81)])
def test_flux_centroid_and_moments_are_those_of_galsim(telescope, name, at):
    row, profile = CASES[name]
    mine = ours(telescope, row, at)
    rows, cols = (np.flatnonzero(mine.any(axis=axis)) for axis in (1, 0))
    bounds = galsim.BoundsI(int(cols[0]) + 1, int(cols[-1]) + 1, int(rows[0]) + 1, int(rows[-1]) + 1)
    direct = theirs(telescope, profile, at, bounds)
    (flux, centre, second), (flux2, centre2, second2) = moments(mine), moments(direct)
    assert flux == pytest.approx(flux2, rel=1e-5)
    np.testing.assert_allclose(centre, centre2, atol=1e-5)
    np.testing.assert_allclose(second, second2, atol=1e-5 * second2[:2].sum())
    # What lies outside the stamp, on a canvas of the whole chip.
    whole = theirs(telescope, profile, at, galsim.BoundsI(1, SHAPE[1], 1, SHAPE[0]))
    assert abs(whole.sum() - flux) < 1e-4 * flux


@pytest.mark.parametrize("at", [(130.0, 129.0), (101.37, 155.81)])
def test_a_star_is_galsims_psf_brought_to_its_flux(telescope, at):
    position = galsim.PositionD(at[1] + 1, at[0] + 1)
    image = galsim.ImageD(*SHAPE[::-1], scale=1.0)
    telescope.their_psf.getPSF(position).withFlux(1.0).drawImage(image=image, center=position, method="no_pixel")
    mine = ours(telescope, planned("star"), at)
    np.testing.assert_allclose(mine, 1000 * image.array / image.array.sum(), atol=1e-8 * mine.max())


def test_a_star_in_20_images_lies_within_5_mas_of_one_sky_position():
    """Five exposures of four bands, each with its own pointing, angle and PSF; the PSF's centroid taken out."""
    sky = 39.9641, 2.2752
    found = []
    for number in range(20):
        wcs = ImageWCS(header(SHAPE, (7 * number - 60, 50 - 5 * number), "griz"[number % 4], number + 1, 0.3 * number))
        psf = psf_model(fwhm=3.2 + 0.1 * number, sampling=0.7 + 0.02 * (number % 5))
        row, col = (float(value[0]) for value in wcs.sky_to_pixel(*sky))
        star = drawing.draw(planned("star"), None, (row, col), 40, psf, wcs, 1e4, GS)
        y, x = np.mgrid[star.row : star.row + 81, star.col : star.col + 81]
        weight = star.pixels / star.pixels.sum()
        centroid = psf.profile(row, col).centroid
        found.append(wcs.pixel_to_sky((weight * y).sum() - centroid.y, (weight * x).sum() - centroid.x))
    ra, dec = np.array(found)[:, :, 0].T
    away = 3.6e6 * np.hypot((ra - sky[0]) * np.cos(np.radians(sky[1])), dec - sky[1])
    assert away.max() < 5.0


def test_knots_hold_all_light_and_are_the_same_on_every_chip(telescope):
    row = planned("knots", knots=30, r50_arcsec=0.5, inj_type="tableGalaxy", number=3)
    one, two = (ours(telescope, row, at) for at in ((130.0, 130.0), (90.0, 150.0)))
    assert one.sum() == pytest.approx(1000, rel=1e-4)
    # The PSF and the WCS differ a little between the places.
    moved = np.roll(two, (40, -20), (0, 1))
    assert np.abs(moved - one).sum() < 0.05 * 1000
    other = ours(
        telescope, planned("knots", knots=30, r50_arcsec=0.5, inj_type="tableGalaxy", number=4), (130.0, 130.0)
    )
    assert np.abs(other - one).sum() > 0.1 * 1000


def test_half_light_radius_of_bulge_and_disk():
    share, bulge, index, disk = (
        np.array(values) for values in ([0.0, 1.0, 0.4], [0.2, 0.3, 0.2], [4, 4, 1.0], [0.6, 0.5, 0.7])
    )
    radius = bulge_disk_radius(share, bulge, index.astype(float), disk)
    assert radius[:2] == pytest.approx([0.6, 0.3], rel=1e-8)
    whole = 0.4 * galsim.Exponential(half_light_radius=0.2) + 0.6 * galsim.Exponential(half_light_radius=0.7)
    assert radius[2] == pytest.approx(whole.calculateHLR(scale=0.005), rel=5e-3)
    assert np.isnan(bulge_disk_radius(*(np.array([value]) for value in (np.nan, 1.0, 1.0, 1.0)))).all()


def test_stamps_end_where_the_light_does(telescope):
    for row in (CASES["sersic"][0], planned("sersic", sersic_n=2.0, r50_arcsec=0.3)):
        canvas = ours(telescope, row, (130.0, 130.0))
        assert canvas.sum() == pytest.approx(1000, rel=1e-4)


def test_recentring_puts_the_centroid_at_the_position():
    y, x = np.mgrid[:35, :35] - 17.0
    lopsided = np.exp(-0.5 * ((x - 0.6) ** 2 + (y + 0.4) ** 2) / 4.0)
    model = psf_model()
    psf = type(model)(lopsided[np.newaxis] / lopsided.sum(), 0, (0.0, 0.0), (1.0, 1.0), 0.8, 4.0)
    wcs = ImageWCS(header(SHAPE, (0, 0), "r", 1))
    for recenter, offset in ((False, (0.8 * -0.4, 0.8 * 0.6)), (True, (0.0, 0.0))):
        star = drawing.draw(planned("star"), None, (130.2, 128.7), 30, psf, wcs, 1.0, GS, recenter)
        rows, cols = np.mgrid[star.row : star.row + 61, star.col : star.col + 61]
        found = (star.pixels * rows).sum() - 130.2, (star.pixels * cols).sum() - 128.7
        # Lanczos interpolation leaves some thousandths of a pixel.
        np.testing.assert_allclose(found, offset, atol=5e-3)
