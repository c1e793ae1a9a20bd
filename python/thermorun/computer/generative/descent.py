"""The published rule and the online one: down the gradient of every trajectory, after it or step by step."""

from dataclasses import dataclass, field

import numpy as np

from thermokernels import network, reversal
from thermorun import streams
from thermorun.arrays import Array
from thermorun.computer.generative.noising import relax, schedule
from thermorun.computer.generative.task import Task

# Trajectories that are simulated at a time: as many as units of a kernel's group, for in noise every unit is alone.
BATCH = network.GROUP


@dataclass
class Descent:
    """One machine that learns, from nothing.  Trajectory q is of image q mod images, its noise a function of q.

    ``couplings`` (size, size), ``size`` the units to the next sixteen, and ``biases`` (inputs, units), in the precision
    of the spec; ``done`` trajectories, ``losses`` (rounds,) their mean actions.
    """

    unit = "trajectories"

    task: Task
    rule: str
    machine: int
    done: int = 0
    couplings: Array = field(init=False)
    biases: Array = field(init=False)
    losses: Array = field(init=False)
    _first: int = field(default=-1, init=False)
    _paths: Array = field(default_factory=lambda: np.empty(0), init=False)

    def __post_init__(self) -> None:
        size = -(-self.task.units // network.GROUP) * network.GROUP
        self.couplings = np.zeros((size, size), self.task.spec.dtype)
        self.biases = np.zeros((self.task.design.shape[1], self.task.units), self.task.spec.dtype)
        self.losses = np.full(self.task.spec.rounds, np.nan)

    @property
    def total(self) -> int:
        """Trajectories in all."""
        return self.task.spec.rounds * len(self.task.codes)

    @property
    def state(self) -> dict[str, Array]:
        """What a checkpoint keeps."""
        return {"couplings": self.couplings, "biases": self.biases, "losses": self.losses, "done": np.array(self.done)}

    def step(self) -> float:
        """One trajectory of the next image; returns what is minimised along it, before each change."""
        (number, image), path = divmod(self.done, len(self.task.codes)), self._path(self.done)
        self.done += 1
        loss = self._learn(image, path)
        if number < len(self.losses):
            self.losses[number] = np.nan_to_num(self.losses[number]) + loss / len(self.task.codes)
        return loss

    def diverged(self) -> str:
        """What to say when it did."""
        return (
            f"the {self.rule} rule diverged at trajectory {self.done} with rate {self.task.spec.step_size:g}; a smaller"
            " rate helps."
        )

    def _learn(self, image: int, path: Array) -> float:
        task, spec, units = self.task, self.task.spec, self.task.units
        inputs = task.design[image]
        h = (task.tilt + inputs @ self.biases).astype(spec.dtype)
        free, online = task.free.astype(spec.dtype), self.rule == "online"
        change = self.couplings if online else np.zeros_like(self.couplings)
        sums, loss = np.empty(units), np.empty(1)
        rule, physics = (spec.step_size, online), spec.physics.kernel
        reversal.learn(path, h, free, self.couplings, change, spec.hidden, physics, rule, sums, loss)
        if not online:
            self.couplings += change
        self.biases -= (spec.step_size * np.outer(inputs, sums * task.free)).astype(spec.dtype)
        return float(loss[0])

    def _path(self, number: int) -> Array:
        """x while the image of this trajectory is lost, (steps + 1, units)."""
        spec, images = self.task.spec, len(self.task.codes)
        first = number // BATCH * BATCH
        if first != self._first:
            self._first, steps = first, spec.physics.steps
            codes = self.task.codes[(first + np.arange(BATCH)) % images].T
            x = np.zeros(codes.shape, spec.dtype)
            noise, begin = streams.generative(spec.seed, "noising", self.machine), first // BATCH * 2 * steps
            a, tilt = schedule(spec.physics), self.task.tilt[:, None]
            # Units in the place of trajectories: none knows of another.
            relax(x, tilt, spec.physics, noise, forces=codes, amplitude=a[:steps], first=begin)
            rows = range(steps + 1)
            _, self._paths = relax(
                x, tilt, spec.physics, noise, forces=codes, amplitude=a[steps:], first=begin + steps, recorded=rows
            )
        return np.ascontiguousarray(self._paths[:, :, number - first])
