"""Our own types within GalSim's constructions, in the pipeline and in GalSim alone."""

from pathlib import Path

import galsim
import galsim.config
import numpy as np
import pytest
import yaml
from injection_tile import DEC, RA, TILE

import balrogutils.injection.plugins  # noqa: F401 (registers)
from balrogutils.archive.geometry import Geometry
from balrogutils.errors import BalrogError, ConfigError
from balrogutils.injection import profiles
from balrogutils.injection.planning import make_plan
from balrogutils.injection.shapes import Shapes
from balrogutils.injection.sources.loading import load
from balrogutils.settings.injection import Injection

CHECKOUT = Path(__file__).resolve().parents[1]
GEOMETRY = Geometry.tangent(TILE, RA, DEC, 400, 400, 0.263, {})
BANDS = ("g", "r")
GALAXIES = {"dir": "inputs", "file_name": "galaxies_cosmos_hsc.fits", "catalog_type": "bdf"}
STARS = {"dir": "inputs/examples", "file_name": "stars.csv"}


def configured(place, gal, **inputs):
    """The settings of a configuration file with one kind of object."""
    path = place / "x.yaml"
    config = {
        "input": inputs,
        "gal": gal,
        "psf": {"type": "DES_PSFEx"},
        "stamp": {"draw_method": "no_pixel"},
        "image": {"type": "Balrog", "n_objects": 4, "rotate_objs": "Random"},
    }
    path.write_text(yaml.safe_dump(config))
    return Injection.load(path)


def planned(settings, bands=BANDS):
    return make_plan(settings, {}, GEOMETRY, bands, 7, "0", CHECKOUT), Shapes(settings, CHECKOUT, TILE, "0", 7)


def test_a_galaxy_with_a_star_on_it_has_both_fluxes_in_every_band(tmp_path):
    star = {"type": "tableStar", "scale_flux": 0.1, "shift": {"type": "XY", "x": 0.6, "y": -0.3}}
    gal = {"type": "Sum", "name": "blend", "items": [{"type": "ngmixGalaxy"}, star]}
    settings = configured(tmp_path, gal, ngmix_catalog=GALAXIES, star_table=STARS)
    rows, shapes = planned(settings)
    plain = configured(
        tmp_path,
        {"items": [{"type": "ngmixGalaxy"}, {"type": "tableStar"}]},
        **{
            "ngmix_catalog": GALAXIES,
            "star_table": STARS,
        },
    )
    galaxies, stars = (load(name, plain, CHECKOUT, TILE, BANDS) for name in ("ngmixGalaxy", "tableStar"))
    assert len(set(rows["parts"])) > 1
    for row in rows:
        words = str(row["parts"]).replace(",", "").split()
        assert words[::2] == ["ngmixGalaxy", "tableStar"]
        one, other = (
            int(np.flatnonzero(catalog.row == int(number))[0])
            for catalog, number in zip((galaxies, stars), words[1::2], strict=True)
        )
        shape = {name: galaxies.shape[name][one] for name in profiles.PARAMETERS[1:]}
        for band in BANDS:
            light = galaxies.flux[band][one], 0.1 * stars.flux[band][other]
            assert row[f"flux_{band}"] == pytest.approx(sum(light), rel=1e-9)
            galaxy = profiles.profile("bdf", *shape.values()).withFlux(light[0])
            whole = galaxy + galsim.DeltaFunction(flux=light[1]).shift(0.6, -0.3)
            whole = whole.rotate(float(row["rotation"]) * galsim.degrees).withFlux(1.0)
            psf = galsim.Gaussian(fwhm=1.0)
            ours, theirs = (
                galsim.Convolve(one, psf).drawImage(nx=41, ny=41, scale=0.25, dtype=float).array
                for one in (shapes.profile(row, band), whole)
            )
            np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_every_construction_is_the_same_again(tmp_path):
    gal = yaml.safe_load((CHECKOUT / "inputs/examples/19_nested.yaml").read_text())["gal"]
    settings = configured(tmp_path, gal, ngmix_catalog=GALAXIES | {"t_max": 1.5}, star_table=STARS)
    one, two = planned(settings)[0], planned(settings)[0]
    assert one.tobytes() == two.tobytes()
    either = one[one["inj_type"] == "either"]
    assert all(part.startswith("ngmixGalaxy ") for part in either["parts"])
    blurred = one[one["inj_type"] == "blurred"]
    # The half-light radius of a Gaussian of sigma 0.3 arcsec.
    np.testing.assert_allclose(blurred["r50_arcsec"], 0.3 * np.sqrt(2 * np.log(2)), rtol=0.01)


