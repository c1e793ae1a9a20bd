"""Trainings through the noise: the loss, what is learned and what is not, where they start, what is refused; MNIST."""

import dataclasses

import h5py
import numpy as np
import pytest
from machines import images_of, two_classes
from PIL import Image
from scipy import special

import thermorun
from thermorun import computer, datasets
from thermorun.computer import ComputerTraining, Machine, Physics, Pixels, adjoint
from thermorun.computer.images import Arrays
from thermorun.computer.task import Task
from thermorun.errors import InputError, RunError

SMALL = {"method": "adjoint", "hidden": 6, "trajectories": 20_000, "shots": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    x, labels = two_classes(points=240)
    return computer.train(x, labels, **SMALL, out=tmp_path_factory.mktemp("runs") / "a.h5")


def test_cross_entropy_is_scipys_and_its_slopes_are_differences():
    rng = np.random.default_rng(0)
    outputs, labels, gain, h = rng.normal(0.0, 3.0, (7, 4)), np.array([0, 1, 2, 3, 3, 0, 1]), 1.3, 1e-6

    def loss(x, g):
        return -special.log_softmax(g * x, axis=1)[np.arange(7), labels].mean()

    value, slopes, of_gain = adjoint.cross_entropy(outputs, labels, gain)
    assert value == pytest.approx(loss(outputs, gain), rel=1e-14)
    assert of_gain == pytest.approx((loss(outputs, gain + h) - loss(outputs, gain - h)) / (2 * h), rel=1e-6)
    for place in np.ndindex(outputs.shape):
        ends = [loss(outputs + sign * h * (np.arange(28).reshape(7, 4) == 4 * place[0] + place[1]), gain)
                for sign in (1, -1)]  # fmt: skip
        assert slopes[place] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-8)
    huge = adjoint.cross_entropy(1e6 * outputs, labels, gain)
    assert np.isfinite(huge[0])
    assert np.isfinite(huge[1]).all()


def test_gradient_of_all_that_is_learned_is_that_of_differences():
    """Through images, fields, trajectories and gain, in float64: one update's loss is a function of its parameters."""
    x, labels = two_classes()
    spec = ComputerTraining(
        **SMALL | {"precision": "float64", "training_steps": 8, "validation": 0.0, "rotation": 20.0}
    )
    task = Task.of(spec, Arrays(x, labels))
    objective, chosen = task.objective(None), np.arange(20)
    parameters = objective.start()
    _, found = objective.gradient(parameters, chosen, 3)
    rng, h = np.random.default_rng(0), 1e-4
    assert set(found) == set(parameters) == {"W", "b", "J", "gain"}
    for name, array in parameters.items():
        direction = rng.normal(size=array.shape)
        if name == "J":
            direction = np.tril(direction, -1) + np.tril(direction, -1).T
        ends = [objective.gradient(parameters | {name: array + sign * h * direction}, chosen, 3)[0] for sign in (1, -1)]
        # The gradient in J_ij counts both places of the pair.
        along = np.sum(found[name] * direction) / (2 if name == "J" else 1)
        assert along == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6)


def test_a_machine_is_right_and_its_curve_is_kept(trained):
    again = thermorun.load(trained.file)
    assert trained.score.accuracy.mean > 0.9
    assert again.summary() == trained.summary()
    assert again.to_dict() == trained.to_dict()
    assert len(trained.loss) == len(trained.updates) == 60
    assert trained.updates[-1] == trained.spec.updates == 157
    assert trained.loss[-10:].mean() < 0.5 * trained.loss[0]
    assert np.isfinite(trained.accuracy).all()
    assert "teacher" not in trained.contents()
    assert trained.facts["gain"] > 0
    assert np.isnan(trained.facts["action"])
    assert "no teacher" in trained.summary()
    drawn = trained.figures()["descent"]
    assert drawn.axes[0].get_ylabel() == "cross-entropy"
    assert len(drawn.axes[1].get_lines()[0].get_ydata()) == 60


def test_images_set_aside_are_not_learned_from():
    x, labels = two_classes(points=300)
    task = Task.of(ComputerTraining(**SMALL, validation=0.1), Arrays(x, labels))
    assert task.watched.sum() == 20
    assert len(np.unique(np.flatnonzero(task.watched) % 10)) > 5
    other = Task.of(ComputerTraining(**SMALL, validation=0.1, seed=1), Arrays(x, labels))
    assert np.any(other.watched != task.watched)
    assert not np.isin(np.flatnonzero(task.watched), task.objective(None).learned).any()
    changed = task.images.x.copy()
    changed[task.watched] = 0.5
    other = dataclasses.replace(task, images=dataclasses.replace(task.images, x=changed))
    for update in range(3):
        one, two = (t.objective(None).gradient(t.objective(None).start(), np.arange(50), update) for t in (task, other))
        assert one[0] == two[0]


