"""Runs an ensemble along a path, row of particles by row."""

import math
import time as clock
from pathlib import Path
from typing import Any

import numpy as np

from thermokernels import random
from thermorun import potentials, streams
from thermorun.arrays import Array
from thermorun.estimates import Estimate
from thermorun.learning.driven import exact
from thermorun.learning.driven.result import DriveResult
from thermorun.learning.driven.spec import Drive, Row, staircase
from thermorun.potentials import Potential, System, dynamics
from thermorun.results import origin
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import Axis, RunFile, Variable
from thermorun.streams import Noise

# Particles of a row of the file: enough of them to keep threads busy, few enough to finish soon after Ctrl-C.
_ROW = 2**15
# A kernel call takes about this many particle-steps.
_CALL = 2**26


@documented(Drive)
def drive(
    potential: str | Potential = "double-well",
    path: tuple[Row, ...] | None = None,
    tau: float | None = None,
    particles: int = 100_000,
    steps: int | None = None,
    beta: float = 1.0,
    mobility: float = 1.0,
    integrator: str | None = None,
    precision: str = "float64",
    fingerprint: str | None = None,
    seed: int = 0,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> DriveResult:
    """Work of driving any potential along a path of theta, from equilibrium, and the excess over Delta F.

    Parameters
    ----------
    {parameters}

    Returns
    -------
    DriveResult
        Every particle's work, their mean, Delta F by closed form or quadrature, the excess work, and its exact value:
        by Gaussian moments for quadratic potentials, by the Fokker-Planck equation in one dimension.

    Raises
    ------
    InputError
        Before any work, for input that cannot run.
    RunError
        For a run that cannot go on.
    Stopped
        After Ctrl-C (a KeyboardInterrupt), with all complete rows saved.

    Examples
    --------
    >>> from thermorun import learning
    >>> out_and_back = ((0, 1.0), (1, 3.0), (2, 1.0))
    >>> result = learning.drive("stiffness", out_and_back, particles=4096)
    >>> result.delta_f
    0.0
    >>> abs(result.excess_work.z(result.exact_excess_work)) < 4
    True
    """
    spec = Drive(**given(Drive, locals()))
    result: DriveResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress)
    return result


def run(spec: Drive, under_way: Session) -> DriveResult:
    """Runs a spec: see `drive`."""
    spec = spec.resolved()
    under_way.require_memory(spec.particles * 8 * 6, f"particles is {spec.particles}")
    system = spec.system
    rows = np.array(spec.path)
    for theta in (rows[0, 1:], rows[-1, 1:]):
        potentials.check(system.potential, theta)
    stairs, waits = staircase(rows, int(spec.steps or 0))
    system.potential.require_valid(stairs, "path")
    x = dynamics.one_particle(system.potential, spec.precision)
    system.drive(x, stairs[:2], dt=0.0, integrator=str(spec.integrator))  # compiles, or loads from the cache
    file = under_way.open(spec, lambda file: _lay_out(file, spec, system))
    under_way.stage("drive", spec.particles * len(waits), "steps")
    done = file.committed("particles")
    under_way.advance(min(done * _ROW, spec.particles) * len(waits))
    for row in range(done, _rows(spec)):
        file.write("particles", row, _row(spec, system, stairs, waits, row, under_way))
    return read(file, spec)


def read(file: RunFile, spec: Drive) -> DriveResult:
    """The results in a file, of the rows that are complete."""
    rows, stored = file.committed("particles"), file.read("particles")
    each, heat = (stored[name][:rows].ravel()[: spec.particles] for name in ("work", "heat"))
    seconds, count = float(np.sum(stored["seconds"][:rows])), len(each)
    spread = float(np.std(heat, ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    mean_heat = Estimate(float(np.mean(heat)) if count else math.nan, spread, dof=max(count - 1.0, 1.0))
    noted = {name: file.noted(name) for name in ("delta_f", "exact_work")}
    known: dict[str, Any] = {name: None if value is None else float(value) for name, value in noted.items()}
    return DriveResult(
        **origin(file, spec), work_of_each=each, heat=mean_heat,
        first_law_residual=float(np.max(stored["first_law_residual"][:rows], initial=0.0)),
        particle_steps_per_second=count * int(spec.steps or 0) / seconds if seconds else math.nan,
        exact_from=file.noted("exact_from"), **known,
    )  # fmt: skip


def _rows(spec: Drive) -> int:
    return -(-spec.particles // _ROW)


def _row(
    spec: Drive, system: System, stairs: Array, waits: Array, row: int, under_way: Session
) -> dict[str, Array]:  # fmt: skip
    """Works and heats of one row's particles, the largest |dE - W - Q|, and the time it took."""
    began = clock.perf_counter()
    potential = system.potential
    wanted = min(_ROW, spec.particles - row * _ROW)
    # Noise comes in whole blocks, and equilibrium is judged by the spread of the particles: one would not do.
    count = -(-wanted // random.BLOCK) * random.BLOCK
    noise = Noise.of(streams.learn(spec.seed, "dynamics", "a prescribed path")).row(row, potential.dimension)
    dt = np.append(waits, 0.0)
    x = system.equilibrium(stairs[0], count, precision=spec.precision, seed=noise)
    before = potential.energies(x[0].T, stairs[0])
    driven: Any = x
    length = max(1, _CALL // count)
    for first in range(0, len(dt), length):
        part = slice(first, first + length)
        here = stairs[first : first + length + 1]
        driven = system.drive(driven, here, dt=dt[part], integrator=str(spec.integrator), seed=noise)
        under_way.advance(wanted * (len(dt[part]) - (first + length >= len(dt))))
        under_way.pause()
    change = (potential.energies(driven.x[0].T, stairs[-1]) - before)[:wanted]
    work, heat = np.full((2, 1, _ROW), np.nan)
    work[0, :wanted], heat[0, :wanted] = driven.work[0, :wanted], driven.heat[0, :wanted]
    return {
        "work": work,
        "heat": heat,
        "first_law_residual": np.array([np.max(np.abs(change - (work + heat)[0, :wanted]))]),
        "seconds": np.array([clock.perf_counter() - began]),
    }


def _lay_out(file: RunFile, spec: Drive, system: System) -> None:
    path = np.array(spec.path)
    delta_f, known = exact.free_energy_difference(system, path[0, 1:], path[-1, 1:]), exact.mean_work(system, path)
    if delta_f is not None:
        file.note(delta_f=delta_f)
    if known is not None:
        file.note(exact_work=known[0], exact_from=known[1])
    row = Axis("row", np.arange(_rows(spec)), "1", f"independent groups of {_ROW} particles")
    particle = Axis("particle", np.arange(_ROW), "1", "particle of a row; in the last row some may be missing (NaN)")
    each = [Variable(name, ("row", "particle"), "energy", f"{name} of each particle") for name in ("work", "heat")]
    more = [
        Variable("first_law_residual", ("row",), "energy", "largest |dE - W - Q| of any particle"),
        Variable("seconds", ("row",), "s", "time that the row took"),
    ]
    file.add_section("particles", [row, particle], each + more)
    file.publish({"particles": _rows(spec)})
