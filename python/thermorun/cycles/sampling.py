"""Fantasy samples from trained models."""

import time as clock
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermokernels import latent_cycle
from thermorun.cycles.model import Model
from thermorun.errors import InputError, require_count

Array = NDArray[Any]

# Streams of these chains start here, so that they share no random number with any diagnostic.
_STREAM = latent_cycle.SAMPLE + np.uint64(2**30)


@dataclass(frozen=True)
class Fantasies:
    """``x`` uint8 (records, chains, D), ``states`` uint64 (records, chains): the hidden state that made each x."""

    x: NDArray[np.uint8]
    states: NDArray[np.uint64]
    chain_steps_per_second: float


def sample(model: Model, start: Array, *, steps: int, records: int = 1, burn: int = 100, seed: int = 0) -> Fantasies:
    """Runs one chain from each row of ``start``, uint8 (chains, D), and records x every ``steps`` double steps.

    Each chain is a pure function of (seed, its number).  Raises InputError for chains shorter than two double steps or
    shapes that do not fit the model.
    """
    require_count("steps", steps)
    require_count("records", records)
    require_count("burn", burn, 0)
    require_count("seed", seed, 0)
    if burn + steps * records < 2:
        raise InputError(f"chains of {burn + steps * records} double steps are too short; take at least 2.")
    if start.ndim != 2 or start.shape[1] != model.visible:
        raise InputError(f"start has shape {start.shape}; the model needs (chains, {model.visible}).")
    if burn + steps * records >= 2**32:
        raise InputError(f"chains of {burn + steps * records} double steps are too long; the random streams hold 2^32.")
    visible = np.ascontiguousarray(start, np.uint8).copy()
    chains, key = len(visible), np.uint64(seed)
    x = np.empty((records, *visible.shape), np.uint8)
    states = np.empty((records, chains), np.uint64)
    path = np.empty((chains, burn), np.uint64)
    began = clock.perf_counter()
    latent_cycle.run_chains(model.row, model.options, model.mean, visible, 0, key, _STREAM, path)
    path = np.empty((chains, steps), np.uint64)
    for k in range(records):
        latent_cycle.run_chains(model.row, model.options, model.mean, visible, burn + k * steps, key, _STREAM, path)
        x[k], states[k] = visible, path[:, -1]
    rate = chains * (burn + steps * records) / (clock.perf_counter() - began)
    return Fantasies(x, states, rate)
