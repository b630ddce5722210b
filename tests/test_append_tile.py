"""Tiles, realizations and bands that are added: what was there stays as it was, and is not made again."""

import json
import re
import shutil

import fitsio
import pytest
from conftest import REAL_TILE as TILE
from identical import differences, same
from test_tile import made
from upkeep_tile import done as leave

from balrogutils.blocks import inject as block
from balrogutils.context import Installation
from balrogutils.fitsfile import read_table
from balrogutils.graph import jobs
from balrogutils.injection import listing
from balrogutils.products import writing_text
from balrogutils.survey.tiny import tiny_survey

pytestmark = pytest.mark.long

SMALL, NEXT = "DES0239+0216", "DES0240+0216"
"""Both tiles of a tiny survey."""
# One product of a job, with realization (none: the base run), tile and step.
JOB = re.compile(r"(?:balrog_images/(\d+)/y3v02/)?(DES[^/\n]+)/manifests/\2_(\S+?)\.json")
FITS = ("sof", "mof", "mcal", "bfd")
LATE = (*FITS, "match", "report")


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


@pytest.mark.slowest
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


@pytest.mark.slowest
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


@pytest.fixture
def small(base, command):
    """The archive of a tiny survey of two tiles, in whose detection image g has no part."""
    survey = tiny_survey("gr", count=2, coadds={"det": ["r"]})
    (base / "etc" / "survey.yaml").write_text(json.dumps(survey.model_dump(mode="json")))
    shutil.rmtree(base / "run" / "archive" / "synthetic")
    campaigns = base / "etc" / "campaigns.yaml"
    text = campaigns.read_text().replace("bands: [g, r, i, z]\n    det: [r, z, i]", "bands: [g, r]\n    det: [r]")
    campaigns.write_text(text)
    done = command("balrog", "archive", "synthetic", "--workers", "2")
    assert done.returncode == 0, done.stderr


def jobs_of(text):
    """The jobs that Snakemake tells of, in order: realization ("" for the base run), tile, step."""
    outputs = re.findall(r"^    output: (.*)$", text, re.MULTILINE)
    return sorted(tuple(found) for line in outputs for found in JOB.findall(line))


def of_bands(tile, realization, bands):
    """The jobs of some bands of a tile, with those that are of all its bands."""
    first = ("prep",) if realization == "" else ("inject",)
    steps = [f"{step}_{band}" for step in (*first, "coadd", "catalog", "meds") for band in bands]
    whole = ["coadd_all", *FITS, *(("plan", "truth", "match") if realization else ())]
    return [(realization, tile, step) for step in (*steps, *whole)]


def of_tile(tile, bands):
    """Every job of a tile with realization 0."""
    runs = [job for realization in ("", "0") for job in of_bands(tile, realization, bands)]
    return [*runs, *((realization, tile, "coadd_det") for realization in ("", "0")), ("", tile, "report")]


@pytest.mark.slowest
def test_what_is_added_and_nothing_else_is_made(small, base, command):
    """The exact jobs of runs with a tile, a realization and a band more, in every block, beside a tile that is made."""
    meds_data = base / "run" / "meds"

    def asked(*words, mode=2047):
        done = command("snakemake", "--cores", "2", f"tile={SMALL}", *words, "--config", f"mode={mode}", *given)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout + done.stderr

    given = ("bands=r", "realizations=0")
    every = sorted(of_tile(SMALL, "r"))
    assert jobs_of(asked("-n")) == every
    assert jobs_of(asked(mode=63)) == [job for job in every if job[2] not in LATE]
    # Fits and what follows cost too much here; that they have been made is said as a run says it.
    settings = {"mode": "2047", "bands": "r", "realizations": "0"}
    for job in jobs(Installation.load(settings, {"BALROG_BASE": str(base)}).context(SMALL)):
        if job.step in LATE:
            writing_text(job.product, "made\n")
            leave(job, job.product)
    assert "Nothing to be done" in asked()
    # A tile.
    assert jobs_of(asked(f"tile={NEXT}", "-n")) == sorted(of_tile(NEXT, "r"))
    # A realization; the report is of all of them.
    given = ("bands=r", "realizations=0,1")
    first = [*of_bands(SMALL, "1", "r"), ("1", SMALL, "coadd_det"), ("", SMALL, "report")]
    assert jobs_of(asked("-n")) == sorted(first)
    # A band, by leaving the key out: the bands are those of the campaign then. Plan, truth and fits are of all bands.
    given = ("realizations=0",)
    band = [job for name in ("", "0") for job in of_bands(SMALL, name, "g")]
    assert jobs_of(asked("-n")) == sorted([*band, ("", SMALL, "report")])

    # Both at once, up to the MEDS files, and not dry: what was there is not touched.
    before = times(meds_data)
    both = [*band, *of_bands(SMALL, "1", "gr"), ("1", SMALL, "coadd_det")]
    wanted = sorted(job for job in both if job[2] not in LATE)
    given = ("realizations=0,1",)
    assert jobs_of(asked(mode=63)) == wanted
    after = times(meds_data)
    touched = {
        path.relative_to(meds_data).name.removeprefix(f"{SMALL}_") for path in before if after.get(path) != before[path]
    }
    assert {name for name in touched if re.match(r"r_|det|.*_r\b", name)} == set()
    assert "Nothing to be done" in asked(mode=63)
