"""Realizations and bands added to a tile of real sky: what was there stays as it was, and is not made again."""

import re
import shutil

import fitsio
import pytest
from conftest import REAL_TILE as TILE
from identical import differences, same
from test_tile import made

from balrogutils.blocks import inject as block
from balrogutils.context import Installation
from balrogutils.fitsfile import read_table
from balrogutils.injection import listing

pytestmark = pytest.mark.long


def run(command, cores, bands, realizations, *words, mode=9):
    given = ("--config", f"bands={bands}", f"realizations={realizations}", f"mode={mode}")
    done = command("snakemake", "--cores", str(cores), f"tile={TILE}", *words, *given)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def times(directory):
    files = (path for path in directory.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


def context_of(base):
    """Realization 0, for a call in this process."""
    places = {"BALROG_BASE": str(base), "TMPDIR": str(base.parent)}
    return Installation.load({"realizations": "0", "bands": "g,r"}, places).context(TILE, "0")


def test_realization_2_and_a_band_are_added(archive, base, command):
    meds_data, old = base / "run" / "meds", base / "old"
    # With the coadds of what was injected.
    run(command, 1, "g,r", "0", mode=25)
    shutil.copytree(meds_data, old)
    before = times(meds_data)

    rules = made(run(command, 1, "g,r,z", "0,2", "-n", mode=25))
    # The plan of realization 0 gets fluxes in z and its truth has them; g and r are left alone, their coadds too.
    assert {name: rules[name] for name in ("prep", "plan", "inject", "truth")} == {
        **{"prep": 1, "plan": 2, "truth": 2},
        "inject": 1 + 3,
    }
    # Four band coadds, and the detection image of both: z is one of its bands.
    assert rules["coadd"] == 1 + 3
    assert rules["detection"] == 2
    run(command, 2, "g,r,z", "0,2")
    after = times(meds_data)
    again = {path.name.removeprefix(f"{TILE}_") for path in before if after[path] != before[path]}
    whole = ("plan.json", "plan.log", "truth.json", "truth.log")
    truths = ("cat.fits", "cat.parquet", "chips.fits", "chips.parquet", "cat_desStar.fits", "cat_ngmixGalaxy.fits")
    assert again == {*whole, "0_balrog_plan.fits", *(f"0_balrog_truth_{name}" for name in truths)}
    kept = [path for path in before if path.name.removeprefix(f"{TILE}_") not in again]
    assert [str(path) for path in kept if not same(old / path.relative_to(meds_data), path)] == []
    tree = context_of(base).tree
    for path, name in ((tree.truth, "TRUTH"), (tree.truth_chips, "CHIPS")):
        earlier, now = (read_table(file, name) for file in (old / path.relative_to(meds_data), path))
        if name == "CHIPS":
            now = now[now["band"] != "z"]
        # An object may lack its centre in the new band.
        for column in set(earlier.dtype.names) - {"outcome"}:
            assert (earlier[column] == now[column]).all(), column

    # At once, with both processes, it is the same.
    shutil.move(meds_data, base / "one by one")
    run(command, 2, "g,r,z", "0,2")
    assert [
        name
        for name in differences(base / "one by one", meds_data)
        if not re.search(r"/coadd/|objmap|all_psfmap", name)
    ] == []
    assert "Nothing to be done" in run(command, 2, "g,r,z", "0,2")


def test_chips_in_another_order(archive, base, command, monkeypatch):
    run(command, 2, "g,r", "0")
    meds_data, old = base / "run" / "meds", base / "old"
    shutil.copytree(meds_data, old)
    honest = listing.base_chips
    seen = []

    def backwards(*arguments):
        chips = honest(*arguments)[::-1]
        seen.append(len(chips))
        return chips

    monkeypatch.setattr(listing, "base_chips", backwards)
    context = context_of(base)
    for band in "rg":
        block.inject(context, band)
    assert max(seen) > 1
    block.truth(context)
    changed = differences(old, meds_data)
    # The outcome of a band is in the order of its chips; the truth is not.
    assert [name for name in changed if not name.endswith("_balrog_chips.fits")] == []


def test_a_plan_that_an_added_band_changes_is_told(archive, base, command):
    """Rows of the catalogue that cannot be drawn in the new band are left out, and others take their places."""
    with fitsio.FITS(str(base / "inputs" / "galaxies_cosmos_hsc.fits"), "rw") as fits:
        rows = fits[1].read()
        rows["bdf_flux"][::2, "griz".index("z")] = -1.0
        fits[1].write(rows)
    run(command, 2, "g,r", "0")
    given = ("--config", "bands=g,r,z", "realizations=0", "mode=9")
    failed = command("snakemake", "--cores", "2", f"tile={TILE}", *given)
    assert failed.returncode == 1
    told = re.search(
        r"what was injected into a band is not what the plan says now.*\n.*remedy: run (.*)", failed.stderr
    )
    assert told is not None, failed.stderr
    for band in "gr":
        done = command(*f"balrog inject {TILE} -r 0 --band {band} --set bands=g,r,z".split())
        assert done.returncode == 0, done.stderr
    run(command, 2, "g,r,z", "0")
    done = command(*f"balrog audit {TILE} -r 0 --redraw --set bands=g,r,z".split())
    assert done.returncode == 0, done.stdout
    assert "pixels are as the truth says" in done.stdout
