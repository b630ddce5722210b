"""Forced photometry: positions and shapes given, fluxes linear, of any number of sources on any images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.kernels import Links
from balrogutils.fitting.models import Model
from balrogutils.fitting.observation import Stack
from balrogutils.fitting.scene import Accuracy, Scene

__all__ = ["ForcedFluxes", "force_fluxes"]

F64 = NDArray[np.float64]


class ForcedFluxes(NamedTuple):
    """flags : `FitFlag` bits [nsource, nband]; flux : [nsource, nband], NaN where flagged; cov : [nband, nsource,
    nsource], inverse normal matrix, NaN for flagged sources; chi2, npix : [nband], of the pixels of each band."""

    flags: NDArray[np.int64]
    flux: F64
    cov: F64
    chi2: F64
    npix: NDArray[np.int64]

    @property
    def error(self) -> F64:
        """Standard errors, [nsource, nband]."""
        return np.sqrt(np.diagonal(self.cov, axis1=1, axis2=2)).T


def force_fluxes(
    data: Stack,
    links: Links,
    models: Sequence[Model],
    shapes: Sequence[F64],
    *,
    nonnegative: bool = False,
    accuracy: Accuracy | None = None,
) -> ForcedFluxes:
    """Measure the fluxes of sources whose positions and shapes are known.

    Parameters
    ----------
    data, links
        Stamps and who is on them; any bands and epochs, those of the fit that gave the shapes or others.
    models : sequence of Model
        Model of each source.
    shapes : sequence of ndarray
        All parameters of each source but its fluxes; a source whose shape is not finite is flagged and left out.
    nonnegative : bool
        Whether fluxes below 0 are not allowed. Errors are those without the limit.
    accuracy : Accuracy, optional
        As in `Scene`.

    Returns
    -------
    ForcedFluxes
        DIV_ZERO for a source without light on any used pixel of a band, GMIX_RANGE_ERROR for one without an image,
        LM_SINGULAR_MATRIX for sources of a band that cannot be told apart.

    Notes
    -----
    With templates t of flux 1 the fluxes of a band are the solution of (t_k' W t_l) F = t_k' W d (M 4.4, M 5.3).
    """
    count, nband = len(models), data.nband
    flags = np.zeros((count, nband), np.int64)
    flux, cov = np.full((count, nband), math.nan), np.full((nband, count, count), math.nan)
    pars = [np.concatenate([shape, np.ones(nband)]) for shape in shapes]
    usable = np.array([bool(np.all(np.isfinite(shape))) for shape in shapes], bool)
    if not usable.all():
        pars = [one if good else _stand_in(model, nband) for one, good, model in zip(pars, usable, models, strict=True)]
    together = np.concatenate(pars)
    scene = Scene(data, models, links, free=np.zeros(together.size, bool), accuracy=accuracy)
    matrix = scene.gram(together)
    npix = np.zeros(nband, np.int64)
    for stamp, start in enumerate(data.start):
        size = int(data.nrow[stamp] * data.ncol[stamp])
        npix[data.band[stamp]] += np.count_nonzero(data.weight[start : start + size])
    chi2 = scene.power.copy()
    if matrix is None:
        flags[:] = FitFlag.GMIX_RANGE_ERROR
        return ForcedFluxes(flags, flux, cov, chi2, npix)
    flags[~usable] = FitFlag.GMIX_RANGE_ERROR
    for band in range(nband):
        power, cross = matrix[band, :-1, :-1], matrix[band, :-1, -1]
        dark = usable & ~(np.diag(power) > 0.0)
        flags[dark, band] = FitFlag.DIV_ZERO
        there = np.flatnonzero(usable & ~dark)
        if not there.size:
            continue
        system, right = power[np.ix_(there, there)], cross[there]
        scale = 1.0 / np.sqrt(np.diag(system))
        try:
            lower = np.linalg.cholesky(system * np.outer(scale, scale))
        except np.linalg.LinAlgError:
            lower = np.zeros_like(system)
        if not np.diag(lower).min() > 1e-6:
            flags[there, band] = FitFlag.LM_SINGULAR_MATRIX
            continue
        target = solve_triangular(lower, scale * right, lower=True)
        found = nnls(lower.T, target)[0] if nonnegative else solve_triangular(lower.T, target)
        flux[there, band] = scale * found
        half = solve_triangular(lower, np.diag(scale), lower=True)
        cov[band][np.ix_(there, there)] = half.T @ half
        best = flux[there, band]
        chi2[band] += float(best @ system @ best - 2.0 * best @ right)
    return ForcedFluxes(flags, flux, cov, chi2, npix)


def _stand_in(model: Model, nband: int) -> F64:
    """Return parameters with which a source that is left out can be evaluated."""
    return np.array([0.0] * min(len(model.names), 5) + [one.start for one in model.extras] + [1.0] * nband)
