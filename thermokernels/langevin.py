"""Many overdamped Langevin particles in any potential E(x, theta), in d dimensions with p parameters.

    dx = -mu dE/dx dt + sqrt(2 mu kT) dB                                        (Hnybida & Verret 2025, Eq. 7)

`kernels` compiles the kernels of one potential from three scalar functions, which are inlined into the loops:

``energy(x, theta)``    E; x is a float, or in d > 1 dimensions a tuple of d floats; theta is a tuple of p floats.
``force(x, theta)``     -dE/dx, a float or a tuple of d floats.
``gradient(x, theta)``  dE/dtheta, a tuple of p floats.

Step n is: (1) theta jumps at fixed x, which is work; (2) x relaxes at fixed theta, which is heat.  How it relaxes:

``euler-maruyama``      x' = x + pull f(x) + kick z, with pull = mu dt, kick = sqrt(2 mu kT dt), f the force.
``leimkuhler-matthews`` the same with (z_n + z_n+1) / 2 for z: second order in the law it samples (Leimkuhler &
                        Matthews 2013, Eq. 1.5).
``heun``                y = x + pull f(x) + kick z, x' = x + pull (f(x) + f(y)) / 2 + kick z: weak order two, as the
                        noise is additive (Kloeden & Platen 1992, Sect. 15.1).
``exact``               x' = c + P x + L z, the Ornstein-Uhlenbeck step, for quadratic energies.

What stands in a row of coefficients: pull and kick; for ``exact`` c (d), P (d^2) and L (d^2), row by row.

Arrays that the kernels share:

``x``             float32 or float64, (replicas, d, particles).
``theta``         float64, (replicas, points, p); row n -> n + 1 is the jump of step n.
``coefficients``  float64, (replicas, steps, 2 or d + 2 d^2).
``status``        int64, (replicas, blocks): the first step at which a block left the finite numbers; unchanged where
                  none did.

Replica r draws the noise of dimension k from stream ``stream + r d + k``, at step number ``first + n`` for step n.
Everything but the stored x is computed in float64.
"""

import math

import numpy as np
from numba import prange
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher

from thermokernels._jit import device, kernel, serial_kernel, wide_vectors
from thermokernels.blocks import TASKS, share
from thermokernels.random import BLOCK, LANES, fill_block

INTEGRATORS = ("euler-maruyama", "leimkuhler-matthews", "heun", "exact")
# What `drive` records and `step` sums, block by block; p columns of dE/dtheta follow.
RECORD_COLUMNS = ("work", "work_square", "heat")
STEP_COLUMNS = ("work", "heat")


def kernels(energy, force, gradient, dimension, parameters, integrator, name):
    """The kernels of a potential, compiled at their first call and kept on disk for other processes.

    ``name`` must tell this potential and integrator from all others: it is the kernels' in the cache on disk.  Returns
    four kernels:

    ``evaluate(x, theta, values)``
        E, force and dE/dtheta of every particle at theta (replicas, p); ``values`` is float64 (replicas, 1 + d + p,
        particles).
    ``drive(x, work, heat, first, coefficients, theta, seed, stream, rows_to_record, record, status)``
        Open loop.  ``work``, ``heat`` float64 (replicas, particles), each particle's own so far, updated.
        ``rows_to_record`` intp, ascending steps; ``record`` float64 (rows, replicas, blocks, 3 + p), sums over each
        block after the step: ``RECORD_COLUMNS`` and dE/dtheta.  A block stays in cache for all its steps.
    ``step(x, first, coefficients, theta, seed, stream, sums, status)``
        The same for closed loops, which need one step at a time and no work of single particles: one row of
        coefficients; ``theta`` (replicas, 3, p) before the jump, after it, and where dE/dtheta is wanted.  ``sums``
        float64 (replicas, blocks, 2 + p), written: the work and the heat of this step, and dE/dtheta after it.
    ``dwell(x, first, coefficients, theta, seed, stream, sums, status)``
        Stays at theta (replicas, 1, p) for as many steps as there are coefficients, or for all steps at one row of
        them; ``sums`` float64 (replicas, p, particles), to which dE/dtheta after each step is added.
    """
    mine = Builder(energy, force, gradient, dimension, parameters, integrator, name)
    return mine.evaluate(), mine.drive(), mine.step(), mine.dwell()


