"""BFD moments of analytic profiles (weight of n = 4, sigma 1 arcsec), as integrals over k without PSF or pixels."""

from __future__ import annotations

import numpy as np
from scipy.integrate import quad
from scipy.special import beta, hyp1f1

TOP = 8.0
"""k^2 sigma^2 at which the weight ends."""


def gaussian_moments(flux, variance, sigma=1.0):
    """M_F, M_R, M_C of a round Gaussian: with x = k^2 s^2 / 8, pi (8 / s^2)^(m+1) int x^m (1 - x)^4 exp(-a x)."""
    a, top = 4.0 * variance / sigma**2, TOP / sigma**2
    return [flux * np.pi * top ** (m + 1) * beta(m + 1, 5) * hyp1f1(m + 1, m + 6, -a) for m in (0, 1, 2)]


def star_moment():
    """M_F of a star of flux 1: that of a Gaussian without a size."""
    return gaussian_moments(1.0, 0.0)[0]


def exponential_moments(radius):
    """M_F, M_R, M_C of a round exponential of flux 1 and half-light radius `radius`, arcsec."""
    r0 = radius / 1.6783469900166605

    def integrand(k, m):
        return 2 * np.pi * k ** (1 + m) * (1 - k * k / TOP) ** 4 / (1 + (k * r0) ** 2) ** 1.5

    return [quad(integrand, 0, TOP**0.5, args=(m,))[0] for m in (0, 2, 4)]


def sheared_exponential_moment(radius, g):
    """M_F of an exponential sheared by |g| without change of area: the mean over directions of k."""
    r0 = radius / 1.6783469900166605
    angle = (np.arange(64) + 0.5) * np.pi / 64
    k = (np.arange(400) + 0.5) * TOP**0.5 / 400
    # The transform of a sheared profile is that of the round one at the k that the shear makes of it.
    stretch = ((1 + g) ** 2 * np.cos(angle) ** 2 + (1 - g) ** 2 * np.sin(angle) ** 2) / (1 - g * g)
    kk = k[:, None] ** 2
    values = 2 * np.pi * k[:, None] * (1 - kk / TOP) ** 4 / (1 + kk * r0**2 * stretch) ** 1.5
    return values.mean() * TOP**0.5
