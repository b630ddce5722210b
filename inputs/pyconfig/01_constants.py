"""The same galaxy everywhere: constants, an array, and what is left to its default."""

import numpy as np


def SimulationRules(args, rules, sampled):
    # One value for all galaxies; x and y have no rule, so they are uniform over the image, which is said in a warning.
    rules.magnitude = 20
    rules.halflightradius = 0.6  # arcsec, along the major axis
    rules.sersicindex = 1
    rules.axisratio = 0.7

    # One value for each galaxy.
    rules.beta = np.linspace(-90, 90, args.ngal)  # degrees, counter-clockwise from x

    # The same as another parameter, whatever that comes to.
    rules.g1 = sampled.g2
    rules.g2 = 0.0
    rules.magnification = 1
