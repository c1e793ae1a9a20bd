"""Scores, classifications of any images, and sweeps: what belongs together, and what is told where it does not."""

import json

import numpy as np
import pytest
from machines import QUICK, digits

import thermorun
from thermorun import computer
from thermorun.computer import Accuracy, Classification, Sweep
from thermorun.errors import InputError

GOOD = {"hidden": 24, "teacher_epochs": 15, "shots": 2}
X, Y = digits()
UNIT = X / 16


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A machine trained on arrays, in whose file they are not."""
    return computer.train(UNIT, Y, **GOOD, out=tmp_path_factory.mktemp("own") / "own.h5")


def apart(one, two):
    """Whether two accuracies at different images or noise differ by more than their errors tell."""
    return abs(one.mean - two.mean) > 4 * np.hypot(one.stderr, two.stderr)


# ------------------------------------------------------------------------------------------------------ standard errors


def test_standard_errors_of_shares_are_calibrated():
    """Images with right answers of very different probabilities, drawn anew 400 times."""
    rng = np.random.default_rng(0)
    images, shots, repeats = 300, 3, 400
    shares = []
    noise_only = []
    fixed = rng.beta(1.5, 0.5, size=images)
    for _ in range(repeats):
        p = rng.beta(1.5, 0.5, size=images)
        shares.append(Accuracy.of(rng.binomial(shots, p), shots))
        noise_only.append(np.mean(rng.random((shots, images)) < fixed))
    means = np.array([s.mean for s in shares])
    total = np.sqrt(np.mean([s.stderr**2 for s in shares]))
    noise = np.sqrt(np.mean([s.stderr_noise**2 for s in shares]))
    of_images = np.sqrt(np.mean([s.stderr_images**2 for s in shares]))
    slack = 4 / np.sqrt(2 * repeats)
    assert abs(means.std(ddof=1) / total - 1) < slack
    exact_noise = np.sqrt((fixed * (1 - fixed)).mean() / (shots * images))
    assert abs(np.std(noise_only, ddof=1) / exact_noise - 1) < slack
    assert noise == pytest.approx(np.sqrt(0.125 / (shots * images)), rel=0.03)
    assert np.hypot(noise, of_images) == pytest.approx(total, rel=1e-6)
    one = Accuracy.of(np.ones(50, int), 1)
    assert one.stderr > 0
    assert np.isnan(one.stderr_noise)
    assert json.loads(json.dumps(one.to_dict()))["stderr_noise"] is None


# ----------------------------------------------------------------------------------------------- whose images these are


def test_a_machine_from_arrays_says_so_and_asks_for_images(own):
    assert own.spec.dataset == "array"
    assert thermorun.load(own.file).spec.dataset == "array"
    for run in (computer.classify, computer.sweep):
        with pytest.raises(InputError, match="dataset is array: images that were passed in Python"):
            run(own.file)
    with pytest.raises(InputError, match="dataset is array: images that were passed in Python"):
        computer.sweep(own.file, over="hidden", values=(8,))
    # The same arrays: the part that was held out, without a word.
    same = computer.classify(own.file, UNIT, Y, shots=2)
    assert same.score.to_dict() == own.score.to_dict()
    assert same.notes == ()
    trained = computer.sweep(own.file, UNIT, Y, over="hidden", values=(24,), shots=2)
    assert trained.columns["accuracy"][0] == own.score.accuracy
    with pytest.raises(InputError, match="not the set that the machine"):
        computer.sweep(own.file, UNIT[1:], Y[1:], over="hidden", values=(8,))


def test_a_run_from_arrays_is_resumed_with_them(own):
    again = computer.train(UNIT, Y, **GOOD, out=own.file, resume=True)
    assert again.score.to_dict() == own.score.to_dict()
    assert thermorun.resume(own.file).score.to_dict() == own.score.to_dict()
    with pytest.raises(InputError, match="another spec"):
        computer.train(UNIT[1:], Y[1:], **GOOD, out=own.file, resume=True)


def test_data_that_changed_or_moved_since(tmp_path):
    np.savez(tmp_path / "my.npz", x=UNIT, labels=Y)
    mine = computer.train(dataset=tmp_path / "my.npz", **GOOD, out=tmp_path / "my.h5")
    assert mine.spec.dataset == str(tmp_path / "my.npz")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "my.npz", x=UNIT, labels=rng.permutation(Y))
    shuffled = computer.classify(tmp_path / "my.h5", shots=2)
    assert "they have changed" in " ".join(shuffled.notes)
    np.savez(tmp_path / "my.npz", x=UNIT[1:], labels=Y[1:])
    first_gone = computer.classify(tmp_path / "my.h5", shots=2)
    assert "they have changed" in first_gone.notes[0]
    assert first_gone.notes[1].startswith("598 of 598 images are among those that the machine was trained on")
    assert first_gone.notes[1] in first_gone.to_dict()["notes"]
    assert "598 of 598" in first_gone.summary()
    np.savez(tmp_path / "moved.npz", x=UNIT, labels=Y)
    (tmp_path / "my.npz").unlink()
    # What needs the data names where they were; what does not goes on.
    with pytest.raises(InputError, match=r"my.npz, which does not exist; name where it is now by --dataset"):
        computer.classify(tmp_path / "my.h5")
    assert thermorun.load(tmp_path / "my.h5").summary() == mine.summary()
    assert thermorun.resume(tmp_path / "my.h5").score.to_dict() == mine.score.to_dict()
    moved = computer.classify(tmp_path / "my.h5", dataset=tmp_path / "moved.npz", shots=2)
    assert moved.score.to_dict() == mine.score.to_dict()
    assert moved.notes == ()


def test_an_unfinished_run_goes_on_with_data_that_moved(tmp_path, monkeypatch):
    from thermorun.computer import shots

    np.savez(tmp_path / "my.npz", x=UNIT, labels=Y)
    shoot = shots.shoot
    monkeypatch.setattr(shots, "shoot", lambda *arguments: exit())
    with pytest.raises(SystemExit):
        computer.train(dataset=tmp_path / "my.npz", **QUICK, out=tmp_path / "my.h5")
    monkeypatch.setattr(shots, "shoot", shoot)
    (tmp_path / "my.npz").rename(tmp_path / "moved.npz")
    with pytest.raises(InputError, match="name where it is now"):
        thermorun.resume(tmp_path / "my.h5")
    result = thermorun.resume(tmp_path / "my.h5", dataset=str(tmp_path / "moved.npz"))
    assert result.score.to_dict() == computer.train(UNIT, Y, **QUICK).score.to_dict()


@pytest.mark.parametrize("images", [X, (UNIT * 255).astype(np.uint8), UNIT / 16], ids=["0..16", "0..255", "0..1/16"])
def test_another_unit_of_brightness_is_told(own, images):
    with pytest.raises(InputError, match=r"pixels of array go from 0 to .* trained on from 0 to 1"):
        computer.classify(own.file, images, Y)


def test_the_unit_belongs_to_the_machine():
    """Trained on 0 to 16 it is the same machine, and takes the same images."""
    here, there = computer.train(X, Y, **QUICK), computer.train(UNIT, Y, **QUICK)
    np.testing.assert_allclose(here.machine.couplings, there.machine.couplings, rtol=1e-3, atol=1e-3)
    assert (here.machine.pixels.low, here.machine.pixels.high) == (0, 16)


# ------------------------------------------------------------------------------------------------- texts of parameters


@pytest.fixture(scope="module")
def text(own):
    """The machine as a bare text, as the author's are, and what belongs to it."""
    path = own.file.with_name("bare.txt")
    computer.write_text(own.machine, path)
    path.with_name("bare.txt.json").unlink()
    pixels = own.machine.pixels
    return path, {"pixel_mean": pixels.mean, "pixel_deviation": pixels.deviation, "pixel_norm": pixels.norm}


