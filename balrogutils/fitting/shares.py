"""The share of the bulge of composite models as a parameter, and what its error adds to those of the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from balrogutils.fitting.composite import FRACDEV_RANGE, CompositeFit, FracdevPrior, best_share
from balrogutils.fitting.fit import Fit
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.kernels import Links
from balrogutils.fitting.mixture import PROFILES
from balrogutils.fitting.models import Components, Composite, Model, Parameter, composite
from balrogutils.fitting.observation import Stack
from balrogutils.fitting.priors import Flat, Within
from balrogutils.fitting.scene import Scene

__all__ = [
    "FreeShare",
    "Valley",
    "beyond",
    "clipped_width",
    "marginalised",
    "share_errors",
    "share_prior",
    "valley_of",
    "widen",
]

F64 = NDArray[np.float64]

# A share that is known no better than this is not known at all: ranges are far narrower.
_UNKNOWN = 100.0
_STEP = 1e-3


class FreeShare(Model):
    """Bulge and disk of the sizes that they have in a composite model, with the share of the bulge as a parameter.

    T is that of the composite at its own share; at another it is `growth` times as large, so that a step of the share
    leaves both sizes alone and fits go straight.
    """

    name = "cm"
    extras = (Parameter("fracdev", -1.0, 2.0, 0.5),)

    def __init__(self, made: Composite) -> None:
        self._disk, self._bulge = PROFILES["exp"], PROFILES["dev"]
        self._sizes = made.components(np.zeros(0)).f
        self._slope = np.concatenate([-self._disk.p, self._bulge.p])[:, None]
        count = self._disk.p.size
        # Second moments of both, in units of T.
        self._moments = float(self._disk.p @ self._sizes[:count]), float(self._bulge.p @ self._sizes[count:])

    def components(self, values: F64) -> Components:
        """Return disk and bulge, and the slope by the share."""
        share = float(values[0])
        p = np.concatenate([(1.0 - share) * self._disk.p, share * self._bulge.p])
        return Components(p, self._sizes, self._slope, np.zeros_like(self._slope))

    def growth(self, share: float) -> float:
        """Return the second moment at a share over that of the composite."""
        return (1.0 - share) * self._moments[0] + share * self._moments[1]

    @property
    def growing(self) -> float:
        """Slope of `growth` by the share."""
        return self._moments[1] - self._moments[0]


def share_prior(
    prior: JointPrior | None, fracdev: FracdevPrior | None, fracdev_range: tuple[float, float], nband: int
) -> JointPrior:
    """Return the prior of a source of which the share is a parameter, from those of cm and of the share."""
    share = (Within(fracdev, *fracdev_range),)
    if prior is None:
        return JointPrior(None, None, None, [Flat(-math.inf, math.inf)] * nband, share)
    return replace(prior, extra=share)


class Valley(NamedTuple):
    """How composite fits change with their shares, the other parameters at their best for each.

    slopes : float64 [npar, nsource], d pars / d share; power : float64 [nsource, nsource], half the second derivatives
    of chi^2 by the shares; gradient : float64 [nsource], half the first ones.
    """

    slopes: F64
    power: F64
    gradient: F64


def valley_of(data: Stack, links: Links, fit: Fit, models: Sequence[Composite]) -> Valley | None:
    """Look from a cm fit along the shares of its sources, in one pass over the pixels.

    Parameters
    ----------
    data, links
        Stamps and links.
    fit : Fit
        A fit of all sources together, without flags.
    models : sequence of Composite
        Their models.

    Returns
    -------
    Valley or None
        None where the models have no image.

    Notes
    -----
    With normal matrix N of all parameters x and shares f, and C the covariance of x at fixed shares, the best x follow
    f as -C N_xf, and chi^2 along them is curved as N_ff - N_fx C N_xf. Sizes of bulge and disk keep their ratio.
    """
    count, nband = len(models), data.nband
    free = [FreeShare(one) for one in models]
    scene = Scene(data, free, links)
    pars = fit.pars.reshape(count, 5 + nband)
    shares = np.array([[one.fracdev] for one in models])
    normal, gradient = np.empty((scene.npar, scene.npar)), np.empty(scene.npar)
    chi2 = scene.chi2(np.hstack([pars[:, :5], shares, pars[:, 5:]]).ravel(), normal, gradient)
    if not (math.isfinite(chi2) and np.all(np.isfinite(normal))):
        return None
    places = np.array([part.start + 5 for part in scene.slices])
    others = np.setdiff1d(np.arange(scene.npar), places)
    cross = normal[np.ix_(others, places)]
    slopes = -fit.cov0 @ cross
    power = normal[np.ix_(places, places)] + cross.T @ slopes
    for k, one in enumerate(free):
        slopes[k * (5 + nband) + 4, k] += pars[k, 4] * one.growing
    return Valley(slopes, 0.5 * (power + power.T), gradient[places])


def _curvature(share: float, prior: FracdevPrior | None) -> float:
    """Return -d^2 ln p / d share^2, 0 where that is negative or infinite: it takes nothing from what pixels say."""
    if prior is None:
        return 0.0
    here, left, right = (prior.lnp(x) for x in (share, share - _STEP, share + _STEP))
    value = -(right - 2.0 * here + left) / _STEP**2
    return value if value > 0.0 and math.isfinite(value) else 0.0


def share_errors(valley: Valley, shares: F64, prior: FracdevPrior | None) -> F64:
    """Return the covariance of shares, [nsource, nsource], with all other parameters free.

    Parameters
    ----------
    valley : Valley
        Of the fit.
    shares : ndarray, shape (nsource,)
        Where the prior is looked at.
    prior : FracdevPrior, optional
        Prior of each share.

    Notes
    -----
    What neither pixels nor prior know has an error of 100.
    """
    known = valley.power + np.diag([_curvature(float(share), prior) for share in shares])
    values, vectors = np.linalg.eigh(known)
    return np.asarray((vectors / np.maximum(values, _UNKNOWN**-2)) @ vectors.T)


def clipped_width(mean: float, sigma: float, low: float, high: float) -> float:
    """Return the standard deviation of a Gaussian number that is clipped to a range.

    A mean in the range and far from its ends leaves `sigma`; at an end it is 0.584 `sigma`, and where `sigma` is much
    larger than the range half the range.
    """
    a, b = (low - mean) / sigma, (high - mean) / sigma
    below, above = float(ndtr(a)), float(ndtr(-b))
    inside = 1.0 - below - above
    at_a, at_b = (math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi) for x in (a, b))
    # Moments of (x - mean) / sigma.
    first = below * a + above * b + at_a - at_b
    second = below * a * a + above * b * b + inside + a * at_a - b * at_b
    return sigma * math.sqrt(max(second - first * first, 0.0))


def widen(fit: Fit, valley: Valley, shares: F64, errors: F64, fracdev_range: tuple[float, float]) -> Fit:
    """Return a cm fit with errors that hold those of the shares.

    Parameters
    ----------
    fit : Fit
        With the shares fixed.
    valley : Valley
        Of the fit.
    shares : ndarray, shape (nsource,)
        The shares that the fit has.
    errors : ndarray, shape (nsource, nsource)
        Covariance of the shares, before they are clipped.
    fracdev_range : (float, float)
        To which shares were clipped.

    Returns
    -------
    Fit
        `cov0` and `cov` alone differ.

    Notes
    -----
    A share that is clipped scatters less than its error: were the truth what was found, it would have the standard
    deviation of a Gaussian number clipped to the range. Far from the ends this is marginalisation over the shares.
    """
    sigmas = np.sqrt(np.diag(errors))
    widths = [clipped_width(float(f), float(s), *fracdev_range) for f, s in zip(shares, sigmas, strict=True)]
    less = np.array(widths) / sigmas
    added = valley.slopes @ (errors * np.outer(less, less)) @ valley.slopes.T
    if not np.all(np.isfinite(added)):
        return fit
    # The residual variance, by which cov is larger than cov0.
    variance = float(fit.cov[0, 0] / fit.cov0[0, 0])
    return fit._replace(cov0=fit.cov0 + added, cov=fit.cov + added * variance)


def beyond(valley: Valley, shares: F64, prior: FracdevPrior | None, fracdev_range: tuple[float, float]) -> F64:
    """Return the shares as they would be without a range, each by itself: others than given where these are at an end
    of it."""
    out = shares.copy()
    for k, share in enumerate(shares.tolist()):
        low, high = fracdev_range
        if low < share < high:
            continue
        power, slope = float(valley.power[k, k]), float(valley.gradient[k])

        def loss(x: float, share: float = share, power: float = power, slope: float = slope) -> float:
            value = 0.5 * power * (x - share) ** 2 + slope * (x - share)
            return value if prior is None else value - prior.lnp(x)

        found = best_share(loss)
        out[k] = min(found, low) if share <= low else max(found, high)
    return out


def marginalised(
    data: Stack,
    links: Links,
    made: CompositeFit,
    prior: FracdevPrior | None = None,
    fracdev_range: tuple[float, float] = FRACDEV_RANGE,
) -> CompositeFit:
    """Return a cm fit of one source with errors that hold that of its share, whoever fit it.

    Parameters
    ----------
    data, links
        Stamps and the links of the source.
    made : CompositeFit
        Returned as it is where its fit is flagged, or its model has no image.
    prior : FracdevPrior, optional
        Prior of fracdev.
    fracdev_range : (float, float)
        To which fracdev was clipped.
    """
    if made.fit.flags:
        return made
    valley = valley_of(data, links, made.fit, [composite(made.fracdev, made.ratio)])
    if valley is None:
        return made
    errors = share_errors(valley, np.array([made.fracdev_noclip]), prior)
    return made._replace(fit=widen(made.fit, valley, np.array([made.fracdev]), errors, fracdev_range))
