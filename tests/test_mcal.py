"""Metacal of a tile: settings, objects, neighbours taken away, chunks, the block."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated_stamps import write_meds
from tile_objects import BANDS, BROKEN, catalogue, fit_light, make_context, target

from balrogutils.blocks import mcal as block
from balrogutils.errors import ConfigError, ProductError
from balrogutils.fitsfile import read_table
from balrogutils.fitting.flags import FitFlag
from balrogutils.fitting.observation import LocalWCS
from balrogutils.measurement.lightmodels import LightModels
from balrogutils.measurement.mcal import McalFitter, McalRun
from balrogutils.settings.mcal import Mcal

OBJECTS = 3
SHIPPED = Path(__file__).resolve().parents[1] / "shr-config" / "run-y3v02-mcal.yaml"
PLAIN = Mcal(run="test", jobs={"bands": "from_tile"}, correct_meds={"mof_run": None})


def load(tmp_path, text):
    path = tmp_path / "run-x.yaml"
    path.write_text(text)
    return Mcal.load(path)


def test_shipped_file_holds_the_defaults():
    assert Mcal.load(SHIPPED) == Mcal(run="y3v02-mcal")
    assert Mcal.load(SHIPPED.with_name("run-all-mcal.yaml")).bands(("g", "r")) == ("g", "r")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("run: x\nmetacal_pars: {types: [1p, 1m]}", "noshear must be among"),
        ("run: x\nmetacal_pars: {types: [noshear, 1p, 1p]}", "named twice"),
        ("run: x\nmetacal_pars: {psf: moffat}", "metacal_pars.psf"),
        ("run: x\nmetacal_pars: {step: 0.5}", "metacal_pars.step"),
        ("run: x\nmetacal_pars: {fwhm: {admom: 1.0}}", "no FWHM"),
        ("run: x\ncorrect_meds: {bad_flags: [0]}", "bad_flags"),
        ("run: x\ncorrect_meds: {replace_bad: false}", "replace_bad"),
        ("run: x\nmodel: exp", "model"),
        ("run: x\npriors: {fracdev: {type: normal, pars: [0.5, 0.1]}}", "a Gaussian has none"),
        ("run: x\nfitter_type: max-ngmix-boot", "fitter_type"),
        ("run: x\nnormalize_psf: false", "normalize_psf"),
        ("run: x\nmof: {max_itr: 15}", "belongs to a MOF run"),
        ("run: x\nmetacal_par: {}", "did you mean 'metacal_pars'"),
    ],
)
def test_wrong_keys_are_named(tmp_path, text, match):
    with pytest.raises(ConfigError, match=match):
        load(tmp_path, text)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_objects_are_flagged_rows_with_fills(name):
    edit, flag = BROKEN[name]
    row, epochs = McalFitter(PLAIN, BANDS, None)(target(edit))
    assert row["flags"][0] & flag
    assert row["mcal_flags"][0] == FitFlag.NO_ATTEMPT
    assert np.all(row["mcal_g"] == -9999)
    assert np.all(row["mcal_g_cov_1p"] == 9999)
    assert len(epochs) == row["nimage_use"].sum()
    for column in row.dtype.names:
        assert np.all(np.isfinite(row[column])), column


def test_a_good_object_has_a_response():
    row, epochs = McalFitter(PLAIN, BANDS, None)(target())
    (row,) = row
    assert row["flags"] == row["mcal_flags"] == 0
    assert len(epochs) == row["nimage_use"].sum() == 6
    for name in row.dtype.names:
        assert np.all(np.isfinite(row[name])), name
    # An exponential galaxy of FWHM like that of the PSF, S/N 400, fit as a Gaussian: its response is near 1 and the
    # shapes of the two signs differ by what it says.
    assert row["mcal_R"][0, 0] == pytest.approx(1.0, abs=0.3)
    assert row["mcal_R"][1, 1] == pytest.approx(1.0, abs=0.3)
    assert row["mcal_g_1p"][0] - row["mcal_g_1m"][0] == pytest.approx(0.02 * row["mcal_R"][0, 0])
    assert row["mcal_g"] == pytest.approx([0.1, -0.05], abs=0.03)


def test_the_same_object_twice_is_the_same_row():
    first, second = (McalFitter(PLAIN, BANDS, None)(target(noise=5.0)) for _ in range(2))
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()


def test_models_are_drawn_where_they_are(tmp_path):
    models = LightModels(catalogue(tmp_path / "m.fits"))
    assert models.near(0, 2.9).size == 0
    assert models.near(0, 3.1).tolist() == [1]
    v, u = models.offset(0, 1)
    assert (v, u) == pytest.approx((3.0, 0.0), abs=1e-9)
    wcs = LocalWCS(40.0, 40.0, 0.2, 0.0, 0.0, 0.2)
    psf = np.array([[0.9, 0.0, 0.0, 0.18, 0.0, 0.18]])
    image = models.image(1, "g", wcs, psf, (90, 81), (v, u))
    row, col = np.indices(image.shape)
    assert image.sum() == pytest.approx(0.9 * 3000, rel=2e-3)
    assert (image * row).sum() / image.sum() == pytest.approx(55.0, abs=0.05)
    assert (image * col).sum() / image.sum() == pytest.approx(40.0, abs=0.05)
    with pytest.raises(ProductError, match="object 99"):
        models.index(99)


def test_a_neighbour_that_has_a_model_does_not_matter(tmp_path):
    """A Gaussian neighbour drawn from the catalogue's own numbers is taken away again: the row is that of one alone."""
    path = catalogue(tmp_path / "m.fits")
    models = LightModels(path)
    lonely = target()

    def crowded(band, k, one):
        return replace(one, image=one.image + fit_light(models, one, BANDS[band]))

    config = PLAIN.model_copy(update={"correct_meds": PLAIN.correct_meds.model_copy(update={"mof_run": "m"})})
    alone, _ = McalFitter(config, BANDS, LightModels(catalogue(tmp_path / "alone.fits", (0, 1))))(lonely)
    beside, _ = McalFitter(config, BANDS, models)(target(crowded))
    left, _ = McalFitter(config, BANDS, None)(target(crowded))
    assert alone["flags"][0] == beside["flags"][0] == 0
    assert beside["mcal_g"][0] == pytest.approx(alone["mcal_g"][0], abs=1e-6)
    assert np.abs(left["mcal_g"][0] - alone["mcal_g"][0]).max() > 0.02


