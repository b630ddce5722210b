"""All files of one CCD: image, background, segmentation, PSF model and SCAMP heads, as the archive delivers them."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any, NamedTuple

import fitsio
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from balrogutils.fitsfile import Plane, pack, write_images
from balrogutils.masks import MaskBit, mask_of
from balrogutils.products import writing_text
from balrogutils.survey import places
from balrogutils.survey.detector import Readout, expose, sky_level
from balrogutils.survey.drawing import draw_chip
from balrogutils.survey.parameters import SurveyParameters
from balrogutils.survey.psfmodel import measure_psf
from balrogutils.survey.telescope import Chip
from balrogutils.tools import TIMEOUT

__all__ = ["ChipReport", "image_header", "make_chip", "scratch_images", "star_regions"]

_NULLED = mask_of(("BPM", "BADAMP", "EDGEBLEED", "EDGE", "CRAY", "SSXTALK", "STREAK", "TRAIL"))


_QUANTUM = 16.0
"""Steps of the packed image in one sigma of its noise, as in the survey's own files."""


class ChipReport(NamedTuple):
    """What came of one CCD: its name, accepted PSF stars and the files written, relative to the archive's root."""

    name: str
    stars: int
    files: tuple[str, ...]


def scratch_images(scratch: Path, chip: Chip) -> tuple[Path, Path]:
    """Return the plain image (background subtracted, right WCS) and null weight that the coadds are made from."""
    return scratch / f"{chip.name}.sci.fits", scratch / f"{chip.name}.wgt.fits"


def image_header(chip: Chip, parameters: SurveyParameters) -> dict[str, Any]:
    """Return the cards of an immasked image, its (slightly wrong) WCS included."""
    exposure = chip.exposure
    level, noise = sky_level(chip)
    wavelength = parameters.bands[exposure.band].wavelength
    rows, cols = chip.shape
    fwhm, g1, g2 = chip.psf_at((rows - 1) / 2, (cols - 1) / 2)
    scale = parameters.camera.pixel_scale
    shutter = datetime.datetime.combine(exposure.night, datetime.time()) + datetime.timedelta(days=exposure.mjd % 1)
    return {
        "OBSTYPE": "object",
        "TELESCOP": "CTIO 4.0-m telescope",
        "INSTRUME": "DECam",
        "OBJECT": "synthetic survey",
        "EXPNUM": exposure.number,
        "CCDNUM": chip.number,
        "BAND": exposure.band,
        "FILTER": f"{exposure.band} DECam SDSS {wavelength:.1f} 1500.0",
        "EXPTIME": float(parameters.exposure_time),
        "NITE": f"{exposure.night:%Y%m%d}",
        "DATE-OBS": f"{shutter:%Y-%m-%dT%H:%M:%S}",
        "MJD-OBS": exposure.mjd,
        "CAMSYM": "D",
        "PIPELINE": "finalcut",
        "UNITNAME": exposure.unit,
        "REQNUM": int(exposure.request[1:]),
        "ATTNUM": 1,
        "BUNIT": "electrons",
        "GAINA": chip.gain[0],
        "GAINB": chip.gain[1],
        "RDNOISEA": chip.read_noise[0],
        "RDNOISEB": chip.read_noise[1],
        "SATURATA": chip.saturation / chip.gain[0],
        "SATURATB": chip.saturation / chip.gain[1],
        # Full well above the sky that has been subtracted.
        "SATURATE": (chip.saturation - exposure.sky) / max(chip.gain),
        "DATASECA": f"[{cols // 2 + 1}:{cols},1:{rows}]",
        "DATASECB": f"[1:{cols // 2},1:{rows}]",
        "SKYBRITE": level,
        "SKYSIGMA": noise,
        "SKYVARA": (exposure.sky + chip.read_noise[0] ** 2) / chip.gain[0] ** 2,
        "SKYVARB": (exposure.sky + chip.read_noise[1] ** 2) / chip.gain[1] ** 2,
        "FWHM": float(fwhm) / scale,
        "ELLIPTIC": float(np.hypot(g1, g2)),
        "DESFNAME": f"{chip.name}_immasked.fits",
        **chip.header_wcs,
    }


def _cards(values: dict[str, Any]) -> fitsio.FITSHDR:
    return fitsio.FITSHDR([{"name": key, "value": value, "comment": ""} for key, value in values.items()])


def _ohead(chip: Chip) -> str:
    cards = [fits.Card(key, value) for key, value in chip.true_wcs.items()]
    cards += [
        fits.Card("FGROUPNO", 1),
        fits.Card("FLXSCALE", 0.0),
        fits.Card("MAGZEROP", 0.0),
        fits.Card("PHOTLINK", False),
    ]
    head = ["HISTORY   Astrometric solution of the synthetic survey", "COMMENT   "]
    return "".join(line + "\n" for line in (*head, *(card.image for card in cards), "END     "))


