"""Ceilings and circulation: runs, files, commands, and the family against enumeration."""

import json

import numpy as np
import pytest

import thermorun as package
from helpers import refused, thermorun
from thermorun import cycles
from thermorun.cycles import climbs, exact, family, markov, training, turns
from thermorun.cycles.mixture import Mixture, climb, random_start
from thermorun.errors import InputError, Stopped

FEW = {"states": 3, "restarts": 4, "steps": 60}


def little(points=200, size=8):
    """Three kinds of points with classes."""
    random = np.random.default_rng(3)
    kinds = random.integers(0, 3, points)
    return (random.random((points, size)) < random.random((3, size))[kinds]).astype(np.uint8), kinds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data with a part held out, and the ceiling and a study of them."""
    place = tmp_path_factory.mktemp("ceiling")
    x, y = little(300)
    np.savez(place / "own.npz", x=x[:200], y=y[:200], x_test=x[200:], y_test=y[200:])
    cycles.ceiling(dataset=str(place / "own.npz"), out=place / "ceiling.h5", **FEW)
    cycles.train(
        dataset=str(place / "own.npz"), models=2, epochs=30, hidden=3, rule="exact", samples=200, count_steps=999,
        epoch_samples=8, out=place / "study.h5", threads=2,
    )  # fmt: skip
    return place


def test_a_ceiling_is_that_of_its_mixture_in_the_file(folder):
    found = package.load(folder / "ceiling.h5")
    assert isinstance(found, cycles.CeilingResult)
    x = found.data.x
    assert found.log_likelihood[found.best] == pytest.approx(found.mixture.log_p(x).mean(), abs=1e-5)
    assert found.held_out_log_likelihood[found.best] == pytest.approx(
        found.mixture.log_p(found.data.test_x).mean(), abs=1e-5
    )
    assert max(map(len, found.summary().splitlines())) <= 80
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["results"][found.best]["best"]
    assert set(found.figures()) == {"", "states"}
    np.testing.assert_allclose(found.mixture.weights.sum(), 1.0)


def test_the_mixture_is_the_law_of_a_reversible_model(folder):
    mixture = package.load(folder / "ceiling.h5").mixture
    model = turns.reversible(mixture)
    law = exact.law(model)
    np.testing.assert_allclose(law.hidden, mixture.weights, rtol=1e-9)
    np.testing.assert_allclose(law.visible, np.exp(mixture.log_p(exact.all_visible(8))), rtol=1e-9)
    flow = law.hidden[:, None] * law.matrix
    np.testing.assert_allclose(flow, flow.T, atol=1e-15)


def test_two_hidden_layers_have_the_law_of_a_mixture_of_the_second(folder):
    """x -> z1 -> z2 -> x by enumeration: a mixture of the states of z2, any of them where z1 does not matter."""
    mixture = package.load(folder / "ceiling.h5").mixture
    random, x = np.random.default_rng(0), exact.all_visible(8)
    forward = np.exp(mixture.log_forward(x))
    to_first = random.dirichlet(np.ones(2), len(x))
    law = markov.stationary(to_first @ random.dirichlet(np.ones(3), 2) @ forward)
    weights = np.linalg.lstsq(forward.T, law, rcond=None)[0]
    np.testing.assert_allclose(weights @ forward, law, atol=1e-12)
    assert weights.min() > 0
    law = markov.stationary(to_first @ np.tile(mixture.weights, (2, 1)) @ forward)
    np.testing.assert_allclose(law, np.exp(mixture.log_p(x)), rtol=1e-9)


def test_both_gradients_vanish_where_em_stays():
    x, _ = little(400)
    found = climb(x, random_start(x, 3, 0, 0), 20_000, 1e-15, np.float64)
    assert found.mixture.means.min() > 0.01  # no bound has stopped it
    model = turns.reversible(found.mixture)
    moving = np.ones(model.row.size, bool)
    moving[2 * 3 * 8 : 2 * 3 * 8 + 8] = False
    assert np.abs(exact.likelihood_gradient(model, x)[moving]).max() < 1e-4
    assert np.abs(exact.two_step_gradient(model, x)[moving]).max() < 1e-4
    model.wbar[0, 0] += 1.0  # off the maximum neither does
    assert np.abs(exact.likelihood_gradient(model, x)[moving]).max() > 1e-3


def test_resume_gives_the_same_bits(folder, tmp_path, monkeypatch):
    whole = package.load(folder / "ceiling.h5")
    calls = []

    def killed(*given):
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*given)

    plain = climbs.climb
    monkeypatch.setattr(climbs, "climb", killed)
    with pytest.raises(Stopped):
        cycles.ceiling(dataset=str(folder / "own.npz"), out=tmp_path / "c.h5", **FEW)
    monkeypatch.setattr(climbs, "climb", plain)
    begun = package.load(tmp_path / "c.h5")
    assert "2 of 4 starts are done" in " ".join(begun.summary().split())
    mine = package.resume(tmp_path / "c.h5", threads=1)
    np.testing.assert_array_equal(mine.log_likelihood, whole.log_likelihood)
    np.testing.assert_array_equal(mine.mixtures[3].means, whole.mixtures[3].means)


def test_exact_training_reaches_the_ceiling_that_it_shows(folder):
    study, ceiling = package.load(folder / "study.h5"), package.load(folder / "ceiling.h5")
    top = study.attainable
    assert top["log_likelihood"] == pytest.approx(ceiling.log_likelihood.max(), abs=0.02)
    assert study["log_likelihood"].mean.max() > top["log_likelihood"] - 0.1
    assert "ceiling: " in study.summary()
    assert "to ceiling" in study.tables()[0].headings
    assert study.to_dict()["ceiling"] == top
    labels = [line.get_label() for line in study.plot().axes[0].lines]
    assert [label.split(",")[0] for label in labels[-2:]] == ["ceiling (EM)", "the same"]
    assert study["occupancy"].mean.min() > 0.01
    none = cycles.train(
        *little(), models=1, epochs=2, hidden=3, rule="exact", ceiling=0, samples=32, count_steps=99
    )  # fmt: skip
    assert none.attainable == {}


def test_the_exact_rule_resumes_to_the_same_bits(tmp_path, monkeypatch):
    x, y = little()
    fields = {"models": 2, "epochs": 4, "hidden": 3, "rule": "exact", "samples": 32, "count_steps": 99}
    whole = cycles.train(x, y, threads=2, **fields)
    plain = training.Study.epoch

    def killed(self, epoch, *between):
        if epoch == 2:
            raise KeyboardInterrupt
        plain(self, epoch, *between)

    monkeypatch.setattr("thermorun.runs.CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(training.Study, "epoch", killed)
    with pytest.raises(Stopped):
        cycles.train(x, y, out=tmp_path / "a.h5", threads=1, **fields)
    monkeypatch.setattr(training.Study, "epoch", plain)
    again = package.resume(tmp_path / "a.h5", threads=1)
    np.testing.assert_array_equal(again.theta, whole.theta)
    assert again.rows() == whole.rows()


# ------------------------------------------------------------------------------------------------ circulation


def test_turns_keep_the_law_and_a_turn_back_undoes_the_current():
    weights = np.random.default_rng(0).dirichlet(np.ones(5))
    circle = np.array([0, 3, 1, 4, 2])
    for angle in (0.0, 0.01, 0.2, 0.5, 0.77):
        c = turns.turn(weights, circle, angle)
        np.testing.assert_allclose(c.sum(axis=1), 1.0)
        np.testing.assert_allclose(weights @ c, weights, atol=1e-12)
        back = turns.turn(weights, circle, -angle)
        np.testing.assert_allclose((weights[:, None] * c).T, weights[:, None] * back, atol=1e-12)
    np.testing.assert_allclose(turns.turn(weights, circle, 0.0), np.eye(5), atol=1e-15)
    even = turns.turn(np.full(4, 0.25), np.arange(4), 0.25)
    np.testing.assert_allclose(even, np.roll(np.eye(4), 1, axis=1), atol=1e-15)


def small_mixture():
    random = np.random.default_rng(4)
    return Mixture(random.dirichlet(np.full(4, 3.0)), random.uniform(0.1, 0.9, (4, 8)))


def test_members_have_the_law_the_chain_and_the_production_of_enumeration():
    mixture = small_mixture()
    x = exact.all_visible(8)
    forward = np.exp(mixture.log_forward(x))  # (L, 2^D)
    law = mixture.weights @ forward
    posterior = (mixture.weights[:, None] * forward / law).T
    parts = turns.posterior_chain(mixture, 40_000, 16, 1)
    error = parts.std(axis=0, ddof=1) / 4
    assert np.abs((parts.mean(axis=0) - forward @ posterior) / error).max() < 4
    circle = turns.order(forward @ posterior)
    found, largest = turns.angles(forward @ posterior, mixture.weights, None, 5)
    production = []
    for angle in found:
        backward = posterior @ turns.coupling(turns.CIRCULATING, mixture.weights, circle, angle)
        np.testing.assert_allclose(law @ backward, mixture.weights)  # so x keeps its law too
        matrix = forward @ backward
        production.append(float(markov.entropy_production(matrix, markov.stationary(matrix))))
    np.testing.assert_allclose(production, np.linspace(0, largest, 5), atol=1e-9)
    with pytest.raises(InputError, match=r"production is 1e\+06; with this law it must be at most"):
        turns.angles(forward @ posterior, mixture.weights, np.array([1e6]), 5)


def test_images_a_step_and_walks_agree_with_long_chains():
    mixture, classes = small_mixture(), np.array([0, 1, 1, 2])
    matrix = turns.posterior_chain(mixture, 2000, 4, 1).mean(axis=0)
    matrix = matrix @ turns.turn(mixture.weights, np.arange(4), 0.12)
    worth = turns.effective_samples(matrix, mixture.weights, mixture.means)
    c = turns.autocorrelation(matrix, mixture.weights, mixture.means, 400)
    assert worth == pytest.approx(1 / (1 + 2 * c[1:].sum()), rel=1e-9)
    assert turns.effective_samples(np.eye(4), mixture.weights, mixture.means) == 0
    alone = np.tile(mixture.weights, (4, 1))
    assert turns.effective_samples(alone, mixture.weights, mixture.means) == pytest.approx(1)
    divergence, covered = turns.walk(alone, mixture.weights, classes, 1000, 20_000, 4000, (0, 0))
    # Independent draws: KL of K classes from n of them is (K - 1) / 2 n; the collector's time is a sum over subsets.
    assert abs(divergence.mean() - 1e-3) < 4 * divergence.std() / 63 + 3e-5
    p = np.bincount(classes, mixture.weights)
    known = sum(1 / q for q in p) - sum(1 / (1 - q) for q in p) + 1
    assert abs(covered.mean() - known) < 4 * covered.std() / 63


def test_a_run_of_the_family(folder, tmp_path):
    fields = {"members": 3, "chains": 64, "steps": 200, "samples": 320}
    found = cycles.circulation(folder / "study.h5", out=tmp_path / "c.h5", **fields)
    again = package.load(tmp_path / "c.h5")
    assert again.rows() == found.rows() == cycles.circulation(folder / "study.h5", threads=1, **fields).rows()
    assert len(found.rows()) == 7
    assert max(map(len, found.summary().splitlines())) <= 80
    assert set(found.figures()) == {"", "autocorrelation"}
    sigma = found.measured["entropy_production"].mean
    np.testing.assert_allclose(sigma[:3], np.linspace(0, found.largest, 3), atol=1e-9)
    other = cycles.circulation(folder / "ceiling.h5", production=(0.05,), **fields)
    assert other.measured["entropy_production"].mean[0] == pytest.approx(0.05)


def test_a_family_that_was_stopped_goes_on_without_the_file_it_is_of(folder, tmp_path, monkeypatch):
    fields = {"members": 3, "chains": 16, "steps": 50, "samples": 160}
    whole = cycles.circulation(folder / "ceiling.h5", **fields)
    plain, calls = family._measured, []

    def killed(*given):
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*given)

    monkeypatch.setattr(family, "_measured", killed)
    copy = tmp_path / "copy.h5"
    copy.write_bytes((folder / "ceiling.h5").read_bytes())
    with pytest.raises(Stopped):
        cycles.circulation(copy, out=tmp_path / "c.h5", **fields)
    monkeypatch.setattr(family, "_measured", plain)
    copy.unlink()
    assert "2 of 7 members are done" in " ".join(package.load(tmp_path / "c.h5").summary().split())
    assert package.resume(tmp_path / "c.h5", threads=1).rows() == whole.rows()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("ceiling --states 2000", "--states is 2000; it must be at most 1797, the number of points of digits."),
        ("ceiling --restarts 0", "--restarts is 0; it must be an integer of at least 1."),
        ("train --rule exact --encoding bits", "--rule is 'exact', which needs one-hot states and free weights"),
        ("train --rule exact --tied", "--rule is 'exact', which needs one-hot states and free weights"),
        ("train --final-rate 0", "--final-rate is 0.0; it must be a positive finite number."),
        ("circulation CEILING --production 1000", "--production is 1000; with this law it must be at most"),
        ("circulation CEILING --model 1", "--model is 1; "),
        ("circulation STUDY --model 5", "--model is 5; it must be at most 1."),
        ("circulation nothing.h5", "nothing.h5 does not exist."),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(folder, tmp_path, words, sentence):
    names = {"CEILING": str(folder / "ceiling.h5"), "STUDY": str(folder / "study.h5")}
    given = [names.get(word, word) for word in words.split()]
    refused(thermorun("cycles", *given, folder=tmp_path), sentence)
    assert list(tmp_path.iterdir()) == []


def test_a_study_of_more_states_than_points_says_why_it_has_no_ceiling():
    x = np.random.default_rng(0).random((4, 6)) < 0.5
    study = cycles.train(x, models=1, epochs=1, hidden=5, samples=16, count_steps=100)
    assert not study.ceiling
    assert "no ceiling: 5 hidden states are more than the 4 points" in study.notes()
