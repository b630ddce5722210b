"""The ``balrog`` command."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from balrogutils import __version__
from balrogutils.errors import BalrogError, InputError

__all__ = ["main"]

# One thread for every numerical library: jobs run side by side, and results must not depend on the core count.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


def _parse_overrides(pairs: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes key=value, not {pair!r}")
        try:
            overrides[key.strip()] = yaml.safe_load(value) if value else None
        except yaml.YAMLError as error:
            raise InputError(f"--set {pair!r} has a value that cannot be read", key=key) from error
    return overrides


def _end(number: int, frame: Any) -> None:
    sys.exit(128 + number)


def _tidy_when_ended() -> None:
    """Let a job that is told to end remove its scratch and its unfinished files first."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is signal.SIG_DFL:
            signal.signal(name, _end)


@contextmanager
def _reporting(log: Path | None) -> Iterator[None]:
    """Send messages to the log (everything) and the terminal (errors, or everything without a log)."""
    _tidy_when_ended()
    root = logging.getLogger("balrogutils")
    root.setLevel(logging.INFO)
    handler: logging.Handler
    if log is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(log, encoding="utf-8")
        except OSError as error:
            click.echo(f"balrog: the log cannot be written: {error}", err=True)
            sys.exit(InputError.exit_status)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    root.addHandler(handler)
    try:
        yield
    except BalrogError as error:
        root.error("%s", error)
        if log is not None:
            click.echo(f"balrog: {error}\n  log: {log}", err=True)
        sys.exit(error.exit_status)
    except (OSError, MemoryError) as error:
        # A full disk, a directory that is none, too little memory: the machine's affair. What led to it is in the log.
        told = str(error) or "not enough memory"
        if log is not None:
            root.exception("the machine refuses: %s", told)
            click.echo(f"balrog: the machine refuses: {told}\n  log: {log}", err=True)
        else:
            root.error("the machine refuses: %s", told)
        sys.exit(BalrogError.exit_status)
    except Exception:
        # A bug of ours: the traceback belongs in the log and on the terminal.
        root.exception("unexpected error")
        raise
    finally:
        root.removeHandler(handler)
        handler.close()


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
                "--realization", "-r", metavar="R", help="Work on this realization instead of the base run."
            )(function)
        function = click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of etc/pipeline.yaml."
        )(function)
        function = click.option("--log", type=click.Path(path_type=Path), help="Write messages to this file.")(function)
        return click.argument("tile")(function)

    return decorate


def _context(tile: str, realization: str | None, overrides: tuple[str, ...]) -> Any:
    from balrogutils.context import Installation

    return Installation.load(_parse_overrides(overrides)).context(tile, realization)


def _chosen(context: Any, bands: tuple[str, ...]) -> tuple[str, ...]:
    for band in bands:
        if band not in context.bands:
            raise InputError(
                f"the tile has no band {band}",
                tile=context.tile,
                band=band,
                remedy="choose from " + " ".join(context.bands),
            )
    return bands or context.bands


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="balrog")
def main() -> None:
    """Source injection for imaging surveys, block by block.

    Each command does one block of one tile; snakemake runs them all in order:

        snakemake --cores 16 tile=DES0239+0216
    """


@main.command()
@_tile_command(realizations=False, bands=True)
def prep(tile: str, bands: tuple[str, ...], overrides: tuple[str, ...], log: Path | None) -> None:
    """Block 1: query the archive, fetch single-epoch images, null their weights."""
    with _reporting(log):
        context = _context(tile, None, overrides)
        from balrogutils.blocks import prep as block

        for band in _chosen(context, bands):
            block.prep(context, band)


@main.command()
@_tile_command(realizations=True, bands=True)
def coadd(
    tile: str, realization: str | None, bands: tuple[str, ...], overrides: tuple[str, ...], log: Path | None
) -> None:
    """Blocks 2 and 16, first part: one coadd a band."""
    with _reporting(log):
        context = _context(tile, realization, overrides)
        from balrogutils.blocks import coadd as block

        for band in _chosen(context, bands):
            block.coadd(context, band)


@main.command()
@_tile_command(realizations=True, bands=True)
@click.option("--image-only", is_flag=True, help="Make the detection image and stop.")
def detect(
    tile: str,
    realization: str | None,
    bands: tuple[str, ...],
    image_only: bool,
    overrides: tuple[str, ...],
    log: Path | None,
) -> None:
    """Blocks 2 and 16, second part: detection image (when no band is named), then catalogues and segmentation."""
    with _reporting(log):
        context = _context(tile, realization, overrides)
        from balrogutils.blocks import catalog, coadd

        if image_only or not bands:
            coadd.detection(context)
        if not image_only:
            for band in _chosen(context, bands):
                catalog.catalog(context, band)


@main.command()
@_tile_command(realizations=True, bands=True)
def meds(
    tile: str, realization: str | None, bands: tuple[str, ...], overrides: tuple[str, ...], log: Path | None
) -> None:
    """Blocks 4 and 32: one MEDS file a band."""
    with _reporting(log):
        context = _context(tile, realization, overrides)
        from balrogutils.blocks import meds as block

        for band in _chosen(context, bands):
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
    with _reporting(log):
        first = _context(tile, realization, overrides)
        from balrogutils.blocks import inject as block

        for name in (realization,) if realization is not None else first.realizations:
            context = first.at(name)
            if plan_only or not (bands or truth_only):
                block.plan(context)
            if not (plan_only or truth_only):
                for band in _chosen(context, bands):
                    block.inject(context, band)
            if truth_only or not (bands or plan_only):
                block.truth(context)


@main.command()
@_tile_command(realizations=True, bands=False)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Processes to use; the results do not depend on it.",
)
def sof(tile: str, realization: str | None, workers: int, overrides: tuple[str, ...], log: Path | None) -> None:
    """Block 64: single-object fits in all bands and epochs at once."""
    with _reporting(log):
        context = _context(tile, realization, overrides)
        from balrogutils.blocks import sof as block

        block.sof(context, workers)


@main.command()
@_tile_command(realizations=True, bands=False)
def match(tile: str, realization: str | None, overrides: tuple[str, ...], log: Path | None) -> None:
    """Block 1024: truth matched to measurement. All realizations when none is named."""
    with _reporting(log):
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
    with _reporting(log):
        from balrogutils.blocks.archive import build
        from balrogutils.context import Installation

        installation = Installation.load(_parse_overrides(overrides))
        known = installation.campaigns
        chosen = known.campaigns[campaign] if campaign in known.campaigns else known.of_tile(campaign)
        build(installation.site, chosen, workers)


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
    with _reporting(None):
        from balrogutils.context import Installation
        from balrogutils.report.summary import summarize, table

        installation = Installation.load(_parse_overrides(overrides))
        for tile in tiles:
            context = installation.context(tile)
            target = json_path or installation.site.base / "run" / f"summary_{tile}.json"
            click.echo(table(summarize(context, target)))


if __name__ == "__main__":
    main()
