"""SWarp: band coadds from null-weight images, and the CHI-MEAN detection image."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InputError, ProductError, ToolError
from balrogutils.fitsfile import Header, read_header, read_image
from balrogutils.products import writing_text
from balrogutils.scratch import link_into
from balrogutils.tools import TIMEOUT, run_tool

__all__ = ["BandPlanes", "ChiPlanes", "Frame", "Grid", "coadd_band", "coadd_chi_mean", "read_frames", "write_lists"]

# HDU numbers of a null-weight image.
_SCI, _WGT, _WGT_ME = 0, 1, 2
# What of SWarp's header speaks of the coadd; AUTHOR, ORIGIN, DATE and the SOFT* cards say who ran what when.
_KEPT = (
    *("EQUINOX", "RADESYS", "CTYPE1", "CTYPE2", "CUNIT1", "CUNIT2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2"),
    *("CD1_1", "CD1_2", "CD2_1", "CD2_2", "EXPTIME", "GAIN", "SATURATE", "COMBINET", "RESAMPT1", "RESAMPT2"),
    *("BUNIT", "TILEID"),
)
# Hours, not minutes: a deep 10000 x 10000 tile on a slow disk takes tens of minutes.


class Frame(NamedTuple):
    """One null-weight image and its zero point."""

    path: Path
    magzp: float


@dataclass(frozen=True)
class Grid:
    """The pixel grid of a tile: a TAN projection whose tangent point is the middle of the image.

    Parameters
    ----------
    ra, dec : float
        Centre, degrees.
    shape : tuple of int
        Rows and columns.
    scale : float
        Arcsec per pixel.
    """

    ra: float
    dec: float
    shape: tuple[int, int]
    scale: float

    def arguments(self) -> list[str]:
        """Return SWarp's options for this grid."""
        rows, cols = self.shape
        return [
            *("-CENTER_TYPE", "MANUAL", "-CENTER", f"{self.ra:.10f},{self.dec:.10f}"),
            *("-PIXELSCALE_TYPE", "MANUAL", "-PIXEL_SCALE", f"{self.scale:.10g}", "-IMAGE_SIZE", f"{cols},{rows}"),
        ]


class BandPlanes(NamedTuple):
    """What two SWarp passes give: pixels, weight, mask weight (all f4 ``[row, col]``) and the cards worth keeping."""

    sci: NDArray[np.float32]
    wgt: NDArray[np.float32]
    mask_weight: NDArray[np.float32]
    header: Header


class ChiPlanes(NamedTuple):
    """The CHI-MEAN combination: pixels in units of sigma, weight 0 or 1, and the cards worth keeping."""

    sci: NDArray[np.float32]
    wgt: NDArray[np.float32]
    header: Header


def read_frames(flist: str | PathLike[str], *, tile: str, band: str) -> list[Frame]:
    """Read a list of null-weight images, lines ``path magzp``.

    Raises
    ------
    ProductError
        When the list, or a file it names, is missing, or a line cannot be read.
    InputError
        When the list is empty: no image of this band touches the tile.
    """
    file = Path(flist)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ProductError(
            "there is no list of null-weight images", tile=tile, band=band, file=file, remedy="run prep (mode 1)"
        ) from error
    frames = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            # Only the last blank separates: paths may hold blanks.
            name, zero_point = line.rsplit(maxsplit=1)
            frame = Frame(Path(name.strip()), float(zero_point))
        except ValueError as error:
            raise ProductError(
                f"line {number} is not 'path magzp'", tile=tile, band=band, file=file, remedy="run prep again (mode 1)"
            ) from error
        if not np.isfinite(frame.magzp):
            raise ProductError(
                f"line {number} has no finite zero point",
                tile=tile,
                band=band,
                file=file,
                remedy="run prep again (mode 1)",
            )
        if not frame.path.is_file():
            remedy = "run prep again (mode 1), or injection (mode 8) for a realization"
            raise ProductError("a null-weight image is not there", tile=tile, band=band, file=frame.path, remedy=remedy)
        frames.append(frame)
    if not frames:
        remedy = "check that the archive holds images of this band for the tile, or take the band out of the campaign"
        raise InputError("no image of this band touches the tile", tile=tile, band=band, file=file, remedy=remedy)
    return frames


