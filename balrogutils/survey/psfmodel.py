"""SExtractor and PSFEx on one image: its segmentation and a PSF model measured on its own stars."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import fitsio

from balrogutils.errors import ToolError
from balrogutils.products import writing, writing_text
from balrogutils.survey.parameters import PsfModel
from balrogutils.tools import TIMEOUT, run_tool

__all__ = ["KERNEL", "extract", "measure_psf", "sextractor_settings", "write_kernel"]

KERNEL = """CONV NORM
# 7x7 convolution mask of a Gaussian PSF with FWHM = 3.0 pixels.
0.004963 0.021388 0.051328 0.068707 0.051328 0.021388 0.004963
0.021388 0.092163 0.221178 0.296069 0.221178 0.092163 0.021388
0.051328 0.221178 0.530797 0.710525 0.530797 0.221178 0.051328
0.068707 0.296069 0.710525 0.951108 0.710525 0.296069 0.068707
0.051328 0.221178 0.530797 0.710525 0.530797 0.221178 0.051328
0.021388 0.092163 0.221178 0.296069 0.221178 0.092163 0.021388
0.004963 0.021388 0.051328 0.068707 0.051328 0.021388 0.004963
"""
"""SExtractor's detection filter gauss_3.0_7x7."""

_STAR_COLUMNS = (
    *(
        "NUMBER",
        "FLAGS",
        "IMAFLAGS_ISO",
        "X_IMAGE",
        "Y_IMAGE",
        "XWIN_IMAGE",
        "YWIN_IMAGE",
        "ELONGATION",
        "FLUX_RADIUS",
        "SNR_WIN",
    ),
    *("FLUX_APER(1)", "FLUXERR_APER(1)"),
)

_SEXTRACTOR = {
    "DETECT_TYPE": "CCD",
    "DETECT_MINAREA": "5",
    "THRESH_TYPE": "RELATIVE",
    "DETECT_THRESH": "1.5",
    "ANALYSIS_THRESH": "1.5",
    "FILTER": "Y",
    "DEBLEND_NTHRESH": "32",
    "DEBLEND_MINCONT": "0.005",
    "CLEAN": "Y",
    "CLEAN_PARAM": "1.0",
    "MASK_TYPE": "CORRECT",
    "WEIGHT_TYPE": "MAP_WEIGHT",
    "WEIGHT_GAIN": "Y",
    "RESCALE_WEIGHTS": "N",
    "FLAG_TYPE": "OR",
    "PHOT_APERTURES": "24",
    "PHOT_AUTOPARAMS": "2.5,3.5",
    "PHOT_FLUXFRAC": "0.5",
    "SATUR_KEY": "SATURATE",
    "SATUR_LEVEL": "150000",
    "MAG_ZEROPOINT": "30",
    "GAIN_KEY": "NOKEY",
    "GAIN": "1",
    "PIXEL_SCALE": "0",
    "SEEING_FWHM": "1",
    "BACK_TYPE": "AUTO",
    "BACK_SIZE": "256",
    "BACK_FILTERSIZE": "3",
    "BACKPHOTO_TYPE": "GLOBAL",
    "INTERP_TYPE": "ALL",
    "INTERP_MAXXLAG": "4",
    "INTERP_MAXYLAG": "4",
    "MEMORY_OBJSTACK": "3000",
    "MEMORY_PIXSTACK": "2000000",
    "MEMORY_BUFSIZE": "2048",
    "VERBOSE_TYPE": "NORMAL",
    "WRITE_XML": "N",
    "NTHREADS": "1",
}

_PSFEX = {
    "BASIS_TYPE": "PIXEL_AUTO",
    "PSF_ACCURACY": "0.01",
    "PSF_RECENTER": "N",
    "CENTER_KEYS": "XWIN_IMAGE,YWIN_IMAGE",
    "PHOTFLUX_KEY": "FLUX_APER(1)",
    "PHOTFLUXERR_KEY": "FLUXERR_APER(1)",
    "MEF_TYPE": "INDEPENDENT",
    "PSFVAR_KEYS": "XWIN_IMAGE,YWIN_IMAGE",
    "PSFVAR_GROUPS": "1,1",
    # Snapshots serve PSFEx's printed diagnostics only, and would take most of its time.
    "PSFVAR_NSNAP": "1",
    "SAMPLE_AUTOSELECT": "Y",
    "SAMPLEVAR_TYPE": "SEEING",
    "SAMPLE_FWHMRANGE": "2.0,8.0",
    "SAMPLE_VARIABILITY": "0.15",
    "SAMPLE_MINSN": "20",
    "SAMPLE_MAXELLIP": "0.2",
    "SAMPLE_FLAGMASK": "0x00fe",
    "SAMPLE_WFLAGMASK": "0x0000",
    "SAMPLE_IMAFLAGMASK": "0x01",
    "BADPIXEL_FILTER": "N",
    "CHECKPLOT_DEV": "NULL",
    "CHECKPLOT_TYPE": "NONE",
    "CHECKIMAGE_TYPE": "NONE",
    "VERBOSE_TYPE": "NORMAL",
    "WRITE_XML": "N",
    "NTHREADS": "1",
}


