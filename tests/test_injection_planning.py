"""Positions, catalogues and the plan."""

from pathlib import Path

import numpy as np
import pytest
from injection_tile import DEC, RA, TILE, configuration
from scipy.spatial import cKDTree

from balrogutils.archive.geometry import Geometry
from balrogutils.errors import InjectionError, InputError
from balrogutils.fitsfile import Table, read_table, write_tables
from balrogutils.injection import positions
from balrogutils.injection.planning import make_plan
from balrogutils.injection.sources.loading import load
from balrogutils.settings.injection import Injection
from balrogutils.settings.sampling import Positions
from balrogutils.settings.yamlfile import parse

CHECKOUT = Path(__file__).resolve().parents[1]
GEOMETRY = Geometry.tangent(TILE, RA, DEC, 1000, 1000, 0.263, {"g": 0.1, "r": 0.07})


def settings(**image):
    return parse(Injection, configuration(**image), None)


def planned(config, realization="0", seed=7, bands=("g", "r")):
    catalogs = {item.type: load(item.type, config, CHECKOUT, TILE, bands) for item in config.gal.items}
    return make_plan(config, catalogs, GEOMETRY, bands, seed, realization)


def hexagons(spacing, size=10000, **keys):
    return positions.grid(
        "HexGrid", Positions(type="HexGrid", grid_spacing=spacing, **keys), (size, size), 0.263, 1, ("t", "0")
    )


@pytest.mark.parametrize(("spacing", "count"), [(20.0, 14512), (30.0, 6332)])
def test_hexagonal_grids_have_the_known_counts_and_distance(spacing, count):
    # Counts of the Balrog runs for a DES tile; neighbours at 2/sqrt(3) of the spacing.
    points = hexagons(spacing)
    assert len(points) == count
    nearest = cKDTree(points).query(points, k=2)[0][:, 1]
    np.testing.assert_allclose(nearest * 0.263, 2 / np.sqrt(3) * spacing, rtol=1e-9)


def test_grids_keep_one_spacing_from_the_border_and_are_centred():
    for kind in ("HexGrid", "RectGrid"):
        points = positions.grid(kind, Positions(type=kind, grid_spacing=20.0), (1000, 800), 0.263, 1, ("t", "0"))
        step = 20.0 / 0.263
        assert points.min() > step - 1e-5
        assert (points.max(axis=0) < np.array([999, 799]) - step + 1e-5).all()
        np.testing.assert_allclose(points.min(axis=0) + points.max(axis=0), [999, 799], atol=1e-6)


def test_rotation_and_offset_turn_and_shift_the_grid():
    plain = hexagons(20.0, 2000)
    turned = hexagons(20.0, 2000, rotate=60.0, angle_unit="deg")
    # A sixth of a turn maps the lattice onto itself only about one of its points; distances stay in any case.
    nearest = cKDTree(turned).query(turned, k=2)[0][:, 1]
    np.testing.assert_allclose(nearest * 0.263, 2 / np.sqrt(3) * 20, rtol=1e-9)
    shifted = hexagons(20.0, 2000, offset=[2.63, 0.0])
    distance = cKDTree(plain).query(shifted)[0]
    np.testing.assert_allclose(distance, 10.0, atol=1e-6)
    random = [hexagons(20.0, 2000, rotate="Random", offset="Random") for _ in range(2)]
    np.testing.assert_array_equal(*random)


def test_a_grid_that_does_not_fit_is_an_error():
    with pytest.raises(InjectionError, match="fits into a tile"):
        hexagons(200.0, 1000)


def test_far_too_many_positions_are_refused_before_they_are_made():
    with pytest.raises(InjectionError, match="more than 1000000 points"):
        hexagons(0.001)
    for much in ({"n_objects": 10**12}, {"object_density": 1e12}):
        config = settings(pos_sampling="uniform", **much)
        with pytest.raises(InjectionError, match="at most 1000000"):
            planned(config)


def test_stars_do_not_lie_on_galaxies_when_both_ask_for_the_same_grid():
    plan = planned(settings(pos_sampling={"type": "HexGrid", "grid_spacing": 20.0}))
    star = plan["inj_type"] == "desStar"
    sky = np.column_stack([plan["ra"] * np.cos(np.radians(DEC)), plan["dec"]]) * 3600
    distance = cKDTree(sky[~star]).query(sky[star])[0]
    # The centre of a triangle of side 23.1 arcsec is 13.3 arcsec from its corners.
    assert distance.min() == pytest.approx(2 / 3 * 20, rel=1e-3)


