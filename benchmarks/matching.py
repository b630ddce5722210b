"""Time and memory of one-to-one matching and of match flags: python benchmarks/matching.py.

Positions are uniform on a piece of sky as crowded as a DES coadd (some 40 detections a square arcmin); each truth has
a detection 0.1 arcsec from it with a probability of 0.8. Each size runs in a process of its own.
"""

import argparse
import subprocess
import sys
import time

import numpy as np

from balrogutils.matching.ambiguity import original_flags
from balrogutils.matching.positions import match_positions, nearest
from balrogutils.memory import peak_memory

SIZES = ((10_000, 100_000), (100_000, 1_000_000), (300_000, 3_000_000))
DENSITY = 40.0 * 3600.0  # detections a square degree


def field(truths, detections, seed=1):
    """Return positions of truth and detections, degrees."""
    random = np.random.default_rng(seed)
    side = (detections / DENSITY) ** 0.5
    ra1, dec1 = random.uniform(30, 30 + side, truths), random.uniform(-side / 2, side / 2, truths)
    ra2, dec2 = random.uniform(30, 30 + side, detections), random.uniform(-side / 2, side / 2, detections)
    found = np.flatnonzero(random.uniform(size=truths) < 0.8)
    ra2[: found.size] = ra1[found] + random.normal(0, 0.1 / 3600, found.size)
    dec2[: found.size] = dec1[found] + random.normal(0, 0.1 / 3600, found.size)
    order = random.permutation(detections)
    return ra1, dec1, ra2[order], dec2[order]


def measure(truths, detections):
    """Print one line of the table."""
    ra1, dec1, ra2, dec2 = field(truths, detections)
    rows, before = [], peak_memory()
    start, cpu = time.perf_counter(), time.process_time()
    found = match_positions(ra1, dec1, ra2, dec2, 0.5)
    rows.append((time.perf_counter() - start, time.process_time() - cpu))
    after = peak_memory()
    start, cpu = time.perf_counter(), time.process_time()
    nearest(ra1, dec1, ra2, dec2)
    truth, originals = {"ra": ra1, "dec": dec1}, {"ra": ra2, "dec": dec2}
    original_flags(truth, np.ones(truths), originals, np.ones(detections))
    rows.append((time.perf_counter() - start, time.process_time() - cpu))
    matched = np.count_nonzero(found.row >= 0)
    times = " | ".join(f"{wall:.2f} | {used:.2f}" for wall, used in rows)
    memory = f"{before / 2**20:.0f} | {after / 2**20:.0f} | {peak_memory() / 2**20:.0f}"
    sys.stdout.write(f"| {truths} | {detections} | {matched} | {times} | {memory} |\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", nargs=2, type=int, help="one size, in this process")
    size = parser.parse_args().size
    if size:
        measure(*size)
        return
    sys.stdout.write("| truth | detections | matched | match s | CPU | flags, nearest s | CPU |")
    sys.stdout.write(" MiB before | after match | in all |\n|" + "---|" * 10 + "\n")
    sys.stdout.flush()
    for pair in SIZES:
        subprocess.run([sys.executable, __file__, "--size", *map(str, pair)], check=True)


if __name__ == "__main__":
    main()
