"""One run of a tile at a time: locks that die with their holder, and fences against the jobs of a killed run.

A run (Snakemake, or a command that repairs) holds the tile's run lock exclusively; a job holds the tile's job lock
shared. Both are `flock` locks, so the kernel lets them go when their process ends, however it ends. A job also waits
in a thread for the run lock: it gets it the moment its run is gone, and then ends itself. A new run takes the run
lock, writes a token of its own, and starts nothing before it has had the job lock for itself: by then no job of an
earlier run is alive, and one that was only about to start finds another token and refuses.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from balrogutils.errors import BalrogError, ConfigError, InputError, ProductError

__all__ = ["TOKEN", "RunLock", "can_lock", "die_with_parent", "join_run"]

TOKEN = "BALROG_RUN"
"""Environment variable by which a run's jobs know which run they belong to."""

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# The watchers of a killed run's jobs have its lock for an instant, until their processes are gone.
_PATIENCE = 5.0
_JOBS_PATIENCE = 60.0


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel end this process with its parent: a killed job leaves no process behind.

    Parameters
    ----------
    parent : int, optional
        Process id of the parent, where it is known: the kernel says nothing of a parent that was gone before it was
        asked, and this process ends at once then.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ConfigError(
            f"a lock of the tile cannot be opened: {error.strerror}",
            file=path,
            key="MEDS_DATA",
            remedy="it must be in a directory that you may write to",
        ) from error


