"""Kernels of the latent cycles against plain loops and against enumeration."""

import hashlib

import numba
import numpy as np
import pytest
import scipy

import naive
from thermokernels import latent_cycle, two_step
from thermokernels.chains import average_transitions, count_transitions, log_likelihood, run_chains
from thermorun.cycles import exact, markov, path_entropy_production
from thermorun.cycles.model import Model, kernel_options, parameter_count

ENCODINGS = ("softmax", "sigmoid", "bits")
# (visible, hidden) of the small models; hidden bits make 2^L states.
SMALL = {"softmax": (8, 4), "sigmoid": (7, 4), "bits": (8, 3)}


def no_bits(steps, dtype=float):
    """Of a first layer that there is not."""
    return np.empty((steps, 0), dtype)


def small_model(encoding, seed=1, scale=1.0, tied=False):
    visible, hidden = SMALL[encoding]
    random = np.random.default_rng(seed)
    row = scale * random.normal(size=parameter_count(hidden, visible))
    model = Model(encoding, hidden, row, random.uniform(0.2, 0.8, visible), tied)
    if encoding != "bits":
        model.a[:] = 0.0
    if tied:
        model.wbar[:] = model.w
    return model


def small_data(visible, points=40, seed=5):
    return (np.random.default_rng(seed).random((points, visible)) < 0.4).astype(np.uint8)


def long_chains(model, chains, steps, seed=3, burn=200):
    """States of chains after burn-in, and the x before each: (chains, steps) and (chains, steps, D)."""
    visible = (np.random.default_rng(seed).random((chains, model.visible)) < 0.5).astype(np.uint8)
    key, stream = np.uint64(seed), latent_cycle.SAMPLE
    warm = np.empty((chains, burn), np.uint64)
    run_chains(model.row, model.options, model.mean, visible, 0, key, stream, warm)
    states = np.empty((chains, steps), np.uint64)
    x = np.empty((chains, steps, model.visible), np.uint8)
    one = np.empty((chains, 1), np.uint64)
    for t in range(steps):
        x[:, t] = visible
        run_chains(model.row, model.options, model.mean, visible, burn + t, key, stream, one)
        states[:, t] = one[:, 0]
    return states, x


