"""Injection into one chip: draw, add, audit, write."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fitsio
import galsim
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InjectionError, InputError, ProductError
from balrogutils.fitsfile import read_header
from balrogutils.injection import drawing, profiles
from balrogutils.injection.catalogs import ZERO_POINT
from balrogutils.injection.flags import OUTCOME_DTYPE, ChipFlag
from balrogutils.products import link_or_copy, writing
from balrogutils.psf import PSFEx
from balrogutils.randomness import stream
from balrogutils.wcs import ImageWCS

__all__ = ["Chip", "Recipe", "inject_chip"]

log = logging.getLogger(__name__)

# Rows of pixels handled at a time where a temporary copy in double precision is needed.
_BLOCK = 256
_PLANES = ("SCI", "WGT", "WGT_ME", "MSK")


@dataclass(frozen=True)
class Chip:
    """One null-weight image, base and injected.

    Attributes
    ----------
    name, band : str
        Chip name ``D<E>_<b>_c<N>_r<NNNN>p<NN>`` and band.
    base, target : pathlib.Path
        Null-weight image of the base run, and the one to write.
    psf_file : pathlib.Path
        PSFEx model.
    magzp : float
        Zero point of the image.
    """

    name: str
    band: str
    base: Path
    target: Path
    psf_file: Path
    magzp: float

    @cached_property
    def header(self) -> fitsio.FITSHDR:
        """Header of the SCI plane."""
        return read_header(self.base, "SCI")

    @cached_property
    def wcs(self) -> ImageWCS:
        """WCS of the chip."""
        return ImageWCS(self.header)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.header["NAXIS2"]), int(self.header["NAXIS1"])

    @property
    def flux_factor(self) -> float:
        """Chip units per unit of flux at zero point 30."""
        return float(10.0 ** (0.4 * (self.magzp - ZERO_POINT)))

    @property
    def gain(self) -> float:
        """Mean gain of the amplifiers, electrons per unit.

        Raises
        ------
        InputError
            When the header has none.
        """
        gains = [self.header.get(key) for key in ("GAINA", "GAINB", "GAIN")]
        known = [float(gain) for gain in gains if isinstance(gain, (int, float)) and np.isfinite(gain) and gain > 0]
        if not known:
            raise InputError(
                "Poisson noise needs the gain, and the image has no positive GAINA, GAINB or GAIN",
                band=self.band,
                chip=self.name,
                file=self.base,
                key="image.noise",
                remedy="remove noise from the injection configuration",
            )
        return float(np.mean(known[:2]))

    @property
    def numbers(self) -> tuple[int, int]:
        """Exposure and CCD number, from the name."""
        parts = self.name.split("_")
        try:
            return int(parts[0].removeprefix("D")), int(parts[2].removeprefix("c"))
        except (IndexError, ValueError) as error:
            raise ProductError(
                "a chip name is not D<exposure>_<band>_c<CCD>_r<run>", chip=self.name, band=self.band, file=self.base
            ) from error


@dataclass(frozen=True)
class Recipe:
    """What does not differ between chips: accuracy, noise and keys of the random streams."""

    gsparams: galsim.GSParams
    poisson: bool
    seed: int
    tile: str
    realization: str


@dataclass
class _Light:
    """Light added to one chip."""

    added: NDArray[np.float64]
    touched: NDArray[np.bool_]


def inject_chip(chip: Chip, plan: NDArray[Any], reach: NDArray[np.float64], recipe: Recipe) -> NDArray[Any]:
    """Draw every planned object whose light can touch a chip, and write the injected image.

    Parameters
    ----------
    chip : Chip
        The image.
    plan : numpy.ndarray
        Rows of the plan.
    reach : ndarray of float64, shape (n,)
        `profiles.light_radius` of each row, arcsec.
    recipe : Recipe
        Accuracy, noise, seeds.

    Returns
    -------
    numpy.ndarray
        Rows of `OUTCOME_DTYPE`, for the objects drawn. Without any the target is a link to the base image.

    Raises
    ------
    InjectionError
        When an object cannot be drawn, or the audit of the written image disagrees; nothing is written then.
    ProductError
        When the base image is cut short.
    """
    psf = PSFEx.read(chip.psf_file)
    _check_whole(chip)
    try:
        rows, positions, halves = _candidates(chip, plan, reach, psf)
        if not len(rows):
            link_or_copy(chip.base, chip.target)
            return np.zeros(0, dtype=OUTCOME_DTYPE)
        outcome, light, peaks = _draw_all(chip, plan[rows], positions, halves, psf, recipe)
        _write(chip, light, outcome, peaks)
    except InjectionError as error:
        raise InjectionError(
            error.message, tile=recipe.tile, band=chip.band, chip=chip.name, file=chip.target, remedy=error.remedy
        ) from error
    return outcome


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


def _candidates(
    chip: Chip, plan: NDArray[Any], reach: NDArray[np.float64], psf: PSFEx
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return rows of the plan, zero-offset (row, col) and half stamp sides of the objects that overlap the chip."""
    height, width = chip.shape
    middle = (0.5 * (height - 1), 0.5 * (width - 1))
    scale = float(
        np.sqrt(chip.wcs.galsim.local(image_pos=galsim.PositionD(middle[1] + 1.0, middle[0] + 1.0)).pixelArea())
    )
    ra, dec = chip.wcs.pixel_to_sky(*middle)
    # A distorted WCS may bring far objects back onto the chip, so only those near on the sky are asked for.
    away = 3600.0 * _separation(plan["ra"], plan["dec"], ra[0], dec[0])
    largest = scale * (0.5 * np.hypot(height, width) + drawing.psf_reach(psf) + 2.0) + reach
    near = np.flatnonzero(away <= 1.1 * largest)
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


