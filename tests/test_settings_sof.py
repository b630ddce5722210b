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
        ("run: x\nmodel: cmodel", "model"),
        ("run: x\npsf_pars: {model: em9}", "psf_pars.model"),
        ("run: x\nmax_pars: {fracdev_range: [1, 0]}", "min < max"),
        ("run: x\nmax_pars: {fracdev_range: [-3, 1]}", r"within \[-1, 2\]"),
        ("run: x\nmax_pars: {TdByTe_range: [-1, 1]}", "not be negative"),
        ("run: x\ncov_pars: {h: 0.01}", "derivatives are analytic"),
        ("run: x\ncov_pars: {fracdev: yes}", "cov_pars.fracdev"),
        ("run: x\nround_pars: {fitter_type: lm}", "round_pars.fitter_type"),
        ("run: x\npropagate_star_flags: {ignore_when_set: [STARS]}", "STARS"),
        ("run: x\npriors: {fracdev: {type: gmixnd, weights: [1], means: [0, 1], covars: [1]}}", "equally many"),
        ("run: x\npriors: {fracdev: {type: flat, pars: [0, 1]}}", "fracdev_range has"),
        ("run: x\npriors: {fracdev: {type: normal, pars: [0.5, 0.1], bounds: [1, 0]}}", "min < max"),
        ("run: x\nmodel: exp\npriors: {fracdev: {type: normal, pars: [0.5, 0.1]}}", "exp has no fracdev"),
        ("run: x\nmodel: bdf\npriors: {logTratio: {type: normal, pars: [0, 1]}}", "bdf has no logTratio"),
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
        ("run: x\nmetacal_pars: {psf: gauss}", "metacal run"),
        ("run: x\nmof: {max_itr: 15}", "MOF run"),
        ("run: x\nrun: x", "given twice"),
    ],
)
def test_wrong_keys_are_named(tmp_path, text, match):
    with pytest.raises(ConfigError, match=match):
        load(tmp_path, text)


def test_features_that_are_off_may_be_named(tmp_path):
    assert load(tmp_path, "run: x\nmodel_nbrs: false\nmof: null\nuse_psf_rerun: false") == Sof(run="x")
    assert not load(tmp_path, "run: x\npropagate_star_flags: false").propagate_star_flags.propagate


def test_a_des_y3_file_is_taken(tmp_path):
    """The keys and values of the y3v02 run (P 6.2, M 4.10)."""
    text = """
run: x
global_seed: 22350
jobs: {chunksize: 1000, bands: [g, r, i, z]}
collate: {concat_type: concat-des, blinding: null}
fitter_type: max-ngmix-boot
imageio_type: meds-des-y3
propagate_star_flags: {propagate: true, ignore_when_set: [SUSPECT, SSXTALK, EDGEBLEED, CRAY, BADAMP, BPM]}
model: cm
max_pars: {method: lm, ntry: 2, lm_pars: {maxfev: 2000, xtol: 5.0e-5, ftol: 5.0e-5}, fracdev_range: [0.0, 1.0],
           TdByTe_range: [0.0, 1.0e12], use_fracdev_grid: false}
psf_pars: {model: em3, ntry: 20, em_pars: {maxiter: 5000, tol: 5.0e-6}}
cov_pars: {m: 5, h: 1.0e-3}
round_pars: {fitter_type: max}
checkpoints: [0, 5, 10, 15, 20, 25, 30, 60, 90]
priors:
  fracdev: {type: gmixnd, weights: [0.5, 0.5], means: [0.0, 1.0], covars: [0.1, 0.1]}
"""
    settings = load(tmp_path, text)
    assert (settings.model, settings.psf_pars.model, settings.psf_pars.ntry) == ("cm", "em3", 20)


@pytest.mark.parametrize("path", sorted(SHIPPED.parent.glob("run-*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_file_is_right(path):
    assert Sof.load(path).run == path.stem.removeprefix("run-")


def test_bands(tmp_path):
    assert Sof(run="x").bands(("g", "r")) == ("g", "r")
    some = load(tmp_path, "run: x\njobs: {bands: [r]}")
    assert some.bands(("g", "r")) == ("r",)
    with pytest.raises(ConfigError, match="band r"):
        some.bands(("g",))
