"""Composite models whose share of the bulge is not known: its error, and what it adds to those of the others."""

import numpy as np
import pytest
from blend_scenes import draw

from balrogutils.blends.joint import fit_jointly
from balrogutils.blends.solve import Recipe, solve
from balrogutils.fitting import composites
from balrogutils.fitting.composite import fit_composite
from balrogutils.fitting.composites import fit_composites, mix_sources
from balrogutils.fitting.fit import fit_scene
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.models import composite, model
from balrogutils.fitting.priors import FRACDEV_Y3, CenPrior, Flat, GPriorBA, Normal
from balrogutils.fitting.scene import Scene
from balrogutils.fitting.shares import FreeShare, clipped_width, marginalised, share_errors, valley_of, widen
from balrogutils.fitting.solver import LMOptions

TIGHT = LMOptions(2000, 1e-12, 1e-12)
USUAL = LMOptions(2000, 5e-5, 5e-5)
EVERYWHERE = (-1.0, 2.0)
OFFSETS = np.array([[0.0, -0.8], [0.0, 0.8]])
SHAPES = ([0.02, -0.01, 0.1, 0.0, 0.6], [-0.01, 0.03, -0.2, 0.1, 0.9])
PRIOR = JointPrior(CenPrior(0.27), GPriorBA(0.3), Flat(-0.1, 1e5), [Flat(-1e4, 1e9)] * 2)


def blend(models, *, fluxes=((900.0, 1200.0), (700.0, 800.0)), sigma=0.2, noise=True, seed=1):
    """One galaxy, or two 1.6 arcsec apart, in two bands of two epochs."""
    truth = [np.array([*shape, *flux]) for shape, flux in zip(SHAPES, fluxes, strict=True)][: len(models)]
    rng = np.random.default_rng(seed)
    return draw(rng, models, truth, OFFSETS[: len(models)], np.full(2, sigma), nepoch=2, noise=noise)


def fitted(one):
    """The fit of composites that are known, at the truth."""
    scene = Scene(one.canvas.data, one.models, one.canvas.links)
    return fit_scene(scene, [np.concatenate(one.truth)], TIGHT)


# --- degenerate


@pytest.mark.parametrize("count", [1, 2])
def test_masked_sources_are_flagged(count):
    one = blend([model("exp")] * count)
    canvas = one.canvas
    dark = canvas._replace(data=canvas.data._replace(weight=np.zeros_like(canvas.data.weight), npix=0))
    found = solve(dark, Recipe("cm", PRIOR, USUAL, FRACDEV_Y3), [one.starts(5)])
    for member in found:
        assert member.fit.flags == FitFlag.ZERO_DOF
        assert np.isnan(member.fit.cov).all()


def test_pixels_without_weight_add_what_the_prior_does_not_know():
    """Nothing is known of the share but its range, and no other parameter follows it, but for T by definition."""
    one = blend([composite(0.5, 2.0)])
    canvas, fit = one.canvas, fitted(one)
    dark = canvas.data._replace(weight=np.zeros_like(canvas.data.weight), npix=0)
    valley = valley_of(dark, canvas.links, fit, one.models)
    assert np.array_equal(valley.power, [[0.0]])
    assert np.array_equal(np.flatnonzero(valley.slopes), [4])
    assert share_errors(valley, np.array([0.5]), None) == pytest.approx(1e4)
    assert share_errors(valley, np.array([0.5]), Normal(0.5, 0.1)) == pytest.approx(0.01, rel=1e-6)


def test_a_model_without_an_image_leaves_the_fit_as_it_is():
    one = blend([model("exp")])
    canvas = one.canvas
    made = fit_composite(canvas.data, canvas.links.psf, PRIOR, [one.starts(5)[0]], USUAL, FRACDEV_Y3)
    pars = made.fit.pars.copy()
    pars[2] = 1.5
    broken = made._replace(fit=made.fit._replace(pars=pars))
    assert marginalised(canvas.data, canvas.links, broken, FRACDEV_Y3) is broken
    flagged = made._replace(fit=made.fit._replace(flags=int(FitFlag.MAXITER)))
    assert marginalised(canvas.data, canvas.links, flagged, FRACDEV_Y3) is flagged


