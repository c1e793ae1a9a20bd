"""The generative computer at full size, 784 + 512 units: 100 pictures, and a trajectory's lesson; ours beside peers.

``pytest -n 0 bench/bench_generative.py`` times every entry with pytest-benchmark; ``python bench/bench_generative.py``
takes turns between them and prints medians, ratios, and seconds of CPU, which tell more on a busy machine.

pictures   100 of them: noise from x = 0, uncoupled, then as many steps with the couplings on, float32.  Ours adds up
           the heat of both as well.  Peers multiply by the whole matrix; ours knows that visible units are not coupled
           (37% of it is zero).  The machine is as one that learned three images in closed form: hidden and visible
           units are coupled by a matrix of rank 4, of which ours takes the factors.  One peer is given them too.
full rank  The same of a machine whose couplings have no such factors, as the published and the online rule make them.
lesson     the gradient along one trajectory of one image, and the couplings changed by it (the published rule); ours
           also step by step (the online rule), which nobody else has without a product of 784 x 512 every step.

STEPS is a tenth of the paper's 2,500: all that is timed is proportional to it.
"""

import argparse
import functools
import os
import resource
import time

import numpy as np
import pytest
import turns

from thermokernels import network, noising, reversal
from thermorun.computer import Physics
from thermorun.computer.factors import factored

HIDDEN, UNITS, PICTURES, STEPS, RANK = 512, 1296, 100, 250, 4
SEED, STREAM = np.uint64(1), np.uint64(1)
PHYSICS = Physics(kT=0.1).kernel
PULL, KICK = PHYSICS.mobility * PHYSICS.dt, float(np.sqrt(2.0 * PHYSICS.mobility * PHYSICS.kT * PHYSICS.dt))
RATE = 4e-4
NOTHING = np.empty(0, np.intp), np.empty((0, PICTURES, UNITS), np.float32)


@functools.cache
def couplings(rank=None):
    """J as a trained machine's, float32; of that ``rank`` between hidden and visible units."""
    rng = np.random.default_rng(1)
    j = np.tril(rng.normal(0.0, 0.01, (UNITS, UNITS)), -1)
    j[HIDDEN:, HIDDEN:] = 0.0
    if rank is not None:
        j[HIDDEN:, :HIDDEN] = rng.normal(0.0, 0.01, (UNITS - HIDDEN, rank)) @ rng.normal(size=(rank, HIDDEN))
    return (j + j.T).astype(np.float32)


def ours_pictures(rank=None):
    j = factored(couplings(rank).astype(np.float64), HIDDEN, np.dtype(np.float32))
    zeros = np.zeros((PICTURES, UNITS), np.float32)

    def run():
        x, heat, status = zeros.copy(), np.zeros(PICTURES), np.zeros(PICTURES, np.int64)
        noising.noise(x, heat, status, zeros, zeros, np.zeros(STEPS), PHYSICS, (SEED, STREAM, 0), *NOTHING)
        network.simulate(x, heat, status, zeros, j, PHYSICS, (STEPS, STEPS), (SEED, STREAM), *NOTHING)
        return x

    return run


def torch_pictures(threads, rank=None, factors=False):
    import torch

    j = torch.tensor(couplings(rank))
    pairs, left, right = (
        torch.tensor(part.astype(np.float32))
        for part in factored(couplings(rank).astype(np.float64), HIDDEN, np.dtype(np.float32))
    )
    hidden = pairs[:HIDDEN, :HIDDEN].contiguous()

    def run():
        torch.set_num_threads(threads)
        with torch.no_grad():
            x, z, g = (torch.zeros(PICTURES, UNITS) for _ in range(3))
            for step in range(2 * STEPS):
                z.normal_()
                if step >= STEPS and factors:
                    torch.mm(x @ right.T, left.T, out=g)
                    g[:, :HIDDEN].addmm_(x[:, :HIDDEN], hidden)
                elif step >= STEPS:
                    torch.mm(x, j, out=g)
                force = torch.addcmul(x + x, x * x, x, value=4.0).add_(g)
                x.add_(force, alpha=-PULL).add_(z, alpha=KICK)
            return x.numpy()

    return run


def numpy_pictures(rank=None):
    j = couplings(rank)

    def run():
        rng = np.random.default_rng(1)
        x = np.zeros((PICTURES, UNITS), np.float32)
        for step in range(2 * STEPS):
            force = x * (np.float32(2) + np.float32(4) * x * x)
            if step >= STEPS:
                force += x @ j
            x -= np.float32(PULL) * force
            x += np.float32(KICK) * rng.standard_normal(x.shape, np.float32)
        return x

    return run


