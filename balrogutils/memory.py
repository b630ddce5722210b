"""The memory of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["largest_process", "peak_memory", "take_workspace"]

_SIZE = 128


def peak_memory() -> int:
    """Return the largest resident size this process has had, in bytes.

    The kernel's high-water mark of this program (``VmHWM``): ``ru_maxrss`` is inherited over ``exec``, and would be
    that of the process that started this one, if that was larger. Where there is no ``/proc``, it has to do.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def largest_process() -> int:
    """Return the largest resident size that this process or one that it waited for has had, in bytes."""
    # A program started from here inherits at most our own size, so that the larger of both is true.
    return max(peak_memory(), 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def take_workspace() -> None:
    """Have NumPy's linear algebra take its working memory, if NumPy is there.

    OpenBLAS takes it at its first product of matrices. When there is none left by then, it ends the process, and nobody
    could say for what or what to do.
    """
    if "numpy" in sys.modules:
        import numpy as np

        # Small ones need none.
        np.matmul(*np.ones((2, _SIZE, _SIZE)))
