"""How much there is of a tile: CCDs, pixels, detections, cut-outs, injections; from manifests, or from the archive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fitsio

from balrogutils.archive.geometry import Geometry
from balrogutils.archive.queries import Database
from balrogutils.archive.transfer import ArchiveFile
from balrogutils.context import Context
from balrogutils.errors import ArchiveError, BalrogError, InputError, ProductError
from balrogutils.exposures.lists import read_zero_points
from balrogutils.graph import Job
from balrogutils.overview.costs import Counts
from balrogutils.products import read_manifest

__all__ = ["counts_of", "injected_counts", "is_adopted", "manifest_of"]

# Where neither a manifest nor the archive tells: a DECam CCD, detections of a deep DES coadd, injections found again.
_CHIP_MPIX = 2048 * 4096 / 1e6
_DENSITY = 440.0  # detections in a million pixels of 0.263 arcsec
_FOUND = 0.8
# Of an object on the tile, the part of the exposures that reach it.
_REACHED = 0.97
_BYTES_PER_PIXEL = 14  # of a null-weight image: three planes of 4 bytes and one of 2


def manifest_of(job: Job) -> Mapping[str, Any] | None:
    """Return the manifest of a step that was done here; None of one that was not, or that was adopted."""
    manifest = _whole(job)
    return None if manifest is None or manifest.get("adopted") else manifest


def is_adopted(job: Job) -> bool:
    """Return whether a step was made elsewhere: what it counts is known, what it took is not."""
    return bool((_whole(job) or {}).get("adopted"))


def _whole(job: Job) -> Mapping[str, Any] | None:
    if not job.manifest.is_file():
        return None
    try:
        manifest = read_manifest(job.manifest, "counts", "cpu_seconds", "peak_memory_bytes")
    except ProductError:
        # A run makes such a step again.
        return None
    return manifest if all({"size", "sha256"} <= set(one) for one in manifest["outputs"]) else None


def _count(job: Job, name: str) -> float:
    """Return how much there is of something, of a step that was done here or adopted."""
    value = (_whole(job) or {"counts": {}})["counts"].get(name)
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        text = f"a manifest does not say how many {name} there are"
        remedy = "remove it; the next run makes its products anew"
        raise ProductError(text, tile=job.context.tile, band=job.band, file=job.manifest, remedy=remedy)
    return float(value)


def counts_of(context: Context) -> Counts:
    """Return the counts of a tile's base run, from its manifests, adopted ones too, or else from the archive.

    Raises
    ------
    BalrogError
        When there are no manifests and the archive does not know the tile, or a manifest has no counts.
    """
    here = context.at(None)
    prepared = [Job("prep", here, band) for band in here.bands]
    try:
        if all(_whole(job) is not None for job in prepared):
            geometry = Geometry.read(here.tree.geometry)
            found = [_of_manifest(job) for job in prepared]
        else:
            here.require_archive()
            with Database(here.campaign.database, here.site.services) as database:
                geometry = database.geometry(here.tile)
                found = [_of_archive(here, database, geometry, band) for band in here.bands]
    except BalrogError as error:
        error.locate(tile=here.tile)
        raise
    chips, exposures, pixels = ([one[place] for one in found] for place in range(3))
    tile_pixels = geometry.naxis1 * geometry.naxis2 / 1e6
    objects, epochs = _DENSITY * tile_pixels, _REACHED * _mean(exposures)
    meds = [job for band in here.bands if _whole(job := Job("meds", here, band)) is not None]
    if meds:
        objects = _count(meds[0], "objects")
        epochs = max(_mean([_count(job, "cutouts") for job in meds]) / objects - 1.0, 0.0) if objects else epochs
    number = len(here.bands)
    det = len(here.det_bands)
    return Counts(number, det, _mean(chips), _mean(exposures), _mean(pixels), tile_pixels, objects, epochs)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _of_manifest(job: Job) -> tuple[float, float, float]:
    """Return CCDs and exposures of a band, and millions of pixels of its CCDs, as its manifest tells."""
    tree, band = job.context.tree, job.band or ""
    chips, exposures = (_count(job, name) for name in ("chips", "exposures"))
    if is_adopted(job):
        # Its images may have other planes than ours: all are taken to be like the first.
        images = read_zero_points(tree.flist("nullwt", band))
        return chips, exposures, chips * _image_pixels(images[0][0]) if images else 0.0
    outputs = (_whole(job) or {"outputs": []})["outputs"]
    size = sum(one["size"] for one in outputs if Path(one["path"]).parent == tree.nullwt_dir(band))
    return chips, exposures, size / _BYTES_PER_PIXEL / 1e6


def _of_archive(context: Context, database: Database, geometry: Geometry, band: str) -> tuple[float, float, float]:
    """Return CCDs and exposures of a band, and millions of pixels of its CCDs, all taken to be like the first."""
    campaign = context.campaign
    if campaign.kind == "desdm":
        from balrogutils.archive.desdm import tile_files

        chips = [
            (one.chip, one.image)
            for one in tile_files(database, campaign.proctag, campaign.se_proctag, context.tile, band).chips
        ]
    else:
        from balrogutils.archive.noirlab import tile_ccds

        chips = [(one.chip, one.image) for one in tile_ccds(database, geometry, band).chips]
    if not chips:
        return 0.0, 0.0, 0.0
    exposures = {name.split("_")[0] for name, _ in chips}
    return float(len(chips)), float(len(exposures)), len(chips) * _chip_pixels(campaign.archive, chips[0][1])


def _chip_pixels(archive: str, image: ArchiveFile) -> float:
    """Return the millions of pixels of a CCD, from a local archive; of a server the size of a whole one is taken."""
    parts = urlsplit(archive)
    if parts.scheme != "file":
        return _CHIP_MPIX
    path = Path(unquote(parts.path)) / image.path
    if not path.is_file():
        raise ArchiveError("a file is missing in the archive", file=path, remedy="rebuild or repair the archive")
    return _image_pixels(path)


def _image_pixels(path: Path) -> float:
    """Return the millions of pixels of the first image of a file."""
    try:
        with fitsio.FITS(str(path)) as fits:
            sizes = [math.prod(hdu.get_dims()) for hdu in fits if hdu.get_exttype() == "IMAGE_HDU" and hdu.has_data()]
    except OSError as error:
        raise ArchiveError("an image of a CCD cannot be read", file=path, remedy="restore it") from error
    if not sizes:
        raise ArchiveError("a file of a CCD holds no image", file=path, remedy="restore it")
    return sizes[0] / 1e6


def injected_counts(context: Context, base: Counts, injections: float | None) -> Counts:
    """Return the counts of a realization, from those of the base run.

    Parameters
    ----------
    context : Context
        The realization.
    base : Counts
        Of the base run.
    injections : float or None
        Objects injected; those that were planned when None.

    Raises
    ------
    InputError
        When it is not said, and nothing is planned.
    """
    planned = Job("plan", context)
    if injections is None:
        if manifest_of(planned) is None:
            raise InputError(
                "how many objects are injected into a tile is not known before block 8 has planned them",
                tile=context.tile,
                remedy="give their number: --injections N",
            )
        injections = _count(planned, "objects")
    objects = base.objects + _FOUND * injections
    meds = Job("meds", context, context.bands[0])
    if manifest_of(meds) is not None:
        objects = _count(meds, "objects")
    return replace(base, injections=injections, objects=objects)