def test_a_member_without_flux_has_no_share_and_leaves_the_others_alone():
    one = blend([composite(0.5, 2.0)] * 2, sigma=2.0)
    canvas = one.canvas
    pars = np.concatenate(one.truth)
    pars[-2:] = 0.0
    # Its size is known from a prior alone.
    sized = JointPrior(CenPrior(0.27), GPriorBA(0.3), Normal(0.5, 0.5), [Flat(-1e4, 1e9)] * 2)
    scene = Scene(canvas.data, one.models, canvas.links, [PRIOR, sized], free=np.arange(14) < 12)
    fit = fit_scene(scene, [pars], TIGHT)
    assert fit.flags == 0
    valley = valley_of(canvas.data, canvas.links, fit, one.models)
    assert valley.power[1, 1] == valley.power[0, 1] == 0.0
    errors = share_errors(valley, np.array([0.5, 0.5]), FRACDEV_Y3)
    wide = widen(fit, valley, np.array([0.5, 0.5]), errors, (0.0, 1.0))
    assert np.all(np.isfinite(wide.cov))
    added = wide.cov0 - fit.cov0
    assert np.all(np.diag(added)[5:7] > 0.0)
    # But for its T, of which the share is a part, nothing of it moves.
    assert np.array_equal(np.flatnonzero(np.diag(added)[7:]), [4])
    assert added[4, 11] == 0.0


# --- what is added


