"""What a training of a thermodynamic computer is: everything that decides its numbers, and nothing else."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from thermorun.computer.machine import CONNECTIVITIES, Physics
from thermorun.errors import InputError, require_count, require_number, require_positive

METHODS = ("closed-form", "onsager-machlup")
TARGETS = ("tanh", "linear", "one-hot")
OPTIMISERS = ("adam", "momentum", "plain")
PRECISIONS = ("float32", "float64")
# The closed form keeps one matrix of all pairs of units for every unit.
_MOST_HIDDEN = 512


@dataclass(frozen=True)
class ComputerTraining:
    """Training of a machine by the Onsager-Machlup action of idealised trajectories (Whitelam 2025, Sect. II).

    The default is the paper's machine on the bundled digits; ``dataset="mnist"`` is the paper's own task.
    ``connectivity`` is one of ``CONNECTIVITIES`` or a .npy file with a mask.  ``teacher`` None trains a network
    inputs - hidden/2 - hidden/2 - classes for ``teacher_epochs``; a .npz file gives its own activations instead.
    ``targets`` and ``softness`` say how outputs' targets are formed, ``scale`` is c: see ``teacher.targets``.

    ``method`` closed-form solves the normal equations; onsager-machlup descends the gradient, ``batch`` trajectories a
    step, ``trajectories`` in all, by ``optimiser`` with ``learning_rate`` (None: one that suits the data, see
    ``descent.default_rate``) falling linearly to zero.  ``weight_decay`` adds half of it times the sum of squared
    couplings to the mean action.

    ``shots`` noisy trajectories a held-out image measure the accuracy.  ``fingerprint`` is that of data, mask and given
    activations, filled in when they are read.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    dataset: str = "digits"
    classes: tuple[int, ...] | None = None
    method: str = "closed-form"
    hidden: int = 64
    connectivity: str = "all-to-all"
    teacher: str | None = None
    teacher_epochs: int = 30
    targets: str = "tanh"
    softness: float = 10.0
    scale: float = 400.0
    J2: float = 1.0
    J4: float = 1.0
    kT: float = 1.0
    mobility: float = 1.0
    dt: float = 1e-3
    observation_time: float = 0.2
    weight_decay: float = 0.0
    optimiser: str = "adam"
    learning_rate: float | None = None
    batch: int = 128
    trajectories: int = 500_000
    shots: int = 4
    seed: int = 0
    precision: str = "float32"
    fingerprint: int | None = None

    def __post_init__(self) -> None:
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(self.classes))
        for name, allowed in (
            ("method", METHODS), ("targets", TARGETS), ("optimiser", OPTIMISERS), ("precision", PRECISIONS),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}.")
        if self.connectivity not in CONNECTIVITIES and Path(self.connectivity).suffix != ".npy":
            raise InputError(
                f"connectivity is {self.connectivity!r}; it must be {', '.join(CONNECTIVITIES)}, or a .npy file."
            )
        if self.teacher is not None and Path(self.teacher).suffix != ".npz":
            raise InputError(f"teacher is {self.teacher!r}; it must be a .npz file with activations.")
        require_count("hidden", self.hidden, 2)
        if self.hidden > _MOST_HIDDEN:
            raise InputError(f"hidden is {self.hidden}; it must be at most {_MOST_HIDDEN}.")
        for name in ("teacher_epochs", "batch", "trajectories", "shots"):
            require_count(name, getattr(self, name))
        for name in ("softness", "scale"):
            require_positive(name, getattr(self, name))
        require_number("weight_decay", self.weight_decay)
        if self.weight_decay < 0:
            raise InputError(f"weight_decay is {self.weight_decay}; it must be at least 0.")
        if self.learning_rate is not None:
            require_positive("learning_rate", self.learning_rate)
        require_count("seed", self.seed, 0)
        if self.seed >= 2**64:
            raise InputError(f"seed is {self.seed}; it must be below 2^64.")
        if self.kT <= 0:
            raise InputError(f"kT is {self.kT}; the action needs kT > 0.")
        assert self.physics.steps >= 1

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
        """Steps of gradient descent."""
        return -(-self.trajectories // self.batch)

    def to_dict(self) -> dict[str, Any]:
        """All fields in JSON's types."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["classes"] = None if self.classes is None else list(self.classes)
        return values

    def to_json(self) -> str:
        """One line of JSON, the same for equal specs."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ComputerTraining":
        """The spec that ``to_json`` wrote.  Raises InputError for anything else."""
        try:
            return cls(**json.loads(text))
        except (TypeError, json.JSONDecodeError) as error:
            raise InputError(f"spec {text[:80]!r} is not that of a training of a computer ({error}).") from error
