"""Light profiles as Gaussian mixtures: one registry, every model with its own parameters and their slopes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from balrogutils.errors import FitError, did_you_mean
from balrogutils.fitting.mixture import PROFILES, Profile
from balrogutils.fitting.sersicbank import read_bank

__all__ = [
    "BulgeDisk",
    "Components",
    "Composite",
    "FixedProfile",
    "Model",
    "Parameter",
    "PointSource",
    "Sersic",
    "composite",
    "model",
    "model_names",
    "true_profile",
]

F64 = NDArray[np.float64]
LN10 = math.log(10.0)


class Components(NamedTuple):
    """Gaussians of a profile of flux 1 and size T = 1: p, f, [ncomp]; slopes dp, df by its parameters, [ncomp, n]."""

    p: F64
    f: F64
    dp: F64
    df: F64


@dataclass(frozen=True)
class Parameter:
    """A parameter of a profile: name, range outside which there is no model, and where a fit begins."""

    name: str
    low: float
    high: float
    start: float


class Model:
    """A light profile of elliptical Gaussians that share centre and ellipticity.

    The parameters of a source are v, u (arcsec), g1, g2, T (arcsec^2, before the PSF), those of `extras`, and a flux
    in each band; a point source has v, u and fluxes alone.
    """

    name: str
    extras: tuple[Parameter, ...] = ()
    point = False

    def components(self, values: F64) -> Components:
        """Return the Gaussians at these values of `extras`."""
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all parameters but the fluxes, in the order of the parameter vector."""
        return ("v", "u") if self.point else ("v", "u", "g1", "g2", "T", *(one.name for one in self.extras))

    def straighten(self, pars: F64) -> tuple[F64, F64]:
        """Return the parameters in coordinates in which a fit goes straighter, and d pars / d coordinates.

        `bend` goes back; a model without such coordinates returns its parameters as they are.
        """
        return pars, np.eye(pars.size)

    def bend(self, coordinates: F64) -> F64:
        """Return the parameters of coordinates of `straighten`."""
        return coordinates

    @property
    def straight(self) -> bool:
        """Whether the parameters are their own coordinates."""
        return True

    def profile(self, values: F64 | None = None) -> Profile:
        """Return the table at these values of `extras`, or at their starts."""
        at = np.array([one.start for one in self.extras]) if values is None else np.asarray(values, float)
        return Profile(self.name, *self.components(at)[:2])


class FixedProfile(Model):
    """A profile without parameters of its own."""

    def __init__(self, table: Profile) -> None:
        self.name = table.name
        none = np.zeros((table.p.size, 0))
        self._components = Components(table.p, table.f, none, none)

    def components(self, values: F64) -> Components:
        """Return the table."""
        return self._components


class PointSource(Model):
    """A star: the PSF itself."""

    name = "point"
    point = True

    def components(self, values: F64) -> Components:
        """Return one Gaussian without size."""
        return Components(np.ones(1), np.zeros(1), np.zeros((1, 0)), np.zeros((1, 0)))


class BulgeDisk(Model):
    """A de Vaucouleurs bulge and an exponential disk with T the flux-weighted second moment of both (M 3.3).

    Parameters
    ----------
    name : str
        ``bdf``, with bulge and disk of the same T, or ``bd``, with log10(T_d / T_e) as a parameter before fracdev.
    disk, bulge : Profile
        Their tables.
    moments : bool
        Whether T is kept the second moment by scaling both; otherwise both tables are taken as they are.
    """

    def __init__(self, name: str, disk: Profile, bulge: Profile, *, ratio: bool = False, moments: bool = True) -> None:
        self.name = name
        self.ratio = ratio
        self.disk, self.bulge = disk, bulge
        fracdev = Parameter("fracdev", -1.0, 2.0, 0.5)
        self.extras = (Parameter("logTratio", -3.0, 3.0, 0.0), fracdev) if ratio else (fracdev,)
        self._sums = (float(disk.p @ disk.f), float(bulge.p @ bulge.f)) if moments else (1.0, 1.0)

    @property
    def straight(self) -> bool:
        """Whether there is no ratio of sizes: T, the ratio and fracdev are a curved valley."""
        return not self.ratio

    def _moment(self, fracdev: float, times: float) -> float:
        return (1.0 - fracdev) * self._sums[0] + fracdev * times * self._sums[1]

    def straighten(self, pars: F64) -> tuple[F64, F64]:
        """Return the parameters with T_e, the size of the disk, for T, and d pars / d coordinates."""
        slopes = np.eye(pars.size)
        if not self.ratio:
            return pars, slopes
        times, fracdev = 10.0 ** float(pars[5]), float(pars[6])
        moment = self._moment(fracdev, times)
        out = pars.copy()
        out[4] = pars[4] / moment
        slopes[4, 4] = moment
        slopes[4, 5] = out[4] * fracdev * times * self._sums[1] * LN10
        slopes[4, 6] = out[4] * (times * self._sums[1] - self._sums[0])
        return out, slopes

    def bend(self, coordinates: F64) -> F64:
        """Return the parameters of coordinates of `straighten`."""
        out = coordinates.copy()
        if self.ratio:
            out[4] *= self._moment(float(coordinates[6]), 10.0 ** float(coordinates[5]))
        return out

    def components(self, values: F64) -> Components:
        """Return disk and bulge, and the slopes by logTratio (bd) and fracdev."""
        fracdev = float(values[-1])
        times = 10.0 ** float(values[0]) if self.ratio else 1.0
        disk_sum, bulge_sum = self._sums
        moment = self._moment(fracdev, times)
        if not moment > 0.0:
            raise FitError(f"the second moment of a bulge and disk with fracdev {fracdev:g} is not positive")
        scale = 1.0 / moment
        p = np.concatenate([(1.0 - fracdev) * self.disk.p, fracdev * self.bulge.p])
        f = np.concatenate([self.disk.f, times * self.bulge.f]) * scale
        by_fracdev = np.concatenate([-self.disk.p, self.bulge.p])
        size_by_fracdev = -f * scale * (times * bulge_sum - disk_sum)
        if not self.ratio:
            return Components(p, f, by_fracdev[:, None], size_by_fracdev[:, None])
        # d ln f / d log10 ratio: ln 10 for the bulge, less the change of the whole moment for both.
        size_by_ratio = -f * scale * fracdev * times * bulge_sum * LN10
        size_by_ratio[self.disk.p.size :] += LN10 * f[self.disk.p.size :]
        dp = np.column_stack([np.zeros_like(p), by_fracdev])
        return Components(p, f, dp, np.column_stack([size_by_ratio, size_by_fracdev]))


