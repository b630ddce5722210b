"""The commands that look at injections already made: ``balrog audit`` and ``balrog replay``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from balrogutils.cli.reporting import parse_overrides, reporting

__all__ = ["audit", "replay"]

_overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of etc/pipeline.yaml."
)


@click.command()
@click.argument("tile")
@click.option("--realization", "-r", metavar="R", help="Only this realization; all of the run's when not given.")
@click.option("--redraw", is_flag=True, help="Draw every object again from the truth, and compare every pixel.")
@_overrides
def audit(tile: str, realization: str | None, redraw: bool, overrides: tuple[str, ...]) -> None:
    """Compare injected and base images with the truth tables, from the files alone.

    Ends with status 0 when the pixels are as the truth says, 1 when not.
    """
    with reporting(None):
        from balrogutils.blocks import audit as block
        from balrogutils.context import Installation

        first = Installation.load(parse_overrides(overrides)).context(tile, realization)
        sound = True
        for name in (realization,) if realization is not None else first.realizations:
            found = block.audit(first.at(name), redraw)
            click.echo(str(found))
            sound &= found.sound
        if not sound:
            sys.exit(1)


@click.command()
@click.argument("tile")
@click.option("--realization", "-r", metavar="R", required=True, help="The realization.")
@click.option("--bal-id", type=int, required=True, help="The object, as in the truth catalogue.")
@click.option("--chip", required=True, metavar="CHIP", help="The chip, as in the truth table by chip.")
@click.option("--output", type=click.Path(path_type=Path), help="The FITS file; the picture goes beside it.")
@_overrides
def replay(
    tile: str, realization: str, bal_id: int, chip: str, output: Path | None, overrides: tuple[str, ...]
) -> None:
    """Draw one injected object again, alone, as it was drawn on one chip: FITS and PNG."""
    with reporting(None):
        from balrogutils.blocks.replay import replay as draw
        from balrogutils.context import Installation

        context = Installation.load(parse_overrides(overrides)).context(tile, realization)
        for file in draw(context, bal_id, chip, output):
            click.echo(str(file))
