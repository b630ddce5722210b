"""The light of planned objects on one chip: which reach it, what each adds, and what they add up to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import galsim
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InjectionError
from balrogutils.injection import drawing
from balrogutils.injection.chippsf import ChipPSF, seen_by
from balrogutils.injection.chips import Chip, Recipe
from balrogutils.injection.flags import OUTCOME_DTYPE, ChipFlag, sharing
from balrogutils.injection.shapes import Shapes
from balrogutils.randomness import stream

__all__ = ["Light", "Rendered", "candidates", "render", "render_all"]


@dataclass
class Light:
    """Light added to one chip: its sum, the pixels under stamps, and its variance where weights are to know it."""

    added: NDArray[np.float64]
    touched: NDArray[np.bool_]
    variance: NDArray[np.float64] | None = None


class Rendered(NamedTuple):
    """One object on one chip.

    Attributes
    ----------
    on_chip, own : tuple of slice
        Where the stamp lies on the chip, and which part of the stamp that is.
    stamp : drawing.Stamp
        Its light, chip units.
    noise, variance : ndarray of float64
        Its Poisson noise and the expected square of it, shaped like the stamp; zeros without.
    """

    on_chip: tuple[slice, slice]
    own: tuple[slice, slice]
    stamp: drawing.Stamp
    noise: NDArray[np.float64]
    variance: NDArray[np.float64]


def render(
    chip: Chip,
    row: Any,
    shapes: Shapes,
    at: tuple[float, float],
    half: int,
    psf: ChipPSF,
    recipe: Recipe,
    flux: float,
) -> Rendered | None:
    """Draw one object for one chip, the same whatever else is drawn.

    Parameters
    ----------
    chip : Chip
        The chip.
    row : numpy.void
        Row of the plan.
    shapes : Shapes
        Makes its profile.
    at : tuple of float
        Zero-offset (row, col) of the centre.
    half : int
        Half the side of the stamp, from `candidates`.
    psf : ChipPSF
        PSF of the chip.
    recipe : Recipe
        Accuracy, noise, seeds.
    flux : float
        Flux in chip units.

    Returns
    -------
    Rendered or None
        None when the stamp does not touch the chip.

    Raises
    ------
    InjectionError
        When it cannot be drawn.
    """

    own_psf = seen_by(psf, row, recipe)

    def drawn(profile: galsim.GSObject | None) -> drawing.Stamp:
        return drawing.draw(row, profile, at, half, own_psf, chip.wcs, flux, recipe.gsparams, recipe.recenter)

    stamp = drawn(shapes.profile(row, chip.band))
    where = stamp.overlap(chip.shape)
    if where is None:
        return None
    noise, variance = np.zeros_like(stamp.pixels), np.zeros_like(stamp.pixels)
    if recipe.poisson:
        # Both of a shear pair have the noise of the first: their difference is the shear's alone.
        first = recipe.noise_realization == recipe.realization
        light = stamp if first else drawn(shapes.profile(row, chip.band, mirrored=True))
        # Drawn for the whole stamp, so that the noise does not depend on where the chip ends.
        columns = np.clip(stamp.col + np.arange(len(stamp.pixels)), 0, chip.shape[1] - 1)
        gains = chip.gains[columns]
        names = ("poisson", recipe.tile, recipe.noise_realization, chip.band, chip.name, int(row["noise_key"]))
        noise = drawing.poisson_noise(light.pixels, gains, stream(recipe.seed, *names))
        variance = np.maximum(light.pixels, 0.0) / gains
    return Rendered(*where, stamp, noise, variance)


def render_all(
    chip: Chip,
    rows: NDArray[Any],
    positions: NDArray[np.float64],
    halves: NDArray[np.int64],
    psf: ChipPSF,
    recipe: Recipe,
    shapes: Shapes,
    bad: NDArray[np.bool_],
) -> tuple[NDArray[Any], Light, list[tuple[int, int]]]:
    """Draw objects; return their outcome, the light, and the brightest pixel of each.

    Parameters
    ----------
    chip, psf, recipe
        As in `render`.
    shapes : Shapes
        Makes the profiles.
    rows : numpy.ndarray
        Rows of the plan.
    positions : ndarray of float64, shape (n, 2)
        Their zero-offset (row, col).
    halves : ndarray of int64, shape (n,)
        Half the sides of their stamps.
    bad : ndarray of bool
        Pixels of the chip that take no light.
    """
    light = Light(np.zeros(chip.shape), np.zeros(chip.shape, dtype=bool))
    if recipe.poisson and recipe.update_weights:
        light.variance = np.zeros(chip.shape)
    outcome = np.zeros(len(rows), dtype=OUTCOME_DTYPE)
    for name, value in (("band", chip.band), ("chip", chip.name), ("magzp", chip.magzp), ("bal_id", rows["bal_id"])):
        outcome[name] = value
    outcome["expnum"], outcome["ccdnum"] = chip.numbers
    outcome["x"], outcome["y"] = positions[:, 1] + 1.0, positions[:, 0] + 1.0
    outcome["flux_expected"] = rows[f"flux_{chip.band}"] * chip.flux_factor
    peaks: list[tuple[int, int]] = []
    drawn: list[int] = []
    for number, (row, at, half, out) in enumerate(zip(rows, positions, halves, outcome, strict=True)):
        one = render(chip, row, shapes, (at[0], at[1]), int(half), psf, recipe, float(out["flux_expected"]))
        if one is None:
            continue
        inside, noise, takes = one.stamp.pixels[one.own], one.noise[one.own], ~bad[one.on_chip]
        flags = ChipFlag.DRAWN
        if inside.size < one.stamp.pixels.size:
            flags |= ChipFlag.CLIPPED_BY_EDGE
        if 0 <= at[0] <= chip.shape[0] - 1 and 0 <= at[1] <= chip.shape[1] - 1:
            flags |= ChipFlag.CENTRE_ON_CHIP
        if not takes.all():
            flags |= ChipFlag.ON_BAD_PIXELS
        if recipe.poisson:
            variance = one.variance[one.own]
            out["noise_drawn"], out["noise_key"] = noise[takes].sum(), row["noise_key"]
            out["poisson_variance"] = variance[takes].sum()
            if light.variance is not None:
                light.variance[one.on_chip] += variance
        light.added[one.on_chip] += inside + noise
        light.touched[one.on_chip] = True
        out["flags"], out["flux_drawn"], out["flux_on_chip"] = flags, one.stamp.pixels.sum(), inside[takes].sum()
        (out["ymin"], out["ymax"]), (out["xmin"], out["xmax"]) = ((part.start + 1, part.stop) for part in one.on_chip)
        top = np.unravel_index(int(inside.argmax()), inside.shape)
        peaks.append((int(top[0]) + one.on_chip[0].start, int(top[1]) + one.on_chip[1].start))
        drawn.append(number)
    outcome = outcome[drawn]
    outcome["flags"][_overlapping(outcome)] |= ChipFlag.OVERLAPS_ANOTHER
    return outcome, light, peaks


def _overlapping(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which stamps share pixels with another."""
    shared = np.zeros(len(rows), dtype=bool)
    for number, row in enumerate(rows):
        shared[number] = np.count_nonzero(sharing(rows, row)) > 1
    return shared