def flux_scale(magzp: float, reference: float) -> float:
    """Return the factor that brings counts at zero point `magzp` to zero point `reference`."""
    return float(10.0 ** (0.4 * (reference - magzp)))


def _columns(names: Sequence[str | Path], frames: Sequence[Frame], reference: float) -> dict[str, str]:
    def lines(values: Sequence[str]) -> str:
        return "\n".join(values) + "\n"

    return {
        "im": lines([f"{name}[{_SCI}]" for name in names]),
        "wt": lines([f"{name}[{_WGT_ME}]" for name in names]),
        "msk": lines([f"{name}[{_WGT}]" for name in names]),
        "fsc": lines([f"{flux_scale(frame.magzp, reference):.16g}" for frame in frames]),
    }


def write_lists(paths: dict[str, Path], frames: Sequence[Frame], reference: float) -> None:
    """Write the four SWarp lists of a band with the images' full names.

    Parameters
    ----------
    paths : dict
        File names under the keys ``im``, ``wt``, ``msk``, ``fsc``.
    frames : sequence of Frame
        In the order of the lists.
    reference : float
        Zero point of the coadd.
    """
    for kind, text in _columns([frame.path for frame in frames], frames, reference).items():
        writing_text(paths[kind], text)


def _kept(path: Path) -> Header:
    header = read_header(path, 0)
    cards = {card["name"]: card for card in header.records()}
    # SWarp writes EXPTIME 0 where the images have none.
    keys = [key for key in _KEPT if key in cards and not (key == "EXPTIME" and cards[key]["value"] == 0)]
    return fitsio.FITSHDR([{name: cards[key].get(name, "") for name in ("name", "value", "comment")} for key in keys])


def _plane(path: Path, shape: tuple[int, int], log: Path) -> NDArray[np.float32]:
    pixels = read_image(path, 0)
    if pixels.shape != shape:
        raise ToolError(f"SWarp made an image of shape {pixels.shape} where {shape} was asked for", file=log)
    return np.asarray(pixels, dtype=np.float32)


def _require_finite(frames: Sequence[Frame], *, tile: str, band: str) -> None:
    # One such pixel, even of weight 0, shifts SWarp's background of the whole frame, and no output shows it.
    for frame in frames:
        for ext in (_SCI, _WGT, _WGT_ME):
            bad = int(np.count_nonzero(~np.isfinite(read_image(frame.path, ext))))
            if bad:
                remedy = "mask these pixels in the archive's image, or run prep again (mode 1)"
                raise ProductError(
                    f"{bad} pixels of HDU {ext} are not finite", tile=tile, band=band, file=frame.path, remedy=remedy
                )


