"""Stepping of a double well: ours beside PyTorch, JAX and a naive Numba loop, in one run.

``pytest -n 0 bench/bench_potentials.py`` times every entry with pytest-benchmark; ``python bench/bench_potentials.py``
takes turns between them, so that they share the machine's moods, and prints medians and ratios in ns a particle-step.

Every entry takes open-loop Euler-Maruyama steps in E = barrier (x^2 - 1)^2 + tilt x while the tilt goes from 0 to 1,
and adds up each particle's work in float64; ours adds up each particle's heat as well, which takes two more energies.

"user" is a potential as a user writes it, compiled through `compilation.kernels`.  "by hand" has its force and energies
written into a copy of the trap's kernel (langevin.drive): what it would cost had we made a kernel for this potential.
"exponential family" is the user's potential in that ready-made form.
"""

import argparse
import importlib.util
import itertools
import os
import platform
import time

import numba
import numpy as np
import pytest
from numba import njit, prange

import thermorun  # noqa: F401  (sets how long OpenMP's threads spin)
from thermokernels import random
from thermokernels._jit import device, kernel, wide_vectors
from thermokernels.random import BLOCK, LANES, fill_block
from thermorun.potentials import compilation, exponential_family

DT = 0.005
PULL, KICK = DT, np.sqrt(2 * DT)
BARRIER = 1.0
SEED, STREAM = np.uint64(1), np.uint64(1)


@njit
def energy(x, theta):
    return theta[0] * (x * x - 1.0) * (x * x - 1.0) + theta[1] * x


@njit
def force(x, theta):
    return -4.0 * theta[0] * x * (x * x - 1.0) - theta[1]


@njit
def gradient(x, theta):
    return (x * x - 1.0) * (x * x - 1.0), x


@device
def _hand_energy(x, barrier, tilt):
    return barrier * (x * x - 1.0) * (x * x - 1.0) + tilt * x


@device
def _hand_block(x, work, heat, normals, barrier, old_tilt, tilt, pull, kick):
    wide_vectors()
    for i in range(x.size):
        here = np.float64(x[i])
        start = _hand_energy(here, barrier, tilt)
        move = pull * (-4.0 * barrier * here * (here * here - 1.0) - tilt) + kick * np.float64(normals[i])
        x[i] = here + move
        work[i] += start - _hand_energy(here, barrier, old_tilt)
        heat[i] += _hand_energy(np.float64(x[i]), barrier, tilt) - start


