"""``balrog adopt``: a tile that was made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from balrogutils.cli.reporting import chosen_bands, parse_overrides, reporting

__all__ = ["adopt"]


@click.command()
@click.argument("tile")
@click.option(
    "--band",
    "bands",
    multiple=True,
    metavar="BAND",
    help="Only this band, and the detection image; may be repeated. All bands when not given.",
)
@click.option(
    "--moved",
    multiple=True,
    metavar="OLD=NEW",
    help="The lists call a directory OLD that is NEW now: rewrite the lists. May be repeated.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of etc/pipeline.yaml; campaign=NAME for a tile that no campaign lists.",
)
@click.option("--log", type=click.Path(path_type=Path), help="Write messages to this file.")
def adopt(
    tile: str, bands: tuple[str, ...], moved: tuple[str, ...], overrides: tuple[str, ...], log: Path | None
) -> None:
    """Take over a base tile that DESDM or the old scripts made, so that later blocks start from it.

    The tile lies in <MEDS_DATA>/<medsconf>/TILE in the layout the DES pipeline gives it. Every file that later blocks
    read is checked first. Then each step that is whole (prep, coadd, catalogue, MEDS; band by band) gets a manifest
    marked as adopted, and is not made again. What is damaged is listed, and then nothing is written. Realizations are
    not adopted.
    """
    with reporting(log):
        from balrogutils.context import Installation
        from balrogutils.upkeep.adopt import adopt as take
        from balrogutils.upkeep.moved import Moved

        context = Installation.load(parse_overrides(overrides)).context(tile)
        take(context, chosen_bands(context, bands), Moved.parse(moved))
