"""Compiled algebra on Gram matrices: products of many vectors, normal equations at any flux, and the best fluxes."""

from __future__ import annotations

import math

import numpy as np

from balrogutils.compiled import njit
from balrogutils.fitting.gaussians import dot, times

__all__ = ["add_products", "assemble", "data_power", "linear_fluxes"]

# Rows of the triangle of products that are made at once: more waste what is above it, fewer are slow.
PANEL = 48


@njit(cache=True)
def add_products(rows, weight, data, chosen, last, few, work, out):
    """Add weighted inner products of vectors to the lower triangle of a matrix, those with the data to a column.

    One by one, products of hundreds of vectors wait for memory most of the time. Those of matrices do not.

    rows : float64 [nvector * npix], vector after vector; weight, data : float64 [npix]; chosen : int64 [nvector], where
    the vectors are in `out`, ascending; last : int, the column of the data; few : bool, whether products are made one
    by one; work : float64 [>= nvector * npix]; out : float64 [> last, > last].
    """
    count, n = chosen.shape[0], weight.shape[0]
    for k in range(count):
        weighted = work[:n] if few else work[k * n : (k + 1) * n]
        times(rows[k * n : (k + 1) * n], weight, weighted)
        out[chosen[k], last] += dot(weighted, data)
        if few:
            for other in range(k + 1):
                out[chosen[k], chosen[other]] += dot(weighted, rows[other * n : (other + 1) * n])
    if few:
        return
    for begin in range(0, count, PANEL):
        end = min(begin + PANEL, count)
        left, right = work[begin * n : end * n].reshape(end - begin, n), rows[: end * n].reshape(end, n)
        part = np.dot(left, right.T)
        for k in range(begin, end):
            for other in range(k + 1):
                out[chosen[k], chosen[other]] += part[k - begin, other]


@njit(cache=True)
def assemble(matrix, data, pars, place, flux, owner, normal, gradient):
    """Fill the normal equations from Gram matrices and return chi^2.

    place : int64 [nvector], the parameter of a derivative, or -1 for a template; flux : int64 [nsource, nband]; owner
    : int64 [nvector], the source of a vector.
    """
    nband, nvector = matrix.shape[0], place.shape[0]
    normal[:, :] = 0.0
    gradient[:] = 0.0
    chi2 = 0.0
    at = np.empty(nvector, np.int64)
    scale = np.empty(nvector)
    for band in range(nband):
        one = matrix[band]
        chi2 += data[band]
        for a in range(nvector):
            amount = pars[flux[owner[a], band]]
            at[a] = place[a] if place[a] >= 0 else flux[owner[a], band]
            scale[a] = amount if place[a] >= 0 else 1.0
        for a in range(nvector):
            slope = -one[a, nvector]
            for b in range(nvector):
                if place[b] < 0:
                    slope += one[a, b] * pars[at[b]]
                normal[at[a], at[b]] += scale[a] * scale[b] * one[a, b]
            gradient[at[a]] += scale[a] * slope
            if place[a] < 0:
                # m' (m - d) - d' m = m' m - 2 d' m
                chi2 += pars[at[a]] * (slope - one[a, nvector])
    return chi2


@njit(cache=True)
def data_power(data):
    """Return sum d^2 w of each band."""
    out = np.zeros(data.nband)
    for s in range(data.start.shape[0]):
        total = 0.0
        for j in range(data.start[s], data.start[s] + data.nrow[s] * data.ncol[s]):
            total += data.weight[j] * data.image[j] * data.image[j]
        out[data.band[s]] += total
    return out


@njit(cache=True)
def linear_fluxes(matrix, templates, flux, solved, pars):
    """Set the solved fluxes of all bands to the minimum of chi^2; False where there is none."""
    nsource = templates.shape[0]
    lower, right = np.empty((nsource, nsource)), np.empty(nsource)
    chosen = np.empty(nsource, np.int64)
    for band in range(matrix.shape[0]):
        one = matrix[band]
        n = 0
        for k in range(nsource):
            if solved[flux[k, band]]:
                chosen[n] = k
                n += 1
        for i in range(n):
            a = templates[chosen[i]]
            if not one[a, a] > 0.0:
                return False
            right[i] = one[a, one.shape[1] - 1]
            for k in range(nsource):
                if not solved[flux[k, band]]:
                    right[i] -= one[a, templates[k]] * pars[flux[k, band]]
            for j in range(i + 1):
                total = one[a, templates[chosen[j]]]
                for k in range(j):
                    total -= lower[i, k] * lower[j, k]
                if i == j:
                    # Templates that are alike to 12 digits have no fluxes of their own.
                    if not total > 1e-12 * one[a, a]:
                        return False
                    lower[i, i] = math.sqrt(total)
                else:
                    lower[i, j] = total / lower[j, j]
            for k in range(i):
                right[i] -= lower[i, k] * right[k]
            right[i] /= lower[i, i]
        for i in range(n - 1, -1, -1):
            for k in range(i + 1, n):
                right[i] -= lower[k, i] * right[k]
            right[i] /= lower[i, i]
            pars[flux[chosen[i], band]] = right[i]
    return True
