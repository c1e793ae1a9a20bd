"""Paths of theta in time: rows of time and theta, linear between, a repeated time is a jump; and staircases of them."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thermorun import specs
from thermorun.arrays import Array
from thermorun.errors import InputError, words
from thermorun.specs import several

Row = tuple[float, ...]


def path_rows(name: str, value: Any) -> tuple[Row, ...]:
    """Rows of a time and theta, whose times ascend from 0.  Raises InputError for anything else."""
    rows: tuple[Row, ...] = several(several(specs.number, 2), 2)(name, value)
    if len({len(row) for row in rows}) > 1:
        raise InputError(f"{name} holds rows of different lengths; each must be a time and all of theta.")
    times = np.array([row[0] for row in rows])
    if times[0] != 0 or times[-1] <= 0 or np.any(np.diff(times) < 0):
        raise InputError(f"{name} has times {words(times)}; they must ascend from 0, and repeat only for a jump.")
    return rows


@dataclass(frozen=True)
class Stairs:
    """A path as jumps and waits: ``theta`` (n + 2, p) before the first jump and after each, ``kT`` (n + 2,) likewise,
    and the ``waits`` (n,) between the jumps.
    """

    theta: Array
    kT: Array
    waits: Array

    def reached(self, times: ArrayLike) -> NDArray[np.intp]:
        """After how many waits the clock is nearest to each of ``times``."""
        clock = np.append(0.0, np.cumsum(self.waits))
        return np.asarray(np.abs(clock - np.asarray(times, float).reshape(-1, 1)).argmin(axis=1), np.intp)


def staircase(rows: ArrayLike, steps: int, refined: int = 1) -> Stairs:
    """The staircase of a path: ``rows`` are time, theta and kT along it, (rows, p + 2).

    Each smooth piece of the path, from jump to jump, is cut into equal waits, with theta and kT in the middle of each:
    an error of second order in the wait.  ``steps`` are shared out by the pieces' durations, at least one each, and
    every one is cut into ``refined``.
    """
    rows = np.asarray(rows, float)
    cuts = [0, *(np.flatnonzero(np.diff(rows[:, 0]) == 0) + 1).tolist(), len(rows)]
    stairs, waits = [rows[:1, 1:]], []
    for first, last in itertools.pairwise(cuts):
        piece = rows[first:last]
        length = piece[-1, 0] - piece[0, 0]
        if length == 0:  # a jump in several steps, which is one
            continue
        count = refined * max(1, round(steps * length / rows[-1, 0]))
        times = piece[0, 0] + length * (np.arange(count) + 0.5) / count
        stairs.append(np.stack([np.interp(times, piece[:, 0], column) for column in piece[:, 1:].T], axis=1))
        waits.append(np.full(count, length / count))
    whole = np.concatenate([*stairs, rows[-1:, 1:]])
    return Stairs(np.ascontiguousarray(whole[:, :-1]), whole[:, -1].copy(), np.concatenate(waits))


def with_stops(rows: Array, times: ArrayLike) -> Array:
    """The same path with a jump of nothing at each of ``times``, so that a wait of its staircase ends there."""
    for time in np.asarray(times, float):
        missing = 2 - np.count_nonzero(rows[:, 0] == time)
        if missing > 0:
            here = [time, *(np.interp(time, rows[:, 0], column) for column in rows[:, 1:].T)]
            rows = np.insert(rows, np.searchsorted(rows[:, 0], time, side="right"), [here] * missing, axis=0)
    return rows