def _separation(ra: NDArray[np.float64], dec: NDArray[np.float64], ra0: float, dec0: float) -> NDArray[np.float64]:
    """Return distances in degrees."""
    lon, lat, lon0, lat0 = (np.radians(value) for value in (ra, dec, ra0, dec0))
    h = np.sin(0.5 * (lat - lat0)) ** 2 + np.cos(lat) * np.cos(lat0) * np.sin(0.5 * (lon - lon0)) ** 2
    return np.degrees(2.0 * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0))))


def _draw_all(
    chip: Chip,
    rows: NDArray[Any],
    positions: NDArray[np.float64],
    halves: NDArray[np.int64],
    psf: PSFEx,
    recipe: Recipe,
) -> tuple[NDArray[Any], _Light, list[tuple[int, int]]]:
    """Draw the objects; return their outcome, the light, and the brightest pixel of each."""
    light = _Light(np.zeros(chip.shape), np.zeros(chip.shape, dtype=bool))
    outcome = np.zeros(len(rows), dtype=OUTCOME_DTYPE)
    outcome["bal_id"], outcome["band"], outcome["chip"], outcome["magzp"] = (
        rows["bal_id"],
        chip.band,
        chip.name,
        chip.magzp,
    )
    outcome["expnum"], outcome["ccdnum"] = chip.numbers
    outcome["x"], outcome["y"] = positions[:, 1] + 1.0, positions[:, 0] + 1.0
    outcome["flux_expected"] = rows[f"flux_{chip.band}"] * chip.flux_factor
    gain = chip.gain if recipe.poisson else 0.0
    peaks: list[tuple[int, int]] = []
    drawn: list[int] = []
    for number, (row, at, half, out) in enumerate(zip(rows, positions, halves, outcome, strict=True)):
        stamp = drawing.draw(
            row, (at[0], at[1]), int(half), psf, chip.wcs, float(out["flux_expected"]), recipe.gsparams
        )
        where = stamp.overlap(chip.shape)
        if where is None:
            continue
        on_chip, own = where
        inside = stamp.pixels[own]
        flags = ChipFlag.DRAWN
        if inside.size < stamp.pixels.size:
            flags |= ChipFlag.CLIPPED_BY_EDGE
        if 0 <= at[0] <= chip.shape[0] - 1 and 0 <= at[1] <= chip.shape[1] - 1:
            flags |= ChipFlag.CENTRE_ON_CHIP
        noise = np.zeros(())
        if recipe.poisson:
            # Drawn for the whole stamp, so that the noise does not depend on where the chip ends.
            names = ("poisson", recipe.tile, recipe.realization, chip.band, chip.name, int(row["bal_id"]))
            noise = drawing.poisson_noise(stamp.pixels, gain, stream(recipe.seed, *names))[own]
            out["noise_drawn"] = noise.sum()
            out["poisson_variance"] = np.maximum(inside, 0.0).sum() / gain
        light.added[on_chip] += inside + noise
        light.touched[on_chip] = True
        out["flags"], out["flux_drawn"] = flags, inside.sum()
        out["ymin"], out["ymax"] = on_chip[0].start + 1, on_chip[0].stop
        out["xmin"], out["xmax"] = on_chip[1].start + 1, on_chip[1].stop
        top = np.unravel_index(int(inside.argmax()), inside.shape)
        peaks.append((int(top[0]) + on_chip[0].start, int(top[1]) + on_chip[1].start))
        drawn.append(number)
    return outcome[drawn], light, peaks


