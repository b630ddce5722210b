"""A parser whose errors can be logged before the program ends."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from balrogutils.errors import InputError

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """Of arguments, those of a rules file among them.

    Parameters
    ----------
    remedy : str, optional
        What to do about a wrong argument; by default to see the help.
    **keywords
        As of `argparse.ArgumentParser`.
    """

    def __init__(self, *, remedy: str | None = None, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._remedy = remedy or f"see {self.prog} --help"

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises
        ------
        InputError
            Always.
        """
        raise InputError(f"the arguments are wrong: {message}", remedy=self._remedy)