def test_meds_stamps_and_values_of_a_catalogue_are_parts_too(tmp_path):
    meds = {"dir": "inputs/examples", "file_name": "stamps_BAND_meds.fits.fz"}
    flux = {"type": "SourceValue", "source": "star_table", "column": "flux_g", "index": 4}
    gal = {
        "type": "Sum",
        "items": [{"type": "MEDSGalaxy", "index": 0}, {"type": "Gaussian", "sigma": 0.4, "flux": flux}],
    }
    rows, shapes = planned(configured(tmp_path, gal, meds_catalog=meds, star_table=STARS))
    settings = configured(tmp_path, {"type": "MEDSGalaxy"}, meds_catalog=meds)
    stamps = load("MEDSGalaxy", settings, CHECKOUT, TILE, BANDS)
    star = 10 ** (
        0.4 * (30 - np.genfromtxt(CHECKOUT / "inputs/examples/stars.csv", delimiter=",", names=True)["mag_g"][4])
    )
    for band in BANDS:
        np.testing.assert_allclose(rows[f"flux_{band}"], stamps.flux[band][0] + star, rtol=1e-6)
    assert set(rows["parts"]) == {"MEDSGalaxy 0"}
    assert shapes.profile(rows[0], "g").flux == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("gal", "inputs", "message"),
    [
        (
            {"type": "Sum", "items": [{"type": "ngmixGalaxy"}]},
            {},
            "draws from ngmix_catalog, which input does not have",
        ),
        ({"type": "Sum", "items": [{"type": "COSMOSGalaxy"}]}, {}, "make it an item of its own"),
        ({"type": "Gaussian", "sigma": 1, "flux": 1}, {"star_table": STARS}, "gal does not use it"),
        ({"type": "Sum", "items": [{"type": "Gaussian", "sigma": 1}]}, {}, "needs flux"),
    ],
)
def test_configurations_that_are_refused(gal, inputs, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        configured(tmp_path, gal, **inputs)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "tableStar", "index": 1000}, "has .* objects in gr, not 1000"),
        ({"type": "tableStar", "indx": 1}, "indx"),
        ({"type": "tableStar", "band": "z"}, "objects in gr, not .* in 'z'"),
    ],
)
def test_parts_that_cannot_be_made(part, message, tmp_path):
    settings = configured(tmp_path, {"type": "Sum", "items": [part]}, star_table=STARS)
    with pytest.raises(ConfigError, match=message):
        planned(settings)


def test_a_part_whose_table_is_missing(tmp_path):
    gal = {"type": "Sum", "items": [{"type": "tableStar"}]}
    with pytest.raises(BalrogError, match="a table is not there"):
        planned(configured(tmp_path, gal, star_table={"file_name": "nosuch.csv"}))


def test_galsim_alone_takes_stamps_and_spectra(tmp_path, monkeypatch):
    monkeypatch.setenv("BALROG_BASE", str(CHECKOUT))
    spectra = {"files": ["CWW_E_ext.sed", "CWW_Sbc_ext.sed", "CWW_Scd_ext.sed", "CWW_Im_ext.sed"], "mag_band": "i"}
    table = {"dir": "inputs/examples", "file_name": "galaxies_chromatic.csv", "model": "bulge_disk", "seds": spectra}
    bandpass = {"dir": "inputs/bandpasses", "file_name": "DECam_BAND.dat"}
    stamps = {"dir": "inputs/examples", "file_name": "stamps_BAND_meds.fits.fz", "bands": ["g", "r"]}
    config = {
        "input": {"galaxy_table": {**table, "bandpass": bandpass}, "meds_catalog": stamps},
        "gal": {
            "type": "Sum",
            "items": [
                {"type": "tableGalaxy", "band": "g", "index": 1},
                {"type": "MEDSGalaxy", "band": "g", "index": 1},
            ],
        },
        "rng": galsim.BaseDeviate(1),
    }
    galsim.config.ProcessInput(config)
    whole, _ = galsim.config.BuildGSObject(config, "gal")
    parts = [config["_input_objs"][name][0].catalog.flux["g"][1] for name in ("galaxy_table", "meds_catalog")]
    assert whole.flux == pytest.approx(sum(parts), rel=1e-6)
    del config["input"]["galaxy_table"]["bandpass"]
    with pytest.raises(galsim.GalSimError, match="spectra need a bandpass"):
        galsim.config.ProcessInput({"input": {"galaxy_table": table}})
