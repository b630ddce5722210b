"""The sky of truth: stars and galaxies with positions, magnitudes, sizes and shapes."""

from __future__ import annotations

from collections.abc import Iterable

import galsim
import numpy as np
from numpy.typing import NDArray

from balrogutils.randomness import stream
from balrogutils.survey.parameters import SurveyParameters
from balrogutils.survey.telescope import Chip, field_centre, geometry_of

__all__ = ["GALAXY", "STAR", "UNITS", "ZERO_POINT", "draw_sky", "truth_dtype"]

STAR, GALAXY = 1, 0
"""Values of the truth column ``is_star``."""

ZERO_POINT = 30.0
"""Of the truth fluxes."""

UNITS = {"ra": "deg", "dec": "deg", "hlr": "arcsec", "bulge_hlr": "arcsec"}
"""Units of the truth columns; fluxes are at zero point 30, magnitudes AB."""

_MARGIN = 15.0  # arcsec beyond the outermost CCD from which light is still drawn


def truth_dtype(bands: Iterable[str]) -> np.dtype[np.void]:
    """Return the truth columns; ``hlr`` is that of the disk, g1 stretches along u (west), fluxes have zero point 30."""
    names = list(bands)
    return np.dtype(
        [
            ("id", "i8"),
            ("is_star", "i2"),
            ("ra", "f8"),
            ("dec", "f8"),
            ("hlr", "f8"),
            ("bulge_hlr", "f8"),
            ("bulge_fraction", "f8"),
        ]
        + [("g1", "f8"), ("g2", "f8")]
        + [(f"mag_{band}", "f8") for band in names]
        + [(f"flux_{band}", "f8") for band in names]
    )


def _power_law(random: np.random.Generator, count: int, span: tuple[float, float], slope: float) -> NDArray[np.float64]:
    """Return magnitudes with d log10 N / dm = `slope` between the limits."""
    low, high = (10.0 ** (slope * value) for value in (0.0, span[1] - span[0]))
    return span[0] + np.log10(low + random.uniform(size=count) * (high - low)) / slope


def _footprint(chips: Iterable[Chip], centre: tuple[float, float]) -> tuple[float, float, float, float]:
    """Return the box (u0, u1, v0, v1), arcsec west and north of `centre`, that holds every CCD with a margin."""
    origin = galsim.CelestialCoord(centre[0] * galsim.degrees, centre[1] * galsim.degrees)
    us, vs = [], []
    for chip in chips:
        rows, cols = chip.shape
        ra, dec = chip.wcs.pixel_to_sky([0, 0, rows - 1, rows - 1], [0, cols - 1, cols - 1, 0])
        u, v = origin.project_rad(np.radians(ra), np.radians(dec))
        us.append(u)
        vs.append(v)
    u, v = np.rad2deg([np.concatenate(us), np.concatenate(vs)]) * 3600.0
    return float(u.min() - _MARGIN), float(u.max() + _MARGIN), float(v.min() - _MARGIN), float(v.max() + _MARGIN)


def _star_colours(random: np.random.Generator, count: int) -> dict[str, NDArray[np.float64]]:
    """Return magnitudes relative to i of main-sequence stars.

    The locus of g-r against r-i is equation 4 of Juric et al. 2008 (ApJ 673, 864).
    """
    red = random.uniform(size=count) < 0.45
    x = np.where(red, random.normal(1.05, 0.35, count), random.normal(0.16, 0.08, count))
    x = np.clip(x, 0.03, 1.75)
    g_r = 1.39 * (1.0 - np.exp(-4.9 * x**3 - 2.45 * x**2 - 1.68 * x - 0.05)) + random.normal(0, 0.03, count)
    i_z = 0.53 * x - 0.02 + random.normal(0, 0.02, count)
    return {"g": g_r + x, "r": x, "i": np.zeros(count), "z": -i_z, "Y": -1.2 * i_z}


