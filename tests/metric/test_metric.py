"""Metric, geodesics and protocols of least work: against closed forms, quadrature, twins, and themselves resumed."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from numba import njit
from scipy.integrate import quad
from scipy.linalg import expm

import naive
from thermokernels import correlations as kernels
from thermokernels.random import BLOCK, fill_normals
from thermorun.errors import InputError, RunError
from thermorun.learning.trap import exact
from thermorun.metric import friction
from thermorun.metric import geodesic as geodesics
from thermorun.metric import run as metric
from thermorun.metric.friction import Point, Windows, fold
from thermorun.metric.run import Metric, measure
from thermorun.potentials import compilation
from thermorun.potentials import dynamics as simulation
from thermorun.potentials import potential as potentials
from thermorun.potentials.exact import truth
from thermorun.potentials.fokker_planck import FokkerPlanck
from thermorun.potentials.quadrature import equilibrium


def trap(x, theta):
    return 0.5 * theta[1] * (x - theta[0]) ** 2


def trap_gradient(x, theta):
    return theta[1] * (theta[0] - x), 0.5 * (x - theta[0]) ** 2


def double_well(x, theta):
    return theta[0] * (x * x - 1) ** 2 + theta[1] * x


def double_well_gradient(x, theta):
    return (x * x - 1) ** 2, x


@njit
def wavy(x, theta):
    return 0.25 * theta[0] * x**4 + theta[1] * math.cos(2.0 * x)


@njit
def wavy_force(x, theta):
    return -theta[0] * x**3 + 2.0 * theta[1] * math.sin(2.0 * x)


@njit
def wavy_gradient(x, theta):
    return 0.25 * x**4, math.cos(2.0 * x)


WAVY = potentials.Potential("wavy", wavy, wavy_force, wavy_gradient, ("strength", "wave"), (1.0, 0.7))


# --- Quadrature -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "beta", "mu"), [(1.0, 1.0, 1.0), (3.0, 2.0, 0.7), (1e6, 0.5, 2.0), (1e-4, 1.0, 1.0)])
def test_quadrature_of_the_trap_is_the_closed_form(k, beta, mu):
    found = equilibrium(trap, trap_gradient, (0.3, k), beta=beta, mobility=mu)
    assert found.free_energy == pytest.approx(0.5 * np.log(beta * k / (2 * np.pi)) / beta, abs=1e-12)
    np.testing.assert_allclose(np.diag(found.fisher), [beta * k, 0.5 / k**2], rtol=1e-10)
    np.testing.assert_allclose(np.diag(found.friction), [1 / mu, 0.25 / (mu * beta * k**3)], rtol=1e-10)
    np.testing.assert_allclose(np.diag(found.relaxation), [1 / (mu * k), 0.5 / (mu * k)], rtol=1e-10)
    for matrix in (found.fisher, found.friction):
        assert abs(matrix[0, 1]) < 1e-10 * np.sqrt(matrix[0, 0] * matrix[1, 1])
    assert np.isnan(found.relaxation[0, 1])
    assert found.moment(1) == pytest.approx(0.3, abs=1e-9)
    assert found.moment(2) == pytest.approx(0.09 + 1 / (beta * k), rel=1e-9)


def test_quadrature_of_a_double_well_is_that_of_nested_integrals():
    theta, mu = (2.5, 0.3), 0.7
    found = equilibrium(double_well, double_well_gradient, theta, mobility=mu)
    options = {"epsabs": 1e-13, "epsrel": 1e-12, "limit": 200}
    partition = quad(lambda x: np.exp(-double_well(x, theta)), -3, 3, **options)[0]
    density = lambda x: np.exp(-double_well(x, theta)) / partition  # noqa: E731
    assert found.log_partition == pytest.approx(np.log(partition), abs=1e-11)
    means = [quad(lambda x, i=i: double_well_gradient(x, theta)[i] * density(x), -3, 3, **options)[0] for i in (0, 1)]
    np.testing.assert_allclose(found.mean_gradient, means, rtol=1e-9)

    def moved(i, x):
        score = lambda y: (means[i] - double_well_gradient(y, theta)[i]) * density(y)  # noqa: E731
        return quad(score, -3, x, **options)[0] if x < 0 else -quad(score, x, 3, **options)[0]

    for i, j in ((0, 0), (0, 1), (1, 1)):
        inner = lambda x, i=i, j=j: moved(i, x) * moved(j, x) / density(x)  # noqa: E731
        value = quad(inner, -2.2, 2.2, epsabs=1e-9, epsrel=1e-8)[0] / mu
        assert found.friction[i, j] == pytest.approx(value, rel=1e-7)


def test_quadrature_takes_compiled_functions():
    compiled = equilibrium(wavy, wavy_gradient, (1.0, 0.7))
    plain = equilibrium(
        lambda x, theta: 0.25 * theta[0] * x**4 + theta[1] * np.cos(2 * x),
        lambda x, theta: (0.25 * x**4, np.cos(2 * x)),
        (1.0, 0.7),
    )
    np.testing.assert_allclose(compiled.friction, plain.friction, rtol=1e-12)


@pytest.mark.parametrize(
    ("energy", "sentence"),
    [
        (lambda x, theta: -x * x, "does not confine"),
        (lambda x, theta: x, "does not confine"),
        (lambda x, theta: np.nan * x, "not finite"),
    ],
)
def test_no_equilibrium_is_said(energy, sentence):
    with pytest.raises(InputError, match=sentence):
        equilibrium(energy, trap_gradient, (0.0, 1.0))


def test_truth_of_quadratic_potentials():
    """In one dimension two ways; in two, the linear part from a matrix exponential."""
    one = potentials.load("trap-and-stiffness")
    theta, beta, mu = (0.3, 2.0), 1.5, 0.7
    by_quadrature = truth(one, theta, beta=beta, mobility=mu)
    by_form = truth(potentials.gaussian(1), theta, beta=beta, mobility=mu)
    for name in ("fisher", "friction"):
        np.testing.assert_allclose(getattr(by_form, name), getattr(by_quadrature, name), rtol=1e-9, atol=1e-12)
    two = truth(potentials.load("gaussian"), (0.2, -0.1, 2.0, 0.5, 1.0), beta=beta, mobility=mu)
    precision = np.array([[2.0, 0.5], [0.5, 1.0]])
    integral = quad(
        lambda t: (precision @ expm(-mu * precision * t) @ np.linalg.inv(precision) @ precision)[0, 0], 0, 60
    )
    assert two.friction[0, 0] == pytest.approx(integral[0], rel=1e-7)
    assert two.fisher[0, 1] == pytest.approx(beta * 0.5)


# --- Geodesics --------------------------------------------------------------------------------------------------------


def test_geodesics_of_gaussians_are_straight_in_mean_and_width():
    """There zeta is flat: ds^2 = (dm^2 + d sigma^2) / mu with sigma = (beta k)^(-1/2)."""
    beta, mu = 2.0, 0.7
    width = lambda k: (beta * k) ** -0.5  # noqa: E731

    def zeta(theta):
        return np.diag([1 / mu, 0.25 / (mu * beta * theta[1] ** 3)])

    found = geodesics.geodesic(zeta, (0.0, 1.0), (1.5, 9.0))
    assert found.length**2 == pytest.approx((1.5**2 + (width(9.0) - width(1.0)) ** 2) / mu, rel=1e-6)
    s = np.linspace(0, 1, 21)
    path = found.path(s)
    np.testing.assert_allclose(path[:, 0], 1.5 * s, atol=1e-4)
    np.testing.assert_allclose(width(path[:, 1]), width(1.0) + s * (width(9.0) - width(1.0)), atol=1e-4)
    line = quad(lambda r: 1.5**2 / mu + 64 * 0.25 / (mu * beta * (1 + 8 * r) ** 3), 0, 1)[0]
    assert found.line == pytest.approx(line, rel=1e-9)
    assert found.excess_work(10.0) < found.line_excess_work(10.0)


def test_geodesic_of_one_parameter_has_constant_speed():
    found = geodesics.geodesic(
        lambda theta: equilibrium(trap, trap_gradient, (0.0, theta[0])).friction[1:, 1:], (1.0,), (100.0,)
    )
    assert found.length == pytest.approx(1 - 0.1, rel=1e-8)
    s = np.linspace(0, 1, 11)
    np.testing.assert_allclose(found.path(s)[:, 0] ** -0.5, 1 - 0.9 * s, atol=1e-6)


def test_geodesic_needs_a_regular_metric_and_two_points():
    with pytest.raises(InputError, match="singular"):
        geodesics.geodesic(lambda theta: np.ones((2, 2)), (0.0, 0.0), (1.0, 1.0))
    with pytest.raises(InputError, match="two points"):
        geodesics.geodesic(lambda theta: np.eye(1), (1.0,), (1.0,))


# --- Protocols of least work ------------------------------------------------------------------------------------------


def moved_trap(tau, mu=1.0, **options):
    centre = lambda x, theta: 0.5 * (x - theta[0]) ** 2  # noqa: E731
    slope = lambda x, theta: (theta[0] - x,)  # noqa: E731
    return FokkerPlanck(centre, slope, (0.0,), (1.0,), tau, mobility=mu, **options)


def straight(s):
    return np.asarray(s)[:, None]


@pytest.mark.parametrize(("tau", "mu"), [(1.0, 1.0), (5.0, 1.0), (3.0, 2.0)])
def test_least_work_of_the_trap_is_that_of_the_paper(tau, mu):
    problem = moved_trap(tau, mu)
    line = problem.excess_work(straight, 64)
    assert line == pytest.approx(exact.work_straight_line(mu, tau, 1 / tau), rel=1e-3)
    best = problem.least(straight, 64)
    assert best.excess_work == pytest.approx(exact.work_optimal(mu, tau, 0.0, 1.0), rel=5e-4)
    jump = 1 / (mu * tau + 2)
    np.testing.assert_allclose([best.first_jump[0], best.last_jump[0]], jump, rtol=0.01)
    s = np.linspace(0, 1, 11)
    np.testing.assert_allclose(best.theta(s)[:, 0], jump + (1 - 2 * jump) * s, atol=3e-3)


def test_finer_grids_come_nearer_to_the_paper():
    """What is left of the difference is the grid's: of second order in its spacing."""
    errors = [
        moved_trap(5.0, points=points).excess_work(straight, 64) / exact.work_straight_line(1.0, 5.0, 0.2) - 1
        for points in (100, 200)
    ]
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_gradient_of_the_work_is_its_slope():
    problem = FokkerPlanck(double_well, double_well_gradient, (1.0, -0.5), (2.0, 0.5), 2.0, points=120)
    stairs = np.linspace([1.1, -0.4], [1.7, 0.6], 7)
    work, gradient = problem.run(stairs)
    for n, j in ((0, 0), (3, 1), (6, 0), (6, 1)):
        move = np.zeros_like(stairs)
        move[n, j] = 1e-5
        slope = (problem.run(stairs + move)[0] - problem.run(stairs - move)[0]) / 2e-5
        assert gradient[n, j] == pytest.approx(slope, rel=1e-6, abs=1e-8)
    assert work > 0


