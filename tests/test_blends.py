"""Groups fit together: canvases, the joint fit, the strategy of the Y3 runs, forced fluxes (O3 to O6)."""

from dataclasses import replace

import numpy as np
import pytest
from blend_scenes import draw

from balrogutils.blends import joint
from balrogutils.blends.canvas import Piece, build_canvas, complete, part_of, view_of
from balrogutils.blends.forced import force_fluxes
from balrogutils.blends.iteration import Convergence, View, fit_iteratively
from balrogutils.blends.joint import fit_jointly
from balrogutils.blends.solve import Recipe, mof_flags, pixels_of, solve
from balrogutils.errors import FitError
from balrogutils.fitting.composite import fit_composite
from balrogutils.fitting.fit import fit_scene
from balrogutils.fitting.flags import FitFlag, MofFlag
from balrogutils.fitting.galaxy import fit_galaxy
from balrogutils.fitting.jointprior import JointPrior
from balrogutils.fitting.models import model
from balrogutils.fitting.observation import LocalWCS
from balrogutils.fitting.priors import FRACDEV_Y3, CenPrior, CosmosSersic, Flat, GPriorBA, Normal, TwoSidedErf
from balrogutils.fitting.scene import Accuracy, Scene
from balrogutils.fitting.shares import marginalised
from balrogutils.fitting.solver import LMOptions
from balrogutils.fitting.sweeps import sweep
from balrogutils.randomness import stream

TIGHT = LMOptions(2000, 1e-12, 1e-12)
USUAL = LMOptions(2000, 5e-5, 5e-5)
NOBODY = np.empty((0, 2), int)


def prior(nband, extra=()):
    return JointPrior(CenPrior(0.27), GPriorBA(0.3), Flat(-0.1, 1e5), [Flat(-1e4, 1e9)] * nband, extra)


def pair(separation=1.5, *, name="gauss", s2n=1000.0, noise=False, seed=1, fluxes=((900.0, 1200.0),) * 2, **kwargs):
    """Two galaxies some arcsec apart; S/N of the first in all bands and epochs, roughly."""
    shapes = [[0.02, -0.01, 0.1, 0.0, 0.6], [-0.01, 0.03, -0.2, 0.1, 0.6]]
    truth = [np.array([*shape, *flux]) for shape, flux in zip(shapes, fluxes, strict=True)]
    offsets = np.array([[0.0, -separation / 2], [0.0, separation / 2]])
    nepoch = kwargs.get("nepoch", 3)
    # Matched-filter S/N of a Gaussian of T = 1 on pixels of 0.263 arcsec.
    sigma = 900.0 * 0.263 / s2n / np.sqrt(2 * np.pi) * np.sqrt(2 * nepoch)
    rng = np.random.default_rng(seed)
    kwargs["nepoch"] = nepoch
    return draw(rng, [model(name)] * 2, truth, offsets, np.full(2, sigma), noise=noise, **kwargs)


# --- canvases


def flat_piece(member, origin, shape=(8, 8), value=1.0, **changes):
    wcs = LocalWCS(3.5, 3.5, 0.263, 0, 0, 0.263)
    psf = np.array([[1.0, 0, 0, 0.2, 0, 0.2]])
    piece = Piece(member, 0, 1, origin, shape, wcs, psf, np.full(shape, value), np.ones(shape))
    return replace(piece, **changes)


def test_no_stamp_is_refused():
    for pieces in ([], [flat_piece(0, (0, 0), pixels=None, weight=None)]):
        with pytest.raises(FitError, match="no stamp"):
            build_canvas(pieces, 1, 1)
        with pytest.raises(FitError, match="no stamp"):
            view_of(pieces, 0, 1, 1)


def test_pixels_that_are_no_number_are_refused():
    piece = flat_piece(0, (0, 0))
    piece.pixels[2, 2] = np.nan
    with pytest.raises(FitError, match="not finite"):
        build_canvas([piece], 1, 1)
    piece.weight[2, 2] = 0.0
    assert build_canvas([piece], 1, 1).data.npix == 63


