"""Servers that tests start for themselves: on loopback, in directories of their own, ended by their process number."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

__all__ = ["PASSWORD", "USER", "Daemon", "free_port"]

USER = "balrog"
PASSWORD = "a pässword%with:every@sign/+"
"""What the services file has for the database, and what the file archive takes too."""

_SECONDS = 60.0


def free_port():
    """Return a port of the loopback interface that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Daemon:
    """One server process and its directory; a context manager that ends the one and removes the other.

    Parameters
    ----------
    user : str, optional
        Whose process it is, when the tests run as root; theirs when not given.
    """

    def __init__(self, user=None):
        self.user = user if os.getuid() == 0 else None
        # Not below the tests' own directory, which is closed to other users.
        self.directory = Path(tempfile.mkdtemp(prefix="balrog-test-", dir="/tmp"))
        if self.user:
            shutil.chown(self.directory, self.user, self.user)
        self.port = free_port()
        self.process = None

    def as_user(self, *words):
        """Run a command to its end as the server's user."""
        done = subprocess.run(
            words,
            user=self.user,
            group=self.user,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def start(self, *words):
        """Start the server and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                words, user=self.user, group=self.user, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        limit = time.monotonic() + _SECONDS
        while not self.answers():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < limit, self.log
            time.sleep(0.05)
        return self

    def answers(self):
        """Return whether the server can be connected to."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    @property
    def log(self):
        """Everything the server has said."""
        return (self.directory / "log").read_text(errors="replace")

    def family(self):
        """Return the server's process and those it has started."""
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    @contextlib.contextmanager
    def frozen(self):
        """Stop all its processes where they are for the length of a block; connections stay open."""
        family = self.family()
        for one in family:
            one.suspend()
        try:
            yield
        finally:
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.resume()

    def stop(self, how=signal.SIGINT):
        """End the server."""
        if self.process is not None:
            self.process.send_signal(how)
            try:
                self.process.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(_SECONDS)
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
