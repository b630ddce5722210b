"""Fractions found: bins, intervals and the smooth model, on samples whose detection function is known."""

import numpy as np
import pytest
from scipy.special import expit, ndtr
from scipy.stats import beta, binom

from balrogutils.analysis.binning import bins_of, equal_count_edges, even_edges
from balrogutils.analysis.detectionmodel import fit_detection
from balrogutils.analysis.efficiency import detection_efficiency
from balrogutils.analysis.intervals import LEVEL, binomial_interval, robust
from balrogutils.analysis.tables import numbers
from balrogutils.errors import InputError

TOP, MIDDLE, WIDTH = 0.97, 23.6, 0.25


def truth(magnitude):
    return TOP * expit(-(magnitude - MIDDLE) / WIDTH)


def level_at(level):
    return MIDDLE - WIDTH * np.log(level / TOP / (1.0 - level / TOP))


def sample(seed, number=500):
    rng = np.random.default_rng(seed)
    magnitude = rng.uniform(20.0, 25.5, number)
    return magnitude, rng.random(number) < truth(magnitude)


NOTHING = {
    "no row": ([], []),
    "one row": ([True], [21.0]),
    "all detected": ([True] * 50, np.linspace(20, 22, 50)),
    "none detected": ([False] * 50, np.linspace(25, 27, 50)),
    "no value": ([True, False] * 25, [np.nan] * 50),
    "one value": ([True, False] * 25, [21.0] * 50),
    "no overlap": ([True] * 25 + [False] * 25, np.linspace(20, 25, 50)),
}


@pytest.mark.parametrize("case", NOTHING)
def test_samples_without_a_model_give_tables_with_a_sentence(case):
    detected, magnitude = NOTHING[case]
    table = detection_efficiency(detected, magnitude, name="magnitude", unit="mag")
    assert table.meta["note"].endswith(".")
    assert table["injected"].sum() == np.isfinite(magnitude).sum()
    assert table["low"].unit == "mag"
    assert all(column.description for column in table.columns.values())
    model = fit_detection(detected, {"magnitude": magnitude})
    assert not model.fitted
    assert model.note.startswith("No model: ")
    assert np.isnan(model.crossing(0.5).value)
    rows = model.table()
    assert np.isnan(rows["value"]).all()
    assert rows.meta["note"] == model.note
    assert np.isnan(model.predict({"magnitude": [21.0, 22.0]})).all()


def test_a_fraction_that_does_not_fall_has_no_limit():
    rng = np.random.default_rng(2)
    magnitude = rng.uniform(20, 25, 400)
    model = fit_detection(rng.random(400) < 0.3 + 0.1 * (magnitude - 20), {"magnitude": magnitude})
    assert model.fitted
    assert "does not fall" in model.note
    assert str(model.crossing(0.5)) == "not reached"


def test_a_low_asymptote_is_not_reached():
    rng = np.random.default_rng(3)
    magnitude = rng.uniform(20, 25, 3000)
    model = fit_detection(rng.random(3000) < 0.7 * expit((23.0 - magnitude) / 0.3), {"magnitude": magnitude})
    assert "90 % is not reached" in model.note
    assert model.crossing(0.5).low < 23.0 + 0.3 * np.log(0.2 / 0.5) + 0.1
    low = fit_detection(rng.random(3000) < 0.4 * expit((23.0 - magnitude) / 0.3), {"magnitude": magnitude})
    assert "stays below 50 %" in low.note


def test_a_limit_beyond_all_injections_is_not_told():
    """Every tenth of the fainter half is missed, one in forty of the others: a fall, but none through 50 %."""
    magnitude = np.linspace(18.0, 21.0, 400)
    found = np.arange(400) % np.where(magnitude > 19.5, 10, 40) != 0
    model = fit_detection(found, {"i": magnitude}, units={"i": "mag"})
    assert model.falls
    assert np.isnan(model.crossing(0.5).value)
    assert model.note == "375 of 400 injections detected; the fraction stays above 50 % down to i = 21.00 mag, " + (
        f"its asymptote is {model.asymptote.value:.2f}."
    )
    assert np.isnan(model.table()["value"][0])
    # Within the injections it is told as ever.
    assert 18.0 < model.crossing(0.92).value < 21.0


