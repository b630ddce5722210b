"""Adoption: manifests for the whole steps of a tile that was made elsewhere."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from balrogutils.archive.geometry import Geometry
from balrogutils.archive.queries import Database
from balrogutils.context import Context
from balrogutils.errors import BalrogError, InputError, ProductError
from balrogutils.graph import Job, needs
from balrogutils.layout import MODE_BITS
from balrogutils.products import Step, read_manifest, writing_text
from balrogutils.upkeep.findings import GRID_TOLERANCE, Findings, Hdu, Whole
from balrogutils.upkeep.foreign import look_at_catalog, look_at_coadd, look_at_meds
from balrogutils.upkeep.foreignprep import look_at_prep
from balrogutils.upkeep.moved import Moved
from balrogutils.wcs import ImageWCS

__all__ = ["adopt"]

_log = logging.getLogger(__name__)

_LOOKS: dict[str, Callable[[Findings, str], Whole | None]] = {
    "prep": look_at_prep,
    "coadd": look_at_coadd,
    "catalog": look_at_catalog,
    "meds": look_at_meds,
}
_LINEAR = ("CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
_CORNERS = tuple(f"{axis}C{number}" for axis in ("RA", "DEC") for number in range(1, 5))
_NAME_CAMPAIGN = "name the campaign whose database has the tile: --set campaign=NAME"


def adopt(context: Context, bands: Sequence[str], moved: Moved) -> list[Whole]:
    """Check a tile that was made elsewhere, and leave manifests for those of its steps that are whole.

    Parameters
    ----------
    context : Context
        The tile; its base run is adopted, realizations are not.
    bands : sequence of str
        Bands to take; the detection image is taken with any of them.
    moved : Moved
        Directories that the lists know under an old name; these lists are rewritten.

    Returns
    -------
    list of Whole
        The steps that stand as adopted now, in the order of the blocks.

    Raises
    ------
    InputError
        When there is no tree of this tile, or a run has it.
    ProductError
        When anything is damaged, with everything that was found in one message, or no step is whole. Nothing is
        written then.

    Notes
    -----
    A manifest of our own is left alone. One of an earlier adoption is written anew only where the files are not as it
    says, so that adopting twice makes nothing again that was made since.
    """
    tree = context.base_tree
    if not tree.dir.is_dir():
        raise InputError(
            "there is no tree of this tile",
            tile=context.tile,
            file=tree.dir,
            remedy="bring it there, or set MEDS_DATA and medsconf to where it is",
        )
    moved.check()
    with context.lock:
        found = Findings(context.at(None), moved)
        whole = _examine(found, bands)
        geometry = None if found.problems else _geometry(found, whole)
        if found.problems:
            raise _refusal(found)
        _tell(found, whole)
        for path, text in found.texts.items():
            writing_text(path, text)
        if found.texts:
            _log.info("%s: renamed the paths in %d lists", context.tile, len(found.texts))
        if geometry is not None:
            geometry.write(tree.geometry)
        _leave_manifests(found.context, whole)
    steps = dict.fromkeys(job.step for job in whole)
    for step in steps:
        names = [one.band for one in whole.values() if one.step == step]
        _log.info("%s: adopted %s %s", context.tile, step, " ".join(names))
    _log.info("go on, for example, with %s", _next(found.context))
    return list(whole.values())


def _next(context: Context) -> str:
    """Return a command line that starts where the adopted steps end."""
    bands = [job.band for job in _jobs(context) if job.step == "prep" and job.manifest.is_file()]
    mode = MODE_BITS["inject"] if bands else MODE_BITS["prep"]
    words = [f"snakemake --cores all tile={context.tile} --config mode={mode}"]
    if context.pipeline.campaign != "auto":
        words.append(f"campaign={context.campaign.name}")
    if bands and tuple(bands) != context.bands:
        words.append(f"bands={','.join(map(str, bands))}")
    return " ".join(words)


def _examine(found: Findings, bands: Sequence[str]) -> dict[Job, Whole]:
    """Return the whole steps that are to be adopted."""
    whole: dict[Job, Whole] = {}
    own = False
    for job in _jobs(found.context):
        band = job.band or ""
        if band not in (*bands, "det", "all"):
            continue
        with found.noting(band, job.manifest, remedy="remove the manifest"):
            if job.manifest.is_file() and not _is_adopted(job.manifest):
                _log.info("%s: %s %s was made here; its manifest is left alone", job.context.tile, job.step, band)
                own = True
                continue
        one = _LOOKS[job.step](found, band)
        if one is not None:
            whole[job] = one
    if not (whole or own or found.problems):
        lines = "\n".join(f"- {line}" for line in found.absent)
        raise ProductError(
            f"no step of {found.tree.tile} is whole, nothing is adopted:\n{lines}",
            remedy="bring the products there under these names, or set MEDS_DATA and medsconf to where they are",
        )
    return whole


def _jobs(context: Context) -> list[Job]:
    """Return the steps of a base run that can be adopted, each after those it needs."""
    bands = context.bands
    # Without any band of it, the detection image is no step of the run.
    det = ("det",) if set(bands) & set(context.campaign.det) else ()
    steps = {"prep": bands, "coadd": (*bands, *det, "all"), "catalog": bands, "meds": bands}
    return [Job(step, context, band) for step, names in steps.items() for band in names]


def _refusal(found: Findings) -> ProductError:
    count = len(found.problems)
    problems = "\n".join(f"- {problem}" for problem in found.problems)
    text = "1 problem" if count == 1 else f"{count} problems"
    return ProductError(f"{found.tree.tile} is not adopted, nothing is written; {text}:\n{problems}")


def _tell(found: Findings, whole: dict[Job, Whole]) -> None:
    tree = found.tree
    for line in found.absent:
        _log.warning("%s: not adopted: %s", tree.tile, line)
    away = [path for one in whole.values() for path in one.outputs if not path.is_relative_to(tree.dir)]
    if away:
        text = "%s: %d files that lists name lie outside the tile's directory and must stay there, the first: %s"
        _log.warning(text, tree.tile, len(away), away[0])


# geometry


def _geometry(found: Findings, whole: dict[Job, Whole]) -> Geometry | None:
    """Return the geometry of a tile whose tree has none, and hold its coadds against the one it has or gets."""
    file = found.tree.geometry
    geometry: Geometry | None = None
    if file.is_file():
        with found.noting(None, file, remedy="remove it; it is made anew"):
            geometry = Geometry.read(file)
    elif found.coadds or any(one.step == "prep" for one in whole.values()):
        geometry = _made_geometry(found)
    if geometry is None:
        return None
    if geometry.tilename != found.tree.tile:
        found.note(f"the geometry is that of {geometry.tilename}", file=file, remedy="remove it; it is made anew")
    shape = geometry.naxis2, geometry.naxis1
    for band, coadd in found.coadds.items():
        text = f"the coadd has shape {coadd.shape}, the tile's geometry {shape}"
        if coadd.shape == shape:
            off = ImageWCS(coadd.header).offset(geometry.wcs(), shape)
            if off < GRID_TOLERANCE:
                continue
            text = f"the coadd's WCS is {off:.3g} pixels off the tile's geometry"
        remedy = f"check that it is of this tile, and the tile of campaign {found.context.campaign.name}"
        found.note(text, band=band, file=coadd.file, remedy=remedy)
    return None if file.is_file() else geometry


def _made_geometry(found: Findings) -> Geometry | None:
    context = found.context
    try:
        with Database(context.campaign.database, context.site.services) as database:
            geometry = database.geometry(context.tile)
        _log.info("%s: the geometry is that of the database of campaign %s", context.tile, context.campaign.name)
        return geometry
    except BalrogError as error:
        reason = f"the database of campaign {context.campaign.name} does not give it: {error.message}"
    if not found.coadds:
        text = f"there is no coadd to tell the tile's geometry, and {reason}"
        found.note(text, file=found.tree.geometry, remedy=f"bring a coadd, or {_NAME_CAMPAIGN}")
        return None
    band, coadd = next(iter(found.coadds.items()))
    text = "%s: the geometry is taken from %s and knows no extinction; %s"
    _log.warning(text, context.tile, coadd.file.name, reason)
    with found.noting(band, coadd.file, remedy=_NAME_CAMPAIGN):
        return _geometry_of(context.tile, coadd)
    return None


def _geometry_of(tile: str, coadd: Hdu) -> Geometry:
    """Return the geometry that the header of a coadd tells, without extinction.

    Raises
    ------
    BalrogError
        When the header does not give a tangent plane with north up about the middle of the image: the coadds of
        injected images could not be made on it.
    """
    header = coadd.header
    lacking = [key for key in _LINEAR if not isinstance(header.get(key), (int, float))]
    if lacking:
        raise ProductError(f"the header lacks {' '.join(lacking)}", key="SCI")
    scale = 3600.0 * float(np.sqrt(abs(header["CD1_1"] * header["CD2_2"] - header["CD1_2"] * header["CD2_1"])))
    row: dict[str, Any] = {key.lower(): header.get(key) for key in _CORNERS}
    row |= {"tilename": tile, "naxis1": coadd.shape[1], "naxis2": coadd.shape[0]}
    # Ten digits: the CD matrix of a header is rounded, and 0.263 is to be 0.263 again.
    row |= {"ra_cent": header["CRVAL1"], "dec_cent": header["CRVAL2"], "pixelscale": float(f"{scale:.10g}")}
    geometry = Geometry.from_row(row)
    if not ImageWCS(header).offset(geometry.wcs(), coadd.shape) < GRID_TOLERANCE:
        raise ProductError("the coadd is not a tangent plane with north up about its middle", key="SCI")
    return geometry


# manifests


def _leave_manifests(context: Context, whole: dict[Job, Whole]) -> None:
    written: set[Job] = set()
    for job in _jobs(context):
        one = whole.get(job)
        if one is not None and not _stands(job.manifest, one):
            about = job.context.about(job.band)
            with Step(job.manifest, job.step, about=about, extra={"adopted": True}) as step:
                step.wrote(*one.outputs)
                step.count(**one.counts)
            written.add(job)
        elif written.intersection(needs(job)[0]) and _is_adopted(job.manifest):
            # No older than those it needs, or the next run would make the step again.
            os.utime(job.manifest)
            written.add(job)


def _is_adopted(manifest: Path) -> bool:
    return manifest.is_file() and bool(read_manifest(manifest).get("adopted"))


def _stands(manifest: Path, whole: Whole) -> bool:
    """Say whether an adopted manifest speaks of the files as they are."""
    if not manifest.is_file():
        return False
    told = {one["path"]: (one.get("size"), one.get("mtime_ns")) for one in read_manifest(manifest)["outputs"]}
    found = {str(path): path.stat() for path in whole.outputs}
    return told == {path: (status.st_size, status.st_mtime_ns) for path, status in found.items()}
