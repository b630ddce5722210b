"""What else a weight map and a PSF may be: variance and rms, and a stamp."""

import fitsio
import identical
import numpy as np
import pytest
from one_image import ROUND, Run, gaussian_psf, write_input

from balrogutils.errors import InputError, ProductError
from balrogutils.fitsfile import Plane, read_header, read_image, write_images
from balrogutils.oneimage.psfs import read_psf


def turned(file, ext, power):
    """Turn a weight map of inverse variance into variance (-1) or rms (-1/2), with pixels that have none."""
    with fitsio.FITS(str(file), "rw") as fits:
        weight = fits[ext].read().astype(np.float64)
        values = weight**power
        values[:20, :30], values[30:40, :30], values[50:60, :30] = np.nan, np.inf, 0
        fits[ext].write(values.astype(np.float32))


def masked(file, ext):
    with fitsio.FITS(str(file), "rw") as fits:
        weight = fits[ext].read()
        for rows in (slice(0, 20), slice(30, 40), slice(50, 60)):
            weight[rows, :30] = 0
        fits[ext].write(weight)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("kind", "power"), [("var", -1), ("rms", -0.5)])
def test_variance_and_rms_are_weights_too(kind, power, shared, tmp_path):
    runs = []
    for name, words in (("invvar", []), (kind, ["--weighttype", kind])):
        field = write_input(tmp_path / name, shared=shared)
        file = tmp_path / name / ("field.fits" if shared else "field.wht.fits")
        if words:
            turned(file, int(shared), power)
        else:
            masked(file, int(shared))
        runs.append(Run(tmp_path / f"out_{name}", ROUND, *field, *words, "--ngal", 8))
    one, other = runs
    weights = [
        read_image(run.tree.simulated if shared else run.tree.weight, int(shared)).astype(np.float64) for run in runs
    ]
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-6)
    assert (weights[1] == 0).sum() == 40 * 30
    np.testing.assert_array_equal(one.image(), other.image())
    for which in ("sim", "nosim"):
        assert len(one.measured(which)) == len(other.measured(which))
    assert len(one.measured()) >= 6
    np.testing.assert_allclose(one.measured()["FLUXERR_AUTO"], other.measured()["FLUXERR_AUTO"], rtol=1e-4)


def test_the_weight_of_a_detection_image_is_turned_too(tmp_path):
    field, seen = write_input(tmp_path / "in"), write_input(tmp_path / "det", seed=2)
    words = ["--detimage", seen[1], "--detweight", tmp_path / "det/field.wht.fits", "--ngal", 3]
    turned(tmp_path / "in/field.wht.fits", 0, -1)
    turned(tmp_path / "det/field.wht.fits", 0, -1)
    one = Run(tmp_path / "out", ROUND, *field, *words, "--weighttype", "var")
    found = read_image(one.tree.images / "field.det.weight.fits", 0)
    np.testing.assert_array_equal(found, read_image(one.tree.weight, 0))
    # The inputs stay as they were.
    assert np.isnan(read_image(tmp_path / "det/field.wht.fits", 0)[0, 0])
    with pytest.raises(InputError, match="must be read to be turned"):
        Run(tmp_path / "no", ROUND, *field, "--weighttype", "rms", "--noweightread")


