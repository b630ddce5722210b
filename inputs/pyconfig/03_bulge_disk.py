"""Two components: a bulge and a disk of one galaxy, with the bulge's share of the light drawn at random."""

import numpy as np
from model_class import *


def share(low, high, ngal):
    return np.random.uniform(low, high, ngal)


def bulge(total, fraction):
    # A magnitude from a share of the light.
    return total - 2.5 * np.log10(fraction)


def disk(total, bulge):
    # What the bulge leaves of the light.
    return -2.5 * np.log10(10 ** (-0.4 * total) - 10 ** (-0.4 * bulge))


def SimulationRules(args, rules, sampled, TruthCat):
    # First of all: it gives every component its defaults again.
    InitializeSersic(rules, sampled, TruthCat, nProfiles=2)

    # Magnitude 20.5 in all.
    fraction = Function(function=share, args=[0.1, 0.6, args.ngal])
    rules.magnitude[0] = Function(function=bulge, args=[20.5, fraction])
    rules.magnitude[1] = Function(function=disk, args=[20.5, sampled.magnitude[0]])

    rules.sersicindex = [4, 1]
    rules.halflightradius = [0.3, Function(function=np.random.uniform, args=[0.6, 1.2, args.ngal])]
    rules.axisratio = [0.9, 0.5]
    rules.beta = [sampled.beta[1], Function(function=np.random.uniform, args=[-90, 90, args.ngal])]

    TruthCat.AddColumn(
        Function(function=lambda b: 10 ** (-0.4 * (b - 20.5)), args=[sampled.magnitude[0]]), name="BT", fmt="E"
    )


def GalsimParams(args, gsparams, galaxies):
    gsparams.folding_threshold = 1e-3
