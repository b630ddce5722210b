"""SExtractor in dual-image mode: one detection, one segmentation, a catalogue per band."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InputError, ProductError, ToolError
from balrogutils.fitsfile import Plane, Table, checksum, read_header, read_image, read_table, write_images, write_tables
from balrogutils.identity import object_ids
from balrogutils.products import writing
from balrogutils.scratch import link_into
from balrogutils.tools import TIMEOUT, run_tool

__all__ = [
    "Extraction",
    "Recipe",
    "check_catalog",
    "check_log",
    "extract",
    "require_one_segmentation",
    "write_catalog",
    "write_object_map",
    "write_segmap",
]

_log = logging.getLogger(__name__)

_LONG = 64  # BITPIX
_CORE = (
    "NUMBER",
    "X_IMAGE",
    "Y_IMAGE",
    "MAG_AUTO",
    "XMIN_IMAGE",
    "XMAX_IMAGE",
    "YMIN_IMAGE",
    "YMAX_IMAGE",
    "FLUX_RADIUS",
)


@dataclass(frozen=True)
class Recipe:
    """SExtractor's configuration files and what is given on the command line over them.

    Parameters
    ----------
    config, parameters, kernel : Path
        Configuration, list of columns and detection filter.
    zero_point : float
        Zero point of the coadds.
    threshold : float
        DETECT_THRESH and ANALYSIS_THRESH, sigma.
    contrast : float
        DEBLEND_MINCONT.
    """

    config: Path
    parameters: Path
    kernel: Path
    zero_point: float = 30.0
    threshold: float = 1.1
    contrast: float = 0.001


class Extraction(NamedTuple):
    """SExtractor's catalogue file (in the scratch directory), its rows, and the segmentation ``[row, col]``, i4."""

    file: Path
    rows: NDArray[Any]
    segmentation: NDArray[np.int32]


def check_catalog(rows: NDArray[Any], segmentation: NDArray[np.int32], *, tile: str, band: str) -> None:
    """Check that a catalogue and its segmentation speak of the same detections.

    Raises
    ------
    InputError
        When nothing was detected.
    ToolError
        When NUMBER is not 1...N, a column is missing, or the labels of the segmentation are not the numbers.
    """
    missing = [name for name in _CORE if name not in (rows.dtype.names or ())]
    if missing:
        raise ToolError(
            f"the catalogue lacks {', '.join(missing)}",
            tile=tile,
            band=band,
            remedy="put them back into etc/balrog_sex.param",
        )
    if len(rows) == 0:
        remedy = "look at the detection image; lower DETECT_THRESH only if it holds objects that you can see"
        raise InputError("nothing was detected on the tile", tile=tile, band=band, remedy=remedy)
    if not np.array_equal(rows["NUMBER"], np.arange(1, len(rows) + 1)):
        raise ToolError(f"NUMBER does not run from 1 to {len(rows)}", tile=tile, band=band)
    # A bincount is linear in the pixels where a sort is not.
    if segmentation.min() < 0:
        raise ToolError("the segmentation holds negative labels", tile=tile, band=band)
    areas = np.bincount(segmentation.ravel(), minlength=len(rows) + 1)
    if len(areas) != len(rows) + 1 or not areas[1:].all():
        labels = int(np.count_nonzero(areas[1:]))
        raise ToolError(
            f"the catalogue has {len(rows)} rows but the segmentation {labels} labels", tile=tile, band=band
        )


def check_log(log: Path, config: str = "etc/Y3A2_v2_sex.config", **where: str) -> None:
    """Check that SExtractor had room for everything it found.

    Parameters
    ----------
    log : Path
        What it said.
    config : str
        The configuration that sets how much room there is.
    **where : str
        For messages, as `balrogutils.errors.BalrogError` takes it.

    Raises
    ------
    ToolError
        When detections are missing.
    """
    text = log.read_text(encoding="utf-8", errors="replace")
    for kind, key in (("Pixel stack overflow", "MEMORY_PIXSTACK"), ("Object stack overflow", "MEMORY_OBJSTACK")):
        # SExtractor goes on after these with detections missing, and ends with status 0.
        if kind.lower() in text.lower():
            remedy = f"raise {key} in {config}"
            raise ToolError(
                f"SExtractor ran out of room ({kind}): detections are missing",
                file=log,
                key=key,
                remedy=remedy,
                **where,
            )
    overflows = text.count("Deblending overflow")
    if overflows:
        _log.warning(
            "%s: SExtractor left %d crowded detections undeblended (deblending overflow)",
            " ".join(where.values()) or log.name,
            overflows,
        )


def _flag_image(directory: Path, image: Path, linked: str) -> str:
    """Return a coadd's mask under a name that SExtractor can read; it cannot read 64-bit integers."""
    if read_header(image, "MSK")["BITPIX"] != _LONG:
        return f"{linked}[1]"
    write_images(directory / "flags.fits", [Plane("MSK", (read_image(image, "MSK") != 0).astype(np.int16))])
    return "flags.fits[0]"


