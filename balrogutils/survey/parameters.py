"""Every number of the synthetic survey, read from ``etc/survey.yaml``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Self

import pydantic

from balrogutils.settings.yamlfile import Strict, load_yaml, parse

__all__ = ["Band", "Camera", "Coadds", "Defects", "Optics", "Population", "PsfModel", "SurveyParameters", "Tile"]

Positive = Annotated[float, pydantic.Field(gt=0)]
Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]
Span = tuple[float, float]


def _ordered(span: Span) -> Span:
    if span[1] < span[0]:
        raise ValueError("the second value of a range must not be below the first")
    return span


Range = Annotated[Span, pydantic.AfterValidator(_ordered)]


class Tile(Strict):
    """One tile: name and centre (degrees, ICRS)."""

    name: Annotated[str, pydantic.Field(pattern=r"^DES\d{4}[+-]\d{4}$")]
    ra: Annotated[float, pydantic.Field(ge=0, lt=360)]
    dec: Annotated[float, pydantic.Field(ge=-89, le=89)]


class Band(Strict):
    """One filter as the camera sees it.

    Attributes
    ----------
    wavelength : float
        Centre in Angstrom, for the FILTER card.
    sky : (float, float)
        Range of the sky level of an exposure, electrons per pixel.
    zero_point : float
        Mean magnitude of a source of one image unit in one exposure.
    seeing_factor : float
        Seeing relative to the i band.
    extinction : float
        Galactic extinction in magnitudes, for the tile geometry only: the sky is drawn without it.
    """

    wavelength: Positive
    sky: Range
    zero_point: float
    seeing_factor: Positive
    extinction: Annotated[float, pydantic.Field(ge=0)]


class Camera(Strict):
    """The mosaic: CCDs of `ccd_columns` x `ccd_rows` pixels, `mosaic` (across x, across y) of them, `gap` pixels apart.

    Attributes
    ----------
    pixel_scale : float
        Arcsec per pixel at the centre of the field.
    edge, near_edge : int
        Width in pixels of the border with bit EDGE, and of the wider one with bit NEAREDGE.
    read_noise, gain, saturation : (float, float)
        Ranges of an amplifier's read noise (electrons), gain (electrons per image unit) and full well (electrons).
    """

    ccd_columns: Annotated[int, pydantic.Field(ge=64, le=16384)]
    ccd_rows: Annotated[int, pydantic.Field(ge=64, le=16384)]
    mosaic: tuple[Annotated[int, pydantic.Field(ge=1, le=16)], Annotated[int, pydantic.Field(ge=1, le=16)]]
    gap: Annotated[int, pydantic.Field(ge=0)]
    pixel_scale: Positive
    edge: Annotated[int, pydantic.Field(ge=0)]
    near_edge: Annotated[int, pydantic.Field(ge=0)]
    read_noise: Range
    gain: Range
    saturation: Range


class Optics(Strict):
    """Seeing and astrometry of the exposures.

    Attributes
    ----------
    fwhm : (float, float)
        Range of the i-band seeing of an exposure, arcsec; the exposures of a band divide it evenly.
    beta : float
        Moffat index; 1.5, 2.5 and 3.5 have closed forms and draw several times faster than others.
    fwhm_variation, ellipticity, ellipticity_variation : float
        Relative change of the FWHM from the centre of the field to its edge; rms reduced shear of an exposure, and of
        its change over the field.
    rotation : float
        Largest rotation of the camera, degrees.
    distortion : float
        Factor on the rms of the TPV terms.
    header_offset : float
        Arcsec by which the WCS of the image header is off; the SCAMP head is right.
    """

    fwhm: Range
    beta: Annotated[float, pydantic.Field(gt=1.1, le=10)]
    fwhm_variation: Annotated[float, pydantic.Field(ge=0, lt=0.5)]
    ellipticity: Annotated[float, pydantic.Field(ge=0, lt=0.2)]
    ellipticity_variation: Annotated[float, pydantic.Field(ge=0, lt=0.2)]
    rotation: Annotated[float, pydantic.Field(ge=0, le=180)]
    distortion: Annotated[float, pydantic.Field(ge=0, le=10)]
    header_offset: Annotated[float, pydantic.Field(ge=0, le=10)]


class Population(Strict):
    """The sky: stars and galaxies, i-band AB magnitudes.

    Attributes
    ----------
    stars, galaxies : float
        Number per square arcmin between the limits.
    star_magnitudes, galaxy_magnitudes : (float, float)
        Limits.
    star_slope, galaxy_slope : float
        d log10 N / dm.
    bright_stars : int
        Stars of `bright_magnitudes` in each tile, so that every tile has saturation and bleed trails.
    bright_magnitudes : (float, float)
        Their range.
    """

    stars: Annotated[float, pydantic.Field(ge=0, le=1000)]
    star_magnitudes: Range
    star_slope: Positive
    galaxies: Annotated[float, pydantic.Field(ge=0, le=1000)]
    galaxy_magnitudes: Range
    galaxy_slope: Positive
    bright_stars: Annotated[int, pydantic.Field(ge=0, le=1000)]
    bright_magnitudes: Range


class Defects(Strict):
    """What goes wrong on a CCD.

    Attributes
    ----------
    bad_columns, cosmic_rays : float
        Mean number per CCD of 1024 x 1024 pixels.
    background : float
        Peak of the residual background map, electrons.
    star_mask_magnitude : float
        Stars brighter than this in the exposure's band get bit STAR around them.
    streak : bool
        Whether a satellite crosses one exposure.
    """

    bad_columns: Annotated[float, pydantic.Field(ge=0)]
    cosmic_rays: Annotated[float, pydantic.Field(ge=0)]
    background: Annotated[float, pydantic.Field(ge=0)]
    star_mask_magnitude: float
    streak: bool


class PsfModel(Strict):
    """Settings of PSFEx.

    Attributes
    ----------
    size, sampling : int, float
        Samples across the model (odd), and their step in image pixels.
    degree : int
        Of the polynomial in x and y.
    min_stars : int
        A CCD with fewer accepted stars stops the build.
    vignette : int
        Size of the star cut-outs, pixels (odd).
    """

    size: Annotated[int, pydantic.Field(ge=15, le=101)]
    sampling: Annotated[float, pydantic.Field(gt=0, le=2)]
    degree: Annotated[int, pydantic.Field(ge=0, le=4)]
    min_stars: Annotated[int, pydantic.Field(ge=1)]
    vignette: Annotated[int, pydantic.Field(ge=15, le=101)]

    @pydantic.model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.size % 2 == 0 or self.vignette % 2 == 0:
            raise ValueError("size and vignette must be odd")
        if self.vignette < self.size * self.sampling:
            raise ValueError(
                f"the cut-outs of {self.vignette} pixels do not hold a model of {self.size * self.sampling:.1f} pixels"
            )
        return self


class Coadds(Strict):
    """Bands of the detection image of the archive's own coadds, in the order of their combination."""

    det: tuple[str, ...]


