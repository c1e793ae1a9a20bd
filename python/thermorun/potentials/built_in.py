"""Potentials that are built in."""

import math
from collections.abc import Callable
from dataclasses import fields
from functools import cache, partial
from typing import Any

import numpy as np
from scipy.special import gammaln, ndtri

from thermokernels.langevin import device_of
from thermorun.arrays import Array
from thermorun.errors import InputError, require_count
from thermorun.potentials.potential import Point, Potential, Uniform, anywhere, exponential_family, register
from thermorun.potentials.sources import written

# Of the functions: to be raised for each potential whose law changes, since files know built-ins by name and version.
_VERSION = 1


class Family(Potential):
    """A built-in potential of a usual dimension that comes in others: ``chain`` has 8 units, ``chain(100)`` has 100."""

    def __call__(self, dimension: int) -> Potential:
        """The same in ``dimension`` dimensions."""
        return _sized(self.name.rpartition("-")[0] or self.name, require_count("dimension", dimension))


def named(name: str) -> Potential | None:
    """The built-in potential of a name, those of unusual dimensions too (``chain-100``); None where none has it."""
    family, _, dimension = name.rpartition("-")
    if family in _FAMILIES and dimension.isascii() and dimension.isdigit():
        return _sized(family, int(dimension))
    return _BUILT_IN.get(name)


@cache
def _sized(family: str, dimension: int) -> Potential:
    """One of a family, the same at every call."""
    if family not in _FAMILIES:
        raise InputError(f"potential is {family!r}; only {' and '.join(_FAMILIES)} come in several dimensions.")
    make, least = _FAMILIES[family]
    potential = make(require_count(f"dimension of {family}", dimension, least))
    return _BUILT_IN.get(potential.name) or register(potential, _VERSION)


# --- Quadratic energies -----------------------------------------------------------------------------------------------

Shape = Callable[[Point], tuple[Array, Array]]


def _normal(shape: Shape, theta: Point, beta: float, uniform: Uniform) -> Array:
    """Draws (count, d) from exp(-beta (x - m)^T K (x - m) / 2)."""
    precision, mean = shape(theta)
    root = np.linalg.inv(np.linalg.cholesky(precision)).T / math.sqrt(beta)
    draws: Array = mean + np.stack([ndtri(uniform()) for _ in mean], axis=1) @ root.T
    return draws


def _normal_free_energy(shape: Shape, theta: Point, beta: float) -> float:
    """-ln of the integral of exp(-beta (x - m)^T K (x - m) / 2), over beta."""
    precision, _ = shape(theta)
    return 0.5 * (float(np.linalg.slogdet(precision)[1]) + len(precision) * math.log(beta / (2 * math.pi))) / beta


def _quadratic(
    name: str,
    functions: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]],
    parameters: tuple[str, ...],
    points: tuple[Point, Point],
    shape: Shape,
    why_invalid: Callable[[Point], str | None] = anywhere,
    dimension: int = 1,
) -> Potential:
    return Potential(
        name, *functions, parameters, points[0], dimension, why_invalid, partial(_normal, shape),
        partial(_normal_free_energy, shape), shape, points[1],
    )  # fmt: skip


def _positive(name: str, index: int, theta: Point) -> str | None:
    return None if theta[index] > 0 else f"{name} is {theta[index]:g}; it must be positive."


def _trap_energy(x, theta):  # type: ignore[no-untyped-def]
    return 0.5 * (x - theta[0]) ** 2


def _trap_force(x, theta):  # type: ignore[no-untyped-def]
    return theta[0] - x


def _trap_gradient(x, theta):  # type: ignore[no-untyped-def]
    return (theta[0] - x,)


def _trap_shape(theta: Point) -> tuple[Array, Array]:
    return np.eye(1), np.array(theta)


# E = (x - centre)^2 / 2 (Hnybida & Verret 2025, Eq. 10).
trap = _quadratic("trap", (_trap_energy, _trap_force, _trap_gradient), ("centre",), ((0.0,), (1.0,)), _trap_shape)


def _stiffness_energy(x, theta):  # type: ignore[no-untyped-def]
    return 0.5 * theta[0] * x * x


def _stiffness_force(x, theta):  # type: ignore[no-untyped-def]
    return -theta[0] * x


def _stiffness_gradient(x, theta):  # type: ignore[no-untyped-def]
    return (0.5 * x * x,)


def _stiffness_shape(theta: Point) -> tuple[Array, Array]:
    return np.array([theta]), np.zeros(1)


# E = stiffness x^2 / 2.
stiffness = _quadratic(
    "stiffness", (_stiffness_energy, _stiffness_force, _stiffness_gradient), ("stiffness",), ((1.0,), (3.0,)),
    _stiffness_shape, partial(_positive, "stiffness", 0),
)  # fmt: skip


def _both_energy(x, theta):  # type: ignore[no-untyped-def]
    return 0.5 * theta[1] * (x - theta[0]) ** 2


def _both_force(x, theta):  # type: ignore[no-untyped-def]
    return theta[1] * (theta[0] - x)