def z_scores(samples, truth):
    """(mean - truth) / stderr over the first axis, whose entries are independent."""
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return (samples.mean(axis=0) - truth) / error


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradient_and_likelihood_match_plain_loops(encoding, dtype):
    model = small_model(encoding)
    states, x = long_chains(model, 1, 7)
    batch = small_data(model.visible, 5)
    expected, likelihood = naive.two_step_gradient(
        model.row, model.hidden, encoding, model.mean, x[0].astype(float), states[0], batch
    )
    gradient = np.empty(model.row.size, dtype)
    mine = two_step.two_step_gradient(
        model.row.astype(dtype), model.options, model.mean.astype(dtype), x[0].astype(dtype), no_bits(7, dtype),
        states[0], batch.astype(dtype), gradient,
    )  # fmt: skip
    if encoding != "bits":  # the visible bias stays where it is
        n = 2 * model.hidden * model.visible
        expected[n : n + model.visible] = 0.0
    tolerance = 1e-8 if dtype == np.float64 else 2e-5
    assert mine == pytest.approx(likelihood, rel=1e-12 if dtype == np.float64 else 1e-5)
    np.testing.assert_allclose(gradient, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_log_likelihood_matches_plain_loops(encoding):
    model = small_model(encoding, scale=3.0)
    data = small_data(model.visible)
    states = model.states()
    weights = np.random.default_rng(2).dirichlet(np.ones(len(states)))
    out = np.empty((1, len(data)))
    log_likelihood(model.row[None], model.options, states[None], np.log(weights)[None], data, model.visible, out)
    for n, x in enumerate(data):
        p = sum(
            weight * np.exp(naive.log_forward(model.row, model.hidden, encoding, z, x))
            for weight, z in zip(weights, states, strict=True)
        )
        assert out[0, n] == pytest.approx(np.log(p), rel=1e-12)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_chains_and_their_transitions_match_plain_loops(encoding):
    model = small_model(encoding)
    start = small_data(model.visible, 3)
    visible, states = start.copy(), np.empty((3, 20), np.uint64)
    run_chains(model.row, model.options, model.mean, visible, 2**31, np.uint64(2**40 + 1), np.uint64(2**35), states)
    counts = np.zeros((3, len(model.states()), len(model.states())), np.int64)
    count_transitions(states, counts)
    for c in range(3):
        expected, x = naive.run_chain(
            model.row, model.hidden, encoding, model.mean, start[c], 2**31, 20, 2**40 + 1, 2**35 + c
        )
        np.testing.assert_array_equal(states[c], expected)
        np.testing.assert_array_equal(visible[c], x[-1])
        np.testing.assert_array_equal(counts[c], naive.count_transitions(expected, counts.shape[1]))


def test_bits_are_drawn_from_all_thirty_two_bits_of_their_probability():
    """One visible bit a row, p from 2^-32 to 1, and some within 2^-16 of a tie: how often it is one, of 2^20 draws."""
    wholes = np.array(
        [1, 2**10, 2**14, 2**16 - 1, 2**16, 2**16 + 1, 2**16 + 2**15, 2**31, 2**31 + 2**15, 2**32 - 2**14]
    )
    size, steps = 1024, 1024
    words, x, seen = np.empty(2 * latent_cycle.lanes_for(size // 2), np.uint64), np.empty(size), np.zeros(len(wholes))
    thresholds = np.empty((len(wholes), 2, size), np.uint16)
    thresholds[:, 0], thresholds[:, 1] = (wholes >> 16)[:, None], (wholes & 0xFFFF)[:, None]
    for step in range(steps):
        place = np.uint64(3), latent_cycle.SAMPLE, step
        latent_cycle.draw_words(words, *place)
        for k in range(len(wholes)):
            latent_cycle.draw_visible(thresholds[k], words, place, x)
            seen[k] += x.sum()
    for whole, count in zip(wholes, seen, strict=True):
        assert scipy.stats.binomtest(int(count), size * steps, whole / 2**32).pvalue > 1e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_draws_that_the_first_half_of_a_word_leaves_open_match_plain_loops(dtype):
    """Thresholds that share their upper halves with the words of a step: every bit is settled by more words."""
    size, place = 13, (np.uint64(2**40 + 5), latent_cycle.SAMPLE + np.uint64(7), 2**31 + 3)
    words, x = np.empty(2 * latent_cycle.lanes_for((size + 1) // 2), np.uint64), np.empty(size, dtype)
    latent_cycle.draw_words(words, *place)
    halves = words.view(np.uint16)[:size]
    lower = np.random.default_rng(1).integers(0, 2**16, size).astype(np.uint16)
    latent_cycle.draw_visible(np.array([halves, lower]), words, place, x)
    thresholds = [int(upper) << 16 | int(low) for upper, low in zip(halves, lower, strict=True)]
    np.testing.assert_array_equal(x, naive.bits_below(thresholds, *(int(part) for part in place)))
    assert 0 < x.sum() < size


def test_thresholds_are_all_bits_of_the_probabilities():
    field = np.array([-800.0, -40.0, -15.0, -1.0, 0.0, 2.0, 20.0, 800.0])
    halves = np.empty((2, field.size), np.uint16)
    latent_cycle.thresholds(field, halves)
    found = halves[0].astype(np.int64) << 16 | halves[1]
    exact = np.minimum(scipy.special.expit(field) * 2**32, 2**32 - 1)
    assert np.abs(found - exact).max() <= 1.0


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_averaged_transitions_match_plain_loops(encoding):
    model = small_model(encoding)
    count = len(model.states())
    sums = np.empty((1, count, 2, count))
    average_transitions(model.row[None], model.options, model.mean, 5, 3, np.array([9], np.uint64), sums)
    for z in range(count):
        for block in range(2):
            numbers = range(5 + 3 * block, 8 + 3 * block)
            expected = naive.average_transitions(
                model.row, model.hidden, encoding, model.mean, z, numbers, 9, int(latent_cycle.MARKOV)
            )
            np.testing.assert_allclose(sums[0, z, block], expected, rtol=1e-12)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_training_matches_plain_loops(encoding):
    model = small_model(encoding)
    data, options = small_data(model.visible), kernel_options(encoding, False, 5, 0.02, 0.8, 1e-3, hidden=model.hidden)
    sizes = np.array([4, 7, 5])
    state = two_step.State(
        model.row[None].copy(), np.zeros((1, model.row.size)), data[:1].copy(), np.zeros(1, np.int64)
    )
    trace = np.empty((1, 3))
    two_step.train(state, data, model.mean, sizes, 0, options, np.array([6], np.uint64), trace)
    row, square, x, likelihoods = naive.train(
        model.row, model.hidden, encoding, data, model.mean, data[0], sizes, options, 6, int(latent_cycle.BATCH)
    )
    np.testing.assert_allclose(state.theta[0], row, rtol=0, atol=1e-7)
    np.testing.assert_allclose(state.square[0], square, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(state.visible[0], x)
    np.testing.assert_allclose(trace[0], likelihoods, rtol=1e-7)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_enumeration_matches_plain_loops(encoding):
    model = small_model(encoding)
    known = exact.law(model)
    x = exact.all_visible(model.visible)
    for z in (0, len(known.hidden) - 1):
        for n in (0, 17, len(x) - 1):
            forward = np.exp(naive.log_forward(model.row, model.hidden, encoding, z, x[n]))
            backward = naive.hidden_probability(model.row, model.hidden, encoding, model.mean, x[n], z)
            assert known.forward[z, n] == pytest.approx(forward, rel=1e-10)
            assert known.backward[n, z] == pytest.approx(backward, rel=1e-10)
    np.testing.assert_allclose(known.hidden @ known.matrix, known.hidden, rtol=1e-12)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_exact_gradients_match_finite_differences_and_differ_from_each_other(encoding):
    model = small_model(encoding)
    data = small_data(model.visible)
    before = exact.law(model).visible
    two_step = exact.two_step_gradient(model, data)
    full = exact.likelihood_gradient(model, data)
    for k in range(model.row.size):
        moved = [Model(encoding, model.hidden, model.row.copy(), model.mean) for _ in range(2)]
        moved[0].row[k] += 1e-5
        moved[1].row[k] -= 1e-5
        up, down = (exact.two_step_objective(other, data, before) for other in moved)
        assert two_step[k] == pytest.approx((up - down) / 2e-5, abs=1e-6)
        up, down = (exact.log_likelihood(other, data) for other in moved)
        assert full[k] == pytest.approx((up - down) / 2e-5, abs=1e-6)
    # The approximation is not the gradient of the likelihood: same hemisphere here, but a few per cent to tens apart.
    cosine = two_step @ full / np.linalg.norm(two_step) / np.linalg.norm(full)
    assert 0.5 < cosine < 0.9999
    assert np.linalg.norm(two_step - full) > 0.01 * np.linalg.norm(full)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_two_step_gradient_vanishes_with_the_true_one_where_the_model_is_the_data(encoding):
    """At a perfect fit sum_x dp(x) = 0 settles both; short of it their zeros differ."""
    model = small_model(encoding)
    x, p = exact.all_visible(model.visible), exact.law(model).visible
    counts = np.round(p * 200_000).astype(int)
    data = np.repeat(x, counts, axis=0)
    for gradient in (exact.two_step_gradient(model, data), exact.likelihood_gradient(model, data)):
        assert np.abs(gradient).max() < 1e-3


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_chains_agree_with_enumeration(encoding):
    model = small_model(encoding)
    known = exact.law(model)
    chains, count = 256, len(known.hidden)
    states, x = long_chains(model, chains, 400)
    occupancy = np.stack([(states == z).mean(axis=1) for z in range(count)], axis=1)
    assert np.abs(z_scores(occupancy, known.hidden)).max() < 4
    assert np.abs(z_scores(x.mean(axis=1), known.visible @ exact.all_visible(model.visible))).max() < 4
    counts = np.zeros((chains, count, count), np.int64)
    count_transitions(states, counts)
    flow = counts / (states.shape[1] - 1)
    truth = known.hidden[:, None] * known.matrix
    seen = truth * chains * 400 > 100  # enough events for a normal law
    assert np.abs(z_scores(flow, truth)[seen]).max() < 4
    log_weights = np.full((1, states.size // 64), -np.log(states.size // 64))
    data = small_data(model.visible)
    parts = []
    for part in states.reshape(64, 1, -1):
        out = np.empty((1, len(data)))
        log_likelihood(model.row[None], model.options, part, log_weights, data, model.visible, out)
        parts.append(out.mean())
    assert abs(z_scores(np.array(parts), exact.log_likelihood(model, data))) < 4


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_averaged_transitions_agree_with_enumeration_and_beat_counting(encoding):
    model = small_model(encoding)
    known = exact.law(model)
    count, blocks, samples = len(known.hidden), 64, 500
    sums = np.empty((1, count, blocks, count))
    average_transitions(model.row[None], model.options, model.mean, 0, samples, np.array([11], np.uint64), sums)
    parts = np.swapaxes(sums[0], 0, 1) / samples
    assert np.abs(z_scores(parts, known.matrix)).max() < 4
    assert np.all(parts.var(axis=0, ddof=1) < known.matrix * (1 - known.matrix) / samples)
    sigma = markov.entropy_production(parts, markov.stationary(parts))
    truth = markov.entropy_production(known.matrix, known.hidden)
    # The bias of a block of 500 is below its error; 64 of them would show it.
    whole = parts.mean(axis=0)
    error = sigma.std(ddof=1) / np.sqrt(blocks)
    assert abs(markov.entropy_production(whole, markov.stationary(whole)) - truth) < 4 * error


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_sampled_gradients_agree_with_enumeration(encoding):
    model = small_model(encoding)
    data = small_data(model.visible, 20)
    blocks, steps = 256, 2000  # enough of them for a normal law of the heavy-tailed ratios
    states, x = long_chains(model, blocks, steps)
    samples = np.empty((blocks, model.row.size))
    for k in range(blocks):
        two_step.two_step_gradient(
            model.row, model.options, model.mean, x[k].astype(float), no_bits(steps), states[k], data.astype(float),
            samples[k],
        )  # fmt: skip
    truth = exact.two_step_gradient(model, data)
    moving = np.ones(model.row.size, bool)
    if encoding != "bits":
        n = 2 * model.hidden * model.visible
        moving[n : n + model.visible] = False
    assert np.abs(z_scores(samples[:, moving], truth[moving])).max() < 4


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_path_entropy_production_agrees_with_enumeration_and_bounds_that_of_the_states(encoding):
    model = small_model(encoding)
    known = exact.law(model)
    paths = known.visible[:, None, None] * known.backward[:, :, None] * known.forward[None, :, :]
    back = known.visible[None, None, :] * known.backward.T[None, :, :] * known.forward.T[:, :, None]
    # The boundary terms p(x) and p(x') cancel in the mean.
    ratio = np.log(known.backward[:, :, None] * known.forward[None]) - np.log(
        known.backward.T[None] * known.forward.T[:, :, None]
    )
    truth = float((paths * ratio).sum())
    assert truth == pytest.approx(float((paths * np.log(paths / back)).sum()), rel=1e-8)
    x = exact.all_visible(model.visible)
    assert abs(path_entropy_production(model, x, 7, 2000).z(truth)) < 4
    assert truth > markov.entropy_production(known.matrix, known.hidden) > 0
    if encoding != "sigmoid":
        assert abs(path_entropy_production(small_model(encoding, tied=True), x, 7, 2000).z(0.0)) < 4


@pytest.mark.parametrize("encoding", ["softmax", "bits"])
def test_tied_models_are_in_equilibrium_and_climb_their_true_likelihood(encoding):
    model = small_model(encoding, tied=True)
    known = exact.law(model)
    flow = known.hidden[:, None] * known.matrix
    np.testing.assert_allclose(flow, flow.T, rtol=1e-9, atol=1e-15)
    data = small_data(model.visible, 20)
    blocks, steps = 64, 1000
    states, x = long_chains(model, blocks, steps)
    samples = np.empty((blocks, model.row.size))
    for k in range(blocks):
        two_step.two_step_gradient(
            model.row, model.options, model.mean, x[k].astype(float), no_bits(steps), states[k], data.astype(float),
            samples[k],
        )  # fmt: skip
    n = model.hidden * model.visible
    truth = np.empty(model.row.size)
    for k in range(model.row.size):
        values = []
        for sign in (1, -1):
            moved = Model(encoding, model.hidden, model.row.copy(), model.mean, True)
            moved.row[k] += sign * 1e-5
            moved.wbar[:] = moved.w
            values.append(exact.log_likelihood(moved, data))
        truth[k] = (values[0] - values[1]) / 2e-5
    moving = np.ones(model.row.size, bool)
    moving[n : 2 * n] = False
    if encoding != "bits":
        moving[2 * n : 2 * n + model.visible] = False
    assert np.abs(z_scores(samples[:, moving], truth[moving])).max() < 4


def training_state(encoding, models, dtype, tied=False):
    data = small_data(20, 60)
    mean = data.mean(axis=0).astype(dtype)
    random = np.random.default_rng(8)
    theta = random.normal(size=(models, parameter_count(5, 20))).astype(dtype)
    if tied:
        theta[:, 100:200] = theta[:, :100]
    state = theta, np.zeros_like(theta), data[:models].copy(), np.zeros(models, np.int64)
    return state, data, mean, kernel_options(encoding, tied, chain_steps=9, learning_rate=0.05, hidden=5)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_threads_company_and_pieces_change_no_bit_of_a_training(encoding):
    results = []
    for threads, pieces, models in ((1, (24,), 6), (2, (7, 17), 6), (2, (24,), 3)):
        state, data, mean, options = training_state(encoding, 6, np.float32)
        theta, square, visible, status = (array[:models].copy() for array in state)
        before = numba.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        first = 0
        traces = []
        for length in pieces:
            trace = np.empty((models, length))
            two_step.train(
                two_step.State(theta, square, visible, status), data, mean, np.full(length, 10), first, options,
                np.arange(models, dtype=np.uint64), trace,
            )  # fmt: skip
            traces.append(trace)
            first += length
        numba.set_num_threads(before)
        results.append((theta[:3], square[:3], visible[:3], np.concatenate(traces, axis=1)[:3]))
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def digest():
    """Of a short training and of its likelihood, for `test_jit`."""
    results = hashlib.sha256()
    for encoding in ENCODINGS:
        state, data, mean, options = training_state(encoding, 2, np.float32)
        trace, seeds = np.empty((2, 5)), np.arange(2, dtype=np.uint64)
        two_step.train(two_step.State(*state), data, mean, np.full(5, 10), 0, options, seeds, trace)
        for array in (*state, trace):
            results.update(array.tobytes())
    return results.hexdigest()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_training_walks_the_chain_that_sampling_walks(encoding):
    """With a step too small to change a parameter, training leaves its chain where ``run_chains`` does."""
    (theta, square, visible, status), data, mean, options = training_state(encoding, 1, np.float32)
    alone, states = visible.copy(), np.empty((1, 27), np.uint64)
    run_chains(theta[0], options, mean, alone, 0, np.uint64(4), latent_cycle.CHAIN, states)
    options = options._replace(rate=1e-30)
    state = two_step.State(theta, square, visible, status)
    two_step.train(state, data, mean, np.full(3, 10), 0, options, np.array([4], np.uint64), np.empty((1, 3)))
    np.testing.assert_array_equal(visible, alone)
    assert len(np.unique(states)) > 2


def test_a_model_that_turns_nan_stops_alone():
    state, data, mean, options = training_state("softmax", 3, np.float32)
    theta, status = state[0], state[3]
    theta[1, 7] = np.nan
    before = theta[1].copy()
    trace = np.empty((3, 5))
    seeds = np.arange(3, dtype=np.uint64)
    two_step.train(two_step.State(*state), data, mean, np.full(5, 10), 40, options, seeds, trace)
    np.testing.assert_array_equal(status, [0, 41, 0])
    np.testing.assert_array_equal(theta[1], before)
    assert np.isfinite(trace[[0, 2]]).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_training_climbs_the_exact_likelihood(encoding):
    truth = small_model(encoding, seed=4, scale=2.0)
    x, p = exact.all_visible(truth.visible), exact.law(truth).visible
    data = x[np.random.default_rng(0).choice(len(x), 500, p=p)]
    model = small_model(encoding, seed=9, scale=0.1)
    mean = data.mean(axis=0)
    theta = model.row[None].copy()
    start = exact.log_likelihood(Model(encoding, model.hidden, theta[0], mean), data)
    options = kernel_options(encoding, learning_rate=0.01, hidden=model.hidden)
    state = two_step.State(theta, np.zeros_like(theta), data[:1].copy(), np.zeros(1, np.int64))
    two_step.train(state, data, mean, np.full(2000, 50), 0, options, np.array([1], np.uint64), np.empty((1, 2000)))
    end = exact.log_likelihood(Model(encoding, model.hidden, theta[0], mean), data)
    best = np.log(p[p > 0]) @ p[p > 0]
    assert end > start + 0.5 * (best - start)


def test_large_models_run():
    """4,096 visible bits and 64 hidden ones: the sizes promised."""
    random = np.random.default_rng(0)
    row = (0.05 * random.normal(size=parameter_count(64, 4096))).astype(np.float32)
    model = Model("bits", 64, row, np.full(4096, 0.5, np.float32))
    visible = np.zeros((3, 4096), np.uint8)
    states = np.empty((3, 4), np.uint64)
    run_chains(model.row, model.options, model.mean, visible, 0, np.uint64(0), latent_cycle.SAMPLE, states)
    assert len(set(states.ravel().tolist())) == states.size
    assert 0.45 < visible.mean() < 0.55


def test_probabilities_far_below_the_smallest_float_give_the_same_gradient():
    """A_zx = exp(-3000) is no number, its ratios are: the rescaled A* of Eq. 25 has nothing left to do."""
    hidden, visible = 5, 4096
    random = np.random.default_rng(3)
    row = np.concatenate([random.normal(size=2 * hidden * visible) / 20, np.zeros(visible), random.normal(size=hidden)])
    model = Model("softmax", hidden, row, np.full(visible, 0.5))
    batch = (random.random((6, visible)) < 0.5).astype(np.uint8)
    x = (random.random((8, visible)) < 0.5).astype(float)
    states = np.array([0, 1, 2, 3, 4, 0, 1, 2], np.uint64)
    gradient = np.empty(row.size)
    mine = two_step.two_step_gradient(
        row, model.options, model.mean, x, no_bits(8), states, batch.astype(float), gradient
    )
    log_a = exact.log_forward(model, batch)
    assert np.exp(log_a).max() == 0.0
    log_weights = np.log(np.array([2, 2, 2, 1, 1]) / 8)[:, None] + log_a
    log_p = np.logaddexp.reduce(log_weights, axis=0)
    assert mine == pytest.approx(log_p.mean(), rel=1e-12)
    shares = np.exp(log_weights - log_p) / len(batch)
    expected = shares @ batch - shares.sum(axis=1)[:, None] * model.expected(model.states())
    np.testing.assert_allclose(gradient[: hidden * visible].reshape(hidden, visible), expected, atol=1e-12)
