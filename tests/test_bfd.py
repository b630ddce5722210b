"""BFD moments against integrals of analytic profiles, and their covariance against draws of noise."""

import galsim
import numpy as np
import pytest
from bfd_truth import exponential_moments, gaussian_moments
from metacal_stamps import FINE, sampled, tilted_wcs
from simulated_stamps import galsim_wcs, local_wcs

from balrogutils.bfd.columns import bfd_rows, store_bfd
from balrogutils.bfd.moments import BFDOptions, bfd_moments
from balrogutils.errors import ConfigError
from balrogutils.fitting import mixture
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.observation import Observation, PSFStamp

OPTIONS = BFDOptions()


def test_a_round_gaussian_is_the_closed_form():
    one = sampled(tilted_wcs(64), [0, 0, 0, 0, 0.8, 100.0], (0.03, 0.02, 0.4), 64)
    got = bfd_moments([[one]], OPTIONS)
    assert got.flags == 0
    mf, mr, m1, m2, mc = got.even[0]
    assert [mf, mr, mc] == pytest.approx(gaussian_moments(100.0, 0.4), rel=1e-6)
    assert [m1, m2] == pytest.approx([0, 0], abs=1e-6 * mr)
    assert got.all_even == pytest.approx(got.even[0])
    assert got.odd[0] == pytest.approx([0, 0], abs=1e-7 * mf)


def test_a_sheared_gaussian():
    """The integral on a fine grid of k, all five moments."""
    g1, g2 = 0.2, -0.1
    one = sampled(tilted_wcs(64), [0, 0, g1, g2, 0.8, 100.0], (0.03, 0.02, 0.4), 64)
    irr, irc, icc = mixture.covariance(g1, g2, 0.8)
    line = np.linspace(-3, 3, 1201)
    kv, ku = line[:, None], line[None, :]
    kk = kv**2 + ku**2
    w = np.maximum(1 - kk / 8, 0) ** 4 * 100.0 * np.exp(-0.5 * (irr * kv**2 + 2 * irc * kv * ku + icc * ku**2))
    truth = [(w * f).sum() * 0.005**2 for f in (1 + 0 * kk, kk, ku**2 - kv**2, 2 * ku * kv, kk**2)]
    assert bfd_moments([[one]], OPTIONS).even[0] == pytest.approx(truth, rel=1e-5)


def test_an_exponential_through_a_moffat():
    galaxy, psf = galsim.Exponential(half_light_radius=0.6, flux=100.0, gsparams=FINE), galsim.Moffat(3.0, fwhm=0.9)
    wcs = tilted_wcs(96)
    sky, offset = galsim_wcs(wcs), (wcs.col0 - 47.5, wcs.row0 - 47.5)
    image = galsim.Convolve(galaxy, psf, gsparams=FINE).drawImage(nx=96, ny=96, wcs=sky, offset=offset, dtype=float)
    stamp = psf.withGSParams(FINE).drawImage(nx=97, ny=97, wcs=sky, dtype=float).array
    one = Observation(image.array / stamp.sum(), np.ones((96, 96)), wcs, PSFStamp(stamp, 48.0, 48.0))
    truth = 100.0 * np.array(exponential_moments(0.6))
    assert bfd_moments([[one]], OPTIONS).even[0][[0, 1, 4]] == pytest.approx(truth, rel=1e-4)


def test_the_origin_follows_the_object():
    place = (0.13, -0.21)
    one = sampled(tilted_wcs(64), [*place, 0.2, 0.1, 0.8, 100.0], (0.0, 0.0, 0.4), 64)
    there = sampled(tilted_wcs(64), [0, 0, 0.2, 0.1, 0.8, 100.0], (0.0, 0.0, 0.4), 64)
    got, truth = bfd_moments([[one]], OPTIONS), bfd_moments([[there]], OPTIONS)
    assert (got.v, got.u) == pytest.approx(place, abs=1e-6)
    assert got.even == pytest.approx(truth.even, rel=1e-6)
    fixed = bfd_moments([[one]], OPTIONS, center=(0.0, 0.0))
    # To first order M_X is the second moment of k times the shift.
    assert np.sign(fixed.odd[0]) == pytest.approx(np.sign(place[::-1]))
    assert fixed.even[0][0] < got.even[0][0]


def test_bands_epochs_and_their_weights():
    psf = (0.0, 0.0, 0.4)
    rng = np.random.default_rng(1)
    bands = []
    for flux in (1e3, 50, 100, 200):
        pars = [0, 0, 0.1, 0, 0.8, flux]
        bands.append([sampled(local_wcs(rng, 64), pars, psf, 64) for _ in range(2)])
    got = bfd_moments(bands, BFDOptions(band_weights=(0, 0.55, 0.3, 0.15)))
    assert list(got.nimage) == [2, 2, 2, 2]
    assert got.even[1:, 0] == pytest.approx(got.even[1, 0] * np.array([1, 2, 4]), rel=1e-6)
    assert got.all_even == pytest.approx(0.55 * got.even[1] + 0.3 * got.even[2] + 0.15 * got.even[3])
    assert got.all_odd == pytest.approx([0, 0], abs=1e-6)
    # A band that does not count need not be there.
    without = bfd_moments([[], *bands[1:]], BFDOptions(band_weights=(0, 0.55, 0.3, 0.15)))
    assert without.flags == 0
    assert np.isnan(without.even[0]).all()
    assert without.all_even == pytest.approx(got.all_even)


