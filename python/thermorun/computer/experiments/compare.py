"""Ways to train the same machine, at equal trajectories and at equal seconds, and teachers of several kinds."""

import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from thermorun import streams
from thermorun.arrays import Array
from thermorun.computer import action, layout, teacher
from thermorun.computer.experiments.compare_results import CLOSED, EQUAL, REFERENCE, TIMED, ComparisonResult
from thermorun.computer.experiments.cycle import uncoupled
from thermorun.computer.experiments.spec import Comparison
from thermorun.computer.experiments.teachers import along
from thermorun.computer.images import Arrays, arrays, training_images
from thermorun.computer.machine import Machine
from thermorun.computer.spec import ComputerTraining
from thermorun.computer.task import Task
from thermorun.computer.teacher import Teacher
from thermorun.computer.training import as_stored, finished, fit
from thermorun.datasets import ARRAY
from thermorun.errors import InputError
from thermorun.results import origin
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import Axis, RunFile, Variable

SECTION = "training"
# A way that is so many times faster than the reference is given no more trajectories than this.
_MOST = 50
ADJOINT = "adjoint"
DECAY = "Adam, decay"
_PLAIN = {"rotation": 0.0, "shift": 0.0, "scaling": 0.0}
# Descents, and what is theirs in a training.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"method": "onsager-machlup", "optimiser": "plain"},
    "momentum": {"method": "onsager-machlup", "optimiser": "momentum"},
    REFERENCE: {"method": "onsager-machlup"},
    DECAY: {"method": "onsager-machlup"},
    ADJOINT: {"method": "adjoint", **_PLAIN},
    "augmented adjoint": {"method": "adjoint"},
}
# Teachers of the closed form: where their trajectories go, and the force that is learned there.
TEACHERS = ("alone, at kT = 0", "alone, at kT", "own states", "interacting")


class Training(NamedTuple):
    """One training: its way, its budget, and the number of its seed."""

    way: str
    budget: str
    number: int

    def __str__(self) -> str:
        return f"{self.way}, {self.budget}, #{self.number}"


@documented(Comparison)
def compare(
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    dataset: str = "digits",
    classes: tuple[int | str, ...] | None = None,
    hidden: int = 32,
    trajectories: int = 20_000,
    seeds: int = 3,
    weight_decay: float = 0.01,
    shots: int = 2,
    precision: str = "float32",
    fingerprint: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> ComparisonResult:
    """Compares ways to train the same machine, each with several seeds.

    Descents of the mean action, plain, with momentum, by Adam, with weight decay, and of the cross-entropy through the
    noise, without and with distorted images: with equal trajectories; and again with as many as each can see in the
    time that Adam took.  Then the closed form with teachers whose trajectories are of units alone at kT = 0 (the
    paper's), alone at kT, of the machine that has just been trained (its states, the same force), and of a machine that
    was trained through the noise (its states, its force).

    Parameters
    ----------
    X, y : arrays, optional
        In the place of ``dataset``: images (points, D) or (points, rows, columns), every third of them held out, and
        one label a point.
    {parameters}

    Returns
    -------
    ComparisonResult
        Accuracy of every way with its standard error, seeds and images drawn anew, and seconds.

    Raises
    ------
    InputError
        Before anything is written, for input that cannot run.
    RunError
        Where a training or a trajectory diverges, or the file cannot be written.
    Stopped
        After Ctrl-C (a KeyboardInterrupt), with all trainings that are done saved.
    """
    data = arrays(X, y)
    spec = Comparison(**given(Comparison, locals()) | ({} if data is None else {"dataset": ARRAY}))
    result: ComparisonResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress, data=data)
    return result


def run(spec: Comparison, under_way: Session, data: Arrays | None = None) -> ComparisonResult:
    """Runs a spec: see `compare`.  ``data`` are in the place of its data set."""
    if under_way.resuming and finished(spec, under_way.out):
        return read(under_way.open(spec, lambda file: None), spec)
    found = settled(spec, data)
    spec, plan = as_stored(spec.replace(**found.noted), under_way), trainings(spec)
    file = under_way.open(spec, lambda file: _lay_out(file, spec, found.task, plan))
    for row in under_way.rows(SECTION, "trainings", "trainings"):
        file.wait()
        budget = len(found.task.images.x) if plan[row].budget == CLOSED else spec.trajectories
        if plan[row].budget == TIMED:
            budget = _in_equal_time(spec, plan, file.read(SECTION)["seconds"], plan[row].way)
        with under_way.unsaved():
            hits, facts = found.measured(plan[row], budget, under_way.pause)
        numbers = {"trajectories": float(budget), "seconds": facts["train_seconds"]}
        file.write(SECTION, row, {"hits": hits[None]} | {name: np.array([one]) for name, one in numbers.items()})
    return read(file, spec)


def read(file: RunFile, spec: Comparison) -> ComparisonResult:
    """The results in a file, of the trainings that are complete.  Raises InputError where there are none yet."""
    done, stored = file.committed(SECTION), file.read(SECTION)
    if not done:
        raise InputError(f"{file.path} holds no complete training; go on with 'thermorun resume {file.path}'.")
    rows: dict[tuple[str, str], list[int]] = {}
    for row, training in enumerate(trainings(spec)[:done]):
        rows.setdefault((training.way, training.budget), []).append(row)
    return ComparisonResult(
        **origin(file, spec), shares={key: stored["hits"][mine] / spec.shots for key, mine in rows.items()},
        seconds={key: stored["seconds"][mine] for key, mine in rows.items()},
        trajectories={key: float(stored["trajectories"][mine[0]]) for key, mine in rows.items()},
        notes=layout.read_sentences(file),
    )  # fmt: skip


