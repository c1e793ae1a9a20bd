"""Ascent of the two-step likelihood of a latent cycle: its gradient, and the training of many models side by side.

Arrays and options are those of `latent_cycle`; equations are those of Baiesi & Rosso.
"""

import math
from collections import namedtuple

import numpy as np
from numba import prange

from thermokernels._jit import device, kernel, serial_kernel, wide_vectors
from thermokernels.elementary import sigmoids
from thermokernels.latent_cycle import (
    BITS,
    CHAIN,
    ONE,
    backward_of,
    bits_of,
    copy_bits,
    draw_batch,
    draw_hidden,
    draw_visible,
    draw_visible_from_field,
    draw_words,
    field_gradient,
    hidden_fields,
    hidden_law,
    hidden_probabilities,
    hidden_shift,
    lanes_for,
    lanes_of_step,
    largest_of,
    log_mixture,
    parts,
    row_sum,
    state_fields,
    thresholds,
    upper_parts,
    visible_fields,
    visible_words,
)  # fmt: skip
from thermokernels.products import add_rows, aligned, aligned_copy, copy

# Weights and gradients below this are set to zero: products of numbers so small leave the normal range of float32,
# where processors take a hundred times as long.  RMSProp's floor makes gradients a billion times larger harmless.
NEGLIGIBLE = 1e-18


State = namedtuple("State", "theta square visible status")
"""What a training goes on from.

``theta``    the parameters of every model.
``square``   as theta: RMSProp's running mean of the squared gradient.
``visible``  uint8 (models, D): the chain's present x.
``status``   int64 (models,): 0, or one more than the step at which the likelihood was no longer finite.  Such a model
             keeps the parameters it had before that step; the others go on.
"""

Scratch = namedtuple("Scratch", "fantasies states bits chances probabilities sigmoids thresholds words on")
"""What one model's chain leaves for its gradient, and the room that both need.

``fantasies``      dtype of theta (T + 1, D), the x before every double step and after the last.
``states``         uint64 (T,), the hidden state of every step.
``bits``           dtype of theta (T, B), those of a first layer less 1/2; ``chances`` float64 (T, B), p(y = 1 | x).
``probabilities``  float64 (T, L), p(z | x) of every step; ``sigmoids`` float64 (T, L), those of the hidden fields.
``thresholds``     uint16 (L, 2, D), of the visible bits of each state in one-hot modes; ``words`` uint64, random words
                   of a step; ``on`` intp (L,).
"""


@device
def _scratch(options, size, theta):
    """Room for the chain of one model with ``size`` visible bits, in the dtype of ``theta``."""
    steps, hidden = options.chain_steps, options.hidden
    return Scratch(
        aligned(steps + 1, size, theta),
        np.empty(steps, np.uint64),
        np.empty((steps, bits_of(options.first)), theta.dtype),
        np.empty((steps, bits_of(options.first))),
        np.empty((steps, hidden)),
        np.empty((steps, hidden)),
        np.empty((hidden if options.encoding != BITS else 1, 2, size), np.uint16),
        np.empty(2 * lanes_of_step(options, size), np.uint64),
        np.empty(hidden, np.intp),
    )


@serial_kernel
def _support(options, states, support, log_weights, visits):
    """The hidden states that the chain's sum goes over, and the logarithm of the weight of each.

    In one-hot modes only how often a state occurred matters, so the sum over T steps is one over L states.
    """
    if options.encoding == BITS:
        for k in range(states.size):
            support[k] = states[k]
            log_weights[k] = -math.log(states.size)
        return
    for t in range(states.size):
        visits[states[t]] += 1.0
    for k in range(support.size):
        support[k] = k
        log_weights[k] = math.log(visits[k] / states.size) if visits[k] > 0 else -np.inf


@serial_kernel
def responsibilities(fields, constants, log_weights, batch, by_point, whole):
    """r_n(z) / N for every point, and summed over points; returns the mean log-likelihood of ``batch``."""
    count, points = by_point.shape
    products = np.empty(count, fields.dtype)
    logs = np.empty(count)
    likelihood = 0.0
    for n in range(points):
        log_p = log_mixture(fields, constants, log_weights, batch[n], products, logs)
        likelihood += log_p
        for k in range(count):
            r = math.exp(logs[k] - log_p) / points
            if r < NEGLIGIBLE:
                r = 0.0
            whole[k] += r
            by_point[k, n] = r
    return likelihood / points


