"""Whether a run would make a step again, and why: what is gone, what was made again or changed since."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from balrogutils.errors import BalrogError, ProductError
from balrogutils.graph import Job, needs
from balrogutils.letgo import lost
from balrogutils.products import read_manifest, sha256

__all__ = ["Again", "Outdated"]

# A run compares what files up to this size hold, and of larger ones the time alone.
_COMPARED = 10**6
_CAMPAIGN_KEYS = ("kind", "proctag", "se_proctag", "magzp_ref", "archive", "max_missing_ccds")


@dataclass(frozen=True)
class Again:
    """Why a run would make a step again.

    Attributes
    ----------
    job : Job
        The step with a reason of its own.
    reasons : tuple of str
        What is wrong, clauses.
    """

    job: Job
    reasons: tuple[str, ...]

    @property
    def name(self) -> str:
        """The step, with band and realization where it has them."""
        realization = self.job.context.realization
        words = [self.job.step, self.job.band, None if realization is None else f"of realization {realization}"]
        return " ".join(word for word in words if word)


class Outdated:
    """What a run of a tile with these settings would make again."""

    def __init__(self) -> None:
        self._own: dict[Job, tuple[str, ...]] = {}

    def why(self, job: Job) -> list[Again]:
        """Return the steps that a run would make again and that one would be made again for; itself first if need be.

        Parameters
        ----------
        job : Job
            Any job of a tile.

        Returns
        -------
        list of Again
            Those with a reason of their own; empty when a run would leave the step as it is.
        """
        found: dict[Job, None] = {}
        todo = [job]
        while todo:
            one = todo.pop(0)
            if one in found:
                continue
            found[one] = None
            todo += [need for need in needs(one)[0] if not one.outlives(need)]
        return [Again(one, reasons) for one in found if (reasons := self._reasons(one))]

    def _reasons(self, job: Job) -> tuple[str, ...]:
        if job not in self._own:
            self._own[job] = tuple(_reasons(job))
        return self._own[job]

    @staticmethod
    def unnoticed(job: Job) -> list[str]:
        """Return settings that were others when a step was done, and whose change in a file a run does not notice."""
        try:
            manifest = read_manifest(job.manifest)
        except (ProductError, OSError, ValueError):
            return []
        then, now = {}, {}
        recorded, context = manifest.get("config") or {}, job.context
        if job.step == "prep":
            now = {key: getattr(context.campaign, key) for key in _CAMPAIGN_KEYS}
            then = {key: recorded.get(key) for key in now}
        elif job.step == "match":
            now, then = {"match_radius": context.pipeline.match_radius}, {"match_radius": recorded.get("radius")}
        elif job.step in ("plan", "inject", "truth"):
            own = context.injection.image.random_seed
            now = {"seed": context.seed if own is None else own}
            then = {"seed": (manifest.get("seeds") or {}).get("injection")}
        if manifest.get("adopted"):
            return []
        return [f"{key} is {now[key]} now, and was {then[key]}" for key in now if now[key] != then[key]]


def _reasons(job: Job) -> Iterator[str]:
    try:
        document = read_manifest(job.manifest)
        made = job.manifest.stat().st_mtime_ns
    except (ProductError, OSError, ValueError):
        there = job.manifest.exists()
        yield "its manifest cannot be read" if there else "it has not been made, or its manifest was removed"
        return
    gone = lost(job.manifest, document["outputs"])
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        yield f"{gone[0]}{more}, which it left, is gone"
    try:
        before, files = needs(job)
    except BalrogError as error:
        yield f"its configuration is refused: {error.message}"
        return
    for need in before:
        if not job.outlives(need) and _time(need.manifest) > made:
            yield f"{Again(need, ()).name} was made again since"
    read = {
        os.path.realpath(entry["path"]): entry.get("sha256") for entry in document["inputs"] if isinstance(entry, dict)
    }
    for file in files:
        if not file.is_file():
            yield f"{file} is gone: a run is refused until it is there"
        elif _time(file) > made and not _same(file, read.get(os.path.realpath(file))):
            yield f"{file} is newer" + ("" if os.path.realpath(file) not in read else ", and another")


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _same(file: Path, digest: object) -> bool:
    return file.stat().st_size <= _COMPARED and sha256(file) == digest
