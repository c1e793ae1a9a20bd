"""Learning with infinitely many particles: the distribution of x itself moves, and theta follows its mean gradient.

In one dimension the distribution lives on a grid as in ``potentials.fokker_planck``; in quadratic potentials it is
Gaussian, with a mean and a covariance.  Jumps and relaxations alternate as in ``learning.loop``, but relaxations are
exact.  Beside it the natural-gradient flow, which the rule of Eq. 53 comes near to when it is slow (Theorem 1).
"""

from dataclasses import dataclass

import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import logsumexp

from thermorun.arrays import Array
from thermorun.learning import rates
from thermorun.potentials import fokker_planck
from thermorun.potentials.exact import Data, Theory, gaussian_data, require_quadratic

_POINTS = 600
_DEPTH = 35.0


@dataclass(frozen=True)
class Trajectory:
    """theta (points, p) before the first jump and after each, at ``time`` (points,); work (points,) until then."""

    time: Array
    theta: Array
    work: Array


class _Grid:
    """The distribution of x on a grid, one dimension."""

    def __init__(self, theory: Theory, theta: Array, target: Array) -> None:
        self.theory, potential = theory, theory.potential
        way = [theta + share * (target - theta) for share in np.linspace(-0.1, 1.1, 13)]
        inside = [one for one in way if potential.why_invalid(tuple(one.tolist())) is None]
        side = potential.domain.sides[0]
        self.x, self.ring = fokker_planck.grid(potential.energies, inside, theory.beta, _DEPTH, _POINTS, side)
        self.rate = theory.mobility / theory.beta / (self.x[1] - self.x[0]) ** 2
        depth = theory.beta * potential.energies(self.x, theta)
        self.density = np.exp(-depth - logsumexp(-depth))

    def gradient(self, theta: Array) -> Array:
        return np.asarray(self.theory.potential.gradients(self.x, theta) @ self.density)

    def work(self, theta: Array, new: Array) -> float:
        potential = self.theory.potential
        return float(self.density @ (potential.energies(self.x, new) - potential.energies(self.x, theta)))

    def relax(self, theta: Array, time: float) -> None:
        energy = self.theory.potential.energies(self.x, theta)
        step = fokker_planck.Step(energy, self.theory.beta, self.rate * time, self.ring)
        self.density, _ = step.forward(self.density)


class _Gaussian:
    """The mean and the covariance of x in a quadratic potential."""

    def __init__(self, theory: Theory, theta: Array) -> None:
        self.theory, self.shape = theory, require_quadratic(theory.potential)
        precision, self.mean = self.shape(tuple(theta.tolist()))
        self.covariance: Array = np.asarray(np.linalg.inv(precision) / theory.beta)

    def _data(self) -> Data:
        return gaussian_data(self.mean, self.covariance)

    def gradient(self, theta: Array) -> Array:
        return self._data().mean_gradient(self.theory.potential, theta)

    def work(self, theta: Array, new: Array) -> float:
        data, potential = self._data(), self.theory.potential
        return data.mean_energy(potential, new) - data.mean_energy(potential, theta)

    def relax(self, theta: Array, time: float) -> None:
        precision, centre = self.shape(tuple(theta.tolist()))
        stiffness, vectors = np.linalg.eigh(precision)
        decay = (vectors * np.exp(-self.theory.mobility * stiffness * time)) @ vectors.T
        rest = np.linalg.inv(precision) / self.theory.beta
        self.mean = centre + decay @ (self.mean - centre)
        self.covariance = rest + decay @ (self.covariance - rest) @ decay


def learn(
    theory: Theory, data: Data, theta: Array, target: Array, rule: str, tau: float, steps: int, constant: float
) -> Trajectory:
    """The closed loop of a rule over ``steps`` steps, from equilibrium at theta (p,); ``target`` is near its end.

    ``constant`` is the rate of ``gradient``, the horizon of the other rules.  Raises InputError where theta leaves the
    valid region.
    """
    system = _Gaussian(theory, theta) if theory.potential.quadratic is not None else _Grid(theory, theta, target)
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
        speed = -rate @ (data.mean_gradient(theory.potential, middle) - system.gradient(middle))
        thetas[n + 1] = thetas[n] + share * dt * speed
        theory.potential.require_valid(thetas[n + 1], "the path that infinitely many particles would learn")
        works[n + 1] = works[n] + system.work(thetas[n], thetas[n + 1])
        if n < steps:
            system.relax(thetas[n + 1], dt)
    return Trajectory(jump_times(tau, steps), thetas, works)


def natural_flow(theory: Theory, data: Data, theta: Array, times: Array) -> Array:
    """theta along the natural-gradient flow of Eq. 54 at ``times`` (n,), in units of tau; (n, p).

    With w = -ln(1 - t / tau) it is dtheta/dw = -beta g^-1 grad L_MLE, whatever tau is.  Raises InputError where it
    leaves the valid region.
    """
    potential = theory.potential

    def velocity(w: float, point: Array) -> Array:
        potential.require_valid(point, "the path of Eq. 54")
        here = theory.at(point)
        descent = data.mean_gradient(potential, point) - here.mean_gradient
        return np.asarray(-theory.beta * np.linalg.solve(here.fisher, descent))

    with np.errstate(divide="ignore"):
        w = np.minimum(-np.log1p(-np.clip(times, 0, 1)), 30.0)
    # A parameter's own unit is what changes the distribution by one standard deviation of the score.
    unit = 1 / np.sqrt(np.diag(theory.at(theta).fisher))
    solution = solve_ivp(
        velocity, (0, max(float(w.max()), 1e-9)), theta, t_eval=np.unique(w), rtol=1e-8, atol=1e-10 * unit
    )
    return np.asarray(solution.y.T[np.searchsorted(np.unique(w), w)])


def jump_times(tau: float, steps: int) -> Array:
    """When theta is where it stands before the first jump and after each: jumps take half a step on either side."""
    return np.concatenate([[0.0], np.minimum((np.arange(steps + 1) + 0.5) * (tau / steps), tau)])
