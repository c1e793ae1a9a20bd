"""Protocols between two points: along the geodesic of zeta, along the line, and in one dimension of least work.

What slow driving predicts (Hnybida & Verret 2025, Eq. 49) and, in one dimension, what the Fokker-Planck equation says
stand beside the excess work that is measured.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from thermokernels.random import BLOCK
from thermorun import streams
from thermorun.arrays import Array
from thermorun.cluster import UnderWay
from thermorun.errors import InputError, words
from thermorun.estimates import Estimate
from thermorun.metric.friction import BATCH, Measured
from thermorun.metric.geodesic import Geodesic, geodesic, smoothed
from thermorun.metric.points import begin, exact_values, lay_out_points, measure_points, read_points
from thermorun.metric.result import PROTOCOLS, DriveResult, Work
from thermorun.metric.spec import Axis as GridAxis
from thermorun.metric.spec import Drive
from thermorun.potentials import Potential, System, midpoints
from thermorun.potentials.exact import Theory, functions
from thermorun.potentials.fokker_planck import FokkerPlanck
from thermorun.potentials.least_work import LeastWork, least, shares
from thermorun.results import origin
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import Axis, RunFile, Variable
from thermorun.threads import on_threads

# Particles that are driven at a time.
_CHUNK = BATCH * int(BLOCK)
# Waits of the Fokker-Planck equation: so many for the shortest relaxation time, within these bounds.
_WAITS_EACH, _FEWEST_WAITS, _MOST_WAITS = 1, 64, 128
# Durations by default, in units of the longest relaxation time on the way.
_DURATIONS = (4.0, 8.0, 16.0, 32.0)
# Where a geodesic is kept in the file.
_SHARES = np.linspace(0.0, 1.0, 257)


@documented(Drive)
def drive(
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
    end: tuple[float, ...] = (1.0,),
    taus: tuple[float, ...] | None = None,
    work_particles: int = 2**18,
    seed: int = 0,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> DriveResult:
    """Excess work of protocols from theta to ``end``: the geodesic, the straight line, and least work.

    The geodesic is that of the exact friction tensor; where nobody knows it, of the one that is measured over ``grid``.
    Protocols of least work are found in one dimension, by the Fokker-Planck equation.  The metric is measured too, as
    by `measure`.

    Parameters
    ----------
    {parameters}

    Returns
    -------
    DriveResult
        ``works``, one a protocol and duration, each beside what slow driving predicts and, in one dimension, its exact
        value; ``geodesic``; ``least``, the protocols of least work; and all that `measure` returns.

    Raises
    ------
    InputError
        Before any ensemble runs, for input that cannot run.
    RunError
        For a run that cannot go on.
    Stopped
        After Ctrl-C (a KeyboardInterrupt), with all that is complete saved.

    Examples
    --------
    >>> from thermorun import metric
    >>> result = metric.drive("trap", end=1.0, taus=4.0, particles=8192, work_particles=8192)
    >>> result.of("geodesic")[0].predicted
    0.25
    """
    spec = Drive(**given(Drive, locals()))
    result: DriveResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress)
    return result


def run(spec: Drive, under_way: Session) -> DriveResult:
    """Runs a spec: see `drive`."""
    spec, system = begin(spec, under_way)
    delta_f = _delta_free_energy(spec, system)
    exact = exact_values(spec, system, under_way)
    found = _plan_exact(spec, system, under_way)
    file = under_way.open(spec, lambda file: _lay_out(file, spec, system, delta_f))
    measured = measure_points(spec, system, exact, under_way)
    if found is None:
        with under_way.unsaved():
            found = _plan_measured(spec, system, measured, under_way)
    _keep(file, found)
    _drive_all(spec, system, found, under_way)
    works = [work.excess_work for work in _read_works(file, spec, file.read("works"))]
    means, stderrs = np.array([[one.mean, one.stderr] for one in works]).T.reshape(2, len(found.taus), -1)
    file.write_whole("works", {"excess_work": means, "excess_work_stderr": stderrs})
    return read(file, spec)


def read(file: RunFile, spec: Drive) -> DriveResult:
    """The results in a file: of the points, and of the protocols, that are complete."""
    path, table = file.read("geodesic"), file.read("works")
    known = bool(np.all(np.isfinite(table["tau"])))
    found = Geodesic.through(_SHARES, path["theta"], *path["size"].tolist()) if known else None
    return DriveResult(
        **origin(file, spec), **read_points(file, spec), geodesic=found, least=_read_least(file, spec) if known else (),
        works=_read_works(file, spec, table),
    )  # fmt: skip


def _read_works(file: RunFile, spec: Drive, table: dict[str, Array]) -> tuple[Work, ...]:
    names = tuple(name.decode() for name in table["protocol"])
    chunks, drives = len(_chunks(spec)), file.read("drives")
    works = []
    for index in range(file.committed("drives") // chunks):
        d, k = divmod(index, len(names))
        rows = range(index * chunks, (index + 1) * chunks)
        # One after the other, so that bits do not depend on how a library adds.
        mean, square = (sum(float(drives[name][row]) for row in rows) / spec.work_particles for name in _SUMS)
        stderr = np.sqrt(max(square - mean**2, 0.0) / (spec.work_particles - 1))
        works.append(
            Work(
                protocol=names[k],
                tau=float(table["tau"][d]),
                excess_work=Estimate(mean - file.noted("delta_free_energy", float), float(stderr), spec.work_particles),
                predicted=float(table["excess_work_predicted"][d, k]),
                exact=float(table["excess_work_exact"][d, k]),
            )
        )
    return tuple(works)


_SUMS = ("work", "work_square")


def _read_least(file: RunFile, spec: Drive) -> tuple[LeastWork, ...]:
    table = file.read("works")
    if "knots" not in table:
        return ()
    values = table["excess_work_exact"][:, PROTOCOLS.index("optimal")]
    ends = np.array(spec.theta), np.array(spec.end)
    return tuple(
        LeastWork(*ends, tau, shares(), knots, value)
        for tau, knots, value in zip(table["tau"].tolist(), table["knots"], values.tolist(), strict=True)
    )


@dataclass(frozen=True)
class Plan:
    """What is driven: a geodesic, durations, in one dimension protocols of least work; and what is known of them.

    ``predicted`` and ``exact`` are (durations, protocols): by slow driving, or the minimum found; and by the
    Fokker-Planck equation, NaN in more than one dimension.  ``dt`` is the time step.
    """

    geodesic: Geodesic
    taus: tuple[float, ...]
    least: tuple[LeastWork, ...]
    predicted: Array
    exact: Array
    dt: float

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols that are driven."""
        return PROTOCOLS if self.least else PROTOCOLS[:2]

    def theta(self, duration: int, protocol: str) -> Callable[[Array], Array]:
        """theta (n, p) at shares (n,) of a duration, between the jumps."""
        paths = {"geodesic": self.geodesic.path, "line": self.geodesic.straight}
        return paths[protocol] if protocol in paths else self.least[duration].theta

    def path(self, spec: Drive, duration: int, protocol: str) -> tuple[Array, Array]:
        """theta at the jumps of a protocol (steps + 2, p), and the waits after each (steps + 1,)."""
        tau = self.taus[duration]
        steps = int(np.ceil(tau / self.dt))
        path = self.theta(duration, protocol)
        jumps, waits = midpoints(np.asarray(path(np.linspace(0.0, 1.0, steps + 1))), tau / steps)
        # Where theta jumps at the ends, it jumps from and to the points themselves.
        jumps[0], jumps[-1] = spec.start, self.geodesic.end
        return jumps, waits


