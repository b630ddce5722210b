"""What blocks 2 and 4 leave, in a tile that was made elsewhere (layout: P 2.1)."""

from __future__ import annotations

import numpy as np

from balrogutils.errors import ProductError
from balrogutils.fitsfile import read_image
from balrogutils.matching.table import PER_BAND, SHARED
from balrogutils.meds.reader import MEDS
from balrogutils.meds.tile import Catalog, catalog_columns, read_catalog
from balrogutils.settings.desmeds import DesMeds
from balrogutils.upkeep.findings import GRID_TOLERANCE, Findings, Whole, read_hdus
from balrogutils.upkeep.foreignprep import rename
from balrogutils.wcs import ImageWCS

__all__ = ["look_at_catalog", "look_at_coadd", "look_at_meds"]

_PLANES = ("SCI", "MSK", "WGT")


def look_at_coadd(found: Findings, band: str) -> Whole | None:
    """Return the coadd step of a band, ``det`` or ``all``, where it is whole; otherwise `found` says what is wrong."""
    if band == "all":
        return _joined_maps(found)
    file = found.tree.image(band)
    if not found.there("coadd", band, file):
        return None
    with found.noting(band, file):
        sci, *others = read_hdus(file, _PLANES)
        wcs = ImageWCS(sci.header)
        for name, hdu in zip(_PLANES[1:], others, strict=True):
            if not ImageWCS(hdu.header).offset(wcs, sci.shape) < GRID_TOLERANCE:
                raise ProductError(f"SCI and {name} have different WCSs", key=name)
        found.coadds[band] = sci
        return Whole("coadd", band, (file,), {"pixels": sci.shape[0] * sci.shape[1]})
    return None


def _joined_maps(found: Findings) -> Whole | None:
    file = found.tree.all_psfmap
    if not file.is_file():
        # No step reads it.
        return None
    rename(found, "psfmap", file)
    return Whole("coadd", "all", (file,), {})


def look_at_catalog(found: Findings, band: str) -> Whole | None:
    """Return the catalogue step of a band where it is whole; otherwise `found` says what is wrong or lacking."""
    tree, settings = found.tree, found.context.desmeds
    files = tree.catalog(band), tree.segmap(band), tree.objmap(band)
    if not found.there("catalog", band, *files):
        return None
    with found.noting(band, files[0]):
        catalog = read_catalog(files[0], files[2])
        count = found.rows[band] = len(catalog.rows)
        _check_segmentation(found, band, count)
        first = next(iter(found.rows))
        if count != found.rows[first]:
            raise ProductError(f"the catalogue has {count} rows, that of band {first} {found.rows[first]}")
        lacking = _lacking(catalog, settings)
        if lacking:
            # The old pipeline did not measure all of these (P 3.2): an older format, not damage.
            text = f"{files[0]} lacks {' '.join(lacking)}, which blocks 4 and 1024 need"
            found.absent.append(f"catalog {band}: {text}; mode 2 makes it anew in its place")
            return None
        flagged = int(np.count_nonzero(catalog.column(settings.flags_name)))
        return Whole("catalog", band, files, {"detections": count, "flagged": flagged})
    return None


def _check_segmentation(found: Findings, band: str, count: int) -> None:
    file, ext = found.tree.segmap(band), found.context.desmeds.coadd_seg_ext
    labels = read_image(file, ext)
    coadd = found.coadds.get(band)
    if coadd is not None and labels.shape != coadd.shape:
        text = f"the segmentation has shape {labels.shape}, the coadd {coadd.shape}"
        raise ProductError(text, file=file, key=str(ext))
    last = int(labels.max(initial=0))
    if last != count:
        text = f"the last label of the segmentation is {last}, the catalogue has {count} rows"
        raise ProductError(text, file=file, key=str(ext))


def _lacking(catalog: Catalog, settings: DesMeds) -> list[str]:
    known = {name.upper() for name in catalog.rows.dtype.names or ()}
    wanted = dict.fromkeys(name.upper() for name in (*catalog_columns(settings), *PER_BAND, *SHARED))
    return [name for name in wanted if name not in known]


def look_at_meds(found: Findings, band: str) -> Whole | None:
    """Return the MEDS step of a band where it is whole; otherwise `found` says what is wrong or lacking."""
    path = found.tree.meds(band)
    if not found.there("meds", band, path):
        return None
    with found.noting(band, path), MEDS(path) as file:
        ncutout, ids = file["ncutout"], file["id"]
        if file.size != found.rows.get(band, file.size):
            raise ProductError(f"the file has {file.size} objects, the catalogue {found.rows[band]}")
        found.ids[band] = ids
        first = next(iter(found.ids))
        if not np.array_equal(ids, found.ids[first]):
            raise ProductError(f"the ids are not those of band {first}", key="id")
        _read_last(file)
        if not file.has_psf():
            # The old pipeline stored none (P 2.3).
            text = f"{path} has no PSF stamps, which block 64 needs; mode 4 makes it anew in its place"
            found.absent.append(f"meds {band}: {text}")
            return None
        counts = {"objects": file.size, "cutouts": int(ncutout.sum()), "images": len(file.get_image_info())}
        return Whole("meds", band, (path,), counts)
    return None


def _read_last(file: MEDS) -> None:
    """Read the last cut-out of each type: a file that was cut short does not have it."""
    ncutout = file["ncutout"]
    filled = np.flatnonzero(ncutout > 0)
    for kind in file.types:
        if filled.size and (kind != "psf" or file.has_psf()):
            file.get_cutout(int(filled[-1]), int(ncutout[filled[-1]]) - 1, kind)
