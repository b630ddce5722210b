"""Sources on stamps as one least-squares problem: parameters, normal equations, best fluxes.

A scene is any number of sources, each with its model, on any number of stamps with their own WCS, PSF and band. One
galaxy on its epochs is the smallest of them; overlapping galaxies that share pixels, each pixel counted once, are
the same problem with more links.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import FitError
from balrogutils.fitting.algebra import assemble, data_power, linear_fluxes
from balrogutils.fitting.gaussians import MAX_EXTRA, STRIDE, WINDOW
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.kernels import MERGE, Links, Sources, gram, images
from balrogutils.fitting.models import Components, Model
from balrogutils.fitting.observation import Stack
from balrogutils.fitting.priors import Flat

__all__ = ["Accuracy", "Scene", "single_links"]

F64 = NDArray[np.float64]
_FLUX_STEPS = 20


class Accuracy(NamedTuple):
    """Where Gaussians end (`WINDOW`, or `EXACT` for the last double) and which of them count as alike (0: none)."""

    cut: F64 = WINDOW
    merge: float = MERGE


def single_links(data: Stack, psf: F64, residual: F64 | None = None) -> Links:
    """Return the links of one source that is on every stamp, at the centre of its WCS.

    Parameters
    ----------
    data : Stack
        Stamps.
    psf : ndarray, shape (nstamp, npsf, 6)
        PSF mixture of each stamp, as a star of flux 1 looks there.
    residual : ndarray, shape (npix,), optional
        What is added to the template of flux 1, in the order of the pixels of the stack.
    """
    count = data.start.size
    return Links(
        np.arange(count + 1),
        np.zeros(count, np.int64),
        data.wcs,
        np.ascontiguousarray(psf, np.float64),
        np.zeros(1) if residual is None else residual,
        np.full(count, -1) if residual is None else data.start,
    )


class Scene:
    """Sources on stamps.

    Parameters
    ----------
    data : Stack
        Stamps of all bands.
    models : sequence of Model
        The model of each source.
    links : Links
        Which source is where.
    priors : sequence of JointPrior or None, optional
        Prior of each source.
    free : ndarray of bool, shape (npar,), optional
        Parameters to fit; the others keep their value.
    accuracy : Accuracy
        How exactly Gaussians are summed.

    Notes
    -----
    The parameter vector holds, source by source, v, u, g1, g2, T (none of the last three for a point source), those
    of the profile, and a flux in each band.

    Raises
    ------
    FitError
        When a stamp is too wide for the kernels, or numbers of sources disagree.
    """

    def __init__(
        self,
        data: Stack,
        models: Sequence[Model],
        links: Links,
        priors: Sequence[JointPrior | None] | None = None,
        free: NDArray[np.bool_] | None = None,
        accuracy: Accuracy | None = None,
    ) -> None:
        if int(data.ncol.max()) > STRIDE:
            raise FitError(
                f"a stamp has {int(data.ncol.max())} columns, more than {STRIDE}", remedy="cut the image into tiles"
            )
        self.data, self.models, self.links = data, tuple(models), links
        self.priors = tuple(priors) if priors is not None else (None,) * len(self.models)
        if len(self.priors) != len(self.models) or (links.source.size and links.source.max() >= len(self.models)):
            raise FitError("models, priors and links are not of the same sources")
        self.accuracy = accuracy or Accuracy()
        self.slices: list[slice] = []
        at = 0
        for one in self.models:
            size = len(one.names) + data.nband
            self.slices.append(slice(at, at + size))
            at += size
        self.npar = at
        self.free = np.ones(at, bool) if free is None else np.asarray(free, bool)
        self.flux = np.array([np.arange(part.stop - data.nband, part.stop) for part in self.slices])
        self.solved = np.zeros(at, bool)
        self.solved[self.flux.ravel()] = True
        self.solved &= self.free
        self.cusps = self._cusps()
        self._index()
        self._matrix = np.empty((data.nband, self._place.size + 1, self._place.size + 1))
        self.power = data_power(data)

    def _index(self) -> None:
        """Number the vectors that the Gram matrix must hold."""
        self._vector = np.full((len(self.models), 6 + MAX_EXTRA), -1)
        place: list[int] = []
        owner: list[int] = []
        for number, (one, part) in enumerate(zip(self.models, self.slices, strict=True)):
            self._vector[number, 0] = len(place)
            place.append(-1)
            owner.append(number)
            for k in range(len(one.names)):
                if self.free[part.start + k]:
                    self._vector[number, 1 + k] = len(place)
                    place.append(part.start + k)
                    owner.append(number)
        self._place, self._owner = np.array(place), np.array(owner)
        self._templates = np.flatnonzero(self._place < 0)

    @property
    def bounds(self) -> tuple[F64, F64]:
        """Lowest and highest value of each parameter, from priors and profiles; fixed parameters are not looked at."""
        low, high = np.full(self.npar, -np.inf), np.full(self.npar, np.inf)
        for one, part, prior in zip(self.models, self.slices, self.priors, strict=True):
            for k, extra in enumerate(one.extras):
                low[part.start + 5 + k], high[part.start + 5 + k] = extra.low, extra.high
            if prior is not None:
                bottom, top = prior.support(part.stop - part.start)
                low[part] = np.maximum(low[part], bottom)
                high[part] = np.minimum(high[part], top)
        low[~self.free], high[~self.free] = -np.inf, np.inf
        return low, high

    def _cusps(self) -> tuple[NDArray[np.int64], F64]:
        """Return where g1 of the sources with a cusp of the prior at g = 0 is, and the slopes of -ln p by |g| there."""
        places, slopes = [], []
        for one, part, prior in zip(self.models, self.slices, self.priors, strict=True):
            shape = slice(part.start + 2, part.start + 4)
            if prior is not None and not one.point and prior.cusp > 0.0 and self.free[shape].all():
                places.append(shape.start)
                slopes.append(prior.cusp)
        return np.array(places, np.int64), np.array(slopes)

    @property
    def noise(self) -> float:
        """Rounding of chi^2."""
        return 1e-14 * float(self.power.sum())

    def sources(self, pars: F64) -> Sources:
        """Return what the sources look like at these parameters.

        Raises
        ------
        FitError
            When a profile has no components there.
        """
        shape = np.zeros((len(self.models), 5))
        parts: list[Components] = []
        for number, (one, part) in enumerate(zip(self.models, self.slices, strict=True)):
            count = 2 if one.point else 5
            shape[number, :count] = pars[part.start : part.start + count]
            parts.append(one.components(pars[part.start + 5 : part.start + len(one.names)]))
        sizes = [part.p.size for part in parts]
        dp, df = np.zeros((sum(sizes), MAX_EXTRA)), np.zeros((sum(sizes), MAX_EXTRA))
        nextra = np.zeros(len(parts), np.int64)
        begin = 0
        for number, part_ in enumerate(parts):
            # Slopes that nobody needs are not summed.
            if (self._vector[number, 6:] >= 0).any():
                nextra[number] = part_.dp.shape[1]
                dp[begin : begin + sizes[number], : nextra[number]] = part_.dp
                df[begin : begin + sizes[number], : nextra[number]] = part_.df
            begin += sizes[number]
        return Sources(
            shape,
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            np.concatenate([part.p for part in parts]),
            np.concatenate([part.f for part in parts]),
            dp,
            df,
            nextra,
            self._vector,
        )

    def gram(self, pars: F64) -> F64 | None:
        """Return the Gram matrices at these parameters, overwritten by the next call; None where there is no model."""
        if not np.all(np.isfinite(pars)):
            return None
        try:
            sources = self.sources(pars)
        except FitError:
            return None
        good = gram(self.data, self.links, sources, self.accuracy.cut, self.accuracy.merge, self._matrix)
        return self._matrix if good else None

    def chi2(self, pars: F64, normal: F64, gradient: F64, *, solve: bool = False, masked: bool = True) -> float:
        """Return chi^2 of the pixels alone and fill the normal equations.

        Parameters
        ----------
        pars : ndarray, shape (npar,)
            Parameters; with `solve` the free fluxes are set to their best values first.
        normal, gradient : ndarray, shapes (npar, npar), (npar,)
            Overwritten with D' W D and D' W (m - d).
        masked : bool
            Whether rows and columns of fixed fluxes are zero; those of other fixed parameters always are.
        """
        found = self.gram(pars)
        if found is None:
            normal[:], gradient[:] = 0.0, 0.0
            return math.nan
        if solve:
            self._solve(found, pars)
        chi2 = assemble(found, self.power, pars, self._place, self.flux, self._owner, normal, gradient)
        if masked:
            self._mask(normal, gradient)
        return max(float(chi2), 0.0)

    def _mask(self, normal: F64, gradient: F64) -> None:
        if not self.free.all():
            fixed = ~self.free
            normal[fixed], gradient[fixed] = 0.0, 0.0
            normal[:, fixed] = 0.0

    def _solve(self, matrix: F64, pars: F64) -> None:
        """Set the free fluxes to the minimum of chi^2, priors included, at the other parameters.

        Without informative priors this is one linear system for each band; curved priors take a few Gauss-Newton
        steps. Where it does not end, the fluxes are left a step away from the best ones, which a fit can mend.
        """
        best = pars.copy()
        if not linear_fluxes(matrix, self._templates, self.flux, self.solved, best):
            return
        for band in range(self.data.nband):
            rows = [
                (0.0, 0.0) if prior is None else prior.flux[band].row(float(best[place]))
                for prior, place in zip(self.priors, self.flux[:, band], strict=True)
            ]
            if any(row != (0.0, 0.0) for row in rows):
                self._solve_curved(matrix[band], band, best)
        if np.all(np.isfinite(best)):
            pars[:] = best

    def _solve_curved(self, matrix: F64, band: int, pars: F64) -> None:
        """Set the free fluxes of one band to the minimum of chi^2 with informative priors, from the one without."""
        places = self.flux[:, band]
        chosen = np.flatnonzero(self.free[places])
        among = matrix[np.ix_(self._templates, self._templates)]
        data = matrix[self._templates, -1]
        priors = [one.flux[band] if one is not None else Flat(-math.inf, math.inf) for one in self.priors]
        low, high = np.transpose([one.support for one in priors])
        flux = np.minimum(np.maximum(pars[places], low), high)
        for _ in range(_FLUX_STEPS):
            rows = np.array([one.row(float(value)) for one, value in zip(priors, flux, strict=True)])
            if not np.all(np.isfinite(rows)):
                return
            slope = (among @ flux - data + rows[:, 0] * rows[:, 1])[chosen]
            hessian = (among + np.diag(rows[:, 1] ** 2))[np.ix_(chosen, chosen)]
            try:
                step = np.linalg.solve(hessian, slope)
            except np.linalg.LinAlgError:
                return
            flux[chosen] = np.minimum(np.maximum(flux[chosen] - step, low[chosen]), high[chosen])
            if not float(step @ hessian @ step) > 1e-10:
                break
        pars[places[chosen]] = flux[chosen]

    @property
    def straight(self) -> bool:
        """Whether a fit steps in the parameters themselves; so it does where not all shape parameters are free."""
        return all(
            one.straight or not self.free[part.start : part.start + len(one.names)].all()
            for one, part in zip(self.models, self.slices, strict=True)
        )

    def straighten(self, pars: F64) -> tuple[F64, F64]:
        """Return coordinates in which a fit goes straighter, and d pars / d coordinates."""
        out, slopes = pars.copy(), np.eye(self.npar)
        for one, part in zip(self.models, self.slices, strict=True):
            if not one.straight and self.free[part.start : part.start + len(one.names)].all():
                out[part], slopes[part, part] = one.straighten(pars[part])
        return out, slopes

    def bend(self, coordinates: F64) -> F64:
        """Return the parameters of coordinates of `straighten`."""
        out = coordinates.copy()
        for one, part in zip(self.models, self.slices, strict=True):
            if not one.straight and self.free[part.start : part.start + len(one.names)].all():
                out[part] = one.bend(coordinates[part])
        return out

    def prior(self, pars: F64, normal: F64, gradient: F64, *, stepping: bool = False) -> float:
        """Add the prior rows of all sources to the normal equations; returns their sum of squares. With `stepping` all
        but `cusps`, first places and slopes of the shapes that the solver is told of."""
        total = 0.0
        solved = set(self.cusps[0].tolist()) if stepping else set()
        for part, prior in zip(self.slices, self.priors, strict=True):
            if prior is not None:
                step = part.start + 2 in solved
                total += prior.add(pars[part], normal[part, part], gradient[part], stepping=step)
        self._mask(normal, gradient)
        return total

    def images(self, pars: F64, link: int) -> F64:
        """Return template and derivatives of one link, [6 + MAX_EXTRA, nrow, ncol], for flux 1; NaN if impossible."""
        stamp = int(np.searchsorted(self.links.first, link, side="right")) - 1
        nrow, ncol = int(self.data.nrow[stamp]), int(self.data.ncol[stamp])
        sources = self.sources(pars)
        return images(self.links, sources, link, nrow, ncol, self.accuracy.cut, self.accuracy.merge)
