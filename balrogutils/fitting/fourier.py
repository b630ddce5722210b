"""Stamps in Fourier space: frequencies, transforms of PSF stamps, and linear functions of k as weights of pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2

from balrogutils.fitting.observation import LocalWCS, PSFStamp

__all__ = ["FLOOR", "fast_size", "frequencies", "pixel_position", "pixel_weights", "psf_transform"]

F64 = NDArray[np.float64]
C128 = NDArray[np.complex128]

# Below this part of its value at k = 0 a PSF is not divided by (M 4.9).
FLOOR = 1e-5


def fast_size(least: float) -> int:
    """Return a length of at least `least` pixels that transforms fast."""
    return int(next_fast_len(int(np.ceil(least)), real=True))


def pixel_position(wcs: LocalWCS, v: float, u: float) -> tuple[float, float]:
    """Return (row, col), zero-offset, of a position (v, u) in arcsec."""
    det = wcs.determinant
    row = wcs.row0 + (wcs.dudcol * v - wcs.dvdcol * u) / det
    return row, wcs.col0 + (-wcs.dudrow * v + wcs.dvdrow * u) / det


def frequencies(wcs: LocalWCS, n: int) -> tuple[F64, F64]:
    """Return (k_v, k_u) in rad / arcsec of an n x n transform, its columns from 0 to n // 2."""
    row = 2.0 * np.pi * np.fft.fftfreq(n)[:, None]
    col = 2.0 * np.pi * np.fft.rfftfreq(n)[None, :]
    det = wcs.determinant
    return (wcs.dudcol * row - wcs.dudrow * col) / det, (-wcs.dvdcol * row + wcs.dvdrow * col) / det


def _phase(n: int, row: float, col: float) -> C128:
    """Return exp(-i q x) of one pixel position."""
    down = np.exp(-2j * np.pi * np.fft.fftfreq(n) * row)
    along = np.exp(-2j * np.pi * np.fft.rfftfreq(n) * col)
    return np.asarray(down[:, None] * along[None, :])


def psf_transform(psf: PSFStamp | None, wcs: LocalWCS, n: int) -> C128:
    """Return the transform of a PSF about its centre, 1 at k = 0; without a PSF that of the pixel.

    Its modulus is at least `FLOOR`.
    """
    if psf is None:
        row, col = np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :]
        out = np.asarray(np.sinc(row) * np.sinc(col) + 0j)
    else:
        image = np.asarray(psf.image, float)
        out = rfft2(image / image.sum(), (n, n)) / _phase(n, psf.row, psf.col)
    size = np.abs(out)
    low = size < FLOOR
    out[low] = np.where(size[low] > 0.0, out[low] * (FLOOR / np.maximum(size[low], 1e-300)), FLOOR)
    return out


def pixel_weights(weights: C128 | F64, psf: C128, row: float, col: float, shape: tuple[int, int]) -> F64:
    """Return the pixel weights h of integrals over k: sum_x h[x] I[x] = sum_k w(k) I(k) / P(k) / n^2.

    Parameters
    ----------
    weights : ndarray, shape (m, n, n // 2 + 1)
        w of each integral, with w(-k) the conjugate of w(k).
    psf : ndarray of complex, shape (n, n // 2 + 1)
        P.
    row, col : float
        Where x = 0 is, in pixels.
    shape : (int, int)
        Of the stamp.

    Returns
    -------
    ndarray, shape (m, nrow, ncol)
        Since the integrals are sums over pixels, their covariance in any uncorrelated noise is exact.
    """
    n = psf.shape[0]
    return np.asarray(irfft2(np.conj(weights / psf) * _phase(n, row, col), (n, n))[:, : shape[0], : shape[1]])
