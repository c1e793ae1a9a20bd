"""Potentials E(x, theta): what is built in, what a user writes, and what is checked before either runs.

An ensemble at theta has the density p_m(x, theta) = exp(-beta E) / Z (Hnybida & Verret 2025, Eq. 1).
"""

import importlib.util
import math
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numba.core.errors import NumbaError
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, ndtri

from thermokernels import langevin as ensemble
from thermorun.errors import InputError, short
from thermorun.potentials import compilation

Array = NDArray[np.float64]
Point = tuple[float, ...]
# Gives (count,) uniforms on (0, 1), fresh ones at every call.
Uniform = Callable[[], Array]


def _anywhere(theta: Point) -> str | None:
    return None


@dataclass(frozen=True)
class Potential:
    """An energy with parameters, in any dimension.

    ``energy(x, theta)``, ``force(x, theta)`` = -dE/dx and ``gradient(x, theta)`` = dE/dtheta are functions that Numba
    can compile, with or without ``@njit``.  In one dimension x is a float and so is the force; in d > 1 dimensions both
    are tuples of d floats.  theta and the gradient are always tuples, one float for each of ``parameters``.

    ``theta`` is a sensible default point.  ``why_invalid(theta)`` gives a sentence where theta lies outside the valid
    region (a negative stiffness, say), None inside.

    What is known exactly, each None where it is not: ``sample(theta, beta, uniform)`` gives exact equilibrium draws
    (count, d) from fresh uniforms; ``free_energy(theta, beta)`` is -ln Z / beta; ``quadratic(theta)`` is (K, m), shapes
    (d, d) and (d,), of an energy (x - m)^T K (x - m) / 2 plus anything that does not depend on x.
    """

    name: str
    energy: Callable[..., Any]
    force: Callable[..., Any]
    gradient: Callable[..., Any]
    parameters: tuple[str, ...]
    theta: Point
    dimension: int = 1
    why_invalid: Callable[[Point], str | None] = _anywhere
    sample: Callable[[Point, float, Uniform], Array] | None = None
    free_energy: Callable[[Point, float], float] | None = None
    quadratic: Callable[[Point], tuple[Array, Array]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(self.parameters))
        object.__setattr__(self, "theta", tuple(float(value) for value in self.theta))
        if not self.parameters:
            raise InputError(f"parameters of potential {self.name!r} is empty; it needs at least one.")
        if len(self.theta) != len(self.parameters):
            raise InputError(
                f"theta of potential {self.name!r} has {len(self.theta)} values; its parameters are"
                f" {', '.join(self.parameters)}."
            )
        if not isinstance(self.dimension, int) or self.dimension < 1:
            raise InputError(
                f"dimension of potential {self.name!r} is {self.dimension}; it must be an integer of at least 1."
            )

    def kernels(self, integrator: str = "euler-maruyama") -> compilation.Kernels:
        """The compiled kernels, the same ones at every call."""
        return compilation.kernels(
            self.energy, self.force, self.gradient, self.dimension, len(self.parameters), integrator
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the three functions; a potential that was changed has another."""
        return str(compilation.fingerprint((self.energy, self.force, self.gradient, self.dimension))[:16])

    def require_valid(self, theta: ArrayLike, name: str = "theta") -> Array:
        """``theta`` as an array.  Raises InputError where it is no valid point (or path of points) of the potential."""
        points = np.asarray(theta, float)
        if points.ndim == 0 or points.shape[-1] != len(self.parameters):
            given = 1 if points.ndim == 0 else points.shape[-1]
            raise InputError(
                f"{name} has {given} values; {self.name} has {len(self.parameters)} parameters,"
                f" {', '.join(self.parameters)}."
            )
        if not np.all(np.isfinite(points)):
            raise InputError(f"{name} holds numbers that are not finite; all must be.")
        for point in points.reshape(-1, len(self.parameters)):
            sentence = self.why_invalid(tuple(point.tolist()))
            if sentence is not None:
                raise InputError(f"{name} leaves the valid region of {self.name}: {sentence}")
        return points

    def evaluate(self, x: ArrayLike, theta: ArrayLike) -> tuple[Array, Array, Array]:
        """Energies (n,), forces (n, d) and gradients (n, p) at one theta (p,) and points (n,) or (n, d)."""
        points = np.asarray(x, float)
        points = points[:, None] if points.ndim == 1 else points
        values = np.empty((1, 1 + self.dimension + len(self.parameters), len(points)))
        self.kernels().evaluate(np.ascontiguousarray(points.T)[None], np.asarray(theta, float)[None], values)
        return values[0, 0], values[0, 1 : 1 + self.dimension].T, values[0, 1 + self.dimension :].T

    def energies(self, x: ArrayLike, theta: ArrayLike) -> Array:
        """E at points (n,) or (n, d) and one theta (p,)."""
        return self.evaluate(x, theta)[0]

    def gradients(self, x: ArrayLike, theta: ArrayLike) -> Array:
        """dE/dtheta at points (n,) or (n, d) and one theta (p,); (p, n)."""
        return self.evaluate(x, theta)[2].T


def exponential_family(
    name: str,
    base: Callable[..., Any],
    base_slope: Callable[..., Any],
    features: Callable[..., Any],
    feature_slopes: Callable[..., Any],
    parameters: tuple[str, ...],
    theta: Point,
    **rest: Any,
) -> Potential:
    """E = C(x) + theta . F(x) in one dimension, from C, dC/dx, F and dF/dx (Hnybida & Verret 2025, Eq. 59).

    F and dF/dx return tuples, one float for each of ``parameters``.  ``rest`` are other fields of ``Potential``.
    """
    given = {"c": base, "slope": base_slope, "f": features, "slopes": feature_slopes}
    known = {key: ensemble.device_of(function) for key, function in given.items()}

    def product(values: str) -> str:
        return " + ".join(f"theta[{j}] * {values}[{j}]" for j in range(len(parameters)))

    return Potential(
        name,
        _function(f"c(x) + {product('f(x)')}", **known),
        _function(f"-(slope(x) + {product('slopes(x)')})", **known),
        _function("f(x)", **known),
        parameters,
        theta,
        **rest,
    )


def check(potential: Potential, theta: ArrayLike | None = None) -> None:
    """Raises InputError where a potential contradicts itself at ``theta`` (its own by default).

    Finite values, force = -dE/dx and gradient = dE/dtheta by numerical derivatives at random points of several sizes,
    and an energy that rises along random directions, far out.
    """
    point = potential.require_valid(potential.theta if theta is None else theta)
    rng = np.random.default_rng(1)
    d = potential.dimension
    x = np.concatenate([scale * rng.standard_normal((32, d)) for scale in (0.3, 1.0, 3.0)])
    _compile(potential, point)
    energies, forces, gradients = potential.evaluate(x, point)
    for what, values in (("energy", energies), ("force", forces), ("gradient", gradients)):
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(x), -1)).all(axis=1))
        if len(bad):
            raise InputError(f"{what} of {potential.name} is not finite at x = {_numbers(x[bad[0]])}.")
    for k in range(d):
        step = 1e-3 * np.eye(d)[k]
        slope = _derivative([potential.energies(x + h * step, point) for h in _OFFSETS]) / 1e-3
        _compare(potential, "force", "minus the derivative of its energy by x", x, forces[:, k], -slope, k)
    for j, name in enumerate(potential.parameters):
        # Small enough to stay in the valid region, which the point may be close to.
        size = 1e-3 * (abs(point[j]) if point[j] else 1.0)
        step = size * np.eye(len(point))[j]
        slope = _derivative([potential.energies(x, point + h * step) for h in _OFFSETS]) / size
        _compare(potential, "gradient", f"the derivative of its energy by {name}", x, gradients[:, j], slope, j)
    directions = np.concatenate([np.eye(d), -np.eye(d), _unit(rng.standard_normal((64, d)))])
    far = np.stack([potential.energies(scale * directions, point) for scale in (1e3, 1e4)])
    falls = ~((far[1] > far[0]) | np.isposinf(far[1]))
    if np.any(falls):
        worst = int(np.flatnonzero(falls)[0])
        raise InputError(
            f"energy of {potential.name} does not rise along x = s {_numbers(directions[worst])}: it is"
            f" {far[0, worst]:.6g} at s = 1000 and {far[1, worst]:.6g} at s = 10000; it must be bounded below and grow."
        )


def _compile(potential: Potential, theta: Array) -> None:
    try:
        potential.evaluate(np.zeros((1, potential.dimension)), theta)
    except NumbaError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        told = next((line for line in lines if not line.startswith("Failed in")), lines[0])
        raise InputError(f"the functions of {potential.name} do not compile ({told}).") from error


_OFFSETS = (-2.0, -1.0, 1.0, 2.0)


def _derivative(values: list[Array]) -> Array:
    """The derivative at 0 of fourth order, from values at ``_OFFSETS``."""
    low, left, right, high = values
    slope: Array = (8 * (right - left) - (high - low)) / 12
    return slope


def _compare(potential: Potential, what: str, meant: str, x: Array, given: Array, truth: Array, index: int) -> None:
    scale = np.abs(truth) + 1e-3 * np.max(np.abs(truth)) + 1e-9
    worst = int(np.argmax(np.abs(given - truth) / scale))
    if abs(given[worst] - truth[worst]) > 1e-4 * scale[worst]:
        part = f"{what}[{index}]" if what == "gradient" or potential.dimension > 1 else what
        raise InputError(
            f"{part} of {potential.name} is not {meant}: at x = {_numbers(x[worst])} it is {given[worst]:.6g},"
            f" not {truth[worst]:.6g}."
        )


def _numbers(x: Array) -> str:
    inner = ", ".join(f"{value:.4g}" for value in x)
    return inner if len(x) == 1 else f"({inner})"


def _unit(rows: Array) -> Array:
    unit: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def load(name: str) -> Potential:
    """A potential by its name (one of ``NAMES``), or a user's own as ``FILE.py:NAME``, checked.  Raises InputError."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    file, _, variable = name.rpartition(":")
    if not file.endswith(".py"):
        raise InputError(f"potential is {name!r}; it must be one of {', '.join(NAMES)}, or FILE.py:NAME.")
    path = Path(file)
    if not path.is_file():
        raise InputError(f"potential is {name!r}, but the file {file} does not exist.")
    # Kernels carry the module's name in their symbols, so that two files must not have the same.
    spec = importlib.util.spec_from_file_location(f"potential_{zlib.crc32(bytes(path.resolve())):08x}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where compiled code that comes from the disk looks for it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"potential is {name!r}, but {file} cannot be run ({error}).") from error
    potential = getattr(module, variable, None)
    if not isinstance(potential, Potential):
        there = [key for key, value in vars(module).items() if isinstance(value, Potential)]
        raise InputError(
            f"potential is {name!r}, but {variable} is no Potential; {file} holds {', '.join(there) or 'none'}."
        )
    check(potential)
    return potential


def resolve(potential: "str | Potential") -> Potential:
    """A potential, or the one of a name: see ``load``."""
    if isinstance(potential, Potential):
        return potential
    if not isinstance(potential, str):
        raise InputError(f"potential is {short(potential)}; it must be a name, FILE.py:NAME, or a Potential.")
    file = Path(potential.rpartition(":")[0])
    return _loaded(potential, file.stat().st_mtime_ns if file.is_file() else 0)


@cache
def _loaded(name: str, changed: int) -> Potential:
    """The potential of a name, once for every change of its file, so that its kernels are compiled once."""
    return load(name)


# --- Built in ---------------------------------------------------------------------------------------------------------


def _positive(name: str, value: float) -> str | None:
    return None if value > 0 else f"{name} is {value:g}; it must be positive."


def _normal(precision: Array, mean: Array, beta: float, uniform: Uniform) -> Array:
    """Draws (count, d) from exp(-beta (x - m)^T K (x - m) / 2)."""
    root = np.linalg.inv(np.linalg.cholesky(precision)).T / math.sqrt(beta)
    draws: Array = mean + np.stack([ndtri(uniform()) for _ in mean], axis=1) @ root.T
    return draws


def _gaussian_free_energy(precision: Array, beta: float) -> float:
    return 0.5 * (float(np.linalg.slogdet(precision)[1]) + len(precision) * math.log(beta / (2 * math.pi))) / beta


def _quadratic(
    name: str,
    functions: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]],
    parameters: tuple[str, ...],
    theta: Point,
    shape: Callable[[Point], tuple[Array, Array]],
    why_invalid: Callable[[Point], str | None] = _anywhere,
    dimension: int = 1,
) -> Potential:
    return Potential(
        name, *functions, parameters, theta, dimension, why_invalid,
        lambda theta, beta, uniform: _normal(*shape(theta), beta, uniform),
        lambda theta, beta: _gaussian_free_energy(shape(theta)[0], beta),
        shape,
    )  # fmt: skip


