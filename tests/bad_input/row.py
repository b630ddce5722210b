"""One row of the table of bad input: what is wrong, what the user types, what is seen, what may change on disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from world import Seen, World

__all__ = ["Break", "Row", "all_of"]

Break = Callable[[World], object]


def nothing(world: World) -> None:
    """Leave the world as it is: the words themselves are wrong."""


def all_of(*breaks: Break) -> Break:
    """Return a function that breaks a world in several ways."""

    def broken(world: World) -> None:
        for one in breaks:
            one(world)

    return broken


@dataclass(frozen=True)
class Row:
    """Bad input and what comes of it.

    Attributes
    ----------
    section : str
        Part of the table.
    wrong : str
        What is wrong; names the row.
    words : str
        What the user types.
    says : str
        Regular expression of what stands in the message; names of tiles in it stand for themselves.
    status : int
        Exit status.
    stage : {"bare", "small", "decam", "tile", "matched"}
        The world it happens in; see `world.Worlds`.
    breaks : callable
        Breaks the world.
    redone : tuple of str
        Patterns of files that may be replaced or removed: the manifest of the step that fails, products of its own.
    leaves : tuple of str
        Patterns of files that may come besides logs; every one must be whole.
    remedy : bool
        Whether the message says what to do; usage errors say how the command is called instead.
    again : bool
        Whether the same words succeed once the world is as it was.
    check : callable, optional
        Further checks; returns what the table is to say of the disk.
    long : bool
        Whether it takes long; rows of a made tile always do.
    lacking : str
        A package that it is about not having; the row is skipped where it is installed.
    """

    section: str
    wrong: str
    words: str
    says: str
    status: int = 2
    stage: str = "bare"
    breaks: Break = nothing
    redone: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    remedy: bool = True
    again: bool = False
    check: Callable[[World, Seen], str] | None = None
    long: bool = False
    lacking: str = ""

    @property
    def pattern(self) -> str:
        """What stands in the message, with the plus signs of tiles taken as they are."""
        return re.sub(r"(des\d{4})\+(\d{4})", r"\1[+]\2", self.says, flags=re.IGNORECASE)

    @property
    def is_long(self) -> bool:
        """Whether it belongs to the long tests."""
        return self.long or self.stage in ("tile", "matched")
