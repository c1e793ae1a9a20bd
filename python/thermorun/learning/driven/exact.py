"""Mean work along a path without noise: Gaussian moments of quadratic potentials, Fokker-Planck in one dimension."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from thermorun.arrays import Array
from thermorun.learning.driven.spec import staircase
from thermorun.potentials import Potential, System, quadrature
from thermorun.potentials.fokker_planck import Step, grid

# Stairs of the coarser of two staircases, the other has twice as many; points of the coarser grid.
_STAIRS, _POINTS = 200, 300
_DEPTH = 30.0
# Two extrapolations that differ by more than this share of the work, or of kT, are no exact value.
_AGREE = 1e-3


def free_energy_difference(system: System, start: ArrayLike, end: ArrayLike) -> float | None:
    """F(end) - F(start) by closed form or, in one dimension, quadrature; None where neither gives it."""
    potential, points = system.potential, [tuple(np.asarray(point, float).tolist()) for point in (start, end)]
    if potential.free_energy is not None:
        first, last = (potential.free_energy(point, system.beta) for point in points)
        return float(last - first)
    found = [system.exact(point) for point in points]
    if found[0] is None or found[1] is None:
        return None
    return float(found[1].free_energy - found[0].free_energy)


def mean_work(system: System, rows: Array) -> tuple[float, str] | None:
    """Mean work along a path from equilibrium, and how it is known; None where it is not."""
    potential = system.potential
    if potential.quadratic is not None:
        return _extrapolated(partial(_gaussian, system, rows), 4 * _STAIRS), "Gaussian moments"
    if potential.dimension > 1:
        return None
    try:
        coarse, fine = (
            _extrapolated(partial(_fokker_planck, system, rows, points), _STAIRS) for points in (_POINTS, 2 * _POINTS)
        )
    except quadrature.NotConverged:
        return None
    # The grid's error is of second order in its spacing.
    work = (4 * fine - coarse) / 3
    if not abs(work - fine) <= _AGREE * max(abs(work), 1 / system.beta):
        return None
    return work, "Fokker-Planck"


def _extrapolated(work: Callable[[int], float], steps: int) -> float:
    """To waits of zero, of which the error is of second order."""
    coarse, fine = work(steps), work(2 * steps)
    return (4 * fine - coarse) / 3


def _gaussian(system: System, rows: Array, steps: int) -> float:
    """Work of a staircase of ``steps``: x is Gaussian and relaxes to mean m and covariance kT / K at each theta."""
    potential, kt = system.potential, 1 / system.beta
    stairs, waits = staircase(rows, steps)
    assert potential.quadratic is not None
    stiffness, mean = potential.quadratic(tuple(stairs[0].tolist()))
    covariance, work = kt * np.linalg.inv(stiffness), 0.0
    mean = np.array(mean, float)
    for old, new, wait in zip(stairs[:-1], stairs[1:], [*waits, 0.0], strict=True):
        work += _mean_energy(potential, new, mean, covariance) - _mean_energy(potential, old, mean, covariance)
        stiffness, centre = potential.quadratic(tuple(new.tolist()))
        values, vectors = np.linalg.eigh(stiffness)
        decay = (vectors * np.exp(-system.mobility * values * wait)) @ vectors.T
        limit = kt * np.linalg.inv(stiffness)
        mean = centre + decay @ (mean - centre)
        covariance = limit + decay @ (covariance - limit) @ decay
    return float(work)


def _mean_energy(potential: Potential, theta: Array, mean: Array, covariance: Array) -> float:
    assert potential.quadratic is not None
    point = tuple(theta.tolist())
    stiffness, centre = potential.quadratic(point)
    lag = mean - centre
    bottom = float(potential.energies(np.asarray(centre, float)[None], point)[0])
    return bottom + 0.5 * float(np.trace(stiffness @ covariance) + lag @ stiffness @ lag)


def _fokker_planck(system: System, rows: Array, points: int, steps: int) -> float:
    """Work of a staircase of so many steps, of the distribution of x on a grid that holds it along the path."""
    stairs, waits = staircase(rows, steps)
    energies, beta = system.potential.energies, system.beta
    way = stairs[np.linspace(0, len(stairs) - 1, 33).round().astype(int)]
    x, ring = grid(energies, list(way), beta, _DEPTH, points, system.potential.domain.sides[0])
    rate = system.mobility / beta / (x[1] - x[0]) ** 2
    heights = [quadrature.tabulate(energies, x, tuple(theta.tolist())) for theta in stairs]
    density = np.exp(-beta * heights[0] - logsumexp(-beta * heights[0]))
    work = 0.0
    for old, new, wait in zip(heights[:-1], heights[1:], [*waits, 0.0], strict=True):
        work += float(density @ (new - old))
        if wait:
            density, _ = Step(new, beta, rate * wait, ring).forward(density)
    return work
