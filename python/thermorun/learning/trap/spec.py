"""What a run of the learned trap is: everything that decides its numbers, and nothing else."""

from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any, Self

import numpy as np

from thermokernels.random import BLOCK
from thermorun import specs, streams
from thermorun.errors import InputError, require_count
from thermorun.learning.trap.discretisation import INTEGRATORS, MOST_STEPS, default_steps
from thermorun.learning.trap.protocols import NAMES, Path, Protocol, Schedule, Trap, given_protocol, protocol, start
from thermorun.specs import Parameter, Spec, several


def _samples(name: str, value: Any) -> int | tuple[float, ...]:
    """A size, or the values themselves, or a file of them."""
    if isinstance(value, str | FilePath):
        from thermorun.learning.data import sample  # loads the potentials, which nothing else here needs

        read = sample(name, value)
        if read.dimension != 1 or read.x is None:
            raise InputError(f"{name} is {value}, which holds {read.dimension} numbers a point; the trap has one.")
        return tuple(read.x[:, 0].tolist())
    if np.ndim(value) == 0:
        return require_count(name, value)
    values = np.asarray(value)
    if values.dtype.kind not in "iuf" or not values.size or not np.all(np.isfinite(values)):
        raise InputError(f"{name} holds {values.size} values; it must hold at least one, and only finite numbers.")
    return tuple(values.astype(float).ravel().tolist())


@dataclass(frozen=True)
class ExcessWork(Spec):
    """A learned harmonic trap under one or more protocols (Hnybida & Verret 2025, Sects. II and III).

    The default is the paper's Fig. 6.  Its fields are the parameters of `excess_work`.  Raises InputError (a
    ValueError) for whatever cannot run.
    """

    command = "excess-work"
    runner = "thermorun.learning.trap.run"
    grows = ("replicas",)
    parts = "replica"

    protocols: Annotated[
        tuple[str | Schedule | Path, ...],
        Parameter(several(given_protocol), f"{', '.join(NAMES)}, or one of your own"),
    ] = NAMES[:4]
    mobility: Annotated[float, specs.MOBILITY] = 1.0
    beta: Annotated[float, specs.BETA] = 1.0
    tau: Annotated[float, Parameter(specs.positive, "duration", "time")] = 5.0
    theta0: Annotated[float, Parameter(specs.number, "centre of the trap at the start", "length")] = 0.0
    target: Annotated[float, Parameter(specs.number, "theta*, the mean of the data", "length")] = 1.0
    u0: Annotated[
        float | None,
        Parameter(specs.number, "mean of x at the start; by default what the protocol asks for", "length"),
    ] = None
    eta: Annotated[float, Parameter(specs.positive, "learning rate of the protocol 'constant'", "1/time")] = 0.5
    use_target: Annotated[
        bool, Parameter(specs.flag, "let 'discontinuous' use theta* where u0 is not theta0 (Eq. 36)")
    ] = False
    particles: Annotated[int, Parameter(specs.count(1, specs.MOST_PARTICLES), "that share one theta")] = 2**20
    replicas: Annotated[int, Parameter(specs.count(1, 2**31), "independent runs of each protocol")] = 1
    steps: Annotated[
        int | None,
        Parameter(specs.count(1, MOST_STEPS), "of equal length; by default 1,000, or 40 for each 1/mobility or 1/eta"),
    ] = None
    integrator: Annotated[
        str, Parameter(specs.Choice(*INTEGRATORS), "exact is that of the Ornstein-Uhlenbeck process")
    ] = "exact"
    precision: Annotated[str, specs.PRECISION] = "float32"
    samples: Annotated[
        int | tuple[float, ...] | None,
        Parameter(
            _samples,
            "a finite sample of the data: its size, drawn for each replica from p_m(x, theta*), or the values"
            " themselves or a file of them (.csv, .npy, .npz); by default the exact mean of the data",
        ),
    ] = None
    minibatch: Annotated[
        int | None, Parameter(specs.count(), "draw so many of the samples, with replacement, at every step")
    ] = None
    records: Annotated[int, Parameter(specs.count(), "equal parts of the duration at whose ends is recorded")] = 200
    snapshots: Annotated[int, Parameter(specs.count(0, 2**31), "histograms of x kept along the way")] = 0
    keep_work: Annotated[bool, Parameter(specs.flag, "keep every particle's own work and heat")] = False
    check_dt: Annotated[
        bool, Parameter(specs.flag, "run again with half the time step, and report the time-step bias")
    ] = False

    def validate(self) -> None:
        if self.minibatch is not None and self.samples is None:
            raise InputError(f"minibatch is {self.minibatch}, but there is no finite sample; give samples as well.")
        built = self.built()
        streams.require_distinct(tuple(built))
        for one in built.values():
            start(one.name, self.trap)

    def resolved(self) -> Self:
        """With steps set."""
        if self.steps is not None:
            return self
        return self.replace(steps=default_steps(self.trap, tuple(self.built().values())))

    @property
    def trap(self) -> Trap:
        """The physical problem."""
        return Trap(self.mobility, self.beta, self.tau, self.theta0, self.target, self.u0)

    def built(self) -> dict[str, Protocol]:
        """The protocols by label: their names, numbered where a name comes twice."""
        labelled: dict[str, Protocol] = {}
        for entry in self.protocols:
            one = protocol(entry, self.trap, self.eta, self.use_target) if isinstance(entry, str) else entry
            label, number = one.name, 2
            while label in labelled:
                label, number = f"{one.name}-{number}", number + 1
            labelled[label] = one
        return labelled

    @property
    def split(self) -> int:
        """How many parts a block of particles is cut into, for standard errors in closed loop: a power of two.

        So that a replica has some 64 parts of at least 16 particles; from 64 blocks on parts are blocks.
        """
        blocks = -(-self.particles // int(BLOCK))
        return 1 << max(0, 6 - (blocks - 1).bit_length())

    @property
    def degrees_of_freedom(self) -> float:
        """Of a standard error from within a replica in closed loop; 0 where all its particles are one part."""
        size = int(BLOCK) // self.split
        whole, rest = divmod(self.particles, size)
        shares = whole * (size / self.particles) ** 2 + (rest / self.particles) ** 2
        return max(1.0, 1 / shares - 1) if self.particles > size else 0.0

    def file_name(self) -> str:
        names = "-".join(self.built()) if len(self.protocols) <= 2 else f"{len(self.protocols)}-protocols"
        return f"excess-work-{names}-seed{self.seed}"


# The settings of the paper's figures, as far as they differ from those of Fig. 6.
FIGURES: dict[int, dict[str, Any]] = {
    1: {
        "protocols": ("constant",),
        "theta0": 10.0,
        "u0": -10.0,
        "target": 0.0,
        "mobility": 10.0,
        "eta": 10.0,
        "tau": 1.0,
    },
    2: {"protocols": ("constant",), "theta0": -10.0, "target": 0.0, "mobility": 100.0, "eta": 10.0, "tau": 1.0},
    3: {"protocols": ("continuous",), "theta0": -5.0, "u0": -10.0, "target": 0.0, "tau": 1.0},
    4: {"protocols": ("discontinuous",), "theta0": -10.0, "target": 0.0, "tau": 1.0},
    5: {"protocols": ("slow-driving",), "theta0": -10.0, "target": 0.0, "mobility": 5.0, "tau": 1.0},
    6: {},
}
for _number in range(1, 6):
    FIGURES[_number]["snapshots"] = 20
