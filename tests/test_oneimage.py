"""Balrog on one image: what must come out (O 6.1), on synthetic images with known noise."""

import itertools
import re
import shutil
import subprocess

import fitsio
import galsim.des
import identical
import numpy as np
import pytest
from one_image import CHECKOUT, GAIN, ROUND, SIGMA, Run, gaussian_psf, write_input

from balrogutils.errors import InputError, ToolError
from balrogutils.fitsfile import read_header, read_image
from balrogutils.oneimage.arguments import NATIVE, first_look, native_parser, packaged
from balrogutils.oneimage.drawing import draw_all
from balrogutils.oneimage.images import pixel_scale, read_frame
from balrogutils.oneimage.run import _parse
from balrogutils.psf import PSFEx
from balrogutils.rules.defaults import defaults
from balrogutils.rules.pyconfig import for_user
from balrogutils.rules.sampling import component_fluxes, sample
from balrogutils.wcs import ImageWCS

DRAW_ONLY = ["--imageonly", "--nonosim"]
COMPONENT = ["sersicindex", "halflightradius", "flux", "axisratio", "beta"]
VECTOR = ["balrog_index", "x", "y", "g1", "g2", "magnification", "flux_noiseless", "flux_noised", "not_drawn"]


@pytest.fixture
def field(tmp_path):
    return write_input(tmp_path / "in")


def rules(**given):
    """ROUND with other rules for some parameters."""
    lines = "".join(f"    rules.{name} = {value}\n" for name, value in given.items())
    return ROUND.replace("def CustomArgs", lines + "def CustomArgs", 1)


def light(one, words):
    """What a run added to its image."""
    with fitsio.FITS(words[words.index("--image") + 1]) as fits:
        before = fits[int(words[words.index("--imageext") + 1])].read()
    return one.image() - before


# B1 and B12: the tree
ALWAYS = {"balrog_image/field.sim.fits", "balrog_image/field.psf", "balrog_image/field.weight.fits"}
LOGS = {"balrog_log/args.log.txt", "balrog_log/sex.log.txt"}
GIVEN = {"image_sex.config", "image_sex_nosim.param", "default.nnw", "gauss_2.0_3x3.conv"}
CONFIG = {f"balrog_sexconfig/{name}" for name in GIVEN}


def of_run(which):
    names = {f"balrog_sexconfig/field.assoc.{which}.txt", f"balrog_sexconfig/field.measuredcat.{which}.sex.params"}
    return names | {f"balrog_cat/field.measuredcat.{which}.fits"}


TRUTH, NOSIM = {"balrog_cat/field.truthcat.sim.fits"}, {"balrog_image/field.nosim.fits"}
RESULTS = {f"balrog_cat/field.{name}" for name in ("results.fits", "completeness.svg", "bias.svg")}
WHOLE = ALWAYS | LOGS | CONFIG | of_run("sim") | of_run("nosim") | TRUTH | NOSIM | RESULTS
FLAGS = {
    "": WHOLE,
    "--nonosim": WHOLE - of_run("nosim") - NOSIM,
    "--imageonly": ALWAYS | TRUTH | NOSIM | {"balrog_log/args.log.txt"},
    "--nodraw": WHOLE - TRUTH - RESULTS,
    "--clean": WHOLE - ALWAYS - NOSIM,
    "--noassoc": {name for name in WHOLE - RESULTS if ".assoc." not in name},
}


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_leaves_exactly_its_files(flag, tmp_path, field, caplog, capfd):
    # Twice into one directory: of the first run nothing may be left that the second does not make.
    if flag != "--imageonly":
        Run(tmp_path / "out", ROUND, *field, "--ngal", 3)
    one = Run(tmp_path / "out", ROUND, *field, "--ngal", 3, *flag.split())
    assert one.files() == FLAGS[flag] | {"balrog_log/out_rules.py"}
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []
    assert capfd.readouterr().out == ""


