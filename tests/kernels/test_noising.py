"""Uncoupled units that lose an image: trajectories, their law, and what is learned from them, against plain twins."""

import numpy as np
import pytest

import naive
from helpers import kernel_normals, symmetric, z_score
from thermokernels.network import GROUP
from thermokernels.noising import moments, noise
from thermokernels.onsager_machlup import action_gradient
from thermokernels.reversal import learn
from thermorun.computer.generative.noising import grid, schedule
from thermorun.computer.machine import KernelPhysics, Physics

PHYSICS = KernelPhysics(J2=0.8, J4=0.6, mobility=1.3, kT=0.4, dt=0.01)
SEED, STREAM = 5, 2**33 + 1
dtypes = pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-5), (np.float64, 1e-12)])


def run_noise(x, forces, tilt, amplitude, first=3, recorded=(), physics=PHYSICS):
    x = x.copy()
    heat, status = np.zeros(len(x)), np.zeros(len(x), np.int64)
    paths = np.empty((len(recorded), *x.shape), x.dtype)
    random = (np.uint64(SEED), np.uint64(STREAM), first)
    noise(x, heat, status, forces, tilt, amplitude, physics, random, np.array(recorded, np.intp), paths)
    return x, heat, status, paths


def setting(trajectories, units, dtype):
    rng = np.random.default_rng(units)
    return [rng.normal(size=(trajectories, units)).astype(dtype) for _ in range(3)]


@dtypes
@pytest.mark.parametrize(("trajectories", "units"), [(1, 1), (65, 17), (130, 33)])
def test_noise_is_the_twin(trajectories, units, dtype, bound):
    x, forces, tilt = setting(trajectories, units, dtype)
    amplitude = np.linspace(2.0, 0.0, 30)
    end, heat, status, paths = run_noise(x, forces, tilt, amplitude, recorded=(0, 7, 30))
    exact = [values.astype(float) for values in (x, forces, tilt)]
    twin_heat, states = naive.noise_units(*exact, amplitude, PHYSICS, 3, SEED, STREAM, kernel_normals)
    np.testing.assert_allclose(paths, states[[0, 7, 30]], rtol=0, atol=bound * 10)
    np.testing.assert_allclose(heat, twin_heat, rtol=0, atol=bound * 30 * units)
    assert np.array_equal(end, paths[2])
    assert not status.any()


def test_noise_gives_the_same_bits_on_any_threads_and_in_any_pieces(on_threads):
    x, forces, tilt = setting(150, 20, np.float32)
    a = np.linspace(2.0, 0.0, 20)
    whole, heat, _, _ = run_noise(x, forces, tilt, a)
    for count in (1, 2):
        again = on_threads(count, run_noise, x, forces, tilt, a)
        assert np.array_equal(again[0], whole)
        assert np.array_equal(again[1], heat)
    half = run_noise(x, forces, tilt, a[:9])[0]
    assert np.array_equal(run_noise(half, forces, tilt, a[9:], first=12)[0], whole)


def test_noise_says_where_it_diverged():
    x, forces, tilt = setting(3, 2, np.float64)
    x[1] = 1e3
    _, _, status, _ = run_noise(x, forces, tilt, np.zeros(40), first=0)
    assert status[1] > 1
    assert not status[[0, 2]].any()


def law(forces, amplitude, tilt, physics, points):
    found = [np.full((len(amplitude) + 1, len(forces)), np.nan) for _ in range(3)]
    status = np.zeros(len(forces), np.int64)
    moments(forces, amplitude, tilt, physics, points, status, *found)
    return np.array(found), status


def test_moments_are_the_twin_whatever_the_grid():
    """A dense matrix for every step on the same grid; and a grid twice as fine gives the same numbers."""
    forces, amplitude = np.array([-1.7, 0.0, 0.9]), np.linspace(2.0, 0.0, 25)
    spacing = 0.75 * np.sqrt(2 * PHYSICS.mobility * PHYSICS.kT * PHYSICS.dt)
    grids = [(-half * fine, fine, 2 * half + 1) for fine, half in ((spacing, 60), (spacing / 2, 120))]
    coarse, status = law(forces, amplitude, 0.3, PHYSICS, grids[0])
    assert not status.any()
    for node, force in enumerate(forces):
        twin = naive.unit_moments(force, amplitude, 0.3, PHYSICS, grids[0])
        np.testing.assert_allclose(coarse[:, :, node], twin, rtol=0, atol=1e-13)
    np.testing.assert_allclose(law(forces, amplitude, 0.3, PHYSICS, grids[1])[0], coarse, rtol=0, atol=1e-11)


def test_moments_say_where_the_grid_ends():
    _, status = law(np.array([0.0, 60.0]), np.full(40, 2.0), 0.0, PHYSICS, (-1.0, 0.05, 41))
    assert status[1] > 0


