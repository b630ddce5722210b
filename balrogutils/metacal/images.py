"""Metacal images of one object: all types of all its epochs, with noise that undoes what the shear did to theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ConfigError, FitError, did_you_mean
from balrogutils.fitting.fourier import FLOOR
from balrogutils.fitting.observation import LocalWCS, Observation, PSFStamp
from balrogutils.fitting.psffit import PSFOptions, fit_psf, psf_is_usable
from balrogutils.metacal.shearing import CUT, lattice_lines, lattice_of, outward, shear_stamps
from balrogutils.metacal.shears import STEP, TYPES, Shear, shear_matrix, shears_of
from balrogutils.metacal.target import TARGETS, dilated_stamp, dilated_transform, gaussian_sigma, measured_center

__all__ = [
    "MetacalOptions",
    "Sheared",
    "by_band",
    "metacal_images",
    "noise_of",
    "sheared_epoch",
    "usable_psfs",
]

F64 = NDArray[np.float64]
C128 = NDArray[np.complex128]
_Job = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class MetacalOptions:
    """How metacal images are made.

    Parameters
    ----------
    psf : str
        Target: ``gauss``, ``fitgauss``, ``azgauss`` or ``dilate``.
    types : tuple of str
        ``noshear``, ``1p``, ``1m``, ``2p``, ``2m``, and ``1p_psf`` ... that shear the target alone.
    step : float
        Shear of a type.
    fixnoise : bool
        Whether noise that was sheared the other way is added (M 6.2).
    measure_center : bool
        Whether the centre of a PSF stamp is the centroid of its core, and not what its maker said.

    Raises
    ------
    ConfigError
        For a target or type of another name, or a step that is no small shear.
    """

    psf: str = "gauss"
    types: tuple[str, ...] = TYPES
    step: float = STEP
    fixnoise: bool = True
    measure_center: bool = True

    def __post_init__(self) -> None:
        if self.psf not in TARGETS:
            raise ConfigError(f"there is no target {self.psf!r}", key="psf", remedy=did_you_mean(self.psf, TARGETS))
        shears_of(self.types, self.step)


class Sheared(NamedTuple):
    """Images of one type, by band, with the target as PSF; mixtures [nstamp, 1, 6] : the target as a Gaussian.

    The weights are those of the images: half of what they were with `MetacalOptions.fixnoise`. A Gaussian target is
    its mixture exactly, before pixels: images are samples of what they show.
    """

    bands: list[list[Observation]]
    mixtures: F64


def metacal_images(
    bands: Sequence[Sequence[Observation]], options: MetacalOptions, random: np.random.Generator
) -> dict[str, Sheared]:
    """Return the images of all types.

    Parameters
    ----------
    bands : sequence of sequences of Observation
        Epochs of each band, final weights, no holes (`holes.fill_holes`), usable PSFs.
    options : MetacalOptions
        How.
    random : numpy.random.Generator
        Noise of `fixnoise`; the same generator gives the same images.

    Returns
    -------
    dict
        By type, in the order of the options.

    Raises
    ------
    FitError
        When a band has no stamp, a stamp no usable weight or PSF or a pixel that is not finite, or no target can be
        found.
    """
    flat = [epoch for epochs in bands for epoch in epochs]
    psfs = usable_psfs(bands, options)
    noise = [noise_of(epoch, random) if options.fixnoise else None for epoch in flat]
    sigmas = np.zeros(len(flat))
    if options.psf != "dilate":
        sigmas[:] = [
            gaussian_sigma(psf, epoch.wcs, options.psf, options.step) for psf, epoch in zip(psfs, flat, strict=True)
        ]
    shears = shears_of(options.types, options.step)
    # Every image plane of one shear goes with the noise plane of the opposite one.
    jobs: list[_Job] = []
    for shear in shears:
        for job in ((shear.galaxy, shear.psf), (_opposite(shear.galaxy), shear.psf)):
            if job not in jobs and (options.fixnoise or job == (shear.galaxy, shear.psf)):
                jobs.append(job)
    made: list[F64] = [np.empty(0)] * len(flat)
    for members in _groups(flat, psfs):
        done = _shear_group(
            [flat[k] for k in members],
            [psfs[k] for k in members],
            [noise[k] for k in members],
            sigmas[members],
            jobs,
            options,
        )
        for k, images in zip(members, done, strict=True):
            made[k] = images
    targets = {shear.psf: _targets(flat, psfs, sigmas, shear.psf, options) for shear in shears}
    return {shear.name: _collect(bands, flat, targets[shear.psf], made, jobs, shear, options) for shear in shears}


def _opposite(g: tuple[float, float]) -> tuple[float, float]:
    return (0.0 - g[0], 0.0 - g[1])


def usable_psfs(bands: Sequence[Sequence[Observation]], options: MetacalOptions) -> list[PSFStamp]:
    """Return the PSF of each stamp, its centre as the options want it.

    Raises
    ------
    FitError
        Where metacal can do nothing with the stamps: as of `metacal_images`.
    """
    if not all(bands) or not bands:
        raise FitError("there is no stamp for metacal, or none in a band")
    return [_usable_psf(epoch, options) for epochs in bands for epoch in epochs]


def _usable_psf(epoch: Observation, options: MetacalOptions) -> PSFStamp:
    if not psf_is_usable(epoch.psf) or epoch.psf is None:
        raise FitError("a stamp has no usable PSF for metacal")
    if not epoch.wcs.usable:
        raise FitError("the WCS derivatives of a stamp are singular")
    if not np.all(np.isfinite(epoch.image)):
        raise FitError("a stamp for metacal has pixels that are not finite", remedy="fill its holes first")
    weight = np.asarray(epoch.weight, float)
    if not (np.all(np.isfinite(weight)) and weight.min() >= 0.0 < weight.max()):
        raise FitError("a stamp for metacal has no pixel with a weight, or a weight that is none")
    return measured_center(epoch.psf) if options.measure_center else epoch.psf


def noise_of(epoch: Observation, random: np.random.Generator) -> F64:
    """Return noise of the variance of each pixel; of the median one where the weight is 0."""
    weight = np.asarray(epoch.weight, float)
    used = weight > 0.0
    error = np.full(weight.shape, float(np.median(1.0 / np.sqrt(weight[used]))))
    error[used] = 1.0 / np.sqrt(weight[used])
    return np.asarray(error * random.standard_normal(weight.shape))


def _groups(flat: Sequence[Observation], psfs: Sequence[PSFStamp]) -> list[list[int]]:
    """Return the stamps whose images and PSFs have the same shape."""
    found: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for number, (epoch, psf) in enumerate(zip(flat, psfs, strict=True)):
        found.setdefault((epoch.image.shape, max(psf.image.shape)), []).append(number)
    return list(found.values())


def _jacobian(wcs: LocalWCS) -> F64:
    return np.array([[wcs.dvdrow, wcs.dvdcol], [wcs.dudrow, wcs.dudcol]])


def _sky_target(sigma: float, shear: tuple[float, float]) -> F64:
    """Return the covariance of a Gaussian target on (v, u)."""
    matrix = shear_matrix(*shear)
    return np.asarray(sigma**2 * (matrix @ matrix.T))


def _shear_group(
    epochs: Sequence[Observation],
    psfs: Sequence[PSFStamp],
    noise: Sequence[F64 | None],
    sigmas: F64,
    jobs: Sequence[_Job],
    options: MetacalOptions,
) -> F64:
    """Return the images [nstamp, njob, nplane, nrow, ncol] of stamps of one shape."""
    count, nplane = len(epochs), 2 if options.fixnoise else 1
    nrow, ncol = epochs[0].image.shape
    side = max(psfs[0].image.shape)
    planes, kernels = np.empty((count, nplane, nrow, ncol)), np.zeros((count, nplane, side, side))
    shifts, psf_shifts = np.empty((count, 2)), np.empty((count, nplane, 2))
    bases, targets = np.empty((count, len(jobs), 2, 2)), np.zeros((count, len(jobs), 3))
    middle = 0.5 * (side - 1)
    for s, (epoch, psf) in enumerate(zip(epochs, psfs, strict=True)):
        planes[s, 0] = epoch.image
        shifts[s] = epoch.wcs.row0 - 0.5 * (nrow - 1), epoch.wcs.col0 - 0.5 * (ncol - 1)
        kernels[s, 0, : psf.image.shape[0], : psf.image.shape[1]] = psf.image / np.sum(psf.image, dtype=float)
        psf_shifts[s, 0] = psf.row - middle, psf.col - middle
        own = noise[s]
        if own is not None:
            # Noise that goes through the PSF turned by 90 degrees and is sheared the other way is noise that was
            # turned, sheared the same way through the PSF itself, and turned back.
            planes[s, 1], kernels[s, 1] = own, np.rot90(kernels[s, 0])
            psf_shifts[s, 1] = middle - psf.col, psf.row - middle
        jacobian = _jacobian(epoch.wcs)
        inverse = np.linalg.inv(jacobian)
        for j, (galaxy, target) in enumerate(jobs):
            bases[s, j] = (inverse @ shear_matrix(*galaxy) @ jacobian).T
            pixel = inverse @ _sky_target(float(sigmas[s]), target) @ inverse.T
            targets[s, j] = pixel[0, 0], pixel[0, 1], pixel[1, 1]
    lattice = lattice_of(max(nrow, ncol), targets.reshape(-1, 3))
    others = np.empty((count, len(jobs), 0, 0), np.complex128)
    if options.psf == "dilate":
        others = np.array(
            [
                [
                    dilated_transform(psf, epoch.wcs, *lattice_lines(lattice), outward(base), target, options.step)
                    for base, (_, target) in zip(bases[s], jobs, strict=True)
                ]
                for s, (epoch, psf) in enumerate(zip(epochs, psfs, strict=True))
            ]
        )
    out = np.empty((count, len(jobs), nplane, nrow, ncol))
    cut = -2.0 * math.log(CUT)
    shear_stamps(
        planes, kernels, shifts, psf_shifts, bases, targets, others, lattice.period, lattice.half, cut, FLOOR, out
    )
    return out


def _targets(
    flat: Sequence[Observation],
    psfs: Sequence[PSFStamp],
    sigmas: F64,
    shear: tuple[float, float],
    options: MetacalOptions,
) -> tuple[list[PSFStamp], F64]:
    """Return the target of each stamp, as a stamp and as a mixture [nstamp, 1, 6]."""
    stamps, mixtures = [], np.zeros((len(flat), 1, 6))
    for k, (epoch, psf) in enumerate(zip(flat, psfs, strict=True)):
        if options.psf == "dilate":
            stamp = dilated_stamp(psf, epoch.wcs, shear, options.step)
            fit = fit_psf(stamp, epoch.wcs, PSFOptions("coellip", 1))
            if fit.flags:
                raise FitError(f"a Gaussian could not be fit to a target PSF (flags {fit.flags})")
            mixtures[k] = fit.mixture
        else:
            sky = _sky_target(float(sigmas[k]), shear)
            mixtures[k, 0] = 1.0, 0.0, 0.0, sky[0, 0], sky[0, 1], sky[1, 1]
            stamp = _gaussian_stamp(sky, epoch.wcs, max(psf.image.shape))
        stamps.append(stamp)
    return stamps, mixtures


def _collect(
    bands: Sequence[Sequence[Observation]],
    flat: Sequence[Observation],
    targets: tuple[list[PSFStamp], F64],
    made: Sequence[F64],
    jobs: Sequence[_Job],
    shear: Shear,
    options: MetacalOptions,
) -> Sheared:
    """Return the observations of one type."""
    own, opposite = (shear.galaxy, shear.psf), (_opposite(shear.galaxy), shear.psf)
    epochs = []
    for k, (epoch, stamp) in enumerate(zip(flat, targets[0], strict=True)):
        image = made[k][jobs.index(own), 0]
        if options.fixnoise:
            image = image + made[k][jobs.index(opposite), 1]
        epochs.append(sheared_epoch(epoch, image, stamp, options))
    return Sheared(by_band(epochs, bands), targets[1])


def sheared_epoch(
    epoch: Observation, image: F64, psf: PSFStamp, options: MetacalOptions, wcs: LocalWCS | None = None
) -> Observation:
    """Return an epoch with a sheared image, its target, the weights and region that go with it, and its own map unless
    another is given."""
    weight = np.asarray(epoch.weight, float)
    if options.fixnoise:
        # Fits see the noise that is in the images: 1 / (1 / w + 1 / w) (M 6.2).
        weight = 0.5 * weight
    region = None if epoch.region is None else np.where(np.asarray(epoch.region) > 0.0, weight, 0.0)
    return replace(epoch, image=image, weight=weight, psf=psf, region=region, wcs=wcs or epoch.wcs)


def by_band(epochs: Sequence[Observation], bands: Sequence[Sequence[Observation]]) -> list[list[Observation]]:
    """Return epochs in a row as those of each band."""
    rest = iter(epochs)
    return [list(islice(rest, len(one))) for one in bands]


def _gaussian_stamp(sky: F64, wcs: LocalWCS, side: int) -> PSFStamp:
    """Return samples of a Gaussian, centred in the middle."""
    middle = 0.5 * (side - 1)
    place = np.arange(side) - middle
    v = wcs.dvdrow * place[:, None] + wcs.dvdcol * place[None, :]
    u = wcs.dudrow * place[:, None] + wcs.dudcol * place[None, :]
    det = sky[0, 0] * sky[1, 1] - sky[0, 1] ** 2
    chi2 = (sky[1, 1] * v * v + sky[0, 0] * u * u - 2.0 * sky[0, 1] * v * u) / det
    return PSFStamp(np.exp(-0.5 * chi2) * (wcs.area / (2.0 * math.pi * math.sqrt(det))), middle, middle)
