"""What all rules of a run share, and what is known of each before it runs."""

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import cumulative_trapezoid
from scipy.interpolate import make_interp_spline
from scipy.optimize import brentq

from thermorun import streams
from thermorun.arrays import Array
from thermorun.errors import InputError, RunError
from thermorun.learning import mean_field, rates
from thermorun.learning.mean_field import natural_flow
from thermorun.learning.spec import Learn, equal_weights
from thermorun.potentials import Potential, System, dynamics
from thermorun.potentials.exact import Data, Theory, known, require_regular
from thermorun.streams import Noise

# Theory is asked anew this many times a run, and between them g and zeta go on in a straight line.
_MARKS = 200
_MEAN_FIELD_STEPS, _MATCHING_STEPS = 800, 200
# Particles that the Fisher metric at the ends is judged by, where theory does not know it.
_JUDGED = 4096
# What is known with infinitely many particles: (time,), and what it is.
EXACT = {
    "exact_work": ("energy", "mean work with infinitely many particles"),
    "exact_excess_work": ("energy", "excess work with infinitely many particles"),
    "exact_loss": ("energy", "L_MLE(theta) - L_MLE(theta*) with infinitely many particles"),
    "shift": ("energy", "excess work that theta's noise adds with this many particles, to leading order"),
}
# Points in time at which the shift of the excess work is integrated.
_SHIFT_POINTS = 201


