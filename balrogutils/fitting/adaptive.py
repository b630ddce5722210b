"""Adaptive moments: the elliptical Gaussian weight that has the shape of the object under it (M 4.7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.compiled import njit
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.moments import NSUM, Moments, unknown
from balrogutils.fitting.observation import Observation

__all__ = ["AdaptiveOptions", "adaptive_moments"]

F64 = NDArray[np.float64]

# chi^2 beyond which a Gaussian is 0 in double precision.
_REACH = 80.0


class AdaptiveOptions(NamedTuple):
    """Limits: iterations, shift of the centre (arcsec), change of e, fractional change of T."""

    maxiter: int = 200
    shift: float = 5.0
    etol: float = 1e-5
    ttol: float = 1e-3


class _Pixels(NamedTuple):
    """Used pixels of all epochs; share: what an epoch counts; area: pixel area; first: where each band begins."""

    v: F64
    u: F64
    value: F64
    variance: F64
    share: F64
    area: F64
    first: NDArray[np.int64]


@njit(cache=True)
def _sums(v, u, value, share, center, matrix, out):
    """Fill the weighted sums of 1, r^2, u^2 - v^2, 2 u v, v, u, chi^4 about a centre."""
    det = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[0, 1]
    qvv, quu, qvu = matrix[1, 1] / det, matrix[0, 0] / det, -matrix[0, 1] / det
    out[:] = 0.0
    for j in range(v.shape[0]):
        dv, du = v[j] - center[0], u[j] - center[1]
        chi2 = qvv * dv * dv + quu * du * du + 2.0 * qvu * dv * du
        if chi2 < _REACH:
            w = math.exp(-0.5 * chi2) * share[j] * value[j]
            out[0] += w
            out[1] += w * (du * du + dv * dv)
            out[2] += w * (du * du - dv * dv)
            out[3] += w * 2.0 * du * dv
            out[4] += w * dv
            out[5] += w * du
            out[6] += w * chi2 * chi2


@njit(cache=True)
def _errors(v, u, variance, share, center, matrix, cov):
    """Fill the covariance of the first six sums."""
    det = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[0, 1]
    qvv, quu, qvu = matrix[1, 1] / det, matrix[0, 0] / det, -matrix[0, 1] / det
    term = np.empty(6)
    cov[:, :] = 0.0
    for j in range(v.shape[0]):
        dv, du = v[j] - center[0], u[j] - center[1]
        chi2 = qvv * dv * dv + quu * du * du + 2.0 * qvu * dv * du
        if chi2 < _REACH:
            term[0] = 1.0
            term[1], term[2], term[3] = du * du + dv * dv, du * du - dv * dv, 2.0 * du * dv
            term[4], term[5] = dv, du
            w = math.exp(-chi2) * share[j] * share[j] * variance[j]
            for a in range(6):
                for b in range(a + 1):
                    cov[a, b] += w * term[a] * term[b]
    for a in range(6):
        for b in range(a):
            cov[b, a] = cov[a, b]


def _pixels(bands: Sequence[Sequence[Observation]], size: float) -> _Pixels | None:
    """Return the pixels that are used; None where a band has none. Epochs count by the inverse variance of their flux.

    The variance is that under the first weight: it must not change on the way.
    """
    parts: list[tuple[F64, ...]] = []
    first = [0]
    power = []
    for epochs in bands:
        found, inverses = [], []
        for epoch in epochs:
            rows, cols = np.nonzero(np.asarray(epoch.weight) > 0.0)
            if not rows.size:
                continue
            v, u = epoch.wcs.sky(rows, cols)
            variance = 1.0 / np.asarray(epoch.weight, float)[rows, cols]
            inverses.append(1.0 / max(float(np.exp(-2.0 * (v * v + u * u) / size) @ variance), 1e-300))
            value = np.asarray(epoch.image, float)[rows, cols]
            found.append((v, u, value, variance, np.ones(v.size), np.full(v.size, epoch.wcs.area)))
        if not found:
            return None
        total = sum(inverses)
        for one, inverse in zip(found, inverses, strict=True):
            one[4][:] = inverse / total
        parts += found
        power.append(total)
        first.append(first[-1] + sum(one[0].size for one in found))
    if not parts:
        return None
    v, u, value, variance, share, area = (np.concatenate(column) for column in zip(*parts, strict=True))
    pixels = _Pixels(v, u, value, variance, share, area, np.array(first))
    for band, inverse in enumerate(power):
        pixels.share[first[band] : first[band + 1]] *= inverse / sum(power)
    return pixels


def adaptive_moments(
    bands: Sequence[Sequence[Observation]], size: float, options: AdaptiveOptions | None = None
) -> Moments:
    """Return the elliptical Gaussian weight that has the shape of the object under it (Bernstein & Jarvis 2002).

    Parameters
    ----------
    bands : sequence of sequences of Observation
        Epochs of each band, one object near the centre of their WCS; one weight serves all.
    size : float
        T of the first weight, arcsec^2.
    options : AdaptiveOptions, optional
        Limits.

    Returns
    -------
    Moments
        Centre, shape and size are those of the weight, PSF included; fluxes those of a Gaussian of its shape by its
        matched filter. Errors are those of a weight that follows the object: of e twice, of T four times those of
        the ratios of the sums; that of a flux holds what the shape adds, sqrt(2) times that at known shape.
    """
    limits = options or AdaptiveOptions()
    pixels = _pixels(bands, size)
    if pixels is None:
        return unknown(FitFlag.ZERO_DOF, len(bands))
    if not np.all(np.isfinite(pixels.value)):
        return unknown(FitFlag.LM_FUNC_NOTFINITE, len(bands))

    def failed(flag: FitFlag) -> Moments:
        return unknown(flag, len(bands))

    v, u, value, share = pixels.v, pixels.u, pixels.value, pixels.share
    center, sums = np.zeros(2), np.empty(NSUM + 1)
    matrix = 0.5 * size * np.eye(2)
    last = np.array([math.inf, math.inf, size])
    for _ in range(limits.maxiter):
        if not matrix[0, 0] * matrix[1, 1] - matrix[0, 1] ** 2 > 1e-200:
            return failed(FitFlag.LOW_DET)
        _sums(v, u, value, share, center, matrix, sums)
        if not sums[0] > 0.0:
            return failed(FitFlag.NONPOS_FLUX)
        # The centroid under a centred weight moves half-way; twice as far it converges at once for a Gaussian.
        center = center + 2.0 * sums[4:6] / sums[0]
        if not np.hypot(*center) < limits.shift:
            return failed(FitFlag.CEN_SHIFT)
        _sums(v, u, value, share, center, matrix, sums)
        if not sums[0] > 0.0:
            return failed(FitFlag.NONPOS_FLUX)
        trace = sums[1] / sums[0]
        if not trace > 0.0:
            return failed(FitFlag.NONPOS_SIZE)
        now = np.array([sums[2] / sums[1], sums[3] / sums[1], trace])
        if np.abs(now[:2] - last[:2]).max() < limits.etol and abs(now[2] / last[2] - 1.0) < limits.ttol:
            return _converged(pixels, center, matrix, sums)
        last = now
        # N = (M^-1 - W^-1)^-1 is the object itself, where it is a Gaussian.
        second = 0.5 * trace * np.array([[1.0 - now[0], now[1]], [now[1], 1.0 + now[0]]])
        try:
            matrix = np.linalg.inv(np.linalg.inv(second) - np.linalg.inv(matrix))
        except np.linalg.LinAlgError:
            return failed(FitFlag.LOW_DET)
        if not (matrix[0, 0] > 0.0 and matrix[1, 1] > 0.0):
            return failed(FitFlag.NONPOS_SIZE)
    return failed(FitFlag.MAXITER)


def _converged(pixels: _Pixels, center: F64, matrix: F64, sums: F64) -> Moments:
    size = float(matrix[0, 0] + matrix[1, 1])
    norm = 2.0 * math.pi * math.sqrt(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] ** 2)
    v, u, share = pixels.v, pixels.u, pixels.share
    nband = pixels.first.size - 1
    flux, own_flux, covs = np.empty(nband), np.empty(nband), np.empty((nband, NSUM, NSUM))
    own, filtered = np.empty(NSUM + 1), np.empty(NSUM + 1)
    for band in range(nband):
        part = slice(pixels.first[band], pixels.first[band + 1])
        _sums(v[part], u[part], pixels.value[part], share[part], center, matrix, own)
        # The square of the weight is the Gaussian of half its covariance.
        _sums(v[part], u[part], pixels.area[part] / norm, share[part], center, 0.5 * matrix, filtered)
        _errors(v[part], u[part], pixels.variance[part], share[part], center, matrix, covs[band])
        flux[band], own_flux[band] = own[0] / filtered[0], own[0]
    cov = covs.sum(axis=0)
    flux_err = _flux_errors(flux, own_flux, covs, float(sums[0]), matrix)
    e_slopes = np.zeros((2, NSUM))
    e_slopes[0, 2] = e_slopes[1, 3] = 1.0 / sums[1]
    e_slopes[:, 1] = -sums[2:4] / sums[1] ** 2
    t_slope = np.zeros(NSUM)
    t_slope[0], t_slope[1] = -sums[1] / sums[0] ** 2, 1.0 / sums[0]
    return Moments(
        flags=0,
        v=float(center[0]),
        u=float(center[1]),
        e1=float((matrix[1, 1] - matrix[0, 0]) / size),
        e2=float(2.0 * matrix[0, 1] / size),
        e_cov=4.0 * (e_slopes @ cov @ e_slopes.T),
        size=size,
        size_err=4.0 * math.sqrt(float(t_slope @ cov @ t_slope)),
        flux=flux,
        flux_err=flux_err,
        s2n=float(sums[0] / math.sqrt(cov[0, 0])),
        sums=sums[:NSUM].copy(),
        sums_cov=cov,
        rho4=float(sums[6] / sums[0]),
    )


def _flux_errors(flux: F64, own: F64, covs: F64, total: float, matrix: F64) -> F64:
    """Return errors of fluxes, with what the noise of the weight adds.

    The weight W takes a quarter of its own change out of a sum, so that d ln S of the sum is that at fixed weight and
    tr(W^-1 dM), with M the second moments that W follows, at a quarter.
    """
    inverse = np.linalg.inv(matrix)
    chi2 = np.zeros(NSUM)
    chi2[1:4] = 0.5 * (inverse[0, 0] + inverse[1, 1]), 0.5 * (inverse[1, 1] - inverse[0, 0]), inverse[0, 1]
    chi2[0] = -1.0
    out = np.empty(flux.size)
    for band in range(flux.size):
        variance = 0.0
        for other, cov in enumerate(covs):
            slope = chi2 / total
            if other == band:
                slope = slope + np.eye(NSUM)[0] / own[band]
            variance += float(slope @ cov @ slope)
        out[band] = abs(flux[band]) * math.sqrt(variance)
    return out
