"""Measures a trained machine, or machines trained alike, at many values of one setting."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from thermorun import streams
from thermorun.arrays import Array
from thermorun.computer import columns, layout
from thermorun.computer.images import Arrays, arrays
from thermorun.computer.machine import CONNECTIVITIES, Machine
from thermorun.computer.result import TITLES, SweepResult
from thermorun.computer.score import Score, Tally, Votes
from thermorun.computer.shots import read_windows, reset_work
from thermorun.computer.spec import READ, Sweep, Value
from thermorun.computer.subject import Subject
from thermorun.computer.task import Task
from thermorun.computer.training import as_stored, finished, fit
from thermorun.datasets import ARRAY
from thermorun.errors import InputError
from thermorun.results import origin
from thermorun.runs import Session
from thermorun.specs import documented, given
from thermorun.store import Axis, RunFile, Variable
from thermorun.streams import Streams

# What a value is in a training, and in a machine's physics.
FIELDS = {
    "observation-time": "observation_time", "temperature": "kT", "timestep": "dt", "connectivity": "connectivity",
    "hidden": "hidden",
}  # fmt: skip


@documented(Sweep)
def sweep(
    file: str | Path,
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    dataset: str | None = None,
    classes: tuple[int | str, ...] | None = None,
    part: str | None = None,
    shots: int = 4,
    outputs: int | None = None,
    pixel_mean: float | None = None,
    pixel_deviation: float | None = None,
    pixel_norm: float | None = None,
    precision: str = "float32",
    fingerprint: int | None = None,
    over: str = "observation-time",
    values: tuple[Value, ...] | None = None,
    retrain: bool = False,
    retraining: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    resume: bool = False,
    threads: int | None = None,
    show_progress: bool = False,
) -> SweepResult:
    """Measures the machine in a file at many values of one setting.

    Observation time, temperature and time step change the physics of the same machine, or, with ``retrain``, of one
    that is trained for every value; the same machine's trajectories are read at many observation times.  Connectivity
    and hidden units train a new machine for every value.  Shots and window average the outputs of the same machine:
    over the shots of a vote, or over a time that begins with the observation time.

    Parameters
    ----------
    X, y : arrays, optional
        In the place of ``dataset``: images (points, D) or (points, rows, columns), or one alone, and their labels.
    {parameters}

    Returns
    -------
    SweepResult
        Accuracy with its standard error, and heat, at every value.

    Raises
    ------
    InputError
        Before anything is written, for input that cannot run.
    RunError
        Where a trajectory or a training diverges, or the file cannot be written.
    Stopped
        After Ctrl-C (a KeyboardInterrupt), with all values that are done saved.
    """
    data = arrays(X, y)
    spec = Sweep(**given(Sweep, locals()) | ({} if data is None else {"dataset": ARRAY}))
    result: SweepResult = spec.run(out=out, resume=resume, threads=threads, show_progress=show_progress, data=data)
    return result


def run(spec: Sweep, under_way: Session, data: Arrays | None = None) -> SweepResult:
    """Runs a spec: see `sweep`.  ``data`` are in the place of its data set."""
    if under_way.resuming and finished(spec, under_way.out):
        return read(under_way.open(spec, lambda file: None), spec)
    subject = Subject.of(spec, data)
    if subject.labels is None:
        raise InputError(f"dataset is {subject.shown.name}, whose images have no labels; a sweep needs them.")
    values, standard = _values(spec, subject)
    spec = as_stored(spec.replace(**subject.noted), under_way)
    machines = _Machines(spec, subject, values, data)
    groups, mine = machines.groups, under_way.part(len(values))
    if under_way.sharded and len(groups) < len(values):
        raise InputError(
            f"shard is given, and a sweep over {spec.over} reads all values from the same trajectories; run it whole."
        )
    # Tallies of a group, their checkpoint, and one shot.
    images = len(subject.shown.x)
    under_way.require_memory(3 * len(groups[0]) * images * (12 * subject.machine.outputs + 40), f"values is {values}")
    file = under_way.open(spec, lambda file: _lay_out(file, spec, values, standard, subject))
    groups = [group for group in groups if group[0] in mine]
    missing = file.missing("sweep")
    under_way.stage(f"sweep over the {TITLES[spec.over]}", sum(map(machines.shots, groups)), "shots")
    for group in groups:
        if group[-1] < missing.start:
            under_way.advance(machines.shots(group))
            continue
        with under_way.unsaved():
            machine = machines.at(group, under_way.pause)
        for i, tally in zip(group, _tallies(machine, subject, machines, group, under_way), strict=True):
            parameters = {"parameters": np.array([float(machine.parameters)])}
            file.write("sweep", i, columns.of_score(Score.of(tally)) | parameters)
    under_way.end_of_shard()
    return read(file, spec)


def read(file: RunFile, spec: Sweep) -> SweepResult:
    """The results in a file, of the values that are complete."""
    stored, done = file.read("sweep"), file.committed("sweep")
    values = tuple(v.decode() if isinstance(v, bytes) else v for v in stored["value"][:done].tolist())
    return SweepResult(
        **origin(file, spec), values=values,
        columns=columns.read(stored, done, file.noted("images", int)), parameters=stored["parameters"][:done],
        standard=file.noted("standard", json.loads), notes=layout.read_sentences(file),
    )  # fmt: skip


class _Machines:
    """The machine at every value.  Checks all values first; raises InputError."""

    def __init__(self, spec: Sweep, subject: Subject, values: tuple[Value, ...], data: Arrays | None) -> None:
        self.spec, self.subject, self.values = spec, subject, values
        # One trajectory is read at all times, or all shots vote; else every value has its own.
        together = not spec.trains and spec.over in ("observation-time", *READ)
        self.groups = [list(range(len(values)))] if together else [[i] for i in range(len(values))]
        self.tasks = _tasks(spec, subject, values, data) if spec.trains else []
        # Of each value: the step of its reading, the steps that its window lasts, the shots that make a vote.
        self.steps, self.windows, self.votes = ([one] * len(values) for one in (0, 0, 1))
        if together:
            physics = subject.machine.physics
            self.steps = [physics.step_of(float(v)) if spec.over not in READ else physics.steps for v in values]
        if spec.over == "window":
            self.windows = [0 if v == 0 else subject.machine.physics.step_of(float(v), "values") for v in values]
        elif spec.over == "shots":
            self.votes = [int(v) for v in values]
        for group in self.groups if not self.tasks else []:
            self.at(group).require_stable(subject.fields)

    def at(self, group: list[int], pause: Callable[[], None] = lambda: None) -> Machine:
        """The machine that is run for these values: trained, if it has to be; ``pause`` is where that may stop."""
        if self.tasks:
            return fit(self.tasks[group[0]], pause)
        machine = self.subject.machine
        if self.spec.over in READ:
            return machine
        return machine.with_physics(**{FIELDS[self.spec.over]: max(float(self.values[i]) for i in group)})

    def shots(self, group: list[int]) -> int:
        """Trajectories that the values of a group need of every image."""
        return self.spec.shots * max(self.votes[i] for i in group)

    def readings(
        self, machine: Machine, fields: Array, group: list[int], stream: Streams, pause: Callable[[], None]
    ) -> Iterator[tuple[int, Array, Array, Array]]:
        """Of one shot: for each value its number, outputs (images, classes), heat and work (images,).

        The fields do not change on the way, so that the heat so far is V(x), V being zero at the start.
        """
        if self.spec.over == "window":
            ranked = sorted(group, key=self.windows.__getitem__)
            windows = [self.windows[i] for i in ranked]
            for i, (output, x) in zip(ranked, read_windows(machine, fields, windows, stream, pause), strict=True):
                yield i, output, machine.energy(x, fields), reset_work(x, fields)
            return
        rows = sorted({self.steps[i] or machine.physics.steps for i in group})
        run = machine.run(fields, steps=rows[-1], seed=stream, recorded=rows, pause=pause)
        for i in group:
            x = run.paths[rows.index(self.steps[i] or rows[-1])]
            heat = machine.energy(x, fields) if len(rows) > 1 else run.heat
            yield i, x[:, machine.hidden :], heat, reset_work(x, fields)


def _tasks(spec: Sweep, subject: Subject, values: tuple[Value, ...], data: Arrays | None) -> list[Task]:
    """A training for every value, on the images of the machine's own.  Raises InputError."""
    images = subject.own_images(f"over is {spec.over}", data)
    found = []
    for value in values:
        kept = value if isinstance(value, str) else int(value) if spec.over == "hidden" else float(value)
        try:
            changed = subject.retraining(
                spec.retraining, seed=spec.seed, precision=spec.precision, **{FIELDS[spec.over]: kept}
            )
            found.append(Task.on(changed, images))
        except InputError as error:
            raise InputError(f"{spec.over} {value}: {error}") from error
    return found


