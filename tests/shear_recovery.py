"""Simulations of shear recovery: galaxies sheared both ways and turned by 90 degrees, measured by metacal."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import galsim
import numpy as np
from metacal_stamps import FINE, drawn
from simulated_stamps import galsim_wcs

from balrogutils.analysis.response import Bias, mean_response, pair_bias
from balrogutils.fitting.galaxy import fit_galaxy
from balrogutils.fitting.models import model
from balrogutils.fitting.observation import LocalWCS, Observation, stack
from balrogutils.fitting.psffit import PSFOptions, fit_psf
from balrogutils.fitting.rendering import model_pixels
from balrogutils.fitting.scene import Scene, single_links
from balrogutils.fitting.solver import LMOptions
from balrogutils.metacal.holes import FillRules, fill_holes, symmetric
from balrogutils.metacal.images import MetacalOptions
from balrogutils.metacal.measure import MeasureOptions, measure

SHEAR = 0.02
KNOWN = 3.4e-4
"""What a perfect estimator has at this shear (M 6.4)."""
SIDE, PSF_SIDE, SCALE = 48, 41, 0.263
_Seen = tuple[Any, LocalWCS, tuple[float, float]]
COLUMNS = {"gauss": ("mcal_g", "mcal_R"), "wmom": ("mcal_wmom_e", "mcal_wmom_R")}


def report(text: str) -> None:
    """Say a figure, for `make science`."""
    sys.stdout.write(f"{text}\n")


def _epochs(random: np.random.Generator, count: int, off_centre: bool) -> list[_Seen]:
    """PSF, WCS and where the PSF's stamp has it; off the middle as in real MEDS files, and not told."""
    out = []
    for _ in range(count):
        psf = galsim.Moffat(random.uniform(2.5, 3.5), fwhm=random.uniform(0.8, 1.0), gsparams=FINE)
        psf = psf.shear(g1=0.02 + random.normal(0, 0.01), g2=-0.01 + random.normal(0, 0.01))
        jacobian = SCALE * (np.eye(2) + random.normal(0, 0.01, (2, 2)))
        center = (SIDE - 1) / 2 + random.uniform(-0.5, 0.5, 2)
        off = random.uniform(-0.5, 0.5, 2) if off_centre else np.zeros(2)
        out.append((psf, LocalWCS(*center, *jacobian.ravel()), (float(off[0]), float(off[1]))))
    return out


def _holes(random: np.random.Generator) -> np.ndarray:
    """Bad pixels of one stamp: a bad column, a star's trail or a cosmic ray, anywhere, or two of them.

    Made symmetric it is not more than the tenth of a stamp beyond which epochs are dropped.
    """
    row, col = np.indices((SIDE, SIDE))
    while True:
        bad = np.zeros((SIDE, SIDE), bool)
        for kind in random.choice(["column", "trail", "cosmic ray"], random.integers(1, 3)):
            y, x = random.uniform(0, SIDE, 2)
            if kind == "column":
                bad |= col == int(x)
            elif kind == "trail":
                bad |= (np.abs(col - x) < 1.0) & (np.abs(row - y) < random.uniform(5, 12))
            else:
                angle = random.uniform(0, math.pi)
                along = (col - x) * math.cos(angle) + (row - y) * math.sin(angle)
                across = (col - x) * math.sin(angle) - (row - y) * math.cos(angle)
                bad |= (np.abs(along) < random.uniform(3, 8)) & (np.abs(across) < 0.7)
        if bad.any() and symmetric(bad).mean() <= 0.1:
            return bad


def _mended(
    epochs: Sequence[Observation], bad: Sequence[np.ndarray], noise: np.random.Generator, *, with_model: bool
) -> list[Observation]:
    """Return the stamps as block 256 has them: what is bad filled with a fit to the rest, and noise."""
    spoiled = [
        replace(one, image=np.where(hole, 1e6, one.image), weight=np.where(hole, 0.0, one.weight))
        for one, hole in zip(epochs, bad, strict=True)
    ]
    models = _fitted(spoiled) if with_model else [None] * len(spoiled)
    return [
        fill_holes(one, noise, model=own, rules=FillRules()).observation
        for one, own in zip(spoiled, models, strict=True)
    ]


def _fitted(epochs: Sequence[Observation]) -> Sequence[np.ndarray | None]:
    """Return images of an exponential fit to all epochs; none where the fit failed, as in a catalogue."""
    psfs = np.array([fit_psf(one.psf, one.wcs, PSFOptions("coellip", 3)).mixture for one in epochs])
    data = stack([epochs])
    fit = fit_galaxy(data, psfs, model("exp"), None, [np.array([0.0, 0.0, 0.0, 0.0, 0.5, 1000.0])], LMOptions())
    if fit.flags:
        return [None] * len(epochs)
    drawn = model_pixels(Scene(data, [model("exp")], single_links(data, psfs), [None]), fit.pars)
    return drawn.reshape(len(epochs), SIDE, SIDE)


