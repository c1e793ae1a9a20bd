"""Machines: what they refuse, connectivities, texts of parameters, files, time steps."""

import numpy as np
import pytest
from machines import ODD, small_machine

from thermorun import computer
from thermorun.computer import files as machine_files
from thermorun.computer.machine import Machine, Physics, Pixels, connectivity, mask_from_array
from thermorun.errors import InputError, RunError


def test_what_a_machine_refuses():
    good = small_machine()
    J = good.couplings.copy()
    J[0, 1] += 0.5
    with pytest.raises(InputError, match=r"not symmetric: J\[0, 1\]"):
        Machine(good.input_couplings, J, good.bias, 2)
    with pytest.raises(InputError, match="diagonal"):
        Machine(good.input_couplings, good.couplings + np.eye(6), good.bias, 2)
    with pytest.raises(InputError, match="couplings has shape"):
        Machine(good.input_couplings, J[:5], good.bias, 2)
    with pytest.raises(InputError, match="input_couplings has shape"):
        Machine(good.input_couplings[:5], good.couplings, good.bias, 2)
    with pytest.raises(InputError, match="not finite"):
        Machine(good.input_couplings * np.nan, good.couplings, good.bias, 2)
    with pytest.raises(InputError, match="mask forbids"):
        Machine(good.input_couplings, good.couplings, good.bias, 2, mask=connectivity("feed-forward", 5, 4, 2))
    with pytest.raises(InputError, match="outputs is 9"):
        Machine(good.input_couplings, good.couplings, good.bias, 9)
    with pytest.raises(InputError, match="inputs have shape"):
        good.fields(np.zeros((3, 4)))
    for wrong in ({"J4": -1.0}, {"J2": -1.0, "J4": 0.0}, {"kT": -0.1}, {"dt": 0.0}, {"observation_time": 0.0005}):
        with pytest.raises(InputError):
            Physics(**wrong)


def test_connectivities():
    hidden, outputs, inputs = slice(0, 4), slice(4, 6), slice(0, 5)
    among = {"hidden": slice(5, 9), "outputs": slice(9, 11)}
    everything = connectivity("all-to-all", 5, 4, 2)
    assert everything.sum() == 6 * 5 + 6 * 5
    no_hidden = connectivity("no-hidden-hidden", 5, 4, 2)
    assert not no_hidden[hidden, among["hidden"]].any()
    assert no_hidden[outputs, inputs].all()
    assert no_hidden[outputs, among["outputs"]].sum() == 2
    forward = connectivity("feed-forward", 5, 4, 2)
    assert not forward[outputs, inputs].any()
    assert not forward[outputs, among["outputs"]].any()
    assert forward[hidden, inputs].all()
    assert forward[hidden, among["outputs"]].all()
    # The paper's count of what moves anything.
    assert Machine(np.zeros((74, 784)), np.zeros((74, 74)), np.zeros(74), 10).parameters == 60_791


def test_masks_of_ones_own():
    whole = np.ones((11, 11)) - np.eye(11)
    assert np.array_equal(mask_from_array(whole, 5, 4, 2), connectivity("all-to-all", 5, 4, 2))
    for broken, sentence in (
        (np.ones((11, 11)), "diagonal"),
        (np.ones((10, 10)), "shape"),
        (whole * 2, "other values"),
        (np.triu(whole), "not symmetric"),
    ):
        with pytest.raises(InputError, match=sentence):
            mask_from_array(broken, 5, 4, 2)


def test_text_of_parameters_has_the_published_order(tmp_path):
    """Numbers are put in bond by bond, as the published program numbers its bonds, and found where they belong."""
    inputs, hidden, outputs = 4, 3, 2
    bonds = [("inert", k) for k in range(2 * inputs)]
    bonds += [("W", j, i) for i in range(inputs) for j in range(hidden)]
    bonds += [("J", i, j) for i in range(hidden) for j in range(i)]
    bonds += [("J", i, hidden + j) for i in range(hidden) for j in range(outputs)]
    bonds += [("J", hidden + i, hidden + j) for i in range(outputs) for j in range(i)]
    bonds += [("W", hidden + j, i) for i in range(inputs) for j in range(outputs)]
    numbers = np.random.default_rng(0).normal(size=len(bonds) + inputs + hidden + outputs)
    path = tmp_path / "parameters.dat"
    path.write_text(" ".join(map(repr, numbers.tolist())))
    machine = computer.load_machine(path, inputs, outputs)
    for bond, number in zip(bonds, numbers, strict=False):
        if bond[0] == "W":
            assert machine.input_couplings[bond[1:]] == number
        elif bond[0] == "J":
            assert machine.couplings[bond[1:]] == number == machine.couplings[bond[:0:-1]]
    assert np.array_equal(machine.bias, numbers[len(bonds) + inputs :])
    assert np.array_equal(machine.inert, np.r_[numbers[: 2 * inputs], numbers[len(bonds) :][:inputs]])
    computer.write_text(machine, tmp_path / "again.dat")
    assert np.array_equal(np.fromstring((tmp_path / "again.dat").read_text(), sep=" "), numbers)
    with pytest.raises(InputError, match="cannot be written"):
        computer.write_text(machine, tmp_path / "again.dat")
    # The paper's own size.
    assert machine_files._text_size(784, 64, 10) == 63_143


