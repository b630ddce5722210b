"""Our parts in GalSim's own language, run by GalSim alone."""

from pathlib import Path

import galsim
import galsim.config
import galsim.des
import numpy as np
import pytest
from injection_tile import header, psf_model

import balrogutils.injection.plugins  # noqa: F401 (registers)
from balrogutils.fitsfile import Plane, read_image, write_images
from balrogutils.injection import profiles

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A configuration as the galsim program takes it: five objects on one chip, from two inputs."""
    monkeypatch.setenv("BALROG_BASE", str(CHECKOUT))
    shape = (260, 260)
    image = np.random.default_rng(2).normal(0, 17, shape)
    write_images(tmp_path / "chip.fits", [Plane("SCI", image, header(shape, (0, 0), "r", 1))])
    psf_model().write(tmp_path / "chip.psf")
    return {
        "modules": ["galsim.des", "balrogutils.injection.plugins"],
        "input": {
            "ngmix_catalog": {"dir": "inputs", "file_name": "galaxies_exp.fits", "catalog_type": "bdf"},
            "star_table": {"dir": "inputs/examples", "file_name": "stars.csv"},
            "des_psfex": {"file_name": str(tmp_path / "chip.psf"), "image_file_name": str(tmp_path / "chip.fits")},
        },
        "psf": {"type": "DES_PSFEx"},
        "gal": {
            "type": "List",
            "items": [
                {"type": "ngmixGalaxy", "band": "r", "index": 3, "rotate": "30 deg"},
                {"type": "tableStar", "band": "r", "index": 2},
                {"type": "ngmixGalaxy", "band": "r"},
                {
                    "type": "Sum",
                    "items": [{"type": "tableStar", "band": "r", "index": 1}, {"type": "Gaussian", "sigma": 1}],
                },
                {
                    "type": "Gaussian",
                    "sigma": 0.5,
                    "flux": {"type": "SourceValue", "source": "star_table", "column": "flux_g", "index": 4},
                },
            ],
        },
        "stamp": {"type": "Balrog", "draw_method": "no_pixel", "size": 61},
        "image": {
            "type": "Balrog",
            "nobjects": 5,
            "random_seed": 5,
            "wcs": {"type": "Fits", "file_name": str(tmp_path / "chip.fits")},
            "initial_image": {"file_name": str(tmp_path / "chip.fits")},
            "image_pos": {
                "type": "XY",
                "x": {"type": "List", "items": [60, 60, 190, 190, 130]},
                "y": {"type": "List", "items": [60, 190, 60, 190, 130]},
            },
        },
    }


def test_galsim_alone_draws_our_catalogues_onto_an_image(config, tmp_path):
    galsim.config.ImportModules(config)
    galsim.config.ProcessInput(config)
    drawn = galsim.config.BuildImage(config)
    base = read_image(tmp_path / "chip.fits", "SCI")
    light = drawn.array - base
    stars = np.genfromtxt(CHECKOUT / "inputs/examples/stars.csv", delimiter=",", names=True)
    flux = 10 ** (0.4 * (30 - stars["mag_r"]))
    for (x, y), expected in {
        (60, 190): flux[2],
        (190, 190): flux[1] + 1,
        (130, 130): 10 ** (0.4 * (30 - stars["mag_g"][4])),
    }.items():
        stamp = light[y - 31 : y + 30, x - 31 : x + 30]
        # Single precision of GalSim's images beside noise of 17; Lanczos phases of the PSF.
        assert stamp.sum() == pytest.approx(expected, rel=5e-3)
    source = config["_input_objs"]["ngmix_catalog"][0]
    row = {name: float(values[3]) for name, values in source.catalog.shape.items()}
    profile = profiles.profile("bdf", *(row[name] for name in profiles.PARAMETERS[1:]))
    assert source.profile(3, "r", 1) == profile.withFlux(float(source.catalog.flux["r"][3]))
    assert light[30:91, 30:91].sum() == pytest.approx(source.catalog.flux["r"][3], rel=0.02)


def test_what_galsim_is_told_when_it_asks_for_too_much(config):
    config["gal"] = {"type": "ngmixGalaxy", "band": "r", "index": 1000}
    galsim.config.ProcessInput(config)
    with pytest.raises(galsim.GalSimError, match="has 200 objects in griz, not 1000"):
        galsim.config.BuildImage(config)


@pytest.mark.parametrize("key", ["skip_failures", "retry_failures"])
def test_nothing_is_skipped(config, key):
    config["stamp"][key] = 1
    galsim.config.ProcessInput(config)
    with pytest.raises(galsim.GalSimError, match="cannot be drawn is an error"):
        galsim.config.BuildImage(config)


def test_an_unknown_key_of_an_input_is_an_error(config):
    config["input"]["star_table"]["filename"] = "x"
    with pytest.raises(galsim.GalSimError, match="filename"):
        galsim.config.ProcessInput(config)


def test_an_image_to_inject_into_is_needed(config):
    del config["image"]["initial_image"]
    galsim.config.ProcessInput(config)
    with pytest.raises(galsim.GalSimError, match="needs initial_image"):
        galsim.config.BuildImage(config)
