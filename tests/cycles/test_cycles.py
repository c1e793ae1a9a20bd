"""Studies of latent cycles: spec, data, training, file, resume, diagnostics, figures."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from matplotlib import image

from thermorun import cycles, datasets
from thermorun.cycles import figures, markov, training
from thermorun.cycles.analysis import counted, transition_blocks
from thermorun.errors import InputError

SMALL = {"models": 3, "epochs": 4, "steps_per_epoch": 5, "chain_steps": 6, "minibatch": (5, 9), "samples": 64,
         "count_steps": 2000, "classes": (0, 1, 2), "epoch_samples": 16}  # fmt: skip


def same(mine, theirs):
    """Whether two results are equal to the last bit."""
    np.testing.assert_array_equal(mine.theta, theirs.theta)
    np.testing.assert_array_equal(mine.visible, theirs.visible)
    for name in mine.series:
        np.testing.assert_array_equal(mine.series[name], theirs.series[name])
    for name, values in mine.analysis.arrays().items():
        np.testing.assert_array_equal(values, getattr(theirs.analysis, name))


def test_spec_survives_json():
    spec = cycles.CycleStudy(**SMALL, encoding="bits", hidden=5, tied=True, seed=9)
    assert cycles.CycleStudy.from_json(spec.to_json()) == spec
    assert json.loads(spec.to_json())["minibatch"] == [5, 9]


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
        ({"encoding": "sigmoid", "tied": True}, "tied"),
        ({"epochs": 10**6, "steps_per_epoch": 1000}, "2^32"),
    ],
)
def test_spec_refuses_what_cannot_run(fields, word):
    with pytest.raises(InputError, match=word.replace("^", r"\^")) as caught:
        cycles.CycleStudy(**fields)
    assert str(caught.value).endswith(".")


def test_digits_are_bits():
    data = datasets.load("digits")
    assert data.x.shape == (1797, 64)
    assert set(np.unique(data.x)) == {0, 1}
    assert data.frequencies.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda p: datasets.load("digits", (3, 11)), "11"),
        (lambda p: datasets.load("letters"), "dataset"),
        (lambda p: datasets.from_arrays([[0, 2]]), "0 and 1"),
        (lambda p: datasets.from_arrays([[0.0, math.nan]]), "0 and 1"),
        (lambda p: datasets.from_arrays(np.zeros((0, 4))), "shape"),
        (lambda p: datasets.from_arrays(np.zeros((3, 4)), [1, 2]), "labels"),
        (lambda p: datasets.load(str(p / "missing.npy")), "cannot be read"),
    ],
)
def test_data_that_cannot_be_used_are_refused_in_one_sentence(tmp_path, make, word):
    with pytest.raises(InputError, match=word):
        make(tmp_path)


def test_own_bits_from_a_file(tmp_path):
    x = np.random.default_rng(0).integers(0, 2, (20, 3, 4))
    np.savez(tmp_path / "own.npz", x=x, labels=np.arange(20) % 2)
    data = datasets.load(str(tmp_path / "own.npz"), (1,))
    assert data.x.shape == (10, 12)
    assert data.shape == (3, 4)


@pytest.fixture
def mnist(monkeypatch):
    """Lets MNIST be found where it is, and never downloads it."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("THERMORUN_DATA", beside))
    found = [place for place in (folder, folder / "mnist") if (place / "train-images-idx3-ubyte.gz").exists()]
    if not found:
        pytest.skip("no MNIST: set THERMORUN_DATA to the folder of train-images-idx3-ubyte.gz")
    monkeypatch.setenv("THERMORUN_DATA", str(found[0]))


@pytest.mark.usefixtures("mnist")
def test_mnist_012_is_the_papers():
    data = datasets.load("mnist-012")
    assert data.x.shape == (3000, 784)
    np.testing.assert_allclose(data.frequencies, 1 / 3)


