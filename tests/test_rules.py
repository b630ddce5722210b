"""The language of rules files: every kind of rule, in any order, and every misuse by its code."""

import signal
import sys
from argparse import Namespace

import numpy as np
import pytest
from one_image import config

from balrogutils.errors import ConfigError
from balrogutils.fitsfile import Table, write_tables
from balrogutils.rules.attributes import COMPONENT, OBJECT
from balrogutils.rules.language import Constant
from balrogutils.rules.sampling import Defaults, sample

NAMES = (*OBJECT, *COMPONENT)
DEFAULTS = Defaults({name: Constant(0.25) for name in NAMES}, dict.fromkeys(NAMES, "0.25 is taken"))


@pytest.fixture
def table(tmp_path):
    """A table whose rows can be told from any of their values."""
    rows = np.zeros(
        500, dtype=[("MAG", "f4"), ("HLR", "f8"), ("N", "f8"), ("ID", "i8"), ("KIND", "U6"), ("PAIR", "f8", 2)]
    )
    number = np.arange(500)
    rows["MAG"], rows["HLR"], rows["N"], rows["ID"] = 18 + number / 100, 0.1 + number / 1000, 0.3 + number / 100, number
    rows["KIND"] = [f"k{one}" for one in number]
    write_tables(tmp_path / "cat.fits", [Table("CAT", rows, {"HLR": "arcsec"})])
    return tmp_path / "cat.fits"


def sampled(tmp_path, body, *, count=6, seed=7, rest="", **args):
    """Evaluate the body of a SimulationRules."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    text = f"{rest}\ndef SimulationRules(args, rules, sampled, TruthCat):\n{lines}\n"
    rules = config(tmp_path, text)
    rules.seed = seed
    return sample(rules, Namespace(ngal=count, seed=seed, xmin=1, xmax=100, ymin=1, ymax=50, **args), DEFAULTS)


EVERY_KIND = [
    "rules.x = Function(np.random.uniform, [args.xmin, args.xmax, args.ngal])",
    "rules.y = Function(lambda x, m: x + m, args=[sampled.x], kwargs={'m': sampled.magnitude})",
    "rules.g1 = 0.25",
    "rules.g2 = sampled.g1",
    "rules.magnification = np.linspace(1, 2, args.ngal)",
    "rules.magnitude = Function(np.add, [Function(np.random.normal, [20, 1, args.ngal]), Catalog(args.cat, 1, 'HLR')])",
    "rules.halflightradius = Table(args.cat, 1).Column('hlr')",
    "rules.sersicindex = Column(file=args.cat, ext='CAT', col='N')",
    "rules.axisratio = np.float64(0.5)",
    "rules.beta = [1, 2, 3, 4, 5, 6]",
]


def test_order_does_not_matter(tmp_path, table):
    one = sampled(tmp_path, "\n".join(EVERY_KIND), cat=table)
    other = sampled(tmp_path, "\n".join(reversed(EVERY_KIND)), cat=table)
    for name, value in one.objects.items():
        np.testing.assert_array_equal(value, other.objects[name])
    for name, value in one.components.items():
        np.testing.assert_array_equal(value, other.components[name])
    np.testing.assert_array_equal(one.objects["g1"], 0.25)
    np.testing.assert_array_equal(one.objects["g2"], one.objects["g1"])
    np.testing.assert_allclose(one.objects["magnification"], np.linspace(1, 2, 6), rtol=1e-12)
    np.testing.assert_array_equal(one.components["beta"][0], np.arange(1, 7))
    np.testing.assert_array_equal(one.components["axisratio"][0], 0.5)
    np.testing.assert_allclose(one.objects["y"], one.objects["x"] + one.components["magnitude"][0], rtol=1e-14)


def test_columns_of_a_table_come_from_the_same_rows(tmp_path, table):
    body = """
