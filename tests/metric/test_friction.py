"""Friction from trajectories: the kernel against its twin, truncation, and estimates against exact values."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numba import njit
from scipy.integrate import quad
from scipy.special import ndtri

import naive
from helpers import kernel_normals
from thermokernels import correlations
from thermokernels.random import BLOCK
from thermorun import metric, streams
from thermorun.errors import InputError, RunError
from thermorun.metric import friction
from thermorun.metric.friction import Ensemble, Windows, fold
from thermorun.potentials import Potential, System, compilation, double_well, gaussian, resolve

# --- A potential in two dimensions: one slow direction, hardly felt by the first parameter ----------------------------


SLOW, SHARE = 0.1, 0.01


@njit
def pair(x, theta):
    return 0.5 * x[0] ** 2 + 0.5 * SLOW * x[1] ** 2 + theta[0] * (x[0] + SHARE * x[1]) + theta[1] * x[1]


@njit
def pair_force(x, theta):
    return -x[0] - theta[0], -SLOW * x[1] - SHARE * theta[0] - theta[1]


@njit
def pair_gradient(x, theta):
    return x[0] + SHARE * x[1], x[1]


def pair_sample(theta, beta, uniform):
    means = -theta[0], -(SHARE * theta[0] + theta[1]) / SLOW
    widths = beta**-0.5, (beta * SLOW) ** -0.5
    return np.stack([m + w * ndtri(uniform()) for m, w in zip(means, widths, strict=True)], axis=1)


PAIR = Potential(
    "pair", pair, pair_force, pair_gradient, ("both", "slow"), (0.2, 0.1), dimension=2, sample=pair_sample,
    free_energy=lambda theta, beta: -0.5 * theta[0] ** 2 - 0.5 * (SHARE * theta[0] + theta[1]) ** 2 / SLOW,
)  # fmt: skip
# zeta_ij = sum over directions of a_i a_j / (mu k^2), for fields a . x; here with mu = 1.
PAIR_FRICTION = np.diag([1.0, 0.0]) + np.array([[SHARE**2, SHARE], [SHARE, 1.0]]) / SLOW**2


# --- The kernel -------------------------------------------------------------------------------------------------------


def run_kernel(system, integrator, x, theta, dt, centre, segment, levels, seed=11, stream=7):
    potential, p = system.potential, len(theta)
    blocks = -(-x.shape[1] // BLOCK)
    table = system.coefficients(integrator, dt, np.array([theta]))
    sums, means = np.full((1, blocks, levels, 2, p, p), np.nan), np.full((1, blocks, 2 + p, p), np.nan)
    status = np.full((1, blocks), -1)
    kernel = compilation.correlate(
        potential.energy, potential.force, potential.gradient, potential.dimension, p, integrator
    )
    kernel(
        x[None].copy(), table.reshape(1, 1, -1), np.array([theta]), centre[None], segment,
        (np.uint64(seed), np.uint64(stream)), 0, sums, means, status,
    )  # fmt: skip
    assert np.all(status == -1)
    return sums[0], means[0], table.ravel()


CASES = {
    "double-well": (
        double_well, (1.0, 0.3), lambda x, t: -4 * t[0] * x * (x * x - 1) - t[1],
        lambda x, t: np.stack([(x[0] ** 2 - 1) ** 2, x[0]]),
    ),
    "pair": (
        PAIR, (0.2, 0.1), lambda x, t: np.stack([-x[0] - t[0], -SLOW * x[1] - SHARE * t[0] - t[1]]),
        lambda x, t: np.stack([x[0] + SHARE * x[1], x[1]]),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "integrator", "particles", "bound"),
    # Leimkuhler and Matthews' noise is averaged in single precision.
    [
        ("double-well", "heun", 2100, 1e-9),
        ("double-well", "leimkuhler-matthews", 5, 1e-6),
        ("pair", "heun", 5, 1e-9),
    ],
)
def test_correlate_is_the_twin(name, integrator, particles, bound):
    potential, theta, force, gradient = CASES[name]
    x = np.random.default_rng(particles).normal(size=(potential.dimension, particles))
    centre = np.linspace(0.1, 0.4, len(theta))
    sums, means, table = run_kernel(System(potential), integrator, x, theta, 0.05, centre, 3, 3)
    wanted_sums, wanted_means = naive.correlate(
        integrator, force, gradient, x, table, theta, centre, 3, 3, correlations.TOP, 11, 7, kernel_normals
    )
    np.testing.assert_allclose(sums, wanted_sums, rtol=bound, atol=bound * np.abs(wanted_sums).max())
    np.testing.assert_allclose(means, wanted_means, rtol=bound, atol=bound * np.abs(wanted_means).max())


def test_threads_change_no_bit(on_threads):
    x = np.random.default_rng(1).normal(size=(1, 70 * BLOCK))
    arguments = (System("double-well"), "heun", x, (1.0, 0.3), 0.01, np.zeros(2), 2, 2)
    one, two = on_threads(1, run_kernel, *arguments), on_threads(2, run_kernel, *arguments)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


# --- Truncation -------------------------------------------------------------------------------------------------------


def windowed(decay, s):
    """The integral of exp(-t / decay) under the window of ``thermokernels.correlations``."""
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


def test_what_noise_hides_in_a_diagonal_element_the_others_tell():
    """Of one fast mode and one slow one: what (0, 0) lacks of the slow one follows from (0, 1) and (1, 1)."""
    lengths = 0.25 * 2.0 ** np.arange(9)
    slow = np.array([windowed(6.0, s) for s in lengths])
    fast = np.array([windowed(0.1, s) for s in lengths])
    fields = np.array([0.02, 1.0])
    curves = fast[:, None, None] * np.diag([1.0, 0.0]) + slow[:, None, None] * np.outer(fields, fields)
    found = friction._told_by_others(np.broadcast_to(curves, (9, *curves.shape)), np.array([2, 8]))
    np.testing.assert_allclose(found[:8, 0], 0.02**2 * (slow[8] - slow[:8]), rtol=1e-9)
    assert np.all(found[:, 1] == 0)


def at(potential, theta, integrator="heun", seed=3, beta=1.0, mobility=1.0):
    noise, pilot = (streams.metric_point(seed, 0, pilot) for pilot in (False, True))
    return Ensemble(System(potential, beta, mobility), theta, integrator, "float64", noise, pilot)


def measured(ensemble, blocks=8, windows=None):
    windows = windows or ensemble.pilot(ensemble.system.time_step(ensemble.theta), blocks)
    return fold(*ensemble.rows(windows, 0, blocks), windows, ensemble.system.beta)


@pytest.mark.slow
def test_a_slow_mode_that_one_diagonal_element_hides_is_in_the_other():
    """zeta(both, both) is nearly all fast and takes a short window, which would cut off a good part of (both, slow)."""
    windows = Windows(0.05, 9, np.zeros(2))
    found = [measured(at(PAIR, (0.0, 0.0), seed=seed), 8, windows) for seed in range(16)]
    for one in found:
        own = np.diag(one.level)
        assert one.level[0, 1] == one.level[1, 0] >= max(own)
    z = np.array([one.friction.z(PAIR_FRICTION) for one in found])
    assert np.all(np.abs(z.mean(axis=0)) < 4 / np.sqrt(16))
    assert np.all(np.abs(np.mean(z**2, axis=0) - 1) < 4 * np.sqrt(2 / 16))


@njit
def wavy(x, theta):
    return 0.25 * theta[0] * x**4 + theta[1] * math.cos(2.0 * x)


@njit
def wavy_force(x, theta):
    return -theta[0] * x**3 + 2.0 * theta[1] * math.sin(2.0 * x)


@njit
def wavy_gradient(x, theta):
    return 0.25 * x**4, math.cos(2.0 * x)


WAVY = Potential("wavy", wavy, wavy_force, wavy_gradient, ("strength", "wave"), (1.0, 0.7))


@pytest.mark.parametrize(
    ("potential", "theta", "options"),
    [
        pytest.param("trap", (0.3,), {"mobility": 0.7, "beta": 2.0}, marks=pytest.mark.slow),
        ("stiffness", (2.0,), {"integrator": "exact", "mobility": 2.0}),
        pytest.param("double-well", (1.0, 0.5), {"beta": 1.2}, marks=pytest.mark.slow),
        pytest.param("stiffness", (2.0,), {"mobility": 2.0}, marks=pytest.mark.slow),
        pytest.param(gaussian, (0.0, 0.0, 2.0, 0.5, 1.0), {"mobility": 0.8}, marks=pytest.mark.slow),
        pytest.param(WAVY, (1.0, 0.7), {}, marks=pytest.mark.slow),
    ],
)
def test_monte_carlo_agrees_with_the_truth(potential, theta, options):
    ensemble = at(resolve(potential), theta, **options)
    right, found = ensemble.system.exact(theta), measured(ensemble, 16)
    assert found.truncated
    for matrix in ("fisher", "friction"):
        z = getattr(found, matrix).z(getattr(right, matrix))
        assert np.all(np.abs(z) < 4), (matrix, z)
    assert np.all(np.abs(np.diag(found.relaxation.z(right.relaxation))) < 4)
    assert np.all(np.diag(found.friction.stderr) < 0.02 * np.diag(right.friction))


def test_the_centre_is_taken_out_again():
    """A centre far from the mean changes neither estimates nor errors by more than those errors."""
    ensemble = at("stiffness", (2.0,), "exact")
    near, far = (measured(ensemble, 16, Windows(0.05, 6, np.array([centre]))) for centre in (0.25, 1.5))
    assert far.friction.mean == pytest.approx(near.friction.mean, abs=float(near.friction.stderr[0, 0]))
    assert far.friction.stderr == pytest.approx(near.friction.stderr, rel=0.2)
    assert far.fisher.mean == pytest.approx(near.fisher.mean, rel=1e-9)
    assert far.mean_gradient.mean == pytest.approx(near.mean_gradient.mean, rel=1e-9)


def test_particles_that_diverge_end_the_run_with_a_cure():
    with pytest.raises(RunError, match="take a smaller dt"):
        at("double-well", (1.0, 0.3)).rows(Windows(2.0, 6, np.zeros(2)), 0, 2)


def test_wells_that_never_exchange_are_seen_early(monkeypatch):
    """Long before the longest window: its trajectories are 32 times those that tell.  Slow wells are waited for."""
    rows, tried = Ensemble.rows, []

    def watched(ensemble, windows, *rest):
        tried.append(windows.levels)
        return rows(ensemble, windows, *rest)

    monkeypatch.setattr(Ensemble, "rows", watched)
    with pytest.raises(RunError, match=r"for longer than the longest window, 131 time units, and for more than 587;"):
        at("double-well", (30.0, 0.0)).pilot(5e-4, 32)
    assert max(tried) <= friction.MOST - 5
    slow = at("double-well", (4.0, 0.0))  # exact decay about 30
    assert slow.pilot(0.01, 32).levels >= 11


def test_a_kernel_call_at_a_time_changes_no_bit(monkeypatch):
    """Between calls a run may stop."""
    calls, windows = [], Windows(0.05, 6, np.zeros(2))
    ensemble = at("double-well", (1.0, 0.3))
    whole = ensemble.rows(windows, 1, 5)
    monkeypatch.setattr(friction, "_CALL", 1)
    monkeypatch.setattr(friction, "get_num_threads", lambda: 2)
    for one, other in zip(whole, ensemble.rows(windows, 1, 5, pause=lambda: calls.append(1)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(calls) == 3


@pytest.mark.parametrize("blocks", [pytest.param(8, marks=pytest.mark.slow), 16])
def test_standard_errors_are_calibrated(blocks):
    """Over 100 seeds z, which is Student's with blocks - 1 degrees of freedom made normal, scatters as that."""
    windows = Windows(0.1, 6, np.zeros(1))
    z = []
    for seed in range(100):
        found = measured(at("trap", (0.0,), seed=seed), blocks, windows)
        assert found.friction.dof == blocks - 1
        z.append(found.friction[0, 0].z(1.0))
    assert np.mean(np.square(z)) == pytest.approx(1.0, abs=4 * np.sqrt(2 / 100))
    assert abs(np.mean(z)) < 4 / np.sqrt(100)


