"""What every ``balrog`` command does alike: read ``--set``, and report messages and errors."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from balrogutils.errors import BalrogError, InputError
from balrogutils.runlock import TOKEN

if TYPE_CHECKING:
    from balrogutils.context import Context

__all__ = ["chosen_bands", "parse_overrides", "refused", "reporting", "telling"]


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
    from balrogutils.settings.yamlfile import read_value

    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes key=value, not {pair!r}", remedy="for example --set seed=3")
        try:
            overrides[key] = read_value(value) if value else None
        except ValueError as error:
            text = f"--set {pair!r} has a value that cannot be read"
            raise InputError(text, key=key, remedy="give it as in a YAML file") from error
    return overrides


def refused(error: OSError | MemoryError | ImportError) -> BalrogError:
    """Return what the machine refuses as an error with its file and a remedy: a full disk, a directory that is none."""
    file = getattr(error, "filename", None)
    reason = getattr(error, "strerror", None) or str(error)
    remedy = "make it readable and writable for you" if isinstance(error, PermissionError) else "mend that"
    if not isinstance(error, OSError) or error.errno == errno.ENOMEM:
        reason = f"not enough memory ({reason})" if reason else "not enough memory"
        remedy = "free some, or give the job more"
    return BalrogError(f"the machine refuses: {reason}", file=file, remedy=f"{remedy}, then run the same command again")


def _lacks_memory(error: ImportError) -> bool:
    """Return whether a library was not loaded for want of memory."""
    return "failed to map segment" in str(error) or os.strerror(errno.ENOMEM) in str(error)


def _end(number: int, frame: Any) -> None:
    sys.exit(128 + number)


def _tidy_when_ended() -> None:
    """Let a job that is told to end remove its scratch and its unfinished files first."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is signal.SIG_DFL:
            signal.signal(name, _end)


def _warnings() -> logging.Handler:
    """Return a handler that shows warnings, and no more, beside a log; an error is shown with the name of the log."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("balrog: %(message)s"))
    handler.addFilter(lambda record: record.levelno == logging.WARNING)
    return handler


class _Refusal:
    """What a job of a run was refused for, beside its log: the same run, trying again, need not work to hear it again.

    Only what lies in input and configuration, exit status 2, is kept. Everything else can change by itself.
    """

    def __init__(self, log: Path | None) -> None:
        self._token = os.environ.get(TOKEN)
        self._file = None if log is None or self._token is None else log.with_suffix(".refused")

    def check(self) -> None:
        """Raise what was told to an earlier attempt of this run; forget what another run was told."""
        if self._file is None:
            return
        try:
            told = json.loads(self._file.read_text(encoding="utf-8"))
            run, error = str(told["run"]), str(told["error"])
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            # None, or half of one.
            return
        if run == self._token:
            raise InputError(error)
        with suppress(OSError):
            self._file.unlink()

    def keep(self, error: BalrogError) -> None:
        """Write down what is told, where the disk has room for it."""
        if self._file is not None and error.exit_status == InputError.exit_status:
            with suppress(OSError):
                self._file.write_text(json.dumps({"run": self._token, "error": str(error)}), encoding="utf-8")


@contextmanager
def telling(handlers: Sequence[logging.Handler], log: Path | None = None, level: int = logging.DEBUG) -> Iterator[None]:
    """Send messages to handlers; an error is told and ends the program with its status.

    Parameters
    ----------
    handlers : sequence of logging.Handler
        Closed in the end.
    log : Path, optional
        A log whose name is shown on the terminal with an error, as the handlers there do not show one.
    level : int
        Messages below it go nowhere.
    """
    _tidy_when_ended()
    # Where a disk has no room for the log either, what is wrong is told on the terminal, and not that the log is short.
    logging.raiseExceptions = False
    root = logging.getLogger("balrogutils")
    root.setLevel(level)
    for one in handlers:
        root.addHandler(one)
    refusal = _Refusal(log)
    try:
        refusal.check()
        yield
    except BalrogError as error:
        refusal.keep(error)
        root.error("%s", error)
        if log is not None:
            click.echo(f"balrog: {error}\n  log: {log}", err=True)
        sys.exit(error.exit_status)
    except (OSError, MemoryError, ImportError) as error:
        if isinstance(error, BrokenPipeError) and log is None:
            # Who reads what is printed has enough of it (head, less): click ends the program without a word.
            raise
        if isinstance(error, ImportError) and not _lacks_memory(error):
            root.exception("unexpected error")
            raise
        # A full disk, a directory that is none, too little memory: the machine's affair. What led to it is in the log,
        # but for permissions, whose message says all there is.
        told = refused(error)
        if log is None or isinstance(error, PermissionError):
            root.error("%s", told)
        else:
            root.exception("%s", told)
        if log is not None:
            click.echo(f"balrog: {told}\n  log: {log}", err=True)
        sys.exit(told.exit_status)
    except Exception:
        # A bug of ours: the traceback belongs in the log and on the terminal.
        root.exception("unexpected error")
        raise
    finally:
        for one in handlers:
            root.removeHandler(one)
            one.close()


@contextmanager
def reporting(log: Path | None) -> Iterator[None]:
    """Send messages to the log (everything) and the terminal (warnings and errors, or everything without a log)."""
    handlers: list[logging.Handler] = []
    handler: logging.Handler
    if log is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(log, encoding="utf-8")
        except OSError as error:
            text = f"the log cannot be written: {error.strerror}"
            refusal = InputError(text, file=log, remedy="give --log a name in a directory of yours")
            click.echo(f"balrog: {refusal}", err=True)
            sys.exit(refusal.exit_status)
        handlers.append(_warnings())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    handlers.append(handler)
    with telling(handlers, log, logging.INFO):
        yield
