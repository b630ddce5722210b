"""Objects of MEDS files: cleaned, deconvolved, and as they were where there is no noise."""

import fitsio
import galsim
import galsim.des
import numpy as np
import pytest
from injection_tile import TILE, header, psf_model
from simulated_stamps import galsim_wcs, local_wcs, moffat

from balrogutils.errors import InputError
from balrogutils.injection import drawing
from balrogutils.injection.medsstamps import MedsStamps, cleaned, half_light_radius
from balrogutils.injection.planning import _dtype
from balrogutils.injection.shapes import Shapes
from balrogutils.injection.sources import meds as source
from balrogutils.meds import MEDS
from balrogutils.settings.injection import Injection
from balrogutils.settings.sources import MedsCatalog
from balrogutils.wcs import ImageWCS

SHAPE, AT = (260, 260), (130.3, 128.8)
GALAXIES = (
    galsim.Exponential(half_light_radius=0.6).shear(g1=0.2, g2=0.1),
    galsim.Sersic(2.5, half_light_radius=0.5, trunc=3.0).shear(g1=-0.1, g2=0.3),
    galsim.Gaussian(fwhm=0.5),
)
FLUX = {"g": 3000.0, "r": 8000.0}
SIZE = 64
SHARP = 0.6
"""FWHM of the Gaussian the objects are left with; with the PSF of the chip it is blunter than those of the stamps."""


def write(path, band, noise=0.0, neighbour=False, magzp=30.0, widths=(1.0, 1.2, 0.8), bad=()):
    """The same galaxies in every band, a coadd and two exposures each, the last the sharpest."""
    rng = np.random.default_rng({"g": 5, "r": 6}[band])
    objects = []
    for number, galaxy in enumerate(GALAXIES, start=1):
        planes = {key: [] for key in ("images", "weight", "seg", "badpix", "psf", "wcs")}
        for width in widths:
            wcs = local_wcs(rng, SIZE)
            sky, middle = galsim_wcs(wcs), (SIZE - 1) / 2
            psf = moffat(rng).dilate(width)
            offset = wcs.col0 - middle, wcs.row0 - middle
            scene = galsim.Convolve(galaxy, psf).withFlux(FLUX[band] * 10 ** (0.4 * (magzp - 30)))
            image = scene.drawImage(nx=SIZE, ny=SIZE, wcs=sky, offset=offset, dtype=float).array
            seg = np.where(image > 2e-3 * image.max(), number, 0).astype(np.int32)
            if neighbour:
                other = galsim.Convolve(galsim.Gaussian(fwhm=0.4), psf).withFlux(0.5 * scene.flux).shift(4.0, 1.0)
                light = other.drawImage(nx=SIZE, ny=SIZE, wcs=sky, offset=offset, dtype=float).array
                seg[light > image] = 77
                image = image + light
            weight = np.full(image.shape, noise**-2 if noise else 1.0)
            for row, col in bad:
                image[row, col], weight[row, col] = np.nan, 0.0
            image = image + rng.normal(0, noise, image.shape)
            stamp = np.zeros((SIZE, SIZE))
            stamp[1:, 1:] = psf.drawImage(nx=SIZE - 1, ny=SIZE - 1, wcs=sky, dtype=float).array
            planes["images"].append(galsim.Image(image.astype(np.float32)))
            planes["weight"].append(galsim.Image(weight.astype(np.float32)))
            planes["seg"].append(galsim.Image(seg))
            planes["badpix"].append(galsim.Image(np.zeros(image.shape, np.int16)))
            planes["psf"].append(galsim.Image(stamp))
            origin = galsim.PositionD(wcs.col0, wcs.row0)
            planes["wcs"].append(galsim.AffineTransform(wcs.dudcol, wcs.dudrow, wcs.dvdcol, wcs.dvdrow, origin=origin))
        objects.append(galsim.des.MultiExposureObject(id=number, **planes))
    galsim.des.WriteMEDS(objects, str(path))
    with fitsio.FITS(str(path), "rw") as fits:
        fits["image_info"].write_column("image_flags", np.zeros(fits["image_info"].get_nrows(), "i8"))
        fits["metadata"].write_column("magzp_ref", np.array([magzp], "f4"))
        shape = fits["object_data"].read(columns=["dudrow"])["dudrow"].shape
        for name in ("psf_cutout_row", "psf_cutout_col"):
            if name in fits["object_data"].get_colnames():
                fits["object_data"].write_column(name, np.full(shape, SIZE / 2))
            else:
                fits["object_data"].insert_column(name, np.full(shape, SIZE / 2))


@pytest.fixture
def files(tmp_path):
    def make(**keys):
        for band in FLUX:
            write(tmp_path / f"{band}.fits", band, **keys)
        return tmp_path

    return make


def section(**keys):
    return MedsCatalog(file_name="BAND.fits", **keys)


