"""What a run along a path is: everything that decides its numbers, and nothing else."""

from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any, Self

import numpy as np

from thermorun import specs
from thermorun.arrays import Array
from thermorun.errors import InputError
from thermorun.learning.data import TEXT, sample
from thermorun.potentials import INTEGRATORS, Potential, PotentialSpec, System
from thermorun.potentials.staircase import Row, path_rows
from thermorun.specs import Parameter, several
from thermorun.textfiles import headings

# Particles of a row of the file: enough of them to keep threads busy, few enough to finish soon after Ctrl-C.
ROW = 2**15
_MOST_STEPS = 10**8
_FEWEST_STEPS = 50
_TAU = 5.0
_TEMPERATURE = "kT"


def _path(name: str, value: Any) -> Any:
    """Rows of time and theta; a file of them is read with the column of kT that it may have, by ``validate``."""
    if isinstance(value, str | FilePath):
        return FilePath(value)
    return path_rows(name, value)


@dataclass(frozen=True)
class Drive(PotentialSpec):
    """An ensemble of any potential that is driven along a path of theta.  Its fields are the parameters of `drive`.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "drive"
    runner = "thermorun.learning.driven.run"
    shared = True
    grows = ("particles",)
    parts = "row"

    potential: Annotated[str | Potential, specs.POTENTIAL] = "double-well"
    path: Annotated[
        tuple[Row, ...] | None,
        Parameter(
            _path,
            "rows of time and theta, linear between, a repeated time is a jump; or a file of them (.csv, .npy, .npz),"
            " where a column headed kT is that; by default straight from the potential's theta to its target",
        ),
    ] = None
    kT: Annotated[
        tuple[float, ...] | None,
        Parameter(
            several(specs.positive, 2),
            "of the bath at each row of the path, linear between; by default 1/beta throughout",
            "energy",
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
    at: Annotated[
        tuple[float, ...],
        Parameter(
            several(specs.not_negative, 0),
            "times at which histograms of x are taken, each at the end of the step that is nearest",
            "time",
        ),
    ] = ()
    bins: Annotated[int, Parameter(specs.count(1, 2**16), "of a histogram")] = 100
    snapshots: Annotated[
        int,
        Parameter(specs.count(0, ROW), "particles, the first ones, of which x is kept at the times of the histograms"),
    ] = 0
    fingerprint: Annotated[str | None, specs.FINGERPRINT] = None

    def validate(self) -> None:
        if isinstance(self.path, FilePath):
            self._read(self.path)
        rows = 2 if self.path is None else len(self.path)
        if self.kT is not None and len(self.kT) != rows:
            raise InputError(f"kT holds {len(self.kT)} values; it must hold one for each of the path's {rows} rows.")
        if self.kT is not None and self.beta not in (1.0, 1 / self.kT[0]):
            raise InputError(f"beta is {self.beta:g} and kT begins at {self.kT[0]:g}; leave one of them out.")
        if self.snapshots and not self.at:
            raise InputError(f"snapshots is {self.snapshots}; it needs at, the times at which they are taken.")
        if self.snapshots > self.particles:
            raise InputError(f"snapshots is {self.snapshots} and particles {self.particles}; there are not so many.")

    def _read(self, file: FilePath) -> None:
        """Puts the rows of a file in the place of its name, and its column of kT where that belongs."""
        read = sample("path", file)
        names = headings("path", file) if file.suffix.lower() in TEXT else []
        table = np.empty((0, 0)) if read.x is None else read.x
        if _TEMPERATURE in names:
            if self.kT is not None:
                raise InputError(f"kT is given, and path is {file}, which has a column of it; leave one of them out.")
            place = names.index(_TEMPERATURE)
            values = tuple(table[:, place].tolist())
            object.__setattr__(self, "kT", several(specs.positive, 2)(f"kT in {file}", values))
            table = np.delete(table, place, axis=1)
        object.__setattr__(self, "path", _path("path", table.tolist()))

    def resolved(self) -> Self:
        """With path, duration, steps, integrator and fingerprint set; all is checked against the potential."""
        spec = self if self.kT is None else self.replace(beta=1 / self.kT[0])
        found, system = spec.identified()
        potential = system.potential
        rows = np.array(self.path if self.path is not None else self._straight(potential))
        if rows.shape[1] != 1 + len(potential.parameters):
            raise InputError(
                f"path has rows of {rows.shape[1]} numbers; for {potential.name} each must be a time and"
                f" {', '.join(potential.parameters)}; in a file a column of temperatures is headed kT."
            )
        potential.require_valid(rows[:, 1:], "path")
        tau = float(rows[-1, 0]) if self.tau is None else self.tau
        rows[:, 0] *= tau / rows[-1, 0]
        rows[-1, 0] = tau
        late = [time for time in self.at if time > tau]
        if late:
            raise InputError(f"at holds {late[0]:g}; it must be within tau, which is {tau:g}.")
        system.coefficients(str(found.integrator), 1.0, rows[:1, 1:])
        found.check_at((rows[0, 1:], rows[-1, 1:]))
        hottest = System(potential, 1 / max(self.kT or (1 / system.beta,)), system.mobility)
        steps = self.steps or _default_steps(hottest, rows)
        return found.replace(path=tuple(map(tuple, rows.tolist())), tau=tau, steps=steps)

    def _straight(self, potential: Potential) -> tuple[Row, Row]:
        if potential.target is None:
            raise InputError(f"path is not given, and {potential.name} has no target; give a path.")
        return (0.0, *potential.theta), (self.tau or _TAU, *potential.target)

    @property
    def rows(self) -> Array:
        """Time, theta and kT along the path, (rows, p + 2), of a resolved spec."""
        path = np.array(self.path)
        temperature = np.full(len(path), 1 / self.beta) if self.kT is None else np.array(self.kT)
        return np.column_stack([path, temperature])


def _default_steps(system: System, rows: Array) -> int:
    corners = rows[:: max(1, len(rows) // 64), 1:]
    dt = min(system.time_step(theta) for theta in [*corners, *(0.5 * (corners[1:] + corners[:-1])), rows[-1, 1:]])
    steps = max(float(_FEWEST_STEPS), np.ceil(rows[-1, 0] / dt))
    if steps > _MOST_STEPS:
        raise InputError(
            f"tau is {rows[-1, 0]:g} and the fastest relaxation time {20 * dt:.3g}, which takes {steps:.2g} steps;"
            " shorten tau."
        )
    return int(steps)
