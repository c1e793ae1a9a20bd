"""Diagnostics of trained models: transition matrix, occupancy, likelihood, classes, each with its standard error."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from thermokernels.chains import average_transitions, count_transitions, log_likelihood, run_chains
from thermorun import streams
from thermorun.arrays import Array
from thermorun.cycles import likelihood, markov
from thermorun.cycles.long_chains import BURN, CHAINS, chains, effective_samples, spread_out
from thermorun.cycles.model import MAX_STATES, Model, log_backward, state_count
from thermorun.cycles.spec import CycleStudy
from thermorun.datasets import Dataset
from thermorun.errors import InputError
from thermorun.estimates import Estimate, jackknife

# Independent blocks of samples of M, which standard errors come from.
BLOCKS = 16
# Fantasies of a model of many bits, for each sample that a state would have if there were fewer.
FANTASIES = 32
# Above so many states the samples of M are spread more thinly, so that their number stays that of so many states.
_FULL_STATES = 256
# Points for what compares every point with every state or fantasy.
_POINTS = 10_000
# The first 2^31 samples of M belong to the epochs.
_FINAL = 2**31
# Bytes of blocks of M at a time, three copies of which are under way.
_MOST_BYTES = 2**27
# Double steps of the chains that say how well a model mixes.
_MIXING_STEPS = 2048
# Steps of the diagnostics' chains at which classes of fantasies begin; counting and paths begin at 0.
_CLASS_STEPS = 2**31

STATES = ("model", "state")
PAIRS = ("model", "state", "to_state")
RULES = ("skip", "half", "one")


class About(NamedTuple):
    """A diagnostic: its dimensions, units, meaning, and what its standard error comes from ("" where it has none)."""

    dimensions: tuple[str, ...]
    units: str
    meaning: str
    error: str = "blocks"


TABLE = {
    "log_likelihood": About(("model",), "nat", "mean log p(x) of all data"),
    "held_out_log_likelihood": About(("model",), "nat", "mean log p(x) of the points held out"),
    "log_likelihood_gain": About(("model",), "nat", "what the last doubling of samples added to log_likelihood", ""),
    "log_likelihood_fantasies": About(("model",), "1", "independent fantasies that log p of a point rests on", ""),
    "held_out_log_likelihood_gain": About(("model",), "nat", "the same gain, of the points held out", ""),
    "held_out_log_likelihood_fantasies": About(("model",), "1", "the same number, of the points held out", ""),
    "entropy_production": About(("model",), "nat", "sigma a double step, Eq. 21, from averaged (Rao-Blackwell) M"),
    "entropy_production_skip": About(
        ("model",), "nat", "sigma from counts, pairs seen one way only left out", "chains"
    ),
    "entropy_production_half": About(("model",), "nat", "sigma from counts, half a count added to each", "chains"),
    "entropy_production_one": About(("model",), "nat", "sigma from counts, transitions never seen count one", "chains"),
    "path_entropy_production": About(("model",), "nat", "entropy production of x and z, a double step", "chains"),
    "effective_samples": About(("model",), "1", "independent images that a double step is worth", "chains"),
    "second_eigenvalue": About(("model",), "1", "|lambda_2| of M"),
    "decorrelation_time": About(("model",), "double steps", "tau = -1 / ln |lambda_2|, Eq. 23"),
    "mean_diagonal": About(("model",), "1", "Tr(M) / L, Eq. 24"),
    "kl": About(("model",), "nat", "KL divergence of class frequencies, Eq. 22"),
    "matrix": About(PAIRS, "1", "M, probability of a double step from state to to_state, Eq. 3"),
    "occupancy": About(STATES, "1", "stationary probability pbar of the hidden states"),
    "current": About(PAIRS, "1", "net probability a double step from state to to_state"),
    "eigenvalues": About(STATES, "1", "moduli of the eigenvalues of M, descending"),
    "counts": About(PAIRS, "1", "counted transitions", ""),
    "state_class": About(STATES, "1", "class of data that a state draws", ""),
    "class_frequency": About(("model", "class"), "1", "probability of each class in the model"),
}
# By name, mean and stderr with models along the first dimension.  What rests on M is missing with too many states.
Diagnostics = dict[str, Estimate]


def transition_blocks(theta: Array, spec: CycleStudy, mean: Array, samples: int, blocks: int, first: int) -> Array:
    """Rao-Blackwell estimates of M from separate samples, float64 (models, blocks, S, S).

    ``samples`` is the number a state, over all blocks; ``first`` the number of the first, so that later calls draw new
    ones; ``spec.seeds`` must be those of the rows of ``theta``.  Raises InputError for more than 1,024 states.
    """
    states = state_count(spec.encoding, spec.hidden)
    if states > MAX_STATES:
        raise InputError(f"{states} hidden states are too many for a matrix; its limit is {MAX_STATES}.")
    each = max(1, min(samples, samples * _FULL_STATES // states) // blocks)
    sums = np.empty((len(theta), states, blocks, states))
    average_transitions(theta, spec.options, mean, first, each, spec.seeds, sums)
    parts: Array = np.swapaxes(sums, 1, 2) / each
    return parts


def occupancy_likelihood(theta: Array, spec: CycleStudy, occupancy: Array, x: Array) -> Array:
    """Mean log p(x) over the data by Eq. 5, float64 (models,)."""
    models, states = occupancy.shape
    numbers = np.broadcast_to(np.arange(states, dtype=np.uint64), (models, states)).copy()
    with np.errstate(divide="ignore"):
        log_weights = np.log(occupancy)
    out = np.empty((models, len(x)))
    log_likelihood(theta, spec.options, numbers, log_weights, x, x.shape[1], out)
    mean: Array = out.mean(axis=1)
    return mean


def groups(theta: Array, spec: CycleStudy, blocks: int) -> Iterator[tuple[Array, CycleStudy]]:
    """Models with their own spec, as many at a time as have room for their blocks of M."""
    states = state_count(spec.encoding, spec.hidden)
    size = max(1, _MOST_BYTES // (8 * blocks * states**2))
    for first in range(0, len(theta), size):
        some = theta[first : first + size]
        yield some, spec.replace(seed=spec.seed + first, models=len(some))


def analyse_models(theta: Array, spec: CycleStudy, data: Dataset, mean: Array) -> Diagnostics:
    """Diagnostics of the models ``theta`` (models, parameters), ``mean`` (D,) that of the data they were trained on.

    ``spec.samples`` visible samples a state estimate M, in 16 blocks that give the errors.  A model whose parameters
    are not finite has NaN throughout.
    """
    sound = np.asarray(np.isfinite(theta).all(axis=1))
    finite = np.where(sound[:, None], theta, theta.dtype.type(0.0))
    if state_count(spec.encoding, spec.hidden) > MAX_STATES:
        found = _without_matrix(finite, spec, data, mean)
    else:
        several = [_with_matrix(some, own, data, mean) for some, own in groups(finite, spec, min(BLOCKS, spec.samples))]
        found = {name: _joined([one[name] for one in several]) for name in several[0]}
    for estimate in found.values():
        for values in (estimate.mean, estimate.stderr):
            if values.dtype.kind == "f":
                values[~sound] = np.nan
    return found


def _joined(parts: list[Estimate]) -> Estimate:
    mean, stderr = (np.concatenate([getattr(part, name) for part in parts]) for name in ("mean", "stderr"))
    return Estimate(mean, stderr, parts[0].samples, parts[0].dof)


def without_error(values: Array) -> Estimate:
    """Of what has no standard error."""
    return Estimate(values, np.full(values.shape, np.nan))


def _with_matrix(theta: Array, spec: CycleStudy, data: Dataset, mean: Array) -> Diagnostics:
    parts = transition_blocks(theta, spec, mean, spec.samples, min(BLOCKS, spec.samples), _FINAL)
    statistics: dict[str, Callable[[Array], Array]] = {
        "matrix": lambda m: m,
        "occupancy": markov.stationary,
        "current": lambda m: markov.currents(m, markov.stationary(m)),
        "entropy_production": lambda m: markov.entropy_production(m, markov.stationary(m)),
        "eigenvalues": markov.moduli,
        "second_eigenvalue": markov.second_eigenvalue,
        "decorrelation_time": markov.decorrelation_time,
        "mean_diagonal": markov.mean_diagonal,
    }
    known = {name: jackknife(parts, statistic, axis=1) for name, statistic in statistics.items()}
    occupancy = known["occupancy"].mean
    x, labels = _thinned(data.x, data.labels)
    state_class, worth = _classes_and_worth(theta, spec, occupancy, mean, x, labels, data.classes)
    known["state_class"] = without_error(state_class)
    known["log_likelihood"] = _likelihood(theta, spec, parts, occupancy, worth, data.x)
    if data.test_x is not None:
        held_out, _ = _thinned(data.test_x, data.test_x)
        worth = _worth(theta, spec, occupancy, mean, held_out)
        known["held_out_log_likelihood"] = _likelihood(theta, spec, parts, occupancy, worth, data.test_x)
    draws = (state_class[:, :, None] == data.classes).astype(float)

    def frequencies(m: Array) -> Array:
        shares: Array = (markov.stationary(m)[:, :, None] * draws).sum(axis=1)
        return shares

    known["class_frequency"] = jackknife(parts, frequencies, axis=1)
    known["kl"] = _divergence(parts, frequencies, data)
    each = counted(theta, spec, data, mean)
    known["counts"] = without_error(each.sum(axis=1).astype(np.int64))
    for rule in RULES:
        known[f"entropy_production_{rule}"] = _counted(each, rule)
    if not spec.first_layer:
        known["path_entropy_production"] = _paths(theta, spec, data, mean)
    return known


def _likelihood(theta: Array, spec: CycleStudy, parts: Array, occupancy: Array, worth: Array, x: Array) -> Estimate:
    """Mean log p(x) by Eq. 5 and what the sampling of M leaves open: a shift of pbar by d changes it by worth . d."""
    left = jackknife(parts, lambda m: (markov.stationary(m) * worth).sum(axis=-1), axis=1)
    return Estimate(occupancy_likelihood(theta, spec, occupancy, x), left.stderr, left.samples, left.dof)


def _divergence(parts: Array, frequencies: Callable[[Array], Array], data: Dataset) -> Estimate:
    """KL of class frequencies; unknown where there is one class only, for which every model is right."""
    if len(data.classes) < 2:
        return without_error(np.full(len(parts), np.nan))
    return jackknife(parts, lambda m: markov.divergence(data.frequencies, frequencies(m)), axis=1)


def _counted(each: Array, rule: str) -> Estimate:
    """sigma from the counts of all chains, (models, chains, S, S); its error by leaving out a chain."""
    chains = each.shape[1]
    return jackknife(each, lambda mean: markov.counted_entropy_production(mean * chains, rule), axis=1)


def _thinned(x: Array, labels: Array) -> tuple[Array, Array]:
    """Not more points than can be compared with every state."""
    step = -(-len(x) // _POINTS)
    return x[::step], labels[::step]


def _log_forward(model: Model, x: Array) -> Array:
    field = model.visible_fields(model.states())
    log_a: Array = field @ x.T.astype(float) - np.logaddexp(0.0, field).sum(axis=1)[:, None]
    return log_a


def _worth_of(log_a: Array, occupancy: Array) -> Array:
    """Mean over the points of A_zx / p(x), (S,): what a state's occupancy is worth to the likelihood."""
    with np.errstate(divide="ignore"):
        log_p = np.logaddexp.reduce(np.log(occupancy)[:, None] + log_a, axis=0)
    worth: Array = np.exp(log_a - log_p).mean(axis=1)
    return worth


