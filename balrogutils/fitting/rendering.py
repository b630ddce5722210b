"""Images of whole scenes: the sum of all sources on all stamps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from balrogutils.compiled import njit
from balrogutils.errors import FitError
from balrogutils.fitting.gaussians import MAX_EXTRA, NTABLE, clear_rows, fill_row, invert_map, make_work
from balrogutils.fitting.kernels import capacity, source_table
from balrogutils.fitting.scene import Scene

__all__ = ["model_pixels"]

F64 = NDArray[np.float64]


@njit(cache=True)
def _add_models(pixels, links, sources, flux, cut, merge, out):
    """Add all sources to the pixels of the stack; False where one cannot be evaluated."""
    most, _ = capacity(links, sources)
    side = pixels.ncol.max()
    table, state, work = np.empty((most, NTABLE)), np.empty(most * 2 * side), make_work()
    parts = np.empty((sources.p.shape[0] + 1, 2 + 2 * MAX_EXTRA))
    maps, inverse = np.empty((3, 3)), np.empty(4)
    for s in range(pixels.start.shape[0]):
        nrow, ncol, band = pixels.nrow[s], pixels.ncol[s], pixels.band[s]
        for link in range(links.first[s], links.first[s + 1]):
            source = links.source[link]
            amount = flux[source, band]
            if amount == 0.0:
                continue
            count = source_table(
                table, 0, sources, source, links.psf[link], links.wcs[link], nrow, ncol, 0, cut, merge, maps, parts
            )
            if count < 0:
                return False
            invert_map(links.wcs[link], inverse)
            for i in range(nrow):
                begin = pixels.start[s] + i * ncol
                if count > 0 and fill_row(table, 0, count, state, side, i, work, 0, 0, 0, inverse, cut):
                    for j in range(ncol):
                        out[begin + j] += amount * work[j]
                    clear_rows(work, 0, ncol, 0, 0)
                if links.offset[link] >= 0:
                    rest = links.offset[link] + i * ncol
                    for j in range(ncol):
                        out[begin + j] += amount * links.residual[rest + j]
    return True


def model_pixels(scene: Scene, pars: F64, without: int | None = None) -> F64:
    """Return the image of all sources of a scene, flat in the order of its pixels.

    Parameters
    ----------
    scene : Scene
        Sources and stamps.
    pars : ndarray, shape (npar,)
        Parameters; sources whose fluxes are 0 are left out whatever their other parameters are.
    without : int, optional
        A source to leave out.

    Raises
    ------
    FitError
        When a source cannot be evaluated at these parameters.
    """
    flux = np.array(pars[scene.flux], float)
    if without is not None:
        flux[without] = 0.0
    out = np.zeros(scene.data.image.size)
    sources = scene.sources(pars)
    if not _add_models(scene.data, scene.links, sources, flux, scene.accuracy.cut, scene.accuracy.merge, out):
        raise FitError("a source has no image at these parameters")
    return out