@functools.cache
def path():
    """A trajectory, float32 (steps + 1, units)."""
    moves = np.random.default_rng(2).normal(0.0, KICK, (STEPS + 1, UNITS))
    return np.cumsum(moves, axis=0).astype(np.float32)


def ours_lesson(online=False):
    field, free = np.zeros(UNITS, np.float32), np.zeros(UNITS, np.float32)

    def run():
        j = couplings().copy()
        change = j if online else np.zeros_like(j)
        reversal.learn(path(), field, free, j, change, HIDDEN, PHYSICS, (RATE, online), np.empty(UNITS), np.empty(1))
        return j if online else j + change

    return run


def torch_lesson():
    import torch

    x = torch.tensor(path())
    mask = torch.ones(UNITS, UNITS)
    mask[HIDDEN:, HIDDEN:] = 0.0
    mask.fill_diagonal_(0.0)

    def run():
        with torch.no_grad():
            j, after = torch.tensor(couplings()), x[1:]
            force = torch.addmm(after * (2.0 + 4.0 * after * after), after, j)
            r = (PULL * force - (after - x[:-1])).mul_(0.5 / PHYSICS.kT)
            g = r.T @ after
            return (j - RATE * mask * (g + g.T)).numpy()

    return run


def torch_lesson_autograd():
    import torch

    x = torch.tensor(path())
    mask = torch.ones(UNITS, UNITS)
    mask[HIDDEN:, HIDDEN:] = 0.0
    mask.fill_diagonal_(0.0)

    def run():
        j, after = torch.tensor(couplings(), requires_grad=True), x[1:]
        r = (PULL * (after * (2.0 + 4.0 * after * after) + after @ j) - (after - x[:-1])) * (0.5 / PHYSICS.kT)
        (r.square().sum() * (PHYSICS.kT / PULL)).backward()
        with torch.no_grad():
            return (j - RATE * mask * (j.grad + j.grad.T)).numpy()

    return run


THREADS = (1, os.cpu_count() or 1)
JOBS = {
    "pictures": {
        "ours": functools.partial(ours_pictures, RANK),
        **{f"PyTorch, {n}": functools.partial(torch_pictures, n, RANK) for n in THREADS},
        **{f"PyTorch, {n}, factors": functools.partial(torch_pictures, n, RANK, True) for n in THREADS},
        "NumPy": functools.partial(numpy_pictures, RANK),
    },
    "full rank": {
        "ours": ours_pictures,
        **{f"PyTorch, {n}": functools.partial(torch_pictures, n) for n in THREADS},
    },
    "lesson": {
        "ours": ours_lesson,
        "ours, online": functools.partial(ours_lesson, True),
        "PyTorch by hand": torch_lesson,
        "PyTorch autograd": torch_lesson_autograd,
    },
}
ENTRIES = [(job, name) for job, entries in JOBS.items() for name in entries]


def check(job, name, result):
    """Peers compute what ours does: pictures of the same spread, the same couplings."""
    truth = JOBS[job]["ours"]()()
    if job != "lesson":
        np.testing.assert_allclose(result.std(), truth.std(), rtol=0.02)
    elif name != "ours, online":
        np.testing.assert_allclose(result, truth, rtol=0, atol=2e-3 * np.abs(truth - couplings()).max())


@pytest.mark.parametrize(("job", "name"), ENTRIES)
def test_generative(benchmark, job, name):
    if not turns.installed(name):
        pytest.skip("not installed")
    run = JOBS[job][name]()
    check(job, name, run())
    benchmark.pedantic(run, rounds=3)


def cpu(run):
    """Seconds of CPU of one call, on all threads."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    run()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(turns.machine())
    for job, entries in JOBS.items():
        runs = {name: make() for name, make in entries.items() if turns.installed(name)}
        for name, run in runs.items():
            check(job, name, run())
        spent = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                time.sleep(0.3)  # for threads of other libraries that still spin
                spent[name].append(cpu(run))
        wall = turns.measure({name: (run, 1) for name, run in runs.items()}, arguments.rounds, 0.3)
        print()
        turns.table(job, {"ms": wall, "ms of CPU": {name: min(values) for name, values in spent.items()}}, "ours", 1e3)


if __name__ == "__main__":
    main()
