"""Compiled Gaussians on the rows of a stamp: values and derivatives without an exponential per pixel.

Everything is evaluated in pixels. With J the map from (row, col) to (v, u), a Gaussian of sky covariance S has the
pixel covariance P = J^-1 S J^-T and the inverse Q = P^-1. With a = Q d, dI/dmu = I a, and for any parameter t of the
covariance dI/dt = I/2 (a' dP/dt a - tr Q dP/dt): on a row, I times a polynomial of the column, of degree 1 and 2.

Down the rows the Gaussian obeys I[i+1] = I[i] s[i], s[i+1] = s[i] t with t constant: two multiplications a pixel that
all columns of a row do at once. Both are begun by recurrence along the first row. Where they would underflow on the
way (a correlation above 0.958, or a limit of chi^2 that is far out) each row is begun anew.

Beyond the limit `cut[1]` of chi^2 the window w^3 (10 - 15 w + 6 w^2), w = (cut[0] - chi^2) / (cut[0] - cut[1]), takes
the Gaussian to 0 at `cut[0]` with two continuous derivatives; pixels outside are not visited.
"""

from __future__ import annotations

import math

import numpy as np

from balrogutils.compiled import njit
from balrogutils.fitting.lanes import lane_dot

__all__ = [
    "EXACT",
    "STRIDE",
    "WINDOW",
    "add_gaussian",
    "add_slopes",
    "clear_rows",
    "copy_row",
    "dot",
    "fill_row",
    "invert_map",
    "less",
    "make_work",
    "shape_maps",
    "times",
]

# chi^2 at which a Gaussian ends and at which the window begins (the values ngmix uses), and a limit beyond which no
# double is left.
WINDOW = np.array([25.0, 20.0])
EXACT = np.array([1400.0, 1399.0])
# Distance between the rows of the work buffer, in doubles: constant, so that the compiler can prove that they do not
# overlap, and 576 bytes more than a multiple of 4096, so that they share neither cache sets nor store addresses. It
# bounds the columns of a stamp.
STRIDE = 1096
# Rows of the work buffer: the template, its derivatives by v, u, g1, g2 and T, values, values of the terms that go
# through chi^2, columns, and one row for each parameter of the profile.
NEAR, FAR, STEPS, EXTRA = 6, 7, 8, 9
MAX_EXTRA = 2
# Rows after EXTRA: enough for flux and size of each Gaussian of a PSF.
NEXTRA = 10
# Columns of a table of Gaussians.
AMPLITUDE, ROW, COL, QRR, QRC, QCC, FIRST, LAST, LEFT, RIGHT, P, SIZE, FRESH, DOWN, SHAPE = range(15)
# After these: three numbers and a trace for each of g1, g2 and T; two numbers for each parameter of the profile.
PROFILE = SHAPE + 12
NTABLE = PROFILE + 2 * MAX_EXTRA


@njit(cache=True)
def make_work():
    """Return the work buffer of `fill_row`."""
    work = np.zeros((EXTRA + NEXTRA + 1) * STRIDE)
    for j in range(STRIDE):
        work[STEPS * STRIDE + j] = j
    return work


@njit(cache=True)
def shape_maps(g1, g2, wcs, maps):
    """Fill half of the pixel-space dP/dg1 and dP/dg2 per unit T, and dP/dT, as (rr, rc, cc); False if |g| >= 1."""
    d00, d01, d10, d11 = wcs[2], wcs[3], wcs[4], wcs[5]
    det = d00 * d11 - d01 * d10
    a, b, c, d = d11 / det, -d01 / det, -d10 / det, d00 / det
    gg = g1 * g1 + g2 * g2
    # Written so that NaN fails too.
    if not gg < 1.0:
        return False
    factor = 2.0 / (1.0 + gg)
    slope = -factor / (1.0 + gg)
    for k in range(3):
        if k == 2:
            vv, vu, uu = 0.5 * (1.0 - factor * g1), 0.5 * factor * g2, 0.5 * (1.0 + factor * g1)
        else:
            if k == 0:
                e1, e2 = factor + 2.0 * g1 * g1 * slope, 2.0 * g1 * g2 * slope
            else:
                e1, e2 = 2.0 * g1 * g2 * slope, factor + 2.0 * g2 * g2 * slope
            vv, vu, uu = -0.5 * e1, 0.5 * e2, 0.5 * e1
        maps[k, 0] = 0.5 * (a * a * vv + 2.0 * a * b * vu + b * b * uu)
        maps[k, 1] = 0.5 * (a * c * vv + (a * d + b * c) * vu + b * d * uu)
        maps[k, 2] = 0.5 * (c * c * vv + 2.0 * c * d * vu + d * d * uu)
    return True


