"""What a CCD makes of the light: noise, saturation, bleeding, cosmic rays, bad columns, a satellite, and their mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from balrogutils.masks import MaskBit
from balrogutils.randomness import stream
from balrogutils.survey.parameters import Defects, SurveyParameters
from balrogutils.survey.telescope import Chip

__all__ = ["Readout", "background_map", "bleed", "expose", "gain_map", "sky_level"]

_STREAK_WIDTH = 2.5  # pixels, sigma of a satellite's trail
_STREAK_MASK = 10.0  # pixels, half-width of its mask
_STREAK_PEAK = 220.0  # electrons
_EDGE_BLEED = 12  # pixels around a bleed trail that reaches the edge of the CCD


@dataclass(frozen=True)
class Readout:
    """One CCD after processing.

    Attributes
    ----------
    sci : ndarray of float32
        Sky-subtracted image units; holds the residual background.
    wgt : ndarray of float32
        Inverse variance of sky and read noise, positive everywhere.
    msk : ndarray of int16
        `MaskBit` bits.
    background : ndarray of float32
        Residual background that is in `sci`.
    """

    sci: NDArray[np.float32]
    wgt: NDArray[np.float32]
    msk: NDArray[np.int16]
    background: NDArray[np.float32]


def gain_map(chip: Chip) -> NDArray[np.float64]:
    """Return electrons per image unit of each column: amplifier B reads the left half, A the right one."""
    return _by_amplifier(chip, chip.gain)


def _by_amplifier(chip: Chip, values: tuple[float, float]) -> NDArray[np.float64]:
    cols = chip.shape[1]
    return np.where(np.arange(cols) >= cols // 2, values[0], values[1])


def sky_level(chip: Chip) -> tuple[float, float]:
    """Return the mean level of the sky and its noise per pixel (sky and read noise), image units."""
    gain, noise = gain_map(chip), _by_amplifier(chip, chip.read_noise)
    return float(np.mean(chip.exposure.sky / gain)), float(np.mean(np.sqrt(chip.exposure.sky + noise**2) / gain))


def background_map(chip: Chip, amplitude: float, seed: int) -> NDArray[np.float32]:
    """Return a smooth residual background, image units: a quadratic in row and column of peak size `amplitude`.

    Values are multiples of 1/64, exact in float32 and cheap to store without loss.
    """
    rows, cols = chip.shape
    terms = stream(seed, "background", chip.exposure.number, chip.number).normal(size=6)
    y, x = np.linspace(-1, 1, rows)[:, np.newaxis], np.linspace(-1, 1, cols)[np.newaxis]
    surface = terms[0] + terms[1] * x + terms[2] * y + terms[3] * x * x + terms[4] * x * y + terms[5] * y * y
    peak = float(np.max(np.abs(surface)))
    scaled = surface * (amplitude / peak) if peak > 0 else surface
    return (np.round(scaled * 64.0) / 64.0).astype(np.float32)


def expose(
    light: NDArray[np.float64], chip: Chip, parameters: SurveyParameters, bright: NDArray[np.float64]
) -> Readout:
    """Turn expected light into a processed CCD image.

    Parameters
    ----------
    light : ndarray of float64, shape `chip.shape`
        Expected image units of all sources.
    chip : Chip
        The CCD.
    parameters : SurveyParameters
        The survey.
    bright : ndarray of float64, shape (n, 3)
        Row, column (zero-offset) and radius in pixels of the regions that get bit STAR.

    Returns
    -------
    Readout
    """
    defects, seed = parameters.defects, parameters.seed
    names = (chip.exposure.number, chip.number)
    gain, noise = gain_map(chip), _by_amplifier(chip, chip.read_noise)
    background = background_map(chip, defects.background, seed)
    mask = np.zeros(chip.shape, dtype=np.int16)
    expected = (light + background) * gain + chip.exposure.sky
    if chip.exposure.streak:
        trail, near = _streak(chip, seed)
        expected += trail
        mask[near] |= MaskBit.STREAK.value
    electrons = stream(seed, "photon noise", *names).poisson(np.maximum(expected, 0.0)).astype(float)
    scale = chip.shape[0] * chip.shape[1] / 1024.0**2
    _cosmic_rays(electrons, mask, defects.cosmic_rays * scale, stream(seed, "cosmic rays", *names))
    bleed(electrons, mask, chip.saturation)
    electrons += stream(seed, "read noise", *names).standard_normal(chip.shape, dtype=np.float32) * noise
    # Bad columns belong to the CCD, not to the exposure.
    _bad_columns(electrons, mask, defects, scale, chip.exposure.sky, stream(seed, "bad columns", chip.number))
    np.minimum(electrons, chip.saturation, out=electrons)
    _stars(mask, bright)
    _edges(mask, parameters)
    sci = ((electrons - chip.exposure.sky) / gain).astype(np.float32)
    weight = np.broadcast_to((gain**2 / (chip.exposure.sky + noise**2)).astype(np.float32), chip.shape).copy()
    return Readout(sci, weight, mask, background)


def _streak(chip: Chip, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a satellite's trail in electrons and its mask: a straight line over the whole focal plane."""
    random = stream(seed, "streak", chip.exposure.number)
    # Through the middle of the field at an angle that crosses several CCDs.
    angle = math.radians(random.uniform(20, 70))
    offset = random.uniform(-0.2, 0.2) * chip.exposure.psf.radius
    y = np.arange(chip.shape[0])[:, np.newaxis] + chip.origin[1]
    x = np.arange(chip.shape[1])[np.newaxis] + chip.origin[0]
    distance = x * math.sin(angle) - y * math.cos(angle) - offset
    return _STREAK_PEAK * np.exp(-0.5 * (distance / _STREAK_WIDTH) ** 2), np.abs(distance) < _STREAK_MASK