class Problem:
    """Potential, theory and data of a resolved spec.

    ``points`` (n, d) are data of one's own; None without.  ``first`` replicas come before these: see ``of``.
    Raises InputError where the spec asks for what nobody knows.
    """

    def __init__(self, spec: Learn, points: Array | None = None) -> None:
        self.spec, self.system, self.points, self.first = spec, spec.system, points, 0
        if spec.sample is not None and points is None:
            raise InputError(f"data were {spec.sample!r}, which are not at hand; give them again.")
        known_here = known(self.potential)
        ends = [point for point in (spec.start, spec.goal) if point is not None]
        self.theory = Theory(self.system, ends) if known_here else None
        if self.theory is None:
            self._require_estimates()
        if spec.rules != ("gradient",):
            for point in ends:
                require_regular(self._fisher(point), self.potential, point)
        if self.theory is not None:
            natural_flow(self.theory, self.exact_data, spec.start, np.array([1.0]))

    def of(self, replicas: range) -> "Problem":
        """The same for some of the replicas."""
        found = copy(self)
        found.spec, found.first = self.spec.replace(replicas=len(replicas)), replicas.start
        return found

    def _require_estimates(self) -> None:
        """Raises InputError for what needs theory where there is none."""
        spec, name = self.spec, self.potential.name
        if spec.metric == "theory" and spec.rules != ("gradient",):
            Theory(self.system, [])
        if "gradient" in spec.rules and spec.eta is None:
            raise InputError(f"eta is not given, and theory cannot find one for {name}; give eta.")
        if spec.samples is None and spec.sample is None:
            raise InputError(f"samples is not given, and the means of {name} are not known; give samples or data.")

    @property
    def potential(self) -> Potential:
        """The potential."""
        return self.system.potential

    def _fisher(self, point: Array) -> Array:
        if self.theory is not None:
            return self.theory.at(point).fisher
        x = self.system.equilibrium(point, _JUDGED)
        fisher: Array = np.atleast_2d(np.cov(self.potential.gradients(x[0].T, point)))
        return fisher

    def require_theory(self) -> Theory:
        """The theory.  Raises InputError where there is none."""
        return Theory(self.system, []) if self.theory is None else self.theory

    def require_goal(self) -> Array:
        """theta* (p,).  Raises InputError where it is not known."""
        if self.spec.goal is None:
            raise InputError(f"target of {self.potential.name} is not known; without theory data do not tell it.")
        return self.spec.goal

    @cached_property
    def exact_data(self) -> Data:
        """The distribution p_m(x, target) itself, or that of the data of one's own."""
        if self.points is not None:
            return equal_weights(self.points)
        return self.require_theory().data(self.require_goal())

    @cached_property
    def data(self) -> tuple[Array, Array]:
        """Points (replicas, d, n) and weights (n,) of what is learned from."""
        spec = self.spec
        if spec.samples is None:
            exact = self.exact_data
            return np.repeat(exact.x.T[None], spec.replicas, axis=0), exact.weights
        noise = self.noise("data", "")
        x = self.system.equilibrium(self.require_goal(), spec.samples, replicas=spec.replicas, seed=noise)
        return x, np.full(spec.samples, 1 / spec.samples)

    def noise(self, purpose: str, rule: str) -> Noise:
        """The random numbers of this rule for this purpose, of the replicas that are run."""
        whole = Noise.of(streams.learn(self.spec.seed, purpose, rule))
        return whole.after(self.first, self.potential.dimension) if self.first else whole

    def loss(self, point: Array, free_energy: float | None = None) -> float:
        """L_MLE(theta) - L_MLE(theta*) of the exact data, energy; ``free_energy`` is F(theta) where it is at hand.

        For data of a target it is kT times a relative entropy.
        """
        if free_energy is None:
            free_energy = self.require_theory().at(point).free_energy
        return self.exact_data.mean_energy(self.potential, point) - free_energy - self._least_loss

    @cached_property
    def _least_loss(self) -> float:
        """L_MLE(theta*)."""
        goal = self.require_goal()
        return self.exact_data.mean_energy(self.potential, goal) - self.require_theory().at(goal).free_energy

    def mean_field(self, rule: str, constant: float, most: int = _MEAN_FIELD_STEPS) -> mean_field.Trajectory:
        """The rule with infinitely many particles."""
        spec = self.spec
        steps = min(spec.step_count, most)
        return mean_field.learn(
            self.require_theory(), self.exact_data, spec.start, self.require_goal(), rule, spec.tau, steps, constant
        )

    def plan(self, rule: str) -> "Plan":
        """One rule, ready to run."""
        spec = self.spec
        if rule == "gradient":
            return Plan(self, rule, self._matching_rate() if spec.eta is None else spec.eta)
        return Plan(self, rule, spec.tau if spec.accuracy is None else self._matching_horizon(rule))

    def _excess_loss(self, rule: str, constant: float) -> float:
        """ln of the loss at tau over the loss that is wanted; NaN where theta leaves the valid region."""
        try:
            found = self.loss(self.mean_field(rule, constant, _MATCHING_STEPS).theta[-1])
        except InputError:
            return np.nan
        wanted = self.loss(self.spec.start) * (0.01 if self.spec.accuracy is None else self.spec.accuracy)
        return float(np.log(max(found, 1e-300)) - np.log(max(wanted, 1e-300)))

    def _matching_rate(self) -> float:
        """The constant rate that ends with the accuracy wanted, the smallest there is.  Raises InputError."""
        # With this rate the slowest direction decays by a factor of e in tau.
        slowest = np.linalg.eigvalsh(self.require_theory().at(self.require_goal()).fisher)[0]
        low = self.spec.beta / (self.spec.tau * float(slowest))
        while self._excess_loss("gradient", low) < 0:
            low /= 2
        for _ in range(24):
            high = 1.3 * low
            value = self._excess_loss("gradient", high)
            if value < 0:
                return float(brentq(lambda rate: self._excess_loss("gradient", rate), low, high, rtol=1e-4))
            if not np.isfinite(value):
                break
            low = high
        raise InputError(
            f"tau is {self.spec.tau:g}, in which no constant eta brings {self.potential.name} as near to its target as"
            " asked; give eta, a longer tau, a larger accuracy, or leave out the rule gradient."
        )

    def _matching_horizon(self, rule: str) -> float:
        """The horizon of Eq. 53 that ends with the accuracy wanted.  Raises InputError."""
        tau = self.spec.tau
        ends = tau, 10 * tau
        if not (self._excess_loss(rule, ends[0]) < 0 < self._excess_loss(rule, ends[1])):
            raise InputError(
                f"accuracy is {self.spec.accuracy}, which {rule} misses at tau {tau:g}, whatever its horizon; take a"
                " longer tau or another accuracy."
            )
        return float(brentq(lambda horizon: self._excess_loss(rule, horizon), *ends, rtol=1e-6))

    def memory(self) -> float:
        """Bytes that a run takes: particles, what a record evaluates of each, and the data."""
        spec, d, p = self.spec, self.potential.dimension, len(self.potential.parameters)
        size = 4 if spec.precision == "float32" else 8
        values = 8 * (1 + d + p)
        side = spec.side * (size * d + 2 * values + 24 * p) if spec.metric == "estimated" else 0
        points = len(self.points) if self.points is not None else spec.samples or 0
        return float(spec.replicas) * (spec.particles * (size * d + 2 * values) + side + points * (8 * d + values))


