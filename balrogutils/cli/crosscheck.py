"""The command that compares two engines: ``balrog crosscheck``."""

from __future__ import annotations

import json
import sys

import click

from balrogutils.cli.reporting import parse_overrides, reporting

__all__ = ["crosscheck"]

# Images of metacal are as exact as GalSim draws them, which bright objects notice.
_LIMITS = {"sof": 0.05, "mcal": 0.2}


@click.command()
@click.argument("tile")
@click.option("--realization", "-r", metavar="R", help="This realization; the base run when not given.")
@click.option(
    "--objects",
    default="20",
    show_default=True,
    metavar="N|FIRST-LAST",
    help="How many objects, spread over the tile, or which, by their places in the MEDS files.",
)
@click.option("--fit", "kind", type=click.Choice(["sof", "mcal"]), default="sof", show_default=True, help="Which fit.")
@click.option(
    "--limit",
    type=click.FloatRange(0.0, min_open=True),
    help="Largest difference allowed, in standard errors [default: 0.05; mcal 0.2].",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of etc/pipeline.yaml.")
def crosscheck(
    tile: str,
    realization: str | None,
    objects: str,
    kind: str,
    limit: float | None,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Fit the same objects with this package and with ngmix, which must be installed, and show both.

    Writes nothing. Ends with status 0 when they agree within the limit, 1 when not.
    """
    with reporting(None):
        from balrogutils.blocks.crosscheck import crosscheck as block
        from balrogutils.context import Installation

        context = Installation.load(parse_overrides(overrides)).context(tile, realization)
        found = block(context, kind, objects, _LIMITS[kind] if limit is None else limit)
        click.echo(json.dumps(found.document(), indent=1) if as_json else str(found))
        if not found.sound:
            sys.exit(1)