def _both_gradient(x, theta):  # type: ignore[no-untyped-def]
    return (theta[1] * (theta[0] - x), 0.5 * (x - theta[0]) ** 2)


def _both_shape(theta: Point) -> tuple[Array, Array]:
    return np.array([[theta[1]]]), np.array([theta[0]])


# E = stiffness (x - centre)^2 / 2.
trap_and_stiffness = _quadratic(
    "trap-and-stiffness", (_both_energy, _both_force, _both_gradient), ("centre", "stiffness"),
    ((0.0, 1.0), (1.0, 2.0)), _both_shape, partial(_positive, "stiffness", 1),
)  # fmt: skip


def _gaussian_shape(d: int, theta: Point) -> tuple[Array, Array]:
    precision = np.empty((d, d))
    rows, columns = np.triu_indices(d)
    precision[rows, columns] = precision[columns, rows] = theta[d:]
    return precision, np.array(theta[:d])


def _gaussian_invalid(d: int, theta: Point) -> str | None:
    least = float(np.linalg.eigvalsh(_gaussian_shape(d, theta)[0])[0])
    return None if least > 0 else f"the precision has an eigenvalue of {least:g}; all must be positive."


def _gaussian(d: int) -> Potential:
    """E = (x - m)^T K (x - m) / 2, parameters m and the upper triangle of the precision K, row by row."""
    pairs = [(i, j) for i in range(d) for j in range(i, d)]
    name_of = {pair: f"theta[{d + n}]" for n, pair in enumerate(pairs)}
    away = [f"x[{i}] - theta[{i}]" if d > 1 else "x - theta[0]" for i in range(d)]
    pull = [" + ".join(f"{name_of[min(i, j), max(i, j)]} * ({away[j]})" for j in range(d)) for i in range(d)]
    products = [("0.5 * " if i == j else "") + f"({away[i]}) * ({away[j]})" for i, j in pairs]
    start = (0.0,) * d + tuple(float(i == j) for i, j in pairs)
    end = tuple(0.5 * (-1) ** i for i in range(d)) + tuple(
        (1.5 if i % 2 == 0 else 1.2) if i == j else (0.5 if j == i + 1 else 0.0) for i, j in pairs
    )
    return _quadratic(
        f"gaussian-{d}" if d != 2 else "gaussian",
        (
            written(" + ".join(f"0.5 * ({away[i]}) * ({pull[i]})" for i in range(d))),
            written(_tuple([f"-({row})" for row in pull], d)),
            written(_tuple([f"-({row})" for row in pull] + products)),
        ),
        (*(f"mean{i}" for i in range(d)), *(f"precision{i}{j}" for i, j in pairs)),
        (start, end),
        partial(_gaussian_shape, d),
        partial(_gaussian_invalid, d),
        d,
    )


def _chain_precision(d: int, theta: Point) -> Array:
    laplacian = 2 * np.eye(d) - np.eye(d, k=1) - np.eye(d, k=-1)
    laplacian[0, 0] = laplacian[-1, -1] = 1.0
    return theta[0] * np.eye(d) + theta[1] * laplacian


def _chain_shape(d: int, theta: Point) -> tuple[Array, Array]:
    precision = _chain_precision(d, theta)
    return precision, np.linalg.solve(precision, theta[2] * np.eye(d)[0])


def _chain_invalid(d: int, theta: Point) -> str | None:
    least = float(np.linalg.eigvalsh(_chain_precision(d, theta))[0])
    return None if least > 0 else f"its softest mode has a stiffness of {least:g}; all must be positive."


def _chain_free_energy(d: int, theta: Point, beta: float) -> float:
    shape = partial(_chain_shape, d)
    return _normal_free_energy(shape, theta, beta) - 0.5 * theta[2] * float(shape(theta)[1][0])


def _chain(d: int) -> Potential:
    """E = stiffness sum_i x_i^2 / 2 + coupling sum_i (x_i+1 - x_i)^2 / 2 - field x_0, with open ends.

    Pulled at one end and coupled from unit to unit, so that the field acts on all of them.
    """
    bonds = [f"(x[{i + 1}] - x[{i}])" for i in range(d - 1)]
    force = []
    for i in range(d):
        terms = [f"-theta[0] * x[{i}]"]
        terms += [f"theta[1] * {bonds[i]}"] if i < d - 1 else []
        terms += [f"-theta[1] * {bonds[i - 1]}"] if i else ["theta[2]"]
        force.append(" + ".join(terms))
    squares = "0.5 * (" + " + ".join(f"x[{i}] * x[{i}]" for i in range(d)) + ")"
    extensions = "0.5 * (" + " + ".join(f"{bond} * {bond}" for bond in bonds) + ")"
    shape = partial(_chain_shape, d)
    return Potential(
        "chain" if d == 8 else f"chain-{d}",
        written(f"theta[0] * {squares} + theta[1] * {extensions} - theta[2] * x[0]"),
        written(_tuple(force)),
        written(_tuple([squares, extensions, "-x[0]"])),
        ("stiffness", "coupling", "field"),
        (1.0, 1.0, 0.0),
        d,
        partial(_chain_invalid, d),
        partial(_normal, shape),
        partial(_chain_free_energy, d),
        shape,
        (1.5, 0.5, 1.0),
    )