@serial_kernel
def visible_gradient(options, states, fields, by_point, whole, batch, g_w, g_a):
    """Eqs. 16a and b: data minus model for every state, handed on to the rows of w that the state turns on."""
    count, size = fields.shape
    one_hot = options.encoding != BITS
    by_state = g_w if one_hot else np.zeros((count, size), g_w.dtype)
    add_rows(by_point, batch, by_state)
    mu = np.empty(size, g_w.dtype)
    for k in range(count):
        sigmoids(fields[k], mu)
        subtract_row(by_state[k], mu, whole[k])
    if not one_hot:
        bits = np.empty((options.hidden, count), g_w.dtype)
        for b in range(options.hidden):
            for k in range(count):
                bits[b, k] = np.float64((states[k] >> np.uint64(b)) & ONE)
        add_rows(bits, by_state, g_w)
        add_rows(np.ones((1, count), g_w.dtype), by_state, g_a.reshape((1, size)))


@serial_kernel
def _hidden_gradient(options, scratch, mean, whole, visits, gradient):
    """Eqs. 16d and 17, of every layer on the way from x to z."""
    states = scratch.states
    worth = np.empty(states.size)
    slopes = np.empty((states.size, options.hidden))
    for t in range(states.size):
        worth[t] = whole[states[t]] / visits[states[t]] if options.encoding != BITS else whole[t]
        field_gradient(states[t], scratch.probabilities[t], scratch.sigmoids[t], options.encoding, slopes[t])
    slopes = _through_bits(upper_parts(gradient, options.hidden, options.first), worth, slopes, scratch)
    _, g_wbar, _, g_abar = parts(gradient, options, mean.size)
    _layer_gradient(worth, slopes, scratch.fantasies[: states.size], mean, g_wbar, g_abar)


@serial_kernel
def _through_bits(g_upper, worth, slopes, scratch):
    """Slopes of the fields that x acts on, from those of z, after the gradient of a first layer's v and c."""
    if g_upper is None:
        return slopes
    bits, chances = scratch.bits, scratch.chances
    g_v, g_c = g_upper
    _layer_gradient(worth, slopes, bits, np.zeros(bits.shape[1], bits.dtype), g_v, g_c)
    slopes = np.empty(bits.shape)
    for t in range(bits.shape[0]):
        for b in range(bits.shape[1]):
            slopes[t, b] = bits[t, b] + 0.5 - chances[t, b]
    return slopes


@serial_kernel
def _layer_gradient(worth, slopes, inputs, mean, g_weights, g_biases):
    """Sum over steps of worth times slopes (T, units) times the inputs (T, n) of a layer, less their mean."""
    steps, units = slopes.shape
    factors = np.empty((units, steps), g_weights.dtype)
    total = np.zeros(units)
    for t in range(steps):
        for b in range(units):
            factor = worth[t] * slopes[t, b]
            if abs(factor) < NEGLIGIBLE:
                factor = 0.0
            factors[b, t] = factor
            total[b] += factor
    add_rows(factors, inputs, g_weights)
    for b in range(units):
        if abs(total[b]) < NEGLIGIBLE:
            total[b] = 0.0
        g_biases[b] = total[b]
        subtract_row(g_weights[b], mean, total[b])


@serial_kernel
def _gradient(row, options, tied, mean, scratch, batch, gradient):
    """Gradient of the mean log-likelihood of ``batch`` from the chain's steps (Eqs. 16 and 17); returns that mean."""
    hidden, size = options.hidden, mean.size
    states = scratch.states
    w, _, a, _ = parts(row, options, size)
    count = hidden if options.encoding != BITS else states.size
    support = np.empty(count, np.uint64)
    log_weights = np.empty(count)
    visits = np.zeros(hidden)
    _support(options, states, support, log_weights, visits)
    fields = aligned(count, size, row)
    constants = np.empty(count)
    state_fields(w, a, support, options.encoding, scratch.on, fields, constants)
    by_point = np.empty((count, batch.shape[0]), row.dtype)
    whole = np.zeros(count)
    likelihood = responsibilities(fields, constants, log_weights, batch, by_point, whole)
    for i in range(gradient.size):
        gradient[i] = 0
    if tied is None:
        g_w, _, g_a, _ = parts(gradient, options, size)
        visible_gradient(options, states, fields, by_point, whole, batch, g_w, g_a)
        _hidden_gradient(options, scratch, mean, whole, visits, gradient)
    else:
        _joint_gradient(row, options, mean, scratch, batch, gradient)
    return likelihood


