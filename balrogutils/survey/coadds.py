"""The archive's own coadds of a tile, as the processing centre would deliver them: plain SWarp, SExtractor, PSFEx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fitsio
import numpy as np

from balrogutils.archive.geometry import Geometry
from balrogutils.errors import ToolError
from balrogutils.fitsfile import Plane, Table, pack, read_table, write_images, write_tables
from balrogutils.survey import places
from balrogutils.survey.ccd import scratch_images
from balrogutils.survey.parameters import SurveyParameters
from balrogutils.survey.psfmodel import extract, measure_psf, sextractor_settings
from balrogutils.survey.sky import ZERO_POINT
from balrogutils.survey.telescope import Chip
from balrogutils.tools import TIMEOUT, run_tool

__all__ = ["CATALOG_COLUMNS", "TileReport", "make_band_coadd", "make_catalogs"]

CATALOG_COLUMNS = (
    *(
        "NUMBER",
        "FLAGS",
        "IMAFLAGS_ISO",
        "X_IMAGE",
        "Y_IMAGE",
        "XWIN_IMAGE",
        "YWIN_IMAGE",
        "ALPHAWIN_J2000",
        "DELTAWIN_J2000",
    ),
    *(
        "A_IMAGE",
        "B_IMAGE",
        "A_WORLD",
        "B_WORLD",
        "THETA_J2000",
        "XMIN_IMAGE",
        "XMAX_IMAGE",
        "YMIN_IMAGE",
        "YMAX_IMAGE",
    ),
    *(
        "X2_IMAGE",
        "Y2_IMAGE",
        "ERRX2_IMAGE",
        "ERRY2_IMAGE",
        "ISOAREA_IMAGE",
        "FLUX_RADIUS",
        "KRON_RADIUS",
        "BACKGROUND",
    ),
    *("FLUX_AUTO", "FLUXERR_AUTO", "MAG_AUTO", "MAGERR_AUTO", "FWHM_IMAGE", "FWHM_WORLD"),
)
"""Columns of the delivered catalogues."""

_SWARP = {
    "HEADER_ONLY": "N",
    "WEIGHT_TYPE": "MAP_WEIGHT",
    "RESCALE_WEIGHTS": "N",
    "BLANK_BADPIXELS": "Y",
    "CELESTIAL_TYPE": "NATIVE",
    "PROJECTION_TYPE": "TAN",
    "PROJECTION_ERR": "0.001",
    "CENTER_TYPE": "MANUAL",
    "PIXELSCALE_TYPE": "MANUAL",
    "RESAMPLE_DIR": ".",
    "RESAMPLING_TYPE": "LANCZOS3",
    "FSCALASTRO_TYPE": "VARIABLE",
    "FSCALE_KEYWORD": "nokey",
    "GAIN_DEFAULT": "0",
    "SATLEV_DEFAULT": "150000",
    # The residual background has already been taken off.
    "SUBTRACT_BACK": "N",
    "VMEM_DIR": ".",
    "MEM_MAX": "1000",
    "COMBINE_BUFSIZE": "500",
    "DELETE_TMPFILES": "Y",
    "WRITE_FILEINFO": "N",
    "WRITE_XML": "N",
    "VERBOSE_TYPE": "NORMAL",
    "NTHREADS": "1",
}


class TileReport(NamedTuple):
    """Detections of one tile, and the files written, relative to the archive's root."""

    detections: int
    files: tuple[str, ...]


def _swarp(
    images: Sequence[Path],
    weights: Sequence[Path],
    stem: Path,
    tile: Geometry,
    changes: Mapping[str, str],
    timeout: float,
) -> tuple[Path, Path]:
    sci, wgt = stem.with_name(stem.name + ".sci.fits"), stem.with_name(stem.name + ".wgt.fits")
    # SWarp runs in a room of its own, one level below the images: it cannot read names with spaces.
    room = stem.with_name(stem.name + ".swarp")
    room.mkdir(parents=True)
    settings = {
        **_SWARP,
        "IMAGEOUT_NAME": f"../{sci.name}",
        "WEIGHTOUT_NAME": f"../{wgt.name}",
        "CENTER": f"{tile.ra_cent:.9f},{tile.dec_cent:.9f}",
        "PIXEL_SCALE": f"{tile.pixelscale:.6f}",
        "IMAGE_SIZE": f"{tile.naxis1},{tile.naxis2}",
        **changes,
    }
    config, inputs, masks = room / "config", room / "images", room / "weights"
    config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()), encoding="ascii")
    inputs.write_text("".join(f"../{path.name}\n" for path in images))
    masks.write_text("".join(f"../{path.name}\n" for path in weights))
    arguments = [f"@{inputs.name}", "-c", config.name, "-WEIGHT_IMAGE", f"@{masks.name}"]
    log = stem.with_name(f"{stem.name}.swarp.log")
    run_tool("swarp", arguments, log=log, outputs=[sci, wgt], cwd=room, timeout=timeout)
    for path in (sci, wgt):
        with fitsio.FITS(str(path)) as fits:
            shape = tuple(fits[0].get_dims())
        if shape != (tile.naxis2, tile.naxis1):
            raise ToolError(f"SWarp made an image of {shape[1]} x {shape[0]} pixels", tile=tile.tilename, file=path)
    return sci, wgt


def _stem(scratch: Path, tile: str, band: str) -> Path:
    return scratch / f"{tile}_{band}"


