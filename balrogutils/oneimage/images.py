"""Images in and out: the part that is used, its WCS, the files SExtractor reads."""

from __future__ import annotations

import logging
import shutil
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError
from balrogutils.fitsfile import Header, Plane, read_header, read_image, write_images
from balrogutils.oneimage.inputs import compressed, subsampled
from balrogutils.oneimage.psfs import is_stamp, read_psf
from balrogutils.oneimage.tree import Tree
from balrogutils.products import writing
from balrogutils.wcs import ImageWCS

__all__ = ["FIDUCIAL_SCALE", "Frame", "Place", "Places", "pixel_scale", "prepare", "read_frame", "write_simulated"]

_log = logging.getLogger(__name__)

FIDUCIAL_SCALE = 0.263
"""Arcsec per pixel of an image without a WCS: that of DECam."""


class Place(NamedTuple):
    """An image HDU as SExtractor is told of it."""

    file: Path
    ext: int


@dataclass(frozen=True)
class Places:
    """What SExtractor reads: image and weight map of a measurement, and those of its detection."""

    image: Place
    weight: Place
    detection: Place
    detection_weight: Place
    psf: Path
    detection_psf: Path


@dataclass(frozen=True)
class Frame:
    """The part of an image that is used.

    Attributes
    ----------
    pixels : ndarray of float, shape (ny, nx)
        ADU.
    header : fitsio.FITSHDR
        Its cards; the WCS is that of the part.
    weight : ndarray, shape (ny, nx), or None
        Its weight map; None where that is not read.
    weight_header : fitsio.FITSHDR or None
        Its cards.
    wcs : ImageWCS or None
        None for an image without.
    """

    pixels: NDArray[np.floating]
    header: Header
    weight: NDArray[Any] | None
    weight_header: Header | None
    wcs: ImageWCS | None


def _inverse_variance(weight: NDArray[Any], kind: str) -> NDArray[Any]:
    """Return a weight map as SExtractor is given it; 0 where the variance or rms is none, infinite or not above 0."""
    if kind == "invvar":
        return weight
    variance = weight.astype(np.float64) ** (2 if kind == "rms" else 1)
    good = np.isfinite(variance) & (weight > 0)
    return np.divide(1.0, variance, out=np.zeros(variance.shape), where=good).astype(np.float32)


def _moved(header: Header, xmin: int, ymin: int) -> Header:
    """Return a header whose pixel (1, 1) was (xmin, ymin)."""
    for key, first in (("CRPIX1", xmin), ("CRPIX2", ymin), ("LTV1", xmin), ("LTV2", ymin)):
        if first != 1 and isinstance(header.get(key), (int, float)):
            header[key] = float(header[key]) - (first - 1)
    return header


def read_frame(args: Namespace) -> Frame:
    """Read the part of the image that is used, and its weight map.

    Parameters
    ----------
    args : argparse.Namespace
        Resolved arguments.

    Returns
    -------
    Frame
        Pixels in their own floating type, or float32 where they are whole numbers.

    Raises
    ------
    ProductError
        When a file is damaged.
    """
    part = slice(args.ymin - 1, args.ymax), slice(args.xmin - 1, args.xmax)
    pixels = np.ascontiguousarray(read_image(args.image, args.imageext)[part])
    if pixels.dtype.kind != "f":
        pixels = pixels.astype(np.float32)
    header = _moved(read_header(args.image, args.imageext), args.xmin, args.ymin)
    weight = weight_header = None
    if not args.noweightread:
        weight = np.ascontiguousarray(read_image(args.weight, args.weightext)[part])
        weight = _inverse_variance(weight, args.weighttype)
        weight_header = _moved(read_header(args.weight, args.weightext), args.xmin, args.ymin)
    try:
        wcs = ImageWCS(header)
    except ProductError as error:
        reason = f"has a WCS that cannot be used: {error.message}" if header.get("CTYPE1") else "has no WCS"
        _log.warning("%s %s; %g arcsec per pixel is taken", args.image.name, reason, FIDUCIAL_SCALE)
        wcs = None
    return Frame(pixels, header, weight, weight_header, wcs)


def pixel_scale(wcs: ImageWCS | None, row: float, col: float) -> float:
    """Return arcsec per pixel at a zero-offset position: sqrt(abs(det J)), J the local Jacobian."""
    if wcs is None:
        return FIDUCIAL_SCALE
    local = wcs.jacobian(row, col)
    determinant = local.dudrow * local.dvdcol - local.dudcol * local.dvdrow
    return float(np.sqrt(np.abs(determinant[0])))