def sextractor_settings(**changes: str) -> dict[str, str]:
    """Return the SExtractor settings of a single-epoch run, with changes."""
    return {**_SEXTRACTOR, **changes}


def write_kernel(directory: Path) -> Path:
    """Write the detection filter into a scratch directory."""
    kernel = directory / "gauss_3.0_7x7.conv"
    if not kernel.exists():
        writing_text(kernel, KERNEL)
    return kernel


def _config(path: Path, settings: Mapping[str, str]) -> Path:
    path.write_text("".join(f"{key} {value}\n" for key, value in settings.items()), encoding="ascii")
    return path


def extract(
    images: str,
    settings: Mapping[str, str],
    columns: Sequence[str],
    stem: Path,
    *,
    segmap: bool,
    catalog_type: str,
    timeout: float = TIMEOUT,
) -> tuple[Path, Path]:
    """Run SExtractor.

    Parameters
    ----------
    images : str
        One image, or ``detection,measurement``, as SExtractor takes them (``file.fits[0]``). This and all file names in
        the settings are relative to the directory of `stem`, where the program runs: it cannot read names with spaces.
    settings : mapping
        Every key, without the file names.
    columns : sequence of str
        Catalogue columns.
    stem : pathlib.Path
        Scratch path without suffix; gets ``.cat``, ``.seg.fits``, ``.sex`` and ``.log``.
    segmap : bool
        Whether to write the segmentation.
    catalog_type : {"FITS_LDAC", "FITS_1.0"}
        Kind of catalogue.
    timeout : float
        Seconds after which a program counts as hanging.

    Returns
    -------
    (catalogue, segmentation) : paths

    Raises
    ------
    ToolError
        When SExtractor fails.
    """
    catalog, seg = stem.with_name(stem.name + ".cat"), stem.with_name(stem.name + ".seg.fits")
    parameters = stem.with_name(stem.name + ".param")
    parameters.write_text("\n".join(columns) + "\n", encoding="ascii")
    config = _config(
        stem.with_name(stem.name + ".sex"),
        {
            **settings,
            "CATALOG_TYPE": catalog_type,
            "CATALOG_NAME": catalog.name,
            "PARAMETERS_NAME": parameters.name,
            "FILTER_NAME": write_kernel(stem.parent).name,
            "CHECKIMAGE_TYPE": "SEGMENTATION" if segmap else "NONE",
            "CHECKIMAGE_NAME": seg.name,
        },
    )
    outputs = [catalog, seg] if segmap else [catalog]
    run_tool(
        "sextractor",
        [images, "-c", config.name],
        log=stem.with_name(stem.name + ".sex.log"),
        outputs=outputs,
        cwd=stem.parent,
        timeout=timeout,
    )
    return catalog, seg


def measure_psf(
    image: str,
    weight: str,
    flags: str,
    stem: Path,
    target: Path,
    model: PsfModel,
    *,
    chip: str,
    segmap: bool,
    settings: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
) -> tuple[Path, int]:
    """Extract an image and fit a PSFEx model to its stars.

    Parameters
    ----------
    image, weight, flags : str
        As `extract` takes them; stars with a flag of 1 on any pixel are not used.
    stem : pathlib.Path
        Scratch path without suffix.
    target : pathlib.Path
        Final name of the ``.psf`` file.
    model : PsfModel
        Size, sampling, degree and the smallest number of stars.
    chip : str
        Named in errors.
    segmap : bool
        Whether to write the segmentation.
    settings : mapping, optional
        SExtractor settings instead of the single-epoch ones.
    timeout : float
        Seconds after which a program counts as hanging.

    Returns
    -------
    (segmentation, stars) : path, int
        Path of the segmentation (written if asked for), and the stars PSFEx accepted.

    Raises
    ------
    ToolError
        When a program fails, or accepts too few stars.
    """
    chosen = dict(settings or sextractor_settings())
    chosen.update(WEIGHT_IMAGE=weight, FLAG_IMAGE=flags)
    columns = (*_STAR_COLUMNS, f"VIGNET({model.vignette},{model.vignette})")
    catalog, seg = extract(image, chosen, columns, stem, segmap=segmap, catalog_type="FITS_LDAC", timeout=timeout)
    config = _config(
        stem.with_name(stem.name + ".psfex"),
        {
            **_PSFEX,
            "PSF_SIZE": f"{model.size},{model.size}",
            "PSF_SAMPLING": f"{model.sampling}",
            "PSFVAR_DEGREES": f"{model.degree}",
            "PSF_DIR": ".",
            "PSF_SUFFIX": ".psf",
        },
    )
    psf = catalog.with_suffix(".psf")
    run_tool(
        "psfex",
        [catalog.name, "-c", config.name],
        log=stem.with_name(stem.name + ".psfex.log"),
        outputs=[psf],
        cwd=stem.parent,
        timeout=timeout,
    )
    with fitsio.FITS(str(psf)) as fits:
        accepted = int(fits["PSF_DATA"].read_header()["ACCEPTED"])
    if accepted < model.min_stars:
        raise ToolError(
            f"PSFEx accepted {accepted} stars, fewer than {model.min_stars}",
            chip=chip,
            key="psf_model.min_stars",
            remedy="raise population.stars",
        )
    with writing(target) as part:
        shutil.copyfile(psf, part)
    return seg, accepted
