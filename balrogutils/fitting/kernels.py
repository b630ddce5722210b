"""Compiled kernels: Gaussian mixtures on stamps, their derivatives, and the normal equations, one pass and no
stored Jacobian.

Everything is evaluated in pixels. With J the map from (row, col) to (v, u), a Gaussian of sky covariance S has the
pixel covariance P = J^-1 S J^-T; its inverse Q and a = Q d give all derivatives: dI/dmu = I a and, for any
parameter t of the covariance, dI/dt = I/2 (a' dP/dt a - tr Q dP/dt). A *block* is a set of Gaussians that share one
flux and one shape; per pixel it leaves six sums, the *fields* ``I, I a_r, I a_c, f I (a_r a_r - Q_rr), f I (a_r a_c
- Q_rc), f I (a_c a_c - Q_cc)`` with f the size of a component relative to the block. Derivatives by parameters are
linear in the fields, so one small matrix per stamp makes any model of them: a galaxy is one block, a PSF mixture
with free sizes one block per component, a composite one per profile.

On a row the Gaussian obeys I[j+1] = I[j] r[j], r[j+1] = r[j] q with q constant: two multiplications a pixel, begun at
the row's peak so that errors do not grow. Beyond chi^2 = 20 the window u^3 (10 - 15 u + 6 u^2), u = (25 - chi^2) /
5, takes the Gaussian to 0 at 25 with two continuous derivatives; pixels outside are not visited.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["evaluate_galaxy", "evaluate_psf", "render_table"]

CHI2_MAX = 25.0
CHI2_WINDOW = 20.0
# Distance between field rows in the work buffer, in doubles: a constant, so that the compiler can prove that they
# do not overlap, and 64 bytes more than a multiple of 4096, so that they do not fall into one cache set. It bounds
# the columns of a stamp.
STRIDE = 2056
# Pixels taken together, in whole rows.
BATCH = 256
NFIELD = 6
NTABLE = 13
_FAST = {"contract", "reassoc", "nsz", "arcp"}


@njit(cache=True)
def add_gaussian(table, count, p, f, block, vv, vu, uu, v, u, wcs):
    """Append one sky Gaussian to a pixel table; False if its covariance is not positive.

    Table columns: amplitude, row, col, Q_rr, Q_rc, Q_cc, P_rr, f, block, first row, last row, exp(-Q_cc),
    1 / Q_cc.
    """
    d00, d01, d10, d11 = wcs[2], wcs[3], wcs[4], wcs[5]
    det_j = d00 * d11 - d01 * d10
    i00, i01, i10, i11 = d11 / det_j, -d01 / det_j, -d10 / det_j, d00 / det_j
    det_sky = vv * uu - vu * vu
    # Written so that NaN fails too.
    if not (det_sky > 1e-200 and vv > 0.0 and uu > 0.0 and det_sky < 1e200):
        return False
    rr = i00 * i00 * vv + 2.0 * i00 * i01 * vu + i01 * i01 * uu
    rc = i00 * i10 * vv + (i00 * i11 + i01 * i10) * vu + i01 * i11 * uu
    cc = i10 * i10 * vv + 2.0 * i10 * i11 * vu + i11 * i11 * uu
    det = det_sky / (det_j * det_j)
    row = wcs[0] + i00 * v + i01 * u
    col = wcs[1] + i10 * v + i11 * u
    table[count, 0] = p / (2.0 * math.pi * math.sqrt(det))
    table[count, 1] = row
    table[count, 2] = col
    table[count, 3] = cc / det
    table[count, 4] = -rc / det
    table[count, 5] = rr / det
    table[count, 6] = rr
    table[count, 7] = f
    table[count, 8] = block
    reach = math.sqrt(CHI2_MAX * rr)
    # Bounded, because they become whole numbers.
    table[count, 9] = min(max(row - reach, -1e9), 1e9)
    table[count, 10] = min(max(row + reach, -1e9), 1e9)
    table[count, 11] = math.exp(-rr / det)
    table[count, 12] = det / rr
    return True


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _row_fields(gaussian, i, ncol, fields, shift, work, derivatives):
    """Add one Gaussian on image row `i` to the fields of its block, from pixel `shift` on; returns its columns."""
    dr = i - gaussian[1]
    least = dr * dr / gaussian[6]
    if least >= CHI2_MAX:
        return 0, 0
    c0 = gaussian[2]
    qrr, qrc, qcc = gaussian[3], gaussian[4], gaussian[5]
    b = qrc * dr
    inverse = gaussian[12]
    middle = c0 - b * inverse
    half = math.sqrt((CHI2_MAX - least) * inverse)
    left, right = max(middle - half, 0.0), min(middle + half, ncol - 1.0)
    if left > right:
        return 0, 0
    lo, hi = math.ceil(left), math.floor(right)
    if hi < lo:
        return 0, 0
    klo, khi = hi + 1, hi
    if least < CHI2_WINDOW:
        half = math.sqrt((CHI2_WINDOW - least) * inverse)
        left, right = max(middle - half, left), min(middle + half, right)
        if left <= right:
            klo, khi = math.ceil(left), math.floor(right)
    peak = min(max(round(middle), lo), hi)
    x = peak - c0
    q = gaussian[11]
    value = gaussian[0] * math.exp(-0.5 * (qrr * dr * dr + x * (2.0 * b + qcc * x)))
    n = hi - lo + 1
    near = work[lo : hi + 1]
    far = work[STRIDE + lo : STRIDE + hi + 1]
    first = math.exp(-(b + qcc * (x + 0.5)))
    ratio = first
    e = value
    for j in range(peak - lo, n):
        near[j] = e
        far[j] = e
        e *= ratio
        ratio *= q
    ratio = q / first if first > 1e-290 else 0.0
    e = value
    for j in range(peak - lo - 1, -1, -1):
        e *= ratio
        ratio *= q
        near[j] = e
        far[j] = e
    for side in range(2):
        begin, end = (lo, min(klo, hi + 1)) if side == 0 else (max(khi + 1, klo), hi + 1)
        for j in range(begin, end):
            x = j - c0
            chi2 = qrr * dr * dr + x * (2.0 * b + qcc * x)
            w = min(max((CHI2_MAX - chi2) / (CHI2_MAX - CHI2_WINDOW), 0.0), 1.0)
            window = w * w * w * (10.0 - 15.0 * w + 6.0 * w * w)
            # 2 dW/dchi2 = -2 * 30 w^2 (1 - w)^2 / 5
            slope = 12.0 * w * w * (1.0 - w) * (1.0 - w)
            e = near[j - lo]
            near[j - lo] = e * window
            far[j - lo] = e * (window + slope)
    base = int(gaussian[8]) * NFIELD * STRIDE + shift + lo
    if not derivatives:
        out = fields[base : base + n]
        for j in range(n):
            out[j] += near[j]
        return lo, hi + 1
    f = gaussian[7]
    out = fields[base:]
    x0 = lo - c0
    ar0 = qrr * dr + qrc * x0
    ac0 = b + qcc * x0
    frr, frc, fcc = f * qrr, f * qrc, f * qcc
    steps = work[2 * STRIDE :]
    for j in range(n):
        e = near[j]
        c = far[j]
        ar = ar0 + qrc * steps[j]
        ac = ac0 + qcc * steps[j]
        car = c * ar
        cac = c * ac
        out[j] += e
        out[STRIDE + j] += car
        out[2 * STRIDE + j] += cac
        far_r = f * car
        out[3 * STRIDE + j] += far_r * ar - frr * e
        out[4 * STRIDE + j] += far_r * ac - frc * e
        out[5 * STRIDE + j] += f * cac * ac - fcc * e
    return lo, hi + 1


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _dot(a, b):
    total = 0.0
    for j in range(a.shape[0]):
        total += a[j] * b[j]
    return total


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _axpy(scale, x, y):
    for j in range(x.shape[0]):
        y[j] += scale * x[j]


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _accumulate(table, count, nblock, flux, mix, image, weight, nrow, ncol, fields, work, normal, gradient):
    """Add one stamp to the normal equations of its own parameters and return its chi^2.

    image and weight are the flat pixels of the stamp. `flux` is the amplitude of each block; `mix[p, field]` makes
    the derivative by parameter p of the fields of all blocks. normal += D W D', gradient += D W (m - d).
    """
    npar = mix.shape[0]
    nfield = nblock * NFIELD
    derive = np.empty(npar * STRIDE)
    weighted = np.empty(STRIDE)
    residual = np.empty(STRIDE)
    chi2 = 0.0
    # Rows are taken a few at a time: long inner products, and all buffers stay in the first cache.
    together = max(1, BATCH // ncol)
    for begin in range(0, nrow, together):
        end = min(begin + together, nrow)
        n = (end - begin) * ncol
        w = weight[begin * ncol : end * ncol]
        d = image[begin * ncol : end * ncol]
        for m in range(nfield):
            fields[m * STRIDE : m * STRIDE + n] = 0.0
        touched = False
        for k in range(count):
            for i in range(max(begin, math.ceil(table[k, 9])), min(end, math.floor(table[k, 10]) + 1)):
                lo, hi = _row_fields(table[k], i, ncol, fields, (i - begin) * ncol, work, True)
                touched = touched or hi > lo
        for j in range(n):
            residual[j] = -d[j]
        for m in range(nblock):
            _axpy(flux[m], fields[m * NFIELD * STRIDE : m * NFIELD * STRIDE + n], residual[:n])
        for j in range(n):
            weighted[j] = w[j] * residual[j]
        chi2 += _dot(weighted[:n], residual[:n])
        if not touched:
            continue
        for p in range(npar):
            row = derive[p * STRIDE : p * STRIDE + n]
            row[:] = 0.0
            for m in range(nfield):
                if mix[p, m] != 0.0:
                    _axpy(mix[p, m], fields[m * STRIDE : m * STRIDE + n], row)
            gradient[p] += _dot(row, weighted[:n])
        for p in range(npar):
            row = derive[p * STRIDE : p * STRIDE + n]
            for j in range(n):
                residual[j] = row[j] * w[j]
            for m in range(p + 1):
                normal[p, m] += _dot(residual[:n], derive[m * STRIDE : m * STRIDE + n])
    return chi2


@njit(cache=True)
def _shape_maps(g1, g2, wcs, maps, inverse):
    """Fill pixel-space dP/dT per unit f, dP/dg1 and dP/dg2 per unit f T, as (rr, 2 rc, cc) / 2; and J^-1."""
    d00, d01, d10, d11 = wcs[2], wcs[3], wcs[4], wcs[5]
    det = d00 * d11 - d01 * d10
    inverse[0, 0], inverse[0, 1], inverse[1, 0], inverse[1, 1] = d11 / det, -d01 / det, -d10 / det, d00 / det
    gg = g1 * g1 + g2 * g2
    factor = 2.0 / (1.0 + gg)
    slope = -factor / (1.0 + gg)
    for k in range(3):
        if k == 0:
            vv, vu, uu = 0.5 * (1.0 - factor * g1), 0.5 * factor * g2, 0.5 * (1.0 + factor * g1)
        else:
            if k == 1:
                e1, e2 = factor + 2.0 * g1 * g1 * slope, 2.0 * g1 * g2 * slope
            else:
                e1, e2 = 2.0 * g1 * g2 * slope, factor + 2.0 * g2 * g2 * slope
            vv, vu, uu = -0.5 * e1, 0.5 * e2, 0.5 * e1
        a, b, c, d = inverse[0, 0], inverse[0, 1], inverse[1, 0], inverse[1, 1]
        maps[k, 0] = 0.5 * (a * a * vv + 2.0 * a * b * vu + b * b * uu)
        maps[k, 1] = a * c * vv + (a * d + b * c) * vu + b * d * uu
        maps[k, 2] = 0.5 * (c * c * vv + 2.0 * c * d * vu + d * d * uu)


@njit(cache=True)
def _galaxy_table(table, pars, p, f, psf, wcs):
    """Fill the pixel table of a unit-flux galaxy and its PSF; returns the number of Gaussians, -1 if impossible."""
    gg = pars[2] * pars[2] + pars[3] * pars[3]
    if not gg < 1.0:
        return -1
    e1, e2 = 2.0 * pars[2] / (1.0 + gg), 2.0 * pars[3] / (1.0 + gg)
    vv, vu, uu = 0.5 * pars[4] * (1.0 - e1), 0.5 * pars[4] * e2, 0.5 * pars[4] * (1.0 + e1)
    count = 0
    for k in range(p.shape[0]):
        for m in range(psf.shape[0]):
            if psf[m, 0] == 0.0:
                continue
            if not add_gaussian(
                table,
                count,
                p[k] * psf[m, 0],
                f[k],
                0,
                f[k] * vv + psf[m, 3],
                f[k] * vu + psf[m, 4],
                f[k] * uu + psf[m, 5],
                pars[0] + psf[m, 1],
                pars[1] + psf[m, 2],
                wcs,
            ):
                return -1
            count += 1
    return count


@njit(cache=True)
def evaluate_galaxy(pars, p, f, image, weight, start, nrow, ncol, band, wcs, psf, normal, gradient):
    """Return chi^2 of a one-profile galaxy on all stamps and fill the normal equations; -1 where the model cannot
    be evaluated.

    Parameters
    ----------
    pars : float64 [5 + nband]
        v, u, g1, g2, T, flux of each band.
    p, f : float64 [ncomp]
        Profile table.
    image, weight, start, nrow, ncol, band, wcs
        As in `Stack`.
    psf : float64 [nstamp, npsf, 6]
        PSF mixtures of a star of flux 1, centred on their own centroid; components with p = 0 are skipped.
    normal : float64 [5 + nband, 5 + nband]
        Overwritten with D' W D, symmetric.
    gradient : float64 [5 + nband]
        Overwritten with D' W (m - d), half the gradient of chi^2.
    """
    npar = pars.shape[0]
    normal[:, :] = 0.0
    gradient[:] = 0.0
    table = np.empty((p.shape[0] * psf.shape[1], NTABLE))
    fields = np.empty(NFIELD * STRIDE)
    work = np.empty(3 * STRIDE)
    for j in range(STRIDE):
        work[2 * STRIDE + j] = j
    mix = np.zeros((6, NFIELD))
    maps = np.empty((3, 3))
    inverse = np.empty((2, 2))
    flux = np.empty(1)
    own = np.empty((6, 6))
    slope = np.empty(6)
    chi2 = 0.0
    for s in range(start.shape[0]):
        count = _galaxy_table(table, pars, p, f, psf[s], wcs[s])
        if count < 0:
            return -1.0
        flux[0] = pars[5 + band[s]]
        _shape_maps(pars[2], pars[3], wcs[s], maps, inverse)
        for k in range(2):
            mix[k, 1] = flux[0] * inverse[0, k]
            mix[k, 2] = flux[0] * inverse[1, k]
        for k in range(3):
            size = flux[0] if k == 0 else flux[0] * pars[4]
            target = 4 if k == 0 else 1 + k
            mix[target, 3] = size * maps[k, 0]
            mix[target, 4] = size * maps[k, 1]
            mix[target, 5] = size * maps[k, 2]
        mix[5, 0] = 1.0
        own[:, :] = 0.0
        slope[:] = 0.0
        size = nrow[s] * ncol[s]
        chi2 += _accumulate(
            table,
            count,
            1,
            flux,
            mix,
            image[start[s] : start[s] + size],
            weight[start[s] : start[s] + size],
            nrow[s],
            ncol[s],
            fields,
            work,
            own,
            slope,
        )
        for k in range(6):
            at = k if k < 5 else 5 + band[s]
            gradient[at] += slope[k]
            for m in range(k + 1):
                normal[at, m if m < 5 else 5 + band[s]] += own[k, m]
    for k in range(npar):
        for m in range(k):
            normal[m, k] = normal[k, m]
    return chi2


@njit(cache=True)
def evaluate_psf(pars, ncomp, image, weight, nrow, ncol, wcs, normal, gradient):
    """Return chi^2 of a coelliptical PSF mixture on one stamp and fill the normal equations; -1 where it cannot be
    evaluated.

    pars : v, u, g1, g2, ln T_1..N, F_1..N. Sizes are logarithmic so that no step can make one negative.
    """
    npar = pars.shape[0]
    normal[:, :] = 0.0
    gradient[:] = 0.0
    g1, g2 = pars[2], pars[3]
    gg = g1 * g1 + g2 * g2
    if not gg < 1.0:
        return -1.0
    e1, e2 = 2.0 * g1 / (1.0 + gg), 2.0 * g2 / (1.0 + gg)
    table = np.empty((ncomp, NTABLE))
    mix = np.zeros((npar, ncomp * NFIELD))
    maps = np.empty((3, 3))
    inverse = np.empty((2, 2))
    _shape_maps(g1, g2, wcs, maps, inverse)
    for k in range(ncomp):
        if not abs(pars[4 + k]) < 50.0:
            return -1.0
        size = math.exp(pars[4 + k])
        amount = pars[4 + ncomp + k]
        if not add_gaussian(
            table,
            k,
            1.0,
            1.0,
            k,
            0.5 * size * (1.0 - e1),
            0.5 * size * e2,
            0.5 * size * (1.0 + e1),
            pars[0],
            pars[1],
            wcs,
        ):
            return -1.0
        at = k * NFIELD
        for m in range(2):
            mix[m, at + 1] = amount * inverse[0, m]
            mix[m, at + 2] = amount * inverse[1, m]
        for m in range(3):
            mix[2, at + 3 + m] = amount * size * maps[1, m]
            mix[3, at + 3 + m] = amount * size * maps[2, m]
            mix[4 + k, at + 3 + m] = amount * size * maps[0, m]
        mix[4 + ncomp + k, at] = 1.0
    fields = np.empty(ncomp * NFIELD * STRIDE)
    work = np.empty(3 * STRIDE)
    for j in range(STRIDE):
        work[2 * STRIDE + j] = j
    chi2 = _accumulate(
        table, ncomp, ncomp, pars[4 + ncomp :], mix, image, weight, nrow, ncol, fields, work, normal, gradient
    )
    for k in range(npar):
        for m in range(k):
            normal[m, k] = normal[k, m]
    return chi2


@njit(cache=True)
def render_table(mixture, nrow, ncol, wcs):
    """Return the windowed image [nrow, ncol] of a mixture ``[n, 6]``; NaN if a covariance is not positive."""
    out = np.zeros((nrow, ncol))
    table = np.empty((1, NTABLE))
    fields = np.zeros(STRIDE)
    work = np.empty(3 * STRIDE)
    for k in range(mixture.shape[0]):
        m = mixture[k]
        if not add_gaussian(table, 0, m[0], 1.0, 0, m[3], m[4], m[5], m[1], m[2], wcs):
            out[:, :] = np.nan
            return out
        for i in range(nrow):
            if table[0, 9] <= i <= table[0, 10]:
                lo, hi = _row_fields(table[0], i, ncol, fields, 0, work, False)
                for j in range(lo, hi):
                    out[i, j] += fields[j]
                    fields[j] = 0.0
    return out
