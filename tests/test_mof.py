"""Groups of a tile: run files, rows, chunks, the block, the fitted scene."""

import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import fitsio
import numpy as np
import pytest
import yaml
from blend_scenes import write_blends
from conftest import CHECKOUT
from identical import same

from balrogutils.blends import iteration, measure
from balrogutils.blends.measure import GroupFitter, MofRun
from balrogutils.blends.neighbours import fof_table, group_numbers, nbr_table
from balrogutils.blends.rendering import draw_catalogue
from balrogutils.blends.source import GroupSource, find_pairs
from balrogutils.blocks import mof as block
from balrogutils.context import Context
from balrogutils.errors import ConfigError, ProductError
from balrogutils.fitsfile import Plane, Table, write_images, write_tables
from balrogutils.fitting.flags import MofFlag, ObjectFlag
from balrogutils.layout import Site
from balrogutils.measurement import chunks
from balrogutils.measurement.sof import Fitter
from balrogutils.meds import MEDS
from balrogutils.products import read_manifest
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.mof import Mof
from balrogutils.settings.pipeline import Pipeline
from balrogutils.settings.sof import Sof

BANDS = ("g", "r")
SIZES = (2, 1, 3)
GROUPS = [[0, 1], [2], [3, 4, 5]]
NOBODY = np.empty((0, 2), int)
EXP = {"run": "test-mof", "model": "exp", "mof": {"convergence_model": "exp"}}


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    """MEDS files of a pair, a galaxy alone and a triple, and their true fluxes."""
    root = tmp_path_factory.mktemp("blends")
    paths = {band: root / f"{band}.fits" for band in BANDS}
    return paths, write_blends(paths, SIZES)


# --- run files


def test_shipped_run_files_are_understood():
    joint = Mof.load(CHECKOUT / "mof-config" / "run-y3v02-mof.yaml")
    assert joint == Mof(run="y3v02-mof", mof={"convergence_model": "cm"})
    turns = Mof.load(CHECKOUT / "mof-config" / "run-turns-mof.yaml")
    assert (turns.strategy, turns.psf_pars.model, turns.mof.min_itr) == ("turns", "em3", 10)
    assert [one.cov_pars.fracdev for one in (joint, turns)] == ["free", "fixed"]
    assert [one.largest_T for one in (joint, turns)] == [1.0, None]
    assert [GroupFitter(one, BANDS).recipe.marginalise for one in (joint, turns)] == [True, False]
    # The keys that a DES file has leave the default as it is.
    assert Mof.model_validate({"run": "x", "cov_pars": {"m": 5, "h": 1e-3}}).cov_pars.fracdev == "free"


def test_keys_of_the_des_run_are_honoured_or_refused(tmp_path):
    des = {
        "run": "des-mof", "region": "mof", "model": "cm", "checkpoints": [0, 5],
        "nbrs": {
            "buff_type": "tot", "buff_frac": 0.25, "maxsize_to_replace": 256, "new_maxsize": 384, "check_seg": True
        },
        "model_nbrs": True, "model_nbrs_method": "subtract", "make_corrected_meds": False,
        "mof": {
            "maxabs_conv": [1e-3, 1e-3, *[1e-6] * 7], "maxfrac_conv": [*[1e-6] * 5, *[1e-3] * 4], "maxerr_conv": 0.5,
            "max_itr": 15, "min_itr": 10, "min_useg_itr": 1, "write_convergence_data": False, "convergence_model": "cm",
        },
        "psf_pars": {"model": "em3", "ntry": 20, "em_pars": {"maxiter": 5000, "tol": 5.0e-6}},
    }  # fmt: skip
    path = tmp_path / "run-des-mof.yaml"
    path.write_text(yaml.safe_dump(des))
    assert Mof.load(path).psf_pars.model == "em3"
    for change, said in [
        ({"model_nbrs_method": "frac"}, "model_nbrs_method"),
        ({"make_corrected_meds": True}, "make_corrected_meds"),
        ({"correct_meds": {}}, "metacal"),
        ({"mof": {"write_convergence_data": True}}, "write_convergence_data"),
        ({"mof": {"min_itr": 20}}, "min_itr"),
        ({"mof": {"convergence_model": "exp"}}, "convergence_model"),
        ({"nbrs": {"rule": "radius", "radius": {"low": 9.0, "high": 1.0}}}, "low"),
        ({"nbrs": {"buf_frac": 0.2}}, "buff_frac"),
        ({"psf_pars": {"pixelised": True}}, "pixelised"),
        ({"strategy": "both"}, "strategy"),
        ({"largest_T": 0.0}, "largest_T"),
        ({"cov_pars": {"fracdev": "marginalised"}}, "fracdev"),
    ]:
        path.write_text(yaml.safe_dump({**des, **change}))
        with pytest.raises(ConfigError) as refused:
            Mof.load(path)
        assert said in f"{refused.value} {refused.value.remedy}"


