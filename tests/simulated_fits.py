"""Objects of known truth with noise of known strength, and their fits: what `test_science_fits` measures.

Two bands of two epochs, each with its own PSF, Jacobian and noise. The noise-free object is drawn once and used at
every S/N; objects, and S/N with noise, have streams of their own, named by what they are for.
"""

from __future__ import annotations

from typing import NamedTuple

import galsim
import numpy as np
from scipy.optimize import brentq
from scipy.special import gammainc, gammaincinv
from simulated_stamps import galsim_wcs, local_wcs, moffat

from balrogutils.fitting.composite import fit_composite
from balrogutils.fitting.galaxy import fit_galaxy, template_flux
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.mixture import PROFILES
from balrogutils.fitting.models import model
from balrogutils.fitting.observation import LocalWCS, Observation, PSFStamp, stack
from balrogutils.fitting.pixelpsf import PSFResiduals, fit_pixelised
from balrogutils.fitting.priors import FRACDEV_Y3, CenPrior, Disk, Flat, GPriorBA, Normal, ShapePrior
from balrogutils.fitting.psffit import PSFOptions, fit_psf, psf_family
from balrogutils.fitting.scene import Scene, single_links
from balrogutils.fitting.solver import LMOptions
from balrogutils.randomness import stream

SEED = 4
NBAND, NEPOCH, PSF_SIZE = 2, 2, 41
RADII = (0.3, 1.0)
"""Half-light radii of galaxies, arcsec."""
# Priors of the DES Y6 fits, from which the true shares of the bulge and shapes are drawn.
FRACDEV, SHAPE, CENTRE = Normal(0.5, 0.1, 0.0, 1.0), GPriorBA(0.2), CenPrior(0.263)
NO_SHAPE = Disk()
"""Prior of one who knows nothing of shapes."""
# T over r50^2 (M 3.4).
EXP_SIZE, DEV_SIZE = 2.09122736, 6.32491128
OPTIONS = LMOptions(2000, 5e-5, 5e-5)
PSF_OPTIONS = PSFOptions(*psf_family("coellip3"))


class Seen(NamedTuple):
    """One noise-free stamp; `noise` is its noise relative to that of the others."""

    image: np.ndarray
    wcs: LocalWCS
    psf: PSFStamp
    noise: float


class Drawn(NamedTuple):
    """A noise-free object.

    pars : v, u, g1, g2, T, the share of the bulge where the model has one, fluxes; a star has v, u and fluxes.
    radius : half-light radius, arcsec, with true wings; 0 of a star.
    """

    kind: str
    number: int
    pars: np.ndarray
    radius: float
    bands: list[list[Seen]]
    mixtures: np.ndarray

    @property
    def power(self) -> np.ndarray:
        """(S/N)^2 of each band where the common noise is 1."""
        return np.array([sum(float((one.image**2).sum()) / one.noise**2 for one in epochs) for epochs in self.bands])


def half_light(share: float) -> float:
    """Return r50 of a bulge and disk of the same T with true profiles, in units of the disk's r50."""
    disk, bulge, ratio = gammaincinv(2.0, 0.5), gammaincinv(8.0, 0.5), np.sqrt(EXP_SIZE / DEV_SIZE)

    def excess(r: float) -> float:
        inside = (1 - share) * gammainc(2.0, disk * r) + share * gammainc(8.0, bulge * (r / ratio) ** 0.25)
        return float(inside) - 0.5

    return float(brentq(excess, 0.1, 2.0))


def _gaussians(kind: str, share: float, size: float) -> galsim.GSObject:
    """Return the mixture of `kind`, round, of second moment `size`, as Gaussians of GalSim."""
    parts = {"dev": (("dev", 1.0),), "bdf": (("exp", 1.0 - share), ("dev", share))}[kind]
    return galsim.Sum(
        [
            galsim.Gaussian(flux=float(amount * p), sigma=float(np.sqrt(0.5 * f * size)))
            for name, amount in parts
            for p, f in zip(PROFILES[name].p, PROFILES[name].f, strict=True)
        ]
    )


def _shape(rng: np.random.Generator) -> tuple[float, float]:
    """Draw g1, g2 from `SHAPE`: p = (1 - g^2)^2 exp(-g^2 / (2 sigma^2)) (M 4.10)."""
    while True:
        g1, g2 = rng.normal(0.0, SHAPE.sigma, 2)
        if rng.uniform() < max(1.0 - g1 * g1 - g2 * g2, 0.0) ** 2:
            return float(g1), float(g2)


