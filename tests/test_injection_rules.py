"""A rules file that drives block 8: the same objects as through `balrog image`, in the pixels of the tile."""

import dataclasses
from pathlib import Path

import galsim
import numpy as np
import pytest
from injection_tile import DEC, RA, TILE
from one_image import HEAD, ROUND, Run, write_input
from scipy.spatial import cKDTree
from scipy.stats import ks_2samp

from balrogutils.archive.geometry import Geometry
from balrogutils.errors import ConfigError, InputError
from balrogutils.fitsfile import read_table
from balrogutils.injection.planning import make_plan, plan_digest
from balrogutils.injection.shapes import Shapes
from balrogutils.injection.sources.loading import load_all
from balrogutils.rules.defaults import COSMOS
from balrogutils.settings.injection import Injection
from balrogutils.settings.yamlfile import parse

CHECKOUT = Path(__file__).resolve().parents[1]
GEOMETRY = Geometry.tangent(TILE, RA, DEC, 1000, 800, 0.263, {"g": 0.1, "r": 0.07})
PSF = {"psf": {"type": "DES_PSFEx"}, "stamp": {"draw_method": "no_pixel"}}


def settings(file, count, *, item=None, args=(), image=None, **section):
    """An injection configuration for a rules file."""
    rules = {"file_name": str(file), "args": list(args), **section}
    number = {"type": "Balrog", "pos_sampling": "rules", "n_objects": count}
    gal = {"type": "rulesGalaxy", **(item or {})}
    return parse(Injection, {"input": {"rules": rules}, "gal": gal, "image": number | (image or {}), **PSF}, None)


def planned(config, realization="0", *, seed=7, bands=("g", "r"), geometry=GEOMETRY):
    catalogs = load_all(config, geometry, CHECKOUT, bands, seed, realization)
    return make_plan(config, catalogs, geometry, bands, seed, realization, CHECKOUT)


def written(directory, text):
    directory.mkdir(exist_ok=True)
    (directory / "rules.py").write_text(HEAD + text)
    return directory / "rules.py"


def rules(**given):
    """ROUND with other rules for some parameters."""
    lines = "".join(f"    rules.{name} = {value}\n" for name, value in given.items())
    return ROUND.replace("def CustomArgs", lines + "def CustomArgs", 1)


def test_the_same_rules_give_the_same_distributions_as_one_image(tmp_path):
    text = (CHECKOUT / "inputs/pyconfig/02_catalogue.py").read_text()
    cosmos, count, shape = CHECKOUT / COSMOS, 300, (200, 250)
    field = write_input(tmp_path / "in", shape)
    words = ["--catalog", cosmos, "--ngal", count]
    image = Run(tmp_path / "out", text, *field, "--imageonly", "--nonosim", *words)
    plan = planned(settings(image.file, count, args=["--catalog", str(cosmos)]))
    row, col = GEOMETRY.wcs().sky_to_pixel(plan["ra"], plan["dec"])
    g = plan["g1_0"] + 1j * plan["g2_0"]
    ratio = (1 - np.abs(g)) / (1 + np.abs(g))
    truth = image.truth
    pairs = {
        "x": (truth["x"] / shape[1], (col + 1) / 1000),
        "y": (truth["y"] / shape[0], (row + 1) / 800),
        "index": (truth["sersicindex_0"], plan["sersic_n_0"]),
        "size": (truth["halflightradius_0"], plan["r50_arcsec_0"] / np.sqrt(ratio)),
        "axis ratio": (truth["axisratio_0"], ratio),
        "angle": (truth["beta_0"], 0.5 * np.degrees(np.angle(g))),
        "flux": (truth["flux_0"], plan["flux_g"]),
        "redshift": (truth["REDSHIFT"], plan["own_REDSHIFT"]),
    }
    assert len(plan) == count
    for name, (one, other) in pairs.items():
        # Eight tests with a chance of 1e-4 each to fail where nothing is wrong.
        assert ks_2samp(one, np.float32(other)).pvalue > 1e-4, name
        assert not np.array_equal(one, np.float32(other)), f"{name} is copied, not drawn"
    # Index, size, axis ratio and redshift of every object are those of one row of the table, here and there.
    table = read_table(cosmos)
    names = ("SERSIC_INDEX", "HALF_LIGHT_RADIUS", "AXIS_RATIO", "Z")
    tree = cKDTree(np.column_stack([table[name] for name in names]))
    for side in range(2):
        values = np.column_stack([pairs[name][side] for name in ("index", "size", "axis ratio", "redshift")])
        assert tree.query(values)[0].max() < 1e-5


