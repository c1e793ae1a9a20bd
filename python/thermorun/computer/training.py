"""Trains a machine: teacher, closed form or descent, then shots at the held-out images, each streamed to the file."""

import time as clock
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from thermorun import streams
from thermorun.arrays import Array
from thermorun.computer import action, files, layout, shots, teacher
from thermorun.computer.action import Statistics
from thermorun.computer.adjoint import EndState
from thermorun.computer.descent import Descent, Objective
from thermorun.computer.images import Arrays, arrays
from thermorun.computer.machine import Machine
from thermorun.computer.result import TrainingResult
from thermorun.computer.score import Score
from thermorun.computer.spec import ComputerTraining
from thermorun.computer.task import Task
from thermorun.computer.teacher import Teacher
from thermorun.datasets import ARRAY
from thermorun.errors import InputError, RunError
from thermorun.results import origin
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import RunFile, is_complete, read_command, read_spec

# Held-out images of the accuracy along a descent.
_WATCHED = 2000


@documented(ComputerTraining)
def train(
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    dataset: str = "digits",
    classes: tuple[int | str, ...] | None = None,
    method: str = "closed-form",
    hidden: int = 64,
    connectivity: str = "all-to-all",
    teacher: str | None = None,
    teacher_epochs: int = 30,
    targets: str = "tanh",
    softness: float = 10.0,
    scale: float = 400.0,
    J2: float = 1.0,
    J4: float = 1.0,
    kT: float = 1.0,
    mobility: float = 1.0,
    dt: float = 1e-3,
    observation_time: float = 0.2,
    weight_decay: float = 0.0,
    parameter_noise: float = 0.0,
    optimiser: str = "adam",
    learning_rate: float | None = None,
    batch: int = 128,
    trajectories: int | None = None,
    start: str | None = None,
    training_steps: int = 30,
    rotation: float | None = None,
    shift: float | None = None,
    scaling: float | None = None,
    validation: float = 0.05,
    bound: float | None = None,
    shots: int = 4,
    precision: str = "float32",
    fingerprint: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> TrainingResult:
    """Trains a thermodynamic computer, and measures its accuracy at held-out images.

    A teacher's activations A are what the machine's units learn to follow: the mean Onsager-Machlup action of
    idealised trajectories with biases -c A is minimised over all couplings and biases (Whitelam 2025, Eqs. 5 to 10).
    The teacher is a network inputs - hidden/2 - hidden/2 - classes that is trained first, or a user's own activations.
    With ``method="adjoint"`` there is none: the cross-entropy of the outputs at the observation time is minimised, by
    its exact gradient through noisy trajectories (`thermorun.computer.adjoint`).

    Parameters
    ----------
    X, y : arrays, optional
        In the place of ``dataset``: images (points, D) or (points, rows, columns), every third of them held out, and
        one label a point.
    {parameters}

    Returns
    -------
    TrainingResult
        The machine, its accuracy with its standard error, and the heat and work of a classification.

    Raises
    ------
    InputError
        Before anything is written, for input that cannot run.
    RunError
        Where a descent or a trajectory diverges, or the file cannot be written.
    Stopped
        After Ctrl-C (a KeyboardInterrupt), with all that is done saved.

    Examples
    --------
    >>> from thermorun import computer
    >>> result = computer.train(classes=(0, 1), hidden=6, teacher_epochs=5, scale=100.0, shots=1)
    >>> result.score.accuracy.mean > 0.9
    True
    """
    data = arrays(X, y)
    spec = ComputerTraining(**given(ComputerTraining, locals()) | ({} if data is None else {"dataset": ARRAY}))
    result: TrainingResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress, data=data)
    return result


