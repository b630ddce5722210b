"""What a clock that was ahead has left: steps done in the future, and configuration files."""

import json
import os
import time

import pytest

from balrogutils.context import Installation
from balrogutils.errors import InputError
from balrogutils.graph import Job, needs
from balrogutils.products import Step
from balrogutils.upkeep.future import settle_future

TILE = "DES0239+0216"
HOUR = 3600.0


@pytest.fixture
def context(base):
    return Installation.load(environ={"BALROG_BASE": str(base)}).context(TILE)


@pytest.fixture
def steps(context):
    """Block 1 and the coadd of a band, done an hour ahead."""
    prep, coadd = Job("prep", context, "g"), Job("coadd", context, "g")
    for job in (prep, coadd):
        before, files = needs(job)
        with Step(job.manifest, job.step, before=[need.manifest for need in before]) as step:
            step.read(*(need.product for need in before), *files)
            job.product.parent.mkdir(parents=True, exist_ok=True)
            job.product.write_text(job.step)
            step.wrote(job.product)
    date(HOUR, prep.manifest, coadd.manifest)
    return prep, coadd


def date(seconds, *paths):
    there = time.time() + seconds
    for path in paths:
        os.utime(path, (there, there))


def times(steps):
    return [job.manifest.stat().st_mtime for job in steps]


def test_nothing_done_is_nothing_ahead(context):
    assert settle_future(context, 2047) == []


def test_what_is_right_as_it_is_was_done_now_and_in_its_order(context, steps):
    assert settle_future(context, 2047) == []
    prep, coadd = times(steps)
    assert prep <= coadd <= time.time()


def test_other_blocks_are_left_alone(context, steps):
    then = times(steps)
    assert settle_future(context, 1) == []
    assert times(steps)[1] == then[1]


def test_the_past_is_left_alone(context, steps):
    date(-HOUR, *(job.manifest for job in steps))
    then = times(steps)
    assert settle_future(context, 2047) == []
    assert times(steps) == then


def test_a_file_server_that_is_ahead_does_no_harm(context, steps, monkeypatch):
    date(-1.0, *(job.manifest for job in steps))
    then, honest = times(steps), time.time
    monkeypatch.setattr(time, "time", lambda: honest() - HOUR)
    assert settle_future(context, 2047) == []
    assert times(steps) == then


def test_a_configuration_that_was_edited_since_is_seen(context, steps, caplog):
    prep, coadd = steps
    (file,) = needs(coadd)[1]
    file.write_text(file.read_text() + "\n")
    assert settle_future(context, 2047) == [coadd.manifest]
    assert not coadd.manifest.exists()
    assert prep.manifest.exists()
    assert f"{file} has changed since; step coadd will be made again" in caplog.text


def test_a_product_that_was_made_again_since_is_seen(context, steps):
    prep, coadd = steps
    prep.product.write_text("other")
    with Step(prep.manifest, prep.step) as step:
        step.wrote(prep.product)
    assert settle_future(context, 2047) == [coadd.manifest]


def test_what_was_adopted_is_never_made_again(context, steps):
    _, coadd = steps
    (file,) = needs(coadd)[1]
    file.write_text(file.read_text() + "\n")
    coadd.manifest.write_text(json.dumps(json.loads(coadd.manifest.read_text()) | {"adopted": True}))
    date(HOUR, coadd.manifest)
    assert settle_future(context, 2047) == []
    assert times(steps)[1] <= time.time()


def test_a_configuration_of_the_future_is_refused_before_anything_is_done(context, base, command):
    file = base / "etc" / "Y3A1_v1_swarp.config"
    date(HOUR, file)
    with pytest.raises(InputError, match=r"block 2 \(coadd\) needs a file that is dated in the future: 20"):
        settle_future(context, 2047)
    assert settle_future(context, 1) == []
    done = command("snakemake", "-n", f"tile={TILE}")
    assert done.returncode == 2
    assert "remedy: set the clock right, and the file's time with touch" in done.stderr
    date(0.0, file)
    assert command("snakemake", "-n", f"tile={TILE}").returncode == 0