@pytest.mark.parametrize("parity", [1, -1])
def test_angles_and_shears_count_from_x_of_the_tile(tmp_path, parity):
    turn, scale = np.radians(25.0), 0.263 / 3600
    cd = {"cd1_1": -parity * scale * np.cos(turn), "cd1_2": scale * np.sin(turn)}
    cd |= {"cd2_1": parity * scale * np.sin(turn), "cd2_2": scale * np.cos(turn)}
    geometry = dataclasses.replace(GEOMETRY, **cd)
    given = {"x": "[300.0, 700.0]", "y": 400, "sersicindex": 0.5, "halflightradius": 2.0, "magnitude": 20}
    given |= {"axisratio": 0.5, "beta": 30, "g1": "[0, 0.1]", "g2": "[0, 0.05]", "magnification": "[1, 1.2]"}
    config = settings(written(tmp_path, rules(**given)), 2)
    plan = planned(config, geometry=geometry)
    wcs = geometry.wcs()
    row, col = wcs.sky_to_pixel(plan["ra"], plan["dec"])
    np.testing.assert_allclose((row + 1, col + 1), ([400, 400], [300, 700]), atol=1e-6)
    assert plan["magnification"].tolist() == [1, 1.2]
    assert plan["flux_g"] == pytest.approx([1e4, 1.2e4])
    assert np.hypot(plan["shear_g1"], plan["shear_g2"]) == pytest.approx([0, np.hypot(0.1, 0.05)])
    # A Gaussian, since n = 1/2: the major axis holds half of the light at 2 arcsec where nothing is lensed.
    shapes = Shapes(config, CHECKOUT, TILE, "0", 7)
    for one in range(2):
        local = wcs.jacobian(row[one], col[one])
        grid = galsim.JacobianWCS(
            *(float(value[0]) for value in (local.dudcol, local.dudrow, local.dvdcol, local.dvdrow))
        )
        image = grid.toImage(shapes.profile(plan[one])).drawImage(nx=201, ny=201, scale=1.0, method="no_pixel")
        seen = image.FindAdaptiveMom()
        wanted = galsim.Shear(q=0.5, beta=30 * galsim.degrees)
        if one == 1:
            wanted = galsim.Shear(g1=0.1, g2=0.05) + wanted
        assert seen.observed_shape.g1 == pytest.approx(wanted.g1, abs=1e-4)
        assert seen.observed_shape.g2 == pytest.approx(wanted.g2, abs=1e-4)
        sigma = 2.0 * np.sqrt(0.5) / 0.263 / np.sqrt(2 * np.log(2))
        assert seen.moments_sigma == pytest.approx(sigma * np.sqrt(plan["magnification"][one]), rel=1e-3)


def test_realizations_differ_and_nothing_else_changes_what_is_drawn(tmp_path):
    config = settings(written(tmp_path, ROUND), 12)
    one = planned(config)
    assert one.tobytes() == planned(config).tobytes()
    for other in (planned(config, "1"), planned(config, seed=8)):
        assert not np.array_equal(one["ra"], other["ra"])
        assert not np.array_equal(one["flux_g"], other["flux_g"])
    # Another band, stars beside them, and objects that are left out.
    assert plan_digest(planned(config, bands=("g",)), "g") == plan_digest(one, "g")
    few = planned(settings(config.input.rules.file_name, 12, image={"min_separation": 60.0}))
    assert 0 < len(few) < 12
    kept = one[np.isin(one["number"], few["number"])]
    for name in ("ra", "flux_g", "rotation", "sersic_n_0"):
        np.testing.assert_array_equal(few[name], kept[name])