def test_stamps_that_contradict_each_other_are_refused():
    with pytest.raises(FitError, match="different pixels"):
        build_canvas([flat_piece(0, (0, 0)), flat_piece(1, (0, 4), value=9.0)], 2, 1)


def test_shared_pixels_count_once_and_the_smallest_weight_holds():
    masked = np.ones((8, 8))
    masked[:, 0] = 0.0
    canvas = build_canvas([flat_piece(0, (-3, 10)), flat_piece(1, (0, 14), weight=masked)], 2, 1)
    assert (canvas.data.nrow[0], canvas.data.ncol[0]) == (11, 12)
    weight = canvas.data.weight.reshape(11, 12)
    # 64 + 64 pixels, 5 x 4 shared, of which one column is masked on 5 rows; 3 more masked rows are not shared.
    assert canvas.data.npix == np.count_nonzero(weight) == 64 + 64 - 20 - 8
    assert np.all(weight[3:8, 4] == 0.0)
    assert weight[0, 8] == 0.0
    assert canvas.links.source.tolist() == [0, 1]
    assert canvas.links.wcs[:, :2].tolist() == [[3.5, 3.5], [6.5, 7.5]]


def test_a_member_alone_keeps_its_stamps():
    blend = pair()
    mine = blend.single(0, uberseg=False)
    for stamp, piece in enumerate(piece for piece in blend.pieces if piece.member == 0):
        start = mine.data.start[stamp]
        assert np.array_equal(mine.data.image[start : start + piece.pixels.size], piece.pixels.ravel())
    assert np.array_equal(mine.data.wcs, mine.links.wcs)


def test_large_canvases_are_cut_into_tiles_that_hold_the_same():
    blend = pair(14.0, nepoch=1)
    canvas = blend.canvas
    assert canvas.data.ncol.max() <= 49
    assert canvas.data.start.size > 2
    pars = [np.concatenate([blend.truth[0]]), np.concatenate([blend.truth[1]])]
    scene = Scene(canvas.data, blend.models, canvas.links)
    normal, gradient = np.empty((14, 14)), np.empty(14)
    assert scene.chi2(np.concatenate(pars), normal, gradient) < 1e-6 * scene.power.sum()
    assert canvas.data.npix == sum(
        np.count_nonzero(view.joined.data.weight) for view in blend.views()
    ) - 2 * overlap_pixels(blend)


def overlap_pixels(blend):
    """Pixels of the first epoch of the first band that both members have."""
    first, second = (piece for piece in blend.pieces if (piece.band, piece.image) == (0, 0))
    rows = max(0, 48 - abs(first.origin[0] - second.origin[0]))
    return rows * max(0, 48 - abs(first.origin[1] - second.origin[1]))


def test_members_outside_an_image_are_linked_where_their_light_falls():
    blend = pair(4.0)
    some = [piece for piece in blend.pieces if not (piece.member == 1 and piece.image == 0)]
    added = [piece for piece in complete(some, blend.offsets) if piece.pixels is None]
    known = [piece for piece in blend.pieces if piece.member == 1 and piece.image == 0]
    assert len(added) == len(known) == 2
    for one, two in zip(added, known, strict=True):
        assert one.place == pytest.approx(two.place, abs=1e-6)
        assert (one.member, one.band, one.image) == (two.member, two.band, two.image)
    assert len(complete(some, np.full((2, 2), np.nan))) == len(some)


def test_a_part_of_a_canvas_is_the_canvas_of_these_members():
    blend = pair(24.0, nepoch=2)
    part, pixels = part_of(blend.canvas, np.array([1]))
    assert np.array_equal(part.data.image, blend.canvas.data.image[pixels])
    assert set(part.links.source) == {0}
    assert part.data.image.size < blend.canvas.data.image.size


# --- the joint fit


