"""The trap's kernels against plain twins, the first law, exact laws, and themselves, cut and threaded otherwise."""

import copy
import hashlib
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

import naive
from helpers import LEAST_P, all_pairs, kernel_normals, z_score
from thermokernels._jit import device
from thermokernels.blocks import sum_block, sum_over_blocks
from thermokernels.random import BLOCK
from thermokernels.trap import (
    DRIVE_COLUMNS,
    LEARN_COLUMNS,
    SUM_HEAT,
    SUM_SQUARE,
    SUM_X,
    drive,
    learn,
    spread,
    start_responses,
)

SEED, START, NOISE = 2**63 + 11, 2**40, 5  # streams of the start and of the dynamics
THETA = 0.75
U, THETA_NEXT, WORK, HEAT, SQUARE, VAR_U, VAR_THETA, VAR_WORK = range(8)

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# With the kernels' noise the twin shows the arithmetic, with its own in double precision that the noise is right too.
# The bound is for x and for means over particles, which are of order one; work and heat of a particle reach twenty.
BOUNDS = {
    kernel_normals: {np.float64: 1e-13, np.float32: 2e-6},
    naive.normals: {np.float64: 6e-6, np.float32: 6e-6},
}
# The last size is more blocks than a kernel has tasks.
cases = all_pairs(
    ("particles", "replicas", "dtype", "noise"),
    [1, 1000, 1024, 1025, 5000, 70_000], [1, 3], [np.float32, np.float64], list(BOUNDS),
)  # fmt: skip


