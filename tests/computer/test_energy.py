"""What a cycle of a machine costs: closed forms, the first law, the drive; files, and what is refused."""

import numpy as np
import pytest
from machines import ODD, QUICK, small_machine

import thermorun
from helpers import refused, z_score
from helpers import thermorun as command
from thermorun import computer
from thermorun.computer import Energy, Machine, Physics
from thermorun.computer.experiments import energy
from thermorun.computer.experiments.cycle import STAGES, interaction, reset_steps, rest_energy, run_cycle, uncoupled
from thermorun.errors import InputError
from thermorun.streams import Streams


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    return computer.train(**QUICK, out=tmp_path_factory.mktemp("energy") / "a.h5")


@pytest.fixture(scope="module")
def measured(machine):
    return computer.energy(machine.file, drives=(0.5, 1.0), out=machine.file.with_name("energy.h5"))


def test_decoupled_harmonic_units_have_the_works_and_heats_of_the_closed_form():
    """x' = a x - mu dt b + noise: mean and variance at both ends are geometric sums."""
    p = Physics(J2=0.8, J4=0.0, kT=1.3, mobility=1.1, dt=2e-3, observation_time=0.2)
    b = np.array([3.0, -5.0, 0.5])
    machine = Machine(np.zeros((3, 2)), np.zeros((3, 3)), b, 1, p)
    steps, points = 150, 4096
    got = run_cycle(machine, machine.fields(np.zeros((points, 2))), steps, Streams(7))
    a, step = 1 - 2 * p.J2 * p.mobility * p.dt, 2 * p.mobility * p.kT * p.dt / (1 - (1 - 2 * p.J2 * 1.1 * 2e-3) ** 2)
    mean, variance = -b / (2 * p.J2) * (1 - a**p.steps), step * (1 - a ** (2 * p.steps))
    end_square = a ** (2 * steps) * (mean**2 + variance) + step * (1 - a ** (2 * steps))
    well = p.J2 * (mean**2 + variance)
    exact = {
        "switch on": (0.0, 0.0),
        "evolve": (0.0, np.sum(well + b * mean)),
        "switch off": (-np.sum(b * mean), 0.0),
        "relax": (0.0, np.sum(p.J2 * end_square - well)),
    }
    for k, name in enumerate(STAGES):
        for sample, truth in zip((got.work[:, k], got.heat[:, k]), exact[name], strict=True):
            assert np.all(sample == 0) if truth == 0 else abs(z_score(sample, truth)) < 4, name


@pytest.mark.parametrize(("dtype", "within"), [(np.float32, 3e-6), (np.float64, 1e-13)])
def test_the_first_law_holds_in_every_stage_of_every_trajectory(dtype, within):
    machine = small_machine(physics=ODD)
    fields = machine.fields(np.random.default_rng(1).normal(size=(100, 5)) * 8, dtype)
    got = run_cycle(machine, fields, 40, Streams(3))
    size = np.abs(got.work).sum(axis=1) + np.abs(got.heat).sum(axis=1)
    assert np.all(np.abs(got.energy_change - got.work - got.heat) < within * size[:, None])
    # And over the cycle: what is left is in the bare wells alone.
    again = machine.run(fields, seed=Streams(3))
    bare = uncoupled(machine)
    rested = bare.run(np.zeros_like(fields), steps=40, x=again.x, first=machine.physics.steps, seed=Streams(3))
    wells = (ODD.J2 * rested.x.astype(float) ** 2 + ODD.J4 * rested.x.astype(float) ** 4).sum(axis=1)
    np.testing.assert_allclose(got.energy_change.sum(axis=1), wells, rtol=1e-9, atol=1e-6 * size.max() * within / 3e-6)
    assert np.array_equal(got.output, again.x[:, 4:])
    by_hand, J = [], machine.couplings
    for h, x in zip(fields[:3].astype(float), again.x[:3].astype(float), strict=True):
        pairs = sum(J[i, j] * x[i] * x[j] for i in range(6) for j in range(i))
        by_hand.append(sum(h[i] * x[i] for i in range(6)) + pairs)
    np.testing.assert_allclose(interaction(machine, again.x, fields)[:3], by_hand, rtol=1e-6)


@pytest.mark.parametrize(
    ("physics", "exact"),
    [
        (Physics(J2=2.0, J4=0.0, kT=0.7), 0.35),  # equipartition
        (Physics(J2=0.0, J4=3.0, kT=0.7), 0.175),
        (Physics(), None),
        (Physics(J2=-3.0, J4=1.0, kT=0.5), None),
    ],
)
def test_energy_of_a_bare_well(physics, exact):
    if exact is None:
        x = np.linspace(-8, 8, 400_001)
        well = physics.J2 * x**2 + physics.J4 * x**4
        weight = np.exp(-(well - well.min()) / physics.kT)
        exact = np.sum(well * weight) / np.sum(weight)
    assert rest_energy(physics) == pytest.approx(exact, rel=1e-6)


def test_a_reset_takes_five_relaxation_times():
    assert reset_steps(Physics(J2=2.0, J4=0.0, mobility=0.5, dt=1e-3), None) == 2500  # 5 / (mu 2 J2)
    assert reset_steps(Physics(dt=1e-3), 0.02) == 20