def _tuple(elements: list[str], dimension: int = 0) -> str:
    return elements[0] if dimension == 1 else f"({''.join(element + ', ' for element in elements)})"


def _family(potential: Potential) -> Family:
    return Family(**{field.name: getattr(potential, field.name) for field in fields(potential)})


# How each family is made, and its smallest dimension.
_FAMILIES: dict[str, tuple[Callable[[int], Potential], int]] = {"gaussian": (_gaussian, 1), "chain": (_chain, 2)}
gaussian = _family(_gaussian(2))
chain = _family(_chain(8))


# --- Other energies ---------------------------------------------------------------------------------------------------


def _quartic_energy(x, theta):  # type: ignore[no-untyped-def]
    return 0.25 * theta[0] * x * x * x * x


def _quartic_force(x, theta):  # type: ignore[no-untyped-def]
    return -theta[0] * x * x * x


def _quartic_gradient(x, theta):  # type: ignore[no-untyped-def]
    return (0.25 * x * x * x * x,)


def _quartic_free_energy(theta: Point, beta: float) -> float:
    # Z = 2 Gamma(5/4) (4 / (beta strength))^(1/4)
    return -(math.log(2.0) + float(gammaln(1.25)) + 0.25 * math.log(4 / (beta * theta[0]))) / beta


# E = strength x^4 / 4.
quartic = Potential(
    "quartic", _quartic_energy, _quartic_force, _quartic_gradient, ("strength",), (1.0,),
    why_invalid=partial(_positive, "strength", 0), free_energy=_quartic_free_energy, target=(3.0,),
)  # fmt: skip


def _double_well_energy(x, theta):  # type: ignore[no-untyped-def]
    return theta[0] * (x * x - 1.0) * (x * x - 1.0) + theta[1] * x


def _double_well_force(x, theta):  # type: ignore[no-untyped-def]
    return -4.0 * theta[0] * x * (x * x - 1.0) - theta[1]


def _double_well_gradient(x, theta):  # type: ignore[no-untyped-def]
    return ((x * x - 1.0) * (x * x - 1.0), x)


# E = barrier (x^2 - 1)^2 + tilt x.
double_well = Potential(
    "double-well", _double_well_energy, _double_well_force, _double_well_gradient, ("barrier", "tilt"), (1.0, 0.0),
    why_invalid=partial(_positive, "barrier", 0), target=(1.5, 0.5),
)  # fmt: skip


def _bistable_base(x):  # type: ignore[no-untyped-def]
    return 0.25 * x * x * x * x


def _bistable_base_derivative(x):  # type: ignore[no-untyped-def]
    return x * x * x


def _bistable_features(x):  # type: ignore[no-untyped-def]
    return (-0.5 * x * x, -x)


def _bistable_feature_derivatives(x):  # type: ignore[no-untyped-def]
    return (-x, -1.0)


# E = x^4 / 4 - split x^2 / 2 - field x: one well for split < 0, two for split > 0.
bistable = exponential_family(
    "bistable", _bistable_base, _bistable_base_derivative, _bistable_features, _bistable_feature_derivatives,
    ("split", "field"), (1.0, 0.0), target=(0.3, 0.5),
)  # fmt: skip


@device_of
def _log_ratio(x, theta):  # type: ignore[no-untyped-def]
    """ln of the second term of the mixture over the first."""
    return theta[2] + 0.5 * ((x - theta[0]) ** 2 - (x - theta[1]) ** 2)


@device_of
def _second(x, theta):  # type: ignore[no-untyped-def]
    """How likely x comes from the second term."""
    return 1.0 / (1.0 + math.exp(-_log_ratio(x, theta)))


def _mixture_energy(x, theta):  # type: ignore[no-untyped-def]
    a = _log_ratio(x, theta)
    return 0.5 * (x - theta[0]) ** 2 - max(a, 0.0) - math.log1p(math.exp(-abs(a)))


def _mixture_force(x, theta):  # type: ignore[no-untyped-def]
    return theta[0] - x + _second(x, theta) * (theta[1] - theta[0])


def _mixture_gradient(x, theta):  # type: ignore[no-untyped-def]
    w = _second(x, theta)
    return (1.0 - w) * (theta[0] - x), w * (theta[1] - x), -w


# E = -ln(exp(-(x - left)^2 / 2) + exp(log_odds - (x - right)^2 / 2)): at beta = 1 a mixture of two normals.
mixture = Potential(
    "mixture", _mixture_energy, _mixture_force, _mixture_gradient, ("left", "right", "log_odds"), (-1.5, 1.5, 0.0),
    target=(-1.0, 2.0, 0.7),
)  # fmt: skip

_BUILT_IN = {
    potential.name: register(potential, _VERSION)
    for potential in (
        trap, stiffness, trap_and_stiffness, gaussian, double_well, quartic, bistable, chain, mixture,
    )
}  # fmt: skip
NAMES = tuple(_BUILT_IN)
