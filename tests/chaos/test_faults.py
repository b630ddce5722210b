"""Every fault in every block: no wrong product, an error that names the thing, and the same command mends it."""

import json
import os
import re
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
from tile import TILE, ChaosTile

from balrogutils.products import read_manifest

pytestmark = pytest.mark.chaos

STEPS = {
    "1 prep": ("prep", "g", None),
    "2 coadd": ("coadd", "g", None),
    "4 MEDS": ("meds", "g", None),
    "8 injection": ("inject", "g", "0"),
    "16 catalogue": ("catalog", "g", "0"),
    "32 MEDS": ("meds", "g", "0"),
    "64 SOF": ("sof", None, "0"),
    "128 MOF": ("mof", None, "0"),
    "256 metacal": ("mcal", None, "0"),
    "512 BFD": ("bfd", None, "0"),
    "1024 matching": ("match", None, "0"),
    "1024 report": ("report", None, None),
}
RULES = {"report": "tile_report"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    kept = os.environ.get("BALROG_CHAOS_DIR")
    with ChaosTile(Path(kept).absolute() if kept else tmp_path_factory.mktemp("chaos")) as tile:
        yield tile


@pytest.fixture
def tile(made):
    yield made
    made.restore()


@pytest.fixture(params=STEPS)
def step(request):
    return request.param


@pytest.fixture
def job(tile, step):
    """One job of the block, to be done."""
    job = tile.jobs[STEPS[step]]
    tile.unmake(job)
    return job


def note(fault, step, told):
    """Keep what a row has shown, where BALROG_CHAOS_TABLE names a file for it."""
    if os.environ.get("BALROG_CHAOS_TABLE"):
        with Path(os.environ["BALROG_CHAOS_TABLE"]).open("a") as table:
            table.write(json.dumps([fault, step, told]) + "\n")


def told(done, text):
    """Require a message of ours that says this, with a remedy; return its first line."""
    assert "Traceback" not in done.stdout, done.stdout
    found = re.search(r"^balrog: (?P<line>.*)\n(?:.*\n)*? +remedy: .+", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    assert re.search(text, found[0]), done.stdout
    return found["line"]


def refused(tile, job, done, text):
    """Require that a job failed with this message and left nothing wrong."""
    assert done.returncode == 1, done.stdout
    line = told(done, text)
    assert not job.manifest.exists()
    assert tile.wrong() == []
    return line


def mended(tile, done):
    """Require that the same command, the cause gone, gave what the undisturbed run gave."""
    assert done.returncode == 0, done.stdout
    assert tile.wrong() == []
    assert tile.missing() == []


def named(done, job):
    """Require that Snakemake names the rule, its output and its log."""
    assert done.returncode == 1, done.stdout
    rule = RULES.get(job.step, job.step)
    assert re.search(rf"Error in rule {rule}:.*\n(    .*\n)*    output: {re.escape(str(job.manifest))}", done.stdout)
    assert f"    log: {job.context.tree.log(job.step, job.band)}" in done.stdout


@contextmanager
def edited(path):
    """Change one byte of a file, with its size and its time as they were."""
    status, content = path.stat(), path.read_bytes()
    middle = len(content) // 2

    def write(data):
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    write(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    try:
        yield
    finally:
        write(content)


def test_memory_runs_out(tile, step, job):
    line = refused(tile, job, tile.work(job, "memory:0"), "memory")
    mended(tile, tile.work(job))
    note("out of memory", step, line)


def test_an_input_is_edited_and_its_time_kept(tile, step, job):
    if step == "1 prep":
        path = next((tile.base / "run" / "archive").rglob("*_g_*_immasked.fits.fz"))
        text = "a file of the archive is damaged"
    else:
        read = [Path(one["path"]) for one in read_manifest(tile.before(job.manifest))["inputs"]]
        path = next(path for path in read if path.is_relative_to(tile.data) and path.is_file())
        text = "is not as step \\w+ left it: its content has changed"
    with edited(path):
        line = refused(tile, job, tile.work(job), text)
        assert path.name in line
    mended(tile, tile.work(job))
    note("input edited, time kept", step, line)


def test_the_disk_of_the_data_is_full(tile, step, job):
    files = {(status.st_ino, status.st_size) for status in (tile.before(path).stat() for path in tile.outputs(job))}
    with tile.full(tile.data, sum(size for _, size in files) // 2):
        line = refused(tile, job, tile.work(job), "disk.* is full|No space left")
    mended(tile, tile.work(job))
    note("data disk full", step, line)


def test_the_disk_of_scratch_is_full(tile, step, job):
    with tile.full(tile.scratch, 0):
        done = tile.work(job)
        line = "it needs none"
        if done.returncode:
            line = refused(tile, job, done, "disk.* is full|No space left")
    mended(tile, tile.work(job) if done.returncode else done)
    note("scratch disk full", step, line)


@pytest.mark.parametrize("point", ["during", "before", "after"])
def test_the_worker_is_killed_around_the_write(tile, point, step, job):
    """What Snakemake says of it: test_the_worker_is_killed_and_what_is_incomplete_kept. Bash becomes the job."""
    done = tile.work(job, f"{point}:{job.product.name}")
    assert done.returncode == -signal.SIGKILL, done.stdout
    assert job.product.exists() == (point == "after")
    assert not job.manifest.exists()
    assert tile.wrong() == []
    mended(tile, tile.work(job))
    note(f"killed {point} the write", step, "")


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_the_clock_is_an_hour_off(tile, seconds, step, job):
    """Of a job, and, ahead, of the run that made all but this job before the clock was set right."""
    mended(tile, tile.work(job, f"clock:{seconds}"))
    off = job.manifest.stat().st_mtime - job.manifest.parent.stat().st_mtime
    assert abs(off - seconds) < 60
    if seconds > 0:
        tile.unmake(job)
        tile.date(seconds)
    mended(tile, tile.run(f"tile={TILE}", "--until", RULES.get(job.step, job.step)))
    note(f"clock an hour {'ahead' if seconds > 0 else 'back'}", step, "")


def test_one_band_of_one_realization_is_lost(tile):
    root = tile.data / "y3v02" / "balrog_images" / "0" / "y3v02" / TILE
    files = [path for path in root.rglob("*") if path.is_file()]
    lost = [path for path in files if re.search(r"_g[_.-]|-g/", str(path.relative_to(root)))]
    assert len(lost) > 20
    untouched = [tile.jobs["plan", None, "0"], *(job for job in tile.jobs.values() if job.context.realization is None)]
    untouched = [job.manifest for job in untouched if job.step != "report"]
    times = [manifest.stat().st_mtime_ns for manifest in untouched]
    for path in lost:
        path.unlink()
    mended(tile, tile.run(f"tile={TILE}"))
    assert [manifest.stat().st_mtime_ns for manifest in untouched] == times
    for step, (_, _, realization) in STEPS.items():
        injected = realization is not None or step == "1024 report"
        note("a band of a realization lost", step, "" if injected else "it needs none")


def test_the_worker_is_killed_and_what_is_incomplete_kept(tile, step, job):
    """At the one file that Snakemake knows of."""
    done = tile.run(job.manifest, "--keep-incomplete", chaos=f"during:{job.manifest.name}")
    named(done, job)
    assert not job.manifest.exists()
    assert tile.wrong() == []
    assert tile.unfinished()
    mended(tile, tile.run(job.manifest, "--keep-incomplete"))
    assert tile.unfinished() == []
    note("killed, --keep-incomplete", step, "")


def test_the_disk_of_snakemakes_records_is_full(tile, step, job):
    tile.forget()
    with tile.full(tile.state, 0):
        done = tile.run(job.manifest)
        assert done.returncode != 0
        assert ".snakemake" in done.stdout
        assert "No space left" in done.stdout
        assert tile.wrong() == []
    mended(tile, tile.run(job.manifest))
    note("Snakemake's records full", step, "")