@kernel
def _hand_drive(x, work, heat, steps, barrier, tilts, seed, stream):
    blocks = x.size // BLOCK
    for task in prange(64):
        rows = np.empty((2, LANES), np.uint64)
        normals = np.empty(BLOCK, np.float32)
        for block in range(task * blocks // 64, (task + 1) * blocks // 64):
            mine = slice(block * BLOCK, (block + 1) * BLOCK)
            my_x, my_work, my_heat = x[mine], work[mine], heat[mine]
            for n in range(steps.shape[0]):
                fill_block(normals, rows, seed, stream, block, n)
                _hand_block(my_x, my_work, my_heat, normals, barrier, tilts[n], tilts[n + 1], steps[n, 0], steps[n, 1])


def _ours(potential):
    def make(particles, steps, dtype):
        x, work, heat = np.zeros((1, 1, particles), dtype), np.zeros((1, particles)), np.zeros((1, particles))
        table = np.tile([PULL, KICK], (1, steps, 1))
        theta = np.stack([np.full(steps + 1, BARRIER), np.linspace(0, 1, steps + 1)], axis=1)[None].copy()
        blocks = particles // random.BLOCK
        record, status = np.empty((1, 1, blocks, 5)), np.full((1, blocks), -1)
        drive, rows = compilation.kernels(*potential, 1, 2, "euler-maruyama").drive, np.array([steps - 1])
        return lambda: drive(x, work, heat, 0, table, theta, (SEED, STREAM), rows, record, status)

    return make


def _family():
    made = exponential_family(
        "family", lambda x: 0.0 * x, lambda x: 0.0 * x,
        lambda x: ((x * x - 1.0) * (x * x - 1.0), x), lambda x: (4.0 * x * (x * x - 1.0), 1.0),
        ("barrier", "tilt"), (1.0, 0.0),
    )  # fmt: skip
    return made.energy, made.force, made.gradient


def by_hand(particles, steps, dtype):
    x, work, heat = np.zeros(particles, dtype), np.zeros(particles), np.zeros(particles)
    table, tilts = np.tile([PULL, KICK], (steps, 1)), np.linspace(0, 1, steps + 1)
    return lambda: _hand_drive(x, work, heat, table, BARRIER, tilts, SEED, STREAM)


def naive_numba(particles, steps, dtype):
    @njit(parallel=True, fastmath=True)
    def loop(x, work, tilts):
        for i in prange(x.size):
            for n in range(tilts.size - 1):
                work[i] += (tilts[n + 1] - tilts[n]) * x[i]
                drift = -4.0 * BARRIER * x[i] * (x[i] * x[i] - 1.0) - tilts[n + 1]
                x[i] += PULL * drift + KICK * np.random.standard_normal()  # noqa: NPY002 (what Numba knows)

    x, work, tilts = np.zeros(particles, dtype), np.zeros(particles), np.linspace(0, 1, steps + 1)
    return lambda: loop(x, work, tilts)


def torch_loop(particles, steps, dtype):
    import torch

    torch.set_num_threads(numba.get_num_threads())
    kind = torch.float32 if dtype == np.float32 else torch.float64
    x, work = torch.zeros(particles, dtype=kind), torch.zeros(particles, dtype=torch.float64)
    z, tilts = torch.empty(particles, dtype=kind), np.linspace(0, 1, steps + 1).tolist()

    def run():
        for old, new in itertools.pairwise(tilts):
            work.add_(x, alpha=new - old)
            z.normal_()
            drift = x * x
            drift.sub_(1.0).mul_(x).mul_(-4.0 * BARRIER).sub_(new)
            x.add_(drift, alpha=PULL).add_(z, alpha=KICK)

    return run


def jax_scan(particles, steps, dtype):
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def step(carry, pair):
        x, work, key = carry
        old, new = pair
        key, mine = jax.random.split(key)
        work = work + ((new - old) * x).astype(jnp.float64)
        drift = -4 * dtype(BARRIER) * x * (x * x - 1) - new
        x = x + dtype(PULL) * drift + dtype(KICK) * jax.random.normal(mine, x.shape, x.dtype)
        return (x, work, key), None

    tilts = jnp.linspace(0, 1, steps + 1, dtype=dtype)
    scan = jax.jit(lambda carry: jax.lax.scan(step, carry, (tilts[:-1], tilts[1:]))[0])
    start = (jnp.zeros(particles, dtype), jnp.zeros(particles), jax.random.key(1))
    return lambda: jax.block_until_ready(scan(start))


ENTRIES = {
    "ours, user": (_ours((energy, force, gradient)), 100),
    "ours, exponential family": (_ours(_family()), 100),
    "ours, by hand": (by_hand, 100),
    "naive Numba": (naive_numba, 10),
    "PyTorch": (torch_loop, 10),
    "JAX": (jax_scan, 10),
}
NEEDS = {"PyTorch": "torch", "JAX": "jax"}


def installed(name):
    return name not in NEEDS or importlib.util.find_spec(NEEDS[name]) is not None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ENTRIES)
def test_stepping(benchmark, name, dtype):
    if not installed(name):
        pytest.skip(f"{NEEDS[name]} is not installed")
    make, steps = ENTRIES[name]
    run = make(2**20, steps, dtype)
    run()
    benchmark.pedantic(run, rounds=5)
    benchmark.extra_info["ns_per_particle_step"] = benchmark.stats.stats.median / 2**20 / steps * 1e9


def measure(particles, rounds, dtype, names):
    """Median ns a particle-step of each entry, round by round in turn."""
    runs = {name: (ENTRIES[name][0](particles, ENTRIES[name][1], dtype), ENTRIES[name][1]) for name in names}
    times = {name: [] for name in names}
    for run, _ in runs.values():
        run()
    for _ in range(rounds):
        for name, (run, steps) in runs.items():
            began = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - began) / particles / steps * 1e9)
    return {name: float(np.median(values)) for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=2**20)
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    most = numba.config.NUMBA_NUM_THREADS
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {arguments.particles:,} particles")
    print(f"{'ns a particle-step':26}{'float32':>10}{'ratio':>8}{'float64':>10}{'ratio':>8}")
    names = [name for name in ENTRIES if installed(name)]
    for threads in (most, 1):
        numba.set_num_threads(threads)
        chosen = names if threads == most else [name for name in names if name.startswith("ours")]
        tables = [measure(arguments.particles, arguments.rounds, dtype, chosen) for dtype in (np.float32, np.float64)]
        print(f"{threads} thread{'s' * (threads > 1)}")
        for name in chosen:
            cells = (f"{table[name]:10.3f}{table[name] / table['ours, by hand']:8.2f}" for table in tables)
            print(f"{name:26}{''.join(cells)}")
    print("ratio: to ours, by hand, on as many threads")


if __name__ == "__main__":
    main()
