"""Devices: spreads and few bits, the genetic algorithm, training that knows of the spread; files, what is refused."""

import numpy as np
import pytest
from machines import ODD, QUICK, small_machine, small_statistics

import thermorun
from helpers import refused, z_score
from helpers import thermorun as command
from thermorun import computer
from thermorun.computer import action, connectivity
from thermorun.computer.action import Parameters
from thermorun.computer.experiments import genetic
from thermorun.computer.experiments.variation import Genome, deviations, quantised, spread
from thermorun.estimates import over_both
from thermorun.streams import Streams

TRAINED = {"hidden": 16, "teacher_epochs": 10, "scale": 100.0, "shots": 1}
FEW = {
    "devices": 2, "relative": (0.0, 0.5), "absolute": (0.0,), "bits": (16,), "retrained": 2, "generations": 3,
    "population": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    return computer.train(**TRAINED, out=tmp_path_factory.mktemp("devices") / "a.h5")


@pytest.fixture(scope="module")
def measured(machine):
    return computer.devices(machine.file, **FEW, out=machine.file.with_name("devices.h5"))


def test_a_genome_is_the_machine():
    for mask in (None, connectivity("feed-forward", 5, 4, 2)):
        machine = small_machine()
        if mask is not None:
            W, J = machine.input_couplings * mask[:, :5], machine.couplings * mask[:, 5:]
            machine = computer.Machine(W, J, machine.bias, 2, mask=mask)
        genome = Genome.of(machine)
        assert len(genome.vector) == machine.parameters
        same = genome.build(genome.vector)
        for name in ("input_couplings", "couplings", "bias"):
            assert np.array_equal(getattr(same, name), getattr(machine, name))
        # Another device is a machine too: symmetric, within its mask.
        other = genome.build(spread(genome.vector, genome.sizes, 1.0, deviations(machine.parameters, Streams(4))))
        assert np.array_equal(other.couplings, other.couplings.T)
        pairs = machine.couplings[np.tril_indices(6, -1)][np.tril(machine.allowed[:, 5:], -1)[np.tril_indices(6, -1)]]
        assert genome.sizes[genome.kinds == 1] == pytest.approx(np.sqrt(np.mean(pairs**2)))
        assert genome.ranges[-1] == np.abs(machine.bias).max()


def test_spreads_are_normal_and_in_their_unit():
    normals = deviations(40_000, Streams(9))
    vector = np.full(40_000, -3.0)
    relative = (spread(vector, None, 0.2, normals) - vector) / 0.6
    absolute = (spread(vector, np.full(40_000, 5.0), 0.2, normals) - vector) / 1.0
    for sample in (relative, absolute):
        assert abs(z_score(sample, 0.0)) < 4
        assert abs(z_score(sample**2, 1.0)) < 4
    assert np.array_equal(spread(vector, None, 0.0, normals), vector)


def test_few_bits_round_to_the_nearest_of_their_values():
    """3 bits: -3, -2, ..., 3 times a third of the range."""
    ranges = np.array([6.0, 6.0, 6.0, 6.0, 0.0])
    assert quantised(np.array([6.0, -2.9, 0.9, 5.1, 0.0]), ranges, 3).tolist() == [6.0, -2.0, 0.0, 6.0, 0.0]
    assert quantised(np.array([6.0, 3.1, -3.1, 2.9, 0.0]), ranges, 2).tolist() == [6.0, 6.0, -6.0, 0.0, 0.0]
    values = np.random.default_rng(0).normal(size=999)
    top = np.full(999, np.abs(values).max())
    coarse = quantised(values, top, 6)
    assert len(np.unique(coarse)) <= 2**6 - 1
    assert np.abs(coarse - values).max() <= top[0] / 31 / 2 * (1 + 1e-12)
    assert np.abs(quantised(values, top, 16) - values).max() < 2e-4


def test_means_over_devices_and_images_are_calibrated():
    rng = np.random.default_rng(3)
    errors, found, values = [], [], np.empty(0)
    for _ in range(600):
        values = rng.normal(0, 0.3, (12, 1)) + rng.normal(0, 0.6, (1, 50)) + rng.normal(0, 1.0, (12, 50))
        one = over_both(values)
        errors.append(one.stderr)
        found.append(one.mean)
    truth = np.sqrt(0.09 / 12 + 0.36 / 50 + 1.0 / 600)
    assert abs(np.std(found) / truth - 1) < 4 / np.sqrt(1200)
    # The error is right on average; it is never below either part, so a little above.
    assert 0.98 < np.sqrt(np.mean(np.square(errors))) / truth < 1.04
    assert over_both(np.ones((1, 1))).stderr != over_both(np.ones((1, 1))).stderr
    single = over_both(values[:1])
    assert single.stderr == pytest.approx(values[0].std(ddof=1) / np.sqrt(50))


# --------------------------------------------------------------------------------- training that knows of the spread


def _random(rng, units=6, inputs=5):
    J = np.tril(rng.normal(size=(units, units)), -1)
    return Parameters(rng.normal(size=(units, inputs)), rng.normal(size=units), J + J.T)


def test_the_action_of_many_devices_is_their_mean():
    """A quadratic form averaged over p (1 + sigma z), against draws of z."""
    statistics, rng, sigma = small_statistics(), np.random.default_rng(1), 0.4
    p = _random(rng)
    sample = []
    for _ in range(3000):
        z = _random(rng)
        device = Parameters(*(a * (1 + sigma * b) for a, b in zip(vars(p).values(), vars(z).values(), strict=True)))
        sample.append(action.gradient(statistics, device, ODD)[0])
    value, by = action.gradient(statistics, p, ODD, sigma)
    assert abs(z_score(sample, value)) < 4
    assert value > 1.0001 * action.gradient(statistics, p, ODD)[0]
    # And its gradient, by central differences; a pair counts in both places.
    step = 1e-4
    for name, place in (("W", (2, 3)), ("b", (4,)), ("J", (1, 5))):
        ends = []
        for sign in (1, -1):
            moved = {key: one.copy() for key, one in vars(p).items()}
            moved[name][place] += sign * step
            if name == "J":
                moved[name][place[::-1]] += sign * step
            ends.append(action.gradient(statistics, Parameters(**moved), ODD, sigma)[0])
        assert getattr(by, name)[place] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("name", ["all-to-all", "feed-forward"])
def test_the_closed_form_is_the_minimum_for_many_devices(name):
    statistics, allowed = small_statistics(), connectivity(name, 5, 4, 2)
    best, _ = action.minimise(statistics, ODD, allowed, 0.0, 0.3)
    _, by = action.gradient(statistics, best, ODD, 0.3)
    assert np.abs(by.W[allowed[:, :5]]).max() < 1e-6
    assert np.abs(by.b).max() < 1e-6
    assert np.abs(by.J[allowed[:, 5:]]).max() < 1e-6
    plain, _ = action.minimise(statistics, ODD, allowed, 0.0)
    assert np.abs(best.W).sum() < np.abs(plain.W).sum()


def test_a_descent_knows_of_the_spread_too():
    runs = [
        computer.train(**QUICK, method="onsager-machlup", trajectories=20_000, parameter_noise=noise)
        for noise in (0.0, 0.5)
    ]
    assert np.abs(runs[1].machine.couplings).sum() < np.abs(runs[0].machine.couplings).sum()


def _end_state(**changes):
    spec = computer.ComputerTraining(
        method="adjoint", hidden=4, classes=(0, 1), training_steps=6, precision="float64", batch=20, **changes
    )
    task = computer.training.Task.of(spec)
    return task.objective(None)


def test_the_adjoint_runs_every_update_on_a_device_of_its_own():
    """Its gradient is that of the loss on the device, by central differences; devices are 1 + sigma z."""
    spread_out, plain = _end_state(parameter_noise=0.3), _end_state()
    parameters, chosen = spread_out.start(), np.arange(20)
    factors = spread_out.device(3)
    assert np.array_equal(factors["J"], factors["J"].T)
    assert abs(z_score((factors["W"] - 1).ravel() / 0.3, 0.0)) < 4
    assert abs(z_score(((factors["W"] - 1).ravel() / 0.3) ** 2, 1.0)) < 4
    assert not np.array_equal(factors["W"], spread_out.device(4)["W"])
    value, by = spread_out.gradient(parameters, chosen, 3)
    # The same device, programmed into a machine that does not spread.
    built = parameters | {name: parameters[name] * factors[name] for name in factors}
    assert value == pytest.approx(plain.gradient(built, chosen, 3)[0], rel=1e-12)
    step = 1e-5
    for name, place in (("W", (1, 20)), ("b", (2,)), ("J", (0, 3))):
        ends = []
        for sign in (1, -1):
            moved = {key: one.copy() for key, one in parameters.items()}
            moved[name][place] += sign * step
            if name == "J":
                moved[name][place[::-1]] += sign * step
            ends.append(spread_out.gradient(moved, chosen, 3)[0])
        assert by[name][place] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-9)


