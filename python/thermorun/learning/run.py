"""Runs a `general.Learn`: rule by rule, theta follows the particles that share it.

Jumps of theta and relaxations of x alternate.  The jump at t_n goes from theta(t_n - dt/2) to theta(t_n + dt/2), with
the learning rate and the gradients at its middle, as far as the last jump foretells it; the first and the last jump are
halves.  So the whole is second order in dt.  A record holds what is true after a jump, at t_n + dt/2.
"""

import time as clock
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline
from scipy.optimize import brentq

from thermokernels import langevin as ensemble
from thermorun.errors import InputError, RunError
from thermorun.estimates import Estimate
from thermorun.learning import mean_field as meanfield
from thermorun.learning import rates
from thermorun.learning.spec import EXACT, SERIES, Learn, LearnResult, RuleResult
from thermorun.learning.trap.recorder import estimate
from thermorun.potentials import dynamics as simulation
from thermorun.potentials import exact as theory
from thermorun.potentials.exact import Data, Theory
from thermorun.potentials.potential import Potential
from thermorun.progress import Advance, deferred_interrupt, progress
from thermorun.store import Axis, RunFile, Variable, read_spec, run_file
from thermorun.threads import on_threads

Array = NDArray[Any]

COMMAND = "learn"
# What a stream is for: the low byte of its high word, below the rule's own 24 bits.
_DYNAMICS, _SIDE, _DATA = range(3)
# Theory is asked anew so many times a run, and between them g and zeta go on in a straight line.
_MARKS = 200
_MEAN_FIELD_STEPS, _MATCHING_STEPS = 800, 200


def learn(
    spec: Learn | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
    checkpoint_every: float = 20.0,
    **fields: Any,
) -> LearnResult:
    """Learns under each rule of ``spec``; ``fields`` are those of ``Learn``, replacing the spec's.

    With ``out`` rows stream to that HDF5 file, and ``resume`` goes on with it after a kill, to the last bit as if
    nothing had happened.  Raises InputError before any work for input that cannot run, RunError for a run that cannot
    go on, and KeyboardInterrupt after Ctrl-C, with all that is done saved.
    """
    spec = Learn(**fields) if spec is None else replace(spec, **fields)
    problem = Problem(spec)
    plans = [problem.plan(rule) for rule in spec.rules]
    with (
        on_threads(threads) as count,
        run_file(COMMAND, spec, out, resume, count, lambda file: _lay_out(file, plans)) as file,
        deferred_interrupt() as stop,
    ):
        total = len(plans) * (spec.step_count + 1) * spec.particles * spec.replicas
        with progress("learn", total, "steps", show_progress) as advance:
            done = {plan.rule: _Run(plan, file, checkpoint_every, stop, advance).finish() for plan in plans}
        if file is not None:
            file.finish()
    return LearnResult(spec, done, None if out is None else Path(out), count)


def load(path: Path | str) -> LearnResult:
    """The results in a file, complete or not; a rule without rows is left out.  Raises InputError."""
    path = Path(path)
    spec = Learn.from_json(read_spec(path))
    problem = Problem(spec)
    with RunFile.reopen(path, spec.to_json(), write=False) as file:
        done = {rule: _read(file, problem.plan(rule)) for rule in spec.rules if file.committed(rule)}
        return LearnResult(spec, done, path, file.threads)


