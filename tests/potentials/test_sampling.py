"""Draws from equilibrium against quadrature and closed forms: barriers, narrow wells, units; and what is refused."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.polynomial import legendre
from scipy import stats

from helpers import LEAST_P, z_score
from thermorun import free_energy
from thermorun.errors import InputError, RunError
from thermorun.potentials import Potential, System, annealing, load, quadrature, wells
from thermorun.potentials.sampling import time_step

# --- One dimension and Gaussians --------------------------------------------------------------------------------------

POINTS = {
    "trap": (0.7,),
    "trap-and-stiffness": (0.7, 2.5),
    "double-well": (1.2, 0.4),
    "quartic": (1.7,),
    "bistable": (0.8, 0.3),
    "mixture": (-1.2, 1.6, 0.4),
}


@pytest.mark.parametrize("beta", [0.5, 2.0])
@pytest.mark.parametrize("name", POINTS)
def test_draws_have_the_distribution_of_the_quadrature(name, beta):
    system = System(name, beta=beta)
    exact = quadrature.equilibrium(system.potential.energies, None, POINTS[name], beta=beta)
    x = system.equilibrium(POINTS[name], 50_000, replicas=2, seed=5)
    assert x.shape == (2, 1, 50_000)
    for drawn in x[:, 0]:
        assert stats.kstest(drawn, lambda q: np.interp(q, exact.x, exact.cumulative)).pvalue > LEAST_P
        assert abs(z_score(drawn, exact.moment(1))) < 4
        assert abs(z_score(drawn**2, exact.moment(2))) < 4
    assert abs(np.corrcoef(x[:, 0])[0, 1]) < 4 / np.sqrt(50_000)


@pytest.mark.parametrize("annealed", [False, True])
@pytest.mark.parametrize(("name", "theta"), [("gaussian", (0.3, -0.4, 2.0, 0.6, 1.5)), ("chain", (0.8, 1.5, 0.6))])
def test_draws_of_gaussians_have_their_moments(name, theta, annealed):
    potential, beta = load(name), 2.0
    precision, mean = potential.quadratic(theta)
    if annealed:
        potential = replace(potential, sample=None)
    x = System(potential, beta=beta).equilibrium(theta, 5000, seed=6)[0]
    away, covariance = x - mean[:, None], np.linalg.inv(precision) / beta
    for i in range(potential.dimension):
        assert abs(z_score(x[i], mean[i])) < 4
        for j in range(i + 1):
            assert abs(z_score(away[i] * away[j], covariance[i, j])) < 4


def pinhole(s):
    """A well of width s in a harmonic trap, far narrower than it."""
    bump = f"np.exp(-((x - 1.2345) ** 2) / {2 * s * s})"
    return Potential("pinhole", *functions(
        f"0.5 * x * x - theta[0] * {bump}", f"-x - theta[0] * (x - 1.2345) / {s * s} * {bump}", f"(-{bump},)"
    ), ("depth",), (1.0,))  # fmt: skip


def functions(*expressions):
    """Functions of x and theta, for scalars that Numba compiles and for arrays alike."""
    space = {"np": np}
    return [eval(f"lambda x, theta: {one}", space) for one in expressions]


@pytest.mark.parametrize(("s", "depth"), [(0.001, 12.0), (0.003, 8.0)])
def test_draws_fill_a_well_that_an_even_grid_misses(s, depth):
    system = System(pinhole(s))
    x = system.equilibrium((depth,), 20_000, seed=3)[0, 0]
    share = 1 - pinhole_norm(0.0, s) / pinhole_norm(depth, s)
    # Beyond eight widths the well adds nothing, so that the plain trap has its share of the rest.
    near = np.abs(x - 1.2345) < 8 * s
    plain = np.diff(stats.norm.cdf(1.2345 + 8 * s * np.array([-1, 1])))[0] * (1 - share)
    assert abs(z_score(near, share + plain)) < 4
    assert system.time_step((depth,)) == pytest.approx(0.05 / (depth / s**2 + 1), rel=1e-3)


def pinhole_norm(depth, s):
    """Z by a series: exp(D b) = sum of D^n b^n / n!, and b^n is a Gaussian of width s / sqrt(n)."""
    total, term = 1.0, 1.0
    for n in range(1, 200):
        term *= depth / n
        width = s * s / n
        total += term * np.sqrt(width / (1 + width)) * np.exp(-0.5 * 1.2345**2 / (1 + width))
    return np.sqrt(2 * np.pi) * total


def needle(s, place):
    """A round well of width s at ``place`` in a bowl of two dimensions, far narrower than it."""
    away = f"((x[0] - {place[0]})**2 + (x[1] - {place[1]})**2)"
    bump = f"np.exp(-{away} / {2 * s * s})"
    forces = (f"-x[{k}] - theta[0] * (x[{k}] - {place[k]}) / {s * s} * {bump}" for k in range(2))
    return Potential("needle", *functions(
        f"0.5 * (x[0]**2 + x[1]**2) - theta[0] * {bump}", f"({', '.join(forces)})", f"(-{bump},)"
    ), ("depth",), (1.0,), 2)  # fmt: skip


_SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("s", "place", "depth"),
    [
        (0.02, (2.2, 1.0), 9.0),
        pytest.param(0.02, (1.2345, -0.4), 9.0, marks=_SLOW),
        pytest.param(0.01, (2.2, 1.0), 9.5, marks=_SLOW),
        pytest.param(0.05, (0.3, 0.1), 5.5, marks=_SLOW),
    ],
)
def test_draws_find_a_needle_inside_a_bowl(s, place, depth):
    system, count = System(needle(s, place)), 100_000
    x, y = system.equilibrium((depth,), count, seed=3)[0]
    # The share within eight widths, on circles about the needle; Z by the series of ``pinhole_norm`` in the plane.
    norm, term = 2 * np.pi, 2 * np.pi
    for n in range(1, 200):
        term *= depth / n
        width = s * s / n
        norm += term * width / (1 + width) * np.exp(-0.5 * np.sum(np.square(place)) / (1 + width))
    (r, weights), angles = gauss(0, 8 * s), 2 * np.pi * np.arange(200) / 200
    bowl = 0.5 * ((place[0] + r[:, None] * np.cos(angles)) ** 2 + (place[1] + r[:, None] * np.sin(angles)) ** 2)
    inside = np.exp(depth * np.exp(-0.5 * (r / s) ** 2))[:, None] * np.exp(-bowl)
    share = np.sum((weights * r) @ inside) * (2 * np.pi / 200) / norm
    assert abs(z_score(np.hypot(x - place[0], y - place[1]) < 8 * s, share)) < 4
    # Steps are those of the narrowest well.
    assert system.time_step((depth,)) == pytest.approx(0.05 * s**2 / depth, rel=0.05)


# --- Barriers in several dimensions -----------------------------------------------------------------------------------


def gauss(low, high, panels=30):
    """Nodes and weights of a composite Gauss-Legendre rule."""
    nodes, weights = legendre.leggauss(16)
    edges = np.linspace(low, high, panels + 1)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + nodes)).ravel(), (half * weights).ravel()


def integrated(potential, theta, box, beta=1.0):
    """F, <dE/dtheta>, the Fisher metric and <E> by a product rule, of Python's own functions."""
    rules = [gauss(*side) for side in box]
    x = np.meshgrid(*(one[0] for one in rules), indexing="ij", sparse=True)
    energy = np.asarray(potential.energy(x, theta))
    weights = np.ones(())
    for k, (_, one) in enumerate(rules):
        weights = weights * one.reshape([-1 if i == k else 1 for i in range(len(rules))])
    lowest = energy.min()
    density = weights * np.exp(-beta * (energy - lowest))
    norm = density.sum()
    density /= norm
    slopes = np.stack([np.broadcast_to(one, energy.shape).ravel() for one in potential.gradient(x, theta)])
    mean = slopes @ density.ravel()
    away = slopes - mean[:, None]
    fisher = beta**2 * (away * density.ravel()) @ away.T
    return lowest - np.log(norm) / beta, mean, fisher, float(np.sum(density * energy))


