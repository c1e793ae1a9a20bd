"""The likelihood of models of many bits against enumeration of all 2^L states."""

import math

import numba
import numpy as np
import pytest
from scipy import optimize

import thermorun
from thermorun import cycles
from thermorun.cycles import exact, markov
from thermorun.cycles.likelihood import CHAINS, Effort, bits_of, log_likelihoods, regression
from thermorun.cycles.long_chains import effective_samples
from thermorun.cycles.model import Model, parameter_count
from thermorun.threads import on_threads

VISIBLE = 8


def random_model(hidden, seed, tied=False, scale=1.0):
    """A model of eight visible bits whose hidden ones say much of them."""
    random = np.random.default_rng(seed)
    row = random.normal(0, scale, parameter_count(hidden, VISIBLE)).astype(np.float32)
    model = Model("bits", hidden, row, random.uniform(0.3, 0.7, VISIBLE).astype(np.float32), tied)
    if tied:
        model.wbar[:] = model.w
    return model


def log_law(model):
    """log p(x) of all 2^D points, from sums over all 2^L hidden states, the stationary law of x -> z -> x'."""
    x = exact.all_visible(model.visible)
    h = model.hidden_fields(x)
    matrix = np.zeros((len(x), len(x)))
    for states in np.array_split(np.arange(2**model.hidden, dtype=np.uint64), 2 ** max(0, model.hidden - 14)):
        on = bits_of(states, model.hidden).astype(float)
        backward = np.exp(h @ on.T - np.logaddexp(0.0, h).sum(axis=1)[:, None])
        fields = model.visible_fields(states)
        matrix += backward @ np.exp(fields @ x.T.astype(float) - np.logaddexp(0.0, fields).sum(axis=1)[:, None])
    return np.log(markov.stationary(matrix))


def estimated(model, samples, seed, x):
    start = np.random.default_rng(seed).integers(0, 2, (CHAINS, VISIBLE)).astype(np.uint8)
    return log_likelihoods(model, [x], start, Effort.of(samples), seed)[0]


def test_threads_change_no_bit():
    model, x = random_model(12, 0), exact.all_visible(VISIBLE)[:40]
    found = []
    for threads in (1, 2):
        with on_threads(min(threads, numba.config.NUMBA_NUM_THREADS)):
            found.append(estimated(model, 512, 1, x))
    assert found[0] == found[1]


def points(log_p, count=300):
    """Where the data are, drawn from the law."""
    chosen = np.random.default_rng(0).choice(len(log_p), count, p=np.exp(log_p) / np.exp(log_p).sum())
    return exact.all_visible(VISIBLE)[chosen], float(log_p[chosen].mean())


@pytest.mark.parametrize("tied", [False, True])
def test_estimate_is_that_of_enumeration(tied):
    model = random_model(12, 3, tied)
    x, truth = points(log_law(model))
    found = estimated(model, 16_000, 5, x)
    assert 0 < found.stderr < 0.03
    assert abs(found.mean - truth) < 4 * found.stderr + abs(found.gain)
    assert abs(found.gain) < 0.03
    assert found.fantasies > 100


def test_few_fantasies_are_too_low_and_say_so():
    """A model whose image tells much of the next z, seen through an image a chain."""
    model = random_model(12, 1, scale=3.0)
    x, truth = points(log_law(model), 100)
    few = [estimated(model, CHAINS, seed, x) for seed in range(8)]
    means = np.array([one.mean for one in few])
    assert means.mean() + 2 * means.std(ddof=1) / math.sqrt(8) < truth
    assert np.mean([one.gain for one in few]) > 0.03
    many = estimated(model, 16_000, 0, x)
    assert abs(many.mean - truth) < 4 * many.stderr + abs(many.gain)
    assert many.fantasies > 20 * np.mean([one.fantasies for one in few])


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [16, 18, 20])
@pytest.mark.parametrize("tied", [False, True])
def test_five_seeds_lie_within_a_tenth_of_a_nat(hidden, tied):
    model = random_model(hidden, hidden, tied)
    x, truth = points(log_law(model))
    for seed in range(5):
        found = estimated(model, 64_000, seed, x)
        assert abs(found.mean - truth) < min(0.1, 4 * found.stderr + abs(found.gain))


