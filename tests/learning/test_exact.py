"""Exact values against each other, the paper, a matrix exponential and a plain simulation."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import expm
from scipy.optimize import minimize_scalar

from helpers import z_score
from thermorun.learning import FIGURES, Path, Tabulated, Trap
from thermorun.learning.trap import exact, protocols

# Parameters and values recomputed for these figures with an independent ODE solver at rtol 1e-11.
FIGURE_VALUES = {
    1: (0.129411, 0.032154, 49.991626),
    2: (-1.460e-4, -1.296e-4, 5.000000),
    3: (-5.0, 0.0, 25.0),
    4: (-20 / 3, 0.0, 100 / 3),
    5: (-2.151877, -0.067379, 15.923351),
}


def end_values(trap, protocol):
    truth = exact.moments(trap, protocol, [0.0, trap.tau, trap.tau])
    return truth.u[-1], truth.theta[-1], truth.work[-1]


def figure_trap(number):
    fields = {k: v for k, v in FIGURES[number].items() if k not in ("protocols", "eta", "snapshots")}
    return Trap(**fields)


@pytest.mark.parametrize("number", FIGURE_VALUES)
def test_figures(number):
    trap, settings = figure_trap(number), FIGURES[number]
    protocol = protocols.protocol(settings["protocols"][0], trap, settings.get("eta", 0.5))
    assert end_values(trap, protocol) == pytest.approx(FIGURE_VALUES[number], abs=6e-7)


@pytest.mark.parametrize(
    ("name", "value"),
    [("discontinuous", 1 / 7), ("slow-driving", 0.159234), ("continuous", 0.2), ("constant", 0.249931)],
)
def test_figure_6(name, value):
    trap = Trap()
    assert end_values(trap, protocols.protocol(name, trap))[2] == pytest.approx(value, abs=5e-7)


def test_slow_driving_misses_the_straight_line_by_its_relaxation():
    """Schedule 53 in closed loop is not Eq. 64: theta ends exp(-mu tau) short of the target."""
    trap = Trap()
    _, theta, work = end_values(trap, protocols.protocol("slow-driving", trap))
    assert 1 - theta == pytest.approx(np.exp(-5), rel=1e-9)
    line = exact.work_straight_line(1.0, 5.0, 0.2)
    assert line == pytest.approx(0.160270, abs=5e-7)
    assert end_values(trap, protocols.protocol("straight-line", trap))[2] == pytest.approx(line, rel=1e-9)
    assert line - work > 1e-3


def test_closed_forms_agree_with_each_other():
    mobility, tau, theta0, target = 1.7, 2.3, -0.4, 0.9
    best = minimize_scalar(lambda m: exact.work_discontinuous(mobility, tau, theta0, target, theta0, m))
    assert best.x == pytest.approx(exact.optimal_speed(mobility, tau, target, theta0), rel=1e-6)
    assert best.fun == pytest.approx(exact.work_optimal(mobility, tau, theta0, target), rel=1e-12)
    speed = (target - theta0) / tau
    line = exact.work_straight_line(mobility, tau, speed)
    assert line / best.fun == pytest.approx(exact.straight_line_over_optimal(mobility, tau), rel=1e-10)
    # Eq. 64 is the quadrature of Eq. 24 along Eq. 63.
    lag = lambda t: theta0 + speed * t - exact.u_straight_line(t, mobility, speed, theta0)  # noqa: E731
    assert line == pytest.approx(quad(lambda t: lag(t) * speed, 0, tau)[0], rel=1e-10)
    ratio = exact.work_quasistatic(mobility, 0.3, tau, theta0, target, theta0) / best.fun
    assert ratio == pytest.approx(exact.quasistatic_over_optimal(mobility, 0.3, tau), rel=1e-10)


def test_closed_forms_are_limits_of_the_moment_equations():
    trap = Trap(mobility=1000.0, tau=4.0)
    work = end_values(trap, protocols.protocol("constant", trap, eta=0.5))[2]
    assert work == pytest.approx(exact.work_quasistatic(1000.0, 0.5, 4.0, 0.0, 1.0, 0.0), rel=1e-3)
    for name in ("continuous", "discontinuous", "straight-line"):
        trap = Trap(mobility=0.8, tau=2.0, theta0=1.0, target=-2.0)
        protocol = protocols.protocol(name, trap)
        assert end_values(trap, protocol)[2] == pytest.approx(exact.closed_form(trap, protocol)[1], rel=1e-9)
    t = np.linspace(0, 2, 5)
    protocol = protocols.protocol("continuous", trap)
    u0 = protocols.start("continuous", trap)
    truth = exact.moments(trap, protocol, t)
    np.testing.assert_allclose(truth.theta, exact.theta_continuous(t, 0.8, 0.8 * (1.0 - u0), u0), rtol=1e-9)


def test_discontinuous_protocol_is_optimal():
    """No other impulses and no tilt of the schedule cost less while reaching the target."""
    trap = Trap(mobility=1.3, tau=2.0)
    best = end_values(trap, protocols.protocol("discontinuous", trap))[2]
    for speed, first in [(0.9, 0.0), (1.1, 0.0), (1.0, 0.05), (1.0, -0.05)]:
        m = speed * exact.optimal_speed(1.3, 2.0, 1.0, 0.0)
        path = Path(times=(0.0, 0.0, 2.0, 2.0), thetas=(0.0, m / 1.3 + first, m / 1.3 + 2 * m, 1.0))
        assert end_values(trap, path)[2] > best + 1e-5


def test_covariance_is_that_of_a_matrix_exponential():
    """At constant eta (u, theta) is a linear process with constant coefficients: Van Loan's formula."""
    trap = Trap(mobility=1.4, beta=2.0, tau=1.7)
    truth = exact.moments(trap, protocols.protocol("constant", trap, eta=0.8), [0.0, 1.7])
    drift = np.array([[-1.4, 1.4], [-0.8, 0.0]])
    noise = np.diag([2 * 1.4 / 2.0, 0.0])
    block = expm(np.block([[-drift, noise], [np.zeros((2, 2)), drift.T]]) * 1.7)
    propagator = block[2:, 2:].T
    covariance = propagator @ np.diag([1 / 2.0, 0.0]) @ propagator.T + propagator @ block[:2, 2:]
    np.testing.assert_allclose(truth.covariance[-1, :2, :2], covariance, rtol=1e-8)