def _worth(theta: Array, spec: CycleStudy, occupancy: Array, mean: Array, x: Array) -> Array:
    models = [spec.model(row, mean) for row in theta]
    return np.stack([_worth_of(_log_forward(model, x), p) for model, p in zip(models, occupancy, strict=True)])


def _classes_and_worth(
    theta: Array, spec: CycleStudy, occupancy: Array, mean: Array, x: Array, labels: Array, classes: Array
) -> tuple[Array, Array]:
    """The class that each state draws, int64, and what it is worth, both (models, S)."""
    drawn, worth = np.empty(occupancy.shape, np.int64), np.empty(occupancy.shape)
    for m, row in enumerate(theta):
        log_a = _log_forward(spec.model(row, mean), x)
        drawn[m] = classes_of_states(log_a, labels, classes)
        worth[m] = _worth_of(log_a, occupancy[m])
    return drawn, worth


def classes_of_states(log_a: Array, labels: Array, classes: Array) -> Array:
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


# ------------------------------------------------------------------------------------------------ long chains


def chain_likelihood(
    row: Array, spec: CycleStudy, mean: Array, x: Array, seed: int, steps: int, start: Array | None = None
) -> Estimate:
    """Mean log p(x) with the states of long chains in the place of the occupancy (App. A.3).

    ``steps`` double steps over all of 32 chains, ``x`` uint8 (points, D).  With more hidden states than steps this is
    biased low, the more the farther apart the states' images are.
    """
    states, _ = chains(row, spec, mean, x if start is None else start, seed, steps)
    each = states.size
    out = np.empty((CHAINS, len(x)))
    rows = np.broadcast_to(row, (CHAINS, row.size))
    for c in range(CHAINS):  # chain by chain: the fields of all states at once would not fit
        log_weights = np.full((1, states.shape[1]), -np.log(each))
        log_likelihood(rows[c : c + 1], spec.options, states[c : c + 1], log_weights, x, x.shape[1], out[c : c + 1])
    log_p = np.logaddexp.reduce(out, axis=0)
    share = np.exp(out - log_p) * CHAINS - 1.0  # each chain's relative p(x), less one
    worth = share.mean(axis=1)
    return Estimate(float(log_p.mean()), float(worth.std(ddof=1) / np.sqrt(CHAINS)), 1, CHAINS - 1.0)


