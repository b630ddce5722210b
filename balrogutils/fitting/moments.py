"""Moments as sums over pixels, on any number of epochs and bands; weighted by a Gaussian; aperture fluxes (M 3.9, 4.6).

A moment is a sum of pixels times weights, so its covariance in uncorrelated noise is exact. Each epoch has moments of
its own; those of a band, and of all bands, are means weighted by the inverse variance of the flux moment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.errors import FitError
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.observation import Observation

__all__ = ["NSUM", "Kernels", "Moments", "aperture_flux", "gauss_kernels", "gauss_moments", "linear_moments", "unknown"]

F64 = NDArray[np.float64]
Kernels = Sequence[Sequence[F64]]
"""Weights [NSUM, nrow, ncol] of the pixels of each epoch, by band."""

NSUM = 6
FWHM_TO_SIGMA = 1.0 / (2.0 * math.sqrt(2.0 * math.log(2.0)))
# Weighted by the square of the flux weight: what pixels without a value may hold of it.
MAX_MISSING = 0.05


class Moments(NamedTuple):
    """Moments of one object.

    flags : `FitFlag` bits; v, u : centroid, arcsec; e1, e2, e_cov [2, 2] : distortion, |e| = (a^2 - b^2) / (a^2 + b^2);
    size, size_err : T, arcsec^2; flux, flux_err [nband] : image units; s2n : of the mean flux; sums [6], sums_cov
    [6, 6] : means over epochs and bands of the sums of 1, r^2, u^2 - v^2, 2 u v, v, u; rho4 : fourth moment, 2 for a
    Gaussian, of adaptive moments alone. Shape, size and centroid are not numbers where flags are set; the sums, and
    the fluxes, are linear in the pixels and have no way to fail but without any.
    """

    flags: int
    v: float
    u: float
    e1: float
    e2: float
    e_cov: F64
    size: float
    size_err: float
    flux: F64
    flux_err: F64
    s2n: float
    sums: F64
    sums_cov: F64
    rho4: float = math.nan


def unknown(flags: int, nband: int) -> Moments:
    """Return moments that could not be measured at all."""
    nan, bands = math.nan, np.full(nband, math.nan)
    pair, sums = np.full((2, 2), nan), np.full(NSUM, nan)
    return Moments(
        int(flags), nan, nan, nan, nan, pair, nan, nan, bands, bands, nan, sums, np.full((NSUM, NSUM), math.nan)
    )


def _ratio_cov(sums: F64, cov: F64, above: Sequence[int], below: int) -> F64:
    """Return the covariance of ratios of sums to one of them, to first order."""
    slopes = np.zeros((len(above), sums.size))
    for k, index in enumerate(above):
        slopes[k, index] = 1.0 / sums[below]
        slopes[k, below] = -sums[index] / sums[below] ** 2
    return np.asarray(slopes @ cov @ slopes.T)


def _epoch_sums(epoch: Observation, kernel: F64) -> tuple[F64, F64, float] | None:
    """Return sums, covariance, and the part of the flux weight that is missing; None without a pixel."""
    weight = np.asarray(epoch.weight, float).ravel()
    used = weight > 0.0
    if not used.any():
        return None
    flat = kernel.reshape(kernel.shape[0], -1)
    power = float(flat[0] @ flat[0])
    if used.all():
        values, variance, missing = np.asarray(epoch.image, float).ravel(), 1.0 / weight, 0.0
    else:
        missing = float((flat[0, ~used] ** 2).sum()) / power
        flat, variance = flat[:, used], 1.0 / weight[used]
        values = np.asarray(epoch.image, float).ravel()[used]
    return flat @ values, (flat * variance) @ flat.T, missing


def linear_moments(
    bands: Sequence[Sequence[Observation]], kernels: Kernels, *, max_missing: float = MAX_MISSING
) -> Moments:
    """Return the moments of one object by the weights of its pixels.

    Parameters
    ----------
    bands : sequence of sequences of Observation
        Epochs of each band. Pixels of weight 0 are left out.
    kernels : sequence of sequences of ndarray, shape (6, nrow, ncol)
        Weights for the sums of 1, r^2, u^2 - v^2, 2 u v, v, u.
    max_missing : float
        An epoch whose pixels of weight 0 hold a larger part of the square of the flux weight is not used.

    Returns
    -------
    Moments
        ZERO_DOF where a band has no usable epoch; NONPOS_FLUX, NONPOS_SIZE where shape or size has no meaning;
        LM_FUNC_NOTFINITE where a used pixel is not finite.
    """
    sums, covs = [], []
    for epochs, own in zip(bands, kernels, strict=True):
        total, cov, weights = np.zeros(NSUM), np.zeros((NSUM, NSUM)), 0.0
        for epoch, kernel in zip(epochs, own, strict=True):
            found = _epoch_sums(epoch, kernel)
            if found is None or found[2] > max_missing:
                continue
            inverse = 1.0 / found[1][0, 0]
            total += inverse * found[0]
            cov += inverse**2 * found[1]
            weights += inverse
        if not weights > 0.0:
            return unknown(FitFlag.ZERO_DOF, len(bands))
        sums.append(total / weights)
        covs.append(cov / weights**2)
    if not sums:
        return unknown(FitFlag.ZERO_DOF, 0)
    by_band, cov_by_band = np.array(sums), np.array(covs)
    if not (np.all(np.isfinite(by_band)) and np.all(np.isfinite(cov_by_band))):
        return unknown(FitFlag.LM_FUNC_NOTFINITE, len(bands))
    inverse = 1.0 / cov_by_band[:, 0, 0]
    share = inverse / inverse.sum()
    mean, mean_cov = share @ by_band, np.tensordot(share**2, cov_by_band, 1)
    flux, flux_err = by_band[:, 0], np.sqrt(cov_by_band[:, 0, 0])
    s2n = float(mean[0] / math.sqrt(mean_cov[0, 0]))
    blank = unknown(0, len(bands))._replace(flux=flux, flux_err=flux_err, s2n=s2n, sums=mean, sums_cov=mean_cov)
    if not mean[0] > 0.0:
        return blank._replace(flags=int(FitFlag.NONPOS_FLUX))
    if not mean[1] > 0.0:
        return blank._replace(flags=int(FitFlag.NONPOS_SIZE))
    size_err = math.sqrt(_ratio_cov(mean, mean_cov, [1], 0)[0, 0])
    return blank._replace(
        v=float(mean[4] / mean[0]),
        u=float(mean[5] / mean[0]),
        e1=float(mean[2] / mean[1]),
        e2=float(mean[3] / mean[1]),
        e_cov=_ratio_cov(mean, mean_cov, [2, 3], 1),
        size=float(mean[1] / mean[0]),
        size_err=size_err,
    )


def gauss_kernels(
    bands: Sequence[Sequence[Observation]], fwhm: float, center: tuple[float, float] = (0.0, 0.0)
) -> list[list[F64]]:
    """Return the weights of moments under a round Gaussian of peak 1.

    Parameters
    ----------
    bands : sequence of sequences of Observation
        Epochs of each band.
    fwhm : float
        Of the Gaussian, arcsec.
    center : (float, float)
        Where it stands and the moments count from: (v, u) in arcsec from the centre of each WCS.

    Raises
    ------
    FitError
        When the width is not positive.
    """
    if not (fwhm > 0.0 and math.isfinite(fwhm)):
        raise FitError(f"the weight has no width: FWHM {fwhm}", key="fwhm", remedy="1.2 arcsec is customary")
    variance = (fwhm * FWHM_TO_SIGMA) ** 2
    return [[_gauss_kernel(epoch, variance, center) for epoch in epochs] for epochs in bands]


def _gauss_kernel(epoch: Observation, variance: float, center: tuple[float, float]) -> F64:
    nrow, ncol = epoch.image.shape
    v, u = epoch.wcs.sky(np.arange(nrow)[:, None], np.arange(ncol)[None, :])
    v, u = v - center[0], u - center[1]
    vv, uu = v * v, u * u
    weight = np.exp(-0.5 / variance * (vv + uu))
    return np.array([weight, (vv + uu) * weight, (uu - vv) * weight, 2.0 * u * v * weight, v * weight, u * weight])


def gauss_moments(
    bands: Sequence[Sequence[Observation]], fwhm: float, center: tuple[float, float] = (0.0, 0.0)
) -> Moments:
    """Return moments weighted by a round Gaussian; parameters as in `gauss_kernels`.

    Notes
    -----
    The moments are those of object times weight, PSF included: for a Gaussian 1 / T = 1 / T_object + 1 / T_weight.
    """
    return linear_moments(bands, gauss_kernels(bands, fwhm, center), max_missing=1.0)


def aperture_flux(mixture: ArrayLike, fwhm: float) -> float:
    """Return the flux of a mixture, concentric and before the PSF, under a round Gaussian of peak 1 (M 3.9).

    Parameters
    ----------
    mixture : array_like, shape (n, 6)
        Mixture; centres are taken as they are.
    fwhm : float
        Of the aperture, arcsec; 2.5 in the DES Y6 catalogues.
    """
    variance = (fwhm * FWHM_TO_SIGMA) ** 2
    total = 0.0
    for p, v, u, irr, irc, icc in np.asarray(mixture, float):
        rr, cc = irr + variance, icc + variance
        det = rr * cc - irc * irc
        chi2 = (cc * v * v + rr * u * u - 2.0 * irc * v * u) / det
        total += p * variance / math.sqrt(det) * math.exp(-0.5 * chi2)
    return total