def test_uniform_positions_fill_the_unique_area_and_wrap():
    box = (359.9, 0.3, 60.0, 61.0)
    sky = positions.uniform(3, ("p",), 4000, box)
    offset = (sky[:, 0] + 180) % 360 - 180
    assert (offset >= -0.1).all()
    assert (offset <= 0.3).all()
    assert (sky[:, 0] >= 0).all()
    # Uniform in RA and in sin(dec): Kolmogorov-Smirnov distance below 1.95 / sqrt(n), probability 0.001.
    for values, low, high in ((offset, -0.1, 0.3), (np.sin(np.radians(sky[:, 1])), *np.sin(np.radians([60.0, 61.0])))):
        fraction = np.sort((values - low) / (high - low))
        assert np.abs(fraction - (np.arange(4000) + 0.5) / 4000).max() < 1.95 / np.sqrt(4000)
    np.testing.assert_array_equal(positions.uniform(3, ("p",), 10, box), sky[:10])


def test_unique_area_in_square_arcmin():
    assert positions.unique_area(359.5, 0.5, -0.5, 0.5) == pytest.approx(3600.0, rel=1e-4)


def test_mixed_grids_share_out_every_point_once():
    config = settings()
    plan = planned(config)
    points = positions.grid("HexGrid", Positions(type="HexGrid", grid_spacing=9.0), (1000, 1000), 0.263, 7, (TILE, "0"))
    assert len(plan) == len(points)
    assert len(np.unique(plan[["ra", "dec"]])) == len(plan)
    assert np.sum(plan["inj_type"] == "ngmixGalaxy") == len(points) // 2


def test_the_plan_is_the_same_again_and_other_realizations_differ():
    config = settings()
    one, two, other = planned(config), planned(config), planned(config, "1")
    assert one.tobytes() == two.tobytes()
    assert not set(one["bal_id"]) & set(other["bal_id"])
    assert not np.array_equal(one["cat_row"], other["cat_row"])


def test_a_band_or_more_objects_change_nothing_of_the_others():
    few = planned(settings(pos_sampling="uniform", n_objects={"ngmix_catalog": 5, "des_star_catalog": 5}))
    more = planned(
        settings(pos_sampling="uniform", n_objects={"ngmix_catalog": 9, "des_star_catalog": 5}), bands=("g",)
    )
    names = ["cat_row", "ra", "dec", "flux_g", "g1", "g2", "rotation"]
    np.testing.assert_array_equal(few[names][:5], more[names][:5])
    np.testing.assert_array_equal(few[names][5:], more[names][9:])


def test_density_counts_by_the_unique_area():
    config = settings(pos_sampling="uniform", object_density=2.0)
    area = positions.unique_area(GEOMETRY.uramin, GEOMETRY.uramax, GEOMETRY.udecmin, GEOMETRY.udecmax)
    assert len(planned(config)) == 2 * round(2.0 * area)


def test_rotation_turns_the_shear_and_keeps_its_size():
    turned, plain = planned(settings()), planned(settings(rotate_objs=False))
    assert (plain["rotation"] == 0).all()
    z = (plain["g1"] + 1j * plain["g2"]) * np.exp(2j * np.radians(turned["rotation"]))
    np.testing.assert_allclose(turned["g1"] + 1j * turned["g2"], z, atol=1e-12)


def test_a_band_without_extinction_is_an_error():
    config = settings(extinct_objs=True)
    with pytest.raises(InputError, match="no extinction"):
        planned(config, bands=("g", "i"))


def test_a_band_that_catalogues_lack_is_an_error():
    with pytest.raises(InputError, match="g, r, i, z only"):
        planned(settings(), bands=("g", "Y"))


@pytest.fixture
def galaxy_file(tmp_path):
    """Write galaxies after a change, and return settings that read them from tmp_path."""

    def make(change=lambda rows: rows, **section):
        rows = change(read_table(CHECKOUT / "inputs" / "galaxies_cosmos_hsc.fits").copy())
        write_tables(tmp_path / "galaxies.fits", [Table("GALAXIES", rows)])
        config = configuration()
        config["input"]["ngmix_catalog"] = {
            "dir": str(tmp_path),
            "file_name": "galaxies.fits",
            "catalog_type": "bdf",
        } | section
        return load("ngmixGalaxy", parse(Injection, config, None), CHECKOUT, TILE, ("g", "r"))

    return make


