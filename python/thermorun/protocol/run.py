"""Searches for a protocol, round by round, and then measures it beside the straight line."""

import math
from functools import partial
from pathlib import Path

import numpy as np

from thermokernels.random import BLOCK
from thermorun.arrays import Array
from thermorun.cluster import UnderWay
from thermorun.errors import InputError
from thermorun.potentials import Potential, System, path_means
from thermorun.potentials.fokker_planck import FokkerPlanck
from thermorun.potentials.least_work import KNOTS, least, shares
from thermorun.potentials.quadrature import NotConverged
from thermorun.potentials.staircase import Row
from thermorun.protocol import objectives
from thermorun.protocol.objectives import Distance, Objective, Work, WorkVariance
from thermorun.protocol.result import ProtocolResult, read, rows_of
from thermorun.protocol.search import Problem, Searched, improved, refined
from thermorun.protocol.spec import Protocol
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import Axis, RunFile, Variable
from thermorun.threads import on_threads

__all__ = ["find", "read", "run"]

# Blocks of a row of the result; waits of the Fokker-Planck equation, for the protocol of least work.
_ROW, _WAITS = 32, 128


@documented(Protocol)
def find(
    potential: str | Potential = "trap",
    start: tuple[float, ...] | None = None,
    end: tuple[float, ...] | None = None,
    tau: float = 1.0,
    objective: str = "work",
    guess: tuple[Row, ...] | None = None,
    knots: int = 17,
    steps: int | None = None,
    search_particles: int = 2**16,
    iterations: int = 100,
    particles: int = 2**17,
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
) -> ProtocolResult:
    """The path of theta between two points that is best for an objective, jumps at both ends included.

    Gradients are those of the noisy steps themselves (`System.path_gradient`); L-BFGS searches on common noise, knots
    coarse to fine.  Every round is judged on fresh noise, and what only fits the noise of its search is dropped.

    Parameters
    ----------
    {parameters}

    Returns
    -------
    ProtocolResult
        The path, what its objective is on noise that the search never saw, beside that of the straight line, of the
        guess, and what is known exactly.

    Raises
    ------
    InputError
        Before any work, for input that cannot run.
    RunError
        For a run that cannot go on.
    Stopped
        After Ctrl-C (a KeyboardInterrupt), with all complete rounds saved.

    Examples
    --------
    >>> from thermorun import protocol
    >>> found = protocol.find("trap", end=1.0, tau=1.0, search_particles=8192, particles=8192)
    >>> found.first_jump.round(1), found.exact["found"].round(3)
    (array([0.3]), 0.333)
    """
    spec = Protocol(**given(Protocol, locals()))
    result: ProtocolResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress)
    return result


def run(spec: Protocol, under_way: Session) -> ProtocolResult:
    """Runs a spec: see `find`."""
    spec = spec.resolved()
    _require_memory(spec, under_way)
    system = spec.system
    problem = Problem(spec, system, _objective(spec, system))
    file = under_way.open(spec, partial(_lay_out, problem=problem))
    knots = _search(problem, file, under_way)
    _measure(problem, file, knots, under_way)
    if np.all(np.isnan(file.read("paths")["exact"])):
        with under_way.unsaved(), on_threads(1):
            _know(problem, file, knots, under_way)
    return read(file, spec)


def _require_memory(spec: Protocol, under_way: Session) -> None:
    dimension, steps = spec.system.potential.dimension, int(spec.steps or 0)
    most = max(spec.search_particles, _ROW * int(BLOCK))
    states = math.isqrt(steps) + 6
    under_way.require_memory(8 * most * (dimension + 2) * states, f"search_particles is {spec.search_particles}")


def _delta_f(system: System, spec: Protocol) -> float | None:
    """F(end) - F(start) where it is known."""
    first, last = (path_means.free_energy(system, theta) for theta in spec.ends)
    return None if first is None or last is None else last - first


