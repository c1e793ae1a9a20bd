"""What is known exactly of a potential's ensembles: free energy, mean gradient, Fisher metric, friction, data.

In one dimension by quadrature, for quadratic energies in any dimension in closed form.  Equation numbers are those of
Hnybida & Verret 2025.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

from thermorun.errors import InputError
from thermorun.potentials import quadrature
from thermorun.potentials.potential import Potential

Array = NDArray[np.float64]

# A metric is singular where its smallest eigenvalue is below this, after scaling to unit diagonal.
_SINGULAR = 1e-9


@dataclass(frozen=True)
class Truth:
    """g, zeta and tau^r, each (p, p), and F; F is NaN where it is not known."""

    fisher: Array
    friction: Array
    relaxation: Array
    free_energy: float


def truth(potential: Potential, theta: ArrayLike, *, beta: float = 1.0, mobility: float = 1.0) -> Truth | None:
    """The exact metric at ``theta``, or None where nobody knows it.  Raises InputError without an equilibrium."""
    point = tuple(potential.require_valid(theta).tolist())
    if potential.dimension == 1:
        found = quadrature.equilibrium(*functions(potential), point, beta=beta, mobility=mobility)
        return Truth(found.fisher, found.friction, found.relaxation, found.free_energy)
    if potential.quadratic is None:
        return None
    fisher, friction = _quadratic(potential, point, beta, mobility)
    free_energy = np.nan if potential.free_energy is None else potential.free_energy(point, beta)
    return Truth(fisher, friction, quadrature.relaxation_times(fisher, friction, beta), free_energy)


def functions(potential: Potential) -> tuple[quadrature.Function, quadrature.Function]:
    """Energy and gradient of a one-dimensional potential, vectorised over x."""
    return potential.energies, lambda x, theta: potential.evaluate(x, theta)[2].T


def require_regular(fisher: Array, potential: Potential, theta: ArrayLike) -> None:
    """Raises InputError where the Fisher metric is singular."""
    size = np.sqrt(np.diag(fisher))
    if np.all(size > 0) and np.linalg.eigvalsh(fisher / np.outer(size, size))[0] > _SINGULAR:
        return
    names = ", ".join(potential.parameters)
    raise InputError(
        f"theta is {quadrature.words(np.asarray(theta).tolist())}; the Fisher metric of {potential.name} ({names}) is"
        " singular there: a parameter has no effect, or several have the same."
    )


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
        found = truth(self.potential, theta, beta=self.beta, mobility=self.mobility)
        assert found is not None
        mean_gradient = self.data(theta).mean_gradient(self.potential, theta)
        return Point(found.free_energy, mean_gradient, found.fisher, found.friction)

    def data(self, theta: Array) -> Data:
        """Points and weights that have the expectations of p_m(x, theta)."""
        if self.potential.quadratic is None:
            law = self._law(theta)
            weights = law.weights * law.density
            kept = weights > 1e-18
            return Data(law.x[kept, None], weights[kept])
        precision, mean = self.potential.quadratic(tuple(theta.tolist()))
        return gaussian_data(mean, np.asarray(np.linalg.inv(precision) / self.beta))


def gaussian_data(mean: Array, covariance: Array) -> Data:
    """2 d points with the first three moments of a Gaussian: all that a quadratic energy asks for."""
    root = np.linalg.cholesky(covariance).T * np.sqrt(len(mean))
    points = mean + np.concatenate([root, -root])
    return Data(points, np.full(len(points), 1 / len(points)))


def known(potential: Potential) -> bool:
    """Whether `Theory` covers a potential."""
    return potential.dimension == 1 or (potential.quadratic is not None and potential.free_energy is not None)


def _quadratic(potential: Potential, theta: tuple[float, ...], beta: float, mobility: float) -> tuple[Array, Array]:
    """g and zeta of E = (x - m)^T K (x - m) / 2.

    There dE/dtheta_i = c + a_i . y + y^T B_i y / 2 with y = x - m, and y decays as exp(-mu K t).  In the axes of K,
    with stiffnesses k, Wick's theorem gives the correlation sum_a a_a a_a e^(-mu k_a t) / (beta k_a)
    + sum_ab B_ab B_ab e^(-mu (k_a + k_b) t) / (2 beta^2 k_a k_b).
    """
    assert potential.quadratic is not None
    precision, mean = potential.quadratic(theta)
    stiffness, axes = np.linalg.eigh(precision)
    d = len(mean)
    pairs = [(a, b) for a in range(d) for b in range(d)]
    steps = np.concatenate([np.zeros((1, d)), axes.T, -axes.T, [axes[:, a] + axes[:, b] for a, b in pairs]])
    slopes = potential.evaluate(mean + steps, theta)[2]
    # Differences over steps of one are exact for polynomials of second degree.
    first = 0.5 * (slopes[1 : d + 1] - slopes[d + 1 : 2 * d + 1])
    second = slopes[2 * d + 1 :].reshape(d, d, -1) + slopes[0] - slopes[1 : d + 1, None] - slopes[None, 1 : d + 1]
    both = np.add.outer(stiffness, stiffness)
    one, two = 1 / (beta * stiffness), 0.5 / (beta**2 * np.multiply.outer(stiffness, stiffness))
    fisher = np.einsum("ai,aj,a->ij", first, first, one) + np.einsum("abi,abj,ab->ij", second, second, two)
    integral = np.einsum("ai,aj,a->ij", first, first, one / stiffness)
    integral += np.einsum("abi,abj,ab->ij", second, second, two / both)
    return beta**2 * fisher, beta / mobility * integral


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
