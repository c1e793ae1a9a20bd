"""Expectation-maximisation of Bernoulli mixtures against plain loops, exact maxima and its own fixed points."""

import numba
import numpy as np
import pytest
from scipy import optimize

import naive
from thermokernels.mixture import expectation
from thermorun.cycles.mixture import Mixture, bounded, climb, random_start


def points(count=300, size=7, seed=0):
    random = np.random.default_rng(seed)
    kinds = random.integers(0, 3, count)
    return (random.random((count, size)) < random.random((3, size))[kinds]).astype(np.uint8)


def one_pass(x, mixture, dtype):
    states, size = mixture.means.shape
    sums, weights, log_p = np.empty((64, states, size)), np.empty((64, states)), np.empty(len(x))
    expectation(x, *mixture.terms(dtype), sums, weights, log_p)
    return log_p, weights.sum(axis=0), sums.sum(axis=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("count", "size", "states"), [(300, 7, 3), (129, 17, 9), (5, 1, 1)])
def test_a_pass_matches_plain_loops(dtype, count, size, states):
    random = np.random.default_rng(1)
    x = points(count, size)
    mixture = Mixture(random.dirichlet(np.ones(states)), random.uniform(0.05, 0.95, (states, size)))
    known = naive.expectation(x, mixture.weights, mixture.means)
    for mine, theirs in zip(one_pass(x, mixture, dtype), known, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12 if dtype == np.float64 else 1e-5)
    np.testing.assert_allclose(mixture.log_p(x), known[0], rtol=1e-12)


def test_threads_change_no_bit_and_small_numbers_are_no_trouble():
    x = points(3000, 4096, 3)  # p(x | z) of 1e-1000
    start = random_start(x, 4, 0, 0)
    results = []
    for threads in (1, 2):
        before = numba.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        results.append(climb(x, start, 4, 1e-9))
        numba.set_num_threads(before)
    one, two = results
    np.testing.assert_array_equal(one.trace, two.trace)
    np.testing.assert_array_equal(one.mixture.means, two.mixture.means)
    assert np.isfinite(one.trace).all()


def test_a_climb_never_descends_and_ends_where_its_equations_hold():
    x = points()
    found = climb(x, random_start(x, 3, 0, 1), 5000, 1e-14, np.float64)
    assert (np.diff(found.trace) > -1e-12).all()
    log_p, shares, sums = naive.expectation(x, found.mixture.weights, found.mixture.means)
    assert found.log_likelihood == pytest.approx(log_p.mean(), rel=1e-12)
    np.testing.assert_allclose(found.mixture.weights, shares / len(x), atol=1e-5)
    np.testing.assert_allclose(found.mixture.means, bounded(sums / shares[:, None], len(x)), atol=1e-5)


def test_the_best_climb_is_the_best_mixture():
    """Two states of three bits: the largest likelihood that any weights and probabilities have, by brute force."""
    x = points(60, 3, 5)
    patterns, counts = np.unique(x, axis=0, return_counts=True)
    edge = 0.5 / len(x)

    def loss(v):
        a = np.prod(np.where(patterns[:, None], v[1:].reshape(2, 3), 1 - v[1:].reshape(2, 3)), axis=2)
        return -counts @ np.log(a @ [v[0], 1 - v[0]]) / len(x)

    bounds = [(1e-6, 1 - 1e-6)] + [(edge, 1 - edge)] * 6
    best = -optimize.differential_evolution(loss, bounds, seed=1, maxiter=150, popsize=8, tol=1e-9).fun
    reached = max(climb(x, random_start(x, 2, 0, k), 3000, 1e-12, np.float64).log_likelihood for k in range(20))
    assert reached == pytest.approx(best, abs=1e-5)


def test_one_state_is_the_mean_of_the_data():
    x = points(400, 5)
    mean = x.mean(axis=0)
    known = float((mean * np.log(mean) + (1 - mean) * np.log1p(-mean)).sum())
    assert climb(x, random_start(x, 1, 0, 0), 5, 1e-12, np.float64).log_likelihood == pytest.approx(known, rel=1e-12)


def test_an_empty_state_begins_again():
    x = points()
    good = random_start(x, 3, 0, 0)
    start = Mixture(np.array([0.5, 0.5, 0.0]), good.means)
    found = climb(x, start, 500, 1e-9, np.float64)
    assert found.refilled == 1
    assert found.mixture.weights.min() > 1e-3
    assert climb(x, good, 500, 1e-9, np.float64).refilled == 0
