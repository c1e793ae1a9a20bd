"""What a search for a protocol is: everything that decides its numbers, and nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np

from thermokernels.random import BLOCK
from thermorun import specs
from thermorun.arrays import Array
from thermorun.errors import InputError, words
from thermorun.potentials import Potential, PotentialSpec, System
from thermorun.potentials.gradients import INTEGRATORS, kernels
from thermorun.potentials.staircase import Row, path_rows
from thermorun.protocol.objectives import NAMES, WORK
from thermorun.specs import Parameter, several
from thermorun.textfiles import read_table

Point = tuple[float, ...]
_MOST_STEPS, _FEWEST_STEPS = 10**6, 100
# Knots of the first round; each round has twice the intervals of the last, and twice its particles.
_FIRST = 3
# Rounds at the finest knots: the last one starts from what the others found, on noise of its own.
_AGAIN = 2
# Antithetic pairs come in whole blocks.
_PAIR = 2 * int(BLOCK)


def _guess(name: str, value: Any) -> tuple[Row, ...]:
    """Rows of time and theta, or a text file of them."""
    return path_rows(name, read_table(name, Path(value)) if isinstance(value, str | Path) else value)


def _knots(name: str, value: Any) -> int:
    count = specs.count(_FIRST, 1025)(name, value)
    if (count - 1) & (count - 2):
        raise InputError(f"{name} is {count}; it must be one more than a power of two, as in 9, 17 or 33.")
    return int(count)


@dataclass(frozen=True)
class Protocol(PotentialSpec):
    """A search for the path of theta between two points that is best for an objective.

    Its fields are the parameters of `find`.  Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "protocol"
    runner = "thermorun.protocol.run"
    shared = True

    potential: Annotated[str | Potential, specs.POTENTIAL] = "trap"
    start: Annotated[
        Point | None, Parameter(several(specs.number), "theta at the start; by default the potential's own")
    ] = None
    end: Annotated[
        Point | None, Parameter(several(specs.number), "theta at the end; by default the potential's own target")
    ] = None
    tau: Annotated[float, Parameter(specs.positive, "from the start to the end", "time")] = 1.0
    objective: Annotated[
        str,
        Parameter(
            specs.Choice(*NAMES),
            "what is made small: the mean work; the variance of exp(-W/kT), for free energies; or the distance of where"
            " particles end from equilibrium at the end, the target",
        ),
    ] = WORK
    guess: Annotated[
        tuple[Row, ...] | None,
        Parameter(
            _guess,
            "where the search begins: rows of time and theta, or a text file of them, as a geodesic's; its times are"
            " stretched to tau; by default the straight line",
        ),
    ] = None
    knots: Annotated[
        int, Parameter(_knots, "between which theta runs straight, in the last rounds: 2^k + 1, densest at the ends")
    ] = 17
    steps: Annotated[
        int | None,
        Parameter(specs.count(1, _MOST_STEPS), "relaxations; by default 20 in the fastest relaxation time, or 100"),
    ] = None
    search_particles: Annotated[
        int,
        Parameter(
            specs.count(4 * int(BLOCK), specs.MOST_PARTICLES),
            "of the last round, in antithetic pairs; earlier take fewer",
        ),
    ] = 2**16
    iterations: Annotated[int, Parameter(specs.count(1, 10_000), "of L-BFGS in each round, at most")] = 100
    particles: Annotated[
        int,
        Parameter(
            specs.count(2 * int(BLOCK), specs.MOST_PARTICLES),
            "that measure each path in the end, on noise of their own; made whole blocks of 1,024",
        ),
    ] = 2**17
    beta: Annotated[float, specs.BETA] = 1.0
    mobility: Annotated[float, specs.MOBILITY] = 1.0
    integrator: Annotated[
        str | None,
        Parameter(specs.Choice(*INTEGRATORS), "by default exact for quadratic potentials, else heun"),
    ] = None
    precision: Annotated[str, specs.PRECISION] = "float64"
    fingerprint: Annotated[str | None, specs.FINGERPRINT] = None

    def resolved(self) -> Self:
        """With ends, steps, integrator and fingerprint set; everything is checked against the potential."""
        found, system = self.identified()
        potential = system.potential
        found = found.replace(**found._ends(potential))
        for name in ("start", "end"):
            potential.require_valid(getattr(found, name), name)
        kernels(potential, str(found.integrator))
        if found.guess is not None and len(found.guess[0]) != 1 + len(potential.parameters):
            raise InputError(
                f"guess has rows of {len(found.guess[0])} numbers; for {potential.name} each must be a time and"
                f" {', '.join(potential.parameters)}."
            )
        line = found.line(np.linspace(0.0, 1.0, 9))
        potential.require_valid(line, "the straight line")
        if found.guess is not None:
            potential.require_valid(np.array(found.guess)[:, 1:], "guess")
        system.coefficients(str(found.integrator), 1.0, line[:1])
        found.check_at(found.ends)
        steps = found.steps or _default_steps(system, found.tau, line)
        if steps < found.knots:
            raise InputError(f"steps is {steps}; with {found.knots} knots it must be at least as many.")
        whole = {
            "search_particles": -(-found.search_particles // _PAIR) * _PAIR,
            "particles": -(-found.particles // int(BLOCK)) * int(BLOCK),
        }
        return found.replace(steps=steps, **whole)

    def _ends(self, potential: Potential) -> dict[str, Point]:
        start = potential.theta if self.start is None else self.start
        end = potential.target if self.end is None else self.end
        if end is None:
            raise InputError(f"end is not given, and {potential.name} has no target; give one.")
        if start == end:
            raise InputError(f"start is {words(start)} and end is the same; they must differ.")
        return {"start": start, "end": end}

    @property
    def ends(self) -> tuple[Array, Array]:
        """theta at the start and at the end, of a resolved spec."""
        return np.array(self.start, float), np.array(self.end, float)

    def line(self, s: Array) -> Array:
        """theta (n, p) on the straight line at shares s of tau."""
        first, last = self.ends
        return np.asarray(first + np.multiply.outer(s, last - first))

    def first(self, s: Array) -> Array:
        """theta (n, p) of the guess at shares s of tau, between the jumps at its ends."""
        if self.guess is None:
            return self.line(s)
        rows = np.array(self.guess)
        inside = np.clip(s, 1e-9, 1 - 1e-9) * rows[-1, 0]
        return np.stack([np.interp(inside, rows[:, 0], column) for column in rows[:, 1:].T], axis=1)

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """Knots and particles of each round, coarse to fine."""
        counts = [_FIRST]
        while counts[-1] < self.knots:
            counts.append(2 * counts[-1] - 1)
        counts += [self.knots] * (_AGAIN - 1)
        sizes = [(self.search_particles >> (len(counts) - 1 - n)) // _PAIR * _PAIR for n in range(len(counts))]
        return [(one, max(2 * _PAIR, size)) for one, size in zip(counts, sizes, strict=True)]

    @property
    def paths(self) -> Iterator[str]:
        """Names of the paths that are measured."""
        yield "straight line"
        if self.guess is not None:
            yield "guess"
        yield "found"


def _default_steps(system: System, tau: float, line: Array) -> int:
    steps = max(float(_FEWEST_STEPS), np.ceil(tau / min(system.time_step(point) for point in line)))
    if steps > _MOST_STEPS:
        raise InputError(f"tau is {tau:g}, which takes {steps:.2g} steps; shorten it, or give steps.")
    return int(steps)