def test_moments_are_those_of_trajectories():
    """Quadrature against simulated noising: mean, variance and <x^3> at four times of two codes, |z| < 4."""
    physics = Physics(kT=0.1, dt=0.005, observation_time=0.5)
    codes, steps, tilt = np.array([-0.4, 2.3]), physics.steps, 0.6
    a = schedule(physics)
    mean, variance, cube = law(codes, a, tilt, physics.kernel, grid(physics, 2 * 2.3 + tilt))[0]
    x = np.zeros((20_000, 2))
    rows = [steps // 2, steps, steps + steps // 2, 2 * steps]
    forces = np.tile(codes, (len(x), 1))
    paths = run_noise(x, forces, np.full_like(x, tilt), a, recorded=rows, physics=physics.kernel)[3]
    for path, n in zip(paths, rows, strict=True):
        for k in range(2):
            assert abs(z_score(path[:, k], mean[n, k])) < 4
            assert abs(z_score((path[:, k] - mean[n, k]) ** 2, variance[n, k])) < 4
            assert abs(z_score(path[:, k] ** 3, cube[n, k])) < 4


# --- Learning ---------------------------------------------------------------------------------------------------------


def lesson(hidden, visible, steps, dtype=np.float64):
    rng = np.random.default_rng(hidden)
    units = hidden + visible
    path = np.cumsum(rng.normal(0.0, 0.1, (steps + 1, units)), axis=0)
    J = symmetric(units, 0.3)
    J[hidden:, hidden:] = 0.0
    free = (rng.random(units) < 0.6).astype(float)
    return [values.astype(dtype) for values in (path, rng.normal(size=units), free, J)]


def run_learn(path, field, free, J, hidden, rate, online, physics=PHYSICS):
    units = len(field)
    size = -(-units // GROUP) * GROUP
    whole = np.zeros((size, size), path.dtype)
    whole[:units, :units] = J
    change = whole if online else np.zeros_like(whole)
    sums, loss = np.empty(units), np.empty(1)
    learn(path, field, free, whole, change, hidden, physics, (rate, online), sums, loss)
    assert not change[units:].any()
    assert not change[:, units:].any()
    return change[:units, :units] - (J if online else 0), sums, loss[0]


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize(("hidden", "visible", "steps"), [(1, 1, 1), (5, 7, 70), (20, 15, 32), (16, 16, 95)])
def test_learn_is_the_twin(hidden, visible, steps, online):
    path, field, free, J = lesson(hidden, visible, steps)
    mine = run_learn(path, field, free, J, hidden, 2e-3, online)
    theirs = naive.learn_reversed(path, field, free, J, hidden, PHYSICS, 2e-3, online)
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


def test_learn_in_single_precision_gives_the_same_bits_on_any_threads(on_threads):
    path, field, free, J = lesson(40, 30, 100, np.float32)
    runs = [on_threads(count, run_learn, path, field, free, J, 40, 1e-3, True) for count in (1, 2)]
    assert np.array_equal(runs[0][0], runs[1][0])
    assert np.array_equal(runs[0][1], runs[1][1])
    exact = naive.learn_reversed(*(values.astype(float) for values in (path, field, free, J)), 40, PHYSICS, 1e-3, True)
    np.testing.assert_allclose(runs[0][0], exact[0], rtol=0, atol=2e-6)


def test_learn_is_the_gradient_of_its_loss():
    """Central differences in J and h, exact for a quadratic form but for rounding."""
    path, field, free, J = lesson(5, 4, 40)
    change, sums, _ = run_learn(path, field, free, J, 5, 1.0, False)
    h = 1e-2
    for i, j in ((0, 1), (2, 7), (6, 4)):
        step = np.zeros_like(J)
        step[i, j] = step[j, i] = h
        up, down = (run_learn(path, field, free, J + s * step, 5, 1.0, False)[2] for s in (1, -1))
        assert -change[i, j] == pytest.approx((up - down) / (2 * h), rel=1e-6)
        assert change[i, j] == pytest.approx(change[j, i], rel=1e-12)
    step = h * np.eye(9)[3]
    up, down = (run_learn(path, field + s * step, free, J, 5, 1.0, False)[2] for s in (1, -1))
    assert sums[3] == pytest.approx((up - down) / (2 * h), rel=1e-6)


@pytest.mark.slow
def test_learn_is_the_action_of_the_film_run_backwards():
    """The classifier's kernel on the reversed path gives the same loss, residuals and gradient."""
    path, field, free, J = lesson(6, 5, 50)
    change, sums, loss = run_learn(path, field, free, J, 6, 1.0, False)
    action, residuals, of_couplings = np.empty(1), np.empty((1, 11)), np.empty((11, 11))
    action_gradient(np.ascontiguousarray(path[::-1, None]), field[None], J, PHYSICS, action, residuals, of_couplings)
    of_couplings[6:, 6:] = 0.0
    assert loss == pytest.approx(action[0], rel=1e-12)
    np.testing.assert_allclose(sums, residuals[0], rtol=1e-10)
    np.testing.assert_allclose(-change, of_couplings, rtol=1e-10, atol=1e-12)
