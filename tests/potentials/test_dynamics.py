"""Dynamics of any potential: kernels against plain twins, orders of integrators against exact laws, bad input."""

import numpy as np
import pytest

import naive
from helpers import kernel_normals, z_score
from thermokernels.langevin import INTEGRATORS, RECORD_COLUMNS
from thermokernels.random import BLOCK
from thermorun.errors import InputError, RunError
from thermorun.potentials import Driven, Potential, System, load, midpoints, quadrature
from thermorun.streams import Noise, Streams

SEED, STREAM = 2**63 + 11, 2**40
# A point of each potential away from symmetry, so that no element of a matrix vanishes by chance.
POINTS = {"double-well": (1.2, 0.4), "gaussian": (0.3, -0.4, 2.0, 0.6, 1.5)}
KEY = (np.uint64(1), np.uint64(0))


def at_rest(name):
    potential = load(name)
    return quadrature.equilibrium(potential.energies, potential.gradients, POINTS[name])


# --- Kernels against plain twins --------------------------------------------------------------------------------------


def double_well_twin():
    return (
        lambda x, theta: (theta[0] * (x**2 - 1) ** 2 + theta[1] * x)[0],
        lambda x, theta: -4 * theta[0] * x * (x**2 - 1) - theta[1],
        lambda x, theta: np.stack([(x[0] ** 2 - 1) ** 2, x[0]]),
    )


def gaussian_twin():
    def parts(x, theta):
        return x - np.array(theta[:2])[:, None], np.array([[theta[2], theta[3]], [theta[3], theta[4]]])

    def energy(x, theta):
        away, precision = parts(x, theta)
        return 0.5 * np.sum(away * (precision @ away), axis=0)

    def force(x, theta):
        away, precision = parts(x, theta)
        return -precision @ away

    def gradient(x, theta):
        away, precision = parts(x, theta)
        return np.stack([*(-precision @ away), 0.5 * away[0] ** 2, away[0] * away[1], 0.5 * away[1] ** 2])

    return energy, force, gradient


TWINS = {"double-well": double_well_twin(), "gaussian": gaussian_twin()}
CASES = [
    ("double-well", "leimkuhler-matthews"),
    ("double-well", "heun"),
    ("gaussian", "leimkuhler-matthews"),
    ("gaussian", "exact"),
]
cases = pytest.mark.parametrize(("name", "integrator"), CASES)


def bound_of(integrator):
    """Two normals are averaged in their own, single precision."""
    return 2e-7 if integrator == "leimkuhler-matthews" else 1e-12


