"""What closed-loop learning gave, and its place in a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from thermorun.arrays import Array
from thermorun.errors import require_choice
from thermorun.estimates import Estimate, finite_or_none, over_replicas
from thermorun.learning.loop import SERIES
from thermorun.learning.problem import EXACT, Plan
from thermorun.learning.spec import Learn
from thermorun.results import Result
from thermorun.store import Axis, RunFile, Variable
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The shift of order 1/particles is known to about a fifth: z says something while that is small beside the error.
_LARGEST_SHIFT = 2.0
_PROBLEM = "problem"
_DATA = "data"


@dataclass(frozen=True, eq=False)
class RuleResult:
    """What one rule gave.

    ``time`` (rows,); ``theta`` (rows, replicas, p); ``series`` holds (rows, replicas) under the names of ``SERIES``.
    ``exact_theta`` (rows, p) and ``exact`` (rows,), under the names of ``EXACT``, are those of infinitely many
    particles, ``flow`` (rows, p) the natural-gradient flow of Eq. 54; all NaN where theory is not known.  ``target``
    (p,) is theta*, ``target_fisher`` (p, p) the Fisher metric there, both NaN where they are not known.  ``constant``
    is the rate of ``gradient``, and for the other rules the horizon.
    """

    rule: str
    spec: Learn
    parameters: tuple[str, ...]
    time: Array
    theta: Array
    series: dict[str, Array]
    exact_theta: Array
    exact: dict[str, Array]
    flow: Array
    target: Array
    target_fisher: Array
    constant: float
    particle_steps_per_second: float

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.rule}: excess work {self.excess_work}>"

    def estimate(self, name: str, row: int = -1) -> Estimate:
        """The mean over replicas of a series at one row, with its standard error."""
        return over_replicas(self.series[name][row])

    @property
    def excess_work(self) -> Estimate:
        """Excess work at tau."""
        return self.estimate("excess_work")

    @property
    def z(self) -> float:
        """The normal deviate of the excess work at tau from that of infinitely many particles plus ``shift``.

        NaN where that is no truth for this run: with an estimated metric or a finite sample of the target, whose own
        noise costs work too, or with a shift, known to about a fifth, of more than two standard errors.
        """
        if (self.spec.metric == "estimated" and self.rule != "gradient") or self.spec.samples is not None:
            return np.nan
        work, shift = self.excess_work, float(self.exact["shift"][-1])
        if not shift < _LARGEST_SHIFT * work.stderr:
            return np.nan
        return float(work.z(self.exact["exact_excess_work"][-1] + shift))

    @property
    def theta_final(self) -> Estimate:
        """theta at tau, (p,)."""
        return over_replicas(self.theta[-1])

    def rates_of(self, name: str) -> tuple[Array, Estimate]:
        """d/dt of a series between records: times (rows - 1,), and the rates (rows - 1,)."""
        rates = np.diff(self.series[name], axis=0) / np.diff(self.time)[:, None]
        return 0.5 * (self.time[1:] + self.time[:-1]), over_replicas(rates.T)

    @property
    def identity_gap(self) -> Estimate:
        """L_bias - <W_ex> at tau, from each replica's own difference."""
        return over_replicas(self.series["bias"][-1] - self.series["excess_work"][-1])

    def distance(self, theta: Array) -> Array:
        """How far theta (rows, p) lies from the flow of Eq. 54, over the distance of start and target; (rows,).

        Distances are sqrt(dtheta g dtheta) with g at the target, whatever the units of the parameters.
        """
        away, whole = theta - self.flow, self.target - self.spec.start
        squares = np.einsum("ri,ij,rj->r", away, self.target_fisher, away)
        distances: Array = np.sqrt(squares / float(whole @ self.target_fisher @ whole))
        return distances

    @property
    def deviation(self) -> float:
        """The largest distance of theta from the flow of Eq. 54, over the distance of start and target."""
        return float(self.distance(self.theta.mean(axis=1)).max())

    def to_dict(self) -> dict[str, Any]:
        """The numbers of one row of the table, in JSON's types.

        ``exact`` values are those of infinitely many particles, and ``z`` is that of `z`.
        """
        exact = {name: finite_or_none(float(values[-1])) for name, values in self.exact.items()}
        theta = self.exact_theta[-1] if np.all(np.isfinite(self.exact_theta[-1])) else None
        work = _known(self.excess_work)
        if work is not None:
            work |= {"exact": exact["exact_excess_work"], "shift": exact["shift"], "z": finite_or_none(self.z)}
        return {
            "rule": self.rule,
            "eta" if self.rule == "gradient" else "horizon": self.constant,
            "excess_work": work,
            "work": self.estimate("work").to_dict() | {"exact": exact["exact_work"]},
            "bias": _known(self.estimate("bias")),
            "bias_minus_excess_work": _known(self.identity_gap),
            "loss": _known(self.estimate("loss"), exact["exact_loss"]),
            "theta_final": self.theta_final.to_dict() | {"exact": None if theta is None else theta.tolist()},
            "deviation_from_natural_flow": finite_or_none(self.deviation),
            "first_law_residual": finite_or_none(np.max(np.abs(self.series["first_law_residual"]))),
            "particle_steps_per_second": finite_or_none(self.particle_steps_per_second),
        }


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class LearnResult(Result):
    """The results of a spec, rule by rule: ``result["natural"]``, or one after the other in a loop."""

    spec: Learn
    rules: dict[str, RuleResult]

    def __getitem__(self, rule: str) -> RuleResult:
        return self.rules[require_choice("rule", rule, tuple(self.rules))]

    def __iter__(self) -> Iterator[RuleResult]:
        return iter(self.rules.values())

    def __len__(self) -> int:
        return len(self.rules)

    def rows(self) -> list[dict[str, Any]]:
        return [rule.to_dict() for rule in self]

    def tables(self) -> Sequence[Table]:
        rows = [_cells(rule) for rule in self]
        parameters = next((rule.parameters for rule in self), ())
        headings = (
            "rule", "eta or horizon", "W / energy", "W_ex / energy", "exact", "shift", "z", "L_bias - W_ex",
            "loss / energy",
            *parameters,
        )  # fmt: skip
        return [Table(f"Learning of {self.name}", headings, rows, self._notes())]

    @property
    def name(self) -> str:
        """That of the potential."""
        return self.spec.potential if isinstance(self.spec.potential, str) else self.spec.potential.name

    def _notes(self) -> list[str]:
        spec = self.spec
        source = "theory" if spec.metric == "theory" else "the particles"
        notes = [
            f"{spec.particles:,} particles x {spec.replicas} replicas x {spec.step_count:,} steps a rule,"
            f" {spec.integrator}, {spec.precision}; metric from {source}",
            "exact: W_ex with infinitely many particles; shift: what theta's noise adds to it with this many, to"
            " leading order; loss: L_MLE above its least; all at tau",
            *self._reasons(),
        ]
        if self.rules:
            residual = max(float(np.max(np.abs(rule.series["first_law_residual"]))) for rule in self)
            rate = sum(rule.particle_steps_per_second for rule in self) / len(self.rules)
            notes.append(
                f"first law: |dE - W - Q| <= {residual:.0e}; {rate:.3g} particle-steps/s on {self.threads} threads"
            )
        return notes

    def _reasons(self) -> list[str]:
        """Why cells are question marks."""
        spec, reasons = self.spec, []
        if spec.replicas == 1:
            reasons.append("no standard error (?): replicas is 1, and their spread is the error; take 2 or more")
        if any(np.isnan(rule.excess_work.mean) for rule in self):
            reasons.append("W_ex, L_bias and loss are not known (?): they need the free energy of this potential")
        elif spec.samples is not None:
            reasons.append("no z (?): each replica learns from a sample of its own, whose noise costs work too")
        elif any(np.isnan(rule.z) for rule in self) and spec.metric == "estimated":
            reasons.append("no z (?): the noise of an estimated metric costs work too")
        elif any(np.isnan(rule.z) for rule in self) and spec.replicas > 1:
            reasons.append(
                "no z (?): the shift is known to about a fifth and more than 2 standard errors; take more particles"
            )
        return reasons

    def figures(self) -> "dict[str, Figure]":
        from thermorun.learning import figures

        return {"": figures.learned(self)}


