"""Stepping of the trap: ours beside NumPy, a naive Numba loop, PyTorch and JAX, in one run.

``pytest -n 0 bench/bench_learning.py`` times every entry with pytest-benchmark; ``python bench/bench_learning.py``
takes turns between them, so that they share the machine's moods, and prints medians and ratios in ns a particle-step.

Every entry takes open-loop steps of an ensemble while theta goes from 0 to 1, and adds up each particle's work in
float64; ours adds up each particle's heat as well.  "closed loop" is ours with theta learned.
"""

import argparse

import numba
import numpy as np
import pytest
import turns

from thermorun.speeds import KICK, PEERS, PULL, closed_loop, open_loop


def naive_numba(particles, steps, dtype):
    @numba.njit(parallel=True, fastmath=True)
    def loop(x, work, theta, pull, kick):
        for i in numba.prange(x.size):
            for n in range(theta.size - 1):
                work[i] += (theta[n + 1] - theta[n]) * (0.5 * (theta[n] + theta[n + 1]) - x[i])
                x[i] += pull * (theta[n + 1] - x[i]) + kick * np.random.standard_normal()  # noqa: NPY002 (what Numba knows)

    x, work, theta = np.zeros(particles, dtype), np.zeros(particles), np.linspace(0, 1, steps + 1)
    return lambda: loop(x, work, theta, dtype(PULL), dtype(KICK))


ENTRIES = {
    "ours, open loop": (open_loop, 100),
    "ours, closed loop": (closed_loop, 100),
    "naive Numba": (naive_numba, 10),
    **PEERS,
}
DTYPES = {"float32": np.float32, "float64": np.float64}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_stepping(benchmark, name, dtype):
    if not turns.installed(name):
        pytest.skip("not installed")
    make, steps = ENTRIES[name]
    run = make(2**20, steps, DTYPES[dtype])
    run()
    benchmark.pedantic(run, rounds=5)
    benchmark.extra_info["ns_per_particle_step"] = benchmark.stats.stats.median / 2**20 / steps * 1e9


def measured(names, particles, rounds):
    """Seconds a particle-step of entries, in both precisions."""
    columns = {}
    for heading, dtype in DTYPES.items():
        made = {name: ENTRIES[name] for name in names}
        entries = {name: (make(particles, steps, dtype), particles * steps) for name, (make, steps) in made.items()}
        columns[heading] = turns.measure(entries, rounds)
    return columns


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=2**20)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    names = [name for name in ENTRIES if turns.installed(name)]
    for threads in sorted({1, numba.config.NUMBA_NUM_THREADS}, reverse=True):
        numba.set_num_threads(threads)
        print(f"{turns.machine()}, {arguments.particles:,} particles")
        # Peers are timed on all threads only.
        chosen = names if threads > 1 else [name for name in names if name.startswith("ours")]
        columns = measured(chosen, arguments.particles, arguments.rounds)
        turns.table("ns a particle-step", columns, "ours, open loop", scale=1e9)


if __name__ == "__main__":
    main()
