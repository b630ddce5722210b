"""Compiled code gives the same digits whatever was compiled or loaded before."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from balrogutils.fitting.gaussians import dot

FIT = """
import galsim
import numpy as np
from simulated_stamps import observe
from balrogutils.fitting.galaxy import fit_galaxy, template_flux
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.models import model
from balrogutils.fitting.observation import stack
from balrogutils.fitting.priors import CenPrior, Flat, GPriorBA
from balrogutils.fitting.psffit import PSFOptions, fit_psf, psf_family
from balrogutils.fitting.solver import LMOptions

rng = np.random.default_rng(3)
epochs = [observe(rng, galsim.Exponential(half_light_radius=0.5), 900.0, 2.0) for _ in range(3)]
told = []
for name in ("coellip3", "em2"):
    psfs = np.array([fit_psf(one.psf, one.wcs, PSFOptions(*psf_family(name))).mixture for one in epochs])
    prior = JointPrior(CenPrior(0.263), GPriorBA(0.2), Flat(-0.1, 1e5), [Flat(-1e3, 1e9)])
    fit = fit_galaxy(stack([epochs]), psfs, model("exp"), prior, [np.array([0, 0, 0, 0, 0.5, 900.0])], LMOptions())
    told += [psfs.tobytes().hex(), fit.pars.tobytes().hex(), fit.cov.tobytes().hex()]
told.append(str(template_flux(epochs).flux.hex()))
print(*told)
"""


@pytest.mark.parametrize("size", [0, 1, 3, 15, 16, 17, 41, 255])
def test_inner_products_are_summed_in_the_order_written_down(size):
    a, b = np.random.default_rng(size).normal(size=(2, size + 3))
    a, b = a[:size], b[:size]
    exact = math.fsum(x * y for x, y in zip(a, b, strict=True))
    assert dot(a, b) == pytest.approx(exact, rel=1e-15 * max(size, 1), abs=1e-15 * max(size, 1))

    @njit
    def inside(first, second):
        return dot(first, second)

    # The copy of the function in another one.
    assert inside(a, b) == dot(a, b)


@pytest.mark.long
def test_compiled_now_and_compiled_before_are_the_same_to_the_bit(tmp_path):
    here = Path(__file__).resolve().parent
    path = os.pathsep.join(filter(None, [str(here), str(here.parent), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    seen = [
        subprocess.run([sys.executable, "-c", FIT], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert list(tmp_path.rglob("*.nbc"))
    assert seen[0] == seen[1]
