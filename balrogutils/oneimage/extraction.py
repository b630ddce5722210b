"""SExtractor on one image, before and after injection: association, configuration kept, truth vector named."""

from __future__ import annotations

import logging
import os
import re
import shutil
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

import fitsio

from balrogutils.coadd.sextractor import check_log
from balrogutils.errors import ProductError, ToolError
from balrogutils.fitsfile import read_table
from balrogutils.oneimage.images import Place, Places
from balrogutils.oneimage.tree import Tree
from balrogutils.oneimage.truth import Column
from balrogutils.products import temporary_name, writing_text
from balrogutils.tools import run_tool

__all__ = ["CONTROLLED", "extract", "keep_files", "segment", "user_keywords"]

_log = logging.getLogger(__name__)

_CONTROLLED_WORDS = """
IMAGE WEIGHT_IMAGE CATALOG_NAME CATALOG_TYPE C PARAMETERS_NAME STARNNW_NAME FILTER_NAME MAG_ZEROPOINT PSF_NAME
"""
CONTROLLED = frozenset(_CONTROLLED_WORDS.split())
"""SExtractor's keywords that follow from the arguments."""

_RADIUS = 2.0  # pixels (O 1.b, step 19)
_TRIES = 3
_FILES = ("sexconfig", "sexparam", "nosimsexparam", "sexnnw", "sexconv")


def user_keywords(given: Mapping[str, object]) -> dict[str, str]:
    """Return the user's keywords that may be handed on; the others are told of.

    Parameters
    ----------
    given : mapping
        What ``SextractorConfigs`` left.
    """
    kept = {}
    for key, value in given.items():
        name = str(key).upper()
        if name in CONTROLLED or name.startswith("ASSOC"):
            _log.warning("SextractorConfigs sets %s, which follows from the arguments: it is left out", name)
        else:
            kept[name] = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return kept


def _kept(file: Path, tree: Tree) -> Path:
    """Return the copy of one of SExtractor's files, under a name that it can read."""
    return tree.sexconfig / re.sub(r"[^\w.+-]", "_", file.name, flags=re.ASCII)


def keep_files(args: Namespace, tree: Tree) -> None:
    """Copy SExtractor's files into the output tree."""
    for name in _FILES:
        file = getattr(args, name)
        if file is not None and file.resolve() != _kept(file, tree).resolve():
            shutil.copyfile(file, _kept(file, tree))


def _lines(file: Path, pattern: str) -> tuple[list[str], bool]:
    """Return the lines of a file that do not match, and whether others were left out."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [line for line in lines if not re.search(pattern, line)]
    return kept, len(kept) != len(lines)


def _config(args: Namespace, tree: Tree, run: str) -> Path:
    """Return the configuration without what speaks of association: the copy itself, where nothing does."""
    kept, changed = _lines(args.sexconfig, "ASSOC")
    if not changed:
        return _kept(args.sexconfig, tree)
    writing_text(tree.config(run), "\n".join(kept) + "\n")
    return tree.config(run)


def _parameters(source: Path, target: Path, vector: int) -> None:
    """Write the columns, with a truth vector of so many values first; 0 for none."""
    kept, _ = _lines(source, r"VECTOR_ASSOC\(")
    writing_text(target, "\n".join([*([f"VECTOR_ASSOC({vector})"] if vector else []), *kept]) + "\n")


def _pair(seen: Place, measured: Place, tree: Tree) -> str:
    return ",".join(f"{_relative(place.file, tree)}[{place.ext}]" for place in (seen, measured))


def _relative(file: Path, tree: Tree) -> str:
    """Return a name from the output directory on, where SExtractor runs: that directory's own may hold blanks."""
    return os.path.relpath(file, tree.root)


def _command(args: Namespace, tree: Tree, places: Places, config: Path, parameters: Path, catalog: Path) -> list[str]:
    kind = "FITS_LDAC" if args.catfitstype == "ldac" else "FITS_1.0"
    psfs = ",".join(_relative(file, tree) for file in (places.detection_psf, places.psf))
    command = [_pair(places.detection, places.image, tree), "-c", _relative(config, tree)]
    command += ["-WEIGHT_IMAGE", _pair(places.detection_weight, places.weight, tree)]
    command += ["-CATALOG_NAME", _relative(catalog, tree), "-CATALOG_TYPE", kind]
    command += [
        "-PARAMETERS_NAME",
        _relative(parameters, tree),
        "-FILTER_NAME",
        _relative(_kept(args.sexconv, tree), tree),
    ]
    if args.sexnnw is not None:
        command += ["-STARNNW_NAME", _relative(_kept(args.sexnnw, tree), tree)]
    return [*command, "-MAG_ZEROPOINT", f"{args.zeropoint:.10g}", "-PSF_NAME", psfs]


