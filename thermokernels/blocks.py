"""Sums over particles in a fixed order, in float64.

Particles come in blocks of ``random.BLOCK``.  One thread sums a block; blocks are then added first to last.  So a total
depends neither on the number of threads nor on which of them was first.
"""

from collections import namedtuple

import numpy as np

from thermokernels._jit import device, wide_vectors
from thermokernels.random import BLOCK

# A pass over blocks is cut into this many tasks, whatever the number of threads: enough of them to keep threads busy to
# the end, few enough that each can have scratch arrays of its own.
TASKS = 64


@device
def share(task, total):
    """The units of work of one task out of ``TASKS``: a range of 0 to ``total``."""
    return range(task * total // TASKS, (task + 1) * total // TASKS)


Place = namedtuple("Place", "replica block begin count")
"""A block of an ensemble: its replica, its number there, its first particle, and how many particles it has."""


@device
def place(unit, blocks, particles):
    """Where unit of work number ``unit`` is, of replicas that have so many blocks and particles each."""
    replica, block = unit // blocks, unit % blocks
    begin = block * BLOCK
    return Place(replica, block, begin, min(BLOCK, particles - begin))


@device
def sum_block(x, sums):
    """Writes the sums of x and of x^2 to ``sums[0]`` and ``sums[1]``; ``x`` is float32 or float64."""
    wide_vectors()
    total = 0.0
    square = 0.0
    for value in x:
        total += np.float64(value)
        square += np.float64(value) * np.float64(value)
    sums[0] = total
    sums[1] = square


@device
def sum_over_blocks(sums, column):
    """Adds one column of a float64 array of shape (blocks, columns), first block to last."""
    total = 0.0
    for block in range(sums.shape[0]):
        total += sums[block, column]
    return total
