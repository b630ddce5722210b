"""The engine of a fit: ours, or ngmix where it is installed; comparisons of both."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import galsim
import numpy as np
import pytest
from simulated_stamps import observe, write_meds

from balrogutils.blocks import sof as block
from balrogutils.blocks.crosscheck import _places, crosscheck
from balrogutils.context import Context
from balrogutils.errors import ConfigError, InputError
from balrogutils.fitsfile import read_table
from balrogutils.graph import check_mode
from balrogutils.layout import MODE_BITS, Site
from balrogutils.measurement.crosscheck import Crosscheck, Measured, compare, mcal_reader, sof_reader
from balrogutils.measurement.mcal import McalFitter
from balrogutils.measurement.sof import Fitter
from balrogutils.measurement.target import Epoch, Target
from balrogutils.products import read_manifest
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.mcal import Mcal
from balrogutils.settings.mof import Mof
from balrogutils.settings.pipeline import Pipeline
from balrogutils.settings.sof import Sof
from balrogutils.settings.yamlfile import parse

BANDS = ("g", "r")
OBJECTS = 4
TIGHT = {"maxfev": 4000, "ftol": 1e-9, "xtol": 1e-9}
INSTALLED = importlib.util.find_spec("ngmix") is not None
absent = pytest.mark.skipif(INSTALLED, reason="ngmix is installed: what happens without it cannot be seen")
needed = pytest.mark.skipif(not INSTALLED, reason="ngmix is not installed: nothing to compare with")


@pytest.mark.parametrize(
    ("kind", "text", "match"),
    [
        (Sof, {"engine": "ngmx"}, "engine: must be 'balrogutils' or 'ngmix', not 'ngmx'"),
        (Sof, {"engine": "ngmix", "model": "sersic"}, "ngmix has no model sersic, only gauss turb exp dev cm bdf bd"),
        (Sof, {"engine": "ngmix", "model": "dev_true"}, "ngmix has no model dev_true"),
        (Sof, {"engine": "ngmix", "psf_pars": {"pixelised": True}}, "mixtures alone"),
        (Mof, {"engine": "ngmix"}, "fits single objects and no groups"),
        (Mcal, {"engine": "ngmix", "metacal_pars": {"types": ["noshear", "1p_psf"]}}, "1p_psf with the target dilate"),
    ],
)
def test_what_ngmix_cannot_do_is_refused(kind, text, match):
    with pytest.raises(ConfigError, match=match):
        parse(kind, {"run": "x", **text}, None)


def test_the_engine_is_ours_unless_another_is_named():
    assert Sof(run="x").engine == Mof(run="x").engine == Mcal(run="x").engine == "balrogutils"


def make_context(root, name="run-x.yaml", text="run: x\nmodel: exp\nengine: ngmix\n"):
    config = root / name
    config.write_text(text)
    site = Site.from_environment("y3v02", {"BALROG_BASE": str(root)})
    campaign = Campaign(kind="desdm", database="sqlite://", archive="file:///", bands=BANDS, det=BANDS, name="test")
    pipeline = Pipeline(sof_config=str(config), shr_config=str(config), bands=BANDS)
    return Context(site, pipeline, campaign, "DES0239+0216")


@absent
@pytest.mark.parametrize(
    "ask",
    [
        lambda context: block.sof(context, 1),
        lambda context: crosscheck(context, "sof", "20", 0.05),
        lambda context: check_mode(context, MODE_BITS["sof"]),
    ],
    ids=["fit", "crosscheck", "snakemake"],
)
def test_without_ngmix_nothing_is_begun(tmp_path, ask):
    context = make_context(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="ngmix is not installed") as caught:
        ask(context)
    assert caught.value.exit_status == 2
    assert "conda-forge ngmix" in caught.value.remedy
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("__version__ = '1.3.9'", "ngmix is of version 1.3.9, not 2"),
        ("", "ngmix is of version unknown, not 2"),
        ("import not_there_at_all", "ngmix needs not_there_at_all, which is not there"),
        ("from math import no_such_name", "ngmix cannot be imported: cannot import name 'no_such_name'"),
    ],
)
def test_what_is_installed_as_ngmix_and_cannot_be_used_is_refused(tmp_path, text, says):
    (tmp_path / "ngmix.py").write_text(text + "\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from balrogutils.errors import ConfigError\n"
        "from balrogutils.peers.installed import load_ngmix\n"
        "try:\n    load_ngmix()\nexcept ConfigError as error:\n    sys.exit(str(error))\n"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{says}"), done.stderr
    assert "remedy: conda install" in done.stderr


@pytest.mark.parametrize(
    ("objects", "places"),
    [("3", [0, 4, 9]), ("1", [0]), ("99", list(range(10))), ("4-6", [4, 5, 6]), ("9-9", [9])],
)
def test_objects_are_a_number_or_places(objects, places):
    assert _places(objects, 10) == places


@pytest.mark.parametrize("objects", ["0", "-3", "a", "", "3-2", "8-10", "1-2-3"])
def test_objects_that_are_none_are_refused(objects):
    with pytest.raises(InputError, match="objects"):
        _places(objects, 10)


def measured(number, shift, chi2=(10.0, 10.0), flags=(0, 0)):
    values = np.array([[1.0, 2.0], [1.0, 2.0 + shift]])
    return Measured(number, flags, values, np.full((2, 2), 0.5), chi2, (0.1, 1.0))


def check(*objects):
    return Crosscheck("T sof", "2.4.2", ("g1", "T"), objects, 0.05)


def test_the_limit_decides_and_a_higher_minimum_excuses():
    near, far = measured(1, 0.02), measured(2, 0.03)
    worse, better = measured(3, 9.0, (10.0, 10.1)), measured(4, 9.0, (10.1, 10.0))
    unknown, broken = measured(5, 9.0, (math.nan, math.nan)), measured(6, math.nan)
    assert check(near).sound
    assert not check(near, far).sound
    assert check(near, worse).sound
    assert [one.id for one in check(near, worse).excused] == [3]
    for one in (better, unknown, broken):
        assert not check(near, one).sound
    assert not check().sound
    assert not check(measured(7, 0.0, flags=(0, 2))).sound


def test_a_comparison_can_be_read_as_text_and_json():
    found = check(measured(1, 0.02), measured(2, 9.0, (10.0, 10.1)), measured(7, math.nan, flags=(0, 2)))
    text = str(found)
    assert "3 objects" in text
    assert "by ngmix alone: 1" in text
    assert "(2), 1 of them where ngmix ended at a higher chi^2" in text
    assert text.endswith("agree within 0.05 standard errors")
    made = json.loads(json.dumps(found.document(), allow_nan=False))
    assert made["sound"] is True
    assert made["compared"] == 2
    assert made["over_limit"] == made["ngmix_above_minimum"] == [2]
    assert made["cpu_ms"] == {"balrogutils": pytest.approx(100.0), "ngmix": pytest.approx(1000.0)}
    assert made["parameters"][1]["worst_difference"] == pytest.approx(18.0)
    assert made["parameters"][1]["worst_object"] == 2
    assert made["objects"][2]["values"][1][1] is None


def target(number=17, noise=2.0, edit=None):
    rng = np.random.default_rng(number)
    galaxy = galsim.Exponential(half_light_radius=0.5).shear(g1=0.1, g2=-0.05)
    bands = []
    for band in range(len(BANDS)):
        seen = [observe(rng, galaxy, 1500.0 * (1 + band), noise) for _ in range(3)]
        seen = [one if edit is None else edit(one) for one in seen]
        bands.append(tuple(Epoch(one, k + 1, k + 1, 100.0, 200.0) for k, one in enumerate(seen)))
    return Target(number, 1, 40.0, 2.0, 48, tuple(bands))


def test_an_engine_agrees_with_itself():
    fitters = tuple(Fitter(Sof(run="x", model="exp"), BANDS) for _ in range(2))
    names, read = sof_reader("exp", BANDS)
    found = Crosscheck("T", "none", names, tuple(compare(fitters, [target()], read)), 1e-12)
    assert names == ("v", "u", "g1", "g2", "T", "flux_g", "flux_r")
    assert found.sound
    assert np.all(found.objects[0].difference == 0.0)
    assert min(found.objects[0].seconds) > 0.0


def both(kind, **keys):
    tight = {"max_pars": {"lm_pars": TIGHT}, "psf_pars": keys.pop("psf_pars", {}) | {"lm_pars": TIGHT}}
    return tuple(kind(run="x", engine=engine, **keys, **tight) for engine in ("balrogutils", "ngmix"))


Y6 = {
    "g": {"type": "ba", "sigma": 0.2},
    "T": {"type": "flat", "pars": [-0.1, 1e5]},
    "counts": {"type": "flat", "pars": [-1000.0, 1e9]},
}
UNKNOWN = {"g": {"type": "flat"}, "cen": None}


@needed
@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "psf", "priors"),
    [
        ("gauss", "gauss", UNKNOWN),
        ("turb", "turb", {"g": None}),
        ("exp", "coellip3", {}),
        ("dev", "coellip2", Y6),
        ("bdf", "coellip3", Y6),
        ("bdf", "coellip3", {"fracdev": {"type": "gmixnd", "weights": [1], "means": [0.4], "covars": [0.01]}}),
        ("bd", "coellip3", Y6),
        ("cm", "coellip3", {}),
    ],
)
def test_ngmix_finds_the_same(model, psf, priors):
    """All steps from stamps on, PSF mixtures too; 0.05 standard errors is what its tables of exp leave (M 3.5)."""
    fitters = tuple(Fitter(one, BANDS) for one in both(Sof, model=model, priors=priors, psf_pars={"model": psf}))
    names, read = sof_reader(model, BANDS)
    found = Crosscheck(model, "", names, tuple(compare(fitters, [target(n) for n in (3, 4, 5)], read)), 0.05)
    assert len(found.good) == 3
    assert found.sound, str(found)
    for one in found.good:
        # Those of g hold a curvature of the shape prior that ngmix leaves out.
        others = [k for k, name in enumerate(names) if name not in ("g1", "g2")]
        if model != "bd":
            assert one.errors[1][others] == pytest.approx(one.errors[0][others], rel=0.02)


@needed
@pytest.mark.long
@pytest.mark.parametrize("name", ["gauss", "fitgauss", "azgauss", "dilate"])
def test_ngmix_makes_the_same_metacal(name):
    types = ["noshear", "1p", "1m", "2p", "2m", *(["1p_psf", "2m_psf"] if name == "dilate" else [])]
    pars = {"psf": name, "types": types, "fixnoise": False}
    keys = {"jobs": {"bands": "from_tile"}, "correct_meds": {"mof_run": None}, "metacal_pars": pars}
    fitters = tuple(McalFitter(one, BANDS, None) for one in both(Mcal, **keys))
    names, read = mcal_reader(types, BANDS)
    found = Crosscheck(name, "", names, tuple(compare(fitters, [target(3), target(4)], read)), 0.05)
    assert len(found.good) == 2
    assert found.sound, str(found)


@needed
@pytest.mark.long
def test_what_ngmix_cannot_fit_is_flagged_and_has_no_numbers():
    def masked(one):
        return one.__class__(one.image, one.weight * 0.0, one.wcs, one.psf)

    (_, settings) = both(Sof, model="exp")
    row, epochs = Fitter(settings, BANDS)(target(edit=masked))
    assert row["flags"][0]
    assert np.all(row["exp_pars"] == -9999)
    assert len(epochs) == 0
    hasty = Sof(run="x", model="exp", engine="ngmix", max_pars={"lm_pars": {"maxfev": 2}})
    row, _ = Fitter(hasty, BANDS)(target())
    # MAXITER, which ngmix has as a code of MINPACK.
    assert row["exp_flags"][0] == 32
    assert np.all(row["exp_pars"] == -9999)


@needed
@pytest.mark.long
def test_a_catalogue_by_ngmix_is_as_any_other_and_the_same_again(tmp_path):
    context = make_context(tmp_path, text="run: x\nmodel: exp\nengine: ngmix\njobs: {chunksize: 2}\n")
    tree = context.tree
    for number, band in enumerate(BANDS):
        tree.meds(band).parent.mkdir(parents=True, exist_ok=True)
        write_meds(tmp_path / f"{band}.fits", number, OBJECTS)
        (tmp_path / f"{band}.fits").rename(tree.meds(band))
    block.sof(context, 2)
    rows = read_table(tree.fit("sof"), "model_fits")
    assert len(rows) == OBJECTS
    assert np.all(rows["flags"] == 0)
    assert '"engine": "ngmix"' in str(read_table(tree.fit("sof"), "meta_data")["config"][0])
    manifest = read_manifest(tree.manifest("sof"))
    assert manifest["tools"]["ngmix"] == manifest["config"]["ngmix"]
    for chunk in tree.fit("sof").parent.glob("**/*chunk*"):
        chunk.unlink()
    block.sof(context, 1)
    assert read_table(tree.fit("sof"), "model_fits").tobytes() == rows.tobytes()
    found = crosscheck(context, "sof", "0-1", 0.05)
    assert found.sound, str(found)
