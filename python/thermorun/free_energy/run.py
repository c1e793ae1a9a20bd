"""Free-energy differences of any potential, from ensembles that are driven between two parameter points and back.

Forward particles start in equilibrium at ``start`` and theta goes to ``end`` along a path; reverse ones start in
equilibrium at ``end`` and theta goes back.  Jumps of theta at fixed x and relaxations at fixed theta alternate, and the
reverse has those of the forward in the opposite order: then Crooks' relation holds for steps of any size, as long as
each relaxation alone is in detailed balance.  The exact integrator's are; Heun's are to second order in dt.
"""

import math
import time as clock
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from thermokernels import random
from thermorun import streams
from thermorun.arrays import Array
from thermorun.cluster import UnderWay
from thermorun.free_energy.estimators import ESTIMATORS
from thermorun.free_energy.result import FreeEnergyResult
from thermorun.free_energy.spec import DIRECTIONS, FreeEnergy, default_steps, thetas
from thermorun.potentials import Potential, System, dynamics, quadrature
from thermorun.results import origin
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import Axis, RunFile, Variable

# Particles of a row of the file: enough of them to keep threads busy, few enough to finish soon after Ctrl-C.
_ROW = 2**15
# A kernel call takes about this many particle-steps.
_CALL = 2**26
_TABLE = {
    "delta_f": ("energy", "Delta F = F(end) - F(start)"),
    "delta_f_stderr": ("energy", "its standard error; NaN where the works do not tell it"),
    "effective_works": ("1", "works that the estimate rests on"),
    "bias": ("energy", "expected error of the mean, where it is known to matter"),
}


@documented(FreeEnergy)
def measure(
    potential: str | Potential = "double-well",
    start: tuple[float, ...] | None = None,
    end: tuple[float, ...] | None = None,
    duration: float = 2.0,
    steps: int | None = None,
    particles: int = 100_000,
    beta: float = 1.0,
    mobility: float = 1.0,
    integrator: str | None = None,
    precision: str = "float64",
    path: tuple[tuple[float, ...], ...] | None = None,
    fingerprint: str | None = None,
    seed: int = 0,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> FreeEnergyResult:
    """Delta F = F(end) - F(start), F = -ln Z / beta, from works of forward and reverse ensembles.

    With ``out`` the works stream to that HDF5 file, a row for every 32,768 particles.

    Parameters
    ----------
    {parameters}

    Returns
    -------
    FreeEnergyResult
        Every particle's work, and Delta F by Bennett's acceptance ratio (1976), the crossing of Crooks (1999) and
        Jarzynski (1997) both ways, beside the exact value where it is known.

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
    >>> from thermorun import free_energy
    >>> result = free_energy.measure("stiffness", start=1.0, end=3.0, duration=0.5, particles=4096)
    >>> abs(result.delta_f.z(result.exact)) < 4
    True
    """
    spec = FreeEnergy(**given(FreeEnergy, locals()))
    result: FreeEnergyResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress)
    return result


def run(spec: FreeEnergy, under_way: Session) -> FreeEnergyResult:
    """Runs a spec: see `measure`."""
    spec = spec.resolved()
    # Two directions, their works in kT, and what the estimators make of them.
    mine = len(under_way.part(_rows(spec))) / _rows(spec)
    under_way.require_memory(mine * 2 * spec.particles * 10 * 8, f"particles is {spec.particles}")
    system = spec.system
    _compile(spec, system)
    file = under_way.open(spec, lambda file: _lay_out(file, spec, system))
    under_way.stage("free energy", round(mine * 2 * spec.particles * int(spec.steps or 0)), "steps")
    for direction in DIRECTIONS:
        under_way.advance(min(file.committed(direction) * _ROW, spec.particles) * int(spec.steps or 0))
        rows = file.missing(direction)
        for row, works in zip(rows, under_way.each(partial(_row, spec, system, direction), rows), strict=True):
            file.write(direction, row, works)
    under_way.end_of_shard()
    result = read(file, spec)
    for index, one in enumerate(result.analysis.results):
        values = (one.delta_f.mean, one.delta_f.stderr, one.effective, math.nan if one.bias is None else one.bias)
        file.write_entry("/", index, dict(zip(_TABLE, values, strict=True)))
    return result if file.path else replace(result, stored=file.contents())


def read(file: RunFile, spec: FreeEnergy) -> FreeEnergyResult:
    """The results in a file, of the rows that are complete."""
    works, residual, seconds, steps = [], 0.0, 0.0, 0
    for direction in DIRECTIONS:
        rows, stored = file.committed(direction), file.read(direction)
        works.append(stored["work"][:rows].ravel()[: spec.particles])
        residual = max(residual, float(np.max(stored["first_law_residual"][:rows], initial=0.0)))
        seconds += float(np.sum(stored["seconds"][:rows]))
        steps += len(works[-1]) * int(spec.steps or 0)
    return FreeEnergyResult(
        **origin(file, spec), forward=works[0], reverse=works[1], first_law_residual=residual,
        exact=file.noted("exact", float), exact_from=file.noted("exact_from"),
        usual_steps=file.noted("usual_steps", int),
        particle_steps_per_second=steps / seconds if seconds else math.nan,
    )  # fmt: skip


