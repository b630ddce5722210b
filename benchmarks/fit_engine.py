"""Time PSF and model fits: `python benchmarks/fit_engine.py [OBJECTS] [--json]`.

CPU ms per object in one process, on the scene of the targets: 48 x 48 stamps, 4 bands of 6 epochs, Moffat PSFs on
41 x 41 stamps. Where ngmix is importable it fits the same stamps in the same run and the ratios are shown.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import galsim
import numpy as np

from balrogutils.fitting.composite import fit_composite
from balrogutils.fitting.galaxy import fit_galaxy
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.models import model
from balrogutils.fitting.observation import LocalWCS, Observation, PSFStamp, stack
from balrogutils.fitting.pixelpsf import PSFResiduals, fit_pixelised
from balrogutils.fitting.priors import FRACDEV_Y3, CenPrior, Flat, GPriorBA, Normal
from balrogutils.fitting.psffit import PSFOptions, fit_psf, psf_family
from balrogutils.fitting.solver import LMOptions

_log = logging.getLogger("benchmark")

NBAND, NEPOCH, SIZE, PSF_SIZE, SCALE = 4, 6, 48, 41, 0.263
TARGETS = {"coellip3": 9.0, "em3": 90.0, "exp": 8.0, "dev": 12.0, "bdf": 25.0}
MODELS = ("exp", "dev", "bdf", "bd")
OPTIONS = LMOptions(2000, 5e-5, 5e-5)


class Simulated(NamedTuple):
    """One galaxy: observations by band, and its flux in each."""

    bands: list[list[Observation]]
    flux: np.ndarray


def simulate(seed: int, *, kind: str = "exp", s2n: float | None = None) -> Simulated:
    """Draw one object with GalSim; S/N of some 100 in all, or as asked."""
    rng = np.random.default_rng([77, seed])
    g = rng.uniform(-0.3, 0.3, 2)
    radius = rng.uniform(0.25, 0.9)
    shapes = {"exp": galsim.Exponential, "dev": galsim.DeVaucouleurs}
    if kind == "bdf":
        # Half-light radii of bulge and disk of the same T.
        round_ = 0.5 * galsim.DeVaucouleurs(0.575 * radius) + 0.5 * galsim.Exponential(radius)
    else:
        round_ = shapes[kind](half_light_radius=radius)
    flux = 1000.0 * rng.uniform(0.5, 2.0, NBAND)
    bands = []
    for band in range(NBAND):
        epochs = []
        for _ in range(NEPOCH):
            psf = galsim.Moffat(beta=rng.uniform(2.8, 3.8), fwhm=rng.uniform(0.8, 1.1)).shear(
                g1=rng.normal(0, 0.015), g2=rng.normal(0, 0.015)
            )
            matrix = SCALE * (np.eye(2) + rng.normal(0, 0.005, (2, 2)))
            middle = (SIZE - 1) / 2
            wcs = LocalWCS(middle + rng.uniform(-0.5, 0.5), middle + rng.uniform(-0.5, 0.5), *matrix.ravel())
            sky = galsim.JacobianWCS(dudx=wcs.dudcol, dudy=wcs.dudrow, dvdx=wcs.dvdcol, dvdy=wcs.dvdrow)
            offset = (wcs.col0 - middle, wcs.row0 - middle)
            galaxy = galsim.Convolve(round_.shear(g1=g[0], g2=g[1]), psf).withFlux(flux[band])
            image = galaxy.drawImage(nx=SIZE, ny=SIZE, wcs=sky, offset=offset, dtype=float).array
            stamp = psf.drawImage(nx=PSF_SIZE, ny=PSF_SIZE, wcs=sky, dtype=float).array
            epochs.append((image, wcs, PSFStamp(stamp, (PSF_SIZE - 1) / 2, (PSF_SIZE - 1) / 2)))
        bands.append(epochs)
    power = sum(float((image**2).sum()) for epochs in bands for image, _, _ in epochs)
    sigma = np.sqrt(power) / (s2n or 100.0)
    weight = np.full((SIZE, SIZE), sigma**-2)
    return Simulated(
        [
            [Observation(image + rng.normal(0, sigma, image.shape), weight, wcs, psf) for image, wcs, psf in epochs]
            for epochs in bands
        ],
        flux,
    )


def prior_of(name: str) -> JointPrior:
    """Return the priors of the DES Y6 fits."""
    extra = {"bdf": [Normal(0.5, 0.1, 0.0, 1.0)], "bd": [Normal(0.0, 1.0), Normal(0.5, 0.1, 0.0, 1.0)]}
    return JointPrior(
        CenPrior(0.263), GPriorBA(0.2), Flat(-0.1, 1e5), [Flat(-1000.0, 1e9)] * NBAND, extra.get(name, [])
    )


def mixtures_of(one: Simulated, name: str = "coellip3") -> np.ndarray:
    """Return the PSF mixtures of all stamps."""
    options = PSFOptions(*psf_family(name))
    return np.array([fit_psf(seen.psf, seen.wcs, options).mixture for epochs in one.bands for seen in epochs])


def start_of(one: Simulated, mixtures: np.ndarray, name: str) -> np.ndarray:
    """Return a first guess: the size of the PSF, and a rough flux."""
    table = mixtures[0]
    size = float(table[:, 0] @ (table[:, 3] + table[:, 5]) / table[:, 0].sum())
    extra = [extra.start for extra in model(name).extras]
    return np.array([0.0, 0.0, 0.0, 0.0, size, *extra, *(0.7 * one.flux)])


def _time(what: Callable[[Any], Any], items: list[Any]) -> float:
    """Return CPU ms per item; the first item is run once before, for the compilers."""
    what(items[0])
    started = time.process_time()
    for item in items:
        what(item)
    return 1e3 * (time.process_time() - started) / len(items)


def _ours(objects: list[Simulated]) -> dict[str, float]:
    found = {name: _time(lambda one, name=name: mixtures_of(one, name), objects) for name in ("coellip3", "em3")}
    pairs = [(one, mixtures_of(one)) for one in objects]

    def fit(pair: tuple[Simulated, np.ndarray], name: str) -> None:
        one, mixtures = pair
        start = start_of(one, mixtures, name)
        fit_galaxy(stack(one.bands), mixtures, model(name), prior_of(name), [start], OPTIONS)

    for name in MODELS:
        found[name] = _time(lambda pair, name=name: fit(pair, name), pairs)

    def composite(pair: tuple[Simulated, np.ndarray]) -> None:
        one, mixtures = pair
        fit_composite(
            stack(one.bands), mixtures, prior_of("exp"), [start_of(one, mixtures, "exp")], OPTIONS, FRACDEV_Y3
        )

    def pixelised(pair: tuple[Simulated, np.ndarray]) -> None:
        one, mixtures = pair
        stamps = [seen.psf for epochs in one.bands for seen in epochs]
        start = start_of(one, mixtures, "exp")
        data = stack(one.bands)
        residuals = PSFResiduals(data, stamps, mixtures)
        fit_pixelised(data, residuals, mixtures, model("exp"), prior_of("exp"), [start], OPTIONS)

    found["cm"] = _time(composite, pairs)
    found["exp, pixelised PSF"] = _time(pixelised, pairs)
    return found


def ngmix_observations(one: Simulated, *, mixtures: np.ndarray | None = None) -> Any:
    """Return the object as ngmix takes it; with the PSF mixtures given, or none yet."""
    import ngmix

    bands, at = ngmix.MultiBandObsList(), 0
    for epochs in one.bands:
        listed = ngmix.ObsList()
        for seen in epochs:
            wcs, psf = seen.wcs, seen.psf
            slopes = {name: getattr(wcs, name) for name in ("dvdrow", "dvdcol", "dudrow", "dudcol")}
            inner = ngmix.Observation(
                psf.image,
                weight=np.full(psf.image.shape, (1000.0 / psf.image.max()) ** 2),
                jacobian=ngmix.Jacobian(row=psf.row, col=psf.col, **slopes),
            )
            if mixtures is not None:
                rows = mixtures[at][:, [0, 1, 2, 3, 4, 5]].copy()
                inner.set_gmix(ngmix.GMix(pars=rows.ravel()))
            outer = ngmix.Jacobian(row=wcs.row0, col=wcs.col0, **slopes)
            listed.append(ngmix.Observation(seen.image.copy(), weight=seen.weight.copy(), jacobian=outer, psf=inner))
            at += 1
        bands.append(listed)
    return bands


def ngmix_prior(name: str, rng: np.random.RandomState) -> Any:
    """Return the priors of `prior_of` in ngmix."""
    import ngmix

    flux = [ngmix.priors.FlatPrior(-1000.0, 1e9, rng=rng)] * NBAND
    parts = {
        "cen_prior": ngmix.priors.CenPrior(0.0, 0.0, 0.263, 0.263, rng=rng),
        "g_prior": ngmix.priors.GPriorBA(0.2, rng=rng),
        "T_prior": ngmix.priors.FlatPrior(-0.1, 1e5, rng=rng),
        "F_prior": flux,
    }
    if name in ("bdf", "bd"):
        parts["fracdev_prior"] = ngmix.priors.Normal(0.5, 0.1, rng=rng, bounds=[0.0, 1.0])
    if name == "bd":
        parts["logTratio_prior"] = ngmix.priors.Normal(0.0, 1.0, rng=rng)
    maker = {"bdf": ngmix.joint_prior.PriorBDFSep, "bd": ngmix.joint_prior.PriorBDSep}
    return maker.get(name, ngmix.joint_prior.PriorSimpleSep)(**parts)


def ngmix_fit(one: Simulated, mixtures: np.ndarray, name: str, rng: np.random.RandomState, tol: float = 5e-5) -> Any:
    """Fit with ngmix, as its own Runner does, from the same start."""
    import ngmix

    pars = {"maxfev": 2000, "ftol": tol, "xtol": tol}
    fitter = ngmix.fitting.Fitter(model=name, prior=ngmix_prior(name, rng), fit_pars=pars)
    return fitter.go(obs=ngmix_observations(one, mixtures=mixtures), guess=start_of(one, mixtures, name))


def _theirs(objects: list[Simulated]) -> dict[str, float]:
    import ngmix

    rng = np.random.RandomState(5)
    found = {}

    def psf_fits(one: Simulated, fitter: Any, guesser: Any) -> None:
        runner = ngmix.runners.PSFRunner(fitter=fitter, guesser=guesser, ntry=4)
        runner.go(obs=ngmix_observations(one))

    coellip = ngmix.fitting.CoellipFitter(ngauss=3, fit_pars={"maxfev": 2000, "ftol": 1e-5, "xtol": 1e-5})
    em = ngmix.em.EMFitter(maxiter=2000)
    for name, fitter, guesser in (
        ("coellip3", coellip, ngmix.guessers.CoellipPSFGuesser(rng=rng, ngauss=3)),
        ("em3", em, ngmix.guessers.GMixPSFGuesser(rng=rng, ngauss=3)),
    ):
        found[name] = _time(lambda one, f=fitter, g=guesser: psf_fits(one, f, g), objects)
    pairs = [(one, mixtures_of(one)) for one in objects]
    for name in MODELS:
        found[name] = _time(lambda pair, name=name: ngmix_fit(*pair, name, rng), pairs)
    return found


def main(words: list[str]) -> None:
    """Print the table, or with ``--json`` the numbers: {"ours": ..., "ngmix": ...}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", type=int, nargs="?", default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    objects = [simulate(seed) for seed in range(options.objects)]
    ours = _ours(objects)
    theirs = _theirs(objects) if importlib.util.find_spec("ngmix") else {}
    if options.json:
        sys.stdout.write(json.dumps({"ours": ours, "ngmix": theirs}) + "\n")
        return
    _log.info("%-20s %10s %10s %10s %8s", "CPU ms per object", "balrog", "target", "ngmix", "ratio")
    for name, value in ours.items():
        peer = theirs.get(name)
        _log.info(
            "%-20s %10.1f %10s %10s %8s",
            name,
            value,
            f"{TARGETS[name]:.0f}" if name in TARGETS else "",
            f"{peer:.1f}" if peer else "",
            f"{peer / value:.1f}" if peer else "",
        )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(sys.argv[1:])
