"""Training through the noise: the cross-entropy of a machine's outputs at the observation time, and its exact gradient.

    loss = mean over images of -log softmax(gain x_out(t_f))[label]

of one noisy trajectory an image, each update on noise of its own.  The gain, by which outputs are multiplied to become
logits, is learned too; no answer depends on it.

Trajectories have ``training_steps`` steps, fewer than those that the machine is read with, and longer ones.  Weights
grow while they are learned, and explicit steps blow up where mu dt (2 J2 + 12 J4 x^2) exceeds 2.  So no unit may leave
|x| < X, with X where it is `STIFFEST`: a step that would is cut off there, and as nothing before a cut matters to the
loss, the gradient pushes nothing further.  `cut_share` says how often that happened.
"""

from typing import Any, NamedTuple

import numpy as np

from thermokernels import adjoint, pictures
from thermokernels.random import fill_normals
from thermorun import streams
from thermorun.arrays import Array
from thermorun.computer.machine import Machine, Physics, Pixels
from thermorun.computer.mimicry import allowed
from thermorun.computer.spec import ComputerTraining
from thermorun.datasets import Images
from thermorun.errors import InputError

# mu dt times the curvature of a well where trajectories are cut off; at 2 a step ends as far away as it began.
STIFFEST = 1.9
# Standard deviations of fields and of couplings of a random machine, in units of its energies.
_FIELD, _PAIR = 3.0, 0.5
# Learning rates of Adam, in energies: of the field that an input's couplings make, of biases and of pairs; of the gain.
_RATES = {"W": 0.016, "b": 0.1, "J": 0.02, "gain": 0.01}

# Images at which it is counted how many states are cut off.
_SOME = 2000


class LimitedPhysics(NamedTuple):
    """The machine's physics as `thermokernels.adjoint` takes them: no |x| beyond ``limit``."""

    J2: float
    J4: float
    mobility: float
    kT: float
    dt: float
    limit: float


def limited(physics: Physics, steps: int) -> LimitedPhysics:
    """The physics of training in so many steps.  Raises InputError where no |x| at all would be stable."""
    dt = physics.observation_time / steps
    room = STIFFEST / (physics.mobility * dt) - 2 * physics.J2
    if room <= 0:
        least = int(np.ceil(2 * physics.J2 * physics.mobility * physics.observation_time / STIFFEST)) + 1
        raise InputError(f"training_steps is {steps}, too few for these wells: it must be at least {least}.")
    limit = float(np.sqrt(room / (12 * physics.J4))) if physics.J4 else np.inf
    return LimitedPhysics(*physics.kernel[:4], dt, limit)


def cross_entropy(outputs: Array, labels: Array, gain: float) -> tuple[float, Array, float]:
    """The mean loss, and its slopes: float64 (images, classes) in the outputs, and in the gain."""
    x, rows = outputs.astype(float), np.arange(len(labels))
    logits = gain * x
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    slopes = np.exp(logits)
    slopes[rows, labels] -= 1.0
    slopes /= len(labels)
    return float(-logits[rows, labels].mean()), gain * slopes, float((slopes * x).sum())


