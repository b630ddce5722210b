"""Compensated Fourier moments of one object with their covariance, by band (Bernstein & Armstrong 2014).

With I and T the transforms of image and PSF on the sky, k in rad / arcsec,

    M = int d^2k  I(k) / T(k)  W(k^2)  F,        W = (1 - k^2 s^2 / 2 n)^n  up to k = sqrt(2 n) / s,

F = 1, k^2, k_u^2 - k_v^2, 2 k_u k_v, k^4 for the even moments M_F, M_R, M_1, M_2, M_C, and i k_u, i k_v for the odd
ones M_X, M_Y (Bernstein et al. 2016, with the weight "k sigma"). The origin is where the odd moments of all bands
together vanish. The moments are linear in the pixels: their covariance is exact, and does not depend on the object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft2

from balrogutils.errors import ConfigError
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.fourier import fast_size, frequencies, pixel_position, pixel_weights, psf_transform
from balrogutils.fitting.observation import Observation
from balrogutils.fitting.psffit import psf_is_usable

__all__ = ["EVEN", "ODD", "BFDMoments", "BFDOptions", "bfd_moments"]

F64 = NDArray[np.float64]
C128 = NDArray[np.complex128]

EVEN = ("MF", "MR", "M1", "M2", "MC")
ODD = ("MX", "MY")

_STEPS = 30
_MAX_SHIFT = 3.0


@dataclass(frozen=True)
class BFDOptions:
    """Settings, named as those of the DES runs (P 6.5).

    Parameters
    ----------
    wt_n : int
        Exponent of the weight.
    wt_sigma : float
        Its width s, arcsec.
    pad_factor : float
        Size of the transform in stamps.
    bad_pixel_threshold : float
        A stamp with a larger part of its pixels without weight is not used.
    band_weights : tuple of float
        What each band counts in the moments of all together, in order; their sum is made 1. Empty: all alike.

    Raises
    ------
    ConfigError
        For values that mean nothing.
    """

    wt_n: int = 4
    wt_sigma: float = 1.0
    pad_factor: float = 2.0
    bad_pixel_threshold: float = 0.05
    band_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for key, good, remedy in (
            ("wt_n", self.wt_n >= 1, "use 4"),
            ("wt_sigma", self.wt_sigma > 0.0 and math.isfinite(self.wt_sigma), "use 1.0"),
            ("pad_factor", 1.0 <= self.pad_factor <= 16.0, "use 2"),
            ("bad_pixel_threshold", 0.0 <= self.bad_pixel_threshold <= 1.0, "use 0.05"),
            (
                "band_weights",
                not self.band_weights or (min(self.band_weights) >= 0.0 < sum(self.band_weights) < math.inf),
                "give a weight of 0 or more for each band",
            ),
        ):
            if not good:
                raise ConfigError(f"{key} cannot be {getattr(self, key)}", key=key, remedy=remedy)


class BFDMoments(NamedTuple):
    """BFD moments of one object.

    flags : `FitFlag` bits: ZERO_DOF where a band that counts has no stamp, LM_FUNC_NOTFINITE where a pixel is not
    finite, CEN_SHIFT where there is no centroid; even [nband, 5], odd [nband, 2] in the orders of `EVEN` and `ODD`
    with their covariances : of each band; all_even, all_odd : of all bands by their weights; v, u : the origin, arcsec
    from the centre of the WCS; nimage [nband] : stamps used. Not numbers where there is no stamp, and all of them
    where there are flags.
    """

    flags: int
    even: F64
    even_cov: F64
    odd: F64
    odd_cov: F64
    all_even: F64
    all_even_cov: F64
    all_odd: F64
    all_odd_cov: F64
    v: float
    u: float
    nimage: NDArray[np.int64]


class _Stamp(NamedTuple):
    """One usable stamp: pixels, variances; transform of the PSF; k and W on the grid; modes [3, m] : k_v, k_u and
    I / T W about the WCS centre, where W is not 0; precision : inverse variance of M_F."""

    epoch: Observation
    image: F64
    variance: F64
    psf: C128
    kv: F64
    ku: F64
    weight: F64
    modes: C128
    precision: float


def _nothing(flags: int, nband: int, nimage: NDArray[np.int64]) -> BFDMoments:
    even, odd = np.full((nband, 5), math.nan), np.full((nband, 2), math.nan)
    even_cov, odd_cov = np.full((nband, 5, 5), math.nan), np.full((nband, 2, 2), math.nan)
    means = (np.full(5, math.nan), np.full((5, 5), math.nan), np.full(2, math.nan), np.full((2, 2), math.nan))
    return BFDMoments(int(flags), even, even_cov, odd, odd_cov, *means, math.nan, math.nan, nimage)


def _window(kk: F64, options: BFDOptions) -> F64:
    return np.asarray(np.maximum(1.0 - kk * options.wt_sigma**2 / (2.0 * options.wt_n), 0.0) ** options.wt_n)


def _terms(kv: F64, ku: F64) -> C128:
    """Return F of all seven moments, the even ones first."""
    kk = kv * kv + ku * ku
    return np.array([np.ones_like(kk), kk, ku * ku - kv * kv, 2.0 * ku * kv, kk * kk, 1j * ku, 1j * kv])


def _stamp(epoch: Observation, options: BFDOptions) -> _Stamp | None:
    """Return what a stamp gives; None where it is not used."""
    weight = np.asarray(epoch.weight, float)
    used = weight > 0.0
    bad = 1.0 - np.count_nonzero(used) / used.size
    if not used.any() or bad > options.bad_pixel_threshold or not psf_is_usable(epoch.psf) or not epoch.wcs.usable:
        return None
    variance = np.full(weight.shape, float(np.median(1.0 / weight[used])))
    variance[used] = 1.0 / weight[used]
    image = np.asarray(epoch.image, float)
    n = fast_size(options.pad_factor * max(image.shape))
    kv, ku = frequencies(epoch.wcs, n)
    # Columns but the first, and the last of an even transform, stand for two frequencies each.
    twice = np.full(n // 2 + 1, 2.0)
    twice[0] = 1.0
    if n % 2 == 0:
        twice[-1] = 1.0
    area = (2.0 * math.pi / n) ** 2 / epoch.wcs.area
    window = _window(kv * kv + ku * ku, options) * area
    inside = window > 0.0
    psf = psf_transform(epoch.psf, epoch.wcs, n)
    ratio = (rfft2(image, (n, n)) / psf * window * twice)[inside]
    row, col = epoch.wcs.row0, epoch.wcs.col0
    rows = 2.0 * math.pi * np.broadcast_to(np.fft.fftfreq(n)[:, None], inside.shape)[inside]
    cols = 2.0 * math.pi * np.broadcast_to(np.fft.rfftfreq(n)[None, :], inside.shape)[inside]
    ratio = ratio * np.exp(1j * (rows * row + cols * col))
    noise = float(variance.mean()) * n**2 * float((twice * (window / np.abs(psf)) ** 2).sum())
    return _Stamp(epoch, image, variance, psf, kv, ku, window, np.array([kv[inside], ku[inside], ratio]), 1.0 / noise)


def _epoch_weights(own: Sequence[_Stamp]) -> F64:
    precision = np.array([stamp.precision for stamp in own])
    return np.asarray(precision / precision.sum())


def _centroid(stamps: Sequence[Sequence[_Stamp]], shares: F64) -> tuple[float, float] | None:
    """Return where the odd moments of all bands together vanish; None where Newton's steps do not find it."""
    parts = [
        (stamp.modes[0].real, stamp.modes[1].real, share * weight * stamp.modes[2])
        for own, share in zip(stamps, shares, strict=True)
        for stamp, weight in zip(own, _epoch_weights(own), strict=True)
        if share > 0.0
    ]
    kv, ku, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    place = np.zeros(2)
    for _ in range(_STEPS):
        moved = values * np.exp(1j * (kv * place[0] + ku * place[1]))
        odd = -np.array([(moved.imag * kv).sum(), (moved.imag * ku).sum()])
        cross = (moved.real * kv * ku).sum()
        slope = -np.array([[(moved.real * kv * kv).sum(), cross], [cross, (moved.real * ku * ku).sum()]])
        if not (slope[0, 0] < 0.0 and np.linalg.det(slope) > 0.0):
            return None
        step = -np.linalg.solve(slope, odd)
        place = place + step
        if not math.hypot(*place) < _MAX_SHIFT:
            return None
        if math.hypot(*step) < 1e-9:
            return float(place[0]), float(place[1])
    return None