def run(spec: ComputerTraining, under_way: Session, data: Arrays | None = None) -> TrainingResult:
    """Runs a spec, stage by stage: see `train`.  ``data`` are in the place of its data set."""
    if under_way.resuming and finished(spec, under_way.out):
        file = under_way.open(spec, lambda file: None)
        return read(file, spec)
    task = Task.of(spec, data)
    spec = as_stored(task.spec, under_way)
    images, classes = task.images, tuple(int(k) for k in task.images.classes)
    need = shots.need(spec.shots, len(images.test_x), len(classes))
    under_way.require_memory(2 * need, f"shots is {spec.shots}")
    network, facts = _taught(task, under_way)
    file = under_way.open(spec, lambda file: _lay_out(file, task, network, facts))
    if under_way.resuming and task.taught:
        network = layout.read_teacher(file)
    machine = _stored_machine(file)
    if machine is None:
        facts = layout.read_facts(file)
        machine = _fit(task, network, facts, under_way)
        if spec.method != "adjoint":
            with under_way.unsaved():
                machine.require_stable(machine.fields(task.test_inputs, spec.dtype))
        files.write_section(file, machine)
        layout.write_facts(file, facts)
        file.wait()
    if spec.method == "adjoint":
        _require_readable(task, machine)
    with under_way.unsaved():
        layout.write_portrait(file, machine, spec, images)
    shots.take_into(under_way, machine, machine.fields(task.test_inputs, spec.dtype), spec.shots, spec.seed)
    result = read(file, spec)
    layout.write_score(file, result.score)
    return result if file.path else replace(result, stored=file.contents())


def read(file: RunFile, spec: ComputerTraining) -> TrainingResult:
    """The results in a file, of the shots that are complete.  Raises InputError where there are none yet."""
    tally = shots.read_tally(file)
    if not tally.shots:
        raise InputError(
            f"{file.path} holds a training that has not come to its shots; go on with 'thermorun resume {file.path}'."
        )
    descent = {name: np.empty(0) for name in ("update", "loss", "accuracy")}
    if spec.method != "closed-form":
        descent = file.read("descent")
    return TrainingResult(
        **origin(file, spec), machine=files.read_section(file), score=Score.of(tally),
        updates=descent["update"], loss=descent["loss"], accuracy=descent["accuracy"],
        facts=layout.read_facts(file), portrait=layout.read_portrait(file),
        shape=(file.noted("rows", int) or 1, file.noted("columns", int) or 0), notes=layout.read_sentences(file),
    )  # fmt: skip


def extended(spec: ComputerTraining, smaller: ComputerTraining) -> dict[str, int]:
    """Rows of each section that are the same with more shots."""
    return {"shots": smaller.shots, "descent": len(layout.record_points(smaller))}


def fit(
    task: Task, pause: Callable[[], None] = lambda: None, network: Teacher | None = None,
    facts: dict[str, float] | None = None,
) -> Machine:  # fmt: skip
    """The machine of a task, without a file: the same that a run trains.  Raises RunError where it diverges.

    ``pause`` is called where it may stop; ``network`` is its teacher, where that is there already.  Seconds are noted
    in ``facts``.
    """
    facts = {} if facts is None else facts
    if network is None and task.taught:
        network = teacher.train(task.spec, task.inputs, task.images.labels, pause)
    if task.spec.method == "closed-form":
        machine = closed_form(task, task.targets(network), facts)
    else:
        descent = Descent(task.spec, _compiled(task.objective(network)))
        began = clock.perf_counter()
        while descent.update < task.spec.updates:
            _require_finite(descent.step(), descent)
            pause()
        facts["train_seconds"] = clock.perf_counter() - began
        machine = task.machine(descent.learned)
    machine.require_stable(machine.fields(task.test_inputs, task.spec.dtype))
    return machine


