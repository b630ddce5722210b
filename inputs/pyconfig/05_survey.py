"""What a survey finds: number counts over the depth of the image, positions on a grid, accuracy by object."""

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from model_class import *


def CustomArgs(parser):
    group = parser.add_argument_group("survey")
    group.add_argument("--bright", help="brightest magnitude", type=float, default=19.0)
    group.add_argument("--faint", help="faintest magnitude", type=float, default=25.0)
    group.add_argument("--slope", help="slope of the counts: log10 N = slope * m", type=float, default=0.3)
    group.add_argument("--apart", help="distance of the galaxies on the grid, pixels", type=float, default=None)


def CustomParseArgs(args):
    if args.apart is None:
        area = (args.xmax - args.xmin + 1) * (args.ymax - args.ymin + 1)
        args.apart = np.sqrt(area / args.ngal)


def counts(bright, faint, slope, ngal):
    # Inverse of the cumulative counts.
    u = np.random.uniform(0, 1, ngal)
    return np.log10(10 ** (slope * bright) + u * (10 ** (slope * faint) - 10 ** (slope * bright))) / slope


def grid(low, high, other_low, other_high, apart, ngal, axis):
    columns = max(1, int((high - low) / apart)) if axis == 0 else max(1, int((other_high - other_low) / apart))
    index = np.arange(ngal)
    place = index % columns if axis == 0 else index // columns
    return low + (0.5 + place) * apart + np.random.uniform(-0.5, 0.5, ngal)


def size(magnitude, bright):
    # Fainter galaxies are smaller, with a scatter of 0.2 dex.
    return 10 ** (-0.08 * (magnitude - bright) + 0.2 * np.random.normal(size=len(magnitude)))


def sky(x, y, file, ext, axis):
    with fits.open(file) as hdus:
        return WCS(hdus[ext].header).wcs_pix2world(x, y, 1)[axis]


def finer_when_bright(flux_or_magnitude):
    return np.where(flux_or_magnitude < 21, 1e-3, 5e-3)


def SimulationRules(args, rules, sampled, TruthCat):
    spread = [args.apart, args.ngal]
    rules.x = Function(function=grid, args=[args.xmin, args.xmax, 0, 0, *spread, 0])
    rules.y = Function(function=grid, args=[args.ymin, args.ymax, args.xmin, args.xmax, *spread, 1])
    rules.magnitude = Function(function=counts, args=[args.bright, args.faint, args.slope, args.ngal])
    rules.halflightradius = Function(function=size, args=[sampled.magnitude, args.bright])
    rules.sersicindex = Function(function=np.random.choice, args=[[1.0, 2.5, 4.0], args.ngal])
    rules.axisratio = Function(function=np.random.uniform, args=[0.3, 1, args.ngal])
    rules.beta = Function(function=np.random.uniform, args=[-90, 90, args.ngal])
    rules.g1 = rules.g2 = 0
    rules.magnification = 1

    for number, name in enumerate(("RA", "DEC")):
        where = Function(function=sky, args=[sampled.x, sampled.y, args.image, args.imageext, number])
        TruthCat.AddColumn(where, name=name, fmt="D", unit="deg")


def GalsimParams(args, gsparams, galaxies):
    # Accuracy by object.
    gsparams.folding_threshold = Function(function=finer_when_bright, args=[galaxies.magnitude])


def SextractorConfigs(args, config):
    # Another configuration than the file's: fainter objects are looked for.
    config["DETECT_THRESH"] = 1.2
    config["ANALYSIS_THRESH"] = 1.2
    config["CHECKIMAGE_TYPE"] = "NONE"
