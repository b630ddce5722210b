"""``balrog campaign``: many tiles, some at a time, to a line on what is done, what failed and why, and what is left."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from balrogutils.cli.reporting import parse_overrides, reporting
from balrogutils.errors import InputError
from balrogutils.tilelist import tile_names

if TYPE_CHECKING:
    from balrogutils.context import Context, Installation
    from balrogutils.overview.status import TileStatus

__all__ = ["campaign", "read_tiles"]

_REFUSED = InputError.exit_status
# Lines of Snakemake: that it has begun a job, and that something went wrong.
_JOB = re.compile(r"(?:local)?(?:rule|checkpoint) \w+:$")
_ERROR = re.compile(r"(?:[\w.]*(?:Error|Exception)\b|Error: )")
_KEPT, _SHOWN = 40, 4


def read_tiles(path: Path, installation: Installation) -> list[Context]:
    """Return the tiles of a list.

    Parameters
    ----------
    path : pathlib.Path
        The list.
    installation : Installation
        Knows the tiles.

    Raises
    ------
    InputError
        When the file is not there or no text, names no tile, an unknown one, or one twice; with the line.
    """
    found: dict[str, Context] = {}
    for number, name in tile_names(path).items():
        if name in found:
            raise InputError(f"a tile is named again in line {number}", tile=name, file=path, remedy="remove the line")
        try:
            found[name] = installation.context(name)
        except InputError as error:
            error.locate(file=f"{path}, line {number}")
            raise
    if not found:
        raise InputError("the list names no tile", file=path, remedy="write the name of a tile a line")
    return list(found.values())


@dataclass(frozen=True)
class _Ended:
    """How a run of Snakemake ended: its status, whether it came to a job, and why it did not end well."""

    status: int
    began: bool
    why: str


@dataclass
class _Batches:
    """Runs of Snakemake, one after the other, that each make some of the tiles.

    Attributes
    ----------
    refused : dict of str to str
        Tiles that no run could be started for, and what was told.
    stopped : dict of str to str
        Tiles of runs that did not end well, and what Snakemake said last.
    ended : int
        The signal that ended all this; 0 when there was none.
    able : bool
        Whether Snakemake has come to a job, or has had nothing against a call without a tile.
    hopeless : str
        Why it comes to no job whatever the tile is.
    """

    words: tuple[str, ...]
    refused: dict[str, str] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    ended: int = 0
    able: bool = False
    hopeless: str = ""
    _running: subprocess.Popen[str] | None = None

    def run(self, tiles: Sequence[str]) -> None:
        """Make some tiles; when Snakemake comes to no job, for one that it cannot make, each by itself.

        When it comes to none without a tile either, for a wrong profile or directory, no other run is of use.

        Raises
        ------
        InputError
            When Snakemake does not understand its own options, which no tile can mend.
        """
        end = self._snakemake(tiles)
        self.able = self.able or end.began or not end.status
        if not self.able and not self.ended:
            without = self._snakemake(())
            self.able, self.hopeless = not without.status, without.why if without.status else ""
        if not end.status or self.ended:
            return
        if end.began or self.hopeless:
            self.stopped.update(dict.fromkeys(tiles, self.hopeless or end.why))
        elif len(tiles) == 1:
            self.refused[tiles[0]] = end.why
        else:
            for tile in tiles:
                if not self.ended:
                    self.run([tile])

    def _snakemake(self, tiles: Sequence[str]) -> _Ended:
        command = [sys.executable, "-m", "snakemake", *(f"tile={tile}" for tile in tiles), *self.words]
        told: list[str] = []
        last: deque[str] = deque(maxlen=_KEPT)
        began = False
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as self._running:
            assert self._running.stderr is not None
            self._pass_on()
            for line in self._running.stderr:
                if tiles:
                    sys.stderr.write(line)
                began = began or _JOB.match(line) is not None
                if line.strip():
                    last.append(line.strip())
                if line.startswith("balrogutils: "):
                    told.append(line.removeprefix("balrogutils: ").strip())
        status = self._running.returncode
        if status == _REFUSED and not told:
            said = last[-1] if last else ""
            text = f"Snakemake does not take these options: {said.partition('error: ')[2] or said}"
            raise InputError(text, remedy="correct what follows the --; snakemake --help lists its options")
        if status == _REFUSED:
            return _Ended(status, False, told[-1])
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return _Ended(status, began, f"Snakemake {how}: {_error(last)}")

    def _pass_on(self) -> None:
        """Send the signal that ended all this, if one did, to the run that goes on."""
        if self.ended and self._running is not None and self._running.poll() is None:
            # A terminal's interrupt has reached it already; a second one would break it off where it tidies up.
            self._running.send_signal(signal.SIGTERM)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Pass on the signals that end a program to the run that goes on, and begin no other."""

        def end(number: int, frame: Any) -> None:
            # One that comes while a run is being started is passed on as soon as it is.
            self.ended = number
            self._pass_on()

        before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _error(lines: Sequence[str]) -> str:
    """Return in one line what a program said last: from its last error on, or the last line when it names none."""
    first = max((number for number, line in enumerate(lines) if _ERROR.match(line)), default=len(lines) - 1)
    return " ".join(list(lines)[max(first, 0) :][:_SHOWN]) or "it said nothing"


