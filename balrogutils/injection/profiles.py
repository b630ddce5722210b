"""Light profiles of planned objects: GalSim objects of flux 1, and how far their light reaches."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.errors import InjectionError

if TYPE_CHECKING:
    import galsim

__all__ = [
    "LOST_LIGHT",
    "MODELS",
    "PARAMETERS",
    "bulge_disk_radius",
    "component_radii",
    "half_light_radius",
    "light_radius",
    "profile",
    "sersics_radius",
]

LOST_LIGHT = 1e-4
"""Largest fraction of an object's flux that may fall outside its stamp."""

PARAMETERS = ("model", "T", "fracdev", "TdByTe", "g1", "g2")
"""Columns of the plan that describe a profile, in the order the functions here take them."""

MODELS = ("star", "gauss", "exp", "dev", "bdf", "cm")
"""Names of the profiles in the plan."""

# Half-light radius over sqrt(T) of the round models as ngmix defines them. For exp and dev these are the values of the
# Gaussian mixtures that stand for them; the profiles drawn are the true ones with the same half-light radius.
_R50_GAUSS = float(np.sqrt(np.log(2.0)))
_R50_EXP = 0.69151145
_R50_DEV = 0.39762417

# Scale lengths of an exponential that hold half of its light.
_X_HALF = 1.6783469900166605

# A de Vaucouleurs profile keeps 5 % of its light beyond 8 half-light radii; SDSS and ngmix cut it there, and so do we.
_DEV_TRUNCATION = 8.0


@cache
def _unit_dev() -> galsim.GSObject:
    # Made once and scaled afterwards: GalSim tabulates a truncated profile anew for every other ratio of radii.
    import galsim

    return galsim.DeVaucouleurs(half_light_radius=1.0, trunc=_DEV_TRUNCATION)


@cache
def _dev_constants() -> tuple[float, float]:
    """Return (b, norm): enclosed fraction within r of the truncated profile is gammainc(8, b r^1/4) / norm."""
    from scipy.special import gammainc, gammaincinv

    # Half of the light left by the truncation; a step divides the error by more than a hundred.
    b = 7.67
    for _ in range(12):
        b = float(gammaincinv(8.0, 0.5 * gammainc(8.0, b * _DEV_TRUNCATION**0.25)))
    return b, float(gammainc(8.0, b * _DEV_TRUNCATION**0.25))


@cache
def _exp_reach() -> float:
    """Radius, in half-light radii, outside which an exponential has LOST_LIGHT of its flux."""
    # The fraction outside x scale lengths is (1 + x) exp(-x); its logarithm is all but straight there.
    x = 10.0
    for _ in range(20):
        x += (math.log1p(x) - x - math.log(LOST_LIGHT)) * (1.0 + x) / x
    return x / _X_HALF


def component_radii(model: str, t: float, fracdev: float, tdbyte: float, g1: float, g2: float) -> tuple[float, float]:
    """Return the circularised half-light radii (exponential or Gaussian part, de Vaucouleurs part), arcsec.

    Parameters
    ----------
    model : str
        One of `MODELS`.
    t : float
        ngmix T in arcsec^2: sum of the second moments of the sheared model.
    fracdev : float
        Share of the flux in the de Vaucouleurs part (bdf, cm).
    tdbyte : float
        T of the de Vaucouleurs part over T of the exponential part (bdf, cm).
    g1, g2 : float
        Reduced shear.

    Returns
    -------
    tuple of float
        0 for a part the model lacks.

    Notes
    -----
    A shear that keeps the area changes T by (1 + g^2) / (1 - g^2), which is taken out first. In a composite
    T = (1 - fracdev) T_exp + fracdev T_dev, so T_exp = T / (1 - fracdev + fracdev T_dev/T_exp).
    """
    g = g1 * g1 + g2 * g2
    t_round = t * (1.0 - g) / (1.0 + g)
    if model == "star":
        return 0.0, 0.0
    if model == "gauss":
        return _R50_GAUSS * np.sqrt(t_round), 0.0
    if model == "exp":
        return _R50_EXP * np.sqrt(t_round), 0.0
    if model == "dev":
        return 0.0, _R50_DEV * np.sqrt(t_round)
    if model in ("bdf", "cm"):
        t_exp = t_round / (1.0 - fracdev + fracdev * tdbyte)
        exp = _R50_EXP * np.sqrt(t_exp) if fracdev < 1.0 else 0.0
        dev = _R50_DEV * np.sqrt(t_exp * tdbyte) if fracdev > 0.0 else 0.0
        return float(exp), float(dev)
    raise InjectionError(f"unknown model {model!r}", key="model", remedy="make the plan again")


def profile(
    model: str, t: float, fracdev: float, tdbyte: float, g1: float, g2: float, gsparams: galsim.GSParams | None = None
) -> galsim.GSObject:
    """Return the profile of flux 1 in sky coordinates (u west, v north, arcsec), before the PSF.

    Parameters
    ----------
    model, t, fracdev, tdbyte, g1, g2
        As in `component_radii`.
    gsparams : galsim.GSParams, optional
        Accuracy parameters.
    """
    import galsim

    if model == "star":
        return galsim.DeltaFunction(gsparams=gsparams)
    soft, dev = component_radii(model, t, fracdev, tdbyte, g1, g2)
    share = {"dev": 1.0, "bdf": fracdev, "cm": fracdev}.get(model, 0.0)
    parts = []
    if soft > 0.0:
        kind = galsim.Gaussian if model == "gauss" else galsim.Exponential
        parts.append(kind(half_light_radius=soft, flux=1.0 - share))
    if dev > 0.0:
        parts.append(_unit_dev().dilate(dev).withFlux(share))
    whole = parts[0] if len(parts) == 1 else galsim.Add(parts)
    whole = whole.shear(g1=g1, g2=g2)
    return whole if gsparams is None else whole.withGSParams(gsparams)


