"""Images that can be made again: let go when every step that reads them is done, made again when one needs them."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from balrogutils.blocks.differences import keep_differences, missing, put_back
from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.graph import Job, jobs, predecessors
from balrogutils.layout import Site, TileTree
from balrogutils.letgo import forget, let_go, make_alike, note, record_of
from balrogutils.products import link_or_copy, read_manifest, sha256, writing
from balrogutils.scratch import scratch
from balrogutils.settings.pipeline import DIFFERENCES, TEMPORARY

__all__ = ["make_ready", "release", "require_images", "restore", "restore_all"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Elsewhere(Context):
    """The same tile and realization, whose own products go to another place; what it reads of others stays."""

    place: Site | None = None

    @property
    def tree(self) -> TileTree:
        """Paths in the other place."""
        assert self.place is not None
        return self.place.tree(self.tile, self.realization)


def _images(job: Job) -> list[dict[str, Any]]:
    """Return what the manifest of a step says of the images it left."""
    tree, band = job.context.tree, job.band or ""
    places = {tree.nullwt_dir(band), tree.injected(band, "chip").parent}
    return [one for one in read_manifest(job.manifest)["outputs"] if Path(one["path"]).parent in places]


def release(context: Context) -> int:
    """Remove the images that the settings do not keep and that every step has read that would.

    Parameters
    ----------
    context : Context
        The tile; the steps that count are those of its base run and of its realizations, whatever the mode.

    Returns
    -------
    int
        Files removed. Adopted ones stay: no run can make them again. What injected images differ in from those of the
        base run is written first, where the settings keep it.
    """
    every = list(jobs(context))
    if DIFFERENCES in context.pipeline.keep:
        # Before those of the base run go.
        for job in every:
            if job.step == "inject" and missing(job):
                restore(_base(job))
                keep_differences(job)
    readers: dict[Job, list[Job]] = {}
    for job in every:
        for need in predecessors(job):
            readers.setdefault(need, []).append(job)
    removed = 0
    for job in every:
        kind = _class(job)
        if kind is None or kind in context.pipeline.keep or not job.manifest.is_file():
            continue
        made = job.manifest.stat().st_mtime_ns
        if not readers.get(job) or not all(_done_since(one, made) for one in readers[job]):
            continue
        if read_manifest(job.manifest).get("adopted"):
            continue
        files = [path for one in _images(job) if (path := Path(one["path"])).is_file()]
        if files:
            # In this order: what is gone without a record counts as lost.
            note(job.manifest, files)
            for path in files:
                path.unlink(missing_ok=True)
            _log.info("%s: %d images of step %s %s are let go", context.tile, len(files), job.step, job.band)
        removed += len(files)
    return removed


def _class(job: Job) -> str | None:
    return {step: name for name, step in TEMPORARY.items()}.get(job.step)


def _base(job: Job) -> Job:
    return Job("prep", job.context.at(None), job.band)


def _done_since(job: Job, made: int) -> bool:
    try:
        return job.manifest.stat().st_mtime_ns >= made
    except FileNotFoundError:
        return False


def make_ready(step: str, context: Context, bands: Sequence[str | None]) -> None:
    """Make images again that steps are about to read and that were let go.

    Raises
    ------
    BalrogError
        As `restore`.
    """
    if step == "plan" and not context.injection.image.avoid.masked:
        # Only where masks count does it look at images.
        return
    for band in bands:
        for need in predecessors(Job(step, context, band)):
            if _class(need) is not None:
                restore(need)


def require_images(context: Context, step: str, bands: Sequence[str]) -> None:
    """Refuse to look at images that are not there on purpose.

    Raises
    ------
    ProductError
        When images of the step were let go.
    """
    for band in bands:
        gone = [path for path in let_go(Job(step, context, band).manifest) if not path.is_file()]
        if gone:
            raise ProductError(
                "images were let go when they had been read (keep)",
                tile=context.tile,
                band=band,
                file=min(gone),
                remedy=f"balrog restore {context.tile}",
            )


def restore_all(context: Context) -> int:
    """Make all images of a tile again that were let go, of the base run and the realizations of the settings.

    Returns
    -------
    int
        Files made again.

    Raises
    ------
    BalrogError
        As `restore`.
    """
    return sum(restore(job) for job in jobs(context) if _class(job) is not None)


def restore(job: Job) -> int:
    """Make the images of a step again that were let go: the same bytes, at the same time.

    Nothing that was made from them is out of date afterwards.

    Parameters
    ----------
    job : Job
        ``prep`` or ``inject`` of one band.

    Returns
    -------
    int
        Files made again.

    Raises
    ------
    ProductError
        When one would not be as it was: the configuration, an input or the version of a program is another.
    BalrogError
        What the step itself raises.
    """
    if not let_go(job.manifest):
        return 0
    with _alone(job.manifest):
        # Another process may have made them while this one waited.
        gone = let_go(job.manifest)
        wanted = [one for one in _images(job) if Path(one["path"]) in gone and not Path(one["path"]).is_file()]
        if wanted:
            # An image under its injection name is the same file.
            first: dict[str, dict[str, Any]] = {}
            for one in wanted:
                first.setdefault(one["sha256"], one)
            if job.step == "inject":
                restore(_base(job))
            lacking = [one for one in first.values() if job.step != "inject" or not put_back(job, one)]
            if lacking:
                with _made_again(job) as place:
                    for one in lacking:
                        _put_back(one, place / Path(one["path"]).relative_to(job.context.tree.dir), job)
            for one in wanted:
                if one is not first[one["sha256"]]:
                    link_or_copy(first[one["sha256"]]["path"], one["path"])
            given = len(first) - len(lacking)
            how = f", {given} of {len(first)} from what was kept of them" if given else ""
            _log.info(
                "%s: %d images of step %s %s are made again%s",
                *(job.context.tile, len(wanted), job.step, job.band, how),
            )
        forget(job.manifest)
    return len(wanted)


@contextmanager
def _alone(manifest: Path) -> Iterator[None]:
    """Wait until no other process makes images of the tree again."""
    with (record_of(manifest).parent / ".lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@contextmanager
def _made_again(job: Job) -> Iterator[Path]:
    """Do a step again in a place of its own; hand out the tile's directory there."""
    # Imported when used: the blocks draw in much that a look at files has no need of.
    from balrogutils.blocks.inject import inject
    from balrogutils.blocks.prep import prep

    here, band = job.context, job.band or ""
    realization = here.realization or "base"
    with scratch(here.site.tmp, f"{here.tile}_{realization}_{band}_restore") as room:
        place = replace(here.site, meds_data=room, ngmixer_output=room)
        there = _Elsewhere(here.site, here.pipeline, here.campaign, here.tile, here.realization, place)
        if job.step == "inject":
            link_or_copy(here.tree.plan, there.tree.plan)
            inject(there, band)
        else:
            prep(there, band)
        yield there.tree.dir


def _put_back(recorded: dict[str, Any], made: Path, job: Job) -> None:
    path = Path(recorded["path"])
    with writing(path) as part:
        if made.is_file():
            shutil.copyfile(made, part)
            make_alike(job.manifest, path, part)
        if not made.is_file() or sha256(part) != recorded["sha256"]:
            raise ProductError(
                "an image that was let go would not be made again as it was",
                tile=job.context.tile,
                band=job.band,
                file=path,
                remedy=f"what it was made from has changed: have step {job.step} make all of them anew (--forcerun)",
            )
        # What was made from it is not older than it.
        os.utime(part, ns=(recorded["mtime_ns"], recorded["mtime_ns"]))
