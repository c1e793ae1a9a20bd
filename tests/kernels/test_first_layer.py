"""Chains x -> bits y -> states z -> x, of three independent matrices, against plain loops and against enumeration."""

import numba
import numpy as np
import pytest

import naive
from thermokernels import latent_cycle, two_step
from thermokernels.chains import average_transitions, run_chains
from thermorun.cycles import exact
from thermorun.cycles.model import Model, initial_row, kernel_options, parameter_count

ENCODINGS = ("softmax", "sigmoid")
VISIBLE, FIRST, HIDDEN = 7, 3, 4


def small_model(encoding, seed=1, scale=1.0):
    random = np.random.default_rng(seed)
    row = scale * random.normal(size=parameter_count(HIDDEN, VISIBLE, FIRST))
    model = Model(encoding, HIDDEN, row, random.uniform(0.2, 0.8, VISIBLE), first=FIRST)
    model.a[:] = 0.0
    return model


def small_data(visible=VISIBLE, points=40, seed=5):
    return (np.random.default_rng(seed).random((points, visible)) < 0.4).astype(np.uint8)


def z_scores(samples, truth):
    """(mean - truth) / stderr over the first axis, whose entries are independent."""
    return (samples.mean(axis=0) - truth) / (samples.std(axis=0, ddof=1) / np.sqrt(len(samples)))


def moving(model):
    """Where parameters are that training moves: all but a."""
    marked = Model(model.encoding, HIDDEN, np.ones(model.row.size), model.mean, first=FIRST)
    marked.a[:] = 0.0
    return marked.row > 0


