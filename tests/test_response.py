"""Mean response, selection and biases, on samples whose answers are known."""

import numpy as np
import pytest

from balrogutils.analysis.response import calibrated_shear, mean_response, pair_bias
from balrogutils.errors import InputError

RESPONSE = np.array([[0.7, 0.05], [-0.02, 0.6]])


def sample(count, shear, seed=1, spread=0.0):
    """Shapes that respond linearly, and a size whose cut goes with the shear."""
    rng = np.random.default_rng(seed)
    intrinsic = rng.normal(0, 0.2, (count, 2))
    own = RESPONSE + spread * rng.normal(0, 1, (count, 2, 2))
    steps = {"noshear": (0, 0), "1p": (0.01, 0), "1m": (-0.01, 0), "2p": (0, 0.01), "2m": (0, -0.01)}
    shapes, sizes = {}, {}
    base = rng.normal(1.0, 0.3, count)
    for name, step in steps.items():
        true = np.array(shear) + step
        shapes[name] = intrinsic + own @ true
        # Galaxies along the shear look larger.
        sizes[name] = base + 2.0 * intrinsic @ true
    return shapes, sizes


def test_without_a_selection():
    shapes, _ = sample(2000, (0.02, -0.01), spread=0.1)
    got = mean_response(shapes)
    assert pytest.approx(RESPONSE, abs=0.1 * 4 / np.sqrt(2000)) == got.R
    assert (got.RS == 0).all()
    assert got.number == 2000
    assert got.e == pytest.approx(shapes["noshear"].mean(axis=0))


def test_c8_a_selection_that_follows_the_shear():
    """The same galaxies sheared both ways: without the selection's response the shear is wrong by more than 1 %."""
    shear = 0.02
    found = {}
    for corrected in (False, True):
        e, total = 0.0, 0.0
        for sign in (1, -1):
            shapes, sizes = sample(200_000, (sign * shear, 0.0))
            got = mean_response(shapes, lambda name, sizes=sizes: sizes[name] > 1.2)
            e += sign * got.e[0]
            total += got.total[0, 0] if corrected else got.R[0, 0]
        found[corrected] = e / total / shear - 1.0
    assert abs(found[False]) > 0.01
    # Selection moves 1 % of 2e5 objects: the noise of RS is some 2e-3 of R.
    assert abs(found[True]) < 0.01


def test_weights_count_and_respond():
    shapes, sizes = sample(200_000, (0.02, 0.0))
    got = mean_response(shapes, weight=lambda name: 1.0 / (1.0 + np.exp(-4 * (sizes[name] - 1.0))))
    plain = mean_response(shapes)
    assert got.RS[0, 0] > 10 * abs(plain.RS[0, 0])
    assert calibrated_shear(plain)[0] == pytest.approx(0.02, abs=4 * 0.2 / 0.7 / np.sqrt(2e5))


def test_pairs_cancel_shape_noise():
    rng = np.random.default_rng(3)
    response = 0.7 + rng.normal(0, 0.05, 1000)
    e = rng.normal(0, 0.2, 1000)
    plus, minus = e + 1.003 * response * 0.02 + 1e-5, e - 1.003 * response * 0.02 + 1e-5
    got = pair_bias(plus - e, minus - e, 0.02, np.column_stack([response, response]))
    assert got.m == pytest.approx(0.003, abs=1e-9)
    assert got.c == pytest.approx(1e-5 / response.mean(), rel=1e-9)
    assert got.m_err < 1e-9
    noisy = [
        pair_bias(
            plus - e + rng.normal(0, 0.01, 1000),
            minus - e + rng.normal(0, 0.01, 1000),
            0.02,
            np.column_stack([response, response]),
        )
        for _ in range(200)
    ]
    for name in ("m", "c"):
        scatter = np.std([getattr(one, name) for one in noisy])
        assert np.mean([getattr(one, f"{name}_err") for one in noisy]) == pytest.approx(scatter, rel=0.2)


def test_samples_that_make_no_sense_are_refused():
    shapes, _ = sample(10, (0.0, 0.0))
    with pytest.raises(InputError, match="no shapes of 2m"):
        mean_response({name: table for name, table in shapes.items() if name != "2m"})
    with pytest.raises(InputError, match="same objects"):
        mean_response({**shapes, "1p": shapes["1p"][:5]})
    with pytest.raises(InputError, match="selected"):
        mean_response(shapes, lambda name: np.zeros(10, bool))
    broken = {**shapes, "noshear": np.full((10, 2), np.nan)}
    with pytest.raises(InputError, match="no shape"):
        mean_response(broken)
    with pytest.raises(InputError, match="no response"):
        mean_response({**shapes, "1p": np.full((10, 2), np.nan)})
    with pytest.raises(InputError, match="singular"):
        calibrated_shear(mean_response(dict.fromkeys(shapes, shapes["noshear"])))
    with pytest.raises(InputError, match="together"):
        pair_bias([1.0], [1.0], 0.02, [[1.0, 1.0]])
    with pytest.raises(InputError, match="zero"):
        pair_bias([1.0, 1.0], [1.0, 1.0], 0.02, np.zeros((2, 2)))
