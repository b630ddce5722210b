"""The commands the DES tile pipeline's users know, with their arguments; each runs Snakemake (P 3.0, P 6.1)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click

from balrogutils.context import Installation
from balrogutils.errors import BalrogError, InputError
from balrogutils.graph import Job, needs
from balrogutils.layout import FIT_CONFIGS, MODE_BITS

__all__ = ["MedsBase", "balrog_base", "balrog_bfd", "mcal_megamixer", "mof_megamixer", "sof_megamixer"]

_OPTIONS = {"help_option_names": ["-h", "--help"]}


class MedsBase:
    """The directory users name: a MEDS_DATA, or a realization that looks like one.

    Parameters
    ----------
    text : str
        ``<MEDS_DATA>`` or ``<MEDS_DATA>/<medsconf>/balrog_images/<R>``, relative to `start` or absolute.
    start : Path
        Where a relative one starts; the old scripts took the directory above the checkout.

    Attributes
    ----------
    meds_data : Path
        The MEDS_DATA it lies in.
    realization : str or None
        The realization it is.
    """

    def __init__(self, text: str, start: Path) -> None:
        path = Path(os.path.normpath(start / Path(text).expanduser()))
        inside = re.fullmatch(r"(?P<data>.+)/[^/]+/balrog_images/(?P<realization>\d+)", str(path))
        self.meds_data = Path(inside["data"]) if inside else path
        self.realization = inside["realization"] if inside else None


def _overrides(**values: str | int | None) -> dict[str, str | int]:
    return {key: value for key, value in values.items() if value is not None}


def _as_given(name: str) -> str:
    """Return a configuration file's absolute path when it is one from here; a bare name is looked up in its places."""
    return str(Path(name).expanduser().absolute()) if Path(name).expanduser().is_file() else name


def _snakemake(
    base: Path, cores: int, targets: list[str], overrides: Mapping[str, str | int], meds_data: Path
) -> NoReturn:
    """Become Snakemake in the checkout: its status is ours, and whoever ends this process ends the run."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), *targets]
    command += ["--config", *(f"{key}={value}" for key, value in overrides.items())]
    environment = {**os.environ, "BALROG_BASE": str(base), "MEDS_DATA": str(meds_data)}
    environment.pop("MEDS_DIR", None)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    os.chdir(base)
    os.execve(sys.executable, command, environment)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except BalrogError as error:
        click.echo(f"balrogutils: {error}", err=True)
        sys.exit(error.exit_status)


def _place(installation: Installation) -> MedsBase:
    site = installation.site
    return MedsBase(os.environ.get("MEDS_DATA") or os.environ.get("MEDS_DIR") or str(site.meds_data), site.base.parent)


@click.command(context_settings=_OPTIONS)
@click.option("-c", "--confs", "desmeds", required=True, metavar="FILE", help="MEDS configuration (desmeds YAML).")
@click.option("-t", "--tile", required=True, metavar="TILE", help="Tile name.")
@click.option("-g", "--gconf", "galsim", required=True, metavar="NAME", help="Injection configuration (GalSim YAML).")
@click.option("-n", "--ncpu", "cores", type=click.IntRange(1), help="Cores to use; the number of bands by default.")
@click.option("-m", "--mode", required=True, type=click.IntRange(1), help="Sum of mode bits.")
def balrog_base(desmeds: str, tile: str, galsim: str, cores: int | None, mode: int) -> None:
    """Blocks of one tile: 1 prep, 2 coadd and catalogue, 4 MEDS, 8 injection, 16 and 32 the same for injected data.

    MEDS_DATA names the directory of the products.
    """
    with _refusing():
        overrides = _overrides(mode=mode, desmeds_config=_as_given(desmeds), galsim_config=_as_given(galsim))
        installation = Installation.load(overrides)
        place = _place(installation)
        if place.realization is not None:
            raise InputError(
                "MEDS_DATA is a realization, and only fits run on one by itself",
                file=place.meds_data,
                key="MEDS_DATA",
                remedy="give the directory above, and mode 16 or 32",
            )
        context = installation.context(tile)
        context.desmeds_file  # noqa: B018 (refused here when it is not there, whatever the mode)
        cores = cores or len(context.bands)
        _snakemake(installation.site.base, cores, [f"tile={tile}"], overrides, place.meds_data)


def _megamixer(kind: str) -> click.Command:
    """Return the command that runs one kind of fit on a base run or a realization."""

    @click.command(kind, context_settings=_OPTIONS)
    @click.option("-c", "--confs", "config", required=True, metavar="FILE", help=f"{kind.upper()} configuration.")
    @click.option("-t", "--tile", required=True, metavar="TILE", help="Tile name.")
    @click.option("-n", "--ncpu", "cores", required=True, type=click.IntRange(1), help="Cores to use.")
    def command(config: str, tile: str, cores: int) -> None:
        """Fit one tile: the base run, or the realization that MEDS_DATA names."""
        with _refusing():
            _fit(kind, config, tile, cores)

    return command


sof_megamixer = _megamixer("sof")
mof_megamixer = _megamixer("mof")
mcal_megamixer = _megamixer("mcal")


@click.command(context_settings=_OPTIONS)
@click.option("-c", "--confs", "config", metavar="FILE", help="BFD configuration; the campaign's by default.")
@click.option("-t", "--tile", required=True, metavar="TILE", help="Tile name.")
@click.option("-n", "--ncpu", "cores", type=click.IntRange(1), help="Cores to use; the number of bands by default.")
def balrog_bfd(config: str | None, tile: str, cores: int | None) -> None:
    """Measure BFD moments of one tile: the base run, or the realization that MEDS_DATA names."""
    with _refusing():
        _fit("bfd", config, tile, cores)


_NEEDED = {"meds": "a MEDS file", "coadd": "a coadd", "mof": "a MOF catalogue"}


def _fit(kind: str, config: str | None, tile: str, cores: int | None) -> None:
    named = {f"{FIT_CONFIGS[kind]}_config": None if config is None else _as_given(config)}
    overrides = _overrides(mode=MODE_BITS[kind], **named)
    first = Installation.load(overrides)
    cores = cores or len(first.context(tile).bands)
    overrides |= _overrides(fit_workers=cores)
    place = _place(first)
    overrides |= _overrides(realizations=place.realization)
    environment = {**os.environ, "MEDS_DATA": str(place.meds_data)}
    environment.pop("MEDS_DIR", None)
    context = Installation.load(overrides, environment).context(tile, place.realization)
    job = Job(kind, context)
    context.fit_file(kind)  # refused here when it is not there
    for need in needs(job)[0]:
        if not need.manifest.is_file():
            raise InputError(
                f"the fits need {_NEEDED[need.step]} that is not there; block {need.bit} makes it",
                tile=tile,
                band=need.band,
                file=need.product,
                remedy=f"run mode {need.bit} first",
            )
    _snakemake(context.site.base, cores, [str(job.manifest)], overrides, place.meds_data)
