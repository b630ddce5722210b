"""BFD moments of a tile: settings, objects, neighbours taken away, chunks, the block."""

from dataclasses import replace
from pathlib import Path

import galsim
import numpy as np
import pytest
from bfd_truth import exponential_moments
from identical import same
from simulated_stamps import write_meds
from tile_objects import BANDS, BROKEN, catalogue, fit_light, make_context, target

from balrogutils.blocks import bfd as block
from balrogutils.errors import ConfigError, ProductError
from balrogutils.fitsfile import read_table
from balrogutils.fitting.flags import FitFlag, ObjectFlag
from balrogutils.measurement.bfd import BfdFitter, BfdRun
from balrogutils.measurement.lightmodels import LightModels
from balrogutils.settings.bfd import Bfd

OBJECTS = 3
SHIPPED = Path(__file__).resolve().parents[1] / "bfd-config" / "run-y3v02-bfd.yaml"
PLAIN = Bfd(run="test", correct_meds={"mof_run": None}, band_weights={"g": 0.4, "r": 0.6})
# Without noise the epochs of different PSFs are outliers of each other.
EXACT = Bfd(run="test", correct_meds={"mof_run": None, "reject_outliers": False}, band_weights={"g": 0.4, "r": 0.6})


def load(tmp_path, text):
    path = tmp_path / "run-x.yaml"
    path.write_text(text)
    return Bfd.load(path)


def test_shipped_file_holds_the_defaults():
    assert Bfd.load(SHIPPED) == Bfd(run="y3v02-bfd")
    # Part of the keys are given: the rest is BFD's default, not metacal's.
    assert not Bfd(run="x", correct_meds={"mof_run": None}).correct_meds.symmetrize_mask


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("run: x\nwt_n: 0", "wt_n"),
        ("run: x\nwt_n: 2.5", "wt_n"),
        ("run: x\nwt_sigma: 0", "wt_sigma"),
        ("run: x\nwt_sigma: .nan", "wt_sigma"),
        ("run: x\npad_factor: 0.5", "pad_factor"),
        ("run: x\nbad_pixel_threshold: 1.5", "bad_pixel_threshold"),
        ("run: x\nband_weights: {r: -0.1}", "band_weights"),
        ("run: x\nband_weights: [0, 0.55, 0.3, 0.15]", "must be `key: value` lines"),
        ("run: x\nsave_bands_separately: maybe", "save_bands_separately"),
        ("run: x\ntargets: false", "targets"),
        ("run: x\nmax_zero_weight_frac: 0.1", "bad_pixel_threshold says"),
        ("run: x\nnum_proc: 16", "fit_workers"),
        ("run: x\nmoffile: a.fits", "products have their places"),
        ("run: x\nbands: [g, r]", "all bands of the tile are measured"),
        ("run: x\njobs: {bands: [r]}", "weight 0 in band_weights"),
        ("run: x\nmetacal_pars: {psf: gauss}", "metacal run"),
        ("run: x\nmof: {max_itr: 15}", "belongs to a MOF run"),
        ("run: x\nmodel: gauss", "model"),
        ("run: x\nfitter_type: max-ngmix-boot", "fitter_type"),
        ("run: x\npsf_pars: {pixelised: true}", "pixelised is for fits"),
        ("run: x\nwt_sigam: 1.0", "did you mean 'wt_sigma'"),
    ],
)
def test_wrong_keys_are_named(tmp_path, text, match):
    with pytest.raises(ConfigError, match=match):
        load(tmp_path, text)


def test_a_band_without_a_weight_is_refused(tmp_path):
    settings = load(tmp_path, "run: x\nband_weights: {g: 0, r: 1}")
    assert settings.bands(("g", "r")) == ("g", "r")
    with pytest.raises(ConfigError, match="does not say what band Y counts"):
        settings.bands(("r", "Y"))
    with pytest.raises(ConfigError, match="none of the bands g counts"):
        settings.bands(("g",))