@dataclass(frozen=True)
class Problem:
    """What all rules of a spec share: potential, theory, data.  Raises InputError where they cannot be had."""

    spec: Learn

    def __post_init__(self) -> None:
        spec, potential = self.spec, self.potential
        if not theory.known(potential):
            if spec.metric == "theory" and spec.rules != ("gradient",):
                self._theory_at(spec.start)
            if "gradient" in spec.rules and spec.eta is None:
                raise InputError(f"eta is not given, and theory cannot find one for {potential.name}; give eta.")
            if spec.samples is None:
                raise InputError(
                    f"samples is not given, and the means of {potential.name} are not known; give samples."
                )
        if spec.rules != ("gradient",):
            for point in (spec.start, spec.goal):
                theory.require_regular(self._fisher(point), potential, point)
        if self.theory is not None:
            theory.natural_flow(self.theory, self.exact_data, spec.start, np.array([1.0]))

    def _theory_at(self, *points: Array) -> Theory:
        return Theory(self.potential, self.spec.beta, self.spec.mobility, points)

    def _fisher(self, point: Array) -> Array:
        if self.theory is not None:
            return self.theory.at(point).fisher
        x = simulation.equilibrium(self.potential, point, 4096, beta=self.spec.beta, mobility=self.spec.mobility)
        fisher: Array = np.atleast_2d(np.cov(self.potential.gradients(x[0].T, point)))
        return fisher

    @cached_property
    def potential(self) -> Potential:
        """The potential."""
        return self.spec.built()

    @cached_property
    def theory(self) -> Theory | None:
        """Exact equilibrium, or None where it is not known."""
        return self._theory_at(self.spec.start, self.spec.goal) if theory.known(self.potential) else None

    @cached_property
    def exact_data(self) -> Data:
        """The law p_m(x, target) itself."""
        assert self.theory is not None
        return self.theory.data(self.spec.goal)

    @cached_property
    def data(self) -> tuple[Array, Array]:
        """Points (replicas, d, n) and weights (n,) of what is learned from."""
        spec = self.spec
        if spec.samples is None:
            exact = self.exact_data
            return np.repeat(exact.x.T[None], spec.replicas, axis=0), exact.weights
        x = simulation.equilibrium(
            self.potential, spec.goal, spec.samples, replicas=spec.replicas, beta=spec.beta, mobility=spec.mobility,
            seed=spec.seed, stream=_DATA << 32,
        )  # fmt: skip
        return x, np.full(spec.samples, 1 / spec.samples)

    def loss(self, point: Array, free_energy: float | None = None) -> float:
        """L_MLE(theta) - L_MLE(theta*) of the exact data, kT times a relative entropy; F(theta) where it is known."""
        assert self.theory is not None
        if free_energy is None:
            free_energy = self.theory.at(point).free_energy
        return self.exact_data.mean_energy(self.potential, point) - free_energy - self.least_loss

    @cached_property
    def least_loss(self) -> float:
        """L_MLE(theta*)."""
        assert self.theory is not None
        goal = self.spec.goal
        return self.exact_data.mean_energy(self.potential, goal) - self.theory.at(goal).free_energy

    def mean_field(self, rule: str, constant: float, most: int = _MEAN_FIELD_STEPS) -> meanfield.Trajectory:
        """The rule with infinitely many particles."""
        assert self.theory is not None
        spec = self.spec
        steps = min(spec.step_count, most)
        return meanfield.learn(self.theory, self.exact_data, spec.start, spec.goal, rule, spec.tau, steps, constant)

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
        return float(np.log(max(found, 1e-300) / wanted))

    def _matching_rate(self) -> float:
        """The constant rate that ends with the accuracy wanted, the smallest there is.  Raises InputError."""
        assert self.theory is not None
        # With this rate the slowest direction decays by a factor of e in tau.
        slowest = np.linalg.eigvalsh(self.theory.at(self.spec.goal).fisher)[0]
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
            " asked; give eta, a longer tau, or a larger accuracy."
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


