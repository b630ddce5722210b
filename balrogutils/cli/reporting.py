"""What every ``balrog`` command does alike: read ``--set``, and report messages and errors."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from balrogutils.errors import BalrogError, InputError

if TYPE_CHECKING:
    from balrogutils.context import Context

__all__ = ["chosen_bands", "parse_overrides", "reporting"]


def chosen_bands(context: Context, bands: tuple[str, ...]) -> tuple[str, ...]:
    """Return the bands named on the command line, or all of the tile's.

    Raises
    ------
    InputError
        For a band that the tile does not have.
    """
    for band in bands:
        if band not in context.bands:
            raise InputError(
                f"the tile has no band {band}",
                tile=context.tile,
                band=band,
                remedy="choose from " + " ".join(context.bands),
            )
    return bands or context.bands


def parse_overrides(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return the keys and values of ``--set KEY=VALUE`` options.

    Raises
    ------
    InputError
        For an option without a key, or a value that is not YAML.
    """
    import yaml

    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes key=value, not {pair!r}")
        try:
            overrides[key.strip()] = yaml.safe_load(value) if value else None
        except yaml.YAMLError as error:
            raise InputError(f"--set {pair!r} has a value that cannot be read", key=key) from error
    return overrides


def _end(number: int, frame: Any) -> None:
    sys.exit(128 + number)


def _tidy_when_ended() -> None:
    """Let a job that is told to end remove its scratch and its unfinished files first."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is signal.SIG_DFL:
            signal.signal(name, _end)


@contextmanager
def reporting(log: Path | None) -> Iterator[None]:
    """Send messages to the log (everything) and the terminal (errors, or everything without a log)."""
    _tidy_when_ended()
    root = logging.getLogger("balrogutils")
    root.setLevel(logging.INFO)
    handler: logging.Handler
    if log is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(log, encoding="utf-8")
        except OSError as error:
            click.echo(f"balrog: the log cannot be written: {error}", err=True)
            sys.exit(InputError.exit_status)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    root.addHandler(handler)
    try:
        yield
    except BalrogError as error:
        root.error("%s", error)
        if log is not None:
            click.echo(f"balrog: {error}\n  log: {log}", err=True)
        sys.exit(error.exit_status)
    except (OSError, MemoryError) as error:
        # A full disk, a directory that is none, too little memory: the machine's affair. What led to it is in the log.
        told = str(error) or "not enough memory"
        if log is not None:
            root.exception("the machine refuses: %s", told)
            click.echo(f"balrog: the machine refuses: {told}\n  log: {log}", err=True)
        else:
            root.error("the machine refuses: %s", told)
        sys.exit(BalrogError.exit_status)
    except Exception:
        # A bug of ours: the traceback belongs in the log and on the terminal.
        root.exception("unexpected error")
        raise
    finally:
        root.removeHandler(handler)
        handler.close()