def closed_form(task: Task, targets: Array, facts: dict[str, float]) -> Machine:
    """The machine of least mean action; notes seconds, action and ridge in ``facts``."""
    spec = task.spec
    Statistics.of(task.inputs[:1], targets[:1], spec.physics)  # compiles, so that no timing counts it
    began = clock.perf_counter()
    statistics = Statistics.of(task.inputs, targets, spec.physics)
    parameters, facts["ridge"] = action.minimise(
        statistics, spec.physics, task.mask, spec.weight_decay, spec.parameter_noise
    )
    facts["action"] = action.mean_action(statistics, parameters, spec.physics)
    facts["train_seconds"] = clock.perf_counter() - began
    return task.machine(parameters)


def finished(spec: Any, path: Path | None) -> bool:
    """Whether a file holds this very run, complete: then its data are not needed any more."""
    if path is None or not path.is_file() or spec.fingerprint is None:
        return False
    return read_spec(path) == spec.to_json() and is_complete(path)


def as_stored(spec: Any, under_way: Session) -> Any:
    """The spec in the file that is resumed, where fingerprints say that it is this run on data that moved since."""
    path = under_way.out
    if not under_way.resuming or path is None or not path.is_file() or read_command(path) != spec.command:
        return spec
    stored = type(spec).from_json(read_spec(path))
    if stored.fingerprint != spec.fingerprint:
        return spec
    moved = ("dataset", "connectivity", "teacher", "start", "file")
    return spec.replace(**{name: getattr(stored, name) for name in moved if hasattr(spec, name)})


def _taught(task: Task, under_way: Session) -> tuple[Teacher | None, dict[str, float]]:
    """The teacher, and what is known of it: trained now, or that of the smaller run; none where a file has it."""
    facts: dict[str, float] = {}
    if under_way.smaller is not None and under_way.out is not None:
        with RunFile.open_to_read(under_way.out) as earlier:
            return layout.read_teacher(earlier) if task.taught else None, layout.read_facts(earlier)
    return _teach(task, facts, under_way) if task.taught and not under_way.resuming else None, facts


def _teach(task: Task, facts: dict[str, float], under_way: Session) -> Teacher:
    began = clock.perf_counter()
    under_way.stage("teacher", task.spec.teacher_epochs, "epochs")

    def epoch_done() -> None:
        under_way.advance(1)
        under_way.pause()

    with under_way.unsaved():
        network = teacher.train(task.spec, task.inputs, task.images.labels, epoch_done)
    facts["teacher_seconds"] = clock.perf_counter() - began
    facts["teacher_accuracy"] = network.accuracy(task.test_inputs, task.images.test_labels)
    return network


def _lay_out(file: RunFile, task: Task, network: Teacher | None, facts: dict[str, float]) -> None:
    spec, images = task.spec, task.images
    classes = tuple(int(k) for k in images.classes)
    files.add_section(file, images.x.shape[1], spec.hidden, len(classes))
    if network is not None:
        layout.add_teacher(file, spec, images.x.shape[1], len(classes))
        layout.write_teacher(file, network)
    layout.add_facts(file)
    layout.write_facts(file, facts)
    if spec.method != "closed-form":
        layout.add_descent(file, spec)
    shots.add_section(file, spec.shots, classes, images.test_values, "label of each held-out image")
    layout.add_score(file, classes)
    layout.add_portrait(file, spec, images)
    files.add_origin(file, images)
    files.note_names(file, task.names)
    layout.note_sentences(file, task.notes())
    file.note(rows=images.shape[0], columns=images.shape[1], portrait=1)
    file.wait()
    descent = {} if spec.method == "closed-form" else {"descent": len(layout.record_points(spec))}
    file.publish(descent | {"shots": spec.shots})


def _stored_machine(file: RunFile) -> Machine | None:
    """The machine that a file has, if its training had finished."""
    return files.read_section(file) if np.isfinite(file.read(files.SECTION)["bias"]).all() else None


def _fit(task: Task, network: Teacher | None, facts: dict[str, float], under_way: Session) -> Machine:
    """The machine, by the method of the spec."""
    with under_way.unsaved():
        if task.spec.method == "closed-form":
            return closed_form(task, task.targets(network), facts)
        descent = Descent(task.spec, _compiled(task.objective(network)))
    return _descend(task, descent, facts, under_way)


