"""Correlations of the forces dE/dtheta along trajectories at fixed theta, over windows that double.

A trajectory is cut into segments of equal length, and pairs of neighbouring segments are joined level by level, as in
the blocking method of Flyvbjerg & Petersen (J. Chem. Phys. 91, 461, 1989).  With J_k the integral of G = dE/dtheta -
centre over segment k, by the trapezoid rule,

    <J_k J_k> / 2 + <J_k J_(k+1)>  =  s * integral of w(t) <G(0) G(t)> dt,    w = 1 up to s, then falling to 0 at 2 s,

for segments of length s, since in equilibrium the correlation is the same for both orders in time.  So each level
gives the correlation integral cut off between s and 2 s, and uses every instant of the trajectory as an origin.
"""

import numpy as np
from numba import prange

from thermokernels._jit import device, wide_vectors
from thermokernels.blocks import TASKS, Place, place, share
from thermokernels.langevin import Builder
from thermokernels.random import BLOCK

# Segments of the highest level in a trajectory.
TOP = 4


def correlate(energy, force, gradient, dimension, parameters, integrator, name, domain=()):
    """The kernel of a potential; functions, ``name`` and ``domain`` are those of ``langevin.kernels``.

    ``correlate(x, coefficients, theta, centre, segment, noise, first, sums, means, status)``

    ``x``             (replicas, d, particles), in equilibrium; moved on by TOP 2^(levels - 1) segments.
    ``coefficients``  float64 (replicas, 1, columns), one row for all steps.
    ``theta``         float64 (replicas, p), ``centre`` float64 (replicas, p): about the mean of dE/dtheta.
    ``segment``       steps of a segment of level 0.
    ``sums``          float64 (replicas, blocks, levels, 2, p, p), written: sums over the particles of a block and over
                      the segments of a level of J_k J_k and of J_k J_(k+1), made symmetric; time counts in steps.
    ``means``         float64 (replicas, blocks, 2 + p, p), written: sums over particles of G at the start, of J_k over
                      all segments of level 0, and of G G^T at the start, before a time step changes the distribution.
    ``status``        as in ``langevin``: the first step of the segment in which a block diverged.

    Replica r draws its noise from streams ``stream + r d`` and following, from step number 0.  ``first`` is the number
    there of the first block of ``x``, which may hold some of an ensemble's blocks alone.
    """
    builder = Builder(energy, force, gradient, dimension, parameters, integrator, name, domain)
    p, columns = parameters, dimension + 2 * parameters
    room, enter, draw, leave = builder.frame(columns)
    advance_block, begin_block, end_segment = _advance(builder), _begin(builder), _end(builder)
    add_block, join_block = _levels(p)

    @device
    def join_levels(k, carry, before, count, sums):
        """Adds segment ``k`` to the sums of level 0, and joins it with the one before it as far up as pairs go."""
        level, number = 0, k
        while level < sums.shape[0]:
            add_block(carry, before[level], count, number == 0, sums[level])
            if number % 2 == 0:
                for j in range(p):
                    for i in range(count):
                        before[level, j, i] = carry[j, i]
                break
            join_block(carry, before[level], count)
            level, number = level + 1, number // 2

    def correlate(x, coefficients, theta, centre, segment, noise, first, sums, means, status):
        replicas, blocks, levels = sums.shape[:3]
        sums[:] = 0.0
        means[:] = 0.0
        for task in prange(TASKS):
            s, normals, last, rows = room()
            carry, before = np.empty((p, BLOCK)), np.empty((levels, p, BLOCK))
            for unit in share(task, replicas * blocks):
                r, block = unit // blocks, unit % blocks
                here = place(unit, blocks, x.shape[2])
                at, count = Place(r, first + block, here.begin, here.count), here.count
                enter(s, last, rows, x, noise, at, 0)
                begin_block(s, count, theta[r], centre[r], means[r, block])
                for k in range(TOP << (levels - 1)):
                    for n in range(k * segment, (k + 1) * segment):
                        draw(normals, last, rows, noise, at, n)
                        advance_block(s, count, normals, theta[r], coefficients[r, 0], x.dtype.type(1))
                    whole = end_segment(s, count, segment, centre[r], carry, means[r, block])
                    if not np.isfinite(whole):
                        status[r, block] = k * segment
                        break
                    join_levels(k, carry, before, count, sums[r, block])
                leave(s, x, at)

    return builder.finish(correlate)


