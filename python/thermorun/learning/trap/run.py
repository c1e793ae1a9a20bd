"""Runs a spec: kernels chunk by chunk, rows to the ledger and the file, checkpoints on the way."""

import itertools
import os
import time as clock
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermorun.errors import InputError, RunError
from thermorun.learning.trap import result as results
from thermorun.learning.trap.particles import Driven, Ensemble, Learned, compile_kernels, ensemble, memory
from thermorun.learning.trap.plan import Plan
from thermorun.learning.trap.recorder import SERIES, Ledger
from thermorun.learning.trap.result import SNAPSHOT_PARTICLES, ExcessWorkResult, ProtocolResult
from thermorun.learning.trap.spec import ExcessWork
from thermorun.progress import Advance, deferred_interrupt, progress
from thermorun.store import RunFile, read_spec, run_file
from thermorun.threads import on_threads

Array = NDArray[Any]

# A kernel call takes about this many particle-steps: short enough that Ctrl-C and the progress bar feel prompt.
_CHUNK = 2**27


def excess_work(
    spec: ExcessWork | None = None,
    *,
    out: FilePath | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
    checkpoint_every: float = 20.0,
    chunk: int = _CHUNK,
    **fields: Any,
) -> ExcessWorkResult:
    """Learns the trap under each protocol of ``spec`` and measures the excess work.

    ``fields`` are those of ``ExcessWork``, replacing the spec's.  With ``out`` rows stream to that HDF5 file, and
    ``resume`` goes on with it after a kill: to the last bit as if nothing had happened.  ``checkpoint_every`` is in
    seconds, ``chunk`` in particle-steps a kernel call; neither changes a number.

    Raises InputError (a ValueError) before any work for input that cannot run, RunError for a run that cannot go on,
    and KeyboardInterrupt after Ctrl-C, with all that is done saved.
    """
    spec = ExcessWork(**fields) if spec is None else replace(spec, **fields)
    plans = Plan.of(spec)
    _require_memory(plans)
    with (
        on_threads(threads) as count,
        run_file("excess-work", spec, out, resume, count, lambda file: results.lay_out(file, plans)) as file,
        deferred_interrupt() as stop,
    ):
        compile_kernels(spec)
        with progress("excess work", sum(plan.particle_steps for plan in plans), "steps", show_progress) as advance:
            settings = _Settings(file, checkpoint_every, chunk, stop, advance)
            protocols = {plan.label: _protocol(plan, settings) for plan in plans}
        if file is not None:
            file.finish()
    return ExcessWorkResult(spec, protocols, None if out is None else FilePath(out), count)


def load(path: FilePath | str) -> ExcessWorkResult:
    """The results in a file, complete or not; a protocol without rows is left out.  Raises InputError."""
    path = FilePath(path)
    spec = ExcessWork.from_json(read_spec(path))
    with RunFile.reopen(path, spec.to_json(), write=False) as file:
        protocols = {plan.label: results.read(file, plan) for plan in Plan.of(spec) if file.committed(plan.label)}
        return ExcessWorkResult(spec, protocols, path, file.threads)


def _require_memory(plans: list[Plan]) -> None:
    needed, there = max(map(memory, plans)), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        spec = plans[0].spec
        raise InputError(
            f"particles x replicas is {spec.particles} x {spec.replicas}, which takes {needed / 1e9:.1f} GB of memory;"
            f" this machine has {there / 1e9:.1f} GB."
        )


@dataclass(frozen=True)
class _Settings:
    """What a run is given besides its plan; none of it changes a number."""

    file: RunFile | None
    checkpoint_every: float
    chunk: int
    interrupted: Callable[[], bool]
    advance: Advance


def _protocol(plan: Plan, settings: _Settings) -> ProtocolResult:
    """Runs a plan, or the rest of it, or reads it from a file that has it all."""
    file = settings.file
    if file is not None and all(file.committed(name) == rows for name, rows in results.sections(plan).items()):
        settings.advance(plan.particle_steps)
        result = results.read(file, plan)
    else:
        result = _Run(plan, settings).finish()
        if file is not None and result.particle_work is not None and result.particle_heat is not None:
            particles = {"work": result.particle_work, "heat": result.particle_heat}
            file.write(f"{plan.label}/particles", 0, particles)
    if file is not None:
        results.summarise(file, plan, result)
    return result