@njit(cache=True)
def add_gaussian(gaussian, p, f, vv, vu, uu, v, u, wcs, nrow, ncol, cut):
    """Fill one row of a table with a sky Gaussian on a stamp; False if its covariance is not positive.

    p is its share of the flux, f its size relative to T. `add_slopes` fills the rest.
    """
    d00, d01, d10, d11 = wcs[2], wcs[3], wcs[4], wcs[5]
    det_j = d00 * d11 - d01 * d10
    i00, i01, i10, i11 = d11 / det_j, -d01 / det_j, -d10 / det_j, d00 / det_j
    det_sky = vv * uu - vu * vu
    if not (det_sky > 1e-200 and vv > 0.0 and uu > 0.0 and det_sky < 1e200):
        return False
    rr = i00 * i00 * vv + 2.0 * i00 * i01 * vu + i01 * i01 * uu
    rc = i00 * i10 * vv + (i00 * i11 + i01 * i10) * vu + i01 * i11 * uu
    cc = i10 * i10 * vv + 2.0 * i10 * i11 * vu + i11 * i11 * uu
    det = det_sky / (det_j * det_j)
    row = wcs[0] + i00 * v + i01 * u
    col = wcs[1] + i10 * v + i11 * u
    # Bounded, because they become whole numbers.
    if not (abs(row) < 1e9 and abs(col) < 1e9):
        return False
    gaussian[AMPLITUDE] = 1.0 / (2.0 * math.pi * math.sqrt(det))
    gaussian[ROW], gaussian[COL] = row, col
    gaussian[QRR], gaussian[QRC], gaussian[QCC] = cc / det, -rc / det, rr / det
    reach, span = math.sqrt(cut[0] * rr), math.sqrt(cut[0] * cc)
    gaussian[FIRST] = max(math.ceil(max(row - reach, -1.0)), 0)
    gaussian[LAST] = min(math.floor(min(row + reach, 1e9)), nrow - 1)
    gaussian[LEFT] = max(math.ceil(max(col - span, -1.0)), 0)
    gaussian[RIGHT] = min(math.floor(min(col + span, 1e9)), ncol - 1)
    gaussian[P], gaussian[SIZE] = p, f
    # chi^2 in the corners of the box.
    tilt = 1.0 - abs(rc) / math.sqrt(rr * cc)
    gaussian[FRESH] = 1.0 if 2.0 * cut[0] > 1200.0 * tilt else 0.0
    gaussian[DOWN] = math.exp(-gaussian[QRR])
    return True


@njit(cache=True, error_model="numpy")
def add_slopes(gaussian, maps, size):
    """Fill, for g1, g2 and T, Q M Q and tr Q M with M half the derivative of the covariance; `size` is f T."""
    qrr, qrc, qcc = gaussian[QRR], gaussian[QRC], gaussian[QCC]
    for k in range(3):
        scale = gaussian[SIZE] if k == 2 else size
        rr, rc, cc = scale * maps[k, 0], scale * maps[k, 1], scale * maps[k, 2]
        xr, xc, yr, yc = qrr * rr + qrc * rc, qrr * rc + qrc * cc, qrc * rr + qcc * rc, qrc * rc + qcc * cc
        at = SHAPE + 4 * k
        gaussian[at] = xr * qrr + xc * qrc
        gaussian[at + 1] = 2.0 * (xr * qrc + xc * qcc)
        gaussian[at + 2] = yr * qrc + yc * qcc
        gaussian[at + 3] = xr + yc


@njit(cache=True, error_model="numpy")
def start_rows(gaussian, value, factor, i):
    """Fill the values and the factors to the next row of one Gaussian on image row `i`."""
    lo, hi = int(gaussian[LEFT]), int(gaussian[RIGHT]) + 1
    qrr, qrc, qcc = gaussian[QRR], gaussian[QRC], gaussian[QCC]
    dr = i - gaussian[ROW]
    x = lo - gaussian[COL]
    e = gaussian[AMPLITUDE] * math.exp(-0.5 * (qrr * dr * dr + x * (2.0 * qrc * dr + qcc * x)))
    r, q = math.exp(-(qrc * dr + qcc * (x + 0.5))), math.exp(-qcc)
    s, t = math.exp(-(qrr * (dr + 0.5) + qrc * x)), math.exp(-qrc)
    for j in range(lo, hi):
        value[j] = e
        factor[j] = s
        e *= r
        r *= q
        s *= t


