"""What each step costs, from counts: CPU, memory and disk as lines in pixels, CCDs, cut-outs and objects.

The constants go through the manifests of two tiles (1000 and 253 pixels a side, 11 and 2 to 4 CCDs a band) and the jobs
of a tile of 4000 pixels in ``docs/performance.md``; `calibrated` scales their CPU to a machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median_low

__all__ = ["Cost", "Counts", "calibrated", "cost_of", "differences_of", "images_of"]

_MB, _MIB = 10**6, 2**20
# Of the configurations of SWarp and SExtractor: COMBINE_BUFSIZE in MB, MEMORY_BUFSIZE in thousands of lines.
_SWARP_BUFFER, _SEX_LINES = 256, 2.048


@dataclass(frozen=True)
class Counts:
    """What a tile has in one run, base or realization; of each band alike.

    Attributes
    ----------
    bands : float
        Bands.
    det_bands : float
        Bands of the detection image.
    chips, exposures : float
        CCDs and exposures of a band.
    chip_pixels : float
        Pixels of all CCDs of a band, in millions.
    tile_pixels : float
        Pixels of the coadd, in millions.
    objects : float
        Detections.
    epochs : float
        Exposures that an object is on, of a band.
    injections : float
        Objects injected; 0 in the base run.
    """

    bands: float
    det_bands: float
    chips: float
    exposures: float
    chip_pixels: float
    tile_pixels: float
    objects: float
    epochs: float
    injections: float = 0.0


@dataclass(frozen=True)
class Cost:
    """CPU in seconds, largest process in bytes, bytes on disk."""

    cpu: float = 0.0
    memory: float = 0.0
    disk: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Return both: CPU and disk add up, of memory the larger counts."""
        return Cost(self.cpu + other.cpu, max(self.memory, other.memory), self.disk + other.disk)

    def times(self, number: float) -> Cost:
        """Return the cost of a number of such jobs, which do not run at the same time."""
        return Cost(self.cpu * number, self.memory, self.disk * number)


def _swarp(pixels: float) -> float:
    """Return the MiB that SWarp takes to put millions of pixels of several images and their weights together."""
    return 34 + min(8 * pixels, _SWARP_BUFFER) * _MB / _MIB


def cost_of(step: str, counts: Counts, scales: Mapping[str, float] | None = None) -> Cost:
    """Return what one job of a step costs.

    Parameters
    ----------
    step : str
        As `balrogutils.graph.Job` names it; the coadd of the detection image is ``"coadd det"``, the joined PSF maps
        are ``"coadd all"``; ``"compile"`` is what each process of the first fits on a machine does besides.
    counts : Counts
        The tile, in the run the job belongs to.
    scales : mapping, optional
        CPU of a step on this machine over that of the model, by step.

    Returns
    -------
    Cost
        Disk without second names of one file.
    """
    c = counts
    chip = c.chip_pixels / max(c.chips, 1.0)
    seen = c.tile_pixels * c.epochs
    cutouts = c.objects * (1.0 + c.epochs)
    stamps = c.objects * c.epochs * c.bands
    drawn = c.injections * c.epochs
    # CPU in s, memory in MiB, disk in MB.
    cpu, memory, disk = {
        "prep": (1.6 + 0.22 * c.chip_pixels, 133 + 24.5 * chip, 1.2 * c.chips + 15.2 * c.chip_pixels),
        "coadd": (
            0.3 + 0.29 * c.chips + 0.55 * seen,
            max(50 + 19.2 * c.tile_pixels, _swarp(seen)),
            10.05 * c.tile_pixels,
        ),
        "coadd det": (
            0.05 + 0.6 * c.tile_pixels,
            max(50 + 16.5 * c.tile_pixels, _swarp(c.tile_pixels * c.det_bands)),
            10.05 * c.tile_pixels,
        ),
        "coadd all": (0.003, 40.0, 0.0002 * c.chips * c.bands),
        "catalog": (
            0.15 + 0.45 * c.tile_pixels,
            75 + 28.5 * min(c.tile_pixels, _SEX_LINES * math.sqrt(c.tile_pixels)),
            4.0 * c.tile_pixels + 0.00045 * c.objects,
        ),
        # The writer holds one source image, whose size counts as soon as it is more than Python itself.
        "meds": (0.8 + 0.00068 * cutouts, max(102, 66 + 45 * chip) + 0.0003 * cutouts, 0.4 + 0.0051 * cutouts),
        "plan": (0.7, 112.0, 0.0003 * c.injections),
        "inject": (
            0.7 + 0.05 * c.chips + 0.06 * c.chip_pixels + 0.0028 * drawn,
            *(108 + 23.6 * chip, 0.1 + 14.03 * c.chip_pixels),
        ),
        "truth": (0.45, 145.0, 0.00145 * c.injections + 0.0002 * drawn * c.bands),
        "sof": (1.0 + 0.0042 * stamps, 235.0, 0.016 * c.objects),
        "mof": (
            2.0 + 0.015 * stamps,
            240 + 30 * c.bands * c.tile_pixels,
            10 * c.bands * c.tile_pixels + 0.02 * c.objects,
        ),
        "mcal": (1.0 + 0.0066 * stamps, 280.0, 0.0145 * c.objects),
        "bfd": (1.0 + 0.0052 * stamps, 265.0, 0.011 * c.objects),
        # A picture of each band, of a window of 0.36 million pixels at most, found by the light of the whole tile.
        "match": (
            *(2.6 + c.bands * (1.2 + 0.04 * c.tile_pixels), 315 + 20 * c.tile_pixels),
            0.2 + 0.0074 * c.injections + c.bands * (0.27 + 2.3 * min(c.tile_pixels, 0.36)),
        ),
        "compile": (53.0, 430.0, 0.0),
        # Figures and galleries: neither their number nor their size grows.
        "report": (13.0, 380 + 20 * c.tile_pixels, 4.0),
    }[step]
    return Cost(cpu * (scales or {}).get(step, 1.0), memory * _MIB, disk * _MB)


def images_of(step: str, counts: Counts) -> float:
    """Return the bytes of the images of one job that need not be kept: two planes of weights, pixels and a mask."""
    return 14.0 * counts.chip_pixels * _MB if step in ("prep", "inject") else 0.0


def differences_of(counts: Counts) -> Cost:
    """Return what it costs to keep what the injected images of one band differ in from the base run's.

    By stamps, of the 44 CCDs of a realization of the embedded tile: 3.85 % of the images, 0.6 MB a CCD, with 98 stamps.
    """
    stamps = counts.injections * counts.epochs
    return Cost(0.23 * counts.chip_pixels, 0.0, (0.015 * counts.chips + 0.0062 * stamps) * _MB)


def calibrated(facts: Iterable[tuple[str, Counts, float]]) -> dict[str, float]:
    """Return the CPU of steps on this machine over that of the model.

    Parameters
    ----------
    facts : iterable of (str, Counts, float)
        Step, counts and CPU in seconds of jobs done here.

    Returns
    -------
    dict
        By step: the lower median over its jobs, so that one that the machine held up says nothing. Jobs without
        measurable CPU are left out.
    """
    ratios: dict[str, list[float]] = {}
    for step, counts, cpu in facts:
        if cpu > 0:
            ratios.setdefault(step, []).append(cpu / cost_of(step, counts).cpu)
    return {step: median_low(values) for step, values in ratios.items()}