@pytest.mark.parametrize("connectivity", ["no-hidden-hidden", "feed-forward", "own"])
def test_a_mask_is_kept_to(tmp_path, connectivity):
    x, labels = two_classes()
    if connectivity == "own":
        whole = np.triu(np.random.default_rng(3).random((17, 17)) < 0.6, 1)
        connectivity = tmp_path / "mask.npy"
        np.save(connectivity, whole | whole.T)
    machine = computer.train(x, labels, **SMALL | {"trajectories": 3000}, connectivity=connectivity).machine
    learned = np.hstack([machine.input_couplings, machine.couplings]) != 0
    np.testing.assert_array_equal(learned, machine.allowed)


def test_it_starts_from_a_machine(trained, tmp_path):
    """Little is left to learn; and without an update's worth of learning rate nothing changes."""
    x, labels = two_classes(points=240)
    still = computer.train(x, labels, **SMALL | {"trajectories": 128}, start=trained.file, learning_rate=1e-12)
    np.testing.assert_allclose(still.machine.couplings, trained.machine.couplings, rtol=1e-6)
    assert still.machine.pixels == trained.machine.pixels
    closed = computer.train(x, labels, hidden=6, teacher_epochs=5, scale=100.0, shots=1)
    computer.save_machine(closed.machine, tmp_path / "closed.h5")
    more = computer.train(x, labels, **SMALL | {"trajectories": 5000}, start=tmp_path / "closed.h5")
    assert more.score.accuracy.mean > 0.9


def test_weights_that_grow_leave_trajectories_finite():
    """At a learning rate thirty times the usual one fields leave what explicit steps can follow: states are cut off."""
    x, labels = two_classes()
    result = computer.train(x, labels, **SMALL | {"training_steps": 10}, learning_rate=3.0)
    assert np.isfinite(result.loss).all()
    assert result.facts["cut_share"] > 0.01
    assert "cut off" in result.summary()


def test_a_machine_that_its_dt_is_too_long_for_is_kept(tmp_path):
    x, labels = two_classes()
    spec = ComputerTraining(**SMALL | {"trajectories": 10_000, "dt": 0.1})
    with pytest.raises(RunError, match=r"is trained, but dt is 0.1, too large .* would do"):
        spec.run(data=Arrays(x, labels), out=tmp_path / "a.h5")
    machine = computer.load_machine(tmp_path / "a.h5")
    inputs = machine.pixels.inputs(images_of(x, labels).test_x, np.float32)
    end = machine.with_physics(dt=1e-3).run(machine.fields(inputs)).x[:, -2:]
    assert np.mean(end.argmax(axis=1) == images_of(x, labels).test_labels) > 0.6


def test_what_diverges_says_so():
    with pytest.raises(RunError, match="smaller learning_rate"), np.errstate(all="ignore"):
        computer.train(*two_classes(), **SMALL | {"trajectories": 3000}, learning_rate=1e38)


def test_bad_input_is_refused_before_anything_is_written(tmp_path):
    x, labels = two_classes()
    few = Machine(np.ones((7, 9)), np.zeros((7, 7)), np.zeros(7), 2)
    pixels = Pixels(low=0.0, high=500.0)
    machines = {
        "hidden": few,
        "inputs": Machine(np.ones((8, 4)), np.zeros((8, 8)), np.zeros(8), 2),
        "outputs": Machine(np.ones((8, 9)), np.zeros((8, 8)), np.zeros(8), 3),
        "classes": Machine(np.ones((8, 9)), np.zeros((8, 8)), np.zeros(8), 2, classes=(3, 4)),
        "fits": Machine(np.ones((8, 9)), np.zeros((8, 8)), np.zeros(8), 2),
        "bright": Machine(np.ones((8, 9)), np.zeros((8, 8)), np.zeros(8), 2, pixels=pixels),
    }
    for name, machine in machines.items():
        computer.save_machine(machine, tmp_path / f"{name}.h5")
    (tmp_path / "short.txt").write_text("1 2 3")
    for fields, sentence in (
        ({"start": tmp_path / "hidden.h5"}, "a machine of 5 hidden units; this training has 6"),
        ({"start": tmp_path / "inputs.h5"}, "a machine of 4 inputs; this training has 9"),
        ({"start": tmp_path / "outputs.h5", "hidden": 5}, "a machine of 3 outputs; this training has 2"),
        ({"start": tmp_path / "classes.h5"}, "for the classes 3, 4; the images are of 0, 1"),
        ({"start": tmp_path / "bright.h5"}, "pixels of array"),
        ({"start": tmp_path / "none.h5"}, "does not exist"),
        ({"start": tmp_path / "short.txt"}, "make no machine"),
        ({"start": tmp_path / "fits.h5", "connectivity": "feed-forward"}, "18 couplings that connectivity forbids"),
        ({"start": tmp_path / "fits.h5", "method": "closed-form"}, "only adjoint starts from a machine"),
        ({"training_steps": 0}, "training_steps is 0"),
        ({"training_steps": 2, "J2": 50.0}, "training_steps is 2, too few"),
        ({"validation": 0.7}, "validation is 0.7"),
        ({"scaling": 1.0}, "scaling is 1"),
        ({"rotation": -1.0}, "rotation is -1"),
    ):
        with pytest.raises(InputError, match=sentence):
            computer.train(x, labels, **SMALL | fields, out=tmp_path / "out.h5")
    with pytest.raises(InputError, match=r"shift is 0.1, but .* holds no pictures"):
        computer.train(np.random.default_rng(0).random((30, 7)), labels[:30], **SMALL, shift=0.1)
    assert not (tmp_path / "out.h5").exists()


