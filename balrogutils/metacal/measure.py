"""Shapes of one object on its metacal images: Gaussian fits, and moments as other estimators (M 6.3, 7.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ConfigError, FitError, did_you_mean
from balrogutils.fitting.adaptive import adaptive_moments
from balrogutils.fitting.fit import Fit
from balrogutils.fitting.galaxy import fit_galaxy, round_statistics
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.mixture import e_to_g
from balrogutils.fitting.models import Model, model
from balrogutils.fitting.moments import Moments, gauss_moments, linear_moments
from balrogutils.fitting.observation import Observation, Stack, stack
from balrogutils.fitting.prepsf import KERNELS, prepsf_kernels
from balrogutils.fitting.solver import LMOptions
from balrogutils.metacal.columns import ESTIMATORS, Rows, metacal_rows
from balrogutils.metacal.images import MetacalOptions, Sheared, metacal_images
from balrogutils.metacal.shears import suffix

__all__ = ["MeasureOptions", "measure"]

F64 = NDArray[np.float64]
Shearing = Callable[[Sequence[Sequence[Observation]], MetacalOptions, np.random.Generator], dict[str, Sheared]]
Fitting = Callable[[Stack, F64, Model, JointPrior | None, Sequence[F64], LMOptions], Fit]

_GAUSS = model("gauss")
# Responses are differences of a hundredth of a shear: fits must end closer to the optimum than elsewhere.
_LM = LMOptions(2000, 1e-8, 1e-8)
# The target is compact and the kernel wider: transforms of two stamps hold both.
_PAD = 2.0


@dataclass(frozen=True)
class MeasureOptions:
    """How metacal images are measured.

    Parameters
    ----------
    images : MetacalOptions
        Types and target.
    prior : JointPrior or None
        Prior of the Gaussian fits.
    lm : LMOptions
        Limits of the fits.
    estimators : tuple of str
        Beside the Gaussian fit: ``wmom`` (under a Gaussian), ``admom`` (adaptive), ``ksigma``, ``pgauss`` (before the
        PSF).
    fwhm : mapping of str to float
        Of the weights of ``wmom``, ``ksigma``, ``pgauss``, arcsec.

    Raises
    ------
    ConfigError
        For an estimator of another name, or without a FWHM.
    """

    images: MetacalOptions = field(default_factory=MetacalOptions)
    prior: JointPrior | None = None
    lm: LMOptions = _LM
    estimators: tuple[str, ...] = ()
    fwhm: dict[str, float] = field(default_factory=lambda: {"wmom": 1.2, "ksigma": 2.0, "pgauss": 2.0})

    def __post_init__(self) -> None:
        for name in self.estimators:
            if name not in ESTIMATORS:
                raise ConfigError(
                    f"there is no estimator {name!r}", key="estimators", remedy=did_you_mean(name, ESTIMATORS)
                )
            if name != "admom" and not self.fwhm.get(name, 0.0) > 0.0:
                raise ConfigError(f"{name} has no FWHM", key="fwhm", remedy=f"give one for {name}, in arcsec")


def measure(
    bands: Sequence[Sequence[Observation]],
    options: MeasureOptions,
    random: np.random.Generator,
    shear: Shearing = metacal_images,
    fit_one: Fitting = fit_galaxy,
) -> Rows:
    """Return one row of metacal columns of an object.

    Parameters
    ----------
    bands : sequence of sequences of Observation
        Epochs of each band, with final weights, usable PSFs and without holes (`holes.fill_holes`). A region limits
        Gaussian fits, wmom and admom; images, noise and moments before the PSF go by the weight.
    options : MeasureOptions
        How.
    random : numpy.random.Generator
        Of this object: noise of fixnoise.
    shear, fit_one : callable
        What makes the images and what fits them.

    Returns
    -------
    ndarray, shape (1,)
        As `columns.metacal_rows`; ``mcal_flags`` has the `FitFlag` bits of all Gaussian fits, NO_ATTEMPT where no
        images could be made. Values that are not there are not numbers.

    Notes
    -----
    Fits of the sheared types start at that of the unsheared one. Moments are about the centre of the type's own
    Gaussian fit: about a fixed point, an object that is not there has a part of its shape from where it is, and of
    its response from where the shear moves it.
    """
    row = metacal_rows(len(bands), options.images.types, options.estimators)
    try:
        images = shear(bands, options.images, random)
    except FitError:
        return row
    row["mcal_flags"] = 0
    pars: F64 | None = None
    for name in sorted(images, key=lambda one: one != "noshear"):
        sheared, end = images[name], suffix(name)
        own = _own_pixels(sheared)
        data = stack(own.bands)
        fit = _fit(own, data, pars, options, fit_one)
        row["mcal_flags"] |= fit.flags
        if not fit.flags:
            _store(row[0], own, data, fit, end)
            pars = fit.pars if name == "noshear" else pars
        for estimator in options.estimators:
            center = (0.0, 0.0) if fit.flags else (float(fit.pars[0]), float(fit.pars[1]))
            try:
                found = _moments(estimator, sheared if estimator in KERNELS else own, center, options)
            except FitError:
                continue
            _store_moments(row[0], estimator, found, end)
    _psf_columns(row[0], images)
    _responses(row, options)
    return row


def _own_pixels(sheared: Sheared) -> Sheared:
    """Return the images with weights limited to their regions."""
    bands = [
        [epoch if epoch.region is None else replace(epoch, weight=epoch.region) for epoch in epochs]
        for epochs in sheared.bands
    ]
    return sheared._replace(bands=bands)


def _fit(sheared: Sheared, data: Stack, pars: F64 | None, options: MeasureOptions, fit_one: Fitting) -> Fit:
    # Fluxes are solved for, but a start at 0 has no slope.
    first = np.zeros(5 + len(sheared.bands))
    first[4] = float(np.mean(sheared.mixtures[:, :, 3] + sheared.mixtures[:, :, 5]))
    first[5:] = [max(float(sum(epoch.image.sum() for epoch in epochs)) / len(epochs), 1e-3) for epochs in sheared.bands]
    starts = [first] if pars is None else [pars, first]
    smaller = first.copy()
    smaller[4] *= 0.2
    return fit_one(data, sheared.mixtures, _GAUSS, options.prior, [*starts, smaller], options.lm)


def _store(row: Rows, sheared: Sheared, data: Stack, fit: Fit, end: str) -> None:
    row[f"mcal_pars{end}"], row[f"mcal_pars_cov{end}"] = fit.pars, fit.cov
    row[f"mcal_g{end}"], row[f"mcal_g_cov{end}"] = fit.pars[2:4], fit.cov[2:4, 2:4]
    row[f"mcal_T{end}"], row[f"mcal_T_err{end}"] = fit.pars[4], math.sqrt(fit.cov[4, 4])
    _, e1, e2, size = _target_shapes(sheared)
    shapes = np.column_stack([_weights(sheared), size * np.sqrt(1.0 - e1 * e1 - e2 * e2)])
    rounded = round_statistics(data, sheared.mixtures, _GAUSS, fit.pars, shapes)
    row[f"mcal_T_r{end}"], row[f"mcal_s2n_r{end}"] = rounded.size, rounded.s2n


def _target_shapes(sheared: Sheared) -> tuple[F64, F64, F64, F64]:
    """Return flux, e1, e2 and T of the Gaussian of each target."""
    p, _, _, irr, irc, icc = sheared.mixtures[:, 0].T
    size = irr + icc
    return p, (icc - irr) / size, 2.0 * irc / size, size


def _weights(sheared: Sheared) -> F64:
    return np.array([float(epoch.weight.sum()) for epochs in sheared.bands for epoch in epochs])


def _psf_columns(row: Rows, images: dict[str, Sheared]) -> None:
    if "noshear" not in images:
        return
    sheared = images["noshear"]
    weights = _weights(sheared)
    _, e1, e2, size = _target_shapes(sheared)
    row["mcal_Tpsf"] = weights @ size / weights.sum()
    row["mcal_gpsf"] = [weights @ g / weights.sum() for g in e_to_g(e1, e2)]


def _moments(name: str, sheared: Sheared, center: tuple[float, float], options: MeasureOptions) -> Moments:
    if name == "admom":
        size = float(np.mean(sheared.mixtures[:, :, 3] + sheared.mixtures[:, :, 5]))
        return adaptive_moments(sheared.bands, 2.0 * size)
    fwhm = options.fwhm[name]
    if name == "wmom":
        return gauss_moments(sheared.bands, fwhm, center)
    return linear_moments(sheared.bands, prepsf_kernels(sheared.bands, name, fwhm, center=center, pad=_PAD))


def _store_moments(row: Rows, name: str, found: Moments, end: str) -> None:
    row[f"mcal_{name}_flags{end}"] = found.flags
    row[f"mcal_{name}_flux{end}"], row[f"mcal_{name}_flux_err{end}"] = found.flux, found.flux_err
    row[f"mcal_{name}_s2n{end}"] = found.s2n
    if found.flags == 0:
        row[f"mcal_{name}_e{end}"], row[f"mcal_{name}_e_cov{end}"] = (found.e1, found.e2), found.e_cov
        row[f"mcal_{name}_T{end}"], row[f"mcal_{name}_T_err{end}"] = found.size, found.size_err


def _responses(row: Rows, options: MeasureOptions) -> None:
    """Fill R_ij = d e_i / d shear_j of each estimator."""
    names = [("mcal_R", "mcal_g")] + [(f"mcal_{one}_R", f"mcal_{one}_e") for one in options.estimators]
    for into, shape in names:
        if into not in (row.dtype.names or ()):
            continue
        for j in (1, 2):
            difference = row[f"{shape}_{j}p"] - row[f"{shape}_{j}m"]
            row[into][0, :, j - 1] = difference[0] / (2.0 * options.images.step)
