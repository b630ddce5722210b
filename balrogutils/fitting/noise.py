"""Errors of a fit in correlated noise (M 4.3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from balrogutils.fitting.scene import Scene

__all__ = ["correlated_covariance"]

F64 = NDArray[np.float64]


def correlated_covariance(scene: Scene, pars: F64, power: F64) -> F64:
    """Return the covariance of the free parameters where the noise of a stamp is stationary, but not white.

    Parameters
    ----------
    scene : Scene
        Stamps of one shape; weights as they were in the fit.
    pars : ndarray, shape (npar,)
        Best fit.
    power : ndarray, shape (nrow, ncol)
        Power spectrum of the noise, |FFT2(n)|^2 on average, of every stamp.

    Returns
    -------
    ndarray, shape (npar, npar)
        A^-1 B A^-1 with A = D' W D, priors included, and B = D' W C W D from the spectrum; 0 for fixed parameters.
    """
    npar, data = scene.npar, scene.data
    normal, gradient = np.empty((npar, npar)), np.empty(npar)
    scene.chi2(pars, normal, gradient)
    scene.prior(pars, normal, gradient)
    between = np.zeros((npar, npar))
    count = power.size
    for stamp in range(data.start.size):
        slopes = np.zeros((npar, int(data.nrow[stamp]), int(data.ncol[stamp])))
        for link in range(int(scene.links.first[stamp]), int(scene.links.first[stamp + 1])):
            source = int(scene.links.source[link])
            part, flux = scene.slices[source], scene.flux[source, data.band[stamp]]
            images = scene.images(pars, link)
            slopes[flux] += images[0]
            for k in range(len(scene.models[source].names)):
                slopes[part.start + k] += pars[flux] * images[1 + k]
        weight = data.weight[data.start[stamp] :][: slopes[0].size].reshape(slopes[0].shape)
        spectra = np.fft.fft2(slopes * weight).reshape(npar, -1)
        between += ((spectra.conj() * power.ravel()) @ spectra.T).real / count**2
    free = scene.free
    inverse = np.linalg.inv(normal[np.ix_(free, free)])
    out = np.zeros((npar, npar))
    out[np.ix_(free, free)] = inverse @ between[np.ix_(free, free)] @ inverse
    return out