class Ensemble:
    """Replicas of a trap with all the arrays that the kernels want; columns beyond the particles hold NaN."""

    def __init__(self, particles, replicas=1, dtype=np.float64, centre=-1.5, width=0.8, theta=THETA, split=1):
        blocks = -(-particles // BLOCK)
        self.particles, self.replicas, self.blocks = particles, replicas, blocks
        self.x = np.full((replicas, blocks * BLOCK), np.nan, dtype)
        self.work, self.heat = np.zeros(self.x.shape), np.zeros(self.x.shape)
        self.sums = np.full((replicas, blocks, 3), np.nan)
        self.state = np.array([[theta, 0.0]] * replicas)
        self.responses = np.zeros((replicas, 4, blocks * split))
        spread(self.x, particles, centre, width, (np.uint64(SEED), np.uint64(START)), self.sums)
        start_responses(self.x, particles, self.responses)

    def learn(self, steps, target, first=0):
        trace = np.full((len(steps), self.replicas, len(LEARN_COLUMNS)), np.nan)
        learn(
            self.x, self.particles, first, steps, target, (np.uint64(SEED), np.uint64(NOISE)),
            self.state, self.sums, self.responses, trace,
        )  # fmt: skip
        return trace

    def drive(self, steps, theta, first=0, rows=()):
        record = np.full((len(rows), self.replicas, self.blocks, len(DRIVE_COLUMNS)), np.nan)
        drive(
            self.x, self.work, self.heat, self.particles, first, steps, np.array(theta, order="C"),
            (np.uint64(SEED), np.uint64(NOISE)), np.array(rows, np.intp), record,
        )  # fmt: skip
        return record

    def of_particles(self):
        return [array[:, : self.particles] for array in (self.x, self.work, self.heat)]

    def everything(self):
        return self.x, self.work, self.heat, self.sums, self.state, self.responses


def assert_same(ensemble, other):
    for array, twin in zip(ensemble.everything(), other.everything(), strict=True):
        np.testing.assert_array_equal(array, twin)


def arbitrary_steps(count, replicas=1):
    """Gains, pulls, kicks and targets without a pattern; one step is a jump alone, one has no jump."""
    rng = np.random.default_rng(count)
    steps = rng.uniform(0.05, 0.4, (count, 3))
    steps[count // 2, 1:] = 0.0
    steps[count // 3, 0] = 0.0
    return steps, rng.uniform(-3.0, 3.0, (count, replicas))


def arbitrary_path(count, replicas=1):
    return np.random.default_rng(count).uniform(-2.0, 2.0, (replicas, count + 1))


def ornstein_uhlenbeck(time_step, count, gain=0.0, kt=1.0):
    return np.array([[gain, -np.expm1(-time_step), np.sqrt(-kt * np.expm1(-2.0 * time_step))]] * count)


def euler_maruyama(time_step, count, gain=0.0, kt=1.0):
    return np.array([[gain, time_step, np.sqrt(2.0 * kt * time_step)]] * count)


# --- Twins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000, 1024])
@dtypes
def test_sum_block_is_the_twin(size, dtype):
    x, sums = np.random.default_rng(size).normal(3.0, 1.0, size).astype(dtype), np.full(3, np.nan)
    sum_block(x, sums)
    np.testing.assert_allclose(sums[:2], naive.sum_block(x), rtol=1e-14)


def test_sum_over_blocks_is_the_twin():
    sums = np.random.default_rng(1).normal(3.0, 1.0, (977, 3))
    for column in range(3):
        assert sum_over_blocks(sums, column) == pytest.approx(naive.sum_over_blocks(sums, column), rel=1e-13)


@cases
def test_spread_is_the_twin(particles, replicas, dtype, noise):
    bound = BOUNDS[noise]
    ensemble = Ensemble(particles, replicas, dtype)
    for r in range(replicas):
        x = ensemble.x[r, :particles]
        twin = naive.spread(particles, -1.5, 0.8, SEED, START + r, noise)
        np.testing.assert_allclose(x, twin, rtol=0, atol=bound[dtype])
        wide = x.astype(float)
        np.testing.assert_allclose(ensemble.sums[r, :, :SUM_HEAT], naive.block_sums(wide, wide**2), rtol=1e-12)
    assert np.all(ensemble.sums[:, :, SUM_HEAT] == 0.0)
    assert np.all(np.isnan(ensemble.x[:, particles:]))


@cases
def test_learn_is_the_twin(particles, replicas, dtype, noise):
    bound = BOUNDS[noise]
    ensemble = Ensemble(particles, replicas, dtype)
    steps, target = arbitrary_steps(12, replicas)
    start = ensemble.x.astype(float)[:, :particles]
    trace = ensemble.learn(steps, target, first=1000)
    assert np.all(np.isnan(ensemble.x[:, particles:]))
    for r in range(replicas):
        twin, x, heat = naive.learn(start[r], 1000, steps, target[:, r], SEED, NOISE + r, THETA, noise)
        np.testing.assert_allclose(trace[:, r, :VAR_U], twin, rtol=0, atol=bound[dtype])
        np.testing.assert_allclose(ensemble.x[r, :particles], x, rtol=0, atol=bound[dtype])
        np.testing.assert_array_equal(ensemble.state[r], trace[-1, r, [THETA_NEXT, WORK]])
        wide = ensemble.x[r, :particles].astype(float)
        np.testing.assert_allclose(ensemble.sums[r, :, :SUM_HEAT], naive.block_sums(wide, wide**2), rtol=1e-12)
        assert naive.sum_over_blocks(ensemble.sums[r], SUM_HEAT) / particles == pytest.approx(heat, abs=bound[dtype])


@cases
def test_drive_is_the_twin(particles, replicas, dtype, noise):
    bound = BOUNDS[noise]
    ensemble = Ensemble(particles, replicas, dtype)
    steps, theta = arbitrary_steps(12)[0], arbitrary_path(12, replicas)
    rows = [0, 1, 5, 11]
    start, zero = ensemble.x.astype(float)[:, :particles], np.zeros(particles)
    record = ensemble.drive(steps, theta, 1000, rows)
    assert np.all(np.isnan(ensemble.x[:, particles:]))
    assert not np.any(ensemble.work[:, particles:])
    assert not np.any(ensemble.heat[:, particles:])
    members = np.minimum(BLOCK, particles - BLOCK * np.arange(ensemble.blocks))[:, None]
    for r in range(replicas):
        twin = naive.drive(start[r], zero, zero, 1000, steps, theta[r], SEED, NOISE + r, rows, noise)
        *particle, sums = twin
        for mine, theirs in zip(ensemble.of_particles(), particle, strict=True):
            np.testing.assert_allclose(mine[r], theirs, rtol=0, atol=5 * bound[dtype])
        np.testing.assert_allclose(record[:, r] / members, sums / members, rtol=0, atol=20 * bound[dtype])


# --- First law -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 2e-14), (np.float32, 5e-7)])
def test_first_law_of_means_in_learn(dtype, bound):
    ensemble = Ensemble(5000, 3, dtype)
    steps, target = arbitrary_steps(40, 3)
    start = np.mean(naive.energy(ensemble.x[:, :5000].astype(float), THETA), axis=1)
    trace = np.moveaxis(ensemble.learn(steps, target), -1, 0)
    energy = trace[SQUARE] / 2.0 - trace[THETA_NEXT] * trace[U] + trace[THETA_NEXT] ** 2 / 2.0
    np.testing.assert_allclose(energy - start, trace[WORK] + trace[HEAT], rtol=0, atol=bound)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-13), (np.float32, 1e-5)])
