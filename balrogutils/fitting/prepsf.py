"""Moments of an object before the PSF: ksigma and pgauss (M 4.9).

A kernel that is compact in Fourier space is multiplied with the transform of the image over that of the PSF. What
comes out are the moments of the object itself under the kernel, whatever the PSF: epochs and bands of different PSFs
measure the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import FitError, did_you_mean
from balrogutils.fitting.fourier import fast_size, frequencies, pixel_position, pixel_weights, psf_transform
from balrogutils.fitting.moments import FWHM_TO_SIGMA, MAX_MISSING, Moments, linear_moments
from balrogutils.fitting.observation import Observation

__all__ = ["KERNELS", "prepsf_kernels", "prepsf_moments"]

F64 = NDArray[np.float64]
C128 = NDArray[np.complex128]

# How far the kernel's peak may be from 1 when its transform is summed on the grid.
_PEAK = 1e-5
# Width of the taper of the stamp's edges, pixels.
_TAPER = 1.5


def _ksigma(kv: F64, ku: F64, sigma: float) -> C128:
    """Return w(k) of the moments 1, r^2, u^2 - v^2, 2 u v, v, u under the transform of (1 - k^2 s^2 / 8)^4, peak 1."""
    kk = kv * kv + ku * ku
    q = np.maximum(1.0 - 0.125 * sigma * sigma * kk, 0.0)
    c = 2.5 * math.pi * sigma * sigma
    a, b = -c * sigma**2 * q**3, c * 0.75 * sigma**4 * q * q
    return np.array(
        [c * q**4, -2.0 * a - kk * b, -(ku * ku - kv * kv) * b, -2.0 * ku * kv * b, -1j * kv * a, -1j * ku * a]
    )


def _pgauss(kv: F64, ku: F64, sigma: float) -> C128:
    """Return the same for a Gaussian W."""
    kk, s2 = kv * kv + ku * ku, sigma * sigma
    f = 2.0 * math.pi * s2 * np.exp(-0.5 * s2 * kk)
    s4 = s2 * s2
    even = [f, (2.0 * s2 - s4 * kk) * f, s4 * (kv * kv - ku * ku) * f, -2.0 * s4 * ku * kv * f]
    return np.array([*even, 1j * s2 * kv * f, 1j * s2 * ku * f])


KERNELS: dict[str, Callable[[F64, F64, float], C128]] = {"ksigma": _ksigma, "pgauss": _pgauss}


def _taper(n: int) -> F64:
    """Return 1 inside and the integral of a triweight kernel over the 9 pixels at each end (M 4.9)."""
    place = np.arange(n)
    inside = np.minimum(place, n - 1 - place) / _TAPER
    y = np.minimum(np.maximum(inside - 3.0, -3.0), 3.0) / 3.0
    return np.asarray(0.5 + 35.0 / 32.0 * (y - y**3 + 0.6 * y**5 - y**7 / 7.0))


def _kernel(epoch: Observation, name: str, sigma: float, smooth: float, center: tuple[float, float], pad: float) -> F64:
    nrow, ncol = epoch.image.shape
    n = fast_size(pad * max(nrow, ncol))
    kv, ku = frequencies(epoch.wcs, n)
    transforms = KERNELS[name](kv, ku, sigma) / epoch.wcs.area
    # Columns but the first, and the last of an even transform, stand for two frequencies each.
    twice = np.full(n // 2 + 1, 2.0)
    twice[0] = 1.0
    if n % 2 == 0:
        twice[-1] = 1.0
    peak = float((transforms[0].real * twice).sum()) / n**2
    if not abs(peak - 1.0) < _PEAK:
        raise FitError(
            f"a transform of {n} pixels does not hold the kernel: its peak is {peak:.6f} and not 1",
            key="fwhm",
            remedy="use larger stamps or another FWHM",
        )
    if smooth > 0.0:
        transforms = transforms * np.exp(-0.5 * smooth**2 * (kv * kv + ku * ku))
    psf = psf_transform(epoch.psf, epoch.wcs, n)
    weights = pixel_weights(transforms, psf, *pixel_position(epoch.wcs, *center), (nrow, ncol))
    return np.asarray(weights * _taper(nrow)[:, None] * _taper(ncol)[None, :])


def prepsf_kernels(
    bands: Sequence[Sequence[Observation]],
    name: str,
    fwhm: float,
    *,
    smooth_fwhm: float = 0.0,
    center: tuple[float, float] = (0.0, 0.0),
    pad: float = 4.0,
) -> list[list[F64]]:
    """Return the weights of pixels that give moments before the PSF.

    Parameters
    ----------
    bands : sequence of sequences of Observation
        Epochs of each band; without a PSF the pixel alone is taken out.
    name : str
        ``ksigma`` or ``pgauss``.
    fwhm : float
        Of the kernel, arcsec; it must be clearly larger than that of the PSF.
    smooth_fwhm : float
        A Gaussian that the object is smoothed with besides, arcsec: less noise in the shape.
    center : (float, float)
        Where the kernel stands: (v, u) in arcsec from the centre of each WCS.
    pad : float
        Size of the transform in stamps.

    Returns
    -------
    list of lists of ndarray, shape (6, nrow, ncol)
        For `linear_moments`. They depend on WCS and PSF alone, not on the pixels.

    Raises
    ------
    FitError
        For a kernel of another name, or one that the transform does not hold.
    """
    if name not in KERNELS:
        raise FitError(f"there is no kernel {name!r}", key="kernel", remedy=did_you_mean(name, KERNELS))
    if not (fwhm > 0.0 and math.isfinite(fwhm)):
        raise FitError(f"the kernel has no width: FWHM {fwhm}", key="fwhm", remedy="use one above that of the PSF")
    sigma, smooth = fwhm * FWHM_TO_SIGMA, smooth_fwhm * FWHM_TO_SIGMA
    return [[_kernel(epoch, name, sigma, smooth, center, pad) for epoch in epochs] for epochs in bands]


def prepsf_moments(
    bands: Sequence[Sequence[Observation]],
    name: str,
    fwhm: float,
    *,
    smooth_fwhm: float = 0.0,
    center: tuple[float, float] = (0.0, 0.0),
    max_missing: float = MAX_MISSING,
) -> Moments:
    """Return the moments of one object before the PSF; parameters as in `prepsf_kernels` and `linear_moments`."""
    kernels = prepsf_kernels(bands, name, fwhm, smooth_fwhm=smooth_fwhm, center=center)
    return linear_moments(bands, kernels, max_missing=max_missing)
