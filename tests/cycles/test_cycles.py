"""Studies of latent cycles: spec, training, file, going on, diagnostics against enumeration."""

import json
import math
import os
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import pytest

import thermorun
from thermokernels import latent_cycle
from thermorun import cycles, datasets, streams
from thermorun.cycles import diagnostics, exact, layout, markov, study, training
from thermorun.cycles.diagnostics import counted, transition_blocks
from thermorun.errors import InputError, Stopped
from thermorun.estimates import jackknife

SMALL = {"models": 3, "epochs": 4, "steps_per_epoch": 5, "chain_steps": 6, "minibatch": (5, 9), "samples": 64,
         "count_steps": 2000, "classes": (0, 1, 2), "epoch_samples": 16}  # fmt: skip
OWN = {name: value for name, value in SMALL.items() if name != "classes"}


def same(mine, theirs):
    """Whether two results are equal to the last bit."""
    for name in ("theta", "square", "visible", "stopped"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    for name in mine.series:
        np.testing.assert_array_equal(mine.series[name], theirs.series[name])
    assert list(mine.diagnostics) == list(theirs.diagnostics)
    for name, estimate in mine.diagnostics.items():
        np.testing.assert_array_equal(estimate.mean, theirs[name].mean)
        np.testing.assert_array_equal(estimate.stderr, theirs[name].stderr)
        assert estimate.dof == theirs[name].dof


def little(seed=0, points=120):
    """Bits that a model of three states has something to learn of: three kinds of points of eight bits, and classes."""
    random = np.random.default_rng(seed)
    kinds = random.integers(0, 3, points)
    return (random.random((points, 8)) < random.random((3, 8))[kinds]).astype(np.uint8), kinds


@pytest.fixture(scope="module")
def small():
    """A little study in memory."""
    return cycles.train(**SMALL)


def test_spec_survives_json():
    spec = cycles.CycleStudy(**SMALL, encoding="bits", hidden=5, tied=True, seed=9)
    assert cycles.CycleStudy.from_json(spec.to_json()) == spec
    assert json.loads(spec.to_json())["minibatch"] == [5, 9]
    assert cycles.CycleStudy(minibatch=7).minibatch == (7, 7)
    assert cycles.CycleStudy(dataset=Path("own.npz")).dataset == "own.npz"


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"encoding": "ternary"}, "encoding"),
        ({"encoding": "bits", "hidden": 65}, "hidden"),
        ({"hidden": 0}, "hidden"),
        ({"chain_steps": 1}, "chain_steps"),
        ({"minibatch": (0, 10)}, "minibatch"),
        ({"minibatch": (10,)}, "minibatch"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"decay": 1.0}, "decay"),
        ({"precision": "float16"}, "precision"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64 - 10}, "seed"),
        ({"encoding": "sigmoid", "tied": True}, "tied"),
        ({"first_layer": 65}, "first_layer"),
        ({"first_layer": 4, "encoding": "bits"}, "first_layer is 4.*one-hot"),
        ({"first_layer": 4, "tied": True}, "first_layer is 4.*free weights.*tied"),
        ({"first_layer": 4, "hidden": 1025}, "first_layer is 4.*1,024"),
        ({"first_layer": 4, "rule": "exact"}, "rule is 'exact'.*first layer"),
        ({"epochs": 10**6, "steps_per_epoch": 1000}, "2^32"),
        ({"epochs": 10**5, "epoch_samples": 10**6}, "epoch_samples"),
    ],
)
def test_spec_refuses_what_cannot_run(fields, word):
    with pytest.raises(InputError, match=word.replace("^", r"\^")) as caught:
        cycles.CycleStudy(**fields)
    assert str(caught.value).endswith(".")


def test_minibatch_grows_and_stays():
    whole = cycles.CycleStudy(epochs=5, minibatch=(10, 50))
    assert [whole.sizes(epoch)[0] for epoch in range(5)] == [10, 20, 30, 40, 50]
    longer = cycles.CycleStudy(epochs=8, grow_epochs=5, minibatch=(10, 50))
    assert [longer.sizes(epoch)[0] for epoch in range(8)] == [10, 20, 30, 40, 50, 50, 50, 50]


