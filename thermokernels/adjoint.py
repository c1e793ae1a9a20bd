"""Gradients of what a network's noisy trajectories end in, by the discrete adjoint of the very steps of `network`.

    x' = x - mu dt (h + J x + 2 J2 x + 4 J4 x^3) + sqrt(2 mu kT dt) z,            cut off at -limit and limit

Its derivative is the linear map A = 1 - mu dt (J + diag(2 J2 + 12 J4 x^2)), which is symmetric; a unit that was cut off
has a derivative of zero.  Let F be a function of the end states and lambda = dF/dx there.  Going back,

    dF/dh -= mu dt lambda',     dF/dJ_ij -= mu dt (lambda'_i x_j + lambda'_j x_i),     lambda = A lambda',

lambda' being the one after the step and x the state before it.

Of a trajectory only every ``stride(steps)``-th state is kept; what lies between is run again, segment by segment, last
to first, on noise drawn again from where it was drawn.  So no more than 2 sqrt(steps) states are kept at a time,
besides the first and the last.  What lies between `forward` and `backward` is the caller's: F and its slope at the end.

Layout and noise are those of `network`.  ``physics`` has one field more, the limit; with infinity the steps are those
of `network`.
"""

import math

import numpy as np
from numba import prange

from thermokernels._jit import device, kernel, wide_vectors
from thermokernels.blocks import FLUSH, add_tasks, flush, tasks_of
from thermokernels.network import GROUP, TILE, pad_couplings, padded
from thermokernels.products import add_product, aligned, copy_rows
from thermokernels.random import BLOCK, LANES, fill_block


@device
def stride(steps):
    """Steps of a segment: at its beginning a state is kept."""
    return max(1, math.ceil(math.sqrt(steps)))