def _why(tile: TileStatus, ended: int) -> str:
    from balrogutils.overview.status import State

    # What was ended with all the others has not failed.
    failed = [step for step in tile.steps if step.state is State.FAILED and not (ended and step.ended)]
    if not failed:
        return ""
    first, job = failed[0], failed[0].job
    where = " ".join(
        word
        for word in (job.step, job.band, job.context.realization and f"realization {job.context.realization}")
        if word
    )
    more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    return f"{where}: {first.says}{more}"


def _report(contexts: Sequence[Context], runs: _Batches) -> tuple[str, bool]:
    from balrogutils.overview.status import State, status_of

    done, left = 0, 0
    failed: dict[str, str] = {}
    # What runs said last, once for all their tiles.
    stopped: dict[str, None] = {f"ended by {signal.Signals(runs.ended).name}": None} if runs.ended else {}
    for tile in status_of(contexts).tiles:
        why = runs.refused.get(tile.tile) or _why(tile, runs.ended)
        if why:
            failed[tile.tile] = why
        elif all(step.state is State.DONE for step in tile.steps):
            done += 1
        else:
            left += 1
            if tile.tile in runs.stopped:
                stopped[runs.stopped[tile.tile]] = None
    reasons = "; ".join(f"{tile}: {why}" for tile, why in failed.items())
    tiles = "1 tile" if len(contexts) == 1 else f"{len(contexts)} tiles"
    told = f"campaign of {tiles}: {done} done, {len(failed)} failed{f' ({reasons})' if failed else ''}"
    said = "; ".join(stopped)
    return f"{told}, {left} left{f' ({said})' if said and left else ''}", done == len(contexts)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("listed", metavar="LIST", type=click.Path(path_type=Path))
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- SNAKEMAKE OPTIONS]")
@click.option("--batch", default=50, show_default=True, type=click.IntRange(1), help="Tiles of one run of Snakemake.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of etc/pipeline.yaml.")
def campaign(listed: Path, words: tuple[str, ...], batch: int, overrides: tuple[str, ...]) -> None:
    """Make every tile of LIST, a file with one name a line, and tell what became of them in one line.

    A few tiles at a time, so that what Snakemake has to know stays small; one that fails stops no other. Options of
    Snakemake follow a --:

        balrog campaign tiles.txt --set mode=63 -- --cores 16

        balrog campaign tiles.txt -- --profile profiles/slurm

    The same command again makes what is left. Ends with status 0 when every tile is done, 1 when not.
    """
    with reporting(None):
        from balrogutils.context import Installation

        for word in words:
            if word.startswith(("--config", "-C", "tile=")):
                remedy = "give settings with --set KEY=VALUE before the --, and tiles in the list"
                raise InputError(f"{word!r} is not for a campaign", remedy=remedy)
        installation = Installation.load(parse_overrides(overrides))
        if installation.pipeline.tile:
            text = "the setting tile is not for a campaign, whose tiles stand in its list"
            raise InputError(text, key="tile", remedy="leave it out; etc/pipeline.yaml and --set can have it")
        contexts = read_tiles(listed, installation)
        runs = _Batches((*words, *(("--config", *overrides) if overrides else ())))
        with runs.ending():
            for first in range(0, len(contexts), batch):
                tiles = [one.tile for one in contexts[first : first + batch]]
                click.echo(f"balrog: tiles {first + 1} to {first + len(tiles)} of {len(contexts)}", err=True)
                runs.run(tiles)
                if runs.ended or runs.hopeless:
                    break
        text, whole = _report(contexts, runs)
        click.echo(text)
        if runs.ended:
            sys.exit(128 + runs.ended)
        sys.exit(0 if whole else 1)