def _plan_exact(spec: Drive, system: System, under_way: Session) -> Plan | None:
    """Along the geodesic of the exact friction tensor; None where nobody knows it."""
    with on_threads(1):
        if system.exact(spec.start) is None:
            _require_covered(spec, system.potential)
            return None
        under_way.stage("geodesic", 0, "")

        found = geodesic(_friction(spec, system), spec.start, spec.end)
        on_the_way = [system.exact(theta) for theta in found.path(np.linspace(0, 1, 9))]
        times = np.concatenate([np.diag(one.relaxation) for one in on_the_way if one is not None])
        return _plan(spec, system, found, (float(times.min()), float(times.max())), under_way)


def _friction(spec: Drive, system: System) -> Callable[[Array], Array]:
    """The exact friction tensor: between the two ends on one quadrature, beyond them on one for every theta.

    A geodesic asks for it some two thousand times.
    """
    ends = np.array([spec.start, spec.end])
    margin = 0.1 * np.ptp(ends, axis=0)
    low, high = ends.min(axis=0) - margin, ends.max(axis=0) + margin
    line = np.linspace(ends[0], ends[1], 5)
    theory = Theory(system, list(line)) if all(system.exact(theta) is not None for theta in line) else None

    def friction(theta: Array) -> Array:
        if theory is not None and np.all(theta >= low) and np.all(theta <= high):
            return np.asarray(theory.at(system.potential.require_valid(theta)).friction)
        found = system.exact(theta)
        if found is None:
            raise InputError(f"theta is {words(theta.tolist())} on the way to end, where no metric is known.")
        return np.asarray(found.friction)

    return friction