def _objective(spec: Protocol, system: System) -> Objective:
    delta_f = _delta_f(system, spec)
    if spec.objective == objectives.TARGET:
        return Distance.of(system, spec.ends[1], spec.seed)
    if spec.objective == objectives.FREE_ENERGY:
        return WorkVariance(spec.beta, _typical_work(spec, system) if delta_f is None else delta_f)
    return Work(spec.beta, delta_f)


def _typical_work(spec: Protocol, system: System) -> float:
    """The mean work along the straight line, by few particles: a number near which exponentials do not overflow."""
    problem = Problem(spec, system, Work(spec.beta, None))
    x = problem.start("check", len(spec.rounds), int(BLOCK))
    line = problem.stairs(spec.line(shares(spec.knots)))
    return float(np.mean(problem.driven(x, *line, "check", len(spec.rounds))[0]))


def _search(problem: Problem, file: RunFile, under_way: Session) -> Array:
    """All rounds that the file does not have yet; the knots after the last."""
    spec, done = problem.spec, file.committed("search")
    under_way.stage("search", len(spec.rounds) * spec.iterations, "iterations")
    under_way.advance(done * spec.iterations)
    knots = spec.first(shares(spec.rounds[0][0]))
    if done:
        knots = file.read("search")["knots"][done - 1][: spec.rounds[done - 1][0]]

    def tick(amount: int) -> None:
        under_way.advance(amount)
        under_way.pause()

    for number in range(done, len(spec.rounds)):
        found = improved(problem, refined(knots, spec.rounds[number][0]), number, tick)
        under_way.advance(spec.iterations - len(found.values))
        file.write("search", number, _row(spec, found))
        knots = found.knots
        under_way.pause()
    return np.asarray(knots)


def _row(spec: Protocol, found: Searched) -> dict[str, Array]:
    knots, values = np.full((spec.knots, found.knots.shape[1]), np.nan), np.full(spec.iterations, np.nan)
    knots[: len(found.knots)], values[: len(found.values)] = found.knots, found.values
    gain = {"gain": np.array([found.gain.mean]), "gain_stderr": np.array([found.gain.stderr])}
    return {"knots": knots[None], "value": values[None], "returns": np.array([found.returns])} | gain


def _paths(spec: Protocol, knots: Array) -> list[Array]:
    """The knots of all paths that are measured, (K, p) each."""
    at = shares(spec.knots)
    return [spec.line(at), *([] if spec.guess is None else [spec.first(at)]), knots]


def _measure(problem: Problem, file: RunFile, knots: Array, under_way: Session) -> None:
    """All paths on the same noise, row of particles by row."""
    done, total = file.committed("result"), _rows(problem.spec)
    under_way.stage("result", total, "rows")
    under_way.advance(done)
    rows = range(done, total)
    part = partial(_measured, problem, _paths(problem.spec, knots))
    for row, moments in zip(rows, under_way.each(part, rows), strict=True):
        file.write("result", row, {"moments": moments})
        under_way.pause()


