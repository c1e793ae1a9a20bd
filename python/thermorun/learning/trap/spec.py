"""What a learning run is: everything that decides its numbers, and nothing else."""

import json
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from thermorun.errors import InputError, require_count, require_positive
from thermorun.learning.trap import protocols as schedules
from thermorun.learning.trap.discretisation import INTEGRATORS, MOST_STEPS, default_steps, discretise
from thermorun.learning.trap.protocols import Path, Protocol, Schedule, Trap

PRECISIONS = ("float32", "float64")
# The counter of the random streams holds particles in units of four in 32 bits.
_MOST_PARTICLES = 2**34


@dataclass(frozen=True)
class ExcessWork:
    """A learned harmonic trap under one or more protocols (Hnybida & Verret 2025, Sects. II and III).

    The default is the paper's Fig. 6.  ``mobility`` ... ``u0`` are those of ``schedules.Trap``; ``eta`` is the rate
    of the protocol "constant".  ``protocols`` holds names (``schedules.NAMES``) or protocols.

    ``particles`` are coupled through one theta; ``replicas`` are independent.  ``steps`` None takes
    ``scheme.default_steps``.  ``samples`` replaces the exact mean of the data by that of a finite sample of this size,
    drawn for each replica from p_m(x, theta*), or by the values themselves if a sequence is given; ``minibatch``
    draws so many of them, with replacement, at every step.

    ``records`` is the number of equal parts of [0, tau] at whose ends the run is recorded, ``snapshots`` that of the
    histograms of x kept along the way.  ``keep_work`` keeps every particle's own work and heat; in closed loop that
    takes a second pass, open loop along the theta that was learned and with the same noise.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    protocols: tuple[str | Protocol, ...] = schedules.NAMES[:4]
    mobility: float = 1.0
    beta: float = 1.0
    tau: float = 5.0
    theta0: float = 0.0
    target: float = 1.0
    u0: float | None = None
    eta: float = 0.5
    use_target: bool = False
    particles: int = 2**20
    replicas: int = 1
    steps: int | None = None
    integrator: str = "exact"
    precision: str = "float32"
    seed: int = 0
    samples: int | tuple[float, ...] | None = None
    minibatch: int | None = None
    records: int = 200
    snapshots: int = 0
    keep_work: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.protocols, str | Schedule | Path):
            object.__setattr__(self, "protocols", (self.protocols,))
        object.__setattr__(self, "protocols", tuple(self.protocols))
        if not self.protocols:
            raise InputError("protocols is empty; name at least one.")
        require_positive("eta", self.eta)
        for name in ("particles", "replicas", "records"):
            require_count(name, getattr(self, name))
        if self.particles > _MOST_PARTICLES:
            raise InputError(f"particles is {self.particles}; it must be at most {_MOST_PARTICLES}.")
        require_count("snapshots", self.snapshots, 0)
        require_count("seed", self.seed, 0)
        if self.seed >= 2**64:
            raise InputError(f"seed is {self.seed}; it must be below 2^64.")
        _require_choice("integrator", self.integrator, INTEGRATORS)
        _require_choice("precision", self.precision, PRECISIONS)
        self._check_data()
        if self.steps is not None:
            require_count("steps", self.steps)
            if self.steps > MOST_STEPS:
                raise InputError(f"steps is {self.steps}; it must be at most {MOST_STEPS}.")
        else:
            object.__setattr__(self, "steps", default_steps(self.trap, tuple(self.built().values())))
        for protocol in self.built().values():
            schedules.start(protocol.name, self.trap)
            discretise(self.trap, protocol, self.step_count, self.integrator)

    def _check_data(self) -> None:
        if self.samples is not None and not isinstance(self.samples, int):
            values = tuple(float(value) for value in self.samples)
            if not values or not np.all(np.isfinite(values)):
                raise InputError(
                    f"samples holds {len(values)} values; it must hold at least one, and only finite numbers."
                )
            object.__setattr__(self, "samples", values)
        elif self.samples is not None:
            require_count("samples", self.samples)
        if self.minibatch is not None:
            require_count("minibatch", self.minibatch)
            if self.samples is None:
                raise InputError(f"minibatch is {self.minibatch}, but there is no finite sample; give samples as well.")

    @property
    def trap(self) -> Trap:
        """The physical problem."""
        return Trap(self.mobility, self.beta, self.tau, self.theta0, self.target, self.u0)

    @property
    def step_count(self) -> int:
        """``steps``, which is never None once the spec exists."""
        assert self.steps is not None
        return self.steps

    @property
    def noisy_data(self) -> bool:
        """Whether replicas differ by their data too, so that one replica cannot tell its own error."""
        return isinstance(self.samples, int) or self.minibatch is not None

    def built(self) -> dict[str, Protocol]:
        """The protocols by label: their names, numbered where a name comes twice."""
        labelled: dict[str, Protocol] = {}
        for entry in self.protocols:
            protocol = (
                schedules.protocol(entry, self.trap, self.eta, self.use_target) if isinstance(entry, str) else entry
            )
            label, number = protocol.name, 2
            while label in labelled:
                label, number = f"{protocol.name}-{number}", number + 1
            labelled[label] = protocol
        return labelled

    def to_dict(self) -> dict[str, Any]:
        """All fields in JSON's types."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["protocols"] = [entry if isinstance(entry, str) else entry.to_dict() for entry in self.protocols]
        return values

    def to_json(self) -> str:
        """One line of JSON, the same for equal specs."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ExcessWork":
        """The spec that ``to_json`` wrote.  Raises InputError for anything else."""
        try:
            values = json.loads(text)
            values["protocols"] = tuple(
                entry if isinstance(entry, str) else schedules.from_dict(entry) for entry in values["protocols"]
            )
            return cls(**values)
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise InputError(f"spec {text[:80]!r} is not that of an excess-work run ({error}).") from error


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


def _require_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}.")
