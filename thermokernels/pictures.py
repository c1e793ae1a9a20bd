"""Pictures a little turned, moved and scaled, each in a way of its own, as inputs of a network.

Pixel (r, c) of the new picture is read, by bilinear interpolation, where the old one has

    y = y0 + (cos a (r - y0) - sin a (c - x0)) / s + dy,     x = x0 + (sin a (r - y0) + cos a (c - x0)) / s + dx,

(y0, x0) being the centre, and beyond the edge at the edge.  Angle a, size s and moves are uniform about 0, 1
and 0: the four words of one call of the generator, a function of seed, stream and the picture's place.
"""

import math

import numpy as np
from numba import prange

from thermokernels._jit import device, kernel, wide_vectors
from thermokernels.blocks import TASKS, share
from thermokernels.products import copy
from thermokernels.random import philox4x32

_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


@device
def _signed(word):
    """A word as a uniform number between -1 and 1."""
    return (np.float64(word & _LOW) + 0.5) * 2.0**-31 - 1.0


@device
def _index(row, column):
    """The sum, without a sign: Numba would ask whether it counts from the end."""
    return np.uint32(np.int32(row + column))


@device
def _places(columns, up, across):
    """Rows and columns of all pixels, counted from the centre."""
    rows = up.size // columns
    for k in range(up.size):
        up[k] = k // columns - 0.5 * (rows - 1)
        across[k] = k % columns - 0.5 * (columns - 1)


@device
def _warp(picture, columns, up, across, turn, shift, out):
    """Reads a picture where the map says: ``turn`` is (cos a, sin a) / s, ``shift`` (dy, dx).

    In one loop over all pixels: rows alone would leave most of a vector empty.
    """
    wide_vectors()
    number = picture.dtype.type
    rows = picture.size // columns
    cosine, sine = number(turn[0]), number(turn[1])
    middle_y, middle_x = number(0.5 * (rows - 1) + shift[0]), number(0.5 * (columns - 1) + shift[1])
    last_y, last_x, zero, one = number(rows - 1), number(columns - 1), number(0.0), np.int32(1)
    wide, last_row, last_column = np.int32(columns), np.int32(rows - 1), np.int32(columns - 1)
    for k in range(out.size):
        y = min(max(middle_y + (cosine * up[k] - sine * across[k]), zero), last_y)
        x = min(max(middle_x + (sine * up[k] + cosine * across[k]), zero), last_x)
        i, j = np.int32(y), np.int32(x)
        # The last pixel has no next one, and then its weight is zero.
        right, below = min(np.int32(j + one), last_column), min(np.int32(i + one), last_row)
        beside, under = x - number(j), y - number(i)
        high, low = np.int32(i * wide), np.int32(below * wide)
        left = picture[_index(high, j)]
        top = left + beside * (picture[_index(high, right)] - left)
        left = picture[_index(low, j)]
        bottom = left + beside * (picture[_index(low, right)] - left)
        out[k] = top + under * (bottom - top)


@device
def _standardise(row, mean, deviation, norm):
    """(brightness - mean) / deviation, scaled to an L2 norm; a row of zeros stays one."""
    wide_vectors()
    number = row.dtype.type
    centre, inverse = number(mean), number(1.0 / deviation)
    total = number(0.0)
    for i in range(row.size):
        value = (row[i] - centre) * inverse
        row[i] = value
        total += value * value
    scale = number(norm / math.sqrt(total)) if total > number(0.0) else number(1.0)
    for i in range(row.size):
        row[i] *= scale


@kernel
def distort(pictures, columns, chosen, strength, pixels, noise, out):
    """Inputs of chosen pictures, distorted.

    ``pictures``  float32 (points, rows * columns), brightnesses.
    ``chosen``    intp (batch,), which of them.
    ``strength``  the largest angle in radians, move as a share of rows and of columns, and change of size.
    ``pixels``    mean, deviation, norm: inputs are (brightness - mean) / deviation, each picture's scaled to this norm.
    ``noise``     seed and stream, uint64.
    ``out``       float32 or float64 (batch, rows * columns), written.
    """
    for task in prange(TASKS):
        rows = pictures.shape[1] // columns
        up, across = np.empty(pictures.shape[1], pictures.dtype), np.empty(pictures.shape[1], pictures.dtype)
        warped = np.empty(pictures.shape[1], pictures.dtype)
        _places(columns, up, across)
        for p in share(task, chosen.size):
            high, low = philox4x32(
                np.uint64(p), np.uint64(0), noise[1] & _LOW, noise[1] >> _WORD, noise[0] & _LOW, noise[0] >> _WORD
            )
            angle, size = strength[0] * _signed(high), 1.0 + strength[2] * _signed(high >> _WORD)
            moves = (strength[1] * rows * _signed(low), strength[1] * columns * _signed(low >> _WORD))
            turn = (math.cos(angle) / size, math.sin(angle) / size)
            if strength[0] == 0.0 and strength[1] == 0.0 and strength[2] == 0.0:
                copy(warped, pictures[chosen[p]])
            else:
                _warp(pictures[chosen[p]], columns, up, across, turn, moves, warped)
            _standardise(warped, pixels[0], pixels[1], pixels[2])
            for i in range(warped.size):
                out[p, i] = warped[i]
