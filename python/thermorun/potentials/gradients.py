"""How a mean at the end of a driven ensemble changes with its path of theta: exact for the steps that are taken.

The adjoint of `thermokernels.adjoint_path`.  Second derivatives of a potential come from its source, by forward-mode
differentiation of its force and its dE/dtheta (`derivatives`): exact to rounding, with no step to choose, and nothing
for its owner to write.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from thermokernels import adjoint_path
from thermokernels._jit import device_of
from thermorun.arrays import Array
from thermorun.errors import InputError, RunError, require_choice
from thermorun.potentials import compilation, derivatives, dynamics, sampling
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
# So many particles tell how stiff the energies are that an ensemble meets.
_MET = 256


@dataclass(frozen=True)
class PathGradient:
    """``value`` of an objective, and its derivatives by the path, ``by_path`` (steps + 1, p).

    ``by_start`` (d, particles) are those by the positions at the start.  ``x`` (d, particles) and ``work``
    (particles,) are where the ensemble ended.  Row 0 of the path counts as where the first jump begins, not as the
    theta whose equilibrium the start was drawn from.  ``stiffest`` is the largest dt times mobility times curvature
    that some particles met, at about sqrt(steps) times: errors of steps grow with it; 0 where steps are exact.
    """

    value: float
    by_path: Array
    by_start: Array
    x: Array
    work: Array
    stiffest: float


def path_gradient(
    system: "System", start: Array, path: ArrayLike, dt: ArrayLike, integrator: str, noise: Noise,
    objective: Objective, mirrored: bool = False,
) -> PathGradient:  # fmt: skip
    """See ``System.path_gradient``; the objective is one of arrays.

    ``mirrored`` turns the sign of the noise for the second half of the particles, which take that of the first half:
    antithetic pairs, of which the mean of all that is odd in the noise has no error.
    """
    trip = _Trip(system, start, path, dt, integrator, noise, mirrored)
    x, work = trip.forward()
    value, by_x, by_work = objective(x[0], work[0])
    slope, weight = dynamics.filled(by_x, x.shape), dynamics.filled(by_work, work.shape)
    if not (math.isfinite(value) and np.all(np.isfinite(slope)) and np.all(np.isfinite(weight))):
        raise RunError(f"the objective is {value:g}; it and its derivatives must be finite where the particles end.")
    by_path = trip.backward(slope, weight)
    return PathGradient(float(value), by_path, slope[0], x[0], work[0], trip.stiffest())


def ends(
    system: "System",
    start: Array,
    path: ArrayLike,
    dt: ArrayLike,
    integrator: str,
    noise: Noise,
    mirrored: bool = False,
) -> tuple[Array, Array]:
    """Where the ensemble of `path_gradient` ends: x (1, d, particles) and work (1, particles)."""
    return _Trip(system, start, path, dt, integrator, noise, mirrored).forward()


class _Trip:
    """An ensemble on its way along a path, and back."""

    def __init__(
        self, system: "System", start: Array, path: ArrayLike, dt: ArrayLike, integrator: str, noise: Noise,
        mirrored: bool,
    ) -> None:  # fmt: skip
        potential = system.potential
        require_choice("integrator", integrator, INTEGRATORS)
        self.thetas = np.ascontiguousarray(potential.require_valid(path, "path"))
        self.x = np.array(start, order="C")
        if self.x.shape[:2] != (1, potential.dimension) or self.thetas.ndim != 2 or len(self.thetas) < 2:
            raise InputError(
                f"start has shape {self.x.shape} and path {self.thetas.shape}; they must be (1,"
                f" {potential.dimension}, particles) and (steps + 1, {len(potential.parameters)})."
            )
        self.system, self.integrator = system, integrator
        steps, particles = len(self.thetas) - 1, self.x.shape[2]
        self.times = dynamics.filled(np.asarray(dt, float), (steps,))
        self.table = dynamics.coefficients(system, integrator, self.times, self.thetas[1:])[None]
        self.noise = noise.dynamics.take(potential.dimension)
        # What multiplies the noise comes last in a row of coefficients.
        d = potential.dimension
        turned = np.ones(self.table.shape[-1])
        turned[d + d * d if integrator == "exact" else 1 :] = -1.0
        half = particles // 2
        self.parts = [(slice(0, half), np.ones_like(turned)), (slice(half, particles), turned)]
        self.parts = self.parts if mirrored else [(slice(0, particles), np.ones_like(turned))]
        self.kept: list[Array] = []

    def forward(self) -> tuple[Array, Array]:
        """Positions (1, d, particles) and works (1, particles) at the end.  Raises RunError where particles diverge."""
        potential, work = self.system.potential, np.zeros((1, self.x.shape[2]))
        advance, _ = kernels(potential, self.integrator)
        for part, signs in self.parts:
            x, own = np.ascontiguousarray(self.x[..., part]), np.zeros((1, part.stop - part.start))
            status = dynamics.new_status(1, x.shape[2])
            kept = np.empty((math.isqrt(len(self.times) - 1) + 1, *x.shape[1:]), x.dtype)
            advance(x, own, 0, self.table * signs, self.thetas[None], self.noise, kept, status)
            dynamics.require_converged(potential, x, status, float(self.times.max()))
            self.x[..., part], work[..., part] = x, own
            self.kept.append(kept)
        return self.x, work

    def stiffest(self) -> float:
        """See `PathGradient`."""
        if self.integrator == "exact":
            return 0.0
        potential, met = self.system.potential, np.asarray(self.kept[0][..., :_MET], float)
        steps = len(self.times)
        at = np.arange(0, steps, math.ceil(steps / len(met)))
        stiff = [
            dt * sampling.curvature(potential, tuple(theta.tolist()), x.T)
            for dt, theta, x in zip(self.times[at], self.thetas[1:][at], met, strict=False)
        ]
        return self.system.mobility * float(np.max(stiff))

    def backward(self, slope: Array, weight: Array) -> Array:
        """dJ/dtheta along the path (steps + 1, p), of dJ/dx (1, d, particles), which becomes that at the start, and
        dJ/dW."""
        count, by_path = len(self.system.potential.parameters), np.zeros(self.thetas.shape)
        _, retreat = kernels(self.system.potential, self.integrator)
        more = self.table.shape[-1] if self.integrator == "exact" else 0
        for (part, signs), kept in zip(self.parts, self.kept, strict=True):
            sums = np.empty((adjoint_path.TASKS, len(self.thetas), count + more))
            own, table = np.ascontiguousarray(slope[..., part]), self.table * signs
            retreat(kept, own, np.ascontiguousarray(weight[..., part]), 0, table, self.thetas[None], self.noise, sums)
            slope[..., part] = own
            total = sums.sum(axis=0)
            by_path += total[:, :count]
            if more:
                by_table = total[1:, count:] * signs
                by_path[1:] += _through_coefficients(self.system, self.thetas[1:], self.times, by_table)
        return by_path


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
    made: tuple[Any, Any] = compilation.path_gradient(
        functions, second(potential), d, p, integrator, potential.domain.plain
    )
    return made


def second(potential: Potential) -> tuple[Any, Any]:
    """The derivatives of force and dE/dtheta by x along v; where their sources do not tell, from that of the energy."""
    d, p = potential.dimension, len(potential.parameters)

    def both(force: Any, gradient: Any) -> tuple[Any, Any]:
        return derivatives.along(force, d, 0 if d == 1 else d), derivatives.along(gradient, d, p)

    try:
        return both(potential.force, potential.gradient)
    except InputError:
        return both(*derivatives.of(potential.energy, d, p))


def mean_of(function: Callable[..., float], dimension: int) -> Objective:
    """The mean over the particles of ``function(x, work)``, a scalar function that Numba compiles, as an objective.

    x is a float, or in more dimensions a tuple of them.  Raises InputError where it cannot be differentiated.
    """
    names = derivatives.arguments(function)
    if len(names) != 2:
        raise InputError(f"objective has {len(names)} arguments; it must have two, x and work.")
    places = [None] if dimension == 1 else list(range(dimension))
    try:
        slopes = [derivatives.partial(function, (names[0], k)) for k in places]
        by_work = derivatives.partial(function, (names[1], None))
    except InputError as error:  # whose sentence is about energies
        raise InputError(str(error).partition(": give")[0].replace("energy", "objective") + ".") from error
    return _averaged(device_of(function), tuple(slopes), by_work)


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