@pytest.mark.parametrize("name", BROKEN)
def test_broken_objects_are_flagged_rows_with_fills(name):
    edit, flag = BROKEN[name]
    row, epochs = BfdFitter(PLAIN, BANDS, None)(target(edit))
    assert row["flags"][0] & flag
    assert row["bfd_flags"][0] in (FitFlag.NO_ATTEMPT, FitFlag.ZERO_DOF)
    assert np.all(row["bfd_even"] == -9999)
    assert np.all(row["bfd_band_even_cov"] == 9999)
    assert len(epochs) == row["nimage_use"].sum()
    for column in row.dtype.names:
        assert np.all(np.isfinite(row[column])), column


def test_an_object_that_is_not_there_is_flagged():
    """An image of nothing but a hole in the sky has no centroid."""
    row, _ = BfdFitter(PLAIN, BANDS, None)(target(lambda band, k, one: replace(one, image=-one.image)))
    assert row["flags"][0] == ObjectFlag.GAL_FIT_FAILURE
    assert row["bfd_flags"][0] == FitFlag.CEN_SHIFT
    assert np.all(row["bfd_even"] == -9999)


def test_moments_of_a_good_object():
    """Of a round exponential of half-light radius 0.5 through pixelised Moffat PSFs, without noise."""
    galaxy = galsim.Exponential(half_light_radius=0.5)
    row, epochs = BfdFitter(EXACT, BANDS, None)(target(profile=galaxy, noise=1e-3))
    (row,) = row
    assert row["flags"] == row["bfd_flags"] == 0
    assert len(epochs) == 6
    assert list(row["bfd_nimage"]) == list(row["nimage_use"]) == [3, 3]
    truth = np.array(exponential_moments(0.5))
    # Stamps of 48 and PSF stamps of 41 pixels each lack some light of the wings: a few parts in a thousand.
    for band, flux in enumerate((2000.0, 4000.0)):
        assert row["bfd_band_even"][band][[0, 1, 4]] == pytest.approx(flux * truth, rel=1e-2)
    assert row["bfd_even"] == pytest.approx(0.4 * row["bfd_band_even"][0] + 0.6 * row["bfd_band_even"][1])
    assert np.abs(row["bfd_odd"]).max() < 1e-6 * row["bfd_even"][0]
    assert np.all(np.linalg.eigvalsh(row["bfd_even_cov"]) > 0)
    # The object is where the maps say.
    assert row["bfd_offset"] == pytest.approx([0, 0], abs=2e-3)


def test_a_band_that_does_not_count_may_be_spoiled():
    """Columns through a tenth of every stamp of g: its moments are not there, those of all bands are."""
    masked = target(lambda band, k, one: one if band else replace(one, bmask=2 * (np.indices(one.image.shape)[1] < 5)))
    settings = PLAIN.model_copy(update={"band_weights": {"g": 0.0, "r": 1.0}})
    (row,), epochs = BfdFitter(settings, BANDS, None)(masked)
    assert row["flags"] == 0
    assert list(row["bfd_nimage"]) == list(row["nimage_use"]) == [0, 3]
    assert len(epochs) == 3
    assert np.all(row["bfd_band_even"][0] == -9999)
    assert np.all(row["bfd_band_even_cov"][0] == 9999)
    assert row["bfd_even"] == pytest.approx(row["bfd_band_even"][1])
    (row,), _ = BfdFitter(PLAIN, BANDS, None)(masked)
    assert row["flags"] == ObjectFlag.IMAGE_FLAGS
    assert row["bfd_flags"] == FitFlag.ZERO_DOF


def test_bands_together_alone():
    (row,), _ = BfdFitter(PLAIN.model_copy(update={"save_bands_separately": False}), BANDS, None)(target())
    assert row["flags"] == 0
    assert not [name for name in row.dtype.names if name.startswith("bfd_band")]


def test_the_same_object_twice_is_the_same_row():
    """With a hole, whose noise is named by the object."""

    def holed(band, k, one):
        return replace(one, bmask=2 * (np.indices(one.image.shape)[1] == 20))

    fitter = BfdFitter(PLAIN, BANDS, None)
    first, second = fitter(target(holed)), BfdFitter(PLAIN, BANDS, None)(target(holed))
    assert first[0]["flags"][0] == 0
    assert first[0].tobytes() == second[0].tobytes()
    assert fitter(target(holed, number=18))[0]["bfd_even"].tobytes() != first[0]["bfd_even"].tobytes()


