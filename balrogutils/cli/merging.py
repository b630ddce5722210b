"""The command that makes one catalogue of many tiles: ``balrog merge``."""

from __future__ import annotations

from pathlib import Path

import click

from balrogutils.cli.reporting import parse_overrides, reporting
from balrogutils.errors import ProductError
from balrogutils.tilelist import tile_names

__all__ = ["merge"]


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.argument("tiles", nargs=-1, metavar="[TILE]...")
@click.option("--list", "listed", type=click.Path(path_type=Path), help="A text file of tiles, one a line.")
@click.option(
    "--realization",
    "-r",
    "realizations",
    multiple=True,
    metavar="R",
    help="Only this realization; may be repeated. All of the run's when not given.",
)
@click.option(
    "--from",
    "places",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="MEDS_DATA",
    help="Another run's directory; may be repeated. The environment's MEDS_DATA when not given.",
)
@click.option("--no-hdf5", is_flag=True, help="Parquet alone, no HDF5 file of metacal.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of etc/pipeline.yaml.")
def merge(
    output: Path,
    tiles: tuple[str, ...],
    listed: Path | None,
    realizations: tuple[str, ...],
    places: tuple[Path, ...],
    no_hdf5: bool,
    overrides: tuple[str, ...],
) -> None:
    """Merge the matched and detection catalogues of tiles and realizations into the directory OUTPUT.

    Parquet data sets of both, and metacal as HDF5. Ends with status 0 when everything that was asked for is in and
    nothing came twice, 1 when something is missing or came twice; then it says what.
    """
    with reporting(None):
        from balrogutils.blocks import merge as work

        chosen = {"realizations": ",".join(realizations)} if realizations else {}
        settings = {**parse_overrides(overrides), **chosen}
        named = (*tiles, *(tile_names(listed).values() if listed is not None else ()))
        done = work.merge(output, named, settings, places, hdf5=not no_hdf5)
        click.echo(str(done))
        if not done.whole:
            raise ProductError(
                "not all that was named is merged, or a part of it came twice",
                file=done.out,
                remedy="make what is left out (block 1024), name each run once, and merge again; the rest is whole",
            )