rules.magnitude = Catalog(args.cat, 1, 'MAG')
rules.halflightradius = Table(args.cat, 1).Column('HLR')
rules.sersicindex = Function(lambda n: n, [Column(args.cat, 1, 'N')])
TruthCat.AddColumn(Column(args.cat, 1, 'ID'))
TruthCat.AddColumn(Column(args.cat, 1, 'KIND'), name='TYPE')
TruthCat.AddColumn(sampled.magnitude, name='M', fmt='E', unit='mag')
"""
    found = sampled(tmp_path, body, count=1000, cat=table)
    number, kind, magnitude = (one.values for one in found.extras)
    np.testing.assert_allclose(found.components["magnitude"][0], 18 + number / 100, rtol=1e-6)
    np.testing.assert_allclose(found.components["halflightradius"][0], 0.1 + number / 1000, rtol=1e-12)
    np.testing.assert_allclose(found.components["sersicindex"][0], 0.3 + number / 100, rtol=1e-12)
    assert [one.name for one in found.extras] == ["ID", "TYPE", "M"]
    assert list(kind) == [f"k{one}" for one in number]
    assert (number.dtype, magnitude.dtype) == (np.int64, np.float32)
    assert found.extras[2].unit == "mag"
    # With replacement: a thousand of five hundred, some 432 of them different.
    assert 380 < len(np.unique(number)) < 480


def test_random_streams_are_named(tmp_path):
    body = "\n".join(f"rules.{name} = Function(np.random.uniform, [0, 1, args.ngal])" for name in "xy")
    both = sampled(tmp_path, body, count=4000)
    assert abs(np.corrcoef(both.objects["x"], both.objects["y"])[0, 1]) < 0.06  # four sigma
    alone = sampled(tmp_path, body.splitlines()[1], count=4000)
    np.testing.assert_array_equal(alone.objects["y"], both.objects["y"])
    assert not np.array_equal(sampled(tmp_path, body, count=4000, seed=8).objects["x"], both.objects["x"])
    np.random.seed(5)  # noqa: NPY002 (what the user may do)
    expected = np.random.uniform()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    sampled(tmp_path, body)
    assert np.random.uniform() == expected  # noqa: NPY002


def test_components(tmp_path):
    body = """
