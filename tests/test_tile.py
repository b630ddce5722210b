"""A whole tile of real sky through the workflow, as a user runs it."""

import json
import re
import shutil

import pytest
from chromium import open_report
from conftest import REAL_TILE as TILE
from conftest import fit_exponentials
from identical import differences

pytestmark = pytest.mark.long

# `make tile` makes two; the second costs what the first does, and has nothing of its own.
ONE = "realizations=0"


def made(text):
    """Rules that a dry run would run, with their counts."""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", text, re.MULTILINE)}


def run(command, cores, *words):
    done = command("snakemake", "--cores", str(cores), f"tile={TILE}", "--config", ONE, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slowest
def test_a_tile_on_one_and_two_cores_and_one_block_again(archive, base, command):
    fit_exponentials(base, "sof")
    meds_data = base / "run" / "meds"
    run(command, 1)
    shutil.move(meds_data, base / "one core")
    run(command, 2)
    assert differences(base / "one core", meds_data) == []

    assert "Nothing to be done" in run(command, 2)

    summary = command("balrog", "summary", TILE, "--set", ONE)
    assert summary.returncode == 0
    blocks = json.loads((base / "run" / f"summary_{TILE}.json").read_text())["blocks"]
    assert all(block["jobs_done"] == block["jobs"] for block in blocks)
    assert {block["bit"] for block in blocks} == {1, 2, 4, 8, 16, 32, 64, 1024}
    page = meds_data / "y3v02" / TILE / "report" / f"{TILE}_report.html"
    assert str(page) in summary.stdout
    open_report(page, base / "profile", "injections detected, 50 % completeness at r")

    # Block 8 alone, then what depends on it and nothing of the base.
    again = run(command, 2, "mode=8", "--forceall")
    assert set(re.findall(r"^(?:local)?rule ([\w=+]+):$", again, re.MULTILINE)) <= {
        "plan",
        "inject",
        "truth",
        f"tile={TILE}",
    }
    plan = command("snakemake", "-n", f"tile={TILE}", "--config", ONE)
    rules = made(plan.stdout + plan.stderr)
    assert set(rules) == {"coadd", "detection", "psf_maps", "catalog", "meds", "sof", "match", "tile_report", "total"}
    assert rules["coadd"] == 3
    assert rules["sof"] == 1
    run(command, 2)
    assert differences(base / "one core", meds_data) == []
    assert "Nothing to be done" in run(command, 2)
