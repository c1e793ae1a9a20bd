"""Many overdamped Langevin particles in a harmonic trap whose centre theta is learned or driven.

    dx = -mu dE/dx dt + sqrt(2 mu kT) dB,    E = (x - theta)^2 / 2        (Hnybida & Verret 2025, Eqs. 7 and 10)

Step n is: (1) theta jumps at fixed x, which is work; (2) x relaxes at fixed theta, which is heat:

    x' = x + pull[n] (theta - x) + kick[n] z,        z standard normal.

The exact Ornstein-Uhlenbeck update has pull = 1 - exp(-mu dt) and kick = sqrt(kT (1 - exp(-2 mu dt))), Euler-Maruyama
has pull = mu dt and kick = sqrt(2 mu kT dt).  With pull = kick = 0 a step is a jump alone.

Its energy differences are written with the force, so that nothing cancels and little is computed:

    at fixed x, theta -> theta + shift:   dE = shift (shift / 2 - (x - theta)) = shift (force' - shift / 2)
    at fixed theta, x -> x + move:        dE = move (move / 2 - force)

with force = theta - x, and force' the force after the shift.

Arrays that all kernels share:

``x``         float32 or float64, (replicas, width), width a multiple of ``random.BLOCK``; a replica's particles are its
              first ``particles`` columns, the rest is never read.
``steps``     float64, (steps, 3): columns gain, pull, kick.  ``drive`` ignores the gain.
``sums``      float64, (replicas, blocks, 3): sums of x and x^2 over each block, and its heat so far.
``noise``     seed and first stream, uint64.

Replica r draws its noise from stream ``stream + r``, at step number ``first + n`` for row n of ``steps``.
"""

import numpy as np
from numba import prange

from thermokernels._jit import device, kernel, wide_vectors
from thermokernels.blocks import TASKS, share, sum_block, sum_over_blocks
from thermokernels.random import BLOCK, LANES, fill_block

GAIN, PULL, KICK = range(3)
SUM_X, SUM_SQUARE, SUM_HEAT = range(3)
# What a part of a replica contributes to its linear response, and the sum of its x: see `learn`.
RESPONSE_X, RESPONSE_THETA, RESPONSE_WORK, PART_SUM = range(4)
# Columns of the trace of `learn`, all means over the particles of a replica.
LEARN_COLUMNS = ("u", "theta", "work", "heat", "square", "var_u", "var_theta", "var_work")
# Columns of the record of `drive`, all sums over one block.
DRIVE_COLUMNS = ("x", "square", "work", "work_square", "heat")


@device
def trap_force(x, theta):
    """-dE/dx."""
    return theta - x


@device
def trap_work(new_force, shift):
    """E(x, theta + shift) - E(x, theta), from the force at theta + shift."""
    return shift * (new_force - type(shift)(0.5) * shift)


@device
def trap_heat(force, move):
    """E(x + move, theta) - E(x, theta), from the force at x."""
    return move * (type(move)(0.5) * move - force)


@device
def _spread_block(x, normals, centre, width):
    wide_vectors()
    centre = x.dtype.type(centre)
    width = x.dtype.type(width)
    for i in range(x.size):
        x[i] = centre + width * x.dtype.type(normals[i])


@device
def _relax_block(x, normals, theta, pull, kick, sums):
    """Relaxes one block, overwrites its sums of x and x^2, adds to its heat."""
    wide_vectors()
    theta = x.dtype.type(theta)
    pull = x.dtype.type(pull)
    kick = x.dtype.type(kick)
    total = 0.0
    square = 0.0
    heat = 0.0
    for i in range(x.size):
        force = trap_force(x[i], theta)
        move = pull * force + kick * x.dtype.type(normals[i])
        new = x[i] + move
        x[i] = new
        total += np.float64(new)
        square += np.float64(new) * np.float64(new)
        heat += np.float64(trap_heat(force, move))
    sums[SUM_X] = total
    sums[SUM_SQUARE] = square
    sums[SUM_HEAT] += heat


