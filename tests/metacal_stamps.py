"""Stamps for the tests of metacal, and the same operation by GalSim."""

from __future__ import annotations

import galsim
import numpy as np
from simulated_stamps import galsim_wcs

from balrogutils.fitting import mixture
from balrogutils.fitting.observation import LocalWCS, Observation, PSFStamp

FINE = galsim.GSParams(folding_threshold=1e-4, maxk_threshold=1e-4, kvalue_accuracy=1e-6)


def tilted_wcs(side: int, off: tuple[float, float] = (0.2, -0.3), shear: float = 0.02) -> LocalWCS:
    """A map with some shear, rotation and an object off the middle."""
    middle = (side - 1) / 2
    return LocalWCS(middle + off[0], middle + off[1], 0.263 * (1 - shear), 0.004, -0.002, 0.263 * (1 + shear))


def sampled(wcs: LocalWCS, pars: list[float], psf: tuple[float, float, float], side: int = 48) -> Observation:
    """A Gaussian galaxy (v, u, g1, g2, T, flux) and PSF (g1, g2, T), samples of the true functions."""
    table = [[1.0, 0, 0, *mixture.covariance(*psf)]]
    gauss = mixture.profile("gauss")
    image = mixture.render(mixture.convolve(pars, gauss, table), *wcs.sky(*np.mgrid[:side, :side]), wcs.area)
    at = wcs.at(20.0, 20.0)
    stamp = mixture.render(table, *at.sky(*np.mgrid[:41, :41]), at.area)
    return Observation(image, np.full(image.shape, 1e10), wcs, PSFStamp(stamp, 20.0, 20.0))


def drawn(
    galaxy: galsim.GSObject,
    psf: galsim.GSObject,
    wcs: LocalWCS,
    side: int = 48,
    psf_side: int = 41,
    psf_off: tuple[float, float] = (0.0, 0.0),
    psf_said: bool = True,
    stamp: np.ndarray | None = None,
) -> Observation:
    """A galaxy and its PSF drawn by GalSim; the PSF's stamp off the middle, and whether its centre says so.

    The stamp is drawn unless it is given.
    """
    sky, middle, psf_middle = galsim_wcs(wcs), (side - 1) / 2, (psf_side - 1) / 2
    offset = (wcs.col0 - middle, wcs.row0 - middle)
    image = galsim.Convolve(galaxy, psf).drawImage(nx=side, ny=side, wcs=sky, offset=offset, dtype=float).array
    if stamp is None:
        stamp = psf.drawImage(nx=psf_side, ny=psf_side, wcs=sky, offset=psf_off[::-1], dtype=float).array
    said = psf_off if psf_said else (0.0, 0.0)
    return Observation(
        image,
        np.full(image.shape, 1e10 / image.max() ** 2),
        wcs,
        PSFStamp(stamp, psf_middle + said[0], psf_middle + said[1]),
    )


def by_galsim(one: Observation, target: galsim.GSObject, shear: tuple[float, float]) -> np.ndarray:
    """Deconvolve, shear and convolve again by GalSim, with lanczos15 interpolation of image and PSF."""
    sky, wcs, psf = galsim_wcs(one.wcs), one.wcs, one.psf
    side, psf_side = one.image.shape[0], psf.image.shape[0]
    offset = (wcs.col0 - (side - 1) / 2, wcs.row0 - (side - 1) / 2)
    psf_offset = (psf.col - (psf_side - 1) / 2, psf.row - (psf_side - 1) / 2)
    kept = {"x_interpolant": "lanczos15", "gsparams": FINE}
    image = galsim.InterpolatedImage(galsim.Image(one.image, wcs=sky), offset=offset, **kept)
    stamp = psf.image / psf.image.sum()
    kernel = galsim.InterpolatedImage(galsim.Image(stamp, wcs=sky), offset=psf_offset, **kept)
    bare = galsim.Convolve(image, galsim.Deconvolve(kernel)).shear(g1=shear[0], g2=shear[1])
    out = galsim.Convolve(bare, target)
    return out.drawImage(nx=side, ny=side, wcs=sky, offset=offset, method="no_pixel", dtype=float).array