def quartet(
    number: int,
    *,
    s2n: float | None,
    off_centre: bool,
    epochs: int = 1,
    spread: float = 0.15,
    psf_target: str = "gauss",
    holes: str | None = None,
) -> list[Any]:
    """Return the rows of one galaxy sheared by + and -, and of its 90 degrees turned twin.

    The four share PSFs, positions and holes, and each pair its noise. Without noise the weight is that of S/N 10^5.
    Holes are filled with a ``model`` and noise, or with ``noise`` alone.
    """
    random = np.random.default_rng([6, number])
    seen = _epochs(random, epochs, off_centre)
    bad = [_holes(np.random.default_rng([8, number, k])) for k in range(epochs)]
    place = random.uniform(-0.05, 0.05, 2) if off_centre else np.zeros(2)
    radius = random.uniform(0.35, 0.7)
    g = random.normal(0, spread, 2)
    g *= min(1.0, 0.6 / np.hypot(*g))
    rows, stamps = (
        [],
        [
            psf.drawImage(nx=PSF_SIDE, ny=PSF_SIDE, wcs=galsim_wcs(wcs), offset=off[::-1], dtype=float).array
            for psf, wcs, off in seen
        ],
    )
    for turn in (1.0, -1.0):
        for sign in (1.0, -1.0):
            galaxy = galsim.Exponential(half_light_radius=radius, flux=1000.0, gsparams=FINE)
            galaxy = galaxy.shear(g1=turn * g[0], g2=turn * g[1]).shear(g1=sign * SHEAR).shift(*place)
            # Of the pair, not of the sign: noise is the same in both.
            noise = np.random.default_rng([7, number, int(turn) + 1])
            observed = []
            for (psf, wcs, off), stamp in zip(seen, stamps, strict=True):
                clean = drawn(galaxy, psf, wcs, SIDE, PSF_SIDE, psf_off=off, psf_said=False, stamp=stamp)
                sigma = np.sqrt((clean.image**2).sum() * epochs) / (s2n or 1e5)
                image = clean.image + (noise.normal(0, sigma, clean.image.shape) if s2n else 0.0)
                observed.append(Observation(image, np.full(image.shape, sigma**-2), wcs, clean.psf))
            if holes:
                observed = _mended(observed, bad, noise, with_model=holes == "model")
            options = MeasureOptions(images=MetacalOptions(psf_target, fixnoise=s2n is not None), estimators=("wmom",))
            rows.append(measure([observed], options, noise)[0])
    return rows


def simulate(count: int, **how: Any) -> np.ndarray:
    """Return rows [count, turned, sign]."""
    rows = [quartet(number, **how) for number in range(count)]
    return np.array(rows).reshape(count, 2, 2)


def biases(rows: np.ndarray, estimator: str) -> tuple[Bias, float]:
    """Return m and c of the first component, and c of the second, of quartets without a flag."""
    shape, response = COLUMNS[estimator]
    good = rows[(rows["mcal_flags"] == 0).all(axis=(1, 2))]
    e, r = good[shape].sum(axis=1), good[response].sum(axis=1)
    found = pair_bias(e[:, 0, 0], e[:, 1, 0], SHEAR, r[:, :, 0, 0])
    return found, float(e[:, :, 1].sum() / r[:, :, 1, 1].sum())


def selected_bias(rows: np.ndarray, estimator: str, cut: float, *, corrected: bool) -> tuple[float, float]:
    """Return m and its error of the galaxies whose T / T_PSF is above a cut, by jackknife over 40 groups."""
    whole = _selected(rows, estimator, cut, corrected)
    groups = np.arange(len(rows)) % 40
    left = np.array([_selected(rows[groups != k], estimator, cut, corrected) for k in range(40)])
    return whole, float(np.sqrt(39.0 / 40.0 * ((left - left.mean()) ** 2).sum()))


def _selected(rows: np.ndarray, estimator: str, cut: float, corrected: bool) -> float:
    shape = COLUMNS[estimator][0]
    good = rows[(rows["mcal_flags"] == 0).all(axis=(1, 2))]
    difference, response = 0.0, 0.0
    for sign in (0, 1):
        table = good[:, :, sign].ravel()
        ends = {"noshear": "", **{name: f"_{name}" for name in ("1p", "1m", "2p", "2m")}}
        shapes = {name: table[f"{shape}{end}"] for name, end in ends.items()}
        found = mean_response(
            shapes, lambda name, table=table, ends=ends: table[f"mcal_T{ends[name]}"] > cut * table["mcal_Tpsf"]
        )
        difference += (1 - 2 * sign) * found.e[0]
        response += found.total[0, 0] if corrected else found.R[0, 0]
    return difference / response / SHEAR - 1.0
