"""Images deconvolved, sheared and convolved again, in Fourier space, with no more frequencies than the target needs.

Let q be a frequency of the image that comes out, rad per pixel, and q' = B^T q with B = J^-1 S J that of the image
that goes in (S the shear on the sky, J the WCS). Then

    out[x] = int d^2q / (2 pi)^2  G(q) I(q') / P(q')  exp(i q x)

with G, P the transforms of target and PSF, I that of the image; all are plain sums over pixels, with nothing
interpolated. The integral is a sum over a lattice in q''. B^T = L U, L lower triangular with ones, U upper
triangular; with q' = L q'' and q = U^-1 q'' both transforms are products of two matrices with a factor in between,
because only one cross term is left in each: rows of q'' times rows of the image, a phase exp(-i l q''_row col), then
columns; and back in the same way. Sums over a few hundred frequencies replace everything on finer grids (M 9.3).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.compiled import njit

__all__ = ["CUT", "Lattice", "lattice_lines", "lattice_of", "outward", "shear_stamps"]

F64 = NDArray[np.float64]
C128 = NDArray[np.complex128]

# A Gaussian target is cut off where its transform is below this part of its value at 0.
CUT = 1e-5
# The lattice is that of images larger by so many pixels, where what leaves a stamp at one edge ends before the other.
_MARGIN = 20


class Lattice(NamedTuple):
    """Frequencies: 2 pi / period times -half to half in rows, 0 to half in columns."""

    period: int
    half: int


def lattice_of(side: int, targets: F64) -> Lattice:
    """Return the lattice for stamps of at most `side` pixels and targets [n, 3]; all of it for a target of size 0."""
    period = side + _MARGIN
    if not targets.any():
        return Lattice(period, (period - 1) // 2)
    det = targets[:, 0] * targets[:, 2] - targets[:, 1] ** 2
    longest = np.sqrt(-2.0 * math.log(CUT) * np.maximum(targets[:, 0], targets[:, 2]) / det)
    # A few per cent for what the shear does to the lattice.
    half = math.ceil(1.05 * float(longest.max()) * period / (2.0 * math.pi))
    return Lattice(period, min(half, (period - 1) // 2))


def lattice_lines(lattice: Lattice) -> tuple[F64, F64]:
    """Return the rows [2 half + 1] and columns [half + 1] of the lattice, rad per pixel."""
    dq = 2.0 * math.pi / lattice.period
    rows, columns = np.arange(-lattice.half, lattice.half + 1), np.arange(lattice.half + 1)
    return np.asarray(dq * rows, np.float64), np.asarray(dq * columns, np.float64)


def outward(base: F64) -> F64:
    """Return U^-1: from the lattice to the frequencies of the image that comes out."""
    a, b = base[0, 0], base[0, 1]
    d = base[1, 1] - base[1, 0] * b / a
    return np.array([[1.0 / a, -b / (a * d)], [0.0, 1.0 / d]])


@njit(cache=True)
def _powers(start, step, out):
    """Fill exp(i (start + step n)), anew every 16."""
    turn = complex(math.cos(step), math.sin(step))
    for n in range(out.shape[0]):
        if n % 16 == 0:
            angle = start + step * n
            value = complex(math.cos(angle), math.sin(angle))
        out[n] = value
        value *= turn


@njit(cache=True)
def _forward(rows_re, rows_im, factor, dq, half, columns, mixed, out):
    """Fill the transform at q' = L q'': rows are done, `factor` is L's entry."""
    count, ncol = rows_re.shape
    middle = 0.5 * (ncol - 1)
    phase = np.empty(ncol, np.complex128)
    for k in range(count):
        step = -factor * dq * (k % (2 * half + 1) - half)
        _powers(-step * middle, step, phase)
        for j in range(ncol):
            mixed[k, j] = complex(rows_re[k, j], rows_im[k, j]) * phase[j]
    np.dot(mixed, columns, out)


@njit(cache=True)
def _filter(image, psf, other, base, target, shift, psf_shift, dq, half, cut, floor):
    """Turn the transform of an image into that of what comes out, in place.

    other : transform of a target that is no Gaussian; shift : position of the object from the middle of the stamp;
    psf_shift : centre of the PSF from that of its own.
    """
    a, b = base[0, 0], base[0, 1]
    low = base[1, 0] / a
    d = base[1, 1] - low * b
    # I exp(i q' shift) / (P exp(i q' psf_shift)) exp(-i q shift): q and q' are linear in the lattice.
    across, along = shift[0] - psf_shift[0], shift[1] - psf_shift[1]
    down_phase, along_phase = np.empty(2 * half + 1, np.complex128), np.empty(half + 1, np.complex128)
    step = dq * (across + low * along - shift[0] / a)
    _powers(-half * step, step, down_phase)
    _powers(0.0, dq * (along - (shift[1] - shift[0] * b / a) / d), along_phase)
    rr, rc, cc = target
    for k in range(image.shape[0]):
        x = dq * (k - half)
        for j in range(half + 1):
            y = dq * j
            out_col = y / d
            out_row = (x - b * out_col) / a
            exponent = rr * out_row * out_row + 2.0 * rc * out_row * out_col + cc * out_col * out_col
            if exponent > cut or abs(x) > math.pi or abs(y + low * x) > math.pi:
                image[k, j] = 0.0
                continue
            p = psf[k, j]
            size = p.real * p.real + p.imag * p.imag
            if size < floor * floor:
                p = p * (floor / math.sqrt(size)) if size > 0.0 else complex(floor, 0.0)
                size = floor * floor
            scale = math.exp(-0.5 * exponent) / size * (2.0 if j else 1.0)
            image[k, j] *= p.conjugate() * down_phase[k] * along_phase[j] * scale
            if other.size:
                image[k, j] *= other[k, j]


@njit(cache=True)
def _back(values, base, dq, half, scale, down, along, between, first, second, out):
    """Fill the image of the values on the lattice."""
    nrow, ncol = out.shape
    a, b = base[0, 0], base[0, 1]
    d = base[1, 1] - base[1, 0] * b / a
    for i in range(nrow):
        r = i - 0.5 * (nrow - 1)
        _powers(-half * dq * r / a, dq * r / a, down[i])
    np.dot(down, values, between)
    count = half + 1
    phase = np.empty(count, np.complex128)
    for i in range(nrow):
        r = i - 0.5 * (nrow - 1)
        _powers(0.0, -dq * b * r / (a * d), phase)
        for j in range(count):
            value = between[i, j] * phase[j]
            first[i, j] = value.real
            first[i, count + j] = -value.imag
    for j in range(count):
        step = dq * j / d
        _powers(-step * 0.5 * (ncol - 1), step, along)
        for k in range(ncol):
            second[j, k] = along[k].real * scale
            second[count + j, k] = along[k].imag * scale
    np.dot(first, second, out)


@njit(cache=True)
def _rows(length, dq, half):
    """Return cos and sin of -q (x - middle) [2 half + 1, length]."""
    cosine, sine = np.empty((2 * half + 1, length)), np.empty((2 * half + 1, length))
    line = np.empty(length, np.complex128)
    for k in range(2 * half + 1):
        step = -dq * (k - half)
        _powers(-step * 0.5 * (length - 1), step, line)
        for i in range(length):
            cosine[k, i] = line[i].real
            sine[k, i] = line[i].imag
    return cosine, sine


@njit(cache=True)
def _columns(length, dq, half):
    """Return exp(-i q (x - middle)) [length, half + 1]."""
    out = np.empty((length, half + 1), np.complex128)
    line = np.empty(half + 1, np.complex128)
    for i in range(length):
        _powers(0.0, -dq * (i - 0.5 * (length - 1)), line)
        out[i] = line
    return out


@njit(cache=True)
def shear_stamps(planes, psfs, shifts, psf_shifts, bases, targets, others, period, half, cut, floor, out):
    """Deconvolve, shear and convolve again the planes of stamps.

    Parameters
    ----------
    planes : float64 [nstamp, nplane, nrow, ncol]
        Images, and what else goes the same way.
    psfs : float64 [nstamp, nplane, side, side]
        PSF of each plane; its sum is 1.
    shifts : float64 [nstamp, 2]
        Where the object is, pixels from the middle of the stamp: what the shear leaves in place.
    psf_shifts : float64 [nstamp, nplane, 2]
        Centres of the PSFs, from the middle of theirs.
    bases : float64 [nstamp, njob, 2, 2]
        B^T.
    targets : float64 [nstamp, njob, 3]
        Covariance of the Gaussian target, pixels.
    others : complex128 [nstamp, njob, 2 half + 1, half + 1], or [nstamp, njob, 0, 0]
        Transform of the target on the lattice (`outward` of it), besides that Gaussian.
    period, half : int
        The lattice.
    cut, floor : float
        The target ends where minus twice the logarithm of its transform is `cut`; `floor` is the least of the PSF's
        modulus.
    out : float64 [nstamp, njob, nplane, nrow, ncol]
        Overwritten.
    """
    nstamp, nplane, nrow, ncol = planes.shape
    side = psfs.shape[2]
    njob = bases.shape[1]
    dq = 2.0 * math.pi / period
    count = 2 * half + 1
    cosine, sine = _rows(nrow, dq, half)
    psf_cosine, psf_sine = _rows(side, dq, half)
    columns, psf_columns = _columns(ncol, dq, half), _columns(side, dq, half)
    rows_re, rows_im = np.empty((nplane * count, ncol)), np.empty((nplane * count, ncol))
    psf_re, psf_im = np.empty((nplane * count, side)), np.empty((nplane * count, side))
    mixed, psf_mixed = np.empty((nplane * count, ncol), np.complex128), np.empty((nplane * count, side), np.complex128)
    values = np.empty((nplane * count, half + 1), np.complex128)
    psf_values = np.empty((nplane * count, half + 1), np.complex128)
    down, between = np.empty((nrow, count), np.complex128), np.empty((nrow, half + 1), np.complex128)
    along = np.empty(ncol, np.complex128)
    first, second = np.empty((nrow, 2 * half + 2)), np.empty((2 * half + 2, ncol))
    scale = 1.0 / (period * period)
    for s in range(nstamp):
        for p in range(nplane):
            part = slice(p * count, (p + 1) * count)
            rows_re[part] = np.dot(cosine, planes[s, p])
            rows_im[part] = np.dot(sine, planes[s, p])
            psf_re[part] = np.dot(psf_cosine, psfs[s, p])
            psf_im[part] = np.dot(psf_sine, psfs[s, p])
        for job in range(njob):
            base = bases[s, job]
            low = base[1, 0] / base[0, 0]
            _forward(rows_re, rows_im, low, dq, half, columns, mixed, values)
            _forward(psf_re, psf_im, low, dq, half, psf_columns, psf_mixed, psf_values)
            for p in range(nplane):
                part = slice(p * count, (p + 1) * count)
                _filter(
                    values[part],
                    psf_values[part],
                    others[s, job],
                    base,
                    targets[s, job],
                    shifts[s],
                    psf_shifts[s, p],
                    dq,
                    half,
                    cut,
                    floor,
                )
                _back(values[part], base, dq, half, scale, down, along, between, first, second, out[s, job, p])
