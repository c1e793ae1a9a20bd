"""What each experiment is: everything that decides its numbers, and nothing else."""

from dataclasses import dataclass
from typing import Annotated

from thermorun import specs
from thermorun.computer.spec import Measurement, stem
from thermorun.specs import Parameter, count, several


@dataclass(frozen=True, kw_only=True)
class Energy(Measurement):
    """Heat and work of a classification and of the reset after it.  Its fields are the parameters of `energy`.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "computer-energy"
    runner = "thermorun.computer.experiments.energy"

    shots: Annotated[int, Parameter(count(), "cycles of every image")] = 2
    reset_time: Annotated[
        float | None,
        Parameter(specs.positive, "of relaxing without couplings, five relaxation times by default", "time"),
    ] = None
    drives: Annotated[
        tuple[float, ...],
        Parameter(several(specs.positive), "strengths of the drive, in that of the machine; one is retrained at each"),
    ] = tuple(0.5**k for k in reversed(range(8)))
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
