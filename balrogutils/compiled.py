"""The compiler of kernels, with a store of what it compiled that knows the sources of all of them.

numba keeps compiled code by the file a kernel is in. What the kernel calls in other files is compiled into it, and may
have changed since: after an update the old code would go on. So the store has the sources of all kernels in its name.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
from numba import njit
from numba.core import event

__all__ = ["Compiling", "compiling", "fits_are_compiled", "njit", "store_of"]


def store_of(root: Path) -> Path:
    """Return the directory for compiled kernels: beside the package, or in the user's cache where that is not writable.

    Parameters
    ----------
    root : pathlib.Path
        The package.
    """
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        source = path.read_bytes()
        if b"njit" in source or b"intrinsic" in source:
            digest.update(source)
    cache = root / "__pycache__"
    if not os.access(cache if cache.is_dir() else root, os.W_OK):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "balrogutils"
    return cache / f"kernels-{digest.hexdigest()[:16]}"


if not os.environ.get("NUMBA_CACHE_DIR"):
    # Before the first kernel is declared: numba asks for it then.
    numba.config.CACHE_DIR = str(store_of(Path(__file__).parent))  # type: ignore[attr-defined]


def fits_are_compiled() -> bool:
    """Return whether the kernels of fits have been compiled here; else the next fits do that first."""
    # The directories are there as soon as a kernel is declared.
    return any(Path(numba.config.CACHE_DIR).glob("fitting_*/*.nbi"))  # type: ignore[attr-defined]


class Compiling(event.Listener):
    """What this process spends on compiling kernels.

    Attributes
    ----------
    seconds : float
        CPU.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._began = 0.0

    def on_start(self, event: Any) -> None:
        """Begin with a kernel; one that it calls is compiled within."""
        if self._depth == 0:
            self._began = time.process_time()
        self._depth += 1

    def on_end(self, event: Any) -> None:
        """Be done with a kernel."""
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.process_time() - self._began


@contextmanager
def compiling() -> Iterator[Compiling]:
    """Watch what is spent on compiling kernels."""
    watch = Compiling()
    with event.install_listener("numba:compile", watch):
        yield watch
