"""A private directory per job, so that jobs side by side never share an intermediate file."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from balrogutils.errors import ProductError
from balrogutils.products import no_room

__all__ = ["link_into", "remove_abandoned", "scratch"]

_PREFIX = "balrog-"
# Locked by the job for as long as it lives; so a directory of a killed job can be told from one in use.
_OWNER = ".owner"


def _plain(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name)


def _owned(parent: Path, prefix: str) -> tuple[Path, int]:
    """Make a directory and lock it; before it is locked, a run of another tree may take it for abandoned."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            owner = os.open(directory / _OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(owner, fcntl.LOCK_EX)
        if (directory / _OWNER).exists():
            return directory, owner
        os.close(owner)


@contextmanager
def scratch(parent: str | PathLike[str], label: str) -> Iterator[Path]:
    """Make a fresh directory under `parent` and remove it, with all it holds, when the block ends, well or not.

    Parameters
    ----------
    parent : path-like
        The installation's directory for temporary files; made if it is missing.
    label : str
        The tile first; names the directory, so that `remove_abandoned` finds what a killed job left.

    Raises
    ------
    ProductError
        When the disk has no room for what the block writes there.
    """
    Path(parent).mkdir(parents=True, exist_ok=True)
    directory, owner = _owned(Path(parent), f"{_PREFIX}{_plain(label)}-")
    try:
        yield directory
    except (OSError, ProductError) as error:
        # What is written as products are has been told as a product that cannot be written.
        cause = error if isinstance(error, OSError) else error.__cause__
        inside = isinstance(error, OSError) or Path(error.where.get("file", directory)).is_relative_to(directory)
        problem = no_room(cause) if inside and isinstance(cause, OSError) else None
        if problem is None:
            raise
        raise ProductError(
            f"intermediate files cannot be written: {problem}",
            file=parent,
            key="TMPDIR",
            remedy="make room or set TMPDIR, then run the same command again",
        ) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(owner)


def remove_abandoned(parent: str | PathLike[str], tile: str) -> list[Path]:
    """Remove the scratch directories that killed jobs of a tile left.

    Parameters
    ----------
    parent : path-like
        As `scratch` takes it.
    tile : str
        Tile name; begins the labels of its jobs.

    Returns
    -------
    list of Path
        What was removed.
    """
    removed = []
    for directory in sorted(Path(parent).glob(f"{_PREFIX}{_plain(tile)}_*")):
        try:
            # Created for a job that was killed before it could.
            owner = os.open(directory / _OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            shutil.rmtree(directory, ignore_errors=True)
            removed.append(directory)
        finally:
            os.close(owner)
    return removed


def link_into(directory: Path, target: str | PathLike[str], name: str | None = None) -> str:
    """Link a file into a scratch directory under a name SWarp and SExtractor can parse.

    Parameters
    ----------
    directory : Path
        Scratch directory.
    target : path-like
        The file; its path may hold blanks, commas and brackets, which the programs' list syntax cannot.
    name : str, optional
        Name of the link; the file's own name, cleaned, when not given.

    Returns
    -------
    str
        The name, relative to the directory.
    """
    plain = _plain(name if name is not None else Path(target).name)
    (directory / plain).symlink_to(Path(target).absolute())
    return plain
