"""Compiled code gives the same digits whatever was compiled or loaded before."""

import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numba import config, njit

import balrogutils
from balrogutils.compiled import compiling, fits_are_compiled, store_of
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
@pytest.mark.slowest
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


def test_only_compiling_is_told_and_kernels_within_kernels_once():
    @njit
    def inner(x):
        return 2.0 * x

    @njit
    def outer(x):
        return inner(x) + 1.0

    before = time.process_time()
    with compiling() as watch:
        assert outer(1.0) == 3.0
    spent = time.process_time() - before
    # The rest is what makes a compiled function callable.
    assert 0.3 * spent < watch.seconds < spent
    with compiling() as again:
        assert outer(2.0) == 5.0
    assert again.seconds == 0.0
    told = watch.seconds
    # Nobody listens any more.
    assert outer(1) == 3.0
    assert watch.seconds == told


def test_kernels_of_fits_are_looked_for_in_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "store"))
    assert not fits_are_compiled()
    for name in ("meds_0123", "fitting_4567"):
        # numba makes the directory when a kernel is declared.
        (tmp_path / "store" / name).mkdir(parents=True)
        assert not fits_are_compiled()
        (tmp_path / "store" / name / "kernel.inner-1.py311.nbi").touch()
    assert fits_are_compiled()


class TestStore:
    """What was compiled of other sources is not found."""

    @pytest.fixture
    def package(self, tmp_path):
        (tmp_path / "kernels.py").write_text("@njit(cache=True)\ndef twice(x):\n    return 2 * x\n")
        (tmp_path / "part").mkdir()
        (tmp_path / "part" / "table.py").write_text("ROWS = 3\n")
        return tmp_path

    def test_another_kernel_is_another_store(self, package):
        before = store_of(package)
        assert before.parent == package / "__pycache__"
        (package / "part" / "called.py").write_text("@njit\ndef thrice(x):\n    return 3 * x\n")
        assert store_of(package) != before

    @pytest.mark.parametrize("text", ["f = njit(g)\n", "@intrinsic\ndef f(): ...\n", "f = intrinsic(g)\n"])
    def test_whatever_is_compiled_counts(self, package, text):
        before = store_of(package)
        (package / "part" / "table.py").write_text(text)
        assert store_of(package) != before

    def test_every_file_that_hands_something_to_numba_counts(self, tmp_path):
        """But for this one, which hands it on."""
        root = Path(balrogutils.__file__).parent
        using = [
            path
            for path in root.rglob("*.py")
            if re.search(r"^from numba|compiled import .*njit", path.read_text(), re.M)
        ]
        assert root / "fitting" / "lanes.py" in using
        (tmp_path / "kernel.py").touch()
        for path in using:
            before = store_of(tmp_path)
            (tmp_path / "kernel.py").write_bytes(path.read_bytes())
            assert store_of(tmp_path) != before, path

    def test_what_is_no_kernel_does_not_count(self, package):
        before = store_of(package)
        (package / "part" / "table.py").write_text("ROWS = 4\n")
        assert store_of(package) == before

    def test_the_package_uses_it(self):
        script = "import balrogutils.fitting.gaussians as g, sys; sys.stdout.write(g.dot._cache.cache_path)"
        environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert Path(done.stdout).parent == store_of(Path(balrogutils.__file__).parent)