@cache
def trap() -> Potential:
    """E = (x - centre)^2 / 2 (Hnybida & Verret 2025, Eq. 10)."""
    return _quadratic(
        "trap",
        (
            lambda x, theta: 0.5 * (x - theta[0]) ** 2,
            lambda x, theta: theta[0] - x,
            lambda x, theta: (theta[0] - x,),
        ),
        ("centre",),
        (0.0,),
        lambda theta: (np.eye(1), np.array(theta)),
    )


@cache
def stiffness() -> Potential:
    """E = stiffness x^2 / 2."""
    return _quadratic(
        "stiffness",
        (
            lambda x, theta: 0.5 * theta[0] * x * x,
            lambda x, theta: -theta[0] * x,
            lambda x, theta: (0.5 * x * x,),
        ),
        ("stiffness",),
        (1.0,),
        lambda theta: (np.array([theta]), np.zeros(1)),
        lambda theta: _positive("stiffness", theta[0]),
    )


@cache
def trap_and_stiffness() -> Potential:
    """E = stiffness (x - centre)^2 / 2."""
    return _quadratic(
        "trap-and-stiffness",
        (
            lambda x, theta: 0.5 * theta[1] * (x - theta[0]) ** 2,
            lambda x, theta: theta[1] * (theta[0] - x),
            lambda x, theta: (theta[1] * (theta[0] - x), 0.5 * (x - theta[0]) ** 2),
        ),
        ("centre", "stiffness"),
        (0.0, 1.0),
        lambda theta: (np.array([[theta[1]]]), np.array([theta[0]])),
        lambda theta: _positive("stiffness", theta[1]),
    )


