"""Domains of x: half lines, intervals with walls, periods; against closed forms, grids and plain twins."""

import itertools
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import iv

import naive
from helpers import kernel_normals, z_score
from thermokernels.random import BLOCK
from thermorun import free_energy, learning, metric
from thermorun.errors import InputError, RunError
from thermorun.potentials import Driven, Periodic, Potential, System, check, quadrature, sources
from thermorun.potentials.fokker_planck import FokkerPlanck, Step
from thermorun.streams import Noise, Streams

INF, PI = math.inf, math.pi
SEED, STREAM = 2**63 + 11, 2**40
KT, NM = 4.11e-21, 1e-9  # J at 298 K, m


def in_domain(name, energy, parameters, theta, domain, **rest):
    """A potential from its energy alone."""
    return Potential(name, energy, parameters=parameters, theta=theta, domain=domain, **rest)


# Morse, Phys. Rev. 34, 57 (1929): a bond, which on the line is not bound.
MORSE = in_domain(
    "morse", lambda r, t: t[0] * (1 - math.exp(-t[1] * (r - 1.0))) ** 2, ("depth", "width"), (4.0, 1.5), (0.7, 2.7),
    target=(6.0, 1.5),
)  # fmt: skip
# Lennard-Jones under a load, as in a box whose lid is a weight.
BOND = in_domain(
    "lennard-jones", lambda r, t: 4 * t[0] * (r**-12 - r**-6) + t[1] * r, ("depth", "load"), (2.0, 1.0), (0.0, INF)
)
# A trap with a centrifugal barrier: exp(-a / r^2 - k r^2 / 2) in closed form.
RING = in_domain("ring", lambda r, t: t[0] / r**2 + 0.5 * t[1] * r * r, ("a", "k"), (1.0, 1.0), (0.0, INF))
LENGTH = 2.0
SLOPE = in_domain("slope", lambda x, t: t[0] * x, ("tilt",), (0.5,), (0.0, LENGTH))
HALF = in_domain("half line", lambda x, t: t[0] * x, ("tilt",), (1.0,), (0.0, INF))
ROTOR = in_domain(
    "rotor", lambda x, t: -t[0] * math.cos(x - t[1]), ("k", "phi"), (2.0, 0.3), Periodic(-PI, PI), target=(1.0, 1.0)
)
# Kremer & Grest, J. Chem. Phys. 92, 5057 (1990), Eq. 2; NaN outside.
FENE = in_domain("fene", lambda x, t: -0.5 * t[0] * math.log(1 - (x / 1.5) ** 2), ("k",), (30.0,), (-1.5, 1.5))
# A particle in the plane in polar coordinates, pulled to one side.
POLAR = in_domain(
    "polar",
    lambda x, t: 0.5 * t[0] * x[0] ** 2 - math.log(x[0]) - t[1] * x[0] * math.cos(x[1]),
    ("k", "pull"), (1.0, 0.7), ((0.0, INF), Periodic(-PI, PI)), dimension=2,
)  # fmt: skip
# All kinds of sides at once.
MIXED = in_domain(
    "mixed",
    lambda x, t: t[0] * x[0] + t[1] * x[1] * math.cos(x[2]) + 0.5 * x[0] * x[1],
    ("a", "b"), (1.5, 0.8), ((0.5, INF), (-0.7, 0.4), Periodic(0.0, 2 * PI)), dimension=3,
)  # fmt: skip


def resting(potential, theta=None, **options):
    return quadrature.equilibrium(
        potential.energies, potential.gradients, theta or potential.theta, domain=potential.domain.sides[0], **options
    )