# --- neighbours and rows


def test_neighbours_come_from_boxes_and_segmentation(tile):
    paths, _ = tile
    with GroupSource(paths) as source:
        pairs, unknown = find_pairs(source, Mof(**EXP).nbrs)
        assert pairs.tolist() == [[0, 1], [3, 4], [3, 5], [4, 5]]
        assert unknown == 0
        none = Mof.model_validate({**EXP, "nbrs": {"buff_frac": 0.49, "check_seg": False}})
        assert len(find_pairs(source, none.nbrs)[0]) == 0
        radius = Mof.model_validate({**EXP, "nbrs": {"rule": "radius", "radius": {"column": "box_size", "high": 3.0}}})
        assert find_pairs(source, replace_seg(radius))[0].tolist() == []
        wide = Mof.model_validate({**EXP, "nbrs": {"rule": "radius", "radius": {"column": "box_size", "high": 8.0}}})
        assert find_pairs(source, replace_seg(wide))[0].tolist() == pairs.tolist()
        with pytest.raises(ConfigError, match="no column iso_radius"):
            find_pairs(source, Mof.model_validate({**EXP, "nbrs": {"rule": "radius"}}).nbrs)


def replace_seg(settings):
    return settings.nbrs.model_copy(update={"check_seg": False})


@pytest.fixture(scope="module", params=["joint", "turns"])
def measured(request, tile):
    """Rows of all groups by one strategy."""
    fitter = GroupFitter(Mof(**EXP, strategy=request.param), BANDS)
    with GroupSource(tile[0]) as source:
        pairs, _ = find_pairs(source, fitter.settings.nbrs)
        out = [fitter(k, source.group(rows), local(pairs, rows)) for k, rows in enumerate(GROUPS)]
    return request.param, [np.concatenate(parts) for parts in zip(*out, strict=True)]


def local(pairs, rows):
    return np.array([[rows.index(a), rows.index(b)] for a, b in pairs if a in rows], int).reshape(-1, 2)


def test_rows_of_groups_are_consistent(measured, tile):
    strategy, (rows, epochs, nbrs) = measured
    assert rows["number"].tolist() == [1, 2, 3, 4, 5, 6]
    assert rows["fofid"].tolist() == [0, 0, 1, 2, 2, 2]
    assert rows["fofind"].tolist() == [0, 1, 0, 0, 1, 2]
    assert np.all(rows["flags"] == 0)
    assert np.all(rows["exp_mof_flags"] == 0)
    assert np.array_equal(rows["exp_flux"], rows["exp_pars"][:, 5:])
    assert np.all(rows["nimage_use"] == 3)
    errors = np.sqrt(np.diagonal(rows["exp_flux_cov"], axis1=1, axis2=2))
    # Three sigma, and 1 per cent for the end of a mixture that a stamp of the PSF does not hold.
    assert np.all(np.abs(rows["exp_flux"] - tile[1]) < 3.5 * errors + 0.01 * tile[1])
    assert np.all(np.abs(rows["exp_chi2per"] - 1.0) < 0.1)
    assert len(epochs) == rows["nimage_use"].sum()
    expected = {"joint": 1, "turns": 10}[strategy]
    assert np.all(rows["exp_mof_num_itr"][[0, 1, 3, 4, 5]] >= expected)
    assert np.all(np.isfinite(rows["exp_mof_abs_diff"]))
    # Two neighbours in the pair, six in the triple, in three epochs of two bands.
    assert len(nbrs) == (2 + 6) * 6
    assert np.all(nbrs["nbr_flags"] == 0)
    assert set(nbrs["band"]) == {b"g", b"r"}


