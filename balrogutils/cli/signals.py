"""Signals that end a run of Snakemake, taken where it can end well."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import FrameType

import psutil

__all__ = ["Interrupt", "relay_sigterm"]

# Jobs that go on where they were.
_CHUNKED = frozenset(("sof", "mof", "mcal", "bfd"))
# Seconds after which an interrupt comes again that came when it could not be taken, and for which it waits at most.
_AGAIN, _PATIENCE = 0.1, 10
# The kernel tells when a process began in hundredths of a second.
_TICK = 0.02
_TOLD = b"\nbalrogutils: interrupted; the same command makes what is left\n"


def _jobs() -> Iterator[tuple[psutil.Process, str]]:
    """Yield the jobs of this process, and which step each is; other programs, of a cluster, are left alone."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            words = process.cmdline()
            if len(words) > 2 and Path(words[1]).name == "balrog":
                yield process, words[2]


def _end_fits() -> None:
    """Tell the jobs of this process that go on where they were to end."""
    for job, step in _jobs():
        if step in _CHUNKED:
            with suppress(psutil.NoSuchProcess):
                job.terminate()


def relay_sigterm() -> None:
    """Have the handler of SIGTERM run in a thread of its own, and end fits that are under way.

    Snakemake's takes the scheduler's lock, which the code it interrupts may hold: the run would hang for ever. It lets
    running jobs finish; fits can take an hour, and what they have done stays as whole chunks.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler):
        return
    arrived: SimpleQueue[tuple[int, FrameType | None]] = SimpleQueue()

    def relay() -> None:
        while True:
            handler(*arrived.get())
            _end_fits()

    threading.Thread(target=relay, name="SIGTERM", daemon=True).start()
    # A queue of this kind may be put to in the middle of anything.
    signal.signal(signal.SIGTERM, lambda number, frame: arrived.put((number, frame)))


def _rests(frame: FrameType | None) -> bool:
    """Tell whether Snakemake's scheduler waits for a job to end, given what the main thread is at."""
    waits = False
    while frame is not None and frame.f_code.co_filename == threading.__file__:
        frame, waits = frame.f_back, True
    return waits and frame is not None and frame.f_code.co_name == "schedule"


def _loops() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _now() -> float:
    """Return the time on the clock that tells when processes began."""
    return psutil.boot_time() + time.clock_gettime(time.CLOCK_BOOTTIME)


class Interrupt:
    """Ctrl-C, which waits until Snakemake's scheduler rests.

    Amid its event loop, or while it starts a job, Snakemake cannot end well. The jobs of a terminal hear it by
    themselves; those that Snakemake begins until it rests are told, since it waits for their end. All of them may have
    ended by then: Snakemake ends for their failures, and would not say why.
    """

    def __init__(self) -> None:
        self._came = 0.0
        self._raised = False
        self._over = threading.Event()
        # May be put to in the middle of anything; a thread must not be started there.
        self._arrived: SimpleQueue[None] = SimpleQueue()
        self._following = threading.Thread(target=self._follow, name="SIGINT", daemon=True)

    def delay(self) -> None:
        """Take the signal over, where it has its handler of the beginning."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._following.start()
            signal.signal(signal.SIGINT, self._take)

    def end(self) -> None:
        """Let no signal come any more that waits: the run is over."""
        self._over.set()
        if self._came:
            self._following.join()

    def _take(self, number: int, frame: FrameType | None) -> None:
        if not self._came:
            self._came = _now()
            # Python's own stream may be amid a line.
            os.write(2, _TOLD)
            self._arrived.put(None)
        late = _now() > self._came + _PATIENCE and not _loops()
        # Once only, however often it comes: Snakemake ends as soon as its jobs have.
        if not self._raised and not self._over.is_set() and (_rests(frame) or late):
            self._raised = True
            raise KeyboardInterrupt

    def _follow(self) -> None:
        """Let it come again until it is taken, and have it reach the jobs that were begun since."""
        told: set[int] = set()
        self._arrived.get()
        while not self._over.wait(_AGAIN):
            for job, _ in _jobs():
                with suppress(psutil.NoSuchProcess):
                    if job.pid not in told and job.create_time() > self._came - _TICK:
                        told.add(job.pid)
                        # Of an interrupt an interpreter that has just started makes a page of errors.
                        job.terminate()
            if not self._raised:
                os.kill(os.getpid(), signal.SIGINT)
