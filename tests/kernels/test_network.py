"""The computer's products and trajectories against plain twins, the first law, exact laws, and themselves."""

import hashlib

import numpy as np
import pytest
from scipy import integrate, interpolate, linalg, stats

import naive
from helpers import LEAST_P, all_pairs, kernel_normals, symmetric, z_score
from thermokernels.network import dense, simulate
from thermokernels.products import LINE, add_gram, add_product, aligned
from thermorun.computer.factors import factored
from thermorun.computer.machine import KernelPhysics

SEED, STREAM = 2**63 + 7, 2**40 + 3
# No two alike, so that none can stand for another.
PHYSICS = KernelPhysics(J2=0.8, J4=0.6, mobility=1.3, kT=0.7, dt=0.01)

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# (trajectories, units): whole tiles and groups, parts of them, and more tiles than a kernel has tasks.
sizes = pytest.mark.parametrize(("trajectories", "units"), [(1, 1), (64, 16), (65, 17), (200, 37), (4170, 2)])
# As in test_trap: with the kernels' noise the twin shows the arithmetic, with its own that the noise is right too.
noises = pytest.mark.parametrize(
    ("noise", "bound"),
    [(kernel_normals, {np.float64: 1e-14, np.float32: 1e-6}), (naive.normals, {np.float64: 1e-6, np.float32: 2e-6})],
)


def start_and_fields(trajectories, units, dtype):
    rng = np.random.default_rng(trajectories)
    return rng.normal(size=(trajectories, units)).astype(dtype), rng.normal(size=(trajectories, units)).astype(dtype)


def run(x, fields, couplings, physics, first, steps, recorded=(), before=None):
    """The kernel, as the twin: x, heat and status at the end, and the paths; ``before`` is what it returned last."""
    couplings = couplings if isinstance(couplings, tuple) else dense(couplings)
    x, (heat, status) = x.copy(), (np.zeros(len(x)), np.zeros(len(x), np.int64)) if before is None else before[1:3]
    heat, status = heat.copy(), status.copy()
    paths = np.full((len(recorded), *x.shape), np.nan, x.dtype)
    simulate(
        x, heat, status, fields, couplings, physics, (first, steps), (np.uint64(SEED), np.uint64(STREAM)),
        np.array(recorded, np.intp), paths,
    )  # fmt: skip
    return x, heat, status, paths


def assert_same(results, others):
    for mine, theirs in zip(results, others, strict=True):
        np.testing.assert_array_equal(mine, theirs)


# --- Products --------------------------------------------------------------------------------------------------------


@all_pairs(
    ("inner", "shape", "transposed", "dtype"),
    [0, 1, 7, 64, 77], [(8, 1), (16, 2), (24, 3), (80, 5)], [False, True], [np.float32, np.float64],
)  # fmt: skip
def test_add_product_is_numpys(inner, shape, transposed, dtype):
    """Within the bound on rounding of a sum, whatever its order; ``shape`` is rows and cache lines of columns."""
    rows, lines = shape
    columns, rng = lines * LINE // np.dtype(dtype).itemsize, np.random.default_rng(inner)
    a = rng.normal(size=(inner, rows) if transposed else (rows, inner)).astype(dtype)
    a = a.T if transposed else a
    x, out = (rng.normal(size=(n, columns)).astype(dtype) for n in (inner, rows))
    wide_a, wide_x, exact = a.astype(float), x.astype(float), out.astype(float)
    bound = (inner + 2) * np.finfo(dtype).eps * (np.abs(exact) + np.abs(wide_a) @ np.abs(wide_x))
    exact += wide_a @ wide_x
    add_product(out, a, x)
    assert np.all(np.abs(out - exact) <= bound)