@cache
def wells_of_two():
    """E = b (x^2 - 1)^2 + c (y^2 - 1)^2 + k y^2 / 2 - j x y + tilt x: from a barrier in one direction to four wells."""
    return Potential("two-barriers", *functions(
        "theta[0] * (x[0]**2 - 1)**2 + theta[1] * (x[1]**2 - 1)**2 + 0.5 * theta[2] * x[1]**2 - theta[3] * x[0] * x[1]"
        " + theta[4] * x[0]",
        "(-4 * theta[0] * x[0] * (x[0]**2 - 1) + theta[3] * x[1] - theta[4],"
        " -4 * theta[1] * x[1] * (x[1]**2 - 1) - theta[2] * x[1] + theta[3] * x[0])",
        "((x[0]**2 - 1)**2, (x[1]**2 - 1)**2, 0.5 * x[1]**2, -x[0] * x[1], x[0])",
    ), ("b", "c", "k", "j", "tilt"), (12.0, 0.0, 1.0, 0.0, 0.0), 2)  # fmt: skip


@cache
def mueller_brown():
    """The surface of Mueller & Brown (1979), with a field along x."""
    terms = zip(
        (-200.0, -100.0, -170.0, 15.0), (-1.0, -1.0, -6.5, 0.7), (0.0, 0.0, 11.0, 0.6), (-10.0, -10.0, -6.5, 0.7),
        (1.0, 0.0, -0.5, -1.0), (0.0, 0.5, 1.5, 1.0), strict=True,
    )  # fmt: skip
    energy, first, second = [], [], []
    for height, a, b, c, x, y in terms:
        dx, dy = f"(x[0] - {x})", f"(x[1] - {y})"
        bump = f"{height} * np.exp({a} * {dx}**2 + {b} * {dx} * {dy} + {c} * {dy}**2)"
        energy.append(bump)
        first.append(f"{bump} * ({2 * a} * {dx} + {b} * {dy})")
        second.append(f"{bump} * ({2 * c} * {dy} + {b} * {dx})")
    return Potential("mueller-brown", *functions(
        " + ".join(energy) + " + theta[0] * x[0]", f"(-({' + '.join(first)}) - theta[0], -({' + '.join(second)}))",
        "(x[0],)",
    ), ("field",), (0.0,), 2)  # fmt: skip