@device
def _sum_parts(x, size, sums, first):
    """Sums of x over parts of ``size`` particles, the last of what is left, from column ``first`` of ``sums``."""
    wide_vectors()
    for part in range((x.size + size - 1) // size):
        total = 0.0
        for value in x[part * size : min((part + 1) * size, x.size)]:
            total += np.float64(value)
        sums[first + part] = total


@device
def _shift_and_relax_block(x, work, heat, normals, theta, new_theta, pull, kick):
    """Step n of one block, with every particle's own work and heat."""
    wide_vectors()
    shift = x.dtype.type(new_theta - theta)
    theta = x.dtype.type(new_theta)
    pull = x.dtype.type(pull)
    kick = x.dtype.type(kick)
    for i in range(x.size):
        force = trap_force(x[i], theta)
        move = pull * force + kick * x.dtype.type(normals[i])
        x[i] += move
        work[i] += np.float64(trap_work(force, shift))
        heat[i] += np.float64(trap_heat(force, move))


@device
def _record_block(x, work, heat, theta, new_theta, sums):
    """Sums over one block as they stand after the jump theta -> new_theta and before the relaxation."""
    wide_vectors()
    shift = new_theta - theta
    total = 0.0
    square = 0.0
    work_total = 0.0
    work_square = 0.0
    heat_total = 0.0
    for i in range(x.size):
        position = np.float64(x[i])
        particle_work = work[i] + trap_work(trap_force(position, new_theta), shift)
        total += position
        square += position * position
        work_total += particle_work
        work_square += particle_work * particle_work
        heat_total += heat[i]
    sums[0] = total
    sums[1] = square
    sums[2] = work_total
    sums[3] = work_square
    sums[4] = heat_total


@kernel
def spread(x, particles, centre, width, noise, sums):
    """Draws the start x ~ N(centre, width^2) and fills ``sums`` for it.

    The normals are those of step 0 of the streams named, so the streams must not be those of the dynamics.
    """
    replicas, blocks = sums.shape[:2]
    for task in prange(TASKS):
        rows = np.empty((2, LANES), np.uint64)
        normals = np.empty(BLOCK, np.float32)
        for unit in share(task, replicas * blocks):
            replica, block = unit // blocks, unit % blocks
            mine = x[replica, block * BLOCK : min((block + 1) * BLOCK, particles)]
            fill_block(normals, rows, noise[0], noise[1] + np.uint64(replica), block, 0)
            _spread_block(mine, normals, centre, width)
            sum_block(mine, sums[replica, block])
            sums[replica, block, SUM_HEAT] = 0.0


@kernel
def learn(x, particles, first, steps, target, noise, state, sums, responses, trace):
    """Closed loop: theta is driven by the mean of the particles,

        theta' = theta - gain[n] (u - target[n, r]),      u = mean of x over replica r     (Eqs. 9 and 13).

    ``target``     float64 (steps, replicas), the mean of the data that step n compares with.
    ``state``      float64 (replicas, 2), theta and the mean work so far; updated.
    ``responses``  float64 (replicas, 4, parts), from `start_responses`; updated.
    ``trace``      float64 (steps, replicas, 8), written: ``LEARN_COLUMNS`` after the jump of step n, before relaxation.

    Particles of a replica share theta, so the spread of their works says nothing about the error of the mean work.  The
    last three columns of the trace are that error, squared, by the infinitesimal jackknife over parts, which are blocks
    or equal parts of blocks: give part b a little more weight in u, follow to first order what that does to u, theta
    and work, and sum the squares over parts.  They are NaN where all particles are in one part.
    """
    replicas, blocks = sums.shape[:2]
    split = responses.shape[2] // blocks
    size = BLOCK // split
    # The mean belongs to the same sample as the parts: their squares fall short by the sum of squared weights.
    parts = (particles + size - 1) // size
    last_weight = (particles - (parts - 1) * size) / particles
    weight = size / particles if parts > 1 else last_weight
    spare = 1.0 / (1.0 - (parts - 1) * weight**2 - last_weight**2) if parts > 1 else np.nan
    for n in range(steps.shape[0]):
        gain, pull, kick = steps[n, GAIN], steps[n, PULL], steps[n, KICK]
        for r in range(replicas):
            theta = state[r, 0]
            u = sum_over_blocks(sums[r], SUM_X) / particles
            new_theta = theta - gain * (u - target[n, r])
            shift = new_theta - theta
            lag = 0.5 * (theta + new_theta) - u
            state[r, 0] = new_theta
            state[r, 1] += shift * lag
            # Sums apart from what is stored: in one loop LLVM adds up in vectors where it sees that nothing overlaps,
            # as with one replica, and in another order where it does not.
            var_u = var_theta = var_work = 0.0
            for b in range(parts):
                w = last_weight if b == parts - 1 else weight
                du = responses[r, PART_SUM, b] / (w * particles) - u + responses[r, RESPONSE_X, b]
                var_u += (w * du) ** 2
            for b in range(parts):
                w = last_weight if b == parts - 1 else weight
                du = responses[r, PART_SUM, b] / (w * particles) - u + responses[r, RESPONSE_X, b]
                dtheta = responses[r, RESPONSE_THETA, b]
                new_dtheta = dtheta - gain * du
                dwork = responses[r, RESPONSE_WORK, b]
                dwork += (new_dtheta - dtheta) * lag + shift * (0.5 * (dtheta + new_dtheta) - du)
                responses[r, RESPONSE_X, b] += pull * (new_dtheta - responses[r, RESPONSE_X, b])
                responses[r, RESPONSE_THETA, b] = new_dtheta
                responses[r, RESPONSE_WORK, b] = dwork
            for b in range(parts):
                w = last_weight if b == parts - 1 else weight
                var_theta += (w * responses[r, RESPONSE_THETA, b]) ** 2
                var_work += (w * responses[r, RESPONSE_WORK, b]) ** 2
            trace[n, r, 0] = u
            trace[n, r, 1] = new_theta
            trace[n, r, 2] = state[r, 1]
            trace[n, r, 3] = sum_over_blocks(sums[r], SUM_HEAT) / particles
            trace[n, r, 4] = sum_over_blocks(sums[r], SUM_SQUARE) / particles
            trace[n, r, 5] = spare * var_u
            trace[n, r, 6] = spare * var_theta
            trace[n, r, 7] = spare * var_work
        for task in prange(TASKS):
            rows = np.empty((2, LANES), np.uint64)
            normals = np.empty(BLOCK, np.float32)
            for unit in share(task, replicas * blocks):
                replica, block = unit // blocks, unit % blocks
                mine = x[replica, block * BLOCK : min((block + 1) * BLOCK, particles)]
                fill_block(normals, rows, noise[0], noise[1] + np.uint64(replica), block, first + n)
                _relax_block(mine, normals, state[replica, 0], pull, kick, sums[replica, block])
                if split == 1:
                    responses[replica, PART_SUM, block] = sums[replica, block, SUM_X]
                else:
                    _sum_parts(mine, size, responses[replica, PART_SUM], block * split)


@kernel
def start_responses(x, particles, responses):
    """Fills ``responses`` (replicas, 4, parts) of `learn` for the start of a run from x.

    ``parts`` is the number of blocks, or that times a power of two that divides ``random.BLOCK``.
    """
    replicas, blocks = x.shape[0], x.shape[1] // BLOCK
    split = responses.shape[2] // blocks
    for unit in prange(replicas * blocks):
        replica, block = unit // blocks, unit % blocks
        responses[replica, :, block * split : (block + 1) * split] = 0.0
        mine = x[replica, block * BLOCK : min((block + 1) * BLOCK, particles)]
        if split == 1:
            sums = np.empty(2)
            sum_block(mine, sums)
            responses[replica, PART_SUM, block] = sums[SUM_X]
        else:
            _sum_parts(mine, BLOCK // split, responses[replica, PART_SUM], block * split)


@kernel
def drive(x, work, heat, particles, first, steps, theta, noise, rows_to_record, record):
    """Open loop: theta is prescribed, ``theta[r, n] -> theta[r, n + 1]`` being the jump of step n.

    ``work``, ``heat``  float64, shape of x, each particle's own so far; updated.
    ``theta``           float64 (replicas, steps + 1).
    ``rows_to_record``  intp (rows,), ascending: the steps to record.
    ``record``          float64 (rows, replicas, blocks, 5), written: ``DRIVE_COLUMNS`` after the jump and
                        before the relaxation.

    A block stays in cache for all its steps.
    """
    replicas, blocks = record.shape[1:3]
    for task in prange(TASKS):
        rows = np.empty((2, LANES), np.uint64)
        normals = np.empty(BLOCK, np.float32)
        for unit in share(task, replicas * blocks):
            r, block = unit // blocks, unit % blocks
            mine = slice(block * BLOCK, min((block + 1) * BLOCK, particles))
            my_x, my_work, my_heat = x[r, mine], work[r, mine], heat[r, mine]
            row = 0
            for n in range(steps.shape[0]):
                if row < rows_to_record.size and rows_to_record[row] == n:
                    _record_block(my_x, my_work, my_heat, theta[r, n], theta[r, n + 1], record[row, r, block])
                    row += 1
                fill_block(normals, rows, noise[0], noise[1] + np.uint64(r), block, first + n)
                _shift_and_relax_block(
                    my_x, my_work, my_heat, normals, theta[r, n], theta[r, n + 1], steps[n, PULL], steps[n, KICK]
                )
