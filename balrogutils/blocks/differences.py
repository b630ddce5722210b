"""What injection changed of single-epoch images, as small files from which images that were let go are made again."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import BalrogError, ProductError
from balrogutils.fitsfile import checksum, portable_cards
from balrogutils.graph import Job
from balrogutils.layout import chip_of
from balrogutils.products import Step, read_manifest, records, sha256, writing

__all__ = ["apply_difference", "keep_differences", "missing", "put_back", "write_difference"]

_log = logging.getLogger(__name__)

# Bytes of a pixel by BITPIX, as whole numbers that cfitsio can compress: 64 bits count as two.
_WORDS = {8: "u1", 16: "i2", 32: "i4", 64: "i4", -32: "i4", -64: "i4"}
# Rows of an image that are compressed together: with one, as by default, what gzip writes of zeros is most of the file.
_ROWS = 64


class _Hdu(NamedTuple):
    """One HDU as it lies in its file: name, header, where its data begin and end (with padding), and what they are."""

    name: str
    header: bytes
    begin: int
    end: int
    bitpix: int
    shape: tuple[int, ...]

    @property
    def words(self) -> tuple[str, tuple[int, ...]]:
        """Type and shape of the pixels as whole numbers."""
        word = _WORDS[self.bitpix]
        twice = abs(self.bitpix) // (8 * np.dtype(word).itemsize)
        return word, (*self.shape[:-1], self.shape[-1] * twice) if self.shape else (0,)


def _hdus(path: Path) -> list[_Hdu]:
    found = []
    with fitsio.FITS(str(path)) as fits, path.open("rb") as stream:
        for number, hdu in enumerate(fits):
            places, cards = hdu.get_offsets(), hdu.read_header()
            stream.seek(places["header_start"])
            header = stream.read(places["data_start"] - places["header_start"])
            shape = tuple(int(cards[f"NAXIS{axis}"]) for axis in range(int(cards["NAXIS"]), 0, -1))
            name = hdu.get_extname() or f"HDU{number}"
            found.append(_Hdu(name, header, places["data_start"], places["data_end"], int(cards["BITPIX"]), shape))
    return found


def _data(path: Path, hdu: _Hdu) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Return the data of an HDU, and its pixels as whole numbers in native byte order, whose bits are those stored."""
    raw = np.fromfile(path, np.uint8, hdu.end - hdu.begin, offset=hdu.begin)
    return raw, _stored(raw, hdu).astype(hdu.words[0])


def _stored(raw: NDArray[np.uint8], hdu: _Hdu) -> NDArray[Any]:
    """Return a view of the pixels among the data of an HDU, in the byte order of FITS."""
    word, shape = hdu.words
    size = np.dtype(word).itemsize * int(np.prod(shape))
    return raw[:size].view(f">{word}").reshape(shape)


