"""A small tile with everything block 1024 reads, made of numbers alone."""

import numpy as np

from balrogutils.archive.geometry import Geometry
from balrogutils.context import Context
from balrogutils.fitsfile import Plane, Table, write_images, write_tables
from balrogutils.identity import object_ids
from balrogutils.injection.flags import OUTCOME_DTYPE, ChipFlag
from balrogutils.layout import Site
from balrogutils.measurement.catalogue import model_rows
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.pipeline import Pipeline

BANDS = ("g", "r", "z")
TILE = "DES0239+0216"


def make_context(root, realization="0"):
    site = Site.from_environment("y3v02", {"BALROG_BASE": str(root)})
    campaign = Campaign(kind="desdm", database="sqlite://", archive="file:///", bands=BANDS, det=BANDS, name="test")
    return Context(site, Pipeline(bands=BANDS), campaign, TILE, realization)


def write_catalogue(path, row, col):
    single = ("MAG_AUTO", "MAGERR_AUTO", "FLUX_AUTO", "FLUXERR_AUTO", "FLUX_RADIUS", "X_IMAGE", "Y_IMAGE")
    dtype = [
        ("NUMBER", "i4"),
        ("FLAGS", "i2"),
        ("IMAFLAGS_ISO", "i4"),
        ("ISOAREA_IMAGE", "i4"),
        *((name, "f4") for name in single),
    ]
    rows = np.zeros(len(row), dtype=dtype)
    rows["NUMBER"], rows["X_IMAGE"], rows["Y_IMAGE"] = np.arange(len(row)) + 1, col + 1, row + 1
    write_tables(path, [Table("OBJECTS", rows)])


def make_tile(root):
    """Ten injections, eight detected and fitted; four base detections, one of them 0.2 arcsec from injection 0."""
    rng = np.random.default_rng(5)
    context = make_context(root)
    tree, base = context.tree, context.base_tree
    geometry = Geometry.tangent(TILE, 39.8, 2.27, 400, 400, 0.263)
    geometry.write(base.geometry)
    row, col = rng.uniform(20, 380, 10), rng.uniform(20, 380, 10)
    ra, dec = geometry.wcs().pixel_to_sky(row, col)
    truth = np.zeros(
        10,
        dtype=[("bal_id", "i8"), ("inj_type", "U11"), ("ra", "f8"), ("dec", "f8"), ("outcome", "i4")]
        + [("cat_row", "i8"), ("cat_id", "i8")]
        + [(f"{name}_{band}", "f8") for name in ("flux", "mag", "extinction") for band in BANDS],
    )
    truth["bal_id"], truth["ra"], truth["dec"] = object_ids(TILE, "0", np.arange(10) + 1), ra, dec
    truth["inj_type"] = ["ngmixGalaxy", "desStar"] * 5
    for band in BANDS:
        truth[f"flux_{band}"], truth[f"mag_{band}"], truth[f"extinction_{band}"] = 1000.0, 22.5, 0.8
    cards = {"TILENAME": TILE, "CURRREAL": "0"}
    chips = np.zeros(30, dtype=OUTCOME_DTYPE)
    chips["bal_id"], chips["band"] = np.repeat(truth["bal_id"], 3), np.tile(BANDS, 10)
    chips["flags"] = ChipFlag.DRAWN | ChipFlag.CENTRE_ON_CHIP
    write_tables(tree.truth_chips, [Table("CHIPS", chips, None, cards)])
    # Detections 1 and 2 are of the base run, the others of injections 9 ... 2, a quarter of a pixel off.
    found_row = np.concatenate([[5.0, 395.0], row[:1:-1] + 0.25])
    found_col = np.concatenate([[5.0, 395.0], col[:1:-1]])
    for band in BANDS:
        write_catalogue(tree.catalog(band), found_row, found_col)
        write_catalogue(
            base.catalog(band), np.array([5.0, 395.0, row[0], 200.0]), np.array([5.0, 395.0, col[0] + 0.76, 5.0])
        )
    truth["cat_row"], truth["cat_id"] = np.arange(10), 100 + np.arange(10)
    write_tables(tree.truth, [Table("truth", truth, None, cards)])
    for one in (tree, base):
        for band in BANDS:
            noise = rng.normal(0, 1, (400, 400)).astype("f4")
            planes = (("SCI", noise), ("MSK", np.zeros((400, 400), "i2")), ("WGT", np.ones((400, 400), "f4")))
            write_images(one.image(band), [Plane(name, pixels) for name, pixels in planes])
    fits = model_rows("exp", 3, 10)
    fits["number"], fits["flags"] = np.arange(10) + 1, 0
    fits["id"] = object_ids(TILE, "0", fits["number"])
    fits["exp_flux"], fits["psf_flux"], fits["psf_flux_err"] = 1010.0, 990.0, 5.0
    fits["exp_flux_cov"] = np.eye(3) * 25
    meta = np.array([(b"g,r,z", b"exp")], dtype=[("bands", "S5"), ("model", "S3")])
    write_tables(tree.fit("sof"), [Table("model_fits", fits), Table("meta_data", meta)])
    return context


def write_fits(path, rows, bands=BANDS, model="exp"):
    rows["id"] = object_ids(TILE, "0", rows["number"])
    meta = np.array([(",".join(bands), model)], dtype=[("bands", "S9"), ("model", "S5")])
    write_tables(path, [Table("model_fits", rows), Table("meta_data", meta)])