def _cosmic_rays(
    electrons: NDArray[np.float64], mask: NDArray[np.int16], mean: float, random: np.random.Generator
) -> None:
    rows, cols = mask.shape
    hit = np.zeros(mask.shape, dtype=bool)
    for _ in range(random.poisson(mean)):
        length = 1.0 + random.exponential(8.0)
        angle, charge = random.uniform(0, math.pi), random.uniform(600, 6000)
        steps = np.arange(0, length, 0.5)
        row = np.round(random.uniform(0, rows) + steps * math.sin(angle)).astype(int)
        col = np.round(random.uniform(0, cols) + steps * math.cos(angle)).astype(int)
        inside = (row >= 0) & (row < rows) & (col >= 0) & (col < cols)
        np.add.at(electrons, (row[inside], col[inside]), 0.5 * charge)
        hit[row[inside], col[inside]] = True
    mask[_grow(hit)] |= MaskBit.CRAY.value


def _grow(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return `flags` and their eight neighbours."""
    grown = flags.copy()
    grown[1:] |= flags[:-1]
    grown[:-1] |= flags[1:]
    tall = grown.copy()
    grown[:, 1:] |= tall[:, :-1]
    grown[:, :-1] |= tall[:, 1:]
    return grown


def bleed(electrons: NDArray[np.float64], mask: NDArray[np.int16], full_well: float) -> None:
    """Cut what exceeds the full well and let it run along the columns, half up and half down, in place.

    Parameters
    ----------
    electrons : ndarray of float64
        Charge; at most `full_well` afterwards. What reaches an edge is lost.
    mask : ndarray of int16
        Gets SATURATE where the full well was exceeded, TRAIL where charge ran to, EDGEBLEED where it reached an edge.
    full_well : float
        Electrons.
    """
    over = electrons > full_well
    if not over.any():
        return
    rows = len(electrons)
    trail = np.zeros(mask.shape, dtype=bool)
    for col in np.flatnonzero(over.any(axis=0)):
        charge = electrons[:, col]
        excess = np.where(over[:, col], charge - full_well, 0.0)
        charge[over[:, col]] = full_well
        # Runs of saturated pixels spill from their ends.
        edges = np.flatnonzero(np.diff(np.concatenate(([False], over[:, col], [False])).astype(np.int8)))
        for first, end in edges.reshape(-1, 2):
            half = 0.5 * float(excess[first:end].sum())
            for start, step in ((end, 1), (first - 1, -1)):
                left, row = half, start
                while left > 0.0 and 0 <= row < rows:
                    taken = min(left, max(full_well - charge[row], 0.0))
                    charge[row] += taken
                    left -= taken
                    trail[row, col] = True
                    row += step
                if left > 0.0:
                    edge_rows = slice(max(0, rows - _EDGE_BLEED), rows) if step > 0 else slice(0, _EDGE_BLEED)
                    mask[edge_rows, max(0, col - _EDGE_BLEED) : col + _EDGE_BLEED + 1] |= MaskBit.EDGEBLEED.value
    mask[_grow(over)] |= MaskBit.SATURATE.value
    mask[_grow(trail)] |= MaskBit.TRAIL.value


def _bad_columns(
    electrons: NDArray[np.float64],
    mask: NDArray[np.int16],
    defects: Defects,
    scale: float,
    sky: float,
    random: np.random.Generator,
) -> None:
    rows, cols = mask.shape
    for _ in range(random.poisson(defects.bad_columns * scale)):
        col, width = int(random.integers(1, cols - 2)), int(random.integers(1, 3))
        # From somewhere to the end that is read last.
        start = int(random.integers(0, rows // 2)) if random.uniform() < 0.5 else 0
        part = (slice(start, rows), slice(col, col + width))
        if random.uniform() < 0.5:
            electrons[part] += random.uniform(0.5, 5.0) * sky
        else:
            electrons[part] = random.uniform(0.0, 0.3) * sky
        mask[part] |= MaskBit.BPM.value
    hot = random.integers(0, (rows, cols), (random.poisson(40 * scale), 2))
    electrons[hot[:, 0], hot[:, 1]] += sky * random.uniform(1, 10, len(hot))
    mask[hot[:, 0], hot[:, 1]] |= MaskBit.BPM.value


def _stars(mask: NDArray[np.int16], bright: NDArray[np.float64]) -> None:
    rows, cols = mask.shape
    for row, col, radius in bright:
        r0, r1 = max(0, math.floor(row - radius)), min(rows, math.ceil(row + radius) + 1)
        c0, c1 = max(0, math.floor(col - radius)), min(cols, math.ceil(col + radius) + 1)
        if r0 >= r1 or c0 >= c1:
            continue
        y, x = np.arange(r0, r1)[:, np.newaxis] - row, np.arange(c0, c1)[np.newaxis] - col
        mask[r0:r1, c0:c1][y * y + x * x <= radius * radius] |= MaskBit.STAR.value


def _edges(mask: NDArray[np.int16], parameters: SurveyParameters) -> None:
    for width, bit in ((parameters.camera.near_edge, MaskBit.NEAREDGE), (parameters.camera.edge, MaskBit.EDGE)):
        if width:
            for part in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
                mask[part] |= bit.value
