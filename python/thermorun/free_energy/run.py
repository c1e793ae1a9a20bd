"""Free-energy differences of any potential, from ensembles that are driven between two parameter points and back.

Forward particles start in equilibrium at ``start`` and theta goes to ``end`` along a path; reverse ones start in
equilibrium at ``end`` and theta goes back.  Jumps of theta at fixed x and relaxations at fixed theta alternate, and the
reverse has those of the forward in the opposite order: then Crooks' relation holds for steps of any size, as long as
each relaxation alone is in detailed balance.  The exact integrator's are; Heun's are to second order in dt.
"""

import json
import math
import os
import time as clock
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thermokernels import random
from thermorun.errors import InputError, require_count, require_positive
from thermorun.estimates import Estimate, finite_or_none
from thermorun.free_energy.estimators import ESTIMATORS, WorkAnalysis, analyse_works
from thermorun.potentials import dynamics as simulation
from thermorun.potentials import potential as potentials
from thermorun.potentials import quadrature
from thermorun.potentials.potential import Potential
from thermorun.potentials.quadrature import words
from thermorun.progress import Advance, deferred_interrupt, progress
from thermorun.store import Axis, RunFile, Variable, read_spec, run_file
from thermorun.threads import on_threads

Array = NDArray[np.float64]
Point = tuple[float, ...]

DIRECTIONS = ("forward", "reverse")
# Particles of a row of the file: enough of them to keep threads busy, few enough to finish soon after Ctrl-C.
_ROW = 2**15
# A kernel call takes about this many particle-steps.
_CALL = 2**26
_MOST_STEPS = 10**8
# So many times fewer steps than by default may show in Delta F: with Heun's, twice as many begin to, at a million
# particles (tests/test_free_energy.py).
_FEWER = 8
# Streams of one row; a row has one for each dimension, and those of its start.
_STREAMS = 2**8
_TABLE = {
    "delta_f": ("energy", "Delta F = F(end) - F(start)"),
    "delta_f_stderr": ("energy", "its standard error; NaN where the works do not tell it"),
    "effective_works": ("1", "works that the estimate rests on"),
    "bias": ("energy", "expected error of the mean, where it is known to matter"),
}