# B4
def test_seeds_decide_and_processes_do_not(tmp_path, field):
    seeds = [(7, 3, 1), (7, 3, 2), (7, 4, 1), (8, 3, 1)]
    words = [*field, *DRAW_ONLY, "--ngal", 10]
    runs = [
        Run(tmp_path / str(number), ROUND, *words, "--seed", one, "--noiseseed", two, "--workers", workers)
        for number, (one, two, workers) in enumerate(seeds)
    ]
    first, same, noise, other = runs
    np.testing.assert_array_equal(first.truth, same.truth)
    assert identical.same(first.tree.simulated, same.tree.simulated)
    assert identical.same(first.tree.truth, same.tree.truth)
    names = [name for name in first.truth.dtype.names if name != "flux_noised"]
    np.testing.assert_array_equal(first.truth[names], noise.truth[names])
    assert not np.array_equal(first.image(), noise.image())
    assert not np.array_equal(first.truth["x"], other.truth["x"])
    head = read_header(first.tree.truth, 1)
    keys = ("SEED", "NSEED", "NSIM", "XSTART", "XEND", "YSTART", "YEND", "ZP")
    assert [head[key] for key in keys] == [7, 3, 10, 1, 220, 1, 200, 30]


# B5
def test_the_image_holds_what_the_truth_says(tmp_path, field):
    one = Run(tmp_path / "out", ROUND, *field, *DRAW_ONLY, "--gain", 1e9, "--ngal", 20)
    truth = one.truth
    assert light(one, field).sum() == pytest.approx(truth["flux_noiseless"].sum(), rel=1e-3)
    np.testing.assert_allclose(truth["flux_0"], truth["flux_noiseless"], rtol=0.01)
    np.testing.assert_allclose(truth["flux_noised"], truth["flux_noiseless"], rtol=1e-3)
    assert not truth["not_drawn"].any()


# B6
def test_size_lies_along_the_major_axis_and_beta_counts_from_x(tmp_path):
    psf = gaussian_psf(0.2 / 0.263, 0.2)
    words = write_input(tmp_path / "in", (161, 161), psf=psf, angle=25.0)
    given = rules(x=81.0, y=81.0, halflightradius=2.0, axisratio=0.5, beta=30.0, magnitude=15.0)
    one = Run(tmp_path / "out", given, *words, *DRAW_ONLY, "--gain", 1e9, "--ngal", 1)
    pixels = light(one, words)
    y, x = np.mgrid[:161, :161] - 80.0
    along, across = (c * x + s * y for c, s in ((np.cos(np.pi / 6), 0.5), (-0.5, np.cos(np.pi / 6))))
    a = 2.0 / 0.263
    # Pixels are counted whole: some 90 on the edge, of which half are right by chance, of 90 inside.
    assert pixels[(along / a) ** 2 + (across / (0.5 * a)) ** 2 <= 1].sum() / pixels.sum() == pytest.approx(
        0.5, abs=0.02
    )
    near = x**2 + y**2 < 40**2
    xx, yy, xy = (pixels[near] @ moment[near] for moment in (x * x, y * y, x * y))
    assert np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)) == pytest.approx(30.0, abs=1.0)


# B7
def test_noise_of_light_is_poissonian(tmp_path, field):
    given = rules(x=100.3, y=90.8, halflightradius=2.0, magnitude=14.5, sersicindex=0.5)
    one = Run(tmp_path / "out", given, *field, *DRAW_ONLY, "--ngal", 1)
    args, found = parsed(one)
    frame, psf, fluxes = (
        read_frame(args),
        PSFEx.read(one.tree.psf_model),
        component_fluxes(found.components["magnitude"], 30.0),
    )
    args.gain = 1e12
    model = draw_all(found, fluxes, frame, psf, args).added
    args.gain, bright = GAIN, model > 50
    assert np.count_nonzero(bright) >= 200
    seeds = []
    for args.noiseseed in range(200):
        seeds.append(draw_all(found, fluxes, frame, psf, args).added[bright])
    ratio = np.var(seeds, axis=0, ddof=1) / (model[bright] / GAIN)
    # The variance of 200 is known to 10 per cent, their mean over 200 pixels or more to 0.7.
    assert ratio.mean() == pytest.approx(1.0, abs=0.03)
    pull = (np.mean(seeds, axis=0) - model[bright]) / np.sqrt(model[bright] / GAIN / 200)
    assert abs(pull.mean()) < 4 / np.sqrt(len(pull))


def parsed(one):
    """The arguments and the sample of a run, made again."""
    args, config = _parse(first_look(one.argv), native_parser("balrog image"), one.argv)
    return args, sample(config, for_user(args), defaults(args, packaged("catalog")))


