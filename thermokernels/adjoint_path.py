"""Gradients through the noise: how a mean at the end of a driven ensemble changes with every theta on its path.

The steps are those of `langevin`.  With W the work, R one relaxation, x_n+1 = R(x_n, theta_n+1, z_n), and an objective
J(x_N, W), the discrete adjoint lambda_n = dJ/dx_n runs backwards,

    lambda_n       = (dR/dx)^T lambda_n+1 + omega (dE/dx(x_n, theta_n+1) - dE/dx(x_n, theta_n)),    omega = dJ/dW,
    dJ/dtheta_n+1 += (dR/dtheta)^T lambda_n+1 + omega dE/dtheta(x_n, theta_n+1),
    dJ/dtheta_n   -= omega dE/dtheta(x_n, theta_n),

and is exact for the steps that are taken, whatever their size.  The matrices of second derivatives are symmetric, so
that their products with lambda are derivatives along lambda, of the force and of dE/dtheta: no matrix is ever made.

Forward, one state in ``stride`` steps is kept.  Backward, the states between two of them are found again, block by
block, from noise that is drawn again by its address.  With a stride of sqrt(steps) that takes the memory of sqrt(steps)
states of the ensemble, and of as many states and normals of a single block for each thread.
"""

from functools import cache

import numpy as np
from numba import prange

from thermokernels._jit import device, device_of, wide_vectors
from thermokernels.blocks import TASKS, place, share
from thermokernels.integrators import folding, stores, unrolled
from thermokernels.langevin import Builder, report
from thermokernels.products import copy
from thermokernels.random import BLOCK

# Those whose steps have an adjoint here: Leimkuhler and Matthews' noise goes on from step to step.
INTEGRATORS = ("euler-maruyama", "heun", "exact")


def kernels(functions, along, dimension, parameters, integrator, name, domain=()):
    """The two kernels of a potential; ``functions`` are energy, force and gradient, as ``langevin.kernels`` takes them.

    ``along`` are the derivatives along v of the last two, ``along(x, theta, v)``: a float or a tuple of d floats, and
    a tuple of p floats.  Arrays are those of `langevin`, of one replica; ``name`` as there.

    ``forward(x, work, first, coefficients, theta, noise, kept, status)``
        Takes ``x`` (1, d, particles) along the path; ``work`` float64 (1, particles) is updated.  ``kept`` (states, d,
        particles), of the dtype of x: the positions before steps 0, stride, 2 stride, ...; the stride is the least with
        which so many states hold all steps.
    ``backward(kept, slope, weight, first, coefficients, theta, noise, sums)``
        ``slope`` float64 (1, d, particles): dJ/dx at the end, on return at the start.  ``weight`` float64 (1,
        particles): dJ/dW.  ``sums`` float64 (TASKS, steps + 1, p), written: dJ/dtheta, in parts that belong to each
        task's particles.  For ``exact`` it has d + 2 d^2 columns more, dJ by the coefficients of step n in row n + 1:
        there dJ/dtheta lacks what goes through them.
    """
    builder = Builder(*functions, dimension, parameters, integrator, name, domain)
    return _forward(builder), _backward(builder, along, integrator, domain)


@device
def _stride(states, steps):
    return (steps + states - 1) // states


