"""What a training gave, and where a file keeps it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermorun.computer import files as machine_files
from thermorun.computer.machine import Machine
from thermorun.computer.score import Score, advantage
from thermorun.computer.spec import ComputerTraining
from thermorun.computer.teacher import Teacher, layers
from thermorun.datasets import Images
from thermorun.errors import InputError
from thermorun.store import Axis, RunFile, Variable

Array = NDArray[Any]

# Points at which gradient descent is recorded.
RECORDS = 50
FACTS = ("teacher_accuracy", "teacher_seconds", "train_seconds", "action", "ridge")
SHOT_VARIABLES = {
    "output": (("shot", "image", "class"), "length", "outputs at the observation time", "float32"),
    "heat": (("shot", "image"), "energy", "heat absorbed from the bath during the classification", "float64"),
    "work": (("shot", "image"), "energy", "work of switching the fields on at x = 0 and off at the end", "float64"),
}


@dataclass(frozen=True)
class TrainingResult:
    """A trained machine and how well it does.

    ``loss`` and ``accuracy`` float64 (records,) along gradient descent, after ``updates`` of it: mean action since the
    last record, accuracy of one shot at up to 2,000 held-out images; empty for the closed form.  ``facts`` holds
    ``FACTS``: accuracy of the teacher on held-out images (NaN if its activations were given), seconds, final mean
    action, and the relative ridge that singular normal equations needed.
    """

    spec: ComputerTraining
    images: Images
    machine: Machine
    score: Score
    updates: Array
    loss: Array
    accuracy: Array
    facts: dict[str, float]
    file: Path | None
    threads: int

    @property
    def advantage(self) -> float:
        """Energy of the digital teacher over the heat of one classification at 300 K, both estimates."""
        return advantage(self.score, self.machine, self.spec.hidden)

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        physics = self.machine.physics
        facts = {name: value if np.isfinite(value) else None for name, value in self.facts.items()}
        return (
            self.score.to_dict()
            | {
                "kT": physics.kT,
                "observation_time": physics.observation_time,
                "timestep": physics.dt,
                "parameters": self.machine.parameters,
                "energy_advantage": self.advantage,
                "file": None if self.file is None else str(self.file),
                "seed": self.spec.seed,
                "threads": self.threads,
                "precision": self.spec.precision,
                "spec": self.spec.to_dict(),
            }
            | facts
        )


def record_points(spec: ComputerTraining) -> NDArray[np.int64]:
    """The updates after which gradient descent is recorded, ascending; none for the closed form."""
    if spec.method == "closed-form":
        return np.empty(0, np.int64)
    return np.unique(np.linspace(0, spec.updates, min(RECORDS, spec.updates) + 1).round().astype(np.int64)[1:])


def lay_out(file: RunFile, spec: ComputerTraining, images: Images) -> None:
    """Allocates everything but publishes nothing."""
    classes = len(images.classes)
    machine_files.add_section(file, images.x.shape[1], spec.hidden, classes)
    if spec.teacher is None:
        add_teacher(file, spec, images.x.shape[1], classes)
    file.add_section(
        "facts", [Axis("fact", np.array(FACTS), "1", "name")], [Variable("value", ("fact",), "1", "its value")]
    )
    if spec.method != "closed-form":
        file.add_section(
            "descent",
            [Axis("update", record_points(spec), "1", "updates done")],
            [
                Variable("loss", ("update",), "1", "mean action a trajectory since the last record"),
                Variable("accuracy", ("update",), "1", "of one shot at up to 2,000 held-out images"),
            ],
        )
    add_shots(file, spec.shots, images)


def sections(spec: ComputerTraining) -> dict[str, int]:
    """The sections written row by row, and the rows that complete them."""
    descent = {} if spec.method == "closed-form" else {"descent": len(record_points(spec))}
    return descent | {"shots": spec.shots}


def add_shots(file: RunFile, shots: int, images: Images) -> None:
    """Allocates the place of every shot at every held-out image."""
    axes = [
        Axis("shot", np.arange(shots), "1", "noisy trajectories of an image, each with its own random stream"),
        Axis("image", np.arange(len(images.test_x)), "1", "held-out image"),
        Axis("class", images.classes, "1", "label that an output stands for"),
    ]
    variables = [Variable(name, *about) for name, about in SHOT_VARIABLES.items()]
    file.add_section("shots", axes, [*variables, Variable("label", ("image",), "1", "label of each image")])
    file.write_whole("shots", {"label": images.classes[images.test_labels]})


def read_score(file: RunFile, images: Images) -> Score:
    """The score of all shots in a file."""
    stored = file.read("shots")
    return Score.of(stored["output"], stored["heat"], stored["work"], images.test_labels)


def add_teacher(file: RunFile, spec: ComputerTraining, inputs: int, classes: int) -> None:
    """Allocates the teacher's weights."""
    first, second = layers(spec)
    axes = [
        Axis(name, np.arange(size), "1", "units of a layer of the teacher")
        for name, size in (("layer_0", inputs), ("layer_1", first), ("layer_2", second), ("layer_3", classes))
    ]
    variables = []
    for k in range(3):
        variables.append(
            Variable(f"weight_{k}", (f"layer_{k}", f"layer_{k + 1}"), "1", "weights of a layer", "float32")
        )
        variables.append(Variable(f"bias_{k}", (f"layer_{k + 1}",), "1", "biases of a layer", "float32"))
    file.add_section("teacher", axes, variables)


def write_teacher(file: RunFile, teacher: Teacher) -> None:
    """Queues the teacher's weights."""
    arrays = {f"weight_{k}": weight for k, weight in enumerate(teacher.weights)}
    file.write_whole("teacher", arrays | {f"bias_{k}": bias for k, bias in enumerate(teacher.biases)})


def read_teacher(file: RunFile) -> Teacher:
    """The teacher in a file."""
    stored = file.read("teacher")
    return Teacher(tuple(stored[f"weight_{k}"] for k in range(3)), tuple(stored[f"bias_{k}"] for k in range(3)))


def read(file: RunFile, spec: ComputerTraining, images: Images, path: Path) -> TrainingResult:
    """The finished training in a file.  Raises InputError where it has not finished."""
    if file.committed("shots") < spec.shots:
        raise InputError(f"{path} holds a training that has not finished; go on with 'thermorun resume {path}'.")
    descent = {"update": np.empty(0, np.int64), "loss": np.empty(0), "accuracy": np.empty(0)}
    if spec.method != "closed-form":
        descent = file.read("descent")
    facts = dict(zip(FACTS, (float(value) for value in file.read("facts")["value"]), strict=True))
    return TrainingResult(
        spec, images, machine_files.read_section(file), read_score(file, images), descent["update"], descent["loss"],
        descent["accuracy"], facts, path, file.threads,
    )  # fmt: skip