def path_entropy_production(model: Model, x: Array, seed: int, steps: int) -> Estimate:
    """Entropy production of the whole chain, x and z, in nats a double step, and its standard error over 32 chains.

    The mean of ln [Abar_xz A_zx' / (Abar_x'z A_zx)] over double steps x -> z -> x'.  It needs no sum over states, so it
    exists at any size; it bounds from above the sigma of Eq. 21, which sees hidden states only; it is zero for tied
    models.  ``x`` uint8 (points, D) are points to start from.  Raises InputError for a model with a first layer, whose
    chain does not come back by the way it went.
    """
    if model.first:
        raise InputError(
            f"the model has a first layer of {model.first} bits; its paths have no reverse to compare with."
        )
    visible = spread_out(x, CHAINS)
    key, stream = streams.cycles(seed, "diagnostics").take(CHAINS)
    warm = np.empty((CHAINS, BURN), np.uint64)
    run_chains(model.row, model.options, model.mean, visible, 0, key, stream, warm)
    total = np.zeros(CHAINS)
    state = np.empty((CHAINS, 1), np.uint64)
    h = model.hidden_fields(visible)
    for t in range(steps):
        before, h_before = visible.copy(), h
        run_chains(model.row, model.options, model.mean, visible, BURN + t, key, stream, state)
        z, h = state[:, 0], model.hidden_fields(visible)
        change = visible.astype(float) - before
        total += (change * model.visible_fields(z)).sum(axis=1)
        total += log_backward(model, h_before, z) - log_backward(model, h, z)
    each = total / steps
    return Estimate(float(each.mean()), float(each.std(ddof=1) / np.sqrt(CHAINS)), 1, CHAINS - 1.0)


