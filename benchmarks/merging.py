"""Time and memory of many tiles as one: python benchmarks/merging.py [--tiles 2000] [--rows 500] [--directory D].

Tiles are made of one template with all kinds of fits in four bands, metacal in three; the numbers that name rows
differ. What they take on disk is little, what they take in memory is what real ones do. The merge, and the report of
what it made, run in a process each.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import h5py
import numpy as np
import pyarrow.dataset as ds
from merge_tiles import context_of, make_tables, renamed, site_of, tile_name, write_source

from balrogutils.blocks.campaign import campaign_report
from balrogutils.blocks.merge import source_of
from balrogutils.matching.merging import merge
from balrogutils.memory import peak_memory


def merged(directory, tiles):
    """Merge; return what there is to say of it."""
    site = site_of(directory / "base")
    sources = [source_of(context_of(site, tile_name(number), "0")) for number in range(tiles)]
    done = merge(sources, directory / "out")
    return {"rows": done.rows, "whole": done.whole}


def reported(directory, tiles):
    """Make the report of what was merged; return what there is to say of it."""
    page = campaign_report(directory / "out", directory / "report")
    if f"Injections in {tiles} tiles" not in page.read_text(encoding="utf-8"):
        raise SystemExit("the report is of other tiles")
    return {"page": page.stat().st_size}


WORK = {"merge": merged, "report": reported}


def run(work, directory, tiles):
    """Do one of both in this process, and say what it took."""
    start, cpu, before = time.perf_counter(), time.process_time(), peak_memory()
    said = WORK[work](directory, tiles)
    taken = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    taken |= {"before": before / 2**20, "peak": peak_memory() / 2**20}
    sys.stdout.write(json.dumps({work: taken | said}) + "\n")


def _mebibytes(path):
    return sum(one.stat().st_size for one in [path, *path.rglob("*")]) >> 20


def check(out, tiles, rows):
    """Raise unless every row is there once."""
    for kind, name in (("matched", "true_bal_id"), ("detection", "bal_id")):
        ids = ds.dataset(out / kind).to_table(columns=[name])[name].to_numpy()
        if ids.size != tiles * rows or np.unique(ids).size != ids.size:
            raise SystemExit(f"{kind}: {ids.size} rows, {np.unique(ids).size} of them different")
    with h5py.File(out / "metacal.h5") as file:
        if not np.array_equal(np.sort(file["catalog/unsheared/injection_id"][:]), np.sort(ids)):
            raise SystemExit("metacal holds other rows")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--here", choices=WORK, help="do this with what is in the directory, in this process")
    options = parser.parse_args()
    if options.here:
        run(options.here, options.directory, options.tiles)
        return
    directory = Path(tempfile.mkdtemp(prefix="merging-", dir=options.directory))
    try:
        site = site_of(directory / "base")
        template = make_tables(tile_name(0), "0", options.rows)
        for number in range(options.tiles):
            tile = tile_name(number)
            write_source(site, tile, "0", renamed(template, tile, "0"))
        words = ["--tiles", str(options.tiles), "--directory", str(directory)]
        for work in WORK:
            subprocess.run([sys.executable, __file__, "--here", work, *words], check=True)
        check(directory / "out", options.tiles, options.rows)
        made = directory / "out"
        sizes = {name: _mebibytes(made / name) for name in ("matched", "detection", "metacal.h5", "merge.json")}
        width = template[0].dtype.itemsize
        sys.stdout.write(f"{options.tiles} tiles of {options.rows} rows of {width} bytes; MiB: {sizes}\n")
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