def test_nbrs_data_tell_where_a_neighbour_is(measured, tile):
    _, (_, _, nbrs) = measured
    with MEDS(tile[0]["g"]) as meds:
        for row in nbrs[(nbrs["number"] == 1) & (nbrs["band"] == b"g")]:
            slot = int(row["cutout_index"])
            own, other = 0, int(row["nbr_number"]) - 1
            assert row["nbr_jac_row0"] == meds["orig_row"][other, slot] - meds["orig_start_row"][own, slot]
            assert row["nbr_jac_dudcol"] == meds["dudcol"][other, slot]
    assert np.all(nbrs["nbr_psf_fit_pars"].reshape(len(nbrs), 3, 6)[:, :, 0].sum(1) > 0.9)


def test_o6_an_object_alone_has_the_row_of_a_single_fit(tile):
    """With the same weights: all pixels but those of other objects."""
    group = GroupFitter(Mof(**EXP), BANDS)
    single = Fitter(Sof(run="test-sof", model="exp", region="weight", global_seed=26385), BANDS)
    with GroupSource(tile[0]) as source:
        (member,) = source.group([2])
        row, epochs, _ = group(0, [member], NOBODY)
        alone, used = single(member.target)
    for name in alone.dtype.names:
        if name != "fofid":
            assert row[name].tobytes() == alone[name].tobytes(), name
    assert epochs.tobytes() == used.tobytes()


@pytest.mark.parametrize("strategy", ["joint", "turns"])
def test_members_of_groups_are_no_larger_than_their_boxes_allow(tile, strategy):
    """48 pixels: squares of 6.3 arcsec. Galaxies of T 0.3 to 0.8 are as without a limit where that is far away; an
    object alone has none."""
    usual, small = (GroupFitter(Mof(**EXP, strategy=strategy, largest_T=value), BANDS) for value in (None, 0.005))
    far = GroupFitter(Mof(**EXP, strategy=strategy), BANDS)
    pairs = np.array([[0, 1]])
    with GroupSource(tile[0]) as source:
        members = source.group([0, 1])
        free, kept, limited = (fitter(0, members, pairs)[0] for fitter in (usual, far, small))
        (alone,) = source.group([2])
        single = [fitter(1, [alone], NOBODY)[0] for fitter in (usual, small)]
    assert free.tobytes() == kept.tobytes()
    limit = 0.005 * (24 * 0.263) ** 2
    assert np.all(free["exp_T"] > limit)
    assert limited["exp_T"] == pytest.approx(limit, rel=0.02)
    assert np.all(limited["flags"] == 0)
    assert single[0].tobytes() == single[1].tobytes()


def test_members_without_data_are_flagged_and_masked_for_the_others(tile):
    fitter = GroupFitter(Mof(**EXP), BANDS)
    with GroupSource(tile[0]) as source:
        members = source.group([3, 4, 5])
    blind = tuple(
        tuple(replace(one, observation=replace(one.observation, psf=None)) for one in epochs)
        for epochs in members[1].target.bands
    )
    members[1] = replace(members[1], target=replace(members[1].target, bands=blind))
    rows, _, nbrs = fitter(7, members, np.array([[0, 1], [0, 2]]))
    assert rows["flags"].tolist() == [0, ObjectFlag.PSF_FIT_FAILURE, 0]
    assert rows["exp_mof_flags"].tolist() == [MofFlag.NBR_NOT_FIT, 0, MofFlag.FOFMEM_NOT_FIT]
    assert np.all(rows["exp_pars"][1] == -9999)
    assert set(nbrs["nbr_number"]) == {4, 6}


