"""What is injected into: the image of a chip, or a blank one with a background and noise of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InputError, ProductError
from balrogutils.fitsfile import read_image
from balrogutils.injection.chips import Chip, Recipe
from balrogutils.randomness import stream

__all__ = ["BLANKS", "Canvas", "canvas"]

BLANKS = ("CCD", "BKG", "BKG+CCD", "BKG+RN", "BKG+SKY", "None")
"""Noise models of blank images."""


@dataclass(frozen=True)
class Canvas:
    """An image before injection.

    Attributes
    ----------
    image : ndarray of float
        SCI plane.
    weight : float or None
        The weight of every pixel of a blank image; None for the planes of the base image.
    """

    image: NDArray[np.floating]
    weight: float | None = None


def canvas(chip: Chip, recipe: Recipe) -> Canvas:
    """Return what is injected into, the same in every call.

    Parameters
    ----------
    chip : Chip
        The chip.
    recipe : Recipe
        `Recipe.blank` names the noise model of a blank image; the chip's own image when it is None.

    Raises
    ------
    InputError
        When the header lacks what the noise model needs.
    ProductError
        When the image is not one of floating-point numbers, or the background has another shape.

    Notes
    -----
    The noise is Gaussian. ``CCD`` has the variance SKYSIGMA^2 / gain + (RDNOISE / gain)^2 of a CCD with the sky level
    SKYSIGMA^2 (P 5.5), ``RN`` (RDNOISE / gain)^2, ``SKY`` SKYSIGMA^2, with the mean RDNOISE and gain of the amplifiers.
    ``BKG`` begins with the background of the chip instead of 0. The weight is 1 / variance; without noise it is
    1 / RDNOISE^2.
    """
    if recipe.blank is None:
        image = read_image(chip.base, "SCI")
        if image.shape != chip.shape or image.dtype.kind != "f":
            raise ProductError(
                "the SCI plane is not a floating-point image", band=chip.band, chip=chip.name, file=chip.base
            )
        return Canvas(image)
    model = recipe.blank.split("+")
    image = np.zeros(chip.shape)
    if "BKG" in model:
        image += _background(chip)
    variance = 0.0
    if "CCD" in model:
        gain = float(chip.gains.mean())
        variance = _mean(chip, "SKYSIGMA") ** 2 / gain + (_mean(chip, "RDNOISE") / gain) ** 2
    elif "RN" in model:
        variance = (_mean(chip, "RDNOISE") / float(chip.gains.mean())) ** 2
    elif "SKY" in model:
        variance = _mean(chip, "SKYSIGMA") ** 2
    if variance > 0:
        names = ("blank", recipe.tile, recipe.noise_realization, chip.band, chip.name)
        image += np.sqrt(variance) * stream(recipe.seed, *names).standard_normal(chip.shape)
    return Canvas(image.astype(np.float32), 1.0 / (variance or _mean(chip, "RDNOISE") ** 2))


def _background(chip: Chip) -> NDArray[np.floating]:
    if chip.background is None:
        raise ProductError("the chip has no background", band=chip.band, chip=chip.name, remedy="run prep (mode 1)")
    image = None
    for ext in ("SCI", 0, 1):
        try:
            image = read_image(chip.background, ext)
        except ProductError:
            if ext == 1:
                raise
            continue
        if image is not None and image.shape == chip.shape:
            return image
    raise ProductError(
        "the background does not have the shape of the image", band=chip.band, chip=chip.name, file=chip.background
    )


def _mean(chip: Chip, key: str) -> float:
    """Return a card, or the mean of the cards of the two amplifiers."""
    found = [chip.header.get(name) for name in (key, f"{key}A", f"{key}B")]
    values = [float(one) for one in found if isinstance(one, (int, float)) and np.isfinite(one) and one > 0]
    if not values:
        raise InputError(
            f"a blank image with this noise needs {key}, and the image has no positive one",
            band=chip.band,
            chip=chip.name,
            file=chip.base,
            key="image.inj_objs_only",
            remedy="choose another noise model",
        )
    return float(np.mean(values))