def test_pairs_have_opposite_shears(tmp_path):
    config = settings(written(tmp_path, rules(g1=0.02, g2="sampled.g1")), 4, image={"shear_pairs": True})
    one, other = planned(config, "0"), planned(config, "1")
    np.testing.assert_array_equal(one["ra"], other["ra"])
    assert (one["shear_g1"] != 0).all()
    np.testing.assert_array_equal(one["shear_g1"], -other["shear_g1"])
    np.testing.assert_array_equal(one["shear_g2"], -other["shear_g2"])


def test_objects_are_turned_and_dimmed_as_the_configuration_says(tmp_path):
    file = written(tmp_path, rules(axisratio=0.5))
    plain = planned(settings(file, 5))
    turned = planned(settings(file, 5, item={"scale_flux": 2.0}, image={"rotate_objs": True}))
    assert turned["flux_g"] == pytest.approx(2 * plain["flux_g"])
    shapes = Shapes(settings(file, 5), CHECKOUT, TILE, "0", 7)
    for before, after in zip(plain, turned, strict=True):
        angle = after["rotation"] * galsim.degrees
        assert after["g1"] + 1j * after["g2"] == pytest.approx(
            (before["g1"] + 1j * before["g2"]) * np.exp(2j * angle.rad), abs=1e-12
        )
        wanted = shapes.profile(before).rotate(angle)
        for k in ((0.3, 1.0), (-2.0, 0.5)):
            assert shapes.profile(after).kValue(k) == pytest.approx(wanted.kValue(k), abs=1e-9)


def test_bands_have_magnitudes_of_their_own(caplog):
    plan = planned(settings(CHECKOUT / "inputs/examples/rules_colours.py", 20, args=["--band", "BAND"]))
    share = {band: (plan[f"share_0_{band}"], plan[f"share_1_{band}"]) for band in "gr"}
    assert caplog.text.count("no function CustomParseArgs") == 1
    for band in "gr":
        np.testing.assert_allclose(sum(share[band]), 1, rtol=1e-12)
    # Colours of bulge and disk, as the file has them: 1.2 and 0.4 in g - r.
    for number, colour in enumerate((1.2, 0.4)):
        light = {band: share[band][number] * plan[f"flux_{band}"] for band in "gr"}
        np.testing.assert_allclose(-2.5 * np.log10(light["g"] / light["r"]), colour, rtol=1e-9)
    assert plan["shear_g1"] == pytest.approx(np.full(20, 0.02), abs=1e-4)
    whole = Shapes(settings("x", 1), CHECKOUT, TILE, "0", 7)
    assert whole.profile(plan[0], "g") != whole.profile(plan[0], "r")
    # Without the band in the arguments all bands are alike.
    grey = planned(settings(CHECKOUT / "inputs/examples/rules_colours.py", 20))
    np.testing.assert_array_equal(grey["flux_g"], grey["flux_r"])
    assert "share_0" in grey.dtype.names