@dtypes
def test_a_product_has_the_same_bits_by_one_line_and_by_two(dtype):
    """So has every row, wherever it stands: a trajectory's result does not depend on its place."""
    line, rng = LINE // np.dtype(dtype).itemsize, np.random.default_rng(1)
    a, x = rng.normal(size=(16, 37)).astype(dtype), rng.normal(size=(37, 5 * line)).astype(dtype)
    whole = np.zeros((16, 5 * line), dtype)
    add_product(whole, a, x)
    for start in range(0, 5 * line, line):
        part = np.zeros((16, line), dtype)
        add_product(part, a[::-1].copy(), x[:, start : start + line].copy())
        np.testing.assert_array_equal(part[::-1], whole[:, start : start + line])


@all_pairs(("inner", "columns", "dtype"), [0, 1, 7, 64], [16, 48, 80], [np.float32, np.float64])
def test_add_gram_is_the_product_on_and_below_the_diagonal(inner, columns, dtype):
    rng = np.random.default_rng(inner)
    x, product = rng.normal(size=(inner, columns)).astype(dtype), rng.normal(size=(columns, columns)).astype(dtype)
    gram = product.copy()
    add_gram(gram, x)
    add_product(product, x.T, x)
    np.testing.assert_array_equal(np.tril(gram), np.tril(product))


@dtypes
def test_aligned_is_zeros_that_begin_a_cache_line(dtype):
    arrays = [aligned(3, columns, np.empty(1, dtype)) for columns in range(1, 40)]
    for columns, array in enumerate(arrays, 1):
        assert array.shape == (3, columns)
        assert array.dtype == dtype
        assert array.ctypes.data % LINE == 0
        assert not np.any(array)


# --- Twins -----------------------------------------------------------------------------------------------------------


@sizes
@dtypes
@noises
def test_simulate_is_the_twin(trajectories, units, dtype, noise, bound):
    x, fields = start_and_fields(trajectories, units, dtype)
    couplings, recorded = symmetric(units), [0, 1, 4, 4, 12]
    result = run(x, fields, couplings, PHYSICS, 1000, 12, recorded)
    twin = naive.simulate(x.astype(float), fields, couplings, PHYSICS, 1000, 12, SEED, STREAM, recorded, noise)
    for mine, theirs in zip(result, twin, strict=True):
        # Rounding grows with the largest numbers of a trajectory's sums, at every step.
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=12 * bound[dtype] * np.max(np.abs(theirs), initial=1.0))
    np.testing.assert_array_equal(result[3][-1], result[0])


@pytest.mark.parametrize(("rank", "most"), [(0, 0), (3, 8), (20, 0)])
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-14), (np.float32, 1e-6)])
def test_couplings_of_low_rank_are_the_twins_too(dtype, bound, rank, most):
    """J between 30 hidden and 40 other units is of this rank; a block of 20 is not worth its factors."""
    x, fields = start_and_fields(70, 70, dtype)
    rng, whole = np.random.default_rng(rank), symmetric(70)
    whole[30:, :30] = 0.3 * rng.normal(size=(40, rank)) @ rng.normal(size=(rank, 30))
    whole[:30, 30:] = whole[30:, :30].T
    couplings = factored(whole, 30, np.dtype(dtype))
    assert min(2 * rank, most) <= len(couplings[2]) <= most
    pairs, left, right = couplings
    rounding = 2 * np.finfo(dtype).eps * np.linalg.norm(whole[30:, :30], 2)
    np.testing.assert_allclose(pairs + left @ right, whole, rtol=0, atol=rounding)
    result = run(x, fields, couplings, PHYSICS, 1000, 12)
    twin = naive.simulate(x.astype(float), fields, whole, PHYSICS, 1000, 12, SEED, STREAM, noise=kernel_normals)
    for mine, theirs in zip(result[:2], twin[:2], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=24 * bound * np.max(np.abs(theirs), initial=1.0))
    assert_same(result, run(x, fields, couplings, PHYSICS, 1000, 12))


