"""Compiled sums over the pixels of stamps: inner products of templates and their derivatives, and images of them.

A *vector* is an image of flux 1 or its derivative by one parameter. All that a least-squares fit needs are the
weighted inner products of the vectors with each other and with the data, the *Gram matrix*; fluxes multiply them
afterwards, so that one pass over the pixels serves the normal equations at any flux, and the best fluxes too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.compiled import njit
from balrogutils.fitting.algebra import add_products
from balrogutils.fitting.gaussians import (
    EXTRA,
    FIRST,
    LAST,
    LEFT,
    MAX_EXTRA,
    NTABLE,
    PROFILE,
    RIGHT,
    STRIDE,
    add_gaussian,
    add_slopes,
    clear_rows,
    copy_row,
    fill_row,
    invert_map,
    make_work,
    shape_maps,
)

__all__ = ["MERGE", "Links", "Sources", "capacity", "gram", "images", "source_table"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Neighbouring Gaussians of a profile that the PSF makes alike are added up where that changes the image by less
# than this part of the peak of a point source.
MERGE = 1e-7
# Pixels taken together, in whole rows.
BATCH = 256
# Sources on a stamp from which on products are those of matrices.
MANY = 4
NVECTOR = 6 + MAX_EXTRA


class Links(NamedTuple):
    """Which source is on which stamp, in the order of the stamps.

    first : int64 [nstamp + 1]; source : int64 [nlink]; wcs : float64 [nlink, 6], centred on the source's reference
    position; psf : float64 [nlink, npsf, 6], mixtures of a star of flux 1, centred on their own centroid, components
    with p = 0 are skipped; residual : float64, flat, [npix of the link's stamp], what is added to the template of flux
    1, or empty; offset : int64 [nlink], where it begins.
    """

    first: I64
    source: I64
    wcs: F64
    psf: F64
    residual: F64
    offset: I64


class Sources(NamedTuple):
    """Profiles at one point of parameter space.

    shape : float64 [nsource, 5], v, u, g1, g2, T; first : int64 [nsource + 1], components of each source; p, f :
    float64 [ncomponent]; dp, df : float64 [ncomponent, MAX_EXTRA], their slopes by the parameters of the profile;
    nextra : int64 [nsource]; vector : int64 [nsource, 6 + MAX_EXTRA], where template and derivatives by v, u, g1, g2,
    T and the parameters of the profile stand in the Gram matrix, -1 for those that nobody needs.
    """

    shape: F64
    first: I64
    p: F64
    f: F64
    dp: F64
    df: F64
    nextra: I64
    vector: I64


@njit(cache=True)
def _merged(sources, source, psf, merge, out):
    """Fill p, f, and slopes of the components that are left; returns how many."""
    size = sources.shape[source, 4]
    least = np.inf
    for m in range(psf.shape[0]):
        if psf[m, 0] != 0.0:
            least = min(least, 2.0 * math.sqrt(max(psf[m, 3] * psf[m, 5] - psf[m, 4] ** 2, 0.0)))
    # T is rounded up to a power of 2, so that which components are alike changes in few places.
    size = 2.0 ** math.ceil(math.log2(max(abs(size), 1e-10))) if abs(size) < 1e200 else 1e200
    nextra = sources.nextra[source]
    count = 0
    spread = 0.0
    for k in range(sources.first[source], sources.first[source + 1]):
        p, f = sources.p[k], sources.f[k]
        if count > 0 and merge > 0.0 and least > 0.0 and p * out[count - 1, 0] > 0.0:
            # Sum of p (f - mean)^2 if k is added.
            before, mean = out[count - 1, 0], out[count - 1, 1]
            together = spread + before * p / (before + p) * (f - mean) ** 2
            ratio = size / (least + size * min(f, mean))
            if abs(together) * ratio * ratio < merge:
                total = before + p
                joint = (before * mean + p * f) / total
                for x in range(nextra):
                    slope = before * out[count - 1, 3 + 2 * x] + out[count - 1, 2 + 2 * x] * mean
                    slope += p * sources.df[k, x] + sources.dp[k, x] * f
                    change = out[count - 1, 2 + 2 * x] + sources.dp[k, x]
                    out[count - 1, 2 + 2 * x] = change
                    out[count - 1, 3 + 2 * x] = (slope - joint * change) / total
                out[count - 1, 0], out[count - 1, 1] = total, joint
                spread = together
                continue
        out[count, 0], out[count, 1] = p, f
        for x in range(nextra):
            out[count, 2 + 2 * x], out[count, 3 + 2 * x] = sources.dp[k, x], sources.df[k, x]
        spread = 0.0
        count += 1
    return count


@njit(cache=True)
def source_table(table, count, sources, source, psf, wcs, nrow, ncol, mode, cut, merge, maps, parts):
    """Append the Gaussians of a source on a stamp to the table; returns their end, -1 if impossible."""
    v, u, g1, g2, size = sources.shape[source]
    if not shape_maps(g1, g2, wcs, maps):
        return -1
    gg = g1 * g1 + g2 * g2
    e1, e2 = 2.0 * g1 / (1.0 + gg), 2.0 * g2 / (1.0 + gg)
    vv, vu, uu = 0.5 * size * (1.0 - e1), 0.5 * size * e2, 0.5 * size * (1.0 + e1)
    nextra = sources.nextra[source]
    for k in range(_merged(sources, source, psf, merge, parts)):
        p, f = parts[k, 0], parts[k, 1]
        for m in range(psf.shape[0]):
            q = psf[m, 0]
            if q == 0.0:
                continue
            one = table[count]
            # A point source has no size, and its profile one component.
            if not add_gaussian(
                one,
                p * q,
                f,
                f * vv + psf[m, 3],
                f * vu + psf[m, 4],
                f * uu + psf[m, 5],
                v + psf[m, 1],
                u + psf[m, 2],
                wcs,
                nrow,
                ncol,
                cut,
            ):
                return -1
            if one[FIRST] > one[LAST] or one[LEFT] > one[RIGHT]:
                continue
            if mode == 2 or nextra > 0:
                add_slopes(one, maps, f * size)
            for x in range(nextra):
                one[PROFILE + 2 * x] = parts[k, 2 + 2 * x] * q
                # dI/dT is f dI/dS: the change of f needs T dI/dS.
                one[PROFILE + 2 * x + 1] = p * q * parts[k, 3 + 2 * x] * size / f if f > 0.0 else 0.0
            count += 1
    return count


@njit(cache=True)
def _mode(vector):
    """Return what `fill_row` must do for the vectors that are needed."""
    if vector[3] >= 0 or vector[4] >= 0 or vector[5] >= 0:
        return 2
    return 1 if vector[1] >= 0 or vector[2] >= 0 else 0


@njit(cache=True)
def capacity(links, sources):
    """Return the largest number of Gaussians and of links on one stamp."""
    most, most_links = 1, 1
    for s in range(links.first.shape[0] - 1):
        count = 0
        for k in range(links.first[s], links.first[s + 1]):
            source = links.source[k]
            count += (sources.first[source + 1] - sources.first[source]) * links.psf.shape[1]
        most, most_links = max(most, count), max(most_links, links.first[s + 1] - links.first[s])
    return most, most_links


@njit(cache=True)
def gram(pixels, links, sources, cut, merge, out):
    """Fill the Gram matrices of all bands; False where a model cannot be evaluated.

    Parameters
    ----------
    pixels : Stack
        Stamps.
    links : Links
        Sources on them.
    sources : Sources
        What they look like.
    cut : float64 [2]
        Where Gaussians end, `WINDOW` or `EXACT`.
    merge : float
        `MERGE`, or 0 to keep every component.
    out : float64 [nband, nvector + 1, nvector + 1]
        Overwritten: symmetric; the last row and column are the data. Its last element stays 0: it is not a function
        of the parameters.
    """
    out[:, :, :] = 0.0
    nvector = out.shape[1] - 1
    most, most_links = capacity(links, sources)
    table = np.empty((most, NTABLE))
    side = pixels.ncol.max()
    state = np.empty(most * 2 * side)
    parts = np.empty((sources.p.shape[0] + 1, 2 + 2 * MAX_EXTRA))
    work = make_work()
    maps = np.empty((3, 3))
    inverse = np.empty((most_links, 4))
    ends = np.empty(most_links + 1, np.int64)
    mode = np.empty(most_links, np.int64)
    vectors = np.zeros(most_links + 1, np.int64)
    lowest, highest = np.empty(most_links, np.int64), np.empty(most_links, np.int64)
    index = np.empty(nvector, np.int64)
    owner = np.empty(nvector, np.int64)
    chosen = np.empty(nvector, np.int64)
    rows = np.zeros(1)
    small = np.zeros((1, 1))
    weight = np.empty(1)
    data = np.empty(1)
    weighted = np.empty(1)
    for s in range(pixels.start.shape[0]):
        nlink = links.first[s + 1] - links.first[s]
        nrow, ncol = pixels.nrow[s], pixels.ncol[s]
        ends[0] = 0
        nlocal = 0
        top, bottom, left, right = nrow, 0, ncol, 0
        for k in range(nlink):
            link = links.first[s] + k
            source = links.source[link]
            mode[k] = _mode(sources.vector[source])
            invert_map(links.wcs[link], inverse[k])
            ends[k + 1] = source_table(
                table,
                ends[k],
                sources,
                source,
                links.psf[link],
                links.wcs[link],
                nrow,
                ncol,
                mode[k],
                cut,
                merge,
                maps,
                parts,
            )
            if ends[k + 1] < 0:
                return False
            whole = links.offset[link] >= 0
            lowest[k], highest[k], vectors[k + 1] = nrow, 0, nlocal
            if whole:
                lowest[k], highest[k], left, right = 0, nrow, 0, ncol
            elif ends[k + 1] == ends[k]:
                continue
            for m in range(ends[k], ends[k + 1]):
                lowest[k], highest[k] = min(lowest[k], int(table[m, FIRST])), max(highest[k], int(table[m, LAST]) + 1)
                left, right = min(left, int(table[m, LEFT])), max(right, int(table[m, RIGHT]) + 1)
            top, bottom = min(top, lowest[k]), max(bottom, highest[k])
            for m in range(NVECTOR):
                if sources.vector[source, m] >= 0:
                    index[nlocal] = m
                    owner[nlocal] = k
                    nlocal += 1
            vectors[k + 1] = nlocal
        if nlocal == 0 or bottom <= top or right <= left:
            continue
        width = right - left
        together = max(1, BATCH // width)
        if rows.shape[0] < nlocal * together * width:
            rows, weighted = np.empty(nlocal * together * width), np.empty(nlocal * together * width)
        if small.shape[0] < nlocal or weight.shape[0] < together * width:
            size = max(weight.shape[0], together * width)
            small = np.zeros((max(small.shape[0], nlocal), max(small.shape[0], nlocal) + 1))
            weight, data = np.empty(size), np.empty(size)
        small[:nlocal, : nlocal + 1] = 0.0
        for begin in range(top, bottom, together):
            end = min(begin + together, bottom)
            n = (end - begin) * width
            # Vectors of the sources that are on these rows, one after the other.
            count = 0
            for k in range(nlink):
                if highest[k] <= begin or lowest[k] >= end:
                    continue
                link = links.first[s] + k
                nextra = sources.nextra[links.source[link]]
                for i in range(begin, end):
                    fill_row(table, ends[k], ends[k + 1], state, side, i, work, mode[k], nextra, 0, inverse[k], cut)
                    at = count * n + (i - begin) * width
                    for m in range(vectors[k], vectors[k + 1]):
                        line = index[m] if index[m] < 6 else index[m] + EXTRA - 6
                        copy_row(work[line * STRIDE + left : line * STRIDE + right], rows[at : at + width])
                        if index[m] == 0 and links.offset[link] >= 0:
                            begin_at = links.offset[link] + i * ncol
                            for j in range(ncol):
                                rows[at + j] += links.residual[begin_at + j]
                        at += n
                    clear_rows(work, left, right, mode[k], nextra)
                for m in range(vectors[k], vectors[k + 1]):
                    chosen[count] = m
                    count += 1
            for i in range(begin, end):
                begin_at = pixels.start[s] + i * ncol + left
                weight[(i - begin) * width : (i - begin + 1) * width] = pixels.weight[begin_at : begin_at + width]
                data[(i - begin) * width : (i - begin + 1) * width] = pixels.image[begin_at : begin_at + width]
            few = nlink < MANY
            add_products(rows[: count * n], weight[:n], data[:n], chosen[:count], nlocal, few, weighted, small)
        band = pixels.band[s]
        for m in range(nlocal):
            a = sources.vector[links.source[links.first[s] + owner[m]], index[m]]
            out[band, a, nvector] += small[m, nlocal]
            for other in range(m + 1):
                b = sources.vector[links.source[links.first[s] + owner[other]], index[other]]
                out[band, max(a, b), min(a, b)] += small[m, other]
    for band in range(out.shape[0]):
        for a in range(nvector):
            out[band, nvector, a] = out[band, a, nvector]
            for b in range(a):
                out[band, b, a] = out[band, a, b]
    return True


@njit(cache=True)
def images(links, sources, link, nrow, ncol, cut, merge):
    """Return template and derivatives of one link as images.

    Parameters
    ----------
    links, sources, cut, merge
        As in `gram`.
    link : int
        Which one.
    nrow, ncol : int
        Shape of its stamp.

    Returns
    -------
    ndarray of float64, shape (6 + MAX_EXTRA, nrow, ncol)
        For flux 1, in the order of `Sources.vector`; NaN where the model cannot be evaluated.
    """
    out = np.zeros((NVECTOR, nrow, ncol))
    source = links.source[link]
    most, _ = capacity(links, sources)
    table, state, work = np.empty((most, NTABLE)), np.empty(most * 2 * ncol), make_work()
    parts = np.empty((sources.p.shape[0] + 1, 2 + 2 * MAX_EXTRA))
    maps, inverse = np.empty((3, 3)), np.empty(4)
    invert_map(links.wcs[link], inverse)
    count = source_table(
        table, 0, sources, source, links.psf[link], links.wcs[link], nrow, ncol, 2, cut, merge, maps, parts
    )
    if count < 0:
        out[:, :, :] = np.nan
        return out
    nextra = sources.nextra[source]
    for i in range(nrow):
        fill_row(table, 0, count, state, ncol, i, work, 2, nextra, 0, inverse, cut)
        for m in range(6 + nextra):
            line = m if m < 6 else m + EXTRA - 6
            copy_row(work[line * STRIDE : line * STRIDE + ncol], out[m, i])
        clear_rows(work, 0, ncol, 2, nextra)
        if links.offset[link] >= 0:
            begin = links.offset[link] + i * ncol
            for j in range(ncol):
                out[0, i, j] += links.residual[begin + j]
    return out
