"""Everything that would fail later, found before the first job: each with its remedy."""

from __future__ import annotations

import importlib.metadata
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil

from balrogutils import tools
from balrogutils.archive.geometry import Geometry
from balrogutils.archive.queries import Database
from balrogutils.archive.transfer import ArchiveFile, Transfer
from balrogutils.context import Context, Installation
from balrogutils.errors import ArchiveError, BalrogError, InputError, ProductError
from balrogutils.graph import check_mode, jobs
from balrogutils.layout import MODE_BITS, Site
from balrogutils.overview.counts import counts_of
from balrogutils.overview.plan import make_plan
from balrogutils.products import read_manifest
from balrogutils.runlock import can_lock

__all__ = ["Finding", "Level", "diagnose"]

_TOOLS = ("swarp", "sextractor", "fpack")
# What a job asks for at most (rules/), a full disk of a small tile, and the largest product of a full one.
_MEMORY = 3 * 10**9
_ROOM = 10**9
_LARGEST_FILE = 4 * 10**9
_INODES = 10_000
# Objects that the default configuration injects into a million coadd pixels.
_INJECTIONS = 208
_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)\s*>=\s*([0-9.]+)$")


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It may do, and should be known."""
    PROBLEM = "problem"
    """A run would fail."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    subject : str
        ``settings``, ``tools``, ``packages``, ``machine``, ``disk``, ``database``, ``archive``, ``inputs`` or ``tile``.
    level : Level
        How bad it is.
    what : str
        What was found, with tile, file and key.
    remedy : str
        What to do; empty when all is well.
    """

    subject: str
    level: Level
    what: str
    remedy: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        return {**vars(self), "level": str(self.level)}


def _ok(subject: str, what: str) -> Finding:
    return Finding(subject, Level.OK, what)


def _told(subject: str, error: BalrogError) -> Finding:
    place = ", ".join(f"{name} {value}" for name, value in error.where.items())
    what = f"{error.message} ({place})" if place else error.message
    return Finding(subject, Level.PROBLEM, what, error.remedy or "mend that, and ask again")


def _guarded(subject: str, check: Callable[..., Iterable[Finding]], *words: Any) -> Iterator[Finding]:
    """Yield what a check finds; what it raises is a problem."""
    try:
        yield from check(*words)
    except BalrogError as error:
        yield _told(subject, error)
    except OSError as error:
        what = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        yield Finding(subject, Level.PROBLEM, what, "make it readable and writable for you")


def diagnose(
    overrides: Mapping[str, Any], tiles: Sequence[str], environ: Mapping[str, str] | None = None
) -> list[Finding]:
    """Look at everything that a run needs, as far as can be told without running.

    Parameters
    ----------
    overrides : mapping
        Keys of the pipeline configuration given on the command line.
    tiles : sequence of str
        Tiles of the run; without any, those of the configuration's ``tile``; their databases and inputs are looked at.
    environ : mapping, optional
        Instead of the process environment.

    Returns
    -------
    list of Finding
        Of everything that was looked at, good or bad, in a fixed order, each said once. Nothing is left on disk.
    """
    found: list[Finding] = []
    for tool in _TOOLS:
        found += _guarded("tools", _tool, tool)
    found += _packages(importlib.metadata.requires("balrogutils") or [])
    found += _machine()
    try:
        installation = Installation.load(overrides, environ)
    except BalrogError as error:
        return [_told("settings", error), *found]
    found = [_ok("settings", "etc/pipeline.yaml and etc/campaigns.yaml are read"), *found]
    found += _guarded("disk", _disk, installation.site)
    for tile in dict.fromkeys([*tiles, *installation.pipeline.tile]):
        try:
            context = installation.context(tile)
        except BalrogError as error:
            found.append(_told("settings", error))
            continue
        found += _tile(context)
    return list({one.what: one for one in reversed(found)}.values())[::-1]


# the machine


def _tool(tool: str) -> Iterator[Finding]:
    yield _ok("tools", f"{tool} {tools.version(tool)}, {tools.executable(tool)}")


def _packages(requirements: Iterable[str]) -> Iterator[Finding]:
    """Compare installed Python packages with what the package asks for."""
    good = 0
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is None:
            # Of an optional set, for who works on the package.
            continue
        name, least = match[1], match[2]
        remedy = "make install, or install it into the environment that balrog runs in"
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("packages", Level.PROBLEM, f"Python package {name} is not installed", remedy)
            continue
        if _numbers(version) < _numbers(least):
            what = f"Python package {name} is version {version}, older than {least}"
            yield Finding("packages", Level.PROBLEM, what, remedy)
            continue
        good += 1
    yield _ok("packages", f"{good} Python packages are there, new enough")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _machine() -> Iterator[Finding]:
    memory, cores = psutil.virtual_memory(), os.cpu_count() or 1
    what = f"{memory.total / 1e9:.1f} GB of memory, {memory.available / 1e9:.1f} free, {cores} cores"
    if memory.total < _MEMORY:
        remedy = f"a job may take {_MEMORY / 1e9:.0f} GB: use a machine that has them"
        yield Finding("machine", Level.PROBLEM, what, remedy)
    elif memory.available < _MEMORY * min(cores, 2):
        remedy = "run fewer jobs at a time (snakemake --cores), or wait for what else runs"
        yield Finding("machine", Level.WARNING, what, remedy)
    else:
        yield _ok("machine", what)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit not in (resource.RLIM_INFINITY,) and limit < _LARGEST_FILE:
        what = f"files may not be larger than {limit} bytes here"
        yield Finding("machine", Level.PROBLEM, what, "raise the limit on the size of files: ulimit -f unlimited")


def _disk(site: Site) -> Iterator[Finding]:
    site.check()
    places = {"MEDS_DATA": site.meds_data, "NGMIXER_OUTPUT_DIR": site.ngmixer_output, "TMPDIR": site.tmp}
    for key, path in places.items():
        there = next(place for place in (path, *path.parents) if place.exists())
        usage, files = shutil.disk_usage(there), os.statvfs(there)
        what = f"{key} {path}: {usage.free / 1e9:.1f} GB free"
        if usage.free < _ROOM:
            yield Finding("disk", Level.PROBLEM, what, f"make room, or set {key} to a disk that has some")
        elif files.f_files and files.f_favail < _INODES:
            what = f"{key} {path}: room for {files.f_favail} files more"
            yield Finding("disk", Level.PROBLEM, what, f"remove files, or set {key} to a disk with room for more")
        else:
            yield _ok("disk", what)
    there = next(place for place in (site.meds_data, *site.meds_data.parents) if place.exists())
    with tempfile.NamedTemporaryFile(dir=there, prefix=".part-doctor-") as file:
        can_lock(Path(file.name))
    yield _ok("disk", f"files can be locked under {there}")
    records = Path(".snakemake").absolute()
    place = records if records.is_dir() else records.parent
    if not os.access(place, os.W_OK):
        what = f"{place} is not writable, and Snakemake keeps its records there"
        yield Finding("disk", Level.WARNING, what, "run it in another directory, or snakemake --directory DIRECTORY")


# a tile


def _tile(context: Context) -> Iterator[Finding]:
    found = [*_guarded("inputs", _inputs, context), *_holder(context)]
    if context.pipeline.mode & MODE_BITS["prep"]:
        found += _guarded("database", _database, context)
    found += _guarded("tile", _made, context)
    yield from found
    if not any(one.level is Level.PROBLEM for one in found):
        # It asks what the others asked; what is wrong there is told.
        yield from _guarded("disk", _room, context)


def _room(context: Context) -> Iterator[Finding]:
    """Compare what the steps of a tile that are not done will leave with the room there is."""
    try:
        plan = make_plan([context])
    except InputError:
        # Nothing is injected yet: as many as the default configuration would.
        plan = make_plan([context], injections=_INJECTIONS * counts_of(context).tile_pixels)
    wanted = sum(row.cost.disk - row.expected.disk for row in plan.rows)
    place = context.site.meds_data
    free = shutil.disk_usage(next(one for one in (place, *place.parents) if one.exists())).free
    what = f"{context.tile}: about {wanted / 1e9:.2g} GB more will be written, {free / 1e9:.1f} GB are free"
    if wanted > free:
        yield Finding("disk", Level.PROBLEM, what, "make room, or set MEDS_DATA to a disk that has it; see balrog plan")
    else:
        yield _ok("disk", what)


def _inputs(context: Context) -> Iterator[Finding]:
    """Check the configuration of every block of the mode, the files they obey, and products of blocks outside it."""
    check_mode(context, context.pipeline.mode)
    yield _ok("inputs", f"{context.tile}: configurations and inputs of mode {context.pipeline.mode} are read")


def _holder(context: Context) -> Iterator[Finding]:
    holder = context.lock.holder()
    if holder is not None:
        who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}: {holder.get('command', '?')}"
        what = f"another run has tile {context.tile}: {who}"
        yield Finding("tile", Level.WARNING, what, "wait for it, or end it, before a run of this tile")


def _made(context: Context) -> Iterator[Finding]:
    """Look at the manifests there are; what products hold is the affair of ``balrog verify``."""
    count = 0
    for job in jobs(context):
        if not job.manifest.is_file():
            continue
        try:
            read_manifest(job.manifest)
        except ProductError as error:
            yield Finding("tile", Level.WARNING, f"{error.message} ({job.manifest})", "a run makes its step again")
            continue
        count += 1
    yield _ok("tile", f"{context.tile}: {count} steps are done; balrog verify {context.tile} looks at their products")


def _database(context: Context) -> Iterator[Finding]:
    campaign, services = context.campaign, context.site.services
    context.require_archive()
    with Database(campaign.database, services) as database:
        if database.login is not None:
            warning, remedy = database.login.warning, f"chmod 600 {services}, unless the group shares the account"
            told = _ok("database", f"{services} is for you alone")
            yield Finding("database", Level.WARNING, warning, remedy) if warning else told
        geometry = database.geometry(context.tile)
        yield _ok("database", f"{database.shown} knows {context.tile}")
        transfer = Transfer(campaign.archive, database.login if campaign.archive.startswith("https:") else None)
        for band in context.bands:
            yield from _guarded("archive", _files, context, database, geometry, transfer, band)


def _files(
    context: Context, database: Database, geometry: Geometry, transfer: Transfer, band: str
) -> Iterator[Finding]:
    """Check that the archive has every file of a band, with its size; none is read."""
    wanted, left_out = _wanted(context, database, geometry, band)
    where = {"tile": context.tile, "band": band}
    if not wanted:
        raise ArchiveError("the archive has no CCD of this band", **where, remedy="check the campaign, or leave it out")
    if left_out:
        chip, reason = next(iter(left_out.items()))
        most = context.campaign.max_missing_ccds
        what = f"{context.tile} {band}: {len(left_out)} CCDs are left out, at most {most} may be; {chip}: {reason}"
        level = Level.PROBLEM if len(left_out) > most else Level.WARNING
        yield Finding("archive", level, what, "repair the archive, or raise max_missing_ccds in etc/campaigns.yaml")
    size = sum(file.size for file in wanted)
    told = f"{context.tile} {band}: {len(wanted)} files, {size / 1e6:.0f} MB"
    parts = urlsplit(context.campaign.archive)
    if parts.scheme != "file":
        yield _ok(
            "archive", f"{told}; whether {parts.scheme}://{parts.hostname} has them is told when they are fetched"
        )
        return
    root = Path(unquote(parts.path))
    for file in wanted:
        path = root / file.path
        if not path.is_file():
            raise ArchiveError("a file is missing in the archive", **where, file=path, remedy=_again(context))
        found = path.stat().st_size
        if found != file.size:
            text = f"a file of the archive is damaged: {found} bytes instead of {file.size}"
            raise ArchiveError(text, **where, file=path, remedy=_again(context))
        if not os.access(path, os.R_OK):
            raise ArchiveError("a file may not be read", **where, file=path, remedy="make it readable for you")
    yield _ok("archive", told)


def _again(context: Context) -> str:
    return f"balrog archive {context.campaign.name}" if context.campaign.builder else "repair the archive"


def _wanted(
    context: Context, database: Database, geometry: Geometry, band: str
) -> tuple[list[ArchiveFile], Mapping[str, str]]:
    """Return the files of a band, and why CCDs of it are left out, by their names."""
    campaign = context.campaign
    if campaign.kind == "desdm":
        from balrogutils.archive.desdm import tile_files

        found = tile_files(database, campaign.proctag, campaign.se_proctag, context.tile, band)
        return found.files, found.left_out
    from balrogutils.archive.noirlab import tile_ccds

    ccds = tile_ccds(database, geometry, band)
    return ccds.files, ccds.left_out
