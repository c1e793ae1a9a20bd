"""Ensembles of any potential: equilibrium at the start, then steps along a path of theta.  Arrays in, arrays out.

    dx = -mu dE/dx dt + sqrt(2 mu kT) dB                                        (Hnybida & Verret 2025, Eq. 7)

Work is done on the system where theta jumps at fixed x, heat is absorbed by it while x relaxes at fixed theta.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thermokernels import langevin, random
from thermorun.arrays import Array
from thermorun.errors import InputError, RunError, require_choice
from thermorun.potentials.potential import Potential, numbers_of
from thermorun.streams import Noise

if TYPE_CHECKING:
    from thermorun.potentials.system import System

INTEGRATORS = langevin.INTEGRATORS
# The counter of the noise holds the number of a step in 32 bits; Leimkuhler and Matthews look one step ahead.
MOST_STEPS = 2**32 - 1


@dataclass(frozen=True)
class Driven:
    """An ensemble that was driven.

    ``x`` (replicas, d, particles); ``work`` and ``heat`` (replicas, particles), each particle's own so far, float64.
    ``record`` holds means over the particles of a replica after the steps ``rows``, float64 (rows, replicas):
    work, work_square, heat, and (rows, replicas, p): gradient, dE/dtheta.  ``steps`` were taken so far.
    """

    x: Array
    work: Array
    heat: Array
    rows: NDArray[np.intp]
    record: dict[str, Array]
    steps: int


def coefficients(
    system: "System", integrator: str, dt: ArrayLike, theta: Array | None = None, kT: ArrayLike | None = None
) -> Array:
    """The kernels' coefficients for steps ``dt``, (steps,) or a number: (steps, 2); ``exact`` (..., steps, columns).

    ``exact`` needs theta (..., steps, p), at which each step relaxes, and a potential with ``quadratic``; InputError
    without.  ``kT`` is the bath's, (steps,) or a number; by default the system's.
    """
    potential, mobility = system.potential, system.mobility
    beta = np.float64(system.beta) if kT is None else 1 / np.asarray(kT, float)
    if not np.all((beta > 0) & np.isfinite(beta)):
        raise InputError("kT holds values that are not positive finite numbers; all must be.")
    require_choice("integrator", integrator, INTEGRATORS)
    steps = np.atleast_1d(np.asarray(dt, float))
    if integrator == "leimkuhler-matthews" and potential.domain.walls:
        raise InputError(
            f"integrator is 'leimkuhler-matthews', whose noise goes on from step to step; in a domain with walls, as"
            f" {potential.name} has, take heun or euler-maruyama."
        )
    if integrator == "exact" and not potential.domain.everywhere:
        raise InputError(
            f"integrator is 'exact', but x of {potential.name} is not Gaussian in its domain, {potential.domain};"
            " take another."
        )
    if integrator != "exact":
        return np.stack([mobility * steps, np.sqrt(2 * mobility / beta * steps)], axis=-1)
    if potential.quadratic is None:
        raise InputError(f"integrator is 'exact', but {potential.name} is not quadratic; take another.")
    if theta is None:
        raise InputError("theta is None; steps of the integrator 'exact' depend on it.")
    d = potential.dimension
    out = np.empty((*theta.shape[:-1], d + 2 * d * d))
    points, where = np.unique(theta.reshape(-1, theta.shape[-1]), axis=0, return_inverse=True)
    shapes = [potential.quadratic(tuple(point.tolist())) for point in points]
    stiffness, vectors = np.linalg.eigh(np.array([precision for precision, _ in shapes]).reshape(-1, d, d))
    mean = np.array([mean for _, mean in shapes]).reshape(-1, d)
    stiffness, vectors, mean = (of_points[where.ravel()] for of_points in (stiffness, vectors, mean))
    rows, times = out.reshape(-1, out.shape[-1]), np.broadcast_to(steps, theta.shape[:-1]).reshape(-1, 1)
    betas = np.broadcast_to(beta, theta.shape[:-1]).reshape(-1, 1)
    decay = np.exp(-mobility * stiffness * times)
    spread = np.sqrt(-np.expm1(-2 * mobility * stiffness * times) / (betas * stiffness))
    back = vectors.swapaxes(1, 2)
    shrink, kick = (vectors * size[:, None] @ back for size in (decay, spread))
    rows[:, :d] = mean - (shrink @ mean[..., None])[..., 0]
    rows[:, d : d + d * d], rows[:, d + d * d :] = shrink.reshape(-1, d * d), kick.reshape(-1, d * d)
    return out


def drive(
    system: "System", start: Array | Driven, path: ArrayLike, dt: ArrayLike, integrator: str, noise: Noise,
    rows: ArrayLike, kT: ArrayLike | None = None,
) -> Driven:  # fmt: skip
    """See ``System.drive``."""
    potential = system.potential
    thetas = potential.require_valid(path, "path")
    if thetas.ndim not in (2, 3) or not thetas.shape[-2]:
        raise InputError(
            f"path has shape {thetas.shape}; it must be (steps + 1, {thetas.shape[-1]}), or that for each replica."
        )
    first = 0
    if isinstance(start, Driven):
        x, work, heat, first = start.x.copy(), start.work.copy(), start.heat.copy(), start.steps
    else:
        x = np.array(start, order="C")
        if x.dtype not in (np.float32, np.float64) or x.ndim != 3 or x.shape[1] != potential.dimension or not x.size:
            raise InputError(
                f"start has dtype {x.dtype} and shape {x.shape}; it must be floating-point numbers, float64 or float32,"
                f" (replicas, {potential.dimension}, particles)."
            )
        if not np.isfinite(x).all():
            raise InputError("start holds positions that are not finite; all must be.")
        potential.domain.require_inside(np.moveaxis(x, 1, -1), "start", potential.name)
        if not potential.domain.everywhere:
            x = np.ascontiguousarray(np.moveaxis(potential.domain.wrapped(np.moveaxis(x, 1, -1)), -1, 1))
        work, heat = np.zeros((x.shape[0], x.shape[2])), np.zeros((x.shape[0], x.shape[2]))
    replicas, dimension, particles = x.shape
    thetas = for_each(replicas, thetas, "path", *thetas.shape[-2:])
    steps = thetas.shape[1] - 1
    if first + steps > MOST_STEPS:
        raise InputError(f"path asks for steps up to {first + steps}; noise repeats itself beyond {MOST_STEPS}.")
    times = _steps(dt, steps)
    table = coefficients(system, integrator, times, thetas[:, 1:], kT)
    table = filled(table, (replicas, *table.shape[-2:]))
    wanted = np.atleast_1d(np.asarray(rows, np.intp))
    blocks = langevin.blocks_of(particles)
    record = np.empty((len(wanted), replicas, blocks, len(langevin.RECORD_COLUMNS) + len(potential.parameters)))
    status = new_status(replicas, particles)
    own = noise.dynamics.take(replicas * dimension)
    potential.kernels(integrator).drive(x, work, heat, first, table, thetas, own, wanted, record, status)
    require_converged(potential, x, status, float(times.max(initial=0.0)))
    means = record.sum(axis=2) / particles
    count = len(langevin.RECORD_COLUMNS)
    named = {name: means[..., i] for i, name in enumerate(langevin.RECORD_COLUMNS)} | {"gradient": means[..., count:]}
    return Driven(x, work, heat, wanted, named, first + steps)


def _steps(dt: ArrayLike, count: int) -> Array:
    """dt (count,) of a number or of one for each step.  Raises InputError."""
    times = numbers_of(dt, "dt")
    if times.shape not in ((), (1,), (count,)):
        raise InputError(f"dt has shape {times.shape}; it must be a number, or one for each of {count} steps.")
    bad = times[~(np.isfinite(times) & (times >= 0))]
    if bad.size:
        raise InputError(f"dt is {bad.flat[0]:g}; it must be a finite number of at least 0.")
    return np.broadcast_to(times, (count,))


def midpoints(theta: Array, dt: float) -> tuple[Array, Array]:
    """The path and the steps of a smooth theta (steps + 1, p), given at the ends of steps of equal dt.

    Jumps lie half a step apart from the ends, so that jump and relaxation alternate to second order: theta(0), the
    middle of every step, theta(tau); the last step is a jump alone.
    """
    middle = 0.5 * (theta[1:] + theta[:-1])
    path = np.concatenate([theta[:1], middle, theta[-1:]])
    return path, np.append(np.full(len(middle), dt), 0.0)


def filled(values: Array, shape: tuple[int, ...]) -> Array:
    """A copy of this shape: kernels are compiled for plain arrays, and once more for any that may not be written."""
    return np.array(np.broadcast_to(values, shape), order="C")


def for_each(replicas: int, values: Array, name: str, *shape: int) -> Array:
    """One of ``shape`` for all replicas, or one for each, as (replicas, *shape).  Raises InputError for others."""
    if values.shape not in (shape, (1, *shape), (replicas, *shape)):
        raise InputError(
            f"{name} has shape {values.shape}; it must be {shape}, or that for each of {replicas} replicas."
        )
    return filled(values, (replicas, *shape))


def one_particle(potential: Potential, precision: str) -> Array:
    """x (1, d, 1) in the middle of the domain, to compile kernels with."""
    return np.array(np.mean(potential.domain.box, axis=0)[None, :, None], precision)


def new_status(replicas: int, particles: int) -> Array:
    return np.full((replicas, langevin.blocks_of(particles)), -1)


def require_converged(potential: Potential, x: Array, status: Array, dt: float) -> None:
    hit = np.argwhere(status >= 0)
    if not len(hit):
        return
    replica, block = hit[np.argmin(status[tuple(hit.T)])]
    begin = block * random.BLOCK
    lost = ~np.all(np.isfinite(x[replica, :, begin : begin + random.BLOCK]), axis=0)
    particle = begin + int(np.argmax(lost))
    raise RunError(
        f"particle {particle} of replica {replica} in {potential.name} diverged at step"
        f" {status[replica, block]}; take a smaller dt, such as {dt / 4:.3g}: more steps."
    )