def test_open_loop_work_has_the_variance_that_jarzynski_asks_for():
    """A Gaussian work with Delta F = 0 has variance 2 kT <W>, from equilibrium."""
    trap = Trap(mobility=0.7, beta=3.0, tau=2.0)
    path = Path(times=(0.0, 0.5, 0.5, 2.0), thetas=(0.0, 0.3, 0.8, 1.0))
    truth = exact.moments(trap, path, [0.0, 0.5, 0.5, 2.0])
    np.testing.assert_allclose(truth.covariance[:, 2, 2], 2 / 3.0 * truth.work, atol=1e-10)


@pytest.mark.parametrize("name", ["constant", "discontinuous", "tabulated"])
def test_finite_ensembles_against_a_plain_simulation(name):
    """Bias and variance of the mean work of few coupled particles, from a NumPy simulation of (u, theta) alone."""
    trap = Trap(tau=2.0)
    protocol = (
        Tabulated.of(lambda t: 0.5 + 0.2 * t, 2.0, [(0.7, 0.3)])
        if name == "tabulated"
        else protocols.protocol(name, trap, eta=1.5)
    )
    particles, replicas, steps = 40, 40_000, 400
    rng = np.random.default_rng(7)
    truth = exact.moments(trap, protocol, [0.0, 2.0, 2.0])
    dt = 2.0 / steps
    u, theta, work = rng.normal(0, particles**-0.5, replicas), np.zeros(replicas), np.zeros(replicas)
    impulses = {round(time / dt): strength for time, strength in protocol.impulses}
    for n in range(steps + 1):
        half_before = float(protocol.integral((n - 0.5) * dt, n * dt)) if n else 0.0
        half_after = float(protocol.integral(n * dt, (n + 0.5) * dt)) if n < steps else 0.0
        new = theta - (half_before + half_after + impulses.get(n, 0.0)) * (u - 1.0)
        work += (new - theta) * ((new + theta) / 2 - u)
        theta = new
        if n < steps:
            noise = np.sqrt(-np.expm1(-2 * dt) / particles) * rng.normal(size=replicas)
            u = theta + (u - theta) * np.exp(-dt) + noise
    mean = truth.work[-1] + truth.work_shift[-1] / particles
    assert abs(z_score(work, mean)) < 4
    assert abs(np.mean(work) - truth.work[-1]) > 10 * np.std(work) / replicas**0.5  # the shift is there to be seen
    variance = truth.covariance[-1, 2, 2] / particles
    assert np.var(work) == pytest.approx(variance, rel=4 * (2 / replicas) ** 0.5 + 2 / particles)