def test_first_law_of_every_particle_in_drive(dtype, bound):
    ensemble = Ensemble(5000, 3, dtype)
    steps, theta = arbitrary_steps(40)[0], arbitrary_path(40, 3)
    start = naive.energy(ensemble.x.astype(float), theta[:, :1])
    ensemble.drive(steps, theta)
    gain = naive.energy(ensemble.x.astype(float), theta[:, -1:]) - start
    residual = (gain - ensemble.work - ensemble.heat)[:, :5000]
    assert np.max(np.abs(residual)) < bound


def test_drive_along_the_learned_path_is_the_same_run():
    steps, target = arbitrary_steps(20, 3)
    steps[-1, 1:] = 0.0  # so that the last row of the trace is the end
    learned, driven = Ensemble(5000, 3), Ensemble(5000, 3)
    trace = learned.learn(steps, target)
    driven.drive(steps, np.concatenate(([[THETA] * 3], trace[:, :, THETA_NEXT])).T)
    x, work, heat = driven.of_particles()
    np.testing.assert_allclose(x, learned.x[:, :5000], rtol=0, atol=1e-12)
    np.testing.assert_allclose(work.mean(axis=1), trace[-1, :, WORK], rtol=0, atol=1e-12)
    np.testing.assert_allclose(heat.mean(axis=1), trace[-1, :, HEAT], rtol=0, atol=1e-12)


# --- Bit-identical however it is run ---------------------------------------------------------------------------------

CUTS = [[0, 30], [0, 1, 30], [0, 7, 15, 16, 30], list(range(31))]
together = pytest.mark.parametrize(("particles", "replicas"), [(1000, 70), (5000, 3), (70_000, 1)])


def learn_in_pieces(particles, replicas, dtype, cuts):
    ensemble = Ensemble(particles, replicas, dtype)
    steps, target = arbitrary_steps(30, replicas)
    trace = []
    for start, stop in pairwise(cuts):
        ensemble = copy.deepcopy(ensemble)  # as if saved and read back
        trace.append(ensemble.learn(steps[start:stop], target[start:stop], 100 + start))
    return ensemble, np.concatenate(trace)


def drive_in_pieces(particles, replicas, dtype, cuts):
    ensemble = Ensemble(particles, replicas, dtype)
    steps, theta = arbitrary_steps(30)[0], arbitrary_path(30, replicas)
    record = []
    for start, stop in pairwise(cuts):
        ensemble = copy.deepcopy(ensemble)
        rows = range(stop - start)
        record.append(ensemble.drive(steps[start:stop], theta[:, start : stop + 1], 100 + start, rows))
    return ensemble, np.concatenate(record)


@pytest.mark.parametrize("run", [learn_in_pieces, drive_in_pieces])
@together
@dtypes
def test_same_bits_for_any_threads_and_cuts(run, particles, replicas, dtype, on_threads):
    ensemble, rows = on_threads(1, run, particles, replicas, dtype, CUTS[0])
    for cuts in CUTS:
        other, other_rows = on_threads(2, run, particles, replicas, dtype, cuts)
        np.testing.assert_array_equal(rows, other_rows)
        assert_same(ensemble, other)


@dtypes
def test_second_half_from_a_saved_state(dtype):
    steps, target = arbitrary_steps(30, 3)
    whole, half = Ensemble(5000, 3, dtype), Ensemble(5000, 3, dtype)
    trace = whole.learn(steps, target)
    half.learn(steps[:15], target[:15])
    for ensemble in (copy.deepcopy(half), half):
        np.testing.assert_array_equal(ensemble.learn(steps[15:], target[15:], 15), trace[15:])
        assert_same(ensemble, whole)


def digest():
    results = hashlib.sha256()
    for run in (learn_in_pieces, drive_in_pieces):
        ensemble, rows = run(5000, 3, np.float64, CUTS[0])
        for array in (rows, *ensemble.everything()):
            results.update(array.tobytes())
    return results.hexdigest()


def test_recording_changes_nothing():
    steps, theta = arbitrary_steps(30)[0], arbitrary_path(30)
    silent, recorded = Ensemble(5000), Ensemble(5000)
    silent.drive(steps, theta)
    recorded.drive(steps, theta, rows=range(30))
    assert_same(silent, recorded)


# --- Exact laws ------------------------------------------------------------------------------------------------------


