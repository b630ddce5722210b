"""Prior probabilities as rows of a least-squares problem: residual^2 = -2 ln p, with analytic slopes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import FitError

__all__ = [
    "FRACDEV_Y3",
    "CenPrior",
    "CosmosSersic",
    "Disk",
    "Flat",
    "GPriorBA",
    "GaussianMixture",
    "LogNormal",
    "Normal",
    "Prior",
    "ShapePrior",
    "Sinh",
    "TwoSidedErf",
    "Within",
]

F64 = NDArray[np.float64]
_OUT = (math.nan, math.nan)


_EVERYWHERE = (-math.inf, math.inf)


class Row(Protocol):
    """What is a row of the problem."""

    def row(self, x: float) -> tuple[float, float]:
        """Return the residual and its slope at `x`; NaN where the probability is zero."""
        ...


class Prior(Row, Protocol):
    """A prior of one number."""

    @property
    def support(self) -> tuple[float, float]:
        """Ends of the range outside which the probability is zero; a fit keeps inside."""
        ...


class ShapePrior(Protocol):
    """A prior of the shape (g1, g2)."""

    def rows(self, g1: float, g2: float) -> list[tuple[float, float, float]]:
        """Return rows (residual, slope by g1, slope by g2); NaN residual where the probability is zero."""
        ...


@dataclass(frozen=True)
class Flat:
    """Constant between `low` and `high`, impossible outside."""

    low: float
    high: float

    @property
    def support(self) -> tuple[float, float]:
        """The two ends."""
        return self.low, self.high

    def row(self, x: float) -> tuple[float, float]:
        """Return (0, 0) inside, NaN outside."""
        return (0.0, 0.0) if self.low <= x <= self.high else _OUT


@dataclass(frozen=True)
class Within:
    """Another prior, or none, between `low` and `high`; impossible outside."""

    prior: Row | None
    low: float
    high: float

    @property
    def support(self) -> tuple[float, float]:
        """The two ends, or those of the other prior where they are narrower."""
        low, high = getattr(self.prior, "support", _EVERYWHERE)
        return max(low, self.low), min(high, self.high)

    def row(self, x: float) -> tuple[float, float]:
        """Return the row of the other prior inside, NaN outside."""
        if not self.low <= x <= self.high:
            return _OUT
        return (0.0, 0.0) if self.prior is None else self.prior.row(x)


@dataclass(frozen=True)
class Normal:
    """A Gaussian, optionally cut at `low` and `high`."""

    mean: float
    sigma: float
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.sigma > 0.0:
            raise FitError(f"a Gaussian prior needs a positive width, not {self.sigma}")

    def lnp(self, x: float) -> float:
        """Return ln p but for a constant."""
        return -0.5 * ((x - self.mean) / self.sigma) ** 2 if self.low <= x <= self.high else -math.inf

    @property
    def support(self) -> tuple[float, float]:
        """The two ends."""
        return self.low, self.high

    def row(self, x: float) -> tuple[float, float]:
        """Return ((x - mean) / sigma, 1 / sigma)."""
        return ((x - self.mean) / self.sigma, 1.0 / self.sigma) if self.low <= x <= self.high else _OUT


@dataclass(frozen=True)
class TwoSidedErf:
    """Flat with soft edges: p = erf((high - x) / width_high) / 2 + erf((x - low) / width_low) / 2."""

    low: float
    width_low: float
    high: float
    width_high: float

    def __post_init__(self) -> None:
        if not (self.width_low > 0.0 and self.width_high > 0.0 and self.low < self.high):
            raise FitError(f"a TwoSidedErf prior needs min < max and positive widths, not {self}")

    @property
    def support(self) -> tuple[float, float]:
        """Five widths beyond the edges, where p is 1e-12; soon after it is no number any more."""
        return self.low - 5.0 * self.width_low, self.high + 5.0 * self.width_high

    def row(self, x: float) -> tuple[float, float]:
        """Return sqrt(-2 ln p), negative on the low side, and its slope."""
        a, b = (x - self.low) / self.width_low, (self.high - x) / self.width_high
        # 1 - p through erfc keeps the residual exact where p is within rounding of 1.
        missing = 0.5 * (math.erfc(a) + math.erfc(b))
        if not missing < 1.0:
            return _OUT
        residual = math.sqrt(max(-2.0 * math.log1p(-missing), 0.0))
        if residual < 1e-150:
            return 0.0, 0.0
        sides = math.exp(-min(a * a, 700.0)) / self.width_low, math.exp(-min(b * b, 700.0)) / self.width_high
        slope = -(sides[0] - sides[1]) / math.sqrt(math.pi) / (1.0 - missing) / residual
        return (residual, slope) if sides[1] >= sides[0] else (-residual, -slope)


@dataclass(frozen=True)
class Sinh:
    """Nearly flat within `scale` of `mean` and steep outside: residual sinh((x - mean) / scale)."""

    mean: float
    scale: float

    @property
    def support(self) -> tuple[float, float]:
        """Everywhere that the residual is a number."""
        return self.mean - 300.0 * self.scale, self.mean + 300.0 * self.scale

    def row(self, x: float) -> tuple[float, float]:
        """Return the residual and its slope."""
        z = (x - self.mean) / self.scale
        return (math.sinh(z), math.cosh(z) / self.scale) if abs(z) <= 300.0 else _OUT


@dataclass(frozen=True)
class LogNormal:
    """ln x is Gaussian; `mean` and `sigma` are those of x. The peak has residual 0."""

    mean: float
    sigma: float

    def __post_init__(self) -> None:
        if not (self.mean > 0.0 and self.sigma > 0.0):
            raise FitError(f"a log-normal prior needs a positive mean and width, not {self}")

    @property
    def support(self) -> tuple[float, float]:
        """Positive numbers."""
        return 1e-300, math.inf

    def row(self, x: float) -> tuple[float, float]:
        """Return sqrt(-2 ln p / p_max), negative below the peak, and its slope."""
        if not x > 0.0:
            return _OUT
        variance = math.log1p((self.sigma / self.mean) ** 2)
        # -2 ln p = (ln x - mu)^2 / s^2 + 2 ln x + constant is a square of the distance of ln x to the peak, mu - s^2.
        z = (math.log(x / self.mean) + 1.5 * variance) / math.sqrt(variance)
        return z, 1.0 / (x * math.sqrt(variance))


@dataclass(frozen=True)
class GaussianMixture:
    """A sum of Gaussians of one number, as the prior of fracdev."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    variances: tuple[float, ...]

    @cached_property
    def _table(self) -> tuple[F64, F64, F64]:
        """Logarithms of the peaks, means and variances."""
        weights, means, variances = (np.array(values) for values in (self.weights, self.means, self.variances))
        return np.log(weights / weights.sum()) - 0.5 * np.log(2.0 * math.pi * variances), means, variances

    def _terms(self, x: float) -> tuple[float, float]:
        """Return ln p and its slope."""
        peaks, means, variances = self._table
        logs = peaks - 0.5 * (x - means) ** 2 / variances
        top = float(logs.max())
        shares = np.exp(logs - top)
        total = float(shares.sum())
        return top + math.log(total), float(shares @ ((means - x) / variances)) / total

    def lnp(self, x: float) -> float:
        """Return ln p."""
        return self._terms(x)[0]

    @cached_property
    def _peak(self) -> float:
        low, high = min(self.means), max(self.means)
        grid = np.linspace(low, high, 2001) if high > low else np.array([low])
        return max(self.lnp(float(x)) for x in grid)

    @property
    def support(self) -> tuple[float, float]:
        """Everywhere."""
        return _EVERYWHERE

    def row(self, x: float) -> tuple[float, float]:
        """Return sqrt(-2 ln p / p_max) and its slope; p_max on a grid of the means."""
        value, slope = self._terms(x)
        residual = math.sqrt(max(2.0 * (self._peak - value), 0.0))
        return (residual, -slope / residual) if residual > 1e-8 else (0.0, 0.0)