@dataclass(frozen=True)
class FreeEnergy:
    """Forward and reverse ensembles between two parameter points: all that decides their numbers.

    ``potential`` is a name (``potentials.NAMES``), ``FILE.py:NAME``, or a ``Potential``.  ``start`` and ``end`` are its
    theta at the ends, ``duration`` the time between them, ``steps`` the number of relaxations (None: 20 in the
    fastest relaxation time on the path, and at least 50); ``particles`` are taken in each direction.  ``beta`` is 1/kT,
    ``mobility`` is mu.  ``integrator`` None is the exact one for quadratic potentials, else Heun's.

    ``path`` (points, p) replaces the straight line: theta at equal times from ``start`` to ``end``, linear between.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    potential: str | Potential = "double-well"
    start: Point = (2.0, 0.0)
    end: Point = (2.0, 2.0)
    duration: float = 2.0
    steps: int | None = None
    particles: int = 100_000
    beta: float = 1.0
    mobility: float = 1.0
    integrator: str | None = None
    precision: str = "float64"
    seed: int = 0
    path: tuple[Point, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("duration", "beta", "mobility"):
            require_positive(name, getattr(self, name))
        require_count("particles", self.particles)
        require_count("seed", self.seed, 0)
        if self.seed >= 2**64:
            raise InputError(f"seed is {self.seed}; it must be below 2^64.")
        if self.precision not in ("float32", "float64"):
            raise InputError(f"precision is {self.precision!r}; it must be one of float32, float64.")
        self._set_ends()
        self._set_path()
        known = self.known
        if self.integrator is None:
            object.__setattr__(self, "integrator", "heun" if known.quadratic is None else "exact")
        if self.steps is None:
            object.__setattr__(self, "steps", self.default_steps())
        require_count("steps", self.step_count)
        if self.step_count > _MOST_STEPS:
            raise InputError(f"steps is {self.steps}; it must be at most {_MOST_STEPS}.")
        known.require_valid(self.thetas(), "path")
        simulation.coefficients(known, str(self.integrator), 1.0, self.beta, self.mobility, np.array([self.start]))

    def _set_ends(self) -> None:
        for name in ("start", "end"):
            point = self.known.require_valid(getattr(self, name), name)
            if point.ndim != 1:
                raise InputError(f"{name} has shape {point.shape}; it must be one point.")
            object.__setattr__(self, name, tuple(point.tolist()))
        if self.start == self.end:
            raise InputError(f"start and end are both {words(self.start)}; they must differ.")

    def _set_path(self) -> None:
        if self.path is None:
            return
        path = np.asarray(self.path, float)
        if path.ndim != 2 or len(path) < 2:
            raise InputError(f"path has shape {path.shape}; it must be two points or more, a row each.")
        self.known.require_valid(path, "path")
        for name, row in (("start", 0), ("end", -1)):
            if not np.allclose(path[row], getattr(self, name), rtol=1e-12, atol=1e-12):
                ends = "begins" if row == 0 else "ends"
                raise InputError(
                    f"path {ends} at {words(path[row].tolist())} and {name} is {words(getattr(self, name))};"
                    " both must be equal."
                )
        object.__setattr__(self, "path", tuple(tuple(point) for point in path.tolist()))

    def default_steps(self) -> int:
        """What ``steps`` None takes.  Raises InputError where that is more than can be."""
        points = self._along(np.linspace(0.0, 1.0, 9))
        dt = min(simulation.time_step(self.known, point, self.beta, self.mobility) for point in points)
        steps = max(50.0, math.ceil(self.duration / dt))
        if steps > _MOST_STEPS:
            raise InputError(
                f"duration is {self.duration} and the fastest relaxation time {20 * dt:.3g}, which takes {steps:.2g}"
                " steps; shorten the duration."
            )
        return int(steps)

    @property
    def known(self) -> Potential:
        """The potential itself."""
        if isinstance(self.potential, Potential):
            return self.potential
        file = FilePath(self.potential.rpartition(":")[0])
        return _loaded(self.potential, file.stat().st_mtime_ns if file.is_file() else 0)

    @property
    def step_count(self) -> int:
        """``steps``, which is never None once the spec exists."""
        assert self.steps is not None
        return self.steps

    def _along(self, s: Array) -> Array:
        """theta (n, p) at fractions s of the duration."""
        knots = np.array([self.start, self.end] if self.path is None else self.path)
        times = np.linspace(0.0, 1.0, len(knots))
        return np.stack([np.interp(s, times, column) for column in knots.T], axis=1)

    def thetas(self, direction: str = "forward") -> Array:
        """theta before the first jump and after each, (steps + 2, p)."""
        ends = self._along(np.linspace(0.0, 1.0, self.step_count + 1))
        path, _ = simulation.midpoints(ends, self.duration / self.step_count)
        return path if direction == "forward" else np.ascontiguousarray(path[::-1])

    def to_dict(self) -> dict[str, Any]:
        """All fields in JSON's types, and a fingerprint of the potential."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["potential"] = self.known.name if isinstance(self.potential, Potential) else self.potential
        return values | {"fingerprint": self.known.fingerprint}

    def to_json(self) -> str:
        """One line of JSON, the same for equal specs."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, potential: Potential | None = None) -> "FreeEnergy":
        """The spec that ``to_json`` wrote; ``potential`` is needed where it was none that a name finds.

        Raises InputError for anything else, and where the potential is no longer the one that it was.
        """
        try:
            values = json.loads(text)
            fingerprint = values.pop("fingerprint")
            spec = cls(**values | ({} if potential is None else {"potential": potential}))
        except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
            raise InputError(f"spec {text[:80]!r} is not that of a free-energy run ({error}).") from error
        if spec.known.fingerprint != fingerprint:
            raise InputError(f"potential {spec.known.name} is not the one that the run began with; restore it.")
        return spec


@dataclass(frozen=True)
class FreeEnergyResult:
    """What forward and reverse ensembles gave.

    ``forward`` and ``reverse`` (particles,) are the works done on each particle, energy; ``exact`` is Delta F where it
    is known and ``exact_from`` says how ("closed form", "quadrature").  ``first_law_residual`` is the largest
    |dE - W - Q| of any particle, energy.
    """

    spec: FreeEnergy
    forward: Array
    reverse: Array
    first_law_residual: float
    exact: float | None
    exact_from: str | None
    particle_steps_per_second: float
    file: FilePath | None
    threads: int

    @cached_property
    def analysis(self) -> WorkAnalysis:
        """Every estimator, and what there is to know of the works."""
        return analyse_works(self.forward, self.reverse, self.spec.beta)

    @property
    def delta_f(self) -> Estimate:
        """Delta F by BAR."""
        return self.analysis.bar.delta_f

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Those of the analysis, after what the works alone cannot tell: that the time step is too long."""
        several, spec = list(self.analysis.warnings), self.spec
        z = math.nan if self.exact is None else self.delta_f.z(self.exact)
        if abs(z) > 5:
            several.insert(
                0,
                f"Delta F by bar lies {z:+.1f} standard errors from the exact value: take more than {spec.steps}"
                " steps.",
            )
        elif spec.integrator != "exact" and spec.default_steps() > _FEWER * spec.step_count:
            several.insert(
                0,
                f"steps is {spec.steps} and the default would be {spec.default_steps()}: see whether twice the steps"
                " give the same Delta F, for the works cannot tell.",
            )
        return tuple(several)

    @property
    def verdict(self) -> str:
        """One sentence: what is wrong, or which standard errors can be trusted."""
        return self.analysis.verdict if self.warnings == self.analysis.warnings else self.warnings[0]

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        report = self.analysis.to_dict() | {"verdict": self.verdict, "warnings": list(self.warnings)}
        for row in report["results"]:
            estimate = self.analysis[row["estimator"]].delta_f
            row["z"] = None if self.exact is None else finite_or_none(estimate.z(self.exact))
        return report | {
            "exact": self.exact,
            "exact_from": self.exact_from,
            "first_law_residual": finite_or_none(self.first_law_residual),
            "particle_steps_per_second": finite_or_none(self.particle_steps_per_second),
            "spec": self.spec.to_dict(),
            "seed": self.spec.seed,
            "threads": self.threads,
            "precision": self.spec.precision,
            "file": None if self.file is None else str(self.file),
        }


