"""``balrog images``: the images of a list, one job each, and what became of them."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from balrogutils.cli.reporting import telling

if TYPE_CHECKING:
    from balrogutils.oneimage.imagelist import ImageList

__all__ = ["images", "open_list"]


def open_list(config: dict[str, Any]) -> ImageList:
    """Return the list of images that Snakemake's command line names; end the program when there is none."""
    from balrogutils.errors import BalrogError, ConfigError
    from balrogutils.oneimage.imagelist import ImageList

    try:
        if "images" not in config:
            remedy = "snakemake --cores 4 -s rules/image.smk --config images=LIST.csv"
            raise ConfigError("no list of images is named", key="images", remedy=remedy)
        return ImageList.read(Path(str(config["images"])), Path(str(config.get("outdir", "run/images"))))
    except BalrogError as error:
        click.echo(f"balrog: {error}", err=True)
        sys.exit(error.exit_status)


@click.command()
@click.argument("listed", metavar="LIST", type=click.Path(path_type=Path))
@click.option("--outdir", type=click.Path(path_type=Path), default=Path("run/images"), help="[run/images]")
@click.option("--name", help="Make this image of the list.")
def images(listed: Path, outdir: Path, name: str | None) -> None:
    """Make one image of a list with the arguments of `balrog image`, or tell what became of all.

    All of them, side by side: snakemake --cores 4 -s rules/image.smk --config images=LIST
    """
    from balrogutils.cli.image import run_log
    from balrogutils.oneimage.arguments import first_look, native_parser
    from balrogutils.oneimage.imagelist import ImageList, counts, report
    from balrogutils.products import Step

    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter("balrog: %(message)s"))
    terminal.setLevel(logging.WARNING)
    with telling([terminal]):
        found = ImageList.read(listed, outdir)
        if name is None:
            click.echo(report(found))
            return
        found.require(name)
        argv = [*found.words[name], "--outdir", str(found.outdir(name).absolute())]
        with found.alone(name):
            known = first_look(argv)
            with telling([run_log(known)]):
                from balrogutils.oneimage.run import run

                given = native_parser("balrog image").parse_known_args(argv)[0]
                seeds = {"seed": given.seed, "noiseseed": given.noiseseed}
                config = {"words": list(found.words[name])}
                with Step(found.manifest(name), "image", about={"name": name}, config=config, seeds=seeds) as step:
                    # One that is not there is told by the run, as `balrog image` tells it.
                    step.read(*(file for file in found.inputs[name] if file.is_file()))
                    tree = run(known, native_parser("balrog image"), argv)
                    made = (file for file in tree.root.rglob("*") if file.is_file())
                    step.wrote(*sorted(file for file in made if tree.logs.name not in file.parts))
                    step.count(**counts(tree))
