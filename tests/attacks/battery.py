"""Random words for an outside battery of tests: neighbours among particles, steps and streams side by side.

    python tests/attacks/battery.py --bits 1e11 | dieharder -a -g 200 -Y 1 -k 2

writes 32-bit words to standard output, as PractRand (``RNG_test stdin32``) and dieharder read them.  A turn holds
``--particles`` words of each of ``--steps`` steps of each of ``--streams`` streams, in one of three orders: particles
next to each other, then steps, then streams; the next turn goes on with the steps that follow.
"""

import argparse
import sys

import numpy as np
from numba import njit, prange

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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=float, default=1e11)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--particles", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--streams", type=int, default=16)
    given = parser.parse_args()
    words, left, first = np.empty((given.streams, given.steps, given.particles), np.uint32), given.bits, 0
    orders = ((0, 1, 2), (0, 2, 1), (1, 2, 0))
    while left > 0:
        fill(words, given.seed, first)
        order = orders[first // given.steps % 3]
        try:
            sys.stdout.buffer.write(np.ascontiguousarray(words.transpose(order)).tobytes())
        except BrokenPipeError:  # the battery has seen enough
            return
        first, left = first + given.steps, left - words.nbytes * 8


if __name__ == "__main__":
    main()
