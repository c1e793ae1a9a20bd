"""What a machine learns from an image's loss to noise: to make each step of it in reverse.

With x' the state after a step and Dx its change, minus the logarithm of the probability that the coupled machine goes
from x' back to x is, up to a constant (Whitelam 2026),

    sum_i r_i^2 kT / (mu dt),     r_i = (-Dx_i + mu dt dV/dx_i(x')) / (2 kT),
    d/dJ_ij = r_i x'_j + r_j x'_i,     d/dh_i = r_i:

the Onsager-Machlup action of the film run backwards (`onsager_machlup`).  The sum over a trajectory of one image is the
gradient of the published rule; the online rule (Wang & Deng 2026) goes down it at every step.

Units are hidden ones first, then visible ones, which are not coupled to each other.  Steps go by tiles of ``STEPS``.
Within one, the online rule's own changes are never written out: theta after m steps acts on x as

    J x - rate sum_m (r_m (x_m . x) + x_m (r_m . x)),

so that matrices are read and written once a tile.
"""

import numpy as np
from numba import prange

from thermokernels._jit import device, kernel, wide_vectors
from thermokernels.network import add_pairs, padded, reaches
from thermokernels.products import LINE, ROWS, add_product, aligned

STEPS = 32


@device
def _load_steps(path, first, count, after, change):
    """x' and Dx of some steps, to (units, STEPS); nothing in the lanes beyond."""
    for i in range(after.shape[0]):
        for lane in range(STEPS):
            after[i, lane] = change[i, lane] = after.dtype.type(0.0)
    for lane in range(count):
        before_n, after_n = path[first + lane], path[first + lane + 1]
        for i in range(before_n.size):
            after[i, lane] = after_n[i]
            change[i, lane] = after_n[i] - before_n[i]


@device
def _residual(after, change, gradient, lane, units, physics, residual):
    """r of one step of a tile from ``gradient`` = h + J x', to its lane; returns the sum of its squares."""
    number = after.dtype.type
    two_j2, four_j4 = number(2.0 * physics.J2), number(4.0 * physics.J4)
    pull, scale = number(physics.mobility * physics.dt), number(0.5 / physics.kT)
    total = 0.0
    for i in range(units):
        x = after[i, lane]
        r = scale * (pull * (gradient[i, lane] + x * (two_j2 + four_j4 * (x * x))) - change[i, lane])
        residual[i, lane] = r
        total += np.float64(r) * np.float64(r)
    return total


@device
def _overlap(after, residual, lane, first, last, of_after, of_residual):
    """Adds x_m . x and r_m . x over the units ``first`` to ``last`` - 1, of all steps m of the tile."""
    wide_vectors()
    for i in range(first, last):
        x, after_i, residual_i = after[i, lane], after[i], residual[i]
        for m in range(STEPS):
            of_after[m] += after_i[m] * x
            of_residual[m] += residual_i[m] * x


@device
def _learned(after, residual, lane, first, last, of_after, of_residual, free, rate, gradient):
    """Takes from the gradient of a step what the steps before it in the tile have changed, for some units."""
    wide_vectors()
    for i in range(first, last):
        x, free_i, after_i, residual_i = after[i, lane], free[i], after[i], residual[i]
        total = after.dtype.type(0.0)
        for m in range(STEPS):
            # Without J_ii, whose place in the overlaps is r_m x_m x twice.
            own = residual_i[m] * after_i[m] * x
            total += residual_i[m] * (of_after[m] + free_i) + after_i[m] * of_residual[m] - own - own
        gradient[i, lane] -= rate * total


@device
def _learned_visible(after, residual, lane, first, last, of_after, of_residual, free, rate, gradient):
    """The same for visible units, whose overlaps are those of hidden units and hold nothing of their own."""
    wide_vectors()
    for i in range(first, last):
        free_i, after_i, residual_i = free[i], after[i], residual[i]
        total = after.dtype.type(0.0)
        for m in range(STEPS):
            total += residual_i[m] * (of_after[m] + free_i) + after_i[m] * of_residual[m]
        gradient[i, lane] -= rate * total