def test_a_bound_holds():
    few = {"hidden": 4, "classes": (0, 1), "trajectories": 2000, "shots": 1}
    for method in ("adjoint", "onsager-machlup"):
        machine = computer.train(**few, method=method, bound=0.25).machine
        arrays = (machine.input_couplings, machine.couplings, machine.bias)
        assert max(np.abs(one).max() for one in arrays) == 0.25
    with pytest.raises(thermorun.errors.InputError, match="only a descent can be bounded"):
        computer.train(bound=1.0)


# ------------------------------------------------------------------------------------------------------------- devices


def test_without_spread_all_devices_are_the_machine(machine, measured):
    shot = computer.classify(machine.file, shots=1)
    kept = shot.to_xarray()["shots"]["output"].values[0]
    right = (np.argmax(kept, axis=1) == shot.labels).astype(float)
    for how, level in (("as trained", 0.0), ("relative", 0.0), ("absolute", 0.0)):
        for one in measured.shares[how, level]:
            assert np.array_equal(one, right)
    assert measured.lost("relative", 0.0).mean == 0
    assert measured.accuracy("as trained", 0.0).mean == shot.score.accuracy.mean
    assert measured.lost("bits", 16.0).mean < 0.01


def test_what_is_lost_and_what_training_with_the_spread_recovers(measured):
    lost, gained = measured.lost("relative", 0.5), measured.gained("trained with noise")
    assert lost.mean > 0.1
    assert gained.mean > 0.1
    after, before = measured.shares["trained with noise", 0.5], measured.shares["relative", 0.5]
    assert gained.mean == pytest.approx(after.mean() - before.mean())
    assert measured.recovered("trained with noise").mean == pytest.approx(gained.mean / lost.mean)


