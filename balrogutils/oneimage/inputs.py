"""The arguments made whole: defaults filled in, input files looked at before anything is done."""

from __future__ import annotations

import logging
import math
import shutil
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import fitsio

from balrogutils.errors import InputError, ProductError, ToolError
from balrogutils.oneimage.arguments import packaged
from balrogutils.oneimage.psfs import read_psf
from balrogutils.rules.codes import bad_input
from balrogutils.tools import executable

__all__ = ["compressed", "resolve", "subsampled"]

_log = logging.getLogger(__name__)

# Last digit of the codes 10x, 11x and 12x by argument (O 1.c).
_MISSING = {"image": 101, "weight": 102, "psf": 103, "detimage": 105, "detweight": 106, "detpsf": 103}
_NUMBER = {"image": 1, "weight": 2, "psf": 3, "detimage": 4, "detweight": 5, "detpsf": 6}
_DIMENSIONS = 2
# What a header holds, and what doubles tell apart: balrog_index is one.
_DIGITS = {"seed": 18, "noiseseed": 18, "indexstart": 15}


def resolve(args: Namespace) -> None:
    """Fill in the defaults of the native arguments, in place, and check the files they name.

    Parameters
    ----------
    args : argparse.Namespace
        As parsed; afterwards ``zeropoint`` and ``gain`` are numbers, and the bounds lie in the image.

    Raises
    ------
    InputError
        With the code of the original, when an input is missing or is not what it should be.
    """
    _files(args)
    shape = _check_images(args)
    _bounds(args, shape)
    header = _header(args.image, args.imageext)
    args.zeropoint = _number(args.zeropoint, header, "zeropoint", 30.0)
    args.gain = _number(args.gain, header, "gain", 1.0)
    if not args.gain > 0:
        raise InputError(f"the gain is {args.gain:g} e-/ADU", key="--gain", remedy="give a positive number")
    for name, least in (("ngal", 1), ("workers", 1), ("realizations", 1)):
        if getattr(args, name) < least:
            text = f"--{name} is {getattr(args, name)}"
            raise InputError(text, key=f"--{name}", remedy=f"give a whole number from {least} on")
    for name, digits in _DIGITS.items():
        if abs(getattr(args, name) or 0) >= 10**digits:
            text = f"--{name} is {getattr(args, name)}"
            raise InputError(text, key=f"--{name}", remedy=f"give a whole number of at most {digits} digits")
    if args.noweightread and args.weighttype != "invvar":
        text = f"a weight map of {args.weighttype} must be read to be turned into inverse variance"
        raise InputError(text, key="--weighttype", remedy="leave out --noweightread")
    # Two numbers, and told in args.log.txt and in the header of the truth catalogue.
    clock = time.time_ns()
    args.seed = args.seed if args.seed is not None else clock // 1_000_000_000
    args.noiseseed = args.noiseseed if args.noiseseed is not None else clock // 1_000_000_000 + 1
    if not args.imageonly:
        _sextractor(args)


def subsampled(args: Namespace) -> bool:
    """Return whether a part of the image is used."""
    rows, cols = _shape(args.image, args.imageext)
    return (args.xmin, args.xmax, args.ymin, args.ymax) != (1, cols, 1, rows)


def compressed(file: Path, ext: int) -> bool:
    """Return whether an image HDU is tile-compressed, which SExtractor cannot read."""
    with fitsio.FITS(str(file)) as fits:
        return bool(fits[ext].is_compressed())


def _files(args: Namespace) -> None:
    """Fill in which files and HDUs are used."""
    example = args.image is None or args.image == packaged("image")
    if not example and args.psf is None:
        text = f"an image was given, {args.image.name}, but no PSF model"
        raise bad_input(104, text, "give --psf: there is no sensible default", file=args.image, key="--psf")
    if example:
        args.image = args.image or packaged("image")
        args.weight = args.weight or packaged("weight")
        args.psf = args.psf or packaged("psf")
    args.weight = args.weight or args.image
    if args.weightext is None:
        args.weightext = args.imageext + 1 if args.weight == args.image else 0
    own = args.detimage is not None and args.detimage != args.image
    args.detimage = args.detimage or args.image
    if args.detimageext is None:
        args.detimageext = 0 if own else args.imageext
    if args.detweight is None:
        args.detweight = args.detimage if own else args.weight
    if args.detweightext is None:
        same_file = args.detimageext + 1 if args.detweight == args.detimage else 0
        args.detweightext = args.weightext if args.detweight == args.weight else same_file
    args.detpsf = args.detpsf or args.psf