def trainings(spec: Comparison) -> list[Training]:
    """All trainings in their order: the times of the first tell the budgets of the second."""
    kinds = [(way, EQUAL) for way in WAYS] + [(way, TIMED) for way in WAYS if way != REFERENCE]
    kinds += [(way, CLOSED) for way in TEACHERS]
    return [Training(way, budget, number) for way, budget in kinds for number in range(spec.seeds)]


def settled(spec: Comparison, data: Arrays | None = None) -> "_Trainings":
    """The data of a comparison, read and checked.  Raises InputError."""
    images = training_images(spec.dataset, data, spec.classes)
    base = ComputerTraining(
        dataset=spec.dataset, classes=spec.classes, hidden=spec.hidden, seed=spec.seed, precision=spec.precision,
        validation=0.0, fingerprint=spec.fingerprint,
    )  # fmt: skip
    return _Trainings(spec, Task.on(base, images))


@dataclass
class _Trainings:
    """All that is trained on one data set; ``task`` is what all have in common."""

    spec: Comparison
    task: Task

    def __post_init__(self) -> None:
        self.noted = {name: self.task.noted[name] for name in ("dataset", "fingerprint")}
        self._networks: dict[int, Teacher] = {}

    def measured(self, training: Training, budget: int, pause: Callable[[], None]) -> tuple[Array, dict[str, float]]:
        """Right shots at each held-out image, int64 (images,), after a training; and its seconds."""
        facts: dict[str, float] = {}
        machine = self._machine(training, budget, pause, facts)
        fields = machine.fields(self.task.test_inputs, self.spec.dtype)
        hits = np.zeros(len(fields), np.int64)
        for shot in range(self.spec.shots):
            run = machine.run(fields, seed=streams.shot(self.spec.seed + training.number, shot), pause=pause)
            hits += np.argmax(run.x[:, machine.hidden :], axis=1) == self.task.images.test_labels
        return hits, facts

    def _machine(self, training: Training, budget: int, pause: Callable[[], None], facts: dict[str, float]) -> Machine:
        if training.way not in TEACHERS:
            changes = dict(WAYS[training.way], trajectories=budget)
            if training.way == DECAY:
                changes["weight_decay"] = self.spec.weight_decay
            task = self._task(training.number, **changes)
            return fit(task, pause, self._network(task, pause) if task.taught else None, facts)
        task = self._task(training.number)
        targets = task.targets(self._network(task, pause))
        paper = fit(task, pause, self._network(task, pause), facts)
        if training.way == TEACHERS[0]:
            return paper
        first = facts["train_seconds"]
        machine, fields = uncoupled(paper), -targets
        if training.way == TEACHERS[2]:
            machine, fields = paper, paper.fields(task.inputs)
        elif training.way == TEACHERS[3]:
            machine = self._machine(Training(ADJOINT, EQUAL, training.number), self.spec.trajectories, pause, facts)
            fields = machine.fields(task.inputs)
            targets = -fields
        start = clock.perf_counter()
        statistics = along(machine, fields, task.inputs, targets, task.spec.seed, pause)
        parameters, _ = action.minimise(statistics, task.spec.physics, task.mask, task.spec.weight_decay)
        if training.way == TEACHERS[3]:
            # The force of couplings is linear in them: what is learned is what is missing from the teacher's.
            parameters = action.Parameters(parameters.W, parameters.b, parameters.J + machine.couplings)
        facts["train_seconds"] = clock.perf_counter() - start + (first if training.way == TEACHERS[2] else 0.0)
        found = task.machine(parameters)
        found.require_stable(found.fields(task.test_inputs, self.spec.dtype))
        return found

    def _task(self, number: int, **changes: Any) -> Task:
        changed = self.task.spec.replace(seed=self.spec.seed + number, fingerprint=None, **changes)
        return Task.on(changed, self.task.images)

    def _network(self, task: Task, pause: Callable[[], None]) -> Teacher:
        """The teacher of a seed, trained once; its seconds are nobody's."""
        seed = task.spec.seed
        if seed not in self._networks:
            self._networks[seed] = teacher.train(task.spec, task.inputs, task.images.labels, pause)
        return self._networks[seed]


def _in_equal_time(spec: Comparison, plan: list[Training], seconds: Array, way: str) -> int:
    """The trajectories that a way can see in the median time of the reference, by its own median time."""

    def median(name: str) -> float:
        return float(np.median([seconds[i] for i, one in enumerate(plan) if (one.way, one.budget) == (name, EQUAL)]))

    share = min(median(REFERENCE) / median(way), _MOST)
    return max(1, round(spec.trajectories * share))


def _lay_out(file: RunFile, spec: Comparison, task: Task, plan: list[Training]) -> None:
    axes = [
        Axis("run", np.array([str(training) for training in plan]), "1", "way, budget, number of the seed"),
        Axis("image", np.arange(len(task.images.test_x)), "1", "held-out image"),
    ]
    variables = [
        Variable("hits", ("run", "image"), "1", f"right answers of {spec.shots} shots", "int64"),
        Variable("trajectories", ("run",), "1", "that the training saw"),
        Variable("seconds", ("run",), "s", "that the training took, its teacher's left out"),
    ]
    file.add_section(SECTION, axes, variables)
    layout.note_sentences(file, task.notes())
    file.publish({SECTION: len(plan)})