def _moments(stamp: _Stamp, center: tuple[float, float]) -> tuple[F64, F64]:
    """Return the seven moments of a stamp about a position, and their covariance."""
    row, col = pixel_position(stamp.epoch.wcs, *center)
    terms = _terms(stamp.kv, stamp.ku) * stamp.weight
    n = stamp.psf.shape[0]
    weights = pixel_weights(terms, stamp.psf, row, col, (stamp.image.shape[0], stamp.image.shape[1]))
    flat = weights.reshape(7, -1) * n**2
    return flat @ stamp.image.ravel(), (flat * stamp.variance.ravel()) @ flat.T


def bfd_moments(
    bands: Sequence[Sequence[Observation]], options: BFDOptions, *, center: tuple[float, float] | None = None
) -> BFDMoments:
    """Return the BFD moments of one object.

    Parameters
    ----------
    bands : sequence of sequences of Observation
        Epochs of each band, neighbours gone. Pixels of weight 0 hold what they were filled with (see
        `balrogutils.metacal.holes`) and count with the median variance of the others.
    options : BFDOptions
        Settings.
    center : (float, float), optional
        Origin (v, u) in arcsec, instead of the centroid.

    Returns
    -------
    BFDMoments
        Units: those of the image times rad^2 / arcsec^2, and two more for each power of k.

    Raises
    ------
    ConfigError
        When there are not as many band weights as bands.

    Notes
    -----
    Epochs of a band are averaged by the inverse variance of M_F. Odd and even moments have no covariance where the
    noise is white; where it is not, that between them is left out.
    """
    nband = len(bands)
    if options.band_weights and len(options.band_weights) != nband:
        raise ConfigError(
            f"{len(options.band_weights)} band weights for {nband} bands",
            key="band_weights",
            remedy="give one for each band",
        )
    shares = np.array(options.band_weights or (1.0,) * nband)
    found: list[list[_Stamp]] = []
    for epochs in bands:
        stamps = (_stamp(epoch, options) for epoch in epochs)
        found.append([one for one in stamps if one is not None])
    nimage = np.array([len(own) for own in found], np.int64)
    if not nband or any(share > 0.0 and not own for share, own in zip(shares, found, strict=True)):
        return _nothing(FitFlag.ZERO_DOF, nband, nimage)
    if not all(np.all(np.isfinite(one.image)) for own in found for one in own):
        return _nothing(FitFlag.LM_FUNC_NOTFINITE, nband, nimage)
    shares = shares / shares.sum()
    place = center if center is not None else _centroid(found, shares)
    if place is None:
        return _nothing(FitFlag.CEN_SHIFT, nband, nimage)
    blank = _nothing(0, nband, nimage)
    means, covs = np.full((nband, 7), math.nan), np.full((nband, 7, 7), math.nan)
    for band, own in enumerate(found):
        if not own:
            continue
        measured = [_moments(one, place) for one in own]
        weight = _epoch_weights(own)
        means[band] = weight @ np.array([one[0] for one in measured])
        covs[band] = np.tensordot(weight**2, np.array([one[1] for one in measured]), 1)
    counted = shares > 0.0
    whole = shares[counted] @ means[counted]
    whole_cov = np.tensordot(shares[counted] ** 2, covs[counted], 1)
    return blank._replace(
        even=means[:, :5],
        even_cov=covs[:, :5, :5],
        odd=means[:, 5:],
        odd_cov=covs[:, 5:, 5:],
        all_even=whole[:5],
        all_even_cov=whole_cov[:5, :5],
        all_odd=whole[5:],
        all_odd_cov=whole_cov[5:, 5:],
        v=float(place[0]),
        u=float(place[1]),
    )
