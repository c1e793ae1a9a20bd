"""Many overdamped Langevin particles in any potential E(x, theta), in d dimensions with p parameters.

    dx = -mu dE/dx dt + sqrt(2 mu kT) dB                                        (Hnybida & Verret 2025, Eq. 7)

`kernels` compiles the kernels of one potential from three scalar functions, which are inlined into the loops:

``energy(x, theta)``    E; x is a float, or in d > 1 dimensions a tuple of d floats; theta is a tuple of p floats.
``force(x, theta)``     -dE/dx, a float or a tuple of d floats.
``gradient(x, theta)``  dE/dtheta, a tuple of p floats.

x may live in a ``domain``: (low, high, periodic) of each coordinate, with walls where low and high are finite; empty
for all of space.  Functions are asked for x in it alone.

Step n is: (1) theta jumps at fixed x, which is work; (2) x relaxes at fixed theta, which is heat.  How it relaxes, and
by which coefficients, says `integrators`.

Arrays that the kernels share:

``x``             float32 or float64, (replicas, d, particles).
``theta``         float64, (replicas, points, p); row n -> n + 1 is the jump of step n.
``coefficients``  float64, (replicas, steps, 2 or d + 2 d^2).
``status``        int64, (replicas, blocks): the first step at which a block diverged; unchanged where none did.
``noise``         seed and first stream, uint64.

Replica r draws the noise of dimension k from stream ``stream + r d + k``, at step number ``first + n`` for step n.
Everything but the stored x is computed in float64.
"""

import math
from functools import cache

import numpy as np
from numba import prange

from thermokernels._jit import device, device_of, kernel, named_kernel, serial_kernel, wide_vectors
from thermokernels.blocks import TASKS, place, share
from thermokernels.integrators import INTEGRATORS, columns, relaxed, stores, unrolled
from thermokernels.products import LINE, copy
from thermokernels.random import BLOCK, LANES, fill_block

__all__ = ["INTEGRATORS", "RECORD_COLUMNS", "Builder", "blocks_of", "device_of", "kernels"]

# What `drive` records and `step` sums, block by block; p columns of dE/dtheta follow.
RECORD_COLUMNS = ("work", "work_square", "heat")


def kernels(energy, force, gradient, dimension, parameters, integrator, name, domain=()):
    """The kernels of a potential, compiled at their first call and kept on disk for other processes.

    ``name`` must tell this potential, integrator and domain from all others: it is the kernels' in the cache on disk.
    Returns four kernels:

    ``evaluate(x, theta, values)``
        E, force and dE/dtheta of every particle at theta (replicas, p); ``values`` is float64 (replicas, 1 + d + p,
        particles).
    ``drive(x, work, heat, first, coefficients, theta, noise, rows_to_record, record, status)``
        Open loop.  ``work``, ``heat`` float64 (replicas, particles), each particle's own so far, updated.
        ``rows_to_record`` intp, ascending steps; ``record`` float64 (rows, replicas, blocks, 3 + p), sums over each
        block after the step: ``RECORD_COLUMNS`` and dE/dtheta.  A block stays in cache for all its steps.
    ``step(x, first, coefficients, theta, noise, sums, status)``
        The same for closed loops, which need one step at a time and no work of single particles: one row of
        coefficients; ``theta`` (replicas, 3, p) before the jump, after it, and where dE/dtheta is wanted.  ``sums``
        float64 (replicas, blocks, 2 + p), written: the work and the heat of this step, and dE/dtheta after it.
    ``dwell(x, first, coefficients, theta, noise, sums, status)``
        Stays at theta (replicas, 1, p) for as many steps as there are coefficients, or for all steps at one row of
        them; ``sums`` float64 (replicas, p, particles), to which dE/dtheta after each step is added.
    """
    mine = Builder(energy, force, gradient, dimension, parameters, integrator, name, domain)
    return mine.evaluate(), mine.drive(), mine.step(), mine.dwell()


