"""How a mean at the end of a driven ensemble changes with its path of theta: exact for the steps that are taken.

The adjoint of `thermokernels.adjoint_path`.  Second derivatives of a potential come from its source, by forward-mode
differentiation of its force and its dE/dtheta (`derivatives`): exact to rounding, with no step to choose, and nothing
for its owner to write.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from thermokernels import adjoint_path
from thermokernels._jit import device_of
from thermorun.arrays import Array
from thermorun.errors import InputError, RunError, require_choice
from thermorun.potentials import compilation, derivatives, dynamics
from thermorun.potentials.potential import Potential
from thermorun.potentials.sources import from_text
from thermorun.streams import Noise

if TYPE_CHECKING:
    from thermorun.potentials.system import System

INTEGRATORS = adjoint_path.INTEGRATORS
# Of x (d, particles) and the works (particles,): a number, and its derivatives by both.
Objective = Callable[[Array, Array], tuple[float, Array, Array]]
# The share of theta by which coefficients of exact steps are differenced; the error is of fourth order in it.
_SHARE = 1e-3


@dataclass(frozen=True)
class PathGradient:
    """``value`` of an objective, and its derivatives by the path, ``by_path`` (steps + 1, p).

    ``by_start`` (d, particles) are those by the positions at the start.  ``x`` (d, particles) and ``work``
    (particles,) are where the ensemble ended.  Row 0 of the path counts as where the first jump begins, not as the
    theta whose equilibrium the start was drawn from.
    """

    value: float
    by_path: Array
    by_start: Array
    x: Array
    work: Array


def path_gradient(
    system: "System", start: Array, path: ArrayLike, dt: ArrayLike, integrator: str, noise: Noise,
    objective: Objective,
) -> PathGradient:  # fmt: skip
    """See ``System.path_gradient``; the objective is one of arrays."""
    potential = system.potential
    require_choice("integrator", integrator, INTEGRATORS)
    thetas = np.ascontiguousarray(potential.require_valid(path, "path"))
    x = np.array(start, order="C")
    if x.shape[:2] != (1, potential.dimension) or thetas.ndim != 2 or len(thetas) < 2:
        raise InputError(
            f"start has shape {x.shape} and path {thetas.shape}; they must be (1, {potential.dimension}, particles) and"
            f" (steps + 1, {len(potential.parameters)})."
        )
    steps = len(thetas) - 1
    times = dynamics.filled(np.asarray(dt, float), (steps,))
    table = dynamics.coefficients(system, integrator, times, thetas[None, 1:])
    table = dynamics.filled(table, (1, steps, table.shape[-1]))
    forward, backward = kernels(potential, integrator)
    kept = np.empty((math.isqrt(steps - 1) + 1, *x.shape[1:]), x.dtype)
    work, status = np.zeros((1, x.shape[2])), dynamics.new_status(1, x.shape[2])
    own = noise.dynamics.take(potential.dimension)
    forward(x, work, 0, table, thetas[None], own, kept, status)
    dynamics.require_converged(potential, x, status, float(times.max()))
    value, by_x, by_work = objective(x[0], work[0])
    slope, weight = dynamics.filled(by_x, (1, *x.shape[1:])), dynamics.filled(by_work, work.shape)
    if not (math.isfinite(value) and np.all(np.isfinite(slope)) and np.all(np.isfinite(weight))):
        raise RunError(f"the objective is {value:g}; it and its derivatives must be finite where the particles end.")
    count = len(potential.parameters)
    more = table.shape[-1] if integrator == "exact" else 0
    sums = np.empty((adjoint_path.TASKS, steps + 1, count + more))
    backward(kept, slope, weight, 0, table, thetas[None], own, sums)
    total = sums.sum(axis=0)
    by_path = total[:, :count].copy()
    if more:
        by_path[1:] += _through_coefficients(system, thetas[1:], times, total[1:, count:])
    return PathGradient(float(value), by_path, slope[0], x[0], work[0])


def _through_coefficients(system: "System", thetas: Array, times: Array, by_coefficients: Array) -> Array:
    """dJ/dtheta (steps, p) that goes through the coefficients of exact steps, by their difference quotients.

    Of fourth order: the mean and the stiffness of a quadratic energy are any functions of theta.
    """
    found = np.empty(thetas.shape)
    for j in range(thetas.shape[1]):
        step = _SHARE * np.maximum(np.abs(thetas[:, j]), _SHARE)[:, None]
        moved = thetas + step * np.array([-2.0, -1.0, 1.0, 2.0])[:, None, None] * np.eye(thetas.shape[1])[j]
        first, second, third, fourth = (dynamics.coefficients(system, "exact", times, one) for one in moved)
        slope = (8 * (third - second) - (fourth - first)) / (12 * step)
        found[:, j] = np.sum(by_coefficients * slope, axis=1)
    return found


@lru_cache(maxsize=64)
def kernels(potential: Potential, integrator: str) -> tuple[Any, Any]:
    """The kernels of `thermokernels.adjoint_path`, the same ones at every call.

    Raises InputError for a potential whose force and dE/dtheta cannot be differentiated.
    """
    d, p = potential.dimension, len(potential.parameters)
    functions = potential.energy, potential.force, potential.gradient
    return compilation.path_gradient(functions, second(potential), d, p, integrator, potential.domain.plain)


def second(potential: Potential) -> tuple[Any, Any]:
    """The derivatives of force and dE/dtheta by x along v; where their sources do not tell, from that of the energy."""
    d, p = potential.dimension, len(potential.parameters)
    try:
        return tuple(map(partial(_along, d), (potential.force, potential.gradient), (0 if d == 1 else d, p)))
    except InputError:
        made = derivatives.of(potential.energy, d, p)
        return tuple(map(partial(_along, d), made, (0 if d == 1 else d, p)))


def _along(dimension: int, function: Any, elements: int) -> Any:
    return derivatives.along(function, dimension, elements)


def mean_of(function: Callable[..., float], dimension: int) -> Objective:
    """The mean over the particles of ``function(x, work)``, a scalar function that Numba compiles, as an objective.

    x is a float, or in more dimensions a tuple of them.  Raises InputError where it cannot be differentiated.
    """
    names = derivatives.arguments(function)
    if len(names) != 2:
        raise InputError(f"objective has {len(names)} arguments; it must have two, x and work.")
    places = [None] if dimension == 1 else list(range(dimension))
    value = device_of(function)
    slopes = [derivatives.partial(function, (names[0], k)) for k in places]
    by_work = derivatives.partial(function, (names[1], None))
    return _averaged(value, tuple(slopes), by_work)


def _averaged(value: Any, slopes: tuple[Any, ...], by_work: Any) -> Objective:
    d = len(slopes)
    point = "x[0, i]" if d == 1 else f"({', '.join(f'x[{k}, i]' for k in range(d))})"
    lines = [f"        out[{k}, i] = s{k}({point}, work[i])" for k in range(d)]
    text = (
        "def function(x, work, out):\n    for i in range(work.size):\n"
        + "\n".join(lines) + f"\n        out[{d}, i] = by_work({point}, work[i])\n"
        f"        out[{d + 1}, i] = value({point}, work[i])\n"
    )  # fmt: skip
    space = {f"s{k}": one for k, one in enumerate(slopes)} | {"by_work": by_work, "value": value}
    compiled = njit(from_text(text, space), error_model="numpy")

    def objective(x: Array, work: Array) -> tuple[float, Array, Array]:
        out = np.empty((d + 2, work.size))
        compiled(x, work, out)
        return float(np.mean(out[d + 1])), out[:d] / work.size, out[d] / work.size

    return objective
