"""What a run of the generative computer is: everything that decides its numbers, and nothing else."""

from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np

from thermorun import specs
from thermorun.computer.machine import Physics
from thermorun.computer.spec import CLASSES, place, stem
from thermorun.errors import InputError
from thermorun.specs import Choice, Parameter, Spec, count, several

RULES = ("closed-form", "published", "online", "untrained")
# Not among all, for it takes long where images are large.
TUNED = "adjoint"
CODES = ("signs", "projection", "pixels")
BIASES = ("all", "hidden", "none")
CLAMPED = ("upper", "lower", "left", "right")
# Steps of one random stream.
_STEPS = 2**32


@dataclass(frozen=True, kw_only=True)
class Generation(Spec):
    """Machines that learn to undo the loss of images to noise, and the pictures that they make (Whitelam 2026).

    The default learns three of the bundled digits in closed form.  The paper's own task is ``dataset="mnist"``,
    ``hidden=512``, ``rules=("published",)``, ``codes="pixels"``, ``biases="hidden"``, ``field=0``.  Its fields are the
    parameters of `generate`.  Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "computer-generate"
    runner = "thermorun.computer.generative.run"
    grows = ("machines", "pictures")
    parts = "machine"

    dataset: Annotated[
        str, Parameter(place, "digits, mnist, or a file or folder of images; without labels each is a class of its own")
    ] = "digits"
    classes: Annotated[
        tuple[int | str, ...] | None, Parameter(CLASSES.check, "of the data set, by default its first three")
    ] = None
    images: Annotated[int, Parameter(count(), "of each class to learn: its first ones")] = 1
    rules: Annotated[
        tuple[str, ...],
        Parameter(
            several(Choice("all", *RULES, TUNED)),
            f"how machines learn: {', '.join(RULES)}, or all of these; {TUNED}: closed form, tuned through the noise",
        ),
    ] = ("closed-form",)
    machines: Annotated[
        int, Parameter(count(1, 2**16), "machines of each rule, each of noise of its own; their spread is the error")
    ] = 1
    hidden: Annotated[int, Parameter(count(1, 2**14), "hidden units")] = 128
    codes: Annotated[
        str, Parameter(Choice(*CODES), "of hidden units: signs of random projections of an image, these, or its pixels")
    ] = "signs"
    biases: Annotated[str, Parameter(Choice(*BIASES), "which units learn one")] = "all"
    field: Annotated[
        float,
        Parameter(
            specs.number, "fixed field f: V = ... + f x, in the wells of visible units all along", "energy/length"
        ),
    ] = 1.0
    conditional: Annotated[
        bool, Parameter(specs.flag, "a frozen input for each class says which one a picture is to be of")
    ] = False
    clamped: Annotated[
        str | None, Parameter(Choice(*CLAMPED), "half of an image that is given; the other is generated")
    ] = None
    pictures: Annotated[int, Parameter(count(1, 2**20), "of every machine")] = 100
    rounds: Annotated[int, Parameter(count(), "trajectories of every image, published and online rule")] = 100
    rate: Annotated[float | None, Parameter(specs.positive, "of these rules, by default dt / duration")] = None
    updates: Annotated[int, Parameter(count(), "of the adjoint rule, each by 64 pictures")] = 400
    J2: Annotated[float, Parameter(specs.number, "quadratic part of a well", "energy")] = 1.0
    J4: Annotated[float, Parameter(specs.number, "quartic part of a well", "energy")] = 1.0
    kT: Annotated[float, Parameter(specs.positive, "temperature", "energy")] = 0.1
    mobility: Annotated[float, specs.MOBILITY] = 1.0
    dt: Annotated[float, Parameter(specs.positive, "time step", "time")] = 1e-3
    duration: Annotated[float, Parameter(specs.positive, "of noising, and of every stage of a picture", "time")] = 2.5
    precision: Annotated[str, specs.PRECISION] = "float32"
    fingerprint: Annotated[int | None, Parameter(count(0, 2**32 - 1), "of what was read, filled in when it is")] = None

    def validate(self) -> None:
        rules = tuple(dict.fromkeys(rule for one in self.rules for rule in (RULES if one == "all" else (one,))))
        object.__setattr__(self, "rules", rules)
        try:
            steps = self.physics.steps
        except InputError as error:
            raise InputError(str(error).replace("observation_time", "duration", 1)) from error
        if steps < 4:
            raise InputError(
                f"duration is {self.duration:g}, of {steps} steps dt = {self.dt:g}; it must be at least 4."
            )
        most = _STEPS // (2 * steps) * 8
        if self.rounds > most:
            raise InputError(f"rounds is {self.rounds}; of {2 * steps} steps each there can be {most:,}.")
        if self.updates > _STEPS // (2 * steps):
            raise InputError(
                f"updates is {self.updates}; of {2 * steps} steps each there can be {_STEPS // (2 * steps):,}."
            )

    def resolved(self) -> Self:
        """With the fingerprint of the data, and with whole paths."""
        from thermorun.computer.generative.task import Task

        return self.replace(**Task.of(self).noted)

    @property
    def physics(self) -> Physics:
        """Wells, temperature and times."""
        return Physics(self.J2, self.J4, self.kT, self.mobility, self.dt, self.duration)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of trajectories."""
        return np.dtype(self.precision)

    @property
    def step_size(self) -> float:
        """The rate, or the paper's."""
        return self.dt / self.duration if self.rate is None else self.rate

    @property
    def rows(self) -> int:
        """Machines of all rules."""
        return len(self.rules) * self.machines

    def rule_of(self, row: int) -> str:
        """The rule of a machine: one of every rule, then the next ones, so that more of them come last."""
        return self.rules[row % len(self.rules)]

    def file_name(self) -> str:
        return f"computer-generate-{stem(self.dataset)}-seed{self.seed}"
