"""Drawing one object on one chip: profile, PSF of the chip at its position, local WCS, zero point."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, Protocol

import galsim
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InjectionError
from balrogutils.injection import profiles
from balrogutils.wcs import ImageWCS

__all__ = ["PSFModel", "Stamp", "draw", "light", "poisson_noise", "stamp_half"]

# An interpolated PSF sampled at the pixels of one sub-pixel phase sums to 1 within a few parts in a thousand; more says
# that the model is no PSF.
_STAR_TOLERANCE = 0.02
# The noise of a real stamp, and what deconvolution makes of it, has no end; more says that it has outgrown the object.
_STAMP_TOLERANCE = 0.02


class PSFModel(Protocol):
    """What drawing asks of a PSF: its profile in image pixels of flux 1, the pixel included, and half its side."""

    def profile(self, row: float, col: float) -> galsim.GSObject:
        """Return it at a zero-offset position."""

    @property
    def reach(self) -> float:
        """Half the side in image pixels of a square that holds it."""


class Stamp(NamedTuple):
    """Drawn light.

    Attributes
    ----------
    row, col : int
        Zero-offset chip position of the first pixel; may be negative.
    pixels : ndarray of float64, shape (n, n)
        Light in units of the chip.
    """

    row: int
    col: int
    pixels: NDArray[np.float64]

    def overlap(self, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
        """Return the slices of the chip and of the stamp that cover each other, or None."""
        n = len(self.pixels)
        rows = slice(max(self.row, 0), min(self.row + n, shape[0]))
        cols = slice(max(self.col, 0), min(self.col + n, shape[1]))
        if rows.start >= rows.stop or cols.start >= cols.stop:
            return None
        own = slice(rows.start - self.row, rows.stop - self.row), slice(cols.start - self.col, cols.stop - self.col)
        return (rows, cols), own


def stamp_half(reach: float, psf: PSFModel, local: galsim.JacobianWCS) -> int:
    """Return half the side (side = 2 half + 1) of a stamp that loses at most `profiles.LOST_LIGHT` of the light.

    Parameters
    ----------
    reach : float
        `profiles.light_radius` of the object, arcsec.
    psf : PSFModel
        PSF of the chip.
    local : galsim.JacobianWCS
        WCS at the object.
    """
    smallest = np.linalg.svd(local.getMatrix(), compute_uv=False)[-1]
    return int(np.ceil(reach / smallest + psf.reach)) + 1


def light(
    profile: galsim.GSObject | None,
    at: tuple[float, float],
    half: int | None,
    psf: PSFModel,
    gsparams: galsim.GSParams,
    recenter: bool = False,
) -> Stamp:
    """Draw a profile through a PSF on a stamp around it.

    Parameters
    ----------
    profile : galsim.GSObject or None
        In image pixels; None for a point of flux 1.
    half : int or None
        Half the side of the stamp; None for the size that GalSim finds good for its accuracy.
    at, psf, gsparams, recenter
        As in `draw`.

    Returns
    -------
    Stamp

    Raises
    ------
    galsim.GalSimError or galsim.GalSimWarning
        When GalSim cannot draw it, or its good size is larger than the largest Fourier transform.
    """
    middle = int(np.floor(at[0] + 0.5)), int(np.floor(at[1] + 0.5))
    offset = galsim.PositionD(at[1] - middle[1], at[0] - middle[0])
    model = psf.profile(*at)
    if recenter:
        model = model.shift(-model.centroid)
    if profile is not None:
        model = galsim.Convolve(profile, model, gsparams=gsparams)
    if half is None:
        size = model.getGoodImageSize(1.0)
        if size > gsparams.maximum_fft_size:
            raise galsim.GalSimError(f"its stamp would have {size} pixels a side")
        half = (size + 1) // 2
    side = 2 * half + 1
    image = galsim.ImageD(side, side, scale=1.0)
    with warnings.catch_warnings():
        # GalSim only warns of a Fourier transform larger than allowed.
        warnings.simplefilter("error", galsim.GalSimWarning)
        model.drawImage(image=image, offset=offset, method="no_pixel")
    return Stamp(middle[0] - half, middle[1] - half, image.array)


def draw(
    row: Any,
    profile: galsim.GSObject | None,
    at: tuple[float, float],
    half: int,
    psf: PSFModel,
    wcs: ImageWCS,
    flux: float,
    gsparams: galsim.GSParams,
    recenter: bool = False,
) -> Stamp:
    """Draw one planned object.

    Parameters
    ----------
    row : numpy.void
        Row of the plan.
    profile : galsim.GSObject or None
        Its profile of flux 1 on the sky; None for a star.
    at : tuple of float
        Zero-offset (row, col) of the centre on the chip.
    half : int
        From `stamp_half`.
    psf, wcs : PSFModel, ImageWCS
        Of the chip.
    flux : float
        Flux in units of the chip.
    gsparams : galsim.GSParams
        Accuracy of galaxies.
    recenter : bool
        Move the PSF so that its centroid is at the position; else its model is taken as it is, as DES did.

    Returns
    -------
    Stamp
        Its sum is `flux` within `profiles.LOST_LIGHT`; exactly, for stars and stamps of real objects.

    Raises
    ------
    InjectionError
        When GalSim cannot draw it, or light is lost.

    Notes
    -----
    PSFEx and Piff models include the pixel, so nothing is integrated over pixels again. A star is its interpolated PSF
    model, normalised to sum 1 as every PSF stamp of the package is; a galaxy is convolved in Fourier space.
    """
    star, side = profile is None, 2 * half + 1
    try:
        if profile is not None:
            local = wcs.galsim.local(image_pos=galsim.PositionD(at[1] + 1.0, at[0] + 1.0))
            profile = local.profileToImage(profile)
        stamp = light(profile, at, half, psf, gsparams, recenter)
    except (galsim.GalSimError, galsim.GalSimWarning) as error:
        raise InjectionError(
            f"GalSim cannot draw object {row['bal_id']} ({row['inj_type']}, catalogue row {row['cat_row']}): {error}",
            remedy="cut such objects with t_max, or raise stamp.gsparams.maximum_fft_size",
        ) from error
    total = float(stamp.pixels.sum())
    real = str(row["model"]) == "meds"
    tolerance = _STAR_TOLERANCE if star else _STAMP_TOLERANCE if real else profiles.LOST_LIGHT
    if not abs(total - 1.0) <= tolerance:
        raise InjectionError(
            f"object {row['bal_id']} ({row['inj_type']}) has {total:.6f} of its flux in its stamp of {side} pixels",
            remedy="raise input.meds_catalog.resolution, or snr_min: its noise is amplified" if real else None,
        )
    return stamp._replace(pixels=stamp.pixels * (flux / total if star or real else flux))


def poisson_noise(
    pixels: NDArray[np.float64], gain: float | NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float64]:
    """Return the Poisson noise of drawn light: zero mean, variance light / gain.

    Parameters
    ----------
    pixels : ndarray of float64
        Drawn light; pixels at or below zero (lobes of the PSF model) get no noise.
    gain : float or ndarray of float64
        Electrons per unit, for all pixels or by column.
    random : numpy.random.Generator
        The stream of this chip and object.
    """
    electrons = np.maximum(pixels, 0.0) * gain
    return (random.poisson(electrons) - electrons) / gain
