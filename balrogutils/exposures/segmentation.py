"""Segmentation map of one CCD, by SExtractor."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ToolError
from balrogutils.fitsfile import Header, Plane, read_image, write_images
from balrogutils.scratch import scratch
from balrogutils.tools import TIMEOUT, run_tool

__all__ = ["segment"]

# Detection as in single-epoch DES catalogues: 1.5 sigma over 6 joined pixels after a 3 x 3 filter.
_OPTIONS = {
    "DETECT_TYPE": "CCD",
    "DETECT_MINAREA": "6",
    "DETECT_THRESH": "1.5",
    "ANALYSIS_THRESH": "1.5",
    "DEBLEND_NTHRESH": "32",
    "DEBLEND_MINCONT": "0.005",
    "CLEAN": "Y",
    "CLEAN_PARAM": "1.0",
    "BACK_TYPE": "MANUAL",
    "BACK_VALUE": "0.0",
    "WEIGHT_TYPE": "MAP_WEIGHT",
    "RESCALE_WEIGHTS": "N",
    "CATALOG_TYPE": "NONE",
    "CHECKIMAGE_TYPE": "SEGMENTATION",
    "VERBOSE_TYPE": "NORMAL",
    "WRITE_XML": "N",
    "NTHREADS": "1",
}
_FILTER = "CONV NORM\n1 2 1\n2 4 2\n1 2 1\n"
_PARAMETERS = "NUMBER\n"


def segment(
    image: NDArray[np.float32],
    weight: NDArray[np.float32],
    target: str | os.PathLike[str],
    header: Header,
    *,
    log: str | os.PathLike[str],
    tmp: str | os.PathLike[str],
    label: str,
    timeout: float = TIMEOUT,
) -> NDArray[np.int32]:
    """Detect objects on a background-subtracted image and write their segmentation map.

    Parameters
    ----------
    image, weight : ndarray of float32, shape (ny, nx)
        Background-subtracted image and inverse variance; nothing is detected where the weight is zero.
    target : path-like
        The map, EXTNAME ``SCI``, int32.
    header : Header
        Cards to carry.
    log : path-like
        SExtractor's log.
    tmp : path-like
        Where the scratch directory is made.
    label : str
        Its name, as `balrogutils.scratch.scratch` takes it.
    timeout : float
        Seconds after which SExtractor counts as hanging.

    Returns
    -------
    ndarray of int32, shape (ny, nx)
        0 for sky, else the object's number.

    Raises
    ------
    ToolError
        When SExtractor fails or its map has another shape.
    """
    if not (weight > 0).any():
        # SExtractor cannot set a threshold on an image without any weight; there is nothing to detect on it either.
        empty = np.zeros(image.shape, dtype=np.int32)
        write_images(target, [Plane("SCI", empty, header)])
        return empty
    with scratch(tmp, label) as place:
        write_images(place / "image.fits", [Plane("SCI", image)])
        write_images(place / "weight.fits", [Plane("WGT", weight)])
        (place / "segment.conv").write_text(_FILTER, encoding="ascii")
        (place / "segment.param").write_text(_PARAMETERS, encoding="ascii")
        # An empty configuration file: without one the program reads a default.sex that may lie about.
        (place / "segment.sex").write_text("", encoding="ascii")
        options = {
            **_OPTIONS,
            "WEIGHT_IMAGE": "weight.fits",
            "FILTER_NAME": "segment.conv",
            "PARAMETERS_NAME": "segment.param",
            "CHECKIMAGE_NAME": "segmap.fits",
        }
        arguments = [
            "image.fits",
            "-c",
            "segment.sex",
            *(word for key, value in options.items() for word in ("-" + key, value)),
        ]
        run_tool("sextractor", arguments, log=log, outputs=[place / "segmap.fits"], cwd=place, timeout=timeout)
        segmap = read_image(place / "segmap.fits", 0).astype(np.int32)
    if segmap.shape != image.shape:
        raise ToolError(f"SExtractor left a segmentation map of {segmap.shape} for an image of {image.shape}", file=log)
    write_images(target, [Plane("SCI", segmap, header)])
    return segmap