def test_second_law_and_quasistatic_limit_on_a_coarse_grid():
    works = []
    for tau in (100.0, 1000.0):
        problem = FokkerPlanck(double_well, double_well_gradient, (1.0, -0.5), (1.0, 0.5), tau, points=60)
        works.append(problem.run(np.linspace([1.0, -0.5], [1.0, 0.5], 2001)[1::2])[0])
    # A hundred stairs would cost a share of their own; a thousand leave the slow driving to be seen.
    assert 0 < works[1] < 0.2 * works[0]


def test_least_work_is_less_than_the_geodesic_s():
    spec = Metric(potential="stiffness", theta=(1.0,), geodesic_to=(4.0,), taus=(2.0,))
    plan = metric._Plan(spec)
    geodesic, line, best = (plan.exact_work(2.0, name) for name in metric.PROTOCOLS[:3])
    assert best < geodesic < line
    # Schmiedl & Seifert (Phys. Rev. Lett. 98, 108301, 2007): the width is linear in time, sigma(t)^2 = sigma_0^2
    # (1 + c t)^2, where least work in the best final width is left to a one-dimensional search.
    assert best == pytest.approx(stiffness_optimum(1.0, 4.0, 2.0), rel=2e-3)


def stiffness_optimum(start, end, tau):
    """Least excess work of a stiffness from ``start`` to ``end``: by their Eqs. 17 to 19, in units mu = beta = 1.

    w = <x^2> obeys dw/dt = 2 (1 - k w).  The work is k_end w(tau) / 2 - k_start w(0) / 2 + heat, and for given ends of
    w the least heat lets sqrt(w) run straight in time: integral of (dw/dt)^2 / (4 w) dt = (difference of sqrt(w))^2 /
    tau, beside the entropy ln(w_0 / w_tau) / 2.
    """
    w = np.linspace(0.5 / end, 2.0 / start, 2_000_001)
    work = 0.5 * end * w - 0.5 + 0.5 * np.log((1 / start) / w) + (np.sqrt(w) - start**-0.5) ** 2 / tau
    return np.min(work) - 0.5 * np.log(end / start)


