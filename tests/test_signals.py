"""Ctrl-C, wherever Snakemake is; SIGTERM stands with the lock of a run."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from balrogutils.cli import signals
from balrogutils.cli.signals import Interrupt

TOLD = "interrupted; the same command makes what is left"


@pytest.fixture
def interrupt():
    taken = Interrupt()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    taken.delay()
    try:
        yield taken
    finally:
        taken.end()
        signal.signal(signal.SIGINT, before)


def interrupt_now():
    os.kill(os.getpid(), signal.SIGINT)


class Scheduler:
    """Rests where Snakemake's does."""

    def __init__(self):
        self.rest = threading.Semaphore(0)

    def schedule(self):
        self.rest.acquire()


def test_it_is_raised_and_told_where_the_scheduler_rests(interrupt, capfd):
    threading.Timer(0.3, interrupt_now).start()
    with pytest.raises(KeyboardInterrupt):
        Scheduler().schedule()
    assert capfd.readouterr().err.count(TOLD) == 1
    # Once: it tidies up.
    interrupt_now()
    time.sleep(3 * signals._AGAIN)


@pytest.mark.parametrize("loop", [True, False])
def test_it_waits_until_the_scheduler_rests(interrupt, capfd, loop):
    reached = []

    def work():
        interrupt_now()
        # Longer than it takes until it comes again.
        time.sleep(3 * signals._AGAIN)
        reached.append("end")

    async def work_in_loop():
        work()

    asyncio.run(work_in_loop()) if loop else work()
    assert reached == ["end"]
    with pytest.raises(KeyboardInterrupt):
        Scheduler().schedule()
    assert capfd.readouterr().err.count(TOLD) == 1


def test_it_comes_where_nothing_rests_for_long(interrupt, monkeypatch):
    monkeypatch.setattr(signals, "_PATIENCE", 0.5)
    interrupt_now()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)
    assert 0.4 < time.monotonic() - began < 5


def test_one_that_waits_comes_no_more_when_the_run_is_over(interrupt, monkeypatch):
    monkeypatch.setattr(signals, "_PATIENCE", 0.5)
    interrupt_now()
    interrupt.end()
    time.sleep(1)


def test_jobs_that_begin_before_it_is_taken_are_told(interrupt, tmp_path):
    """The terminal tells the others; Snakemake waits for all of them, and may call programs to end those elsewhere."""
    script = tmp_path / "balrog"
    script.write_text("import time\ntime.sleep(30)\n")
    job = [sys.executable, script, "coadd"]
    before = subprocess.Popen(job)
    time.sleep(0.1)
    interrupt_now()
    since, another = subprocess.Popen(["sh", "-c", '"$@"; true', "sh", *job]), subprocess.Popen(["sleep", "30"])
    try:
        assert since.wait(10) == 0
        time.sleep(2 * signals._AGAIN)
        assert before.poll() is None
        assert another.poll() is None
    finally:
        for process in (before, since, another):
            process.kill()
            process.wait()


def test_a_program_that_takes_it_otherwise_keeps_its_handler():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Interrupt().delay()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
