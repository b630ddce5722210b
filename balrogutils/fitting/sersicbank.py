"""The bank of Sersic mixtures: Gaussians that follow the true profile, untruncated, at a row of indices.

``python -m balrogutils.fitting.sersicbank`` writes the table that `models` reads.

For every index n the sizes are spaced evenly in their logarithm between two that are smooth functions of n, and the
fluxes are one linear least-squares fit to the flux per unit of ln r from 0.002 to 60 half-light radii, in absolute
and in relative terms, with their sum held at 1. No flux is forced to be positive: the solution is then a smooth
function of n, and a spline through the table has honest slopes. A weak pull towards 0 keeps neighbours from
cancelling where the profile is nearly a Gaussian.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma, gammaincinv

__all__ = ["BANK", "INDICES", "NCOMP", "fit_sersic", "read_bank", "sersic_profile", "write_bank"]

F64 = NDArray[np.float64]

BANK = Path(__file__).with_name("sersic_bank.txt")
NCOMP = 14
INDICES = (0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.6, 1.8, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 4.5, 5.0,
           5.5, 6.2)  # fmt: skip
# Narrowest and widest sigma, half-light radii, at some indices; a polynomial of ln n goes through them.
_ENDS = {0.5: (0.18, 0.95), 1.0: (0.055, 1.8), 2.0: (0.018, 4.6), 4.0: (0.004, 16.0), 6.2: (0.001, 40.0)}
_PULL = 1e-4
# Below this flux per unit of ln r, errors count in absolute terms alone.
_RELATIVE = 1e-2


def sersic_profile(n: float, radius: F64) -> F64:
    """Return the surface brightness of a Sersic profile of flux 1 and half-light radius 1 (Graham & Driver 2005)."""
    b = float(gammaincinv(2.0 * n, 0.5))
    central = b ** (2.0 * n) / (2.0 * math.pi * n * float(gamma(2.0 * n)))
    return np.asarray(central * np.exp(-b * radius ** (1.0 / n)))


def _sizes(n: float) -> F64:
    logs = np.log(list(_ENDS))
    low, high = (
        np.polyval(np.polyfit(logs, np.log([ends[k] for ends in _ENDS.values()]), logs.size - 1), math.log(n))
        for k in (0, 1)
    )
    return np.exp(np.linspace(low, high, NCOMP))


def fit_sersic(n: float) -> tuple[F64, F64]:
    """Return fluxes and sigmas (half-light radii) of the Gaussians of one index."""
    sigma = _sizes(n)
    radius = np.exp(np.linspace(math.log(2e-3), math.log(60.0), 600))
    ring = 2.0 * math.pi * radius**2
    matrix = ring[:, None] * np.exp(-0.5 * (radius[:, None] / sigma) ** 2) / (2.0 * math.pi * sigma**2)
    want = ring * sersic_profile(n, radius)
    relative = _RELATIVE / np.maximum(want, _RELATIVE)
    rows = np.vstack([matrix, matrix * relative[:, None], 1e3 * np.ones((1, NCOMP)), _PULL * np.eye(NCOMP)])
    values = np.concatenate([want, want * relative, [1e3], np.zeros(NCOMP)])
    flux = np.linalg.lstsq(rows, values, rcond=None)[0]
    return flux / flux.sum(), sigma


def write_bank(path: Path = BANK) -> None:
    """Write the table: one line for each index, n, fluxes, sigmas."""
    lines = ["# n, fluxes, sigmas in half-light radii: python -m balrogutils.fitting.sersicbank"]
    for n in INDICES:
        flux, sigma = fit_sersic(n)
        lines.append(" ".join(f"{value:.12e}" for value in (n, *flux, *sigma)))
    path.write_text("\n".join(lines) + "\n")


def read_bank(path: Path = BANK) -> tuple[F64, F64, F64]:
    """Return indices, [nindex], and fluxes and sigmas, [nindex, NCOMP]."""
    table = np.loadtxt(path)
    flux = table[:, 1 : 1 + NCOMP]
    return table[:, 0], flux / flux.sum(axis=1, keepdims=True), table[:, 1 + NCOMP :]


if __name__ == "__main__":
    write_bank()
