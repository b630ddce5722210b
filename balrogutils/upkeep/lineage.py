"""Where products came from: the steps that made them, and those whose products went in, from the manifests alone."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.products import read_manifest, sha256
from balrogutils.upkeep.inventory import Claim, Inventory, Manifest, take_inventory

__all__ = ["Lineage", "Origin", "state_of"]


@dataclass(frozen=True)
class Origin:
    """A file that went into a step and that no step of the tile made.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    size : int
        Bytes when it was read.
    sha256 : str
        Of what it held then.
    state : str
        What it is now: ``"as it was"``, ``"changed since"``, ``"gone"``, ``"cannot be read"``.
    steps : tuple of str
        The steps that read it.
    """

    path: Path
    size: int
    sha256: str
    state: str
    steps: tuple[str, ...]


class Lineage:
    """The manifests of a tile as a graph: which step made which product, and from what.

    Parameters
    ----------
    context : Context
        The tile; base run, realizations and fits are all known, whichever the context is at.

    Raises
    ------
    ProductError
        When nothing has been made of the tile.
    """

    def __init__(self, context: Context) -> None:
        self.inventory: Inventory = take_inventory(context)
        self._documents: dict[Path, Mapping[str, Any]] = {}
        self._directories: dict[Path, str] = {}

    def real(self, path: Path) -> Path:
        """Return a name without links in its directories; the file itself may be one, and need not be there."""
        if path.parent not in self._directories:
            self._directories[path.parent] = os.path.realpath(path.parent)
        return Path(self._directories[path.parent], path.name)

    @cached_property
    def _claims(self) -> dict[Path, list[tuple[Manifest, Claim]]]:
        claims: dict[Path, list[tuple[Manifest, Claim]]] = defaultdict(list)
        for manifest in self.inventory.manifests:
            for claim in manifest.claims:
                claims[self.real(claim.path)].append((manifest, claim))
        for claimed in claims.values():
            claimed.sort(key=lambda pair: pair[0].ended, reverse=True)
        return dict(claims)

    def claims(self, path: Path) -> list[tuple[Manifest, Claim]]:
        """Return who says to have made a file, the newest first."""
        return self._claims.get(self.real(path), [])

    def maker(self, path: Path) -> Manifest | None:
        """Return the newest manifest that claims a file; None when none does."""
        claims = self.claims(path)
        return claims[0][0] if claims else None

    def document(self, manifest: Manifest) -> Mapping[str, Any]:
        """Return all a manifest says.

        Raises
        ------
        ProductError
            When it cannot be read, or says nothing of its inputs.
        """
        if manifest.path not in self._documents:
            document = read_manifest(manifest.path)
            inputs = document["inputs"]
            keys = {"path", "size", "mtime_ns", "sha256"}
            if not isinstance(inputs, list) or any(not isinstance(one, dict) or not keys <= set(one) for one in inputs):
                raise ProductError(
                    "a manifest lacks what it should say of its inputs",
                    file=manifest.path,
                    remedy="remove it; the next run makes its products anew",
                )
            self._documents[manifest.path] = document
        return self._documents[manifest.path]

    def inputs(self, manifest: Manifest) -> Iterator[tuple[Mapping[str, Any], Manifest | None]]:
        """Yield what a step read, as it recorded it, with the manifest that claims it now."""
        for entry in self.document(manifest)["inputs"]:
            yield entry, self.maker(Path(entry["path"]))

    def before(self, manifest: Manifest) -> list[Manifest]:
        """Return the steps whose products a step read, each once, in the order it read them."""
        return list(dict.fromkeys(maker for _, maker in self.inputs(manifest) if maker not in (None, manifest)))

    def steps(self, manifest: Manifest) -> list[Manifest]:
        """Return every step that went into one, the first things first, and that one itself as the last."""
        found: dict[Manifest, None] = {}
        open_: list[Manifest] = []

        def visit(one: Manifest) -> None:
            # A step may be claimed to need itself by manifests of two runs; what is being visited is not visited again.
            if one in found or one in open_:
                return
            open_.append(one)
            for need in self.before(one):
                visit(need)
            open_.pop()
            found[one] = None

        visit(manifest)
        return list(found)

    def origins(self, steps: list[Manifest]) -> list[Origin]:
        """Return the files that went into some steps and that no step made: configuration, catalogues to inject."""
        found: dict[tuple[Path, str], tuple[Mapping[str, Any], list[str]]] = {}
        for manifest in steps:
            for entry, maker in self.inputs(manifest):
                if maker is None:
                    path = Path(entry["path"])
                    found.setdefault((path, str(entry["sha256"])), (entry, []))[1].append(manifest.step)
        return [
            Origin(path, entry["size"], digest, state_of(entry), tuple(dict.fromkeys(names)))
            for (path, digest), (entry, names) in found.items()
        ]

    def replaced(self, steps: list[Manifest]) -> Iterator[tuple[Manifest, Manifest, Path]]:
        """Yield each step that read a product as it is no longer: the step, who made the product again, the product."""
        for manifest in steps:
            for entry, maker in self.inputs(manifest):
                if maker is None:
                    continue
                path = Path(entry["path"])
                if entry["sha256"] not in [claim.sha256 for _, claim in self.claims(path)]:
                    yield manifest, maker, path


def state_of(entry: Mapping[str, Any]) -> str:
    """Return what has become of a file since a manifest recorded it; what it holds is read only if its time differs."""
    path = Path(entry["path"])
    try:
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) == (entry["size"], entry["mtime_ns"]):
            return "as it was"
        same = status.st_size == entry["size"] and sha256(path) == entry["sha256"]
    except (FileNotFoundError, NotADirectoryError):
        return "gone"
    except OSError:
        return "cannot be read"
    return "as it was" if same else "changed since"