def test_groups_larger_than_one_system_go_in_turns_and_lose_nobody(tile, monkeypatch):
    """Three members where two are the most: each is fit in at most fifteen rounds and ends where the joint fit does, by
    its errors, which here hold the neighbours fixed; one that cannot be fit is a flagged row, the others go on."""
    fitter = GroupFitter(Mof(**EXP), BANDS)
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    with GroupSource(tile[0]) as source:
        members = source.group([3, 4, 5])
    joint = fitter(7, members, pairs)[0]
    monkeypatch.setattr(measure, "LARGEST", 2)
    fits = []
    usual = iteration.solve
    monkeypatch.setattr(iteration, "solve", lambda *given: fits.append(usual(*given)) or fits[-1])
    turns = fitter(7, members, pairs)[0]
    assert np.all(joint["exp_mof_num_itr"] == 1)
    rounds = turns["exp_mof_num_itr"]
    assert np.all((rounds >= 2) & (rounds <= 15))
    assert len(fits) == 3 * (1 + rounds[0])
    assert turns["number"].tolist() == [4, 5, 6]
    assert np.all(turns["flags"] == 0)
    assert np.all(turns["exp_mof_flags"] == 0)
    errors = np.sqrt(np.diagonal(joint["exp_flux_cov"], axis1=1, axis2=2))
    assert np.all(np.abs(turns["exp_flux"] - joint["exp_flux"]) < 0.3 * errors)
    alone = np.sqrt(np.diagonal(turns["exp_flux_cov"], axis1=1, axis2=2))
    assert np.all(alone <= 1.001 * errors)
    monkeypatch.setattr(measure, "LARGEST", 1)
    blind = tuple(
        tuple(replace(one, observation=replace(one.observation, psf=None)) for one in epochs)
        for epochs in members[1].target.bands
    )
    some = [members[0], replace(members[1], target=replace(members[1].target, bands=blind)), members[2]]
    rows = fitter(7, some, pairs)[0]
    assert rows["flags"].tolist() == [0, ObjectFlag.PSF_FIT_FAILURE, 0]
    assert np.all(rows["exp_mof_flags"][[0, 2]] == MofFlag.NBR_NOT_FIT)


def test_stamps_that_contradict_each_other_are_an_utter_failure(tile):
    fitter = GroupFitter(Mof(**EXP), BANDS)
    with GroupSource(tile[0]) as source:
        members = source.group([0, 1])
    moved = tuple(tuple((r + 6, c) for r, c in band) for band in members[1].origins)
    rows, epochs, nbrs = fitter(0, [members[0], replace(members[1], origins=moved)], np.array([[0, 1]]))
    assert rows["flags"].tolist() == [ObjectFlag.UTTER_FAILURE] * 2
    assert len(epochs) == len(nbrs) == 0


# --- chunks and the block


def make_chunks(root, paths, size, **settings):
    config = Mof.model_validate({**EXP, **settings})
    root.mkdir(parents=True, exist_ok=True)
    with GroupSource(paths) as source:
        number = source.numbers()
        pairs, _ = find_pairs(source, config.nbrs)
    write_tables(root / "n.fits", [Table("nbrs_data", nbr_table(number, pairs))])
    write_tables(root / "f.fits", [Table("fofs", fof_table(number, group_numbers(number.size, pairs)))])
    run = MofRun(config, paths, root / "n.fits", root / "f.fits")
    todo = [
        chunks.Chunk(a, b, root / f"c{a}-{b}.fits", root / f"c{a}-{b}.json", run, {"tile": "T"}, {"g": "1"})
        for a, b in chunks.partition(3, size)
    ]
    return todo, number


@pytest.mark.parametrize("strategy", ["joint", "turns"])
def test_every_object_has_a_row_whatever_the_chunks(tmp_path, tile, strategy):
    tables = []
    for size in (1, 100):
        todo, number = make_chunks(tmp_path / str(size), tile[0], size, strategy=strategy)
        assert chunks.run_chunks(todo, 1).reused == 0
        tables.append(chunks.collate(todo, tmp_path / f"all{size}.fits", number))
    assert tables[0]["number"].tolist() == [1, 2, 3, 4, 5, 6]
    assert tables[0].tobytes() == tables[1].tobytes()
    assert same(tmp_path / "all1.fits", tmp_path / "all100.fits")
    with fitsio.FITS(str(tmp_path / "all1.fits")) as fits:
        names = [hdu.get_extname() for hdu in fits][1:]
    assert names == ["model_fits", "epoch_data", "nbrs_data", "meta_data"]