def test_a_text_takes_classes_that_fit_and_refuses_others(own, text):
    path, pixels = text
    missing = Y != 9
    nine = computer.classify(path, UNIT[missing], Y[missing], shots=2, **pixels)
    assert not apart(nine.score.accuracy, own.score.accuracy)
    eleven = np.concatenate([UNIT, UNIT[:5]]), np.concatenate([Y, [10] * 5])
    with pytest.raises(InputError, match=r"the classes 10, for which the machine in .* has no output"):
        computer.classify(path, *eleven, **pixels)
    assert computer.classify(path, *eleven, classes=range(10), shots=1, **pixels).score.images == 1797
    with pytest.raises(InputError, match="the classes 9, for which the machine"):
        computer.classify(path, UNIT, Y, outputs=9)
    with pytest.raises(InputError, match=r"outputs is 10, but .* says itself"):
        computer.classify(own.file, UNIT, Y, outputs=10)


def test_the_answer_for_an_image_does_not_depend_on_the_others(own, text):
    path, pixels = text
    for file, more in ((path, pixels), (own.file, {})):
        few = computer.classify(file, UNIT[:10], kT=0.0, shots=1, **more)
        many = computer.classify(file, UNIT, kT=0.0, shots=1, **more)
        # To the rounding of a matrix product, which depends on its size.
        np.testing.assert_allclose(few.outputs, many.outputs[:10], atol=1e-5)
        assert np.array_equal(few.answers, many.answers[:10])