def test_texts_that_are_none(tmp_path):
    cut, foreign, words = tmp_path / "cut.dat", tmp_path / "foreign.dat", tmp_path / "words.dat"
    cut.write_text(" ".join(["0.5"] * 60_000))
    foreign.write_text("0.5 1.5")
    words.write_text("couplings follow")
    for path, sentence in ((cut, "60,000 numbers"), (foreign, "2 numbers"), (words, "neither HDF5 nor")):
        with pytest.raises(InputError, match=sentence):
            computer.load_machine(path)
    with pytest.raises(InputError, match="does not exist"):
        computer.load_machine(tmp_path / "missing.dat")
    with pytest.raises(InputError, match="is no file"):
        computer.load_machine(tmp_path)


def test_machine_files(tmp_path):
    mask = connectivity("no-hidden-hidden", 5, 4, 2)
    whole = small_machine()
    machine = Machine(
        whole.input_couplings, np.where(mask[:, 5:], whole.couplings, 0), whole.bias, 2, ODD, Pixels(0.1, 0.2, 3.0),
        (3, 8), mask, np.arange(15.0),
    )  # fmt: skip
    computer.save_machine(machine, tmp_path / "machine.h5")
    again = computer.load_machine(tmp_path / "machine.h5")
    for name in ("input_couplings", "couplings", "bias", "mask", "inert"):
        assert np.array_equal(getattr(machine, name), getattr(again, name))
    assert (again.physics, again.pixels, again.classes, again.outputs) == (ODD, Pixels(0.1, 0.2, 3.0), (3, 8), 2)
    (tmp_path / "cut.h5").write_bytes((tmp_path / "machine.h5").read_bytes()[:3000])
    with pytest.raises(InputError, match="or it was cut short"):
        computer.load_machine(tmp_path / "cut.h5")


def test_energy_is_what_the_kernel_heats_by():
    machine = small_machine(physics=ODD)
    fields = machine.fields(np.random.default_rng(1).normal(size=(70, 5)))
    start = np.random.default_rng(2).normal(size=(70, 6))
    run = machine.run(fields, x=start, seed=3)
    change = machine.energy(run.x, fields) - machine.energy(start, fields)
    np.testing.assert_allclose(run.heat, change, rtol=1e-10, atol=1e-10)


def test_a_step_too_large_names_one_that_would_do():
    machine = small_machine(physics=Physics(dt=0.2, observation_time=10.0, kT=0.1))
    fields = 40 * machine.fields(np.random.default_rng(1).normal(size=(70, 5)))
    with pytest.raises(InputError, match=r"dt is 0\.2.* dt = ([0-9.]+) would do") as caught:
        machine.require_stable(fields)
    cure = float(str(caught.value).split("dt = ")[-1].split()[0])
    machine.with_physics(dt=cure).require_stable(fields)
    assert np.isfinite(machine.with_physics(dt=cure).run(fields).x).all()
    with pytest.raises(RunError, match=r"\d+ of 70 trajectories diverged.* number \d+ at step \d+ .* would do"):
        machine.run(fields)


def test_wells_that_do_not_hold():
    J = 3.0 * (np.ones((3, 3)) - np.eye(3))
    machine = Machine(np.ones((3, 2)), J, np.zeros(3), 1, Physics(J4=0.0))
    with pytest.raises(InputError, match="no minimum"):
        machine.require_stable(machine.fields(np.ones((4, 2))))


def test_a_text_that_we_write_carries_its_pixels_physics_and_classes(tmp_path):
    machine = small_machine(physics=ODD, pixels=Pixels(0.1, 0.2, 3.0, -1.0, 2.0), classes=(3, 8))
    computer.write_text(machine, tmp_path / "a.txt")
    again = computer.load_machine(tmp_path / "a.txt", inputs=5)
    assert (again.physics, again.pixels, again.classes) == (machine.physics, machine.pixels, machine.classes)
    assert np.array_equal(again.couplings, machine.couplings)
    with pytest.raises(InputError, match=r"outputs is 3, but .*a.txt.json says"):
        computer.load_machine(tmp_path / "a.txt", 5, 3)
    (tmp_path / "a.txt.json").write_text('{"classes": 3}')
    with pytest.raises(InputError, match="does not say what belongs"):
        computer.load_machine(tmp_path / "a.txt", 5)


def test_advice_after_a_divergence_is_a_smaller_step_that_works():
    """Noise alone drives these trajectories out of the step's reach: what a noise-free machine needs is no help."""
    machine = small_machine(physics=Physics(kT=1e9, observation_time=0.01))
    fields = machine.fields(np.random.default_rng(1).normal(size=(8, 5)))
    machine.require_stable(fields)
    with pytest.raises(RunError, match="diverged") as caught:
        machine.run(fields)
    cure = float(str(caught.value).split("dt = ")[-1].split()[0])
    assert cure < machine.physics.dt / 2
    assert np.isfinite(machine.with_physics(dt=cure).run(fields).x).all()


def test_pieces_between_pauses_give_the_same_positions(monkeypatch):
    """Long runs are cut so that Ctrl-C is heard; records fall on their steps, whatever the cut."""
    machine = small_machine(physics=ODD)
    fields = machine.fields(np.random.default_rng(1).normal(size=(70, 5)))
    whole = machine.run(fields, seed=3, recorded=(0, 7, 8, 30))
    heard = []
    monkeypatch.setattr("thermorun.computer.machine._CALL", 4 * fields.size * (machine.units + 30))
    pieces = machine.run(fields, seed=3, recorded=(0, 7, 8, 30), pause=lambda: heard.append(1))
    assert len(heard) == 8
    assert np.array_equal(whole.x, pieces.x)
    assert np.array_equal(whole.paths, pieces.paths)
    np.testing.assert_allclose(whole.heat, pieces.heat, rtol=1e-12)