# One function with all its loops: at some 20 pixels a row, calls would cost as much as the arithmetic.
@njit(cache=True, error_model="numpy")
def fill_row(table, begin, end, state, side, i, work, mode, nextra, own, inverse, cut):
    """Add Gaussians to image row `i` of the work buffer and take them to the next row; returns whether any is there.

    Parameters
    ----------
    table : float64 [>= end, NTABLE]
        Gaussians `begin` to `end` are added.
    state : float64 [>= end * 2 * side]
        Value and factor to the next row of each column; rows must be asked for in order.
    side : int
        Columns of `state`.
    work : float64
        From `make_work`.
    mode : int
        0 the template alone, 1 with the centre, 2 with shape and size too.
    nextra : int
        Parameters of the profile.
    own : int
        How far apart the rows of extra parameters of one Gaussian and the next are: 0 adds them up.
    inverse : float64 [4]
        J^-1: d row/dv, d row/du, d col/dv, d col/du.
    cut : float64 [2]
        `WINDOW` or `EXACT`.
    """
    found = False
    last, bend = cut[0], cut[1]
    width = 1.0 / (last - bend)
    for k in range(begin, end):
        g = table[k]
        if g[FIRST] > i or g[LAST] < i:
            continue
        found = True
        left, right = int(g[LEFT]), int(g[RIGHT]) + 1
        fresh = g[FRESH] > 0.0
        if not fresh:
            if g[FIRST] == i:
                begun = 2 * k * side
                start_rows(g, state[begun : begun + side], state[begun + side : begun + 2 * side], i)
            value, factor = state[2 * k * side + left :], state[(2 * k + 1) * side + left :]
            out = work[left:]
            down = g[DOWN]
            for j in range(right - left):
                e = value[j]
                s = factor[j]
                out[NEAR * STRIDE + j] = e
                out[FAR * STRIDE + j] = e
                value[j] = e * s
                factor[j] = s * down
        dr = i - g[ROW]
        qcc = g[QCC]
        b, c = g[QRC] * dr, g[QRR] * dr * dr
        variance = 1.0 / qcc
        least = c - b * b * variance
        if least >= last:
            continue
        middle = g[COL] - b * variance
        half = math.sqrt((last - least) * variance)
        lo = max(math.ceil(max(middle - half, -1.0)), left)
        hi = min(math.floor(min(middle + half, 1e9)) + 1, right)
        if hi <= lo:
            continue
        if fresh:
            # Of a needle only the few columns of each row that it is on.
            out = work[lo:]
            x = lo - g[COL]
            for j in range(hi - lo):
                e = g[AMPLITUDE] * math.exp(-0.5 * (c + x * (2.0 * b + qcc * x)))
                out[NEAR * STRIDE + j] = e
                out[FAR * STRIDE + j] = e
                x += 1.0
        inner, outer = hi, hi
        if least < bend:
            half = math.sqrt((bend - least) * variance)
            inner = min(max(math.ceil(max(middle - half, -1.0)), lo), hi)
            outer = min(max(math.floor(min(middle + half, 1e9)) + 1, inner), hi)
        for edge in range(2):
            first, stop = (lo, inner) if edge == 0 else (outer, hi)
            x = first - g[COL]
            out = work[first:]
            for j in range(stop - first):
                chi2 = c + x * (2.0 * b + qcc * x)
                w = min(max((last - chi2) * width, 0.0), 1.0)
                e = out[NEAR * STRIDE + j]
                near = e * w * w * w * (10.0 - 15.0 * w + 6.0 * w * w)
                out[NEAR * STRIDE + j] = near
                # Less 2 dW/dchi2 = -60 w^2 (1 - w)^2 / width of the window.
                out[FAR * STRIDE + j] = near + 60.0 * width * e * w * w * (1.0 - w) * (1.0 - w)
                x += 1.0
        out = work[lo:]
        n = hi - lo
        p, x0 = g[P], -g[COL]
        if mode == 0:
            for j in range(n):
                out[j] += p * out[NEAR * STRIDE + j]
        else:
            ar, br, ac, bc = p * g[QRR] * dr, p * g[QRC], p * g[QRC] * dr, p * qcc
            v0, v1 = inverse[0] * ar + inverse[2] * ac, inverse[0] * br + inverse[2] * bc
            u0, u1 = inverse[1] * ar + inverse[3] * ac, inverse[1] * br + inverse[3] * bc
            if mode == 1:
                for j in range(n):
                    far = out[FAR * STRIDE + j]
                    x = out[STEPS * STRIDE + j] + x0
                    out[j] += p * out[NEAR * STRIDE + j]
                    out[STRIDE + j] += far * (v0 + v1 * x)
                    out[2 * STRIDE + j] += far * (u0 + u1 * x)
            else:
                a0, a1, a2, a3 = p * g[SHAPE] * dr * dr, p * g[SHAPE + 1] * dr, p * g[SHAPE + 2], p * g[SHAPE + 3]
                b0, b1, b2, b3 = p * g[SHAPE + 4] * dr * dr, p * g[SHAPE + 5] * dr, p * g[SHAPE + 6], p * g[SHAPE + 7]
                c0, c1, c2, c3 = p * g[SHAPE + 8] * dr * dr, p * g[SHAPE + 9] * dr, p * g[SHAPE + 10], p * g[SHAPE + 11]
                for j in range(n):
                    near = out[NEAR * STRIDE + j]
                    far = out[FAR * STRIDE + j]
                    x = out[STEPS * STRIDE + j] + x0
                    out[j] += p * near
                    out[STRIDE + j] += far * (v0 + v1 * x)
                    out[2 * STRIDE + j] += far * (u0 + u1 * x)
                    out[3 * STRIDE + j] += far * (a0 + x * (a1 + a2 * x)) - a3 * near
                    out[4 * STRIDE + j] += far * (b0 + x * (b1 + b2 * x)) - b3 * near
                    out[5 * STRIDE + j] += far * (c0 + x * (c1 + c2 * x)) - c3 * near
        for m in range(nextra):
            by_p, by_f = g[PROFILE + 2 * m], g[PROFILE + 2 * m + 1]
            into = work[(EXTRA + m + own * (k - begin)) * STRIDE + lo :]
            if by_f == 0.0:
                for j in range(n):
                    into[j] += by_p * out[NEAR * STRIDE + j]
                continue
            c0, c1, c2 = by_f * g[SHAPE + 8] * dr * dr, by_f * g[SHAPE + 9] * dr, by_f * g[SHAPE + 10]
            c3 = by_p - by_f * g[SHAPE + 11]
            for j in range(n):
                x = out[STEPS * STRIDE + j] + x0
                into[j] += c3 * out[NEAR * STRIDE + j] + out[FAR * STRIDE + j] * (c0 + x * (c1 + c2 * x))
    return found


