"""Matched catalogues without images, whose detection function, offsets, errors and response are known."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from balrogutils.analysis.matched import Matched
from balrogutils.metacal.shears import STEP, TYPES, suffix
from balrogutils.randomness import stream

__all__ = ["ASYMPTOTE", "COLOUR_TERM", "MIDDLE", "RESPONSE", "WIDTH", "mock_matched"]

BANDS = ("g", "r", "i", "z")
ASYMPTOTE, MIDDLE, WIDTH = 0.96, 23.4, 0.25
"""The fraction found is ASYMPTOTE / (1 + exp((i - MIDDLE) / WIDTH))."""
COLOUR_TERM = 0.03
"""Measured less true magnitude in g is this times g - r - 0.7."""
RESPONSE = 0.7
"""Of metacal shapes; the same for both components."""


def mock_matched(
    number: int, seed: int = 1, *, shear: tuple[float, float] | None = None, star_part: float = 0.4
) -> Matched:
    """Return a matched catalogue of injections that were never drawn.

    Parameters
    ----------
    number : int
        Injections; none is allowed.
    seed : int
        Of the random streams. Two catalogues with the same seed and opposite shears are a shear pair.
    shear : pair of float, optional
        True shear of all objects; also gives the columns of metacal.
    star_part : float
        Part of stars.

    Returns
    -------
    Matched
        Detection follows `ASYMPTOTE`, `MIDDLE` and `WIDTH`; errors are Gaussian and right; fluxes in g have a colour
        term.
    """
    rng = stream(seed, "mock", "objects")
    columns: dict[str, Any] = {}
    star = rng.random(number) < star_part
    mags = {"i": 25.0 - rng.exponential(2.2, number).clip(0.0, 8.0)}
    mags["r"] = mags["i"] + rng.normal(0.4, 0.15, number)
    mags["g"] = mags["r"] + rng.normal(0.7, 0.3, number)
    mags["z"] = mags["i"] - rng.normal(0.25, 0.1, number)
    columns["true_bal_id"] = np.arange(1, number + 1)
    columns["true_noise_key"] = columns["true_bal_id"]
    columns["true_inj_type"] = np.where(star, "desStar", "ngmixGalaxy")
    columns["true_cat_row"] = rng.integers(0, max(number // 3, 1), number)
    columns["true_ra"], columns["true_dec"] = rng.uniform(39.5, 40.2, number), rng.uniform(1.9, 2.6, number)
    for band in BANDS:
        columns[f"true_mag_{band}"] = mags[band]
        columns[f"true_flux_{band}"] = 10 ** (0.4 * (30.0 - mags[band]))
    intrinsic = np.clip(rng.normal(0.0, 0.2, (number, 2)), -0.6, 0.6)
    columns["true_g1"], columns["true_g2"] = intrinsic.T
    columns["true_t"] = np.where(star, np.nan, rng.lognormal(np.log(0.4), 0.5, number))
    columns["true_r50_arcsec"] = np.where(star, np.nan, 0.7 * np.sqrt(columns["true_t"]))
    columns["true_outcome"] = np.where(rng.random(number) < 0.02, 8, 0)
    columns["base_distance"] = rng.rayleigh(6.0, number)
    columns["ambiguous"] = columns["base_distance"] <= 0.5
    found = rng.random(number) < ASYMPTOTE * expit(-(mags["i"] - MIDDLE) / WIDTH)
    columns["match_reason"] = np.where(found, 0, 1)
    if shear is not None:
        columns["true_shear_g1"], columns["true_shear_g2"] = np.full(number, shear[0]), np.full(number, shear[1])
    measured = _measured(columns, star, stream(seed, "mock", "noise"))
    if shear is not None:
        measured |= _metacal(intrinsic, np.array(shear), measured["meas_cm_flux"][:, 2] / 60.0, seed)
    for name, values in measured.items():
        values = np.asarray(values)
        fill = np.nan if values.dtype.kind == "f" else -9999
        columns[name] = np.where(found.reshape(-1, *[1] * (values.ndim - 1)), values, fill)
    dtype = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    rows = np.zeros(number, dtype=dtype)
    for name, values in columns.items():
        rows[name] = values
    return Matched(rows, BANDS)


def _measured(columns: dict[str, Any], star: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    number = star.size
    flux = np.column_stack([columns[f"true_flux_{band}"] for band in BANDS])
    sigma = np.sqrt(60.0**2 + 0.5 * flux)
    signal = flux[:, 2] / sigma[:, 2]
    term = 10 ** (-0.4 * COLOUR_TERM * (columns["true_mag_g"] - columns["true_mag_r"] - 0.7))
    measured = rng.normal(flux, sigma)
    measured[:, 0] += flux[:, 0] * (term - 1.0)
    t_err = (0.05 + np.nan_to_num(columns["true_t"])) * 2.0 / signal
    size = rng.normal(np.nan_to_num(columns["true_t"]), t_err)
    g_err = np.minimum(2.0 / signal, 0.5)
    place_err = 0.6 / signal
    pars, pars_var = np.zeros((number, 5 + len(BANDS))), np.zeros((number, 5 + len(BANDS)))
    # The detection misses by as much as the fit knows better.
    off = rng.normal(0.0, place_err[:, None], (number, 2))
    pars[:, 0] = rng.normal(-off[:, 1], place_err)
    pars[:, 1] = rng.normal(off[:, 0], place_err)
    pars_var[:, :2] = place_err[:, None] ** 2
    lensed = np.column_stack([columns["true_g1"], columns["true_g2"]])
    if "true_shear_g1" in columns:
        shear = columns["true_shear_g1"] + 1j * columns["true_shear_g2"]
        own = lensed[:, 0] + 1j * lensed[:, 1]
        own = (own + shear) / (1.0 + np.conj(shear) * own)
        lensed = np.column_stack([own.real, own.imag])
    return {
        "meas_flags": np.where(rng.random(number) < 0.01, 2, 0),
        "meas_ra": columns["true_ra"] + off[:, 0] / 3600.0 / np.cos(np.radians(columns["true_dec"])),
        "meas_dec": columns["true_dec"] + off[:, 1] / 3600.0,
        "meas_cm_flux": measured,
        "meas_cm_flux_cov": sigma[:, :, None] ** 2 * np.eye(len(BANDS)),
        "meas_psf_flux": rng.normal(flux, sigma),
        "meas_psf_flux_err": sigma,
        "meas_cm_t": size,
        "meas_cm_t_err": t_err,
        "meas_cm_g": rng.normal(lensed, g_err[:, None]),
        "meas_cm_g_cov": g_err[:, None, None] ** 2 * np.eye(2),
        "meas_cm_pars": pars,
        "meas_cm_pars_cov": pars_var[:, :, None] * np.eye(pars.shape[1]),
        "meas_extended_class_sof": (size + 5 * t_err > 0.1).astype(int) + (size + t_err > 0.05) + (size - t_err > 0.02),
    }


def _metacal(intrinsic: np.ndarray, shear: np.ndarray, signal: np.ndarray, seed: int) -> dict[str, Any]:
    rng = stream(seed, "mock", "metacal")
    number = signal.size
    noise, size = rng.normal(0.0, 0.05, (number, 2)), rng.lognormal(np.log(0.5), 0.4, number)
    response = rng.normal(RESPONSE, 0.1, number)
    steps = {"noshear": (0.0, 0.0), "1p": (STEP, 0.0), "1m": (-STEP, 0.0), "2p": (0.0, STEP), "2m": (0.0, -STEP)}
    out: dict[str, Any] = {"meas_mcal_flags_object": np.zeros(number, int), "meas_mcal_tpsf": np.full(number, 0.45)}
    for name in TYPES:
        end = suffix(name)
        out[f"meas_mcal_g{end}"] = intrinsic + noise + response[:, None] * (shear + steps[name])
        # What lies along the shear looks larger, so a cut on the size selects by it.
        out[f"meas_mcal_t{end}"] = size * (1.0 + intrinsic @ (shear + steps[name]))
        out[f"meas_mcal_s2n_r{end}"] = signal
    return out