def _light(before: NDArray[np.int32], after: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return what was added to pixels of 32-bit floats; 0 where that is no number."""
    with np.errstate(all="ignore"):
        light: NDArray[np.float32] = after.view(np.float32) - before.view(np.float32)
    light[~np.isfinite(light)] = 0.0
    return light


def _lit(before: NDArray[np.int32], light: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the pixels with light; where there is none, bit by bit as they are: -0 and NaN too."""
    with np.errstate(all="ignore"):
        lit = before.view(np.float32) + light
    return np.where(light == 0.0, before, lit.view(np.int32))


def _planes(old: _Hdu, new: _Hdu, base: Path, image: Path) -> Iterator[tuple[str, NDArray[Any], list[dict[str, Any]]]]:
    """Yield what an HDU differs in: name, array and cards of each plane that is not all 0."""
    head = _exclusive(old.header, new.header)
    if head.any():
        yield f"{new.name}_HEAD", head, []
    if not new.shape:
        return
    before, after = _data(base, old)[1], _data(image, new)[1]
    if new.bitpix == -32:
        light = _light(before, after)
        if light.any():
            with fitsio.FITS(str(image)) as fits:
                cards = portable_cards(fits[new.name].read_header())
            # As a picture it lies on the sky where the image does.
            yield new.name, light, cards
            before = _lit(before, light)
    bits = before ^ after
    if bits.any():
        yield f"{new.name}_BITS", bits, []


def _exclusive(old: bytes, new: bytes) -> NDArray[np.uint8]:
    """Return the bits in which a header differs from another, which is cut or continued with 0 to its length."""
    return np.frombuffer(old.ljust(len(new), b"\0")[: len(new)], np.uint8) ^ np.frombuffer(new, np.uint8)


def write_difference(base: Path, image: Path, path: Path) -> None:
    """Write what an image differs in from the one it was made of, without loss.

    Parameters
    ----------
    base : pathlib.Path
        A FITS file of images.
    image : pathlib.Path
        The same planes with other headers and pixels.
    path : pathlib.Path
        Tile-compressed FITS file (GZIP_2). Of a plane P that differs: ``P``, float32, what was added, of 32-bit floats
        alone; ``P_BITS``, integers, exclusive or of the bits of the pixels and of base plus ``P`` rounded to float32,
        which puts right what rounds differently; ``P_HEAD``, uint8, exclusive or of the headers. Planes that would be 0
        everywhere are left out.

    Raises
    ------
    ProductError
        When the image has other planes than its base.
    """
    before, after = _hdus(base), _hdus(image)
    if [(one.bitpix, one.shape) for one in before] != [(one.bitpix, one.shape) for one in after]:
        text = "an injected image has other planes than its base image"
        raise ProductError(text, file=image, remedy="have step inject make it again (--forcerun)")
    with writing(path) as part, fitsio.FITS(str(part), "rw", clobber=True) as fits:
        fits.write(None)
        for old, new in zip(before, after, strict=True):
            for name, pixels, cards in _planes(old, new, base, image):
                tiles = (min(_ROWS, len(pixels)), pixels.shape[1]) if pixels.ndim == 2 else pixels.shape
                fits.write(pixels, extname=name, header=cards, compress="GZIP_2", qlevel=0, tile_dims=tiles)
                checksum(fits[-1])


def apply_difference(base: Path, difference: Path, path: Path) -> None:
    """Make an image again: bit by bit the one that `write_difference` was given, if `base` is the same.

    Parameters
    ----------
    base : pathlib.Path
        The image it was made of.
    difference : pathlib.Path
        What `write_difference` wrote.
    path : pathlib.Path
        Written.

    Raises
    ------
    ProductError
        When the difference is of another image.
    OSError
        When a file cannot be read.
    """
    with fitsio.FITS(str(difference)) as fits, path.open("wb") as out:
        changed = {hdu.get_extname(): hdu for hdu in fits}

        def plane(name: str, shape: Sequence[int] | None = None) -> NDArray[Any] | None:
            pixels = changed[name].read() if name in changed else None
            if pixels is not None and shape is not None and pixels.shape != shape:
                raise ProductError("a difference is of another image", file=difference, remedy="remove it")
            return pixels

        for hdu in _hdus(base):
            head = plane(f"{hdu.name}_HEAD")
            out.write(hdu.header if head is None else _exclusive(hdu.header, head.tobytes()).tobytes())
            raw, pixels = _data(base, hdu)
            light, bits = plane(hdu.name, pixels.shape), plane(f"{hdu.name}_BITS", pixels.shape)
            if light is not None:
                pixels = _lit(pixels, light)
            if bits is not None:
                pixels ^= bits
            _stored(raw, hdu)[...] = pixels
            out.write(raw.data)


def _images(job: Job) -> list[Path]:
    """Return the injected images of a step, by their injection names."""
    place = job.context.tree.injected(job.band or "", "chip").parent
    outputs = [Path(one["path"]) for one in read_manifest(job.manifest)["outputs"]]
    return [path for path in outputs if path.parent == place]


def _manifest(job: Job) -> Path:
    return job.context.tree.differences(job.band or "")


def missing(job: Job) -> bool:
    """Whether the images of a step are there, and not what they differ in from the base run's.

    Parameters
    ----------
    job : Job
        ``inject`` of one band.
    """
    if not job.manifest.is_file():
        return False
    manifest = _manifest(job)
    try:
        kept = manifest.is_file() and read_manifest(manifest, "of")["of"] == sha256(job.manifest)
    except ProductError:
        kept = False
    images = [] if kept or read_manifest(job.manifest).get("adopted") else _images(job)
    return bool(images) and all(path.is_file() for path in images)


def keep_differences(job: Job) -> None:
    """Write what the images of a step differ in from the base run's, beside them, and a manifest of it.

    Parameters
    ----------
    job : Job
        ``inject`` of one band; its images and those of the base run are there.

    Raises
    ------
    ProductError
        When an image is not as its step left it, or a file cannot be written; there is no manifest then.
    """
    context, band = job.context, job.band or ""
    before = [job.manifest, Job("prep", context.at(None), band).manifest]
    # Another run of the injection has its own.
    of = {"of": sha256(job.manifest)}
    about = context.about(band)
    with Step(_manifest(job), "inject differences", about=about, before=before, extra=of, thread=True) as step:
        images, size = _images(job), 0
        for image in images:
            chip = chip_of(image)
            base, path = context.base_tree.nullwt(band, chip), context.tree.difference(band, chip)
            step.read(base, image)
            write_difference(base, image, path)
            step.wrote(path)
            size += path.stat().st_size
        step.count(differences=len(images), differences_MB=round(size / 1e6, 3))


def put_back(job: Job, recorded: dict[str, Any]) -> bool:
    """Make an image again from that of the base run and what it differs in.

    Parameters
    ----------
    job : Job
        ``inject`` of one band.
    recorded : dict
        What its manifest says of the image.

    Returns
    -------
    bool
        Whether it is there again, the same bytes and the same time. Where a difference was kept and cannot be used, a
        warning says why.
    """
    context, band = job.context, job.band or ""
    path, manifest = Path(recorded["path"]), _manifest(job)
    if not manifest.is_file():
        return False
    chip = chip_of(path)
    difference = context.tree.difference(band, chip)
    try:
        made = records([manifest]).get(os.path.realpath(difference), {})
        if not difference.is_file() or sha256(difference) != made.get("sha256"):
            what = "is damaged" if difference.is_file() else "is gone"
            raise ProductError(f"what was kept of an injected image {what}", file=difference)
        with writing(path) as part:
            apply_difference(context.base_tree.nullwt(band, chip), difference, part)
            if sha256(part) != recorded["sha256"]:
                raise ProductError("what was kept of an injected image is of another one", file=difference)
            os.utime(part, ns=(recorded["mtime_ns"], recorded["mtime_ns"]))
    except (BalrogError, OSError) as error:
        _log.warning("%s %s: %s: the image is drawn again", context.tile, chip, error)
        return False
    return True
