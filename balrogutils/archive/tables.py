"""Tables of the DES archive that block 1 queries, as SQLAlchemy Core objects.

The names and columns are those of the survey's own database; identifiers are lower case, which Oracle folds to its own
upper case.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Integer, MetaData, String, Table

__all__ = [
    "ARCHIVE_NAME",
    "GEOMETRY_BANDS",
    "coadd",
    "coaddtile_geom",
    "desfile",
    "file_archive_info",
    "image",
    "metadata",
    "proctag",
    "y3a2_coaddtile_geom",
    "zeropoint",
]

ARCHIVE_NAME = "desar2home"
"""Name under which the delivered copy of a file stands in `file_archive_info`."""

GEOMETRY_BANDS = ("g", "r", "i", "z")
"""Bands that have extinction columns in the tile geometry, in the order of the DES geometry file."""

metadata = MetaData()

proctag = Table(
    "y3a2_proctag",
    metadata,
    Column("tag", String(64), primary_key=True),
    Column("pfw_attempt_id", BigInteger, primary_key=True),
)
"""Processing campaign of a processing attempt: Y3A2_COADD for tiles, Y3A1_FINALCUT for exposures."""

coadd = Table(
    "y3a2_coadd",
    metadata,
    Column("filename", String(128), primary_key=True),
    Column("filetype", String(32), nullable=False),
    Column("pfw_attempt_id", BigInteger, nullable=False, index=True),
    Column("tilename", String(32), nullable=False, index=True),
    Column("band", String(8), nullable=False),
)
"""Coadd images, filetype ``coadd``; the filename is without ``.fz``."""

image = Table(
    "y3a2_image",
    metadata,
    Column("filename", String(128), primary_key=True),
    Column("filetype", String(32), nullable=False, index=True),
    Column("pfw_attempt_id", BigInteger, nullable=False, index=True),
    Column("tilename", String(32), index=True),
    Column("band", String(8), nullable=False),
    Column("expnum", BigInteger, nullable=False),
    Column("ccdnum", Integer, nullable=False),
)
"""Single-epoch images: filetype ``red_immask`` of an exposure (no tile), ``coadd_nwgint`` of a tile that used it."""

file_archive_info = Table(
    "y3a2_file_archive_info",
    metadata,
    Column("filename", String(128), primary_key=True),
    Column("archive_name", String(32), primary_key=True),
    Column("compression", String(8)),
    Column("path", String(256), nullable=False),
)
"""Directory of each file below the archive's root, without slash at either end; compression is ``.fz`` or null."""

zeropoint = Table(
    "y3a2_zeropoint",
    metadata,
    Column("imagename", String(128), primary_key=True),
    Column("source", String(32), primary_key=True),
    Column("version", String(32), primary_key=True),
    Column("mag_zero", Float(53), nullable=False),
    Column("sigma_mag_zero", Float(53)),
    Column("flag", Integer),
)
"""Zero point of each `red_immask` image, magnitudes of one electron of the exposure."""

desfile = Table(
    "y3a2_desfile",
    metadata,
    Column("filename", String(128), primary_key=True),
    Column("compression", String(8)),
    Column("filesize", BigInteger, nullable=False),
    Column("md5sum", String(32), nullable=False),
)
"""Size in bytes and MD5 of every delivered file as it lies in the archive (of the packed file where it is packed)."""


def _geometry(name: str) -> Table:
    floats = [
        *("pixelscale", "ra_cent", "dec_cent", "ra_size", "dec_size"),
        *(f"{axis}c{corner}" for corner in range(1, 5) for axis in ("ra", "dec")),
        *("racmin", "racmax", "deccmin", "deccmax"),
        *("uramin", "uramax", "udecmin", "udecmax"),
        *("crpix1", "crpix2", "crval1", "crval2", "cd1_1", "cd1_2", "cd2_1", "cd2_2"),
        *(f"{kind}_{band}" for kind in ("extfact", "extmag") for band in GEOMETRY_BANDS),
    ]
    return Table(
        name,
        metadata,
        Column("id", BigInteger, nullable=False),
        Column("tilename", String(32), primary_key=True),
        Column("naxis1", Integer, nullable=False),
        Column("naxis2", Integer, nullable=False),
        Column("crossra0", String(1), nullable=False),
        Column("ctype1", String(8)),
        Column("ctype2", String(8)),
        *(Column(column, Float(53)) for column in floats),
    )


y3a2_coaddtile_geom = _geometry("y3a2_coaddtile_geom")
"""Geometry of each tile as database dessci has it. Angles in degrees, sizes in degrees, pixels one-offset."""

coaddtile_geom = _geometry("coaddtile_geom")
"""The same rows under the name database desoper has them."""
