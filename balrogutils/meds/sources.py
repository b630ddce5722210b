"""Source images of cut-outs: the planes of one coadd or CCD, scaled and background-subtracted, strip by strip."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.errors import ProductError
from balrogutils.fitsfile import Header, read_header
from balrogutils.meds.cutouts import Grid
from balrogutils.meds.pixels import PixelHDU, open_image
from balrogutils.psf import PSFEx
from balrogutils.wcs import ImageWCS

__all__ = ["PLANES", "PlaneFile", "SourceImage", "Strip", "relative_scale"]

_log = logging.getLogger(__name__)

PLANES = ("image", "weight", "seg", "bmask")
_LAYOUT_CARDS = frozenset(
    ("SIMPLE", "XTENSION", "BITPIX", "PCOUNT", "GCOUNT", "EXTEND", "CHECKSUM", "DATASUM", "TFIELDS")
)
# Rows of a strip: many stamps of up to a hundred rows lie in one strip, and it is small beside an image.
_STRIP = 512
_TEXT_CARDS = frozenset(("HISTORY", "COMMENT", "CONTINUE"))


class PlaneFile(NamedTuple):
    """Where one plane of an image is."""

    path: Path
    ext: str | int


class Strip(NamedTuple):
    """Some full rows of one plane: kind, first row, rows of the whole plane, and pixels in any byte order."""

    kind: str
    first: int
    height: int
    pixels: NDArray[Any]


def relative_scale(magzp: float, magzp_ref: float) -> float:
    """Return ``10^(0.4 (magzp_ref - magzp))``, the factor that takes an image from one zero point to the other."""
    return float(10.0 ** (0.4 * (magzp_ref - magzp)))


def _shape(header: Header) -> tuple[int, int]:
    prefix = "Z" if "ZNAXIS2" in header else ""
    return int(header[f"{prefix}NAXIS2"]), int(header[f"{prefix}NAXIS1"])


@dataclass
class SourceImage:
    """One image that objects are cut from.

    Attributes
    ----------
    files : mapping of str to PlaneFile
        ``image weight seg bmask``, and ``bkg`` where a background is to be subtracted.
    magzp : float
        Zero point of the image.
    scale : float
        Factor on the image; the weight gets ``1 / scale^2``.
    psf : path-like, optional
        PSFEx model.
    psf_size : int, optional
        Odd side of the PSF stamps in pixels; the model's own when None.
    unusable_bmask : int
        Mask bits whose weight becomes zero.
    dtypes : mapping of str to str
        numpy types of the planes.
    """

    files: Mapping[str, PlaneFile]
    magzp: float
    scale: float
    psf: str | os.PathLike[str] | None = None
    psf_size: int | None = None
    unusable_bmask: int = 0
    dtypes: Mapping[str, str] = field(
        default_factory=lambda: {"image": "f4", "weight": "f4", "seg": "i4", "bmask": "i4"}
    )
    unusable_pixels: int = field(default=0, init=False)
    weightless: bool = field(default=False, init=False)

    @property
    def image_id(self) -> str:
        """Base name of the image file without ``.fz``."""
        return self.files["image"].path.name.removesuffix(".fz")

    @cached_property
    def header(self) -> Header:
        """Header of the image plane."""
        return read_header(*self.files["image"])

    @cached_property
    def grid(self) -> Grid:
        """WCS and shape.

        Raises
        ------
        ProductError
            When the header has no WCS or no image.
        """
        try:
            return Grid(ImageWCS(self.header), _shape(self.header))
        except (KeyError, ValueError, ProductError) as error:
            raise ProductError(
                f"an image cannot be placed on the sky: {error.message if isinstance(error, ProductError) else error}",
                file=self.files["image"].path,
                key=str(self.files["image"].ext),
                remedy="make the image anew",
            ) from error

    @property
    def wcs_cards(self) -> dict[str, Any]:
        """The header with lower-case keys, and ``naxis1``, ``naxis2``: the ``wcs`` column of ``image_info``."""
        cards = {
            str(card["name"]).lower(): card["value"]
            for card in self.header.records()
            if card.get("name") and card["name"].upper() not in _LAYOUT_CARDS | _TEXT_CARDS
        }
        rows, cols = self.grid.shape
        return {**cards, "naxis": 2, "naxis1": cols, "naxis2": rows}

    @cached_property
    def model(self) -> PSFEx | None:
        """PSF model, where there is one."""
        return None if self.psf is None else PSFEx.read(self.psf)

    @property
    def psf_side(self) -> int:
        """Side of the PSF stamps in pixels, 0 without a model."""
        if self.model is None:
            return 0
        return self.psf_size or self.model.native_size

    def psf_stamps(self, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float64]:
        """Return PSF stamps at zero-offset positions, shape (n, side, side), each of sum 1."""
        if self.model is None:
            raise ProductError("an image has no PSF model", file=self.files["image"].path)
        return self.model.stamps(rows, cols, self.psf_side)

    def _open(self, stack: ExitStack, kind: str) -> PixelHDU:
        file = self.files[kind]
        plane = stack.enter_context(open_image(*file))
        if plane.shape != self.grid.shape:
            raise ProductError(
                f"the {kind} plane has shape {plane.shape}, the image {self.grid.shape}",
                file=file.path,
                key=str(file.ext),
            )
        return plane

    def strips(self, kinds: Sequence[str] = PLANES) -> Iterator[Strip]:
        """Yield the planes as they go into the cut-outs, some rows of all planes after one another.

        Parameters
        ----------
        kinds : sequence of str
            Of ``image weight seg bmask``; in each strip in this order.

        Notes
        -----
        ``image = (image - bkg) scale`` and ``weight / scale^2`` are computed in double precision and rounded once.
        Pixels whose image is not finite get image 0 and weight 0; a weight that is not finite, is negative, or has an
        unusable mask bit becomes 0. After the last strip `unusable_pixels` counts the first kind, and `weightless` says
        whether no weight is left at all. Memory is that of a few strips of 512 rows.

        Raises
        ------
        ProductError
            A plane that is missing, damaged or of another shape.
        """
        asked = [kind for kind in PLANES if kind in kinds]
        needed = {*asked}
        needed |= {"bkg"} if "image" in asked and "bkg" in self.files else set()
        needed |= {"bmask"} if "weight" in asked and self.unusable_bmask else set()
        rows = self.grid.shape[0]
        self.unusable_pixels, self.weightless = 0, "weight" in asked
        with ExitStack() as stack:
            planes = {kind: self._open(stack, kind) for kind in sorted(needed)}
            for first in range(0, rows, _STRIP):
                last = min(first + _STRIP, rows)
                bad: NDArray[np.bool_] | None = None
                for kind in asked:
                    if kind == "image":
                        pixels, bad = self._image(planes, first, last)
                    elif kind == "weight":
                        pixels = self._weight(planes, first, last, bad)
                    else:
                        pixels = planes[kind].read_rows(first, last, native=False)
                    yield Strip(kind, first, rows, pixels)
        if self.unusable_pixels:
            path = self.files["image"].path
            _log.warning("%s: %d pixels are not finite and get weight 0", path, self.unusable_pixels)
        if self.weightless:
            _log.warning("%s: no pixel has weight; its cut-outs are kept with weight 0", self.files["weight"].path)

    def _image(
        self, planes: Mapping[str, PixelHDU], first: int, last: int
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        bkg = planes.get("bkg")
        subtract = repeat(None) if bkg is None else bkg.chunks(first, last)
        # In the byte order of FITS, so that stamps need only be copied.
        out = np.empty((last - first, self.grid.shape[1]), np.dtype(self.dtypes["image"]).newbyteorder(">"))
        row, clean = 0, True
        # What overflows the type of the cut-outs becomes infinite, and is dealt with as pixels that are not finite.
        with np.errstate(over="ignore", invalid="ignore"):
            for pixels, behind in zip(planes["image"].chunks(first, last), subtract, strict=bkg is not None):
                values = pixels.astype(np.float64)
                if behind is not None:
                    values -= behind.astype(np.float64)
                values *= self.scale
                rounded = values.astype(self.dtypes["image"])
                # A pixel that is not a number makes both of these the same.
                clean = clean and bool(np.isfinite(rounded.min()) and np.isfinite(rounded.max()))
                out[row : row + len(pixels)] = rounded
                row += len(pixels)
        if clean:
            return out, None
        bad = ~np.isfinite(out)
        count = int(bad.sum())
        self.unusable_pixels += count
        out[bad] = 0
        return out, bad if count else None

    def _weight(
        self, planes: Mapping[str, PixelHDU], first: int, last: int, bad: NDArray[np.bool_] | None
    ) -> NDArray[Any]:
        factor = 1.0 / self.scale**2
        out = np.empty((last - first, self.grid.shape[1]), np.dtype(self.dtypes["weight"]).newbyteorder(">"))
        row, clean = 0, True
        with np.errstate(over="ignore", invalid="ignore"):
            for pixels in planes["weight"].chunks(first, last):
                values = pixels.astype(np.float64)
                values *= factor
                rounded = values.astype(self.dtypes["weight"])
                clean = clean and bool(rounded.min() >= 0 and np.isfinite(rounded.max()))
                out[row : row + len(pixels)] = rounded
                row += len(pixels)
        if not clean:
            out[~(np.isfinite(out) & (out > 0))] = 0
        if bad is not None:
            out[bad] = 0
        if self.unusable_bmask:
            out[(planes["bmask"].read_rows(first, last) & self.unusable_bmask) != 0] = 0
        self.weightless = self.weightless and not out.any()
        return out
