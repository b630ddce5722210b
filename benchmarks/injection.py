"""CPU time of injecting into one CCD beside bare GalSim; processes beside one; memory.

`python benchmarks/injection.py [OBJECTS]`: for each kind of object the same objects are drawn by GalSim alone (PSF at
the position, convolution, stamp of the same size, photon noise) and the files read and written; then injected, truth
and audit included. Printed: CPU ms per object of the bare drawing, CPU seconds of both, and their ratio, whose target
is 1.25.

`--processes 2`: wall time of injecting into eight CCDs with one process and with so many, their start included, and the
ratio, whose target with two is 1.8, on a machine with nothing else to do; on another the CPU of both says how much of
it the work itself would allow.

`--memory`: the peak of a process that injects few or many objects into one CCD or several.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import resource
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import fitsio
import galsim
import galsim.des
import numpy as np

from balrogutils.archive.geometry import Geometry
from balrogutils.fitsfile import Plane, write_images
from balrogutils.injection.chips import Chip, Recipe
from balrogutils.injection.imagefile import inject_chip
from balrogutils.injection.planning import _dtype
from balrogutils.injection.planning import make_plan as plan_of
from balrogutils.injection.rendering import candidates
from balrogutils.injection.shapes import Shapes
from balrogutils.injection.sources.loading import load
from balrogutils.memory import peak_memory
from balrogutils.psf import PSFEx
from balrogutils.randomness import stream
from balrogutils.settings.injection import Injection

_log = logging.getLogger("benchmark")
ROWS, COLS = 4096, 2048
EXTRA = ("sersic_n", "truncation")
KINDS = ("star", "exp", "dev", "bdf", "sersic, n in steps of 0.25", "sersic, free n")
CONFIGURED = {
    "MEDS stamp": "16_meds_stamps",
    "bulge and disk, spectra": "17_bulge_disk_spectra",
    "galaxy, star, nested": "19_nested",
}
"""Kinds that are planned from an example configuration: every object of it counts."""
CHECKOUT = Path(__file__).resolve().parents[1]
TILE = "DES0240+0200"


def chip_of(place: Path) -> Chip:
    """Return the CCD that `make_chip` has written."""
    name = "D00000001_g_c01_r0001p01"
    file = f"{name}_immasked_nullwt.fits"
    return Chip(name, "g", place / file, place / "out" / file, place / "model.psf", 31.0)


def make_chip(place: Path) -> Chip:
    """Write one CCD and its PSF model."""
    rng = stream(1, "benchmark")
    scale = 0.263 / 3600
    cards = {
        **{
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CRVAL1": 40.0,
            "CRVAL2": 2.0,
            "CRPIX1": 1024.5,
            "CRPIX2": 2048.5,
        },
        **{"CD1_1": -scale, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": scale, "GAINA": 1.0, "GAINB": 1.1, "SATURATE": 1e5},
    }
    header = fitsio.FITSHDR()
    for key, value in cards.items():
        header.add_record({"name": key, "value": value})
    sci = rng.normal(0, 17, (ROWS, COLS)).astype("f4")
    wgt = np.full((ROWS, COLS), 1 / 17**2, "f4")
    chip = chip_of(place)
    planes = [
        Plane("SCI", sci, header),
        Plane("WGT", wgt),
        Plane("WGT_ME", wgt),
        Plane("MSK", np.zeros(sci.shape, "i2")),
    ]
    write_images(chip.base, planes)
    y, x = np.mgrid[:51, :51] - 25.0
    moffat = (1 + (x**2 + y**2) * 0.8**2 / 2.8**2) ** -3.0
    masks = np.array([moffat / moffat.sum(), *(1e-3 * moffat * part / moffat.sum() for part in (x / 25, y / 25))])
    psf = PSFEx(masks, 1, (1024.5, 2048.5), (1024.0, 2048.0), 0.8, 4.0)
    psf.write(chip.psf_file)
    return chip


def make_plan(kind: str, count: int, sample: int) -> np.ndarray:
    """Return objects spread over the CCD; GalSim remembers profiles, so what is compared takes other samples."""
    rng = stream(2, "benchmark", kind, sample)
    rows = np.zeros(count, _dtype("g", EXTRA, model_width=8))
    rows["bal_id"] = rows["noise_key"] = np.arange(1, count + 1)
    rows["model"], rows["magnification"] = kind.partition(",")[0], 1.0
    rows["ra"] = 40.0 + rng.uniform(-0.065, 0.065, count)
    rows["dec"] = 2.0 + rng.uniform(-0.14, 0.14, count)
    rows["flux_g"] = 10 ** rng.uniform(3, 4.5, count)
    rows["T"], rows["fracdev"], rows["TdByTe"] = rng.uniform(0.1, 1.0, count), rng.uniform(0.1, 0.9, count), 1.0
    rows["g1"], rows["g2"] = rng.normal(0, 0.15, (2, count))
    rows["r50_arcsec"], rows["truncation"] = rng.uniform(0.3, 0.8, count), 6.0
    index = rng.uniform(0.6, 3.5, count)
    rows["sersic_n"] = index if "free" in kind else np.round(index / 0.25) * 0.25
    return rows


def configured(name: str, count: int, sample: int) -> tuple[np.ndarray, Shapes]:
    """Return objects of an example configuration spread over the CCD, and what makes their profiles."""
    settings = Injection.load(CHECKOUT / "inputs" / "examples" / f"{name}.yaml")
    share = -(-count // len(settings.inputs))
    image = settings.image.model_copy(update={"n_objects": dict.fromkeys(settings.inputs, share)})
    settings = settings.model_copy(update={"image": image})
    types = [item.type for item in settings.gal.items if not item.native]
    catalogs = {inj_type: load(inj_type, settings, CHECKOUT, TILE, ("g",)) for inj_type in types}
    geometry = Geometry.tangent(TILE, 40.0, 2.0, COLS, ROWS, 0.263, {})
    rows = plan_of(settings, catalogs, geometry, ("g",), sample + 1, "0", CHECKOUT)
    return rows, Shapes(settings, CHECKOUT, TILE, "0", sample + 1)


def bare(
    chip: Chip, plan: np.ndarray, profiles: list, halves: np.ndarray, positions: np.ndarray
) -> tuple[float, float]:
    """Draw with GalSim alone, and read and write the files; return CPU seconds of both."""
    started = time.process_time()
    psf = galsim.des.DES_PSFEx(str(chip.psf_file))
    wcs = galsim.GSFitsWCS(header=galsim.FitsHeader(header=dict(chip.header)))
    light = galsim.ImageD(COLS, ROWS, scale=1.0)
    for row, make, half, (y, x) in zip(plan, profiles, halves, positions, strict=True):
        at = galsim.PositionD(x + 1, y + 1)
        model, profile = psf.getPSF(at), make()
        if profile is not None:
            model = galsim.Convolve(wcs.local(image_pos=at).profileToImage(profile), model)
        centre = galsim.PositionI(round(at.x), round(at.y))
        bounds = galsim.BoundsI(centre.x - half, centre.x + half, centre.y - half, centre.y + half)
        stamp = galsim.ImageD(bounds, scale=1.0)
        flux = row["flux_g"] * chip.flux_factor
        model.withFlux(flux).drawImage(image=stamp, center=at, method="no_pixel")
        electrons = np.maximum(stamp.array, 0)
        stamp.array[:] += stream(1, "bare", int(row["bal_id"])).poisson(electrons) - electrons
        common = bounds & light.bounds
        if common.isDefined():
            light[common] += stamp[common]
    drawn = time.process_time() - started
    started = time.process_time()
    target = chip.target.with_name("bare.fits")
    shutil.copyfile(chip.base, target)
    with fitsio.FITS(str(target), "rw") as fits:
        image = fits["SCI"].read()
        fits["SCI"].write((image.astype("f8") + light.array).astype("f4"))
        fits["SCI"].write_checksum()
    return drawn, time.process_time() - started


def recipe() -> Recipe:
    """Return how all is drawn."""
    return Recipe(galsim.GSParams(), True, 1, "T", "0", "0")


def settings() -> Injection:
    """Return a configuration, of which nothing is used here."""
    return Injection.model_validate(
        {
            "input": {"des_star_catalog": {"base_dir": "x"}},
            "gal": {"type": "desStar"},
            "psf": {"type": "DES_PSFEx"},
            "stamp": {"draw_method": "no_pixel"},
            "image": {"type": "Balrog", "n_objects": 1},
        }
    )


def beside_galsim(place: Path, count: int) -> None:
    """Print the table of kinds of objects."""
    chip = make_chip(place)
    psf = PSFEx.read(chip.psf_file)
    _log.info("%-28s %10s %10s %10s %7s", "kind", "bare ms", "bare s", "inject s", "ratio")
    for kind in (*KINDS, *CONFIGURED):
        number = max(count // 10, 20) if "free" in kind or kind in CONFIGURED else count
        best = None
        for attempt in range(3):
            if kind in CONFIGURED:
                plan, shapes = configured(CONFIGURED[kind], number, 2 * attempt)
                other, others = configured(CONFIGURED[kind], number, 2 * attempt + 1)
            else:
                plan, other = (make_plan(kind, number, 2 * attempt + sample) for sample in (0, 1))
                shapes = others = Shapes(settings(), place, "T", "0", attempt)
            reach = np.array([shapes.reach(row) for row in plan])
            near, positions, halves = candidates(chip, plan, reach, psf)
            makers = [lambda row=row, shapes=shapes: shapes.profile(row, "g") for row in plan[near]]
            drawn, files = bare(chip, plan[near], makers, halves, positions)
            started = time.process_time()
            inject_chip(chip, other, np.array([others.reach(row) for row in other]), recipe(), others)
            whole = time.process_time() - started
            if best is None or whole / (drawn + files) < best[2] / (best[0] + best[1]):
                best = drawn, files, whole
        drawn, files, whole = best
        each = 1e3 * drawn / len(near)
        _log.info("%-28s %10.2f %10.2f %10.2f %7.2f", kind, each, drawn + files, whole, whole / (drawn + files))


def inject_some(place: Path, count: int, numbers: list[int]) -> int:
    """Inject objects into the CCD again and again; return the peak memory of this process in bytes."""
    chip = chip_of(place)
    shapes = Shapes(settings(), place, "T", "0", 1)
    for number in numbers:
        plan = make_plan("exp", count, number)
        target = place / "out" / f"{number}.fits"
        reach = np.array([shapes.reach(row) for row in plan])
        inject_chip(replace(chip, target=target), plan, reach, recipe(), shapes)
        target.unlink()
    return peak_memory()


def beside_one_process(place: Path, count: int, processes: int) -> None:
    """Print the wall time with one process and with several."""
    make_chip(place)
    fresh = multiprocessing.get_context("spawn")
    walls, works = {}, {}
    for number in (1, processes):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shares = [list(range(first, 8, number)) for first in range(number)]
        started = time.monotonic()
        with ProcessPoolExecutor(number, mp_context=fresh) as pool:
            list(pool.map(inject_some, [place] * number, [count] * number, shares))
        walls[number] = time.monotonic() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        works[number] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        told = number, count, walls[number], works[number]
        _log.info("%d processes: 8 CCDs with %d objects each in %.1f s, CPU %.1f s", *told)
    _log.info("ratio: %.2f", walls[1] / walls[processes])
    _log.info("ratio that the CPU leaves room for: %.2f", processes * works[1] / works[processes])


def memory(place: Path, count: int) -> None:
    """Print the peak memory of processes with less and more to do."""
    make_chip(place)
    fresh = multiprocessing.get_context("spawn")
    _log.info("%10s %6s %10s", "objects", "CCDs", "peak MiB")
    for objects, ccds in ((count // 10, 1), (count, 1), (count // 10, 5)):
        with ProcessPoolExecutor(1, mp_context=fresh) as pool:
            peak = pool.submit(inject_some, place, objects, list(range(ccds))).result()
        _log.info("%10d %6d %10.0f", objects, ccds, peak / 2**20)


def main() -> None:
    """Do what the command line asks for."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("balrogutils").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", nargs="?", type=int, default=600)
    parser.add_argument("--processes", type=int, help="compare so many processes with one")
    parser.add_argument("--memory", action="store_true", help="peak memory")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "out").mkdir()
        if chosen.processes:
            beside_one_process(place, chosen.objects, chosen.processes)
        if chosen.memory:
            memory(place, chosen.objects)
        if not (chosen.processes or chosen.memory):
            beside_galsim(place, chosen.objects)


if __name__ == "__main__":
    main()
