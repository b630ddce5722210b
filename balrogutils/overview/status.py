"""What is done of some tiles, what runs, what failed and what waits: from manifests, logs and run locks."""

from __future__ import annotations

import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from balrogutils.context import Context, Installation
from balrogutils.errors import ConfigError, InputError, ProductError
from balrogutils.graph import Job, jobs
from balrogutils.products import read_manifest
from balrogutils.report.summary import BLOCK_NAMES

__all__ = ["BlockStatus", "JobStatus", "State", "Status", "TileStatus", "known_tiles", "status_of"]

# The end of a log, in bytes, that has its last message.
_TAIL = 20_000
# Manifests of a step that are read to know how long it takes.
_SAMPLE = 5
_RECORD = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (?P<level>[A-Z]+) (?P<text>.*)$", re.MULTILINE)


class State(StrEnum):
    """What a step, or a block of a tile, is."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    WAITING = "waiting"


@dataclass(frozen=True)
class JobStatus:
    """One step of a tile.

    Attributes
    ----------
    job : Job
        The step.
    state : State
        Done: it has a manifest. Running: it wrote to its log since the run began. Failed: its log ends with an error,
        or ends although nothing runs. Waiting: everything else.
    says : str
        The last message of a step that runs or failed.
    time : float
        When it was done, or last wrote to its log; seconds since 1970, 0 for one that waits.
    ended : bool
        Whether one that failed told no error: it was ended amid its work.
    """

    job: Job
    state: State
    says: str = ""
    time: float = 0.0
    ended: bool = False

    def document(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        here = self.job.context
        return {
            "tile": here.tile,
            "step": self.job.step,
            "band": self.job.band,
            "realization": here.realization,
            "bit": self.job.bit,
            "state": str(self.state),
            "says": self.says,
            "log": str(log_of(self.job)),
            "time": self.time,
        }


@dataclass(frozen=True)
class TileStatus:
    """One tile: its steps, and who has it (None when nobody has)."""

    tile: str
    steps: tuple[JobStatus, ...] = field(repr=False)
    run: dict[str, Any] | None = None
    run_started: float = 0.0

    def block(self, bit: int) -> State | None:
        """Return the state of a block, over the base run and all realizations; None when the tile has no such block."""
        states = {one.state for one in self.steps if one.job.bit == bit}
        if not states:
            return None
        for state in (State.FAILED, State.RUNNING):
            if state in states:
                return state
        return State.DONE if states == {State.DONE} else State.WAITING


@dataclass(frozen=True)
class BlockStatus:
    """One block over all tiles: tiles and steps in each state."""

    bit: int
    tiles: Counter[State]
    steps: Counter[State]

    def document(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        counts = {
            kind: {str(state): counted[state] for state in State}
            for kind, counted in (("tiles", self.tiles), ("steps", self.steps))
        }
        return {"bit": self.bit, "name": BLOCK_NAMES[self.bit], **counts}


@dataclass(frozen=True)
class Status:
    """Some tiles at one time.

    Attributes
    ----------
    tiles : tuple of TileStatus
        In the order they were named.
    now : float
        When this was found, seconds since 1970.
    seconds : dict of str to float
        Mean wall seconds of a step, by its name, from some of its manifests.
    """

    tiles: tuple[TileStatus, ...] = field(repr=False)
    now: float
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def blocks(self) -> list[BlockStatus]:
        """Blocks in the order of their bits."""
        bits = sorted({step.job.bit for tile in self.tiles for step in tile.steps})
        found = []
        for bit in bits:
            of_tiles = Counter(state for tile in self.tiles if (state := tile.block(bit)) is not None)
            of_steps = Counter(step.state for tile in self.tiles for step in tile.steps if step.job.bit == bit)
            found.append(BlockStatus(bit, of_tiles, of_steps))
        return found

    def steps(self, state: State) -> list[JobStatus]:
        """Return the steps in one state."""
        return [step for tile in self.tiles for step in tile.steps if step.state is state]

    @property
    def running(self) -> bool:
        """Whether somebody has one of the tiles."""
        return any(tile.run is not None for tile in self.tiles)

    def _work(self, steps: Iterable[JobStatus]) -> float:
        # A step of which nothing is known counts as a mean one; failed ones are not made again by themselves.
        mean = sum(self.seconds.values()) / len(self.seconds) if self.seconds else 0.0
        return sum(self.seconds.get(step.job.step, mean) for step in steps)

    @property
    def elapsed(self) -> float:
        """Seconds since the oldest of the runs began that go on; 0 when none does."""
        started = [tile.run_started for tile in self.tiles if tile.run is not None and tile.run_started]
        return max(self.now - min(started), 0.0) if started else 0.0

    @property
    def since(self) -> list[JobStatus]:
        """Steps done since those runs began."""
        begun = self.now - self.elapsed
        return [step for step in self.steps(State.DONE) if self.elapsed and step.time >= begun]

    @property
    def rate(self) -> float | None:
        """Steps an hour since then; None when nothing runs or nothing has been done yet."""
        return 3600.0 * len(self.since) / self.elapsed if self.elapsed and self.since else None

    @property
    def left(self) -> float | None:
        """Seconds until the tiles that are in a run are done, at the rate of work so far; None when that is unknown.

        Work is wall seconds of steps, as steps of the same kind took them; so it counts how many run at a time.
        """
        work = self._work(self.since)
        if not work:
            return None
        todo = [
            step
            for tile in self.tiles
            if tile.run is not None
            for step in tile.steps
            if step.state in (State.RUNNING, State.WAITING)
        ]
        return self._work(todo) * self.elapsed / work

    def document(self) -> dict[str, Any]:
        """Return the status as JSON can say it."""
        return {
            "time": self.now,
            "tiles": [
                {
                    "tile": tile.tile,
                    "run": tile.run,
                    "steps": {str(state): sum(step.state is state for step in tile.steps) for state in State},
                    "blocks": {str(bit): str(tile.block(bit)) for bit in dict.fromkeys(s.job.bit for s in tile.steps)},
                }
                for tile in self.tiles
            ],
            "blocks": [block.document() for block in self.blocks],
            "running": [step.document() for step in self.steps(State.RUNNING)],
            "failed": [step.document() for step in self.steps(State.FAILED)],
            "steps_per_hour": self.rate,
            "seconds_left": self.left,
        }


def log_of(job: Job) -> Path:
    """Return the log of a step in a run."""
    return job.context.tree.log(job.step, job.band)


def known_tiles(installation: Installation, names: Sequence[str]) -> list[Context]:
    """Return the tiles of a list, or all that have a directory and a campaign.

    Raises
    ------
    InputError
        For an unknown tile; when none is named and there is none.
    """
    if names:
        return [installation.context(name) for name in dict.fromkeys(names)]
    found = []
    for path in sorted(installation.site.root().glob("DES*")):
        try:
            found.append(installation.context(path.name))
        except InputError:
            # Of another campaign, or no tile at all; it counts when it is named.
            continue
    if not found:
        raise InputError(
            "no tile has been started yet",
            file=installation.site.root(),
            remedy="name the tiles, or set MEDS_DATA and medsconf to where they are",
        )
    return found


def status_of(contexts: Sequence[Context], now: float | None = None) -> Status:
    """Find out what is done of some tiles, what runs, what failed and what waits.

    Parameters
    ----------
    contexts : sequence of Context
        Tiles. Of each, the blocks of its mode count.
    now : float, optional
        Seconds since 1970, instead of the clock.

    Returns
    -------
    Status
        Nothing is written, and no lock is kept.
    """
    tiles = tuple(_tile(context) for context in contexts)
    return Status(tiles, time.time() if now is None else now, _seconds(tiles))


def _tile(context: Context) -> TileStatus:
    here = context.at(None)
    try:
        run = here.lock.holder()
    except ConfigError:
        # Locks do not work here: no run can have the tile.
        run = None
    started = _time(here.tree.run_lock) if run is not None and "token" in run else 0.0
    steps = tuple(_step(job, run is not None, started) for job in jobs(here) if job.bit & here.pipeline.mode)
    told = None if run is None else {key: value for key, value in run.items() if key != "token"}
    return TileStatus(here.tile, steps, told, started)


def _step(job: Job, running: bool, started: float) -> JobStatus:
    done = _time(job.manifest)
    if done:
        return JobStatus(job, State.DONE, "", done)
    written = _time(log_of(job))
    if not written or (running and written < started):
        return JobStatus(job, State.WAITING)
    level, says = _last(log_of(job))
    if level in ("ERROR", "CRITICAL"):
        return JobStatus(job, State.FAILED, says, written)
    if running:
        return JobStatus(job, State.RUNNING, says, written)
    return JobStatus(job, State.FAILED, f"it was ended; its last message: {says or 'none'}", written, True)


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _last(path: Path) -> tuple[str, str]:
    """Return level and first line of the last message of a log."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(stream.tell() - _TAIL, 0))
            text = stream.read().decode(errors="replace")
    except OSError:
        return "", ""
    records = list(_RECORD.finditer(text))
    return (records[-1]["level"], records[-1]["text"].strip()) if records else ("", "")


def _seconds(tiles: Sequence[TileStatus]) -> dict[str, float]:
    """Return the mean wall seconds of each kind of step, from the newest few of its manifests."""
    found: dict[str, list[JobStatus]] = defaultdict(list)
    for tile in tiles:
        for step in tile.steps:
            if step.state is State.DONE:
                found[step.job.step].append(step)
    return {name: sum(walls) / len(walls) for name, steps in found.items() if (walls := list(_walls(steps)))}


def _walls(steps: list[JobStatus]) -> Iterator[float]:
    for step in sorted(steps, key=lambda one: one.time, reverse=True)[:_SAMPLE]:
        try:
            manifest = read_manifest(step.job.manifest)
        except (ProductError, OSError):
            continue
        wall = manifest.get("wall_seconds")
        # An adopted step took no time here.
        if isinstance(wall, (int, float)) and 0 <= wall < math.inf and not manifest.get("adopted"):
            yield float(wall)
