"""Fits of simulated stars and galaxies of known truth: bias, pulls, and what wings do.

Objects and noise are keyed by name (`simulated_fits`): the same numbers everywhere, whatever runs beside them.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from science_tile import robust_width, write_figures
from simulated_fits import NBAND, NO_SHAPE, SEED, SHAPE, draw, fitted, observed, second_order_flux

from balrogutils.randomness import stream

pytestmark = pytest.mark.science

MODELS = {"star": "point", "exp": "exp", "dev": "dev", "bdf": "bdf"}
GALAXIES = ("exp", "dev", "bdf")
BINS = ((10, 20), (20, 50), (50, 100), (100, 200))
"""Of the S/N of the true image over all stamps."""
# The issue demands 2000 a cell. The robust width of 2500 numbers has a standard error of 2.3 per cent, so that 0.93
# is three of them below 1.
OBJECTS = 2500
NOISE_OBJECTS, NOISE_DRAWS = 100, 100
# What the issue demands of medians: half a per cent, or three standard errors where these are larger.
BIAS, SIGMAS = 0.005, 3.0
STAR_BIAS = 0.002
PULL = (0.93, 1.10)
# 27 medians of shapes: three standard errors would be exceeded by luck once in 14 runs, 3.5 once in 80.
SHAPE_SIGMAS = 3.5
# Share of flagged fits above S/N 20. Without a prior the likelihood of a faint galaxy may be largest for a line.
FLAGGED = {"catalogue": 0.001, "flat": 0.005}

WINGS = {"dev": ("dev", "bdf", "cm", "dev_true"), "bdf": ("dev", "bdf", "cm", "bdf_true")}
WING_OBJECTS, WING_SIZE, WING_BIN = 1000, 64, (50, 200)
RADII = ((0.3, 0.5), (0.5, 0.75), (0.75, 1.0))
WING_BIAS = 0.01


class Cell(NamedTuple):
    """Fits of one cell: truth, parameters and errors [n, npar] of those without flags; which of all these are."""

    truth: np.ndarray
    pars: np.ndarray
    errors: np.ndarray
    good: np.ndarray

    @classmethod
    def of(cls, rows):
        truth, pars, errors = (np.array(values) for values in zip(*rows, strict=True))
        good = np.isfinite(pars).all(axis=1) & np.isfinite(errors).all(axis=1)
        return cls(truth[good], pars[good], errors[good], good)

    @property
    def flagged(self):
        return int(np.count_nonzero(~self.good))

    @property
    def pulls(self):
        return (self.pars - self.truth) / self.errors

    def bias(self, band):
        """Return the median of flux / truth - 1 of a band and its standard error."""
        return median(self.pars[:, band - NBAND] / self.truth[:, band - NBAND] - 1.0)

    def width(self, name):
        """Return the robust width of pulls, both bands or components together."""
        columns = {"flux": slice(-NBAND, None), "centre": slice(0, 2), "g": slice(2, 4), "T": slice(4, 5)}[name]
        return robust_width(self.pulls[:, columns])

    def shapes(self):
        """Return medians and errors of the shape's error: along the true shape, g1, g2."""
        truth, wrong = self.truth[:, 2:4], self.pars[:, 2:4] - self.truth[:, 2:4]
        along = (wrong * truth).sum(axis=1) / np.hypot(*truth.T)
        return {"along": median(along), "g1": median(wrong[:, 0]), "g2": median(wrong[:, 1])}


def median(values):
    """Return the median and its standard error."""
    return float(np.median(values)), float(1.2533 * robust_width(values) / np.sqrt(values.size))


