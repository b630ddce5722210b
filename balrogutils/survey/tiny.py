"""A survey of a few small CCDs, built in seconds: for tests and for a first look."""

from __future__ import annotations

import math
from collections.abc import Sequence

from balrogutils.survey.parameters import SurveyParameters

__all__ = ["tiny_survey"]

_WAVELENGTHS = {"g": 4820.0, "r": 6423.0, "i": 7807.0, "z": 9158.0}
_WIDTH = 200
_SCALE = 0.263
_CCD_ROWS, _GAP = 272, 10


def tiny_survey(
    bands: Sequence[str] = ("r",), count: int = 1, exposures: int = 2, seed: int = 7, **changes: object
) -> SurveyParameters:
    """Return the parameters of a tiny survey.

    Parameters
    ----------
    bands : sequence of str
        Bands; all of them make the detection image.
    count : int
        Tiles of 200 x 200 pixels in a row, at most 20: DES0239+0216, its neighbour DES0240+0216 and so on.
    exposures : int
        Exposures of each band, at most 8; each is a row of CCDs of 272 x 256 pixels, as many as the tiles need.
    seed : int
        Of every random stream.
    **changes
        Top-level keys of `SurveyParameters` to replace.

    Returns
    -------
    SurveyParameters
    """
    width = _WIDTH * _SCALE / 3600.0
    # The border of the first two lies at RA 40.
    centres = [(f"DES{239 + number:04d}+0216", 40.0 + (number - 0.5) * width) for number in range(count)]
    # With a margin for the dithers.
    ccds = math.ceil((count * _WIDTH + 6 * _GAP) / (_CCD_ROWS + _GAP))
    steps = [(0.0, 0.0), (3.0, -2.0), (-3.0, 2.0), (2.0, 3.0), (-2.0, -3.0), (4.0, 1.0), (-4.0, -1.0), (1.0, 4.0)][
        :exposures
    ]
    data: dict[str, object] = {
        "seed": seed,
        "tiles": [{"name": name, "ra": ra, "dec": 2.2744} for name, ra in centres],
        "tile_pixels": _WIDTH,
        "tile_scale": _SCALE,
        "bands": {
            band: {
                "wavelength": _WAVELENGTHS.get(band, 6000.0),
                "sky": [800, 1100],
                "zero_point": 31.2,
                "seeing_factor": 1.0,
                "extinction": 0.1,
            }
            for band in bands
        },
        "dithers": steps,
        "dither_jitter": 0.3,
        "exposure_time": 90,
        "camera": {
            "ccd_columns": 256,
            "ccd_rows": _CCD_ROWS,
            "mosaic": [1, ccds],
            "gap": _GAP,
            "pixel_scale": 0.2626,
            "edge": 4,
            "near_edge": 8,
            "read_noise": [5.2, 7.0],
            "gain": [0.96, 1.04],
            "saturation": [140000, 160000],
        },
        "optics": {
            "fwhm": [0.88, 1.1],
            "beta": 3.5,
            "fwhm_variation": 0.03,
            "ellipticity": 0.015,
            "ellipticity_variation": 0.01,
            "rotation": 0.2,
            "distortion": 1.0,
            "header_offset": 0.1,
        },
        "population": {
            "stars": 30.0,
            "star_magnitudes": [17.0, 22.0],
            "star_slope": 0.1,
            "galaxies": 15.0,
            "galaxy_magnitudes": [19.0, 23.5],
            "galaxy_slope": 0.3,
            "bright_stars": 1,
            "bright_magnitudes": [12.5, 13.0],
        },
        "defects": {
            "bad_columns": 60.0,
            "cosmic_rays": 60.0,
            "background": 4.0,
            "star_mask_magnitude": 15.0,
            "streak": True,
        },
        "psf_model": {"size": 31, "sampling": 1.0, "degree": 0, "min_stars": 5, "vignette": 31},
        "coadds": {"det": list(bands)},
    }
    return SurveyParameters.model_validate({**data, **changes})