def _cells(rule: RuleResult) -> tuple[str, ...]:
    exact, shift = (float(rule.exact[name][-1]) for name in ("exact_excess_work", "shift"))
    loss, gap = rule.estimate("loss").mean, rule.identity_gap.mean
    return (
        rule.rule,
        f"{rule.constant:.4g}",
        str(rule.estimate("work")),
        str(rule.excess_work),
        _number(exact, ".5g"),
        _number(shift, ".1e"),
        _number(rule.z, "+.1f"),
        _number(gap, "+.1e"),
        _number(loss, ".1e"),
        *(str(rule.theta_final[j]) for j in range(len(rule.parameters))),
    )


def _number(value: float, form: str) -> str:
    return "?" if np.isnan(value) else format(value, form)


def _known(value: Estimate, exact: float | None = None) -> dict[str, Any] | None:
    """An estimate for JSON, beside its exact value where there is one; None where it needs what is not known."""
    if not np.isfinite(value.mean):
        return None
    return value.to_dict() | ({} if exact is None else {"exact": exact})


def lay_out(file: RunFile, plans: list[Plan], kept: int) -> None:
    """Makes the sections of a run: its problem, its data if they are the user's own, and every rule.

    So many replicas are ``kept`` from a smaller run.
    """
    file.note(kept_replicas=kept)
    problem = plans[0].problem
    names, p = np.array(problem.potential.parameters), len(problem.potential.parameters)
    parameter = Axis("parameter", names, "1", "components of theta")
    other = Axis("other", names, "1", "components of theta")
    file.add_section(
        _PROBLEM,
        [parameter, other],
        [
            Variable("target", ("parameter",), "1", "theta*; NaN where it is not known"),
            Variable("target_fisher", ("parameter", "other"), "1", "Fisher metric at theta*; NaN where not known"),
        ],
    )
    goal, fisher = np.full(p, np.nan), np.full((p, p), np.nan)
    if problem.spec.goal is not None:
        goal = problem.spec.goal
        fisher = fisher if problem.theory is None else problem.theory.at(goal).fisher
    file.write_whole(_PROBLEM, {"target": goal, "target_fisher": fisher})
    if problem.points is not None:
        point = Axis("point", np.arange(len(problem.points)), "1", "points that were given to learn from")
        dimension = Axis("dimension", np.arange(problem.points.shape[1]), "1", "components of x")
        file.add_section(_DATA, [point, dimension], [Variable("x", ("point", "dimension"), "length", "data")])
        file.write_whole(_DATA, {"x": problem.points})
    for plan in plans:
        _add_section(file, plan, parameter)
    file.publish({plan.rule: len(plan.time) for plan in plans})