class EndState:
    """What `Descent` makes small: the loss at the end of noisy trajectories.

    ``learned`` intp (points,) says from which images it learns; ``mask`` bool (units, inputs + units); ``begin`` is a
    machine to start from, or None for a random one.
    """

    def __init__(
        self, spec: ComputerTraining, images: Images, learned: Array, pixels: Pixels, mask: Array,
        begin: Machine | None = None,
    ) -> None:  # fmt: skip
        assert spec.rotation is not None
        assert spec.shift is not None
        assert spec.scaling is not None
        self.spec, self.learned, self.begin = spec, learned, begin
        self.images, self.labels, self.columns = images.x, images.labels, images.shape[1]
        self.points, self.units, self.outputs = len(learned), len(mask), len(images.classes)
        self.pixels = (pixels.mean, pixels.deviation, pixels.norm)
        self.strength = (float(np.radians(spec.rotation)), spec.shift, spec.scaling)
        self.physics = limited(spec.physics, spec.training_steps)
        self.allowed = allowed(mask, self.images.shape[1], spec.dtype)
        self.brightness = pixels.norm / float(np.sqrt(self.images.shape[1]))  # of an input, root mean square
        self.rates = default_rates(spec, self.brightness)
        self._kept: dict[str, Array] = {}

    def start(self) -> dict[str, Array]:
        """The machine to start from, or random couplings where the mask allows them."""
        inputs, dtype = self.images.shape[1], self.spec.dtype
        if self.begin is not None:
            arrays = (self.begin.input_couplings, self.begin.bias, self.begin.couplings)
            W, b, J = (np.array(array, dtype, order="C") for array in arrays)
        else:
            normals = np.empty(self.units * (inputs + self.units))
            fill_normals(normals, *streams.adjoint(self.spec.seed, "start").take(), 0)
            W, J = (part.reshape(self.units, -1) for part in np.split(normals, [self.units * inputs]))
            W = (_FIELD / np.sqrt(inputs) / self.brightness * W).astype(dtype) * self.allowed["W"]
            J = (_PAIR * np.sqrt(0.5) * (J + J.T)).astype(dtype) * self.allowed["J"]
            b = np.zeros(self.units, dtype)
        return {"W": W, "b": b, "J": J, "gain": np.ones(1, dtype)}

    def inputs(self, chosen: Array, update: int) -> Array:
        """Inputs of the images of these numbers, each distorted in a way of its own."""
        found = self._room("inputs", len(chosen), self.images.shape[1])
        noise = streams.adjoint(self.spec.seed, "distortion", update).take()
        pictures.distort(self.images, self.columns, chosen, self.strength, self.pixels, noise, found)
        return found

    def device(self, update: int) -> dict[str, Any]:
        """What parameters are multiplied by in an update: the device that it runs on, 1 + parameter_noise z.

        The loss of a training with ``parameter_noise`` is thereby a mean over devices, one an update.
        """
        noise, inputs = self.spec.parameter_noise, self.images.shape[1]
        if not noise:
            return dict.fromkeys(("W", "b", "J"), self.spec.dtype.type(1.0))
        normals = np.empty((self.units, inputs + self.units + 1))
        fill_normals(normals.reshape(-1), *streams.adjoint(self.spec.seed, "parameters", update).take(), 0)
        W, J, b = np.split(normals, [inputs, inputs + self.units], axis=1)
        J = np.tril(J, -1)
        each = {"W": W, "b": b[:, 0], "J": J + J.T}
        return {name: (1.0 + noise * z).astype(self.spec.dtype) for name, z in each.items()}

    def gradient(self, parameters: dict[str, Array], chosen: Array, update: int) -> tuple[float, dict[str, Array]]:
        """The loss at the chosen images, and its gradient."""
        factors = self.device(update)
        W, b, J = (parameters[name] * factors[name] for name in ("W", "b", "J"))
        gain, chosen = parameters["gain"], self.learned[chosen]
        inputs = self.inputs(chosen, update)
        noise = streams.adjoint(self.spec.seed, "noise", update).take()
        fields = np.matmul(inputs, W.T, out=self._room("fields", len(chosen), self.units))
        fields += b
        marks = self._room("marks", adjoint.segments(self.spec.training_steps), len(chosen), self.units)
        run = Adjoint(fields, J, self.physics, self.spec.training_steps, noise, marks)
        value, slopes, of_gain = cross_entropy(run.end[:, -self.outputs :], self.labels[chosen], float(gain[0]))
        at_end = np.zeros_like(run.end)
        at_end[:, -self.outputs :] = slopes
        of_fields, of_pairs = run.gradient(at_end)
        return value, {
            "W": of_fields.T @ inputs * factors["W"],
            "b": of_fields.sum(axis=0) * factors["b"],
            "J": of_pairs.astype(J.dtype) * factors["J"],
            "gain": np.array([of_gain], gain.dtype),
        }

    def _room(self, name: str, *shape: int) -> Array:
        """An array for what every update writes anew and nobody keeps: new memory takes as long as to write it."""
        if name not in self._kept or self._kept[name].shape != shape:
            self._kept[name] = np.empty(shape, self.spec.dtype)
        return self._kept[name]

    def cut_share(self, parameters: dict[str, Array]) -> float:
        """The share of states, at the ends of segments, that are where trajectories are cut off: of some images."""
        some = self.learned[:: -(-self.points // _SOME)]
        inputs = self.inputs(some, self.spec.updates)
        noise = streams.adjoint(self.spec.seed, "noise", self.spec.updates).take()
        fields = inputs @ parameters["W"].T + parameters["b"]
        steps = self.spec.training_steps
        marks = np.empty((adjoint.segments(steps), *fields.shape), fields.dtype)
        run = Adjoint(fields, parameters["J"], self.physics, steps, noise, marks)
        return float(np.mean(np.abs(run.marks) >= self.physics.limit))

    def fall(self, progress: float) -> float:
        """Half a cosine, to zero."""
        return 0.5 * (1.0 + float(np.cos(np.pi * progress)))


class Adjoint:
    """Noisy trajectories from x = 0 in ``fields`` (trajectories, units), and the way back (`thermokernels.adjoint`).

    ``marks`` (segments(steps), trajectories, units) is written; ``end`` (trajectories, units), its last row, is where
    they end.
    """

    def __init__(
        self, fields: Array, couplings: Array, physics: LimitedPhysics, steps: int, noise: Any, marks: Array
    ) -> None:
        self.start = np.zeros_like(fields)
        self.rest = (fields, couplings, physics, (0, steps), noise)
        self.marks, self.status = marks, np.zeros(len(fields), np.int64)
        adjoint.forward(self.start, marks, self.status, *self.rest)
        self.end = marks[-1]

    def gradient(self, slopes: Array) -> tuple[Array, Array]:
        """That of a function with these ``slopes`` at the end, which become those at the start.

        In the fields, (trajectories, units), and in the couplings, float64 (units, units).
        """
        of_fields, of_couplings = np.empty_like(slopes), np.empty((slopes.shape[1], slopes.shape[1]))
        adjoint.backward(self.start, self.marks, slopes, *self.rest, of_fields, of_couplings)
        return of_fields, of_couplings


def default_rates(spec: ComputerTraining, brightness: float) -> dict[str, float]:
    """Learning rates that suit, or all in proportion to the one that is given, which is that of input couplings."""
    usual = _RATES | {"W": _RATES["W"] / brightness}
    factor = 1.0 if spec.learning_rate is None else spec.learning_rate / usual["W"]
    return {name: factor * rate for name, rate in usual.items()}
