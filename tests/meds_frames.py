"""A tile small enough to draw in a test: everything blocks 1 and 2 leave for one band."""

from pathlib import Path

import fitsio
import numpy as np

from balrogutils.context import Context
from balrogutils.fitsfile import Plane, Table, write_images, write_tables
from balrogutils.layout import Site
from balrogutils.meds.cutouts import FILL, Layout
from balrogutils.meds.sources import Strip
from balrogutils.meds.tables import Tables, metadata, object_data, record
from balrogutils.meds.writer import write_meds
from balrogutils.products import writing_text
from balrogutils.psf import PSFEx
from balrogutils.randomness import stream
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.pipeline import Pipeline
from balrogutils.wcs import ImageWCS

CHECKOUT = Path(__file__).resolve().parents[1]
TILE, BAND = "DES0239+0216", "r"
RA, DEC, SCALE = 39.9, 2.27, 0.263 / 3600
COADD_SHAPE = (300, 280)
# rotation in degrees, parity, row and column of the tile centre in the frame, rows, columns, zero point
FRAMES = (
    (90.0, 1, 130.3, 148.1, 256, 300, 31.2),
    (91.5, 1, 60.2, 150.4, 256, 300, 30.7),
    (-88.0, 1, 128.8, 60.6, 256, 300, 31.5),
    (0.0, -1, 140.0, 140.0, 270, 270, 31.0),
)