# B8
def test_components_share_the_light_and_lensing_adds_to_it(tmp_path, field):
    two = """
def SimulationRules(args, rules, sampled, TruthCat):
    InitializeSersic(rules, sampled, TruthCat, nProfiles=2)
    rules.magnitude = [21, 20]
    rules.sersicindex, rules.halflightradius, rules.axisratio = [4, 1], [0.3, 0.6], [1, 0.6]
    rules.x, rules.y, rules.magnification = 100, 100, MU
def GalsimParams(args, gsparams, galaxies): gsparams.folding_threshold = 1e-3
"""
    plain, lensed = (
        Run(tmp_path / mu, two.replace("MU", mu), *field, *DRAW_ONLY, "--gain", 1e9, "--ngal", 1) for mu in ("1", "1.2")
    )
    truth = plain.truth
    assert list(truth.dtype.names) == [*VECTOR, *(f"{name}_{k}" for k in (0, 1) for name in COMPONENT)]
    assert truth["flux_0"] + truth["flux_1"] == pytest.approx(truth["flux_noiseless"], rel=0.01)
    assert truth["flux_0"] == pytest.approx(10 ** (0.4 * (30 - 21)), rel=1e-6)
    assert lensed.truth["flux_noiseless"] == pytest.approx(1.2 * truth["flux_noiseless"], rel=0.01)
    for name in ("flux_0", "flux_1"):
        np.testing.assert_array_equal(lensed.truth[name], truth[name])


# B9
@pytest.mark.parametrize("shared", [False, True])
def test_a_part_of_the_image(tmp_path, shared):
    words = write_input(tmp_path / "in", (200, 240), angle=15.0, shared=shared)
    bounds = ["--xmin", 101, "--ymin", 51, "--xmax", 220, "--ymax", 190]
    one = Run(tmp_path / "part", ROUND, *words, *bounds, "--ngal", 5)
    assert one.image().shape == one.image("nosim").shape == (140, 120)
    whole = PSFEx.read(words[words.index("--psf") + 1])
    moved = PSFEx.read(one.tree.psf_model)
    assert np.subtract(whole.zero, moved.zero).tolist() == [100.0, 50.0]
    for x, y in ((130.0, 60.0), (215.5, 188.25)):
        np.testing.assert_allclose(moved.stamp(y - 51, x - 101), whole.stamp(y - 1, x - 1), atol=1e-6)
        full, part = ImageWCS(read_header(words[1], 0)), ImageWCS(read_header(one.tree.simulated, 0))
        np.testing.assert_allclose(part.pixel_to_sky(y - 51, x - 101), full.pixel_to_sky(y - 1, x - 1), atol=1e-6)
    # The same objects, rules in pixels of the whole image, in the whole image.
    fixed = rules(x=f"np.{one.truth['x'] + 100!r}", y=f"np.{one.truth['y'] + 50!r}")
    full = Run(tmp_path / "whole", fixed, *words, "--ngal", 5, "--imageonly")
    inside = light(full, words)[50:190, 100:220]
    ours = one.image() - one.image("nosim")
    # Rounding of float32 at the sky and sources of up to 1e3 ADU.
    np.testing.assert_allclose(ours, inside, atol=2e-3 * ours.max())
    # Eight decimals are what the array prints.
    np.testing.assert_allclose(full.truth["x"], one.truth["x"] + 100, atol=1e-8)
    weight = read_image(*((one.tree.simulated, 1) if shared else (one.tree.weight, 0)))
    assert weight.shape == (140, 120)
    assert len(one.measured()) > 0


