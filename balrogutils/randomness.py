"""Random streams keyed by name, never by clock, order, core count or a shared counter."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["dither_seed", "seed32", "stream"]


def _digest(seed: int, names: tuple[str | int, ...]) -> bytes:
    # Length prefixes keep ("ab", "c") and ("a", "bc") apart, the type tag keeps 1 and "1" apart.
    text = hashlib.sha256()
    for name in (int(seed), *names):
        raw = str(name).encode()
        tag = b"i" if isinstance(name, (int, np.integer)) else b"s"
        text.update(tag + len(raw).to_bytes(4, "big") + raw)
    return text.digest()


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the random stream of one purpose.

    Parameters
    ----------
    seed : int
        Seed of the run.
    *names : str or int
        The purpose first, then as many of tile, realization, band, exposure, chip and object as apply.

    Returns
    -------
    numpy.random.Generator
        A Philox generator that depends on its arguments only.
    """
    key = np.frombuffer(_digest(seed, names)[:16], dtype="<u8")
    return np.random.Generator(np.random.Philox(key=key))


def seed32(seed: int, *names: str | int) -> int:
    """Return an integer seed in [1, 2**31 - 1] for libraries that take one (GalSim)."""
    return int.from_bytes(_digest(seed, names)[:8], "big") % (2**31 - 1) + 1


def dither_seed(*names: str | int) -> int:
    """Return a cfitsio dither seed in [1, 10000], the same for the same names in every run."""
    return int.from_bytes(_digest(0, ("dither", *names))[:8], "big") % 10000 + 1