# fracdev of the DES Y3 runs (M 4.10).
FRACDEV_Y3 = GaussianMixture(
    (0.07219169, 0.03931063, 0.06144639, 0.02342249, 0.05680965, 0.07317471, 0.07112629, 0.05102051, 0.03397887,
     0.06657475, 0.02908218, 0.01747496, 0.06998605, 0.00772567, 0.02882283, 0.04503099, 0.06212688, 0.06761242,
     0.0502267, 0.07285532),
    (-0.0621139, 0.48460298, -0.16349622, 0.81232456, 0.1555424, -0.08928717, -0.12935131, 0.25287222, 0.5998589,
     0.01771045, -0.21265698, 0.90599701, -0.02775166, 1.03471975, 0.7096433, 0.36650008, 0.07729925, -0.14636961,
     -0.18364023, -0.11087039),
    (0.05039464, 0.14833301, 0.02533687, 0.08991854, 0.11303651, 0.04256832, 0.03219367, 0.13369827, 0.13584953,
     0.07452398, 0.02094517, 0.0701313, 0.06071257, 0.05520489, 0.11392525, 0.14748899, 0.09209303, 0.02847802,
     0.02259679, 0.03674909),
)  # fmt: skip


@dataclass(frozen=True)
class CenPrior:
    """Round Gaussian of width `sigma` (arcsec) on both coordinates of the centre."""

    sigma: float

    @property
    def support(self) -> tuple[float, float]:
        """Everywhere."""
        return _EVERYWHERE

    def row(self, x: float) -> tuple[float, float]:
        """Return the row of one coordinate."""
        return x / self.sigma, 1.0 / self.sigma