def _galaxy_colours(
    random: np.random.Generator, magnitude: NDArray[np.float64], early: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    """Return magnitudes relative to i: a red and a blue sequence, the blue one bluer at faint magnitudes."""
    count = len(magnitude)
    faint = np.clip(magnitude - 20.0, -3, 4)
    shared = random.normal(size=count)
    g_r = np.where(early, 1.25 + 0.02 * faint, 0.75 - 0.06 * faint) + 0.25 * shared
    r_i = np.where(early, 0.62 + 0.03 * faint, 0.36 - 0.02 * faint) + 0.10 * shared + random.normal(0, 0.07, count)
    i_z = np.where(early, 0.32, 0.20 - 0.01 * faint) + 0.05 * shared + random.normal(0, 0.05, count)
    return {"g": g_r + r_i, "r": r_i, "i": np.zeros(count), "z": -i_z, "Y": -1.3 * i_z}


def draw_sky(parameters: SurveyParameters, chips: Iterable[Chip]) -> NDArray[np.void]:
    """Draw the sky under all CCDs.

    Parameters
    ----------
    parameters : SurveyParameters
        The survey.
    chips : iterable of Chip
        The CCDs that will look at it.

    Returns
    -------
    ndarray
        One row per object, columns of `truth_dtype`; stars first, ids from 1.
    """
    population = parameters.population
    centre = field_centre(parameters)
    u0, u1, v0, v1 = _footprint(chips, centre)
    area = (u1 - u0) * (v1 - v0) / 3600.0
    bright = population.bright_stars * len(parameters.tiles)
    stars, galaxies = round(population.stars * area), round(population.galaxies * area)
    total = bright + stars + galaxies
    sky = np.zeros(total, dtype=truth_dtype(parameters.bands))
    sky["id"] = np.arange(1, total + 1)
    sky["is_star"][: bright + stars] = STAR

    random = stream(parameters.seed, "sky positions")
    u, v = random.uniform(u0, u1, total), random.uniform(v0, v1, total)
    origin = galsim.CelestialCoord(centre[0] * galsim.degrees, centre[1] * galsim.degrees)
    ra, dec = origin.deproject_rad(np.deg2rad(u / 3600.0), np.deg2rad(v / 3600.0))
    sky["ra"], sky["dec"] = np.degrees(ra) % 360.0, np.degrees(dec)
    for index, tile in enumerate(parameters.tiles):
        rows = slice(index * population.bright_stars, (index + 1) * population.bright_stars)
        place = (
            stream(parameters.seed, "bright stars", tile.name).uniform(0.15, 0.85, (2, population.bright_stars))
            * parameters.tile_pixels
        )
        sky["ra"][rows], sky["dec"][rows] = geometry_of(tile, parameters).wcs().pixel_to_sky(place[0], place[1])

    random = stream(parameters.seed, "stars")
    star_i = np.concatenate(
        [
            random.uniform(*population.bright_magnitudes, bright),
            _power_law(random, stars, population.star_magnitudes, population.star_slope),
        ]
    )
    star_colours = _star_colours(random, bright + stars)

    random = stream(parameters.seed, "galaxies")
    galaxy_i = _power_law(random, galaxies, population.galaxy_magnitudes, population.galaxy_slope)
    early = random.uniform(size=galaxies) < np.clip(0.45 - 0.06 * (galaxy_i - 19.0), 0.1, 0.6)
    galaxy_colours = _galaxy_colours(random, galaxy_i, early)
    part = sky[bright + stars :]
    # Half-light radii of field galaxies: about 0.5 arcsec at i = 22, log-normal.
    hlr = 0.52 * 10.0 ** (-0.09 * (galaxy_i - 22.0)) * np.exp(random.normal(0, 0.35, galaxies))
    part["hlr"] = np.clip(hlr, 0.12, 4.0)
    bulge = np.where(early, random.uniform(0.5, 1.0, galaxies), random.beta(1.2, 5.0, galaxies))
    part["bulge_fraction"] = np.where(bulge < 0.05, 0.0, bulge)
    part["bulge_hlr"] = part["hlr"] * random.uniform(0.35, 0.9, galaxies)
    # Reduced shear per component 0.2, cut at 0.7.
    g1, g2 = random.normal(0, 0.2, (2, galaxies))
    size = np.hypot(g1, g2)
    shrink = np.where(size > 0.7, 0.7 / np.maximum(size, 1e-9), 1.0)
    part["g1"], part["g2"] = g1 * shrink, g2 * shrink

    for band in parameters.bands:
        colour = np.concatenate(
            [_of_band(star_colours, band, bright + stars), _of_band(galaxy_colours, band, galaxies)]
        )
        magnitude = np.concatenate([star_i, galaxy_i]) + colour
        sky[f"mag_{band}"] = magnitude
        sky[f"flux_{band}"] = 10.0 ** (0.4 * (ZERO_POINT - magnitude))
    return sky


def _of_band(colours: dict[str, NDArray[np.float64]], band: str, count: int) -> NDArray[np.float64]:
    # A band outside grizY gets grey sources.
    return colours.get(band, np.zeros(count))