@cache
def three_wells():
    """Three Gaussian wells of unequal depths in a harmonic trap."""
    bumps = [f"np.exp(-((x[0] - {a})**2 + (x[1] - {b})**2) / 0.12)" for a, b in ((0.0, 1.2), (-1.0, -0.6), (1.0, -0.6))]
    away = (("x[0]", "(x[1] - 1.2)"), ("(x[0] + 1.0)", "(x[1] + 0.6)"), ("(x[0] - 1.0)", "(x[1] + 0.6)"))
    pull = [
        " - ".join([f"-x[{k}]"] + [f"theta[{i}] * {bumps[i]} * {away[i][k]} / 0.06" for i in range(3)]) for k in (0, 1)
    ]
    return Potential("three-wells", *functions(
        "0.5 * (x[0]**2 + x[1]**2) - " + " - ".join(f"theta[{i}] * {bumps[i]}" for i in range(3)),
        f"({pull[0]}, {pull[1]})", f"(-{bumps[0]}, -{bumps[1]}, -{bumps[2]})",
    ), ("a", "b", "c"), (10.0, 11.0, 9.0), 2)  # fmt: skip


@cache
def double_well_in(d):
    """E = b (x_0^2 - 1)^2 + tilt x_0 + x_0 x_1 / 2 + sum of (k + 1) x_k^2 / 2, k > 0."""
    rest = range(1, d)
    squares = " + ".join(f"{0.5 * (k + 1)} * x[{k}]**2" for k in rest)
    forces = [f"-{k + 1} * x[{k}]" + (" - 0.5 * x[0]" if k == 1 else "") for k in rest]
    return Potential(f"double-well-in-{d}", *functions(
        f"theta[0] * (x[0]**2 - 1)**2 + theta[1] * x[0] + 0.5 * x[0] * x[1] + {squares}",
        f"(-4 * theta[0] * x[0] * (x[0]**2 - 1) - theta[1] - 0.5 * x[1], {', '.join(forces)})",
        "((x[0]**2 - 1)**2, x[0])",
    ), ("b", "tilt"), (12.0, 0.0), d)  # fmt: skip


FLAT = (-2.2, 2.2)
CASES = {
    "barrier": (wells_of_two(), (12.0, 0.0, 1.0, 0.0, 0.0), (12.0, 0.0, 1.0, 0.0, 2.0), (FLAT, (-9, 9)), 1.0),
    "four wells": (wells_of_two(), (8.0, 8.0, 0.0, 1.0, 0.5), (8.0, 8.0, 0.0, 0.5, 1.0), (FLAT, FLAT), 1.0),
    "valley": (wells_of_two(), (1.0, 0.5, 1.0, 3.0, 0.1), (1.0, 0.5, 1.0, 2.0, 0.1), ((-4, 4), (-5, 5)), 1.0),
    "mueller-brown": (mueller_brown(), (0.0,), (10.0,), ((-2.4, 2.0), (-1.2, 2.8)), 1 / 15),
    "three wells": (three_wells(), (10.0, 11.0, 9.0), (11.0, 10.0, 9.5), ((-6, 6), (-6, 6)), 1.0),
    "three dimensions": (double_well_in(3), (12.0, 0.0), (12.0, 2.0), None, 1.0),
    "four dimensions": (double_well_in(4), (12.0, 2.0), (12.0, 3.0), None, 1.0),
}


