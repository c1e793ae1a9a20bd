"""The generative computer: what it learns against differences, trajectories and its other rules; files; pictures."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

import thermorun
from helpers import refused, undrawn, z_score
from helpers import thermorun as command
from thermokernels import reversal
from thermorun import computer
from thermorun.computer import Generation
from thermorun.computer.generative import closed_form, descent, noising, stages, tuning
from thermorun.computer.generative.task import Judge, Task
from thermorun.errors import InputError, RunError

# Three classes of 4x4 images: one each, with noise of their own.
SHAPE = (4, 4)
SMALL = {"hidden": 10, "pictures": 12, "dt": 0.01, "duration": 0.5, "rounds": 6, "kT": 0.1}


def images():
    rng = np.random.default_rng(3)
    prototypes = rng.normal(size=(3, *SHAPE))
    y = np.arange(60) // 2 % 3
    return prototypes[y] + 0.1 * rng.normal(size=(60, *SHAPE)), y


def run(**more):
    return computer.generate(*images(), **(SMALL | more))


def task(**more):
    from thermorun.computer.images import Arrays
    from thermorun.datasets import ARRAY

    return Task.of(Generation(**(SMALL | {"dataset": ARRAY, "precision": "float64"} | more)), Arrays(*images()))


def same(one, two):
    for name in (
        "x",
        "answer",
        "work",
        "heat",
        "residual",
        "couplings",
        "bias",
        "loss",
        "distance",
        "gain",
        "film",
        "noising",
    ):
        assert np.array_equal(getattr(one, name), getattr(two, name), equal_nan=True), name


# --- What is learned --------------------------------------------------------------------------------------------------


def test_series_in_the_code_are_the_moments():
    """Modes and Chebyshev series against the kernel at codes between the nodes."""
    one = task()
    codes = np.array([-1.9, -0.3, 0.0, 0.71, 2.05])
    law = noising.laws(one.spec.physics, (0.0, 1.0), np.array([2.2]))[1]
    steps = one.spec.physics.steps
    mean, variance, cube = (values[steps:] for values in noising.moments(one.spec.physics, 1.0, codes))
    pull = 2 * mean[1:] + 4 * cube[1:] + 1.0 - np.diff(mean, axis=0) / one.spec.dt  # mobility one
    modes, sums = law.at(codes)
    np.testing.assert_allclose(sums, np.stack([mean[1:].sum(0), pull.sum(0), variance[1:].sum(0)], axis=-1), atol=2e-5)
    np.testing.assert_allclose(modes[..., 0] @ modes[..., 0].T, mean[1:].T @ mean[1:], atol=2e-5)
    np.testing.assert_allclose(modes[..., 1] @ modes[..., 0].T, pull.T @ mean[1:], atol=2e-5)
    np.testing.assert_allclose(law.prepared(codes), mean[0], atol=1e-6)


@pytest.mark.parametrize("more", [{}, {"biases": "hidden", "codes": "pixels"}, {"conditional": True, "images": 3}])
def test_the_closed_form_is_where_all_differences_vanish(more):
    one = task(**more)
    sums, hidden = one.sums, one.spec.hidden
    J, b = closed_form.minimise(sums, hidden, one.free)
    best = sums.gain(J, b)
    assert np.array_equal(J, J.T)
    assert not J[hidden:, hidden:].any()
    assert not np.diag(J).any()
    rng = np.random.default_rng(0)
    for _ in range(4):
        step = rng.normal(size=J.shape)
        step = step + step.T
        step[hidden:, hidden:] = 0.0
        np.fill_diagonal(step, 0.0)
        other = rng.normal(size=b.shape) * one.free
        up, down = (sums.gain(J + 1e-3 * s * step, b + 1e-3 * s * other) for s in (1, -1))
        curve = best - (up + down) / 2
        assert curve > 0
        assert abs(up - down) < 1e-3 * curve


@pytest.mark.slow
def test_the_gain_is_that_of_trajectories():
    """The exact mean action, by moments alone, against 700 noising trajectories through the kernel, |z| < 4."""
    one = task(images=2)
    J, b = closed_form.minimise(one.sums, one.spec.hidden, one.free)
    rng = np.random.default_rng(1)
    J, b = 0.6 * J + 0.0, b + 0.1 * rng.normal(size=b.shape)
    walk = descent.Descent(one, "published", 0)
    physics, free = one.spec.physics.kernel, one.free.astype(float)
    found = []
    for _ in range(700):
        path, image = walk._path(walk.done), walk.done % len(one.codes)
        walk.done += 1
        losses = []
        for couplings, biases in ((np.zeros_like(walk.couplings), 0 * b), (np.zeros_like(walk.couplings), b)):
            if biases.any():
                couplings[: one.units, : one.units] = J
            h = one.tilt + one.design[image] @ biases
            sums, loss = np.empty(one.units), np.empty(1)
            change = np.zeros_like(couplings)
            reversal.learn(path, h, free, couplings, change, one.spec.hidden, physics, (0.0, False), sums, loss)
            losses.append(loss[0])
        found.append(losses[0] - losses[1])
    assert abs(z_score(found, one.sums.gain(J, b))) < 4
    assert np.std(found) / np.sqrt(len(found)) < 0.1 * abs(np.mean(found))


def cosine(a, b):
    return np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("rule", ["published", "online"])
def test_rules_of_trajectories_come_to_the_closed_form(rule):
    """With more trajectories the couplings turn to those of the closed form, and the gain rises to the largest."""
    one = task(rate=0.02, biases="hidden")
    J, b = closed_form.minimise(one.sums, one.spec.hidden, one.free)
    walk, units = descent.Descent(one, rule, 0), one.units
    found = []
    for rounds in (20, 80, 400):
        while walk.done < rounds * len(one.codes):
            walk.step()
        K = walk.couplings[:units, :units]
        found.append((cosine(K, J), one.sums.gain(K, walk.biases) / one.sums.gain(J, b)))
    cosines, gains = zip(*found, strict=True)
    assert sorted(cosines) == list(cosines)
    assert sorted(gains) == list(gains)
    assert cosines[-1] > 0.97
    assert 0.97 < gains[-1] <= 1


# --- Tuning -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{"images": 2}, {"images": 2, "conditional": True, "biases": "hidden"}])
def test_the_gradient_of_the_distance_is_that_of_differences(more):
    one = task(updates=3, **more)
    walk = tuning.Tuning(one, 0)
    J, b = walk.couplings, walk.biases
    value, of_J, of_b = walk.gradient(J, b, 1)
    assert np.array_equal(of_J, of_J.T)
    assert value == walk.gradient(J, b, 1)[0] != walk.gradient(J, b, 2)[0]
    rng = np.random.default_rng(0)
    for _ in range(3):
        step = rng.normal(size=J.shape)
        step = np.tril(step, -1) + np.tril(step, -1).T
        other = rng.normal(size=b.shape)
        up, down = (walk.gradient(J + s * 1e-5 * step, b + s * 1e-5 * other, 1)[0] for s in (1, -1))
        slope = np.sum(of_J * step) / 2 + np.sum(of_b * other)
        assert (up - down) / 2e-5 == pytest.approx(slope, rel=1e-6)


def test_the_distance_is_the_least_of_all_matchings():
    rng = np.random.default_rng(2)
    made, wanted = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    classes = np.array([0, 0, 0, 1, 1, 1])
    orders = [list(order) for order in itertools.permutations(range(6))]
    for within in (False, True):
        allowed = [order for order in orders if not within or np.array_equal(classes[order], classes)]
        found, slopes = tuning.distance(made, wanted, classes, within)
        assert found == pytest.approx(min(np.mean((made - wanted[order]) ** 2) for order in allowed))
        np.testing.assert_allclose(np.sum(slopes * made) - np.sum(slopes * (made - found)), found * slopes.sum())
        numbers = np.sum(slopes**2) * made.size / 4
        assert numbers == pytest.approx(found)


def test_every_image_is_wanted_equally_often():
    walk = tuning.Tuning(task(images=4, updates=30), 0)
    wanted = np.concatenate([walk._wanted(update)[0] for update in range(3)])  # 3 x 64 of 12 images
    assert np.array_equal(np.bincount(wanted), np.full(12, 16))


def test_a_tuned_machine_makes_better_pictures():
    """Ten images of digits, for which the closed form is not enough: nearer to them, and as many of them."""
    result = computer.generate(
        classes=tuple(range(10)), hidden=48, dt=0.005, rules=("closed-form", "adjoint"), updates=120, threads=1
    )
    before, after = (result.quality(rule) for rule in result.rules)
    assert after["correlation"].mean > before["correlation"].mean + 4 * before["correlation"].stderr
    assert after["good"].mean > before["good"].mean
    assert after["prototypes"].mean > before["prototypes"].mean - before["prototypes"].stderr
    curve = result.distance[1]
    assert curve[-10:].mean() < 0.9 * curve[:10].mean()
    assert np.isnan(result.distance[0]).all()
    assert "tuning" in result.figures()


# --- Runs -------------------------------------------------------------------------------------------------------------


def test_a_run_and_its_file(tmp_path):
    result = run(rules="all", machines=2, out=tmp_path / "a.h5")
    same(result, thermorun.load(tmp_path / "a.h5"))
    assert result.rules == ("closed-form", "published", "online", "untrained")
    assert result.x.shape == (8, 12, 16)
    assert np.abs(result.residual).max() < 1e-4 * np.abs(result.heat).max()
    assert all(result.checks().values())
    assert any("first law" in name for name in result.checks())
    untrained = result.of_rule("untrained")
    assert not result.couplings[untrained].any()
    assert not result.work[untrained][..., 1].any()
    closed = result.of_rule("closed-form")
    assert np.array_equal(result.couplings[closed][0], result.couplings[closed][1])  # no trajectory, no noise
    assert not np.array_equal(result.x[closed][0], result.x[closed][1])
    assert result.gain[closed].max() >= result.gain.max()
    machine = result.machine(0)
    assert machine.hidden == 10
    assert np.array_equal(machine.couplings[10:, :10], result.couplings[0][10:])
    for row in result.rows():
        assert 0 <= row["inverted"]["mean"] <= 1
        assert sum(one["share"]["mean"] for one in row["classes"]) == pytest.approx(1)
    text = result.summary()
    assert "closed-form" in text
    assert max(map(len, text.splitlines())) <= 80
    figures = result.figures()
    assert list(figures) == ["pictures", "film", "heat", "fields", "loss", "table"]
    for kind in ("gif", "png"):
        result.animate(tmp_path / f"a.{kind}")
        with Image.open(tmp_path / f"a.{kind}") as film:
            assert film.n_frames > 40
    with pytest.raises(InputError, match="already"):
        result.animate(tmp_path / "a.gif")
    with pytest.raises(InputError, match=r"\.gif or \.png"):
        result.animate(tmp_path / "a.mp4")


def test_threads_give_the_same_bits():
    same(*(run(rules=("all", "adjoint"), updates=4, threads=count) for count in (1, 2)))


@pytest.mark.parametrize("stop", [16, 25])
def test_resumed_runs_give_the_same_bits(tmp_path, monkeypatch, stop):
    """Killed while the published rule, or the online one, learns, with a checkpoint at every trajectory."""
    x, y = images()
    np.savez(tmp_path / "images.npz", x=x, labels=y)
    spec = Generation(**SMALL, rules=("closed-form", "published", "online"), dataset=str(tmp_path / "images.npz"))
    whole = spec.run()
    step, taken = descent.Descent.step, []

    def killed(self):
        if len(taken) == stop:
            raise SystemExit
        taken.append(self.done)
        return step(self)

    monkeypatch.setattr("thermorun.runs.CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(descent.Descent, "step", killed)
    with pytest.raises(SystemExit):
        spec.run(out=tmp_path / "a.h5")
    monkeypatch.setattr(descent.Descent, "step", step)
    partial = thermorun.load(tmp_path / "a.h5")
    assert len(partial.x) == 1 + stop // 18
    assert partial.summary()
    same(whole, thermorun.resume(tmp_path / "a.h5"))
    same(whole, thermorun.load(tmp_path / "a.h5"))


def test_a_tuning_is_resumed_to_the_same_bits(tmp_path, monkeypatch):
    """Killed while it is tuned, then killed when it is learned and no picture is made."""
    x, y = images()
    np.savez(tmp_path / "images.npz", x=x, labels=y)
    spec = Generation(**SMALL, rules="adjoint", updates=7, dataset=str(tmp_path / "images.npz"))
    whole = spec.run()
    step, make = tuning.Tuning.step, stages.generate

    def killed(self):
        if self.done == 4:
            raise SystemExit
        return step(self)

    def stopped(*given):
        raise SystemExit

    monkeypatch.setattr("thermorun.runs.CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(tuning.Tuning, "step", killed)
    with pytest.raises(SystemExit):
        spec.run(out=tmp_path / "a.h5")
    monkeypatch.setattr(tuning.Tuning, "step", step)
    monkeypatch.setattr(stages, "generate", stopped)
    with pytest.raises(SystemExit):
        thermorun.resume(tmp_path / "a.h5")
    monkeypatch.setattr(stages, "generate", make)
    monkeypatch.setattr(tuning.Tuning, "step", stopped)  # it is not tuned again
    same(whole, thermorun.resume(tmp_path / "a.h5"))


def test_a_file_without_a_machine_says_so(tmp_path, monkeypatch):
    def killed(self):
        raise SystemExit

    monkeypatch.setattr(descent.Descent, "step", killed)
    with pytest.raises(SystemExit):
        run(rules="published", out=tmp_path / "a.h5")
    with pytest.raises(InputError, match="holds no complete machine; go on with"):
        thermorun.load(tmp_path / "a.h5")


def test_the_first_law_and_stages_of_a_machine_in_double_precision():
    result = run(precision="float64", pictures=5)
    assert np.abs(result.residual).max() < 1e-9
    kinds = result.energies("closed-form")
    assert kinds["heat of preparing"].mean < 0  # units slide down the fixed field's slope
    assert kinds["work of switching off"].mean > 0


def test_classes_and_halves_that_are_asked_for():
    """Bundled digits: a frozen input says which class, or half of an image is given."""
    quick = {"hidden": 64, "pictures": 30, "dt": 0.005}
    whole = computer.generate(**quick, conditional=True)
    assert whole.bias.shape == (1, 3, 128)
    quality = whole.quality("closed-form")
    assert quality["obeyed"].mean > 0.9
    assert quality["inverted"].mean == 0
    half = computer.generate(**quick, clamped="upper")
    given = half.x[0, ::3, :32]
    assert np.ptp(given, axis=0).max() == 0  # image 0, every third picture
    assert half.correlations.shape == (1, 30, 3)
    assert half.quality("closed-form")["obeyed"].mean > 0.9
    assert np.abs(half.residual).max() < 1e-2


def test_a_judge_has_not_seen_what_was_learned():
    x, y = images()
    data = task().data
    judge = Judge.of(data, 4)
    assert len(judge.known) == len(data.x) - 12
    assert judge.accuracy > 0.9
    assert np.array_equal(judge(x[:6].reshape(6, -1)), y[:6])


def test_images_of_ones_own(tmp_path):
    """Colour pictures of any shape, with labels or without, one class, one picture: nothing is held out of so few."""
    rng = np.random.default_rng(5)
    for name in ("a/1", "a/2", "b/1", "flat/1", "flat/2", "one/1"):
        path = tmp_path / ("kinds" if name[1] == "/" else "") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (3, 9, 3), dtype=np.uint8)).save(path)
    quick = {"hidden": 8, "pictures": 4, "dt": 0.01}
    kinds = computer.generate(dataset=str(tmp_path / "kinds"), images=1, **quick)
    assert kinds.classes == ("a", "b")
    assert kinds.shape == (3, 9)
    assert len(computer.generate(dataset=str(tmp_path / "kinds"), classes=("a",), images=2, **quick).labels) == 2
    flat = computer.generate(dataset=str(tmp_path / "flat"), clamped="left", **quick)
    assert flat.classes == ("0", "1")
    assert np.isnan(flat.judge_accuracy)
    assert "none held out" in flat.summary()
    one = computer.generate(dataset=str(tmp_path / "one"), conditional=True, **quick)
    assert one.quality("closed-form")["obeyed"].mean == 1
    for figure in one.figures().values():
        figure.draw_without_rendering()
    assert computer.generate(rng.random((1, 1, 5)), **quick).prototypes.shape == (1, 5)
    every_third = computer.generate(rng.random((12, 6)), np.arange(12) % 3, classes=(2,), **quick)
    assert every_third.classes == ("2",)


def test_the_judge_knows_nothing_without_contrast():
    x, y = images()
    x[30] = 1.0
    assert np.isfinite(computer.generate(x, y, **SMALL).judge_accuracy)


def test_the_command(tmp_path):
    words = ("computer", "generate", "--hidden", 24, "--pictures", 10, "--dt", 0.005, "--classes", "3,7")
    words += ("--rules", "closed-form,untrained")
    done = command(*words, "--out", "a.h5", "--animate", "a.gif", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["results"][0]["correlation"]["mean"] > 0.7
    assert [one["class"] for one in report["results"][0]["classes"]] == ["3", "7"]
    assert all((tmp_path / name).stat().st_size > 5000 for name in [*report["pictures"], "a.gif"])
    with undrawn():
        for other in ("plot", "verify", "inspect", "resume"):
            assert command(other, "a.h5", folder=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--dt", "0.3"), "--duration is 2.5, which is no whole number"),
        (("--dt", "0.25"), "--dt is 0.25, too large for forces"),
        (("--codes", "pixels", "--hidden", "65"), "--hidden is 65, but codes are pixels, of which there are 64"),
        (("--images", "1e6"), "--images is 1000000; the smallest class of digits has"),
        (("--rules", "magic"), "--rules is 'magic'; it must be"),
        (("--rules", "published", "--rounds", "1e9"), "--rounds is 1000000000"),
        (("--duration", "0.002"), "it must be at least 4"),
        (("--kT", "0"), "--kT is 0"),
        (("--rules", "adjoint", "--updates", "1e9"), "--updates is 1000000000"),
        (("--machines", "0"), "--machines is 0"),
        (("--rules", "closed-form,magic"), "--rules is 'magic'; it must be"),
        (("--classes", "1,cat"), "--classes asks for cat, which digits does not have"),
        (("--classes", "1,"), "'--classes': '1,'; give words with commas between"),
        (("--animate", "no/a.gif"), "but the folder no does not exist"),
        (("--animate", "a.mp4"), "--animate is a.mp4, which ends in '.mp4'"),
    ],
)
def test_what_cannot_run_is_one_sentence(tmp_path, words, sentence):
    refused(command("computer", "generate", *words, folder=tmp_path), sentence)
    assert list(tmp_path.iterdir()) == []


def test_images_without_contrast_and_halves_without_pixels_are_refused():
    x, y = images()
    x[0] = 1.0
    with pytest.raises(InputError, match="the same everywhere"):
        computer.generate(x, y, **SMALL)
    x, _ = images()
    with pytest.raises(InputError, match="have no such half"):
        computer.generate(x[:, :1].reshape(60, 4)[:, :3], y, **SMALL, clamped="upper")


def test_a_rate_that_is_too_large_is_told():
    with pytest.raises(RunError, match="the online rule diverged at trajectory"):
        run(rules="online", rate=50.0)


@pytest.mark.slow
def test_three_digits_of_mnist_come_the_right_way_up(mnist):
    """Full size, closed form: at least 95 of 100 signed correlations of 0.7 or more, none negative."""
    result = computer.generate(dataset="mnist", hidden=512)
    quality = result.quality("closed-form")
    assert quality["good"].mean >= 0.95
    assert quality["inverted"].mean == 0
    assert quality["prototypes"].mean > 2.5
    assert np.abs(result.residual).max() < 1e-5 * np.abs(result.heat).max()


@pytest.mark.slow
def test_the_published_machine_gives_off_the_published_heat(mnist):
    """Whitelam 2026: 1,200 to 1,400 kT a picture; and without anything that breaks the evenness, half are inverted."""
    published = {"codes": "pixels", "biases": "hidden", "field": 0.0}
    result = computer.generate(dataset="mnist", hidden=512, rules="published", **published)
    heat = result.energies("published")["heat of generating"]
    assert 1200 - 4 * heat.stderr < -heat.mean < 1400 + 4 * heat.stderr
    assert 0.2 < result.quality("published")["inverted"].mean < 0.8