@dataclass(frozen=True)
class GPriorBA:
    """Bernstein & Armstrong (2014): ln p = 2 ln(1 - g^2) - g^2 / (2 sigma^2)."""

    sigma: float

    def rows(self, g1: float, g2: float) -> list[tuple[float, float, float]]:
        """Return two rows along (g1, g2), so that the problem is smooth at g = 0."""
        gg = g1 * g1 + g2 * g2
        if not gg < 1.0:
            return [(math.nan, math.nan, math.nan)]
        # residual^2 = 4 ln(1 / (1 - g^2)) + g^2 / sigma^2 = g^2 h^2
        if gg < 1e-5:
            # Series of ln(1 - g^2): the closed form loses its digits here.
            h = math.sqrt(4.0 + 2.0 * gg + 1.0 / self.sigma**2)
            slope = (1.0 + 4.0 / 3.0 * gg) / h
        else:
            h = math.sqrt(-4.0 * math.log1p(-gg) / gg + 1.0 / self.sigma**2)
            # dh / d(g^2)
            slope = 0.5 * (4.0 / ((1.0 - gg) * gg) + 4.0 * math.log1p(-gg) / gg**2) / h
        cross = 2.0 * g1 * g2 * slope
        return [
            (g1 * h, h + 2.0 * g1 * g1 * slope, cross),
            (g2 * h, cross, h + 2.0 * g2 * g2 * slope),
        ]


@dataclass(frozen=True)
class Disk:
    """Flat for |g| below `radius`, impossible outside."""

    radius: float = 1.0

    def rows(self, g1: float, g2: float) -> list[tuple[float, float, float]]:
        """Return no row inside, NaN outside."""
        return [] if math.hypot(g1, g2) < self.radius else [(math.nan, math.nan, math.nan)]


@dataclass(frozen=True)
class CosmosSersic:
    """Ellipticities of Sersic fits to COSMOS galaxies, as the DES Y3 runs used.

    p = A (1 - exp((g - 1) / a)) (1 + erf((gm - g) / gs)) / 2 / ((1 + g) sqrt(g^2 + g0^2)).
    """

    amplitude: float = 0.0250834
    a: float = 1.98317
    g0: float = 0.0793992
    gm: float = 0.706151
    gs: float = 0.124546

    def rows(self, g1: float, g2: float) -> list[tuple[float, float, float]]:
        """Return one row of |g|."""
        g = math.hypot(g1, g2)
        if not g < 1.0:
            return [(math.nan, math.nan, math.nan)]
        decay = math.exp((g - 1.0) / self.a)
        z = (self.gm - g) / self.gs
        cut = 0.5 * math.erfc(-z)
        if cut <= 0.0:
            return [(math.nan, math.nan, math.nan)]
        p = self.amplitude * (1.0 - decay) * cut / ((1.0 + g) * math.sqrt(g * g + self.g0**2))
        residual = math.sqrt(-2.0 * math.log(p))
        by_g = (
            -decay / self.a / (1.0 - decay)
            - math.exp(-z * z) / math.sqrt(math.pi) / self.gs / cut
            - 1.0 / (1.0 + g)
            - g / (g * g + self.g0**2)
        )
        slope = -by_g / residual
        # |g| has no direction at 0; the probability is largest there, so no slope is the right one.
        return [(residual, slope * g1 / g, slope * g2 / g)] if g > 1e-12 else [(residual, 0.0, 0.0)]
