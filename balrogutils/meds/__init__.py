"""The MEDS format: boxes, cut-outs, writer, reader, derived weights."""

from balrogutils.meds.reader import MEDS

__all__ = ["MEDS"]