def star_regions(sky: NDArray[np.void], chip: Chip, limit: float, noise: float) -> NDArray[np.float64]:
    """Return (row, col, radius) in pixels of the regions around stars brighter than `limit` in the chip's band.

    The radius is where the star's light falls to half the noise of the sky.
    """
    bright = sky[(sky["is_star"] == 1) & (sky[f"mag_{chip.band}"] < limit)]
    if len(bright) == 0:
        return np.empty((0, 3))
    row, col = chip.wcs.sky_to_pixel(bright["ra"], bright["dec"])
    flux = 10.0 ** (0.4 * (chip.zero_point - bright[f"mag_{chip.band}"]))
    beta = chip.exposure.psf.beta
    fwhm = chip.psf_at(row, col)[0] / 0.263
    core = 0.5 * fwhm / math.sqrt(2.0 ** (1.0 / beta) - 1.0)
    peak = flux * (beta - 1.0) / (np.pi * core**2)
    radius = core * np.sqrt(np.maximum((peak / (0.5 * noise)) ** (1.0 / beta) - 1.0, 1.0))
    return np.column_stack([row, col, radius])


def make_chip(
    chip: Chip,
    sky: NDArray[np.void],
    parameters: SurveyParameters,
    root: Path,
    scratch: Path,
    timeout: float = TIMEOUT,
) -> ChipReport:
    """Draw one CCD and write its files.

    Parameters
    ----------
    chip : Chip
        The CCD.
    sky : ndarray
        Truth rows.
    parameters : SurveyParameters
        The survey.
    root : pathlib.Path
        Root of the archive.
    scratch : pathlib.Path
        Directory for intermediate files; the images of `scratch_images` stay there.
    timeout : float
        Seconds after which a program counts as hanging.

    Returns
    -------
    ChipReport

    Raises
    ------
    ToolError
        When SExtractor, PSFEx or fpack fails, or there are too few stars.
    """
    noise = sky_level(chip)[1]
    light = draw_chip(sky, chip, noise)
    regions = star_regions(sky, chip, parameters.defects.star_mask_magnitude, noise)
    readout = expose(light, chip, parameters, regions)
    header = _cards(image_header(chip, parameters))
    files = {kind: root / path for kind, path in places.chip_files(chip).items()}
    plain = scratch / f"{chip.name}.immasked.fits"
    write_images(
        plain, [Plane("SCI", readout.sci, header), Plane("MSK", readout.msk, header), Plane("WGT", readout.wgt, header)]
    )
    pack(plain, files["immask"], chip.name, "immasked", qvalue=_QUANTUM, timeout=timeout)
    background = scratch / f"{chip.name}.bkg.fits"
    write_images(background, [Plane("SCI", readout.background, header)])
    pack(background, files["bkg"], chip.name, "bkg", timeout=timeout)
    background.unlink()
    image, weight = _write_scratch(chip, readout, parameters, scratch)
    stem = scratch / chip.name
    seg, stars = measure_psf(
        f"{image.name}[0]",
        f"{weight.name}[0]",
        f"{weight.name}[1]",
        stem,
        files["psf"],
        parameters.psf_model,
        chip=chip.name,
        segmap=True,
        timeout=timeout,
    )
    named = scratch / f"{chip.name}.segmap.fits"
    write_images(named, [Plane("SCI", fitsio.read(str(seg)).astype(np.int32), header)])
    pack(named, files["seg"], chip.name, "segmap", timeout=timeout)
    for path in (plain, seg, named, stem.with_name(f"{chip.name}.cat")):
        path.unlink()
    written = [path.relative_to(root) for path in files.values()]
    for tile in chip.tiles:
        head = places.ohead(tile, chip)
        writing_text(root / head, _ohead(chip))
        written.append(Path(head))
    return ChipReport(chip.name, stars, tuple(path.as_posix() for path in written))


def _write_scratch(chip: Chip, readout: Readout, parameters: SurveyParameters, scratch: Path) -> tuple[Path, Path]:
    image, weight = scratch_images(scratch, chip)
    header = _cards({**image_header(chip, parameters), **chip.true_wcs})
    write_images(image, [Plane("SCI", readout.sci - readout.background, header)])
    nulled = np.where((readout.msk & _NULLED) != 0, np.float32(0), readout.wgt)
    # PSFEx takes flags of eight bits only, so all bits but NEAREDGE become one.
    flags = (readout.msk & ~np.int16(MaskBit.NEAREDGE.value)) != 0
    write_images(weight, [Plane("WGT", nulled), Plane("FLAG", flags.astype(np.int16))])
    return image, weight