# --- The kernel -------------------------------------------------------------------------------------------------------


def kernel_normals(seed, stream, step, particles):
    out = np.empty(particles)
    fill_normals(out, np.uint64(seed), np.uint64(stream), step)
    return out


def run_kernel(potential, integrator, x, theta, dt, centre, stretch, levels, seed=11, stream=7):
    p = len(theta)
    blocks = -(-x.shape[1] // BLOCK)
    table = simulation.coefficients(potential, integrator, dt, 1.0, 1.0, np.array([theta]))
    sums, means = np.full((1, blocks, levels, 2, p, p), np.nan), np.full((1, blocks, 2 + p, p), np.nan)
    status = np.full((1, blocks), -1)
    kernel = compilation.correlate(
        potential.energy, potential.force, potential.gradient, potential.dimension, p, integrator
    )
    kernel(
        x[None].copy(), table.reshape(1, 1, -1), np.array([theta]), centre[None], stretch, np.uint64(seed),
        np.uint64(stream), sums, means, status,
    )  # fmt: skip
    assert np.all(status == -1)
    return sums[0], means[0], table.ravel()


def two_wells(x, theta):
    return np.stack([(x[0] ** 2 - 1) ** 2, x[0]])


def pulls(x, theta):
    """dE/dtheta of the Gaussian in two dimensions."""
    a, b = x[0] - theta[0], x[1] - theta[1]
    return np.stack([-theta[2] * a - theta[3] * b, -theta[3] * a - theta[4] * b, 0.5 * a * a, a * b, 0.5 * b * b])


CASES = {
    "double-well": ((1.0, 0.3), lambda x, t: -4 * t[0] * x * (x * x - 1) - t[1], two_wells),
    "gaussian": ((0.2, -0.1, 2.0, 0.5, 1.0), lambda x, t: pulls(x, t)[:2], pulls),
}


@pytest.mark.parametrize(
    ("name", "integrator", "bound"),
    # Leimkuhler and Matthews' noise is averaged in single precision.
    [("double-well", "heun", 1e-9), ("double-well", "leimkuhler-matthews", 1e-6), ("gaussian", "heun", 1e-9)],
)
@pytest.mark.parametrize("particles", [5, 1024, 2100])
def test_correlate_is_the_twin(name, integrator, bound, particles):
    theta, force, gradient = CASES[name]
    potential = potentials.load(name)
    x = np.random.default_rng(particles).normal(size=(potential.dimension, particles))
    centre = np.linspace(0.1, 0.4, len(theta))
    sums, means, table = run_kernel(potential, integrator, x, theta, 0.05, centre, 3, 3)
    wanted_sums, wanted_means = naive.correlate(
        integrator, force, gradient, x, table, theta, centre, 3, 3, kernels.TOP, 11, 7, kernel_normals
    )
    np.testing.assert_allclose(sums, wanted_sums, rtol=bound, atol=bound * np.abs(wanted_sums).max())
    np.testing.assert_allclose(means, wanted_means, rtol=bound, atol=bound * np.abs(wanted_means).max())


def test_threads_change_no_bit(on_threads):
    potential = potentials.load("double-well")
    x = np.random.default_rng(1).normal(size=(1, 70 * BLOCK))
    arguments = (potential, "heun", x, (1.0, 0.3), 0.01, np.zeros(2), 2, 2)
    one, two = on_threads(1, run_kernel, *arguments), on_threads(2, run_kernel, *arguments)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


# --- Truncation and errors --------------------------------------------------------------------------------------------


def windowed(decay, s):
    """The integral of exp(-t / decay) under the window of ``thermokernels.friction``."""
    weight = lambda t: min(1.0, 2.0 - t / s) * np.exp(-t / decay)  # noqa: E731
    return quad(weight, 0, 2 * s, points=[s], epsabs=1e-14)[0]


@pytest.mark.parametrize("decay", [0.3, 2.0, 9.0])
def test_remainder_of_an_exponential_is_what_the_window_leaves(decay):
    lengths = 0.25 * 2.0 ** np.arange(9)
    curve = np.array([windowed(decay, s) for s in lengths])
    errors = np.full(8, 1e-4)
    found = friction._remainder(np.diff(curve), errors, curve[-1])
    known = np.isfinite(found)
    assert known.sum() >= 3
    np.testing.assert_allclose(found[known], (decay - curve)[known], rtol=0.02, atol=1e-9)


def test_growing_integrals_have_no_remainder_yet():
    lengths = 0.25 * 2.0 ** np.arange(6)
    curve = np.array([windowed(1e4, s) for s in lengths])
    found = friction._remainder(np.diff(curve), np.full(5, 1e-9), curve[-1])
    assert not np.any(found < 0.5 * 1e4)


def at(potential, theta, integrator="heun", seed=3, beta=1.0, mobility=1.0):
    return Point(potential, theta, beta, mobility, integrator, "float64", seed, 0)


def measured(potential, theta, blocks=8, **options):
    point = at(potential, theta, **options)
    windows = point.pilot(simulation.time_step(potential, theta, point.beta, point.mobility), blocks)
    return fold(*point.rows(windows, 0, blocks), windows, point.beta)


@pytest.mark.parametrize(
    ("name", "theta", "options"),
    [
        ("trap", (0.3,), {"mobility": 0.7, "beta": 2.0}),
        ("stiffness", (2.0,), {"mobility": 2.0}),
        ("stiffness", (2.0,), {"integrator": "exact"}),
        ("double-well", (1.0, 0.5), {"beta": 1.2}),
        ("gaussian", (0.0, 0.0, 2.0, 0.5, 1.0), {"mobility": 0.8}),
        ("wavy", (1.0, 0.7), {}),
    ],
)
def test_monte_carlo_agrees_with_the_truth(name, theta, options):
    potential = WAVY if name == "wavy" else potentials.load(name)
    known = {key: value for key, value in options.items() if key != "integrator"}
    right, found = truth(potential, theta, **known), measured(potential, theta, 16, **options)
    assert found.truncated
    for matrix in ("fisher", "friction"):
        z = (getattr(found, matrix) - getattr(right, matrix)) / getattr(found, f"{matrix}_stderr")
        assert np.all(np.abs(z) < 4), (matrix, z)
    diagonal = np.diag(found.relaxation - right.relaxation) / np.diag(found.relaxation_stderr)
    assert np.all(np.abs(diagonal) < 4)
    assert np.all(np.diag(found.friction_stderr) < 0.02 * np.diag(right.friction))


def test_the_centre_is_taken_out_again():
    """A centre far from the mean changes neither estimates nor errors by more than those errors."""
    point = at(potentials.load("stiffness"), (2.0,))
    found = [
        fold(*point.rows(windows, 0, 16), windows, 1.0)
        for windows in (Windows(0.05, 6, np.array([centre])) for centre in (0.25, 1.5))
    ]
    assert found[1].friction == pytest.approx(found[0].friction, abs=float(found[0].friction_stderr[0, 0]))
    assert found[1].friction_stderr == pytest.approx(found[0].friction_stderr, rel=0.2)
    assert found[1].fisher == pytest.approx(found[0].fisher, rel=1e-9)
    assert found[1].mean_gradient == pytest.approx(found[0].mean_gradient, rel=1e-9)


def test_lost_particles_end_the_run_with_a_cure():
    point = at(potentials.load("double-well"), (1.0, 0.3))
    with pytest.raises(RunError, match="take a smaller dt"):
        point.rows(Windows(2.0, 6, np.zeros(2)), 0, 2)


def test_standard_errors_are_calibrated():
    """Over 60 seeds the scatter of z is that of Student's t with 15 degrees of freedom, whose variance is 15/13."""
    potential = potentials.load("trap")
    windows = Windows(0.1, 6, np.zeros(1))
    z = []
    for seed in range(60):
        found = fold(*at(potential, (0.0,), seed=seed).rows(windows, 0, 16), windows, 1.0)
        z.append((found.friction[0, 0] - 1.0) / found.friction_stderr[0, 0])
    variance = 15 / 13
    assert np.mean(np.square(z)) == pytest.approx(variance, abs=4 * variance * np.sqrt(2.6 / 60))
    assert abs(np.mean(z)) < 4 * np.sqrt(variance / 60)


# --- The whole run ----------------------------------------------------------------------------------------------------

SMALL = {"particles": 8192, "work_particles": 4096, "seed": 5}


@pytest.fixture(scope="module")
def driven():
    return measure(potential="trap", geodesic_to=(1.0,), taus=(2.0, 4.0, 8.0), particles=8192, work_particles=2**18)


def test_measured_work_is_the_predicted_one_up_to_the_square_of_the_rate(driven):
    assert driven.geodesic.length == pytest.approx(1.0)
    for work in driven.works:
        assert abs(work.measured.z(work.exact)) < 4
    for work in driven.of("geodesic"):
        assert work.predicted == pytest.approx(1 / work.tau)
        assert work.exact == pytest.approx(exact.work_straight_line(1.0, work.tau, 1 / work.tau), rel=1e-3)
    # W_ex - 1 / tau = -(1 - e^-tau) / tau^2 for the trap: the fit feels the exponential at tau = 2.
    gaps = [(1 - np.exp(-tau)) / tau**2 for tau in (2.0, 4.0)]
    expected = np.log(gaps[0] / gaps[1]) / np.log(2)
    assert abs(driven.exponent().z(expected)) < 4
    assert driven.exact_exponent() == pytest.approx(2.0, abs=0.05)
    for tau, best in driven.optima.items():
        assert best.excess_work == pytest.approx(1 / (tau + 2), rel=5e-4)


@njit
def tube(x, theta):
    return 0.5 * theta[1] * (x[0] - theta[0]) ** 2 + 0.5 * x[1] ** 2


@njit
def tube_force(x, theta):
    return theta[1] * (theta[0] - x[0]), -x[1]


@njit
def tube_gradient(x, theta):
    return theta[1] * (theta[0] - x[0]), 0.5 * (x[0] - theta[0]) ** 2


def test_geodesic_on_a_measured_metric():
    """In two dimensions nobody knows the truth of a potential that is not said to be quadratic."""
    potential = potentials.Potential(
        "tube", tube, tube_force, tube_gradient, ("centre", "stiffness"), (0.0, 1.0), dimension=2,
        free_energy=lambda theta, beta: 0.5 * math.log(theta[1]) / beta,
    )  # fmt: skip
    grid = (("centre", 0.0, 0.5, 2), ("stiffness", 2.2, 0.8, 4))
    found = measure(potential=potential, geodesic_to=(0.5, 2.0), grid=grid, taus=(4.0,), **SMALL)
    assert found.points[0].truth is None
    # Flat in mean and width, as above.
    square = 0.5**2 + (1 - 2**-0.5) ** 2
    assert found.geodesic.length**2 == pytest.approx(square, rel=0.05)
    gap = found.of("geodesic")[0].measured.mean - found.geodesic.excess_work(4.0)
    assert abs(gap) < 0.03
    with pytest.raises(InputError, match="give a grid over centre"):
        measure(potential=potential, geodesic_to=(0.5, 2.0), grid=grid[1:], **SMALL)


def same(a, b):
    """Equal to the last bit, apart from where and on how many threads."""
    one, two = a.to_dict(), b.to_dict()
    for report in (one, two):
        report.pop("file")
        report.pop("threads")
    return json.dumps(one) == json.dumps(two)


@pytest.mark.parametrize("after", [2, 6])
def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path, monkeypatch, after):
    spec = Metric(potential="stiffness", grid=(("stiffness", 1.0, 2.0, 2),), geodesic_to=(2.0,), taus=(1.0,), **SMALL)
    whole = measure(spec, threads=1)
    calls = []

    def stop(function):
        def counted(*arguments, **options):
            calls.append(1)
            if len(calls) > after:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return counted

    with monkeypatch.context() as patched:
        patched.setattr(simulation, "drive", stop(simulation.drive))
        patched.setattr(metric.friction.Point, "rows", stop(Point.rows))
        with pytest.raises(KeyboardInterrupt):
            measure(spec, out=tmp_path / "a.h5")
    resumed = measure(Metric.from_json(spec.to_json()), out=tmp_path / "a.h5", resume=True)
    assert same(whole, resumed)
    assert same(whole, measure(spec, out=tmp_path / "a.h5", resume=True))


