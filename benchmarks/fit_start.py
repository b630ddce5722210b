"""One PSF fit and one galaxy fit: what a process does before all others, `python benchmarks/fit_start.py`."""

import numpy as np

from balrogutils.fitting.galaxy import fit_galaxy
from balrogutils.fitting.models import model
from balrogutils.fitting.observation import LocalWCS, Observation, PSFStamp, stack
from balrogutils.fitting.psffit import PSFOptions, fit_psf
from balrogutils.fitting.solver import LMOptions

SCALE, SIDE = 0.263, 41


def main() -> None:
    """Fit a Gaussian."""
    row, col = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    core = np.exp(-0.5 * (row**2 + col**2) / 4.0)
    galaxy = np.exp(-0.5 * (row**2 + col**2) / 9.0) + np.random.default_rng(0).normal(0.0, 1e-2, core.shape)
    wcs = LocalWCS(SIDE // 2, SIDE // 2, SCALE, 0.0, 0.0, SCALE)
    psf = PSFStamp(core, SIDE // 2, SIDE // 2)
    data = stack([[Observation(galaxy, np.full(core.shape, 1e4), wcs, psf)]])
    mixture = fit_psf(psf, wcs, PSFOptions()).mixture
    start = np.array([0.0, 0.0, 0.0, 0.0, 0.5, 50.0])
    fit = fit_galaxy(data, mixture[None], model("exp"), None, [start], LMOptions())
    assert fit.flags == 0


if __name__ == "__main__":
    main()