def test_a_guide_is_a_logistic_regression():
    random = np.random.default_rng(2)
    x = random.integers(0, 2, (400, 3)).astype(np.uint8)
    bits = (random.random((400, 2)) < 1 / (1 + np.exp(-(x @ random.normal(size=(3, 2)))))).astype(np.uint8)
    centre, weights = regression(x, bits)
    design = np.c_[x - centre, np.ones(len(x))]

    def loss(w, y):
        h = design @ w
        return np.logaddexp(0.0, h).sum() - y @ h + 0.5 * w @ w

    for b in range(2):
        best = optimize.minimize(loss, np.zeros(4), args=(bits[:, b].astype(float),))
        np.testing.assert_allclose(weights[:, b], best.x, atol=0.02)


@pytest.mark.parametrize("tied", [False, True])
def test_a_study_shows_estimates_and_doubts(tmp_path, tied):
    random = np.random.default_rng(1)
    data = {"x": random.integers(0, 2, (1200, 8)), "x_test": random.integers(0, 2, (50, 8))}
    np.savez(tmp_path / "own.npz", **data)
    few = {"models": 2, "epochs": 2, "steps_per_epoch": 5, "chain_steps": 6, "samples": 8}
    result = cycles.train(
        dataset=str(tmp_path / "own.npz"), encoding="bits", hidden=12, tied=tied, out=tmp_path / "study.h5", **few
    )
    again = thermorun.load(tmp_path / "study.h5")
    rows = again.rows()
    for m in range(2):
        log_p = log_law(result.model(m))
        for name, x in (("log_likelihood", result.data.x), ("held_out_log_likelihood", result.data.test_x)):
            truth = log_p[x @ 2 ** np.arange(8)].mean()
            assert abs(result[name][m].mean - truth) < 4 * result[name].stderr[m] + abs(result[f"{name}_gain"].mean[m])
            assert rows[m][name]["mean"] == result[name].mean[m]
        assert rows[m]["log_likelihood_doubtful"] is False
        for name, series in list(again.series.items())[:2]:
            epochs, values = again.curve(name, m)
            assert epochs.tolist() == [1, 2]
            assert values[-1] == pytest.approx(result[name].mean[m])  # all points, and not the few of an epoch
            assert abs(series[1, m] - values[-1]) < 0.5
    assert "an estimate from 256 fantasies" in " ".join(again.summary().split())
    again["log_likelihood_gain"].mean[1] = 2.0
    assert "doubtful, a lower bound only: the likelihood of model 1" in " ".join(again.summary().split())
    assert max(map(len, again.summary().splitlines())) <= 80


def test_images_a_step_are_those_of_the_chain():
    """1 / (1 + 2 sum of C(k)) by powers of the chain's own matrix over all 2^8 points."""
    model = random_model(3, 2, scale=0.7)
    law = exact.law(model)
    matrix, p, x = law.backward @ law.forward, law.visible, exact.all_visible(VISIBLE).astype(float)
    centred = x - p @ x
    fundamental = np.linalg.inv(np.eye(len(p)) - matrix + p)
    flow = p[:, None] * (centred @ centred.T)
    truth = np.trace(flow) / (2 * (flow * fundamental.T).sum() - np.trace(flow))
    study = cycles.CycleStudy(encoding="bits", hidden=3, models=1)
    found = effective_samples(model.row, study, model.mean, exact.all_visible(VISIBLE), 4, 2048)
    assert 0 < found.stderr < 0.1 * truth
    assert abs(found.z(truth)) < 4
