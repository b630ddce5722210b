"""``balrog image`` and ``bin/balrog.py`` as a user types them: the bundled example, help, logs, numbered rules."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from one_image import CHECKOUT, Run

from balrogutils.fitsfile import read_header, read_table
from balrogutils.oneimage.tree import alone
from balrogutils.wcs import ImageWCS

RULES = sorted((CHECKOUT / "inputs" / "pyconfig").glob("0*.py"))
EXAMPLE = {
    "balrog_image": ["example.nosim.fits", "example.psf", "example.sim.fits", "example.weight.fits"],
    "balrog_cat": [
        *("example.bias.svg", "example.completeness.svg", "example.measuredcat.nosim.fits"),
        *("example.measuredcat.sim.fits", "example.results.fits", "example.truthcat.sim.fits"),
    ],
    "balrog_sexconfig": [
        *("default.nnw", "example.assoc.nosim.txt", "example.assoc.sim.txt"),
        *("example.measuredcat.nosim.sex.params", "example.measuredcat.sim.sex.params", "gauss_2.0_3x3.conv"),
        *("image_sex.config", "image_sex.param", "image_sex_nosim.param"),
    ],
    "balrog_log": ["02_catalogue.py", "args.log.txt", "run.log.txt", "sex.log.txt"],
}


# B1
def test_without_arguments_the_example_is_run(command, base, monkeypatch, capsys):
    began = time.monotonic()
    done = command(sys.executable, str(CHECKOUT / "bin" / "balrog.py"))
    wall = time.monotonic() - began
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    tree = base / "run" / "image"
    assert {place.name: sorted(file.name for file in place.iterdir()) for place in tree.iterdir()} == EXAMPLE
    truth = read_table(tree / "balrog_cat" / "example.truthcat.sim.fits")
    measured = read_table(tree / "balrog_cat" / "example.measuredcat.sim.fits", 2)
    assert len(truth) == 50
    assert {"ID", "REDSHIFT"} <= set(truth.dtype.names)
    # The light of the galaxy in the middle hides many; some 20 of 50 are found.
    assert len(measured) > 8
    head = read_header(tree / "balrog_cat" / "example.measuredcat.sim.fits", 2)
    assert [head[f"V{number}"].strip() for number in (0, 1, 2)] == ["balrog_index", "x", "y"]
    assert np.isfinite(measured["MAG_SPHEROID"]).all()
    assert wall < 60  # 20 s on one core of its own
    # The course shows how truth and measurement are joined.
    shown = re.findall(r"```python\n(.*?)```", (CHECKOUT / "docs" / "balrog-image.md").read_text(), re.DOTALL)
    monkeypatch.chdir(base)
    for text in shown:
        exec(text, {})
    assert f"{len(measured)} of 50 found" in capsys.readouterr().out


def test_help_shows_native_arguments_and_the_users(command, tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def CustomArgs(parser):\n    parser.add_argument('--mine', help='something of mine')\n")
    assert "\n  image " in command("balrog", "--help").stdout
    done = command("balrog", "image", "--help", "-pc", str(own))
    assert done.returncode == 0
    for word in ("-ie", "--imageext", "--sim_noassoc_seg", "--mine", "something of mine", "--fulltraceback"):
        assert word in done.stdout
    done = command("balrog", "image", "-h", "-pc", str(tmp_path / "none.py"))
    assert done.returncode == 0
    assert "--imageext" in done.stdout
    assert "does not exist" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("verbosity", ["q", "v"])
def test_verbosity(command, tmp_path, verbosity):
    rules = tmp_path / "own.py"
    rules.write_text("def SimulationRules(args, rules, sampled):\n    rules.x = 30\n")
    out = tmp_path / "out dir"
    words = ["-o", out, "-pc", rules, "-n", 1, "-io", "-sv", verbosity, "-lv", "v"]
    done = command("balrog", "image", *map(str, words))
    assert done.returncode == 0
    assert done.stdout == ""
    assert ("gives no rules.y" in done.stderr) == (verbosity != "q")
    assert ("done in" in done.stderr) == (verbosity == "v")
    log = (out / "balrog_log" / "run.log.txt").read_text()
    assert re.search(r"WARNING own.py gives no rules.y: uniform from 1 to 375 is taken", log)
    assert re.search(r"INFO done in", log)


def test_errors_are_in_the_log(command, tmp_path):
    for words, status, says in (
        (["--image", "nowhere.fits"], 2, "ERROR code: 104"),
        (["--image", "nowhere.fits", "--psf", "x.psf"], 2, "ERROR code: 101"),
        (["--ngal", "many"], 2, "argument -n/--ngal: invalid int value: 'many'"),
        (["--stdverbosity", "x"], 2, "invalid choice"),
    ):
        done = command("balrog", "image", "-o", str(tmp_path), *words)
        assert done.returncode == status
        assert done.stdout == ""
        for told in (done.stderr, (tmp_path / "balrog_log" / "run.log.txt").read_text()):
            assert says in told
            assert "Traceback" not in told
    (tmp_path / "file").touch()
    done = command("balrog", "image", "-o", str(tmp_path / "file" / "below"))
    assert done.returncode == 2
    assert "ERROR code: 201" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("file", RULES, ids=lambda file: file.stem)
def test_numbered_rules_files(file, tmp_path):
    words = ["--ngal", 12, "--nonosim", "--seed", 3]
    one = Run(tmp_path / "out", file.read_text().replace("__file__", repr(str(file))), *words)
    truth = one.truth
    assert len(truth) == 12
    assert not truth["not_drawn"].any()
    assert len(one.measured()) > 0
    names = set(truth.dtype.names)
    if file.stem.startswith("03"):
        np.testing.assert_allclose(truth["flux_0"] + truth["flux_1"], 10 ** (0.4 * (29.3015 - 20.5)), rtol=1e-5)
        np.testing.assert_allclose(truth["BT"], truth["flux_0"] / (truth["flux_0"] + truth["flux_1"]), rtol=1e-5)
        assert {"BT", "beta_1"} <= names
    if file.stem.startswith("04"):
        np.testing.assert_allclose(truth["DISTANCE"], np.hypot(truth["x"] - 140.5, truth["y"] - 188.0), rtol=1e-5)
        magnitude = 29.3015 - 2.5 * np.log10(truth["flux_0"])
        np.testing.assert_allclose(magnitude, truth["CATALOG_MAG"] + truth["DISTANCE"] / 100, atol=1e-4)
        outward = (truth["x"] - 140.5) * truth["g1"] + (truth["y"] - 188.0) * truth["g2"]
        assert np.isfinite(outward).all()
        assert np.hypot(truth["g1"], truth["g2"]).max() < 1
    if file.stem.startswith("05"):
        rows, cols = ImageWCS(read_header(CHECKOUT / "inputs/decam_galaxy_r_1exp/example.fits", 0)).sky_to_pixel(
            truth["RA"], truth["DEC"]
        )
        # astropy takes TPV as GalSim does.
        np.testing.assert_allclose(
            np.column_stack([cols, rows]) + 1, np.column_stack([truth["x"], truth["y"]]), atol=1e-2
        )
        assert "-DETECT_THRESH 1.2" in one.tree.sex_log.read_text()


def test_two_runs_do_not_share_a_directory(command, tmp_path):
    out = tmp_path / "out"
    with alone(out):
        done = command("balrog", "image", "-o", str(out), "--imageonly", "--ngal", "2")
        assert done.returncode == 2
        assert "another run writes to the output directory" in done.stderr
        assert "another --outdir" in done.stderr
        # What the other has written stays.
        assert not list(out.iterdir())
    with alone(out):
        pass


def test_there_are_five_rules_files():
    assert [file.stem[:2] for file in RULES] == ["01", "02", "03", "04", "05"]


def test_help_of_the_whole_command_does_without_galsim():
    script = "import sys; from balrogutils.cli import main; sys.exit('galsim' in sys.modules or 'numba' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 0
    assert Path(CHECKOUT / "bin" / "balrog.py").stat().st_mode & 0o111
