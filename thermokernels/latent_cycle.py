"""Markov chains between visible bits x and hidden states z: fields, probabilities and draws.

    z -> x:  p(x_i = 1 | z) = sigmoid(f_i),   f = w z + a                        (Baiesi & Rosso, Eq. 10)
    x -> z:  fields h = wbar (x - mean) + abar, mean = the data's mean, and       (Eqs. 11 and 17)

    ``BITS``     every bit for itself, p(z_b = 1 | x) = sigmoid(h_b)              (Eq. 11)
    ``SOFTMAX``  one of L states, p(b | x) = exp(h_b) / sum_c exp(h_c)            (App. A.2)
    ``SIGMOID``  one of L states, p(b | x) = sigmoid(h_b) / sum_c sigmoid(h_c)    (Eq. 19)

A hidden state is a uint64: the bits themselves, z_b being bit b, or the number of the one state that is on.

With a first layer of bits y between x and states z, h are the fields of y, and z comes from it:

    x -> y:  p(y_b = 1 | x) = sigmoid(h_b)
    y -> z:  p(z | y) as above, from the fields v (y - 1/2) + c

Arrays that all kernels share:

``theta``    float32 or float64, (models, parameters): w (L, D), wbar (L, D), a (D,), abar (L,), one after another.
             A tied model keeps wbar equal to w.  With a first layer of B bits wbar is (B, D) and abar (B,), and
             v (L, B) and c (L,) follow.
``data``     uint8 of zeros and ones, (points, D).
``mean``     dtype of theta, (D,).
``seeds``    uint64, (models,).  A model is a pure function of its seed, whatever runs beside it.
``options``  a named tuple: hidden, L; encoding, one of the three above; tied, True for the equilibrium baseline (wbar =
             w, ascent of the joint likelihood), else None; chain_steps, T double steps before a gradient; rate, decay,
             floor: RMSProp's step, memory and addition to the root; first, B, or None without a first layer.  Of what
             None stands for no machine code is made.

Random words: the stream's high half says what for, its low half which chain or state; the step is the double step of
the chain.  The first words of a step choose the visible bits, the next ones the hidden state, the last a first layer.

A visible bit whose p(x_i = 1 | z) is known beforehand takes half a word, 16 bits, compared with the upper half of the
probability's 32 bits.  Where the two are equal, once in 65,536 draws, 16 more bits decide, from lane 2^31 + i.  So a
bit is one as often as a whole word lies below all 32 bits.  Bits of fields that were only just summed up take a word.
"""

import math
from collections import namedtuple

import numpy as np

from thermokernels._jit import device, serial_kernel, wide_vectors
from thermokernels.elementary import exp, softplus_sum
from thermokernels.products import dots
from thermokernels.random import philox4x32

SOFTMAX, SIGMOID, BITS = range(3)

# Another number wherever the words above come to decide something else: a run goes on only with draws of its own kind.
DRAWS = 2

CHAIN, BATCH, START, MARKOV, SAMPLE = (np.uint64(purpose << 32) for purpose in range(5))

ONE = np.uint64(1)
HALF_WORD = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_SETTLING = np.uint64(2**31)  # first of the lanes that no step reaches


Backward = namedtuple("Backward", "wbar shift upper")
"""What leads from x to z: wbar, the constant part of its fields, and v and c of a first layer, or None."""


# Numba leaves out what stands under the other answer to "is None", of arguments alone: hence these small functions.
@device
def bits_of(first):
    """Bits of a first layer; none without one."""
    if first is None:
        return 0
    return first


@device
def width(options):
    """Units that x acts on: those of a first layer, or the hidden ones."""
    bits = bits_of(options.first)
    return bits if bits > 0 else options.hidden


@device
def parts(row, options, size):
    """Views of one model's w, wbar, a and abar."""
    hidden, units = options.hidden, width(options)
    n, end = hidden * size, (hidden + units) * size
    w, wbar = row[:n].reshape((hidden, size)), row[n:end].reshape((units, size))
    return w, wbar, row[end : end + size], row[end + size : end + size + units]


@device
def upper_parts(row, hidden, first):
    """Views of v and c; None without a first layer."""
    if first is None:
        return None
    n = hidden * first
    end = row[row.size - n - hidden :]
    return end[:n].reshape((hidden, first)), end[n:]


@device
def backward_of(row, options, mean):
    """What leads from x to z."""
    _, wbar, _, abar = parts(row, options, mean.size)
    shift = np.empty(abar.size, row.dtype)
    hidden_shift(wbar, abar, mean, shift)
    return Backward(wbar, shift, upper_parts(row, options.hidden, options.first))


