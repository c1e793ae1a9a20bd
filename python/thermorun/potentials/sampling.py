"""Equilibrium at the start of a run: exact draws, inversion of the cumulative distribution, or a burn-in."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import cumulative_simpson
from scipy.optimize import minimize

from thermokernels import random
from thermorun.arrays import Array
from thermorun.errors import RunError
from thermorun.potentials.dynamics import coefficients, filled, new_status, require_converged
from thermorun.potentials.potential import Potential
from thermorun.potentials.quadrature import support
from thermorun.streams import Noise, Streams

if TYPE_CHECKING:
    from thermorun.potentials.system import System

_GRID = 2**14


def equilibrium(
    system: "System", theta: ArrayLike, particles: int, replicas: int, noise: Noise, precision: str
) -> Array:
    """Draws x (replicas, d, particles) from p_m(x, theta); theta is (p,), or (replicas, p).

    Exact draws where the potential has them, and in one dimension by inverting the cumulative distribution.  Else the
    ensemble starts at a minimum of the energy and relaxes until the mean gradients of two successive windows, each as
    long as all that was before it, agree within four standard errors; RunError where they never do.
    """
    potential, beta = system.potential, system.beta
    thetas = np.broadcast_to(potential.require_valid(theta), (replicas, len(potential.parameters)))
    x = np.empty((replicas, potential.dimension, particles), precision)
    if potential.sample is None and potential.dimension > 1:
        return _burn_in(system, thetas, x, noise)
    for r, point in enumerate(thetas):
        draws = _Draws(particles, noise.start.replica(r))
        if potential.sample is not None:
            x[r] = potential.sample(tuple(point.tolist()), beta, draws).T
        else:
            x[r, 0] = _inverse_cdf(potential, point, beta, draws())
    return x


class _Draws:
    """Fresh uniforms at every call."""

    def __init__(self, count: int, streams: Streams) -> None:
        self.count, self.streams, self.calls = count, streams, 0

    def __call__(self) -> Array:
        out = np.empty(self.count)
        random.fill_uniforms(out, *self.streams.call(self.calls))
        self.calls += 1
        return out


def _inverse_cdf(potential: Potential, theta: Array, beta: float, uniforms: Array) -> Array:
    x = np.linspace(*support(potential.energies, theta.tolist(), beta), _GRID + 1)
    energies = potential.energies(x, theta)
    weights = np.exp(-beta * (energies - energies.min()))
    cumulative = np.maximum.accumulate(cumulative_simpson(weights, x=x, initial=0))
    draws: Array = np.interp(uniforms * cumulative[-1], cumulative, x)
    return draws


def time_step(system: "System", theta: ArrayLike) -> float:
    """A step of 1/20 of the fastest relaxation time, 1 / (mu times the largest curvature that 3 kT reach)."""
    potential, beta, mobility = system.potential, system.beta, system.mobility
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


def _burn_in(system: "System", thetas: Array, x: Array, noise: Noise) -> Array:
    potential = system.potential
    replicas, _, particles = x.shape
    first, window = 0, 64
    dt = min(time_step(system, theta) for theta in thetas)
    for r, theta in enumerate(thetas):
        x[r] = _minimum(potential, theta)[:, None]
    kernels = potential.kernels("leimkuhler-matthews")
    row = coefficients(system, "leimkuhler-matthews", dt)
    status = new_status(replicas, particles)
    key, at = noise.start.take(replicas * potential.dimension)
    before: tuple[Array, Array] | None = None
    for _ in range(14):
        steps = filled(row, (replicas, window, 2))
        sums = np.zeros((replicas, len(potential.parameters), particles))
        path = filled(thetas[:, None], (replicas, 1, thetas.shape[1]))
        kernels.dwell(x, first, steps, path, key, at, sums, status)
        require_converged(potential, x, status, dt)
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