@device
def _clear(values):
    for m in range(values.size):
        values[m] = values.dtype.type(0.0)


@kernel
def learn(path, field, free, couplings, change, hidden, physics, rule, sums, loss):
    """The gradient along one trajectory, summed or gone down step by step.

    ``path``       float32 or float64 (steps + 1, units): x, from the image to the noise.
    ``field``      dtype of path, (units,): h at the start.
    ``free``       dtype of path, (units,): 1 where the field is learned, 0 where it is not.
    ``couplings``  dtype of path, (size, size), ``size`` the units to the next sixteen: J, symmetric, zero diagonal,
                   zero between visible units and beyond the units.
    ``change``     of that kind, updated: minus ``rate`` times the gradient is added.  Online it is ``couplings``.
    ``hidden``     how many units are hidden.
    ``rule``       rate, and whether it is online.
    ``sums``       float64 (units,), written: sum of r, of which minus the rate, where free, belongs to the field.
    ``loss``       float64 (1,), written: sum of r^2 kT / (mu dt), each step's before the change that it makes.
    """
    steps, units = path.shape[0] - 1, path.shape[1]
    size, number = padded(units), path.dtype.type
    rate, online = number(rule[0]), rule[1]
    line = LINE // path.itemsize
    shown = min(size, -(-hidden // line) * line)  # the columns of visible units' rows
    after, moved, gradient = aligned(size, STEPS, path), aligned(size, STEPS, path), aligned(size, STEPS, path)
    residual = aligned(size, STEPS, path)
    left, right = aligned(size, 2 * STEPS, path), aligned(2 * STEPS, size, path)
    of_after, of_residual = np.zeros(STEPS, path.dtype), np.zeros(STEPS, path.dtype)
    reach = reaches(couplings)
    for group in range(reach.size):  # what is zero now may not be so later
        reach[group] = max(reach[group], size if group * ROWS < hidden else shown)
    squares = 0.0
    for i in range(units):
        sums[i] = 0.0
    for first in range(0, steps, STEPS):
        count = min(STEPS, steps - first)
        _load_steps(path, first, count, after, moved)
        for i in range(units):
            start = field[i]
            if online:
                start -= rate * free[i] * number(sums[i])
            for lane in range(STEPS):
                gradient[i, lane] = start
                residual[i, lane] = number(0.0)
        for group in prange(reach.size):
            rows = slice(group * ROWS, (group + 1) * ROWS)
            add_pairs(gradient[rows], couplings[rows], reach[group : group + 1], after)
        for lane in range(count):
            if online:
                _clear(of_after)
                _clear(of_residual)
                _overlap(after, residual, lane, 0, hidden, of_after, of_residual)
                _learned_visible(after, residual, lane, hidden, units, of_after, of_residual, free, rate, gradient)
                _overlap(after, residual, lane, hidden, units, of_after, of_residual)
                _learned(after, residual, lane, 0, hidden, of_after, of_residual, free, rate, gradient)
            squares += _residual(after, moved, gradient, lane, units, physics, residual)
        for i in range(units):
            for lane in range(STEPS):
                sums[i] += np.float64(residual[i, lane])
                left[i, lane], left[i, STEPS + lane] = -rate * residual[i, lane], -rate * after[i, lane]
                right[lane, i], right[STEPS + lane, i] = after[i, lane], residual[i, lane]
        for group in prange(reach.size):
            begin = group * ROWS
            wide = size if begin < hidden else shown
            add_product(change[begin : begin + ROWS, :wide], left[begin : begin + ROWS], right[:, :wide])
            for i in range(begin, begin + ROWS):
                change[i, i] = number(0.0)
                for j in range(hidden if i >= hidden else size, wide):
                    change[i, j] = number(0.0)
    loss[0] = squares * physics.kT / (physics.mobility * physics.dt)