# B10
def test_association(tmp_path):
    words = write_input(tmp_path / "in", (600, 600))
    grid = rules(x="30 + 60 * (np.arange(args.ngal) % 9)", y="30 + 60 * (np.arange(args.ngal) // 9)", magnitude=21)
    one = Run(tmp_path / "out", grid, *words, "--ngal", 81)
    found, head = one.measured(), read_header(one.tree.measured("sim"), 2)
    vector = found["VECTOR_ASSOC"]
    names = [head[f"V{number}"].strip() for number in range(vector.shape[1])]
    assert names == [*VECTOR, *(f"{name}_0" for name in COMPONENT)]
    truth = read_header(one.tree.truth, 1)
    units = {truth[f"TTYPE{number}"].strip(): truth[f"TUNIT{number}"].strip() for number in range(1, len(names) + 1)}
    assert [head[f"VUNIT{number}"].strip() for number in range(len(names))] == [units[name] for name in names]
    assert units["x"] == "pix"
    assert units["halflightradius_0"] == "arcsec"
    assert (units["flux_0"], units["beta_0"], units["g1"]) == ("ADU", "deg", "dimensionless")
    x, y = (vector[:, names.index(name)] for name in "xy")
    assert np.hypot(found["X_IMAGE"] - x, found["Y_IMAGE"] - y).max() <= 2
    # S/N is above 100 here, and neighbours are 60 pixels apart.
    assert 0.95 * 81 <= len(found) <= 81
    rows = vector[:, 0].astype(int)
    assert len(set(rows)) == len(rows)
    np.testing.assert_allclose(vector[:, names.index("flux_noised")], one.truth["flux_noised"][rows], rtol=1e-6)
    # An S/N of 100 is 1 per cent; MAG_AUTO loses some 6 per cent of the light of an exponential.
    assert np.median(found["FLUX_AUTO"] / one.truth["flux_noiseless"][rows]) == pytest.approx(0.96, abs=0.04)
    before = read_header(one.tree.measured("nosim"), 2)
    assert [before[f"V{number}"].strip() for number in range(7)] == [*VECTOR[:6], "sersicindex_0"]


def test_the_sersic_fit_finds_what_was_drawn(tmp_path):
    words = write_input(tmp_path / "in", (180, 180))
    given = rules(
        x="np.repeat([40, 90, 140], 3)",
        y="np.tile([40, 90, 140], 3)",
        magnitude=18,
        halflightradius=0.8,
        axisratio=0.6,
        beta=30,
    )
    parameters = CHECKOUT / "etc" / "image_sex.param"
    one = Run(tmp_path / "out", given, *words, "--ngal", 9, "--nonosim", "--sexparam", parameters)
    found = one.measured()
    assert len(found) == 9
    # S/N of some 600: what is left is SExtractor's local background and its own model of the PSF.
    assert np.median(found["MAG_SPHEROID"]) == pytest.approx(18.0, abs=0.03)
    assert np.median(found["SPHEROID_REFF_IMAGE"]) * 0.263 == pytest.approx(0.8, rel=0.05)
    assert np.median(found["SPHEROID_ASPECT_IMAGE"]) == pytest.approx(0.6, abs=0.03)
    assert np.median(found["SPHEROID_THETA_IMAGE"]) == pytest.approx(30, abs=1.0)
    assert np.median(found["SPHEROID_SERSICN"]) == pytest.approx(1.0, abs=0.1)


def test_a_run_can_be_repeated_from_its_output(tmp_path, field):
    one = Run(tmp_path / "out", ROUND, *field, "--ngal", 8)
    commands = [line for line in one.tree.sex_log.read_text().splitlines() if " -c " in line]
    assert len(commands) == 2
    kept = shutil.copytree(tmp_path / "out", tmp_path / "elsewhere", symlinks=False)
    for which, command in zip(("nosim", "sim"), commands, strict=True):
        file = kept / one.tree.measured(which).relative_to(one.tree.root)
        before = fitsio.read(str(file), ext=2)
        file.unlink()
        subprocess.run(command.split(), cwd=kept, check=True, capture_output=True)
        np.testing.assert_array_equal(fitsio.read(str(file), ext=2), before)
    again = re.search(r"the same again: balrog image (.*)", one.tree.args_log.read_text())
    assert again[1].endswith("--seed 7 --noiseseed 3")


# B11
@pytest.mark.parametrize(("kind", "hdu"), [("ldac", 2), ("1.0", 1)])
def test_without_association(tmp_path, field, kind, hdu):
    config = tmp_path / "my.config"
    config.write_text("ASSOC_NAME old.txt\nDETECT_THRESH 1.5\nASSOC_RADIUS 3\nWEIGHT_TYPE MAP_WEIGHT\n")
    parameters = tmp_path / "my.param"
    parameters.write_text("NUMBER\nVECTOR_ASSOC(3)\nX_IMAGE\nY_IMAGE\n")
    words = ["--noassoc", "--sexconfig", config, "--sexparam", parameters, "--catfitstype", kind, "--nonosim"]
    one = Run(tmp_path / "out", ROUND, *field, *words)
    assert one.measured(hdu=hdu).dtype.names == ("NUMBER", "X_IMAGE", "Y_IMAGE")
    assert len(one.measured(hdu=hdu)) > 20
    assert one.tree.config("sim").read_text() == "DETECT_THRESH 1.5\nWEIGHT_TYPE MAP_WEIGHT\n"


