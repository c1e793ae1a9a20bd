"""What is known exactly of a potential's ensembles: free energy, mean gradient, Fisher metric, friction, data.

In one dimension by quadrature, for quadratic energies in any dimension in closed form.  Equation numbers are those of
Hnybida & Verret 2025.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from thermorun.arrays import Array
from thermorun.errors import InputError, words
from thermorun.potentials import quadrature
from thermorun.potentials.potential import Point, Potential

if TYPE_CHECKING:
    from thermorun.potentials.system import System

Shape = Callable[[Point], tuple[Array, Array]]

# A metric is singular where its smallest eigenvalue is below this, after scaling to unit diagonal.
_SINGULAR = 1e-9


@dataclass(frozen=True)
class Exact:
    """Equilibrium at one theta, as it is known exactly.

    Attributes
    ----------
    free_energy : float
        F = -ln Z / beta, energy.
    mean_gradient : ndarray, (p,)
        dF/dtheta = <dE/dtheta>.
    fisher : ndarray, (p, p)
        g_ij = beta^2 Cov(dE/dtheta_i, dE/dtheta_j)                    (Eq. 52)
    friction : ndarray, (p, p)
        zeta_ij, energy time over theta_i theta_j                      (Eq. 51)
    relaxation : ndarray, (p, p)
        tau^r_ij = beta zeta_ij / g_ij, time; NaN where g_ij is zero   (Eq. 51)
    """

    free_energy: float
    mean_gradient: Array
    fisher: Array
    friction: Array
    relaxation: Array


def exact(system: "System", theta: ArrayLike) -> Exact | None:
    """What is known at ``theta`` (p,), or None where nobody knows it.  Raises InputError without an equilibrium."""
    potential, beta = system.potential, system.beta
    point = tuple(potential.require_valid(theta).tolist())
    if potential.quadratic is not None:
        return _quadratic(system, point)
    if potential.dimension > 1:
        return None
    try:
        return _of(
            quadrature.equilibrium(
                *functions(potential), point, beta=beta, mobility=system.mobility, domain=potential.domain.sides[0]
            )
        )
    except quadrature.NotConverged:
        return None


def _of(found: quadrature.Equilibrium) -> Exact:
    return Exact(found.free_energy, found.mean_gradient, found.fisher, found.friction, found.relaxation)


def functions(potential: Potential) -> tuple[quadrature.Function, quadrature.Function]:
    """Energy and gradient of a one-dimensional potential, vectorised over x."""
    return potential.energies, potential.gradients


def require_regular(fisher: Array, potential: Potential, theta: ArrayLike) -> None:
    """Raises InputError where the Fisher metric is singular."""
    size = np.sqrt(np.diag(fisher))
    if np.all(size > 0) and np.linalg.eigvalsh(fisher / np.outer(size, size))[0] > _SINGULAR:
        return
    names = ", ".join(potential.parameters)
    raise InputError(
        f"theta is {words(np.asarray(theta).tolist())}; the Fisher metric of {potential.name} ({names}) is"
        " singular there: a parameter has no effect, or several have the same."
    )


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
    """Exact equilibrium of a system, in one dimension on one quadrature for all theta between and near ``corners``."""

    def __init__(self, system: "System", corners: Sequence[Array]) -> None:
        self.system, self.potential = system, system.potential
        self.beta, self.mobility = system.beta, system.mobility
        if not known(self.potential):
            raise InputError(
                f"{self.potential.name} has {self.potential.dimension} dimensions and is not quadratic, so that its"
                " metric is not known; let it be estimated."
            )
        if self.potential.quadratic is None:
            self._edges = self._panels(corners)

    def _panels(self, corners: Sequence[Array]) -> Array:
        """Edges of panels as fine as the finest corner needs, from the lowest end of any to the highest."""
        side = self.potential.domain.sides[0]
        whole = [
            quadrature.equilibrium(
                *functions(self.potential), theta.tolist(), beta=self.beta, mobility=self.mobility, domain=side
            )
            for theta in corners
        ]
        low, high = min(one.x[0] for one in whole), max(one.x[-1] for one in whole)
        margin = 0.1 * (high - low)
        density = max(len(one.x) / (one.x[-1] - one.x[0]) for one in whole)
        panels = int(np.ceil(density * 1.2 * (high - low) / quadrature.NODES))
        even = np.linspace(max(low - margin, side.low), min(high + margin, side.high), panels + 1)
        # Where an energy has structure that equal panels miss, its own panels beside them.
        widths = [np.diff(one.edges) for one in whole]
        uneven = [one.edges for one, width in zip(whole, widths, strict=True) if width.max() > 1.5 * width.min()]
        return np.unique(np.concatenate([even, *uneven]))

    def _equilibrium(self, theta: Array) -> quadrature.Equilibrium:
        return quadrature.on_panels(
            *functions(self.potential), tuple(theta.tolist()), self.beta, self.mobility, self._edges,
            self.potential.domain.sides[0],
        )  # fmt: skip

    def at(self, theta: Array) -> Exact:
        """The equilibrium at ``theta`` (p,)."""
        if self.potential.quadratic is None:
            return _of(self._equilibrium(theta))
        return _quadratic(self.system, tuple(theta.tolist()))

    def data(self, theta: Array) -> Data:
        """Points and weights that have the expectations of p_m(x, theta)."""
        if self.potential.quadratic is None:
            found = self._equilibrium(theta)
            weights = found.weights * found.density
            kept = weights > 1e-18
            return Data(found.x[kept, None], weights[kept])
        precision, mean = self.potential.quadratic(tuple(theta.tolist()))
        return gaussian_data(mean, np.asarray(np.linalg.inv(precision) / self.beta))


def gaussian_data(mean: Array, covariance: Array) -> Data:
    """2 d points with the first three moments of a Gaussian: all that a quadratic energy asks for."""
    root = np.linalg.cholesky(covariance).T * np.sqrt(len(mean))
    points = mean + np.concatenate([root, -root])
    return Data(points, np.full(len(points), 1 / len(points)))


def known(potential: Potential) -> bool:
    """Whether `Theory` covers a potential."""
    return potential.dimension == 1 or potential.quadratic is not None


def _quadratic(system: "System", theta: tuple[float, ...]) -> Exact:
    """E = (x - m)^T K (x - m) / 2 plus what does not depend on x: all in closed form.

    There dE/dtheta_i = c + a_i . y + y^T B_i y / 2 with y = x - m, and y decays as exp(-mu K t).  In the axes of K,
    with stiffnesses k, Wick's theorem gives the correlation sum_a a_a a_a e^(-mu k_a t) / (beta k_a)
    + sum_ab B_ab B_ab e^(-mu (k_a + k_b) t) / (2 beta^2 k_a k_b).
    """
    potential, beta, mobility = system.potential, system.beta, system.mobility
    precision, mean = require_quadratic(potential)(theta)
    stiffness, axes = np.linalg.eigh(precision)
    d = len(mean)
    pairs = [(a, b) for a in range(d) for b in range(d)]
    # Thermal lengths, to a power of two: differences over steps of any length are exact for quadratic functions.
    size = 2.0 ** np.round(-0.5 * np.log2(beta * stiffness))
    axes = axes * size
    steps = np.concatenate([np.zeros((1, d)), axes.T, -axes.T, [axes[:, a] + axes[:, b] for a, b in pairs]])
    slopes = potential.evaluate(mean + steps, theta)[2]
    first = 0.5 * (slopes[1 : d + 1] - slopes[d + 1 : 2 * d + 1]) / size[:, None]
    second = slopes[2 * d + 1 :].reshape(d, d, -1) + slopes[0] - slopes[1 : d + 1, None] - slopes[None, 1 : d + 1]
    second /= np.multiply.outer(size, size)[..., None]
    both = np.add.outer(stiffness, stiffness)
    one, two = 1 / (beta * stiffness), 0.5 / (beta**2 * np.multiply.outer(stiffness, stiffness))
    fisher = np.einsum("ai,aj,a->ij", first, first, one) + np.einsum("abi,abj,ab->ij", second, second, two)
    integral = np.einsum("ai,aj,a->ij", first, first, one / stiffness)
    integral += np.einsum("abi,abj,ab->ij", second, second, two / both)
    fisher, friction = beta**2 * fisher, beta / mobility * integral
    data = gaussian_data(mean, np.asarray(np.linalg.inv(precision) / beta))
    if potential.free_energy is None:
        lowest = float(potential.energies(mean[None], theta)[0])
        free_energy = lowest + 0.5 * float(np.sum(np.log(beta * stiffness / (2 * np.pi)))) / beta
    else:
        free_energy = potential.free_energy(theta, beta)
    return Exact(
        free_energy,
        data.mean_gradient(potential, np.array(theta)),
        fisher,
        friction,
        quadrature.relaxation_times(fisher, friction, beta),
    )


def require_quadratic(potential: Potential) -> Shape:
    """``quadratic`` of a potential that has it.  Raises InputError for any other."""
    if potential.quadratic is None:
        raise InputError(f"{potential.name} is not quadratic; what was asked for is known for quadratic energies only.")
    return potential.quadratic
