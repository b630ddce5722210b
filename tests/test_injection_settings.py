"""The injection configuration: what it accepts and what it refuses."""

from pathlib import Path

import pytest
import yaml
from injection_tile import configuration

from balrogutils.errors import ConfigError
from balrogutils.settings.injection import Injection

INPUTS = Path(__file__).resolve().parents[1] / "inputs"


@pytest.fixture
def loaded(tmp_path):
    def load(config):
        path = tmp_path / "galsim.yaml"
        path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        return Injection.load(path)

    return load


@pytest.mark.parametrize("path", sorted(INPUTS.glob("bal_config_*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path):
    config = Injection.load(path)
    assert config.poisson
    assert config.bands(("g", "r", "z")) == ("g", "r", "z")


def test_the_form_of_the_old_template(loaded):
    config = configuration(bands="griz", version="y3v02", realizations=[0], n_realizations=1, wcs={"type": "Fits"})
    config["image"]["pos_sampling"] = {
        "ngmix_catalog": {"type": "HexGrid", "grid_spacing": 20},
        "des_star_catalog": {"type": "HexGrid", "grid_spacing": 20},
    }
    config["image"] |= {"xsize": 2048, "ysize": 4096, "extinct_objs": False, "rotate_objs": False, "noise": {}}
    config["modules"] = ["galsim.des", "injector", "ngmix_catalog", "des_star_catalog"]
    config["stamp"]["gsparams"] = {"maximum_fft_size": 65536}
    settings = loaded(config)
    assert not settings.poisson
    assert settings.inputs == ("ngmix_catalog", "des_star_catalog")
    assert settings.bands(("g", "r", "i", "z")) == ("g", "r", "i", "z")


@pytest.mark.parametrize(
    ("given", "expected"),
    [(3, ("3",)), ([0, 4, 2], ("0", "4", "2")), ({"min": 1, "max": 3}, ("1", "2", "3"))],
)
def test_realizations(loaded, given, expected):
    assert loaded(configuration(realizations=given)).realizations == expected


def change(path, value):
    config = configuration()
    *parents, last = path.split(".")
    place = config
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("image.rotate_obj", True, "did you mean 'rotate_objs'"),
        ("imag", {}, "did you mean 'image'"),
        ("stamp.gsparams.maximum_fft", 5, "did you mean 'maximum_fft_size'"),
        ("input.ngmix_catalog.tmax", 5, "did you mean 't_max'"),
        ("image.pos_sampling", {"type": "RoseGrid"}, "HexGrid"),
        ("image.pos_sampling", {"type": "uniform", "grid_spacing": 5}, "uniform positions take no grid_spacing"),
        ("image.pos_sampling", {"type": "HexGrid", "grid_spacing": -5}, "above 0"),
        ("image.pos_sampling", "uniform", "exactly one of n_objects and object_density"),
        ("image.n_objects", 5, "sets the number of"),
        ("image.pos_sampling.des_star_catalog.inj_frac", 0.4, "must sum to 1"),
        ("image.pos_sampling.des_star_catalog", {"type": "HexGrid"}, "shared by all inputs or by none"),
        ("image.pos_sampling.des_star_catalog.grid_spacing", 3.0, "different grid_spacing"),
        ("image.realizations", [], "at least one"),
        ("image.realizations", [1, 1], "distinct"),
        ("image.realizations", {"min": 1}, "min: A, max: B"),
        ("image.realizations", {"min": 0, "max": 10**12}, "realizations go from 0 to"),
        ("image.realizations", 10**8, "distinct integers from 0 to"),
        ("image.random_seed", -5, "at least 0"),
        ("image.pos_sampling", {"type": "HexGrid", "rotate": float("inf")}, "finite"),
        ("image.n_realizations", 0, "at least 1"),
        ("image.noise", {"type": "CCD"}, "Poisson"),
        ("image.inj_objs_only", {"value": True, "noise": "Gauss"}, "BKG+SKY"),
        ("image.noise", {"update_weights": True}, "write type: Poisson"),
        ("image.pos_sampling", {"ngmix_catalogue": "uniform"}, "did you mean 'ngmix_catalog'"),
        ("image.n_objects", {"ngmix_catalogue": 5}, "did you mean 'ngmix_catalog'"),
        ("image.shear_pairs", True, "needs a shear"),
        ("image.mask_bit", 15, "at most 14"),
        ("image.avoid", {"radius": 3.0}, "file_name"),
        ("image.type", "Scattered", "Balrog"),
        ("image.geom_file", "x.fits", "remove the key"),
        ("image.n_galaxies", 5, "write n_objects"),
        ("image.random_seed", "$1+1", "expression"),
        ("input.des_star_catalog.base_dir", "@input.dir", "expression"),
        ("input.des_star_catalog.zeropoint", 25.0, "30"),
        ("input.ngmix_catalog.catalog_type", "mof", "'gauss', 'cm' or 'bdf'"),
        ("stamp.draw_method", "auto", "no_pixel"),
        ("psf.type", "Gaussian", "DES_PSFEx"),
        ("gal", {"type": "ngmixGalaxie"}, "did you mean 'ngmixGalaxy'"),
        ("gal", {"type": "ngmixGalaxy"}, "gal does not use it"),
        ("gal", {"type": "List", "items": []}, "`items`"),
        ("modules", ["os"], "galsim.des"),
    ],
)
def test_what_is_refused_and_why(loaded, path, value, message):
    with pytest.raises(ConfigError) as caught:
        loaded(change(path, value))
    assert message in str(caught.value)
    assert "galsim.yaml" in str(caught.value)


def test_a_type_without_its_input_is_refused(loaded):
    config = configuration()
    del config["input"]["des_star_catalog"]
    with pytest.raises(ConfigError, match="input has no des_star_catalog"):
        loaded(config)


def test_two_documents_or_duplicate_keys_are_refused(loaded):
    with pytest.raises(ConfigError, match="twice"):
        loaded("image: {type: Balrog, type: Balrog}\n")
    with pytest.raises(ConfigError, match="YAML"):
        loaded(yaml.safe_dump(configuration()) + "---\nimage: {}\n")


@pytest.mark.parametrize(
    ("image", "section", "tile", "message"),
    [
        ("griz", None, "grz", "bands i are not"),
        ("from_tile", "gr", "griz", "bands i, z are to be"),
        ("", None, "gr", "none"),
    ],
)
def test_bands_that_do_not_fit(loaded, image, section, tile, message):
    config = configuration(bands=image)
    config["input"]["ngmix_catalog"]["bands"] = section
    with pytest.raises(ConfigError, match=message):
        loaded(config).bands(tuple(tile))


def test_part_of_the_bands_in_the_order_of_the_tile(loaded):
    assert loaded(configuration(bands=["z", "g"])).bands(("g", "r", "i", "z")) == ("g", "z")
