"""A latent-cycle model: two independent sets of transition probabilities between visible bits and hidden states."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thermokernels import latent_cycle
from thermorun import streams
from thermorun.arrays import Array
from thermorun.errors import InputError

ENCODINGS = {"softmax": latent_cycle.SOFTMAX, "sigmoid": latent_cycle.SIGMOID, "bits": latent_cycle.BITS}
MAX_HIDDEN = {"softmax": 4096, "sigmoid": 4096, "bits": 64}
MAX_VISIBLE = 4096
# Largest number of hidden states whose M and occupancy are computed.
MAX_STATES = 1024


class KernelOptions(NamedTuple):
    """The settings as kernels take them: see ``thermokernels.latent_cycle``."""

    hidden: int
    encoding: int
    tied: bool | None
    chain_steps: int
    rate: float
    decay: float
    floor: float
    first: int | None


def state_count(encoding: str, hidden: int) -> int:
    """Hidden states there are: L in the one-hot encodings, 2^L for bits."""
    return 2**hidden if encoding == "bits" else hidden


def parameter_count(hidden: int, visible: int, first: int = 0) -> int:
    """Entries of a model's row: w, wbar, a and abar; with a ``first`` layer of bits v and c too."""
    upper = hidden * (first + 1) if first else 0
    return hidden * visible + (first or hidden) * (visible + 1) + visible + upper


def kernel_options(
    encoding: str,
    tied: bool = False,
    chain_steps: int = 48,
    learning_rate: float = 0.1,
    decay: float = 0.9,
    floor: float = 1e-8,
    *,
    hidden: int,
    first: int = 0,
) -> KernelOptions:
    """The settings as kernels take them."""
    code = ENCODINGS[encoding]
    return KernelOptions(hidden, code, tied or None, chain_steps, learning_rate, decay, floor, first or None)


@dataclass(frozen=True)
class Model:
    """One model.

    ``row``   float32 or float64, (parameters,): w, wbar, a, abar, as ``latent_cycle`` lays them out.
    ``mean``  dtype of row, (visible,): the data's mean, subtracted from x in the hidden fields (centering, Eq. 17).
    ``first`` bits of a layer between x and one-hot hidden states, x -> bits -> state -> x; 0 for none.

    Raises InputError where encoding and sizes do not fit each other or the row.
    """

    encoding: str
    hidden: int
    row: Array
    mean: Array
    tied: bool = False
    first: int = 0

    def __post_init__(self) -> None:
        require_sizes(self.encoding, self.hidden, len(self.mean), self.tied, self.first)
        expected = parameter_count(self.hidden, len(self.mean), self.first)
        if self.row.shape != (expected,):
            raise InputError(
                f"parameters have shape {self.row.shape}; {self.hidden} hidden and {len(self.mean)} visible units"
                f" need ({expected},)."
            )

    @property
    def visible(self) -> int:
        """D."""
        return len(self.mean)

    @property
    def w(self) -> Array:
        """Forward weights, (hidden, visible): row b holds what hidden unit b adds to the visible fields."""
        return self.row[: self.hidden * self.visible].reshape(self.hidden, self.visible)

    @property
    def units(self) -> int:
        """Those that x acts on: bits of the first layer, or hidden units."""
        return self.first or self.hidden

    @property
    def wbar(self) -> Array:
        """Backward weights, (units, visible)."""
        size = self.hidden * self.visible
        return self.row[size : size + self.units * self.visible].reshape(self.units, self.visible)

    @property
    def a(self) -> Array:
        """Visible biases, (visible,)."""
        size = (self.hidden + self.units) * self.visible
        return self.row[size : size + self.visible]

    @property
    def abar(self) -> Array:
        """Biases of the units that x acts on, (units,)."""
        end = (self.hidden + self.units + 1) * self.visible
        return self.row[end : end + self.units]

    @property
    def v(self) -> Array:
        """Weights from the first layer to the hidden states, (hidden, first)."""
        end = len(self.row) - self.hidden if self.first else len(self.row)
        return self.row[end - self.hidden * self.first : end].reshape(self.hidden, self.first)

    @property
    def c(self) -> Array:
        """Biases of the hidden states above a first layer, (hidden,); empty without one."""
        return self.row[len(self.row) - self.hidden :] if self.first else self.row[:0]

    @property
    def options(self) -> KernelOptions:
        """For kernels."""
        return kernel_options(self.encoding, self.tied, hidden=self.hidden, first=self.first)

    def states(self) -> NDArray[np.uint64]:
        """Every hidden state.  Raises InputError where there are more than ``MAX_STATES``."""
        return np.arange(require_states(self.encoding, self.hidden), dtype=np.uint64)

    def visible_fields(self, states: Array) -> Array:
        """Fields f = w z + a of the states given, float64 (states, visible), Eq. 10."""
        w, a = self.w.astype(float), self.a.astype(float)
        if self.encoding == "bits":
            bits = (np.asarray(states, np.uint64)[:, None] >> np.arange(self.hidden, dtype=np.uint64)) & np.uint64(1)
            w = bits.astype(float) @ w
        else:
            w = w[np.asarray(states, np.intp)]
        fields: Array = w + a
        return fields

    def expected(self, states: Array) -> Array:
        """Mean image p(x = 1 | z) of the states given, float64 (states, visible)."""
        with np.errstate(over="ignore"):
            image: Array = 1.0 / (1.0 + np.exp(-self.visible_fields(states)))
        return image

    def hidden_fields(self, x: Array) -> Array:
        """h = wbar (x - mean) + abar, float64 (points, units)."""
        fields: Array = (x - self.mean.astype(float)) @ self.wbar.astype(float).T + self.abar.astype(float)
        return fields

    def upper_fields(self, y: Array) -> Array:
        """v (y - 1/2) + c of bits y of a first layer, (points, first), float64 (points, hidden)."""
        fields: Array = (y - 0.5) @ self.v.astype(float).T + self.c.astype(float)
        return fields