def _write(chip: Chip, light: _Light, outcome: NDArray[Any], peaks: Sequence[tuple[int, int]]) -> None:
    """Write the image: the base file with its SCI pixels replaced; then read it again and audit it."""
    with writing(chip.target) as part:
        # A copy keeps the other planes and all headers bit by bit.
        shutil.copyfile(chip.base, part)
        with fitsio.FITS(str(part), "rw") as fits:
            base = fits["SCI"].read()
            if base.shape != chip.shape or base.dtype.kind != "f":
                raise ProductError(
                    "the SCI plane is not a floating-point image", band=chip.band, chip=chip.name, file=chip.base
                )
            image = base.copy()
            for first in range(0, len(base), _BLOCK):
                rows = slice(first, first + _BLOCK)
                here = light.touched[rows]
                image[rows][here] = (base[rows][here].astype(np.float64) + light.added[rows][here]).astype(base.dtype)
            fits["SCI"].write(image)
            fits["SCI"].write_checksum()
            _centre_flags(chip, fits, outcome)
        with fitsio.FITS(str(part)) as fits:
            written = fits["SCI"].read()
        _audit(base, written, light, outcome)
    sky, limit = chip.header.get("SKYBRITE"), chip.header.get("SATURATE")
    if isinstance(limit, (int, float)):
        level = np.array([written[peak] for peak in peaks]) + (float(sky) if isinstance(sky, (int, float)) else 0.0)
        outcome["flags"][level >= limit] |= ChipFlag.SATURATED


def _centre_flags(chip: Chip, fits: fitsio.FITS, outcome: NDArray[Any]) -> None:
    weight = fits["WGT"]
    for number in np.flatnonzero(outcome["flags"] & ChipFlag.CENTRE_ON_CHIP):
        row, col = (int(np.floor(outcome[name][number] - 0.5)) for name in ("y", "x"))
        if weight[row : row + 1, col : col + 1][0, 0] == 0:
            outcome["flags"][number] |= ChipFlag.CENTRE_MASKED


def _audit(base: NDArray[Any], written: NDArray[Any], light: _Light, outcome: NDArray[Any]) -> None:
    """Raise InjectionError unless what the file gained is what the outcome says was drawn.

    The difference of the images must equal the drawn light and noise within 5 sigma of the rounding to single precision
    plus 1e-6 of the light, and be zero outside the stamps. Pixels whose base value is not finite take no light; they
    are left out on both sides and counted.
    """
    gained = asked = lost = 0.0
    variance = 0.0
    lost_pixels = 0
    for first in range(0, len(base), _BLOCK):
        rows = slice(first, first + _BLOCK)
        here = light.touched[rows]
        if not np.array_equal(base[rows][~here], written[rows][~here], equal_nan=True):
            raise InjectionError("the injected image differs from the base image outside the stamps")
        old, new, added = base[rows][here], written[rows][here], light.added[rows][here]
        finite = np.isfinite(old)
        if not np.array_equal(finite, np.isfinite(new)):
            raise InjectionError("a pixel became infinite by injection")
        gained += float((new[finite].astype(np.float64) - old[finite]).sum())
        asked += float(added[finite].sum())
        lost += float(added[~finite].sum())
        lost_pixels += int(np.sum(~finite))
        variance += float((np.spacing(np.abs(new[finite])).astype(np.float64) ** 2).sum()) / 12.0
    told = float(outcome["flux_drawn"].sum() + outcome["noise_drawn"].sum()) - lost
    slack = 5.0 * np.sqrt(variance) + 1e-6 * float(np.abs(outcome["flux_drawn"]).sum())
    if not (abs(gained - told) <= slack and abs(gained - asked) <= slack):
        raise InjectionError(
            f"the image gained {gained:.6g}, but the objects drawn sum to {told:.6g} (allowed difference {slack:.3g})"
        )
    whole = (outcome["flags"] & ChipFlag.CLIPPED_BY_EDGE) == 0
    short = np.abs(outcome["flux_drawn"] - outcome["flux_expected"]) > profiles.LOST_LIGHT * outcome["flux_expected"]
    if (whole & short).any():
        raise InjectionError(
            f"{np.sum(whole & short)} objects that lie on the chip have less light than the truth says"
        )
    if lost_pixels:
        log.warning("%d pixels under injected objects are not finite in the base image and take no light", lost_pixels)
