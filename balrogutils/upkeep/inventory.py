"""What the manifests of a tile say it has: the base run, every realization on disk, fits and their chunks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.graph import Job, jobs
from balrogutils.layout import Site, TileTree
from balrogutils.products import read_manifest
from balrogutils.upkeep.leftovers import trees

__all__ = ["Claim", "Inventory", "Manifest", "inside", "owner_of", "take_inventory"]

_KEYS = {"path": str, "size": int, "mtime_ns": int, "sha256": str}
# <tile>_<step>[_<band>].json, <tile>_<fit>-chunk<rows>.json and <tile>_inject-differences_<band>.json
_NAME = re.compile(r"(?P<step>[^_-]+)(?:-[^_]+)?(?:_(?P<band>.+))?")


@dataclass(frozen=True)
class Claim:
    """What a manifest says of one of its outputs."""

    path: Path
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """One manifest on disk.

    Attributes
    ----------
    path : pathlib.Path
        Where it is.
    tree : TileTree
        The base run or realization it belongs to.
    step, band : str, str or None
        As its name says.
    bit : int
        Mode bit of the block that makes it; 0 where this version has no such block.
    claims : tuple of Claim
        Its outputs; none when there is a `problem`.
    ended : float
        When the step ended, seconds since 1970.
    adopted : bool
        The products were made elsewhere; no run can make them again.
    problem : str
        Why it cannot be believed; empty when it can.
    seen : tuple of int
        Inode and time of the manifest when it was read: another run of the step leaves another one.
    """

    path: Path
    tree: TileTree
    step: str
    band: str | None
    bit: int
    claims: tuple[Claim, ...] = ()
    ended: float = 0.0
    adopted: bool = False
    problem: str = ""
    seen: tuple[int, int] = (0, 0)

    @property
    def stands(self) -> bool:
        """Whether it is still the manifest that was read."""
        return _seen(self.path) == self.seen


@dataclass(frozen=True)
class Inventory:
    """Every manifest of a tile, and every job that a whole run has."""

    tile: str
    manifests: tuple[Manifest, ...]
    jobs: tuple[Job, ...] = field(repr=False)


def take_inventory(context: Context) -> Inventory:
    """Read every manifest of a tile.

    Parameters
    ----------
    context : Context
        The tile. Realizations on disk count whether the configuration names them or not.

    Returns
    -------
    Inventory
        Manifests by tree (base run first) and name, damaged ones with their `problem`.

    Raises
    ------
    ProductError
        When there is none at all.
    """
    here = context.at(None)
    on_disk = [tree.realization for tree in trees(here) if tree.realization is not None]
    names = tuple(dict.fromkeys((*here.realizations, *on_disk)))
    whole = replace(here, pipeline=here.pipeline.model_copy(update={"realizations": names}))
    expected = tuple(jobs(whole))
    manifests = []
    for realization in (None, *names):
        bits = {job.step: job.bit for job in expected if job.context.realization == realization}
        tree = here.at(realization).tree
        for path in sorted(tree.manifest("any").parent.glob(f"{tree.tile}_*.json")):
            seen = _seen(path)
            # A step that starts removes its manifest: what was there a moment ago need not be.
            if seen != (0, 0):
                manifests.append(replace(_read(path, tree, bits), seen=seen))
    if not manifests:
        raise ProductError(
            "nothing has been made of this tile yet",
            tile=here.tile,
            remedy=f"snakemake --cores all tile={here.tile}",
        )
    return Inventory(here.tile, tuple(manifests), expected)


def inside(tree: TileTree, path: Path, *, follow: bool = False) -> bool:
    """Return whether a product of one tree of a tile may lie under a name.

    Parameters
    ----------
    tree : TileTree
        The base run or a realization.
    path : Path
        The name. Nothing need be there; a relative one is never inside.
    follow : bool
        Follow the links of directories first: then a directory of the tree that is a link to elsewhere is outside.
    """
    if not path.is_absolute() or path.name == "..":
        return False
    # Names as text: a tile has thousands, and paths take several times as long.
    plain = os.path.realpath if follow else os.path.normpath
    # The name itself is not followed: what is removed is a link, not what it leads to.
    name = f"{plain(path.parent).rstrip(os.sep)}{os.sep}{path.name}"
    if name == plain(tree.dir) or _below(plain(tree.dir), name):
        return True
    below = _below(plain(tree.fits_root), name)
    if not below:
        return False
    # Fits of all tiles share the directory of a fit run: there the name tells.
    parts = Path(below).parts
    ours = len(parts) > 2 and (parts[1] == tree.tile or parts[-1].startswith((f"{tree.tile}-", f"{tree.tile}_")))
    return ours and parts[0].startswith(tree.fit_run(""))


def _below(directory: str, name: str) -> str:
    """Return what a name has beyond a directory it lies in; nothing when it lies elsewhere."""
    head = directory.rstrip(os.sep) + os.sep
    return name[len(head) :] if name.startswith(head) else ""


def owner_of(site: Site, path: Path) -> tuple[str, str | None] | None:
    """Return tile and realization of whom a name is, from the name alone; None when it is no name of the site."""
    shared = site.shared.relative_to(site.meds_data).parts
    for root in (site.meds_data, site.ngmixer_output):
        name = Path(os.path.realpath(path.parent), path.name)
        if not name.is_relative_to(os.path.realpath(root)):
            continue
        parts = name.relative_to(os.path.realpath(root)).parts
        realization = None
        if "balrog_images" in parts[:2]:
            at = parts.index("balrog_images")
            realization, parts = "".join(parts[at + 1 : at + 2]), parts[at + 2 :]
        if len(parts) < 3 or parts[0].partition("-")[0] != site.medsconf or parts[:2] == shared:
            continue
        if parts[0] == site.medsconf or parts[1] != "output":
            return parts[1], realization
        # The catalogues of a fit run, of all tiles in one directory.
        named = re.match(rf"(.+?)(?:-{re.escape(parts[0])}|_BFD)", parts[-1])
        if named is not None:
            return named[1], realization
    return None


def _seen(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _read(path: Path, tree: TileTree, bits: Mapping[str, int]) -> Manifest:
    name = _NAME.fullmatch(path.stem.removeprefix(f"{tree.tile}_"))
    step, band = (name["step"], name["band"]) if name else (path.stem, None)
    manifest = Manifest(path, tree, step, band, bits.get(step, 0))
    if not path.is_file():
        return replace(manifest, problem="a manifest is no plain file")
    try:
        document = read_manifest(path)
    except ProductError as error:
        return replace(manifest, problem=error.message)
    except OSError as error:
        return replace(manifest, problem=f"a manifest cannot be read: {error.strerror}")
    problem = _problem(document, manifest)
    if problem:
        return replace(manifest, problem=problem)
    ended = document.get("ended")
    return replace(
        manifest,
        claims=tuple(
            Claim(Path(one["path"]), one["size"], one["mtime_ns"], one["sha256"]) for one in _outputs(document)
        ),
        ended=ended if isinstance(ended, (int, float)) else 0.0,
        adopted=document.get("adopted") is True,
    )


def _outputs(document: Mapping[str, Any]) -> list[Any]:
    outputs = document["outputs"]
    return outputs if isinstance(outputs, list) else [None]


def _problem(document: Mapping[str, Any], manifest: Manifest) -> str:
    """Return why a document is not the manifest its name says; empty when it is."""
    for entry in _outputs(document):
        if not isinstance(entry, dict) or any(type(entry.get(key)) is not kind for key, kind in _KEYS.items()):
            return "a manifest lacks what it should say of its products"
        if not _is_name(entry["path"]):
            return "a manifest names a product by what is no file name"
    # A fit's chunks are steps "sof chunk"; there are "inject differences".
    step = str(document["step"]).split(" ")[0]
    said = {"step": step, "tile": manifest.tree.tile, "band": manifest.band, "realization": manifest.tree.realization}
    for key, value in {**document, "step": step}.items():
        if key in said and value != (manifest.step if key == "step" else said[key]):
            return f"a manifest is of another {key}: {value!r}"
    return ""


def _is_name(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text) and bool(text)
    except UnicodeEncodeError:
        return False
