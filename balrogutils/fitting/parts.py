"""Some sources of a scene, with the stamps that they are on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from balrogutils.fitting.kernels import Links
from balrogutils.fitting.observation import Stack

__all__ = ["keep_sources", "on_their_stamps"]

I64 = NDArray[np.int64]


def keep_sources(data: Stack, links: Links, sources: I64) -> Links:
    """Return the links of some sources, numbered in the order of `sources`; stamps without any of them stay."""
    count = int(max(links.source.max(initial=-1), np.max(sources, initial=-1))) + 1
    rank = np.full(count, -1, np.int64)
    rank[sources] = np.arange(len(sources))
    kept = np.flatnonzero(rank[links.source] >= 0)
    stamp_of = np.repeat(np.arange(data.start.size), np.diff(links.first))
    counts = np.bincount(stamp_of[kept], minlength=data.start.size)
    return Links(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        rank[links.source[kept]],
        np.ascontiguousarray(links.wcs[kept]),
        np.ascontiguousarray(links.psf[kept]),
        links.residual,
        links.offset[kept],
    )


def on_their_stamps(data: Stack, links: Links, sources: I64) -> tuple[Stack, Links, I64]:
    """Return the stamps that some sources are on, their links, and where the pixels are in all of them.

    Parameters
    ----------
    data, links
        Stamps and links of the whole scene, without residual images.
    sources : ndarray of int, shape (n,)
        Sources to keep; they are numbered in this order.

    Returns
    -------
    Stack, Links
        A scene of its own.
    ndarray of int64, shape (npix,)
        Index of each of its pixels in the pixels of `data`.
    """
    some = keep_sources(data, links, sources)
    counts = np.diff(some.first)
    stamps = np.flatnonzero(counts)
    sizes = data.nrow[stamps] * data.ncol[stamps]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    pixels = np.repeat(data.start[stamps] - starts, sizes) + np.arange(int(sizes.sum()))
    weight = data.weight[pixels]
    part = Stack(
        data.image[pixels],
        weight,
        starts,
        data.nrow[stamps],
        data.ncol[stamps],
        data.band[stamps],
        data.wcs[stamps],
        int(np.count_nonzero(weight)),
        data.nband,
    )
    return part, some._replace(first=np.concatenate([[0], np.cumsum(counts[stamps])]).astype(np.int64)), pixels