class Composite(FixedProfile):
    """The model ``cm``: bulge and disk with fixed fracdev and T_d / T_e, `ratio`."""

    def __init__(self, fracdev: float, ratio: float) -> None:
        self.fracdev, self.ratio = fracdev, ratio
        mixture = BulgeDisk("cm", PROFILES["exp"], PROFILES["dev"], ratio=True)
        # A bulge without size is a point; its Gaussians then keep a size that no image shows.
        values = np.array([math.log10(max(ratio, 1e-10)), fracdev])
        super().__init__(Profile("cm", *mixture.components(values)[:2]))


def composite(fracdev: float, ratio: float) -> Composite:
    """Return the model ``cm``: bulge and disk with fixed fracdev and T_d / T_e.

    Raises
    ------
    FitError
        When the second moment is not positive.
    """
    return Composite(fracdev, ratio)


class Sersic(Model):
    """A Sersic profile of free index n, untruncated, from the mixture bank; T is r50^2 / ln 2.

    For n = 1/2 this T is that of the Gaussian; for others it is no second moment, which wings would rule.
    """

    def __init__(self) -> None:
        indices, flux, sigma = read_bank()
        self.name = "sersic"
        self.extras = (Parameter("n", float(indices[0]), float(indices[-1]), 1.5),)
        self._flux = CubicSpline(np.log(indices), flux, axis=0)
        self._size = CubicSpline(np.log(indices), np.log(2.0 * math.log(2.0) * sigma**2), axis=0)

    def components(self, values: F64) -> Components:
        """Return the Gaussians of index n and their slopes by it."""
        n = float(values[0])
        if not self.extras[0].low <= n <= self.extras[0].high:
            raise FitError(f"the Sersic index {n:g} is outside the bank")
        x = math.log(n)
        f = np.exp(self._size(x))
        return Components(self._flux(x), f, self._flux(x, 1)[:, None] / n, (f * self._size(x, 1))[:, None] / n)


def true_profile(name: str, n: float, size: float) -> Profile:
    """Return the mixture of the true Sersic profile of index n, where T is `size` times r50^2.

    With `size` that of a mixture of truncated wings, T means the same half-light radius in both (M 3.4).
    """
    indices, flux, sigma = read_bank()
    at = int(np.flatnonzero(indices == n)[0])
    return Profile(name, flux[at], 2.0 * sigma[at] ** 2 / size)


# T / r50^2 of the mixtures of exp and dev (M 3.4).
_EXP_SIZE, _DEV_SIZE = 2.09122736, 6.32491128


_MAKERS: dict[str, Callable[[], Model]] = {
    **{name: lambda table=table: FixedProfile(table) for name, table in PROFILES.items()},  # type: ignore[misc]
    "point": PointSource,
    "bdf": lambda: BulgeDisk("bdf", PROFILES["exp"], PROFILES["dev"]),
    "exp_true": lambda: FixedProfile(true_profile("exp_true", 1.0, _EXP_SIZE)),
    "dev_true": lambda: FixedProfile(true_profile("dev_true", 4.0, _DEV_SIZE)),
    "bdf_true": lambda: BulgeDisk(
        "bdf_true",
        true_profile("exp_true", 1.0, _EXP_SIZE),
        true_profile("dev_true", 4.0, _DEV_SIZE),
        moments=False,
    ),
    "sersic": Sersic,
    "bd": lambda: BulgeDisk("bd", PROFILES["exp"], PROFILES["dev"], ratio=True),
}
_MODELS: dict[str, Model] = {}


def model_names() -> tuple[str, ...]:
    """Return the names of all models."""
    return tuple(sorted(_MAKERS))


def model(name: str) -> Model:
    """Return a model by name.

    Raises
    ------
    FitError
        For a name that is no model; ``cm`` comes from `composite`.
    """
    if name not in _MAKERS:
        raise FitError(f"unknown model {name!r}", key="model", remedy=did_you_mean(name, _MAKERS))
    if name not in _MODELS:
        _MODELS[name] = _MAKERS[name]()
    return _MODELS[name]
