"""Ways to train and kinds of teachers: what is known of them; resuming; what is refused."""

import numpy as np
import pytest
from machines import ODD, digits, small_machine

import thermorun
from helpers import refused
from helpers import thermorun as command
from thermorun import computer
from thermorun.computer import action, connectivity
from thermorun.computer.action import Statistics
from thermorun.computer.experiments import compare
from thermorun.computer.experiments.compare_results import CLOSED, EQUAL, TIMED
from thermorun.computer.experiments.cycle import uncoupled
from thermorun.computer.experiments.teachers import along

X, Y = digits()
FEW = {"hidden": 6, "trajectories": 600, "seeds": 2, "shots": 1, "classes": (0, 1, 2)}


def nothing():
    pass


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return computer.compare(**FEW, out=tmp_path_factory.mktemp("compare") / "a.h5")


def test_a_cold_teacher_of_units_alone_is_the_papers(monkeypatch):
    machine = uncoupled(small_machine(physics=ODD)).with_physics(kT=0.0)
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(50, 5)), 20 * rng.normal(size=(50, 6))
    ideal = Statistics.of(inputs, targets, ODD)
    for recorded in (2**22, 7 * 6 * ODD.steps):  # at once, and seven trajectories at a time
        monkeypatch.setattr("thermorun.computer.experiments.teachers._RECORDED", recorded)
        ours = along(machine, -targets, inputs, targets, 0, nothing)
        np.testing.assert_allclose(ours.sums, ideal.sums, rtol=1e-10)
        np.testing.assert_allclose(ours.gram, ideal.gram, rtol=1e-10)


def test_a_warm_teacher_has_the_variance_of_the_closed_form():
    """Harmonic wells without a force: <x^2> of step n is 2 mu kT dt (1 - a^2n) / (1 - a^2)."""
    p = computer.Physics(J2=0.8, J4=0.0, kT=1.3, mobility=1.1, dt=2e-3, observation_time=0.1)
    machine = computer.Machine(np.zeros((3, 2)), np.zeros((3, 3)), np.zeros(3), 1, p)
    fields = np.zeros((4000, 3))
    got = along(machine, fields, np.zeros((4000, 2)), fields, 5, nothing)
    a = 1 - 2 * p.J2 * p.mobility * p.dt
    variance = 2 * p.mobility * p.kT * p.dt * (1 - a ** (2 * np.arange(p.steps))) / (1 - a**2)
    sample = got.gram / 4000
    assert np.diag(sample) == pytest.approx(variance.sum(), rel=0.1)
    spread = np.std(got.sums, ddof=1) / np.sqrt(got.sums.size)
    assert abs(got.sums.mean()) < 4 * spread


def test_a_student_becomes_the_machine_whose_trajectories_it_is_shown():
    """The force is linear in what is learned: least action is none, with the teacher's own couplings."""
    machine = small_machine(physics=ODD)
    inputs = np.random.default_rng(3).normal(size=(60, 5))
    fields = machine.fields(inputs)
    seen = along(machine, fields, inputs, -fields, 0, nothing)
    best, _ = action.minimise(seen, ODD, connectivity("all-to-all", 5, 4, 2), 0.0)
    np.testing.assert_allclose(best.W, machine.input_couplings, atol=1e-7)
    np.testing.assert_allclose(best.b, machine.bias, atol=1e-7)
    np.testing.assert_allclose(best.J + machine.couplings, machine.couplings, atol=1e-7)


def test_ways_are_the_trainings_that_they_say(measured):
    base = {"hidden": 6, "classes": (0, 1, 2), "shots": 1, "validation": 0.0}
    for number, (way, changes) in enumerate(compare.WAYS.items()):
        more = {"weight_decay": 0.01} if way == compare.DECAY else {}
        alone = computer.train(**base, **changes, **more, trajectories=600, seed=number % 2)
        assert measured.shares[way, EQUAL][number % 2].mean() == alone.score.accuracy.mean, way
    closed = computer.train(**base)
    assert measured.shares[compare.TEACHERS[0], CLOSED][0].mean() == closed.score.accuracy.mean
    # The student of a machine is that machine.
    student, model = measured.shares["interacting", CLOSED], measured.shares[compare.ADJOINT, EQUAL]
    assert np.abs(student - model).mean() < 0.01


def test_equal_seconds_follow_from_the_seconds_that_are_kept(measured):
    adam = np.median(measured.seconds["Adam", EQUAL])
    for way, budget in measured.shares:
        if budget == TIMED:
            share = min(adam / np.median(measured.seconds[way, EQUAL]), 50)
            assert measured.trajectories[way, TIMED] == max(1, round(600 * share))
    assert measured.over_reference("Adam", EQUAL) is None


def test_killed_it_goes_on_to_the_same_bits(measured, tmp_path, monkeypatch):
    real, taken = compare._Trainings.measured, []

    def killed(*arguments):
        taken.append(1)
        if len(taken) == 14:
            raise SystemExit
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(compare._Trainings, "measured", killed)
        with pytest.raises(SystemExit):
            computer.compare(**FEW, threads=1, out=tmp_path / "a.h5")
    begun = thermorun.load(tmp_path / "a.h5")
    assert begun.summary()
    again = thermorun.resume(tmp_path / "a.h5")
    # Seconds are this machine's, and how many trajectories they let a way see; all else is the same.
    for key, share in measured.shares.items():
        if key[1] != TIMED:
            assert np.array_equal(again.shares[key], share), key
    assert again.rows()[:6] == [
        row | {"seconds": mine["seconds"]} for row, mine in zip(measured.rows(), again.rows()[:6], strict=False)
    ]


def test_the_command(tmp_path):
    words = ("--hidden", 4, "--trajectories", 300, "--seeds", 2, "--shots", 1, "--classes", "0,1")
    run = command("computer", "compare", *words, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert len(list(tmp_path.glob("*.png"))) == 1
    for words, sentence in (
        (("--dataset", "letters"), "dataset is 'letters'"),
        (("--seeds", "1"), "--seeds is 1"),
        (("--hidden", "1"), "--hidden is 1"),
        (("--weight-decay", "0"), "--weight-decay is 0"),
        (("--trajectories", "0"), "--trajectories is 0"),
    ):
        refused(command("computer", "compare", *words, folder=tmp_path), sentence)
    with pytest.raises(thermorun.errors.InputError, match="y is None"):
        computer.compare(X / 16)