def test_a_fall_that_is_not_resolved_is_said():
    rng = np.random.default_rng(4)
    magnitude = np.append(rng.uniform(18, 23, 200), [24.0, 24.1, 24.2])
    found = np.append(rng.random(200) < 0.95, [False] * 3)
    model = fit_detection(found, {"i": magnitude})
    assert "steeper than these data tell (0 injections within it)." in model.note
    # Anywhere from the last found to the first missed.
    half = model.crossing(0.5)
    assert half.low > 22.9
    assert half.high < 24.1


def test_input_that_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="2 rows"):
        detection_efficiency([True], [21.0, 22.0], name="magnitude")
    with pytest.raises(InputError, match="true and false"):
        detection_efficiency([2], [21.0], name="magnitude")
    with pytest.raises(InputError, match="do not rise"):
        detection_efficiency([True], [21.0], name="magnitude", edges=[22.0, 21.0])
    with pytest.raises(InputError, match="not a list of numbers"):
        numbers(["a"], "a")
    with pytest.raises(InputError, match="not one list"):
        numbers([[1.0]], "a")
    with pytest.raises(InputError, match="wider than 0"):
        even_edges([1.0], 0.0)
    with pytest.raises(InputError, match="too many"):
        even_edges([0.0, 1e6], 1e-3)
    with pytest.raises(InputError, match="no curve"):
        fit_detection([True], {"m": [1.0]}, curve="tanh")
    with pytest.raises(InputError, match="needs a variable"):
        fit_detection([True], {})
    with pytest.raises(InputError, match="more found than tried"):
        binomial_interval([2], [1])
    with pytest.raises(InputError, match="between 0 and 1"):
        binomial_interval([1], [1], level=1.0)
    magnitude, found = sample(1)
    with pytest.raises(InputError, match="between 0 and 1"):
        fit_detection(found, {"m": magnitude}).crossing(1.0)


def test_bins_hold_what_they_say():
    bins = bins_of([1.0, 2.0, 3.0, np.nan, 0.5, 3.5], [1.0, 2.0, 3.0])
    assert bins.place.tolist() == [0, 1, 1, -1, -1, -1]
    assert bins_of([5.0, 5.0]).place.tolist() == [0, 0]
    assert bins_of([]).number == 0
    assert even_edges([0.2, 1.0], 0.5).tolist() == [0.0, 0.5, 1.0, 1.5]
    edges = equal_count_edges(np.arange(100.0))
    assert np.histogram(np.arange(100.0), edges)[0].tolist() == [20] * 5
    # Half of the values are one value: no edge twice.
    assert np.all(np.diff(equal_count_edges(np.append(np.zeros(100), np.arange(100.0)))) > 0)


def test_masked_and_big_endian_columns_are_numbers():
    masked = np.ma.MaskedArray([1, 2], mask=[False, True])
    assert np.array_equal(numbers(masked, "a"), [1.0, np.nan], equal_nan=True)
    assert numbers(np.array([1.0, 2.0], ">f8"), "a").dtype.isnative


def test_jeffreys_intervals():
    low, high = binomial_interval([0, 3, 10, 0], [10, 10, 10, 0])
    assert low[0] == 0.0
    assert high[2] == 1.0
    assert np.isnan([low[3], high[3]]).all()
    assert low[1] == pytest.approx(beta(3.5, 7.5).ppf(0.5 - LEVEL / 2), rel=1e-9)
    assert high[1] == pytest.approx(beta(3.5, 7.5).ppf(0.5 + LEVEL / 2), rel=1e-9)
    # Exact coverage, averaged over all fractions, is the level: a known property (Brown et al. 2001).
    p = np.linspace(0.0005, 0.9995, 1000)
    k = np.arange(31)
    low, high = binomial_interval(k, np.full(31, 30))
    inside = (p[:, None] >= low) & (p[:, None] <= high)
    assert (binom.pmf(k, 30, p[:, None]) * inside).sum(axis=1).mean() == pytest.approx(LEVEL, abs=0.02)