def test_streams_are_those_of_the_kernels():
    for name in ("chain", "batch", "start", "markov", "sample"):
        assert streams.cycles(5, name).first == int(getattr(latent_cycle, name.upper()))
    purposes = ("chain", "batch", "start", "markov", "diagnostics", "fantasies", "portrait")
    parts = sorted((streams.cycles(5, name) for name in purposes), key=lambda part: part.first)
    assert all(one.first + one.count <= other.first for one, other in pairwise(parts))


# ------------------------------------------------------------------------------------------------ runs and files


@pytest.mark.parametrize(
    ("encoding", "tied", "first"),
    [
        ("softmax", False, 0),
        ("softmax", False, 2),
        pytest.param("sigmoid", False, 0, marks=pytest.mark.slow),
        ("bits", False, 0),
        ("bits", True, 0),
    ],
)
def test_file_and_threads_change_no_bit(tmp_path, encoding, tied, first):
    spec = cycles.CycleStudy(**SMALL, encoding=encoding, tied=tied, hidden=3, first_layer=first)
    with_file = spec.run(out=tmp_path / "study.h5", threads=1)
    same(with_file, spec.run(threads=min(2, numba.config.NUMBA_NUM_THREADS)))
    again = thermorun.load(tmp_path / "study.h5")
    same(with_file, again)
    assert json.loads(json.dumps(again.to_dict(), allow_nan=False))["results"] == with_file.rows()


