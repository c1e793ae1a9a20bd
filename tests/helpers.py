"""What the tests share: thread counts, the kernels' noise, statistics."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Before Numba is imported: the tests compare one thread with two, on a single core too.
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, os.cpu_count() or 1)))

import numpy as np
from scipy import stats

from thermokernels.random import fill_normals

LEAST_P = 2 * stats.norm.sf(4)  # of a test without a z: as unlikely as |z| = 4


def z_score(sample, truth):
    """How many of its own standard errors the mean of a sample lies from the truth."""
    return (np.mean(sample) - truth) / (np.std(sample, ddof=1) / np.sqrt(np.size(sample)))


def symmetric(units, scale=1.0):
    """Couplings of every pair of a network's units."""
    j = np.random.default_rng(units).normal(0.0, scale, (units, units))
    return np.tril(j, -1) + np.tril(j, -1).T


def kernel_normals(seed, stream, step, particles):
    """The kernels' own single-precision noise, for twins that should agree to rounding."""
    out = np.empty(particles)
    fill_normals(out, np.uint64(seed), np.uint64(stream), step)
    return out


def digests_compiled_and_loaded(cache, *modules):
    """What ``digest()`` of test modules gives in processes that compile into an empty cache, and in some that load from
    it."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}

    def digest(module):
        script = [sys.executable, "-c", f"import {module}; print({module}.digest())"]
        done = subprocess.run(script, cwd=Path(__file__).parent, env=environment, check=True, capture_output=True)
        return done.stdout

    with ThreadPoolExecutor() as pool:
        return [list(pool.map(digest, modules)) for _ in range(2)]
