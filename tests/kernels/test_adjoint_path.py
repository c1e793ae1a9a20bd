"""Gradients of means over driven ensembles by their paths: against plain twins, differences and another library."""

import math

import numpy as np
import pytest
from numba import njit

import naive
from helpers import kernel_normals
from thermokernels import adjoint_path
from thermorun.errors import InputError, RunError
from thermorun.potentials import Periodic, Potential, System, dynamics, gradients
from thermorun.streams import Noise

SEED = 5
PARTICLES = 1500  # a whole block and a part of one


def objective(x, work):
    return math.exp(-work) + 0.3 * x * x + 0.1 * work


def objective_2(x, work):
    return math.exp(-work) + 0.3 * x[0] * x[1] + 0.1 * work


# Points away from symmetry; energy, force and dE/dtheta of arrays; and the matrices of second derivatives.
POINTS = {"double-well": (1.2, 0.4), "gaussian": (0.3, -0.4, 2.0, 0.6, 1.5)}


def away(x, theta):
    return x - np.array(theta[:2])[:, None], np.array([[theta[2], theta[3]], [theta[3], theta[4]]])


def gaussian_gradient(x, theta):
    apart, precision = away(x, theta)
    return np.stack([*(-precision @ apart), 0.5 * apart[0] ** 2, apart[0] * apart[1], 0.5 * apart[1] ** 2])


TWINS = {
    "double-well": (
        lambda x, theta: (theta[0] * (x**2 - 1) ** 2 + theta[1] * x)[0],
        lambda x, theta: -4 * theta[0] * x * (x**2 - 1) - theta[1],
        lambda x, theta: np.stack([(x[0] ** 2 - 1) ** 2, x[0]]),
    ),
    "gaussian": (
        lambda x, theta: 0.5 * np.sum(away(x, theta)[0] * (away(x, theta)[1] @ away(x, theta)[0]), axis=0),
        lambda x, theta: -away(x, theta)[1] @ away(x, theta)[0],
        gaussian_gradient,
    ),
}
SECOND = {
    "double-well": (
        lambda x, theta: (theta[0] * (12 * x**2 - 4))[None],
        lambda x, theta: np.stack([4 * x * (x**2 - 1), np.ones_like(x)]),
    ),
    "gaussian": (
        lambda x, theta: np.repeat(np.array([[theta[2], theta[3]], [theta[3], theta[4]]])[..., None], x.shape[1], 2),
        None,  # an exact step has it in its coefficients
    ),
}


def whole(x, work):
    """The mean of exp(-work) + 0.3 times the product of all x, and its derivatives."""
    product = 0.3 * (x[0] ** 2 if len(x) == 1 else x[0] * x[1])
    slope = 0.3 * (2 * x if len(x) == 1 else x[::-1])
    return np.mean(np.exp(-work) + product), slope / work.size, -np.exp(-work) / work.size


def path_of(name, steps, spread=0.2):
    rng = np.random.default_rng(3)
    return np.array(POINTS[name]) * rng.uniform(1 - spread, 1 + spread, (steps + 1, len(POINTS[name])))


