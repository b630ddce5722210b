"""The commands that look at what is to be done and what is: ``balrog plan``, ``doctor`` and ``status``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from balrogutils.cli.reporting import parse_overrides, reporting
from balrogutils.errors import InputError

__all__ = ["doctor", "plan", "status"]

# A day, in seconds.
_LONGEST = 86400.0
# Of tiles, cores, objects.
_MOST = 10**12

_overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of etc/pipeline.yaml."
)


@click.command()
@click.argument("tiles", nargs=-1, metavar="[TILE]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page for a browser here too.")
@click.option(
    "--every",
    type=click.FloatRange(1.0),
    metavar="SECONDS",
    help="Look again after so many seconds, until nothing runs; the page is read again as often.",
)
@_overrides
def status(
    tiles: tuple[str, ...], as_json: bool, html: Path | None, every: float | None, overrides: tuple[str, ...]
) -> None:
    """Say what is done of tiles, what runs, what failed and what waits, with rate and time left.

    All tiles that have been started when none is named. Give the settings of the run with --set. Nothing is locked or
    changed.
    """
    with reporting(None):
        if every is not None and not every <= _LONGEST:
            message = f"--every takes seconds from 1 to {_LONGEST:.0f}, not {every:g}"
            raise InputError(message, key="--every", remedy="for example --every 10")
        from balrogutils.context import Installation
        from balrogutils.overview.status import known_tiles, status_of
        from balrogutils.overview.statustext import page, text
        from balrogutils.products import writing_text

        contexts = known_tiles(Installation.load(parse_overrides(overrides)), tiles)
        while True:
            found = status_of(contexts)
            go_on = every is not None and found.running
            if html is not None:
                writing_text(html.absolute(), page(found, every if go_on else None))
            click.echo(json.dumps(found.document(), indent=1) if as_json else text(found))
            if not go_on or every is None:
                return
            time.sleep(every)


@click.command()
@click.argument("tiles", nargs=-1, metavar="[TILE]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@_overrides
def doctor(tiles: tuple[str, ...], as_json: bool, overrides: tuple[str, ...]) -> None:
    """Look for everything a run would fail for: tools, packages, disk, database, archive, configuration, inputs.

    Without a tile, only at what all runs need. Give the settings of the run with --set. Ends with status 1 when a run
    would fail.
    """
    with reporting(None):
        from balrogutils.overview.doctor import Level, diagnose

        found = diagnose(parse_overrides(overrides), tiles)
        if as_json:
            click.echo(json.dumps([one.document() for one in found], indent=1))
        else:
            for one in found:
                click.echo(f"{one.level:<8} {one.subject:<9} {one.what}")
                if one.remedy:
                    click.echo(f"{'':<18} remedy: {one.remedy}")
            problems = sum(one.level is Level.PROBLEM for one in found)
            click.echo("A run can begin." if not problems else f"A run would fail: {problems} to mend.")
        if any(one.level is Level.PROBLEM for one in found):
            sys.exit(1)


@click.command()
@click.argument("tiles", nargs=-1, required=True, metavar="TILE...")
@click.option(
    "--tiles", "number", type=click.IntRange(1, _MOST), help="Tiles of the campaign, for which those named stand."
)
@click.option("--cores", default=1, show_default=True, type=click.IntRange(1, _MOST), help="Cores of the run.")
@click.option(
    "--injections", type=click.IntRange(1, _MOST), help="Objects injected into a tile, where none is planned yet."
)
@click.option("--calibrate", is_flag=True, help="First measure this machine on what is made of these tiles.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@_overrides
def plan(
    tiles: tuple[str, ...],
    number: int | None,
    cores: int,
    injections: int | None,
    calibrate: bool,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Predict CPU, wall time, memory and disk of tiles from counts, and compare with what is done.

    Counts are those of the manifests, or else of the archive. Give the settings of the run with --set.
    """
    with reporting(None):
        from balrogutils.compiled import fits_are_compiled
        from balrogutils.context import Installation
        from balrogutils.overview import plan as work

        installation = Installation.load(parse_overrides(overrides))
        contexts = [installation.context(tile) for tile in dict.fromkeys(tiles)]
        scales = work.calibrate(contexts) if calibrate else work.scales_at(contexts[0])
        found = work.make_plan(
            contexts,
            tiles=number,
            cores=cores,
            injections=injections,
            scales=scales,
            compiled=fits_are_compiled(),
        )
        click.echo(json.dumps(found.document(), indent=1) if as_json else str(found))
