"""Time of the MEDS reader, in microseconds of CPU per cut-out, beside the original reader where there is one.

Example: ``python benchmarks/meds_reader.py --original /path/to/python``, the interpreter of an environment that has
`meds`. The sources are those of DES: CCDs of 2048 x 4096 pixels with 2000 discs in the segmentation, boxes of 48.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from meds_writer import make_source
from tabulate import tabulate

from balrogutils.fitsfile import Plane, write_images
from balrogutils.meds import MEDS
from balrogutils.meds.cutouts import find, lay_out
from balrogutils.meds.sources import SourceImage
from balrogutils.meds.tables import Tables, image_info, metadata, object_data, psf_info
from balrogutils.meds.writer import Packing, write_meds
from balrogutils.randomness import stream

REPEATS = 5
BOX = 48
DTYPES = {"image": "f4", "weight": "f4", "seg": "i4", "bmask": "i4"}
# Microseconds per cut-out the project asks for, on a machine where the original reader takes those of the last column.
TARGETS = {"plain, bulk": (4, 4), "packed, bulk": (21, 21), "uberseg": (18, 360)}


def arguments(words):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=600)
    parser.add_argument("--exposures", type=int, default=6)
    parser.add_argument("--original", default=None, help="Python interpreter that has the original meds package")
    parser.add_argument("--scratch", type=Path, default=None, help="directory for the files, removed afterwards")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(words)


def make_files(place, objects, exposures, rows=4096, cols=2048):
    """Write one MEDS file, plain and packed, and return its path without the suffixes."""
    files = make_source(place, rows, cols)
    rng = stream(3, "benchmark")
    row, col = rng.uniform(0, rows - 1, 2000), rng.uniform(0, cols - 1, 2000)
    seg = np.zeros((rows, cols), np.int32)
    y, x = np.mgrid[-8:9, -8:9]
    for number, (r, c, radius) in enumerate(zip(row, col, rng.uniform(2, 8, 2000), strict=True), start=1):
        at = np.argwhere(y**2 + x**2 < radius**2) + np.array([int(r) - 8, int(c) - 8])
        at = at[(at >= 0).all(axis=1) & (at[:, 0] < rows) & (at[:, 1] < cols)]
        seg[at[:, 0], at[:, 1]] = number
    write_images(place / "seg.fits", [Plane("SCI", seg)])
    files = {**files, "seg": files["seg"]._replace(path=place / "seg.fits")}
    sources = [SourceImage(files, 31.0, 0.4, place / "psf.psf") for _ in range(exposures + 1)]
    grid = sources[0].grid
    ra, dec = grid.wcs.pixel_to_sky(row[:objects], col[:objects])
    box = np.full(len(ra), BOX)
    found = find(grid, ra, dec)
    layout = lay_out(
        [found] * len(sources), [grid] * len(sources), box, psf_sides=[source.psf_side for source in sources]
    )
    number = {"number": np.arange(len(ra)) + 1}
    tables = Tables(
        object_data(np.arange(len(ra)), ra, dec, box, layout, number),
        image_info(sources),
        metadata({}),
        psf_info(sources),
    )
    packing = Packing(("benchmark",))
    write_meds(place / "m.fits.fz", tables, layout, sources, packing, dtypes=DTYPES, keep_plain=place / "m.fits")
    return place / "m"


def clock(path, work, count):
    """Return the least CPU time of some calls in microseconds per cut-out, the file opened anew for each."""
    taken = []
    for _ in range(REPEATS):
        with MEDS(path) as meds:
            begin = time.process_time()
            work(meds)
            taken.append(time.process_time() - begin)
    return 1e6 * min(taken) / count


def bulk(meds, planes, start=0, stop=None):
    for block in meds.blocks(planes, start, stop, pixels=1 << 19):
        assert len(block.pixels) == len(planes)


def ours(name):
    result = {}
    for label, path in (("plain", f"{name}.fits"), ("packed", f"{name}.fits.fz")):
        with MEDS(path) as meds:
            rows, count = range(meds.size), int(meds["ncutout"].sum())
            slots = [(i, k) for i in rows for k in range(meds["ncutout"][i])]
            block = meds.read_objects(0, meds.size, ["weight", "seg"])
        jobs = {
            f"{label}, bulk": lambda m: bulk(m, ["image"]),
            f"{label}, lists": lambda m, r=rows: [m.get_cutout_list(i) for i in r],
            f"{label}, one by one": lambda m, s=slots: [m.get_cutout(i, k) for i, k in s],
        }
        if label == "plain":
            jobs["uberseg, from a block"] = lambda m, b=block, r=rows: [b.get_uberseg_list(i) for i in r]
            jobs["uberseg"] = lambda m, r=rows: [m.get_uberseg_list(i) for i in r]
            jobs["uberseg, one by one"] = lambda m, s=slots: [m.get_uberseg(i, k) for i, k in s]
        result |= {name: clock(path, work, count) for name, work in jobs.items()}
    return result


def worker(path, start, stop, ready, pipe):
    taken = []
    for _ in range(REPEATS):
        with MEDS(path) as meds:
            ready.wait()
            wall, cpu = time.perf_counter(), time.process_time()
            bulk(meds, ["image", "weight"], start, stop)
            taken.append((time.perf_counter() - wall, time.process_time() - cpu))
    pipe.send(taken)


def together(path, processes):
    """Return the least wall time and the CPU time of reading two planes of a file, each process a part of it."""
    context = get_context("spawn")
    with MEDS(path) as meds:
        edges = np.linspace(0, meds.size, processes + 1).astype(int).tolist()
    ready, pipes, running = context.Barrier(processes), [], []
    for start, stop in pairwise(edges):
        mine, theirs = context.Pipe()
        running.append(context.Process(target=worker, args=(path, start, stop, ready, theirs)))
        pipes.append(mine)
        running[-1].start()
    taken = np.array([pipe.recv() for pipe in pipes])
    for one in running:
        one.join()
    return float(taken[..., 0].max(axis=0).min()), float(taken[..., 1].sum(axis=0).min())


def original(python, name, objects):
    """Return the times of the original reader, or an empty mapping where it cannot be imported."""
    here = Path(__file__).parent / "meds_original.py"
    result = {}
    for label, path in (("plain", f"{name}.fits"), ("packed", f"{name}.fits.fz")):
        done = subprocess.run(
            [python, str(here), "read", path, str(objects)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.stderr.write(f"the original reader is left out: {done.stderr.strip().splitlines()[-1]}\n")
            return {}
        times = json.loads(done.stdout)
        result |= {f"{label}, bulk": times["list"], f"{label}, lists": times["list"]}
        result[f"{label}, one by one"] = times["one"]
        if label == "plain":
            result |= dict.fromkeys(("uberseg", "uberseg, from a block", "uberseg, one by one"), times["uberseg"])
    return result


def main(words):
    options = arguments(words)
    with tempfile.TemporaryDirectory(dir=options.scratch) as room:
        name = make_files(Path(room), options.objects, options.exposures)
        own = ours(name)
        peer = original(options.original or sys.executable, name, options.objects)
        (wall1, cpu1), (wall2, cpu2) = (together(f"{name}.fits.fz", processes) for processes in (1, 2))
    if options.json:
        sys.stdout.write(
            json.dumps({"ours": own, "original": peer, "two_processes": wall1 / wall2, "their_cpu": cpu2 / cpu1}) + "\n"
        )
        return
    rows = []
    for label, value in own.items():
        other = peer.get(label)
        target = f"{TARGETS[label][0]} (original {TARGETS[label][1]})" if label in TARGETS else ""
        rows.append((label, value, other, other / value if other else None, target))
    header = ("us of CPU per cut-out", "ours", "original", "ratio", "target")
    sys.stdout.write(tabulate(rows, header, floatfmt=".1f", tablefmt="github") + "\n")
    sys.stdout.write(
        f"\npacked, bulk, 2 processes: {wall1 / wall2:.2f} times as fast as 1 (target 1.8), "
        f"with {cpu2 / cpu1:.2f} times its CPU time\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
