"""Annealed importance sampling of hidden bits against plain loops and against sums over all of them."""

import numba
import numpy as np

import naive
from thermokernels.annealing import Prior, anneal_states
from thermorun.cycles.likelihood import bits_of
from thermorun.cycles.mixture import Mixture

HIDDEN, VISIBLE = 5, 9


def network(points=6):
    """Weights, biases, points, a guide that is wrong, and a prior of three components."""
    random = np.random.default_rng(4)
    w, a = random.normal(0, 1.5, (HIDDEN, VISIBLE)).astype(np.float32), random.normal(size=VISIBLE).astype(np.float32)
    prior = Mixture(random.dirichlet(np.ones(3)), random.uniform(0.1, 0.9, (3, HIDDEN)))
    return w, a, random.integers(0, 2, (points, VISIBLE)).astype(np.uint8), random.normal(size=(points, HIDDEN)), prior


def annealed(w, a, x, guide, mixture, betas, chains):
    """The kernel's log weights, and p(x) in them, and its states."""
    logits, constants = mixture.terms(np.float64)
    prior = Prior(np.ascontiguousarray(logits.T), constants)
    log_weights, states = np.empty((len(x), chains)), np.empty((len(x), chains), np.uint64)
    anneal_states(w, a, x @ w.T.astype(float), guide, prior, betas, np.uint64(3), np.uint64(2**40), log_weights, states)
    return log_weights + (x @ a.astype(float))[:, None], states


def test_chains_match_plain_loops():
    w, a, x, guide, mixture = network()
    betas, chains = np.array([0.2, 0.7, 1.0]), 2
    log_weights, states = annealed(w, a, x, guide, mixture, betas, chains)
    for n in range(len(x)):
        for k in range(chains):
            plain = naive.annealed_state(
                w.astype(float), a.astype(float), x[n], guide[n], mixture.weights, mixture.means, betas, 3,
                2**40 + n * chains + k,
            )  # fmt: skip
            assert states[n, k] == plain[1]
            np.testing.assert_allclose(log_weights[n, k], plain[0], atol=1e-5)


def test_weights_are_the_sum_over_states_on_average_and_chains_end_in_the_posterior():
    w, a, x, guide, mixture = network()
    every = bits_of(np.arange(2**HIDDEN, dtype=np.uint64), HIDDEN)
    fields = every @ w.astype(float) + a
    log_joint = mixture.log_p(every) + x.astype(float) @ fields.T - np.logaddexp(0.0, fields).sum(axis=1)
    truth = np.logaddexp.reduce(log_joint, axis=1)
    chains = 4000
    for betas in (np.array([1.0]), np.linspace(0.1, 1.0, 10)):
        log_weights, states = annealed(w, a, x, guide, mixture, betas, chains)
        ratio = np.exp(log_weights - truth[:, None])
        z = (ratio.mean(axis=1) - 1.0) / (ratio.std(axis=1, ddof=1) / np.sqrt(chains))
        assert np.abs(z).max() < 4
    posterior = np.exp(log_joint - truth[:, None]) @ every
    on = bits_of(states, HIDDEN).astype(float)
    share = ratio / ratio.mean(axis=1, keepdims=True)
    z = (share[:, :, None] * (on - posterior[:, None])).mean(axis=1)
    error = (share[:, :, None] * (on - posterior[:, None])).std(axis=1, ddof=1) / np.sqrt(chains)
    assert np.abs(z / error).max() < 4


def test_threads_change_no_bit():
    w, a, x, guide, mixture = network(40)
    results = []
    for threads in (1, 2):
        before = numba.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        results.append(annealed(w, a, x, guide, mixture, np.linspace(0.25, 1.0, 4), 3))
        numba.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