@serial_kernel
def draw_words(words, seed, stream, step):
    """All random words of one double step; ``words`` is uint64, half as long as the number of words."""
    wide_vectors()
    k0, k1 = seed & _LOW, seed >> HALF_WORD
    c2, c3 = stream & _LOW, stream >> HALF_WORD
    lanes = words.size // 2
    high, low = words[:lanes], words[lanes:]
    for lane in range(lanes):
        high[lane], low[lane] = philox4x32(np.uint64(lane), np.uint64(step), c2, c3, k0, k1)


@device
def visible_words(options, size):
    """Words of a double step that choose the visible bits; those that follow choose the hidden state."""
    return size if options.encoding == BITS else (size + 1) // 2


@device
def lanes_of_step(options, size):
    """Philox calls of a double step."""
    others = options.hidden if options.encoding == BITS else bits_of(options.first)
    return lanes_for(visible_words(options, size) + others)


@device
def lanes_for(words):
    """Philox calls for this many words and two spare ones (a one-hot draw takes 53 bits), in whole vectors."""
    return (words + 33) // 32 * 8


@serial_kernel
def visible_fields(w, a, z, on, field):
    """field = w z + a for a z of bits: the sum of the rows that are on, four a pass.  ``on`` is scratch, intp (L,)."""
    wide_vectors()
    hidden, size = w.shape
    count = 0
    for b in range(hidden):
        if (z >> np.uint64(b)) & ONE:
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
def row_sum(row, other, out):
    wide_vectors()
    for i in range(out.size):
        out[i] = row[i] + other[i]


@serial_kernel
def thresholds(field, out):
    """Upper and lower halves of 2^32 sigmoid(field[i]): x_i = 1 where a random word lies below; uint16 (2, D)."""
    wide_vectors()
    one = field.dtype.type(1.0)
    upper, lower = out[0], out[1]
    for i in range(field.size):
        e = exp(-abs(field[i]))
        p = (one if field[i] >= 0 else e) / (one + e)
        whole = np.int64(min(np.float64(p) * 4294967296.0, 4294967295.0))
        upper[i] = np.uint16(whole >> 16)
        lower[i] = np.uint16(whole & 0xFFFF)


@serial_kernel
def draw_visible(thresholds, words, place, x):
    """x from p(x | z), by the first ``words`` of a step at ``place``, which is its seed, stream and number."""
    wide_vectors()
    one, zero = x.dtype.type(1.0), x.dtype.type(0.0)
    upper, halves = thresholds[0], words.view(np.uint16)
    tied = False
    for i in range(x.size):
        x[i] = one if halves[i] < upper[i] else zero
        tied |= halves[i] == upper[i]
    if tied:
        _settle(thresholds, halves, place, x)


@serial_kernel
def _settle(thresholds, halves, place, x):
    """Draws the lower halves of words whose upper ones decide nothing."""
    seed, stream, step = place
    for i in range(x.size):
        if halves[i] == thresholds[0, i]:
            first, _ = philox4x32(
                _SETTLING + np.uint64(i), np.uint64(step), stream & _LOW, stream >> HALF_WORD, seed & _LOW,
                seed >> HALF_WORD,
            )  # fmt: skip
            x[i] = x.dtype.type(1.0 if (first & np.uint64(0xFFFF)) < thresholds[1, i] else 0.0)


@serial_kernel
def draw_visible_from_field(field, words, x):
    """The same from the fields, without their division, u < sigmoid(f): a word each, uint32."""
    wide_vectors()
    one, zero = x.dtype.type(1.0), x.dtype.type(0.0)
    scale, half = x.dtype.type(2.0**-32), x.dtype.type(0.5)
    for i in range(x.size):
        u = (x.dtype.type(np.float32(words[i])) + half) * scale
        e = exp(-abs(field[i]))
        x[i] = one if u * (one + e) < (one if field[i] >= zero else e) else zero


@serial_kernel
def hidden_shift(wbar, abar, mean, shift):
    """The constant part of the hidden fields, abar - wbar mean."""
    dots(wbar, mean, shift)
    for b in range(shift.size):
        shift[b] = abar[b] - shift[b]


@serial_kernel
def hidden_fields(wbar, shift, x, h):
    dots(wbar, x, h)
    for b in range(h.size):
        h[b] += shift[b]


