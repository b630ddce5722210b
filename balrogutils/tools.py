"""External programs, believed only after what they leave has been checked."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from balrogutils.errors import ToolError

__all__ = ["executable", "run_tool"]

# Debian's names first; the names other systems use after them.
_NAMES = {
    "sextractor": ("source-extractor", "sex", "sextractor"),
    "swarp": ("SWarp", "swarp"),
    "psfex": ("psfex",),
    "fpack": ("fpack",),
    "funpack": ("funpack",),
}
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
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


def _die_with_parent() -> None:
    """Have the kernel end this process with its parent: a killed job leaves no program behind."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _tail(log: Path, lines: int = 15) -> str:
    text = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join("    " + line for line in text[-lines:])


def run_tool(
    tool: str,
    arguments: Sequence[str | os.PathLike[str]],
    *,
    log: str | os.PathLike[str],
    outputs: Sequence[str | os.PathLike[str]] = (),
    check: Callable[[], None] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float = 3600.0,
    environment: Mapping[str, str] | None = None,
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

    Raises
    ------
    ToolError
        Missing program, non-zero status, time-out, or an output that is missing or empty. Quotes the end of the log.
    """
    command = [executable(tool), *(os.fspath(argument) for argument in arguments)]
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
            preexec_fn=_die_with_parent,
        )
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise ToolError(f"{tool} did not end within {timeout:.0f} s\n{_tail(log)}", file=log) from error
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if status != 0:
        raise ToolError(f"{tool} ended with status {status}; the end of its log:\n{_tail(log)}", file=log)
    for output in outputs:
        path = Path(output)
        if not path.is_file() or path.stat().st_size == 0:
            raise ToolError(
                f"{tool} ended with status 0 but did not write {path.name}; the end of its log:\n{_tail(log)}", file=log
            )
    if check is not None:
        check()
