"""Injection with Piff models, which see the colour of each object: truth, pixels, audit and replay."""

from pathlib import Path

import fitsio
import galsim
import numpy as np
import pytest
from injection_tile import MAGZP, chip_name, make_tile
from piff_models import SCALE, moffat, write_piff

from balrogutils.blocks.audit import audit
from balrogutils.blocks.inject import inject, plan, truth
from balrogutils.blocks.replay import replay
from balrogutils.errors import ConfigError, InputError, ProductError
from balrogutils.fitsfile import read_image, read_table
from balrogutils.settings.injection import Injection

INPUTS = Path(__file__).resolve().parents[1] / "inputs"
RANGE = (0.0, 2.0)
BLUE, RED = 0.1, 1.7
WIDE, NARROW = 1.2, 1.05


def configuration(root, *stars, **psf):
    """Stars of g - r at places of the tile, drawn with Piff models."""
    lines = ["x,y,mag_g,mag_r", *(f"{x},{y},{20 + color},20" for x, y, color in stars)]
    (root / "stars.csv").write_text("\n".join(lines) + "\n")
    return {
        "input": {"star_table": {"dir": str(root), "file_name": "stars.csv"}},
        "gal": {"type": "tableStar"},
        "psf": {"type": "Piff", "dir": str(root / "piff"), "file_name": "DEXPNUM_BAND_cCCDNUM_r*_piff.fits"} | psf,
        "stamp": {"draw_method": "no_pixel"},
        "image": {
            "type": "Balrog",
            "pos_sampling": {"type": "Table", "file_name": str(root / "stars.csv")},
            "noise": {"type": "Poisson"},
        },
    }


def write_models(root, keys=("x", "GR_COLOR"), shift=0):
    """Models from `WIDE` at colour 0 to `NARROW` at 1, and on; perhaps off centre."""
    slope = moffat(NARROW) - moffat(WIDE)
    for band in "gr":
        for chip in MAGZP:
            terms = [np.roll(moffat(WIDE), shift, axis=1), np.roll(slope, shift, axis=1), 0 * slope]
            write_piff(root / "piff" / f"{chip_name(band, chip)[:15]}_r9_piff.fits", terms, keys, [1, 1], RANGE)


@pytest.fixture
def models(tmp_path):
    write_models(tmp_path)
    return tmp_path


def injected(context):
    plan(context)
    for band in context.bands:
        inject(context, band)
    truth(context)
    return read_table(context.tree.truth, "TRUTH"), read_table(context.tree.truth_chips, "CHIPS")


def light(context, chip, band="r"):
    name = chip_name(band, chip)
    base, new = (read_image(tree.nullwt(band, name), "SCI") for tree in (context.base_tree, context.tree))
    return new.astype(float) - base


def sigma(image, row):
    """Adaptive width and centroid error (pixels) of the object that a row by chip speaks of."""
    x, y = (int(np.floor(row[name] + 0.5)) for name in ("x", "y"))
    stamp = galsim.Image(np.ascontiguousarray(image[y - 16 : y + 15, x - 16 : x + 15]))
    found = stamp.FindAdaptiveMom()
    at = found.moments_centroid - stamp.true_center
    return found.moments_sigma, np.hypot(at.x - (row["x"] - x), at.y - (row["y"] - y))


# A table gives places and colours, each place a row at random.
PLACES = list(np.ndindex(3, 3))
COLORS = [BLUE, RED, 0.9, 5.0, BLUE, RED, 0.9, 5.0, RED]
STARS = [(50.0 + 80.3 * x, 48.0 + 80.2 * y, color) for (x, y), color in zip(PLACES, COLORS, strict=True)]


def colors_and_widths(context, image, chip=1, band="r"):
    """The colour of each star by the truth, and its width on a chip."""
    table, chips = (read_table(file, name) for file, name in zip(truths(context), ("TRUTH", "CHIPS"), strict=True))
    found = []
    for star in table:
        row = chips[(chips["bal_id"] == star["bal_id"]) & (chips["ccdnum"] == chip) & (chips["band"] == band)][0]
        assert row["flux_on_chip"] == pytest.approx(row["flux_expected"], rel=1e-4)
        width, off = sigma(image, row)
        # Single-precision steps of an image with sky noise; the models are symmetric about their middle.
        assert off < 0.02
        found.append((-2.5 * np.log10(star["flux_g"] / star["flux_r"]), width))
    return np.array(found).T


def truths(context):
    return context.tree.truth, context.tree.truth_chips


def test_each_star_has_the_psf_of_its_colour(models):
    config = configuration(models, *STARS)
    config["image"]["noise"] = None
    context = make_tile(models, INPUTS, config, bands=("g", "r"))
    injected(context)
    header = fitsio.read_header(context.tree.truth, "TRUTH")
    assert (header["PSFTYPE"], header["RECENTER"]) == ("Piff", 0)
    colors, widths = colors_and_widths(context, light(context, 1))
    assert colors.min() < 0.2
    assert colors.max() > 4.9
    # 5 mag is beyond the stars of the model.
    np.testing.assert_allclose(widths, [alone(color) for color in colors], rtol=0.01)
    assert widths.max() > 1.2 * widths.min()
    found = audit(context, redraw=True)
    assert found.sound, str(found)


