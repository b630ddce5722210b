"""Damaged products removed, so that the next run makes them again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.letgo import forget
from balrogutils.upkeep.inventory import inside, take_inventory
from balrogutils.upkeep.verify import Fault, Finding, block_name, printable, run_name, verify

__all__ = ["Repair", "repair"]


@dataclass(frozen=True)
class Repair:
    """What `repair` has done.

    Attributes
    ----------
    tile : str
        Tile.
    removed : tuple of Finding
        Removed, or to be removed in a dry run.
    refused : tuple of (Finding, str)
        Left alone, and why.
    command : str
        What makes the removed products again.
    dry_run : bool
        Nothing was removed.
    """

    tile: str
    removed: tuple[Finding, ...]
    refused: tuple[tuple[Finding, str], ...]
    command: str
    dry_run: bool

    def __str__(self) -> str:
        if not (self.removed or self.refused):
            return f"Tile {self.tile}: nothing is damaged, nothing was removed."
        parts = [f"Tile {self.tile}"]
        for finding in self.removed:
            maker = finding.maker
            block = f"block {maker.bit} ({block_name(maker.bit)}, {run_name(maker.tree.realization)}) makes it again"
            if maker.path == maker.tree.differences(maker.band or ""):
                # A difference, and with it those of its band.
                block = "images that were let go are drawn again when one needs them"
            parts.append(f"{finding}\n    {self._done(finding)}; {block}")
        for finding, why in self.refused:
            parts.append(f"{finding}\n    not removed: {why}")
        if self.removed:
            parts.append(f"\nRun next the command that made it, or: {self.command}")
        return "\n".join(parts)

    def _done(self, finding: Finding) -> str:
        done = "would be removed" if self.dry_run else "removed"
        manifests = " ".join(printable(Path(manifest.path.name)) for manifest in finding.manifests)
        if finding.fault is Fault.MANIFEST:
            return done
        return f"{manifests} {done}" if finding.fault is Fault.GONE else f"{done} with {manifests}"


def repair(context: Context, *, dry_run: bool = False, settings: Sequence[str] = ()) -> Repair:
    """Verify what a tile's products hold, and remove the damaged ones with the manifests that claim them.

    Parameters
    ----------
    context : Context
        The tile; the base run, every realization and all fits.
    dry_run : bool
        Remove nothing.
    settings : sequence of str, optional
        ``key=value`` settings of this call, for the command to run next.

    Returns
    -------
    Repair
        What was removed, what was refused and why, and the command to run next.

    Raises
    ------
    InputError
        When a run has the tile.
    ProductError
        When nothing has been made of the tile, or a manifest names a file that is not the tile's; nothing is removed
        then.
    """
    # Refused here when nothing has been made: the lock would leave a directory.
    take_inventory(context)
    removed, refused = [], []
    with nullcontext() if dry_run else context.lock:
        report = verify(context, deep=True)
        for finding in report.findings:
            if finding.fault is Fault.OUTSIDE:
                raise ProductError(
                    f"a manifest names a file that is not the tile's: {printable(finding.path)}",
                    tile=context.tile,
                    file=finding.maker.path,
                    remedy="nothing was removed; remove the manifest by hand, and the next run makes its step again",
                )
        adopted = {(m.tree.realization, m.step) for m in take_inventory(context).manifests if m.adopted}
        for finding in report.findings:
            why = _refusal(finding, adopted)
            if not why and not dry_run:
                why = _remove(finding)
            if why:
                refused.append((finding, why))
            else:
                removed.append(finding)
    return Repair(context.tile, tuple(removed), tuple(refused), _command(context, removed, settings), dry_run)


def _refusal(finding: Finding, adopted: set[tuple[str | None, str]]) -> str:
    """Return why a damaged product must stay; empty when it may go."""
    maker = finding.maker
    again = f"restore it by hand, then balrog adopt {maker.tree.tile}"
    if any(manifest.adopted for manifest in finding.manifests):
        return f"it was made elsewhere, and no run makes it again; {again}"
    if finding.fault is Fault.MANIFEST and (maker.tree.realization, maker.step) in adopted:
        return f"other products of step {maker.step} were made elsewhere, perhaps this one's too; {again}"
    if finding.fault is Fault.FORBIDDEN:
        return "look at it, and remove it by hand"
    if maker.bit == 0:
        return f"this version has no step {maker.step} that makes it again; remove it by hand"
    # A directory that is a link to elsewhere may be somebody else's.
    if not inside(maker.tree, finding.path, follow=True):
        return "it lies behind a link that leads out of the directories of the tile; remove it by hand"
    return ""


def _remove(finding: Finding) -> str:
    """Remove the manifests of a product, then the product; return why that cannot be done, empty when it is."""
    try:
        # In this order: without its manifest a product counts as not made, whole or not.
        for manifest in finding.manifests:
            manifest.path.unlink(missing_ok=True)
            forget(manifest.path)
        if finding.fault is not Fault.GONE:
            finding.path.unlink(missing_ok=True)
    except OSError as error:
        return f"the machine refuses: {error}"
    return ""


def _command(context: Context, removed: Sequence[Finding], settings: Sequence[str]) -> str:
    """Return the Snakemake call that makes the removed products again, with the settings of this call."""
    bits, names = context.pipeline.mode, list(context.realizations)
    for finding in removed:
        maker = finding.maker
        bits |= maker.bit
        if maker.tree.realization is not None and maker.tree.realization not in names:
            names.append(maker.tree.realization)
    chosen = {}
    if bits != context.pipeline.mode:
        chosen["mode"] = str(bits)
    if names != list(context.realizations):
        chosen["realizations"] = ",".join(names)
    words = [word for word in settings if word.partition("=")[0].strip() not in chosen]
    words += [f"{key}={value}" for key, value in chosen.items()]
    return shlex.join(["snakemake", "--cores", "all", f"tile={context.tile}", *(["--config", *words] if words else [])])