@pytest.mark.parametrize(("stop", "first"), [(1, 0), (3, 0), (3, 2)])
def test_resume_is_bit_identical(tmp_path, monkeypatch, small, stop, first):
    spec = cycles.CycleStudy(**SMALL, first_layer=first)
    plain = training.Study.epoch

    def killed(self, epoch, *between):
        if epoch == stop:
            raise KeyboardInterrupt
        plain(self, epoch, *between)

    monkeypatch.setattr("thermorun.runs.CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(training.Study, "epoch", killed)
    with pytest.raises(Stopped, match="go on with 'thermorun resume"):
        spec.run(out=tmp_path / "study.h5")
    monkeypatch.setattr(training.Study, "epoch", plain)
    with pytest.raises(InputError, match="resume"):
        spec.run(out=tmp_path / "study.h5")
    begun = thermorun.load(tmp_path / "study.h5")
    assert (begun.complete, begun.epochs_done) == (False, stop)
    assert f"?: {stop} of 4 epochs are done" in begun.summary()
    begun.plot()
    with pytest.raises(InputError, match="unfinished"):
        begun.sample()
    with pytest.raises(InputError, match="unfinished"):
        cycles.extend(tmp_path / "study.h5", epochs=9)
    same(spec.run() if first else small, spec.run(out=tmp_path / "study.h5", resume=True))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_where_an_epoch_is_cut_and_stopped_changes_no_bit(tmp_path, monkeypatch, small, size):
    """Pieces of ``size`` steps; the run is stopped after the eighth step of all, in the middle of the second epoch."""
    done = []

    def stop(session, state=None):
        plain(session, state)
        if state is not None:
            done.append(int(state()["epoch"]) * 5 + int(state()["step"]))
            if done[-1] >= 8 and not resuming:
                session.interrupt.pending = True
                plain(session, state)

    resuming, plain = False, training.Session.pause
    monkeypatch.setattr(training.Session, "pause", stop)

    def cut(self, first, total):
        return (range(k, min(k + size, total)) for k in range(first, total, size))

    monkeypatch.setattr(study.Pieces, "__call__", cut)
    with pytest.raises(Stopped):
        cycles.train(**SMALL, out=tmp_path / "study.h5")
    assert (done[-1], thermorun.load(tmp_path / "study.h5").epochs_done) == ({1: 8, 2: 9, 5: 10}[size], 1)
    resuming, begun = True, len(done)
    same(small, thermorun.resume(tmp_path / "study.h5"))
    assert done[begun] == {1: 9, 2: 10, 5: 10}[size]


def test_a_study_goes_on_with_no_other_draws_than_its_own(tmp_path, monkeypatch):
    file = tmp_path / "study.h5"
    plain = training.Study.epoch

    def killed(self, epoch, *between):
        if epoch == 2:
            raise KeyboardInterrupt
        plain(self, epoch, *between)

    with monkeypatch.context() as earlier:
        earlier.setattr(layout, "DRAWS", 1)
        earlier.setattr("thermorun.runs.CHECKPOINT_EVERY", 0.0)
        earlier.setattr(training.Study, "epoch", killed)
        with pytest.raises(Stopped):
            cycles.train(**SMALL, out=file)
    with pytest.raises(InputError, match="random numbers were others"):
        thermorun.resume(file)
    with monkeypatch.context() as earlier:
        earlier.setattr(layout, "DRAWS", 1)
        whole = thermorun.resume(file)
    same(whole, thermorun.load(file))
    for more in ({"epochs": 6}, {"samples": 128}):
        with pytest.raises(InputError, match="random numbers were others"):
            cycles.extend(file, **more)


def test_resume_of_other_data_is_refused_and_of_moved_data_is_not(tmp_path):
    x, _ = little()
    (tmp_path / "place").mkdir()
    np.save(tmp_path / "place" / "own.npy", x)
    spec = cycles.CycleStudy(**OWN, dataset=str(tmp_path / "place" / "own.npy"))
    first = spec.run(out=tmp_path / "study.h5")
    (tmp_path / "place" / "own.npy").rename(tmp_path / "own.npy")
    same(first, spec.replace(dataset=str(tmp_path / "own.npy")).run(out=tmp_path / "study.h5", resume=True))
    same(first, thermorun.resume(tmp_path / "study.h5"))
    np.save(tmp_path / "own.npy", 1 - x)
    with pytest.raises(InputError, match="another spec"):
        spec.replace(dataset=str(tmp_path / "own.npy")).run(out=tmp_path / "study.h5", resume=True)
    with pytest.raises(InputError, match="its fingerprint is"):
        first.spec.replace(dataset=str(tmp_path / "own.npy")).run()


def test_arrays_are_data_like_any_other(tmp_path):
    x, y = little()
    np.savez(tmp_path / "own.npz", x=x, labels=y)
    from_file = cycles.train(dataset=str(tmp_path / "own.npz"), **OWN)
    own = cycles.train(x > 0, y, out=tmp_path / "own.h5", **OWN)
    same(from_file, own)
    same(own, cycles.train(np.where(x, 200, 3).reshape(-1, 2, 4), y.astype(float), threshold=127, **OWN))
    alone = thermorun.load(tmp_path / "own.h5")
    np.testing.assert_array_equal(alone.data.x, x)
    np.testing.assert_array_equal(alone.data.labels, y)
    same(own, cycles.train(x, y, out=tmp_path / "own.h5", resume=True, **OWN))
    same(own, thermorun.resume(tmp_path / "own.h5"))
    part = cycles.train(x, y, classes=(0, 2), **OWN)
    assert len(part.data.x) == np.isin(y, (0, 2)).sum()
    with pytest.raises(InputError, match="y is given without X"):
        cycles.train(y=y)
    with pytest.raises(InputError, match="give a threshold"):
        cycles.train(x * 200)


def test_going_on_is_the_study_that_was_begun_with_more(tmp_path, small):
    cycles.train(out=tmp_path / "a.h5", **SMALL)
    longer = cycles.train(**(SMALL | {"epochs": 7, "grow_epochs": 4, "keep_every": 1}))
    same(longer, cycles.extend(tmp_path / "a.h5", epochs=7, out=tmp_path / "b.h5"))
    same(longer, thermorun.load(tmp_path / "b.h5"))
    np.testing.assert_array_equal(thermorun.load(tmp_path / "b.h5").kept_parameters(), longer.kept_parameters())
    finer = cycles.train(**(SMALL | {"samples": 128}))
    same(finer, cycles.extend(tmp_path / "a.h5", samples=128))
    same(small, thermorun.load(tmp_path / "a.h5"))
    with pytest.raises(InputError, match="the file that is gone on from"):
        cycles.extend(tmp_path / "a.h5", epochs=9, out=tmp_path / "a.h5")


def test_files_open_in_xarray_with_weights_by_name(tmp_path):
    import xarray

    result = cycles.train(out=tmp_path / "study.h5", **(SMALL | {"keep_every": 3}))
    with xarray.open_dataset(tmp_path / "study.h5", group="parameters", engine="h5netcdf") as kept:
        np.testing.assert_array_equal(kept["epoch"], [3, 4])
        np.testing.assert_array_equal(kept["theta"][-1], result.theta)
    with xarray.open_dataset(tmp_path / "study.h5", group="weights", engine="h5netcdf") as weights:
        for name in ("w", "wbar", "a", "abar"):
            np.testing.assert_array_equal(weights[name][1], getattr(result.model(1), name))
    with xarray.open_dataset(tmp_path / "study.h5", group="data", engine="h5netcdf") as data:
        np.testing.assert_array_equal(np.unpackbits(data["bits"].values, axis=1), result.data.x)
    assert result.to_xarray()["weights"]["w"].dims == ("model", "hidden", "pixel")


def test_ten_epochs_of_parameters_are_kept_by_default():
    assert cycles.CycleStudy().on(datasets.load("digits")).kept_epochs() == list(range(12, 121, 12))
    assert cycles.CycleStudy(epochs=3).on(datasets.load("digits")).kept_epochs() == [1, 2, 3]


def test_results_show_themselves(small):
    assert repr(small).startswith("<StudyResult of CycleStudy(")
    assert len(repr(small)) < 400
    assert max(map(len, small.summary().splitlines())) <= 80
    assert "<table>" in small._repr_html_()
    copy = pickle.loads(pickle.dumps(small))
    same(small, copy)
    assert len(small.to_pandas()) == 3
    with pytest.raises(InputError, match="is no diagnostic of this study; there are"):
        small["entropy"]


def test_a_stopped_model_is_reported_and_the_others_finish(monkeypatch):
    plain = study.initial_row

    def broken(data, encoding, hidden, seed, *others):
        row = plain(data, encoding, hidden, seed, *others)
        if seed == 1:
            row[3] = np.nan
        return row

    monkeypatch.setattr(study, "initial_row", broken)
    result = cycles.train(**SMALL)
    np.testing.assert_array_equal(result.stopped, [-1, 0, -1])
    rows = json.loads(json.dumps(result.to_dict(), allow_nan=False))["results"]
    assert rows[1]["stopped_at_step"] == 0
    assert rows[1]["log_likelihood"] == {"mean": None, "stderr": None}
    assert rows[0]["log_likelihood"]["mean"] > -64
    assert "model 1 stopped at step 0" in result.summary()
    with pytest.raises(InputError, match="model is 1, whose parameters are not finite"):
        result.sample(1, chains=2)
    for picture in result.with_portraits((0,)).figures().values():
        assert picture.axes


# ------------------------------------------------------------------------------------------------ diagnostics


@pytest.mark.parametrize(
    ("encoding", "hidden", "first"), [("softmax", 3, 0), ("sigmoid", 4, 0), ("bits", 2, 0), ("softmax", 4, 2)]
)
def test_diagnostics_are_those_of_enumeration(tmp_path, encoding, hidden, first):
    """Every diagnostic of small models beside all 2^8 x: likelihood, M, occupancy, sigma of z and of x and z."""
    x, y = little(points=300)
    np.savez(tmp_path / "own.npz", x=x[:200], y=y[:200], x_test=x[200:], y_test=y[200:])
    result = cycles.train(
        dataset=str(tmp_path / "own.npz"), encoding=encoding, hidden=hidden, models=2, epochs=8, samples=4000,
        count_steps=3200, first_layer=first,
    )  # fmt: skip
    for m in range(2):
        model = result.model(m)
        known = exact.law(model)
        truths = {
            "log_likelihood": exact.log_likelihood(model, x[:200]),
            "held_out_log_likelihood": exact.log_likelihood(model, x[200:]),
            "entropy_production": markov.entropy_production(known.matrix, known.hidden),
            "mean_diagonal": markov.mean_diagonal(known.matrix),
            "occupancy": known.hidden,
            "current": markov.currents(known.matrix, known.hidden),
            "matrix": known.matrix,
        }
        forward, backward = known.forward, known.backward  # A (S, X), Abar (X, S)
        joint = known.visible[:, None, None] * backward[:, :, None] * forward[None]  # p(x, z, x')
        ratio = np.log(backward[:, :, None] * forward[None]) - np.log(backward.T[None] * forward.T[:, :, None])
        if not first:
            truths["path_entropy_production"] = float((joint * ratio).sum())
        for name in ("log_likelihood", "held_out_log_likelihood"):  # of fewer samples after every epoch
            assert result.series[name][-1, m] == pytest.approx(truths[name], abs=0.1)
        for name, truth in truths.items():
            z = result[name][m].z(truth)
            assert np.nanmax(np.abs(z)) < 4, (name, z)


def test_models_are_analysed_alone_as_together(monkeypatch, small):
    monkeypatch.setattr(diagnostics, "_MOST_BYTES", 8)
    alone = cycles.train(**SMALL)
    for name, estimate in small.diagnostics.items():  # but for the order of additions
        np.testing.assert_allclose(alone[name].mean, estimate.mean, rtol=1e-12)
        np.testing.assert_allclose(alone[name].stderr, estimate.stderr, rtol=1e-9)


def test_counting_agrees_with_averaging():
    result = cycles.train(**(SMALL | {"models": 2, "epochs": 20, "samples": 4000}))
    parts = transition_blocks(result.theta, result.spec, result.mean, 4000, 16, 0)
    m, p = parts.mean(axis=1), markov.stationary(parts.mean(axis=1))
    counts = counted(result.theta, result.spec, result.data, result.mean).sum(axis=1)
    np.testing.assert_array_equal(counts, result["counts"].mean)
    total = counts.sum(axis=(1, 2))[:, None]
    # Successive states of a chain are correlated; the factor four is the slack for that.
    error = np.sqrt(p * (1 - p) / total) * np.sqrt(1 + 2 * 10)
    assert np.abs((counts.sum(axis=2) / total - p) / error).max() < 4
    visits = counts.sum(axis=2, keepdims=True)
    z = (counts / visits - m) / np.sqrt(m * (1 - m) / visits + parts.var(axis=1) / 15 + 1e-30)
    assert np.abs(z[m * visits > 20]).max() < 4.5


def test_chain_likelihood_agrees_with_occupancy(small):
    found = cycles.chain_likelihood(small.theta[0], small.spec, small.mean, small.data.x, 5, 8000)
    known = small["log_likelihood"][0]
    assert abs(found.mean - known.mean) < 4 * math.hypot(found.stderr, known.stderr)


@pytest.mark.parametrize(("encoding", "hidden"), [pytest.param("bits", 20, marks=pytest.mark.slow), ("softmax", 1100)])
def test_too_many_states_have_long_chains_instead(encoding, hidden):
    result = cycles.train(**(SMALL | {"models": 1, "epochs": 2}), encoding=encoding, hidden=hidden)
    row = result.rows()[0]
    assert "entropy_production" not in row
    assert -64 < row["log_likelihood"]["mean"] < 0
    assert row["path_entropy_production"]["stderr"] > 0
    assert sum(row["class_frequency"]["mean"]) == pytest.approx(1)
    assert "path of x and z" in result.shown_sigma[1]
    assert "need at most 1,024 hidden states" in " ".join(result.summary().split())
    for name, picture in result.with_portraits().figures().items():
        assert picture.axes, name
    with pytest.raises(InputError, match="long-chain"):
        result.model(0).states()


def test_reasons_for_what_is_infinite_or_missing():
    few = cycles.train(**(OWN | {"models": 1}), hidden=2)
    assert np.isinf(few["kl"].mean).all()
    assert "2 states cannot draw 10 classes" in few.notes()[0]
    assert few.rows()[0]["kl"]["mean"] is None
    assert "± ?: a single sample a state" in " ".join(cycles.train(little()[0], **(OWN | {"samples": 1})).notes())
    assert "± ?: all parts" in " ".join(cycles.train(little()[0], hidden=1, **OWN).notes())
    none = cycles.train(little()[0], **OWN)
    assert np.isnan(none["kl"].mean).all()
    assert none.notes() == ["the data have no classes, so there is no KL of their frequencies"]
    assert "KL" not in none.tables()[0].headings
    assert set(none.with_portraits().figures()) >= {"training", "indicators"}


# ------------------------------------------------------------------------------------------------ Markov chains


def test_markov_chains_with_known_answers():
    ring = np.roll(np.eye(4), 1, axis=1)
    p, q = 0.7, 0.1
    m = p * ring + q * ring.T + (1 - p - q) * np.eye(4)
    occupancy = markov.stationary(m)
    np.testing.assert_allclose(occupancy, 0.25)
    assert markov.entropy_production(m, occupancy) == pytest.approx((p - q) * math.log(p / q))
    assert markov.currents(m, occupancy)[0, 1] == pytest.approx((p - q) / 4)
    second = abs(1 - p - q + p * 1j - q * 1j)
    assert markov.second_eigenvalue(m) == pytest.approx(second)
    assert markov.decorrelation_time(m) == pytest.approx(-1 / math.log(second))
    assert markov.mean_diagonal(m) == pytest.approx(1 - p - q)
    assert markov.decorrelation_time(ring) > 1e6
    weights = np.random.default_rng(0).random((5, 5))
    reversible = (weights + weights.T) / (weights + weights.T).sum(axis=1, keepdims=True)
    assert abs(markov.entropy_production(reversible, markov.stationary(reversible))) < 1e-15


def test_rare_transitions_keep_their_digits():
    m = np.array([[1 - 1e-90, 1e-90], [1e-100, 1.0]])
    np.testing.assert_allclose(markov.stationary(m), [1e-10, 1.0], rtol=1e-9)


def test_divergence_of_class_frequencies():
    assert markov.divergence(np.array([0.5, 0.5]), np.array([0.25, 0.75])) == pytest.approx(0.5 * math.log(4 / 3))
    assert markov.divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == math.inf
    assert markov.divergence(np.array([1.0]), np.array([1.0 + 3e-16])) == 0


def test_rules_for_zero_counts():
    counts = np.array([[0, 50, 0], [0, 0, 50], [50, 0, 0]])
    assert markov.counted_entropy_production(counts, "skip") == 0
    assert markov.counted_entropy_production(counts, "one") == pytest.approx(math.log(50))
    assert markov.counted_entropy_production(counts, "half") == pytest.approx(3 * 50 / 154.5 * math.log(101), rel=1e-3)
    with pytest.raises(ValueError, match="rule"):
        markov.counted_entropy_production(counts, "guess")


def test_jackknife_error_is_the_scatter_of_repetitions():
    random = np.random.default_rng(1)
    parts = random.normal(1.0, 0.3, (400, 16))
    estimate = jackknife(parts, lambda x: x**2, axis=1)
    assert np.mean(estimate.stderr) == pytest.approx(np.std(estimate.mean), rel=0.15)
    assert np.isnan(jackknife(parts[:, :1], lambda x: x, axis=1).stderr).all()


def test_samples_are_pure_functions_of_the_chain(small):
    start = small.data.x[:6]
    drawn = cycles.sample(small.model(0), start, steps=3, records=4, seed=2)
    assert drawn.x.shape == (4, 6, 64)
    fewer = cycles.sample(small.model(0), start[:2], steps=3, records=2, seed=2)
    np.testing.assert_array_equal(drawn.x[:2, :2], fewer.x)
    with pytest.raises(InputError, match="at least 2 double steps"):
        cycles.sample(small.model(0), start, steps=1, burn=0)
    with pytest.raises(InputError, match="shape"):
        cycles.sample(small.model(0), start[:, :5], steps=3)


def test_matrices_suit_deeptime(small):
    deeptime = pytest.importorskip("deeptime.markov.msm")
    chain = deeptime.MarkovStateModel(small["matrix"].mean[0])
    np.testing.assert_allclose(chain.stationary_distribution, small["occupancy"].mean[0], atol=1e-8)


@pytest.mark.slow
def test_the_papers_study_shows_the_papers_picture(mnist):
    """36 softmax models on MNIST 0, 1, 2: Figs. 2(c) and 4."""
    result = cycles.train(dataset="mnist-012")
    diagonal, tau = result["mean_diagonal"], result["decorrelation_time"].mean
    assert (diagonal.mean + 4 * diagonal.stderr < 1 / 6).all()
    by_counting = np.argsort(result["entropy_production_half"].mean)
    assert np.median(tau[by_counting[-12:]]) > np.median(tau[by_counting[:12]])
    assert (tau[by_counting[-12:]] > 20).sum() >= 3
    assert -148 < np.median(result["log_likelihood"].mean) < -146.5
    assert -148.5 < np.median(result["held_out_log_likelihood"].mean) < -145


@pytest.mark.slow
def test_same_bits_compiled_and_loaded(tmp_path):
    """The first process compiles into an empty cache, the second loads from it, as a resumed run does."""
    code = (
        "from thermorun import cycles\n"
        "for encoding in ('softmax', 'bits'):\n"
        "    print(cycles.train(models=2, epochs=5, encoding=encoding, hidden=5, samples=64).rows())\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    compiled, loaded = (
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True).stdout
        for _ in range(2)
    )
    assert compiled == loaded
    assert len(compiled) > 1000


def test_a_layout_names_every_diagnostic(small):
    assert set(layout.diagnostics_of(small.spec, held_out=False)) == set(small.diagnostics)
