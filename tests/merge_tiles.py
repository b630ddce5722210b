"""What block 1024 leaves of tiles that were never made: matched and detection catalogues with all kinds of fits."""

import dataclasses

import numpy as np

from balrogutils.blends.catalogue import group_rows
from balrogutils.blocks.merge import source_of
from balrogutils.context import Context
from balrogutils.fitsfile import Table
from balrogutils.identity import object_ids
from balrogutils.layout import Site
from balrogutils.matching.ambiguity import FLAG_RADII, flag_name
from balrogutils.matching.positions import Matches, Reason
from balrogutils.matching.table import as_table, detection_table, match_table, prefixed
from balrogutils.measurement.catalogue import common_dtype, model_rows, unmeasured
from balrogutils.metacal.columns import metacal_rows
from balrogutils.parquetfile import write_parquet
from balrogutils.products import Step
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.pipeline import Pipeline

BANDS = tuple("griz")
SHAPES = tuple("riz")
TYPES = ("noshear", "1p", "1m", "2p", "2m")
CARDS = {"RADIUS": 0.5, "BANDS": "g,r,i,z", "MAGZERO": 30.0}


def tile_name(number):
    """Return the name of a tile by its number, 0 to 99 999."""
    return f"DES{number // 10:04d}{'+-'[number % 2]}{number % 10:04d}"


def site_of(root):
    return Site.from_environment("y3v02", {"BALROG_BASE": str(root)})


def context_of(site, tile, realization):
    campaign = Campaign(kind="desdm", database="sqlite://", archive="file:///", bands=BANDS, det=BANDS, name="test")
    return Context(site, Pipeline(bands=BANDS), campaign, tile, realization)


def measured(count, fits):
    """Return tables of measurements: detections, and fits of some kinds."""
    shared = as_table({"id": np.zeros(count, "i8"), "ra": np.zeros(count), "dec": np.zeros(count)}, count)
    tables = [("", shared)]
    if "sof" in fits:
        rows = model_rows("cm", len(BANDS), count)
        rows["flags"] = 0
        tables.append(("", rows[[name for name in rows.dtype.names if name not in ("ra", "dec", "number", "id")]]))
    if "mof" in fits:
        tables.append(("", prefixed(group_rows("cm", len(BANDS), count), "mof")))
    if "mcal" in fits:
        own = metacal_rows(len(SHAPES), TYPES, count=count)
        common = unmeasured(np.zeros(count, common_dtype(len(SHAPES))))
        both = {name: rows[name].copy() for rows in (common, own) for name in rows.dtype.names}
        shear = {"": (0, 0), "_1p": (1, 0), "_1m": (-1, 0), "_2p": (0, 1), "_2m": (0, -1)}
        for end, (first, second) in shear.items():
            # R11 0.7, R22 0.8, R12 0.1, R21 0.2.
            both[f"mcal_g{end}"][:, 0] = 0.1 + 0.01 * (0.7 * first + 0.1 * second)
            both[f"mcal_g{end}"][:, 1] = -0.2 + 0.01 * (0.2 * first + 0.8 * second)
            for name, value in (("T_r", 0.6 + 0.01 * first), ("T_err", 0.05), ("s2n_r", 20.0)):
                both[f"mcal_{name}{end}"][:] = value
            both[f"mcal_pars{end}"][:, 5:] = 1000.0
            both[f"mcal_pars_cov{end}"][:], both[f"mcal_g_cov{end}"][:] = np.eye(8) * 400.0, np.eye(2) * 0.01
        both["flags"][:], both["mcal_flags"][:], both["psfrec_T"][:] = 0, 0, 0.3
        tables.append(("", prefixed(as_table(both, count), "mcal")))
    return tables


def make_tables(tile, realization, count, fits=("sof", "mof", "mcal"), seed=0):
    """Return the two catalogues: four of five injections are matched."""
    random = np.random.default_rng(seed)
    ids = object_ids(tile, realization, np.arange(1, count + 1))
    truth = {"bal_id": ids, "inj_type": np.full(count, "ngmixGalaxy")}
    truth |= {"cat_row": np.arange(count), "cat_id": np.arange(count), "outcome": np.zeros(count, "i4")}
    truth |= {"ra": random.uniform(10, 10.7, count), "dec": random.uniform(-1, -0.3, count)}
    for band in BANDS:
        flux = 10 ** random.uniform(2, 5, count)
        truth |= {f"flux_{band}": flux, f"mag_{band}": 30 - 2.5 * np.log10(flux)}
        truth[f"extinction_{band}"] = np.full(count, 0.8)
    row = np.where(np.arange(count) % 5 == 4, -1, np.arange(count))
    reason = np.where(row < 0, Reason.NOT_FOUND, Reason.MATCHED).astype(np.int16)
    found = Matches(row, np.where(row < 0, np.nan, 0.1), reason)
    tables = measured(count, fits)
    tables[0][1]["id"] = ids
    more = {"tilename": np.full(count, tile), "realization": np.full(count, int(realization), "i4")}
    more |= {flag_name(radius): np.zeros(count, "i2") for radius in FLAG_RADII}
    far = np.full(count, 30.0)
    matched = match_table(as_table(truth, count), found, tables, np.arange(count), far, 0.5, more)
    return matched, detection_table(matched, BANDS, np.zeros(count, bool))


def write_source(site, tile, realization, tables, fits=("sof", "mof", "mcal"), **cards):
    """Write both catalogues as block 1024 does, with its manifest; return the source."""
    source = source_of(context_of(site, tile, realization))
    own = {**CARDS, "TILENAME": tile, "REALIZ": realization, "FITS": ",".join(fits)}
    own |= {"BANDMCAL": ",".join(SHAPES)} if "mcal" in fits else {}
    with Step(source.manifest, "match", about={"tile": tile, "realization": realization}) as step:
        for path, rows in zip(source.files.values(), tables, strict=True):
            write_parquet(path, Table("t", rows, None, {**own, **cards}))
            step.wrote(path)
    return source


def make_source(site, tile, realization="0", count=10, fits=("sof", "mof", "mcal"), **cards):
    """Make both catalogues of a tile and realization, and write them."""
    return write_source(site, tile, realization, make_tables(tile, realization, count, fits), fits, **cards)


def renamed(tables, tile, realization):
    """Return catalogues under the name of another tile: what differs is what names them."""
    matched, detection = (table.copy() for table in tables)
    ids = object_ids(tile, realization, np.arange(1, len(matched) + 1))
    matched["true_bal_id"], detection["bal_id"] = ids, ids
    for table in (matched, detection):
        table["tilename"], table["realization"] = tile, int(realization)
    return matched, detection


def elsewhere(site, root):
    """Return a site with another MEDS_DATA."""
    return dataclasses.replace(site, meds_data=root)