@cache
def _loaded(name: str, changed: int) -> Potential:
    """The potential of a name, once for every change of its file, so that its kernels are compiled once."""
    return potentials.load(name)


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
    first, last = (quadrature.free_energy(potential.energies, point, beta=beta) for point in ends)
    return last - first, "quadrature"


def free_energy(
    spec: FreeEnergy | None = None,
    *,
    out: FilePath | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
    **given: Any,
) -> FreeEnergyResult:
    """Delta F between two parameter points, from works of forward and reverse ensembles.

    ``given`` are fields of ``FreeEnergy``, replacing the spec's.  With ``out`` the works stream to that HDF5 file, a
    row for every 32,768 particles, and ``resume`` goes on with it: to the last bit as if it had never stopped.

    Raises InputError (a ValueError) before any work for input that cannot run, RunError for a run that cannot go on,
    and KeyboardInterrupt after Ctrl-C, with all complete rows saved.
    """
    if spec is None:
        spec = FreeEnergy(**given)
    elif given:
        spec = replace(spec, **given)
    _require_memory(spec)
    for point in (spec.start, spec.end):
        potentials.check(spec.known, point)
    exact, how = exact_delta_f(spec.known, spec.start, spec.end, spec.beta)
    works = {name: np.full((_rows(spec), _ROW), np.nan) for name in DIRECTIONS}
    residual, seconds, done = 0.0, 0.0, 0
    with (
        on_threads(threads) as count,
        run_file("free-energy", spec, out, resume, count, lambda file: _lay_out(file, spec)) as file,
        deferred_interrupt() as stop,
    ):
        _compile(spec)
        with progress("free energy", 2 * spec.particles * spec.step_count, "steps", show_progress) as advance:
            for direction in DIRECTIONS:
                first = 0 if file is None else file.committed(direction)
                if file is not None and first:
                    stored = file.read(direction)
                    works[direction][:first] = stored["work"][:first]
                    residual = max(residual, float(np.max(stored["first_law_residual"][:first])))
                    advance(min(first * _ROW, spec.particles) * spec.step_count)
                for row in range(first, _rows(spec)):
                    began = clock.perf_counter()
                    work, heat, off = _row(spec, direction, row, stop, advance)
                    seconds += clock.perf_counter() - began
                    done += len(work) * spec.step_count
                    works[direction][row, : len(work)] = work
                    residual = max(residual, off)
                    if file is not None:
                        rows = {"work": works[direction][row], "heat": heat, "first_law_residual": off}
                        file.write(direction, row, {name: np.array([values]) for name, values in rows.items()})
        forward, reverse = (values.ravel()[: spec.particles] for values in works.values())
        result = FreeEnergyResult(
            spec, forward, reverse, residual, exact, how, done / seconds if seconds else math.nan,
            None if out is None else FilePath(out), count,
        )  # fmt: skip
        if file is not None:
            _summarise(file, result)
            file.finish()
    return result


