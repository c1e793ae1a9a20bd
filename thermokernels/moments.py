"""Adam's step (Kingma & Ba 2015, Algorithm 1), in one pass over the parameters."""

import math
from collections import namedtuple

from numba import prange

from thermokernels._jit import device, kernel, wide_vectors

Step = namedtuple("Step", "rate decay first second floor")
"""One step's numbers: the learning rate with both corrections of the bias in it, what weight decay adds to the gradient
a unit of the parameter, the memories of both moments, and what is added to the root."""

# Parameters that one thread takes at a time.
_PIECE = 4096


@device
def _adam(value, gradient, allowed, first, second, step):
    wide_vectors()
    number = value.dtype.type
    rate, decay, floor = number(step.rate), number(step.decay), number(step.floor)
    new_first, new_second = number(1.0 - step.first), number(1.0 - step.second)
    for i in range(value.size):
        g = (gradient[i] + decay * value[i]) * allowed[i]
        m = first[i] + new_first * (g - first[i])
        v = second[i] + new_second * (g * g - second[i])
        first[i] = m
        second[i] = v
        value[i] -= rate * m / (number(math.sqrt(v)) + floor)


@kernel
def adam(value, gradient, allowed, first, second, step):
    """Moves parameters down their gradient.

    ``value``     float32 or float64 (parameters,); updated.
    ``gradient``  dtype of value, (parameters,).
    ``allowed``   dtype of value, (parameters,): 1, or 0 for what stays as it is.
    ``first``     dtype of value, (parameters,): the mean gradient of late; updated.
    ``second``    dtype of value, (parameters,): the mean square of late; updated.
    ``step``      a `Step`.
    """
    for piece in prange(-(-value.size // _PIECE)):
        part = slice(piece * _PIECE, min((piece + 1) * _PIECE, value.size))
        _adam(value[part], gradient[part], allowed[part], first[part], second[part], step)
