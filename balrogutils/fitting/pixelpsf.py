"""The pixelised PSF in a fit: what a mixture leaves of the PSF stamp, convolved with the galaxy, is put back.

A mixture M of a PSF stamp P leaves R = P - M, a few parts in a thousand of the peak. The model of a galaxy G is G * M,
exact by addition of covariances, and G * R, by Fourier transforms on the pixels: the transform of G is a sum of
Gaussians too, and R is as band-limited as the stamp. G * R hardly changes with the parameters, so a fit keeps it fixed
as an image and computes it anew at its end; a second fit then ends where the exact model has its least chi^2, but for
the slopes of G * R, which are as small beside those of G * M as R is beside M: no bias, and an efficiency that is less
by their square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2

from balrogutils.compiled import njit
from balrogutils.fitting.fit import Fit, fit_scene
from balrogutils.fitting.gaussians import WINDOW
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.kernels import Sources
from balrogutils.fitting.mixture import covariance
from balrogutils.fitting.mixturekernels import render_table
from balrogutils.fitting.models import Model
from balrogutils.fitting.observation import LocalWCS, PSFStamp, Stack
from balrogutils.fitting.scene import Scene, single_links
from balrogutils.fitting.solver import LMOptions

__all__ = ["PSFResiduals", "fit_pixelised"]

F64 = NDArray[np.float64]

_ROUNDS = 4
# In standard errors: what the last round may still change.
_ENOUGH = 0.02


@njit(cache=True, error_model="numpy")
def _transform(p, covariances, nrow, ncol, out):
    """Fill [nrow, ncol // 2 + 1] with the Fourier transform of Gaussians at 0: pixel covariances (rr, rc, cc)."""
    out[:, :] = 0.0
    half = out.shape[1]
    dr, dc = 2.0 * math.pi / nrow, 2.0 * math.pi / ncol
    for m in range(p.shape[0]):
        rr, rc, cc = covariances[m]
        q = math.exp(-cc * dc * dc)
        for i in range(nrow):
            k = dr * (i if 2 * i <= nrow else i - nrow)
            # A row begins at its largest value, so that nothing overflows on the way.
            peak = -rc * k / (cc * dc) if cc > 0.0 else 0.0
            top = int(min(max(peak + 0.5, 0.0), half - 1.0))
            x = top * dc
            first = p[m] * math.exp(-0.5 * (rr * k * k + 2.0 * rc * k * x + cc * x * x))
            up = math.exp(-(rc * k + cc * (x + 0.5 * dc)) * dc)
            line = out[i]
            e, ratio = first, up
            for j in range(top, half):
                line[j] += e
                e *= ratio
                ratio *= q
            e, ratio = first, q / up if up > 0.0 else 0.0
            for j in range(top - 1, -1, -1):
                e *= ratio
                ratio *= q
                line[j] += e


class PSFResiduals:
    """What mixtures leave of the PSF stamps of a stack.

    Parameters
    ----------
    data : Stack
        Stamps.
    stamps : sequence of PSFStamp
        PSF of each stamp; usable.
    mixtures : ndarray, shape (nstamp, npsf, 6)
        Their mixtures, as a star of flux 1 looks: in units of the sum of the PSF stamp.
    """

    def __init__(self, data: Stack, stamps: Sequence[PSFStamp], mixtures: F64) -> None:
        self.data = data
        self._transforms: list[tuple[NDArray[np.complex128], tuple[int, int], PSFStamp]] = []
        for number, (stamp, mixture) in enumerate(zip(stamps, mixtures, strict=True)):
            image = np.asarray(stamp.image, np.float64)
            wcs = LocalWCS(*data.wcs[number]).at(stamp.row, stamp.col)
            used = mixture[mixture[:, 0] != 0.0]
            nrow, ncol = image.shape
            left = image / image.sum() - render_table(used, nrow, ncol, np.array(wcs), WINDOW)
            shape = (
                next_fast_len(int(data.nrow[number]) + nrow, real=True),
                next_fast_len(int(data.ncol[number]) + ncol, real=True),
            )
            self._transforms.append((rfft2(left, shape), shape, stamp))

    def template(self, sources: Sources) -> F64:
        """Return G * R of the first source at flux 1 on all stamps, flat in the order of the pixels of the stack."""
        v, u, g1, g2, size = sources.shape[0]
        sky = covariance(g1, g2, 1.0)
        out = np.zeros(self.data.image.size)
        for number, (left, shape, stamp) in enumerate(self._transforms):
            wcs = self.data.wcs[number]
            det = wcs[2] * wcs[5] - wcs[3] * wcs[4]
            inverse = np.array([[wcs[5], -wcs[3]], [-wcs[4], wcs[2]]]) / det
            pixel = inverse @ np.array([[sky[0], sky[1]], [sky[1], sky[2]]]) @ inverse.T * size
            rows = sources.f[:, None] * np.array([pixel[0, 0], pixel[0, 1], pixel[1, 1]])
            profile = np.empty((shape[0], shape[1] // 2 + 1))
            _transform(sources.p, rows, shape[0], shape[1], profile)
            center = wcs[:2] + inverse @ np.array([v, u])
            down = np.exp(-2j * math.pi * np.fft.fftfreq(shape[0]) * (center[0] - stamp.row))
            along = np.exp(-2j * math.pi * np.fft.rfftfreq(shape[1]) * (center[1] - stamp.col))
            image = irfft2(left * profile * down[:, None] * along, shape)
            nrow, ncol = int(self.data.nrow[number]), int(self.data.ncol[number])
            start = int(self.data.start[number])
            out[start : start + nrow * ncol] = image[:nrow, :ncol].ravel()
        return out


def fit_pixelised(
    data: Stack,
    residuals: PSFResiduals,
    mixtures: F64,
    model: Model,
    prior: JointPrior | None,
    starts: Sequence[F64],
    options: LMOptions,
) -> Fit:
    """Fit one source at the centre of every stamp with the PSF stamps themselves.

    Parameters
    ----------
    data, model, prior, starts, options
        As in `fit_galaxy`.
    residuals : PSFResiduals
        What the mixtures leave of the PSF stamps.
    mixtures : ndarray, shape (nstamp, npsf, 6)
        The mixtures that `residuals` is of.

    Returns
    -------
    Fit
        As `fit_galaxy` returns; it ends when a round changes no parameter by more than 0.02 standard errors, and
        after four rounds in any case.
    """
    scene = Scene(data, [model], single_links(data, mixtures), [prior])
    fit = fit_scene(scene, starts, options)
    nfev = fit.nfev
    for _ in range(_ROUNDS):
        if fit.flags:
            break
        links = single_links(data, mixtures, residuals.template(scene.sources(fit.pars)))
        again = fit_scene(Scene(data, [model], links, [prior]), [fit.pars, *starts], options)
        nfev += again.nfev
        change = np.abs(again.pars - fit.pars) / np.sqrt(np.diag(again.cov0))
        fit = again._replace(nfev=nfev)
        if not change.max() > _ENOUGH:
            break
    return fit
