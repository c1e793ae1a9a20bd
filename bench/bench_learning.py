"""Stepping of the trap: ours beside NumPy, a naive Numba loop, PyTorch and JAX, in one run.

``pytest -n 0 bench/bench_learning.py`` times every entry with pytest-benchmark; ``python bench/bench_learning.py``
takes turns between them, so that they share the machine's moods, and prints medians and ratios in ns a particle-step.

Every entry takes open-loop steps of an ensemble while theta goes from 0 to 1, and adds up each particle's work in
float64; ours adds up each particle's heat as well.  "closed loop" is ours with theta learned.
"""

import argparse
import itertools

import numba
import numpy as np
import pytest
import turns

import thermorun  # noqa: F401  (sets how long OpenMP's threads spin)
from thermokernels import random, trap

DT = 0.005
PULL, KICK = -np.expm1(-DT), np.sqrt(-np.expm1(-2 * DT))
SEED, STREAM = np.uint64(1), np.uint64(1)


def ours_open(particles, steps, dtype):
    x, work, heat = np.zeros((1, particles), dtype), np.zeros((1, particles)), np.zeros((1, particles))
    table = np.tile([0.0, PULL, KICK], (steps, 1))
    theta = np.linspace(0, 1, steps + 1)[None].copy()
    record = np.empty((1, 1, particles // random.BLOCK, len(trap.DRIVE_COLUMNS)))
    rows = np.array([steps - 1])
    return lambda: trap.drive(x, work, heat, particles, 0, table, theta, (SEED, STREAM), rows, record)


def ours_closed(particles, steps, dtype):
    x, blocks = np.zeros((1, particles), dtype), particles // random.BLOCK
    table = np.tile([DT, PULL, KICK], (steps, 1))
    target, state = np.ones((steps, 1)), np.zeros((1, 2))
    sums, responses = np.zeros((1, blocks, 3)), np.zeros((1, 4, blocks))
    trace = np.empty((steps, 1, len(trap.LEARN_COLUMNS)))
    return lambda: trap.learn(x, particles, 0, table, target, (SEED, STREAM), state, sums, responses, trace)


def numpy_loop(particles, steps, dtype):
    rng, x, work = np.random.default_rng(1), np.zeros(particles, dtype), np.zeros(particles)
    z, theta = np.empty(particles, dtype), np.linspace(0, 1, steps + 1)
    pull, kick = dtype(PULL), dtype(KICK)

    def run():
        for old, new in itertools.pairwise(theta):
            np.add(work, (new - old) * (dtype(0.5 * (old + new)) - x), out=work)
            rng.standard_normal(out=z, dtype=dtype)
            x[...] += pull * (dtype(new) - x) + kick * z

    return run


def naive_numba(particles, steps, dtype):
    @numba.njit(parallel=True, fastmath=True)
    def loop(x, work, theta, pull, kick):
        for i in numba.prange(x.size):
            for n in range(theta.size - 1):
                work[i] += (theta[n + 1] - theta[n]) * (0.5 * (theta[n] + theta[n + 1]) - x[i])
                x[i] += pull * (theta[n + 1] - x[i]) + kick * np.random.standard_normal()  # noqa: NPY002 (what Numba knows)

    x, work, theta = np.zeros(particles, dtype), np.zeros(particles), np.linspace(0, 1, steps + 1)
    return lambda: loop(x, work, theta, dtype(PULL), dtype(KICK))


def torch_loop(particles, steps, dtype):
    import torch

    torch.set_num_threads(numba.get_num_threads())
    kind = torch.float32 if dtype == np.float32 else torch.float64
    x, work = torch.zeros(particles, dtype=kind), torch.zeros(particles, dtype=torch.float64)
    z, theta = torch.empty(particles, dtype=kind), np.linspace(0, 1, steps + 1).tolist()

    def run():
        for old, new in itertools.pairwise(theta):
            work.add_(0.5 * (old + new) - x, alpha=new - old)
            z.normal_()
            x.mul_(1 - PULL).add_(PULL * new).add_(z, alpha=KICK)

    return run


def jax_scan(particles, steps, dtype):
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def step(carry, pair):
        x, work, key = carry
        old, new = pair
        key, mine = jax.random.split(key)
        work = work + ((new - old) * (0.5 * (old + new) - x)).astype(jnp.float64)
        x = x + dtype(PULL) * (new - x) + dtype(KICK) * jax.random.normal(mine, x.shape, x.dtype)
        return (x, work, key), None

    theta = jnp.linspace(0, 1, steps + 1, dtype=dtype)
    scan = jax.jit(lambda carry: jax.lax.scan(step, carry, (theta[:-1], theta[1:]))[0])
    start = (jnp.zeros(particles, dtype), jnp.zeros(particles), jax.random.key(1))
    return lambda: jax.block_until_ready(scan(start))


ENTRIES = {
    "ours, open loop": (ours_open, 100),
    "ours, closed loop": (ours_closed, 100),
    "NumPy": (numpy_loop, 5),
    "naive Numba": (naive_numba, 10),
    "PyTorch": (torch_loop, 10),
    "JAX": (jax_scan, 10),
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