def test_a_bare_text_has_the_authors_pixels(text, tmp_path):
    """0.13066, 0.3081 and 44.48, whatever the images; and the author's unit."""
    path, _ = text
    default = computer.classify(path, UNIT[:20], kT=0.0, shots=1)
    given = computer.classify(path, UNIT[:20], kT=0.0, shots=1, pixel_mean=0.13066, pixel_norm=44.48)
    assert np.array_equal(default.outputs, given.outputs)
    with pytest.raises(InputError, match="trained on from 0 to 1"):
        computer.classify(path, X[:20])


# --------------------------------------------------------------------------------------------- images without labels


def test_images_without_labels_and_one_alone(own, tmp_path):
    every = computer.classify(own.file, UNIT, out=tmp_path / "every.h5")
    assert every.score.accuracy is None
    assert every.answers.shape == Y.shape  # all of them, not every third
    assert np.mean(every.answers == Y) > 0.9
    assert "1,777 more" in every.summary()
    answers = every.to_dict()["answers"]
    assert [one["answer"] for one in answers] == every.answers.tolist()
    assert all(0.25 <= one["agreement"] <= 1 for one in answers)
    assert set(every.figures()) == {"answers"}
    again = thermorun.load(tmp_path / "every.h5")
    assert np.array_equal(again.answers, every.answers)
    assert again.to_dict() == every.to_dict()
    np.save(tmp_path / "bare.npy", UNIT)
    assert np.array_equal(computer.classify(own.file, dataset=tmp_path / "bare.npy").answers, every.answers)
    for one in (UNIT[4], UNIT[4].ravel(), UNIT[4][None], UNIT[4][None, :, :, None]):
        alone = computer.classify(own.file, one)
        # Its noise is that of the first image; its outputs are those of image 4 but for that.
        assert alone.answers.shape == (1,)
        assert alone.answers[0] == every.answers[4]
        assert "one image tells no standard error" in alone.summary()
    with pytest.raises(InputError, match="no labels"):
        computer.classify(own.file, UNIT, part="held-out")
    with pytest.raises(InputError, match="a sweep needs them"):
        computer.sweep(own.file, UNIT)
    with pytest.raises(InputError, match="32 pixels an image"):
        computer.classify(own.file, UNIT[:, :4])


def test_every_image_with_labels_and_class_by_class(own):
    every = computer.classify(own.file, UNIT, Y, part="all", shots=1)
    assert every.score.images == len(Y)
    assert np.array_equal(every.labels, Y)
    assert "1,198 of 1,797 images are among those that the machine was trained on." in every.notes
    for k, one in enumerate(every.score.by_class):
        assert one.mean == pytest.approx(np.mean(every.answers[k == Y] == k))
        assert one.samples == np.sum(k == Y)
    some = computer.classify(own.file, UNIT, Y, part="all", classes=(3,), shots=1)
    assert some.score.images == np.sum(Y == 3)
    assert "?" in some.summary()
    assert "? where a class has no image here" in some.summary()


# ------------------------------------------------------------------------------------------------------ degenerate sets


def of_known(score):
    """Accuracy of the images whose class has an output."""
    return np.average([one.mean for one in score.by_class], weights=[one.samples for one in score.by_class])