def log_backward(model: Model, h: Array, states: Array) -> Array:
    """log p(z | x) of one state for each row of hidden fields ``h`` (points, hidden), float64 (points,)."""
    if model.encoding == "bits":
        bits = (np.asarray(states, np.uint64)[:, None] >> np.arange(model.hidden, dtype=np.uint64)) & np.uint64(1)
        log_p: Array = (bits * h - np.logaddexp(0.0, h)).sum(axis=1)
        return log_p
    log_s = h if model.encoding == "softmax" else -np.logaddexp(0.0, -h)
    mine = log_s[np.arange(len(h)), np.asarray(states, np.intp)]
    return np.asarray(mine - np.logaddexp.reduce(log_s, axis=1))


def require_states(encoding: str, hidden: int) -> int:
    """The number of hidden states.  Raises InputError where it exceeds ``MAX_STATES``."""
    count = state_count(encoding, hidden)
    if count > MAX_STATES:
        raise InputError(
            f"hidden is {hidden} with encoding {encoding!r}, which makes {count} states; occupancy and M are limited to"
            f" {MAX_STATES}: use the long-chain estimates, or at most {MAX_STATES.bit_length() - 1} bits."
        )
    return count


def require_sizes(encoding: str, hidden: int, visible: int, tied: bool = False, first: int = 0) -> None:
    """Raises InputError where no such model exists."""
    if encoding not in ENCODINGS:
        raise InputError(f"encoding is {encoding!r}; it must be one of {', '.join(ENCODINGS)}.")
    if not 1 <= hidden <= MAX_HIDDEN[encoding]:
        raise InputError(
            f"hidden is {hidden}; it must be between 1 and {MAX_HIDDEN[encoding]} with encoding {encoding!r}."
        )
    if not 1 <= visible <= MAX_VISIBLE:
        raise InputError(f"the data have {visible} bits a point; it must be between 1 and {MAX_VISIBLE}.")
    if tied and encoding == "sigmoid":
        raise InputError("tied weights with encoding 'sigmoid' are no equilibrium model; use softmax or bits.")
    if not 0 <= first <= MAX_HIDDEN["bits"]:
        raise InputError(f"first_layer is {first}; it must be between 0 and {MAX_HIDDEN['bits']} bits.")
    if first and (tied or encoding == "bits" or hidden > MAX_STATES):
        raise InputError(
            f"first_layer is {first}, which needs free weights and at most {MAX_STATES:,} one-hot hidden states above"
            f" it; encoding is {encoding!r}, hidden {hidden}{' and the weights are tied' if tied else ''}."
        )


def log_odds(mean: Array, points: int) -> Array:
    """Logit of a mean over ``points`` bits, which is kept half a bit away from 0 and 1."""
    edge = 0.5 / points
    p = np.clip(mean, edge, 1.0 - edge)
    logit: Array = np.log(p / (1.0 - p))
    return logit


def initial_row(
    data: Array, encoding: str, hidden: int, seed: int, dtype: Any, tied: bool = False, first: int = 0
) -> Array:
    """Parameters before training (App. A.1).

    wbar = abar = 0; row b of w is the logit of the mean of a random tenth of the data.  For bits, a holds the logit of
    the mean of all data and w what the tenths differ by, so that every combination starts near the mean.  Tied weights
    start with wbar = w.  With a first layer v is normal, lest no bit of it have anything to say to the states.
    """
    points, visible = data.shape
    row = np.zeros(parameter_count(hidden, visible, first))
    model = Model(encoding, hidden, row, np.zeros(visible), tied, first)
    random = np.random.default_rng(np.random.SeedSequence([seed, streams.cycles(seed, "start").first]))
    tenth = max(1, points // 10)
    for b in range(hidden):
        chosen = random.choice(points, tenth, replace=False)
        model.w[b] = log_odds(data[chosen].mean(axis=0), tenth)
    if encoding == "bits":
        model.a[:] = log_odds(data.mean(axis=0), points)
        model.w[:] -= log_odds(data.mean(axis=0), tenth)
    if tied:
        model.wbar[:] = model.w
    model.v[:] = random.normal(size=model.v.shape)
    return row.astype(dtype)


def initial_visible(data: Array, seed: int) -> Array:
    """Where the chain starts: a random point of the data, uint8 (visible,)."""
    random = np.random.default_rng(np.random.SeedSequence([seed, streams.cycles(seed, "start").first, 1]))
    point: Array = data[random.integers(len(data))].copy()
    return point