def _paths(theta: Array, spec: CycleStudy, data: Dataset, mean: Array) -> Estimate:
    return _stacked(
        [
            path_entropy_production(spec.model(row, mean), data.x, int(seed), 64)
            for row, seed in zip(theta, spec.seeds, strict=True)
        ]
    )


def _stacked(parts: list[Estimate]) -> Estimate:
    mean, stderr = (np.array([getattr(part, name) for part in parts]) for name in ("mean", "stderr"))
    return Estimate(mean, stderr, 1, CHAINS - 1.0)


def counted(theta: Array, spec: CycleStudy, data: Dataset, mean: Array) -> Array:
    """Transitions counted on 32 chains of each model, ``count_steps`` double steps in all, int64 (models, 32, S, S)."""
    states = state_count(spec.encoding, spec.hidden)
    total = np.zeros((len(theta), CHAINS, states, states), np.int64)
    for m in range(len(theta)):
        path, _ = chains(theta[m], spec, mean, data.x, int(spec.seeds[m]), spec.count_steps)
        count_transitions(path, total[m])
    return total


def _without_matrix(theta: Array, spec: CycleStudy, data: Dataset, mean: Array) -> Diagnostics:
    """What can be said of models with too many states: long-chain likelihood and the classes of their fantasies."""
    seeds = [int(seed) for seed in spec.seeds]
    parts = np.stack([_fantasy_shares(row, spec, data, mean, seed) for row, seed in zip(theta, seeds, strict=True)])
    known = {
        "path_entropy_production": _paths(theta, spec, data, mean),
        "effective_samples": _stacked(
            [
                effective_samples(row, spec, mean, data.x, seed, _MIXING_STEPS)
                for row, seed in zip(theta, seeds, strict=True)
            ]
        ),
        "class_frequency": jackknife(parts, lambda shares: shares, axis=1),
        "kl": _divergence(parts, lambda shares: shares, data),
    }
    if spec.encoding == "bits":
        effort = likelihood.Effort.of(FANTASIES * spec.samples)
        return known | estimated_likelihoods(theta, spec, data, mean, effort, 0)
    for name, x in (("log_likelihood", data.x), ("held_out_log_likelihood", data.test_x)):
        if x is not None:
            points = x[:: -(-len(x) // 1000)]
            known[name] = _stacked(
                [
                    chain_likelihood(row, spec, mean, points, seed, 4096, data.x)
                    for row, seed in zip(theta, seeds, strict=True)
                ]
            )
    return known


def estimated_likelihoods(
    theta: Array, spec: CycleStudy, data: Dataset, mean: Array, effort: likelihood.Effort, number: int,
    pause: Callable[[], None] = lambda: None,
) -> Diagnostics:  # fmt: skip
    """Likelihoods of models of many bits, and how far they can be believed: see ``likelihood``.

    ``pause`` is called after every model: it may raise.
    """
    sets = {"log_likelihood": data.x} | ({} if data.test_x is None else {"held_out_log_likelihood": data.test_x})
    start = spread_out(data.x, likelihood.CHAINS)
    each = np.full((len(theta), len(sets), 4), np.nan)
    for m in np.flatnonzero(np.isfinite(theta).all(axis=1)):
        model = spec.model(theta[m], mean)
        each[m] = likelihood.log_likelihoods(model, list(sets.values()), start, effort, int(spec.seeds[m]), number)
        pause()
    known = {}
    for k, name in enumerate(sets):
        known[name] = Estimate(each[:, k, 0], each[:, k, 1], 1, likelihood.GROUPS - 1.0)
        known[f"{name}_gain"] = without_error(each[:, k, 2])
        known[f"{name}_fantasies"] = without_error(each[:, k, 3])
    return known


def _fantasy_shares(row: Array, spec: CycleStudy, data: Dataset, mean: Array, seed: int) -> Array:
    """Shares of the classes among the fantasies of one model, chain by chain, (32, classes)."""
    _, visible = chains(row, spec, mean, data.x, seed, CHAINS)
    images = np.empty((32, *visible.shape), np.uint8)
    state = np.empty((CHAINS, 16), np.uint64)
    key, stream = streams.cycles(seed, "diagnostics").take(CHAINS)
    for k in range(len(images)):
        run_chains(row, spec.options, mean, visible, _CLASS_STEPS + 16 * k, key, stream, state)
        images[k] = visible
    drawn = nearest_class(images.reshape(-1, images.shape[-1]), data).reshape(len(images), CHAINS)
    shares: Array = (drawn[:, :, None] == data.classes).mean(axis=0)
    return shares
