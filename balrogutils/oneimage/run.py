"""One run from arguments to catalogues."""

from __future__ import annotations

import logging
import shlex
import shutil
import time
from argparse import Namespace
from pathlib import Path

import numpy as np

from balrogutils.errors import InputError
from balrogutils.oneimage import extraction
from balrogutils.oneimage.arguments import Known, Parser, packaged
from balrogutils.oneimage.drawing import component_fluxes, draw_all
from balrogutils.oneimage.images import prepare, read_frame, write_simulated
from balrogutils.oneimage.inputs import resolve
from balrogutils.oneimage.tree import Tree
from balrogutils.oneimage.truth import columns, write_association, write_truth
from balrogutils.products import writing_text
from balrogutils.psf import PSFEx
from balrogutils.rules.language import Column, Constant, Function
from balrogutils.rules.pyconfig import PyConfig
from balrogutils.rules.sampling import Defaults, Sample, sample

__all__ = ["defaults", "run"]

_log = logging.getLogger(__name__)


def defaults(args: Namespace) -> Defaults:
    """Return what parameters without a rule are drawn from (O 1.b, step 8).

    Parameters
    ----------
    args : argparse.Namespace
        Resolved arguments.

    Notes
    -----
    Sizes, indices and magnitudes come from the rows of one COSMOS table, drawn jointly.
    """
    cosmos, told = packaged("catalog"), "drawn from the COSMOS table of the package"
    bounds = {"x": (args.xmin, args.xmax), "y": (args.ymin, args.ymax)}
    rules = {
        **{name: Function(np.random.uniform, [*ends, args.ngal]) for name, ends in bounds.items()},
        **{name: Constant(value) for name, value in (("g1", 0.0), ("g2", 0.0), ("magnification", 1.0))},
        **{"beta": Constant(0.0), "axisratio": Constant(1.0)},
        "sersicindex": Column(cosmos, 1, "SERSIC_INDEX"),
        "halflightradius": Column(cosmos, 1, "HALF_LIGHT_RADIUS"),
        "magnitude": Column(cosmos, 1, "IMAG"),
    }
    words = {name: f"uniform from {ends[0]} to {ends[1]} is taken" for name, ends in bounds.items()}
    words |= {name: f"{rule.value} is taken" for name, rule in rules.items() if isinstance(rule, Constant)}
    return Defaults(rules, {name: words.get(name, f"it is {told}") for name in rules})


def _for_user(args: Namespace) -> Namespace:
    """Return the arguments as functions of the user's get them: a copy, with names of files as text."""
    return Namespace(**{key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()})


def _parse(known: Known, parser: Parser, argv: list[str]) -> tuple[Namespace, PyConfig]:
    """Return all arguments, native and the user's own, and the rules file."""
    config = PyConfig(known.pyconfig, full=known.fulltraceback)
    native = {action.dest for action in parser._actions}
    config.custom_args(parser)
    args = parser.parse_args(argv)
    for name in ("outdir", "pyconfig"):
        # What was taken for granted before the command line could be read whole.
        if getattr(args, name) not in (None, getattr(known, name)):
            text = f"--{name} {getattr(args, name)} was not understood at first"
            raise InputError(text, key=f"--{name}", remedy=f"write it once, apart: --{name} {getattr(args, name)}")
        setattr(args, name, getattr(known, name))
    resolve(args)
    config.seed = args.seed
    copied = _for_user(args)
    config.custom_parse_args(copied)
    for key, value in vars(copied).items():
        if key not in native:
            setattr(args, key, value)
    return args, config


def _tell(args: Namespace, tree: Tree, argv: list[str]) -> None:
    """Write down what was asked for, and how to ask for the same again."""
    repeat = ["balrog", "image", *argv, "--seed", str(args.seed), "--noiseseed", str(args.noiseseed)]
    lines = [f"command: {shlex.join(['balrog', 'image', *argv])}", f"the same again: {shlex.join(repeat)}", ""]
    lines += [f"{key}: {value}" for key, value in sorted(vars(args).items())]
    writing_text(tree.args_log, "\n".join(lines) + "\n")
    shutil.copyfile(args.pyconfig, tree.logs / args.pyconfig.name)


def run(known: Known, parser: Parser, argv: list[str]) -> Tree:
    """Sample, draw and measure.

    Parameters
    ----------
    known : Known
        What was known first; its logs are open.
    parser : Parser
        Of the native arguments; gets the user's own.
    argv : list of str
        The command line.

    Returns
    -------
    Tree
        The output tree.

    Raises
    ------
    BalrogError
        When an input, an argument or a rule is wrong (status 2), or SExtractor fails (status 1).
    """
    began = time.monotonic()
    args, config = _parse(known, parser, argv)
    tree = Tree(args.outdir, args.image, args.psf)
    tree.make()
    tree.clear([args.image, args.weight, args.psf, args.detimage, args.detweight, args.detpsf])
    _tell(args, tree, argv)
    users = _for_user(args)
    drawn_from = sample(config, users, defaults(args))
    given: dict[str, object] = {}
    config.sextractor_configs(Namespace(**vars(users)), given)
    keywords = extraction.user_keywords(given)
    _log.info("%d objects sampled, components of each: %d", len(drawn_from), drawn_from.profiles)
    _images_and_catalogs(args, tree, drawn_from, keywords)
    _log.info("done in %.1f s", time.monotonic() - began)
    return tree


def _images_and_catalogs(args: Namespace, tree: Tree, sampled: Sample, keywords: dict[str, str]) -> None:
    frame = read_frame(args)
    before, after = prepare(args, tree, frame)
    fluxes = component_fluxes(sampled.components["magnitude"], args.zeropoint)
    if not args.imageonly:
        extraction.keep_files(args, tree)
    vector = columns(sampled, fluxes, args, None)
    if not (args.imageonly or args.nonosim):
        if not args.noassoc:
            write_association(tree.association("nosim"), vector)
        extraction.extract(args, tree, before, "nosim", vector, keywords)
    if args.nodraw:
        write_simulated(args, tree, frame, None)
    else:
        drawn = draw_all(sampled, fluxes, frame, PSFEx.read(tree.psf_model), args)
        write_simulated(args, tree, frame, drawn.added)
        vector = columns(sampled, fluxes, args, drawn)
        write_truth(tree, vector, sampled, args)
    if not args.imageonly:
        if not args.noassoc:
            write_association(tree.association("sim"), vector)
        extraction.extract(args, tree, after, "sim", vector, keywords)
        if args.sim_noassoc_seg is not None:
            extraction.segment(args, tree, after, keywords)
    if args.clean:
        for file in tree.images.iterdir():
            if file.is_symlink() or file.suffix in (".fits", ".psf"):
                file.unlink()
