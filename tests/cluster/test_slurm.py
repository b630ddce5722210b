"""A tile through a real Slurm: the same products as without, memory that is not enough, jobs that cannot work."""

import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import CHECKOUT, fit_exponentials
from conftest import REAL_TILE as TILE
from identical import differences

pytestmark = pytest.mark.long

# Of the base run: one a band for its images, one for detection, catalogues and MEDS files, one for PSF maps, one for
# SOF. Of the realization: one injection, a coadd a band, and the same as before.
JOBS = (3 + 1 + 1 + 1) + (1 + 3 + 1 + 1 + 1)
# Steps: prep, coadd, catalogue, MEDS file a band, detection, PSF maps, SOF; plan, truth and injection instead of prep.
STEPS = (4 * 3 + 3) + (4 * 3 + 3 + 2)
CHOICES = ("--config", "realizations=0", "mode=127")
# As on a site without an accounting database, and without the half minute that the plugin gives a busy one.
SLURM = ("--profile", "profiles/slurm", "--slurm-status-command", "squeue")
SLURM += ("--slurm-init-seconds-before-status-checks", "1")


@pytest.fixture
def cluster(tmp_path, terminal):
    """A cluster of one node with two cores, started as docs/production.md says; the terminal's commands find it."""
    script, said = CHECKOUT / "tests" / "cluster" / "slurm.py", tmp_path / "one-node.env"
    with said.open("w") as stream:
        words = [sys.executable, str(script), str(tmp_path / "slurm")]
        one = subprocess.Popen(words, env=terminal["env"], stdout=stream)
    try:
        while not said.stat().st_size:
            assert one.poll() is None
            time.sleep(0.1)
        shell = ["sh", "-c", f'. "{said}"; printf %s "$PATH"']
        terminal["env"]["PATH"] = subprocess.run(
            shell, env=terminal["env"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        yield tmp_path / "slurm"
    finally:
        one.terminate()
        assert one.wait(60) == 0


def job_list(cluster):
    """Return the states of all jobs, and the memory each was given, MB."""
    lines = (cluster / "jobs.txt").read_text().splitlines()
    return [(re.search(r"JobState=(\S+)", one)[1], int(re.search(r"mem=(\d+)M", one)[1])) for one in lines]


@pytest.mark.slowest
def test_a_tile_through_slurm_is_the_local_one(archive, base, terminal, command, cluster):
    fit_exponentials(base, "sof")
    meds_data, reference = base / "run" / "meds", base / "local"
    local = command("snakemake", "--cores", "2", f"tile={TILE}", *CHOICES)
    assert local.returncode == 0, local.stderr
    shutil.move(meds_data, reference)
    shutil.rmtree(terminal["cwd"] / ".snakemake")

    done = command("snakemake", *SLURM, f"tile={TILE}", *CHOICES)
    assert done.returncode == 0, done.stderr
    assert differences(reference, meds_data) == []
    states = Counter(state for state, _ in job_list(cluster))
    assert set(states) == {"COMPLETED"}
    assert states["COMPLETED"] == JOBS
    steps = [path for path in Path(meds_data).rglob("manifests/*.json") if "-chunk" not in path.name]
    assert len(steps) == STEPS

    # Nothing is left to do, of a list either, and nothing is submitted.
    (terminal["cwd"] / "tiles.txt").write_text(TILE)
    words = [word for one in CHOICES[1:] for word in ("--set", one)]
    again = command("balrog", "campaign", "tiles.txt", *words, "--", *SLURM)
    assert again.returncode == 0, again.stderr
    assert "Nothing to be done" in again.stdout + again.stderr
    assert len(job_list(cluster)) == JOBS


def test_memory_that_is_not_enough_is_doubled(archive, base, command, cluster):
    words = (*SLURM, f"tile={TILE}", "--config", "realizations=none", "mode=1", "bands=g")
    # With what a site wants to know, but for the account: this one keeps none.
    words += ("--default-resources", "slurm_partition=main")
    done = command("snakemake", *words, "--set-resources", "prep:mem_mb=attempt*250")
    assert done.returncode == 0, done.stderr
    states = job_list(cluster)
    assert [memory for _, memory in states] == [250, 500]
    assert states[0][0] != "COMPLETED"
    assert states[1][0] == "COMPLETED"


@pytest.mark.slowest
def test_memory_that_is_never_enough_fails_and_says_so(archive, base, command, cluster):
    words = (*SLURM, f"tile={TILE}", "--config", "realizations=none", "mode=1", "bands=g")
    done = command("snakemake", *words, "--set-resources", "prep:mem_mb=100")
    assert done.returncode == 1
    assert "Error in rule prep" in done.stderr
    assert [state == "COMPLETED" for state, _ in job_list(cluster)] == [False] * 3
    assert not list((base / "run" / "meds").rglob("manifests/*.json"))