def alone(color):
    """Adaptive width in pixels of the model at a colour, drawn by itself."""
    grid = moffat(WIDE) + np.clip(color, *RANGE) * (moffat(NARROW) - moffat(WIDE))
    profile = galsim.InterpolatedImage(galsim.Image(grid, scale=SCALE), x_interpolant="lanczos3", use_true_center=False)
    return profile.drawImage(nx=41, ny=41, scale=0.263, method="no_pixel").FindAdaptiveMom().moments_sigma


def test_replay_draws_the_same_star(models):
    context = make_tile(models, INPUTS, configuration(models, (130.3, 131.2, RED)), bands=("g", "r"))
    table, _ = injected(context)
    file, _ = replay(context, int(table["bal_id"][0]), chip_name("r", 1))
    with fitsio.FITS(str(file)) as fits:
        total, cards = fits["TOTAL"].read(), fits["TOTAL"].read_header()
    rows = slice(cards["YMIN"] - 1, cards["YMIN"] - 1 + total.shape[0])
    cols = slice(cards["XMIN"] - 1, cards["XMIN"] - 1 + total.shape[1])
    base, new = (read_image(tree.nullwt("r", chip_name("r", 1)), "SCI") for tree in (context.base_tree, context.tree))
    np.testing.assert_array_equal((base[rows, cols] + total).astype("f4"), new[rows, cols])


@pytest.mark.parametrize("given", [0.4, ["r", "g"]])
def test_the_colour_may_be_given(models, given):
    stars = [(x, y, -color) for x, y, color in STARS] if given != 0.4 else STARS
    config = configuration(models, *stars, color=given)
    config["image"]["noise"] = None
    context = make_tile(models, INPUTS, config, bands=("g", "r"))
    injected(context)
    colors, widths = colors_and_widths(context, light(context, 1))
    seen = np.full(len(colors), 0.4) if given == 0.4 else -colors
    np.testing.assert_allclose(widths, [alone(color) for color in seen], rtol=0.01)


@pytest.mark.parametrize("recenter", [False, True])
def test_a_model_off_centre_is_taken_as_it_is_or_recentred(tmp_path, recenter):
    write_models(tmp_path, shift=3)
    config = configuration(tmp_path, (130.3, 131.2, 1.0), recenter_psf=recenter)
    config["image"]["noise"] = None
    context = make_tile(tmp_path, INPUTS, config, bands=("g", "r"))
    _, chips = injected(context)
    row = chips[(chips["ccdnum"] == 1) & (chips["band"] == "r")][0]
    _, off = sigma(light(context, 1), row)
    # Three grid steps on the sky; the centroid is that of the whole model, wings cut on one side by the roll.
    assert off == pytest.approx(0.0 if recenter else 3 * SCALE / 0.263, abs=0.05)


def test_a_chip_without_a_model_stops_the_realization(models):
    context = make_tile(models, INPUTS, configuration(models, (130.0, 130.0, RED)), bands=("g", "r"))
    plan(context)
    file = models / "piff" / f"{chip_name('r', 2)[:15]}_r9_piff.fits"
    file.rename(file.with_name("away"))
    with pytest.raises(InputError, match="has no Piff model") as caught:
        inject(context, "r")
    assert caught.value.where["chip"] == chip_name("r", 2)
    (models / "piff" / "away").rename(file)
    (file.parent / file.name.replace("_r9_", "_r10_")).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="has 2 Piff models"):
        inject(context, "r")
    (file.parent / file.name.replace("_r9_", "_r10_")).unlink()
    file.write_bytes(file.read_bytes()[:2880])
    with pytest.raises(ProductError, match="not a Piff model"):
        inject(context, "r")


@pytest.mark.parametrize(
    ("keys", "bands", "message"),
    [(("x", "MY_COLOR"), ("g", "r"), "nothing is injected into m and y"), (("x", "HUE"), ("g", "r"), "which bands")],
)
def test_a_colour_that_nobody_knows_stops_the_realization(tmp_path, keys, bands, message):
    write_models(tmp_path, keys)
    context = make_tile(tmp_path, INPUTS, configuration(tmp_path, (130.0, 130.0, RED)), bands=bands)
    plan(context)
    with pytest.raises(InputError, match=message) as caught:
        inject(context, "r")
    assert caught.value.where["key"] == "psf.color"


@pytest.mark.parametrize(
    ("psf", "message"),
    [
        ({"type": "Piff"}, "EXPNUM and CCDNUM"),
        ({"type": "Piff", "file_name": "DEXPNUM.fits"}, "EXPNUM and CCDNUM"),
        ({"type": "DES_PSFEx", "file_name": "DEXPNUM_cCCDNUM.fits"}, "are for Piff models"),
        ({"type": "DES_PSFEx", "color": 1.0}, "are for Piff models"),
        ({"type": "Piff", "file_name": "DEXPNUM_cCCDNUM.fits", "color": ["g"]}, "color"),
        ({"type": "Pif"}, "type"),
    ],
)
def test_contradictory_keys_are_refused(tmp_path, psf, message):
    import yaml

    config = configuration(tmp_path, (1.0, 1.0, 0.0)) | {"psf": psf}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=message):
        Injection.load(tmp_path / "config.yaml")


def test_a_directory_may_name_the_exposure(tmp_path):
    config = configuration(tmp_path, (1.0, 1.0, 0.0), dir="models/DEXPNUM", file_name="cCCDNUM_BAND.fits", color=1)
    settings = Injection.model_validate(config)
    assert settings.psf.of_chip(Path("/base"), "g", 7, 3) == (Path("/base/models/D00000007"), "c03_g.fits")
    assert settings.psf.color == 1.0
    assert isinstance(settings.psf.color, float)
