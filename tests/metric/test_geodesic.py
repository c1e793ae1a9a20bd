"""Geodesics and protocols of least work: against closed forms."""

import numpy as np
import pytest
from scipy.integrate import quad

from thermorun.errors import InputError
from thermorun.learning.trap import exact
from thermorun.metric.geodesic import Geodesic, geodesic, smoothed
from thermorun.potentials.fokker_planck import FokkerPlanck
from thermorun.potentials.least_work import least


def flat(beta, mu):
    """zeta of a Gaussian's mean and stiffness: ds^2 = (dm^2 + d sigma^2) / mu with sigma = (beta k)^(-1/2)."""
    return lambda theta: np.diag([1 / mu, 0.25 / (mu * beta * theta[1] ** 3)])


def test_geodesics_of_gaussians_are_straight_in_mean_and_width():
    beta, mu = 2.0, 0.7
    width = lambda k: (beta * k) ** -0.5  # noqa: E731
    found = geodesic(flat(beta, mu), (0.0, 1.0), (1.5, 9.0))
    assert found.length**2 == pytest.approx((1.5**2 + (width(9.0) - width(1.0)) ** 2) / mu, rel=1e-6)
    s = np.linspace(0, 1, 21)
    path = found.path(s)
    np.testing.assert_allclose(path[:, 0], 1.5 * s, atol=1e-4)
    np.testing.assert_allclose(width(path[:, 1]), width(1.0) + s * (width(9.0) - width(1.0)), atol=1e-4)
    line = quad(lambda r: 1.5**2 / mu + 64 * 0.25 / (mu * beta * (1 + 8 * r) ** 3), 0, 1)[0]
    assert found.line == pytest.approx(line, rel=1e-9)
    assert found.excess_work(10.0) < found.line_excess_work(10.0)


def test_a_geodesic_that_was_stored_is_the_same():
    found = geodesic(flat(2.0, 0.7), (0.0, 1.0), (1.5, 9.0))
    shares = np.linspace(0, 1, 257)
    stored = Geodesic.through(shares, found.path(shares), found.length, found.line)
    s = np.random.default_rng(1).uniform(size=50)
    np.testing.assert_allclose(stored.path(s), found.path(s), rtol=1e-6, atol=1e-9)


def test_geodesic_of_one_parameter_has_constant_speed():
    found = geodesic(lambda theta: np.array([[0.25 / theta[0] ** 3]]), (1.0,), (100.0,))
    assert found.length == pytest.approx(1 - 0.1, rel=1e-8)
    s = np.linspace(0, 1, 11)
    np.testing.assert_allclose(found.path(s)[:, 0] ** -0.5, 1 - 0.9 * s, atol=1e-6)


def test_a_tensor_over_a_grid_is_smooth_between_its_points():
    """Where the logarithm of zeta is a polynomial of the degree that is fitted, it comes out again."""
    grid = np.array([(a, b) for a in np.linspace(0, 1, 3) for b in np.linspace(1, 2, 4)])

    def zeta(theta):
        turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
        return turn @ np.diag(np.exp([theta[0] ** 2 - theta[1], 0.5 * theta[1] ** 3])) @ turn.T

    tensor = smoothed(grid, np.array([zeta(point) for point in grid]), (3, 4))
    for point in np.array([[0.31, 1.77], [0.9, 1.02]]):
        np.testing.assert_allclose(tensor(point), zeta(point), rtol=1e-9)
    with pytest.raises(InputError, match="outside the grid"):
        tensor(np.array([0.5, 2.1]))


def test_geodesic_needs_a_regular_metric_and_two_points():
    with pytest.raises(InputError, match="singular"):
        geodesic(lambda theta: np.ones((2, 2)), (0.0, 0.0), (1.0, 1.0))
    with pytest.raises(InputError, match="two points"):
        geodesic(lambda theta: np.eye(1), (1.0,), (1.0,))


@pytest.mark.parametrize(("tau", "mu"), [(1.0, 1.0), (5.0, 1.0), (3.0, 2.0)])
def test_least_work_of_the_trap_is_that_of_the_paper(tau, mu):
    problem = FokkerPlanck(
        lambda x, theta: 0.5 * (x - theta[0]) ** 2, lambda x, theta: (theta[0] - x,), (0.0,), (1.0,), tau, mobility=mu
    )
    best = least(problem, lambda s: np.asarray(s)[:, None], 64)
    assert best.excess_work == pytest.approx(exact.work_optimal(mu, tau, 0.0, 1.0), rel=5e-4)
    jump = 1 / (mu * tau + 2)
    np.testing.assert_allclose([best.first_jump[0], best.last_jump[0]], jump, rtol=0.01)
    s = np.linspace(0, 1, 11)
    np.testing.assert_allclose(best.theta(s)[:, 0], jump + (1 - 2 * jump) * s, atol=3e-3)


def test_least_work_is_less_than_the_geodesic_s():
    energy, gradient = lambda x, theta: 0.5 * theta[0] * x * x, lambda x, theta: (0.5 * x * x,)
    problem = FokkerPlanck(energy, gradient, (1.0,), (4.0,), 2.0)
    path = geodesic(lambda theta: np.array([[0.25 / theta[0] ** 3]]), (1.0,), (4.0,))
    along, line = (problem.excess_work(course, 64) for course in (path.path, path.straight))
    best = least(problem, path.path, 64).excess_work
    assert best < along < line
    assert best == pytest.approx(stiffness_optimum(1.0, 4.0, 2.0), rel=2e-3)


def stiffness_optimum(start, end, tau):
    """Least excess work of a stiffness from ``start`` to ``end`` (Schmiedl & Seifert, Phys. Rev. Lett. 98, 108301,
    2007, Eqs. 17 to 19), in units mu = beta = 1.

    w = <x^2> obeys dw/dt = 2 (1 - k w).  The work is k_end w(tau) / 2 - k_start w(0) / 2 + heat, and for given ends of
    w the least heat lets sqrt(w) run straight in time: integral of (dw/dt)^2 / (4 w) dt = (difference of sqrt(w))^2 /
    tau, beside the entropy ln(w_0 / w_tau) / 2.  The best final width is left to a one-dimensional search.
    """
    w = np.linspace(0.5 / end, 2.0 / start, 2_000_001)
    work = 0.5 * end * w - 0.5 + 0.5 * np.log((1 / start) / w) + (np.sqrt(w) - start**-0.5) ** 2 / tau
    return np.min(work) - 0.5 * np.log(end / start)
