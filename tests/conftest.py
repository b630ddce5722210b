"""What several tests need."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture
def base(tmp_path):
    """A BALROG_BASE of its own: the checkout's configuration, copied so that a test may edit it, and empty archives."""
    root = tmp_path / "base dir"
    for name in ("etc", "desmeds-config", "sof-config", "inputs"):
        shutil.copytree(CHECKOUT / name, root / name, ignore=shutil.ignore_patterns("images", "calib"))
    for archive in ("synthetic", "decam"):
        (root / "run" / "archive" / archive).mkdir(parents=True)
        (root / "run" / "archive" / archive / "archive.db").touch()
    return root


@pytest.fixture
def command(base, tmp_path):
    """Run a command line as a user types it, with `base` as BALROG_BASE; returns the finished process."""
    unset = ("MEDS_DATA", "MEDS_DIR", "medsconf", "NGMIXER_OUTPUT_DIR", "DESDATA", "DESMEDS_CONFIG_DIR", "DES_SERVICES")

    def run(*words, **environment):
        env = {key: value for key, value in os.environ.items() if key not in unset}
        env |= {"BALROG_BASE": str(base), "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        directory = tmp_path / "workdir"
        if not directory.exists():
            directory.mkdir()
            for name in ("Snakefile", "rules", "profiles"):
                (directory / name).symlink_to(CHECKOUT / name)
        return subprocess.run(
            words, cwd=directory, env=env | environment, capture_output=True, text=True, timeout=300, check=False
        )

    return run


@pytest.fixture(scope="session")
def science(tmp_path_factory):
    """One run of the default tile for all science tests; kept, and used again, where BALROG_SCIENCE_DIR says."""
    from science_tile import ScienceRun

    kept = os.environ.get("BALROG_SCIENCE_DIR")
    directory = Path(kept).absolute() if kept else tmp_path_factory.mktemp("science")
    yield ScienceRun(directory)
    if not kept:
        shutil.rmtree(directory)
