"""What a run of the generative computer keeps in its file: prototypes, machines row by row, films."""

import json

import numpy as np

from thermorun.computer.generative.spec import TUNED, Generation
from thermorun.computer.generative.stages import STAGES, frames, noising_film
from thermorun.computer.generative.task import Task
from thermorun.store import Axis, RunFile, Variable

# What was learned, and what it makes: a row of each for every machine.
LEARNED, MADE = "machines", "pictures"
# Pictures and images of the film strips, and their frames.
SHOWN, SHOWN_IMAGES, FRAMES = 10, 3, 51
_UNIT = "length"


def lay_out(file: RunFile, task: Task) -> None:
    """Allocates all sections, and writes what is known at once."""
    spec = task.spec
    _add_prototypes(file, task)
    _add_noising(file, task)
    file.add_section(LEARNED, *_learned(task, spec))
    file.add_section(MADE, *_made(task, spec))
    file.note(
        rows=task.data.shape[0], columns=task.data.shape[1], class_names=json.dumps(list(map(str, task.said))),
        judge_accuracy=task.judge.accuracy,
    )  # fmt: skip
    file.wait()
    file.publish(dict.fromkeys((LEARNED, MADE), spec.rows))


def _add_prototypes(file: RunFile, task: Task) -> None:
    axes = [
        Axis("image", np.arange(len(task.labels)), "1", "images to learn"),
        Axis("pixel", np.arange(task.visible.shape[1]), "1", "row by row"),
        Axis("class", task.data.classes, "1", "labels of the classes"),
    ]
    variables = [
        Variable("brightness", ("image", "pixel"), "1", "of mean zero and variance one", "float32"),
        Variable("label", ("image",), "1", "number of the image's class", "int64"),
    ]
    file.add_section("prototypes", axes, variables)
    file.write_whole("prototypes", {"brightness": task.visible.astype(np.float32), "label": task.labels})


def _add_noising(file: RunFile, task: Task) -> None:
    """A film of images that are lost: the first of each of the first classes."""
    first = np.unique(task.labels, return_index=True)[1][:SHOWN_IMAGES]
    steps = task.spec.physics.steps
    axes = [
        Axis("time", frames(steps, FRAMES) * task.spec.dt, "time", "since the image was prepared"),
        Axis("image", first, "1", "images to learn"),
        Axis("pixel", np.arange(task.visible.shape[1]), "1", "row by row"),
    ]
    film = Variable("film", ("time", "image", "pixel"), _UNIT, "visible units while the image is lost", "float32")
    file.add_section("noising", axes, [film])
    file.write_whole("noising", {"film": noising_film(task, first, FRAMES)})


def _learned(task: Task, spec: Generation) -> tuple[list[Axis], list[Variable]]:
    axes = [
        _machines(spec),
        Axis("unit", np.arange(task.units), "1", "hidden, then visible"),
        Axis("hidden_unit", np.arange(spec.hidden), "1", "hidden"),
        Axis("input", np.arange(task.design.shape[1]), "1", "a constant, or the classes"),
        Axis("round", np.arange(spec.rounds), "1", "trajectories of every image"),
    ]
    variables = [
        Variable("couplings", ("machine", "unit", "hidden_unit"), "energy", "J; none between visible units", "float64"),
        Variable("bias", ("machine", "input", "unit"), "energy", "b, besides the fixed field"),
        Variable("loss", ("machine", "round"), "1", "mean action of a round; NaN without rounds"),
        Variable("gain", ("machine",), "1", "of the exact mean action, below that of a machine without couplings"),
        Variable("seconds", ("machine",), "s", "of learning"),
    ]
    if TUNED in spec.rules:
        axes.append(Axis("update", np.arange(spec.updates), "1", "of the adjoint rule"))
        label = "mean square of pictures from images; NaN without updates"
        variables.append(Variable("distance", ("machine", "update"), "length^2", label))
    return axes, variables


def _made(task: Task, spec: Generation) -> tuple[list[Axis], list[Variable]]:
    axes = [
        _machines(spec),
        Axis("picture", np.arange(spec.pictures), "1", "pictures of a machine"),
        Axis("pixel", np.arange(task.visible.shape[1]), "1", "row by row"),
        Axis("stage", np.array(STAGES), "1", "of making a picture, in their order"),
        Axis("time", frames(spec.physics.steps, FRAMES) * spec.dt, "time", "since the couplings are on"),
        Axis("filmed", np.arange(min(SHOWN, spec.pictures)), "1", "the first pictures"),
    ]
    staged = ("machine", "picture", "stage")
    variables = [
        Variable("x", ("machine", "picture", "pixel"), _UNIT, "visible units at the end", "float32"),
        Variable("answer", ("machine", "picture"), "1", "number of the class, by the nearest neighbours", "int64"),
        Variable("work", staged, "energy", "done on the machine"),
        Variable("heat", staged, "energy", "absorbed from the bath"),
        Variable("energy_change", staged, "energy", "between both ends of a stage"),
        Variable("first_law_residual", ("machine", "picture"), "energy", "dE - W - Q of all stages"),
        Variable("film", ("machine", "time", "filmed", "pixel"), _UNIT, "visible units while pictures come", "float32"),
    ]
    return axes, variables


def _machines(spec: Generation) -> Axis:
    return Axis("machine", np.arange(spec.rows), "1", "machines, one of every rule, then the next ones")
