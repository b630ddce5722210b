"""The lists, PSF models and fileconf of a realization, made from those of the base run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from balrogutils.errors import ProductError
from balrogutils.exposures.chip import numbers_of
from balrogutils.exposures.lists import PsfLine, read_flist, read_psfmap, read_zero_points
from balrogutils.injection.chips import Chip
from balrogutils.layout import TileTree, chip_of
from balrogutils.products import link_or_copy, writing_text

__all__ = ["base_chips", "write_lists", "write_psfs"]

_REMEDY = "run the prep block (mode bit 1) for this tile"

# Products that a realization makes itself; where the fileconf names the base run's, it gets its own.
_OWN: tuple[Callable[[TileTree, str], Path], ...] = (
    TileTree.image,
    TileTree.catalog,
    TileTree.segmap,
    TileTree.objmap,
    TileTree.psfmap,
    TileTree.meds,
    lambda tree, band: tree.flist("nullwt", band),
    lambda tree, band: tree.flist("seg", band),
    lambda tree, band: tree.flist("bkg", band),
)


def base_chips(base: TileTree, tree: TileTree, band: str) -> list[Chip]:
    """Return the chips of the base run's null-weight list, each with its PSF model and its target in the realization.

    Raises
    ------
    ProductError
        When a list is missing or empty, names a chip twice, or a chip has no PSF model.
    """
    file = base.flist("nullwt", band)
    # Numbers, not their text: not every maker of maps keeps leading zeros.
    models = {(int(line.expnum), int(line.ccdnum)): line.path for line in read_psfmap(base.psfmap(band))[1:]}
    images = read_zero_points(file)
    backgrounds = read_flist(base.flist("bkg", band))
    if len(backgrounds) != len(images):
        raise ProductError(
            f"a list has {len(backgrounds)} lines, the null-weight list {len(images)}",
            band=band,
            file=base.flist("bkg", band),
            remedy=_REMEDY,
        )
    chips = []
    for (path, magzp), background in zip(images, backgrounds, strict=True):
        name = chip_of(path)
        exposure, ccd = numbers_of(name)
        numbers = int(exposure), int(ccd)
        if numbers not in models:
            raise ProductError(
                "the PSF map has no model of a chip", band=band, chip=name, file=base.psfmap(band), remedy=_REMEDY
            )
        chips.append(Chip(name, band, path, tree.nullwt(band, name), models[numbers], magzp, background))
    if not chips or len({chip.name for chip in chips}) < len(chips):
        raise ProductError("a null-weight list is empty or names a chip twice", band=band, file=file, remedy=_REMEDY)
    return chips


def write_psfs(base: TileTree, tree: TileTree, band: str) -> tuple[list[Path], list[Path]]:
    """Give a realization its own PSF models (links) and the PSF map of one band.

    Returns
    -------
    tuple of list of pathlib.Path
        Files read and files written.
    """
    read, wrote, lines = [base.psfmap(band)], [], []
    for line in read_psfmap(base.psfmap(band)):
        if not line.path.is_file():
            raise ProductError("a PSF model is not there", band=band, file=line.path, remedy=_REMEDY)
        own = PsfLine(line.expnum, line.ccdnum, tree.psfs / line.path.name)
        link_or_copy(line.path, own.path)
        read.append(line.path)
        wrote.append(own.path)
        lines.append(" ".join(str(part) for part in own) + "\n")
    writing_text(tree.psfmap(band), "".join(lines))
    return read, [*wrote, tree.psfmap(band)]


def write_lists(base: TileTree, tree: TileTree, band: str) -> tuple[list[Path], list[Path]]:
    """Write the lists and the fileconf of one band of a realization.

    The null-weight list points into the realization; segmentation maps and backgrounds stay those of the base run, as
    they were made before injection. In the fileconf every product that a realization makes itself is its own.

    Returns
    -------
    tuple of list of pathlib.Path
        Files read and files written.
    """
    read = [base.flist(kind, band) for kind in ("nullwt", "seg", "bkg")] + [base.fileconf(band)]
    wrote = [tree.flist(kind, band) for kind in ("nullwt", "seg", "bkg")] + [tree.fileconf(band)]
    images = read_zero_points(read[0])
    writing_text(wrote[0], "".join(f"{tree.nullwt(band, chip_of(path))} {magzp:.16g}\n" for path, magzp in images))
    for source, target in zip(read[1:3], wrote[1:3], strict=True):
        paths = read_flist(source)
        if len(paths) != len(images):
            raise ProductError(
                f"a list has {len(paths)} lines, the null-weight list {len(images)}",
                band=band,
                file=source,
                remedy=_REMEDY,
            )
        writing_text(target, "".join(f"{path}\n" for path in paths))
    writing_text(wrote[3], yaml.safe_dump(_fileconf(base, tree, band), sort_keys=False, width=1_000_000))
    return read, wrote


def _fileconf(base: TileTree, tree: TileTree, band: str) -> dict[str, Any]:
    path = base.fileconf(band)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProductError("the fileconf is not there", band=band, file=path, remedy=_REMEDY) from error
    except yaml.YAMLError as error:
        raise ProductError(f"the fileconf is not YAML: {error}", band=band, file=path, remedy=_REMEDY) from error
    if not isinstance(content, dict):
        raise ProductError("the fileconf is not a mapping", band=band, file=path, remedy=_REMEDY)
    own = {str(product(base, band)): str(product(tree, band)) for product in _OWN}
    return {key: own.get(value, value) if isinstance(value, str) else value for key, value in content.items()}
