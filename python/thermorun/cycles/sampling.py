"""Images from trained models."""

import json
import os
import time as clock
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from thermokernels.chains import run_chains
from thermorun import streams
from thermorun.arrays import Array
from thermorun.cycles.model import Model
from thermorun.errors import InputError, RunError, require_count, short

_MOST_SEED = 2**64 - 1


@dataclass(frozen=True)
class Fantasies:
    """``x`` uint8 (records, chains, D), ``states`` uint64 (records, chains): the hidden state that made each x."""

    x: NDArray[np.uint8]
    states: NDArray[np.uint64]
    chain_steps_per_second: float
    threads: int

    @property
    def images(self) -> NDArray[np.uint8]:
        """All of them, (records * chains, D)."""
        return self.x.reshape(-1, self.x.shape[-1])


def sample(model: Model, start: Array, *, steps: int, records: int = 1, burn: int = 100, seed: int = 0) -> Fantasies:
    """Runs one chain from each row of ``start``, uint8 (chains, D), and records x every ``steps`` double steps.

    Each chain is a pure function of (seed, its number).  Raises InputError for chains shorter than two double steps or
    shapes that do not fit the model.
    """
    steps, records = require_count("steps", steps), require_count("records", records)
    burn, seed = require_count("burn", burn, 0), require_count("seed", seed, 0, _MOST_SEED)
    if burn + steps * records < 2:
        raise InputError(
            f"steps is {steps} and burn is {burn}, too short a chain; it must make at least 2 double steps."
        )
    if start.ndim != 2 or start.shape[1] != model.visible:
        raise InputError(f"start has shape {start.shape}; the model needs (chains, {model.visible}).")
    if burn + steps * records >= 2**32:
        raise InputError(
            f"records is {short(records)}, of chains of {short(burn + steps * records)} double steps; a random stream"
            " holds 2^32."
        )
    visible = np.ascontiguousarray(start, np.uint8).copy()
    chains = len(visible)
    key, stream = streams.cycles(seed, "fantasies").take(chains)
    x = np.empty((records, *visible.shape), np.uint8)
    states = np.empty((records, chains), np.uint64)
    path = np.empty((chains, burn), np.uint64)
    began = clock.perf_counter()
    run_chains(model.row, model.options, model.mean, visible, 0, key, stream, path)
    path = np.empty((chains, steps), np.uint64)
    for k in range(records):
        run_chains(model.row, model.options, model.mean, visible, burn + k * steps, key, stream, path)
        x[k], states[k] = visible, path[:, -1]
    rate = chains * (burn + steps * records) / (clock.perf_counter() - began)
    return Fantasies(x, states, rate, numba.get_num_threads())


def npz_name(out: Path) -> Path:
    """``out`` with the ending .npz, which every file of images has; a folder stays what it is."""
    if out.is_dir():
        return out
    return out if out.suffix.lower() == ".npz" else out.with_name(f"{out.name}.npz")


def require_free(path: Path, made_from: dict[str, Any]) -> None:
    """Raises InputError where ``path`` cannot be written, or holds anything but these same images."""
    if path.is_dir():
        raise InputError(f"out is {path}, which is a folder; name a file.")
    if not path.parent.is_dir():
        raise InputError(f"out is {path}, but the folder {path.parent} does not exist.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"out is {path}, but the folder {path.parent} cannot be written.")
    if path.exists() and _made_from(path) != json.dumps(made_from, sort_keys=True):
        raise InputError(f"out is {path}, which already holds something else; name another file.")


def save(path: Path, arrays: dict[str, Array], made_from: dict[str, Any]) -> None:
    """Writes images and what they were made from.  Raises RunError where that fails."""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, made_from=json.dumps(made_from, sort_keys=True), **arrays)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(f"{path} could not be written ({error.strerror or error}).") from error


def _made_from(path: Path) -> str | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return str(stored["made_from"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError, AttributeError):
        return None