def _check_images(args: Namespace) -> tuple[int, int]:
    """Look at every input file; return the shape of the image."""
    names = ["image", "weight", "psf"]
    names += [name for name in ("detimage", "detweight", "detpsf") if getattr(args, name) != getattr(args, name[3:])]
    for name in names:
        file = getattr(args, name)
        where = {"file": file, "key": f"--{name}"}
        if not file.is_file():
            raise bad_input(_MISSING[name], f"the {_words(name)} does not exist", "correct its name", **where)
        try:
            with fitsio.FITS(str(file)) as fits:
                count = len(fits)
        except OSError as error:
            text = f"the {_words(name)} is not a FITS file"
            raise bad_input(110 + _NUMBER[name], text, "give a FITS file", **where) from error
        if name.endswith("psf"):
            try:
                read_psf(file)
            except ProductError as error:
                text = f"the {_words(name)} is {error.message}"
                raise bad_input(
                    120 + _NUMBER[name], text, "give a .psf file as PSFEx writes it, or a stamp", **where
                ) from error
            continue
        ext = getattr(args, f"{name}ext")
        if not 0 <= ext < count:
            text = f"the {_words(name)} has no HDU {ext}, only 0 to {count - 1}"
            raise bad_input(120 + _NUMBER[name], text, f"correct --{name}ext", file=file, key=f"--{name}ext")
        _shape(file, ext, 133 if name.endswith("weight") else 131)
    shape = _shape(args.image, args.imageext)
    for name in ("weight", "detimage", "detweight"):
        other = _shape(getattr(args, name), getattr(args, f"{name}ext"))
        if other != shape:
            text = f"the {_words(name)} is {other[1]} x {other[0]} pixels, the image {shape[1]} x {shape[0]}"
            raise bad_input(
                135, text, "give one of the same size", file=getattr(args, name), key=f"--{name}, --{name}ext"
            )
    return shape


def _words(name: str) -> str:
    kind = {"image": "image", "weight": "weight map", "psf": "PSF model"}
    return kind[name] if name in kind else f"{kind[name[3:]]} for detection"


def _shape(file: Path, ext: int, code: int = 131) -> tuple[int, int]:
    """Return rows and columns of an image HDU."""
    with fitsio.FITS(str(file)) as fits:
        hdu = fits[ext]
        held = hdu.get_exttype() == "IMAGE_HDU" and hdu.has_data()
        dims: list[int] = list(hdu.get_dims()) if held else []
    if len(dims) != _DIMENSIONS:
        what = f"an image of {len(dims)} axes" if len(dims) else "no image"
        text = f"HDU {ext} holds {what}: NAXIS1 and NAXIS2 are needed"
        raise bad_input(code, text, "name the HDU with --imageext and --weightext, from 0 on", file=file)
    return int(dims[0]), int(dims[1])


def _bounds(args: Namespace, shape: tuple[int, int]) -> None:
    """Bring the bounds into the image."""
    for axis, size, code in (("x", shape[1], 136), ("y", shape[0], 137)):
        low, high = getattr(args, f"{axis}min"), getattr(args, f"{axis}max")
        high = size if high is None else high
        for name, value in ((f"{axis}min", low), (f"{axis}max", high)):
            inside = min(max(value, 1), size)
            if inside != value and not (name.endswith("max") and value == -1):
                _log.warning("--%s %d lies outside the image: %d is taken", name, value, inside)
        low, high = min(max(low, 1), size), size if high == -1 else min(max(high, 1), size)
        if low > high:
            text = f"--{axis}min {low} is larger than --{axis}max {high}"
            raise bad_input(code, text, "exchange them", file=args.image, key=f"--{axis}min")
        setattr(args, f"{axis}min", low)
        setattr(args, f"{axis}max", high)
    whole = (args.xmin, args.xmax, args.ymin, args.ymax) == (1, shape[1], 1, shape[0])
    if whole:
        return
    dual = any(getattr(args, f"det{name}") != getattr(args, name) for name in ("image", "weight", "psf"))
    for given, words in ((dual, "a detection image"), (args.noweightread, "--noweightread")):
        if given:
            text = f"{words} cannot be used together with a part of the image"
            raise InputError(text, key="--xmin", remedy="cut all files before, or use the whole image")


def _header(file: Path, ext: int) -> Any:
    with fitsio.FITS(str(file)) as fits:
        return fits[ext].read_header()


def _number(given: Any, header: Any, name: str, default: float) -> float:
    """Return a number that was given, or that of the card that was named."""
    try:
        value = float(given)
    except ValueError:
        card = header.get(given)
        if isinstance(card, (int, float)) and not isinstance(card, bool) and math.isfinite(card):
            return float(card)
        _log.warning("the image has no card %s with a number for --%s: %g is taken", given, name, default)
        return default
    if not math.isfinite(value):
        raise InputError(f"--{name} is {given}", key=f"--{name}", remedy="give a number or the name of a card")
    return value


def _sextractor(args: Namespace) -> None:
    """Find SExtractor and the files it is given."""
    program = shutil.which(str(Path(args.sexpath).expanduser()) if "/" in args.sexpath else args.sexpath)
    if program is None and args.sexpath in ("sex", "source-extractor", "sextractor"):
        try:
            program = executable("sextractor")
        except ToolError as error:
            raise bad_input(140, error.message, error.remedy or "", key="--sexpath") from error
    if program is None:
        text = f"SExtractor is not at {args.sexpath}"
        raise bad_input(140, text, "correct --sexpath, or leave it out", key="--sexpath")
    args.sexpath = program
    for name in ("sexconfig", "sexparam", "nosimsexparam", "sexconv"):
        setattr(args, name, getattr(args, name) or packaged(name))
    args.sim_noassoc_seg_param_file = args.sim_noassoc_seg_param_file or args.nosimsexparam
    if args.sexnnw is None:
        share = Path(program).resolve().parents[1] / "share"
        found = [share / name / "default.nnw" for name in ("source-extractor", "sextractor")]
        args.sexnnw = next((file for file in found if file.is_file()), None)
    for name in ("sexconfig", "sexparam", "nosimsexparam", "sexconv", "sexnnw", "sim_noassoc_seg_param_file"):
        file = getattr(args, name)
        if file is not None and not file.is_file():
            text = "a file for SExtractor does not exist"
            raise InputError(text, file=file, key=f"--{name}", remedy="correct its name")