def test_classes_that_were_never_seen_count_as_wrong():
    held = np.arange(len(Y)) % 3 == 2
    seen = (Y != 7) | held
    result = computer.train(UNIT[~held & seen], Y[~held & seen], **QUICK)
    assert len(result.machine.classes) == 9
    # Held out by the file: x_test with all ten classes.
    labels = np.where((Y == 7) & ~held, 1, Y)
    result = computer.train(UNIT, labels, **GOOD)
    assert result.score.images == held.sum()
    unseen = int(np.sum(held & (Y == 7)))
    assert f"{unseen} of {held.sum()} images are of classes without training images (7)" in result.notes[0]
    of_the_others = np.average(
        [one.mean for one in result.score.by_class], weights=[s.samples for s in result.score.by_class]
    )
    assert result.score.accuracy.mean == pytest.approx(of_the_others * (1 - unseen / held.sum()))


def test_classifying_labels_without_an_output_counts_them_as_wrong(own):
    result = computer.classify(own.file, np.concatenate([UNIT, UNIT[:5]]), np.concatenate([Y, [10] * 5]), part="all")
    assert "5 of 1,802 images are of classes without training images (10)" in result.notes[0]
    assert result.score.accuracy.mean == pytest.approx(of_known(result.score) * 1797 / 1802)


def test_labels_that_are_words(tmp_path):
    """They are told as they were given: by the training, by a classification, and by a text's companion."""
    words = np.array(["null", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])[Y]
    named = computer.train(UNIT, words, **GOOD, out=tmp_path / "words.h5")
    assert named.machine.names == tuple(sorted(set(words)))
    assert {one["class"] for one in named.to_dict()["results"][0]["classes"]} == set(words)
    same = computer.classify(tmp_path / "words.h5", UNIT, words, shots=2, out=tmp_path / "again.h5")
    assert same.score.to_dict() == named.score.to_dict()
    assert np.mean(same.answers == same.labels) > 0.85
    assert thermorun.load(tmp_path / "again.h5").to_dict() == same.to_dict()
    computer.write_text(named.machine, tmp_path / "words.txt")
    text = computer.classify(tmp_path / "words.txt", UNIT[:20])
    assert np.array_equal(text.answers, computer.classify(tmp_path / "words.h5", UNIT[:20]).answers)
    some = computer.train(UNIT, words, classes=("one", "two"), **QUICK)
    assert some.machine.names == ("one", "two")


def test_repeated_and_uneven_images_give_a_result_and_a_sentence():
    repeated = computer.train(np.repeat(UNIT[:200], 3, axis=0), np.repeat(Y[:200], 3), **QUICK)
    assert repeated.notes == ("held out: 200 of 200 images are among those that the machine was trained on.",)
    few = np.concatenate([np.flatnonzero(Y == 0)[:2], np.flatnonzero(Y != 0)])
    uneven = computer.train(UNIT[few], Y[few], **QUICK)
    assert uneven.notes[0].startswith("classes are uneven: 2 training images of 0")
    flat = UNIT.copy()
    flat[:, 0] = 0.3  # pixels that never change
    assert computer.train(flat, Y, **GOOD).score.accuracy.mean > 0.85
    with pytest.raises(InputError, match="1 class to tell apart"):
        computer.train(UNIT[Y == 3], Y[Y == 3])
    with pytest.raises(InputError, match="nothing to tell images apart"):
        computer.train(np.ones((30, 9)), np.arange(30) % 2)


# --------------------------------------------------------------------------------------------------------------- sweeps


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return computer.train(**QUICK, out=tmp_path_factory.mktemp("quick") / "a.h5").file


def test_times_are_read_from_the_same_trajectories(quick, tmp_path):
    single = computer.classify(quick, shots=2, observation_time=0.1)
    times = computer.sweep(quick, shots=2, values=(0.2, 0.1, 0.05), out=tmp_path / "times.h5")
    assert times.values == (0.2, 0.1, 0.05)
    # The trajectory read at 0.1 on the way to 0.2 is that which ends at 0.1.
    assert times.columns["accuracy"][1] == single.score.accuracy
    assert times.columns["heat"][1].mean == pytest.approx(single.score.heat.mean, rel=1e-5)
    again = computer.sweep(quick, shots=2, values=(0.2, 0.1, 0.05), out=tmp_path / "times.h5", resume=True)
    assert again.to_dict() == times.to_dict() == thermorun.load(tmp_path / "times.h5").to_dict()


