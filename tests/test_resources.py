"""What jobs ask of a cluster, and what a run does not try twice."""

import json
import logging
import math
from dataclasses import replace

import pytest

from balrogutils.cli.reporting import reporting
from balrogutils.context import Installation
from balrogutils.errors import ArchiveError, InputError
from balrogutils.graph import Job, jobs
from balrogutils.overview.costs import Counts, cost_of
from balrogutils.resources import counts_of_run, demand
from balrogutils.runlock import TOKEN

STEPS = ("prep", "coadd", "catalog", "meds", "plan", "inject", "truth", "sof", "mof", "mcal", "bfd", "match", "report")


@pytest.fixture
def context(base, tmp_path):
    environ = {"BALROG_BASE": str(base), "MEDS_DATA": str(tmp_path / "meds")}
    return Installation.load({}, environ).context("DES0239+0216")


SMALL = Counts(4, 3, 11, 5, 12.0, 1.0, 439.0, 5.0, 208.0)
SURVEY = Counts(4, 3, 100, 10, 840.0, 100.0, 44_000.0, 10.0, 17_300.0)


def leave(context, step, counts):
    """Write as much of a manifest as says how much a job had to do."""
    manifest = Job(step, context, context.bands[0]).manifest
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"step": step, "counts": counts, "inputs": [], "outputs": []}))


@pytest.mark.parametrize("step", STEPS)
def test_one_pixel_still_asks_for_something(step):
    asked = demand(step, Counts(1, 1, 1, 1, 1e-6, 1e-6, 0.0, 1.0))
    assert asked.memory >= 500
    assert asked.minutes >= 10
    assert asked.scratch >= 100


@pytest.mark.parametrize("step", STEPS)
def test_more_to_do_never_asks_for_less(step):
    small, large = demand(step, SMALL), demand(step, SURVEY)
    assert large.memory >= small.memory
    assert large.minutes >= small.minutes
    assert large.scratch >= small.scratch


def test_every_step_of_a_tile_has_a_demand(context):
    assert {job.step for job in jobs(context)} == set(STEPS)


def test_workers_share_the_time_and_each_has_memory():
    one, four = (demand("sof", SURVEY, workers) for workers in (1, 4))
    assert four.memory - one.memory == pytest.approx(3 * 2 * cost_of("sof", SURVEY).memory / 1e6, abs=1)
    assert four.minutes == pytest.approx(one.minutes / 4, abs=1)


def test_another_attempt_asks_for_more():
    first = demand("coadd", SURVEY)
    third = first.again(3)
    assert (third.memory, third.minutes, third.scratch) == (3 * first.memory, 3 * first.minutes, 3 * first.scratch)


def test_a_tile_that_is_not_there_yet_is_one_of_the_survey(context):
    assert counts_of_run(context) == replace(SURVEY, injections=0.0)
    assert counts_of_run(context.at("0")) == replace(SURVEY, objects=61_300.0)


def test_a_tile_has_the_size_its_manifests_say(context):
    leave(context, "prep", {"chips": 11, "exposures": 5})
    leave(context, "coadd", {"pixels": 1_000_000})
    base = Counts(4, 3, 11, 5, 11 * 8.4, 1.0, 440.0, 5.0)
    assert counts_of_run(context) == base
    leave(context, "catalog", {"detections": 439})
    assert counts_of_run(context) == replace(base, objects=439.0)
    assert counts_of_run(context.at("0")) == replace(base, objects=612.0, injections=173.0)


def test_a_damaged_manifest_says_nothing(context):
    manifest = Job("prep", context, context.bands[0]).manifest
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{")
    assert counts_of_run(context).chips == SURVEY.chips


@pytest.mark.parametrize(
    "counts", [None, [], {"chips": None}, *({"chips": one} for one in ("11", -1, math.nan, 1e300))]
)
def test_counts_that_are_none_say_nothing(context, counts):
    leave(context, "prep", counts)
    assert counts_of_run(context) == replace(SURVEY, injections=0.0)


@pytest.mark.parametrize(
    ("step", "peak"), [("prep", 161), ("coadd", 71), ("catalog", 106), ("meds", 113), ("plan", 112)]
)
def test_demands_are_above_what_the_embedded_tile_takes(step, peak):
    """MiB, from the manifests of DES0239+0216; two Snakemakes take 300 more."""
    assert demand(step, SMALL).memory > 1.3 * peak + 300


class TestRetries:
    """A run does not try again what it was refused."""

    @pytest.fixture
    def job(self, tmp_path, monkeypatch):
        """Run something as a job of a run; the number of times its work was begun, and its status."""
        begun = []

        def run(error, token="one"):
            monkeypatch.setenv(TOKEN, token)
            with pytest.raises(SystemExit) as ended, reporting(tmp_path / "logs" / "job.log"):
                begun.append(1)
                raise error
            return len(begun), ended.value.code

        yield run
        assert not logging.getLogger("balrogutils").handlers

    def test_what_input_is_wrong_for_is_told_again_without_work(self, job, capsys):
        error = InputError("no such band", tile="DES0239+0216", remedy="choose another")
        assert job(error) == (1, 2)
        first = capsys.readouterr().err
        assert job(error) == (1, 2)
        assert capsys.readouterr().err == first

    def test_what_can_change_is_tried_again(self, job):
        error = ArchiveError("the archive does not answer")
        assert job(error) == (1, 1)
        assert job(error) == (2, 1)

    def test_another_run_tries_again(self, job):
        error = InputError("no such band")
        job(error)
        assert job(error, "two") == (2, 2)
        assert job(error, "two") == (2, 2)

    @pytest.mark.parametrize(
        "text", [b"", b"{", b"[]", b"{}", b'{"run": "one"}', b"7", b"null", b"\xff", b"[" * 100_000]
    )
    def test_a_damaged_record_says_nothing(self, job, tmp_path, text):
        error = InputError("no such band")
        job(error)
        (tmp_path / "logs" / "job.refused").write_bytes(text)
        assert job(error) == (2, 2)

    def test_a_command_by_itself_keeps_no_record(self, tmp_path, monkeypatch):
        monkeypatch.delenv(TOKEN, raising=False)
        with pytest.raises(SystemExit), reporting(tmp_path / "job.log"):
            raise InputError("no such band")
        assert [path.name for path in tmp_path.iterdir()] == ["job.log"]