def _link(target: Path, name: Path) -> None:
    name.unlink(missing_ok=True)
    name.symlink_to(target.resolve())


def prepare(args: Namespace, tree: Tree, frame: Frame) -> tuple[Places, Places]:
    """Put the image before injection, the weight map and the PSF models into the output tree.

    Parameters
    ----------
    args : argparse.Namespace
        Resolved arguments.
    tree : Tree
        The output tree.
    frame : Frame
        The part of the image that is used.

    Returns
    -------
    tuple of Places
        What SExtractor reads before injection, and after.
    """
    part = subsampled(args)
    shared = args.weight == args.image and frame.weight is not None
    original, simulated = Place(tree.original, 0), Place(tree.simulated, 0)
    turned = args.weighttype != "invvar"
    if part or compressed(args.image, args.imageext) or (shared and (turned or compressed(args.image, args.weightext))):
        before = Place(tree.original, 1)
        if not args.nonosim:
            write_images(tree.original, [Plane("SCI", frame.pixels, frame.header), *_weight(frame, shared)])
    else:
        original, before = Place(tree.original, args.imageext), Place(tree.original, args.weightext)
        if not args.nonosim:
            _link(args.image, tree.original)
    after = Place(tree.simulated, 1)
    if not shared:
        before = after = _separate_weight(args, tree, frame, part)
    _psf(args.psf, tree.psf_model, args)
    detection_psf = tree.psf_model
    if args.detpsf != args.psf:
        detection_psf = tree.detection_psf
        _psf(args.detpsf, detection_psf, args)
    found = []
    for image, weight in ((original, before), (simulated, after)):
        seen, seen_weight = image, weight
        if (args.detimage, args.detimageext) != (args.image, args.imageext):
            seen = _detection(args.detimage, args.detimageext, tree.images / f"{tree.stem}.det.fits")
        if (args.detweight, args.detweightext) != (args.weight, args.weightext):
            place = tree.images / f"{tree.stem}.det.weight.fits"
            seen_weight = _detection(args.detweight, args.detweightext, place, args.weighttype)
        found.append(Places(image, weight, seen, seen_weight, tree.psf_model, detection_psf))
    return found[0], found[1]


def _detection(file: Path, ext: int, target: Path, kind: str = "invvar") -> Place:
    """Put an image for detection, or its weight map of some kind, into the output tree: a link where that will do."""
    if kind == "invvar" and not compressed(file, ext):
        _link(file, target)
        return Place(target, ext)
    pixels = _inverse_variance(read_image(file, ext), kind)
    write_images(target, [Plane("DET", pixels, read_header(file, ext))])
    return Place(target, 0)


def _weight(frame: Frame, shared: bool) -> list[Plane]:
    """Return the weight plane of an image file that holds both."""
    return [Plane("WGT", frame.weight, frame.weight_header)] if shared and frame.weight is not None else []


def _separate_weight(args: Namespace, tree: Tree, frame: Frame, part: bool) -> Place:
    turned = args.weighttype != "invvar"
    if frame.weight is None or not (part or turned or compressed(args.weight, args.weightext)):
        _link(args.weight, tree.weight)
        return Place(tree.weight, args.weightext)
    write_images(tree.weight, [Plane("WGT", frame.weight, frame.weight_header)])
    return Place(tree.weight, 0)


def _psf(source: Path, target: Path, args: Namespace) -> None:
    """Link a PSF model, or copy it with the origin of its polynomial moved as the image's is; a stamp becomes one."""
    if is_stamp(source):
        read_psf(source).write(target)
        return
    if not subsampled(args):
        _link(source, target)
        return
    with writing(target) as part:
        shutil.copyfile(source, part)
        part.chmod(0o644)
        with fitsio.FITS(str(part), "rw") as fits:
            header = fits[1].read_header()
            for key, first in (("POLZERO1", args.xmin), ("POLZERO2", args.ymin)):
                if key in header:
                    fits[1].write_key(key, float(header[key]) - (first - 1))
            if "CHECKSUM" in header:
                fits[1].write_checksum()


def write_simulated(args: Namespace, tree: Tree, frame: Frame, added: NDArray[np.float64] | None) -> None:
    """Write the image with objects, and the weight map behind it where they share a file.

    Parameters
    ----------
    args, tree, frame
        As `prepare` takes them.
    added : ndarray of float64, shape (ny, nx), or None
        The objects' light; None when nothing is drawn.
    """
    pixels = frame.pixels if added is None else (frame.pixels + added).astype(frame.pixels.dtype)
    shared = args.weight == args.image
    write_images(tree.simulated, [Plane("SCI", pixels, frame.header), *_weight(frame, shared)])
