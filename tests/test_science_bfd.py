"""BFD moments of injected stars and galaxies against the moments that their profiles have."""

from typing import NamedTuple

import numpy as np
import pytest
from bfd_truth import sheared_exponential_moment, star_moment
from science_tile import BANDS, EXPONENTIALS, STARS, injected, robust_width

from balrogutils.bfd.moments import EVEN
from balrogutils.measurement.bfd import BfdRun
from balrogutils.measurement.medsource import MedsSource
from balrogutils.settings.bfd import Bfd

pytestmark = pytest.mark.science

SIGNAL_TO_NOISE = 30.0
ENOUGH = 50
# What is asked of the fluxes of fits on the same tile: of stars 0.01 mag, of galaxies 2 %.
BIAS = {"stars": 0.01, "galaxies": 0.02}
PULL = (0.8, 1.2)
# Photons of the objects themselves are not in the weights; below this S/N they matter little.
FAINT = 100.0

KINDS = {"stars": ("bal_config_stars.yaml", STARS), "galaxies": ("bal_config_exp.yaml", EXPONENTIALS)}


class Sample(NamedTuple):
    """Isolated injections: rows of the BFD file, M_F of truth [n, nband], S/N of M_F [n, nband]."""

    rows: np.ndarray
    truth: np.ndarray

    @property
    def flux(self):
        return self.rows["bfd_band_even"][:, :, 0]

    @property
    def error(self):
        return np.sqrt(self.rows["bfd_band_even_cov"][:, :, 0, 0])


def made(science, kind):
    """Measure the isolated injections of the first realization, as block 512 does.

    Nothing is near them, so that the fits of single objects are the models of the run: holes are filled with them.
    """
    configuration, realizations = KINDS[kind]
    science.make(configuration, realizations)
    tree = science.context(realizations[0]).tree
    table = np.sort(injected(science, realizations[:1]), order="meas_number")
    numbers = set(table["meas_number"].tolist())
    run = BfdRun(Bfd(run="science"), {band: tree.meds(band) for band in BANDS}, tree.fit("sof"))
    fitter = run.fitter()
    with MedsSource(run.meds) as source:
        targets = source.targets(0, int(table["meas_number"].max()) - 1)
        rows = np.array([fitter(target)[0][0] for target in targets if target.number in numbers])
    assert np.array_equal(rows["number"], table["meas_number"])
    per_flux = np.full(len(table), star_moment())
    if kind == "galaxies":
        g = np.hypot(table["true_g1"], table["true_g2"])
        per_flux = np.array([sheared_exponential_moment(*one) for one in zip(table["true_r50_arcsec"], g, strict=True)])
    truth = np.column_stack([table[f"true_flux_{band}"] for band in BANDS]) * per_flux[:, None]
    good = rows["flags"] == 0
    assert good.mean() > 0.95
    return Sample(rows[good], truth[good])


@pytest.fixture(scope="module", params=KINDS)
def sample(request, science):
    """The sample of one kind, and its figures by band."""
    one = made(science, request.param)
    figures = {}
    for number, band in enumerate(BANDS):
        flux, error, truth = one.flux[:, number], one.error[:, number], one.truth[:, number]
        bright, faint = flux > SIGNAL_TO_NOISE * error, flux < FAINT * error
        ratio, pull = (flux / truth - 1.0)[bright], ((flux - truth) / error)[faint]
        figures[band] = {
            "n": len(ratio),
            "bias": np.median(ratio),
            "error": 1.2533 * robust_width(ratio) / np.sqrt(len(ratio)),
            "faint": len(pull),
            "pull": np.median(pull),
            "width": robust_width(pull),
            # Of a median absolute deviation of normal values.
            "width_error": 1.16 * robust_width(pull) / np.sqrt(len(pull)),
        }
    header = ("band", "N", "median M_F / truth - 1", "+-", "N of pulls", "median pull", "width of pull", "+-")
    names = {"n": "", "bias": "+.4f", "error": ".4f", "faint": "", "pull": "+.3f", "width": ".3f", "width_error": ".3f"}
    table = [(band, *(f"{one[name]:{how}}" for name, how in names.items())) for band, one in figures.items()]
    science.figures(f"BFD moments of {request.param}", header, table)
    return request.param, one, figures


@pytest.mark.parametrize("band", BANDS)
def test_flux_moments_are_those_of_the_truth(sample, band):
    kind, _, figures = sample
    assert figures[band]["n"] >= ENOUGH
    assert abs(figures[band]["bias"]) < BIAS[kind]


@pytest.mark.parametrize("band", BANDS)
def test_errors_are_right(sample, band):
    """Robust width of (M_F - truth) / error between 0.8 and 1.2, within the two standard errors of so few.

    That is the variance against the scatter over injections.
    """
    _, _, figures = sample
    one = figures[band]
    assert one["faint"] >= ENOUGH
    assert PULL[0] - 2 * one["width_error"] < one["width"] < PULL[1] + 2 * one["width_error"]


def test_every_covariance_is_one(sample):
    """Finite, symmetric, positive definite: of all bands together and of each."""
    _, one, _ = sample
    for name in ("bfd_even_cov", "bfd_band_even_cov", "bfd_odd_cov", "bfd_band_odd_cov"):
        cov = one.rows[name]
        size = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
        correlation = cov / size[..., :, None] / size[..., None, :]
        assert np.isfinite(correlation).all()
        assert np.linalg.eigvalsh(correlation).min() > 0


@pytest.mark.parametrize("name", ["M1", "M2"])
def test_shapes_have_no_direction(sample, name):
    """M_1 and M_2 over M_R have no mean: galaxies are turned at random, and a PSF's shape is not a star's."""
    kind, one, _ = sample
    even, cov = one.rows["bfd_even"], one.rows["bfd_even_cov"]
    k = EVEN.index(name)
    shape = even[:, k] / even[:, EVEN.index("MR")]
    assert abs(np.mean(shape)) < 4 * np.std(shape) / np.sqrt(len(shape))
    if kind == "stars":
        faint = even[:, 0] < FAINT * np.sqrt(cov[:, 0, 0])
        width = robust_width((even[:, k] / np.sqrt(cov[:, k, k]))[faint])
        assert abs(width - 1.0) < PULL[1] - 1.0 + 2 * 1.16 * width / np.sqrt(np.count_nonzero(faint))
