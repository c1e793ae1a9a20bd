"""Random numbers without state: Philox4x32-10 uniforms and normals.

A number is a pure function of (seed, stream, particle, step).  The generator is the counter-based Philox4x32-10 of
Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC11, 2011).  The 64-bit seed is its key.
Its counter is (lane, step, low word of the stream, high word of the stream).

One call of the generator gives four 32-bit words, and 256 lanes make a *block* of 1,024 particles.  With
``lane = 256 * block + l`` and words (w0, w1, w2, w3), the block lays its words out in two rows of 512:

    row 0:  w1(0) w0(0) w1(1) w0(1) ... w1(255) w0(255)
    row 1:  w3(0) w2(0) w3(1) w2(1) ... w3(255) w2(255)

Uniform ``p`` of a block is word ``p % 512`` of row ``p // 512``.  Normals ``j`` and ``j + 512`` are the two halves of
one Box-Muller pair, with the radius from row 0 and the angle from row 1.  This order is what the generator's last
round leaves in 64-bit lanes, so it costs no shuffles.

Normals are computed in single precision from all 32 bits of each word.  Their largest possible size is
sqrt(-2 ln 2^-33) = 6.76 (a probability of 1.4e-11).  They are off by less than 1e-6 r + 2^-24 / r, r being the radius
of the Box-Muller pair, and by 1.8e-7 rms (tests/test_random.py, every word).  A double-precision state driven by them
cannot be told from one driven by double-precision normals (bench/README.md).
"""

import math

import numpy as np
from numba import prange

from thermokernels._jit import bits_float, device, float_bits, kernel, serial_kernel, wide_vectors

BLOCK = 1024
LANES = 256

# Multipliers and key increments of Philox4x32 (Salmon et al. 2011, Sect. 3.3).
_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_KEY_STEP_0 = np.uint64(0x9E3779B9)
_KEY_STEP_1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF_WORD = np.uint64(32)

_F = np.float32
_I = np.int32

# Minimax polynomials (Remez exchange on a grid of 20,001 points; the error is relative for log and sine, absolute for
# cosine, and tests/test_random.py measures what is left of it in single precision).
# log(1 + f) / f for 1 + f in [sqrt(1/2), sqrt(2)], degree 7, error 1.7e-7.
_L0, _L1, _L2, _L3 = _F(0.999999945), _F(-0.500003651), _F(0.333350589), _F(-0.249699091)
_L4, _L5, _L6, _L7 = _F(0.199001654), _F(-0.172508297), _F(0.162225809), _F(-0.101068961)
# sin(pi a / 2) / a and cos(pi a / 2) in powers of a^2 for a in [-1, 1], errors 5e-9 and 5e-8.
_S0, _S1, _S2, _S3, _S4 = _F(1.57079632), _F(-0.645963711), _F(0.0796896789), _F(-0.00467376661), _F(0.000151485131)
_C0, _C1, _C2, _C3, _C4 = _F(0.999999953), _F(-1.23369821), _F(0.253650745), _F(-0.0208106275), _F(0.00085819062)
_LN2 = _F(math.log(2.0))
_SQRT_HALF_BITS = _I(0x3F3504F3)  # the float32 next to sqrt(1/2)
_MANTISSA = _I(0x007FFFFF)


@device
def _philox_rounds(c0, c1, c2, c3, k0, k1):
    """The first nine rounds; each word sits in the low half of a uint64, whose high half may hold anything."""
    for _ in range(9):
        product_0 = (c0 & _LOW) * _MULTIPLIER_0
        product_1 = (c2 & _LOW) * _MULTIPLIER_1
        c0, c1, c2, c3 = (product_1 >> _HALF_WORD) ^ c1 ^ k0, product_1, (product_0 >> _HALF_WORD) ^ c3 ^ k1, product_0
        k0 = (k0 + _KEY_STEP_0) & _LOW
        k1 = (k1 + _KEY_STEP_1) & _LOW
    return c0, c1, c2, c3, k0, k1


