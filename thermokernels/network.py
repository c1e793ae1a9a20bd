"""Trajectories of a thermodynamic computer: noisy units in quartic wells, coupled in pairs.

    V(x) = sum_i (J2 x_i^2 + J4 x_i^4 + h_i x_i) + sum_(i<j) J_ij x_i x_j              (Whitelam 2025, Eq. 2)
    x_i' = x_i - mu dt dV/dx_i + sqrt(2 mu kT dt) z_i,     z standard normal            (Eq. 1, Euler-Maruyama)

Inputs do not move, so all they do is in the fields: h = b + W u.  Only hidden and output units are units here.

Trajectories go by tiles of ``TILE``, units by groups of ``GROUP``: 1,024 normals, one block of ``random``.  Normals of
trajectory p, unit i at a step are those of block (p // TILE) * groups + i // GROUP, at place
(i % GROUP) * TILE + p % TILE.  So a trajectory's noise depends on its number and that of the step, not on what runs
beside it.

``physics`` is a named tuple: J2, J4, mobility, kT, dt.  Numba pickles its class into the disk cache, so it must be one
that other processes can import.
"""

import math

import numpy as np
from numba import prange

from thermokernels._jit import device, kernel, wide_vectors
from thermokernels.blocks import TASKS, share
from thermokernels.products import LINE, ROWS, add_product, aligned, copy_rows
from thermokernels.random import BLOCK, LANES, fill_block

TILE = 64
GROUP = BLOCK // TILE