def test_sweeps_of_every_kind(quick):
    hot = computer.sweep(quick, over="temperature", shots=2, values=(0.0, 1.0, 300.0))
    assert hot.columns["accuracy"][0].stderr_noise == 0
    assert hot.columns["accuracy"][2].mean < hot.columns["accuracy"][0].mean - 0.2
    masks = computer.sweep(quick, over="connectivity", shots=2)
    assert masks.parameters.tolist() == [16 * 64 + 120 + 16, 16 * 64 + 60 + 45 + 16, 6 * 64 + 60 + 16]
    sizes = computer.sweep(quick, over="hidden", shots=2, values=(4, 12))
    assert sizes.columns["accuracy"][1].mean > sizes.columns["accuracy"][0].mean
    steps = computer.sweep(quick, over="timestep", shots=2, values=(0.001, 0.002))
    assert json.loads(json.dumps(steps.to_dict()))["results"][1]["timestep"] == 0.002
    assert "stderr" in steps.to_dict()["results"][1]["accuracy"]
    for result in (hot, masks, sizes, steps):
        assert result.plot().axes


@pytest.mark.slow
def test_a_machine_trained_for_a_sweep_is_the_one_that_a_run_trains(quick):
    for method, more in (("closed-form", {}), ("onsager-machlup", {"trajectories": 20_000})):
        whole = computer.train(**{**QUICK, "hidden": 8}, method=method, **more)
        swept = computer.Sweep(file=quick, over="hidden", values=(8,), shots=2)
        if method != "closed-form":
            file = quick.with_name("descent.h5")
            computer.train(**QUICK, method=method, **more, out=file)
            swept = swept.replace(file=file)
        assert swept.run().columns["accuracy"][0] == whole.score.accuracy


@pytest.mark.parametrize("over", ["observation-time", "temperature"])
def test_resumed_sweeps_give_the_same_bits(quick, tmp_path, monkeypatch, over):
    """Killed in the middle of a value's shots: the checkpoint has their sums."""
    spec = Sweep(file=quick, over=over, shots=4, values=(0.1, 0.2))
    whole = spec.run()
    run, calls = computer.Machine.run, []

    def killed(self, *arguments, **more):
        calls.append(1)
        if len(calls) == (4 if over == "observation-time" else 7):
            raise SystemExit
        return run(self, *arguments, **more)

    monkeypatch.setattr("thermorun.runs.CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(computer.Machine, "run", killed)
    with pytest.raises(SystemExit):
        spec.run(out=tmp_path / "a.h5")
    monkeypatch.setattr(computer.Machine, "run", lambda *arguments, **more: calls.append(1) or run(*arguments, **more))
    assert len(thermorun.load(tmp_path / "a.h5").values) == (0 if over == "observation-time" else 1)
    calls.clear()
    rest = thermorun.resume(tmp_path / "a.h5")
    assert len(calls) == (1 if over == "observation-time" else 2)
    assert rest.to_dict()["results"] == whole.to_dict()["results"]


def test_what_measurements_refuse(quick, tmp_path):
    for wrong, sentence in (
        ({"over": "colour"}, "over is 'colour'"),
        ({"values": ("a",)}, "values holds 'a'"),
        ({"values": ()}, "values holds 0 values"),
        ({"over": "hidden", "values": (3.5,)}, "values is 3.5; it must be an integer"),
        ({"over": "temperature", "values": (-1,)}, "values is -1"),
        ({"shots": 0}, "shots is 0"),
    ):
        with pytest.raises(InputError, match=sentence):
            Sweep(file=quick, **wrong)
    for wrong in ({"dt": np.nan}, {"observation_time": np.inf}, {"kT": -1}, {"part": "some"}, {"pixel_deviation": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Classification(file=quick, **wrong)
    with pytest.raises(InputError, match="pixel_deviation is 1e-23 and pixel_mean"):
        computer.classify(quick, pixel_deviation=1e-23)
    with pytest.raises(InputError, match=r"pixel_norm is 1e\+45; float32 cannot hold"):
        computer.classify(quick, pixel_norm=1e45)
    with pytest.raises(InputError, match=r"dt = .* would do"):
        computer.sweep(quick, over="timestep", values=(0.001, 0.05), out=tmp_path / "out.h5")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "other.npz", x=rng.random((60, 9)), labels=np.arange(60) % 10)
    with pytest.raises(InputError, match="9 pixels an image; the machine"):
        computer.classify(quick, dataset=tmp_path / "other.npz", out=tmp_path / "out.h5")
    assert not list(tmp_path.glob("out*"))
