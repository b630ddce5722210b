"""The light of the sky on one CCD, drawn with GalSim, before noise."""

from __future__ import annotations

import functools
import math

import galsim
import numpy as np
from numpy.typing import NDArray

from balrogutils.survey.telescope import Chip

__all__ = ["draw_chip", "galaxy", "point_spread", "stamp_radius"]

_LOST = 3e-4
"""Part of a source's light that may fall outside its stamp."""

_FAINT = 0.1
"""Surface brightness, in units of the sky noise, below which a bright star's wings may be cut."""

_BULGE_TRUNCATION = 5.0  # half-light radii: de Vaucouleurs' law has no end, real bulges do
_MAX_RADIUS = 400  # pixels
_PARAMETERS = galsim.GSParams(maximum_fft_size=16384)


@functools.cache
def _moffat(beta: float) -> galsim.GSObject:
    return galsim.Moffat(beta=beta, fwhm=1.0, gsparams=_PARAMETERS)


@functools.cache
def _disk() -> galsim.GSObject:
    return galsim.Exponential(half_light_radius=1.0, gsparams=_PARAMETERS)


@functools.cache
def _bulge() -> galsim.GSObject:
    return galsim.DeVaucouleurs(half_light_radius=1.0, trunc=_BULGE_TRUNCATION, gsparams=_PARAMETERS)


def point_spread(fwhm: float, g1: float, g2: float, beta: float) -> galsim.GSObject:
    """Return the PSF without the pixel: a Moffat profile of unit flux, FWHM in arcsec, shear along u and v."""
    return _moffat(beta).dilate(fwhm).shear(g1=g1, g2=g2)


def galaxy(hlr: float, bulge_hlr: float, bulge_fraction: float, g1: float, g2: float) -> galsim.GSObject:
    """Return a galaxy of unit flux: exponential disk and truncated de Vaucouleurs bulge, half-light radii in arcsec."""
    parts = []
    if bulge_fraction < 1.0:
        parts.append(_disk().dilate(hlr) * (1.0 - bulge_fraction))
    if bulge_fraction > 0.0:
        parts.append(_bulge().dilate(bulge_hlr) * bulge_fraction)
    profile = parts[0] if len(parts) == 1 else galsim.Sum(parts)
    return profile.shear(g1=g1, g2=g2)


def stamp_radius(fwhm: float, beta: float, size: float, flux: float, noise: float, scale: float) -> float:
    """Return the half-width in pixels of a stamp that holds all but about 3e-4 of a source's light.

    Parameters
    ----------
    fwhm : float
        Of the PSF, arcsec.
    beta : float
        Moffat index.
    size : float
        Half-light radius along the major axis, arcsec; 0 for a star.
    flux, noise : float
        Of the source and of the sky in one pixel, in the same units: wings are kept down to a tenth of the noise.
    scale : float
        Arcsec per pixel.

    Notes
    -----
    A Moffat profile of core radius a holds 1 - (1 + (R/a)^2)^(1 - beta) of its light within R (Trujillo et al. 2001,
    MNRAS 328, 977); an exponential disk 1 - (1 + R/h) exp(-R/h), 3e-4 beyond 10.7 h or 6.4 half-light radii.
    """
    core = 0.5 * fwhm / math.sqrt(2.0 ** (1.0 / beta) - 1.0)
    reach = core * math.sqrt(_LOST ** (1.0 / (1.0 - beta)) - 1.0)
    peak = flux * scale**2 * (beta - 1.0) / (math.pi * core**2)
    wings = core * math.sqrt(max(0.0, (peak / (_FAINT * noise)) ** (1.0 / beta) - 1.0))
    return min(_MAX_RADIUS, (max(reach, wings) + 6.4 * size) / scale + 1.0)


def draw_chip(sky: NDArray[np.void], chip: Chip, noise: float) -> NDArray[np.float64]:
    """Draw every source whose light reaches a CCD.

    Parameters
    ----------
    sky : ndarray
        Truth rows.
    chip : Chip
        The CCD.
    noise : float
        Of the sky in one pixel, image units.

    Returns
    -------
    ndarray of float64, shape `chip.shape`
        Expected image units per pixel; no sky, no noise.
    """
    rows, cols = chip.shape
    canvas = galsim.ImageD(cols, rows)
    near = sky[_near(sky, chip)]
    row, col = chip.wcs.sky_to_pixel(near["ra"], near["dec"])
    flux = near[f"flux_{chip.band}"] * 10.0 ** (0.4 * (chip.zero_point - 30.0))
    fwhm, g1, g2 = chip.psf_at(row, col)
    beta = chip.exposure.psf.beta
    shape = np.hypot(near["g1"], near["g2"])
    major = np.maximum(near["hlr"], near["bulge_hlr"]) * np.sqrt((1.0 + shape) / (1.0 - shape))
    for i, source in enumerate(near):
        # Sizes are in arcsec on the sky, the local pixel a few 1e-3 off the nominal one.
        radius = math.ceil(stamp_radius(fwhm[i], beta, major[i], flux[i], noise, 0.26))
        x, y = col[i] + 1.0, row[i] + 1.0
        bounds = (
            galsim.BoundsI(round(x) - radius, round(x) + radius, round(y) - radius, round(y) + radius) & canvas.bounds
        )
        if not bounds.isDefined():
            continue
        profile = point_spread(fwhm[i], g1[i], g2[i], beta)
        if not source["is_star"]:
            shape_of = galaxy(source["hlr"], source["bulge_hlr"], source["bulge_fraction"], source["g1"], source["g2"])
            profile = galsim.Convolve([shape_of, profile], gsparams=_PARAMETERS)
        profile.withFlux(flux[i]).drawImage(
            image=canvas[bounds],
            add_to_image=True,
            center=galsim.PositionD(x, y),
            wcs=chip.wcs.galsim.local(image_pos=galsim.PositionD(x, y)),
        )
    return canvas.array


def _near(sky: NDArray[np.void], chip: Chip) -> NDArray[np.intp]:
    rows, cols = chip.shape
    ra, dec = chip.wcs.pixel_to_sky((rows - 1) / 2, (cols - 1) / 2)
    cosine = np.cos(np.deg2rad(dec))
    west = (sky["ra"] - ra + 180.0) % 360.0 - 180.0
    distance = np.hypot(west * cosine, sky["dec"] - dec) * 3600.0
    # Half the diagonal and the largest stamp, in arcsec.
    return np.flatnonzero(distance < 0.27 * (0.5 * math.hypot(rows, cols) + _MAX_RADIUS))
