"""A private directory per job, so that jobs side by side never share an intermediate file."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

__all__ = ["link_into", "scratch"]


@contextmanager
def scratch(parent: str | PathLike[str], label: str) -> Iterator[Path]:
    """Make a fresh directory under `parent` and remove it, with all it holds, when the block ends, well or not.

    Parameters
    ----------
    parent : path-like
        The installation's directory for temporary files; made if it is missing.
    label : str
        Begins the name of the directory, so that a leftover of a killed job can be told.
    """
    Path(parent).mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=re.sub(r"[^\w.+-]", "_", label) + "-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


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
    plain = re.sub(r"[^\w.+-]", "_", name if name is not None else Path(target).name)
    (directory / plain).symlink_to(Path(target).absolute())
    return plain