def test_o3_a_pair_without_noise_is_recovered():
    blend = pair(1.5)
    recipe = Recipe("gauss", None, TIGHT)
    found = fit_jointly(blend.canvas, recipe, [blend.starts(5)], blend.offsets, blend.pairs)
    for one, truth in zip(found.members, blend.truth, strict=True):
        assert one.fit.flags == 0
        assert one.fit.pars == pytest.approx(truth, rel=1e-5, abs=1e-6)
    assert found.converged.all()
    # Errors are marginal: larger than with the neighbour fixed, most of all for the flux.
    alone = solve(part_of(without(blend, 1), np.array([0]))[0], recipe, [blend.truth[0][None]])[0]
    assert found.members[0].fit.cov0[5, 5] > 1.2 * alone.fit.cov0[5, 5]


def without(blend, member):
    """The canvas with one member's true image taken off."""
    canvas = blend.canvas
    single = solve(canvas, Recipe("gauss", None, TIGHT), [np.array(blend.truth)])
    image = canvas.data.image - pixels_of(canvas, [one if k == member else None for k, one in enumerate(single)])
    return canvas._replace(data=canvas.data._replace(image=image))


def test_o3_flux_errors_are_those_of_linear_least_squares():
    blend = pair(1.5)
    canvas = blend.canvas
    forced = force_fluxes(canvas.data, canvas.links, blend.models, [pars[:5] for pars in blend.truth])
    assert forced.flux == pytest.approx(np.array([pars[5:] for pars in blend.truth]), rel=1e-9)
    for band in range(2):
        columns = []
        for member in range(2):
            unit = [pars * np.array([1.0] * 5 + [0.0] * 2) for pars in blend.truth]
            unit[member][5 + band] = 1.0
            scene = Scene(canvas.data, blend.models, canvas.links)
            columns.append(scene_image(scene, np.concatenate(unit)) * np.sqrt(canvas.data.weight))
        a = np.array(columns)
        assert forced.cov[band] == pytest.approx(np.linalg.inv(a @ a.T), rel=1e-6)


def scene_image(scene, pars):
    """The image by the slow way: every link for itself."""
    out = np.zeros(scene.data.image.size)
    for link, source in enumerate(scene.links.source):
        stamp = int(np.searchsorted(scene.links.first, link, side="right")) - 1
        flux = pars[scene.flux[source, scene.data.band[stamp]]]
        start, size = scene.data.start[stamp], scene.data.nrow[stamp] * scene.data.ncol[stamp]
        out[start : start + size] += flux * scene.images(pars, link)[0].ravel()
    return out


@pytest.mark.parametrize("name", ["exp", "bdf"])
def test_o6_a_group_of_one_is_the_single_fit_to_the_bit(name):
    blend = pair(name="exp", noise=True, s2n=80.0)
    canvas = blend.single(0)
    recipe = Recipe(name, prior(2, [Normal(0.5, 0.1, 0.0, 1.0)]), USUAL)
    start = blend.starts(recipe.nshape)[:1]
    group = fit_jointly(canvas, recipe, [start], blend.offsets[:1], NOBODY).members[0].fit
    alone = fit_galaxy(canvas.data, canvas.links.psf, model(name), recipe.prior, [start[0]], USUAL)
    assert np.array_equal(group.pars, alone.pars)
    assert np.array_equal(group.cov, alone.cov)
    assert group.s2n == alone.s2n
    rounds = fit_iteratively(blend.views()[:1], recipe, [start], Convergence(), lambda itr: stream(1, "x", itr))
    assert rounds.rounds == 0


def test_o6_holds_for_cm():
    blend = pair(name="exp", noise=True, s2n=80.0)
    canvas = blend.single(1)
    recipe = Recipe("cm", prior(2), USUAL, FRACDEV_Y3)
    start = blend.starts(5)[1:]
    group = fit_jointly(canvas, recipe, [start], blend.offsets[1:], NOBODY).members[0]
    alone = fit_composite(canvas.data, canvas.links.psf, recipe.prior, [start[0]], USUAL, FRACDEV_Y3)
    assert np.array_equal(group.fit.pars, alone.fit.pars)
    assert np.array_equal(group.fit.cov, marginalised(canvas.data, canvas.links, alone, FRACDEV_Y3).fit.cov)
    assert group.mix == alone[3:]
    fixed = fit_jointly(canvas, replace(recipe, marginalise=False), [start], blend.offsets[1:], NOBODY).members[0]
    assert np.array_equal(fixed.fit.cov, alone.fit.cov)


