"""Teachers, the mean action and its gradient, both ways to its minimum, and what is given instead of a teacher."""

import contextlib
import itertools
import signal

import numpy as np
import pytest
import scipy.optimize
from machines import ODD, QUICK, images_of, small_machine, small_statistics, two_classes

import thermorun
from thermorun import computer
from thermorun.computer import ComputerTraining, action, teacher
from thermorun.computer.images import Arrays
from thermorun.computer.machine import CONNECTIVITIES, connectivity, mask_from_array
from thermorun.computer.task import Task
from thermorun.errors import InputError


def direct_action(inputs, targets, parameters, physics):
    """Step by step along the idealised trajectories, from the definition of the action."""
    x, total = np.zeros_like(targets), 0.0
    mu, dt = physics.mobility, physics.dt
    for _ in range(physics.steps):
        new = x - mu * dt * (2 * physics.J2 * x + 4 * physics.J4 * x**3 - targets)
        by = 2 * physics.J2 * x + 4 * physics.J4 * x**3 + parameters.b + inputs @ parameters.W.T + x @ parameters.J
        total += ((new - x + mu * dt * by) ** 2).sum() / (4 * mu * physics.kT * dt)
        x = new
    return total / len(inputs)


def test_mean_action_and_its_gradient():
    statistics = small_statistics()
    machine = small_machine()
    p = action.Parameters(machine.input_couplings, machine.bias, machine.couplings)
    assert action.mean_action(statistics, p, ODD) == pytest.approx(
        direct_action(statistics.inputs, statistics.targets, p, ODD), rel=1e-11
    )
    _, by = action.gradient(statistics, p, ODD)
    h = 1e-4
    for name, places in (("W", np.ndindex(6, 5)), ("b", np.ndindex(6)), ("J", itertools.combinations(range(6), 2))):
        for place in places:
            ends = []
            for sign in (1, -1):
                moved = {key: getattr(p, key).copy() for key in ("W", "b", "J")}
                moved[name][place] += sign * h
                if name == "J":
                    moved[name][place[::-1]] += sign * h
                ends.append(direct_action(statistics.inputs, statistics.targets, action.Parameters(**moved), ODD))
            assert getattr(by, name)[place] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("mask", [*CONNECTIVITIES, "random"])
def test_closed_form_is_the_minimum(mask, weight_decay):
    """Its gradient vanishes wherever the mask allows a coupling, and a general optimiser finds nothing better."""
    if mask == "random":
        whole = np.triu(np.random.default_rng(3).random((11, 11)) < 0.5, 1)
        allowed = mask_from_array(whole | whole.T, 5, 4, 2)
    else:
        allowed = connectivity(mask, 5, 4, 2)
    statistics = small_statistics()
    best, ridge = action.minimise(statistics, ODD, allowed, weight_decay)
    assert ridge == 0
    value, by = action.gradient(statistics, best, ODD)
    assert np.abs((by.W + weight_decay * best.W)[allowed[:, :5]]).max(initial=0) < 1e-10
    assert np.abs(by.b).max() < 1e-10
    assert np.abs((by.J + weight_decay * best.J)[allowed[:, 5:]]).max(initial=0) < 1e-9
    assert not best.W[~allowed[:, :5]].any()
    assert not best.J[~allowed[:, 5:]].any()
    rows, columns = np.nonzero(np.tril(allowed[:, 5:], -1))

    def objective(theta):
        W, b, pairs = np.split(theta, [30, 36])
        J = np.zeros((6, 6))
        J[rows, columns] = J[columns, rows] = pairs
        p = action.Parameters(W.reshape(6, 5) * allowed[:, :5], b, J)
        s, g = action.gradient(statistics, p, ODD)
        penalty = 0.5 * weight_decay * ((p.W**2).sum() + (pairs**2).sum())
        by_w = (g.W + weight_decay * p.W) * allowed[:, :5]
        return s + penalty, np.r_[by_w.ravel(), g.b, g.J[rows, columns] + weight_decay * pairs]

    found = scipy.optimize.minimize(objective, np.zeros(36 + len(rows)), jac=True, method="BFGS")
    decay = 0.5 * weight_decay * ((best.W**2).sum() + (best.J[rows, columns] ** 2).sum())
    assert value + decay == pytest.approx(found.fun, rel=1e-6)
    assert value + decay <= found.fun * (1 + 1e-9)


@pytest.mark.parametrize(
    ("optimiser", "rate", "updates"),
    [("plain", None, 2500), pytest.param("momentum", None, 2500, marks=pytest.mark.slow), ("adam", 1.0, 500)],
)
def test_descent_converges_to_the_closed_form(optimiser, rate, updates):
    x, labels = two_classes()
    fields = {**QUICK, "weight_decay": 0.1, "seed": 4, "dt": 2e-3, "observation_time": 0.1}
    exact = computer.train(x, labels, **fields)
    near = computer.train(
        x, labels, method="onsager-machlup", optimiser=optimiser, learning_rate=rate, batch=60,
        trajectories=60 * updates, precision="float64", **fields,
    )  # fmt: skip
    for name in ("input_couplings", "couplings", "bias"):
        there, here = getattr(exact.machine, name), getattr(near.machine, name)
        assert np.abs(there - here).max() < 0.02 * np.abs(there).max(), name
    task = Task.of(ComputerTraining(**fields), Arrays(x, labels))
    network = teacher.train(task.spec, task.inputs, task.images.labels, lambda: None)
    statistics = action.Statistics.of(task.inputs.astype(float), task.targets(network), task.spec.physics)

    def objective(machine):
        p = action.Parameters(machine.input_couplings, machine.bias, machine.couplings)
        pairs = np.tril(p.J, -1)
        return action.mean_action(statistics, p, task.spec.physics) + 0.05 * ((p.W**2).sum() + (pairs**2).sum())

    least = objective(exact.machine)
    assert least * (1 - 1e-12) <= objective(near.machine) < least * 1.0005