class Builder:
    """Device functions of one potential, and the kernels around them.

    A block of particles is worked on in a scratch array, in which dimension k of x lies at ``k * BLOCK``: with all
    offsets known to the compiler the loops vectorise without asking whether arrays overlap.
    """

    def __init__(self, energy, force, gradient, dimension, parameters, integrator, name, domain=()):
        self.name = name
        self.energy, self.force, self.gradient = (device_of(function) for function in (energy, force, gradient))
        self.dimension, self.parameters = dimension, parameters
        self.averages = integrator == "leimkuhler-matthews"
        d, p = dimension, parameters
        self.load = unrolled("s, i", [f"s[{k * BLOCK} + i]" for k in range(d)], d)
        self.store = stores(d, 0, domain=domain)
        self.store_force = stores(d, (d + p) * BLOCK)
        self.store_gradient = stores(p, d * BLOCK, scalar=False)
        self.theta_of = unrolled("row", [f"row[{j}]" for j in range(p)], 0)
        self.coefficients_of = unrolled("row", [f"row[{j}]" for j in range(columns(integrator, d))], 0)
        self.relaxed = relaxed(integrator, d, self.force, domain)

    def finish(self, function, compiled=kernel):
        """Compiles a kernel under the name of this potential."""
        return named_kernel(function, self.name, compiled)

    def frame(self, columns):
        """The frame of every kernel around the steps of a block, whose scratch array has so many columns."""
        return _room(self.dimension, columns), *_steps(self.dimension, self.averages)

    def evaluate(self):
        energy, force, gradient = self.energy, self.force, self.gradient
        load, store_force, store_gradient, theta_of = self.load, self.store_force, self.store_gradient, self.theta_of
        (take_block, _), give_block = _copies(self.dimension), _gives(self.dimension, self.parameters)
        d, p = self.dimension, self.parameters

        @device
        def evaluate_block(s, count, row):
            wide_vectors()
            theta = theta_of(row)
            for i in range(count):
                here = load(s, i)
                s[(2 * d + p) * BLOCK + i] = energy(here, theta)
                store_gradient(s, i, gradient(here, theta))
                store_force(s, i, force(here, theta))

        # Serial: most calls are about few points, and threads take longer to start than those take.
        def evaluate(x, theta, values):
            replicas, _, particles = x.shape
            s = np.empty((2 * d + p + 1) * BLOCK)
            for r in range(replicas):
                for begin in range(0, particles, BLOCK):
                    count = min(BLOCK, particles - begin)
                    take_block(s, x[r], begin)
                    evaluate_block(s, count, theta[r])
                    give_block(values[r], s, begin, count)

        return self.finish(evaluate, serial_kernel)

    def record(self, work_at, heat_at):
        """Sums over a block: ``RECORD_COLUMNS``, from where work and heat lie in its scratch, and dE/dtheta."""
        gradient, load, store_gradient, theta_of = self.gradient, self.load, self.store_gradient, self.theta_of
        d, p = self.dimension, self.parameters

        @device
        def record_block(s, count, row, sums):
            wide_vectors()
            theta = theta_of(row)
            for i in range(count):
                store_gradient(s, i, gradient(load(s, i), theta))
            work = square = heat = 0.0
            for i in range(count):
                work += s[work_at + i]
                square += s[work_at + i] * s[work_at + i]
                heat += s[heat_at + i]
            sums[0], sums[1], sums[2] = work, square, heat
            for j in range(p):
                total = 0.0
                for i in range(count):
                    total += s[(d + j) * BLOCK + i]
                sums[3 + j] = total

        return record_block

    def drive(self):
        energy, relaxed, load, store = self.energy, self.relaxed, self.load, self.store
        theta_of, coefficients_of = self.theta_of, self.coefficients_of
        d, p = self.dimension, self.parameters
        room, enter, draw, leave = self.frame(d + p + 2)
        work_at, heat_at = (d + p) * BLOCK, (d + p + 1) * BLOCK
        record_block = self.record(work_at, heat_at)

        @device
        def advance_block(s, count, noise, old_row, new_row, coefficient_row, unit):
            """One step; returns the heat of the block, which is finite only if all of it is."""
            wide_vectors()
            old, new, coefficients = theta_of(old_row), theta_of(new_row), coefficients_of(coefficient_row)
            total = 0.0
            for i in range(count):
                here = load(s, i)
                before, start = energy(here, old), energy(here, new)
                store(s, i, relaxed(here, new, coefficients, noise, i), unit)
                heat = energy(load(s, i), new) - start
                s[work_at + i] += start - before
                s[heat_at + i] += heat
                total += heat
            return total

        def drive(x, work, heat, first, coefficients, theta, noise, rows_to_record, record, status):
            replicas, blocks = status.shape
            for task in prange(TASKS):
                s, normals, last, rows = room()
                for unit in share(task, replicas * blocks):
                    at = place(unit, blocks, x.shape[2])
                    r, block, particles = at.replica, at.block, slice(at.begin, at.begin + at.count)
                    enter(s, last, rows, x, noise, at, first)
                    copy(s[work_at:], work[r, particles])
                    copy(s[heat_at:], heat[r, particles])
                    row = 0
                    for n in range(coefficients.shape[1]):
                        draw(normals, last, rows, noise, at, first + n)
                        total = advance_block(
                            s, at.count, normals, theta[r, n], theta[r, n + 1], coefficients[r, n],
                            x.dtype.type(1),
                        )  # fmt: skip
                        report(total, status, at, first + n)
                        if row < rows_to_record.size and rows_to_record[row] == n:
                            record_block(s, at.count, theta[r, n + 1], record[row, r, block])
                            row += 1
                    leave(s, x, at)
                    copy(work[r, particles], s[work_at:][: at.count])
                    copy(heat[r, particles], s[heat_at:][: at.count])

        return self.finish(drive)

    def step(self):
        energy, gradient, relaxed = self.energy, self.gradient, self.relaxed
        load, store, store_gradient = self.load, self.store, self.store_gradient
        theta_of, coefficients_of = self.theta_of, self.coefficients_of
        d, p = self.dimension, self.parameters
        room, enter, draw, leave = self.frame(d + p)

        @device
        def step_block(s, count, noise, thetas, coefficient_row, unit, sums):
            wide_vectors()
            old, new, ahead = theta_of(thetas[0]), theta_of(thetas[1]), theta_of(thetas[2])
            coefficients = coefficients_of(coefficient_row)
            work = heat = 0.0
            for i in range(count):
                here = load(s, i)
                before, start = energy(here, old), energy(here, new)
                store(s, i, relaxed(here, new, coefficients, noise, i), unit)
                there = load(s, i)
                work += start - before
                heat += energy(there, new) - start
                store_gradient(s, i, gradient(there, ahead))
            sums[0], sums[1] = work, heat
            for j in range(p):
                total = 0.0
                for i in range(count):
                    total += s[(d + j) * BLOCK + i]
                sums[2 + j] = total

        def step(x, first, coefficients, theta, noise, sums, status):
            replicas, blocks = status.shape
            for task in prange(TASKS):
                s, normals, last, rows = room()
                for unit in share(task, replicas * blocks):
                    at = place(unit, blocks, x.shape[2])
                    r, out = at.replica, sums[at.replica, at.block]
                    enter(s, last, rows, x, noise, at, first)
                    draw(normals, last, rows, noise, at, first)
                    step_block(s, at.count, normals, theta[r], coefficients[r, 0], x.dtype.type(1), out)
                    report(out[1], status, at, first)
                    leave(s, x, at)

        return self.finish(step)

    def dwell(self):
        gradient, relaxed = self.gradient, self.relaxed
        load, store, store_gradient = self.load, self.store, self.store_gradient
        theta_of, coefficients_of = self.theta_of, self.coefficients_of
        d, p = self.dimension, self.parameters
        room, enter, draw, leave = self.frame(d + 2 * p)

        @device
        def dwell_block(s, count, noise, row, coefficient_row, unit):
            wide_vectors()
            theta, coefficients = theta_of(row), coefficients_of(coefficient_row)
            for i in range(count):
                store(s, i, relaxed(load(s, i), theta, coefficients, noise, i), unit)
                store_gradient(s, i, gradient(load(s, i), theta))
            total = 0.0
            for j in range(p):
                for i in range(count):
                    s[(d + p + j) * BLOCK + i] += s[(d + j) * BLOCK + i]
                    total += s[(d + j) * BLOCK + i]
            return total

        def dwell(x, first, coefficients, theta, noise, sums, status):
            replicas, blocks = status.shape
            for task in prange(TASKS):
                s, normals, last, rows = room()
                for unit in share(task, replicas * blocks):
                    at = place(unit, blocks, x.shape[2])
                    r, count, particles = at.replica, at.count, slice(at.begin, at.begin + at.count)
                    enter(s, last, rows, x, noise, at, first)
                    for j in range(p):
                        copy(s[(d + p + j) * BLOCK :], sums[r, j, particles])
                    for n in range(coefficients.shape[1]):
                        draw(normals, last, rows, noise, at, first + n)
                        total = dwell_block(s, count, normals, theta[r, 0], coefficients[r, n], x.dtype.type(1))
                        report(total, status, at, first + n)
                    leave(s, x, at)
                    for j in range(p):
                        copy(sums[r, j, particles], s[(d + p + j) * BLOCK :][:count])

        return self.finish(dwell)


