"""Python reads this when it starts with this directory in PYTHONPATH: makes a fault happen within a ``balrog`` job.

``CHAOS`` says which: ``before:NAME``, ``during:NAME`` or ``after:NAME`` kill the process around the writing of the file
of this name; ``memory:BYTES`` lets it have so much more memory than it has when its step begins; ``clock:SECONDS`` sets
its clock, and the times of the files it writes, off.
"""

import os
import resource
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _killed(products, point, name):
    honest = products.writing

    @contextmanager
    def writing(path):
        mine = Path(path).name == name
        if mine and point == "before":
            _die()
        with honest(path) as part:
            yield part
            if mine and point == "during":
                os.truncate(part, part.stat().st_size // 2)
                _die()
        if mine and point == "after":
            _die()

    products.writing = writing


def _starved(products, room):
    honest = products.Step.__enter__

    def enter(step):
        found = honest(step)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, hard))
        return found

    products.Step.__enter__ = enter


def _mistimed(products, seconds):
    now, honest = time.time, products.writing
    time.time = lambda: now() + seconds

    @contextmanager
    def writing(path):
        with honest(path) as part:
            yield part
        os.utime(path, (time.time(), time.time()))

    products.writing = writing


def _arm(fault):
    from balrogutils import products

    kind, _, value = fault.partition(":")
    if kind == "memory":
        _starved(products, int(value))
    elif kind == "clock":
        _mistimed(products, float(value))
    else:
        _killed(products, kind, value)


if os.environ.get("CHAOS") and len(sys.orig_argv) > 1 and Path(sys.orig_argv[1]).name == "balrog":
    _arm(os.environ["CHAOS"])