def test_singular_equations_are_regularised_and_say_so():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 3))[:, [0, 1, 2, 2]]
    statistics = action.Statistics.of(inputs, 20 * rng.normal(size=(40, 6)), ODD)
    best, ridge = action.minimise(statistics, ODD, connectivity("all-to-all", 4, 4, 2), 0.0)
    assert ridge > 0
    # Two inputs that are always equal share their coupling.
    np.testing.assert_allclose(best.W[:, 2], best.W[:, 3], rtol=1e-3)
    _, by = action.gradient(statistics, best, ODD)
    assert np.abs(by.W).max() < 1e-2 * np.abs(action.gradient(statistics, _nothing(), ODD)[1].W).max()


def _nothing():
    return action.Parameters(np.zeros((6, 4)), np.zeros(6), np.zeros((6, 6)))


def test_digits_in_closed_form(tmp_path):
    """At least 93 percent of a held-out third, and the same at half the time step."""
    result = computer.train()
    share = result.score.accuracy
    assert result.score.images == 599
    assert share.mean > 0.93
    assert share.mean - 4 * share.stderr > 0.90
    assert result.facts["ridge"] > 0
    computer.save_machine(result.machine, tmp_path / "machine.h5")
    half = computer.classify(tmp_path / "machine.h5", dataset="digits", dt=result.machine.physics.dt / 2)
    assert half.score.images == 599
    other = half.score.accuracy
    # The same images: only the noise differs.
    assert abs(other.mean - share.mean) < 4 * np.hypot(share.stderr_noise, other.stderr_noise)
    assert result.advantage > 1e6


def test_digits_by_descent():
    result = computer.train(method="onsager-machlup", trajectories=50_000, shots=2)
    assert result.score.accuracy.mean > 0.93
    assert result.accuracy[-1] > 0.93
    assert result.loss[-1] < 0.2 * result.loss[0]


def test_given_activations_and_every_kind_of_target(tmp_path):
    x, labels = two_classes()
    images = images_of(x, labels)
    rng = np.random.default_rng(0)
    hidden = np.tanh(images.x @ rng.normal(size=(9, 6)))
    logits = np.where(np.arange(2) == images.labels[:, None], 6.0, -6.0)
    np.savez(tmp_path / "given.npz", hidden=hidden, logits=logits)
    given = {**QUICK, "teacher": tmp_path / "given.npz", "softness": 10.0}
    expected = {"tanh": np.tanh(0.6), "linear": 0.6, "one-hot": 1.0}
    for kind, level in expected.items():
        chosen = ComputerTraining(**{**given, "targets": kind})
        made = teacher.targets(chosen, hidden, logits, images.labels)
        np.testing.assert_allclose(made[:, :6], 100 * hidden)
        np.testing.assert_allclose(made[np.arange(len(made)), 6 + images.labels], 100 * level)
        np.testing.assert_allclose(made[np.arange(len(made)), 7 - images.labels], -100 * level)
        assert computer.train(x, labels, **{**given, "targets": kind}).score.accuracy.mean > 0.8
    np.savez(tmp_path / "short.npz", hidden=hidden[:-1], logits=logits)
    np.savez(tmp_path / "absent.npz", hidden=hidden)
    for name, sentence in (
        ("short", "'hidden' has shape"),
        ("absent", "no array 'logits'"),
        ("none", "cannot be read"),
    ):
        with pytest.raises(InputError, match=sentence):
            computer.train(x, labels, **QUICK, teacher=tmp_path / f"{name}.npz", out=tmp_path / "out.h5")
    assert not list(tmp_path.glob("out*"))


def test_a_mask_of_ones_own_is_kept_to(tmp_path):
    x, labels = two_classes()
    whole = np.triu(np.random.default_rng(3).random((17, 17)) < 0.6, 1)
    np.save(tmp_path / "mask.npy", whole | whole.T)
    result = computer.train(x, labels, **QUICK, connectivity=tmp_path / "mask.npy", out=tmp_path / "a.h5")
    allowed = (whole | whole.T)[9:]
    assert not result.machine.couplings[~allowed[:, 9:]].any()
    assert not result.machine.input_couplings[~allowed[:, :9]].any()
    assert result.machine.parameters == allowed[:, :9].sum() + np.tril(allowed[:, 9:], -1).sum() + 8
    again = thermorun.load(tmp_path / "a.h5")
    assert np.array_equal(again.machine.allowed, allowed)


def test_a_ctrl_c_that_the_teacher_swallows_is_heard_after_its_epoch(monkeypatch):
    """scikit-learn takes a KeyboardInterrupt for the wish to end a fit, and goes on without a word."""
    from sklearn.neural_network import MLPClassifier

    epochs = []

    def fit(*given, **more):
        epochs.append(None)
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(MLPClassifier, "partial_fit", fit)
    with pytest.raises(KeyboardInterrupt):
        computer.train(classes=(0, 1), hidden=6, teacher_epochs=50)
    assert len(epochs) == 1