# B13
@pytest.mark.parametrize(
    "given",
    [{"angle": 30.0}, {"first": 1, "shared": True}, {"first": 2, "angle": 210.0}],
    ids=["weight", "hdu 1", "hdu 2"],
)
def test_other_hdus_and_rotated_images(given, tmp_path):
    words = write_input(tmp_path / "in", **given)
    one = Run(tmp_path / "out", ROUND, *words, "--ngal", 5)
    assert not one.truth["not_drawn"].any()
    wcs = ImageWCS(read_header(words[1], given.get("first", 0)))
    assert pixel_scale(wcs, 40.0, 160.0) == pytest.approx(0.263, rel=1e-6)
    assert abs(light(one, words).sum() / one.truth["flux_noised"].sum() - 1) < 1e-3
    # The right HDU was measured before injection: the positions hold nothing there.
    assert len(one.measured("nosim")) == 0
    assert len(one.measured()) == 5


def test_packed_images_and_integers(tmp_path, field):
    image = tmp_path / "in" / "field.fits"
    pixels = read_image(image, 0)
    with fitsio.FITS(str(tmp_path / "packed.fits.fz"), "rw") as fits:
        fits.write(pixels, header=read_header(image, 0), compress="rice", qlevel=16)
    field[field.index("--image") + 1] = tmp_path / "packed.fits.fz"
    field[field.index("--imageext") + 1] = 1
    one = Run(tmp_path / "out", ROUND, *field, "--ngal", 5)
    assert one.tree.simulated.name == "packed.sim.fits"
    assert one.image("nosim") == pytest.approx(pixels, abs=SIGMA / 8)
    assert len(one.measured()) == 5


# B15
@pytest.mark.long
def test_completeness_follows_signal_to_noise(tmp_path):
    words = write_input(tmp_path / "in", (1000, 1250))
    faint = rules(
        x="25 + 50 * (np.arange(args.ngal) % 25) + np.random.uniform(-5, 5, args.ngal)",
        y="25 + 50 * (np.arange(args.ngal) // 25) + np.random.uniform(-5, 5, args.ngal)",
        magnitude="Function(np.random.uniform, [20.5, 28.5, args.ngal])",
    )
    one = Run(tmp_path / "out", faint, *words, "--ngal", 500, "--nonosim")
    truth = one.truth
    found = np.isin(truth["balrog_index"], one.measured()["VECTOR_ASSOC"][:, 0])
    unit = Run(tmp_path / "unit", rules(x=600, y=500, magnitude=20), *words, *DRAW_ONLY, "--ngal", 1, "--gain", 1e9)
    shape = light(unit, words)
    # Of the best possible filter on this noise: the square root of the sum of the squared profile.
    per_flux = np.sqrt((shape**2).sum()) / SIGMA / unit.truth["flux_0"][0]
    sn = truth["flux_0"] * per_flux
    assert found[sn > 50].mean() >= 0.98
    assert found[sn < 1].mean() <= 0.1
    edges = [0, 1, 3, 5, 8, 12, 20, 50, np.inf]
    rates, errors = [], []
    for low, high in itertools.pairwise(edges):
        inside = found[(sn >= low) & (sn < high)]
        assert len(inside) > 15
        rates.append(inside.mean())
        errors.append(np.sqrt((inside.sum() + 1) * (len(inside) - inside.sum() + 1) / len(inside) ** 3))
    for one_bin in range(len(rates) - 1):
        spread = np.hypot(errors[one_bin], errors[one_bin + 1])
        assert rates[one_bin + 1] >= rates[one_bin] - 3 * spread, rates


