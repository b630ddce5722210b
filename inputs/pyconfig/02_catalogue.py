"""Galaxies from a catalogue: sizes, indices and magnitudes of one galaxy stay together. The default of balrog image."""

import os

import numpy as np
from model_class import *


# Arguments of your own, beside the native ones.
def CustomArgs(parser):
    parser.add_argument("-cs", "--catalog", help="FITS table of galaxies", type=str, default=None)
    parser.add_argument("-ext", "--ext", help="HDU of the table", type=int, default=1)


# Their values may be changed here, and nowhere else.
def CustomParseArgs(args):
    if args.catalog is None:
        here = os.path.dirname(os.path.realpath(__file__))
        args.catalog = os.path.join(here, "..", "decam_galaxy_r_1exp", "cosmos.fits")


def SimulationRules(args, rules, sampled, TruthCat):
    rules.x = Function(function=np.random.uniform, args=[args.xmin, args.xmax, args.ngal])
    rules.y = Function(function=np.random.uniform, args=[args.ymin, args.ymax, args.ngal])
    rules.g1 = 0
    rules.g2 = 0
    rules.magnification = 1

    # All columns of one table come from the same rows.
    table = Table(file=args.catalog, ext=args.ext)
    rules.halflightradius = table.Column("HALF_LIGHT_RADIUS")
    rules.sersicindex = table.Column("SERSIC_INDEX")
    rules.axisratio = table.Column("AXIS_RATIO")
    rules.magnitude = Catalog(file=args.catalog, ext=args.ext, col="IMAG")
    rules.beta = Function(function=np.random.uniform, args=[-90, 90, args.ngal])

    # Columns of your own in the truth catalogue.
    TruthCat.AddColumn(table.Column("ID"))
    TruthCat.AddColumn(table.Column("Z"), name="REDSHIFT")


def GalsimParams(args, gsparams, galaxies):
    gsparams.folding_threshold = 1e-3


def SextractorConfigs(args, config):
    config["CHECKIMAGE_TYPE"] = "NONE"