# --- Equilibrium ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("potential", [MORSE, BOND, RING, SLOPE, HALF, ROTOR, FENE])
def test_quadrature_and_draws_are_those_of_the_domain(potential):
    check(potential)
    theta, side = potential.theta, potential.domain.sides[0]
    lowest, end = min(potential.energies(np.linspace(1e-3, 1.4, 500), theta)), min(side.high, 40.0)
    parts = list(itertools.pairwise(np.linspace(side.low, end, 9)))

    def integral(f):
        weighed = lambda x: f(x) * math.exp(lowest - potential.energies([x], theta)[0])  # noqa: E731
        return sum(quad(weighed, *part, epsrel=1e-10, limit=300)[0] for part in parts)

    partition, found = integral(lambda x: 1.0), resting(potential)
    assert found.log_partition == pytest.approx(math.log(partition) - lowest, abs=1e-8)
    mean = integral(lambda x: x) / partition
    assert found.moment(1) == pytest.approx(mean, abs=1e-8)
    energy = integral(lambda x: potential.energies([x], theta)[0]) / partition
    x = System(potential).equilibrium(theta, 50_000, seed=3)[0, 0]
    assert side.low <= x.min() <= x.max() <= side.high
    assert abs(z_score(x, mean)) < 4
    assert abs(z_score(potential.energies(x, theta), energy)) < 4