def test_objects_galsim_cannot_draw_are_marked(tmp_path, field, caplog):
    odd = rules(
        sersicindex="[1, 9, 1, 1, 1, 1, 1, 1, 1, 1]",
        halflightradius="[0.5, 0.5, 0, 0.5, 0.5, 0.5, -1, 1, 1, 1]",
        axisratio="[1, 1, 1, 1, 1, 1, 1, -1, 1, 1]",
        magnitude="[20, 20, 20, -99, 20, 20, 20, 20, 20, -19]",
        g1="[0, 0, 0, 0, 1.5, 0, 0, 0, 0, 0]",
        magnification="[1, 1, 1, 1, 1, 1, 1, 1, 0, 1]",
        x="[100, 100, 100, 100, 100, 5000, 100, 100, 100, 100]",
    )
    one = Run(tmp_path / "out", odd, *field, *DRAW_ONLY, "--ngal", 10, "--gain", 1e9)
    truth = one.truth
    assert truth["not_drawn"].tolist() == [0, 1, 0, 0, 1, 0, 1, 1, 1, 1]
    assert truth["flux_noiseless"][[1, 3, 4]].tolist() == [0, 0, 0]
    assert truth["flux_0"][3] == 0
    # A radius of 0 is a star. The last lies outside the image.
    assert truth["flux_noiseless"][2] == pytest.approx(truth["flux_0"][2], rel=1e-3)
    assert light(one, field).sum() == pytest.approx(truth["flux_noiseless"][[0, 2]].sum(), rel=1e-3)
    assert truth["flux_noiseless"][5] == pytest.approx(truth["flux_0"][5], rel=0.01)
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "6 of 10 objects could not be drawn" in told
    assert "1 magnitudes are so bright" in told


def test_an_image_without_wcs_or_cards(tmp_path, caplog):
    words = write_input(tmp_path / "in", wcs=False)
    one = Run(tmp_path / "out", ROUND, *words, *DRAW_ONLY, "--gain", "EGAIN", "--zeropoint", "MAGZERO", "--ngal", 2)
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "0.263 arcsec per pixel is taken" in told
    assert "no card EGAIN with a number for --gain: 1 is taken" in told
    assert "no card MAGZERO with a number for --zeropoint: 30 is taken" in told
    assert (read_header(one.tree.truth, 1)["GAIN"], read_header(one.tree.truth, 1)["ZP"]) == (1.0, 30.0)


@pytest.mark.parametrize("name", ["--outdir", "--pyconfig", "--image"])
def test_a_home_that_is_not_there_is_told(name):
    words = [name, "~nobody.of.this.name/x"]
    with pytest.raises(InputError, match="no home directory for ~nobody"):
        first_look(words)
        native_parser("balrog image").parse_args(words)


def test_the_first_look_does_not_guess():
    seen = first_look(["-p", "a.psf", "-s", "3", "--pyconfig=rules.py", "-f", "x", "-lv", "v", "-oc", "y", "-sv"])
    assert (seen.pyconfig.name, seen.stdverbosity, seen.logverbosity, seen.fulltraceback) == (
        "rules.py",
        "n",
        "v",
        False,
    )
    assert seen.outdir.parts[-2:] == ("run", "image")


def test_bounds_outside_are_brought_in(tmp_path, field, caplog):
    one = Run(tmp_path / "out", ROUND, *field, *DRAW_ONLY, "--xmin", -5, "--ymax", 900, "--ngal", 2)
    assert one.image().shape == (200, 220)
    told = [record.getMessage() for record in caplog.records if "lies outside" in record.getMessage()]
    assert len(told) == 2


def test_the_users_arguments_and_keywords(tmp_path, field, caplog):
    text = """
def CustomArgs(parser):
    parser.add_argument("--mag", type=float, default=25.0)
    parser.add_argument("--size", type=float, default=None)
def CustomParseArgs(args):
    args.size = args.size or 0.5
    args.ngal = 99
    assert args.zeropoint == 30.0 and args.xmax == 220 and args.image.endswith("field.fits")
def SimulationRules(args, rules, sampled):
    assert args.ngal == 3
    rules.magnitude, rules.halflightradius = args.mag, args.size
    args.mag = 0
def SextractorConfigs(args, config):
    assert args.mag == 20.0
    config.update(DETECT_MINAREA=7, ASSOC_RADIUS=9, catalog_name="mine", PHOT_AUTOPARAMS=[2.5, 3.0])
"""
    one = Run(tmp_path / "out", text, *field, "--ngal", 3, "--mag", 20)
    np.testing.assert_array_equal(one.truth["halflightradius_0"], np.float32(0.5))
    log = one.tree.sex_log.read_text()
    assert "-DETECT_MINAREA 7 -PHOT_AUTOPARAMS 2.5,3.0" in log
    assert "-ASSOC_RADIUS 9" not in log
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "sets ASSOC_RADIUS" in told
    assert "sets CATALOG_NAME" in told
    assert re.search(r"^mag: 20.0$", one.tree.args_log.read_text(), re.MULTILINE)


