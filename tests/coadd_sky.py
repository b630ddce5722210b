"""A small sky for the coadd tests: stars drawn by GalSim on a few distorted frames, written as null-weight images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import fitsio
import galsim
import numpy as np
from numpy.typing import NDArray

from balrogutils.fitsfile import Plane, write_images
from balrogutils.randomness import seed32
from balrogutils.wcs import ImageWCS

CENTRE = (39.8, 2.27)
SCALE = 0.263
SEEING = 0.9


def tile_header(size: int, scale: float = SCALE) -> dict[str, object]:
    """Return the TAN header of a square tile."""
    step = scale / 3600.0
    half = (size + 1) / 2.0
    return {
        "NAXIS": 2, "NAXIS1": size, "NAXIS2": size, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
        "CRVAL1": CENTRE[0], "CRVAL2": CENTRE[1], "CRPIX1": half, "CRPIX2": half,
        "CD1_1": -step, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": step, "EQUINOX": 2000.0, "RADESYS": "ICRS",
    }  # fmt: skip


def frame_header(size: int, dx: float, dy: float, angle: float, scale: float = 0.2625) -> dict[str, object]:
    """Return the TPV header of a frame shifted by (dx, dy) pixels, turned by `angle` degrees, with distortion."""
    step = scale / 3600.0
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    cards: dict[str, object] = {
        "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "CUNIT1": "deg", "CUNIT2": "deg",
        "CRVAL1": CENTRE[0], "CRVAL2": CENTRE[1], "CRPIX1": (size + 1) / 2.0 + dx, "CRPIX2": (size + 1) / 2.0 + dy,
        "CD1_1": -step * cos, "CD1_2": step * sin, "CD2_1": step * sin, "CD2_2": step * cos,
        "EQUINOX": 2000.0, "RADESYS": "ICRS",
    }  # fmt: skip
    for axis in (1, 2):
        cards |= {f"PV{axis}_{i}": 0.0 for i in (0, 2, 4, 5, 6, 7, 8, 9, 10)}
        # A cubic term of 40 per square degree moves the corner of a 200-pixel frame by some 0.005 pixels and of a
        # 1000-pixel frame by half a pixel: enough to tell TPV from TAN in the positions.
        cards |= {f"PV{axis}_1": 1.0, f"PV{axis}_7": 40.0, f"PV{axis}_9": 40.0}
    return cards


@dataclass
class Sky:
    """Stars at tile positions and how a frame sees them."""

    size: int = 200
    frame: int = 240
    stars: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)))
    """Rows of (row, col, magnitude) on the tile, zero-offset."""
    noise: float = 5.0
    seed: int = 11

    def draw(
        self, name: str, header: dict[str, object], magzp: float, sky: float = 0.0
    ) -> dict[str, NDArray[np.float32]]:
        """Return SCI, WGT and WGT_ME of one frame: no masks yet."""
        tile, wcs = ImageWCS(tile_header(self.size)), ImageWCS(header)
        image = galsim.ImageD(self.frame, self.frame)
        if len(self.stars):
            rows, cols = wcs.sky_to_pixel(*tile.pixel_to_sky(self.stars[:, 0], self.stars[:, 1]))
            for row, col, magnitude in zip(rows, cols, self.stars[:, 2], strict=True):
                star = galsim.Gaussian(fwhm=SEEING, flux=10 ** (0.4 * (magzp - magnitude)))
                position = galsim.PositionD(col + 1.0, row + 1.0)
                stamp = star.drawImage(center=position, nx=41, ny=41, wcs=wcs.galsim.local(position), dtype=float)
                both = stamp.bounds & image.bounds
                if both.isDefined():
                    image[both] += stamp[both]
        image.addNoise(
            galsim.GaussianNoise(galsim.BaseDeviate(seed32(self.seed, "test-noise", name)), sigma=self.noise)
        )
        weight = np.full(image.array.shape, 1.0 / self.noise**2, dtype=np.float32)
        return {"SCI": (image.array + sky).astype(np.float32), "WGT": weight, "WGT_ME": weight.copy()}


def write_frame(
    path: Path, planes: dict[str, NDArray[np.float32]], header: dict[str, object], mask: NDArray[np.int16] | None = None
) -> None:
    """Write a null-weight image: HDUs SCI, WGT, WGT_ME, MSK."""
    cards = fitsio.FITSHDR([{"name": key, "value": value} for key, value in {**header, "SATURATE": 60000.0}.items()])
    mask = np.zeros(planes["SCI"].shape, np.int16) if mask is None else mask
    everything = [
        Plane("SCI", planes["SCI"], cards),
        Plane("WGT", planes["WGT"]),
        Plane("WGT_ME", planes["WGT_ME"]),
        Plane("MSK", mask, cards),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_images(path, everything)