@serial_kernel
def hidden_probabilities(h, encoding, p, s):
    """p(z | x) of one state each, or of one bit each; ``s`` gets the sigmoids of h, which a softmax has no use for.

    Both are float64, because p may be 1e-100.
    """
    wide_vectors()
    if encoding != SOFTMAX:
        for b in range(h.size):
            e = exp(-abs(np.float64(h[b])))
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
            e = exp(np.float64(h[b]) - top)
            p[b] = e
            total += e
    else:
        top = min(top, 0.0)
        for b in range(h.size):
            # sigmoid(h) exp(-top), which cannot vanish for all b at once
            f = np.float64(h[b])
            e = exp(min(f, 0.0) - top) / (1.0 + exp(-abs(f)))
            p[b] = e
            total += e
    for b in range(h.size):
        p[b] /= total


@device
def hidden_law(options, backward, x, words, h, y, chances, p, s):
    """p(z | x) as in ``hidden_probabilities``, given the bits of a first layer where there is one.

    ``words``  those of a step that come after the visible ones;  ``h`` (L,) gets the fields of z.
    ``y``      like x, (B,), written: the bits, drawn with ``chances``, float64 (B,), less 1/2.
    ``p``      float64 (L,), written, as is ``s``.
    """
    _fields_of_state(backward.wbar, backward.shift, backward.upper, x, words[2:], h, y, chances)
    hidden_probabilities(h, options.encoding, p, s)


@serial_kernel
def _fields_of_state(wbar, shift, upper, x, words, h, y, chances):
    """Fields of z; with a first layer also its bits from p(y | x), less 1/2, and these probabilities."""
    if upper is None:
        hidden_fields(wbar, shift, x, h)
    else:
        hidden_fields(wbar, shift, x, y)
        hidden_probabilities(y, BITS, chances, chances)
        drawn = draw_hidden(chances, BITS, words)
        for b in range(y.size):
            y[b] = np.float64((drawn >> np.uint64(b)) & ONE) - 0.5
        v, c = upper
        hidden_fields(v, c, y, h)


@serial_kernel
def draw_hidden(p, encoding, words):
    """z from the probabilities of ``hidden_probabilities``."""
    z = np.uint64(0)
    if encoding == BITS:
        for b in range(p.size):
            if np.float64(words[b]) + 0.5 < p[b] * 4294967296.0:
                z |= ONE << np.uint64(b)
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
def field_gradient(z, p, s, encoding, out):
    """d log p(z | x) / d h_b."""
    for b in range(p.size):
        if encoding == BITS:
            out[b] = np.float64((z >> np.uint64(b)) & ONE) - p[b]
        else:
            mine = (1.0 if z == np.uint64(b) else 0.0) - p[b]
            out[b] = mine if encoding == SOFTMAX else (1.0 - s[b]) * mine


@serial_kernel
def state_fields(w, a, states, encoding, on, fields, constants):
    """Visible fields of many hidden states and the logarithms of their normalisations, sum_i log(1 + exp(f_i))."""
    for k in range(states.size):
        if encoding == BITS:
            visible_fields(w, a, states[k], on, fields[k])
        else:
            row_sum(w[states[k]], a, fields[k])
        constants[k] = softplus_sum(fields[k])


@serial_kernel
def copy_bits(bits, x):
    """uint8 to floating point."""
    wide_vectors()
    one = x.dtype.type(1.0)
    for i in range(x.size):
        x[i] = one * bits[i]


@device
def largest_of(sizes):
    """The largest of some numbers; NumPy's way takes half a second to compile."""
    largest = 0
    for k in range(sizes.size):
        largest = max(largest, sizes[k])
    return largest


@serial_kernel
def draw_batch(data, words, seed, step, batch):
    """Points of ``data`` into ``batch``, with replacement; ``words`` is uint64, for the largest of batches."""
    draw_words(words, seed, BATCH, step)
    chosen = words.view(np.uint32)
    for n in range(batch.shape[0]):
        copy_bits(data[(np.uint64(chosen[n]) * np.uint64(data.shape[0])) >> HALF_WORD], batch[n])


@serial_kernel
def log_mixture(fields, constants, log_weights, x, products, logs):
    """log sum_k exp(log_weights[k] + log A_kx), and leaves the terms in ``logs`` (float64)."""
    wide_vectors()
    dots(fields, x, products)
    top = -np.inf
    for k in range(products.size):
        logs[k] = log_weights[k] + (np.float64(products[k]) - constants[k])
        top = max(top, logs[k])
    if not top > -np.inf:
        return top + logs[0]
    total = 0.0
    for k in range(products.size):
        total += exp(logs[k] - top)
    return top + math.log(total)
