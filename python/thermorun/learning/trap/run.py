"""Runs a spec: kernels chunk by chunk, rows to the recorder and the file, checkpoints on the way."""

import itertools
import time as clock
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as FilePath

import numpy as np
from numpy.typing import NDArray

from thermorun.arrays import Array
from thermorun.errors import RunError
from thermorun.learning.trap import layout
from thermorun.learning.trap.layout import SNAPSHOT_PARTICLES
from thermorun.learning.trap.particles import ClosedLoop, Ensemble, OpenLoop, compile_kernels, ensemble, memory
from thermorun.learning.trap.plan import SNAPSHOT_BINS, Plan
from thermorun.learning.trap.protocols import NAMES, Path, Schedule
from thermorun.learning.trap.recorder import SERIES
from thermorun.learning.trap.result import ExcessWorkResult
from thermorun.learning.trap.spec import ExcessWork
from thermorun.results import origin
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import RunFile

# A kernel call takes about this many particle-steps: short enough that Ctrl-C and the progress bar feel prompt.
CHUNK = 2**27


@documented(ExcessWork)
def excess_work(
    protocols: tuple[str | Schedule | Path, ...] = NAMES[:4],
    mobility: float = 1.0,
    beta: float = 1.0,
    tau: float = 5.0,
    theta0: float = 0.0,
    target: float = 1.0,
    u0: float | None = None,
    eta: float = 0.5,
    use_target: bool = False,
    particles: int = 2**20,
    replicas: int = 1,
    steps: int | None = None,
    integrator: str = "exact",
    precision: str = "float32",
    samples: int | tuple[float, ...] | None = None,
    minibatch: int | None = None,
    records: int = 200,
    snapshots: int = 0,
    keep_work: bool = False,
    check_dt: bool = False,
    seed: int = 0,
    *,
    out: FilePath | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> ExcessWorkResult:
    """Excess work of learning the centre of a harmonic trap, E = (x - theta)^2 / 2, under each protocol.

    ``particles`` are coupled through one theta; ``replicas`` are independent.  With ``out`` the recorded rows stream
    to that HDF5 file.  ``keep_work`` takes a second pass for protocols in closed loop: open loop along the theta that
    was learned, with the same noise.

    With ``potential`` or ``path`` in their place it is `drive`, whose parameters it then takes: the excess work of any
    potential along a path of one's own.

    Parameters
    ----------
    {parameters}

    Returns
    -------
    ExcessWorkResult
        Protocol by protocol work, heat, theta and u against time, with standard errors and exact values.

    Raises
    ------
    InputError
        Before any work, for input that cannot run.
    RunError
        For a run that cannot go on.
    Stopped
        After Ctrl-C (a KeyboardInterrupt), with all that is done saved.

    Examples
    --------
    >>> from thermorun import learning
    >>> result = learning.excess_work("discontinuous", particles=8192)
    >>> best = result["discontinuous"]
    >>> abs(best.excess_work.z(best.exact.work[-1])) < 4
    True
    """
    spec = ExcessWork(**given(ExcessWork, locals()))
    result: ExcessWorkResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress)
    return result


def run(spec: ExcessWork, under_way: Session, chunk: int = CHUNK) -> ExcessWorkResult:
    """Runs a spec: see `excess_work`.  ``chunk`` is in particle-steps a kernel call; it changes no number."""
    spec = spec.resolved()
    size = f"particles x replicas x steps is {spec.particles} x {spec.replicas} x {spec.steps}"
    mine = under_way.part(spec.replicas)
    under_way.require_memory(memory(spec.replace(replicas=len(mine))), size)
    bins = SNAPSHOT_BINS * len(spec.protocols)
    under_way.require_memory(8.0 * bins * spec.snapshots, f"snapshots is {spec.snapshots}, of {bins} bins in all")
    plans = Plan.all_of(spec)
    for plan in plans:
        plan.require_resolved()
    compile_kernels(spec)
    smaller = under_way.smaller
    kept = smaller.replicas if isinstance(smaller, ExcessWork) else 0
    file = under_way.open(spec, lambda file: layout.lay_out(file, spec, plans, kept))
    plans = [replace(plan, mine=mine[file.noted("kept_replicas", int) :]) for plan in plans]
    under_way.stage("excess work", sum(plan.particle_steps for plan in plans), "steps")
    for plan in plans:
        _Run(plan, under_way, chunk).finish()
        if not under_way.sharded:
            layout.summarise(file, plan)
    under_way.end_of_shard()
    return read(under_way.file, spec)


def extended(spec: ExcessWork, smaller: ExcessWork) -> dict[str, int]:
    """Rows of each section that are the same with more replicas: histograms of the first, and works of particles."""
    kept = {}
    for label in spec.built():
        kept[f"{label}/snapshots"] = smaller.snapshots + 1
        kept[f"{label}/particles"] = smaller.replicas
    return kept


