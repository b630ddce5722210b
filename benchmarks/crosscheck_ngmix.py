"""Fit the same stamps with ngmix and with this package: `python benchmarks/crosscheck_ngmix.py [OBJECTS]`.

Same pixels, weights, PSF mixtures, priors, model and start. Both are taken to tight tolerances; the difference of each
parameter is shown in standard errors, and the ratio of the errors. The largest must stay below 0.05. Needs ngmix.
"""

from __future__ import annotations

import logging
import sys

import numpy as np
from fit_engine import MODELS, mixtures_of, ngmix_fit, prior_of, simulate, start_of

from balrogutils.fitting.galaxy import fit_galaxy
from balrogutils.fitting.models import model
from balrogutils.fitting.observation import stack
from balrogutils.fitting.solver import LMOptions

_log = logging.getLogger("crosscheck")
_LIMIT = 0.05
_TIGHT = 1e-9


def main() -> int:
    """Compare; the exit status is 1 where the two differ."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    worst = 0.0
    for name in ("gauss", "turb", *MODELS):
        differences, ratios, likelihoods, failed = [], [], [], 0
        for seed in range(count):
            one = simulate(seed, s2n=[20.0, 60.0, 200.0][seed % 3])
            mixtures = mixtures_of(one)
            # ngmix makes PSF mixtures of flux 1.
            mixtures[:, :, 0] /= mixtures[:, :, 0].sum(axis=1, keepdims=True)
            rng = np.random.RandomState(seed)
            theirs = ngmix_fit(one, mixtures, name, rng, _TIGHT)
            start = start_of(one, mixtures, name)
            ours = fit_galaxy(
                stack(one.bands), mixtures, model(name), prior_of(name), [start], LMOptions(2000, _TIGHT, _TIGHT)
            )
            if theirs["flags"] or ours.flags:
                failed += 1
                _log.info("%s, object %d: flags %d of ngmix, %d of ours", name, seed, theirs["flags"], ours.flags)
                continue
            errors = np.sqrt(np.diag(ours.cov))
            differences.append(np.abs(theirs["pars"] - ours.pars) / errors)
            ratios.append(theirs["pars_err"] / errors)
            likelihoods.append(-2.0 * theirs["lnprob"] - ours.chi2per * ours.dof)
        largest = np.max(differences)
        # Where ngmix stopped at a worse chi^2 than ours the difference says nothing about us.
        fair = np.array(likelihoods) < 2.5e-3
        limit = np.max(np.array(differences)[fair]) if fair.any() else np.nan
        worst = max(worst, limit)
        _log.info(
            "%-6s %3d objects: median %.5f, largest %.4f standard errors (%.4f where chi^2 is the same to 0.0025, %d "
            "objects; chi^2 of ngmix is higher by %.4f to %.4f); errors / ours: 5 %% %.3f, median %.3f, 95 %% %.3f",
            name,
            len(differences),
            float(np.median(differences)),
            largest,
            limit,
            int(fair.sum()),
            float(np.min(likelihoods)),
            float(np.max(likelihoods)),
            *np.percentile(ratios, [5, 50, 95]),
        )
    return int(not worst < _LIMIT)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
