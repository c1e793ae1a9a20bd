"""Measures a trained machine: shots at held-out images, and sweeps of one setting."""

import json
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from thermorun import datasets
from thermorun.computer import files as machine_files
from thermorun.computer.machine import CONNECTIVITIES, Machine, Pixels
from thermorun.computer.result import add_shots
from thermorun.computer.score import Score, advantage, reset_work
from thermorun.computer.spec import PRECISIONS, ComputerTraining
from thermorun.computer.training import take_shots, train
from thermorun.datasets import Images
from thermorun.errors import InputError, require_count, require_number, require_positive
from thermorun.progress import deferred_interrupt, progress
from thermorun.store import Axis, RunFile, Variable, read_command, read_spec, run_file
from thermorun.threads import on_threads

Array = NDArray[Any]
AnyMeasurement = TypeVar("AnyMeasurement", bound="Measurement")

OVER = ("observation-time", "temperature", "timestep", "connectivity", "hidden")
# What a sweep keeps of every value: units and meaning.
COLUMNS = {
    "accuracy": ("1", "share of single shots at held-out images that are right"),
    "accuracy_stderr": ("1", "its standard error, images and noise drawn anew"),
    "accuracy_stderr_images": ("1", "the part of it that is due to images"),
    "accuracy_stderr_noise": ("1", "the part of it that is due to noise"),
    "top2": ("1", "share of shots whose two largest outputs hold the label"),
    "top2_stderr": ("1", "its standard error"),
    "vote": ("1", "share of images whose mean outputs over all shots are right"),
    "heat": ("energy", "heat absorbed from the bath during a classification"),
    "heat_stderr": ("energy", "its standard error"),
    "parameters": ("1", "parameters that move anything"),
}


@dataclass(frozen=True)
class Measurement:
    """What classifications and sweeps share: shots of the machine in ``file`` at held-out images.

    ``dataset`` None is that of the machine's training, or ``mnist`` where the file does not say.  ``fingerprint`` is
    that of machine and images, filled in when they are read.  Raises InputError (a ValueError) for whatever cannot run.
    """

    file: str
    dataset: str | None = None
    shots: int = 4
    seed: int = 0
    precision: str = "float32"
    fingerprint: int | None = None

    def __post_init__(self) -> None:
        require_count("shots", self.shots)
        require_count("seed", self.seed, 0)
        if self.seed >= 2**64:
            raise InputError(f"seed is {self.seed}; it must be below 2^64.")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}; it must be one of {', '.join(PRECISIONS)}.")

    def to_json(self) -> str:
        """One line of JSON, the same for equal specs."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The spec that ``to_json`` wrote.  Raises InputError for anything else."""
        try:
            return cls(**json.loads(text))
        except (TypeError, json.JSONDecodeError) as error:
            raise InputError(f"spec {text[:80]!r} is not that of a {cls.__name__.lower()} ({error}).") from error


