"""Work by the Fokker-Planck equation: against closed forms, differences of its own work, and the second law."""

import numpy as np
import pytest

from thermorun.learning.trap import exact
from thermorun.potentials.fokker_planck import FokkerPlanck


def double_well(x, theta):
    return theta[0] * (x * x - 1) ** 2 + theta[1] * x


def double_well_gradient(x, theta):
    return (x * x - 1) ** 2, x


def moved_trap(tau, mu=1.0, **options):
    centre = lambda x, theta: 0.5 * (x - theta[0]) ** 2  # noqa: E731
    gradient = lambda x, theta: (theta[0] - x,)  # noqa: E731
    return FokkerPlanck(centre, gradient, (0.0,), (1.0,), tau, mobility=mu, **options)


def straight(s):
    return np.asarray(s)[:, None]


@pytest.mark.parametrize(("tau", "mu"), [(1.0, 1.0), (5.0, 1.0), (3.0, 2.0)])
def test_work_along_the_line_is_that_of_the_paper(tau, mu):
    line = moved_trap(tau, mu).excess_work(straight, 64)
    assert line == pytest.approx(exact.work_straight_line(mu, tau, 1 / tau), rel=1e-3)


def test_finer_grids_come_nearer_to_the_paper():
    """What is left of the difference is the grid's: of second order in its spacing."""
    errors = [
        moved_trap(5.0, points=points).excess_work(straight, 64) / exact.work_straight_line(1.0, 5.0, 0.2) - 1
        for points in (100, 200)
    ]
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_gradient_of_the_work_is_its_derivative():
    problem = FokkerPlanck(double_well, double_well_gradient, (1.0, -0.5), (2.0, 0.5), 2.0, points=120)
    stairs = np.linspace([1.1, -0.4], [1.7, 0.6], 7)
    work, gradient = problem.run(stairs)
    for n, j in ((0, 0), (3, 1), (6, 0), (6, 1)):
        move = np.zeros_like(stairs)
        move[n, j] = 1e-5
        difference = (problem.run(stairs + move)[0] - problem.run(stairs - move)[0]) / 2e-5
        assert gradient[n, j] == pytest.approx(difference, rel=1e-6, abs=1e-8)
    assert work > 0


def test_second_law_and_quasistatic_limit_on_a_coarse_grid():
    works = []
    for tau in (100.0, 1000.0):
        problem = FokkerPlanck(double_well, double_well_gradient, (1.0, -0.5), (1.0, 0.5), tau, points=60)
        works.append(problem.run(np.linspace([1.0, -0.5], [1.0, 0.5], 2001)[1::2])[0])
    # A hundred waits would cost a share of their own; a thousand leave the slow driving to be seen.
    assert 0 < works[1] < 0.2 * works[0]


def test_what_a_grid_does_not_resolve_is_not_known():
    hole = lambda x: np.exp(-0.5 * ((x - 1.2345) / 0.003) ** 2)  # noqa: E731
    problem = FokkerPlanck(
        lambda x, theta: 0.5 * x * x - theta[0] * hole(x), lambda x, theta: (-hole(x),), (0.0,), (8.0,), 1.0
    )
    assert not problem.resolved
    assert np.isnan(problem.excess_work(lambda s: 8.0 * np.asarray(s)[:, None], 64))
