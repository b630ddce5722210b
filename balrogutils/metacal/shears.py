"""The types of metacal images and the shears that make them (M 6.1)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ConfigError, did_you_mean

__all__ = ["STEP", "TYPES", "Shear", "dilation", "shear_matrix", "shears_of", "suffix"]

F64 = NDArray[np.float64]

STEP = 0.01
TYPES = ("noshear", "1p", "1m", "2p", "2m")
_PSF_TYPES = tuple(f"{name}_psf" for name in TYPES[1:])


class Shear(NamedTuple):
    """What one type does: shear of the object, and of the target PSF."""

    name: str
    galaxy: tuple[float, float]
    psf: tuple[float, float]


def suffix(name: str) -> str:
    """Return the ending of the columns of a type: none for noshear."""
    return "" if name == "noshear" else f"_{name}"


def dilation(step: float) -> float:
    """Return how much larger the target PSF is made, so that it ends before modes that the shear amplifies."""
    return 1.0 + 2.0 * abs(step)


def shear_matrix(g1: float, g2: float) -> F64:
    """Return the matrix of a reduced shear on (v, u), of determinant 1."""
    return np.array([[1.0 - g1, g2], [g2, 1.0 + g1]]) / math.sqrt(1.0 - g1 * g1 - g2 * g2)


def shears_of(types: tuple[str, ...], step: float = STEP) -> list[Shear]:
    """Return the shears of metacal types.

    Raises
    ------
    ConfigError
        For a type that is none, one given twice, or a step that is no small shear.
    """
    if not 0.0 < step < 0.1:
        raise ConfigError(f"a metacal step of {step} is no small shear", key="step", remedy="0.01 is customary")
    out = []
    for name in types:
        if name not in TYPES + _PSF_TYPES:
            raise ConfigError(
                f"there is no metacal type {name!r}", key="types", remedy=did_you_mean(name, TYPES + _PSF_TYPES)
            )
        if name == "noshear":
            value = (0.0, 0.0)
        else:
            amount = step if name[1] == "p" else -step
            value = (amount, 0.0) if name[0] == "1" else (0.0, amount)
        none = (0.0, 0.0)
        out.append(Shear(name, none, value) if name.endswith("_psf") else Shear(name, value, none))
    if len(set(types)) != len(types):
        raise ConfigError("a metacal type is given twice", key="types", remedy="name each type once")
    return out
