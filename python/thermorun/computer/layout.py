"""What a training keeps in its file besides machine and shots: teacher, facts, descent, score, what a picture shows."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thermorun import streams
from thermorun.arrays import Array
from thermorun.computer.machine import Machine
from thermorun.computer.score import Accuracy, Score
from thermorun.computer.spec import EPOCHS, ComputerTraining
from thermorun.computer.teacher import Teacher, layers
from thermorun.datasets import Images
from thermorun.errors import RunError
from thermorun.estimates import Estimate
from thermorun.store import Axis, RunFile, Variable

# Points at which gradient descent is recorded; the adjoint by default after every epoch.
_RECORDS = 50
FACTS = (
    "teacher_accuracy", "teacher_seconds", "train_seconds", "action", "ridge", "loss", "gain", "cut_share", "epoch",
)  # fmt: skip
_QUANTITIES = ("accuracy", "top2", "vote", "heat", "work")
_PARTS = ("mean", "stderr", "stderr_images", "stderr_noise")
# Of a picture of activations: images, moments, and how far beyond the observation time.
_EXAMPLES, _FRAMES, _BEYOND = 4, 201, 2


def record_points(spec: ComputerTraining) -> Array:
    """The updates after which gradient descent is recorded, int64, ascending; none for the closed form."""
    if spec.method == "closed-form":
        return np.empty(0, np.int64)
    records = min(EPOCHS if spec.method == "adjoint" else _RECORDS, spec.updates)
    return np.unique(np.linspace(0, spec.updates, records + 1).round().astype(np.int64)[1:])


def note_sentences(file: RunFile, notes: Sequence[str]) -> None:
    """Keeps sentences that a result tells."""
    file.note(notes=json.dumps(list(notes)))


def read_sentences(file: RunFile) -> tuple[str, ...]:
    """Those that ``note_sentences`` kept."""
    return file.noted("notes", lambda line: tuple(json.loads(line))) or ()


def add_facts(file: RunFile) -> None:
    """Allocates what is known of a training besides its machine."""
    fact = Axis("fact", np.array(FACTS), "1", "name")
    file.add_section("facts", [fact], [Variable("value", ("fact",), "1", "its value")])


def write_facts(file: RunFile, facts: dict[str, float]) -> None:
    """Queues the facts; NaN where one is not known yet."""
    file.write_whole("facts", {"value": np.array([facts.get(name, np.nan) for name in FACTS])})


def read_facts(file: RunFile) -> dict[str, float]:
    """The facts in a file."""
    stored = file.read("facts")
    # A file from before there were some has fewer.
    known = {name.decode() if isinstance(name, bytes) else str(name) for name in stored["fact"]}
    return dict.fromkeys(FACTS, math.nan) | {
        name: float(value) for name, value in zip([n for n in FACTS if n in known], stored["value"], strict=True)
    }


def add_descent(file: RunFile, spec: ComputerTraining) -> None:
    """Allocates the records of a descent."""
    loss, shown = "mean action a trajectory", "up to 2,000 held-out images"
    if spec.method == "adjoint":
        loss, shown = "mean cross-entropy of noisy trajectories", "the training images that were set aside"
    file.add_section(
        "descent",
        [Axis("update", record_points(spec), "1", "updates done")],
        [
            Variable("loss", ("update",), "1", f"{loss} since the last record"),
            Variable("accuracy", ("update",), "1", f"of one shot at {shown}"),
        ],
    )


def add_score(file: RunFile, classes: Sequence[int]) -> None:
    """Allocates the score, which follows from the shots: for whoever reads the file without us."""
    axes = [
        Axis("quantity", np.array(_QUANTITIES), "1", "accuracies, 1, and energies of one classification, energy"),
        Axis("of_class", np.array(classes), "1", "label of images"),
        Axis("answer", np.array(classes), "1", "label of the largest output"),
    ]
    meanings = ("mean", "standard error", "the part of it that is due to images", "the part that is due to noise")
    variables = [Variable(name, ("quantity",), "1", text) for name, text in zip(_PARTS, meanings, strict=True)]
    variables += [
        Variable(f"class_{name}", ("of_class",), "1", f"accuracy of a class: {text}")
        for name, text in zip(_PARTS, meanings, strict=True)
    ]
    confusion = Variable("confusion", ("of_class", "answer"), "1", "shots, from label to answer", "int64")
    file.add_section("score", axes, [*variables, confusion])


def write_score(file: RunFile, score: Score) -> None:
    """Queues the score."""
    known = (getattr(score, name) for name in _QUANTITIES)
    whole = [Estimate(np.nan, np.nan) if one is None else one for one in known]
    by_class = score.by_class or (Accuracy(np.nan, np.nan),) * len(score.confusion)
    arrays = {name: np.array([getattr(one, name, np.nan) for one in whole]) for name in _PARTS}
    arrays |= {f"class_{name}": np.array([getattr(one, name) for one in by_class]) for name in _PARTS}
    file.write_whole("score", arrays | {"confusion": score.confusion})


def add_teacher(file: RunFile, spec: ComputerTraining, inputs: int, classes: int) -> None:
    """Allocates the teacher's weights."""
    first, second = layers(spec)
    axes = [
        Axis(name, np.arange(size), "1", "units of a layer of the teacher")
        for name, size in (("layer_0", inputs), ("layer_1", first), ("layer_2", second), ("layer_3", classes))
    ]
    variables = []
    for k in range(3):
        variables += [
            Variable(f"weight_{k}", (f"layer_{k}", f"layer_{k + 1}"), "1", "weights of a layer", "float32"),
            Variable(f"bias_{k}", (f"layer_{k + 1}",), "1", "biases of a layer", "float32"),
        ]
    file.add_section("teacher", axes, variables)