@serial_kernel
def subtract_row(out, row, factor):
    """out -= factor row."""
    wide_vectors()
    factor = out.dtype.type(factor)
    for i in range(out.size):
        out[i] -= factor * row[i]


@serial_kernel
def _joint_gradient(row, options, mean, scratch, batch, gradient):
    """Gradient of the tied model, whose stationary p(x, z) ~ exp(x.(w z) - mean.(w z) + a.x + abar.z): the moments
    of the data minus those of the persistent chain, both averaged over z given x."""
    probabilities, fantasies = scratch.probabilities, scratch.fantasies
    hidden, size, points, steps = options.hidden, mean.size, batch.shape[0], probabilities.shape[0]
    _, wbar, _, abar = parts(row, options, size)
    g_w, _, g_a, g_abar = parts(gradient, options, size)
    shift, h = np.empty(hidden, row.dtype), np.empty(hidden, row.dtype)
    hidden_shift(wbar, abar, mean, shift)
    of_data, s = np.empty((points, hidden)), np.empty(hidden)
    for n in range(points):
        hidden_fields(wbar, shift, batch[n], h)
        hidden_probabilities(h, options.encoding, of_data[n], s)
    totals = np.zeros(hidden)
    _add_moments(of_data, points, batch, g_w, totals)
    _add_moments(probabilities, -steps, fantasies[:steps], g_w, totals)
    for b in range(hidden):
        g_abar[b] = totals[b]
        subtract_row(g_w[b], mean, totals[b])
    if options.encoding == BITS:
        whole = np.zeros(1)
        _add_moments(np.ones((points, 1)), points, batch, g_a.reshape((1, size)), whole)
        _add_moments(np.ones((steps, 1)), -steps, fantasies[:steps], g_a.reshape((1, size)), whole)


@serial_kernel
def _add_moments(p, count, x, g_w, totals):
    """Adds p(z | x) x / count of every x (n, D), with p (n, L), to ``g_w`` (L, D), and p / count to ``totals``."""
    factors = np.empty((p.shape[1], p.shape[0]), g_w.dtype)
    for n in range(p.shape[0]):
        for b in range(p.shape[1]):
            factor = 0.0 if p[n, b] < NEGLIGIBLE else p[n, b] / count
            factors[b, n] = factor
            totals[b] += factor
    add_rows(factors, x, g_w)


@serial_kernel
def rmsprop(row, square, gradient, rate, decay, floor):
    """RMSProp ascent: v = decay v + (1 - decay) g^2, theta += rate g / (sqrt(v) + floor).

    v is kept above 1e-36, far below floor^2, lest it decay into the slow numbers near zero.
    """
    wide_vectors()
    least, zero = row.dtype.type(1e-36), row.dtype.type(0.0)
    negligible = row.dtype.type(NEGLIGIBLE)
    rate, floor = row.dtype.type(rate), row.dtype.type(floor)
    keep, take = row.dtype.type(decay), row.dtype.type(1.0 - decay)
    for i in range(row.size):
        g = zero if abs(gradient[i]) < negligible else gradient[i]
        v = max(keep * square[i] + take * (g * g), least)
        square[i] = v
        row[i] += rate * g / (row.dtype.type(math.sqrt(v)) + floor)


@serial_kernel
def _chain(row, options, mean, scratch, seed, stream, first):
    """T double steps from ``fantasies[0]``: fills fantasies[1:], the states and p(z | x) of every step (Eq. 18)."""
    hidden, size = options.hidden, mean.size
    fantasies, states, words = scratch.fantasies, scratch.states, scratch.words
    probabilities = scratch.probabilities
    w, _, a, _ = parts(row, options, size)
    backward = backward_of(row, options, mean)
    h = np.empty(hidden, row.dtype)
    field = np.empty(size, row.dtype)
    one_hot = options.encoding != BITS
    if one_hot:
        for b in range(hidden):
            row_sum(w[b], a, field)
            thresholds(field, scratch.thresholds[b])
    word = words.view(np.uint32)
    for t in range(states.size):
        place = seed, stream, first + t
        draw_words(words, *place)
        after = word[visible_words(options, size) :]
        hidden_law(
            options, backward, fantasies[t], after, h, scratch.bits[t], scratch.chances[t], probabilities[t],
            scratch.sigmoids[t],
        )  # fmt: skip
        z = draw_hidden(probabilities[t], options.encoding, after)
        states[t] = z
        if one_hot:
            draw_visible(scratch.thresholds[z], words, place, fantasies[t + 1])
        else:
            visible_fields(w, a, z, scratch.on, field)
            draw_visible_from_field(field, word, fantasies[t + 1])


