"""The PSF of a chip as the configuration asks for it: the PSFEx model of the tile, or a Piff model; its colour."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from balrogutils.errors import InputError, ProductError
from balrogutils.injection.chips import Chip, Recipe
from balrogutils.piff import ChipPiff, Piff
from balrogutils.psf import PSFEx

__all__ = ["ChipPSF", "psf_file", "read_psf", "seen_by"]

ChipPSF: TypeAlias = PSFEx | ChipPiff
"""What objects are drawn with: ``profile(row, col)`` in pixels of the chip, and ``reach``."""


def psf_file(chip: Chip, recipe: Recipe) -> Path:
    """Return the file of the PSF model that objects of a chip are drawn with.

    Raises
    ------
    InputError
        When Piff models are asked for and the chip has none, or several.
    """
    if recipe.psf.type != "Piff":
        return chip.psf_file
    directory, name = recipe.psf.of_chip(recipe.base, chip.band, *chip.numbers)
    found = sorted(directory.glob(name))
    if len(found) != 1:
        raise InputError(
            f"the chip has {len(found) or 'no'} Piff model{'s' if found else ''}",
            band=chip.band,
            chip=chip.name,
            file=directory / name,
            key="psf.file_name",
            remedy="see that dir and file_name name one file of each CCD",
        )
    return found[0]


def read_psf(chip: Chip, recipe: Recipe) -> ChipPSF:
    """Return the PSF that objects of a chip are drawn with.

    Raises
    ------
    InputError
        As `psf_file`.
    ProductError
        When the file is damaged or not such a model.
    """
    file = psf_file(chip, recipe)
    if recipe.psf.type != "Piff":
        return PSFEx.read(file)
    try:
        return Piff.read(file).on(chip.wcs, chip.shape)
    except ProductError as error:
        raise ProductError(
            error.message,
            band=chip.band,
            chip=chip.name,
            file=file,
            key="psf.file_name",
            remedy="put a whole file there, or use the PSFEx models: type: DES_PSFEx",
        ) from error


def seen_by(psf: ChipPSF, row: Any, recipe: Recipe) -> ChipPSF:
    """Return the PSF of one object, which may depend on its colour.

    Parameters
    ----------
    psf : ChipPSF
        From `read_psf`.
    row : numpy.void
        Row of the plan: its colour is that of its fluxes as they are drawn, with extinction, at zero point 30.
    recipe : Recipe
        `Recipe.psf` may give the two bands, or one colour for all.

    Raises
    ------
    InputError
        When the colour is not known.
    """
    if not isinstance(psf, ChipPiff) or psf.model.color_key is None:
        return psf
    key, given = psf.model.color_key, recipe.psf.color
    if isinstance(given, float):
        return psf.seen(given)
    named = re.fullmatch(r"([a-z])([a-z])_color", key.lower())
    bands = given or (named.groups() if named else ())
    if not bands:
        raise InputError(
            f"the Piff models depend on {key}, which does not say of which bands it is the colour",
            key="psf.color",
            remedy="write color: [g, i], or color: and a number",
        )
    # Bands are small letters, but for Y.
    flux = {name.removeprefix("flux_").lower(): row[name] for name in row.dtype.names if name.startswith("flux_")}
    lacking = [band for band in bands if band.lower() not in flux]
    if lacking:
        raise InputError(
            f"the Piff models depend on {key}, and nothing is injected into {' and '.join(lacking)}",
            key="psf.color",
            remedy="inject into these bands too, or write color: and a number",
        )
    blue, red = (float(flux[band.lower()]) for band in bands)
    return psf.seen(-2.5 * float(np.log10(blue / red)))
