"""What a study of latent cycles is: everything that decides its numbers, and nothing else."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thermorun import datasets, specs
from thermorun.arrays import Array
from thermorun.cycles.model import (
    ENCODINGS,
    MAX_STATES,
    KernelOptions,
    Model,
    kernel_options,
    require_sizes,
    state_count,
)
from thermorun.datasets import Dataset
from thermorun.errors import InputError, require_count, require_number, short
from thermorun.specs import Parameter, Spec

# Kept parameters are about this many epochs' by default.
_KEPT = 10
# Steps of a random stream, and where the final samples of M begin among them (cycles/diagnostics.py).
_STEPS, _FINAL = 2**32, 2**31


class Rule(NamedTuple):
    """What a rule of learning takes where nothing else is said: see `CycleStudy`; ``fall`` is of the rate."""

    decay: float
    minibatch: tuple[int, int]
    fall: float


# Why the exact rule wants another memory, larger minibatches and a falling rate: docs/notes/ceiling.md.
RULES = {"two-step": Rule(0.9, (16, 160), 1.0), "exact": Rule(0.99, (16, 1600), 0.01)}


def place(name: str, value: Any) -> str:
    """A name, or a path as text."""
    return specs.text(name, os.fspath(value) if isinstance(value, os.PathLike) else value)


def _decay(name: str, value: Any) -> float:
    checked = require_number(name, value)
    if not 0 <= checked < 1:
        raise InputError(f"{name} is {checked:g}; it must be at least 0 and below 1.")
    return checked


def _pair(name: str, value: Any) -> tuple[int, int]:
    if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__") or getattr(value, "ndim", 1) == 0:
        value = (value, value)
    sizes = tuple(require_count(name, size) for size in value)
    if len(sizes) != 2:
        raise InputError(f"{name} is {short(sizes)}; it must be two sizes, first and last, as in 16:160.")
    return sizes


def _class(name: str, value: Any) -> int | str:
    return value if isinstance(value, str) and value else require_count(name, value, -(2**63), 2**63 - 1)


DATASET = Parameter(place, f"a name ({', '.join(datasets.NAMES)}), a file of bits or grey images, or a folder of them")
CLASSES = Parameter(specs.several(_class), "only these classes of the data set")
THRESHOLD = Parameter(specs.number, "grey values above it are ones, in the data's own units; not needed for bits")
FINGERPRINT = Parameter(specs.count(0, 2**32 - 1), "of the data, filled in when they are read")


def require_same(fingerprint: int | None, data: Dataset) -> None:
    """Raises InputError for other data than those that a run was begun with."""
    if fingerprint not in (None, data.fingerprint):
        raise InputError(
            f"dataset {data.name} is not the one of this study: its fingerprint is {data.fingerprint}, and the"
            f" study's is {fingerprint}."
        )


def from_arrays(X: ArrayLike | None, y: ArrayLike | None, fields: dict[str, Any]) -> Dataset | None:
    """The data set of arrays that take the place of the one that ``fields`` name, which then name it; None without."""
    if X is None:
        if y is not None:
            raise InputError("y is given without X; give the points that it labels.")
        return None
    data = datasets.from_arrays(X, y, threshold=fields["threshold"])
    classes = fields["classes"]
    fields["dataset"] = datasets.ARRAY
    return data if classes is None else data.only(CLASSES.check("classes", classes))


@dataclass(frozen=True)
class CycleStudy(Spec):
    """Models trained side by side on one data set, each a pure function of its own seed (Baiesi & Rosso, Sect. IV).

    The defaults are the paper's settings on the bundled digits; ``dataset="mnist-012"`` is the paper's own study.
    Model m has seed ``seed + m``.  Its fields are the parameters of `train`.

    Raises InputError (a ValueError) for whatever cannot run.
    """

    command = "cycles"
    runner = "thermorun.cycles.training"
    grows = ("epochs",)
    parts = "model"

    dataset: Annotated[str, DATASET] = "digits"
    classes: Annotated[tuple[int | str, ...] | None, CLASSES] = None
    threshold: Annotated[float | None, THRESHOLD] = None
    encoding: Annotated[str, Parameter(specs.Choice(*ENCODINGS), "of the hidden states")] = "softmax"
    hidden: Annotated[int, Parameter(specs.count(), "hidden units: states, or bits of a state")] = 6
    first_layer: Annotated[
        int,
        Parameter(specs.count(0), "bits of a layer between the data and the hidden states, on the way up; 0 for none"),
    ] = 0
    tied: Annotated[
        bool, Parameter(specs.flag, "the equilibrium baseline, wbar = w, by persistent contrastive divergence")
    ] = False
    rule: Annotated[
        str,
        Parameter(
            specs.Choice(*RULES),
            "of learning: the paper's two steps back, or the likelihood's exact gradient, for one-hot states",
        ),
    ] = "two-step"
    models: Annotated[int, Parameter(specs.count(1, 2**20), "trained side by side, of seeds from seed upwards")] = 36
    epochs: Annotated[int, Parameter(specs.count(), "of all models")] = 120
    steps_per_epoch: Annotated[int, Parameter(specs.count(), "gradient steps an epoch")] = 30
    chain_steps: Annotated[
        int,
        Parameter(specs.count(2), "double steps of the chain before a gradient step; images drawn with rule exact"),
    ] = 48
    learning_rate: Annotated[float, Parameter(specs.positive, "of RMSProp, at first")] = 0.1
    final_rate: Annotated[
        float | None,
        Parameter(
            specs.positive,
            "of RMSProp in the last epoch, geometric between; by default learning_rate, with rule exact a hundredth",
        ),
    ] = None
    decay: Annotated[
        float | None,
        Parameter(_decay, "RMSProp's memory of the squared gradient, a step; by default 0.9, with rule exact 0.99"),
    ] = None
    floor: Annotated[float, Parameter(specs.positive, "RMSProp's addition to the root of the squared gradient")] = 1e-8
    minibatch: Annotated[
        tuple[int, int] | None,
        Parameter(
            _pair,
            "points of a gradient step, in the first epoch and the last, linear between; by default 16 to 160, with"
            " rule exact 16 to 1600",
        ),
    ] = None
    grow_epochs: Annotated[
        int | None,
        Parameter(specs.count(), "epochs over which the minibatch and the rate change, then they stay; by default all"),
    ] = None
    precision: Annotated[str, specs.PRECISION] = "float32"
    epoch_samples: Annotated[
        int, Parameter(specs.count(1, _FINAL - 1), "visible samples a hidden state for M after each epoch")
    ] = 64
    samples: Annotated[
        int,
        Parameter(
            specs.count(1, _FINAL - 1),
            "visible samples a hidden state for the final M; fewer above 256 states; for the likelihood of more than 10"
            " bits 32 times as many fantasies",
        ),
    ] = 2000
    count_steps: Annotated[
        int, Parameter(specs.count(2, 2**34), "double steps a model whose transitions are counted at the end")
    ] = 100_000
    ceiling: Annotated[
        int, Parameter(specs.count(0, 1024), "random starts of EM, beside one from the best model; 0 for no ceiling")
    ] = 3
    keep_every: Annotated[
        int | None, Parameter(specs.count(), f"epochs between kept parameters; by default {_KEPT} are kept")
    ] = None
    fingerprint: Annotated[int | None, FINGERPRINT] = None

    def validate(self) -> None:
        if self.seed + self.models > 2**64:
            raise InputError(f"seed is {self.seed}; with {self.models} models it must stay below 2^64.")
        require_sizes(self.encoding, self.hidden, 1, self.tied, self.first_layer)
        if self.rule == "exact" and (self.encoding == "bits" or self.tied or self.first_layer):
            kind = "bits" if self.encoding == "bits" else "tied weights" if self.tied else "a first layer"
            raise InputError(
                f"rule is 'exact', which needs one-hot states and free weights in one hidden layer; with {kind} take"
                " 'two-step'."
            )
        if self.steps * self.chain_steps >= _STEPS:
            raise InputError(
                f"epochs is {short(self.epochs)}, of {short(self.steps_per_epoch)} gradient steps of chain_steps"
                f" {short(self.chain_steps)} double steps; a random stream holds 2^32 double steps."
            )
        if self.epochs * self.epoch_samples > _FINAL:
            raise InputError(
                f"epoch_samples is {self.epoch_samples}; over {self.epochs} epochs it must stay within 2^31 samples."
            )

    def resolved(self) -> Self:
        """With the data's fingerprint and where they are; reads them."""
        return self.on(self.data())

    def data(self) -> Dataset:
        """The data that the spec names.  Raises InputError."""
        return datasets.load(self.dataset, self.classes, self.threshold)

    def on(self, data: Dataset) -> Self:
        """The same study on these data, every number set.  Raises InputError where they cannot be its data."""
        require_sizes(self.encoding, self.hidden, data.x.shape[1], self.tied, self.first_layer)
        require_same(self.fingerprint, data)
        return self.replace(
            dataset=data.source,
            fingerprint=data.fingerprint,
            keep_every=self.keep_every or -(-self.epochs // _KEPT),
            decay=self.memory,
            final_rate=self.rates[1],
            minibatch=self.growth,
            grow_epochs=min(self.grow_epochs or self.epochs, self.epochs),
        )

    def has_ceiling(self, points: int) -> bool:
        """Whether EM finds what models of this kind can attain on so many points: of one-hot states, not too many."""
        states = state_count(self.encoding, self.hidden)
        return self.ceiling > 0 and self.encoding != "bits" and states <= min(points, MAX_STATES)

    @property
    def estimated(self) -> bool:
        """Whether the models have too many bits for their likelihood to be known but by an estimate."""
        return self.encoding == "bits" and state_count(self.encoding, self.hidden) > MAX_STATES

    @property
    def steps(self) -> int:
        """Gradient steps of a model."""
        return self.epochs * self.steps_per_epoch

    @property
    def seeds(self) -> NDArray[np.uint64]:
        """Each model's."""
        return np.arange(self.models, dtype=np.uint64) + np.uint64(self.seed)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the parameters."""
        return np.dtype(self.precision)

    @property
    def options(self) -> KernelOptions:
        """For kernels."""
        return kernel_options(
            self.encoding, self.tied, self.chain_steps, self.learning_rate, self.memory, self.floor, hidden=self.hidden,
            first=self.first_layer,
        )  # fmt: skip

    def model(self, row: Array, mean: Array) -> Model:
        """One of its models, with parameters ``row`` and the data's ``mean``."""
        return Model(self.encoding, self.hidden, row, mean, self.tied, self.first_layer)

    @property
    def layers(self) -> str:
        """Its hidden units, in words."""
        return f"{f'{self.first_layer} bits, then ' if self.first_layer else ''}{self.hidden} hidden"

    @property
    def memory(self) -> float:
        """RMSProp's, of the squared gradient."""
        return self.decay if self.decay is not None else RULES[self.rule].decay

    @property
    def growth(self) -> tuple[int, int]:
        """Points of a gradient step, at first and at the end."""
        return self.minibatch or RULES[self.rule].minibatch

    @property
    def rates(self) -> tuple[float, float]:
        """RMSProp's, at first and at the end."""
        return self.learning_rate, self.final_rate or self.learning_rate * RULES[self.rule].fall

    def rate(self, epoch: int) -> float:
        """RMSProp's, in an epoch."""
        first, last = self.rates
        return float(first * (last / first) ** self._share(epoch))

    def _share(self, epoch: int) -> float:
        """How much of the way from the first minibatch to the last, and of the rates', is done."""
        growing = self.grow_epochs or self.epochs
        return min(1.0, epoch / (growing - 1)) if growing > 1 else float(epoch > 0)

    def sizes(self, epoch: int) -> NDArray[np.intp]:
        """The minibatch of every gradient step of an epoch, intp (steps_per_epoch,)."""
        first, last = self.growth
        return np.full(self.steps_per_epoch, round(first + (last - first) * self._share(epoch)), np.intp)

    def kept_epochs(self) -> list[int]:
        """The epochs whose parameters are kept: each ``keep_every``-th and the last, counted from 1."""
        every = self.keep_every or -(-self.epochs // _KEPT)
        return sorted({*range(every, self.epochs + 1, every), self.epochs})

    def file_name(self) -> str:
        first = f"-first{self.first_layer}" if self.first_layer else ""
        tied = "-tied" if self.tied else ""
        rule = "-exact" if self.rule == "exact" else ""
        return f"cycles-{Path(self.dataset).stem}-{self.encoding}{self.hidden}{first}{tied}{rule}-seed{self.seed}"
