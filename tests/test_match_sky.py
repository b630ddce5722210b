"""Injections on bright originals are told from isolated ones, on images and with SExtractor's own catalogues."""

from pathlib import Path

import fitsio
import galsim
import numpy as np
import pytest
from coadd_sky import tile_header
from scipy.spatial import cKDTree

from balrogutils.coadd.sextractor import Recipe, extract
from balrogutils.fitsfile import Plane, write_images
from balrogutils.matching.ambiguity import FLAG_RADII, flag_name, original_flags, other_flags
from balrogutils.matching.positions import Reason, match_positions, nearest
from balrogutils.wcs import ImageWCS

ETC = Path(__file__).resolve().parents[1] / "etc"
RECIPE = Recipe(ETC / "Y3A2_v2_sex.config", ETC / "balrog_sex.param", ETC / "gauss_3.0_7x7.conv")
SIZE, SCALE, NOISE = 800, 0.263, 6.0
WCS = ImageWCS(tile_header(SIZE))


def draw(places, fluxes, image):
    """Add stars of 1 arcsec to an image, at zero-offset (row, col)."""
    star = galsim.Moffat(beta=3.5, fwhm=1.0)
    for (row, col), flux in zip(places, fluxes, strict=True):
        at = galsim.PositionD(col + 1.0, row + 1.0)
        stamp = star.withFlux(flux).drawImage(center=at, nx=61, ny=61, scale=SCALE, dtype=float)
        both = stamp.bounds & image.bounds
        image[both] += stamp[both]


def detect(image, directory):
    """Return positions and fluxes of what SExtractor finds."""
    directory.mkdir()
    cards = {key: value for key, value in tile_header(SIZE).items() if not key.startswith("NAXIS")}
    pixels = image.array.astype(np.float32)
    weight = np.full(pixels.shape, NOISE**-2, np.float32)
    planes = [("SCI", pixels), ("MSK", np.zeros(pixels.shape, np.int32)), ("WGT", weight)]
    header = fitsio.FITSHDR([{"name": key, "value": value} for key, value in cards.items()])
    write_images(directory / "coadd.fits", [Plane(name, values, header) for name, values in planes])
    scratch = directory / "scratch"
    scratch.mkdir()
    path = directory / "coadd.fits"
    rows = extract(path, path, scratch, RECIPE, log=directory / "log", tile="DES0239+0216", band="r").rows
    ra, dec = WCS.pixel_to_sky(rows["Y_IMAGE"] - 1.0, rows["X_IMAGE"] - 1.0)
    return {"ra": ra, "dec": dec}, np.asarray(rows["FLUX_AUTO"], float)


def apart(count, least, random, taken):
    """Return places (row, col) at least so many arcsec from each other and from those taken."""
    places = list(taken)
    while len(places) < len(taken) + count:
        place = random.uniform(20, SIZE - 20, 2)
        if not places or cKDTree(np.array(places)).query(place)[0] * SCALE > least:
            places.append(place)
    return np.array(places[len(taken) :])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_injections_on_bright_originals_are_flagged_and_isolated_ones_are_not(tmp_path, seed):
    random = np.random.default_rng(seed)
    bright = apart(60, 8.0, random, [])
    faint = apart(60, 5.0, random, list(bright))
    bright_flux, faint_flux = 10 ** random.uniform(4.0, 5.2, 60), 10 ** random.uniform(2.3, 3.5, 60)
    # On each bright original a fainter one, up to 0.3 arcsec off; the others 5 arcsec from everything.
    turn, off = random.uniform(0, 2 * np.pi, 60), random.uniform(0, 0.3 / SCALE, 60)
    upon = bright + np.stack([off * np.sin(turn), off * np.cos(turn)], axis=1)
    alone = apart(150, 5.0, random, [*bright, *faint])
    places = np.concatenate([upon, alone])
    flux = np.concatenate([bright_flux * random.uniform(0.1, 0.6, 60), 10 ** random.uniform(3.0, 5.0, 150)])

    image = galsim.ImageD(SIZE, SIZE)
    draw(np.concatenate([bright, faint]), np.concatenate([bright_flux, faint_flux]), image)
    image.addNoise(galsim.GaussianNoise(galsim.BaseDeviate(1000 + seed), sigma=NOISE))
    originals, original_flux = detect(image, tmp_path / "base")
    draw(places, flux, image)
    detections, _ = detect(image, tmp_path / "injected")

    truth = dict(zip(("ra", "dec"), WCS.pixel_to_sky(places[:, 0], places[:, 1]), strict=True))
    found = match_positions(truth["ra"], truth["dec"], detections["ra"], detections["dec"], 0.5)
    flags = original_flags(truth, flux, originals, original_flux)
    ambiguous = nearest(truth["ra"], truth["dec"], originals["ra"], originals["dec"])[1] <= 0.5
    # Nearly all of either kind are matched: without flags one could not tell them.
    matched = found.reason == Reason.MATCHED
    assert matched[:60].mean() > 0.9
    assert matched[60:].mean() > 0.95
    assert (flags[flag_name(0.5)][:60] == 2).mean() >= 0.95
    assert ambiguous[:60].mean() >= 0.95
    for radius in FLAG_RADII:
        assert (flags[flag_name(radius)][60:] != 0).mean() <= 0.01
    assert ambiguous[60:].mean() <= 0.01
    # Of injections on each other there are none here.
    assert not other_flags(truth, flux).any()
