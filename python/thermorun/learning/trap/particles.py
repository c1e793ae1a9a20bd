"""The particles of a protocol while they run: what kernels are given, and what a checkpoint keeps."""

import numpy as np
from numpy.typing import NDArray

from thermokernels import random, trap
from thermorun.arrays import Array
from thermorun.learning.trap.plan import Plan
from thermorun.learning.trap.protocols import Path
from thermorun.learning.trap.recorder import SERIES
from thermorun.learning.trap.spec import ExcessWork

Mask = NDArray[np.bool_]
Trace = tuple[NDArray[np.intp], dict[str, Array]]


class Ensemble:
    """Particles, and all that the rest of their run depends on."""

    def __init__(self, plan: Plan) -> None:
        spec = plan.spec
        self.plan, self.target = plan, plan.targets()
        self.blocks = -(-spec.particles // random.BLOCK)
        self.x: Array = np.empty((plan.replicas, self.blocks * random.BLOCK), spec.precision)
        self.sums = np.zeros((plan.replicas, self.blocks, 3))
        self.noise = plan.noise("dynamics")

    @property
    def state(self) -> dict[str, Array]:
        """The arrays that a checkpoint keeps."""
        raise NotImplementedError

    def start(self) -> None:
        """Draws x at time 0."""
        spec = self.plan.spec
        noise = self.plan.noise("start")
        trap.spread(self.x, spec.particles, self.plan.u0, 1 / np.sqrt(spec.beta), noise, self.sums)

    def advance(self, first: int, last: int, recorded: Mask) -> Trace:
        """Takes steps ``first`` to ``last``; returns the points traced and their trace, as for ``Recorder.record``."""
        raise NotImplementedError


class ClosedLoop(Ensemble):
    """Closed loop.  ``centres`` (replicas, points + 1) collects theta before the first jump and after each."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        replicas = plan.replicas
        self.mean = np.tile([plan.trap.theta0, 0.0], (replicas, 1))
        self.responses = np.zeros((replicas, 4, self.blocks * plan.spec.split))
        self.centres = np.full((replicas, plan.scheme.points + 1), plan.trap.theta0)

    def start(self) -> None:
        super().start()
        trap.start_responses(self.x, self.plan.spec.particles, self.responses)

    @property
    def state(self) -> dict[str, Array]:
        return {name: getattr(self, name) for name in ("x", "sums", "mean", "responses", "centres")}

    def advance(self, first: int, last: int, recorded: Mask) -> Trace:
        plan = self.plan
        trace = np.empty((last - first, plan.replicas, len(trap.LEARN_COLUMNS)))
        trap.learn(
            self.x, plan.spec.particles, first, plan.scheme.steps[first:last], self.target[first:last],
            self.noise, self.mean, self.sums, self.responses, trace,
        )  # fmt: skip
        columns = {name: trace[:, :, i] for i, name in enumerate(trap.LEARN_COLUMNS)}
        self.centres[:, first + 1 : last + 1] = columns["theta"].T
        return np.arange(first, last), columns


class OpenLoop(Ensemble):
    """Open loop, each particle's work and heat kept: along a path, or again along what a closed loop learned.

    With a closed loop's ``centres`` it has that loop's noise, so its particles are the same ones.
    """

    def __init__(self, plan: Plan, centres: Array) -> None:
        super().__init__(plan)
        self.centres = np.broadcast_to(centres, (plan.replicas, plan.scheme.points + 1))
        self.work = np.zeros(self.x.shape)
        self.heat = np.zeros(self.x.shape)

    @property
    def state(self) -> dict[str, Array]:
        return {name: getattr(self, name) for name in ("x", "work", "heat")}

    def advance(self, first: int, last: int, recorded: Mask) -> Trace:
        plan, particles = self.plan, self.plan.spec.particles
        points = first + np.flatnonzero(recorded[first:last])
        record = np.empty((len(points), plan.replicas, self.blocks, len(trap.DRIVE_COLUMNS)))
        trap.drive(
            self.x, self.work, self.heat, particles, first, plan.scheme.steps[first:last],
            self.centres[:, first : last + 1].copy(), self.noise, points - first, record,
        )  # fmt: skip
        means = dict(zip(trap.DRIVE_COLUMNS, np.moveaxis(record.sum(axis=2), -1, 0) / particles, strict=True))
        spare = particles - 1 if particles > 1 else np.nan
        return points, {
            "u": means["x"],
            "theta": self.centres.T[points + 1],
            "work": means["work"],
            "heat": means["heat"],
            "square": means["square"],
            "var_u": (means["square"] - means["x"] ** 2) / spare,
            "var_theta": np.zeros_like(means["x"]),
            "var_work": (means["work_square"] - means["work"] ** 2) / spare,
        }


def ensemble(plan: Plan) -> Ensemble:
    """The ensemble that a plan asks for."""
    return ClosedLoop(plan) if plan.scheme.centres is None else OpenLoop(plan, plan.scheme.centres)


def memory(spec: ExcessWork) -> float:
    """Bytes that a resolved spec takes: the particles of the largest of its protocols, and all steps and records."""
    closed = [not isinstance(protocol, Path) for protocol in spec.built().values()]
    each = np.dtype(spec.precision).itemsize
    if spec.keep_work or not all(closed):
        each += 2 * np.dtype(float).itemsize
    steps, rows = float(spec.steps or 0) * (3 if spec.check_dt else 1), min(spec.records, spec.steps or 0) + 8
    table = len(closed) * (steps * (80 + 8) + rows * spec.replicas * len(SERIES) * 8)
    return float(spec.particles) * spec.replicas * each + table + steps * spec.replicas * 24


def compile_kernels(spec: ExcessWork) -> None:
    """Compiles the kernels that a spec needs, or loads them from the cache, so that no timing counts it."""
    small = spec.replace(particles=1, replicas=1, records=1, snapshots=0, samples=None, minibatch=None)
    for plan in Plan.of(small):
        particles = ensemble(plan)
        particles.start()
        nothing = np.zeros(plan.scheme.points, bool)
        particles.advance(0, 1, nothing)
        if spec.keep_work and isinstance(particles, ClosedLoop):
            OpenLoop(plan, particles.centres).advance(0, 1, nothing)
