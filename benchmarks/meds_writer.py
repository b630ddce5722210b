"""Wall time, CPU time and peak memory of the MEDS writer.

Example: ``python benchmarks/meds_writer.py --objects 25000 --exposures 5 --rows 4096 --cols 2048``. Every exposure is
the same file on disk, read anew each time; positions are uniform, boxes as those of a DES tile, or --box. Prints one
JSON object. ``write_us`` is the CPU time per cut-out of four uncompressed planes, reading their sources included; with
``--original PYTHON``, an interpreter that has the original `meds` package, ``original_us`` is what that takes for the
same file. The target is 50 on a machine where the original takes 213.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import fitsio
import numpy as np

from balrogutils.meds.cutouts import find, lay_out
from balrogutils.meds.sources import PlaneFile, SourceImage
from balrogutils.meds.tables import Tables, image_info, metadata, object_data, psf_info
from balrogutils.meds.writer import Packing, write_meds
from balrogutils.memory import peak_memory
from balrogutils.psf import PSFEx
from balrogutils.randomness import stream

# Share of each box side among the detections of a DES tile, roughly.
_BLOCK = 64
SIDES, SHARES = (32, 48, 64, 96, 128, 256), (0.48, 0.33, 0.12, 0.05, 0.015, 0.005)


def arguments(words):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("objects", 430), ("exposures", 5), ("rows", 1024), ("cols", 1024)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--box", type=int, default=None, help="one side for all boxes")
    parser.add_argument("--original", default=None, help="Python interpreter that has the original meds package")
    parser.add_argument("--scratch", type=Path, default=None, help="directory for the files, removed afterwards")
    return parser.parse_args(words)


def write_repeated(path, planes, rows, header=None):
    """Write images of repeated blocks of rows, so that the input takes less memory than the writer that is measured."""
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        fits.write(None)
        for name, block in planes.items():
            fits.create_image_hdu(dims=[rows, block.shape[1]], dtype=block.dtype.str[1:], extname=name)
            fits[-1].write_keys(header or [], clean=False)
            for row in range(0, rows, _BLOCK):
                fits[-1].write(block[: rows - row], start=[row, 0])


def make_source(place, rows, cols):
    """Write one CCD with its background, segmentation and PSF model."""
    rng = stream(1, "benchmark")
    scale = 0.263 / 3600
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 40.0, "CRVAL2": 2.0, "CRPIX1": cols / 2}
    cards |= {"CRPIX2": rows / 2, "CD1_1": -scale, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": scale}
    header = fitsio.FITSHDR([{"name": key, "value": value} for key, value in cards.items()])
    image, side = place / "D00000001_r_c01_r0001p01_immasked_nullwt.fits", place / "side.fits"
    noise, spread = rng.normal(0, 30, (_BLOCK, cols)), rng.random((_BLOCK, cols))
    planes = {"SCI": noise.astype("f4"), "WGT": (1e-3 * (1 + 0.02 * spread)).astype("f4")}
    planes["MSK"] = np.zeros((_BLOCK, cols), "i2")
    write_repeated(image, planes, rows, header)
    write_repeated(side, {"SCI": (spread < 0.1).astype("i4")}, rows)
    y, x = np.mgrid[-21:22, -21:22]
    core = np.exp(-(x**2 + y**2) / 8.0)
    PSFEx(np.stack([core, 0.1 * core, 0.1 * core]), 1, (1.0, 1.0), (1000.0, 1000.0), 1.0, 4.7).write(place / "psf.psf")
    files = {"image": PlaneFile(image, "SCI"), "weight": PlaneFile(image, "WGT"), "bmask": PlaneFile(image, "MSK")}
    return {**files, "seg": PlaneFile(side, "SCI"), "bkg": PlaneFile(side, "SCI")}


def write_plain(path, tables, layout, sources, dtypes, cutouts, repeats=3):
    """Return the least CPU time of writing an uncompressed file without PSF stamps, in microseconds per cut-out."""
    taken = []
    for _ in range(repeats):
        path.unlink(missing_ok=True)
        begin = time.process_time()
        write_meds(path, replace(tables, psf_info=None), layout, sources, None, dtypes=dtypes)
        taken.append(time.process_time() - begin)
    return 1e6 * min(taken) / cutouts


def main(words):
    options = arguments(words)
    with tempfile.TemporaryDirectory(dir=options.scratch) as room:
        place = Path(room)
        files = make_source(place, options.rows, options.cols)
        baseline = peak_memory()
        wall, cpu = time.perf_counter(), time.process_time()
        sources = [SourceImage(files, 31.0, 0.4, place / "psf.psf") for _ in range(options.exposures + 1)]
        rng = stream(2, "benchmark")
        row = rng.uniform(0, options.rows - 1, options.objects)
        col = rng.uniform(0, options.cols - 1, options.objects)
        box = rng.choice(SIDES, options.objects, p=SHARES).astype(np.int64)
        if options.box is not None:
            box[:] = options.box
        ra, dec = sources[0].grid.wcs.pixel_to_sky(row, col)
        grids = [source.grid for source in sources]
        found = [find(grid, ra, dec) for grid in grids]
        layout = lay_out(found, grids, box, psf_sides=[source.psf_side for source in sources])
        objects = object_data(np.arange(options.objects), ra, dec, box, layout)
        tables = Tables(objects, image_info(sources), metadata({}), psf_info(sources))
        laid_out = time.perf_counter() - wall
        plain = place / "plain.fits"
        dtypes = {"image": "f4", "weight": "f4", "seg": "i4", "bmask": "i4"}
        write_meds(
            place / "m.fits.fz", tables, layout, sources, Packing(("benchmark",)), dtypes=dtypes, keep_plain=plain
        )
        took = time.perf_counter() - wall, time.process_time() - cpu
        packed = (place / "m.fits.fz").stat().st_size
        cutouts = int(layout.ncutout.sum())
        write_us = write_plain(place / "p.fits", tables, layout, sources, dtypes, cutouts)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = {
            "objects": options.objects,
            "exposures": options.exposures,
            "cutouts": cutouts,
            "mean_box": float(box.mean()),
            "write_us": write_us,
            "plain_MB": plain.stat().st_size / 1e6,
            "packed_MB": packed / 1e6,
            "wall_s": took[0],
            "layout_wall_s": laid_out,
            "cpu_s": took[1],
            "fpack_cpu_s": children.ru_utime + children.ru_stime,
            "image_MB": 4 * options.rows * options.cols / 1e6,
            "before_writer_MB": baseline / 1e6,
            "peak_MB": peak_memory() / 1e6,
            # Of the largest program started, or of this process when it started one, whichever was larger.
            "fpack_peak_MB": children.ru_maxrss * 1024 / 1e6,
        }
        if options.original is not None:
            here = Path(__file__).parent / "meds_original.py"
            command = [options.original, str(here), "write", str(place / "p.fits"), str(place / "o.fits")]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            result["original_us"] = json.loads(done.stdout)["write"]
            result["ratio"] = result["original_us"] / result["write_us"]
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