def test_parameters_are_views_of_one_row():
    model = small_model("softmax")
    shapes = {"w": (4, 7), "wbar": (3, 7), "a": (7,), "abar": (3,), "v": (4, 3), "c": (4,)}
    for name, shape in shapes.items():
        assert getattr(model, name).shape == shape
    np.testing.assert_array_equal(np.concatenate([getattr(model, name).ravel() for name in shapes]), model.row)
    plain = Model("softmax", 4, np.zeros(parameter_count(4, 7)), model.mean)
    assert (plain.v.size, plain.c.size, plain.wbar.shape) == (0, 0, (4, 7))
    start = initial_row(small_data(), "softmax", HIDDEN, 3, np.float64, False, FIRST)
    np.testing.assert_array_equal(
        Model("softmax", HIDDEN, start, model.mean, first=FIRST).w,
        Model("softmax", HIDDEN, initial_row(small_data(), "softmax", HIDDEN, 3, np.float64), model.mean).w,
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradient_matches_plain_loops(encoding, dtype):
    model, batch = small_model(encoding), small_data(points=5)
    states, bits, x = naive.chain_through_bits(
        model.row, HIDDEN, FIRST, encoding, model.mean, small_data()[0], 0, 9, 3, 0
    )
    expected, likelihood = naive.gradient_through_bits(
        model.row, HIDDEN, FIRST, encoding, model.mean, x[:-1], bits, states, batch
    )
    gradient = np.empty(model.row.size, dtype)
    mine = two_step.two_step_gradient(
        model.row.astype(dtype), model.options, model.mean.astype(dtype), np.array(x[:-1], dtype),
        np.array(bits, dtype) - dtype(0.5), np.array(states, np.uint64), batch.astype(dtype), gradient,
    )  # fmt: skip
    assert mine == pytest.approx(likelihood, rel=1e-12 if dtype == np.float64 else 1e-5)
    at = moving(model)
    np.testing.assert_allclose(gradient[at], expected[at], atol=1e-8 if dtype == np.float64 else 2e-5, rtol=0)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_chains_match_plain_loops(encoding):
    model = small_model(encoding)
    start = small_data(points=3)
    visible, states = start.copy(), np.empty((3, 20), np.uint64)
    run_chains(model.row, model.options, model.mean, visible, 2**31, np.uint64(2**40 + 1), np.uint64(2**35), states)
    for c in range(3):
        expected, _, x = naive.chain_through_bits(
            model.row, HIDDEN, FIRST, encoding, model.mean, start[c], 2**31, 20, 2**40 + 1, 2**35 + c
        )
        np.testing.assert_array_equal(states[c], expected)
        np.testing.assert_array_equal(visible[c], x[-1])


def test_many_bits_have_words_of_their_own():
    """Sixty-four bits that say at once what x was: each is on as often as its field says, none with another."""
    random = np.random.default_rng(2)
    row = np.zeros(parameter_count(2, 40, 64))
    model = Model("softmax", 2, row, np.full(40, 0.5), first=64)
    model.abar[:] = random.normal(size=64)
    model.v[0, 63] = 40.0
    states = np.empty((64, 500), np.uint64)
    run_chains(row, model.options, model.mean, np.zeros((64, 40), np.uint8), 0, np.uint64(1), np.uint64(0), states)
    on = (states == 0).mean(axis=1)
    assert abs(z_scores(on, 1.0 / (1.0 + np.exp(-model.abar[63])))) < 4
    expected, _, _ = naive.chain_through_bits(row, 2, 64, "softmax", model.mean, [0] * 40, 0, 9, 1, 0)
    np.testing.assert_array_equal(states[0, :9], expected)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_averaged_transitions_match_plain_loops_and_agree_with_enumeration(encoding):
    model = small_model(encoding)
    blocks, samples = 64, 500
    sums = np.empty((1, HIDDEN, 2, HIDDEN))
    average_transitions(model.row[None], model.options, model.mean, 5, 3, np.array([9], np.uint64), sums)
    for z in range(HIDDEN):
        for block in range(2):
            expected = naive.transitions_through_bits(
                model.row, HIDDEN, FIRST, encoding, model.mean, z, range(5 + 3 * block, 8 + 3 * block), 9,
                int(latent_cycle.MARKOV),
            )  # fmt: skip
            np.testing.assert_allclose(sums[0, z, block], expected, rtol=1e-12)
    sums = np.empty((1, HIDDEN, blocks, HIDDEN))
    average_transitions(model.row[None], model.options, model.mean, 0, samples, np.array([11], np.uint64), sums)
    assert np.abs(z_scores(np.swapaxes(sums[0], 0, 1) / samples, exact.law(model).matrix)).max() < 4


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_training_matches_plain_loops(encoding):
    model, data, sizes = small_model(encoding), small_data(), np.array([4, 7, 5])
    options = kernel_options(encoding, False, 5, 0.02, 0.8, 1e-3, hidden=HIDDEN, first=FIRST)
    state = two_step.State(
        model.row[None].copy(), np.zeros((1, model.row.size)), data[:1].copy(), np.zeros(1, np.int64)
    )
    trace = np.empty((1, 3))
    two_step.train(state, data, model.mean, sizes, 0, options, np.array([6], np.uint64), trace)
    row, square, x, likelihoods = naive.train_through_bits(
        model.row, HIDDEN, FIRST, encoding, data, model.mean, data[0], sizes, options, 6, int(latent_cycle.BATCH)
    )
    np.testing.assert_allclose(state.theta[0], row, rtol=0, atol=1e-7)
    np.testing.assert_allclose(state.square[0], square, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(state.visible[0], x)
    np.testing.assert_allclose(trace[0], likelihoods, rtol=1e-7)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_enumeration_matches_plain_loops_and_chains(encoding):
    model = small_model(encoding)
    known, x = exact.law(model), exact.all_visible(VISIBLE)
    for n in (0, 17, len(x) - 1):
        expected = naive.backward_through_bits(model.row, HIDDEN, FIRST, encoding, model.mean, x[n])
        np.testing.assert_allclose(known.backward[n], expected, rtol=1e-10)
    np.testing.assert_allclose(known.visible @ known.backward, known.hidden, rtol=1e-12)
    # p is a mixture of the images of the states, whatever the first layer is (Eq. 5).
    alone = naive.layers(model.row, HIDDEN, FIRST, VISIBLE)[0]
    mixture = sum(p * np.exp(naive.log_forward(alone, HIDDEN, encoding, z, x[17])) for z, p in enumerate(known.hidden))
    assert known.visible[17] == pytest.approx(mixture, rel=1e-10)
    visible, states = small_data(points=40).repeat(8, axis=0), np.empty((320, 200), np.uint64)
    for first in (0, 200):
        run_chains(model.row, model.options, model.mean, visible, first, np.uint64(3), latent_cycle.SAMPLE, states)
    occupancy = np.stack([(states == z).mean(axis=1) for z in range(HIDDEN)], axis=1)
    assert np.abs(z_scores(occupancy, known.hidden)).max() < 4
    assert np.abs(z_scores(visible, known.visible @ x)).max() < 4


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_exact_gradients_match_finite_differences(encoding):
    model, data = small_model(encoding), small_data()
    before = exact.law(model).visible
    two_step, full = exact.two_step_gradient(model, data), exact.likelihood_gradient(model, data)
    for k in range(model.row.size):
        moved = [Model(encoding, HIDDEN, model.row.copy(), model.mean, first=FIRST) for _ in range(2)]
        moved[0].row[k] += 1e-5
        moved[1].row[k] -= 1e-5
        up, down = (exact.two_step_objective(other, data, before) for other in moved)
        assert two_step[k] == pytest.approx((up - down) / 2e-5, abs=1e-6)
        up, down = (exact.log_likelihood(other, data) for other in moved)
        assert full[k] == pytest.approx((up - down) / 2e-5, abs=1e-6)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_sampled_gradients_agree_with_enumeration(encoding):
    """From independent draws of the stationary law of x, y and z."""
    model, data = small_model(encoding), small_data(points=20)
    random, x, known = np.random.default_rng(4), exact.all_visible(VISIBLE), exact.law(model)
    patterns = exact.all_visible(FIRST)
    p_states = np.array(
        [naive.state_chances(model.row, HIDDEN, FIRST, encoding, VISIBLE, y.astype(float)) for y in patterns]
    )
    blocks, steps = 256, 1000
    samples = np.empty((blocks, model.row.size))
    for k in range(blocks):
        before = x[random.choice(len(x), steps, p=known.visible)].astype(float)
        y = (random.random((steps, FIRST)) < 1.0 / (1.0 + np.exp(-model.hidden_fields(before)))).astype(float)
        p = p_states[(y @ 2 ** np.arange(FIRST)).astype(int)]
        z = (random.random(steps)[:, None] > p.cumsum(axis=1)[:, :-1]).sum(axis=1).astype(np.uint64)
        two_step.two_step_gradient(
            model.row, model.options, model.mean, before, y - 0.5, z, data.astype(float), samples[k]
        )
    at = moving(model)
    assert np.abs(z_scores(samples[:, at], exact.two_step_gradient(model, data)[at])).max() < 4


def test_threads_company_and_pieces_change_no_bit_of_a_training():
    data, random = small_data(20, 60), np.random.default_rng(8)
    mean = data.mean(axis=0).astype(np.float32)
    whole = random.normal(size=(6, parameter_count(5, 20, 4))).astype(np.float32)
    options = kernel_options("softmax", chain_steps=9, learning_rate=0.05, hidden=5, first=4)
    results, before = [], numba.get_num_threads()
    for threads, pieces, models in ((1, (24,), 6), (2, (7, 17), 6), (2, (24,), 3)):
        theta, first = whole[:models].copy(), 0
        state = two_step.State(theta, np.zeros_like(theta), data[:models].copy(), np.zeros(models, np.int64))
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        for length in pieces:
            two_step.train(
                state, data, mean, np.full(length, 10), first, options, np.arange(models, dtype=np.uint64),
                np.empty((models, length)),
            )  # fmt: skip
            first += length
        numba.set_num_threads(before)
        assert np.abs(theta - whole[:models])[:, : 5 * 20].max() > 0.01
        results.append([array[:3].copy() for array in state])
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_training_climbs_the_exact_likelihood():
    truth = small_model("softmax", seed=4, scale=2.0)
    x, p = exact.all_visible(VISIBLE), exact.law(truth).visible
    data = x[np.random.default_rng(0).choice(len(x), 500, p=p)]
    mean = data.mean(axis=0)
    theta = initial_row(data, "softmax", HIDDEN, 1, np.float64, False, FIRST)[None]
    start = exact.log_likelihood(Model("softmax", HIDDEN, theta[0], mean, first=FIRST), data)
    options = kernel_options("softmax", learning_rate=0.01, hidden=HIDDEN, first=FIRST)
    state = two_step.State(theta, np.zeros_like(theta), data[:1].copy(), np.zeros(1, np.int64))
    two_step.train(state, data, mean, np.full(2000, 50), 0, options, np.array([1], np.uint64), np.empty((1, 2000)))
    end = exact.log_likelihood(Model("softmax", HIDDEN, theta[0], mean, first=FIRST), data)
    assert end > start + 0.5 * (np.log(p[p > 0]) @ p[p > 0] - start)