def candidates(
    chip: Chip, plan: NDArray[Any], reach: NDArray[np.float64], psf: ChipPSF
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return rows of the plan, zero-offset (row, col) and half stamp sides of the objects that overlap a chip.

    Parameters
    ----------
    chip : Chip
        The chip.
    plan : numpy.ndarray
        The plan.
    reach : ndarray of float64, shape (n,)
        `profiles.light_radius` of each row, arcsec.
    psf : ChipPSF
        Its PSF.

    Raises
    ------
    InjectionError
        When the WCS gives no position.
    """
    height, width = chip.shape
    near = chip.near(plan["ra"], plan["dec"], reach + chip.scale * psf.reach)
    try:
        positions = np.column_stack(chip.wcs.sky_to_pixel(plan["ra"][near], plan["dec"][near]))
    except galsim.GalSimError as error:
        raise InjectionError(f"the WCS of the chip gives no position for an object: {error}") from error
    if not np.isfinite(positions).all():
        raise InjectionError("the WCS of the chip gives no position for an object")
    keep, halves = [], []
    for number, (row, col) in enumerate(positions):
        local = chip.wcs.galsim.local(image_pos=galsim.PositionD(col + 1.0, row + 1.0))
        half = drawing.stamp_half(reach[near[number]], psf, local)
        if -half - 0.5 <= row < height + half - 0.5 and -half - 0.5 <= col < width + half - 0.5:
            keep.append(number)
            halves.append(half)
    return near[keep], positions[keep], np.array(halves, dtype=np.int64)
