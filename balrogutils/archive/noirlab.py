"""The archive of NOIRLab Community Pipeline images: a ``ccds`` table and the Legacy Surveys file tree."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from balrogutils.archive import tables
from balrogutils.archive.geometry import Geometry
from balrogutils.archive.names import path_parts, whole_number
from balrogutils.archive.queries import Database, zero_point
from balrogutils.archive.transfer import ArchiveFile, md5
from balrogutils.errors import ArchiveError, InputError
from balrogutils.fitsfile import read_header, read_image, read_table
from balrogutils.products import writing
from balrogutils.wcs import ImageWCS

__all__ = ["CcdFiles", "TileCcds", "build_archive", "ccds_statement", "tile_ccds", "tile_name"]

_log = logging.getLogger(__name__)

PIXEL_SCALE = 0.263  # arcsec, DES tiles
_LARGEST_TILE = 20000
_PAD = 20.0  # pixels; the linear WCS of the table leaves out the distortion
_FILES = ("image", "weight", "mask", "psf", "sky")

_metadata = sa.MetaData()

ccds = sa.Table(
    "ccds",
    _metadata,
    sa.Column("expnum", sa.BigInteger, primary_key=True),
    sa.Column("ccdname", sa.String(16), primary_key=True),
    sa.Column("ccdnum", sa.Integer, nullable=False),
    sa.Column("band", sa.String(8), nullable=False, index=True),
    sa.Column("camera", sa.String(32)),
    sa.Column("image_hdu", sa.Integer, nullable=False),
    *(sa.Column(f"{kind}_filename", sa.String(256)) for kind in _FILES),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    *(
        sa.Column(name, sa.Float(53))
        for name in (
            *("ra", "dec", "crpix1", "crpix2", "crval1", "crval2", "cd1_1", "cd1_2", "cd2_1", "cd2_2"),
            *("exptime", "mjd_obs", "fwhm", "ccdzpt", "ccdraoff", "ccddecoff"),
        )
    ),
    sa.Column("ccd_cuts", sa.BigInteger),
)
"""One row a CCD image: the columns of ``survey-ccds`` under their names (``filter`` is `band`), and its files.

File names are below the archive's root; null where there is no such file. ``ccdzpt`` is the zero point of 1 ADU/s,
``ccdraoff`` and ``ccddecoff`` (arcsec) are to be added to the image's WCS, ``ccd_cuts`` is 0 for a CCD without fault.
"""

files = sa.Table(
    "files",
    _metadata,
    sa.Column("filename", sa.String(256), primary_key=True),
    sa.Column("filesize", sa.BigInteger, nullable=False),
    sa.Column("md5sum", sa.String(32), nullable=False),
)
"""Size and MD5 of every file, by its name below the archive's root."""


@dataclass(frozen=True)
class CcdFiles:
    """The row and the files of one CCD image.

    Attributes
    ----------
    row : dict
        Columns of the `ccds` table.
    image, weight, mask, psf, sky : ArchiveFile
        Its files.
    """

    row: dict[str, Any]
    image: ArchiveFile
    weight: ArchiveFile
    mask: ArchiveFile
    psf: ArchiveFile
    sky: ArchiveFile

    @property
    def chip(self) -> str:
        """Chip name in the form the DES archive uses."""
        return f"D{self.row['expnum']:08d}_{self.row['band']}_c{self.row['ccdnum']:02d}_r0001p01"

    @property
    def magzp(self) -> float:
        """AB magnitude of 1 ADU of the image: ``ccdzpt + 2.5 log10(exptime)``."""
        return float(self.row["ccdzpt"]) + 2.5 * math.log10(self.row["exptime"])

    @property
    def files(self) -> tuple[ArchiveFile, ...]:
        """All files."""
        return (self.image, self.weight, self.mask, self.psf, self.sky)


@dataclass(frozen=True)
class TileCcds:
    """The CCD images of one tile and band; `left_out` maps a chip name to the reason it is not among `chips`."""

    chips: list[CcdFiles] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> list[ArchiveFile]:
        """Everything to fetch, each file once (a multi-CCD file serves several chips)."""
        return list(dict.fromkeys(file for chip in self.chips for file in chip.files))