class Builder:
    """Device functions of one potential, and the kernels around them.

    A block of particles is worked on in a scratch array, in which dimension k of x lies at ``k * BLOCK``: with all
    offsets known to the compiler the loops vectorise without asking whether arrays overlap.
    """

    def __init__(self, energy, force, gradient, dimension, parameters, integrator, name):
        self.name = name
        self.energy, self.force, self.gradient = (device_of(function) for function in (energy, force, gradient))
        self.dimension, self.parameters = dimension, parameters
        self.averages = integrator == "leimkuhler-matthews"
        d, p = dimension, parameters
        columns = d + 2 * d * d if integrator == "exact" else 2
        self.load = _unrolled("s, i", [f"s[{k * BLOCK} + i]" for k in range(d)], d)
        self.store = _stores(d, 0)
        self.store_force = _stores(d, d * BLOCK)
        self.store_gradient = _stores(p, d * BLOCK, scalar=False)
        self.theta_of = _unrolled("row", [f"row[{j}]" for j in range(p)], 0)
        self.coefficients_of = _unrolled("row", [f"row[{j}]" for j in range(columns)], 0)
        self.relaxed = _relaxed(integrator, d, self.force)

    def finish(self, function, compiled=kernel):
        """Compiles a kernel under a name of its own, which makes its symbols and its files in the cache its own."""
        function.__qualname__ = f"{function.__name__}-{self.name}"
        dispatcher = compiled(function)
        dispatcher._cache = _Cache(function)
        return dispatcher

    def noise(self):
        """Fills the noise of one step; ``last`` keeps what the next step shares with this one."""
        dimension, averages = self.dimension, self.averages

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

    def copies(self):
        dimension = self.dimension

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

    def evaluate(self):
        energy, force, gradient = self.energy, self.force, self.gradient
        load, store_force, store_gradient, theta_of = self.load, self.store_force, self.store_gradient, self.theta_of
        take_block, _ = self.copies()
        d, p = self.dimension, self.parameters

        @device
        def evaluate_block(s, count, row):
            wide_vectors()
            theta = theta_of(row)
            for i in range(count):
                here = load(s, i)
                s[(2 * d + p) * BLOCK + i] = energy(here, theta)
                store_gradient(s, i, gradient(here, theta))
                store_force(s[p * BLOCK :], i, force(here, theta))

        # Serial: most calls are about few points, and threads take longer to start than those take.
        def evaluate(x, theta, values):
            replicas, _, particles = x.shape
            s = np.empty((2 * d + p + 1) * BLOCK)
            for r in range(replicas):
                for begin in range(0, particles, BLOCK):
                    count = min(BLOCK, particles - begin)
                    take_block(s, x[r], begin)
                    evaluate_block(s, count, theta[r])
                    values[r, 0, begin : begin + count] = s[(2 * d + p) * BLOCK : (2 * d + p) * BLOCK + count]
                    for k in range(d):
                        at = (d + p + k) * BLOCK
                        values[r, 1 + k, begin : begin + count] = s[at : at + count]
                    for j in range(p):
                        values[r, 1 + d + j, begin : begin + count] = s[(d + j) * BLOCK : (d + j) * BLOCK + count]

        return self.finish(evaluate, serial_kernel)

    def drive(self):
        energy, gradient, relaxed = self.energy, self.gradient, self.relaxed
        load, store, store_gradient = self.load, self.store, self.store_gradient
        theta_of, coefficients_of = self.theta_of, self.coefficients_of
        take_block, put_block = self.copies()
        begin_noise, fill_noise = self.noise()
        d, p = self.dimension, self.parameters
        work_at, heat_at = (d + p) * BLOCK, (d + p + 1) * BLOCK

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

        def drive(x, work, heat, first, coefficients, theta, seed, stream, rows_to_record, record, status):
            replicas, _, particles = x.shape
            blocks = (particles + BLOCK - 1) // BLOCK
            for task in prange(TASKS):
                rows = np.empty((2, LANES), np.uint64)
                noise, last = np.empty((d, BLOCK), np.float32), np.empty((d, BLOCK), np.float32)
                s = np.empty((d + p + 2) * BLOCK)
                for turn in share(task, replicas * blocks):
                    r, block = turn // blocks, turn % blocks
                    begin = block * BLOCK
                    count = min(BLOCK, particles - begin)
                    mine = stream + np.uint64(r) * np.uint64(d)
                    take_block(s, x[r], begin)
                    s[work_at : work_at + count] = work[r, begin : begin + count]
                    s[heat_at : heat_at + count] = heat[r, begin : begin + count]
                    begin_noise(last, rows, seed, mine, block, first)
                    row = 0
                    for n in range(coefficients.shape[1]):
                        fill_noise(noise, last, rows, seed, mine, block, first + n)
                        total = advance_block(
                            s, count, noise, theta[r, n], theta[r, n + 1], coefficients[r, n], x.dtype.type(1)
                        )
                        if not np.isfinite(total) and status[r, block] < 0:
                            status[r, block] = first + n
                        if row < rows_to_record.size and rows_to_record[row] == n:
                            record_block(s, count, theta[r, n + 1], record[row, r, block])
                            row += 1
                    put_block(s, x[r], begin)
                    work[r, begin : begin + count] = s[work_at : work_at + count]
                    heat[r, begin : begin + count] = s[heat_at : heat_at + count]

        return self.finish(drive)

    def step(self):
        energy, gradient, relaxed = self.energy, self.gradient, self.relaxed
        load, store, store_gradient = self.load, self.store, self.store_gradient
        theta_of, coefficients_of = self.theta_of, self.coefficients_of
        take_block, put_block = self.copies()
        begin_noise, fill_noise = self.noise()
        d, p = self.dimension, self.parameters

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

        def step(x, first, coefficients, theta, seed, stream, sums, status):
            replicas, _, particles = x.shape
            blocks = (particles + BLOCK - 1) // BLOCK
            for task in prange(TASKS):
                rows = np.empty((2, LANES), np.uint64)
                noise, last = np.empty((d, BLOCK), np.float32), np.empty((d, BLOCK), np.float32)
                s = np.empty((d + p) * BLOCK)
                for turn in share(task, replicas * blocks):
                    r, block = turn // blocks, turn % blocks
                    begin = block * BLOCK
                    count = min(BLOCK, particles - begin)
                    mine = stream + np.uint64(r) * np.uint64(d)
                    take_block(s, x[r], begin)
                    begin_noise(last, rows, seed, mine, block, first)
                    fill_noise(noise, last, rows, seed, mine, block, first)
                    step_block(s, count, noise, theta[r], coefficients[r, 0], x.dtype.type(1), sums[r, block])
                    if not np.isfinite(sums[r, block, 1]) and status[r, block] < 0:
                        status[r, block] = first
                    put_block(s, x[r], begin)

        return self.finish(step)

    def dwell(self):
        gradient, relaxed = self.gradient, self.relaxed
        load, store, store_gradient = self.load, self.store, self.store_gradient
        theta_of, coefficients_of = self.theta_of, self.coefficients_of
        take_block, put_block = self.copies()
        begin_noise, fill_noise = self.noise()
        d, p = self.dimension, self.parameters

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

        def dwell(x, first, coefficients, theta, seed, stream, sums, status):
            replicas, _, particles = x.shape
            blocks = (particles + BLOCK - 1) // BLOCK
            for task in prange(TASKS):
                rows = np.empty((2, LANES), np.uint64)
                noise, last = np.empty((d, BLOCK), np.float32), np.empty((d, BLOCK), np.float32)
                s = np.empty((d + 2 * p) * BLOCK)
                for turn in share(task, replicas * blocks):
                    r, block = turn // blocks, turn % blocks
                    begin = block * BLOCK
                    count = min(BLOCK, particles - begin)
                    mine = stream + np.uint64(r) * np.uint64(d)
                    take_block(s, x[r], begin)
                    for j in range(p):
                        at = (d + p + j) * BLOCK
                        s[at : at + count] = sums[r, j, begin : begin + count]
                    begin_noise(last, rows, seed, mine, block, first)
                    for n in range(coefficients.shape[1]):
                        fill_noise(noise, last, rows, seed, mine, block, first + n)
                        total = dwell_block(s, count, noise, theta[r, 0], coefficients[r, n], x.dtype.type(1))
                        if not np.isfinite(total) and status[r, block] < 0:
                            status[r, block] = first + n
                    put_block(s, x[r], begin)
                    for j in range(p):
                        at = (d + p + j) * BLOCK
                        sums[r, j, begin : begin + count] = s[at : at + count]

        return self.finish(dwell)