# What follows does not depend on the potential: one compilation in a process serves all of one dimension.


@cache
def _noise(dimension, averages):
    """Fills the noise of one step; ``last`` keeps what the next step shares with this one."""

    @device
    def average_block(noise, last):
        wide_vectors()
        for i in range(BLOCK):
            old = last[i]
            last[i] = noise[i]
            noise[i] = np.float32(0.5) * (old + noise[i])

    @device
    def begin_noise(last, rows, seed, stream, block, number):
        if averages:
            for k in range(dimension):
                fill_block(last[k], rows, seed, stream + np.uint64(k), block, number)

    @device
    def fill_noise(noise, last, rows, seed, stream, block, number):
        if averages:
            number += 1
        for k in range(dimension):
            fill_block(noise[k], rows, seed, stream + np.uint64(k), block, number)
            if averages:
                average_block(noise[k], last[k])

    return begin_noise, fill_noise


@cache
def _copies(dimension):
    @device
    def take_block(s, x, begin):
        wide_vectors()
        for k in range(dimension):
            row = x[k]
            for i in range(min(BLOCK, row.size - begin)):
                s[k * BLOCK + i] = np.float64(row[begin + i])

    @device
    def put_block(s, x, begin):
        wide_vectors()
        for k in range(dimension):
            row = x[k]
            for i in range(min(BLOCK, row.size - begin)):
                row[begin + i] = s[k * BLOCK + i]

    return take_block, put_block


