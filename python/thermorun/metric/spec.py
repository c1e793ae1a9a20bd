"""What a measurement of a metric is, and what protocols between two points are: all that decides their numbers."""

import itertools
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np

from thermokernels.random import BLOCK
from thermorun import specs
from thermorun.arrays import Array
from thermorun.errors import InputError, require_count, require_number, short, words
from thermorun.metric.friction import MOST, SEGMENT
from thermorun.potentials import INTEGRATORS, Potential, PotentialSpec, System
from thermorun.specs import Check, Parameter, several

Point = tuple[float, ...]
# A parameter, its first and last value, and how many values there are.
Axis = tuple[str, float, float, int]

# Blocks of particles of which the spread tells the errors.
FEWEST_BLOCKS = 8
# Steps may be so many times longer than `System.time_step`, which makes a fifth of the fastest relaxation time: there
# zeta is off by half a per cent with Heun's, by three at half of that time.
_LONGEST = 4
# And so many times shorter that the longest window is still ten of the fastest relaxation times.
_SHORTEST = 10 * 20 / (SEGMENT * 2 ** (MOST - 1))


def axis(name: str, value: Any) -> Axis:
    """One axis of a grid: (parameter, first, last, count)."""
    if isinstance(value, str) or not hasattr(value, "__len__") or len(value) != 4:
        raise InputError(f"{name} holds {short(value)}; each axis must be (parameter, first, last, count).")
    parameter, first, last, count = value
    count = require_count(f"{name} of {parameter}", count, 2)
    ends = require_number(f"{name} of {parameter}", first), require_number(f"{name} of {parameter}", last)
    if ends[0] == ends[1]:
        raise InputError(f"{name} gives {parameter} {count} values from {first:g} to {last:g}; they must differ.")
    return str(parameter), *ends, count


def whole_blocks(least: int) -> Check:
    """A number of particles in whole blocks of 1,024, ``least`` blocks or more."""

    def check(name: str, value: Any) -> int:
        count = require_count(name, value, least * int(BLOCK), specs.MOST_PARTICLES)
        if count % BLOCK:
            raise InputError(f"{name} is {count}; it must be a multiple of {BLOCK}.")
        return count

    return check


def axes(name: str, value: Any) -> tuple[Axis, ...]:
    """The axes of a grid; one alone is taken for a grid of one."""
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__") or getattr(value, "ndim", 1) == 0:
        raise InputError(f"{name} is {short(value)}; it must hold axes (parameter, first, last, count).")
    found = tuple(value)
    if found and isinstance(found[0], str):
        found = (found,)
    return tuple(axis(name, one) for one in found)


