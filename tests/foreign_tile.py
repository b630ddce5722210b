"""Tiles as the old pipeline left them: no manifests, no geometry, its own formats of coadds and object maps (P 2.1)."""

import shutil

import fitsio
import numpy as np

from balrogutils.fitsfile import read_table


def age(tree, bands):
    """Make of a tile of ours one of the old pipeline's, in place."""
    for directory in ("manifests", "logs"):
        shutil.rmtree(tree.dir / directory, ignore_errors=True)
    tree.geometry.unlink(missing_ok=True)
    for band in (*bands, "det"):
        if tree.image(band).is_file():
            _age_coadd(tree.image(band))
    for band in bands:
        if tree.objmap(band).is_file():
            _age_objmap(tree.objmap(band))


def _age_coadd(path):
    """HDUs SCI f4, MSK i8, WGT f4; no checksums, and no record of what was interpolated."""
    with fitsio.FITS(str(path)) as fits:
        planes = [(name, fits[name].read(), fits[name].read_header()) for name in ("SCI", "MSK", "WGT")]
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        for name, pixels, header in planes:
            for key in ("CHECKSUM", "DATASUM", "EXTNAME"):
                header.delete(key)
            fits.write(pixels.astype("i8" if name == "MSK" else "f4"), header=header, extname=name)


def _age_objmap(path):
    """Objects counted from 0, and no other identifier."""
    count = len(read_table(path, "OBJECTS"))
    rows = np.zeros(count, dtype=[("object_number", "i4"), ("id", "i8")])
    rows["object_number"] = rows["id"] = np.arange(count)
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        fits.write_table(rows, extname="OBJECTS")


def state(directory):
    """Return the content of every file of a tree but its logs, by relative name."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.parent.name != "logs"
    }
