"""A small tile on disk, made with the package's own steps, for the tests of verify and repair."""

import os
from pathlib import Path

import numpy as np

from balrogutils.context import Installation
from balrogutils.fitsfile import Plane, Table, write_images, write_tables
from balrogutils.graph import Job
from balrogutils.products import Step, link_or_copy, writing_text

TILE = "DES0239+0216"
BANDS = "griz"
CHIP = "D00229301_{}_c03_r2379p01"


def context_of(base, **environment):
    """The tile with `base` as BALROG_BASE."""
    return Installation.load(environ={"BALROG_BASE": str(base), **environment}).context(TILE)


def done(job, *products, step=None, manifest=None, **extra):
    """Leave the manifest of a job that wrote these products."""
    about = job.context.about(job.band)
    with Step(manifest or job.manifest, step or job.step, about=about, config={"a": 1}, extra=extra) as one:
        one.wrote(*products)


def image(path, seed=0):
    """Write three planes with checksums."""
    pixels = np.random.default_rng(seed).normal(size=(40, 50)).astype(np.float32)
    planes = [Plane("SCI", pixels), Plane("WGT", pixels + 1), Plane("MSK", (pixels > 0).astype(np.int16))]
    write_images(path, planes)
    return path


def table(path, seed=0):
    """Write a table with checksums."""
    rows = np.zeros(30, dtype=[("id", "i8"), ("flux", "f8")])
    rows["id"], rows["flux"] = np.arange(30), np.random.default_rng(seed).normal(size=30)
    write_tables(path, [Table("ROWS", rows)])
    return path


def make_base(context, *, adopted=False):
    """Blocks 1 and 64 of the base run, and the coadd of g: every band's prep writes the geometry, as in a true run."""
    tree = context.tree
    extra = {"adopted": True} if adopted else {}
    for number, band in enumerate(BANDS):
        writing_text(tree.geometry, '{"tile": 1}\n')
        writing_text(tree.flist("nullwt", band), f"{tree.nullwt(band, CHIP.format(band))} 30.1\n")
        pixels = image(tree.nullwt(band, CHIP.format(band)), number)
        done(Job("prep", context, band), pixels, tree.flist("nullwt", band), tree.geometry, **extra)
    done(Job("coadd", context, "g"), image(tree.image("g"), 10))
    chunks = [table(tree.fit_chunk("sof", first, first + 9), first) for first in (0, 10)]
    for first, chunk in zip((0, 10), chunks, strict=True):
        manifest = tree.manifest(f"sof-chunk{first:06d}-{first + 9:06d}")
        done(Job("sof", context), chunk, step="sof chunk", manifest=manifest)
    done(Job("sof", context), table(tree.fit("sof"), 2), *chunks)
    return context


def make_realization(context, name):
    """The plan of a realization, and its images of band g, each under two names."""
    here = context.at(name)
    tree = here.tree
    link_or_copy(here.base_tree.geometry, tree.geometry)
    done(Job("plan", here), table(tree.plan, 3), tree.geometry)
    pixels = image(tree.nullwt("g", CHIP.format("g")), 20)
    link_or_copy(pixels, tree.injected("g", CHIP.format("g")))
    done(Job("inject", here, "g"), pixels, tree.injected("g", CHIP.format("g")))
    return here


def flip(path, at=-1000):
    """Change one byte of a file and nothing else that a listing shows."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    with path.open("r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def touch(path):
    """Give a file another time."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def files(root):
    """Every file below a directory, with what it holds; locks are no products."""
    return {path: path.read_bytes() for path in Path(root).rglob("*") if path.is_file() and path.suffix != ".lock"}