def read(place, **keys):
    return source.read(section(**keys), place, TILE, tuple(FLUX))


def planned(place, catalog, index, keys, **values):
    """A row of a plan with one object, and what makes its profile."""
    settings = Injection.model_validate(
        {
            "input": {"meds_catalog": {"file_name": "BAND.fits", **keys}},
            "gal": {"type": "MEDSGalaxy"},
            "psf": {"type": "DES_PSFEx"},
            "stamp": {"draw_method": "no_pixel"},
            "image": {"type": "Balrog", "n_objects": 1},
        }
    )
    row = np.zeros(1, _dtype(tuple(FLUX), sorted(set(catalog.shape) - {"g1", "g2", "r50_arcsec"})))
    row["model"], row["magnification"], row["cat_row"] = "meds", 1.0, catalog.row[index]
    for name, column in catalog.shape.items():
        row[name] = column[index]
    for name, value in values.items():
        row[name] = value
    return row[0], Shapes(settings, place, TILE, "0", 1)


def drawn(row, shapes, band, profile=None):
    """The object on a chip, or another profile in its place, in a stamp of the same size."""
    wcs, psf = ImageWCS(header(SHAPE, (0, 0), "r", 1)), psf_model()
    local = wcs.galsim.local(image_pos=galsim.PositionD(AT[1] + 1, AT[0] + 1))
    half = drawing.stamp_half(shapes.reach(row), psf, local)
    whole = shapes.profile(row, band) if profile is None else profile.withFlux(1.0)
    if profile is not None:
        row = row.copy()
        row["model"] = "galsim"
    return drawing.draw(row, whole, AT, half, psf, wcs, 1000.0, galsim.GSParams()).pixels


def moments(pixels):
    """Weighted by a round Gaussian of 4 pixels: centre, size and shape."""
    rows, cols = np.indices(pixels.shape) - (len(pixels) - 1) / 2
    weight = pixels * np.exp(-(rows**2 + cols**2) / (2 * 4.0**2))
    total = weight.sum()
    row, col = (weight * rows).sum() / total, (weight * cols).sum() / total
    rr, cc = (weight * (rows - row) ** 2).sum() / total, (weight * (cols - col) ** 2).sum() / total
    rc = (weight * (rows - row) * (cols - col)).sum() / total
    return np.array([row, col, rr + cc, (cc - rr) / (cc + rr), 2 * rc / (cc + rr)])


@pytest.mark.parametrize("epoch", ["coadd", "best"])
@pytest.mark.parametrize("band", ["g", "r"])
def test_without_noise_flux_place_size_and_shape_come_back(files, epoch, band):
    keys = {"epoch": epoch, "margin": None, "resolution": SHARP}
    place = files()
    catalog = read(place, **keys)
    assert len(catalog) == len(GALAXIES)
    # The stamp holds all but the far wings of the PSF (beta 2.8 and up): 1 % of the light.
    np.testing.assert_allclose(catalog.flux[band], FLUX[band], rtol=0.01)
    # The exposure with the narrowest PSF is the best, as all weights are alike.
    assert set(catalog.shape[f"stamp_slot_{band}"]) == {2.0 if epoch == "best" else 0.0}
    for index, galaxy in enumerate(GALAXIES):
        row, shapes = planned(place, catalog, index, keys)
        true = galsim.Convolve(galaxy, galsim.Gaussian(fwhm=SHARP))
        found, wanted = drawn(row, shapes, band), drawn(row, shapes, band, true)
        # The wings that the stamp lacks are missing around the object: 0.3 % of the peak is seen of them.
        assert np.abs(found - wanted).max() < 3e-3 * wanted.max()
        difference = moments(found) - moments(wanted)
        assert np.abs(difference[:2]).max() < 1e-3
        assert abs(difference[2] / moments(wanted)[2]) < 5e-3
        assert np.abs(difference[3:]).max() < 1e-3


def test_rotation_and_shear_act_as_on_any_galaxy(files):
    keys = {"margin": None, "resolution": SHARP}
    place = files()
    catalog = read(place, **keys)
    lens = {"shear_g1": 0.1, "shear_g2": -0.05, "magnification": 1.2}
    row, shapes = planned(place, catalog, 0, keys, rotation=37.0, **lens)
    true = galsim.Convolve(GALAXIES[0], galsim.Gaussian(fwhm=SHARP)).rotate(37 * galsim.degrees)
    true = true.shear(g1=0.1, g2=-0.05).dilate(np.sqrt(1.2))
    difference = moments(drawn(row, shapes, "r")) - moments(wanted := drawn(row, shapes, "r", true))
    assert np.abs(difference[[0, 1, 3, 4]]).max() < 1e-3
    assert abs(difference[2] / moments(wanted)[2]) < 5e-3
    mirrored = shapes.profile(row, "r", mirrored=True)
    assert mirrored != shapes.profile(row, "r")