def _compiled(objective: Objective) -> Objective:
    """The objective, its kernels compiled, so that no timing counts that."""
    objective.gradient(objective.start(), np.arange(1), 0)
    return objective


def _descend(task: Task, descent: Descent, facts: dict[str, float], under_way: Session) -> Machine:
    """Gradient descent, record by record; a checkpoint may fall between two records."""
    file, points = under_way.file, layout.record_points(task.spec)
    total, seconds = _restore(descent, file)
    under_way.stage("descent", task.spec.updates, "updates")
    under_way.advance(descent.update)

    def state() -> dict[str, Array]:
        numbers = {"update": descent.update, "total": total, "seconds": seconds}
        return {name: np.array(value) for name, value in numbers.items()} | descent.state

    for row in range(int(np.searchsorted(points, descent.update, side="right")), len(points)):
        while descent.update < points[row]:
            under_way.pause(state)
            began = clock.perf_counter()
            total += descent.step()
            seconds += clock.perf_counter() - began
            under_way.advance(1)
        loss = total / int(points[row] - (points[row - 1] if row else 0))
        _require_finite(loss, descent)
        began = clock.perf_counter()
        accuracy = _watch(task, descent)
        seconds += clock.perf_counter() - began
        file.write("descent", row, {"loss": np.array([loss]), "accuracy": np.array([accuracy])})
        total = 0.0
    last = float(file.read("descent")["loss"][-1])
    facts.update(train_seconds=seconds)
    if isinstance(descent.objective, EndState):
        facts.update(loss=last, gain=float(descent.parameters["gain"][0]))
        facts.update(cut_share=descent.objective.cut_share(descent.parameters), epoch=descent.objective.points)
    else:
        facts.update(action=last, ridge=0.0)
    return task.machine(descent.learned)


def _restore(descent: Descent, file: RunFile) -> tuple[float, float]:
    """Puts the descent back as the checkpoint has it; returns the actions since the last record, and seconds."""
    stored = file.load_checkpoint()
    if stored is None:
        return 0.0, 0.0
    for name, array in descent.state.items():
        array[...] = stored[name]
    descent.update = int(stored["update"])
    return float(stored["total"]), float(stored["seconds"])


def _require_readable(task: Task, machine: Machine) -> None:
    """Raises RunError where steps of dt are too long for a machine trained with others; its file keeps it."""
    try:
        machine.require_stable(machine.fields(task.test_inputs, task.spec.dtype))
    except InputError as error:
        raise RunError(
            f"the machine is trained, but {error} `computer classify` reads it with another --dt."
        ) from error


def _require_finite(loss: float, descent: Descent) -> None:
    if not np.isfinite(loss):
        raise RunError(
            f"the descent diverged before update {descent.update} with learning rate"
            f" {descent.objective.rates['W']:g}; a smaller learning_rate helps."
        )


def _watch(task: Task, descent: Descent) -> float:
    """Accuracy of one shot at some images not learned from; NaN where the machine, half trained, is unstable.

    The adjoint's are training images set aside: settings are chosen by them.
    """
    if task.spec.method == "adjoint":
        inputs, labels = task.watched_inputs, task.images.labels[task.watched]
    else:
        some = slice(None, None, -(-len(task.test_inputs) // _WATCHED))
        inputs, labels = task.test_inputs[some], task.images.test_labels[some]
    if not len(inputs):
        return np.nan
    try:
        machine = task.machine(descent.learned)
        outputs = shots.shoot(machine, machine.fields(inputs, task.spec.dtype), streams.watch(task.spec.seed))["output"]
    except (InputError, RunError):
        return np.nan
    return float(np.mean(np.argmax(outputs, axis=1) == labels))
