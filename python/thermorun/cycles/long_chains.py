"""Long chains of a model, and how long generated images remember those before them."""

import numpy as np

from thermokernels.chains import run_chains
from thermorun import streams
from thermorun.arrays import Array
from thermorun.cycles.spec import CycleStudy
from thermorun.estimates import Estimate, jackknife, left_out_error

# Chains, and double steps before they count.
CHAINS, BURN = 32, 256
# Parts of a chain whose means are compared.
_PARTS = 4
# The double steps at which these begin, on the chains of the diagnostics (streams.py).
_FIRST, _MIXING = 2**30, 3 * 2**29


def spread_out(x: Array, count: int) -> Array:
    """``count`` points from all over the data, uint8 (count, D)."""
    return np.ascontiguousarray(x[np.arange(count) * 7919 % len(x)])


def chains(row: Array, spec: CycleStudy, mean: Array, x: Array, seed: int, steps: int) -> tuple[Array, Array]:
    """States of 32 chains after burn-in, uint64 (32, steps / 32), and the x they end with, uint8 (32, D)."""
    visible = spread_out(x, CHAINS)
    warm = np.empty((CHAINS, BURN), np.uint64)
    key, stream = streams.cycles(seed, "diagnostics").take(CHAINS)
    run_chains(row, spec.options, mean, visible, 0, key, stream, warm)
    states = np.empty((CHAINS, max(2, -(-steps // CHAINS))), np.uint64)
    run_chains(row, spec.options, mean, visible, BURN, key, stream, states)
    return states, visible


def effective_samples(row: Array, spec: CycleStudy, mean: Array, x: Array, seed: int, steps: int) -> Estimate:
    """Independent images that a double step is worth, and its standard error over 32 chains.

    sum_i Var(x_i) / (t sum_i Var(mean of x_i over t steps)) for four parts, of t steps each, of chains of ``steps``
    double steps, which start at points of ``x``, uint8 (points, D), after ``steps`` / 2 more.  It is
    1 / (1 + 2 sum_k C(k)) where the parts are longer than chains remember, and about 1 / t where they never forget.
    """
    _, visible = chains(row, spec, mean, x, seed, CHAINS)
    state, size = np.empty((CHAINS, 1), np.uint64), visible.shape[1]
    key, stream = streams.cycles(seed, "diagnostics").take(CHAINS)
    run_chains(row, spec.options, mean, visible, _MIXING, key, stream, np.empty((CHAINS, steps // 2), np.uint64))
    length = max(1, steps // _PARTS)
    means = np.zeros((CHAINS, _PARTS, size))
    for t in range(length * _PARTS):
        run_chains(row, spec.options, mean, visible, _MIXING + steps // 2 + t, key, stream, state)
        means[:, t // length] += visible / length

    def worth(some: Array) -> float:
        parts = some.reshape(-1, size)
        whole = parts.mean(axis=0)
        return float((whole * (1.0 - whole)).sum() / (length * max(parts.var(axis=0, ddof=1).sum(), 1e-300)))

    left = np.array([worth(np.delete(means, c, axis=0)) for c in range(CHAINS)])
    return Estimate(worth(means), float(left_out_error(left)), 1, CHAINS - 1.0)


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