@pytest.mark.parametrize(("name", "integrator"), [("double-well", "heun"), ("gaussian", "exact")])
def test_kernels_are_the_twin(name, integrator, on_threads):
    """A path that jumps at every step, uneven steps; and the same bits on one thread and on two."""
    system, path = System(name), path_of(name, 10)
    d, p, steps = system.potential.dimension, path.shape[1], 10
    x = np.random.default_rng(1).normal(size=(1, d, PARTICLES))
    times = np.append(np.linspace(0.01, 0.05, steps - 1), 0.0)
    table = dynamics.coefficients(system, integrator, times, path[None, 1:]).reshape(1, steps, -1)
    noise = Noise.of(SEED).dynamics.take(d)
    forward, backward = gradients.kernels(system.potential, integrator)
    more = table.shape[-1] if integrator == "exact" else 0

    def both():
        end, work, kept = x.copy(), np.zeros((1, PARTICLES)), np.empty((4, d, PARTICLES))
        status = dynamics.new_status(1, PARTICLES)
        forward(end, work, 0, table, path[None], noise, kept, status)
        value, slope, weight = whole(end[0], work[0])
        slope, sums = slope[None].copy(), np.empty((adjoint_path.TASKS, steps + 1, p + more))
        backward(kept, slope, weight[None].copy(), 0, table, path[None], noise, sums)
        return value, sums.sum(axis=0), slope[0], end, work

    one, two = on_threads(1, both), on_threads(2, both)
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)
    seed, stream = (int(number) for number in noise)
    value, by_theta, by_table, by_start = naive.path_gradient(
        integrator, TWINS[name], SECOND[name], x[0], table[0], path, seed, stream, whole, kernel_normals
    )
    assert one[0] == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(one[1][:, :p], by_theta, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(one[2], by_start, rtol=1e-10, atol=1e-16)
    if more:
        np.testing.assert_allclose(one[1][1:, p:], by_table, rtol=1e-11, atol=1e-13)


def differences(system, x, path, integrator, direction, function, dt=0.02):
    """The derivative along a direction, by differences of fourth order of what `drive` gives."""

    def value(step):
        driven = system.drive(x, path + step * direction, dt=dt, integrator=integrator, seed=SEED)
        points = driven.x[0, 0] if len(driven.x[0]) == 1 else driven.x[0].T
        return math.fsum(map(function, points.tolist(), driven.work[0].tolist())) / x.shape[2]

    h = 1e-4
    return (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)


def check(system, path, integrator, function, x=None):
    """Every theta of the path at once, in two random directions; the bar is a millionth."""
    x = system.equilibrium(path[0], PARTICLES, seed=3) if x is None else x
    found = system.path_gradient(x, path, function, dt=0.02, integrator=integrator, seed=SEED)
    for seed in range(2):
        direction = np.random.default_rng(seed).normal(size=path.shape)
        wanted = differences(system, x, path, integrator, direction, function)
        assert np.sum(direction * found.by_path) == pytest.approx(wanted, rel=1e-6)
    return found


def test_differences_agree():
    """With the energies' own derivatives, and those of exact steps, which go through their coefficients."""
    check(System("double-well"), path_of("double-well", 12), "heun", objective)
    check(System("gaussian", beta=2.0, mobility=0.5), path_of("gaussian", 12, 0.05), "exact", objective_2)


def test_how_stiff_an_ensemble_found_it():
    """By the largest curvature 4 b (3 x^2 - 1) of the first 256 particles where they start; not at all if exact."""
    system = System("double-well", mobility=0.5)
    x = system.equilibrium((3.0, 0.0), PARTICLES, seed=3)
    found = system.path_gradient(x, [[3.0, 0.0], [5.0, 0.2]], objective, dt=0.02, seed=SEED)
    curvature = np.max(np.abs(20 * (3 * x[0, 0, :256] ** 2 - 1)))
    assert found.stiffest == pytest.approx(0.02 * 0.5 * curvature, rel=1e-6)
    path = path_of("gaussian", 12, 0.05)
    x = System("gaussian").equilibrium(path[0], 1024, seed=3)
    assert System("gaussian").path_gradient(x, path, objective_2, dt=0.02, integrator="exact", seed=SEED).stiffest == 0


@njit
def scaled(x, theta):
    return theta[0] * x[0]


def ramp(x, theta):
    """An energy given alone, with a function of its own that is handed all of x."""
    total = 0.0
    for k in range(2):
        total += 0.5 * theta[1] * math.cos(x[1] + 0.3 * k)
    return total * x[0] + scaled(x, theta) * x[0]


def around(x, work):
    return math.exp(-work) + 0.3 * x[0] * math.cos(x[1])


@pytest.mark.slow
def test_walls_periods_and_energies_alone():
    """Particles hit the wall in many steps; mirrored steps have adjoints too."""
    mine = Potential(
        "ramp", ramp, parameters=("stiffness", "slope"), theta=(1.0, 1.0), dimension=2,
        domain=((0.0, math.inf), Periodic(-math.pi, math.pi)),
    )  # fmt: skip
    x = np.random.default_rng(2).uniform(0, 1, (1, 2, PARTICLES))
    found = check(System(mine), np.linspace((1.0, 1.0), (1.6, 0.7), 13), "euler-maruyama", around, x)
    assert np.all(found.x[0] >= 0)
    assert np.mean(found.x[0] < 0.1) > 0.1


def test_antithetic_pairs_mirror_the_noise():
    """Where energies are even, both of a pair do the same work, and the gradient is that of one of them."""
    system, path = System("gaussian"), np.linspace((0, 0, 2.0, 0.6, 1.5), (0, 0, 3.0, 0.3, 1.2), 9)
    x = system.equilibrium(path[0], 4096, seed=1)
    x[..., 2048:] = -x[..., :2048]
    noise = Noise.of(2)
    end, work = gradients.ends(system, x, path, 0.1, "exact", noise, mirrored=True)
    np.testing.assert_array_equal(end[..., 2048:], -end[..., :2048])
    np.testing.assert_array_equal(work[..., 2048:], work[..., :2048])
    plain = gradients.path_gradient(system, x[..., :2048], path, 0.1, "exact", noise, whole)
    pairs = gradients.path_gradient(system, x, path, 0.1, "exact", noise, whole, mirrored=True)
    shapes = slice(2, None)  # means move both of a pair the same way: their noise cancels
    np.testing.assert_allclose(pairs.by_path[:, shapes], plain.by_path[:, shapes], rtol=1e-10, atol=1e-13)
    assert np.max(np.abs(pairs.by_path[:, :2])) < 1e-12
    assert np.max(np.abs(plain.by_path[:, :2])) > 1e-6


def test_no_particle_remembers_its_path():
    """What is kept of n steps is the square root of n states."""
    system, kept, path = System("gaussian"), {}, np.array([POINTS["gaussian"]])
    for steps in (16, 400):
        long = np.repeat(path, steps + 1, axis=0)
        trip = gradients._Trip(system, np.zeros((1, 2, 8)), long, 0.01, "exact", Noise.of(1), False)
        trip.forward()
        kept[steps] = len(trip.kept[0])
    assert kept == {16: 4, 400: 20}


PAIR = [POINTS["gaussian"]] * 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"integrator": "leimkuhler-matthews"}, "integrator is 'leimkuhler-matthews'; it must be one of"),
        ({"path": [[1.0, 2.0], [1.0, 2.0]]}, "path has 2 values; gaussian has 5 parameters"),
        ({"start": np.zeros((1, 1, 8))}, r"start has shape \(1, 1, 8\)"),
        ({"objective": lambda x, work: np.interp(work, [0, 1], [0, 1])}, "objective cannot be differentiated"),
        ({"objective": lambda work: work}, "objective has 1 arguments; it must have two, x and work"),
    ],
)
def test_bad_input(change, sentence):
    given = {"start": np.zeros((1, 2, 8)), "path": PAIR, "objective": objective_2, "dt": 0.1} | change
    given = {"integrator": "exact"} | given
    start, path, function = (given.pop(name) for name in ("start", "path", "objective"))
    with pytest.raises(InputError, match=sentence):
        System("gaussian").path_gradient(start, path, function, **given)


