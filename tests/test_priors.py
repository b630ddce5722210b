"""Priors: oracle F9."""

import math

import numpy as np
import pytest

from balrogutils.errors import FitError
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.priors import (
    FRACDEV_Y3,
    CenPrior,
    CosmosSersic,
    Disk,
    Flat,
    GaussianMixture,
    GPriorBA,
    LogNormal,
    Normal,
    Sinh,
    TwoSidedErf,
    Within,
)


def slope_of(prior, x, h=1e-6):
    return (prior.row(x + h)[0] - prior.row(x - h)[0]) / (2 * h)


@pytest.mark.parametrize(
    "make", [lambda: Normal(0, 0), lambda: TwoSidedErf(1, 0.1, 0, 0.1), lambda: TwoSidedErf(0, 0.0, 1, 0.1)]
)
def test_impossible_priors_are_refused(make):
    with pytest.raises(FitError):
        make()


def test_another_prior_within_ends():
    inside = Within(Normal(1.0, 0.5, 0.2, 9.0), -1.0, 2.0)
    assert inside.support == (0.2, 2.0)
    assert inside.row(1.5) == Normal(1.0, 0.5).row(1.5) == (1.0, 2.0)
    assert all(math.isnan(inside.row(x)[0]) for x in (-0.5, 2.1, math.nan))
    nothing = Within(None, -1.0, 2.0)
    assert nothing.support == (-1.0, 2.0)
    assert nothing.row(2.0) == (0.0, 0.0)
    # A prior without a support of its own, that of fracdev, has the ends alone.
    assert Within(FRACDEV_Y3, 0.0, 1.0).support == (0.0, 1.0)
    assert Within(FRACDEV_Y3, 0.0, 1.0).row(0.3) == FRACDEV_Y3.row(0.3)


def test_outside_is_nan():
    assert math.isnan(Flat(0, 1).row(1.5)[0])
    assert math.isnan(Normal(0, 1, 0, 1).row(-0.1)[0])
    assert math.isnan(TwoSidedErf(-1, 0.1, 1, 0.1).row(-9.0)[0])
    assert math.isnan(GPriorBA(0.3).rows(0.8, 0.7)[0][0])
    assert math.isnan(CosmosSersic().rows(1.0, 0.0)[0][0])
    assert Flat(0, 1).row(0.5) == (0.0, 0.0)


@pytest.mark.parametrize(("x", "lnp"), [(-1.0, -0.693147), (-0.95, -0.274108), (-0.9, -0.081915)])
def test_f9_two_sided_erf_values(x, lnp):
    prior = TwoSidedErf(-1, 0.1, 1e6, 1e5)
    assert -0.5 * prior.row(x)[0] ** 2 == pytest.approx(lnp, abs=2e-6)


@pytest.mark.parametrize("x", [-1.05, -0.9, 0.7, 1.9, 2.05])
def test_two_sided_erf_slope(x):
    prior = TwoSidedErf(-1, 0.1, 2.0, 0.2)
    assert prior.row(x)[1] == pytest.approx(slope_of(prior, x), rel=1e-5, abs=1e-12)


def test_two_sided_erf_is_a_number_as_far_as_a_fit_may_go():
    prior = TwoSidedErf(-1e4, 1.0, 2.0, 0.2)
    low, high = prior.support
    assert np.isfinite([prior.row(low), prior.row(high)]).all()
    assert -0.5 * prior.row(low)[0] ** 2 < np.log(1e-11)
    assert np.isnan([prior.row(low - 1.0)[0], prior.row(high + 0.2)[0]]).all()


def test_two_sided_erf_is_silent_inside():
    assert TwoSidedErf(-1e4, 1.0, 1e9, 0.25e8).row(300.0) == (0.0, 0.0)


def test_f9_cosmos_sersic_values():
    got = [CosmosSersic().rows(g * 0.6, g * 0.8)[0][0] for g in (0, 0.1, 0.3, 0.6, 0.8, 0.95)]
    assert got == pytest.approx([2.0389, 2.3371, 2.8251, 3.3090, 4.0846, 5.2673], abs=1e-4)


@pytest.mark.parametrize("prior", [CosmosSersic(), GPriorBA(0.3)])
@pytest.mark.parametrize("g", [(0.2, -0.1), (0.001, 0.002), (-0.5, 0.4), (0.0, 0.3)])
def test_shape_slopes(prior, g):
    h = 1e-6
    rows = prior.rows(*g)
    for k, row in enumerate(rows):
        by_1 = (prior.rows(g[0] + h, g[1])[k][0] - prior.rows(g[0] - h, g[1])[k][0]) / (2 * h)
        by_2 = (prior.rows(g[0], g[1] + h)[k][0] - prior.rows(g[0], g[1] - h)[k][0]) / (2 * h)
        assert row[1:] == pytest.approx((by_1, by_2), rel=1e-6, abs=1e-7)


