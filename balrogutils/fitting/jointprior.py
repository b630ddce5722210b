"""The priors of all parameters of one source, added to its normal equations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from balrogutils.fitting.priors import CenPrior, Prior, ShapePrior

__all__ = ["JointPrior"]

F64 = NDArray[np.float64]
# Below this |g| the curvature across it gets no steeper.
_CUSP = 0.01
_AT_CUSP = 1e-9
# Half the step of second derivatives by |g|.
_WIDTH = 1e-4


@dataclass(frozen=True)
class JointPrior:
    """Priors of the parameters of one source: v, u, g1, g2, T, those of its profile, flux of each band.

    cen, shape and size may be None for none; a point source has no shape, size and extra parameters, and their
    priors are not looked at.
    """

    cen: CenPrior | None
    shape: ShapePrior | None
    size: Prior | None
    flux: Sequence[Prior]
    extra: Sequence[Prior] = ()

    @property
    def nrow(self) -> int:
        """Number of informative rows, as they count in the degrees of freedom."""
        return (
            (2 if self.cen else 0)
            + (self.shape is not None)
            + (self.size is not None)
            + len(self.extra)
            + len(self.flux)
        )

    def _singles(self, npar: int) -> list[tuple[int, Prior]]:
        """Return the priors of single numbers and their places among `npar` parameters."""
        first = npar - len(self.flux)
        singles = [(first + k, prior) for k, prior in enumerate(self.flux)]
        if first >= 5:
            singles += [(5 + k, prior) for k, prior in enumerate(self.extra[: first - 5])]
            if self.size is not None:
                singles.append((4, self.size))
        if self.cen is not None:
            singles += [(0, self.cen), (1, self.cen)]
        return singles

    def support(self, npar: int) -> tuple[F64, F64]:
        """Return the lowest and highest possible value of each of `npar` parameters."""
        low, high = np.full(npar, -math.inf), np.full(npar, math.inf)
        for index, prior in self._singles(npar):
            low[index], high[index] = prior.support
        return low, high

    @cached_property
    def cusp(self) -> float:
        """Slope of -ln p by |g| at g = 0: 0 where the probability is smooth there."""
        rows = [] if self.shape is None else self.shape.rows(_AT_CUSP, 0.0)
        return rows[0][0] * rows[0][1] if len(rows) == 1 else 0.0

    def _slope(self, g: float) -> float:
        """Return the slope of -ln p by |g| less that of the cusp."""
        assert self.shape is not None
        residual, slope, _ = self.shape.rows(g, 0.0)[0]
        return residual * slope - self.cusp

    def _step(self, pars: F64, normal: F64, gradient: F64) -> None:
        """Add what steps need of a prior of |g|, all but its cusp: its slope, and its curvatures where they are not
        negative."""
        g = float(np.hypot(pars[2], pars[3]))
        near = max(g, 2.0 * _WIDTH)
        slope = self._slope(near)
        across = slope / near
        gradient[2:4] += across * pars[2:4] if g < near else slope / g * pars[2:4]
        along = (self._slope(near + _WIDTH) - self._slope(near - _WIDTH)) / (2.0 * _WIDTH)
        along = max(along, 0.0) if math.isfinite(along) else across
        direction = pars[2:4] / g if g > _AT_CUSP else np.array([1.0, 0.0])
        normal[2:4, 2:4] += across * np.eye(2) + (along - across) * np.outer(direction, direction)

    def _curvature(self, g1: float, g2: float, row: tuple[float, float, float]) -> F64:
        """Return what one row of |g| lacks for errors: the curvature (d chi^2/2 / d|g|) / |g| across g, which at the
        cusp is that in all directions."""
        assert self.shape is not None
        g = math.hypot(g1, g2)
        # The slope has no direction at the cusp, but it has a size.
        residual, slope1, slope2 = row if g > _AT_CUSP else self.shape.rows(_AT_CUSP, 0.0)[0]
        curvature = residual * math.hypot(slope1, slope2) / max(g, _CUSP)
        if g <= _AT_CUSP:
            return curvature * np.eye(2)
        across = np.array([-g2, g1]) / g
        return np.asarray(curvature * np.outer(across, across))

    def add(self, pars: F64, normal: F64, gradient: F64, *, stepping: bool = False) -> float:
        """Add the prior rows to the normal equations.

        Parameters
        ----------
        pars, gradient : ndarray, shape (npar,)
            Parameters, and half the gradient of chi^2 (added to).
        normal : ndarray, shape (npar, npar)
            Added to.
        stepping : bool
            Whether `normal` is to propose steps, not to give errors. Of a shape prior with a cusp at g = 0 the cusp
            itself is then left out, `cusp` |g|, which the solver takes as it is.
            For errors the curvature across g is added.

        Returns
        -------
        float
            Sum of the squared residuals; NaN where the probability is zero.
        """
        total = 0.0
        for index, prior in self._singles(pars.size):
            residual, slope = prior.row(float(pars[index]))
            if residual == 0.0 == slope:
                continue
            total += residual * residual
            gradient[index] += residual * slope
            normal[index, index] += slope * slope
        if self.shape is not None and pars.size - len(self.flux) >= 5:
            g1, g2 = float(pars[2]), float(pars[3])
            rows = self.shape.rows(g1, g2)
            total += sum(row[0] * row[0] for row in rows)
            if len(rows) == 1 and stepping:
                if math.isfinite(total):
                    self._step(pars, normal, gradient)
                return total
            for residual, slope1, slope2 in rows:
                gradient[2] += residual * slope1
                gradient[3] += residual * slope2
                normal[2, 2] += slope1 * slope1
                normal[3, 3] += slope2 * slope2
                normal[2, 3] += slope1 * slope2
                normal[3, 2] += slope1 * slope2
            if len(rows) == 1:
                normal[2:4, 2:4] += self._curvature(g1, g2, rows[0])
        return total
