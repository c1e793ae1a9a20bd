"""g, zeta and tau^r at the points of a grid, one after the other: measured, and exact where they are known."""

import itertools
import math
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from thermokernels.random import BLOCK
from thermorun import streams
from thermorun.arrays import Array
from thermorun.cluster import UnderWay
from thermorun.metric import friction
from thermorun.metric.friction import BATCH, MOST, Ensemble, Measured, Windows
from thermorun.metric.result import MATRICES, ExactMetric, MetricResult, PointResult
from thermorun.metric.spec import Axis as GridAxis
from thermorun.metric.spec import Metric
from thermorun.potentials import Potential, System
from thermorun.potentials.exact import require_regular
from thermorun.results import origin
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import Axis, RunFile, Variable
from thermorun.threads import on_threads

_UNITS = {"fisher": "1/parameter^2", "friction": "energy time/parameter^2", "relaxation": "time"}


@documented(Metric)
def measure(
    potential: str | Potential = "trap",
    theta: tuple[float, ...] | None = None,
    grid: tuple[GridAxis, ...] = (),
    beta: float = 1.0,
    mobility: float = 1.0,
    dt: float | None = None,
    integrator: str = "heun",
    precision: str = "float64",
    particles: int = 32768,
    fingerprint: str | None = None,
    seed: int = 0,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> MetricResult:
    """Fisher metric g, friction tensor zeta and relaxation times tau^r, at a point or over a grid (Eqs. 51 and 52).

    Monte Carlo along trajectories at fixed theta, in equilibrium from the start; exact values stand beside where they
    are known.  With ``out`` the sums of independent blocks of particles stream to that HDF5 file.

    Parameters
    ----------
    {parameters}

    Returns
    -------
    MetricResult
        ``fisher``, ``friction`` and ``relaxation`` are estimates of arrays (p, p), and for a grid (..., p, p).

    Raises
    ------
    InputError
        Before any work, for input that cannot run.
    RunError
        For a run that cannot go on.
    Stopped
        After Ctrl-C (a KeyboardInterrupt), with all complete blocks saved.

    Examples
    --------
    >>> from thermorun import metric
    >>> result = metric.measure("stiffness", theta=2.0, particles=8192)
    >>> abs(result.friction[0, 0].z(0.25 / 2**3)) < 4
    True
    """
    spec = Metric(**given(Metric, locals()))
    result: MetricResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress)
    return result


def run(spec: Metric, under_way: Session) -> MetricResult:
    """Runs a spec: see `measure`."""
    spec, system = begin(spec, under_way)
    exact = exact_values(spec, system, under_way)
    file = under_way.open(spec, lambda file: _lay_out(file, spec, system))
    measure_points(spec, system, exact, under_way)
    return read(file, spec)


_Spec = TypeVar("_Spec", bound=Metric)


def begin(spec: _Spec, under_way: Session) -> tuple[_Spec, System]:
    """The spec with every number set, and its system.  Raises InputError for what cannot run or has no room."""
    under_way.stage("potential", 0, "")
    spec = spec.resolved()
    system = spec.system
    p, points = len(spec.theta or ()), math.prod(count for _, _, _, count in spec.grid)
    needed = float(points * spec.blocks * 8 * (2 * MOST * p * p + (2 + p) * p))
    under_way.require_memory(needed, f"particles is {spec.particles} at {points} points")
    return spec, system


def read(file: RunFile, spec: Metric) -> MetricResult:
    """The results in a file, of the points that are complete."""
    return MetricResult(
        **origin(file, spec), **read_points(file, spec),
    )  # fmt: skip


