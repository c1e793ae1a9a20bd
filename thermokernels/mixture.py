"""Mixtures of Bernoulli products: one pass of expectation-maximisation over the data.

    p(x) = sum_z weight_z prod_i p_zi^x_i (1 - p_zi)^(1 - x_i)

It is the stationary law of a latent cycle with one-hot states (Baiesi & Rosso, Eq. 5).  Responsibilities are those of
Dempster, Laird & Rubin (1977), r_nz = weight_z p(x_n | z) / p(x_n), through log-sum-exp.
"""

import math

import numpy as np
from numba import prange

from thermokernels._jit import device, kernel, serial_kernel, wide_vectors
from thermokernels.blocks import TASKS, share
from thermokernels.elementary import exp
from thermokernels.products import ROWS, add_product, aligned, copy_rows

# Points of a tile, whose sums are taken in the data's precision; sums of tiles are float64.
TILE = 128


@serial_kernel
def _spread(bits, x, transposed):
    """A tile of points as numbers, (points, D) and (D, points); what is left of a tile that is not full is zero."""
    wide_vectors()
    zero, one = x.dtype.type(0.0), x.dtype.type(1.0)
    for n in range(TILE):
        for i in range(bits.shape[1]):
            x[n, i] = one * bits[n, i] if n < bits.shape[0] else zero
    for i in range(bits.shape[1]):
        for n in range(TILE):
            transposed[i, n] = x[n, i]


@device
def _clear(out):
    wide_vectors()
    zero = out.dtype.type(0.0)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = zero


@serial_kernel
def _product(out, a, x):
    """out = a @ x: compiled once for both products of a tile."""
    _clear(out)
    add_product(out, a, x)


@device
def _add(out, tile):
    """Adds a tile's sums to those of the task, in float64."""
    wide_vectors()
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] += np.float64(tile[i, j])


@serial_kernel
def _largest(logs, constants, top, states):
    """Adds the constant of each state, and leaves the largest term of every point in ``top``."""
    wide_vectors()
    for n in range(TILE):
        logs[0, n] += logs.dtype.type(constants[0])
        top[n] = logs[0, n]
    for z in range(1, states):
        constant = logs.dtype.type(constants[z])
        for n in range(TILE):
            logs[z, n] += constant
            top[n] = max(top[n], logs[z, n])


@serial_kernel
def _terms(logs, top, total, states):
    """exp(log - top) in the place of every logarithm, and their sum over states, point by point."""
    wide_vectors()
    for n in range(TILE):
        total[n] = logs.dtype.type(0.0)
    for z in range(states):
        for n in range(TILE):
            term = exp(logs[z, n] - top[n])
            logs[z, n] = term
            total[n] += term


@serial_kernel
def _shares(logs, total, count, states, weights):
    """Responsibilities in the place of terms, nought beyond the points that there are, and their sums over points."""
    wide_vectors()
    for n in range(TILE):
        total[n] = logs.dtype.type(1.0) / total[n] if n < count else logs.dtype.type(0.0)
    for z in range(states):
        sum_of_points = 0.0
        for n in range(TILE):
            logs[z, n] *= total[n]
            sum_of_points += np.float64(logs[z, n])
        weights[z] += sum_of_points


@kernel
def expectation(data, logits, constants, sums, weights, log_p):
    """One pass over the data: log p(x) of every point, and the sums that the next weights and probabilities come from.

    ``data``       uint8 of zeros and ones, (points, D).
    ``logits``     float32 or float64, (states, D): log p_zi / (1 - p_zi).
    ``constants``  float64, (states,): log weight_z + sum_i log(1 - p_zi); below -1e30 for a state without weight.
    ``sums``       float64, (64, states, D), written: sum_n r_nz x_n of each task's points.
    ``weights``    float64, (64, states), written: sum_n r_nz of each task's points.
    ``log_p``      float64, (points,), written.

    With no tasks in ``sums``, shape (0, states, D), log p alone is found.  The sums of a tile of 128 points are in the
    precision of ``logits``, all others in float64 and in one order.
    """
    states, size = logits.shape
    points = data.shape[0]
    tiles = (points + TILE - 1) // TILE
    padded = (states + ROWS - 1) // ROWS * ROWS
    columns = (size + 15) // 16 * 16
    field = aligned(padded, size, logits)
    copy_rows(field, logits)
    for task in prange(TASKS):
        x = aligned(TILE, columns, logits)
        transposed = aligned(size, TILE, logits)
        logs = aligned(padded, TILE, logits)
        tile_sums = aligned(padded, columns, logits)
        top, total = np.empty(TILE, logits.dtype), np.empty(TILE, logits.dtype)
        summed = sums.shape[0] > 0
        if summed:
            _clear(sums[task])
            for z in range(states):
                weights[task, z] = 0.0
        for tile in share(task, tiles):
            begin = tile * TILE
            count = min(TILE, points - begin)
            _spread(data[begin : begin + count], x, transposed)
            _product(logs, field, transposed)
            _largest(logs, constants, top, states)
            _terms(logs, top, total, states)
            for n in range(count):
                log_p[begin + n] = np.float64(top[n]) + math.log(np.float64(total[n]))
            if summed:
                _shares(logs, total, count, states, weights[task])
                _product(tile_sums, logs, x)
                _add(sums[task], tile_sums)
