"""Markov chains between visible bits x and hidden states z, and their ascent of the two-step likelihood.

    z -> x:  p(x_i = 1 | z) = sigmoid(f_i),   f = w z + a                        (Baiesi & Rosso, Eq. 10)
    x -> z:  fields h = wbar (x - mean) + abar, mean = the data's mean, and       (Eqs. 11 and 17)

    ``BITS``     every bit for itself, p(z_b = 1 | x) = sigmoid(h_b)              (Eq. 11)
    ``SOFTMAX``  one of L states, p(b | x) = exp(h_b) / sum_c exp(h_c)            (App. A.2)
    ``SIGMOID``  one of L states, p(b | x) = sigmoid(h_b) / sum_c sigmoid(h_c)    (Eq. 19)

A hidden state is a uint64: the bits themselves, z_b being bit b, or the number of the one state that is on.

Arrays that all kernels share:

``theta``    float32 or float64, (models, parameters): w (L, D), wbar (L, D), a (D,), abar (L,), one after another.
             A tied model keeps wbar equal to w.
``data``     uint8 of zeros and ones, (points, D).
``mean``     dtype of theta, (D,).
``seeds``    uint64, (models,).  A model is a pure function of its seed, whatever runs beside it.
``options``  a named tuple: encoding, one of the three above; tied, 1 for the equilibrium baseline (wbar = w, ascent of
             the joint likelihood); chain_steps, T double steps before a gradient; rate, decay, floor: RMSProp's step,
             memory and addition to the root.

Random words: the stream's high half says what for, its low half which chain or state; the step is the double step of
the chain.  Words 0 to D - 1 of a step choose the visible bits, the next ones the hidden state.
"""

import math

import numpy as np
from numba import prange
from numba.extending import overload

from thermokernels._jit import FASTMATH, bits_double, bits_float, device, kernel, serial_kernel, wide_vectors
from thermokernels.random import philox4x32

SOFTMAX, SIGMOID, BITS = range(3)

CHAIN, BATCH, START, MARKOV, SAMPLE = (np.uint64(purpose << 32) for purpose in range(5))

_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)
_ONE = np.uint64(1)
_F = np.float32
_I = np.int32
_LN2 = math.log(2.0)
_TASKS = 64
# Weights and gradients below this are set to zero: products of numbers so small leave the normal range of float32,
# where processors take a hundred times as long.  RMSProp's floor makes gradients a billion times larger harmless.
_NEGLIGIBLE = 1e-18
# The likelihood's matrix product goes over the data in pieces of this many points.
_POINTS = 32


def _exp(y):
    """exp(y) for y <= 0, by 2^n times a Taylor polynomial; no call of a library, so that loops vectorise."""
    return math.exp(y)


@overload(_exp, jit_options={"forceinline": True, "fastmath": FASTMATH, "error_model": "numpy"})
def _exp_by_type(y):
    if getattr(y, "bitwidth", 64) == 32:

        def single(y):
            y = max(y, _F(-87.0))
            n = _I(y * _F(1.0 / _LN2) - _F(0.5))
            r = y - _F(n) * _F(_LN2)
            r2 = r * r
            low = (_F(1.0) + r) + (_F(1.0 / 2) + _F(1.0 / 6) * r) * r2
            high = (_F(1.0 / 24) + _F(1.0 / 120) * r) + (_F(1.0 / 720) + _F(1.0 / 5040) * r) * r2
            return (low + high * (r2 * r2)) * bits_float(_I(_I(n + _I(127)) << _I(23)))

        return single

    def double(y):
        y = max(y, -708.0)
        n = np.int64(y * (1.0 / _LN2) - 0.5)
        r = y - np.float64(n) * _LN2
        r2 = r * r
        r4 = r2 * r2
        p0 = (1.0 + r) + (1.0 / 2 + 1.0 / 6 * r) * r2
        p1 = (1.0 / 24 + 1.0 / 120 * r) + (1.0 / 720 + 1.0 / 5040 * r) * r2
        p2 = (1.0 / 40320 + 1.0 / 362880 * r) + (1.0 / 3628800 + 1.0 / 39916800 * r) * r2
        p3 = 1.0 / 479001600 + 1.0 / 6227020800 * r
        return (p0 + r4 * (p1 + r4 * (p2 + r4 * p3))) * bits_double((n + np.int64(1023)) << np.int64(52))

    return double


