"""Pointings, CCDs and their world coordinates, seeing and electronics: everything about an exposure but its pixels."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.archive.geometry import Geometry
from balrogutils.errors import ConfigError
from balrogutils.randomness import stream
from balrogutils.survey.parameters import SurveyParameters, Tile
from balrogutils.wcs import ImageWCS

__all__ = ["Chip", "Exposure", "PsfField", "chips", "exposures", "field_centre", "geometry_of"]

_FIRST_EXPOSURE = 229301
_FIRST_NIGHT = datetime.date(2013, 8, 31)
_MJD_ZERO = datetime.date(1858, 11, 17)
_REQUEST = 2958
# Rms of the TPV terms at distortion 1: linear terms, then quadratic (per degree) and cubic (per square degree).
_PV_RMS = {1: 3e-4, 2: 3e-4, 4: 5e-3, 5: 5e-3, 6: 5e-3, 7: 8e-3, 8: 8e-3, 9: 8e-3, 10: 8e-3}


@dataclass(frozen=True)
class PsfField:
    """Moffat PSF of one exposure over the focal plane.

    Attributes
    ----------
    fwhm : float
        At the centre of the field, arcsec.
    beta : float
        Moffat index.
    fwhm_terms : tuple of float
        Relative change along x and y, and with the square of the distance from the centre.
    shear : tuple of float
        Reduced shear (g1, g2) at the centre, along u (west) and v (north).
    shear_terms : tuple of float
        Change of g1 along x and y, then of g2.
    radius : float
        Pixels from the centre of the focal plane that count as 1.
    """

    fwhm: float
    beta: float
    fwhm_terms: tuple[float, float, float]
    shear: tuple[float, float]
    shear_terms: tuple[float, float, float, float]
    radius: float

    def at(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return (FWHM in arcsec, g1, g2) at focal-plane positions in pixels from the centre of the field."""
        p, q = np.asarray(x, float) / self.radius, np.asarray(y, float) / self.radius
        a, b, c = self.fwhm_terms
        d, e, f, g = self.shear_terms
        fwhm = self.fwhm * (1.0 + a * p + b * q + c * (p * p + q * q))
        return fwhm, self.shear[0] + d * p + e * q, self.shear[1] + f * p + g * q


@dataclass(frozen=True)
class Exposure:
    """One pointing in one band."""

    number: int
    band: str
    night: datetime.date
    mjd: float
    ra: float
    dec: float
    rotation: float
    sky: float
    psf: PsfField
    attempt: int
    streak: bool

    @property
    def unit(self) -> str:
        """Name of the exposure, ``D<E>``."""
        return f"D{self.number:08d}"

    @property
    def request(self) -> str:
        """Processing request, ``r<NNNN>``."""
        return f"r{_REQUEST}"


