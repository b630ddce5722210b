"""Injection into one image file: draw, add, write, audit."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InjectionError, ProductError
from balrogutils.fitsfile import checksum
from balrogutils.injection import audit
from balrogutils.injection.canvas import Canvas, canvas
from balrogutils.injection.chippsf import read_psf
from balrogutils.injection.chips import Chip, Recipe
from balrogutils.injection.flags import OUTCOME_DTYPE, ChipFlag
from balrogutils.injection.rendering import Light, candidates, render_all
from balrogutils.injection.shapes import Shapes
from balrogutils.products import link_or_copy, writing

__all__ = ["inject_chip", "lit"]

log = logging.getLogger(__name__)

_PLANES = ("SCI", "WGT", "WGT_ME", "MSK")
# Rows of pixels handled at a time where a temporary copy in double precision is needed.
_BLOCK = 256


def inject_chip(
    chip: Chip, plan: NDArray[Any], reach: NDArray[np.float64], recipe: Recipe, shapes: Shapes
) -> NDArray[Any]:
    """Draw every planned object whose light can touch a chip, and write the injected image.

    Parameters
    ----------
    chip : Chip
        The image.
    plan : numpy.ndarray
        Rows of the plan.
    reach : ndarray of float64, shape (n,)
        `Shapes.reach` of each row, arcsec.
    recipe : Recipe
        Accuracy, noise, seeds.
    shapes : Shapes
        Makes the profiles.

    Returns
    -------
    numpy.ndarray
        Rows of `OUTCOME_DTYPE`, for the objects drawn. Without any the target is a link to the base image, unless
        a blank one was asked for.

    Raises
    ------
    InjectionError
        When an object cannot be drawn, or the audit of the written image disagrees; nothing is written then.
    ProductError
        When the base image is cut short.
    """
    psf = read_psf(chip, recipe)
    _check_whole(chip)
    try:
        if audit.HEADER_KEY in chip.header:
            raise InjectionError(
                f"the base image was injected into before: its header has {audit.HEADER_KEY}",
                remedy="make the base run's null-weight images again (mode bit 1)",
            )
        rows, positions, halves = candidates(chip, plan, reach, psf)
        if not len(rows) and recipe.blank is None:
            audit.require(audit.check_coverage(plan, np.zeros(0, dtype=OUTCOME_DTYPE), chip))
            link_or_copy(chip.base, chip.target)
            return np.zeros(0, dtype=OUTCOME_DTYPE)
        before = canvas(chip, recipe)
        bad = ~np.isfinite(before.image)
        outcome, light, peaks = render_all(chip, plan[rows], positions, halves, psf, recipe, shapes, bad)
        audit.require(audit.check_coverage(plan, outcome, chip))
        new = _Planes(lit(before.image, light), light.touched, light.variance)
        # Twice the size of the image, and of no more use.
        del light
        _write(chip, before, new, outcome, peaks, recipe)
    except InjectionError as error:
        raise InjectionError(
            error.message, tile=recipe.tile, band=chip.band, chip=chip.name, file=chip.target, remedy=error.remedy
        ) from error
    return outcome


class _Planes(NamedTuple):
    """What goes into the file: the lit image, the pixels under stamps, the variance where weights are to know it."""

    image: NDArray[Any]
    touched: NDArray[np.bool_]
    variance: NDArray[np.float64] | None


def _check_whole(chip: Chip) -> None:
    """Refuse a base image that was cut short: its other planes are copied without being looked at."""
    rows = chip.shape[0]
    with fitsio.FITS(str(chip.base)) as fits:
        for name in _PLANES:
            try:
                fits[name][rows - 1 : rows, 0:1]
            except OSError as error:
                raise ProductError(
                    f"the {name} plane of a null-weight image is damaged",
                    band=chip.band,
                    chip=chip.name,
                    file=chip.base,
                    remedy="remove the file and run prep again (mode 1)",
                ) from error


def lit(base: NDArray[Any], light: Light) -> NDArray[Any]:
    """Return an image with light added to it, rounded once to the precision of the image."""
    image = base.copy()
    for first in range(0, len(base), _BLOCK):
        rows = slice(first, first + _BLOCK)
        here = light.touched[rows]
        image[rows][here] = (base[rows][here].astype(np.float64) + light.added[rows][here]).astype(base.dtype)
    return image


def _write(
    chip: Chip,
    before: Canvas,
    new: _Planes,
    outcome: NDArray[Any],
    peaks: Sequence[tuple[int, int]],
    recipe: Recipe,
) -> None:
    """Write the image: the base file with what changes replaced; then read it again and audit it."""
    base = before.image
    with writing(chip.target) as part:
        # A copy keeps the other planes and all headers bit by bit.
        shutil.copyfile(chip.base, part)
        with fitsio.FITS(str(part), "rw") as fits:
            fits["SCI"].write(new.image)
            fits["SCI"].write_key(audit.HEADER_KEY, recipe.realization, "realization injected into this image")
            fits["SCI"].write_checksum()
            _write_planes(fits, before, new, recipe)
            _centre_flags(fits, outcome)
        with fitsio.FITS(str(part)) as fits:
            written = fits["SCI"].read()
        if not np.array_equal(written, new.image, equal_nan=True):
            raise InjectionError("the file does not hold the pixels that were written", remedy="check the disk")
        found = audit.check_pixels(base, written, outcome)
        audit.require(found.problems)
        lost = int(np.sum(new.touched & ~np.isfinite(base)))
        if lost:
            log.warning("%d pixels under injected objects are not finite in the base image and take no light", lost)
    sky, limit = chip.header.get("SKYBRITE"), chip.header.get("SATURATE")
    if isinstance(limit, (int, float)) and peaks:
        level = np.array([written[peak] for peak in peaks]) + (float(sky) if isinstance(sky, (int, float)) else 0.0)
        outcome["flags"][level >= limit] |= ChipFlag.SATURATED


def _write_planes(fits: fitsio.FITS, before: Canvas, new: _Planes, recipe: Recipe) -> None:
    """Write the planes beside the image that the recipe changes: weights and mask."""
    for name in ("WGT", "WGT_ME"):
        if before.weight is None and new.variance is None:
            continue
        weight = fits[name].read()
        if before.weight is not None:
            weight[:] = before.weight
        if new.variance is not None:
            good = weight > 0
            weight[good] = 1.0 / (1.0 / weight[good].astype(np.float64) + new.variance[good])
        fits[name].write(weight)
        checksum(fits[name])
    if before.weight is not None or recipe.mask_bit is not None:
        mask = fits["MSK"].read()
        if before.weight is not None:
            mask[:] = 0
        if recipe.mask_bit is not None:
            mask[new.touched] |= mask.dtype.type(1 << recipe.mask_bit)
        fits["MSK"].write(mask)
        checksum(fits["MSK"])


def _centre_flags(fits: fitsio.FITS, outcome: NDArray[Any]) -> None:
    weight = fits["WGT"]
    for number in np.flatnonzero(outcome["flags"] & ChipFlag.CENTRE_ON_CHIP):
        row, col = (int(np.floor(outcome[name][number] - 0.5)) for name in ("y", "x"))
        if weight[row : row + 1, col : col + 1][0, 0] == 0:
            outcome["flags"][number] |= ChipFlag.CENTRE_MASKED