@cache
def gaussian(dimension: int = 2) -> Potential:
    """E = (x - m)^T K (x - m) / 2, parameters m and the upper triangle of the precision K, row by row."""
    d = dimension
    pairs = [(i, j) for i in range(d) for j in range(i, d)]
    name_of = {pair: f"theta[{d + n}]" for n, pair in enumerate(pairs)}
    away = [f"x[{i}] - theta[{i}]" if d > 1 else "x - theta[0]" for i in range(d)]
    pull = [" + ".join(f"{name_of[min(i, j), max(i, j)]} * ({away[j]})" for j in range(d)) for i in range(d)]
    products = [("0.5 * " if i == j else "") + f"({away[i]}) * ({away[j]})" for i, j in pairs]

    def shape(theta: Point) -> tuple[Array, Array]:
        precision = np.empty((d, d))
        for (i, j), value in zip(pairs, theta[d:], strict=True):
            precision[i, j] = precision[j, i] = value
        return precision, np.array(theta[:d])

    def why_invalid(theta: Point) -> str | None:
        least = float(np.linalg.eigvalsh(shape(theta)[0])[0])
        return None if least > 0 else f"the precision has an eigenvalue of {least:g}; all must be positive."

    return _quadratic(
        f"gaussian-{d}" if d != 2 else "gaussian",
        (
            _function(" + ".join(f"0.5 * ({away[i]}) * ({pull[i]})" for i in range(d))),
            _function(_tuple([f"-({row})" for row in pull], d)),
            _function(_tuple([f"-({row})" for row in pull] + products)),
        ),
        (*(f"mean{i}" for i in range(d)), *(f"precision{i}{j}" for i, j in pairs)),
        (0.0,) * d + tuple(float(i == j) for i, j in pairs),
        shape,
        why_invalid,
        d,
    )