@dataclass(frozen=True)
class Plan:
    """One rule of a problem, with the times it will record and the truth at them.

    ``constant`` is the rate of ``gradient``, the horizon of the other rules.
    """

    problem: Problem
    rule: str
    constant: float

    @property
    def spec(self) -> Learn:
        """The spec."""
        return self.problem.spec

    @cached_property
    def points(self) -> NDArray[np.intp]:
        """The jumps after which the run is recorded; row 0 comes before the first of them."""
        rows = np.linspace(0, self.spec.step_count, self.spec.records + 1).round().astype(np.intp)
        return np.unique(rows[1:])

    @cached_property
    def time(self) -> Array:
        """The time of every row."""
        times = meanfield.jump_times(self.spec.tau, self.spec.step_count)
        return np.take(times, np.concatenate([[0], self.points + 1]))

    @cached_property
    def marks(self) -> set[int]:
        """The jumps at which theory is asked."""
        return {*range(0, self.spec.step_count, max(1, self.spec.step_count // _MARKS)), *self.points.tolist()}

    def stream(self, purpose: int) -> int:
        """The first of the streams of this purpose."""
        return ((zlib.crc32(self.rule.encode()) & 0xFFFFFF) << 8 | purpose) << 32

    @cached_property
    def truth(self) -> tuple[Array, dict[str, Array], Array]:
        """theta, ``EXACT`` and the flow of Eq. 54 at ``time``."""
        spec, problem, rows = self.spec, self.problem, len(self.time)
        if problem.theory is None:
            nothing = np.full((rows, len(spec.start)), np.nan)
            return nothing, {name: np.full(rows, np.nan) for name in EXACT}, nothing
        path = problem.mean_field(self.rule, self.constant)
        at = make_interp_spline(path.time, np.column_stack([path.theta, path.work]), k=3)(self.time)
        thetas, work = at[:, :-1], at[:, -1]
        energies = [problem.theory.at(one).free_energy for one in thetas]
        losses = [problem.loss(one, energy) for one, energy in zip(thetas, energies, strict=True)]
        exact = {
            "exact_work": work,
            "exact_excess_work": work - np.array(energies) + problem.theory.at(spec.start).free_energy,
            "exact_loss": np.array(losses),
        }
        horizon = spec.tau if self.rule == "gradient" else self.constant
        flow = theory.natural_flow(problem.theory, problem.exact_data, spec.start, self.time / horizon)
        return thetas, exact, flow


def _lay_out(file: RunFile, plans: list[Plan]) -> None:
    for plan in plans:
        _add_section(file, plan)
    file.publish({plan.rule: len(plan.time) for plan in plans})


def _add_section(file: RunFile, plan: Plan) -> None:
    names = np.array(plan.problem.potential.parameters)
    axes = [
        Axis("time", plan.time, "time", "time, after a jump of theta"),
        Axis("replica", np.arange(plan.spec.replicas), "1", "independent runs"),
        Axis("parameter", names, "1", "components of theta"),
        Axis("once", np.zeros(1), "1", "numbers of the whole run"),
    ]
    variables = [
        Variable("theta", ("time", "replica", "parameter"), "1", "parameters"),
        *(Variable(name, ("time", "replica"), *about) for name, about in SERIES.items()),
        *(Variable(name, ("time",), *about) for name, about in EXACT.items()),
        Variable("exact_theta", ("time", "parameter"), "1", "theta with infinitely many particles"),
        Variable("flow", ("time", "parameter"), "1", "theta along the natural-gradient flow of Eq. 54"),
        Variable("constant", ("once",), "1", "rate of plain gradient flow; time at which the other rules would arrive"),
        Variable("particle_steps_per_second", ("once",), "1/s", "particles times steps over the time of the loop"),
    ]
    file.add_section(plan.rule, axes, variables)
    thetas, exact, flow = plan.truth
    whole = exact | {"exact_theta": thetas, "flow": flow, "constant": np.array([plan.constant])}
    file.write_whole(plan.rule, whole)


def _read(file: RunFile, plan: Plan) -> RuleResult:
    rows, section = file.committed(plan.rule), file.read(plan.rule)
    return RuleResult(
        plan.rule,
        plan.spec,
        plan.time[:rows],
        section["theta"][:rows],
        {name: section[name][:rows] for name in SERIES},
        section["exact_theta"][:rows],
        {name: section[name][:rows] for name in EXACT},
        section["flow"][:rows],
        float(section["constant"][0]),
        float(section["particle_steps_per_second"][0]),
    )


@dataclass
class _Run:
    """One rule under way.

    ``state`` is all that the rest of the run depends on.
    """

    plan: Plan
    file: RunFile | None
    checkpoint_every: float
    interrupted: Callable[[], bool]
    advance: Advance
    state: dict[str, Array] = field(init=False)

    def finish(self) -> RuleResult:
        """Runs to the end, from the start or from the checkpoint, or reads a rule that is complete."""
        plan, spec, file = self.plan, self.plan.spec, self.file
        size = spec.particles * spec.replicas
        if file is not None and file.committed(plan.rule) == len(plan.time):
            self.advance((spec.step_count + 1) * size)
            return _read(file, plan)
        self._prepare()
        rows = len(plan.time)
        self.theta = np.full((rows, spec.replicas, len(spec.start)), np.nan)
        self.series = {name: np.full((rows, spec.replicas), np.nan) for name in SERIES}
        first = self._restore()
        if first == 0:
            self._begin()
        began = saved = clock.monotonic()
        for n in range(first, spec.step_count + 1):
            self._jump(n)
            self.advance(size)
            now = clock.monotonic()
            if self.interrupted() or now - saved >= self.checkpoint_every:
                self._checkpoint(n + 1)
                saved = now
            if self.interrupted():
                raise KeyboardInterrupt
        speed = (spec.step_count + 1 - first) * size / max(clock.monotonic() - began, 1e-9)
        if file is not None:
            file.write_whole(plan.rule, {"particle_steps_per_second": np.array([speed])})
        thetas, exact, flow = plan.truth
        return RuleResult(
            plan.rule, spec, plan.time, self.theta, self.series, thetas, exact, flow, plan.constant, speed
        )

    def _prepare(self) -> None:
        """What a run has besides its state."""
        plan, spec, problem = self.plan, self.plan.spec, self.plan.problem
        self.kernels = problem.potential.kernels(str(spec.integrator))
        self.dt = spec.tau / spec.step_count
        self.data_x, self.data_weights = problem.data
        self.status = simulation.new_status(spec.replicas, spec.particles)
        self.estimated = None
        if spec.metric == "estimated" and plan.rule != "gradient":
            assert spec.refresh is not None
            self.estimated = rates.Estimated(
                problem.potential, spec.beta, spec.mobility, spec.side, spec.refresh, spec.regularise, self.dt,
                str(spec.integrator), spec.seed, plan.stream(_SIDE),
            )  # fmt: skip
        if problem.theory is not None:
            self.reference = problem.theory.at(spec.start).free_energy

    def _begin(self) -> None:
        plan, spec, problem = self.plan, self.plan.spec, self.plan.problem
        replicas, p = spec.replicas, len(spec.start)
        x = simulation.equilibrium(
            problem.potential, spec.start, spec.particles, replicas=replicas, beta=spec.beta, mobility=spec.mobility,
            seed=spec.seed, stream=plan.stream(_DYNAMICS), precision=spec.precision,
        )  # fmt: skip
        theta = np.tile(spec.start, (replicas, 1))
        energy, gradient = self._means(x, theta)
        none = np.zeros(replicas)
        self.state = {
            "x": x,
            "theta": theta,
            "speed": np.zeros((replicas, p)),
            "gradient": gradient,  # <dE/dtheta>_samples where the next jump will be in its middle
            "work": none.copy(),
            "heat": none.copy(),
            "bias": none.copy(),
            "energy": energy,
            # At the last mark and the one before: theta, dF/dtheta, g, zeta, and their numbers.
            "mark_theta": theta.copy(),
            "mark_gradient": np.zeros((replicas, p)),
            "metric": np.zeros((2, 2, replicas, p, p)),
            "marks": np.array([-1, -1]),
        }
        if self.estimated is not None:
            self.estimated.start(theta, spec.precision)
            self.state |= self.estimated.state
        if problem.theory is not None:
            self.state["mark_gradient"][...] = problem.theory.at(spec.start).mean_gradient
        start = dict.fromkeys(SERIES, none)
        loss = np.nan if problem.theory is None else problem.loss(spec.start)
        unknown = np.full(replicas, np.nan) if problem.theory is None else none
        self._record(0, theta, start | {"loss": none + loss, "excess_work": unknown, "bias": unknown})

    def _means(self, x: Array, theta: Array) -> tuple[Array, Array]:
        """Mean energy (replicas,) and mean dE/dtheta (replicas, p) of particles x (replicas, d, n)."""
        potential = self.plan.problem.potential
        values = np.empty((x.shape[0], 1 + x.shape[1] + theta.shape[1], x.shape[2]))
        potential.kernels().evaluate(x, theta, values)
        return values[:, 0].mean(axis=1), values[:, 1 + x.shape[1] :].mean(axis=2)

    def _data_gradient(self, theta: Array) -> Array:
        replicas, d, n = self.data_x.shape
        values = np.empty((replicas, 1 + d + theta.shape[1], n))
        self.plan.problem.potential.kernels().evaluate(self.data_x, theta, values)
        gradient: Array = values[:, 1 + d :] @ self.data_weights
        return gradient

    def _jump(self, n: int) -> None:
        """Jump n of theta, and the relaxation after it."""
        plan, spec, state = self.plan, self.plan.spec, self.state
        steps, potential = spec.step_count, plan.problem.potential
        share = 0.5 if n in (0, steps) else 1.0
        old, middle = state["theta"], state["theta"] + 0.5 * share * self.dt * state["speed"]
        if n in plan.marks:
            self._ask_theory(n, middle)
        rate = self._rate(n, middle)
        state["speed"] = -np.einsum("rij,rj->ri", rate, self._data_gradient(middle) - state["gradient"])
        new = old + share * self.dt * state["speed"]
        self._require_valid(new, n)
        later = 0.5 if n + 1 == steps else 1.0
        ahead = new + 0.5 * later * self.dt * state["speed"]
        recorded = n in plan.points
        energy = self._means(state["x"], new)[0] if recorded else None
        wait = self.dt if n < steps else 0.0
        table = simulation.coefficients(potential, str(spec.integrator), wait, spec.beta, spec.mobility, new[:, None])
        if table.ndim == 2:
            table = np.repeat(table[None], spec.replicas, axis=0)
        sums = np.empty((spec.replicas, ensemble.blocks_of(spec.particles), 2 + new.shape[1]))
        self.kernels.step(
            state["x"], n, table, np.stack([old, new, ahead], axis=1), np.uint64(spec.seed),
            np.uint64(plan.stream(_DYNAMICS)), sums, self.status,
        )  # fmt: skip
        simulation.require_number(potential, state["x"], self.status, self.dt)
        means = sums.sum(axis=1) / spec.particles
        state["work"] = state["work"] + means[:, 0]
        state["bias"] = state["bias"] + np.sum((new - old) * state["gradient"], axis=1)
        if recorded:
            self._enter(n, new, energy)
        state["heat"] = state["heat"] + means[:, 1]
        state["theta"], state["gradient"] = new, means[:, 2:]

    def _ask_theory(self, n: int, theta: Array) -> None:
        """g and zeta at this jump; and dF along the way since the last mark, by the trapezoid rule."""
        state, known = self.state, self.plan.problem.theory
        if known is None:
            return
        points = [known.at(one) for one in theta]
        gradient = np.stack([point.mean_gradient for point in points])
        way = theta - state["mark_theta"]
        state["bias"] = state["bias"] - np.sum(0.5 * (gradient + state["mark_gradient"]) * way, axis=1)
        state["mark_theta"], state["mark_gradient"] = theta, gradient
        state["metric"][1] = state["metric"][0]
        state["metric"][0, 0] = [point.fisher for point in points]
        state["metric"][0, 1] = [point.friction for point in points]
        state["marks"] = np.array([n, state["marks"][0]])

    def _rate(self, n: int, middle: Array) -> Array:
        plan, spec, state = self.plan, self.plan.spec, self.state
        if plan.rule == "gradient":
            return np.tile(plan.constant * np.eye(middle.shape[1]), (spec.replicas, 1, 1))
        if self.estimated is not None:
            fisher, friction = self.estimated.at(n, middle, state["x"])
        else:
            last, before = state["marks"]
            ahead = 0.0 if before < 0 else (n - last) / (last - before)
            fisher, friction = state["metric"][0] + ahead * (state["metric"][0] - state["metric"][1])
        rate = rates.eta(plan.rule, plan.constant - n * self.dt, fisher, friction, spec.beta)
        rates.require_rate(rate, n, plan.problem.potential)
        return rate

    def _require_valid(self, theta: Array, n: int) -> None:
        try:
            self.plan.problem.potential.require_valid(theta)
        except InputError as error:
            raise RunError(
                f"{self.plan.rule} learned its way out at step {n} ({error}); take a longer tau, a smaller eta, or"
                " more particles."
            ) from error

    def _enter(self, n: int, theta: Array, energy: Array | None) -> None:
        """The row after jump n."""
        state, problem = self.state, self.plan.problem
        assert energy is not None
        values = {
            "work": state["work"],
            "heat": state["heat"],
            "first_law_residual": energy - state["energy"] - state["work"] - state["heat"],
        }
        for name in ("excess_work", "bias", "loss"):
            values[name] = np.full(len(theta), np.nan)
        if problem.theory is not None:
            points = [problem.theory.at(one) for one in theta]
            values["excess_work"] = state["work"] - np.array([point.free_energy for point in points]) + self.reference
            losses = [problem.loss(one, point.free_energy) for one, point in zip(theta, points, strict=True)]
            values["loss"] = np.array(losses)
            gradient = np.stack([point.mean_gradient for point in points])
            way = theta - state["mark_theta"]
            values["bias"] = state["bias"] - np.sum(0.5 * (gradient + state["mark_gradient"]) * way, axis=1)
        self._record(int(np.searchsorted(self.plan.points, n)) + 1, theta, values)

    def _record(self, row: int, theta: Array, values: dict[str, Array]) -> None:
        self.theta[row] = theta
        for name, value in values.items():
            self.series[name][row] = value
        if self.file is not None:
            rows = {"theta": theta[None], **{name: value[None] for name, value in values.items()}}
            self.file.write(self.plan.rule, row, rows)

    def _checkpoint(self, point: int) -> None:
        if self.file is not None:
            self.file.checkpoint({"rule": np.array(self.plan.rule), "point": np.array(point)} | self.state)
            self.file.wait()

    def _restore(self) -> int:
        """Puts everything back as the checkpoint has it; returns the jump to go on with."""
        plan, spec = self.plan, self.plan.spec
        stored = None if self.file is None else self.file.load_checkpoint()
        if self.file is None or stored is None or str(stored.pop("rule")) != plan.rule:
            return 0
        point = int(stored.pop("point"))
        self.state = stored
        if self.estimated is not None:
            self.estimated.state = {name: stored[name] for name in rates.STATE}
        section, rows = self.file.read(plan.rule), int(np.searchsorted(plan.points, point)) + 1
        self.theta[:rows] = section["theta"][:rows]
        for name in SERIES:
            self.series[name][:rows] = section[name][:rows]
        self.advance(point * spec.particles * spec.replicas)
        return point


@dataclass(frozen=True)
class Passage:
    """How far Eq. 53 strays from the natural-gradient flow of Eq. 54 in a time tau, over the distance to the target.

    ``deviation`` is the largest on the way with infinitely many particles, ``measured`` the same place and direction in
    the run.
    """

    tau: float
    deviation: float
    measured: Estimate


def theorem(
    spec: Learn, taus: tuple[float, ...], threads: int | None = None, show_progress: bool = False
) -> tuple[list[Passage], float]:
    """Theorem 1: the deviation from Eq. 54 for several tau, and the exponent with which it falls.

    Raises InputError where the theory of the potential is not known, or for fewer than two tau.
    """
    if len(taus) < 2:
        raise InputError(f"taus holds {len(taus)} values; a rate takes at least two.")
    passages = []
    for tau in taus:
        run = replace(spec, tau=tau, steps=None, refresh=None, rules=("natural",), accuracy=None)
        if not theory.known(run.built()):
            raise InputError(f"{spec.potential} has no known theory, which Eq. 54 needs; take another potential.")
        result = learn(run, threads=threads, show_progress=show_progress)["natural"]
        scale = float(np.linalg.norm(spec.goal - spec.start))
        away = result.exact_theta - result.flow
        row = int(np.argmax(np.linalg.norm(away, axis=1)))
        size = float(np.linalg.norm(away[row]))
        seen = (result.theta[row] - result.flow[row]) @ away[row] / (size * scale)
        passages.append(Passage(tau, size / scale, estimate(seen, None)))
    logs = np.log([(passage.tau, passage.deviation) for passage in passages])
    return passages, float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
