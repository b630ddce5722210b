"""Mask bits of single-epoch images and MEDS stamps, named once."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from balrogutils.errors import ConfigError, did_you_mean

__all__ = ["MaskBit", "mask_of"]


class MaskBit(enum.IntFlag):
    """Bits of the DES single-epoch mask plane, and the two that MEDS stamps add."""

    BPM = 1
    SATURATE = 2
    INTERP = 4
    BADAMP = 8
    CRAY = 16
    STAR = 32
    TRAIL = 64
    EDGEBLEED = 128
    SSXTALK = 256
    EDGE = 512
    STREAK = 1024
    SUSPECT = 2048
    FIXED = 4096
    NEAREDGE = 8192
    TAPEBUMP = 16384
    OFF_IMAGE = 2**30
    """Stamp pixel that lies outside its source image (MEDS BMASK_EDGE)."""


def mask_of(names: Iterable[str]) -> int:
    """Return the union of named bits.

    Parameters
    ----------
    names : iterable of str
        Bit names, for example ``["BPM", "EDGE"]``.

    Returns
    -------
    int
        The bits together; 0 for no names.

    Raises
    ------
    ConfigError
        For a name that is not a mask bit.
    """
    bits = 0
    for name in names:
        if name not in MaskBit.__members__:
            raise ConfigError(f"unknown mask bit {name!r}: {did_you_mean(name, MaskBit.__members__)}")
        bits |= MaskBit[name].value
    return bits