def ccds_statement(band: str, dec_min: float, dec_max: float) -> sa.Select[Any]:
    """Return the query for the CCD images of one band in a range of declination, in the order of exposure and CCD."""
    return (
        sa.select(ccds)
        .where(ccds.c.band == band, ccds.c.dec >= dec_min, ccds.c.dec <= dec_max)
        .order_by(ccds.c.expnum, ccds.c.ccdnum)
    )


def _linear_wcs(row: dict[str, Any]) -> ImageWCS:
    keys = ("crpix1", "crpix2", "crval1", "crval2", "cd1_1", "cd1_2", "cd2_1", "cd2_2")
    return ImageWCS(
        {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            **{k.upper(): row[k] for k in keys},
        }
    )


def _box_on(tile: ImageWCS, wcs: ImageWCS, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return (row, row, col, col) limits, in the pixels of `tile`, of the outer edges of an image."""
    ny, nx = shape
    ra, dec = wcs.pixel_to_sky([-0.5, -0.5, ny - 0.5, ny - 0.5], [-0.5, nx - 0.5, nx - 0.5, -0.5])
    rows, cols = tile.sky_to_pixel(ra, dec)
    return float(rows.min()), float(rows.max()), float(cols.min()), float(cols.max())


def _overlaps(geometry: Geometry, row: dict[str, Any]) -> bool:
    # A plane shows the far side of the sky too; nothing farther than a few degrees can overlap.
    apart = abs((row["ra"] - geometry.ra_cent + 180.0) % 360.0 - 180.0) * math.cos(math.radians(geometry.dec_cent))
    if apart > geometry.radius + 2.0:
        return False
    box = _box_on(geometry.wcs(), _linear_wcs(row), (row["height"], row["width"]))
    return box[1] > -_PAD and box[0] < geometry.naxis2 + _PAD and box[3] > -_PAD and box[2] < geometry.naxis1 + _PAD


def tile_ccds(database: Database, geometry: Geometry, band: str) -> TileCcds:
    """Ask the database for the CCD images that touch a tile.

    Parameters
    ----------
    database : Database
        The archive.
    geometry : Geometry
        The tile.
    band : str
        Band, as the images' ``filter`` has it.

    Returns
    -------
    TileCcds
        A CCD without zero point, PSF or sky model, or with a fault in ``ccd_cuts``, is left out and listed.

    Raises
    ------
    ArchiveError
        When no CCD touches the tile, or the archive has no record of a file it names.
    """
    tile = geometry.tilename
    reach = geometry.radius + 2.0
    rows = [
        dict(row) for row in database.rows(ccds_statement(band, geometry.dec_cent - reach, geometry.dec_cent + reach))
    ]
    for row in rows:
        for key in ("expnum", "ccdnum", "image_hdu", "width", "height"):
            row[key] = whole_number(row[key], key, tile=tile, band=band)
    rows = [row for row in rows if _overlaps(geometry, row)]
    if not rows:
        bands = sorted(row["band"] for row in database.rows(sa.select(ccds.c.band).distinct()))
        raise ArchiveError(
            "no CCD image of this band touches the tile",
            tile=tile,
            band=band,
            remedy="the archive has bands " + " ".join(bands),
        )
    names = sorted({row[f"{kind}_filename"] for row in rows for kind in _FILES if row[f"{kind}_filename"]})
    for name in names:
        path_parts(name, tile=tile, band=band)
    known: dict[str, ArchiveFile] = {}
    for start in range(0, len(names), 500):
        for found in database.rows(sa.select(files).where(files.c.filename.in_(names[start : start + 500]))):
            known[found["filename"]] = ArchiveFile.recorded(found["filename"], found["filesize"], found["md5sum"])
    result = TileCcds()
    for row in rows:
        chip = f"D{row['expnum']:08d}_{band}_c{row['ccdnum']:02d}_r0001p01"
        fault = _fault(row)
        if fault:
            result.left_out[chip] = fault
            continue
        for kind in _FILES:
            if row[f"{kind}_filename"] not in known:
                raise ArchiveError(
                    f"the archive has no record of the {kind} file",
                    tile=tile,
                    band=band,
                    chip=chip,
                    file=row[f"{kind}_filename"],
                    remedy="repair the archive's database",
                )
        result.chips.append(CcdFiles(row, *(known[row[f"{kind}_filename"]] for kind in _FILES)))
    _log.info("%s %s: %d CCD images, %d left out", tile, band, len(result.chips), len(result.left_out))
    return result


def _fault(row: dict[str, Any]) -> str:
    """Return why a CCD image cannot be used; empty when it can."""
    magnitude, exptime = zero_point(row["ccdzpt"]), row["exptime"]
    if magnitude is None or magnitude <= 0 or not isinstance(exptime, (int, float)) or not exptime > 0:
        return "no zero point"
    if row["ccd_cuts"]:
        return f"ccd_cuts {row['ccd_cuts']}"
    return next(
        (f"no {what}" for kind, what in (("psf", "PSF model"), ("sky", "sky model")) if not row[f"{kind}_filename"]), ""
    )


def tile_name(ra: float, dec: float) -> str:
    """Return the DES name of a tile centred on (ra, dec) degrees, ``DESHHMM+DDMM``, minutes truncated."""
    # A hundredth of a second of rounding keeps 12h26m00s from becoming 12h25m.
    minutes = int((ra % 360.0) * 4.0 + 1e-4)
    arcminutes = int(abs(dec) * 60.0 + 1e-4)
    return (
        f"DES{minutes // 60:02d}{minutes % 60:02d}{'-' if dec < 0 else '+'}{arcminutes // 60:02d}{arcminutes % 60:02d}"
    )


def _find(places: dict[str, Path], *names: str) -> Path | None:
    return next((places[name] for name in names if name in places), None)


def _ccd_row(source: Path, entry: NDArray[Any], calib: dict[str, Path]) -> dict[str, Any]:
    """Return a row of the `ccds` table and see to it that image, weight and mask are there."""
    image = PurePosixPath("images", str(entry["image_filename"]).strip())
    if "_ooi_" not in image.name:
        raise InputError("not the name of a Community Pipeline image (no _ooi_ in it)", file=image)
    row: dict[str, Any] = {}
    for kind, letter in (("image", "i"), ("weight", "w"), ("mask", "d")):
        path = image.with_name(image.name.replace("_ooi_", f"_oo{letter}_"))
        if not (source / path).is_file():
            raise InputError(f"a Community Pipeline {kind} file is not there", file=source / path)
        row[f"{kind}_filename"] = str(path)
    ccdname = str(entry["ccdname"]).strip()
    stem = image.name.split(".")[0]
    for kind, what in (("psf", "psfex"), ("sky", "splinesky")):
        path_here = _find(calib, f"{stem}-{ccdname}-{what}.fits", f"{stem}-{what}.fits")
        row[f"{kind}_filename"] = None if path_here is None else path_here.relative_to(source).as_posix()
    hdu = int(entry["image_hdu"])
    header = read_header(source / image, hdu)
    names = entry.dtype.names or ()

    def number(name: str) -> float | None:
        value = float(entry[name]) if name in names else math.nan
        return value if math.isfinite(value) else None

    row |= {
        "expnum": int(entry["expnum"]),
        "ccdname": ccdname,
        "ccdnum": int(header.get("CCDNUM") or hdu),
        "band": str(entry["filter"]).strip(),
        "camera": str(entry["camera"]).strip() if "camera" in names else None,
        "image_hdu": hdu,
        "width": int(entry["width"]),
        "height": int(entry["height"]),
        "ccd_cuts": int(entry["ccd_cuts"]) if "ccd_cuts" in names else 0,
    }
    numbers = [column.name for column in ccds.c if isinstance(column.type, sa.Float)]
    return row | {name: number(name) for name in numbers}


def _geometry(source: Path, rows: Iterable[dict[str, Any]]) -> Geometry:
    """Return a north-up tile that holds every image."""
    images = []
    for row in rows:
        path = source / row["image_filename"]
        images.append((ImageWCS(read_header(path, row["image_hdu"])), (row["height"], row["width"])))
    corners = [wcs.pixel_to_sky([0, shape[0] - 1], [0, shape[1] - 1]) for wcs, shape in images]
    ra0 = float(corners[0][0][0])
    ra = np.concatenate([(c[0] - ra0 + 180.0) % 360.0 - 180.0 for c in corners])
    dec = np.concatenate([c[1] for c in corners])
    first = Geometry.tangent(
        "first", (ra0 + float(ra.min() + ra.max()) / 2) % 360.0, float(dec.min() + dec.max()) / 2, 1, 1, PIXEL_SCALE
    )
    boxes = np.array([_box_on(first.wcs(), wcs, shape) for wcs, shape in images])
    bottom, top, left, right = boxes[:, 0].min(), boxes[:, 1].max(), boxes[:, 2].min(), boxes[:, 3].max()
    naxis1, naxis2 = math.ceil(right - left), math.ceil(top - bottom)
    if max(naxis1, naxis2) > _LARGEST_TILE:
        raise InputError(
            f"the images span {naxis1} x {naxis2} pixels, more than one tile",
            file=source,
            remedy="keep one field a directory",
        )
    centre_ra, centre_dec = first.wcs().pixel_to_sky((bottom + top) / 2, (left + right) / 2)
    # Round to 0.04 arcsec, so that the same images give the same tile on every machine.
    centre = round(float(centre_ra[0]), 5), round(float(centre_dec[0]), 5)
    return Geometry.tangent(tile_name(*centre), *centre, naxis1, naxis2, PIXEL_SCALE)


def _geometry_row(geometry: Geometry) -> dict[str, Any]:
    corners_ra = [getattr(geometry, f"rac{i}") for i in range(1, 5)]
    corners_dec = [getattr(geometry, f"decc{i}") for i in range(1, 5)]
    crosses = max(corners_ra) - min(corners_ra) > 180.0
    row = {column.name: getattr(geometry, column.name, None) for column in tables.y3a2_coaddtile_geom.c}
    return row | {
        "id": 1,
        "ctype1": "RA---TAN",
        "ctype2": "DEC--TAN",
        "ra_size": geometry.naxis1 * geometry.pixelscale / 3600.0,
        "dec_size": geometry.naxis2 * geometry.pixelscale / 3600.0,
        "racmin": max(corners_ra) if crosses else min(corners_ra),
        "racmax": min(corners_ra) if crosses else max(corners_ra),
        "deccmin": min(corners_dec),
        "deccmax": max(corners_dec),
        "crossra0": "Y" if crosses else "N",
    }


def build_archive(source_dir: str | os.PathLike[str], directory: str | os.PathLike[str]) -> Geometry:
    """Make an archive of Community Pipeline images, all of one field: its file tree and ``archive.db``.

    Parameters
    ----------
    source_dir : path-like
        Holds ``survey-ccds-*.fits.gz``, ``images/`` and ``calib/`` as the Legacy Surveys keep them.
    directory : path-like
        Where the archive is made; the database appears last, when all files are in place.

    Returns
    -------
    Geometry
        The one tile of the archive; it holds every image.

    Raises
    ------
    InputError
        When the table or an image it names is not there.
    """
    source, target = Path(source_dir), Path(directory)
    found = sorted(source.glob("survey-ccds-*.fits*"))
    if not found:
        raise InputError("there is no survey-ccds table", file=source / "survey-ccds-1.fits.gz")
    calib = {path.name: path for path in sorted((source / "calib").rglob("*.fits"))}
    rows = [_ccd_row(source, entry, calib) for table in found for entry in read_table(table)]
    for row in rows:
        shape = read_image(source / row["image_filename"], row["image_hdu"]).shape
        if shape != (row["height"], row["width"]):
            raise InputError(
                f"an image of {shape} pixels, the table says {(row['height'], row['width'])}",
                file=source / row["image_filename"],
            )
    geometry = _geometry(source, rows)
    names = sorted({row[f"{kind}_filename"] for row in rows for kind in _FILES if row[f"{kind}_filename"]})
    records = []
    for name in names:
        with writing(target / name) as part:
            part.write_bytes((source / name).read_bytes())
        records.append({"filename": name, "filesize": (target / name).stat().st_size, "md5sum": md5(target / name)})
    with writing(target / "archive.db") as part:
        engine = sa.create_engine(f"sqlite:///{part}", poolclass=sa.pool.NullPool)
        _metadata.create_all(engine)
        tables.y3a2_coaddtile_geom.create(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(ccds), rows)
            connection.execute(sa.insert(files), records)
            connection.execute(sa.insert(tables.y3a2_coaddtile_geom), _geometry_row(geometry))
        engine.dispose()
    bands = sorted({row["band"] for row in rows})
    _log.info(
        "archive of tile %s: %d CCD images in %s, %d files", geometry.tilename, len(rows), " ".join(bands), len(records)
    )
    return geometry