def thermorun(*words, folder):
    return subprocess.run(
        [sys.executable, "-m", "thermorun", *map(str, words)], cwd=folder, capture_output=True, text=True, check=False
    )


def test_command_line(tmp_path):
    words = ("--potential", "trap-and-stiffness", "--grid", "centre=0:1:2", "--grid", "stiffness=1:3:2")
    rest = ("--theta", "0,1", "--geodesic-to", "1,3", "--tau", "2", "--particles", 16384, "--work-particles", 4096)
    run = thermorun("metric", *words, *rest, "--out", "a.h5", "--json", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert len(report["points"]) == 4
    for point in report["points"]:
        for pair in point["pairs"]:
            assert abs(pair["friction"]["z"]) < 4
            assert abs(pair["fisher"]["z"]) < 4
    assert [work["protocol"] for work in report["geodesic"]["works"]] == list(metric.PROTOCOLS)
    assert report["pictures"] == ["a.png", "a-protocols.png"]
    again = thermorun("resume", "a.h5", folder=tmp_path)
    assert again.returncode == 0
    assert "slow driving" in again.stdout
    assert "centre, stiffness" in again.stdout


USER = """
from thermorun.potentials.potential import Potential
def energy(x, theta): return 0.5 * (theta[0] + theta[1]) * x * x
def force(x, theta): return -(theta[0] + theta[1]) * x
def gradient(x, theta): return (0.5 * x * x, 0.5 * x * x)
def flat(x, theta): return (0.5 * x * x, 0.0)
twice = Potential("twice", energy, force, gradient, ("a", "b"), (1.0, 1.0))
"""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--potential stiffness --theta -1", "stiffness is -1; it must be positive."),
        ("--potential stiffness --geodesic-to -1", "stiffness is -1; it must be positive."),
        ("--potential stiffness --grid stiffness=-1:2:4", "grid leaves the valid region of stiffness"),
        ("--potential user.py:twice", "the Fisher metric of twice (a, b) is singular there"),
        ("--grid centre=1:2", "grid is 'centre=1:2'; give name=first:last:count, as in tilt=-1:1:9."),
        ("--grid tilt=0:1:3", "grid names 'tilt'"),
        ("--grid centre=0:1:1", "give at least two"),
        ("--geodesic-to 0", "name another point"),
        ("--geodesic-to 1,2", "geodesic_to has 2 values"),
        ("--tau 3", "tau is given, but geodesic_to is not"),
        ("--geodesic-to 1 --tau -3", "tau is -3.0; it must be a positive finite number."),
        ("--particles 9000", "it must be a multiple of 1024."),
        ("--potential double-well --integrator exact", "not quadratic"),
        ("--precision float16", "precision is 'float16'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, words, sentence):
    (tmp_path / "user.py").write_text(USER)
    run = thermorun("metric", *words.split(), folder=tmp_path)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("thermorun: ")
    assert sentence in run.stderr
    assert run.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.h5*"))


def test_a_changed_potential_is_refused():
    spec = Metric(potential="trap")
    values = json.loads(spec.to_json()) | {"fingerprint": "0"}
    with pytest.raises(InputError, match="functions have changed"):
        Metric.from_json(json.dumps(values))