@dtypes
def test_without_temperature_there_is_no_noise(dtype):
    x, fields = start_and_fields(70, 5, dtype)
    couplings, cold = symmetric(5), PHYSICS._replace(kT=0.0)
    result = run(x, fields, couplings, cold, 0, 30)
    np.testing.assert_array_equal(result[0], run(x, fields, couplings, cold, 77, 30)[0])
    twin = naive.simulate(x.astype(float), fields, couplings, cold, 0, 30, SEED, STREAM, noise=kernel_normals)
    np.testing.assert_allclose(result[0], twin[0], rtol=0, atol=100 * np.finfo(dtype).eps)
    assert np.all(result[1] < 0.0)  # downhill


# --- First law -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kt", [0.0, 0.7])
@pytest.mark.parametrize("steps", [1, 200])
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 2e-12), (np.float32, 4e-4)])
def test_first_law_of_every_trajectory(dtype, bound, steps, kt):
    """Nothing but x moves, so heat is the whole change of energy, which is of order 300 here."""
    x, fields = start_and_fields(200, 37, dtype)
    couplings = symmetric(37)
    end, heat, status, _ = run(x, fields, couplings, PHYSICS._replace(kT=kt), 0, steps)
    start, stop = (naive.network_energy(y.astype(float), fields.astype(float), couplings, PHYSICS) for y in (x, end))
    assert not np.any(status)
    np.testing.assert_allclose(heat, stop - start, rtol=0, atol=bound)
    assert np.max(np.abs(heat)) > 100.0


# --- Bit-identical however it is run ---------------------------------------------------------------------------------


@dtypes
def test_same_bits_for_any_threads_and_pieces(dtype, on_threads):
    """Heat alone depends on the cut, to rounding: what pairs still owe at the end of a piece is added on its own."""
    x, fields = start_and_fields(4170, 20, dtype)
    couplings = symmetric(20)
    whole = on_threads(1, run, x, fields, couplings, PHYSICS, 50, 200, [100, 200])
    assert_same(whole, on_threads(2, run, x, fields, couplings, PHYSICS, 50, 200, [100, 200]))
    half = on_threads(2, run, x, fields, couplings, PHYSICS, 50, 100)
    np.testing.assert_array_equal(half[0], whole[3][0])
    other = on_threads(1, run, half[0], fields, couplings, PHYSICS, 150, 100, [100], half)
    np.testing.assert_array_equal(other[0], whole[0])
    np.testing.assert_array_equal(other[2], whole[2])
    np.testing.assert_array_equal(other[3][0], whole[3][1])
    np.testing.assert_allclose(other[1], whole[1], rtol=0, atol=1000 * np.finfo(dtype).eps)


@dtypes
def test_recording_changes_nothing(dtype):
    x, fields = start_and_fields(70, 20, dtype)
    silent = run(x, fields, symmetric(20), PHYSICS, 0, 30)
    assert_same(silent[:3], run(x, fields, symmetric(20), PHYSICS, 0, 30, range(31))[:3])


@dtypes
def test_a_trajectory_does_not_notice_what_runs_beside_it(dtype):
    x, fields = start_and_fields(300, 20, dtype)
    many = run(x, fields, symmetric(20), PHYSICS, 0, 30)
    for count in (1, 64, 65, 130):
        few = run(x[:count], fields[:count], symmetric(20), PHYSICS, 0, 30)
        assert_same(few[:3], [array[:count] for array in many[:3]])


def digest():
    results = hashlib.sha256()
    x, fields = start_and_fields(70, 20, np.float32)
    for array in run(x, fields, symmetric(20), PHYSICS, 0, 30, [7, 30]):
        results.update(array.tobytes())
    return results.hexdigest()


# --- Exact laws ------------------------------------------------------------------------------------------------------