def _galaxy(kind: str, wings: bool, rng: np.random.Generator) -> tuple[galsim.GSObject, list[float], float]:
    """Return a galaxy of flux 1 at the origin, its parameters from g1 on, and its half-light radius."""
    radius, share = (
        rng.uniform(*RADII),
        float(np.clip(rng.normal(FRACDEV.mean, FRACDEV.sigma), FRACDEV.low, FRACDEV.high)),
    )
    g1, g2 = _shape(rng)
    disk = radius / half_light(share)
    size = {"exp": EXP_SIZE * radius**2, "dev": DEV_SIZE * radius**2, "bdf": EXP_SIZE * disk**2}[kind]
    if kind == "exp":
        galaxy = galsim.Exponential(half_light_radius=radius)
    elif not wings:
        galaxy = _gaussians(kind, share, size)
    elif kind == "dev":
        galaxy = galsim.DeVaucouleurs(half_light_radius=radius)
    else:
        bulge = galsim.DeVaucouleurs(half_light_radius=disk * float(np.sqrt(EXP_SIZE / DEV_SIZE)), flux=share)
        galaxy = galsim.Exponential(half_light_radius=disk, flux=1.0 - share) + bulge
    gg = g1 * g1 + g2 * g2
    # GalSim shears at constant area, and T is that of the sheared ellipse.
    pars = [g1, g2, size * (1.0 + gg) / (1.0 - gg)]
    return galaxy.shear(g1=g1, g2=g2), [*pars, share] if kind == "bdf" else pars, radius


def draw(kind: str, number: int, *, wings: bool = False, size: int = 48) -> Drawn:
    """Draw a noise-free ``star``, ``exp``, ``dev`` or ``bdf`` through Moffat PSFs with GalSim.

    dev and bdf are the mixtures themselves, drawn as Gaussians, or with `wings` the true profiles.
    """
    rng = stream(SEED, "fit simulations", "wings" if wings else "objects", kind, number)
    galaxy, shape, radius = (None, [], 0.0) if kind == "star" else _galaxy(kind, wings, rng)
    v, u = rng.normal(0.0, 0.05, 2)
    fluxes = 1000.0 * rng.uniform(0.5, 2.0, NBAND)
    middle = (size - 1) / 2
    bands = []
    for flux in fluxes:
        epochs = []
        for _ in range(NEPOCH):
            wcs, psf = local_wcs(rng, size), moffat(rng)
            sky, offset = galsim_wcs(wcs), (wcs.col0 - middle, wcs.row0 - middle)
            scene = (psf if galaxy is None else galsim.Convolve(galaxy, psf)).withFlux(float(flux)).shift(u, v)
            image = scene.drawImage(nx=size, ny=size, wcs=sky, offset=offset, dtype=float).array
            stamp = psf.drawImage(nx=PSF_SIZE, ny=PSF_SIZE, wcs=sky, dtype=float).array
            center = (PSF_SIZE - 1) / 2
            epochs.append(Seen(image, wcs, PSFStamp(stamp, center, center), rng.uniform(0.8, 1.25)))
        bands.append(epochs)
    mixtures = np.array([fit_psf(one.psf, one.wcs, PSF_OPTIONS).mixture for epochs in bands for one in epochs])
    return Drawn(kind, number, np.array([v, u, *shape, *fluxes]), radius, bands, mixtures)


def observed(one: Drawn, low: float, high: float, purpose: str) -> list[list[Observation]]:
    """Return the object with noise such that its S/N, that of its true image over all stamps, is in [low, high]."""
    rng = stream(SEED, "fit simulations", purpose, one.kind, one.number, f"{low:g}-{high:g}")
    sigma = float(np.sqrt(one.power.sum())) / np.exp(rng.uniform(np.log(low), np.log(high)))
    bands = []
    for epochs in one.bands:
        bands.append([])
        for seen in epochs:
            noise = sigma * seen.noise
            image = seen.image + rng.normal(0.0, noise, seen.image.shape)
            bands[-1].append(Observation(image, np.full(image.shape, noise**-2), seen.wcs, seen.psf))
    return bands


def prior_of(name: str, shape: ShapePrior) -> JointPrior:
    """Return the priors of the DES Y6 fits with another one of the shape."""
    extra = [FRACDEV] if name in ("bdf", "bdf_true") else []
    return JointPrior(CENTRE, shape, Flat(-0.1, 1e5), [Flat(-1000.0, 1e9)] * NBAND, extra)