@dataclass(frozen=True)
class Classification(Measurement):
    """One measurement; ``kT``, ``observation_time`` and ``dt`` are the machine's where None."""

    kT: float | None = None
    observation_time: float | None = None
    dt: float | None = None

    @property
    def changes(self) -> dict[str, float]:
        """The physics to change."""
        names = ("kT", "observation_time", "dt")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class Sweep(Measurement):
    """The machine at many values of one setting.

    ``over`` is one of ``OVER``.  The first three change the physics of the same machine; for the observation time one
    trajectory is read at many times.  The last two train a new machine for every value.  ``values`` None takes usual
    ones.
    """

    over: str = "observation-time"
    values: tuple[float | str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.over not in OVER:
            raise InputError(f"over is {self.over!r}; it must be one of {', '.join(OVER)}.")
        if self.values is not None:
            values = tuple(self._value(value) for value in self.values)
            if not values:
                raise InputError("values is empty; give at least one.")
            object.__setattr__(self, "values", values)

    def _value(self, value: float | str) -> float | str:
        if self.over == "connectivity":
            return str(value)
        try:
            number = float(value)
        except ValueError:
            raise InputError(f"values holds {value!r}, which is not a number.") from None
        if self.over == "temperature":
            require_number("values", number)
        else:
            require_positive("values", number)
        if self.over == "hidden" and number != int(number):
            raise InputError(f"values holds {value}; hidden units come in whole numbers.")
        return number


@dataclass(frozen=True)
class Subject:
    """The machine to measure, the held-out images, and the training that made it, where there was one."""

    machine: Machine
    images: Images
    training: ComputerTraining | None

    @classmethod
    def of(cls, file: str, dataset: str | None) -> "Subject":
        """Reads machine and images.  Raises InputError where they do not fit."""
        path = Path(file)
        if not path.exists():
            raise InputError(f"FILE is {path}, which does not exist.")
        training = None
        if not machine_files.is_text(path) and read_command(path) == "computer":
            training = ComputerTraining.from_json(read_spec(path))
        name = dataset or ("mnist" if training is None else training.dataset)
        images = datasets.load_images(name)
        machine = machine_files.load(path, images.x.shape[1], len(images.classes))
        if machine_files.is_text(path):
            machine = replace(machine, pixels=Pixels.of(images))
        images = datasets.load_images(name, machine.classes)
        if images.x.shape[1] != machine.inputs:
            raise InputError(
                f"dataset is {name}, with {images.x.shape[1]} pixels an image; the machine in {path} has"
                f" {machine.inputs} inputs."
            )
        return cls(machine, images, training)

    @property
    def fingerprint(self) -> int:
        """CRC-32 of machine and images."""
        value = self.images.fingerprint
        for array in (self.machine.input_couplings, self.machine.couplings, self.machine.bias):
            value = zlib.crc32(np.ascontiguousarray(array).tobytes(), value)
        return zlib.crc32(repr((self.machine.physics, self.machine.pixels)).encode(), value)

    def fields(self, precision: str) -> Array:
        """h of all held-out images."""
        inputs = self.machine.pixels.inputs(self.images.test_x, np.float32)
        return self.machine.fields(inputs, precision)


@dataclass(frozen=True)
class ClassificationResult:
    """The score of a machine, and what was asked."""

    spec: Classification
    machine: Machine
    score: Score
    file: Path | None
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        physics = self.machine.physics
        return self.score.to_dict() | {
            "kT": physics.kT,
            "observation_time": physics.observation_time,
            "timestep": physics.dt,
            "train_seconds": None,
            "parameters": self.machine.parameters,
            "energy_advantage": advantage(self.score, self.machine, self.machine.hidden),
            "file": None if self.file is None else str(self.file),
            "machine": self.spec.file,
            "seed": self.spec.seed,
            "threads": self.threads,
            "precision": self.spec.precision,
        }


def classify(
    spec: Classification, *, out: Path | str | None = None, resume: bool = False, threads: int | None = None,
    show_progress: bool = False,
) -> ClassificationResult:  # fmt: skip
    """Takes the shots that ``spec`` asks for; with ``out`` each streams to that HDF5 file, and ``resume`` goes on.

    Raises InputError before anything is written, RunError where a trajectory blows up, and KeyboardInterrupt after
    Ctrl-C, with all shots taken saved.
    """
    subject = Subject.of(spec.file, spec.dataset)
    spec = _fingerprinted(spec, subject)
    machine = subject.machine.with_physics(**spec.changes)
    with on_threads(threads) as count, deferred_interrupt() as stop:
        fields = subject.fields(spec.precision)
        machine.require_stable(fields)

        def lay_out(file: RunFile) -> None:
            add_shots(file, spec.shots, subject.images)
            file.publish({"shots": spec.shots})

        with run_file("computer-classify", spec, out, resume, count, lay_out) as file:
            taken = take_shots(machine, fields, spec.shots, spec.seed, file, stop, show_progress)
    score = Score.of(*taken, subject.images.test_labels)
    return ClassificationResult(spec, machine, score, None if out is None else Path(out), count)


@dataclass(frozen=True)
class SweepResult:
    """``columns`` float64 (values,) under the names of ``COLUMNS``; ``standard`` is the machine's own value."""

    spec: Sweep
    values: tuple[float | str, ...]
    columns: dict[str, Array]
    standard: float | str | None
    file: Path | None
    threads: int

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a value, in JSON's types."""
        return [
            {self.spec.over.replace("-", "_"): value}
            | {name: float(c[i]) if np.isfinite(c[i]) else None for name, c in self.columns.items()}
            for i, value in enumerate(self.values)
        ]

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "over": self.spec.over,
            "rows": self.rows(),
            "standard": self.standard,
            "shots": self.spec.shots,
            "file": None if self.file is None else str(self.file),
            "machine": self.spec.file,
            "seed": self.spec.seed,
            "threads": self.threads,
            "precision": self.spec.precision,
        }


def sweep(
    spec: Sweep, *, out: Path | str | None = None, resume: bool = False, threads: int | None = None,
    show_progress: bool = False,
) -> SweepResult:  # fmt: skip
    """Measures the machine at every value; with ``out`` each streams to that HDF5 file, and ``resume`` goes on.

    Raises as ``classify`` does.
    """
    subject = Subject.of(spec.file, spec.dataset)
    spec = _fingerprinted(spec, subject)
    if spec.over in ("connectivity", "hidden") and subject.training is None:
        raise InputError(f"over is {spec.over}, which trains anew, but {spec.file} does not hold a training.")
    values, standard = _values(spec, subject)
    columns = {name: np.full(len(values), np.nan) for name in COLUMNS}
    with on_threads(threads) as count, deferred_interrupt() as stop:
        measure = _measurement(spec, subject, values, threads)

        def lay_out(file: RunFile) -> None:
            axis = Axis("value", np.array(values), "1", f"values of the {spec.over}")
            file.add_section("sweep", [axis], [Variable(name, ("value",), *about) for name, about in COLUMNS.items()])
            file.publish({"sweep": len(values)})

        with (
            run_file("computer-sweep", spec, out, resume, count, lay_out) as file,
            progress(f"sweep over {spec.over}", len(values), "values", show_progress) as advance,
        ):
            done = 0 if file is None else file.committed("sweep")
            if file is not None:
                stored = file.read("sweep")
                for name, column in columns.items():
                    column[:done] = stored[name][:done]
            advance(done)
            for i in range(done, len(values)):
                for name, value in measure(i).items():
                    columns[name][i] = value
                if file is not None:
                    file.write("sweep", i, {name: column[i, None] for name, column in columns.items()})
                advance(1)
                if stop():
                    raise KeyboardInterrupt
    return SweepResult(spec, values, columns, standard, None if out is None else Path(out), count)