def extract(
    detection: Path,
    image: Path,
    directory: Path,
    recipe: Recipe,
    *,
    log: Path,
    tile: str,
    band: str,
    timeout: float = TIMEOUT,
) -> Extraction:
    """Detect on one coadd and measure on another.

    Parameters
    ----------
    detection, image : Path
        Coadd files with HDUs SCI, MSK, WGT.
    directory : Path
        Scratch directory of this job alone.
    recipe : Recipe
        Configuration.
    log : Path
        Where SExtractor's log is kept.
    tile, band : str
        For messages.
    timeout : float
        Seconds after which SExtractor counts as hanging.

    Returns
    -------
    Extraction
        Checked by `check_catalog`.

    Raises
    ------
    ToolError
        When SExtractor fails, drops detections, or leaves something else than was asked for.
    InputError
        When nothing was detected.
    """
    seen, measured = link_into(directory, detection, "detection.fits"), link_into(directory, image)
    config, parameters, kernel = (
        shutil.copy(file, directory) for file in (recipe.config, recipe.parameters, recipe.kernel)
    )
    catalog, segmap = directory / "catalog.fits", directory / "segmap.fits"
    arguments = [
        f"{seen}[0],{measured}[0]",
        "-c",
        Path(config).name,
        "-WEIGHT_IMAGE",
        f"{seen}[2],{measured}[2]",
        "-WEIGHT_TYPE",
        "MAP_WEIGHT",
    ]
    flags = _flag_image(directory, image, measured)
    arguments += ["-FLAG_IMAGE", flags, "-CATALOG_TYPE", "FITS_1.0", "-CATALOG_NAME", catalog.name]
    arguments += [
        "-CHECKIMAGE_TYPE",
        "SEGMENTATION",
        "-CHECKIMAGE_NAME",
        segmap.name,
        "-PARAMETERS_NAME",
        Path(parameters).name,
    ]
    arguments += ["-FILTER_NAME", Path(kernel).name, "-MAG_ZEROPOINT", f"{recipe.zero_point:.10g}", "-NTHREADS", "1"]
    arguments += ["-DEBLEND_MINCONT", f"{recipe.contrast:.10g}", "-DETECT_THRESH", f"{recipe.threshold:.10g}"]
    arguments += ["-ANALYSIS_THRESH", f"{recipe.threshold:.10g}"]
    run_tool("sextractor", arguments, log=log, outputs=[catalog, segmap], cwd=directory, timeout=timeout)
    check_log(log, tile=tile, band=band)
    rows, segmentation = read_table(catalog, "OBJECTS"), read_image(segmap, 0)
    shape = read_header(image, "SCI")["NAXIS2"], read_header(image, "SCI")["NAXIS1"]
    if segmentation.shape != shape:
        raise ToolError(
            f"the segmentation has shape {segmentation.shape} where {shape} was asked for",
            tile=tile,
            band=band,
            file=log,
        )
    check_catalog(rows, segmentation, tile=tile, band=band)
    return Extraction(catalog, rows, np.asarray(segmentation, dtype=np.int32))


def write_catalog(path: str | PathLike[str], extraction: Extraction, cards: Mapping[str, Any]) -> None:
    """Put SExtractor's own catalogue file, with checksums and a few cards more, under its final name."""
    with writing(path) as part:
        shutil.copyfile(extraction.file, part)
        with fitsio.FITS(str(part), "rw") as fits:
            # ORIGIN, FITSFILE and the SEX* cards hold no clock; the table's columns stay as SExtractor wrote them.
            for key, value in cards.items():
                fits["OBJECTS"].write_key(key, value)
            for hdu in fits:
                checksum(hdu)


def write_segmap(path: str | PathLike[str], extraction: Extraction, detection: Path) -> None:
    """Write the segmentation under the header of the detection image: HDU SCI, i4, 0 for sky, else NUMBER."""
    write_images(path, [Plane("SCI", extraction.segmentation, read_header(detection, "SCI"))])


def write_object_map(path: str | PathLike[str], tile: str, realization: str | None, numbers: NDArray[Any]) -> None:
    """Write the object map of one band: HDU OBJECTS with ``object_number`` i4 and ``id`` i8."""
    rows = np.zeros(len(numbers), dtype=[("object_number", "i4"), ("id", "i8")])
    rows["object_number"] = numbers
    rows["id"] = object_ids(tile, realization, numbers)
    write_tables(path, [Table("OBJECTS", rows)])


def require_one_segmentation(segmaps: Mapping[str, Path], *, tile: str) -> None:
    """Check by DATASUM that the bands' segmentations are one and the same.

    Parameters
    ----------
    segmaps : mapping of str to Path
        Segmentation files by band.
    tile : str
        For the message.

    Raises
    ------
    ProductError
        When they differ: some bands' catalogues were made from another detection image than others'.
    """
    sums = {band: str(read_header(path, "SCI")["DATASUM"]).strip() for band, path in segmaps.items()}
    if len(set(sums.values())) > 1:
        text = ", ".join(f"{band} {total}" for band, total in sums.items())
        remedy = "make the catalogues of all bands again (mode 2, or 16 for a realization, with --forceall)"
        raise ProductError(f"the bands do not share one segmentation (DATASUM {text})", tile=tile, remedy=remedy)
