"""The audit of a realization from its files alone: injected and base images against the truth tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.blocks.recipe import recipe_of, settings_of
from balrogutils.blocks.temporary import require_images
from balrogutils.context import Context
from balrogutils.errors import BalrogError, ProductError
from balrogutils.fitsfile import read_header, read_image, read_table
from balrogutils.injection import audit as checks
from balrogutils.injection import listing
from balrogutils.injection.canvas import canvas
from balrogutils.injection.chips import Chip, Recipe
from balrogutils.injection.planning import plan_bands
from balrogutils.progress import track

__all__ = ["Audit", "BandAudit", "audit"]


@dataclass
class BandAudit:
    """One band: how many images, objects on them and groups of stamps; what they gained; the worst group."""

    band: str
    chips: int = 0
    lit: int = 0
    rows: int = 0
    groups: int = 0
    worst: float = 0.0
    problems: list[str] = field(default_factory=list)


@dataclass
class Audit:
    """What the audit of one realization found.

    Attributes
    ----------
    tile, realization : str
        Which.
    objects : int
        Rows of the truth catalogue.
    bands : list of BandAudit
        By band.
    problems : list of str
        What is wrong with the tables.
    """

    tile: str
    realization: str
    objects: int
    bands: list[BandAudit]
    problems: list[str]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not any(band.problems for band in self.bands)

    def __str__(self) -> str:
        lines = [f"{self.tile} realization {self.realization}: {self.objects} objects in the truth"]
        for band in self.bands:
            lines.append(
                f"  {band.band}: {band.lit} of {band.chips} CCDs injected, {band.rows} stamps in {band.groups} groups, "
                f"largest difference {band.worst:.2f} of what is allowed, {len(band.problems)} problems"
            )
        lines += [f"  WRONG: {text}" for text in self.problems]
        lines += [f"  WRONG: {text}" for band in self.bands for text in band.problems]
        return "\n".join([*lines, "  pixels are as the truth says" if self.sound else "  the audit failed"])


def audit(context: Context, redraw: bool = False) -> Audit:
    """Compare the images of a realization with its truth.

    Parameters
    ----------
    context : Context
        Tile and realization.
    redraw : bool
        Draw every object again from the truth, and compare every pixel.

    Raises
    ------
    ProductError
        When the truth is missing.
    """
    settings, seed, realization = settings_of(context)
    tree, base = context.tree, context.base_tree
    for file in (tree.truth, tree.truth_chips):
        if not file.is_file():
            raise ProductError(
                "the realization has no truth to audit",
                tile=context.tile,
                file=file,
                remedy="run the injection block (mode bit 8) first",
            )
    require_images(context.at(None), "prep", context.bands)
    require_images(context, "inject", context.bands)
    truth, chips = read_table(tree.truth, "TRUTH"), read_table(tree.truth_chips, "CHIPS")
    count = read_header(tree.truth, "TRUTH").get("NOBJECTS")
    problems = checks.check_truth(truth, chips, None if count is None else int(count))
    # FITS pads texts of a table with blanks.
    of_band, of_chip = (np.char.strip(np.asarray(chips[name], dtype=str)) for name in ("band", "chip"))
    recipe, shapes = recipe_of(context, settings, seed, realization)
    bands = []
    for band in context.bands:
        found = BandAudit(band)
        mine = truth if band in plan_bands(truth) else truth[:0]
        images = listing.base_chips(base, tree, band)
        names = {chip.name for chip in images}
        strange = sorted(set(of_chip[of_band == band]) - names)
        if strange:
            found.problems.append(f"the truth speaks of CCDs that are not in the list: {', '.join(strange[:3])}")
        for chip in track(images, f"{context.tile} {band} realization {realization}: audit", unit="CCDs"):
            rows = chips[(of_band == band) & (of_chip == chip.name)]
            found.chips += 1
            try:
                told = _chip(chip, mine, rows, recipe, found)
                if redraw and len(mine) and not told:
                    told = _redrawn(chip, mine, recipe, shapes)
            except BalrogError as error:
                told = [error.message]
            found.problems += [f"{chip.name}: {text}" for text in told]
        bands.append(found)
    return Audit(context.tile, realization, len(truth), bands, problems)


def _chip(chip: Chip, truth: NDArray[Any], rows: NDArray[Any], recipe: Recipe, found: BandAudit) -> list[str]:
    """Return what is wrong with one image."""
    if not chip.target.is_file():
        return ["the injected image is not there"]
    problems = []
    if checks.HEADER_KEY in chip.header:
        problems.append("the base image was injected into")
    marked = read_header(chip.target, "SCI").get(checks.HEADER_KEY)
    injected = bool(len(rows)) or recipe.blank is not None
    if injected and marked is None:
        problems.append(f"the image was not injected into: its header has no {checks.HEADER_KEY}")
    elif injected and str(marked) != recipe.realization:
        problems.append(f"the image was injected for realization {marked}")
    elif not injected and marked is not None:
        problems.append("the image was injected into, but no object of the truth reaches it")
    problems += checks.check_coverage(truth, rows, chip)
    pixels = checks.check_pixels(canvas(chip, recipe).image, read_image(chip.target, "SCI"), rows)
    found.lit += injected
    found.rows += len(rows)
    found.groups += pixels.groups
    found.worst = max(found.worst, pixels.worst)
    problems += pixels.problems
    if recipe.blank is None:
        planes = {"WGT", "WGT_ME", "MSK"}
        planes -= {"WGT", "WGT_ME"} if recipe.update_weights else set()
        planes -= {"MSK"} if recipe.mask_bit is not None else set()
        for name in sorted(planes):
            if not np.array_equal(read_image(chip.base, name), read_image(chip.target, name), equal_nan=True):
                problems.append(f"the plane {name} differs from the base image's")
    return problems


def _redrawn(chip: Chip, truth: NDArray[Any], recipe: Recipe, shapes: Any) -> list[str]:
    """Return what is wrong when every object is drawn again from the truth."""
    from balrogutils.injection.chippsf import read_psf
    from balrogutils.injection.imagefile import lit
    from balrogutils.injection.rendering import candidates, render_all

    psf = read_psf(chip, recipe)
    reach = np.array([shapes.reach(row) for row in truth])
    numbers, positions, halves = candidates(chip, truth, reach, psf)
    before = canvas(chip, recipe).image
    _, light, _ = render_all(chip, truth[numbers], positions, halves, psf, recipe, shapes, ~np.isfinite(before))
    differs = lit(before, light) != read_image(chip.target, "SCI")
    differs &= np.isfinite(before)
    return [f"{np.sum(differs)} pixels are not as the truth draws them"] if differs.any() else []