def prepared(name, integrator, particles, replicas, steps=9, dtype=np.float64):
    """An ensemble out of equilibrium, a path that jumps, and the coefficients of uneven steps along it."""
    potential, rng = load(name), np.random.default_rng(3)
    x = rng.normal(size=(replicas, potential.dimension, particles)).astype(dtype)
    path = np.array(POINTS[name]) * rng.uniform(0.8, 1.2, (replicas, steps + 1, len(POINTS[name])))
    times = rng.uniform(0.01, 0.05, steps)
    times[steps // 2] = 0.0
    return potential, x, path, times


def tables(potential, integrator, times, path):
    """One a replica."""
    return [System(potential, 1.3, 0.9).coefficients(integrator, times, thetas[1:]) for thetas in path]


@cases
@pytest.mark.parametrize(("particles", "replicas"), [(1, 1), (2500, 3)])
def test_drive_is_the_twin(name, integrator, particles, replicas):
    potential, x, path, times = prepared(name, integrator, particles, replicas)
    nothing, noise = np.zeros((replicas, particles)), Noise(Streams(), Streams(SEED, STREAM, 2**20))
    start = Driven(x, nothing, nothing, np.array([], np.intp), {}, 4)
    driven = System(potential, 1.3, 0.9).drive(start, path, dt=times, integrator=integrator, seed=noise, rows=range(9))
    assert driven.steps == 13
    for r, table in enumerate(tables(potential, integrator, times, path)):
        stream = STREAM + r * potential.dimension
        arguments = (integrator, TWINS[name], x[r], 4, table, path[r], SEED, stream)
        twin_x, work, heat, sums = naive.drive_any(*arguments, noise=kernel_normals)
        bound = bound_of(integrator)
        np.testing.assert_allclose(driven.x[r], twin_x, atol=bound)
        np.testing.assert_allclose(driven.work[r], work, atol=10 * bound)
        np.testing.assert_allclose(driven.heat[r], heat, atol=10 * bound)
        np.testing.assert_allclose(driven.record["gradient"][:, r].sum(axis=0), sums.mean(axis=1), atol=10 * bound)
        np.testing.assert_allclose(driven.record["work"][-1, r], driven.work[r].mean(), atol=1e-12)
        np.testing.assert_allclose(driven.record["work_square"][-1, r], (driven.work[r] ** 2).mean(), atol=1e-11)
        np.testing.assert_allclose(driven.record["heat"][-1, r], driven.heat[r].mean(), atol=1e-12)
        precise, *_ = naive.drive_any(*arguments)
        np.testing.assert_allclose(driven.x[r], precise, atol=6e-6)


@pytest.mark.parametrize(("name", "integrator"), [CASES[0], CASES[3]])
def test_step_and_dwell_are_the_twin(name, integrator):
    potential, x, path, times = prepared(name, integrator, 2500, 2, steps=3)
    p, count = path.shape[2], 2
    kernels, status = potential.kernels(integrator), np.full((2, 3), -1)
    table = np.stack(tables(potential, integrator, times, path))
    moved, sums = x.copy(), np.full((2, 3, count + p), np.nan)
    totals = np.zeros((2, count + p))
    for n in range(3):
        row, jump = table[:, n : n + 1].copy(), path[:, [n, n + 1, n + 1]].copy()
        kernels.step(moved, n, row, jump, (np.uint64(SEED), np.uint64(STREAM)), sums, status)
        totals += sums.sum(axis=1)
    stayed, gradients = x.copy(), np.ones((2, p, 2500))
    still = np.repeat(path[:, :1], 4, axis=1)
    table_of_rest = np.stack(tables(potential, integrator, times, still))
    kernels.dwell(
        stayed, 5, table_of_rest, still[:, :1].copy(), (np.uint64(SEED), np.uint64(STREAM)), gradients, status
    )
    for r in range(2):
        rest = (SEED, STREAM + r * potential.dimension, kernel_normals)
        twin_x, work, heat, sums_of_gradient = naive.drive_any(
            integrator, TWINS[name], x[r], 0, table[r], path[r], *rest
        )
        bound = bound_of(integrator)
        np.testing.assert_allclose(moved[r], twin_x, atol=bound)
        expected = [work.sum(), heat.sum(), *sums_of_gradient.sum(axis=1)]
        np.testing.assert_allclose(totals[r], expected, atol=2500 * bound)
        twin_x, _, _, sums_of_gradient = naive.drive_any(
            integrator, TWINS[name], x[r], 5, table_of_rest[r], still[r], *rest
        )
        np.testing.assert_allclose(stayed[r], twin_x, atol=bound)
        np.testing.assert_allclose(gradients[r], 1 + sums_of_gradient, atol=10 * bound)
    assert np.all(status == -1)


@pytest.mark.parametrize("name", TWINS)
def test_evaluate_is_the_twin(name):
    potential = load(name)
    x = np.random.default_rng(4).normal(size=(1500, potential.dimension))
    for values, twin in zip(potential.evaluate(x, POINTS[name]), TWINS[name], strict=True):
        np.testing.assert_allclose(values.T.squeeze(), twin(x.T, POINTS[name]).squeeze(), atol=1e-13)


def test_single_precision_rounds_x_and_nothing_else():
    potential, x, path, times = prepared("double-well", "heun", 2500, 1, dtype=np.float32)
    driven = System(potential).drive(x, path, dt=times)
    wide = System(potential).drive(x.astype(float), path, dt=times)
    assert driven.x.dtype == np.float32
    np.testing.assert_allclose(driven.x, wide.x, atol=3e-6)
    change = potential.energies(driven.x[0, 0], path[0, -1]) - potential.energies(x[0, 0], path[0, 0])
    np.testing.assert_allclose(driven.work[0] + driven.heat[0], change, atol=1e-12)


@cases
def test_threads_and_chunks_change_no_bit(name, integrator, on_threads):
    potential, x, path, times = prepared(name, integrator, 70_001, 2)
    system, options = System(potential, 1.3), {"integrator": integrator, "seed": SEED}
    whole = on_threads(1, lambda: system.drive(x, path, dt=times, **options))
    for cut in (1, 4):
        part = system.drive(x, path[:, : cut + 1], dt=times[:cut], **options)
        part = system.drive(part, path[:, cut:], dt=times[cut:], **options)
        for array in ("x", "work", "heat"):
            np.testing.assert_array_equal(getattr(part, array), getattr(whole, array))


# --- Orders -----------------------------------------------------------------------------------------------------------


def fitted_order(steps, errors):
    return np.polyfit(np.log(steps), np.log(np.abs(errors)), 1)[0]


@pytest.mark.parametrize(
    ("integrator", "order", "name", "steps", "duration"),
    [
        pytest.param("euler-maruyama", 1, "double-well", (0.015, 0.010, 0.007), 100, marks=pytest.mark.slow),
        ("heun", 2, "double-well", (0.060, 0.045, 0.030), 100),
    ],
)
def test_order_of_the_sampled_law(integrator, order, name, steps, duration):
    """The mean of dE/dtheta in a long run, against quadrature."""
    potential, truth, particles = load(name), at_rest(name), 2**15
    kernels, theta, errors = potential.kernels(integrator), np.array([[POINTS[name]]]), []
    for dt in steps:
        x = System(potential).equilibrium(POINTS[name], particles, seed=1)
        sums, status = np.zeros((1, theta.size, particles)), np.full((1, particles // BLOCK), -1)
        rows = System(potential).coefficients(integrator, np.full(int(duration / dt), dt))[None]
        kernels.dwell(x, 0, rows[:, : int(5 / dt)].copy(), theta, KEY, sums, status)
        sums[:] = 0
        kernels.dwell(x, rows.shape[1], rows, theta, KEY, sums, status)
        means = sums[0, 0] / rows.shape[1]
        errors.append(means.mean() - truth.mean_gradient[0])
        assert abs(errors[-1]) > 8 * means.std() / np.sqrt(particles)  # the fit is of the bias, not of noise
    assert abs(fitted_order(steps, errors) - order) < 0.3


def leimkuhler_matthews_mean(force, observable, dt):
    """The stationary mean that the scheme itself has, by quadrature.

    y_n = x_n - kick z_n / 2 is a Markov chain, y' = y + kick z + pull f(y + kick z / 2).  Its transition operator acts
    on polynomials through Chebyshev points; enough powers of it leave the mean.
    """
    kick, edge, count = np.sqrt(2 * dt), 3.2, 160
    z, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    nodes = edge * np.cos(np.pi * (np.arange(count) + 0.5) / count)
    x = nodes[:, None] + 0.5 * kick * z
    landed = np.clip(x + 0.5 * kick * z + dt * force(x), -edge, edge)
    degrees = np.arange(count)
    values = np.cos(degrees * np.arccos(nodes / edge)[:, None])
    step = np.einsum("nqk,q->nk", np.cos(degrees * np.arccos(landed / edge)[..., None]), weights)
    operator = np.linalg.matrix_power(step @ np.linalg.inv(values), int(60 / dt))
    return (operator @ (observable(x) @ weights))[count // 2]


def test_leimkuhler_matthews_is_of_second_order():
    """Noise hides its error where the order shows, so small is it.

    So the order comes from quadrature of the scheme, and the kernel must have the scheme's law where it can be seen.
    """
    potential, truth, theta = load("double-well"), at_rest("double-well"), POINTS["double-well"]
    _, force, gradient = (lambda x, part=part: part(x[None], theta)[0] for part in TWINS["double-well"])
    steps = np.array([0.012, 0.008, 0.005])
    errors = [leimkuhler_matthews_mean(force, gradient, dt) - truth.mean_gradient[0] for dt in steps]
    assert abs(fitted_order(steps, errors) - 2) < 0.3
    particles, dt, kernels = 2**15, 0.05, potential.kernels("leimkuhler-matthews")
    x = System(potential).equilibrium(theta, particles, seed=1)
    sums, status = np.zeros((1, 2, particles)), np.full((1, particles // BLOCK), -1)
    rows = System(potential).coefficients("leimkuhler-matthews", np.full(8000, dt))[None]
    kernels.dwell(x, 0, rows[:, :200].copy(), np.array([[theta]]), KEY, sums, status)
    sums[:] = 0
    kernels.dwell(x, 200, rows, np.array([[theta]]), KEY, sums, status)
    means = sums[0, 0] / rows.shape[1]
    assert abs(z_score(means, leimkuhler_matthews_mean(force, gradient, dt))) < 4
    assert abs(z_score(means, truth.mean_gradient[0])) > 8


@pytest.mark.parametrize(
    ("integrator", "order"),
    [
        pytest.param("euler-maruyama", 1, marks=pytest.mark.slow),
        pytest.param("heun", 2, marks=pytest.mark.slow),
        ("exact", None),
    ],
)
def test_order_at_a_finite_time(integrator, order):
    """<x^2> of an Ornstein-Uhlenbeck process on its way to equilibrium."""
    potential, particles, tau, seeds = load("stiffness"), 2**20, 1.6, 16
    truth = np.exp(-2 * tau) * 100 - np.expm1(-2 * tau)
    counts, errors = np.array([8, 12, 16]) * (2 if order == 1 else 1), []
    for count in counts:
        x, path = np.full((1, 1, particles), 10.0), np.ones((count + 1, 1))
        squares = [
            System(potential).drive(x, path, dt=tau / count, integrator=integrator, seed=seed).x ** 2
            for seed in range(seeds)
        ]
        errors.append(np.mean(squares) - truth)
        noise = np.std(squares) / np.sqrt(seeds * particles)
        assert abs(errors[-1]) < 4 * noise if order is None else abs(errors[-1]) > 8 * noise
    if order is not None:
        assert abs(fitted_order(1 / counts, errors) - order) < 0.3


def test_midpoints_give_the_work_of_a_moved_trap():
    """Excess work of the straight line from equilibrium (Hnybida & Verret 2025, Eq. 64)."""
    potential, tau, steps = load("trap"), 2.0, 20
    path, times = midpoints(np.linspace([0.0], [1.0], steps + 1), tau / steps)
    x = System(potential).equilibrium((0.0,), 2**18, seed=2)
    driven = System(potential).drive(x, path, dt=times, integrator="exact", seed=2)
    speed = 1 / tau
    assert abs(z_score(driven.work, speed**2 * tau + speed**2 * np.expm1(-tau))) < 4


# --- Bad input, and particles that diverge ---------------------------------------------------------------------------


def test_bad_points():
    well, gauss = System("double-well"), System("gaussian")
    with pytest.raises(InputError, match=r"path leaves the valid region of double-well: barrier is -0\.5; it must be"):
        well.drive(np.zeros((1, 1, 8)), [[1.0, 0.0], [-0.5, 0.0]], dt=0.1)
    with pytest.raises(InputError, match=r"theta has 1 values; double-well has 2 parameters, barrier, tilt\."):
        well.equilibrium((1.0,), 10)
    with pytest.raises(InputError, match="the precision has an eigenvalue of -1; all must be positive"):
        gauss.equilibrium((0, 0, 1, 2, 1), 10)
    with pytest.raises(InputError, match="theta holds numbers that are not finite"):
        well.equilibrium((1.0, np.nan), 10)
    with pytest.raises(InputError, match="integrator is 'exact', but double-well is not quadratic"):
        well.drive(np.zeros((1, 1, 8)), np.ones((3, 2)), dt=0.1, integrator="exact")
    with pytest.raises(InputError, match="integrator is 'best'; it must be one of euler-maruyama"):
        well.drive(np.zeros((1, 1, 8)), np.ones((3, 2)), dt=0.1, integrator="best")
    with pytest.raises(InputError, match=r"start has dtype int64 and shape \(1, 1, 8\); it must be floating-point"):
        well.drive(np.zeros((1, 1, 8), int), np.ones((3, 2)), dt=0.1)
    still = np.zeros((1, 1, 8))
    for start, path, dt, sentence in (
        (still.astype(np.float16), np.ones((3, 2)), 0.1, r"start has dtype float16 and shape \(1, 1, 8\); it must be"),
        (still[..., :0], np.ones((3, 2)), 0.1, r"start has dtype float64 and shape \(1, 1, 0\); it must be"),
        (still * np.nan, np.ones((3, 2)), 0.1, "start holds positions that are not finite"),
        (still, np.ones(2), 0.1, r"path has shape \(2,\); it must be \(steps \+ 1, 2\), or that for each replica"),
        (still, np.ones((2, 3, 2)), 0.1, r"path has shape \(2, 3, 2\); it must be \(3, 2\), or that for each of 1 rep"),
        (still, np.ones((3, 2)), -0.1, r"dt is -0\.1; it must be a finite number of at least 0"),
        (still, np.ones((3, 2)), np.nan, "dt is nan; it must be"),
        (still, np.ones((3, 2)), np.ones(3), r"dt has shape \(3,\); it must be a number, or one for each of 2 steps"),
    ):
        with pytest.raises(InputError, match=sentence):
            well.drive(start, path, dt=dt)
    with pytest.raises(InputError, match=r"theta has shape \(3, 2\); it must be \(2,\), or that for each of 2 rep"):
        well.equilibrium(np.ones((3, 2)), 8, replicas=2)
    trap = System("trap")
    assert np.array_equal(trap.equilibrium(0.5, 8), trap.equilibrium((0.5,), 8))
    for field, sentence in (("beta", "beta is 0; it must be a positive"), ("mobility", "mobility is -1; it must be a")):
        with pytest.raises(InputError, match=sentence):
            System("trap", **{field: 0 if field == "beta" else -1})
    with pytest.raises(InputError, match=r"path is 'up'; it must hold numbers\."):
        well.drive(np.zeros((1, 1, 8)), "up", dt=0.1)
    with pytest.raises(InputError, match=r"potential is 7; it must be a name, FILE\.py:NAME, or a Potential\."):
        System(7)


def test_a_lost_particle_is_named():
    system, x = System("double-well"), np.zeros((2, 1, 3000))
    x[1, 0, 2500] = 50.0
    with pytest.raises(RunError, match=r"particle 2500 of replica 1 in double-well diverged at step 1;"):
        system.drive(x, np.ones((30, 2)), dt=0.02)


def test_names():
    assert INTEGRATORS == ("euler-maruyama", "leimkuhler-matthews", "heun", "exact")
    assert RECORD_COLUMNS == ("work", "work_square", "heat")


@pytest.mark.parametrize("corner", [0.0, 0.5])
def test_a_corner_has_a_time_step(corner):
    """E = k |x - c| has no curvature; its time is that of diffusion over kT / k, 1 / (mu beta k^2)."""
    system = System(
        Potential("v", lambda x, t: t[0] * abs(x - t[1]), parameters=("k", "c"), theta=(1.0, 0.0)), 2.0, 3.0
    )
    for k in (0.5, 4.0):
        time = 1 / (3.0 * 2.0 * k**2)
        assert 0.01 * time < system.time_step((k, corner)) < 0.3 * time
