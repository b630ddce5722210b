"""Transfer functions, pulls, classes, maps and shear tables, on samples whose answers are known."""

import healsparse
import hpgeom
import numpy as np
import pytest

from balrogutils.analysis.classes import confusion_matrix, input_row_efficiency
from balrogutils.analysis.intervals import LEVEL
from balrogutils.analysis.response import pair_bias
from balrogutils.analysis.shearbias import bias_table, magnification_response, response_table
from balrogutils.analysis.skymap import efficiency_map, write_map
from balrogutils.analysis.transfer import pull_statistics, transfer_function
from balrogutils.errors import InputError

NAN = np.full(30, np.nan)
EMPTY = {
    "no row": ([], []),
    "one row": ([0.1], [20.0]),
    "nothing measured": (NAN, np.arange(30.0)),
    "no truth": (np.arange(30.0), NAN),
    "one value": (np.zeros(30), np.full(30, 20.0)),
}


@pytest.mark.parametrize("case", EMPTY)
def test_degenerate_samples_give_tables_with_a_sentence(case):
    difference, magnitude = EMPTY[case]
    for edges in (None, [19.0, 21.0, 23.0]):
        table = transfer_function(
            difference, magnitude, quantity="d", unit="mag", name="i", name_unit="mag", edges=edges
        )
        assert table.meta["note"].endswith(".")
        assert table["median"].unit == "mag"
        one = np.ones(len(difference))
        pulls = pull_statistics(difference, 0 * one, one, magnitude, quantity="d", name="i", edges=edges)
        assert list(pulls["objects"]) == list(table["objects"])
        assert all(column.description for part in (table, pulls) for column in part.columns.values())
    assert transfer_function(difference, magnitude, quantity="d", name="i")["objects"].sum() == (
        0 if np.isnan(difference).all() or np.isnan(magnitude).all() else len(difference)
    )


def test_errors_that_are_none_are_left_out():
    got = pull_statistics(
        np.ones(8), np.zeros(8), [0.0, -1.0, np.nan, np.inf, 1, 1, 1, 2], np.ones(8), quantity="f", name="s"
    )
    assert got["objects"].tolist() == [4]
    assert got["median"][0] == 1.0


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(InputError, match="rows"):
        transfer_function([1.0], [1.0, 2.0], quantity="d", name="i")
    with pytest.raises(InputError, match="rows"):
        confusion_matrix([True], [0, 1])
    with pytest.raises(InputError, match="rows"):
        input_row_efficiency(["a"], [0, 1], [True, False])
    with pytest.raises(InputError, match="nside"):
        efficiency_map([0.0], [0.0], [True], nside=100)
    with pytest.raises(InputError, match="changes nothing"):
        magnification_response([True], [True], 1.0)


def photometry(seed, number=3000):
    """Magnitudes, colours, errors that grow, and deviations by them with 3 % outliers."""
    rng = np.random.default_rng(seed)
    magnitude, colour = rng.uniform(19, 24, number), rng.normal(0.8, 0.3, number)
    sigma = 0.01 * 10 ** (0.3 * (magnitude - 19))
    error = rng.normal(0, sigma)
    outlier = rng.random(number) < 0.03
    return magnitude, colour, sigma, np.where(outlier, 3.0, error)


def test_must_show_1_transfer_medians_cover_the_truth():
    edges = np.arange(19.0, 24.1, 0.5)
    centres = edges[:-1] + 0.25
    inside = {"median": [], "width": [], "colour": []}
    for seed in range(50):
        magnitude, colour, sigma, error = photometry(seed)
        # A step a bin, so that each bin has one truth.
        flat = error / sigma * 0.1 + 0.02 * (np.floor(magnitude * 2) / 2 - 19) + 0.05 * (colour - 0.8)
        good = error != 3.0
        table = transfer_function(flat[good], magnitude[good], quantity="d", name="i", edges=edges)
        truth = 0.02 * (centres - 0.25 - 19)
        inside["median"].append(np.abs(table["median"] - truth) < table["median_err"])
        wide = np.hypot(0.1, 0.05 * 0.3)
        inside["width"].append(np.abs(table["width"] - wide) < table["width_err"])
        terms = transfer_function((0.05 * (colour - 0.8) + error)[good], colour[good], quantity="d", name="g-i")
        inside["colour"].append(np.abs(terms["median"] - 0.05 * (terms["centre"] - 0.8)) < terms["median_err"])
    # Some 12 x 50 intervals each; the colour's bins have a slope inside, which the median at the centre follows.
    for name, covered in inside.items():
        assert 0.55 <= np.mean(np.concatenate(covered)) <= 0.80, name
    assert np.mean(np.concatenate(inside["median"])) == pytest.approx(LEVEL, abs=0.06)


