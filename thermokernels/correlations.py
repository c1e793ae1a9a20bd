"""Correlations of the forces dE/dtheta along trajectories at fixed theta, over windows that double.

A trajectory is cut into stretches of equal length, and pairs of neighbouring stretches are joined level by level, as in
the blocking method of Flyvbjerg & Petersen (J. Chem. Phys. 91, 461, 1989).  With J_k the integral of G = dE/dtheta -
centre over stretch k, by the trapezoid rule,

    <J_k J_k> / 2 + <J_k J_(k+1)>  =  s * integral of w(t) <G(0) G(t)> dt,    w = 1 up to s, then falling to 0 at 2 s,

for stretches of length s, since in equilibrium the correlation is the same for both orders in time.  So each level
gives the correlation integral cut off between s and 2 s, and uses every instant of the trajectory as an origin.
"""

import numpy as np
from numba import prange

from thermokernels._jit import device, wide_vectors
from thermokernels.blocks import TASKS, share
from thermokernels.langevin import Builder
from thermokernels.random import BLOCK, LANES

# Stretches of the highest level in a trajectory.
TOP = 4
# What a level sums, for each pair of parameters.
SQUARE, NEXT = range(2)


def correlate(energy, force, gradient, dimension, parameters, integrator, name):
    """The kernel of a potential; functions and ``name`` are those of ``ensemble.kernels``.

    ``correlate(x, coefficients, theta, centre, stretch, seed, stream, sums, means, status)``

    ``x``             (replicas, d, particles), in equilibrium; moved on by TOP 2^(levels - 1) stretches.
    ``coefficients``  float64 (replicas, 1, columns), one row for all steps.
    ``theta``         float64 (replicas, p), ``centre`` float64 (replicas, p): about the mean of dE/dtheta.
    ``stretch``       steps of a stretch of level 0.
    ``sums``          float64 (replicas, blocks, levels, 2, p, p), written: sums over the particles of a block and over
                      the stretches of a level of J_k J_k and of J_k J_(k+1), made symmetric; time counts in steps.
    ``means``         float64 (replicas, blocks, 2 + p, p), written: sums over particles of G at the start, of J_k over
                      all stretches of level 0, and of G G^T at the start, where no time step has changed the law.
    ``status``        as in ``ensemble``: the step at whose stretch a block left the finite numbers.

    Replica r draws its noise from streams ``stream + r d`` and following, from step number 0.
    """
    builder = Builder(energy, force, gradient, dimension, parameters, integrator, name)
    relaxed, load, store, store_gradient = builder.relaxed, builder.load, builder.store, builder.store_gradient
    theta_of, coefficients_of = builder.theta_of, builder.coefficients_of
    take_block, put_block = builder.copies()
    begin_noise, fill_noise = builder.noise()
    gradient = builder.gradient
    d, p = dimension, parameters
    slope_at, total_at = d * BLOCK, (d + p) * BLOCK

    @device
    def advance_block(s, count, noise, row, coefficient_row, unit):
        wide_vectors()
        theta, coefficients = theta_of(row), coefficients_of(coefficient_row)
        for i in range(count):
            store(s, i, relaxed(load(s, i), theta, coefficients, noise, i), unit)
            store_gradient(s, i, gradient(load(s, i), theta))
        for j in range(p):
            for i in range(count):
                s[total_at + j * BLOCK + i] += s[slope_at + j * BLOCK + i]

    @device
    def begin_block(s, count, row, centre, means):
        wide_vectors()
        theta = theta_of(row)
        for i in range(count):
            store_gradient(s, i, gradient(load(s, i), theta))
        for j in range(p):
            mean = 0.0
            for i in range(count):
                mean += s[slope_at + j * BLOCK + i] - centre[j]
                s[total_at + j * BLOCK + i] = 0.5 * s[slope_at + j * BLOCK + i]
            means[0, j] = mean
            for k in range(p):
                product = 0.0
                for i in range(count):
                    product += (s[slope_at + j * BLOCK + i] - centre[j]) * (s[slope_at + k * BLOCK + i] - centre[k])
                means[2 + j, k] = product

    @device
    def end_stretch(s, count, stretch, centre, carry, means):
        """Hands the integrals of a stretch over and begins the next; returns their sum."""
        wide_vectors()
        whole = 0.0
        for j in range(p):
            integrals, total = carry[j], 0.0
            for i in range(count):
                half = 0.5 * s[slope_at + j * BLOCK + i]
                integrals[i] = s[total_at + j * BLOCK + i] - half - stretch * centre[j]
                s[total_at + j * BLOCK + i] = half
                total += integrals[i]
            means[1, j] += total
            whole += total
        return whole

    @device
    def add_block(carry, before, count, first, sums):
        """Adds a stretch, with the one before it, to the sums of its level."""
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
    def keep_block(carry, before, count):
        for j in range(p):
            for i in range(count):
                before[j, i] = carry[j, i]

    @device
    def join_block(carry, before, count):
        """Carries the sum of a pair up, and keeps its second stretch."""
        wide_vectors()
        for j in range(p):
            mine, last = carry[j], before[j]
            for i in range(count):
                second = mine[i]
                mine[i] += last[i]
                last[i] = second

    def correlate(x, coefficients, theta, centre, stretch, seed, stream, sums, means, status):
        replicas, _, particles = x.shape
        blocks, levels = sums.shape[1:3]
        sums[:] = 0.0
        means[:] = 0.0
        for task in prange(TASKS):
            rows = np.empty((2, LANES), np.uint64)
            noise, last = np.empty((d, BLOCK), np.float32), np.empty((d, BLOCK), np.float32)
            s = np.empty((d + 2 * p) * BLOCK)
            carry, before = np.empty((p, BLOCK)), np.empty((levels, p, BLOCK))
            for turn in share(task, replicas * blocks):
                r, block = turn // blocks, turn % blocks
                begin = block * BLOCK
                count = min(BLOCK, particles - begin)
                mine = stream + np.uint64(r) * np.uint64(d)
                take_block(s, x[r], begin)
                begin_block(s, count, theta[r], centre[r], means[r, block])
                begin_noise(last, rows, seed, mine, block, 0)
                for k in range(TOP << (levels - 1)):
                    for n in range(k * stretch, (k + 1) * stretch):
                        fill_noise(noise, last, rows, seed, mine, block, n)
                        advance_block(s, count, noise, theta[r], coefficients[r, 0], x.dtype.type(1))
                    whole = end_stretch(s, count, stretch, centre[r], carry, means[r, block])
                    if not np.isfinite(whole):
                        status[r, block] = k * stretch
                        break
                    level, place = 0, k
                    while level < levels:
                        add_block(carry, before[level], count, place == 0, sums[r, block, level])
                        if place % 2 == 0:
                            keep_block(carry, before[level], count)
                            break
                        join_block(carry, before[level], count)
                        level, place = level + 1, place // 2
                put_block(s, x[r], begin)

    return builder.finish(correlate)
