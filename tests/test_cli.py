"""The balrog command."""

import errno
import os
import re
import signal
import subprocess
import sys

import pytest

from balrogutils.cli.reporting import reporting

COMMANDS = (
    *("archive", "prep", "coadd", "detect", "meds", "inject", "sof", "mof", "mcal", "bfd", "match", "summary"),
    *("audit", "merge", "replay"),
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


def test_numerical_libraries_have_one_thread_whatever_snakemake_gives_them():
    code = "import os, balrogutils.cli.main; print(os.environ['OPENBLAS_NUM_THREADS'], os.environ['OMP_NUM_THREADS'])"
    given = os.environ | {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_the_log_and_the_terminal_both_tell(command, tmp_path):
    log = tmp_path / "logs" / "prep.log"
    done = command("balrog", "prep", "DES0239+0217", "--log", str(log))
    assert done.returncode == 2
    assert "did you mean" in log.read_text()
    assert "did you mean" in done.stderr


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), 1),
        (MemoryError("Unable to allocate 3 GiB"), 1),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 1),
        (ImportError("_galsim.so: failed to map segment from shared object"), 1),
        (ImportError("No module named 'galsim'"), None),
    ],
)
def test_too_little_memory_is_told_and_a_missing_library_is_a_bug(tmp_path, capsys, monkeypatch, error, status):
    # This process goes on.
    monkeypatch.setattr("balrogutils.cli.reporting._tidy_when_ended", lambda: None)
    monkeypatch.setattr("logging.raiseExceptions", True)
    with pytest.raises(SystemExit if status else ImportError) as caught, reporting(tmp_path / "a.log"):
        raise error
    if status:
        assert caught.value.code == status
        told = capsys.readouterr().err
        assert re.search(rf"^balrog: .*not enough memory.*{re.escape(str(error.args[-1]) if error.args else '')}", told)
        assert "remedy: free some, or give the job more, then run the same command again" in told


def test_a_reader_that_has_enough_is_no_error(capsys, monkeypatch):
    """As in balrog explain FILE | head: click ends the program."""
    monkeypatch.setattr("balrogutils.cli.reporting._tidy_when_ended", lambda: None)
    monkeypatch.setattr("logging.raiseExceptions", True)
    with pytest.raises(BrokenPipeError), reporting(None):
        raise BrokenPipeError
    assert capsys.readouterr().err == ""


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


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("cli.main", "numpy pydantic yaml galsim"),
        ("context", "numpy galsim scipy fitsio"),
        ("blocks.inject", "galsim astropy scipy numba pyarrow"),
        ("blocks.replay", "scipy numba matplotlib PIL pyarrow"),
        ("blocks.catalog", "galsim astropy scipy numba"),
    ],
)
def test_what_takes_long_to_import_is_imported_by_those_who_use_it(module, unneeded):
    code = f"import balrogutils.{module}, sys; print(*sorted(set('{unneeded}'.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
