"""The arguments of ``balrog image``: those of the original, long and short, with its defaults (O 1.a)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balrogutils.errors import InputError
from balrogutils.layout import Site
from balrogutils.rules.defaults import COSMOS
from balrogutils.rules.parsing import Parser

__all__ = ["NATIVE", "Known", "first_look", "native_parser", "packaged"]

_EXAMPLE = "inputs/decam_galaxy_r_1exp"
_PACKAGED = {
    "outdir": "run/image",
    "image": f"{_EXAMPLE}/example.fits",
    "weight": f"{_EXAMPLE}/example.weight.fits",
    "psf": f"{_EXAMPLE}/example.psf",
    "catalog": COSMOS,
    "pyconfig": "inputs/pyconfig/02_catalogue.py",
    "sexconfig": "etc/image_sex.config",
    "sexparam": "etc/image_sex.param",
    "nosimsexparam": "etc/image_sex_nosim.param",
    "sexconv": "etc/gauss_2.0_3x3.conv",
}


def packaged(name: str) -> Path:
    """Return the file that comes with the package for an argument; ``catalog`` is the COSMOS table of the defaults."""
    return Site.from_environment(None).base / _PACKAGED[name]


def _file(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise InputError(f"there is no home directory for {text}", remedy="write the whole path") from error


def _native() -> dict[str, list[tuple[tuple[str, ...], dict[str, Any]]]]:
    """Return the arguments by group: names, and keywords of `argparse.ArgumentParser.add_argument`."""
    file: dict[str, Any] = {"type": _file, "metavar": "FILE"}
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    flag: dict[str, Any] = {"action": "store_true"}
    levels = {"choices": ["n", "v", "vv"], "default": "n"}
    return {
        "images": [
            (("-o", "--outdir"), {"type": _file, "metavar": "DIR", "help": "output directory [run/image]"}),
            (("-i", "--image"), {**file, "help": "image to draw into [the bundled example]"}),
            (("-ie", "--imageext"), {**number, "default": 0, "help": "its HDU, from 0 on [0]"}),
            (("-w", "--weight"), {**file, "help": "weight map [the file of the image]"}),
            (("-we", "--weightext"), {**number, "help": "its HDU [0; the one after the image in the same file]"}),
            (("-p", "--psf"), {**file, "help": "PSFEx model, or a stamp; must be given with --image"}),
            (("-di", "--detimage"), {**file, "help": "detection image; nothing is drawn into it [the image]"}),
            (("-die", "--detimageext"), {**number, "help": "its HDU [0; that of the image in the same file]"}),
            (("-dw", "--detweight"), {**file, "help": "weight map of the detection image [its file]"}),
            (("-dwe", "--detweightext"), {**number, "help": "its HDU, as --weightext"}),
            (("-dp", "--detpsf"), {**file, "help": "PSFEx model of the detection image [--psf]"}),
            (("-nwr", "--noweightread"), {**flag, "help": "hand the weight file to SExtractor as it is"}),
            (
                ("--weighttype",),
                {
                    "choices": ["invvar", "var", "rms"],
                    "default": "invvar",
                    "help": "what weight maps hold: inverse variance, variance or rms [invvar]",
                },
            ),
            (("-x1", "--xmin"), {**number, "default": 1, "help": "first column used, from 1 on [1]"}),
            (("-x2", "--xmax"), {**number, "help": "last column used [the last]"}),
            (("-y1", "--ymin"), {**number, "default": 1, "help": "first row used, from 1 on [1]"}),
            (("-y2", "--ymax"), {**number, "help": "last row used [the last]"}),
        ],
        "objects": [
            (("-pc", "--pyconfig"), {**file, "help": "rules file [inputs/pyconfig/02_catalogue.py]"}),
            (("-n", "--ngal"), {**number, "default": 50, "help": "number of objects [50]"}),
            (
                ("-z", "--zeropoint"),
                {"default": "SEXMGZPT", "help": "zero point, a number or a card of the image [SEXMGZPT, else 30]"},
            ),
            (
                ("-g", "--gain"),
                {"default": "GAIN", "help": "gain in e-/ADU, a number or a card of the image [GAIN, else 1]"},
            ),
            (("-s", "--seed"), {**number, "help": "seed of the sampling [the clock]"}),
            (("-nse", "--noiseseed"), {**number, "help": "seed of the noise [the clock]"}),
            (("-is", "--indexstart"), {**number, "default": 0, "help": "first balrog_index [0]"}),
            (("-nd", "--nodraw"), {**flag, "help": "draw nothing, write no truth catalogue"}),
            (("--realizations",), {**number, "default": 1, "help": "runs, each with seeds of its own [1]"}),
            (("--parquet",), {**flag, "help": "write the truth catalogue as Parquet too"}),
            (("--workers",), {**number, "default": 1, "help": "processes to draw with; changes no product [1]"}),
        ],
        "SExtractor": [
            (("-io", "--imageonly"), {**flag, "help": "do not run SExtractor"}),
            (("-nn", "--nonosim"), {**flag, "help": "do not measure the image before injection"}),
            (("-na", "--noassoc"), {**flag, "help": "measure everything, not the objects' positions alone"}),
            (("-sex", "--sexpath"), {"default": "sex", "help": "the program [sex, or source-extractor]"}),
            (("-sc", "--sexconfig"), {**file, "help": "its configuration [etc/image_sex.config]"}),
            (("-sp", "--sexparam"), {**file, "help": "its columns [etc/image_sex.param: with a Sersic fit]"}),
            (("-nsp", "--nosimsexparam"), {**file, "help": "columns before injection [without the fit]"}),
            (("-sn", "--sexnnw"), {**file, "help": "its neural network [the one installed with it]"}),
            (("-sf", "--sexconv"), {**file, "help": "its filter [etc/gauss_2.0_3x3.conv]"}),
            (
                ("-ct", "--catfitstype"),
                {"choices": ["ldac", "1.0"], "default": "ldac", "help": "kind of catalogue: in HDU 2 or 1 [ldac]"},
            ),
            (
                ("-nas", "--sim_noassoc_seg"),
                {**file, "help": "a third run, without association, that writes this segmentation map"},
            ),
            (("--sim_noassoc_seg_param_file",), {**file, "help": "columns of the third run [those before injection]"}),
            (
                ("-syscmd", "--systemcmd"),
                {"choices": ["popen", "system"], "default": "popen", "help": "accepted; makes no difference"},
            ),
            (("-rt", "--retrycmd"), {**flag, "help": "run SExtractor up to three times if it fails"}),
            (("-ush", "--useshell"), {**flag, "help": "accepted; makes no difference"}),
        ],
        "the run": [
            (("-c", "--clean"), {**flag, "help": "remove the images in the end"}),
            (
                ("-sv", "--stdverbosity"),
                {
                    "choices": ["q", *levels["choices"]],
                    "default": "n",
                    "help": "on the terminal: q errors, n warnings too, v what is done, vv all [n]",
                },
            ),
            (("-lv", "--logverbosity"), {**levels, "help": "the same for run.log.txt [n]"}),
            (
                ("-ft", "--fulltraceback"),
                {**flag, "help": "errors in the rules file quote all lines, not its own alone"},
            ),
        ],
    }


NATIVE = tuple(name for group in _native().values() for names, _ in group for name in names)
"""Every name of every argument."""


def native_parser(prog: str) -> Parser:
    """Return a parser of the native arguments.

    Parameters
    ----------
    prog : str
        What the user typed.
    """
    parser = Parser(
        prog=prog,
        description="Draw galaxies into one image and measure them: truth and measured catalogues.",
        epilog="Without arguments the bundled example is run.",
        allow_abbrev=False,
    )
    for title, arguments in _native().items():
        group = parser.add_argument_group(title)
        for names, keywords in arguments:
            group.add_argument(*names, **keywords)
    return parser


@dataclass
class Known:
    """What has to be known before anything else: where the logs go and how much they hold, and the rules file."""

    outdir: Path
    pyconfig: Path
    stdverbosity: str = "n"
    logverbosity: str = "n"
    fulltraceback: bool = False
    help: bool = False


_FIRST = {
    **{"-o": "outdir", "-pc": "pyconfig", "-sv": "stdverbosity", "-lv": "logverbosity"},
    **{f"--{name}": name for name in ("outdir", "pyconfig", "stdverbosity", "logverbosity")},
}


def first_look(argv: list[str]) -> Known:
    """Read what has to be known first; everything else may be the user's own.

    Parameters
    ----------
    argv : list of str
        The command line.

    Returns
    -------
    Known
        What is not given, or not among the choices, has its default: errors are told when there is a log to tell
        them in.

    Notes
    -----
    `argparse` would take ``-p`` for the beginning of ``-pc`` as long as it does not know both.
    """
    given: dict[str, str] = {}
    for number, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if word in _FIRST and number + 1 < len(argv):
            given[_FIRST[word]] = argv[number + 1]
        elif equals and name in _FIRST and name.startswith("--"):
            given[_FIRST[name]] = value
    std, log = given.get("stdverbosity"), given.get("logverbosity")
    return Known(
        outdir=_file(given["outdir"]) if "outdir" in given else packaged("outdir"),
        pyconfig=_file(given["pyconfig"]) if "pyconfig" in given else packaged("pyconfig"),
        stdverbosity=std if std in ("q", "n", "v", "vv") else "n",
        logverbosity=log if log in ("n", "v", "vv") else "n",
        fulltraceback=bool({"-ft", "--fulltraceback"} & set(argv)),
        help=bool({"-h", "--help"} & set(argv)),
    )
