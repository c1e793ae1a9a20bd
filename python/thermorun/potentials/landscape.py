"""Where the distribution of a potential lies, from energies alone: its minima, its lengths, points within 30 kT.

All lengths are the potential's own, so that no unit of x matters.  Forces are not asked for: they are what is checked.
"""

from copy import copy
from functools import partial
from typing import Self

import numpy as np
from scipy.optimize import minimize

from thermorun.arrays import Array
from thermorun.errors import InputError, words
from thermorun.potentials.potential import Potential

# Lengths that are tried, in whatever unit x has.
RADII = 10.0 ** np.arange(-20, 20, 1 / 12)
# Points are taken from what lies less than this above the bottom of its well, kT.
_DEPTH = 30.0
_RAYS, _STARTS, _ROUNDS = 64, 16, 16


class Landscape:
    """beta E at one theta; +inf where it is not a number, and outside the domain or the one period."""

    def __init__(self, potential: Potential, theta: Array, beta: float) -> None:
        self.potential, self.theta, self.beta, self.d = potential, theta, beta, potential.dimension
        self.everywhere, self.open = potential.domain.everywhere, potential.domain.open
        self.rng = np.random.default_rng(1)
        eye, random = np.eye(self.d), self.rng.standard_normal((_RAYS, self.d))
        self.rays = np.concatenate([eye, -eye, random / np.linalg.norm(random, axis=1, keepdims=True)])
        if self.d == 1:
            self.rays = self.rays[:2]

    def at(self, theta: Array) -> Self:
        """The same at another theta."""
        other = copy(self)
        other.theta = theta
        return other

    def heights(self, x: Array) -> Array:
        """beta E at points (..., d)."""
        energies = self.potential.energies(x.reshape(-1, self.d), self.theta).reshape(x.shape[:-1])
        known = ~np.isnan(energies) & (self.everywhere or self.potential.domain.inside(x))
        with np.errstate(over="ignore"):
            return np.where(known, self.beta * energies, np.inf)

    def minima(self) -> Array:
        """All minima that descents from many places end in, (m, d), the lowest first.

        Raises InputError where the energy is nowhere finite, or falls for ever.
        """
        starts = self._starts(self.potential.domain.corners())
        found = [self.descend(starts[0])]
        found = self._explore(found, starts[1:])
        found = self._explore(found, self._starts(min(found, key=lambda x: float(self.heights(x)))[None]))
        heights = self.heights(np.array(found))
        order = np.argsort(heights, kind="stable")
        lengths = self.lengths(found[order[0]])
        kept: list[Array] = []
        for index in order:
            if all(np.max(np.abs(found[index] - other) / lengths) > 0.1 for other in kept):
                kept.append(found[index])
        return np.array(kept[:_STARTS])

    def _explore(self, found: list[Array], starts: Array) -> list[Array]:
        """Minima below ``starts``, but of those from which the straight way to a known one leads only down."""
        for start in starts:
            ways = [self.heights(start + np.linspace(0, 1, 33)[:, None] * (end - start)) for end in found]
            if all(np.any(np.diff(way) > 0) for way in ways):
                found = [*found, self.descend(start)]
        return found

    def _starts(self, centres: Array) -> Array:
        """The lowest of the minima along rays from points (n, d), and of the points themselves."""
        rays = np.tile(self.rays, (len(centres), 1))
        centre = np.repeat(centres, len(self.rays), axis=0)
        points = np.concatenate([centre[None], centre + RADII[:, None, None] * rays])
        heights = self.heights(points)
        if not np.any(np.isfinite(heights)):
            raise InputError(f"energy of {self.potential.name} is not finite at theta = {words(self.theta)}.")
        last = np.flatnonzero(heights[-1] < np.min(heights[:-1]))
        if len(last):
            self.complain(points[-12, last[0]], points[-1, last[0]])
        inner = heights[1:-1]
        low = (inner <= heights[:-2]) & (inner < heights[2:]) & np.isfinite(inner)
        radius, ray = np.nonzero(low)
        order = np.argsort(inner[radius, ray], kind="stable")[: _STARTS // 2]
        best = np.unravel_index(np.argmin(heights), heights.shape)
        return np.concatenate([points[best][None], points[1 + radius[order], ray[order]]])

    def complain(self, near: Array, far: Array) -> None:
        """Raises InputError: the energy does not rise from one point to another, farther out."""
        energies = self.potential.energies(np.stack([near, far]), self.theta)
        raise InputError(
            f"energy of {self.potential.name} does not confine x: it is {energies[0]:.6g} at x = {words(near)} and"
            f" {energies[1]:.6g} at x = {words(far)}; it must be bounded below and grow, faster than"
            f" {'' if self.open == 1 else f'{self.open} '}kT ln|x|."
        )

    def local(self, x: Array, k: int, tried: Array, change: float = 1.0) -> Array:
        """For each of the points (n, d) the least of the lengths ``tried`` after which coordinate k changes the energy.

        By ``change`` kT, to one of the two sides; the longest where none does.
        """
        both = x + (tried[:, None] * np.array([1.0, -1.0]))[..., None, None] * np.eye(self.d)[k]
        with np.errstate(invalid="ignore"):
            changed = np.any(~(np.abs(self.heights(both) - self.heights(x)) < change), axis=1)
        return np.asarray(tried[np.where(changed.any(axis=0), np.argmax(changed, axis=0), -1)])

    def descend(self, x: Array) -> Array:
        """A minimum below ``x``, by L-BFGS in units of the lengths over which the energy changes by one kT.

        High up, where rounding hides a kT, by as much more; and so nearer in several rounds.
        """
        height = float(self.heights(x))
        for _ in range(_ROUNDS):
            kt = max(1.0, 1e-9 * abs(height))
            unit = np.array([self.local(x[None], k, RADII, kt)[0] for k in range(self.d)])
            unit[unit == RADII[-1]] = np.min(unit)
            function = partial(self._fall, x, height, unit, kt)
            found = minimize(function, np.zeros(self.d), jac=True, method="L-BFGS-B", options={"maxiter": 100})
            if not found.fun < -1e-4:
                break
            x = x + unit * found.x
            height = float(self.heights(x))
        return x

    def _fall(self, start: Array, height: float, unit: Array, kt: float, y: Array) -> tuple[float, Array]:
        """How much higher than ``height`` the energy is at ``start + unit y``, in units of kt, and its slope by y."""
        steps = 0.02 * np.concatenate([np.zeros((1, self.d)), np.eye(self.d), -np.eye(self.d)])
        rises = (self.heights(start + unit * (y + steps)) - height) / kt
        if not np.all(np.isfinite(rises)):
            return 1e30, np.zeros(self.d)
        return float(rises[0]), (rises[1 : 1 + self.d] - rises[1 + self.d :]) / 0.04

    def lengths(self, minimum: Array) -> Array:
        """For each coordinate how far x moves, on its wider side, until the energy has risen by half a kT; (d,).

        Raises InputError where it never does.
        """
        out = np.empty(self.d)
        base = self.heights(minimum)
        for k, axis in enumerate(np.eye(self.d)):
            sides = minimum + (RADII[:, None] * np.array([1.0, -1.0]))[..., None] * axis
            high = self.heights(sides) - base >= 0.5
            for side in np.flatnonzero(~high.any(axis=0)):
                self.complain(sides[-12, side], sides[-1, side])
            out[k] = np.max(RADII[np.argmax(high, axis=0)])
        return out

    def points(self, minima: Array) -> Array:
        """Points within 30 kT of the bottom, on rays from every minimum; (n, d)."""
        several, most = [], max(48, min(384, 1200 // self.d)) // len(minima)
        for minimum in minima:
            radii = np.geomspace(0.05, 1e4, 96)[:, None, None] * self.rng.uniform(0.9, 1.1, (96, len(self.rays), 1))
            x = minimum + radii * self.rays * self.lengths(minimum)
            rises = self.heights(x) - self.heights(minimum)
            several.append(self.rng.permutation(x[np.isfinite(rises) & (rises < _DEPTH)])[:most])
        points = np.concatenate(several)
        if not len(points):
            raise InputError(
                f"energy of {self.potential.name} at theta = {words(self.theta)} rises by more than {_DEPTH:g} kT"
                f" within a length of {RADII[0]:g}, beta being {self.beta:g}; take a smaller beta, or other units."
            )
        return points

    def require_confining(self, minimum: Array, points: Array) -> None:
        """Raises InputError where the energy does not grow far out, faster than d kT ln|x|: Z would be infinite."""
        extent = np.maximum(np.max(np.abs(points - minimum), axis=0), self.lengths(minimum))
        near, far = (minimum + scale * extent * self.rays for scale in (1e3, 1e4))
        low, high = self.heights(near), self.heights(far)
        with np.errstate(invalid="ignore"):
            grows = np.isposinf(high) | (high - low > 0.95 * self.open * np.log(10))
        for ray in np.flatnonzero(~grows):
            self.complain(near[ray], far[ray])
