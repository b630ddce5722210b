"""Levenberg-Marquardt on normal equations."""

import numpy as np
import pytest

from balrogutils.fitting.solver import LMOptions, Status, invert, minimise


def linear(x, normal, gradient):
    matrix = np.array([[4.0, 1.0], [1.0, 3.0]])
    normal[:] = matrix
    gradient[:] = matrix @ (x - [1.0, -2.0])
    return float((x - [1.0, -2.0]) @ matrix @ (x - [1.0, -2.0])) + 5.0


def rosenbrock(x, normal, gradient):
    r = np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]])
    j = np.array([[-20 * x[0], 10.0], [-1.0, 0.0]])
    normal[:] = j.T @ j
    gradient[:] = j.T @ r
    return float(r @ r)


def test_nothing_to_evaluate_is_said():
    def never(x, normal, gradient):
        normal[:], gradient[:] = 1.0, 1.0
        return np.nan

    solution = minimise(never, np.zeros(2), LMOptions())
    assert solution.status is Status.BAD_START
    assert solution.nfev == 1


def test_infinite_start_is_said():
    def infinite(x, normal, gradient):
        normal[:], gradient[:] = 1.0, np.inf
        return 1.0

    assert minimise(infinite, np.zeros(2), LMOptions()).status is Status.NOT_FINITE


def test_linear_problem():
    solution = minimise(linear, np.array([30.0, 40.0]), LMOptions())
    assert solution.status is Status.CONVERGED
    # The last step is bounded by ftol = 5e-5 of chi^2, that is by 0.007 of a standard error, and ends far inside.
    assert solution.pars == pytest.approx([1.0, -2.0], abs=1e-4)
    assert solution.chi2 == pytest.approx(5.0, abs=1e-7)


def test_curved_valley():
    solution = minimise(rosenbrock, np.array([-1.2, 1.0]), LMOptions(ftol=1e-12, xtol=1e-12))
    assert solution.status is Status.CONVERGED
    assert solution.pars == pytest.approx([1.0, 1.0], abs=1e-6)
    assert solution.nfev < 60


def test_a_fit_may_end_when_enough_is_gained():
    """Of a parabola the first undamped step is the last; what is enough decides whether it is evaluated."""
    start = np.array([1.3, -2.0])
    gain = linear(start, np.empty((2, 2)), np.empty(2)) - 5.0
    for enough, nfev in ((1.01 * gain, 1), (0.99 * gain, 2)):
        solution = minimise(linear, start, LMOptions(enough=enough))
        assert solution.status is Status.CONVERGED
        assert solution.nfev == nfev
        assert solution.pars == pytest.approx([1.0, -2.0], abs=1e-3)
    assert LMOptions().last == pytest.approx(0.00707, rel=1e-3)
    assert LMOptions(ftol=1.0).last == 0.01


def test_limit_is_kept():
    solution = minimise(rosenbrock, np.array([-1.2, 1.0]), LMOptions(maxfev=3))
    assert solution.status is Status.MAXFEV
    assert solution.nfev == 3


def test_walls_are_not_crossed():
    def walled(x, normal, gradient):
        return np.nan if x[0] > 0.5 else linear(x, normal, gradient)

    solution = minimise(walled, np.array([-3.0, 0.0]), LMOptions(maxfev=500))
    assert solution.pars[0] <= 0.5
    assert solution.nfev <= 500


def test_parameter_without_influence_does_not_move():
    def blind(x, normal, gradient):
        normal[:], gradient[:] = np.diag([2.0, 0.0]), [2.0 * (x[0] - 3.0), 0.0]
        return 2.0 * (x[0] - 3.0) ** 2

    solution = minimise(blind, np.array([0.0, 7.0]), LMOptions())
    assert solution.pars == pytest.approx([3.0, 7.0], abs=1e-3)
    assert invert(solution.normal) is None


def test_inverse():
    matrix = np.array([[1e12, 1e2], [1e2, 1e-6]])
    assert invert(matrix) @ matrix == pytest.approx(np.eye(2), abs=1e-6)
    assert invert(np.array([[1.0, 1.0], [1.0, 1.0]])) is None
    assert invert(np.array([[np.nan, 0.0], [0.0, 1.0]])) is None


@pytest.mark.parametrize("pull", [0.3, 0.9, 1.1, 4.0])
@pytest.mark.parametrize("start", [(0.0, 0.0), (1e-9, 0.0), (0.002, -0.001), (0.5, 0.3)])
def test_a_cusp_is_found_or_left_in_few_steps(pull, start):
    """chi^2 = 10 |g - p|^2 + 2 s |g| is least at 0 for 10 |p| < s, and else at |p| - s / 10 towards p."""
    towards = np.array([0.6, -0.8])
    slope = 2.0
    middle = towards * pull * slope / 10.0

    def smooth(x, normal, gradient):
        normal[:] = 10.0 * np.eye(2)
        gradient[:] = 10.0 * (x - middle)
        return float(10.0 * (x - middle) @ (x - middle) + 2.0 * slope * np.hypot(*x))

    cusps = np.array([0]), np.array([slope])
    found = minimise(smooth, np.array(start), LMOptions(ftol=1e-10, xtol=1e-10), cusps=cusps)
    assert found.status is Status.CONVERGED
    assert found.nfev <= 6
    assert found.pars == pytest.approx(towards * max(pull - 1.0, 0.0) * slope / 10.0, abs=2e-4)
    if pull < 1.0:
        assert np.all(found.pars == 0.0)
