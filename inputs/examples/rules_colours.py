"""Bulges and disks with colours: one rules file for tiles of several bands and for balrog image."""

import os

import numpy as np
from model_class import *

HERE = os.path.dirname(os.path.realpath(__file__))
COSMOS = os.path.join(HERE, "..", "decam_galaxy_r_1exp", "cosmos.fits")

# Magnitudes from i, of old stars and of young ones.
COLOURS = {"g": (1.6, 0.6), "r": (0.4, 0.2), "i": (0.0, 0.0), "z": (-0.3, -0.1), "Y": (-0.4, -0.1)}


def CustomArgs(parser):
    parser.add_argument("--band", help="band of the magnitudes", choices=list(COLOURS), default="i")


def component(total, fraction, colour):
    return total - 2.5 * np.log10(fraction) + colour


def share(ngal):
    return np.random.beta(1, 3, ngal) * 0.98 + 0.01


def SimulationRules(args, rules, sampled, TruthCat):
    InitializeSersic(rules, sampled, TruthCat, nProfiles=2)
    rules.x = Function(function=np.random.uniform, args=[args.xmin + 25, args.xmax - 25, args.ngal])
    rules.y = Function(function=np.random.uniform, args=[args.ymin + 25, args.ymax - 25, args.ngal])
    rules.g1, rules.g2, rules.magnification = 0.02, -0.01, 1.05

    table = Table(file=COSMOS, ext=1)
    bulge = Function(function=share, args=[args.ngal])
    # A parameter of its own, since every use of a Function draws anew: what the bulge has, the disk lacks.
    rules.magnitude[0] = Function(function=component, args=[table.Column("IMAG"), bulge, COLOURS[args.band][0]])
    rules.magnitude[1] = Function(
        function=lambda total, first, red, blue: component(total, 1 - 10 ** (-0.4 * (first - red - total)), blue),
        args=[table.Column("IMAG"), sampled.magnitude[0], *COLOURS[args.band]],
    )
    size = table.Column("HALF_LIGHT_RADIUS")
    rules.halflightradius = [Function(function=lambda r: 0.4 * r, args=[size]), size]
    rules.sersicindex = [4, 1]
    rules.axisratio = [0.9, table.Column("AXIS_RATIO")]
    rules.beta = [sampled.beta[1], Function(function=np.random.uniform, args=[-90, 90, args.ngal])]

    TruthCat.AddColumn(table.Column("Z"), name="REDSHIFT")
