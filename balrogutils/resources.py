"""What a job asks of a cluster: memory, time and scratch, from what it is expected to cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.graph import Job
from balrogutils.overview.costs import Counts, cost_of
from balrogutils.products import read_manifest

__all__ = ["Demand", "counts_of_run", "demand"]

# Per tile of the Dark Energy Survey, until manifests say better: 10 000 x 10 000 pixels, about a hundred CCDs of 2048 x
# 4096 a band, and on a million pixels some 440 detections; injections as many as a grid of 20 arcsec has.
_PIXELS, _CHIPS, _CCD, _EXPOSURES, _DENSITY, _INJECTED = 100.0, 100, 8.4, 10.0, 440, 173
# A job that asks for less than it takes is killed, one that asks for more waits longer.
_MEMORY, _TIME, _MINUTES = 2.0, 4.0, 10
# Counts beyond are no counts.
_MOST = 1e12
# On a cluster a job runs within two Snakemakes, MB.
_SNAKEMAKE = 400
# Scratch: what is unpacked and what is being packed, beside the products themselves, MB.
_SCRATCH, _SCRATCH_MIN = 2.0, 100
# Steps of several processes.
_FITS = frozenset(("sof", "mof", "mcal", "bfd"))


@dataclass(frozen=True)
class Demand:
    """What one job is to be given: memory and scratch in MB, time in minutes."""

    memory: int
    minutes: int
    scratch: int

    def again(self, attempt: int) -> Demand:
        """Return what the job is to be given when it is tried for the n-th time, the first being 1."""
        return Demand(self.memory * attempt, self.minutes * attempt, self.scratch * attempt)


def _counts(job: Job, *names: str) -> list[float]:
    """Return what a manifest counts; 0 where it does not tell, or nothing that can be."""
    manifest = job.manifest
    told = _read(manifest) if manifest.is_file() else {}
    values = [told.get(name) for name in names]
    return [float(one) if isinstance(one, (int, float)) and 0 < one < _MOST else 0.0 for one in values]


@cache
def _read(manifest: Path) -> Mapping[str, Any]:
    # Once a run: what is asked for changes little when a step is done again.
    try:
        return dict(read_manifest(manifest).get("counts", {}))
    except (ProductError, OSError):
        return {}


def counts_of_run(context: Context) -> Counts:
    """Return the counts of a tile, as far as the manifests of its first band tell; of a survey's tile otherwise.

    No archive is asked, unlike in `balrogutils.overview.plan`: Snakemake wants to know this for every job.

    Parameters
    ----------
    context : Context
        The base run or a realization; to one, injections are added.
    """
    base = context.at(None)
    band = base.bands[0]
    (pixels,) = _counts(Job("coadd", base, band), "pixels")
    chips, exposures = _counts(Job("prep", base, band), "chips", "exposures")
    (objects,) = _counts(Job("catalog", base, band), "detections")
    pixels = pixels / 1e6 or _PIXELS
    chips, exposures, objects = chips or _CHIPS, exposures or _EXPOSURES, objects or _DENSITY * pixels
    injections = 0.0 if context.realization is None else _INJECTED * pixels
    return Counts(
        bands=len(base.bands),
        det_bands=len(base.campaign.det),
        chips=chips,
        exposures=exposures,
        chip_pixels=chips * _CCD,
        tile_pixels=pixels,
        objects=objects + injections,
        epochs=exposures,
        injections=injections,
    )


def demand(step: str, counts: Counts, workers: int = 1) -> Demand:
    """Return what a job of a step is to be given: twice the memory and four times the time it is expected to take.

    Parameters
    ----------
    step : str
        As in `balrogutils.graph`.
    counts : Counts
        Of its tile and run.
    workers : int
        Processes of a fit.
    """
    cost = cost_of(step, counts)
    processes = workers if step in _FITS else 1
    memory = _SNAKEMAKE + _MEMORY * processes * cost.memory / 1e6
    minutes = _TIME * cost.cpu / processes / 60
    return Demand(int(memory), max(_MINUTES, int(minutes)), int(_SCRATCH_MIN + _SCRATCH * cost.disk / 1e6))
