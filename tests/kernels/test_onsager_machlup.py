"""Action, its gradient and the teacher's sums against plain twins, probabilities, differences, and PyTorch."""

import hashlib

import numpy as np
import pytest
from scipy import stats

import naive
from helpers import LEAST_P, symmetric, z_score
from thermokernels.network import dense, simulate
from thermokernels.onsager_machlup import action_gradient, teach
from thermorun.computer.machine import KernelPhysics

PHYSICS = KernelPhysics(J2=0.8, J4=0.6, mobility=1.3, kT=0.7, dt=0.01)

# Sums over 40 steps, relative to their largest.
dtypes = pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 4e-6), (np.float64, 2e-14)])
# (trajectories, units): whole tiles and groups, parts of them, and more tiles than a kernel has tasks.
sizes = pytest.mark.parametrize(("trajectories", "units"), [(1, 1), (64, 16), (65, 17), (203, 37), (4170, 2)])


def assert_near(mine, theirs, bound):
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=bound * np.max(np.abs(theirs), initial=1e-300))


def wandering(steps, trajectories, units, dtype=np.float64):
    """Paths that obey no equation, and fields."""
    rng = np.random.default_rng(trajectories)
    paths = np.cumsum(rng.normal(0.0, 0.15, (steps + 1, trajectories, units)), axis=0)
    return paths.astype(dtype), rng.normal(size=(trajectories, units)).astype(dtype)


def evaluate(paths, fields, couplings, physics=PHYSICS):
    """The kernel, as the twin: action, residuals and the gradient in the couplings."""
    units = fields.shape[1]
    action, residuals = np.full(len(fields), np.nan), np.full(fields.shape, np.nan, paths.dtype)
    of_couplings = np.full((units, units), np.nan)
    action_gradient(paths, fields, couplings, physics, action, residuals, of_couplings)
    return action, residuals, of_couplings


def learn(targets, steps, physics=PHYSICS):
    """The kernel, as the twin: sums and Gram matrix."""
    units = targets.shape[1]
    sums, gram = np.full(targets.shape, np.nan, targets.dtype), np.full((units, units), np.nan)
    teach(targets, steps, physics, sums, gram)
    return sums, gram


# --- Twins -----------------------------------------------------------------------------------------------------------


@sizes
@dtypes
def test_action_gradient_is_the_twin(trajectories, units, dtype, bound):
    paths, fields = wandering(40, trajectories, units, dtype)
    couplings = symmetric(units)
    twin = naive.action_gradient(paths.astype(float), fields.astype(float), couplings, PHYSICS)
    for mine, theirs in zip(evaluate(paths, fields, couplings), twin, strict=True):
        assert_near(mine, theirs, bound)


@sizes
@dtypes
def test_teach_is_the_twin(trajectories, units, dtype, bound):
    targets = np.random.default_rng(units).normal(0.0, 20.0, (trajectories, units)).astype(dtype)
    for mine, theirs in zip(learn(targets, 40), naive.teach(targets.astype(float), 40, PHYSICS), strict=True):
        assert_near(mine, theirs, bound)


def test_no_steps_are_nothing():
    paths, fields = wandering(0, 70, 5)
    assert not any(np.any(array) for array in evaluate(paths, fields, symmetric(5)))
    assert not any(np.any(array) for array in learn(fields, 0))


# --- Action and gradient are what they say ---------------------------------------------------------------------------


def minus_log_probability(paths, fields, couplings, physics):
    """Of every trajectory, as a product of the Gaussian transitions of Euler-Maruyama, less its constant."""
    old, new = paths[:-1], paths[1:]
    mean = old - physics.mobility * physics.dt * naive.network_gradient(old, fields, couplings, physics)
    width = np.sqrt(2.0 * physics.mobility * physics.kT * physics.dt)
    return -np.sum(stats.norm.logpdf(new, mean, width) - stats.norm.logpdf(0.0, 0.0, width), axis=(0, 2))


def test_action_is_minus_the_logarithm_of_the_probability():
    paths, fields = wandering(40, 70, 5)
    truth = minus_log_probability(paths, fields, symmetric(5), PHYSICS)
    np.testing.assert_allclose(evaluate(paths, fields, symmetric(5))[0], truth, rtol=1e-12)


class Small:
    """A network whose parameters are b (4), W (4, 3) and J (4, 4), and the paths of ten samples of its inputs u."""

    paths, _ = wandering(40, 10, 4)
    u = np.random.default_rng(1).normal(size=(10, 3))
    b = np.random.default_rng(2).normal(size=4)
    w = np.random.default_rng(3).normal(size=(4, 3))
    j = symmetric(4)

    def gradient(self):
        _, residuals, of_couplings = evaluate(self.paths, self.b + self.u @ self.w.T, self.j)
        return residuals.sum(axis=0), residuals.T @ self.u, of_couplings


def test_gradient_is_the_difference_of_probabilities():
    """By every b_i, W_ik and J_ij.  The action is quadratic in them: no step of a difference is too long."""
    small = Small()

    def total(b=0.0, w=0.0, j=0.0):
        fields = small.b + b + small.u @ (small.w + w).T
        return np.sum(minus_log_probability(small.paths, fields, small.j + j, PHYSICS))

    def difference(**moved):
        return (total(**moved) - total(**{name: -step for name, step in moved.items()})) / 2.0

    one = np.eye(4)
    db, dw, dj = small.gradient()
    np.testing.assert_allclose(db, [difference(b=one[i]) for i in range(4)], rtol=1e-6)
    for i in range(4):
        for k in range(3):
            assert dw[i, k] == pytest.approx(difference(w=np.outer(one[i], np.eye(3)[k])), rel=1e-6)
        for j in range(i):
            assert dj[i, j] == pytest.approx(
                difference(j=np.outer(one[i], one[j]) + np.outer(one[j], one[i])), rel=1e-6
            )
    np.testing.assert_array_equal(dj, dj.T)
    assert not np.any(dj.diagonal())