class SurveyParameters(Strict):
    """The synthetic survey.

    Attributes
    ----------
    seed : int
        Every random stream is keyed by it.
    tiles : tuple of Tile
        Exposures are pointed around their common centre.
    tile_pixels : int
        Pixels a side.
    bands : dict of Band
        In the order of processing.
    dithers : tuple of (float, float)
        Pointing offsets (west, north) in arcsec from the common centre of the tiles: one exposure of each band each.
    dither_jitter : float
        Largest random addition to each, arcsec.
    exposure_time : float
        Seconds.
    """

    seed: int
    tiles: Annotated[tuple[Tile, ...], pydantic.Field(min_length=1)]
    tile_pixels: Annotated[int, pydantic.Field(ge=64, le=20000)]
    tile_scale: Positive
    bands: Annotated[dict[str, Band], pydantic.Field(min_length=1)]
    dithers: Annotated[tuple[tuple[float, float], ...], pydantic.Field(min_length=1)]
    dither_jitter: Annotated[float, pydantic.Field(ge=0)]
    exposure_time: Positive
    camera: Camera
    optics: Optics
    population: Population
    defects: Defects
    psf_model: PsfModel
    coadds: Coadds

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [tile.name for tile in self.tiles]
        if len(set(names)) != len(names):
            raise ValueError("a tile is given twice")
        unknown = [band for band in self.coadds.det if band not in self.bands]
        if unknown or not self.coadds.det:
            raise ValueError(f"coadds.det names bands the survey lacks: {' '.join(unknown) or 'none given'}")
        return self

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SurveyParameters:
        """Read a survey file such as ``etc/survey.yaml``.

        Raises
        ------
        ConfigError
            When it is missing or wrong, with the line or key.
        """
        return parse(cls, load_yaml(path), Path(path))
