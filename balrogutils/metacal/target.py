"""What the PSF becomes in metacal images: a round Gaussian, or the PSF itself, larger (M 6.1)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2

from balrogutils.compiled import njit
from balrogutils.errors import ConfigError, FitError, did_you_mean
from balrogutils.fitting.fourier import fast_size, frequencies, psf_transform
from balrogutils.fitting.observation import LocalWCS, PSFStamp
from balrogutils.fitting.psffit import PSFOptions, fit_psf
from balrogutils.metacal.shears import dilation, shear_matrix

__all__ = ["TARGETS", "dilated_stamp", "dilated_transform", "gaussian_sigma", "measured_center"]

F64 = NDArray[np.float64]
C128 = NDArray[np.complex128]

TARGETS = ("gauss", "fitgauss", "azgauss", "dilate")
# Where the PSF's transform has these parts of its value at 0 that of the target has those (M 6.1).
_GAUSS = (1e-2, 3e-3)
_AZGAUSS = (3e-2, 9e-3)
_FIT_DILATION = 1.1
_FAR = 5.0


@njit(cache=True)
def _centroid(image, row, col, sigma):
    """Return the centroid under a Gaussian that follows it; not a number where there is none near the start."""
    reach = 5.0 * sigma
    start_row, start_col = row, col
    for _ in range(100):
        total, down, along = 0.0, 0.0, 0.0
        for i in range(max(int(row - reach), 0), min(int(row + reach) + 2, image.shape[0])):
            for j in range(max(int(col - reach), 0), min(int(col + reach) + 2, image.shape[1])):
                y, x = i - row, j - col
                w = math.exp(-0.5 * (x * x + y * y) / (sigma * sigma)) * image[i, j]
                total += w
                down += w * y
                along += w * x
        if not total > 0.0:
            return math.nan, math.nan
        down, along = 2.0 * down / total, 2.0 * along / total
        row, col = row + down, col + along
        if not math.hypot(row - start_row, col - start_col) < _FAR:
            return math.nan, math.nan
        if abs(down) + abs(along) < 1e-8:
            return row, col
    return row, col


def measured_center(psf: PSFStamp) -> PSFStamp:
    """Return a PSF stamp whose centre is the centroid of its core; as it is where it has none near its centre.

    Notes
    -----
    Astrometry refers to centroids of stars, so this is where an object is that is said to be at the centre. A stamp
    drawn half a pixel off its nominal centre would move the object by as much in the deconvolved image, in each
    epoch differently.
    """
    image = np.ascontiguousarray(psf.image, np.float64)
    area = np.count_nonzero(image > 0.5 * image.max())
    row, col = _centroid(image, float(psf.row), float(psf.col), math.sqrt(area / (2.0 * math.pi * math.log(2.0))))
    return psf if math.isnan(row) else PSFStamp(psf.image, row, col)


def _crossing(values: F64, kk: F64, level: float) -> float:
    """Return the least k^2 where values fall below a level, linear between neighbours on the grid."""
    found = []
    for axis in (0, 1):
        one = [slice(None), slice(None)]
        two = [slice(None), slice(None)]
        one[axis], two[axis] = slice(None, -1), slice(1, None)
        a, b = values[tuple(one)], values[tuple(two)]
        ka, kb = np.sqrt(kk[tuple(one)]), np.sqrt(kk[tuple(two)])
        cross = (a > level) != (b > level)
        share = (a[cross] - level) / (a[cross] - b[cross])
        found.append(ka[cross] + share * (kb[cross] - ka[cross]))
    both = np.concatenate(found)
    return float(both.min()) ** 2 if both.size else math.nan


def _ring_crossing(values: F64, kk: F64, level: float, width: float) -> float:
    """Return k^2 where the mean over rings falls below a level, its logarithm linear between rings."""
    rings = np.rint(np.sqrt(kk) / width).astype(int).ravel()
    counts = np.bincount(rings)
    good = counts > 0
    mean = np.bincount(rings, values.ravel())[good] / counts[good]
    k = np.bincount(rings, np.sqrt(kk).ravel())[good] / counts[good]
    below = np.flatnonzero(mean < level)
    if not below.size or below[0] == 0:
        return math.nan
    at = int(below[0])
    a, b = math.log(mean[at - 1]), math.log(mean[at])
    return float(k[at - 1] + (math.log(level) - a) / (b - a) * (k[at] - k[at - 1])) ** 2


def gaussian_sigma(psf: PSFStamp, wcs: LocalWCS, name: str, step: float) -> float:
    """Return sigma, arcsec, of the round Gaussian that a PSF becomes, dilation included.

    Parameters
    ----------
    psf : PSFStamp
        Usable PSF stamp.
    wcs : LocalWCS
        Derivatives at the object.
    name : str
        ``gauss``: small where the PSF's transform first falls below 1e-2. ``azgauss``: the same by the mean over
        rings, with other levels. ``fitgauss``: a Gaussian fit to the PSF, made round at its longer axis and up to
        1.1 times larger.
    step : float
        Metacal shear.

    Raises
    ------
    ConfigError
        For a target of another name.
    FitError
        When the PSF has no such transform or fit: a single pixel, a pedestal.
    """
    if name not in TARGETS or name == "dilate":
        raise ConfigError(f"{name!r} is no Gaussian target", key="psf", remedy=did_you_mean(name, TARGETS))
    if name == "fitgauss":
        fit = fit_psf(psf, wcs, PSFOptions("coellip", 1))
        if fit.flags:
            raise FitError(f"the PSF has no Gaussian (flags {fit.flags})")
        gg = fit.g1**2 + fit.g2**2
        # sqrt(lambda_max / (T / 2)) with lambda_max = T / 2 (1 + |e|).
        longer = math.sqrt(1.0 + 2.0 * math.sqrt(gg) / (1.0 + gg))
        grown = min(1.0 + 2.0 * (longer - 1.0), _FIT_DILATION)
        return math.sqrt(0.5 * fit.size) * grown * dilation(step)
    n = fast_size(3.0 * max(psf.image.shape))
    kv, ku = frequencies(wcs, n)
    kk = kv * kv + ku * ku
    values = psf_transform(psf, wcs, n)
    if name == "gauss":
        low, goal = _GAUSS
        # Rows in order, so that neighbours on the grid are neighbours in k.
        square = _crossing(np.fft.fftshift(values.real, axes=0), np.fft.fftshift(kk, axes=0), low)
    else:
        low, goal = _AZGAUSS
        square = _ring_crossing(np.abs(values), kk, low, 2.0 * math.pi / (n * wcs.scale))
    if not square > 0.0:
        raise FitError("the PSF does not fall off in Fourier space, so no target can be found for it")
    return math.sqrt(-2.0 * math.log(goal) / square) * dilation(step)


def _transform_at(psf: PSFStamp, x: F64, y: F64, matrix: F64) -> C128:
    """Return the transform of a PSF about its centre, 1 at 0, at the frequencies (row, col) = matrix (x, y).

    Where columns depend on y alone it is a product of two matrices with phases in between, else a sum for each.
    """
    image = np.asarray(psf.image, float)
    image = image / image.sum()
    rows, cols = np.arange(image.shape[0]) - psf.row, np.arange(image.shape[1]) - psf.col
    if abs(matrix[1, 0]) < 1e-15:
        mixed = image @ np.exp(-1j * matrix[1, 1] * np.outer(cols, y))
        mixed *= np.exp(-1j * matrix[0, 1] * np.outer(rows, y))
        return np.asarray(np.exp(-1j * matrix[0, 0] * np.outer(x, rows)) @ mixed)
    k_row, k_col = _frequencies_of(x, y, matrix)
    down = np.exp(-1j * np.multiply.outer(k_row.ravel(), rows))
    along = np.exp(-1j * np.multiply.outer(k_col.ravel(), cols))
    return np.asarray(((down @ image) * along).sum(axis=1).reshape(k_row.shape))


def _frequencies_of(x: F64, y: F64, matrix: F64) -> tuple[F64, F64]:
    return (
        matrix[0, 0] * x[:, None] + matrix[0, 1] * y[None, :],
        matrix[1, 0] * x[:, None] + matrix[1, 1] * y[None, :],
    )


def dilated_transform(
    psf: PSFStamp, wcs: LocalWCS, x: F64, y: F64, outward: F64, shear: tuple[float, float], step: float
) -> C128:
    """Return the transform of the target ``dilate``: the PSF without its pixel, sheared, made larger, and with it.

    Parameters
    ----------
    psf, wcs
        PSF stamp, and derivatives at the object.
    x, y : ndarray, shapes (m,), (n,)
        Lines of a lattice.
    outward : ndarray, shape (2, 2)
        From the lattice to frequencies (row, col), rad per pixel.
    shear : (float, float)
        Of the PSF, on the sky.
    step : float
        Metacal shear, which sets the dilation.

    Returns
    -------
    ndarray of complex, shape (m, n)
        0 where it would take frequencies that the stamp does not have.
    """
    jacobian = np.array([[wcs.dvdrow, wcs.dvdcol], [wcs.dudrow, wcs.dudcol]])
    inward = dilation(step) * (np.linalg.inv(jacobian) @ shear_matrix(*shear) @ jacobian).T @ outward
    rows, cols = _frequencies_of(x, y, outward)
    in_rows, in_cols = _frequencies_of(x, y, inward)
    inside = (np.abs(in_rows) < math.pi) & (np.abs(in_cols) < math.pi)
    pixel = np.sinc(rows / (2.0 * math.pi)) * np.sinc(cols / (2.0 * math.pi))
    in_pixel = np.sinc(in_rows / (2.0 * math.pi)) * np.sinc(in_cols / (2.0 * math.pi))
    return np.where(inside, _transform_at(psf, x, y, inward) * pixel / np.where(inside, in_pixel, 1.0), 0.0)


def dilated_stamp(psf: PSFStamp, wcs: LocalWCS, shear: tuple[float, float], step: float) -> PSFStamp:
    """Return the stamp of the target ``dilate``, centred in the middle."""
    side = max(psf.image.shape)
    n, middle = fast_size(2.0 * side), 0.5 * (side - 1)
    x = np.asarray(2.0 * math.pi * np.fft.fftfreq(n), np.float64)
    y = np.asarray(2.0 * math.pi * np.fft.rfftfreq(n), np.float64)
    values = dilated_transform(psf, wcs, x, y, np.eye(2), shear, step)
    values *= np.exp(-1j * middle * (x[:, None] + y[None, :]))
    return PSFStamp(irfft2(values, (n, n))[:side, :side], middle, middle)
