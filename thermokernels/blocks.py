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
# Steps between additions of single-precision sums of products to double-precision ones.
FLUSH = 16


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


@device
def tasks_of(units):
    """As many tasks as have something to do, where each has sums of its own that must be added up."""
    return min(units, TASKS)


@device
def flush(sums, total):
    """total += sums, sums = 0, for matrices: ``sums`` float32 or float64, ``total`` float64."""
    wide_vectors()
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            total[i, j] += np.float64(sums[i, j])
            sums[i, j] = sums.dtype.type(0.0)


@device
def add_tasks(totals, out):
    """Adds matrices (tasks, rows, columns), first to last."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            total = 0.0
            for task in range(totals.shape[0]):
                total += totals[task, i, j]
            out[i, j] = total
