"""What several tests need."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

# One thread for every numerical library, as in the command line, and before any of them is loaded.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest  # noqa: E402

CHECKOUT = Path(__file__).resolve().parents[1]
CONFIGURATION = ("etc", "desmeds-config", "sof-config", "mof-config", "shr-config", "bfd-config", "inputs")
"""What a user edits, and a copy of the checkout needs."""
REAL_TILE = "DES1226+2527"


def pytest_collection_modifyitems(items):
    """Begin with the slowest."""
    items.sort(key=lambda item: item.get_closest_marker("slowest") is None)


@pytest.fixture
def base(tmp_path):
    """A BALROG_BASE of its own: the checkout's configuration, copied so that a test may edit it, and empty archives."""
    root = tmp_path / "base dir"
    for name in CONFIGURATION:
        shutil.copytree(CHECKOUT / name, root / name, ignore=shutil.ignore_patterns("images", "calib"))
    for archive in ("synthetic", "decam"):
        (root / "run" / "archive" / archive).mkdir(parents=True)
        (root / "run" / "archive" / archive / "archive.db").touch()
    return root


def fit_exponentials(base, *kinds):
    """Have fits be of single exponentials, for tests to which only the time that fits take matters."""
    for kind in kinds:
        config = base / f"{kind}-config" / f"run-y3v02-{kind}.yaml"
        text, changed = re.subn(r"model: cm$", "model: exp", config.read_text(), flags=re.MULTILINE)
        assert changed, config
        config.write_text(text)


@pytest.fixture
def terminal(base, tmp_path):
    """Directory and environment in which a user types commands, with `base` as BALROG_BASE, as Popen takes them."""
    unset = ("MEDS_DATA", "MEDS_DIR", "medsconf", "NGMIXER_OUTPUT_DIR", "DESDATA", "DESMEDS_CONFIG_DIR", "DES_SERVICES")
    env = {key: value for key, value in os.environ.items() if key not in unset}
    env |= {"BALROG_BASE": str(base), "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    directory = tmp_path / "workdir"
    directory.mkdir()
    for name in ("Snakefile", "rules", "profiles"):
        (directory / name).symlink_to(CHECKOUT / name)
    return {"cwd": directory, "env": env}


@pytest.fixture
def command(terminal):
    """Run a command line as a user types it; returns the finished process."""

    def run(*words, **environment):
        return subprocess.run(
            words,
            cwd=terminal["cwd"],
            env=terminal["env"] | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def archive(base, command):
    """The embedded archive of real exposures, built by the command that `make tile` uses."""
    shutil.rmtree(base / "run")
    shutil.rmtree(base / "inputs")
    shutil.copytree(CHECKOUT / "inputs", base / "inputs")
    done = command("balrog", "archive", REAL_TILE)
    assert done.returncode == 0, done.stderr
    return base / "run" / "archive" / "decam"


@pytest.fixture(scope="session")
def science(tmp_path_factory):
    """One run of the default tile for all science tests; kept, and used again, where BALROG_SCIENCE_DIR says."""
    from science_tile import ScienceRun

    kept = os.environ.get("BALROG_SCIENCE_DIR")
    directory = Path(kept).absolute() if kept else tmp_path_factory.mktemp("science")
    yield ScienceRun(directory)
    if not kept:
        shutil.rmtree(directory)