@njit(cache=True)
def invert_map(wcs, inverse):
    """Fill J^-1: d row/dv, d row/du, d col/dv, d col/du."""
    det = wcs[2] * wcs[5] - wcs[3] * wcs[4]
    inverse[0], inverse[1], inverse[2], inverse[3] = wcs[5] / det, -wcs[3] / det, -wcs[4] / det, wcs[2] / det


@njit(cache=True, error_model="numpy")
def dot(a, b):
    """Return the inner product."""
    return lane_dot(a, b)


@njit(cache=True, error_model="numpy")
def less(a, b):
    """Take `b` off `a`."""
    for j in range(a.shape[0]):
        a[j] -= b[j]


@njit(cache=True, error_model="numpy")
def times(a, b, out):
    """Fill `out` with the product pixel by pixel."""
    for j in range(a.shape[0]):
        out[j] = a[j] * b[j]


@njit(cache=True)
def copy_row(source, into):
    """Copy as much as `into` holds."""
    for j in range(into.shape[0]):
        into[j] = source[j]


@njit(cache=True)
def clear_rows(work, left, right, mode, nextra):
    """Set the columns of the rows that `fill_row` adds to to 0."""
    last = 1 if mode == 0 else 3 if mode == 1 else 6
    for line in range(last):
        work[line * STRIDE + left : line * STRIDE + right] = 0.0
    for line in range(EXTRA, EXTRA + nextra):
        work[line * STRIDE + left : line * STRIDE + right] = 0.0
