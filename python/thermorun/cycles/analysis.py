"""Diagnostics of trained models: transition matrix, occupancy, likelihood, classes, each with its sampling error."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermokernels import latent_cycle
from thermorun.cycles import markov
from thermorun.cycles.model import MAX_STATES, Model, log_backward, state_count
from thermorun.cycles.spec import CycleStudy
from thermorun.datasets import Dataset
from thermorun.errors import InputError

Array = NDArray[Any]

BLOCKS = 16
_CHAINS = 32
_BURN = 256
# Above so many states the samples of M are spread more thinly, so that their number stays that of so many states.
_FULL_STATES = 256
# Points for what compares every point with every state or fantasy.
_POINTS = 10_000


@dataclass(frozen=True)
class Analysis:
    """Diagnostics of many models, first dimension (models,); S is the number of hidden states.

    Where a model has too many states for a matrix, S is zero and what rests on it is NaN.

    ``matrix`` (models, S, S) from row to column, ``occupancy`` (models, S) its stationary state, ``current`` (models,
    S, S) net probability a double step from row to column, ``eigenvalues`` (models, S) moduli, descending,
    ``state_class`` (models, S) the class that a state draws, ``class_frequency`` (models, classes), ``counts`` (models,
    S, S) counted transitions.  The others are (models,).  ``NAME_stderr`` is the standard error of ``NAME``.
    """

    log_likelihood: Array
    log_likelihood_stderr: Array
    entropy_production: Array
    entropy_production_stderr: Array
    entropy_production_skip: Array
    entropy_production_half: Array
    entropy_production_one: Array
    path_entropy_production: Array
    path_entropy_production_stderr: Array
    second_eigenvalue: Array
    second_eigenvalue_stderr: Array
    decorrelation_time: Array
    decorrelation_time_stderr: Array
    mean_diagonal: Array
    mean_diagonal_stderr: Array
    kl: Array
    kl_stderr: Array
    matrix: Array
    matrix_stderr: Array
    occupancy: Array
    occupancy_stderr: Array
    current: Array
    current_stderr: Array
    eigenvalues: Array
    eigenvalues_stderr: Array
    counts: Array
    state_class: Array
    class_frequency: Array
    class_frequency_stderr: Array

    def arrays(self) -> dict[str, Array]:
        """All of it, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def transition_blocks(theta: Array, spec: CycleStudy, mean: Array, samples: int, blocks: int, first: int) -> Array:
    """Rao-Blackwell estimates of M from separate samples, float64 (models, blocks, S, S).

    ``samples`` is the number a state, over all blocks; ``first`` the number of the first, so that later calls draw new
    ones.  Raises InputError where there are more than 1,024 states.
    """
    states = state_count(spec.encoding, spec.hidden)
    if states > MAX_STATES:
        raise InputError(f"{states} hidden states are too many for a matrix; its limit is {MAX_STATES}.")
    each = max(1, min(samples, samples * _FULL_STATES // states) // blocks)
    sums = np.empty((len(theta), states, blocks, states))
    latent_cycle.average_transitions(theta, spec.options, mean, first, each, spec.seeds, sums)
    parts: Array = np.swapaxes(sums, 1, 2) / each
    return parts


def occupancy_likelihood(theta: Array, spec: CycleStudy, occupancy: Array, x: Array) -> Array:
    """Mean log p(x) over the data by Eq. 5, float64 (models,)."""
    models, states = occupancy.shape
    numbers = np.broadcast_to(np.arange(states, dtype=np.uint64), (models, states)).copy()
    with np.errstate(divide="ignore"):
        log_weights = np.log(occupancy)
    out = np.empty((models, len(x)))
    latent_cycle.log_likelihood(theta, spec.options, numbers, log_weights, x, x.shape[1], out)
    mean: Array = out.mean(axis=1)
    return mean


def chain_likelihood(
    row: Array, spec: CycleStudy, mean: Array, x: Array, seed: int, steps: int, start: Array | None = None
) -> tuple[float, float]:
    """Mean log p(x) with the states of long chains in the place of the occupancy (App. A.3), and its standard error.

    ``steps`` double steps over all of 32 chains, ``x`` uint8 (points, D).  With more hidden states than steps this is
    biased low, the more the farther apart the states' images are.
    """
    states, _ = _chains(row, spec, mean, x if start is None else start, seed, steps)
    each = states.size
    out = np.empty((_CHAINS, len(x)))
    rows = np.broadcast_to(row, (_CHAINS, row.size))
    for c in range(_CHAINS):  # chain by chain: the fields of all states at once would not fit
        log_weights = np.full((1, states.shape[1]), -np.log(each))
        latent_cycle.log_likelihood(
            rows[c : c + 1], spec.options, states[c : c + 1], log_weights, x, x.shape[1], out[c : c + 1]
        )
    log_p = np.logaddexp.reduce(out, axis=0)
    share = np.exp(out - log_p) * _CHAINS - 1.0  # each chain's relative p(x), less one
    worth = share.mean(axis=1)
    return float(log_p.mean()), float(worth.std(ddof=1) / np.sqrt(_CHAINS))


def _chains(
    row: Array, spec: CycleStudy, mean: Array, x: Array, seed: int, steps: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """States of 32 chains after burn-in, (32, steps / 32), and the x they end with."""
    visible = np.ascontiguousarray(x[np.arange(_CHAINS) * 7919 % len(x)])
    warm = np.empty((_CHAINS, _BURN), np.uint64)
    key = np.uint64(seed)
    latent_cycle.run_chains(row, spec.options, mean, visible, 0, key, latent_cycle.SAMPLE, warm)
    states = np.empty((_CHAINS, max(2, -(-steps // _CHAINS))), np.uint64)
    latent_cycle.run_chains(row, spec.options, mean, visible, _BURN, key, latent_cycle.SAMPLE, states)
    return states, visible


def analyse_models(theta: Array, spec: CycleStudy, data: Dataset, mean: Array, samples: int | None = None) -> Analysis:
    """Diagnostics of the models ``theta`` (models, parameters), ``mean`` (D,) that of the data they were trained on.

    ``samples`` visible samples a state estimate M (the spec's by default), in 16 blocks that give the errors.
    A model whose parameters are not finite has NaN throughout.
    """
    sound = np.asarray(np.isfinite(theta).all(axis=1))
    finite = np.where(sound[:, None], theta, theta.dtype.type(0.0))
    if state_count(spec.encoding, spec.hidden) > MAX_STATES:
        analysis = _without_matrix(finite, spec, data, mean)
    else:
        analysis = _with_matrix(finite, spec, data, mean, samples)
    for values in analysis.arrays().values():
        if values.dtype.kind == "f":
            values[~sound] = np.nan
    return analysis


def _with_matrix(theta: Array, spec: CycleStudy, data: Dataset, mean: Array, samples: int | None) -> Analysis:
    count = spec.samples if samples is None else samples
    blocks = min(BLOCKS, count)
    # The first 2^31 samples belong to the epochs.
    parts = transition_blocks(theta, spec, mean, count, blocks, 2**31)
    models, states = len(theta), parts.shape[-1]
    known: dict[str, Array] = {}

    def enter(name: str, estimate: markov.Jackknifed) -> Array:
        known[name], known[f"{name}_stderr"] = estimate.mean, estimate.stderr
        return estimate.mean

    matrix = enter("matrix", markov.jackknife(parts, lambda m: m))
    occupancy = enter("occupancy", markov.jackknife(parts, markov.stationary))
    enter("current", markov.jackknife(parts, lambda m: markov.currents(m, markov.stationary(m))))
    enter("entropy_production", markov.jackknife(parts, lambda m: markov.entropy_production(m, markov.stationary(m))))
    enter("eigenvalues", markov.jackknife(parts, markov.moduli))
    enter("second_eigenvalue", markov.jackknife(parts, markov.second_eigenvalue))
    enter("decorrelation_time", markov.jackknife(parts, markov.decorrelation_time))
    enter("mean_diagonal", markov.jackknife(parts, markov.mean_diagonal))

    known["log_likelihood"] = occupancy_likelihood(theta, spec, occupancy, data.x)
    points = data.x if len(data.x) <= _POINTS else data.x[:: -(-len(data.x) // _POINTS)]
    labels = data.labels if len(data.x) <= _POINTS else data.labels[:: -(-len(data.x) // _POINTS)]
    state_class = np.empty((models, states), np.int64)
    worth = np.empty((models, states))
    for m in range(models):
        log_a = _log_forward(Model(spec.encoding, spec.hidden, theta[m], mean, spec.tied), points)
        state_class[m] = _classes(log_a, labels, data.classes)
        with np.errstate(divide="ignore"):
            log_p = np.logaddexp.reduce(np.log(occupancy[m])[:, None] + log_a, axis=0)
        worth[m] = np.exp(log_a - log_p).mean(axis=1)
    known["state_class"] = state_class
    # A shift of pbar by d changes the likelihood by worth . d.
    left = markov.jackknife(parts, lambda m: (markov.stationary(m) * worth).sum(axis=-1))
    known["log_likelihood_stderr"] = left.stderr
    draws = (state_class[:, :, None] == data.classes).astype(float)

    def frequencies(m: Array) -> Array:
        shares: Array = (markov.stationary(m)[:, :, None] * draws).sum(axis=1)
        return shares

    enter("class_frequency", markov.jackknife(parts, frequencies))
    enter("kl", markov.jackknife(parts, lambda m: markov.divergence(data.frequencies, frequencies(m))))
    known["counts"] = counted(theta, spec, data, mean)
    for rule in ("skip", "half", "one"):
        known[f"entropy_production_{rule}"] = markov.counted_entropy_production(known["counts"], rule)
    known["matrix"] = matrix
    known["path_entropy_production"], known["path_entropy_production_stderr"] = _paths(theta, spec, data, mean)
    return Analysis(**known)


def path_entropy_production(model: Model, x: Array, seed: int, steps: int) -> tuple[float, float]:
    """Entropy production of the whole chain, x and z, in nats a double step, and its standard error over 32 chains.

    The mean of ln [Abar_xz A_zx' / (Abar_x'z A_zx)] over double steps x -> z -> x'.  It needs no sum over states, so it
    exists at any size; it bounds from above the sigma of Eq. 21, which sees hidden states only; it is zero for tied
    models.  ``x`` uint8 (points, D) are points to start from.
    """
    options, stream = model.options, latent_cycle.SAMPLE
    visible = np.ascontiguousarray(x[np.arange(_CHAINS) * 7919 % len(x)])
    key = np.uint64(seed)
    latent_cycle.run_chains(
        model.row, options, model.mean, visible, 0, key, stream, np.empty((_CHAINS, _BURN), np.uint64)
    )
    total = np.zeros(_CHAINS)
    state = np.empty((_CHAINS, 1), np.uint64)
    h = model.hidden_fields(visible)
    for t in range(steps):
        before, h_before = visible.copy(), h
        latent_cycle.run_chains(model.row, options, model.mean, visible, _BURN + t, key, stream, state)
        z, h = state[:, 0], model.hidden_fields(visible)
        change = visible.astype(float) - before
        total += (change * model.visible_fields(z)).sum(axis=1)
        total += log_backward(model, h_before, z) - log_backward(model, h, z)
    each = total / steps
    return float(each.mean()), float(each.std(ddof=1) / np.sqrt(_CHAINS))


def _paths(theta: Array, spec: CycleStudy, data: Dataset, mean: Array) -> tuple[Array, Array]:
    each = [
        path_entropy_production(Model(spec.encoding, spec.hidden, row, mean, spec.tied), data.x, int(seed), 64)
        for row, seed in zip(theta, spec.seeds, strict=True)
    ]
    return np.array([mean for mean, _ in each]), np.array([error for _, error in each])


def counted(theta: Array, spec: CycleStudy, data: Dataset, mean: Array) -> Array:
    """Transitions counted on 32 chains of each model, ``count_steps`` double steps in all, int64 (models, S, S)."""
    states = state_count(spec.encoding, spec.hidden)
    total = np.zeros((len(theta), states, states), np.int64)
    for m in range(len(theta)):
        path, _ = _chains(theta[m], spec, mean, data.x, int(spec.seeds[m]), spec.count_steps)
        each = np.zeros((len(path), states, states), np.int64)
        latent_cycle.count_transitions(path, each)
        total[m] = each.sum(axis=0)
    return total


def _log_forward(model: Model, x: Array) -> Array:
    field = model.visible_fields(model.states())
    log_a: Array = field @ x.T.astype(float) - np.logaddexp(0.0, field).sum(axis=1)[:, None]
    return log_a


def _classes(log_a: Array, labels: Array, classes: Array) -> Array:
    """The class each state draws: that of most of the points nearest to it, classes of unequal size weighed equally.

    A state that is nearest to no point draws the class whose points it explains best.
    """
    shares = np.stack([(labels == k) / max(1, np.sum(labels == k)) for k in classes], axis=1)
    votes = np.zeros((len(log_a), len(classes)))
    np.add.at(votes, np.argmax(log_a, axis=0), shares)
    best = np.where(votes.any(axis=1), votes.argmax(axis=1), (log_a @ shares).argmax(axis=1))
    chosen: Array = classes[best]
    return chosen


def nearest_class(x: Array, data: Dataset, points: int = 3000) -> Array:
    """Class of each image in ``x`` (images, D): that of the data point with the fewest other bits."""
    step = -(-len(data.x) // points)
    reference, labels = data.x[::step].astype(np.float32), data.labels[::step]
    distance = reference.sum(axis=1) - 2.0 * (x.astype(np.float32) @ reference.T)
    chosen: Array = labels[np.argmin(distance, axis=1)]
    return chosen


def _without_matrix(theta: Array, spec: CycleStudy, data: Dataset, mean: Array) -> Analysis:
    """What can be said of models with too many states: long-chain likelihood and the classes of their fantasies."""
    models, classes = len(theta), data.classes
    nothing = np.full(models, np.nan)
    known: dict[str, Array] = {field.name: nothing.copy() for field in fields(Analysis)}
    for name in ("matrix", "current"):
        known[name] = known[f"{name}_stderr"] = np.empty((models, 0, 0))
    for name in ("occupancy", "eigenvalues"):
        known[name] = known[f"{name}_stderr"] = np.empty((models, 0))
    known["counts"] = np.empty((models, 0, 0), np.int64)
    known["state_class"] = np.empty((models, 0), np.int64)
    points = data.x[:: -(-len(data.x) // 1000)]
    shares = np.empty((models, _CHAINS, len(classes)))
    for m in range(models):
        seed = int(spec.seeds[m])
        known["log_likelihood"][m], known["log_likelihood_stderr"][m] = chain_likelihood(
            theta[m], spec, mean, points, seed, 4096, data.x
        )
        _, visible = _chains(theta[m], spec, mean, data.x, seed, _CHAINS)
        images = np.empty((32, *visible.shape), np.uint8)
        state = np.empty((_CHAINS, 16), np.uint64)
        for k in range(len(images)):
            first = 2**31 + 16 * k
            key = spec.seeds[m]
            latent_cycle.run_chains(theta[m], spec.options, mean, visible, first, key, latent_cycle.SAMPLE, state)
            images[k] = visible
        drawn = nearest_class(images.reshape(-1, images.shape[-1]), data).reshape(len(images), _CHAINS)
        shares[m] = (drawn[:, :, None] == classes).mean(axis=0)
    known["path_entropy_production"], known["path_entropy_production_stderr"] = _paths(theta, spec, data, mean)
    frequency = markov.jackknife(shares, lambda s: s)
    kl = markov.jackknife(shares, lambda s: markov.divergence(data.frequencies, s))
    known["class_frequency"], known["class_frequency_stderr"] = frequency.mean, frequency.stderr
    known["kl"], known["kl_stderr"] = kl.mean, kl.stderr
    return Analysis(**known)


def autocorrelation(row: Array, spec: CycleStudy, mean: Array, x: Array, seed: int, lags: int) -> tuple[Array, Array]:
    """Autocorrelation of fantasy samples, (lags + 1,), and its standard error over 32 chains.

    C(k) = sum_i Cov(x_i(t), x_i(t + k)) / sum_i Var(x_i), from chains of eight times ``lags`` double steps.
    """
    _, visible = _chains(row, spec, mean, x, seed, _CHAINS)
    steps = 8 * lags
    path = np.empty((_CHAINS, steps, visible.shape[1]), np.float32)
    state = np.empty((_CHAINS, 1), np.uint64)
    for t in range(steps):
        latent_cycle.run_chains(
            row, spec.options, mean, visible, 2**30 + t, np.uint64(seed), latent_cycle.SAMPLE, state
        )
        path[:, t] = visible
    path -= path.mean(axis=(0, 1))
    each = np.stack(
        [(path[:, : steps - k] * path[:, k:]).sum(axis=2).mean(axis=1) for k in range(lags + 1)], axis=1
    ).astype(float)  # fmt: skip
    ratio = markov.jackknife(each[None], lambda c: c / c[:, :1])
    return ratio.mean[0], ratio.stderr[0]
