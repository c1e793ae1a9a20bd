"""What a measurement of a free-energy difference is: everything that decides its numbers, and nothing else."""

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np

from thermorun import specs
from thermorun.arrays import Array
from thermorun.errors import InputError, words
from thermorun.potentials import INTEGRATORS, Potential, PotentialSpec, System, midpoints
from thermorun.potentials.fokker_planck import middles
from thermorun.potentials.staircase import path_rows
from thermorun.specs import Parameter, several

Point = tuple[float, ...]

DIRECTIONS = ("forward", "reverse")
_MOST_STEPS = 10**8


@dataclass(frozen=True)
class FreeEnergy(PotentialSpec):
    """Forward and reverse ensembles between two parameter points.  Its fields are the parameters of `measure`.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "free-energy"
    runner = "thermorun.free_energy.run"
    shared = True
    grows = ("particles",)
    parts = "row"

    potential: Annotated[str | Potential, specs.POTENTIAL] = "double-well"
    start: Annotated[
        Point | None, Parameter(several(specs.number), "theta at the start; by default the potential's own")
    ] = None
    end: Annotated[
        Point | None, Parameter(several(specs.number), "theta at the end; by default the potential's own target")
    ] = None
    duration: Annotated[float, Parameter(specs.positive, "from the start to the end", "time")] = 2.0
    steps: Annotated[
        int | None,
        Parameter(specs.count(1, _MOST_STEPS), "relaxations; by default 20 in the fastest relaxation time"),
    ] = None
    particles: Annotated[int, Parameter(specs.count(1, specs.MOST_PARTICLES), "in each direction")] = 100_000
    beta: Annotated[float, specs.BETA] = 1.0
    mobility: Annotated[float, specs.MOBILITY] = 1.0
    integrator: Annotated[
        str | None,
        Parameter(specs.Choice(*INTEGRATORS), "by default exact for quadratic potentials, else heun"),
    ] = None
    precision: Annotated[str, specs.PRECISION] = "float64"
    path: Annotated[
        tuple[Point, ...] | None,
        Parameter(
            several(several(specs.number), 2),
            "theta at equal times from start to end, or rows of time and theta, as drive takes them, whose times are"
            " stretched to the duration; linear between; else straight",
        ),
    ] = None
    fingerprint: Annotated[str | None, specs.FINGERPRINT] = None

    def validate(self) -> None:
        if self.start is not None and self.start == self.end and self.path is None:
            raise InputError(
                f"start is {words(self.start)} and end is the same; they must differ, or a path lead out and back."
            )

    @property
    def timed(self) -> bool:
        """Whether the rows of the path begin with a time."""
        return self.path is not None and len(self.path[0]) == 1 + len(self.system.potential.parameters)

    @property
    def _thetas(self) -> tuple[Point, ...]:
        """theta at the rows of the path."""
        return tuple(row[1:] for row in self.path or ()) if self.timed else self.path or ()

    @property
    def ends(self) -> dict[str, Point]:
        """theta at the start and at the end: of the path or the potential, where they are not given."""
        ends = {"start": self.start, "end": self.end}
        if None in ends.values():
            potential = self.system.potential
            usual = (potential.theta, potential.target)
            if self.path is not None:
                usual = (self._thetas[0], self._thetas[-1])
            ends = {name: point or other for (name, point), other in zip(ends.items(), usual, strict=True)}
        for name, point in ends.items():
            if point is None:
                raise InputError(f"{name} is not given, and {self.system.potential.name} has no target; give one.")
        return {name: point for name, point in ends.items() if point is not None}

    def resolved(self) -> Self:
        """With ends, steps, integrator and fingerprint set; everything is checked against the potential."""
        if None in (self.start, self.end):
            return self.replace(**self.ends).resolved()
        found, system = self.identified()
        for name, point in found.ends.items():
            system.potential.require_valid(point, name)
        found._check_path(system)
        system.coefficients(str(found.integrator), 1.0, np.array([found.ends["start"]]))
        found.check_at(found.ends.values())
        found = found.replace(steps=found.steps or default_steps(found, system))
        system.potential.require_valid(thetas(found), "path")
        return found

    def _check_path(self, system: System) -> None:
        if self.path is None:
            return
        if self.timed:
            path_rows("path", self.path)
        path = system.potential.require_valid(self._thetas, "path")
        for (name, point), row in zip(self.ends.items(), (0, -1), strict=True):
            if np.any(np.abs(path[row] - point) > 1e-12 * np.abs(path).max(axis=0)):
                ends = "begins" if row == 0 else "ends"
                raise InputError(
                    f"path {ends} at {words(path[row].tolist())} and {name} is {words(point)}; both must be equal."
                )


def along(spec: FreeEnergy, s: Array) -> Array:
    """theta (n, p) at fractions s of the duration."""
    knots = np.array(list(spec.ends.values()) if spec.path is None else spec.path)
    times = np.linspace(0.0, 1.0, len(knots))
    if spec.path is not None and spec.timed:
        times, knots = knots[:, 0] / knots[-1, 0], knots[:, 1:]
    return np.stack([np.interp(s, times, column) for column in knots.T], axis=1)


def thetas(spec: FreeEnergy, direction: str = "forward") -> Array:
    """theta before the first jump and after each, (steps + 2, p), of a resolved spec."""
    steps = int(spec.steps or 0)
    if spec.timed:  # which may jump, where the mean of a wait's ends is not its middle
        first, last = spec.ends.values()
        path = np.concatenate([[first], along(spec, middles(steps)), [last]])
    else:
        path, _ = midpoints(along(spec, np.linspace(0.0, 1.0, steps + 1)), spec.duration / steps)
    return path if direction == "forward" else np.ascontiguousarray(path[::-1])


def default_steps(spec: FreeEnergy, system: System) -> int:
    """What ``steps`` None takes.  Raises InputError where that is more than can be."""
    dt = min(system.time_step(point) for point in along(spec, np.linspace(0.0, 1.0, 9)))
    steps = max(50.0, np.ceil(spec.duration / dt))
    if steps > _MOST_STEPS:
        raise InputError(
            f"duration is {spec.duration:g} and the fastest relaxation time {20 * dt:.3g}, which takes {steps:.2g}"
            " steps; shorten the duration."
        )
    return int(steps)