def test_the_limit_is_where_steps_are_at_their_stiffest():
    physics = Physics(J2=0.7, J4=0.4, mobility=1.3)
    limited = adjoint.limited(physics, 30)
    assert limited.dt == pytest.approx(0.2 / 30)
    assert limited.mobility * limited.dt * (2 * 0.7 + 12 * 0.4 * limited.limit**2) == pytest.approx(adjoint.STIFFEST)
    assert adjoint.limited(Physics(J2=1.0, J4=0.0), 30).limit == np.inf


def test_small_files_hold_machines_to_the_last_bit(trained, tmp_path):
    """In single precision where that is exact, and without the mask of a machine that has all couplings."""
    computer.save_machine(trained.machine, tmp_path / "single.h5")
    other = dataclasses.replace(trained.machine, bias=trained.machine.bias + 1e-12)
    computer.save_machine(other, tmp_path / "double.h5")
    for machine, name, kind in ((trained.machine, "single", "float32"), (other, "double", "float64")):
        again = computer.load_machine(tmp_path / f"{name}.h5")
        for part in ("input_couplings", "couplings", "bias", "mask"):
            np.testing.assert_array_equal(getattr(again, part), getattr(machine, part))
        assert (again.physics, again.pixels, again.said) == (machine.physics, machine.pixels, machine.said)
        with h5py.File(tmp_path / f"{name}.h5") as file:
            assert file["machine/bias"].dtype == kind
            assert "mask" not in file["machine"]


def test_digits(tmp_path):
    """Half of the closed form's errors, in as many seconds; and the same at half the time step."""
    result = computer.train(method="adjoint", trajectories=60_000)
    share = result.score.accuracy
    assert share.mean > 0.95
    computer.save_machine(result.machine, tmp_path / "machine.h5")
    other = computer.classify(tmp_path / "machine.h5", dataset="digits", dt=5e-4).score.accuracy
    # The same images: only the noise differs.
    assert abs(other.mean - share.mean) < 4 * np.hypot(share.stderr_noise, other.stderr_noise)


@pytest.mark.slow
def test_the_machine_of_the_package(mnist, tmp_path, monkeypatch):
    """By its name, where there is no such file: at MNIST's test images, at half the time step, and at a user's own."""
    monkeypatch.chdir(tmp_path)
    first = computer.classify("mnist", shots=1).score
    assert first.images == 10_000
    assert first.accuracy.mean >= 0.98
    half = computer.classify("mnist", shots=1, dt=5e-4).score
    assert abs(half.accuracy.mean - first.accuracy.mean) < 4 * np.hypot(first.accuracy.stderr, half.accuracy.stderr)
    images = datasets.load_images("mnist", None)
    answers = computer.classify("mnist", images.test_x[:20].reshape(20, 28, 28), shots=9).answers
    assert np.mean(answers == images.test_labels[:20]) >= 0.9
    (tmp_path / "pictures").mkdir()
    for i, picture in enumerate(images.test_x[:5].reshape(5, 28, 28)):
        Image.fromarray((255 * picture).round().astype(np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
    of_pictures = computer.classify("mnist", dataset=tmp_path / "pictures", shots=9)
    np.testing.assert_array_equal(of_pictures.answers, answers[:5])
    (tmp_path / "mnist").write_text("1 2 3")
    with pytest.raises(InputError, match="make no machine"):
        computer.load_machine("mnist")


@pytest.mark.slow
def test_mnist(mnist):
    """One shot at each of the 10,000 test images, at least 97.5 percent; the default takes longer and does better."""
    result = computer.train(dataset="mnist", method="adjoint", trajectories=40 * 60_000, shots=1)
    assert result.score.images == 10_000
    assert result.score.accuracy.mean >= 0.975
    assert result.facts["cut_share"] < 0.05
