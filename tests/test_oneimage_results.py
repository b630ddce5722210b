"""Completeness and magnitudes of one image, several realizations, truth as Parquet."""

import shlex

import fitsio
import identical
import numpy as np
import pytest
from one_image import ROUND, SIGMA, ZERO_POINT, Run, write_input

from balrogutils.fitsfile import read_table, table_names
from balrogutils.parquetfile import read_parquet

# Over the depth of the image, in sizes that make some be missed which are brighter than others that are found.
FAINT = ROUND.replace("[20, 22, args.ngal]", "[21, 25, args.ngal]").replace(
    "halflightradius = 0.5", "halflightradius = Function(np.random.uniform, [0.1, 1.5, args.ngal])"
)


@pytest.fixture
def field(tmp_path):
    return write_input(tmp_path / "in", (400, 420))


def test_completeness_and_magnitudes_are_those_of_the_catalogues(tmp_path, field):
    one = Run(tmp_path / "out", FAINT, *field, "--ngal", 100)
    rows = read_table(one.tree.results, "OBJECTS")
    truth, measured = one.truth, one.measured()
    # Joined by position instead of by the association list.
    found = np.array(
        [np.hypot(measured["X_IMAGE"] - x, measured["Y_IMAGE"] - y).min() < 2 for x, y in truth[["x", "y"]]]
    )
    assert rows["balrog_index"].tolist() == list(range(100))
    np.testing.assert_allclose(rows["magnitude"], ZERO_POINT - 2.5 * np.log10(truth["flux_noiseless"]))
    # The nearest of two positions gets a detection.
    assert np.count_nonzero(rows["found"] != found) <= 2
    assert rows["found"].sum() == len(measured)
    good = rows[~rows["there_before"]]
    efficiency = read_table(one.tree.results, "EFFICIENCY")
    assert efficiency["injected"].sum() == len(good)
    assert efficiency["detected"].sum() == good["found"].sum()
    model = {str(row["parameter"]).strip(): row for row in read_table(one.tree.results, "MODEL")}
    half = model["true magnitude at 50 %"]["value"]
    # Between the brightest that is missed and the faintest that is found.
    assert good["magnitude"][~good["found"]].min() < half < good["magnitude"][good["found"]].max()
    bias = read_table(one.tree.results, "BIAS_AUTO")
    bright = good[good["found"] & (good["magnitude"] < 23)]
    # Kron apertures lose some five hundredths of the light of an exponential.
    assert 0 < np.median(bright["MAG_AUTO"] - bright["magnitude"]) < 0.15
    seen = good[good["found"]]
    for row in bias:
        here = seen[(seen["magnitude"] >= row["low"]) & (seen["magnitude"] <= row["high"])]
        # An object on an edge belongs to one of two bins.
        assert row["objects"] == pytest.approx(len(here), abs=1)
        if row["objects"] == len(here):
            assert row["median"] == pytest.approx(np.median(here["MAG_AUTO"] - here["magnitude"]), abs=1e-12)
    assert bias["objects"].sum() == len(seen)
    assert table_names(one.tree.results) == ["OBJECTS", "EFFICIENCY", "MODEL", "BIAS_AUTO"]
    for plot in (one.tree.efficiency_plot, one.tree.bias_plot):
        assert plot.read_text().startswith("<?xml")


def test_what_was_there_before_is_left_out(tmp_path, field):
    file = field[field.index("--image") + 1]
    with fitsio.FITS(file, "rw") as fits:
        pixels = fits[0].read()
        y, x = np.mgrid[:400, :420]
        fits[0].write(pixels + (100 * SIGMA * np.exp(-0.5 * ((x - 199) ** 2 + (y - 99) ** 2) / 9)).astype("f4"))
    given = ROUND.replace("def CustomArgs", "    rules.x, rules.y = [200, 300], [100, 300]\ndef CustomArgs", 1)
    one = Run(tmp_path / "out", given, *field, "--ngal", 2)
    rows = read_table(one.tree.results, "OBJECTS")
    assert rows["there_before"].tolist() == [True, False]
    assert rows["found"].tolist() == [True, True]
    assert read_table(one.tree.results, "EFFICIENCY")["injected"].sum() == 1


def test_nothing_found_and_nothing_drawn(tmp_path, field):
    for name, magnitude in (("faint", 40), ("dark", -99)):
        text = FAINT.replace("Function(np.random.uniform, [21, 25, args.ngal])", str(magnitude))
        one = Run(tmp_path / name, text, *field, "--ngal", 3)
        rows = read_table(one.tree.results, "OBJECTS")
        assert not rows["found"].any()
        assert np.isfinite(rows["magnitude"]).all() == (name == "faint")
        assert len(read_table(one.tree.results, "EFFICIENCY")) == (name == "faint")


def test_realizations_are_runs_of_their_own(tmp_path, field):
    words = [*field, "--ngal", 12]
    alone = Run(tmp_path / "alone", FAINT, *words)
    both = Run(tmp_path / "both", FAINT, *words, "--realizations", 2)
    first, second = (both.tree.realization(number) for number in range(2))
    for kind in ("simulated", "truth"):
        assert identical.same(getattr(alone.tree, kind), getattr(first, kind))
    assert not np.array_equal(read_table(first.truth)["x"], read_table(second.truth)["x"])
    assert not both.tree.truth.exists()
    rows = read_table(both.tree.results, "OBJECTS")
    assert rows["realization"].tolist() == [0] * 12 + [1] * 12
    np.testing.assert_array_equal(rows[:12]["MAG_AUTO"], read_table(alone.tree.results, "OBJECTS")["MAG_AUTO"])
    # Either can be made again by itself.
    repeat = second.args_log.read_text().splitlines()[1].partition(": ")[2]
    again = Run(tmp_path / "again", FAINT, *shlex.split(repeat)[2:], "--outdir", tmp_path / "again")
    assert identical.same(again.tree.simulated, second.simulated)
    # Of a run with more realizations nothing is left that could be taken for this one's.
    Run(tmp_path / "both", FAINT, *words)
    assert not first.truth.exists()
    assert not second.simulated.exists()


def test_truth_as_parquet(tmp_path, field):
    one = Run(tmp_path / "out", FAINT, *field, "--imageonly", "--nonosim", "--ngal", 3, "--parquet")
    table = read_parquet(one.tree.truth_parquet)
    np.testing.assert_array_equal(table.rows, one.truth.astype(table.rows.dtype))
    assert table.cards["ZP"] == ZERO_POINT
    assert table.units["x"] == "pix"
