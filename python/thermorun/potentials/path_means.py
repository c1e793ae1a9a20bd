"""What is known of a path without noise: Gaussian moments of quadratic potentials, Fokker-Planck in one dimension.

    dW = <dE/dtheta> dtheta,   dQ = <dE> - dW,   dS = d(<E>/kT) - dQ/kT                           (kB = 1)

W is the work, done where theta moves at fixed x; Q the heat, absorbed while x relaxes; a change of the bath's
temperature does no work.  S is the mean of the reduced work s, which obeys <exp(-s)> = Z(end) / Z(start) for any
theta(t) and kT(t) (Williams, Searles & Evans, Phys. Rev. Lett. 100, 250601, 2008).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline
from scipy.special import logsumexp, ndtr

from thermorun.arrays import Array
from thermorun.potentials import quadrature
from thermorun.potentials.fokker_planck import Step, grid
from thermorun.potentials.potential import Potential
from thermorun.potentials.staircase import Stairs, staircase, with_stops
from thermorun.potentials.system import System

# Stairs of the coarser of two staircases, the other has twice as many; points of the coarser grid.
_STAIRS, _POINTS = 200, 300
_DEPTH = 30.0
# Two extrapolations that differ by more than this share of the work, or of kT, are no exact value.
_AGREE = 1e-3


@dataclass(frozen=True)
class Known:
    """Means along a path from equilibrium: ``work`` and ``heat``, energy, ``reduced_work``, and how they are known.

    ``shares`` (times, dimension, bins) of x in each bin.
    """

    work: float
    heat: float
    reduced_work: float
    shares: Array
    how: str


def free_energy(system: System, theta: ArrayLike) -> float | None:
    """F = -ln Z / beta by closed form or, in one dimension, quadrature; None where neither gives it."""
    point = tuple(np.asarray(theta, float).tolist())
    if system.potential.free_energy is not None:
        return float(system.potential.free_energy(point, system.beta))
    found = system.exact(point)
    return None if found is None else float(found.free_energy)


def means(system: System, rows: Array, at: ArrayLike = (), edges: Array | None = None) -> Known | None:
    """What is known along ``rows`` of time, theta and kT; None where nothing is.

    ``edges`` (dimension, bins + 1) are those of histograms at the times ``at``.
    """
    potential, times = system.potential, np.asarray(at, float)
    bounds = np.zeros((potential.dimension, 1)) if edges is None else edges
    shape = (len(times), potential.dimension, bounds.shape[1] - 1)
    path = with_stops(rows, times)
    if potential.quadratic is not None:
        found, how = _extrapolated(partial(_gaussian, system, times, bounds), path, 4 * _STAIRS), "Gaussian moments"
    elif potential.dimension == 1:
        on_grid, how = _on_grids(system, path, times, bounds), "Fokker-Planck"
        if on_grid is None:
            return None
        found = on_grid
    else:
        return None
    work, heat, reduced_work = map(float, found[:3])
    return Known(work, heat, reduced_work, np.maximum(found[3:], 0.0).reshape(shape), how)


def _on_grids(system: System, path: Array, times: Array, edges: Array) -> Array | None:
    """From two grids, of which the error is of second order in the spacing; None where they do not agree."""
    try:
        coarse, fine = (
            _extrapolated(partial(_fokker_planck, system, times, edges, points), path, _STAIRS)
            for points in (_POINTS, 2 * _POINTS)
        )
    except quadrature.NotConverged:
        return None
    found = (4 * fine - coarse) / 3
    kt = path[:, -1].max()
    allowed = _AGREE * np.maximum(np.abs(found), 1.0)
    allowed[:2] = _AGREE * np.maximum(np.abs(found[:2]), kt)
    return found if np.all(np.abs(found - fine) <= allowed) else None


def _extrapolated(values: Callable[[Stairs], Array], path: Array, steps: int) -> Array:
    """To waits of zero, of which the error is of second order."""
    coarse, fine = (values(staircase(path, steps, refined)) for refined in (1, 2))
    return (4 * fine - coarse) / 3


def _gaussian(system: System, times: Array, edges: Array, stairs: Stairs) -> Array:
    """Work, heat, reduced work and shares of a staircase: x is Gaussian and relaxes to mean m and covariance kT / K."""
    potential = system.potential
    shape = potential.quadratic
    assert shape is not None
    stiffness, centre = shape(tuple(stairs.theta[0].tolist()))
    mean, covariance = np.array(centre, float), stairs.kT[0] * np.linalg.inv(stiffness)
    here = partial(_mean_energy, potential)
    work, heat, reduced = 0.0, 0.0, -here(stairs.theta[0], mean, covariance) / stairs.kT[0]
    seen, reached = [np.empty(0)] * len(times), stairs.reached(times)
    for n, theta in enumerate(stairs.theta[1:]):
        for k in np.flatnonzero(reached == n):
            deviation = np.sqrt(np.diag(covariance))[:, None]
            seen[k] = np.diff(ndtr((edges - mean[:, None]) / deviation), axis=1).ravel()
        energy = here(theta, mean, covariance)
        work += energy - here(stairs.theta[n], mean, covariance)
        if n == len(stairs.waits):
            break
        stiffness, centre = shape(tuple(theta.tolist()))
        values, vectors = np.linalg.eigh(stiffness)
        decay = (vectors * np.exp(-system.mobility * values * stairs.waits[n])) @ vectors.T
        limit = stairs.kT[n + 1] * np.linalg.inv(stiffness)
        mean = centre + decay @ (mean - centre)
        covariance = limit + decay @ (covariance - limit) @ decay
        absorbed = here(theta, mean, covariance) - energy
        heat += absorbed
        reduced -= absorbed / stairs.kT[n + 1]
    return np.concatenate([[work, heat, reduced + energy / stairs.kT[-1]], *seen])


def _mean_energy(potential: Potential, theta: Array, mean: Array, covariance: Array) -> float:
    assert potential.quadratic is not None
    point = tuple(theta.tolist())
    stiffness, centre = potential.quadratic(point)
    lag = mean - centre
    bottom = float(potential.energies(np.asarray(centre, float)[None], point)[0])
    return bottom + 0.5 * float(np.trace(stiffness @ covariance) + lag @ stiffness @ lag)


def _fokker_planck(system: System, times: Array, edges: Array, points: int, stairs: Stairs) -> Array:
    """The same of the distribution of x on a grid that holds it along the path."""
    energies, hottest = system.potential.energies, 1 / stairs.kT.max()
    way = stairs.theta[np.linspace(0, len(stairs.theta) - 1, 33).round().astype(int)]
    x, ring = grid(energies, list(way), hottest, _DEPTH, points, system.potential.domain.sides[0])
    rate = system.mobility / (x[1] - x[0]) ** 2
    heights = [quadrature.tabulate(energies, x, tuple(theta.tolist())) for theta in stairs.theta]
    density = np.exp(-heights[0] / stairs.kT[0] - logsumexp(-heights[0] / stairs.kT[0]))
    work, heat, reduced = 0.0, 0.0, -float(density @ heights[0]) / stairs.kT[0]
    seen, reached = [np.empty(0)] * len(times), stairs.reached(times)
    for n, (old, new) in enumerate(itertools.pairwise(heights)):
        for k in np.flatnonzero(reached == n):
            seen[k] = _shares(x, density, edges[0])
        work += float(density @ (new - old))
        if n < len(stairs.waits):
            kt, before = stairs.kT[n + 1], density
            density, _ = Step(new, 1 / kt, rate * kt * stairs.waits[n], ring).forward(density)
            absorbed = float((density - before) @ new)
            heat += absorbed
            reduced -= absorbed / kt
    return np.concatenate([[work, heat, reduced + float(density @ heights[-1]) / stairs.kT[-1]], *seen])


def _shares(x: Array, density: Array, edges: Array) -> Array:
    """Of a distribution on grid points, between ``edges``."""
    spacing = x[1] - x[0]
    ends = np.append(x - 0.5 * spacing, x[-1] + 0.5 * spacing)
    below = CubicSpline(ends, np.append(0.0, np.cumsum(density)))
    return np.asarray(np.diff(below(np.clip(edges, ends[0], ends[-1]))))