def truth(case, theta):
    potential, _, _, box, beta = CASES[case]
    if box is not None:
        return integrated(potential, theta, box, beta)
    # Gaussian in x_1, which leaves -x_0^2 / 16 and a mean of -x_0 / 4; and in what is beyond.
    b, tilt = theta
    x, weights = gauss(*FLAT)
    energy = b * (x * x - 1) ** 2 + tilt * x - x * x / 16
    density = weights * np.exp(-energy)
    norm = density.sum()
    density /= norm
    slopes = np.stack([(x * x - 1) ** 2, x])
    mean = slopes @ density
    away = slopes - mean[:, None]
    rest = sum(0.5 * np.log(2 * np.pi / (k + 1)) for k in range(1, potential.dimension))
    mean_energy = float(density @ energy) + 0.5 * (potential.dimension - 1)
    return -np.log(norm) - rest, mean, (away * density) @ away.T, mean_energy


@pytest.mark.parametrize("case", [pytest.param(c, marks=_SLOW if "dimensions" in c else ()) for c in CASES])
def test_draws_behind_barriers_are_those_of_the_quadrature(case):
    potential, start, end, _, beta = CASES[case]
    system = System(potential, beta=beta)
    first, last = truth(case, start), truth(case, end)
    for theta, exact, other, there in ((start, first, end, last), (end, last, start, first)):
        x = system.equilibrium(theta, 8192, seed=11)[0].T
        energy, _, gradients = potential.evaluate(x, theta)
        away = gradients - exact[1]
        assert abs(z_score(energy, exact[3])) < 4
        for i in range(len(theta)):
            assert abs(z_score(gradients[:, i], exact[1][i])) < 4
            for j in range(i + 1):
                assert abs(z_score(beta**2 * away[:, i] * away[:, j], exact[2][i, j])) < 4
        # The mean of exp(-beta W) of an instantaneous change of theta (Jarzynski, Phys. Rev. Lett. 78, 2690, 1997).
        factor = np.exp(-beta * (potential.energies(x, other) - energy - (there[0] - exact[0])))
        assert abs(z_score(factor, 1.0)) < 4


def test_free_energy_behind_a_barrier():
    """All particles used to start in one well, and Crooks' relation holds inside one well too."""
    potential, start, end, _, _ = CASES["barrier"]
    result = free_energy.measure(potential=potential, start=start, end=end, duration=0.5, particles=2048)
    exact = truth("barrier", end)[0] - truth("barrier", start)[0]
    assert exact == pytest.approx(-1.314435, abs=1e-6)
    assert abs(result.delta_f.z(exact)) < 4


@pytest.mark.slow
def test_errors_of_draws_behind_a_barrier_are_calibrated():
    potential, _, theta, _, _ = CASES["barrier"]
    mean, fisher = (truth("barrier", theta)[i] for i in (1, 2))
    system, z = System(potential), []
    for seed in range(64):
        x = system.equilibrium(theta, 4096, seed=seed)[0].T
        means = potential.gradients(x, theta)[[0, 4]].reshape(2, 4, 1024).mean(axis=2)
        z.append((means - mean[[0, 4], None]) / np.sqrt(np.diag(fisher)[[0, 4], None] / 1024))
    reduced = np.mean(np.square(z), axis=(0, 2))
    assert np.all((reduced > 0.7) & (reduced < 1.4))  # four standard deviations of a chi^2 of 256
    assert np.all(np.abs(np.mean(z, axis=(0, 2))) < 4 / 16)


def test_replicas_and_noise():
    potential, start, end, _, _ = CASES["barrier"]
    system = System(potential)
    x = system.equilibrium([start, end], 3000, replicas=2, seed=4)
    assert np.array_equal(x[0], system.equilibrium(start, 3000, seed=4)[0])
    assert abs(np.corrcoef(x[0, 0], x[1, 0])[0, 1]) < 4 / np.sqrt(3000)
    assert system.equilibrium(start, 10, precision="float32").dtype == np.float32


def test_threads_change_no_bit_of_draws(on_threads):
    potential, start, _, _, _ = CASES["barrier"]

    def draw():
        annealing.propose.cache_clear()
        wells.find.cache_clear()
        return System(potential).equilibrium(start, 3000, seed=4)

    one, two = (on_threads(threads, draw) for threads in (1, 2))
    assert np.array_equal(one, two)


