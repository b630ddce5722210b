"""The geometry of a tile, as the archive gives it and as every later step reads it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from balrogutils.errors import ArchiveError, ProductError
from balrogutils.products import writing_text
from balrogutils.wcs import ImageWCS

__all__ = ["Geometry"]

# Pixels along a side; a DES tile has 10000. More is a mistake that would fill a disk before it was noticed.
_MAX_PIXELS = 65536
_REMEDY = "run the prep block (mode bit 1) for this tile"


@dataclass(frozen=True)
class Geometry:
    """Pixel grid, corners and unique area of one tile.

    Attributes
    ----------
    tilename : str
        Tile name.
    ra_cent, dec_cent : float
        Centre in degrees.
    naxis1, naxis2 : int
        Size in pixels along x and y.
    pixelscale : float
        Arcsec per pixel.
    crpix1, crpix2, crval1, crval2, cd1_1, cd1_2, cd2_1, cd2_2 : float
        Tangent-plane WCS, one-offset pixels and degrees.
    rac1, ..., decc4 : float
        Corners in degrees, in the order (1, 1), (naxis1, 1), (naxis1, naxis2), (1, naxis2) when made by `tangent`.
    uramin, uramax, udecmin, udecmax : float
        Area that belongs to no other tile, degrees; `uramin` is larger than `uramax` when it holds RA 0.
    extfact, extmag : dict
        Galactic extinction by band, as a flux factor (at most 1) and in magnitudes; empty where unknown.
    tileid : int
        The archive's number of the tile.
    """

    tilename: str
    ra_cent: float
    dec_cent: float
    naxis1: int
    naxis2: int
    pixelscale: float
    crpix1: float
    crpix2: float
    crval1: float
    crval2: float
    cd1_1: float
    cd1_2: float
    cd2_1: float
    cd2_2: float
    rac1: float
    rac2: float
    rac3: float
    rac4: float
    decc1: float
    decc2: float
    decc3: float
    decc4: float
    uramin: float
    uramax: float
    udecmin: float
    udecmax: float
    extfact: dict[str, float] = field(default_factory=dict)
    extmag: dict[str, float] = field(default_factory=dict)
    tileid: int = 0

    @classmethod
    def tangent(
        cls,
        tilename: str,
        ra_cent: float,
        dec_cent: float,
        naxis1: int,
        naxis2: int,
        pixelscale: float,
        extmag: Mapping[str, float] | None = None,
    ) -> Geometry:
        """Return the geometry of a north-up tangent-plane tile; the unique area is the box of the pixel edges.

        Parameters
        ----------
        tilename : str
            Tile name.
        ra_cent, dec_cent : float
            Centre in degrees: the tangent point, at pixel ((naxis1 + 1) / 2, (naxis2 + 1) / 2).
        naxis1, naxis2 : int
            Size in pixels.
        pixelscale : float
            Arcsec per pixel.
        extmag : mapping, optional
            Extinction by band in magnitudes.
        """
        wcs: dict[str, Any] = {
            "crpix1": (naxis1 + 1) / 2.0,
            "crpix2": (naxis2 + 1) / 2.0,
            "crval1": ra_cent % 360.0,
            "crval2": dec_cent,
            "cd1_1": -pixelscale / 3600.0,
            "cd1_2": 0.0,
            "cd2_1": 0.0,
            "cd2_2": pixelscale / 3600.0,
        }
        sky = ImageWCS(_cards(wcs))
        corners_ra, corners_dec = sky.pixel_to_sky([0, 0, naxis2 - 1, naxis2 - 1], [0, naxis1 - 1, naxis1 - 1, 0])
        middle_row, middle_col = (naxis2 - 1) / 2.0, (naxis1 - 1) / 2.0
        ura, udec = sky.pixel_to_sky(
            [middle_row, middle_row, -0.5, naxis2 - 0.5],
            [naxis1 - 0.5, -0.5, middle_col, middle_col],
        )
        corners = {f"rac{i + 1}": float(value) for i, value in enumerate(corners_ra)}
        corners |= {f"decc{i + 1}": float(value) for i, value in enumerate(corners_dec)}
        mags = {band: float(mag) for band, mag in (extmag or {}).items()}
        return cls(
            tilename=tilename,
            ra_cent=ra_cent % 360.0,
            dec_cent=dec_cent,
            naxis1=naxis1,
            naxis2=naxis2,
            pixelscale=pixelscale,
            **wcs,
            **cast(dict[str, Any], corners),
            uramin=float(ura[0]),
            uramax=float(ura[1]),
            udecmin=float(udec[2]),
            udecmax=float(udec[3]),
            extfact={band: 10.0 ** (-0.4 * mag) for band, mag in mags.items()},
            extmag=mags,
        )

    @classmethod
    def from_row(
        cls,
        row: Mapping[str, Any],
        *,
        extfact: Mapping[str, float] | None = None,
        extmag: Mapping[str, float] | None = None,
    ) -> Geometry:
        """Return the geometry of a row of the archive's table (lower-case names).

        A table that lacks the WCS, corners or unique area has them filled from the centre, size and pixel scale.

        Raises
        ------
        ArchiveError
            When the centre, size or pixel scale is missing or not a number.
        """
        tile = str(row.get("tilename"))
        try:
            base = cls.tangent(
                tile,
                float(row["ra_cent"]),
                float(row["dec_cent"]),
                int(row["naxis1"]),
                int(row["naxis2"]),
                float(row["pixelscale"]),
            )
        except KeyError as error:
            raise ArchiveError(f"the archive's tile geometry lacks {error}", tile=tile) from error
        except (TypeError, ValueError) as error:
            raise ArchiveError(f"the archive's tile geometry holds what is no number: {error}", tile=tile) from error
        except ProductError as error:
            raise ArchiveError(f"the archive's tile geometry is none: {error.message}", tile=tile) from error
        if (
            not math.isfinite(base.ra_cent + base.dec_cent)
            or not 1 <= base.naxis1 <= _MAX_PIXELS
            or not 1 <= base.naxis2 <= _MAX_PIXELS
            or not 0 < base.pixelscale < math.inf
        ):
            raise ArchiveError("the archive's tile geometry has a size, scale or centre that cannot be", tile=tile)
        given: dict[str, Any] = {
            key: float(row[key]) for key in _floats() if row.get(key) is not None and math.isfinite(float(row[key]))
        }
        mags = dict(extmag or {})
        facts = {band: 10.0 ** (-0.4 * mag) for band, mag in mags.items()} | dict(extfact or {})
        return dataclasses.replace(base, **given, extfact=facts, extmag=mags, tileid=int(row.get("id") or 0))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Geometry:
        """Read what `write` wrote.

        Raises
        ------
        ProductError
            When the file is missing or not a geometry.
        """
        file = Path(path)
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            return cls(**document)
        except FileNotFoundError as error:
            raise ProductError("the tile's geometry is not there", file=file, remedy=_REMEDY) from error
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
            raise ProductError(f"the tile's geometry cannot be read: {error}", file=file, remedy=_REMEDY) from error

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write JSON, whole or not at all; a file that already says the same is left alone (bands run side by side)."""
        text = json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"
        file = Path(path)
        if file.is_file() and file.read_text(encoding="utf-8") == text:
            return
        writing_text(file, text)

    def header(self) -> dict[str, Any]:
        """Return the FITS cards of the tile's pixel grid."""
        return {
            "NAXIS": 2,
            "NAXIS1": self.naxis1,
            "NAXIS2": self.naxis2,
            **_cards(dataclasses.asdict(self)),
        }

    def wcs(self) -> ImageWCS:
        """Return the WCS of the tile's pixel grid."""
        return ImageWCS(_cards(dataclasses.asdict(self)))

    def contains(self, ra: float, dec: float) -> bool:
        """Say whether a sky position falls on a pixel of the tile."""
        # The far side of the sky projects onto the plane as well.
        if math.cos(math.radians(_separation(ra, dec, self.ra_cent, self.dec_cent))) <= 0:
            return False
        row, col = self.wcs().sky_to_pixel(ra, dec)
        return bool(-0.5 <= row[0] < self.naxis2 - 0.5 and -0.5 <= col[0] < self.naxis1 - 0.5)

    @property
    def radius(self) -> float:
        """Degrees from the centre to the farthest corner."""
        corners = [(getattr(self, f"rac{i}"), getattr(self, f"decc{i}")) for i in range(1, 5)]
        return max(_separation(ra, dec, self.ra_cent, self.dec_cent) for ra, dec in corners)


def _separation(ra1: float, dec1: float, ra2: float, dec2: float) -> float:
    a1, d1, a2, d2 = np.deg2rad([ra1, dec1, ra2, dec2])
    # Haversine keeps its precision at small angles.
    h = math.sin((d2 - d1) / 2) ** 2 + math.cos(d1) * math.cos(d2) * math.sin((a2 - a1) / 2) ** 2
    return math.degrees(2 * math.asin(min(1.0, math.sqrt(h))))


def _floats() -> list[str]:
    wanted = ("crpix", "crval", "cd1_", "cd2_", "rac", "decc", "uramin", "uramax", "udecmin", "udecmax")
    return [f.name for f in dataclasses.fields(Geometry) if f.name.startswith(wanted)]


def _cards(values: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("crpix1", "crpix2", "crval1", "crval2", "cd1_1", "cd1_2", "cd2_1", "cd2_2")
    return {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "RADESYS": "ICRS",
        "EQUINOX": 2000.0,
        **{key.upper(): float(values[key]) for key in keys},
    }
