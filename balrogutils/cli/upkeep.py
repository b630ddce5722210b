"""The commands that look after tiles already made: ``balrog verify``, ``repair``, ``restore`` and ``clean``."""

from __future__ import annotations

import json
import sys

import click

from balrogutils.cli.reporting import parse_overrides, reporting
from balrogutils.errors import BalrogError

__all__ = ["clean", "repair", "restore", "verify"]

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


@click.command()
@_tiles
@_overrides
def restore(tiles: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Make the images of a tile again that were let go when they had been read (keep), byte for byte.

    Base run and realizations; nothing else is made again. Give the settings of the run with --set.
    """
    with reporting(None):
        from balrogutils.blocks.temporary import restore_all
        from balrogutils.context import Installation

        installation = Installation.load(parse_overrides(overrides))
        for context in [installation.context(tile) for tile in dict.fromkeys(tiles)]:
            with context.lock:
                count = restore_all(context)
            click.echo(f"{context.tile}: {count} images made again" if count else f"{context.tile}: none was let go")


def _confirmed() -> bool:
    try:
        return click.confirm("Remove these?", err=True)
    except click.Abort as error:
        # Interrupted, or nobody is there to ask.
        raise BalrogError("nothing was removed: there was no answer", remedy="answer y, or give --yes") from error


@click.command()
@_tiles
@click.option("--remove", "names", multiple=True, metavar="CLASS", help="Remove this class; may be repeated.")
@click.option("--realization", "-r", "realizations", multiple=True, metavar="R", help="Only of this realization.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@_overrides
def clean(
    tiles: tuple[str, ...],
    names: tuple[str, ...],
    realizations: tuple[str, ...],
    yes: bool,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Say what products take on disk by class and what makes them again; with --remove, remove classes.

    Asks before it removes anything. What was adopted from elsewhere is never removed. Ends with status 1 when something
    had to stay.
    """
    with reporting(None):
        from balrogutils.context import Installation
        from balrogutils.upkeep import clean as work

        installation = Installation.load(parse_overrides(overrides))
        contexts = [installation.context(tile) for tile in dict.fromkeys(tiles)]
        found = [work.survey(context, names, realizations or None) for context in contexts]
        if as_json:
            click.echo(json.dumps([one.document() for one in found], indent=1))
        else:
            click.echo("\n\n".join(map(str, found)))
        if not names:
            return
        if not yes and not _confirmed():
            return
        for context in contexts:
            work.clean(context, names, realizations or None)
        if any(part.kept for one in found for part in one.classes):
            sys.exit(1)