def test_f9_ba_is_its_formula_and_smooth_at_zero():
    prior = GPriorBA(0.3)
    for g1, g2 in ((0.2, 0.1), (0.0015, 0.002), (0.0, 0.0)):
        gg = g1 * g1 + g2 * g2
        total = sum(row[0] ** 2 for row in prior.rows(g1, g2))
        assert total == pytest.approx(-2 * (2 * math.log1p(-gg) - gg / (2 * 0.3**2)), rel=1e-9, abs=1e-15)
    curvature = prior.rows(0.0, 0.0)
    assert curvature[0][1] == pytest.approx(math.sqrt(4 + 1 / 0.09), rel=1e-12)


@pytest.mark.parametrize("stepping", [False, True])
def test_joint_prior_adds_rows(stepping):
    prior = JointPrior(CenPrior(0.27), CosmosSersic(), Normal(0.5, 0.2), [Normal(10, 2), Normal(20, 3)])
    pars = np.array([0.1, -0.2, 0.2, 0.1, 0.9, 12.0, 14.0])
    normal, gradient = np.zeros((7, 7)), np.zeros(7)
    total = prior.add(pars, normal, gradient, stepping=stepping)
    shape = CosmosSersic().rows(0.2, 0.1)[0][0]
    assert total == pytest.approx((0.05 / 0.27**2) + shape**2 + 4 + 1 + 4)
    assert gradient[5] == pytest.approx(0.5)
    assert gradient[6] == pytest.approx(-2 / 3)
    if stepping:
        # The solver adds the cusp.
        gradient[2:4] += prior.cusp * pars[2:4] / np.hypot(*pars[2:4])
    for k in range(7):
        step = np.zeros(7)
        step[k] = 1e-6
        ends = [prior.add(pars + s * step, np.zeros((7, 7)), np.zeros(7)) for s in (1, -1)]
        assert gradient[k] == pytest.approx((ends[0] - ends[1]) / 4e-6, rel=1e-6)
    assert np.all(np.linalg.eigvalsh(normal) > -1e-12)


@pytest.mark.parametrize(
    "prior",
    [Sinh(1.0, 0.3), LogNormal(2.0, 0.7), FRACDEV_Y3, GaussianMixture((1.0, 2.0), (0.0, 1.0), (0.2, 0.1))],
)
@pytest.mark.parametrize("x", [0.1, 0.45, 1.6, 3.0])
def test_f9_residual_squares_are_minus_two_ln_p(prior, x):
    assert prior.row(x)[1] == pytest.approx(slope_of(prior, x), rel=1e-5, abs=1e-7)
    if isinstance(prior, LogNormal):
        variance = math.log1p((0.7 / 2.0) ** 2)

        def lnp(y):
            return -0.5 * (math.log(y) - math.log(2.0) + variance / 2) ** 2 / variance - math.log(y)

        peak = 2.0 * math.exp(-1.5 * variance)
        assert prior.row(x)[0] ** 2 == pytest.approx(-2 * (lnp(x) - lnp(peak)), rel=1e-9)
    if isinstance(prior, GaussianMixture):
        weights, means, variances = (np.array(v) for v in (prior.weights, prior.means, prior.variances))
        p = weights / weights.sum() @ (np.exp(-0.5 * (x - means) ** 2 / variances) / np.sqrt(2 * np.pi * variances))
        assert prior.lnp(x) == pytest.approx(math.log(p), rel=1e-12)
        assert prior.row(x)[0] ** 2 - prior.row(0.7)[0] ** 2 == pytest.approx(
            -2 * (prior.lnp(x) - prior.lnp(0.7)), abs=1e-6
        )


def test_f9_samples_of_ba_have_the_tabled_moments():
    """Mean |g| and rms of a component of the density itself, by integration (M 4.10)."""
    g = np.linspace(0, 1, 4001)[1:-1]
    for sigma, mean, rms in ((0.2, 0.23044, 0.18356), (0.3, 0.30989, 0.24561)):
        prior = GPriorBA(sigma)
        density = g * [math.exp(-0.5 * sum(row[0] ** 2 for row in prior.rows(x, 0.0))) for x in g]
        density /= density.sum()
        assert density @ g == pytest.approx(mean, rel=1e-3)
        assert math.sqrt(0.5 * density @ g**2) == pytest.approx(rms, rel=1e-3)


def test_disk_is_flat_inside():
    assert Disk(0.8).rows(0.5, 0.5) == []
    assert math.isnan(Disk(0.8).rows(0.8, 0.1)[0][0])


def test_point_sources_have_priors_of_centre_and_flux_alone():
    prior = JointPrior(CenPrior(0.2), GPriorBA(0.3), Flat(0, 1), [Normal(5, 1)])
    normal, gradient = np.zeros((3, 3)), np.zeros(3)
    assert prior.add(np.array([0.1, 0.0, 6.0]), normal, gradient) == pytest.approx(1.25)
    assert np.diag(normal) == pytest.approx([25, 25, 1])
    assert prior.support(3)[0].tolist() == [-math.inf] * 3


def test_errors_of_a_round_shape_under_a_cusp_are_finite():
    prior = JointPrior(None, CosmosSersic(), None, [Flat(0, 1)])
    for g in ((0.0, 0.0), (1e-5, 0.0), (0.2, -0.1)):
        normal = np.zeros((6, 6))
        prior.add(np.array([0, 0, *g, 0.5, 0.5]), normal, np.zeros(6))
        assert np.linalg.eigvalsh(normal[2:4, 2:4]).min() > 0.5
