"""Learning with infinitely many particles: the law of x itself moves, and theta follows its mean gradient.

In one dimension the law lives on a grid as in `optimal`; in quadratic potentials it is Gaussian, with a mean and a
covariance.  Jumps and relaxations alternate as in `closed_loop`, but relaxations are exact.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from thermorun.learning import rates
from thermorun.potentials import fokker_planck as optimal
from thermorun.potentials.exact import Data, Theory, gaussian_data
from thermorun.potentials.quadrature import support

Array = NDArray[np.float64]

_POINTS = 600
_DEPTH = 35.0


@dataclass(frozen=True)
class Trajectory:
    """theta (points, p) before the first jump and after each, at ``time`` (points,); work (points,) until then."""

    time: Array
    theta: Array
    work: Array


class _Grid:
    """The law of x on a grid, one dimension."""

    def __init__(self, theory: Theory, theta: Array, target: Array) -> None:
        self.theory, potential = theory, theory.potential
        way = [theta + share * (target - theta) for share in np.linspace(-0.1, 1.1, 13)]
        inside = [one for one in way if potential.why_invalid(tuple(one.tolist())) is None]
        sides = np.array([support(potential.energies, one.tolist(), theory.beta, _DEPTH) for one in inside])
        self.x = np.linspace(sides[:, 0].min(), sides[:, 1].max(), _POINTS)
        self.rate = theory.mobility / theory.beta / (self.x[1] - self.x[0]) ** 2
        depth = theory.beta * potential.energies(self.x, theta)
        self.law = np.exp(-depth - logsumexp(-depth))

    def gradient(self, theta: Array) -> Array:
        return np.asarray(self.theory.potential.gradients(self.x, theta) @ self.law)

    def work(self, theta: Array, new: Array) -> float:
        potential = self.theory.potential
        return float(self.law @ (potential.energies(self.x, new) - potential.energies(self.x, theta)))

    def relax(self, theta: Array, time: float) -> None:
        energy = self.theory.potential.energies(self.x, theta)
        self.law, _ = optimal.Step(energy, self.theory.beta, self.rate * time).forward(self.law)


class _Gaussian:
    """The mean and the covariance of x in a quadratic potential."""

    def __init__(self, theory: Theory, theta: Array) -> None:
        assert theory.potential.quadratic is not None
        self.theory = theory
        precision, self.mean = theory.potential.quadratic(tuple(theta.tolist()))
        self.covariance: Array = np.asarray(np.linalg.inv(precision) / theory.beta)

    def _data(self) -> Data:
        return gaussian_data(self.mean, self.covariance)

    def gradient(self, theta: Array) -> Array:
        return self._data().mean_gradient(self.theory.potential, theta)

    def work(self, theta: Array, new: Array) -> float:
        data, potential = self._data(), self.theory.potential
        return data.mean_energy(potential, new) - data.mean_energy(potential, theta)

    def relax(self, theta: Array, time: float) -> None:
        assert self.theory.potential.quadratic is not None
        precision, centre = self.theory.potential.quadratic(tuple(theta.tolist()))
        stiffness, vectors = np.linalg.eigh(precision)
        decay = (vectors * np.exp(-self.theory.mobility * stiffness * time)) @ vectors.T
        rest = np.linalg.inv(precision) / self.theory.beta
        self.mean = centre + decay @ (self.mean - centre)
        self.covariance = rest + decay @ (self.covariance - rest) @ decay


def learn(
    theory: Theory, data: Data, theta: Array, target: Array, rule: str, tau: float, steps: int, constant: float
) -> Trajectory:
    """The closed loop of a rule over ``steps`` steps, from equilibrium at theta (p,); ``target`` is near its end.

    ``constant`` is the rate of ``gradient``, the horizon of the other rules.
    """
    law = _Gaussian(theory, theta) if theory.potential.quadratic is not None else _Grid(theory, theta, target)
    dt = tau / steps
    thetas, works = np.empty((steps + 2, len(theta))), np.zeros(steps + 2)
    thetas[0], speed = theta, np.zeros(len(theta))
    for n in range(steps + 1):
        share = 0.5 if n in (0, steps) else 1.0
        middle = thetas[n] + 0.5 * share * dt * speed
        rate = np.eye(len(theta)) * constant
        if rule != "gradient":
            here = theory.at(middle)
            rate = rates.eta(rule, constant - n * dt, here.fisher, here.friction, theory.beta)
        speed = -rate @ (data.mean_gradient(theory.potential, middle) - law.gradient(middle))
        thetas[n + 1] = thetas[n] + share * dt * speed
        theory.potential.require_valid(thetas[n + 1], "the path that infinitely many particles would learn")
        works[n + 1] = works[n] + law.work(thetas[n], thetas[n + 1])
        if n < steps:
            law.relax(thetas[n + 1], dt)
    return Trajectory(jump_times(tau, steps), thetas, works)


def jump_times(tau: float, steps: int) -> Array:
    """When theta is where it stands before the first jump and after each: jumps take half a step on either side."""
    return np.concatenate([[0.0], np.minimum((np.arange(steps + 1) + 0.5) * (tau / steps), tau)])
