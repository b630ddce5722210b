"""Functions of functions: a cluster whose galaxies get fainter and less sheared with distance."""

import os

import numpy as np
from model_class import *

HERE = os.path.dirname(os.path.realpath(__file__))
COSMOS = os.path.join(HERE, "..", "decam_galaxy_r_1exp", "cosmos.fits")


def CustomArgs(parser):
    parser.add_argument("--core", help="core radius of the cluster, pixels", type=float, default=60)
    parser.add_argument("--einstein", help="Einstein radius of the cluster, pixels", type=float, default=8)


def around(middle, radius, angle, component):
    return middle + radius * (np.cos(angle) if component == "x" else np.sin(angle))


def radius(core, ngal):
    # An isothermal disk, cut at three core radii.
    return 3 * core * np.random.uniform(0.05, 1, ngal)


def fainter(magnitude, x, y, middle, scale=100.0):
    return magnitude + np.hypot(x - middle[0], y - middle[1]) / scale


def tangential(x, y, middle, einstein, part):
    # A singular isothermal sphere: gamma = theta_E / (2 theta), kappa the same, g = gamma / (1 - kappa).
    angle, distance = np.arctan2(y - middle[1], x - middle[0]), np.hypot(x - middle[0], y - middle[1])
    shear = np.minimum(einstein / (2 * np.maximum(distance, einstein)), 0.49)
    return -shear / (1 - shear) * (np.cos(2 * angle) if part == 1 else np.sin(2 * angle))


def SimulationRules(args, rules, sampled, TruthCat):
    middle = (0.5 * (args.xmin + args.xmax), 0.5 * (args.ymin + args.ymax))

    # A rule can refer to what comes later in the file.
    rules.g1 = Function(function=tangential, args=[sampled.x, sampled.y, middle, args.einstein], kwargs={"part": 1})
    rules.g2 = Function(function=tangential, args=[sampled.x, sampled.y, middle, args.einstein], kwargs={"part": 2})
    rules.magnification = 1

    # Functions as arguments of functions; y follows from x, as one point has one radius.
    angle = Function(function=np.random.uniform, args=[0, np.pi, args.ngal])
    distance = Function(function=radius, args=[args.core, args.ngal])
    rules.x = Function(function=around, args=[middle[0], distance, angle, "x"])
    rules.y = Function(function=np.random.uniform, args=[args.ymin, args.ymax, args.ngal])

    # Catalogue columns as arguments of functions, beside columns used as they are: the rows are the same.
    rules.magnitude = Function(function=fainter, args=[Column(COSMOS, 1, "IMAG"), sampled.x, sampled.y, middle])
    rules.halflightradius = Column(COSMOS, 1, "HALF_LIGHT_RADIUS")
    rules.sersicindex = Column(COSMOS, 1, "SERSIC_INDEX")
    rules.axisratio = Column(COSMOS, 1, "AXIS_RATIO")
    rules.beta = Function(function=np.random.uniform, args=[-90, 90, args.ngal])

    TruthCat.AddColumn(Column(COSMOS, 1, "IMAG"), name="CATALOG_MAG")
    TruthCat.AddColumn(
        Function(function=lambda x, y: np.hypot(x - middle[0], y - middle[1]), args=[sampled.x, sampled.y]),
        name="DISTANCE",
        fmt="E",
        unit="pix",
    )
