"""Times in the future, which a clock that was ahead has left: what they would hide from a run, and keep from ending.

Snakemake goes by times. A step that was done an hour ahead hides for an hour that what it was made from has changed,
and Snakemake lets no step end that is not newer than all it needs.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from balrogutils.context import Context
from balrogutils.errors import InputError
from balrogutils.graph import Job, jobs, needs
from balrogutils.products import read_manifest, records, sha256

__all__ = ["settle_future"]

_log = logging.getLogger(__name__)
# Seconds that a configuration file may be ahead: every job takes longer, and file systems differ a little.
_SKEW = 2.0


def settle_future(context: Context, mode: int) -> list[Path]:
    """Have no step of this mode's blocks be done in the future: those that are right as they are were done now.

    Parameters
    ----------
    context : Context
        The tile; its manifests can be read.
    mode : int
        Mode bits of the run; manifests of other blocks are left alone.

    Returns
    -------
    list of Path
        Manifests removed, because what their steps read has changed since: they are to be made again.

    Raises
    ------
    InputError
        For a file of the configuration that is dated in the future.
    """
    removed = []
    for job in jobs(context):
        if not job.bit & mode:
            continue
        before, files = needs(job)
        for file in files:
            if _ahead(file, context) > _SKEW:
                date = datetime.fromtimestamp(file.stat().st_mtime, UTC)
                raise InputError(
                    f"block {job.bit} ({job.step}) needs a file that is dated in the future: {date:%Y-%m-%d %H:%M} UTC",
                    tile=context.tile,
                    band=job.band,
                    file=file,
                    remedy="set the clock right, and the file's time with touch; then run the same command again",
                )
        if _ahead(job.manifest, context) <= 0:
            continue
        changed = _changed(job, before, files)
        if changed is None:
            os.utime(job.manifest)
        else:
            _log.warning("%s: %s has changed since; step %s will be made again", context.tile, changed, job.step)
            job.manifest.unlink()
            removed.append(job.manifest)
    return removed


def _ahead(file: Path, context: Context) -> float:
    """Return by how many seconds a file is ahead of the clock of the products' file system; no more than 0 if not."""
    try:
        written = file.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    if written <= time.time():
        return 0.0
    # That of a server of files may be ahead of this machine's, which does no harm.
    place = context.tree.dir
    with tempfile.TemporaryFile(dir=next(one for one in (place, *place.parents) if one.is_dir())) as stream:
        return written - os.fstat(stream.fileno()).st_mtime


def _changed(job: Job, before: list[Job], files: list[Path]) -> str | None:
    """Return a file that a step has read and that is another by now."""
    document = read_manifest(job.manifest)
    if document.get("adopted"):
        # A run cannot make it.
        return None
    read = {
        os.path.realpath(one["path"]): one.get("sha256")
        for one in document["inputs"]
        if isinstance(one, dict) and "path" in one
    }
    made = records([need.manifest for need in before if not job.outlives(need)])
    now = {path: one.get("sha256") for path, one in made.items() if path in read}
    now |= {path: sha256(path) for path in map(os.path.realpath, files) if path in read}
    return next((path for path, digest in now.items() if digest != read[path]), None)