def test_outliers_are_counted_and_do_not_move_the_rest():
    magnitude, _, sigma, error = photometry(1, 20_000)
    table = transfer_function(error / sigma, magnitude, quantity="d", name="i", edges=[19.0, 21.0])
    clean = error[magnitude < 21.0] != 3.0
    assert table["outliers"][0] == np.count_nonzero(~clean)
    low, high = table["outlier_fraction_low"][0], table["outlier_fraction_high"][0]
    assert low < table["outlier_fraction"][0] < high
    assert table["outlier_fraction"][0] == pytest.approx(0.03, abs=2 * (high - low))
    # 3 % of outliers on one side move the median by 0.04 and widen by 4 %.
    assert abs(table["median"][0]) < 0.04 + 4 * table["median_err"][0]
    assert table["width"][0] == pytest.approx(1.0, abs=0.04 + 4 * table["width_err"][0])


def test_must_show_1_pulls_of_right_errors_have_width_1():
    rng = np.random.default_rng(11)
    flux = 10 ** rng.uniform(2, 4, 20_000)
    sigma = np.sqrt(900.0 + flux)
    measured = rng.normal(flux, sigma)
    table = pull_statistics(measured, flux, sigma, flux / sigma, quantity="flux", name="S/N")
    assert len(table) == 12
    for name, want in (("median", 0.0), ("width", 1.0), ("chi2", 1.0)):
        away = (table[name] - want) / table[f"{name}_err"]
        assert np.abs(away).max() < 4.0
        assert np.std(away) == pytest.approx(1.0, abs=0.7)
    half = pull_statistics(measured, flux, sigma / 2, flux / sigma, quantity="flux", name="S/N")
    assert half["width"] == pytest.approx(2 * np.asarray(table["width"]))
    # Bins of the measured S/N would show a bias that is not there: faint ones scatter down into the first.
    biased = pull_statistics(measured, flux, sigma, measured / sigma, quantity="flux", name="S/N")
    assert biased["median"][0] < -3 * biased["median_err"][0]


def test_confusion():
    table = confusion_matrix([], [])
    assert table.meta["note"] == "There is no matched object."
    assert table["stars"].sum() == 0
    assert "has a class" in confusion_matrix([True], [np.nan]).meta["note"]
    star = np.repeat([True, False], [20, 80])
    measured = np.concatenate([np.repeat([0, 1, 3], [15, 3, 2]), np.repeat([0, 2, 3, -9], [4, 6, 60, 10])])
    table = confusion_matrix(star, measured)
    assert table["stars"].tolist() == [15, 3, 0, 2, 0]
    assert table["galaxies"].tolist() == [4, 0, 6, 60, 10]
    assert table.meta["star_completeness"][0] == pytest.approx(0.9)
    assert table.meta["star_purity"][0] == pytest.approx(18 / 22)
    assert table.meta["galaxy_completeness"][0] == pytest.approx(66 / 80)
    assert table.meta["galaxy_purity"][0] == pytest.approx(66 / 68)
    low, high = table.meta["star_completeness"][1:]
    assert low < 0.9 < high
    assert (
        table.meta["note"]
        == "90 % of 20 stars are called stars, 82 % of 80 galaxies are called galaxies; 10 have no class."
    )


def test_input_rows():
    assert len(input_row_efficiency([], [], [])) == 0
    assert "No injection" in input_row_efficiency(["a"], [-1], [True]).meta["note"]
    table = input_row_efficiency(["b", "a", "b", "b"], [3, 0, 3, 1], [True, False, False, True])
    assert list(zip(table["kind"], table["row"], table["injected"], table["detected"], strict=True)) == [
        ("a", 0, 1, 0),
        ("b", 1, 1, 1),
        ("b", 3, 2, 1),
    ]
    assert table.meta["note"] == "3 input rows injected 4 times, 1 never found."


def test_maps(tmp_path):
    assert efficiency_map([], [], []).n_valid == 0
    assert efficiency_map([np.nan, 0.0], [0.0, -9999.0], [True, True]).n_valid == 0
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(-1, 1, 1000), rng.uniform(-1, 1, 1000)
    found = rng.random(1000) < 0.7
    got = efficiency_map(ra, dec, found, 64)
    values = got[got.valid_pixels]
    assert values["injected"].sum() == 1000
    assert values["detected"].sum() == found.sum()
    own = hpgeom.angle_to_pixel(64, ra[0] % 360.0, dec[0])
    assert got[own]["efficiency"] == got[own]["detected"] / got[own]["injected"]
    write_map(tmp_path / "map.fits", got)
    again = healsparse.HealSparseMap.read(str(tmp_path / "map.fits"))
    assert (again[again.valid_pixels] == values).all()