def _starts(name: str, bands: list[list[Observation]], mixtures: np.ndarray) -> list[np.ndarray]:
    """Return first guesses as the catalogues make them: size of the PSF and PSF fluxes; then a larger object."""
    psf = [template_flux(epochs) for epochs in bands]
    flux = [max(one.flux, one.error) for one in psf]
    if name == "point":
        return [np.array([0.0, 0.0, *flux])]
    size = float(np.mean([m[:, 0] @ (m[:, 3] + m[:, 5]) / m[:, 0].sum() for m in mixtures]))
    extra = [one.start for one in model(name).extras]
    return [np.array([0.0, 0.0, 0.0, 0.0, factor * size, *extra, *flux]) for factor in (1.0, 3.0)]


def fitted(
    one: Drawn, bands: list[list[Observation]], name: str, shape: ShapePrior, *, pixelised: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Fit one object; returns parameters and errors, NaN where flagged.

    Parameters
    ----------
    name : str
        A model, or ``cm``.
    shape : ShapePrior
        Prior of g1 and g2.
    pixelised : bool
        Whether the PSFs are the stamps or coellip3 mixtures of them; cm has mixtures.
    """
    data = stack(bands)
    starts = _starts("exp" if name == "cm" else name, bands, one.mixtures)
    prior = prior_of(name, shape)
    if name == "cm":
        fit = fit_composite(data, one.mixtures, prior, starts, OPTIONS, FRACDEV_Y3).fit
    elif pixelised:
        left = PSFResiduals(data, [seen.psf for epochs in one.bands for seen in epochs], one.mixtures)
        fit = fit_pixelised(data, left, one.mixtures, model(name), prior, starts, OPTIONS)
    else:
        fit = fit_galaxy(data, one.mixtures, model(name), prior, starts, OPTIONS)
    return fit.pars, np.sqrt(np.diag(fit.cov))


def second_order_flux(
    one: Drawn, name: str, low: float, high: float, rng: np.random.Generator, draws: int
) -> np.ndarray:
    """Return flux / truth - 1, [NBAND, 2 * draws], of least-squares fits to second order in the noise.

    What any unbiased solver finds, from the model's derivatives at the truth alone: with slopes J, second derivatives
    H, C = (J' J + prior rows)^-1 and noise n, all in units of the noise, the estimate is off by d + e, d = C J' n,
    e = C [sum H d (n - J d) - J' (d' H d) / 2]. Its median and mean are the bias of maximum likelihood (Box 1971, J. R.
    Stat. Soc. B 33, 171). Noise comes in pairs n, -n, so that the first order drops out.
    """
    data = stack(observed(one, low, high, "own model"))
    scene = Scene(data, [model(name)], single_links(data, one.mixtures))
    count, unit = one.pars.size - NBAND, np.ones(NBAND)
    shape, flux = one.pars[:count], one.pars[count:]
    root, band = np.sqrt(data.weight), np.repeat(data.band, data.nrow * data.ncol)

    def slopes(at: np.ndarray) -> np.ndarray:
        pars = np.concatenate([at, unit])
        parts = [scene.images(pars, link)[: 1 + count].reshape(1 + count, -1) for link in range(data.band.size)]
        return np.concatenate(parts, axis=1) * root

    step = np.full(count, 0.005)
    if count > 4:
        step[4] = 0.01 * shape[4]
    here = slopes(shape)
    first, second = np.empty((one.pars.size, root.size)), np.zeros((one.pars.size, one.pars.size, root.size))
    first[:count] = flux[band] * here[1:]
    first[count:] = here[0] * (band == np.arange(NBAND)[:, None])
    for k in range(count):
        move = step[k] * np.eye(count)[k]
        second[k, :count] = flux[band] * (slopes(shape + move) - slopes(shape - move))[1:] / (2.0 * step[k])
        second[k, count:] = second[count:, k] = here[1 + k] * (band == np.arange(NBAND)[:, None])
    normal = first @ first.T
    normal[[0, 1], [0, 1]] += CENTRE.sigma**-2
    if name == "bdf":
        normal[5, 5] += FRACDEV.sigma**-2
    inverse = np.linalg.inv(normal)
    noise = rng.normal(0.0, 1.0, (root.size, draws))
    d = inverse @ (first @ noise)
    mixed = np.einsum("cp,abp->cab", first, second, optimize=True)
    pull = np.einsum("abp,pd,bd->ad", second, noise, d, optimize=True)
    pull -= np.einsum("cab,cd,bd->ad", mixed, d, d, optimize=True)
    e = inverse @ (pull - 0.5 * np.einsum("cab,ad,bd->cd", mixed, d, d, optimize=True))
    return np.concatenate([e + d, e - d], axis=1)[count:] / flux[:, None]
