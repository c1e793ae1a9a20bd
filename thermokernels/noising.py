"""Units that lose an image to noise: uncoupled, each under a force of its own whose amplitude follows a schedule.

    x' = x - mu dt (2 J2 x + 4 J4 x^3 + f - a(t) g) + sqrt(2 mu kT dt) z,     z standard normal     (Whitelam 2026)

``forces`` g are what an image asks of each unit, ``amplitude`` a(t) how strongly, ``tilt`` f is that of its well.  A
unit knows of the image by g alone: so its law is one function of g and the step, and what a machine must learn to run
the film backwards rests on its first three moments.  ``noise`` makes such trajectories; ``moments`` does without.

Layout, normals and ``physics`` are those of `network`.
"""

import math

import numpy as np
from numba import prange

from thermokernels._jit import device, kernel, wide_vectors
from thermokernels.blocks import TASKS, share
from thermokernels.network import GROUP, TILE, load, padded, unload
from thermokernels.products import aligned
from thermokernels.random import BLOCK, LANES, fill_block

# Masses below this are left out: 5,000 steps and 1,000 points of them are nothing in double precision.
_NOTHING = 1e-24


@device
def _step(x, force, tilt, normals, amplitude, change, units, physics):
    """Moves all units of a tile; ``change`` becomes each trajectory's change of energy at this step's force."""
    wide_vectors()
    number = x.dtype.type
    two_j2, four_j4 = number(2.0 * physics.J2), number(4.0 * physics.J4)
    j2, j4 = number(physics.J2), number(physics.J4)
    pull = number(physics.mobility * physics.dt)
    kick = number(math.sqrt(2.0 * physics.mobility * physics.kT * physics.dt))
    strength = number(amplitude)
    for lane in range(TILE):
        change[lane] = number(0.0)
    for i in range(units):
        x_i, force_i, tilt_i = x[i], force[i], tilt[i]
        noise = normals[i * TILE : (i + 1) * TILE]
        for lane in range(TILE):
            old = x_i[lane]
            linear = tilt_i[lane] - strength * force_i[lane]
            move = kick * number(noise[lane]) - pull * (linear + old * (two_j2 + four_j4 * (old * old)))
            new = old + move
            change[lane] += move * ((old + new) * (j2 + j4 * (old * old + new * new)) + linear)
            x_i[lane] = new


