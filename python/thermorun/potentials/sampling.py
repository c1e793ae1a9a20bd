"""Equilibrium at the start of a run: exact draws, inversion of the cumulative distribution, or annealing."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import cumulative_simpson

from thermokernels import random
from thermorun.arrays import Array
from thermorun.potentials import annealing, wells
from thermorun.potentials.potential import Potential
from thermorun.potentials.quadrature import support
from thermorun.streams import Noise, Streams

if TYPE_CHECKING:
    from thermorun.potentials.system import System

_GRID = 2**14


def equilibrium(
    system: "System", theta: ArrayLike, particles: int, replicas: int, noise: Noise, precision: str
) -> Array:
    """Draws x (replicas, d, particles) from p_m(x, theta), independent ones; theta is (p,), or (replicas, p).

    Exact draws where the potential has them, in one dimension by inverting the cumulative distribution, else by
    ``annealing``.  Raises InputError where there is no equilibrium, RunError where it cannot be shown.
    """
    potential, beta = system.potential, system.beta
    thetas = np.broadcast_to(potential.require_valid(theta), (replicas, len(potential.parameters)))
    x = np.empty((replicas, potential.dimension, particles), precision)
    for r, point in enumerate(thetas):
        at, streams = tuple(point.tolist()), noise.start.replica(r)
        if potential.sample is not None:
            x[r] = potential.sample(at, beta, _Draws(particles, streams)).T
        elif potential.dimension == 1:
            x[r, 0] = _inverse_cdf(potential, point, beta, _Draws(particles, streams)())
        else:
            x[r] = annealing.propose(potential, at, beta).draw(particles, annealing.Source(streams)).T
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
    at = tuple(point.tolist())
    if potential.quadratic is not None:
        largest = float(np.linalg.eigvalsh(potential.quadratic(at)[0])[-1])
    else:
        x = _reached(potential, at, beta)
        # Of the size of what is reached, and a power of two, so that x - size and x + size are exact.
        sizes = 1e-4 * 2.0 ** np.floor(np.log2(0.5 * np.ptp(x, axis=0)))
        slopes = [
            (potential.evaluate(x - size * axis, point)[1] - potential.evaluate(x + size * axis, point)[1]) / (2 * size)
            for size, axis in zip(sizes, np.eye(potential.dimension), strict=True)
        ]
        largest = float(np.max(np.abs(np.linalg.eigvals(np.stack(slopes, axis=-1)))))
    return 0.05 / (mobility * largest)


def _reached(potential: Potential, theta: tuple[float, ...], beta: float) -> Array:
    """Points (n, d) within 3 kT of the lowest: a grid in one dimension, in more of them rays from every minimum."""
    if potential.dimension == 1:
        x = np.linspace(*support(potential.energies, theta, beta), 2001)
        energies = potential.energies(x, theta)
        return np.asarray(x[beta * (energies - energies.min()) < 3][:, None])
    seen = wells.find(potential, theta, beta)
    points = np.concatenate([seen.minima, *(
        wells.rays(minimum, covariance) for minimum, covariance in zip(seen.minima, seen.covariances, strict=True)
    )])  # fmt: skip
    energies = potential.energies(points, theta)
    return np.asarray(points[beta * (energies - potential.energies(seen.minima[:1], theta)) < 3])