InitializeSersic(rules, sampled, nProfiles=2)
rules.magnitude = [20, Function(lambda m: m + 1, [sampled.magnitude[0]])]
rules.beta[1] = sampled.beta[0]
rules.halflightradius = sampled.sersicindex
"""
    found = sampled(tmp_path, body)
    assert found.profiles == 2
    np.testing.assert_array_equal(found.components["magnitude"], [[20.0] * 6, [21.0] * 6])
    np.testing.assert_array_equal(found.components["beta"], 0.25)
    again = sampled(tmp_path, "rules.beta = 3\nInitializeSersic(rules, sampled, TruthCat, 3)")
    assert again.profiles == 3
    np.testing.assert_array_equal(again.components["beta"], 0.25)


def test_both_arities_and_the_words_of_the_original(tmp_path):
    old = "def SimulationRules(args, rules, sampled):\n    rules.x = np.ones(args.ngal)\n"
    old += "def GalsimParams(args, gsparams):\n    gsparams.alias_threshold = 1e-3\n"
    old += "assert os.sep and copy.copy and galsim.Sersic and pyfits.open\n"
    found = sample(config(tmp_path, old), Namespace(ngal=1, seed=1), DEFAULTS)
    assert found.objects["x"] == [1.0]
    assert found.accuracy == [{"folding_threshold": 1e-3}]
    body = "def GalsimParams(args, gsparams, galaxies):\n"
    body += "    gsparams.maximum_fft_size = Function(lambda m: 1000 * m, [galaxies.magnitude])\n"
    found = sampled(tmp_path, "rules.magnitude = [4, 5]", count=2, rest=body)
    assert found.accuracy == [{"maximum_fft_size": 4000}, {"maximum_fft_size": 5000}]


def test_defaults_are_told(tmp_path, caplog):
    found = sampled(tmp_path, "rules.x = 3")
    np.testing.assert_array_equal(found.objects["y"], 0.25)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len([text for text in told if "gives no rules." in text]) == len(NAMES) - 1
    assert "rules.py gives no rules.y: 0.25 is taken" in told


def test_what_a_function_does_to_its_arguments_is_its_own_affair(tmp_path):
    rest = "def spoil(x):\n    x[:] = 9\n    return x\n"
    found = sampled(tmp_path, "rules.x = np.zeros(6)\nrules.y = Function(spoil, [sampled.x])", rest=rest)
    np.testing.assert_array_equal(found.objects["x"], 0.0)
    np.testing.assert_array_equal(found.objects["y"], 9.0)


def test_tables_of_the_same_name_are_drawn_apart(tmp_path, table):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "cat.fits").write_bytes(table.read_bytes())
    body = "rules.x = Column(args.cat, 1, 'ID')\nrules.y = Column(args.other, 1, 'ID')"
    found = sampled(tmp_path, body, count=400, cat=table, other=tmp_path / "more" / "cat.fits")
    assert np.mean(found.objects["x"] == found.objects["y"]) < 0.05


BAD = [
    (301, "rules.xx = 1", "has no attribute xx: did you mean 'x'"),
    (301, "rules.magnitud = 1", "did you mean 'magnitude'"),
    (302, "rules['x'] = 1", "rules itself has no index"),
    (303, "rules.x = 'five'", "not understood"),
    (303, "rules.x = np.zeros(args.ngal + 1)", "ndarray of length 7"),
    (303, "rules.x = np.zeros((args.ngal, 2))", "not understood"),
    (303, "rules.x = {}", "dict of length 0"),
    (303, "rules.x = 2 * sampled.y", "sampled.y has no values yet"),
    (303, "rules.x = np.sqrt(sampled.y)", "sampled.y has no values yet"),
    (
        303,
        "rules.x = sampled.y\nrules.y = sampled.x",
        r"circle: rules.x \(line 5 of.*rules.y \(line 6 of.*rules.x \(line 5",
    ),
    (303, "rules.x = Function(lambda x: x, [[sampled.x]])", "circle: rules.x"),
    (303, "rules.magnitude = sampled.magnitude", r"circle: rules.magnitude\[0\]"),
    (304, "rules.beta[1] = 3", "beyond the 1 components"),
    (305, "rules.beta.x = 3", "rules.beta has no attribute x"),
    (306, "InitializeSersic(rules, sampled, nProfiles=2)\nrules.beta = 3", "needs a list of 2"),
    (306, "InitializeSersic(rules, sampled, nProfiles=0)", "nProfiles is 0"),
    (401, "rules.x = sampled.xx", "sampled has no attribute xx: did you mean 'x'"),
    (402, "rules.x = sampled[0]", "sampled itself has no index"),
    (403, "sampled.x = 3", "sampled.x cannot be assigned"),
    (403, "sampled.beta[0] = 3", "sampled.beta cannot be assigned"),
    (404, "rules.x = sampled.beta[2]", "beyond the 1 components"),
    (405, "rules.x = sampled.beta.x", "sampled.beta has no attribute x"),
    (501, "rules.x = Function(np.zeros, [args.ngal + 1])", "rules.x: the function zeros returned an array of shape"),
    (501, "rules.x = Function(lambda: 3)", "returned 3, not one value for each of 6"),
    (
        501,
        "rules.x = Function(lambda n: np.full(n, np.nan), [args.ngal])",
        "rules.x: .* gives nan for object 0, 6 such",
    ),
    (501, "rules.x = Function(lambda: 1 / 0)", "ZeroDivisionError: division by zero"),
    (502, "rules.x = Function(args=[1])", "Function needs a function"),
    (502, "rules.x = Function(np.zeros, args=5)", "args as a list"),
    (503, "rules.x = Catalog(args.cat, 1)", "Catalog needs col"),
    (503, "rules.x = Table(args.cat)", "Table needs ext"),
    (504, "rules.x = Catalog('nowhere.fits', 1, 'X')", "nowhere.fits does not exist"),
    (504, "rules.x = Catalog(__file__, 1, 'X')", "cannot be read"),
    (505, "rules.x = Catalog(args.cat, 7, 'X')", r"no table in HDU 7, only in \[1\]"),
    (505, "rules.x = Catalog(args.cat, 0, 'X')", "no table in HDU 0"),
    (506, "rules.x = Catalog(args.cat, 1, 'MAGG')", "no column MAGG: did you mean 'MAG'"),
    (506, "rules.x = Catalog(args.cat, 1, 'PAIR')", "holds arrays of shape"),
    (303, "rules.x = Catalog(args.cat, 1, 'KIND')", "rules.x is not made of numbers"),
    (701, "TruthCat.AddColumn(np.zeros(3), name='A')", "3 values for 6 objects"),
    (702, "TruthCat.AddColumn(None, name='A')", "not understood"),
    (702, "TruthCat.AddColumn(sampled.x, name='A', fmt='Q')", "cannot have the format 'Q'"),
    (703, "TruthCat.AddColumn(sampled.x)", "needs a name"),
    (703, "TruthCat.AddColumn(sampled.x, name='a\\nb')", "cannot be called"),
    (703, "TruthCat.AddColumn(sampled.x, name='é')", "cannot be called"),
    (703, "TruthCat.AddColumn(sampled.x, name='n' * 51)", "cannot be called"),
    (703, "TruthCat.AddColumn(sampled.x, name=3)", "cannot be called"),
    (703, "TruthCat.AddColumn(sampled.x, name='n', unit='\\n')", "with the unit"),
    (703, "TruthCat.AddColumn(sampled.x, name='X')", "there is a column X already"),
    (703, "TruthCat.AddColumn(sampled.x, name='beta_0')", "there is a column beta_0 already"),
    (703, "[TruthCat.AddColumn(sampled.x, name=name) for name in 'Aa']", "there is a column a already"),
    (
        705,
        "InitializeSersic(rules, sampled, nProfiles=2)\nTruthCat.AddColumn(sampled.beta, name='B')",
        "several dimensions",
    ),
    (706, "TruthCat.x = 3", "TruthCat takes no attribute x"),
    (801, "Table(args.cat, 1).x = 3", "Table takes no attribute x"),
    (-1, "rules.ngal = 3", "rules.ngal cannot be changed"),
    (-2, "rules.nProfiles = 3", "rules.nProfiles cannot be changed"),
    (152, "rules.x = undefined", "NameError: name 'undefined'"),
    (152, "raise SystemExit", "SystemExit"),
    (152, "import sys; sys.exit(0)", "SystemExit: 0"),
    (501, "rules.x = Function(lambda: exit())", "SystemExit: None"),
]


@pytest.mark.parametrize(("code", "body", "says"), BAD, ids=[f"{code}-{body}" for code, body, _ in BAD])
def test_misuse_is_told_with_its_code_and_line(code, body, says, tmp_path, table):
    with pytest.raises(ConfigError, match=says) as caught:
        sampled(tmp_path, body, cat=table)
    error = caught.value
    assert f"ERROR code: {code}. " in error.message
    assert error.exit_status == 2
    assert error.remedy
    assert "circle" in error.message or (error.where["file"].endswith("rules.py") and "line " in error.where["key"])


def test_a_file_that_is_no_python_is_told_with_its_line(tmp_path):
    with pytest.raises(ConfigError, match=r"code: 151.*key line 4") as caught:
        config(tmp_path, "x = 1\ndef SimulationRules(args, rules, sampled:\n")
    assert "def SimulationRules(args, rules, sampled:" in str(caught.value)
    with pytest.raises(ConfigError, match=r"code: 151.*ModuleNotFoundError: No module named 'nothing_like_it'.*line 3"):
        config(tmp_path, "import nothing_like_it\n")
    with pytest.raises(ConfigError, match=r"code: 151.*SimulationRules is not a function"):
        config(tmp_path, "SimulationRules = 3\n").simulation_rules(None, None, None, None)


def test_a_signal_still_ends_the_program(tmp_path):
    def end(number, frame):
        sys.exit(128 + number)

    before = signal.signal(signal.SIGUSR1, end)
    try:
        with pytest.raises(SystemExit) as caught:
            config(tmp_path, "import signal\nsignal.raise_signal(signal.SIGUSR1)\n")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught.value.code == 128 + signal.SIGUSR1


def test_only_lines_of_the_user_are_quoted(tmp_path):
    text = "def inner(n):\n    raise ValueError('no')\ndef SimulationRules(args, rules, sampled):\n"
    text += "    rules.x = Function(inner, [args.ngal])\n"
    with pytest.raises(ConfigError, match="ValueError: no") as caught:
        sample(config(tmp_path, text), Namespace(ngal=2, seed=1), DEFAULTS)
    assert "raise ValueError('no')" in str(caught.value)
    assert "evaluation.py" not in str(caught.value)
    rules = config(tmp_path, text)
    rules._full = True
    with pytest.raises(ConfigError, match="ValueError: no") as caught:
        sample(rules, Namespace(ngal=2, seed=1), DEFAULTS)
    assert "evaluation.py" in str(caught.value)
