"""The exact gradient of one-hot likelihoods against plain loops and against enumeration."""

import numba
import numpy as np
import pytest

import naive
from thermokernels import exact_rule, two_step
from thermorun.cycles import exact, markov
from thermorun.cycles.model import Model, kernel_options, parameter_count

ENCODINGS = ("softmax", "sigmoid")
HIDDEN, VISIBLE = 3, 6


def small_model(encoding):
    random = np.random.default_rng(2)
    row = random.normal(size=parameter_count(HIDDEN, VISIBLE)).astype(np.float32)
    model = Model(encoding, HIDDEN, row, random.uniform(0.2, 0.8, VISIBLE).astype(np.float32))
    model.a[:] = 0.0
    return model, (random.random((9, VISIBLE)) < 0.4).astype(np.uint8)


def moving():
    """Where parameters move: everywhere but the visible biases."""
    n = 2 * HIDDEN * VISIBLE
    mask = np.ones(parameter_count(HIDDEN, VISIBLE), bool)
    mask[n : n + VISIBLE] = False
    return mask


def drawn(model, images, step, batch):
    """The kernel's gradient from so many images of a state, and its likelihood."""
    gradient = np.empty_like(model.row)
    options = kernel_options(model.encoding, chain_steps=images * HIDDEN, hidden=HIDDEN)
    likelihood = exact_rule.exact_gradient(
        model.row, options, model.mean, np.uint64(7), step, batch.astype(np.float32), gradient
    )
    return gradient, likelihood


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_gradient_matches_plain_loops(encoding):
    model, data = small_model(encoding)
    gradient, likelihood = drawn(model, 5, 3, data)
    row, mean = model.row.astype(float), model.mean.astype(float)
    plain, expected = naive.exact_gradient(row, HIDDEN, encoding, mean, data, 5, 7, 3)
    assert likelihood == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_gradient_agrees_with_enumeration_where_that_of_two_steps_does_not(encoding):
    model, data = small_model(encoding)
    truth, shorter = exact.likelihood_gradient(model, data)[moving()], exact.two_step_gradient(model, data)[moving()]
    samples = np.stack([drawn(model, 4000, step, data)[0][moving()] for step in range(64)]).astype(float)
    error = samples.std(axis=0, ddof=1) / 8
    assert np.abs((samples.mean(axis=0) - truth) / error).max() < 4
    assert np.abs((samples.mean(axis=0) - shorter) / error).max() > 20


def test_stationary_law_and_linear_systems():
    random = np.random.default_rng(1)
    matrix = random.dirichlet(np.full(7, 0.3), 7)
    p = np.empty(7)
    exact_rule.stationary(matrix, np.empty((7, 7)), p)
    np.testing.assert_allclose(p, markov.stationary(matrix), rtol=1e-12)
    a, b = random.normal(size=(7, 7)), random.normal(size=7)
    a[0, 0] = 0.0  # without pivots there would be no way on
    x = b.copy()
    exact_rule.solve(a.copy(), x)
    np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=1e-10)


def test_training_reaches_the_exact_maximum_on_any_threads():
    """Three kinds of points of six bits: the best mixture, by a search in all directions, and no bit from threads."""
    from thermorun.cycles.mixture import climb, random_start

    random = np.random.default_rng(0)
    kinds = random.integers(0, 3, 300)
    data = (random.random((300, VISIBLE)) < random.random((3, VISIBLE))[kinds]).astype(np.uint8)
    best = max(climb(data, random_start(data, 3, 0, k), 2000, 1e-9, np.float64).log_likelihood for k in range(10))
    mean, seeds = data.mean(axis=0).astype(np.float32), np.arange(4, dtype=np.uint64)
    results = []
    for threads in (1, 2):
        before = numba.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        theta = np.zeros((4, parameter_count(3, VISIBLE)), np.float32)
        theta[:, : 3 * VISIBLE] = np.random.default_rng(5).normal(size=(4, 3 * VISIBLE))
        state = two_step.State(theta, np.zeros_like(theta), data[:4].copy(), np.zeros(4, np.int64))
        trace = np.empty((4, 200))
        for part in range(20):
            options = kernel_options("softmax", False, 48, 0.1 * 0.8**part, 0.99, 1e-8, hidden=3)
            exact_rule.train_exactly(state, data, mean, np.full(200, 100), 200 * part, options, seeds, trace)
        numba.set_num_threads(before)
        results.append(theta)
    np.testing.assert_array_equal(*results)
    reached = [exact.log_likelihood(Model("softmax", 3, row, mean), data) for row in results[0]]
    assert best - 0.02 < max(reached) < best + 1e-3


def test_a_model_that_turns_nan_stops_alone():
    _, data = small_model("softmax")
    theta = np.zeros((2, parameter_count(HIDDEN, VISIBLE)), np.float32)
    theta[1, 3] = np.nan
    state = two_step.State(theta, np.zeros_like(theta), data[:2].copy(), np.zeros(2, np.int64))
    options = kernel_options("softmax", hidden=HIDDEN)
    trace = np.empty((2, 3))
    exact_rule.train_exactly(
        state,
        data,
        data.mean(axis=0).astype(np.float32),
        np.full(3, 5),
        10,
        options,
        np.arange(2, dtype=np.uint64),
        trace,
    )
    np.testing.assert_array_equal(state.status, [0, 11])
    assert np.isfinite(trace[0]).all()
