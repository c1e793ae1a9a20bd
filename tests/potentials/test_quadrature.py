"""Quadratures of equilibrium in one dimension, and closed forms of quadratic energies, against nested integrals."""

import math

import numpy as np
import pytest
from numba import njit
from scipy.integrate import quad
from scipy.linalg import expm

from thermorun.errors import InputError
from thermorun.potentials import Potential, System, gaussian
from thermorun.potentials.quadrature import NotConverged, equilibrium, free_energy


def trap(x, theta):
    return 0.5 * theta[1] * (x - theta[0]) ** 2


def trap_gradient(x, theta):
    return theta[1] * (theta[0] - x), 0.5 * (x - theta[0]) ** 2


def double_well(x, theta):
    return theta[0] * (x * x - 1) ** 2 + theta[1] * x


def double_well_gradient(x, theta):
    return (x * x - 1) ** 2, x


@njit
def wavy(x, theta):
    return 0.25 * theta[0] * x**4 + theta[1] * math.cos(2.0 * x)


@njit
def wavy_gradient(x, theta):
    return 0.25 * x**4, math.cos(2.0 * x)


@pytest.mark.parametrize(("k", "beta", "mu"), [(1.0, 1.0, 1.0), (3.0, 2.0, 0.7), (1e6, 0.5, 2.0), (1e-4, 1.0, 1.0)])
def test_quadrature_of_the_trap_is_the_closed_form(k, beta, mu):
    found = equilibrium(trap, trap_gradient, (0.3, k), beta=beta, mobility=mu)
    assert found.free_energy == pytest.approx(0.5 * np.log(beta * k / (2 * np.pi)) / beta, abs=1e-12)
    np.testing.assert_allclose(np.diag(found.fisher), [beta * k, 0.5 / k**2], rtol=1e-10)
    np.testing.assert_allclose(np.diag(found.friction), [1 / mu, 0.25 / (mu * beta * k**3)], rtol=1e-10)
    np.testing.assert_allclose(np.diag(found.relaxation), [1 / (mu * k), 0.5 / (mu * k)], rtol=1e-10)
    for matrix in (found.fisher, found.friction):
        assert abs(matrix[0, 1]) < 1e-10 * np.sqrt(matrix[0, 0] * matrix[1, 1])
    assert np.isnan(found.relaxation[0, 1])
    assert found.moment(1) == pytest.approx(0.3, abs=1e-9)
    assert found.moment(2) == pytest.approx(0.09 + 1 / (beta * k), rel=1e-9)


def test_quadrature_of_a_double_well_is_that_of_nested_integrals():
    theta, mu = (2.5, 0.3), 0.7
    found = equilibrium(double_well, double_well_gradient, theta, mobility=mu)
    options = {"epsabs": 1e-13, "epsrel": 1e-12, "limit": 200}
    partition = quad(lambda x: np.exp(-double_well(x, theta)), -3, 3, **options)[0]
    density = lambda x: np.exp(-double_well(x, theta)) / partition  # noqa: E731
    assert found.log_partition == pytest.approx(np.log(partition), abs=1e-11)
    means = [quad(lambda x, i=i: double_well_gradient(x, theta)[i] * density(x), -3, 3, **options)[0] for i in (0, 1)]
    np.testing.assert_allclose(found.mean_gradient, means, rtol=1e-9)

    def moved(i, x):
        score = lambda y: (means[i] - double_well_gradient(y, theta)[i]) * density(y)  # noqa: E731
        return quad(score, -3, x, **options)[0] if x < 0 else -quad(score, x, 3, **options)[0]

    for i, j in ((0, 0), (0, 1), (1, 1)):
        inner = lambda x, i=i, j=j: moved(i, x) * moved(j, x) / density(x)  # noqa: E731
        value = quad(inner, -2.2, 2.2, epsabs=1e-9, epsrel=1e-8)[0] / mu
        assert found.friction[i, j] == pytest.approx(value, rel=1e-7)


def test_quadrature_takes_compiled_functions():
    compiled = equilibrium(wavy, wavy_gradient, (1.0, 0.7))
    plain = equilibrium(
        lambda x, theta: 0.25 * theta[0] * x**4 + theta[1] * np.cos(2 * x),
        lambda x, theta: (0.25 * x**4, np.cos(2 * x)),
        (1.0, 0.7),
    )
    np.testing.assert_allclose(compiled.friction, plain.friction, rtol=1e-12)


@pytest.mark.parametrize(
    ("energy", "sentence"),
    [
        (lambda x, theta: -x * x, "does not confine"),
        (lambda x, theta: x, "does not confine"),
        (lambda x, theta: np.nan * x, "not finite"),
    ],
)
def test_no_equilibrium_is_said(energy, sentence):
    with pytest.raises(InputError, match=sentence):
        equilibrium(energy, trap_gradient, (0.0, 1.0))


def test_closed_forms_of_quadratic_potentials():
    """In one dimension against the quadrature; in two, the linear part from a matrix exponential."""
    theta, beta, mu = (0.3, 2.0), 1.5, 0.7
    by_quadrature = equilibrium(trap, trap_gradient, theta, beta=beta, mobility=mu)
    by_form = System("trap-and-stiffness", beta, mu).exact(theta)
    for name in ("fisher", "friction", "free_energy", "mean_gradient"):
        np.testing.assert_allclose(getattr(by_form, name), getattr(by_quadrature, name), rtol=1e-9, atol=1e-12)
    two = System(gaussian, beta, mu).exact((0.2, -0.1, 2.0, 0.5, 1.0))
    precision = np.array([[2.0, 0.5], [0.5, 1.0]])
    integral = quad(
        lambda t: (precision @ expm(-mu * precision * t) @ np.linalg.inv(precision) @ precision)[0, 0], 0, 60
    )
    assert two.friction[0, 0] == pytest.approx(integral[0], rel=1e-7)
    assert two.fisher[0, 1] == pytest.approx(beta * 0.5)


