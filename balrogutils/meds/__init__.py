"""The MEDS format: boxes, cut-outs, writer, reader, derived weights."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from balrogutils.meds.reader import MEDS

__all__ = ["MEDS"]


def __getattr__(name: str) -> Any:
    # The reader brings numba along, which the writer's jobs need not wait for.
    if name == "MEDS":
        from balrogutils.meds.reader import MEDS

        return MEDS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
