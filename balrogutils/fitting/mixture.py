"""Gaussian mixtures: profile tables, shape algebra, convolution.

A mixture is an array ``[n, 6]`` of rows ``p, v, u, irr, irc, icc``: flux, centre (v along rows, u along columns,
arcsec) and covariance (arcsec^2; irr in v, icc in u).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.errors import FitError, did_you_mean

__all__ = [
    "COELLIP",
    "PROFILES",
    "Profile",
    "add_shear",
    "convolve",
    "covariance",
    "e_to_g",
    "g_to_e",
    "make_round",
    "moments",
    "profile",
    "render",
]

F64 = NDArray[np.float64]


class Profile(NamedTuple):
    """A radial profile as Gaussians that share centre and ellipticity.

    Component k has flux ``p[k] F`` and size ``f[k] T``; both tables are dimensionless and float64.
    """

    name: str
    p: F64
    f: F64


def _table(name: str, p: list[float], f: list[float]) -> Profile:
    # The published digits leave sums that differ from 1 by a few 1e-16; dividing makes flux and T exact by
    # construction.
    weights = np.array(p) / np.sum(p)
    sizes = np.array(f)
    return Profile(name, weights, sizes / np.sum(weights * sizes))


# Hogg & Lang (2013, PASP 125, 719) mixtures in the normalisation of ngmix: sum p = 1 and sum p f = 1.
PROFILES: dict[str, Profile] = {
    "gauss": _table("gauss", [1.0], [1.0]),
    "turb": _table(
        "turb",
        [0.596510042804182, 0.4034898268889178, 1.303069003078001e-07],
        [0.5793612389470884, 1.621860687127999, 7.019347162356363],
    ),
    "exp": _table(
        "exp",
        [
            0.00061601229677880041,
            0.0079461395724623237,
            0.053280454055540001,
            0.21797364640726541,
            0.45496740582554868,
            0.26521634184240478,
        ],
        [
            0.002467115141477932,
            0.018147435573256168,
            0.07944063151366336,
            0.27137669897479122,
            0.79782256866993773,
            2.1623306025075739,
        ],
    ),
    "dev": _table(
        "dev",
        [
            6.5288960012625658e-05,
            0.00044199216814302695,
            0.0020859587871659754,
            0.0075913681418996841,
            0.02260266219257237,
            0.056532254390212859,
            0.11939049233042602,
            0.20969545753234975,
            0.29254151133139222,
            0.28905301416582552,
        ],
        [
            2.9934935706271918e-07,
            3.4651596338231207e-06,
            2.4807910570562753e-05,
            1.4307404300535354e-04,
            7.2753169298239500e-04,
            3.4582464394427260e-03,
            1.6086645440719100e-02,
            7.7006776775654429e-02,
            4.1012562102501476e-01,
            2.9812509778548648,
        ],
    ),
}

# Moffat-like starts of coelliptical PSF mixtures: flux and size of each component relative to the whole.
COELLIP: dict[int, tuple[F64, F64]] = {
    1: (np.array([1.0]), np.array([1.0])),
    2: (np.array([0.5, 0.5]), np.array([0.48955064, 1.50658978])),
    3: (np.array([0.27559669, 0.55817131, 0.166232]), np.array([0.36123609, 0.8426139, 2.58747785])),
    4: (np.array([0.44534, 0.366951, 0.10506, 0.0826497]), np.array([0.541019, 1.19701, 0.282176, 3.51086])),
    5: (
        np.array([0.57874897, 0.32273483, 0.03327272, 0.0341253, 0.03111819]),
        np.array([0.27831284, 0.9959897, 5.86989779, 5.63590429, 4.17285878]),
    ),
}


def profile(name: str) -> Profile:
    """Return a profile by name.

    Raises
    ------
    FitError
        For a name that is no single-profile model.
    """
    if name not in PROFILES:
        raise FitError(f"unknown model {name!r}", key="model", remedy=did_you_mean(name, PROFILES))
    return PROFILES[name]


def g_to_e(g1: ArrayLike, g2: ArrayLike) -> tuple[F64, F64]:
    """Return the distortion e = 2 g / (1 + g^2) of a reduced shear, |e| = (a^2 - b^2) / (a^2 + b^2)."""
    a, b = np.asarray(g1, float), np.asarray(g2, float)
    factor = 2.0 / (1.0 + a * a + b * b)
    return a * factor, b * factor


def e_to_g(e1: ArrayLike, e2: ArrayLike) -> tuple[F64, F64]:
    """Return the reduced shear g = e / (1 + sqrt(1 - e^2)) of a distortion."""
    a, b = np.asarray(e1, float), np.asarray(e2, float)
    factor = 1.0 / (1.0 + np.sqrt(1.0 - a * a - b * b))
    return a * factor, b * factor


def add_shear(g1: float, g2: float, s1: float, s2: float) -> tuple[float, float]:
    """Return shape g sheared by s: (g + s) / (1 + conj(s) g) as complex numbers."""
    sheared = (complex(g1, g2) + complex(s1, s2)) / (1.0 + complex(s1, -s2) * complex(g1, g2))
    return sheared.real, sheared.imag


def covariance(g1: float, g2: float, size: float) -> tuple[float, float, float]:
    """Return (irr, irc, icc) in arcsec^2 of an ellipse of shape g and size T = irr + icc."""
    e1, e2 = g_to_e(g1, g2)
    return 0.5 * size * (1.0 - float(e1)), 0.5 * size * float(e2), 0.5 * size * (1.0 + float(e1))


def convolve(pars: ArrayLike, shape: Profile, psf: ArrayLike | None = None) -> F64:
    """Return the mixture of a galaxy, convolved with a PSF mixture.

    Parameters
    ----------
    pars : array_like, shape (6,)
        v, u (arcsec), g1, g2, T (arcsec^2, before the PSF), flux.
    shape : Profile
        Radial profile.
    psf : array_like, shape (n, 6), optional
        PSF mixture; its flux and centroid change nothing.

    Returns
    -------
    ndarray of float64, shape (len(shape.p) * n, 6)
        Objects first, PSF components fastest.
    """
    v, u, g1, g2, size, flux = (float(value) for value in np.asarray(pars, float))
    irr, irc, icc = covariance(g1, g2, size)
    out = []
    components = np.array([[1.0, 0, 0, 0, 0, 0]]) if psf is None else np.asarray(psf, float)
    total = components[:, 0].sum()
    mean_v, mean_u = (components[:, 0] @ components[:, 1:3]) / total
    for p, f in zip(shape.p, shape.f, strict=True):
        for q, cv, cu, prr, prc, pcc in components:
            out.append(
                (p * flux * q / total, v + cv - mean_v, u + cu - mean_u, f * irr + prr, f * irc + prc, f * icc + pcc)
            )
    return np.array(out)


def moments(mixture: ArrayLike) -> tuple[float, float, float, float, float, float]:
    """Return (flux, v, u, e1, e2, T) of a whole mixture; T in arcsec^2."""
    table = np.asarray(mixture, float)
    p = table[:, 0]
    flux = p.sum()
    v, u = (p @ table[:, 1]) / flux, (p @ table[:, 2]) / flux
    irr = p @ (table[:, 3] + (table[:, 1] - v) ** 2) / flux
    irc = p @ (table[:, 4] + (table[:, 1] - v) * (table[:, 2] - u)) / flux
    icc = p @ (table[:, 5] + (table[:, 2] - u) ** 2) / flux
    size = irr + icc
    return float(flux), float(v), float(u), float((icc - irr) / size), float(2 * irc / size), float(size)


def make_round(mixture: ArrayLike) -> F64:
    """Return the mixture with each component round, at the same determinant as the whole's shape implies.

    Covariances are scaled by (1 - g^2) / (1 + g^2) with g of the whole mixture.
    """
    table = np.array(mixture, float)
    _, _, _, e1, e2, _ = moments(table)
    factor = np.sqrt(max(1.0 - e1 * e1 - e2 * e2, 0.0))  # = (1 - g^2) / (1 + g^2)
    half = 0.5 * (table[:, 3] + table[:, 5]) * factor
    table[:, 3], table[:, 4], table[:, 5] = half, 0.0, half
    return table


def render(mixture: ArrayLike, v: ArrayLike, u: ArrayLike, area: float = 1.0) -> F64:
    """Return the plain sum of Gaussians times `area` at sky offsets; slow and exact, the reference of the kernels."""
    rows, cols = np.broadcast_arrays(np.asarray(v, float), np.asarray(u, float))
    image = np.zeros(rows.shape)
    for p, cv, cu, irr, irc, icc in np.asarray(mixture, float):
        det = irr * icc - irc * irc
        if det <= 0.0:
            raise FitError("a Gaussian of a mixture has no positive determinant")
        dv, du = rows - cv, cols - cu
        chi2 = (icc * dv * dv + irr * du * du - 2.0 * irc * dv * du) / det
        image += p / (2.0 * np.pi * np.sqrt(det)) * np.exp(-0.5 * chi2)
    return image * area