def test_a_search_gets_better_by_answers_alone(machine):
    genome, task = Genome.of(machine.machine), computer.training.Task.of(machine.spec)
    normals = deviations(len(genome.kinds), Streams(1, 7))
    search = genetic.Search(genome, task.inputs, task.images.labels, normals, 0.5, 0.1, population=12, seed=0, device=0)
    first = search.step()
    assert search.parents.shape == (4, len(genome.kinds))
    for _ in range(15):
        last = search.step()
    # Four standard errors of the share of 256 right answers.
    assert last - first > 4 * np.sqrt(2 * first * (1 - first) / 256)
    again = genetic.Search(genome, task.inputs, task.images.labels, normals, 0.5, 0.1, population=12, seed=0, device=0)
    assert again.step() == first


@pytest.mark.parametrize("stop", [1, 4])
def test_killed_within_a_search_it_goes_on_to_the_same_bits(machine, measured, tmp_path, monkeypatch, stop):
    step, taken = genetic.Search.step, []

    def killed(*arguments):
        taken.append(1)
        if len(taken) > stop:
            raise SystemExit
        return step(*arguments)

    monkeypatch.setattr("thermorun.runs.CHECKPOINT_EVERY", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(genetic.Search, "step", killed)
        with pytest.raises(SystemExit):
            computer.devices(machine.file, **FEW, threads=1, out=tmp_path / "a.h5")
    partial = thermorun.load(tmp_path / "a.h5")
    assert "as trained" in partial.summary()
    again = thermorun.resume(tmp_path / "a.h5")
    assert again.rows() == measured.rows()
    assert np.array_equal(again.searches, measured.searches)
    assert again.to_dict() == thermorun.load(tmp_path / "a.h5").to_dict()


def test_the_command(machine, tmp_path):
    words = ("--devices", 2, "--relative", "0.3", "--absolute", "0.1", "--bits", "6", "--retrained", 2,
             "--generations", 2, "--population", 5)  # fmt: skip
    run = command("computer", "devices", machine.file, *words, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert "genetic algorithm" in run.stdout
    assert len(list(tmp_path.glob("*.png"))) == 2
    computer.write_text(machine.machine, tmp_path / "a.txt")
    text = computer.devices(
        tmp_path / "a.txt", dataset="digits", devices=2, relative=(0.1,), absolute=(0.1,), retrained=2
    )
    assert "nothing is retrained" in text.summary()
    assert set(text.figures()) == {""}
    for words, sentence in (
        (("missing.h5",), "does not exist"),
        ((machine.file, "--bits", "1"), "--bits is 1"),
        ((machine.file, "--relative", "-0.1"), "--relative is -0.1"),
        ((machine.file, "--relative", "0"), "--relative holds 0 alone"),
        ((machine.file, "--absolute", "0.1,0.2,0.1"), "--absolute holds 0.1, 0.2, 0.1; each must be there once"),
        ((machine.file, "--devices", "1"), "--devices is 1"),
        ((machine.file, "--retrained", "9"), "--retrained is 9; it must be at most the 8 devices"),
        ((machine.file, "--generations", "1e6"), "their product must be at most"),
        ((machine.file, "--relative", "1e4"), "device relative 10000 #0: dt is 0.001, too large"),
    ):
        refused(command("computer", "devices", *words, folder=tmp_path), sentence)