# --- Units ------------------------------------------------------------------------------------------------------------


def in_units(length, energy):
    return Potential("double-well-in-units", *functions(
        f"theta[0] * ((x[0] / {length})**2 - 1)**2 + theta[1] * x[0] + 0.5 * {energy} * (x[1] / {length})**2"
        f" + 1e4 * {energy}",
        f"(-4 * theta[0] * x[0] / {length}**2 * ((x[0] / {length})**2 - 1) - theta[1], -{energy} * x[1] / {length}**2)",
        f"(((x[0] / {length})**2 - 1)**2, x[0])",
    ), ("b", "tilt"), (12.0 * energy, 0.0), 2)  # fmt: skip


def test_units_change_neither_draws_nor_steps():
    """A barrier between wells at +-200 nm, kT = 4.11e-21 J, beside the same in natural units."""
    results = []
    for length, kt in ((1.0, 1.0), (2e-7, 4.11e-21)):
        system = System(in_units(length, kt), beta=1 / kt, mobility=length**2 / kt)
        theta = (12 * kt, 0.5 * kt / length)
        x = system.equilibrium(theta, 8192, seed=2)[0] / length
        results.append(system.time_step(theta))
        density = lambda q: np.exp(-12 * (q * q - 1) ** 2 - 0.5 * q)  # noqa: E731
        q, weights = gauss(*FLAT)
        assert abs(z_score(x[0], weights @ (q * density(q)) / (weights @ density(q)))) < 4
        assert abs(z_score(x[1] ** 2, 1.0)) < 4
    assert results[1] == pytest.approx(results[0], rel=1e-4)


def test_time_steps_follow_the_fastest_relaxation():
    assert System("trap-and-stiffness", mobility=2.0).time_step((5.0, 4.0)) == pytest.approx(0.05 / 8)
    # E = x^4 / 4 reaches 3 kT at x^4 = 12, where its curvature is 3 x^2.
    assert System("quartic").time_step((1.0,)) == pytest.approx(0.05 / (3 * np.sqrt(12)), rel=0.01)
    assert System("quartic", beta=1e-16).time_step((1e-16,)) == pytest.approx(
        0.05 / (3 * np.sqrt(12) * 1e-16 * 1e16), rel=0.01
    )
    # b (x^2 - 1)^2 = 3 at x^2 = 3/2, where the curvature 4 b (3 x^2 - 1) is 168.
    potential, theta, _, _, _ = CASES["barrier"]
    assert time_step(System(potential), theta) == pytest.approx(0.05 / 168, rel=0.03)


# --- What is refused --------------------------------------------------------------------------------------------------


def test_no_equilibrium_is_refused():
    channel = Potential("channel", *functions("theta[0] * x[0]**2", "(-2 * theta[0] * x[0], 0.0)", "(x[0]**2,)"),
                        ("k",), (1.0,), 2)  # fmt: skip
    with pytest.raises(InputError, match=r"^theta is 1; the energy of channel does not confine x there"):
        System(channel).equilibrium((1.0,), 1024)


def test_populations_that_disagree_are_refused(monkeypatch):
    potential = CASES["barrier"][0]
    monkeypatch.setattr(annealing, "_agree", lambda *_: False)
    monkeypatch.setattr(annealing, "_COMPONENTS", (2, 2))
    with pytest.raises(
        RunError, match=r"two independent searches for the equilibrium of two-barriers at theta = .* do"
    ):
        System(potential).equilibrium((11.0, 0.0, 1.0, 0.0, 0.0), 1024)


def test_particles_that_take_no_fresh_draw_are_refused(monkeypatch):
    potential = CASES["barrier"][0]
    monkeypatch.setattr(annealing, "_COMPONENTS", (2,))
    monkeypatch.setattr(annealing, "_MOST_SWEEPS", 2)
    with pytest.raises(RunError, match="stay where they are for more than 2 sweeps"):
        System(potential).equilibrium((11.0, 0.0, 1.0, 0.0, 0.1), 1024)


def test_distributions_too_rough_for_a_grid_are_refused(monkeypatch):
    def never(*_, **__):
        raise quadrature.NotConverged("rough")

    monkeypatch.setattr(quadrature, "equilibrium", never)
    with pytest.raises(RunError, match="the distribution of x in double-well is too rough there"):
        System("double-well").equilibrium((1.234, 0.0), 10)
