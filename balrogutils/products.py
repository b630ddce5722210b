"""Products that are whole under their final name, and the manifests that say what made them."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from balrogutils import __version__
from balrogutils.errors import ProductError

__all__ = ["Step", "link_or_copy", "read_manifest", "sha256", "temporary_name", "writing", "writing_text"]

_PREFIX = ".part-"


def temporary_name(path: Path) -> Path:
    """Return a fresh name in the directory of `path`, with its suffixes, that no product can have."""
    return path.with_name(f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Hand out a temporary name; rename it to `path` when the block ends without an error.

    Parameters
    ----------
    path : path-like
        Final name. Its directory is made if it is missing.

    Yields
    ------
    pathlib.Path
        Name to write to, in the same directory and with the same suffixes.

    Raises
    ------
    ProductError
        When the block ended without writing the file.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    part = temporary_name(final)
    try:
        yield part
        if not part.exists():
            raise ProductError("a product was not written", file=final)
        _sync(part)
        part.replace(final)
    finally:
        part.unlink(missing_ok=True)


def writing_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text file under its final name, or nothing."""
    with writing(path) as part:
        part.write_text(text, encoding="utf-8")


def link_or_copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Make `target` hold what `source` holds, as a hard link where the file system can."""
    with writing(target) as part:
        try:
            os.link(source, part)
        except OSError:
            part.write_bytes(Path(source).read_bytes())


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _entry(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256(path)}


class Step:
    """One step of one tile: collects what it read and wrote, and leaves a manifest when it ends well.

    Parameters
    ----------
    manifest : path-like
        Name of the manifest; an old one is removed when the step starts, so a manifest always speaks of whole products.
    name : str
        Name of the step, for example ``"coadd"``.
    about : mapping, optional
        Where: tile, band, realization.
    config : mapping, optional
        The configuration that can change the products; kept whole, with its hash.
    seeds : mapping, optional
        Seeds used.
    """

    def __init__(
        self,
        manifest: str | os.PathLike[str],
        name: str,
        *,
        about: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        seeds: Mapping[str, int] | None = None,
    ) -> None:
        self.manifest = Path(manifest)
        self.name = name
        self.about = dict(about or {})
        self.config = dict(config or {})
        self.seeds = dict(seeds or {})
        self.counts: dict[str, int | float | str] = {}
        self._inputs: dict[Path, None] = {}
        self._outputs: dict[Path, None] = {}

    def read(self, *paths: str | os.PathLike[str]) -> None:
        """Record files this step depends on."""
        self._inputs.update(dict.fromkeys(Path(path) for path in paths))

    def wrote(self, *paths: str | os.PathLike[str]) -> None:
        """Record products of this step, already under their final names."""
        self._outputs.update(dict.fromkeys(Path(path) for path in paths))

    def count(self, **counts: int | float | str) -> None:
        """Record what the summary prints: detections, injections, chips."""
        self.counts.update(counts)

    def __enter__(self) -> Step:
        self.manifest.unlink(missing_ok=True)
        self._wall, self._cpu = time.time(), _cpu_seconds()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        for path in self._outputs:
            if not path.is_file():
                raise ProductError(f"step {self.name} says it wrote a file that is not there", file=path)
        ended = time.time()
        text = json.dumps(self.config, sort_keys=True, default=str)
        document = {
            "step": self.name,
            **self.about,
            "version": __version__,
            "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "config": json.loads(text),
            "seeds": self.seeds,
            "counts": self.counts,
            "inputs": [_entry(path) for path in self._inputs],
            "outputs": [_entry(path) for path in self._outputs],
            "started": self._wall,
            "ended": ended,
            "wall_seconds": ended - self._wall,
            "cpu_seconds": _cpu_seconds() - self._cpu,
            "peak_memory_bytes": _peak_memory(),
        }
        writing_text(self.manifest, json.dumps(document, indent=1) + "\n")


def _cpu_seconds() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_memory() -> int:
    # The largest single process of the step; ru_maxrss is in KiB on Linux.
    return 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a manifest.

    Raises
    ------
    ProductError
        When there is none, or it is not one.
    """
    file = Path(path)
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProductError("there is no manifest", file=file) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ProductError(
            "a manifest cannot be read", file=file, remedy="remove it; the next run makes it anew"
        ) from error
    if not isinstance(document, dict) or not {"step", "inputs", "outputs"} <= set(document):
        raise ProductError("a manifest lacks its keys", file=file, remedy="remove it; the next run makes it anew")
    return document
