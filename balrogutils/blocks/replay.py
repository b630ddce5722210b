"""One injected object drawn again on one chip, alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from balrogutils.blocks.recipe import recipe_of, settings_of
from balrogutils.blocks.temporary import require_images
from balrogutils.context import Context
from balrogutils.errors import InputError, did_you_mean
from balrogutils.fitsfile import Plane, write_images
from balrogutils.injection import listing
from balrogutils.injection.chippsf import read_psf
from balrogutils.injection.planning import read_plan
from balrogutils.injection.rendering import candidates, render
from balrogutils.products import writing

__all__ = ["replay"]


def replay(context: Context, bal_id: int, chip_name: str, output: Path | None = None) -> tuple[Path, Path]:
    """Draw one object again, as it was drawn on one chip.

    Parameters
    ----------
    context : Context
        Tile and realization.
    bal_id : int
        Which object.
    chip_name : str
        Which chip, ``D<E>_<b>_c<N>_r<NNNN>p<NN>``.
    output : pathlib.Path, optional
        The FITS file; in the realization's directory ``replay`` when not given.

    Returns
    -------
    tuple of pathlib.Path
        The FITS file, with the planes TOTAL, MODEL and NOISE in chip units on the pixels of the chip, and the picture.

    Raises
    ------
    InputError
        When there is no such object or chip, or the object does not reach the chip.
    """
    settings, seed, realization = settings_of(context)
    tree = context.tree
    plan = read_plan(tree.plan)
    row = plan[plan["bal_id"] == bal_id]
    where = {"tile": context.tile, "chip": chip_name}
    if not len(row):
        raise InputError(
            f"realization {realization} has no object {bal_id}",
            **where,
            file=tree.plan,
            remedy="take bal_id from the truth catalogue",
        )
    bands = [band for band in context.bands if f"_{band}_" in chip_name] or context.bands
    require_images(context.at(None), "prep", list(bands))
    chips = {chip.name: chip for band in bands for chip in listing.base_chips(context.base_tree, tree, band)}
    if chip_name not in chips:
        raise InputError(
            f"the tile has no such chip: {did_you_mean(chip_name, chips)}",
            **where,
            remedy="take chip from the truth table by chip",
        )
    chip = chips[chip_name]
    if f"flux_{chip.band}" not in (plan.dtype.names or ()):
        raise InputError("nothing is injected into this band", **where, band=chip.band, remedy="name another chip")
    recipe, shapes = recipe_of(context, settings, seed, realization)
    psf = read_psf(chip, recipe)
    numbers, positions, halves = candidates(chip, row, np.array([shapes.reach(row[0])]), psf)
    flux = float(row[0][f"flux_{chip.band}"]) * chip.flux_factor
    one = None
    if len(numbers):
        at = float(positions[0, 0]), float(positions[0, 1])
        one = render(chip, row[0], shapes, at, int(halves[0]), psf, recipe, flux)
    if one is None:
        raise InputError(
            "the object does not reach this chip", **where, remedy="take chip from the truth table by chip"
        )
    model, noise = one.stamp.pixels[one.own], one.noise[one.own]
    header: dict[str, Any] = {
        "BAL_ID": bal_id,
        "CHIP": chip.name,
        "BALRREAL": realization,
        "XMIN": one.on_chip[1].start + 1,
        "YMIN": one.on_chip[0].start + 1,
        "XCEN": at[1] + 1.0,
        "YCEN": at[0] + 1.0,
        "FLUX": flux,
        "MAGZERO": chip.magzp,
    }
    file = tree.replay(bal_id, chip.name) if output is None else output
    cards = _cards(header)
    write_images(file, [Plane("TOTAL", model + noise, cards), Plane("MODEL", model), Plane("NOISE", noise)])
    picture = file.with_suffix(".png")
    _draw(model + noise, picture)
    return file, picture


def _cards(values: dict[str, Any]) -> Any:
    import fitsio

    header = fitsio.FITSHDR()
    for name, value in values.items():
        header.add_record({"name": name, "value": value})
    return header


def _draw(pixels: Any, file: Path) -> None:
    """Write a grey picture, north as in the chip, stretched by arcsinh of a thousandth of the peak."""
    from PIL import Image

    top = max(float(np.abs(pixels).max()), np.finfo(float).tiny)
    grey = np.arcsinh(np.clip(pixels, 0, None) / (1e-3 * top)) / np.arcsinh(1e3)
    side = max(1, 400 // max(grey.shape))
    image = Image.fromarray((255 * grey[::-1]).round().astype(np.uint8)).resize(
        (grey.shape[1] * side, grey.shape[0] * side), Image.Resampling.NEAREST
    )
    with writing(file) as part:
        image.save(part, format="PNG")
