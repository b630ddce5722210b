"""Compiled images of whole mixtures, and the normal equations of coelliptical PSF mixtures."""

from __future__ import annotations

import math

import numpy as np

from balrogutils.compiled import njit
from balrogutils.fitting.gaussians import (
    EXTRA,
    FIRST,
    LAST,
    NTABLE,
    PROFILE,
    STRIDE,
    WINDOW,
    add_gaussian,
    add_slopes,
    clear_rows,
    copy_row,
    dot,
    fill_row,
    invert_map,
    less,
    make_work,
    shape_maps,
    times,
)

__all__ = ["evaluate_psf", "render_table"]

# Pixels taken together, in whole rows.
BATCH = 256


@njit(cache=True)
def render_table(mixture, nrow, ncol, wcs, cut):
    """Return the image [nrow, ncol] of a mixture ``[n, 6]``; NaN if a covariance is not positive."""
    out = np.zeros((nrow, ncol))
    table, state, work = np.empty((1, NTABLE)), np.empty(2 * ncol), make_work()
    inverse = np.empty(4)
    invert_map(wcs, inverse)
    for k in range(mixture.shape[0]):
        m = mixture[k]
        if not add_gaussian(table[0], m[0], 1.0, m[3], m[4], m[5], m[1], m[2], wcs, nrow, ncol, cut):
            out[:, :] = np.nan
            return out
        for i in range(int(table[0, FIRST]), int(table[0, LAST]) + 1):
            fill_row(table, 0, 1, state, ncol, i, work, 0, 0, 0, inverse, cut)
            for j in range(ncol):
                out[i, j] += work[j]
            clear_rows(work, 0, ncol, 0, 0)
    return out


@njit(cache=True)
def evaluate_psf(pars, ncomp, image, weight, nrow, ncol, wcs, normal, gradient):
    """Return chi^2 of a coelliptical PSF mixture on one stamp and fill the normal equations; -1 where it cannot be
    evaluated.

    pars : v, u, g1, g2, ln T_1..N, F_1..N. Sizes are logarithmic so that no step can make one negative.
    """
    npar = pars.shape[0]
    normal[:, :] = 0.0
    gradient[:] = 0.0
    maps, inverse = np.empty((3, 3)), np.empty(4)
    invert_map(wcs, inverse)
    if not shape_maps(pars[2], pars[3], wcs, maps):
        return -1.0
    gg = pars[2] * pars[2] + pars[3] * pars[3]
    e1, e2 = 2.0 * pars[2] / (1.0 + gg), 2.0 * pars[3] / (1.0 + gg)
    table, state, work = np.empty((ncomp, NTABLE)), np.empty(ncomp * 2 * ncol), make_work()
    for k in range(ncomp):
        if not abs(pars[4 + k]) < 50.0:
            return -1.0
        size = math.exp(pars[4 + k])
        if not add_gaussian(
            table[k],
            pars[4 + ncomp + k],
            1.0,
            0.5 * size * (1.0 - e1),
            0.5 * size * e2,
            0.5 * size * (1.0 + e1),
            pars[0],
            pars[1],
            wcs,
            nrow,
            ncol,
            WINDOW,
        ):
            return -1.0
        add_slopes(table[k], maps, size)
        # Rows of its own: the slopes by its flux and by the logarithm of its size.
        table[k, PROFILE], table[k, PROFILE + 1] = 1.0, 0.0
        table[k, PROFILE + 2], table[k, PROFILE + 3] = 0.0, pars[4 + ncomp + k] * size
    rows = np.empty((npar, (BATCH // ncol + 1) * ncol))
    residual, product = np.empty(rows.shape[1]), np.empty(rows.shape[1])
    together = max(1, BATCH // ncol)
    chi2 = 0.0
    for begin in range(0, nrow, together):
        end = min(begin + together, nrow)
        n = (end - begin) * ncol
        for i in range(begin, end):
            at = (i - begin) * ncol
            fill_row(table, 0, ncomp, state, ncol, i, work, 2, 2, 2, inverse, WINDOW)
            copy_row(work[:ncol], residual[at : at + ncol])
            for m in range(npar):
                line = m + 1 if m < 4 else EXTRA + (2 * (m - 4) + 1 if m < 4 + ncomp else 2 * (m - 4 - ncomp))
                copy_row(work[line * STRIDE : line * STRIDE + ncol], rows[m, at : at + ncol])
            clear_rows(work, 0, ncol, 2, 2 * ncomp)
        first = begin * ncol
        less(residual[:n], image[first : first + n])
        times(residual[:n], weight[first : first + n], product[:n])
        chi2 += dot(product[:n], residual[:n])
        for m in range(npar):
            gradient[m] += dot(rows[m, :n], product[:n])
        for m in range(npar):
            times(rows[m, :n], weight[first : first + n], product[:n])
            for other in range(m + 1):
                normal[m, other] += dot(product[:n], rows[other, :n])
    for m in range(npar):
        for other in range(m):
            normal[other, m] = normal[m, other]
    return chi2
