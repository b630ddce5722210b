"""One tree of exceptions: what went wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from os import PathLike

__all__ = [
    "ArchiveError",
    "BalrogError",
    "ConfigError",
    "FitError",
    "InjectionError",
    "InputError",
    "ProductError",
    "ToolError",
    "did_you_mean",
]

_PLACES = ("tile", "realization", "band", "chip", "file", "key")


class BalrogError(Exception):
    """Anything the package refuses or fails to do.

    Parameters
    ----------
    message : str
        What went wrong, one plain sentence.
    tile, band, chip, key : str, optional
        Where it went wrong; `key` is a configuration or header key.
    file : path-like, optional
        The file at fault.
    remedy : str, optional
        What the user can do.
    detail : str, optional
        More lines, for example the end of a log.
    """

    exit_status = 1

    def __init__(
        self,
        message: str,
        *,
        tile: str | None = None,
        band: str | None = None,
        chip: str | None = None,
        file: str | PathLike[str] | None = None,
        key: str | None = None,
        remedy: str | None = None,
        detail: str | None = None,
    ) -> None:
        self.message = message
        self.remedy = remedy
        self.detail = detail
        self.where: dict[str, str] = {}
        self.locate(tile=tile, band=band, chip=chip, file=file, key=key)
        super().__init__(message)

    def locate(self, **where: str | PathLike[str] | None) -> None:
        """Say where it went wrong, as far as that has not been said; `where` as in the class, or ``realization``."""
        known = {name: str(value) for name, value in where.items() if value is not None} | self.where
        self.where = {name: known[name] for name in _PLACES if name in known}

    def __str__(self) -> str:
        place = ", ".join(f"{name} {value}" for name, value in self.where.items())
        lines = [f"{self.message} ({place})" if place else self.message]
        lines += [self.detail] if self.detail else []
        lines += [f"  remedy: {self.remedy}"] if self.remedy else []
        return "\n".join(lines)


class InputError(BalrogError):
    """The user asked for something that cannot be: exit status 2."""

    exit_status = 2


class ConfigError(InputError):
    """A configuration file or environment variable is wrong."""


class ArchiveError(BalrogError):
    """The archive lacks something, or what it gave is damaged."""


class ToolError(BalrogError):
    """An external program failed or did not leave what it was asked for."""


class ProductError(BalrogError):
    """A product of an earlier step is missing or damaged."""


class InjectionError(BalrogError):
    """Injection could not be done as asked, or truth and pixels disagree."""


class FitError(BalrogError):
    """A fit could not be set up."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a sentence that offers the nearest known words.

    Parameters
    ----------
    word : str
        What the user wrote.
    known : iterable of str
        What would have been accepted.

    Returns
    -------
    str
        For example ``"did you mean 'bands'?"``, or the list of what is known when nothing is near.
    """
    names = [str(name) for name in known]
    near = difflib.get_close_matches(str(word), names, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    return "known: " + (", ".join(names[:20]) or "none") + (" ..." if len(names) > 20 else "")
