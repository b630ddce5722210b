"""The status of tiles: nothing made, logs that say nothing, then a run, failures, rates and the page."""

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from html.parser import HTMLParser

import pytest
from upkeep_tile import BANDS, TILE, context_of, done

from balrogutils.context import Installation
from balrogutils.errors import InputError
from balrogutils.graph import Job, jobs
from balrogutils.overview.status import State, Status, known_tiles, log_of, status_of
from balrogutils.overview.statustext import page, span, text
from balrogutils.products import writing_text

START = 1_800_000_000.0


@pytest.fixture
def context(base):
    return context_of(base)


def made(job, at=None, wall=None):
    """Leave the manifest of a step, done at a time and after so many seconds."""
    writing_text(job.product, "x")
    done(job, job.product)
    document = json.loads(job.manifest.read_text())
    if wall is not None:
        job.manifest.write_text(json.dumps(document | {"wall_seconds": wall}))
    if at is not None:
        os.utime(job.manifest, (at, at))
    return job


def logged(job, *records, at=None):
    log = log_of(job)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(f"2026-11-22 00:00:00 {one}\n" for one in records))
    if at is not None:
        os.utime(log, (at, at))


class Run:
    """Another process that holds the run lock of a tile, as Snakemake does."""

    def __init__(self, context, exclusive=True, note=True):
        lock = context.lock.run
        lock.parent.mkdir(parents=True, exist_ok=True)
        kind = "LOCK_EX" if exclusive else "LOCK_SH"
        hold = f"f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.{kind}); print(1, flush=True); time.sleep(99)"
        code = f"import fcntl, sys, time; {hold}"
        self.process = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
        self.process.stdout.readline()
        if note:
            about = {"token": "t", "pid": self.process.pid, "host": "here", "command": "snakemake <all>"}
            lock.write_text(json.dumps(about))

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def run(context):
    one = Run(context)
    os.utime(context.lock.run, (START, START))
    yield one
    one.end()


def states(status):
    return {(one.job.step, one.job.band, one.job.context.realization): one.state for one in status.tiles[0].steps}


def test_no_tile_at_all_is_refused(base):
    with pytest.raises(InputError, match="no tile has been started yet"):
        known_tiles(Installation.load(environ={"BALROG_BASE": str(base)}), [])


def test_strange_directories_are_no_tiles(base, context):
    context.tree.dir.mkdir(parents=True)
    (context.tree.dir.parent / "DES9999+9999").mkdir()
    found = known_tiles(Installation.load(environ={"BALROG_BASE": str(base)}), [])
    assert [one.tile for one in found] == [TILE]
    with pytest.raises(InputError, match="no campaign lists this tile"):
        known_tiles(Installation.load(environ={"BALROG_BASE": str(base)}), ["DES9999+9999"])


def test_a_tile_that_was_never_begun_waits(context):
    status = status_of([context])
    assert set(states(status).values()) == {State.WAITING}
    assert not context.tree.dir.exists()
    assert (status.rate, status.left, status.running, status.seconds) == (None, None, False, {})
    assert "Nothing runs." in text(status)
    assert page(status).count("<table>") == 2


def test_blocks_outside_the_mode_are_left_out(base):
    context = Installation.load({"mode": 3}, environ={"BALROG_BASE": str(base)}).context(TILE)
    assert {block.bit for block in status_of([context]).blocks} == {1, 2}


LOGS = {
    "empty": ((), State.FAILED, "it was ended; its last message: none"),
    "stopped in the middle": (("INFO half way",), State.FAILED, "it was ended; its last message: half way"),
    "an error": (
        ("INFO begun", "ERROR no such band (tile T)\n  remedy: another"),
        State.FAILED,
        "no such band (tile T)",
    ),
    "an error that was mended": (("ERROR no such band", "INFO begun again"), State.FAILED, "it was ended;"),
    "no message at all": (("\x00\xff not a message",), State.FAILED, "it was ended; its last message: none"),
}


@pytest.mark.parametrize("name", LOGS)
def test_what_a_log_says_when_nothing_runs(context, name):
    records, state, says = LOGS[name]
    logged(Job("prep", context, "g"), *records)
    (step,) = [one for one in status_of([context]).tiles[0].steps if one.says]
    assert (step.state, step.job.band) == (state, "g")
    assert step.says.startswith(says)
    assert f"{TILE} prep g (base): {says}" in text(status_of([context]))


def test_a_run(context, run):
    made(Job("prep", context, "g"), START + 10)
    logged(Job("prep", context, "r"), "INFO fetching", at=START + 5)
    logged(Job("prep", context, "i"), "ERROR the archive lacks a file", at=START + 5)
    # Of an earlier run, which failed: this run has not come to it.
    logged(Job("prep", context, "z"), "ERROR an old one", at=START - 5)
    status = status_of([context], START + 20)
    found = {band: states(status)["prep", band, None] for band in BANDS}
    assert found == {"g": State.DONE, "r": State.RUNNING, "i": State.FAILED, "z": State.WAITING}
    assert status.tiles[0].run["command"] == "snakemake <all>"
    assert "token" not in json.dumps(status.document())
    assert status.tiles[0].block(1) is State.FAILED
    assert status.tiles[0].block(2) is State.WAITING
    assert [step["band"] for step in status.document()["running"]] == ["r"]