def tan_header(shape, centre=None):
    row, col = centre or ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": RA, "CRVAL2": DEC}
    cards |= {"CRPIX1": col + 1, "CRPIX2": row + 1, "CUNIT1": "deg", "CUNIT2": "deg"}
    return {**cards, "CD1_1": -SCALE, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": SCALE}


def tpv_header(shape, angle, parity, row, col):
    """A distorted WCS: 3e-4 of the field's size at its edge, cubic, as large as DECam's."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    cards = tan_header(shape, (row, col)) | {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"}
    cards |= {"CD1_1": -SCALE * c, "CD1_2": SCALE * s * parity, "CD2_1": SCALE * s, "CD2_2": SCALE * c * parity}
    for axis in (1, 2):
        cards |= {f"PV{axis}_0": 0.0, f"PV{axis}_1": 1.0, f"PV{axis}_2": 2e-4, f"PV{axis}_4": 3e-3, f"PV{axis}_7": 0.4}
    return cards


def fits_header(cards):
    header = fitsio.FITSHDR()
    for key, value in cards.items():
        header.add_record({"name": key, "value": value})
    return header


def psf_model(fwhm, gradient=0.1):
    """A PSFEx model of degree 1 whose width changes over the image, 25 x 25 at half a pixel."""
    y, x = np.mgrid[-12:13, -12:13] * 0.5
    sigma = fwhm / 2.3548
    core = np.exp(-0.5 * (x**2 + y**2) / sigma**2)
    core /= core.sum()
    slope = gradient * core * ((x**2 + y**2) / sigma**2 - 2)
    return PSFEx(np.stack([core, slope, 0.5 * slope]), 1, (150.0, 130.0), (300.0, 260.0), 0.5, fwhm)


def context(base, desmeds="meds-y3v02.yaml", realization=None, bands=(BAND,), **campaign):
    site = Site(
        base=CHECKOUT,
        meds_data=base / "meds",
        medsconf="y3v02",
        ngmixer_output=base / "fits",
        desdata=base / "DESDATA",
        desmeds_config=CHECKOUT / "desmeds-config",
        services=base / "none",
        tmp=base / "tmp",
    )
    of_tile = Campaign(
        kind="desdm", database="sqlite://", archive="file:///", bands=bands, det=(bands[0],), tiles=(TILE,), name="test"
    ).model_copy(update=campaign)
    return Context(site, Pipeline(desmeds_config=str(desmeds)), of_tile, TILE, realization)


def positions(count=24):
    """Object positions on the coadd, zero-offset, the last in the corner that no frame covers."""
    rng = stream(1, "meds test", "positions")
    row, col = rng.uniform(3, COADD_SHAPE[0] - 4, count), rng.uniform(3, COADD_SHAPE[1] - 4, count)
    row[0], col[0] = 1.3, 140.2
    row[-1], col[-1] = 1.0, 1.0
    return row, col


def catalogue(row, col):
    """SExtractor-like columns of objects at zero-offset positions, with a wide range of sizes."""
    count = len(row)
    rng = stream(1, "meds test", "sizes")
    names = ("X_IMAGE", "Y_IMAGE", "A_WORLD", "B_WORLD", "FLUX_RADIUS", "FLUX_AUTO", "FLUXERR_AUTO", "MAG_AUTO")
    names += ("X2_IMAGE", "Y2_IMAGE", "ERRX2_IMAGE", "ERRY2_IMAGE")
    whole = ("NUMBER", "FLAGS", "XMIN_IMAGE", "XMAX_IMAGE", "YMIN_IMAGE", "YMAX_IMAGE", "ISOAREA_IMAGE")
    rows = np.zeros(count, dtype=[*((name, "f8") for name in names), *((name, "i4") for name in whole)])
    for name in names:
        rows[name] = rng.uniform(1, 2, count)
    rows["NUMBER"] = np.arange(1, count + 1)
    rows["X_IMAGE"], rows["Y_IMAGE"] = col + 1, row + 1
    rows["B_WORLD"] = rows["A_WORLD"] * rng.uniform(0.4, 1, count)
    rows["FLUX_RADIUS"] = rng.choice([1.5, 2.5, 4.0, 7.0], count)
    rows["XMIN_IMAGE"], rows["XMAX_IMAGE"] = rows["X_IMAGE"] - 5, rows["X_IMAGE"] + 5
    rows["YMIN_IMAGE"], rows["YMAX_IMAGE"] = rows["Y_IMAGE"] - 4, rows["Y_IMAGE"] + 4
    rows["ISOAREA_IMAGE"] = 70
    return rows


def discs(shape, row, col, radius=4.0):
    """Segmentation: label k + 1 in a disc around object k."""
    seg = np.zeros(shape, np.int32)
    y, x = np.indices(shape)
    for number, (r, c) in enumerate(zip(row, col, strict=True), start=1):
        seg[(y - r) ** 2 + (x - c) ** 2 < radius**2] = number
    return seg


def draw(wcs, shape, ra, dec, magzp, rng, noise):
    image = rng.normal(0, noise, shape)
    row, col = wcs.sky_to_pixel(ra, dec)
    y, x = np.indices(shape)
    for r, c in zip(row, col, strict=True):
        image += 10 ** (0.4 * (magzp - 22)) * np.exp(-0.5 * ((y - r) ** 2 + (x - c) ** 2) / 4) / (8 * np.pi)
    return image.astype(np.float32)


def write_tile(base, frames=FRAMES, count=24, **settings):
    """Write what blocks 1 and 2 leave for one band, the third frame without weight; return its `Context`."""
    made = context(base, **settings)
    tree = made.tree
    row, col = positions(count)
    header = tan_header(COADD_SHAPE)
    coadd = ImageWCS(header)
    ra, dec = coadd.pixel_to_sky(row, col)
    lines = {"nullwt": [], "seg": [], "bkg": []}
    psfmap = []
    for i, (angle, parity, row0, col0, rows, cols, magzp) in enumerate(frames):
        rng = stream(1, "meds test", "frame", i)
        cards = tpv_header((rows, cols), angle, parity, row0, col0)
        wcs = ImageWCS(cards)
        chip = f"D{229342 + i:08d}_{BAND}_c{10 + i:02d}_r2356p01"
        noise = 8.0 + i
        image = draw(wcs, (rows, cols), ra, dec, magzp, rng, noise)
        weight = np.full((rows, cols), noise**-2, np.float32)
        mask = np.zeros((rows, cols), np.int16)
        mask[100:103], mask[:, 50] = 4, 8
        weight[mask == 8] = 0
        if i == 2:
            weight[:] = 0
        y, x = np.indices((rows, cols))
        background = (3 + 0.01 * y - 0.02 * x).astype(np.float32)
        full = fits_header(cards | {"BAND": BAND, "EXPNUM": 229342 + i, "CCDNUM": 10 + i})
        planes = [Plane("SCI", image + background, full), Plane("WGT", weight), Plane("WGT_ME", weight)]
        write_images(tree.nullwt(BAND, chip), [*planes, Plane("MSK", mask, full)])
        side = {kind: tree.sources(BAND) / f"{chip}_{kind}.fits" for kind in ("segmap", "bkg")}
        write_images(side["segmap"], [Plane("SCI", discs((rows, cols), *wcs.sky_to_pixel(ra, dec)))])
        write_images(side["bkg"], [Plane("SCI", background)])
        psf_model(3.5 + 0.2 * i).write(tree.psf(chip))
        lines["nullwt"].append(f"{tree.nullwt(BAND, chip)} {magzp:.16g}")
        lines["seg"].append(str(side["segmap"]))
        lines["bkg"].append(str(side["bkg"]))
        psfmap.append(f"{229342 + i:08d} {10 + i:02d} {tree.psf(chip)}")
    for kind, text in lines.items():
        writing_text(tree.flist(kind, BAND), "\n".join(text) + "\n")
    coadd_psf = tree.psfs / f"{TILE}_{BAND}_psfcat.psf"
    psf_model(3.3).write(coadd_psf)
    writing_text(tree.psfmap(BAND), "\n".join([f"-9999 -9999 {coadd_psf}", *psfmap]) + "\n")
    write_coadd_products(
        tree, row, col, header, draw(coadd, COADD_SHAPE, ra, dec, 30.0, stream(1, "meds test", "coadd"), 4.0)
    )
    return made


def write_coadd_products(tree, row, col, header, image):
    weight = np.full(COADD_SHAPE, 1 / 16, np.float32)
    mask = np.zeros(COADD_SHAPE, np.int32)
    mask[:, 200] = 1
    full = fits_header(header)
    write_images(tree.image(BAND), [Plane("SCI", image, full), Plane("MSK", mask, full), Plane("WGT", weight, full)])
    write_images(tree.segmap(BAND), [Plane("SCI", discs(COADD_SHAPE, row, col), full)])
    write_tables(tree.catalog(BAND), [Table("OBJECTS", catalogue(row, col))])
    ids = np.zeros(len(row), dtype=[("object_number", "i4"), ("id", "i8")])
    ids["object_number"] = np.arange(1, len(row) + 1)
    ids["id"] = 23902160000000 + np.arange(1, len(row) + 1)
    write_tables(tree.objmap(BAND), [Table("OBJECTS", ids)])


STAMPS = {"image": "f4", "weight": "f4", "seg": "i4", "bmask": "i4"}
STRIP = 50


class Frame:
    """A source image of given planes; its PSF stamps carry the position they were asked for."""

    def __init__(self, planes, side=9):
        self.pixels, self.side = planes, side
        self.height = len(next(iter(planes.values())))

    def strips(self, kinds):
        for first in range(0, self.height, STRIP):
            for kind in kinds:
                if kind in self.pixels:
                    yield Strip(kind, first, self.height, self.pixels[kind][first : first + STRIP])

    def psf_stamps(self, rows, cols):
        stamps = np.zeros((len(rows), self.side, self.side))
        stamps[:, self.side // 2, self.side // 2] = 1
        stamps[:, 0, 0], stamps[:, 0, 1] = rows / 1e4, cols / 1e4
        return stamps


def layout_at(found, boxes, sides=None):
    """Lay out objects whose cut-outs are given as (file_id, row, col), with PSF stamps of the sides of the images.

    Returns the layout and the boxes.
    """
    box = np.array(boxes)
    count, nmax = len(found), max(2, *(len(cutouts) for cutouts in found), 2)
    whole = ("file_id", "start_row", "orig_start_row", "orig_start_col")
    real = ("orig_row", "orig_col", "cutout_row", "cutout_col", "dudrow", "dudcol", "dvdrow", "dvdcol")
    if sides is not None:
        whole, real = (*whole, "psf_start_row"), (*real, "psf_cutout_row", "psf_cutout_col")
    table = {name: np.full((count, nmax), FILL, np.int64) for name in whole}
    table |= {name: np.full((count, nmax), float(FILL)) for name in real}
    if sides is not None:
        table |= {name: np.full((count, nmax), FILL, np.int32) for name in ("psf_row_size", "psf_col_size")}
    pixels = psf_pixels = 0
    for i, (cutouts, side) in enumerate(zip(found, box, strict=True)):
        for k, (file_id, row, col) in enumerate(cutouts):
            top, left = int(row) - side // 2 + 1, int(col) - side // 2 + 1
            values = {"file_id": file_id, "start_row": pixels, "orig_row": row, "orig_col": col}
            values |= {"orig_start_row": top, "orig_start_col": left, "cutout_row": row - top, "cutout_col": col - left}
            values |= {"dudrow": 0.0, "dudcol": 0.263, "dvdrow": 0.263, "dvdcol": 0.0}
            if sides is not None:
                psf = sides[file_id]
                values |= {"psf_start_row": psf_pixels, "psf_row_size": psf, "psf_col_size": psf}
                values |= {"psf_cutout_row": (psf - 1) / 2, "psf_cutout_col": (psf - 1) / 2}
                psf_pixels += psf**2
            for name, value in values.items():
                table[name][i, k] = value
            pixels += side**2
    return Layout(np.array([len(cutouts) for cutouts in found], np.int64), table, int(pixels), psf_pixels), box


def info(images):
    """An image_info table of so many images."""
    files = {f"{kind}_path": [f"/sky/{kind}-{i}.fits" for i in range(images)] for kind in ("image", "weight", "seg")}
    return record(
        {
            **files,
            "image_ext": ["sci"] * images,
            "image_id": [f"image-{i}" for i in range(images)],
            "image_flags": np.zeros(images, np.int64),
            "magzp": np.full(images, 30, np.float32),
            "scale": np.ones(images, np.float32),
            "position_offset": np.ones(images),
            "wcs": ['{"naxis1": 110, "naxis2": 120}'] * images,
        }
    )


def tables_of(layout, box, images, psf=False):
    """The tables of a MEDS file of objects 100, 101, ... with numbers from 1."""
    count = len(box)
    number = {"number": np.arange(count) + 1}
    objects = object_data(np.arange(count) + 100, np.zeros(count), np.zeros(count), box, layout, number)
    psf_info = record({"file_id": np.arange(images)}) if psf else None
    return Tables(objects, info(images), metadata({"magzp_ref": 30.0}), psf_info)


def write_stamps(path, layout, box, frames, kinds=tuple(STAMPS), packing=None, **options):
    """Write a MEDS file without PSF stamps and return its path."""
    tables = tables_of(layout, box, len(frames))
    write_meds(path, tables, layout, frames, packing, dtypes={kind: STAMPS[kind] for kind in kinds}, **options)
    return path