@kernel
def noise(x, heat, status, forces, tilt, amplitude, physics, random, recorded, paths):
    """Runs uncoupled trajectories side by side.

    ``x``          float32 or float64 (trajectories, units), the state; updated.
    ``heat``       float64 (trajectories,), heat absorbed so far: V(x') - V(x) at the force of each step; updated.
    ``status``     int64 (trajectories,): 0, or one more than the step at which the energy was no longer finite.
    ``forces``     dtype of x, (trajectories, units): g.
    ``tilt``       the same of f in V = sum_i (J2 x_i^2 + J4 x_i^4 + f_i x_i - a g_i x_i).
    ``amplitude``  float64 (steps,): a at each step.
    ``random``     seed and stream, uint64, and the number of the first step, below 2^32 with all that follow.
    ``recorded``   intp (records,), ascending: numbers of steps taken in this call, from 0, after which to record x.
    ``paths``      dtype of x, (records, trajectories, units), written.

    The changes of one step are summed over units in the precision of x, over steps in float64.
    """
    trajectories, units = x.shape
    steps = amplitude.size
    size, tiles = padded(units), -(-trajectories // TILE)
    groups = size // GROUP
    for task in prange(TASKS):
        position, force, slope = aligned(size, TILE, x), aligned(size, TILE, x), aligned(size, TILE, x)
        change = np.empty(TILE, x.dtype)
        normals = np.empty(size * TILE, np.float32)
        words = np.empty((2, LANES), np.uint64)
        for tile in share(task, tiles):
            mine = slice(tile * TILE, min((tile + 1) * TILE, trajectories))
            lanes = mine.stop - mine.start
            load(x[mine], position)
            load(forces[mine], force)
            load(tilt[mine], slope)
            row = 0
            for n in range(steps + 1):
                while row < recorded.size and recorded[row] == n:
                    unload(position, paths[row, mine])
                    row += 1
                if n == steps:
                    break
                for g in range(groups):
                    block = normals[g * BLOCK : (g + 1) * BLOCK]
                    fill_block(block, words, random[0], random[1], tile * groups + g, random[2] + n)
                _step(position, force, slope, normals, amplitude[n], change, units, physics)
                for lane in range(lanes):
                    heat[mine.start + lane] += np.float64(change[lane])
                    if status[mine.start + lane] == 0 and not math.isfinite(change[lane]):
                        status[mine.start + lane] = random[2] + n + 1
            unload(position, x[mine])


@device
def _spread(mass, out, first, last, drift, push, spacing, width, bell, steep):
    """out += the law after a step of ``mass`` at points ``first`` to ``last`` - 1.

    A point moves to c = x + drift + push, and its mass falls on the points i spacings away from the nearest one as
    exp(-steep (i - d)^2) = bell_i exp(-steep d^2) exp(2 steep d)^i, d = c less the nearest.
    """
    for k in range(first, last):
        if mass[k] > _NOTHING:
            target = k + (drift[k] + push) / spacing
            nearest = math.floor(target + 0.5)
            d = target - nearest
            ratio = math.exp(2.0 * steep * d)
            up = mass[k] * math.exp(-steep * d * d)
            down = up / ratio
            out[nearest] += up * bell[0]
            up *= ratio
            for i in range(1, width + 1):
                out[nearest + i] += up * bell[i]
                out[nearest - i] += down * bell[i]
                up *= ratio
                down /= ratio


@kernel
def moments(forces, amplitude, tilt, physics, grid, status, mean, variance, cube):
    """<x>, its variance and <x^3> along the law of a unit that starts at x = 0, for every force and step.

    The law of the discrete steps is carried on a grid, without further approximation: what a step adds is a Gaussian,
    and a sum over a grid whose spacing is three quarters of its width or less is the integral to rounding.

    ``forces``     float64 (nodes,): g.
    ``amplitude``  float64 (steps,): a at each step.
    ``tilt``       of the wells: f in V = J2 x^2 + J4 x^4 + f x - a g x.
    ``grid``       lowest point, spacing and number of points; zero is one of them.
    ``status``     int64 (nodes,): 0, or one more than the step at which mass came to the edge of the grid.
    ``mean``, ``variance``, ``cube``  float64 (steps + 1, nodes), written.
    """
    steps = amplitude.size
    low, spacing, points = grid
    sigma = math.sqrt(2.0 * physics.mobility * physics.kT * physics.dt)
    pull = physics.mobility * physics.dt
    steep = 0.5 * (spacing / sigma) ** 2
    width = math.ceil(math.sqrt(70.0 / (2.0 * steep))) + 1
    bell = np.empty(width + 1)
    for i in range(width + 1):
        bell[i] = spacing / (sigma * math.sqrt(2.0 * math.pi)) * math.exp(-steep * i * i)
    drift = np.empty(points)
    for k in range(points):
        x = low + k * spacing
        drift[k] = -pull * x * (2.0 * physics.J2 + 4.0 * physics.J4 * x * x)
    for node in prange(forces.size):
        mass, following = np.zeros(points), np.zeros(points)
        first = round(-low / spacing)
        mass[first] = 1.0
        last = first + 1
        for n in range(steps + 1):
            total, one, two, three = 0.0, 0.0, 0.0, 0.0
            for k in range(first, last):
                x = low + k * spacing
                total += mass[k]
                one += mass[k] * x
                two += mass[k] * x * x
                three += mass[k] * x * x * x
            one /= total
            mean[n, node], variance[n, node], cube[n, node] = one, two / total - one * one, three / total
            if n == steps:
                break
            push = pull * (amplitude[n] * forces[node] - tilt)
            ends = (first + (drift[first] + push) / spacing, last - 1 + (drift[last - 1] + push) / spacing)
            lowest = math.floor(min(ends[0], ends[1]) + 0.5) - width
            highest = math.floor(max(ends[0], ends[1]) + 0.5) + width + 1
            if lowest < 0 or highest > points:
                status[node] = n + 1
                break
            for k in range(lowest, highest):
                following[k] = 0.0
            _spread(mass, following, first, last, drift, push, spacing, width, bell, steep)
            mass, following = following, mass
            first, last = lowest, highest
            while mass[first] <= _NOTHING:
                first += 1
            while mass[last - 1] <= _NOTHING:
                last -= 1
