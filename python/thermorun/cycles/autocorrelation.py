"""How long generated images remember those before them."""

import numpy as np

from thermokernels.chains import run_chains
from thermorun import streams
from thermorun.arrays import Array
from thermorun.cycles.diagnostics import CHAINS, chains
from thermorun.cycles.spec import CycleStudy
from thermorun.estimates import Estimate, jackknife

# The double step at which these begin, on the chains of the diagnostics (streams.py).
_FIRST = 2**30


def autocorrelation(row: Array, spec: CycleStudy, mean: Array, x: Array, seed: int, lags: int) -> Estimate:
    """Autocorrelation of generated images, (lags + 1,), and its standard error over 32 chains.

    C(k) = sum_i Cov(x_i(t), x_i(t + k)) / sum_i Var(x_i), from chains of eight times ``lags`` double steps that start
    at points of ``x``, uint8 (points, D).
    """
    _, visible = chains(row, spec, mean, x, seed, CHAINS)
    steps = 8 * lags
    path = np.empty((CHAINS, steps, visible.shape[1]), np.float32)
    state = np.empty((CHAINS, 1), np.uint64)
    key, stream = streams.cycles(seed, "diagnostics").take(CHAINS)
    for t in range(steps):
        run_chains(row, spec.options, mean, visible, _FIRST + t, key, stream, state)
        path[:, t] = visible
    path -= path.mean(axis=(0, 1))
    each = np.stack(
        [(path[:, : steps - k] * path[:, k:]).sum(axis=2).mean(axis=1) for k in range(lags + 1)], axis=1
    ).astype(float)  # fmt: skip
    return jackknife(each, lambda c: c / c[0])