def light_radius(model: str, t: float, fracdev: float, tdbyte: float, g1: float, g2: float) -> float:
    """Return the radius in arcsec outside which at most `LOST_LIGHT` of the object's flux lies, before the PSF."""
    soft, dev = component_radii(model, t, fracdev, tdbyte, g1, g2)
    reach = float(np.sqrt(-2.0 * np.log(LOST_LIGHT) / (2.0 * np.log(2.0)))) if model == "gauss" else _exp_reach()
    g = float(np.hypot(g1, g2))
    # The shear stretches the long axis by sqrt((1 + g) / (1 - g)).
    return max(soft * reach, dev * _DEV_TRUNCATION) * float(np.sqrt((1.0 + g) / (1.0 - g)))


def half_light_radius(
    soft: ArrayLike, dev: ArrayLike, fracdev: ArrayLike, gauss: ArrayLike = False
) -> NDArray[np.float64]:
    """Return the circularised half-light radius of the whole objects, before the PSF, in the unit of the inputs.

    Parameters
    ----------
    soft, dev : array_like of float
        Half-light radii of the exponential (or Gaussian) and de Vaucouleurs parts.
    fracdev : array_like of float
        Share of the flux in the de Vaucouleurs part.
    gauss : array_like of bool
        Whether the first part is a Gaussian.

    Returns
    -------
    numpy.ndarray of float64
        To a relative accuracy of 1e-9; 0 for stars.
    """
    # SciPy's functions take a third of a second to import, and only plans need them.
    from scipy.special import gammainc

    soft, dev, fracdev, gauss = np.broadcast_arrays(*(np.atleast_1d(value) for value in (soft, dev, fracdev, gauss)))
    low, high = np.zeros(soft.shape), np.maximum(soft, dev).astype(float)
    b, norm = _dev_constants()
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(60):
            r = 0.5 * (low + high)
            x = np.where(soft > 0, r / soft, np.inf)
            exp = np.where(np.isfinite(x), gammainc(2.0, np.where(np.isfinite(x), _X_HALF * x, 0.0)), 1.0)
            exp = np.where(gauss & np.isfinite(x), 1.0 - 0.5 ** (np.where(np.isfinite(x), x, 0.0) ** 2), exp)
            y = np.where(dev > 0, np.minimum(r / np.where(dev > 0, dev, 1.0), _DEV_TRUNCATION), _DEV_TRUNCATION)
            inside = (1.0 - fracdev) * exp + fracdev * gammainc(8.0, b * y**0.25) / norm
            low, high = np.where(inside < 0.5, r, low), np.where(inside < 0.5, high, r)
    return 0.5 * (low + high)


def bulge_disk_radius(
    share: NDArray[np.float64], bulge: NDArray[np.float64], index: NDArray[np.float64], disk: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the half-light radius of bulge and disk together, to a relative accuracy of 1e-9; NaN where one is not.

    Parameters
    ----------
    share, bulge, index, disk : ndarray of float64
        Fraction of the light in the bulge, its half-light radius and Sersic index, half-light radius of the
        exponential disk.

    Notes
    -----
    Truncation is left out.
    """
    return sersics_radius(
        np.array([share, 1.0 - share]), np.array([bulge, disk]), np.array([index, np.ones(np.shape(index))])
    )


def sersics_radius(
    shares: NDArray[np.float64], radii: NDArray[np.float64], indices: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the half-light radius of Sersic profiles together, to a relative accuracy of 1e-9; NaN where one is not.

    Parameters
    ----------
    shares, radii, indices : ndarray of float64, shape (components, n)
        Fractions of the light, circularised half-light radii (0 for a point), Sersic indices.

    Returns
    -------
    ndarray of float64, shape (n,)
        In the unit of `radii`.

    Notes
    -----
    A Sersic profile of index n holds P(2n, b (r / r50)^(1/n)) of its light within r, with b where that is 1/2
    (Graham & Driver 2005); found by bisection.
    """
    from scipy.special import gammainc, gammaincinv

    ok = (np.isfinite(shares + radii + indices) & (radii >= 0) & (indices > 0)).all(axis=0)
    shares, radii, indices = (np.where(ok, values, 1.0) for values in (shares, radii, indices))
    low, high = radii.min(axis=0), radii.max(axis=0)
    b = gammaincinv(2.0 * indices, 0.5)
    for _ in range(40):
        r = 0.5 * (low + high)
        with np.errstate(divide="ignore", invalid="ignore"):
            within = gammainc(2.0 * indices, b * (r / radii) ** (1.0 / indices))
        inside = np.sum(shares * np.where(radii > 0, within, 1.0), axis=0)
        low, high = np.where(inside < 0.5, r, low), np.where(inside < 0.5, high, r)
    return np.where(ok, 0.5 * (low + high), np.nan)
