"""The ``balrog`` command."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from balrogutils import __version__
from balrogutils.cli.adopt import adopt
from balrogutils.cli.campaign import campaign
from balrogutils.cli.crosscheck import crosscheck
from balrogutils.cli.explain import explain
from balrogutils.cli.image import image
from balrogutils.cli.images import images
from balrogutils.cli.injection import audit, replay
from balrogutils.cli.merging import merge
from balrogutils.cli.overview import doctor, plan, status
from balrogutils.cli.pages import report
from balrogutils.cli.reporting import chosen_bands, parse_overrides, reporting
from balrogutils.cli.upkeep import clean, repair, restore, verify
from balrogutils.errors import InputError, did_you_mean
from balrogutils.runlock import TOKEN, die_with_parent, join_run

__all__ = ["main"]

# One thread for every numerical library, whatever was said: jobs run side by side, results must not depend on the core
# count, and Snakemake gives a job as many threads as it has processes.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"


def _tile_command(realizations: bool, bands: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a subcommand the arguments every block has."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        if bands:
            function = click.option(
                "--band",
                "bands",
                multiple=True,
                metavar="BAND",
                help="Only this band; may be repeated. All bands when not given.",
            )(function)
        if realizations:
            function = click.option(
                "--realization",
                "-r",
                metavar="R",
                help="Only this realization; the base run when not given, where the block has one.",
            )(function)
        function = click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of etc/pipeline.yaml."
        )(function)
        function = click.option("--log", type=click.Path(path_type=Path), help="Write messages to this file.")(function)
        return click.argument("tile")(function)

    return decorate


def _context(tile: str, realization: str | None, overrides: tuple[str, ...]) -> Any:
    if TOKEN in os.environ:
        # Before the imports: a job that has no lock yet must not outlive its run either.
        die_with_parent()
    from balrogutils.context import Installation

    context = Installation.load(parse_overrides(overrides)).context(tile, realization)
    join_run(context.lock)
    return context


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="balrog")
def main() -> None:
    """Source injection for imaging surveys, block by block.

    Each command does one block of one tile; snakemake runs them all in order:

        snakemake --cores 16 tile=DES0239+0216
    """


_workers = click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Processes to use; the results do not depend on it.",
)


@main.command()
@_tile_command(realizations=False, bands=True)
def prep(tile: str, bands: tuple[str, ...], overrides: tuple[str, ...], log: Path | None) -> None:
    """Block 1: query the archive, fetch single-epoch images, null their weights."""
    with reporting(log):
        context = _context(tile, None, overrides)
        from balrogutils.blocks import prep as block

        for band in chosen_bands(context, bands):
            block.prep(context, band)


@main.command()
@_tile_command(realizations=True, bands=True)
def coadd(
    tile: str, realization: str | None, bands: tuple[str, ...], overrides: tuple[str, ...], log: Path | None
) -> None:
    """Blocks 2 and 16, first part: one coadd a band."""
    with reporting(log):
        context = _context(tile, realization, overrides)
        from balrogutils.blocks import coadd as block
        from balrogutils.blocks.temporary import make_ready

        make_ready("coadd", context, chosen_bands(context, bands))
        for band in chosen_bands(context, bands):
            block.coadd(context, band)


@main.command()
@_tile_command(realizations=True, bands=True)
@click.option("--image-only", is_flag=True, help="Make the detection image and stop.")
@click.option("--maps-only", is_flag=True, help="Join the PSF maps of all bands and stop.")
def detect(
    tile: str,
    realization: str | None,
    bands: tuple[str, ...],
    image_only: bool,
    maps_only: bool,
    overrides: tuple[str, ...],
    log: Path | None,
) -> None:
    """Blocks 2 and 16, second part: detection image and PSF maps (when no band is named), then catalogues."""
    with reporting(log):
        context = _context(tile, realization, overrides)
        if maps_only or not (image_only or bands):
            from balrogutils.blocks import psfmap

            psfmap.join(context)
        if maps_only:
            return
        from balrogutils.blocks import catalog, coadd

        if image_only or not bands:
            coadd.detection(context)
        if not image_only:
            for band in chosen_bands(context, bands):
                catalog.catalog(context, band)


@main.command()
@_tile_command(realizations=True, bands=True)
def meds(
    tile: str, realization: str | None, bands: tuple[str, ...], overrides: tuple[str, ...], log: Path | None
) -> None:
    """Blocks 4 and 32: one MEDS file a band."""
    with reporting(log):
        context = _context(tile, realization, overrides)
        from balrogutils.blocks import meds as block
        from balrogutils.blocks.temporary import make_ready

        make_ready("meds", context, chosen_bands(context, bands))
        for band in chosen_bands(context, bands):
            block.meds(context, band)


@main.command()
@_tile_command(realizations=True, bands=True)
@click.option("--plan-only", is_flag=True, help="Only choose what to inject where.")
@click.option("--truth-only", is_flag=True, help="Only write the truth tables of bands already injected.")
def inject(
    tile: str,
    realization: str | None,
    bands: tuple[str, ...],
    plan_only: bool,
    truth_only: bool,
    overrides: tuple[str, ...],
    log: Path | None,
) -> None:
    """Block 8: put known objects into every single-epoch image of a realization.

    All realizations of the run when none is named. With --band, the plan must have been made.
    """
    with reporting(log):
        first = _context(tile, realization, overrides)
        from balrogutils.blocks import inject as block
        from balrogutils.blocks.temporary import make_ready

        for name in (realization,) if realization is not None else first.realizations:
            context = first.at(name)
            if plan_only or not (bands or truth_only):
                make_ready("plan", context, [None])
                block.plan(context)
            if not (plan_only or truth_only):
                make_ready("inject", context, chosen_bands(context, bands))
                for band in chosen_bands(context, bands):
                    block.inject(context, band)
            if truth_only or not (bands or plan_only):
                block.truth(context)


@main.command()
@_tile_command(realizations=True, bands=False)
@_workers
def sof(tile: str, realization: str | None, workers: int, overrides: tuple[str, ...], log: Path | None) -> None:
    """Block 64: single-object fits in all bands and epochs at once."""
    with reporting(log):
        context = _context(tile, realization, overrides)
        from balrogutils.blocks import sof as block

        block.sof(context, workers)


@main.command()
@_tile_command(realizations=True, bands=False)
@_workers
def mof(tile: str, realization: str | None, workers: int, overrides: tuple[str, ...], log: Path | None) -> None:
    """Block 128: fits of groups of neighbours, all bands and epochs at once, and images of the fitted scene."""
    with reporting(log):
        context = _context(tile, realization, overrides)
        from balrogutils.blocks import mof as block

        block.mof(context, workers)


@main.command()
@_tile_command(realizations=True, bands=False)
@_workers
def mcal(tile: str, realization: str | None, workers: int, overrides: tuple[str, ...], log: Path | None) -> None:
    """Block 256: metacal, shapes of every object on images sheared by a known amount."""
    with reporting(log):
        context = _context(tile, realization, overrides)
        from balrogutils.blocks import mcal as block

        block.mcal(context, workers)


@main.command()
@_tile_command(realizations=True, bands=False)
@_workers
def bfd(tile: str, realization: str | None, workers: int, overrides: tuple[str, ...], log: Path | None) -> None:
    """Block 512: BFD moments of every object, with their covariances."""
    with reporting(log):
        context = _context(tile, realization, overrides)
        from balrogutils.blocks import bfd as block

        block.bfd(context, workers)


@main.command()
@_tile_command(realizations=True, bands=False)
def match(tile: str, realization: str | None, overrides: tuple[str, ...], log: Path | None) -> None:
    """Block 1024: truth matched to measurement. All realizations when none is named."""
    with reporting(log):
        first = _context(tile, realization, overrides)
        from balrogutils.blocks import match as block

        for name in (realization,) if realization is not None else first.realizations:
            block.match(first.at(name))


@main.command()
@click.argument("campaign")
@click.option(
    "--workers",
    default=lambda: os.cpu_count() or 1,
    type=click.IntRange(1),
    help="Processes to use; all cores by default.",
)
@click.option("--log", type=click.Path(path_type=Path), help="Write messages to this file.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of etc/pipeline.yaml.")
def archive(campaign: str, workers: int, overrides: tuple[str, ...], log: Path | None) -> None:
    """Build the embedded archive of CAMPAIGN (or of the campaign of a tile) where it is absent."""
    with reporting(log):
        from balrogutils.blocks.archive import build
        from balrogutils.context import Installation

        installation = Installation.load(parse_overrides(overrides))
        known = installation.campaigns.campaigns
        tiles = {tile: one for one in known.values() for tile in one.tiles}
        if campaign not in known and campaign not in tiles:
            text = f"there is no campaign or tile {campaign!r}: {did_you_mean(campaign, [*known, *tiles])}"
            raise InputError(text, remedy="see etc/campaigns.yaml")
        chosen = known[campaign] if campaign in known else tiles[campaign]
        build(installation.site, chosen, workers, installation.pipeline.tool_timeout)


@main.command()
@click.argument("tiles", nargs=-1, required=True)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    help="Keep the table here too [default: run/summary_<tile>.json].",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of etc/pipeline.yaml.")
def summary(tiles: tuple[str, ...], json_path: Path | None, overrides: tuple[str, ...]) -> None:
    """Say what has been made of a tile, block by block, from its manifests."""
    with reporting(None):
        from balrogutils.context import Installation
        from balrogutils.report.summary import summarize, table

        installation = Installation.load(parse_overrides(overrides))
        for tile in tiles:
            context = installation.context(tile)
            target = json_path or installation.site.base / "run" / f"summary_{tile}.json"
            click.echo(table(summarize(context, target)))


main.add_command(adopt)
main.add_command(audit)
main.add_command(campaign)
main.add_command(clean)
main.add_command(crosscheck)
main.add_command(doctor)
main.add_command(explain)
main.add_command(image)
main.add_command(images)
main.add_command(merge)
main.add_command(plan)
main.add_command(replay)
main.add_command(report)
main.add_command(status)
main.add_command(verify)
main.add_command(repair)
main.add_command(restore)

if __name__ == "__main__":
    main()