@device
def padded(units):
    """Units to the next whole group; those beyond the last are never coupled and never read."""
    return -(-units // GROUP) * GROUP


def dense(couplings):
    """Couplings (units, units) as `simulate` takes them, none of them a product of factors."""
    units = len(couplings)
    return couplings, np.empty((units, 0), couplings.dtype), np.empty((0, units), couplings.dtype)


@device
def _put(part, matrix):
    """``part`` into the corner of ``matrix``, in its dtype."""
    for i in range(part.shape[0]):
        for j in range(part.shape[1]):
            matrix[i, j] = part[i, j]


@device
def pad_couplings(couplings, like):
    """The couplings, filled up with zeros, in the dtype of ``like``."""
    size = padded(couplings.shape[0])
    matrix = aligned(size, size, like)
    _put(couplings, matrix)
    return matrix


@device
def _pad_factors(couplings, like):
    """The matrices A (modes, units) and B (units, modes + units) of J x = B (A x, x): modes first, filled up to whole
    eights, so that a product ends where the pairs of its rows end."""
    pairs, left, right = couplings
    size, modes = padded(pairs.shape[0]), -(-right.shape[0] // ROWS) * ROWS
    to_modes, matrix = aligned(modes, size, like), aligned(size, modes + size, like)
    _put(right, to_modes)
    _put(left, matrix)
    _put(pairs, matrix[:, modes:])
    return to_modes, matrix


@device
def reaches(matrix):
    """How many columns, at most, the couplings of each eight rows reach: products with zeros beyond are not taken."""
    reach = np.zeros(matrix.shape[0] // ROWS, np.intp)
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            if matrix[i, j] != matrix.dtype.type(0.0):
                reach[i // ROWS] = max(reach[i // ROWS], j + 1)
    return reach


@device
def add_pairs(gradient, matrix, reach, position):
    """gradient += J x, row by row as far as J goes."""
    for group in range(reach.size):
        rows, columns = slice(group * ROWS, (group + 1) * ROWS), reach[group]
        add_product(gradient[rows], matrix[rows, :columns], position[:columns])


@device
def _step(x, gradient, field, normals, last_move, change, units, physics):
    """Moves all units of a tile; ``gradient`` comes as h + J x.

    ``change`` becomes each trajectory's change of energy, except that a pair's term J_ij dx_i dx_j waits for the next
    J x: dV = dx.h + dx.(J x + J x') / 2 + what the wells add.
    """
    wide_vectors()
    number = x.dtype.type
    half = number(0.5)
    two_j2, four_j4 = number(2.0 * physics.J2), number(4.0 * physics.J4)
    j2, j4 = number(physics.J2), number(physics.J4)
    pull = number(physics.mobility * physics.dt)
    kick = number(math.sqrt(2.0 * physics.mobility * physics.kT * physics.dt))
    for lane in range(TILE):
        change[lane] = number(0.0)
    for i in range(units):
        x_i, gradient_i, field_i, move_i = x[i], gradient[i], field[i], last_move[i]
        noise = normals[i * TILE : (i + 1) * TILE]
        for lane in range(TILE):
            old, linear, before = x_i[lane], gradient_i[lane], move_i[lane]
            square = old * old
            move = kick * number(noise[lane]) - pull * (linear + old * (two_j2 + four_j4 * square))
            new = old + move
            wells = (move * (old + new)) * (j2 + j4 * (square + new * new))
            pairs = half * ((move + before) * linear + (move - before) * field_i[lane])
            change[lane] += wells + pairs
            x_i[lane] = new
            move_i[lane] = move


@device
def _last_pairs(gradient, field, last_move, units, change):
    """What still waited at the last step."""
    wide_vectors()
    half = change.dtype.type(0.5)
    change[:] = change.dtype.type(0.0)
    for i in range(units):
        for lane in range(TILE):
            change[lane] += half * last_move[i, lane] * (gradient[i, lane] - field[i, lane])


@device
def load(rows, tile):
    """``rows`` (trajectories, units) of a tile, to (units, TILE)."""
    tile[:] = tile.dtype.type(0.0)
    for lane in range(rows.shape[0]):
        for i in range(rows.shape[1]):
            tile[i, lane] = rows[lane, i]


@device
def unload(tile, rows):
    for lane in range(rows.shape[0]):
        for i in range(rows.shape[1]):
            rows[lane, i] = tile[i, lane]


@kernel
def simulate(x, heat, status, fields, couplings, physics, span, noise, recorded, paths):
    """Runs trajectories side by side.

    ``x``          float32 or float64 (trajectories, units), the state; updated.
    ``heat``       float64 (trajectories,), heat absorbed so far, V(x') - V(x) step by step; updated.
    ``status``     int64 (trajectories,): 0, or one more than the step at which the energy was no longer finite.
    ``fields``     dtype of x, (trajectories, units): h = b + W u.
    ``couplings``  J, symmetric with zero diagonal, as pairs + left right: three arrays, (units, units), (units, modes)
                   and (modes, units).  What is of low rank costs modes in the place of units; `dense` has no modes.
    ``span``       number of the first step, below 2^32 with all that follow, and how many are taken.
    ``noise``      seed and stream, uint64.
    ``recorded``   intp (records,), ascending: numbers of steps taken in this call, from 0, after which to record x.
    ``paths``      dtype of x, (records, trajectories, units), written.

    The changes of one step are summed over units in the precision of x, over steps in float64.  Cutting a run in pieces
    changes no bit of x, and the heat by rounding.
    """
    trajectories, units = x.shape
    first, steps = span
    size, tiles = padded(units), -(-trajectories // TILE)
    groups = size // GROUP
    to_modes, matrix = _pad_factors(couplings, x)
    modes = to_modes.shape[0]
    reach, line = reaches(matrix), LINE // x.itemsize
    for task in prange(TASKS):
        whole, gradient = aligned(modes + size, TILE, x), aligned(size, TILE, x)
        position = whole[modes:]
        field, last_move = aligned(size, TILE, x), aligned(size, TILE, x)
        change = np.empty(TILE, x.dtype)
        normals = np.empty(size * TILE, np.float32)
        words = np.empty((2, LANES), np.uint64)
        for tile in share(task, tiles):
            mine = slice(tile * TILE, min((tile + 1) * TILE, trajectories))
            lanes = mine.stop - mine.start
            wide = -(-lanes // line) * line  # trajectories in whole cache lines: a tile may be half empty
            load(x[mine], position)
            load(fields[mine], field)
            last_move[:] = x.dtype.type(0.0)
            row = 0
            for n in range(steps + 1):
                while row < recorded.size and recorded[row] == n:
                    unload(position, paths[row, mine])
                    row += 1
                whole[:modes] = x.dtype.type(0.0)
                add_product(whole[:modes, :wide], to_modes, position[:, :wide])
                copy_rows(gradient, field)
                add_pairs(gradient[:, :wide], matrix, reach, whole[:, :wide])
                if n == steps:
                    _last_pairs(gradient, field, last_move, units, change)
                else:
                    for g in range(groups):
                        block = normals[g * BLOCK : (g + 1) * BLOCK]
                        fill_block(block, words, noise[0], noise[1], tile * groups + g, first + n)
                    _step(position, gradient, field, normals, last_move, change, units, physics)
                for lane in range(lanes):
                    heat[mine.start + lane] += np.float64(change[lane])
                    if status[mine.start + lane] == 0 and not math.isfinite(change[lane]):
                        status[mine.start + lane] = first + n + 1
            unload(position, x[mine])