def test_rate_and_time_left_count_the_work_of_steps(context, run):
    """Two steps of 30 s in 30 s are two at a time; what is left of known and unknown steps takes half its sum."""
    made(Job("prep", context, "g"), START - 100, wall=30.0)
    for band in "ri":
        made(Job("prep", context, band), START + 25, wall=30.0)
    status = status_of([context], START + 30)
    assert status.rate == pytest.approx(240.0)
    assert status.seconds == {"prep": 30.0}
    todo = len(status.tiles[0].steps) - 3
    assert status.left == pytest.approx(30.0 * todo / 2)
    assert f"240 steps an hour over the last 30 s; about {span(status.left)} left" in text(status)


@pytest.mark.parametrize("wall", ["NaN", "Infinity", "-5", '"long"', "null"])
def test_times_that_are_none_say_nothing(context, run, wall):
    job = Job("prep", context, "g")
    job.manifest.parent.mkdir(parents=True, exist_ok=True)
    job.manifest.write_text(f'{{"step": "prep", "inputs": [], "outputs": [], "wall_seconds": {wall}}}')
    assert status_of([context]).seconds == {}


def test_adopted_steps_say_nothing_of_time(context, run):
    job = Job("prep", context, "g")
    writing_text(job.product, "x")
    done(job, job.product, adopted=True)
    os.utime(job.manifest, (START + 5, START + 5))
    status = status_of([context], START + 30)
    assert (status.seconds, status.left) == ({}, None)


def test_a_tile_is_done_when_all_its_steps_are(context):
    for job in jobs(context):
        made(job)
    status = status_of([context])
    assert all(status.tiles[0].block(block.bit) is State.DONE for block in status.blocks)
    assert all(block.tiles == {State.DONE: 1} for block in status.blocks)
    context.tree.manifest("coadd", "det").unlink()
    assert status_of([context]).tiles[0].block(2) is State.WAITING


def test_commands_by_themselves_have_the_tile_too(context):
    other = Run(context, exclusive=False, note=False)
    try:
        logged(Job("prep", context, "g"), "INFO begun")
        status = status_of([context])
        assert status.tiles[0].run["pid"] == other.process.pid
        assert states(status)["prep", "g", None] is State.RUNNING
    finally:
        other.end()
    assert not status_of([context]).running


def test_looking_takes_no_lock(context, run):
    status_of([context])
    run.end()
    status_of([context])
    with context.lock.run.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Page(HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.seen = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_the_page_needs_nothing_else_and_can_be_read_aloud(context, run):
    logged(Job("prep", context, "r"), "INFO <script>alert(1)</script> & more", at=START + 5)
    logged(Job("prep", context, "i"), "ERROR no", at=START + 5)
    source = page(status_of([context], START + 9), every=7)
    tags = Page(source).seen
    names = [tag for tag, _ in tags]
    assert ("html", {"lang": "en"}) in tags
    assert ("meta", {"http-equiv": "refresh", "content": "7"}) in tags
    assert not {"script", "link", "img"} & set(names)
    assert "url(" not in source
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in source
    assert "snakemake &lt;all&gt;" in source
    assert names.count("caption") == names.count("table") == 4
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")
    assert names.count("h1") == names.count("main") == names.count("title") == 1
    assert ("label", {"for": "all"}) in tags
    assert "prefers-color-scheme: dark" in source
    # What failed is told in words, not by a colour alone.
    assert "Steps failed" in source
    assert "refresh" not in page(status_of([context], START + 9))


def contrast(one, other):
    """Contrast of two colours, WCAG 2.2."""

    def light(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((light(one), light(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_colours_can_be_told_apart_in_light_and_dark(context):
    """WCAG 2.2 AA: 4.5 for text, 3 for lines and bars."""
    schemes = re.findall(r":root \{([^}]*)\}", page(status_of([context])))
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for name, least in {"ink": 4.5, "bad": 4.5, "line": 3.0, "bar": 3.0}.items():
            assert contrast(colours[name], colours["paper"]) >= least, name
        assert contrast(colours["ink"], colours["shade"]) >= 4.5


def test_lengths_of_time():
    assert [span(one) for one in (None, 0, 99, 100, 5400, 7200, 200_000)] == [
        *("unknown", "0 s", "99 s", "2 min", "90 min", "2.0 h", "2.3 days")
    ]


def test_a_thousand_tiles_of_ten_realizations(base):
    """Half a million steps; a table of blocks, not of steps."""
    context = Installation.load({"realizations": list(range(10))}, environ={"BALROG_BASE": str(base)}).context(TILE)
    one = status_of([context]).tiles[0]
    begun = time.process_time()
    status = Status((one,) * 1000, 0.0)
    assert len(text(status).splitlines()) < 20
    assert time.process_time() - begun < 10.0


def test_the_command(command, context, tmp_path):
    made(Job("prep", context, "g"))
    target = tmp_path / "pages" / "status.html"
    done = command("balrog", "status", "--json", "--html", str(target), "--every", "1")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["blocks"][0]["steps"] == {"done": 1, "running": 0, "failed": 0, "waiting": 3}
    # Nothing runs, so it looks once and the page rests.
    assert "refresh" not in target.read_text()
    assert command("balrog", "status", "--every", "0").returncode == 2


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e300"])
def test_a_pause_that_is_none_is_refused(command, context, seconds):
    made(Job("prep", context, "g"))
    done = command("balrog", "status", "--every", seconds)
    assert done.returncode == 2
    assert "--every takes seconds from 1 to 86400" in done.stderr
