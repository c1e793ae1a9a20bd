"""What a run along a path is: everything that decides its numbers, and nothing else."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from thermorun import specs
from thermorun.arrays import Array
from thermorun.errors import InputError, words
from thermorun.learning.data import sample
from thermorun.potentials import INTEGRATORS, Potential, PotentialSpec, System
from thermorun.specs import Parameter, several

Row = tuple[float, ...]
_MOST_STEPS = 10**8
_FEWEST_STEPS = 50
_TAU = 5.0


def _path(name: str, value: Any) -> tuple[Row, ...]:
    """Rows of time and theta, or a file of them."""
    if isinstance(value, str | FilePath):
        read = sample(name, value)
        value = () if read.x is None else read.x.tolist()
    rows: tuple[Row, ...] = several(several(specs.number, 2), 2)(name, value)
    if len({len(row) for row in rows}) > 1:
        raise InputError(f"{name} holds rows of different lengths; each must be a time and all of theta.")
    times = np.array([row[0] for row in rows])
    if times[0] != 0 or times[-1] <= 0 or np.any(np.diff(times) < 0):
        raise InputError(f"{name} has times {words(times)}; they must ascend from 0, and repeat only for a jump.")
    return rows


@dataclass(frozen=True)
class Drive(PotentialSpec):
    """An ensemble of any potential that is driven along a path of theta.  Its fields are the parameters of `drive`.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "drive"
    runner = "thermorun.learning.driven.run"

    potential: Annotated[str | Potential, specs.POTENTIAL] = "double-well"
    path: Annotated[
        tuple[Row, ...] | None,
        Parameter(
            _path,
            "rows of time and theta, linear between, a repeated time is a jump; or a file of them (.csv, .npy, .npz);"
            " by default straight from the potential's theta to its target",
        ),
    ] = None
    tau: Annotated[
        float | None,
        Parameter(
            specs.positive, "duration, to which the times of the path are stretched; by default theirs, or 5", "time"
        ),
    ] = None
    particles: Annotated[int, Parameter(specs.count(2, specs.MOST_PARTICLES), "independent")] = 100_000
    steps: Annotated[
        int | None,
        Parameter(specs.count(1, _MOST_STEPS), "relaxations; by default 20 in the fastest relaxation time"),
    ] = None
    beta: Annotated[float, specs.BETA] = 1.0
    mobility: Annotated[float, specs.MOBILITY] = 1.0
    integrator: Annotated[
        str | None,
        Parameter(specs.Choice(*INTEGRATORS), "by default exact for quadratic potentials, else heun"),
    ] = None
    precision: Annotated[str, specs.PRECISION] = "float64"
    fingerprint: Annotated[str | None, specs.FINGERPRINT] = None

    def resolved(self) -> Self:
        """With path, duration, steps, integrator and fingerprint set; all is checked against the potential."""
        found, system = self.identified()
        potential = system.potential
        rows = np.array(self.path if self.path is not None else self._straight(potential))
        if rows.shape[1] != 1 + len(potential.parameters):
            raise InputError(
                f"path has rows of {rows.shape[1]} numbers; for {potential.name} each must be a time and"
                f" {', '.join(potential.parameters)}."
            )
        potential.require_valid(rows[:, 1:], "path")
        tau = float(rows[-1, 0]) if self.tau is None else self.tau
        rows[:, 0] *= tau / rows[-1, 0]
        rows[-1, 0] = tau
        system.coefficients(str(found.integrator), 1.0, rows[:1, 1:])
        steps = self.steps or _default_steps(system, rows)
        return found.replace(path=tuple(map(tuple, rows.tolist())), tau=tau, steps=steps)

    def _straight(self, potential: Potential) -> tuple[Row, Row]:
        if potential.target is None:
            raise InputError(f"path is not given, and {potential.name} has no target; give a path.")
        return (0.0, *potential.theta), (self.tau or _TAU, *potential.target)


def staircase(rows: ArrayLike, steps: int) -> tuple[Array, Array]:
    """theta before the first jump and after each, (n + 2, p), and the waits between the jumps, (n,).

    Each smooth piece of the path, from jump to jump, is cut into equal waits, with theta in the middle of each: an
    error of second order in the wait.  ``steps`` are shared out by the pieces' durations, at least one each.
    """
    rows = np.asarray(rows, float)
    cuts = [0, *(np.flatnonzero(np.diff(rows[:, 0]) == 0) + 1).tolist(), len(rows)]
    stairs, waits = [rows[:1, 1:]], []
    for first, last in itertools.pairwise(cuts):
        piece = rows[first:last]
        length = piece[-1, 0] - piece[0, 0]
        if length == 0:  # a jump in several steps, which is one
            continue
        count = max(1, round(steps * length / rows[-1, 0]))
        times = piece[0, 0] + length * (np.arange(count) + 0.5) / count
        stairs.append(np.stack([np.interp(times, piece[:, 0], column) for column in piece[:, 1:].T], axis=1))
        waits.append(np.full(count, length / count))
    return np.concatenate([*stairs, rows[-1:, 1:]]), np.concatenate(waits)


def _default_steps(system: System, rows: Array) -> int:
    corners = rows[:: max(1, len(rows) // 64), 1:]
    dt = min(system.time_step(theta) for theta in [*corners, *(0.5 * (corners[1:] + corners[:-1])), rows[-1, 1:]])
    steps = max(float(_FEWEST_STEPS), math.ceil(rows[-1, 0] / dt))
    if steps > _MOST_STEPS:
        raise InputError(
            f"tau is {rows[-1, 0]:g} and the fastest relaxation time {20 * dt:.3g}, which takes {steps:.2g} steps;"
            " shorten tau."
        )
    return int(steps)
