"""Tuning through the noise: down the gradient of how far a machine's own pictures are from the images.

    distance = min over matchings of the mean of |x(t_f) - m|^2 / pixels,

x(t_f) being the visible units of pictures that come out of noise, m the means of prepared images, and a matching a way
to give every image equally many of the pictures, of its own class where one is asked for: so not all pictures may go to
one image.  The square of the 2-Wasserstein distance, in other words.  The gradient is that of the very noisy steps
(`thermokernels.adjoint`), matching held, from the machine of least action on.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from thermokernels import adjoint
from thermokernels.moments import Step, adam
from thermorun import streams
from thermorun.arrays import Array
from thermorun.computer.adjoint import LimitedPhysics, limited
from thermorun.computer.generative.noising import relax
from thermorun.computer.generative.task import Task
from thermorun.computer.machine import Physics

# Pictures of one update.
BATCH = 64
# Steps are as long as mu dt times the curvature of a well is this, where a bright pixel rests: far from unstable.
_CURVATURE = 0.3
# Learning rates of Adam, of couplings and biases, in energies divided by the number of units: where all couplings of a
# unit change alike, its field changes by so much.  They rise at first, for Adam's first steps are as large whatever the
# gradient is, and fall by half a cosine.
_RATE, _BIAS_RATE, _RISE = 0.4, 1.2, 20
_FIRST, _SECOND, _FLOOR = 0.9, 0.999, 1e-8


@dataclass
class Tuning:
    """One machine that is tuned, from the closed form on; ``done`` updates, ``losses`` (updates,) their distances.

    ``couplings`` (units, units) and ``biases`` (inputs, units), in the precision of the spec.
    """

    task: Task
    machine: int
    done: int = 0
    losses: Array = field(init=False)
    couplings: Array = field(init=False)
    biases: Array = field(init=False)

    unit = "updates"

    def __post_init__(self) -> None:
        task, spec = self.task, self.task.spec
        J, b = task.minimum
        self.losses = np.full(spec.updates, np.nan)
        self.couplings, self.biases = np.array(J, spec.dtype, order="C"), np.array(b, spec.dtype, order="C")
        allowed = ~np.eye(task.units, dtype=bool)
        allowed[spec.hidden :, spec.hidden :] = False
        self._allowed = allowed.astype(spec.dtype), np.array(task.free * np.ones_like(b), spec.dtype, order="C")
        self._memory = [np.zeros_like(self.couplings) for _ in range(2)], [np.zeros_like(self.biases) for _ in range(2)]
        pixels = task.codes[:, spec.hidden :]
        self.images = task.wells[1].prepared(pixels.ravel()).reshape(pixels.shape)
        self.physics, self._kernel = coarse(spec.physics, float(np.abs(self.images).max()))

    @property
    def total(self) -> int:
        """Updates in all."""
        return self.task.spec.updates

    @property
    def state(self) -> dict[str, Array]:
        """What a checkpoint keeps."""
        found = {"couplings": self.couplings, "biases": self.biases, "losses": self.losses, "done": np.array(self.done)}
        for name, memory in zip(("couplings", "biases"), self._memory, strict=True):
            found |= {f"{name}_{k}": array for k, array in enumerate(memory)}
        return found

    def step(self) -> float:
        """One update; returns the distance before it."""
        value, *gradient = self.gradient(self.couplings, self.biases, self.done)
        self.losses[self.done] = value
        self.done += 1
        left = min(self.done / _RISE, 0.5 * (1.0 + np.cos(np.pi * (self.done - 1) / self.total)))
        unbiased = left / self.task.units * np.sqrt(1 - _SECOND**self.done) / (1 - _FIRST**self.done)
        parts = zip(
            (self.couplings, self.biases), gradient, self._allowed, self._memory, (_RATE, _BIAS_RATE), strict=True
        )
        for values, g, allowed, memory, rate in parts:
            arrays = (values, np.ascontiguousarray(g, values.dtype), allowed, *memory)
            adam(*(array.reshape(-1) for array in arrays), Step(float(rate * unbiased), 0.0, _FIRST, _SECOND, _FLOOR))
        return value

    def diverged(self) -> str:
        """What to say when it did."""
        return (
            f"the adjoint rule diverged at update {self.done}; of fewer updates, or in closed form, there is a machine."
        )

    def gradient(self, couplings: Array, biases: Array, update: int) -> tuple[float, Array, Array]:
        """The distance of the pictures of an update, and its slopes in J (units, units) and b (inputs, units)."""
        task, spec, steps = self.task, self.task.spec, self.physics.steps
        noise = streams.generative(spec.seed, "tuning", self.machine)
        image, inputs = self._wanted(update)
        x = np.zeros((BATCH, task.units), spec.dtype)
        relax(x, task.tilt, self.physics, noise, first=2 * update * steps)
        h = np.ascontiguousarray(task.tilt + inputs @ biases, spec.dtype)
        marks = np.empty((adjoint.segments(steps), *x.shape), spec.dtype)
        rest = (h, couplings, self._kernel, ((2 * update + 1) * steps, steps), noise.take())
        adjoint.forward(x, marks, np.zeros(BATCH, np.int64), *rest)
        made = marks[-1][:, spec.hidden :].astype(float)
        value, slopes = distance(made, self.images[image], task.labels[image], spec.conditional)
        at_end, of_fields = np.zeros_like(x), np.empty_like(x)
        at_end[:, spec.hidden :] = slopes
        of_pairs = np.empty((task.units, task.units))
        adjoint.backward(x, marks, at_end, *rest, of_fields, of_pairs)
        return value, of_pairs, inputs.T @ of_fields

    def _wanted(self, update: int) -> tuple[Array, Array]:
        """Numbers of the images that are to come in an update, int64 (BATCH,), and the inputs of their classes."""
        task, turn = self.task, update * BATCH + np.arange(BATCH)
        classes = len(task.data.classes)
        # Class by class in turn, so that few images of many classes are as mixed as all.
        image = turn % classes * task.spec.images + turn // classes % task.spec.images
        return image, task.design[image]


def distance(made: Array, images: Array, classes: Array, within: bool) -> tuple[float, Array]:
    """The least mean square between pictures (n, pixels) and images (n, pixels) of all matchings, and its slopes.

    ``within`` classes alone: picture k is then to be of the class of image k.
    """
    pixels = made.shape[1]
    squares = (np.sum(made**2, axis=1)[:, None] - 2 * made @ images.T + np.sum(images**2, axis=1)) / pixels
    if not np.isfinite(squares).all():
        return np.nan, np.zeros_like(made)
    if within:
        squares = np.where(classes[:, None] == classes, squares, 1e3 * squares.max() + 1.0)
    _, chosen = linear_sum_assignment(squares)
    apart = made - images[chosen]
    return float(np.mean(apart**2)), 2 * apart / apart.size


def coarse(physics: Physics, bright: float) -> tuple[Physics, LimitedPhysics]:
    """The same physics in longer steps, as many as pixels as bright as this need, and as the kernel takes it."""
    curvature = physics.mobility * (2 * abs(physics.J2) + 12 * physics.J4 * bright**2)
    steps = min(physics.steps, int(np.ceil(physics.observation_time * curvature / _CURVATURE)))
    return replace(physics, dt=physics.observation_time / steps), limited(physics, steps)
