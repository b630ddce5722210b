"""The simulations of `test_science_fits` in small, and what they draw."""

import numpy as np
import pytest
from science_tile import robust_width
from simulated_fits import FRACDEV, NBAND, NO_SHAPE, RADII, SHAPE, draw, fitted, half_light, observed

OBJECTS = 100


def test_half_light_radius_of_a_bulge_and_disk():
    """The ends are those of the profiles themselves: r50 of the bulge is sqrt(T/r50^2 of exp / that of dev)."""
    assert half_light(0.0) == pytest.approx(1.0, abs=1e-9)
    assert half_light(1.0) == pytest.approx(np.sqrt(2.09122736 / 6.32491128), abs=1e-9)


@pytest.mark.parametrize("kind", ["star", "exp", "dev", "bdf"])
def test_objects_are_the_same_every_time(kind):
    one, again, other = draw(kind, 3), draw(kind, 3), draw(kind, 4)
    assert np.array_equal(one.pars, again.pars)
    assert not np.array_equal(one.pars, other.pars)
    bands = [observed(objects, 20, 50, "test") for objects in (one, again)]
    for first, second in zip(*bands, strict=True):
        assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))
    weight = bands[0][1][0].weight[0, 0] * one.bands[1][0].noise ** 2
    assert 20.0 <= np.sqrt(one.power.sum() * weight) <= 50.0
    if kind != "star":
        assert RADII[0] <= one.radius <= RADII[1]
        assert np.hypot(*one.pars[2:4]) < 1.0
    if kind == "bdf":
        assert FRACDEV.low <= one.pars[5] <= FRACDEV.high


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "name", "limit"),
    # Largest bias beside four standard errors: half a per cent, one for true wings.
    [("star", "point", 0.002), ("exp", "exp", 0.005), ("dev", "dev", 0.005), ("bdf", "bdf", 0.005),
     ("dev", "dev_true", 0.01), ("bdf", "bdf_true", 0.01)],
)  # fmt: skip
def test_fluxes_and_errors_of_simulated_objects(kind, name, limit):
    """Median flux and pull width of 100 objects of S/N 50 to 200, through the pixelised PSF."""
    bias, pulls = [], []
    for number in range(OBJECTS):
        one = draw(kind, number, wings=name.endswith("_true"))
        bands = observed(one, 50, 200, "small test")
        pars, errors = fitted(one, bands, name, NO_SHAPE if name == "exp" else SHAPE, pixelised=True)
        assert np.isfinite(pars).all()
        bias.append(pars[-NBAND:] / one.pars[-NBAND:] - 1.0)
        pulls.append((pars[-NBAND:] - one.pars[-NBAND:]) / errors[-NBAND:])
    width = robust_width(np.array(bias)[:, 0])
    assert np.abs(np.median(bias, axis=0)).max() < limit + 4.0 * 1.2533 * width / np.sqrt(OBJECTS)
    # A robust width of n numbers has a relative error of 1.17 / sqrt(n); the two bands share the shape.
    assert robust_width(np.array(pulls)) == pytest.approx(1.0, abs=4.0 * 1.17 / np.sqrt(OBJECTS))
