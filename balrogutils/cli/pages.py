"""The command that makes reports: ``balrog report``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from balrogutils.cli.reporting import parse_overrides, reporting
from balrogutils.errors import InputError
from balrogutils.runlock import TOKEN, die_with_parent, join_run

__all__ = ["report"]


@click.command()
@click.argument("tiles", nargs=-1, metavar="[TILE]...")
@click.option(
    "--merged",
    type=click.Path(path_type=Path),
    metavar="DIRECTORY",
    help="Of a campaign instead: the catalogues that balrog merge wrote into this directory.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="DIRECTORY",
    help="With --merged, where the report goes [default: DIRECTORY_report].",
)
@click.option("--log", type=click.Path(path_type=Path), help="Write messages to this file.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of etc/pipeline.yaml.")
def report(
    tiles: tuple[str, ...], merged: Path | None, output: Path | None, log: Path | None, overrides: tuple[str, ...]
) -> None:
    """Make the report of each TILE over its realizations, or of a campaign: an HTML file to open from disk.

    Of all realizations that are matched, or of those that --set realizations=... names.
    """
    with reporting(log):
        if TOKEN in os.environ:
            # Before the imports: a job that has no lock yet must not outlive its run either.
            die_with_parent()
        if bool(tiles) == (merged is not None):
            raise InputError("name tiles, or merged catalogues with --merged", remedy="balrog report TILE")
        if output is not None and merged is None:
            raise InputError("the report of a tile lies with its products", key="--output", remedy="leave it out")
        pages = _tiles(tiles, overrides) if merged is None else [_campaign(merged, output)]
        if log is None:
            for page in pages:
                click.echo(str(page))


def _tiles(tiles: tuple[str, ...], overrides: tuple[str, ...]) -> list[Path]:
    from balrogutils.context import Installation

    settings = parse_overrides(overrides)
    installation = Installation.load(settings)
    pages = []
    for tile in dict.fromkeys(tiles):
        context = installation.context(tile)
        join_run(context.lock)
        from balrogutils.blocks import report as block

        pages.append(block.report(context, everything="realizations" not in settings))
    return pages


def _campaign(merged: Path, output: Path | None) -> Path:
    from balrogutils.blocks.campaign import campaign_report

    return campaign_report(merged, output)