@pytest.mark.parametrize(("name", "truth"), [("cm", "exp"), ("cm", "dev"), ("exp", "exp"), ("bdf", "exp")])
def test_pairs_with_noise_are_within_their_errors(name, truth):
    blend = pair(2.0, name=truth, noise=True, s2n=300.0, seed=8)
    recipe = Recipe(name, prior(2, [Flat(-1.0, 2.0)]), USUAL, FRACDEV_Y3)
    found = fit_jointly(blend.canvas, recipe, [blend.starts(recipe.nshape)], blend.offsets, blend.pairs)
    for one, pars in zip(found.members, blend.truth, strict=True):
        assert one.fit.flags == 0
        flux, errors = one.fit.pars[-2:], np.sqrt(np.diag(one.fit.cov))[-2:]
        assert np.all(np.abs(flux - pars[-2:]) < 4.0 * errors)
        assert one.fit.chi2per == pytest.approx(1.0, abs=0.05)
        if name == "cm":
            assert one.mix.fracdev_noclip == pytest.approx(0.0 if truth == "exp" else 1.0, abs=0.15)


def test_o4_turns_end_where_the_joint_fit_does():
    """On the same pixels; within half a standard error by the usual criterion, and closer with more turns."""
    blend = pair(2.4, name="exp", noise=True, s2n=100.0, seed=3)
    recipe = Recipe("exp", prior(2), USUAL)
    tight = replace(recipe, options=LMOptions(2000, 1e-10, 1e-10))
    starts = [blend.starts(5)]
    whole = big_views(blend)
    together = fit_jointly(whole[0].joined, tight, starts, blend.offsets, blend.pairs)
    usual = fit_iteratively(whole, recipe, starts, Convergence(), lambda itr: stream(1, "order", itr))
    many = Convergence(min_itr=50, max_itr=50)
    passes = fit_iteratively(whole, tight, starts, many, lambda itr: stream(1, "order", itr))
    assert usual.converged.all()
    assert 10 <= usual.rounds <= 15
    for one, two, three in zip(together.members, usual.members, passes.members, strict=True):
        errors = np.sqrt(np.diag(one.fit.cov))
        assert np.all(np.abs(two.fit.pars - one.fit.pars) < 0.5 * errors)
        assert np.all(np.abs(three.fit.pars - one.fit.pars) < 1e-3 * errors)


def big_views(blend):
    """Views in which each member has all pixels of the group; first fits as usual."""
    canvas = blend.canvas
    return [View(canvas, np.full(canvas.data.image.size, -1), view.alone) for view in blend.views()]


def test_turns_on_own_stamps_agree_with_the_joint_fit():
    blend = pair(2.0, name="exp", noise=True, s2n=100.0, seed=5)
    recipe = Recipe("exp", prior(2), USUAL)
    starts = [blend.starts(5)]
    together = fit_jointly(blend.canvas, recipe, starts, blend.offsets, blend.pairs)
    turns = fit_iteratively(blend.views(), recipe, starts, Convergence(), lambda itr: stream(1, "order", itr))
    again = fit_iteratively(blend.views(), recipe, starts, Convergence(), lambda itr: stream(1, "order", itr))
    for one, two, three in zip(together.members, turns.members, again.members, strict=True):
        errors = np.sqrt(np.diag(one.fit.cov))
        assert np.all(np.abs(two.fit.pars - one.fit.pars) < 1.0 * errors)
        assert np.array_equal(two.fit.pars, three.fit.pars)


