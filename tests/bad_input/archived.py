"""What the archive lacks or gives: files, records, CCDs."""

import json
import sqlite3
from functools import partial
from pathlib import Path

import fitsio
import numpy as np
from row import Row, all_of
from world import SMALL_TILE, TILE

from balrogutils.archive.transfer import md5

FILES = partial(Row, "Files of the archive", stage="small", status=1)
CCDS = partial(Row, "CCDs of the archive", stage="small", status=0, remedy=False)

PREP = f"balrog prep {SMALL_TILE}"
SOURCES = ("*/sources-g/*",)
ONE = "D00229300_g_c01_r2356p01"
DATABASE = "run/archive/small/archive.db"


def gone(pattern):
    return lambda world: world.small.file(pattern).unlink()


def edited(pattern, change):
    def breaks(world):
        file = world.small.file(pattern)
        file.write_bytes(change(file.read_bytes()))

    return breaks


def forgotten(table, **where):
    return lambda world: world.forget(table, **where)


def recorded(world, file):
    """Give a file that was changed its size and checksum in the database: the archive itself is wrong."""
    for row in world.small.rows["y3a2_desfile"]:
        if row["filename"] == file.name.removesuffix(".fz"):
            row |= {"filesize": file.stat().st_size, "md5sum": md5(file)}
    world.small.write()


def pixels(plane, value):
    """Give a plane of one CCD one value everywhere."""

    def breaks(world):
        file = world.small.file(f"{ONE}_immasked.fits.fz")
        with fitsio.FITS(str(file)) as fits:
            planes = {name: (fits[name].read(), fits[name].read_header()) for name in ("SCI", "MSK", "WGT")}
        planes[plane][0][:] = value
        with fitsio.FITS(str(file), "rw", clobber=True) as fits:
            for name, (image, header) in planes.items():
                fits.write(image, header=header, extname=name)
        recorded(world, file)

    return breaks


def without_wcs(world):
    """Take a card of the WCS out of a Community Pipeline image."""
    archive = world.base / "run" / "archive" / "decam"
    (file,) = archive.rglob("c4d_170329_044212_ooi_g_ls9.N3.fits")
    with fitsio.FITS(str(file), "rw") as fits:
        for hdu in fits:
            if "CRVAL1" in hdu.read_header():
                hdu.delete_key("CRVAL1")
    database = sqlite3.connect(archive / "archive.db")
    with database:
        record = (file.stat().st_size, md5(file), file.relative_to(archive).as_posix())
        database.execute("update files set filesize = ?, md5sum = ? where filename = ?", record)
    database.close()


def limit(number):
    return lambda world: world.edit(
        "etc/campaigns.yaml",
        "galsim_config: bal_config_few",
        f"max_missing_ccds: {number}\n    galsim_config: bal_config_few",
    )


def _listed(root, tile):
    text = (root / tile / "lists" / f"{tile}_g_nullwt-flist-y3v02.dat").read_text(encoding="utf-8")
    return [Path(line.rsplit(" ", 1)[0]).name[:15] for line in text.splitlines()]


def _counts(world, tile):
    return json.loads((world.products / "y3v02" / tile / "manifests" / f"{tile}_prep_g.json").read_text())["counts"]


def left_out(reason, number=3, chip=ONE, tile=SMALL_TILE, injected=True):
    """Return the check that one CCD is out of the lists of the base run and of the realization, and is named."""

    def check(world, seen):
        base = _listed(world.products / "y3v02", tile)
        assert len(base) == number
        assert chip[:15] not in base
        assert f"{chip}: {reason}" in _counts(world, tile)["left_out_list"]
        summary = world.run(f"balrog summary {tile}")
        assert f"CCDs left out of band g: {chip}: {reason}" in summary.out
        told = f"listed: {', '.join(base)}"
        if injected:
            assert _listed(world.products / "y3v02" / "balrog_images" / "0" / "y3v02", tile) == base
            told = f"base run and realization 0 list {', '.join(base)}"
        return f"{told}; manifest and summary name {chip}: {reason}"

    return check


def dead(world, seen):
    """Check that a CCD without any good pixel is in the lists with weight 0, finite, and named."""
    counts = _counts(world, SMALL_TILE)
    assert (counts["chips"], counts["dead"], counts["dead_list"]) == (4, 1, ONE)
    (image,) = (world.products / "y3v02" / SMALL_TILE / "nullwt-g").glob(f"{ONE}*")
    with fitsio.FITS(str(image)) as fits:
        assert not fits["WGT"].read().any()
        assert all(np.isfinite(hdu.read()).all() for hdu in fits)
    return f"all four CCDs listed, {ONE} with weight 0 everywhere; manifest names it"


def _missing(name):
    return f"a file is missing in the archive.*tile {SMALL_TILE}, band g, file \\S*{name}"


BOTH = f"snakemake --cores 1 tile={SMALL_TILE} --config mode=9"