@dataclass
class _Run:
    """One protocol under way."""

    plan: Plan
    settings: _Settings
    particles: Ensemble = field(init=False)
    ledger: Ledger = field(init=False)
    series: dict[str, Array] = field(init=False)
    density: Array = field(init=False)
    seconds: float = 0.0
    done: int = 0

    def __post_init__(self) -> None:
        plan = self.plan
        self.particles = ensemble(plan)
        self.ledger = plan.ledger(self.particles.target)
        self.series = {name: np.full((len(plan.time), plan.spec.replicas), np.nan) for name in SERIES}
        self.density = np.full((len(plan.snapshot_points), len(plan.snapshot_edges) - 1), np.nan)

    def finish(self) -> ProtocolResult:
        """Runs to the end, from the start or from the checkpoint."""
        plan, spec = self.plan, self.plan.spec
        first = self._restore()
        if first == 0:
            self.particles.start()
        saved = clock.monotonic()
        for start, stop in _chunks(plan, first, self.settings.chunk):
            self._snapshot(start)
            self._advance(start, stop)
            if self.settings.interrupted():
                self._checkpoint(stop)
                raise KeyboardInterrupt
            if clock.monotonic() - saved >= self.settings.checkpoint_every:
                self._checkpoint(stop)
                saved = clock.monotonic()
        driven = self._each_particle() if spec.keep_work else None
        edges = plan.snapshot_edges
        return ProtocolResult(
            plan.label,
            plan.protocol,
            spec,
            plan.time,
            self.series,
            plan.exact,
            self.done / self.seconds if self.seconds else float("nan"),
            plan.scheme.times[plan.snapshot_points],
            0.5 * (edges[1:] + edges[:-1]),
            self.density,
            None if driven is None else driven.work[:, : spec.particles],
            None if driven is None else driven.heat[:, : spec.particles],
        )

    def _advance(self, start: int, stop: int) -> None:
        spec = self.plan.spec
        began = clock.perf_counter()
        points, trace = self.particles.advance(start, stop, self.ledger.recorded)
        self.seconds += clock.perf_counter() - began
        amount = (stop - start) * spec.particles * spec.replicas
        self.done += amount
        self.settings.advance(amount)
        if not len(points):
            return
        self._require_finite(points, trace)
        at = self.ledger.rows_before(int(points[0]))
        rows = self.ledger.enter(points, trace)
        end = at + len(rows["work"])
        for name, values in rows.items():
            self.series[name][at:end] = values
        if self.settings.file is not None and end > at:
            self.settings.file.write(self.plan.label, at, rows)

    def _require_finite(self, points: NDArray[np.intp], trace: dict[str, Array]) -> None:
        seen = np.stack([trace[name] for name in ("u", "theta", "square", "heat")])
        bad = np.argwhere(~np.all(np.isfinite(seen), axis=0))
        if len(bad):
            row, replica = bad[0]
            raise RunError(
                f"{self.plan.label} left the finite numbers at step {points[row]} in replica {replica};"
                " take more steps, or a smaller learning rate."
            )

    def _snapshot(self, point: int) -> None:
        count = min(self.plan.spec.particles, SNAPSHOT_PARTICLES)
        for row in np.flatnonzero(self.plan.snapshot_points == point):
            density, _ = np.histogram(self.particles.x[0, :count], self.plan.snapshot_edges, density=True)
            self.density[row] = density
            if self.settings.file is not None:
                self.settings.file.write(f"{self.plan.label}/snapshots", int(row), {"density": density[None]})

    def _each_particle(self) -> Driven:
        """The open loop along what was learned."""
        if isinstance(self.particles, Driven):
            return self.particles
        assert isinstance(self.particles, Learned)
        driven = Driven(self.plan, self.particles.centres)
        driven.start()
        nothing = np.zeros(self.plan.scheme.points, bool)
        for start, stop in _chunks(self.plan, 0, self.settings.chunk):
            driven.advance(start, stop, nothing)
        return driven

    def _checkpoint(self, point: int) -> None:
        if self.settings.file is not None:
            place = {"label": np.array(self.plan.label), "point": np.array(point), "ledger": self.ledger.state}
            self.settings.file.checkpoint(place | self.particles.state)
            self.settings.file.wait()

    def _restore(self) -> int:
        """Puts everything back as the checkpoint has it; returns the point to go on from."""
        file, plan = self.settings.file, self.plan
        stored = None if file is None else file.load_checkpoint()
        if file is None or stored is None or str(stored["label"]) != plan.label:
            return 0
        for name, array in self.particles.state.items():
            array[...] = stored[name]
        self.ledger.state = stored["ledger"]
        point = int(stored["point"])
        rows = self.ledger.rows_before(point)
        section = file.read(plan.label)
        for name in SERIES:
            self.series[name][:rows] = section[name][:rows]
        if plan.spec.snapshots:
            self.density = file.read(f"{plan.label}/snapshots")["density"]
        self.settings.advance(point * plan.spec.particles * plan.spec.replicas)
        return point


def _chunks(plan: Plan, first: int, size: int) -> Iterator[tuple[int, int]]:
    """Steps cut into kernel calls, which end where a snapshot is due."""
    length = max(1, size // (plan.spec.particles * plan.spec.replicas))
    stops = {*range(first, plan.scheme.points, length), *plan.snapshot_points.tolist(), plan.scheme.points}
    yield from itertools.pairwise(sorted(stop for stop in stops if stop >= first))