def device_of(function):
    """The function under the flags of this package, whatever a user compiled it with."""
    return device(function.py_func if isinstance(function, Dispatcher) else function)


def _unrolled(arguments, elements, dimension):
    """A device function that returns these expressions: as a tuple, or the only one if ``dimension`` is one.

    Written out, since a loop over a tuple of run-time index would go through memory.
    """
    result = elements[0] if dimension == 1 else f"({''.join(element + ', ' for element in elements)})"
    return _compiled(f"def function({arguments}):\n    return {result}\n")


def _stores(count, offset, scalar=True):
    """A device function that writes ``values`` to scratch; x itself is rounded to the type of ``unit``."""
    lines = []
    for k in range(count):
        value = "values" if scalar and count == 1 else f"values[{k}]"
        rounded = f"type(unit)({value})" if offset == 0 else value
        lines.append(f"    s[{offset + k * BLOCK} + i] = {rounded}\n")
    arguments = "s, i, values, unit" if offset == 0 else "s, i, values"
    return _compiled(f"def function({arguments}):\n{''.join(lines)}")


def _relaxed(integrator, d, force):
    """The device function of one relaxation: (x, theta, coefficients, noise, i) -> x'."""
    x = ["x"] if d == 1 else [f"x[{k}]" for k in range(d)]
    f, g = (["f"], ["g"]) if d == 1 else ([f"f[{k}]" for k in range(d)], [f"g[{k}]" for k in range(d)])
    if integrator == "exact":
        rows = []
        for k in range(d):
            terms = [f"c[{k}]"]
            for j in range(d):
                terms += [f"c[{d + k * d + j}] * {x[j]}", f"c[{d + d * d + k * d + j}] * noise[{j}, i]"]
            rows.append(" + ".join(terms))
        return _unrolled("x, theta, c, noise, i", rows, d)
    plain = _unrolled("x, f, c, noise, i", [f"{x[k]} + (c[0] * {f[k]} + c[1] * noise[{k}, i])" for k in range(d)], d)
    if integrator != "heun":
        return device(lambda x, theta, c, noise, i: plain(x, force(x, theta), c, noise, i))
    mean = _unrolled("f, g", [f"0.5 * ({f[k]} + {g[k]})" for k in range(d)], d)

    @device
    def heun(x, theta, c, noise, i):
        here = force(x, theta)
        there = force(plain(x, here, c, noise, i), theta)
        return plain(x, mean(here, there), c, noise, i)

    return heun


def _compiled(source):
    space = {}
    exec(source, space)
    return device(space["function"])


class _Cache(FunctionCache):
    """Numba's cache on disk, for kernels whose name says all that they close over.

    Numba's own key hashes the pickled closure, and dispatchers pickle differently in every process.
    """

    def _index_key(self, sig, codegen):
        return sig, codegen.magic_tuple()

    def load_overload(self, sig, target_context):
        """What is stored, or None: also where a user's module has moved, and the stored code cannot find it."""
        try:
            return super().load_overload(sig, target_context)
        except ImportError:
            return None


def blocks_of(particles):
    """How many blocks so many particles make."""
    return math.ceil(particles / BLOCK)