@cache
def chain(units: int = 8) -> Potential:
    """E = stiffness sum_i x_i^2 / 2 + coupling sum_i (x_i+1 - x_i)^2 / 2 - field x_0, with open ends.

    Pulled at one end and coupled from unit to unit, so that the field acts on all of them.
    """
    d = units
    bonds = [f"(x[{i + 1}] - x[{i}])" for i in range(d - 1)]
    force = []
    for i in range(d):
        terms = [f"-theta[0] * x[{i}]"]
        terms += [f"theta[1] * {bonds[i]}"] if i < d - 1 else []
        terms += [f"-theta[1] * {bonds[i - 1]}"] if i else ["theta[2]"]
        force.append(" + ".join(terms))
    squares = "0.5 * (" + " + ".join(f"x[{i}] * x[{i}]" for i in range(d)) + ")"
    stretch = "0.5 * (" + " + ".join(f"{bond} * {bond}" for bond in bonds) + ")"
    laplacian = 2 * np.eye(d) - np.eye(d, k=1) - np.eye(d, k=-1)
    laplacian[0, 0] = laplacian[-1, -1] = 1.0

    def shape(theta: Point) -> tuple[Array, Array]:
        precision = theta[0] * np.eye(d) + theta[1] * laplacian
        return precision, np.linalg.solve(precision, theta[2] * np.eye(d)[0])

    def why_invalid(theta: Point) -> str | None:
        least = float(np.linalg.eigvalsh(theta[0] * np.eye(d) + theta[1] * laplacian)[0])
        return None if least > 0 else f"its softest mode has a stiffness of {least:g}; all must be positive."

    def free_energy(theta: Point, beta: float) -> float:
        precision, mean = shape(theta)
        return _gaussian_free_energy(precision, beta) - 0.5 * theta[2] * float(mean[0])

    harmonic = _quadratic(
        "chain" if d == 8 else f"chain-{d}",
        (
            _function(f"theta[0] * {squares} + theta[1] * {stretch} - theta[2] * x[0]"),
            _function(_tuple(force)),
            _function(_tuple([squares, stretch, "-x[0]"])),
        ),
        ("stiffness", "coupling", "field"),
        (1.0, 1.0, 0.0),
        shape,
        why_invalid,
        d,
    )
    return replace(harmonic, free_energy=free_energy)


