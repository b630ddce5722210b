"""One run from arguments to catalogues."""

from __future__ import annotations

import logging
import shlex
import shutil
import time
from argparse import Namespace
from collections.abc import Sequence

from balrogutils.errors import InputError
from balrogutils.oneimage import extraction
from balrogutils.oneimage.arguments import Known, packaged
from balrogutils.oneimage.drawing import draw_all
from balrogutils.oneimage.images import prepare, read_frame, write_simulated
from balrogutils.oneimage.inputs import resolve
from balrogutils.oneimage.results import Outcome, outcome, write_results
from balrogutils.oneimage.tree import Tree
from balrogutils.oneimage.truth import columns, write_association, write_truth
from balrogutils.products import writing_text
from balrogutils.psf import PSFEx
from balrogutils.randomness import seed32
from balrogutils.rules.defaults import defaults
from balrogutils.rules.parsing import Parser
from balrogutils.rules.pyconfig import PyConfig, for_user
from balrogutils.rules.sampling import Sample, component_fluxes, sample

__all__ = ["run"]

_log = logging.getLogger(__name__)


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
    config.own_arguments(args, native)
    return args, config


def _tell(args: Namespace, tree: Tree, argv: list[str], more: Sequence[str] = ()) -> None:
    """Write down what was asked for, and how to ask for the same again."""
    repeat = ["balrog", "image", *argv, *more, "--seed", str(args.seed), "--noiseseed", str(args.noiseseed)]
    lines = [f"command: {shlex.join(['balrog', 'image', *argv])}", f"the same again: {shlex.join(repeat)}", ""]
    lines += [f"{key}: {value}" for key, value in sorted(vars(args).items())]
    writing_text(tree.args_log, "\n".join(lines) + "\n")
    shutil.copyfile(args.pyconfig, tree.logs / args.pyconfig.name)


def run(known: Known, parser: Parser, argv: list[str]) -> Tree:
    """Sample, draw and measure, once or in several realizations.

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
    several = args.realizations > 1
    tree.make(several=several)
    tree.clear([args.image, args.weight, args.psf, args.detimage, args.detweight, args.detpsf])
    _tell(args, tree, argv)
    outcomes = []
    for number in range(args.realizations):
        one, own = tree, args
        if several:
            one, own = tree.realization(number), _realization(args, number)
            one.make()
            _tell(own, one, argv, ["--outdir", str(one.root), "--realizations", "1"])
        outcomes.append(_one(own, config, one))
    found = [one for one in outcomes if one is not None]
    if found:
        write_results(tree, found)
    _log.info("done in %.1f s", time.monotonic() - began)
    return tree


def _realization(args: Namespace, number: int) -> Namespace:
    """Return the arguments of one realization: the first has the seeds that were given, the others their own."""
    seeds = {name: getattr(args, name) for name in ("seed", "noiseseed")}
    if number:
        seeds = {name: seed32(seed, "realization", number) for name, seed in seeds.items()}
    return Namespace(**{**vars(args), **seeds})


def _one(args: Namespace, config: PyConfig, tree: Tree) -> Outcome | None:
    """Make one realization; return what was found of it, where that can be told."""
    config.seed = args.seed
    users = for_user(args)
    drawn_from = sample(config, users, defaults(args, packaged("catalog")))
    given: dict[str, object] = {}
    config.sextractor_configs(Namespace(**vars(users)), given)
    keywords = extraction.user_keywords(given)
    _log.info("%d objects sampled, components of each: %d", len(drawn_from), drawn_from.profiles)
    _images_and_catalogs(args, tree, drawn_from, keywords)
    return None if args.imageonly or args.nodraw or args.noassoc else outcome(args, tree)


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