@device
def philox4x32(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10 of counter (c0, c1, c2, c3) under key (k0, k1), all 32-bit words in uint64.

    Returns the words in pairs, ``w0 << 32 | w1`` and ``w2 << 32 | w3``: the tenth round leaves them so.
    """
    c0, c1, c2, c3, k0, k1 = _philox_rounds(c0, c1, c2, c3, k0, k1)
    product_0 = (c0 & _LOW) * _MULTIPLIER_0
    product_1 = (c2 & _LOW) * _MULTIPLIER_1
    return product_1 ^ ((c1 ^ k0) << _HALF_WORD), product_0 ^ ((c3 ^ k1) << _HALF_WORD)


@device
def _radius(word):
    """sqrt(-2 ln u) with u = (word + 1/2) / 2^32."""
    bits = _I(float_bits(_F(word) + _F(0.5)) - _SQRT_HALF_BITS)
    exponent = _F(_I(_I(bits >> _I(23)) - _I(32)))
    f = bits_float(_I(_I(bits & _MANTISSA) + _SQRT_HALF_BITS)) - _F(1.0)
    f2 = f * f
    # Estrin's order: a Horner chain of this length would wait for itself.
    low = (_L0 + _L1 * f) + (_L2 + _L3 * f) * f2
    high = (_L4 + _L5 * f) + (_L6 + _L7 * f) * f2
    log_u = exponent * _LN2 + f * (low + high * (f2 * f2))
    # Rounding may leave log_u a hair above zero where u rounds to one.
    return _F(math.sqrt(max(_F(-2.0) * log_u, _F(0.0))))


@device
def _half_turn(word):
    """sin(pi a / 2) and cos(pi a / 2) with a = the word as int32 / 2^31, so a is uniform in [-1, 1)."""
    a = _F(_I(word)) * _F(2.0**-31)
    y = a * a
    y2 = y * y
    sine = a * ((_S0 + _S1 * y) + ((_S2 + _S3 * y) + _S4 * y2) * y2)
    cosine = (_C0 + _C1 * y) + ((_C2 + _C3 * y) + _C4 * y2) * y2
    return sine, cosine


@device
def _box_muller(radius_word, angle_word):
    """Two independent standard normals, r cos(pi a) and r sin(pi a), by the double-angle formulas."""
    sine, cosine = _half_turn(angle_word)
    radius = _radius(radius_word)
    twice = (radius + radius) * sine
    return radius - twice * sine, twice * cosine


@device
def fill_words(rows, seed, stream, block, step):
    """The 1,024 random words of one block: ``rows`` is uint64 of shape (2, 256), to be read as uint32 (2, 512)."""
    wide_vectors()
    k0, k1 = seed & _LOW, seed >> _HALF_WORD
    c2, c3 = stream & _LOW, stream >> _HALF_WORD
    first_lane = np.uint64(block) * np.uint64(LANES)
    row_0, row_1 = rows[0], rows[1]
    for lane in range(LANES):
        row_0[lane], row_1[lane] = philox4x32(first_lane + np.uint64(lane), np.uint64(step), c2, c3, k0, k1)


@device
def fill_block(normals, rows, seed, stream, block, step):
    """The 1,024 standard normals of one block: ``normals`` is float32 of shape (1024,), ``rows`` is scratch."""
    wide_vectors()
    fill_words(rows, seed, stream, block, step)
    radius_words, angle_words = rows[0].view(np.uint32), rows[1].view(np.uint32)
    for j in range(BLOCK // 2):
        normals[j], normals[j + BLOCK // 2] = _box_muller(radius_words[j], angle_words[j])


@serial_kernel
def philox_words(counter, key, words):
    """Philox4x32-10 of one counter, for known-answer tests: uint32 arrays of shapes (4,), (2,) and (4,)."""
    high, low = philox4x32(
        np.uint64(counter[0]), np.uint64(counter[1]), np.uint64(counter[2]), np.uint64(counter[3]),
        np.uint64(key[0]), np.uint64(key[1]),
    )  # fmt: skip
    words[0] = np.uint32(high >> _HALF_WORD)
    words[1] = np.uint32(high & _LOW)
    words[2] = np.uint32(low >> _HALF_WORD)
    words[3] = np.uint32(low & _LOW)


@device
def _uniform_block(out, rows, seed, stream, block, step):
    wide_vectors()
    fill_words(rows, seed, stream, block, step)
    words = rows.view(np.uint32)
    for i in range(out.size):
        out[i] = (np.float64(words[i // 512, i % 512]) + 0.5) * 2.0**-32


@device
def _normal_block(out, normals, rows, seed, stream, block, step):
    wide_vectors()
    fill_block(normals, rows, seed, stream, block, step)
    for i in range(out.size):
        out[i] = normals[i]


@kernel
def fill_uniforms(out, seed, stream, step):
    """Uniforms on (0, 1), ``out[p] = (word + 1/2) / 2^32`` for particle p.

    ``out`` is float64 of shape (particles,); ``seed`` and ``stream`` are uint64, ``step`` an integer below 2^32.
    """
    for block in prange((out.size + BLOCK - 1) // BLOCK):
        rows = np.empty((2, LANES), np.uint64)
        _uniform_block(out[block * BLOCK : (block + 1) * BLOCK], rows, seed, stream, block, step)


@kernel
def fill_normals(out, seed, stream, step):
    """Standard normals, ``out[p]`` for particle p; arguments as in ``fill_uniforms``, ``out`` float32 or float64."""
    for block in prange((out.size + BLOCK - 1) // BLOCK):
        rows = np.empty((2, LANES), np.uint64)
        normals = np.empty(BLOCK, np.float32)
        _normal_block(out[block * BLOCK : (block + 1) * BLOCK], normals, rows, seed, stream, block, step)
