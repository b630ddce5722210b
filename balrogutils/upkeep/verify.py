"""Every product of a tile against the manifests that claim it: by size and time, or by content."""

from __future__ import annotations

import functools
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from tabulate import tabulate

from balrogutils.context import Context
from balrogutils.letgo import let_go
from balrogutils.products import sha256
from balrogutils.progress import track
from balrogutils.report.summary import BLOCK_NAMES
from balrogutils.upkeep.inventory import Claim, Inventory, Manifest, inside, take_inventory
from balrogutils.upkeep.leftovers import unfinished

__all__ = ["Block", "Fault", "Finding", "Report", "block_name", "fault_of", "printable", "run_name", "verify"]


class Fault(StrEnum):
    """What can be wrong with a product or a manifest."""

    GONE = "gone"
    RESIZED = "resized"
    TOUCHED = "touched"
    """Size right, time not: suspect, until its content is looked at."""
    CHANGED = "changed"
    SUMS = "sums"
    """As recorded, but its FITS checksums disagree: it was damaged before it was recorded."""
    UNREADABLE = "unreadable"
    FORBIDDEN = "forbidden"
    """No plain file, or one that may not be read: what it holds cannot be told."""
    MANIFEST = "manifest"
    OUTSIDE = "outside"
    """A manifest of ours names a file that is not its tile's."""


@dataclass(frozen=True)
class Finding:
    """One product, or one manifest, that is not as it should be.

    Attributes
    ----------
    fault : Fault
        Kind.
    path : pathlib.Path
        The product; for ``MANIFEST`` the manifest itself.
    what : str
        What is wrong, a clause.
    manifests : tuple of Manifest
        Those that claim the product, the newest first; for ``MANIFEST`` and ``OUTSIDE`` the one at fault.
    """

    fault: Fault
    path: Path
    what: str
    manifests: tuple[Manifest, ...]

    @property
    def maker(self) -> Manifest:
        """The newest manifest that claims the product: its step makes it."""
        return self.manifests[0]

    def document(self) -> dict[str, Any]:
        """Return the finding as JSON can say it."""
        maker = self.maker
        return {
            "fault": str(self.fault),
            "file": str(self.path),
            "what": self.what,
            "tile": maker.tree.tile,
            "band": maker.band,
            "realization": maker.tree.realization,
            "step": maker.step,
            "bit": maker.bit,
            "manifests": [str(manifest.path) for manifest in self.manifests],
            "adopted": any(manifest.adopted for manifest in self.manifests),
        }

    def __str__(self) -> str:
        maker = self.maker
        band = f"band {maker.band}, " if maker.band else ""
        where = f"tile {maker.tree.tile}, {band}{run_name(maker.tree.realization)}, step {maker.step}"
        return f"{printable(self.path)}\n    {where}: {self.what}"


@dataclass
class Block:
    """One block in the base run or one realization: what was checked, steps not done or adopted, products let go."""

    bit: int
    realization: str | None
    checked: int = 0
    damaged: int = 0
    suspect: int = 0
    steps: int = 0
    steps_not_made: int = 0
    steps_adopted: int = 0
    let_go: int = 0

    @property
    def good(self) -> int:
        """Products as recorded."""
        return self.checked - self.damaged - self.suspect


