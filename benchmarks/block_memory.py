"""Peak memory, CPU and wall time of every job of blocks 1, 2, 4 and 8 against tile size and number of exposures.

Example: ``python benchmarks/block_memory.py --tile 4000 --exposures 20 --rows 4096 --cols 2048``. Makes one band
of noise and stars, every exposure one CCD dithered about the tile's centre, and runs the blocks by their commands;
prints a table.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import fitsio
import galsim
import numpy as np
from tabulate import tabulate

from balrogutils.archive.geometry import Geometry
from balrogutils.exposures.chip import PreparedChip
from balrogutils.exposures.lists import write_lists
from balrogutils.fitsfile import Plane, pack, write_images
from balrogutils.layout import Site
from balrogutils.products import read_manifest
from balrogutils.psf import PSFEx
from balrogutils.randomness import stream

TILE, BAND, SCALE, CENTRE = "DES0239+0216", "r", 0.263, (39.8, 2.2667)
STARS_PER_PIXEL = 5e-4  # about 26 per square arcminute

PREP = """
import sys
from balrogutils.exposures.desdm import make_nullwt
from balrogutils.fitsfile import read_header
from balrogutils.products import Step
with Step(sys.argv[3], "prep"):
    header = read_header(sys.argv[1], "SCI")
    keys = "CTYPE1 CTYPE2 CRVAL1 CRVAL2 CRPIX1 CRPIX2 CD1_1 CD1_2 CD2_1 CD2_2".split()
    wcs = {key: header[key] for key in keys}
    make_nullwt(sys.argv[1], sys.argv[2], wcs, {})
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("tile", 1000), ("exposures", 5), ("rows", 1024), ("cols", 1024)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--scratch", type=Path, default=None, help="directory for the files, removed afterwards")
    return parser.parse_args()


def make_exposure(tree, number, options, star):
    """Write one CCD as block 1 leaves it, and as the archive has it."""
    rng = stream(1, "benchmark", number)
    rows, cols = options.rows, options.cols
    shift = rng.uniform(-0.3, 0.3, 2) * options.tile if number else (0.0, 0.0)
    scale = SCALE / 3600
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": CENTRE[0], "CRVAL2": CENTRE[1]}
    cards |= {"CRPIX1": cols / 2 + shift[0], "CRPIX2": rows / 2 + shift[1]}
    cards |= {
        "CD1_1": -scale,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
        "CD2_2": scale,
        "BAND": BAND,
        "EXPNUM": number + 1,
        "CCDNUM": 1,
    }
    cards |= {"SKYBRITE": 400.0, "SKYSIGMA": 20.0, "GAINA": 1.0, "GAINB": 1.0, "RDNOISEA": 6.0, "RDNOISEB": 6.0}
    cards |= {"SATURATE": 150000.0, "FWHM": 4.0}
    header = fitsio.FITSHDR([{"name": key, "value": value} for key, value in cards.items()])
    image = rng.standard_normal((rows, cols), dtype=np.float32) * np.float32(20.0)
    half = star.shape[0] // 2
    for _ in range(int(rows * cols * STARS_PER_PIXEL)):
        row, col = rng.integers(half, rows - half), rng.integers(half, cols - half)
        image[row - half : row + half + 1, col - half : col + half + 1] += star * np.float32(rng.pareto(1.0) * 600)
    weight = np.full((rows, cols), 1 / 400, "f4")
    mask = np.zeros((rows, cols), "i2")
    mask[:, rng.integers(0, cols, 5)] = 1
    weight_null = np.where(mask > 0, 0, weight).astype("f4")
    chip = f"D{number + 1:08d}_{BAND}_c01_r0001p01"
    nullwt, bkg = tree.nullwt(BAND, chip), tree.chip_bkg(BAND, chip)
    seg, psf = tree.chip_segmap(BAND, chip), tree.psf(chip)
    planes = [("SCI", image), ("WGT", weight_null), ("WGT_ME", weight), ("MSK", mask)]
    write_images(nullwt, [Plane(name, pixels, header) for name, pixels in planes])
    write_images(bkg, [Plane("SCI", np.zeros_like(image))])
    write_images(seg, [Plane("SCI", np.zeros((rows, cols), "i4"))])
    PSFEx(star[np.newaxis].astype(float), 0, (0.0, 0.0), (1.0, 1.0), 1.0, 4.0).write(psf)
    if number == 0:
        plain = tree.sources(BAND) / "plain.fits"
        write_images(plain, [Plane("SCI", image, header), Plane("MSK", mask), Plane("WGT", weight)])
        pack(plain, tree.sources(BAND) / f"{chip}_immasked.fits.fz", chip, qvalue=16.0)
    return PreparedChip(chip, 31.0, nullwt, seg, bkg, psf, 0, 0, False)


