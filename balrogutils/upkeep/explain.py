"""Where a product or a number came from: steps, inputs, configuration, seeds; whether it would be made again."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balrogutils.context import Context, Installation
from balrogutils.errors import InputError, ProductError
from balrogutils.graph import Job
from balrogutils.identity import decode_object_ids
from balrogutils.layout import chip_of
from balrogutils.letgo import let_go
from balrogutils.upkeep.inventory import Manifest, owner_of
from balrogutils.upkeep.lineage import Lineage
from balrogutils.upkeep.objects import fit_of, injection_of, row_of
from balrogutils.upkeep.outdated import Outdated
from balrogutils.upkeep.verify import Fault, block_name, fault_of

__all__ = ["Explanation", "explain"]

_ROW = re.compile(r"(?P<file>.+)\[(?P<row>[0-9]{1,18})\]")
# Longer ones are no names of objects, and Python reads none of thousands of digits.
_NUMBER = re.compile(r"[0-9]{1,100}")
_EXAMPLES = "for example balrog explain FILE, balrog explain 'FILE[12]' or balrog explain 2023902160000001"


@dataclass(frozen=True)
class Explanation:
    """What the manifests say of one file.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    state : str
        What it is now, against its manifest.
    recorded : dict
        ``size`` and ``sha256`` when it was made.
    steps : list of dict
        The steps that went into it, first things first; the last one made it. Each has ``step``, ``tile``, ``band``,
        ``realization``, ``bit``, ``block``, ``manifest``, and of its manifest ``started``, ``ended``, ``wall_seconds``,
        ``cpu_seconds``, ``peak_memory_bytes``, ``version``, ``tools``, ``seeds``, ``config``, ``config_sha256``,
        ``counts``, ``adopted``; ``from``: the steps it read, as numbers in this list.
    origins : list of dict
        Files no step made: ``file``, ``size``, ``sha256``, ``state``, ``steps``.
    archives : list of dict
        What came from an archive, a step of block 1 each: ``archive``, ``database``, ``step`` (number), ``files``.
    again : dict
        ``would``: whether a run would make it again; ``reasons``: each ``step`` and ``why``; ``in_mode``: whether the
        mode has its block; ``notes``: what a run does not notice.
    object : dict or None
        The row or the injected object that was asked for.
    """

    path: Path
    state: str
    recorded: dict[str, Any]
    steps: list[dict[str, Any]]
    origins: list[dict[str, Any]]
    archives: list[dict[str, Any]]
    again: dict[str, Any]
    object: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """Return the explanation as JSON can say it."""
        return {**vars(self), "path": str(self.path)}


def explain(installation: Installation, target: str) -> Explanation:
    """Explain a file, a row of one, or an injected object.

    Parameters
    ----------
    installation : Installation
        Settings as a run would have them.
    target : str
        A file of a tile, such a file with a row in brackets, counted from 0, or a ``bal_id``.

    Returns
    -------
    Explanation
        From the manifests; files are read for the rows asked for alone.

    Raises
    ------
    InputError
        When the target is no such thing.
    ProductError
        When nothing has been made of its tile, or a manifest cannot be read.
    """
    row = None
    if not os.path.lexists(target):
        if _NUMBER.fullmatch(target):
            return _injected(installation, int(target))
        match = _ROW.fullmatch(target)
        if match is not None:
            target, row = match["file"], int(match["row"])
    path = Path(target).absolute()
    owner, shared = owner_of(installation.site, path), installation.site.shared
    if owner is None and path.resolve().is_relative_to(shared.resolve()):
        raise InputError(
            "this file of the archive is shared by tiles",
            file=path,
            remedy=f"explain a name that a tile has for it: find {shlex.quote(str(shared.parent))} -samefile FILE",
        )
    if owner is None:
        raise InputError(
            "this is neither a product of a tile nor the bal_id of an object",
            file=path,
            remedy=f"{_EXAMPLES}; MEDS_DATA and medsconf must be those of the run that made it",
        )
    tile, realization = owner
    context = installation.context(tile)
    lineage = Lineage(context)
    manifest = _maker(lineage, path, tile)
    here = context.at(manifest.tree.realization if realization is None else realization)
    found = None
    if row is not None:
        kind = manifest.step
        is_fit = kind in ("sof", "mof", "mcal", "bfd") and lineage.real(Job(kind, here).product) == lineage.real(path)
        found = fit_of(lineage, here, kind, row) if is_fit else row_of(path, row, here.bands)
    return _explanation(lineage, here, path, manifest, found)


def _maker(lineage: Lineage, path: Path, tile: str) -> Manifest:
    for manifest in lineage.inventory.manifests:
        # The manifest itself speaks of all its products.
        if lineage.real(manifest.path) == lineage.real(path) and not manifest.problem:
            return manifest
    maker = lineage.maker(path)
    if maker is not None:
        return maker
    users = [one for one in lineage.inventory.manifests if not one.problem and _reads(lineage, one, path)]
    if users:
        names = ", ".join(dict.fromkeys(f"{one.step} {one.band or ''}".strip() for one in users))
        text = f"no step made this file; it went into {names}"
        raise InputError(text, tile=tile, file=path, remedy="explain a product of these steps")
    text = "no manifest of the tile speaks of this file" if path.exists() else "there is no such file"
    raise InputError(text, tile=tile, file=path, remedy=f"balrog summary {tile} says what has been made")


def _reads(lineage: Lineage, manifest: Manifest, path: Path) -> bool:
    return any(
        lineage.real(Path(entry["path"])) == lineage.real(path) for entry in lineage.document(manifest)["inputs"]
    )


def _injected(installation: Installation, bal_id: int) -> Explanation:
    try:
        tile, realization, _ = decode_object_ids(bal_id)[0]
    except (InputError, OverflowError) as error:
        raise InputError(f"{bal_id} is neither a file nor the bal_id of an object", remedy=_EXAMPLES) from error
    if realization is None:
        text = f"{bal_id} is not the bal_id of an injected object: it would be of the base run"
        raise InputError(text, tile=tile, remedy=f"of a detection name a row of a catalogue: {_EXAMPLES}")
    context = installation.context(tile)
    lineage = Lineage(context)
    here = context.at(realization)
    found = injection_of(lineage, here, bal_id)
    path = here.tree.match if found["match"] is not None else here.tree.truth
    return _explanation(lineage, here, path, _maker(lineage, path, tile), found)


def _explanation(
    lineage: Lineage, context: Context, path: Path, manifest: Manifest, found: dict[str, Any] | None
) -> Explanation:
    steps = lineage.steps(manifest)
    numbers = {one: number for number, one in enumerate(steps)}
    claims = [claim for _, claim in lineage.claims(path)]
    recorded: dict[str, Any] = {}
    state = "a manifest"
    if claims:
        fault = fault_of(path, claims)
        state = "as it was left" if fault is None else fault[1]
        if fault is not None and fault[0] is Fault.GONE and claims[0].path in let_go(manifest.path):
            state = f"let go on purpose; balrog restore {context.tile} makes it again"
            kept = manifest.tree.difference(manifest.band or "", chip_of(path))
            if manifest.step == "inject" and kept.is_file():
                state += f" from {kept.name}"
        recorded = {"size": claims[0].size, "sha256": claims[0].sha256}
    told = [_step(lineage, one) | {"from": [numbers[need] for need in lineage.before(one)]} for one in steps]
    origins = [
        {"file": str(one.path), "size": one.size, "sha256": one.sha256, "state": one.state, "steps": list(one.steps)}
        for one in lineage.origins(steps)
    ]
    archives = [archive for one in steps if (archive := _archive(lineage, one, numbers[one])) is not None]
    return Explanation(path, state, recorded, told, origins, archives, _again(lineage, context, manifest, steps), found)


def _step(lineage: Lineage, manifest: Manifest) -> dict[str, Any]:
    document = lineage.document(manifest)
    keys = ("started", "ended", "wall_seconds", "cpu_seconds", "peak_memory_bytes", "version", "tools", "seeds")
    return {
        "step": document["step"],
        "tile": manifest.tree.tile,
        "band": manifest.band,
        "realization": manifest.tree.realization,
        "bit": manifest.bit,
        "block": block_name(manifest.bit),
        "manifest": str(manifest.path),
        **{key: document.get(key) for key in (*keys, "config", "config_sha256", "counts")},
        "adopted": manifest.adopted,
    }


def _archive(lineage: Lineage, manifest: Manifest, number: int) -> dict[str, Any] | None:
    """Return what a step of block 1 fetched, and from where; None for other steps."""
    if manifest.step != "prep" or manifest.band is None:
        return None
    sources = manifest.tree.sources(manifest.band)
    files = [str(claim.path.relative_to(sources)) for claim in manifest.claims if claim.path.is_relative_to(sources)]
    config = lineage.document(manifest).get("config") or {}
    return {
        "step": number,
        "archive": config.get("archive"),
        "database": config.get("database"),
        "adopted": manifest.adopted,
        "files": files,
    }


def _again(lineage: Lineage, context: Context, manifest: Manifest, steps: list[Manifest]) -> dict[str, Any]:
    at = context.at(manifest.tree.realization)
    jobs = [job for job in lineage.inventory.jobs if job.manifest == at.tree.manifest(manifest.step, manifest.band)]
    if not jobs:
        raise ProductError(
            f"this version has no step {manifest.step}",
            tile=context.tile,
            band=manifest.band,
            file=manifest.path,
            remedy="nothing makes it again; keep it, or remove it by hand",
        )
    job, outdated = jobs[0], Outdated()
    reasons = [{"step": one.name, "why": list(one.reasons)} for one in outdated.why(job)]
    known = {one.manifest: one for one in lineage.inventory.jobs}
    notes = [
        f"{one.step} {one.band or ''}".strip() + f": {text}"
        for one in steps
        if one.path in known
        for text in outdated.unnoticed(known[one.path])
    ]
    notes += [
        f"{reader.step} {reader.band or ''}".strip() + f": read another {path.name} than {maker.step} left last"
        for reader, maker, path in lineage.replaced(steps)
    ]
    in_mode = bool(job.bit & context.pipeline.mode)
    return {"would": bool(reasons), "in_mode": in_mode, "reasons": reasons, "notes": list(dict.fromkeys(notes))}