def assert_normal(sample, mean, variance):
    """KS against N(mean, variance), and its first four moments."""
    z = (np.ravel(sample).astype(float) - mean) / np.sqrt(variance)
    assert stats.kstest(z, "norm").pvalue > LEAST_P
    scores = [np.mean(z**k - truth) / np.sqrt(spread / z.size) for k, truth, spread in NORMAL_MOMENTS]
    assert np.max(np.abs(scores)) < 4, scores


NORMAL_MOMENTS = [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]  # order, mean and variance of the power


@dtypes
@pytest.mark.parametrize("count", [1, 10])
def test_transition_law(count, dtype):
    """Steps of exp(-mu dt) from one point: N(theta + (x0 - theta) e^-t, kT (1 - e^-2t)), however many make up t."""
    time, kt = 0.7, 0.3
    ensemble = Ensemble(2**18, dtype=dtype, centre=-4.0, width=0.0)
    ensemble.drive(ornstein_uhlenbeck(time / count, count, kt=kt), np.full((1, count + 1), THETA))
    assert_normal(ensemble.x, THETA + (-4.0 - THETA) * np.exp(-time), -kt * np.expm1(-2.0 * time))


@dtypes
@pytest.mark.parametrize(
    ("scheme", "inflation"), [(ornstein_uhlenbeck, 1.0), (euler_maruyama, 1.0 / (1.0 - 0.25 / 2.0))]
)
def test_equilibrium_stays(scheme, inflation, dtype):
    """At constant theta N(theta, kT) is stationary; for Euler-Maruyama N(theta, kT / (1 - mu dt / 2)).

    Correlations decay as the mean does, and as much heat comes in as goes out.
    """
    time_step, count, kt = 0.25, 8, 0.4
    decay = {ornstein_uhlenbeck: np.exp(-time_step), euler_maruyama: 1.0 - time_step}[scheme]
    ensemble = Ensemble(2**18, dtype=dtype, centre=THETA, width=np.sqrt(kt * inflation))
    start = ensemble.x.astype(float) - THETA
    ensemble.drive(scheme(time_step, count, kt=kt), np.full((1, count + 1), THETA))
    assert_normal(ensemble.x, THETA, kt * inflation)
    assert abs(z_score(start * (ensemble.x - THETA), kt * inflation * decay**count)) < 4
    assert abs(z_score(ensemble.heat, 0.0)) < 4
    assert not np.any(ensemble.work)


@dtypes
def test_work_law(dtype):
    """From equilibrium, and with exact relaxation, any path of theta makes a normal work W with variance 2 kT <W>, and
    <exp(-W / kT)> = 1 (Jarzynski), Delta F being zero."""
    kt, count = 0.8, 12
    steps = ornstein_uhlenbeck(0.2, count, kt=kt)
    theta = THETA + np.concatenate(([0.0], np.cumsum(np.random.default_rng(3).normal(0.1, 0.2, count))))
    u, mean_work = theta[0], 0.0
    for (old, new), pull in zip(pairwise(theta), steps[:, 1], strict=True):
        mean_work += (new - old) * ((old + new) / 2.0 - u)
        u += pull * (new - u)
    ensemble = Ensemble(2**18, dtype=dtype, centre=THETA, width=np.sqrt(kt))
    ensemble.drive(steps, theta[None])
    assert_normal(ensemble.work, mean_work, 2.0 * kt * mean_work)
    assert abs(z_score(np.exp(-ensemble.work / kt), 1.0)) < 4


# --- Error bars of one replica ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("particles", "split"), [(1025, 1), (5000, 1), (8192, 1), (50, 64), (1025, 64), (5000, 4)])
@pytest.mark.parametrize(("noise", "bound"), [(kernel_normals, 1e-11), (naive.normals, 2e-5)])
def test_jackknife_is_the_twin(particles, split, noise, bound):
    ensemble = Ensemble(particles, 3, split=split)
    steps, target = arbitrary_steps(12, 3)
    start = ensemble.x[:, :particles].copy()
    variances = ensemble.learn(steps, target)[:, :, VAR_U:]
    for r in range(3):
        twin = naive.jackknife(
            start[r], 0, steps, target[:, r], SEED, NOISE + r, THETA, noise=noise, size=BLOCK // split
        )
        np.testing.assert_allclose(variances[:, r], twin, rtol=bound)


