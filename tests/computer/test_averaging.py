"""Averages over shots and over windows of the read-out, and sweeps that train anew at every value."""

import numpy as np
import pytest
from machines import ODD, QUICK, small_machine

import thermorun
from helpers import refused
from helpers import thermorun as command
from thermorun import computer
from thermorun.computer import shots, sweeping
from thermorun.computer.score import Tally, Votes
from thermorun.streams import Streams


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    return computer.train(**QUICK, out=tmp_path_factory.mktemp("averaging") / "a.h5")


def test_a_vote_is_the_mean_output_of_so_many_shots(machine):
    swept = computer.sweep(machine.file, over="shots", values=(1, 2, 5), shots=2)
    every = computer.classify(machine.file, shots=10)
    kept = every.to_xarray()["shots"]["output"].values
    labels = every.labels
    for i, size in enumerate((1, 2, 5)):
        means = [kept[vote * size : (vote + 1) * size].mean(axis=0) for vote in range(2)]
        right = np.mean([np.argmax(mean, axis=1) == labels for mean in means])
        assert swept.columns["accuracy"][i].mean == pytest.approx(right)
    single = computer.classify(machine.file, shots=2).score
    assert swept.columns["accuracy"][0] == single.accuracy
    # Ten shots take the heat of ten.
    assert swept.columns["heat"][2].mean == pytest.approx(5 * every.score.heat.mean, rel=1e-6)


def test_votes_are_means_and_no_more_than_asked_for():
    votes = Votes(Tally.empty(np.array([0, 1]), 2, 2), size=3, most=2)
    outputs = np.random.default_rng(0).normal(size=(8, 2, 2)).astype(np.float32)
    for output in outputs:  # the last two are of a third vote
        votes.add(output, np.ones(2), np.full(2, 2.0))
    assert votes.tally.shots == 2
    np.testing.assert_allclose(votes.tally.outputs, outputs[:6].sum(axis=0) / 3, rtol=1e-6)
    assert votes.tally.heat.tolist() == [6, 6]
    assert votes.tally.work.tolist() == [12, 12]


def test_a_window_averages_every_state_from_the_observation_time_on(monkeypatch):
    machine = small_machine(physics=ODD)
    fields = machine.fields(np.random.default_rng(2).normal(size=(70, 5)), np.float32)
    steps, windows = machine.physics.steps, (0, 3, 11, 40)
    path = machine.run(fields, steps=steps + 40, seed=Streams(5), recorded=range(steps, steps + 41)).paths
    for recorded in (2**23, 70 * 6 * 4):  # at once, and four steps at a time
        monkeypatch.setattr(shots, "_RECORDED", recorded)
        for window, (output, x) in zip(windows, shots.read_windows(machine, fields, windows, Streams(5)), strict=True):
            np.testing.assert_allclose(output, path[: window + 1, :, 4:].mean(axis=0, dtype=float), rtol=3e-7)
            assert np.array_equal(x, path[window])


def test_no_window_is_a_classification(machine):
    swept = computer.sweep(machine.file, over="window", values=(0.1, 0), shots=2)
    single = computer.classify(machine.file, shots=2).score
    assert swept.columns["accuracy"][1] == single.accuracy
    assert swept.columns["heat"][1].mean == pytest.approx(single.heat.mean, rel=1e-6)


def test_a_sweep_that_retrains_has_the_machines_of_trainings(machine):
    swept = computer.sweep(machine.file, over="observation-time", values=(0.05, 0.2), retrain=True, shots=2)
    for i, time in enumerate((0.05, 0.2)):
        trained = computer.train(**QUICK, observation_time=time)
        assert swept.columns["accuracy"][i] == trained.score.accuracy
        assert swept.columns["heat"][i].to_dict() == trained.score.heat.to_dict()
    cold = computer.sweep(machine.file, over="temperature", values=(0.5,), retrain=True, shots=2)
    assert cold.columns["accuracy"][0] == computer.train(**QUICK, kT=0.5).score.accuracy
    assert "trained for every row" in cold.summary()


@pytest.mark.slow
def test_an_adjoint_is_retrained_with_steps_no_longer_than_its_own(tmp_path):
    few = {"hidden": 4, "classes": (0, 1), "method": "adjoint", "shots": 1}
    computer.train(**few, trajectories=600, training_steps=10, out=tmp_path / "a.h5")
    swept = computer.sweep(tmp_path / "a.h5", values=(0.05, 0.3), retrain=True, retraining=400, shots=1)
    for i, (time, steps) in enumerate(((0.05, 10), (0.3, 15))):
        alone = computer.train(**few, trajectories=400, training_steps=steps, observation_time=time)
        assert swept.columns["accuracy"][i] == alone.score.accuracy


@pytest.mark.parametrize("over", ["shots", "window"])
def test_a_killed_sweep_goes_on_to_the_same_bits(machine, tmp_path, monkeypatch, over):
    values = (1, 3) if over == "shots" else (0, 0.02)
    whole = computer.sweep(machine.file, over=over, values=values, shots=2)
    taken, real = [], sweeping._Machines.readings

    def killed(*arguments):
        taken.append(1)
        if len(taken) == (5 if over == "shots" else 2):  # within a vote
            raise SystemExit
        return real(*arguments)

    monkeypatch.setattr("thermorun.runs.CHECKPOINT_EVERY", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(sweeping._Machines, "readings", killed)
        with pytest.raises(SystemExit):
            computer.sweep(machine.file, over=over, values=values, shots=2, out=tmp_path / "a.h5")
    assert thermorun.resume(tmp_path / "a.h5", threads=1).rows() == whole.rows()


def test_what_is_refused(machine, tmp_path):
    for words, sentence in (
        (("--over", "shots", "--values", "0"), "--values is 0"),
        (("--over", "shots", "--values", "1.5"), "must be an integer"),
        (("--over", "window", "--values", "-1"), "--values is -1"),
        (("--over", "window", "--values", "0.0005"), "--values is 0.0005, which is no whole number of steps"),
        (("--over", "shots", "--retrain"), "--retrain is True, but over is shots"),
        (("--over", "temperature", "--retrain", "--values", "0"), "--values is 0"),
        (("--over", "timestep", "--retrain", "--values", "0.02"), "timestep 0.02: dt is 0.02, too large"),
    ):
        refused(command("computer", "sweep", machine.file, *words, folder=tmp_path), sentence)
