"""g and zeta of Eqs. 51 and 52 while a run learns, from the running ensemble and a side ensemble."""

from dataclasses import dataclass, field

import numpy as np

from thermorun.arrays import Array
from thermorun.potentials import System, dynamics
from thermorun.streams import Noise

# The window of the correlation integral doubles until its second half adds less than this share and two errors.
_TAIL = 0.02
_DOUBLINGS = 8
# The names of the arrays that a checkpoint keeps.
STATE = ("side_x", "fisher", "friction", "counts")


@dataclass
class OnlineMetric:
    """g and zeta (replicas, p, p), refreshed every ``refresh`` steps of length ``dt``.

    g is beta^2 Cov(dE/dtheta) over the running ensemble.  zeta = beta integral of Cov(dE/dtheta(0), dE/dtheta(t)) comes
    from a side ensemble of ``particles`` a replica that stays behind at each refresh: it relaxes at theta for one
    window, then its correlations are integrated over one more.  The window doubles until its second half adds less
    than 2% and two standard errors to the trace of zeta, and stays as long at the next refresh.  g gains ``ridge``
    times its mean eigenvalue on the diagonal.  zeta is made symmetric, and its relaxation times, the eigenvalues of
    beta g^-1 zeta, no shorter than a time step.
    """

    system: System
    particles: int
    refresh: int
    ridge: float
    dt: float
    integrator: str
    noise: Noise
    state: dict[str, Array] = field(default_factory=dict)

    def start(self, theta: Array, precision: str) -> None:
        """Draws the side ensemble in equilibrium at theta (replicas, p)."""
        replicas, p = theta.shape
        x = self.system.equilibrium(theta, self.particles, replicas=replicas, seed=self.noise, precision=precision)
        nothing = np.zeros((replicas, p, p))
        self.state = {"side_x": x, "fisher": nothing, "friction": nothing.copy(), "counts": np.array([0, 16])}

    def at(self, step: int, theta: Array, x: Array) -> tuple[Array, Array]:
        """g and zeta (replicas, p, p) as of the last refresh; a multiple of ``refresh`` is one."""
        if step % self.refresh == 0:
            gradients = self._gradients(x, theta)
            fisher = self.system.beta**2 * _covariance(gradients, gradients)
            size = np.trace(fisher, axis1=1, axis2=2) / fisher.shape[-1]
            self.state["fisher"][...] = fisher + self.ridge * size[:, None, None] * np.eye(fisher.shape[-1])
            self.state["friction"][...] = self._resolved(self._friction(theta))
        return self.state["fisher"], self.state["friction"]

    def _resolved(self, friction: Array) -> Array:
        """zeta made symmetric, with no relaxation time shorter than a step."""
        beta, root = self.system.beta, np.linalg.cholesky(self.state["fisher"])
        half = beta * np.linalg.solve(root, 0.5 * (friction + friction.transpose(0, 2, 1)))
        times, vectors = np.linalg.eigh(np.linalg.solve(root, half.transpose(0, 2, 1)))
        modes = root @ vectors
        return np.asarray((modes * np.maximum(times, self.dt)[:, None, :]) @ modes.transpose(0, 2, 1) / beta)

    def _friction(self, theta: Array) -> Array:
        window = int(self.state["counts"][1])
        self._dwell(theta, window)
        start = self._gradients(self.state["side_x"], theta)
        away = start - start.mean(axis=2, keepdims=True)
        integral = np.zeros_like(start)
        last, done = start, 0
        for _ in range(_DOUBLINGS):
            half = integral.copy()
            for stop in (window // 2, window):
                if stop <= done:
                    continue
                half = integral.copy()
                sums = self._dwell(theta, stop - done)
                end = self._gradients(self.state["side_x"], theta)
                integral += self.dt * (sums + 0.5 * last - 0.5 * end)
                last, done = end, stop
            added = np.einsum("rpn,rpn->rn", away, integral - half)
            error = added.std() / np.sqrt(added.size)
            whole = np.einsum("rpn,rpn->rn", away, integral).mean()
            if abs(added.mean()) < _TAIL * abs(whole) + 2 * error:
                break
            window *= 2
        self.state["counts"][1] = done
        return self.system.beta * _covariance(start, integral)

    def _gradients(self, x: Array, theta: Array) -> Array:
        return gradients(self.system, x, theta)[1]

    def _dwell(self, theta: Array, steps: int) -> Array:
        """Relaxes the side ensemble at theta; sums of dE/dtheta over the steps, (replicas, p, particles)."""
        x, first = self.state["side_x"], int(self.state["counts"][0])
        replicas, dimension, particles = x.shape
        path = np.repeat(theta[:, None], steps, axis=1)
        table = self.system.coefficients(self.integrator, self.dt, path)
        if table.ndim == 2:
            table = np.tile(table, (replicas, steps, 1))
        sums, status = np.zeros((replicas, theta.shape[1], particles)), dynamics.new_status(replicas, particles)
        noise = self.noise.dynamics.take(replicas * dimension)
        kernels = self.system.potential.kernels(self.integrator)
        kernels.dwell(x, first, table, path[:, :1].copy(), noise, sums, status)
        dynamics.require_converged(self.system.potential, x, status, self.dt)
        self.state["counts"][0] = first + steps
        return sums


def gradients(system: System, x: Array, theta: Array) -> tuple[Array, Array]:
    """Energies (replicas, particles) and dE/dtheta (replicas, p, particles) of x (replicas, d, particles)."""
    values = np.empty((x.shape[0], 1 + x.shape[1] + theta.shape[1], x.shape[2]))
    system.potential.kernels().evaluate(x, theta, values)
    return values[:, 0], values[:, 1 + x.shape[1] :]


def _covariance(left: Array, right: Array) -> Array:
    """(replicas, p, p) from (replicas, p, particles)."""
    away = left - left.mean(axis=2, keepdims=True)
    return np.asarray(away @ right.transpose(0, 2, 1) / left.shape[2])
