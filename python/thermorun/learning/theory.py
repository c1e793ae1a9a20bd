"""What is known exactly of a potential's ensembles: free energy, mean gradient, Fisher metric, friction, data.

In one dimension by quadrature, for quadratic energies in any dimension in closed form.  Equation numbers are those of
Hnybida & Verret 2025.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from thermorun.errors import InputError
from thermorun.learning import quadrature
from thermorun.learning.potentials import Potential

Array = NDArray[np.float64]

# A metric is singular where its smallest eigenvalue is below this share of its largest, after scaling to unit diagonal.
_SINGULAR = 1e-10


@dataclass(frozen=True)
class Point:
    """Equilibrium at one theta: F, and the (p,) and (p, p) arrays dF/dtheta, g (Eq. 52) and zeta (Eq. 51)."""

    free_energy: float
    mean_gradient: Array
    fisher: Array
    friction: Array


@dataclass(frozen=True)
class Data:
    """What a model learns from: points (n, d) and their weights (n,), which sum to one."""

    x: Array
    weights: Array

    def mean_gradient(self, potential: Potential, theta: Array) -> Array:
        """<dE/dtheta>_data; (p,)."""
        return np.asarray(potential.gradients(self.x, theta) @ self.weights)

    def mean_energy(self, potential: Potential, theta: Array) -> float:
        """<E>_data."""
        return float(potential.energies(self.x, theta) @ self.weights)


class Theory:
    """Exact equilibrium of one potential, on one quadrature for all theta between and near ``corners``."""

    def __init__(self, potential: Potential, beta: float, mobility: float, corners: Sequence[Array]) -> None:
        self.potential, self.beta, self.mobility = potential, beta, mobility
        if not known(potential):
            raise InputError(
                f"{potential.name} has {potential.dimension} dimensions and is not quadratic, so that its metric is not"
                " known; let it be estimated."
            )
        if potential.quadratic is None:
            finest = [
                quadrature.equilibrium(
                    potential.energies, potential.gradients, theta.tolist(), beta=beta, mobility=mobility
                )
                for theta in corners
            ]
            low, high = min(one.x[0] for one in finest), max(one.x[-1] for one in finest)
            margin = 0.1 * (high - low)
            density = max(len(one.x) / (one.x[-1] - one.x[0]) for one in finest)
            panels = int(np.ceil(density * 1.2 * (high - low) / quadrature.NODES))
            self.edges = np.linspace(low - margin, high + margin, panels + 1)

    def _law(self, theta: Array) -> quadrature.Equilibrium:
        potential = self.potential
        return quadrature.on_panels(
            potential.energies, potential.gradients, tuple(theta.tolist()), self.beta, self.mobility, self.edges
        )

    def at(self, theta: Array) -> Point:
        """The equilibrium at ``theta`` (p,)."""
        if self.potential.quadratic is None:
            law = self._law(theta)
            return Point(law.free_energy, law.mean_gradient, law.fisher, law.friction)
        return self._gaussian(theta)

    def data(self, theta: Array) -> Data:
        """Points and weights that have the expectations of p_m(x, theta)."""
        if self.potential.quadratic is None:
            law = self._law(theta)
            weights = law.weights * law.density
            kept = weights > 1e-18
            return Data(law.x[kept, None], weights[kept])
        precision, mean = self.potential.quadratic(tuple(theta.tolist()))
        return gaussian_data(mean, np.asarray(np.linalg.inv(precision) / self.beta))

    def _gaussian(self, theta: Array) -> Point:
        quadratic, free_energy = self.potential.quadratic, self.potential.free_energy
        assert quadratic is not None
        assert free_energy is not None
        p, beta = len(theta), self.beta
        precision, _ = quadratic(tuple(theta.tolist()))
        stiffness, vectors = np.linalg.eigh(precision)
        slopes, shifts, mean_gradient = [], [], np.empty(p)
        for j in range(p):
            step = np.zeros(p)
            step[j] = 1e-5 * max(1.0, abs(theta[j]))
            (up, up_mean), (down, down_mean) = (quadratic(tuple((theta + sign * step).tolist())) for sign in (1, -1))
            slopes.append(vectors.T @ (up - down) @ vectors / (2 * step[j]))
            shifts.append(vectors.T @ (up_mean - down_mean) / (2 * step[j]))
            ends = [free_energy(tuple((theta + sign * step).tolist()), beta) for sign in (1, -1)]
            mean_gradient[j] = (ends[0] - ends[1]) / (2 * step[j])
        k, m = np.stack(slopes), np.stack(shifts)
        # dE/dtheta_i = y K_i y / 2 - y K m_i in the modes y, which relax independently at the rates mu stiffness.
        square = np.outer(stiffness, stiffness)
        fisher = 0.5 * np.einsum("iab,jab,ab->ij", k, k, 1 / square) + beta * (m * stiffness) @ m.T
        lasting = 1 / (square * np.add.outer(stiffness, stiffness))
        friction = 0.5 * np.einsum("iab,jab,ab->ij", k, k, lasting) / beta + m @ m.T
        return Point(free_energy(tuple(theta.tolist()), beta), mean_gradient, fisher, friction / self.mobility)


def gaussian_data(mean: Array, covariance: Array) -> Data:
    """2 d points with the first three moments of a Gaussian: all that a quadratic energy asks for."""
    root = np.linalg.cholesky(covariance).T * np.sqrt(len(mean))
    points = mean + np.concatenate([root, -root])
    return Data(points, np.full(len(points), 1 / len(points)))


def known(potential: Potential) -> bool:
    """Whether `Theory` covers a potential."""
    return potential.dimension == 1 or (potential.quadratic is not None and potential.free_energy is not None)


def require_regular(potential: Potential, fisher: Array, theta: Array) -> None:
    """Raises InputError where g is singular, so that Eq. 53 has no inverse that means anything."""
    scale = np.sqrt(np.diag(fisher))
    if np.all(scale > 0):
        least = float(np.linalg.eigvalsh(fisher / np.outer(scale, scale))[0])
        if least > _SINGULAR:
            return
    raise InputError(
        f"theta is {quadrature.words(theta.tolist())}, where the Fisher metric of {potential.name} is singular: some"
        " change of its parameters leaves the law of x as it is; take out the parameter too many."
    )


def natural_flow(theory: Theory, data: Data, theta: Array, times: Array) -> Array:
    """theta along the natural-gradient flow of Eq. 54 at ``times`` (n,), in units of tau; (n, p).

    With w = -ln(1 - t / tau) it is dtheta/dw = -beta g^-1 grad L_MLE, whatever tau is.  Raises InputError where it
    leaves the valid region.
    """
    potential = theory.potential

    def slope(w: float, point: Array) -> Array:
        potential.require_valid(point, "the path of Eq. 54")
        here = theory.at(point)
        descent = data.mean_gradient(potential, point) - here.mean_gradient
        return np.asarray(-theory.beta * np.linalg.solve(here.fisher, descent))

    with np.errstate(divide="ignore"):
        w = np.minimum(-np.log1p(-np.clip(times, 0, 1)), 30.0)
    solution = solve_ivp(slope, (0, max(float(w.max()), 1e-9)), theta, t_eval=np.unique(w), rtol=1e-8, atol=1e-10)
    return np.asarray(solution.y.T[np.searchsorted(np.unique(w), w)])