def test_blocks_of_a_large_group_end_where_one_system_does():
    rng = np.random.default_rng(12)
    offsets = np.array([[2.2 * (k // 3), 2.2 * (k % 3)] for k in range(9)]) + rng.normal(0, 0.2, (9, 2))
    truth = [np.array([0, 0, *rng.normal(0, 0.1, 2), rng.uniform(0.2, 0.8), rng.uniform(300, 1500)]) for _ in range(9)]
    blend = draw(rng, [model("exp")] * 9, truth, offsets, np.array([3.0]), nepoch=2)
    recipe = Recipe("exp", prior(1), replace(USUAL, ftol=1e-8, xtol=1e-8))
    starts = [blend.starts(5)]
    one = joint.fit_jointly(blend.canvas, recipe, starts, offsets, blend.pairs)
    blocks = [
        (np.array(core), np.array([*core, *halo]))
        for core, halo in [([0, 1, 2], [3, 4, 5]), ([3, 4, 5], [0, 1, 2, 6, 7, 8]), ([6, 7, 8], [3, 4, 5])]
    ]
    many = joint._sweep(blend.canvas, recipe, starts, blocks)
    assert many.converged.all()
    assert many.rounds > 1
    for first, second in zip(one.members, many.members, strict=True):
        errors = np.sqrt(np.diag(first.fit.cov))
        assert np.all(np.abs(first.fit.pars - second.fit.pars) < 0.05 * errors)
        assert np.sqrt(np.diag(second.fit.cov)) == pytest.approx(errors, rel=0.05)


def test_two_members_at_one_place_are_flagged_or_share_the_light():
    """No common solution: each is fit with the other's model taken off, and the sum is right."""
    blend = pair(0.0, name="exp", noise=True, s2n=100.0)
    truth = [np.array([0, 0, 0, 0, 0.6, 900.0, 1200.0])] * 2
    blend = draw(np.random.default_rng(2), [model("exp")] * 2, truth, np.zeros((2, 2)), blend.sigma, nepoch=3)
    found = fit_jointly(blend.canvas, Recipe("exp", prior(2), USUAL), [blend.starts(5)], blend.offsets, blend.pairs)
    good = [one for one in found.members if one.fit.flags == 0]
    assert good
    assert sum(one.fit.pars[5] for one in good) == pytest.approx(1800.0, rel=0.1)
    for one in found.members:
        assert one.fit.flags or np.isfinite(one.fit.pars).all()
        assert not one.fit.flags or np.isnan(one.fit.pars).all()


def test_members_without_weight_are_flagged():
    blend = pair(3.0, name="exp", noise=True, s2n=100.0)
    pieces = [replace(piece, weight=np.zeros_like(piece.weight)) for piece in blend.pieces]
    found = fit_jointly(
        build_canvas(pieces, 2, 2), Recipe("exp", prior(2), USUAL), [blend.starts(5)], blend.offsets, blend.pairs
    )
    assert [one.fit.flags for one in found.members] == [FitFlag.ZERO_DOF] * 2


def test_a_member_without_a_fit_is_masked_for_the_others():
    blend = pair(3.0, name="exp", noise=True, s2n=200.0)
    views = blend.views()
    dark = views[1].joined.data._replace(weight=np.zeros_like(views[1].joined.data.weight), npix=0)
    views[1] = replace(views[1], joined=views[1].joined._replace(data=dark), alone=None)
    recipe = Recipe("exp", prior(2), USUAL)
    found = fit_iteratively(views, recipe, [blend.starts(5)], Convergence(), lambda itr: stream(1, "order", itr))
    assert found.members[1].fit.flags == FitFlag.ZERO_DOF
    one = found.members[0].fit
    assert one.flags == 0
    assert one.dof == np.count_nonzero((views[0].owner != 1) & (views[0].joined.data.weight > 0)) - 7
    assert one.pars[5] == pytest.approx(900.0, rel=0.05)


def test_flags_of_members():
    flags = mof_flags(["good", "bad fit", "not converged", "not fit", "skipped"], np.array([[0, 1], [0, 2]]))
    assert flags[0] == (
        MofFlag.NBR_BAD_FIT | MofFlag.NBR_NOT_CONVERGED | MofFlag.FOFMEM_NOT_FIT | MofFlag.FOFMEM_SKIPPED
    )
    assert flags[2] & MofFlag.NOT_CONVERGED
    assert flags[4] & MofFlag.SKIPPED
    assert not flags[4] & MofFlag.FOFMEM_SKIPPED
    assert mof_flags(["good", "good"], np.array([[0, 1]])).tolist() == [0, 0]


@pytest.mark.parametrize("fit", ["gauss", "exp"])
def test_images_of_different_pixels_are_one_scene(fit):
    """A pair on images of 0.263, 0.1 and 0.5 arcsec a pixel, each with its own map and PSF."""
    blend = pair(1.8, name=fit, nepoch=3, scales=(0.263, 0.1, 0.5))
    assert len({piece.shape for piece in blend.pieces}) == 3
    found = fit_jointly(blend.canvas, Recipe(fit, None, TIGHT), [blend.starts(5)], blend.offsets, blend.pairs)
    for one, truth in zip(found.members, blend.truth, strict=True):
        assert one.fit.pars == pytest.approx(truth, rel=1e-5, abs=1e-6)


# --- forced fluxes


def test_forced_fluxes_of_any_band_and_epoch():
    blend = pair(2.0, name="exp", noise=True, s2n=100.0, fluxes=((900.0, 0.0), (0.0, 1200.0)))
    shapes = [pars[:5] for pars in blend.truth]
    some = [piece for piece in blend.pieces if piece.image == 1]
    for pieces in (blend.pieces, some):
        canvas = build_canvas(pieces, 2, 2)
        found = force_fluxes(canvas.data, canvas.links, blend.models, shapes)
        pulls = (found.flux - np.array([pars[5:] for pars in blend.truth])) / found.error
        assert np.abs(pulls).max() < 4.0
        assert np.all(found.chi2 / found.npix == pytest.approx(1.0, abs=0.1))
        positive = force_fluxes(canvas.data, canvas.links, blend.models, shapes, nonnegative=True)
        assert positive.flux.min() >= 0.0
        assert np.all(positive.chi2 >= found.chi2 - 1e-6)


def test_fluxes_below_nothing_are_not_allowed_by_choice():
    blend = pair(1.0, name="exp", noise=True, s2n=100.0, fluxes=((900.0, 900.0), (-200.0, -200.0)))
    canvas, shapes = blend.canvas, [pars[:5] for pars in blend.truth]
    assert np.all(force_fluxes(canvas.data, canvas.links, blend.models, shapes).flux[1] < 0)
    found = force_fluxes(canvas.data, canvas.links, blend.models, shapes, nonnegative=True)
    assert np.all(found.flux[1] == 0.0)
    # What is left of the first is its best flux alone.
    alone = force_fluxes(*part_of(canvas, np.array([0]))[0][:2], blend.models[:1], shapes[:1])
    assert found.flux[0] == pytest.approx(alone.flux[0], rel=1e-9)


def test_forced_fluxes_that_cannot_be_are_flagged():
    blend = pair(2.0, name="exp")
    canvas, shapes = blend.canvas, [pars[:5] for pars in blend.truth]
    broken = force_fluxes(canvas.data, canvas.links, blend.models, [shapes[0], shapes[1] * np.nan])
    assert broken.flags.tolist() == [[0, 0], [FitFlag.GMIX_RANGE_ERROR] * 2]
    assert np.isnan(broken.flux[1]).all()
    assert np.isfinite(broken.flux[0]).all()
    far = force_fluxes(canvas.data, canvas.links, blend.models, [shapes[0], np.array([500.0, 0, 0, 0, 1.0])])
    assert far.flags.tolist() == [[0, 0], [FitFlag.DIV_ZERO] * 2]
    same = [shapes[0], shapes[0] + np.array([0, -2.0, 0, 0, 0])]
    twice = force_fluxes(canvas.data, canvas.links, blend.models, [same[0], same[1]], accuracy=Accuracy(merge=0.0))
    assert twice.flags.tolist() == [[FitFlag.LM_SINGULAR_MATRIX] * 2] * 2


@pytest.mark.parametrize("parts", [0.5, 1.0, 2.0])
def test_o5_joint_fluxes_have_their_errors_and_single_ones_are_biased(parts):
    """Pairs at parts of the FWHM of the PSF, 0.95 arcsec, in 40 draws: 160 pulls, of which those of two bands share a
    shape. Width and mean within 3 standard errors of 80 of them; single fits with uberseg lose or take light."""
    recipe = Recipe("exp", prior(2), USUAL)
    pulls, totals, alone = [], [], []
    for seed in range(40):
        blend = pair(0.95 * parts, name="exp", noise=True, s2n=300.0, seed=100 + seed)
        starts = blend.starts(5)
        found = fit_jointly(blend.canvas, recipe, [starts], blend.offsets, blend.pairs).members
        assert [one.fit.flags for one in found] == [0, 0]
        flux = np.array([one.fit.pars[5:] for one in found])
        truth = np.array([pars[5:] for pars in blend.truth])
        errors = np.array([np.sqrt(np.diag(one.fit.cov))[5:] for one in found])
        pulls.append((flux - truth) / errors)
        totals.append(flux.sum(axis=0) / truth.sum(axis=0) - 1.0)
        single = [solve(blend.single(k), recipe, [starts[k : k + 1]])[0].fit for k in range(2)]
        alone.append([(one.pars[5:] - truth[k]) / np.sqrt(np.diag(one.cov))[5:] for k, one in enumerate(single)])
    assert np.std(pulls) == pytest.approx(1.0, abs=3.0 / np.sqrt(160))
    assert abs(np.mean(pulls)) < 3.0 / np.sqrt(80)
    # Of both together the light is known to about 0.4 per cent a draw.
    assert abs(np.mean(totals)) < 3.0 * np.std(totals) / np.sqrt(40)
    assert abs(np.median(alone)) > {0.5: 10.0, 1.0: 5.0, 2.0: 2.0}[parts]


def four(noise=True):
    shapes = [
        [0.02, -0.01, 0.1, 0.0, 0.6],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [-0.01, 0.03, -0.2, 0.1, 0.4],
        [0, 0, 0.3, 0, 2.0],
    ]
    truth = [
        np.array([*shape, *flux])
        for shape, flux in zip(shapes, ((900, 700), (30000, 20000), (400, 800), (500, 500)), strict=True)
    ]
    offsets = np.array([[0.0, 0.0], [0.0, 2.2], [2.0, 0.5], [4.0, 1.5]])
    return draw(np.random.default_rng(6), [model("exp")] * 4, truth, offsets, np.full(2, 2.0), nepoch=2, noise=noise)


def test_sources_by_themselves_come_nearer_to_the_optimum_of_all():
    """A bright star among galaxies: from there the joint fit takes few steps, and ends where it does by itself."""
    blend = four()
    priors = [JointPrior(CenPrior(0.27), CosmosSersic(), Flat(-0.1, 1e5), [Flat(-1e4, 1e9)] * 2)] * 4
    profiles = [model("exp")] * 4
    canvas = blend.canvas
    scene = Scene(canvas.data, profiles, canvas.links, priors)
    start = blend.starts(5).ravel()
    nearer = sweep(canvas.data, canvas.links, profiles, priors, start, USUAL)
    plain, helped = fit_scene(scene, [start], USUAL), fit_scene(scene, [nearer], USUAL)
    assert plain.flags == helped.flags == 0
    assert helped.nfev <= 0.5 * plain.nfev
    flux = scene.flux.ravel()
    assert np.all(np.abs(helped.pars - plain.pars)[flux] < 0.02 * np.sqrt(np.diag(plain.cov))[flux])
    turned = fit_scene(
        scene,
        [start],
        replace(USUAL, maxfev=100),
        nearer=lambda pars: sweep(canvas.data, canvas.links, profiles, priors, pars, USUAL),
    )
    assert turned.flags == 0
    assert np.all(np.abs(turned.pars - plain.pars)[flux] < 0.02 * np.sqrt(np.diag(plain.cov))[flux])


def beside_a_trail():
    """Five galaxies, and a bent trail beside the first; their canvas, and the priors of the Y3 runs."""
    offsets = np.array([[0.0, 0.0], [4.0, 5.0], [-5.0, 3.0], [3.0, -5.0], [-4.0, -6.0]])
    truth = [np.array([0, 0, 0.1, -0.05, 0.6, 900.0, 1500.0])] * 5
    blend = draw(np.random.default_rng(4), [model("exp")] * 5, truth, offsets, np.full(2, 6.0), nepoch=2)
    row, col = blend.pieces[0].place

    def with_trail(piece):
        rows, cols = np.indices(piece.shape)
        bent = rows + piece.origin[0] - row - 1.5 - 0.004 * (cols + piece.origin[1] - col) ** 2
        return replace(piece, pixels=piece.pixels + 100.0 * np.exp(-0.5 * (bent / 1.5) ** 2))

    flux = TwoSidedErf(-1e4, 1.0, 1e9, 0.25e8)
    y3 = JointPrior(CenPrior(0.27), CosmosSersic(), TwoSidedErf(-10.0, 0.03, 1e6, 1e5), [flux] * 2)
    return blend, build_canvas([with_trail(piece) for piece in blend.pieces], 5, 2), y3


def test_members_that_run_along_a_trail_are_held_and_said_not_to_converge():
    """Without the limit the two needles take hundreds of evaluations of all five members."""
    blend, canvas, y3 = beside_a_trail()
    found = fit_jointly(canvas, Recipe("dev", y3, USUAL), [blend.starts(5)], blend.offsets, blend.pairs)
    assert [one.fit.flags for one in found.members] == [0] * 5
    assert found.members[0].fit.nfev < 100
    assert not found.converged[0]
    assert found.converged[[1, 2, 4]].all()
    for k, one in enumerate(found.members):
        assert np.all(np.diag(one.fit.cov) > 0.0)
        assert one.fit.moving == (not found.converged[k],)
    # What is said to have converged has: its own step from there is short.
    sizes = np.array([one.fit.pars.size for one in found.members])
    assert (sizes == 7).all()
    pars = np.concatenate([one.fit.pars for one in found.members])
    scene = Scene(canvas.data, [model("dev")] * 5, canvas.links, [y3] * 5)
    normal, gradient = np.empty((35, 35)), np.empty(35)
    scene.chi2(pars, normal, gradient)
    scene.prior(pars, normal, gradient)
    for k in (1, 2, 4):
        part = scene.slices[k]
        step = np.linalg.solve(normal[part, part], gradient[part])
        # A quarter of a standard error; the solver ends a tenth away.
        assert step @ normal[part, part] @ step < 0.05


@pytest.mark.parametrize("name", ["dev", "cm"])
def test_members_are_no_larger_than_their_limits_beside_a_trail(name):
    """Without limits two of them have T of 5000 and 12 000 (dev), or of 76 and 90 (cm)."""
    blend, canvas, y3 = beside_a_trail()
    limits = (4.0, 9.0, 9.0, 9.0, 12.0)
    recipe = Recipe(name, y3, USUAL, FRACDEV_Y3, largest=limits)
    found = fit_jointly(canvas, recipe, [blend.starts(5)], blend.offsets, blend.pairs)
    assert [one.fit.flags for one in found.members] == [0] * 5
    sizes = np.array([one.fit.pars[4] for one in found.members])
    assert np.all(sizes <= limits)
    assert sizes[0] == limits[0]
    # One at its limit has the error of its size all the same.
    assert all(np.all(np.diag(one.fit.cov) > 0.0) for one in found.members)
    # Limits go with the members, whichever of them are fit.
    part, _ = part_of(canvas, np.array([4, 0]))
    last, first = solve(part, replace(recipe, largest=(4.0, 9.0, 9.0, 9.0, 0.2)), [blend.starts(5)[[4, 0]]])
    assert last.fit.pars[4] == 0.2
    assert 0.2 < first.fit.pars[4] <= 4.0


def test_sources_without_pixels_or_image_stay_where_they_are():
    blend = four()
    canvas = blend.canvas
    profiles, priors = [model("exp")] * 4, [prior(2)] * 4
    start = blend.starts(5).ravel()
    dark = canvas.data._replace(weight=np.zeros_like(canvas.data.weight), npix=0)
    assert np.array_equal(sweep(dark, canvas.links, profiles, priors, start, USUAL), start)
    impossible = start.copy()
    impossible[2] = 1.5
    assert np.array_equal(sweep(canvas.data, canvas.links, profiles, priors, impossible, USUAL), impossible)