@pytest.mark.long
def test_detection_on_another_image(tmp_path, field):
    other = write_input(tmp_path / "deep", seed=9)
    words = ["--detimage", other[1], "--detweight", tmp_path / "deep" / "field.wht.fits", "--detpsf", other[5]]
    one = Run(tmp_path / "out", ROUND, *field, *words, "--ngal", 20)
    # Nothing is drawn into it, so nothing is found at the objects' positions.
    assert len(one.measured()) <= 1
    assert one.tree.detection_psf.exists()
    seg = tmp_path / "seg.fits"
    again = Run(tmp_path / "seg", ROUND, *field, "--ngal", 20, "--sim_noassoc_seg", seg)
    assert np.unique(read_image(seg, 0)).size > 18
    assert again.tree.measured("noassoc_seg").exists()


# B14; the same through the command line are rows of docs/bad-input.md
def refused(tmp_path, words, text=ROUND):
    with pytest.raises(InputError) as caught:
        Run(tmp_path / "out", text, *words)
    assert caught.value.remedy
    return str(caught.value)


def test_bad_inputs_by_code(tmp_path, field):
    def changed(name, value):
        words = [*map(str, field), *([] if name in field else [name, ""])]
        words[words.index(name) + 1] = str(value)
        return refused(tmp_path, words)

    nothing, text, table = tmp_path / "nothing.fits", tmp_path / "text.fits", tmp_path / "table.fits"
    text.write_text("no FITS")
    with fitsio.FITS(str(table), "rw") as fits:
        fits.write_table({"a": np.zeros(3)})
    small = write_input(tmp_path / "small", (50, 50))
    for name, code in (("--image", 101), ("--weight", 102), ("--psf", 103), ("--detimage", 105), ("--detweight", 106)):
        assert f"ERROR code: {code}." in changed(name, nothing)
    for name, code in (("--image", 111), ("--weight", 112), ("--psf", 113), ("--detimage", 114), ("--detpsf", 116)):
        assert f"ERROR code: {code}." in changed(name, text)
    assert "ERROR code: 104." in refused(tmp_path, ["--image", field[1]])
    assert "ERROR code: 121." in changed("--imageext", 3)
    assert "ERROR code: 122." in changed("--weightext", -1)
    assert "not a PSFEx model" in changed("--psf", table)
    assert "ERROR code: 123." in changed("--psf", table)
    assert "ERROR code: 131." in changed("--image", table)
    assert "ERROR code: 133." in changed("--weight", table)
    assert "ERROR code: 135. the weight map is 50 x 50 pixels, the image 220 x 200" in changed("--weight", small[7])
    assert "ERROR code: 136." in refused(tmp_path, [*field, "--xmin", 50, "--xmax", 40])
    assert "ERROR code: 137." in refused(tmp_path, [*field, "--ymin", 50, "--ymax", 40])
    assert "ERROR code: 140." in changed("--sexpath", "/nowhere/sex")
    assert "does not exist" in changed("--sexconfig", nothing)
    assert "the gain is 0" in changed("--gain", 0)
    assert "--ngal is 0" in changed("--ngal", 0)
    assert "at most 18 digits" in changed("--seed", 10**18)
    assert "at most 18 digits" in changed("--noiseseed", -(10**30))
    assert "at most 15 digits" in changed("--indexstart", 10**15)
    assert "a part of the image" in refused(tmp_path, [*field, "--xmin", 50, "--noweightread"])
    assert "expected one argument" in refused(tmp_path, [*field, "--ngal"])
    assert "unrecognized arguments: --ngall" in refused(tmp_path, [*field, "--ngall", 3])
    assert "write it once, apart" in refused(tmp_path, [*field, f"-o{tmp_path}/glued"])
    clash = ROUND.replace("parser): pass", "parser): parser.add_argument('--ngal')")
    assert "conflicting option string: --ngal" in refused(tmp_path, field, clash)