def _measured(problem: Problem, paths: list[Array], row: int, under_way: UnderWay) -> Array:
    """Means over each block of one row's particles, (1, paths, 1 + moments, blocks)."""
    spec = problem.spec
    blocks = min(_ROW, spec.particles // int(BLOCK) - row * _ROW)
    x = problem.start("result", row, blocks * int(BLOCK))
    found = np.full((1, len(paths), 1 + problem.objective.count, _ROW), np.nan)
    for index, knots in enumerate(paths):
        each = problem.driven(x, *problem.stairs(knots), "result", row)
        found[0, index, :, :blocks] = each.reshape(len(each), blocks, int(BLOCK)).mean(axis=2)
    under_way.advance(1)
    return found


def _rows(spec: Protocol) -> int:
    return -(-spec.particles // (_ROW * int(BLOCK)))


def _know(problem: Problem, file: RunFile, knots: Array, under_way: Session) -> None:
    """What is known without noise, into the file: mean works, and in one dimension the protocol of least work."""
    spec, system = problem.spec, problem.system
    under_way.stage("exact works", 0, "")
    paths = np.stack(_paths(spec, knots))
    works = np.full(len(paths), np.nan)
    for index, path in enumerate(paths):
        rows = rows_of(spec, path)
        known = path_means.means(system, np.column_stack([rows, np.full(len(rows), 1 / spec.beta)]))
        works[index] = np.nan if known is None else known.work
    best, value = np.full((KNOTS, len(spec.ends[0])), np.nan), np.nan
    if system.potential.dimension == 1 and spec.objective == objectives.WORK:
        best, value = _least(spec, system)
    file.write_whole("paths", {"theta": paths, "exact": works})
    file.write_whole("least", {"theta": best, "excess_work": np.array([value])})


def _least(spec: Protocol, system: System) -> tuple[Array, float]:
    """The protocol of least work by the Fokker-Planck equation: knots and excess work, NaN where none is found."""
    potential = system.potential
    side = potential.domain.sides[0]
    try:
        grid = FokkerPlanck(
            potential.energies, potential.gradients, spec.ends[0].tolist(), spec.ends[1].tolist(), spec.tau,
            beta=spec.beta, mobility=spec.mobility, domain=side,
        )  # fmt: skip
        found = least(grid, spec.line, _WAITS)
    except (InputError, NotConverged):
        return np.full((KNOTS, len(spec.ends[0])), np.nan), np.nan
    return found.knots, found.excess_work


def _lay_out(file: RunFile, problem: Problem) -> None:
    spec, potential = problem.spec, problem.system.potential
    if (delta_f := _delta_f(problem.system, spec)) is not None:
        file.note(delta_f=delta_f)
    if isinstance(problem.objective, Distance):
        file.note(wanted=problem.objective.wanted)
    parameter = Axis("parameter", np.array(potential.parameters), "1", "parameter")
    knot = Axis("knot", np.arange(spec.knots), "1", "number of the knot; the shares of tau are those of the last round")
    number = Axis("round", np.arange(len(spec.rounds)), "1", "round of the search")
    iteration = Axis("iteration", np.arange(spec.iterations), "1", "of L-BFGS")
    searched = [
        Variable("knots", ("round", "knot", "parameter"), "parameter", "theta at the knots after a round"),
        Variable("value", ("round", "iteration"), "objective", "of the search, on its own noise"),
        Variable("gain", ("round",), "objective", "change of the objective by a round, on fresh noise"),
        Variable("gain_stderr", ("round",), "objective", "its standard error"),
        Variable("returns", ("round",), "1", "times a path left the valid region and was moved back", "int64"),
    ]
    file.add_section("search", [number, knot, parameter, iteration], searched)
    path = Axis("path", np.array(list(spec.paths)), "1", "path")
    row = Axis("row", np.arange(_rows(spec)), "1", "row of particles")
    block = Axis("block", np.arange(_ROW), "1", "block of 1,024 particles")
    moment = Axis("moment", np.arange(1 + problem.objective.count), "1", "the work, then those of the objective")
    about = "means over a block's particles of their work, and of what the objective follows from"
    file.add_section(
        "result", [row, path, moment, block], [Variable("moments", ("row", "path", "moment", "block"), "energy", about)]
    )
    share = Axis("share", shares(spec.knots), "1", "share of tau")
    known = [
        Variable("theta", ("path", "share", "parameter"), "parameter", "theta at the knots"),
        Variable("exact", ("path",), "energy", "mean work without noise, where it is known"),
    ]
    file.add_section("paths", [path, share, parameter], known)
    share = Axis("share", shares(KNOTS), "1", "share of tau")
    least_work = [
        Variable("theta", ("share", "parameter"), "parameter", "the protocol of least work, by Fokker-Planck"),
        Variable("excess_work", ("minimum",), "energy", "its excess work"),
    ]
    minimum = Axis("minimum", np.arange(1), "1", "the only one")
    file.add_section("least", [share, parameter, minimum], least_work)
    file.publish({"search": len(spec.rounds), "result": _rows(spec)})
