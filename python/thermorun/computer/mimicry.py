"""The mean action as what a descent makes small: its gradient over a minibatch, and learning rates that suit."""

import numpy as np

from thermorun.arrays import Array
from thermorun.computer.action import Parameters, Statistics, gradient
from thermorun.computer.descent import MOMENTUM
from thermorun.computer.spec import ComputerTraining

# Adam's default step, in units of the couplings that drive a unit as hard as its target does.
_ADAM_STEP = 0.004
# Fewer trajectories a minibatch need smaller steps, or the noise of the gradient wins.
_QUIET_BATCH = 10


class Mimicry:
    """Following a teacher: ``inputs`` (points, inputs), ``targets`` (points, units), and the mask of all couplings."""

    def __init__(self, spec: ComputerTraining, inputs: Array, targets: Array, mask: Array) -> None:
        self.spec, self.inputs, self.targets = spec, inputs.astype(spec.dtype), targets.astype(spec.dtype)
        self.points = len(inputs)
        self.allowed = allowed(mask, inputs.shape[1], spec.dtype)
        given = spec.learning_rate
        rate = default_rate(spec, self.inputs, self.targets) if given is None else given
        self.rates = dict.fromkeys(("W", "b", "J"), rate)

    def start(self) -> dict[str, Array]:
        """Nothing."""
        units, inputs = self.targets.shape[1], self.inputs.shape[1]
        shapes = {"W": (units, inputs), "b": (units,), "J": (units, units)}
        return {name: np.zeros(shape, self.spec.dtype) for name, shape in shapes.items()}

    def gradient(self, parameters: dict[str, Array], chosen: Array, update: int) -> tuple[float, dict[str, Array]]:
        """The mean action over the chosen points, and its gradient."""
        statistics = Statistics.of(self.inputs[chosen], self.targets[chosen], self.spec.physics)
        action, by = gradient(statistics, Parameters(**parameters), self.spec.physics, self.spec.parameter_noise)
        return action, {"W": by.W, "b": by.b, "J": by.J}

    def fall(self, progress: float) -> float:
        """A straight line to zero."""
        return 1.0 - progress


def allowed(mask: Array, inputs: int, dtype: np.dtype) -> dict[str, Array]:
    """A mask bool (units, inputs + units) as factors of W and of J."""
    factors = mask.astype(dtype)
    return {"W": np.ascontiguousarray(factors[:, :inputs]), "J": np.ascontiguousarray(factors[:, inputs:])}


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
    return float(rate if spec.optimiser == "plain" else rate * (1 - MOMENTUM))
