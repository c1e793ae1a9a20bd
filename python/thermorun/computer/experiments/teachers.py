"""Teachers' trajectories of other kinds than the paper's: at a temperature, or of units that interact.

The mean action needs of a teacher's trajectories no more than where they go: sums of x over time, and of x x^T over
time and data.  The noise of a teacher is independent of all x before it, and averages out of the action, but for a
constant.
"""

from collections.abc import Callable

import numpy as np

from thermorun import streams
from thermorun.arrays import Array
from thermorun.computer.action import Statistics
from thermorun.computer.machine import Machine

# Numbers of a chunk of trajectories that are recorded at a time.
_RECORDED = 2**22


def along(
    machine: Machine, fields: Array, inputs: Array, targets: Array, seed: int, pause: Callable[[], None]
) -> Statistics:
    """The statistics of data whose trajectories are those of ``machine`` in ``fields`` (points, units), with its noise.

    ``inputs`` (points, inputs); ``targets`` (points, units) say the force that is to be learned there: that of a bias
    -a, beside the wells.  At kT = 0, without couplings, and in the fields -a these are the paper's.
    """
    points, units = fields.shape
    steps, sums, gram = machine.physics.steps, np.zeros_like(targets), np.zeros((units, units))
    length = max(1, _RECORDED // (steps * units))
    for number, first in enumerate(range(0, points, length)):
        some = slice(first, first + length)
        run = machine.run(fields[some], seed=streams.teaching(seed, number), recorded=range(steps))
        sums[some] = run.paths.sum(axis=0)
        flat = run.paths.reshape(-1, units).astype(np.float64)
        gram += flat.T @ flat
        pause()
    return Statistics(inputs, targets, sums, gram)