@pytest.mark.parametrize("draws", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_covariance_against_draws(draws):
    """Two epochs of different noise, PSF and map; the origin fixed, so that odd moments have their noise too."""
    rng = np.random.default_rng(2)
    clean = [
        sampled(local_wcs(rng, 48), [0, 0, 0.2, 0.1, 0.6, 100.0], (*rng.normal(0, 0.03, 2), size), 48)
        for size in (0.35, 0.5)
    ]
    sigmas, values = (0.5, 0.8), []
    for _ in range(draws):
        epochs = []
        for one, s in zip(clean, sigmas, strict=True):
            drawn = one.image + rng.normal(0, s, one.image.shape)
            epochs.append(Observation(drawn, np.full(drawn.shape, s**-2), one.wcs, one.psf))
        got = bfd_moments([epochs], OPTIONS, center=(0.0, 0.0))
        values.append([*got.all_even, *got.all_odd])
    found = np.cov(np.transpose(values))
    cov = np.zeros((7, 7))
    cov[:5, :5], cov[5:, 5:] = got.all_even_cov, got.all_odd_cov
    size = np.sqrt(np.diag(cov))
    # N draws give a variance to sqrt(2 / N): 4.5 per cent for 1000. The largest of 28 may be 3.5 times that.
    assert np.abs((found - cov) / np.outer(size, size)).max() < 3.5 * np.sqrt(2.0 / draws)
    truth = bfd_moments([[Observation(one.image, np.ones((48, 48)), one.wcs, one.psf) for one in clean]], OPTIONS)
    pulls = (np.mean(values, axis=0)[:5] - truth.all_even) / size[:5] * np.sqrt(draws)
    assert np.abs(pulls).max() < 4


def test_what_cannot_be_measured():
    one = sampled(tilted_wcs(48), [0, 0, 0, 0, 0.8, 100.0], (0.0, 0.0, 0.4))
    few, many = one.weight.copy(), one.weight.copy()
    few[:2], many[:4] = 0.0, 0.0
    assert bfd_moments([[Observation(one.image, few, one.wcs, one.psf)]], OPTIONS).flags == 0
    for epochs, flag in (
        ([], FitFlag.ZERO_DOF),
        ([Observation(one.image, many, one.wcs, one.psf)], FitFlag.ZERO_DOF),
        ([Observation(one.image, 0 * one.weight, one.wcs, one.psf)], FitFlag.ZERO_DOF),
        ([Observation(one.image, one.weight, one.wcs, None)], FitFlag.ZERO_DOF),
        ([Observation(one.image * np.nan, one.weight, one.wcs, one.psf)], FitFlag.LM_FUNC_NOTFINITE),
        ([Observation(-one.image, one.weight, one.wcs, one.psf)], FitFlag.CEN_SHIFT),
        ([Observation(np.ones((1, 1)), np.ones((1, 1)), one.wcs.at(0, 0), None)], FitFlag.ZERO_DOF),
    ):
        got = bfd_moments([epochs], OPTIONS)
        assert got.flags == flag
        assert np.isnan(got.all_even).all()
    assert bfd_moments([], OPTIONS).flags == FitFlag.ZERO_DOF
    with pytest.raises(ConfigError, match="band weights"):
        bfd_moments([[one]], BFDOptions(band_weights=(0.5, 0.5)))


@pytest.mark.parametrize(
    "settings",
    [{"wt_n": 0}, {"wt_sigma": 0.0}, {"pad_factor": 0.5}, {"bad_pixel_threshold": 2.0}, {"band_weights": (0.0, 0.0)}],
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        BFDOptions(**settings)


def test_columns_hold_the_moments():
    bands = [[sampled(tilted_wcs(48), [0.1, 0, 0.1, 0, 0.8, flux], (0.0, 0.0, 0.4))] for flux in (100.0, 50.0)]
    rows, found = bfd_rows(2, 3), bfd_moments(bands, OPTIONS)
    store_bfd(rows[1], found)
    assert list(rows["bfd_flags"]) == [FitFlag.NO_ATTEMPT, 0, FitFlag.NO_ATTEMPT]
    assert rows["bfd_offset"][1] == pytest.approx([0.1, 0.0], abs=1e-6)
    assert rows["bfd_band_even"][1] == pytest.approx(found.even)
    assert rows["bfd_even_cov"][1] == pytest.approx(found.all_even_cov)
    assert all(np.isfinite(rows[name][1]).all() for name in rows.dtype.names)
    assert np.isnan(rows["bfd_even"][0]).all()