def test_rows_that_cannot_be_drawn_are_dropped_with_a_count(galaxy_file, caplog):
    caplog.set_level("INFO")

    def spoil(rows):
        rows["bdf_T"][0] = np.nan
        rows["bdf_T"][1] = -1
        rows["bdf_flux"][2, 0] = -5
        rows["bdf_flux"][3, 1] = np.inf
        rows["bdf_g"][4] = 0.9, 0.9
        rows["bdf_fracdev"][5] = 1.5
        rows["flags"][6] = 1
        rows["bdf_flux"][7, 3] = np.nan  # z is not asked for
        return rows

    catalog = galaxy_file(spoil)
    assert set(catalog.row) == set(range(141)) - set(range(7))
    assert "134 of 141 rows" in caplog.text
    assert "1 outside the cuts, 6 with" in caplog.text


def test_cuts(galaxy_file):
    rows = read_table(CHECKOUT / "inputs" / "galaxies_cosmos_hsc.fits")
    catalog = galaxy_file(t_min=0.1, t_max=2.0, snr_min=20, snr_max=500, t_frac=5)
    s2n, t = rows["bdf_s2n_r"], rows["bdf_T"]
    keep = (t > 0.1) & (t < 2) & (s2n > 20) & (s2n < 500) & (np.abs(t / rows["bdf_T_err"]) >= 5)
    np.testing.assert_array_equal(catalog.row, np.flatnonzero(keep))
    np.testing.assert_array_equal(catalog.flux["r"], rows["bdf_flux"][keep, 1])


def test_nothing_left_after_cuts_is_an_error(galaxy_file):
    with pytest.raises(InputError, match="no ngmixGalaxy is left"):
        galaxy_file(t_max=1e-9)


def test_a_missing_column_is_named_with_what_is_there(galaxy_file):
    with pytest.raises(InputError, match="no column cm_flux"):
        galaxy_file(catalog_type="cm")
    with pytest.raises(InputError, match="cannot be told"):
        galaxy_file(catalog_type=None)


def test_a_missing_catalogue_is_an_error():
    config = configuration()
    config["input"]["ngmix_catalog"]["file_name"] = "nowhere.fits"
    with pytest.raises(InputError, match="galaxy catalogue is not there"):
        load("ngmixGalaxy", parse(Injection, config, None), CHECKOUT, TILE, ("g",))
    with pytest.raises(InputError, match="no star catalogue"):
        load("desStar", settings(), CHECKOUT, "DES0000+0000", ("g",))


def test_star_magnitudes_follow_the_colours(tmp_path):
    config = configuration()
    config["input"]["des_star_catalog"] = {"base_dir": str(tmp_path)}
    names = "RA_new,DEC_new,g_Corr,gr_Corr,ri_Corr,iz_Corr,gi_Corr"
    (tmp_path / f"Model_{TILE}.csv").write_text(f"{names}\n1,2,20,0.5,0.25,0.125,0.75\n1,2,nan,0.5,0.25,0.125,0.75\n")
    catalog = load("desStar", parse(Injection, config, None), CHECKOUT, TILE, ("g", "r", "i", "z"))
    mags = [30 - 2.5 * np.log10(catalog.flux[band]) for band in "griz"]
    np.testing.assert_allclose(np.ravel(mags), [20, 19.5, 19.25, 19.125])
    assert list(catalog.row) == [0]
    for text, message in (("a,b\n1,2\n", "lacks the columns RA_new"), (f"{names}\n1,2\n", "not a table")):
        (tmp_path / f"Model_{TILE}.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            load("desStar", parse(Injection, config, None), CHECKOUT, TILE, ("g",))


@pytest.mark.parametrize("name", ["galaxies_cosmos_hsc.fits", "galaxies_exp.fits"])
def test_shipped_galaxies_have_the_radius_they_state(name):
    from balrogutils.injection.profiles import component_radii, half_light_radius

    rows = read_table(CHECKOUT / "inputs" / name)
    parts = np.array([component_radii("bdf", r["bdf_T"], r["bdf_fracdev"], r["bdf_TdByTe"], *r["bdf_g"]) for r in rows])
    np.testing.assert_allclose(half_light_radius(*parts.T, rows["bdf_fracdev"]), rows["hlr_arcsec"], rtol=1e-6)
    assert np.isfinite(rows["bdf_mag"]).all()
    assert ((rows["bdf_mag"] > 15) & (rows["bdf_mag"] < 28.5)).all()


def test_shipped_stars_lie_on_a_locus():
    catalog = load("desStar", settings(), CHECKOUT, TILE, ("g", "r", "i", "z"))
    g, r, i, z = (30 - 2.5 * np.log10(catalog.flux[band]) for band in "griz")
    assert ((i > 16.9) & (i < 22.1)).all()
    # A smooth main sequence: redder in g - i is redder in r - i and i - z.
    for colour in (r - i, i - z):
        assert np.corrcoef(g - i, colour)[0, 1] > 0.9