def test_finished_chunks_are_reused_until_something_changes(tmp_path, tile):
    todo, _ = make_chunks(tmp_path, tile[0], 1)
    chunks.run_chunks(todo, 1)
    before = [chunk.product.stat().st_mtime_ns for chunk in todo]
    time.sleep(0.01)
    todo[2].product.unlink()
    assert chunks.run_chunks(todo, 1).reused == 2
    after = [chunk.product.stat().st_mtime_ns for chunk in todo]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False]
    assert not any(chunks.is_done(chunk) for chunk in make_chunks(tmp_path, tile[0], 1, strategy="turns")[0])
    assert chunks.is_done(make_chunks(tmp_path, tile[0], 1, jobs={"chunksize": 5})[0][1])


@pytest.mark.long
def test_two_processes_make_the_same(tmp_path, tile):
    made = []
    for workers in (1, 2):
        todo, number = make_chunks(tmp_path / str(workers), tile[0], 1)
        chunks.run_chunks(todo, workers)
        made.append(chunks.collate(todo, tmp_path / str(workers) / "all.fits", number).tobytes())
    assert made[0] == made[1]


def make_context(root: Path, config: Path, realization=None) -> Context:
    site = Site.from_environment("y3v02", {"BALROG_BASE": str(root)})
    campaign = Campaign(kind="desdm", database="sqlite://", archive="file:///", bands=BANDS, det=BANDS, name="test")
    return Context(site, Pipeline(mof_config=str(config), bands=BANDS), campaign, "DES0239+0216", realization)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run-y3v02-mof.yaml"
    path.write_text("run: y3v02-mof\nmodel: exp\njobs: {chunksize: 2}\n")
    return path


# Pixels of the coadds that interpolation overwrote.
FILLED = np.s_[200:230, 150:190]


def fill_tree(tree, paths):
    for band in BANDS:
        tree.meds(band).parent.mkdir(parents=True, exist_ok=True)
        tree.meds(band).write_bytes(paths[band].read_bytes())
        tree.coadd.mkdir(parents=True, exist_ok=True)
        sky = np.random.default_rng(3).normal(0, 1, (480, 480)).astype(np.float32)
        mask = np.zeros(sky.shape, np.int16)
        mask[FILLED] = 1
        write_images(tree.image(band), [Plane("SCI", sky), Plane("MSK", mask), Plane("WGT", sky * 0 + 1)])


@pytest.mark.parametrize("realization", [None, "0"])
def test_block_makes_catalogue_groups_and_scenes(tmp_path, tile, config, realization):
    context = make_context(tmp_path, config, realization)
    tree = context.tree
    fill_tree(tree, tile[0])
    block.mof(context, 1)
    rows = fitsio.read(str(tree.fit("mof")), ext="model_fits")
    assert rows["number"].tolist() == [1, 2, 3, 4, 5, 6]
    assert fitsio.read(str(tree.groups("mof", "nbrsfofs")))["fofid"].tolist() == [0, 0, 1, 2, 2, 2]
    assert (fitsio.read(str(tree.groups("mof", "nbrslist")))["nbr_number"] == -1).sum() == 1
    counts = read_manifest(tree.manifest("mof"))["counts"]
    assert counts == {
        "groups": 3, "largest_group": 3, "objects": 6, "good": 6, "flagged": 0, "chunks": 2, "chunks_reused": 0
    }  # fmt: skip
    for number, band in enumerate(BANDS):
        assert tree.scene("mof", band, "png").stat().st_size > 1000
        model = fitsio.read(str(tree.scene("mof", band)), ext="MODEL")
        assert model.sum() == pytest.approx(rows["exp_flux"][:, number].sum(), rel=0.02)
        rest = fitsio.read(str(tree.scene("mof", band)), ext="RESIDUAL")
        left = fitsio.read(str(tree.image(band)), ext="SCI") - model
        left[FILLED] = 0.0
        assert np.abs(rest - left).max() < 1e-3
    first = tree.fit("mof").rename(tmp_path / "first.fits")
    block.mof(context, 1)
    assert read_manifest(tree.manifest("mof"))["counts"]["chunks_reused"] == 2
    assert same(tree.fit("mof"), first)