@dtypes
def test_one_step_is_gaussian(dtype):
    physics, count = PHYSICS._replace(dt=0.02), 2**13
    fields = np.tile(np.linspace(-3.0, 3.0, 16), (count, 1)).astype(dtype)
    x = np.full((count, 16), 0.5, dtype)
    end = run(x, fields, np.zeros((16, 16)), physics, 0, 1)[0].astype(float)
    mean = 0.5 - physics.mobility * physics.dt * (physics.J2 + physics.J4 / 2.0 + fields[0])
    z = (end - mean) / np.sqrt(2.0 * physics.mobility * physics.kT * physics.dt)
    assert stats.kstest(z.ravel(), "norm").pvalue > LEAST_P
    assert np.max(np.abs([z_score(column, 0.0) for column in z.T])) < 4
    assert abs(z_score(z**2, 1.0)) < 4


class Diffusion:
    """One unit from x = 0: Fokker-Planck on a grid of cells, with hopping rates in detailed balance, diagonalised."""

    def __init__(self, physics, field, reach=3.5, cells=401):
        self.edges = np.linspace(-reach, reach, cells + 1)
        self.x = (self.edges[1:] + self.edges[:-1]) / 2.0
        energy = physics.J2 * self.x**2 + physics.J4 * self.x**4 + field * self.x
        rate = physics.mobility * physics.kT / (self.edges[1] - self.edges[0]) ** 2
        up, down = (rate * np.exp(s * np.diff(energy) / (2.0 * physics.kT)) for s in (-1.0, 1.0))
        leave = np.append(up, 0.0) + np.append(0.0, down)
        self.values, self.vectors = linalg.eigh_tridiagonal(-leave, np.sqrt(up * down))
        self.weight = np.exp((energy[cells // 2] - energy) / (2.0 * physics.kT))

    def probabilities(self, time):
        start = self.vectors[self.x.size // 2]
        p = self.weight * (self.vectors @ (np.exp(self.values * time) * start))
        assert p.sum() == pytest.approx(1.0, abs=1e-9)
        return p


@dtypes
def test_units_alone_follow_the_law_of_one(dtype):
    """From the first steps to equilibrium; sixteen units of four kinds."""
    physics, count = KernelPhysics(J2=-1.0, J4=0.8, mobility=1.4, kT=0.6, dt=5e-4), 2**12
    kinds, times = [0.0, 0.7, -1.5, 3.0], np.array([0.02, 0.1, 0.4, 1.6])
    fields = np.tile(np.repeat(kinds, 4), (count, 1)).astype(dtype)
    recorded = np.rint(times / physics.dt).astype(int)
    paths = run(np.zeros_like(fields), fields, np.zeros((16, 16)), physics, 0, recorded[-1], recorded)[3]
    for kind, field in enumerate(kinds):
        law = Diffusion(physics, field)
        for time, states in zip(times, paths.astype(float), strict=True):
            x, p = states[:, 4 * kind : 4 * kind + 4].ravel(), law.probabilities(time)
            cumulative = interpolate.make_interp_spline(law.edges, np.append(0.0, np.cumsum(p)), k=1)
            assert stats.kstest(x, cumulative).pvalue > LEAST_P, (field, time)
            for power in (1, 2, 4):
                assert abs(z_score(x**power, p @ law.x**power)) < 4, (field, time, power)


@dtypes
def test_a_network_at_long_times_is_in_equilibrium(dtype):
    """Three units with several wells, five networks side by side; big steps first, small ones to forget their bias."""
    physics = KernelPhysics(J2=0.5, J4=0.7, mobility=2.0, kT=1.2, dt=2e-3)
    couplings = np.array([[0.0, -2.0, 1.5], [-2.0, 0.0, 2.0], [1.5, 2.0, 0.0]])
    b, copies = np.array([0.5, -0.8, 0.3]), 5
    fields, many = np.tile(b, (2**12, copies)).astype(dtype), np.kron(np.eye(copies), couplings)
    x = run(np.zeros_like(fields), fields, many, physics, 0, 4000)[0]
    x = run(x, fields, many, physics._replace(dt=2e-4), 4000, 4000)[0].astype(float).reshape(-1, 3)

    grid = np.linspace(-3.2, 3.2, 81)
    points = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), axis=-1)
    energy = naive.network_energy(points, b, couplings, physics)
    p = np.exp((energy.min() - energy) / physics.kT)
    p /= p.sum()
    for i in range(3):
        marginal = p.sum(axis=tuple(k for k in range(3) if k != i)) / (grid[1] - grid[0])
        assert stats.kstest(x[:, i], interpolate.CubicSpline(grid, marginal).antiderivative()).pvalue > LEAST_P
        for power in (1, 2, 4):
            assert abs(z_score(x[:, i] ** power, np.sum(p * points[..., i] ** power))) < 4
        j = (i + 1) % 3
        assert abs(z_score(x[:, i] * x[:, j], np.sum(p * points[..., i] * points[..., j]))) < 4
    assert abs(z_score(naive.network_energy(x, b, couplings, physics), np.sum(p * energy))) < 4


class Linear:
    """Three units without quartic wells: a Gaussian process from x0."""

    physics = KernelPhysics(J2=1.1, J4=0.0, mobility=1.3, kT=0.7, dt=0.02)
    couplings = np.array([[0.0, 1.2, -0.7], [1.2, 0.0, 0.9], [-0.7, 0.9, 0.0]])
    fields, start = np.array([0.6, -1.0, 0.3]), np.array([1.5, 0.5, -1.0])
    stiffness = 2.0 * physics.J2 * np.eye(3) + couplings

    def recursion(self, dt, steps):
        """Mean and covariance after each step of Euler-Maruyama."""
        mean, covariance = self.start, np.zeros((3, 3))
        step = np.eye(3) - self.physics.mobility * dt * self.stiffness
        yield mean, covariance
        for _ in range(steps):
            mean = step @ mean - self.physics.mobility * dt * self.fields
            covariance = step @ covariance @ step + 2.0 * self.physics.mobility * self.physics.kT * dt * np.eye(3)
            yield mean, covariance

    def moments(self, time):
        """The same of the process in continuous time, by its moment ODE."""

        def velocity(_, y):
            mean, drift = y[:3], self.stiffness @ y[3:].reshape(3, 3)
            growth = 2.0 * self.physics.kT * np.eye(3) - drift - drift.T
            return self.physics.mobility * np.concatenate((-self.stiffness @ mean - self.fields, growth.ravel()))

        start = np.concatenate((self.start, np.zeros(9)))
        y = integrate.solve_ivp(velocity, (0.0, time), start, rtol=1e-11, atol=1e-12).y[:, -1]
        return y[:3], y[3:].reshape(3, 3)

    def run(self, dt, steps, recorded, count, dtype, kt=physics.kT, first=0):
        """Five side by side: (records, 5 count, 3)."""
        physics = self.physics._replace(dt=dt, kT=kt)
        x, fields = (np.tile(row, (count, 5)).astype(dtype) for row in (self.start, self.fields))
        paths = run(x, fields, np.kron(np.eye(5), self.couplings), physics, first, steps, recorded)[3]
        return paths.astype(float).reshape(len(recorded), -1, 3)


def covariance_error(covariance, size):
    """Standard errors of the sample covariance of a Gaussian."""
    variance = covariance.diagonal()
    return np.sqrt((np.outer(variance, variance) + covariance**2) / size)


@dtypes
def test_without_quartic_wells_moments_follow_the_recursion_at_every_step(dtype):
    linear, steps = Linear(), 60
    paths = linear.run(0.02, steps, range(steps + 1), 2**13, dtype)
    np.testing.assert_array_equal(paths[0], np.broadcast_to(linear.start.astype(dtype), paths[0].shape))
    for x, (mean, covariance) in list(zip(paths, linear.recursion(0.02, steps), strict=True))[1:]:
        y = x - mean
        assert np.max(np.abs(y.mean(axis=0) / np.sqrt(covariance.diagonal() / len(y)))) < 4
        assert np.max(np.abs((y.T @ y / len(y) - covariance) / covariance_error(covariance, len(y)))) < 4


def test_without_quartic_wells_moments_near_the_moment_ode_at_first_order():
    """Half the time step, half the distance: twice the finer result less the coarser one has none left to be seen."""
    linear, time = Linear(), 0.6
    mean, covariance = linear.moments(time)
    counts, distances = [15, 30, 60], []
    for steps in counts:
        still = linear.run(time / steps, steps, [steps], 1, np.float64, kt=0.0)[0, 0]
        distances.append(np.linalg.norm(still - mean))
    assert np.polyfit(np.log(counts), np.log(distances), 1)[0] == pytest.approx(-1.0, abs=0.02)

    coarse, fine = (linear.run(time / steps, steps, [steps], 2**16, np.float64, first=steps)[0] for steps in (15, 30))
    error, excess = covariance_error(covariance, len(coarse)), np.cov(coarse.T) - covariance
    assert np.max(excess / error) > 12
    assert np.max(np.abs(2.0 * np.cov(fine.T) - np.cov(coarse.T) - covariance) / (np.sqrt(5.0) * error)) < 4


# --- Blow-up ---------------------------------------------------------------------------------------------------------

UNSTABLE = KernelPhysics(J2=1.0, J4=1.0, mobility=1.0, kT=1.0, dt=0.02)  # beyond |x| = 5


@dtypes
def test_blow_up_is_seen_at_its_step_and_harms_no_other(dtype):
    x, fields = start_and_fields(130, 20, dtype)
    couplings, blown = symmetric(20), [3, 63, 64, 70, 129]
    good = run(x, fields, couplings, UNSTABLE, 100, 40, [40])
    assert not np.any(good[2])
    x[blown, [0, 7, 15, 16, 19]] = 5.2, 6.0, 9.0, 40.0, -7.0
    result = run(x, fields, couplings, UNSTABLE, 100, 40, [40])
    with np.errstate(all="ignore"):
        status = naive.simulate(x, fields, couplings, UNSTABLE, 100, 40, SEED, STREAM, noise=kernel_normals)[2]
    assert np.flatnonzero(result[2]).tolist() == blown
    assert len(set(result[2][blown])) > 2
    np.testing.assert_array_equal(result[2], status)
    others = np.delete(np.arange(130), blown)
    for mine, theirs in zip((result[0], result[1], result[3][0]), (good[0], good[1], good[3][0]), strict=True):
        np.testing.assert_array_equal(mine[others], theirs[others])
    # Whoever goes on finds the first step still there.
    half = run(x, fields, couplings, UNSTABLE, 100, 3)
    np.testing.assert_array_equal(run(half[0], fields, couplings, UNSTABLE, 103, 37, before=half)[2], status)


@dtypes
def test_blow_up_of_couplings_alone_is_seen_within_a_step(dtype):
    """What pairs add to the energy is known one step later."""
    x, fields = start_and_fields(256, 20, dtype)
    couplings, linear = symmetric(20, 300.0), UNSTABLE._replace(J4=0.0)
    late = run(x, fields, couplings, linear, 100, 150)[2]
    with np.errstate(all="ignore"):
        late -= naive.simulate(x, fields, couplings, linear, 100, 150, SEED, STREAM, noise=kernel_normals)[2]
    assert set(late) <= {0, 1}


@dtypes
def test_nan_is_seen_at_the_first_step(dtype):
    for bad in (np.nan, np.inf):
        x, fields = start_and_fields(70, 5, dtype)
        x[66, 2] = bad
        assert np.flatnonzero(run(x, fields, symmetric(5), PHYSICS, 7, 3)[2] == 8).tolist() == [66]
