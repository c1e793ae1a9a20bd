"""Friction from trajectories: the kernel against its twin, truncation, and estimates against exact values."""

import math

import numpy as np
import pytest
from numba import njit
from scipy.integrate import quad

import naive
from helpers import kernel_normals
from thermokernels import correlations
from thermokernels.random import BLOCK
from thermorun import streams
from thermorun.errors import RunError
from thermorun.metric import friction
from thermorun.metric.friction import Ensemble, Windows, fold
from thermorun.potentials import Potential, System, compilation, double_well, gaussian, resolve

# --- A potential in two dimensions: one slow direction, hardly felt by the first parameter -----------------------------


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
    from scipy.special import ndtri

    means = -theta[0], -(SHARE * theta[0] + theta[1]) / SLOW
    widths = beta**-0.5, (beta * SLOW) ** -0.5
    return np.stack([m + w * ndtri(uniform()) for m, w in zip(means, widths, strict=True)], axis=1)


PAIR = Potential(
    "pair", pair, pair_force, pair_gradient, ("both", "slow"), (0.2, 0.1), dimension=2, sample=pair_sample
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
        (np.uint64(seed), np.uint64(stream)), sums, means, status,
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
        ("pair", "heun", 1024, 1e-9),
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
        ("trap", (0.3,), {"mobility": 0.7, "beta": 2.0}),
        ("stiffness", (2.0,), {"integrator": "exact", "mobility": 2.0}),
        ("double-well", (1.0, 0.5), {"beta": 1.2}),
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


@pytest.mark.parametrize("blocks", [8, 16])
def test_standard_errors_are_calibrated(blocks):
    """Over 100 seeds z, which is Student's with blocks - 1 degrees of freedom made normal, scatters as a normal does."""
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
