"""Where objects go: uniform on the sphere, or grids in the tile's pixel frame."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InjectionError
from balrogutils.randomness import stream
from balrogutils.settings.sampling import Positions

__all__ = ["DEFAULT_SPACING", "MAX_OBJECTS", "grid", "halton", "inside", "uniform", "unique_area"]

DEFAULT_SPACING = 30.0
"""Grid spacing in arcsec when none is given."""

MAX_OBJECTS = 1_000_000
"""Most positions of one kind in a tile; a grid has some ten thousand in a DES tile, far more is a slip of the unit."""

_HEX = 2.0 / math.sqrt(3.0)

# Grids of different inputs with equal spacing would coincide; each further input is moved to the holes of the first,
# in units of the lattice vectors.
_HOLES = {
    "HexGrid": ((0.0, 0.0), (1.0 / 3.0, 1.0 / 3.0), (2.0 / 3.0, 2.0 / 3.0)),
    "RectGrid": ((0.0, 0.0), (0.5, 0.5), (0.5, 0.0), (0.0, 0.5)),
}


def unique_area(uramin: float, uramax: float, udecmin: float, udecmax: float) -> float:
    """Return the area of a box in right ascension and declination (degrees), in arcmin^2; RA may wrap."""
    width = (uramax - uramin) % 360.0
    height = math.sin(math.radians(udecmax)) - math.sin(math.radians(udecmin))
    return 3600.0 * math.degrees(1.0) * width * height


def uniform(
    seed: int, names: tuple[str | int, ...], count: int, box: tuple[float, float, float, float]
) -> NDArray[np.float64]:
    """Return positions that are uniform on the sphere within a box.

    Parameters
    ----------
    seed : int
        Seed of the run.
    names : tuple
        Keys of the random stream; the number of the object is added.
    count : int
        How many.
    box : tuple of float
        RA from, RA to, declination from, declination to, degrees; RA may wrap.

    Returns
    -------
    ndarray of float64, shape (count, 2)
        RA in [0, 360) and declination, degrees. The first positions do not depend on `count`.
    """
    draws = np.array([stream(seed, *names, number).random(2) for number in range(count)]).reshape(count, 2)
    return _on_sphere(draws, box)


def halton(
    seed: int, names: tuple[str | int, ...], count: int, box: tuple[float, float, float, float]
) -> NDArray[np.float64]:
    """Return positions of a Halton sequence, uniform on the sphere within a box.

    Parameters
    ----------
    seed, names, count, box
        As in `uniform`; the stream gives one shift of the whole sequence.

    Returns
    -------
    ndarray of float64, shape (count, 2)
        RA in [0, 360) and declination, degrees. The first positions do not depend on `count`.

    Notes
    -----
    Radical inverses of 1, 2, ... in the bases 2 and 3 (Halton 1960), shifted modulo 1 (Cranley & Patterson 1976).
    """
    shift = stream(seed, "halton", *names).random(2)
    draws = np.zeros((count, 2))
    for axis, base in enumerate((2, 3)):
        number, weight = np.arange(1, count + 1), 1.0
        while number.any():
            weight /= base
            draws[:, axis] += weight * (number % base)
            number = number // base
    return _on_sphere((draws + shift) % 1.0, box)


def _on_sphere(draws: NDArray[np.float64], box: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """Map the unit square onto a box in right ascension and declination, keeping areas."""
    ra_from, ra_to, dec_from, dec_to = box
    z_from, z_to = math.sin(math.radians(dec_from)), math.sin(math.radians(dec_to))
    ra = (ra_from + ((ra_to - ra_from) % 360.0) * draws[:, 0]) % 360.0
    return np.column_stack([ra, np.degrees(np.arcsin(z_from + (z_to - z_from) * draws[:, 1]))])


def inside(sky: NDArray[np.float64], box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """Return which positions, shape (n, 2) in degrees, lie in a box in right ascension and declination."""
    ra_from, ra_to, dec_from, dec_to = box
    along = (sky[:, 0] - ra_from) % 360.0
    return (along <= (ra_to - ra_from) % 360.0) & (sky[:, 1] >= dec_from) & (sky[:, 1] <= dec_to)


def grid(
    kind: str,
    settings: Positions,
    shape: tuple[int, int],
    pixel_scale: float,
    seed: int,
    names: tuple[str | int, ...],
    hole: int = 0,
) -> NDArray[np.float64]:
    """Return the points of a grid, in the tile's pixel frame.

    Parameters
    ----------
    kind : {"RectGrid", "HexGrid"}
        Square lattice of step `grid_spacing`, or the vertices and centres of hexagons of inner radius `grid_spacing`,
        whose nearest neighbours are 2/sqrt(3) times as far apart.
    settings : Positions
        Spacing, rotation and offset.
    shape : tuple of int
        Rows and columns of the tile.
    pixel_scale : float
        Arcsec per pixel.
    seed, names
        Key of the random stream for ``Random`` rotation and offset.
    hole : int
        0 for the lattice itself, 1, 2, ... for copies moved to its holes.

    Returns
    -------
    ndarray of float64, shape (n, 2)
        Zero-offset (row, col), sorted by row then column before rotation, at least one spacing inside the tile.

    Raises
    ------
    InjectionError
        When no point lies inside, or more than `MAX_OBJECTS` would.

    Notes
    -----
    The unrotated grid is centred on the tile. Along y a HexGrid has floor(H / s) rows, with H the height inside the
    border and s the spacing, rows of floor(W / a) + 1 and floor(W / a - 1/2) + 1 points taking turns, where a is
    2 s / sqrt(3); the shorter rows are first and last when the number of rows is odd. For a DES tile of 10000 pixels of
    0.263 arcsec that is 14512 points at 20 arcsec and 6332 at 30 arcsec.
    """
    spacing = settings.grid_spacing or DEFAULT_SPACING
    step = spacing / pixel_scale
    height, width = (size - 1 - 2.0 * step for size in shape)
    holes = _HOLES[kind]
    if height < 0 or width < 0 or hole >= len(holes):
        raise InjectionError(
            f"no point of a {kind} of {spacing:g} arcsec fits into a tile of {shape[1]} x {shape[0]} pixels",
            key="grid_spacing",
            remedy="give a smaller grid_spacing",
        )
    if height * width > MAX_OBJECTS * step**2:
        raise InjectionError(
            f"a {kind} of {spacing:g} arcsec has more than {MAX_OBJECTS} points in {shape[1]} x {shape[0]} pixels",
            key="grid_spacing",
            remedy="give a larger grid_spacing, in arcsec",
        )
    reach = math.hypot(height, width) + 2.0 * step
    rotation, shift = _orientation(kind, settings, step, pixel_scale, seed, names)
    if kind == "RectGrid":
        vectors = np.array([[step, 0.0], [0.0, step]])
        first = np.array([-0.5 * step * math.floor(height / step), -0.5 * step * math.floor(width / step)])
    else:
        pitch = _HEX * step
        vectors = np.array([[step, 0.5 * pitch], [0.0, pitch]])
        rows = max(math.floor(height / step), 1)
        long_row, short_row = math.floor(width / pitch), math.floor(width / pitch - 0.5)
        left = -0.5 * pitch * max(long_row, short_row + 0.5)
        # The first row is a short one: half a pitch to the right of where the long ones begin.
        first = np.array([-0.5 * step * (rows - 1), left + 0.5 * pitch])
    count = int(reach / step) + 2
    i, j = np.meshgrid(np.arange(-count, count + 1), np.arange(-2 * count, 2 * count + 1), indexing="ij")
    lattice = np.stack([i.ravel(), j.ravel()], axis=1) + np.array(holes[hole])
    points = first + lattice @ vectors
    points = points[np.lexsort((np.round(points[:, 1], 6), np.round(points[:, 0], 6)))]
    # Angles run from +x (columns) towards +y (rows).
    c, s = math.cos(rotation), math.sin(rotation)
    rows_cols = np.column_stack([s * points[:, 1] + c * points[:, 0], c * points[:, 1] - s * points[:, 0]])
    rows_cols = rows_cols + shift
    slack = 1e-6
    inside = (np.abs(rows_cols[:, 0]) <= 0.5 * height + slack) & (np.abs(rows_cols[:, 1]) <= 0.5 * width + slack)
    if not inside.any():
        raise InjectionError(
            f"no point of a {kind} of {spacing:g} arcsec lies inside the tile",
            key="grid_spacing",
            remedy="give a smaller grid_spacing",
        )
    return rows_cols[inside] + 0.5 * (np.array(shape) - 1.0)


def _orientation(
    kind: str, settings: Positions, step: float, pixel_scale: float, seed: int, names: tuple[str | int, ...]
) -> tuple[float, NDArray[np.float64]]:
    """Return the rotation in radians and the shift (rows, cols) in pixels."""
    draws = stream(seed, "grid orientation", *names).random(3)
    if settings.rotate == "Random":
        rotation = draws[0] * (math.pi / 2.0 if kind == "RectGrid" else math.pi / 3.0)
    else:
        rotation = float(settings.rotate) if settings.angle_unit == "rad" else math.radians(settings.rotate)
    if settings.offset == "Random":
        shift = step * (draws[:0:-1] - 0.5)
    else:
        shift = np.array(settings.offset[::-1]) / pixel_scale
    return rotation, shift
