"""Paths in the lists of a tile that was moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from balrogutils.errors import InputError

__all__ = ["Moved"]


@dataclass(frozen=True)
class Moved:
    """Directories that are called otherwise now.

    Attributes
    ----------
    pairs : tuple of (str, str)
        Old and new name of each, without a slash at the end.
    """

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, words: Sequence[str]) -> Moved:
        """Read ``OLD=NEW`` words.

        Raises
        ------
        InputError
            For a word without a name on both sides, or whose new name is not an absolute path.
        """
        pairs = []
        for word in words:
            old, _, new = (part.strip() for part in word.partition("="))
            old, new = old.rstrip("/"), new.rstrip("/")
            if not old or not Path(new).is_absolute():
                raise InputError(
                    f"--moved takes OLD=NEW, not {word!r}",
                    remedy="write the old name as the lists have it, and the whole new path: --moved /old=/new",
                )
            pairs.append((old, new))
        return cls(tuple(pairs))

    def check(self) -> None:
        """Refuse new names that are not there.

        Raises
        ------
        InputError
            For a new name that is not a directory.
        """
        for old, new in self.pairs:
            if not Path(new).is_dir():
                text = f"--moved {old}={new}: {new} is not a directory"
                raise InputError(text, remedy="write where that directory is now: --moved /old=/new")

    def __call__(self, text: str) -> str:
        """Return the path as it is called now; the first directory that holds it counts."""
        for old, new in self.pairs:
            if _holds(old, text):
                # An earlier call, or one that was killed, may have been here already.
                return text if _holds(old, new) and _holds(new, text) else new + text[len(old) :]
        return text

    def lines(self, text: str, place: Callable[[str], str]) -> str:
        """Return a list with its paths renamed.

        Parameters
        ----------
        text : str
            The whole list.
        place : callable
            Finds the path in a line.
        """
        out = []
        for line in text.splitlines(keepends=True):
            old = place(line)
            out.append(line.replace(old, self(old), 1) if old else line)
        return "".join(out)


def _holds(directory: str, path: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")