def test_fluxes_are_brought_to_zero_point_30(files):
    usual, other = (read(files(magzp=magzp), margin=None) for magzp in (30.0, 25.0))
    for band in FLUX:
        np.testing.assert_allclose(other.flux[band], usual.flux[band], rtol=1e-5)


def test_a_neighbour_and_bad_pixels_are_replaced_by_what_is_opposite(files):
    clean = read(files(), margin=None, masked_max=1.0)
    for keys in ({"neighbour": True}, {"bad": [(31, 40), (10, 12)]}):
        found = read(files(**keys), margin=None, masked_max=1.0)
        assert (found.shape["stamp_masked"] > 0).all()
        for band in FLUX:
            # The galaxies are symmetric; the neighbour's own wings stay, less than 4 % of it.
            np.testing.assert_allclose(found.flux[band], clean.flux[band], rtol=0.02)
    assert not len(read(files(neighbour=True), margin=None, masked_max=0.0))


def test_beyond_the_margin_there_is_nothing(files):
    place = files(noise=5.0)
    with MEDS(place / "r.fits") as meds:
        whole, near = (cleaned(meds, 0, 0, margin) for margin in (None, 1.0))
        own = meds.get_cutout(0, 0, "seg") == 1
    assert (near.pixels[own] == whole.pixels[own]).all()
    assert (near.pixels[near.radius > near.radius[own].max() + 1.0 + 0.3] == 0).all()
    # Independent pixels of noise 5: the error of the sum is 5 times the root of their number.
    assert whole.error == pytest.approx(5.0 * SIZE, rel=1e-5)
    assert near.error == pytest.approx(5.0 * np.sqrt(np.count_nonzero(near.pixels)), rel=1e-5)


def test_signal_to_noise_size_and_parameter_cuts(files):
    place = files(noise=8.0)
    every = read(place)
    assert len(every) == 3
    error = np.sqrt(sum((every.flux[band] / every.shape[f"stamp_error_{band}"]) ** 2 for band in FLUX))
    np.testing.assert_allclose(every.shape["stamp_snr"], error)
    low, middle, _ = np.sort(every.shape["stamp_snr"])
    assert len(read(place, snr_min=low, snr_max=middle + 1e-6)) == 1
    small = read(place, size_max=float(np.sort(every.shape["r50_arcsec"])[1]))
    # The Gaussian of FWHM 0.5, left with the default resolution.
    assert list(small.ids) == [3]
    assert small.shape["r50_arcsec"][0] == pytest.approx(0.5 * np.hypot(0.5, 0.8), rel=0.1)
    (place / "params.csv").write_text("id,flux_g,mag_r\n2,100,20\n3,200,21\n9,1,1\n")
    given = read(place, param_catalog="params.csv")
    assert list(given.ids) == [2, 3]
    np.testing.assert_allclose(given.flux["g"], [100, 200])
    np.testing.assert_allclose(given.flux["r"], 10 ** (0.4 * (30 - np.array([20, 21]))))


def test_the_radius_of_half_the_light():
    rows, cols = np.indices((61, 61)) - 30.2
    radius = 0.263 * np.hypot(rows, cols)
    image = np.exp(-(radius**2) / (2 * 0.9**2))
    # sqrt(2 ln 2) sigma; circles with soft edges of one pixel.
    assert half_light_radius(image, radius, 0.263) == pytest.approx(np.sqrt(2 * np.log(2)) * 0.9, rel=5e-3)
    assert np.isnan(half_light_radius(-image, radius, 0.263))
    assert np.isnan(half_light_radius(0 * image, radius, 0.263))


def test_files_that_will_not_do(files, tmp_path):
    with pytest.raises(InputError, match="is not there"):
        read(tmp_path)
    place = files()
    (place / "r.fits").write_bytes((place / "g.fits").read_bytes()[:5000])
    with pytest.raises(InputError, match="MEDS file"):
        read(place)
    files()
    with fitsio.FITS(str(place / "r.fits"), "rw") as fits:
        fits["object_data"].write_column("id", np.array([1, 2, 4]))
    with pytest.raises(InputError, match="the ids are not those of"):
        read(place)
    with pytest.raises(InputError, match="no column brightness"):
        files()
        read(place, weight="brightness")


def test_an_object_without_pixels_of_its_own_is_left_out(files, caplog):
    place = files()
    with fitsio.FITS(str(place / "g.fits"), "rw") as fits:
        seg = fits["seg_cutouts"].read()
        seg[seg == 2] = 0
        fits["seg_cutouts"].write(seg)
    with caplog.at_level("INFO"):
        assert list(read(place).ids) == [1, 3]
    assert "1 rows of BAND.fits left out: no stamp, no pixel or no light" in caplog.text
    stamps = MedsStamps(section(), place, TILE)
    with pytest.raises(InputError, match="has no light of its own"):
        stamps.profile(1, "g", 0)
    stamps.close()
