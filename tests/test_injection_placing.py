"""Positions beside grids: Halton, tables, catalogues, and what is left out; weights; lensing and extinction."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from injection_tile import DEC, RA, TILE, configuration
from scipy.spatial import cKDTree

from balrogutils.archive.geometry import Geometry
from balrogutils.errors import ConfigError, InjectionError, InputError
from balrogutils.injection import positions
from balrogutils.injection.planning import make_plan
from balrogutils.injection.sources.loading import load
from balrogutils.settings.injection import Injection
from balrogutils.settings.yamlfile import parse

CHECKOUT = Path(__file__).resolve().parents[1]
GEOMETRY = Geometry.tangent(TILE, RA, DEC, 1000, 1000, 0.263, {"g": 0.1, "r": 0.07})
BOX = (GEOMETRY.uramin, GEOMETRY.uramax, GEOMETRY.udecmin, GEOMETRY.udecmax)
STARS = {"star_table": {"dir": "inputs/examples", "file_name": "stars.csv"}}


def planned(image, gal=None, inputs=None, base=CHECKOUT, realization="0", bands=("g", "r"), seed=7, **more):
    config = configuration()
    config["image"] = {"type": "Balrog", **image}
    config["gal"] = gal or {"type": "tableStar"}
    config["input"] = STARS if inputs is None else inputs
    settings = parse(Injection, config, None)
    settings._check(None)
    catalogs = {
        item.type: load(item.type, settings, CHECKOUT, TILE, bands) for item in settings.gal.items if not item.native
    }
    return make_plan(settings, catalogs, GEOMETRY, bands, seed, realization, base, **more)


def apart(plan):
    sky = np.column_stack([(plan["ra"] - RA) * np.cos(np.radians(DEC)), plan["dec"] - DEC]) * 3600
    return cKDTree(sky).query(sky, k=2)[0][:, 1]


def test_halton_positions_fill_the_area_more_evenly_than_random_ones():
    count = 512
    places = positions.halton(3, ("p",), count, BOX)
    assert positions.inside(places, BOX).all()
    np.testing.assert_array_equal(positions.halton(3, ("p",), 10, BOX), places[:10])
    assert not np.array_equal(positions.halton(3, ("q",), 10, BOX), places[:10])
    cells = np.histogram2d(*places.T, bins=8, range=[BOX[:2], BOX[2:]])[0]
    random = np.histogram2d(*positions.uniform(3, ("p",), count, BOX).T, bins=8, range=[BOX[:2], BOX[2:]])[0]
    # Poisson counts of mean 8 have a variance of 8; a quarter of that separates the two.
    assert cells.var() < 2.0 < random.var()


def test_a_box_across_zero_hours():
    box = (359.9, 0.2, -1.0, 1.0)
    sky = np.array([[0.0, 0.0], [359.95, 0.5], [0.3, 0.0], [359.8, 0.0], [0.1, 1.1]])
    assert list(positions.inside(sky, box)) == [True, True, False, False, False]


def test_unique_area_keeps_what_neighbours_do_not_inject():
    shrunk = Geometry(**{**GEOMETRY.__dict__, "uramin": RA - 0.02, "udecmax": DEC + 0.01})
    assert shrunk.uramin > GEOMETRY.uramin
    image = {"pos_sampling": {"type": "HexGrid", "grid_spacing": 12}}
    full = planned(image)
    kept = planned({**image, "unique_area": True})
    assert set(kept["number"]) <= set(full["number"])
    box = positions.inside(np.column_stack([full["ra"], full["dec"]]), BOX)
    np.testing.assert_array_equal(full["number"][box], kept["number"])


def test_minimum_separation_leaves_out_the_later_one_and_changes_nothing_else():
    image = {"pos_sampling": "uniform", "n_objects": 300}
    full, kept = planned(image), planned({**image, "min_separation": 10})
    assert apart(full).min() < 10 < apart(kept).min() + 1e-6
    assert 50 < len(kept) < 300
    same = full[kept["number"]]
    for name in ("ra", "dec", "cat_row", "rotation", "flux_g"):
        np.testing.assert_array_equal(same[name], kept[name])
    # Every one left out is near to one that stayed, of a smaller number.
    for row in full[~np.isin(full["number"], kept["number"])]:
        near = 3600 * np.hypot((kept["ra"] - row["ra"]) * np.cos(np.radians(DEC)), kept["dec"] - row["dec"]) < 10
        assert kept["number"][near].min() < row["number"]


def test_bright_stars_are_avoided(tmp_path):
    (tmp_path / "bright.csv").write_text(f"ra,dec,radius_arcsec\n{RA},{DEC},30\n{RA + 0.02},{DEC},5\n")
    image = {"pos_sampling": "uniform", "n_objects": 200}
    full = planned(image)
    away = 3600 * np.hypot((full["ra"] - RA) * np.cos(np.radians(DEC)), full["dec"] - DEC)
    near = 3600 * np.hypot((full["ra"] - RA - 0.02) * np.cos(np.radians(DEC)), full["dec"] - DEC) < 5
    kept = planned({**image, "avoid": {"file_name": "bright.csv"}}, base=tmp_path)
    np.testing.assert_array_equal(kept["number"], full["number"][(away > 30) & ~near])
    wide = planned({**image, "avoid": {"file_name": "bright.csv", "radius": 40}}, base=tmp_path)
    assert len(wide) < len(kept)
    (tmp_path / "bright.csv").write_text(f"ra,dec\n{RA},nan\n")
    with pytest.raises(InputError, match="no position or radius"):
        planned({**image, "avoid": {"file_name": "bright.csv", "radius": 40}}, base=tmp_path)


def test_masked_positions_are_left_out():
    image = {"pos_sampling": "uniform", "n_objects": 40, "avoid": {"masked": True}}
    kept = planned(image, masked=lambda sky: sky[:, 1] > DEC)
    assert (kept["dec"] <= DEC).all()
    with pytest.raises(InjectionError, match="no tableStar gets a position"):
        planned(image, masked=lambda sky: np.ones(len(sky), bool))


@pytest.mark.parametrize("form", ["pixels", "sky"])
def test_positions_of_a_table(tmp_path, caplog, form):
    caplog.set_level("INFO")
    x, y = np.array([500.5, 10.0, 990.0, -5.0, 1001.0]), np.array([500.5, 20.0, 30.0, 5.0, 5.0])
    sky = np.column_stack(GEOMETRY.wcs().pixel_to_sky(y - 1, x - 1))
    if form == "pixels":
        text = "x,y\n" + "".join(f"{one},{two}\n" for one, two in zip(x, y, strict=True)) + "nan,3\n"
    else:
        # The same right ascension a turn lower; the other side of the sky.
        text = "ra,dec\n" + "".join(f"{one - 360!r},{two!r}\n" for one, two in sky.tolist()) + f"{RA + 180},{-DEC}\n"
    (tmp_path / "places.csv").write_text(text)
    plan = planned({"pos_sampling": {"type": "Table", "file_name": "places.csv"}}, base=tmp_path)
    np.testing.assert_allclose(np.column_stack([plan["ra"], plan["dec"]]), sky[:3], atol=1e-9)
    assert list(plan["number"]) == [0, 1, 2]
    assert "3 of 6 positions of places.csv" in caplog.text


def test_a_table_of_positions_elsewhere_is_an_error(tmp_path):
    (tmp_path / "places.csv").write_text("ra,dec\n10,20\n")
    with pytest.raises(InputError, match="none of the 1 positions"):
        planned({"pos_sampling": {"type": "Table", "file_name": "places.csv"}}, base=tmp_path)


def test_realizations_share_the_positions_of_a_star_catalogue():
    inputs = {"des_star_catalog": {"base_dir": "inputs", "model_type": "stars"}}
    image = {"pos_sampling": "sahar", "n_realizations": 3}
    plans = [planned(image, {"type": "desStar"}, inputs, realization=name) for name in "012"]
    rows = np.concatenate([plan["cat_row"] for plan in plans])
    assert len(np.unique(rows)) == len(rows)
    catalog = load(
        "desStar",
        parse(Injection, {**configuration(), "input": inputs, "gal": {"type": "desStar"}}, None),
        CHECKOUT,
        TILE,
        ("g",),
    )
    np.testing.assert_array_equal(np.column_stack([plans[1]["ra"], plans[1]["dec"]]), catalog.sky[plans[1]["cat_row"]])


def test_rows_are_chosen_by_weight(tmp_path):
    (tmp_path / "stars.csv").write_text("mag_g,mag_r,weight\n20,20,1\n21,21,0\n22,22,3\n23,23,nan\n")
    inputs = {"star_table": {"dir": str(tmp_path), "file_name": "stars.csv", "weight": "weight"}}
    plan = planned({"pos_sampling": "uniform", "n_objects": 2000}, inputs=inputs)
    count = np.bincount(plan["cat_row"], minlength=4)
    assert count[1] == count[3] == 0
    # 500 expected with a sigma of 19.
    assert abs(count[0] - 500) < 5 * 19.4
    (tmp_path / "stars.csv").write_text("mag_g,mag_r,weight\n20,20,0\n")
    with pytest.raises(InputError, match="sum to nothing"):
        planned({"pos_sampling": "uniform", "n_objects": 5}, inputs=inputs)


def test_lensing_scaling_and_extinction_are_in_the_flux_and_told():
    gal = {
        "type": "tableStar",
        "lens": {"shear": {"type": "G1G2", "g1": 0.05, "g2": 0.0}, "mu": 1.5},
        "shear": {"type": "G1G2", "g1": 0.0, "g2": 0.1},
        "magnify": 1.2,
        "scale_flux": {"type": "Random", "min": 0.5, "max": 1.0},
        "ebv": 0.1,
    }
    image = {"pos_sampling": "uniform", "n_objects": 30}
    plain, lensed = planned(image), planned({**image, "extinct_objs": True}, gal)
    np.testing.assert_allclose(lensed["magnification"], 1.8)
    factor = 10 ** (-0.4 * (0.1 + 3.186 * 0.1))
    np.testing.assert_allclose(lensed["extinction_g"], factor, rtol=1e-12)
    np.testing.assert_allclose(lensed["flux_g"], plain["flux_g"] * 1.8 * lensed["light_scale"] * factor, rtol=1e-12)
    assert (lensed["light_scale"] >= 0.5).all()
    assert len(np.unique(lensed["light_scale"])) == 30
    # As GalSim adds shears: first `shear`, then `lens`.
    import galsim

    both = galsim.Shear(g1=0.05) + galsim.Shear(g2=0.1)
    np.testing.assert_allclose(lensed["shear_g1"] + 1j * lensed["shear_g2"], both.g1 + 1j * both.g2, atol=1e-12)


@pytest.mark.parametrize(
    ("gal", "message"),
    [
        ({"type": "Sersic", "n": 1, "half_light_radus": 1, "flux": 9}, "did you mean 'half_light_radius'"),
        ({"type": "Gaussian", "sigma": 1, "flux": -3}, "has the flux"),
        ({"type": "Gaussian", "sigma": 1, "mag": {"g": 20}}, "GalSim does not take"),
        ({"type": "Gaussian", "sigma": 1, "mag": 20, "shear": 3}, "GalSim does not take"),
        ({"type": "Gaussian", "sigma": 1, "mag": 20, "scale_flux": -1}, "flux scale -1"),
    ],
)
def test_what_galsim_does_not_take(gal, message):
    with pytest.raises((ConfigError, InputError), match=message):
        planned({"pos_sampling": "uniform", "n_objects": 2}, gal, {})


def test_galsim_makes_the_same_object_in_every_band_and_another_for_every_number():
    gal = {
        "type": "Exponential",
        "half_light_radius": {"type": "Random", "min": 0.3, "max": 0.9},
        "mag": {"g": 21, "r": 20},
    }
    one = planned({"pos_sampling": "uniform", "n_objects": 5}, gal, {})
    more = planned({"pos_sampling": "uniform", "n_objects": 9}, gal, {}, bands=("r",))
    assert len(np.unique(one["r50_arcsec"])) == 5
    np.testing.assert_array_equal(one["r50_arcsec"], more["r50_arcsec"][:5])
    np.testing.assert_allclose(one["flux_g"], 10**3.6, rtol=1e-12)
    assert ((one["r50_arcsec"] > 0.3) & (one["r50_arcsec"] < 0.9)).all()


def test_galsim_reads_its_own_inputs_below_the_checkout(tmp_path):
    (tmp_path / "sizes.txt").write_text("0.3 2000\n0.5 3000\n0.7 4000\n")
    config = configuration()
    config["image"] = {"type": "Balrog", "n_objects": 3}
    config["input"] = {"catalog": {"file_name": "sizes.txt"}}
    size, flux = ({"type": "Catalog", "col": column, "index": "$obj_num"} for column in (0, 1))
    config["gal"] = {"type": "Exponential", "half_light_radius": size, "flux": flux}
    path = tmp_path / "galsim.yaml"
    path.write_text(yaml.safe_dump(config))
    settings = Injection.load(path)
    assert settings.files(tmp_path, TILE, ("g",)) == [tmp_path / "sizes.txt"]
    plan = make_plan(settings, {}, GEOMETRY, ("g",), 7, "0", tmp_path)
    np.testing.assert_allclose(plan["r50_arcsec"], [0.3, 0.5, 0.7])
    np.testing.assert_allclose(plan["flux_g"], [2000, 3000, 4000])
    (tmp_path / "sizes.txt").unlink()
    with pytest.raises(ConfigError, match="GalSim cannot use an input"):
        make_plan(settings, {}, GEOMETRY, ("g",), 7, "0", tmp_path)