def linear_gaussian_variances(steps, start_variance, particles):
    """Var u and Var theta after the jump of each step: (u, theta) of N particles is a linear Gaussian process."""
    covariance, variances = np.diag([start_variance / particles, 0.0]), []
    for gain, pull, kick in steps:
        jump, relax = np.array([[1.0, 0.0], [-gain, 1.0]]), np.array([[1.0 - pull, pull], [0.0, 1.0]])
        covariance = jump @ covariance @ jump.T
        variances.append(covariance.diagonal())
        covariance = relax @ covariance @ relax.T + np.diag([kick**2 / particles, 0.0])
    return np.array(variances)


@pytest.mark.parametrize(("particles", "split"), [(4 * BLOCK, 1), (BLOCK + 256, 1), (BLOCK, 64)])
def test_jackknife_is_the_spread_of_replicas(particles, split):
    """What a replica says of its own error, averaged over replicas, is the exact variance of u and theta, and the
    sample variance of u, theta and work over R replicas, which is chi-square with R - 1 degrees of freedom."""
    replicas, count = 2000, 10
    steps = ornstein_uhlenbeck(0.2, count, gain=0.15)
    ensemble = Ensemble(particles, replicas, np.float32, centre=-2.0, width=1.0, theta=-2.0, split=split)
    trace = ensemble.learn(steps, np.zeros((count, replicas)))
    exact = linear_gaussian_variances(steps, 1.0, particles)
    for n in range(count):
        assert abs(z_score(trace[n, :, VAR_U], exact[n, 0])) < 4
        assert abs(z_score(trace[n, :, VAR_THETA], exact[n, 1])) < 4
        sample = np.var(trace[n, :, [U, THETA_NEXT, WORK]], axis=1, ddof=1)
        estimate = trace[n, :, VAR_U:]
        error = np.hypot(sample * np.sqrt(2.0 / (replicas - 1)), np.std(estimate, axis=0) / np.sqrt(replicas))
        assert np.all(np.abs(estimate.mean(axis=0) - sample) < 4 * error)


@pytest.mark.parametrize(("particles", "split"), [(1, 1), (777, 1), (1024, 1), (16, 64)])
def test_one_part_has_no_jackknife(particles, split):
    steps, target = arbitrary_steps(6, 3)
    assert np.all(np.isnan(Ensemble(particles, 3, split=split).learn(steps, target)[:, :, VAR_U:]))


def test_parts_change_nothing_but_the_jackknife():
    steps, target = arbitrary_steps(6, 3)
    whole, split = (Ensemble(5000, 3, np.float32, split=split).learn(steps, target) for split in (1, 8))
    np.testing.assert_array_equal(whole[:, :, :VAR_U], split[:, :, :VAR_U])


# --- Odds and ends ---------------------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_seen(bad, dtype):
    """In the sums over the particles and in the error bars of their replica, from the next step on, nowhere else."""
    steps, target = arbitrary_steps(6, 3)
    ensemble = Ensemble(5000, 3, dtype)
    ensemble.x[1, 3000] = bad
    trace = ensemble.learn(steps, target)
    assert np.all(np.isfinite(trace[0]))  # the sums were taken before
    assert not np.any(np.isfinite(trace[1:, 1]))
    assert np.all(np.isfinite(trace[:, [0, 2]]))

    ensemble = Ensemble(5000, 3, dtype)
    ensemble.x[1, 3000] = bad
    record = ensemble.drive(steps, arbitrary_path(6, 3), rows=range(6))
    hit = np.zeros((3, 5), bool)
    hit[1, 3000 // BLOCK] = True
    assert not np.any(np.isfinite(record[1:, hit]))
    assert np.all(np.isfinite(record[:, ~hit]))
    for array in ensemble.of_particles():
        assert np.flatnonzero(~np.isfinite(array)).tolist() == [5000 + 3000]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_flags_leave_nan_and_infinity_alone(bad):
    """Under ``nnan`` or ``ninf`` the compiler may take a comparison like these for false."""
    assert device(lambda x: x != x or abs(x) == np.inf)(bad)


def test_without_gain_theta_stays():
    steps, target = arbitrary_steps(10, 3)
    steps[:, 0] = 0.0
    trace = Ensemble(5000, 3).learn(steps, target)
    assert np.all(trace[:, :, THETA_NEXT] == THETA)
    assert not np.any(trace[:, :, [WORK, VAR_THETA, VAR_WORK]])
    assert np.all(trace[:, :, VAR_U] > 0.0)


def test_columns_are_named_in_order():
    assert (SUM_X, SUM_SQUARE, SUM_HEAT) == (0, 1, 2)
    assert LEARN_COLUMNS == ("u", "theta", "work", "heat", "square", "var_u", "var_theta", "var_work")
    assert DRIVE_COLUMNS == ("x", "square", "work", "work_square", "heat")