def _forward(builder):
    energy, relaxed, load, store = builder.energy, builder.relaxed, builder.load, builder.store
    theta_of, coefficients_of = builder.theta_of, builder.coefficients_of
    d = builder.dimension
    room, enter, draw, leave = builder.frame(d + 1)
    work_at = d * BLOCK

    @device
    def advance_block(s, count, noise, old_row, new_row, coefficient_row, unit):
        wide_vectors()
        old, new, coefficients = theta_of(old_row), theta_of(new_row), coefficients_of(coefficient_row)
        total = 0.0
        for i in range(count):
            here = load(s, i)
            work = energy(here, new) - energy(here, old)
            store(s, i, relaxed(here, new, coefficients, noise, i), unit)
            s[work_at + i] += work
            total += work
        return total

    def forward(x, work, first, coefficients, theta, noise, kept, status):
        steps, blocks = coefficients.shape[1], status.shape[1]
        stride = _stride(kept.shape[0], steps)
        for task in prange(TASKS):
            s, normals, last, rows = room()
            for unit in share(task, blocks):
                at = place(unit, blocks, x.shape[2])
                particles = slice(at.begin, at.begin + at.count)
                enter(s, last, rows, x, noise, at, first)
                copy(s[work_at:], work[0, particles])
                for n in range(steps):
                    if n % stride == 0:
                        for k in range(d):
                            keep(kept[n // stride, k, particles], s[k * BLOCK :])
                    draw(normals, last, rows, noise, at, first + n)
                    total = advance_block(
                        s, at.count, normals, theta[0, n], theta[0, n + 1], coefficients[0, n], x.dtype.type(1)
                    )
                    report(total, status, at, first + n)
                leave(s, x, at)
                copy(work[0, particles], s[work_at:][: at.count])

    return builder.finish(forward)


@device
def keep(target, source):
    for i in range(target.size):
        target[i] = source[i]


@device
def take(target, source):
    for i in range(source.size):
        target[i] = np.float64(source[i])


def _backward(builder, along, integrator, domain):
    relaxed, load, store = builder.relaxed, builder.load, builder.store
    theta_of, coefficients_of = builder.theta_of, builder.coefficients_of
    d, p = builder.dimension, builder.parameters
    room, _, draw, _ = builder.frame(2 * d + 1 + p)
    slope_at, weight_at, carry_at = (column * BLOCK for column in _columns(d))
    back_block, by_coefficients = _back(builder, along, integrator, domain), _by_coefficients(d)
    exact = integrator == "exact"
    looks_back = exact or integrator == "heun" or not all(side[2] for side in domain)

    @device
    def relax_block(s, count, noise, row, coefficient_row, unit):
        wide_vectors()
        theta, coefficients = theta_of(row), coefficients_of(coefficient_row)
        for i in range(count):
            store(s, i, relaxed(load(s, i), theta, coefficients, noise, i), unit)

    def backward(kept, slope, weight, first, coefficients, theta, noise, sums):
        steps, particles = coefficients.shape[1], slope.shape[2]
        blocks = (particles + BLOCK - 1) // BLOCK
        stride = _stride(kept.shape[0], steps)
        unit_of = kept.dtype.type(1)
        sums[:] = 0.0
        for task in prange(TASKS):
            s, _, last, rows = room()
            path, normals = np.empty((stride, d * BLOCK)), np.empty((stride, d, BLOCK), np.float32)
            for unit in share(task, blocks):
                at = place(unit, blocks, particles)
                count, mine = at.count, slice(at.begin, at.begin + at.count)
                for k in range(d):
                    copy(s[slope_at + k * BLOCK :], slope[0, k, mine])
                copy(s[weight_at:], weight[0, mine])
                for i in range(p * BLOCK):
                    s[carry_at + i] = 0.0
                for state in range((steps + stride - 1) // stride - 1, -1, -1):
                    begin, end = state * stride, min(steps, (state + 1) * stride)
                    for k in range(d):
                        take(s[k * BLOCK :], kept[state, k, mine])
                    for n in range(begin, end):
                        copy(path[n - begin], s[: d * BLOCK])
                        if n < end - 1 or looks_back:
                            draw(normals[n - begin], last, rows, noise, at, first + n)
                        if n < end - 1:
                            relax_block(s, count, normals[n - begin], theta[0, n + 1], coefficients[0, n], unit_of)
                    for n in range(end - 1, begin - 1, -1):
                        copy(s, path[n - begin])
                        own = sums[task, n + 1]
                        if exact:
                            by_coefficients(s, count, normals[n - begin], own[p:])
                        back_block(s, count, normals[n - begin], theta[0, n], theta[0, n + 1], coefficients[0, n], own)
                for j in range(p):
                    for i in range(count):
                        sums[task, 0, j] += s[carry_at + j * BLOCK + i]
                for k in range(d):
                    copy(slope[0, k, mine], s[slope_at + k * BLOCK :][:count])

    return builder.finish(backward)


def _columns(d):
    """Where lambda, omega, and what the step after adds to dJ/dtheta lie in a block's scratch, behind x."""
    return d, 2 * d, 2 * d + 1


def _back(builder, along, integrator, domain):
    """The device function of one step backwards, of a block; adds its dJ/dtheta to ``sums``."""
    force, gradient, load = builder.force, builder.gradient, builder.load
    theta_of, coefficients_of = builder.theta_of, builder.coefficients_of
    d, p = builder.dimension, builder.parameters
    slope_at, weight_at, carry_at = (column * BLOCK for column in _columns(d))
    load_slope = unrolled("s, i", [f"s[{slope_at + k * BLOCK} + i]" for k in range(d)], d)
    load_carry = unrolled("s, i", [f"s[{carry_at + j * BLOCK} + i]" for j in range(p)], 0)
    store_slope, store_carry = stores(d, slope_at), stores(p, carry_at, False)
    back = adjoint(integrator, d, p, force, along, domain)
    x, y, z = (([name] if d == 1 else [f"{name}[{k}]" for k in range(d)]) for name in "xyz")
    with_work = unrolled("x, w, y, z", [f"{x[k]} - w * ({y[k]} - {z[k]})" for k in range(d)], d)
    total = unrolled("x, y, w, z, u", [f"x[{j}] + (y[{j}] + w * z[{j}] + u[{j}])" for j in range(p)], 0)
    minus = unrolled("w, y", [f"-w * y[{j}]" for j in range(p)], 0)
    none = (0.0,) * p

    @device
    def back_block(s, count, noise, old_row, new_row, coefficient_row, sums):
        wide_vectors()
        old, new, coefficients = theta_of(old_row), theta_of(new_row), coefficients_of(coefficient_row)
        found = none
        for i in range(count):
            here, slope, weight = load(s, i), load_slope(s, i), s[weight_at + i]
            before, by_theta = back(here, new, coefficients, noise, i, slope)
            found = total(found, by_theta, weight, gradient(here, new), load_carry(s, i))
            store_slope(s, i, with_work(before, weight, force(here, new), force(here, old)))
            store_carry(s, i, minus(weight, gradient(here, old)))
        for j in range(p):
            sums[j] += found[j]

    return back_block


def adjoint(integrator, d, p, force, along, domain):
    """The device function of one relaxation backwards: (x, theta, coefficients, noise, i, v) -> two products with v.

    v is dJ/dx after the step; the products are (dR/dx)^T v, and (dR/dtheta)^T v as a tuple: zeros for ``exact``, where
    it goes through the coefficients.
    """
    force_along, gradient_along = map(device_of, along)
    v, x, y = (([name] if d == 1 else [f"{name}[{k}]" for k in range(d)]) for name in "vxy")
    if integrator == "exact":
        rows = [" + ".join(f"c[{d + j * d + k}] * {v[j]}" for j in range(d)) for k in range(d)]
        transposed, none = unrolled("c, v", rows, d), (0.0,) * p
        return device(lambda x, theta, c, noise, i, v: (transposed(c, v), none))
    image, mirror, turned = folding(d, domain)
    moved = unrolled("x, y, c, noise, i", [f"{x[k]} + (c[0] * {y[k]} + c[1] * noise[{k}, i])" for k in range(d)], d)
    plus = unrolled("x, w, y", [f"{x[k]} + w * {y[k]}" for k in range(d)], d)
    times = unrolled("w, x", [f"w * {x[k]}" for k in range(d)], d)
    less = unrolled("w, x", [f"-w * x[{j}]" for j in range(p)], 0)
    less_two = unrolled("x, y", [f"-x[{j}] - y[{j}]" for j in range(p)], 0)

    if integrator == "euler-maruyama":

        @device
        def euler(x, theta, c, noise, i, v):
            v = turned(mirror(moved(x, force(x, theta), c, noise, i)), v)
            return plus(v, c[0], force_along(x, theta, v)), less(c[0], gradient_along(x, theta, v))

        return euler

    mean = unrolled("x, y", [f"0.5 * ({x[k]} + {y[k]})" for k in range(d)], d)

    @device
    def heun(x, theta, c, noise, i, v):
        here = force(x, theta)
        there = moved(x, here, c, noise, i)
        sign, inside = mirror(there), image(there)
        v = turned(mirror(moved(x, mean(here, turned(sign, force(inside, theta))), c, noise, i)), v)
        half = turned(sign, times(0.5 * c[0], v))
        through = turned(sign, force_along(inside, theta, half))
        direct = plus(times(0.5 * c[0], v), c[0], through)
        before = plus(plus(v, 1.0, through), 1.0, force_along(x, theta, direct))
        return before, less_two(gradient_along(inside, theta, half), gradient_along(x, theta, direct))

    return heun


@cache
def _by_coefficients(d):
    """Adds a block's sums of v, v x^T and v z^T: dJ by the coefficients of an exact step, row by row."""

    @device
    def by_coefficients(s, count, noise, sums):
        wide_vectors()
        for k in range(d):
            total = 0.0
            for i in range(count):
                total += s[(d + k) * BLOCK + i]
            sums[k] += total
            for j in range(d):
                by_x = by_z = 0.0
                for i in range(count):
                    by_x += s[(d + k) * BLOCK + i] * s[j * BLOCK + i]
                    by_z += s[(d + k) * BLOCK + i] * np.float64(noise[j, i])
                sums[d + k * d + j] += by_x
                sums[d + d * d + k * d + j] += by_z

    return by_coefficients