@cache
def _gives(dimension, parameters):
    d, p = dimension, parameters

    @device
    def give_block(values, s, begin, count):
        """Energy, force and dE/dtheta of a block, from its scratch to where the particles' values are."""
        wide_vectors()
        for row in range(1 + d + p):
            column = 2 * d + p if row == 0 else d + p + row - 1 if row <= d else row - 1
            copy(values[row, begin:], s[column * BLOCK :][:count])

    return give_block


@cache
def _room(dimension, columns):
    @device
    def room():
        """What a task works in: the block, its normals, what the next step shares of them, and random words.

        Numbers begin a cache line: 512-bit loads that straddle two take longer, and malloc aligns to 16 bytes.
        Unpack at once: in a parallel loop Numba drops what is written to an array through a tuple's attribute.
        """
        double = np.empty(columns * BLOCK + LINE // 8)
        single = np.empty(2 * dimension * BLOCK + LINE // 4, np.float32)
        here = (LINE - double.ctypes.data % LINE) % LINE // 8
        there = (LINE - single.ctypes.data % LINE) % LINE // 4
        normals = single[there : there + 2 * dimension * BLOCK].reshape((2, dimension, BLOCK))
        return double[here : here + columns * BLOCK], normals[0], normals[1], np.empty((2, LANES), np.uint64)

    return room


@cache
def _steps(dimension, averages):
    take_block, put_block = _copies(dimension)
    begin_noise, fill_noise = _noise(dimension, averages)

    @device
    def enter(s, last, rows, x, noise, at, first):
        """Takes a block up before step number ``first``."""
        take_block(s, x[at.replica], at.begin)
        stream = noise[1] + np.uint64(at.replica) * np.uint64(dimension)
        begin_noise(last, rows, noise[0], stream, at.block, first)

    @device
    def draw(normals, last, rows, noise, at, number):
        """Fills the normals of one step."""
        stream = noise[1] + np.uint64(at.replica) * np.uint64(dimension)
        fill_noise(normals, last, rows, noise[0], stream, at.block, number)

    @device
    def leave(s, x, at):
        put_block(s, x[at.replica], at.begin)

    return enter, draw, leave


@device
def report(total, status, at, number):
    """Notes the step at which a block diverged: its sum is then no finite number."""
    if not np.isfinite(total) and status[at.replica, at.block] < 0:
        status[at.replica, at.block] = number


def blocks_of(particles):
    """The number of blocks that a number of particles makes."""
    return math.ceil(particles / BLOCK)