def _plan_measured(spec: Drive, system: System, measured: list[Measured], under_way: Session) -> Plan:
    """Along the geodesic of the friction tensor that was measured over the grid."""
    places = {system.potential.parameters.index(name): count for name, _, _, count in spec.grid}
    free = sorted(places)
    points = spec.points(system.potential)[:, free]
    zeta = np.array([np.asarray(one.friction)[np.ix_(free, free)] for one in measured])
    tensor = smoothed(points, zeta, [places[k] for k in free])
    start, end = np.array(spec.start), np.array(spec.end)
    under_way.stage("geodesic", 0, "")
    found = geodesic(tensor, start[free].tolist(), end[free].tolist())
    whole = np.broadcast_to(start, (*found.path.c.shape[:1], len(start))).copy()
    whole[:, free] = found.path.c
    path = type(found.path)(found.path.t, whole, found.path.k)
    times = np.concatenate([np.diag(np.asarray(one.relaxation)) for one in measured])
    bounds = float(np.nanmin(times)), float(np.nanmax(times))
    with on_threads(1):
        return _plan(spec, system, Geodesic(start, end, path, found.length, found.line), bounds, under_way)


def _plan(spec: Drive, system: System, found: Geodesic, times: tuple[float, float], under_way: Session) -> Plan:
    """Durations, in one dimension the protocols of least work, and what is known of every work."""
    potential, (shortest, longest) = system.potential, times
    potential.require_valid(found.path(np.linspace(0, 1, 129)), "the geodesic to end")
    # Three digits, so that the table tells the durations that were driven.
    taus = tuple(float(f"{longest * n:.3g}") for n in _DURATIONS) if spec.taus is None else spec.taus
    dt = min(spec.step_at(system, theta) for theta in np.linspace(spec.start, spec.end, 5))
    predicted = np.array([[found.excess_work(tau), found.line_excess_work(tau)] for tau in taus])
    if potential.dimension > 1:
        return Plan(found, taus, (), predicted, np.full_like(predicted, np.nan), dt)
    optima, exact = [], []
    under_way.stage("protocols of least work", len(taus), "durations")
    for tau in taus:
        problem = FokkerPlanck(
            *functions(potential), spec.start, spec.end, tau, beta=spec.beta, mobility=spec.mobility,
            domain=potential.domain.sides[0],
        )  # fmt: skip
        waits = int(np.clip(np.ceil(_WAITS_EACH * tau / shortest), _FEWEST_WAITS, _MOST_WAITS))
        # Along the geodesic with jumps as wide as a relaxation time at each end: for the trap that is the optimum.
        optima.append(least(problem, partial(_inside, found, longest / (tau + 2 * longest)), waits))
        potential.require_valid(optima[-1].knots, "the protocol of least work to end")
        both = [problem.excess_work(path, waits) for path in (found.path, found.straight)]
        exact.append([*both, optima[-1].excess_work])
        under_way.advance(1)
    minima = np.array([[one.excess_work] for one in optima])
    return Plan(found, taus, tuple(optima), np.hstack([predicted, minima]), np.array(exact), dt)


def _inside(found: Geodesic, skip: float, s: Array) -> Array:
    """The geodesic without a share ``skip`` at each end."""
    return np.asarray(found.path(skip + (1 - 2 * skip) * s))


def _delta_free_energy(spec: Drive, system: System) -> float:
    """F(end) - F(theta), which tells excess work from work.  Raises InputError where nobody knows it."""
    potential = system.potential
    ends = [system.exact(theta) for theta in (spec.start, spec.end)]
    values = [np.nan if one is None else one.free_energy for one in ends]
    if not np.all(np.isfinite(values)):
        if potential.free_energy is None:
            raise InputError(
                f"end needs Delta F, to tell excess work from work; give {potential.name} a free_energy function."
            )
        values = [potential.free_energy(theta, spec.beta) for theta in (spec.start, spec.end)]
    return float(values[1] - values[0])


def _require_covered(spec: Drive, potential: Potential) -> None:
    """Raises InputError where a geodesic needs a metric that is measured, and the grid does not hold both points."""
    ranges = {name: (min(a, b), max(a, b)) for name, a, b, _ in spec.grid}
    for name, *values in zip(potential.parameters, spec.start, spec.end, strict=True):
        low, high = ranges.get(name, (values[0], values[0]))
        if not all(low <= value <= high for value in values):
            raise InputError(
                f"end needs the metric between both points, and that of {potential.name} is only known where it is"
                f" measured; give a grid over {name} that holds {values[0]:g} and {values[1]:g}."
            )


