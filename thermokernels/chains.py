"""Many chains of latent cycles: their states, the transitions they make, and the likelihood of data.

Arrays and options are those of `latent_cycle`; equations are those of Baiesi & Rosso.
"""

import numpy as np
from numba import prange

from thermokernels._jit import kernel, serial_kernel
from thermokernels.blocks import TASKS, share
from thermokernels.latent_cycle import (
    BITS,
    MARKOV,
    Backward,
    backward_of,
    bits_of,
    copy_bits,
    draw_hidden,
    draw_visible,
    draw_visible_from_field,
    draw_words,
    hidden_law,
    lanes_for,
    lanes_of_step,
    log_mixture,
    parts,
    row_sum,
    state_fields,
    thresholds,
    visible_fields,
    visible_words,
)  # fmt: skip
from thermokernels.products import aligned, aligned_copy

# The likelihood's matrix product goes over the data in pieces of this many points.
_POINTS = 32


@kernel
def run_chains(row, options, mean, visible, first, seed, stream, states):
    """Many chains of one model, each from its own x.

    ``row``      (parameters,), one model.
    ``visible``  uint8 (chains, D): the present x of each chain; updated.
    ``first``    the number of the first double step, below 2^32.
    ``stream``   uint64; chain c draws from stream + c.
    ``states``   uint64 (chains, steps), written: the hidden state of every double step.
    """
    chains, size = visible.shape
    hidden = options.hidden
    one_hot = options.encoding != BITS
    mine = aligned_copy(row)
    w, _, a, _ = parts(mine, options, size)
    wbar, shift, upper = backward_of(mine, options, mean)
    limits = np.empty((hidden if one_hot else 1, 2, size), np.uint16)
    if one_hot:
        for b in range(hidden):
            field = np.empty(size, row.dtype)
            row_sum(w[b], a, field)
            thresholds(field, limits[b])
    for task in prange(TASKS):
        backward = Backward(wbar, shift, upper)  # Numba takes no named tuple of its own making into prange
        x = aligned(1, size, row)[0]
        h = np.empty(hidden, row.dtype)
        y, chances = np.empty(bits_of(options.first), row.dtype), np.empty(bits_of(options.first))
        field = np.empty(size, row.dtype)
        p, s = np.empty(hidden), np.empty(hidden)
        words = np.empty(2 * lanes_of_step(options, size), np.uint64)
        word = words.view(np.uint32)
        on = np.empty(hidden, np.intp)
        for n in share(task, chains):
            copy_bits(visible[n], x)
            for t in range(states.shape[1]):
                place = seed, stream + np.uint64(n), first + t
                draw_words(words, *place)
                after = word[visible_words(options, size) :]
                hidden_law(options, backward, x, after, h, y, chances, p, s)
                z = draw_hidden(p, options.encoding, after)
                states[n, t] = z
                if one_hot:
                    draw_visible(limits[z], words, place, x)
                else:
                    visible_fields(w, a, z, on, field)
                    draw_visible_from_field(field, word, x)
            for i in range(size):
                visible[n, i] = np.uint8(x[i])


@kernel
def count_transitions(states, counts):
    """Adds the transitions along each chain to ``counts``.

    ``states``  uint64 (chains, steps), every state below S;  ``counts``  int64 (chains, S, S), from row to column.
    """
    for c in prange(states.shape[0]):
        for t in range(states.shape[1] - 1):
            counts[c, states[c, t], states[c, t + 1]] += 1


@serial_kernel
def _all_bit_patterns(s, p):
    """p of all 2^L states, from the probabilities of their bits."""
    p[0] = 1.0
    for b in range(s.size):
        half = 1 << b
        for k in range(half):
            p[k + half] = p[k] * s[b]
            p[k] *= 1.0 - s[b]


@kernel
def average_transitions(theta, options, mean, first, samples, seeds, sums):
    """Rao-Blackwell estimate of M: draws x ~ A_z and adds up the probabilities p(z' | x), not draws of z'.

        M_zz' = sum_x A_zx Abar_xz'                                          (Eq. 3)

    With a first layer its bits are drawn too, and the probabilities are p(z' | y).

    ``first``    number of the first sample of a state, for runs in pieces.
    ``samples``  samples a state and block.
    ``sums``     float64 (models, S, blocks, S), written, S = L states or 2^L bit patterns: from state, block, to state.
    """
    models, size = theta.shape[0], mean.size
    hidden = options.hidden
    count, blocks = sums.shape[1], sums.shape[2]
    for unit in prange(models * count * blocks):
        m, z, block = unit // (count * blocks), unit // blocks % count, unit % blocks
        mine = aligned_copy(theta[m])
        w, _, a, _ = parts(mine, options, size)
        backward = backward_of(mine, options, mean)
        h = np.empty(hidden, theta.dtype)
        y, chances = np.empty(bits_of(options.first), theta.dtype), np.empty(bits_of(options.first))
        x = aligned(1, size, theta)[0]
        field = np.empty(size, theta.dtype)
        p, s = np.empty(count), np.empty(hidden)
        limits = np.empty((2, size), np.uint16)
        words = np.empty(2 * lanes_for((size + 1) // 2 + bits_of(options.first)), np.uint64)
        after = words.view(np.uint32)[(size + 1) // 2 :]
        on = np.empty(hidden, np.intp)
        if options.encoding == BITS:
            visible_fields(w, a, np.uint64(z), on, field)
        else:
            row_sum(w[z], a, field)
        thresholds(field, limits)
        total = sums[m, z, block]
        for b in range(count):
            total[b] = 0.0
        for k in range(samples):
            place = seeds[m], MARKOV + np.uint64(z), first + block * samples + k
            draw_words(words, *place)
            draw_visible(limits, words, place, x)
            hidden_law(options, backward, x, after, h, y, chances, p[:hidden], s)
            if options.encoding == BITS:
                _all_bit_patterns(s, p)
            for b in range(count):
                total[b] += p[b]


@kernel
def log_likelihood(theta, options, states, log_weights, data, size, out):
    """log p(x) = log sum_k exp(log_weights[k]) A_{z_k x} of every data point (Eq. 5 and App. A.3).

    ``states``       uint64 (models, K); ``log_weights`` float64 (models, K): all hidden states with the log of their
                     occupancy, or the T sampled ones with -log T each.
    ``out``          float64 (models, points), written.
    """
    models, points = out.shape
    hidden = options.hidden
    count = states.shape[1]
    fields = aligned(models * count, size, theta).reshape((models, count, size))
    constants = np.empty((models, count))
    for m in range(models):  # less work than some points of the data
        w, _, a, _ = parts(theta[m], options, size)
        state_fields(w, a, states[m], options.encoding, np.empty(hidden, np.intp), fields[m], constants[m])
    pieces = (points + _POINTS - 1) // _POINTS
    for unit in prange(models * pieces):
        m, piece = unit // pieces, unit % pieces
        x = aligned(1, size, theta)[0]
        products = np.empty(count, theta.dtype)
        logs = np.empty(count)
        for n in range(piece * _POINTS, min((piece + 1) * _POINTS, points)):
            copy_bits(data[n], x)
            out[m, n] = log_mixture(fields[m], constants[m], log_weights[m], x, products, logs)