ROWS = [
    FILES("file missing", PREP, _missing(f"{ONE}_segmap.fits.fz"), breaks=gone(f"{ONE}_segmap*"), leaves=SOURCES),
    FILES(
        "file missing, in a run of Snakemake",
        f"snakemake --cores 1 tile={SMALL_TILE} --config mode=1",
        _missing(f"{ONE}_segmap.fits.fz"),
        breaks=gone(f"{ONE}_segmap*"),
        leaves=SOURCES,
    ),
    FILES(
        "file truncated",
        PREP,
        f"damaged: \\d+ bytes instead of \\d+ .*tile {SMALL_TILE}, band g, file \\S*{ONE}_immasked.fits.fz",
        breaks=edited(f"{ONE}_immasked*", lambda content: content[:-100]),
        leaves=SOURCES,
    ),
    FILES(
        "wrong checksum",
        PREP,
        f"damaged: MD5 \\w+ instead of \\w+ .*tile {SMALL_TILE}, band g, file \\S*{ONE}_bkg.fits.fz",
        breaks=edited(f"{ONE}_bkg*", lambda content: content[:-1] + b"\x01"),
        leaves=SOURCES,
    ),
    FILES(
        "file without a record",
        PREP,
        f"no record of the seg file .*band g, chip {ONE}, file {ONE}_segmap.fits",
        breaks=forgotten("y3a2_desfile", filename=f"{ONE}_segmap.fits"),
    ),
    FILES(
        "coadd without a record",
        PREP,
        f"no coadd of this tile and band in Y3A2_COADD .*tile {SMALL_TILE}, band g",
        breaks=forgotten("y3a2_coadd", tilename=SMALL_TILE),
    ),
    FILES(
        "database not there",
        f"snakemake tile={SMALL_TILE}",
        f"the archive of campaign small is not there .*tile {SMALL_TILE}, file {DATABASE}",
        status=2,
        breaks=lambda world: (world.base / DATABASE).unlink(),
    ),
    FILES(
        "database that is none",
        PREP,
        f"sqlite:\\S+{DATABASE} cannot be queried: file is not a database",
        breaks=lambda world: world.replace(DATABASE, b"no database" * 500),
    ),
    FILES(
        "database without its tables",
        PREP,
        "cannot be queried: no such table: y3a2_coaddtile_geom",
        breaks=lambda world: world.replace(DATABASE, b""),
    ),
    FILES(
        "archive of an unknown kind",
        PREP,
        "unknown kind: ftp://.*key archive.*\n.*use file:///path/ or https://",
        status=2,
        breaks=lambda world: world.edit(
            "etc/campaigns.yaml", "file://{run}/archive/small", "ftp://{run}/archive/small"
        ),
    ),
    FILES(
        "database that needs a login",
        PREP,
        "needs a login, but the services file is not there \\(file services.ini, key db-dessci",
        status=2,
        breaks=all_of(
            lambda world: world.edit(
                "etc/campaigns.yaml", "sqlite:///{run}/archive/small/archive.db", "oracle://h/dessci"
            ),
            lambda world: world.environment.update(DES_SERVICES="services.ini"),
        ),
    ),
    CCDS(
        "zero point of one CCD missing",
        BOTH,
        f"{SMALL_TILE} g: {ONE} is left out: no zero point",
        breaks=forgotten("y3a2_zeropoint", imagename=f"{ONE}_immasked.fits"),
        leaves=("*",),
        check=left_out("no zero point"),
        long=True,
    ),
    CCDS(
        "PSF model of one CCD missing",
        BOTH,
        f"{SMALL_TILE} g: {ONE} is left out: no PSF model",
        breaks=forgotten("y3a2_desfile", filename=f"{ONE}_psfexcat.psf"),
        leaves=("*",),
        check=left_out("no PSF model"),
        long=True,
    ),
    CCDS(
        "WCS of one CCD missing",
        BOTH,
        f"{SMALL_TILE} g: {ONE} is left out: no SCAMP head",
        breaks=forgotten("y3a2_desfile", filename=f"_{ONE[:15]}_scamp.ohead"),
        leaves=("*",),
        check=left_out("no SCAMP head"),
        long=True,
    ),
    CCDS(
        "WCS of one NOIRLab CCD missing",
        f"balrog prep {TILE} --band g",
        f"{TILE} g: D00634850_g_c34_r0001p01 is left out: an image header lacks CRVAL1",
        stage="decam",
        breaks=without_wcs,
        leaves=("*",),
        check=left_out("an image header lacks CRVAL1", 1, "D00634850_g_c34_r0001p01", TILE, injected=False),
    ),
    CCDS(
        "PSF model of one CCD damaged",
        PREP,
        f"{SMALL_TILE} g: {ONE} is left out: not a PSFEx model",
        breaks=lambda world: (
            world.small.file(f"{ONE}_psfexcat.psf").write_bytes(world.small.file(f"{ONE}_bkg*").read_bytes()),
            recorded(world, world.small.file(f"{ONE}_psfexcat.psf")),
        ),
        leaves=("*",),
        check=left_out("not a PSFEx model", injected=False),
    ),
    CCDS(
        "more CCDs missing than max_missing_ccds",
        PREP,
        f"1 CCDs cannot be used, the campaign allows 0; the first: no zero point .*chip {ONE}.*\n.*max_missing_ccds",
        status=1,
        remedy=True,
        breaks=all_of(limit(0), forgotten("y3a2_zeropoint", imagename=f"{ONE}_immasked.fits")),
        leaves=("*/sources-g/*", "*/nullwt-g/*", "*/psfs/*"),
    ),
    CCDS(
        "no CCD with a zero point",
        PREP,
        f"no CCD of this tile and band can be used: no zero point \\(tile {SMALL_TILE}, band g\\)",
        status=1,
        remedy=True,
        breaks=forgotten("y3a2_zeropoint", source="FGCM"),
        leaves=("*/sources-g/*", "*/psfs/*"),
    ),
    CCDS(
        "image that is all NaN",
        PREP,
        f"{ONE} has no pixel with weight",
        breaks=pixels("SCI", np.nan),
        leaves=("*",),
        check=dead,
    ),
    CCDS(
        "weights that are all zero",
        PREP,
        f"{ONE} has no pixel with weight",
        breaks=pixels("WGT", 0),
        leaves=("*",),
        check=dead,
    ),
    CCDS(
        "CCD that is masked all over",
        PREP,
        f"{ONE} has no pixel with weight",
        breaks=pixels("MSK", 1),
        leaves=("*",),
        check=dead,
    ),
]
