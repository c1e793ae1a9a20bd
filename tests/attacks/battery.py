"""Random words for an outside battery of tests: neighbours among particles, steps and streams side by side.

    python tests/attacks/battery.py --testu01 Crush
    python tests/attacks/battery.py --bits 1e11 | dieharder -a -g 200 -Y 1 -k 2

The first hands the words to TestU01 (L'Ecuyer & Simard 2007; libtestu01-0-dev of Debian's non-free), a battery of which
takes as many as it wants, Crush about 2^35.  The second writes 32-bit words to standard output, as PractRand
(``RNG_test stdin32``) and dieharder read them.  A turn holds ``--particles`` words of each of ``--steps`` steps of each
of ``--streams`` streams, in one of three orders: particles next to each other, then steps, then streams; the next turn
goes on with the steps that follow.
"""

import argparse
import ctypes
import itertools
import sys
from ctypes.util import find_library

import numpy as np
from numba import carray, cfunc, njit, prange, types

import thermorun  # noqa: F401  (sets how long OpenMP's threads spin)
from thermokernels.random import BLOCK, LANES, fill_words


@njit(parallel=True, nogil=True)
def fill(words, seed, first_step):
    """``words`` (streams, steps, particles) uint32, of the steps from ``first_step`` on."""
    for task in prange(words.shape[0] * words.shape[1]):
        stream, step = task // words.shape[1], task % words.shape[1]
        rows = np.empty((2, LANES), np.uint64)
        for block in range(words.shape[2] // BLOCK):
            fill_words(rows, np.uint64(seed), np.uint64(stream), block, np.uint64(first_step + step))
            flat = rows.view(np.uint32)
            for i in range(BLOCK):
                words[stream, step, block * BLOCK + i] = flat[i // 512, i % 512]


def turns(given):
    """The words of one turn after the other, uint32 in its order, without end."""
    words = np.empty((given.streams, given.steps, given.particles), np.uint32)
    orders = ((0, 1, 2), (0, 2, 1), (1, 2, 0))
    for number in itertools.count():
        fill(words, given.seed, number * given.steps)
        yield np.array(words.transpose(orders[number % 3]), order="C").ravel()


class Generator(ctypes.Structure):
    """TestU01's ``unif01_Gen``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("state", "param")),
        ("name", ctypes.c_char_p),
        *((name, ctypes.c_void_p) for name in ("uniform", "bits", "write")),
    )


def generator(more, size):
    """A ``unif01_Gen`` of the arrays of ``size`` words that ``more`` yields, and what must live as long as it."""
    state = np.full(1 + size, size, np.uint32)  # how many of the words after it are used up, and the words

    @ctypes.CFUNCTYPE(None)
    def refill():
        state[0], state[1:] = 0, next(more)

    @njit
    def following(state):
        words = carray(state, 1 + size, np.uint32)
        if words[0] == size:
            refill()
        words[0] += 1
        return words[words[0]]

    @cfunc(types.uint64(types.voidptr, types.voidptr))
    def bits(param, state):
        return following(state)

    @cfunc(types.float64(types.voidptr, types.voidptr))
    def uniform(param, state):
        return following(state) * 2.0**-32

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def write(_):
        pass

    functions = (uniform.address, bits.address, ctypes.cast(write, ctypes.c_void_p))
    return Generator(state.ctypes.data, None, b"thermokernels", *functions), (state, refill, uniform, bits, write)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=float, default=1e11)
    parser.add_argument("--testu01", choices=["SmallCrush", "Crush", "BigCrush"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--particles", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--streams", type=int, default=16)
    given = parser.parse_args()
    if given.testu01:
        if not (found := find_library("testu01")):
            raise SystemExit("no libtestu01 is installed")
        made, _alive = generator(turns(given), given.streams * given.steps * given.particles)
        getattr(ctypes.CDLL(found), f"bbattery_{given.testu01}")(ctypes.byref(made))
        return
    left = given.bits
    for words in turns(given):
        if left <= 0:
            return
        try:
            sys.stdout.buffer.write(words)
        except BrokenPipeError:  # the battery has seen enough
            return
        left -= words.nbytes * 8


if __name__ == "__main__":
    main()