def test_a_measurement_agrees_with_the_shots_of_a_classification(machine, measured):
    shots = computer.classify(machine.file, shots=2)
    assert measured.score.accuracy == shots.score.accuracy
    assert measured.heat[1] == shots.score.heat
    assert measured.residual < 1e-6
    assert all(measured.checks().values())
    assert any("first law" in name for name in measured.checks())
    assert abs(measured.left.z(measured.machine.units * rest_energy(measured.machine.physics))) < 4
    # All that is done on it goes to the bath, but for what is left.
    flows = sum(one.mean for one in (*measured.work, *measured.heat))
    assert flows == pytest.approx(measured.left.mean, abs=1e-4 * measured.whole_work.mean)


def test_the_drive_of_one_is_the_machine_itself_and_less_costs_less(machine, measured):
    half, whole = (measured.drives["work"][i] for i in (0, 1))
    assert measured.drives["accuracy"][1] == measured.score.accuracy
    assert whole.mean == pytest.approx(measured.whole_work.mean, rel=1e-12)
    assert half.mean < 0.6 * whole.mean
    scaled = computer.train(**{**QUICK, "scale": 50.0})
    assert measured.drives["accuracy"][0] == scaled.score.accuracy


def test_the_drive_of_an_adjoint_is_a_bound_on_its_parameters(tmp_path):
    few = {"hidden": 4, "classes": (0, 1), "method": "adjoint", "shots": 2}
    trained = computer.train(**few, trajectories=2000, out=tmp_path / "a.h5")
    machine = trained.machine
    largest = max(np.abs(one).max() for one in (machine.input_couplings, machine.couplings, machine.bias))
    found = computer.energy(tmp_path / "a.h5", drives=(0.125, 1.0), retraining=1000)
    for i, drive in enumerate((0.125, 1.0)):
        alone = computer.train(**few, trajectories=1000, bound=float(largest * drive))
        assert found.drives["accuracy"][i] == alone.score.accuracy
    assert "bound" in found.summary()
    assert found.drives["work"][0].mean < 0.5 * found.drives["work"][1].mean


def test_the_advantage_is_a_ratio_of_joules(measured):
    kT, products = 1.380649e-23 * 300, 64 * 3 + 3 * 3 + 3 * 10
    assert measured.products == products
    ours = measured.digital()[0]
    assert ours.advantage.mean == pytest.approx(1e-12 * products / (measured.whole_work.mean * kT), rel=1e-12)
    floats = next(one for one in measured.digital() if one.hardware.startswith("32"))
    assert floats.advantage.mean == pytest.approx(4.6 * ours.advantage.mean)


def test_resumed_and_on_one_thread_it_has_the_same_bits(machine, measured, tmp_path, monkeypatch):
    for stop in (1, 3):
        done, out = [], tmp_path / f"{stop}.h5"

        def killed(real, stop=stop, done=done):
            def part(*arguments):
                done.append(1)
                if len(done) == stop + 1:
                    raise SystemExit
                return real(*arguments)

            return part

        with monkeypatch.context() as patch:
            for name in ("run_cycle", "fit"):
                patch.setattr(energy, name, killed(getattr(energy, name)))
            with pytest.raises(SystemExit):
                computer.energy(machine.file, drives=(0.5, 1.0), threads=1, out=out)
        again = thermorun.resume(out)
        assert again.rows() == measured.rows()
        assert again.to_dict() == thermorun.load(out).to_dict()


def test_images_of_any_kind(machine, tmp_path):
    x = np.random.default_rng(0).random((7, 8, 8))
    bare = computer.energy(machine.file, x, shots=1)
    assert bare.score.accuracy is None
    assert bare.drives == {}
    assert "no machine is retrained" in bare.summary()
    assert set(bare.figures()) == {""}
    one = computer.energy(machine.file, x[0], shots=1)
    assert "?" in one.summary()
    computer.write_text(machine.machine, tmp_path / "a.txt")
    text = computer.energy(tmp_path / "a.txt", dataset="digits", shots=1, reset_time=0.01)
    assert text.rows()[0]["accuracy"] is not None
    assert len(text.rows()) == 1


def test_the_command(machine, tmp_path):
    run = command("computer", "energy", machine.file, "--shots", 1, "--drives", "1", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert "first law" in run.stdout
    assert len(list(tmp_path.glob("*.png"))) == 2
    for words, sentence in (
        (("missing.h5",), "does not exist"),
        ((machine.file, "--drives", "0,1"), "--drives is 0"),
        ((machine.file, "--drives", "100"), "drive 100: dt is 0.001, too large"),
        ((machine.file, "--reset-time", "-1"), "--reset-time is -1"),
        ((machine.file, "--temperature", "0"), "--temperature is 0"),
        ((machine.file, "--multiply-accumulate", "nan"), "--multiply-accumulate is nan"),
    ):
        refused(command("computer", "energy", *words, folder=tmp_path), sentence)


def test_a_machine_without_noise_is_refused(machine, tmp_path):
    computer.save_machine(machine.machine.with_physics(kT=0.0), tmp_path / "cold.h5")
    with pytest.raises(InputError, match="kT = 0"):
        computer.energy(tmp_path / "cold.h5", dataset="digits")
    assert Energy(file="a.h5").drives[-1] == 1