def _advance(builder):
    relaxed, load, store, store_gradient = builder.relaxed, builder.load, builder.store, builder.store_gradient
    theta_of, coefficients_of, gradient = builder.theta_of, builder.coefficients_of, builder.gradient
    d, p = builder.dimension, builder.parameters
    gradient_at, total_at = d * BLOCK, (d + p) * BLOCK

    @device
    def advance_block(s, count, noise, row, coefficient_row, unit):
        """One step; adds dE/dtheta after it to the totals of the segment."""
        wide_vectors()
        theta, coefficients = theta_of(row), coefficients_of(coefficient_row)
        for i in range(count):
            store(s, i, relaxed(load(s, i), theta, coefficients, noise, i), unit)
            store_gradient(s, i, gradient(load(s, i), theta))
        for j in range(p):
            for i in range(count):
                s[total_at + j * BLOCK + i] += s[gradient_at + j * BLOCK + i]

    return advance_block


def _begin(builder):
    load, store_gradient, gradient, theta_of = builder.load, builder.store_gradient, builder.gradient, builder.theta_of
    d, p = builder.dimension, builder.parameters
    gradient_at, total_at = d * BLOCK, (d + p) * BLOCK

    @device
    def begin_block(s, count, row, centre, means):
        """The means at the start, and the first half step of the trapezoid rule."""
        wide_vectors()
        theta = theta_of(row)
        for i in range(count):
            store_gradient(s, i, gradient(load(s, i), theta))
        for j in range(p):
            mean = 0.0
            for i in range(count):
                mean += s[gradient_at + j * BLOCK + i] - centre[j]
                s[total_at + j * BLOCK + i] = 0.5 * s[gradient_at + j * BLOCK + i]
            means[0, j] = mean
            for k in range(p):
                product = 0.0
                for i in range(count):
                    product += (s[gradient_at + j * BLOCK + i] - centre[j]) * (
                        s[gradient_at + k * BLOCK + i] - centre[k]
                    )
                means[2 + j, k] = product

    return begin_block


def _end(builder):
    d, p = builder.dimension, builder.parameters
    gradient_at, total_at = d * BLOCK, (d + p) * BLOCK

    @device
    def end_segment(s, count, segment, centre, carry, means):
        """Hands the integrals of a segment over and begins the next; returns their sum."""
        wide_vectors()
        whole = 0.0
        for j in range(p):
            integrals, total = carry[j], 0.0
            for i in range(count):
                half = 0.5 * s[gradient_at + j * BLOCK + i]
                integrals[i] = s[total_at + j * BLOCK + i] - half - segment * centre[j]
                s[total_at + j * BLOCK + i] = half
                total += integrals[i]
            means[1, j] += total
            whole += total
        return whole

    return end_segment


def _levels(p):
    @device
    def add_block(carry, before, count, first, sums):
        """Adds a segment, with the one before it, to the sums of its level."""
        wide_vectors()
        for j in range(p):
            for k in range(j + 1):
                mine, other, last, other_last = carry[j], carry[k], before[j], before[k]
                square = follow = 0.0
                for i in range(count):
                    square += mine[i] * other[i]
                if not first:
                    for i in range(count):
                        follow += mine[i] * other_last[i] + other[i] * last[i]
                sums[0, j, k] += square
                sums[1, j, k] += 0.5 * follow
                if k < j:
                    sums[0, k, j] += square
                    sums[1, k, j] += 0.5 * follow

    @device
    def join_block(carry, before, count):
        """Carries the sum of a pair up, and keeps its second segment."""
        wide_vectors()
        for j in range(p):
            mine, last = carry[j], before[j]
            for i in range(count):
                second = mine[i]
                mine[i] += last[i]
                last[i] = second

    return add_block, join_block
