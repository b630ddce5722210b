"""Whether the original reader sees in our MEDS files what we see.

    crosscheck_meds.py --original /path/to/python FILE...

The interpreter is one that has the original `meds` package. Every object and cut-out of every file is read by both;
pixels, positions, Jacobians, numbers, sources, PSFs and derived maps must be equal to the bit. Uberseg weights may
differ where a pixel is as far from this object as from another: the original leaves such ties to the order of a tree.
Its slow way (--slow, for small files) takes the first pixel in row-major order, as we do, and must be equal too.
Prints one line a quantity and ends with status 1 if anything else differs.
"""

import argparse
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

STAMPS = ("image", "weight", "seg", "bmask")
DERIVED = {
    "interpolated seg": "interpolate_coadd_seg",
    "cweight": "get_cweight_cutout",
    "uberseg": "get_uberseg",
    "cseg": "get_cseg_cutout",
}


def describe(meds, slow):
    """Return everything a file holds as lists of arrays by quantity, in the order of objects and slots."""
    out = {name: [] for name in (*STAMPS, "mosaics", "psf", "jacobian", "centre", "number", "source", *DERIVED)}
    out |= {"cweight strict": []} | ({"uberseg, slow": []} if slow else {})
    for i in range(meds.size):
        out["number"].append(np.array([meds.get_number(i), meds["id"][i], meds["ncutout"][i], meds["box_size"][i]]))
        if meds["ncutout"][i] == 0:
            continue
        out["mosaics"] += [meds.get_mosaic(i, kind) for kind in STAMPS]
        for k in range(meds["ncutout"][i]):
            for kind in STAMPS:
                out[kind].append(meds.get_cutout(i, k, kind))
            if meds.has_psf():
                out["psf"].append(meds.get_psf(i, k))
            jacobian = meds.get_jacobian(i, k)
            out["jacobian"].append(np.array([jacobian[name] for name in sorted(jacobian)]))
            out["jacobian"].append(np.asarray(meds.get_jacobian_matrix(i, k)))
            out["centre"].append(np.array(meds.get_cutout_rowcol(i, k)))
            out["source"].append(np.array([str(meds.get_source_path(i, k))]))
            for name, method in DERIVED.items():
                out[name].append(np.asarray(getattr(meds, method)(i, k)))
            out["cweight strict"].append(meds.get_cweight_cutout(i, k, restrict_to_seg=True))
            if slow:
                out["uberseg, slow"].append(meds.get_uberseg(i, k, fast=False))
    return out


def original(path, slow):
    import meds

    with meds.MEDS(path) as file:
        return describe(file, slow), meds.__version__


def tied(seg, number):
    """Return the pixels that are as far from the object as from another, by looking at all labelled pixels."""
    r, c = np.indices(seg.shape)

    def nearest(mask):
        rows, cols = np.nonzero(mask)
        if rows.size == 0:
            return np.full(seg.shape, -1)
        return ((r[..., None] - rows) ** 2 + (c[..., None] - cols) ** 2).min(axis=-1)

    own, other = nearest(seg == number), nearest((seg != 0) & (seg != number))
    return (own == other) & (own >= 0)


def compare(ours, theirs):
    """Return (quantity, arrays, values, values that differ, of them ties) of all quantities."""
    numbers = [row[0] for row in ours["number"] for _ in range(row[2])]
    rows = []
    for name, mine in ours.items():
        assert len(mine) == len(theirs[name])
        differing = ties = values = 0
        for at, (a, b) in enumerate(zip(mine, theirs[name], strict=True)):
            values += a.size
            if a.shape != b.shape:
                differing += max(a.size, b.size)
                continue
            unequal = a != b
            if name == "uberseg" and unequal.any():
                ties += int((unequal & tied(ours["interpolated seg"][at], numbers[at])).sum())
            differing += int(unequal.sum())
        rows.append((name, len(mine), values, differing, ties))
    return rows


def main(words):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--original", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--slow", action="store_true")
    options = parser.parse_args(words)
    from balrogutils.meds import MEDS

    wrong = 0
    for path in options.files:
        with tempfile.TemporaryDirectory() as room:
            target = Path(room) / "original.pickle"
            slow = ["--slow"] if options.slow else []
            subprocess.run([options.original, __file__, "--dump", path, str(target), *slow], check=True)
            with target.open("rb") as stream:
                theirs, version = pickle.load(stream)
        with MEDS(path) as file:
            ours = describe(file, options.slow)
            sys.stdout.write(f"{Path(path).name}: {file.size} objects, meds {version}\n")
        for name, arrays, values, differing, ties in compare(ours, theirs):
            sys.stdout.write(f"  {name:17} {arrays:7} arrays {values:10} values {differing:6} differ, {ties} ties\n")
            wrong += differing - ties
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--dump"]:
        with Path(sys.argv[3]).open("wb") as stream:
            pickle.dump(original(sys.argv[2], "--slow" in sys.argv), stream)
    else:
        sys.exit(main(sys.argv[1:]))
