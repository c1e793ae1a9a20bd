"""exp, sigmoid and softplus without a call of a library, so that loops over them vectorise.

Every function takes float32 or float64 and answers in the same precision.  The relative error of ``exp`` is below
2e-7 in single and 2e-15 in double precision (tests/kernels/test_elementary.py).
"""

import math

import numpy as np
from numba.extending import overload

from thermokernels._jit import FASTMATH, bits_double, bits_float, serial_kernel, wide_vectors

_F = np.float32
_I = np.int32
_LN2 = math.log(2.0)


def exp(y):
    """exp(y) for y <= 0, by 2^n times a Taylor polynomial; no call of a library, so that loops vectorise."""
    return math.exp(y)


@overload(exp, jit_options={"forceinline": True, "fastmath": FASTMATH, "error_model": "numpy"})
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


@serial_kernel
def sigmoids(field, out):
    wide_vectors()
    one = field.dtype.type(1.0)
    for i in range(field.size):
        e = exp(-abs(field[i]))
        out[i] = (one if field[i] >= 0 else e) / (one + e)


@serial_kernel
def softplus_sum(field):
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
            product *= np.float64(one + exp(-abs(part[i])))
            linear += np.float64(max(part[i], zero))
        total += linear + math.log(product)
    return total
