"""What each experiment is: everything that decides its numbers, and nothing else."""

from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np

from thermorun import specs
from thermorun.computer.spec import CLASSES, FINGERPRINT, MOST_HIDDEN, RETRAINING, Measurement, place, stem
from thermorun.errors import InputError
from thermorun.specs import Parameter, Spec, count, several


@dataclass(frozen=True, kw_only=True)
class Energy(Measurement):
    """Heat and work of a classification and of the reset after it.  Its fields are the parameters of `energy`.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "computer-energy"
    runner = "thermorun.computer.experiments.energy"
    parts = "shot"

    shots: Annotated[int, Parameter(count(), "cycles of every image")] = 2
    reset_time: Annotated[
        float | None,
        Parameter(specs.positive, "of relaxing without couplings, five relaxation times by default", "time"),
    ] = None
    drives: Annotated[
        tuple[float, ...],
        Parameter(several(specs.positive), "strengths of the drive, in that of the machine; one is retrained at each"),
    ] = tuple(0.5**k for k in reversed(range(8)))
    retraining: Annotated[int | None, RETRAINING] = None
    multiply_accumulate: Annotated[
        float, Parameter(specs.positive, "what one takes in digital hardware, memory not counted", "J")
    ] = 1e-12
    temperature: Annotated[float, Parameter(specs.positive, "of the room, which makes kT joules", "K")] = 300.0

    def resolved(self) -> "Energy":
        from thermorun.computer.experiments.energy import settled
        from thermorun.computer.subject import Subject

        return settled(self, Subject.of(self))

    def file_name(self) -> str:
        return f"computer-energy-{stem(self.file)}-seed{self.seed}"


# Devices have 2^20 random streams each, and there are 2^32 for all.
_MOST_DEVICES, _MOST_TESTS = 4096, 2**20


@dataclass(frozen=True, kw_only=True)
class Devices(Measurement):
    """The machine built many times, each time a little otherwise.  Its fields are the parameters of `devices`.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "computer-devices"
    runner = "thermorun.computer.experiments.devices"

    shots: Annotated[int, Parameter(count(), "noisy trajectories of every image on every device")] = 1
    devices: Annotated[int, Parameter(count(2, _MOST_DEVICES), "devices at each level of spread")] = 8
    relative: Annotated[
        tuple[float, ...], Parameter(several(specs.not_negative), "spreads of parameters, in their own size")
    ] = (0.03, 0.1, 0.3)
    absolute: Annotated[
        tuple[float, ...],
        Parameter(several(specs.not_negative), "spreads, in the root mean square of parameters of a kind"),
    ] = (0.01, 0.03, 0.1)
    bits: Annotated[tuple[int, ...], Parameter(several(count(2, 16)), "of couplings and biases")] = (8, 6, 4)
    retrained: Annotated[
        int, Parameter(count(2, _MOST_DEVICES), "devices of the largest relative spread to retrain")
    ] = 3
    generations: Annotated[int, Parameter(count(), "of the genetic algorithm that retrains a device")] = 20
    population: Annotated[int, Parameter(count(2), "tried a generation")] = 24
    mutation: Annotated[float, Parameter(specs.positive, "of a parameter, in its own size")] = 0.03

    retraining: Annotated[int | None, RETRAINING] = None

    def validate(self) -> None:
        for name in ("relative", "absolute", "bits"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise InputError(f"{name} holds {', '.join(f'{one:g}' for one in values)}; each must be there once.")
        if self.level == 0:
            raise InputError("relative holds 0 alone; devices are retrained at the largest, which must be above 0.")
        if self.retrained > self.devices:
            raise InputError(f"retrained is {self.retrained}; it must be at most the {self.devices} devices.")
        if self.generations * self.population > _MOST_TESTS:
            raise InputError(
                f"generations is {self.generations} and population {self.population}; their product must be at most"
                f" {_MOST_TESTS}."
            )

    @property
    def level(self) -> float:
        """The relative spread of the devices that are retrained."""
        return max(self.relative)

    def file_name(self) -> str:
        return f"computer-devices-{stem(self.file)}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Comparison(Spec):
    """Ways to train the same machine.  Its fields are the parameters of `compare`.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "computer-compare"
    runner = "thermorun.computer.experiments.compare"

    dataset: Annotated[str, Parameter(place, "digits, mnist, or a file or folder of images with labels")] = "digits"
    classes: Annotated[tuple[int | str, ...] | None, CLASSES] = None
    hidden: Annotated[int, Parameter(count(2, MOST_HIDDEN), "hidden units")] = 32
    trajectories: Annotated[int, Parameter(count(), "of every descent")] = 20_000
    seeds: Annotated[int, Parameter(count(2), "trainings of each kind")] = 3
    weight_decay: Annotated[float, Parameter(specs.positive, "of the way that decays")] = 0.01
    shots: Annotated[int, Parameter(count(), "noisy trajectories of every held-out image")] = 2
    precision: Annotated[str, specs.PRECISION] = "float32"
    fingerprint: Annotated[int | None, FINGERPRINT] = None

    def resolved(self) -> Self:
        from thermorun.computer.experiments.compare import settled

        return self.replace(**settled(self).noted)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of trajectories."""
        return np.dtype(self.precision)

    def file_name(self) -> str:
        return f"computer-compare-{stem(self.dataset)}-seed{self.seed}"
