"""Lists of tiles: text files with a name a line."""

from __future__ import annotations

from pathlib import Path

from balrogutils.errors import InputError

__all__ = ["tile_names"]


def tile_names(path: Path) -> dict[int, str]:
    """Return the names of a list by their lines, from 1; empty lines, and what follows a ``#``, do not count.

    Parameters
    ----------
    path : pathlib.Path
        The list. A mark of its encoding, as Windows writes it, does not count either.

    Raises
    ------
    InputError
        When the file is not there or no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        text = f"the list of tiles cannot be read: {reason}"
        raise InputError(text, file=path, remedy="give a text file with the name of a tile a line") from error
    names = {number: line.partition("#")[0].strip() for number, line in enumerate(lines, 1)}
    return {number: name for number, name in names.items() if name}