def extended(spec: FreeEnergy, smaller: FreeEnergy) -> dict[str, int]:
    """Rows of each section that are the same with more particles."""
    return dict.fromkeys(DIRECTIONS, smaller.particles // _ROW)


def exact_delta_f(
    potential: Potential, start: ArrayLike, end: ArrayLike, beta: float
) -> tuple[float, str] | tuple[None, None]:
    """F(end) - F(start), F = -ln Z / beta, and how it is known: closed form, quadrature (one dimension), or not."""
    ends = [tuple(potential.require_valid(point).tolist()) for point in (start, end)]
    if potential.free_energy is not None:
        first, last = (potential.free_energy(point, beta) for point in ends)
        return last - first, "closed form"
    if potential.dimension > 1:
        return None, None
    try:
        side = potential.domain.sides[0]
        first, last = (quadrature.free_energy(potential.energies, point, beta=beta, domain=side) for point in ends)
    except quadrature.NotConverged:
        return None, None
    return last - first, "quadrature"


def _rows(spec: FreeEnergy) -> int:
    return -(-spec.particles // _ROW)


def _row(spec: FreeEnergy, system: System, direction: str, row: int, under_way: UnderWay) -> dict[str, Array]:
    """Works of one row's particles, their mean heat, the largest |dE - W - Q|, and the time it took."""
    began = clock.perf_counter()
    potential, steps = system.potential, int(spec.steps or 0)
    wanted = min(_ROW, spec.particles - row * _ROW)
    # Noise comes in whole blocks, and so do particles: those beyond the wanted are left out of the works.
    count = -(-wanted // random.BLOCK) * random.BLOCK
    noise = streams.free_energy(spec.seed, DIRECTIONS.index(direction)).row(row, potential.dimension)
    path = thetas(spec, direction)
    dt = np.append(np.full(steps, spec.duration / steps), 0.0)
    x = system.equilibrium(path[0], count, precision=spec.precision, seed=noise)
    before = potential.energies(x[0].T, path[0])
    driven: Any = x
    length = max(1, _CALL // count)
    for first in range(0, len(dt), length):
        part = slice(first, first + length)
        here = path[first : first + length + 1]
        driven = system.drive(driven, here, dt=dt[part], integrator=str(spec.integrator), seed=noise)
        under_way.advance(wanted * (len(dt[part]) - (first + length >= len(dt))))
        under_way.pause()
    energy_change = (potential.energies(driven.x[0].T, path[-1]) - before)[:wanted]
    work, heat = np.full(_ROW, np.nan), driven.heat[0, :wanted]
    work[:wanted] = driven.work[0, :wanted]
    return {
        "work": work[None],
        "heat": np.array([np.mean(heat)]),
        "first_law_residual": np.array([np.max(np.abs(energy_change - work[:wanted] - heat))]),
        "seconds": np.array([clock.perf_counter() - began]),
    }


def _compile(spec: FreeEnergy, system: System) -> None:
    """Compiles the kernels, or loads them from the cache, so that no timing counts it."""
    x = dynamics.one_particle(system.potential, spec.precision)
    path = thetas(spec)[:2]
    system.drive(x, path, dt=0.0, integrator=str(spec.integrator))
    system.potential.energies(x[0].T, path[0])


def _lay_out(file: RunFile, spec: FreeEnergy, system: System) -> None:
    exact, how = exact_delta_f(system.potential, spec.ends["start"], spec.ends["end"], spec.beta)
    if exact is not None and how is not None:
        file.note(exact=exact, exact_from=how)
    file.note(usual_steps=default_steps(spec, system))
    estimator = Axis("estimator", np.array(ESTIMATORS), "1", "estimator")
    file.add_section("/", [estimator], [Variable(name, ("estimator",), *about) for name, about in _TABLE.items()])
    row = Axis("row", np.arange(_rows(spec)), "1", f"independent groups of {_ROW} particles")
    particle = Axis("particle", np.arange(_ROW), "1", "particle of a row; in the last row some may be missing (NaN)")
    for direction in DIRECTIONS:
        file.add_section(
            direction,
            [row, particle],
            [
                Variable("work", ("row", "particle"), "energy", "work done on each particle"),
                Variable("heat", ("row",), "energy", "mean heat absorbed by a particle"),
                Variable("first_law_residual", ("row",), "energy", "largest |dE - W - Q| of any particle"),
                Variable("seconds", ("row",), "s", "time that the row took"),
            ],
        )
    file.publish(dict.fromkeys(DIRECTIONS, _rows(spec)))
