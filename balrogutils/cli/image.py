"""``balrog image`` (= ``bin/balrog.py``): Balrog on one image, with the arguments of the original."""

from __future__ import annotations

import logging
import sys

import click

from balrogutils.cli.reporting import telling
from balrogutils.errors import BalrogError

__all__ = ["image", "run_log"]

_LEVELS = {"q": logging.ERROR, "n": logging.WARNING, "v": logging.INFO, "vv": logging.DEBUG}


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def image(arguments: tuple[str, ...]) -> None:
    """Balrog on one image: draw galaxies into it by rules of your own, and measure them.

    Without arguments the bundled example is run; --help lists the arguments.
    """
    from balrogutils.oneimage.arguments import first_look, native_parser

    argv = list(arguments)
    parser = native_parser("balrog image")
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter("balrog: %(message)s"))
    terminal.setLevel(logging.ERROR)
    with telling([terminal]):
        known = first_look(argv)
        terminal.setLevel(_LEVELS[known.stdverbosity])
        if known.help:
            _help(parser, known)
            return
        from balrogutils.oneimage.tree import alone

        with alone(known.outdir), telling([run_log(known)]):
            from balrogutils.oneimage.run import run

            run(known, parser, argv)


def _help(parser: object, known: object) -> None:
    """Show all arguments; those of the rules file as far as it can be read."""
    from balrogutils.oneimage.arguments import Known
    from balrogutils.rules.parsing import Parser
    from balrogutils.rules.pyconfig import PyConfig

    assert isinstance(parser, Parser)
    assert isinstance(known, Known)
    parser.add_argument_group(f"of {known.pyconfig.name}")
    try:
        PyConfig(known.pyconfig).custom_args(parser)
    except BalrogError as error:
        logging.getLogger(__name__).warning("%s", error)
    click.echo(parser.format_help())


def run_log(known: object) -> logging.Handler:
    """Return the handler of run.log.txt, which is open before anything else can go wrong."""
    from balrogutils.oneimage.arguments import Known, packaged
    from balrogutils.oneimage.tree import Tree, make_directory

    assert isinstance(known, Known)
    tree = Tree(known.outdir, packaged("image"), packaged("psf"))
    make_directory(tree.root, 201)
    make_directory(tree.logs, 202)
    handler = logging.FileHandler(tree.run_log, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    handler.setLevel(_LEVELS[known.logverbosity])
    return handler
