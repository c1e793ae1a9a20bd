"""The mean Onsager-Machlup action of idealised trajectories, and its minimum.

Along an idealised trajectory of bias -a the residual is linear in all that is learned,

    r(t) = mu dt (a + b + W u + J x(t)) / (2 kT),     S = mu dt / (4 kT) sum_t |a + b + W u + J x(t)|^2,

so the mean action over the data is a quadratic form in (W, b, J).  What it needs of the trajectories are their sums of
x over time and, summed over the data, of x x^T (`thermokernels.onsager_machlup.teach`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from thermokernels import onsager_machlup
from thermorun.arrays import Array
from thermorun.computer.machine import Physics
from thermorun.errors import RunError

# Below this reciprocal condition number normal equations count as singular.
_SINGULAR = 1e-11
# What is added to their diagonal then, relative to its mean.
_RIDGE = 1e-5
_TOLERANCE = 1e-9
_MOST_ITERATIONS = 20_000
# Multiplications of one kernel call: after it Ctrl-C is heard.  It decides the rounding of the sums.
_CALL = 7e10


@dataclass(frozen=True)
class Parameters:
    """What is learned: ``W`` (units, inputs), ``b`` (units,), ``J`` (units, units)."""

    W: Array
    b: Array
    J: Array


@dataclass(frozen=True)
class Statistics:
    """Some data, and the sufficient statistics of their idealised trajectories.

    ``inputs`` (points, inputs), ``targets`` a (points, units), ``sums`` (points, units) of x over time, ``gram``
    float64 (units, units), the sum over points and time of x x^T.
    """

    inputs: Array
    targets: Array
    sums: Array
    gram: Array

    @classmethod
    def of(cls, inputs: Array, targets: Array, physics: Physics) -> "Statistics":
        """Runs the idealised trajectories, in the dtype of ``targets``."""
        points, units = targets.shape
        sums, gram, part = np.empty_like(targets), np.zeros((units, units)), np.empty((units, units))
        length = max(1, int(_CALL // (physics.steps * units**2)))
        for first in range(0, points, length):
            some = slice(first, first + length)
            onsager_machlup.teach(targets[some], physics.steps, physics.kernel, sums[some], part)
            gram += part
        return cls(inputs, targets, sums, gram)


def mean_action(statistics: Statistics, parameters: Parameters, physics: Physics) -> float:
    """S averaged over the data."""
    return gradient(statistics, parameters, physics)[0]


def gradient(
    statistics: Statistics, p: Parameters, physics: Physics, parameter_noise: float = 0.0
) -> tuple[float, Parameters]:
    """S and its gradient, averaged over the data; that of J_ij counts both places of the pair (Eqs. 8 to 10).

    With ``parameter_noise`` averaged over parameters p (1 + parameter_noise z) too, as in `minimise`.
    """
    points, steps = len(statistics.inputs), physics.steps
    scale = physics.mobility * physics.dt / (2.0 * physics.kT * points)
    still = statistics.targets + statistics.inputs @ p.W.T + p.b
    pull = statistics.sums @ p.J
    residuals = steps * still + pull
    action = 0.5 * scale * (_dot(still, residuals) + _dot(still, pull) + _dot(p.J @ statistics.gram, p.J))
    by_pair = still.T @ statistics.sums + p.J @ statistics.gram
    by_pair += by_pair.T
    np.fill_diagonal(by_pair, 0.0)
    by_input, by_bias = residuals.T @ statistics.inputs, residuals.sum(axis=0)
    if parameter_noise:
        squares, gram = steps * (statistics.inputs**2).sum(axis=0), np.diag(statistics.gram)
        inputs, biases, pairs = p.W * squares, points * steps * p.b, p.J * gram
        spread = _dot(inputs, p.W) + float(biases @ p.b) + _dot(pairs, p.J)
        action += 0.5 * scale * parameter_noise**2 * spread
        by_input = by_input + parameter_noise**2 * inputs
        by_bias = by_bias + parameter_noise**2 * biases
        by_pair += parameter_noise**2 * (pairs + pairs.T)
    return float(action), Parameters(
        (scale * by_input).astype(p.W.dtype), (scale * by_bias).astype(p.b.dtype), (scale * by_pair).astype(p.J.dtype)
    )


def _dot(a: Array, b: Array) -> float:
    return float(np.einsum("ij,ij->", a, b, dtype=float))


def minimise(
    statistics: Statistics, physics: Physics, mask: Array, weight_decay: float, parameter_noise: float = 0.0
) -> tuple[Parameters, float]:
    """The (W, b, J) of least mean action plus half of ``weight_decay`` times the sum of squared couplings.

    With ``parameter_noise`` sigma the action is averaged over parameters p (1 + sigma z), z standard normal: a
    quadratic form gains sigma^2 H_kk p_k^2 / 2 for each parameter, H being its second derivatives.

    ``mask`` bool (units, inputs + units): which couplings there are.  W and b are eliminated, for every set of inputs
    that units share; the rest are linear equations for the pairs (i, j), solved by conjugate gradients.

    Returns also the ridge that had to be added to the inputs' normal equations, relative to the mean of their diagonal:
    0 unless they are singular, as they are where inputs repeat one another.  Raises RunError where the pairs' equations
    do not converge.
    """
    points, inputs = statistics.inputs.shape
    units = statistics.targets.shape[1]
    steps, a, m = physics.steps, statistics.targets.astype(float), statistics.sums.astype(float)
    u = np.hstack([statistics.inputs.astype(float), np.ones((points, 1))])
    scale = physics.mobility * physics.dt / (2.0 * physics.kT * points)
    moments, by_target, by_sum = u.T @ u, u.T @ a, u.T @ m
    decay = np.append(np.full(inputs, weight_decay / (scale * steps)), 0.0) + parameter_noise**2 * np.diag(moments)
    ridge = 0.0

    # W_i = -P_i (u^T a_i + u^T m J_i / steps) leaves for J_i the matrix S_i = gram - m^T u P_i u^T m / steps.
    direct = a.T @ m
    solved = np.zeros((units, inputs + 1))
    groups = []
    seen, group = np.unique(mask[:, :inputs], axis=0, return_inverse=True)
    for g, allowed in enumerate(seen):
        rows, columns = np.flatnonzero(group.ravel() == g), np.flatnonzero(np.append(allowed, True))
        factor, added = _cholesky(moments[np.ix_(columns, columns)] + np.diag(decay[columns]))
        ridge = max(ridge, added)
        to_sum = scipy.linalg.cho_solve(factor, by_sum[columns])
        to_target = scipy.linalg.cho_solve(factor, by_target[np.ix_(columns, rows)])
        direct[rows] -= to_target.T @ by_sum[columns]
        solved[np.ix_(rows, columns)] = to_target.T
        groups.append(_Group(rows, columns, statistics.gram - by_sum[columns].T @ to_sum / steps, to_sum))

    squares = np.diag(statistics.gram)
    J = solve_pairs(
        groups, direct, mask[:, inputs:], weight_decay / scale + parameter_noise**2 * np.add.outer(squares, squares)
    )
    for each in groups:
        solved[np.ix_(each.rows, each.columns)] += J[each.rows] @ each.to_sum.T / steps
    return Parameters(np.ascontiguousarray(-solved[:, :inputs]), -solved[:, inputs], J), ridge


@dataclass(frozen=True)
class _Group:
    """Units that share their inputs: S, what is left of the Gram matrix, and P u^T m."""

    rows: Array
    columns: Array
    S: Array
    to_sum: Array

    @property
    def diagonal(self) -> Array:
        """Of S, (units,)."""
        return np.diag(self.S)

    def times(self, J: Array) -> Array:
        """J S, for rows (n, units) of J."""
        return np.asarray(J @ self.S)


class PairGroup(Protocol):
    """Units whose couplings J_i obey equations with one matrix S (units, units): what `solve_pairs` asks of them."""

    @property
    def rows(self) -> Array:
        """Which units they are."""

    @property
    def diagonal(self) -> Array:
        """Of S, (units,)."""

    def times(self, J: Array) -> Array:
        """J S, for rows (n, units) of J."""


def _cholesky(block: Array) -> tuple[Any, float]:
    """The Cholesky factor, and the relative ridge without which there would be none."""
    try:
        factor = scipy.linalg.cho_factor(block, lower=True)
        condition, _ = scipy.linalg.lapack.dpocon(factor[0], np.linalg.norm(block, 1), uplo="L")
        if condition > _SINGULAR:
            return factor, 0.0
    except np.linalg.LinAlgError:
        pass
    mean = np.trace(block) / len(block)
    return scipy.linalg.cho_factor(block + _RIDGE * mean * np.eye(len(block)), lower=True), _RIDGE


def solve_pairs(
    groups: Sequence[PairGroup], direct: Array, allowed: Array, decays: Array, tolerance: float = _TOLERANCE
) -> Array:
    """Symmetric J, zero where not ``allowed``: (J S)_ij + (J S)_ji + decays_ij J_ij + direct_ij + direct_ji = 0,
    where row i of J S is J_i times the S of its group.  Conjugate gradients, until the residual is ``tolerance`` of the
    right side.  Raises RunError where that does not come."""
    units = len(direct)
    i, j = np.nonzero(np.tril(allowed, -1))
    if not len(i):
        return np.zeros((units, units))
    diagonals = np.empty((units, units))
    for group in groups:
        diagonals[group.rows] = group.diagonal
    stiffness = diagonals[i, j] + diagonals[j, i] + decays[i, j]
    # A unit that never moves does not matter: its pairs are left at zero.
    moving = stiffness > 1e-14 * stiffness.max()
    i, j, stiffness = i[moving], j[moving], stiffness[moving]
    decay = decays[i, j]

    def symmetric(pairs: Array) -> Array:
        J = np.zeros((units, units))
        J[i, j] = J[j, i] = pairs.ravel()
        return J

    def gradient_of(pairs: Array) -> Array:
        J, each = symmetric(pairs), np.empty((units, units))
        for group in groups:
            each[group.rows] = group.times(J[group.rows])
        both: Array = each[i, j] + each[j, i] + decay * pairs.ravel()
        return both

    size = (len(i), len(i))
    pairs, failed = scipy.sparse.linalg.cg(
        scipy.sparse.linalg.LinearOperator(size, gradient_of, dtype=float),
        -(direct[i, j] + direct[j, i]),
        rtol=tolerance,
        maxiter=_MOST_ITERATIONS,
        M=scipy.sparse.linalg.LinearOperator(size, lambda v: v.ravel() / stiffness, dtype=float),
    )
    if failed:
        raise RunError(
            f"the equations for the couplings did not converge in {_MOST_ITERATIONS:,} iterations; a weight_decay above"
            " 0 helps."
        )
    return symmetric(pairs)
