"""What parameters without a rule are drawn from."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np

from balrogutils.rules.language import Column, Constant, Function
from balrogutils.rules.sampling import Defaults

__all__ = ["COSMOS", "defaults"]

COSMOS = "inputs/decam_galaxy_r_1exp/cosmos.fits"
"""The table of the defaults, from the checkout on."""


def defaults(args: Namespace, cosmos: Path) -> Defaults:
    """Return what parameters without a rule are drawn from (O 1.b, step 8).

    Parameters
    ----------
    args : argparse.Namespace
        Resolved arguments: bounds and number of objects.
    cosmos : Path
        The COSMOS table.

    Notes
    -----
    Sizes, indices and magnitudes come from the rows of one COSMOS table, drawn jointly.
    """
    told = "drawn from the COSMOS table of the package"
    bounds = {"x": (args.xmin, args.xmax), "y": (args.ymin, args.ymax)}
    rules = {
        **{name: Function(np.random.uniform, [*ends, args.ngal]) for name, ends in bounds.items()},
        **{name: Constant(value) for name, value in (("g1", 0.0), ("g2", 0.0), ("magnification", 1.0))},
        **{"beta": Constant(0.0), "axisratio": Constant(1.0)},
        "sersicindex": Column(cosmos, 1, "SERSIC_INDEX"),
        "halflightradius": Column(cosmos, 1, "HALF_LIGHT_RADIUS"),
        "magnitude": Column(cosmos, 1, "IMAG"),
    }
    words = {name: f"uniform from {ends[0]} to {ends[1]} is taken" for name, ends in bounds.items()}
    words |= {name: f"{rule.value} is taken" for name, rule in rules.items() if isinstance(rule, Constant)}
    return Defaults(rules, {name: words.get(name, f"it is {told}") for name in rules})
