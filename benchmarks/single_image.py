"""CPU time of `balrog image`: the bundled example, and drawing beside bare GalSim.

`python benchmarks/single_image.py [OBJECTS]`: runs the bundled example, whose target is 20 s of one core; then draws so
many galaxies (1000) into it by the default rules file, and the same galaxies with GalSim alone: PSF at the position
(`DES_PSFEx`), convolution, the stamp that GalSim finds good, photon noise. Rules are left out of both, which
run in processes of their own, since GalSim remembers profiles. The target of the ratio is 1.25.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import resource
import tempfile
import time
from argparse import Namespace

import galsim
import galsim.des
import numpy as np

from balrogutils.oneimage.arguments import first_look, native_parser, packaged
from balrogutils.oneimage.drawing import draw_all
from balrogutils.oneimage.images import Frame, pixel_scale, read_frame
from balrogutils.oneimage.inputs import resolve
from balrogutils.oneimage.run import run
from balrogutils.psf import PSFEx
from balrogutils.rules.defaults import defaults
from balrogutils.rules.pyconfig import PyConfig, for_user
from balrogutils.rules.sampling import Sample, component_fluxes, sample

_log = logging.getLogger("benchmark")


def example(root: str) -> None:
    """Run the bundled example."""
    argv = ["--outdir", root, "--seed", "7", "--noiseseed", "3"]
    run(first_look(argv), native_parser("balrog image"), argv)


def sampled(count: int) -> tuple[Namespace, Sample, Frame, np.ndarray]:
    """Return arguments, galaxies, image and fluxes."""
    config = PyConfig(packaged("pyconfig"))
    parser = native_parser("balrog image")
    native = {action.dest for action in parser._actions}
    config.custom_args(parser)
    args = parser.parse_args(["--ngal", str(count), "--seed", "7", "--noiseseed", "3", "--imageonly"])
    resolve(args)
    config.own_arguments(args, native)
    config.seed = args.seed
    found = sample(config, for_user(args), defaults(args, packaged("catalog")))
    return args, found, read_frame(args), component_fluxes(found.components["magnitude"], args.zeropoint)


def ours(count: int) -> float:
    """Draw as `balrog image` does; return CPU seconds."""
    args, found, frame, fluxes = sampled(count)
    began = time.process_time()
    draw_all(found, fluxes, frame, PSFEx.read(args.psf), args)
    return time.process_time() - began


def bare(count: int) -> float:
    """Draw with GalSim alone; return CPU seconds."""
    args, found, frame, fluxes = sampled(count)
    began = time.process_time()
    psf = galsim.des.DES_PSFEx(str(args.psf))
    rows, cols = frame.pixels.shape
    whole = galsim.ImageD(cols, rows, scale=1.0)
    noise = galsim.PoissonNoise(galsim.BaseDeviate(args.noiseseed))
    for number in range(count):
        index, radius, ratio, beta = (
            float(found.components[name][0, number]) for name in ("sersicindex", "halflightradius", "axisratio", "beta")
        )
        place = galsim.PositionD(*(float(found.objects[name][number]) for name in ("x", "y")))
        scale = pixel_scale(frame.wcs, place.y - 1, place.x - 1)
        galaxy = galsim.Sersic(index, half_light_radius=radius * np.sqrt(ratio), flux=float(fluxes[0, number]))
        galaxy = galaxy.shear(q=ratio, beta=beta * galsim.degrees).dilate(1 / scale)
        local = psf.getPSF(place).withFlux(1.0)
        accuracy = galsim.GSParams(**found.accuracy[number])
        light = galsim.Convolve(galaxy, local.shift(-local.centroid), gsparams=accuracy)
        stamp = light.drawImage(center=place, scale=1.0, method="no_pixel", dtype=float)
        # Electrons, as the gain has it.
        seen = galsim.ImageD(np.maximum(stamp.array, 0.0) * args.gain)
        seen.addNoise(noise)
        stamp.array[:] = seen.array / args.gain
        overlap = stamp.bounds & whole.bounds
        if overlap.isDefined():
            whole[overlap] += stamp[overlap]
    return time.process_time() - began


def main() -> None:
    """Print the table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="CPU time of balrog image.")
    parser.add_argument("objects", type=int, nargs="?", default=1000)
    count = parser.parse_args().objects
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        began = time.monotonic()
        with spawn.Pool(1) as pool:
            pool.apply(example, (place,))
            wall = time.monotonic() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = used.ru_utime + used.ru_stime
    _log.info("bundled example: %.1f s of CPU, %.1f s wall (target 20 s)", cpu, wall)
    seconds = {}
    for name, work in (("bare GalSim", bare), ("balrog image", ours)):
        with spawn.Pool(1) as pool:
            seconds[name] = pool.apply(work, (count,))
        _log.info("%s: %.2f ms of CPU an object, %d objects", name, 1e3 * seconds[name] / count, count)
    _log.info("ratio %.2f (target 1.25)", seconds["balrog image"] / seconds["bare GalSim"])


if __name__ == "__main__":
    main()