def make_band_coadd(
    tile: Geometry,
    band: str,
    chips: Sequence[Chip],
    parameters: SurveyParameters,
    root: Path,
    scratch: Path,
    timeout: float = TIMEOUT,
) -> TileReport:
    """Coadd one band of one tile, pack it, and measure its PSF.

    Parameters
    ----------
    tile : Geometry
        The tile.
    band : str
        The band.
    chips : sequence of Chip
        All CCDs of the survey.
    parameters : SurveyParameters
        The survey.
    root, scratch : pathlib.Path
        Root of the archive; directory with the CCDs' scratch images.
    timeout : float
        Seconds after which a program counts as hanging.

    Returns
    -------
    TileReport
        With no detections: `make_catalogs` counts them.
    """
    used = [chip for chip in chips if chip.band == band and tile.tilename in chip.tiles]
    pairs = [scratch_images(scratch, chip) for chip in used]
    scales = ",".join(f"{10.0 ** (0.4 * (ZERO_POINT - chip.zero_point)):.9f}" for chip in used)
    stem = _stem(scratch, tile.tilename, band)
    sci, wgt = _swarp(
        [p[0] for p in pairs],
        [p[1] for p in pairs],
        stem,
        tile,
        {"FSCALE_DEFAULT": scales, "COMBINE_TYPE": "WEIGHTED"},
        timeout,
    )
    image, weight = fitsio.read(str(sci)), fitsio.read(str(wgt))
    mask = (weight == 0).astype(np.int32)
    header = _cards(tile, band)
    plain = scratch / f"{tile.tilename}_{band}.coadd.fits"
    write_images(plain, [Plane("SCI", image, header), Plane("MSK", mask, header), Plane("WGT", weight, header)])
    files = {kind: root / path for kind, path in places.coadd_files(tile.tilename, band).items()}
    pack(plain, files["coadd"], tile.tilename, band, "coadd", timeout=timeout)
    # pack wrote a dither seed into the plain file, which the rest of this tile still reads; it does no harm.
    settings = sextractor_settings(SATUR_LEVEL="100000", GAIN="0")
    measure_psf(
        f"{plain.name}[0]",
        f"{plain.name}[2]",
        f"{plain.name}[1]",
        stem.with_name(f"{tile.tilename}_{band}.stars"),
        files["psf"],
        parameters.psf_model,
        chip=f"coadd {tile.tilename} {band}",
        segmap=False,
        settings=settings,
        timeout=timeout,
    )
    return TileReport(0, tuple(files[kind].relative_to(root).as_posix() for kind in ("coadd", "psf")))


def make_catalogs(
    tile: Geometry, parameters: SurveyParameters, root: Path, scratch: Path, timeout: float = TIMEOUT
) -> TileReport:
    """Make the detection image of a tile and the catalogue and segmentation of each band.

    Parameters
    ----------
    tile : Geometry
        The tile, whose band coadds have been made.
    parameters : SurveyParameters
        The survey.
    root, scratch : pathlib.Path
        Root of the archive; directory with the band coadds.
    timeout : float
        Seconds after which a program counts as hanging.

    Returns
    -------
    TileReport
    """
    name = tile.tilename
    stems = [_stem(scratch, name, band) for band in parameters.coadds.det]
    images = [stem.with_name(stem.name + ".sci.fits") for stem in stems]
    weights = [stem.with_name(stem.name + ".wgt.fits") for stem in stems]
    changes = {"COMBINE_TYPE": "CHI-MEAN", "RESAMPLE": "N"}
    det, det_weight = _swarp(images, weights, _stem(scratch, name, "det"), tile, changes, timeout)
    written: list[str] = []
    count = 0
    for band in parameters.bands:
        plain = scratch / f"{name}_{band}.coadd.fits"
        settings = sextractor_settings(
            DETECT_THRESH="1.1",
            ANALYSIS_THRESH="1.1",
            DETECT_MINAREA="4",
            DEBLEND_MINCONT="0.001",
            INTERP_TYPE="VAR_ONLY",
            WEIGHT_TYPE="MAP_WEIGHT,MAP_WEIGHT",
            WEIGHT_IMAGE=f"{det_weight.name}[0],{plain.name}[2]",
            FLAG_IMAGE=f"{plain.name}[1]",
            GAIN="0",
        )
        stem = scratch / f"{name}_{band}.objects"
        catalog, seg = extract(
            f"{det.name}[0],{plain.name}[0]",
            settings,
            CATALOG_COLUMNS,
            stem,
            segmap=True,
            catalog_type="FITS_1.0",
            timeout=timeout,
        )
        rows = read_table(catalog, 1)
        count = len(rows)
        files = {kind: root / path for kind, path in places.coadd_files(name, band).items()}
        # Rewritten, because SExtractor's own file names its scratch directory.
        write_tables(files["cat"], [Table("OBJECTS", rows)])
        write_images(files["seg"], [Plane("SCI", fitsio.read(str(seg)).astype(np.int32), _cards(tile, band))])
        written += [files[kind].relative_to(root).as_posix() for kind in ("cat", "seg")]
    return TileReport(count, tuple(written))


def _cards(tile: Geometry, band: str) -> fitsio.FITSHDR:
    values: dict[str, Any] = {key: value for key, value in tile.header().items() if not key.startswith("NAXIS")}
    values.update(BAND=band, TILENAME=tile.tilename, MAGZERO=ZERO_POINT, BUNIT="electrons")
    return fitsio.FITSHDR([{"name": key, "value": value, "comment": ""} for key, value in values.items()])
