"""Metacal images by ngmix, with the arguments and results of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import galsim
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import FitError
from balrogutils.fitting.observation import LocalWCS, Observation, PSFStamp
from balrogutils.fitting.psffit import PSFOptions
from balrogutils.metacal.images import MetacalOptions, Sheared, by_band, noise_of, sheared_epoch, usable_psfs
from balrogutils.metacal.shears import Shear, dilation, shear_matrix, shears_of
from balrogutils.metacal.target import gaussian_sigma
from balrogutils.peers.fits import fit_psf, psf_observation, quiet
from balrogutils.peers.installed import load_ngmix

__all__ = ["metacal_images"]

F64 = NDArray[np.float64]

_GAUSS = PSFOptions("coellip", 1, 4, 2000, 1e-10, 1e-10)


def metacal_images(
    bands: Sequence[Sequence[Observation]], options: MetacalOptions, random: np.random.Generator
) -> dict[str, Sheared]:
    """Return the images of all types.

    Parameters
    ----------
    bands, options, random
        As of `balrogutils.metacal.images.metacal_images`. The noise of `fixnoise` is the same as there.

    Returns
    -------
    dict
        By type. The mixtures are Gaussian fits, by ngmix, to the targets.

    Raises
    ------
    FitError
        As there, when ngmix or GalSim refuse a stamp, or one is not square.

    Notes
    -----
    A Gaussian target is the one that ours would be, given to ngmix as an object of GalSim: its own search ends at a
    frequency of a grid and makes targets some per cent larger, whose noise is another one.

    ngmix takes the middle of a stamp for the centre of the PSF and for what a shear leaves in place. Its images are
    taken as they are, but their centres are put where that brings the object.
    """
    flat, psfs = [epoch for epochs in bands for epoch in epochs], usable_psfs(bands, options)
    noise = [noise_of(epoch, random) if options.fixnoise else None for epoch in flat]
    made = [_images(epoch, psf, field, options, random) for epoch, psf, field in zip(flat, psfs, noise, strict=True)]
    out = {}
    for shear in shears_of(options.types, options.step):
        epochs, mixtures = [], []
        for epoch, psf, images in zip(flat, psfs, made, strict=True):
            stamp, wcs = _place(epoch, psf, images[shear.name], shear, options)
            fit = fit_psf(stamp, wcs, _GAUSS, random)
            if fit.flags:
                raise FitError(f"a Gaussian could not be fit to a target PSF (flags {fit.flags})")
            image = np.array(images[shear.name].image, float)
            epochs.append(sheared_epoch(epoch, image, stamp, options, wcs))
            mixtures.append(fit.mixture)
        out[shear.name] = Sheared(by_band(epochs, bands), np.array(mixtures))
    return out


def _target(epoch: Observation, psf: PSFStamp, options: MetacalOptions) -> Any:
    """Return what ngmix takes for a target: its name for it, or the Gaussian before ngmix makes it larger."""
    if options.psf == "dilate":
        return options.psf
    sigma = gaussian_sigma(psf, epoch.wcs, options.psf, options.step)
    return galsim.Gaussian(sigma=sigma / dilation(options.step))


def _images(
    epoch: Observation, psf: PSFStamp, noise: F64 | None, options: MetacalOptions, random: np.random.Generator
) -> dict[str, Any]:
    """Return what ngmix makes of one epoch."""
    if epoch.image.shape[0] != epoch.image.shape[1]:
        raise FitError(f"ngmix takes square stamps, not {epoch.image.shape}")
    ngmix = load_ngmix().module
    slopes = {name: getattr(epoch.wcs, name) for name in ("dvdrow", "dvdcol", "dudrow", "dudcol")}
    seen = ngmix.Observation(
        np.array(epoch.image, float),
        weight=np.array(epoch.weight, float),
        jacobian=ngmix.Jacobian(row=epoch.wcs.row0, col=epoch.wcs.col0, **slopes),
        noise=noise,
        psf=psf_observation(PSFStamp(psf.image / np.sum(psf.image, dtype=float), psf.row, psf.col), epoch.wcs),
    )
    target = _target(epoch, psf, options)
    try:
        with quiet():
            made: dict[str, Any] = ngmix.metacal.get_all_metacal(
                seen,
                psf=target,
                step=options.step,
                # Of what little noise it adds to the stamp of a target, which no fit could do without.
                rng=np.random.RandomState(random.bit_generator),
                fixnoise=options.fixnoise,
                use_noise_image=options.fixnoise,
                types=list(options.types),
            )
    except (ngmix.gexceptions.NGmixBaseException, galsim.GalSimError) as error:
        raise FitError(f"ngmix makes no metacal images of a stamp: {error}") from error
    return made


def _place(
    epoch: Observation, psf: PSFStamp, made: Any, shear: Shear, options: MetacalOptions
) -> tuple[PSFStamp, LocalWCS]:
    """Return the target with its centre, and the map about where the object now is."""
    wcs = epoch.wcs
    jacobian = np.array([[wcs.dvdrow, wcs.dvdcol], [wcs.dudrow, wcs.dudcol]])
    inverse = np.linalg.inv(jacobian)
    middle, psf_middle = (0.5 * (np.array(shape) - 1.0) for shape in (epoch.image.shape, psf.image.shape))
    off = np.array([psf.row, psf.col]) - psf_middle
    target = np.zeros(2)
    if options.psf == "dilate":
        # Only this target is the PSF itself, with its centre where it was.
        target = dilation(options.step) * (inverse @ shear_matrix(*shear.psf) @ jacobian @ off)
    moved = inverse @ shear_matrix(*shear.galaxy) @ jacobian @ (np.array([wcs.row0, wcs.col0]) - middle - off)
    row, col = middle + moved + target
    stamp = PSFStamp(np.array(made.psf.image, float), *(psf_middle + target))
    return stamp, wcs.at(float(row), float(col))
