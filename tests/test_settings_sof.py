"""Configuration of single-object fits."""

from pathlib import Path

import pytest

from balrogutils.errors import ConfigError
from balrogutils.settings.sof import Sof

SHIPPED = Path(__file__).resolve().parents[1] / "sof-config" / "run-y3v02-sof.yaml"


def load(tmp_path, text, name="run-x.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return Sof.load(path)


def test_shipped_file_holds_the_defaults():
    assert Sof.load(SHIPPED) == Sof(run="y3v02-sof")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "'run' is missing"),
        ("run: y", "the file is called run-x.yaml"),
        ("run: x\nmodle: exp", "did you mean 'model'"),
        ("run: x\njobs: {chunk_size: 3}", "did you mean 'chunksize'"),
        ("run: x\njobs: {chunksize: 0}", "jobs.chunksize"),
        ("run: x\nmodel: cm", "model"),
        ("run: x\npsf_pars: {model: em3}", "psf_pars.model"),
        ("run: x\nfit_coadd_galaxy: true", "fit_coadd_galaxy"),
        ("run: x\nregion: mof", "region"),
        ("run: x\njobs: {bands: []}", "each band once, at least one"),
        ("run: x\njobs: {bands: [g, g]}", "each band once"),
        ("run: x\npriors: {cen: {width: .inf}}", "finite"),
        ("run: x\nimage_flags2check: 99999999999", "image_flags2check"),
        ("run: x\nextra_mask_flag_list: [SATURATED]", "SATURATED"),
        ("run: x\nmax_zero_weight_frac: 1.5", "max_zero_weight_frac"),
        ("run: x\npriors: {T: {type: erf, pars: [0, 1, 2, 3]}}", "priors.T"),
        ("run: x\npriors: {T: {type: TwoSidedErf, pars: [5, 1, 2, 3]}}", "min < max"),
        ("run: x\npriors: {g: {type: ba, sigma: -1}}", "priors.g"),
        ("run: x\npropagate_star_flags: {propagate: true}", "propagate_star_flags is not supported"),
        ("run: x\nmof: {max_itr: 15}", "MOF run"),
        ("run: x\nrun: x", "given twice"),
    ],
)
def test_wrong_keys_are_named(tmp_path, text, match):
    with pytest.raises(ConfigError, match=match):
        load(tmp_path, text)


def test_features_that_are_off_may_be_named(tmp_path):
    assert load(tmp_path, "run: x\npropagate_star_flags: false\nuse_psf_rerun: false") == Sof(run="x")


def test_bands(tmp_path):
    assert Sof(run="x").bands(("g", "r")) == ("g", "r")
    some = load(tmp_path, "run: x\njobs: {bands: [r]}")
    assert some.bands(("g", "r")) == ("r",)
    with pytest.raises(ConfigError, match="band r"):
        some.bands(("g",))
