"""The mean action of undoing the noise, and its minimum: no trajectories, no learning rate.

With v_i the force that takes unit i back from x' (`noising.Law`), and h = U b the fields of an image, U its row of
constants and classes, minus the logarithm of the probability of all steps of a trajectory is, but for a constant,

    (mu dt / 4 kT) sum_t sum_i <(v_i + h_i + (J x')_i)^2>.

Given the image units are independent, so its normal equations need <v_i>, <x'_j> and the variance of x' alone; over
time these are few modes.  They are the classifier's equations, with another matrix (`action.solve_pairs`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg

from thermorun.arrays import Array
from thermorun.computer.action import solve_pairs
from thermorun.computer.generative.noising import Law
from thermorun.computer.machine import Physics

# Relative residual of the equations for the pairs.
_TOLERANCE = 1e-7
# Codes whose moments are computed at a time.
_CHUNK = 2**18
# Below this share of the units, the matrix of all pairs is kept as the product that it is.
_THIN = 0.5


@dataclass(frozen=True)
class Sums:
    """What the action needs of all images, the sums over images and time.

    ``gram`` (units, units): <x'_i x'_j>; ``direct`` (units, units): <v_i> <x'_j>, whose diagonal means nothing;
    ``design`` U (images, inputs); ``means`` and ``pulls`` (inputs, units): U^T <x'> and U^T <v>; ``factor`` the matrix
    (units, modes) of which gram is factor factor^T + diag(``spread``), or None where it is not thin.
    """

    physics: Physics
    design: Array
    gram: Array
    direct: Array
    means: Array
    pulls: Array
    spread: Array
    factor: Array | None

    @classmethod
    def of(cls, physics: Physics, codes: Array, hidden: int, design: Array, wells: tuple[Law, Law]) -> "Sums":
        """Of images' codes (images, units), hidden units first, in their two kinds of wells."""
        images, units = codes.shape
        gram, direct, spread = np.zeros((units, units)), np.zeros((units, units)), np.zeros(units)
        means, pulls = np.zeros((design.shape[1], units)), np.zeros((design.shape[1], units))
        thin = images * wells[0].modes.shape[1] < _THIN * units
        factors, length = [], max(1, _CHUNK // units)
        for first in range(0, images, length):
            some, rows = codes[first : first + length], design[first : first + length]
            kinds = [law.at(part.ravel()) for law, part in zip(wells, np.split(some, [hidden], axis=1), strict=True)]
            parts = [(a.reshape(len(some), -1, *a.shape[1:]), b.reshape(len(some), -1, 3)) for a, b in kinds]
            modes, sums = (np.concatenate([part[k] for part in parts], axis=1) for k in range(2))
            flat = modes.transpose(1, 0, 2, 3).reshape(units, -1, 2)
            x, v = np.ascontiguousarray(flat[..., 0]), np.ascontiguousarray(flat[..., 1])
            gram += x @ x.T
            direct += v @ x.T
            means += rows.T @ sums[..., 0]
            pulls += rows.T @ sums[..., 1]
            spread += sums[..., 2].sum(axis=0)
            if thin:
                factors.append(x)
        gram[np.diag_indices(units)] += spread
        return cls(physics, design, gram, direct, means, pulls, spread, np.hstack(factors) if thin else None)

    @cached_property
    def inverse(self) -> Array:
        """Of the design's own moments, (inputs, inputs)."""
        return np.asarray(scipy.linalg.inv(self.physics.steps * self.design.T @ self.design))

    def gain(self, J: Array, b: Array) -> float:
        """By how much the mean action of a trajectory is below that of a machine that has learned nothing.

        ``J`` (units, units) symmetric with zero diagonal, ``b`` (inputs, units).
        """
        h, p = self.design @ b, self.physics
        linear = np.sum(b * self.pulls) + np.sum(J * self.direct)
        square = p.steps * np.sum(h * h) + 2 * np.sum(b * (self.means @ J)) + np.sum((J @ self.gram) * J)
        return float(-p.mobility * p.dt / (4 * p.kT * len(self.design)) * (2 * linear + square))


@dataclass(frozen=True)
class _Group:
    """Units that learn a bias, or those that do not: S is what is left of the Gram matrix."""

    rows: Array
    sums: Sums
    biased: bool

    @property
    def diagonal(self) -> Array:
        found = np.diag(self.sums.gram)
        if self.biased:
            found = found - np.einsum("ki,kl,li->i", self.sums.means, self.sums.inverse, self.sums.means)
        return np.asarray(found)

    def times(self, J: Array) -> Array:
        s = self.sums
        found = J @ s.gram if s.factor is None else (J @ s.factor) @ s.factor.T + J * s.spread
        if self.biased:
            found = found - (J @ s.means.T) @ s.inverse @ s.means
        return np.asarray(found)


def minimise(sums: Sums, hidden: int, free: Array) -> tuple[Array, Array]:
    """J (units, units), none between visible units, and b (inputs, units), zero where not ``free`` bool (units,).

    Raises RunError where the equations do not converge.
    """
    units = len(free)
    allowed = ~np.eye(units, dtype=bool)
    allowed[hidden:, hidden:] = False
    direct = sums.direct - np.where(free[:, None], sums.pulls.T @ sums.inverse @ sums.means, 0.0)
    kinds = [biased for biased in (True, False) if np.any(free == biased)]
    groups = [_Group(np.flatnonzero(free == biased), sums, biased) for biased in kinds]
    J = solve_pairs(groups, direct, allowed, np.zeros((units, units)), _TOLERANCE)
    b = -sums.inverse @ (sums.pulls + sums.means @ J)
    return J, np.asarray(np.where(free, b, 0.0))
