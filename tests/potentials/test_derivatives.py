"""Derivatives made from the energy alone, against those that are written out by hand."""

import math

import numpy as np
import pytest
from numba import njit

from textbook import CASES
from thermorun.errors import InputError
from thermorun.potentials import NAMES, Potential, check, derivatives, gradients, load

SCALE = 0.7


@njit
def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@njit
def radius(x, centre):
    return math.hypot(x[0] - centre, x[1])


def ring(x, theta):
    """A ring of wells."""
    depth, size = theta
    r = radius(x, SCALE)
    total = 0.0
    for k in range(2):
        total += 0.5 * depth * x[k] ** 2 * 0.1
    if r > size:
        total = total + depth * (r - size) ** 2
    else:
        y = r - size
        y *= y
        total += depth * y
    return total + softplus(x[0] * theta[1]) + np.arctan2(x[1], 3.0 + x[0] ** 2)


def several(x, theta):
    a, b = theta[0] * x, x - theta[1]
    a, b = b, a
    return (
        math.exp(-a * a) + np.tanh(b) / (1 + a**2) + abs(x) ** 1.5 + theta[0] ** 2.0 * math.sqrt(1 + x * x)
        + 2.0 ** (0.1 * x) + math.erf(a) * math.cos(b) - math.atan(x) + max(x, a) - min(b, 0.3) + math.sinh(0.1 * x)
        + float(-x) + (math.floor(x) * x if x > 0 else 0.0) + np.square(x) + math.log(2 + math.sin(x))
    )  # fmt: skip


def quotient(function, value):
    """Complex steps do not know abs; so a difference of sixth order."""
    h = 1e-3
    return sum(c * (function(value + n * h) - function(value - n * h)) for n, c in ((1, 45), (2, -9), (3, 1))) / (
        60 * h
    )


@pytest.mark.parametrize("name", CASES)
def test_derivatives_of_textbook_potentials_are_those_by_hand(name):
    case = CASES[name]
    mine, d = case.made(name), len(case.force)
    force, gradient = derivatives.of(mine.energy, d, len(case.theta))
    rng, scale = np.random.default_rng(1), 1e-7 if case.kt < 1e-20 else 1.0
    for _ in range(20):
        x = rng.uniform(0.3, 1.2) * scale if d == 1 else tuple(rng.normal(size=d))
        theta = tuple(value * rng.uniform(0.9, 1.1) for value in case.theta)
        np.testing.assert_allclose(force(x, theta), mine.force(x, (*theta, 0.0)), rtol=1e-9)
        np.testing.assert_allclose(gradient(x, theta), mine.gradient(x, (*theta, 0.0))[:-1], rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_of_built_ins_are_theirs(name):
    potential = load(name)
    force, gradient = derivatives.of(potential.energy, potential.dimension, len(potential.parameters))
    x = np.random.default_rng(2).normal(size=potential.dimension)
    x = float(x[0]) if potential.dimension == 1 else tuple(x)
    np.testing.assert_allclose(force(x, potential.target), potential.force(x, potential.target), rtol=1e-12)
    np.testing.assert_allclose(gradient(x, potential.target), potential.gradient(x, potential.target), rtol=1e-12)


def test_statements_and_functions():
    force, gradient = derivatives.of(several, 1, 2)
    theta = (0.8, -0.3)
    for x in (-1.7, -0.2, 0.4, 1.6):
        assert -force(x, theta) == pytest.approx(quotient(lambda y: several(y, theta), x), rel=1e-8)
        for j in (0, 1):
            along = lambda t, x=x, j=j: several(x, (t, theta[1]) if j == 0 else (theta[0], t))  # noqa: E731
            assert gradient(x, theta)[j] == pytest.approx(quotient(along, theta[j]), rel=1e-8, abs=1e-10)


def test_a_potential_of_one_function_runs():
    mine = Potential("ring", ring, parameters=("depth", "size"), theta=(4.0, 1.5), dimension=2)
    check(mine)
    check(mine, (2.0, 1.0))
    half = Potential(
        "half", lambda x, t: t[0] * x**4, force=lambda x, t: -4 * t[0] * x**3, parameters=("k",), theta=(1,)
    )
    assert half.gradients([2.0], (1.0,)) == 16.0
    assert mine.fingerprint != half.fingerprint
    assert "def ring" in mine.source


@pytest.mark.parametrize(("energy", "dimension"), [(several, 1), (ring, 2)])
def test_derivatives_of_derivatives(energy, dimension):
    """Of force and dE/dtheta, along v: both were made from the energy, with functions and variables of their own."""
    mine = Potential("mine", energy, parameters=("a", "b"), theta=(0.8, 1.3), dimension=dimension)
    along = gradients.second(mine)
    theta, x, v = (0.8, 1.3), (0.4, -0.7)[:dimension], (0.9, -0.5)[:dimension]
    for made, function in zip(along, (mine.force, mine.gradient), strict=True):

        def moved(step, function=function):
            point = tuple(a + step * b for a, b in zip(x, v, strict=True))
            return np.asarray(function(point[0] if dimension == 1 else point, theta))

        found = made(*(x if dimension == 1 else (x,)), theta, *(v if dimension == 1 else (v,)))
        np.testing.assert_allclose(found, quotient(moved, 0.0), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("energy", "sentence"),
    [
        (lambda x, t: math.gamma(x) + t[0], "energy cannot be differentiated where it says 'math.gamma(x)'"),
        (
            lambda x, t: sum(t) * x,
            "energy cannot be differentiated where it says 'sum(t)': give force and",
        ),
        (lambda x: x, "energy has 1 arguments; it must have two, x and theta."),
        (eval("lambda x, t: t[0] * x"), "the source of energy is not at hand, so that it cannot be differentiated"),
    ],
)
def test_what_cannot_be_differentiated_is_one_sentence(energy, sentence):
    with pytest.raises(InputError) as caught:
        Potential("mine", energy, parameters=("t",), theta=(1.0,))
    assert sentence in str(caught.value)
