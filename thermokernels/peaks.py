"""What a machine can do at most: multiply-adds in registers, and bytes to and from memory."""

from numba import prange

from thermokernels._jit import device, kernel, wide_vectors

LANES = 256
# Multiply-adds of each number between two loads of it.
CHAIN = 32


@device
def _multiply_add(x, factor):
    wide_vectors()
    one = x.dtype.type(1.0)
    for lane in range(LANES):
        value = x[lane]
        for _ in range(CHAIN):
            value = value * factor + one
        x[lane] = value


@kernel
def multiply_add(x, factor, repeats):
    """x = factor x + 1, ``repeats`` times ``CHAIN`` for each number of x (rows, ``LANES``): two operations each."""
    for row in prange(x.shape[0]):
        for _ in range(repeats):
            _multiply_add(x[row], factor)


@kernel
def add(total, first, second):
    """total = first + second, each (n,): two reads and a write of every number."""
    for i in prange(total.size):
        total[i] = first[i] + second[i]
