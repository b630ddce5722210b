"""A small image with a WCS, a weight map and a PSF model, and runs of Balrog on it within this process."""

from pathlib import Path

import fitsio
import numpy as np
from injection_tile import psf_model

from balrogutils.fitsfile import Plane, read_table, write_images
from balrogutils.oneimage.arguments import first_look, native_parser
from balrogutils.oneimage.run import run
from balrogutils.psf import PSFEx
from balrogutils.rules.pyconfig import PyConfig

CHECKOUT = Path(__file__).resolve().parents[1]
SKY, SIGMA, ZERO_POINT, GAIN, SCALE = 100.0, 5.0, 30.0, 4.0, 0.263
HEAD = "import numpy as np\nfrom model_class import *\n"
ROUND = """
def SimulationRules(args, rules, sampled, TruthCat):
    rules.x = Function(np.random.uniform, [args.xmin + 20, args.xmax - 20, args.ngal])
    rules.y = Function(np.random.uniform, [args.ymin + 20, args.ymax - 20, args.ngal])
    rules.g1 = rules.g2 = 0
    rules.magnification = rules.axisratio = 1
    rules.beta = 0
    rules.sersicindex = 1
    rules.halflightradius = 0.5
    rules.magnitude = Function(np.random.uniform, [20, 22, args.ngal])
def CustomArgs(parser): pass
def CustomParseArgs(args): pass
def GalsimParams(args, gsparams, galaxies): gsparams.folding_threshold = 1e-3
"""
"""Exponential galaxies well inside the image, with every function and every rule, so that nothing is warned of."""


def wcs_cards(shape, angle=0.0, scale=SCALE):
    """A TAN WCS turned by an angle in degrees."""
    step, turn = scale / 3600.0, np.radians(angle)
    c, s = np.cos(turn), np.sin(turn)
    return {
        **{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg", "CRVAL1": 40.0, "CRVAL2": 2.0},
        **{"CRPIX1": (shape[1] + 1) / 2, "CRPIX2": (shape[0] + 1) / 2},
        **{"CD1_1": -step * c, "CD1_2": step * s, "CD2_1": step * s, "CD2_2": step * c},
    }


def header(cards):
    out = fitsio.FITSHDR()
    for key, value in cards.items():
        out.add_record({"name": key, "value": value})
    return out


def write_input(directory, shape=(200, 220), *, angle=0.0, shared=False, first=0, wcs=True, psf=None, seed=1):
    """Write field.fits, its weight map (behind it, or in field.wht.fits) and field.psf; return their arguments."""
    directory.mkdir(parents=True, exist_ok=True)
    cards = {"GAIN": GAIN, "SEXMGZPT": ZERO_POINT, "SATURATE": 1e6, **(wcs_cards(shape, angle) if wcs else {})}
    pixels = (SKY + SIGMA * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)
    image = Plane("SCI", pixels, header(cards))
    weight = Plane("WGT", np.full(shape, 1 / SIGMA**2, dtype=np.float32), header(cards))
    before = [Plane(f"X{number}", np.zeros((3, 3), dtype=np.float32)) for number in range(first)]
    write_images(directory / "field.fits", [*before, image, *([weight] if shared else [])])
    words = ["--image", directory / "field.fits", "--imageext", first, "--psf", directory / "field.psf"]
    if not shared:
        write_images(directory / "field.wht.fits", [weight])
        words += ["--weight", directory / "field.wht.fits"]
    (psf or psf_model(shape=shape)).write(directory / "field.psf")
    return [str(word) for word in words]


def gaussian_psf(fwhm, sampling, size=41):
    """A constant round Gaussian PSF; `fwhm` and `sampling` in image pixels."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    image = np.exp(-0.5 * (x**2 + y**2) * (sampling * 2.3548 / fwhm) ** 2)
    return PSFEx((image / image.sum())[np.newaxis], 0, (0.0, 0.0), (1.0, 1.0), sampling, fwhm)


class Run:
    """One run and what it left.

    Parameters
    ----------
    directory : Path
        The output directory; the rules file lies beside it.
    rules : str
        Text of the rules file.
    *words : object
        More arguments.
    """

    def __init__(self, directory, rules, *words):
        directory.parent.mkdir(parents=True, exist_ok=True)
        self.file = directory.parent / f"{directory.name}_rules.py"
        self.file.write_text(HEAD + rules)
        self.argv = ["--outdir", str(directory), "--pyconfig", str(self.file), *map(str, words)]
        for name, seed in (("--seed", 7), ("--noiseseed", 3)):
            self.argv += [] if name in self.argv else [name, str(seed)]
        # A Sersic fit of every object takes most of a run's time, and only the tests of the example need it.
        if "--sexparam" not in self.argv:
            self.argv += ["--sexparam", str(CHECKOUT / "etc" / "image_sex_nosim.param")]
        self.tree = run(first_look(self.argv), native_parser("balrog image"), self.argv)

    @property
    def truth(self):
        return read_table(self.tree.truth)

    def measured(self, which="sim", hdu=2):
        return read_table(self.tree.measured(which), hdu)

    def image(self, which="sim", hdu=0):
        file = self.tree.simulated if which == "sim" else self.tree.original
        with fitsio.FITS(str(file)) as fits:
            return fits[hdu].read().astype(np.float64)

    def files(self):
        root = self.tree.root
        return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file() or file.is_symlink()}


def config(directory, rules):
    """A rules file read, without a run."""
    file = directory / "rules.py"
    file.write_text(HEAD + rules)
    return PyConfig(file)
