"""Transfers that have begun: a file beside the final name, that one process at a time goes on with."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from balrogutils.products import no_room

__all__ = ["BEGUN_PREFIX", "begun", "begun_name", "remove_begun", "settle"]

BEGUN_PREFIX = ".fetch-"
"""Begins the name of a file whose transfer has begun; it outlives a run that was killed."""


def begun_name(path: Path, checksum: str) -> Path:
    """Return where the transfer of a file begins; its MD5 in the name: never to go on with another version of it."""
    return path.with_name(f"{BEGUN_PREFIX}{checksum.lower()}-{path.name}")


@contextmanager
def begun(path: Path, checksum: str) -> Iterator[Path]:
    """Hand out the file in which a transfer is begun and taken up again, to one process at a time.

    Parameters
    ----------
    path : pathlib.Path
        Final name. Its directory is made if it is missing.
    checksum : str
        MD5 of the whole file.

    Yields
    ------
    pathlib.Path
        The file, perhaps with what an earlier process had; whoever has the whole of it renames it. Empty it goes, and
        also when the disk has no room.
    """
    name = begun_name(path, checksum)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(name) as held:
        try:
            yield name
        except OSError as error:
            if no_room(error) and _is_still(name, held):
                os.truncate(name, 0)
            raise
        finally:
            # Renamed, it may have a successor by now that another process has begun.
            if _is_still(name, held) and not os.fstat(held).st_size:
                name.unlink()


def settle(unfinished: Path, path: Path) -> None:
    """Give a file that is whole its final name, which others may see, when it is on the disk."""
    with unfinished.open("rb") as stream:
        os.fsync(stream.fileno())
    unfinished.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    while True:
        with path.open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            # Who had it before may have finished and renamed it.
            if _is_still(path, held.fileno()):
                yield held.fileno()
                return


def _is_still(path: Path, held: int) -> bool:
    try:
        return os.path.samestat(os.fstat(held), path.stat())
    except FileNotFoundError:
        return False


def remove_begun(directory: Path) -> None:
    """Remove what transfers of files that are not wanted any more have left, but none that goes on elsewhere."""
    for path in directory.rglob(f"{BEGUN_PREFIX}*"):
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
