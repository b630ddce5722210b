"""External programs, believed only after what they leave has been checked."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from balrogutils.errors import ToolError
from balrogutils.runlock import die_with_parent

__all__ = ["TIMEOUT", "executable", "run_tool", "version"]

TIMEOUT = 4 * 3600.0
"""Seconds after which a program counts as hanging, where nothing else is said."""

# Debian's names first; the names other systems use after them.
_NAMES = {
    "sextractor": ("source-extractor", "sex", "sextractor"),
    "swarp": ("SWarp", "swarp"),
    "psfex": ("psfex",),
    "fpack": ("fpack",),
    "funpack": ("funpack",),
}
# The oldest versions the products have been checked with.
_OLDEST = {"sextractor": (2, 25), "swarp": (2, 41), "psfex": (3, 21), "fpack": (1, 7), "funpack": (1, 7)}
_NO_ROOM = 1 << 20
_SEE_LOG = "mend what its log says, then run the same command again"
_AFTER: dict[int, str] = {
    signal.SIGXFSZ: "raise the limit on the size of files (ulimit -f), then run the same command again",
    signal.SIGKILL: "see that there is enough memory, then run the same command again",
}
_PACKAGES = {
    "sextractor": "source-extractor",
    "swarp": "swarp",
    "psfex": "psfex",
    "fpack": "libcfitsio-bin",
    "funpack": "libcfitsio-bin",
}


def executable(tool: str) -> str:
    """Return the path of an external program.

    Parameters
    ----------
    tool : {"sextractor", "swarp", "psfex", "fpack", "funpack"}
        Which one.

    Raises
    ------
    ToolError
        When none of its names is on PATH.
    """
    for name in _NAMES[tool]:
        found = shutil.which(name)
        if found:
            return found
    raise ToolError(f"{tool} is not installed", remedy=f"apt-get install {_PACKAGES[tool]}, or run make install")


@functools.cache
def version(tool: str) -> str:
    """Return the version of an external program, as it tells it.

    Parameters
    ----------
    tool : str
        Name as `executable` takes it.

    Raises
    ------
    ToolError
        When it is missing, does not tell its version, or is older than what the products have been checked with.
    """
    path = executable(tool)
    flag = "-V" if tool in ("fpack", "funpack") else "--version"
    oldest = ".".join(map(str, _OLDEST[tool]))
    remedy = f"put {tool} {oldest} or newer first on PATH: apt-get install {_PACKAGES[tool]}, or run make install"
    try:
        done = subprocess.run([path, flag], capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{tool} cannot be asked for its version: {error}", file=path, remedy=remedy) from error
    text = (done.stdout + done.stderr).decode(errors="replace")
    found = re.search(r"\d+(?:\.\d+)+", text)
    if found is None:
        raise ToolError(f"{tool} does not tell its version, but: {text.strip()[:200]!r}", file=path, remedy=remedy)
    if tuple(map(int, found[0].split(".")[:2])) < _OLDEST[tool]:
        raise ToolError(f"{tool} is version {found[0]}, older than {oldest}", file=path, remedy=remedy)
    return found[0]


def _tidy(log: Path) -> None:
    """Take out of a log what was meant for a terminal: lines that were written over, and colours."""
    text = re.sub(rb"\x1b\[1M>[^\n]*\n\x1b\[1A", b"", log.read_bytes())
    log.write_bytes(re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", text))


def _tail(log: Path, lines: int = 15) -> str:
    text = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(["  the end of its log:", *("    " + line for line in text[-lines:])])


def _full(*directories: str | os.PathLike[str] | None) -> str | None:
    """Return what to do when one of the directories has no room left: programs seldom say so."""
    for directory in directories:
        if directory is not None and shutil.disk_usage(directory).free < _NO_ROOM:
            # Not the scratch directory itself: it is gone by the time this is read.
            place = Path(directory).parent
            return f"the disk of {place} is full: make room or set TMPDIR, then run the same command again"
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and all that it started; while this was interrupted it may have ended by itself."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_tool(
    tool: str,
    arguments: Sequence[str | os.PathLike[str]],
    *,
    log: str | os.PathLike[str],
    outputs: Sequence[str | os.PathLike[str]] = (),
    check: Callable[[], None] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float = TIMEOUT,
    environment: Mapping[str, str] | None = None,
    program: str | os.PathLike[str] | None = None,
) -> None:
    """Run an external program, keep its full log, and check what it left.

    Parameters
    ----------
    tool : str
        Name as `executable` takes it.
    arguments : sequence of str or path-like
        Command line after the program.
    log : path-like
        Where standard output and error are kept, whether it succeeds or not.
    outputs : sequence of path-like
        Files that must be new and not empty afterwards; old ones are removed before.
    check : callable, optional
        Opens the outputs and raises a `BalrogError` if they are not what was asked for.
    cwd : path-like, optional
        Scratch directory to run in.
    timeout : float
        Seconds after which the program counts as hanging and is ended.
    environment : mapping, optional
        Extra environment variables.
    program : path-like, optional
        The program itself, instead of the one that `executable` finds.

    Raises
    ------
    ToolError
        Missing program, non-zero status, time-out, or an output that is missing or empty. Quotes the end of the log.
    """
    command = [
        os.fspath(program) if program is not None else executable(tool),
        *(os.fspath(argument) for argument in arguments),
    ]
    log = Path(log)
    log.parent.mkdir(parents=True, exist_ok=True)
    for output in outputs:
        Path(output).unlink(missing_ok=True)
    with log.open("wb") as stream:
        stream.write((" ".join(command) + "\n").encode())
        stream.flush()
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            preexec_fn=functools.partial(die_with_parent, os.getpid()),
        )
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            _end(process)
            _tidy(log)
            remedy = "if it only needs longer, raise tool_timeout in etc/pipeline.yaml"
            raise ToolError(
                f"{tool} did not end within {timeout:.0f} s", file=log, remedy=remedy, detail=_tail(log)
            ) from error
        except BaseException:
            _end(process)
            raise
    _tidy(log)
    if status != 0:
        full = _full(cwd, *(Path(output).parent for output in outputs))
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        remedy = full or _AFTER.get(-status, _SEE_LOG)
        raise ToolError(f"{tool} {how}", file=log, remedy=remedy, detail=_tail(log))
    for output in outputs:
        path = Path(output)
        if not path.is_file() or path.stat().st_size == 0:
            raise ToolError(
                f"{tool} ended with status 0 but did not write {path.name}",
                file=log,
                remedy=_SEE_LOG,
                detail=_tail(log),
            )
    if check is not None:
        check()
