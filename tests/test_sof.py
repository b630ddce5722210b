"""One object, one catalogue, one block: rows, flags, chunks, resume."""

import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import fitsio
import galsim
import numpy as np
import pytest
from identical import same
from simulated_stamps import observe, write_meds

from balrogutils.blocks import sof as block
from balrogutils.context import Context
from balrogutils.errors import ConfigError, ProductError
from balrogutils.fitsfile import Table, read_table, write_tables
from balrogutils.fitting.flags import FitFlag, ObjectFlag
from balrogutils.fitting.observation import LocalWCS, PSFStamp
from balrogutils.layout import Site
from balrogutils.masks import MaskBit
from balrogutils.measurement import chunks
from balrogutils.measurement.catalogue import epoch_rows, model_rows, with_band_axis
from balrogutils.measurement.medsource import MedsSource
from balrogutils.measurement.sof import Fitter, SofRun
from balrogutils.measurement.target import Coadd, Epoch, Target
from balrogutils.products import read_manifest
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.pipeline import Pipeline
from balrogutils.settings.sof import Sof

BANDS = ("g", "r")
OBJECTS = 7
EXP = Sof(run="test-sof", model="exp")


@pytest.fixture(scope="module")
def fitter():
    return Fitter(EXP, BANDS)


def target(edit=None, epochs=3, noise=2.0, size=48, flux=800.0):
    rng = np.random.default_rng(1)
    profile = galsim.Exponential(half_light_radius=0.4).shear(g1=0.1, g2=-0.05)
    bands = []
    for number in range(len(BANDS)):
        seen = [observe(rng, profile, flux * (1 + number), noise, size) for _ in range(epochs)]
        seen = [one if edit is None else edit(number, k, one) for k, one in enumerate(seen)]
        bands.append(tuple(Epoch(one, k + 1, k + 1, 100.0, 200.0, "D1_g_c01") for k, one in enumerate(seen) if one))
    return Target(17, 3, 40.0, 2.0, size, tuple(bands))


def stamps(**changes):
    return lambda band, k, one: replace(one, **{name: make(one) for name, make in changes.items()})


def _one_pixel(image):
    out = np.zeros_like(image)
    out[20, 20] = 1.0
    return out