@pytest.mark.parametrize("k", [0.1, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("phi", [0.0, 1e-3, 50.0])
def test_an_angle_turned_far_comes_back_and_is_no_small_change(k, phi):
    """A parameter may change the energy by less than kT however far it moves; differences stay short all the same."""
    check(ROTOR, (k, phi))
    turned = replace(ROTOR, gradient=lambda x, t: (-math.cos(x - t[1]), t[0] * math.sin(x - t[1])))
    with pytest.raises(InputError, match=r"gradient\[1\] of rotor is not the derivative"):
        check(turned, (k, phi))


def test_closed_forms_of_free_energies():
    a, k, beta = 0.8, 1.7, 1.3
    found = resting(RING, (a, k), beta=beta)
    # Integral of exp(-a / r^2 - k r^2 / 2): Gradshteyn & Ryzhik 3.325.
    assert found.free_energy == pytest.approx(
        -(0.5 * math.log(PI / (2 * beta * k)) - 2 * math.sqrt(beta * a * beta * k / 2)) / beta, abs=1e-10
    )
    assert resting(ROTOR).free_energy == pytest.approx(-math.log(2 * PI * iv(0, 2.0)), abs=1e-10)
    assert resting(HALF, (2.5,), beta=2.0).free_energy == pytest.approx(math.log(2.0 * 2.5) / 2.0, abs=1e-10)


@pytest.mark.parametrize(("beta", "mu"), [(1.0, 1.0), (2.0, 0.7)])
def test_friction_has_the_boundaries_of_the_domain(beta, mu):
    box = resting(SLOPE, (0.0,), beta=beta, mobility=mu)
    assert box.fisher[0, 0] == pytest.approx(beta**2 * LENGTH**2 / 12, rel=1e-9)
    assert box.friction[0, 0] == pytest.approx(beta**2 * LENGTH**4 / (120 * mu), rel=1e-9)
    # Of a free rotor cos x decays with the rate mu kT.
    free = resting(ROTOR, (0.0, 0.0), beta=beta, mobility=mu)
    assert free.friction[0, 0] == pytest.approx(beta**2 / (2 * mu), rel=1e-9)
    # Dragging the angle along: 1 - 1 / I_0^2, as the effective diffusion of Lifson & Jackson (1962) is D / I_0^2.
    k = 1.5
    dragged = resting(ROTOR, (k, 0.4), beta=beta, mobility=mu)
    assert dragged.friction[1, 1] == pytest.approx((1 - 1 / iv(0, beta * k) ** 2) / mu, rel=1e-9)
    half = resting(HALF, (1.5,), beta=beta, mobility=mu)
    # The flow is x p / tilt, so that zeta = <x^2> / (mu tilt^2).
    assert half.friction[0, 0] == pytest.approx(2 / (mu * beta**2 * 1.5**4), rel=1e-9)


def test_equilibrium_with_a_distance_and_an_angle_is_that_of_a_grid():
    """In x y the energy is a shifted trap: all moments are known."""
    check(POLAR)
    k, pull = POLAR.theta
    r, angle = System(POLAR).equilibrium(POLAR.theta, 40_000, seed=5)[0]
    x, y = r * np.cos(angle), r * np.sin(angle)
    for values, truth in ((x, pull / k), (y, 0.0), (r**2, 2 / k + (pull / k) ** 2), (y**2, 1 / k), (x * y, 0.0)):
        assert abs(z_score(values, truth)) < 4


# --- Steps ------------------------------------------------------------------------------------------------------------


def mixed_twin():
    def energy(x, t):
        return t[0] * x[0] + t[1] * x[1] * np.cos(x[2]) + 0.5 * x[0] * x[1]

    def force(x, t):
        return -np.stack(
            [t[0] + 0.5 * x[1], t[1] * np.cos(x[2]) + 0.5 * x[0], -t[1] * x[1] * np.sin(x[2])],
        )

    return energy, force, lambda x, t: np.stack([x[0], x[1] * np.cos(x[2])])


def test_steps_in_a_domain_are_the_twin():
    rng, particles, steps = np.random.default_rng(3), 1500, 12
    x = np.stack([rng.uniform(0.5, 1.5, particles), rng.uniform(-0.7, 0.4, particles), rng.uniform(0, 6, particles)])
    path = np.array(MIXED.theta) * rng.uniform(0.8, 1.2, (steps + 1, 2))
    start = Driven(x[None], *np.zeros((2, 1, particles)), np.array([], np.intp), {}, 4)
    system, noise = System(MIXED, 1.3, 0.9), Noise(Streams(), Streams(SEED, STREAM, 2**20))
    driven = system.drive(start, path, dt=0.03, seed=noise)
    table = system.coefficients("heun", np.full(steps, 0.03))
    sides = [(side.low, side.high, side.periodic) for side in MIXED.domain.sides]
    twin, work, heat, _ = naive.drive_any(
        "heun", mixed_twin(), x, 4, table, path, SEED, STREAM, noise=kernel_normals, domain=sides
    )
    np.testing.assert_allclose(driven.x[0], twin, atol=1e-12)
    np.testing.assert_allclose(driven.work[0], work, atol=1e-11)
    np.testing.assert_allclose(driven.heat[0], heat, atol=1e-11)
    assert np.all(MIXED.domain.inside(driven.x[0].T))


def test_single_precision_stays_inside():
    """0.7 and 2.7 become smaller and larger there; particles that are pressed to these walls are not rounded out."""
    low, high = (float(np.float32(end)) for end in (0.7, 2.7))
    assert low < 0.7
    assert high > 2.7
    x = np.full((1, 1, 8 * BLOCK), 0.71, np.float32)
    x[..., ::2] = 2.69
    theta = (-3000.0, 1.5)
    driven = System(MORSE).drive(x, np.tile(theta, (61, 1)), dt=2e-7)
    seen = driven.x.astype(float)[0, 0]
    assert np.all((seen >= 0.7) & (seen <= 2.7))
    change = MORSE.energies(seen, theta) - MORSE.energies(x[0, 0], theta)
    np.testing.assert_allclose(driven.work[0] + driven.heat[0], change, atol=1e-9)


def test_relaxation_in_a_box_and_on_a_ring():
    """cos(pi x / L) and cos(x) are eigenfunctions of free diffusion: they decay at D pi^2 / L^2 and at D."""
    mu, beta, time = 0.8, 1.6, 0.4
    steps = 50
    for potential, theta, start, wave in ((SLOPE, (0.0,), 0.3, PI / LENGTH), (ROTOR, (0.0, 0.0), 0.5, 1.0)):
        x = np.full((1, 1, 100_000), start)
        system = System(potential, beta, mu)
        driven = system.drive(x, np.tile(theta, (steps + 1, 1)), dt=time / steps, seed=7)
        truth = math.cos(wave * start) * math.exp(-mu / beta * wave**2 * time)
        assert abs(z_score(np.cos(wave * driven.x[0, 0]), truth)) < 4
        side, points = potential.domain.sides[0], 200
        cells = side.low + (side.high - side.low) * (np.arange(points) + 0.5) / points
        rate = mu / beta / (cells[1] - cells[0]) ** 2
        step = Step(np.zeros(points), beta, rate * time, ring=side.periodic)
        density, _ = step.forward(1 / points + 0.5 * np.cos(wave * cells) / points)
        decayed = 1 / points + 0.5 * np.cos(wave * cells) / points * math.exp(-mu / beta * wave**2 * time)
        np.testing.assert_allclose(density, decayed, atol=1e-4 / points)


def test_bias_of_euler_at_a_wall_is_of_first_order():
    """x' = |x - dt + sqrt(2 dt) z| at rest: <x'^2> = <x^2> makes <x> = 1 + dt / 2, where it should be 1."""
    for dt in (0.2, 0.1):
        x = System(HALF).equilibrium((1.0,), 100_000, seed=2)
        driven = System(HALF).drive(x, np.ones((61, 1)), dt=dt, integrator="euler-maruyama", seed=4)
        assert abs(z_score(driven.x[0, 0], 1.0 + 0.5 * dt)) < 4
        assert z_score(driven.x[0, 0], 1.0) > 8


def test_bias_of_heun_at_a_wall_is_lost_in_the_noise():
    """At a step of which Euler's bias would be eight standard errors."""
    tilt, dt = 3.0, 0.0055
    x = System(SLOPE).equilibrium((tilt,), 100_000, seed=2)
    driven = System(SLOPE).drive(x, np.full((101, 1), tilt), dt=dt, seed=4)
    assert abs(z_score(driven.x[0, 0], resting(SLOPE, (tilt,)).moment(1))) < 4
    assert abs(z_score(driven.x[0, 0], resting(SLOPE, (tilt,)).moment(1) + 0.5 * tilt * dt)) > 4


def test_fene_bond_overshoots_and_is_reflected():
    """A step that jumps the wall, where E is not a number, comes back; one longer than the domain is told."""
    x = np.full((1, 1, 4 * BLOCK), 1.45)
    driven = System(FENE).drive(x, np.full((2, 1), 0.5), dt=0.01, integrator="euler-maruyama")
    assert np.all(np.isfinite(driven.heat))
    assert np.all(np.abs(driven.x) < 1.5)
    assert np.mean(driven.x < 1.45) > 0.5
    with pytest.raises(RunError, match="particle 0 of replica 0 in fene diverged at step 0; take a smaller dt, such"):
        System(FENE).drive(x, np.full((2, 1), 30.0), dt=1.0, integrator="euler-maruyama")


# --- Units ------------------------------------------------------------------------------------------------------------


def test_si_units_give_the_same_numbers():
    """Lengths in nm, energies in kT, and the same in metres and joules: the same draws, steps and exact values."""
    si = in_domain(
        "ring in SI", lambda r, t: t[0] / r**2 + 0.5 * t[1] * r * r, ("a", "k"), (KT * NM**2, KT / NM**2), (0.0, INF)
    )
    check(si, beta=1 / KT)
    mobility = 1e7  # m / (N s)
    natural, real = System(RING), System(si, 1 / KT, mobility)
    second = NM**2 / (mobility * KT)  # the unit of time
    ours, theirs = natural.exact((1.0, 1.0)), real.exact(si.theta)
    assert theirs.free_energy / KT + math.log(NM) == pytest.approx(ours.free_energy, abs=1e-9)
    size = np.array(si.theta)
    np.testing.assert_allclose(theirs.fisher * np.outer(size, size), ours.fisher, rtol=1e-8)
    np.testing.assert_allclose(theirs.friction * np.outer(size, size) / (KT * second), ours.friction, rtol=1e-8)
    dt = natural.time_step((1.0, 1.0))
    assert real.time_step(si.theta) / second == pytest.approx(dt, rel=0.02)
    x = natural.equilibrium((1.0, 1.0), 2000, seed=1)
    np.testing.assert_allclose(real.equilibrium(si.theta, 2000, seed=1) / NM, x, rtol=1e-4)
    path = np.linspace([1.0, 1.0], [1.5, 0.8], 41)
    moved = natural.drive(x, path, dt=dt, seed=2)
    same = real.drive(x * NM, path * size, dt=dt * second, seed=2)
    np.testing.assert_allclose(same.x / NM, moved.x, rtol=1e-9)
    np.testing.assert_allclose(same.heat / KT, moved.heat, rtol=1e-6, atol=1e-9)


# --- What stands on this ground ---------------------------------------------------------------------------------------


def test_free_energy_between_two_depths_of_a_morse_bond():
    result = free_energy.measure(MORSE, end=(6.0, 1.5), duration=0.5, particles=20_000, precision="float32", seed=3)
    truth = resting(MORSE, (6.0, 1.5)).free_energy - resting(MORSE, (4.0, 1.5)).free_energy
    assert result.exact == pytest.approx(truth, abs=1e-9)
    assert abs(result.delta_f.z(truth)) < 4
    assert result.first_law_residual < 1e-12


@pytest.mark.parametrize(
    ("potential", "theta", "friction"),
    [
        pytest.param(SLOPE, (0.0,), LENGTH**4 / 120, marks=pytest.mark.slow),
        pytest.param(ROTOR, (1.5, 0.4), (1 - 1 / iv(0, 1.5) ** 2), marks=pytest.mark.slow),
    ],
)
def test_measured_friction_is_the_closed_form(potential, theta, friction):
    result = metric.measure(potential, theta=theta, particles=16_384, seed=5)
    assert abs(result.friction[-1, -1].z(friction)) < 4
    assert abs(result.fisher[-1, -1].z(resting(potential, theta).fisher[-1, -1])) < 4


def test_fokker_planck_on_a_ring_has_the_drag_of_the_friction():
    """A rotor dragged around slowly: the work is zeta times the speed squared times the duration."""
    tau, turn = 400.0, 6 * PI
    problem = FokkerPlanck(
        ROTOR.energies, ROTOR.gradients, (1.0, 0.0), (1.0, turn), tau, domain=ROTOR.domain.sides[0], points=120
    )
    assert problem.ring
    work = problem.excess_work(lambda s: np.stack([np.ones_like(s), turn * s], axis=1), 400)
    assert work == pytest.approx((1 - 1 / iv(0, 1.0) ** 2) * turn**2 / tau, rel=0.01)
    stairs = np.linspace([1.1, 0.2], [1.7, 2.5], 5)
    short = FokkerPlanck(
        ROTOR.energies, ROTOR.gradients, (1.0, 0.0), (2.0, 3.0), 2.0, domain=ROTOR.domain.sides[0], points=60
    )
    _, gradient = short.run(stairs)
    for n, j in ((0, 0), (2, 1), (4, 1)):
        move = np.zeros_like(stairs)
        move[n, j] = 1e-5
        difference = (short.run(stairs + move)[0] - short.run(stairs - move)[0]) / 2e-5
        assert gradient[n, j] == pytest.approx(difference, rel=1e-6, abs=1e-8)


def test_learning_and_driving_in_a_domain():
    driven = learning.drive(ROTOR, tau=1.0, particles=20_000, seed=2)
    assert abs(driven.work.z(driven.exact_work)) < 4


# --- Descriptions and bad input ---------------------------------------------------------------------------------------


def test_a_domain_is_part_of_a_potential_where_there_is_one():
    whole = replace(SLOPE, domain=None)
    functions = (whole.energy, whole.force, whole.gradient)
    assert whole.fingerprint == sources.fingerprint((*functions, 1))[:16]
    assert len({whole.fingerprint, SLOPE.fingerprint, HALF.fingerprint}) == 3
    assert replace(SLOPE, domain=Periodic(0.0, LENGTH)).fingerprint != SLOPE.fingerprint
    again = pickle.loads(pickle.dumps(POLAR))
    assert again.domain == POLAR.domain
    assert again.fingerprint == POLAR.fingerprint
    assert replace(whole, domain=(-INF, INF)).fingerprint == whole.fingerprint


def test_outside_the_domain_nothing_is():
    np.testing.assert_array_equal(FENE.energies([-1.6, 0.0, 1.5, 1.6], (30.0,)), [INF, 0.0, INF, INF])
    np.testing.assert_allclose(ROTOR.energies([0.3 + 2 * PI, 0.3 - 6 * PI], (2.0, 0.3)), -2.0, atol=1e-12)


@pytest.mark.parametrize(
    ("dimension", "domain", "sentence"),
    [
        (1, (2.0, 1.0), "domain is (2, 1); it must begin below its end."),
        (1, (1.0, 1.0), "domain is (1, 1); it must begin below its end."),
        (1, ("a", 1.0), "domain has low = 'a'; it must be a number."),
        (1, (math.nan, 1.0), "domain is (nan, 1); it must begin below its end."),
        (1, 3.0, "domain of potential 'mine' has the entry 3.0; it must be None, (low, high) or Periodic(low, high)."),
        (1, (0, 1, 2), "domain of potential 'mine' has the entry (0, 1, 2); it must be None, (low, high) or"),
        (2, Periodic(0, 1), "; it must have one entry for each of its 2 dimensions: None, (low, high) or Periodic("),
        (2, ((0, 1), None, None), "it must have one entry for each of its 2 dimensions"),
    ],
)
def test_bad_domains_are_one_sentence(dimension, domain, sentence):
    with pytest.raises(InputError) as caught:
        in_domain("mine", lambda x, t: t[0] * x, ("a",), (1.0,), domain, dimension=dimension)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_input_is_one_sentence():
    with pytest.raises(InputError, match=r"domain is a period \(0, inf\); a period must be finite\."):
        Periodic(0, INF)
    with pytest.raises(InputError, match=r"theta is -1; the energy does not confine x there"):
        System(HALF).exact((-1.0,))
    with pytest.raises(InputError, match=r"energy of half line does not confine x: "):
        check(HALF, (-1.0,))
    with pytest.raises(InputError, match=r"start holds x = 2\.5, outside the domain of slope, \(0, 2\)\."):
        System(SLOPE).drive(np.full((1, 1, 3), 2.5), np.zeros((2, 1)), dt=0.1)
    sink = in_domain("sink", lambda x, t: 0.5 * math.log(x) + t[0] * x, ("a",), (1.0,), (0.0, INF))
    with pytest.raises(InputError, match=r"energy of sink is -inf at x = 0; it must be bounded below\."):
        check(sink)
    line = replace(HALF, free_energy=lambda t, beta: 0.0, sample=lambda t, beta, uniform: uniform()[:, None] - 0.5)
    with pytest.raises(
        InputError, match=r"free_energy of half line is 0; -ln Z / beta in its domain, \(0, inf\), is 0"
    ):
        check(line, (2.0,))
    with pytest.raises(InputError, match=r"sample holds x = -0\.\d+, outside the domain of half line, \(0, inf\)\."):
        System(line).equilibrium((2.0,), 100)
    tilted = in_domain("tilted", lambda x, t: t[0] * math.cos(x) - 0.1 * x, ("k",), (1.0,), Periodic(-PI, PI))
    with pytest.raises(InputError, match=r"energy of tilted is not periodic: it is -0\.68\d+ at x = -3\.14159 and -1"):
        check(tilted)
    with pytest.raises(InputError, match=r"integrator is 'exact', but x of slope is not Gaussian in its domain, \(0, "):
        System(SLOPE).coefficients("exact", 0.1, np.zeros((1, 1)))
    with pytest.raises(InputError, match=r"in a domain with walls, as slope has, take heun or euler-maruyama\."):
        System(SLOPE).coefficients("leimkuhler-matthews", 0.1)
    with pytest.raises(
        InputError, match=r"quadratic of potential 'mine' is given, but x is not Gaussian in its domain"
    ):
        in_domain("mine", lambda x, t: t[0] * x, ("a",), (1.0,), (0, 1), quadratic=lambda t: (np.eye(1), np.zeros(1)))