def write_teacher(file: RunFile, teacher: Teacher) -> None:
    """Queues the teacher's weights."""
    arrays = {f"weight_{k}": weight for k, weight in enumerate(teacher.weights)}
    file.write_whole("teacher", arrays | {f"bias_{k}": bias for k, bias in enumerate(teacher.biases)})


def read_teacher(file: RunFile) -> Teacher:
    """The teacher in a file."""
    stored = file.read("teacher")
    return Teacher(tuple(stored[f"weight_{k}"] for k in range(3)), tuple(stored[f"bias_{k}"] for k in range(3)))


@dataclass(frozen=True)
class Portrait:
    """Some held-out images of different classes, and one noisy trajectory of the machine at each.

    ``times`` (frames,); ``paths`` (frames, examples, units), NaN where they diverge; ``pictures`` (examples, rows,
    columns); ``labels`` (examples,) as numbers of the machine's classes.
    """

    times: Array
    paths: Array
    pictures: Array
    labels: Array


def _examples(images: Images) -> list[int]:
    """The first held-out image of each of the first classes."""
    labels = images.test_labels
    return [int(np.flatnonzero(labels == k)[0]) for k in np.unique(labels[labels >= 0])[:_EXAMPLES]]


def _frames(machine_steps: int) -> Array:
    """The steps that a picture shows."""
    return np.unique(np.linspace(0, _BEYOND * machine_steps, _FRAMES).round().astype(int))


def add_portrait(file: RunFile, spec: ComputerTraining, images: Images) -> None:
    """Allocates what a picture of activations shows."""
    chosen, units = _examples(images), spec.hidden + len(images.classes)
    times = _frames(spec.physics.steps) * spec.dt
    axes = [
        Axis("time", times, "time", "time since the fields were switched on"),
        Axis("example", np.array(chosen), "1", "number of the held-out image"),
        Axis("shown_unit", np.arange(units), "1", "units that move: hidden, then outputs"),
        Axis("row", np.arange(images.shape[0]), "1", "row of pixels"),
        Axis("column", np.arange(images.shape[1]), "1", "column of pixels"),
    ]
    variables = [
        Variable("path", ("time", "example", "shown_unit"), "length", "one noisy trajectory an image", "float32"),
        Variable("picture", ("example", "row", "column"), "1", "brightness", "float32"),
        Variable("example_label", ("example",), "1", "number of the image's class", "int64"),
    ]
    file.add_section("portrait", axes, variables)
    pictures = images.test_x[chosen].reshape(len(chosen), *images.shape)
    file.write_whole("portrait", {"picture": pictures, "example_label": images.test_labels[chosen]})


def write_portrait(file: RunFile, machine: Machine, spec: ComputerTraining, images: Images) -> None:
    """Runs the trajectories of a picture, and queues them; beyond the observation time a machine may diverge."""
    frames = _frames(machine.physics.steps)
    fields = machine.fields(machine.pixels.inputs(images.test_x[_examples(images)], np.float32), np.float32)
    recorded = [int(n) for n in frames]
    try:
        run = machine.run(fields, steps=recorded[-1], seed=streams.portrait(spec.seed), recorded=recorded)
    except RunError:
        return
    file.write_whole("portrait", {"path": run.paths})


def read_portrait(file: RunFile) -> Portrait | None:
    """What a picture of activations shows; None for a file from before it was kept."""
    if not file.noted("portrait"):
        return None
    stored: dict[str, Any] = file.read("portrait")
    return Portrait(stored["time"], stored["path"], stored["picture"], stored["example_label"])
