"""Closed-loop learning of any potential: what a run is, and what it gave.

    dtheta/dt = -eta (<dE/dtheta>_data - <dE/dtheta>_samples)            (Hnybida & Verret 2025, Eqs. 8 and 9)

with eta of `rates.eta`.  Excess work is the mean work minus F(theta) - F(theta_0).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermorun.errors import InputError, require_count, require_positive
from thermorun.estimates import Estimate, finite_or_none
from thermorun.learning import rates
from thermorun.learning.trap.recorder import estimate
from thermorun.potentials import dynamics as simulation
from thermorun.potentials import potential as potentials
from thermorun.potentials.potential import Potential

Array = NDArray[Any]

METRICS = ("theory", "estimated")
# Where a built-in potential learns to go unless it is told otherwise, from its own point.
TARGETS = {
    "trap": (1.0,),
    "stiffness": (3.0,),
    "trap-and-stiffness": (1.0, 2.0),
    "gaussian": (0.5, -0.5, 1.5, 0.5, 1.2),
    "double-well": (1.5, 0.5),
    "quartic": (3.0,),
    "bistable": (0.3, 0.5),
    "chain": (1.5, 0.5, 1.0),
    "mixture": (-1.0, 2.0, 0.7),
}
# A step is this share of the fastest relaxation time, or tau over the fewest steps.
_FEWEST_STEPS, _MOST_STEPS = 200, 2**31
_MOST_PARTICLES = 2**34


@dataclass(frozen=True)
class Learn:
    """One potential that learns from data under one or more rules (``rates.RULES``).

    ``theta`` is where it starts, in equilibrium; the data are those of p_m(x, target).  ``samples`` takes a finite
    sample of this size for them, drawn for each replica.  ``metric`` says where the g and zeta of Eq. 53 come from:
    ``theory``, or ``estimated`` as in ``rates.Estimated``, with ``side`` particles a replica, every ``refresh`` steps
    (by default 25 times a run), g regularised by ``regularise``.

    ``accuracy`` is the share of the loss at the start that shall be left after tau, with infinitely many particles:
    Eq. 53 then looks to a horizon later than tau, and stops at tau.  Without it the horizon is tau, as in the paper.
    ``eta`` is the rate of the rule ``gradient``, by default the one that has this accuracy, or 1%.

    ``particles`` share one theta, whose noise costs work of order 1/particles more than infinitely many would;
    ``replicas`` are independent, and their spread is the error.  ``records`` is the number of equal parts of [0, tau]
    at whose ends the run is recorded.

    ``fingerprint`` is that of the potential, so that a file is not gone on with after its potential was changed.
    Raises InputError for whatever cannot run.
    """

    potential: str = "double-well"
    rules: tuple[str, ...] = ("natural", "gradient")
    theta: tuple[float, ...] | None = None
    target: tuple[float, ...] | None = None
    beta: float = 1.0
    mobility: float = 1.0
    tau: float = 10.0
    accuracy: float | None = None
    eta: float | None = None
    metric: str = "theory"
    refresh: int | None = None
    regularise: float = 1e-3
    side: int = 4096
    particles: int = 2**16
    replicas: int = 8
    steps: int | None = None
    integrator: str | None = None
    precision: str = "float64"
    seed: int = 0
    samples: int | None = None
    records: int = 100
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        potential = self.built()
        if isinstance(self.rules, str):
            object.__setattr__(self, "rules", (self.rules,))
        object.__setattr__(self, "rules", tuple(dict.fromkeys(self.rules)))
        if not self.rules:
            raise InputError("rules is empty; name at least one.")
        for rule in self.rules:
            _require_choice("rule", rule, rates.RULES)
        _require_choice("metric", self.metric, METRICS)
        _require_choice("precision", self.precision, ("float32", "float64"))
        for name in ("beta", "mobility", "tau", "regularise"):
            require_positive(name, getattr(self, name))
        if self.eta is not None:
            require_positive("eta", self.eta)
        if self.accuracy is not None and not 0 < self.accuracy < 1:
            raise InputError(f"accuracy is {self.accuracy}; it must be a share between 0 and 1.")
        for name in ("particles", "replicas", "side", "records"):
            require_count(name, getattr(self, name))
        for name in ("samples", "refresh", "steps"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        require_count("seed", self.seed, 0)
        if self.seed >= 2**64:
            raise InputError(f"seed is {self.seed}; it must be below 2^64.")
        if self.particles > _MOST_PARTICLES:
            raise InputError(f"particles is {self.particles}; it must be at most {_MOST_PARTICLES}.")
        self._fill(potential)

    def _fill(self, potential: Potential) -> None:
        """Puts numbers in the place of every None that decides something."""
        if self.theta is None:
            object.__setattr__(self, "theta", potential.theta)
        if self.target is None:
            if self.potential not in TARGETS:
                raise InputError(f"target is not given; say what the data of {potential.name} are the law of.")
            object.__setattr__(self, "target", TARGETS[self.potential])
        for name in ("theta", "target"):
            point = potential.require_valid(getattr(self, name), name)
            object.__setattr__(self, name, tuple(point.tolist()))
        if self.integrator is None:
            object.__setattr__(self, "integrator", "heun" if potential.quadratic is None else "exact")
        step = min(
            simulation.time_step(potential, point, self.beta, self.mobility) for point in (self.start, self.goal)
        )
        if self.steps is None:
            object.__setattr__(self, "steps", max(_FEWEST_STEPS, int(np.ceil(self.tau / (2 * step)))))
        if self.step_count >= _MOST_STEPS:
            raise InputError(f"steps is {self.steps}; it must be below 2^31.")
        # Raises where the integrator cannot be had.
        simulation.coefficients(potential, str(self.integrator), 1e-9, 1.0, 1.0, np.array([self.theta]))
        if self.integrator != "exact" and self.tau / self.step_count > 10 * step:
            raise InputError(
                f"steps is {self.steps}, too few for {self.integrator}: the fastest relaxation of {potential.name} asks"
                f" for at least {int(np.ceil(self.tau / (10 * step)))}."
            )
        if self.refresh is None:
            object.__setattr__(self, "refresh", max(1, self.step_count // 25))
        if self.fingerprint is None:
            object.__setattr__(self, "fingerprint", potential.fingerprint)
        elif self.fingerprint != potential.fingerprint:
            raise InputError(f"potential is {self.potential!r}, which was changed since the run began.")

    def built(self) -> Potential:
        """The potential itself."""
        return potentials.load(self.potential)

    @property
    def start(self) -> Array:
        """``theta`` as an array (p,)."""
        return np.array(self.theta)

    @property
    def goal(self) -> Array:
        """``target`` as an array (p,)."""
        return np.array(self.target)

    @property
    def step_count(self) -> int:
        """``steps``, which is never None once the spec exists."""
        assert self.steps is not None
        return self.steps

    def to_dict(self) -> dict[str, Any]:
        """All fields in JSON's types."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def to_json(self) -> str:
        """One line of JSON, the same for equal specs."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Learn":
        """The spec that ``to_json`` wrote.  Raises InputError for anything else."""
        try:
            values = json.loads(text)
            for name in ("rules", "theta", "target"):
                values[name] = None if values[name] is None else tuple(values[name])
            return cls(**values)
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise InputError(f"spec {text[:80]!r} is not that of a learning run ({error}).") from error


# What a run records, with units and what it is; arrays are (time, replica).
SERIES = {
    "work": ("energy", "mean work done on a particle so far"),
    "excess_work": ("energy", "work minus F(theta) - F(theta_0); NaN, as bias and loss, where F is not known"),
    "bias": ("energy", "L_bias: thetadot . (<dE/dtheta>_samples - <dE/dtheta>_model), integrated apart from the work"),
    "heat": ("energy", "mean heat absorbed by a particle so far"),
    "first_law_residual": ("energy", "change of the mean energy - work - heat"),
    "loss": ("energy", "L_MLE(theta) - L_MLE(theta*)"),
}
# The same with infinitely many particles, and the natural-gradient flow of Eq. 54; (time,) and (time, parameter).
EXACT = {
    "exact_work": ("energy", "mean work with infinitely many particles"),
    "exact_excess_work": ("energy", "excess work with infinitely many particles"),
    "exact_loss": ("energy", "L_MLE(theta) - L_MLE(theta*) with infinitely many particles"),
}


@dataclass(frozen=True)
class RuleResult:
    """What one rule gave.

    ``time`` (rows,); ``theta`` (rows, replicas, p); ``series`` holds (rows, replicas) under the names of ``SERIES``.
    ``exact_theta`` (rows, p) and ``exact`` (``EXACT``) are those of infinitely many particles, ``flow`` (rows, p) the
    natural-gradient flow of Eq. 54; all NaN where the theory is not known.  ``constant`` is the rate of ``gradient``,
    and for the other rules the horizon.
    """

    rule: str
    spec: Learn
    time: Array
    theta: Array
    series: dict[str, Array]
    exact_theta: Array
    exact: dict[str, Array]
    flow: Array
    constant: float
    particle_steps_per_second: float

    def estimate(self, name: str, row: int = -1) -> Estimate:
        """The mean over replicas of a series at one row, with its standard error."""
        return estimate(self.series[name][row], None)

    @property
    def excess_work(self) -> Estimate:
        """Excess work at tau."""
        return self.estimate("excess_work")

    def rates_of(self, name: str) -> tuple[Array, Array, Array]:
        """d/dt of a series between records: times (rows - 1,), means and standard errors (rows - 1,)."""
        slopes = np.diff(self.series[name], axis=0) / np.diff(self.time)[:, None]
        count = slopes.shape[1]
        error = np.std(slopes, axis=1, ddof=1) / np.sqrt(count) if count > 1 else np.full(len(slopes), np.nan)
        return 0.5 * (self.time[1:] + self.time[:-1]), slopes.mean(axis=1), error

    @property
    def identity_gap(self) -> Estimate:
        """L_bias - <W_ex> at tau, from each replica's own difference."""
        return estimate(self.series["bias"][-1] - self.series["excess_work"][-1], None)

    @property
    def deviation(self) -> float:
        """The largest distance of theta from the flow of Eq. 54, over the distance of start and target."""
        spec = self.spec
        away = np.linalg.norm(self.theta.mean(axis=1) - self.flow, axis=1).max()
        return float(away / max(np.linalg.norm(spec.goal - spec.start), 1e-300))

    def to_dict(self) -> dict[str, Any]:
        """The numbers of one row of the table, in JSON's types."""
        return {
            "rule": self.rule,
            "eta" if self.rule == "gradient" else "horizon": self.constant,
            "excess_work": _known(self.excess_work),
            "exact_excess_work": finite_or_none(float(self.exact["exact_excess_work"][-1])),
            "work": self.estimate("work").to_dict(),
            "bias": _known(self.estimate("bias")),
            "bias_minus_excess_work": _known(self.identity_gap),
            "loss": _known(self.estimate("loss")),
            "exact_loss": finite_or_none(float(self.exact["exact_loss"][-1])),
            "theta_final": [float(value) for value in self.theta[-1].mean(axis=0)],
            "deviation_from_natural_flow": finite_or_none(self.deviation),
            "first_law_residual": float(np.max(np.abs(self.series["first_law_residual"]))),
            "particle_steps_per_second": finite_or_none(self.particle_steps_per_second),
        }


@dataclass(frozen=True)
class LearnResult:
    """The results of a spec, rule by rule, and the file that holds them (or None)."""

    spec: Learn
    rules: dict[str, RuleResult]
    file: Path | None
    threads: int

    def __getitem__(self, rule: str) -> RuleResult:
        return self.rules[rule]

    def __iter__(self) -> Iterator[RuleResult]:
        return iter(self.rules.values())

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "results": [result.to_dict() for result in self],
            "spec": self.spec.to_dict(),
            "seed": self.spec.seed,
            "threads": self.threads,
            "precision": self.spec.precision,
            "file": None if self.file is None else str(self.file),
        }


def _known(value: Estimate) -> dict[str, Any] | None:
    """An estimate for JSON; None where it needs a free energy that is not known."""
    return value.to_dict() if np.isfinite(value.mean) else None


def _require_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}.")