def test_an_input_is_not_written_over(tmp_path, field):
    Run(tmp_path / "out", ROUND, *field, *DRAW_ONLY)
    made = tmp_path / "out" / "balrog_image" / "field.sim.fits"
    kept = shutil.copy(made, tmp_path / "out" / "balrog_image" / "again.sim.fits")
    shutil.move(kept, tmp_path / "out" / "balrog_image" / "again.weight.fits")
    shutil.copy(made, tmp_path / "again.fits")
    words = [*field]
    words[words.index("--image") + 1] = tmp_path / "again.fits"
    words[words.index("--weight") + 1] = tmp_path / "out" / "balrog_image" / "again.weight.fits"
    assert "would be written over" in refused(tmp_path, words)


def test_a_failing_sextractor_is_told(tmp_path, field):
    program = tmp_path / "sex"
    program.write_text("#!/bin/sh\necho no room >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(ToolError, match="ended with status 3") as caught:
        Run(tmp_path / "out", ROUND, *field, "--sexpath", program, "--retrycmd")
    assert caught.value.exit_status == 1
    assert (tmp_path / "out" / "balrog_log" / "sex.log.txt").read_text().count("no room") == 3


def test_every_argument_of_the_original_is_there():
    original = """
-o --outdir -i --image -ie --imageext -w --weight -we --weightext -p --psf -di --detimage -die --detimageext -dw
--detweight -dwe --detweightext -dp --detpsf -nwr --noweightread -x1 --xmin -x2 --xmax -y1 --ymin -y2 --ymax -n --ngal
-z --zeropoint -g --gain -s --seed -nse --noiseseed -pc --pyconfig -is --indexstart -io --imageonly -nd --nodraw -c
--clean -sv --stdverbosity -lv --logverbosity -ft --fulltraceback -sex --sexpath -sc --sexconfig -sp --sexparam -sn
--sexnnw -sf --sexconv -nsp --nosimsexparam -na --noassoc -nn --nonosim -ct --catfitstype -nas --sim_noassoc_seg
--sim_noassoc_seg_param_file --systemcmd --retrycmd --useshell
"""
    assert set(original.split()) <= set(NATIVE)


def test_drawing_is_what_galsim_draws(tmp_path, field):
    given = rules(
        x=100.4, y=90.7, sersicindex=2.5, halflightradius=0.8, axisratio=0.6, beta=40, g1=0.05, g2=-0.1, magnitude=18
    )
    one = Run(tmp_path / "out", given, *field, *DRAW_ONLY, "--ngal", 1, "--gain", 1e12)
    psf = galsim.des.DES_PSFEx(field[field.index("--psf") + 1]).getPSF(galsim.PositionD(100.4, 90.7)).withFlux(1.0)
    galaxy = galsim.Sersic(2.5, half_light_radius=0.8 * np.sqrt(0.6), flux=10 ** (0.4 * (30 - 18)))
    galaxy = galaxy.shear(q=0.6, beta=40 * galsim.degrees).shear(g1=0.05, g2=-0.1).dilate(1 / 0.263)
    whole = galsim.Convolve(galaxy, psf.shift(-psf.centroid), gsparams=galsim.GSParams(folding_threshold=1e-3))
    image = galsim.ImageD(220, 200, scale=1.0)
    whole.drawImage(image, center=galsim.PositionD(100.4, 90.7), method="no_pixel")
    ours = light(one, field)
    near = ours > 1e-3 * ours.max()
    # float32 of the sum with the sky on our side, and where the stamp ends.
    np.testing.assert_allclose(ours[near], image.array[near], rtol=2e-3, atol=1e-4 * ours.max())


def test_rules_files_are_named_in_messages(tmp_path, field):
    assert "ERROR code: 150." in refused(tmp_path, [*field, "--pyconfig", tmp_path / "none.py"])
    said = refused(tmp_path, field, ROUND.replace("rules.beta = 0", "rules.beta = beta"))
    assert "NameError: name 'beta' is not defined" in said
    assert "out_rules.py, key line 9)" in said
