"""The commands users know: arguments, refusals, status."""

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from conftest import CHECKOUT

from balrogutils.cli.legacy import MedsBase

BIN = CHECKOUT / "bin"
TILE = "DES0239+0216"


@pytest.mark.parametrize(
    ("text", "meds_data", "realization"),
    [
        ("/m", "/m", None),
        ("m", "/start/m", None),
        ("/m/y3v02/balrog_images/3", "/m", "3"),
        ("m/y3v02/balrog_images/12/", "/start/m", "12"),
        ("/m/y3v02/balrog_images/x", "/m/y3v02/balrog_images/x", None),
    ],
)
def test_a_meds_base_may_be_a_realization(text, meds_data, realization):
    place = MedsBase(text, Path("/start"))
    assert place.meds_data == Path(meds_data)
    assert place.realization == realization


def test_a_realization_is_no_place_for_base_blocks(command, base):
    place = str(base / "run/meds/y3v02/balrog_images/0")
    words = ["-c", "meds-y3v02.yaml", "-t", TILE, "-g", "bal_config_hex.yaml", "-n", "2", "-m", "2"]
    done = command(str(BIN / "BalrogBase.py"), *words, MEDS_DATA=place)
    assert done.returncode == 2
    assert "only fits run on one by itself" in done.stderr


def test_a_script_passes_the_status_on_and_keeps_the_log(command, base, tmp_path):
    done = command(str(BIN / "RunBase.sh"), str(tmp_path / "meds"), "DES0239+0217", "bal_config_hex.yaml", "1")
    assert done.returncode == 2
    assert "did you mean" in done.stderr
    assert "did you mean" in (tmp_path / "workdir" / "base_DES0239+0217.log").read_text()


@pytest.mark.parametrize("script", sorted(BIN.glob("Run*.sh")), ids=lambda path: path.name)
def test_a_script_says_how_it_is_called(command, script):
    asked, wrong = command(str(script), "--help"), command(str(script))
    assert asked.returncode == 0
    assert asked.stdout.startswith(f"usage: {script.name} <meds base>")
    assert (wrong.returncode, wrong.stderr) == (2, asked.stdout)


def test_whoever_ends_a_script_ends_its_run(terminal, base, tmp_path):
    for name in ("Snakefile", "rules", "profiles"):
        (base / name).symlink_to(CHECKOUT / name)
    # A Snakemake that works until it is told to end.
    tools = tmp_path / "tools" / "snakemake"
    tools.mkdir(parents=True)
    (tools / "__init__.py").touch()
    (tools / "__main__.py").write_text(
        "import pathlib, os, time\npathlib.Path('../alive').write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    words = [str(BIN / "RunBase.sh"), str(tmp_path / "meds"), TILE, "bal_config_hex.yaml", "1", "2"]
    place = {"cwd": terminal["cwd"], "env": terminal["env"] | {"PYTHONPATH": str(tools.parent)}}
    with subprocess.Popen(words, **place, stderr=subprocess.PIPE, text=True) as script:
        deadline = time.monotonic() + 60
        while not (base.parent / "alive").is_file() or not (base.parent / "alive").read_text():
            assert script.poll() is None, script.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        script.terminate()
        assert script.wait(30) == 128 + signal.SIGTERM
    assert not psutil.pid_exists(int((base.parent / "alive").read_text()))