@device
def segments(steps):
    """How many segments make so many steps."""
    return -(-steps // stride(steps))


@device
def _move(old, new, force, normals, units, physics):
    """All units of a tile from ``old`` to ``new``, (units, TILE); ``force`` comes as h + J x."""
    wide_vectors()
    number = old.dtype.type
    two_j2, four_j4 = number(2.0 * physics.J2), number(4.0 * physics.J4)
    pull, limit = number(physics.mobility * physics.dt), number(physics.limit)
    kick = number(math.sqrt(2.0 * physics.mobility * physics.kT * physics.dt))
    for i in range(units):
        old_i, new_i, force_i = old[i], new[i], force[i]
        noise = normals[i * TILE : (i + 1) * TILE]
        for lane in range(TILE):
            x = old_i[lane]
            moved = x + (kick * number(noise[lane]) - pull * (force_i[lane] + x * (two_j2 + four_j4 * (x * x))))
            # So that a NaN stays one.
            moved = limit if moved > limit else moved
            new_i[lane] = -limit if moved < -limit else moved


@device
def _advance(old, new, force, field, matrix, normals, words, place, units, physics):
    """One step of a tile; ``place`` is (seed, stream, its first block, step)."""
    copy_rows(force, field)
    add_product(force, matrix, old)
    for g in range(old.shape[0] // GROUP):
        fill_block(normals[g * BLOCK : (g + 1) * BLOCK], words, place[0], place[1], place[2] + g, place[3])
    _move(old, new, force, normals, units, physics)


@device
def _load(rows, tile):
    """``rows`` (trajectories, units) to (units, TILE), zeros around them."""
    tile[:] = tile.dtype.type(0.0)
    for lane in range(rows.shape[0]):
        for i in range(rows.shape[1]):
            tile[i, lane] = rows[lane, i]


@device
def _transpose(tile, rows):
    """``tile`` (units, TILE) to (trajectories, units), as many as there are rows and columns."""
    wide_vectors()
    for lane in range(rows.shape[0]):
        for i in range(rows.shape[1]):
            rows[lane, i] = tile[i, lane]


@device
def _check(rows, status, number):
    """Notes which of the trajectories have a state that is not finite."""
    for lane in range(rows.shape[0]):
        for i in range(rows.shape[1]):
            if status[lane] == 0 and not math.isfinite(rows[lane, i]):
                status[lane] = number


@kernel
def forward(start, marks, status, fields, couplings, physics, span, noise):
    """Runs trajectories and keeps what `backward` needs.

    ``start``      float32 or float64 (trajectories, units), the state at first.
    ``marks``      dtype of start, (segments(steps), trajectories, units), written: states at the end of each segment of
                   ``stride(steps)`` steps, the last of which is the end.
    ``status``     int64 (trajectories,): 0, or one more than the last step of the segment in which a state was no
                   longer finite; updated.
    ``fields``     dtype of start, (trajectories, units): h = b + W u.
    ``couplings``  (units, units), symmetric, zero diagonal.
    ``physics``    a named tuple: J2, J4, mobility, kT, dt, limit.
    ``span``       number of the first step, and how many are taken.
    ``noise``      seed and stream, uint64.
    """
    trajectories, units = start.shape
    first, steps = span
    size, tiles, length = padded(units), -(-trajectories // TILE), stride(steps)
    tasks = tasks_of(tiles)
    matrix = pad_couplings(couplings, start)
    for task in prange(tasks):
        x, new = aligned(size, TILE, start), aligned(size, TILE, start)
        force, field = aligned(size, TILE, start), aligned(size, TILE, start)
        normals, words = np.empty(size * TILE, np.float32), np.empty((2, LANES), np.uint64)
        for tile in range(task * tiles // tasks, (task + 1) * tiles // tasks):
            mine = slice(tile * TILE, min((tile + 1) * TILE, trajectories))
            _load(start[mine], x)
            _load(fields[mine], field)
            for n in range(steps):
                place = (noise[0], noise[1], tile * (size // GROUP), first + n)
                # Not in place: loops over one array that is read and written as two would not vectorise.
                _advance(x, new, force, field, matrix, normals, words, place, units, physics)
                x, new = new, x
                if (n + 1) % length == 0 or n == steps - 1:
                    _transpose(x, marks[n // length, mine])
                    _check(marks[n // length, mine], status[mine], first + n + 1)


@device
def _sweep(slope, product, x, total, physics):
    """One step back: ``slope`` lambda' becomes lambda, and is added to ``total`` before; all (TILE, units).

    ``product`` comes as lambda' J, and becomes zero.
    """
    wide_vectors()
    number = slope.dtype.type
    two_j2, twelve_j4 = number(2.0 * physics.J2), number(12.0 * physics.J4)
    pull, limit, zero = number(physics.mobility * physics.dt), number(physics.limit), number(0.0)
    for lane in range(TILE):
        slope_p, product_p, x_p, total_p = slope[lane], product[lane], x[lane], total[lane]
        for i in range(slope.shape[1]):
            after, state = slope_p[i], x_p[i]
            total_p[i] += after
            before = after - pull * (product_p[i] + after * (two_j2 + twelve_j4 * (state * state)))
            # A state at the limit was cut off on the way to it: nothing before it matters.
            slope_p[i] = zero if abs(state) >= limit else before
            product_p[i] = zero


@kernel
def backward(start, marks, slopes, fields, couplings, physics, span, noise, of_fields, of_couplings):
    """The gradient of F, whose slope at the end of `forward` is known.

    Arguments are those of `forward`, with ``marks`` as it wrote them, and

    ``slopes``        dtype of start, (trajectories, units): dF/dx at the end; becomes dF/dx at the start.
    ``of_fields``     dtype of start, (trajectories, units), written: dF/dh, so that dF/db is their sum over
                      trajectories and dF/dW = of_fields^T u.
    ``of_couplings``  float64 (units, units), written: dF/dJ_ij, symmetric, zero on the diagonal.

    Sums over ``FLUSH`` steps of a tile are in the precision of x, all others in float64, tiles in fixed order.
    """
    trajectories, units = start.shape
    first, steps = span
    size, tiles, length = padded(units), -(-trajectories // TILE), stride(steps)
    parts, tasks = segments(steps), tasks_of(tiles)
    matrix = pad_couplings(couplings, start)
    totals = np.zeros((tasks, size, size))
    pull = physics.mobility * physics.dt
    for task in prange(tasks):
        trail = aligned(length * size, TILE, start).reshape((length, size, TILE))
        force, field = aligned(size, TILE, start), aligned(size, TILE, start)
        slope, product, total = aligned(TILE, size, start), aligned(TILE, size, start), aligned(TILE, size, start)
        x, sums = aligned(TILE, size, start), aligned(size, size, start)
        normals, words = np.empty(size * TILE, np.float32), np.empty((2, LANES), np.uint64)
        for tile in range(task * tiles // tasks, (task + 1) * tiles // tasks):
            mine = slice(tile * TILE, min((tile + 1) * TILE, trajectories))
            _load(fields[mine], field)
            _begin(slopes[mine], marks[parts - 1, mine], slope, total, physics)
            for part in range(parts - 1, -1, -1):
                begin = part * length
                count = min(length, steps - begin)
                _load(start[mine] if part == 0 else marks[part - 1, mine], trail[0])
                for n in range(count - 1):
                    place = (noise[0], noise[1], tile * (size // GROUP), first + begin + n)
                    _advance(trail[n], trail[n + 1], force, field, matrix, normals, words, place, units, physics)
                for n in range(count - 1, -1, -1):
                    _transpose(trail[n], x)
                    add_product(sums, slope.T, x)
                    add_product(product, slope, matrix)
                    _sweep(slope, product, x, total, physics)
                    if (begin + n) % FLUSH == 0:
                        flush(sums, totals[task])
            _end(slope, total, slopes[mine], of_fields[mine], pull)
    whole = np.empty((size, size))
    add_tasks(totals, whole)
    for i in range(units):
        for j in range(i):
            of_couplings[i, j] = -pull * (whole[i, j] + whole[j, i])
            of_couplings[j, i] = of_couplings[i, j]
        of_couplings[i, i] = 0.0


@device
def _begin(slopes, end, slope, total, physics):
    """A tile's slopes at the end, without those of units that were cut off; no sums yet."""
    zero, limit = slope.dtype.type(0.0), slope.dtype.type(physics.limit)
    slope[:] = zero
    total[:] = zero
    for lane in range(slopes.shape[0]):
        for i in range(slopes.shape[1]):
            slope[lane, i] = zero if abs(end[lane, i]) >= limit else slopes[lane, i]


@device
def _end(slope, total, slopes, of_fields, pull):
    """A tile's slopes at the start, and dF/dh from the sums of lambda."""
    wide_vectors()
    number = slope.dtype.type
    for lane in range(slopes.shape[0]):
        for i in range(slopes.shape[1]):
            slopes[lane, i] = slope[lane, i]
            of_fields[lane, i] = number(-pull) * total[lane, i]
