"""The rows of the archive's tables for the files a survey has made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import sqlalchemy as sa

from balrogutils.archive import tables
from balrogutils.archive.geometry import Geometry
from balrogutils.randomness import stream
from balrogutils.survey import places
from balrogutils.survey.parameters import SurveyParameters
from balrogutils.survey.telescope import Chip, geometry_of

__all__ = ["COADD_TAG", "FINALCUT_TAG", "ZEROPOINT_SOURCE", "ZEROPOINT_VERSION", "geometry_row", "write_database"]

COADD_TAG = "Y3A2_COADD"
"""Campaign of the tiles."""

FINALCUT_TAG = "Y3A1_FINALCUT"
"""Campaign of the exposures."""

ZEROPOINT_SOURCE = "FGCM"
ZEROPOINT_VERSION = "v2.0"

_COADD_ATTEMPT = 1500000


def geometry_row(tile: Geometry, number: int) -> dict[str, Any]:
    """Return the row of a tile in the geometry tables."""
    ra = [getattr(tile, f"rac{i}") for i in range(1, 5)]
    dec = [getattr(tile, f"decc{i}") for i in range(1, 5)]
    # Around RA 0 the extent runs from the larger to the smaller value.
    from_centre = [(value - tile.ra_cent + 180.0) % 360.0 - 180.0 for value in ra]
    low, high = (tile.ra_cent + min(from_centre)) % 360.0, (tile.ra_cent + max(from_centre)) % 360.0
    row: dict[str, Any] = {
        "id": number,
        "tilename": tile.tilename,
        "naxis1": tile.naxis1,
        "naxis2": tile.naxis2,
        "pixelscale": tile.pixelscale,
        "ra_cent": tile.ra_cent,
        "dec_cent": tile.dec_cent,
        "ra_size": tile.naxis1 * tile.pixelscale / 3600.0,
        "dec_size": tile.naxis2 * tile.pixelscale / 3600.0,
        "racmin": low,
        "racmax": high,
        "deccmin": min(dec),
        "deccmax": max(dec),
        "crossra0": "Y" if low > high else "N",
        "ctype1": "RA---TAN",
        "ctype2": "DEC--TAN",
    }
    for column in tables.y3a2_coaddtile_geom.columns:
        if column.name not in row and hasattr(tile, column.name):
            row[column.name] = getattr(tile, column.name)
    for band in tables.GEOMETRY_BANDS:
        row[f"extfact_{band}"] = tile.extfact.get(band)
        row[f"extmag_{band}"] = tile.extmag.get(band)
    return row


def _file_rows(root: Path, files: Iterable[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    infos, sums = [], []
    for name in sorted(files):
        path = PurePosixPath(name)
        compression = ".fz" if path.suffix == ".fz" else None
        filename = path.name.removesuffix(".fz")
        content = root / path
        with content.open("rb") as stream_:
            # A check of the transfer, not of its sender: the survey's database has MD5.
            digest = hashlib.file_digest(stream_, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        common = {"filename": filename, "compression": compression}
        infos.append({**common, "archive_name": tables.ARCHIVE_NAME, "path": path.parent.as_posix()})
        sums.append({**common, "filesize": content.stat().st_size, "md5sum": digest})
    return infos, sums


def write_database(
    path: Path, root: Path, chips: Sequence[Chip], files: Iterable[str], parameters: SurveyParameters
) -> None:
    """Write the SQLite database of an archive.

    Parameters
    ----------
    path : pathlib.Path
        The database; must not exist.
    root : pathlib.Path
        Root of the archive's files.
    chips : sequence of Chip
        Every CCD delivered.
    files : iterable of str
        Every file delivered, relative to `root`.
    parameters : SurveyParameters
        The survey.
    """
    tiles = [geometry_of(tile, parameters) for tile in parameters.tiles]
    attempts = {tile.tilename: _COADD_ATTEMPT + index for index, tile in enumerate(tiles)}
    tags = [{"tag": COADD_TAG, "pfw_attempt_id": attempt} for attempt in attempts.values()]
    tags += [
        {"tag": FINALCUT_TAG, "pfw_attempt_id": attempt}
        for attempt in sorted({chip.exposure.attempt for chip in chips})
    ]
    coadds = [
        {
            "filename": places.coadd_files(tile.tilename, band)["coadd"].name.removesuffix(".fz"),
            "filetype": "coadd",
            "pfw_attempt_id": attempts[tile.tilename],
            "tilename": tile.tilename,
            "band": band,
        }
        for tile in tiles
        for band in parameters.bands
    ]
    images, zero_points = [], []
    for chip in chips:
        name = f"{chip.name}_immasked.fits"
        common = {"band": chip.band, "expnum": chip.exposure.number, "ccdnum": chip.number}
        images.append(
            {
                **common,
                "filename": name,
                "filetype": "red_immask",
                "pfw_attempt_id": chip.exposure.attempt,
                "tilename": None,
            }
        )
        for tile in chip.tiles:
            nwgint = f"{tile}_{places.COADD_RUN}_{chip.exposure.unit}_{chip.band}_c{chip.number:02d}_nwgint.fits"
            images.append(
                {
                    **common,
                    "filename": nwgint,
                    "filetype": "coadd_nwgint",
                    "pfw_attempt_id": attempts[tile],
                    "tilename": tile,
                }
            )
        common_zero = {"imagename": name, "sigma_mag_zero": 0.005, "flag": 0}
        zero_points.append(
            {**common_zero, "source": ZEROPOINT_SOURCE, "version": ZEROPOINT_VERSION, "mag_zero": chip.zero_point}
        )
        # The processing centre's own, older and worse, as the real table has it; queries must not take it.
        rough = stream(parameters.seed, "rough zero point", chip.exposure.number, chip.number).normal(0, 0.05)
        zero_points.append(
            {**common_zero, "source": "PGCM", "version": "v1.0", "mag_zero": chip.zero_point + float(rough)}
        )
    infos, sums = _file_rows(root, files)
    geometry = [geometry_row(tile, 110000 + index) for index, tile in enumerate(tiles)]
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    try:
        tables.metadata.create_all(engine)
        with engine.begin() as connection:
            for table, rows in (
                (tables.proctag, tags),
                (tables.coadd, coadds),
                (tables.image, images),
                (tables.zeropoint, zero_points),
                (tables.file_archive_info, infos),
                (tables.desfile, sums),
                (tables.y3a2_coaddtile_geom, geometry),
                (tables.coaddtile_geom, geometry),
            ):
                connection.execute(
                    sa.insert(table), [{key: _plain(value) for key, value in row.items()} for row in rows]
                )
    finally:
        engine.dispose()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
