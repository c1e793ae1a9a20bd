"""Equilibrium at the start of a run: exact draws, inversion of the cumulative distribution, or annealing."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import cumulative_simpson

from thermokernels import random
from thermorun.arrays import Array
from thermorun.errors import InputError, RunError, words
from thermorun.potentials import annealing, quadrature, wells
from thermorun.potentials.domains import OnTheLine
from thermorun.potentials.dynamics import for_each
from thermorun.potentials.potential import Potential
from thermorun.potentials.quadrature import support
from thermorun.streams import Noise, Streams

if TYPE_CHECKING:
    from thermorun.potentials.system import System

_GRID = 2**14
# How far the distribution function on a grid may be from that of the quadrature.
_RESOLVED = 1e-5
# The noise of a step is at least so many times the rounding of a position: then rounding adds less than 1e-3 to its
# square (1 / 12 of the square of the unit in the last place).
_KNOWN = 10.0


def equilibrium(
    system: "System", theta: ArrayLike, particles: int, replicas: int, noise: Noise, precision: str
) -> Array:
    """Draws x (replicas, d, particles) from p_m(x, theta), independent ones; theta is (p,), or (replicas, p).

    Exact draws where the potential has them, in one dimension by inverting the cumulative distribution, else by
    ``annealing``.  Raises InputError where there is no equilibrium, RunError where it cannot be shown.
    """
    potential, beta = system.potential, system.beta
    thetas = for_each(replicas, potential.require_valid(theta), "theta", len(potential.parameters))
    x = np.empty((replicas, potential.dimension, particles), precision)
    for r, point in enumerate(thetas):
        at, streams = tuple(point.tolist()), noise.start.replica(r)
        if potential.sample is not None:
            draws = potential.sample(at, beta, _Draws(particles, streams))
            potential.domain.require_inside(draws, "sample", potential.name)
            x[r] = draws.T
        elif potential.dimension == 1:
            x[r, 0] = _inverse_cdf(potential, at, beta, _Draws(particles, streams)())
        else:
            y = annealing.propose(potential, at, beta).draw(particles, annealing.Source(streams))
            x[r] = (y if potential.domain.everywhere else OnTheLine(potential, beta).x(y)).T
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


def _inverse_cdf(potential: Potential, theta: tuple[float, ...], beta: float, uniforms: Array) -> Array:
    x, cumulative = _distribution(potential, theta, beta)
    draws: Array = np.interp(uniforms * cumulative[-1], cumulative, x)
    return draws


@lru_cache(maxsize=64)
def _distribution(potential: Potential, theta: tuple[float, ...], beta: float) -> tuple[Array, Array]:
    """A grid of x and the integral of exp(-beta E) up to it, times a constant.

    An even grid, or where the panels of the quadrature tell otherwise, one as fine as they are.  Raises RunError where
    neither resolves the distribution.
    """
    side = potential.domain.sides[0]
    rough = RunError(
        f"theta is {words(theta)}; the distribution of x in {potential.name} is too rough there for a grid; give it a"
        " sample function."
    )
    try:
        found = quadrature.equilibrium(potential.energies, None, theta, beta=beta, domain=side)
    except quadrature.NotConverged:
        raise rough from None
    low, high = support(potential.energies, theta, beta, domain=side)
    count = max(16, -(-_GRID // (len(found.edges) - 1)))
    cells = np.arange(count) / count
    fine = (found.edges[:-1, None] + np.diff(found.edges)[:, None] * cells).ravel()
    exact = np.cumsum(found.shares[0])
    for x in (np.linspace(low, high, _GRID + 1), np.append(fine, found.edges[-1])):
        energies = potential.energies(x, theta)
        weights = np.exp(-beta * (energies - energies.min()))
        cumulative = np.maximum.accumulate(cumulative_simpson(weights, x=x, initial=0))
        apart = np.interp(found.edges[1:], x, cumulative) / cumulative[-1] - exact
        if np.max(np.abs(apart)) < _RESOLVED:
            return x, cumulative
    raise rough


# Where what is reached is a point, to rounding, the step is 0.
@np.errstate(divide="ignore", invalid="ignore")
def time_step(system: "System", theta: ArrayLike) -> float:
    """A step of 1/20 of the fastest relaxation time, 1 / (mu times the largest curvature that 3 kT reach)."""
    potential, beta, mobility = system.potential, system.beta, system.mobility
    point = potential.require_valid(theta)
    at = tuple(point.tolist())
    if potential.quadratic is not None:
        largest = float(np.linalg.eigvalsh(potential.quadratic(at)[0])[-1])
    elif potential.dimension == 1 and (x := _fine_grid(potential, at, beta)) is not None:
        energies, forces, _ = potential.evaluate(x, at)
        low = beta * (energies - energies.min()) < 3
        known = (low[1:] | low[:-1]) & np.isfinite(forces[1:, 0]) & np.isfinite(forces[:-1, 0])  # infinite at a wall
        apart = np.diff(x)
        known &= apart > 1e-12 * np.abs(x[1:])  # below, rounding is taken for curvature
        largest = float(np.max(np.abs(np.diff(forces[:, 0])[known] / apart[known])))
    else:
        x = _reached(potential, at, beta)
        # Corners have no curvature but on a point: a parabola of half the curvature would hold what is reached.
        largest = max(curvature(potential, at, x), 3 / (beta * (0.5 * np.min(np.ptp(x, axis=0))) ** 2))
    return 0.05 / (mobility * largest)


def require_resolved(system: "System", theta: ArrayLike, precision: str) -> None:
    """Raises InputError where positions at ``theta`` (p,) are known less well than they move in a step.

    A number of 24 bits (float32) knows positions of 1e7 to one, whatever the width of the distribution.
    """
    at = tuple(system.potential.require_valid(theta).tolist())
    if system.potential.quadratic is not None:
        x = np.asarray(system.potential.quadratic(at)[1], float)
    else:
        x = _reached(system.potential, at, system.beta)
    farthest = float(np.max(np.abs(x), initial=0.0))
    rounded = farthest * float(np.finfo(precision).eps)
    kick = float(np.sqrt(2 * system.mobility / system.beta * time_step(system, at)))
    if kick < _KNOWN * rounded:
        raise InputError(
            f"precision is {precision!r}, which knows positions that are {farthest:.3g} from the origin to"
            f" {rounded:.0e}, and the noise of a step of {system.potential.name} at theta = {words(at)} is {kick:.0e}:"
            " take float64, or shift the origin."
        )


def curvature(potential: Potential, theta: tuple[float, ...], x: Array) -> float:
    """The largest curvature at points (n, d), energy/length^2; corners of the energy have none."""
    # Of the size of what is reached, and a power of two, so that x - size and x + size are exact.
    sizes = 1e-4 * 2.0 ** np.floor(np.log2(0.5 * np.ptp(x, axis=0)))

    def largest(factor: float) -> Array:
        slopes = [
            (potential.evaluate(x - step * axis, theta)[1] - potential.evaluate(x + step * axis, theta)[1]) / (2 * step)
            for step, axis in zip(factor * sizes, np.eye(potential.dimension), strict=True)
        ]
        # Not a number across a wall.
        known = np.stack(slopes, axis=-1)
        known[~np.isfinite(known)] = 0.0
        return np.asarray(np.max(np.abs(np.linalg.eigvals(known)), axis=-1, initial=0.0))

    # Where a force jumps, its difference quotient falls as the step grows.
    near = largest(1.0)
    return float(np.max(near[largest(2.0) > 0.7 * near], initial=0.0))


def _fine_grid(potential: Potential, theta: tuple[float, ...], beta: float) -> Array | None:
    """The grid of an energy in one dimension that an even grid does not resolve, None for others."""
    try:
        x, _ = _distribution(potential, theta, beta)
    except RunError:
        return None
    return x if len(x) != _GRID + 1 else None


def _reached(potential: Potential, theta: tuple[float, ...], beta: float) -> Array:
    """Points (n, d) within 3 kT of the lowest: a grid in one dimension, in more of them rays from every minimum."""
    if potential.dimension == 1:
        x = np.linspace(*support(potential.energies, theta, beta, domain=potential.domain.sides[0]), 2001)[:, None]
        lowest = float(np.min(potential.energies(x, theta)))
    else:
        seen = wells.find(potential, theta, beta)
        found = zip(seen.minima, seen.covariances, strict=True)
        x = np.concatenate([seen.minima, *(wells.rays(*one) for one in found)])
        if potential.domain.everywhere:
            lowest = float(potential.energies(seen.minima[:1], theta)[0])
        else:
            x = OnTheLine(potential, beta).x(x)
            lowest = float(np.min(potential.energies(x, theta)))
    return np.asarray(x[beta * (potential.energies(x, theta) - lowest) < 3])
