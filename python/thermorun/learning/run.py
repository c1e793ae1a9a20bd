"""Closed-loop learning, rule by rule."""

import time as clock
from pathlib import Path

import numpy as np

from thermorun.arrays import Array
from thermorun.learning.data import Sample
from thermorun.learning.loop import Loop, first_row, row
from thermorun.learning.problem import Plan, Problem, compile_kernels, ready
from thermorun.learning.result import LearnResult, lay_out, read, stored_constant, stored_points
from thermorun.learning.spec import Learn
from thermorun.potentials import Potential
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import RunFile

__all__ = ["learn", "read", "run"]


@documented(Learn)
def learn(
    potential: str | Potential = "double-well",
    rules: tuple[str, ...] = ("natural", "gradient"),
    theta: tuple[float, ...] | None = None,
    target: tuple[float, ...] | None = None,
    data: str | Path | Array | Sample | None = None,
    samples: int | None = None,
    beta: float = 1.0,
    mobility: float = 1.0,
    tau: float = 10.0,
    accuracy: float | None = None,
    eta: float | None = None,
    metric: str = "theory",
    refresh: int | None = None,
    ridge: float = 1e-3,
    side: int = 4096,
    particles: int = 2**16,
    replicas: int = 8,
    steps: int | None = None,
    integrator: str | None = None,
    precision: str = "float64",
    records: int = 100,
    fingerprint: str | None = None,
    seed: int = 0,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> LearnResult:
    """Learning in closed loop: theta follows the particles that share it (Hnybida & Verret 2025, Eqs. 8 and 9).

    It starts in equilibrium at ``theta``.  The data are those of p_m(x, target), as exact means or as finite
    ``samples``, or points of your own.  With ``accuracy`` the rules natural and scalar look to a horizon later than
    tau, and stop at tau; without it the horizon is tau, as in the paper.

    Parameters
    ----------
    {parameters}

    Returns
    -------
    LearnResult
        For every rule theta(t), work, heat, excess work, the bias of the objective and the loss, beside those of
        infinitely many particles where theory is known.  Errors come from the spread of the replicas.

    Raises
    ------
    InputError
        Before any work, for input that cannot run.
    RunError
        For a run that cannot go on: particles or theta diverged.
    Stopped
        After Ctrl-C (a KeyboardInterrupt), with all that is done saved.

    Examples
    --------
    >>> from thermorun import learning
    >>> run = learning.learn("stiffness", rules="natural", particles=2048, tau=2.0)
    >>> rule = run["natural"]
    >>> float(rule.theta_final[0]) > 2.5
    True
    """
    spec = Learn(**given(Learn, locals()))
    result: LearnResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress)
    return result


def run(spec: Learn, under_way: Session) -> LearnResult:
    """Runs a spec: see `learn`."""
    under_way.stage("planning", 0, "rules")
    spec = spec.resolved()
    problem = Problem(spec, _points(spec, under_way))
    mine = under_way.part(spec.replicas)
    under_way.require_memory(problem.of(mine).memory(), f"particles is {spec.particles}")
    compile_kernels(problem)
    plans = [] if under_way.resuming else ready(problem, spec.rules)
    kept = under_way.smaller.replicas if isinstance(under_way.smaller, Learn) else 0
    file = under_way.open(spec, lambda file: lay_out(file, plans, kept))
    rest = problem.of(mine[file.noted("kept_replicas", int) :])
    plans = [Plan(rest, rule, stored_constant(file, rule)) for rule in spec.rules]
    size = spec.particles * rest.spec.replicas
    under_way.stage("learn", len(plans) * (spec.step_count + 1) * size, "steps")
    for plan in plans:
        if file.committed(plan.rule) == len(plan.time):
            under_way.advance((spec.step_count + 1) * size)
        else:
            _finish(plan, under_way)
    under_way.end_of_shard()
    return read(file, spec)


def extended(spec: Learn, smaller: Learn) -> dict[str, int]:
    """Rows of each section that are the same with more replicas: none, for a row holds all replicas."""
    return {}


def _points(spec: Learn, under_way: Session) -> Array | None:
    """The user's own data: as given, or in the file to go on with."""
    begun = under_way.resuming or under_way.smaller is not None
    if spec.sample is None or spec.sample.x is not None or not begun or under_way.out is None:
        return None if spec.sample is None else spec.sample.x
    with RunFile.open_to_read(under_way.out) as file:
        return stored_points(file)


def _finish(plan: Plan, under_way: Session) -> None:
    """Runs one rule to its end, from the start or from the checkpoint."""
    spec, file = plan.spec, under_way.file
    size = spec.particles * spec.replicas
    loop = Loop(plan, spec.particles, plan.noise("dynamics"), plan.noise("side"))
    stored = file.load_checkpoint() if under_way.resuming else None
    # Of the replicas that were there before.
    before = file.noted("kept_replicas", int)
    kept = {name: values[:, :before] for name, values in file.read(plan.rule).items() if values.ndim > 1}

    def write(number: int, values: dict[str, Array]) -> None:
        both = {name: np.concatenate([kept[name][number : number + 1], new], axis=1) for name, new in values.items()}
        file.write(plan.rule, number, both)

    first = 0
    if stored is not None and str(stored.pop("rule")) == plan.rule:
        first = int(stored.pop("point"))
        loop.restore(stored)
        under_way.advance(first * size)
    else:
        loop.begin()
        write(0, first_row(loop))
    rows = {point: number for number, point in enumerate(plan.points.tolist(), 1)}
    began = clock.monotonic()
    for n in range(first, spec.step_count + 1):
        jump = loop.jump(n)
        energy, heat = loop.mean_energy(jump.new) if n in rows else None, loop.state.heat
        loop.relax(n, jump)
        if energy is not None:
            write(rows[n], row(loop, energy, heat))
        under_way.advance(size)
        done = n + 1
        under_way.pause(
            lambda done=done: {"rule": np.array(plan.rule), "point": np.array(done)} | loop.checkpoint()  # type: ignore[misc]
        )
    speed = (spec.step_count + 1 - first) * size / max(clock.monotonic() - began, 1e-9)
    file.write_whole(plan.rule, {"particle_steps_per_second": np.array([speed])})
