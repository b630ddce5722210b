"""Images let go while a run goes on, as soon as every step that reads them is done."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from balrogutils.blocks.temporary import release
from balrogutils.context import Context
from balrogutils.errors import BalrogError

__all__ = ["Releasing"]

_PAUSE = 5.0  # s
_log = logging.getLogger(__name__)


class Releasing:
    """A thread of a run that looks again and again at what its tiles need no longer.

    Parameters
    ----------
    contexts : sequence of Context
        Tiles that the run has.
    """

    def __init__(self, contexts: Sequence[Context]) -> None:
        self._contexts = contexts
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="let go", daemon=True)
        self._thread.start()

    def _go_on(self) -> None:
        while not self._ended.wait(_PAUSE):
            self._look()

    def _look(self) -> None:
        for context in self._contexts:
            try:
                release(context)
            except (BalrogError, OSError) as error:
                # Room that is not made stops no run.
                _log.warning("%s: images cannot be let go: %s", context.tile, error)

    def end(self) -> None:
        """Look a last time."""
        self._ended.set()
        self._thread.join()
        self._look()