def test_what_cannot_be_drawn_or_lies_elsewhere_is_left_out(tmp_path, caplog):
    caplog.set_level("INFO")
    odd = rules(
        x="[500, 500, 500, 500, 500, 5000, 500, 500, 500, -0.6]",
        y="np.arange(10) * 50 + 100",
        sersicindex="[1, 9, 1, 1, 1, 1, 1, 1, 1, 1]",
        halflightradius="[0.5, 0.5, 0, 0.5, 0.5, 0.5, -1, 1, 1, 1]",
        axisratio="[1, 1, 1, 1, 1, 1, 1, -1, 1, 1]",
        magnitude="[20, 20, 20, -99, 20, 20, 20, 20, 20, 20]",
        g1="[0, 0, 0, 0, 1.5, 0, 0, 0, 0, 0]",
        magnification="[1, 1, 1, 1, 1, 1, 1, 1, 0, 1]",
    )
    plan = planned(settings(written(tmp_path, odd), 10))
    assert plan["number"].tolist() == [0, 2]
    assert "6 rows of rules.py left out" in caplog.text
    assert "2 of 4 positions of rules.py" in caplog.text
    # No WCS knows the sky that far away.
    far = written(tmp_path, rules(x="[500, 1e300, -1e300]", y="[500, 500, 1e9]"))
    assert planned(settings(far, 3))["number"].tolist() == [0]
    # A radius of 0 is a point.
    assert plan["r50_arcsec"].tolist() == pytest.approx([0.5, 0])
    point = Shapes(settings("x", 1), CHECKOUT, TILE, "0", 7).profile(plan[1])
    assert point.kValue(30.0, -20.0) == pytest.approx(1, abs=1e-6)
    with pytest.raises(InputError, match="no rulesGalaxy is left"):
        planned(settings(written(tmp_path, rules(axisratio=2)), 3))


def test_the_files_own_arguments_and_columns(tmp_path, caplog):
    caplog.set_level("INFO")
    text = """
def CustomArgs(parser): parser.add_argument("--depth", type=float, default=1.0)
def CustomParseArgs(args):
    args.depth, args.ngal = 2 * args.depth, 99
def SimulationRules(args, rules, sampled, TruthCat):
    rules.magnitude = args.depth
    TruthCat.AddColumn(sampled.x, name="WHERE")
    TruthCat.AddColumn("word", name="WORD")
"""
    plan = planned(settings(written(tmp_path, text), 3, args=["--depth", 11]))
    assert plan["flux_g"] == pytest.approx(np.full(3, 10 ** (0.4 * (30 - 22))))
    col = GEOMETRY.wcs().sky_to_pixel(plan["ra"], plan["dec"])[1]
    np.testing.assert_allclose(plan["own_WHERE"], col + 1, atol=1e-6)
    assert "WORD holds texts" in caplog.text
    assert "gives no rules.beta[0]: 0.0 is taken" in caplog.text


BANDED = """
def CustomArgs(parser): parser.add_argument("--band")
def SimulationRules(args, rules, sampled):
    rules.halflightradius = 0.5 if args.band == "g" else 0.7
"""
CLASH = "def CustomArgs(parser): parser.add_argument('--ngal', type=int)\n"


@pytest.mark.parametrize(
    ("text", "args", "says"),
    [
        (ROUND, ["--depth", "3"], "the arguments are wrong: unrecognized arguments: --depth 3"),
        (CLASH, ["--ngal", "3"], "an argument of the rules file, ngal, has the name of a native one"),
        (BANDED, ["--band", "BAND"], "rules.halflightradius is not the same in every band"),
        ("def SimulationRules(args, rules, sampled): rules.x = args.nothing\n", [], "no attribute 'nothing'"),
        ("def SimulationRules(args, rules, sampled): rules.x = sampled.x\n", [], "in a circle: rules.x"),
    ],
)
def test_wrong_files_are_told(text, args, says, tmp_path):
    file = written(tmp_path, text)
    with pytest.raises(ConfigError, match=says) as caught:
        planned(settings(file, 3, args=args))
    assert str(caught.value.where["file"]) == str(file)
    assert caught.value.remedy


def test_a_density_is_a_number_too(tmp_path):
    file = written(tmp_path, ROUND)
    config = settings(file, None, image={"n_objects": None, "object_density": 2.0})
    assert len(planned(config)) == round(2.0 * (1000 * 800 * 0.263**2 / 3600))