BROKEN = {
    "NaN images": (stamps(image=lambda one: one.image * np.nan), ObjectFlag.IMAGE_FLAGS),
    "zero images": (stamps(image=lambda one: one.image * 0), ObjectFlag.IMAGE_FLAGS),
    "zero weights": (stamps(weight=lambda one: one.weight * 0), ObjectFlag.IMAGE_FLAGS),
    "NaN weights": (stamps(weight=lambda one: one.weight * np.nan), ObjectFlag.IMAGE_FLAGS),
    "all masked": (stamps(bmask=lambda one: np.full(one.image.shape, 2)), ObjectFlag.IMAGE_FLAGS),
    "flagged images": (stamps(flags=lambda one: 1), ObjectFlag.IMAGE_FLAGS),
    "no PSF": (stamps(psf=lambda one: None), ObjectFlag.PSF_FIT_FAILURE),
    "NaN PSF": (stamps(psf=lambda one: PSFStamp(one.psf.image * np.nan, 20, 20)), ObjectFlag.PSF_FIT_FAILURE),
    "zero PSF": (stamps(psf=lambda one: PSFStamp(one.psf.image * 0, 20, 20)), ObjectFlag.PSF_FIT_FAILURE),
    "one-pixel PSF": (stamps(psf=lambda one: PSFStamp(_one_pixel(one.psf.image), 20, 20)), ObjectFlag.PSF_FIT_FAILURE),
    "singular Jacobian": (stamps(wcs=lambda one: one.wcs._replace(dudrow=0.0, dudcol=0.0)), ObjectFlag.IMAGE_FLAGS),
    "no exposure in r": (lambda band, k, one: None if band == 1 else one, ObjectFlag.NO_CUTOUTS),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_objects_are_flagged_rows_with_fills(fitter, name):
    edit, flag = BROKEN[name]
    row, epochs = fitter(target(edit))
    assert len(row) == 1
    assert row["flags"][0] & flag
    assert row["exp_flags"][0] == FitFlag.NO_ATTEMPT
    assert np.all(row["exp_pars"] == -9999)
    assert np.all(row["exp_pars_cov"] == 9999)
    assert len(epochs) == row["nimage_use"].sum()
    for column in row.dtype.names:
        assert np.all(np.isfinite(row[column]))


def test_one_pixel_is_no_galaxy(fitter):
    def one_pixel(band, k, one):
        region = np.zeros_like(one.weight)
        region[24, 24] = 1.0
        return replace(one, region=region)

    row, _ = fitter(target(one_pixel, epochs=1))
    assert row["flags"][0] & (ObjectFlag.GAL_FIT_FAILURE | ObjectFlag.PSF_FLUX_FIT_FAILURE)
    assert row["exp_T"][0] == -9999


def test_too_big_a_box_is_flagged():
    small = Fitter(Sof(run="x", model="exp", max_box_size=32), BANDS)
    assert small(target())[0]["flags"][0] == ObjectFlag.BOX_SIZE_TOO_BIG


def test_evaluation_limit_is_a_galaxy_failure():
    hasty = Fitter(Sof.model_validate({"run": "x", "model": "exp", "max_pars": {"lm_pars": {"maxfev": 2}}}), BANDS)
    row, _ = hasty(target())
    assert row["flags"][0] == ObjectFlag.GAL_FIT_FAILURE
    assert row["exp_flags"][0] == FitFlag.MAXITER
    assert row["psf_flux"][0, 0] > 0


def test_good_object_is_a_consistent_row(fitter):
    row, epochs = fitter(target())
    (row,) = row
    assert row["flags"] == row["obj_flags"] == row["exp_flags"] == 0
    assert (row["id"], row["number"], row["ra"], row["box_size"], row["fofid"], row["time_last_fit"]) == (
        17,
        3,
        40,
        48,
        -9999,
        0,
    )
    assert np.array_equal(row["nimage_use"], [3, 3])
    assert np.array_equal(row["exp_flux"], row["exp_pars"][5:])
    assert row["exp_T"] == row["exp_pars"][4]
    assert row["exp_mag"] == pytest.approx(30 - 2.5 * np.log10(row["exp_flux"]))
    assert row["psf_mag"] == pytest.approx(30 - 2.5 * np.log10(row["psf_flux"]))
    assert np.all(np.linalg.eigvalsh(row["exp_pars_cov"]) > 0)
    assert row["exp_T_err"] == pytest.approx(np.sqrt(row["exp_pars_cov"][4, 4]))
    assert row["exp_chi2per"] == pytest.approx(1.0, abs=0.1)
    # Five sigma, and half a per cent for the wings of the PSF that three Gaussians do not have.
    errors = np.sqrt(np.diag(row["exp_flux_cov"]))
    assert np.all(np.abs(row["exp_flux"] - [800, 1600]) < 5 * errors + [8, 16])
    assert row["exp_T_r"] == pytest.approx(
        row["exp_T"] * np.divide(*(1 + np.array([-1, 1]) * (row["exp_g"] ** 2).sum()))
    )
    assert 0 < row["exp_s2n_r"] < 1.1 * row["exp_s2n_w"]
    assert -1e-12 < row["mask_frac"] < 0.1
    assert len(epochs) == 6
    assert row["psfrec_T"] == pytest.approx(np.average(epochs["psf_fit_T"], weights=epochs["wsum"]))
    assert set(epochs["band"]) == {b"g", b"r"}
    assert epochs["psf_fit_pars"].reshape(6, 3, 6)[:, :, 0].sum(1) == pytest.approx(epochs["psf_counts"])


MODELS = ("gauss", "turb", "exp", "dev", "cm", "bdf", "bd", "exp_true", "dev_true", "bdf_true", "sersic")


@pytest.mark.parametrize("model", MODELS)
def test_every_model_makes_a_consistent_row(model):
    row, _ = Fitter(Sof(run="x", model=model), BANDS)(target(noise=1.0))
    (row,) = row
    assert row["flags"] == 0
    extras = row[f"{model}_pars"].size - 5 - len(BANDS)
    assert extras == {"bdf": 1, "bdf_true": 1, "bd": 2, "sersic": 1}.get(model, 0)
    assert np.array_equal(row[f"{model}_pars"][-2:], row[f"{model}_flux"])
    cov = row[f"{model}_pars_cov"]
    assert np.array_equal(cov[-2:, -2:], row[f"{model}_flux_cov"])
    assert np.all(np.linalg.eigvalsh(cov) > 0)
    for name in row.dtype.names:
        assert np.all(np.isfinite(row[name])), name
    if model in ("exp", "exp_true", "sersic", "bdf", "bdf_true", "bd", "cm"):
        # An exponential galaxy of S/N 250: models that can be one find its flux, but for the prior of fracdev
        # (0.5 +- 0.1) and the wings of the PSF that three Gaussians do not have.
        share = 0.06 if "b" in model else 0.02
        assert row[f"{model}_flux"] == pytest.approx([800, 1600], rel=share)
    if model == "sersic":
        assert row["sersic_n"] == pytest.approx(1.0, abs=5 * row["sersic_n_err"])


def test_composite_says_what_it_is_made_of():
    rng = np.random.default_rng(3)
    disk = galsim.Exponential(half_light_radius=0.5)
    bulge = galsim.DeVaucouleurs(half_light_radius=0.5)
    found = {}
    for name, profile in (("disk", disk), ("bulge", bulge)):
        seen = tuple(Epoch(observe(rng, profile, 3000.0, 0.5, 64), k, k, 1.0, 1.0) for k in (1, 2, 3))
        row, _ = Fitter(Sof(run="x"), ("g",))(Target(1, 1, 0.0, 0.0, 64, (seen,)))
        assert row["flags"][0] == 0
        found[name] = row[0]
    for row in found.values():
        clipped = np.clip(row["cm_fracdev_noclip"], 0.0, 1.0)
        assert row["cm_fracdev"] == pytest.approx(clipped)
        assert row["cm_TdByTe"] == row["cm_TdByTe_noclip"] > 0
        assert 0 < row["cm_fracdev_err"] < 0.2
    assert found["disk"]["cm_fracdev"] < 0.1 < 0.8 < found["bulge"]["cm_fracdev"]
    # Ranges of the run file.
    fitter = Fitter(Sof.model_validate({"run": "x", "max_pars": {"fracdev_range": [0.4, 0.6]}}), ("g",))
    seen = tuple(Epoch(observe(rng, disk, 3000.0, 0.5, 64), k, k, 1.0, 1.0) for k in (1, 2, 3))
    assert fitter(Target(1, 1, 0.0, 0.0, 64, (seen,)))[0]["cm_fracdev"][0] == pytest.approx(0.4)


def test_errors_of_a_composite_hold_those_of_its_share_by_choice():
    """Nothing else changes; the default is that of DES catalogues."""
    rows = {}
    for errors in ("fixed", "free"):
        pars = {"run": "x", "cov_pars": {"fracdev": errors}}
        (rows[errors],) = Fitter(Sof.model_validate(pars), BANDS)(target(noise=3.0))[0]
    default, free = Fitter(Sof(run="x"), BANDS)(target(noise=3.0))[0][0], rows["free"]
    assert default == rows["fixed"]
    wider = {"cm_pars_cov", "cm_max_pars_cov", "cm_g_cov", "cm_T_err", "cm_T_s2n", "cm_flux_cov", "cm_flux_s2n"}
    changed = {name for name in default.dtype.names if not np.array_equal(default[name], free[name])}
    assert changed == wider
    added = free["cm_pars_cov"] - default["cm_pars_cov"]
    # Of one source one direction is added.
    assert np.linalg.matrix_rank(added, tol=1e-6 * np.abs(added).max()) == 1
    assert 1.0 < np.sqrt(free["cm_flux_cov"][0, 0] / default["cm_flux_cov"][0, 0]) < 3.0


def test_a_bright_star_is_a_composite_without_size():
    """Neither an exponential nor a bulge is a star, and no mix of the two is best: the fit must end all the same."""
    rng = np.random.default_rng(5)
    seen = tuple(Epoch(observe(rng, None, 1e5, 2.0, 48), k, k, 1.0, 1.0) for k in (1, 2, 3))
    row, _ = Fitter(Sof(run="x"), ("g",))(Target(1, 1, 0.0, 0.0, 48, (seen,)))
    (row,) = row
    assert row["flags"] == 0
    # S/N 7000: what three Gaussians leave of the PSF is 1 % of the size of the PSF, and flux follows size.
    assert abs(row["cm_T"]) < 0.02 * row["psfrec_T"]
    assert row["cm_flux"][0] == pytest.approx(row["psf_flux"][0], rel=0.01)
    assert 0 <= row["cm_fracdev"] <= 1


@pytest.mark.parametrize("psf", ["gauss", "turb", "coellip5", "em3"])
def test_every_psf_model_serves(psf):
    fitter = Fitter(Sof.model_validate({"run": "x", "model": "exp", "psf_pars": {"model": psf}}), BANDS)
    row, epochs = fitter(target())
    assert row["flags"][0] == 0
    assert np.all(epochs["psf_fit_flags"] == 0)
    pars = epochs["psf_fit_pars"].reshape(len(epochs), -1, 6)
    assert pars[:, :, 0].sum(1) == pytest.approx(epochs["psf_counts"])


@pytest.mark.parametrize("model", ["exp", "cm"])
def test_the_pixelised_psf_mends_what_one_gaussian_lacks(model):
    flux = {}
    for pixelised in (False, True):
        pars = {"run": "x", "model": model, "psf_pars": {"model": "gauss", "pixelised": pixelised}}
        row, _ = Fitter(Sof.model_validate(pars), BANDS)(target(noise=0.2))
        assert row["flags"][0] == 0
        flux[pixelised] = row[f"{model}_flux"][0] / [800, 1600] - 1
    assert np.all(np.abs(flux[True]) < 0.01)
    assert np.all(np.abs(flux[False]) > 2 * np.abs(flux[True]))


def test_what_a_star_saturated_in_one_band_counts_in_none():
    def starry(band, k, one):
        bmask = np.zeros(one.image.shape, np.int32)
        if (band, k) == (0, 1):
            bmask[30:33, 30:33] = MaskBit.SATURATE | MaskBit.STAR
        return replace(one, bmask=bmask, seg=np.zeros(one.image.shape, np.int32))

    plain = replace(target(starry), coadds=(Coadd(LocalWCS(23.5, 23.5, 0.263, 0, 0, 0.263), (48, 48)),) * 2)
    used = {}
    for switch in (False, True):
        fitter = Fitter(Sof.model_validate({"run": "x", "model": "exp", "propagate_star_flags": switch}), BANDS)
        row, epochs = fitter(plain)
        assert row["flags"][0] == 0
        used[switch] = epochs["npix"]
    lost = used[False] - used[True]
    # 3 x 3 pixels, grown by two, less those of the epoch itself that are masked anyway; rounding of the maps may add
    # or lose a row and a column.
    assert lost[1] == pytest.approx(49 - 9, abs=16)
    assert np.all(np.abs(np.delete(lost, 1) - 49) <= 16)


def test_flux_scales_and_sign_of_the_offset(fitter):
    """A galaxy away from the catalogue position is found there: v along rows, u along columns."""

    def moved(band, k, one):
        row, col = one.wcs.row0 - 0.5, one.wcs.col0 + 0.25
        return replace(one, wcs=one.wcs.at(row, col))

    plain, _ = fitter(target(noise=0.1))
    shifted, _ = fitter(target(moved, noise=0.1))
    assert shifted["exp_pars"][0, 0] - plain["exp_pars"][0, 0] == pytest.approx(0.5 * 0.263, rel=0.05)
    assert shifted["exp_pars"][0, 1] - plain["exp_pars"][0, 1] == pytest.approx(-0.25 * 0.263, rel=0.05)


def test_the_same_object_twice_is_the_same_row(fitter):
    first, second = fitter(target()), Fitter(EXP, BANDS)(target())
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()


def test_columns_are_those_of_the_catalogues():
    rows = model_rows("exp", 4, 2)
    assert rows.dtype["exp_pars_cov"].shape == (9, 9)
    assert rows.dtype["nimage_use"].base == np.int32
    assert rows.dtype["box_size"] == np.int16
    assert rows.dtype["psf_flux"].shape == (4,)
    assert np.all(rows["exp_g"] == -9999)
    assert np.all(rows["exp_T_err"] == 9999)
    assert epoch_rows(3, 1).dtype["psf_fit_pars"].shape == (18,)


# --- chunks and the block


@pytest.fixture(scope="module")
def meds(tmp_path_factory):
    root = tmp_path_factory.mktemp("meds")
    paths = {band: root / f"{band}.fits" for band in BANDS}
    for number, path in enumerate(paths.values()):
        write_meds(path, number, OBJECTS)
    return paths


def make_chunks(root, meds, size, **settings):
    config = Sof(**{"run": "test-sof", "model": "exp", **settings})
    return [
        chunks.Chunk(
            a, b, root / f"c{a}-{b}.fits", root / f"c{a}-{b}.json", SofRun(config, meds), {"tile": "T"}, {"g": "1"}
        )
        for a, b in chunks.partition(OBJECTS, size)
    ]


def test_partition():
    assert chunks.partition(0, 5) == []
    assert chunks.partition(7, 3) == [(0, 2), (3, 5), (6, 6)]


def test_every_object_has_a_row_whatever_the_chunks(tmp_path, meds):
    tables = []
    for size in (3, 100):
        todo = make_chunks(tmp_path / str(size), meds, size)
        assert chunks.run_chunks(todo, 1).reused == 0
        tables.append(chunks.collate(todo, tmp_path / f"all{size}.fits"))
    assert len(tables[0]) == OBJECTS
    assert np.array_equal(tables[0]["number"], np.arange(1, OBJECTS + 1))
    assert tables[0].tobytes() == tables[1].tobytes()
    assert np.count_nonzero(tables[0]["flags"]) == 0
    assert same(tmp_path / "all3.fits", tmp_path / "all100.fits")
    with fitsio.FITS(str(tmp_path / "all3.fits")) as fits:
        assert [hdu.get_extname() for hdu in fits][1:] == ["model_fits", "epoch_data", "meta_data"]
        assert len(fits["epoch_data"].read()) == tables[0]["nimage_use"].sum()
        assert fits["meta_data"].read()["bands"][0].strip() == "g,r"


def test_finished_chunks_are_reused_until_something_changes(tmp_path, meds):
    todo = make_chunks(tmp_path, meds, 3)
    chunks.run_chunks(todo, 1)
    before = [chunk.product.stat().st_mtime_ns for chunk in todo]
    time.sleep(0.01)
    todo[1].product.unlink()
    assert chunks.run_chunks(todo, 1).reused == 2
    after = [chunk.product.stat().st_mtime_ns for chunk in todo]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert chunks.run_chunks(make_chunks(tmp_path, meds, 3, jobs={"chunksize": 9}), 1).reused == 3
    assert not any(chunks.is_done(chunk) for chunk in make_chunks(tmp_path, meds, 3, model="gauss"))
    assert not any(chunks.is_done(replace(chunk, inputs={"g": "2"})) for chunk in todo)
    todo[2].product.write_bytes(todo[2].product.read_bytes()[:-2880])
    assert not chunks.is_done(todo[2])
    todo[0].manifest.write_text("{")
    assert not chunks.is_done(todo[0])


@pytest.mark.long
def test_two_processes_make_the_same(tmp_path, meds):
    tables = []
    for workers in (1, 2):
        todo = make_chunks(tmp_path / str(workers), meds, 3)
        chunks.run_chunks(todo, workers)
        tables.append(chunks.collate(todo, tmp_path / str(workers) / "all.fits").tobytes())
    assert tables[0] == tables[1]
    assert not multiprocessing.active_children()


def test_bands_with_different_objects_are_refused(tmp_path, meds):
    write_meds(tmp_path / "short.fits", 1, OBJECTS - 1)
    with pytest.raises(ProductError, match="ids are not those"):
        MedsSource({"g": meds["g"], "r": tmp_path / "short.fits"})


def test_missing_meds_is_named(tmp_path, meds):
    with pytest.raises(ProductError, match=r"nowhere\.fits"):
        MedsSource({"g": tmp_path / "nowhere.fits"})


def make_context(root: Path, config: Path, realization=None, bands=BANDS) -> Context:
    site = Site.from_environment("y3v02", {"BALROG_BASE": str(root)})
    campaign = Campaign(kind="desdm", database="sqlite://", archive="file:///", bands=bands, det=bands, name="test")
    return Context(site, Pipeline(sof_config=str(config), bands=bands), campaign, "DES0239+0216", realization)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run-y3v02-sof.yaml"
    path.write_text("run: y3v02-sof\nmodel: exp\njobs: {chunksize: 4}\n")
    return path


@pytest.mark.parametrize("realization", [None, "0"])
def test_block_makes_catalogue_chunks_and_manifest(tmp_path, meds, config, realization):
    context = make_context(tmp_path, config, realization)
    tree = context.tree
    for band in BANDS:
        tree.meds(band).parent.mkdir(parents=True, exist_ok=True)
        tree.meds(band).write_bytes(meds[band].read_bytes())
    block.sof(context, 1)
    rows = fitsio.read(str(tree.fit("sof")), ext="model_fits")
    assert len(rows) == OBJECTS
    assert tree.fit_chunk("sof", 0, 3).is_file()
    assert tree.fit_chunk("sof", 4, 6).is_file()
    made = read_manifest(tree.manifest("sof"))
    assert made["counts"] == {"objects": OBJECTS, "good": OBJECTS, "flagged": 0, "chunks": 2, "chunks_reused": 0}
    assert {Path(entry["path"]).name for entry in made["inputs"]} >= {tree.meds(band).name for band in BANDS}
    first = tree.fit("sof").rename(tmp_path / "first.fits")
    block.sof(context, 1)
    assert read_manifest(tree.manifest("sof"))["counts"]["chunks_reused"] == 2
    assert same(tree.fit("sof"), first)


def test_block_without_meds_says_which_block_makes_them(tmp_path, config):
    with pytest.raises(ProductError, match="run block 32 first"):
        block.sof(make_context(tmp_path, config, "0"), 1)


def test_block_refuses_bands_the_tile_lacks(tmp_path, config):
    config.write_text("run: y3v02-sof\njobs: {bands: [g, r, Y]}\n")
    with pytest.raises(ConfigError, match="band Y"):
        block.sof(make_context(tmp_path, config), 1)


@pytest.mark.parametrize("model", ["cm", "bdf", "exp"])
def test_fits_of_one_band_have_their_axis_again(tmp_path, model):
    # FITS keeps a vector of one as a number.
    rows = model_rows(model, 1, 3)
    rows[f"{model}_flux"][:, 0] = rows["psf_mag"][:, 0] = 1.0, 2.0, 3.0
    write_tables(tmp_path / "fits.fits", [Table("model_fits", rows)])
    found = with_band_axis(read_table(tmp_path / "fits.fits", "model_fits"), 1)
    assert found.dtype.newbyteorder("=") == rows.dtype
    assert all(np.array_equal(found[name], rows[name]) for name in rows.dtype.names)
    assert with_band_axis(rows[:0], 1).shape == (0,)