def _values(spec: Sweep, subject: Subject) -> tuple[tuple[float | str, ...], float | str | None]:
    """The values of a sweep, and the machine's own."""
    physics, training = subject.machine.physics, subject.training
    unit = 1 / physics.mobility
    usual: dict[str, tuple[tuple[float | str, ...], float | str | None]] = {
        "observation-time": (tuple(round(0.05 * k, 2) * unit for k in range(1, 21)), physics.observation_time),
        "temperature": (tuple(physics.kT * f for f in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)), physics.kT),
        "timestep": (tuple(physics.dt * f for f in (0.25, 0.5, 1.0, 2.0)), physics.dt),
        "connectivity": (CONNECTIVITIES, None if training is None else training.connectivity),
        "hidden": ((8.0, 16.0, 32.0, 64.0, 128.0), None if training is None else training.hidden),
    }
    values, standard = usual[spec.over]
    return (values if spec.values is None else spec.values), standard


def _measurement(
    spec: Sweep, subject: Subject, values: tuple[float | str, ...], threads: int | None
) -> Callable[[int], dict[str, float]]:
    """A function that measures value number i.  Checks all values first; raises InputError."""
    machine, labels = subject.machine, subject.images.test_labels
    if spec.over in ("connectivity", "hidden"):
        assert subject.training is not None
        base = replace(subject.training, shots=spec.shots, seed=spec.seed, precision=spec.precision, fingerprint=None)
        trainings = [
            replace(base, connectivity=str(v)) if spec.over == "connectivity" else replace(base, hidden=int(float(v)))
            for v in values
        ]

        def retrain(i: int) -> dict[str, float]:
            outcome = train(trainings[i], images=subject.images, threads=threads)
            return _columns(outcome.score, outcome.machine)

        return retrain
    fields = subject.fields(spec.precision)
    if spec.over == "observation-time":
        steps = [machine.physics.step_of(float(v)) for v in values]
        longest = machine.with_physics(observation_time=max(float(v) for v in values))
        longest.require_stable(fields)
        scores: list[Score] = []

        def at_time(i: int) -> dict[str, float]:
            if not scores:
                scores.extend(_scores_in_time(longest, fields, labels, steps, spec))
            return _columns(scores[i], machine)

        return at_time
    name = "kT" if spec.over == "temperature" else "dt"
    machines = [machine.with_physics(**{name: float(v)}) for v in values]
    for each in machines:
        each.require_stable(fields)

    def shots(i: int) -> dict[str, float]:
        taken = take_shots(machines[i], fields, spec.shots, spec.seed, None, lambda: False, False)
        return _columns(Score.of(*taken, labels), machines[i])

    return shots


def _scores_in_time(machine: Machine, fields: Array, labels: Array, steps: list[int], spec: Sweep) -> list[Score]:
    """Scores after each number of steps, all from the same trajectories, one run a shot.

    The fields do not change on the way, so that the heat so far is V(x), V being zero at the start.
    """
    rows = sorted(set(steps))
    kept: dict[int, list[tuple[Array, Array, Array]]] = {row: [] for row in rows}
    for shot in range(spec.shots):
        run = machine.run(fields, steps=rows[-1], seed=spec.seed, stream=shot, recorded=rows)
        for row, x in zip(rows, run.paths, strict=True):
            kept[row].append((x[:, machine.hidden :], machine.energy(x, fields), reset_work(x, fields)))
    scores = {}
    for row, shots in kept.items():
        outputs, heat, work = (np.stack(parts) for parts in zip(*shots, strict=True))
        scores[row] = Score.of(outputs, heat, work, labels)
    return [scores[row] for row in steps]


def _columns(score: Score, machine: Machine) -> dict[str, float]:
    a = score.accuracy
    return {
        "accuracy": a.mean,
        "accuracy_stderr": a.stderr,
        "accuracy_stderr_images": a.stderr_images,
        "accuracy_stderr_noise": a.stderr_noise,
        "top2": score.top2.mean,
        "top2_stderr": score.top2.stderr,
        "vote": score.vote,
        "heat": score.heat.mean,
        "heat_stderr": score.heat.stderr,
        "parameters": machine.parameters,
    }


def _fingerprinted(spec: AnyMeasurement, subject: Subject) -> AnyMeasurement:
    if spec.fingerprint is not None and spec.fingerprint != subject.fingerprint:
        raise InputError(f"the machine in {spec.file} or the data set is not the one that this run began with.")
    return replace(spec, fingerprint=subject.fingerprint)