def coadd_band(
    frames: Sequence[Frame],
    grid: Grid,
    directory: Path,
    *,
    config: Path,
    reference: float,
    logs: tuple[Path, Path],
    tile: str,
    band: str,
    timeout: float = TIMEOUT,
) -> BandPlanes:
    """Coadd the null-weight images of one band, once for pixels and weight, once for the mask weight.

    Parameters
    ----------
    frames : sequence of Frame
        Null-weight images.
    grid : Grid
        The tile.
    directory : Path
        Scratch directory of this job alone.
    config : Path
        SWarp configuration file.
    reference : float
        Zero point of the coadd.
    logs : tuple of Path
        Where the logs of the two passes are kept.
    tile, band : str
        For messages.
    timeout : float
        Seconds after which SWarp counts as hanging.

    Returns
    -------
    BandPlanes
        The mask weight is 0 where no frame has a pixel free of every null bit.

    Raises
    ------
    ToolError
        When SWarp fails or leaves something else than was asked for.
    ProductError
        When a frame holds pixels that are not finite.
    InputError
        When no frame has a good pixel on the tile.
    """
    _require_finite(frames, tile=tile, band=band)
    names = [link_into(directory, frame.path, f"{i:04d}_{frame.path.name}") for i, frame in enumerate(frames)]
    for kind, text in _columns(names, frames, reference).items():
        (directory / f"{kind}.list").write_text(text, encoding="utf-8")
    shutil.copyfile(config, directory / "swarp.config")
    common = ["@im.list", "-c", "swarp.config", *grid.arguments(), "-NTHREADS", "1", "-COMBINE_TYPE", "WEIGHTED"]
    common += ["-BLANK_BADPIXELS", "Y", "-FSCALE_DEFAULT", "@fsc.list", "-COPY_KEYWORDS", "BUNIT,TILENAME,TILEID"]

    planes: dict[str, NDArray[np.float32]] = {}
    header: Header | None = None
    # The second image is thrown away: only the weight of the second pass counts.
    for weights, image, weight, log in (("wt", "sci", "wgt", logs[0]), ("msk", "unused", "msk", logs[1])):
        outputs = [directory / f"{image}.fits", directory / f"{weight}.fits"]
        arguments = [
            *common,
            "-WEIGHT_IMAGE",
            f"@{weights}.list",
            "-IMAGEOUT_NAME",
            f"{image}.fits",
            "-WEIGHTOUT_NAME",
            f"{weight}.fits",
        ]
        run_tool("swarp", arguments, log=log, outputs=outputs, cwd=directory, timeout=timeout)
        if image == "sci":
            header = _kept(outputs[0])
            planes["sci"] = _plane(outputs[0], grid.shape, log)
        planes[weight] = _plane(outputs[1], grid.shape, log)
        for output in outputs:
            output.unlink()
    assert header is not None
    if not all(np.isfinite(plane).all() for plane in planes.values()):
        raise ToolError("SWarp made pixels that are not finite", tile=tile, band=band, file=logs[0])
    if not (planes["wgt"] > 0).any():
        remedy = "look at the masks and WCS of the null-weight images, or take the band out of the campaign"
        raise InputError(
            f"none of {len(frames)} images has a good pixel on the tile", tile=tile, band=band, remedy=remedy
        )
    return BandPlanes(planes["sci"], planes["wgt"], planes["msk"], header)


def coadd_chi_mean(
    images: Sequence[str], grid: Grid, directory: Path, *, config: Path, log: Path, timeout: float = TIMEOUT
) -> ChiPlanes:
    """Combine band coadds into a CHI-MEAN image: ``(sqrt(sum w s^2) - mean) / sigma`` of the chi distribution.

    Parameters
    ----------
    images : sequence of str
        Stems of the files ``<stem>_sci.fits`` and ``<stem>_wgt.fits`` in `directory`, all on `grid`.
    grid : Grid
        The tile.
    directory : Path
        Scratch directory.
    config : Path
        SWarp configuration file.
    log : Path
        Where the log is kept.
    timeout : float
        Seconds after which SWarp counts as hanging.

    Returns
    -------
    ChiPlanes
        The weight is 1 where at least one band has weight, else 0. Where only one band has weight SWarp gives
        ``s sqrt(w)``.

    Notes
    -----
    Without resampling SWarp 2.41 subtracts no background, whatever SUBTRACT_BACK says, so the detection image does not
    have a second background subtraction.
    """
    shutil.copyfile(config, directory / "swarp.config")
    arguments = [
        ",".join(f"{image}_sci.fits" for image in images),
        "-c",
        "swarp.config",
        *grid.arguments(),
        *("-NTHREADS", "1"),
    ]
    arguments += [
        "-WEIGHT_IMAGE",
        ",".join(f"{image}_wgt.fits" for image in images),
        "-RESAMPLE",
        "N",
        "-COMBINE_TYPE",
        "CHI-MEAN",
    ]
    arguments += ["-BLANK_BADPIXELS", "Y", "-IMAGEOUT_NAME", "det_sci.fits", "-WEIGHTOUT_NAME", "det_wgt.fits"]
    sci, wgt = directory / "det_sci.fits", directory / "det_wgt.fits"
    run_tool("swarp", arguments, log=log, outputs=[sci, wgt], cwd=directory, timeout=timeout)
    planes = ChiPlanes(_plane(sci, grid.shape, log), _plane(wgt, grid.shape, log), _kept(sci))
    if not (np.isfinite(planes.sci).all() and np.isfinite(planes.wgt).all()):
        raise ToolError("SWarp made a detection image that is not finite", file=log)
    return planes