@dataclass(frozen=True)
class Plan:
    """One rule of a problem, with the times it will record.

    ``constant`` is the rate of ``gradient``, the horizon of the other rules.
    """

    problem: Problem
    rule: str
    constant: float

    @property
    def spec(self) -> Learn:
        """The spec."""
        return self.problem.spec

    @property
    def system(self) -> System:
        """The system."""
        return self.problem.system

    @property
    def dt(self) -> float:
        """The time step."""
        return self.spec.tau / self.spec.step_count

    @cached_property
    def points(self) -> NDArray[np.intp]:
        """The jumps after which the run is recorded; row 0 comes before the first of them."""
        rows = np.linspace(0, self.spec.step_count, self.spec.records + 1).round().astype(np.intp)
        return np.unique(rows[1:])

    @cached_property
    def time(self) -> Array:
        """The time of every row."""
        times = mean_field.jump_times(self.spec.tau, self.spec.step_count)
        return np.take(times, np.concatenate([[0], self.points + 1]))

    @cached_property
    def marks(self) -> set[int]:
        """The jumps at which theory is asked."""
        return {*range(0, self.spec.step_count, max(1, self.spec.step_count // _MARKS)), *self.points.tolist()}

    def noise(self, purpose: str) -> Noise:
        """The random numbers of this rule for this purpose."""
        return self.problem.noise(purpose, self.rule)

    @cached_property
    def exact(self) -> dict[str, Array]:
        """``EXACT``, and as ``exact_theta`` and ``flow`` theta and the flow of Eq. 54, at ``time``; else NaN."""
        spec, problem, rows = self.spec, self.problem, len(self.time)
        if problem.theory is None:
            nothing = np.full((rows, len(spec.start)), np.nan)
            return {name: np.full(rows, np.nan) for name in EXACT} | {"exact_theta": nothing, "flow": nothing}
        path = problem.mean_field(self.rule, self.constant)
        at = make_interp_spline(path.time, np.column_stack([path.theta, path.work]), k=3)(self.time)
        thetas, work = at[:, :-1], at[:, -1]
        energies = [problem.theory.at(one).free_energy for one in thetas]
        losses = [problem.loss(one, energy) for one, energy in zip(thetas, energies, strict=True)]
        horizon = spec.tau if self.rule == "gradient" else self.constant
        return {
            "exact_work": work,
            "exact_excess_work": work - np.array(energies) + problem.theory.at(spec.start).free_energy,
            "exact_loss": np.array(losses),
            "shift": self._shift(path),
            "exact_theta": thetas,
            "flow": natural_flow(problem.theory, problem.exact_data, spec.start, self.time / horizon),
        }

    def _shift(self, path: mean_field.Trajectory) -> Array:
        """The excess work of order 1/particles at ``time``, to leading order.

        theta follows a mean of dE/dtheta over N particles, whose covariance is g / (beta^2 N), and works on the same
        particles: dW = tr(eta g) dt / (beta^2 N) on top of that of infinitely many.  What this leaves out, that theta
        wanders, is about a fifth of it in the built-in potentials (tests/learning).
        """
        spec, theory = self.spec, self.problem.require_theory()
        time = np.linspace(0.0, spec.tau, _SHIFT_POINTS)
        power = np.empty(len(time))
        for n, theta in enumerate(make_interp_spline(path.time, path.theta, k=3)(time)):
            here = theory.at(theta)
            rate = self.constant * np.eye(len(theta))
            if self.rule != "gradient":
                rate = rates.eta(self.rule, self.constant - time[n], here.fisher, here.friction, spec.beta)
            power[n] = np.trace(rate @ here.fisher) / (spec.beta**2 * spec.particles)
        shift: Array = np.interp(self.time, time, cumulative_trapezoid(power, time, initial=0.0))
        return shift

    def require_valid(self, theta: Array, step: int) -> None:
        """Raises RunError where theta has left the valid region."""
        try:
            self.system.potential.require_valid(theta)
        except InputError as error:
            raise RunError(
                f"theta of the rule {self.rule} diverged at step {step} ({error}); take a longer tau, a smaller eta, or"
                " more particles."
            ) from error


def compile_kernels(problem: Problem) -> None:
    """Compiles the kernels, or loads them from the cache, so that no timing counts it and Ctrl-C can end it."""
    spec, system = problem.spec, problem.system
    d, p = system.potential.dimension, len(spec.start)
    x, theta = dynamics.one_particle(system.potential, spec.precision), spec.start[None]
    integrator = str(spec.integrator)
    kernels, table = system.potential.kernels(integrator), system.coefficients(integrator, 0.0, theta[:, None])
    table = table[None] if table.ndim == 2 else table
    noise = Noise.of(spec.seed).dynamics.take()
    kernels.step(x, 0, table, np.stack([theta] * 3, axis=1), noise, np.empty((1, 1, 2 + p)), dynamics.new_status(1, 1))
    if spec.metric == "estimated":
        kernels.dwell(x, 0, table, theta[:, None].copy(), noise, np.zeros((1, p, 1)), dynamics.new_status(1, 1))
    system.potential.kernels().evaluate(x, theta, np.empty((1, 1 + d + p, 1)))


def ready(problem: Problem, rules: Iterable[str]) -> list[Plan]:
    """Every rule planned, with what is known of it exactly."""
    plans = [problem.plan(rule) for rule in rules]
    for plan in plans:
        _ = plan.exact
    return plans
