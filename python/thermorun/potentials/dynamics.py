"""Ensembles of any potential: equilibrium at the start, then steps along a path of theta.  Arrays in, arrays out.

    dx = -mu dE/dx dt + sqrt(2 mu kT) dB                                        (Hnybida & Verret 2025, Eq. 7)

Work is done on the system where theta jumps at fixed x, heat is absorbed by it while x relaxes at fixed theta.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import cumulative_simpson
from scipy.optimize import minimize

from thermokernels import langevin as ensemble
from thermokernels import random
from thermorun.errors import InputError, RunError, require_positive
from thermorun.potentials.potential import Potential
from thermorun.potentials.quadrature import support

Array = NDArray[Any]

INTEGRATORS = ensemble.INTEGRATORS
_GRID = 2**14
# Streams of the start lie above those of the dynamics, which begins at the same number.
_START = np.uint64(2**31)


@dataclass(frozen=True)
class Driven:
    """An ensemble that was driven.

    ``x`` (replicas, d, particles); ``work`` and ``heat`` (replicas, particles), each particle's own so far, float64.
    ``record`` holds means over the particles of a replica after the steps ``rows``, float64 (rows, replicas):
    work, work_square, heat, and (rows, replicas, p): gradient, dE/dtheta.
    """

    x: Array
    work: Array
    heat: Array
    rows: NDArray[np.intp]
    record: dict[str, Array]


def equilibrium(
    potential: Potential,
    theta: ArrayLike,
    particles: int,
    *,
    replicas: int = 1,
    beta: float = 1.0,
    mobility: float = 1.0,
    seed: int = 0,
    stream: int = 0,
    precision: str = "float64",
) -> Array:
    """Draws x (replicas, d, particles) from p_m(x, theta); theta is (p,), or (replicas, p).

    Exact draws where the potential has them, and in one dimension by inverting the cumulative distribution.  Else the
    ensemble starts at a minimum of the energy and relaxes until the mean gradients of two successive windows, each as
    long as all that was before it, agree within four standard errors; RunError where they never do.
    """
    thetas = np.broadcast_to(potential.require_valid(theta), (replicas, len(potential.parameters)))
    x = np.empty((replicas, potential.dimension, particles), precision)
    if potential.sample is None and potential.dimension > 1:
        return _burn_in(potential, thetas, x, beta, mobility, seed, stream)
    for r, point in enumerate(thetas):
        draws = _Draws(particles, seed, np.uint64(stream) + _START + np.uint64(r * 64))
        if potential.sample is not None:
            x[r] = potential.sample(tuple(point.tolist()), beta, draws).T
        else:
            x[r, 0] = _inverse_cdf(potential, point, beta, draws())
    return x


class _Draws:
    """Fresh uniforms at every call, each from a stream of its own."""

    def __init__(self, count: int, seed: int, stream: np.uint64) -> None:
        self.count, self.seed, self.stream = count, np.uint64(seed), stream

    def __call__(self) -> Array:
        out = np.empty(self.count)
        random.fill_uniforms(out, self.seed, self.stream, 0)
        self.stream += np.uint64(1)
        return out


def _inverse_cdf(potential: Potential, theta: Array, beta: float, uniforms: Array) -> Array:
    x = np.linspace(*support(potential.energies, theta.tolist(), beta), _GRID + 1)
    energies = potential.energies(x, theta)
    weights = np.exp(-beta * (energies - energies.min()))
    cumulative = np.maximum.accumulate(cumulative_simpson(weights, x=x, initial=0))
    draws: Array = np.interp(uniforms * cumulative[-1], cumulative, x)
    return draws


def time_step(potential: Potential, theta: ArrayLike, beta: float, mobility: float) -> float:
    """A step of 1/20 of the fastest relaxation time, 1 / (mu times the largest curvature that 3 kT reach)."""
    point = potential.require_valid(theta)
    d = potential.dimension
    if potential.quadratic is not None:
        largest = float(np.linalg.eigvalsh(potential.quadratic(tuple(point.tolist()))[0])[-1])
    else:
        if d == 1:
            x = np.linspace(*support(potential.energies, point.tolist(), beta), 2001)
            energies = potential.energies(x, point)
            x = x[beta * (energies - energies.min()) < 3][:, None]
        else:
            bottom = _minimum(potential, point)
            rays = np.random.default_rng(1).standard_normal((64, d))
            rays /= np.linalg.norm(rays, axis=1, keepdims=True)
            x = bottom + (np.geomspace(1e-3, 1e2, 101)[:, None, None] * rays).reshape(-1, d)
            energies = potential.energies(np.concatenate([bottom[None], x]), point)
            x = np.concatenate([bottom[None], x[beta * (energies[1:] - energies[0]) < 3]])
        size = 1e-4
        slopes = [
            (potential.evaluate(x - size * e, point)[1] - potential.evaluate(x + size * e, point)[1]) / (2 * size)
            for e in np.eye(d)
        ]
        largest = float(np.max(np.abs(np.linalg.eigvals(np.stack(slopes, axis=-1)))))
    return 0.05 / (mobility * largest)


def _minimum(potential: Potential, theta: Array) -> Array:
    def function(x: Array) -> tuple[float, Array]:
        energy, force, _ = potential.evaluate(x[None], theta)
        return float(energy[0]), -force[0]

    best = minimize(function, np.full(potential.dimension, 0.1), jac=True)
    return np.asarray(best.x)


def _burn_in(
    potential: Potential, thetas: Array, x: Array, beta: float, mobility: float, seed: int, stream: int
) -> Array:
    replicas, _, particles = x.shape
    first, window = 0, 64
    dt = min(time_step(potential, theta, beta, mobility) for theta in thetas)
    for r, theta in enumerate(thetas):
        x[r] = _minimum(potential, theta)[:, None]
    kernels = potential.kernels("leimkuhler-matthews")
    row = coefficients(potential, "leimkuhler-matthews", dt, beta, mobility)
    status = new_status(replicas, particles)
    before: tuple[Array, Array] | None = None
    for _ in range(14):
        steps = _filled(row, (replicas, window, 2))
        sums = np.zeros((replicas, len(potential.parameters), particles))
        at = np.uint64(stream) + _START
        kernels.dwell(
            x, first, steps, _filled(thetas[:, None], (replicas, 1, thetas.shape[1])), np.uint64(seed), at, sums, status
        )
        require_finite(potential, x, status, dt)
        # Particles are independent, so their spread is the error of a window's mean, whatever its correlations.
        means, errors = sums.mean(axis=2) / window, sums.std(axis=2) / window / np.sqrt(max(particles - 1, 1))
        if before is not None and np.all(np.abs(means - before[0]) <= 4 * np.hypot(errors, before[1])):
            return x
        before = (means, errors)
        first, window = first + window, 2 * window
    raise RunError(
        f"{potential.name} did not come to rest in {first} steps of {dt:.3g}; give it a sample function, or start at"
        " another theta."
    )


def coefficients(
    potential: Potential, integrator: str, dt: ArrayLike, beta: float, mobility: float, theta: Array | None = None
) -> Array:
    """The kernels' coefficients for steps ``dt``, (steps,) or a number: (steps, 2); ``exact`` (..., steps, columns).

    ``exact`` needs theta (..., steps, p), at which each step relaxes, and a potential with ``quadratic``; InputError
    without.
    """
    if integrator not in INTEGRATORS:
        raise InputError(f"integrator is {integrator!r}; it must be one of {', '.join(INTEGRATORS)}.")
    steps = np.atleast_1d(np.asarray(dt, float))
    if integrator != "exact":
        return np.stack([mobility * steps, np.sqrt(2 * mobility / beta * steps)], axis=-1)
    if potential.quadratic is None:
        raise InputError(f"integrator is 'exact', but {potential.name} is not quadratic; take another.")
    assert theta is not None
    d = potential.dimension
    out = np.empty((*theta.shape[:-1], d + 2 * d * d))
    points, where = np.unique(theta.reshape(-1, theta.shape[-1]), axis=0, return_inverse=True)
    shapes = [potential.quadratic(tuple(point.tolist())) for point in points]
    modes = [(*np.linalg.eigh(precision), mean) for precision, mean in shapes]
    rows, times = out.reshape(-1, out.shape[-1]), np.broadcast_to(steps, theta.shape[:-1]).ravel()
    for n, index in enumerate(where.ravel()):
        stiffness, vectors, mean = modes[index]
        decay = np.exp(-mobility * stiffness * times[n])
        spread = np.sqrt(-np.expm1(-2 * mobility * stiffness * times[n]) / (beta * stiffness))
        shrink = vectors * decay @ vectors.T
        rows[n] = np.concatenate([mean - shrink @ mean, shrink.ravel(), (vectors * spread @ vectors.T).ravel()])
    return out


def drive(
    potential: Potential,
    start: Array | Driven,
    path: ArrayLike,
    *,
    dt: ArrayLike,
    beta: float = 1.0,
    mobility: float = 1.0,
    integrator: str = "heun",
    seed: int = 0,
    stream: int = 0,
    first: int = 0,
    rows: ArrayLike = (),
) -> Driven:
    """Takes an ensemble along a path of theta: step n jumps from path[n] to path[n + 1] at fixed x, then relaxes there.

    ``start`` is x (replicas, d, particles), which is not changed, or what an earlier call returned, to go on with;
    then ``first`` is the number of steps taken before.  ``path`` is (steps + 1, p) or (replicas, steps + 1, p).
    ``dt`` is a number or (steps,); with zero a step is a jump alone.  ``rows`` are the steps to record.

    For a smooth theta(t) the whole is second order in dt if the path runs through its midpoints (`midpoints`).
    Raises InputError for a path that leaves the valid region, RunError for particles that left the finite numbers.
    """
    require_positive("beta", beta)
    require_positive("mobility", mobility)
    thetas = potential.require_valid(path, "path")
    if isinstance(start, Driven):
        x, work, heat = start.x.copy(), start.work.copy(), start.heat.copy()
    else:
        x = np.array(start, order="C")
        work, heat = np.zeros((x.shape[0], x.shape[2])), np.zeros((x.shape[0], x.shape[2]))
    replicas, _, particles = x.shape
    thetas = _filled(thetas, (replicas, *thetas.shape[-2:]))
    steps = thetas.shape[1] - 1
    times = np.broadcast_to(np.asarray(dt, float), (steps,))
    table = coefficients(potential, integrator, times, beta, mobility, thetas[:, 1:])
    table = _filled(table, (replicas, *table.shape[-2:]))
    wanted = np.atleast_1d(np.asarray(rows, np.intp))
    blocks = ensemble.blocks_of(particles)
    record = np.empty((len(wanted), replicas, blocks, len(ensemble.RECORD_COLUMNS) + len(potential.parameters)))
    status = new_status(replicas, particles)
    potential.kernels(integrator).drive(
        x, work, heat, first, table, thetas, np.uint64(seed), np.uint64(stream), wanted, record, status
    )
    require_finite(potential, x, status, float(times.max(initial=0.0)))
    means = record.sum(axis=2) / particles
    count = len(ensemble.RECORD_COLUMNS)
    named = {name: means[..., i] for i, name in enumerate(ensemble.RECORD_COLUMNS)} | {"gradient": means[..., count:]}
    return Driven(x, work, heat, wanted, named)


def midpoints(theta: Array, dt: float) -> tuple[Array, Array]:
    """The path and the steps of a smooth theta (steps + 1, p), given at the ends of steps of equal dt.

    Jumps lie half a step apart from the ends, so that jump and relaxation alternate to second order: theta(0), the
    middle of every step, theta(tau); the last step is a jump alone.
    """
    middle = 0.5 * (theta[1:] + theta[:-1])
    path = np.concatenate([theta[:1], middle, theta[-1:]])
    return path, np.append(np.full(len(middle), dt), 0.0)


def _filled(values: Array, shape: tuple[int, ...]) -> Array:
    """A copy of this shape: kernels are compiled for plain arrays, and once more for any that may not be written."""
    return np.array(np.broadcast_to(values, shape), order="C")


def new_status(replicas: int, particles: int) -> Array:
    return np.full((replicas, ensemble.blocks_of(particles)), -1)


def require_finite(potential: Potential, x: Array, status: Array, dt: float) -> None:
    hit = np.argwhere(status >= 0)
    if not len(hit):
        return
    replica, block = hit[np.argmin(status[tuple(hit.T)])]
    begin = block * random.BLOCK
    lost = ~np.all(np.isfinite(x[replica, :, begin : begin + random.BLOCK]), axis=0)
    particle = begin + int(np.argmax(lost))
    raise RunError(
        f"particle {particle} of replica {replica} in {potential.name} left the finite numbers at step"
        f" {status[replica, block]}; take a smaller dt, such as {dt / 4:.3g}."
    )