@dataclass(frozen=True)
class Metric(PotentialSpec):
    """g, zeta and tau^r of a potential at a point or over a grid.  Its fields are the parameters of `measure`.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "metric"
    shared = True
    runner = "thermorun.metric.points"

    potential: Annotated[str | Potential, specs.POTENTIAL] = "trap"
    theta: Annotated[
        Point | None, Parameter(several(specs.number), "where to measure; by default the potential's own point")
    ] = None
    grid: Annotated[
        tuple[Axis, ...],
        Parameter(axes, "axes (parameter, first, last, count): all combinations, the other parameters as in theta"),
    ] = ()
    beta: Annotated[float, specs.BETA] = 1.0
    mobility: Annotated[float, specs.MOBILITY] = 1.0
    dt: Annotated[
        float | None,
        Parameter(specs.positive, "time step; by default 1/20 of the fastest relaxation time, point by point", "time"),
    ] = None
    integrator: Annotated[
        str, Parameter(specs.Choice(*INTEGRATORS), "of the trajectories; exact for quadratic potentials alone")
    ] = "heun"
    precision: Annotated[str, specs.PRECISION] = "float64"
    particles: Annotated[int, Parameter(whole_blocks(FEWEST_BLOCKS), "at each point, in blocks of 1,024")] = 32768
    fingerprint: Annotated[str | None, specs.FINGERPRINT] = None

    @property
    def blocks(self) -> int:
        """Blocks of particles at a point."""
        return self.particles // int(BLOCK)

    def resolved(self) -> Self:
        """With theta and fingerprint set; everything is checked against the potential."""
        found, system = self.identified()
        potential = system.potential
        theta = potential.theta if self.theta is None else self.theta
        found = found.replace(theta=tuple(potential.require_valid(theta, "theta").tolist()))
        system.coefficients(self.integrator, 1.0, np.array([theta], float))
        found._check_grid(potential)
        points = found.points(potential)
        found.check_at((points[0], points[-1]))
        for point in points:
            found.require_step(system, point)
        return found

    def _check_grid(self, potential: Potential) -> None:
        names = [name for name, *_ in self.grid]
        for name in names:
            if name not in potential.parameters or names.count(name) > 1:
                raise InputError(
                    f"grid names {name!r}; it must name each parameter once at most, of"
                    f" {', '.join(potential.parameters)}."
                )
        potential.require_valid(self.points(potential), "grid")

    def points(self, potential: Potential) -> Array:
        """Every theta at which the metric is measured, (points, p), of a resolved spec."""
        values = [[value] for value in self.theta or ()]
        for name, first, last, count in self.grid:
            values[potential.parameters.index(name)] = np.linspace(first, last, count).tolist()
        return np.array(list(itertools.product(*values)))

    def step_at(self, system: System, theta: Array) -> float:
        """The time step at a point."""
        return system.time_step(theta) if self.dt is None else self.dt

    def require_step(self, system: System, theta: Array) -> None:
        """Raises InputError for a step that does not follow the fastest relaxation at a point, or never sees it end."""
        if self.dt is None or self.integrator == "exact":
            return
        fastest = system.time_step(theta)
        most, least = _LONGEST * fastest, _SHORTEST * fastest
        if self.dt > most * (1 + 1e-9):  # one that was computed from the same numbers is not refused
            raise InputError(
                f"dt is {self.dt:g}, too long for {self.integrator}: the fastest relaxation of"
                f" {system.potential.name} at theta = {words(theta.tolist())} asks for at most {most:.3g}."
            )
        if self.dt < least:
            raise InputError(
                f"dt is {self.dt:g}, too short: the longest trajectories that are tried would end before ten of the"
                f" fastest relaxations of {system.potential.name} are over; take at least {least:.3g}."
            )

    def file_name(self) -> str:
        at = "" if self.theta is None else "-" + "-".join(f"{value:g}" for value in self.theta)
        over = "".join(f"-{name}" for name, *_ in self.grid)
        return f"metric-{self.potential_name}{at}{over}-seed{self.seed}"


@dataclass(frozen=True)
class Drive(Metric):
    """Protocols from ``theta`` to ``end``, beside the metric at ``theta`` or over a grid.

    Its fields are the parameters of `drive`.  Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "metric-drive"
    runner = "thermorun.metric.protocols"

    end: Annotated[Point, Parameter(several(specs.number), "theta at the end of the protocols")] = (1.0,)
    taus: Annotated[
        tuple[float, ...] | None,
        Parameter(
            several(specs.positive), "durations; by default 4, 8, 16, 32 of the longest relaxation time there", "time"
        ),
    ] = None
    work_particles: Annotated[int, Parameter(whole_blocks(1), "driven along each protocol, in blocks of 1,024")] = 2**18

    def resolved(self) -> Self:
        system = self.system
        potential, found = system.potential, super().resolved()
        end = tuple(potential.require_valid(self.end, "end").tolist())
        if end == found.theta:
            raise InputError(f"end is {words(end)}, which is theta itself; it must be another point.")
        found.check_at([end])
        potential.require_valid(np.linspace(found.start, end, 65), "the straight line from theta to end")
        for point in np.linspace(found.start, end, 5):
            found.require_step(system, point)
        return found

    @property
    def start(self) -> Point:
        """``theta`` of a resolved spec."""
        return self.theta or ()

    def file_name(self) -> str:
        to = "-".join(f"{value:g}" for value in self.end)
        return f"{super().file_name().rpartition('-seed')[0]}-to-{to}-seed{self.seed}"