def load(path: FilePath | str, potential: Potential | None = None) -> FreeEnergyResult:
    """The results in a file, complete or not; ``potential`` as in ``FreeEnergy.from_json``.  Raises InputError."""
    path = FilePath(path)
    spec = FreeEnergy.from_json(read_spec(path), potential)
    with RunFile.reopen(path, spec.to_json(), write=False) as file:
        works, residual = [], 0.0
        for direction in DIRECTIONS:
            rows, stored = file.committed(direction), file.read(direction)
            works.append(stored["work"][:rows].ravel()[: spec.particles])
            residual = max(residual, float(np.max(stored["first_law_residual"][:rows], initial=0.0)))
        if not all(map(len, works)):
            raise InputError(f"{path} holds no complete row of both directions yet; resume it.")
        exact, how = exact_delta_f(spec.known, spec.start, spec.end, spec.beta)
        return FreeEnergyResult(spec, works[0], works[1], residual, exact, how, math.nan, path, file.threads)


def _rows(spec: FreeEnergy) -> int:
    return -(-spec.particles // _ROW)


def _row(
    spec: FreeEnergy, direction: str, row: int, stop: Callable[[], bool], advance: Advance
) -> tuple[Array, float, float]:
    """Works of one row's particles, their mean heat, and the largest |dE - W - Q|."""
    potential, steps = spec.known, spec.step_count
    wanted = min(_ROW, spec.particles - row * _ROW)
    # Noise comes in whole blocks, and a burn-in judges itself by the spread of the particles: one would not do.
    count = -(-wanted // random.BLOCK) * random.BLOCK
    stream = (DIRECTIONS.index(direction) << 32) + row * _STREAMS
    path = spec.thetas(direction)
    dt = np.append(np.full(steps, spec.duration / steps), 0.0)
    about: dict[str, Any] = {"beta": spec.beta, "mobility": spec.mobility, "seed": spec.seed, "stream": stream}
    x = simulation.equilibrium(potential, path[0], count, precision=spec.precision, **about)
    before = potential.energies(x[0].T, path[0])
    driven: Any = x
    length = max(1, _CALL // count)
    for first in range(0, len(dt), length):
        part = slice(first, first + length)
        driven = simulation.drive(
            potential, driven, path[first : first + length + 1], dt=dt[part], integrator=str(spec.integrator),
            first=first, **about,
        )  # fmt: skip
        advance(wanted * (len(dt[part]) - (first + length >= len(dt))))
        if stop():
            raise KeyboardInterrupt
    energy_change = (potential.energies(driven.x[0].T, path[-1]) - before)[:wanted]
    work, heat = driven.work[0, :wanted], driven.heat[0, :wanted]
    return work, float(np.mean(heat)), float(np.max(np.abs(energy_change - work - heat)))


def _compile(spec: FreeEnergy) -> None:
    """Compiles the kernels, or loads them from the cache, so that no timing counts it."""
    x = np.zeros((1, spec.known.dimension, 1), spec.precision)
    path = spec.thetas()[:2]
    simulation.drive(spec.known, x, path, dt=0.0, integrator=str(spec.integrator), beta=spec.beta)
    spec.known.energies(x[0].T, path[0])


def _require_memory(spec: FreeEnergy) -> None:
    # Two directions, their works in kT, and what the estimators make of them.
    needed, there = 2 * spec.particles * 10 * 8, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise InputError(
            f"particles is {spec.particles}, which takes {needed / 1e9:.1f} GB of memory; this machine has"
            f" {there / 1e9:.1f} GB."
        )


def _lay_out(file: RunFile, spec: FreeEnergy) -> None:
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
            ],
        )
    file.publish(dict.fromkeys(DIRECTIONS, _rows(spec)))


def _summarise(file: RunFile, result: FreeEnergyResult) -> None:
    for index, row in enumerate(result.analysis.results):
        values = (row.delta_f.mean, row.delta_f.stderr, row.effective, math.nan if row.bias is None else row.bias)
        file.write_entry("/", index, dict(zip(_TABLE, values, strict=True)))