# ------------------------------------------------------------------------------------------------ one model's pieces


@device
def _parts(row, hidden, size):
    """Views of one model's w, wbar, a and abar."""
    n = hidden * size
    w, wbar = row[:n].reshape((hidden, size)), row[n : 2 * n].reshape((hidden, size))
    return w, wbar, row[2 * n : 2 * n + size], row[2 * n + size :]


@device
def _aligned(count, size, like):
    """An empty array (count, size) of the dtype of ``like`` that begins a cache line.

    A 512-bit load that straddles two lines takes twice as long, and our products of rows do little but load.
    """
    buffer = np.empty(count * size + 64 // like.itemsize, like.dtype)
    skip = (64 - buffer.ctypes.data % 64) % 64 // like.itemsize
    return buffer[skip : skip + count * size].reshape((count, size))


@device
def _aligned_copy(row):
    copy = _aligned(1, row.size, row)[0]
    copy[:] = row
    return copy


@serial_kernel
def _draw_words(words, seed, stream, step):
    """All random words of one double step; ``words`` is uint64, half as long as the number of words."""
    wide_vectors()
    k0, k1 = seed & _LOW, seed >> _WORD
    c2, c3 = stream & _LOW, stream >> _WORD
    lanes = words.size // 2
    high, low = words[:lanes], words[lanes:]
    for lane in range(lanes):
        high[lane], low[lane] = philox4x32(np.uint64(lane), np.uint64(step), c2, c3, k0, k1)


@device
def _lanes(words):
    """Philox calls for this many words and two spare ones (a one-hot draw takes 53 bits), in whole vectors."""
    return (words + 33) // 32 * 8


@serial_kernel
def _dots(rows, x, out):
    """out[s] = rows[s] . x, six rows a pass: fewer sums at a time would wait for their own last addition."""
    wide_vectors()
    count, size = rows.shape
    zero = rows.dtype.type(0.0)
    s = 0
    while s + 6 <= count:
        r0, r1, r2, r3, r4, r5 = rows[s], rows[s + 1], rows[s + 2], rows[s + 3], rows[s + 4], rows[s + 5]
        t0, t1, t2, t3, t4, t5 = zero, zero, zero, zero, zero, zero
        for i in range(size):
            t0 += r0[i] * x[i]
            t1 += r1[i] * x[i]
            t2 += r2[i] * x[i]
            t3 += r3[i] * x[i]
            t4 += r4[i] * x[i]
            t5 += r5[i] * x[i]
        out[s], out[s + 1], out[s + 2], out[s + 3], out[s + 4], out[s + 5] = t0, t1, t2, t3, t4, t5
        s += 6
    while s < count:
        r0 = rows[s]
        t0 = zero
        for i in range(size):
            t0 += r0[i] * x[i]
        out[s] = t0
        s += 1


@serial_kernel
def _add_products(factors, rows, out):
    """out[s] += sum_n factors[s, n] rows[n].

    Eight rows a pass, so that out is loaded and stored less often; the same eight for all s, while they are in cache.
    """
    wide_vectors()
    count, size = rows.shape
    n = 0
    while n + 8 <= count:
        r0, r1, r2, r3 = rows[n], rows[n + 1], rows[n + 2], rows[n + 3]
        r4, r5, r6, r7 = rows[n + 4], rows[n + 5], rows[n + 6], rows[n + 7]
        for s in range(out.shape[0]):
            c0, c1, c2, c3 = factors[s, n], factors[s, n + 1], factors[s, n + 2], factors[s, n + 3]
            c4, c5, c6, c7 = factors[s, n + 4], factors[s, n + 5], factors[s, n + 6], factors[s, n + 7]
            o = out[s]
            for i in range(size):
                o[i] += (
                    ((c0 * r0[i] + c1 * r1[i]) + (c2 * r2[i] + c3 * r3[i]))
                    + ((c4 * r4[i] + c5 * r5[i]) + (c6 * r6[i] + c7 * r7[i]))
                )  # fmt: skip
        n += 8
    while n < count:
        r0 = rows[n]
        for s in range(out.shape[0]):
            c0 = factors[s, n]
            o = out[s]
            for i in range(size):
                o[i] += c0 * r0[i]
        n += 1


@serial_kernel
def _visible_fields(w, a, z, on, field):
    """field = w z + a for a z of bits: the sum of the rows that are on, four a pass.  ``on`` is scratch, intp (L,)."""
    wide_vectors()
    hidden, size = w.shape
    count = 0
    for b in range(hidden):
        if (z >> np.uint64(b)) & _ONE:
            on[count] = b
            count += 1
    for i in range(size):
        field[i] = a[i]
    k = 0
    while k + 4 <= count:
        r0, r1, r2, r3 = w[on[k]], w[on[k + 1]], w[on[k + 2]], w[on[k + 3]]
        for i in range(size):
            field[i] += (r0[i] + r1[i]) + (r2[i] + r3[i])
        k += 4
    while k < count:
        r0 = w[on[k]]
        for i in range(size):
            field[i] += r0[i]
        k += 1


@serial_kernel
def _row_sum(row, other, out):
    wide_vectors()
    for i in range(out.size):
        out[i] = row[i] + other[i]


@serial_kernel
def _thresholds(field, out):
    """out[i] = 2^32 sigmoid(field[i]): x_i = 1 where a random word lies below it."""
    wide_vectors()
    one = field.dtype.type(1.0)
    for i in range(field.size):
        e = _exp(-abs(field[i]))
        p = (one if field[i] >= 0 else e) / (one + e)
        out[i] = np.uint32(np.int64(min(np.float64(p) * 4294967296.0, 4294967295.0)))


@serial_kernel
def _draw_visible(thresholds, words, x):
    wide_vectors()
    one, zero = x.dtype.type(1.0), x.dtype.type(0.0)
    for i in range(x.size):
        x[i] = one if words[i] < thresholds[i] else zero


@serial_kernel
def _draw_visible_from_field(field, words, x):
    """As ``_draw_visible``, without the division: u < sigmoid(f)."""
    wide_vectors()
    one, zero = x.dtype.type(1.0), x.dtype.type(0.0)
    scale, half = x.dtype.type(2.0**-32), x.dtype.type(0.5)
    for i in range(x.size):
        u = (x.dtype.type(np.float32(words[i])) + half) * scale
        e = _exp(-abs(field[i]))
        x[i] = one if u * (one + e) < (one if field[i] >= zero else e) else zero


@serial_kernel
def _sigmoids(field, out):
    wide_vectors()
    one = field.dtype.type(1.0)
    for i in range(field.size):
        e = _exp(-abs(field[i]))
        out[i] = (one if field[i] >= 0 else e) / (one + e)


@serial_kernel
def _softplus_sum(field):
    """sum_i log(1 + exp(f_i)), the logarithm taken of products of 512 factors between one and two."""
    wide_vectors()
    total = 0.0
    one = field.dtype.type(1.0)
    zero = field.dtype.type(0.0)
    for first in range(0, field.size, 512):
        part = field[first : first + 512]
        product = 1.0
        linear = 0.0
        for i in range(part.size):
            product *= np.float64(one + _exp(-abs(part[i])))
            linear += np.float64(max(part[i], zero))
        total += linear + math.log(product)
    return total


@serial_kernel
def _hidden_shift(wbar, abar, mean, shift):
    """The constant part of the hidden fields, abar - wbar mean."""
    _dots(wbar, mean, shift)
    for b in range(shift.size):
        shift[b] = abar[b] - shift[b]


@serial_kernel
def _hidden_fields(wbar, shift, x, h):
    _dots(wbar, x, h)
    for b in range(h.size):
        h[b] += shift[b]


@serial_kernel
def _hidden_probabilities(h, encoding, p, s):
    """p(z | x) of one state each, or of one bit each; ``s`` gets the sigmoids of h, which a softmax has no use for.

    Both are float64, because p may be 1e-100.
    """
    wide_vectors()
    if encoding != SOFTMAX:
        for b in range(h.size):
            e = _exp(-abs(np.float64(h[b])))
            s[b] = (1.0 if h[b] >= 0 else e) / (1.0 + e)
    if encoding == BITS:
        for b in range(h.size):
            p[b] = s[b]
        return
    top = np.float64(h[0])
    for b in range(h.size):
        top = max(top, np.float64(h[b]))
    total = 0.0
    if encoding == SOFTMAX:
        for b in range(h.size):
            e = _exp(np.float64(h[b]) - top)
            p[b] = e
            total += e
    else:
        top = min(top, 0.0)
        for b in range(h.size):
            # sigmoid(h) exp(-top), which cannot vanish for all b at once
            f = np.float64(h[b])
            e = _exp(min(f, 0.0) - top) / (1.0 + _exp(-abs(f)))
            p[b] = e
            total += e
    for b in range(h.size):
        p[b] /= total


@serial_kernel
def _draw_hidden(p, encoding, words):
    """z from the probabilities of ``_hidden_probabilities``."""
    z = np.uint64(0)
    if encoding == BITS:
        for b in range(p.size):
            if np.float64(words[b]) + 0.5 < p[b] * 4294967296.0:
                z |= _ONE << np.uint64(b)
        return z
    u = ((np.float64(words[0]) + 0.5) * 2.0**-32 + np.float64(words[1])) * 2.0**-32
    total = 0.0
    last = 0
    for b in range(p.size):
        if p[b] > 0.0:
            last = b
            total += p[b]
            if u < total:
                return np.uint64(b)
    return np.uint64(last)


@serial_kernel
def _slopes(z, p, s, encoding, out):
    """d log p(z | x) / d h_b."""
    for b in range(p.size):
        if encoding == BITS:
            out[b] = np.float64((z >> np.uint64(b)) & _ONE) - p[b]
        else:
            mine = (1.0 if z == np.uint64(b) else 0.0) - p[b]
            out[b] = mine if encoding == SOFTMAX else (1.0 - s[b]) * mine


@serial_kernel
def _state_fields(w, a, states, encoding, on, fields, constants):
    """Visible fields of many hidden states and the logarithms of their normalisations, sum_i log(1 + exp(f_i))."""
    for k in range(states.size):
        if encoding == BITS:
            _visible_fields(w, a, states[k], on, fields[k])
        else:
            _row_sum(w[states[k]], a, fields[k])
        constants[k] = _softplus_sum(fields[k])


@serial_kernel
def _copy_bits(bits, x):
    """uint8 to floating point."""
    wide_vectors()
    one = x.dtype.type(1.0)
    for i in range(x.size):
        x[i] = one * bits[i]


@serial_kernel
def _log_mixture(fields, constants, log_weights, x, dots, logs):
    """log sum_k exp(log_weights[k] + log A_kx), and leaves the terms in ``logs`` (float64)."""
    wide_vectors()
    _dots(fields, x, dots)
    top = -np.inf
    for k in range(dots.size):
        logs[k] = log_weights[k] + (np.float64(dots[k]) - constants[k])
        top = max(top, logs[k])
    if not top > -np.inf:
        return top + logs[0]
    total = 0.0
    for k in range(dots.size):
        total += _exp(logs[k] - top)
    return top + math.log(total)


# --------------------------------------------------------------------------------------------------------- gradient


@serial_kernel
def _two_step(row, options, mean, fantasies, states, probabilities, sigmoids, batch, gradient, on):
    """Gradient of the mean log-likelihood of ``batch``, Eqs. 16 and 17, from T steps of the chain; returns that mean.

    In one-hot modes only how often a state occurred matters, so the sums over steps are sums over L states.
    """
    hidden, size = sigmoids.shape[1], mean.size
    steps, points = states.size, batch.shape[0]
    w, _, a, _ = _parts(row, hidden, size)
    one_hot = options.encoding != BITS
    count = hidden if one_hot else steps
    support = np.empty(count, np.uint64)
    log_weights = np.empty(count)
    visits = np.zeros(hidden)
    if one_hot:
        for t in range(steps):
            visits[states[t]] += 1.0
        for k in range(count):
            support[k] = k
            log_weights[k] = math.log(visits[k] / steps) if visits[k] > 0 else -np.inf
    else:
        for k in range(count):
            support[k] = states[k]
            log_weights[k] = -math.log(steps)
    fields = _aligned(count, size, row)
    constants = np.empty(count)
    _state_fields(w, a, support, options.encoding, on, fields, constants)

    # r_n(z) / N
    shares = np.empty((count, points), row.dtype)
    share = np.zeros(count)
    dots = np.empty(count, row.dtype)
    logs = np.empty(count)
    likelihood = 0.0
    for n in range(points):
        log_p = _log_mixture(fields, constants, log_weights, batch[n], dots, logs)
        likelihood += log_p
        for k in range(count):
            r = math.exp(logs[k] - log_p) / points
            if r < _NEGLIGIBLE:
                r = 0.0
            share[k] += r
            shares[k, n] = r
    likelihood /= points

    for i in range(gradient.size):
        gradient[i] = 0
    g_w, g_wbar, g_a, g_abar = _parts(gradient, hidden, size)
    if options.tied:
        _joint(row, options, mean, fantasies, probabilities, batch, gradient)
        return likelihood

    # Eq. 16a, b: data minus model for every state, handed on to the rows of w that the state turns on.
    by_state = g_w if one_hot else np.zeros((count, size), row.dtype)
    _add_products(shares, batch, by_state)
    mu = np.empty(size, row.dtype)
    for k in range(count):
        _sigmoids(fields[k], mu)
        _subtract(by_state[k], mu, share[k])
    if not one_hot:
        bits = np.empty((hidden, count), row.dtype)
        for b in range(hidden):
            for k in range(count):
                bits[b, k] = np.float64((states[k] >> np.uint64(b)) & _ONE)
        _add_products(bits, by_state, g_w)
        _add_products(np.ones((1, count), row.dtype), by_state, g_a.reshape((1, size)))

    # Eqs. 16d and 17.
    factors = np.empty((hidden, steps), row.dtype)
    slopes = np.empty(hidden)
    total = np.zeros(hidden)
    for t in range(steps):
        q = share[states[t]] / visits[states[t]] if one_hot else share[t]
        _slopes(states[t], probabilities[t], sigmoids[t], options.encoding, slopes)
        for b in range(hidden):
            factor = q * slopes[b]
            if abs(factor) < _NEGLIGIBLE:
                factor = 0.0
            factors[b, t] = factor
            total[b] += factor
    _add_products(factors, fantasies[:steps], g_wbar)
    for b in range(hidden):
        if abs(total[b]) < _NEGLIGIBLE:
            total[b] = 0.0
        g_abar[b] = total[b]
        _subtract(g_wbar[b], mean, total[b])
    return likelihood


@serial_kernel
def _subtract(out, row, factor):
    """out -= factor row."""
    wide_vectors()
    factor = out.dtype.type(factor)
    for i in range(out.size):
        out[i] -= factor * row[i]


@serial_kernel
def _joint(row, options, mean, fantasies, probabilities, batch, gradient):
    """Gradient of the tied model, whose stationary p(x, z) ~ exp(x.(w z) - mean.(w z) + a.x + abar.z): the moments
    of the data minus those of the persistent chain, both averaged over z given x."""
    hidden, size, points, steps = probabilities.shape[1], mean.size, batch.shape[0], probabilities.shape[0]
    _, wbar, _, abar = _parts(row, hidden, size)
    g_w, _, g_a, g_abar = _parts(gradient, hidden, size)
    shift = np.empty(hidden, row.dtype)
    _hidden_shift(wbar, abar, mean, shift)
    h = np.empty(hidden, row.dtype)
    p, s = np.empty(hidden), np.empty(hidden)
    factors = np.empty((hidden, points), row.dtype)
    totals = np.zeros(hidden)
    for n in range(points):
        _hidden_fields(wbar, shift, batch[n], h)
        _hidden_probabilities(h, options.encoding, p, s)
        for b in range(hidden):
            factor = 0.0 if p[b] < _NEGLIGIBLE else p[b] / points
            factors[b, n] = factor
            totals[b] += factor
    _add_products(factors, batch, g_w)
    model = np.empty((hidden, steps), row.dtype)
    for t in range(steps):
        for b in range(hidden):
            factor = 0.0 if probabilities[t, b] < _NEGLIGIBLE else probabilities[t, b] / steps
            model[b, t] = -factor
            totals[b] -= factor
    _add_products(model, fantasies[:steps], g_w)
    for b in range(hidden):
        g_abar[b] = totals[b]
        _subtract(g_w[b], mean, totals[b])
    if options.encoding == BITS:
        _add_products(np.full((1, points), 1.0 / points).astype(row.dtype), batch, g_a.reshape((1, size)))
        _add_products(np.full((1, steps), -1.0 / steps).astype(row.dtype), fantasies[:steps], g_a.reshape((1, size)))


@serial_kernel
def _climb(row, square, gradient, rate, decay, floor):
    """RMSProp ascent: v = decay v + (1 - decay) g^2, theta += rate g / (sqrt(v) + floor).

    v is kept above 1e-36, far below floor^2, lest it decay into the slow numbers near zero.
    """
    wide_vectors()
    least, zero = row.dtype.type(1e-36), row.dtype.type(0.0)
    negligible = row.dtype.type(_NEGLIGIBLE)
    rate, floor = row.dtype.type(rate), row.dtype.type(floor)
    keep, take = row.dtype.type(decay), row.dtype.type(1.0 - decay)
    for i in range(row.size):
        g = zero if abs(gradient[i]) < negligible else gradient[i]
        v = max(keep * square[i] + take * (g * g), least)
        square[i] = v
        row[i] += rate * g / (row.dtype.type(math.sqrt(v)) + floor)


@serial_kernel
def _chain(row, options, mean, fantasies, states, probabilities, sigmoids, thresholds, words, on, seed, stream, first):
    """T double steps from ``fantasies[0]``: fills fantasies[1:], the states and p(z | x) of every step (Eq. 18)."""
    hidden, size = sigmoids.shape[1], mean.size
    w, wbar, a, abar = _parts(row, hidden, size)
    shift = np.empty(hidden, row.dtype)
    h = np.empty(hidden, row.dtype)
    field = np.empty(size, row.dtype)
    _hidden_shift(wbar, abar, mean, shift)
    one_hot = options.encoding != BITS
    if one_hot:
        for b in range(hidden):
            _row_sum(w[b], a, field)
            _thresholds(field, thresholds[b])
    word = words.view(np.uint32)
    for t in range(states.size):
        _draw_words(words, seed, stream, first + t)
        _hidden_fields(wbar, shift, fantasies[t], h)
        _hidden_probabilities(h, options.encoding, probabilities[t], sigmoids[t])
        z = _draw_hidden(probabilities[t], options.encoding, word[size:])
        states[t] = z
        if one_hot:
            _draw_visible(thresholds[z], word, fantasies[t + 1])
        else:
            _visible_fields(w, a, z, on, field)
            _draw_visible_from_field(field, word, fantasies[t + 1])


@kernel
def train(theta, square, visible, status, data, mean, sizes, first, options, seeds, trace):
    """Gradient steps ``first`` to ``first + len(sizes) - 1`` of many models, each on one persistent chain.

    ``square``   as theta: RMSProp's running mean of the squared gradient; updated.
    ``visible``  uint8 (models, D): the chain's present x; updated.
    ``status``   int64 (models,): 0, or one more than the step at which the likelihood was no longer finite.  Such a
                 model keeps the parameters it had before that step; the others go on.
    ``sizes``    intp (steps,): points in every minibatch, drawn with replacement.
    ``trace``    float64 (models, steps), written: the minibatch log-likelihood of App. A.3.

    One-hot models keep a as it is, because w absorbs it (Eq. 20).
    """
    models, points, size = theta.shape[0], data.shape[0], mean.size
    hidden = (theta.shape[1] - size) // (2 * size + 1)
    steps = options.chain_steps
    for m in prange(models):
        row = _aligned_copy(theta[m])
        fantasies = _aligned(steps + 1, size, theta)
        states = np.empty(steps, np.uint64)
        probabilities = np.empty((steps, hidden))
        sigmoids = np.empty((steps, hidden))
        thresholds = np.empty((hidden if options.encoding != BITS else 1, size), np.uint32)
        words = np.empty(2 * _lanes(size + hidden), np.uint64)
        batch_words = np.empty(2 * _lanes(np.max(sizes)), np.uint64)
        batches = _aligned(np.max(sizes), size, theta)
        gradient = _aligned(1, theta.shape[1], theta)[0]
        on = np.empty(hidden, np.intp)
        n_w = hidden * size
        _copy_bits(visible[m], fantasies[0])
        for k in range(sizes.size):
            if status[m] != 0:
                trace[m, k] = np.nan
                continue
            step = first + k
            _chain(
                row, options, mean, fantasies, states, probabilities, sigmoids, thresholds, words, on,
                seeds[m], CHAIN, step * steps,
            )  # fmt: skip
            batch = batches[: sizes[k]]
            _draw_words(batch_words, seeds[m], BATCH, step)
            chosen = batch_words.view(np.uint32)
            for n in range(sizes[k]):
                _copy_bits(data[(np.uint64(chosen[n]) * np.uint64(points)) >> _WORD], batch[n])
            trace[m, k] = _two_step(row, options, mean, fantasies, states, probabilities, sigmoids, batch, gradient, on)
            if not math.isfinite(trace[m, k]):
                status[m] = step + 1
                continue
            if options.encoding != BITS:
                gradient[2 * n_w : 2 * n_w + size] = 0
            _climb(row, square[m], gradient, options.rate, options.decay, options.floor)
            if options.tied:
                row[n_w : 2 * n_w] = row[:n_w]
            fantasies[0] = fantasies[steps]
        theta[m] = row
        for i in range(size):
            visible[m, i] = np.uint8(fantasies[0, i])


@serial_kernel
def two_step_gradient(row, options, mean, fantasies, states, batch, gradient):
    """Gradient of the mean log-likelihood of ``batch`` from given fantasies and states; returns that mean.

    ``row``        (parameters,), one model; ``fantasies`` (T, D) and ``batch`` (N, D) have its dtype.
    ``states``     uint64 (T,).
    ``gradient``   dtype of row, (parameters,), written: Eqs. 16 and 17, or, for a tied model, the moments of the joint
                   distribution, data minus chain.
    """
    size = mean.size
    hidden = (row.size - size) // (2 * size + 1)
    _, wbar, _, abar = _parts(row, hidden, size)
    shift = np.empty(hidden, row.dtype)
    h = np.empty(hidden, row.dtype)
    probabilities = np.empty((states.size, hidden))
    sigmoids = np.empty((states.size, hidden))
    _hidden_shift(wbar, abar, mean, shift)
    for t in range(states.size):
        _hidden_fields(wbar, shift, fantasies[t], h)
        _hidden_probabilities(h, options.encoding, probabilities[t], sigmoids[t])
    on = np.empty(hidden, np.intp)
    return _two_step(row, options, mean, fantasies, states, probabilities, sigmoids, batch, gradient, on)


# ------------------------------------------------------------------------------------------------ chains and estimates


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
    hidden = (row.size - size) // (2 * size + 1)
    one_hot = options.encoding != BITS
    w, wbar, a, abar = _parts(_aligned_copy(row), hidden, size)
    shift = np.empty(hidden, row.dtype)
    _hidden_shift(wbar, abar, mean, shift)
    thresholds = np.empty((hidden if one_hot else 1, size), np.uint32)
    if one_hot:
        for b in range(hidden):
            field = np.empty(size, row.dtype)
            _row_sum(w[b], a, field)
            _thresholds(field, thresholds[b])
    for task in prange(_TASKS):
        x = _aligned(1, size, row)[0]
        h = np.empty(hidden, row.dtype)
        field = np.empty(size, row.dtype)
        p, s = np.empty(hidden), np.empty(hidden)
        words = np.empty(2 * _lanes(size + hidden), np.uint64)
        word = words.view(np.uint32)
        on = np.empty(hidden, np.intp)
        for c in range(task * chains // _TASKS, (task + 1) * chains // _TASKS):
            _copy_bits(visible[c], x)
            for t in range(states.shape[1]):
                _draw_words(words, seed, stream + np.uint64(c), first + t)
                _hidden_fields(wbar, shift, x, h)
                _hidden_probabilities(h, options.encoding, p, s)
                z = _draw_hidden(p, options.encoding, word[size:])
                states[c, t] = z
                if one_hot:
                    _draw_visible(thresholds[z], word, x)
                else:
                    _visible_fields(w, a, z, on, field)
                    _draw_visible_from_field(field, word, x)
            for i in range(size):
                visible[c, i] = np.uint8(x[i])


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

    ``first``    number of the first sample of a state, for runs in pieces.
    ``samples``  samples a state and block.
    ``sums``     float64 (models, S, blocks, S), written, S = L states or 2^L bit patterns: from state, block, to state.
    """
    models, size = theta.shape[0], mean.size
    hidden = (theta.shape[1] - size) // (2 * size + 1)
    count, blocks = sums.shape[1], sums.shape[2]
    for unit in prange(models * count * blocks):
        m, z, block = unit // (count * blocks), unit // blocks % count, unit % blocks
        w, wbar, a, abar = _parts(_aligned_copy(theta[m]), hidden, size)
        shift = np.empty(hidden, theta.dtype)
        h = np.empty(hidden, theta.dtype)
        x = _aligned(1, size, theta)[0]
        field = np.empty(size, theta.dtype)
        p, s = np.empty(count), np.empty(hidden)
        thresholds = np.empty(size, np.uint32)
        words = np.empty(2 * _lanes(size), np.uint64)
        word = words.view(np.uint32)
        on = np.empty(hidden, np.intp)
        _hidden_shift(wbar, abar, mean, shift)
        if options.encoding == BITS:
            _visible_fields(w, a, np.uint64(z), on, field)
        else:
            _row_sum(w[z], a, field)
        _thresholds(field, thresholds)
        total = sums[m, z, block]
        total[:] = 0.0
        for k in range(samples):
            _draw_words(words, seeds[m], MARKOV + np.uint64(z), first + block * samples + k)
            _draw_visible(thresholds, word, x)
            _hidden_fields(wbar, shift, x, h)
            if options.encoding == BITS:
                _hidden_probabilities(h, BITS, p[:hidden], s)
                _all_bit_patterns(s, p)
            else:
                _hidden_probabilities(h, options.encoding, p, s)
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
    hidden = (theta.shape[1] - size) // (2 * size + 1)
    count = states.shape[1]
    fields = _aligned(models * count, size, theta).reshape((models, count, size))
    constants = np.empty((models, count))
    for m in prange(models):
        w, _, a, _ = _parts(theta[m], hidden, size)
        _state_fields(w, a, states[m], options.encoding, np.empty(hidden, np.intp), fields[m], constants[m])
    pieces = (points + _POINTS - 1) // _POINTS
    for unit in prange(models * pieces):
        m, piece = unit // pieces, unit % pieces
        x = _aligned(1, size, theta)[0]
        dots = np.empty(count, theta.dtype)
        logs = np.empty(count)
        for n in range(piece * _POINTS, min((piece + 1) * _POINTS, points)):
            _copy_bits(data[n], x)
            out[m, n] = _log_mixture(fields[m], constants[m], log_weights[m], x, dots, logs)