def _values(spec: Sweep, subject: Subject) -> tuple[tuple[Value, ...], Value | None]:
    """The values of a sweep, and the machine's own."""
    physics, training = subject.machine.physics, subject.training
    unit = 1 / physics.mobility
    usual: dict[str, tuple[tuple[Value, ...], Value | None]] = {
        "observation-time": (tuple(round(0.05 * k, 2) * unit for k in range(1, 21)), physics.observation_time),
        "temperature": (tuple(physics.kT * f for f in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)), physics.kT),
        "timestep": (tuple(physics.dt * f for f in (0.25, 0.5, 1.0, 2.0)), physics.dt),
        "shots": ((1.0, 2.0, 4.0, 8.0, 16.0), 1.0),
        "window": (tuple(physics.observation_time * f for f in (0.0, 0.25, 0.5, 1.0, 2.0, 5.0)), 0.0),
        "connectivity": (CONNECTIVITIES, None if training is None else training.connectivity),
        "hidden": ((8.0, 16.0, 32.0, 64.0, 128.0), None if training is None else training.hidden),
    }
    values, standard = usual[spec.over]
    return (values if spec.values is None else spec.values), standard


def _tallies(
    machine: Machine, subject: Subject, machines: _Machines, group: list[int], under_way: Session
) -> list[Tally]:
    """What all shots add up to at each value of a group; a checkpoint keeps the sums so far."""
    spec, fields = subject.spec, machine.fields(machine.pixels.inputs(subject.shown.x, np.float32), subject.spec.dtype)
    votes = {
        i: Votes(Tally.empty(subject.labels, len(fields), machine.outputs), machines.votes[i], spec.shots)
        for i in group
    }
    first = _restore(votes, under_way.file)
    under_way.advance(first)

    def state() -> dict[str, Array]:
        sums = {f"{name}_{i}": array for i, vote in votes.items() for name, array in vote.state.items()}
        return sums | {"first_value": np.array(group[0]), "shots": np.array(shot)}

    for shot in range(first, machines.shots(group)):
        under_way.pause(state)
        stream = streams.shot(spec.seed, shot)
        for i, output, heat, work in machines.readings(machine, fields, group, stream, under_way.pause):
            votes[i].add(output, heat, work)
        under_way.advance(1)
    return [votes[i].tally for i in group]


def _restore(votes: dict[int, Votes], file: RunFile) -> int:
    """Puts the sums of a group back as the checkpoint has them; returns the shots that are in them."""
    stored = file.load_checkpoint()
    if stored is None or int(stored["first_value"]) != min(votes):
        return 0
    shots = int(stored["shots"])
    for i, vote in votes.items():
        vote.restore({name: stored[f"{name}_{i}"] for name in vote.state}, shots)
    return shots


def _lay_out(file: RunFile, spec: Sweep, values: tuple[Value, ...], standard: Any, subject: Subject) -> None:
    axis = Axis("value", np.array(values), "1", f"values of the {TITLES[spec.over]}")
    parameters = Variable("parameters", ("value",), "1", "parameters that move anything")
    file.add_section("sweep", [axis], [*columns.variables("value"), parameters])
    file.note(standard=json.dumps(standard), images=len(subject.shown.x))
    layout.note_sentences(file, subject.notes)
    file.publish({"sweep": len(values)})
