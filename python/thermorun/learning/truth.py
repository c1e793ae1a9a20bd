"""Exact metric of a potential where there is one: quadrature in one dimension, a closed form for quadratic E."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thermorun.errors import InputError
from thermorun.learning import quadrature
from thermorun.learning.potentials import Potential

Array = NDArray[np.float64]


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
    if np.all(size > 0) and np.linalg.eigvalsh(fisher / np.outer(size, size))[0] > 1e-9:
        return
    names = ", ".join(potential.parameters)
    raise InputError(
        f"theta is {quadrature.words(np.asarray(theta).tolist())}; the Fisher metric of {potential.name} ({names}) is"
        " singular there: a parameter has no effect, or several have the same."
    )


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
