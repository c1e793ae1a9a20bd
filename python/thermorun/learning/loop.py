"""One rule under way: theta follows the particles that share it.

Jumps of theta and relaxations of x alternate.  The jump at t_n goes from theta(t_n - dt/2) to theta(t_n + dt/2), with
the learning rate and the gradients at its middle, as far as the last jump foretells it; the first and the last jump are
halves.  So the whole is second order in dt.  A record holds what is true after a jump, at t_n + dt/2.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple, Self

import numpy as np

from thermokernels import langevin
from thermorun.arrays import Array
from thermorun.learning import online_metric, rates
from thermorun.learning.online_metric import OnlineMetric, gradients
from thermorun.learning.problem import Plan
from thermorun.potentials import dynamics
from thermorun.streams import Noise

# What a run records: (time, replica), and what it is.
SERIES = {
    "work": ("energy", "mean work done on a particle so far"),
    "excess_work": ("energy", "work minus F(theta) - F(theta_0); NaN, as bias and loss, where F is not known"),
    "bias": ("energy", "L_bias: thetadot . (<dE/dtheta>_samples - <dE/dtheta>_model), integrated apart from the work"),
    "heat": ("energy", "mean heat absorbed by a particle so far"),
    "first_law_residual": ("energy", "change of the mean energy - work - heat"),
    "loss": ("energy", "L_MLE(theta) - L_MLE(theta*)"),
}


class Jump(NamedTuple):
    """theta (replicas, p) before a jump, after it, and in the middle of the next one as this one foretells it."""

    old: Array
    new: Array
    ahead: Array


@dataclass
class State:
    """All that the rest of a run depends on: what a checkpoint holds, beside the side ensemble.

    ``x`` (replicas, d, particles); ``theta``, its ``speed``, and ``gradient`` (replicas, p), the mean of dE/dtheta
    where the next jump will be in its middle; ``work``, ``heat``, ``bias`` so far and the ``energy`` at the start
    (replicas,).  At the last mark: ``mark_theta``, ``mark_gradient`` = dF/dtheta (replicas, p); at the last two, later
    first: ``metric`` (2, 2, replicas, p, p), g and zeta, and ``marks`` (2,), their jumps.
    """

    x: Array
    theta: Array
    speed: Array
    gradient: Array
    work: Array
    heat: Array
    bias: Array
    energy: Array
    mark_theta: Array
    mark_gradient: Array
    metric: Array
    marks: Array


class Loop:
    """One rule under way: ``jump`` and ``relax`` in turn, from jump 0 to jump ``steps``.

    ``particles`` share one theta in each of the replicas; ``noise`` drives them, ``side_noise`` the side ensemble.
    """

    state: State

    def __init__(self, plan: Plan, particles: int, noise: Noise, side_noise: Noise) -> None:
        spec = plan.spec
        self.plan, self.particles, self.noise = plan, particles, noise
        self.kernels = plan.system.potential.kernels(str(spec.integrator))
        self.data_x, self.data_weights = plan.problem.data
        self.status = dynamics.new_status(spec.replicas, particles)
        self.online: OnlineMetric | None = None
        if spec.metric == "estimated" and plan.rule != "gradient":
            self.online = OnlineMetric(
                plan.system, spec.side, int(spec.refresh or 1), spec.ridge, plan.dt, str(spec.integrator), side_noise
            )

    def begin(self) -> Self:
        """Draws everything in equilibrium at the start."""
        spec, theory = self.plan.spec, self.plan.problem.theory
        replicas, p = spec.replicas, len(spec.start)
        x = self.plan.system.equilibrium(
            spec.start, self.particles, replicas=replicas, seed=self.noise, precision=spec.precision
        )
        theta, none = np.tile(spec.start, (replicas, 1)), np.zeros(replicas)
        energy, gradient = self._means(x, theta)
        reference = np.zeros((replicas, p))
        if theory is not None:
            reference[...] = theory.at(spec.start).mean_gradient
        self.state = State(
            x=x, theta=theta, speed=np.zeros((replicas, p)), gradient=gradient, work=none, heat=none, bias=none,
            energy=energy, mark_theta=theta, mark_gradient=reference, metric=np.zeros((2, 2, replicas, p, p)),
            marks=np.array([-1, -1]),
        )  # fmt: skip
        if self.online is not None:
            self.online.start(theta, spec.precision)
        return self

    def checkpoint(self) -> dict[str, Array]:
        """The state as arrays."""
        side = {} if self.online is None else self.online.state
        return {one.name: getattr(self.state, one.name) for one in fields(State)} | side

    def restore(self, stored: dict[str, Array]) -> Self:
        """Puts everything back as a checkpoint has it."""
        self.state = State(**{one.name: stored[one.name] for one in fields(State)})
        if self.online is not None:
            self.online.state = {name: stored[name] for name in online_metric.STATE}
        return self

    def jump(self, n: int) -> Jump:
        """Where theta goes at jump n.  Raises RunError where it leaves the valid region."""
        state, steps, dt = self.state, self.plan.spec.step_count, self.plan.dt
        share = 0.5 if n in (0, steps) else 1.0
        middle = state.theta + 0.5 * share * dt * state.speed
        if n in self.plan.marks:
            self._ask_theory(n, middle)
        rate = self._rate(n, middle)
        state.speed = -np.einsum("rij,rj->ri", rate, self._data_gradient(middle) - state.gradient)
        new = state.theta + share * dt * state.speed
        self.plan.require_valid(new, n)
        later = 0.5 if n + 1 == steps else 1.0
        return Jump(state.theta, new, new + 0.5 * later * dt * state.speed)

    def relax(self, n: int, jump: Jump) -> None:
        """Does the work of jump n, and relaxes x after it (not after the last).  Raises RunError where x diverges."""
        state, plan, spec = self.state, self.plan, self.plan.spec
        wait = plan.dt if n < spec.step_count else 0.0
        table = plan.system.coefficients(str(spec.integrator), wait, jump.new[:, None])
        if table.ndim == 2:
            table = np.repeat(table[None], spec.replicas, axis=0)
        sums = np.empty((spec.replicas, langevin.blocks_of(self.particles), 2 + jump.new.shape[1]))
        noise = self.noise.dynamics.take(spec.replicas * state.x.shape[1])
        self.kernels.step(state.x, n, table, np.stack(jump, axis=1), noise, sums, self.status)
        dynamics.require_converged(plan.system.potential, state.x, self.status, plan.dt)
        means = sums.sum(axis=1) / self.particles
        state.work = state.work + means[:, 0]
        state.bias = state.bias + np.sum((jump.new - jump.old) * state.gradient, axis=1)
        state.heat = state.heat + means[:, 1]
        state.theta, state.gradient = jump.new, means[:, 2:]

    def mean_energy(self, theta: Array) -> Array:
        """Of the particles at theta (replicas, p); (replicas,)."""
        return self._means(self.state.x, theta)[0]

    def bias_since_mark(self, theta: Array, gradient: Array) -> Array:
        """The integral of dF/dtheta along the way since the last mark, by the trapezoid rule; (replicas,)."""
        way = theta - self.state.mark_theta
        return np.asarray(np.sum(0.5 * (gradient + self.state.mark_gradient) * way, axis=1))

    def _means(self, x: Array, theta: Array) -> tuple[Array, Array]:
        """Mean energy (replicas,) and mean dE/dtheta (replicas, p) of particles x (replicas, d, n)."""
        energies, slopes = gradients(self.plan.system, x, theta)
        return energies.mean(axis=1), slopes.mean(axis=2)

    def _data_gradient(self, theta: Array) -> Array:
        mean: Array = gradients(self.plan.system, self.data_x, theta)[1] @ self.data_weights
        return mean

    def _ask_theory(self, n: int, theta: Array) -> None:
        """g and zeta at this jump; and the part of L_bias that is dF along the way since the last mark."""
        state, theory = self.state, self.plan.problem.theory
        if theory is None:
            return
        here = [theory.at(one) for one in theta]
        gradient = np.stack([one.mean_gradient for one in here])
        state.bias = state.bias - self.bias_since_mark(theta, gradient)
        state.mark_theta, state.mark_gradient = theta, gradient
        state.metric[1] = state.metric[0]
        state.metric[0, 0] = [one.fisher for one in here]
        state.metric[0, 1] = [one.friction for one in here]
        state.marks = np.array([n, state.marks[0]])

    def _rate(self, n: int, middle: Array) -> Array:
        plan, state = self.plan, self.state
        if plan.rule == "gradient":
            return np.tile(plan.constant * np.eye(middle.shape[1]), (len(middle), 1, 1))
        if self.online is not None:
            fisher, friction = self.online.at(n, middle, state.x)
        else:
            last, before = state.marks
            ahead = 0.0 if before < 0 else (n - last) / (last - before)
            fisher, friction = state.metric[0] + ahead * (state.metric[0] - state.metric[1])
        rate = rates.eta(plan.rule, plan.constant - n * plan.dt, fisher, friction, plan.spec.beta)
        rates.require_rate(rate, n, plan.system.potential)
        return rate


def first_row(loop: Loop) -> dict[str, Array]:
    """What a run records before the first jump: theta (1, replicas, p) and ``SERIES`` (1, replicas)."""
    problem, spec = loop.plan.problem, loop.plan.spec
    none = np.zeros((1, spec.replicas))
    known = problem.theory is not None
    unknown = none if known else np.full_like(none, np.nan)
    loss = none + (problem.loss(spec.start) if known else np.nan)
    return dict.fromkeys(SERIES, none) | {
        "theta": loop.state.theta[None], "excess_work": unknown, "bias": unknown, "loss": loss,
    }  # fmt: skip


def row(loop: Loop, energy: Array, heat: Array) -> dict[str, Array]:
    """What a run records after a jump: ``energy`` (replicas,) and ``heat`` as they were before the relaxation."""
    state, problem = loop.state, loop.plan.problem
    theta = state.theta
    values = {
        "theta": theta,
        "work": state.work,
        "heat": heat,
        "first_law_residual": energy - state.energy - state.work - heat,
    }
    for name in ("excess_work", "bias", "loss"):
        values[name] = np.full(len(theta), np.nan)
    if problem.theory is not None:
        here = [problem.theory.at(one) for one in theta]
        free_energy = np.array([one.free_energy for one in here])
        values["excess_work"] = state.work - free_energy + problem.theory.at(loop.plan.spec.start).free_energy
        losses = [problem.loss(one, energy) for one, energy in zip(theta, free_energy, strict=True)]
        values["loss"] = np.array(losses)
        values["bias"] = state.bias - loop.bias_since_mark(theta, np.stack([one.mean_gradient for one in here]))
    return {name: value[None] for name, value in values.items()}
