"""One null-weight image to inject into, and how."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import fitsio
import galsim
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InputError, ProductError
from balrogutils.fitsfile import read_header
from balrogutils.injection.catalogs import ZERO_POINT
from balrogutils.settings.drawing import Psf
from balrogutils.wcs import ImageWCS

__all__ = ["Chip", "Recipe"]

_OF_THE_TILE = Psf(type="DES_PSFEx")


@dataclass(frozen=True)
class Chip:
    """One null-weight image, base and injected.

    Attributes
    ----------
    name, band : str
        Chip name ``D<E>_<b>_c<N>_r<NNNN>p<NN>`` and band.
    base, target : pathlib.Path
        Null-weight image of the base run, and the one to write.
    psf_file : pathlib.Path
        PSFEx model of the tile.
    magzp : float
        Zero point of the image.
    background : pathlib.Path or None
        The chip's background.
    """

    name: str
    band: str
    base: Path
    target: Path
    psf_file: Path
    magzp: float
    background: Path | None = None

    @cached_property
    def header(self) -> fitsio.FITSHDR:
        """Header of the SCI plane."""
        return read_header(self.base, "SCI")

    @cached_property
    def wcs(self) -> ImageWCS:
        """WCS of the chip."""
        return ImageWCS(self.header)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.header["NAXIS2"]), int(self.header["NAXIS1"])

    @cached_property
    def scale(self) -> float:
        """Arcsec per pixel at the middle."""
        middle = galsim.PositionD(0.5 * (self.shape[1] + 1), 0.5 * (self.shape[0] + 1))
        return float(np.sqrt(self.wcs.galsim.local(image_pos=middle).pixelArea()))

    def near(
        self, ra: NDArray[np.float64], dec: NDArray[np.float64], reach: NDArray[np.float64] | float = 0.0
    ) -> NDArray[np.int64]:
        """Return which positions (degrees) may lie within `reach` (arcsec) of the chip.

        A distorted WCS may bring far objects back onto the chip, so only those near on the sky are to be asked for.
        """
        height, width = self.shape
        ra0, dec0 = self.wcs.pixel_to_sky(0.5 * (height - 1), 0.5 * (width - 1))
        away = 3600.0 * _separation(ra, dec, ra0[0], dec0[0])
        return np.flatnonzero(away <= 1.1 * (self.scale * (0.5 * np.hypot(height, width) + 2.0) + reach))

    @property
    def flux_factor(self) -> float:
        """Chip units per unit of flux at zero point 30."""
        return float(10.0 ** (0.4 * (self.magzp - ZERO_POINT)))

    @cached_property
    def gains(self) -> NDArray[np.float64]:
        """Gain of each column, electrons per unit, shape (ncol,).

        The gain of the amplifier that reads a column (GAINA, GAINB over DATASECA, DATASECB) where the header says which
        does; else the mean of GAINA and GAINB, or GAIN.

        Raises
        ------
        InputError
            When the header has no gain.
        """
        found = {key: self.header.get(key) for key in ("GAINA", "GAINB", "GAIN")}
        known = {
            key: float(gain)
            for key, gain in found.items()
            if isinstance(gain, (int, float)) and np.isfinite(gain) and gain > 0
        }
        if not known:
            raise InputError(
                "Poisson noise needs the gain, and the image has no positive GAINA, GAINB or GAIN",
                band=self.band,
                chip=self.name,
                file=self.base,
                key="image.noise",
                remedy="remove noise from the injection configuration",
            )
        amplifiers = [known[key] for key in ("GAINA", "GAINB") if key in known] or list(known.values())
        width = self.shape[1]
        gains = np.full(width, np.mean(amplifiers))
        sections = [re.fullmatch(r"\[(\d+):(\d+),.*\]", str(self.header.get(f"DATASEC{amp}", ""))) for amp in "AB"]
        if len(amplifiers) == 2 and all(sections):
            edges = [sorted(int(edge) for edge in section.groups()) for section in sections if section]
            # The sections of a cut-out speak of the whole CCD.
            if sorted(edges) == [[1, min(edges)[1]], [min(edges)[1] + 1, width]]:
                for (first, last), gain in zip(edges, amplifiers, strict=True):
                    gains[first - 1 : last] = gain
        return gains

    @property
    def numbers(self) -> tuple[int, int]:
        """Exposure and CCD number, from the name."""
        parts = self.name.split("_")
        try:
            return int(parts[0].removeprefix("D")), int(parts[2].removeprefix("c"))
        except (IndexError, ValueError) as error:
            raise ProductError(
                "a chip name is not D<exposure>_<band>_c<CCD>_r<run>", chip=self.name, band=self.band, file=self.base
            ) from error


@dataclass(frozen=True)
class Recipe:
    """What does not differ between chips.

    Attributes
    ----------
    gsparams : galsim.GSParams
        Accuracy of galaxies.
    poisson : bool
        Whether the light gets Poisson noise.
    seed, tile, realization
        Keys of the random streams.
    noise_realization : str
        The realization that names the noise: the first of a shear pair.
    update_weights : bool
        Whether the variance of the light goes into WGT and WGT_ME.
    mask_bit : int or None
        Bit of MSK that is set under the stamps.
    blank : str or None
        Noise model of a blank image to inject into, one of `balrogutils.injection.canvas.BLANKS`.
    recenter : bool
        Whether the PSF is moved so that its centroid is at the object's position.
    psf : Psf
        Which models; see `balrogutils.injection.chippsf`.
    base : pathlib.Path
        Directory that relative names start from.
    """

    gsparams: galsim.GSParams
    poisson: bool
    seed: int
    tile: str
    realization: str
    noise_realization: str
    update_weights: bool = False
    mask_bit: int | None = None
    blank: str | None = None
    recenter: bool = False
    psf: Psf = _OF_THE_TILE
    base: Path = Path()


def _separation(ra: NDArray[np.float64], dec: NDArray[np.float64], ra0: float, dec0: float) -> NDArray[np.float64]:
    """Return distances in degrees."""
    lon, lat, lon0, lat0 = (np.radians(value) for value in (ra, dec, ra0, dec0))
    h = np.sin(0.5 * (lat - lat0)) ** 2 + np.cos(lat) * np.cos(lat0) * np.sin(0.5 * (lon - lon0)) ** 2
    return np.degrees(2.0 * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0))))
