"""The stages of a picture: noise is prepared, couplings are switched on, the picture comes, all is reset."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from thermorun import streams
from thermorun.arrays import Array
from thermorun.computer.generative.noising import relax, schedule
from thermorun.computer.generative.spec import Generation
from thermorun.computer.generative.task import Task
from thermorun.computer.machine import Machine, Physics

STAGES = ("preparing", "switching on", "generating", "resetting")


@dataclass(frozen=True)
class Pictures:
    """What a machine made: ``x`` (pictures, pixels); ``work``, ``heat`` and ``energy_change`` float64 (pictures,
    stages); ``film`` (frames, shown, pixels) of the first pictures while they come."""

    x: Array
    work: Array
    heat: Array
    energy_change: Array
    film: Array

    @property
    def residual(self) -> Array:
        """First law of the whole: dE - W - Q, float64 (pictures,)."""
        return np.asarray((self.energy_change - self.work - self.heat).sum(axis=1))


def machine_of(spec: Generation, J: Array, b: Array) -> Machine:
    """The machine with couplings J (units, hidden) and biases b (inputs, units), float64: its outputs are the visible
    units, its inputs the classes where pictures are conditional."""
    units, hidden = J.shape
    whole = np.zeros((units, units))
    whole[:, :hidden], whole[:hidden] = J, J.T
    tilt = np.where(np.arange(units) < hidden, 0.0, spec.field)
    weights = b.T if spec.conditional else np.empty((units, 0))
    return Machine(weights, whole, tilt if spec.conditional else tilt + b[0], units - hidden, spec.physics)


def frames(steps: int, count: int) -> Array:
    """Numbers of the steps that a film shows, intp."""
    return np.unique(np.linspace(0, steps, count).round().astype(np.intp))


def clamped_pixels(clamped: str | None, shape: tuple[int, int]) -> Array:
    """Which pixels of a picture are given, bool (pixels,)."""
    rows, columns = shape
    given = np.zeros(shape, bool)
    halves: dict[str, Any] = {
        "upper": np.s_[: rows // 2], "lower": np.s_[rows - rows // 2 :],
        "left": np.s_[:, : columns // 2], "right": np.s_[:, columns - columns // 2 :],
    }  # fmt: skip
    if clamped is not None:
        given[halves[clamped]] = True
    return given.ravel()


def asked(spec: Generation, labels: Array, classes: int) -> tuple[Array, Array]:
    """What each picture is asked to be, in turn: numbers of the images, whose half may be given, and of the classes,
    int64 (pictures,) each."""
    pictures = np.arange(spec.pictures)
    image = pictures % len(labels)
    return image, labels[image] if spec.clamped else pictures % classes


def generate(
    task: Task, machine: Machine, number: int, shown: int, count: int, pause: Callable[[], None] = lambda: None
) -> Pictures:
    """All pictures of the machine with this number; the first ``shown`` are filmed in ``count`` frames.

    Raises RunError where a trajectory diverges.
    """
    spec, physics = task.spec, task.spec.physics
    moving, h, held, free = _setting(task, machine)
    tilt = task.tilt[free]
    noise = {name: streams.generative(spec.seed, name, number) for name in ("preparing", "generating", "resetting")}
    x = np.zeros_like(h)
    work, heat = (np.zeros((spec.pictures, len(STAGES))) for _ in range(2))
    energies = [_alone(x, tilt, physics)]
    heat[:, 0], _ = relax(x, tilt, physics, noise["preparing"])
    energies.append(_alone(x, tilt, physics))
    pause()
    energies.append(moving.energy(x, h))
    work[:, 1] = energies[2] - energies[1]
    run = moving.run(h, x=x, seed=noise["generating"], recorded=frames(physics.steps, count).tolist(), pause=pause)
    heat[:, 2] = run.heat
    energies.append(moving.energy(run.x, h))
    work[:, 3] = _alone(run.x, tilt, physics) - energies[3]
    reset = run.x.copy()
    heat[:, 3], _ = relax(reset, tilt, physics, noise["resetting"])
    energies.append(_alone(reset, tilt, physics))

    shape = (spec.pictures, machine.outputs)
    picture, film = np.empty(shape, spec.dtype), np.empty((len(run.paths), *shape), spec.dtype)
    for pixels, values in ((picture, run.x), (film, run.paths)):
        pixels[..., free[spec.hidden :]], pixels[..., ~free[spec.hidden :]] = values[..., spec.hidden :], held
    return Pictures(picture, work, heat, np.diff(np.array(energies), axis=0).T, film[:, :shown])


def _setting(task: Task, machine: Machine) -> tuple[Machine, Array, Array, Array]:
    """The units that move and their fields (pictures, units), the values of those given (pictures, pixels), and which
    units are free, bool (all units,): what is given or frozen does nothing but add to the fields of the others."""
    spec = task.spec
    image, wanted = asked(spec, task.labels, len(task.data.classes))
    given = np.concatenate([np.zeros(spec.hidden, bool), clamped_pixels(spec.clamped, task.data.shape)])
    inputs = np.eye(len(task.data.classes))[wanted] if spec.conditional else np.empty((spec.pictures, 0))
    h = machine.fields(inputs)
    held = np.empty((spec.pictures, int(given.sum())))
    if given.any():
        held[:] = task.wells[1].prepared(task.codes[image][:, given].ravel()).reshape(held.shape)
        h = h + held @ machine.couplings[given]
    free = ~given
    moving = Machine(
        machine.input_couplings[free], machine.couplings[np.ix_(free, free)], machine.bias[free],
        int(free[spec.hidden :].sum()), machine.physics,
    )  # fmt: skip
    return moving, np.ascontiguousarray(h[:, free], spec.dtype), held, free


def _alone(x: Array, tilt: Array, physics: Physics) -> Array:
    """Energy of uncoupled units (trajectories, units), float64 (trajectories,)."""
    x = x.astype(np.float64)
    total: Array = (physics.J2 * x**2 + physics.J4 * x**4 + tilt * x).sum(axis=1)
    return total


def noising_film(task: Task, images: Array, count: int) -> Array:
    """Frames (frames, images, pixels) of some images that are prepared and lost to noise, and the times of it."""
    spec, physics = task.spec, task.spec.physics
    x = np.zeros((len(images), task.units), spec.dtype)
    noise, a = streams.generative(spec.seed, "film"), schedule(physics)
    codes, steps = task.codes[images], physics.steps
    relax(x, task.tilt, physics, noise, forces=codes, amplitude=a[:steps])
    _, paths = relax(
        x, task.tilt, physics, noise, forces=codes, amplitude=a[steps:], first=steps, recorded=frames(steps, count)
    )
    return paths[:, :, spec.hidden :]
