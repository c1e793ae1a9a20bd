"""Does a potential contradict itself?  Asked of every user's potential before it runs."""

import numpy as np
from numba.core.errors import NumbaError
from numpy.typing import ArrayLike

from thermorun.arrays import Array
from thermorun.errors import InputError, words
from thermorun.potentials.potential import Potential


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
            raise InputError(f"{what} of {potential.name} is not finite at x = {words(x[bad[0]])}.")
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
            f"energy of {potential.name} does not rise along x = s {words(directions[worst])}: it is"
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
            f"{part} of {potential.name} is not {meant}: at x = {words(x[worst])} it is {given[worst]:.6g},"
            f" not {truth[worst]:.6g}."
        )


def _unit(rows: Array) -> Array:
    unit: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
