"""Couplings of low rank, as products of their factors.

A machine that has learned n images in closed form couples its hidden units to its visible ones by little more than n
patterns.  Two thin matrices say the same as that block, and cost 2 n multiplications a unit in the place of as many as
there are units on the other side.
"""

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from thermokernels import network
from thermorun.arrays import Array

# Factors are taken where they spare at least this share of a block's multiplications.
_WORTH = 0.25


def _dense(couplings: Array) -> tuple[Array, Array, Array]:
    pairs, left, right = network.dense(couplings)
    return pairs, left, right


def factored(couplings: Array, hidden: int, dtype: np.dtype) -> tuple[Array, Array, Array]:
    """J float64 (units, units), symmetric, as `network.simulate` takes it: pairs + left right.

    ``hidden`` units come first; of the block between them and the others singular values below the rounding of its
    largest in ``dtype``, in which trajectories run, are left out.
    """
    others = len(couplings) - hidden
    if min(hidden, others) == 0:
        return _dense(couplings)
    with threadpool_limits(1, user_api="blas"):  # so that its bits do not depend on threads
        u, s, v = scipy.linalg.svd(couplings[hidden:, :hidden], full_matrices=False)
    rank = int(np.sum(s > 0.5 * np.finfo(dtype).eps * s[0]))
    if rank * len(couplings) > (1.0 - _WORTH) * hidden * others:
        return _dense(couplings)
    pairs = couplings.copy()
    pairs[hidden:, :hidden] = pairs[:hidden, hidden:] = 0.0
    left, right = np.zeros((len(couplings), 2 * rank)), np.zeros((2 * rank, len(couplings)))
    right[:rank, hidden:], right[rank:, :hidden] = u[:, :rank].T, v[:rank]
    left[:hidden, :rank], left[hidden:, rank:] = v[:rank].T * s[:rank], u[:, :rank] * s[:rank]
    return pairs, left, right