def _try(descriptor: int, kind: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise ConfigError(
            f"files cannot be locked here: {error.strerror}",
            file=path,
            key="MEDS_DATA",
            remedy="put MEDS_DATA on a file system with flock (Lustre: mount with -o flock)",
        ) from error
    return True


def can_lock(path: Path) -> None:
    """Lock a file for a moment.

    Raises
    ------
    ConfigError
        When its file system has no locks.
    """
    descriptor = _open(path)
    try:
        _try(descriptor, fcntl.LOCK_EX, path)
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _holders(path: Path) -> list[str]:
    """Return the processes of this machine that hold a lock on a file, as /proc/locks tells."""
    try:
        status, lines = path.stat(), Path("/proc/locks").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    # "12: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF"; a waiting process has an arrow after the number.
    words = [line.split() for line in lines if "->" not in line]
    return sorted({word[4] for word in words if len(word) > 5 and word[1] == "FLOCK" and word[5] == inode})


def _called(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ").strip()
    except OSError:
        return "?"


def _command() -> str:
    program = Path(sys.argv[0])
    # "python -m snakemake" is a file of that name in a directory that says which program it is.
    return " ".join([program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]])


@dataclass
class RunLock:
    """The locks of one tile.

    Parameters
    ----------
    run, jobs : Path
        The lock files; they stay where they are.
    tile : str
        Named in errors.
    """

    run: Path
    jobs: Path
    tile: str
    _descriptor: int = field(default=-1, init=False)

    def hold(self, token: str | None = None) -> str:
        """Take the tile for a run, and wait until no job of an earlier run is alive.

        Parameters
        ----------
        token : str, optional
            Of the run, when it holds more tiles than this one.

        Returns
        -------
        str
            The token.

        Raises
        ------
        InputError
            When another run holds the tile, or a job of an earlier one does not end; says which.
        ConfigError
            When the lock cannot be made where it belongs.
        """
        token = token or secrets.token_hex(8)
        about = {
            "token": token,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": _command(),
        }
        self._descriptor = _open(self.run)
        try:
            self._take(fcntl.LOCK_EX, _PATIENCE)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(about).encode(), 0)
            self._fence(fcntl.LOCK_EX)
        except (BalrogError, OSError):
            self.release()
            raise
        return token

    def holder(self) -> dict[str, Any] | None:
        """Return who has the tile, and do nothing to it: a run here or elsewhere, or commands by themselves here.

        Returns
        -------
        dict or None
            ``pid``, ``host``, ``started``, ``command`` as the run wrote them, or of commands by themselves ``pid`` and
            ``command``; None when nobody has it.
        """
        about, holders = _read(self.run), _holders(self.run)
        if holders:
            if str(about.get("pid")) in holders:
                return about
            return {"pid": int(holders[0]), "host": socket.gethostname(), "command": _called(holders[0])}
        try:
            descriptor = os.open(self.run, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # A run of another machine: a lock that cannot be shared is held.
            return None if _try(descriptor, fcntl.LOCK_SH, self.run) else about
        finally:
            os.close(descriptor)

    def _fence(self, kind: int) -> None:
        """Wait until no job of an earlier run is alive; the tile is held before and after by a lock of this kind."""
        descriptor = _open(self.jobs)
        try:
            if not _patiently(descriptor, fcntl.LOCK_EX, self.jobs, 0.2):
                _log.warning("%s: waiting for jobs of an earlier run to end: process %s", self.tile, self._who_works())
                # A job that was too slow to see its run's end waits for the lock that this run has by now: shared with
                # it, it ends.
                self._take(fcntl.LOCK_SH, _PATIENCE)
                if not _patiently(descriptor, fcntl.LOCK_EX, self.jobs, _JOBS_PATIENCE):
                    raise InputError(
                        f"jobs of an earlier run are still alive: process {self._who_works()}",
                        tile=self.tile,
                        remedy="end them, or wait for them",
                    )
                self._take(kind, _PATIENCE)
        finally:
            os.close(descriptor)

    def _take(self, kind: int, patience: float) -> None:
        # The kernel lets the old lock go before it gives one of another kind: this can fail every time.
        if not _patiently(self._descriptor, kind, self.run, patience):
            raise InputError(
                f"another run has this tile: {self._who()}", tile=self.tile, remedy="wait for it, or end it"
            )

    def _who_works(self) -> str:
        return ", ".join(_holders(self.jobs)) or "on another machine"

    def release(self) -> None:
        """Give the tile back; the end of the process does the same."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> RunLock:
        self.hold()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _who(self) -> str:
        about, holders = _read(self.run), _holders(self.run)
        if holders and str(about.get("pid")) not in holders:
            # Commands by themselves leave no note.
            return "; ".join(f"process {pid} of this machine: {_called(pid)}" for pid in holders)
        return "process {pid} on {host} since {started}: {command}".format_map(_Told(about))

    def _join(self, token: str | None) -> None:
        if token is None:
            # A command by itself: side by side with others of its kind, never with a run.
            self._descriptor = _open(self.run)
            try:
                self._take(fcntl.LOCK_SH, 0.5)
                self._fence(fcntl.LOCK_SH)
            except BalrogError:
                self.release()
                raise
            return
        die_with_parent()
        self._descriptor = _open(self.jobs)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        about, watched = _read(self.run), _open(self.run)
        problem = remedy = None
        if about.get("token") != token:
            problem = "the run that started this job is gone; another has the tile"
        elif _try(watched, fcntl.LOCK_SH, self.run):
            problem, remedy = "the run that started this job does not hold the tile", _seen(about)
        if problem:
            os.close(watched)
            self.release()
            raise ProductError(problem, tile=self.tile, file=self.run, remedy=remedy)
        threading.Thread(target=_end_with_run, args=(watched,), name="run lock", daemon=True).start()


def _end_with_run(watched: int) -> None:
    fcntl.flock(watched, fcntl.LOCK_SH)
    os.kill(os.getpid(), signal.SIGKILL)


def _seen(about: dict[str, Any]) -> str | None:
    """Return what to do when a lock is not seen where a job is; None on the machine of its run, which is just gone."""
    if about.get("host") in (None, socket.gethostname()):
        return None
    return f"locks of {about['host']} must be seen on this machine (Lustre: mount with -o flock, not localflock)"


class _Told(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def _patiently(descriptor: int, kind: int, path: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not _try(descriptor, kind, path):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


_joined: list[RunLock] = []


def join_run(lock: RunLock) -> None:
    """Make this process a job of the run that started it, or a command by itself; either until it ends.

    Raises
    ------
    InputError
        For a command by itself, when a run has the tile.
    ProductError
        For a job, when another run has the tile by now.
    """
    lock._join(os.environ.get(TOKEN))
    _joined.append(lock)
