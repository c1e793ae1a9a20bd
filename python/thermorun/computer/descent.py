"""Gradient descent, minibatch by minibatch: plain, with momentum, or Adam."""

from typing import Protocol

import numpy as np

from thermokernels.moments import Step, adam
from thermorun.arrays import Array
from thermorun.computer.action import Parameters
from thermorun.computer.spec import ComputerTraining

MOMENTUM = 0.9
# Adam's memories and the addition to its root (Kingma & Ba 2015).
_FIRST, _SECOND, _FLOOR = 0.9, 0.999, 1e-8


class Objective(Protocol):
    """What a descent makes small, as a mean over ``points`` of data.

    ``rates``, by the names of the parameters, are learning rates at the start; ``allowed``, of couplings alone, is 1
    where there is one and 0 elsewhere.
    """

    points: int
    rates: dict[str, float]
    allowed: dict[str, Array]

    def start(self) -> dict[str, Array]:
        """Parameters to begin with, in the precision of the spec; the descent changes them in place."""
        ...

    def gradient(self, parameters: dict[str, Array], chosen: Array, update: int) -> tuple[float, dict[str, Array]]:
        """The mean over the ``chosen`` points, intp (batch,), and its gradient; ``update`` tells noise from noise."""
        ...

    def fall(self, progress: float) -> float:
        """What is left of the learning rates at ``progress``, from 0 to 1."""
        ...


class Descent:
    """A descent under way.  Update k is a pure function of the spec, the objective and the state after update k - 1."""

    def __init__(self, spec: ComputerTraining, objective: Objective) -> None:
        self.spec, self.objective, self.update = spec, objective, 0
        self.parameters = objective.start()
        self.first, self.second = (
            {name: np.zeros_like(array) for name, array in self.parameters.items()} for _ in range(2)
        )
        self._allowed = {
            name: objective.allowed.get(name, np.ones_like(array)) for name, array in self.parameters.items()
        }
        self._epoch, self._order = -1, np.empty(0, np.intp)

    @property
    def learned(self) -> Parameters:
        """The parameters as they are."""
        return Parameters(*(self.parameters[name] for name in ("W", "b", "J")))

    @property
    def state(self) -> dict[str, Array]:
        """What a checkpoint keeps."""
        memories = (("", self.parameters), ("first_", self.first), ("second_", self.second))
        return {prefix + name: array for prefix, memory in memories for name, array in memory.items()}

    def step(self) -> float:
        """One update; returns the mean over its minibatch, before it."""
        spec = self.spec
        value, gradient = self.objective.gradient(self.parameters, self._minibatch(), self.update)
        left = self.objective.fall(self.update / spec.updates)
        self.update += 1
        for name, g in gradient.items():
            decay = spec.weight_decay if name in self.objective.allowed else 0.0
            self._move(name, g, self.objective.rates[name] * left, decay)
            if spec.bound is not None and name in ("W", "b", "J"):
                np.clip(self.parameters[name], -spec.bound, spec.bound, out=self.parameters[name])
        return value

    def _move(self, name: str, g: Array, rate: float, decay: float) -> None:
        """One optimiser's step of one parameter array, in its own precision."""
        value, first, second = self.parameters[name], self.first[name], self.second[name]
        allowed = self._allowed[name]
        if self.spec.optimiser == "adam":
            unbiased = rate * np.sqrt(1 - _SECOND**self.update) / (1 - _FIRST**self.update)
            step = Step(float(unbiased), decay, _FIRST, _SECOND, _FLOOR)
            adam(*(array.reshape(-1) for array in (value, np.ascontiguousarray(g), allowed, first, second)), step)
            return
        number = g.dtype.type
        g = (g + number(decay) * value) * allowed
        if self.spec.optimiser == "momentum":
            first *= number(MOMENTUM)
            first += g
            g = first
        value -= number(rate) * g

    def _minibatch(self) -> Array:
        """The points of this update: every epoch goes once through all, in an order of its own."""
        points = self.objective.points
        size = min(self.spec.batch, points)
        epoch, place = divmod(self.update, points // size)
        if epoch != self._epoch:
            key = np.random.SeedSequence([self.spec.seed, epoch])
            self._order = np.random.Generator(np.random.Philox(key)).permutation(points)
            self._epoch = epoch
        return self._order[place * size : (place + 1) * size]
