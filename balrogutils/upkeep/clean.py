"""Products by class: what they take on disk, whether a run can make them again, and their removal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from balrogutils.archive.shared import SharedFiles
from balrogutils.context import Context
from balrogutils.errors import InputError, ProductError, did_you_mean
from balrogutils.graph import Job, needs
from balrogutils.letgo import forget
from balrogutils.products import read_manifest
from balrogutils.upkeep.inventory import Inventory, Manifest, inside, take_inventory
from balrogutils.upkeep.leftovers import remove_leftovers, trees, unfinished
from balrogutils.upkeep.verify import printable

__all__ = ["CLASSES", "Class", "Cleaning", "clean", "survey"]

CLASSES = {
    "prepared": ("prep",),
    "coadds": ("coadd", "catalog"),
    "meds": ("meds",),
    "injected": ("plan", "inject", "truth"),
    "sof": ("sof",),
    "mof": ("mof",),
    "mcal": ("mcal",),
    "bfd": ("bfd",),
    "matched": ("match", "report"),
}
"""Classes of products, with the steps that make them; besides there are ``logs``, ``replays`` and ``leftovers``."""

_OTHERS = ("logs", "replays", "leftovers")


@dataclass(frozen=True)
class Class:
    """One class of products of a tile.

    Attributes
    ----------
    name : str
        A key of `CLASSES`, ``logs``, ``replays`` or ``leftovers``.
    files : tuple of pathlib.Path
        Files that are there.
    frees : int
        Bytes that their removal gives back; a file that has a name elsewhere gives nothing.
    manifests : tuple of Manifest
        Manifests that go with them.
    cpu : float
        Seconds of CPU they took here.
    kept : str
        Why they cannot be removed; empty when they can.
    shared : tuple of str
        Of those that tiles share, the checksums: they go when no tile has them any more.
    """

    name: str
    files: tuple[Path, ...]
    frees: int
    manifests: tuple[Manifest, ...] = ()
    cpu: float = 0.0
    kept: str = ""
    shared: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        bits = sorted({manifest.bit for manifest in self.manifests})
        told = {"class": self.name, "files": len(self.files), "frees": self.frees, "bits": bits}
        return {**told, "cpu_seconds": self.cpu, "kept": self.kept}


@dataclass(frozen=True)
class Cleaning:
    """Classes of a tile, and what a run would make again when some of them are gone.

    Attributes
    ----------
    tile : str
        Tile.
    classes : tuple of Class
        All that have files.
    again : int
        Steps that are done and that a run would make again: those of the classes, and those that need them.
    cpu : float
        Seconds of CPU these took.
    """

    tile: str
    classes: tuple[Class, ...]
    again: int = 0
    cpu: float = 0.0

    def document(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        classes = [one.document() for one in self.classes]
        return {"tile": self.tile, "classes": classes, "steps_again": self.again, "cpu_seconds_again": self.cpu}

    def __str__(self) -> str:
        rows = [
            [
                one.name,
                len(one.files),
                f"{one.frees / 1e6:.1f}",
                _makers(one),
                f"{one.cpu / 3600:.3g}" if one.manifests else "",
            ]
            for one in self.classes
        ]
        headers = ["class", "files", "frees MB", "made again by", "CPU h"]
        lines = [f"Tile {self.tile}", tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True)]
        lines += [f"{one.name}: {one.kept}" for one in self.classes if one.kept]
        if self.again:
            what = f"The next run makes {self.again} steps again, with those that need them"
            lines.append(f"{what}: {self.cpu / 3600:.3g} h of CPU.")
        return "\n".join(lines)


def _makers(one: Class) -> str:
    if one.kept:
        return "nothing"
    bits = sorted({manifest.bit for manifest in one.manifests})
    if bits:
        return "block " + ", ".join(map(str, bits))
    return {"logs": "nothing", "replays": "balrog replay", "leftovers": "not wanted"}[one.name]


def survey(context: Context, names: Sequence[str] = (), realizations: Sequence[str] | None = None) -> Cleaning:
    """Look at what a tile has on disk, by class.

    Parameters
    ----------
    context : Context
        The tile; the base run, every realization and all fits.
    names : sequence of str
        Classes; all of them when none is named.
    realizations : sequence of str, optional
        Only of these realizations; everything when not given.

    Returns
    -------
    Cleaning
        Classes without files are left out. When all classes are looked at, nothing is said of what would be made again.

    Raises
    ------
    InputError
        For a class or a realization that there is not.
    ProductError
        When nothing has been made of the tile.
    """
    for name in names:
        if name not in (*CLASSES, *_OTHERS):
            text = f"there is no class of products {name!r}: {did_you_mean(name, (*CLASSES, *_OTHERS))}"
            raise InputError(text, tile=context.tile, remedy=f"choose from {', '.join((*CLASSES, *_OTHERS))}")
    inventory = take_inventory(context)
    there = {tree.realization for tree in trees(context.at(None))} - {None}
    for name in realizations or ():
        if name not in there:
            known = " ".join(sorted(map(str, there))) or "none"
            text = f"there is no realization {name} on disk: {known}"
            raise InputError(text, tile=context.tile, key="realization", remedy="choose one of these")
    chosen = list(names) or [*CLASSES, *_OTHERS]
    found = [_class(context, inventory, name, realizations) for name in chosen]
    classes = tuple(one for one in found if one.files)
    if not names:
        return Cleaning(context.tile, classes)
    gone = {manifest.path for one in classes if not one.kept for manifest in one.manifests}
    again = _again(inventory, gone)
    steps = [one for one in inventory.manifests if _main(one) in again]
    return Cleaning(context.tile, classes, len(again), _spent(steps))


def _class(context: Context, inventory: Inventory, name: str, realizations: Sequence[str] | None) -> Class:
    wanted = [tree for tree in trees(context.at(None)) if realizations is None or tree.realization in realizations]
    if name == "logs":
        files = [path for tree in wanted for path in (tree.log("any").parent).glob("*.log")]
        files += [path for tree in wanted for path in tree.tool_log("any", "g").parent.glob("*.log")]
        return Class(name, tuple(files), _bytes(files))
    if name == "replays":
        files = [
            path for tree in wanted if tree.realization for path in tree.replay(0, "c").parent.glob(f"{tree.tile}_*")
        ]
        return Class(name, tuple(files), _bytes(files))
    shared = SharedFiles(context.site.shared)
    if name == "leftovers":
        files = [*unfinished(context), *shared.unclaimed()] if realizations is None else []
        return Class(name, tuple(files), _bytes(files))
    steps = CLASSES[name]
    places = {tree.realization for tree in wanted}
    manifests = tuple(
        one for one in inventory.manifests if one.step in steps and one.tree.realization in places and not one.problem
    )
    claimed = [(one, claim.path) for one in manifests for claim in one.claims]
    # Other steps may claim the same file: the geometry of a tile, which every band leaves.
    others = {
        claim.path for one in inventory.manifests if one not in manifests for claim in one.claims if not one.problem
    }
    files = [
        path
        for one, path in {path: (one, path) for one, path in claimed}.values()
        if path not in others and path.is_file() and inside(one.tree, path, follow=True)
    ]
    kept = ""
    if any(one.adopted for one in manifests):
        kept = "made elsewhere and adopted; no run makes them again, so they are not removed"
    inodes = shared.inodes() if "prep" in steps else {}
    of_tiles = tuple(dict.fromkeys(inodes[key] for path in files if (key := _inode(path)) in inodes))
    return Class(name, tuple(files), _bytes(files, inodes), manifests, _spent(manifests), kept, of_tiles)


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat(follow_symlinks=False)
    return status.st_dev, status.st_ino


def _bytes(files: Iterable[Path], shared: Container[tuple[int, int]] = ()) -> int:
    """Return what the removal of some files gives back: a file whose other names stay gives nothing.

    The name that tiles share goes with the last name in a tile.
    """
    names: dict[tuple[int, int], int] = defaultdict(int)
    sizes: dict[tuple[int, int], tuple[int, int]] = {}
    for path in files:
        status = path.stat(follow_symlinks=False)
        key = status.st_dev, status.st_ino
        names[key] += 1
        sizes[key] = status.st_nlink, 512 * status.st_blocks
    return sum(size for key, (links, size) in sizes.items() if names[key] + (key in shared) >= links)


def _main(manifest: Manifest) -> Path:
    """Return the manifest of the step; that of a chunk of a fit belongs to the fit's."""
    return manifest.tree.manifest(manifest.step, manifest.band)


