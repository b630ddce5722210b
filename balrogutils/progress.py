"""Progress that a person can see: a bar in a terminal, heartbeat lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

__all__ = ["track"]

T = TypeVar("T")
_HEARTBEAT_SECONDS = 15.0
_log = logging.getLogger(__name__)


def track(items: Iterable[T], label: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield `items` while showing how far the work has come.

    Parameters
    ----------
    items : iterable
        The work.
    label : str
        What is being done, for example ``"g: injecting chips"``.
    total : int, optional
        Number of items, taken from ``len(items)`` when it has a length.
    unit : str
        What one item is.

    Yields
    ------
    object
        The items, unchanged and in order.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, total=total, unit=unit, leave=False)
        return
    started = last = time.monotonic()
    count = 0
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= _HEARTBEAT_SECONDS:
            last = now
            _log.info(
                "%s: %d of %s %s after %.0f s", label, count, "?" if total is None else total, unit, now - started
            )
    _log.info("%s: %d %s in %.1f s", label, count, unit, time.monotonic() - started)
