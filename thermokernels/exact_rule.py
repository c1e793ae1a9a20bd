"""Ascent of the likelihood itself of one-hot latent cycles, through their stationary occupancy.

The likelihood of Eq. 5 depends on the parameters through p(x | z), and through pbar with pbar M = pbar, M = A Abar.
The two-step rule (Eqs. 16, 17) leaves out how pbar answers: a change dM shifts it by

    dpbar = pbar dM (1 - M + 1 pbar)^-1,

and what a shift is worth is g_z = d log p / d pbar_z, the mean over data of p(x | z) / p(x).  So with v the solution of
(1 - M + 1 pbar) v = g the gradient is that of sum_z pbar_z M_zz' v_z', pbar and v held fixed, beside the direct one.
M comes from images drawn from every state, p(z' | x) averaged over them: no state is too rare to be seen.  All is
compared with enumeration (tests/kernels/test_exact_rule.py; `thermorun.cycles.exact.likelihood_gradient`).

Arrays and options are those of `latent_cycle`; the persistent chain is not used, and image k of state z at gradient
step n is drawn from stream 1 + z of the chain's, step n S + k.
"""

import math
from collections import namedtuple

import numpy as np
from numba import prange

from thermokernels._jit import device, kernel, serial_kernel
from thermokernels.latent_cycle import (
    CHAIN,
    SOFTMAX,
    draw_batch,
    draw_visible,
    draw_words,
    hidden_fields,
    hidden_probabilities,
    hidden_shift,
    lanes_for,
    largest_of,
    parts,
    state_fields,
    thresholds,
)
from thermokernels.products import add_rows, aligned, aligned_copy, copy
from thermokernels.two_step import NEGLIGIBLE, responsibilities, rmsprop, subtract_row, visible_gradient

# Images of a state at the least: what moves pbar through w is a covariance over them.
LEAST_IMAGES = 4
# The rate of wbar and abar, in parts of that of w.  At the same rate pbar is thrown about, and states die.
_HIDDEN_RATE = 0.1
# Of an occupancy that something is divided by.
_LEAST = 1e-12

Drawn = namedtuple("Drawn", "images probabilities sigmoids matrix occupancy")
"""Images of every state and what follows from them.

``images``         dtype of theta, (L S, D): S of state 0, then of state 1, ...
``probabilities``  float64 (L S, L), p(z' | x); ``sigmoids`` float64 (L S, L), those of the hidden fields.
``matrix``         float64 (L, L), M, from row to column;  ``occupancy`` float64 (L,), pbar.
"""