def test_holes_are_filled_with_the_model(tmp_path):
    """A column through the object: with its model in the hole its flux is there, with noise alone it is not."""
    models = LightModels(catalogue(tmp_path / "m.fits", (0, 1)))
    # What the catalogue says of the first object: r50 = 0.6915 sqrt(T).
    galaxy = galsim.Exponential(half_light_radius=0.69151 * 0.5**0.5)

    def holed(band, k, one):
        return replace(one, bmask=2 * (np.indices(one.image.shape)[1] == round(one.wcs.col0)))

    whole, filled, empty = (
        BfdFitter(EXACT, BANDS, light)(target(edit, profile=galaxy, noise=1e-3))[0]["bfd_even"][0]
        for light, edit in ((None, None), (models, holed), (None, holed))
    )
    # The model has the mixture's wings and a PSF of three Gaussians.
    assert filled[0] == pytest.approx(whole[0], rel=1e-2)
    assert empty[0] < 0.95 * whole[0]


def test_a_neighbour_that_has_a_model_does_not_matter(tmp_path):
    models = LightModels(catalogue(tmp_path / "m.fits"))
    alone = LightModels(catalogue(tmp_path / "alone.fits", (0, 1)))

    def crowded(band, k, one):
        return replace(one, image=one.image + fit_light(models, one, BANDS[band]))

    (one,), _ = BfdFitter(PLAIN, BANDS, alone)(target())
    (beside,), _ = BfdFitter(PLAIN, BANDS, models)(target(crowded))
    (left,), _ = BfdFitter(PLAIN, BANDS, None)(target(crowded))
    assert one["flags"] == beside["flags"] == 0
    assert beside["bfd_even"] == pytest.approx(one["bfd_even"], rel=1e-6)
    size = np.sqrt(np.diag(one["bfd_even_cov"]))
    assert np.abs((left["bfd_even"] - one["bfd_even"]) / size).max() > 5


def test_models_that_lack_a_band_are_refused(tmp_path):
    models = LightModels(catalogue(tmp_path / "m.fits"))
    settings = Bfd(run="x")
    with pytest.raises(ProductError, match="of the bands g r alone") as told:
        BfdFitter(settings, ("g", "r", "z"), models)
    assert told.value.exit_status == 1
    assert "mof_config" in str(told.value)


@pytest.fixture(scope="module")
def meds(tmp_path_factory):
    root = tmp_path_factory.mktemp("meds")
    paths = {band: root / f"{band}.fits" for band in BANDS}
    for number, path in enumerate(paths.values()):
        write_meds(path, number, OBJECTS)
    return paths


def test_every_object_has_a_row_whatever_the_chunks(meds):
    run = BfdRun(PLAIN, meds)
    whole, first, rest = run.fit(0, 2), run.fit(0, 0), run.fit(1, 2)
    assert len(whole["model_fits"]) == run.rows(0, 2) == OBJECTS
    for name in ("model_fits", "epoch_data"):
        assert whole[name].tobytes() == first[name].tobytes() + rest[name].tobytes()


def test_block_makes_a_catalogue_and_says_what_it_needs(tmp_path, meds):
    config = tmp_path / "run-x.yaml"
    config.write_text("run: x\njobs: {chunksize: 2}\n")
    context = make_context(tmp_path, bfd_config=str(config))
    tree = context.tree
    for band in BANDS:
        tree.meds(band).parent.mkdir(parents=True, exist_ok=True)
        tree.meds(band).write_bytes(meds[band].read_bytes())
    product = tree.moments(BANDS)
    with pytest.raises(ProductError, match="run block 128 first"):
        block.bfd(context, 1)
    assert not product.exists()
    config.write_text("run: x\njobs: {chunksize: 2}\ncorrect_meds: {mof_run: null}\n")
    block.bfd(context, 1)
    assert product.name == "DES0239+0216_BFDgr.fits"
    rows = read_table(product, "model_fits")
    assert len(rows) == OBJECTS
    assert np.all(rows["flags"] == 0)
    assert rows["bfd_band_even_cov"].shape == (OBJECTS, 2, 5, 5)
    # Two processes make the same file, bit for bit.
    first = product.rename(tmp_path / "first.fits")
    for manifest in tree.manifest("bfd").parent.glob("*bfd*"):
        manifest.unlink()
    block.bfd(context, 2)
    assert same(product, first)
