"""The balrog command."""

import signal
import subprocess
import sys

import pytest

COMMANDS = (
    *("archive", "prep", "coadd", "detect", "meds", "inject", "sof", "mof", "mcal", "bfd", "match", "summary"),
    *("audit", "replay"),
)


def test_help_lists_a_subcommand_per_block(command):
    done = command("balrog", "--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_explains_itself(command, name):
    done = command("balrog", name, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_the_log_and_the_terminal_both_tell(command, tmp_path):
    log = tmp_path / "logs" / "prep.log"
    done = command("balrog", "prep", "DES0239+0217", "--log", str(log))
    assert done.returncode == 2
    assert "did you mean" in log.read_text()
    assert "did you mean" in done.stderr


def test_a_directory_that_is_a_file_is_told_without_a_traceback(command, tmp_path):
    (tmp_path / "taken").write_text("x")
    words = ["balrog", "prep", "DES0239+0216", "--log", str(tmp_path / "a.log")]
    done = command(*words, MEDS_DATA=str(tmp_path / "taken"))
    assert done.returncode == 2
    assert "must be in a directory that you may write to" in done.stderr
    assert str(tmp_path / "taken") in done.stderr
    assert "Traceback" not in done.stderr
    taken = tmp_path / "meds" / "y3v02" / "DES0239+0216" / "manifests"
    taken.parent.mkdir(parents=True)
    taken.write_text("x")
    done = command(*words, MEDS_DATA=str(tmp_path / "meds"))
    assert done.returncode == 1
    assert "the machine refuses" in done.stderr
    assert str(taken) in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in (tmp_path / "a.log").read_text()


def test_a_job_that_is_told_to_end_tidies_up(tmp_path):
    script = f"""
import sys, time
from pathlib import Path
from balrogutils.cli.reporting import reporting
from balrogutils.scratch import scratch
from balrogutils.products import writing
with reporting(None), scratch({str(tmp_path / "scratch")!r}, "job"), writing({str(tmp_path / "product")!r}) as part:
    part.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
        job.terminate()
        assert job.wait(30) == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.rglob("*")] == ["scratch"]
