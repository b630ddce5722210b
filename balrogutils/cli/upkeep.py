"""The commands that look after tiles already made: ``balrog verify`` and ``balrog repair``."""

from __future__ import annotations

import json
import sys

import click

from balrogutils.cli.reporting import parse_overrides, reporting

__all__ = ["repair", "verify"]

_tiles = click.argument("tiles", nargs=-1, required=True, metavar="TILE...")
_overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of etc/pipeline.yaml."
)


@click.command()
@_tiles
@click.option("--deep", is_flag=True, help="Read the files: SHA-256 and FITS checksums, not size and time alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@_overrides
def verify(tiles: tuple[str, ...], deep: bool, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Compare every product of a tile with its manifest: base run, realizations and fits.

    Ends with status 0 when everything that has been made is good, 1 when something is damaged or suspect.
    """
    with reporting(None):
        from balrogutils.context import Installation
        from balrogutils.upkeep import verify as work

        installation = Installation.load(parse_overrides(overrides))
        contexts = [installation.context(tile) for tile in dict.fromkeys(tiles)]
        reports = []
        for context in contexts:
            reports.append(work.verify(context, deep=deep))
            if not as_json:
                click.echo(reports[-1])
        if as_json:
            click.echo(json.dumps([report.document() for report in reports], indent=1))
        if not all(report.sound for report in reports):
            sys.exit(1)


@click.command()
@_tiles
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@_overrides
def repair(tiles: tuple[str, ...], dry_run: bool, overrides: tuple[str, ...]) -> None:
    """Remove exactly the damaged products of a tile, so that the next run makes them again.

    Reads every file, as verify --deep does. Products adopted from elsewhere are never removed. Ends with status 1 when
    something damaged had to stay.
    """
    with reporting(None):
        from balrogutils.context import Installation
        from balrogutils.upkeep import repair as work

        installation = Installation.load(parse_overrides(overrides))
        contexts = [installation.context(tile) for tile in dict.fromkeys(tiles)]
        refused = False
        for context in contexts:
            done = work.repair(context, dry_run=dry_run, settings=overrides)
            click.echo(done)
            refused |= bool(done.refused)
        if refused:
            sys.exit(1)