def percent(pair):
    return f"{100 * pair[0]:+.2f} +- {100 * pair[1]:.2f}"


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Where tables go: with those of the tile, if these are kept."""
    kept = os.environ.get("BALROG_SCIENCE_DIR")
    directory = (Path(kept).absolute() if kept else tmp_path_factory.mktemp("science")) / "figures"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="module")
def cells(figures):
    """Every cell by (fits, kind, S/N bin).

    "flat": pixelised PSFs and no prior of the shape. "catalogue": coellip3 mixtures and the priors of the DES Y6 fits.
    A star has no shape; its two fits differ by the PSF alone.
    """
    rows = {}
    for kind, name in MODELS.items():
        for number in range(OBJECTS):
            one = draw(kind, number)
            for low, high in BINS:
                bands = observed(one, low, high, "own model")
                for fits, shape, pixelised in (("flat", NO_SHAPE, True), ("catalogue", SHAPE, False)):
                    values = fitted(one, bands, name, shape, pixelised=pixelised)
                    rows.setdefault((fits, kind, (low, high)), []).append((one.pars, *values))
    found = {key: Cell.of(values) for key, values in rows.items()}
    for fits, title in (("flat", "pixelised PSF, no prior of the shape"), ("catalogue", "coellip3, Y6 priors")):
        table = []
        for (of, kind, (low, high)), cell in found.items():
            if of != fits:
                continue
            fluxes = [percent(cell.bias(band)) for band in range(NBAND)]
            names = ("flux", "centre") if kind == "star" else ("flux", "centre", "g", "T")
            widths = [f"{cell.width(name):.3f}" for name in names]
            along = "" if kind == "star" else "{:+.4f} +- {:.4f}".format(*cell.shapes()["along"])
            count = len(cell.pars)
            table.append(
                (kind, f"{low}-{high}", count, cell.flagged, *fluxes, *widths, *[""] * (4 - len(widths)), along)
            )
        header = ("object", "S/N", "N", "flagged", "flux 1 - truth (%)", "flux 2 - truth (%)")
        header += (*(f"pull width {name}" for name in ("flux", "centre", "g", "T")), "g - truth, along it")
        write_figures(figures, f"fits, {title}", header, table)
    return found


CELLS = [("flat", kind, bin_) for kind in MODELS for bin_ in BINS]
BRIGHT = [(fits, kind, bin_) for fits in FLAGGED for kind in MODELS for bin_ in BINS if bin_[0] >= 20]


@pytest.mark.parametrize("key", [key for key in CELLS if key[2][0] >= 20], ids=str)
def test_fluxes_are_unbiased(cells, key):
    """|median (flux - truth) / truth| < 0.5 % or three standard errors, in each band, as demanded."""
    for band in range(NBAND):
        value, error = cells[key].bias(band)
        assert abs(value) < max(BIAS, SIGMAS * error)


@pytest.fixture(scope="module", params=MODELS)
def faint(request):
    """A kind of object, and the median bias of each band below S/N 20 that noise alone makes, to second order."""
    kind, (low, high) = request.param, BINS[0]
    rng = stream(SEED, "fit simulations", "second order", kind)
    parts = [
        second_order_flux(draw(kind, number), MODELS[kind], low, high, rng, NOISE_DRAWS)
        for number in range(NOISE_OBJECTS)
    ]
    return kind, np.median(np.concatenate(parts, axis=1), axis=1)


def test_faint_fluxes_are_unbiased_but_for_noise(cells, faint):
    """The same below S/N 20, less the bias of order 1 / (S/N)^2 that any least-squares fit has."""
    kind, expected = faint
    for band in range(NBAND):
        value, error = cells["flat", kind, BINS[0]].bias(band)
        assert abs(value - expected[band]) < max(BIAS, SIGMAS * error)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("bin_", [one for one in BINS if one[0] >= 50], ids=str)
def test_fluxes_of_catalogues_are_unbiased(cells, kind, bin_):
    """The same with coellip3 and a shape prior above S/N 50; below, the prior makes galaxies rounder, and brighter."""
    for band in range(NBAND):
        value, error = cells["catalogue", kind, bin_].bias(band)
        assert abs(value) < max(BIAS, SIGMAS * error)


@pytest.mark.parametrize("bin_", [one for one in BINS if one[0] >= 50], ids=str)
def test_stars_through_the_pixelised_psf(cells, bin_):
    """|median bias| < 0.2 %, as demanded."""
    for band in range(NBAND):
        assert abs(cells["flat", "star", bin_].bias(band)[0]) < STAR_BIAS


@pytest.mark.parametrize("key", BRIGHT, ids=str)
def test_errors_are_right(cells, key):
    """Robust width of (fit - truth) / error between 0.93 and 1.10, as demanded: fluxes, centre, shape and T."""
    for name in ("flux", "centre") if key[1] == "star" else ("flux", "centre", "g", "T"):
        assert PULL[0] < cells[key].width(name) < PULL[1], name


@pytest.mark.parametrize("key", [key for key in BRIGHT if key[0] == "flat" and key[1] in GALAXIES], ids=str)
def test_shapes_without_a_prior_are_unbiased(cells, key):
    for name, (value, error) in cells[key].shapes().items():
        assert abs(value) < SHAPE_SIGMAS * error, name


@pytest.mark.parametrize("key", BRIGHT, ids=str)
def test_next_to_nothing_is_flagged(cells, key):
    assert cells[key].flagged <= FLAGGED[key[0]] * OBJECTS


class Winged(NamedTuple):
    """Fluxes of galaxies with true wings: the cell, half-light radii [n] and S/N of each band [n, NBAND]."""

    cell: Cell
    radii: np.ndarray
    s2n: np.ndarray

    def bias(self, band, low, high):
        """Return the median of flux / truth - 1 of a band between two radii, and its standard error."""
        inside = (self.radii >= low) & (self.radii < high)
        return median(self.cell.pars[inside, band] / self.cell.truth[inside, band] - 1.0)

    @property
    def least_error(self):
        """Return the smallest error in units of what it is with everything else known, flux / (S/N)."""
        return float((self.cell.errors / self.cell.truth * self.s2n).min())


@pytest.fixture(scope="module")
def wings(figures):
    """Fits of galaxies with true wings, by (kind, model)."""
    found = {}
    for kind, names in WINGS.items():
        rows = {name: [] for name in names}
        radii, s2n = [], []
        for number in range(WING_OBJECTS):
            one = draw(kind, number, wings=True, size=WING_SIZE)
            bands = observed(one, *WING_BIN, "wings")
            radii.append(one.radius)
            s2n.append(np.sqrt(one.power * bands[0][0].weight[0, 0]) * one.bands[0][0].noise)
            for name in names:
                pars, errors = fitted(one, bands, name, SHAPE, pixelised=name.endswith("_true"))
                # Fluxes alone: T of another model is another one.
                rows[name].append((one.pars[-NBAND:], pars[-NBAND:], errors[-NBAND:]))
        for name, values in rows.items():
            cell = Cell.of(values)
            found[kind, name] = Winged(cell, np.array(radii)[cell.good], np.array(s2n)[cell.good])
    table = []
    for (kind, name), one in found.items():
        biases = [percent(one.bias(band, *radius)) for radius in RADII for band in range(NBAND)]
        beyond = np.mean(np.abs(one.cell.pulls) > 5.0)
        numbers = f"{one.cell.width('flux'):.2f}", f"{beyond:.4f}", f"{one.least_error:.2f}"
        table.append((kind, name, len(one.radii), one.cell.flagged, *biases, *numbers))
    header = ("drawn", "fit", "N", "flagged")
    header += tuple(f"flux {1 + band} - truth (%), r50 {low}-{high}" for low, high in RADII for band in range(NBAND))
    header += ("pull width", "pulls beyond 5", "least error x S/N / flux")
    write_figures(figures, "fits of true wings", header, table)
    return found


@pytest.mark.parametrize("radius", RADII, ids=str)
@pytest.mark.parametrize(("kind", "name"), [("dev", "dev_true"), ("bdf", "bdf_true")])
def test_true_wings_lose_no_light(wings, kind, name, radius):
    """|median bias| < 1 % of both bands above S/N 50, as demanded."""
    for band in range(NBAND):
        assert abs(wings[kind, name].bias(band, *radius)[0]) < WING_BIAS


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in WINGS.items() for name in names])
def test_no_error_is_absurdly_small(wings, kind, name):
    """No flux is known better than with everything else known: error / flux >= 1 / (S/N in the band).

    The S/N is that of the truth; a model that cannot follow the wings is off by some per cent of it.
    """
    assert wings[kind, name].cell.flagged == 0
    assert wings[kind, name].least_error > 0.9
