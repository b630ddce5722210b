"""Products that are whole under their final name, and the manifests that say what made them."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import resource
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from balrogutils import __version__
from balrogutils.errors import BalrogError, ProductError
from balrogutils.memory import largest_process, take_workspace

__all__ = [
    "PART_PREFIX",
    "Step",
    "link_or_copy",
    "no_room",
    "read_manifest",
    "records",
    "sha256",
    "temporary_name",
    "writing",
    "writing_text",
]

PART_PREFIX = ".part-"
"""Begins the name of every unfinished file."""

_log = logging.getLogger(__name__)
# Of a manifest: what is a mapping, and what is a number.
_MAPPINGS = ("config", "counts", "seeds", "tools")
_NUMBERS = ("started", "ended", "wall_seconds", "cpu_seconds", "peak_memory_bytes")
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is too big",
}


def temporary_name(path: Path) -> Path:
    """Return a fresh name in the directory of `path`, with its suffixes, that no product can have."""
    return path.with_name(f"{PART_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


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
        When the block ended without writing the file, the disk had no room for it, or its directory takes no files.
    """
    final = Path(path)
    part = temporary_name(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if not part.exists():
            raise ProductError("a product was not written", file=final)
        _sync(part)
        part.replace(final)
    except OSError as error:
        full, closed = no_room(error) or _filled(final), _closed(final)
        if not (full or closed):
            raise
        remedy = "make room" if full else "make that directory writable for you"
        raise ProductError(
            f"a product cannot be written: {full or closed}",
            file=final,
            remedy=f"{remedy}, then run the same command again",
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _filled(path: Path) -> str | None:
    """Return that a disk is full, if it is now: a library may stumble only later over what it could not write."""
    there = os.statvfs(next(place for place in path.parents if place.exists()))
    return _FULL[errno.ENOSPC] if there.f_bavail * there.f_frsize < 2**14 else None


def _closed(path: Path) -> str | None:
    """Return what keeps a directory from taking a file; None when nothing does. cfitsio does not tell."""
    there = next(place for place in path.parents if place.exists())
    if not there.is_dir():
        return f"{there} is not a directory"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} is not writable"


def no_room(error: OSError) -> str | None:
    """Return what keeps the disk from taking a file; None when something else went wrong."""
    if error.errno in _FULL:
        return _FULL[error.errno]
    # cfitsio says no more than that it could not write, or seek behind what it could not write.
    text = str(error)
    return "the disk is full" if "status = 106" in text or "error writing to FITS file" in text else None


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


_digests: dict[tuple[int, int, int, int], str] = {}


def _entry(path: Path) -> dict[str, Any]:
    status = path.stat()
    # Hard links are one file: a null-weight image and its injection name, a PSF model and its source.
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _digests:
        _digests[key] = sha256(path)
    return {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": _digests[key]}


def records(manifests: Sequence[str | os.PathLike[str]]) -> dict[str, dict[str, Any]]:
    """Return what some steps said of their products when they had made them.

    Parameters
    ----------
    manifests : sequence of path-like
        Those that are not there are left out.

    Returns
    -------
    dict
        By real path: ``step``, ``path``, ``size``, ``mtime_ns``, ``sha256``.

    Raises
    ------
    ProductError
        When a manifest cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in map(Path, manifests):
        if not file.is_file():
            continue
        document = read_manifest(file)
        found.update({os.path.realpath(one["path"]): {"step": document["step"], **one} for one in document["outputs"]})
    return found


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
    before : sequence of path-like, optional
        Manifests of the steps this one may read products of; what it reads must be as they recorded it.
    extra : mapping, optional
        More keys of the manifest.
    thread : bool
        The step is one thread of a program that does other things too: its CPU seconds are those of the thread.
    """

    def __init__(
        self,
        manifest: str | os.PathLike[str],
        name: str,
        *,
        about: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        seeds: Mapping[str, int] | None = None,
        before: Sequence[str | os.PathLike[str]] = (),
        extra: Mapping[str, Any] | None = None,
        thread: bool = False,
    ) -> None:
        self.manifest = Path(manifest)
        self.name = name
        self.about = dict(about or {})
        self.config = dict(config or {})
        self.seeds = dict(seeds or {})
        self.counts: dict[str, int | float | str] = {}
        self.tools: dict[str, str] = {}
        self.extra = dict(extra or {})
        self._clock = time.thread_time if thread else _cpu_seconds
        self._before = tuple(before)
        self._records: dict[str, dict[str, Any]] = {}
        self._inputs: dict[Path, dict[str, Any]] = {}
        self._outputs: dict[Path, None] = {}

    def read(self, *paths: str | os.PathLike[str]) -> None:
        """Record files this step depends on, before it reads them.

        Raises
        ------
        ProductError
            When one is not there, or is not as the step that made it recorded it.
        """
        for path in map(Path, paths):
            if path not in self._inputs:
                self._inputs[path] = self._verified(path)

    def digest(self, path: str | os.PathLike[str]) -> str:
        """Return the SHA-256 of a file that `read` has recorded."""
        return str(self._inputs[Path(path)]["sha256"])

    def _verified(self, path: Path) -> dict[str, Any]:
        made = self._records.get(os.path.realpath(path))
        where = {name: value for name, value in self.about.items() if name in ("tile", "band") and value is not None}
        remedy = f"balrog repair {self.about.get('tile', 'TILE')}, then run the same command again"
        try:
            found = _entry(path)
        except FileNotFoundError as error:
            text = "a product is gone" if made else "a file is not there"
            again = "run snakemake again, or balrog restore if it was let go" if made else "restore it, or make it anew"
            raise ProductError(text, **where, file=path, remedy=again) from error
        except OSError as error:
            text, again = f"a file cannot be read: {error.strerror}", "make it readable for you"
            raise ProductError(text, **where, file=path, remedy=f"{again}, then run the same command again") from error
        if made is None:
            return found
        problem = ""
        if found["size"] != made.get("size"):
            problem = f"it has {found['size']} bytes, not {made.get('size')}"
        elif found["sha256"] != made.get("sha256"):
            problem = "its content has changed"
        if problem:
            raise ProductError(
                f"a product is not as step {made['step']} left it: {problem}", **where, file=path, remedy=remedy
            )
        return found

    def _locate(self, error: BalrogError) -> None:
        error.locate(**{name: self.about.get(name) for name in ("tile", "realization", "band")})

    def wrote(self, *paths: str | os.PathLike[str]) -> None:
        """Record products of this step, already under their final names."""
        self._outputs.update(dict.fromkeys(Path(path) for path in paths))

    def used(self, tool: str, version: str) -> None:
        """Record the version of an external program."""
        self.tools[tool] = version

    def count(self, **counts: int | float | str) -> None:
        """Record what the summary prints: detections, injections, chips."""
        self.counts.update(counts)

    def __enter__(self) -> Step:
        try:
            self._records = records(self._before)
        except BalrogError as error:
            self._locate(error)
            raise
        self.manifest.unlink(missing_ok=True)
        if not self.extra.get("adopted"):
            _log.info(
                "%s starts: %s", self.name, " ".join(str(value) for value in self.about.values() if value is not None)
            )
        take_workspace()
        self._wall, self._cpu = time.time(), self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            if isinstance(value, BalrogError):
                self._locate(value)
            return
        for path in self._outputs:
            if not path.is_file():
                raise ProductError(f"step {self.name} says it wrote a file that is not there", file=path)
        ended = time.time()
        text = json.dumps(self.config, sort_keys=True, default=str)
        document = {
            "step": self.name,
            **self.about,
            **self.extra,
            "version": __version__,
            "tools": self.tools,
            "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "config": json.loads(text),
            "seeds": self.seeds,
            "counts": self.counts,
            "inputs": list(self._inputs.values()),
            "outputs": [_entry(path) for path in self._outputs],
            "started": self._wall,
            "ended": ended,
            "wall_seconds": ended - self._wall,
            "cpu_seconds": self._clock() - self._cpu,
            "peak_memory_bytes": largest_process(),
        }
        writing_text(self.manifest, json.dumps(document, indent=1) + "\n")


def _cpu_seconds() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def read_manifest(path: str | os.PathLike[str], *keys: str) -> dict[str, Any]:
    """Return a manifest.

    Parameters
    ----------
    path : path-like
        The file.
    *keys : str
        What it must say besides ``step``, ``inputs`` and ``outputs``.

    Raises
    ------
    ProductError
        When there is none, it is not one, or lacks a key; a number that is none is lacking.
    """
    file = Path(path)
    remedy = "remove it; the next run makes it anew"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProductError("there is no manifest", file=file) from error
    except (ValueError, RecursionError) as error:
        # No JSON, no text; numbers of thousands of digits and thousands of brackets are JSON, and still no manifest.
        raise ProductError("a manifest cannot be read", file=file, remedy=remedy) from error
    if not isinstance(document, dict) or not {"step", "inputs", "outputs"} <= set(document) or not _is_record(document):
        raise ProductError("a manifest lacks its keys", file=file, remedy=remedy)
    lacking = ", ".join(sorted(key for key in keys if not _says(document, key)))
    if lacking:
        remedy = "remove it; the next run makes its products anew"
        raise ProductError(f"a manifest lacks {lacking}", file=file, remedy=remedy)
    return document


def _is_record(document: Mapping[str, Any]) -> bool:
    entries = document["outputs"]
    named = isinstance(entries, list) and all(isinstance(one, dict) and "path" in one for one in entries)
    return named and all(isinstance(document.get(key, {}), dict) for key in _MAPPINGS)


def _says(document: Mapping[str, Any], key: str) -> bool:
    value = document.get(key)
    return key in document and (key not in _NUMBERS or (isinstance(value, (int, float)) and math.isfinite(value)))