@serial_kernel
def _train_model(m, state, data, mean, sizes, first, options, tied, seeds, trace):
    """``train`` for model ``m``."""
    theta, square, visible, status = state
    size, hidden, steps = mean.size, options.hidden, options.chain_steps
    row = aligned_copy(theta[m])
    scratch = _scratch(options, size, theta)
    fantasies = scratch.fantasies
    largest = largest_of(sizes)
    batch_words = np.empty(2 * lanes_for(largest), np.uint64)
    batches = aligned(largest, size, theta)
    gradient = aligned(1, theta.shape[1], theta)[0]
    copy_bits(visible[m], fantasies[0])
    for k in range(sizes.size):
        if status[m] != 0:
            trace[m, k] = np.nan
            continue
        step = first + k
        _chain(row, options, mean, scratch, seeds[m], CHAIN, step * steps)
        batch = batches[: sizes[k]]
        draw_batch(data, batch_words, seeds[m], step, batch)
        trace[m, k] = _gradient(row, options, tied, mean, scratch, batch, gradient)
        if not math.isfinite(trace[m, k]):
            status[m] = step + 1
            continue
        if options.encoding != BITS:
            _, _, g_a, _ = parts(gradient, options, size)
            for i in range(size):
                g_a[i] = 0
        rmsprop(row, square[m], gradient, options.rate, options.decay, options.floor)
        if tied is not None:
            copy(row[hidden * size :], row[: hidden * size])
        copy(fantasies[0], fantasies[steps])
    copy(theta[m], row)
    for i in range(size):
        visible[m, i] = np.uint8(fantasies[0, i])


@kernel
def train(state, data, mean, sizes, first, options, seeds, trace):
    """Gradient steps ``first`` to ``first + len(sizes) - 1`` of many models, each on one persistent chain.

    ``state``    ``State``; updated.
    ``sizes``    intp (steps,): points in every minibatch, drawn with replacement.
    ``trace``    float64 (models, steps), written: the minibatch log-likelihood of App. A.3.

    One-hot models keep a as it is, because w absorbs it (Eq. 20).
    """
    for m in prange(state.theta.shape[0]):
        # Numba takes the index for an int64 where it looks for types, for a uint64 in the loop: compile for one.
        _train_model(np.int64(m), state, data, mean, sizes, first, options, options.tied, seeds, trace)


@serial_kernel
def _fields_given_bits(wbar, shift, upper, x, bits, chances, h):
    """Fields of z; with a first layer from its ``bits``, and p(y = 1 | x) of these."""
    if upper is None:
        hidden_fields(wbar, shift, x, h)
    else:
        lower = np.empty(bits.size, bits.dtype)
        hidden_fields(wbar, shift, x, lower)
        hidden_probabilities(lower, BITS, chances, chances)
        v, c = upper
        hidden_fields(v, c, bits, h)


@serial_kernel
def two_step_gradient(row, options, mean, fantasies, bits, states, batch, gradient):
    """Gradient of the mean log-likelihood of ``batch`` from a chain of your own; returns that mean.

    ``row``        (parameters,), one model; ``fantasies`` (T, D), the x before every double step, and ``batch`` (N, D)
                   have its dtype.
    ``bits``       dtype of row, (T, B): those of a first layer less 1/2;  ``states`` uint64 (T,).
    ``gradient``   dtype of row, (parameters,), written: Eqs. 16 and 17, or, for a tied model, the moments of the joint
                   distribution, data minus chain.
    """
    hidden = options.hidden
    backward = backward_of(row, options, mean)
    h = np.empty(hidden, row.dtype)
    chances = np.empty(bits.shape)
    probabilities = np.empty((states.size, hidden))
    sigmoids = np.empty((states.size, hidden))
    for t in range(states.size):
        _fields_given_bits(backward.wbar, backward.shift, backward.upper, fantasies[t], bits[t], chances[t], h)
        hidden_probabilities(h, options.encoding, probabilities[t], sigmoids[t])
    unused = np.empty((0, 2, 0), np.uint16), np.empty(0, np.uint64)
    scratch = Scratch(
        fantasies, states, bits, chances, probabilities, sigmoids, unused[0], unused[1], np.empty(hidden, np.intp)
    )
    return _gradient(row, options, options.tied, mean, scratch, batch, gradient)
