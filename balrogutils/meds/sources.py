"""Source images of cut-outs: the planes of one coadd or CCD, scaled and background-subtracted, one at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.errors import ProductError
from balrogutils.fitsfile import Header, read_header, read_image
from balrogutils.meds.cutouts import Grid
from balrogutils.psf import PSFEx
from balrogutils.wcs import ImageWCS

__all__ = ["PLANES", "PlaneFile", "SourceImage", "relative_scale"]

_log = logging.getLogger(__name__)

PLANES = ("image", "weight", "seg", "bmask")
_LAYOUT_CARDS = frozenset(
    ("SIMPLE", "XTENSION", "BITPIX", "PCOUNT", "GCOUNT", "EXTEND", "CHECKSUM", "DATASUM", "TFIELDS")
)
_TEXT_CARDS = frozenset(("HISTORY", "COMMENT", "CONTINUE"))


class PlaneFile(NamedTuple):
    """Where one plane of an image is."""

    path: Path
    ext: str | int


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

    def _read(self, kind: str) -> NDArray[Any]:
        file = self.files[kind]
        pixels = read_image(file.path, file.ext)
        if pixels is None or pixels.shape != self.grid.shape:
            raise ProductError(
                f"the {kind} plane has shape {None if pixels is None else pixels.shape}, the image {self.grid.shape}",
                file=file.path,
                key=str(file.ext),
            )
        return pixels

    def planes(self, kinds: Sequence[str] = PLANES) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield (kind, pixels) of each plane, as it goes into the cut-outs.

        Parameters
        ----------
        kinds : sequence of str
            Of ``image weight seg bmask``; yielded in this order.

        Notes
        -----
        ``image = (image - bkg) scale`` and ``weight / scale^2`` are computed in double precision and rounded once.
        Pixels whose image is not finite get image 0 and weight 0; a weight that is not finite, is negative, or has an
        unusable mask bit becomes 0. `unusable_pixels` counts the first kind, `weightless` says whether no weight is
        left at all.

        Raises
        ------
        ProductError
            A plane that is missing, damaged or of another shape.
        """
        bad: NDArray[np.bool_] | None = None
        for kind in (kind for kind in PLANES if kind in kinds):
            pixels = self._read(kind)
            if kind == "image":
                pixels, bad = self._scaled_image(pixels)
            elif kind == "weight":
                pixels = self._scaled_weight(pixels, bad)
                bad = None
            yield kind, pixels.astype(self.dtypes[kind], copy=False)

    def _scaled_image(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        if "bkg" in self.files or self.scale != 1.0:
            pixels = pixels.astype(np.float64)
            if "bkg" in self.files:
                pixels -= self._read("bkg")
            pixels *= self.scale
        # One sum finds out cheaply whether any pixel is not finite.
        if np.isfinite(pixels.sum(dtype=np.float64)):
            return pixels, None
        bad = ~np.isfinite(pixels)
        self.unusable_pixels = int(bad.sum())
        if not self.unusable_pixels:
            return pixels, None
        _log.warning("%s: %d pixels are not finite and get weight 0", self.files["image"].path, self.unusable_pixels)
        return np.where(bad, pixels.dtype.type(0), pixels), bad

    def _scaled_weight(self, pixels: NDArray[Any], bad: NDArray[np.bool_] | None) -> NDArray[Any]:
        if self.scale != 1.0:
            pixels = pixels.astype(np.float64)
            pixels *= 1.0 / self.scale**2
        if not (pixels.size and pixels.min() >= 0 and np.isfinite(pixels.max())):
            pixels = np.where(np.isfinite(pixels) & (pixels > 0), pixels, pixels.dtype.type(0))
        if bad is not None:
            pixels = np.where(bad, pixels.dtype.type(0), pixels)
        if self.unusable_bmask:
            pixels = np.where(self._read("bmask") & self.unusable_bmask, pixels.dtype.type(0), pixels)
        self.weightless = not pixels.any()
        if self.weightless:
            _log.warning("%s: no pixel has weight; its cut-outs are kept with weight 0", self.files["weight"].path)
        return pixels