@pytest.fixture(scope="module")
def meds(tmp_path_factory):
    root = tmp_path_factory.mktemp("meds")
    paths = {band: root / f"{band}.fits" for band in BANDS}
    for number, path in enumerate(paths.values()):
        write_meds(path, number, OBJECTS)
    return paths


def test_every_object_has_a_row_whatever_the_chunks(meds):
    run = McalRun(PLAIN, meds)
    whole, first, rest = run.fit(0, 2), run.fit(0, 0), run.fit(1, 2)
    assert len(whole["model_fits"]) == run.rows(0, 2) == OBJECTS
    for name in ("model_fits", "epoch_data"):
        assert whole[name].tobytes() == first[name].tobytes() + rest[name].tobytes()


def test_block_makes_a_catalogue_and_says_what_it_needs(tmp_path, meds):
    config = tmp_path / "run-x.yaml"
    config.write_text("run: x\njobs: {bands: from_tile}\n")
    context = make_context(tmp_path, shr_config=str(config))
    tree = context.tree
    for band in BANDS:
        tree.meds(band).parent.mkdir(parents=True, exist_ok=True)
        tree.meds(band).write_bytes(meds[band].read_bytes())
    with pytest.raises(ProductError, match="run block 128 first"):
        block.mcal(context, 1)
    assert not tree.fit("mcal").exists()
    config.write_text("run: x\njobs: {bands: from_tile}\ncorrect_meds: {mof_run: null}\n")
    context = make_context(tmp_path, shr_config=str(config))
    block.mcal(context, 1)
    rows = read_table(tree.fit("mcal"), "model_fits")
    assert len(rows) == OBJECTS
    assert np.all(rows["flags"] == 0)
    assert rows["mcal_R"].shape == (OBJECTS, 2, 2)
