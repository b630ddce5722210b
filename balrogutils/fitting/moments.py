"""Moments: weighted by a Gaussian, adaptive, and the flux of a mixture in a Gaussian aperture (M 3.9, 4.6, 4.7)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.observation import Observation

__all__ = ["AdaptiveOptions", "Moments", "adaptive_moments", "aperture_flux", "gauss_moments"]

F64 = NDArray[np.float64]


class Moments(NamedTuple):
    """Moments of one stamp.

    flags : `FitFlag` bits; v, u (arcsec), e1, e2, size (T, arcsec^2) : of the weighted profile, or of the weight for
    adaptive moments; flux and its error : sums under the weight, for adaptive moments the flux of the Gaussian, image
    units; rho4 : fourth moment, 2 for a Gaussian, of adaptive moments alone.
    """

    flags: int
    v: float
    u: float
    e1: float
    e2: float
    size: float
    flux: float
    flux_err: float
    rho4: float = math.nan


class AdaptiveOptions(NamedTuple):
    """Limits: iterations, shift of the centre (arcsec), change of e, fractional change of T."""

    maxiter: int = 200
    shift: float = 5.0
    etol: float = 1e-5
    ttol: float = 1e-3


def _failed(flags: FitFlag) -> Moments:
    return Moments(int(flags), *[math.nan] * 7)


def _pixels(epoch: Observation) -> tuple[F64, F64, F64, F64]:
    """Return v, u, values and variances of the pixels that are used."""
    rows, cols = np.nonzero(np.asarray(epoch.weight) > 0.0)
    v, u = epoch.wcs.sky(rows, cols)
    values = np.asarray(epoch.image, float)[rows, cols]
    return np.asarray(v), np.asarray(u), values, 1.0 / np.asarray(epoch.weight, float)[rows, cols]


def gauss_moments(epoch: Observation, fwhm: float) -> Moments:
    """Return moments weighted by a round Gaussian of peak 1 at the centre of the WCS.

    Parameters
    ----------
    epoch : Observation
        One stamp.
    fwhm : float
        Of the weight, arcsec.

    Notes
    -----
    The moments are those of object times weight: for a Gaussian 1 / T = 1 / T_object + 1 / T_weight.
    """
    v, u, values, variances = _pixels(epoch)
    if not values.size:
        return _failed(FitFlag.ZERO_DOF)
    size = 2.0 * (fwhm / (2.0 * math.sqrt(2.0 * math.log(2.0)))) ** 2
    weight = np.exp(-(v * v + u * u) / size)
    terms = np.array([v, u, u * u - v * v, 2.0 * u * v, u * u + v * v, np.ones_like(v)]) * weight
    sums = terms @ values
    flux_err = math.sqrt(float(terms[5] ** 2 @ variances))
    if not sums[5] > 0.0:
        return _failed(FitFlag.NONPOS_FLUX)
    if not sums[4] > 0.0:
        return _failed(FitFlag.NONPOS_SIZE)
    e1, e2 = sums[2] / sums[4], sums[3] / sums[4]
    return Moments(0, sums[0] / sums[5], sums[1] / sums[5], e1, e2, sums[4] / sums[5], float(sums[5]), flux_err)


def adaptive_moments(epoch: Observation, size: float, options: AdaptiveOptions | None = None) -> Moments:
    """Return the elliptical Gaussian weight that has the shape of the object under it (Bernstein & Jarvis 2002).

    Parameters
    ----------
    epoch : Observation
        One stamp; the object is near the centre of its WCS.
    size : float
        T of the first weight, arcsec^2.
    options : AdaptiveOptions, optional
        Limits.
    """
    limits = options or AdaptiveOptions()
    v, u, values, variances = _pixels(epoch)
    if not values.size:
        return _failed(FitFlag.ZERO_DOF)
    center = np.zeros(2)
    matrix = 0.5 * size * np.eye(2)
    last = np.array([math.inf, math.inf, size])
    for _ in range(limits.maxiter):
        det = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] ** 2
        if not det > 1e-200:
            return _failed(FitFlag.LOW_DET)
        first = _weight(v - center[0], u - center[1], matrix, det)[1]
        flux = float(first @ values)
        if not flux > 0.0:
            return _failed(FitFlag.NONPOS_FLUX)
        # The centroid under a centred weight moves half-way; twice as far it converges at once for a Gaussian.
        center = (
            center + 2.0 * np.array([first @ (values * (v - center[0])), first @ (values * (u - center[1]))]) / flux
        )
        if not np.hypot(*center) < limits.shift:
            return _failed(FitFlag.CEN_SHIFT)
        dv, du = v - center[0], u - center[1]
        chi2, weight = _weight(dv, du, matrix, det)
        weighted = weight * values
        flux = float(weighted.sum())
        if not flux > 0.0:
            return _failed(FitFlag.NONPOS_FLUX)
        second = np.array([[weighted @ (dv * dv), weighted @ (dv * du)], [weighted @ (dv * du), weighted @ (du * du)]])
        second /= flux
        trace = second[0, 0] + second[1, 1]
        if not trace > 0.0:
            return _failed(FitFlag.NONPOS_SIZE)
        now = np.array([(second[1, 1] - second[0, 0]) / trace, 2.0 * second[0, 1] / trace, trace])
        if np.abs(now[:2] - last[:2]).max() < limits.etol and abs(now[2] / last[2] - 1.0) < limits.ttol:
            size = float(matrix[0, 0] + matrix[1, 1])
            # The flux of a Gaussian of this shape, by its own matched filter.
            scale = 2.0 * math.pi * math.sqrt(det) / epoch.wcs.area / float(weight @ weight)
            return Moments(
                0,
                float(center[0]),
                float(center[1]),
                float((matrix[1, 1] - matrix[0, 0]) / size),
                float(2.0 * matrix[0, 1] / size),
                size,
                flux * scale,
                math.sqrt(float(weight**2 @ variances)) * scale,
                float(weighted @ chi2**2) / flux,
            )
        last = now
        # N = (M^-1 - W^-1)^-1 is the object itself, where it is a Gaussian.
        try:
            matrix = np.linalg.inv(np.linalg.inv(second) - np.linalg.inv(matrix))
        except np.linalg.LinAlgError:
            return _failed(FitFlag.LOW_DET)
        if not (matrix[0, 0] > 0.0 and matrix[1, 1] > 0.0):
            return _failed(FitFlag.NONPOS_SIZE)
    return _failed(FitFlag.MAXITER)


def _weight(dv: F64, du: F64, matrix: F64, det: float) -> tuple[F64, F64]:
    """Return chi^2 and the Gaussian of peak 1."""
    chi2 = (matrix[1, 1] * dv * dv + matrix[0, 0] * du * du - 2.0 * matrix[0, 1] * dv * du) / det
    return chi2, np.exp(-0.5 * chi2)


def aperture_flux(mixture: ArrayLike, fwhm: float) -> float:
    """Return the flux of a mixture, concentric and before the PSF, under a round Gaussian of peak 1 (M 3.9).

    Parameters
    ----------
    mixture : array_like, shape (n, 6)
        Mixture; centres are taken as they are.
    fwhm : float
        Of the aperture, arcsec; 2.5 in the DES Y6 catalogues.
    """
    variance = (fwhm / (2.0 * math.sqrt(2.0 * math.log(2.0)))) ** 2
    total = 0.0
    for p, v, u, irr, irc, icc in np.asarray(mixture, float):
        rr, cc = irr + variance, icc + variance
        det = rr * cc - irc * irc
        chi2 = (cc * v * v + rr * u * u - 2.0 * irc * v * u) / det
        total += p * variance / math.sqrt(det) * math.exp(-0.5 * chi2)
    return total