def read(file: RunFile, spec: ExcessWork) -> ExcessWorkResult:
    """The results in a file, complete or not; a protocol without rows is left out."""
    found = {label: layout.read(file, spec, label, protocol) for label, protocol in spec.built().items()}
    return ExcessWorkResult(
        **origin(file, spec), protocols={label: one for label, one in found.items() if len(one.time)},
        time_steps=layout.read_time_steps(file, spec),
    )  # fmt: skip


class _Run:
    """A protocol under way.  What it has so far is in the file; the rest is in the state of a checkpoint."""

    def __init__(self, plan: Plan, under_way: Session, chunk: int) -> None:
        self.plan, self.under_way, self.file, self.chunk = plan, under_way, under_way.file, chunk
        self.done, self.seconds = 0, 0.0

    def finish(self) -> None:
        """Runs the plan, or what a file lacks of it."""
        plan, file = self.plan, self.file
        if not any(file.missing(name) for name in layout.sections(plan)):
            self.under_way.advance(plan.particle_steps)
            return
        self.particles: Ensemble = ensemble(plan)
        self.recorder = plan.recorder(self.particles.target)
        # Of the replicas that were there before, until rows are whole.
        before = file.noted("kept_replicas", int)
        self.kept = {name: file.read(plan.section)[name][:, :before] for name in SERIES} if before else {}
        first = self._restore()
        if first == 0:
            self.particles.start()
        for start, stop in self._chunks(first):
            self._snapshot(start)
            self._advance(start, stop)
            self.under_way.pause(lambda stop=stop: self._state(stop))  # type: ignore[misc]
        if plan.spec.keep_work:
            self._keep_each_particle()
        layout.write_speed(file, plan, self.done / self.seconds if self.seconds else float("nan"))

    def _advance(self, start: int, stop: int) -> None:
        began = clock.perf_counter()
        points, trace = self.particles.advance(start, stop, self.recorder.recorded)
        self.seconds += clock.perf_counter() - began
        amount = (stop - start) * self.plan.particles
        self.done += amount
        self.under_way.advance(amount)
        if not len(points):
            return
        self._require_finite(points, trace)
        at = self.recorder.rows_before(int(points[0]))
        rows = self.recorder.record(points, trace)
        if len(rows["work"]):
            for name in ("u", "theta"):
                rows[name] = rows[name] + self.plan.origin
            for name, before in self.kept.items():
                rows[name] = np.concatenate([before[at : at + len(rows[name])], rows[name]], axis=1)
            self.file.write(self.plan.section, at, rows)

    def _require_finite(self, points: NDArray[np.intp], trace: dict[str, Array]) -> None:
        seen = np.stack([trace[name] for name in ("u", "theta", "square", "heat")])
        bad = np.argwhere(~np.all(np.isfinite(seen), axis=0))
        if len(bad):
            row, replica = bad[0]
            raise RunError(
                f"{self.plan.label} diverged at step {points[row]} in replica {replica};"
                " take more steps, or a smaller learning rate."
            )

    def _snapshot(self, point: int) -> None:
        plan = self.plan
        if plan.mine.start:
            return
        count = min(plan.spec.particles, SNAPSHOT_PARTICLES)
        density, _ = np.histogram(self.particles.x[0, :count], plan.snapshot_edges, density=True)
        for row in np.flatnonzero(plan.snapshot_points == point):
            self.file.write(f"{plan.section}/snapshots", int(row), {"density": density[None]})

    def _keep_each_particle(self) -> None:
        """The work and heat of each particle: in closed loop those of a second pass along what was learned."""
        plan, driven = self.plan, self.particles
        if isinstance(driven, ClosedLoop):
            driven = OpenLoop(plan, driven.centres)
            driven.start()
            nothing = np.zeros(plan.scheme.points, bool)
            for start, stop in self._chunks(0):
                driven.advance(start, stop, nothing)
                self.under_way.advance((stop - start) * plan.particles)
                self.under_way.pause()
        assert isinstance(driven, OpenLoop)
        for replica in range(plan.replicas):
            mine = np.s_[replica : replica + 1, : plan.spec.particles]
            each = {"work": driven.work[mine], "heat": driven.heat[mine]}
            self.file.write(f"{plan.section}/particles", plan.mine.start + replica, each)

    def _state(self, point: int) -> dict[str, Array]:
        place = {"section": np.array(self.plan.section), "point": np.array(point), "recorder": self.recorder.state}
        return place | self.particles.state

    def _restore(self) -> int:
        """Puts everything back as the checkpoint has it; returns the point to go on from."""
        stored = self.file.load_checkpoint()
        if stored is None or str(stored["section"]) != self.plan.section:
            return 0
        for name, array in self.particles.state.items():
            array[...] = stored[name]
        self.recorder.state = stored["recorder"]
        point = int(stored["point"])
        self.under_way.advance(point * self.plan.particles)
        return point

    def _chunks(self, first: int) -> Iterator[tuple[int, int]]:
        """Steps cut into kernel calls, which end where a snapshot is due."""
        plan = self.plan
        length = max(1, self.chunk // plan.particles)
        stops = {*range(first, plan.scheme.points, length), *plan.snapshot_points.tolist(), plan.scheme.points}
        yield from itertools.pairwise(sorted(stop for stop in stops if stop >= first))