def test_objectives_that_are_not_finite():
    with pytest.raises(RunError, match="the objective is inf; it and its derivatives must be finite"):
        System("gaussian").path_gradient(
            np.zeros((1, 2, 8)), [(0, 0, 2, 0.6, 1.5)] * 2, lambda x, work: 1.0 / work, dt=0.1, integrator="exact"
        )


def digest():
    """Of a gradient, for processes of their own."""
    system, path = System("double-well"), path_of("double-well", 10)
    x = system.equilibrium(path[0], 3000, seed=3)
    return system.path_gradient(x, path, objective, dt=0.02, seed=SEED).by_path.tobytes().hex()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_pytorch_agrees():
    """Autograd through the same steps with the same noise."""
    torch = pytest.importorskip("torch")
    system, path, dt = System("double-well"), path_of("double-well", 30), 0.02
    x = system.equilibrium(path[0], 4096, seed=3)
    found = system.path_gradient(x, path, objective, dt=dt, integrator="euler-maruyama", seed=SEED)
    seed, stream = Noise.of(SEED).dynamics.take(1)
    theta = torch.tensor(path, requires_grad=True)
    here, work = torch.tensor(x[0, 0]), 0.0

    def energy(x, theta):
        return theta[0] * (x * x - 1) ** 2 + theta[1] * x

    for n in range(30):
        work = work + energy(here, theta[n + 1]) - energy(here, theta[n])
        force = -4 * theta[n + 1, 0] * here * (here * here - 1) - theta[n + 1, 1]
        here = here + dt * force + math.sqrt(2 * dt) * torch.tensor(kernel_normals(seed, stream, n, 4096))
    torch.mean(torch.exp(-work) + 0.3 * here * here + 0.1 * work).backward()
    np.testing.assert_allclose(found.by_path, theta.grad.numpy(), rtol=1e-5, atol=1e-9)
