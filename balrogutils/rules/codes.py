"""Errors that carry the codes the original Balrog documents (O 1.c)."""

from __future__ import annotations

from typing import Any

from balrogutils.errors import ConfigError, InputError

__all__ = ["bad_input", "bad_rule"]


def _coded(code: int, message: str) -> str:
    return f"ERROR code: {code}. {message}"


def bad_rule(code: int, message: str, remedy: str, **where: Any) -> ConfigError:
    """Return the error of a user's Python file.

    Parameters
    ----------
    code : int
        As the original numbers its messages.
    message, remedy : str
        What is wrong, and what to do.
    **where
        As `balrogutils.errors.BalrogError` takes it, or ``detail``.
    """
    return ConfigError(_coded(code, message), remedy=remedy, **where)


def bad_input(code: int, message: str, remedy: str, **where: Any) -> InputError:
    """Return the error of an argument or of the file it names; parameters as in `bad_rule`."""
    return InputError(_coded(code, message), remedy=remedy, **where)