# --- Structure --------------------------------------------------------------------------------------------------------


def pinhole(x, theta):
    """A well of depth theta[0] and width theta[1], far narrower than the trap around it."""
    return 0.5 * x * x - theta[0] * np.exp(-0.5 * ((x - 1.2345) / theta[1]) ** 2)


def pinhole_gradient(x, theta):
    return (-np.exp(-0.5 * ((x - 1.2345) / theta[1]) ** 2),)


def pinhole_sum(depth, s, power=0):
    """The integral of b^power exp(-beta E), b the shape of the well: exp(D b) is a series, b^n a narrower Gaussian."""
    total, term = 0.0, 1.0
    for n in range(200):
        width = s * s / (n + power) if n + power else np.inf
        part = 1.0 if np.isinf(width) else np.sqrt(width / (1 + width)) * np.exp(-0.5 * 1.2345**2 / (1 + width))
        total += term * part * np.sqrt(2 * np.pi)
        term *= depth / (n + 1)
    return total


@pytest.mark.parametrize(
    ("depth", "s"), [(12.0, 1e-3), (8.0, 3e-3), (12.0, 1e-4), (14.0, 3e-5), (30.0, 1e-3), (12.0, 0.02), (4.0, 0.3)]
)
def test_wells_that_coarse_panels_miss_are_found(depth, s):
    norm = pinhole_sum(depth, s)
    assert free_energy(pinhole, (depth, s)) == pytest.approx(-np.log(norm), abs=1e-9)
    found = equilibrium(pinhole, pinhole_gradient, (depth, s))
    mean, square = (pinhole_sum(depth, s, power) / norm for power in (1, 2))
    assert found.mean_gradient[0] == pytest.approx(-mean, rel=1e-8)
    assert found.fisher[0, 0] == pytest.approx(square - mean**2, rel=1e-7)


def test_the_free_energies_of_the_report():
    start = free_energy(pinhole, (0.0, 0.001))
    assert free_energy(pinhole, (12.0, 0.001)) - start == pytest.approx(-3.166, abs=5e-4)
    assert free_energy(pinhole, (8.0, 0.003)) - start == pytest.approx(-0.94018, abs=5e-6)


def test_corners_poles_and_walls_are_halved_around():
    corner = equilibrium(lambda x, theta: theta[0] * abs(x - 0.123), lambda x, theta: (abs(x - 0.123),), (2.0,))
    # Of E = k |y|: F = ln(k / 2), g = 1 / k^2, zeta = integral of x^2 exp(-k x) k / (2 k^2) / ... = 1 / k^3.
    assert corner.free_energy == pytest.approx(0.0, abs=1e-9)
    assert (corner.fisher[0, 0], corner.friction[0, 0]) == pytest.approx((0.25, 0.125), rel=1e-8)
    with np.errstate(divide="ignore"):
        # Z is the second moment of a normal variable; and the integral of exp(-a / x^2 - x^2 / 2).
        pole = free_energy(lambda x, theta: 0.5 * x * x - 2 * theta[0] * np.log(abs(x)), (1.0,))
        core = free_energy(lambda x, theta: 0.5 * x * x + theta[0] / x**2, (1.0,))
    assert pole == pytest.approx(-0.5 * np.log(2 * np.pi), abs=1e-9)
    assert core == pytest.approx(np.sqrt(2) - 0.5 * np.log(2 * np.pi), abs=1e-9)
    wall = free_energy(lambda x, theta: np.where((x > 0.1) & (x < 1.3), theta[0] * x, np.inf), (2.0,))
    assert wall == pytest.approx(-np.log(0.5 * (np.exp(-0.2) - np.exp(-2.6))), abs=1e-8)


@pytest.mark.parametrize("scale", [2.0**-40, 1.0, 2.0**50])
def test_units_do_not_matter(scale):
    at, theta = lambda x: x / scale - 3.0, (20.0, 0.3)
    found = equilibrium(
        lambda x, theta: double_well(at(x), theta), lambda x, theta: double_well_gradient(at(x), theta), theta
    )
    natural = equilibrium(double_well, double_well_gradient, theta)
    assert found.free_energy + np.log(scale) == pytest.approx(natural.free_energy, abs=1e-8)
    np.testing.assert_allclose(found.fisher, natural.fisher, rtol=1e-6)


def test_a_large_constant_of_the_energy_does_not_matter():
    found = equilibrium(lambda x, theta: double_well(x, theta) - 1e8, double_well_gradient, (1.0, 0.3))
    natural = equilibrium(double_well, double_well_gradient, (1.0, 0.3))
    assert found.free_energy + 1e8 == pytest.approx(natural.free_energy, abs=1e-6)
    np.testing.assert_allclose(found.friction, natural.friction, rtol=1e-6)


def test_what_does_not_converge_is_absent_and_stops_nothing():
    rough = lambda x, theta: 0.5 * x * x + theta[0] * np.sin(1e9 * x * x)  # noqa: E731
    with pytest.raises(NotConverged, match="do not converge"):
        free_energy(rough, (1.0,))
    # Two wells without a way between them have no friction; their free energy is known.
    core = Potential(
        "core", lambda x, theta: 0.5 * x * x + theta[0] / (x * x), lambda x, theta: -x + 2 * theta[0] / (x * x * x),
        lambda x, theta: (1 / (x * x),), ("a",), (1.0,),
    )  # fmt: skip
    assert System(core).exact((1.0,)) is None
