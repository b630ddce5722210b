"""PSF mixtures by expectation maximisation: N Gaussians with their own centres and shapes (M 4.8)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.compiled import njit
from balrogutils.fitting.gaussians import (
    EXTRA,
    NTABLE,
    PROFILE,
    STEPS,
    STRIDE,
    add_gaussian,
    clear_rows,
    fill_row,
    invert_map,
    make_work,
)
from balrogutils.fitting.mixture import COELLIP

__all__ = ["EMOptions", "em_mixture"]

F64 = NDArray[np.float64]


class EMOptions(NamedTuple):
    """Limits of the iteration: how many steps, and the rise of ln L per unit of flux between two leaps that ends it.

    `floor` is the offset that makes all pixels positive, as a part of the range of pixel values.
    """

    maxiter: int = 2000
    tol: float = 1e-6
    floor: float = 1e-3


# ln of what is left at the edge of a Gaussian is -50: nothing that a responsibility could notice.
_CUT = np.array([100.0, 99.0])
_UNIT = np.array([0.0, 0.0, 1.0, 0.0, 0.0, 1.0])
# A Gaussian narrower than this variance, in pixels^2, is a single pixel.
_NARROW = 1e-3


@njit(cache=True, error_model="numpy")
def _share(into, shares, p_total, data, steps, sums):
    """Add the responsibilities of one component on one row to its sums: r, r x, r x^2."""
    zero, first, second = 0.0, 0.0, 0.0
    for j in range(data.shape[0]):
        r = into[j] * shares[j]
        x = steps[j] - p_total
        zero += r
        first += r * x
        second += r * x * x
    sums[0], sums[1], sums[2] = zero, first, second


@njit(cache=True, error_model="numpy")
def _step(pars, image, nrow, ncol, table, state, work, want, out):
    """Take one step of expectation and maximisation; returns ln L before it, or NaN where a Gaussian is impossible.

    pars : [ncomp + 1, 6], rows p, row, col, rr, rc, cc; the first number of the last row is the sky of one pixel.
    want : whether ln L is wanted; 0 is returned otherwise.
    """
    ncomp = pars.shape[0] - 1
    inverse = np.empty(4)
    invert_map(_UNIT, inverse)
    for k in range(ncomp):
        q = pars[k]
        if not (q[0] > 0.0 and q[3] > 0.0 and q[5] > 0.0 and q[3] * q[5] - q[4] * q[4] > 0.0):
            return np.nan
        if not add_gaussian(table[k], q[0], 1.0, q[3], q[4], q[5], q[1], q[2], _UNIT, nrow, ncol, _CUT):
            return np.nan
        # A row of its own, of its flux.
        table[k, PROFILE], table[k, PROFILE + 1] = q[0], 0.0
    sky = pars[ncomp, 0]
    if not sky > 0.0:
        return np.nan
    out[:, :] = 0.0
    shares = np.empty(ncol)
    sums = np.empty(3)
    total = 0.0
    for i in range(nrow):
        fill_row(table, 0, ncomp, state, ncol, i, work, 0, 1, 1, inverse, _CUT)
        data = image[i * ncol : (i + 1) * ncol]
        for j in range(ncol):
            value = work[j] + sky
            shares[j] = data[j] / value
            if want:
                total += data[j] * math.log(value) - value
        out[ncomp, 0] += sky * shares.sum()
        for k in range(ncomp):
            at = (EXTRA + k) * STRIDE
            _share(work[at : at + ncol], shares, pars[k, 2], data, work[STEPS * STRIDE : STEPS * STRIDE + ncol], sums)
            dr = i - pars[k, 1]
            out[k, 0] += sums[0]
            out[k, 1] += dr * sums[0]
            out[k, 2] += sums[1]
            out[k, 3] += dr * dr * sums[0]
            out[k, 4] += dr * sums[1]
            out[k, 5] += sums[2]
        clear_rows(work, 0, ncol, 0, ncomp)
    for k in range(ncomp):
        p = out[k, 0]
        if not p > 0.0:
            return np.nan
        a, b = out[k, 1] / p, out[k, 2] / p
        out[k, 1], out[k, 2] = pars[k, 1] + a, pars[k, 2] + b
        out[k, 3], out[k, 4], out[k, 5] = out[k, 3] / p - a * a, out[k, 4] / p - a * b, out[k, 5] / p - b * b
    out[ncomp, 0] /= nrow * ncol
    return total


@njit(cache=True, error_model="numpy")
def _run(pars, image, nrow, ncol, maxiter, tol):
    """Iterate in place of `pars`; returns (converged, steps). Two steps make a leap (Varadhan & Roland 2008, SqS3)."""
    ncomp = pars.shape[0] - 1
    table, state, work = np.empty((ncomp, NTABLE)), np.empty(ncomp * 2 * ncol), make_work()
    first, second, third = np.zeros_like(pars), np.zeros_like(pars), np.zeros_like(pars)
    flux = image.sum()
    # Sizes of the parameters, so that a leap is measured in the same unit for all.
    scale = np.empty_like(pars)
    scale[:, 0] = flux
    scale[ncomp, 0] = flux / (nrow * ncol)
    scale[:, 1:3] = math.sqrt(pars[0, 3] + pars[0, 5])
    scale[:, 3:] = pars[0, 3] + pars[0, 5]
    steps, last = 0, -np.inf
    while steps < maxiter:
        if math.isnan(_step(pars, image, nrow, ncol, table, state, work, False, first)):
            return False, steps
        before = _step(first, image, nrow, ncol, table, state, work, True, second)
        if math.isnan(before):
            return False, steps
        steps += 2
        one, two = 0.0, 0.0
        for k in range(ncomp + 1):
            for m in range(1 if k == ncomp else 6):
                r = (first[k, m] - pars[k, m]) / scale[k, m]
                v = (second[k, m] - first[k, m]) / scale[k, m] - r
                one += r * r
                two += v * v
        if before - last < tol * flux:
            pars[:, :] = second
            return True, steps
        last = before
        leap = math.sqrt(one / two) if two > 0.0 else 1.0
        accepted = False
        while leap > 1.0:
            for k in range(ncomp + 1):
                for m in range(6):
                    r = first[k, m] - pars[k, m]
                    third[k, m] = pars[k, m] + 2.0 * leap * r + leap * leap * (second[k, m] - first[k, m] - r)
            after = _step(third, image, nrow, ncol, table, state, work, True, first)
            steps += 1
            # A step never lowers ln L, so a leap that ends below where it began is too long.
            if after >= before:
                accepted = True
                break
            leap = 0.5 * (leap + 1.0) if leap > 1.5 else 1.0
        pars[:, :] = first if accepted else second
        narrow = np.inf
        for k in range(ncomp):
            narrow = min(narrow, min(pars[k, 3], pars[k, 5]))
        if not narrow > _NARROW:
            return False, steps
    return False, steps


def em_mixture(image: F64, row: float, col: float, variance: float, ncomp: int, options: EMOptions) -> tuple[F64, bool]:
    """Fit a mixture to a stamp of positive flux.

    Parameters
    ----------
    image : ndarray, shape (nrow, ncol)
        Pixels.
    row, col, variance : float
        Start of the centre, pixels, and of the variance of a row or column, pixels^2.
    ncomp : int
        Number of Gaussians, 1 to 5.
    options : EMOptions
        Limits.

    Returns
    -------
    (ndarray, bool)
        Rows p, row, col, rr, rc, cc in pixels, and whether the iteration converged.

    Notes
    -----
    The stamp is made positive by an offset, which a uniform component takes up. Starts are fixed: the components of
    the table, each moved and stretched a little on its own, since EM keeps components alike that begin alike.
    """
    low, high = float(image.min()), float(image.max())
    offset = options.floor * (high - low) - low
    pixels = np.ascontiguousarray(image, np.float64).ravel() + offset
    p, f = COELLIP[ncomp]
    pars = np.zeros((ncomp + 1, 6))
    pars[:ncomp, 0] = p / p.sum() * float(image.sum())
    angle = 2.0 * math.pi * np.arange(ncomp) / max(ncomp, 3)
    width = math.sqrt(variance)
    pars[:ncomp, 1] = row + 0.01 * width * np.cos(angle)
    pars[:ncomp, 2] = col + 0.01 * width * np.sin(angle)
    pars[:ncomp, 3] = f * variance * (1.0 + 0.01 * np.cos(2.0 * angle))
    pars[:ncomp, 4] = f * variance * 0.01 * np.sin(2.0 * angle)
    pars[:ncomp, 5] = f * variance * (1.0 - 0.01 * np.cos(2.0 * angle))
    pars[ncomp, 0] = offset
    nrow, ncol = image.shape
    converged, _ = _run(pars, pixels, nrow, ncol, options.maxiter, options.tol)
    return pars[:ncomp], bool(converged)