@device
def images_of_a_state(options):
    """S: as many as make ``chain_steps`` images of all states together."""
    return max(LEAST_IMAGES, (options.chain_steps + options.hidden - 1) // options.hidden)


@device
def _room(options, size, theta):
    hidden = options.hidden
    count = hidden * images_of_a_state(options)
    return Drawn(
        aligned(count, size, theta),
        np.empty((count, hidden)),
        np.empty((count, hidden)),
        np.empty((hidden, hidden)),
        np.empty(hidden),
    )


@serial_kernel
def stationary(matrix, scratch, p):
    """pbar with pbar M = pbar, by the elimination of Grassmann, Taksar & Heyman, which never subtracts."""
    states = p.size
    for z in range(states):
        for y in range(states):
            scratch[z, y] = matrix[z, y]
    for n in range(states - 1, 0, -1):
        leaving = 0.0
        for y in range(n):
            leaving += scratch[n, y]
        leaving = max(leaving, 1e-300)
        for z in range(n):
            scratch[z, n] /= leaving
            for y in range(n):
                scratch[z, y] += scratch[z, n] * scratch[n, y]
    p[0] = 1.0
    total = 1.0
    for n in range(1, states):
        p[n] = 0.0
        for z in range(n):
            p[n] += p[z] * scratch[z, n]
        total += p[n]
    for z in range(states):
        p[z] /= total


@serial_kernel
def solve(a, b):
    """b = a^-1 b, by elimination with row pivots; ``a`` (n, n) and ``b`` (n,) are overwritten."""
    n = b.size
    for k in range(n):
        pivot = k
        for i in range(k + 1, n):
            if abs(a[i, k]) > abs(a[pivot, k]):
                pivot = i
        if pivot != k:
            for j in range(n):
                a[k, j], a[pivot, j] = a[pivot, j], a[k, j]
            b[k], b[pivot] = b[pivot], b[k]
        for i in range(k + 1, n):
            factor = a[i, k] / a[k, k]
            for j in range(k + 1, n):
                a[i, j] -= factor * a[k, j]
            b[i] -= factor * b[k]
    for k in range(n - 1, -1, -1):
        for j in range(k + 1, n):
            b[k] -= a[k, j] * b[j]
        b[k] /= a[k, k]


@serial_kernel
def _draw_images(row, options, mean, room, seed, step):
    """Fills ``room``: images of every state, p(z' | x) of each, M and pbar."""
    hidden, size = options.hidden, mean.size
    each = room.images.shape[0] // hidden
    w, wbar, _, abar = parts(row, options, size)
    shift = np.empty(hidden, row.dtype)
    h = np.empty(hidden, row.dtype)
    limits = np.empty((2, size), np.uint16)
    words = np.empty(2 * lanes_for((size + 1) // 2), np.uint64)
    scratch = np.empty((hidden, hidden))
    hidden_shift(wbar, abar, mean, shift)
    for z in range(hidden):
        thresholds(w[z], limits)
        for y in range(hidden):
            room.matrix[z, y] = 0.0
        for k in range(each):
            n = z * each + k
            place = seed, CHAIN + np.uint64(1 + z), step * each + k
            draw_words(words, *place)
            draw_visible(limits, words, place, room.images[n])
            hidden_fields(wbar, shift, room.images[n], h)
            hidden_probabilities(h, options.encoding, room.probabilities[n], room.sigmoids[n])
            for y in range(hidden):
                room.matrix[z, y] += room.probabilities[n, y] / each
    stationary(room.matrix, scratch, room.occupancy)


@serial_kernel
def _worth_of_states(room, whole):
    """v of (1 - M + 1 pbar) v = g, from the sum of responsibilities of each state."""
    states = room.occupancy.size
    system = np.empty((states, states))
    v = np.empty(states)
    for z in range(states):
        v[z] = whole[z] / max(room.occupancy[z], _LEAST)
        for y in range(states):
            system[z, y] = room.occupancy[y] - room.matrix[z, y] + (1.0 if z == y else 0.0)
    solve(system, v)
    return v


@serial_kernel
def _answer_of_occupancy(options, mean, room, v, g_w, g_wbar, g_abar):
    """Adds what the parameters do to the likelihood through pbar."""
    hidden = options.hidden
    count = room.images.shape[0]
    each = count // hidden
    factors = np.empty((hidden, count), g_wbar.dtype)
    ahead = np.empty((1, each), g_w.dtype)
    total = np.zeros(hidden)
    for z in range(hidden):
        share = room.occupancy[z] / each
        mean_value = 0.0
        values = np.empty(each)
        for k in range(each):
            n = z * each + k
            values[k] = 0.0
            for y in range(hidden):
                values[k] += room.probabilities[n, y] * v[y]
            mean_value += values[k] / each
            for b in range(hidden):
                factor = share * room.probabilities[n, b] * (v[b] - values[k])
                if options.encoding != SOFTMAX:
                    factor *= 1.0 - room.sigmoids[n, b]
                if abs(factor) < NEGLIGIBLE:
                    factor = 0.0
                factors[b, n] = factor
                total[b] += factor
        for k in range(each):
            ahead[0, k] = room.occupancy[z] / (each - 1) * (values[k] - mean_value)
        add_rows(ahead, room.images[z * each : (z + 1) * each], g_w[z : z + 1])
    add_rows(factors, room.images, g_wbar)
    for b in range(hidden):
        g_abar[b] = total[b]
        subtract_row(g_wbar[b], mean, total[b])


@serial_kernel
def _gradient(row, options, mean, room, batch, gradient):
    """Gradient of the mean log-likelihood of ``batch``, from the images drawn; returns that mean."""
    hidden, size = options.hidden, mean.size
    w, _, a, _ = parts(row, options, size)
    states = np.empty(hidden, np.uint64)
    log_weights = np.empty(hidden)
    for z in range(hidden):
        states[z] = z
        log_weights[z] = math.log(max(room.occupancy[z], 1e-300))
    fields = aligned(hidden, size, row)
    constants = np.empty(hidden)
    state_fields(w, a, states, options.encoding, np.empty(0, np.intp), fields, constants)
    by_point = np.empty((hidden, batch.shape[0]), row.dtype)
    whole = np.zeros(hidden)
    likelihood = responsibilities(fields, constants, log_weights, batch, by_point, whole)
    for i in range(gradient.size):
        gradient[i] = 0
    g_w, g_wbar, g_a, g_abar = parts(gradient, options, size)
    visible_gradient(options, states, fields, by_point, whole, batch, g_w, g_a)
    _answer_of_occupancy(options, mean, room, _worth_of_states(room, whole), g_w, g_wbar, g_abar)
    return likelihood


@serial_kernel
def exact_gradient(row, options, mean, seed, step, batch, gradient):
    """Gradient of the mean log-likelihood of ``batch`` (N, D) from images drawn at gradient step ``step``.

    Returns that mean.  ``row``, ``batch`` and ``gradient`` have one dtype; a is taken for zero, and its component is
    left at zero.
    """
    room = _room(options, mean.size, row.reshape((1, row.size)))
    _draw_images(row, options, mean, room, seed, step)
    return _gradient(row, options, mean, room, batch, gradient)


@serial_kernel
def _bound(w, limit):
    limit = w.dtype.type(limit)
    for i in range(w.size):
        w[i] = min(max(w[i], -limit), limit)


@kernel
def train_exactly(state, data, mean, sizes, first, options, seeds, trace):
    """Gradient steps ``first`` to ``first + len(sizes) - 1`` of many one-hot models: see ``two_step.train``.

    w stays within the logits of half a bit of the data, where it begins (App. A.1).  RMSProp's running mean of squares
    is divided by what it would be for squares of one: it starts at zero, and a memory of a hundred steps would make the
    first ones ten times too long.
    """
    theta, square, _, status = state
    models, points, size = theta.shape[0], data.shape[0], mean.size
    n_w = options.hidden * size
    limit = math.log(2.0 * points - 1.0)
    for m in prange(models):
        row = aligned_copy(theta[m])
        room = _room(options, size, theta)
        largest = largest_of(sizes)
        batch_words = np.empty(2 * lanes_for(largest), np.uint64)
        batches = aligned(largest, size, theta)
        gradient = aligned(1, theta.shape[1], theta)[0]
        for k in range(sizes.size):
            if status[m] != 0:
                trace[m, k] = np.nan
                continue
            step = first + k
            batch = batches[: sizes[k]]
            draw_batch(data, batch_words, seeds[m], step, batch)
            _draw_images(row, options, mean, room, seeds[m], step)
            trace[m, k] = _gradient(row, options, mean, room, batch, gradient)
            if not math.isfinite(trace[m, k]):
                status[m] = step + 1
                continue
            rate = options.rate * math.sqrt(1.0 - options.decay ** (step + 1.0))
            rmsprop(row[:n_w], square[m, :n_w], gradient[:n_w], rate, options.decay, options.floor)
            rmsprop(row[n_w:], square[m, n_w:], gradient[n_w:], _HIDDEN_RATE * rate, options.decay, options.floor)
            _bound(row[:n_w], limit)
        copy(theta[m], row)
