"""Gradient descent on the mean action, minibatch by minibatch: plain, with momentum, or Adam."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from thermorun.arrays import Array
from thermorun.computer.action import Parameters, Statistics, gradient
from thermorun.computer.spec import ComputerTraining

_MOMENTUM = 0.9
# Adam's memories and the addition to its root (Kingma & Ba 2015).
_FIRST, _SECOND, _FLOOR = 0.9, 0.999, 1e-8
NAMES = ("W", "b", "J")
# Adam's default step, in units of the couplings that drive a unit as hard as its target does.
_ADAM_STEP = 0.004
# Fewer trajectories a minibatch need smaller steps, or the noise of the gradient wins.
_QUIET_BATCH = 10


def default_rate(spec: ComputerTraining, inputs: Array, targets: Array) -> float:
    """A learning rate for the start that suits the data.

    Plain descent: one over a bound on the curvature, mu dt / (2 kT) times the mean over trajectories of the sum over
    time of |u|^2 + 1 + |x|^2; less for minibatches below ten.  Momentum: a tenth of it.  Adam: 0.004 times the largest
    |target| over the norm of the inputs.
    """
    if spec.optimiser == "adam":
        return _ADAM_STEP * float(np.abs(targets).max()) / float(np.sqrt((inputs**2).sum(axis=1).mean()))
    some = slice(None, None, -(-len(inputs) // 1024))
    statistics = Statistics.of(inputs[some], np.ascontiguousarray(targets[some]), spec.physics)
    squares = spec.physics.steps * ((inputs**2).sum(axis=1, dtype=float).mean() + 1)
    squares += np.trace(statistics.gram) / len(statistics.inputs)
    physics = spec.physics
    rate = 2 * physics.kT / (physics.mobility * physics.dt * squares) * min(1.0, spec.batch / _QUIET_BATCH)
    return float(rate if spec.optimiser == "plain" else rate * (1 - _MOMENTUM))


@dataclass
class Descent:
    """A descent under way.  Update k is a pure function of the spec, the data and the state after update k - 1.

    ``inputs`` (points, inputs), ``targets`` (points, units), ``mask`` bool (units, inputs + units).
    """

    spec: ComputerTraining
    inputs: Array
    targets: Array
    mask: Array
    update: int = 0
    parameters: dict[str, Array] = field(init=False)
    first: dict[str, Array] = field(init=False)
    second: dict[str, Array] = field(init=False)
    rate: float = field(init=False)
    _epoch: int = field(default=-1, init=False)
    _order: Array = field(default_factory=lambda: np.empty(0, np.intp), init=False)

    def __post_init__(self) -> None:
        units, inputs = self.targets.shape[1], self.inputs.shape[1]
        shapes = {"W": (units, inputs), "b": (units,), "J": (units, units)}
        self.parameters, self.first, self.second = (
            {name: np.zeros(shape, self.spec.dtype) for name, shape in shapes.items()} for _ in range(3)
        )
        given = self.spec.learning_rate
        self.rate = default_rate(self.spec, self.inputs, self.targets) if given is None else given
        allowed = self.mask.astype(self.spec.dtype)
        self._allowed = {"W": np.ascontiguousarray(allowed[:, :inputs]), "J": np.ascontiguousarray(allowed[:, inputs:])}

    @classmethod
    def of(cls, spec: ComputerTraining, inputs: Array, targets: Array, mask: Array) -> Self:
        """At the start, in the precision of the spec."""
        return cls(spec, inputs.astype(spec.dtype), targets.astype(spec.dtype), mask)

    @property
    def learned(self) -> Parameters:
        """The parameters as they are."""
        return Parameters(*(self.parameters[name] for name in NAMES))

    @property
    def state(self) -> dict[str, Array]:
        """What a checkpoint keeps."""
        memories = (("", self.parameters), ("first_", self.first), ("second_", self.second))
        return {prefix + name: memory[name] for prefix, memory in memories for name in NAMES}

    def step(self) -> float:
        """One update; returns the mean action over its minibatch, before it."""
        spec, p = self.spec, self.parameters
        chosen = self._minibatch()
        statistics = Statistics.of(self.inputs[chosen], self.targets[chosen], spec.physics)
        action, by = gradient(statistics, self.learned, spec.physics)
        rate = self.rate * (1.0 - self.update / spec.updates)
        self.update += 1
        for name, g in (("W", by.W), ("b", by.b), ("J", by.J)):
            if name != "b":
                g *= self._allowed[name]
                if spec.weight_decay:
                    g += g.dtype.type(spec.weight_decay) * p[name]
            self._move(name, g, rate)
        return action

    def _move(self, name: str, g: Array, rate: float) -> None:
        """One optimiser's step of one parameter array, in its own precision."""
        number, value, first, second = g.dtype.type, self.parameters[name], self.first[name], self.second[name]
        if self.spec.optimiser == "plain":
            value -= number(rate) * g
        elif self.spec.optimiser == "momentum":
            first *= number(_MOMENTUM)
            first += g
            value -= number(rate) * first
        else:
            first += number(1 - _FIRST) * (g - first)
            g *= g
            second += number(1 - _SECOND) * (g - second)
            unbiased = number(rate * np.sqrt(1 - _SECOND**self.update) / (1 - _FIRST**self.update))
            value -= unbiased * first / (np.sqrt(second) + number(_FLOOR))

    def _minibatch(self) -> Array:
        """The points of this update: every epoch goes once through all, in an order of its own."""
        points, size = len(self.inputs), min(self.spec.batch, len(self.inputs))
        epoch, place = divmod(self.update, points // size)
        if epoch != self._epoch:
            key = np.random.SeedSequence([self.spec.seed, epoch])
            self._order = np.random.Generator(np.random.Philox(key)).permutation(points)
            self._epoch = epoch
        return self._order[place * size : (place + 1) * size]