def test_gradient_is_that_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch's autograd is the other side of this comparison")
    small = Small()
    b, w, j = (torch.tensor(array, requires_grad=True) for array in (small.b, small.w, np.tril(small.j, -1)))
    old, new, u = torch.tensor(small.paths[:-1]), torch.tensor(small.paths[1:]), torch.tensor(small.u)
    gradient = 2 * PHYSICS.J2 * old + 4 * PHYSICS.J4 * old**3 + b + u @ w.T + old @ (j + j.T)
    pull = PHYSICS.mobility * PHYSICS.dt
    action = (new - old + pull * gradient) ** 2 / (4 * pull * PHYSICS.kT)
    action.sum().backward()
    for mine, theirs in zip(small.gradient(), (b.grad, w.grad, j.grad.tril(-1) + j.grad.tril(-1).T), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-11, atol=1e-11)


# --- Idealised trajectories ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 2e-5), (np.float64, 1e-12)])
def test_sums_of_the_teacher_are_action_and_gradient_of_its_trajectories(dtype, bound):
    """Along them the residual is r = mu dt (a + h + J x) / (2 kT), whatever the wells."""
    steps, units = 50, 20
    rng = np.random.default_rng(5)
    targets = rng.normal(0.0, 20.0, (130, units)).astype(dtype)
    fields, couplings = rng.normal(0.0, 10.0, (130, units)).astype(dtype), symmetric(units, 5.0)
    sums, gram = learn(targets, steps)
    targets, fields = targets.astype(float), fields.astype(float)
    action, residuals, of_couplings = evaluate(naive.ideal_paths(targets, steps, PHYSICS), fields, couplings)

    y, scale = targets + fields, PHYSICS.mobility * PHYSICS.dt / (2.0 * PHYSICS.kT)
    assert_near(residuals, scale * (steps * y + sums @ couplings), bound)
    half = scale * (y.T @ sums + couplings @ gram)
    expected = half + half.T
    np.fill_diagonal(expected, 0.0)
    assert_near(of_couplings, expected, bound)
    total = steps * np.sum(y**2) + 2.0 * np.sum(y * (sums @ couplings)) + np.trace(couplings @ gram @ couplings)
    assert np.sum(action) == pytest.approx(scale / 2.0 * total, rel=bound)


# --- Noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_at_the_true_parameters_the_residual_is_the_noise(dtype):
    """2 kT r = sqrt(2 mu kT dt) z: sums over time are normal, twice the action is chi-square, and the mean gradient is
    zero.  dt is large for the precision of the residual in float32."""
    physics, (steps, trajectories, units) = PHYSICS._replace(dt=0.03), (40, 2**12, 5)
    rng = np.random.default_rng(9)
    x, fields = (rng.normal(size=(trajectories, units)).astype(dtype) for _ in range(2))
    paths, couplings = np.empty((steps + 1, trajectories, units), dtype), symmetric(units)
    simulate(
        x, np.zeros(trajectories), np.zeros(trajectories, np.int64), fields, dense(couplings), physics,
        (0, steps), (np.uint64(3), np.uint64(4)), np.arange(steps + 1), paths,
    )  # fmt: skip
    action, residuals, _ = evaluate(paths, fields, couplings, physics)
    width = np.sqrt(steps * physics.mobility * physics.dt / (2.0 * physics.kT))
    for i in range(units):
        r = residuals[:, i].astype(float) / width
        assert stats.kstest(r, "norm").pvalue > LEAST_P
        assert abs(z_score(r, 0.0)) < 4
        assert abs(z_score(r**2, 1.0)) < 4
    assert abs(z_score(action, steps * units / 2.0)) < 4
    assert stats.kstest(2.0 * action, stats.chi2(steps * units).cdf).pvalue > LEAST_P
    parts = [
        evaluate(paths[:, p : p + 64].copy(), fields[p : p + 64], couplings, physics)[2] for p in range(0, 2**12, 64)
    ]
    for i, j in zip(*np.tril_indices(units, -1), strict=True):
        assert abs(z_score([part[i, j] for part in parts], 0.0)) < 4


# --- Bit-identical however it is run ---------------------------------------------------------------------------------


def results(dtype, trajectories=4170, units=20):
    paths, fields = wandering(20, trajectories, units, dtype)
    return *evaluate(paths, fields, symmetric(units)), *learn(fields, 40)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_for_any_threads(dtype, on_threads):
    for mine, theirs in zip(on_threads(1, results, dtype), on_threads(2, results, dtype), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_trajectory_does_not_notice_what_runs_beside_it(dtype):
    paths, fields = wandering(20, 300, 20, dtype)
    action, residuals, _ = evaluate(paths, fields, symmetric(20))
    sums, _ = learn(fields, 40)
    for count in (1, 64, 65, 130):
        few = evaluate(paths[:, :count].copy(), fields[:count], symmetric(20))
        np.testing.assert_array_equal(few[0], action[:count])
        np.testing.assert_array_equal(few[1], residuals[:count])
        np.testing.assert_array_equal(learn(fields[:count], 40)[0], sums[:count])


def digest():
    """For the test of what is compiled and loaded in test_network."""
    sha = hashlib.sha256()
    for array in results(np.float32, 70):
        sha.update(array.tobytes())
    return sha.hexdigest()
