"""Learning rates of general potentials: dtheta/dt = -eta (<dE/dtheta>_data - <dE/dtheta>_samples).

``natural``   the matrix eta^-1 = kT (tau - t + tau^r) (Hadamard) g = kT (tau - t) g + zeta  (Hnybida & Verret 2025,
              Eqs. 51 and 53), with tau the time at which theta is to arrive.
``scalar``    one number, the smallest eigenvalue of that matrix eta: in no direction faster than it.
``gradient``  a constant number, plain gradient flow.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thermorun.errors import RunError
from thermorun.potentials import dynamics as simulation
from thermorun.potentials.potential import Potential

Array = NDArray[np.float64]

RULES = ("natural", "scalar", "gradient")

# The window of the correlation integral doubles until its second half adds less than this share and two errors.
_TAIL = 0.02
_DOUBLINGS = 8
# The arrays that a checkpoint keeps of `Estimated`.
STATE = ("side_x", "fisher", "friction", "counts")


def eta(rule: str, remaining: float, fisher: Array, friction: Array, beta: float) -> Array:
    """The learning rate (..., p, p) of ``natural`` or ``scalar``, with ``remaining`` = tau - t."""
    p = fisher.shape[-1]
    inverse = remaining / beta * fisher + friction
    if rule == "natural":
        try:
            return np.asarray(np.linalg.inv(inverse))
        except np.linalg.LinAlgError:
            return np.full_like(inverse, np.nan)
    slowest = np.linalg.eigvalsh(inverse)[..., -1]
    return np.eye(p) / slowest[..., None, None]


@dataclass
class Estimated:
    """g and zeta from ensembles, refreshed every ``refresh`` steps.

    g is beta^2 Cov(dE/dtheta) over the running ensemble.  zeta = beta integral of Cov(dE/dtheta(0), dE/dtheta(t)) comes
    from a side ensemble of ``particles`` a replica that stays behind at each refresh: it relaxes at theta for one
    window, then its correlations are integrated over one more.  The window doubles until its second half adds less
    than 2% and two standard errors to the trace of zeta, and stays as long at the next refresh.  g gains ``regularise``
    times its mean eigenvalue on the diagonal.  zeta is made symmetric, and its relaxation times, the eigenvalues of
    beta g^-1 zeta, no shorter than a time step.
    """

    potential: Potential
    beta: float
    mobility: float
    particles: int
    refresh: int
    regularise: float
    dt: float
    integrator: str
    seed: int
    stream: int
    state: dict[str, Array] = field(default_factory=dict)

    def start(self, theta: Array, precision: str) -> None:
        """Draws the side ensemble in equilibrium at theta (replicas, p)."""
        replicas, p = theta.shape
        x = simulation.equilibrium(
            self.potential, theta, self.particles, replicas=replicas, beta=self.beta, mobility=self.mobility,
            seed=self.seed, stream=self.stream, precision=precision,
        )  # fmt: skip
        nothing = np.zeros((replicas, p, p))
        self.state = {"side_x": x, "fisher": nothing, "friction": nothing.copy(), "counts": np.array([0, 16])}

    def at(self, step: int, theta: Array, x: Array) -> tuple[Array, Array]:
        """g and zeta (replicas, p, p) as of the last refresh; a multiple of ``refresh`` is one."""
        if step % self.refresh == 0:
            fisher = self.beta**2 * _covariance(*(self._gradients(x, theta),) * 2)
            size = np.trace(fisher, axis1=1, axis2=2) / fisher.shape[-1]
            self.state["fisher"][...] = fisher + self.regularise * size[:, None, None] * np.eye(fisher.shape[-1])
            self.state["friction"][...] = self._resolved(self._friction(theta))
        return self.state["fisher"], self.state["friction"]

    def _resolved(self, friction: Array) -> Array:
        root = np.linalg.cholesky(self.state["fisher"])
        half = self.beta * np.linalg.solve(root, 0.5 * (friction + friction.transpose(0, 2, 1)))
        times, vectors = np.linalg.eigh(np.linalg.solve(root, half.transpose(0, 2, 1)))
        modes = root @ vectors
        return np.asarray((modes * np.maximum(times, self.dt)[:, None, :]) @ modes.transpose(0, 2, 1) / self.beta)

    def _friction(self, theta: Array) -> Array:
        window = int(self.state["counts"][1])
        self._dwell(theta, window)
        start = self._gradients(self.state["side_x"], theta)
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
            added = np.einsum("rpn,rpn->rn", start - start.mean(axis=2, keepdims=True), integral - half)
            error = added.std() / np.sqrt(added.size)
            whole = np.einsum("rpn,rpn->rn", start - start.mean(axis=2, keepdims=True), integral).mean()
            if abs(added.mean()) < _TAIL * abs(whole) + 2 * error:
                break
            window *= 2
        self.state["counts"][1] = done
        return self.beta * _covariance(start, integral)

    def _gradients(self, x: Array, theta: Array) -> Array:
        replicas, d, particles = x.shape
        values = np.empty((replicas, 1 + d + theta.shape[1], particles))
        self.potential.kernels().evaluate(x, theta, values)
        return values[:, 1 + d :]

    def _dwell(self, theta: Array, steps: int) -> Array:
        x, first = self.state["side_x"], int(self.state["counts"][0])
        replicas, _, particles = x.shape
        path = np.repeat(theta[:, None], steps, axis=1)
        table = simulation.coefficients(self.potential, self.integrator, self.dt, self.beta, self.mobility, path)
        if table.ndim == 2:
            table = np.tile(table, (replicas, steps, 1))
        sums, status = np.zeros((replicas, theta.shape[1], particles)), simulation.new_status(replicas, particles)
        self.potential.kernels(self.integrator).dwell(
            x, first, table, path[:, :1].copy(), np.uint64(self.seed), np.uint64(self.stream), sums, status
        )
        simulation.require_number(self.potential, x, status, self.dt)
        self.state["counts"][0] = first + steps
        return sums


def _covariance(left: Array, right: Array) -> Array:
    """(replicas, p, p) from (replicas, p, particles)."""
    away = left - left.mean(axis=2, keepdims=True)
    return np.asarray(away @ right.transpose(0, 2, 1) / left.shape[2])


def require_rate(rate: Array, step: int, potential: Potential) -> None:
    """Raises RunError where a learning rate is not a finite matrix."""
    if not np.all(np.isfinite(rate)):
        raise RunError(
            f"the learning rate of {potential.name} is not finite at step {step}: g and zeta are singular there; raise"
            " regularise, or take out a parameter."
        )