def read_points(file: RunFile, spec: Metric) -> dict[str, Any]:
    """``parameters`` and ``points`` of a `MetricResult`."""
    table, stored = file.read("points"), file.read("blocks")
    points = []
    for index in range(file.committed("blocks") // spec.blocks):
        windows = Windows(float(table["dt"][index]), int(table["levels"][index]), table["centre"][index])
        rows = slice(index * spec.blocks, (index + 1) * spec.blocks)
        measured = friction.fold(
            stored["sums"][rows, : windows.levels], stored["means"][rows], windows, spec.beta
        )  # fmt: skip
        points.append(
            PointResult(
                theta=tuple(table["theta"][index].tolist()),
                windows=windows,
                exact=_exact(table, index),
                **vars(measured),
            )
        )
    return {"parameters": tuple(name.decode() for name in table["parameter"]), "points": tuple(points)}


def _exact(table: dict[str, Array], index: int) -> ExactMetric | None:
    """What is known at a point, with what is zero to rounding set to zero."""
    if not np.all(np.isfinite(table["fisher_exact"][index])):
        return None
    found = []
    for name in MATRICES:
        matrix = table[f"{name}_exact"][index].copy()
        size = np.sqrt(np.abs(np.diag(matrix)))
        matrix[np.abs(matrix) < 1e-12 * np.outer(size, size)] = 0.0
        found.append(matrix)
    return ExactMetric(*found)


def exact_values(spec: Metric, system: System, under_way: Session) -> dict[str, Array]:
    """What is known exactly, ``NAME_exact`` (points, p, p), NaN where it is not; and the kernel, compiled.

    Raises InputError where the Fisher metric is singular at a point.
    """
    points = spec.points(system.potential)
    values = {f"{name}_exact": np.full((*points.shape, points.shape[-1]), np.nan) for name in MATRICES}
    under_way.stage("exact values", len(points), "points")
    # Quadratures of a thousand points each are too little for threads to meet over.
    with on_threads(1):
        for index, theta in enumerate(points):
            found = system.exact(theta)
            if found is None:
                x = system.equilibrium(theta, int(BLOCK), seed=spec.seed)
                fisher = np.atleast_2d(np.cov(system.potential.gradients(x[0].T, theta)))
            else:
                fisher = found.fisher
                for name in MATRICES:
                    values[f"{name}_exact"][index] = getattr(found, name)
            require_regular(fisher, system.potential, theta)
            under_way.advance(1)
            under_way.interrupt.check()
    under_way.stage("compiling", 0, "")
    ensemble(spec, system, points[0], 0).rows(Windows(1e-9, 1, np.zeros(points.shape[1])), 0, 1)
    return values


def ensemble(spec: Metric, system: System, theta: Array, index: int) -> Ensemble:
    """The trajectories at a point."""
    noise, pilot = (streams.metric_point(spec.seed, index, pilot) for pilot in (False, True))
    return Ensemble(system, tuple(theta.tolist()), spec.integrator, spec.precision, noise, pilot)


def measure_points(spec: Metric, system: System, exact: dict[str, Array], under_way: Session) -> list[Measured]:
    """Measures every point, into the file; points and batches that are there already are taken as they are."""
    file, points = under_way.file, spec.points(system.potential)
    file.write_whole("points", {"theta": points, **exact})
    ensembles = [ensemble(spec, system, theta, index) for index, theta in enumerate(points)]
    under_way.stage("windows", len(points), "points")
    windows = _windows(spec, ensembles, under_way)
    done = file.committed("blocks")
    under_way.stage("metric", len(points) * spec.blocks, "blocks")
    under_way.advance(done)
    batches = list(itertools.product(range(len(points)), range(0, spec.blocks, BATCH)))
    missing = [(index, first) for index, first in batches if index * spec.blocks + first >= done]
    found: dict[tuple[int, int], tuple[Array, Array]] = {}
    measured: dict[int, Measured] = {}
    stored = file.read("blocks") if done else {}
    for index, first in batches[: len(batches) - len(missing)]:
        rows = slice(index * spec.blocks + first, index * spec.blocks + min(first + BATCH, spec.blocks))
        found[index, first] = stored["sums"][rows, : windows[index].levels], stored["means"][rows]
    each = under_way.each(partial(_batch, spec, ensembles, windows), missing)
    for (index, first), (sums, means) in zip(missing, each, strict=True):
        found[index, first] = sums, means
        padded = np.full((len(sums), MOST, *sums.shape[2:]), np.nan)
        padded[:, : windows[index].levels] = sums
        file.write("blocks", index * spec.blocks + first, {"sums": padded, "means": means})
        if first + BATCH >= spec.blocks:
            measured[index] = _fold(spec, found, windows, index, file)
        under_way.pause()
    # Points whose batches were all there already are folded now: their entries may not have been written.
    return [
        measured[index] if index in measured else _fold(spec, found, windows, index, file)
        for index in range(len(points))
    ]


def _batch(
    spec: Metric, ensembles: list[Ensemble], windows: list[Windows], place: tuple[int, int], under_way: UnderWay
) -> tuple[Array, Array]:
    """The rows of a point that begin with a block."""
    index, first = place
    blocks = min(BATCH, spec.blocks - first)
    found = ensembles[index].rows(windows[index], first // BATCH, blocks, pause=under_way.pause)
    under_way.advance(blocks)
    return found


def _fold(
    spec: Metric, found: dict[tuple[int, int], tuple[Array, Array]], windows: list[Windows], index: int, file: RunFile
) -> Measured:
    """The estimates of a point whose batches are all there, into the file too."""
    parts = [found[index, first] for first in range(0, spec.blocks, BATCH)]
    sums, means = (np.concatenate(part) for part in zip(*parts, strict=True))
    measured = friction.fold(sums, means, windows[index], spec.beta)
    values: dict[str, Any] = {"window": measured.window, "remainder": measured.remainder}
    for name in MATRICES:
        estimate = getattr(measured, name)
        values |= {name: estimate.mean, f"{name}_stderr": estimate.stderr}
    file.write_entry("points", index, values)
    return measured


def _windows(spec: Metric, ensembles: list[Ensemble], under_way: Session) -> list[Windows]:
    """How trajectories are cut at each point: as the file says, or by a pilot run."""
    stored = {name: values for name, values in under_way.file.read("points").items() if name in _CUT}
    known = [all(np.all(np.isfinite(values[index])) for values in stored.values()) for index in range(len(ensembles))]
    missing = [index for index, there in enumerate(known) if not there]
    found = {
        index: Windows(float(stored["dt"][index]), int(stored["levels"][index]), stored["centre"][index])
        for index, there in enumerate(known)
        if there
    }
    under_way.advance(len(found))
    for index, cut in zip(missing, under_way.each(partial(_pilot, spec, ensembles), missing), strict=True):
        found[index] = cut
        entry: dict[str, Any] = {"dt": cut.dt, "levels": cut.levels, "centre": cut.centre}
        under_way.file.write_entry("points", index, entry)
        under_way.pause()
    return [found[index] for index in range(len(ensembles))]


def _pilot(spec: Metric, ensembles: list[Ensemble], index: int, under_way: UnderWay) -> Windows:
    one = ensembles[index]
    found = one.pilot(spec.step_at(one.system, np.array(one.theta)), spec.blocks, under_way.pause)
    under_way.advance(1)
    return found


_CUT = ("dt", "levels", "centre")


def _lay_out(file: RunFile, spec: Metric, system: System) -> None:
    file.publish(lay_out_points(file, spec, system))


def lay_out_points(file: RunFile, spec: Metric, system: System) -> dict[str, int]:
    """Makes the sections of points and blocks; returns the rows of those that are written row by row."""
    names, points = np.array(system.potential.parameters), spec.points(system.potential)
    parameter, other = Axis("parameter", names, "1", "parameter"), Axis("other", names, "1", "parameter")
    point = Axis("point", np.arange(len(points)), "1", "point of the grid")
    square = ("point", "parameter", "other")
    table = [
        Variable("theta", ("point", "parameter"), "parameter", "where the metric is measured"),
        Variable("centre", ("point", "parameter"), "energy/parameter", "mean dE/dtheta of the pilot run"),
        Variable("dt", ("point",), "time", "time step"),
        Variable("levels", ("point",), "1", "lengths of the window, each twice the last, that the pilot asked for"),
        Variable("window", square, "time", "where the correlation integral begins to be cut off"),
        Variable("remainder", square, _UNITS["friction"], "what lies beyond the window, estimated from the tail"),
    ]
    for name in MATRICES:
        table += [
            Variable(name, square, _UNITS[name], f"{name}, Monte Carlo"),
            Variable(f"{name}_stderr", square, _UNITS[name], "its standard error"),
            Variable(f"{name}_exact", square, _UNITS[name], "its exact value, where there is one"),
        ]
    file.add_section("points", [point, parameter, other], table)
    row = Axis("row", np.arange(len(points) * spec.blocks), "1", "independent block of particles")
    level = Axis("level", np.arange(MOST), "1", "number of the window's length, each twice the last")
    kind = Axis("kind", np.array(["square", "next"]), "1", "of a segment with itself, with the next one")
    moment = Axis("moment", np.arange(2 + len(names)), "1", "mean at the start, mean along the way, products")
    about = "sums over a block; see thermokernels.correlations"
    file.add_section(
        "blocks",
        [row, level, kind, moment, parameter, other],
        [
            Variable("sums", ("row", "level", "kind", "parameter", "other"), "1", about),
            Variable("means", ("row", "moment", "parameter"), "1", about),
        ],
    )
    return {"blocks": len(row.values)}
