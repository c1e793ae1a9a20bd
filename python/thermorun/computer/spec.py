"""What a training, a classification and a sweep are: everything that decides their numbers, and nothing else."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np

from thermorun import specs
from thermorun.computer.machine import CONNECTIVITIES, Physics
from thermorun.errors import InputError, require_number, require_positive
from thermorun.specs import Choice, Parameter, Spec, count, several

METHODS = ("closed-form", "onsager-machlup", "adjoint")
TARGETS = ("tanh", "linear", "one-hot")
OPTIMISERS = ("adam", "momentum", "plain")
OVER = ("observation-time", "temperature", "timestep", "shots", "window", "connectivity", "hidden")
# Those of them that train a machine for every value, and those that only read it otherwise.
TRAINED, READ = ("connectivity", "hidden"), ("shots", "window")
# By default, of the adjoint: epochs, and how its images are distorted.
EPOCHS, ROTATION, SHIFT, SCALING = 60, 8.0, 0.04, 0.08
# The closed form keeps one matrix of all pairs of units for every unit.
MOST_HIDDEN = 512
# Shots that vote on one answer.
_MOST_VOTES = 2**20

Value = float | str


def place(name: str, value: Any) -> str:
    """A path, or the name of something, as text."""
    return specs.text(name, os.fspath(value) if isinstance(value, os.PathLike) else value)


def _class(name: str, value: Any) -> int | str:
    return value if isinstance(value, str) and value else count(-(2**63), 2**63 - 1)(name, value)


CLASSES = Parameter(several(_class), "only these classes of the data set")
_SHOTS = Parameter(count(), "noisy trajectories of every image that is classified")
RETRAINING = Parameter(count(), "trajectories of every training anew, by default as many as the machine's own took")
FINGERPRINT = Parameter(count(0, 2**32 - 1), "of what was read, filled in when it is")


@dataclass(frozen=True, kw_only=True)
class ComputerTraining(Spec):
    """Training of a machine: to follow a teacher (Whitelam 2025, Sect. II), or through the noise to be right.

    The default is the paper's machine on the bundled digits; ``dataset="mnist"`` is the paper's own task.  Its fields
    are the parameters of `train`.  Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "computer"
    runner = "thermorun.computer.training"
    grows = ("shots",)

    dataset: Annotated[str, Parameter(place, "digits, mnist, or a file or folder of images with labels")] = "digits"
    classes: Annotated[tuple[int | str, ...] | None, CLASSES] = None
    method: Annotated[
        str,
        Parameter(
            Choice(*METHODS),
            "normal equations, descent of the mean action, or of the cross-entropy at the end of noisy trajectories",
        ),
    ] = "closed-form"
    hidden: Annotated[int, Parameter(count(2, MOST_HIDDEN), "hidden units")] = 64
    connectivity: Annotated[str, Parameter(place, f"{', '.join(CONNECTIVITIES)}, or a .npy file with a mask")] = (
        "all-to-all"
    )
    teacher: Annotated[
        str | None, Parameter(place, "a .npz file of your own activations: arrays hidden and logits")
    ] = None
    teacher_epochs: Annotated[int, Parameter(count(), "of the network that is trained otherwise")] = 30
    targets: Annotated[
        str, Parameter(Choice(*TARGETS), "of outputs: tanh(logit / softness), logit / softness, or 1 and -1")
    ] = "tanh"
    softness: Annotated[float, Parameter(specs.positive, "what logits are divided by")] = 10.0
    scale: Annotated[float, Parameter(specs.positive, "c: idealised trajectories have biases -c A", "energy")] = 400.0
    J2: Annotated[float, Parameter(specs.number, "quadratic part of a well", "energy")] = 1.0
    J4: Annotated[float, Parameter(specs.number, "quartic part of a well", "energy")] = 1.0
    kT: Annotated[float, Parameter(specs.positive, "temperature", "energy")] = 1.0
    mobility: Annotated[float, specs.MOBILITY] = 1.0
    dt: Annotated[float, Parameter(specs.positive, "time step", "time")] = 1e-3
    observation_time: Annotated[float, Parameter(specs.positive, "when outputs are read", "time")] = 0.2
    weight_decay: Annotated[
        float, Parameter(specs.not_negative, "adds half of it times the sum of squared couplings to what is minimised")
    ] = 0.0
    parameter_noise: Annotated[
        float,
        Parameter(specs.not_negative, "relative spread of parameters, of many devices, that training averages over"),
    ] = 0.0
    optimiser: Annotated[str, Parameter(Choice(*OPTIMISERS), "of the descent")] = "adam"
    learning_rate: Annotated[
        float | None, Parameter(specs.positive, "at the start, falling linearly to zero; by default one that suits")
    ] = None
    batch: Annotated[int, Parameter(count(), "trajectories an update")] = 128
    trajectories: Annotated[
        int | None,
        Parameter(count(), f"of the descent, in all; by default 500,000, or of the adjoint {EPOCHS} an image"),
    ] = None
    start: Annotated[
        str | None, Parameter(place, "a file with the machine that the adjoint starts from; by default a random one")
    ] = None
    training_steps: Annotated[
        int, Parameter(count(1, 10_000), "of the adjoint's trajectories; the machine is read with steps of dt")
    ] = 30
    rotation: Annotated[
        float | None,
        Parameter(
            specs.not_negative, f"the adjoint turns images at random, up to this, by default {ROTATION:g}", "degree"
        ),
    ] = None
    shift: Annotated[
        float | None,
        Parameter(specs.not_negative, f"and moves them up to this share of their side, by default {SHIFT:g}"),
    ] = None
    scaling: Annotated[
        float | None,
        Parameter(specs.not_negative, f"and changes their size up to this share, by default {SCALING:g}"),
    ] = None
    validation: Annotated[
        float,
        Parameter(specs.not_negative, "share of the training images that the adjoint is watched at, and not shown"),
    ] = 0.05
    bound: Annotated[
        float | None,
        Parameter(specs.positive, "which no coupling or bias of a descent may exceed, none by default", "energy"),
    ] = None
    shots: Annotated[int, _SHOTS] = 4
    precision: Annotated[str, specs.PRECISION] = "float32"
    fingerprint: Annotated[int | None, FINGERPRINT] = None

    def validate(self) -> None:
        if self.bound is not None and self.method == "closed-form":
            raise InputError(f"bound is {self.bound:g}, but method is closed-form; only a descent can be bounded.")
        if self.connectivity not in CONNECTIVITIES and Path(self.connectivity).suffix != ".npy":
            raise InputError(
                f"connectivity is {self.connectivity!r}; it must be {', '.join(CONNECTIVITIES)}, or a .npy file."
            )
        if self.teacher is not None and Path(self.teacher).suffix != ".npz":
            raise InputError(f"teacher is {self.teacher!r}; it must be a .npz file with activations.")
        if self.validation > 0.5:
            raise InputError(f"validation is {self.validation:g}; it must be a share between 0 and 0.5.")
        if self.scaling is not None and self.scaling >= 1:
            raise InputError(f"scaling is {self.scaling:g}; it must be below 1.")
        if self.start is not None and self.method != "adjoint":
            raise InputError(f"start is {self.start}, but method is {self.method}; only adjoint starts from a machine.")
        _ = self.physics

    def resolved(self) -> Self:
        """With the fingerprint of data, mask and activations, and with whole paths."""
        from thermorun.computer.task import Task

        return self.replace(**Task.of(self).noted)

    @property
    def physics(self) -> Physics:
        """Wells, temperature and times."""
        return Physics(self.J2, self.J4, self.kT, self.mobility, self.dt, self.observation_time)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of trajectories."""
        return np.dtype(self.precision)

    @property
    def updates(self) -> int:
        """Steps of gradient descent, once its trajectories are set."""
        assert self.trajectories is not None
        return -(-self.trajectories // self.batch)

    def file_name(self) -> str:
        return f"computer-{stem(self.dataset)}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Measurement(Spec):
    """What classifications and sweeps share: shots of the machine in a file at images."""

    file: Annotated[
        str | Path,
        Parameter(place, "a training, a machine, a text of parameters, or mnist, a machine of the package's own"),
    ]
    dataset: Annotated[
        str | None, Parameter(place, "as of a training, labels not needed; by default that of the training")
    ] = None
    classes: Annotated[tuple[int | str, ...] | None, CLASSES] = None
    part: Annotated[
        str | None,
        Parameter(
            Choice("held-out", "all"),
            "of the data set; by default the part held out where it has one or is that of the training, else all",
        ),
    ] = None
    shots: Annotated[int, _SHOTS] = 4
    outputs: Annotated[
        int | None, Parameter(count(), "outputs of a text of parameters; by default the author's 10")
    ] = None
    pixel_mean: Annotated[
        float | None, Parameter(specs.number, "taken off each pixel, the machine's own by default, 0.13066 for a text")
    ] = None
    pixel_deviation: Annotated[
        float | None, Parameter(specs.positive, "which pixels are divided by, 0.3081 for a text")
    ] = None
    pixel_norm: Annotated[float | None, Parameter(specs.positive, "of the inputs of an image, 44.48 for a text")] = None
    precision: Annotated[str, specs.PRECISION] = "float32"
    fingerprint: Annotated[int | None, FINGERPRINT] = None

    def resolved(self) -> Self:
        """With the fingerprint of machine and images, the part of the data set, and whole paths."""
        from thermorun.computer.subject import Subject

        return self.replace(**Subject.of(self).noted)

    @property
    def changes(self) -> dict[str, float]:
        """The physics that are not the machine's own."""
        return {}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of trajectories."""
        return np.dtype(self.precision)


@dataclass(frozen=True, kw_only=True)
class Classification(Measurement):
    """One measurement; ``kT``, ``dt`` and ``observation_time`` are the machine's where None.

    Its fields are the parameters of `classify`.  Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "computer-classify"
    shared = True
    parts = "shot"
    runner = "thermorun.computer.classification"
    grows = ("shots",)

    kT: Annotated[float | None, Parameter(specs.not_negative, "another temperature", "energy")] = None
    dt: Annotated[float | None, Parameter(specs.positive, "another time step", "time")] = None
    observation_time: Annotated[float | None, Parameter(specs.positive, "another time of reading", "time")] = None

    @property
    def changes(self) -> dict[str, float]:
        names = ("kT", "dt", "observation_time")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def file_name(self) -> str:
        return f"computer-classify-{stem(self.file)}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Sweep(Measurement):
    """The machine at many values of one setting.  Its fields are the parameters of `sweep`.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "computer-sweep"
    runner = "thermorun.computer.sweeping"
    parts = "value"

    over: Annotated[
        str,
        Parameter(
            Choice(*OVER),
            "what differs; shots that vote and the window of a read-out average, connectivity and hidden train anew",
        ),
    ] = "observation-time"
    values: Annotated[
        tuple[Value, ...] | None,
        Parameter(several(specs.anything), "of it, with commas between; by default usual ones"),
    ] = None
    retrain: Annotated[
        bool, Parameter(specs.flag, "train a machine for every observation time, temperature or time step")
    ] = False
    retraining: Annotated[int | None, RETRAINING] = None

    def validate(self) -> None:
        if self.retrain and self.over in READ:
            raise InputError(f"retrain is True, but over is {self.over}, which is no part of a training.")
        if self.values is not None:
            object.__setattr__(self, "values", tuple(self._value(value) for value in self.values))

    def _value(self, value: Any) -> Value:
        if self.over == "connectivity":
            return place("values", value)
        try:
            number = require_number("values", float(value) if isinstance(value, str) else value)
        except ValueError as error:
            raise InputError(f"values holds {value!r}; it must hold finite numbers.") from error
        if self.over == "window" or (self.over == "temperature" and not self.retrain):
            specs.not_negative("values", number)
        else:
            require_positive("values", number)
        if self.over in ("hidden", "shots"):
            least, most = (2, MOST_HIDDEN) if self.over == "hidden" else (1, _MOST_VOTES)
            return float(count(least, most)("values", int(number) if number == int(number) else value))
        return number

    @property
    def trains(self) -> bool:
        """Whether there is a machine for every value."""
        return self.retrain or self.over in TRAINED

    def file_name(self) -> str:
        return f"computer-sweep-{self.over}{'-retrained' * self.retrain}-{stem(self.file)}-seed{self.seed}"


def stem(name: str | Path) -> str:
    """What a file of images or of a machine is called, short."""
    return Path(name).stem
