"""What a study of latent cycles is: everything that decides its numbers, and nothing else."""

import json
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermorun.cycles.model import ENCODINGS, MAX_HIDDEN, KernelOptions, kernel_options, require_sizes
from thermorun.errors import InputError, require_count, require_number, require_positive

PRECISIONS = ("float32", "float64")


@dataclass(frozen=True)
class CycleStudy:
    """Models trained side by side on one data set, each a pure function of its own seed (Baiesi & Rosso, Sect. IV).

    The defaults are the paper's settings on the bundled digits; ``dataset="mnist-012"`` is the paper's own study.
    ``classes`` picks classes of the data set.  Model m has seed ``seed + m``.  ``tied`` trains the equilibrium baseline
    wbar = w by persistent contrastive divergence.  ``minibatch`` is the size in the first and the last epoch, linear
    between.  ``decay`` and ``floor`` are RMSProp's.

    ``epoch_samples`` and ``samples`` are the visible samples a hidden state for the transition matrix, after each epoch
    and at the end; with more than 256 states they are spread more thinly.  ``count_steps`` double steps a model are
    counted at the end.  ``keep_every`` is the number of epochs between kept parameters.  ``fingerprint`` is the data's,
    filled in when they are read.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    dataset: str = "digits"
    classes: tuple[int, ...] | None = None
    encoding: str = "softmax"
    hidden: int = 6
    tied: bool = False
    models: int = 36
    epochs: int = 120
    steps_per_epoch: int = 30
    chain_steps: int = 48
    learning_rate: float = 0.1
    decay: float = 0.9
    floor: float = 1e-8
    minibatch: tuple[int, int] = (16, 160)
    seed: int = 0
    precision: str = "float32"
    epoch_samples: int = 64
    samples: int = 2000
    count_steps: int = 100_000
    keep_every: int = 1
    fingerprint: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "minibatch", tuple(self.minibatch))
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(self.classes))
        for name in ("hidden", "models", "epochs", "steps_per_epoch", "epoch_samples", "samples", "keep_every"):
            require_count(name, getattr(self, name))
        require_count("chain_steps", self.chain_steps, 2)
        require_count("count_steps", self.count_steps, 2)
        if len(self.minibatch) != 2:
            raise InputError(f"minibatch is {self.minibatch}; give two sizes, first and last, as in 16:160.")
        for size in self.minibatch:
            require_count("minibatch", size)
        for name in ("learning_rate", "floor"):
            require_positive(name, getattr(self, name))
        require_number("decay", self.decay)
        if not 0 <= self.decay < 1:
            raise InputError(f"decay is {self.decay}; it must be at least 0 and below 1.")
        require_count("seed", self.seed, 0)
        if self.seed + self.models > 2**64:
            raise InputError(f"seed is {self.seed}; with {self.models} models it must stay below 2^64.")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}; it must be one of {', '.join(PRECISIONS)}.")
        if self.encoding not in ENCODINGS:
            raise InputError(f"encoding is {self.encoding!r}; it must be one of {', '.join(ENCODINGS)}.")
        require_sizes(self.encoding, self.hidden, 1, self.tied)
        assert MAX_HIDDEN[self.encoding] >= self.hidden
        if self.steps * self.chain_steps >= 2**32:
            raise InputError(
                f"{self.steps} gradient steps of chain_steps {self.chain_steps} make {self.steps * self.chain_steps}"
                " double steps; the random streams hold 2^32."
            )

    @property
    def steps(self) -> int:
        """Gradient steps of a model."""
        return self.epochs * self.steps_per_epoch

    @property
    def seeds(self) -> NDArray[np.uint64]:
        """Each model's."""
        return np.arange(self.seed, self.seed + self.models, dtype=np.uint64)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the parameters."""
        return np.dtype(self.precision)

    @property
    def options(self) -> KernelOptions:
        """For kernels."""
        return kernel_options(self.encoding, self.tied, self.chain_steps, self.learning_rate, self.decay, self.floor)

    def sizes(self, epoch: int) -> NDArray[np.intp]:
        """The minibatch of every gradient step of an epoch, intp (steps_per_epoch,)."""
        first, last = self.minibatch
        share = epoch / (self.epochs - 1) if self.epochs > 1 else 0.0
        return np.full(self.steps_per_epoch, round(first + (last - first) * share), np.intp)

    def to_dict(self) -> dict[str, Any]:
        """All fields in JSON's types."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["minibatch"] = list(self.minibatch)
        values["classes"] = None if self.classes is None else list(self.classes)
        return values

    def to_json(self) -> str:
        """One line of JSON, the same for equal specs."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "CycleStudy":
        """The spec that ``to_json`` wrote.  Raises InputError for anything else."""
        try:
            return cls(**json.loads(text))
        except (TypeError, json.JSONDecodeError) as error:
            raise InputError(f"spec {text[:80]!r} is not that of a study of latent cycles ({error}).") from error
