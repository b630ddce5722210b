"""Time metacal: `python benchmarks/metacal.py [OBJECTS]`.

CPU ms per object in one process: 18 epochs of 48 x 48 pixels in 3 bands, PSFs on 41 x 41, types noshear, 1p, 1m, 2p,
2m, fixnoise, gauss target, Gaussian fits of all types. Where ngmix is importable it does the same in the same run.
"""

from __future__ import annotations

import os

# One thread for every numerical library, as in the command line, and before any of them is loaded.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import importlib.util  # noqa: E402
import logging  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from fit_engine import Simulated, ngmix_observations, simulate  # noqa: E402

from balrogutils.fitting.jointprior import JointPrior  # noqa: E402
from balrogutils.fitting.priors import CenPrior, GPriorBA, TwoSidedErf  # noqa: E402
from balrogutils.metacal.images import MetacalOptions, metacal_images  # noqa: E402
from balrogutils.metacal.measure import MeasureOptions, measure  # noqa: E402
from balrogutils.metacal.shears import TYPES  # noqa: E402

_log = logging.getLogger("benchmark")

NBAND = 3
SIZE_PRIOR, FLUX_PRIOR = (-10.0, 0.03, 1e6, 1e5), (-1e4, 1.0, 1e9, 0.25e8)


def _ours(objects: list[Simulated], what: str) -> Callable[[int], None]:
    prior = JointPrior(CenPrior(0.27), GPriorBA(0.3), TwoSidedErf(*SIZE_PRIOR), [TwoSidedErf(*FLUX_PRIOR)] * NBAND)
    fits = {name: MeasureOptions(prior=prior, estimators=(name,)) for name in ("wmom", "admom", "ksigma", "pgauss")}
    fits["fits"] = MeasureOptions(prior=prior)

    def run(number: int) -> None:
        bands, random = objects[number].bands[:NBAND], np.random.default_rng(number)
        if what == "images":
            metacal_images(bands, MetacalOptions(), random)
        else:
            measure(bands, fits[what], random)

    return run


def _theirs(objects: list[Simulated], what: str) -> Callable[[int], None]:
    import ngmix

    rng = np.random.RandomState(5)
    prior = ngmix.joint_prior.PriorSimpleSep(
        cen_prior=ngmix.priors.CenPrior(0.0, 0.0, 0.27, 0.27, rng=rng),
        g_prior=ngmix.priors.GPriorBA(0.3, rng=rng),
        T_prior=ngmix.priors.TwoSidedErf(*SIZE_PRIOR, rng=rng),
        F_prior=[ngmix.priors.TwoSidedErf(*FLUX_PRIOR, rng=rng)] * NBAND,
    )
    limits = {"maxfev": 2000, "ftol": 5e-5, "xtol": 5e-5}
    runner = ngmix.runners.Runner(
        fitter=ngmix.fitting.Fitter(model="gauss", prior=prior, fit_pars=limits),
        guesser=ngmix.guessers.TPSFFluxAndPriorGuesser(rng=rng, T=0.5, prior=prior),
        ntry=2,
    )
    psf_runner = ngmix.runners.PSFRunner(
        fitter=ngmix.fitting.Fitter(model="gauss", fit_pars=limits),
        guesser=ngmix.guessers.SimplePSFGuesser(rng=rng),
        ntry=2,
    )

    def run(number: int) -> None:
        observed = ngmix_observations(Simulated(objects[number].bands[:NBAND], objects[number].flux[:NBAND]))
        made = ngmix.metacal.get_all_metacal(observed, psf="gauss", fixnoise=True, types=list(TYPES), rng=rng)
        if what == "images":
            return
        for one in made.values():
            psf_runner.go(obs=one)
            runner.go(obs=one)

    return run


def _time(run: Callable[[int], None], count: int) -> float:
    """Return CPU ms per object; the first is run once before, for the compilers."""
    run(0)
    started = time.process_time()
    for number in range(count):
        run(number)
    return 1e3 * (time.process_time() - started) / count


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    objects = [simulate(seed) for seed in range(count)]
    ours: dict[str, Any] = {what: _time(_ours(objects, what), count) for what in ("images", "fits")}
    theirs: dict[str, Any] = {}
    if importlib.util.find_spec("ngmix"):
        theirs = {what: _time(_theirs(objects, what), min(count, 4)) for what in ours}
    ours |= {what: _time(_ours(objects, what), count) for what in ("wmom", "admom", "ksigma", "pgauss")}
    names = {"images": "images", "fits": "images and Gaussian fits"}
    _log.info("%-28s %10s %10s %8s", "CPU ms per object", "balrog", "ngmix", "ratio")
    for what, value in ours.items():
        peer = theirs.get(what)
        ratio = f"{peer / value:.1f}" if peer else ""
        label = names.get(what, f"... and {what}")
        _log.info("%-28s %10.1f %10s %8s", label, value, f"{peer:.0f}" if peer else "", ratio)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