@cache
def quartic() -> Potential:
    """E = strength x^4 / 4."""

    def free_energy(theta: Point, beta: float) -> float:
        # Z = 2 Gamma(5/4) (4 / (beta strength))^(1/4)
        return -(math.log(2.0) + float(gammaln(1.25)) + 0.25 * math.log(4 / (beta * theta[0]))) / beta

    return Potential(
        "quartic",
        lambda x, theta: 0.25 * theta[0] * x * x * x * x,
        lambda x, theta: -theta[0] * x * x * x,
        lambda x, theta: (0.25 * x * x * x * x,),
        ("strength",),
        (1.0,),
        why_invalid=lambda theta: _positive("strength", theta[0]),
        free_energy=free_energy,
    )


@cache
def double_well() -> Potential:
    """E = barrier (x^2 - 1)^2 + tilt x."""
    return Potential(
        "double-well",
        lambda x, theta: theta[0] * (x * x - 1.0) * (x * x - 1.0) + theta[1] * x,
        lambda x, theta: -4.0 * theta[0] * x * (x * x - 1.0) - theta[1],
        lambda x, theta: ((x * x - 1.0) * (x * x - 1.0), x),
        ("barrier", "tilt"),
        (1.0, 0.0),
        why_invalid=lambda theta: _positive("barrier", theta[0]),
    )


@cache
def bistable() -> Potential:
    """E = x^4 / 4 - split x^2 / 2 - field x: one well for split < 0, two for split > 0."""
    return exponential_family(
        "bistable",
        lambda x: 0.25 * x * x * x * x,
        lambda x: x * x * x,
        lambda x: (-0.5 * x * x, -x),
        lambda x: (-x, -1.0),
        ("split", "field"),
        (1.0, 0.0),
    )


@cache
def mixture() -> Potential:
    """E = -ln(exp(-(x - left)^2 / 2) + exp(log_odds - (x - right)^2 / 2)): at beta = 1 a mixture of two normals."""

    def second(x, theta):  # type: ignore[no-untyped-def]
        """ln of the second term over the first."""
        return theta[2] + 0.5 * ((x - theta[0]) ** 2 - (x - theta[1]) ** 2)

    log_ratio = ensemble.device_of(second)

    def energy(x, theta):  # type: ignore[no-untyped-def]
        a = log_ratio(x, theta)
        return 0.5 * (x - theta[0]) ** 2 - max(a, 0.0) - math.log1p(math.exp(-abs(a)))

    def share(x, theta):  # type: ignore[no-untyped-def]
        return 1.0 / (1.0 + math.exp(-log_ratio(x, theta)))

    weight = ensemble.device_of(share)

    def force(x, theta):  # type: ignore[no-untyped-def]
        return theta[0] - x + weight(x, theta) * (theta[1] - theta[0])

    def gradient(x, theta):  # type: ignore[no-untyped-def]
        w = weight(x, theta)
        return (1.0 - w) * (theta[0] - x), w * (theta[1] - x), -w

    return Potential("mixture", energy, force, gradient, ("left", "right", "log_odds"), (-1.5, 1.5, 0.0))


def _tuple(elements: list[str], dimension: int = 0) -> str:
    return elements[0] if dimension == 1 else f"({''.join(element + ', ' for element in elements)})"


def _function(expression: str, **space: Any) -> Callable[..., Any]:
    """A function of x and theta, its loops over dimensions and parameters written out."""
    exec(f"def function(x, theta):\n    return {expression}\n", space)
    function: Callable[..., Any] = space["function"]
    return function


_BUILT_IN: dict[str, Callable[[], Potential]] = {
    "trap": trap,
    "stiffness": stiffness,
    "trap-and-stiffness": trap_and_stiffness,
    "gaussian": gaussian,
    "double-well": double_well,
    "quartic": quartic,
    "bistable": bistable,
    "chain": chain,
    "mixture": mixture,
}
NAMES = tuple(_BUILT_IN)


def built_in() -> Iterator[Potential]:
    """Every built-in potential."""
    return (make() for make in _BUILT_IN.values())
