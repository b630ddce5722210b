"""Which epochs and pixels a fit may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.compiled import njit
from balrogutils.fitting.flags import ImageFlag
from balrogutils.fitting.observation import Observation
from balrogutils.fitting.psffit import psf_is_usable

__all__ = ["Usable", "WeightRules", "prepare", "reject_outliers"]


@dataclass(frozen=True)
class WeightRules:
    """Rules of the weight pipeline.

    Parameters
    ----------
    image_flags : int
        Epochs whose image has one of these flags are dropped.
    mask_bits : int
        Pixels with one of these mask bits get weight 0.
    max_zero_weight_frac : float
        Epochs with a larger fraction of weight-0 pixels, before region and mask bits, are dropped.
    max_bmask_frac : float
        Epochs with a larger fraction of pixels with any mask bit are dropped.
    outliers : bool
        Whether pixels that disagree with the other epochs of the band get weight 0.
    ignore_zero_images : bool
        Whether stamps without a pixel value other than 0 are dropped.
    use_region : bool
        Whether weights are limited to the pixels that belong to the object.
    """

    image_flags: int = 655343
    mask_bits: int = 0
    max_zero_weight_frac: float = 0.45
    max_bmask_frac: float = 0.45
    outliers: bool = True
    ignore_zero_images: bool = True
    use_region: bool = True


class Usable(NamedTuple):
    """Epochs left to fit, their indices in the input, why each input epoch was dropped, and outlying pixels."""

    epochs: list[Observation]
    indices: list[int]
    flags: list[int]
    rejected: int

    def cleaned(self, epochs: Sequence[Observation]) -> Usable:
        """Return the same with other weights; epochs left without any are dropped as masked."""
        flags, kept = self.flags.copy(), []
        for index, epoch in zip(self.indices, epochs, strict=True):
            if epoch.weight.any():
                kept.append((index, epoch))
            else:
                flags[index] = int(ImageFlag.MASKED)
        return Usable([epoch for _, epoch in kept], [index for index, _ in kept], flags, self.rejected)


@njit(cache=True)
def reject_outliers(images, weights, nsigma, fraction):
    """Zero the weight of pixels that disagree with the median over epochs; returns how many.

    Parameters
    ----------
    images : float64 [nepoch, npix]
        Stamps registered to a pixel.
    weights : float64 [nepoch, npix]
        Changed in place where w (im - med)^2 > (nsigma + fraction |med| sqrt(w))^2. Nothing is done below three
        epochs.
    """
    nepoch, npix = images.shape
    count = 0
    if nepoch < 3:
        return 0
    column = np.empty(nepoch)
    for j in range(npix):
        for k in range(nepoch):
            value = images[k, j]
            at = k
            while at > 0 and column[at - 1] > value:
                column[at] = column[at - 1]
                at -= 1
            column[at] = value
        middle = nepoch // 2
        median = column[middle] if nepoch % 2 else 0.5 * (column[middle - 1] + column[middle])
        for k in range(nepoch):
            w = weights[k, j]
            if w > 0.0:
                limit = nsigma + fraction * abs(median) * np.sqrt(w)
                difference = images[k, j] - median
                if w * difference * difference > limit * limit:
                    weights[k, j] = 0.0
                    count += 1
    return count


def _clean(epoch: Observation) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    image = np.array(epoch.image, np.float64)
    weight = np.array(epoch.weight, np.float64)
    finite = np.isfinite(image)
    image[~finite] = 0.0
    # Written so that NaN weights go too.
    weight[~finite | ~(weight > 0.0) | np.isinf(weight)] = 0.0
    return image, weight


def prepare(epochs: Sequence[Observation], rules: WeightRules) -> Usable:
    """Apply the weight pipeline to the epochs of one band.

    Parameters
    ----------
    epochs : sequence of Observation
        All single epochs of one object in one band.
    rules : WeightRules
        The order is that of the DES Y3 driver: flagged images and PSFs, region, mask bits, masked fraction, outliers.

    Returns
    -------
    Usable
        Observations with final weights; pixels that are not finite have weight 0 and value 0.
    """
    flags = [0] * len(epochs)
    kept: list[tuple[int, Observation]] = []
    for index, epoch in enumerate(epochs):
        image, raw = _clean(epoch)
        if epoch.flags & rules.image_flags:
            flags[index] = ImageFlag.IMAGE_FLAGS_SET
        elif not epoch.wcs.usable:
            flags[index] = ImageFlag.BAD_JACOBIAN
        elif not psf_is_usable(epoch.psf):
            flags[index] = ImageFlag.PSF_FILE_READ_ERROR
        elif rules.ignore_zero_images and not image.any():
            flags[index] = ImageFlag.ZERO_IMAGE
        elif np.count_nonzero(raw == 0.0) > rules.max_zero_weight_frac * raw.size or (
            epoch.bmask is not None and np.count_nonzero(epoch.bmask) > rules.max_bmask_frac * raw.size
        ):
            flags[index] = ImageFlag.MASKED
        if flags[index]:
            continue
        weight = raw
        if rules.use_region and epoch.region is not None:
            weight = np.where(np.asarray(epoch.region) > 0.0, raw, 0.0)
        if epoch.bmask is not None and rules.mask_bits:
            weight[(epoch.bmask & rules.mask_bits) != 0] = 0.0
        if not weight.any():
            flags[index] = ImageFlag.MASKED
            continue
        kept.append((index, replace(epoch, image=image, weight=weight, region=None)))
    rejected = 0
    if rules.outliers and len(kept) >= 3 and len({epoch.image.shape for _, epoch in kept}) == 1:
        images = np.stack([epoch.image.ravel() for _, epoch in kept])
        weights = np.stack([epoch.weight.ravel() for _, epoch in kept])
        rejected = int(reject_outliers(images, weights, 5.0, 0.3))
        if rejected:
            shape = kept[0][1].image.shape
            kept = [(i, replace(epoch, weight=w.reshape(shape))) for (i, epoch), w in zip(kept, weights, strict=True)]
            for index, epoch in kept:
                if not epoch.weight.any():
                    flags[index] = ImageFlag.MASKED
            kept = [(index, epoch) for index, epoch in kept if not flags[index]]
    return Usable([epoch for _, epoch in kept], [index for index, _ in kept], [int(flag) for flag in flags], rejected)