def test_robust_values_have_honest_errors():
    rng = np.random.default_rng(5)
    for number in (8, 40, 300):
        all_of = [robust(rng.normal(0.3, 2.0, number)) for _ in range(1000)]
        median, median_err, width, width_err = np.array(all_of).T
        # An interval of +-1 error covers 68 %; with few values the error itself scatters, and it covers less.
        assert np.mean(np.abs(median - 0.3) < median_err) == pytest.approx(LEVEL, abs=0.1)
        assert np.mean(np.abs(width - 2.0) < width_err) == pytest.approx(LEVEL, abs=0.13)
    assert np.isnan(robust([])).all()
    one = robust([1.0, np.nan])
    assert (one.median, one.width) == (1.0, 0.0)
    assert np.isnan(one.median_err)


def test_must_show_1_intervals_of_bins_cover_the_truth():
    edges = np.arange(20.0, 25.6, 0.5)
    fine = np.linspace(0.0, 0.5, 501)
    expected = np.array([truth(edge + fine).mean() for edge in edges[:-1]])
    inside = []
    for seed in range(50):
        magnitude, found = sample(seed, 800)
        table = detection_efficiency(found, magnitude, name="i", edges=edges)
        inside.append((expected >= table["efficiency_low"]) & (expected <= table["efficiency_high"]))
    assert 0.55 <= np.mean(inside) <= 0.80


def test_must_show_1_the_model_covers_the_truth():
    names = ("m50", "m90", "asymptote", "slope")
    inside, pulls = [], []
    for seed in range(50):
        magnitude, found = sample(seed)
        model = fit_detection(found, {"i": magnitude}, units={"i": "mag"})
        got = (model.crossing(0.5), model.crossing(0.9), model.asymptote, model.slope())
        want = (level_at(0.5), level_at(0.9), TOP, -1.0 / WIDTH)
        inside.append([not (value < one.low or value > one.high) for one, value in zip(got, want, strict=True)])
        curve, error = model.predict({"i": [22.0, 23.0, 23.6, 24.2]})
        pulls.append((curve - truth(np.array([22.0, 23.0, 23.6, 24.2]))) / error)
    covered = dict(zip(names, np.mean(inside, axis=0), strict=True))
    assert 0.55 <= np.mean(inside) <= 0.80
    assert all(0.5 <= value <= 0.86 for value in covered.values()), covered
    assert covered["m50"] >= 0.55
    assert covered["m50"] <= 0.80
    # Four points of 50 curves: the width of pulls is known to 7 % if they were independent.
    assert np.std(pulls) == pytest.approx(1.0, abs=0.25)


def test_the_model_of_two_variables_and_the_other_curve():
    rng = np.random.default_rng(8)
    magnitude, size = rng.uniform(20, 25.5, 4000), rng.gamma(3.0, 0.2, 4000)
    p = 0.98 * ndtr(-(magnitude - 23.5 + 1.2 * (size - 0.6)) / 0.4)
    model = fit_detection(rng.random(4000) < p, {"i": magnitude, "size": size}, curve="erf")
    for got, want in (
        (model.slope(0), -1.0 / 0.4),
        (model.slope(1), -1.2 / 0.4),
        (model.asymptote, 0.98),
        (model.crossing(0.5, size=0.6), 23.5 - 0.4 * 0.0256),
        (model.crossing(0.5, size=1.2), 23.5 - 0.72 - 0.4 * 0.0256),
    ):
        assert want == pytest.approx(got.value, abs=2.5 * (got.high - got.low))
        assert got.low < got.value < got.high
    chi2, groups = model.goodness()
    assert chi2 < 25.0
    assert groups >= 6
    # A model of magnitude alone does not hold what size does, and the wrong curve is seen.
    assert model.crossing(0.5, size=0.2).value > model.crossing(0.5, size=1.5).value + 1.0


def test_many_injections_are_counted_together():
    magnitude, found = sample(4, 100_000)
    model = fit_detection(found, {"i": magnitude})
    few = fit_detection(found[:20_000], {"i": magnitude[:20_000]})
    for level in (0.5, 0.9):
        got, part = model.crossing(level), few.crossing(level)
        assert level_at(level) == pytest.approx(got.value, abs=1.5 * (got.high - got.low))
        assert (got.high - got.low) * np.sqrt(5.0) == pytest.approx(part.high - part.low, rel=0.1)
    assert "of 100000 injections detected; 50 % at i = 23.5" in model.note