def shapes_of(count, shear, seed=1):
    rng = np.random.default_rng(seed)
    intrinsic, size = rng.normal(0, 0.2, (count, 2)), rng.normal(1.0, 0.3, count)
    response = np.array([[0.7, 0.05], [-0.02, 0.6]]) + 0.1 * rng.normal(0, 1, (count, 2, 2))
    steps = {"noshear": (0, 0), "1p": (0.01, 0), "1m": (-0.01, 0), "2p": (0, 0.01), "2m": (0, -0.01)}
    shapes = {name: intrinsic + response @ (np.array(shear) + step) for name, step in steps.items()}
    sizes = {name: size + 2.0 * intrinsic @ (np.array(shear) + step) for name, step in steps.items()}
    return shapes, sizes


def test_response_has_errors_that_fit_its_scatter():
    shapes, sizes = shapes_of(0, (0, 0))
    assert len(response_table(shapes)) == 0
    assert "no mean response" in response_table(shapes).meta["note"]
    shapes, sizes = shapes_of(500, (0, 0))
    assert "no mean response" in response_table(shapes, lambda name: np.zeros(500, bool)).meta["note"]
    tables = []
    for seed in range(40):
        shapes, sizes = shapes_of(2000, (0, 0), seed)
        tables.append(response_table(shapes, lambda name, sizes=sizes: sizes[name] > 1.2))
    for name in ("R", "RS", "total"):
        # The first has a mean of 0.7; that of the selection scatters with the few objects that cross the cut.
        scatter = np.std([table[name][0] for table in tables])
        assert np.mean([table[f"{name}_err"][0] for table in tables]) == pytest.approx(scatter, rel=0.35)
    assert np.mean([table["R"][0] for table in tables]) == pytest.approx(0.7, abs=0.005)
    assert list(tables[0]["element"]) == ["R11", "R12", "R21", "R22"]


def test_must_show_6_biases_are_stated_with_their_errors():
    assert "no pair" in bias_table([]).meta["note"]
    rng = np.random.default_rng(6)
    count, shear = 400, 0.02
    shape, response = rng.normal(0, 0.25, count), np.column_stack([rng.normal(0.7, 0.1, count)] * 2)
    plus = shape + response[:, 0] * shear + rng.normal(0, 0.05, count)
    minus = shape - response[:, 0] * shear + rng.normal(0, 0.05, count)
    bias = pair_bias(plus, minus, shear, response)
    table = bias_table([("g1", bias, count)])
    # Per pair 0.05 sqrt 2 of e+ - e-, over 2 R g: 0.05 sqrt 2 / (1.4 x 0.02) / sqrt 400.
    assert bias.m_err == pytest.approx(0.126, rel=0.15)
    assert abs(bias.m) < 4 * bias.m_err
    assert table.meta["note"].startswith("g1: m = ")
    assert f"+- {bias.m_err:.3f}" in table.meta["note"]
    assert table["pairs"].tolist() == [count]


def test_magnification():
    assert "no response" in magnification_response([], [], 1.02).meta["note"]
    assert np.isnan(magnification_response([False], [True], 1.02)["response"][0])
    rng = np.random.default_rng(9)
    got = []
    for _ in range(200):
        # Counts n(<m) ~ 10^(0.4 a m) with a = 1.5: N' = N mu^a, so that d ln N / d kappa = 2 a = 3.
        magnitude = 24.0 + np.log10(rng.random(5000)) / (0.4 * 1.5)
        measured = magnitude + rng.normal(0, 0.1, 5000)
        got.append(magnification_response(measured < 22.5, measured - 2.5 * np.log10(1.04) < 22.5, 1.04))
    values, errors = (np.array([table[name][0] for table in got]) for name in ("response", "response_err"))
    # mu^1.5 is 1 + 3 kappa to first order; the rest is 3 (3/2 - 1) kappa^2 / 2 ... below 1 %.
    assert values.mean() == pytest.approx((1.04**1.5 - 1) / 0.02, abs=5 * errors.mean() / np.sqrt(200))
    assert errors.mean() == pytest.approx(values.std(), rel=0.2)