@pytest.mark.parametrize(
    ("encoding", "tied"), [("softmax", False), ("sigmoid", False), ("bits", False), ("bits", True)]
)
def test_file_and_threads_change_no_bit(tmp_path, encoding, tied):
    spec = cycles.CycleStudy(**SMALL, encoding=encoding, tied=tied, hidden=3)
    with_file = cycles.train(spec, out=tmp_path / "study.h5", threads=1)
    same(with_file, cycles.train(spec, threads=min(2, numba.config.NUMBA_NUM_THREADS)))
    again = cycles.load(tmp_path / "study.h5")
    same(with_file, again)
    assert json.loads(json.dumps(again.to_dict(), allow_nan=False))["models"] == with_file.rows()


@pytest.mark.parametrize("stop", [1, 3])
def test_resume_is_bit_identical(tmp_path, monkeypatch, stop):
    spec = cycles.CycleStudy(**SMALL)
    whole = cycles.train(spec)
    plain = training._Run._epoch

    def killed(self, epoch):
        if epoch == stop:
            raise KeyboardInterrupt
        plain(self, epoch)

    monkeypatch.setattr(training._Run, "_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        cycles.train(spec, out=tmp_path / "study.h5", checkpoint_every=0.0)
    monkeypatch.setattr(training._Run, "_epoch", plain)
    with pytest.raises(InputError, match="resume"):
        cycles.train(spec, out=tmp_path / "study.h5")
    with pytest.raises(InputError, match="unfinished"):
        cycles.load(tmp_path / "study.h5")
    same(whole, cycles.train(spec, out=tmp_path / "study.h5", resume=True))


def test_resume_refuses_other_data(tmp_path):
    x = np.random.default_rng(0).integers(0, 2, (40, 16))
    np.save(tmp_path / "own.npy", x)
    spec = cycles.CycleStudy(**(SMALL | {"classes": None}), dataset=str(tmp_path / "own.npy"))
    cycles.train(spec, out=tmp_path / "study.h5")
    np.save(tmp_path / "own.npy", 1 - x)
    with pytest.raises(InputError, match="not the one"):
        cycles.load(tmp_path / "study.h5")


def test_every_epochs_parameters_are_kept(tmp_path):
    import xarray

    spec = cycles.CycleStudy(**SMALL, keep_every=3)
    result = cycles.train(spec, out=tmp_path / "study.h5")
    with xarray.open_dataset(tmp_path / "study.h5", group="parameters", engine="h5netcdf", phony_dims="sort") as kept:
        np.testing.assert_array_equal(kept["epoch"], [3, 4])
        np.testing.assert_array_equal(kept["theta"][-1], result.theta)


def test_a_stopped_model_is_reported_and_the_others_finish(monkeypatch):
    plain = training.initial_row

    def broken(data, encoding, hidden, seed, dtype, tied):
        row = plain(data, encoding, hidden, seed, dtype, tied)
        if seed == 1:
            row[3] = np.nan
        return row

    monkeypatch.setattr(training, "initial_row", broken)
    result = cycles.train(**SMALL)
    np.testing.assert_array_equal(result.stopped, [-1, 0, -1])
    rows = json.loads(json.dumps(result.to_dict(), allow_nan=False))["models"]
    assert rows[1]["stopped_at_step"] == 0
    assert rows[1]["log_likelihood"] is None
    assert rows[0]["log_likelihood"] > -64
    figures.training(result)


def test_too_many_states_have_long_chains_instead():
    result = cycles.train(**(SMALL | {"models": 1}), encoding="bits", hidden=20)
    row = result.rows()[0]
    assert row["entropy_production"]["mean"] is None
    assert -64 < row["log_likelihood"] < 0
    assert sum(row["class_frequency"]) == pytest.approx(1)
    with pytest.raises(InputError, match="long-chain"):
        result.model(0).states()


def test_counting_agrees_with_averaging():
    spec, data = training.with_data(cycles.CycleStudy(**(SMALL | {"models": 2, "epochs": 20, "samples": 4000})), None)
    result = cycles.train(spec, data=data)
    parts = transition_blocks(result.theta, spec, result.mean, 4000, 16, 0)
    m, p = parts.mean(axis=1), markov.stationary(parts.mean(axis=1))
    counts = counted(result.theta, spec, data, result.mean)
    total = counts.sum(axis=(1, 2))[:, None]
    # Successive states of a chain are correlated; the factor four is the slack for that.
    error = np.sqrt(p * (1 - p) / total) * np.sqrt(1 + 2 * 10)
    assert np.abs((counts.sum(axis=2) / total - p) / error).max() < 4
    visits = counts.sum(axis=2, keepdims=True)
    z = (counts / visits - m) / np.sqrt(m * (1 - m) / visits + parts.var(axis=1) / 15 + 1e-30)
    assert np.abs(z[m * visits > 20]).max() < 4.5


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
    estimate = markov.jackknife(parts, lambda x: x**2)
    assert np.mean(estimate.stderr) == pytest.approx(np.std(estimate.mean), rel=0.15)
    assert np.isnan(markov.jackknife(parts[:, :1], lambda x: x).stderr).all()


def test_chain_likelihood_agrees_with_occupancy():
    spec, data = training.with_data(cycles.CycleStudy(**SMALL), None)
    result = cycles.train(spec, data=data)
    mean, error = cycles.chain_likelihood(result.theta[0], spec, result.mean, data.x, 5, 20_000)
    assert abs(mean - result.analysis.log_likelihood[0]) < 4 * math.hypot(
        error, result.analysis.log_likelihood_stderr[0]
    )


def test_samples_are_pure_functions_of_the_chain():
    result = cycles.train(**(SMALL | {"models": 1}))
    start = result.data.x[:6]
    drawn = cycles.sample(result.model(0), start, steps=3, records=4, seed=2)
    assert drawn.x.shape == (4, 6, 64)
    fewer = cycles.sample(result.model(0), start[:2], steps=3, records=2, seed=2)
    np.testing.assert_array_equal(drawn.x[:2, :2], fewer.x)
    with pytest.raises(InputError, match="too short"):
        cycles.sample(result.model(0), start, steps=1, burn=0)
    with pytest.raises(InputError, match="shape"):
        cycles.sample(result.model(0), start[:, :5], steps=3)


def test_pictures_show_something(tmp_path):
    result = cycles.train(**SMALL)
    drawn = {
        "training": figures.training(result), "indicators": figures.indicators(result),
        "portrait": figures.portrait(result, 1), "cycle": figures.cycle(result, 1),
        "autocorrelation": figures.autocorrelations(result, [0, 1], 8),
        "sheet": figures.contact_sheet(result.data.x[:20], result.data.shape),
    }  # fmt: skip
    for name, figure in drawn.items():
        figure.savefig(tmp_path / f"{name}.png", dpi=50)
        assert image.imread(tmp_path / f"{name}.png")[..., :3].std() > 0.02, name
    with pytest.raises(InputError, match="models 0 to 2"):
        figures.portrait(result, 3)


def test_matrices_suit_deeptime():
    deeptime = pytest.importorskip("deeptime.markov.msm")
    result = cycles.train(**(SMALL | {"models": 1}))
    chain = deeptime.MarkovStateModel(result.analysis.matrix[0])
    np.testing.assert_allclose(chain.stationary_distribution, result.analysis.occupancy[0], atol=1e-8)


@pytest.mark.slow
@pytest.mark.usefixtures("mnist")
def test_the_papers_study_shows_the_papers_picture():
    """36 softmax models on MNIST 0, 1, 2: Figs. 2(c) and 4."""
    result = cycles.train(dataset="mnist-012")
    a = result.analysis
    assert (a.mean_diagonal + 4 * a.mean_diagonal_stderr < 1 / 6).all()
    counted = np.argsort(a.entropy_production_half)
    assert np.median(a.decorrelation_time[counted[-12:]]) > np.median(a.decorrelation_time[counted[:12]])
    assert (a.decorrelation_time[counted[-12:]] > 20).sum() >= 3
    assert -148 < np.median(a.log_likelihood) < -146.5


def test_same_bits_compiled_and_loaded(tmp_path):
    """The first process compiles into an empty cache, the second loads from it, as a resumed run does."""
    code = (
        "from thermorun import cycles\n"
        "for encoding in ('softmax', 'bits'):\n"
        "    print(cycles.train(models=2, epochs=5, encoding=encoding, hidden=5, samples=64).to_dict()['models'])\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    compiled, loaded = (
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True).stdout
        for _ in range(2)
    )
    assert compiled == loaded
    assert len(compiled) > 1000
