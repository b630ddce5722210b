"""PSFEx models against the reader of GalSim, on a real DES model."""

from dataclasses import replace
from pathlib import Path

import galsim
import galsim.des
import numpy as np
import pytest

from balrogutils.errors import ProductError
from balrogutils.psf import PSFEx

REAL = Path(__file__).parent / "data" / "des" / "D00572501_z_c01_r3624p01_psfexcat.psf"


def test_damaged_models_are_refused(tmp_path):
    with pytest.raises(ProductError, match="not there"):
        PSFEx.read(tmp_path / "absent.psf")
    (tmp_path / "text.psf").write_text("no FITS")
    with pytest.raises(ProductError, match="not a PSFEx model"):
        PSFEx.read(tmp_path / "text.psf")
    (tmp_path / "short.psf").write_bytes(REAL.read_bytes()[:6000])
    with pytest.raises(ProductError, match="PSFEx model"):
        PSFEx.read(tmp_path / "short.psf")
    model = PSFEx.read(REAL)
    PSFEx(model.masks * np.nan, model.degree, model.zero, model.scale, model.sampling, model.fwhm).write(
        tmp_path / "nan.psf"
    )
    with pytest.raises(ProductError, match="damaged"):
        PSFEx.read(tmp_path / "nan.psf")


@pytest.mark.parametrize(
    "card",
    [{"sampling": 0.0}, {"sampling": -1.0}, {"scale": (0.0, 1.0)}],
    ids=["no step", "a negative one", "no scale"],
)
def test_cards_that_are_none_are_refused(card, tmp_path):
    replace(PSFEx.read(REAL), **card).write(tmp_path / "cards.psf")
    with pytest.raises(ProductError, match="a damaged PSFEx model"):
        PSFEx.read(tmp_path / "cards.psf")


@pytest.mark.parametrize("size", [0, 2, 40, -1])
def test_a_stamp_is_odd(size):
    with pytest.raises(ValueError, match="odd side"):
        PSFEx.read(REAL).stamp(10.0, 10.0, size)


@pytest.mark.parametrize(("row", "col"), [(0.0, 0.0), (2000.3, 1000.7), (4095.0, 2047.0)])
def test_stamps_equal_those_of_galsim(row, col):
    model = PSFEx.read(REAL)
    stamp = model.stamp(row, col)
    assert stamp.shape == (43, 43)
    assert stamp.sum() == pytest.approx(1.0, abs=1e-12)
    reference = galsim.des.DES_PSFEx(str(REAL)).getPSF(galsim.PositionD(col + 1, row + 1))
    pixels = reference.drawImage(nx=43, ny=43, scale=1.0, method="no_pixel", dtype=float).array
    # GalSim keeps the model's own sum and float32 masks; shapes agree to rounding.
    assert np.abs(stamp - pixels / pixels.sum()).max() < 1e-6 * stamp.max()


def test_the_model_varies_with_position():
    model = PSFEx.read(REAL)
    assert np.abs(model.stamp(0.0, 0.0) - model.stamp(4000.0, 2000.0)).max() > 1e-4


def test_a_written_model_reads_back(tmp_path):
    model = PSFEx.read(REAL)
    model.write(tmp_path / "copy.psf")
    again = PSFEx.read(tmp_path / "copy.psf")
    assert np.array_equal(model.masks, again.masks)
    assert (model.degree, model.zero, model.scale, model.sampling) == (
        again.degree,
        again.zero,
        again.scale,
        again.sampling,
    )
    galsim.des.DES_PSFEx(str(tmp_path / "copy.psf"))


def test_a_constant_model_opens_everywhere(tmp_path):
    model = PSFEx.read(REAL)
    stamp = model.stamp(100.0, 100.0, 41)
    PSFEx(stamp[np.newaxis], 0, (0.0, 0.0), (1.0, 1.0), 1.0, model.fwhm).write(tmp_path / "constant.psf")
    galsim.des.DES_PSFEx(str(tmp_path / "constant.psf"))
    again = PSFEx.read(tmp_path / "constant.psf")
    assert again.degree == 0
    # Resampling on the pixel grid changes nothing for a model already on it, to float32 accuracy.
    assert np.abs(again.stamp(5.0, 7.0, 41) - stamp).max() < 1e-6