def main():
    options = arguments()
    place = Path(tempfile.mkdtemp(prefix="block-memory-", dir=options.scratch))
    environment = {**os.environ, "MEDS_DATA": str(place), "TMPDIR": str(place / "tmp")}
    try:
        tree = Site.from_environment("y3v02", environment).tree(TILE)
        Geometry.tangent(TILE, *CENTRE, options.tile, options.tile, SCALE).write(tree.geometry)
        star = galsim.Moffat(beta=3.5, fwhm=1.0).drawImage(nx=41, ny=41, scale=SCALE, dtype=np.float32).array
        chips = [make_exposure(tree, number, options, star) for number in range(options.exposures)]
        coadd_psf = tree.psfs / f"{TILE}_{BAND}_psfcat.psf"
        PSFEx(star[np.newaxis].astype(float), 0, (0.0, 0.0), (1.0, 1.0), 1.0, 4.0).write(coadd_psf)
        write_lists(tree, BAND, chips, coadd_psf, {})
        own = ["--set", f"bands={BAND}", "--set", "realizations=0"]
        realization = Site.from_environment("y3v02", environment).tree(TILE, "0")
        packed = tree.sources(BAND) / f"{chips[0].chip}_immasked.fits.fz"
        prep = [sys.executable, "-c", PREP, str(packed), str(place / "nullwt.fits"), str(tree.manifest("prep", BAND))]
        jobs = [
            ("1 prep, one CCD", prep, tree.manifest("prep", BAND)),
            ("2 coadd", ["balrog", "coadd", TILE, *own], tree.manifest("coadd", BAND)),
            ("2 detection", ["balrog", "detect", TILE, "--image-only", *own], tree.manifest("coadd", "det")),
            ("2 catalogue", ["balrog", "detect", TILE, "--band", BAND, *own], tree.manifest("catalog", BAND)),
            ("4 MEDS", ["balrog", "meds", TILE, *own], tree.manifest("meds", BAND)),
            ("8 plan", ["balrog", "inject", TILE, "-r", "0", "--plan-only", *own], realization.manifest("plan")),
            (
                "8 inject",
                ["balrog", "inject", TILE, "-r", "0", "--band", BAND, *own],
                realization.manifest("inject", BAND),
            ),
        ]
        rows = []
        for name, words, manifest in jobs:
            subprocess.run(words, env=environment, check=True, capture_output=True)
            made = read_manifest(manifest)
            counts = ", ".join(
                f"{key} {made['counts'][key]}"
                for key in ("detections", "cutouts", "objects", "stamps")
                if key in made["counts"]
            )
            rows.append(
                [
                    name,
                    f"{made['peak_memory_bytes'] / 2**20:.0f}",
                    f"{made['cpu_seconds']:.1f}",
                    f"{made['wall_seconds']:.1f}",
                    counts,
                ]
            )
        sys.stdout.write(
            f"tile {options.tile}, {options.exposures} exposures of {options.rows} x {options.cols} pixels\n"
        )
        sys.stdout.write(tabulate(rows, headers=["job", "peak MiB", "CPU s", "wall s", "counts"]) + "\n")
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