@pytest.mark.parametrize("sampling", [1.0, 0.5])
def test_a_stamp_is_a_psf(sampling, tmp_path):
    psf = gaussian_psf(4.0, sampling)
    field = write_input(tmp_path / "in", psf=psf)
    header = fitsio.FITSHDR()
    if sampling != 1:
        header.add_record({"name": "PSF_SAMP", "value": sampling})
    write_images(tmp_path / "psf.fits", [Plane("PSF", (1e5 * psf.masks[0]).astype(np.float32), header)])
    assert read_psf(tmp_path / "psf.fits").fwhm == pytest.approx(4.0, rel=0.05)
    model = Run(tmp_path / "model", ROUND, *field, "--ngal", 5)
    field[field.index("--psf") + 1] = tmp_path / "psf.fits"
    stamp = Run(tmp_path / "stamp", ROUND, *field, "--ngal", 5)
    # Both files hold single precision.
    np.testing.assert_allclose(stamp.truth["flux_noiseless"], model.truth["flux_noiseless"], rtol=1e-5)
    assert stamp.tree.psf_model.name == "psf.psf"
    assert len(stamp.measured()) == len(model.measured()) == 5
    # A part of the image has the same PSF.
    part = Run(tmp_path / "part", ROUND, *field, "--ngal", 5, "--xmin", 41, "--imageonly")
    assert identical.same(part.tree.psf_model, stamp.tree.psf_model)


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.ones((4, 4)), "no PSF stamp"),
        (np.ones((5, 7)), "no PSF stamp"),
        (np.ones((1, 1)), "no PSF stamp"),
        (np.ones((3, 5, 5)), "no PSF stamp"),
        (np.zeros((5, 5)), "no light"),
        (np.full((5, 5), np.nan), "no light"),
        (-np.ones((5, 5)), "no light"),
    ],
)
def test_stamps_that_are_none_are_refused(pixels, says, tmp_path):
    write_images(tmp_path / "psf.fits", [Plane("PSF", pixels.astype(np.float32))])
    with pytest.raises(ProductError, match=says):
        read_psf(tmp_path / "psf.fits")
    field = write_input(tmp_path / "in")
    field[field.index("--psf") + 1] = tmp_path / "psf.fits"
    with pytest.raises(InputError, match="code: 123"):
        Run(tmp_path / "out", ROUND, *field)


@pytest.mark.parametrize("sampling", ["1", "0", "-1", "1e300", "1e-300", "'x'", "T", ""])
def test_steps_that_are_none_are_refused(sampling, tmp_path):
    file = tmp_path / "psf.fits"
    header = fitsio.FITSHDR([{"name": "PSF_SAMP", "value": 1.0}])
    write_images(file, [Plane("PSF", gaussian_psf(4.0, 1.0).masks[0].astype(np.float32), header)])
    held = file.read_bytes()
    at = held.index(b"PSF_SAMP")
    file.write_bytes(held[:at] + f"PSF_SAMP= {sampling:>20}".encode().ljust(80) + held[at + 80 :])
    if sampling == "1":
        assert read_psf(file).sampling == 1
        return
    with pytest.raises(ProductError, match="whose PSF_SAMP is"):
        read_psf(file)


@pytest.mark.parametrize("size", [0, 1500, 3500])
def test_half_a_stamp_is_refused(size, tmp_path):
    file = tmp_path / "psf.fits"
    write_images(file, [Plane("PSF", gaussian_psf(4.0, 1.0).masks[0].astype(np.float32))])
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ProductError, match="cannot be read"):
        read_psf(file)


def test_packed_images_and_weights(tmp_path):
    field = write_input(tmp_path / "in")
    plain = Run(tmp_path / "plain", ROUND, *field, "--ngal", 5)
    for name in ("field.fits", "field.wht.fits"):
        file = tmp_path / "in" / name
        with fitsio.FITS(str(tmp_path / "in" / f"{name}.fz"), "rw") as fits:
            # Lossless.
            fits.write(read_image(file, 0), header=read_header(file, 0), compress="gzip", qlevel=0)
    words = ["--image", tmp_path / "in/field.fits.fz", "--imageext", 1, "--psf", tmp_path / "in/field.psf"]
    words += ["--weight", tmp_path / "in/field.wht.fits.fz", "--weightext", 1, "--ngal", 5]
    packed = Run(tmp_path / "packed", ROUND, *words)
    np.testing.assert_array_equal(packed.image(), plain.image())
    np.testing.assert_array_equal(read_image(packed.tree.weight, 0), read_image(plain.tree.weight, 0))
    np.testing.assert_array_equal(packed.measured()["MAG_AUTO"], plain.measured()["MAG_AUTO"])
    # Detection on packed files that hold the objects, measurement on the plain image.
    seen = tmp_path / "in/seen.fits.fz"
    with fitsio.FITS(str(seen), "rw") as fits:
        fits.write(read_image(plain.tree.simulated, 0), compress="gzip", qlevel=0)
    words = ["--detimage", seen, "--detimageext", 1, "--detweightext", 1, "--ngal", 5, "--noassoc"]
    dual = Run(tmp_path / "dual", ROUND, *field, *words, "--detweight", tmp_path / "in/field.wht.fits.fz", "--nodraw")
    single = Run(tmp_path / "single", ROUND, *field, "--ngal", 5, "--noassoc")
    assert len(dual.measured()) >= 5
    np.testing.assert_array_equal(dual.measured()["X_IMAGE"], single.measured()["X_IMAGE"])
