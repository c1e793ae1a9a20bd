"""What a run of closed-loop learning is: everything that decides its numbers, and nothing else.

    dtheta/dt = -eta (<dE/dtheta>_data - <dE/dtheta>_samples)            (Hnybida & Verret 2025, Eqs. 8 and 9)

with eta of ``learning.rates``.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np

from thermorun import specs
from thermorun.arrays import Array
from thermorun.errors import InputError, words
from thermorun.learning.data import Sample, most_likely, sample
from thermorun.learning.rates import RULES
from thermorun.potentials import INTEGRATORS, Potential, PotentialSpec, System
from thermorun.potentials.exact import Data, known
from thermorun.specs import Parameter, several

Point = tuple[float, ...]

METRICS = ("theory", "estimated")
# A step is half of the system's own, a fortieth of the fastest relaxation time, or tau over the fewest steps.
_FEWEST_STEPS = 200
# A step may be this many of the system's own, half of the fastest relaxation time: theta must see x relax.
_LONGEST = 10


def _rules(name: str, values: Any) -> tuple[str, ...]:
    """Learning rules, each once."""
    return tuple(dict.fromkeys(several(specs.Choice(*RULES))(name, values)))


@dataclass(frozen=True)
class Learn(PotentialSpec):
    """One potential that learns from data under one or more rules.  Its fields are the parameters of `learn`.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "learn"
    runner = "thermorun.learning.run"
    grows = ("replicas",)
    parts = "replica"

    potential: Annotated[str | Potential, specs.POTENTIAL] = "double-well"
    rules: Annotated[
        tuple[str, ...],
        Parameter(_rules, "learning rules: natural (Eq. 53, a matrix), scalar (one number), gradient (constant)"),
    ] = ("natural", "gradient")
    theta: Annotated[
        Point | None, Parameter(several(specs.number), "theta at the start; by default the potential's own")
    ] = None
    target: Annotated[
        Point | None,
        Parameter(several(specs.number), "theta* of the data's distribution; built-in potentials have one"),
    ] = None
    data: Annotated[
        str | Path | Array | Sample | None,
        Parameter(sample, "points to learn from instead of a target: an array (n,) or (n, d), or a .csv, .npy or .npz"),
    ] = None
    samples: Annotated[
        int | None,
        Parameter(specs.count(), "draws a finite sample of this size from the target, one for each replica"),
    ] = None
    beta: Annotated[float, specs.BETA] = 1.0
    mobility: Annotated[float, specs.MOBILITY] = 1.0
    tau: Annotated[float, Parameter(specs.positive, "duration", "time")] = 10.0
    accuracy: Annotated[
        float | None,
        Parameter(specs.share, "share of the first loss to be left at tau, the same for every rule"),
    ] = None
    eta: Annotated[
        float | None,
        Parameter(specs.positive, "rate of the rule gradient; by default matched to the accuracy, or to 1%"),
    ] = None
    metric: Annotated[
        str,
        Parameter(specs.Choice(*METRICS), "where g and zeta come from: theory, or estimated from the particles"),
    ] = "theory"
    refresh: Annotated[
        int | None, Parameter(specs.count(), "steps between two estimates of the metric; by default 1/25 of all")
    ] = None
    ridge: Annotated[
        float, Parameter(specs.positive, "added to the diagonal of an estimated g, in its mean eigenvalue")
    ] = 1e-3
    side: Annotated[int, Parameter(specs.count(2), "particles of the side ensemble that zeta is estimated from")] = 4096
    particles: Annotated[int, Parameter(specs.count(1, specs.MOST_PARTICLES), "that share one theta")] = 2**16
    replicas: Annotated[int, Parameter(specs.count(), "independent runs; their spread is the standard error")] = 8
    steps: Annotated[
        int | None,
        Parameter(specs.count(1, specs.MOST_STEPS), "of time; by default 40 in the fastest relaxation time"),
    ] = None
    integrator: Annotated[
        str | None,
        Parameter(specs.Choice(*INTEGRATORS), "by default exact for quadratic potentials, else heun"),
    ] = None
    precision: Annotated[str, specs.PRECISION] = "float64"
    records: Annotated[
        int, Parameter(specs.count(1, 10**6), "equal parts of [0, tau] at whose ends the run is recorded")
    ] = 100
    fingerprint: Annotated[str | None, specs.FINGERPRINT] = None

    def validate(self) -> None:
        if not self.rules:
            raise InputError(f"rules is empty; name at least one of {', '.join(RULES)}.")
        if self.data is not None and self.samples is not None:
            raise InputError("data and samples are both given; samples draws from a target, which data stand for.")
        self._require_way()

    def _require_way(self) -> None:
        if self.theta is not None and self.theta == self.target:
            raise InputError(f"theta and target are both {words(self.theta)}; they must differ.")

    @property
    def sample(self) -> Sample | None:
        """``data`` as they are kept."""
        return self.data if isinstance(self.data, Sample) else None

    @property
    def step_count(self) -> int:
        """``steps`` of a resolved spec."""
        return int(self.steps or 0)

    @property
    def start(self) -> Array:
        """``theta`` of a resolved spec, (p,)."""
        return np.array(self.theta)

    @property
    def goal(self) -> Array | None:
        """``target`` of a resolved spec, (p,); None with data of one's own where theory is not known."""
        return None if self.target is None else np.array(self.target)

    def resolved(self) -> Self:
        """With every number set and checked against the potential.

        With data of one's own ``target`` becomes the theta that they are most likely under, where theory is known.
        """
        found, system = self.identified()
        potential = system.potential
        theta = _point(potential, potential.theta if self.theta is None else self.theta, "theta")
        ends = found.replace(theta=theta, target=self._target(system, theta))
        system.coefficients(str(ends.integrator), 1e-9, ends.start[None])
        ends.check_at(point for point in (ends.theta, ends.target) if point is not None)
        step = min(system.time_step(point) for point in (ends.theta, ends.target) if point is not None)
        steps = self.steps or max(_FEWEST_STEPS, _whole(self.tau / (2 * step), self.tau))
        if self.tau / steps > _LONGEST * step:
            raise InputError(
                f"steps is {steps}, too few: the fastest relaxation of {potential.name} asks for"
                f" at least {math.ceil(self.tau / (_LONGEST * step))}."
            )
        return ends.replace(steps=steps, refresh=self.refresh or max(1, steps // 25))

    def _target(self, system: System, theta: Point) -> Point | None:
        potential = system.potential
        if self.sample is None:
            target = potential.target if self.target is None else self.target
            if target is None:
                raise InputError(
                    f"target is not given; say what the data of {potential.name} are the distribution of, or give data."
                )
            return _point(potential, target, "target")
        if self.sample.dimension != potential.dimension:
            raise InputError(
                f"data hold points in {self.sample.dimension} dimensions; {potential.name} has {potential.dimension}."
            )
        if self.sample.x is None:  # read from a file, which was resolved before
            return self.target
        energies = potential.energies(self.sample.x, theta)
        if not np.all(np.isfinite(energies)):
            bad = self.sample.x[np.flatnonzero(~np.isfinite(energies))[0]]
            raise InputError(f"data hold {words(bad.tolist())}, where the energy of {potential.name} is not finite.")
        best = most_likely(system, equal_weights(self.sample.x), theta) if known(potential) else None
        if self.target not in (None, best):
            raise InputError(
                "target and data are both given; data say themselves which theta they are most likely under."
            )
        return best


def equal_weights(x: Array) -> Data:
    """Data of points (n, d) of equal weight."""
    return Data(x, np.full(len(x), 1 / len(x)))


def _point(potential: Potential, theta: Any, name: str) -> Point:
    return tuple(potential.require_valid(theta, name).tolist())


def _whole(steps: float, tau: float) -> int:
    if not steps < specs.MOST_STEPS:
        raise InputError(f"tau is {tau:g}, which takes {steps:.2g} steps of the fastest relaxation; shorten it.")
    return math.ceil(steps)
