"""The Onsager-Machlup action of trajectories, its gradient, and the sums that make it a quadratic form.

    S = sum_t sum_i (x_i(t+1) - x_i(t) + mu dt dV/dx_i(t))^2 / (4 mu kT dt)           (Whitelam 2025, Eq. 5)

is, up to a constant, minus the logarithm of the probability of a trajectory.  With the residual
r_i(t) = (x_i(t+1) - x_i(t) + mu dt dV/dx_i) / (2 kT) its gradient is

    dS/db_i = sum_t r_i,     dS/dW_ik = u_k sum_t r_i,     dS/dJ_ij = sum_t (r_i x_j + r_j x_i)      (Eqs. 8 to 10).

A teacher's idealised trajectory has no couplings, no noise and the bias -a: x' = x - mu dt (2 J2 x + 4 J4 x^3 - a).
Along it the residual is linear in the couplings, r = mu dt (a + h + J x) / (2 kT), so that sums of x and of x x^T over
time are all there is to know: S and its gradient are polynomials in them.

Layout and ``physics`` are those of `network`.
"""

import numpy as np
from numba import prange

from thermokernels._jit import device, kernel, wide_vectors
from thermokernels.blocks import FLUSH, add_tasks, flush, tasks_of
from thermokernels.network import TILE, pad_couplings, padded
from thermokernels.products import add_gram, add_product, aligned, copy_rows


@device
def _advance_ideal(x, target, sums, units, physics):
    """One step of the idealised trajectories of a tile, (trajectories, units), after adding x to ``sums``."""
    wide_vectors()
    number = x.dtype.type
    two_j2, four_j4 = number(2.0 * physics.J2), number(4.0 * physics.J4)
    pull = number(physics.mobility * physics.dt)
    for p in range(target.shape[0]):
        x_p, target_p, sums_p = x[p], target[p], sums[p]
        for i in range(units):
            old = x_p[i]
            sums_p[i] += old
            x_p[i] = old - pull * (old * (two_j2 + four_j4 * (old * old)) - target_p[i])


@kernel
def teach(targets, steps, physics, sums, gram):
    """Sums over time of the idealised trajectories with bias -a, from x = 0.

    ``targets``  float32 or float64 (trajectories, units): a.
    ``sums``     dtype of targets, (trajectories, units), written: sum of x over steps 0 to ``steps`` - 1.
    ``gram``     float64 (units, units), written: sum of x x^T over the same steps and all trajectories.
    """
    trajectories, units = targets.shape
    size, tiles = padded(units), -(-trajectories // TILE)
    tasks = tasks_of(tiles)
    totals = np.zeros((tasks, size, size))
    for task in prange(tasks):
        x, products = aligned(TILE, size, targets), aligned(size, size, targets)
        for tile in range(task * tiles // tasks, (task + 1) * tiles // tasks):
            mine = slice(tile * TILE, min((tile + 1) * TILE, trajectories))
            mine_x = x[: mine.stop - mine.start]
            x[:] = x.dtype.type(0.0)
            sums[mine] = x.dtype.type(0.0)
            for n in range(steps):
                add_gram(products, mine_x)
                _advance_ideal(mine_x, targets[mine], sums[mine], units, physics)
                if (n + 1) % FLUSH == 0 or n == steps - 1:
                    flush(products, totals[task])
    whole = np.empty((size, size))
    add_tasks(totals, whole)
    for i in range(units):
        for j in range(i + 1):
            gram[i, j] = whole[i, j]
            gram[j, i] = whole[i, j]


@device
def _residuals(old, new, gradient, physics, residual, sums):
    """r of one step of a tile, (trajectories, units), from ``gradient`` = h + J x; adds r to ``sums``."""
    wide_vectors()
    number = residual.dtype.type
    two_j2, four_j4 = number(2.0 * physics.J2), number(4.0 * physics.J4)
    pull = number(physics.mobility * physics.dt)
    scale = number(0.5 / physics.kT)
    for p in range(old.shape[0]):
        old_p, new_p, gradient_p, residual_p, sums_p = old[p], new[p], gradient[p], residual[p], sums[p]
        for i in range(old.shape[1]):
            x = old_p[i]
            r = scale * ((new_p[i] - x) + pull * (gradient_p[i] + x * (two_j2 + four_j4 * (x * x))))
            residual_p[i] = r
            sums_p[i] += r


@device
def _add_squares(residual, units, action, scale):
    """action[p] += scale sum_i r_i^2, in float64."""
    wide_vectors()
    for p in range(action.size):
        row = residual[p]
        total = 0.0
        for i in range(units):
            total += np.float64(row[i]) * np.float64(row[i])
        action[p] += scale * total


@kernel
def action_gradient(paths, fields, couplings, physics, action, residuals, of_couplings):
    """Action and gradient of trajectories of your own; a teacher's need `teach` alone.

    ``paths``      float32 or float64 (steps + 1, trajectories, units).
    ``fields``     dtype of paths, (trajectories, units): h = b + W u.
    ``couplings``  (units, units), symmetric, zero diagonal.
    ``action``     float64 (trajectories,), written: S.
    ``residuals``  dtype of paths, (trajectories, units), written: sum_t r, so that dS/db is their sum over trajectories
                   and dS/dW = residuals^T u.
    ``of_couplings``  float64 (units, units), written: dS/dJ_ij of all trajectories, symmetric, zero on the diagonal.
    """
    steps = paths.shape[0] - 1
    trajectories, units = fields.shape
    size, tiles = padded(units), -(-trajectories // TILE)
    tasks = tasks_of(tiles)
    matrix = pad_couplings(couplings, paths)
    totals = np.zeros((tasks, size, size))
    scale = physics.kT / (physics.mobility * physics.dt)
    for task in prange(tasks):
        x, gradient = aligned(TILE, size, paths), aligned(TILE, size, paths)
        residual, products = aligned(TILE, size, paths), aligned(size, size, paths)
        for tile in range(task * tiles // tasks, (task + 1) * tiles // tasks):
            mine = slice(tile * TILE, min((tile + 1) * TILE, trajectories))
            count = mine.stop - mine.start
            action[mine] = 0.0
            residuals[mine] = residual.dtype.type(0.0)
            x[count:] = x.dtype.type(0.0)
            for n in range(steps):
                copy_rows(x, paths[n, mine])
                copy_rows(gradient, fields[mine])
                # Rows come in eights: those beyond the last trajectory are multiplied too, and never read.
                add_product(gradient, x, matrix)
                _residuals(
                    paths[n, mine], paths[n + 1, mine], gradient[:count], physics, residual[:count], residuals[mine]
                )
                _add_squares(residual[:count], units, action[mine], scale)
                add_product(products, residual[:count].T, x[:count])
                if (n + 1) % FLUSH == 0 or n == steps - 1:
                    flush(products, totals[task])
    whole = np.empty((size, size))
    add_tasks(totals, whole)
    for i in range(units):
        for j in range(i):
            of_couplings[i, j] = whole[i, j] + whole[j, i]
            of_couplings[j, i] = of_couplings[i, j]
        of_couplings[i, i] = 0.0