@dataclass(frozen=True)
class Chip:
    """One CCD of one exposure.

    Attributes
    ----------
    exposure : Exposure
        Its exposure.
    number : int
        CCD number, from 1.
    shape : (int, int)
        Rows and columns.
    origin : (float, float)
        Focal-plane (x, y) of the centre of pixel (row 0, col 0), pixels from the centre of the field.
    true_wcs, header_wcs : dict
        Cards of the right WCS (the SCAMP head) and of the one in the image header.
    zero_point : float
        Magnitude of one image unit.
    gain, read_noise : (float, float)
        Of amplifiers A (right half) and B (left half): electrons per image unit, electrons.
    saturation : float
        Full well, electrons.
    tiles : tuple of str
        Tiles it overlaps.
    """

    exposure: Exposure
    number: int
    shape: tuple[int, int]
    origin: tuple[float, float]
    true_wcs: dict[str, Any]
    header_wcs: dict[str, Any]
    zero_point: float
    gain: tuple[float, float]
    read_noise: tuple[float, float]
    saturation: float
    tiles: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """``D<E>_<b>_c<N>_r<NNNN>p01``."""
        return f"{self.exposure.unit}_{self.exposure.band}_c{self.number:02d}_{self.exposure.request}p01"

    @property
    def band(self) -> str:
        """Band of the exposure."""
        return self.exposure.band

    @cached_property
    def wcs(self) -> ImageWCS:
        """The right WCS."""
        return ImageWCS(self.true_wcs)

    def psf_at(
        self, row: ArrayLike, col: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return (FWHM in arcsec, g1, g2) of the PSF at zero-offset pixels."""
        return self.exposure.psf.at(np.asarray(col, float) + self.origin[0], np.asarray(row, float) + self.origin[1])


def geometry_of(tile: Tile, parameters: SurveyParameters) -> Geometry:
    """Return the pixel grid of a tile."""
    extinction = {name: band.extinction for name, band in parameters.bands.items()}
    n = parameters.tile_pixels
    return Geometry.tangent(tile.name, tile.ra, tile.dec, n, n, parameters.tile_scale, extinction)


def field_centre(parameters: SurveyParameters) -> tuple[float, float]:
    """Return (ra, dec) in degrees of the common centre of the tiles: the direction of their mean unit vector."""
    ra, dec = np.deg2rad([[tile.ra, tile.dec] for tile in parameters.tiles]).T
    x, y, z = (np.mean(v) for v in (np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)))
    return math.degrees(math.atan2(y, x)) % 360.0, math.degrees(math.atan2(z, math.hypot(x, y)))


def _focal_radius(parameters: SurveyParameters) -> float:
    camera = parameters.camera
    nx, ny = camera.mosaic
    return 0.5 * math.hypot(nx * (camera.ccd_columns + camera.gap), ny * (camera.ccd_rows + camera.gap))


def exposures(parameters: SurveyParameters) -> list[Exposure]:
    """Return the exposures of all bands, those of one band together."""
    optics = parameters.optics
    centre_ra, centre_dec = field_centre(parameters)
    count = len(parameters.dithers)
    made: list[Exposure] = []
    for band_index, (name, band) in enumerate(parameters.bands.items()):
        # Each band's exposures divide the range of seeing evenly, in an order of their own.
        steps = (stream(parameters.seed, "seeing", name).permutation(count) + 0.5) / count
        for index, (west, north) in enumerate(parameters.dithers):
            random = stream(parameters.seed, "exposure", name, index)
            west_jitter, north_jitter = random.uniform(-1, 1, 2) * parameters.dither_jitter
            dec = float(centre_dec + (north + north_jitter) / 3600.0)
            ra = float(centre_ra - (west + west_jitter) / 3600.0 / math.cos(math.radians(dec))) % 360.0
            fwhm = (optics.fwhm[0] + steps[index] * (optics.fwhm[1] - optics.fwhm[0])) * band.seeing_factor
            tilt, angle = optics.fwhm_variation, random.uniform(0, 2 * math.pi)
            terms = (0.6 * tilt * math.cos(angle), 0.6 * tilt * math.sin(angle), tilt * random.uniform(0.2, 0.6))
            shear = random.normal(0, optics.ellipticity / math.sqrt(2), 2)
            shear_terms = random.normal(0, optics.ellipticity_variation / math.sqrt(2), 4)
            sequence = band_index * count + index
            night = _FIRST_NIGHT + datetime.timedelta(days=31 * index + 2 * band_index)
            made.append(
                Exposure(
                    number=_FIRST_EXPOSURE + 7 * sequence,
                    band=name,
                    night=night,
                    mjd=(night - _MJD_ZERO).days + 0.1 + 0.002 * sequence,
                    ra=ra,
                    dec=dec,
                    rotation=float(random.uniform(-1, 1) * optics.rotation),
                    sky=float(random.uniform(*band.sky)),
                    psf=PsfField(
                        float(fwhm),
                        optics.beta,
                        terms,
                        tuple(shear.tolist()),
                        tuple(shear_terms.tolist()),
                        _focal_radius(parameters),
                    ),
                    attempt=600000 + sequence,
                    # One satellite in the survey, in the band in the middle.
                    streak=parameters.defects.streak
                    and index == count // 2
                    and band_index == len(parameters.bands) // 2,
                )
            )
    return made


def chips(parameters: SurveyParameters) -> list[Chip]:
    """Return every CCD that overlaps a tile, in the order of exposure and CCD number.

    Raises
    ------
    ConfigError
        When a band has no CCD on one of the tiles.
    """
    tiles = [geometry_of(tile, parameters) for tile in parameters.tiles]
    found = [chip for exposure in exposures(parameters) for chip in _chips_of(exposure, parameters, tiles)]
    for tile in tiles:
        for band in parameters.bands:
            if not any(chip.band == band and tile.tilename in chip.tiles for chip in found):
                raise ConfigError(
                    "no CCD of the survey overlaps this tile",
                    tile=tile.tilename,
                    band=band,
                    key="dithers",
                    remedy="mend the pointings",
                )
    return found


def _chips_of(exposure: Exposure, parameters: SurveyParameters, tiles: list[Geometry]) -> Iterator[Chip]:
    camera = parameters.camera
    nx, ny = camera.mosaic
    shape = (camera.ccd_rows, camera.ccd_columns)
    pitch_x, pitch_y = camera.ccd_columns + camera.gap, camera.ccd_rows + camera.gap
    for number in range(1, nx * ny + 1):
        j, i = divmod(number - 1, nx)
        # Focal-plane position of the first pixel's centre; the mosaic is centred on the optical axis.
        x0 = (i - nx / 2) * pitch_x + 0.5 * camera.gap + 0.5
        y0 = (j - ny / 2) * pitch_y + 0.5 * camera.gap + 0.5
        true, header = _wcs_cards(exposure, number, (x0, y0), parameters)
        overlapped = _overlapping(ImageWCS(true), shape, tiles)
        if not overlapped:
            continue
        ccd = stream(parameters.seed, "ccd", number)
        zero_points = stream(parameters.seed, "zero point", exposure.number, number)
        exposure_term = stream(parameters.seed, "zero point", exposure.number).normal(0, 0.06)
        yield Chip(
            exposure=exposure,
            number=number,
            shape=shape,
            origin=(x0, y0),
            true_wcs=true,
            header_wcs=header,
            zero_point=float(parameters.bands[exposure.band].zero_point + exposure_term + zero_points.normal(0, 0.015)),
            gain=tuple(ccd.uniform(*camera.gain, 2).tolist()),
            read_noise=tuple(ccd.uniform(*camera.read_noise, 2).tolist()),
            saturation=float(ccd.uniform(*camera.saturation)),
            tiles=overlapped,
        )


def _wcs_cards(
    exposure: Exposure, number: int, origin: tuple[float, float], parameters: SurveyParameters
) -> tuple[dict[str, Any], dict[str, Any]]:
    scale = parameters.camera.pixel_scale / 3600.0
    cos, sin = math.cos(math.radians(exposure.rotation)), math.sin(math.radians(exposure.rotation))
    random = stream(parameters.seed, "distortion", number)
    shared = stream(parameters.seed, "distortion")
    amount = parameters.optics.distortion
    distortion = {}
    for axis in (1, 2):
        for term, rms in _PV_RMS.items():
            # Most of the distortion is the optics', a little the CCD's own tilt and position.
            value = amount * rms * (shared.normal() + (0.1 if term > 2 else 0.2) * random.normal())
            distortion[f"PV{axis}_{term}"] = value + (1.0 if term == 1 else 0.0)
        distortion[f"PV{axis}_0"] = amount * 1e-5 * random.normal()
    true: dict[str, Any] = {
        "EQUINOX": 2000.0,
        "RADESYS": "ICRS",
        "CTYPE1": "RA---TPV",
        "CTYPE2": "DEC--TPV",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": exposure.ra,
        "CRVAL2": exposure.dec,
        "CRPIX1": 1.0 - origin[0],
        "CRPIX2": 1.0 - origin[1],
        # As DECam: x runs south and y runs east.
        "CD1_1": scale * sin,
        "CD1_2": scale * cos,
        "CD2_1": -scale * cos,
        "CD2_2": scale * sin,
        **{f"PV{axis}_{term}": distortion[f"PV{axis}_{term}"] for axis in (1, 2) for term in (0, *_PV_RMS)},
    }
    off = stream(parameters.seed, "header wcs", exposure.number, number)
    angle = off.uniform(0, 2 * math.pi)
    size = parameters.optics.header_offset / 3600.0 * off.uniform(0.8, 1.2)
    header = dict(true)
    header["CRVAL1"] = (exposure.ra + size * math.cos(angle) / math.cos(math.radians(exposure.dec))) % 360.0
    header["CRVAL2"] = exposure.dec + size * math.sin(angle)
    for axis in (1, 2):
        for term in (4, 5, 6):
            header[f"PV{axis}_{term}"] = 0.98 * true[f"PV{axis}_{term}"]
    return true, header


def _border(shape: tuple[int, int], points: int = 65) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    side = np.linspace(-0.5, 0.5, points)
    half = np.full(points, 0.5)
    rows = np.concatenate([side, side, half, -half]) * shape[0] + (shape[0] - 1) / 2
    cols = np.concatenate([half, -half, side, side]) * shape[1] + (shape[1] - 1) / 2
    return rows, cols


def _overlapping(wcs: ImageWCS, shape: tuple[int, int], tiles: list[Geometry]) -> tuple[str, ...]:
    """Return the tiles that share pixels with a CCD.

    Two convex outlines overlap when a border point of one is in the other.
    """
    names = []
    for tile in tiles:
        grid = tile.wcs()
        tile_shape = (tile.naxis2, tile.naxis1)
        ccd_on_tile = grid.sky_to_pixel(*wcs.pixel_to_sky(*_border(shape)))
        tile_on_ccd = wcs.sky_to_pixel(*grid.pixel_to_sky(*_border(tile_shape)))
        if _any_inside(ccd_on_tile, tile_shape) or _any_inside(tile_on_ccd, shape):
            names.append(tile.tilename)
    return tuple(names)


def _any_inside(position: tuple[NDArray[np.float64], NDArray[np.float64]], shape: tuple[int, int]) -> bool:
    row, col = position
    return bool(np.any((row > -0.5) & (row < shape[0] - 0.5) & (col > -0.5) & (col < shape[1] - 0.5)))
