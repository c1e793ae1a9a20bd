"""Runs an ensemble along a path, row of particles by row."""

import itertools
import math
import time as clock
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from thermokernels import random
from thermorun import streams
from thermorun.arrays import Array
from thermorun.cluster import UnderWay
from thermorun.estimates import over_samples
from thermorun.learning.driven import layout
from thermorun.learning.driven.result import DriveResult
from thermorun.learning.driven.spec import ROW, Drive
from thermorun.potentials import Driven, Potential, System, dynamics
from thermorun.potentials.staircase import Row, Stairs, staircase
from thermorun.results import origin
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import RunFile
from thermorun.streams import Noise
from thermorun.threads import at_most

# A kernel call takes about this many particle-steps.
_CALL = 2**26
# Less of them than this is no work for another thread: a temperature that changes at every step asks for many calls.
_SHARE = 2**17
# Particles that show beforehand where x goes, the first of all; and how much farther histograms reach, in shares.
_PILOTS, _MARGIN = int(random.BLOCK), 0.25


@documented(Drive)
def drive(
    potential: str | Potential = "double-well",
    path: tuple[Row, ...] | None = None,
    kT: tuple[float, ...] | None = None,
    tau: float | None = None,
    particles: int = 100_000,
    steps: int | None = None,
    beta: float = 1.0,
    mobility: float = 1.0,
    integrator: str | None = None,
    precision: str = "float64",
    at: tuple[float, ...] = (),
    bins: int = 100,
    snapshots: int = 0,
    fingerprint: str | None = None,
    seed: int = 0,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> DriveResult:
    """Work of driving any potential along a path of theta, from equilibrium, and the excess over Delta F.

    With ``kT`` the bath's temperature follows a path too.  Work is done where theta moves at fixed x, never by the
    bath; heat is absorbed while x relaxes.  Then Delta F and excess work are no answer, for free energies at two
    temperatures bound no work: in their place stands the entropy production, that of relaxation at the end included.

    Parameters
    ----------
    {parameters}

    Returns
    -------
    DriveResult
        Every particle's work, their mean, Delta F by closed form or quadrature, the excess work, and its exact value:
        by Gaussian moments for quadratic potentials, by the Fokker-Planck equation in one dimension.  Histograms and
        snapshots of x at the times ``at``.

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
    mine = len(under_way.part(layout.rows(spec))) / layout.rows(spec)
    under_way.require_memory(mine * spec.particles * 8 * 6, f"particles is {spec.particles}")
    system, path = spec.system, spec.rows
    stairs = staircase(path, int(spec.steps or 0))
    system.potential.require_valid(stairs.theta, "path")
    x = dynamics.one_particle(system.potential, spec.precision)
    system.drive(x, stairs.theta[:2], dt=0.0, integrator=str(spec.integrator))  # compiles, or loads from the cache
    edges = None if under_way.resuming or not spec.at else _edges(spec, system, stairs)
    file = under_way.open(spec, partial(layout.lay_out, spec=spec, system=system, stairs=stairs, edges=edges))
    under_way.stage("drive", round(mine * spec.particles * len(stairs.waits)), "steps")
    under_way.advance(min(file.committed("particles") * ROW, spec.particles) * len(stairs.waits))
    rows = file.missing("particles")
    part = partial(_row, spec, system, stairs, file.read("histograms")["edge"] if spec.at else None)
    for row, (snapshots, values) in zip(rows, under_way.each(part, rows), strict=True):
        if snapshots:
            file.write_whole("snapshots", snapshots)
        file.write("particles", row, values)
    under_way.end_of_shard()
    layout.summarise(file, spec)
    return read(file, spec)


def read(file: RunFile, spec: Drive) -> DriveResult:
    """The results in a file, of the rows that are complete."""
    rows, stored = file.committed("particles"), file.read("particles")
    found = [stored[name][:rows].ravel()[: spec.particles] for name in layout.each(spec)]
    seconds, count = float(np.sum(stored["seconds"][:rows])), len(found[0])
    noted = {name: file.noted(name) for name in layout.KNOWN}
    known: dict[str, Any] = {name: None if value is None else float(value) for name, value in noted.items()}
    return DriveResult(
        **origin(file, spec), work_of_each=found[0], heat=over_samples(found[1]),
        reduced_work_of_each=found[2] if spec.kT else None,
        first_law_residual=float(np.max(stored["first_law_residual"][:rows], initial=0.0)),
        particle_steps_per_second=count * int(spec.steps or 0) / seconds if seconds else math.nan,
        exact_from=file.noted("exact_from"), histograms=layout.read_histograms(file, spec),
        snapshots=file.read("snapshots")["x"] if spec.snapshots and rows else None, **known,
    )  # fmt: skip


def extended(spec: Drive, smaller: Drive) -> dict[str, int]:
    """Rows of each section that are the same with more particles."""
    return {"particles": smaller.particles // ROW}


def _noise(spec: Drive, row: int, dimension: int) -> Noise:
    return Noise.of(streams.learn(spec.seed, "dynamics", "a prescribed path")).row(row, dimension)


def _edges(spec: Drive, system: System, stairs: Stairs) -> Array:
    """Of bins (dimension, bins + 1), by where some particles of the run are at the times of the histograms.

    They end where the domain does, and go all around a period.
    """
    noise = _noise(spec, 0, system.potential.dimension)
    x = system.equilibrium(stairs.theta[0], _PILOTS, precision=spec.precision, seed=noise)
    seen = [one.x[0] for _, _, one in pieces(spec, system, stairs, x, noise, stairs.reached(spec.at).tolist())]
    low, high = np.min([x[0], *seen], axis=(0, 2)), np.max([x[0], *seen], axis=(0, 2))
    margin, sides = _MARGIN * (high - low), system.potential.domain.sides
    whole = np.array([side.periodic for side in sides])
    low, high = np.where(whole, -np.inf, low - margin), np.where(whole, np.inf, high + margin)
    first, last = np.maximum(low, [side.low for side in sides]), np.minimum(high, [side.high for side in sides])
    return np.linspace(first, last, spec.bins + 1, axis=1).astype(float)


def pieces(
    spec: Drive, system: System, stairs: Stairs, x: Array, noise: Noise, stops: list[int]
) -> Iterator[tuple[int, int, Driven]]:
    """Takes x (1, d, particles) along the stairs, piece by piece: first wait, last, and the ensemble after it.

    Pieces end at ``stops``, are no longer than a kernel call should be, and have one temperature; the last jump is the
    end of the last.
    """
    steps = len(stairs.waits) + 1
    length = max(1, _CALL // x.shape[2])
    changes = (np.flatnonzero(np.diff(stairs.kT[1:-1])) + 1).tolist()
    ends = sorted({0, *range(0, steps, length), *(stop for stop in stops if 0 < stop < steps), *changes, steps})
    dt = np.append(stairs.waits, 0.0)
    driven: Array | Driven = x
    for first, last in itertools.pairwise(ends):
        kt = None if spec.kT is None else stairs.kT[first + 1]
        path = stairs.theta[first : last + 1]
        with at_most(1 + (last - first) * x.shape[2] // _SHARE):
            moved = system.drive(driven, path, dt=dt[first:last], integrator=str(spec.integrator), seed=noise, kT=kt)
        yield first, last, moved
        driven = moved


def _row(
    spec: Drive, system: System, stairs: Stairs, edges: Array | None, row: int, under_way: UnderWay
) -> tuple[dict[str, Array], dict[str, Array]]:
    """One row's particles: snapshots of the first row, and all that the file keeps of each."""
    began, potential = clock.perf_counter(), system.potential
    wanted = min(ROW, spec.particles - row * ROW)
    # Noise comes in whole blocks, and equilibrium is judged by the spread of the particles: one would not do.
    count = -(-wanted // random.BLOCK) * random.BLOCK
    noise = _noise(spec, row, potential.dimension)
    x = system.equilibrium(stairs.theta[0], count, precision=spec.precision, seed=noise)
    seen = _Seen(spec, stairs, edges, wanted)
    seen.look(0, x)
    before = potential.energies(x[0].T, stairs.theta[0])
    reduced, heat = -before / stairs.kT[0], np.zeros(count)
    for first, last, driven in pieces(spec, system, stairs, x, noise, seen.reached.tolist()):
        reduced -= (driven.heat[0] - heat) / stairs.kT[first + 1]
        heat = driven.heat[0]
        seen.look(last, driven.x)
        under_way.advance(wanted * (min(last, len(stairs.waits)) - first))
        under_way.pause()
    after = potential.energies(driven.x[0].T, stairs.theta[-1])
    found = {"work": driven.work[0], "heat": heat, "reduced_work": reduced + after / stairs.kT[-1]}
    values = {name: np.full((1, ROW), np.nan) for name in layout.each(spec)}
    for name, kept in values.items():
        kept[0, :wanted] = found[name][:wanted]
    residual = np.max(np.abs(after - before - found["work"] - heat)[:wanted])
    values |= {"first_law_residual": np.array([residual]), "seconds": np.array([clock.perf_counter() - began])}
    snapshots = {"x": seen.snapshots} if spec.snapshots and row == 0 else {}
    return snapshots, values | ({} if edges is None else {"count": seen.counts[None]})


class _Seen:
    """What is counted and kept of x at the times ``at``: ``counts`` (times, dimension, bins), and ``snapshots``."""

    def __init__(self, spec: Drive, stairs: Stairs, edges: Array | None, wanted: int) -> None:
        self.edges, self.wanted, self.reached = edges, wanted, stairs.reached(spec.at)
        d = 0 if edges is None else len(edges)
        self.counts = np.zeros((len(spec.at), d, spec.bins), np.int64)
        self.snapshots = np.empty((len(spec.at), spec.snapshots, d), spec.precision)

    def look(self, waits: int, x: Array) -> None:
        """Counts and keeps what is due after so many waits."""
        for k in np.flatnonzero(self.reached == waits):
            for d, edges in enumerate(self.edges if self.edges is not None else ()):
                self.counts[k, d], _ = np.histogram(x[0, d, : self.wanted], edges)
            first = x[0, :, : self.snapshots.shape[1]].T
            self.snapshots[k, : len(first)] = first