def _spent(manifests: Iterable[Manifest]) -> float:
    """Return the seconds of CPU that steps took; a fit counts its chunks, but for those it found done already."""
    steps: dict[Path, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one in manifests:
        steps[_main(one)][one.path == _main(one)] += _cpu(one.path)
    return sum(max(chunks, whole) for chunks, whole in steps.values())


def _cpu(manifest: Path) -> float:
    try:
        value = read_manifest(manifest).get("cpu_seconds")
    except ProductError:
        return 0.0
    return float(value) if isinstance(value, (int, float)) else 0.0


def _again(inventory: Inventory, gone: set[Path]) -> set[Path]:
    """Return the manifests of steps that are done and would be made again, when some manifests are gone."""
    stale: dict[Job, bool] = {}

    def is_stale(job: Job) -> bool:
        if job not in stale:
            stale[job] = False
            stale[job] = job.manifest in gone or any(is_stale(need) for need in needs(job)[0] if not job.outlives(need))
        return stale[job]

    return {job.manifest for job in inventory.jobs if job.manifest.is_file() and is_stale(job)}


def clean(
    context: Context, names: Sequence[str], realizations: Sequence[str] | None = None, *, dry_run: bool = False
) -> Cleaning:
    """Remove classes of products of a tile, their manifests first.

    Parameters
    ----------
    context : Context
        The tile.
    names : sequence of str
        Classes, at least one.
    realizations : sequence of str, optional
        Only of these realizations.
    dry_run : bool
        Remove nothing.

    Returns
    -------
    Cleaning
        What was removed. Classes that are kept stay.

    Raises
    ------
    InputError
        As `survey`; when a run has the tile.
    ProductError
        When nothing has been made of the tile.
    """
    if not names:
        raise InputError("no class of products is named", tile=context.tile, remedy="name one with --remove")
    survey(context, names, realizations)
    shared = SharedFiles(context.site.shared)
    with nullcontext() if dry_run else context.lock:
        found = survey(context, names, realizations)
        for one in found.classes:
            if dry_run or one.kept:
                continue
            # In this order: without its manifest a product counts as not made, whole or not.
            for manifest in one.manifests:
                manifest.path.unlink(missing_ok=True)
                forget(manifest.path)
            for path in one.files:
                if not path.is_relative_to(shared.directory):
                    _unlink(path, context.tile)
            shared.release(one.shared)
        if "leftovers" in names and not dry_run:
            remove_leftovers(context)
            shared.tidy()
    return found


def _unlink(path: Path, tile: str) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        text = f"a file cannot be removed: {error.strerror}"
        remedy = "make its directory writable for you, then run the same command again"
        raise ProductError(text, tile=tile, file=printable(path), remedy=remedy) from error