# A point of each built-in, away from symmetry.
POINTS = {
    "trap": (0.7,),
    "stiffness": (2.5,),
    "trap-and-stiffness": (0.7, 2.5),
    "gaussian": (0.3, -0.4, 2.0, 0.6, 1.5),
    "double-well": (1.0, 0.6),
    "quartic": (1.7,),
    "bistable": (0.8, 0.3),
    "chain": (0.8, 1.5, 0.6),
    "mixture": (-1.2, 1.6, 0.4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_every_element_of_every_built_in_is_calibrated(name):
    """Over 16 seeds no element of g and zeta is off, and none has an error that is too small or too large."""
    z = {"fisher": [], "friction": []}
    for seed in range(16):
        ensemble = at(name, POINTS[name], seed=seed)
        right, found = ensemble.system.exact(POINTS[name]), measured(ensemble, 8)
        for matrix, values in z.items():
            values.append(getattr(found, matrix).z(getattr(right, matrix)))
    for matrix, values in z.items():
        z_all = np.array(values)[:, *np.tril_indices(len(POINTS[name]))]
        assert np.all(np.abs(z_all.mean(axis=0)) < 4 / np.sqrt(16)), (matrix, z_all.mean(axis=0))
        assert np.all(np.mean(z_all**2, axis=0) < 1 + 4 * np.sqrt(2 / 16)), (matrix, np.mean(z_all**2, axis=0))


# --- Whole runs: what no exact value tells, and what is zero ----------------------------------------------------------


def test_what_is_zero_is_said_to_be_zero():
    """A symmetric double well: g and zeta of barrier and tilt vanish, which a quadrature gives as 1e-17."""
    found = metric.measure("double-well", theta=(1.0, 0.0), particles=8192, seed=2, dt=0.006)
    assert found.exact.fisher[0, 1] == 0.0
    assert found.exact.friction[0, 1] == 0.0
    assert math.isnan(found.exact.relaxation[0, 1])
    assert math.isnan(found.relaxation.mean[0, 1])
    table = found.tables()[2]
    assert table.rows[1][1:] == ("?", "", "")
    assert any(note.startswith("?  g is not seen") for note in table.notes)
    assert "e-17" not in found.summary() + found.summary(200)


SMALL = {"particles": 8192, "work_particles": 4096, "seed": 5}


@pytest.mark.slow
def test_geodesic_on_a_measured_metric():
    """In two dimensions nobody knows the truth of a potential not said to be quadratic; here zeta is constant."""
    grid = (("slow", 0.0, 0.1, 2), ("both", 0.0, 0.4, 3))
    found = metric.drive(PAIR, theta=(0.0, 0.0), end=(0.4, 0.1), grid=grid, taus=200.0, dt=0.2, **SMALL)
    assert found.exact is None
    assert found.friction.mean.shape == (3, 2, 2, 2)
    assert np.all(np.abs(found.friction.z(PAIR_FRICTION)) < 4)
    step = np.array([0.4, 0.1])
    truth = step @ PAIR_FRICTION @ step
    stderr = np.abs(step) @ found.friction.stderr.mean(axis=(0, 1)) @ np.abs(step)
    assert found.geodesic.length**2 == pytest.approx(truth, abs=4 * stderr)
    assert found.geodesic.line == pytest.approx(truth, abs=4 * stderr)
    for work in found.works:
        # tau is twenty of the longest relaxation time, 1 / SLOW: W_ex falls short of slow driving by that share.
        assert work.excess_work.mean == pytest.approx(truth / 200, abs=0.05 * truth / 200 + 4 * work.excess_work.stderr)
    assert found.least == ()
    assert list(found.figures()) == ["", "protocols"]
    with pytest.raises(InputError, match="give a grid over both"):
        metric.drive(PAIR, theta=(0.0, 0.0), end=(0.4, 0.1), grid=grid[:1], **SMALL)
    with pytest.raises(InputError, match=r"end needs Delta F.*; give untold a free_energy function"):
        metric.drive(replace(PAIR, name="untold", free_energy=None), theta=(0.0, 0.0), end=(0.4, 0.1), grid=grid)


@njit
def tube(x, theta):
    return 0.5 * theta[1] * (x[0] - theta[0]) ** 2 + 0.5 * x[1] ** 2


@njit
def tube_force(x, theta):
    return theta[1] * (theta[0] - x[0]), -x[1]


@njit
def tube_gradient(x, theta):
    return theta[1] * (theta[0] - x[0]), 0.5 * (x[0] - theta[0]) ** 2


def tube_sample(theta, beta, uniform):
    return np.stack([theta[0] + ndtri(uniform()) / math.sqrt(beta * theta[1]), ndtri(uniform()) / math.sqrt(beta)], 1)


TUBE = Potential(
    "tube", tube, tube_force, tube_gradient, ("centre", "stiffness"), (0.0, 1.0), dimension=2, sample=tube_sample,
    free_energy=lambda theta, beta: 0.5 * math.log(theta[1]) / beta,
)  # fmt: skip
GRID = (("centre", 0.0, 0.5, 2), ("stiffness", 2.2, 0.8, 4))


@pytest.mark.slow
def test_curved_geodesic_on_a_measured_metric():
    found = metric.drive(TUBE, end=(0.5, 2.0), grid=GRID, taus=4.0, **SMALL)
    assert found.exact is None
    assert found.friction.mean.shape == (2, 4, 2, 2)
    # zeta = diag(1, 1 / (4 k^3)), point by point.
    stiffness = np.array([point.theta[1] for point in found]).reshape(2, 4)
    truth = np.zeros((2, 4, 2, 2))
    truth[..., 0, 0], truth[..., 1, 1] = 1.0, 0.25 / stiffness**3
    assert np.all(np.abs(found.friction.z(truth)) < 4)
    # Flat in mean and width, as in test_geodesic.
    square = 0.5**2 + (1 - 2**-0.5) ** 2
    assert found.geodesic.length**2 == pytest.approx(square, rel=0.05)
    gap = found.of("geodesic")[0].excess_work.mean - found.geodesic.excess_work(4.0)
    assert abs(gap) < 0.03
    assert found.least == ()
    assert list(found.figures()) == ["", "protocols"]