@pytest.mark.parametrize("mean", [-1.0, 0.0, 0.05, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("sigma", [1e-3, 0.1, 0.4, 30.0])
def test_width_of_clipped_numbers(mean, sigma):
    """Against the sum over a fine grid of the Gaussian."""
    z = np.linspace(-9.0, 9.0, 2_000_001)
    p = np.exp(-0.5 * z**2)
    p /= p.sum()
    x = np.clip(mean + sigma * z, 0.0, 1.0)
    want = np.sqrt(max(p @ (x - p @ x) ** 2, 0.0))
    assert clipped_width(mean, sigma, 0.0, 1.0) == pytest.approx(want, rel=1e-4, abs=1e-9)


def test_free_shares_are_the_composite_at_its_own():
    made = composite(0.3, 2.5)
    free = FreeShare(made)
    assert free.growth(0.3) == pytest.approx(1.0, rel=1e-12)
    for share in (0.0, 0.3, 0.9):
        # Of the same sizes: T is as much larger.
        other, one = composite(share, 2.5).components(np.zeros(0)), free.components(np.array([share]))
        assert one.p == pytest.approx(other.p, rel=1e-12)
        assert one.f == pytest.approx(other.f * free.growth(share), rel=1e-12)
    h = 1e-6
    slope = (free.components(np.array([0.3 + h])).p - free.components(np.array([0.3 - h])).p) / (2 * h)
    assert free.components(np.array([0.3])).dp[:, 0] == pytest.approx(slope, rel=1e-6)
    assert (free.growth(0.3 + h) - free.growth(0.3 - h)) / (2 * h) == pytest.approx(free.growing, rel=1e-6)


def test_parameters_follow_the_shares_as_fits_do():
    """Fits at other shares: the parameters move along the valley, and chi^2 rises as it is curved."""
    models = [composite(0.4, 2.0), composite(0.6, 1.5)]
    one = blend(models, sigma=2.0, noise=False)
    canvas, fit = one.canvas, fitted(one)
    valley = valley_of(canvas.data, canvas.links, fit, models)
    h = 0.01
    for k in range(2):
        ends = []
        for step in (-h, h):
            moved = [composite(m.fracdev + step * (j == k), m.ratio) for j, m in enumerate(models)]
            ends.append(fit_scene(Scene(canvas.data, moved, canvas.links), [fit.pars], TIGHT))
        slopes = (ends[1].pars - ends[0].pars) / (2 * h)
        errors = np.sqrt(np.diag(fit.cov0))
        assert np.abs((slopes - valley.slopes[:, k]) / errors).max() < 2e-3 * np.abs(slopes / errors).max()
        rise = sum(end.chi2per * end.dof for end in ends) / 2
        assert rise == pytest.approx(valley.power[k, k] * h**2, rel=0.02)


@pytest.mark.parametrize("count", [1, 2])
def test_errors_are_those_of_the_model_bd_of_fixed_ratio(count):
    """The inverse of the numerical Hessian of its chi^2 and priors, without the rows of fracdev."""
    models = [composite(0.5, 2.0), composite(0.4, 1.5)][:count]
    one = blend(models, noise=False, sigma=0.5)
    canvas, fit = one.canvas, fitted(one)
    valley = valley_of(canvas.data, canvas.links, fit, models)
    shares = np.array([m.fracdev for m in models])
    prior = Normal(0.5, 0.3)
    found = widen(fit, valley, shares, share_errors(valley, shares, prior), EVERYWHERE)

    scene = Scene(canvas.data, [model("bd")] * count, canvas.links)
    rows = fit.pars.reshape(count, 7)
    pars = np.hstack([rows[:, :5], np.log10([[m.ratio] for m in models]), shares[:, None], rows[:, 5:]]).ravel()
    free = np.arange(pars.size) % 9 != 5
    share = np.arange(pars.size) % 9 == 6
    normal, gradient = np.empty((pars.size, pars.size)), np.empty(pars.size)

    def loss(at):
        return 0.5 * scene.chi2(at, normal, gradient) + 0.5 * (((at[share] - 0.5) / 0.3) ** 2).sum()

    steps = 0.05 * np.sqrt(np.diag(found.cov0))
    step = np.zeros(pars.size)
    step[share] = 0.01
    step[free & ~share] = steps
    places = np.flatnonzero(free)
    hessian = np.zeros((places.size, places.size))
    for a, i in enumerate(places):
        for b, j in enumerate(places[: a + 1]):
            total = 0.0
            for x, y in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                at = pars.copy()
                at[i] += x * step[i]
                at[j] += y * step[j]
                total += x * y * loss(at)
            hessian[a, b] = hessian[b, a] = total / (4 * step[i] * step[j])
    want = np.linalg.inv(hessian)
    keep = ~share[places]
    want = want[np.ix_(keep, keep)]
    size = np.sqrt(np.diag(want))
    # Errors are larger than with the shares fixed by so much that this tells.
    assert (size / np.sqrt(np.diag(fit.cov0)))[-1] > 1.2
    assert np.abs((found.cov0 - want) / np.outer(size, size)).max() < 2e-3


def test_a_share_at_its_end_adds_a_part():
    one = blend([composite(0.0, 2.0)], sigma=2.0)
    canvas, fit = one.canvas, fitted(one)
    valley = valley_of(canvas.data, canvas.links, fit, one.models)
    errors = share_errors(valley, np.zeros(1), None)
    inside = widen(fit, valley, np.zeros(1), errors, (-1e3, 1e3)).cov0 - fit.cov0
    at_end = widen(fit, valley, np.zeros(1), errors, (0.0, 1e3)).cov0 - fit.cov0
    # Half of the Gaussian is clipped: sigma^2 (1 / 2 - 1 / 2 pi) is left.
    assert at_end == pytest.approx(inside * (0.5 - 0.5 / np.pi), rel=1e-9)
    assert inside == pytest.approx(valley.slopes @ errors @ valley.slopes.T, rel=1e-6)
    wide = widen(fit, valley, np.zeros(1), errors, (0.0, 1e3))
    assert np.array_equal(wide.pars, fit.pars)
    assert wide.cov / wide.cov0 == pytest.approx(fit.cov[0, 0] / fit.cov0[0, 0])


# --- shares of neighbours


def test_a_neighbour_of_the_other_kind_does_not_change_the_share():
    """Without noise an exponential beside a de Vaucouleurs is one, and of that size and flux; the mix of the fits of
    both as exponentials and of both as de Vaucouleurs is not."""
    one = blend([model("exp"), model("dev")], noise=False, sigma=0.5)
    canvas = one.canvas
    found = fit_composites(canvas.data, canvas.links, [PRIOR] * 2, [one.starts(5).ravel()], USUAL)
    assert found.fit.flags == 0
    assert found.fracdev == pytest.approx([0.0, 1.0], abs=0.01)
    assert found.fit.pars.reshape(2, 7)[:, 5:] == pytest.approx(np.array(one.truth)[:, 5:], rel=0.005)
    both = [fit.pars.reshape(2, 7) for fit in (found.exp, found.dev)]
    mixed, _ = mix_sources(canvas.data, canvas.links, *both)
    assert np.abs(mixed - [0.0, 1.0]).max() > 0.05


def test_shares_that_are_clipped_are_told_as_they_were():
    one = blend([model("exp"), model("dev")], sigma=3.0)
    canvas = one.canvas
    start = [one.starts(5).ravel()]
    whole = fit_composites(canvas.data, canvas.links, [PRIOR] * 2, start, USUAL, FRACDEV_Y3, EVERYWHERE)
    some = fit_composites(canvas.data, canvas.links, [PRIOR] * 2, start, USUAL, FRACDEV_Y3, (0.4, 0.6))
    assert some.fracdev == pytest.approx([0.4, 0.6])
    assert np.array_equal(np.clip(some.fracdev_noclip, 0.4, 0.6), some.fracdev)
    # Each by itself, the other at its end: not those of both together, but on the same side.
    assert some.fracdev_noclip[0] < 0.4
    assert some.fracdev_noclip[1] > 0.6
    assert np.array_equal(whole.fracdev, whole.fracdev_noclip)
    assert np.all(whole.fracdev_err < 0.3)
    fixed = fit_composites(
        canvas.data, canvas.links, [PRIOR] * 2, start, USUAL, FRACDEV_Y3, EVERYWHERE, marginalise=False
    )
    assert np.array_equal(fixed.fit.pars, whole.fit.pars)
    assert np.all(np.diag(fixed.fit.cov) < np.diag(whole.fit.cov))


def test_shares_of_the_mix_stay_where_there_is_no_fit_of_them(monkeypatch):
    one = blend([model("exp"), model("dev")], sigma=3.0)
    canvas = one.canvas
    monkeypatch.setattr(composites, "_fit_shares", lambda *given: None)
    found = fit_composites(canvas.data, canvas.links, [PRIOR] * 2, [one.starts(5).ravel()], USUAL, FRACDEV_Y3)
    assert found.fit.flags == 0
    both = [fit.pars.reshape(2, 7) for fit in (found.exp, found.dev)]
    shares, errors = mix_sources(canvas.data, canvas.links, *both, FRACDEV_Y3)
    assert np.array_equal(found.fracdev_noclip, shares)
    assert np.array_equal(found.fracdev, np.clip(shares, 0.0, 1.0))
    assert np.array_equal(found.fracdev_err, errors)


def ring(count, seed):
    """Galaxies of both kinds in turn, 3 arcsec from the next."""
    angles = 2 * np.pi * np.arange(count) / count
    offsets = 1.5 / np.sin(np.pi / count) * np.column_stack([np.sin(angles), np.cos(angles)])
    models = [model(("exp", "dev")[k % 2]) for k in range(count)]
    truth = [np.array([*SHAPES[k % 2], 900.0, 1200.0]) for k in range(count)]
    return draw(np.random.default_rng(seed), models, truth, offsets, np.full(2, 2.0), nepoch=2)


def test_groups_that_begin_roughly_end_where_exact_ones_do(monkeypatch):
    """The fits of exp and dev of a group are ended early: that saves evaluations, and changes what comes out by less
    than a tenth of a standard error. T_d / T_e, which the last fits keep, may differ by its own."""
    one = ring(6, 3)
    canvas = one.canvas
    given = canvas.data, canvas.links, [PRIOR] * 6, [one.starts(5).ravel()], USUAL, FRACDEV_Y3
    rough = fit_composites(*given)
    monkeypatch.setattr(composites, "_ROUGH", USUAL.last)
    exact = fit_composites(*given)
    assert rough.fit.flags == exact.fit.flags == 0
    assert rough.exp.nfev + rough.dev.nfev < exact.exp.nfev + exact.dev.nfev
    change = np.abs(rough.fit.pars - exact.fit.pars) / np.sqrt(np.diag(exact.fit.cov))
    assert change.max() < 0.1
    assert np.abs(rough.fracdev - exact.fracdev).max() < 0.1 * exact.fracdev_err.min()


def test_who_was_held_at_first_and_settled_later_is_not_said_to_move(monkeypatch):
    """Those held in the fits of exp and dev are told where these are all there is."""
    one = ring(4, 4)
    canvas = one.canvas
    usual, stages = composites.fit_together, []

    def held(data, links, models, *given):
        stages.append(models[0].name)
        fit = usual(data, links, models, *given)
        return fit._replace(moving=(models[0].name == "exp", False, False, False))

    monkeypatch.setattr(composites, "fit_together", held)
    given = canvas.data, canvas.links, [PRIOR] * 4, [one.starts(5).ravel()], USUAL, FRACDEV_Y3
    assert fit_composites(*given).fit.moving == (False,) * 4
    assert stages == ["exp", "dev", "cm", "cm"]
    monkeypatch.setattr(composites, "_fit_shares", lambda *given: None)
    assert fit_composites(*given).fit.moving == (True, False, False, False)


def test_pulls_of_pairs_of_two_kinds():
    """40 draws of S/N some 100: 160 pulls of fluxes, those of two bands of one shape. Their rms is 1 within 3 standard
    errors of 160 numbers."""
    recipe = Recipe("cm", PRIOR, USUAL, FRACDEV_Y3)
    pulls = []
    for seed in range(40):
        one = blend([model("exp"), model("dev")], sigma=2.0, seed=200 + seed)
        found = fit_jointly(one.canvas, recipe, [one.starts(5)], one.offsets, one.pairs).members
        for member, truth in zip(found, one.truth, strict=True):
            assert member.fit.flags == 0
            pulls.append((member.fit.pars - truth)[5:] / np.sqrt(np.diag(member.fit.cov))[5:])
    rms = np.sqrt(np.mean(np.square(pulls)))
    assert rms == pytest.approx(1.0, abs=3.0 / np.sqrt(160))