def _add_section(file: RunFile, plan: Plan, parameter: Axis) -> None:
    axes = [
        Axis("time", plan.time, "time", "time, after a jump of theta"),
        Axis("replica", np.arange(plan.spec.replicas), "1", "independent runs"),
        parameter,
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
    file.write_whole(plan.rule, plan.exact | {"constant": np.array([plan.constant])})


def stored_points(file: RunFile) -> Array:
    """The user's own data in a file, (n, d)."""
    return file.read(_DATA)["x"]


def stored_constant(file: RunFile, rule: str) -> float:
    """The rate or the horizon that a run began with."""
    return float(file.read(rule)["constant"][0])


def read(file: RunFile, spec: Learn) -> LearnResult:
    """The results in a file, complete or not; a rule without rows is left out."""
    rules = {rule: _read(file, spec, rule) for rule in spec.rules if file.committed(rule)}
    return LearnResult(
        spec=spec, threads=file.threads, file=file.path, stored=None if file.path else file.contents(), rules=rules
    )


def _read(file: RunFile, spec: Learn, rule: str) -> RuleResult:
    rows, section, problem = file.committed(rule), file.read(rule), file.read(_PROBLEM)
    return RuleResult(
        rule=rule,
        spec=spec,
        parameters=tuple(name.decode() if isinstance(name, bytes) else str(name) for name in section["parameter"]),
        time=section["time"][:rows],
        theta=section["theta"][:rows],
        series={name: section[name][:rows] for name in SERIES},
        exact_theta=section["exact_theta"][:rows],
        exact={name: section[name][:rows] for name in EXACT},
        flow=section["flow"][:rows],
        target=problem["target"],
        target_fisher=problem["target_fisher"],
        constant=float(section["constant"][0]),
        particle_steps_per_second=float(section["particle_steps_per_second"][0]),
    )