def _chunks(spec: Drive) -> list[int]:
    """Particles of each chunk of a protocol."""
    return [min(_CHUNK, spec.work_particles - first) for first in range(0, spec.work_particles, _CHUNK)]


def _drive_all(spec: Drive, system: System, plan: Plan, under_way: Session) -> None:
    """Drives every chunk of every protocol that the file does not have yet."""
    file, chunks = under_way.file, _chunks(spec)
    drives = list(itertools.product(range(len(plan.taus)), plan.protocols, chunks))
    done = file.committed("drives")
    under_way.stage("drives", len(drives), "chunks")
    under_way.advance(done)
    rows = range(done, len(drives))
    for row, sums in zip(rows, under_way.each(partial(_drive, spec, system, plan, drives), rows), strict=True):
        file.write("drives", row, sums)
        under_way.pause()


def _drive(
    spec: Drive, system: System, plan: Plan, drives: list[tuple[int, str, int]], row: int, under_way: UnderWay
) -> dict[str, Array]:
    """The sums of one chunk."""
    duration, protocol, count = drives[row]
    path, waits = plan.path(spec, duration, protocol)
    noise = streams.metric_drive(spec.seed, row)
    x = system.equilibrium(spec.start, count, seed=noise, precision=spec.precision)
    driven = system.drive(x, path, dt=waits, integrator=spec.integrator, seed=noise)
    under_way.advance(1)
    return {"work": np.array([driven.work.sum()]), "work_square": np.array([np.sum(driven.work**2)])}


def _keep(file: RunFile, plan: Plan) -> None:
    """Everything that is known before the drives, into the file."""
    size = np.array([plan.geodesic.length, plan.geodesic.line])
    file.write_whole("geodesic", {"theta": np.asarray(plan.geodesic.path(_SHARES)), "size": size})
    works: dict[str, Any] = {
        "tau": np.array(plan.taus), "excess_work_predicted": plan.predicted, "excess_work_exact": plan.exact,
    }  # fmt: skip
    if plan.least:
        works["knots"] = np.array([one.knots for one in plan.least])
    file.write_whole("works", works)


def _lay_out(file: RunFile, spec: Drive, system: System, delta_f: float) -> None:
    file.note(delta_free_energy=delta_f)
    rows = lay_out_points(file, spec, system)
    one = system.potential.dimension == 1
    names, count = PROTOCOLS if one else PROTOCOLS[:2], len(_DURATIONS if spec.taus is None else spec.taus)
    parameter = Axis("parameter", np.array(system.potential.parameters), "1", "parameter")
    share = Axis("share", _SHARES, "1", "t / tau")
    measure = Axis("measure", np.array(["length", "line"]), "1", "of the geodesic, of the straight line")
    about = "length of the geodesic, energy^(1/2) time^(1/2); integral of theta'^T zeta theta' ds along the line"
    file.add_section(
        "geodesic",
        [share, parameter, measure],
        [
            Variable("theta", ("share", "parameter"), "parameter", "the geodesic at constant speed"),
            Variable("size", ("measure",), "1", about),
        ],
    )
    rows["drives"] = count * len(names) * len(_chunks(spec))
    drive = Axis("drive", np.arange(rows["drives"]), "1", "a chunk of particles under one protocol")
    sums = [
        Variable("work", ("drive",), "energy", "sum of work over the chunk"),
        Variable("work_square", ("drive",), "energy^2", "sum of its square"),
    ]
    file.add_section("drives", [drive], sums)
    duration = Axis("duration", np.arange(count), "1", "number of the duration")
    both = ("duration", "protocol")
    works = [
        Variable("tau", ("duration",), "time", "duration of the protocol"),
        Variable("excess_work", both, "energy", "mean excess work"),
        Variable("excess_work_stderr", both, "energy", "its standard error"),
        Variable("excess_work_predicted", both, "energy", "slow driving's value, or the minimum found"),
        Variable("excess_work_exact", both, "energy", "the Fokker-Planck equation's value"),
    ]
    knot = Axis("knot", shares(), "1", "share of tau at which the protocol of least work has a knot")
    if one:
        works.append(Variable("knots", ("duration", "knot", "parameter"), "parameter", "of the protocol of least work"))
    axes = [duration, Axis("protocol", np.array(names), "1", "protocol"), *((knot, parameter) if one else ())]
    file.add_section("works", axes, works)
    file.publish(rows)