@dataclass(frozen=True)
class Report:
    """What `verify` found of one tile.

    Attributes
    ----------
    tile : str
        Tile.
    deep : bool
        Whether contents were read.
    blocks : tuple of Block
        Base run first, then each realization, each in the order of its blocks.
    findings : tuple of Finding
        In the same order.
    leftovers : tuple of pathlib.Path
        Unfinished files.
    """

    tile: str
    deep: bool
    blocks: tuple[Block, ...]
    findings: tuple[Finding, ...] = field(repr=False)
    leftovers: tuple[Path, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether everything that has been made is good."""
        return not self.findings

    def document(self) -> dict[str, Any]:
        """Return the report as JSON can say it."""
        blocks = [
            {**vars(block), "name": block_name(block.bit), "good": block.good, "realization": block.realization}
            for block in self.blocks
        ]
        return {
            "tile": self.tile,
            "deep": self.deep,
            "sound": self.sound,
            "blocks": blocks,
            "findings": [finding.document() for finding in self.findings],
            "leftovers": [str(path) for path in self.leftovers],
        }

    def __str__(self) -> str:
        rows = [
            [
                block.bit or "",
                block_name(block.bit),
                run_name(block.realization),
                block.checked,
                block.good,
                block.damaged,
                block.suspect,
                f"{block.steps_not_made} of {block.steps}" if block.steps_not_made else 0,
            ]
            for block in self.blocks
        ]
        headers = ["bit", "block", "run", "products", "good", "damaged", "suspect", "steps not made"]
        how = "sizes, contents and FITS checksums" if self.deep else "sizes and times"
        parts = [f"Tile {self.tile}: {how}", tabulate(rows, headers=headers, tablefmt="simple"), *self._told()]
        return "\n".join(parts)

    def _told(self) -> Iterator[str]:
        suspect = [finding for finding in self.findings if finding.fault is Fault.TOUCHED]
        damaged = [finding for finding in self.findings if finding.fault is not Fault.TOUCHED]
        if damaged:
            yield f"\nDamaged, {len(damaged)}; balrog repair {self.tile} removes what a run can make again:"
            yield from map(str, damaged)
        if suspect:
            yield f"\nSuspect, {len(suspect)}; balrog verify --deep {self.tile} reads what they hold:"
            yield from map(str, suspect)
        if self.leftovers:
            what = "unfinished files of killed jobs, which the next run removes, or of jobs at work"
            yield f"\nLeftovers, {len(self.leftovers)}: {what}:"
            yield from map(printable, self.leftovers)
        missing = [block for block in self.blocks if block.steps_not_made]
        if self.sound:
            yield "\nEverything that has been made is good."
        if missing:
            yield f"Not made, or not whole: {_names(missing)}."
        spared = sum(block.let_go for block in self.blocks)
        if spared:
            yield f"Let go on purpose: {spared} images; balrog restore {self.tile} makes them again."
        adopted = [block for block in self.blocks if block.steps_adopted]
        if adopted:
            yield f"Adopted, made elsewhere: {_names(adopted)}."


def _names(blocks: Iterable[Block]) -> str:
    return ", ".join(f"{block.bit} {block_name(block.bit)} ({run_name(block.realization)})" for block in blocks)


def block_name(bit: int) -> str:
    """Return how tables name a block; bit 0 stands for steps this version does not have."""
    return BLOCK_NAMES.get(bit, "other")


def run_name(realization: str | None) -> str:
    """Return how tables name the base run or a realization."""
    return "base" if realization is None else f"realization {realization}"


def printable(path: Path) -> str:
    """Return a name that any terminal takes."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def verify(context: Context, *, deep: bool = False) -> Report:
    """Compare every product of a tile with what the manifests say of it.

    Parameters
    ----------
    context : Context
        The tile; the base run, every realization and all fits are looked at.
    deep : bool
        Read what the files hold: SHA-256, and CHECKSUM and DATASUM of every HDU that has them. Otherwise size and
        time only.

    Returns
    -------
    Report
        A product that several manifests claim is good when one of them agrees; with `deep`, when the newest does.

    Raises
    ------
    ProductError
        When nothing has been made of the tile.
    """
    inventory = take_inventory(context)
    findings = list(_damaged_manifests(inventory))
    products = _products(inventory)
    contents, spared = _Contents(), functools.cache(let_go)
    blocks = _blocks(inventory)
    for finding in findings:
        _count(blocks, finding.maker, finding.fault)
    for claimed in track(products, f"{inventory.tile}: checking products", unit="files"):
        manifests = tuple(manifest for manifest, _ in claimed)
        path, claims = claimed[0][1].path, [claim for _, claim in claimed]
        fault, what = fault_of(path, claims, contents if deep else None) or (None, "")
        if fault is Fault.GONE and any(path in spared(manifest.path) for manifest in manifests):
            blocks[_key(manifests[0])].let_go += 1
            continue
        if fault is Fault.SUMS and (manifests[0].adopted or manifests[0].step == "prep"):
            # As it came from elsewhere: its checksums were somebody else's affair, and its SHA-256 agrees.
            fault = None
        if fault is not None:
            if not all(manifest.stands for manifest in manifests):
                # A run is making it again.
                continue
            findings.append(Finding(fault, path, what, manifests))
        _count(blocks, manifests[0], fault)
    order = {key: number for number, key in enumerate(blocks)}
    findings.sort(key=lambda finding: (order[_key(finding.maker)], finding.maker.path, finding.path))
    return Report(inventory.tile, deep, tuple(blocks.values()), tuple(findings), tuple(unfinished(context)))


def _key(manifest: Manifest) -> tuple[str | None, int]:
    return manifest.tree.realization, manifest.bit


def _blocks(inventory: Inventory) -> dict[tuple[str | None, int], Block]:
    """Return the blocks of a whole run, and of what is there besides, with nothing checked yet."""
    blocks: dict[tuple[str | None, int], Block] = {}
    there = {manifest.path for manifest in inventory.manifests}
    for job in inventory.jobs:
        realization = job.context.realization
        block = blocks.setdefault((realization, job.bit), Block(job.bit, realization))
        block.steps += 1
        block.steps_not_made += job.manifest not in there
    for manifest in inventory.manifests:
        block = blocks.setdefault(_key(manifest), Block(manifest.bit, manifest.tree.realization))
        block.steps_adopted += manifest.adopted
    return blocks


def _count(blocks: dict[tuple[str | None, int], Block], manifest: Manifest, fault: Fault | None) -> None:
    block = blocks[_key(manifest)]
    block.checked += 1
    block.suspect += fault is Fault.TOUCHED
    block.damaged += fault not in (None, Fault.TOUCHED)


def _damaged_manifests(inventory: Inventory) -> Iterator[Finding]:
    for manifest in inventory.manifests:
        if manifest.problem:
            readable = manifest.path.is_file() and os.access(manifest.path, os.R_OK)
            fault = Fault.MANIFEST if readable else Fault.FORBIDDEN
            yield Finding(fault, manifest.path, manifest.problem, (manifest,))
        strangers = [claim.path for claim in manifest.claims if not _ours(manifest, claim)]
        if strangers:
            more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
            what = f"manifest {printable(manifest.path)} names it{more}, outside the directories of the tile"
            yield Finding(Fault.OUTSIDE, strangers[0], what, (manifest,))


def _ours(manifest: Manifest, claim: Claim) -> bool:
    # The lists of a tile made elsewhere may name files that stay where they are; repair removes none of them.
    if manifest.adopted:
        return claim.path.is_absolute()
    # Followed too: MEDS_DATA may have been named by another of its names when the manifest was written.
    return inside(manifest.tree, claim.path) or inside(manifest.tree, claim.path, follow=True)


def _products(inventory: Inventory) -> list[list[tuple[Manifest, Claim]]]:
    """Return the claims of each product, the newest first."""
    products: dict[tuple[str, str], list[tuple[Manifest, Claim]]] = defaultdict(list)
    # Of a directory and not of every file in it: they are few.
    real = cache(os.path.realpath)
    for manifest in inventory.manifests:
        for claim in manifest.claims:
            if _ours(manifest, claim):
                products[real(claim.path.parent), claim.path.name].append((manifest, claim))
    for claimed in products.values():
        claimed.sort(key=lambda pair: pair[0].ended, reverse=True)
    return list(products.values())


class _Contents:
    """What files hold, read once for all hard links of a file."""

    def __init__(self) -> None:
        self._read: dict[tuple[int, int], tuple[str, str]] = {}

    def __call__(self, path: Path, status: os.stat_result) -> tuple[str, str]:
        """Return the SHA-256 of a file and what is wrong with its FITS checksums."""
        # Imported when used, so that a look at sizes and times starts faster.
        from balrogutils.upkeep.sums import is_fits, wrong_sums

        key = status.st_dev, status.st_ino
        if key not in self._read:
            self._read[key] = sha256(path), wrong_sums(path) if is_fits(path) else ""
        return self._read[key]


def fault_of(path: Path, claims: list[Claim], contents: _Contents | None = None) -> tuple[Fault, str] | None:
    """Return what is wrong with a product, None when nothing is; `contents` reads it, None looks at size and time."""
    newest = claims[0]
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Fault.FORBIDDEN, "it is no plain file"
        accepted = claims if contents is None else [newest]
        if status.st_size not in [claim.size for claim in accepted]:
            return Fault.RESIZED, f"it has {status.st_size} bytes, not {newest.size}"
        if contents is None:
            if any((status.st_size, status.st_mtime_ns) == (claim.size, claim.mtime_ns) for claim in claims):
                return None
            # Snakemake sets the time of its outputs when their job has ended, and the report's page is one of them.
            if path.suffix == ".html" and sha256(path) == newest.sha256:
                return None
            return Fault.TOUCHED, "its size is right, its time is not the recorded one"
        digest, sums = contents(path, status)
    except (FileNotFoundError, NotADirectoryError):
        return Fault.GONE, "it is gone"
    except PermissionError:
        return Fault.FORBIDDEN, "it may not be read"
    except OSError as error:
        return Fault.UNREADABLE, f"it cannot be read: {error.strerror or error}"
    if digest != newest.sha256:
        return Fault.CHANGED, f"its content has changed ({sums})" if sums else "its content has changed"
    return (Fault.SUMS, f"its checksums disagree: {sums}") if sums else None