def run_block(root, config, workers):
    block.mof(make_context(root, config), workers)


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_block_goes_on_where_it_was(tmp_path, tile, workers):
    made = {}
    for name in ("undisturbed", "killed"):
        root = tmp_path / name
        root.mkdir()
        config = root / "run-y3v02-mof.yaml"
        config.write_text("run: y3v02-mof\nmodel: exp\njobs: {chunksize: 1}\n")
        tree = make_context(root, config).tree
        fill_tree(tree, tile[0])
        if name == "killed":
            process = multiprocessing.get_context("spawn").Process(target=run_block, args=(root, config, workers))
            process.start()
            first = tree.manifest("mof-chunk000000-000000")
            until = time.monotonic() + 120
            while not first.is_file() and process.is_alive():
                assert time.monotonic() < until
                time.sleep(0.005)
            process.kill()
            process.join()
            assert not tree.manifest("mof").exists()
        run_block(root, config, workers)
        made[name] = tree
    assert read_manifest(made["killed"].manifest("mof"))["counts"]["chunks_reused"] >= 1
    for path in (lambda tree: tree.fit("mof"), *(lambda tree, b=band: tree.scene("mof", b) for band in BANDS)):
        assert same(path(made["undisturbed"]), path(made["killed"]))
    pictures = [tree.scene("mof", "g", "png").read_bytes() for tree in made.values()]
    assert pictures[0] == pictures[1]


def test_the_scene_is_the_image_without_its_noise(tile, measured):
    """The coadd stamps less the drawn scene are noise."""
    _, (rows, _, _) = measured
    with MEDS(tile[0]["g"]) as meds:
        image, drawn = draw_catalogue((480, 480), rows, "exp", 0, meds)
        assert drawn == 6
        for index in range(6):
            r, c = (int(meds[f"orig_start_{axis}"][index, 0]) for axis in ("row", "col"))
            left = meds.get_cutout(index, 0) - image[r : r + 48, c : c + 48]
            # 48 x 48 pixels of noise 2: chi^2 within 5 sigma and what errors of the fits add.
            assert np.mean((left / 2.0) ** 2) == pytest.approx(1.0, abs=0.2)


def test_block_without_its_inputs_says_which_block_makes_them(tmp_path, tile, config):
    context = make_context(tmp_path, config, "0")
    with pytest.raises(ProductError, match="run block 32 first"):
        block.mof(context, 1)
    fill_tree(context.tree, tile[0])
    context.tree.image("r").unlink()
    with pytest.raises(ProductError, match="run block 16 first"):
        block.mof(context, 1)


def test_files_without_segmentation_are_refused_where_it_counts(tile, monkeypatch):
    monkeypatch.setattr(MEDS, "types", property(lambda meds: ("image", "weight", "psf")))
    with GroupSource(tile[0]) as source:
        with pytest.raises(ProductError, match="no segmentation stamps") as refused:
            find_pairs(source, Mof(**EXP).nbrs)
        assert "check_seg: false" in refused.value.remedy
        assert len(find_pairs(source, replace_seg(Mof(**EXP)))[0]) == 4


def test_files_of_different_objects_are_refused(tmp_path, tile, config):
    context = make_context(tmp_path, config)
    fill_tree(context.tree, tile[0])
    write_blends({"r": context.tree.meds("r")}, (1, 2))
    with pytest.raises(ProductError, match="the ids are not those of"):
        block.mof(context, 1)
    assert not context.tree.fit("mof").exists()


def test_turns_may_keep_to_own_pixels_for_some_rounds(tile):
    """Also where a stamp has none of them."""
    pars = {**EXP, "strategy": "turns", "mof": {"convergence_model": "exp", "min_useg_itr": 3}}
    fitter = GroupFitter(Mof.model_validate(pars), BANDS)
    with GroupSource(tile[0]) as source:
        members = source.group([0, 1])
    labels = tuple(
        tuple(one if k else np.full_like(one, 2) for k, one in enumerate(band)) for band in members[0].labels
    )
    rows, _, _ = fitter(0, [replace(members[0], labels=labels), members[1]], np.array([[0, 1]]))
    assert rows["flags"].tolist() == [0, 0]
    errors = np.sqrt(np.diagonal(rows["exp_flux_cov"], axis1=1, axis2=2))
    assert np.all(np.abs(rows["exp_flux"] - tile[1][:2]) < 4.0 * errors + 0.01 * tile[1][:2])
