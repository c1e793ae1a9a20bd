"""Geodesics of the friction tensor: the protocols of least dissipation under slow driving.

Slow driving along theta(s), s = t / tau, costs <W_ex> = (1/tau) integral of theta'^T zeta theta' ds + O(1/tau^2)
(Hnybida & Verret 2025, Eq. 49, in rescaled time).  That is least along a geodesic of zeta at constant speed, where it
is length^2 / tau.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev, legendre
from scipy.interpolate import BSpline, make_interp_spline
from scipy.optimize import minimize

from thermorun.arrays import Array
from thermorun.errors import InputError, words
from thermorun.potentials.quadrature import from_left, panel_rule

# Maps theta (p,) to zeta (p, p).
Tensor = Callable[[Array], Array]

# Degrees of the polynomials tried for the path, until its speed is constant to this.
_DEGREES = (8, 16, 32)
_EVEN = 1e-3
# Of a path that leaves the valid region; the straight line's is of order one.
_REFUSED = 10.0
# Panels of the integral of the speed, doubled until the length agrees to this.
_PANELS = (4, 8, 16, 32, 64, 128)
_LENGTH_TOLERANCE = 1e-9
# A tensor that was measured over a grid is smoothed by polynomials of this degree at most.
_SMOOTH = 4


@dataclass(frozen=True)
class Geodesic:
    """A path between two points, run through at constant speed.

    ``path`` gives theta (..., p) for s = t / tau in [0, 1].  ``length`` is the path's, energy^(1/2) time^(1/2).
    ``line`` is the integral of theta'^T zeta theta' ds along the straight line at constant dtheta/ds, energy time.
    """

    start: Array
    end: Array
    path: BSpline
    length: float
    line: float

    @classmethod
    def through(cls, shares: Array, theta: Array, length: float, line: float) -> "Geodesic":
        """One that was stored: theta (n, p) at shares (n,) of tau from 0 to 1."""
        return cls(theta[0], theta[-1], make_interp_spline(shares, theta, k=5), length, line)

    def excess_work(self, tau: float) -> float:
        """length^2 / tau, the excess work predicted for the geodesic, energy."""
        return self.length**2 / tau

    def line_excess_work(self, tau: float) -> float:
        """The excess work predicted for the straight line, energy."""
        return self.line / tau

    def straight(self, s: Array) -> Array:
        """theta on the straight line, (points, p)."""
        return np.asarray(self.start + np.multiply.outer(s, self.end - self.start))


def geodesic(tensor: Tensor, start: Sequence[float], end: Sequence[float]) -> Geodesic:
    """The geodesic of ``tensor``, which maps theta (p,) to zeta (p, p), from ``start`` to ``end``.

    With one parameter the path is the line and only its speed is to be found.  With more, theta(s) is a polynomial that
    minimises the integral of theta'^T zeta theta' ds (BFGS); its degree is raised until the speed is constant.  Raises
    InputError where the points are equal, zeta is singular on the way, or no path is found.
    """
    first, last = np.asarray(start, float), np.asarray(end, float)
    if np.array_equal(first, last):
        raise InputError(f"theta is {words(start)} at both ends; a geodesic needs two points.")
    step = last - first
    line = _measure(tensor, lambda r: (first + np.multiply.outer(r, step), np.broadcast_to(step, (len(r), len(step)))))
    if len(first) == 1:
        return Geodesic(first, last, line.path, line.length, line.action)
    for degree in _DEGREES:
        path = _shortest(tensor, first, last, degree, line)
        measured = _measure(tensor, path)
        if measured.unevenness < _EVEN:
            return Geodesic(first, last, measured.path, measured.length, line.action)
    raise InputError(
        f"theta goes from {words(start)} to {words(end)}; no smooth geodesic was found between them: go there in parts."
    )


@dataclass(frozen=True)
class _Measured:
    """A path by its length, its integral of theta'^T zeta theta' dr, and theta against the share of the length."""

    path: BSpline
    length: float
    action: float
    unevenness: float


def _measure(tensor: Tensor, path: Callable[[Array], tuple[Array, Array]]) -> _Measured:
    nodes, weights, _ = panel_rule()
    last = np.nan
    for panels in _PANELS:
        half = np.full(panels, 0.5 / panels)
        r = ((2 * np.arange(panels)[:, None] + 1 + nodes) / (2 * panels)).ravel()
        theta, velocity = path(r)
        zeta = np.array([_regular(tensor, point) for point in theta])
        square = np.einsum("qi,qij,qj->q", velocity, zeta, velocity)
        speed = np.sqrt(square).reshape(panels, -1)
        length = float(np.sum(half[:, None] * weights * speed))
        if abs(length - last) <= _LENGTH_TOLERANCE * length:
            break
        last = length
    done = np.concatenate([[0.0], from_left(speed, half).ravel() / length, [1.0]])
    ends, _ = path(np.array([0.0, 1.0]))
    curve = make_interp_spline(done, np.concatenate([ends[:1], theta, ends[1:]]), k=5)
    action = float(np.sum(half[:, None] * weights * square.reshape(panels, -1)))
    # By Schwarz's inequality action >= length^2, and they are equal at constant speed.
    return _Measured(curve, length, action, action / length**2 - 1)


def _regular(tensor: Tensor, theta: Array) -> Array:
    zeta = tensor(theta)
    size = np.sqrt(np.abs(np.diag(zeta)))
    if not np.all(size > 0) or np.min(np.linalg.eigvalsh(zeta / np.outer(size, size))) < 1e-9:
        raise InputError(
            f"theta is {words(theta.tolist())}; the friction tensor is singular there, so the path through it has no"
            " length: is a parameter without effect, or are two of them one?"
        )
    return zeta


def _shortest(
    tensor: Tensor, start: Array, end: Array, degree: int, line: _Measured
) -> Callable[[Array], tuple[Array, Array]]:
    """The polynomial path of least action: theta(r), dtheta/dr for r in [0, 1]."""
    nodes, weights = legendre.leggauss(2 * degree + 8)
    r, weights = 0.5 * (nodes + 1), 0.5 * weights
    step, parameters = end - start, len(start)
    scale = np.sqrt(2 * np.arange(1, degree) + 1)

    def bases(at: Array) -> tuple[Any, Any]:
        # dtheta/dr = step + sum of c_n times orthonormal Legendre polynomials, the constant one left out.
        values = legendre.legvander(2 * at - 1, degree)
        orders = np.arange(1, degree)
        integrals = 0.5 * (values[:, 2:] - values[:, :-2]) / (2 * orders + 1)
        return integrals * scale, values[:, 1:-1] * scale

    shapes, velocities = bases(r)
    middle = np.array([_regular(tensor, point) for point in line.path(np.linspace(0.1, 0.9, 5))]).mean(axis=0)
    whiten = np.linalg.inv(np.linalg.cholesky(middle)).T * line.length
    nudge = 1e-4 * np.maximum(np.abs(step), 1e-2 * np.abs(whiten).max(axis=1))

    def action(unknowns: Array) -> tuple[float, Array]:
        try:
            return _action(unknowns)
        except InputError:
            # A step of the line search left the valid region: far too much, so that it turns back.
            return _REFUSED, np.zeros_like(unknowns)

    def _action(unknowns: Array) -> tuple[float, Array]:
        c = unknowns.reshape(-1, parameters) @ whiten.T
        theta = start + np.multiply.outer(r, step) + shapes @ c
        velocity = step + velocities @ c
        zeta = np.array([_regular(tensor, point) for point in theta])
        pull = np.einsum("qij,qj->qi", zeta, velocity)
        tilt = np.empty_like(theta)
        for k in range(parameters):
            move = np.zeros(parameters)
            move[k] = nudge[k]
            change = np.array([tensor(point + move) - tensor(point - move) for point in theta]) / (2 * nudge[k])
            tilt[:, k] = np.einsum("qi,qij,qj->q", velocity, change, velocity)
        gradient = 2 * velocities.T @ (weights[:, None] * pull) + shapes.T @ (weights[:, None] * tilt)
        value = float(np.sum(weights * np.sum(velocity * pull, axis=1)))
        return value / line.length**2, ((gradient @ whiten) / line.length**2).ravel()

    # From the line, run through at constant speed: the projection of its velocity.
    smooth = line.path.derivative()(r)
    first = (velocities.T @ (weights[:, None] * smooth)) @ np.linalg.inv(whiten).T
    size = first.size
    found = minimize(
        action, first.ravel(), jac=True, method="BFGS", options={"gtol": 1e-7, "hess_inv0": 0.5 * np.eye(size)}
    )
    best = found.x.reshape(-1, parameters) @ whiten.T

    def path(at: Array) -> tuple[Array, Array]:
        shape, velocity = bases(at)
        return start + np.multiply.outer(at, step) + shape @ best, step + velocity @ best

    return path


def smoothed(theta: Array, zeta: Array, counts: Sequence[int]) -> Tensor:
    """A tensor between the points of a grid: theta (n, q) with ``counts`` (q,) values of each, zeta (n, q, q).

    Logarithms of the matrices are fitted by polynomials, so that what comes out is positive definite.  It raises
    InputError outside the grid.
    """
    low, high = theta.min(axis=0), theta.max(axis=0)
    degrees = [min(count - 1, _SMOOTH) for count in counts]
    size = theta.shape[1]

    def basis(at: Array) -> Array:
        """Products of Chebyshev polynomials in each parameter, (..., products)."""
        scaled = (2 * at - low - high) / (high - low)
        out = np.ones((*at.shape[:-1], 1))
        for k, degree in enumerate(degrees):
            values = chebyshev.chebvander(scaled[..., k], degree)
            out = (out[..., None] * values[..., None, :]).reshape(*at.shape[:-1], -1)
        return out

    table = np.array([_of_eigenvalues(np.log, matrix) for matrix in zeta])
    weights = np.linalg.lstsq(basis(theta), table.reshape(len(theta), -1), rcond=None)[0]

    def tensor(at: Array) -> Array:
        if np.any(at < low - 1e-3 * (high - low)) or np.any(at > high + 1e-3 * (high - low)):
            raise InputError(f"theta is {words(at.tolist())}, outside the grid; the geodesic leaves it.")
        return _of_eigenvalues(np.exp, (basis(at) @ weights).reshape(size, size))

    return tensor


def _of_eigenvalues(function: Callable[[Array], Array], matrix: Array) -> Array:
    """A function of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * function(values) @ vectors.T)