def _run(args: Namespace, tree: Tree, command: Sequence[str], outputs: Sequence[Path]) -> None:
    """Run SExtractor in the output directory; its command line and what it says are added to its log."""
    log = temporary_name(tree.sex_log)
    for attempt in range(1, _TRIES + 1):
        try:
            run_tool("sextractor", command, log=log, outputs=outputs, cwd=tree.root, program=args.sexpath)
            check_log(log, str(args.sexconfig))
        except ToolError as error:
            error.where["file"] = str(tree.sex_log)
            if not args.retrycmd or attempt == _TRIES:
                raise
            _log.warning("SExtractor failed: %s; it is run again", error.message)
        else:
            return
        finally:
            if log.exists():
                with tree.sex_log.open("a", encoding="utf-8") as stream:
                    stream.write(log.read_text(encoding="utf-8", errors="replace") + "\n")
                log.unlink()


def extract(
    args: Namespace,
    tree: Tree,
    places: Places,
    run: str,
    vector: Sequence[Column],
    keywords: Mapping[str, str],
) -> int:
    """Run SExtractor, in association mode unless that is switched off.

    Parameters
    ----------
    args : argparse.Namespace
        Resolved arguments.
    tree : Tree
        The output tree.
    places : Places
        What it reads.
    run : {"nosim", "sim"}
        Before injection or after.
    vector : sequence of Column
        The truth vector of this run, whose association list has been written.
    keywords : mapping of str to str
        The user's own.

    Returns
    -------
    int
        Rows of the catalogue, whose header names the truth vector: V0, VUNIT0 and so on.

    Raises
    ------
    ToolError
        When SExtractor fails, or leaves no catalogue.
    """
    catalog = tree.measured(run)
    associated = not args.noassoc
    source = args.sexparam if run == "sim" else args.nosimsexparam
    _parameters(source, tree.parameters(run), len(vector) if associated else 0)
    command = _command(args, tree, places, _config(args, tree, run), tree.parameters(run), catalog)
    if associated:
        names = [one.name for one in vector]
        command += ["-ASSOC_NAME", _relative(tree.association(run), tree)]
        command += ["-ASSOC_PARAMS", ",".join(str(names.index(name) + 1) for name in ("x", "y"))]
        command += ["-ASSOC_DATA", ",".join(str(number + 1) for number in range(len(vector)))]
        command += ["-ASSOC_RADIUS", f"{_RADIUS}", "-ASSOC_TYPE", "NEAREST", "-ASSOCSELEC_TYPE", "MATCHED"]
    command += [word for key, value in keywords.items() for word in (f"-{key}", value)]
    _run(args, tree, command, [catalog])
    hdu = 2 if args.catfitstype == "ldac" else 1
    try:
        rows = len(read_table(catalog, hdu))
    except ProductError as error:
        text = f"SExtractor left a catalogue without a table: {error.message}"
        raise ToolError(text, file=tree.sex_log, remedy="see what its log says") from error
    if associated:
        with fitsio.FITS(str(catalog), "rw") as fits:
            for number, one in enumerate(vector):
                fits[hdu].write_key(f"V{number}", one.name)
                fits[hdu].write_key(f"VUNIT{number}", one.unit)
    _log.info("%s: %d rows%s", catalog.name, rows, f" at {args.ngal} positions" if associated else "")
    return rows


def segment(args: Namespace, tree: Tree, places: Places, keywords: Mapping[str, str]) -> None:
    """Run SExtractor on the image with objects once more, without association, for its segmentation map alone.

    Raises
    ------
    ToolError
        When SExtractor fails.
    """
    parameters, catalog = tree.parameters("noassoc_seg"), tree.measured("noassoc_seg")
    _parameters(args.sim_noassoc_seg_param_file, parameters, 0)
    target = args.sim_noassoc_seg
    made = temporary_name(tree.images / f"{tree.stem}.seg.fits")
    command = _command(args, tree, places, _config(args, tree, "noassoc_seg"), parameters, catalog)
    own = {key: value for key, value in keywords.items() if not key.startswith("CHECKIMAGE")}
    command += [word for key, value in own.items() for word in (f"-{key}", value)]
    command += ["-CHECKIMAGE_TYPE", "SEGMENTATION", "-CHECKIMAGE_NAME", _relative(made, tree)]
    try:
        _run(args, tree, command, [catalog, made])
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, target)
    finally:
        made.unlink(missing_ok=True)
